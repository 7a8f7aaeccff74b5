"""A source is a file of rows as somebody wrote it: cells by column, and each row's place as its reader counts it."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from driftsim.errors import InputError
from driftsim.formats.values import is_nothing

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet")
SEPARATORS = ",;\t|"
NAMED = 30  # columns that a message lists
MISSING = object()  # what a path leads to where it leads nowhere


@dataclass(frozen=True, eq=False)
class Source:
    """Rows of ``file``: either ``columns`` of a table, or ``records``, of which a path names a part."""

    file: Path
    count: int
    place: Callable[[int], str]  # of a row, counted from 0: "line 2 (row 0)"
    columns: dict[str, list[Any]] = field(default_factory=dict)
    records: Sequence[Any] = ()
    unreadable: dict[str, str] = field(default_factory=dict)  # place -> why the row could not be read
    numbers: Sequence[int] = ()  # of the rows, from 0, those counted that could not be read; none: all could

    @property
    def rows(self) -> Sequence[int]:
        """The number of each row in the file, from 0."""
        return self.numbers or range(self.count)

    @property
    def names(self) -> list[str]:
        """The columns, or the paths of the parts that the records have."""
        if self.columns:
            return list(self.columns)
        found: dict[str, None] = {}
        for record in self.records[:100]:
            found |= dict.fromkeys(_paths(record))
        return list(found)

    def cells(self, name: str) -> list[Any] | None:
        """The cells of column or path ``name``, None in a row that lacks it; None if every row does."""
        if self.columns:
            return self.columns.get(name)
        cells = [follow(record, name) for record in self.records]
        if all(cell is MISSING for cell in cells):
            return None
        return [None if cell is MISSING else cell for cell in cells]

    def either(self, *names: str) -> list[Any]:
        """In each row the cell of the first of ``names`` that has a value, None where none has."""
        found = [cells for name in names if (cells := self.cells(name)) is not None]
        return (
            [next((cell for cell in row if not is_nothing(cell)), None) for row in zip(*found, strict=True)]
            if (found)
            else [None] * self.count
        )

    def only(self, rows: Sequence[int]) -> Source:
        """A source of those ``rows`` alone, each at the place that it has in the file."""
        kept = list(rows)
        columns = {name: [cells[row] for row in kept] for name, cells in self.columns.items()}
        records = [self.records[row] for row in kept] if self.records else ()
        numbers = [self.rows[row] for row in kept]
        return replace(self, count=len(kept), place=lambda row: self.place(kept[row]), columns=columns, records=records,
                       numbers=numbers)  # fmt: skip

    def listed(self) -> str:
        """The names, as a message lists them."""
        names = self.names
        return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")


def follow(record: Any, path: str) -> Any:
    """What ``path``, names and places in lists joined by dots, leads to in ``record``; ``MISSING`` if nowhere.

    A name that has dots of its own is found first.

    >>> follow({"metrics": {"ttft": [{"value": 80.5}]}}, "metrics.ttft.0.value")
    80.5
    """
    if isinstance(record, dict):
        if path in record:
            return record[path]
        head, dot, rest = path.partition(".")
        return follow(record[head], rest) if dot and head in record else MISSING
    if isinstance(record, list):
        head, dot, rest = path.partition(".")
        if head.isdecimal() and len(head) < 10 and int(head) < len(record):
            return follow(record[int(head)], rest) if dot else record[int(head)]
    return MISSING


def _paths(record: Any, before: str = "") -> list[str]:
    """The paths to what is no object in ``record``."""
    paths = list[str]()
    for name, value in record.items():
        paths += _paths(value, f"{before}{name}.") if isinstance(value, dict) and value else [f"{before}{name}"]
    return paths


def read_source(file: Path, records: str | None = None) -> Source:
    """The rows of ``file``, by its suffix; ``records`` is the path to the list of them in a JSON document.

    Raises ``InputError`` naming the file and what it is not.
    """
    suffix = file.suffix.lower()
    if not file.is_file():
        raise InputError(f"{file}: no such file")
    if suffix not in SUFFIXES:
        raise InputError(f"{file}: of what kind? rename it to one of {', '.join(SUFFIXES)}")
    if suffix in (".csv", ".tsv"):
        return _table(file)
    if suffix == ".parquet":
        return _parquet(file)
    if suffix in (".jsonl", ".ndjson"):
        return _lines(file)
    document = read_json(file)
    if isinstance(document, list) and records is None:
        return _listed(file, document, "")
    return _records(file, document, records)


def read_text(file: Path) -> str:
    """The text of ``file``, UTF-8 with or without a mark. Raises ``InputError``."""
    try:
        return file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"{file}: no such file") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{file}: is not UTF-8 (byte {error.start}); save it as UTF-8") from None
    except OSError as error:
        raise InputError(f"{file}: not readable ({error.strerror})") from None


def read_json(file: Path) -> Any:
    """The JSON document in ``file``. Raises ``InputError`` that tells several documents, a line each, apart."""
    text = read_text(file)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        lines = [line for line in text.splitlines() if line.strip()]
        if len(lines) > 1 and _is_json(lines[0]) and _is_json(lines[1]):
            raise InputError(
                f"{file}: holds {len(lines)} JSON documents, a line each; rename it to {file.stem}.jsonl"
            ) from None
        raise InputError(f"{file}: is not JSON ({str(error) or 'nested too deep'})") from None


def _is_json(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _table(file: Path) -> Source:
    lines = read_text(file).replace("\0", "").splitlines(keepends=True)
    first = next((line for line in lines if line.strip()), "")
    separator = max(SEPARATORS, key=first.count) if first else ","
    rows, places, unreadable = list[list[str]](), list[int](), dict[str, str]()
    numbers = list[int]()
    reader = csv.reader(lines, delimiter=separator)
    header: list[str] = []
    try:
        for row in reader:
            if not any(cell.strip() for cell in row):
                continue
            if not header:
                header = [cell.strip() for cell in row]
                continue
            if len(row) > len(header):
                unreadable[f"line {reader.line_num}"] = f"has {len(row)} cells, the header has {len(header)}"
                continue
            numbers.append(len(rows) + len(unreadable))
            rows.append(row + [""] * (len(header) - len(row)))
            places.append(reader.line_num)
    except csv.Error as error:
        raise InputError(f"{file}: line {reader.line_num}: not readable as CSV ({error})") from None
    if not header:
        raise InputError(f"{file}: is empty; a table needs a line of column names and rows below it")
    twice = {name for name in header if header.count(name) > 1 and name}
    if twice:
        raise InputError(f"{file}: column {sorted(twice)[0]!r} is there twice; rename one of them")
    columns: dict[str, list[Any]] = {name: [] for name in header}
    for name, cells in zip(header, zip(*rows, strict=True) if rows else [()] * len(header), strict=True):
        columns[name] = list(cells)
    return Source(file, len(rows), lambda row: f"line {places[row]} (row {numbers[row]})", columns,
                  unreadable=unreadable, numbers=numbers)  # fmt: skip


def _parquet(file: Path) -> Source:
    try:
        names = pq.read_schema(file).names
        twice = [name for name in names if names.count(name) > 1]
        table = pd.DataFrame() if twice else pd.read_parquet(file)
    except Exception:  # whatever Arrow raises of a file that is none of its own
        raise InputError(f"{file}: not readable as Parquet; it is of another kind or not whole") from None
    if twice:
        raise InputError(f"{file}: column {twice[0]!r} is there twice; remove one of the two")
    columns = {
        str(name): [cell.tolist() if isinstance(cell, np.ndarray) else cell for cell in table[name].astype(object)]
        for name in table.columns
    }
    return Source(file, len(table), lambda row: f"row {row}", columns)


def _lines(file: Path) -> Source:
    records, places, unreadable, numbers = list[Any](), list[int](), dict[str, str](), list[int]()
    for number, line in enumerate(read_text(file).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            unreadable[f"line {number}"] = f"is not JSON ({str(error) or 'nested too deep'})"
            continue
        if not isinstance(record, dict):
            unreadable[f"line {number}"] = f"is {shown_kind(record)}, not an object"
            continue
        numbers.append(len(records) + len(unreadable))
        records.append(record)
        places.append(number)
    if not records:
        why = next(iter(unreadable.items()), ("", "is empty"))
        raise InputError(f"{file}: {' '.join(why).strip()}; JSON Lines hold an object a line")
    return Source(file, len(records), lambda row: f"line {places[row]} (row {numbers[row]})", records=records,
                  unreadable=unreadable, numbers=numbers)  # fmt: skip


def shown_kind(value: Any) -> str:
    """What ``value`` is, in JSON's words."""
    kinds = {dict: "an object", list: "a list", str: "a text", bool: "a boolean", type(None): "null"}
    return kinds.get(type(value), "a number")


