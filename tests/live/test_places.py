"""One policy file in front of real vLLM, as its priorities and inside it; each run is what its simulation decides."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from driftsim.live.plan import CapturePlan
from driftsim.live.resume import CaptureRun
from driftsim.live.session import run_session
from driftsim.scheduling.names import Place
from driftsim.scheduling.plugins import plugin_name
from driftsim.testing import workload
from driftsim.trace.trace import Trace, read
from driftsim.validation.validation import on_measured_steps
from driftsim.workloads.workload import Workload

pytestmark = pytest.mark.live
REQUESTS, SLOTS = 18, 2
OWN = plugin_name(str(Path(__file__).parents[2] / "examples" / "preempting_policy.py") + ":SmallLimitFirst")


def requests() -> Workload:
    """Short outputs of random lengths, behind two long ones that take every slot until the others have come."""
    dice = np.random.default_rng(7)
    outputs, rest = dice.integers(3, 14, REQUESTS), REQUESTS - SLOTS
    outputs[:SLOTS] = 60
    limits, kinds = dice.choice([16, 32], REQUESTS), dice.choice(["short_qa", "summary"], REQUESTS)
    limits[:SLOTS], kinds[:SLOTS] = 128, "summary"
    return workload(
        [0.0] * SLOTS + np.sort(np.round(dice.uniform(0.4, 1.0, rest), 2)).tolist(),
        outputs.tolist(),
        prompt_tokens=dice.integers(5, 60, REQUESTS).tolist(),
        predicted_category=kinds.tolist(),
        max_tokens=limits.tolist(),
    )


def captured(place: Place, policies: tuple[str, ...], folder: Path) -> list[Trace]:
    """A run of each policy on one engine."""
    from driftsim.live.model import smollm2
    from driftsim.live.vllm import VllmEngine

    settings: dict[str, Any] = {"max_num_seqs": SLOTS, "max_num_batched_tokens": 256, "max_model_len": 256}
    order = "priority" if place == "priority" else "fcfs"
    engine = VllmEngine(
        smollm2(), hosts=place == "inside", scheduling_policy=order, enable_prefix_caching=False, **settings
    )
    plans = [CapturePlan(policy=policy, estimator="ema", place=place, force_lengths=True) for policy in policies]
    runs = [CaptureRun(folder / str(number), plan) for number, plan in enumerate(plans)]
    asyncio.run(run_session(engine, lambda _: requests(), runs))
    return [read(run.folder) for run in runs]


def holds_the_order(trace: Trace, key: str, went: str) -> None:
    """Whoever went had the smallest ``key`` of those who were there a moment before."""
    rows, choices = trace.requests, 0
    for _, row in rows.iterrows():
        there = rows[(rows["queued_s"] < row[went] - 0.005) & (rows[went] > row[went])]
        choices += len(there) > 1
        assert not len(there) or row[key] <= there[key].min()
    assert choices > 5  # a queue stood, so that the order was the policy's


@pytest.mark.parametrize(
    ("place", "policies"),
    [("front", ("sjf", OWN)), ("priority", ("sjf", OWN)), ("inside", ("sjf", OWN, "srpt?share=inf", "past-future"))],
)
def test_a_policy_runs_in_all_three_places(place: Place, policies: tuple[str, ...], tmp_path: Path) -> None:
    traces = captured(place, policies, tmp_path)
    for trace in traces:
        assert trace.header.ended == "complete", trace.header.ended_why
        assert trace.header.admission.get("place", "front") == place
        assert trace.header.max_in_flight == (SLOTS if place == "front" else None)
        assert (trace.requests["finish_reason"].isin(("stop", "length"))).all()
        assert trace.requests[["bias", "estimate", "budget"]].notna().all().all()
        validation = on_measured_steps("run", trace)
        assert validation.exceptions is not None
        assert validation.exceptions.empty
        assert validation.steps_alike == 1.0
        if place == "front":
            assert trace.requests["preemptions"].sum() == 0
    if place != "front":
        holds_the_order(traces[0], "budget", "scheduled_s")
    if place == "inside":
        assert traces[1].requests["preemptions"].sum() > 0
        assert traces[2].requests["preemptions"].sum() > 0
