"""Capacity: the search, its definition and its laws, what binds, and what a user sees."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq

import driftsim as ds
from driftsim.metrics import summary
from driftsim.planning import capacity
from driftsim.simulation.limits import SHARES, binding, limit_shares
from driftsim.simulation.run import simulate
from driftsim.simulation.scenario import Scenario
from driftsim.sizing.search import Search
from driftsim.slo import slo_rules
from driftsim.sweeps.store import Store
from driftsim.trace.subset import middle
from driftsim.workloads.generated import Tenant, WorkloadSpec
from driftsim.workloads.processes import Process
from tests.commands import driftsim
from tests.strategies import engine, profile, workload

STEP_S = 0.010
WORK = WorkloadSpec(kind="poisson", rate=1.0, requests=120, prompt_tokens=8, output_tokens=20)
SMALL = profile(engine(max_num_seqs=2))
QUICK: dict[str, Any] = {"slos": "ttft=100ms", "target": 0.9, "replications": 3, "tolerance": 0.05, "jobs": 1}


# -- the search


def searched(held: Callable[[float], bool], search: Search) -> Search:
    """``search`` to its end."""
    tries = 0
    while (load := search.next()) is not None:
        assert load not in search.held, "a load is tried once"
        assert search.lowest <= load <= search.highest
        search.tell(load, held(load))
        tries += 1
        assert tries < 60
    return search


def by_definition(held: dict[float, bool]) -> float | None:
    """The highest load that holds with every lower one holding, by brute force."""
    best = None
    for load in sorted(held):
        if not held[load]:
            break
        best = load
    return best


@given(limit=st.floats(0.02, 60.0), first=st.floats(0.02, 60.0), tolerance=st.sampled_from([0.001, 0.01, 0.1]))
def test_a_search_ends_within_its_tolerance_below_a_load_that_failed(
    limit: float, first: float, tolerance: float
) -> None:
    search = searched(lambda load: load <= limit, Search(first, 0.01, 100.0, tolerance))
    assert search.state == "found"
    assert search.capacity is not None
    assert search.failed is not None
    assert search.capacity <= limit < search.failed <= search.capacity * (1 + max(tolerance, 2e-3))


@given(st.lists(st.booleans(), min_size=64, max_size=64), st.floats(0.02, 60.0))
def test_where_attainment_does_not_fall_steadily_the_answer_is_below_every_failure(
    holds: list[bool], first: float
) -> None:
    search = searched(lambda load: holds[hash(load) % 64], Search(first, 0.01, 100.0, 0.01))
    for load in (0.011, 0.5, 7.0, 99.0):
        search.tell(load, holds[hash(load) % 64])
    assert search.capacity == by_definition(search.held)
    again = searched(lambda load: holds[hash(load) % 64], search)  # a lower failure opens the bracket anew
    assert again.capacity == by_definition(again.held)
    if again.state == "found":
        assert again.capacity is not None
        assert again.failed is not None
        assert again.failed <= 1.011 * again.capacity


@given(limit=st.integers(1, 499), first=st.integers(1, 500))
def test_whole_loads_are_found_exactly(limit: int, first: int) -> None:
    search = searched(lambda load: load <= limit, Search(float(first), 1.0, 500.0, 0.01, whole=True))
    assert search.capacity == limit


def test_ends_that_say_nothing_are_no_answer() -> None:
    assert searched(lambda load: False, Search(1.0, 0.1, 10.0, 0.01)).state == "below"
    above = searched(lambda load: True, Search(1.0, 0.1, 10.0, 0.01))
    assert (above.state, above.capacity) == ("above", 10.0)


# -- laws


def wait_at_most(limit: float, rate: float) -> float:
    """P(wait <= limit) in M/D/1 at ``rate``, service ``STEP_S`` (Crommelin 1932; Tijms 2003, section 9.6)."""
    terms = range(int(limit / STEP_S + 1e-9) + 1)
    ages = [rate * (limit - k * STEP_S) for k in terms]
    return (1 - rate * STEP_S) * sum(
        math.exp(age) * (-age) ** k / math.factorial(k) for k, age in zip(terms, ages, strict=True)
    )


def found_in_m_d_1(steps: float, target: float, requests: int, replications: int = 1) -> tuple[float, Any]:
    """The analytic rate at which ``target`` wait at most ``steps`` services, and the answer of the search for it."""
    rate = brentq(lambda rate: wait_at_most(steps * STEP_S, rate) - target, 1.0, 99.9)
    work = WorkloadSpec(kind="poisson", rate=1.0, requests=requests, prompt_tokens=8, output_tokens=1)
    slo = f"ttft={1000 * STEP_S * (steps + 1) + 1e-6:.9g}ms"
    result = capacity(
        work, profile(engine(max_num_seqs=1)), slos=slo, target=target, replications=replications, tolerance=0.005,
        lowest=0.92 * rate, highest=1.08 * rate, jobs=1,
    )  # fmt: skip
    return rate, result.answers[0]


def test_the_capacity_of_m_d_1_is_the_analytic_one() -> None:
    rate, answer = found_in_m_d_1(2.5, 0.9, 16_000)
    assert answer.interval.value == pytest.approx(rate, rel=0.02)


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("steps", "target", "requests", "draws"), [(0, 0.5, 20_000, 5), (2.5, 0.9, 20_000, 5), (6.5, 0.99, 40_000, 10)]
)
def test_the_capacity_of_m_d_1_is_inside_its_interval_up_to_the_p99(
    steps: float, target: float, requests: int, draws: int
) -> None:
    rate, answer = found_in_m_d_1(steps, target, requests, draws)
    assert answer.interval.value == pytest.approx(rate, rel=0.02)
    assert answer.interval.low <= rate <= answer.interval.high


def share_within(load: float, policy: str) -> float:
    """The share of requests within the SLO of ``QUICK`` at ``load``, without any of the search's code."""
    shares = []
    for number in range(QUICK["replications"]):
        run = simulate(
            Scenario(profile=SMALL, policy=policy, slos=QUICK["slos"]),
            ds.Workload.generated(WORK.changed(rate=load), number),
        )
        rows = run.requests.sort_values("arrival_s", kind="stable").iloc[12:-6]  # a tenth, and a twentieth
        shares.append(float((rows["first_token_s"] - rows["arrival_s"] <= 0.1).mean()))
    return float(np.mean(shares))


