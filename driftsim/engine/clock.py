"""The clock of the simulated engines: SimPy's environment, with integer ticks and no call for each event.

SimPy reads its time through a property and adds to its queue through a method: a call each, a million times a run. This
file alone reaches behind them, for ``_now``, ``_queue`` and ``_eid``; the others read ``now`` and ``upcoming``, which
cost no call.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

import simpy

# Simultaneous events have one order: a step's end, then whatever arrives, then the dispatcher's choice, then a step.
COMPLETE, ARRIVE, RELEASE, STEP = range(4)


class Clock(simpy.Environment):
    """SimPy's environment, whose time and queue are plain attributes, and whose ``run`` calls nothing but callbacks."""

    __slots__ = ("now", "number", "upcoming")

    now: int  # ticks
    _now: int  # SimPy's name for it
    upcoming: list[tuple[int, int, int, simpy.Event]]  # heap of (tick, priority, number, event): the earliest is first
    number: Callable[[], int]  # draws the number that an event made now would get; for one made later, see ``Numbered``

    def __init__(self, initial_time: int = 0) -> None:
        super().__init__(initial_time)
        self.upcoming = self._queue  # type: ignore[assignment]  # the same list; SimPy's holds floats as well
        self.number = self._eid.__next__

    def run(self, until: Any = None) -> Any:
        """Process events until none is left, or as SimPy does where ``until`` says when to stop."""
        if until is not None:
            return super().run(until)
        upcoming = self.upcoming
        while upcoming:
            self.now, _, _, event = heappop(upcoming)
            callbacks, event.callbacks = event.callbacks, None  # type: ignore[assignment]
            for callback in callbacks:
                callback(event)
            if not event._ok and not hasattr(event, "_defused"):
                raise event._value
        return None


Clock._now = Clock.now  # one slot under two names: SimPy's own code, timeouts among it, keeps the same time


class Moment(simpy.Event):
    """A point in time at which ``callback`` runs, after all events of a lower ``priority`` at that instant."""

    _ok, _value = True, None  # it cannot fail

    def __init__(self, env: simpy.Environment, at: int, priority: int, callback: Callable[[simpy.Event], None]) -> None:
        self.callbacks = [callback]
        # What env.schedule() does, without the call: a run makes millions of these.
        heappush(env._queue, (at, priority, next(env._eid), self))  # type: ignore[misc]


class Numbered(Moment):
    """A point in time whose ``number`` was drawn before: it comes where it would have come if it had been made then."""

    def __init__(
        self, env: Clock, at: int, priority: int, number: int, callback: Callable[[simpy.Event], None]
    ) -> None:
        self.callbacks = [callback]
        self.number = number
        heappush(env._queue, (at, priority, number, self))  # type: ignore[misc]
