"""For tests of policies, estimators and engines of one's own: a plain engine, a profile, a workload, an echo engine.

Everything has a plain value; what is given replaces it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from driftsim.latency.profile import Profile
from driftsim.live.engine import Outcome
from driftsim.request import Job
from driftsim.trace.header import Phase, WorkloadInfo
from driftsim.trace.settings import EngineSettings
from driftsim.workloads.table import workload_table
from driftsim.workloads.workload import Workload


def engine(**changes: Any) -> EngineSettings:
    """Plain engine settings, with changes.

    >>> engine(max_num_seqs=8).max_num_seqs
    8
    """
    settings: dict[str, Any] = {
        "version": "0.32.0",
        "max_num_seqs": 4,
        "max_num_batched_tokens": 64,
        "max_model_len": 512,
        "kv_blocks": 1000,
        "block_size": 16,
    }
    return EngineSettings(**settings | changes)


def profile(engine_settings: EngineSettings | None = None, **changes: Any) -> Profile:
    """A profile whose every step takes 10 ms, without lags, with changes.

    >>> profile(engine(max_num_seqs=1)).intercept_s
    0.01
    """
    settings: dict[str, Any] = {
        "intercept_s": 0.010,
        "prefill_token_s": 0.0,
        "decode_request_s": 0.0,
        "context_token_s": 0.0,
    }
    return Profile(engine=engine_settings or engine(), **settings | changes)


def workload(
    arrivals: Sequence[float], outputs: Sequence[int], phases: tuple[Phase, ...] = (), **columns: Any
) -> Workload:
    """One open phase (or ``phases``) of requests that are alike but for the ``columns`` that are given.

    ``arrivals`` are seconds since the phase's start, ``outputs`` the true output lengths in tokens.

    >>> from driftsim.simulation.run import simulate
    >>> from driftsim.simulation.scenario import Scenario
    >>> run = simulate(Scenario(profile=profile(engine(max_num_seqs=1))), workload([0.0, 0.0], [3, 2]))
    >>> run.requests["finish_s"].tolist()
    [0.03, 0.05]
    """
    count = len(arrivals)
    phases = phases or (Phase(name="only", requests=count),)
    plain = {
        "tenant": "a",
        "category": "short_qa",
        "predicted_category": "short_qa",
        "prompt_tokens": 8,
        "prompt_words": 6,
        "max_tokens": [max(output, 64) for output in outputs],
        "offset_s": arrivals,
        "output_tokens": outputs,
        "output_words": [max(1, round(0.72 * output)) for output in outputs],
        "stops": False,
    }
    table = workload_table(phases, **plain | columns)
    loop: Literal["open", "closed"] = "closed" if any(phase.kind == "closed" for phase in phases) else "open"
    return Workload(WorkloadInfo(name="test", loop=loop, phases=phases), table)


class Echo:
    """A live engine without a model: any number of jobs at once, a token every ``pace`` seconds, as many as the prompt.

    A request whose ``max_tokens`` is ``unlucky`` ends with an error; with ``failure`` set, every request does.
    """

    unlucky = 13

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

    async def forget(self) -> bool | None:
        """It has no cache."""
        return None

    async def shutdown(self) -> None:
        """It holds nothing."""
        self.starts -= 1

    def count_tokens(self, prompt: str) -> int:
        """A word is a token."""
        return len(prompt.split())

    def room(self) -> int:
        """There is always some."""
        return 100

    def submit(self, job: Job, true_length: int | None) -> None:
        """Serve ``job``; a forced length ends at its limit."""
        self.tasks.append(asyncio.get_running_loop().create_task(self._serve(job, true_length)))

    def abort(self, job: Job) -> None:
        """Nothing aborts."""
        raise NotImplementedError

    def trace_steps(self, file: Path) -> bool:
        """It has no steps."""
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
        elif job.request.max_tokens == self.unlucky:
            self.on_outcome(Outcome(job, "error", queued=queued, error="RuntimeError: unlucky"))
        else:
            self.on_outcome(Outcome(job, reason, queued, queued, first, time.monotonic(), tokens, tokens, 0))
