"""Policies by size and by deadline: the theorems that they are named after."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import driftsim as ds
from driftsim.errors import InputError
from driftsim.request import TIERS, Job, Tier
from driftsim.scheduling.policies import make_policy
from driftsim.scheduling.sized import boost_rate, boost_s
from driftsim.slo import slo_rules
from driftsim.tiers import PUBLISHED
from tests.commands import driftsim
from tests.queues import a_job, fresh, order, some_jobs
from tests.strategies import engine, profile, workload
from tests.test_sweep import place

__all__ = ["place"]

backlogs = st.lists(
    st.tuples(st.integers(1, 300), st.integers(1, 300), st.sampled_from(TIERS), st.integers(0, 30)),
    min_size=1,
    max_size=6,
)


def jobs_of(backlog: list[tuple[int, int, Any, int]]) -> list[Job]:
    return [
        a_job(str(row), float(arrival), prompt=prompt, output=output, tier=tier)
        for row, (prompt, output, tier, arrival) in enumerate(sorted(backlog, key=lambda one: one[3]))
    ]


def seconds(job: Job) -> float:
    return job.budget / 1000


def ends(jobs: Sequence[Job], start: float = 100.0) -> list[float]:
    """When each job ends on one slot that serves them in this order."""
    return list(start + np.cumsum([seconds(job) for job in jobs]))


def best(jobs: list[Job], value: Callable[[Sequence[Job]], float]) -> float:
    """The smallest ``value`` over every order."""
    return min(value(some) for some in itertools.permutations(jobs))


def in_order(name: str, jobs: list[Job]) -> list[Job]:
    named = {job.request.id: job for job in jobs}
    return [named[one] for one in order(fresh(name), jobs)]


@given(backlogs)
def test_cost_sjf_minimises_the_mean_time_in_the_system(backlog: list[tuple[int, int, Any, int]]) -> None:
    jobs = jobs_of(backlog)
    assert sum(ends(in_order("cost-sjf", jobs))) == pytest.approx(best(jobs, lambda some: sum(ends(some))))


@given(backlogs)
def test_wspt_minimises_the_weighted_sum_of_times(backlog: list[tuple[int, int, Any, int]]) -> None:
    """Smith's rule, by every order of a small backlog."""
    weights = {rule.name: rule.slots for rule in PUBLISHED}

    def cost(some: Sequence[Job]) -> float:
        return sum(weights[job.request.tier] * end for job, end in zip(some, ends(some), strict=True))

    jobs = jobs_of(backlog)
    assert cost(in_order("wspt", jobs)) == pytest.approx(best(jobs, cost))


def lateness(some: Sequence[Job]) -> list[float]:
    limits = {"premium": 5.0, "standard": 20.0, "batch": 60.0}
    return [end - job.request.arrival - limits[job.request.tier] for job, end in zip(some, ends(some), strict=True)]


@given(backlogs)
def test_edf_minimises_the_largest_lateness(backlog: list[tuple[int, int, Any, int]]) -> None:
    """Jackson's rule, by every order of a small backlog."""
    jobs = jobs_of(backlog)
    assert max(lateness(in_order("edf?limit=e2e", jobs))) == pytest.approx(best(jobs, lambda some: max(lateness(some))))


@given(backlogs)
def test_slack_maximises_the_smallest_lateness(backlog: list[tuple[int, int, Any, int]]) -> None:
    jobs = jobs_of(backlog)
    assert min(lateness(in_order("slack", jobs))) == pytest.approx(-best(jobs, lambda some: -min(lateness(some))))


def test_one_slo_for_all_is_fifo_and_none_goes_last() -> None:
    jobs = some_jobs(40)
    assert order(fresh("edf", slos=slo_rules("ttft=1s")), jobs) == [job.request.id for job in jobs]
    queue = fresh("edf", slos=slo_rules("premium:ttft=1s"))
    went = order(queue, [a_job("a", 0.0), a_job("b", 9.0, tier=TIERS[0])])
    assert went == ["b", "a"]


def test_a_deadline_is_of_the_limit_that_is_asked_for_and_the_tenants_own_goes_before() -> None:
    slos = slo_rules(["premium:ttft=5s,e2e=6s", "standard:ttft=1s,e2e=90s", "batch:e2e=3s", "acme:ttft=0.1s"])
    jobs = [
        a_job("premium", tier=TIERS[0]),
        a_job("standard", tier=TIERS[1]),
        a_job("batch", tier=TIERS[2]),
        a_job("acme", tier=TIERS[2], tenant="acme"),
    ]
    assert order(fresh("edf", slos=slos), jobs) == ["acme", "standard", "batch", "premium"]
    assert order(fresh("edf?limit=e2e", slos=slos), jobs) == ["acme", "batch", "premium", "standard"]


def test_without_slos_edf_is_refused_in_a_line() -> None:
    made = workload([0.0, 0.0], [3, 2])
    with pytest.raises(InputError, match="edf orders by SLOs, and there is none; give some, as --slo ttft=1s"):
        ds.simulate(made, policy="edf", profile=profile())
    with pytest.raises(InputError, match=r"slack\?limit=ttft orders by SLOs"):
        ds.compare(made, policies=["slack?limit=ttft"], profile=profile(), replications=1, jobs=1)


