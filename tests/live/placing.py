"""A policy of ours inside the simulated engine and inside vLLM's own scheduler, on the same requests."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from driftsim.engine.inside import inside, untold
from driftsim.engine.sequence import Sequence
from driftsim.latency.steptime import TICKS_PER_SECOND
from driftsim.request import TIERS, Job
from driftsim.scheduling.admission import Admission
from driftsim.scheduling.dispatcher import Departure, Dispatcher
from driftsim.scheduling.estimators import make_estimator
from driftsim.scheduling.inside import Inside
from driftsim.scheduling.placing import Ranked
from driftsim.scheduling.plugins import give_class
from driftsim.scheduling.policies import Keyed, make_policy
from driftsim.tiers import PUBLISHED
from driftsim.trace.prefixes import Stretches
from tests.live.bare import bare_scheduler
from tests.live.deciding import Case, Decision, Theirs


class Own(Keyed):
    """A policy of one's own: long prompts first, who preempt at some times, and victims by another rule."""

    most_preemptions = 6
    preemptible_share = float("inf")

    def key(self, job: Job) -> float:
        return -job.request.prompt_tokens

    def preempts(self, running: Job, waiting: Job, now: float) -> bool:
        odd = round(now * TICKS_PER_SECOND) % 5 == 0
        return odd and running.request.prompt_tokens < waiting.request.prompt_tokens and running.made < 20

    def expendable(self, job: Job, now: float) -> float:
        return job.request.prompt_tokens * 7 % 13


class Chooser(Keyed):
    """One that orders by arrival, and chooses victims alone."""

    def key(self, job: Job) -> float:
        return job.request.arrival

    def expendable(self, job: Job, now: float) -> float:
        return job.made


OWN = give_class(Own, "own:Own")
CHOOSER = give_class(Chooser, "own:Chooser")
HOLDS = "past-future?lengths=estimate"
POLICIES = (
    "fifo", "sjf", "priority", "aging", "srpt", "srpt?most=3&share=inf", OWN, CHOOSER, "vtc", "weighted", "past-future",
    HOLDS, "tie",
)  # fmt: skip
RANKED = ("fifo", "sjf", "priority", "aging", "srpt", OWN, "edf")
ESTIMATORS = ("static", "ema", "pooled", "kaplan-meier", "oracle")


@dataclass(frozen=True)
class PlacedCase(Case):
    """Requests of several tenants, and the policy and the estimator that stand inside the engine."""

    policy: str = "fifo"
    estimator: str = "static"
    estimates: Any = "frozen"

    def place(self) -> Inside:
        """A fresh one."""
        admission = Admission(estimates=self.estimates)
        learner = make_estimator(self.estimator, admission, self.outputs, 0)
        return Inside(make_policy(self.policy, PUBLISHED), learner, admission)

    def job(self, number: int, whose: Stretches = ()) -> Job:
        """A request with somebody who sent it."""
        job = super().job(number, whose)
        dice = random.Random(number)
        request, asked = job.request, self.requests[number]
        request.tenant, request.arrival = dice.choice("abc"), asked.step / TICKS_PER_SECOND
        request.tier = TIERS[asked.priority - 1]
        job.predicted_category = dice.choice(["short_qa", "summary", "report"])
        return job

    def kind(self) -> Any:
        """Our engine with the policy inside."""
        return inside(super().kind(), self.place(), self.departure)

    def departure(self, sequence: Sequence) -> Departure:
        """What is learned of a request: vLLM looks for the end of sequence, which all of these have, before limits."""
        if sequence.finish_reason == "length" and sequence.shown == self.outputs[sequence.job.request.id]:
            sequence.finish_reason = "stop"
        return untold(sequence)

    @cached_property
    def outputs(self) -> dict[str, int]:
        """By name, the lengths."""
        return {self.name(number): len(asked.output) for number, asked in enumerate(self.requests)}


class TheirsInside(Theirs):
    """vLLM's core loop around its scheduler with the policy inside."""

    made: PlacedCase

    def made_scheduler(self) -> Any:
        from vllm.v1.core.sched.async_scheduler import AsyncScheduler
        from vllm.v1.core.sched.scheduler import Scheduler

        from driftsim.live.scheduler import PolicyInside

        told = self

        class Noted(PolicyInside, AsyncScheduler if self.made.settings.async_scheduling else Scheduler):  # type: ignore[misc]
            def _preempt_request(self, request: Any, *arguments: Any, **keywords: Any) -> None:
                told.noted.append(request.request_id)
                super()._preempt_request(request, *arguments, **keywords)

            def _job_of(self, request: Any) -> Job:
                if request.request_id not in told.jobs:
                    told.jobs[request.request_id] = told.made.job(int(request.request_id))
                return told.jobs[request.request_id]

        self.jobs: dict[str, Job] = {}
        self.noted: list[str] = []
        self.at = 0
        made: Any = bare_scheduler(self.made.settings, Noted)
        made.clock = lambda: self.at / TICKS_PER_SECOND
        made.stand(self.made.place())
        return made

    def drain(self, now: int) -> None:
        self.at = now
        super().drain(now)

    def schedule(self, now: int, last: int) -> tuple[Any, set[str], Decision | None]:
        self.at = now
        output, samples, decision = super().schedule(now, last)
        if decision is not None:
            decision.preempted, self.noted = self.noted, []
        return output, samples, decision

    def update(self, output: Any, samples: set[str], decision: Decision | None) -> None:
        if decision is not None:
            self.at = decision.end
        super().update(output, samples, decision)


@dataclass(frozen=True)
class RankedCase(PlacedCase):
    """Likewise with the policy's key as the engine's priority."""

    def job(self, number: int, whose: Stretches = ()) -> Job:
        """A request with its priority."""
        job = super().job(number, whose)
        job.priority = self.priorities[number]
        return job

    @cached_property
    def priorities(self) -> list[int]:
        """Of all requests, in order of arrival."""
        front = Dispatcher(Ranked(make_policy(self.policy, PUBLISHED)), self.place().estimator, Admission())
        jobs = [PlacedCase.job(self, number) for number in range(len(self.requests))]
        for number, job in enumerate(jobs):
            jobs[number] = front.arrive(job.request, job.predicted_category, job.request.arrival)
        return [job.priority for job in jobs]

    def kind(self) -> Any:
        """Our engine, by priority."""
        return Case.kind(self)


class TheirsRanked(Theirs):
    """vLLM's own scheduler by priority."""

    made: RankedCase

    def priority(self, number: int) -> int:
        return self.made.priorities[number]


def placed(made: Case, seed: int, policy: str) -> PlacedCase:
    """``made`` with the policy inside."""
    dice = random.Random(f"placed {seed} {policy}")
    settings = made.settings.changed(scheduling_policy="fcfs", prefill_schedule_interval=1)
    estimates = dice.choice(["frozen", "frozen", "refreshed"])
    return PlacedCase(settings, made.requests, policy, dice.choice(ESTIMATORS), estimates)


def ranked(made: Case, policy: str) -> RankedCase:
    """``made`` by the priorities of the policy."""
    return RankedCase(made.settings.changed(scheduling_policy="priority"), made.requests, policy)
