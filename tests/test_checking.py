"""The gate: what got worse fails it, noise does not, and what got better is said."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from driftsim.formatting import dumps
from driftsim.latency.profile import load_profile
from driftsim.request import Request
from driftsim.scheduling.estimators import ESTIMATORS, Ema, Estimate
from driftsim.sweeps.baseline import Baseline, Captured, load_baseline, make_baseline
from driftsim.sweeps.gate import GateResult, MetricChange, captured_changes, check_baseline
from driftsim.trace.trace import read
from tests.commands import Run, driftsim
from tests.test_sweep import place

__all__ = ["place"]
GRID = """
[base]
trace = "t"
profile = "p.json"
[grid]
policy = ["fifo", "sjf"]
estimator = ["static", "ema"]
"""


@pytest.fixture
def baseline(place: Path, tmp_path: Path) -> Path:
    """A baseline of four runs, in a folder of its own with what they need."""
    for name in ("t", "p.json"):
        (tmp_path / name).symlink_to(place / name)
    (tmp_path / "g.toml").write_text(GRID)
    file = tmp_path / "base.json"
    made = driftsim("check", tmp_path / "g.toml", "--baseline", file, "--update", "--reason", "the first", "--jobs", 1)
    assert made.returncode == 0, made.stderr
    return file


def check(file: Path, *more: object) -> Run:
    return driftsim("check", "--baseline", file, "--jobs", 1, *more)


def test_a_new_baseline_keeps_every_tolerance_of_the_old(baseline: Path) -> None:
    old = load_baseline(baseline)
    old.changed(tolerance=0.02, captured_tolerance=0.2, tolerances={"mae": 0.5}).save(baseline)
    made = make_baseline(baseline, reason="another", jobs=1)
    assert made == load_baseline(baseline)
    assert (made.tolerance, made.captured_tolerance, made.tolerances) == (0.02, 0.2, {"mae": 0.5})
    assert made.reason == "another"
    assert made.runs == old.runs


def test_the_gate_of_the_door_is_that_of_the_command(baseline: Path) -> None:
    slower(baseline, 1.5)
    result = check_baseline(baseline, jobs=1)
    run = check(baseline, "--json")
    assert run.returncode == 1
    assert json.loads(run.stdout) == json.loads(dumps(result.document()))
    assert len(result.frame()) == len(result.changes)
    assert result.counts in str(result)
    assert "regression" in result._repr_html_()


def test_a_metric_that_was_zero_is_a_regression_that_json_can_hold() -> None:
    appeared = MetricChange("run", "mae", 0.0, 3.0, 0.001, math.inf, math.inf)
    document = json.loads(dumps(GateResult([appeared], "the first").document()))
    assert document["regressions"] == 1
    assert document["moves"][0]["change"] is None


def test_a_captured_metric_that_is_gone_is_a_regression() -> None:
    known = Baseline(reason="r", captured=[Captured(name="a", metrics={"mae": [1.0, 1.1], "rmse": [2.0, 2.1]})])
    changes = captured_changes(known, {"a": {"mae": [1.0, 1.1]}})
    assert {change.metric: change.verdict for change in changes} == {"mae": "same", "rmse": "regression"}


def slower(file: Path, factor: float) -> None:
    """Plant a change: every step takes ``factor`` times as long."""
    profile = load_profile(file.parent / "p.json")
    (file.parent / "p.json").unlink()
    profile.changed(intercept_s=profile.intercept_s * factor).save(file.parent / "p.json")


def test_the_same_code_and_runs_pass_to_the_last_digit(baseline: Path) -> None:
    run = check(baseline, "--json")
    assert run.returncode == 0, run.stderr
    document = json.loads(run.stdout)
    assert document["regressions"] == 0
    assert {move["change"] for move in document["moves"]} == {0.0}
    assert len({move["run"] for move in document["moves"]}) == 4
    assert document["reason"] == "the first"


def test_a_regression_of_two_percent_fails_and_the_worst_comes_first(baseline: Path, tmp_path: Path) -> None:
    slower(baseline, 1.02)
    run = check(baseline, "--junit", tmp_path / "j.xml", "--markdown", tmp_path / "m.md")
    assert run.returncode == 1
    assert "regressions; the worst: " in run.stderr
    assert "regression" in run.stdout
    suite = ElementTree.parse(tmp_path / "j.xml").getroot()
    assert int(suite.attrib["failures"]) == len(suite.findall(".//failure")) > 8
    assert int(suite.attrib["tests"]) == len(suite.findall("testcase"))
    assert "### driftsim check fails" in (tmp_path / "m.md").read_text()
    moves = json.loads(check(baseline, "--json").stdout)["moves"]
    worse = [move["change"] for move in moves if move["verdict"] == "regression"]
    assert worse == sorted(worse, reverse=True)


def test_an_improvement_is_said_and_passes(baseline: Path) -> None:
    content = json.loads(baseline.read_text())
    baseline.write_text(
        json.dumps(content | {"runs": [run for run in content["runs"] if run["name"] == "fifo, static"]})
    )
    slower(baseline, 0.97)
    run = check(baseline)
    assert run.returncode == 0
    assert "0 regressions" in run.stdout
    assert "improvement" in run.stdout


def test_a_regression_of_the_error_fails_though_latency_stays(baseline: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Worse(Ema):
        def estimate(self, request: Request, category: str, now: float) -> Estimate:
            made = super().estimate(request, category, now)
            return replace(made, length=max(1, round(1.1 * made.length)))

    monkeypatch.setitem(ESTIMATORS, "ema", Worse)
    run = check(baseline, "--json")
    assert run.returncode == 1
    moved = {
        (move["run"], move["metric"]) for move in json.loads(run.stdout)["moves"] if move["verdict"] == "regression"
    }
    assert ("fifo, ema", "mae") in moved
    assert not any("static" in name or (name == "fifo, ema" and "e2e" in metric) for name, metric in moved)


def test_tolerances_can_be_set_for_all_and_for_one(baseline: Path) -> None:
    slower(baseline, 1.02)
    content = json.loads(baseline.read_text())
    baseline.write_text(json.dumps(content | {"tolerance": 0.2}))
    assert check(baseline).returncode == 0
    baseline.write_text(json.dumps(content | {"tolerance": 0.2, "tolerances": {"ttft_mean_s": 0.001}}))
    assert check(baseline).returncode == 1
    baseline.write_text(json.dumps(content | {"tolerances": {"speed": 0.1}}))
    run = check(baseline)
    assert run.returncode == 2
    assert "tolerances: 'speed' is no metric" in run.stderr


def test_update_needs_a_reason_and_keeps_it(baseline: Path) -> None:
    slower(baseline, 1.02)
    run = check(baseline, "--update")
    assert run.returncode == 2
    assert "--update needs --reason" in run.stderr
    assert check(baseline, "--update", "--reason", "steps take longer now").returncode == 0
    assert load_baseline(baseline).reason == "steps take longer now"
    assert check(baseline).returncode == 0


@pytest.mark.parametrize(("faster", "code"), [(1.0, 0), (1.15, 1), (0.9, 0)])
def test_captured_repeats_are_compared_by_interval(tmp_path: Path, shipped: Path, faster: float, code: int) -> None:
    recorded = read(shipped)
    random = np.random.default_rng(3)

    def captures(name: str, factor: float) -> list[Path]:
        made = []
        for turn in range(4):
            scale = factor * float(np.exp(random.normal(0, 0.01)))
            rows = recorded.requests.copy()
            for column in ("dispatch_s", "queued_s", "scheduled_s", "first_token_s", "finish_s"):
                rows[column] = rows["arrival_s"] + (rows[column] - rows["arrival_s"]) * scale
            trace = replace(recorded, requests=rows, steps=None, telemetry=None)
            made.append(trace.write(tmp_path / f"{name}-{turn}"))
        return made

    def arguments(folders: list[Path]) -> list[object]:
        return [part for folder in folders for part in ("--captured", folder)]

    file = tmp_path / "captured.json"
    told = driftsim("check", "--baseline", file, "--update", "--reason", "captures", *arguments(captures("then", 1.0)))
    assert told.returncode == 0, told.stderr
    run = driftsim("check", "--baseline", file, *arguments(captures("now", faster)))
    assert run.returncode == code, run.stdout + run.stderr


@pytest.mark.parametrize("policy", ["fifo", "priority", "weighted", "aging", "sjf"])
def test_repeats_of_a_real_capture_are_no_regression(tmp_path: Path, shipped: Path, policy: str) -> None:
    folders = [shipped.with_name("smollm2-cpu-policies") / f"{policy}-{turn}" for turn in range(1, 6)]
    then, now = ([part for folder in half for part in ("--captured", folder)] for half in (folders[::2], folders[1::2]))
    file = tmp_path / "captured.json"
    told = driftsim("check", "--baseline", file, "--update", "--reason", "captures", *then)
    assert told.returncode == 0, told.stderr
    run = driftsim("check", "--baseline", file, *now)
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.startswith("0 regressions, 0 improvements, 16 unchanged")


def test_a_slower_real_capture_is_a_regression(tmp_path: Path, shipped: Path) -> None:
    captures = shipped.with_name("smollm2-cpu-policies")
    then = [part for turn in (1, 2, 3) for part in ("--captured", captures / f"sjf-{turn}")]
    now: list[object] = []
    for turn in (1, 2, 3):  # a change after which the scheduler serves in order of arrival
        recorded = read(captures / f"fifo-{turn}")
        header = recorded.header.changed(admission=recorded.header.admission | {"policy": "sjf"})
        now += ["--captured", replace(recorded, header=header).write(tmp_path / f"now-{turn}")]
    file = tmp_path / "captured.json"
    assert driftsim("check", "--baseline", file, "--update", "--reason", "captures", *then).returncode == 0
    run = driftsim("check", "--baseline", file, *now)
    assert run.returncode == 1, run.stdout + run.stderr
    assert "e2e_p50_s" in run.stdout


def test_a_change_within_its_interval_is_no_regression_however_large() -> None:
    sure, unsure = (MetricChange("r", "e2e_mean_s", 1.0, 1.2, 0.05, low, 0.5) for low in (0.1, -0.1))
    assert (sure.verdict, unsure.verdict) == ("regression", "same")
    assert MetricChange("r", "kendall_tau", 0.5, 0.4, 0.05, -0.2, -0.2).verdict == "regression"
    assert MetricChange("r", "kendall_tau", 0.5, 0.6, 0.05, 0.2, 0.2).verdict == "improvement"
    assert MetricChange("r", "mae", 1.0, float("nan"), 0.05, 0.0, 0.0).verdict == "regression"


def test_a_missing_or_broken_baseline_is_said(tmp_path: Path, baseline: Path) -> None:
    assert "no such baseline; make one with --update" in driftsim("check", "--baseline", tmp_path / "x.json").stderr
    baseline.write_text("{")
    run = check(baseline)
    assert run.returncode == 2
    assert run.stderr.count("\n") == 1
