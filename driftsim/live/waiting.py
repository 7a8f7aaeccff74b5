"""The clients of a live run, as the recorder plays them: they give up in time, and send again what failed."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from driftsim.live.engine import Outcome
from driftsim.request import Job
from driftsim.scheduling.dispatcher import Departure
from driftsim.trace.schema import CENSORED, FINISHED, GIVEN_UP
from driftsim.workloads.attempts import Attempts


@dataclass
class Waiting:
    """Who waits, until when, and who comes again, by row of the ``attempts``; times are seconds since the run began."""

    attempts: Attempts
    given_up: dict[int, float] = field(default_factory=dict)  # whose client is gone, though the engine is at it still
    _jobs: dict[int, Job] = field(default_factory=dict)  # who may be given up
    _ends: list[tuple[float, int]] = field(default_factory=list)  # a heap of when
    _again: list[tuple[float, int]] = field(default_factory=list)  # a heap of who is sent again, and when

    def sent(self, job: Job, due: float) -> None:
        """``job`` was due to be sent then."""
        until = self.attempts.until(job.index, due) if self.attempts.impatient else None
        if until is not None:
            self._jobs[job.index] = job
            heapq.heappush(self._ends, (until[0], job.index))

    def failed(self, row: int, reason: str, now: float, told_s: float | None = None) -> bool:
        """The attempt in ``row`` is over for its client; whether the request is. See ``Attempts.again``."""
        again = self.attempts.again(row, reason, now, told_s)
        if again is None:
            return True
        heapq.heappush(self._again, (again[1], again[0]))
        return False

    def left(self, row: int) -> None:
        """The attempt in ``row`` came to its end before it was given up."""
        self._jobs.pop(row, None)

    def late(self, now: float) -> list[tuple[Job, float]]:
        """Whose clients give up by ``now``, and when each did."""
        found = []
        while self._ends and self._ends[0][0] <= now:
            at, row = heapq.heappop(self._ends)
            job = self._jobs.pop(row, None)
            if job is not None:
                found.append((job, at))
        return found

    def come(self, now: float) -> list[tuple[int, float]]:
        """The rows that are sent again by ``now``, and when each was due."""
        found = []
        while self._again and self._again[0][0] <= now:
            due, row = heapq.heappop(self._again)
            found.append((row, due))
        return found

    def next_at(self) -> float | None:
        """When somebody next gives up or is sent again; None if nobody does."""
        while self._ends and self._ends[0][1] not in self._jobs:
            heapq.heappop(self._ends)
        return min((heap[0][0] for heap in (self._ends, self._again) if heap), default=None)


def as_seen(outcome: Outcome, gone: float) -> Outcome:
    """What the client knew of ``outcome`` who gave up at ``gone`` (monotonic, s): what came later it did not see."""
    times = {name: getattr(outcome, name) for name in ("queued", "scheduled", "first_token")}
    seen: dict[str, Any] = {name: None if at is None or at > gone else at for name, at in times.items()}
    tokens = outcome.output_tokens if seen["first_token"] is not None else 0
    return replace(outcome, finish_reason="timeout", finish=gone, error=None, output_tokens=tokens, **seen)


def departure(outcome: Outcome, length: Callable[[int, int | None], int]) -> Departure:
    """What the dispatcher learns of ``outcome``; ``length`` counts tokens and words in the accounting's unit."""
    if outcome.finish_reason not in (*FINISHED, *GIVEN_UP) or outcome.output_tokens is None:
        made = outcome.output_tokens or 0
        return Departure(outcome.job, None, True, None if outcome.scheduled is None else made, made)
    observed = length(outcome.output_tokens, outcome.output_words)
    return Departure(outcome.job, observed, outcome.finish_reason in CENSORED, output_tokens=outcome.output_tokens)
