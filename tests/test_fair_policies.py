"""What the fair policies promise to tenants that always have work: the bounds of their papers."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import driftsim as ds
from driftsim.errors import InputError
from driftsim.latency.profile import Profile
from driftsim.request import TIERS, Job, Tier
from driftsim.scheduling.admission import Admission
from driftsim.scheduling.dispatcher import Dispatcher
from driftsim.scheduling.policies import make_policy
from driftsim.simulation.run import Simulation
from driftsim.simulation.scenario import Scenario
from driftsim.tiers import TierRule
from driftsim.workloads.workload import Workload
from tests.queues import a_job, fresh, order
from tests.strategies import profiles, workloads

sizes = st.tuples(st.integers(1, 300), st.integers(1, 300))
tenants = st.lists(st.lists(sizes, min_size=1, max_size=25), min_size=2, max_size=4)


def backlogged(queue: Any, lengths: list[list[tuple[int, int]]], tier: Tier = Tier.STANDARD) -> None:
    """Push all that the tenants have, one of each in turn."""
    for row in range(max(map(len, lengths))):
        for tenant, own in enumerate(lengths):
            if row < len(own):
                prompt, output = own[row]
                queue.push(a_job(f"{tenant}.{row}", prompt=prompt, output=output, tenant=f"t{tenant}", tier=tier), 0.0)


def served_while_all_wait(queue: Any, lengths: list[list[tuple[int, int]]]) -> list[Job]:
    """What goes, in order, until the first tenant has nothing left that waits."""
    left, gone = Counter({f"t{tenant}": len(own) for tenant, own in enumerate(lengths)}), []
    while min(left.values()) > 0:
        gone.append(queue.pop(0.0))
        left[gone[-1].request.tenant] -= 1
    return gone


def largest_gap(gone: list[Job], cost: Any) -> float:
    """The largest difference between two tenants' service over any stretch of ``gone``."""
    most, names = 0.0, sorted({job.request.tenant for job in gone})
    for one in names:
        for other in names:
            level = low = 0.0
            for job in gone:
                level += cost(job) * ((job.request.tenant == one) - (job.request.tenant == other))
                low = min(low, level)
                most = max(most, level - low)
    return most


def tokens(job: Job) -> float:
    return job.request.prompt_tokens + 2.0 * job.estimate


@given(tenants)
def test_vtc_keeps_tenants_within_twice_the_dearest_request(lengths: list[list[tuple[int, int]]]) -> None:
    queue = fresh("vtc")
    backlogged(queue, lengths)
    gone = served_while_all_wait(queue, lengths)
    assert largest_gap(gone, tokens) <= 2 * max(prompt + 2 * output for own in lengths for prompt, output in own)


@given(tenants, st.sampled_from([1, 50, 1000]))
def test_drr_keeps_tenants_within_a_quantum_and_the_dearest_of_each(
    lengths: list[list[tuple[int, int]]], quantum: int
) -> None:
    queue = fresh(f"drr?quantum={quantum}")
    backlogged(queue, lengths)
    gone = served_while_all_wait(queue, lengths)
    assert largest_gap(gone, tokens) <= 2 * (
        quantum + max(prompt + 2 * output for own in lengths for prompt, output in own)
    )


@given(tenants, st.sampled_from([1, 50, 1000]))
def test_drr_from_the_start_keeps_the_bound_of_its_paper(lengths: list[list[tuple[int, int]]], quantum: int) -> None:
    queue = fresh(f"drr?quantum={quantum}")
    backlogged(queue, lengths)
    service: dict[str, float] = {f"t{tenant}": 0.0 for tenant in range(len(lengths))}
    dearest = {f"t{tenant}": max(prompt + 2 * output for prompt, output in own) for tenant, own in enumerate(lengths)}
    for job in served_while_all_wait(queue, lengths):
        service[job.request.tenant] += tokens(job)
        for one in service:
            for other in service:
                assert service[one] - service[other] <= quantum + dearest[one] + dearest[other]


