"""The clock of the simulated engines: SimPy's environment, with integer ticks and no call for each event."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

import simpy

# Simultaneous events have one order: a step's end, then whatever arrives, then the dispatcher's choice, then a step.
COMPLETE, ARRIVE, RELEASE, STEP = range(4)


class Clock(simpy.Environment):
    """SimPy's environment; running until nothing is left to happen does without a call for each event."""

    _now: Any  # ticks, an int: what ``now`` returns, without the call

    def run(self, until: Any = None) -> Any:
        """What SimPy's does, step by step."""
        if until is not None:
            return super().run(until)
        queue = self._queue
        while queue:
            self._now, _, _, event = heappop(queue)
            callbacks, event.callbacks = event.callbacks, None  # type: ignore[assignment]
            for callback in callbacks:
                callback(event)
            if not event._ok and not hasattr(event, "_defused"):
                raise event._value
        return None


class Moment(simpy.Event):
    """A point in time at which ``callback`` runs, after all events of a lower ``priority`` at that instant."""

    _ok, _value = True, None  # it cannot fail

    def __init__(self, env: simpy.Environment, at: int, priority: int, callback: Callable[[simpy.Event], None]) -> None:
        self.callbacks = [callback]
        # What env.schedule() does, without the call: a run makes millions of these.
        heappush(env._queue, (at, priority, next(env._eid), self))  # type: ignore[misc]
