"""What the simulated engine decides on a workload, and what vLLM's own scheduler does on the same: step by step.

vLLM's V1 ``Scheduler`` and ``AsyncScheduler`` run without a model, its output faked; a step takes a tick of time on
both sides.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from driftsim.engine.clock import ARRIVE, Clock, Moment
from driftsim.engine.continuous import ContinuousEngine
from driftsim.engine.pipelined import PipelinedEngine
from driftsim.engine.sequence import Sequence
from driftsim.engine.shedding import shedding
from driftsim.latency.steptime import LinearStepTime
from driftsim.request import Job, Request, Tier
from driftsim.simulation.engines import Known
from driftsim.trace.prefixes import Stretches, in_common, shared, stretches
from driftsim.trace.settings import EngineSettings
from tests.live.bare import bare_scheduler, faked_output, request, sampling


@dataclass
class Decision:
    """One step: when it was scheduled and is over, who computes how many tokens, who was preempted (in order) for it,
    who was over with it, and how many of the tokens of whom it was computed for the first time were found in the cache.
    """

    step: int
    end: int
    tokens: dict[str, int]
    preempted: list[str] = field(default_factory=list)
    finished: list[str] = field(default_factory=list)
    computed: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Asked:
    """A request: its arrival, its prompt, what it would produce and may, its urgency, when it is given up, of which
    request it is which of how many choices, and whether a stop string ends it.
    """

    step: int
    tokens: list[int]
    output: list[int]
    cap: int
    priority: int
    gone: int | None = None
    choice: tuple[int, int, int] | None = None
    stopped: bool = False


@dataclass(frozen=True)
class Case:
    """Requests in order of arrival, and the engine that serves them."""

    settings: EngineSettings
    requests: list[Asked]

    def name(self, number: int) -> str:
        """The id of a request, that of a choice as vLLM makes it (v1/engine/parallel_sampling.py)."""
        choice = self.requests[number].choice
        return str(number) if choice is None else f"{choice[1]}_{choice[0]}"

    def arrival(self, number: int) -> int:
        """Its place in the order of arrival, which choices of one request share."""
        choice = self.requests[number].choice
        return number if choice is None else choice[0]

    def job(self, number: int, whose: Stretches) -> Job:
        """A request as our engine gets it; ``whose``: with whom it shares its beginning."""
        asked = self.requests[number]
        name, prompt = self.name(number), len(asked.tokens)
        sent = Request(name, "", Tier.STANDARD, "", 0.0, prompt, None, asked.cap, None, whose, asked.choice)
        return Job(sent, "", 0, 0, index=number, priority=asked.priority)

    def kind(self) -> Any:
        """The class of our engine, which notes its decisions."""
        stopped = {number for number, asked in enumerate(self.requests) if asked.stopped}
        known = vars(Known(stopped, in_common(self.stretches)))
        kind: Any = type("Told", (WatchedPipeline if self.settings.async_scheduling else Watched,), known)
        return shedding(kind) if self.settings.sheds else kind

    @cached_property
    def stretches(self) -> list[Stretches]:
        """With whom each request shares its beginning."""
        size = self.settings.block_size
        whole = [asked.tokens + asked.output for asked in self.requests]
        keys = [[tuple(one[at : at + size]) for at in range(0, len(one) - size + 1, size)] for one in whole]
        return stretches(*shared(keys, size))


class Watched(ContinuousEngine):
    """Notes its decisions, a step at a time."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.decisions: list[Decision] = []
        self.preempted: list[str] = []
        self.rejected: list[str] = []

    def _preempt(self, victim: Sequence, spare: int, turn: tuple[int, int] = (0, 0)) -> int:
        self.preempted.append(victim.job.request.id)
        return super()._preempt(victim, spare, turn)

    def _compute_step(self, now: int, begin: int, prefills: list[tuple[Sequence, int]], preempted: int) -> int:
        idle = {*self.prefilling, *self._paused, *self.awaiting_output}
        tokens = {one.job.request.id: 1 for one in self.running if one not in idle}
        tokens |= {one.job.request.id: new for one, new in prefills}
        computed = {one.job.request.id: one.computed for one, _ in prefills}
        self.decisions.append(Decision(now, begin + 1, tokens, self.preempted, computed=computed))
        self.preempted = []
        return super()._compute_step(now, begin, prefills, preempted)


class WatchedPipeline(Watched, PipelinedEngine):
    """Likewise, of async scheduling."""


def ours(made: Case) -> Watched:
    """Our engine after it served ``made``, with its decisions."""
    env = Clock(initial_time=0)

    def left(sequences: list[Sequence]) -> None:
        ended = [
            sequence.job.request.id for sequence in sequences if sequence.finish_reason not in ("abort", "rejected")
        ]
        engine.rejected += [one.job.request.id for one in sequences if one.finish_reason == "rejected"]
        if ended:
            over = next(decision for decision in reversed(engine.decisions) if decision.end == env.now)
            over.finished.extend(ended)

    engine: Watched = made.kind()(env, made.settings, LinearStepTime(1, 0, 0, 0), 0, left, lambda row: None)
    for number, (asked, whose) in enumerate(zip(made.requests, made.stretches, strict=True)):
        job = made.job(number, whose)
        Moment(env, asked.step, ARRIVE, lambda _, job=job, asked=asked: engine.submit(job, len(asked.output)))  # type: ignore[misc]
        if asked.gone is not None:
            Moment(env, asked.gone, ARRIVE, lambda _, job=job: engine.abort(job))  # type: ignore[misc]
    env.run()
    return engine


