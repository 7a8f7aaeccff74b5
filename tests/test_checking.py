"""The gate: what got worse fails it, noise does not, and what got better is said."""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import shlex
import struct
import subprocess
import sys
import termios
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from driftsim.formatting import dumps, shown_text
from driftsim.latency.profile import load_profile
from driftsim.request import Request
from driftsim.scheduling.estimators import ESTIMATORS, Ema, Estimate
from driftsim.sweeps.baseline import Baseline, BaselineRun, Captured, load_baseline, make_baseline
from driftsim.sweeps.beside import beside_changes, stored_changes
from driftsim.sweeps.changes import MetricChange, ScenarioChange, simulated_changes
from driftsim.sweeps.gate import GateResult, check_baseline
from driftsim.sweeps.gated import FLOORS
from driftsim.sweeps.repeats import Repeat, Shift, detectable_change, repeats_by_name
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
    assert len(result.frame()) == sum(len(scenario.changes) for scenario in result.scenarios) == 4 * 16
    assert result.counts in str(result)
    assert "regression" in result._repr_html_()


def test_a_metric_that_was_zero_is_a_regression_that_json_can_hold() -> None:
    appeared = MetricChange("run", "mae", 0.0, 3.0, 0.001, math.inf, math.inf)
    document = json.loads(dumps(GateResult([ScenarioChange("run", [appeared])], "the first").document()))
    assert document["regressions"] == 1
    assert document["moves"][0]["change"] is None


def test_a_captured_metric_that_is_gone_is_a_regression() -> None:
    known = Baseline(reason="r", captured=[Captured(name="a", metrics={"mae": [1.0, 1.1], "rmse": [2.0, 2.1]})])
    [group] = stored_changes(known, {"a": [Repeat("", {"mae": 1.0}), Repeat("", {"mae": 1.1})]})
    assert {change.metric: change.verdict for change in group.changes} == {"mae": "same", "rmse": "regression"}
    assert "a: rmse is gone, was 2.04939 tokens" in group.sentence()


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
    assert len({move["scenario"] for move in document["moves"]}) == 4
    assert document["reason"] == "the first"


def test_a_regression_of_two_percent_fails_and_the_worst_comes_first(baseline: Path, tmp_path: Path) -> None:
    slower(baseline, 1.02)
    run = check(baseline, "--junit", tmp_path / "j.xml", "--markdown", tmp_path / "m.md")
    assert run.returncode == 1
    assert "scenarios became worse; the worst: " in run.stderr
    assert "regression" in run.stdout
    suite = ElementTree.parse(tmp_path / "j.xml").getroot()
    assert int(suite.attrib["failures"]) == len(suite.findall(".//failure")) == 4
    assert int(suite.attrib["tests"]) == len(suite.findall("testcase")) == 4
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
    moves = json.loads(run.stdout)["moves"]
    moved = {(move["scenario"], move["metric"]) for move in moves if move["verdict"] == "regression"}
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
    assert run.stdout.endswith("0 regressions, 0 improvements, 1 unchanged, of 1 scenario with 16 metrics\n")


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


# -- one verdict a scenario, on lines that nothing cuts

MANY = """
replications = 5
resamples = "circular"
[base]
trace = "t"
profile = "p.json"
requests = 12
[grid]
policy = ["fifo", "sjf", "priority", "aging"]
rate_scale = [1.0, 1.5, 2.0, 2.5, 3.0]
"""


