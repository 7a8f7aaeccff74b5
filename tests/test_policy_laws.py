"""The laws of every policy; one that is entered in ``POLICIES`` joins them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftsim.request import TIERS, Job, Tier
from driftsim.scheduling.policies import POLICIES
from tests.queues import a_job, fresh, some_jobs

NAMES = sorted(POLICIES)
# As their docstrings say: somebody may wait for ever.
STARVES = {"priority", "sjf", "cost-sjf", "wspt", "gittins", "srpt"}


class Counted(Job):
    """A job that counts how often it is compared."""

    compared = 0
    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        Counted.compared += 1
        return self is other


def work(turn: Callable[[int], object], turns: int = 300) -> float:
    """Lines of Python that a turn runs, and comparisons of jobs in C; the clock plays no part."""
    lines = 0

    def trace(frame: Any, event: str, _: Any) -> Any:
        nonlocal lines
        lines += event == "line"
        return trace

    for number in range(3):  # what comes once in a while, as a promotion of all, comes now
        turn(number)
    before, Counted.compared = sys.gettrace(), 0
    sys.settrace(trace)
    try:
        for number in range(turns):
            turn(number)
    finally:
        sys.settrace(before)
    return (lines + Counted.compared) / turns


def again(queue: Any, number: int) -> None:
    """A job goes and comes back."""
    queue.push(queue.pop(1000.0), 1000.0)


@pytest.fixture(scope="module")
def backlogs() -> list[list[Job]]:
    return [
        [
            Counted(job.request, job.predicted_category, job.estimate, job.budget)
            for job in some_jobs(count, count // 50)
        ]
        for count in (1_000, 100_000)
    ]


@pytest.fixture(scope="module", params=NAMES)
def crowded(request: pytest.FixtureRequest, backlogs: list[list[Job]]) -> list[Any]:
    """Queues of one policy with each of the backlogs in them; whoever takes a job puts it back."""
    queues = []
    for jobs in backlogs:
        queue = fresh(request.param)
        for job in jobs:
            queue.push(job, job.request.arrival)
        queues.append(queue)
    return queues


def test_a_decision_in_a_backlog_of_100000_costs_at_most_half_more_than_in_one_of_1000(crowded: list[Any]) -> None:
    few, many = (work(partial(again, queue)) for queue in crowded)
    assert many <= 1.5 * few + 1


def test_passing_over_a_full_tier_costs_no_scan_either(crowded: list[Any]) -> None:
    costs = []
    for queue in crowded:
        for full in TIERS:  # whoever is in front steps aside, once
            queue.push(queue.pop_below(1000.0, {full}), 1000.0)

        def turn(number: int, queue: Any = queue) -> None:
            queue.push(queue.pop_below(1000.0, {TIERS[number % 3]}), 1000.0)

        costs.append(work(turn))
    assert costs[1] <= 1.5 * costs[0] + 1


def test_a_scan_is_seen(backlogs: list[list[Job]]) -> None:
    class Scans:
        def __init__(self) -> None:
            self.jobs: list[Job] = []

        def push(self, job: Job, now: float) -> None:
            self.jobs.append(job)

        def pop(self, now: float) -> Job:
            job = max(self.jobs, key=id)
            self.jobs.remove(job)
            return job

    costs = []
    for count in (50, 500):
        queue = Scans()
        for job in backlogs[0][:count]:
            queue.push(job, 0.0)
        costs.append(work(partial(again, queue), 20))
    assert costs[1] > 3 * costs[0]


@pytest.mark.parametrize("name", NAMES)
def test_nobody_waits_for_ever_but_where_the_policy_says_so(name: str) -> None:
    """A large request of the least urgent tier, against small urgent ones without end, one for each that goes."""
    queue = fresh(name)
    victim = a_job("victim", 0.0, prompt=400, output=600, tier=Tier.BATCH, tenant="v", category="report")
    queue.push(victim, 0.0)
    gone = []
    for turn in range(4000):
        now = float(turn)
        queue.push(a_job(str(turn), now, prompt=5, output=5, tier=Tier.PREMIUM), now)
        gone.append(queue.pop(now))
        if hasattr(queue, "served"):
            queue.served(gone[-1], 5, now)
    assert (victim in gone) == (name not in STARVES)


@given(st.sampled_from(NAMES), st.lists(st.tuples(st.integers(0, 2), st.booleans(), st.integers(0, 400)), max_size=40))
def test_whatever_is_told_of_lengths_no_job_is_lost(name: str, turns: list[tuple[int, bool, int]]) -> None:
    queue, inside, waiting = fresh(name), list[Job](), set[int]()
    for row, (kind, ran, tokens) in enumerate(turns):
        if kind < 2:
            job = some_jobs(row + 1)[row]
            queue.push(job, float(row))
            waiting.add(id(job))
        elif waiting:
            inside.append(queue.pop(float(row)))
            waiting.remove(id(inside[-1]))
        if kind == 1 and inside and hasattr(queue, "served"):
            queue.served(inside.pop(0), tokens if ran else None, float(row))
        assert len(queue) == len(waiting)
