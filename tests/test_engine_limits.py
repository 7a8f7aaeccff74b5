"""The edges of the engine, one by one: the last token that fits, the last block, the last slot, and who goes first."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from driftsim.engine.barrier import BarrierEngine
from driftsim.engine.clock import Clock
from driftsim.engine.decoding import DecodePool
from driftsim.engine.sequence import Sequence
from driftsim.latency.noise import Noise
from driftsim.latency.steptime import LinearStepTime
from driftsim.request import TIERS, Job
from driftsim.simulation.run import simulate
from driftsim.simulation.scenario import Barrier, Scenario
from driftsim.workloads.workload import Workload
from tests.strategies import engine, profile, workload


def served(made: Workload, lags: dict[str, Any] | None = None, steps: bool = False, **settings: Any) -> pd.DataFrame:
    """The requests of a run whose steps take 10 ms, and that hears of everything at once."""
    scenario = Scenario(profile=profile(engine(**settings), **lags or {}), policy="stock", refill_lag=False)
    run = simulate(scenario, made, record_steps=steps)
    if steps:
        assert run.steps is not None
        return run.steps
    return run.requests


def at(rows: pd.DataFrame, name: str) -> list[float]:
    return [round(float(value), 6) for value in rows[name]]


def test_a_prompt_may_be_a_token_shorter_than_the_longest_context_and_as_long_as_the_cache() -> None:
    made = workload([0.0, 1.0, 2.0], [5, 5, 5], prompt_tokens=[63, 64, 60])
    rows = served(made, max_model_len=64, max_num_batched_tokens=64)
    assert list(rows["finish_reason"]) == ["length", "rejected", "length"]
    assert rows["output_tokens"].tolist() == [1, 0, 4]
    assert np.isnan(rows["finish_s"].iloc[1])
    made = workload([0.0, 1.0], [1, 1], prompt_tokens=[64, 65])
    small = served(made, kv_blocks=5, block_size=16, max_num_batched_tokens=128)  # of which one is set aside
    assert list(small["finish_reason"]) == ["stop", "rejected"]


def test_a_better_priority_passes_a_head_that_does_not_fit() -> None:
    """Nine blocks: the first takes seven, the second wants five, the third one, and it is more urgent."""
    made = workload(
        [0.0, 0.015, 0.1], [40, 5, 2], prompt_tokens=[100, 70, 8], tier=["standard", "batch", "premium"],
    )  # fmt: skip
    rows = served(made, scheduling_policy="priority", kv_blocks=10, max_num_batched_tokens=128)
    assert at(rows, "scheduled_s")[2] == 0.1
    assert at(rows, "finish_s")[2] == 0.12
    first = served(made, scheduling_policy="fcfs", kv_blocks=10, max_num_batched_tokens=128)
    assert at(first, "scheduled_s")[2] >= at(first, "scheduled_s")[1] > 0.1


def test_equals_by_priority_go_in_order_of_arrival() -> None:
    made = workload([0.0] * 5, [2, 3, 4, 5, 6], tier=["batch", "premium", "batch", "premium", "batch"])
    rows = served(made, scheduling_policy="priority", max_num_seqs=1)
    assert list(np.argsort(rows["scheduled_s"])) == [1, 3, 0, 2, 4]


def test_an_arrival_joins_at_the_next_boundary_and_at_none_before() -> None:
    """Steps of 10 ms, a gap of 1 ms between them; who comes at a boundary itself still joins there."""
    for arrival, joins in ((0.004, 0.011), (0.011, 0.011), (0.0111, 0.022), (0.0215, 0.022), (0.033, 0.033)):
        rows = served(workload([0.0, arrival], [9, 2]), {"gap_s": 0.001})
        assert at(rows, "scheduled_s") == [0.0, joins], arrival
        assert at(rows, "queued_s") == [0.0, joins], arrival
        assert at(rows, "finish_s") == [round(9 * 0.011 - 0.001, 6), round(joins + 0.021, 6)]
    lone = served(workload([0.0, 0.5], [3, 3]), {"gap_s": 0.001})
    assert at(lone, "finish_s") == [0.032, 0.532]


def test_an_end_frees_slot_and_blocks_for_the_next_step_after_the_gap() -> None:
    rows = served(workload([0.0, 0.0, 0.0], [3, 3, 2]), {"gap_s": 0.001}, max_num_seqs=2)
    assert at(rows, "finish_s") == [0.032, 0.032, 0.054]
    assert at(rows, "scheduled_s") == [0.0, 0.0, 0.033]


def test_steps_tell_what_was_computed_read_and_held() -> None:
    """A prompt of 20 in chunks of 16 beside a decode: the second chunk attends to the first."""
    made = workload([0.0, 0.01], [4, 2], prompt_tokens=[4, 20])
    steps = served(made, steps=True, max_num_batched_tokens=16, block_size=4)
    assert steps["prefill_tokens"].tolist() == [4, 15, 5, 0]
    assert steps["decode_requests"].tolist() == [0, 1, 1, 2]
    assert steps["context_tokens"].tolist() == [0, 5, 6, 7 + 21]
    assert steps["prefill_attention"].tolist() == [4 * 2.5, 15 * 8.0, 5 * (15 + 3), 0.0]
    assert steps["kv_blocks_used"].tolist() == [1, 2 + 4, 2 + 5, 2 + 6]
    assert steps["running"].tolist() == [1, 2, 2, 2]


def test_the_last_of_several_is_preempted_and_comes_back_with_what_it_had() -> None:
    """Six blocks of 4 tokens: three requests of one block each want a second, then a third."""
    made = workload([0.0] * 3, [9, 9, 9], prompt_tokens=4)
    rows = served(made, kv_blocks=7, block_size=4)
    assert rows["preemptions"].tolist() == [0, 0, 1]
    assert rows["output_tokens"].tolist() == [9, 9, 9]
    assert at(rows, "first_token_s") == [0.01] * 3
    assert at(rows, "scheduled_s") == [0.0] * 3
    assert at(rows, "finish_s")[:2] == [0.09] * 2
    # It had shown 5 tokens; a prefill of 4 + 5 and its sampled token, then three more.
    assert at(rows, "finish_s")[2] == 0.13


def test_a_watermark_stays_free_but_not_for_an_empty_engine() -> None:
    made = workload([0.0, 0.0], [4, 4], prompt_tokens=[48, 16])
    rows = served(made, kv_blocks=11, watermark=0.6)  # 10 blocks, 6 to stay free; the first leaves 7
    assert at(rows, "scheduled_s") == [0.0, 0.0]
    rows = served(made, kv_blocks=11, watermark=0.65)  # 7 to stay free
    assert at(rows, "scheduled_s") == [0.0, 0.04]
    large = served(workload([0.0], [4], prompt_tokens=100), kv_blocks=11, watermark=0.5, max_num_batched_tokens=128)
    assert list(large["finish_reason"]) == ["stop"]


def test_a_limit_ends_and_an_end_at_the_same_token_is_at_the_limit() -> None:
    made = workload([0.0] * 3, [5, 5, 4], max_tokens=[4, 5, 5])
    rows = served(made)
    assert list(rows["finish_reason"]) == ["length", "length", "stop"]
    assert rows["output_tokens"].tolist() == [4, 5, 4]


@pytest.mark.parametrize(("patience", "tokens", "end"), [(0.035, 4, 0.04), (0.0401, 5, 0.05), (0.005, 1, 0.01)])
def test_an_abort_takes_effect_at_the_next_boundary_with_what_was_shown(
    patience: float, tokens: int, end: float
) -> None:
    made = workload([0.0, 0.0], [9, 9], patience_s=[patience, np.nan])
    rows = served(made)
    assert (rows["finish_reason"][0], rows["output_tokens"][0], at(rows, "finish_s")[0]) == ("abort", tokens, end)
    assert at(rows, "finish_s")[1] == 0.09
    queued = served(workload([0.0, 0.005], [9, 9], patience_s=[np.nan, 0.002]), max_num_seqs=1)
    assert (queued["finish_reason"][1], queued["output_tokens"][1]) == ("abort", 0)
    assert np.isnan(queued["first_token_s"][1])


def test_with_async_scheduling_a_step_is_decided_while_the_one_before_computes() -> None:
    rows = served(workload([0.0, 0.001], [4, 2]), async_scheduling=True)
    assert at(rows, "scheduled_s") == [0.0, 0.01]  # two steps are in flight; it joins the third
    assert at(rows, "finish_s") == [0.04, 0.04]
    alone = served(workload([0.0], [3]), steps=True, async_scheduling=True)
    assert len(alone) == 4  # what ends by itself is computed once in vain
    assert len(served(workload([0.0], [3], max_tokens=3), steps=True, async_scheduling=True)) == 3
    gone = served(workload([0.0, 0.0], [9, 9], patience_s=[0.035, np.nan]), async_scheduling=True)
    assert (gone["finish_reason"][0], gone["output_tokens"][0]) == ("abort", 4)
    assert at(gone, "finish_s")[1] == 0.09


# -- batches


def batched(made: Workload, **barrier: Any) -> pd.DataFrame:
    settings = {"batch_size": 2, "fill_s": 0.05, "idle_s": 0.0} | barrier
    return simulate(Scenario(profile=profile(), barrier=Barrier(**settings)), made).requests


def test_a_batch_starts_when_it_is_full_or_its_time_is_up_and_ends_with_its_last() -> None:
    rows = batched(workload([0.0, 0.02, 0.03, 0.5], [2, 5, 3, 1]))
    assert at(rows, "finish_s") == [0.07, 0.07, 0.15, 0.56]  # the third fills until 0.12
    assert rows["batch_id"].tolist() == [0, 0, 1, 2]
    assert rows["batch_size"].tolist() == [2, 2, 1, 1]
    assert rows["first_token_s"].isna().all()
    late = batched(workload([0.0, 0.02, 0.03], [9, 5, 3]), fill_s=0.0)
    assert at(late, "finish_s") == [0.09, 0.14, 0.14]


def test_a_worker_that_found_nothing_looks_again_when_its_sleep_is_over() -> None:
    rows = batched(workload([0.25, 1.7], [2, 2]), fill_s=0.0, idle_s=1.0)
    assert at(rows, "dispatch_s") == [1.0, 2.02]  # it slept from 0 and, done at 1.02, from then on
    assert at(rows, "finish_s") == [1.02, 2.04]


def test_ranks_of_the_published_tiers_are_their_order() -> None:
    assert [tier.rank for tier in TIERS] == [1, 2, 3]


def test_noise_is_the_same_whether_the_engine_jumps_or_steps() -> None:
    random = np.random.default_rng(3)
    made = workload(np.cumsum(random.exponential(0.1, 15)).tolist(), random.integers(1, 40, 15).tolist())
    for scheduling in (False, True):
        noisy = profile(engine(async_scheduling=scheduling), noise=Noise(spread=0.3, autocorrelation=0.6))
        scenario = Scenario(profile=noisy, noise=True, seed=2)
        jumped, stepped = (simulate(scenario, made, record_steps=steps).requests for steps in (False, True))
        assert jumped["finish_s"].tolist() == pytest.approx(stepped["finish_s"].tolist(), abs=1e-9)


def test_the_last_token_of_a_recompute_is_a_decode_to_the_engine() -> None:
    """The second loses its blocks after one token; recomputed in chunks of 16, its 17th token is a chunk of one."""
    made = workload([0.0, 0.0, 0.005], [3, 3, 3], prompt_tokens=[16, 16, 8])
    steps = served(made, steps=True, kv_blocks=4, long_prefill_token_threshold=16)
    assert steps["preempted"].sum() == 1
    assert steps["prefill_tokens"].tolist() == [32, 0, 0, 24, 0, 0]
    assert steps["decode_requests"].tolist() == [0, 1, 1, 0, 2, 2]
    assert steps["context_tokens"].tolist()[4] == 17 + 9


def test_decodes_that_need_a_block_get_one_in_order_of_admission_and_the_others_go() -> None:
    """Three blocks, one for each of three prompts: the first alone can go on."""
    steps = served(workload([0.0] * 3, [9, 9, 9], prompt_tokens=4), steps=True, kv_blocks=4, block_size=4)
    assert steps["preempted"].tolist()[:2] == [0, 2]
    assert steps["running"].tolist()[:2] == [3, 1]
    assert steps["kv_blocks_used"].max() == 3


def test_a_victim_by_priority_gives_back_its_blocks_and_its_tokens_of_the_step() -> None:
    """The batch was admitted first, and had its turn in this step before a more urgent one wanted a block."""
    made = workload([0.0, 0.005, 0.005], [9, 9, 9], prompt_tokens=[3, 4, 4], tier=["batch", "premium", "standard"])
    steps = served(made, steps=True, scheduling_policy="priority", kv_blocks=5, block_size=4)
    assert steps["preempted"].tolist()[:3] == [0, 0, 1]
    assert steps["running"].tolist()[2] == 2
    made = workload([0.0, 0.005, 0.006], [9, 9, 2], prompt_tokens=[3, 4, 12], tier=["batch", "premium", "premium"])
    steps = served(
        made, steps=True, scheduling_policy="priority", kv_blocks=5, block_size=4, max_num_batched_tokens=6,
        scheduler_reserve_full_isl=False,
    )  # fmt: skip
    assert steps["prefill_tokens"].tolist()[:3] == [3, 5, 5]
    assert steps["decode_requests"].tolist()[:3] == [0, 1, 1]
    assert steps["preempted"].tolist()[:3] == [0, 0, 1]


def test_an_old_timer_starts_no_new_batch() -> None:
    rows = batched(workload([0.0, 0.01, 0.03], [1, 1, 1]))
    assert at(rows, "finish_s") == [
        0.02,
        0.02,
        0.09,
    ]  # the third fills from 0.03 on, though the first timer ends at 0.05


def test_an_abort_while_the_last_token_is_computed_is_an_abort() -> None:
    made = workload([0.0, 0.0], [3, 9], max_tokens=[3, 9], patience_s=[0.015, np.nan])
    rows = served(made, async_scheduling=True)
    assert list(rows["finish_reason"]) == ["abort", "length"]
    assert rows["output_tokens"].tolist() == [2, 9]
    assert at(rows, "finish_s") == [0.02, 0.09]


def test_who_ends_in_one_step_leaves_in_order_of_admission() -> None:
    pool = DecodePool(4)
    jobs = [workload([0.0], [3]).requests()(0, 0.0) for _ in range(3)]
    sequences = [Sequence(Job(request, "", 0, 0), target) for request, target in zip(jobs, (3, 5, 3), strict=True)]
    for number, sequence in enumerate(sequences):
        sequence.number, sequence.computed, sequence.shown = number, 8, 1
        pool.join(sequence)
    assert pool.context_tokens == 27
    pool.advance(2)
    assert pool.context_tokens == 33
    assert pool.take_finished() == [sequences[0], sequences[2]]
    assert (sequences[0].shown, sequences[0].computed, pool.size) == (3, 10, 1)


def test_a_job_dropped_from_a_batch_that_is_being_filled_is_in_no_batch() -> None:
    clock, left = Clock(), list[Sequence]()
    live = BarrierEngine(
        clock, engine(), LinearStepTime(10, 0, 0, 0), 0, left.extend, batch_size=2, fill=50, idle=0
    )  # fmt: skip
    first, second = (Job(workload([0.0], [3]).requests()(0, 0.0), "", 0, 0) for _ in range(2))
    live.submit(first, 3)
    live.abort(first)
    assert live.room() == 2
    live.submit(second, 3)
    clock.run()
    assert [(sequence.job, sequence.batch) for sequence in left] == [(second, (0, 1))]


def test_who_ends_at_an_instant_is_learned_from_before_those_are_estimated_who_arrive_at_it() -> None:
    made = workload([0.0, 0.03, 0.0300001], [3, 2, 2])
    run = simulate(Scenario(profile=profile(), estimator="ema", refill_lag=False), made)
    assert run.requests["bias"].tolist() == pytest.approx([1.0, 0.925, 0.925])  # 3 of 64 expected, clipped to a quarter
