"""Delays, reach and set-up of a run, and its resamples, on tables that can be followed with a finger."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from driftsim.calibration.coverage import extent, extrapolation_warnings, mismatch_warnings
from driftsim.calibration.overheads import gap, lags
from driftsim.latency.noise import Noise
from driftsim.latency.profile import Coverage
from driftsim.scheduling.admission import Admission
from driftsim.simulation.as_measured import as_measured, settings_as_told, simulate_as_measured
from driftsim.simulation.run import simulate
from driftsim.simulation.scenario import Barrier, Scenario
from driftsim.tiers import tier_rules
from driftsim.trace.header import Phase
from driftsim.trace.trace import Trace
from driftsim.workloads.resampling import REACH, Resampling, resample
from tests.strategies import engine, profile, workload

WAITED, LATE, STALLED = 6, 9, 9  # blocks of 100 s each


def shaped(rows: list[dict[str, Any]], **header: Any) -> Trace:
    """A trace of finished requests with the columns of ``rows``."""
    count = len(rows)
    run = simulate(Scenario(profile=profile()), workload([0.0] * count, [2] * count))
    table = run.requests.assign(**{str(name): column for name, column in pd.DataFrame(rows).items()})
    return Trace(run.header.changed(**header), table)


def served(arrival: float, dispatch: float, finish: float, received: float) -> dict[str, float]:
    queued = dispatch + received
    return {"arrival_s": arrival, "dispatch_s": dispatch, "queued_s": queued, "scheduled_s": queued,
            "first_token_s": queued + 0.001, "finish_s": finish}  # fmt: skip


def blocks() -> tuple[Trace, pd.DataFrame]:
    """Two slots. In some blocks one waits for a slot and gets it 0.5 s late; the other delays say nothing of that."""
    rows, starts = [], []
    for number in range(WAITED + LATE + STALLED):
        begin = 100.0 * number
        rows.append(served(begin, begin, begin + 10, 0.2))
        if number < WAITED:
            rows.append(served(begin, begin + 0.5, begin + 50, 2.0))
            rows.append(served(begin + 1, begin + 10.5, begin + 60, 2.0))
        elif number < WAITED + LATE:  # comes when the slot has long been free
            rows.append(served(begin, begin + 0.5, begin + 50, 2.0))
            rows.append(served(begin + 12, begin + 15, begin + 60, 2.0))
        else:  # one slot was free all the time, and the dispatcher slept
            rows.append(served(begin + 5, begin + 15, begin + 60, 2.0))
        starts.append(begin + 0.2)
    steps = pd.DataFrame({"start_s": starts, "duration_s": 59.8, "decode_requests": 1})
    return shaped(rows, max_in_flight=2), steps


def test_the_lag_of_a_refill_is_told_by_those_who_waited_for_a_slot_that_was_taken() -> None:
    trace, steps = blocks()
    notify, submit = lags(trace, steps)
    assert notify == pytest.approx(0.5)
    assert submit == pytest.approx(0.2)  # to an idle core; a busy one takes what came at its next step
    few = replace(trace, requests=trace.requests[trace.requests["arrival_s"] > 100 * (WAITED - 4) - 1])
    assert lags(few, steps) == pytest.approx((0.2, 0.2))  # four waited: too few, so that the submit lag stands for it
    free = replace(trace, header=trace.header.changed(max_in_flight=None))
    assert lags(free, steps)[0] == pytest.approx(0.2)


def test_where_no_core_was_idle_the_smallest_delay_is_the_submit_lag() -> None:
    trace, steps = blocks()
    busy = pd.DataFrame({"start_s": [0.0], "duration_s": [1e6], "decode_requests": [1]})
    assert lags(trace, busy)[1] == pytest.approx(0.2)
    held = replace(trace, requests=trace.requests[trace.requests["queued_s"] - trace.requests["dispatch_s"] > 1])
    assert lags(held, steps)[1] == pytest.approx(2.0)


def test_the_gap_is_between_steps_while_somebody_decodes() -> None:
    steps = pd.DataFrame(
        {"start_s": [0.0, 1.1, 9.0, 10.3], "duration_s": [1.0, 1.0, 1.0, 1.0], "decode_requests": [0, 2, 0, 1]}
    )
    assert gap(steps) == pytest.approx(0.2)  # 0.1 and 0.3; the idle spell before 9.0 is none


def test_the_reach_of_a_run_is_in_requests_and_tokens_at_once() -> None:
    first = {"arrival_s": 0.0, "scheduled_s": 0.0, "first_token_s": 1.0, "finish_s": 10.0}
    rows = [
        first | {"prompt_tokens": 90, "output_tokens": 10},
        first | {"scheduled_s": 5.0, "finish_s": 15.0, "prompt_tokens": 30, "output_tokens": 20},
        first
        | {"scheduled_s": np.nan, "first_token_s": 10.0, "finish_s": 20.0, "prompt_tokens": 20, "output_tokens": 10},
        first | {"prompt_tokens": 500, "output_tokens": 0},
    ]  # fmt: skip
    trace = shaped(rows)
    reasons = pd.Series(["stop", "length", "stop", "error"], dtype=object)
    trace = replace(trace, requests=trace.requests.assign(finish_reason=reasons))
    assert extent(trace) == (2, 150)  # the third comes as the first leaves; the last did not finish
    for seen, words in (
        (Coverage(running=2, context_tokens=150, prefill_tokens=9), []),
        (Coverage(running=1, context_tokens=140, prefill_tokens=9), ["2 requests at once"]),
        (Coverage(running=2, context_tokens=100, prefill_tokens=9), ["150 KV tokens"]),
    ):
        warned = extrapolation_warnings(profile(seen=seen), trace)
        assert len(warned) == len(words)
        assert all(word in warning for word, warning in zip(words, warned, strict=True))


def test_another_model_is_said_and_an_unknown_one_is_no_other() -> None:
    trace = shaped([served(0, 0, 1, 0.1)], model="small", hardware="unknown")
    assert mismatch_warnings(profile(model="small", hardware="unknown"), trace) == []
    [other] = mismatch_warnings(profile(model="large", hardware="unknown"), trace)
    assert "another model than the trace: large, not small" in other
    [silent] = mismatch_warnings(profile(model="small", hardware="GPU"), trace)
    assert "does not tell its hardware; the profile is of GPU" in silent


# -- a recorded run is repeated as it was set up


def test_a_run_is_repeated_under_its_own_policy_limit_seed_and_switches() -> None:
    plan: dict[str, Any] = {"policy": "sjf", "estimator": "ema", "max_in_flight": 3, "seed": 11}
    own = Scenario(profile=profile(), admission=Admission(alpha=0.3, short=99), **plan)
    trace = simulate(own, workload([0.0, 1.0, 2.0, 3.0, 4.0], [9, 2, 7, 3, 4]))
    scenario, work = as_measured(trace, profile(submit_lag_s=0.1))
    assert {name: getattr(scenario, name) for name in plan} == plan
    assert (scenario.admission.alpha, scenario.admission.short) == (0.3, 99)
    assert scenario.profile.submit_lag_s == 0.0  # these arrivals are receipts
    assert work.table["output_tokens"].tolist() == [9, 2, 7, 3, 4]
    assert as_measured(trace, profile(), seed=5)[0].seed == 5
    late = replace(trace, requests=trace.requests.assign(queued_s=trace.requests["queued_s"] + 0.01))
    assert as_measured(late, profile(submit_lag_s=0.1))[0].profile.submit_lag_s == 0.1


def test_settings_that_an_engine_did_not_tell_are_the_known_ones_but_never_too_small_for_the_run() -> None:
    recorded = engine(kv_blocks=500, max_model_len=300, block_size=8, max_num_seqs=7,
                      assumed=("kv_blocks", "max_model_len", "block_size"))  # fmt: skip
    told = settings_as_told(recorded, engine(kv_blocks=400, max_model_len=900, block_size=32, max_num_seqs=9))
    assert (told.kv_blocks, told.max_model_len, told.block_size, told.max_num_seqs) == (500, 900, 32, 7)


# -- the main loop's messages


def times(**scenario: Any) -> dict[str, Any]:
    lagging = profile(engine(max_num_seqs=1), notify_lag_s=0.003, submit_lag_s=0.002, output_lag_s=0.001)
    run = simulate(Scenario(profile=lagging, **scenario), workload([0.0, 0.0], [2, 2]))
    names = ("dispatch_s", "queued_s", "first_token_s", "finish_s")
    return {name: pytest.approx(run.requests[name].tolist()) for name in names}


def test_a_dispatch_a_receipt_and_an_end_each_take_their_lag() -> None:
    """Steps of 10 ms, two for each request, one slot: the second goes when the first's end has been heard of."""
    assert times() == {
        "dispatch_s": [0.0, 0.025], "queued_s": [0.002, 0.027],
        "first_token_s": [0.013, 0.038], "finish_s": [0.023, 0.048],
    }  # fmt: skip
    assert times(refill_lag=False) == {
        "dispatch_s": [0.0, 0.02], "queued_s": [0.0, 0.02], "first_token_s": [0.011, 0.031], "finish_s": [0.021, 0.041],
    }  # fmt: skip


