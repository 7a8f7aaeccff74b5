"""Reading a store: filter, group, pivot, the best of each group, paired differences with intervals, figures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from driftsim.errors import InputError
from driftsim.statistics import LEVEL

BOOTSTRAPS = 2000


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
    others = [name for name in varying(table) if name not in by and name not in ("replication", "seed")]
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
    axes = [name for name in varying(rows) if name not in ("replication", "seed")]
    return group_means(rows, list(by) or axes or ["policy"], metrics)


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
