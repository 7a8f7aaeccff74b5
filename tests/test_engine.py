"""vLLM's scheduling rules, one by one, on engines small enough to follow by hand; a step takes 10 ms."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pandas as pd
import pytest
import simpy

from driftsim.engine.clock import Clock, Moment
from driftsim.simulation.run import simulate
from driftsim.simulation.scenario import Scenario
from driftsim.trace.settings import EngineSettings
from driftsim.trace.trace import Trace
from tests.strategies import engine, profile, workload


def run(settings: EngineSettings, arrivals: list[float], outputs: list[int], **columns: Any) -> Trace:
    """The engine's own order (stock), so that nothing but the engine decides."""
    lags = {name: columns.pop(name) for name in ("gap_s", "notify_lag_s", "submit_lag_s") if name in columns}
    policy = columns.pop("policy", "stock")
    limit = columns.pop("max_in_flight", None)
    scenario = Scenario(profile=profile(settings, **lags), policy=policy, max_in_flight=limit)
    return simulate(scenario, workload(arrivals, outputs, **columns), record_steps=True)


def steps(trace: Trace) -> pd.DataFrame:
    assert trace.steps is not None
    return trace.steps


def in_steps(times: pd.Series) -> list[float]:
    return [round(time / 0.010, 6) for time in times]


def test_n_output_tokens_take_the_prefill_and_n_minus_1_decodes() -> None:
    trace = run(engine(), [0.0], [5])
    assert in_steps(trace.requests["first_token_s"]) == [1]
    assert in_steps(trace.requests["finish_s"]) == [5]
    assert list(steps(trace)["context_tokens"]) == [0, 9, 10, 11, 12]  # prompt of 8, and the token being decoded


def test_an_idle_engine_starts_at_once_and_a_busy_one_takes_arrivals_at_the_step_boundary() -> None:
    trace = run(engine(), [0.003, 0.004], [3, 1])
    assert in_steps(trace.requests["queued_s"]) == [0.3, 1.3]
    assert in_steps(trace.requests["scheduled_s"]) == [0.3, 1.3]


def test_a_long_prompt_is_chunked_and_the_first_token_comes_with_its_last_chunk() -> None:
    trace = run(engine(max_num_batched_tokens=64), [0.0], [2], prompt_tokens=150)
    assert list(steps(trace)["prefill_tokens"]) == [64, 64, 22, 0]
    assert in_steps(trace.requests["first_token_s"]) == [3]
    assert list(steps(trace)["prefill_attention"])[:2] == [64 * 65 / 2, 64 * (64 + 65 / 2)]


def test_decodes_go_before_new_prefills_in_the_token_budget() -> None:
    trace = run(engine(max_num_batched_tokens=64), [0.0, 0.001], [3, 1], prompt_tokens=[8, 100])
    assert list(steps(trace)["decode_requests"]) == [0, 1, 1]
    assert list(steps(trace)["prefill_tokens"]) == [8, 63, 37]  # 64 less the decode, then the rest


def test_long_prefills_are_capped_unless_alone() -> None:
    capped = engine(long_prefill_token_threshold=20)
    assert list(steps(run(capped, [0.0], [1], prompt_tokens=60))["prefill_tokens"]) == [60]
    both = run(capped, [0.0, 0.0], [1, 1], prompt_tokens=[60, 5])
    assert list(steps(both)["prefill_tokens"]) == [25, 40]  # 20 + 5, then alone: the whole rest


def test_without_chunked_prefill_a_prompt_waits_for_a_step_that_takes_it_whole() -> None:
    whole = engine(enable_chunked_prefill=False, max_num_batched_tokens=100, max_model_len=100)
    trace = run(whole, [0.0, 0.0], [2, 2], prompt_tokens=[60, 50])
    assert list(steps(trace)["prefill_tokens"]) == [60, 50, 0]


def test_no_more_run_than_there_are_slots() -> None:
    trace = run(engine(max_num_seqs=2), [0.0, 0.0, 0.0], [4, 2, 1])
    assert list(steps(trace)["running"]) == [2, 2, 2, 1]
    assert in_steps(trace.requests["scheduled_s"]) == [0, 0, 2]


