"""Jobs and queues for tests of policies: every policy is told the published tiers, SLOs and a plain service time."""

from __future__ import annotations

from typing import Any

import numpy as np

from driftsim.request import TIERS, Job, Request, Tier
from driftsim.scheduling.policies import make_policy
from driftsim.slo import slo_rules
from driftsim.tiers import PUBLISHED

SLOS = slo_rules(["premium:e2e=5s", "standard:e2e=20s", "e2e=60s"])


def fresh(name: str, **around: Any) -> Any:
    """A queue under the policy ``name``; the seconds of a job are a thousandth of its tokens."""
    return make_policy(name, PUBLISHED, **{"slos": SLOS} | around)


def a_job(
    name: str = "r",
    arrival: float = 0.0,
    *,
    prompt: int = 10,
    output: int = 90,
    tier: Tier = Tier.STANDARD,
    tenant: str = "a",
    category: str = "short_qa",
) -> Job:
    """A job whose estimate is ``output``."""
    request = Request(name, tenant, tier, category, arrival, prompt, None, max(1, output))
    return Job(request, category, output, prompt + output, first_estimate=output)


def some_jobs(count: int, tenants: int = 3, seed: int = 0) -> list[Job]:
    """Random jobs that arrive one after another, 0.01 s apart; a thousand have about every size that more have."""
    random = np.random.default_rng(seed)
    prompts, outputs = random.integers(40, 500, count).tolist(), random.integers(1, 400, count).tolist()
    return [
        a_job(
            str(row), row * 0.01, prompt=prompts[row], output=outputs[row], tier=TIERS[row * 7 % 3],
            tenant=f"t{row * 31 % tenants}", category=("short_qa", "report")[row * 13 % 2],
        )
        for row in range(count)
    ]  # fmt: skip


def drained(queue: Any, now: float = 1000.0) -> list[Job]:
    """All jobs of ``queue``, in its order."""
    return [queue.pop(now) for _ in range(len(queue))]


def order(queue: Any, jobs: list[Job], now: float = 1000.0) -> list[str]:
    """The names of ``jobs`` in the order in which ``queue`` lets them go."""
    for job in jobs:
        queue.push(job, job.request.arrival)
    return [job.request.id for job in drained(queue, now)]
