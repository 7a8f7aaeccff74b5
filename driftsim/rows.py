"""Requests' tables as metrics look at them: columns as arrays, and functions that take either."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol, Self, TypeAlias, cast, overload

import numpy as np
import pandas as pd

READ = (
    "tier", "phase", "tenant", "finish_reason", "category", "predicted_category", "predicted_category_unlabelled",
    "prompt_tokens", "prompt_words", "output_tokens", "output_words", "estimate", "budget", "scheduling_class",
    "arrival_s", "dispatch_s", "scheduled_s", "first_token_s", "finish_s", "preemptions",
)  # fmt: skip


class Columns:
    """Columns of a requests' table as arrays, numbers as floats, NaN where empty: looked at without a table's cost.

    ``columns["tier"]`` is an array, ``columns[mask]`` are the rows of a mask.
    """

    def __init__(self, columns: Mapping[str, np.ndarray]) -> None:
        self._columns = columns

    @classmethod
    def of(cls, table: pd.DataFrame) -> Self:
        """The columns of ``table`` that metrics read."""
        arrays = {}
        for name in READ:
            values = table[name]
            text = values.dtype == object
            arrays[name] = values.to_numpy() if text else values.to_numpy(dtype=float, na_value=np.nan)
        return cls(arrays)

    @overload
    def __getitem__(self, what: str) -> np.ndarray: ...
    @overload
    def __getitem__(self, what: np.ndarray) -> Columns: ...
    def __getitem__(self, what: str | np.ndarray) -> np.ndarray | Columns:
        if isinstance(what, str):
            return self._columns[what]
        if what.all():
            return self
        return Columns({name: values[what] for name, values in self._columns.items()})

    def __len__(self) -> int:
        return len(self._columns["tier"])


Rows: TypeAlias = "pd.DataFrame | Columns"
Values: TypeAlias = "pd.Series | np.ndarray"


class Rowwise(Protocol):
    """What there is for each row: a Series of a DataFrame, an array of ``Columns``."""

    @overload
    def __call__(self, rows: pd.DataFrame) -> pd.Series: ...
    @overload
    def __call__(self, rows: Columns) -> np.ndarray: ...


def rowwise(function: Callable[[Rows], Values]) -> Rowwise:
    """``function`` itself; its types say that what comes out is of the kind that went in."""
    return cast(Rowwise, function)
