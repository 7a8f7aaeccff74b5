"""The traces that are shipped: real, quiet, without texts, with drift to correct and a queue to order."""

from __future__ import annotations

from pathlib import Path

import pytest

from driftsim import metrics
from driftsim.calibration.calibrate import fit_profile
from driftsim.live.telemetry import foreign_limit
from driftsim.scheduling.admission import Admission
from driftsim.simulation.run import simulate
from driftsim.simulation.scenario import Scenario
from driftsim.trace.trace import read
from driftsim.workloads.driftsched import NATURAL_CAPS
from driftsim.workloads.replay import replay
from tests.conftest import ROOT, SHIPPED


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: "/".join(folder.parts[-2:]))
def test_a_shipped_trace_is_whole_real_and_quiet(folder: Path) -> None:
    trace = read(folder)
    assert trace.header.kind == "captured"
    assert trace.header.ended == "complete"
    assert trace.header.load is not None
    assert trace.header.load.foreign_cpu_mean <= foreign_limit(trace.header.load.cpu_count)
    assert trace.steps is not None
    assert sum(file.stat().st_size for file in folder.iterdir()) < 1_000_000


def test_the_runs_of_five_policies_served_the_same_requests_five_times() -> None:
    runs = [read(folder) for folder in SHIPPED if folder.parent.name == "smollm2-cpu-policies"]
    policies = sorted(run.header.admission["policy"] for run in runs)
    assert policies == sorted(5 * ["fifo", "priority", "weighted", "sjf", "aging"])
    assert {run.header.admission["estimator"] for run in runs} == {"ema"}
    for run in runs:
        for name in ("request_id", "arrival_s", "prompt_tokens", "output_tokens"):
            assert list(run.requests[name]) == list(runs[0].requests[name])
    order = sorted(runs, key=lambda run: run.header.captured_at or "")
    assert [run.header.admission["policy"] for run in order[:5]] == [
        run.header.admission["policy"] for run in order[5:10]
    ]  # in turns


def test_the_other_runs_are_what_they_are_for() -> None:
    reference, low, small = (
        read(ROOT / "traces" / f"smollm2-cpu-{name}") for name in ("reference", "low-load", "small-kv")
    )
    assert len(reference.finished) >= 300
    assert metrics.choice_fraction(reference.requests) > 0.3
    assert [phase.name for phase in reference.header.workload.phases] == ["learning", "stress"]
    assert metrics.choice_fraction(low.requests) < 0.05
    assert small.requests["preemptions"].sum() > 10


def test_the_demo_trace_has_drift_and_a_queue(shipped: Path) -> None:
    trace = read(shipped)
    assert len(trace.finished) >= 300
    assert set(trace.requests["category"]) == set(NATURAL_CAPS)
    assert (trace.requests["finish_reason"] == "stop").mean() > 0.6  # most outputs end by themselves
    assert metrics.choice_fraction(trace.requests) > 0.3
    assert trace.requests["output_words"].notna().all()


def test_a_simulation_of_the_recorded_run_accounts_for_the_same_work(shipped: Path) -> None:
    trace = read(shipped)
    again = simulate(Scenario(profile=fit_profile(trace)), replay(trace), record_steps=True)
    assert trace.steps is not None
    assert again.steps is not None
    for column in ("prefill_tokens", "decode_requests"):
        assert again.steps[column].sum() == trace.steps[column].sum()
    measured, simulated = (metrics.summary(run, Admission())["makespan_s"] for run in (trace, again))
    # A model fitted to these very steps; what remains is the drift of the machine's speed during the run.
    assert simulated == pytest.approx(measured, rel=0.05)
