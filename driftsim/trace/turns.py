"""A turn's number is its place in its session: 1 for what begins it, and one more than the latest of its parents."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd


def session_names(table: pd.DataFrame) -> np.ndarray:
    """The session of each row of a table of requests, "" where it has none, (rows,)."""
    if "session" not in table:
        return np.full(len(table), "", dtype=object)
    return table["session"].fillna("").to_numpy(dtype=object)


def renumbered(parents: Sequence[Sequence[int]], places: Sequence[int]) -> list[list[int]]:
    """The ``parents`` of rows that were at ``places``, by where they are now; one that is gone or comes later is none.

    >>> renumbered([[], [0, 1]], [0, 2])
    [[], [0]]
    """
    now = {was: place for place, was in enumerate(places)}
    return [[now[one] for one in before if now.get(one, place) < place] for place, before in enumerate(parents)]


def turn_numbers(table: pd.DataFrame) -> np.ndarray:
    """The number of each row's turn in its session, from 1; 0 where it has none, (rows,).

    Parents are rows, from 0, that stand before their children. In a session of which no turn has a parent, turns count
    in the order of the rows.

    >>> columns = {"session": ["a", "a", "a", None, "b", "b"], "parent": [[], [0], [0], [], [], []]}
    >>> turn_numbers(pd.DataFrame(columns)).tolist()
    [1, 2, 2, 0, 1, 2]
    """
    names = session_names(table)
    numbers = np.zeros(len(names), dtype=np.int64)
    if "session" not in table:
        return numbers
    parents = table["parent"].tolist()
    linked = {name for name, before in zip(names.tolist(), parents, strict=True) if len(before)}
    seen: dict[str, int] = {}
    for row, (name, before) in enumerate(zip(names.tolist(), parents, strict=True)):
        if not name:
            continue
        if name in linked:
            numbers[row] = 1 + max((numbers[one] for one in before), default=0)
        else:
            numbers[row] = seen[name] = seen.get(name, 0) + 1
    return numbers
