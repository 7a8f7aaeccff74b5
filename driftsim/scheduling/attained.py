"""Policies that go by the service that a tenant has had so far: who has had least goes first."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Annotated

from pydantic import Field

from driftsim.request import Job, Tier
from driftsim.scheduling.flows import By, LeastServed, PromptWeight, Tiers, Weight

FAR = 200.0  # half-lives after which the service of long ago is counted in another unit, lest it overflow


class Las(LeastServed):
    """Least attained service first, by tenant or, as a program's calls are one session, by session.

    What a tenant was served counts less with time, by half in each half-life; the estimate is charged when a request
    goes in, and set right at its end. llm-d charges at the end alone, so there a burst in flight is free, and mixes in
    the wait of each head, scaled by the smallest and the largest; neither is done here. With an infinite half-life two
    tenants that always have work differ by at most the dearest request, and by what is in flight with a wrong estimate.
    Source: llm-d's strategy_las.go, in + 2 out, half-life 60 s (read); Kleinrock 1976 (from memory). Trap: who comes
    back after a long pause goes before all others until he has had as much.
    """

    def __init__(
        self,
        *,
        by: By = "tenant",
        tiers: Tiers = False,
        prompt_weight: PromptWeight = 1.0,
        weight: Weight = 2.0,
        half_life: Annotated[
            float,
            Field(
                gt=0,
                allow_inf_nan=True,
                description="Time in which service comes to count half; inf: never.",
                json_schema_extra={"unit": "s"},
            ),
        ] = 60.0,
    ) -> None:
        super().__init__(by, tiers)
        self._prompt_weight, self._weight, self._half_life = prompt_weight, weight, half_life
        self._since = 0.0  # when service counted as it is; later service counts more, which comes to the same
        self._growth: dict[int, float] = {}  # id(job) -> what its service counted when it went in

    def _cost(self, job: Job, length: float, now: float) -> float:
        cost = (self._prompt_weight * job.request.prompt_tokens + self._weight * length) / self._share(job)
        return cost * self._growth[id(job)]

    def pop_below(self, now: float, full: Collection[Tier]) -> Job:
        """Remove and return the oldest job of the flow that has had least, and charge the flow its estimate."""
        if (now - self._since) / self._half_life > FAR:
            self._begin_anew(now)
        return super().pop_below(now, full)

    def _charge(self, flow: str, job: Job, now: float) -> None:
        self._growth[id(job)] = 2.0 ** ((now - self._since) / self._half_life)
        super()._charge(flow, job, now)

    def served(self, job: Job, tokens: int | None, now: float) -> None:
        """Set the service right, as of when the job went in."""
        super().served(job, tokens, now)
        del self._growth[id(job)]

    def _begin_anew(self, now: float) -> None:
        """Count from ``now`` on, by a common factor, so that the order stays."""
        factor = 2.0 ** ((self._since - now) / self._half_life)
        self._since = now
        self.counter = {flow: had * factor for flow, had in self.counter.items()}
        self._growth = {number: growth * factor for number, growth in self._growth.items()}
        self._offer_all()


class Mlfq(LeastServed):
    """Multi-level feedback queue by tenant: the lowest level first, in it the oldest job.

    A tenant is on level k once it has had more than q (2^k - 1) seconds of service; the last level has no end. Every
    ``promote_s`` all begin again on the first, which looks at every tenant once. The levels are of tenants, since in
    front of an engine no request is preempted. An infinite quantum is FIFO. Source: Corbató 1962 (from memory); as
    skip-join in FastServe, arXiv 2305.05920, by vllm-ltr's mlfq_scheduler.py (read). Trap: quanta are time, not tokens;
    a tenant of many names is always new.
    """

    needs = ("profile",)

    def __init__(
        self,
        *,
        by: By = "tenant",
        tiers: Tiers = False,
        quantum: Annotated[
            float,
            Field(
                gt=0,
                allow_inf_nan=True,
                description="Service of the first level; each next has twice as much.",
                json_schema_extra={"unit": "s"},
            ),
        ] = 1.0,
        levels: Annotated[int, Field(ge=1, le=60, description="Number of levels.")] = 6,
        promote_s: Annotated[
            float,
            Field(
                gt=0,
                allow_inf_nan=True,
                description="Time after which all begin again; inf: never.",
                json_schema_extra={"unit": "s"},
            ),
        ] = 60.0,
    ) -> None:
        super().__init__(by, tiers)
        self._quantum, self._levels, self._promote_s = quantum, levels, promote_s
        self._next = promote_s

    def _cost(self, job: Job, length: float, now: float) -> float:
        return self._around.service_s(job, length) / self._share(job)

    def _rank(self, flow: str) -> float:
        """The level, from 0."""
        had = max(0.0, self.counter[flow]) / self._quantum
        return min(self._levels - 1, int(math.log2(had + 1)))

    def pop_below(self, now: float, full: Collection[Tier]) -> Job:
        """Remove and return the oldest job of the lowest level, and charge its flow the estimate."""
        if now >= self._next:
            self._next = now + self._promote_s
            self.counter = dict.fromkeys(self.counter, 0.0)
            self._offer_all()
        return super().pop_below(now, full)