@pytest.mark.parametrize("policy", ["fifo", "sjf"])
def test_the_answer_agrees_with_a_grid_of_single_runs(policy: str) -> None:
    result = capacity(WORK, SMALL, policies=policy, **QUICK)
    answer = result.answers[0]
    load = answer.interval.value
    grid = [*(round(load * factor, 4) for factor in (0.5, 0.8, 0.95, 1.05, 1.2, 2.0)), load]
    assert by_definition({one: share_within(one, policy) >= 0.9 for one in grid}) == load
    assert answer.at.attained.value == pytest.approx(share_within(load, policy))
    for one in answer.tried:
        assert one.attained.value == pytest.approx(share_within(one.load, policy))


def test_who_is_turned_away_missed_and_who_comes_first_and_last_does_not_count() -> None:
    run = simulate(
        Scenario(profile=profile(engine(kv_blocks=4, max_model_len=64)), slos=slo_rules("e2e=3600s")),
        workload([0.0, 1.0, 2.0, 3.0], [2, 2, 2, 2], prompt_tokens=[8, 8, 64, 8], max_tokens=4),
    )  # fmt: skip
    assert summary(run)["attainment"] == 0.75
    assert summary(middle(run, 0.5, 0.25))["attainment"] == 0.0
    assert summary(middle(run, 0.5, 0.25))["requests"] == 1


# -- what is asked


def test_nothing_that_holds_and_everything_that_holds_are_said_so() -> None:
    low = capacity(WORK, SMALL, **QUICK | {"slos": "ttft=1ms", "replications": 1}, lowest=0.5, highest=4.0)
    assert list(low.frame()["state"]) == ["below"]
    assert low.frame()["load"].isna().all()
    assert "not even 0.5 requests/s" in low.answer()[0]
    high = capacity(WORK, SMALL, **QUICK | {"slos": "ttft=900s", "replications": 1}, lowest=0.5, highest=4.0)
    assert list(high.frame()["state"]) == ["above"]
    assert "the capacity is higher" in high.answer()[0]
    assert high.frame()[["load", "load_low", "load_high"]].isna().all(axis=None)
    assert "> 4" in str(high)