def test_a_batch_s_worker_fetches_its_jobs_itself() -> None:
    lagging = profile(notify_lag_s=0.3, submit_lag_s=0.2)
    barrier = Barrier(batch_size=1, fill_s=0.0, idle_s=0.0)
    run = simulate(Scenario(profile=lagging, barrier=barrier), workload([0.0, 0.0], [2, 2]))
    assert run.requests["finish_s"].tolist() == pytest.approx([0.02, 0.04])


def test_words_shrink_with_an_output_that_is_cut_in_the_trace_and_for_the_estimator() -> None:
    admission = Admission(accounting="whitespace", alpha=1.0, base_table={"short_qa": 4.0}, input_scale=1e9)
    work = workload([0.0, 9.0], [10, 3], output_words=[8, 3], max_tokens=[5, 64])
    run = simulate(Scenario(profile=profile(), admission=admission, estimator="ema"), work)
    assert run.requests["output_tokens"].tolist() == [5, 3]
    assert run.requests["output_words"].tolist() == [4, 3]
    assert run.requests["bias"].tolist() == [1.0, 1.0]  # 4 words where 4 were expected


def test_an_end_at_the_limit_is_a_stop_where_it_was_one_and_nothing_is_missing() -> None:
    work = workload([0.0] * 4, [5, 5, 9, 3], max_tokens=[5, 5, 5, 64], stops=[True, False, True, False])
    run = simulate(Scenario(profile=profile()), work)
    assert run.requests["finish_reason"].tolist() == ["stop", "length", "length", "stop"]


