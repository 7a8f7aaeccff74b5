"""Tiers of any name: their order is configuration, and the laws of their limits."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import driftsim as ds
from driftsim.comparison.report import flat_rows
from driftsim.errors import InputError, TraceError
from driftsim.glossary import METRICS, metric
from driftsim.latency.profile import Profile
from driftsim.live.plan import CapturePlan
from driftsim.live.recorder import record
from driftsim.request import TIERS, Job, Request, Tier
from driftsim.scheduling.admission import Admission
from driftsim.scheduling.dispatcher import Departure, Dispatcher
from driftsim.scheduling.estimators import Ema
from driftsim.scheduling.names import DEFAULT_POLICIES
from driftsim.scheduling.policies import Keyed, make_policy
from driftsim.simulation.run import simulate
from driftsim.simulation.scenario import Scenario
from driftsim.simulation.spec import ScenarioSpec
from driftsim.testing import Echo
from driftsim.tiers import PUBLISHED, TierRule, by_urgency, ranked, rules_in_force, tier_rules
from driftsim.trace.header import Header
from driftsim.trace.schema import TIER_NAMES
from driftsim.workloads.replay import replay
from driftsim.workloads.workload import Workload
from tests.commands import driftsim
from tests.queues import SLOS
from tests.strategies import engine, estimators, policies, profile, profiles, workload, workloads

METALS = ("gold", "silver", "bronze")
ours = st.sampled_from(DEFAULT_POLICIES[1:])


def busy(names: tuple[str, ...] = METALS, count: int = 60) -> Workload:
    random = np.random.default_rng(7)
    return workload(
        np.cumsum(random.exponential(0.03, count)).tolist(),
        random.geometric(0.06, count).clip(1, 60).tolist(),
        tier=random.choice(list(names), count),
        tenant=random.choice(["a", "b"], count),
        predicted_category=random.choice(["short_qa", "report"], count),
    )


def known() -> Profile:
    return profile(engine(max_num_seqs=2), decode_request_s=0.001)


# -- names and ranks


def test_a_tier_is_its_name_and_the_published_ones_know_their_ranks() -> None:
    assert Tier("premium") is Tier.PREMIUM
    assert [(tier, tier.rank, tier.priority) for tier in TIERS] == [
        ("premium", 1, 1), ("standard", 2, 2), ("batch", 3, 3)
    ]  # fmt: skip
    assert {str(Tier("gold", 2)), Tier("gold")} == {"gold"}
    assert f"{Tier.BATCH}" == "batch" == Tier.BATCH.value
    assert type(Tier.BATCH.value) is str


@pytest.mark.parametrize("tier", [Tier.PREMIUM, Tier("premium", 3), Tier("gold", 1), Tier("gold")])
def test_a_tier_survives_copies_and_processes(tier: Tier) -> None:
    assert copy.deepcopy(tier) is pickle.loads(pickle.dumps(tier)) is tier


def test_a_tier_without_an_order_says_so_where_its_rank_is_read() -> None:
    assert Tier("gold").priority == 0
    with pytest.raises(InputError, match="the tier 'gold' has no place in an order; .* --tiers gold"):
        Tier("gold").rank  # noqa: B018
    with pytest.raises(AttributeError):
        Tier("gold").colour  # noqa: B018


@pytest.mark.parametrize("name", ["", "a\nb", "\x00"])
def test_a_name_that_cannot_be_printed_is_none(name: str) -> None:
    for make in (Tier, lambda text: TierRule(name=text)):
        with pytest.raises(InputError, match="must be printable and not empty"):
            make(name)


def test_rules_are_given_as_text_names_tables_or_rules() -> None:
    told = tier_rules("gold:5:1.2,silver:3,bronze")
    assert told == tier_rules(
        [{"name": "gold", "weight": 5, "safety": 1.2}, TierRule(name="silver", weight=3), "bronze"]
    )
    assert [rule.slots for rule in told] == [5, 3, 1]
    assert [rule.slots for rule in PUBLISHED] == [5, 3, 2]
    assert tier_rules(["a:b, c"])[0].name == "a:b, c"  # only a text is taken apart


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("gold:many", "no name"), ("gold:1:1:1", "no name"), (":5", "no name"), ("gold,,", "no name"),
        ("gold:0", "tiers.0.weight"), ("gold:1:-2", "tiers.0.safety"), ("gold,gold", "there twice"),
        ([{"name": "gold", "rank": 1}], "tiers.0.rank"), ([3], "tiers.0"), (3, "a list"),
        ([{"name": "gold", "max_in_flight": 0}], "tiers.0.max_in_flight"),
    ],
)  # fmt: skip
def test_rules_that_make_no_sense_are_named_in_one_line(wrong: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        tier_rules(wrong)
    assert "\n" not in str(error.value)


def test_which_rules_are_in_force() -> None:
    told = tier_rules("silver,gold")
    assert rules_in_force(told, {"gold"}) == told
    assert rules_in_force((), {"premium", "batch"}) == PUBLISHED
    assert rules_in_force((), {"gold"}) == tier_rules("gold")  # one needs no order
    assert rules_in_force((), {"gold", "premium"}) == ()
    with pytest.raises(InputError, match="the requests have the tier 'tin', which is not among the tiers silver, gold"):
        rules_in_force(told, {"gold", "tin"})
    assert by_urgency({"gold", "silver", "tin", "premium"}, told) == ["silver", "gold", "premium", "tin"]


# -- the order that policies go by


@given(ours, workloads(), profiles(), estimators)
def test_other_names_in_the_same_order_make_the_same_run(
    policy: str, made: Workload, engine: Profile, estimator: str
) -> None:
    names = dict(zip(TIER_NAMES, METALS, strict=True))
    other = replace(made, table=made.table.assign(tier=made.table["tier"].map(names)))
    rules = tier_rules("gold:5:1.2,silver:3:1.0,bronze:2:0.8")
    plain = simulate(Scenario(profile=engine, policy=policy, estimator=estimator), made).requests
    named = simulate(Scenario(profile=engine, policy=policy, estimator=estimator, tiers=rules), other).requests
    pd.testing.assert_frame_equal(named.drop(columns="tier"), plain.drop(columns="tier"))


@given(ours, workloads(), profiles())
def test_saying_the_published_order_changes_nothing(policy: str, made: Workload, engine: Profile) -> None:
    plain = simulate(Scenario(profile=engine, policy=policy), made).requests
    told = simulate(Scenario(profile=engine, policy=policy, tiers=PUBLISHED), made).requests
    pd.testing.assert_frame_equal(told, plain)


@pytest.mark.parametrize("policy", ["priority", "weighted", "aging"])
def test_another_order_makes_another_run(policy: str) -> None:
    one, other = (
        ds.simulate(busy(), policy=policy, profile=known(), tiers=tiers).requests["dispatch_index"]
        for tiers in ("gold,silver,bronze", "bronze,silver,gold")
    )
    assert not one.equals(other)


def test_the_weighted_cycle_is_made_of_the_weights_in_order_of_urgency() -> None:
    rules = tier_rules("gold:3,silver,bronze:2")
    tiers = ranked(rules, METALS)
    queue = make_policy("weighted", rules)
    for row, name in enumerate(METALS * 12):
        queue.push(Job(Request(str(row), "a", tiers[name], "", row, 8, 6, 64), "", 1, 1), row)
    served = "".join(queue.pop(99.0).request.tier[0] for _ in range(12))
    assert served == "gggsbb" * 2


def test_an_engine_that_schedules_by_priority_gets_the_rank() -> None:
    settings = engine(max_num_seqs=1, scheduling_policy="priority")
    made = workload([0.0, 0.001, 0.001], [9, 9, 9], tier=["gold", "bronze", "gold"])
    run = ds.simulate(made, policy="stock", profile=profile(settings), tiers="bronze,gold").requests
    assert list(run["finish_s"].rank()) == [1, 2, 3]
    run = ds.simulate(made, policy="stock", profile=profile(settings), tiers="gold,bronze").requests
    assert list(run["finish_s"].rank()) == [1, 3, 2]
    with pytest.raises(InputError, match="the engine's scheduling policy 'priority' orders by tier"):
        ds.simulate(made, policy="stock", profile=profile(settings))


def test_the_safety_factor_of_a_rule_replaces_the_one_of_admission_and_a_tier_without_any_has_1() -> None:
    made = busy(("premium", "gold", "silver"))
    run = ds.simulate(made, profile=known(), tiers="premium:1:2.0,gold:1:1.5,silver")
    estimates = run.requests.groupby(["tier", "predicted_category"])["estimate"].first()
    assert [estimates[tier, "report"] for tier in ("premium", "gold", "silver")] == [1032, 774, 516]  # 512 x 1.008 x
    assert run.header.admission["safety"] == {"premium": 2.0, "standard": 1.0, "batch": 0.8, "gold": 1.5}
    assert run.header.tiers == tier_rules("premium:1:2.0,gold:1:1.5,silver")
    plain = ds.simulate(made, profile=known(), admission=Admission(safety={Tier("gold"): 3.0}))
    assert plain.requests.groupby(["tier", "predicted_category"])["estimate"].first()["gold", "report"] == 1548


# -- tiers that nobody ordered


@pytest.mark.parametrize("policy", ["priority", "weighted", "aging"])
def test_a_policy_that_needs_the_order_is_refused_with_the_tiers_and_the_remedy(policy: str) -> None:
    for run in (
        lambda: ds.simulate(busy(), policy=policy, profile=known()),
        lambda: ds.compare(busy(), policies=policy, profile=known(), jobs=1),
    ):
        with pytest.raises(InputError) as error:
            run()
        said = str(error.value)
        assert said.startswith(f"{policy} orders by tier, and nobody said the order of the tiers bronze, gold, silver;")
        assert "most urgent first" in said
        assert "--tiers" in said
        assert "\n" not in said


@pytest.mark.parametrize("policy", ["fifo", "sjf", "stock"])
def test_a_policy_that_heeds_no_tier_runs_without_an_order(policy: str) -> None:
    run = ds.simulate(busy(), policy=policy, profile=known())
    assert len(run.finished) == 60
    assert run.header.tiers == ()


def test_a_single_tier_of_any_name_needs_no_order() -> None:
    run = ds.simulate(busy(("gold",)), policy="priority", profile=known()).requests
    pd.testing.assert_frame_equal(run, ds.simulate(busy(("gold",)), policy="fifo", profile=known()).requests)


def test_a_comparison_of_all_policies_runs_those_that_it_can_and_names_the_others() -> None:
    result = ds.compare(busy(), profile=known(), replications=1, jobs=1)
    assert {row["policy"] for row in result.rows()} == {"stock", "fifo", "sjf"}
    assert result.warnings()[0].startswith("priority, weighted and aging are left out: they order by tier")
    told = ds.compare(busy(), profile=known(), replications=1, jobs=1, tiers=METALS)
    assert {row["policy"] for row in told.rows()} == {*DEFAULT_POLICIES}
    assert not any("left out" in warning for warning in told.warnings())


class Ranked(Keyed):
    """A plug-in that goes by tier, and does not say so."""

    def key(self, job: Job) -> float:
        """The tier's rank."""
        return job.request.tier.rank