def test_a_load_above_what_is_served_of_a_backlog_is_called_too_short_a_run() -> None:
    result = capacity(WORK, SMALL, **QUICK | {"slos": "e2e=1000s", "replications": 1}, highest=40.0)
    assert result.answers[0].is_overload
    assert any("in longer runs queues grow without end" in warning for warning in result.warnings())
    calm = capacity(WORK, SMALL, **QUICK | {"slos": "ttft=50ms", "replications": 1})
    assert not calm.answers[0].is_overload
    assert not any("without end" in warning for warning in calm.warnings())


def test_in_overload_a_longer_run_takes_less() -> None:
    """A queue that grows misses its SLO in time: a short run above what is served ends before it does."""
    quick = QUICK | {"slos": "e2e=3s", "replications": 1}
    short, long = (
        capacity(WORK.changed(requests=requests), SMALL, **quick, highest=60.0).answers[0] for requests in (40, 240)
    )
    assert short.is_overload
    assert short.found.load > 1.2 * long.found.load


def test_what_must_be_known_of_the_runs_is_said() -> None:
    result = capacity(WORK, SMALL, **QUICK | {"replications": 1})
    assert any("P99 rests on 102 finished requests" in warning for warning in result.warnings())
    assert any("each run measures 102 requests" in warning for warning in result.warnings())


def test_an_axis_is_held_against_its_first_value_and_a_value_that_changes_nothing_gains_nothing() -> None:
    axes = {"engine.max_num_seqs": [2, 4], "engine.kv_blocks": [500, 600]}
    result = capacity(WORK, SMALL, axes=axes, **QUICK)
    base, slots, blocks = result.document()["capacity"]
    assert (slots["axis"], slots["value"], blocks["value"]) == ("engine.max_num_seqs", 4, 600)
    assert slots["load"] > 1.5 * base["load"]
    assert slots["change_low"] > 0.5
    assert blocks["change"] == blocks["change_low"] == blocks["change_high"] == 0
    assert "max_num_seqs 4 against max_num_seqs 2: +" in " ".join(result.answer())


def test_a_policy_that_heeds_no_estimate_is_searched_once() -> None:
    result = capacity(
        WORK, SMALL, policies=["fifo", "sjf"], estimators=["static", "ema"], **QUICK | {"replications": 1},
    )  # fmt: skip
    named = result.frame()[["policy", "estimator"]].agg("/".join, axis=1)
    assert list(named) == ["fifo/static", "sjf/static", "sjf/ema"]


def test_the_load_of_a_closed_loop_is_its_users_and_that_of_tenants_is_a_factor() -> None:
    closed = WorkloadSpec(kind="closed", users=1, requests=100, prompt_tokens=8, output_tokens=20)
    result = capacity(closed, SMALL, slos="ttft=20ms", replications=3, jobs=1)
    assert result.frame()["load"].iloc[0] == 2  # one a slot: the third waits for a whole answer
    assert result.answers[0].interval == (2, 2, 3)
    tenants = (Tenant(name="a", rate=0.5, requests=60), Tenant(name="b", rate=1.5, requests=60))
    mixed = WorkloadSpec(tenants=tenants, prompt_tokens=8, output_tokens=20)
    result = capacity(mixed, SMALL, **QUICK | {"slos": "a:ttft=100ms", "replications": 1})
    row = result.frame().iloc[0]
    assert row["rate"] == pytest.approx(2.0 * row["load"])


def test_requests_of_a_trace_arrive_by_another_law_where_that_is_asked_for(shipped: Path) -> None:
    result = capacity(
        shipped, slos="ttft=20s", target=0.8, arrivals=Process(kind="poisson", rate=1.0), requests=120, replications=1,
        jobs=1, tolerance=0.1,
    )  # fmt: skip
    assert result.sizing.axis.unit == "requests/s"
    assert result.answers[0].at.measured == 102
    assert any("a recorded run has only so many requests" in warning for warning in result.warnings())