def test_what_was_cut_is_told_as_cut_and_what_was_given_up_is_not_learned_from() -> None:
    """Under pooled, an output cut at its limit is a lower bound: the next estimate is larger than for a whole one."""

    def second(most: int, stops: bool) -> int:
        work = workload(
            [0.0] * 12 + [9.0],
            [20] * 9 + [60, 80, 100, 5],
            max_tokens=[most] * 9 + [500] * 4,
            stops=[stops] * 12 + [True],
        )
        run = simulate(Scenario(profile=profile(engine(max_num_seqs=12)), estimator="pooled"), work)
        return int(run.requests["estimate"].iloc[-1])

    assert second(20, stops=False) > second(20, stops=True) == second(400, stops=False)
    patient = workload([0.0, 9.0], [50, 3], patience_s=[0.1, np.nan])
    run = simulate(Scenario(profile=profile(), estimator="ema"), patient)
    assert run.requests["finish_reason"].tolist() == ["abort", "stop"]
    assert run.requests["bias"].tolist() == [1.0, 1.0]


def test_a_client_who_gives_up_leaves_the_queue_at_once_and_the_engine_at_the_next_step() -> None:
    one = profile(engine(max_num_seqs=1), submit_lag_s=0.0)
    work = workload([1.0, 1.01, 1.02], [9, 9, 2], patience_s=[0.045, 0.03, np.nan])
    rows = simulate(Scenario(profile=one), work).requests
    assert list(rows["finish_reason"]) == ["abort", "abort", "stop"]
    assert rows["finish_s"].tolist() == pytest.approx([1.05, 1.04, 1.07])
    assert rows["output_tokens"].tolist() == [5, 0, 2]
    assert rows["dispatch_s"].tolist() == pytest.approx([1.0, np.nan, 1.05], nan_ok=True)
    barrier = Barrier(batch_size=1, fill_s=0.0, idle_s=0.0)
    batches = simulate(Scenario(profile=one, barrier=barrier), work).requests
    assert list(batches["finish_reason"]) == ["stop", "abort", "stop"]  # a batch is served to its end
    filling = barrier.changed(batch_size=2, fill_s=0.1)
    alone = simulate(Scenario(profile=one, barrier=filling), workload([0.0], [2], patience_s=0.05)).requests
    assert list(alone["finish_reason"]) == ["stop"]  # nor is one taken out of a batch that is being filled