def test_an_slo_changes_the_order_of_a_run_and_a_larger_prompt_its_size() -> None:
    one = profile(engine(max_num_seqs=1, max_num_batched_tokens=512), prefill_token_s=1.0)
    made = workload([0.0, 0.001, 0.001], [3, 3, 3], tenant=["x", "x", "y"], prompt_tokens=[8, 300, 20])

    def dispatched(policy: str, slos: str = "e2e=9s") -> list[str]:
        rows = ds.simulate(made, policy=policy, profile=one, slos=slos, max_in_flight=1).requests
        return list(rows.sort_values("dispatch_index")["request_id"])

    assert dispatched("edf") == dispatched("fifo") == ["r0", "r1", "r2"]
    assert dispatched("edf", "y:e2e=1s") == ["r0", "r2", "r1"]
    assert dispatched("cost-sjf") == ["r0", "r2", "r1"]


def test_gamma_goes_from_shortest_first_to_fifo() -> None:
    jobs = some_jobs(60)
    assert order(fresh("boost?gamma=1000"), jobs) == [job.request.id for job in jobs]
    assert order(fresh("boost?gamma=1e-7"), jobs) == order(fresh("cost-sjf"), jobs)


def test_equal_sizes_are_fifo_under_any_gamma() -> None:
    jobs = [a_job(str(row), row * 0.01) for row in range(30)]
    for gamma in (0.01, 1, 100):
        assert order(fresh(f"boost?gamma={gamma}"), jobs) == [str(row) for row in range(30)]


def test_a_label_alone_gives_the_boost_of_its_sizes() -> None:
    queue = fresh("boost?gamma=0.5&sizes=label")
    for output in (990, 2990):  # 1 s and 3 s
        queue.push(a_job("r"), 0.0)
        queue.served(queue.pop(0.0), output, 0.0)
    mean = np.mean(np.exp([0.5, 1.5]))
    assert -queue.key(a_job("r")) == pytest.approx(np.log(mean / (mean - 1)) / 0.5)
    assert -queue.key(a_job("r", category="report", output=990)) == pytest.approx(boost_s(0.5, 0.5))


@given(st.floats(0.05, 0.95), st.lists(st.floats(0.01, 5.0), min_size=1, max_size=20))
def test_the_best_gamma_is_the_root_of_its_equation(load: float, sizes: list[float]) -> None:
    rate = load / float(np.mean(sizes))
    gamma = boost_rate(rate, sizes)
    assert gamma > 0
    assert rate * float(np.mean(np.expm1(gamma * np.array(sizes)))) == pytest.approx(gamma, rel=1e-6)


def test_an_overload_has_no_gamma() -> None:
    with pytest.raises(InputError, match="the load must be above 0 and below 1, got 2"):
        boost_rate(2.0, [1.0])


def times_in_the_system(name: str, arrivals: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    """On one slot without an engine around it."""
    queue, now, at, found = fresh(name), 0.0, 0, np.zeros(len(arrivals))
    jobs = [a_job(str(row), arrivals[row], prompt=0, output=int(outputs[row])) for row in range(len(arrivals))]
    for _ in jobs:
        if not len(queue):
            now = max(now, arrivals[at])
        while at < len(jobs) and arrivals[at] <= now:
            queue.push(jobs[at], arrivals[at])
            at += 1
        job = queue.pop(now)
        now += job.estimate / 1000
        found[int(job.request.id)] = now - job.request.arrival
    return found


def test_the_best_gamma_has_a_shorter_tail_than_fifo_and_sjf_at_a_light_tail() -> None:
    random = np.random.default_rng(5)
    outputs = np.where(random.random(20_000) < 0.9, 300, 3000)
    rate = 0.8 / (outputs.mean() / 1000)
    arrivals = np.cumsum(random.exponential(1 / rate, len(outputs)))
    gamma = boost_rate(rate, (outputs / 1000).tolist())
    tails = {
        name: np.percentile(times_in_the_system(name, arrivals, outputs), 99.9)
        for name in ("fifo", "cost-sjf", f"boost?gamma={gamma!r}")
    }
    assert tails[f"boost?gamma={gamma!r}"] < 0.99 * min(tails["fifo"], tails["cost-sjf"])


def test_a_tier_without_a_weight_is_refused() -> None:
    queue: Any = make_policy("wspt")
    with pytest.raises(InputError, match="the tier 'gold' has no place in an order"):
        queue.push(a_job(tier=Tier("gold")), 0.0)


def test_a_sweep_over_a_policy_without_what_it_needs_is_refused_before_it_runs(place: Path, tmp_path: Path) -> None:
    (tmp_path / "g.toml").write_text(f'[base]\ntrace = "{place}/t"\n[grid]\npolicy = ["fifo", "edf?limit=e2e"]\n')
    ran = driftsim("sweep", tmp_path / "g.toml", "--store", tmp_path / "s", "--jobs", 1)
    assert (ran.returncode, ran.stderr.count("\n")) == (2, 1)
    assert "edf?limit=e2e orders by SLOs, and there is none" in ran.stderr


def test_laws_of_a_setting_that_cannot_be_are_refused_in_a_line() -> None:
    ran = driftsim("conformance", "boost?gama=1")
    assert (ran.returncode, ran.stderr.count("\n")) == (2, 1)
    assert "unknown parameter 'gama'; did you mean 'gamma'? it takes gamma (0.1), sizes (estimate)" in ran.stderr
