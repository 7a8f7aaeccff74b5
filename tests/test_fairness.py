"""Fairness: slowdown against being alone, service while tenants wait; each against theory or a count by hand."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import driftsim as ds
from driftsim import glossary
from driftsim.comparison import fair
from driftsim.errors import InputError
from driftsim.metrics import service_start
from driftsim.rows import Columns
from driftsim.simulation.alone import alone_times, sizes_of
from driftsim.simulation.run import simulate
from driftsim.simulation.scenario import Scenario
from driftsim.sweeps.store import Store
from driftsim.tenancy import Service, fairness_summary, jain, largest_gap
from driftsim.trace.header import Phase
from driftsim.trace.prefixes import stretches
from driftsim.trace.trace import Trace
from tests.commands import driftsim
from tests.strategies import engine, profile, profiles, workload, workloads
from tests.test_definitions import random_trace

STEP_S = 0.010
SERVER = profile(engine(max_num_seqs=1))


def fairness_of(made: ds.Workload, scenario: Scenario) -> dict[str, Any]:
    run = simulate(scenario, made)
    return fairness_summary(run, alone_times(sizes_of(run.requests), scenario))


# -- slowdown


@settings(max_examples=settings().max_examples // 2)
@given(profiles(), workloads(12))
def test_who_is_alone_is_not_slowed_down(known: ds.Profile, made: ds.Workload) -> None:
    """Requests so far apart that each finds the engine empty, on any engine, with lags, chunks and small caches.

    With prefix caching, what a request finds of its prompt in the cache makes neither it nor its tenant look favoured.
    """
    prompts, outputs = (made.table[name].tolist() for name in ("prompt_tokens", "output_tokens"))
    shared: dict[str, Any] = {"stretches": made.table["stretches"].tolist()} if "stretches" in made.table else {}
    alone = workload((100.0 * np.arange(len(made))).tolist(), outputs, prompt_tokens=prompts, **shared)
    found = fairness_of(alone, Scenario(profile=known))
    finished = not math.isnan(found["slowdown_mean"])
    assert not finished or [found["slowdown_p50"], found["slowdown_p99"]] == pytest.approx([1.0, 1.0], abs=1e-6)
    assert not finished or found["slowdown_mean"] == pytest.approx(1.0, abs=1e-6)


@settings(max_examples=settings().max_examples // 2)
@given(workloads(20), st.booleans())
def test_nobody_is_faster_than_alone_where_a_step_takes_one_time(made: ds.Workload, caches: bool) -> None:
    server = engine(max_num_seqs=3, enable_prefix_caching=caches, block_size=4, max_num_batched_tokens=32)
    found = fairness_of(made, Scenario(profile=profile(server)))
    assert math.isnan(found["slowdown_p50"]) or found["slowdown_p50"] >= 1 - 1e-9


def test_the_mean_slowdown_is_that_of_m_d_1() -> None:
    """1 + load / (2 (1 - load)): Pollaczek and Khinchine's wait over the service time, which all requests share."""
    load = 0.7
    arrivals = np.cumsum(np.random.default_rng(1).exponential(STEP_S / load, 60_000))
    found = fairness_of(workload(arrivals.tolist(), [1] * len(arrivals)), Scenario(profile=SERVER))
    assert found["slowdown_mean"] == pytest.approx(1 + load / (2 * (1 - load)), rel=0.05)


def test_a_batch_that_slows_the_steps_slows_down_who_is_in_it() -> None:
    """Four at once, each of whom adds 5 ms to a step of 10 ms: 30 ms a step in place of 15."""
    known = profile(engine(max_num_seqs=4), decode_request_s=0.005)
    found = fairness_of(workload([0.0] * 4, [101] * 4), Scenario(profile=known))
    assert found["slowdown_mean"] == pytest.approx(30 / 15, rel=0.01)