def test_a_slot_and_its_blocks_are_free_for_the_very_next_step() -> None:
    trace = run(engine(max_num_seqs=1, kv_blocks=2), [0.0, 0.0], [2, 2])
    assert in_steps(trace.requests["finish_s"]) == [2, 4]


def test_an_outside_dispatcher_refills_a_slot_one_step_late_and_the_lag_is_a_switch() -> None:
    one_slot = engine(max_num_seqs=2)
    lags = {"notify_lag_s": 0.001, "submit_lag_s": 0.001}
    arrivals, outputs = [0.0, 0.0, 0.0], [2, 9, 1]
    late = run(one_slot, arrivals, outputs, policy="fifo", **lags)
    assert in_steps(late.requests["scheduled_s"]) == pytest.approx([0.1, 0.1, 3.1])  # freed at 2.1, missed that step
    at_once = simulate(
        Scenario(profile=profile(one_slot, **lags), policy="fifo", refill_lag=False), workload(arrivals, outputs)
    )
    assert in_steps(at_once.requests["scheduled_s"]) == [0, 0, 2]


def test_the_head_of_the_queue_blocks_those_behind_it_at_the_kv_gate() -> None:
    # 9 usable blocks of 16: the first takes 5, the second needs 6 and waits, and the small third may not pass it.
    trace = run(engine(kv_blocks=10), [0.0, 0.0, 0.0], [3, 1, 1], prompt_tokens=[64, 90, 4], max_tokens=9)
    assert in_steps(trace.requests["scheduled_s"]) == [0, 3, 4]  # the third waits for budget: 90 > 64, in two chunks


def test_a_prompt_is_admitted_only_if_it_fits_whole_though_its_blocks_are_taken_by_chunks() -> None:
    # 4 usable blocks; the second's first chunk would fit (1 block free), its whole prompt would not.
    trace = run(engine(kv_blocks=5, max_num_batched_tokens=40), [0.0, 0.0], [2, 1], prompt_tokens=[33, 40])
    assert in_steps(trace.requests["scheduled_s"]) == [0, 2]
    assert list(steps(trace)["kv_blocks_used"]) == [3, 3, 3]


def test_the_last_admitted_is_preempted_keeps_its_tokens_and_is_recomputed() -> None:
    # Two prompts of 16 in blocks of 16, 3 usable blocks: at the first decode each needs a second one, one is there.
    trace = run(engine(kv_blocks=4), [0.0, 0.0], [5, 5], prompt_tokens=16)
    requests = trace.requests
    assert list(requests["preemptions"]) == [0, 1]
    assert in_steps(requests["first_token_s"]) == [1, 1]  # shown before the preemption, and kept
    assert list(steps(trace)["preempted"]) == [0, 1, 0, 0, 0, 0, 0, 0, 0]
    # Recompute: 16 prompt tokens and the one shown, in one prefill once the other has left after step 5.
    assert list(steps(trace)["prefill_tokens"]) == [32, 0, 0, 0, 0, 17, 0, 0, 0]
    assert in_steps(requests["finish_s"]) == [5, 9]
    assert in_steps(requests["scheduled_s"]) == [0, 0]  # vLLM keeps the first time


def test_a_step_that_preempted_admits_nobody() -> None:
    # In step 2 the second is preempted, which frees a block; the third, tiny one would fit but is not admitted.
    trace = run(engine(kv_blocks=4), [0.0, 0.0, 0.005], [3, 3, 1], prompt_tokens=[16, 16, 1])
    assert list(steps(trace)["preempted"])[:3] == [0, 1, 0]
    assert in_steps(trace.requests["scheduled_s"])[2] > 2


def test_preempted_requests_resume_in_their_old_order_before_those_who_wait() -> None:
    trace = run(
        engine(kv_blocks=7, max_num_seqs=3), [0.0, 0.0, 0.0, 0.0], [20, 20, 20, 1], prompt_tokens=[30, 30, 30, 2]
    )
    finish = trace.requests["finish_s"]
    assert trace.requests["preemptions"].sum() >= 1
    assert finish[0] <= finish[1] <= finish[2]
    assert trace.requests["scheduled_s"][3] >= finish[0]


