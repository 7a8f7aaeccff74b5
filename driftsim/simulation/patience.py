"""Who waits for an answer, and until when: only the next one to give up is an event of the clock.

Nearly all answers come in time: an event for each client would cost a run a tenth of its time, and all would be idle.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush

from driftsim.engine.clock import ARRIVE, Clock, Numbered
from driftsim.request import Job


class Patience:
    """The clients who wait; ``give_up(row, job, until, reason)`` is told of each whose answer has not come by then.

    ``waits`` says, by row, for which job a client waits, until when, and what the end is then; who is taken out of it
    waits no more. Clients who give up at one instant do so in the order in which they began to wait.
    """

    def __init__(self, env: Clock, give_up: Callable[[int, Job, int, str], None]) -> None:
        self._env, self._give_up = env, give_up
        self.waits = dict[int, tuple[Job, int, str]]()
        self._due: list[tuple[int, int, int]] = []  # heap of (tick, number, row), those who wait no more among them
        self._asked = set[int]()  # the numbers of the events that the clock has

    def begin(self, row: int, job: Job, until: int, reason: str) -> None:
        """The client of ``row`` waits from now on; at ``until`` it gives up ``job``, which then ends for ``reason``."""
        number = self._env.number()
        self.waits[row] = job, until, reason
        heappush(self._due, (until, number, row))
        if self._due[0][1] == number:
            self._ask()

    def _ask(self) -> None:
        at, number, _ = self._due[0]
        if number not in self._asked:
            self._asked.add(number)
            Numbered(self._env, at, ARRIVE, number, self._look)

    def _look(self, event: object) -> None:
        due, waits = self._due, self.waits
        number = event.number  # type: ignore[attr-defined]  # the clock's own are ``Numbered``
        self._asked.remove(number)
        if due and due[0][1] == number:
            row = heappop(due)[2]
            if (wait := waits.pop(row, None)) is not None:
                self._give_up(row, *wait)
        if not waits:
            due.clear()
        while due and due[0][2] not in waits:
            heappop(due)
        if due:
            self._ask()