def test_who_shares_a_prompt_is_not_faster_than_alone() -> None:
    """A prompt of 64 tokens at 1 ms, of which the second request finds 48, in whole blocks: 74 ms and 26 ms."""
    known = profile(engine(enable_prefix_caching=True, block_size=16), prefill_token_s=0.001)
    made = workload(
        [0.0, 5.0], [1, 1], prompt_tokens=64, tenant=["first", "second"], stretches=stretches([-1, 0], [0, 63])
    )
    run = simulate(Scenario(profile=known), made)
    assert run.requests["cached_tokens"].tolist() == [0, 48]
    assert (run.requests["finish_s"] - run.requests["arrival_s"]).tolist() == pytest.approx([0.074, 0.026])
    found = fairness_summary(run, alone_times(sizes_of(run.requests), Scenario(profile=known)))
    assert [own["slowdown_mean"] for own in found["per_tenant"].values()] == pytest.approx([1.0, 1.0])
    compared = ds.compare(
        made, profile=known, policies=["fifo"], estimators=["static"], replications=1, fairness=True, jobs=1
    )
    assert compared.rows()[0]["slowdown_mean"] == pytest.approx(1.0)


@pytest.mark.parametrize("idle_s", [0.0, 0.3, 0.7, 1.0])
def test_behind_a_barrier_alone_is_the_fill_and_the_service_and_a_sleep_of_the_worker_slows_down(idle_s: float) -> None:
    """A batch waits 50 ms to fill, a token takes 10 ms. The second request finds the worker asleep, if it sleeps."""
    barrier = ds.Barrier(fill_s=0.05, idle_s=idle_s)
    scenario = Scenario(profile=profile(), barrier=barrier)
    times = alone_times({(8, tokens, 0) for tokens in (1, 5, 9)}, scenario)
    assert times == pytest.approx({(8, 1, 0): 0.06, (8, 5, 0): 0.10, (8, 9, 0): 0.14})
    run = simulate(scenario, workload([0.0, 1.15], [5, 5]))
    since = 1.15 - 0.10  # the worker looked when the first request ended, and every idle_s from then on
    sleep = -since % idle_s if idle_s else 0.0
    assert ds.fairness(run, profile=profile(), engine=barrier)["slowdown_mean"] == pytest.approx(1 + sleep / 0.10 / 2)


def test_of_a_barriers_run_the_barrier_must_be_given() -> None:
    run = simulate(Scenario(profile=profile(), barrier=ds.Barrier()), workload([0.0], [5]))
    with pytest.raises(InputError, match=r"a barrier's worker served it, .*; give engine=\"barrier\", or the Barrier"):
        ds.fairness(run, profile=profile())
    assert ds.fairness(run, profile=profile(), engine="barrier")["slowdown_mean"] == pytest.approx(1.0)


def test_jains_index_of_slowdowns_holds_tenants_against_each_other_and_not_their_lengths() -> None:
    """Alternating tenants of short and long answers on one slot wait alike; that their speeds differ is no unfairness.

    One tenant who waits for nobody, beside one who does, is unfair.
    """
    made = workload([0.0, 100.0, 200.0, 300.0], [2, 200] * 2, tenant=["short", "long"] * 2)
    run = simulate(Scenario(profile=SERVER), made)
    found = fairness_summary(run, alone_times(sizes_of(run.requests), Scenario(profile=SERVER)))
    assert found["jain_slowdown"] == pytest.approx(1.0)
    behind = workload([0.0, 0.0], [9, 9], tenant=["first", "second"])
    assert fairness_of(behind, Scenario(profile=SERVER))["jain_slowdown"] == pytest.approx(jain([1.0, 1 / 2]))
    three = workload([0.0] * 3, [9] * 3, tenant=["first", "second", "third"])
    assert fairness_of(three, Scenario(profile=SERVER))["jain_slowdown"] == pytest.approx(jain([1.0, 1 / 2, 1 / 3]))


def test_a_tenant_of_whom_nothing_finished_has_no_speed_and_starving_one_more_is_less_fair() -> None:
    made = workload([0.0, 0.0], [5, 5], prompt_tokens=[8, 600], tenant=["fits", "never"])
    found = fairness_of(made, Scenario(profile=profile(engine(max_model_len=512))))
    assert found["jain_slowdown"] == 0.5
    assert math.isnan(found["per_tenant"]["never"]["slowdown_mean"])
    many = workload([0.0] * 30, [5] * 30, prompt_tokens=[8] * 29 + [600], tenant=[f"t{number}" for number in range(30)])
    wide = Scenario(profile=profile(engine(max_model_len=512, max_num_seqs=64, max_num_batched_tokens=512)))
    assert fairness_of(many, wide)["jain_slowdown"] == pytest.approx(29 / 30)
    run = simulate(wide, workload([0.0] * 12, [5] * 12, tenant=list("abcd") * 3))
    alone, indices = alone_times(sizes_of(run.requests), wide), []
    for starved in range(5):
        reasons = np.where(run.requests["tenant"].isin(list("abcd")[:starved]), "abort", run.requests["finish_reason"])
        some = Trace(run.header, run.requests.assign(finish_reason=pd.Series(reasons, dtype=object)))
        indices.append(fairness_summary(some, alone)["jain_slowdown"])
    assert indices[:4] == pytest.approx([1.0, 3 / 4, 2 / 4, 1 / 4])
    assert math.isnan(indices[4])  # nobody has any speed