def test_a_request_that_can_never_fit_is_rejected_and_counted_not_looped_over() -> None:
    trace = run(engine(kv_blocks=3), [0.0, 0.0, 0.0], [1, 1, 1], prompt_tokens=[33, 600, 8])
    assert list(trace.requests["finish_reason"]) == ["rejected", "rejected", "stop"]
    assert "needs 3 KV blocks for its prompt, the engine has 2" in trace.requests["error"][0]
    assert "max_model_len is 512" in trace.requests["error"][1]


def test_a_request_that_outgrows_the_whole_cache_ends_with_an_error_and_frees_the_queue() -> None:
    trace = run(engine(kv_blocks=2), [0.0, 0.0], [30, 2], prompt_tokens=10)
    assert list(trace.requests["finish_reason"]) == ["error", "stop"]
    assert "has grown to 2 KV blocks, the engine has 1" in trace.requests["error"][0]


def test_output_ends_at_max_tokens_or_at_max_model_len() -> None:
    trace = run(engine(max_model_len=20), [0.0, 0.0], [50, 5], max_tokens=[50, 5])
    assert list(trace.requests["output_tokens"]) == [12, 5]
    assert list(trace.requests["finish_reason"]) == ["length", "length"]


def test_host_gaps_come_between_steps_but_not_before_an_idle_start() -> None:
    trace = run(engine(), [0.0, 0.1], [2, 1], gap_s=0.002)
    assert in_steps(steps(trace)["start_s"]) == [0, 1.2, 10]


@pytest.mark.parametrize(("version", "later"), [("0.32.0", 1), ("0.33.0", 0)])
def test_those_behind_one_that_preempts_itself_wait_a_step_until_0_33(version: str, later: int) -> None:
    # The least urgent needs a second block, of which there is none: it is the last in the order itself.
    settings = engine(version=version, kv_blocks=5, scheduling_policy="priority")
    tiers = ["premium", "batch", "premium", "premium"]
    trace = run(settings, [0.0, 0.0, 0.01, 0.01], [12, 9, 5, 5], prompt_tokens=[2, 14, 8, 8], tier=tiers, max_tokens=12)
    assert trace.requests["preemptions"].tolist() == [0, 1, 0, 0]
    assert in_steps(trace.requests["finish_s"])[2:] == [6 + later, 6 + later]


def test_async_scheduling_decides_a_step_ahead() -> None:
    settings = engine(max_num_seqs=1, async_scheduling=True)
    known = run(settings, [0.0, 0.005], [2, 2], max_tokens=[2, 2])
    assert in_steps(known.requests["finish_s"]) == [2, 4]
    assert len(steps(known)) == 4
    unknown = run(settings, [0.0, 0.005], [2, 2], max_tokens=[9, 9])  # nobody knows that they will end by themselves
    assert in_steps(unknown.requests["finish_s"]) == [2, 5]
    assert len(steps(unknown)) == 6  # each was scheduled once more, in vain


def test_the_last_by_priority_is_preempted_wherever_it_stands() -> None:
    settings = engine(scheduling_policy="priority", kv_blocks=5, block_size=4, max_num_seqs=2)
    first = run(settings, [0.0, 0.001], [9, 9], tier=["batch", "premium"], prompt_tokens=[4, 4], policy="stock")
    assert list(first.requests["preemptions"] > 0) == [True, False]
    fcfs = run(settings.changed(scheduling_policy="fcfs"), [0.0, 0.001], [9, 9], prompt_tokens=[4, 4], policy="stock")
    assert list(fcfs.requests["preemptions"] > 0) == [False, True]


@pytest.mark.parametrize("kind", [simpy.Environment, Clock])
def test_the_clock_runs_as_simpy_s_does(kind: type[simpy.Environment]) -> None:
    clock, seen = kind(), list[float]()

    def ticking() -> Generator[simpy.Event, None, None]:
        for _ in range(3):
            yield clock.timeout(2)
            seen.append(clock.now)

    clock.process(ticking())
    Moment(clock, 3, 0, lambda _: seen.append(-3))
    clock.run(until=5)
    assert seen == [2, -3, 4]
    clock.run()
    assert seen == [2, -3, 4, 6]
    clock.event().fail(RuntimeError("nobody minded"))
    with pytest.raises(RuntimeError, match="nobody minded"):
        clock.run()
