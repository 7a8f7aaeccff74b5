"""What a file tells of sessions becomes ``session``, ``parent`` and ``gap_s``.

A parent is an earlier request that had ended before its child was sent; what is none is told, and waited for by nobody.
"""

from __future__ import annotations

import json
import math
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from driftsim.formats.values import Problems, shown, texts, times
from driftsim.trace.schema import LONGEST_S

NO_PARENT = {"-1", "none", "null", "nan"}
CLOCKS_S = 0.05  # a turn may be sent by so much before the end that it waited for
LOOKED_BACK = 64  # requests of a session among which the one before is looked for


@dataclass(frozen=True, kw_only=True, eq=False)
class Sessions:
    """What a file tells, row by row: the ``names`` of sessions, the ``turns`` in them, who waits for whom and how long.

    ``parents`` are ids, one or a list of them, among ``ids``, or rows of the file where there are no ``ids``. Without
    ``parents``, a request waits for the turn before it in its session. ``gaps`` count in ``unit``.
    """

    names: Sequence[Any] | None = None
    turns: Sequence[Any] | None = None
    parents: Sequence[Any] | None = None
    ids: Sequence[Any] | None = None
    gaps: Sequence[Any] | None = None
    unit: str = "s"

    def problems(self) -> dict[str, Problems]:
        """By column, the rows that cannot be read, and why."""
        found: dict[str, Problems] = {}
        if self.parents is not None:
            found["parent"] = {row: why for row, cell in enumerate(self.parents) if (why := _named(cell)[1])}
        if self.gaps is not None:
            gaps, found["gap_s"] = times(self.gaps, self.unit)
            with np.errstate(invalid="ignore"):
                wrong = np.flatnonzero((gaps < 0) | (gaps > LONGEST_S)).tolist()
            found["gap_s"] |= {row: f"is {gaps[row]:g} s; a gap is from 0 to {LONGEST_S:g} s" for row in wrong}
        return found


@dataclass(eq=False)
class Linked:
    """Sessions by row of the trace: their names, parents and gaps, and what is said of them."""

    names: list[str | None]
    parents: list[list[int]]
    gaps: np.ndarray  # s
    said: list[str] = field(default_factory=list)

    @property
    def columns(self) -> Mapping[str, Any]:
        """The columns of the trace; none where nobody waits for anybody."""
        if not any(self.parents):
            return {}
        parents = np.empty(len(self.parents), dtype=object)
        parents[:] = self.parents
        return {"session": self.names, "parent": parents, "gap_s": self.gaps}


def linked(sessions: Sessions, order: Sequence[int], rows: pd.DataFrame) -> Linked:
    """The ``sessions`` of a trace whose ``rows``, by arrival, are the rows ``order`` of the file."""
    arrival, finish = (rows[name].to_numpy(dtype=float) for name in ("arrival_s", "finish_s"))
    names = texts(sessions.names)[0] if sessions.names is not None else None
    mine: list[str | None] = [None if names is None else names[row] for row in order]
    if sessions.parents is not None:
        parents, lost = _as_named(sessions, order)
    else:
        mine, parents, lost = _in_turn(sessions, order, mine, arrival, finish)
    with np.errstate(invalid="ignore"):
        early = [[one for one in before if arrival[row] < finish[one] - CLOCKS_S] for row, before in enumerate(parents)]
    follow = sum(map(bool, parents)) + lost.first
    parents = [[one for one in before if one not in out] for before, out in zip(parents, early, strict=True)]
    found = Linked(mine, parents, *_gaps(sessions, order, parents, arrival, finish))
    found.said = [
        *_replayed(follow, len(order)),
        *_counted(lost.missing, "name a parent that is not in the file: they count as first turns"),
        *_counted(lost.later, "do not come after the request that they name as their parent: they do not wait for it"),
        *_counted(sum(map(bool, early)), "were sent before the turn before them had ended: they do not wait for it"),
        *found.said,
    ]
    _name(found, rows["request_id"].tolist(), all_of_one=sessions.names is None)
    return found


@dataclass
class _Lost:
    """Turns whose parent is not in the file, or comes no earlier, and how many of them have no other."""

    missing: int = 0
    later: int = 0
    first: int = 0


def _named(cell: Any) -> tuple[list[str], str]:
    """The parents that ``cell`` names, and what is wrong with it."""
    listed = cell
    if isinstance(cell, str) and cell.strip().startswith("["):
        try:
            listed = json.loads(cell)
        except (ValueError, RecursionError):
            return [], f"is {shown(cell)}, not a list of requests"
    if not isinstance(listed, list):
        listed = [listed]
    if any(isinstance(one, list | dict | bool) for one in listed):
        return [], f"is {shown(cell)}, which names no requests"
    return [one for one in texts(listed)[0] if one is not None and one.lower() not in NO_PARENT], ""