def test_a_scenario_brings_its_policy_its_slos_and_its_arrivals(tmp_path: Path, shipped: Path) -> None:
    SMALL.save(tmp_path / "p.json")
    file = tmp_path / "s.toml"
    file.write_text(
        f'trace = "{shipped}"\nprofile = "p.json"\npolicy = "sjf"\nslos = ["ttft=100ms"]\nrequests = 60\n'
        '[arrivals]\nkind = "closed"\nusers = 3\n'
    )
    result = capacity(file, target=0.8, replications=1, jobs=1)
    row = result.document()["capacity"][0]
    assert (row["policy"], row["state"], result.sizing.axis.kind) == ("sjf", "found", "users")
    assert [str(slo) for slo in result.slos] == ["ttft=100ms"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"slos": ()}, "there is none; give one"),
        ({"slos": "ttft=2"}, "has no unit"),
        ({"slos": "gold:ttft=2s"}, "no request has the tenant or tier 'gold'"),
        ({"target": 1.0}, "above 0 and below 1"),
        ({"target": 0}, "above 0 and below 1"),
        ({"tolerance": 0.0}, "tolerance must be"),
        ({"lowest": 2.0, "highest": 1.0}, "below the highest"),
        ({"lowest": -1.0}, "lowest load must be above 0"),
        ({"replications": 0}, "at least 1"),
        ({"axes": {"engine.slots": [1]}}, "unknown key"),
        ({"axes": {"engine.kv_blocks": [9, 9]}}, "each once"),
        ({"warm_up": 0.6, "cool_down": 0.5}, "leave no request"),
        ({"policies": "lifo"}, "unknown policy"),
        ({"policies": []}, "nothing to search for"),
        ({"arrivals": Process(kind="poisson", rate=1.0)}, "brings its arrivals"),
    ],
)
def test_what_cannot_be_asked_is_one_line(more: dict[str, Any], message: str) -> None:
    with pytest.raises(ds.InputError, match=message):
        capacity(WORK, SMALL, **{"slos": "ttft=100ms", "jobs": 1, **more})


def test_what_has_no_load_is_refused() -> None:
    backlog = WorkloadSpec(kind="backlog", requests=9, prompt_tokens=8, output_tokens=8)
    with pytest.raises(ds.InputError, match="a backlog has no load"):
        capacity(backlog, SMALL, slos="ttft=1s")
    with pytest.raises(ds.InputError, match="backlog_rate"):
        capacity(ds.Workload.generated(WORK), SMALL, slos="ttft=1s")  # type: ignore[arg-type]
    with pytest.raises(ds.InputError, match="how its requests should arrive"):
        capacity("traces/smollm2-cpu-backlog", slos="ttft=1s")
    with pytest.raises(ds.InputError, match="draws any number"):
        capacity("traces/smollm2-cpu-drift", slos="ttft=1s", requests=361)
    with pytest.raises(ds.InputError, match="give one"):
        capacity(WORK, slos="ttft=1s")


# -- runs


def test_a_search_goes_on_where_it_was_killed_and_comes_to_the_same(tmp_path: Path) -> None:
    """On one process or two, in one go or in two."""

    def search(
        store: Path, told: Callable[[int, int], None] = lambda done, total: None, jobs: int = 1
    ) -> ds.CapacityResult:
        return capacity(WORK, SMALL, **QUICK | {"jobs": jobs}, store=store, progress=told)

    class KilledError(Exception):
        pass

    def kill(done: int, total: int) -> None:
        assert done <= total
        if done >= 8:
            raise KilledError

    whole = search(tmp_path / "whole", jobs=2)
    with pytest.raises(KilledError):
        search(tmp_path / "cut", kill)
    before = len(Store.open(tmp_path / "cut").keys())
    assert 8 <= before < len(Store.open(tmp_path / "whole").keys())
    again = search(tmp_path / "cut")
    assert again.document() == whole.document()
    mark = {file.name for file in (tmp_path / "cut").glob("rows-*")}
    assert search(tmp_path / "cut").document() == whole.document()
    assert {file.name for file in (tmp_path / "cut").glob("rows-*")} == mark  # nothing was run again


