"""The laws that every policy and every estimator keeps, on random workloads and random engines."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pandas as pd
from hypothesis import assume, given
from hypothesis import strategies as st

from driftsim.engine.prefixes import pieces
from driftsim.engine.sequence import blocks_for
from driftsim.latency.profile import Profile
from driftsim.simulation.run import Simulation, simulate
from driftsim.simulation.scenario import Scenario
from driftsim.trace.schema import FINISH_REASONS, LIFE_TIMES
from driftsim.workloads.workload import Workload
from tests.queues import SLOS
from tests.strategies import admissions, estimators, policies, profiles, workloads


@st.composite
def scenarios(draw: st.DrawFn) -> Scenario:
    return Scenario(
        profile=draw(profiles()),
        policy=draw(policies),
        estimator=draw(estimators),
        admission=draw(admissions()),
        max_in_flight=draw(st.one_of(st.none(), st.integers(1, 8))),
        refill_lag=draw(st.booleans()),
        slos=SLOS,
    )


@given(scenarios(), workloads())
def test_every_request_leaves_exactly_once_and_is_counted(scenario: Scenario, workload: Workload) -> None:
    requests = simulate(scenario, workload).requests
    assert sorted(requests["request_id"]) == sorted(workload.table["request_id"])
    assert requests["finish_reason"].isin(FINISH_REASONS).all()
    done = requests["finish_reason"].isin(("stop", "length"))
    room = scenario.profile.engine.max_model_len - requests["prompt_tokens"]
    expected = np.minimum(workload.table["output_tokens"], room)
    assert (requests["output_tokens"][done] == expected[done]).all()
    assert requests["error"][~done].notna().all()


@given(scenarios(), workloads())
def test_what_cannot_fit_is_turned_away_and_nothing_else_is(scenario: Scenario, workload: Workload) -> None:
    engine = scenario.profile.engine
    requests = simulate(scenario, workload).requests
    prompt, output = requests["prompt_tokens"], workload.table["output_tokens"]
    longest = (prompt + output).clip(upper=engine.max_model_len) - 1  # the last token's KV is never stored
    room = engine.usable_kv_blocks * engine.block_size
    fits = (prompt < engine.max_model_len) & (longest.clip(lower=prompt) <= room)
    finished = requests["finish_reason"].isin(("stop", "length"))
    if engine.slides:  # a window makes room for longer ones
        finished &= fits
    assert (finished == fits).all()


@given(scenarios(), workloads())
def test_no_kv_block_leaks_and_blocks_held_match_contexts(scenario: Scenario, workload: Workload) -> None:
    simulation = Simulation(scenario, workload)
    engine: Any = simulation.engine

    def check(step: tuple[float, ...]) -> None:
        held, runs, blocks = 0, set(), set()
        for sequence in engine.running:
            decodes = sequence.ends >= 0
            computed = engine.pool.step + sequence.offset if decodes else sequence.computed
            held += blocks_for(computed, engine.settings.block_size)
            if engine.windowed is not None:
                held -= sequence.gone + len(sequence.held)  # what has a key may be several sequences'
                blocks |= {block for block in sequence.held.values() if block is not None}
            elif engine.shared is not None:
                held -= sequence.listed
                ends = [*(run.start for run in sequence.held[1:]), sequence.listed]
                for run, end in zip(sequence.held, ends, strict=False):
                    runs |= set(pieces(run, end))
        held += sum(run.end - run.start for run in runs) + len(blocks)
        assert 0 <= engine.free == engine.total - held
        if engine.shared is not None and engine.windowed is None:
            assert all(run.holders for run in runs)
            assert engine.shared.blank + engine.shared.idle >= engine.free

    engine.on_step = check
    simulation.run()
    assert engine.free == engine.total
    assert not engine.running
    if engine.shared is not None and engine.windowed is None:
        assert engine.shared.blank + engine.shared.idle == engine.total


@given(scenarios(), workloads())
def test_tokens_come_in_order_and_after_arrival(scenario: Scenario, workload: Workload) -> None:
    trace = simulate(scenario, workload, record_steps=True)
    trace.check("simulated")  # holds the order of arrival, dispatch, ..., finish
    assert trace.steps is not None
    assert (trace.steps["running"] <= scenario.profile.engine.max_num_seqs).all()
    scheduled = trace.steps["prefill_tokens"] + trace.steps["decode_requests"]
    assert (scheduled <= scenario.profile.engine.max_num_batched_tokens).all()
    assert (scheduled > 0).all()


@given(scenarios(), workloads())
def test_the_engine_works_whenever_it_holds_a_request(scenario: Scenario, workload: Workload) -> None:
    trace = simulate(scenario, workload, record_steps=True)
    assert trace.steps is not None
    served = trace.finished
    lag = scenario.profile.submit_lag_s if scenario.refill_lag else 0.0
    begun = (served["dispatch_s"] + lag).to_numpy()
    finished = served["finish_s"].to_numpy()
    starts, durations = trace.steps["start_s"].to_numpy(), trace.steps["duration_s"].to_numpy()
    ends: list[float] = []
    for start, duration in zip(starts, durations, strict=True):  # async scheduling starts a step before the last ends
        ends.append(max(start, ends[-1] if ends else 0.0) + duration)
    gap = 0.0 if scenario.profile.engine.async_scheduling else scenario.profile.gap_s
    for end, idle_to in zip(ends[:-1], starts[1:], strict=True):
        idle_from = end + gap
        if idle_to - idle_from > 1e-9:
            held = (begun < idle_to - 1e-9) & (finished > idle_from + 1e-9)
            assert not held.any()


@given(scenarios(), workloads())
def test_the_same_scenario_gives_the_same_trace(scenario: Scenario, workload: Workload) -> None:
    first, second = simulate(scenario, workload), simulate(scenario, workload)
    assert first.header == second.header
    pd.testing.assert_frame_equal(first.requests, second.requests, check_exact=True)


@given(scenarios(), workloads(), st.data())
def test_the_future_cannot_change_the_past(scenario: Scenario, workload: Workload, data: st.DataObject) -> None:
    assume(scenario.estimator != "oracle")
    no_peek(scenario, workload, data)


@given(
    profiles(), st.sampled_from(["srpt?share=inf", "past-future", "tie"]), st.sampled_from(["ema", "kaplan-meier"]),
    workloads(patient=False), st.data(),
)  # fmt: skip
def test_nor_can_it_inside_the_engine(
    profile: Profile, policy: str, estimator: str, workload: Workload, data: st.DataObject
) -> None:
    """Estimates in flight go by what was made so far, and by what has ended."""
    plain = profile.changed(engine=profile.engine.changed(scheduling_policy="fcfs", prefill_schedule_interval=1))
    no_peek(Scenario(profile=plain, policy=policy, estimator=estimator, place="inside"), workload, data)


def no_peek(scenario: Scenario, workload: Workload, data: st.DataObject) -> None:
    """Raise if anything before the end of a request depends on how much longer it is."""
    before = simulate(scenario, workload).requests
    row = data.draw(st.integers(0, len(before) - 1))
    end = before["finish_s"].iloc[row]
    assume(before["finish_reason"].iloc[row] in ("stop", "length"))
    longer = workload.table.copy()
    drawn = longer.index == row
    longer.loc[drawn, "output_tokens"] += data.draw(st.integers(1, 30))
    longer.loc[drawn, "output_words"] += 5
    # A cap is known in advance, so it stays what it was; it must leave room to be longer.
    longer["max_tokens"] = workload.table["max_tokens"] + 30
    shorter = workload.table.assign(max_tokens=longer["max_tokens"])
    before = simulate(scenario, dataclasses.replace(workload, table=shorter)).requests
    end = before["finish_s"].iloc[row]
    after = simulate(scenario, dataclasses.replace(workload, table=longer)).requests
    for name in LIFE_TIMES:
        past = before[name] < end
        assert (past == (after[name] < end)).all(), name
        assert (before[name][past] == after[name][past]).all(), name
    arrived = before["queued_s" if scenario.place == "inside" else "arrival_s"] < end  # when it was estimated
    for name in ("estimate", "budget", "bias", "scheduling_class"):
        assert (before[name][arrived] == after[name][arrived]).all(), name


@given(scenarios(), workloads())
def test_no_more_are_in_flight_than_allowed(scenario: Scenario, workload: Workload) -> None:
    requests = simulate(scenario, workload).requests
    if scenario.limit is None:
        assert (requests["dispatch_s"] == requests["arrival_s"]).all()
        return
    inside = requests[requests["finish_s"].notna()]
    moments = inside["dispatch_s"].to_numpy()
    for moment in moments:
        held = (inside["dispatch_s"] <= moment) & (inside["finish_s"] > moment)
        assert held.sum() <= scenario.limit


@given(profiles(), workloads(), estimators)
def test_stock_is_fifo_without_a_limit(profile: Profile, workload: Workload, estimator: str) -> None:
    stock = simulate(Scenario(profile=profile, policy="stock", estimator=estimator), workload).requests
    fifo = simulate(
        Scenario(profile=profile, policy="fifo", estimator=estimator, max_in_flight=10**6), workload
    ).requests
    pd.testing.assert_frame_equal(stock, fifo, check_exact=True)