def _records(file: Path, document: Any, path: str | None) -> Source:
    """The records at ``path`` of a JSON ``document``; a document whose values are lists of one length is a table."""
    if path is not None:
        found = follow(document, path)
        if found is MISSING:
            where = "; ".join(lists_in(document)) or "none"
            raise InputError(f"{file}: nothing is at {path!r}; the lists of records in the file: {where}")
        return _listed(file, found, path)
    table = _of_columns(document)
    if table is not None:
        count = len(next(iter(table.values())))
        return Source(file, count, lambda row: f"row {row}", table)
    places = lists_in(document)
    if not places:
        raise InputError(f"{file}: holds no list of records; a table in JSON is a list of objects, one a request")
    raise InputError(
        f"{file}: is an object, not a list of requests; say in the mapping where they are: "
        f'records = "{places[0].split(" ")[0]}" (the file has {"; ".join(places)})'
    )


def _of_columns(document: Any) -> dict[str, list[Any]] | None:
    """The columns of a table that is written column by column, as pandas writes it; None if it is none."""
    if not isinstance(document, dict) or not document:
        return None
    values = list(document.values())
    if all(isinstance(value, list) for value in values) and len({len(value) for value in values}) == 1:
        if any(isinstance(cell, dict) for value in values for cell in value[:1]):
            return None
        return {str(name): list(value) for name, value in document.items()}
    if all(isinstance(value, dict) for value in values) and len({tuple(value) for value in values}) == 1:
        keys = list(values[0])
        if keys and all(key == str(place) for place, key in enumerate(keys)):
            return {str(name): list(value.values()) for name, value in document.items()}
    return None


