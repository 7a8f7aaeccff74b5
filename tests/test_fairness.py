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

import driftsim as ds
from driftsim import glossary
from driftsim.metrics import Columns, service_start
from driftsim.simulation.alone import alone_times, sizes_of
from driftsim.simulation.run import simulate
from driftsim.simulation.scenario import Scenario
from driftsim.sweeps.store import Store
from driftsim.tenancy import Service, fairness_summary, jain, largest_gap
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
    """Requests so far apart that each finds the engine empty, on any engine, with lags, chunks and small caches."""
    prompts, outputs = (made.table[name].tolist() for name in ("prompt_tokens", "output_tokens"))
    alone = workload((100.0 * np.arange(len(made))).tolist(), outputs, prompt_tokens=prompts)
    found = fairness_of(alone, Scenario(profile=known))
    finished = not math.isnan(found["slowdown_mean"])
    assert not finished or [found["slowdown_p50"], found["slowdown_p99"]] == pytest.approx([1.0, 1.0], abs=1e-6)
    assert not finished or found["slowdown_mean"] == pytest.approx(1.0, abs=1e-6)


@settings(max_examples=settings().max_examples // 2)
@given(workloads(20))
def test_nobody_is_faster_than_alone_where_a_step_takes_one_time(made: ds.Workload) -> None:
    found = fairness_of(made, Scenario(profile=profile(engine(max_num_seqs=3))))
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


def test_jains_index_of_slowdowns_holds_tenants_against_each_other_and_not_their_lengths() -> None:
    """Alternating tenants of short and long answers on one slot wait alike; that their speeds differ is no unfairness.

    One tenant who waits for nobody, beside one who does, is unfair.
    """
    made = workload([0.0, 100.0, 200.0, 300.0], [2, 200] * 2, tenant=["short", "long"] * 2)
    run = simulate(Scenario(profile=SERVER), made)
    found = fairness_summary(run, alone_times(sizes_of(run.requests), Scenario(profile=SERVER)))
    assert found["jain_slowdown"] == pytest.approx(1.0)
    behind = workload([0.0, 0.0], [9, 9], tenant=["first", "second"])
    assert fairness_of(behind, Scenario(profile=SERVER))["jain_slowdown"] == pytest.approx(jain([1.0, 2.0]))


def test_a_tenant_of_whom_nothing_finished_is_infinitely_slow() -> None:
    made = workload([0.0, 0.0], [5, 5], prompt_tokens=[8, 600], tenant=["fits", "never"])
    found = fairness_of(made, Scenario(profile=profile(engine(max_model_len=512))))
    assert found["jain_slowdown"] == 0.5
    assert math.isnan(found["per_tenant"]["never"]["slowdown_mean"])
    many = workload([0.0] * 30, [5] * 30, prompt_tokens=[8] * 29 + [600], tenant=[f"t{number}" for number in range(30)])
    assert fairness_of(many, Scenario(profile=profile(engine(max_model_len=512))))["jain_slowdown"] == 1 / 30
    assert jain([1.0, 1e12]) == pytest.approx(jain([1.0, math.inf]))


# -- service


def given_at(row: Any, now: float) -> float:
    """Weighted tokens that one request has got strictly before ``now``, and half of what it gets at that moment."""
    start = row.dispatch_s if math.isnan(row.scheduled_s) else row.scheduled_s
    got = 0.0
    for moment, amount in ((start, 1.0 * row.prompt_tokens), (row.first_token_s, 2.0)):
        if not math.isnan(moment):
            got += amount * (now > moment)
    if not math.isnan(row.first_token_s) and not math.isnan(row.finish_s):
        span = row.finish_s - row.first_token_s
        share = (now - row.first_token_s) / span if span > 0 else float(now > row.finish_s)
        got += 2.0 * (row.output_tokens - 1) * min(1.0, max(0.0, share))
    return got


def waits_at(rows: list[Any], now: float) -> bool:
    for row in rows:
        start = row.dispatch_s if math.isnan(row.scheduled_s) else row.scheduled_s
        until = row.finish_s if math.isnan(start) else start
        if row.finish_reason != "rejected" and row.arrival_s <= now < until:
            return True
    return False


@pytest.mark.parametrize("seed", range(8))
def test_gaps_and_shares_are_those_of_a_count_moment_by_moment(seed: int) -> None:
    """All times are on eighths of a second, so that service is looked at just before and just after each of them."""
    trace = random_trace(seed, 24)
    rows = list(trace.requests.itertuples())
    found = fairness_summary(trace, {})
    eighths = np.arange(0, 8 * 60) / 8
    looked = np.sort(np.concatenate([eighths + 1e-7, eighths + 1 / 8 - 1e-7]))
    curves, waiting = {}, {}
    for tenant in "abc":
        mine = [row for row in rows if row.tenant == tenant]
        curves[tenant] = np.array([sum(given_at(row, now) for row in mine) for now in looked])
        waiting[tenant] = np.array([waits_at(mine, now) for now in looked])
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
    weights = rows["prompt_tokens"][rows["tenant"] == "a"].sum() + 2 * rows["output_tokens"][
        (rows["tenant"] == "a") & ~np.isnan(rows["finish_s"])].sum()  # fmt: skip
    begun = ~np.isnan(rows["finish_s"][rows["tenant"] == "a"])
    if begun.all():  # whatever was served stands in the curve
        assert one.jumps.sum() + one.flows.sum() == pytest.approx(weights)


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
