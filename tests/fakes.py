"""Engines for tests that keep the protocol of a live engine in real time; real vLLM is in tests/live."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from driftsim.live.engine import Outcome
from driftsim.request import Job
from tests.strategies import engine


class Echo:
    """Serves any number of jobs at once, a token a ``pace`` seconds, as many as the prompt has; a cap of 13 fails."""

    model = "echo"
    clocks = "its own"
    settings = engine(max_num_seqs=2)
    arguments: dict[str, object] = {}
    own_processes: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()

    def __init__(self, pace: float = 0.001) -> None:
        self.pace = pace
        self.failure: str | None = None
        self.on_outcome: Callable[[Outcome], None] = lambda outcome: None
        self.tasks: list[asyncio.Task[None]] = []
        self.inside = self.most = self.starts = 0

    async def start(self) -> None:
        """It is always there."""
        self.starts += 1

    async def warm_up(self) -> None:
        """It is always warm."""

    async def shutdown(self) -> None:
        """It holds nothing."""
        self.starts -= 1

    def count_tokens(self, prompt: str) -> int:
        return len(prompt.split())

    def room(self) -> int:
        return 100

    def submit(self, job: Job, true_length: int | None) -> None:
        self.tasks.append(asyncio.get_running_loop().create_task(self._serve(job, true_length)))

    def abort(self, job: Job) -> None:
        raise NotImplementedError

    def trace_steps(self, file: Path) -> bool:
        return False

    async def _serve(self, job: Job, true_length: int | None) -> None:
        self.inside += 1
        self.most = max(self.most, self.inside)
        queued = time.monotonic()
        await asyncio.sleep(self.pace)
        first = time.monotonic()
        tokens = true_length or job.request.prompt_tokens
        await asyncio.sleep(self.pace * tokens)
        self.inside -= 1
        reason = "stop" if true_length is None else "length"
        if self.failure is not None:
            self.on_outcome(Outcome(job, "error", queued=queued, error=self.failure))
        elif job.request.max_tokens == 13:
            self.on_outcome(Outcome(job, "error", queued=queued, error="RuntimeError: unlucky"))
        else:
            self.on_outcome(Outcome(job, reason, queued, queued, first, time.monotonic(), tokens, tokens, 0))
