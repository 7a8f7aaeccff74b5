"""READMEs and docs: what code produces in them is what is stored, what is stored is what the code computes today."""

from __future__ import annotations

import json
import runpy
import sys
import warnings
from pathlib import Path

import pandas as pd
import pytest

from driftsim.calibration.calibrate import fit_profile
from driftsim.comparison.plan import DEFAULT_SETTINGS, ComparisonPlan
from driftsim.comparison.runs import compare
from driftsim.trace.trace import digest, read
from driftsim.workloads.replay import replay
from experiments import accuracy, estimation_error, measured_policies, remake, sweep_cost
from experiments.speed import __main__ as speed

ROOT = remake.ROOT
DATA = ROOT.parent / "shared" / "data"


@pytest.mark.parametrize("file", remake.documents(), ids=lambda file: str(file.relative_to(ROOT)))
def test_generated_blocks_hold_what_is_stored(file: Path) -> None:
    text = file.read_text()
    assert remake.with_blocks(text) == text


def test_every_block_that_is_made_is_shown_somewhere_and_closed() -> None:
    text = "".join(file.read_text() for file in remake.documents())
    for name in remake.BLOCKS:
        assert text.count(f"<!-- {name} -->") == text.count(f"<!-- end {name} -->") > 0, name


def test_the_demo_that_is_printed_is_what_compare_computes(shipped: Path) -> None:
    stored = json.loads((remake.DEMO / "comparison.json").read_text())
    trace = read(shipped)
    assert stored["trace_digest"] == digest(shipped)
    plan = ComparisonPlan(profile=fit_profile(trace, digest(shipped)), settings=DEFAULT_SETTINGS, replications=1)
    for now, then in zip(compare(replay(trace), plan).rows(), stored["rows"], strict=True):
        for metric in ("e2e_mean_s", "e2e_p99_s", "ttft_mean_s", "mae", "rmse", "kendall_tau", "waiting_fraction"):
            assert now[metric] == pytest.approx(then[metric], rel=1e-6), (now["policy"], metric)


def test_the_errors_in_the_readme_are_what_the_experiment_computes(shipped: Path) -> None:
    stored = pd.read_csv(estimation_error.STORED).to_dict("records")
    for now, then in zip(estimation_error.rows(read(shipped), replications=1), stored, strict=True):
        assert (now["accounting"], now["base"], now["scored"]) == (then["accounting"], then["base"], then["scored"])
        taus = [name for name in now if name.startswith("kendall_tau")]
        assert len(taus) == 5
        for metric in ("mae_off", "mae_on", "rmse_off", "rmse_on", *taus):
            assert now[metric] == pytest.approx(then[metric], rel=1e-6)


def test_the_measured_effects_in_the_readme_are_what_the_traces_say() -> None:
    stored = pd.read_csv(measured_policies.STORED)
    result = measured_policies.compared()
    assert json.loads(measured_policies.NOTES.read_text()) == [*result.warnings, *result.notes()]
    now = measured_policies.rows(result)
    assert list(now["policy"]) == list(stored["policy"])
    for column in ("value", "change", "low", "high", "adjusted", "adjusted_low", "adjusted_high", "p", "slope"):
        assert now[column].tolist() == pytest.approx(stored[column].tolist(), rel=1e-6, abs=1e-12, nan_ok=True), column
    assert now["star"].tolist() == stored["star"].tolist()


def test_the_accuracy_in_the_readme_is_what_the_shipped_runs_say() -> None:
    now = accuracy.compute().rows()
    for name, numbers in {
        "cells": ("measured", "error", "spread"),
        "changes": ("measured", "simulated", "difference_paired_low", "difference_adjusted_high", "explained"),
        "ranks": ("concordant", "discordant", "ties"),
    }.items():
        stored = pd.read_csv(accuracy.STORED / f"{name}.csv")
        for column in numbers:
            found = [row[column] for row in now[name]]
            assert found == pytest.approx(stored[column].tolist(), rel=1e-6, abs=1e-9), (name, column)
    stored = pd.read_csv(accuracy.STORED / "changes.csv")
    assert [row["verdict"] for row in now["changes"]] == stored["verdict"].tolist()


@pytest.mark.skipif(not DATA.is_dir(), reason="the public run is not at hand")
def test_the_public_run_in_the_readme_is_what_the_experiment_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRIFTSIM_DATA", str(DATA))
    file = accuracy.data()
    assert file is not None
    stored = json.loads((accuracy.STORED / "public.json").read_text())
    now = accuracy.public(file)
    assert [row["error"] for row in now] == pytest.approx([row["error"] for row in stored], abs=1e-4)
    errors = {(row["metric"], row["stat"]): abs(row["error"]) for row in stored}
    assert errors["makespan", "mean"] < 0.03
    assert errors["e2e", "mean"] < 0.04


def test_the_stored_speed_meets_its_targets() -> None:
    stored = json.loads(speed.STORED.read_text())
    assert {name: stored[name] for name, limit in speed.TARGETS.items() if stored[name] > limit} == {}


def test_the_stored_cost_of_a_sweep_meets_its_targets() -> None:
    stored = json.loads(sweep_cost.STORED.read_text())
    requests = stored["runs"] * stored["requests_a_run"]
    assert requests == 2_000_000
    # 60 s on two cores where a bare timeout takes 0.6 us, in timeouts
    assert 2 * stored["wall_s"] / requests <= 100 * 1e-6 * stored["timeout_us"]
    assert stored["efficiency"] >= 0.85
    assert stored["overhead_ms"] <= 5
    assert stored["driver_memory_growth_mb"] < 10
    assert stored["driver_rows_per_s"] >= 1000


@pytest.mark.parametrize(
    "module",
    ["accuracy", "capture_overhead", "estimation_error", "first_principles", "in_flight", "league", "measured_policies",
     "remake", "speed", "sweep_cost", "value_of_prediction"],
)  # fmt: skip
def test_no_experiment_begins_by_mistake(
    module: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [module, "--quik"])
    with warnings.catch_warnings(action="ignore", category=RuntimeWarning), pytest.raises(SystemExit) as stop:
        runpy.run_module(f"experiments.{module}", run_name="__main__", alter_sys=True)  # as python -m does
    assert stop.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"experiments.{module}: error: unrecognized arguments: --quik"
