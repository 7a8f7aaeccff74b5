"""Policies by the service so far and by the time waited, and the category that is learned."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftsim.request import TIERS, Job
from driftsim.scheduling.aged import gittins_index
from tests.queues import a_job, fresh, order, some_jobs
from tests.test_fair_policies import backlogged, largest_gap, served_while_all_wait, sizes, tenants, tokens

BY_ARRIVAL = [str(row) for row in range(60)]


@given(tenants)
def test_las_without_forgetting_keeps_tenants_within_the_dearest_requests(lengths: list[list[tuple[int, int]]]) -> None:
    queue = fresh("las?half_life=inf")
    backlogged(queue, lengths)
    gone = served_while_all_wait(queue, lengths)
    assert largest_gap(gone, tokens) <= 2 * max(prompt + 2 * output for own in lengths for prompt, output in own)


def play(queue: Any, scale: float, longer: int) -> list[str]:
    """A run of arrivals, releases and ends on a clock that is ``scale`` times as fast, of services ``longer`` times."""
    random = np.random.default_rng(9)
    went, inside = list[str](), list[Job]()
    for turn in range(300):
        now = turn * scale
        prompt, output = (longer * int(size) for size in random.integers(1, 200, 2))
        queue.push(a_job(str(turn), now, prompt=prompt, output=output, tenant="abc"[int(random.integers(3))]), now)
        if random.random() < 0.8:
            inside.append(queue.pop(now))
            went.append(inside[-1].request.id)
        if random.random() < 0.6 and inside:
            job = inside.pop(0)
            queue.served(job, job.estimate * 2, now)
    return went


def test_las_is_the_same_if_time_and_service_are_scaled() -> None:
    plain = play(fresh("las?half_life=30"), 1.0, 1)
    assert play(fresh("las?half_life=7680"), 256.0, 1) == plain
    assert play(fresh("las?half_life=30"), 1.0, 8) == plain
    assert play(fresh("las?half_life=1e9"), 1.0, 1) != plain


def test_las_counts_on_over_thousands_of_half_lives() -> None:
    """Whatever the unit that service is counted in: the order is that of a clock that begins anew."""
    queue = fresh("las?half_life=1")
    for turn in range(40):
        for tenant in "ab":
            queue.push(a_job(f"{tenant}{turn}", turn * 150.0, tenant=tenant), turn * 150.0)
        first, second = (queue.pop(turn * 150.0 + step).request.tenant for step in (0, 1))
        assert {first, second} == {"a", "b"}
    assert max(queue.counter.values()) < 1e120


@pytest.mark.parametrize(("had", "first"), [(100, "b"), (150, "a")])
def test_after_two_half_lives_service_counts_a_quarter(had: int, first: str) -> None:
    queue = fresh("las?half_life=10")
    for tenant, now, prompt in (("a", 0.0, 500), ("b", 20.0, had)):  # of a's 500, 125 count
        queue.push(a_job(tenant, now, prompt=prompt, output=0, tenant=tenant), now)
        queue.pop(now)
    for tenant in "ab":
        queue.push(a_job(f"{tenant}2", 20.0, tenant=tenant), 20.0)
    assert queue.pop(20.0).request.tenant == first


@pytest.mark.parametrize("name", ["mlfq?quantum=inf", "accumulating?power=0"])
def test_at_its_end_it_is_fifo(name: str) -> None:
    assert order(fresh(name), some_jobs(60)) == BY_ARRIVAL


def test_a_high_power_is_strict_priority() -> None:
    jobs = some_jobs(60)
    assert order(fresh("accumulating?power=20"), jobs, now=1e7) == order(fresh("priority"), jobs)


def test_accumulating_priority_is_slope_times_wait() -> None:
    """Weights 5, 3 and 2: batch after 10 s has 20, premium after 4 s, too."""
    queue = fresh("accumulating")
    queue.push(a_job("batch", 0.0, tier=TIERS[2]), 0.0)
    queue.push(a_job("premium", 6.0, tier=TIERS[0]), 6.0)
    early, late = 9.9, 10.1
    assert max((2 * early, "batch"), (5 * (early - 6), "premium"))[1] == "batch"
    assert queue.pop(late).request.id == "premium"
    queue.push(a_job("premium 2", 6.0, tier=TIERS[0]), 6.0)
    assert queue.pop(early).request.id == "batch"


def test_a_heavy_tenant_sinks_by_levels_and_all_are_promoted_together() -> None:
    queue = fresh("mlfq?quantum=1&promote_s=100")
    for row in range(8):
        queue.push(a_job(f"heavy{row}", 0.0, prompt=0, output=700, tenant="heavy"), 0.0)
    went = [queue.pop(1.0).request.id for _ in range(3)]  # 2.1 s of service: level 1, which begins after 1 s
    queue.push(a_job("light", 2.0, tenant="light"), 2.0)
    assert (went, queue.pop(3.0).request.id) == (["heavy0", "heavy1", "heavy2"], "light")
    queue.push(a_job("light 2", 4.0, tenant="light"), 4.0)
    assert queue.pop(101.0).request.id == "heavy3"  # all are on the first level again: the oldest


def test_a_level_is_by_the_seconds_that_were_really_served() -> None:
    queue = fresh("mlfq?quantum=1")
    queue.push(a_job("a1", prompt=0, output=10, tenant="a"), 0.0)
    queue.served(queue.pop(0.0), 5000, 1.0)
    for tenant in "ab":
        queue.push(a_job(tenant, 2.0, tenant=tenant), 2.0)
    assert queue.pop(3.0).request.id == "b"


@given(st.lists(sizes, min_size=2, max_size=30), st.floats(31.0, 500.0))
def test_hrrn_takes_a_wait_per_size_that_is_nearly_the_highest(lengths: list[tuple[int, int]], now: float) -> None:
    queue = fresh("hrrn")
    waiting = [
        a_job(str(row), float(row), prompt=prompt, output=output) for row, (prompt, output) in enumerate(lengths)
    ]
    for job in waiting:
        queue.push(job, job.request.arrival)

    def ratio(job: Job) -> float:
        return (now - job.request.arrival) / job.budget

    while waiting:
        job = queue.pop(now)
        assert ratio(job) * 2**0.5 >= max(map(ratio, waiting)) - 1e-12
        waiting.remove(job)


def test_hrrn_weighs_a_wait_by_the_size_and_not_more() -> None:
    jobs = [a_job("100 ms, 10 s", 0.0, output=90), a_job("60 ms, 5 s", 5.0, output=50)]
    assert order(fresh("hrrn"), jobs, now=10.0) == ["100 ms, 10 s", "60 ms, 5 s"]


def test_the_levels_of_mlfq_double() -> None:
    """Level 1 is from 1 to 3 s of service, level 2 from there to 7 s; on one level the oldest goes first."""
    queue = fresh("mlfq?quantum=1")
    for tenant, served in (("2.5 s", 2500), ("1.5 s", 1500), ("3.5 s", 3500)):
        queue.push(a_job(tenant, prompt=0, output=served, tenant=tenant), 0.0)
        queue.pop(0.0)
    jobs = [a_job(tenant, 1.0, tenant=tenant) for tenant in ("3.5 s", "2.5 s", "1.5 s")]
    assert order(queue, jobs, now=2.0) == ["2.5 s", "1.5 s", "3.5 s"]


def test_ewsjf_counts_the_logarithm_of_the_prompt() -> None:
    """4,400 against 5,520; without it, 2,000 against 1,500."""
    jobs = [a_job("long", 0.0, prompt=210), a_job("short", 5.0, prompt=10)]
    assert order(fresh("ewsjf"), jobs, now=15.0) == ["long", "short"]


def test_ewsjf_goes_by_the_score_of_its_scoring_file() -> None:
    def score(job: Job, now: float) -> float:
        prompt = job.request.prompt_tokens
        return (now - job.request.arrival) * (1 + 0.5 * float(np.log(prompt + 1))) * 200 / (prompt // 200 + 1)

    prompts = [10, 150, 250, 390, 420, 900, 1900, 3000]
    jobs = [a_job(str(row), float(row * 3 % 7), prompt=prompt) for row, prompt in enumerate(prompts)]
    queue = fresh("ewsjf")
    for job in sorted(jobs, key=lambda job: job.request.arrival):
        queue.push(job, job.request.arrival)
    left = sorted(jobs, key=lambda job: job.request.arrival)
    while left:
        heads = {job.request.prompt_tokens // 200: job for job in reversed(left)}  # the oldest of each queue
        expected = max(heads.values(), key=lambda job: score(job, 50.0))
        assert queue.pop(50.0) is expected
        left.remove(expected)


def test_gittins_with_known_sizes_is_shortest_first() -> None:
    queue = fresh("gittins")
    true = {"short_qa": 50, "report": 900, "summary": 300}
    for category, output in true.items():
        for row in range(4):
            queue.push(a_job(f"{category}{row}", category=category, output=400), 0.0)
        for _ in range(4):
            queue.served(queue.pop(0.0), output, 0.0)
    for row, category in enumerate(["report", "summary", "short_qa", "report", "short_qa"]):
        queue.push(a_job(f"{row} {category}", float(row), category=category, output=400), float(row))
    went = [queue.pop(9.0).predicted_category for _ in range(5)]
    assert went == ["short_qa", "short_qa", "summary", "report", "report"]


def test_before_anything_is_learned_gittins_goes_by_the_estimates_of_the_oldest() -> None:
    queue = fresh("gittins")
    assert order(queue, [a_job("a", output=300, category="report"), a_job("b", output=20)]) == ["b", "a"]


@given(st.lists(st.floats(0.5, 1.5), min_size=1, max_size=50))
def test_where_hazards_increase_the_index_is_one_by_the_mean(drawn: list[float]) -> None:
    """Aalto, Ayesta and Righter 2009: nearly equal sizes, so to go on is always better than to stop."""
    close = 10 + np.array(drawn) / 10
    assert gittins_index(close) == pytest.approx(1 / close.mean())


def test_where_hazards_decrease_the_index_is_above_one_by_the_mean() -> None:
    random = np.random.default_rng(3)
    mixed = np.where(random.random(5000) < 0.8, random.exponential(0.2, 5000), random.exponential(5.0, 5000))
    constant = random.exponential(mixed.mean(), 5000)
    assert gittins_index(mixed) > 2 / mixed.mean()
    assert gittins_index(constant) == pytest.approx(1 / constant.mean(), rel=0.1)


@given(st.sampled_from(["las", "mlfq", "vtc", "drr", "sfq"]), st.integers(0, 5))
def test_equal_tenants_get_equal_shares(name: str, seed: int) -> None:
    queue, went = fresh(f"{name}?by=tenant"), Counter[str]()
    random = np.random.default_rng(seed)
    for row in range(300):
        for tenant in "ab":
            prompt, output = (int(size) for size in random.integers(1, 100, 2))
            queue.push(a_job(f"{tenant}{row}", prompt=prompt, output=output, tenant=tenant), 0.0)
    for _ in range(200):
        job = queue.pop(0.0)
        went[job.request.tenant] += job.budget
    assert went["a"] / went["b"] == pytest.approx(1, abs=0.35)


@pytest.mark.parametrize("name", ["las", "mlfq", "vtc", "drr", "sfq"])
def test_by_session_a_program_of_many_calls_waits_for_one_of_few(name: str) -> None:
    """Two agents of one tenant: one has sent ten turns, the other one; whoever is of none counts for the tenant."""
    queue = fresh(
        f"{name}?by=session" + ("&quantum=50" if name == "drr" else "&quantum=0.05" if name == "mlfq" else "")
    )
    jobs = [
        a_job(f"{program}{turn}", tenant="t")
        for program, turns in (("x", 10), ("y", 1), ("", 1))
        for turn in range(turns)
    ]
    for job in jobs:
        job.request.session = job.request.id.rstrip("0123456789")
        queue.push(job, 0.0)
    assert {job.request.id for job in (queue.pop(0.0), queue.pop(0.0), queue.pop(0.0))} == {"x0", "y0", "0"}
    plain = fresh(f"{name}?by=tenant")
    assert order(plain, jobs, 0.0)[:3] == ["x0", "x1", "x2"]


def test_sessions_of_one_name_are_apart_if_their_tenants_are() -> None:
    from driftsim.scheduling.flows import flow_of

    jobs = [a_job(tenant=tenant) for tenant in ("a", "a", "b", "b")]
    for job, session in zip(jobs, ("s", "", "s", ""), strict=True):
        job.request.session = session
    assert len({flow_of(job, "session") for job in jobs}) == 4
    assert flow_of(jobs[1], "session") == flow_of(jobs[0], "tenant") == "a"
