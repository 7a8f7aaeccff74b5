"""Validation: on its own steps a run comes out as it was; a planted difference is found and named."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given

from driftsim.calibrate import fit_profile
from driftsim.run import simulate
from driftsim.scenario import Scenario
from driftsim.trace import FINISHED, LIFE, Trace, TraceError, read
from driftsim.validate import on_measured_steps, on_model_steps, worst
from driftsim.workload import Workload
from tests.commands import driftsim
from tests.conftest import ROOT
from tests.strategies import profile, workload, workloads
from tests.test_laws import scenarios

CAPTURED = sorted(path.parent for path in (ROOT / "traces").rglob("steps.parquet"))


@given(scenarios(), workloads(30))
def test_a_simulated_run_comes_out_of_its_own_steps_as_it_was(scenario: Scenario, made: Workload) -> None:
    trace = simulate(scenario, made, record_steps=True)
    if not trace.requests["finish_reason"].isin(FINISHED).all():
        return
    again = on_measured_steps("t", trace)
    assert again.exceptions is not None
    assert again.exceptions.empty
    assert again.steps_alike == 1.0
    assert worst([again]) < 1e-6


@pytest.mark.parametrize("folder", CAPTURED, ids=lambda folder: "/".join(folder.parts[-2:]))
def test_every_decision_of_a_shipped_run_is_ours(folder: Path) -> None:
    found = on_measured_steps(folder.name, read(folder))
    assert found.exceptions is not None
    assert found.exceptions.empty, found.exceptions
    assert found.steps_alike == 1.0


@pytest.fixture
def run() -> Trace:
    made = workload([0.0, 0.0, 0.05, 0.3], [5, 30, 9, 4], prompt_tokens=[60, 90, 20, 8])
    return simulate(Scenario(profile=profile()), made, record_steps=True)


def test_a_request_that_is_off_is_listed(run: Trace, tmp_path: Path) -> None:
    table = run.requests.copy()
    table.loc[1, "finish_s"] += 0.003
    found = on_measured_steps("t", Trace(run.header, table, run.steps))
    assert found.exceptions is not None
    assert list(found.exceptions["request_id"]) == ["r1"]
    folder = Trace(run.header, table, run.steps).write(tmp_path / "t")
    done = driftsim("validate", folder, "--steps", "measured", "--json")
    assert done.returncode == 1
    assert "1 requests are more than 2 ms off" in done.stderr
    assert json.loads(done.stdout)["exceptions"][0]["request_id"] == "r1"


def test_the_profile_that_made_a_run_predicts_it(run: Trace, tmp_path: Path) -> None:
    found = on_model_steps("t", run, profile())
    assert worst([found]) < 1e-9
    slow = on_model_steps("t", run, profile(intercept_s=0.011))
    row = next(row for row in slow.rows() if (row["metric"], row["stat"]) == ("tpot", "mean"))
    assert row["error"] == pytest.approx(0.1, abs=0.02)
    folder = run.write(tmp_path / "t")
    profile(intercept_s=0.011).save(tmp_path / "p.json")
    command = ["validate", folder, "--profile", tmp_path / "p.json"]
    done = driftsim(*command, "--max-error", "0.05", "--json")
    assert done.returncode == 1
    assert "is above 5 %" in done.stderr
    rows = json.loads(done.stdout)["rows"]
    assert len(rows) == 16
    assert set(rows[0]) == {"trace", "metric", "stat", "unit", "measured", "simulated", "error"}
    assert driftsim(*command, "--max-error", "5").returncode == 0


def test_what_measured_steps_need_is_asked_for(run: Trace) -> None:
    with pytest.raises(TraceError, match="has no steps table"):
        on_measured_steps("t", Trace(run.header, run.requests))
    table = run.requests.copy()
    table.loc[2, list(LIFE[1:])] = float("nan")
    with pytest.raises(TraceError, match="request 'r2' did not finish"):
        on_measured_steps("t", Trace(run.header, table, run.steps))


def test_a_profile_fitted_to_a_run_knows_its_step_times(run: Trace) -> None:
    many = simulate(Scenario(profile=profile()), workload([0.0] * 8, [40] * 8), record_steps=True)
    assert fit_profile(many).intercept_s == pytest.approx(0.010, rel=1e-6)
    assert isinstance(run.requests, pd.DataFrame)
