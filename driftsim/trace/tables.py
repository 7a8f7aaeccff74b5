"""Tables of a trace on disk: Parquet and lines to data frames, in the schema's dtypes."""

from __future__ import annotations

import csv
import io
import os
import sys
import warnings
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from driftsim.errors import TraceError
from driftsim.trace.schema import LARGEST_COUNT, OPTIONAL, SCHEMA_VERSION, TABLES, Column

MOST_ROWS = 100_000_000  # of a table; a few bytes of Parquet may claim any number
ROWS_AT_ONCE = 100_000  # rows converted per write, so that a large table is never held in memory twice


def write_tables(tables: Mapping[str, pd.DataFrame], folder: Path) -> None:
    """Write a trace's ``tables``, by name, into ``folder`` as Parquet; they are on the disk when this returns.

    Raises ``OSError`` if a file cannot be written.
    """
    for name, table in tables.items():
        file = folder / f"{name}.parquet"
        write_table(table, file, _columns(name, table))
        with file.open("rb") as handle:
            os.fsync(handle.fileno())


def _columns(name: str, table: pd.DataFrame) -> tuple[Column, ...] | None:
    """The columns that the ``table`` of that ``name`` is written with; None where the schema says nothing of it."""
    optional = OPTIONAL.get(name, ())
    return (*TABLES[name], *(column for column in optional if column.name in table)) if name in TABLES else None


def read_lines(file: Path, start: float) -> pd.DataFrame | None:
    """A table that grows by lines (CSV), with its first column, a time, counted from ``start``; earlier rows are cut.

    None where there is no such file or it is empty. A torn last line is ignored. Raises ``TraceError`` for another that
    has no time, what is no number, or more values than there are columns.
    """
    if not file.exists():
        return None
    try:
        text = file.read_text(encoding="utf-8")
        whole = text[: text.rfind("\n") + 1]
        if not whole.strip():
            return None
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # more values than columns
            table = pd.read_csv(io.StringIO(whole), quoting=csv.QUOTE_NONE, index_col=False, dtype=float)
    except (ValueError, pd.errors.ParserWarning):  # the parser's own error is a ValueError
        raise TraceError(f"{file}: holds a line that is no row of its table; remove the line") from None
    table[table.columns[0]] -= start
    return table[~(table.iloc[:, 0] < 0)].reset_index(drop=True)


LISTS = {"list of str": "object", "list of int": "int64"}  # kinds whose values are arrays, of this dtype
KINDS: dict[str, Any] = {  # what Arrow calls a column that can hold each kind; an empty one has type null
    "int": lambda types, kind: types.is_integer(kind) or types.is_floating(kind),
    "float": lambda types, kind: types.is_integer(kind) or types.is_floating(kind),
    "str": lambda types, kind: types.is_string(kind) or types.is_large_string(kind) or types.is_dictionary(kind),
    "list of str": lambda types, kind: types.is_list(kind) and (types.is_string(kind.value_type)),
    "list of int": lambda types, kind: types.is_list(kind) and types.is_integer(kind.value_type),
}


