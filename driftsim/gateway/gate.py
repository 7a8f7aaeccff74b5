"""The gate holds requests until the dispatcher releases them; it has no clock and no sockets, and drops nobody.

Every request that is offered ends exactly once, as finished, refused, aborted or an error: ``Ends`` counts them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from driftsim.live.engine import Outcome
from driftsim.live.waiting import departure
from driftsim.request import Job, Request
from driftsim.scheduling.dispatcher import Departure, Dispatcher
from driftsim.scheduling.shedding import Refusal, Shed
from driftsim.trace.schema import FINISHED, GIVEN_UP

MANY_WITHDRAWN = 256  # in the policy's queue before it is cleared of them

State = Literal["waiting", "inside", "over"]


@dataclass(slots=True, eq=False)
class Ticket:
    """One request at the gate. ``go`` is called once, when it is released."""

    job: Job
    go: Callable[[Ticket], None] = field(repr=False)
    state: State = "waiting"
    arrived: float = 0.0  # s of the gate's time, like all times here
    released: float | None = None


@dataclass(slots=True)
class Ends:
    """How many requests were offered, and how those ended that have."""

    offered: int = 0
    finished: int = 0
    refused: int = 0
    aborted: int = 0
    errors: int = 0

    def note(self, reason: str) -> None:
        """One ended so, by its finish reason."""
        if reason in FINISHED:
            self.finished += 1
        elif reason == "rejected":
            self.refused += 1
        elif reason in GIVEN_UP:
            self.aborted += 1
        else:
            self.errors += 1

    @property
    def over(self) -> int:
        """Those that have ended."""
        return self.finished + self.refused + self.aborted + self.errors


class Gate:
    """A dispatcher driven by events. ``room`` says how many more the servers would take: 0 while all are down.

    Tell it of all that happens at one moment, then ``pump`` it: so one moment has one outcome.
    """

    def __init__(self, dispatcher: Dispatcher, room: Callable[[], int]) -> None:
        self.dispatcher = dispatcher
        self.ends = Ends()
        self.waiting: dict[int, Ticket] = {}  # id(job) -> ticket
        self.inside: dict[int, Ticket] = {}
        self.depth: Counter[str] = Counter()  # waiting, by tier
        self._room = room
        self._gone: list[Departure] = []
        self._withdrawn = 0

    def offer(
        self, request: Request, category: str, now: float, go: Callable[[Ticket], None], index: int = -1
    ) -> tuple[Ticket, Refusal | None]:
        """Admit ``request``; with a refusal, it is over already."""
        self.ends.offered += 1
        job = self.dispatcher.arrive(request, category, now, index)
        ticket = Ticket(job, go, arrived=now)
        refusal = self.dispatcher.refused
        if refusal is not None:
            ticket.state = "over"
            self.ends.note("rejected")
            return ticket, refusal
        self.waiting[id(job)] = ticket
        self.depth[str(request.tier)] += 1
        return ticket, None

    def withdraw(self, ticket: Ticket, reason: str, now: float) -> None:
        """``ticket`` waits no more, for that finish ``reason``."""
        assert ticket.state == "waiting"
        ticket.state = "over"
        del self.waiting[id(ticket.job)]
        self.depth[str(ticket.job.request.tier)] -= 1
        self.dispatcher.withdraw(ticket.job)
        self.ends.note(reason)
        self._withdrawn += 1
        if self._withdrawn >= MANY_WITHDRAWN and self._withdrawn > 3 * len(self.waiting):
            self._clear(now)

    def leave(self, ticket: Ticket, outcome: Outcome) -> None:
        """``ticket`` left its server; its slot is free from the next ``pump`` on."""
        assert ticket.state == "inside"
        ticket.state = "over"
        del self.inside[id(ticket.job)]
        self.ends.note(outcome.finish_reason)
        self._gone.append(departure(outcome, self.measured))

    def pump(self, now: float) -> None:
        """Learn from who left, and release whom the policy chooses."""
        gone, self._gone = self._gone, []
        if gone:
            self.dispatcher.finished(gone, now)
        if not self.dispatcher.may_release:
            return
        for job in self.dispatcher.release(self._room(), now):
            ticket = self.waiting.pop(id(job))
            self.depth[str(job.request.tier)] -= 1
            ticket.state, ticket.released = "inside", now
            self.inside[id(job)] = ticket
            ticket.go(ticket)

    def limit_anew(self, shed: tuple[Shed, ...], now: float) -> None:
        """Go by other limits of the queue from ``now`` on."""
        self.pump(now)  # so that whoever has left is not counted as inside
        waiting, inside = ([one.job for one in some.values()] for some in (self.waiting, self.inside))
        self.dispatcher.limit_anew(shed, waiting, inside, now)

    def _clear(self, now: float) -> None:
        """Put those who wait into the policy's queue anew, without the many who were withdrawn from it."""
        self._withdrawn = 0
        for job in self.dispatcher.drained(now):
            self.dispatcher.enqueue(job, now, again=True)

    def measured(self, tokens: int, words: int | None) -> int:
        """An output's length in the unit of the estimates."""
        unit = self.dispatcher.admission.unit
        if words is None and unit.unit == "whitespace" and unit.words_per_token is None:
            return tokens  # an answer that broke off: its words were not counted to the end
        return unit.length(tokens, words)
