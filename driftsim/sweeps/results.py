"""Reading a store: groups, a pivot, the best of each group, paired differences with intervals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from driftsim.errors import InputError
from driftsim.statistics import LEVEL
from driftsim.sweeps.best import best_settings, group_means
from driftsim.sweeps.rows import CONDITION, column, numbers, settings, varying, where

BOOTSTRAPS = 2000


def view(
    rows: pd.DataFrame,
    metrics: Sequence[str],
    by: Sequence[str] = (),
    *,
    pivot: str | None = None,
    best: str | None = None,
    paired: str | None = None,
) -> pd.DataFrame:
    """The mean of each of ``metrics`` for each combination of ``by`` (default: of what varies), or another view.

    pivot: ``ROWS,COLUMNS``, the first metric over the two. best: the setting with the best mean of this metric in each
    group, see ``best_settings``. paired: ``ONE/OTHER``, two conditions, the paired change of every metric. Raises
    ``InputError`` for a column that is not there, and for a view that is misspelt.
    """
    if paired is not None:
        one, other = _two_settings(rows, paired)
        if "trace_digest" not in rows or any(part.startswith("trace") for part in one):
            rows = rows.assign(trace_digest="")  # two traces are paired by all else
        with np.errstate(divide="ignore", invalid="ignore"):
            changes = [{"metric": name} | paired_change(rows, one, other, name) for name in metrics]
        return pd.DataFrame(changes)
    if best is not None:
        return best_settings(rows, by, best)
    if pivot is not None:
        return _pivoted(rows, *_two_columns(rows, pivot), metrics[0])
    return group_means(rows, list(by) or settings(rows) or ["policy"][: "policy" in rows], metrics)


def averaged_over(rows: pd.DataFrame, shown: Sequence[str]) -> list[str]:
    """What differs between ``rows`` and is not among the columns ``shown``: a mean over the rest is over these, too."""
    return [name for name in settings(rows) if name not in shown]


def _two_settings(rows: pd.DataFrame, paired: str) -> tuple[list[str], list[str]]:
    """The conditions on either side of the slash of ``paired``; a value may hold a slash, as a path does."""
    for place, sign in enumerate(paired):
        sides = paired[:place].split(","), paired[place + 1 :].split(",")
        names = [found and found["name"].strip() for side in sides for found in map(CONDITION.fullmatch, side)]
        if sign == "/" and all(name in rows for name in names):
            return sides
    named = [part.split(",") for part in paired.split("/")]
    if len(named) == 2:
        for side in named:
            where(rows, side)  # says which column is not there
    raise InputError(f"--paired {paired}: give two settings, as policy=fifo/policy=sjf")


def _pivoted(rows: pd.DataFrame, down: str, across: str, metric: str) -> pd.DataFrame:
    """The mean of ``metric`` for each value of ``down``, a column for each of ``across``; no value is ``none``."""
    values = numbers(rows, metric)
    if values.isna().all():
        raise InputError(f"column {metric!r} is empty in all {len(rows)} runs; name another with --metrics")
    table = values.groupby([rows[down], rows[across]], dropna=False, sort=True).mean().unstack()
    table.columns = pd.Index(["none" if pd.isna(name) else name for name in table.columns], dtype=object)
    return table.reset_index()


def _two_columns(rows: pd.DataFrame, pivot: str) -> tuple[str, str]:
    down, sign, across = (part.strip() for part in pivot.partition(","))
    if not sign or "," in across or down == across:
        raise InputError(f"--pivot {pivot}: give two columns, as rate_scale,policy")
    for name in (down, across):
        column(rows, name)
    return down, across


def paired_change(table: pd.DataFrame, one: Sequence[str], other: Sequence[str], metric: str) -> dict[str, float]:
    """The relative change of ``metric`` from the runs of ``one`` to those of ``other``, with a bootstrap interval.

    ``one`` and ``other`` are conditions. Runs are paired by everything else that varies, the draw of the workload
    above all. Raises ``InputError`` if no pair is left.
    """
    column(table, metric)
    left, right = where(table, one), where(table, other)
    fixed = {condition.partition("=")[0].strip() for condition in (*one, *other)}
    names = [name for name in varying(table) if name not in fixed] or ["trace_digest"]
    if metric in names or not pd.api.types.is_numeric_dtype(table[metric]):
        raise InputError(f"column {metric!r} is no result whose change can be told; name a metric, such as e2e_mean_s")
    pairs = left.merge(right, on=names, suffixes=("_one", "_other"))
    if pairs.empty:
        raise InputError(f"no runs of {', '.join(one)} and {', '.join(other)} that are alike otherwise")
    ratios = np.log((pairs[f"{metric}_other"] / pairs[f"{metric}_one"]).to_numpy(dtype=float))
    random = np.random.default_rng(0)
    drawn = ratios[random.integers(0, len(ratios), (BOOTSTRAPS, len(ratios)))].mean(axis=1)
    low, high = np.percentile(drawn, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return {
        "pairs": len(pairs),
        "change": float(np.expm1(ratios.mean())),
        "low": float(np.expm1(low)) if len(ratios) > 1 else float("nan"),
        "high": float(np.expm1(high)) if len(ratios) > 1 else float("nan"),
    }
