"""A sound file with a few places of it wrong: JSON, JSON Lines, TOML, CSV and Parquet by their structure, all by bytes.

``changed`` takes the bytes of a sound file and gives those of one that is wrong in one to three ways.
"""

from __future__ import annotations

import copy
import csv
import datetime
import io
import json
import tomllib
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st

RAW = {  # what no Python value writes: stands for itself in JSON and TOML
    "@deep@": "[" * 100_000 + "]" * 100_000,
    "@open@": "[" * 100_000,
    "@tables@": '{"a":' * 20_000 + "1" + "}" * 20_000,
    "@digits@": "9" * 5000,
    "@1e400@": "1e400",
    "@date@": "1979-05-27T07:32:00Z",
    "@word@": "NaN",
}
TEXTS = (
    "", " ", "x", "nan", "inf", "-", "1e999", "1,5", "0x10", "12 ms", "2024-13-45T99:00:00", "9999-12-31T23:59:59Z",
    "0001-01-01", "[bold]x[/b]", "a\nb", "\x1b[31mred", "\x00", "\x85", "\u202egpj.exe", "\ufeff", "\ud800", "=1+1",
    "$\\frac$", "`a`|b", "../../x", "1" * 400, "true", "None", "\\", "\"'", "é" * 300,
)  # fmt: skip
NUMBERS = (
    float("nan"), float("inf"), float("-inf"), -1, -0.0, 0, 0.5, 1, 2, 3, 1e-300, 1e-9, 1e9, 1e18, 1e308, 10**6, 10**9,
    10**10, 10**20, 10**400, 2**31, 2**53 + 1, 2**63, -(2**63), -(10**9), True, False,
)  # fmt: skip
SHAPES: tuple[Any, ...] = (None, [], [[]], [1, "2", None], [3, 1, 2], [-1], {}, {"a": 1}, {"": {}}, [{}], [None])
VALUES: tuple[Any, ...] = (*TEXTS, *NUMBERS, *SHAPES, *RAW)
NAMES = ("x", "", "a.b", "[b]", "seed", "request_id", "\n", "k" * 500)
PIECES = (
    b"", b"\xff\xfe", b"\x00", b'"', b"\n", b"[" * 100_000, b"{" * 9, b"9" * 5000, b"a=", b",", b"\xef\xbb\xbf",
    b"NaN", b"-", b"}", b"\r\n", b"\xed\xa0\x80",
)  # fmt: skip


@st.composite
def changed(draw: st.DrawFn, sound: bytes, suffix: str) -> bytes:
    """``sound``, a file whose name ends in ``suffix``, made wrong by its structure, by its bytes or by both."""
    by_bytes = draw(st.integers(0, 5)) == 0
    if suffix not in STRUCTURED or by_bytes:
        return draw(torn(sound))
    data: bytes = draw(STRUCTURED[suffix](sound))
    return draw(torn(data)) if draw(st.integers(0, 11)) == 0 else data


@st.composite
def torn(draw: st.DrawFn, data: bytes) -> bytes:
    """``data`` cut off, empty, with a mark, with bytes that are no text, with a piece gone, or nested too deep."""
    kind = draw(st.sampled_from(("cut", "piece", "piece", "piece", "gone", "twice", "empty", "mark", "wide")))
    at = draw(st.integers(0, len(data)))
    if kind == "empty":
        return draw(st.sampled_from((b"", b" ", b"\n", b"{}", b"[]", b"null", b"0")))
    if kind == "mark":
        return b"\xef\xbb\xbf" + data
    if kind == "wide":
        return data.decode("utf-8", "replace").encode("utf-16")
    if kind == "twice":
        return data + data
    if kind == "cut":
        return data[:at]
    gone = draw(st.sampled_from((1, 2, 9, 100, len(data)))) if kind == "gone" else draw(st.sampled_from((0, 0, 1, 9)))
    piece = draw(st.sampled_from(PIECES)) if kind == "piece" else b""
    return data[:at] + piece + data[at + gone :]