def test_a_plug_in_that_reads_a_rank_that_is_not_there_is_told_in_one_line() -> None:
    with pytest.raises(InputError, match="has no place in an order") as error:
        ds.simulate(busy(), policy=Ranked, profile=known())
    assert "\n" not in str(error.value)
    told = ds.simulate(busy(), policy=Ranked, profile=known(), tiers=METALS).requests
    ours = ds.simulate(busy(), policy="priority", profile=known(), tiers=METALS).requests
    pd.testing.assert_frame_equal(told, ours)


# -- limits


@dataclass
class Queue:
    """The law in its plainest form: look at all who wait, in the policy's order, and take the first who may go."""

    policy: str
    weights: dict[str, int]
    waiting: list[Job] = field(default_factory=list)
    pointer: int = 0

    def take(self, full: set[str]) -> Job | None:
        may_go = [job for job in self.waiting if job.request.tier not in full]
        if not may_go:
            return None
        if self.policy == "weighted":
            cycle = [tier for tier, weight in self.weights.items() for _ in range(weight)]
            turns = [(self.pointer + step) % len(cycle) for step in range(len(cycle))]
            slot = next(slot for slot in turns if any(job.request.tier == cycle[slot] for job in may_go))
            self.pointer = (slot + 1) % len(cycle)
            job = next(job for job in may_go if job.request.tier == cycle[slot])
        else:
            key: Any = make_policy(self.policy)
            job = min(may_go, key=lambda one: (key.key(one), one.request.arrival))
        self.waiting.remove(job)
        return job


EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("arrive"), st.sampled_from(METALS), st.integers(1, 900)),
        st.tuples(st.just("leave"), st.integers(0, 9), st.integers(1, 400)),
        st.tuples(st.just("release"), st.integers(0, 3), st.just(0)),
    ),
    min_size=30,
    max_size=80,
)


@given(
    ours, st.dictionaries(st.sampled_from(METALS), st.integers(1, 3)), st.one_of(st.none(), st.integers(1, 5)), EVENTS,
    st.sampled_from(["frozen", "refreshed"]),
)  # fmt: skip
def test_a_full_tier_is_passed_over_and_all_others_go_in_the_policys_order(
    policy: str, limits: dict[str, int], limit: int | None, events: list[tuple[Any, Any, Any]], estimates: Any
) -> None:
    rules = tier_rules([{"name": name, "max_in_flight": limits.get(name)} for name in METALS])
    tiers = ranked(rules, METALS)
    admission = Admission(estimates=estimates, alpha=1.0)
    dispatcher = Dispatcher(make_policy(policy, rules), Ema(admission), admission, limit, limits)
    plain = Queue(policy, {rule.name: rule.slots for rule in rules})
    inside: list[Job] = []
    now = 0.0
    for what, first, second in events:
        now += 0.5
        if what == "arrive":
            category = ("short_qa", "report")[second % 2]
            request = Request(str(now), "a", tiers[first], "", now, second, second, 1024)
            plain.waiting.append(dispatcher.arrive(request, category, now))
        elif what == "leave" and inside:
            gone = inside.pop(first % len(inside))
            dispatcher.finished([Departure(gone, second, False)], now)
        elif what == "release":
            released = dispatcher.release(first, now)
            for job in released:
                assert plain.take(full_of(inside, limits)) is job
                inside.append(job)
                counts = Counter(str(one.request.tier) for one in inside)
                assert all(counts[name] <= most for name, most in limits.items())  # never more than allowed
            if len(released) < first and (limit is None or len(inside) < limit):  # there was room for one more
                assert {job.request.tier for job in plain.waiting} <= full_of(inside, limits)
        assert len(dispatcher.policy) == len(plain.waiting)


