"""Effects of factors in a design that crosses them: differences of runs that are alike in all else, seed by seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from driftsim.statistics import Interval, mean_interval

Scale = Literal["ratio", "difference"]


@dataclass(frozen=True)
class Design:
    """The factors that were crossed, each with its levels; a row of results has a column for each, and its ``seed``.

    >>> rows = pd.DataFrame({"policy": ["fifo", "sjf"] * 2, "seed": [0, 0, 1, 1], "e2e_mean_s": [2.0, 1.0, 4.0, 2.0]})
    >>> Design({"policy": ("fifo", "sjf")}).effect(rows, "policy", "fifo", "sjf", "e2e_mean_s").value
    -0.5
    """

    factors: Mapping[str, Sequence[str]]

    def contrast(
        self, rows: pd.DataFrame, factor: str, low: str, high: str, metric: str, scale: Scale = "ratio"
    ) -> pd.Series:
        """By seed, the mean difference of ``metric`` from ``low`` to ``high`` of ``factor``, pair by pair.

        On the scale ``ratio`` it is the difference of logarithms. Cells that one level lacks are left out.
        """
        known = rows[metric].to_numpy(dtype=float)
        values, levels = np.log(known) if scale == "ratio" else known, rows[factor].to_numpy()
        seeds = np.unique(rows["seed"])
        others = {name: list(own) for name, own in self.factors.items() if name != factor}
        shape = [len(own) for own in others.values()] or [1]
        codes = [pd.Categorical(rows[name], categories=own).codes for name, own in others.items()]
        cells = np.ravel_multi_index(codes or [np.zeros(len(rows), dtype=int)], shape)
        table = np.full((2, len(seeds), int(np.prod(shape))), np.nan)
        for which, level in enumerate((low, high)):
            own_rows = levels == level
            table[which, np.searchsorted(seeds, rows["seed"].to_numpy()[own_rows]), cells[own_rows]] = values[own_rows]
        return pd.Series(np.nanmean(table[1] - table[0], axis=1), index=seeds)

    def effect(
        self, rows: pd.DataFrame, factor: str, low: str, high: str, metric: str, scale: Scale = "ratio"
    ) -> Interval:
        """The contrast with its interval over the seeds: relative, or on the scale ``difference`` as it is."""
        mean = mean_interval(self.contrast(rows, factor, low, high, metric, scale).to_numpy())
        return mean if scale == "difference" else Interval(*map(float, np.expm1(mean)))

    def interaction(
        self,
        rows: pd.DataFrame,
        one: tuple[str, str, str],
        other: tuple[str, str, str],
        metric: str,
        scale: Scale = "ratio",
    ) -> Interval:
        """Half the difference of ``one``'s contrast between the two levels of ``other``; each is factor, low, high.

        As is usual for designs of two levels (Box, Hunter and Hunter 2005); on the scale ``ratio`` in logarithms.
        """
        at = [self.contrast(rows[rows[other[0]] == level], *one, metric, scale) for level in other[1:]]
        return mean_interval(((at[1] - at[0]) / 2).to_numpy())
