"""A policy in front of the engine, as its priorities, and inside it: one order, and what each place adds."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import driftsim as ds
from driftsim import InputError, read
from driftsim.engine.inside import untold
from driftsim.engine.sequence import Sequence
from driftsim.live.engine import check_hosts
from driftsim.live.orders import Orders, noted, read_estimates
from driftsim.metrics import summary
from driftsim.request import Job, Request, Tier
from driftsim.scheduling.admission import Admission
from driftsim.scheduling.dispatcher import Dispatching
from driftsim.scheduling.estimators import make_estimator
from driftsim.scheduling.inside import Inside, Runner
from driftsim.scheduling.names import Place
from driftsim.scheduling.placing import as_priority
from driftsim.scheduling.plugins import give_class, plugin_name
from driftsim.scheduling.policies import POLICIES, make_policy
from driftsim.scheduling.preempting import Srpt
from driftsim.scheduling.queues import Keyed, why_not_static
from driftsim.simulation.as_measured import as_measured
from driftsim.simulation.run import simulate
from driftsim.simulation.scenario import Scenario
from driftsim.simulation.spec import ScenarioSpec
from driftsim.slo import slo_rules
from driftsim.testing import engine, profile, workload
from driftsim.tiers import tier_rules
from driftsim.trace.trace import Trace
from driftsim.validation.validation import on_measured_steps
from driftsim.workloads.workload import Workload
from tests.commands import driftsim
from tests.strategies import profiles, workloads

SLOS = slo_rules(["ttft=1s"])
STATIC = [name for name in POLICIES if not why_not_static(POLICIES[name])]


class Moody(Keyed):
    """Preempts at some times and not at others, and has victims of its own: nothing may be taken for granted."""

    most_preemptions = 6
    preemptible_share = math.inf

    def key(self, job: Job) -> float:
        return -job.request.prompt_tokens

    def preempts(self, running: Job, waiting: Job, now: float) -> bool:
        return int(now * 100) % 3 == 0 and running.request.prompt_tokens < waiting.request.prompt_tokens

    def expendable(self, job: Job, now: float) -> float:
        return job.request.prompt_tokens * 7 % 13


MOODY = give_class(Moody, "places:Moody")
HOLDS = "past-future?lengths=estimate"
INSIDE = (
    "fifo", "sjf", "srpt", "srpt?most=50&share=inf", "vtc", "accumulating", "weighted", "past-future", HOLDS, MOODY,
)  # fmt: skip


def tight(**changes: Any) -> Any:
    """An engine that is short of KV blocks."""
    return engine(**{"max_num_seqs": 3, "kv_blocks": 30, "block_size": 4, "max_model_len": 110} | changes)


def random_workload(seed: int, count: int = 40) -> Workload:
    dice = np.random.default_rng(seed)
    return workload(
        np.round(np.cumsum(dice.exponential(0.05, count)), 2).tolist(),
        dice.integers(1, 60, count).tolist(),
        prompt_tokens=dice.integers(1, 40, count),
        tenant=dice.choice(["a", "b"], count),
        predicted_category=dice.choice(["short_qa", "summary", "report"], count),
        stops=dice.random(count) < 0.7,
    )


# -- one order in all places


@pytest.mark.parametrize("policy", STATIC)
def test_without_lags_a_static_key_gives_one_schedule_in_all_places(policy: str) -> None:
    """Where KV blocks are plenty, nobody preempts and nothing is learned, a place changes nothing but the lags."""
    bare = replace_key(policy)
    runs = [
        simulate(
            Scenario(profile=profile(engine(max_num_seqs=2)), policy=bare, place=place, slos=SLOS),
            random_workload(3),
        )
        for place in ("front", "priority", "inside")
    ]
    times = [run.requests[["scheduled_s", "first_token_s", "finish_s", "estimate", "budget"]] for run in runs]
    assert times[0].equals(times[1])
    assert times[0].equals(times[2])


def replace_key(policy: str) -> str:
    """``policy`` without preemption."""
    return "srpt?share=0" if policy == "srpt" else policy


@settings(max_examples=60, deadline=None)
@given(st.floats(allow_nan=False), st.floats(allow_nan=False))
def test_priorities_are_in_the_order_of_keys(one: float, other: float) -> None:
    first, second = as_priority(one), as_priority(other)
    assert (first < second) == (one < other)
    assert (first == second) == (one == other)
    assert -(2**63) <= first < 2**63


def test_the_default_place_leaves_headers_and_keys_as_they_were() -> None:
    plain = Scenario(profile=profile(), policy="sjf")
    assert "place" not in simulate(plain, random_workload(0)).header.admission
    spec = ScenarioSpec(trace="run", policy="sjf")
    assert spec.changed(place="front").key("t", "p") == spec.key("t", "p")
    assert spec.changed(place="inside").key("t", "p") != spec.key("t", "p")


def test_stock_leaves_the_order_to_the_engine_wherever_it_was_to_stand() -> None:
    there = [simulate(Scenario(profile=profile(), policy="stock", place=place), random_workload(0)) for place in PLACES]
    assert there[0].requests.equals(there[1].requests)
    assert there[0].requests.equals(there[2].requests)
    assert all("place" not in run.header.admission for run in there)


PLACES: tuple[Place, ...] = ("front", "priority", "inside")


# -- what cannot go together


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"policy": "vtc", "place": "priority"}, "vtc cannot be handed .* its order follows the service"),
        ({"policy": "weighted", "place": "priority"}, "is a cycle over the tiers"),
        ({"policy": "accumulating", "place": "priority"}, "changes with time"),
        ({"policy": "sfq", "place": "priority"}, "its tags follow who went in before"),
        ({"place": "inside", "max_in_flight": 4}, "max_in_flight is of the queue in front"),
        ({"place": "priority", "shed": ("wait=5s",)}, "shed is of the queue in front"),
        ({"place": "inside", "tiers": ("gold",)}, ""),
        ({"place": "priority", "admission": Admission(estimates="refreshed")}, "fixes each key"),
    ],
)
def test_what_a_place_cannot_do_is_refused_in_one_line(asked: dict[str, Any], why: str) -> None:
    if not why:
        Dispatching(**asked)
        return
    with pytest.raises(InputError, match=why) as error:
        Dispatching(**asked)
    assert "\n" not in str(error.value)


def test_every_policy_says_why_it_is_no_priority_or_is_one() -> None:
    assert {"fifo", "sjf", "priority", "aging", "edf", "cost-sjf", "srpt"} <= set(STATIC)
    for name in set(POLICIES) - set(STATIC):
        with pytest.raises(InputError, match=f"{name} cannot be handed"):
            Dispatching(policy=name, place="priority")


def test_a_queue_of_its_own_makes_a_keyed_policy_static_no_more() -> None:
    class Turning(Keyed):
        def key(self, job: Job) -> float:
            return 0.0

        def pop(self, now: float) -> Job:
            return super().pop(now)

    class Promising(Turning):
        static = True

    assert "no key(job) that stays" in why_not_static(Turning)
    assert why_not_static(Promising) == ""


def test_inside_needs_an_engine_that_leaves_the_order_to_it() -> None:
    with pytest.raises(InputError, match="takes the place of the engine's own order"):
        simulate(Scenario(profile=profile(engine(scheduling_policy="priority")), place="inside"), random_workload(0))
    words = Admission(accounting="whitespace")
    with pytest.raises(InputError, match="sees tokens and no words"):
        simulate(Scenario(profile=profile(), place="inside", admission=words), random_workload(0))


def test_a_live_engine_that_cannot_have_the_policy_says_so_before_it_runs() -> None:
    class Server:
        settings = engine()

    with pytest.raises(InputError, match="cannot have a policy inside"):
        check_hosts(Server(), "inside")
    with pytest.raises(InputError, match="start it with --scheduling-policy priority"):
        check_hosts(Server(), "priority")
    Server.settings = engine(scheduling_policy="priority")
    check_hosts(Server(), "priority")


# -- inside: jumps are exact, nobody is lost


@settings(max_examples=40, deadline=None)
@given(
    profiles(), workloads(patient=False), st.sampled_from(INSIDE), st.sampled_from(["ema", "oracle", "kaplan-meier"])
)
def test_jumping_decides_as_step_by_step(made: Any, work: Workload, policy: str, estimator: str) -> None:
    made = made.changed(engine=made.engine.changed(scheduling_policy="fcfs", prefill_schedule_interval=1))
    scenario = Scenario(profile=made, policy=policy, estimator=estimator, place="inside")
    jumping, stepping = simulate(scenario, work), simulate(scenario, work, record_steps=True)
    assert jumping.requests.equals(stepping.requests)
    assert jumping.requests["finish_reason"].notna().all()


@pytest.mark.parametrize("policy", ["srpt", "srpt?most=50&share=inf", MOODY])
@pytest.mark.parametrize("pipelined", [False, True])
def test_preempting_for_the_waiting_happens_and_loses_nobody(policy: str, pipelined: bool) -> None:
    settings = tight(async_scheduling=pipelined)
    scenario = Scenario(profile=profile(settings), policy=policy, estimator="oracle", place="inside")
    both = [simulate(scenario, random_workload(5), record_steps=steps) for steps in (False, True)]
    assert both[0].requests.equals(both[1].requests)
    rows = both[0].requests
    assert rows["preemptions"].sum() > 0
    assert rows["finish_reason"].isin(("stop", "length")).all()
    assert (rows["output_tokens"] == random_workload(5).table["output_tokens"]).all()


def test_who_made_way_is_not_admitted_in_the_same_step() -> None:
    """vLLM would compute a request again whose last token is still on its way."""
    both = 0
    for seed in range(6):
        scenario = Scenario(
            profile=profile(tight(max_num_seqs=8)), policy="srpt?most=50&share=inf", estimator="oracle", place="inside"
        )
        steps = simulate(scenario, random_workload(seed), step_requests=True).steps
        assert steps is not None
        for ids, gone in zip(steps["request_ids"], steps["preempted_ids"], strict=True):
            assert not set(ids) & set(gone)
            both += len(gone)
    assert both > 20


def test_what_ends_inside_is_learned_inside() -> None:
    scenario = Scenario(profile=profile(), policy="sjf", estimator="ema", place="inside")
    rows = simulate(scenario, random_workload(0)).requests
    assert rows["bias"].iloc[0] == 1
    assert rows["bias"].iloc[-1] != 1


def test_limits_of_preemption_hold() -> None:
    """N times at most for one who waits, and not once it has made its share."""
    work = workload([0.1 * place for place in range(10)], [120] + [2] * 9, max_tokens=200)

    def preemptions(policy: str) -> pd.Series:
        plenty = profile(engine(max_num_seqs=1, kv_blocks=5000))
        return simulate(Scenario(profile=plenty, policy=policy, estimator="oracle", place="inside"), work).requests[
            "preemptions"
        ]

    assert preemptions("srpt?most=2&share=inf").max() == 2
    assert preemptions("srpt?most=50&share=inf").max() > 2
    assert preemptions("srpt?share=0").max() == 0
    assert preemptions("srpt?most=0").max() == 0
    assert preemptions("srpt?most=50&share=0.3").sum() < preemptions("srpt?most=50&share=inf").sum()


def test_a_share_counts_what_was_made_of_what_is_expected() -> None:
    def job(estimate: int, made: int, preempted: int = 0) -> Job:
        return Job(
            Request("r", "a", Tier.BATCH, "", 0.0, 9, None, 500), "", estimate, estimate, made=made,
            preempted=preempted, first_estimate=estimate,
        )  # fmt: skip

    place = Inside(Srpt(share=0.5, most=3), make_estimator("static", Admission(), {}), Admission())
    head = job(10, 0)
    running = [job(100, 49), job(100, 50), job(100, 0, preempted=3), job(20, 10), job(9, 0), job(300, 1)]
    runners: list[Runner] = [(one, number) for number, one in enumerate(running)]

    def displaced(slots: int, blocks: int) -> list[int]:
        return place.displaced(head, runners, slots, blocks, lambda number: 4, 0.0)

    assert displaced(1, 0) == [5]  # most left
    assert displaced(1, 5) == [5, 0]  # for its blocks
    assert displaced(1, 9) == []  # all who may would not be enough: nobody goes
    running[5].made, running[5].estimate = 150, 900  # it turns out longer, but is past the share of the first estimate
    assert displaced(1, 0) == [0]


def test_a_victim_is_who_the_policy_says() -> None:
    class Longest(Keyed):
        def key(self, job: Job) -> float:
            return job.request.arrival

        def expendable(self, job: Job, now: float) -> float:
            return job.request.prompt_tokens

    work = workload([0.0, 0.0, 0.0], [40, 40, 40], prompt_tokens=[30, 50, 10], max_tokens=64)
    settings = tight(kv_blocks=38)

    def gone(policy: str) -> list[str]:
        run = simulate(Scenario(profile=profile(settings), policy=policy, place="inside"), work, step_requests=True)
        assert run.steps is not None
        return [name for names in run.steps["preempted_ids"] for name in names]

    names = simulate(Scenario(profile=profile(settings)), work).requests["request_id"].tolist()
    assert gone("fifo")[0] == names[2]
    assert gone(give_class(Longest, "places:Longest"))[0] == names[1]


# -- Schrage: with free preemption nobody has fewer in the system


def free_engine(slots: int = 1) -> Any:
    """A step takes 10 ms whatever it computes, so that a preempted job loses nothing."""
    return profile(engine(max_num_seqs=slots, max_num_batched_tokens=4096, max_model_len=4096, kv_blocks=5000))


def in_system(trace: Trace) -> Callable[[np.ndarray], np.ndarray]:
    """How many have arrived and not left, after each moment."""
    arrived, left = (np.sort(trace.requests[name].to_numpy()) for name in ("arrival_s", "finish_s"))
    return lambda at: np.searchsorted(arrived, at, "right") - np.searchsorted(left, at + 1e-9, "right")


class Whim(Keyed):
    """Any order, with any preemption."""

    preemptible_share = math.inf
    most_preemptions = 50

    def key(self, job: Job) -> float:
        return hash((job.request.id, 1)) % 97

    def preempts(self, running: Job, waiting: Job, now: float) -> bool:
        return hash((running.request.id, waiting.request.id, round(now, 2))) % 3 == 0


WHIM = give_class(Whim, "places:Whim")


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 12), st.integers(1, 30)), min_size=2, max_size=14),
    st.sampled_from(["sjf", "fifo", WHIM, "srpt"]),
)
def test_srpt_has_the_fewest_in_system_at_every_moment(jobs: list[tuple[int, int]], other: str) -> None:
    """Schrage 1968, on one slot: lengths are known, preemption is free and unlimited."""
    arrivals = np.cumsum([gap for gap, _ in jobs]) * 0.01
    work = workload(arrivals.tolist(), [length for _, length in jobs], prompt_tokens=1, max_tokens=4000)
    runs = [
        simulate(Scenario(profile=free_engine(), policy=policy, estimator="oracle", place="inside"), work)
        for policy in ("srpt?most=1000&share=inf", other)
    ]
    moments = np.unique(np.concatenate([run.requests["finish_s"].to_numpy() for run in runs]))
    ours, theirs = (in_system(run)(moments) for run in runs)
    assert (ours <= theirs).all()


def test_srpt_in_front_is_shortest_estimated_output_first() -> None:
    class Shortest(Keyed):
        def key(self, job: Job) -> float:
            return job.estimate

    name = give_class(Shortest, "places:Shortest")
    runs = [
        simulate(Scenario(profile=profile(), policy=policy, estimator="ema"), random_workload(4)).requests
        for policy in ("srpt", name)
    ]
    assert runs[0].equals(runs[1])


# -- what is recorded is simulated again


@pytest.mark.parametrize("place", ["priority", "inside"])
@pytest.mark.parametrize("policy", ["sjf", "srpt?share=inf", "edf"])
def test_a_recorded_place_is_simulated_again(place: Place, policy: str, tmp_path: Path) -> None:
    scenario = Scenario(profile=profile(tight(kv_blocks=60)), policy=policy, place=place, estimator="ema", slos=SLOS)
    trace = simulate(scenario, random_workload(6), record_steps=True)
    trace.write(tmp_path / "run")
    trace = read(tmp_path / "run")
    assert trace.header.admission["place"] == place
    again, _ = as_measured(trace, scenario.profile)
    assert again.place == place
    validation = on_measured_steps("run", trace)
    assert validation.exceptions is not None
    assert validation.exceptions.empty
    assert validation.steps_alike == 1.0


def test_waiting_inside_counts_as_a_choice() -> None:
    runs = [simulate(Scenario(profile=profile(), place=place), random_workload(2)) for place in ("front", "inside")]
    rows = [summary(run)["choice_fraction"] for run in runs]
    assert rows[0] == pytest.approx(rows[1])
    assert rows[0] > 0.1


# -- a policy with no more than the protocol


def test_a_choice_stands_where_the_policy_cannot_look_ahead() -> None:
    """``pop`` charges whom it chooses: so it is asked once, and nobody passes who comes later."""
    place = Inside(make_policy("vtc"), make_estimator("static", Admission(), {}), Admission())
    first, later = (Job(Request(name, name, Tier.BATCH, "", 0.0, 9, None, 64), "", 0, 0) for name in "ab")
    place.come(first, 0.0)
    assert place.head(0.0) is first
    place.come(later, 0.0)
    assert not place.passes(later, 0.0)
    assert place.take(0.0) is first
    assert place.take(0.0) is later


def test_pop_that_gives_another_job_than_peek_is_found() -> None:
    class Lying(Keyed):
        def key(self, job: Job) -> float:
            return 0.0

        def peek(self, now: float) -> Job:
            return self._heap[-1][3]

        def pop(self, now: float) -> Job:
            return super().pop(now)

    place = Inside(Lying(), make_estimator("static", Admission(), {}), Admission())
    for name in "ab":
        place.come(Job(Request(name, name, Tier.BATCH, "", 0.0, 9, None, 64), "", 0, 0), 0.0)
    with pytest.raises(InputError, match=r"peek\(\) had said b"):
        place.take(0.0)


def test_an_estimate_in_flight_is_heard() -> None:
    """An estimator with ``progress`` says anew what is expected of who has made so much."""

    class Doubling:
        def __init__(self, admission: Admission) -> None: ...

        def estimate(self, request: Request, category: str, now: float) -> Any:
            return make_estimator("static", Admission(), {}).estimate(request, category, now)

        def progress(self, job: Job, tokens: int, now: float) -> Any:
            return replace(self.estimate(job.request, "", now), length=2 * tokens)

        def observe(self, job: Job, output_length: int, censored: bool, now: float) -> None: ...

    place = Inside(Srpt(), Doubling(Admission()), Admission())
    job = Job(Request("r", "a", Tier.BATCH, "", 0.0, 9, None, 64), "short_qa", 0, 0)
    place.come(job, 0.0)
    prompt = job.budget - job.estimate
    place.tell(place.take(0.0), 70, 1.0)
    assert (job.made, job.estimate, job.budget - prompt) == (70, 140, 140)
    assert not place.steady


def test_orders_and_estimates_survive_the_way_to_the_core(tmp_path: Path) -> None:
    orders = Orders(run=7, policy="srpt?share=0.5", estimator="ema", tiers=tier_rules("gold:3"), began=1.5)
    orders.write(tmp_path / "orders.json")
    assert Orders.model_validate_json((tmp_path / "orders.json").read_text()) == orders
    place = orders.place()
    job = Job(Request("r", "a", Tier("gold", 1), "", 0.0, 9, None, 64), "report", 0, 0, index=3)
    place.come(job, 0.0)
    file = tmp_path / "estimates.csv"
    file.write_bytes(noted(job).encode() + b"4,1.0,7" + b"\0" * 9)
    assert read_estimates(file) == {
        3: {"bias": job.bias, "estimate": job.estimate, "budget": job.budget, "scheduling_class": job.scheduling_class}
    }


def test_what_a_core_tells_of_who_was_given_up_is_a_lower_bound() -> None:
    sequence = Sequence(Job(Request("r", "a", Tier.BATCH, "", 0.0, 9, None, 64), "", 0, 0), 20)
    sequence.finish_reason, sequence.shown, sequence.scheduled = "abort", 12, 0
    told = untold(sequence)
    assert (told.output_length, told.at_least, told.served, told.censored) == (None, 12, 12, True)


@pytest.mark.parametrize("place", ["priority", "inside"])
def test_forced_lengths_are_limits_that_the_policy_does_not_see(place: Place, tmp_path: Path) -> None:
    """A policy by limits orders a measured run again as it did: the engine's limits were the lengths, not its own."""

    class SmallLimitFirst(Keyed):
        def key(self, job: Job) -> float:
            return job.request.max_tokens

    work = random_workload(8)
    limits = np.random.default_rng(1).choice([64, 128, 256], len(work)).tolist()
    work = replace(work, table=work.table.assign(max_tokens=limits))
    policy = give_class(SmallLimitFirst, "places:SmallLimitFirst")
    plugin_name("places:SmallLimitFirst")
    trace = simulate(Scenario(profile=profile(), policy=policy, place=place), work, record_steps=True)
    trace = replace(trace, header=trace.header.changed(engine_arguments={"force_lengths": True}))
    validation = on_measured_steps("run", trace)
    assert validation.steps_alike == 1.0


def test_compare_leaves_out_of_the_default_policies_what_is_no_priority() -> None:
    """Whoever is asked for by name is refused instead."""
    result = ds.compare("traces/smollm2-cpu-drift", place="priority", estimators="static", replications=1, jobs=1)
    assert {row["policy"] for row in result.rows()} == {"stock", "fifo", "priority", "sjf", "aging"}
    assert any("weighted is left out: its order is a cycle" in text for text in result.plan.left_out)
    with pytest.raises(InputError, match="weighted cannot be handed to the engine"):
        ds.compare("traces/smollm2-cpu-drift", policies="weighted", place="priority", replications=1, jobs=1)


def test_a_place_that_there_is_not_is_one_line() -> None:
    run = driftsim("compare", "traces/smollm2-cpu-drift", "--place", "beside")
    said = "Invalid value for '--place': 'beside' is not one of 'front', 'priority', 'inside'; see --help"
    assert (run.returncode, run.stderr.strip()) == (2, f"driftsim: {said}")