@pytest.mark.parametrize(("estimates", "first"), [("frozen", "long"), ("refreshed", "short")])
def test_refreshed_estimates_reorder_those_who_are_held_back(estimates: Any, first: str) -> None:
    rules = tier_rules([TierRule(name="gold", max_in_flight=1), TierRule(name="silver")])
    tiers = ranked(rules, ("gold", "silver"))
    admission = Admission(estimates=estimates, alpha=1.0)
    dispatcher = Dispatcher(make_policy("sjf"), Ema(admission), admission, None, {"gold": 1})

    def arrive(name: str, tier: str, category: str, prompt: int) -> None:
        dispatcher.arrive(Request(name, "a", tiers[tier], "", 0.0, prompt, None, 1024), category, 0.0)

    arrive("inside", "gold", "short_qa", 10)
    [inside] = dispatcher.release(1, 0.0)
    arrive("long", "gold", "summary", 50)  # 50 + 268
    arrive("short", "gold", "short_qa", 290)  # 290 + 82, and 290 + 20 once short_qa is known to be a quarter as long
    arrive("other", "silver", "short_qa", 500)
    [other] = dispatcher.release(3, 1.0)
    assert other.request.id == "other"
    dispatcher.finished([Departure(other, 16, False)], 2.0)
    dispatcher.finished([Departure(inside, None, False)], 2.0)
    assert [job.request.id for job in dispatcher.release(3, 3.0)] == [first]