def test_a_user_goes_on_after_an_answer_that_was_not_waited_for() -> None:
    phase = Phase(name="only", kind="closed", requests=3, users=1, think_s=1.0)
    work = workload([0.0] * 3, [9, 9, 2], (phase,), patience_s=[0.045, 0.03, np.nan])
    rows = simulate(Scenario(profile=profile(engine(max_num_seqs=1))), work).requests
    assert rows["arrival_s"].tolist() == pytest.approx([0.0, 1.05, 2.08])
    waiting = workload([0.0, 0.0, 0.0], [50, 9, 2], (phase.changed(users=2),), patience_s=[np.nan, 0.03, np.nan])
    queued = simulate(Scenario(profile=profile(engine(max_num_seqs=1))), waiting).requests
    assert queued["arrival_s"].tolist() == pytest.approx([0.0, 0.0, 1.03])  # the second gave up in the queue


def test_a_request_that_never_fits_makes_room_for_the_next_at_once() -> None:
    small = profile(engine(kv_blocks=3, max_num_seqs=1))
    rows = simulate(Scenario(profile=small), workload([0.0, 0.0], [2, 2], prompt_tokens=[40, 8])).requests
    assert list(rows["finish_reason"]) == ["rejected", "stop"]
    assert rows["finish_s"].tolist() == pytest.approx([np.nan, 0.02], nan_ok=True)


def test_safety_factors_of_the_tiers_reach_the_estimates() -> None:
    work = workload([0.0, 0.0], [2, 2], tier=["gold", "tin"], prompt_tokens=8)
    rows = simulate(Scenario(profile=profile(), tiers=tier_rules("gold:1:2.0, tin")), work).requests
    assert rows["estimate"].tolist() == [129, 64]  # 64 x 1.008, twice for gold


# -- resamples


@pytest.mark.parametrize("how", ["circular", "local"])
def test_a_resampled_request_is_a_recorded_one_in_all_but_its_time_and_name(how: Resampling) -> None:
    random = np.random.default_rng(4)
    phases = (Phase(name="one", requests=50), Phase(name="two", requests=31))
    offsets = np.concatenate([np.cumsum(random.exponential(1, 50)), np.cumsum(random.exponential(9, 31))])
    made = workload(
        offsets.tolist(), random.integers(1, 99, 81).tolist(), phases, prompt_tokens=random.integers(1, 99, 81),
        tenant=random.choice(list("abc"), 81), tier=random.choice(["premium", "batch"], 81),
    )  # fmt: skip
    own = [name for name in made.table if name not in ("offset_s", "request_id")]
    recorded = made.table[own].reset_index(drop=True)
    gaps = np.concatenate([np.diff(part, prepend=0.0) for part in (offsets[:50], offsets[50:])])
    for number in (1, 2):
        drawn = resample(made, 3, number, how).table
        picked = drawn["source"].to_numpy()
        assert drawn[own].equals(recorded.iloc[picked].reset_index(drop=True))
        assert (picked[:50] < 50).all()
        assert (picked[50:] >= 50).all()
        shown = drawn["offset_s"].to_numpy()
        assert np.concatenate([np.diff(part, prepend=0.0) for part in (shown[:50], shown[50:])]) == pytest.approx(
            gaps[picked]
        )
        if how == "local":
            assert (np.abs(picked - np.arange(81))[:50] <= 50 / REACH + 7).all()
    draws = {
        (seed, number): tuple(resample(made, seed, number, how).table["source"]) for seed in (3, 4) for number in (1, 2)
    }
    assert len(set(draws.values())) == 4  # another seed and another number each draw another day


