"""Reading a store: filter, group, pivot, the best of each group, paired differences with intervals, figures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from driftsim.errors import InputError
from driftsim.statistics import Day, Interval, mean_interval, over_days

DRAW = ("trace_digest", "seed", "replication", "resampling")  # what a run was drawn from
REPEATS = ("replication", "resampling", "seed")  # what makes a run another draw of the same setting
WORKLOAD = ("workload.kind",)


def where(table: pd.DataFrame, conditions: Sequence[str]) -> pd.DataFrame:
    """Rows for which every condition holds: ``column=value``, ``!=``, ``<``, ``<=``, ``>`` or ``>=``.

    Raises ``InputError`` for a condition that is none, or a column that is not there.
    """
    for condition in conditions:
        sign = next((sign for sign in ("!=", "<=", ">=", "=", "<", ">") if sign in condition), None)
        if sign is None:
            raise InputError(f"condition {condition!r}: is none; write column=value, or one of !=, <, <=, >, >=")
        name, _, wanted = (part.strip() for part in condition.partition(sign))
        series = column(table, name)
        if pd.api.types.is_numeric_dtype(series) and not pd.api.types.is_bool_dtype(series):
            try:
                value: object = float(wanted)
            except ValueError:
                raise InputError(f"condition {condition!r}: {name} holds numbers, {wanted!r} is none") from None
        else:
            series, value = series.astype(str), wanted
        kept = {
            "=": series == value, "!=": series != value, "<": series < value,
            "<=": series <= value, ">": series > value, ">=": series >= value,
        }[sign]  # fmt: skip
        table = table[kept]
    return table


def asks_failures(conditions: Sequence[str]) -> bool:
    """Whether ``conditions`` ask for the runs that failed."""
    return any(condition.replace(" ", "") == "failed=True" for condition in conditions)


def select(table: pd.DataFrame, conditions: Sequence[str], store: str) -> pd.DataFrame:
    """The rows of a ``store`` for which ``conditions`` hold; raises ``InputError`` if none does, or all have failed."""
    rows = where(table, conditions)
    if rows.empty:
        raise InputError(f"{store}: no row {'fits ' + ' and '.join(conditions) if conditions else 'yet'}")
    if rows["failed"].all() and not any("failed" in condition for condition in conditions):
        raise InputError(f"{store}: all {len(rows)} runs failed; --where failed=True says why")
    return rows


def column(table: pd.DataFrame, name: str) -> pd.Series:
    """The column ``name``. Raises ``InputError`` that lists those that vary."""
    if name not in table:
        raise InputError(f"no column {name!r}; there are {', '.join(sorted(map(str, table)))}")
    return table[name]


def varying(table: pd.DataFrame) -> list[str]:
    """The parameters that differ between rows: what the sweep was over."""
    names = list(table.columns)
    end = names.index("offered") if "offered" in names else len(names)
    skipped = {
        "key",
        "failed",
        "error",
        "reproduce",
        "duration_s",
        "driftsim_version",
        "trace_digest",
        "profile_digest",
    }
    return [name for name in names[:end] if name not in skipped and table[name].nunique(dropna=False) > 1]


def group_means(table: pd.DataFrame, by: Sequence[str], metrics: Sequence[str]) -> pd.DataFrame:
    """Mean of each metric, and how many runs, for each combination of ``by``."""
    for name in (*by, *metrics):
        values = column(table, name)
        if name in metrics and not pd.api.types.is_numeric_dtype(values):
            raise InputError(f"column {name!r} holds no numbers to average; name a metric, such as e2e_mean_s")
    groups = table.groupby(list(by), dropna=False, sort=True)
    return groups[list(metrics)].mean().assign(runs=groups.size()).reset_index()


def best_settings(table: pd.DataFrame, by: Sequence[str], metric: str) -> pd.DataFrame:
    """The setting with the smallest mean of ``metric`` in each group of ``by``."""
    column(table, metric)
    others = [name for name in varying(table) if name not in by and name not in REPEATS]
    means = group_means(table, [*by, *others], [metric])
    if not by:
        return means.nsmallest(1, metric)
    places = means.groupby(list(by), dropna=False)[metric].idxmin()
    return means.loc[places.dropna()].reset_index(drop=True)


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

    pivot: ``ROWS,COLUMNS``, the first metric over the two. best: the setting with the least of this metric in each
    group. paired: ``ONE/OTHER``, two conditions, the paired change of every metric. Raises ``InputError`` for a column
    that is not there, and for a view that is misspelt.
    """
    if paired is not None:
        one, sign, other = paired.partition("/")
        if not sign:
            raise InputError(f"--paired {paired}: give two settings, as policy=fifo/policy=sjf")
        changes = [{"metric": name} | paired_change(rows, one.split(","), other.split(","), name) for name in metrics]
        return pd.DataFrame(changes)
    if best is not None:
        return best_settings(rows, by, best)
    if pivot is not None:
        down, sign, across = (part.strip() for part in pivot.partition(","))
        if not sign or "," in across:
            raise InputError(f"--pivot {pivot}: give two columns, as rate_scale,policy")
        for name in (down, across, metrics[0]):
            column(rows, name)
        return rows.pivot_table(index=down, columns=across, values=metrics[0], aggfunc="mean").reset_index()
    axes = [name for name in varying(rows) if name not in REPEATS]
    return group_means(rows, list(by) or axes or ["policy"], metrics)


