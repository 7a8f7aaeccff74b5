"""Kept traces are those of one workload under many settings: what two of them have alike is held once."""

from __future__ import annotations

import numpy as np
import pandas as pd

from driftsim.comparison.plan import Setting
from driftsim.trace.header import Header
from driftsim.trace.trace import Trace


class KeptTraces:
    """Traces of the same requests, without steps, by setting: of all but the first only the columns that differ.

    Most do not: who sent what, and how long it came out, is the same under every policy. A dozen traces of a million
    requests then take about 1 GB, in place of 3 GB, and so does the way of a worker's to the process that started it.
    """

    def __init__(self) -> None:
        self._first: Trace | None = None
        self._kept: dict[Setting, tuple[Header, list[str], dict[str, pd.Series]]] = {}

    def add(self, setting: Setting, trace: Trace) -> None:
        """Keep ``trace``; its table must not be changed from now on."""
        if self._first is None:
            self._first = trace
        common = self._first.requests
        own = {
            str(name): column
            for name, column in trace.requests.items()
            if name not in common or not _alike(column, common[name])
        }
        self._kept[setting] = trace.header, list(map(str, trace.requests)), own

    def traces(self) -> dict[Setting, Trace]:
        """The traces, which share the columns that are alike."""
        if self._first is None:
            return {}
        index = self._first.requests.index
        common = {str(name): column for name, column in self._first.requests.items()}

        def placed(columns: dict[str, pd.Series]) -> dict[str, pd.Series]:
            # On one and the same index: to bring two in line, pandas would make text of a column of objects.
            return {name: pd.Series(one.array, index, one.dtype, copy=False) for name, one in columns.items()}

        return {
            setting: Trace(header, pd.DataFrame({name: whole[name] for name in names}, index, copy=False))
            for setting, (header, names, own) in self._kept.items()
            for whole in [common | placed(own)]
        }


def _alike(one: pd.Series, other: pd.Series) -> bool:
    """Whether two columns hold the same, be it nothing."""
    if one.dtype != other.dtype:
        return False
    if one.dtype == "Int64":
        same = np.array_equal(one.isna(), other.isna())
        return same and np.array_equal(one.to_numpy("int64", na_value=0), other.to_numpy("int64", na_value=0))
    return bool(one.equals(other))
