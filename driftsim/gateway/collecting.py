"""When Python's collector of cycles runs: not while streams run, which it would hold up for milliseconds each time.

A request that is served leaves no cycle behind; an error may. So what was loaded at the start is never looked through
again, and the rest when nobody is served, when much has piled up, or when it was not for long.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from typing import Literal

LOOK_S = 1.0
FEW, MANY = 5_000, 250_000  # objects made and not freed since the last time: a stream holds some 500
LATEST_S = 600.0


def take_over() -> None:
    """Leave what was loaded so far alone, and collect no more by itself."""
    gc.collect()
    gc.freeze()  # else all of it is looked through again and again, for some 50 ms
    gc.disable()


def due(made: int, since_s: float, is_idle: bool) -> Literal["all", "young"] | None:
    """What is to be looked through, after so many objects were ``made`` in so many seconds.

    >>> due(4_000, 60.0, True), due(6_000, 60.0, True), due(6_000, 60.0, False), due(300_000, 60.0, False)
    (None, 'all', None, 'young')
    """
    if (is_idle and made >= FEW) or since_s >= LATEST_S:
        return "all"
    return "young" if made >= MANY else None


async def collect(is_idle: Callable[[], bool]) -> None:
    """Collect what is due, for ever."""
    clock = asyncio.get_running_loop().time
    last = clock()
    while True:
        await asyncio.sleep(LOOK_S)
        what = due(gc.get_count()[0], clock() - last, is_idle())
        if what is not None:
            gc.collect(2 if what == "all" else 0)
            last = clock() if what == "all" else last