def test_a_request_that_did_not_finish_takes_from_its_tenants_speed() -> None:
    """Of two requests of b at full speed, one is given up: half of a's speed."""
    run = simulate(Scenario(profile=profile()), workload([0.0, 5.0, 9.0], [5] * 3, tenant=["a", "b", "b"]))
    reasons = pd.Series(["stop", "stop", "abort"], dtype=object)
    some = Trace(run.header, run.requests.assign(finish_reason=reasons))
    alone = alone_times(sizes_of(run.requests), Scenario(profile=profile()))
    assert fairness_summary(some, alone)["jain_slowdown"] == pytest.approx(jain([1.0, 0.5]))


# -- service


def given_at(row: Any, now: float, end: float) -> float:
    """Weighted tokens that one request has got strictly before ``now``; the run ends at ``end``."""
    start = row.dispatch_s if math.isnan(row.scheduled_s) else row.scheduled_s
    got = 0.0
    for moment, amount in ((start, 1.0 * row.prompt_tokens), (row.first_token_s, 2.0)):
        if not math.isnan(moment):
            got += amount * (now > moment)
    finish = row.finish_s if row.finish_reason == "rejected" or not math.isnan(row.finish_s) else end
    if not math.isnan(row.first_token_s) and not math.isnan(finish):
        span = finish - row.first_token_s
        share = (now - row.first_token_s) / span if span > 0 else float(now > finish)
        got += 2.0 * (row.output_tokens - 1) * min(1.0, max(0.0, share))
    return got


def waits_at(rows: list[Any], now: float, end: float) -> bool:
    for row in rows:
        start = row.dispatch_s if math.isnan(row.scheduled_s) else row.scheduled_s
        until = row.finish_s if math.isnan(start) else start
        until = end if math.isnan(until) else until
        if row.finish_reason != "rejected" and row.arrival_s <= now < until:
            return True
    return False


def unfinished(seed: int, count: int = 24) -> Trace:
    """``random_trace``, of whose requests some still wait and some still run when the run ends."""
    trace = random_trace(seed, count)
    draw = np.random.default_rng(seed).random(count)
    waits, runs = (draw < 0.15) & (trace.requests["finish_reason"] != "rejected"), (draw >= 0.15) & (draw < 0.3)
    lost = {name: trace.requests[name].mask(waits) for name in ("dispatch_s", "scheduled_s", "first_token_s")}
    reasons = trace.requests["finish_reason"].mask(waits, "abort")
    finish = trace.requests["finish_s"].mask(waits | runs)
    return Trace(trace.header, trace.requests.assign(finish_s=finish, finish_reason=reasons, **lost))


