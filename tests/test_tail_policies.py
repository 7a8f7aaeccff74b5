"""The policy that goes by a length's tail, held against integrals by SciPy; and the one for a black box."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import t

from driftsim.request import TIERS, Job
from driftsim.scheduling.blackbox import HEAVY, SHORT
from driftsim.scheduling.tail import FEWEST, NU, Spread, score, spread_of
from driftsim.slo import slo_rules
from tests.queues import a_job, drained, fresh, order, some_jobs

SPREADS = st.builds(Spread, st.floats(1.0, 8.0), st.floats(0.0, 2.0))


def integral(length: Spread, cap: float, alpha: float, beta: float) -> float:
    """E[min(X, cap)] + beta CVaR, each an integral over probabilities, adaptive and piece by piece."""

    def quantile(u: float) -> float:
        return float(min(cap, math.exp(min(700.0, length.mu + length.sigma * t.ppf(u, NU)))))

    edges = sorted({0.0, 0.5, alpha, 0.99, 0.999, 0.9999, 1 - 1e-12})
    if length.sigma:
        edges = sorted({*edges, float(np.clip(t.cdf((math.log(cap) - length.mu) / length.sigma, NU), 1e-9, 1 - 1e-9))})
    parts = [(low, quad(quantile, low, high, limit=200)[0]) for low, high in itertools.pairwise(edges)]
    tail = sum(part for low, part in parts if low >= alpha - 1e-12)
    return sum(part for _, part in parts) + beta * tail / (1 - alpha)


@settings(max_examples=15)
@given(SPREADS, st.sampled_from([64, 512, 4096]), st.sampled_from([0.5, 0.9, 0.95]), st.floats(0, 1))
def test_a_score_is_the_capped_mean_and_the_tails_mean(length: Spread, cap: int, alpha: float, beta: float) -> None:
    assert score(length, cap, alpha, beta) == pytest.approx(integral(length, cap, alpha, beta), rel=2e-3)


@given(st.lists(st.floats(0.0, 12.0), min_size=2, max_size=20, unique=True))
def test_without_spread_it_is_shortest_first(mus: list[float]) -> None:
    scores = [score(Spread(mu, 0.0), 1e6, 0.9, 0.3) for mu in sorted(mus)]
    assert scores == sorted(scores)
    assert scores[0] == pytest.approx(1.3 * math.exp(min(mus)))


@given(st.floats(2.0, 6.0), st.floats(0.0, 0.6), st.floats(0.01, 0.3), st.floats(0, 1))
def test_the_wider_the_later_while_no_cap_is_near(mu: float, sigma: float, more: float, beta: float) -> None:
    narrow, wide = (score(Spread(mu, one), 1e300, 0.9, beta) for one in (sigma, sigma + more))
    assert narrow < wide


@given(st.floats(2.0, 9.0), st.floats(0.0, 2.0), st.floats(0.01, 1.0))
def test_the_tail_grows_with_the_spread_whatever_the_cap(mu: float, sigma: float, more: float) -> None:
    narrow, wide = Spread(mu, sigma), Spread(mu, sigma + more)
    tails = [score(one, 2048, 0.9, 1.0) - score(one, 2048, 0.9, 0.0) for one in (narrow, wide)]
    assert tails[0] <= tails[1] + 1e-9


def test_quartiles_find_the_law_that_errors_have() -> None:
    random = np.random.default_rng(1)
    found = spread_of(0.4 + 0.7 * random.standard_t(NU, 40_000))
    assert found == pytest.approx((0.4, 0.7), abs=0.03)


def taught(queue: Any, errors: dict[str, list[float]], output: int = 100) -> Any:
    """``queue`` after outputs that were so many times their estimates, by category."""
    for category, factors in errors.items():
        for row, factor in enumerate(factors):
            queue.push(a_job(f"{category}{row}", output=output, category=category), 0.0)
            queue.served(queue.pop(0.0), round(factor * output), 0.0)
    return queue


def test_of_two_equal_estimates_the_surer_one_goes_first() -> None:
    queue = taught(fresh("tie"), {"short_qa": [0.9, 1.1] * FEWEST, "report": [0.25, 4.0] * FEWEST})
    jobs = [a_job(kind, output=400, category=kind) for kind in ("report", "short_qa")]
    for job in jobs:
        job.request.max_tokens = 4096  # at a cap of 400 there would be no tail
    assert order(queue, jobs, 1.0) == ["short_qa", "report"]
    fewer = taught(fresh("tie"), {"report": [0.25, 4.0, 0.25, 4.0]})  # too few to tell a spread
    assert order(fewer, jobs, 1.0) == ["report", "short_qa"]


def test_estimates_that_were_too_small_are_set_right_by_category() -> None:
    queue = taught(fresh("tie"), {"short_qa": [3.0] * FEWEST, "report": [0.5] * FEWEST})
    jobs = [
        a_job(name, output=output, category=kind)
        for name, output, kind in (("a", 200, "short_qa"), ("b", 900, "report"))
    ]
    for job in jobs:
        job.request.max_tokens = 4096
    assert order(queue, jobs, 1.0) == ["b", "a"]  # 600 and 450


def test_what_is_learned_is_the_error_of_what_was_said_first() -> None:
    """An estimate that was set right in flight would look as if nobody had erred."""
    queue = fresh("tie")
    for row in range(FEWEST):
        job = a_job(str(row), output=100)
        queue.push(job, 0.0)
        queue.pop(0.0)
        job.estimate = job.made = 300
        queue.served(job, 300, 0.0)
    assert queue._spreads["short_qa"] == pytest.approx((math.log(3), 0.0))


@pytest.mark.parametrize(("waiting", "beta"), [(0, 0.1), (31, 0.1), (64, 0.2), (96, 0.3), (400, 0.5)])
def test_the_weight_of_the_tail_follows_how_many_wait(waiting: int, beta: float) -> None:
    queue = fresh("tie")
    for job in some_jobs(waiting):
        queue.push(job, 0.0)
    job = a_job(output=100)
    queue.push(job, 0.0)
    key = next(key for key, _, _, one in queue._heap if one is job)
    assert key == pytest.approx(math.log(100 * (1 + beta)))


@given(st.lists(st.tuples(st.integers(1, 900), st.integers(0, 3000)), min_size=2, max_size=12), st.integers(3000, 9000))
def test_the_stored_key_orders_as_scores_that_fall_do(jobs: list[tuple[int, int]], now: int) -> None:
    """The rule as it stands in the source: score x 0.9^(wait / 30 s)."""
    jobs = sorted(jobs, key=lambda pair: pair[1])
    waiting = [a_job(str(row), float(arrival), output=output) for row, (output, arrival) in enumerate(jobs)]
    queue = fresh("tie?least=0.1&most=0.1")
    fell = [1.1 * job.estimate * 0.9 ** ((now - job.request.arrival) / 30) for job in waiting]
    apart = np.diff(np.sort(np.log(fell)))
    gone = [fell[int(name)] for name in order(queue, waiting, float(now))]
    if (apart > 1e-9).all():
        assert gone == sorted(fell)


def test_equal_inputs_give_equal_bytes() -> None:
    runs = []
    for _ in range(2):
        queue = taught(fresh("tie"), {"short_qa": [0.5, 2.0, 1.0] * 5, "report": [0.9] * 9})
        for job in some_jobs(200):
            queue.push(job, job.request.arrival)
        runs.append([key.hex() for key, *_ in queue._heap])
    assert runs[0] == runs[1]


# -- the black box


def tokens(job: Job) -> int:
    return job.request.prompt_tokens + job.estimate


@given(
    st.lists(st.integers(1, 100), min_size=40, max_size=40), st.lists(st.integers(129, 900), min_size=40, max_size=40)
)
def test_classes_that_always_have_work_get_equal_shares(short: list[int], heavy: list[int]) -> None:
    queue = fresh("blackbox?bias=1&quantum=300")
    for name, lengths in (("s", short), ("h", heavy)):
        for row, length in enumerate(lengths):
            queue.push(a_job(f"{name}{row}", output=length), 0.0)
    got, gaps, left = Counter[str](), [0.0], {"s": 40, "h": 40}
    while all(left.values()):
        job = queue.pop(1.0)
        got[job.request.id[0]] += tokens(job)
        left[job.request.id[0]] -= 1
        gaps.append(abs(got["s"] - got["h"]) / 300)
    assert max(gaps) <= 1 + (max(short) + 10) / 300 + (max(heavy) + 10) / 300


@pytest.mark.parametrize(("waiting", "share"), [(0, 1.0), (200, 3.0)])
def test_the_short_get_more_the_more_wait(waiting: int, share: float) -> None:
    queue, got = fresh("blackbox?bias=3&crowd=100&quantum=200"), Counter[str]()
    for row in range(waiting):
        queue.push(a_job(f"x{row}", output=90 if row % 2 else 190), 0.0)
    for row in range(4):  # whoever leaves nobody behind leaves his credit
        queue.push(a_job(f"y{row}", output=90 if row % 2 else 190), 0.0)
    for row in range(400):
        job = queue.pop(0.0)
        got[SHORT if job.estimate == 90 else HEAVY] += tokens(job)
        queue.push(a_job(f"{row}", output=job.estimate), 0.0)
    assert got[SHORT] / got[HEAVY] == pytest.approx(share, rel=0.15)


def test_in_a_class_the_wait_outweighs_the_size_and_the_hopeless_go_last() -> None:
    jobs = [
        a_job("hopeless", 0.0, output=129, prompt=5000),  # 5.1 s of service
        a_job("large", 0.0, output=900),
        a_job("late", 0.5, output=200),
    ]
    for size, names in ((0.1, ["large", "late", "hopeless"]), (1, ["late", "large", "hopeless"])):
        queue = fresh(f"blackbox?size={size}", slos=slo_rules("e2e=5s"))
        assert order(queue, jobs, 1.0) == names
    assert order(fresh("blackbox?size=0.01"), jobs, 1.0) == ["large", "hopeless", "late"]  # 20 s will do


def test_a_wrong_length_is_set_right_and_idle_classes_keep_debt_alone() -> None:
    queue = fresh("blackbox?quantum=100")
    queue.push(a_job("s", output=10), 0.0)
    job = queue.pop(0.0)
    assert queue.credit[SHORT] == 0.0  # what was left of the turn is gone, since nobody of it waits
    queue.served(job, 500, 1.0)
    assert queue.credit[SHORT] == -490.0
    queue.push(a_job("t", output=10), 2.0)
    queue.push(a_job("h", output=200), 2.0)
    assert [job.request.id for job in drained(queue, 2.0)] == ["h", "t"]
    queue.push(a_job("n", output=300), 3.0)
    never, before = queue.pop(3.0), dict(queue.credit)
    queue.push(a_job("m", output=300), 3.0)
    queue.served(never, None, 3.0)
    assert queue.credit[HEAVY] == before[HEAVY] + tokens(never)


def test_full_tiers_are_passed_over_in_both_classes() -> None:
    queue = fresh("blackbox")
    for job in some_jobs(30):
        queue.push(job, 0.0)
    gone = [queue.pop_below(1.0, {TIERS[0]}) for _ in range(20)]
    assert TIERS[0] not in {job.request.tier for job in gone}
    with pytest.raises(IndexError):
        queue.pop_below(1.0, set(TIERS))
