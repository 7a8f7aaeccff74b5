"""The barrier engine: one batch at a time, everybody leaves with the last, and the policy keeps the order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftsim.scheduling.policies import POLICIES
from driftsim.simulation.run import simulate
from driftsim.simulation.scenario import Barrier, Scenario
from driftsim.trace.trace import Trace
from driftsim.workloads.workload import Workload
from tests.queues import SLOS
from tests.strategies import engine, profile, workload, workloads

SLOTS = engine(max_num_seqs=64, max_num_batched_tokens=512, kv_blocks=4000)


def run(made: Workload, policy: str = "fifo", **barrier: float) -> Trace:
    worker = Barrier.model_validate({"idle_s": 0, **barrier})
    scenario = Scenario(profile=profile(SLOTS), policy=policy, barrier=worker, slos=SLOS)
    return simulate(scenario, made)


def test_every_member_leaves_with_the_last_of_its_batch() -> None:
    rows = run(workload([0.0, 0.0, 0.0], [5, 50, 20])).requests
    assert rows["finish_s"].nunique() == 1
    # 10 ms to fill, then a step of prefill and 49 of decoding, 10 ms each.
    assert rows["finish_s"].iloc[0] == pytest.approx(0.010 + 50 * 0.010)
    assert rows["first_token_s"].isna().all()
    assert rows["batch_id"].tolist() == [0, 0, 0]
    assert rows["batch_size"].tolist() == [3, 3, 3]


def test_a_full_batch_starts_at_once_and_the_rest_waits_for_its_end() -> None:
    rows = run(workload([0.0] * 5, [10, 10, 30, 10, 10]), batch_size=3).requests
    assert rows["batch_id"].tolist() == [0, 0, 0, 1, 1]
    assert rows["finish_s"].tolist()[:3] == pytest.approx([0.30] * 3)
    assert rows["dispatch_s"].tolist()[3:] == pytest.approx([0.30] * 2)
    assert rows["finish_s"].tolist()[3:] == pytest.approx([0.30 + 0.010 + 0.10] * 2)


def test_who_comes_while_a_batch_fills_joins_it_and_who_comes_later_does_not() -> None:
    rows = run(workload([0.0, 0.009, 0.011], [10, 10, 10])).requests
    assert rows["batch_id"].tolist() == [0, 0, 1]


def test_a_worker_that_found_nothing_sleeps() -> None:
    rows = run(workload([0.2, 3.5], [10, 10]), idle_s=1.0).requests
    assert rows["dispatch_s"].tolist() == pytest.approx([1.0, 1.0 + 0.110 + 3.0])


def test_the_worker_fetches_its_jobs_itself_whatever_a_dispatcher_would_lag() -> None:
    made = workload([0.2, 3.5] + [3.6] * 4, [10] * 6)
    lagging = profile(SLOTS, notify_lag_s=0.03, submit_lag_s=0.002)
    plain, lagged = (
        simulate(Scenario(profile=each, barrier=Barrier(batch_size=2)), made).requests
        for each in (profile(SLOTS), lagging)
    )
    assert lagged["finish_s"].tolist() == plain["finish_s"].tolist()


def test_a_batch_may_be_larger_than_the_engine_has_slots() -> None:
    narrow = engine(max_num_seqs=2, max_num_batched_tokens=512, kv_blocks=4000)
    rows = simulate(Scenario(profile=profile(narrow), barrier=Barrier()), workload([0.0] * 5, [10] * 5)).requests
    assert rows["batch_size"].tolist() == [5] * 5
    assert rows["finish_s"].nunique() == 1


def test_the_policy_keeps_the_order_of_all_who_wait() -> None:
    lengths = [40, 5, 30, 5, 20]
    made = workload([0.0] + [0.05] * 4, lengths, predicted_category=["short_qa"] + ["report", "short_qa"] * 2)
    order = run(made, "sjf", batch_size=1).requests.sort_values("dispatch_index")["request_id"].tolist()
    assert order == ["r0", "r2", "r4", "r1", "r3"]


@given(workloads(40), st.sampled_from(sorted(POLICIES)), st.integers(1, 8), st.sampled_from([0.0, 1.0]))
def test_batches_never_overlap_and_nobody_is_lost(made: Workload, policy: str, size: int, idle: float) -> None:
    rows = run(made, policy, batch_size=size, idle_s=idle).requests
    assert rows["finish_reason"].notna().all()
    done = rows[rows["finish_reason"].isin(["stop", "length"])]
    assert (done["batch_size"] <= size).all()
    groups = done.groupby("batch_id")
    batches = groups.agg(begin=("dispatch_s", "min"), end=("finish_s", "max"))
    assert (groups["finish_s"].nunique() == 1).all()
    assert (batches["begin"].to_numpy()[1:] >= batches["end"].to_numpy()[:-1] - 1e-9).all()


def test_the_barrier_makes_shortest_first_look_better_than_it_is() -> None:
    random = np.random.default_rng(3)
    outputs = np.where(random.random(300) < 0.5, 10, 150)
    made = workload(
        np.cumsum(random.exponential(0.02, 300)).tolist(),
        outputs.tolist(),
        predicted_category=np.where(outputs < 50, "short_qa", "report"),
    )

    def gain(barrier: Barrier | None) -> float:
        slots = engine(max_num_seqs=8, max_num_batched_tokens=512, kv_blocks=4000)
        medians = [
            float((rows["finish_s"] - rows["arrival_s"]).median())
            for policy in ("fifo", "sjf")
            for rows in [simulate(Scenario(profile=profile(slots), policy=policy, barrier=barrier), made).requests]
        ]
        return medians[1] / medians[0] - 1

    assert gain(Barrier(batch_size=8)) < -0.3
    assert gain(Barrier(batch_size=8)) < gain(None)
