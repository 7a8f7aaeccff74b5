"""Reading a store: groups, a pivot, the best of each group, paired differences with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from driftsim.errors import InputError
from driftsim.sweeps.best import best_settings, group_means
from driftsim.sweeps.rows import CONDITION, REPEATS, column, numbers, settings, varying, where
from driftsim.sweeps.spread import draws_of, interval_over


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
            if sorted(sides[0]) == sorted(sides[1]):
                raise InputError(f"--paired {paired}: both sides are one setting; give two, as policy=fifo/policy=sjf")
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


def paired_change(table: pd.DataFrame, one: Sequence[str], other: Sequence[str], metric: str) -> dict[str, Any]:
    """The relative change of ``metric`` from the runs of ``one`` to those of ``other``, with its interval.

    ``one`` and ``other`` are conditions. Runs are paired by everything else that varies, the draw of the workload
    above all; pairs of one draw under several other settings count as one, their mean. The interval is that of
    ``compare``; ``basis`` says what it rests on. Raises ``InputError`` if no pair is left.
    """
    column(table, metric)
    left, right = where(table, one), where(table, other)
    fixed = {condition.partition("=")[0].strip() for condition in (*one, *other)}
    drawn_by = [name for name in ("trace_digest", *REPEATS) if name in table]
    names = list(dict.fromkeys([*(name for name in varying(table) if name not in fixed), *drawn_by]))
    if metric in names or not pd.api.types.is_numeric_dtype(table[metric]):
        raise InputError(f"column {metric!r} is no result whose change can be told; name a metric, such as e2e_mean_s")
    draws = draws_of(left).add_prefix("_")
    pairs = left.join(draws).merge(right, on=names, suffixes=("_one", "_other"))
    if pairs.empty:
        raise InputError(f"no runs of {', '.join(one)} and {', '.join(other)} that are alike otherwise")
    pairs["_ratio"] = pairs[f"{metric}_other"].astype(float) / pairs[f"{metric}_one"].astype(float) - 1
    ratios = pairs.groupby([*drawn_by, *draws], dropna=False)["_ratio"].mean().reset_index()
    told = ratios[list(draws)].rename(columns=lambda name: name.removeprefix("_"))
    (change, low, high), basis = interval_over(ratios["_ratio"].to_numpy(), told)
    return {"pairs": len(pairs), "change": change, "low": low, "high": high, "basis": basis}
