"""Reading a store: filter, group, pivot, the best of each group, paired differences with intervals, figures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

BOOTSTRAPS = 2000
LEVEL = 0.95
NOT_ASKED = {
    "key", "failed", "error", "reproduce", "duration_s", "driftsim_version", "trace_digest", "profile_digest",
}  # fmt: skip


def filtered(table: pd.DataFrame, conditions: Sequence[str]) -> pd.DataFrame:
    """Rows for which every condition holds: ``column=value``, ``!=``, ``<``, ``<=``, ``>`` or ``>=``.

    Raises ``ValueError`` for a condition that is none, or a column that is not there.
    """
    for condition in conditions:
        sign = next((sign for sign in ("!=", "<=", ">=", "=", "<", ">") if sign in condition), None)
        if sign is None:
            raise ValueError(f"condition {condition!r}: is none; write column=value, or one of !=, <, <=, >, >=")
        name, _, wanted = (part.strip() for part in condition.partition(sign))
        column = known(table, name)
        if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
            try:
                value: object = float(wanted)
            except ValueError:
                raise ValueError(f"condition {condition!r}: {name} holds numbers, {wanted!r} is none") from None
        else:
            column, value = column.astype(str), wanted
        kept = {
            "=": column == value, "!=": column != value, "<": column < value,
            "<=": column <= value, ">": column > value, ">=": column >= value,
        }[sign]  # fmt: skip
        table = table[kept]
    return table


def known(table: pd.DataFrame, name: str) -> pd.Series:
    """The column ``name``. Raises ``ValueError`` that lists those that vary."""
    if name not in table:
        raise ValueError(f"no column {name!r}; there are {', '.join(sorted(map(str, table)))}")
    return table[name]


def varying(table: pd.DataFrame) -> list[str]:
    """The parameters that differ between rows: what the sweep was over."""
    names = list(table)
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


def grouped(table: pd.DataFrame, by: Sequence[str], metrics: Sequence[str]) -> pd.DataFrame:
    """Mean of each metric, and how many runs, for each combination of ``by``."""
    for name in (*by, *metrics):
        known(table, name)
    groups = table.groupby(list(by), dropna=False, sort=True)
    return groups[list(metrics)].mean().assign(runs=groups.size()).reset_index()


def best(table: pd.DataFrame, by: Sequence[str], metric: str) -> pd.DataFrame:
    """The setting with the smallest mean of ``metric`` in each group of ``by``."""
    known(table, metric)
    others = [name for name in varying(table) if name not in by and name not in ("replication", "seed")]
    means = grouped(table, [*by, *others], [metric])
    if not by:
        return means.nsmallest(1, metric)
    places = means.groupby(list(by), dropna=False)[metric].idxmin()
    return means.loc[places.dropna()].reset_index(drop=True)


def paired(table: pd.DataFrame, one: Sequence[str], other: Sequence[str], metric: str) -> dict[str, float]:
    """The relative change of ``metric`` from the runs of ``one`` to those of ``other``, with a bootstrap interval.

    ``one`` and ``other`` are conditions. Runs are paired by everything else that varies, the draw of the workload
    above all. Raises ``ValueError`` if no pair is left.
    """
    known(table, metric)
    left, right = filtered(table, one), filtered(table, other)
    fixed = {condition.partition("=")[0].strip() for condition in (*one, *other)}
    names = [name for name in varying(table) if name not in fixed] or ["trace"]
    pairs = left.merge(right, on=names, suffixes=("_one", "_other"))
    if pairs.empty:
        raise ValueError(f"no runs of {', '.join(one)} and {', '.join(other)} that are alike otherwise")
    ratios = np.log(pairs[f"{metric}_other"] / pairs[f"{metric}_one"]).to_numpy(dtype=float)
    random = np.random.default_rng(0)
    drawn = ratios[random.integers(0, len(ratios), (BOOTSTRAPS, len(ratios)))].mean(axis=1)
    low, high = np.percentile(drawn, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return {
        "pairs": len(pairs),
        "change": float(np.expm1(ratios.mean())),
        "low": float(np.expm1(low)) if len(ratios) > 1 else float("nan"),
        "high": float(np.expm1(high)) if len(ratios) > 1 else float("nan"),
    }