def paired_change(table: pd.DataFrame, one: Sequence[str], other: Sequence[str], metric: str) -> dict[str, Any]:
    """The relative change of ``metric`` from the runs of ``one`` to those of ``other``, with its interval.

    ``one`` and ``other`` are conditions. Runs are paired by everything else that varies, the draw of the workload
    above all; pairs of one draw under several other settings count as one, their mean. Of a recorded trace the
    interval is that of ``compare`` (``statistics.over_days``), which does not shrink with the number of resamples;
    independent draws of a workload are independent. ``basis`` says what it rests on. Raises ``InputError`` if no pair
    is left.
    """
    column(table, metric)
    left, right = where(table, one), where(table, other)
    fixed = {condition.partition("=")[0].strip() for condition in (*one, *other)}
    names = [name for name in varying(table) if name not in fixed]
    names = list(dict.fromkeys([*names, *(name for name in (*DRAW, *WORKLOAD) if name in table)]))
    if metric in names or not pd.api.types.is_numeric_dtype(table[metric]):
        raise InputError(f"column {metric!r} is no result whose change can be told; name a metric, such as e2e_mean_s")
    pairs = left.merge(right, on=names, suffixes=("_one", "_other"))
    if pairs.empty:
        raise InputError(f"no runs of {', '.join(one)} and {', '.join(other)} that are alike otherwise")
    pairs["ratio"] = pairs[f"{metric}_other"].astype(float) / pairs[f"{metric}_one"].astype(float) - 1
    drawn = [name for name in (*DRAW, *WORKLOAD) if name in pairs]
    ratios = pairs.groupby(drawn, dropna=False)["ratio"].mean().reset_index()
    interval, basis = _interval(ratios)
    return {
        "pairs": len(pairs),
        "change": interval.value,
        "low": interval.low,
        "high": interval.high,
        "basis": basis,
    }


def _interval(ratios: pd.DataFrame) -> tuple[Interval, str]:
    """The mean over days of ``ratios``, one a draw, and what its interval rests on."""
    kinds = ratios["resampling"] if "resampling" in ratios else pd.Series("circular", index=ratios.index)
    number = ratios["replication"] if "replication" in ratios else pd.Series(0, index=ratios.index)
    drawn = ratios["workload.kind"].notna() if "workload.kind" in ratios else pd.Series(False, index=ratios.index)
    values = ratios["ratio"].to_numpy()
    if drawn.all():
        return mean_interval(values), f"{len(values)} independent draws"
    if drawn.any():
        return Interval(float(values.mean()), math.nan, math.nan), "no interval: traces and drawn workloads in one"
    days = []
    day = ratios["trace_digest"] if "trace_digest" in ratios else pd.Series("", index=ratios.index)
    for _, own in ratios.groupby(day, sort=False):
        of = {
            kind: values[own.index[(number[own.index] > 0) & (kinds[own.index].fillna("circular") == kind)]]
            for kind in ("local", "circular")
        }
        recorded = values[own.index[number[own.index] == 0]]
        days.append(Day(float(recorded.mean()) if len(recorded) else math.nan, of["local"], of["circular"]))
    if min(min(len(day.local), len(day.circular)) for day in days) < 2:
        middle = [
            day.recorded if not math.isnan(day.recorded) else np.mean([*day.local, *day.circular]) for day in days
        ]
        why = "no interval: it needs both kinds of resamples, replications = 3 or more in the grid"
        return Interval(float(np.mean(middle)), math.nan, math.nan), why
    each = min(min(len(day.local), len(day.circular)) for day in days)
    counted = f"2 x {each} resamples of {len(days)} recorded day{'s' * (len(days) > 1)}"
    return over_days(days).interval, counted
