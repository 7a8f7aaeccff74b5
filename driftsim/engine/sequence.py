"""A job inside a simulated engine: what it has computed and shown, and when what happened to it, in ticks."""

from __future__ import annotations

from driftsim.request import Job

UNRANKED = (0, 0)


class Sequence:
    """One job on its way through an engine; ``length`` is what a recompute would have to prefill.

    While it decodes, ``offset`` and ``ends`` say where it stands (see decoding.py); ``computed`` and ``shown`` are then
    brought up to date when it leaves.
    """

    computed = 0  # tokens whose KV is in the cache
    shown = 0  # output tokens produced; kept when preempted
    number = -1  # order of its last admission
    rank = UNRANKED  # priority, then order of arrival at the engine; only priority mode looks at it
    offset = 0  # tokens computed, less the number of the step
    ends = -1  # number of its last decode step; -1 while it does not decode
    preemptions = 0
    queued: int | None = None
    scheduled: int | None = None
    first_token: int | None = None
    finish: int | None = None
    finish_reason = ""
    error: str | None = None
    batch: tuple[int, int] | None = None  # number and size of its batch, where the engine has batches

    def __init__(self, job: Job, target: int) -> None:
        self.job = job
        self.prompt = job.request.prompt_tokens
        self.target = target  # output tokens at which it ends

    @property
    def length(self) -> int:
        """Prompt and output tokens so far."""
        return self.prompt + self.shown
