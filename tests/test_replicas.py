"""Several replicas: who is served where, what fails, and the laws of queues that bound them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import driftsim as ds
from driftsim.clients import clients_of
from driftsim.errors import InputError, TraceError
from driftsim.inputs import as_profile
from driftsim.latency.profile import Profile
from driftsim.request import Job, Request, Tier
from driftsim.scheduling.routing import ROUTERS, Replica, make_router, router_name
from driftsim.scheduling.shedding import shed_rules
from driftsim.simulation.replicas import Failure, Replicas
from driftsim.simulation.run import Simulation, simulate
from driftsim.simulation.scenario import Scenario
from driftsim.trace.attempts import per_request
from driftsim.trace.trace import Trace, read
from driftsim.workloads.lengths import Lengths
from driftsim.workloads.workload import Workload
from tests.queues import SLOS
from tests.strategies import engine, estimators, policies, profile, profiles, workload, workloads

STEP = 0.01
PLACES = ("behind", "front")


def run(work: Workload, slots: int = 1, policy: str = "fifo", **asked: Any) -> Trace:
    made = profile(engine(max_num_seqs=slots), intercept_s=STEP)
    trace = simulate(Scenario(profile=made, policy=policy, refill_lag=False, **asked), work, record_steps=True)
    trace.check("simulated")
    return trace


@given(st.data())
@settings(max_examples=25)
def test_one_replica_is_the_engine_itself(data: st.DataObject) -> None:
    work, made = data.draw(workloads(patient=False)), data.draw(profiles())
    policy = data.draw(policies)
    alone = simulate(Scenario(profile=made, policy=policy, slos=SLOS), work, record_steps=True)
    for place in PLACES:
        one = Replicas.of({"count": 1, "speeds": (1.0,), "place": place})  # a speed makes it a cluster
        same = simulate(Scenario(profile=made, policy=policy, slos=SLOS, replicas=one), work, record_steps=True)
        table = same.requests.drop(columns=["replica", "moved"])
        pd.testing.assert_frame_equal(table, alone.requests)
        assert same.steps is not None
        assert alone.steps is not None
        pd.testing.assert_frame_equal(same.steps.drop(columns="replica"), alone.steps)
    assert simulate(Scenario(profile=made, policy=policy, slos=SLOS, replicas=Replicas()), work).requests.equals(
        alone.requests
    )


def test_a_request_goes_where_the_router_sends_it() -> None:
    work = workload([0.0, 0.001, 0.002, 0.003], [100, 5, 5, 5])
    trace = run(work, replicas=Replicas(count=2, router="round-robin", place="front"))
    assert trace.requests["replica"].tolist() == [0, 1, 0, 1]
    trace = run(work, replicas=Replicas(count=2, place="front"))  # the fewest requests
    assert trace.requests["replica"].tolist() == [0, 1, 0, 1]
    trace = run(work, replicas=Replicas(count=2))  # one queue: the long one keeps the first busy
    assert trace.requests["replica"].tolist() == [0, 1, 1, 1]
    assert trace.requests["moved"].tolist() == [0] * 4
    assert trace.steps is not None
    assert trace.steps.groupby("replica").size().to_dict() == {0: 100, 1: 15}
    assert trace.header.replicas == {"count": 2}


def test_a_faster_replica_is_faster() -> None:
    trace = run(workload([0.0, 0.0], [10, 10]), replicas=Replicas(count=2, speeds=(1.0, 0.5)))
    assert trace.requests["finish_s"].round(9).tolist() == [0.1, 0.2]


def test_replicas_may_be_of_different_profiles(tmp_path: Any) -> None:
    fast, slow = (
        profile(engine(max_num_seqs=2), intercept_s=STEP),
        profile(engine(max_num_seqs=1), intercept_s=5 * STEP),
    )
    work = workload([0.0] * 4, [10] * 4)
    scenario = Scenario(profile=fast, refill_lag=False, replicas=Replicas(count=2), replica_profiles=(fast, slow))
    rows = simulate(scenario, work).requests
    assert rows["replica"].tolist() == [0, 1, 0, 0]  # three slots in all; the fourth takes the first that is free
    assert rows["finish_s"].round(9).tolist() == [0.1, 0.5, 0.1, 0.2]
    by_work = Replicas(count=2, router="least-work", place="front")
    routed = simulate(Scenario(profile=fast, refill_lag=False, replicas=by_work, replica_profiles=(fast, slow)), work)
    assert routed.requests["replica"].value_counts()[0] > 2  # seconds of its own count, so the fast one gets more
    for name, own in (("fast", fast), ("slow", slow)):
        own.save(tmp_path / f"{name}.json")
    simulate(Scenario(profile=fast), work).write(tmp_path / "run")
    (tmp_path / "two.toml").write_text(
        'trace = "run"\nprofile = "fast.json"\nrefill_lag = false\n'
        '[replicas]\ncount = 2\nprofiles = ["fast.json", "slow.json"]\n'
    )
    written, spec, _ = ds.simulate_scenario(tmp_path / "two.toml")
    assert written.requests["finish_s"].round(9).tolist() == [0.1, 0.5, 0.1, 0.2]
    here = spec.placed(lambda path: str(tmp_path / path))
    other = here.changed(replicas={"count": 2, "profiles": [str(tmp_path / "slow.json")] * 2})
    assert here.key("t", "p") != other.key("t", "p")
    with pytest.raises(InputError, match="1 profiles for 2 replicas"):
        Replicas(count=2, profiles=("fast.json",))


def test_what_a_replica_held_begins_again_elsewhere_or_is_lost() -> None:
    work = workload([0.0, 0.0, 0.05], [20, 20, 5])
    failing = Replicas(count=2, failures=("0:at=105ms,back=500ms",))  # type: ignore[arg-type]  # pydantic reads it
    rows = run(work, replicas=failing).requests
    # The first leaves its replica at 0.11, waits for the other until 0.2, then takes 0.2 s from its beginning.
    assert rows["moved"].tolist() == [1, 0, 0]
    assert rows["replica"].tolist() == [1, 1, 1]
    assert rows["finish_reason"].tolist() == ["stop"] * 3
    assert rows["finish_s"].round(9).tolist() == [0.4, 0.2, 0.45]
    lost = run(work, replicas=failing.changed(lost="lose")).requests
    assert lost["finish_reason"].tolist() == ["error", "stop", "stop"]
    assert lost["error"][0] == "replica 0 failed"
    assert lost["finish_s"].round(9).tolist() == [0.11, 0.2, 0.25]
    again = run(work, replicas=failing.changed(lost="lose"), clients=clients_of((), 1)).requests
    assert again["request_id"].tolist() == ["r0", "r1", "r2", "r0#2"]
    assert again["finish_reason"].tolist() == ["error", "stop", "stop", "stop"]


def test_while_no_replica_is_up_everybody_waits_and_then_goes_on() -> None:
    work = workload([0.0, 0.2, 0.3], [5, 5, 5])
    down = Replicas(count=2, failures=("0:at=100ms,back=1s", "1:at=150ms"))  # type: ignore[arg-type]
    for place in PLACES:
        rows = run(work, replicas=down.changed(place=place)).requests
        assert rows["finish_reason"].tolist() == ["stop"] * 3
        if place == "behind":
            assert rows["finish_s"].round(9).tolist() == [0.05, 1.05, 1.1]
    never = Replicas(count=2, failures=("0:at=100ms", "1:at=150ms"))  # type: ignore[arg-type]
    for place in PLACES:
        rows = run(work, replicas=never.changed(place=place)).requests
        assert rows["finish_reason"].tolist() == ["stop", "error", "error"]
        assert rows["error"][1] == "no replica came back"


def test_what_was_on_its_way_when_the_last_replica_failed_waits_for_the_next() -> None:
    made = profile(engine(), intercept_s=STEP, submit_lag_s=0.2)
    down = Replicas(count=2, failures=("0:at=100ms,back=1s", "1:at=100ms"))  # type: ignore[arg-type]
    rows = simulate(Scenario(profile=made, replicas=down), workload([0.0], [5])).requests
    assert rows["dispatch_s"][0] < 0.1
    assert (rows["finish_reason"][0], round(rows["finish_s"][0], 9)) == ("stop", 1.05)


def test_a_cache_is_empty_when_a_replica_comes_back() -> None:
    shared = [((0, 1 << 60),), ((0, 32), (1, 1 << 60)), ((0, 32), (2, 1 << 60))]
    work = workload([0.0, 1.0, 5.0], [2, 2, 2], prompt_tokens=[40, 40, 40], stretches=shared)
    made = profile(engine(enable_prefix_caching=True), intercept_s=STEP)
    kept = simulate(Scenario(profile=made, replicas=Replicas(speeds=(1.0,))), work).requests
    assert kept["cached_tokens"].tolist() == [0, 32, 32]
    failing = Replicas(failures=(Failure(replica=0, at_s=2.0, back_s=3.0),))
    assert simulate(Scenario(profile=made, replicas=failing), work).requests["cached_tokens"].tolist() == [0, 32, 0]


# -- routers


def job(stretches: tuple[tuple[int, int], ...] = (), session: str | None = None) -> Job:
    request = Request("r", "a", Tier.BATCH, "", 0.0, 9, None, 9, stretches=stretches)
    made = Job(request, "", 1, 10)
    if session is not None and hasattr(request, "session"):
        request.session = session
    return made


def test_routers_look_at_what_they_say() -> None:
    busy = [Replica(0, 3, 1.0), Replica(1, 1, 9.0), Replica(2, 2, 5.0)]
    assert make_router("least-requests").choose(job(), busy, 0.0).number == 1
    assert make_router("least-work").choose(job(), busy, 0.0).number == 0
    turns = make_router("round-robin")
    assert [turns.choose(job(), busy, 0.0).number for _ in range(4)] == [0, 1, 2, 0]
    assert turns.choose(job(), [busy[0], busy[2]], 0.0).number == 2  # 1 is down
    two = make_router("two-choices", seed=3)
    assert {two.choose(job(), busy, 0.0).number for _ in range(60)} == {1, 2}  # never the one with the most
    draws = [make_router("random", seed=7) for _ in range(2)]
    assert [draws[0].choose(job(), busy, 0.0).number for _ in range(20)] == [
        draws[1].choose(job(), busy, 0.0).number for _ in range(20)
    ]


def test_what_begins_alike_stays_together_until_its_replica_has_far_more_to_do() -> None:
    router, replicas = make_router("prefix"), [Replica(0, 5), Replica(1, 0)]
    alike = ((7, 100), (8, 1 << 60))
    assert router.choose(job(alike), replicas, 0.0).number == 1
    replicas[1].requests = 7
    assert router.choose(job(alike), replicas, 0.0).number == 1
    assert router.choose(job(((9, 1 << 60),)), replicas, 0.0).number == 0
    replicas[1].requests = 40
    assert router.choose(job(alike), replicas, 0.0).number == 0
    strict = make_router("prefix?slack=0")
    strict.choose(job(alike), [Replica(0, 0), Replica(1, 1)], 0.0)
    assert strict.choose(job(alike), [Replica(0, 1), Replica(1, 1)], 0.0).number == 0
    assert strict.choose(job(alike), [Replica(0, 2), Replica(1, 1)], 0.0).number == 1


def test_affinity_finds_more_in_the_caches_than_turns_do() -> None:
    prompts, stretches = [], []
    random = np.random.default_rng(0)
    for row in range(200):  # eight conversations of which each has its own beginning of 64 tokens
        talk = int(random.integers(8))
        prompts.append(80)
        stretches.append(((1000 + talk, 64), (row, 1 << 60)))
    work = workload([0.05 * row for row in range(200)], [5] * 200, prompt_tokens=prompts, stretches=stretches)
    made = profile(engine(enable_prefix_caching=True, max_num_seqs=4, kv_blocks=60), intercept_s=STEP)
    found = {
        router: simulate(Scenario(profile=made, replicas=Replicas(count=4, router=router)), work).requests
        for router in ("prefix", "round-robin")
    }
    hits = {router: int(rows["cached_tokens"].sum()) for router, rows in found.items()}
    assert hits["prefix"] > 1.1 * hits["round-robin"]


# -- laws


def waits(router: str, count: int, load: float, place: str, seed: int = 0, requests: int = 12_000) -> float:
    """The mean wait, in mean services, of Poisson arrivals at ``count`` replicas that serve one at a time."""
    work = Workload.poisson(rate=count * load / (STEP * 50), requests=requests, prompt_tokens=1, seed=seed,
                            output_tokens=Lengths(kind="geometric", mean=50))  # fmt: skip
    made = Profile.plain(intercept_s=STEP, max_num_seqs=1, max_model_len=100_000, kv_blocks=10_000)
    asked = Replicas.of({"count": count, "router": router, "place": place})
    rows = simulate(Scenario(profile=made, refill_lag=False, replicas=asked), work).requests
    return float((rows["scheduled_s"] - rows["arrival_s"]).mean() / (STEP * 50))


def erlang_c(count: int, load: float) -> float:
    """The mean wait of M/M/N in mean services (Erlang 1917)."""
    offered = count * load
    last = offered**count / math.factorial(count) / (1 - load)
    waiting = last / (sum(offered**one / math.factorial(one) for one in range(count)) + last)
    return waiting / (count * (1 - load))


def test_joining_the_shortest_queue_lies_between_one_queue_and_many() -> None:
    count, load = 4, 0.8
    pooled, apart = erlang_c(count, load), load / (1 - load)
    one_queue = waits("least-requests", count, load, "behind")
    assert one_queue == pytest.approx(pooled, rel=0.1)
    blind = waits("random", count, load, "front")
    assert blind == pytest.approx(apart, rel=0.1)
    shortest = waits("least-requests", count, load, "front")
    assert 1.1 * pooled < shortest < 0.5 * apart
    turns, two = waits("round-robin", count, load, "front"), waits("two-choices", count, load, "front")
    assert shortest < two < turns < blind  # turns are more even than chance, and as blind
    work = waits("least-work", count, load, "front")
    assert work > 0.9 * shortest  # static estimates are all alike: it knows no more


@given(st.data())
@settings(max_examples=60)
def test_whatever_fails_every_request_is_accounted_for(data: st.DataObject) -> None:
    work = data.draw(workloads(largest=14, patient=False))
    count = data.draw(st.integers(1, 3))
    times = st.sampled_from([0.001, 0.013, 0.05, 0.1, 0.3])
    failures = []
    for number in range(count):
        if data.draw(st.booleans()):
            at = data.draw(times)
            back = data.draw(st.sampled_from([0.001, 0.02, 0.5]))
            failures.append(Failure(replica=number, at_s=at, back_s=at + back))
    asked = Replicas(
        count=count, router=data.draw(st.sampled_from(list(ROUTERS))), place=data.draw(st.sampled_from(PLACES)),
        failures=tuple(failures), lost=data.draw(st.sampled_from(["retry", "lose"])),
    )  # fmt: skip
    scenario = Scenario(
        profile=data.draw(profiles()), policy=data.draw(policies), estimator=data.draw(estimators), replicas=asked,
        clients=clients_of(data.draw(st.sampled_from([(), "50ms", "a:20ms"])), data.draw(st.sampled_from([None, 1]))),
        shed=shed_rules(data.draw(st.sampled_from([(), "requests=3", "wait=50ms"]))), slos=SLOS,
    )  # fmt: skip
    simulation = Simulation(scenario, work)
    trace = simulation.run()
    trace.check("simulated")
    whole = per_request(trace).requests
    assert sorted(whole["request_id"]) == sorted(work.table["request_id"])
    assert whole["finish_reason"].notna().all()
    assert trace.requests["finish_reason"].notna().all()
    assert not simulation.dispatcher.in_flight
    assert not simulation.dispatcher.may_release
    if simulation.cluster is not None:
        assert all(replica.requests == 0 for replica in simulation.cluster.placement.replicas)
        assert all(one.free == one.total for one in simulation.cluster.engines)  # type: ignore[attr-defined]
        assert not simulation.cluster._inside
        assert not simulation.cluster._recalled
        assert asked.lost == "retry" or not trace.requests["moved"].sum()
    if not failures:
        assert not trace.requests.get("moved", pd.Series([0])).sum()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Replicas(count=0), "greater than or equal to 1"),
        (lambda: Replicas(count=2, speeds=(1.0,)), "there are 1 speeds for 2 replicas"),
        (
            lambda: Replicas.of({"count": 2, "failures": ["2:at=3s"]}),
            "replica 2 fails, and there is none: name one from 0 to 1",
        ),
        (lambda: Replicas.of({"failures": ["0:at=3"]}), "a time has no unit"),
        (lambda: Replicas.of({"failures": ["0:at=3s,back=2s"]}), "is back at 2 s, before it fails at 3 s"),
        (lambda: Replicas.of({"failures": ["0:at=3s", "0:at=4s"]}), "when it is down already"),
        (lambda: Replicas.of({"failures": ["first"]}), "write REPLICA:at=TIME"),
        (lambda: router_name("nearest"), "unknown router 'nearest'; choose one of round-robin"),
        (lambda: router_name("prefix?slack=-1"), "slack"),
        (lambda: router_name("random?slack=2"), "unknown parameter 'slack'"),
        (lambda: Replicas(router="fast"), "unknown router 'fast'"),
    ],
)
def test_wrong_replicas_are_refused_in_a_line(make: Any, says: str) -> None:
    with pytest.raises(InputError) as caught:
        make()
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_profile_is_of_one_engine(tmp_path: Any) -> None:
    trace = run(workload([0.01 * row for row in range(60)], [5] * 60), replicas=Replicas(count=2))
    trace.write(tmp_path / "t")
    with pytest.raises(TraceError, match="served by several replicas"):
        as_profile(None, read(tmp_path / "t"))