@pytest.mark.parametrize("phase", ["all", "two"])
@pytest.mark.parametrize("ends", [True, False])
@pytest.mark.parametrize("seed", range(6))
def test_gaps_and_shares_are_those_of_a_count_moment_by_moment(seed: int, ends: bool, phase: str) -> None:
    """All times are on eighths of a second, so that service is looked at just before and just after each of them.

    In a phase, from its first arrival to its last finish, everybody's waiting and everybody's service count.
    """
    trace = random_trace(seed, 24) if ends else unfinished(seed)
    rows = list(trace.requests.itertuples())
    names = ["arrival_s", "dispatch_s", "scheduled_s", "first_token_s", "finish_s"]
    times = trace.requests[names].to_numpy(dtype=float)
    end = float(np.nanmax(times))
    found = fairness_summary(trace, {}, phase)
    own = (trace.requests["phase"] == phase).to_numpy() | (phase == "all")
    left = own & np.isnan(times[:, -1]) & (trace.requests["finish_reason"] != "rejected").to_numpy()
    begin, until = times[own, 0].min(), end if left.any() else np.nanmax(times[own])
    eighths = np.arange(0, 8 * 60) / 8
    looked = np.sort(np.concatenate([eighths + 1e-7, eighths + 1 / 8 - 1e-7]))
    curves, waiting = {}, {}
    for tenant in "abc":
        mine = [row for row in rows if row.tenant == tenant]
        curves[tenant] = np.array([sum(given_at(row, now, end) for row in mine) for now in looked])
        inside = (looked > begin) & (looked < until)
        waiting[tenant] = np.array([waits_at(mine, now, end) for now in looked]) & inside
    gaps = []
    for one, other in itertools.combinations("abc", 2):
        both, gap = waiting[one] & waiting[other], curves[one] - curves[other]
        edges = np.flatnonzero(np.diff(both)) + 1
        spans = zip(np.split(both, edges), np.split(gap, edges), strict=True)
        gaps += [inside.max() - inside.min() for held, inside in spans if held[0]]
    assert found["service_gap"] == pytest.approx(max(gaps), abs=1e-3)
    whole = sum(curves.values())
    for tenant, own in found["per_tenant"].items():
        pairs = waiting[tenant][1:] & waiting[tenant][:-1]
        served = np.diff(curves[tenant])[pairs].sum() / np.diff(whole)[pairs].sum()
        assert own["backlogged_share"] == pytest.approx(served, abs=1e-4)
        assert own["backlogged_s"] == pytest.approx(waiting[tenant].sum() / 16, abs=1e-6)


def test_one_tenants_backlog_served_before_anothers_is_the_gap() -> None:
    """Five of a, then five of b, all there at once, one slot. While both wait, only a is served.

    The first of a is begun at once, before both wait: 2 x 4 tokens of it count. Of the second to the fourth 9 + 2 x 4
    do; of the fifth nothing, since a stops waiting as it is begun.
    """
    made = workload([0.0] * 10, [4] * 10, prompt_tokens=9, tenant=["a"] * 5 + ["b"] * 5)
    found = fairness_of(made, Scenario(profile=SERVER, refill_lag=False))
    assert found["service_gap"] == pytest.approx(3 * 9 + 4 * 2 * 4)
    assert found["per_tenant"]["a"]["backlogged_share"] == 1.0
    turns = workload([0.0] * 10, [4] * 10, prompt_tokens=9, tenant=["a", "b"] * 5)
    assert fairness_of(turns, Scenario(profile=SERVER, refill_lag=False))["service_gap"] <= 2 * (9 + 2 * 4)


def test_tenants_who_all_wait_all_the_time_share_the_service_between_them() -> None:
    made = workload([0.0] * 90, [5, 9, 3] * 30, tenant=["a", "b", "c"] * 30)
    run = simulate(Scenario(profile=SERVER), made)
    last = float(run.requests["scheduled_s"].max())
    keep = run.requests["arrival_s"] <= last
    shares = fairness_summary(Trace(run.header, run.requests[keep]), {})["per_tenant"]
    assert sum(own["backlogged_share"] for own in shares.values()) == pytest.approx(1.0, abs=0.03)


@pytest.mark.parametrize("seed", range(4))
def test_the_gap_is_the_same_from_either_side_and_none_to_oneself(seed: int) -> None:
    rows = Columns.of(random_trace(seed).requests)
    times = np.concatenate([rows["arrival_s"], service_start(rows), rows["first_token_s"], rows["finish_s"]])
    moments = np.unique(times[~np.isnan(times)])
    one, other = (Service.of(rows[rows["tenant"] == name], moments) for name in "ab")
    assert largest_gap(one, other) == pytest.approx(largest_gap(other, one))
    assert largest_gap(one, one) == 0.0


@pytest.mark.parametrize("seed", range(4))
def test_whatever_was_served_stands_in_the_curve(seed: int) -> None:
    """A request that waits to the end got nothing, one that runs to the end what it is known to have."""
    whole = unfinished(seed, 40).requests
    rows = Columns.of(whole[whole["finish_reason"] != "rejected"])
    times = np.concatenate([rows["arrival_s"], service_start(rows), rows["first_token_s"], rows["finish_s"]])
    served = Service.of(rows, np.unique(times[~np.isnan(times)]))
    begun = ~np.isnan(service_start(rows))
    assert 0 < begun.sum() < len(rows)
    assert np.isnan(rows["finish_s"][begun]).any()
    weights = (rows["prompt_tokens"] + 2 * rows["output_tokens"])[begun].sum()
    assert served.jumps.sum() + served.flows.sum() == pytest.approx(weights)


