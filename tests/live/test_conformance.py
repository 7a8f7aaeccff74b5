"""Conformance: the simulated engine decides, step by step, as vLLM's own scheduler does on the same requests.

vLLM's V1 ``Scheduler`` and ``AsyncScheduler`` run without a model, its output faked; a step takes a tick of time on
both sides. CONFORMANCE_WORKLOADS sets how many random workloads are compared (default 200), CONFORMANCE_SEED the first.
"""

from __future__ import annotations

import itertools
import os
import random
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from driftsim.engine.clock import ARRIVE, Clock, Moment
from driftsim.engine.continuous import ContinuousEngine
from driftsim.engine.pipelined import PipelinedEngine
from driftsim.engine.scheduler import MIRRORED_VLLM
from driftsim.engine.sequence import Sequence
from driftsim.latency.steptime import LinearStepTime
from driftsim.request import Job, Request, Tier
from driftsim.trace.header import EngineSettings
from tests.live.bare import bare_scheduler, faked_output, request, sampling

pytestmark = pytest.mark.live
WORKLOADS = int(os.environ.get("CONFORMANCE_WORKLOADS", "200"))
FIRST = int(os.environ.get("CONFORMANCE_SEED", "0"))


@dataclass
class Decision:
    """One step: when it was scheduled and is over, who computes how many tokens, who was preempted (in order) for it,
    who was over with it.
    """

    step: int
    end: int
    tokens: dict[str, int]
    preempted: list[str] = field(default_factory=list)
    finished: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Asked:
    """A request: when it arrives, how long it is, what it would produce and may, and how urgent it is."""

    step: int
    prompt: int
    output: int
    cap: int
    priority: int


@dataclass(frozen=True)
class Case:
    """Requests in order of arrival, and the engine that serves them."""

    settings: EngineSettings
    requests: list[Asked]


