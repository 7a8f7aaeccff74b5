"""What the end of a request tells whoever learns from it."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

from driftsim.engine.sequence import Sequence
from driftsim.scheduling.dispatcher import Departure
from driftsim.trace.schema import CENSORED, FINISHED, GIVEN_UP


@dataclass(frozen=True, slots=True)
class Ends:
    """By row: the length that is told of each request, its output in tokens, whether that ends by itself, and which
    are known to be given up at their end."""

    told: list[int]
    outputs: list[int]
    stops: list[bool]
    as_known: Container[int]

    def look_for_stop(self, sequence: Sequence) -> None:
        """vLLM looks for the end of sequence before it looks at limits (check_stop): the last token may be both."""
        row = sequence.job.index
        if self.stops[row] and sequence.shown == self.outputs[row]:
            sequence.finish_reason = "stop"

    def to_core(self, sequence: Sequence) -> Departure:
        """What a policy inside the engine learns of ``sequence``, as it leaves."""
        if sequence.finish_reason == "length":
            self.look_for_stop(sequence)
        if sequence.job.index in self.as_known and sequence.finish_reason in FINISHED:
            sequence.finish_reason = "abort"
        return self.of(sequence)

    def of(self, sequence: Sequence) -> Departure:
        """What is learned of ``sequence``, whose end is settled."""
        job, reason = sequence.job, sequence.finish_reason
        length, full = self.told[job.index], self.outputs[job.index]
        if reason not in FINISHED:
            made = None if sequence.scheduled is None or not full else round(length * sequence.shown / full)
            return Departure(job, None, True, made, sequence.shown, (made or 0) if reason in GIVEN_UP else 0)
        if sequence.shown != full:  # cut short by a limit that the recorded run did not have: words shrink alike
            length = round(length * sequence.shown / full)
        return Departure(job, length, reason in CENSORED, output_tokens=sequence.shown)
