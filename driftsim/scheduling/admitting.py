"""Policies that hold the head back until the KV cache will do for all: they use the place inside the engine."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from driftsim.request import Job
from driftsim.scheduling.lifetimes import Lifetimes
from driftsim.scheduling.queues import Keyed
from driftsim.scheduling.room import Load, Room, peak_blocks

SETTLING = 1  # step after its last that a sequence may keep its blocks, with async scheduling


class PastFuture(Keyed):
    """Past-Future: in order of arrival, but the head waits until the KV cache's expected peak leaves room for it.

    Inside the engine it is asked, before the head goes in, how many KV blocks all that run and the head come to hold at
    the most if each goes on for its expected rest; that must not exceed the cache less ``reserve``. The rest is E[o | o
    > g] - g of the last ``window`` outputs, of any category, under its ``max_tokens``; or, with ``lengths=estimate``,
    what the run's estimator says. Whoever would be alone goes in. In front of the engine, or as a priority, it is FIFO.
    With true lengths nobody is ever preempted. Source: Gong et al., ASPLOS 2025, arXiv 2507.10150 (abstract read), and
    lightllm's req_queue/continues_batch/impl.py (read), whose code takes a moving average, or 1.1 times what was made,
    for the length; that lengths are drawn from the distribution there, and the window and the reserve, are from memory.
    Trap: right on average is too little half of the time; ``reserve`` is the margin. A window is too long under drift;
    and while a head waits, everybody behind it does.
    """

    def __init__(
        self,
        *,
        lengths: Annotated[
            Literal["past", "estimate"], Field(description="What the rest of an output is expected by.")
        ] = "past",
        window: Annotated[int, Field(ge=1, description="Outputs that count, the last ones.")] = 1000,
        reserve: Annotated[float, Field(ge=0, lt=1, description="Share of the KV cache that is kept free.")] = 0.0,
    ) -> None:
        super().__init__()
        self._past = Lifetimes(window) if lengths == "past" else None
        self._reserve = reserve

    def key(self, job: Job) -> float:
        """The arrival."""
        return job.request.arrival

    def admits(self, head: Load, running: Sequence[Load], room: Room, now: float) -> bool:
        """Whether the cache's expected peak leaves room for the head beside those who run."""
        loads = [*running, head]
        prefill = sum(-(-one.uncomputed // room.chunk) for one in loads)  # steps until the last of them decodes
        tokens = [one.job.request.prompt_tokens + one.job.made for one in loads]
        steps = [self._rest(one.job) + SETTLING + (prefill if one.uncomputed else 0) for one in loads]
        return peak_blocks(tokens, steps, room.block_size) <= math.floor((1 - self._reserve) * room.blocks)

    def _rest(self, job: Job) -> int:
        """Output tokens that ``job`` is expected to make from now on."""
        if self._past is None or not len(self._past):
            return max(0, job.estimate - job.made)
        return math.ceil(max(0, self._past.beyond(job.made, job.request.max_tokens) - job.made))

    def served(self, job: Job, tokens: int | None, now: float) -> None:
        """Learn an output."""
        if self._past is not None and tokens:
            self._past.add(tokens, False)