def case(seed: int) -> Case:
    """A random workload of 50 to 200 requests, on an engine that is often short of something."""
    dice = random.Random(seed)
    block = dice.choice([16, 16, 32])
    chunked = dice.random() < 0.75
    length = dice.choice([128, 256])
    settings = EngineSettings(
        version=MIRRORED_VLLM,
        max_num_seqs=dice.choice([2, 8, 16, 64]),
        max_num_batched_tokens=dice.choice([64, 100, 256]) if chunked else length,
        max_model_len=length,
        kv_blocks=1 + dice.choice([length // block, length // block + 3, 40, 400]),
        block_size=block,
        enable_chunked_prefill=chunked,
        long_prefill_token_threshold=dice.choice([0, 0, 17, 40]) if chunked else 0,
        scheduling_policy=dice.choice(["fcfs", "priority"]),
        async_scheduling=dice.random() < 0.5,
        scheduler_reserve_full_isl=dice.random() < 0.8,
        watermark=dice.choice([0.0, 0.0, 0.05]),
    )
    burst = dice.choice([1, 3, 12])
    step, requests = 0, []
    for _ in range(dice.randint(50, 200)):
        step += dice.choice([0, dice.randint(0, 2 * burst)])
        prompt = dice.randint(1, length - 2)
        output = dice.randint(1, min(60, length - prompt))
        requests.append(Asked(step, prompt, output, output + dice.choice([0, 0, 5, 100]), dice.randint(1, 3)))
    return Case(settings, requests)


class Watched(ContinuousEngine):
    """Notes its decisions, a step at a time."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.decisions: list[Decision] = []
        self.preempted: list[str] = []

    def _preempt(self, victim: Sequence) -> int:
        self.preempted.append(victim.job.request.id)
        return super()._preempt(victim)

    def _compute_step(self, now: int, begin: int, prefills: list[tuple[Sequence, int]], preempted: int) -> int:
        idle = {*self.prefilling, *self._paused, *self.awaiting_output}
        tokens = {one.job.request.id: 1 for one in self.running if one not in idle}
        tokens |= {one.job.request.id: new for one, new in prefills}
        self.decisions.append(Decision(now, begin + 1, tokens, self.preempted))
        self.preempted = []
        return super()._compute_step(now, begin, prefills, preempted)


class WatchedPipeline(Watched, PipelinedEngine):
    """Likewise, of async scheduling."""


def ours(made: Case) -> list[Decision]:
    env = Clock(initial_time=0)

    def left(sequences: list[Sequence]) -> None:
        over = next(decision for decision in reversed(engine.decisions) if decision.end == env.now)
        over.finished.extend(sequence.job.request.id for sequence in sequences)

    kind = WatchedPipeline if made.settings.async_scheduling else Watched
    engine = kind(env, made.settings, LinearStepTime(1, 0, 0, 0), 0, left, lambda row: None)
    for number, asked in enumerate(made.requests):
        sent = Request(str(number), "", Tier.STANDARD, "", 0.0, asked.prompt, None, asked.cap)
        job = Job(sent, "", 0, 0, priority=asked.priority)
        Moment(env, asked.step, ARRIVE, lambda _, job=job, asked=asked: engine.submit(job, asked.output))  # type: ignore[misc]
    env.run()
    return engine.decisions


class Theirs:
    """vLLM's core loop around its scheduler, in ticks (v1/engine/core.py)."""

    def __init__(self, made: Case) -> None:
        self.made = made
        self.scheduler = bare_scheduler(made.settings)
        self.lengths = {str(number): asked.output for number, asked in enumerate(made.requests)}
        self.arrivals = deque(enumerate(made.requests))
        self.decisions: list[Decision] = []
        self.preempted: list[str] = []

    def drain(self, now: int) -> None:
        while self.arrivals and self.arrivals[0][1].step <= now:
            number, asked = self.arrivals.popleft()
            self.scheduler.add_request(
                request(str(number), asked.prompt, asked.cap, arrival=number, priority=asked.priority)
            )

    def schedule(self, now: int, last: int) -> tuple[Any, set[str], Decision | None]:
        """vLLM's output, who samples, and the decision if anything is computed, which is over a tick after ``last``."""
        running = list(self.scheduler.running)
        before = {one.request_id: one.num_preemptions for one in running}
        output = self.scheduler.schedule()
        gone = [one for one in reversed(running) if one.num_preemptions > before[one.request_id]]
        if self.made.settings.scheduling_policy == "priority":
            gone.sort(key=lambda one: (one.priority, one.arrival_time), reverse=True)
        self.preempted += [one.request_id for one in gone]
        tokens = dict(output.num_scheduled_tokens)
        if not tokens:
            return output, set(), None
        self.decisions.append(Decision(now, max(now, last) + 1, tokens, self.preempted))
        self.preempted = []
        return output, sampling(self.scheduler, output), self.decisions[-1]

    def update(self, output: Any, samples: set[str], decision: Decision | None) -> None:
        results = self.scheduler.update_from_output(output, faked_output(self.scheduler, output, self.lengths, samples))
        ended = [one.request_id for core in results.values() for one in core.outputs if one.finish_reason is not None]
        assert decision is not None or not ended
        if decision is not None:
            decision.finished.extend(ended)

    def run(self) -> list[Decision]:
        """``step``, or ``step_with_batch_queue`` with async scheduling."""
        (self.step_with_batch_queue if self.made.settings.async_scheduling else self.step)()
        return self.decisions

    def step(self) -> None:
        now = 0
        while self.arrivals or self.scheduler.has_unfinished_requests():
            if not self.scheduler.has_unfinished_requests():
                now = max(now, self.arrivals[0][1].step)  # an idle engine starts at once
            self.drain(now)
            output, samples, decision = self.schedule(now, now)
            self.update(output, samples, decision)
            now += decision is not None  # a step that computes nothing takes no time

    def step_with_batch_queue(self) -> None:
        now = last = 0
        queue: deque[tuple[int, Any, set[str], Decision | None]] = deque()
        while self.arrivals or self.scheduler.has_requests() or queue:
            if not (self.scheduler.has_requests() or queue):
                now = max(now, self.arrivals[0][1].step)
            self.drain(now)
            if self.scheduler.has_requests():
                output, samples, decision = self.schedule(now, last)
                last = decision.end if decision else last
                queue.appendleft((decision.end if decision else now, output, samples, decision))
                if len(queue) < 2 and (decision is not None or self.scheduler.has_requests()):
                    continue
            elif not queue:
                continue
            end, output, samples, decision = queue.pop()
            now = max(now, end)
            self.update(output, samples, decision)


def test_the_mirrored_version_is_the_installed_one() -> None:
    import vllm

    assert vllm.__version__ == MIRRORED_VLLM


def compared(seeds: range) -> Iterator[tuple[Case, Decision]]:
    """Every decision of vLLM, after it was found to be ours."""
    for seed in seeds:
        made = case(seed)
        for number, (mine, wanted) in enumerate(itertools.zip_longest(ours(made), Theirs(made).run())):
            assert mine == wanted, f"seed {seed}, step {number}, {made.settings}"
            yield made, wanted


@pytest.mark.parametrize("block", range(10))
def test_every_decision_is_vllms(block: int) -> None:
    seen: dict[tuple[str, bool], list[int]] = {}
    for made, wanted in compared(range(FIRST + block * WORKLOADS // 10, FIRST + (block + 1) * WORKLOADS // 10)):
        counts = seen.setdefault((made.settings.scheduling_policy, made.settings.async_scheduling), [0, 0])
        counts[0] += 1
        counts[1] += len(wanted.preempted)
    if WORKLOADS >= 200:  # fewer need not hold enough of everything
        assert len(seen) == 4
        assert min(steps for steps, _ in seen.values()) > 100
        assert sum(preemptions for _, preemptions in seen.values()) > 10
