"""The KV cache is counted in blocks of tokens."""

from __future__ import annotations

from typing import Any

from driftsim.request import Job


def blocks_for(tokens: int, block_size: int) -> int:
    """Blocks that ``tokens`` fill, the last one perhaps in part."""
    return -(-tokens // block_size)


class Sequence:
    """One job on its way through an engine; ``length`` is what a recompute would have to prefill.

    While it decodes, ``offset`` and ``ends`` say where it stands (see decoding.py); ``computed`` and ``shown`` are then
    brought up to date when it leaves.
    """

    __slots__ = (
        "batch", "cached", "computed", "ends", "error", "finish", "finish_reason", "first_token", "gone", "held", "job",
        "joined", "keyed", "late", "listed", "most", "number", "offset", "over", "own", "owner", "preemptions",
        "prompt", "queued", "rank", "scheduled",
        "shown", "stretches", "target",
    )  # fmt: skip
    most: int  # output tokens at which a limit ends it; an engine that serves it sets it
    # Only an engine with prefix caching sets these (see sharing.py).
    stretches: tuple[tuple[int, int], ...]  # whose its tokens are, up to which one; the last is its own
    held: Any  # found or registered runs of blocks
    owner: int  # its own stretch
    own: int  # the block from which on its tokens are its own
    keyed: int  # blocks that have their keys
    listed: int  # of these, those before its own that nobody has asked for
    joined: int  # tokens computed when it began to decode
    cached: int  # prompt tokens found at its first admission; -1 before
    gone: int  # blocks given up behind a sliding window; only an engine with one sets it

    def __init__(self, job: Job, target: int) -> None:
        self.job = job
        self.prompt = job.request.prompt_tokens
        self.target = target  # output tokens at which it ends
        self.computed = 0  # tokens whose KV is in the cache
        self.shown = 0  # output tokens produced; kept when preempted
        self.number = -1  # order of its last admission
        # Priority, then order of arrival at the engine, then place among its choices; for priority mode alone.
        self.rank: tuple[Any, ...] = (0, 0)
        self.offset = 0  # tokens computed, less the number of the step
        self.ends = -1  # number of its last decode step; -1 while it does not decode
        self.preemptions = 0
        self.queued: int | None = None
        self.scheduled: int | None = None
        self.first_token: int | None = None
        self.finish: int | None = None
        self.finish_reason = ""
        self.error: str | None = None
        self.late = False  # whether its client knows of its end before the core does: a stop string ends it
        self.over = False  # whether its client does by now
        self.batch: tuple[int, int] | None = None  # number and size of its batch, where the engine has batches

    @property
    def length(self) -> int:
        """Prompt and output tokens so far."""
        return self.prompt + self.shown