@given(tenants)
def test_sfq_keeps_tenants_within_one_request_of_each(lengths: list[list[tuple[int, int]]]) -> None:
    queue = fresh("sfq")
    backlogged(queue, lengths)
    gone = served_while_all_wait(queue, lengths)
    dearest = sorted(max((prompt + output) / 1000 for prompt, output in own) for own in lengths)
    assert largest_gap(gone, lambda job: job.budget / 1000) <= dearest[-1] + dearest[-2] + 1e-9


@pytest.mark.parametrize("name", ["vtc", "drr?quantum=120", "sfq"])
def test_equal_requests_go_round_robin(name: str) -> None:
    queue = fresh(name)
    backlogged(queue, [[(20, 50)] * 6] * 3)
    gone = [queue.pop(0.0).request.tenant for _ in range(18)]
    assert all(len(set(gone[at : at + 3])) == 3 for at in range(0, 18, 3))


@pytest.mark.parametrize("name", ["vtc?tiers=true", "drr?quantum=120&tiers=true", "sfq?tiers=true"])
def test_service_is_by_the_weights_of_tiers(name: str) -> None:
    rules = tuple(TierRule(name=str(tier), weight=weight) for tier, weight in zip(TIERS, (4, 2, 1), strict=True))
    queue = make_policy(name, rules)
    for row in range(70):
        for tenant, tier in zip("xyz", TIERS, strict=True):
            queue.push(a_job(f"{tenant}{row}", prompt=20, output=50, tenant=tenant, tier=tier), 0.0)
    went = Counter(queue.pop(0.0).request.tenant for _ in range(70))
    assert abs(went["x"] - 40) <= 4
    assert abs(went["y"] - 20) <= 3
    assert abs(went["z"] - 10) <= 2


@pytest.mark.parametrize("name", ["vtc", "drr?quantum=120", "sfq"])
def test_idle_time_gives_no_credit(name: str) -> None:
    """Who comes back after a pause has no more than his turn; who was served alone pays nothing for it."""
    queue = fresh(name)
    for row in range(40):
        queue.push(a_job(f"a{row}", prompt=20, output=50, tenant="a"), 0.0)
    for _ in range(20):
        queue.served(queue.pop(1.0), 50, 1.0)
    for row in range(20):
        queue.push(a_job(f"b{row}", prompt=20, output=50, tenant="b"), 2.0)
    went = [queue.pop(3.0).request.tenant for _ in range(12)]
    assert abs(went.count("a") - went.count("b")) <= 2


@pytest.mark.parametrize("name", ["vtc", "drr?quantum=50"])
def test_a_wrong_estimate_is_set_right_at_the_end(name: str) -> None:
    """Two tenants send the same requests; one tenant's turn out ten times as long, and it gets as many turns fewer."""
    queue, service, went = fresh(name), defaultdict[str, float](float), Counter[str]()
    true = {"a": 500, "b": 50}
    for row in range(400):
        for tenant in "ab":
            queue.push(a_job(f"{tenant}{row}", prompt=1, output=50, tenant=tenant), 0.0)
    for turn in range(110):
        job = queue.pop(float(turn))
        tenant = job.request.tenant
        queue.served(job, true[tenant], float(turn))
        service[tenant] += true[tenant]
        went[tenant] += 1
        queue.push(a_job(f"{tenant}+{turn}", prompt=1, output=50, tenant=tenant), float(turn))
    assert service["a"] / service["b"] == pytest.approx(1, abs=0.2)
    assert went["b"] > 8 * went["a"]