def test_who_still_waits_when_the_run_ends_waited_until_then() -> None:
    """Of b, one is begun at 8 s and one never is; a is served from 0 s to 9 s."""
    run = simulate(
        Scenario(profile=profile()), workload([0.0, 1.0, 2.0], [5] * 3, prompt_tokens=10, tenant=list("abb"))
    )
    some = run.requests.assign(dispatch_s=[0.0, 8.0, np.nan], scheduled_s=[0.0, 8.0, np.nan],
                               first_token_s=[1.0, 8.5, np.nan], finish_s=[9.0, 10.0, np.nan])  # fmt: skip
    own = fairness_summary(Trace(run.header, some), {})["per_tenant"]
    assert own["b"]["backlogged_s"] == pytest.approx(10.0 - 1.0)
    got = {"a": 4 * 2, "b": 10 + 5 * 2}  # but a's prompt and first token, which came before and as b began to wait
    assert own["b"]["backlogged_share"] == pytest.approx(got["b"] / sum(got.values()))


def test_in_a_phase_waiting_behind_an_earlier_phase_is_waiting_in_which_others_were_served() -> None:
    """Two requests of 0.4 s each before a and b, which arrive at 0.05 s and take 0.1 s: a waits 0.75 s, b 0.85 s."""
    phases = (Phase(name="one", requests=2), Phase(name="two", requests=2))
    made = workload([0.0, 0.0, 0.05, 0.05], [40, 40, 10, 10], phases, tenant=["big", "big", "a", "b"])
    run = simulate(Scenario(profile=SERVER, refill_lag=False), made)
    begun = run.requests["scheduled_s"] - run.requests["arrival_s"]
    found = fairness_summary(run, alone_times(sizes_of(run.requests), Scenario(profile=SERVER)), "two")
    own = found["per_tenant"]
    assert [own[name]["backlogged_s"] for name in "ab"] == pytest.approx(begun[2:].tolist())
    assert [own[name]["backlogged_share"] for name in "ab"] == [0.0, 0.0]
    assert own["big"]["backlogged_s"] == pytest.approx(begun[1] - 0.05, abs=1e-6)
    assert math.isnan(own["big"]["slowdown_mean"])  # it has no request in the phase
    with pytest.raises(InputError, match="unknown phase 'three'; choose one of all, one, two"):
        fairness_summary(run, {}, "three")


# -- where it is told


def test_fairness_is_told_by_compare_simulate_a_grid_and_python_alike(tmp_path: Path) -> None:
    draw = np.random.default_rng(3)
    made = workload(np.cumsum(draw.exponential(0.08, 60)).tolist(), draw.integers(1, 30, 60).tolist(),
                    tenant=["a", "b", "b"] * 20)  # fmt: skip
    known = profile(engine(max_num_seqs=2))
    simulate(Scenario(profile=known), made, record_steps=True).write(tmp_path / "t")
    known.save(tmp_path / "p.json")
    (tmp_path / "s.toml").write_text('trace = "t"\nprofile = "p.json"\n')
    (tmp_path / "g.toml").write_text('base = { trace = "t", profile = "p.json", fairness = true }\n')
    result = ds.compare(tmp_path / "t", profile=tmp_path / "p.json", policies=["fifo"], estimators=["static"],
                        replications=1, fairness=True, jobs=1)  # fmt: skip
    row = result.rows()[0]
    run = ds.simulate(tmp_path / "t", profile=known)
    wanted = ds.fairness(run, profile=known)
    names = [metric.name for metric in glossary.FAIRNESS]
    assert {name: row[name] for name in names} == pytest.approx({name: wanted[name] for name in names})
    assert list(wanted) == [*names, "per_tenant"]
    for own in wanted["per_tenant"].values():
        assert list(own) == [metric.name for metric in glossary.TENANT_FAIRNESS]
    ds.sweep(tmp_path / "g.toml", tmp_path / "st", jobs=1)
    table = Store.open(tmp_path / "st").table()
    assert table["jain_slowdown"][0] == pytest.approx(wanted["jain_slowdown"])
    assert table["tenant_b_backlogged_share"][0] == pytest.approx(wanted["per_tenant"]["b"]["backlogged_share"])
    told = driftsim("simulate", tmp_path / "s.toml", "--fairness", "--out", tmp_path / "o")
    assert f"Slowdown: mean {wanted['slowdown_mean']:.2f}" in told.stdout
    assert f"  b: slowdown mean {wanted['per_tenant']['b']['slowdown_mean']:.2f}" in told.stdout
    document = driftsim("simulate", tmp_path / "s.toml", "--fairness", "--json", "--out", tmp_path / "o", "--overwrite")
    assert json.loads(document.stdout)["service_gap"] == pytest.approx(wanted["service_gap"])
    page = result.write(tmp_path / "c") / "report.html"
    assert "What the tenants got" in page.read_text()
    assert pd.read_csv(tmp_path / "c" / "rows.csv")["tenant_b_slowdown_mean"][0] == pytest.approx(
        wanted["per_tenant"]["b"]["slowdown_mean"]
    )


