"""Cells of other people's files become values of ours; a cell that cannot is told, never guessed.

A cell is whatever a file may hold: text, a number, a boolean, a date, a decimal, a list, nothing. Each function turns a
column of cells into a column of values, and says for each row that it cannot what is wrong with its cell.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from numbers import Integral, Real
from typing import Any

import numpy as np
import pandas as pd

from driftsim.trace.schema import LARGEST_COUNT

UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
SPELLED = {"µs": "us", "μs": "us", "sec": "s", "secs": "s", "second": "s", "seconds": "s", "msec": "ms"}
MINUTES = {"m": 60.0, "min": 60.0, "h": 3600.0}
LARGEST_PLAIN = 2**63  # pandas reads no larger number
NOTHING = {"", "nan", "none", "null", "n/a", "na", "nat", "-", "<na>"}  # what an empty number is written as
MEASURE = re.compile(r"([-+]?(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*([a-zA-Zµμ]+)")

Problems = dict[int, str]  # row -> what is wrong with its cell


def is_nothing(cell: Any) -> bool:
    """Whether ``cell`` holds no value at all: None, NaN, NaT, NA or an empty text.

    >>> [is_nothing(cell) for cell in (None, float("nan"), "", " ", 0, [])]
    [True, True, True, True, False, False]
    """
    if cell is None or cell is pd.NA or cell is pd.NaT:
        return True
    if isinstance(cell, str):
        return not cell.strip()
    return isinstance(cell, Real | Decimal) and bool(cell != cell)


def shown(cell: Any) -> str:
    """``cell`` as a message shows it, cut to a line."""
    value = cell.item() if isinstance(cell, np.generic) else cell
    return repr(value) if len(repr(value)) <= 60 else repr(value)[:57] + "..."


def texts(cells: Sequence[Any]) -> tuple[list[str | None], Problems]:
    """Each cell as text, None where it holds nothing; a whole number has no decimal point, whatever held it.

    >>> texts([17, 17.0, True, "acme", None, [1, 2]])[0]
    ['17', '17', 'true', 'acme', None, '[1, 2]']
    """
    known: dict[Any, str | None] = {}
    found = list[str | None]()
    for cell in cells:
        if type(cell) is str:
            stripped = known.get(cell)
            if stripped is None:
                stripped = known[cell] = _storable(cell.strip())
            found.append(stripped or None)
        else:
            found.append(_text(cell))
    return found, {}


def _text(cell: Any) -> str | None:
    if isinstance(cell, np.generic):
        cell = cell.item()
    if is_nothing(cell):
        return None
    if isinstance(cell, bool):
        return str(cell).lower()
    if isinstance(cell, bytes):
        return cell.decode("utf-8", "replace").strip() or None
    if isinstance(cell, float | Decimal) and math.isfinite(cell) and cell == int(cell):
        return str(int(cell))
    if isinstance(cell, datetime | date):
        return cell.isoformat()
    if isinstance(cell, list | dict):
        return json.dumps(cell, default=str)
    return _storable(str(cell).strip()) or None


def _storable(text: str) -> str:
    """``text`` without halves of characters, which JSON may hold and no file can."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def listed(cell: Any) -> list[Any] | None:
    """The list that ``cell`` is, or writes as JSON or as Python does with plain texts; None for anything else.

    >>> listed([1, 2]), listed(' ["a"]'), listed("['a', 'b']"), listed("[1, "), listed("a")
    ([1, 2], ['a'], ['a', 'b'], None, None)
    """
    if isinstance(cell, str) and cell.strip().startswith("["):
        is_pythons = '"' not in cell and "\\" not in cell
        try:
            cell = json.loads(cell.replace("'", '"') if is_pythons else cell)
        except (ValueError, RecursionError):
            return None
    return cell if isinstance(cell, list) else None


def counts(cells: Sequence[Any]) -> tuple[np.ndarray, Problems]:
    """Each cell as a whole number that is not negative, as a float; NaN where it holds nothing.

    >>> values, problems = counts(["20", 7.0, None, 2.5, "many", True])
    >>> values.tolist()[:2], problems[3], problems[5]
    ([20.0, 7.0], 'is 2.5, not a whole number', 'is True, not a number')
    """
    values, problems = _numbers(cells, _number)
    with np.errstate(invalid="ignore"):
        wrong = np.isfinite(values) & ((values % 1 != 0) | (values < 0) | (values > LARGEST_COUNT)) | np.isinf(values)
    for row in np.flatnonzero(wrong).tolist():
        value = values[row]
        if math.isinf(value) or value % 1:
            problems[row] = f"is {value:g}, not a whole number"
        else:
            problems[row] = f"is {value:g}, " + ("negative" if value < 0 else f"above {LARGEST_COUNT:g}")
    return values, problems