def test_a_class_is_a_policy() -> None:
    class Last(ds.Keyed):
        def key(self, job: ds.Job) -> float:
            return -job.request.arrival

    result = capacity(WORK, SMALL, policies=[Last], **QUICK | {"jobs": 0, "replications": 1})
    assert result.frame()["policy"].iloc[0].endswith("Last")


# -- what binds


def shares(settings: dict[str, Any], gap: float, **columns: Any) -> dict[str, float]:
    """What a run of 60 requests, one every ``gap`` seconds, says of the limits of an engine."""
    model = {"prefill_token_s": columns.pop("prefill_token_s", 0.0)}
    policy = columns.pop("policy", "fifo")
    made = workload((np.arange(60) * gap).tolist(), columns.pop("outputs", [20] * 60), **columns)
    scenario = Scenario(profile=profile(engine(**settings), **model), policy=policy)
    return limit_shares(simulate(scenario, made, record_steps=True), scenario)


@pytest.mark.parametrize("policy", ["fifo", "stock"])
@pytest.mark.parametrize(
    ("binds", "settings", "gap", "columns"),
    [
        ("slots", {"max_num_seqs": 2}, 0.01, {}),
        ("kv", {"max_num_seqs": 32, "kv_blocks": 12, "max_model_len": 64}, 0.01, {"max_tokens": 20}),
        ("budget", {"max_num_seqs": 64, "max_num_batched_tokens": 64}, 0.02, {"prompt_tokens": 100}),
        ("prefill", {"max_num_seqs": 64}, 0.5, {"prompt_tokens": 60, "prefill_token_s": 0.008, "outputs": [5] * 60}),
        ("steps", {"max_num_seqs": 64}, 0.5, {}),
    ],
)  # fmt: skip
def test_each_limit_that_binds_is_named(
    binds: str, settings: dict[str, Any], gap: float, columns: dict[str, Any], policy: str
) -> None:
    found = shares(settings, gap, **columns, policy=policy)
    assert binding(found) == binds, found
    assert all(0 <= value <= 1 for value in found.values())
    if binds in ("slots", "kv"):
        others = {"slots", "kv"} - {binds}
        assert all(found[f"{name}_share"] < 0.1 for name in others), found


def test_a_capacity_names_what_binds_beyond_it() -> None:
    answer = capacity(WORK, SMALL, **QUICK | {"replications": 1}).answers[0]
    assert answer.binds == "slots"
    assert answer.found.beyond >= 1.08 * answer.found.load
    assert not answer.found.search.held[answer.found.beyond]
    scenario = Scenario(profile=SMALL)
    run = simulate(scenario, ds.Workload.generated(WORK.changed(rate=answer.found.beyond), 0), record_steps=True)
    assert limit_shares(run, scenario, middle(run, 0.1, 0.05)) == answer.found.shares
    assert "beyond it the slots bind: all are taken in" in capacity(WORK, SMALL, **QUICK).answer()[0]


def test_slots_are_those_of_the_dispatcher_where_it_has_fewer() -> None:
    made = workload((np.arange(60) * 0.01).tolist(), [20] * 60)
    scenario = Scenario(profile=profile(engine(max_num_seqs=64)), max_in_flight=2)
    found = limit_shares(simulate(scenario, made, record_steps=True), scenario)
    assert binding(found) == "slots"
    assert found["slots_share"] > 0.9


def test_full_slots_hold_nobody_back_while_nobody_waits() -> None:
    scenario = Scenario(profile=profile(engine(max_num_seqs=2)))
    made = workload([0.0, 0.0, 0.6], [50, 50, 5])
    found = limit_shares(simulate(scenario, made, record_steps=True), scenario)
    assert found["waiting_share"] == found["slots_share"] == 0
    assert binding(found) == "steps"


def test_a_run_without_steps_says_nothing_of_limits() -> None:
    made = workload([0.0, 0.1], [3, 3])
    scenario = Scenario(profile=profile())
    found = limit_shares(simulate(scenario, made), scenario)
    assert set(found) == {f"{name}_share" for name in SHARES}
    assert all(math.isnan(value) for value in found.values())
    assert binding(found) == ""


# -- the command line