def _as_named(sessions: Sessions, order: Sequence[int]) -> tuple[list[list[int]], _Lost]:
    """The parents of each row of the trace, as the file names them."""
    assert sessions.parents is not None
    names = texts(sessions.ids)[0] if sessions.ids is not None else [str(row) for row in range(len(sessions.parents))]
    places: dict[str, list[int]] = {}
    for place, row in enumerate(order):
        if (name := names[row]) is not None:
            places.setdefault(name, []).append(place)
    found, lost = list[list[int]](), _Lost()
    for place, row in enumerate(order):
        asked, before, missing = _named(sessions.parents[row])[0], set[int](), False
        for name in asked:
            there = places.get(name, [])
            earlier = bisect_left(there, place)
            if earlier:
                before.add(there[earlier - 1])
            missing |= not there
        found.append(sorted(before))
        lost.missing += missing
        lost.later += bool(asked) and not missing and len(before) < len({*asked})
        lost.first += bool(asked) and not before
    return found, lost


def _in_turn(
    sessions: Sessions, order: Sequence[int], names: Sequence[str | None], arrival: np.ndarray, finish: np.ndarray
) -> tuple[list[str | None], list[list[int]], _Lost]:
    """Names and parents by row of the trace: the turn before in the session, by its number or else by its arrival."""
    numbers = _numbers(sessions.turns, order)
    first = np.nanmin(numbers) if np.isfinite(numbers).any() else math.nan
    before: dict[str, deque[int]] = {}
    begun: dict[str, int] = {}
    called, parents, lost = list[str | None](), list[list[int]](), _Lost()
    for place, name in enumerate(names):
        if name is None:
            called.append(None)
            parents.append([])
            continue
        number, there = numbers[place], before.setdefault(name, deque(maxlen=LOOKED_BACK))
        parent = _before(number, there, numbers, arrival[place], finish)
        if parent is None and number == first and there:  # the name of a session is used again
            there.clear()
            begun[name] = begun.get(name, 1) + 1
        elif parent is None and number > first:
            lost.missing += 1
            lost.first += 1
        there.append(place)
        called.append(name if name not in begun else f"{name}#{begun[name]}")
        parents.append([] if parent is None else [parent])
    return called, parents, lost


def _before(number: float, there: Iterable[int], numbers: np.ndarray, arrival: float, finish: np.ndarray) -> int | None:
    """Which of the earlier requests ``there`` one of turn ``number`` follows.

    That is the latest of the highest turn below its own; where turns have no numbers, the latest that had ended, or
    else the latest.
    """
    if not math.isnan(number):
        return max((one for one in there if numbers[one] < number), key=lambda one: (numbers[one], one), default=None)
    latest = list(there)
    ended = [one for one in latest if not finish[one] > arrival + CLOCKS_S]
    return max(ended or latest, default=None)


def _numbers(turns: Sequence[Any] | None, order: Sequence[int]) -> np.ndarray:
    """The turns of the rows of a trace as numbers; NaN for what is none."""
    if turns is None:
        return np.full(len(order), np.nan)
    plain = pd.Series([None if isinstance(one, bool | list | dict) else one for one in turns], dtype=object)
    small = plain.map(lambda one: one if not isinstance(one, int) or abs(one) < 2**53 else None)
    numbers = pd.to_numeric(small, errors="coerce").to_numpy(dtype=float, na_value=np.nan)[list(order)]
    return np.asarray(np.where(np.isfinite(numbers), numbers, np.nan))


def _gaps(
    sessions: Sessions, order: Sequence[int], parents: Sequence[Sequence[int]], arrival: np.ndarray, finish: np.ndarray
) -> tuple[np.ndarray, list[str]]:
    """The gap before each row of the trace that has parents, and what is said of gaps that nothing tells."""
    told = times(sessions.gaps, sessions.unit)[0][list(order)] if sessions.gaps is not None else None
    gaps, guessed = np.full(len(order), np.nan), 0
    for row, before in enumerate(parents):
        if not before:
            continue
        if told is not None and not math.isnan(told[row]):
            gaps[row] = told[row]
            continue
        ends = [arrival[one] if math.isnan(finish[one]) else finish[one] for one in before]
        guessed += any(math.isnan(finish[one]) for one in before)
        gaps[row] = max(arrival[row] - max(ends), 0.0)
    if not guessed:
        return gaps, []
    return gaps, [
        f"the end before {guessed} of {sum(map(bool, parents))} later turns is not told: gap_s counts from the arrival "
        "before, so a turn that waits for an answer comes later than recorded by as long as the answer takes"
    ]


def _name(found: Linked, ids: Sequence[str], *, all_of_one: bool) -> None:
    """Name the sessions that the file does not: as their first request. ``all_of_one``: who has none is one alone."""
    waited_for = {*range(len(ids))} if all_of_one else {one for before in found.parents for one in before}
    for row, before in enumerate(found.parents):
        if found.names[row] is None and before:
            found.names[row] = found.names[before[0]]
        elif found.names[row] is None and row in waited_for:
            found.names[row] = ids[row]


def _replayed(follow: int, count: int) -> list[str]:
    if not follow:
        return []
    return [
        f"{follow} of {count} requests are later turns of a session: a turn is replayed at its recorded time, "
        "however long the answer before it takes"
    ]


def _counted(count: int, what: str) -> list[str]:
    return [f"{count} later turns {what}"] if count else []