def times(cells: Sequence[Any], unit: str = "s") -> tuple[np.ndarray, Problems]:
    """Each cell as seconds; NaN where it holds nothing. A date counts from 1970, in UTC if it has no zone.

    A bare number is in ``unit``, one of ``UNITS``; a text may bring a unit of its own.

    >>> times(["36.9ms", 36.9, "2026-03-29T01:00:00Z", "2026-03-29T01:59:59+01:00"], "ms")[0].tolist()
    [0.0369, 0.0369, 1774746000.0, 1774745999.0]
    """
    scale = UNITS[unit]
    values, problems = _numbers(cells, lambda cell: _moment(cell, scale), scale)
    for row in np.flatnonzero(np.isinf(values)).tolist():
        problems[row] = f"is {values[row]:g}, not a time"
    return values, problems


def without_zone(cells: Sequence[Any]) -> bool:
    """Whether some of ``cells`` are dates with a time, but without a zone."""
    return any(moment is not None and moment.tzinfo is None for moment in map(_date_of, cells))


def _numbers(cells: Sequence[Any], read: Callable[[Any], float], scale: float = 1.0) -> tuple[np.ndarray, Problems]:
    """Numbers at once where the whole column is of plain ones; ``read`` reads each of the others, or raises."""
    plain = pd.Series(list(cells), dtype=object)
    booleans = plain.map(type).isin([bool, np.bool_])
    numeric = pd.to_numeric(plain.where(~booleans & plain.map(_may_be_plain)), errors="coerce")
    values = numeric.to_numpy(dtype=float) * scale
    problems: Problems = {}
    for row in np.flatnonzero(np.isnan(values)).tolist():
        try:
            values[row] = read(cells[row])
        except (ValueError, OverflowError, TypeError) as error:
            problems[row] = str(error)
    return values, problems


def _may_be_plain(cell: Any) -> bool:
    if isinstance(cell, int):
        return -LARGEST_PLAIN < cell < LARGEST_PLAIN
    return isinstance(cell, str | float | np.integer | np.floating)


def _number(cell: Any) -> float:
    if is_nothing(cell) or (isinstance(cell, str) and cell.strip().lower() in NOTHING):
        return math.nan
    if isinstance(cell, bool | np.bool_) or not isinstance(cell, str | Real | Decimal):
        raise ValueError(f"is {shown(cell)}, not a number")
    try:
        return float(cell)
    except (ValueError, OverflowError):
        raise ValueError(f"is {shown(cell)}, not a number") from None


def _moment(cell: Any, scale: float) -> float:
    if is_nothing(cell) or (isinstance(cell, str) and cell.strip().lower() in NOTHING):
        return math.nan
    if isinstance(cell, bytes):
        cell = cell.decode("utf-8", "replace")
    if isinstance(cell, timedelta | np.timedelta64):
        return float(pd.Timedelta(cell).total_seconds())
    if isinstance(cell, Real | Decimal) and not isinstance(cell, bool | np.bool_):
        return _number(cell) * scale
    moment = _date_of(cell)
    if moment is not None:
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    if isinstance(cell, str) and (found := MEASURE.fullmatch(cell.strip())):
        unit = SPELLED.get(found[2].lower(), found[2].lower())
        if (own := UNITS.get(unit, MINUTES.get(unit))) is not None:
            return float(found[1]) * own
    raise ValueError(f"is {shown(cell)}, not a time: a number, one with its unit as '36.9ms', or a date and time")


def _date_of(cell: Any) -> datetime | None:
    """The date and time that ``cell`` is, if it is one."""
    if isinstance(cell, np.datetime64):
        cell = pd.Timestamp(cell)
    if isinstance(cell, datetime):
        return cell
    if isinstance(cell, date):
        return datetime.combine(cell, time())
    if not isinstance(cell, str) or len(cell) < 8 or not cell.strip()[:4].isdigit():
        return None
    text = cell.strip()
    if isinstance(cell, Integral) or text.replace(".", "", 1).isdigit():
        return None
    text = re.sub(r"(\.\d{6})\d+", r"\1", text)  # Python keeps microseconds
    text = re.sub(r"\s*(UTC|Z)$", "+00:00", text)
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None