def test_sfq_counts_the_true_length_for_those_who_come_later() -> None:
    queue = fresh("sfq")
    went = Counter[str]()
    true = {"a": 500, "b": 50}
    for tenant in "ab":
        queue.push(a_job(tenant, prompt=1, output=50, tenant=tenant), 0.0)
    for turn in range(110):  # one of each waits at any time, so that no tag is old
        job = queue.pop(float(turn))
        tenant = job.request.tenant
        queue.served(job, true[tenant], float(turn))
        went[tenant] += 1
        queue.push(a_job(f"{tenant}+{turn}", prompt=1, output=50, tenant=tenant), float(turn))
    assert went["b"] > 8 * went["a"]


def test_vtc_lifts_who_comes_when_nobody_waits_to_the_last_who_left() -> None:
    queue = fresh("vtc")
    for row in range(8):  # a is served alone
        queue.push(a_job(f"a{row}", tenant="a"), float(row))
        queue.served(queue.pop(float(row)), 90, float(row))
    for row in range(10):
        for tenant in "ba":
            queue.push(a_job(f"{tenant}+{row}", tenant=tenant), 10.0)
    assert Counter(queue.pop(11.0).request.tenant for _ in range(10)) == {"a": 5, "b": 5}


def test_vtc_never_goes_by_a_counter_of_before() -> None:
    queue = fresh("vtc")
    for row in range(3):
        for tenant in "ab":
            queue.push(a_job(f"{tenant}{row}", tenant=tenant), 0.0)
    queue.served(queue.pop(0.0), 5000, 1.0)
    went = []
    for _ in range(3):
        went.append(queue.pop(2.0))
        queue.served(went[-1], 90, 2.0)
    assert [job.request.id for job in went] == ["b0", "b1", "b2"]


def test_drr_keeps_a_debt_and_drops_credit_of_who_has_nothing_to_send() -> None:
    queue = fresh("drr?quantum=1000")
    for tenant, output in (("saves", 10), ("owes", 2000)):
        queue.push(a_job(tenant, prompt=0, output=output, tenant=tenant), 0.0)
        queue.pop(0.0)
    assert queue.credit == {"saves": 0.0, "owes": 1000.0 - 4000.0}


def test_what_never_ran_costs_nothing() -> None:
    queue = fresh("vtc")
    queue.push(a_job("a", tenant="a"), 0.0)
    queue.push(a_job("b", tenant="b"), 0.0)
    queue.served(queue.pop(0.0), None, 0.0)
    assert queue.counter == {"a": 0.0, "b": 0.0}


def test_within_a_tenant_the_oldest_goes() -> None:
    jobs = [a_job(str(row), float(row), output=100 - row, tier=TIERS[row % 3]) for row in range(9)]
    for name in ("vtc", "drr", "sfq"):
        assert order(fresh(name), jobs) == [str(row) for row in range(9)]


@given(workloads(patient=False), profiles(), st.sampled_from(["frozen", "refreshed"]), st.integers(1, 4))
def test_at_the_end_of_a_run_each_tenant_is_charged_what_it_was_served(
    made: Workload, engine: Profile, estimates: Any, limit: int
) -> None:
    """Whatever was estimated, and whoever gave up; without forgetting, the counters are the service itself."""
    admission = Admission(estimates=estimates)
    scenario = Scenario(
        profile=engine, policy="las?half_life=inf", estimator="ema", admission=admission, max_in_flight=limit
    )
    run = Simulation(scenario, made)
    rows = run.run().requests
    ran = rows[rows["scheduled_s"].notna()]
    served = (ran["prompt_tokens"] + 2 * ran["output_tokens"]).groupby(ran["tenant"]).sum()
    assert isinstance(run.dispatcher, Dispatcher)
    policy: Any = run.dispatcher.policy
    for tenant, counted in policy.counter.items():
        assert counted == pytest.approx(served.get(tenant, 0.0), abs=1e-6)


@pytest.mark.parametrize("name", ["sfq", "slack?limit=ttft", "boost"])
def test_what_a_capture_does_not_know_is_no_order_for_it(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="which a capture does not know; simulate it, or choose another"):
        ds.capture(tmp_path / "out", policies=["fifo", name])