def test_a_comparison_gives_fairness_intervals_that_end_where_it_must(tmp_path: Path) -> None:
    draw = np.random.default_rng(3)
    made = workload(np.cumsum(draw.exponential(0.08, 60)).tolist(), draw.integers(1, 30, 60).tolist(),
                    tenant=["a", "b", "b"] * 20)  # fmt: skip
    known: dict[str, Any] = {"profile": profile(engine(max_num_seqs=2)), "policies": ["fifo", "sjf"],
                             "estimators": ["oracle"], "fairness": True, "jobs": 1}  # fmt: skip
    result = ds.compare(made, replications=5, **known)
    rows = {row["policy"]: row for row in result.rows() if row["estimator"] == "oracle"}
    fifo, sjf = rows["fifo"], rows["sjf"]
    assert {metric.name for metric in glossary.FAIR_COMPARISON} <= sjf.keys()
    for tenant in ("a", "b"):
        assert {metric.name for metric in glossary.TENANT_FAIR_COMPARISON} <= sjf["per_tenant"][tenant].keys()
    assert sjf["slowdown_worst"] == max(own["slowdown_mean"] for own in sjf["per_tenant"].values())
    for metric in glossary.FAIR_METRICS:
        assert 0 <= sjf[f"{metric}_low"] <= sjf[f"{metric}_expected"] <= sjf[f"{metric}_high"] <= glossary.MOST[metric]
    setting = next(one for one in result.plan.settings if one.policy == "sjf")
    changes = result.values(setting, "slowdown_mean") / result.values(result.plan.settings[0], "slowdown_mean") - 1
    assert sjf["slowdown_mean_vs_fifo"] == pytest.approx(result.estimate(changes).centre)
    raw = result.estimate(result.values(setting, "jain_slowdown")).interval
    assert sjf["jain_slowdown_high"] == min(1.0, raw.high)
    assert raw.high > 1
    own = sjf["per_tenant"]["a"]
    shares = result.estimate(result.values(setting, "backlogged_share", "a")).interval
    assert own["backlogged_share_expected"] == shares.value
    assert own["backlogged_share_high"] == min(1.0, shares.high)
    assert fifo["per_tenant"]["a"]["backlogged_share_vs_fifo"] == 0.0
    headings, table = fair.table(result)
    cells = dict(zip(headings, next(row for row in table if row[:3] == ["sjf", "oracle", "a"]), strict=True))
    assert cells["slowdown mean"] == f"{own['slowdown_mean']:.2f}"  # of this run
    expected, low, high = (own[f"slowdown_mean_{end}"] for end in ("expected", "low", "high"))
    assert cells["mean slowdown over days"] == f"{expected:.2f} [{low:.2f}, {high:.2f}]"
    alone = ds.compare(made, replications=1, **known)
    assert fair.table(alone)[0] == fair.HEADINGS
    frame = result.frame()
    assert frame["tenant_a_backlogged_share_high"].iloc[-1] == own["backlogged_share_high"]
    assert "`backlogged_share_high`" in glossary.metric("tenant_a_backlogged_share_high").meaning
    text, page = str(result), (result.write(tmp_path / "c") / "report.html").read_text()
    for told in (f"[{sjf['jain_slowdown_low']:.3f}, {sjf['jain_slowdown_high']:.3f}]", "service gap (tokens)"):
        assert told in text
        assert told in page
    alone = ds.compare(made, replications=1, **known)
    assert "[" not in str(alone).split("What the tenants got")[1].split("Note")[0]
    assert np.isnan(alone.rows()[-1]["jain_slowdown_low"])
