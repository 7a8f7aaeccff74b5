"""What vLLM's API server turns away, with status 503, before its engine sees it: two limits on what it holds by then.

It mirrors ``check_admission`` of vllm/v1/engine/async_llm.py and the counts of output_processor.py (vLLM 0.29 to 0.33).
The server hears of tokens and ends when a step is over: the way from the engine to it takes no time here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from driftsim.engine.continuous import ContinuousEngine
from driftsim.engine.prefixes import NOWHERE
from driftsim.engine.sequence import Sequence
from driftsim.request import Job


class Shedding(ContinuousEngine):
    """Turns a request away if too many are in the server, or too many prompt tokens of those without an answer.

    A request counts with its whole prompt until its first token is out, whatever of it was computed or cached; once it
    has shown one, it counts no more, though it may be preempted.
    """

    def __init__(self, *arguments: Any) -> None:
        env, settings, step_time, gap, on_leave, *others = arguments
        super().__init__(env, settings, step_time, gap, self._left, *others)
        self._told: Callable[[list[Sequence]], None] = on_leave
        self._inside: dict[Job, None] = {}
        self._unanswered: dict[Job, Sequence] = {}
        self._refused: dict[int, str] = {}  # by request of several choices, why it was turned away, or nothing
        self._most, self._most_tokens = settings.max_num_queued_reqs, settings.max_num_queued_tokens

    def submit(self, job: Job, true_length: int | None) -> None:
        """Take ``job``, or let it leave at once as rejected."""
        refusal = self._refusal_of(job)
        if refusal:
            sequence = Sequence(job, 0)
            sequence.cached = NOWHERE
            self._leave_unserved(sequence, "rejected", f"request {job.request.id} was turned away: {refusal}")
            return
        taken = len(self._inbox)
        super().submit(job, true_length)
        if len(self._inbox) > taken:
            self._inside[job] = None
            if self._most_tokens is not None:
                self._unanswered[job] = self._inbox[-1]

    def abort(self, job: Job) -> None:
        """Drop ``job``: the server forgets it at once, the engine at its next step."""
        super().abort(job)
        self._forget(job)

    def _refusal_of(self, job: Job) -> str:
        """Why ``job`` is turned away; all choices of a request are, or none."""
        choice = job.request.choice
        if choice is None:
            return self._refusal(1)
        first, place, count = choice
        if place == 0:
            self._refused[first] = self._refusal(count)
        return self._refused.get(first, "")

    def _refusal(self, more: int) -> str:
        """Why ``more`` sequences would be turned away now; empty if they are let in."""
        most, inside = self._most, len(self._inside)
        if most is not None and inside + more > most:
            return f"{inside} requests are there, max_num_queued_reqs is {most}"
        if self._most_tokens is not None and (tokens := self._queued_tokens()) >= self._most_tokens:
            return f"{tokens} prompt tokens wait for an answer, max_num_queued_tokens is {self._most_tokens}"
        return ""

    def _queued_tokens(self) -> int:
        """Prompt tokens of those who have shown no token by now."""
        now = self.env.now
        for job, sequence in list(self._unanswered.items()):
            if sequence.first_token is not None and sequence.first_token <= now:
                del self._unanswered[job]
        return sum(sequence.prompt for sequence in self._unanswered.values())

    def _left(self, sequences: list[Sequence]) -> None:
        for sequence in sequences:
            self._forget(sequence.job)
        self._told(sequences)

    def _forget(self, job: Job) -> None:
        self._inside.pop(job, None)
        self._unanswered.pop(job, None)


def shedding(kind: type[ContinuousEngine]) -> type[ContinuousEngine]:
    """An engine of ``kind`` behind a server that has these limits."""
    return type(f"Shedding{kind.__name__}", (Shedding, kind), {})
