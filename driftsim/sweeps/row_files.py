"""A Parquet file of a store holds rows of finished runs, each with its key and whether it failed."""

from __future__ import annotations

import os
import uuid
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import pandas as pd

from driftsim.errors import InputError

if TYPE_CHECKING:
    from pyarrow.parquet import FileMetaData

Only: TypeAlias = tuple[type, Any] | None
UNREADABLE = (OSError, ValueError, KeyError, TypeError, NotImplementedError)


def columns_of(file: Path) -> dict[str, Only]:
    """The columns of a Parquet file of a store, each with the only value that it has, or ``None`` where it has several.

    The value comes from what the file tells of itself, in a tuple with its type; no row is read. Nothing where the file
    cannot be read, which ``read_rows`` tells.
    """
    import pyarrow.parquet as pq

    try:
        names = [str(name) for name in pq.read_schema(file).names]
    except UNREADABLE:
        return {}
    try:
        told = pq.read_metadata(file)
        ours = b"pandas" in (told.metadata or {})  # which writes no NaN as a value: the statistics do not count these
        if not ours or len(names) != told.num_columns or not told.num_row_groups:
            return dict.fromkeys(names)
        return {name: _only_value(told, place) for place, name in enumerate(names)}
    except UNREADABLE:
        return dict.fromkeys(names)


def _only_value(told: FileMetaData, place: int) -> Only:
    """The value of all rows in the column at ``place``, as the statistics of its parts have it."""
    found = set[tuple[type, Any]]()
    for number in range(told.num_row_groups):
        known = told.row_group(number).column(place).statistics
        if known is None or not known.has_min_max or known.null_count != 0:
            return None
        found |= {(type(known.min), known.min), (type(known.max), known.max)}
    return found.pop() if len(found) == 1 else None


def read_rows(file: Path, columns: Collection[str]) -> pd.DataFrame | None:
    """Those of ``columns`` that a Parquet file of a store has; None where the file has gone.

    Raises ``InputError`` where it is none.
    """
    import pyarrow.parquet as pq

    try:
        there = pq.read_schema(file).names
        table = pd.read_parquet(file, columns=[name for name in there if name in columns])
        keyed = len(set(there)) == len(there) and _all_texts(table["key"])
        plain = keyed and table["failed"].dtype == bool
    except FileNotFoundError:
        return None
    except UNREADABLE as error:
        why = f"not readable as rows of a store ({' '.join(str(error).split()):.100})"
    else:
        if plain:
            return table.reset_index(drop=True)
        why = "holds no rows of a store, each with its key and whether it failed"
    raise InputError(f"{file}: {why}; remove the file, and its runs are done again")


def _all_texts(values: pd.Series) -> bool:
    if isinstance(values.dtype, pd.StringDtype):
        return not values.hasnans
    return bool(values.map(lambda value: isinstance(value, str)).all())


def write_rows(table: pd.DataFrame, file: Path) -> None:
    """Write ``table`` as Parquet, whole or not at all, and on the disk when this returns."""
    aside = file.with_name(f".{uuid.uuid4().hex}.parquet")
    try:
        table.to_parquet(aside, index=False, compression="zstd")
        with aside.open("rb") as handle:
            os.fsync(handle.fileno())
        aside.replace(file)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
