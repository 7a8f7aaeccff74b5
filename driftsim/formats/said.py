"""Sentences that several readers say of what a file tells and a replay cannot keep."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from driftsim.formats.values import is_nothing, texts

HELD_S = 0.005  # a request that left its client so soon after it was due was not held back


def turns(follows: Sequence[Any]) -> list[str]:
    """A caveat if some requests follow others of a session; ``follows`` is true for each that does."""
    count = sum(bool(one) for one in follows)
    if not count:
        return []
    return [
        f"{count} of {len(follows)} requests are later turns of a session: a turn is replayed at its recorded time, "
        "however long the answer before it takes"
    ]


def repeated(sessions: Sequence[Any]) -> list[bool]:
    """Which rows have the name of a session that an earlier row had; a row without a name has none.

    >>> repeated(["a", None, "a", "", "b"])
    [False, False, True, False, False]
    """
    seen = set[str]()
    found = []
    for name in texts(sessions)[0]:
        found.append(name is not None and name in seen)
        if name is not None:
            seen.add(name)
    return found


def above_zero(cells: Sequence[Any]) -> list[bool]:
    """Which of ``cells`` is a number above 0, as the place of a later turn is.

    >>> above_zero([0, 1, "2", None, True, "x"])
    [False, True, True, False, False, False]
    """
    return [_number(cell) > 0 for cell in cells]


def _number(cell: Any) -> float:
    if isinstance(cell, bool) or is_nothing(cell) or not isinstance(cell, int | float | str):
        return 0.0
    try:
        return float(cell)
    except (ValueError, OverflowError):
        return 0.0


def held_back(waited_s: np.ndarray, name: str) -> list[str]:
    """A caveat if clients held requests back: ``waited_s`` is how long, NaN where not told, ``name`` what tells it."""
    held = waited_s > HELD_S
    if not held.any():
        return []
    return [
        f"the client held back {int(held.sum())} of {len(waited_s)} requests, at most for "
        f"{float(waited_s[held].max()):.3g} s ({name}): each counts from when it was sent"
    ]