# -- documents


def nodes(content: Any, before: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths to everything inside ``content``."""
    found = []
    pairs = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else []
    for key, value in pairs:
        found += [(*before, key), *nodes(value, (*before, key))]
    return found


@st.composite
def documents(draw: st.DrawFn, sound: Any) -> Any:
    """``sound`` with one to three places of it replaced, removed, cut, doubled, swapped or renamed."""
    if draw(st.integers(0, 40)) == 0:
        return draw(st.sampled_from(VALUES))
    content = copy.deepcopy(sound)
    for _ in range(draw(st.sampled_from((1, 1, 2, 3)))):
        paths = nodes(content)
        if not paths:
            break
        *way, key = draw(st.sampled_from(paths))
        place = content
        for step in way:
            place = place[step]
        _change(draw, place, key)
    return content


def _change(draw: st.DrawFn, place: Any, key: Any) -> None:
    """One change of ``place[key]``, in ``place``."""
    kind = draw(st.sampled_from(("value", "value", "value", "scaled", "gone", "cut", "twice", "swap", "name")))
    value = place[key]
    if kind == "gone":
        del place[key]
    elif kind == "cut" and isinstance(value, list):
        place[key] = value[: draw(st.integers(0, len(value)))]
    elif kind == "twice" and isinstance(place, list):
        place.insert(0, value)
    elif kind == "twice":
        place[draw(st.sampled_from(NAMES))] = value
    elif kind == "swap":
        other = draw(st.sampled_from(list(place) if isinstance(place, dict) else range(len(place))))
        place[key], place[other] = place[other], place[key]
    elif kind == "name" and isinstance(place, dict):
        place[draw(st.sampled_from(NAMES))] = place.pop(key)
    elif kind == "scaled" and isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e290:
        place[key] = value * draw(st.sampled_from((-1, 1000, 1e-3, 0, 1e12)))
    else:
        place[key] = copy.deepcopy(draw(st.sampled_from(VALUES)))


@st.composite
def json_file(draw: st.DrawFn, sound: bytes) -> bytes:
    """A JSON document of which places are wrong, or a key stands twice."""
    content = json.loads(sound)
    text = as_json(draw(documents(content)))
    if isinstance(content, dict) and draw(st.integers(0, 9)) == 0:
        key, value = draw(st.sampled_from(list(content))), draw(st.sampled_from(VALUES))
        text = text.replace("{", "{" + as_json({key: value})[1:-1] + ", ", 1)
    return text.encode("utf-8", "surrogatepass")


@st.composite
def json_lines(draw: st.DrawFn, sound: bytes) -> bytes:
    """Lines of JSON of which some are wrong."""
    lines = draw(documents([json.loads(line) for line in sound.splitlines()]))
    texts = [as_json(line) for line in lines] if isinstance(lines, list) else [as_json(lines)]
    return "".join(f"{text}\n" for text in texts).encode("utf-8", "surrogatepass")


@st.composite
def toml_file(draw: st.DrawFn, sound: bytes) -> bytes:
    """A TOML document of which places are wrong; what TOML cannot say is left out."""
    content = draw(documents(tomllib.loads(sound.decode())))
    if not isinstance(content, dict):
        return _raw(_toml(content)).encode("utf-8", "replace")
    lines = [f"{_key(name)} = {_toml(value)}" for name, value in content.items() if value is not None]
    if lines and draw(st.integers(0, 14)) == 0:
        lines.append(draw(st.sampled_from(lines)))
    return _raw("\n".join(lines)).encode("utf-8", "replace")


def as_json(content: Any) -> str:
    """``content`` as JSON, halves of characters and what is no number included."""
    return _raw(json.dumps(content))


def _raw(text: str) -> str:
    for name, piece in RAW.items():
        text = text.replace(f'"{name}"', piece)
    return text


def _key(name: object) -> str:
    return json.dumps(str(name).encode("utf-8", "replace").decode())


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_key(name)} = {_toml(one)}" for name, one in value.items() if one is not None) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_toml(one) for one in value if one is not None) + "]"
    if isinstance(value, bool) or value is None:
        return str(bool(value)).lower()
    return _key(value) if isinstance(value, str) else repr(value)


# -- tables

MOMENT = datetime.datetime(2024, 1, 2, 3, 4, 5)
CELLS: tuple[Any, ...] = (
    None, "", "x", "-", "nan", "1e999", "a\nb", "\x1b[31m", "0"  "7", float("nan"), float("inf"), -1, -1.0, 0, 0.5, 1,
    10**9, 10**10, 1e300, 2**62, True, b"\xff", [1], [], ["a"], [[1]], {"a": 1}, MOMENT, datetime.date(1, 1, 1),
    datetime.timedelta(days=9999), Decimal("1.5"), Decimal("NaN"),
)  # fmt: skip
KINDS: tuple[Any, ...] = (
    pa.float32(), pa.float16(), pa.int8(), pa.int32(), pa.uint64(), pa.string(), pa.large_string(), pa.bool_(),
    pa.timestamp("ns"), pa.timestamp("s", "UTC"), pa.duration("ms"), pa.decimal128(20, 3), pa.binary(), pa.null(),
    pa.date32(), pa.dictionary(pa.int32(), pa.string()),
)  # fmt: skip
SCALES = (1000, -1, 1e12, 0, 1e-12, 1e9)


@st.composite
def parquet_file(draw: st.DrawFn, sound: bytes) -> bytes:
    """A table with one or two columns of another kind, with odd cells, gone, renamed, swapped, doubled or reordered."""
    table = pq.read_table(io.BytesIO(sound))
    for _ in range(draw(st.sampled_from((1, 1, 2)))):
        if table.num_columns:
            table = _changed_table(draw, table)
    out = io.BytesIO()
    try:
        pq.write_table(table, out)
    except Exception:  # whatever Arrow says of a table that nobody could have written
        return sound
    return out.getvalue()


def _changed_table(draw: st.DrawFn, table: pa.Table) -> pa.Table:
    place = draw(st.integers(0, table.num_columns - 1))
    kind = draw(st.sampled_from(("cells", "rows", "columns")))
    if kind == "cells":
        return _with_cells(draw, table, place)
    if kind == "rows":
        return _with_rows(draw, table)
    return _with_columns(draw, table, place)


def _with_cells(draw: st.DrawFn, table: pa.Table, place: int) -> pa.Table:
    """One column with odd cells, of another kind, or in another unit."""
    cells: list[Any] = table.column(place).to_pylist()
    kind = draw(st.sampled_from(("one", "one", "whole", "scaled", "kind")))
    forced = None
    if kind == "one" and cells:
        cells[draw(st.integers(0, len(cells) - 1))] = draw(st.sampled_from(CELLS))
    elif kind == "whole":
        cells = [draw(st.sampled_from(CELLS))] * len(cells)
    elif kind == "scaled":
        scale = draw(st.sampled_from(SCALES))
        cells = [cell * scale if isinstance(cell, int | float) else cell for cell in cells]
    else:
        forced = draw(st.sampled_from(KINDS))
    return table.set_column(place, table.schema.names[place], _column(cells, forced, table.column(place)))


def _column(cells: list[Any], kind: Any, sound: Any) -> Any:
    """``cells`` as a column of ``kind``, else as what Arrow takes them for, else as texts."""
    attempts: tuple[Callable[[], Any], ...] = (
        lambda: sound.cast(kind) if kind is not None else pa.array(cells),
        lambda: pa.array(cells, kind, from_pandas=False),
        lambda: pa.array([None if cell is None else str(cell) for cell in cells], pa.string()),
    )
    for attempt in attempts:
        try:
            return attempt()
        except Exception:  # one of several ways to the same column
            continue
    return sound


def _with_rows(draw: st.DrawFn, table: pa.Table) -> pa.Table:
    kind = draw(st.sampled_from(("few", "none", "backwards", "twice", "one again")))
    count = table.num_rows
    if kind == "few":
        return table.slice(0, draw(st.integers(0, 2)))
    if kind == "none" or not count:
        return table.slice(0, 0)
    if kind == "backwards":
        return table.take(list(reversed(range(count))))
    again = range(count) if kind == "twice" else [draw(st.integers(0, count - 1))]
    return table.take([*range(count), *again])


def _with_columns(draw: st.DrawFn, table: pa.Table, place: int) -> pa.Table:
    names = list(table.schema.names)
    kind = draw(st.sampled_from(("gone", "name", "swap", "again", "more", "order", "keys")))
    other = draw(st.integers(0, table.num_columns - 1))
    if kind == "gone":
        return table.remove_column(place)
    if kind == "name":
        names[place] = draw(st.sampled_from((*NAMES, names[other])))
        return table.rename_columns(names)
    if kind == "swap":
        names[place], names[other] = names[other], names[place]
        return table.rename_columns(names)
    if kind == "again":
        return table.append_column(names[place], table.column(place))
    if kind == "more":
        return table.append_column(draw(st.sampled_from(NAMES)), table.column(place))
    if kind == "order":
        return table.select(list(reversed(range(table.num_columns))))
    marks = draw(st.sampled_from((b"{", b'{"index_columns": ["nowhere"]}', b'{"columns": 5}', b"[]", b"\xff")))
    return table.replace_schema_metadata({"pandas": marks})


@st.composite
def csv_file(draw: st.DrawFn, sound: bytes) -> bytes:
    """A table of text of which cells, rows, columns or the whole form is wrong."""
    rows = [list(row) for row in csv.reader(sound.decode().splitlines())]
    for _ in range(draw(st.sampled_from((1, 1, 2)))):
        place = draw(st.integers(0, len(rows) - 1)) if rows else 0
        kind = draw(st.sampled_from(("cell", "cell", "cell", "short", "long", "gone", "again", "swap", "name", "more")))
        if not rows or not rows[0]:
            break
        column = draw(st.integers(0, len(rows[0]) - 1))
        value = draw(st.sampled_from((*TEXTS, *map(str, NUMBERS), "[1]", '{"a": 1}')))
        _change_rows(rows, kind, place, column, value)
    out = io.StringIO()
    separator = draw(st.sampled_from((*",,,,,,,,", ";", "\t", "|", " ")))
    ending = draw(st.sampled_from((*["\n"] * 8, "\r\n", "\r")))
    csv.writer(out, delimiter=separator, lineterminator=ending).writerows(rows)
    return out.getvalue().encode("utf-8", "surrogatepass")


def _change_rows(rows: list[list[str]], kind: str, place: int, column: int, value: str) -> None:
    row = rows[place]
    if kind == "short":
        del row[column:]
    elif kind == "long":
        row += [value] * 3
    elif kind == "gone":
        for one in rows:
            del one[column : column + 1]
    elif kind == "again":
        rows.insert(0, row)
    elif kind == "swap":
        for one in rows[1:]:
            if len(one) > max(column, 1):
                one[0], one[column] = one[column], one[0]
    elif kind == "name":
        rows[0][column] = value
    elif kind == "more":
        for one in rows:
            one.append(one[min(column, len(one) - 1)] if one else value)
    elif row:
        row[min(column, len(row) - 1)] = value


STRUCTURED: dict[str, Callable[[bytes], st.SearchStrategy[bytes]]] = {
    ".json": json_file,
    ".jsonl": json_lines,
    ".toml": toml_file,
    ".csv": csv_file,
    ".parquet": parquet_file,
}