def full_of(inside: list[Job], limits: dict[str, int]) -> set[str]:
    """The tiers that have as many inside as they may."""
    counts = Counter(str(job.request.tier) for job in inside)
    return {name for name, most in limits.items() if counts[name] >= most}


def in_flight(rows: pd.DataFrame, tier: str) -> int:
    """The most requests of ``tier`` between dispatch and finish at one moment."""
    own = rows[(rows["tier"] == tier) & rows["finish_s"].notna()]
    moments = sorted([(time, 1) for time in own["dispatch_s"]] + [(time, -1) for time in own["finish_s"]])
    return int(max(np.cumsum([step for _, step in moments]), default=0))


@given(policies, workloads(), profiles(), st.dictionaries(st.sampled_from(TIER_NAMES), st.integers(1, 3)))
def test_no_tier_has_more_in_flight_than_its_limit(
    policy: str, made: Workload, engine: Profile, limits: dict[str, int]
) -> None:
    rules = tier_rules([{"name": name, "max_in_flight": limits.get(name)} for name in TIER_NAMES])
    rows = simulate(Scenario(profile=engine, policy=policy, tiers=rules, slos=SLOS), made).requests
    assert rows["finish_reason"].notna().all()  # nobody waits for ever
    for tier, most in limits.items():
        assert policy == "stock" or in_flight(rows, tier) <= most


@given(policies, workloads(), profiles(), estimators, st.booleans())
def test_a_limit_of_all_slots_or_more_is_none(
    policy: str, made: Workload, engine: Profile, estimator: str, refreshed: bool
) -> None:
    slots = engine.engine.max_num_seqs
    rules = tier_rules([{"name": name, "max_in_flight": slots + place} for place, name in enumerate(TIER_NAMES)])
    admission = Admission(estimates="refreshed" if refreshed else "frozen")
    plain = Scenario(profile=engine, policy=policy, estimator=estimator, admission=admission, slos=SLOS)
    free, limited = (simulate(scenario, made).requests for scenario in (plain, replace(plain, tiers=rules)))
    pd.testing.assert_frame_equal(limited, free)


def test_a_limit_keeps_a_tier_back_and_lets_the_others_pass() -> None:
    made = workload([0.0, 0.0, 0.0, 0.001], [9, 9, 9, 9], tier=["gold", "gold", "gold", "silver"])
    limited = (TierRule(name="gold", max_in_flight=1), TierRule(name="silver"))
    run = ds.simulate(made, policy="priority", profile=known(), tiers=limited).requests
    assert list(run["dispatch_index"]) == [0, 2, 3, 1]
    assert run["dispatch_s"].iloc[3] == 0.001  # a slot was free, and only gold was full


def test_a_policy_that_cannot_pass_over_a_tier_is_refused_where_a_tier_has_a_limit() -> None:
    class Own(Keyed):
        def pop(self, now: float) -> Job:
            return super().pop(now)

        def key(self, job: Job) -> float:
            return job.request.arrival

    limited = [TierRule(name="gold", max_in_flight=1), *tier_rules("silver,bronze")]
    with pytest.raises(InputError, match=r"policy Own has no pop_below\(now, full\) beside its pop"):
        ds.simulate(busy(), policy=Own, profile=known(), tiers=limited)
    assert len(ds.simulate(busy(), policy=Own, profile=known(), tiers=METALS).finished) == 60


# -- where tiers are written down


def test_the_order_counts_in_the_key_and_no_tiers_leave_it_as_it_was() -> None:
    plain = ScenarioSpec(trace="t")
    keys = [plain.changed(tiers=tiers).key("d", "p") for tiers in ((), ["a", "b"], ["b", "a"], [{"name": "a"}, "b"])]
    assert keys[0] == plain.key("d", "p")
    assert len(set(keys)) == 3
    assert keys[1] == keys[3]
    assert "tiers" not in plain.identity("d", "p")


