"""Validation: on its own steps a run comes out as it was; a planted difference is found and named."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given

from driftsim.calibration.calibrate import fit_profile
from driftsim.errors import InputError, TraceError
from driftsim.latency.noise import Noise
from driftsim.latency.profile import Coverage
from driftsim.simulation.as_measured import as_measured, received_at_arrival
from driftsim.simulation.run import simulate
from driftsim.simulation.scenario import Scenario
from driftsim.trace.schema import FINISHED, LIFE_TIMES
from driftsim.trace.trace import Trace, digest, read
from driftsim.validation.result import validate_runs
from driftsim.validation.validation import COMPOSITION, on_measured_steps, on_model_steps, worst
from driftsim.workloads.workload import Workload
from tests.commands import driftsim
from tests.conftest import ROOT
from tests.strategies import engine, profile, workload, workloads
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
    if "inside-srpt" not in folder.name:
        assert found.steps_alike == 1.0
        return
    assert found.recorded.steps is not None  # of these the recorder did not count who made way
    assert found.simulated.steps is not None
    told = [name for name in COMPOSITION if name != "preempted"]
    pd.testing.assert_frame_equal(found.recorded.steps[told], found.simulated.steps[told])
    assert found.recorded.steps["preempted"].sum() == 0 < found.simulated.steps["preempted"].sum()


@pytest.fixture
def run() -> Trace:
    made = workload([0.0, 0.0, 0.05, 0.3], [5, 30, 9, 4], prompt_tokens=[60, 90, 20, 8])
    return simulate(Scenario(profile=profile()), made, record_steps=True)


def test_a_request_that_is_off_is_listed(run: Trace, tmp_path: Path) -> None:
    table = run.requests.copy()
    table.loc[table.index == 1, "finish_s"] += 0.003
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
    with pytest.raises(InputError, match="is the very run of .*, and no repeat of it; give it once"):
        validate_runs([run, run], None, steps="measured")
    with pytest.raises(TraceError, match="has no steps table"):
        on_measured_steps("t", Trace(run.header, run.requests))
    table = run.requests.copy()
    table.loc[2, list(LIFE_TIMES[1:])] = float("nan")
    with pytest.raises(TraceError, match="request 'r2' did not finish"):
        on_measured_steps("t", Trace(run.header, table, run.steps))


def test_a_profile_fitted_to_a_run_knows_its_step_times(run: Trace) -> None:
    many = simulate(Scenario(profile=profile()), workload([0.0] * 8, [40] * 8), record_steps=True)
    assert fit_profile(many).intercept_s == pytest.approx(0.010, rel=1e-6)
    assert isinstance(run.requests, pd.DataFrame)


def test_noise_gives_an_interval_and_out_keeps_traces_and_figures(run: Trace, tmp_path: Path) -> None:
    folder = run.write(tmp_path / "t")
    profile(intercept_s=0.01, noise=Noise(spread=0.1, autocorrelation=0.5, run_spread=0.05)).save(tmp_path / "p.json")
    out = tmp_path / "out"
    command = ["validate", folder, "--profile", tmp_path / "p.json", "--steps", "noise", "--seeds", 8]
    done = driftsim(*command, "--json", "--out", out)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    found = {(row["metric"], row["stat"]): row for row in document["intervals"]}
    row = next(row for row in document["rows"] if (row["metric"], row["stat"]) == ("e2e", "mean"))
    assert found["e2e", "mean"]["low"] < row["measured"] < found["e2e", "mean"]["high"]
    assert read(out / "t").header.kind == "simulated"
    assert {path.name for path in out.glob("*.svg")} == {"t-quantiles.svg", "t-concurrency.svg", "t-residuals.svg"}
    assert "95 % interval" in driftsim(*command).stdout


def test_each_tenant_has_rows_of_its_own(tmp_path: Path) -> None:
    made = workload([0.0, 0.1, 0.2, 0.3], [5, 6, 7, 8], tenant=["a", "b", "a", "b"])
    folder = simulate(Scenario(profile=profile()), made).write(tmp_path / "t")
    profile(intercept_s=0.011).save(tmp_path / "p.json")
    done = driftsim("validate", folder, "--profile", tmp_path / "p.json", "--json")
    rows = json.loads(done.stdout)["tenants"]
    assert {row["tenant"] for row in rows} == {"a", "b"}
    assert len(rows) == 2 * 12
    assert "t a" in driftsim("validate", folder, "--profile", tmp_path / "p.json", "--by-tenant").stdout


def test_repeats_show_the_noise_floor(tmp_path: Path) -> None:
    for turn, step in enumerate((0.0098, 0.01, 0.0103)):
        simulate(Scenario(profile=profile(intercept_s=step)), workload([0.0, 0.01], [9, 9])).write(
            tmp_path / f"r{turn}"
        )
    profile().save(tmp_path / "p.json")
    folders = [tmp_path / f"r{turn}" for turn in range(3)]
    done = driftsim("validate", *folders, "--profile", tmp_path / "p.json")
    assert "Level of repeated runs: mean error beside the standard deviation" in " ".join(done.stdout.split())
    assert "fifo makespan        3   0.1036    0.1000  -3.4 %       3.8 %" in done.stdout
    document = json.loads(driftsim("validate", *folders, "--profile", tmp_path / "p.json", "--json").stdout)
    assert {cell["repeats"] for cell in document["repeats"]} == {3}
    assert document["changes"] == []  # nothing but FIFO


def test_what_a_profile_has_not_seen_is_said(run: Trace, tmp_path: Path) -> None:
    folder = run.write(tmp_path / "t")
    seen = Coverage(running=1, context_tokens=10, prefill_tokens=8)
    profile(seen=seen, model="another", fitted_on=(digest(folder),)).save(tmp_path / "p.json")
    told = driftsim("validate", folder, "--profile", tmp_path / "p.json").stdout
    assert "requests at once, but the profile has seen 1: it is extrapolated" in told
    assert "fitted to some of these very runs" in told
    assert "the trace does not tell its model; the profile is of another" in told.replace("\n", " ")


def test_a_run_whose_arrivals_are_receipts_counts_from_the_receipt() -> None:
    made = workload([0.0, 0.005, 0.0123], [20, 20, 20])
    whole = simulate(Scenario(profile=profile(), policy="stock"), made)
    table = whole.requests.assign(arrival_s=whole.requests["queued_s"], dispatch_s=np.nan)
    received = Trace(whole.header.changed(admission={}, max_in_flight=None), table)
    assert received_at_arrival(received)
    found = on_model_steps("t", received, profile(submit_lag_s=0.5))  # a client's lag is no part of it
    assert worst([found]) < 1e-9


def test_an_engine_is_simulated_with_its_own_settings_not_with_the_profiles(run: Trace) -> None:
    other = profile(engine(max_num_seqs=1, kv_blocks=5))
    assert worst([on_model_steps("t", run, other)]) < 1e-9
    guessed = run.header.engine.changed(assumed=("max_num_seqs",))
    unsure = Trace(run.header.changed(engine=guessed, max_in_flight=None), run.requests)
    assert as_measured(unsure, other)[0].profile.engine.max_num_seqs == 1