def read_table(file: Path, columns: tuple[Column, ...], optional: tuple[Column, ...] = ()) -> pd.DataFrame:
    """The table in ``file``, with exactly ``columns``, and those of the ``optional`` ones that it has behind them.

    Raises ``TraceError`` for any other, naming file, column and remedy; what no trace can be is not read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    unreadable = f"{file}: not readable as Parquet; it is of another kind or not whole, copy it again"
    try:
        opened = pq.ParquetFile(file) if file.is_file() else None
    except (OSError, pa.ArrowException):
        raise TraceError(unreadable) from None
    if opened is None:
        raise TraceError(f"{file}: no such file; the trace is incomplete, copy the whole folder")
    with opened:
        columns = _checked_columns(opened.schema_arrow, file, columns, optional)
        if opened.metadata.num_rows > MOST_ROWS:
            raise TraceError(f"{file}: {opened.metadata.num_rows:,} rows are too many; at most {MOST_ROWS:,} are read")
        try:
            rows = opened.read()
        except (OSError, pa.ArrowException):
            raise TraceError(unreadable) from None
    return pd.DataFrame({column.name: _from_arrow(rows[column.name], column, str(file)) for column in columns})


def _checked_columns(
    schema: Any, file: Path, columns: tuple[Column, ...], optional: tuple[Column, ...]
) -> tuple[Column, ...]:
    """The columns that the table of ``schema`` has. Raises ``TraceError`` where one is missing, foreign or double."""
    import pyarrow as pa

    known = {column.name: column for column in (*columns, *optional)}
    columns = (*columns, *(column for column in optional if column.name in schema.names))
    twice = [name for name in known if schema.names.count(name) > 1]
    if twice:
        raise TraceError(f"{file}: column {twice[0]!r} is there twice; remove one of the two")
    for column in columns:
        kind = schema.field(column.name).type if column.name in schema.names else pa.null()
        if not (pa.types.is_null(kind) or KINDS[column.kind](pa.types, kind)):
            raise TraceError(
                f"{file}: column {column.name} does not hold {column.kind} values but {kind} "
                f"({column.gloss}); convert it"
            )
    _check_all_there(schema.names, columns, str(file))
    foreign = [name for name in schema.names if name not in known]
    if foreign:
        near = [known[name] for name in get_close_matches(foreign[0], known, n=1)]
        meant = f" (the nearest: {near[0].name}, {near[0].gloss})" if near else ""
        raise TraceError(f"{file}: column {foreign[0]!r} is not in schema {SCHEMA_VERSION}{meant}; remove it")
    return columns


def _from_arrow(values: Any, column: Column, where: str) -> pd.Series:
    """A column of a Parquet file in its dtype; what does not fit is named by ``typed``, the slow way."""
    import pyarrow as pa

    empty = values.null_count > 0
    if column.kind in LISTS:
        return _lists_from_arrow(values.combine_chunks(), column, where)
    plain = {"int": pa.int64(), "float": pa.float64(), "str": pa.string()}[column.kind]
    if values.type != plain or (empty and not column.nullable):
        return _typed_column(values.to_pandas(integer_object_nulls=True), column, where)
    if column.kind == "str":
        coded = values.combine_chunks().dictionary_encode()
        return _shared(
            coded.indices.fill_null(-1).to_numpy(zero_copy_only=False),
            coded.dictionary.to_numpy(zero_copy_only=False),
        )
    if column.kind == "float":
        return pd.Series(values.to_numpy(zero_copy_only=False), dtype=column.dtype)
    numbers = np.array(values.fill_null(0).to_numpy() if empty else values.to_numpy())
    if len(numbers) and max(abs(int(numbers.min())), abs(int(numbers.max()))) > LARGEST_COUNT:
        return _typed_column(values.to_pandas(integer_object_nulls=True), column, where)
    if not column.nullable:
        return pd.Series(numbers)
    return pd.Series(pd.arrays.IntegerArray(numbers, values.is_null().to_numpy(zero_copy_only=False)))


def _check_all_there(names: Collection[str], columns: tuple[Column, ...], where: str) -> None:
    """Raise ``TraceError`` at the first of ``columns`` that ``names`` lack."""
    missing = next((column for column in columns if column.name not in names), None)
    if missing is not None:
        raise TraceError(
            f"{where}: column {missing.name!r} is missing ({missing.gloss}); every column of the schema must be there"
        )


def typed(table: pd.DataFrame, columns: tuple[Column, ...], where: str) -> pd.DataFrame:
    """``table`` with exactly ``columns``, in order and in their dtypes. ``TraceError`` where a value does not fit."""
    _check_all_there(table.columns, columns, where)
    typed = dict[str, Any]()
    for column in columns:
        values = table[column.name]
        plain = _plain(values, column)
        typed[column.name] = _typed_column(values, column, where).reset_index(drop=True) if plain is None else plain
    return pd.DataFrame(typed, columns=list(typed), index=range(len(table)))


def _plain(values: pd.Series, column: Column) -> Any:
    """``values`` in the dtype of ``column`` where all of them plainly fit; None where each must be looked at."""
    if column.kind == "float" and values.dtype == np.float64:
        numbers = values.to_numpy()
        return numbers if column.nullable or not np.isnan(numbers).any() else None
    if column.kind == "int" and values.dtype == np.int64:
        numbers = values.to_numpy()
        if len(numbers) and not -LARGEST_COUNT <= numbers.min() <= numbers.max() <= LARGEST_COUNT:
            return None
        return pd.array(numbers, dtype="Int64") if column.nullable else numbers
    if column.kind == "str" and set(map(type, items := values.to_numpy(dtype=object))) == {str}:
        codes, texts = pd.factorize(items)
        return _shared(codes, texts)
    return None


def _shared(codes: np.ndarray, texts: np.ndarray) -> pd.Series:
    """The text of each code, None for -1; equal ones are one object, so that a million rows do not hold a million."""
    table = np.empty(len(texts) + 1, dtype=object)
    table[:-1] = texts
    return pd.Series(table[codes], dtype=object)


def _lists_from_arrow(values: Any, column: Column, where: str) -> pd.Series:
    """A column of lists in a Parquet file, as ``_parts``."""
    import pyarrow.compute as pc

    items = values.flatten()
    if values.null_count or items.null_count:
        raise TraceError(f"{where}: {column.name} has an empty value ({column.gloss}); every row needs a list")
    if column.kind == "list of str":
        coded = items.dictionary_encode()
        texts, codes = (part.to_numpy(zero_copy_only=False) for part in (coded.dictionary, coded.indices))
        return _parts(texts[codes], pc.list_value_length(values).to_numpy())
    return _parts(items.to_numpy().astype(LISTS[column.kind]), pc.list_value_length(values).to_numpy())


def _parts(items: np.ndarray, lengths: np.ndarray) -> pd.Series:
    """``items`` cut into an array for each row, of these ``lengths``."""
    parts = np.empty(len(lengths), dtype=object)
    for row, (begin, end) in enumerate(pairwise([0, *np.cumsum(lengths).tolist()])):
        parts[row] = items[begin:end]
    return pd.Series(parts, dtype=object)


def _typed_column(values: pd.Series, column: Column, where: str) -> pd.Series:
    if not column.nullable and values.isna().any():
        row = int(np.flatnonzero(values.isna())[0])
        raise TraceError(f"{where}: row {row}: {column.name} is empty (NaN), {column.gloss}; every row needs a value")
    if column.kind in LISTS:
        dtype = LISTS[column.kind]
        items = np.concatenate([np.empty(0, dtype=dtype), *values]).astype(dtype)
        return _parts(items, values.map(len).to_numpy(dtype=int))
    _check_kinds(values, column, where)
    if column.kind == "str":
        codes, texts = pd.factorize(values, use_na_sentinel=True)
        return _shared(codes, np.asarray(texts, dtype=object))
    if column.kind == "int":
        numbers = values.dropna().astype("float64")
        wrong = (numbers.mod(1) != 0) | (numbers.abs() > LARGEST_COUNT)
        if wrong.any():
            row = numbers.index[wrong][0]
            raise TraceError(
                f"{where}: row {row}: {column.name} is {numbers[row]:g}, not a whole number below {LARGEST_COUNT:g} "
                f"({column.gloss})"
            )
    return values.astype(column.dtype)


def _check_kinds(values: pd.Series, column: Column, where: str) -> None:
    """Raise ``TraceError`` at the first of ``values`` that is of another kind than ``column``."""
    is_text = column.kind == "str"
    if not is_text and pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values):
        return
    there = values.dropna()
    if set(there.map(type)) <= ({str} if is_text else {float, np.float64, np.int64}):
        return
    for row, value in there.items():
        if not (isinstance(value, str) if is_text else _is_number(value)):
            what = "a text" if is_text else "a number"
            raise TraceError(
                f"{where}: row {row}: {column.name} is {value!r:.60}, not {what} ({column.gloss}); correct the row"
            )


def _is_number(value: Any) -> bool:
    """Whether ``value`` is a number that a float can hold."""
    if isinstance(value, bool | np.bool_):
        return False
    return isinstance(value, float | np.number) or (isinstance(value, int) and abs(value) <= sys.float_info.max)


def write_table(table: pd.DataFrame, file: Path, columns: tuple[Column, ...] | None) -> None:
    """Write a table as Parquet (zstd), with the schema of ``columns`` where given; the same rows give the same bytes.

    Raises ``OSError`` if the file cannot be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = None
    if columns is not None:
        kinds = {"str": pa.string(), "int": pa.int64(), "float": pa.float64()}
        kinds |= {"list of str": pa.list_(pa.string()), "list of int": pa.list_(pa.int64())}
        schema = pa.schema([pa.field(column.name, kinds[column.kind], column.nullable) for column in columns])
    first = pa.Table.from_pandas(table.head(ROWS_AT_ONCE), schema=schema, preserve_index=False)
    plain = first.schema.remove_metadata()
    with pq.ParquetWriter(file, plain, compression="zstd") as writer:
        writer.write_table(first.replace_schema_metadata(None))
        for begin in range(ROWS_AT_ONCE, len(table), ROWS_AT_ONCE):
            part = table.iloc[begin : begin + ROWS_AT_ONCE]
            writer.write_table(pa.Table.from_pandas(part, schema=plain, preserve_index=False))