@pytest.fixture(scope="module")
def twenty(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a baseline of 20 scenarios, five replications each."""
    folder = tmp_path_factory.mktemp("many")
    for name in ("t", "p.json"):
        (folder / name).symlink_to(place / name)
    (folder / "g.toml").write_text(MANY)
    make_baseline(folder / "b.json", folder / "g.toml", reason="many", store=folder / "rows", jobs=1)
    return folder


def rows_of(folder: Path, file: str) -> GateResult:
    """What a check of ``file`` comes to; its rows are there already."""
    return check_baseline(folder / file, store=folder / "rows", jobs=1)


def planted(folder: Path, file: str, factor: float, *policies: str, rates: tuple[float, ...] = (1.0,)) -> None:
    """``b.json`` as ``file``, with what was stored of some scenarios divided by ``factor``, all latencies of it."""
    content = json.loads((folder / "b.json").read_text())
    for run in content["runs"]:
        spec = run["scenario"]
        if spec.get("policy", "fifo") in policies and spec.get("rate_scale", 1.0) in rates:
            run["metrics"] |= {name: was / factor for name, was in run["metrics"].items() if name.endswith("_s")}
    (folder / file).write_text(json.dumps(content))


@pytest.mark.parametrize("columns", ["40", "80", "200", ""])
def test_a_regression_in_one_of_twenty_scenarios_is_one_line_that_is_whole_at_any_width(
    twenty: Path, columns: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(twenty)
    planted(twenty, "one.json", 1.2, "sjf")
    arguments = ("check", "--baseline", "one.json", "--store", "rows", "--jobs", 1)
    run = driftsim(*arguments, "--junit", "j.xml", "--markdown", "m.md", **({"COLUMNS": columns} if columns else {}))
    assert run.returncode == 1
    result = rows_of(twenty, "one.json")
    [worse] = result.regressions
    assert worse.name == "sjf, rate_scale 1.0"
    verdicts = [line for line in run.stdout.splitlines() if line.startswith(("regression", "improvement", "same"))]
    assert verdicts == [worse.sentence()]
    named = (worse.name, worse.worst.metric, f"{worse.worst.then:.6g}", f"{worse.worst.now:.6g}", "+20.00 %")
    assert all(part in verdicts[0] for part in named)
    assert "mean of 5 replications, the same way in 5; 12 of 16 metrics became worse" in verdicts[0]
    assert run.stdout.splitlines()[-1].startswith("1 regression, 0 improvements, 19 unchanged, of 20 scenarios")
    suite = ElementTree.parse("j.xml").getroot()
    assert (suite.attrib["tests"], suite.attrib["failures"]) == ("20", "1")
    assert Path("m.md").read_text().count("| regression |") == 1
    for text in (run.stdout, run.stderr, Path("m.md").read_text(), str(result)):
        assert "\u2026" not in text
        assert "+20.00 %" in text
        assert worse.name in text


@pytest.mark.parametrize("width", [40, 80, 200])
def test_a_console_of_any_width_breaks_no_line_of_a_report(twenty: Path, width: int) -> None:
    planted(twenty, "width.json", 1.2, "sjf")
    result = rows_of(twenty, "width.json")
    assert shown_text(result.show, width).splitlines() == result.lines()


def test_a_terminal_of_forty_columns_gets_what_a_file_gets(twenty: Path) -> None:
    planted(twenty, "pty.json", 1.2, "sjf")
    command = [
        sys.executable,
        "-m",
        "driftsim.cli",
        "check",
        "--baseline",
        "pty.json",
        "--store",
        "rows",
        "--jobs",
        "1",
    ]
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 40, 0, 0))
    subprocess.run(command, cwd=twenty, stdout=theirs, stderr=subprocess.DEVNULL, check=False)
    os.close(theirs)
    told = b""
    with contextlib.suppress(OSError):  # the end, on Linux
        while part := os.read(ours, 4096):
            told += part
    os.close(ours)
    expected = rows_of(twenty, "pty.json").lines()
    shown = [line.replace(str(twenty) + "/", "") for line in expected]
    assert told.decode().splitlines() == shown


def test_the_line_that_does_the_worst_again_gives_the_number_of_the_log(
    twenty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(twenty)
    planted(twenty, "it's one.json", 1.2, "sjf", rates=(2.0,))
    asked = ("--baseline", "it's one.json", "--floor", "s=0.0005", "--store", "rows", "--jobs", 1)
    told = driftsim("check", *asked).stdout.splitlines()
    command = shlex.split(told[told.index("To do the worst again:") + 1])
    assert command[:2] == ["driftsim", "check"]
    again = driftsim(*command[1:], "--jobs", 1)
    assert again.returncode == 1
    assert again.stdout.splitlines()[0] == told[0]
    assert again.stdout.splitlines()[-1].endswith("of 1 scenario with 16 metrics")
    assert sum(line.startswith("  regression: +20.00 %") for line in again.stdout.splitlines()) == 12


def test_at_most_ten_scenarios_are_told_and_json_has_all(twenty: Path) -> None:
    planted(twenty, "all.json", 1.2, "fifo", "sjf", "priority", rates=(1.0, 1.5, 2.0, 2.5))
    run = check(twenty / "all.json", "--store", twenty / "rows")
    lines = run.stdout.splitlines()
    assert sum(line.startswith("regression: ") for line in lines) == 10
    assert "and 2 more; --json lists all" in lines
    assert len(lines) == 10 + 1 + 2 + 1
    document = json.loads(check(twenty / "all.json", "--json", "--store", twenty / "rows").stdout)
    assert document["regressions"] == 12
    assert [one["verdict"] for one in document["scenarios"]] == ["regression"] * 12 + ["same"] * 8
    assert len(document["moves"]) == 20 * 16
    assert all(len(move["pairs"]) == 5 for move in document["moves"])
    markdown = rows_of(twenty, "all.json").markdown()
    assert markdown.count("| regression |") == 10
    assert "and 2 more" in markdown


def judged(floors: dict[str, float], then: dict[str, float], *now: dict[str, float]) -> ScenarioChange:
    """A scenario with a replication for each of ``now``, then all alike."""
    runs = [
        BaselineRun(name=f"replication {number}", key=str(number), scenario={"replication": number}, metrics=then)
        for number in range(len(now))
    ]
    known = Baseline(reason="r", runs=runs, floors=floors)
    [scenario] = simulated_changes(known, {run.name: dict(row) for run, row in zip(runs, now, strict=True)})
    return scenario


def test_a_change_below_the_floor_is_none_however_large_in_percent() -> None:
    assert judged(FLOORS, {"tpot_mean_s": 0.001}, {"tpot_mean_s": 0.0014}).verdict == "same"
    assert judged(FLOORS, {"tpot_mean_s": 0.001}, {"tpot_mean_s": 0.0006}).verdict == "same"
    assert judged({"tpot_mean_s": 0.0001}, {"tpot_mean_s": 0.001}, {"tpot_mean_s": 0.0014}).verdict == "regression"
    assert judged({"s": 0.0}, {"tpot_mean_s": 0.001}, {"tpot_mean_s": 0.0014}).verdict == "regression"
    assert judged({}, {"tpot_mean_s": 0.001}, {"tpot_mean_s": 0.0014}).verdict == "same"
    assert judged(FLOORS, {"e2e_mean_s": 1.0}, {"e2e_mean_s": 1.2}).verdict == "regression"
    assert judged(FLOORS, {"mae": 1.0}, {"mae": 1.9}).verdict == "same"
    assert judged(FLOORS, {"mae": 1.0}, {"mae": 2.1}).verdict == "regression"
    assert judged(FLOORS, {"kendall_tau": 0.5}, {"kendall_tau": 0.4}).verdict == "regression"


def test_replications_are_judged_by_their_mean_change() -> None:
    then = {"e2e_mean_s": 10.0}
    assert judged(FLOORS, then, {"e2e_mean_s": 12.0}, {"e2e_mean_s": 8.0}).verdict == "same"
    worse = judged(FLOORS, then, {"e2e_mean_s": 12.0}, {"e2e_mean_s": 9.0}, {"e2e_mean_s": 11.0})
    assert worse.worst.change == pytest.approx(0.2 / 3)
    assert worse.name == "fifo"
    assert "mean of 3 replications, the same way in 2" in worse.sentence()
    failed = judged(FLOORS, then, {"e2e_mean_s": 10.0}, {"failed": True, "error": "KeyError: 'x'"})  # type: ignore[dict-item]
    assert failed.verdict == "regression"
    assert "failed: KeyError: 'x'" in failed.sentence()


def test_floors_are_kept_in_the_baseline_and_can_be_given(baseline: Path) -> None:
    content = json.loads(baseline.read_text())
    assert content.pop("floors") == {"s": 0.001, "tokens": 1.0}
    baseline.write_text(json.dumps(content))  # as one of an older version
    slower(baseline, 1.02)
    assert check(baseline).returncode == 1
    every = ("--floor", "s=1000", "--floor", "tokens=1000", "--floor", "kendall_tau=2", "--floor", "finished=1")
    assert check(baseline, *every).returncode == 0
    assert check(baseline, "--update", "--reason", "floors", "--floor", "s=0.5").returncode == 0
    assert load_baseline(baseline).floors == {"s": 0.5, "tokens": 1.0}
    for floor, said in (("m=1", "'m' is no metric and no unit"), ("s=x", "a number"), ("s=-1", "at least 0")):
        run = check(baseline, "--floor", floor)
        assert run.returncode == 2
        assert said in run.stderr
        assert run.stderr.count("\n") == 1


def test_one_scenario_is_checked_by_its_name_or_its_key(baseline: Path) -> None:
    document = json.loads(check(baseline, "--only", "sjf, ema", "--json").stdout)
    [one] = document["scenarios"]
    assert one["scenario"] == "sjf, ema"
    key = next(run.key for run in load_baseline(baseline).runs if run.name == "sjf, ema")
    assert json.loads(check(baseline, "--only", key[:12], "--json").stdout) == document
    run = check(baseline, "--only", "lifo")
    assert run.returncode == 2
    assert "no scenario is named 'lifo'" in run.stderr


# -- captured runs, beside the old version's or against stored ones


def captures(times: list[int], values: np.ndarray, metric: str = "e2e_mean_s") -> list[Repeat]:
    """Repeats that were captured at these minutes, with these values."""
    return [
        Repeat(f"2026-01-01T{t // 60:02d}:{t % 60:02d}:00Z", {metric: v}) for t, v in zip(times, values, strict=True)
    ]


ALTERNATELY = [0, 3, 4, 7, 8, 11, 12, 15], [1, 2, 5, 6, 9, 10, 13, 14]
MIXED = [0, 1, 4, 5, 6, 9, 11, 12], [2, 3, 7, 8, 10, 13, 14, 15]
LIMITS = Baseline(reason="r")


def found(times: tuple[list[int], list[int]], change: float, runs: int = 500) -> tuple[float, float]:
    """How often a true relative ``change`` is a regression, and the smallest that should be found in 80 % of cases.

    Repeats vary by 4 %; rounds by another 10 %, which pairs do not feel.
    """
    draw = np.random.default_rng(5)
    paired = times is ALTERNATELY
    count, worse = len(times[0]), 0
    shift = Shift(0.0, 0.04 * math.sqrt(2 / count), count - 1 if paired else 2 * count - 2)
    for _ in range(runs):
        rounds = draw.normal(0, 0.1, count) if paired else np.zeros(count)
        then, now = np.exp(rounds + draw.normal(0, 0.04, (2, count)))
        groups = captures(times[0], 50 * then), captures(times[1], 50 * now * (1 + change))
        [group] = beside_changes(LIMITS, {"a": groups[0]}, {"a": groups[1]})
        worse += group.verdict == "regression"
    return worse / runs, detectable_change(shift, "e2e_mean_s", 50.0, LIMITS.captured_tolerance, 0.001)


@pytest.mark.parametrize("times", [ALTERNATELY, MIXED], ids=["paired", "welch"])
def test_what_could_have_been_found_is_found_in_four_of_five_cases(times: tuple[list[int], list[int]]) -> None:
    size, detectable = found(times, 0.0)
    assert size <= 0.05
    assert found(times, 0.05)[0] <= 0.05  # a change of no more than the tolerance
    power, _ = found(times, detectable, runs=1500)
    assert power == pytest.approx(0.8, abs=0.04)


def test_a_whole_group_of_five_rounds_seldom_fails_though_nothing_changed(shipped: Path) -> None:
    """All metrics of a group at once, which vary together as those of the shipped captures do."""
    folders = sorted(shipped.with_name("smollm2-cpu-policies").iterdir())
    groups = repeats_by_name([read(folder) for folder in folders]).values()
    names = list(next(iter(groups))[0].metrics)
    logs = [np.log([[repeat.metrics[name] for name in names] for repeat in group]) for group in groups]
    residuals = np.concatenate([group - group.mean(axis=0) for group in logs])
    spread = residuals.T @ residuals / sum(len(group) - 1 for group in logs)
    draw = np.random.default_rng(8)
    drawn = draw.multivariate_normal(logs[0].mean(axis=0), spread, (400, 2, 5))
    fails = 0
    for run in drawn:
        sides = [
            [Repeat(f"2026-01-01T00:0{2 * n + side}:00Z", dict(zip(names, np.exp(row), strict=True)))
             for n, row in enumerate(group)]
            for side, group in enumerate(run)
        ]  # fmt: skip
        [group] = beside_changes(LIMITS, {"a": sides[0]}, {"a": sides[1]})
        fails += group.verdict == "regression"
    assert fails / len(drawn) <= 0.05


@pytest.mark.parametrize("times", [ALTERNATELY, MIXED], ids=["paired", "welch"])
def test_the_speed_of_the_session_does_not_enter_what_was_captured_beside(times: tuple[list[int], list[int]]) -> None:
    draw = np.random.default_rng(2)
    then, now = np.exp(draw.normal(0, 0.02, (2, 8)))
    verdicts = {}
    for speed in (0.7, 1.0, 1.4):
        groups = captures(times[0], speed * then), captures(times[1], speed * now)
        [beside] = beside_changes(LIMITS, {"a": groups[0]}, {"a": groups[1]})
        stored = LIMITS.changed(captured=[Captured(name="a", metrics={"e2e_mean_s": list(then)})])
        [against] = stored_changes(stored, {"a": groups[1]})
        verdicts[speed] = beside.verdict, against.verdict
        assert beside.worst.change == pytest.approx(math.exp(np.log(now / then).mean()) - 1)
        assert against.foreign
        assert not beside.foreign
    assert verdicts == {0.7: ("same", "improvement"), 1.0: ("same", "same"), 1.4: ("same", "regression")}
    assert against.sentence().startswith("regression or another machine's speed: a: ")


def test_groups_that_were_not_captured_alternately_are_not_paired() -> None:
    values = np.full(4, 2.0)
    for times, said in (
        (([0, 2, 4, 6], [1, 3, 5, 7]), "4 rounds, captured alternately and paired"),
        (([0, 1, 4, 6], [2, 3, 5, 7]), "4 repeats against 4 of the same session, not captured alternately"),
        (([0, 1, 2, 3], [4, 5, 6, 7]), "not captured alternately: a drift of the machine enters"),
    ):
        [group] = beside_changes(LIMITS, {"a": captures(times[0], values)}, {"a": captures(times[1], values)})
        assert said in group.how


def test_a_fall_of_what_ought_to_be_high_is_found_and_told_as_a_fall() -> None:
    now = captures([1, 2, 5, 6], np.array([0.4, 0.41, 0.4, 0.39]), "kendall_tau")
    [group] = beside_changes(LIMITS, {"a": captures([0, 3, 4, 7], np.full(4, 0.5), "kendall_tau")}, {"a": now})
    assert group.verdict == "regression"
    assert group.detectable is not None
    assert -0.3 < group.detectable["kendall_tau"] < -0.05


def test_a_single_repeat_finds_nothing_and_says_so() -> None:
    [group] = beside_changes(LIMITS, {"a": captures([0], np.ones(1))}, {"a": captures([1], np.full(1, 9.0))})
    assert group.verdict == "same"
    report = GateResult([group], "r")
    assert "a single repeat on a side has no spread, so no change could have been found" in str(report)
    assert json.loads(dumps(report.document()))["scenarios"][0]["detectable"] == {"e2e_mean_s": None}


def options(name: str, folders: list[Path]) -> list[object]:
    return [part for folder in folders for part in (name, folder)]


def test_real_captures_are_held_beside_each_other_without_a_baseline(
    tmp_path: Path, shipped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = shipped.with_name("smollm2-cpu-policies")
    monkeypatch.chdir(home)
    then = [Path(f"fifo-{turn}") for turn in range(1, 6)]
    now = []
    for turn in range(1, 6):  # the "new version" of FIFO: every time is half as long again
        recorded = read(home / f"priority-{turn}")
        rows = recorded.requests.copy()
        for column in ("dispatch_s", "queued_s", "scheduled_s", "first_token_s", "finish_s"):
            rows[column] = rows["arrival_s"] + (rows[column] - rows["arrival_s"]) * 1.5
        header = recorded.header.changed(admission=recorded.header.admission | {"policy": "fifo"})
        now.append(replace(recorded, header=header, requests=rows, steps=None).write(tmp_path / f"new {turn}"))
    run = driftsim("check", *options("--captured", now), *options("--beside", then))
    assert run.returncode == 1, run.stdout + run.stderr
    told = run.stdout.splitlines()
    assert told[0].startswith("regression: fifo/ema of ")
    assert "5 rounds, captured alternately and paired" in told[0]
    power = [line for line in told if "would have been found with 80 % probability" in line]
    assert len(power) == 1
    assert all(metric in power[0] for metric in ("e2e_mean_s", "e2e_p99_s", "ttft_mean_s", "tpot_mean_s"))
    assert "another session" not in run.stdout + run.stderr
    again = driftsim(*shlex.split(told[told.index("To do the worst again:") + 1])[1:])
    assert again.stdout == run.stdout


def test_stored_repeats_are_compared_with_a_word_of_caution(tmp_path: Path, shipped: Path) -> None:
    home = shipped.with_name("smollm2-cpu-policies")
    file = tmp_path / "captured.json"
    folders = [home / f"fifo-{turn}" for turn in range(1, 6)]
    then = driftsim("check", "--baseline", file, "--update", "--reason", "r", *options("--captured", folders))
    assert then.returncode == 0
    content = json.loads(file.read_text())
    for name, values in content["captured"][0]["metrics"].items():
        if name.endswith("_s"):  # that session's machine was twice as fast
            content["captured"][0]["metrics"][name] = [value / 2 for value in values]
    file.write_text(json.dumps(content))
    run = driftsim("check", "--baseline", file, *options("--captured", folders))
    assert run.returncode == 1
    assert run.stdout.startswith("regression or another machine's speed: fifo/ema of ")
    assert "Note: stored repeats are of another session" in run.stdout
    assert "--beside" in run.stdout
    assert "of another session, whose machine may differ" in run.stderr
    beside = driftsim("check", "--baseline", file, *options("--captured", folders), *options("--beside", folders))
    assert beside.returncode == 0, "no stored number is used"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "give --baseline FILE, or captured runs of the old version with --beside TRACE"),
        (["--beside", "fifo-1"], "give those of the new one with --captured TRACE"),
        (["--captured", "fifo-1", "--beside", "sjf-1"], "have no counterpart"),
        (["--captured", "fifo-1", "--captured", "sjf-1", "--beside", "sjf-1"], "have no counterpart in --beside"),
        (["--captured", "fifo-1", "--beside", "fifo-2", "--store", "s"], "a store does nothing"),
        (["--captured", "fifo-1", "--beside", "fifo-2", "--only", "sjf"], "no scenario is named 'sjf'"),
        (["--update", "--reason", "r"], "--update needs --baseline FILE"),
        (["--update", "--baseline", "b", "--beside", "fifo-1"], "--beside does nothing here"),
    ],
)
def test_what_cannot_be_compared_is_said_in_one_line(
    arguments: list[str], said: str, shipped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(shipped.with_name("smollm2-cpu-policies"))
    run = driftsim("check", *arguments)
    assert run.returncode == 2, run.stdout
    assert said in run.stderr
    assert run.stderr.count("\n") == 1
