"""Requests that a file dates alike come in the order in which they follow each other; the others stay as they are."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from heapq import heapify, heappop, heappush
from itertools import pairwise

import numpy as np
import pandas as pd

from driftsim.formats.sessions import Sessions, asked, numbers_of, places_of


def untied(sessions: Sessions, rows: pd.DataFrame) -> pd.DataFrame:
    """``rows``, by arrival, where those of one moment come in the order of their turns, or after their parents."""
    arrival = rows["arrival_s"].to_numpy(dtype=float)
    bounds = [0, *(np.flatnonzero(np.diff(arrival)) + 1).tolist(), len(rows)]
    order = rows.index.tolist()
    if len(bounds) == len(rows) + 1:
        return rows
    if sessions.parents is None:
        turns = np.nan_to_num(numbers_of(sessions.turns, order), nan=-np.inf)
        by_turn: np.ndarray = np.lexsort((turns, arrival))
        return rows.iloc[by_turn]
    places = places_of(sessions, order)
    before = [
        [_nearest(places[name], place) for name in asked(sessions.parents[row], places) if name in places]
        for place, row in enumerate(order)
    ]
    found = list[int]()
    for begin, end in pairwise(bounds):
        found += _sorted(begin, end, before)
    return rows.iloc[found]


def _nearest(there: Sequence[int], place: int) -> int:
    """Which of those of one name comes last before ``place``, or else first after it."""
    return there[max(bisect_left(there, place) - 1, 0)]


def _sorted(begin: int, end: int, before: Sequence[Sequence[int]]) -> list[int]:
    """The places from ``begin`` to ``end``, each after those ``before`` it; those that wait in a circle come last."""
    waits = {
        place: {one for one in before[place] if begin <= one < end and one != place} for place in range(begin, end)
    }
    after: dict[int, list[int]] = {}
    for place, others in waits.items():
        for one in others:
            after.setdefault(one, []).append(place)
    free = [place for place, others in waits.items() if not others]
    heapify(free)
    found = list[int]()
    while free:
        found.append(heappop(free))
        for place in after.get(found[-1], ()):
            waits[place].remove(found[-1])
            if not waits[place]:
                heappush(free, place)
    return found + [place for place, others in waits.items() if others]