def test_a_newcomer_asks_for_fifo_and_sjf_on_a_trace(shipped: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run = driftsim(
        "capacity", str(shipped), "--slo", "ttft=20s", "--target", "0.8", "--policies", "fifo,sjf", "--replications",
        "4", "--tolerance", "0.05", "--requests", "100", "--jobs", "1", "--out", str(out),
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert "fifo/static: up to" in run.stdout
    assert "95 % interval" in run.stdout
    assert sorted(file.name for file in out.iterdir()) == [
        "capacity.csv", "capacity.json", "capacity.png", "capacity.svg", "loads.csv",
    ]  # fmt: skip
    rows = pd.read_csv(out / "capacity.csv")
    assert list(rows["policy"]) == ["fifo", "sjf"]
    assert not (rows["load"] < rows["load_low"]).any()  # an end that no load has shown is empty
    assert not (rows["load"] > rows["load_high"]).any()
    tried = pd.read_csv(out / "loads.csv")
    for policy, load in zip(rows["policy"], rows["load"], strict=True):
        own = tried[tried["policy"] == policy]
        assert by_definition(dict(zip(own["load"], own["held"], strict=True))) == load
    document = json.loads((out / "capacity.json").read_text())
    assert document["answer"][0].startswith("fifo/static: up to")
    again = driftsim("capacity", str(shipped), "--slo", "ttft=20s", "--out", str(tmp_path))
    assert again.returncode == 2


def test_a_newcomer_asks_about_a_table(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    arrivals = np.cumsum(random.exponential(0.5, 80))
    table = pd.DataFrame({"arrived": arrivals, "in": 20, "out": random.integers(5, 40, 80)})
    table.to_csv(tmp_path / "log.csv", index=False)
    (tmp_path / "m.toml").write_text('[columns]\narrival_s = "arrived"\nprompt_tokens = "in"\noutput_tokens = "out"\n')
    SMALL.save(tmp_path / "p.json")
    run = driftsim(
        "capacity", str(tmp_path / "log.csv"), "--mapping", str(tmp_path / "m.toml"), "--profile",
        str(tmp_path / "p.json"), "--slo", "ttft=100ms", "--target", "0.9", "--replications", "3", "--jobs", "1",
        "--json",
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout)["capacity"][0]["state"] == "found"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--slo", "ttft=2"], "has no unit"),
        (["--slo", "gold:ttft=2s"], "no request has"),
        (["--slo", "ttft=-2s"], "must be above 0"),
        (["--slo", "ttft=nan"], "is no time in s or ms"),
        (["--slo", ""], "'' is no limit; write"),
        (["--slo", ":ttft=2s"], "SLO ':ttft=2s': names nobody before the colon"),
        (["--slo", "ttft=2s,ttft=3s"], "limits ttft twice"),
        (["--slo", "ttft=2s", "--slo", "ttft=3s"], "driftsim: everybody has two SLOs; put all limits into one\n"),
        ([], "there is none; give one"),
        (["--slo", "ttft=2s", "--target", "1"], "above 0 and below 1"),
        (["--slo", "ttft=2s", "--kv-blocks", "4,x"], "'x' is no whole number"),
        (["--slo", "ttft=2s", "--axis", "kv"], "is no axis"),
        (["--slo", "ttft=2s", "--kv-blocks", "9", "--axis", "engine.kv_blocks=9"], "given twice"),
        (["--slo", "ttft=2s", "--axis", "policy=sjf,fifo"], "policy is no axis: --policies"),
        (["--slo", "ttft=2s", "--axis", "seed=1,2"], "seed is no axis: every search has the same requests"),
        (["--slo", "ttft=2s", "--cv", "2"], "belongs to --arrivals gamma"),
        (["--slo", "ttft=2s", "--arrivals", "backlog"], "a backlog has no load"),
        (["--slo", "ttft=2s", "--address", "tcp://x:1", "--jobs", "2"], "--jobs does nothing here"),
    ],
)
def test_wrong_words_exit_2_with_one_line(words: list[str], message: str, shipped: Path) -> None:
    run = driftsim("capacity", str(shipped), *words)
    assert run.returncode == 2
    assert message in run.stderr
    assert len(run.stderr.strip().splitlines()) == 1