def test_a_header_without_tiers_is_written_as_before_and_one_with_tiers_comes_back(tmp_path: Path) -> None:
    plain = ds.simulate(busy(TIER_NAMES), profile=known())
    assert "tiers" not in json.loads(plain.header.model_dump_json())
    told = ds.simulate(busy(), policy="priority", profile=known(), tiers="gold:4,silver,bronze")
    again = ds.read(told.write(tmp_path / "t"))
    assert again.header.tiers == tier_rules("gold:4,silver,bronze")
    assert isinstance(again.header, Header)
    assert replay(again).tiers == again.header.tiers
    pd.testing.assert_frame_equal(  # the trace brings its tiers along
        ds.simulate(again, policy="weighted", profile=known()).requests,
        ds.simulate(busy(), policy="weighted", profile=known(), tiers="gold:4,silver,bronze").requests,
    )


def test_a_drawn_workload_has_the_tiers_of_the_run_that_it_is_drawn_from() -> None:
    told = ds.simulate(busy(), profile=known(), tiers="silver,gold,bronze")
    arrivals = ds.Process(kind="poisson", rate=20.0)
    drawn = Workload.from_trace(told, requests=50, arrivals=arrivals)
    assert drawn.tiers == told.header.tiers
    own = [ds.Tenant(name="a", tier="tin")]  # type: ignore[arg-type]
    assert Workload.from_trace(told, requests=50, arrivals=arrivals, tenants=own).tiers == ()