class Theirs:
    """vLLM's core loop around its scheduler, in ticks (v1/engine/core.py)."""

    def __init__(self, made: Case) -> None:
        self.made = made
        self.scheduler = self.made_scheduler()
        # A model goes on after a stop string, with what nobody else has.
        self.outputs = {
            made.name(number): [*asked.output, *[10**9 + number] * 9] if asked.stopped else asked.output
            for number, asked in enumerate(made.requests)
        }
        self.to_show = {made.name(number): len(asked.output) for number, asked in enumerate(made.requests)}
        self.stopping = {made.name(number) for number, asked in enumerate(made.requests) if asked.stopped}
        self.stopped: deque[tuple[int, str]] = deque()  # the step after whose end the core hears of it
        self.over = 0  # steps that are
        self.arrivals = deque(enumerate(made.requests))
        gone = [(asked.gone, number) for number, asked in enumerate(made.requests) if asked.gone is not None]
        self.gone = deque(sorted(gone))
        self.decisions: list[Decision] = []
        self.preempted: list[str] = []

    def made_scheduler(self) -> Any:
        return bare_scheduler(self.made.settings)

    def drain(self, now: int) -> None:
        while self.arrivals and self.arrivals[0][1].step <= now:
            number, asked = self.arrivals.popleft()
            block = self.made.settings.block_size if self.made.settings.enable_prefix_caching else 0
            self.scheduler.add_request(
                request(
                    self.made.name(number),
                    list(asked.tokens),
                    asked.cap,
                    self.made.arrival(number),
                    self.priority(number),
                    block,
                )
            )
        while self.stopped and self.stopped[0][0] <= self.over:
            self.abort(self.stopped.popleft()[1])
        while self.gone and self.gone[0][0] <= now:
            self.abort(self.made.name(self.gone.popleft()[1]))

    def priority(self, number: int) -> int:
        return self.made.requests[number].priority

    def abort(self, name: str) -> None:
        from vllm.v1.request import RequestStatus

        self.scheduler.finish_requests([name], RequestStatus.FINISHED_ABORTED)

    def schedule(self, now: int, last: int) -> tuple[Any, set[str], Decision | None]:
        """vLLM's output, who samples, and the decision if anything is computed, which is over a tick after ``last``."""
        running = list(self.scheduler.running)
        before = {one.request_id: one.num_preemptions for one in running}
        output = self.scheduler.schedule()
        gone = [one for one in reversed(running) if one.num_preemptions > before[one.request_id]]
        if self.made.settings.scheduling_policy == "priority":
            gone.reverse()  # of equal ones the first that ran goes first
            gone.sort(key=lambda one: (one.priority, one.arrival_time), reverse=True)
        self.preempted += [one.request_id for one in gone]
        tokens = dict(output.num_scheduled_tokens)
        if not tokens:
            return output, set(), None
        started = [one.req_id for one in output.scheduled_new_reqs]
        started += list(output.scheduled_cached_reqs.req_ids)
        before_step = {name: self.scheduler.requests[name].num_computed_tokens - tokens[name] for name in started}
        self.decisions.append(Decision(now, max(now, last) + 1, tokens, self.preempted, computed=before_step))
        self.preempted = []
        return output, sampling(self.scheduler, output), self.decisions[-1]

    def update(self, output: Any, samples: set[str], decision: Decision | None) -> None:
        results = self.scheduler.update_from_output(output, faked_output(self.scheduler, output, self.outputs, samples))
        self.over += decision is not None
        told = [one for core in results.values() for one in core.outputs]
        ended = [one.request_id for one in told if self.ends(one)]
        assert decision is not None or not ended
        if decision is not None:
            decision.finished.extend(ended)
        self.hear(told)

    def ends(self, output: Any) -> bool:
        """Whether a client has its end with ``output`` of the core: the API server may find a stop string in it."""
        name = output.request_id
        before = self.to_show[name]
        self.to_show[name] -= len(output.new_token_ids)
        if name not in self.stopping:
            return output.finish_reason is not None
        if output.finish_reason is None and before > 0 and self.to_show[name] <= 0:
            self.stopped.append((self.over + 1, name))
            return True
        return output.finish_reason is not None and before > 0

    def hear(self, outputs: list[Any]) -> None:
        """What the core tells its front end."""

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


def compared(cases: Iterable[Case]) -> Iterator[tuple[Case, Watched, list[Decision]]]:
    """Every case after all decisions of vLLM were found to be ours."""
    for made in cases:
        engine, theirs = ours(made), Theirs(made).run()
        for number, (mine, wanted) in enumerate(itertools.zip_longest(engine.decisions, theirs)):
            if wanted is not None and mine is not None:  # of those who go on decoding nobody asks
                wanted.computed = {name: wanted.computed[name] for name in mine.computed}
            assert mine == wanted, f"step {number} of {made.settings}"
        yield made, engine, theirs