def _listed(file: Path, found: Any, path: str) -> Source:
    """The records of a list, or of an object that is keyed by their ids."""
    if isinstance(found, dict) and found and all(isinstance(value, dict) for value in found.values()):
        keys = list(found)
        keyed = [{"$key": key, **value} for key, value in found.items()]
        return Source(file, len(keyed), lambda row: f"{path}.{keys[row]}".lstrip("."), records=keyed)
    if not isinstance(found, list):
        raise InputError(f"{file}: {path or 'the document'} is {shown_kind(found)}, not a list of requests")
    unreadable = {
        f"{path}[{place}]": f"is {shown_kind(record)}, not an object"
        for place, record in enumerate(found)
        if not isinstance(record, dict)
    }
    kept = [place for place, record in enumerate(found) if isinstance(record, dict)]
    records = [found[place] for place in kept]
    if unreadable and not records:
        raise InputError(f"{file}: {path or 'its list'} holds no object; a request is an object")
    return Source(file, len(records), lambda row: f"{path}[{kept[row]}]", records=records, unreadable=unreadable,
                  numbers=kept)  # fmt: skip


def lists_in(document: Any, before: str = "", depth: int = 6) -> list[str]:
    """The paths to lists of objects in ``document``, with their lengths, the longest first.

    >>> lists_in({"a": {"b": [{"x": 1}, {"x": 2}]}, "c": [1, 2]})
    ['a.b (2 records)']
    """
    found: list[tuple[int, str]] = []

    def walk(value: Any, path: str, left: int) -> None:
        if isinstance(value, list):
            if value and all(isinstance(one, dict) for one in value[:100]):
                found.append((len(value), path))
            pairs = [(str(place), one) for place, one in enumerate(value[:8])]
        elif isinstance(value, dict):
            pairs = list(value.items())[:100]
        else:
            return
        if left:
            for name, one in pairs:
                if isinstance(one, list | dict):
                    walk(one, f"{path}.{name}" if path else str(name), left - 1)

    walk(document, before, depth)
    longest = sorted(found, key=lambda pair: (-pair[0], -pair[1].count(".")))
    return [f"{path} ({count} record{'s' * (count != 1)})" for count, path in longest[:5] if path]