@pytest.mark.parametrize("how", ["circular", "local"])
def test_every_request_is_drawn_about_equally_often_the_last_ones_too(how: Resampling) -> None:
    made = workload(np.arange(36.0).tolist(), [1] * 36)
    times = np.zeros(36)
    for number in range(1, 121):
        times += np.bincount(resample(made, 0, number, how).table["source"], minlength=36)
    assert times.sum() == 120 * 36
    if how == "circular":
        assert times == pytest.approx(120, rel=0.4)
    else:  # the ends lie in the reach of fewer blocks
        assert times[-1] > 15
        assert times[0] > 15


@pytest.mark.parametrize("how", ["circular", "local"])
def test_a_resample_is_made_of_blocks_and_the_day_itself_is_none(how: Resampling) -> None:
    made = workload(np.arange(100.0).tolist(), [1] * 100)
    source = resample(made, 0, 1, how).table["source"].to_numpy()
    assert (np.diff(source) % 100 == 1).sum() >= 90  # ten blocks of ten
    assert resample(made, 0, 0, how) is made


# -- what a run writes down


def test_a_run_is_written_in_seconds_with_what_it_was_told_in_its_header() -> None:
    rules = tier_rules("gold,standard")
    work = replace(workload([0.0, 0.5], [3, 2]), notes=("a note",), tiers=rules)
    run = simulate(Scenario(profile=profile(gap_s=0.001), seed=9), work, record_steps=True)
    assert run.steps is not None
    assert run.steps["start_s"].tolist() == pytest.approx([0.0, 0.011, 0.022, 0.5, 0.511])
    assert run.steps["duration_s"].tolist() == pytest.approx([0.01] * 5)
    assert run.requests["dispatch_index"].tolist() == [0, 1]
    header = run.header
    assert (header.notes, header.tiers, header.seed, header.engine.name) == (("a note",), rules, 9, "continuous")
    batches = simulate(Scenario(profile=profile(), barrier=Barrier()), work)
    assert batches.header.engine.name == "microbatch"
    given = simulate(Scenario(profile=profile(), tiers=tier_rules("standard,gold")), work)
    assert [rule.name for rule in given.header.tiers] == ["standard", "gold"]


def test_noise_is_there_where_it_is_asked_for_and_goes_by_the_seed() -> None:
    noisy = profile(noise=Noise(spread=0.3))
    ends = {
        (noise, seed): tuple(
            simulate(Scenario(profile=noisy, noise=noise, seed=seed), workload([0.0, 0.0], [9, 7])).requests["finish_s"]
        )
        for noise in (True, False) for seed in (0, 1)
    }  # fmt: skip
    assert ends[False, 0] == ends[False, 1] == pytest.approx((0.09, 0.07))
    assert len(set(ends.values())) == 3


def test_latencies_count_from_the_receipt_on_both_sides_where_the_recorded_ones_do() -> None:
    work = workload([0.0, 0.013, 0.027], [9, 3, 3])
    run = simulate(Scenario(profile=profile()), work)
    assert run.requests["queued_s"].tolist() == pytest.approx([0.0, 0.02, 0.03])
    received = run.requests.assign(arrival_s=run.requests["queued_s"], dispatch_s=run.requests["queued_s"])
    again = simulate_as_measured(replace(run, requests=received), profile()).requests
    assert again["arrival_s"].tolist() == again["queued_s"].tolist() == pytest.approx([0.0, 0.02, 0.03])
    plain = simulate_as_measured(run, profile()).requests
    assert plain["arrival_s"].tolist() == pytest.approx([0.0, 0.013, 0.027])
