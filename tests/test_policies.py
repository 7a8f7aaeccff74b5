"""Each policy's order, and the laws of any queue discipline."""

from __future__ import annotations

import inspect
import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftsim.request import Job, Request, Tier
from driftsim.scheduling.estimators import ESTIMATORS, GIVEN
from driftsim.scheduling.policies import POLICIES, make_policy
from tests.queues import fresh

P, S, B = Tier.PREMIUM, Tier.STANDARD, Tier.BATCH
names = st.sampled_from(sorted(POLICIES))


def job(name: str, tier: Tier = S, arrival: float = 0.0, budget: int = 100) -> Job:
    return Job(Request(name, "a", tier, "", arrival, 10, 8, 100), "short_qa", budget - 10, budget)


def order(policy: str, jobs: list[Job]) -> list[str]:
    queue = fresh(policy)
    for waiting in jobs:
        queue.push(waiting, waiting.request.arrival)
    return [queue.pop(1000.0).request.id for _ in jobs]


def test_fifo_serves_in_order_of_arrival_over_all_tiers() -> None:
    assert order("fifo", [job("a", B, 0), job("b", P, 1), job("c", S, 2)]) == ["a", "b", "c"]


def test_priority_is_strict_and_fifo_within_a_tier() -> None:
    jobs = [job("a", B, 0), job("b", S, 1), job("c", P, 2), job("d", S, 3), job("e", P, 4)]
    assert order("priority", jobs) == ["c", "e", "b", "d", "a"]


def test_sjf_takes_the_smallest_total_budget_and_ties_by_arrival() -> None:
    jobs = [job("a", P, 0, 300), job("b", B, 1, 50), job("c", S, 2, 300), job("d", S, 3, 299)]
    assert order("sjf", jobs) == ["b", "d", "a", "c"]


def test_aging_lets_a_batch_request_pass_a_premium_one_after_200_seconds() -> None:
    assert order("aging", [job("old", B, 0), job("new", P, 199)]) == ["new", "old"]
    assert order("aging", [job("old", B, 0), job("new", P, 201)]) == ["old", "new"]
    assert order("aging", [job("old", S, 0), job("new", P, 99)]) == ["new", "old"]


@given(
    st.lists(st.tuples(st.sampled_from([P, S, B]), st.integers(0, 500)), min_size=1, max_size=12), st.integers(500, 900)
)
def test_the_static_aging_key_orders_as_the_aging_rule_does(jobs: list[tuple[Tier, int]], now: int) -> None:
    jobs = sorted(jobs, key=lambda pair: pair[1])
    waiting = [job(str(row), tier, float(arrival)) for row, (tier, arrival) in enumerate(jobs)]
    # rank - 0.01 x waited, in hundredths so that it is exact; ties by arrival, then by order of arrival
    rule = sorted(waiting, key=lambda j: (100 * j.request.tier.rank - (now - j.request.arrival), j.request.arrival))
    assert order("aging", waiting) == [j.request.id for j in rule]


def test_weighted_follows_its_cycle_of_ten() -> None:
    jobs = [job(f"{tier[0]}{row}", tier, row) for tier in (P, S, B) for row in range(10)]
    served = order("weighted", jobs)
    assert "".join(name[0] for name in served[:20]) == "pppppsssbb" * 2
    assert served[:5] == ["p0", "p1", "p2", "p3", "p4"]


def test_weighted_skips_empty_tiers_and_loses_their_slots() -> None:
    # Slots 0-4 premium, 5-7 standard, 8-9 batch: with no standard waiting, slot 5 is served by batch and the
    # pointer moves past slot 8, so only one more batch slot is left in the cycle.
    jobs = [job(f"p{row}", P, row) for row in range(6)] + [job(f"b{row}", B, row) for row in range(3)]
    assert order("weighted", jobs) == ["p0", "p1", "p2", "p3", "p4", "b0", "b1", "p5", "b2"]


@given(names, st.lists(st.tuples(st.sampled_from([P, S, B]), st.integers(0, 9), st.integers(1, 5)), max_size=30))
def test_whoever_goes_in_comes_out_once(name: str, jobs: list[tuple[Tier, int, int]]) -> None:
    waiting = [job(str(row), tier, float(arrival), budget) for row, (tier, arrival, budget) in enumerate(jobs)]
    queue = fresh(name)
    for row, one in enumerate(waiting):
        assert len(queue) == row
        queue.push(one, 10.0)
    assert {queue.pop(20.0) for _ in waiting} == set(waiting)
    assert len(queue) == 0
    with pytest.raises(IndexError):
        queue.pop(20.0)


@given(names, st.lists(st.tuples(st.sampled_from([P, S, B]), st.integers(1, 5)), min_size=2, max_size=20))
def test_equals_leave_in_order_of_arrival(name: str, jobs: list[tuple[Tier, int]]) -> None:
    waiting = [job(str(row), tier, float(row), budget) for row, (tier, budget) in enumerate(jobs)]
    left = [waiting[int(identity)] for identity in order(name, waiting)]
    for first, second in itertools.pairwise(left):
        alike = first.request.tier == second.request.tier and first.budget == second.budget
        if alike:
            assert first.request.arrival < second.request.arrival


def test_an_unknown_policy_is_named_with_the_choices() -> None:
    with pytest.raises(ValueError, match="unknown policy 'lifo'; choose one of stock, fifo, priority"):
        make_policy("lifo")


STANDING = ("read", "abstract read", "the form by labels read", "from memory", "ours")  # of a source, in brackets
ALL = {**POLICIES, **ESTIMATORS, **GIVEN}


@pytest.mark.parametrize("name", ALL)
def test_each_names_its_source_and_says_whether_it_was_read(name: str) -> None:
    said = " ".join((inspect.getdoc(ALL[name]) or "").split())
    sources = re.findall(r"Source: (.*?)(?: Trap: |$)", said)
    assert len(sources) == 1, "write 'Source: ... (read)', or (abstract read), (from memory), (ours)"
    standing = re.findall(r"\(([^()]*)\)", sources[0])
    assert any(one.startswith(STANDING) for one in standing), sources[0]
    for year in re.finditer(r"[A-Z]\w+ (?:and \w+ |et al\. )?(?:19|20)\d\d\b", sources[0]):  # no paper goes unmarked
        assert any(one.startswith(STANDING) for one in re.findall(r"\(([^()]*)\)", sources[0][year.end() :])), (
            year.group()
        )
