"""The rows of a store: what was asked of each run, what of it differs, and for which rows a condition holds."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pandas as pd

from driftsim.errors import InputError
from driftsim.glossary import FAIRNESS, SLO, TENANT_FAIRNESS
from driftsim.simulation.spec import ScenarioSpec

REPEATS = ("seed", "replication", "resampling")  # by which a setting is run again
ASKED = {name: place for place, name in enumerate([*ScenarioSpec.model_fields, "plugins"])}
CONDITION = re.compile(r"(?P<name>.*?)(?P<sign>!=|<=|>=|=|<|>)(?P<wanted>.*)", re.DOTALL)
ASKED_FOR = (  # metrics that a row has only where the scenario asks for them
    (SLO, "no run has SLOs", 'slos = "e2e=30s"'),
    ((*FAIRNESS, *TENANT_FAIRNESS), "no run was asked for fairness", "fairness = true"),
)
NOTHING = ("", "none")  # what a condition calls an empty cell


def where(table: pd.DataFrame, conditions: Sequence[str]) -> pd.DataFrame:
    """Rows for which every condition holds: ``column=value``, ``!=``, ``<``, ``<=``, ``>`` or ``>=``.

    ``column=none`` holds where the cell is empty. Raises ``InputError`` for a condition that is none, or a column that
    is not there.
    """
    for condition in conditions:
        found = CONDITION.fullmatch(condition)
        if found is None:
            raise InputError(f"condition {condition!r}: is none; write column=value, or one of !=, <, <=, >, >=")
        name, sign, wanted = (found[part].strip() for part in ("name", "sign", "wanted"))
        table = table[_holds(column(table, name), sign, wanted, condition).to_numpy(dtype=bool)]
    return table


def _holds(series: pd.Series, sign: str, wanted: str, condition: str) -> pd.Series:
    """For which cells of ``series`` the condition holds; for an empty cell only ``!=`` does."""
    value: object
    if wanted.lower() in NOTHING and sign in ("=", "!="):
        return series.isna() if sign == "=" else series.notna()
    if pd.api.types.is_numeric_dtype(series) and not pd.api.types.is_bool_dtype(series):
        try:
            value = float(wanted)
        except ValueError:
            raise InputError(f"condition {condition!r}: {series.name} holds numbers, {wanted!r} is none") from None
    else:
        series = series.astype(str).where(series.notna(), None)
        truths = set(series.dropna()) <= {"True", "False"}
        value = wanted.capitalize() if truths else wanted
    if sign == "=":
        return series == value
    if sign == "!=":
        return series != value
    known = series.notna()
    compared = {"<": np.less, "<=": np.less_equal, ">": np.greater, ">=": np.greater_equal}[sign]
    held = pd.Series(False, index=series.index)
    held[known] = compared(series[known].to_numpy(), value)
    return held


def needed(columns: Mapping[str, bool], named: Collection[str]) -> Collection[str]:
    """Those of a store's ``columns`` that a view of the columns ``named`` rests on: what differs between runs as well.

    All, where one of ``named`` is not there, so that the error lists them. Each of ``columns`` comes with whether it
    may differ between rows; what was asked of all runs alike is left out, but for what tells how they were drawn.

    >>> list(needed({"key": True, "policy": True, "estimator": False, "noise": True, "mae": True}, ["policy"]))
    ['key', 'policy', 'noise']
    """
    if not set(named) <= set(columns):
        return columns
    kept = {"key", "failed", "policy", "trace", "trace_digest", "profile", "profile_digest", "warnings"}
    kept |= {*REPEATS, *named}
    heads = {name: name.partition(".")[0] for name in columns}
    return [
        name
        for name, differs in columns.items()
        if name in kept or heads[name] == "workload" or (differs and heads[name] in ASKED)
    ]


def names_in(conditions: Sequence[str]) -> list[str]:
    """The columns that ``conditions`` name."""
    return [found["name"].strip() for found in map(CONDITION.fullmatch, conditions) if found is not None]


def asks_failures(conditions: Sequence[str]) -> bool:
    """Whether ``conditions`` ask for the runs that failed."""
    return any(condition.replace(" ", "").lower() == "failed=true" for condition in conditions)


def select(table: pd.DataFrame, conditions: Sequence[str], store: str) -> pd.DataFrame:
    """The rows of a ``store`` for which ``conditions`` hold; raises ``InputError`` if none does, or all have failed."""
    rows = where(table, conditions)
    if rows.empty:
        raise InputError(f"{store}: no row {'fits ' + ' and '.join(conditions) if conditions else 'yet'}")
    if rows["failed"].astype(bool).all() and not asks_failures(conditions):
        raise InputError(f"{store}: all {len(rows)} runs failed; --where failed=True says why")
    return rows


def column(table: pd.DataFrame, name: str) -> pd.Series:
    """The column ``name``. Raises ``InputError`` that lists those that are there, or says how to get the metric."""
    if name not in table:
        for metrics, lacks, how in ASKED_FOR:
            if any(f"_{name}".endswith(f"_{metric.name}") for metric in metrics) and metrics[0].name not in table:
                raise InputError(f"no column {name!r}: {lacks}; set {how} in the grid and sweep again")
        raise InputError(f"no column {name!r}; there are {', '.join(sorted(map(str, table)))}")
    return table[name]


def numbers(table: pd.DataFrame, name: str) -> pd.Series:
    """The column ``name`` as numbers. Raises ``InputError`` where it holds none."""
    values = column(table, name)
    if not pd.api.types.is_numeric_dtype(values) and values.notna().any():
        raise InputError(f"column {name!r} holds no numbers to average; name a metric, such as e2e_mean_s")
    return values.astype(float).where(lambda known: np.isfinite(known))


def varying(table: pd.DataFrame) -> list[str]:
    """The parameters that differ between rows: what the sweep was over, in the order of a scenario's keys.

    Tiers that differ in more than one of their keys are one parameter, ``tiers``; else it is that key.
    """
    asked = [name for name in map(str, table) if name.partition(".")[0] in ASKED]
    found = [name for name in asked if table[name].nunique(dropna=False) > 1]
    tiers = [name for name in found if name.startswith("tiers.")]
    if "tiers" in found:
        found = [name for name in found if name not in (tiers if len(tiers) != 1 else ["tiers"])]
    return sorted(found, key=lambda name: ASKED[name.partition(".")[0]])


def settings(table: pd.DataFrame) -> list[str]:
    """The same without what only repeats a setting, ``REPEATS``."""
    return [name for name in varying(table) if name not in REPEATS]


def untold(table: pd.DataFrame) -> int:
    """How many rows are as another one in all that is told of them, though the two are different runs."""
    names = varying(table) or ["key"]
    return int(table.duplicated(names).sum()) if set(names) <= set(table) else 0


def drawn(table: pd.DataFrame) -> pd.Series:
    """Which rows ran a workload that was drawn: each replication is then an independent draw, not a resample."""
    keys = [name for name in map(str, table) if name.startswith("workload.")]
    return table[keys].notna().any(axis=1) if keys else pd.Series(False, table.index)