def test_imported_requests_and_prompts_have_tiers_of_any_name(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("at,in,out,plan\n0,9,5,pro\n1,9,5,free\n")
    (tmp_path / "m.toml").write_text(
        'tiers = ["pro", { name = "free", max_in_flight = 3 }]\n[columns]\narrival_s = "at"\n'
        'prompt_tokens = "in"\noutput_tokens = "out"\ntier = "plan"\n'
    )
    imported = ds.import_trace(tmp_path / "r.csv", mapping=tmp_path / "m.toml")
    assert imported.header.tiers == (TierRule(name="pro"), TierRule(name="free", max_in_flight=3))
    assert list(imported.requests["tier"]) == ["pro", "free"]
    (tmp_path / "p.jsonl").write_text('{"prompt": "What?", "tier": "pro"}\n')
    made = ds.WorkloadChoice(prompts=tmp_path / "p.jsonl").prepare()(len)
    assert list(made.table["tier"]) == ["pro"]


def test_a_captured_run_is_held_against_its_simulation_under_its_own_limits_alone() -> None:
    limited = [TierRule(name="gold", max_in_flight=1), *tier_rules("silver,bronze")]
    run = ds.simulate(busy(), profile=known(), tiers=limited, steps=True)
    captured = replace(run, header=run.header.changed(kind="captured"))
    for tiers, held in (((), True), (limited, True), (METALS, False)):
        result = ds.compare(captured, policies="fifo", tiers=tiers, replications=1, jobs=1)
        assert (result.measured is not None) == held


def test_a_tier_that_the_header_does_not_know_is_named(tmp_path: Path) -> None:
    told = ds.simulate(busy(), profile=known(), tiers=METALS)
    wrong = replace(told, header=told.header.changed(tiers=("gold", "silver")))
    with pytest.raises(TraceError, match="tier is 'bronze': not among the header's tiers gold, silver"):
        wrong.write(tmp_path / "t")


def test_a_scenario_a_grid_and_their_rows_hold_the_tiers(tmp_path: Path) -> None:
    ds.simulate(busy(), profile=known(), steps=True).write(tmp_path / "t")
    known().save(tmp_path / "p.json")
    tiers = 'tiers = ["gold", { name = "silver", weight = 3 }, "bronze"]\n'
    (tmp_path / "s.toml").write_text(f'trace = "t"\nprofile = "p.json"\npolicy = "priority"\n{tiers}')
    trace, spec, _ = ds.simulate_scenario(tmp_path / "s.toml")
    assert spec.tiers == tier_rules("gold,silver:3,bronze")
    (tmp_path / "g.toml").write_text(
        'base = { trace = "t", profile = "p.json", policy = "priority", tiers = [{name = "gold"}, {name = "silver"}, '
        '{name = "bronze"}] }\ngrid = { "tiers.gold.max_in_flight" = [1, 2] }\n'
    )
    rows = ds.sweep(tmp_path / "g.toml", tmp_path / "store", jobs=1).sort_values("tiers.gold.max_in_flight")
    assert not rows["failed"].any()
    assert list(rows["tiers.gold.max_in_flight"]) == [1, 2]
    assert set(rows["tiers.bronze.rank"]) == {3}
    free = ds.summary(trace)["per_tier"]["gold"]["e2e_mean_s"]
    assert rows["gold_e2e_mean_s"].iloc[0] > rows["gold_e2e_mean_s"].iloc[1] == free


def test_reports_go_by_the_tiers_in_order_of_urgency(tmp_path: Path) -> None:
    result = ds.compare(
        busy(), policies=["fifo", "priority"], profile=known(), replications=1, jobs=1, tiers="silver,gold,bronze"
    )
    assert list(result.rows()[0]["per_tier"]) == ["silver", "gold", "bronze"]
    row = flat_rows(result)[0]
    assert {"silver_e2e_mean_s", "gold_requests"} <= set(row)
    assert metric("silver_e2e_mean_s").unit == "s"
    assert metric("gold_requests").kind == "int"
    assert metric("premium_finished") is METRICS["premium_finished"]
    with pytest.raises(InputError, match="unknown metric 'e2e_meen_s'; did you mean 'e2e_mean_s'"):
        metric("e2e_meen_s")
    page = (result.write(tmp_path / "out") / "report.html").read_text()
    assert page.index(">silver<") < page.index(">gold<") < page.index(">bronze<")


def test_the_commands_take_any_tiers(tmp_path: Path) -> None:
    told = ds.simulate(busy(), policy="priority", profile=known(), tiers=METALS, steps=True)
    rows = told.requests.assign(queued_s=told.requests["dispatch_s"])
    captured = replace(
        told, header=told.header.changed(kind="captured", captured_at="2026-01-01T00:00:00Z"), requests=rows
    )
    captured.write(tmp_path / "t")
    known().save(tmp_path / "p.json")
    compared = driftsim(
        "compare", tmp_path / "t", "--tiers", "bronze:2,silver,gold", "--replications", 1, "--jobs", 1, "--json"
    )
    assert compared.returncode == 0, compared.stderr
    found = json.loads(compared.stdout)["rows"]
    assert list(found[0]["per_tier"]) == ["bronze", "silver", "gold"]
    for arguments in (("validate", tmp_path / "t", "--steps", "measured"),
                      ("validate", tmp_path / "t", "--profile", tmp_path / "p.json")):  # fmt: skip
        done = driftsim(*arguments)
        assert done.returncode == 0, done.stderr
    clash = driftsim("compare", tmp_path / "t", "--tiers", "gold:1:2,silver,bronze", "--no-safety")
    assert (clash.returncode, clash.stderr.count("\n")) == (2, 1)


def test_what_is_asked_for_by_name_is_refused_and_what_is_not_is_left_out(
    tmp_path: Path,
) -> None:
    ds.simulate(busy(), profile=known(), steps=True).write(tmp_path / "t")
    quick = ("compare", tmp_path / "t", "--replications", 1, "--jobs", 1)
    plain = driftsim(*quick)
    assert plain.returncode == 0
    assert "priority, weighted and aging are left out" in plain.stdout
    named = driftsim(*quick, "--policies", "stock,fifo,priority,weighted,sjf,aging")
    assert (named.returncode, named.stderr.count("\n")) == (2, 1)
    assert "priority orders by tier" in named.stderr


def test_a_capture_goes_by_its_tiers_and_writes_them(tmp_path: Path) -> None:
    made = workload([0.0] * 4, [1] * 4, tier=["bronze", "gold", "gold", "gold"], prompt_tokens=9)
    limited = tier_rules([{"name": "gold", "max_in_flight": 1}, "bronze"])
    plan = CapturePlan(policy="priority", max_in_flight=2, tiers=limited)
    trace = asyncio.run(record(made, Echo(), plan, tmp_path / "t"))
    assert list(trace.requests["dispatch_index"]) == [1, 0, 2, 3]
    assert ds.read(tmp_path / "t").header.tiers == limited
    with pytest.raises(InputError, match="priority orders by tier"):
        asyncio.run(record(made, Echo(), CapturePlan(policy="priority"), tmp_path / "u"))
