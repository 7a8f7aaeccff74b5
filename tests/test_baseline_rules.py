"""The rules of a baseline and of captured repeats: what is refused, what is kept, and what is told, each by hand."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from driftsim.errors import InputError
from driftsim.glossary import FAIRNESS, SESSION_METRICS
from driftsim.simulation.run import simulate
from driftsim.simulation.scenario import Scenario
from driftsim.simulation.spec import ScenarioSpec
from driftsim.sweeps.baseline import Baseline, BaselineRun, Captured, baseline_runs, load_baseline, make_baseline
from driftsim.sweeps.baseline import spec_of as placed_spec
from driftsim.sweeps.beside import beside_changes, stored_changes
from driftsim.sweeps.changes import MetricChange, ScenarioChange, grouped, simulated_changes
from driftsim.sweeps.gate import MOST_LINES, GateResult, _command, _narrowed, check_baseline
from driftsim.sweeps.gated import GATED, check_names
from driftsim.sweeps.repeats import Repeat, Shift, captured_alternately, detectable_change, group_name, repeats_by_name
from tests.strategies import profile, workload

NAN = math.nan
FIRST = Baseline(reason="the first")


def run(name: str, key: str = "k", scenario: dict[str, Any] | None = None, **metrics: float) -> BaselineRun:
    return BaselineRun(name=name, key=key, scenario=scenario or {"policy": name}, metrics=metrics)


def repeat(minute: int, unfit: dict[str, float] | None = None, **metrics: float) -> Repeat:
    return Repeat(f"2026-01-01T00:{minute:02}:00Z", metrics, unfit or {})


def moved(name: str, now: float = 2.0, metric: str = "e2e_mean_s", **more: Any) -> ScenarioChange:
    """A scenario whose metric was 1."""
    return ScenarioChange(name, [MetricChange(name, metric, 1.0, now, 0.01, now - 1, now - 1)], name, **more)


# -- a baseline


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (FIRST.changed(captured=[Captured(name="a", metrics={"e2e_mean_s": [1.0, 0.0]})]), "that no run gives"),
        (FIRST.changed(runs=[run("fifo", e2e_mean_s=-1.0)]), "that no run gives"),
        (FIRST.changed(runs=[run("fifo", kendall_tau=-1.5)]), "that no run gives"),
        (FIRST.changed(runs=[run("fifo", speed=1.0)]), "is no metric"),
        (FIRST.changed(runs=[run("fifo", kendall_tau=-0.5, mae=0.0)]), ""),
    ],
)
def test_a_baseline_holds_values_that_runs_give(made: Baseline, message: str, tmp_path: Path) -> None:
    made.save(tmp_path / "b.json")
    if message:
        with pytest.raises(InputError, match=message):
            load_baseline(tmp_path / "b.json")
    else:
        assert load_baseline(tmp_path / "b.json") == made


def test_a_baseline_runs_no_code_of_its_own(tmp_path: Path) -> None:
    for name in ("policy", "estimator"):
        with pytest.raises(InputError, match=r"odd\.py"):
            placed_spec(run("odd", scenario={"trace": "t", name: "odd.py:Odd"}), tmp_path)


def test_a_new_baseline_has_a_reason_something_to_hold_and_the_limits_of_the_old(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="give a reason"):
        make_baseline(tmp_path / "b.json", reason=" ")
    with pytest.raises(InputError, match="a new baseline holds"):
        make_baseline(tmp_path / "b.json", reason="r")
    FIRST.changed(captured_tolerance=0.2, tolerances={"mae": 0.5}).save(tmp_path / "b.json")
    again = make_baseline(tmp_path / "b.json", reason="again")
    assert (again.reason, again.captured_tolerance, again.tolerances) == ("again", 0.2, {"mae": 0.5})


def test_a_run_is_kept_with_the_metrics_that_it_has_and_paths_from_the_baseline(tmp_path: Path) -> None:
    row = {"failed": False, "key": "k", "e2e_mean_s": 1.0, "mae": NAN}
    (made,) = baseline_runs({"a": ScenarioSpec(trace=str(tmp_path / "t"))}, {"a": row}, tmp_path / "b")
    assert (made.metrics, made.scenario) == ({"e2e_mean_s": 1.0}, {"trace": "../t"})


def test_fairness_and_sessions_are_gated_and_a_floor_may_be_of_a_metric() -> None:
    assert {one.name for one in FAIRNESS} | {f"{name}_s" for name in SESSION_METRICS} <= set(GATED)
    check_names({"mae": 0.1}, {"mae": 1.0, "s": 0.1})


# -- scenarios


def test_a_scenario_has_the_metrics_of_all_its_runs() -> None:
    runs = [run(f"fifo, replication {n}", scenario={"policy": "fifo", "replication": n}) for n in range(2)]
    known = FIRST.changed(runs=[runs[0].changed(metrics={"mae": 1.0}), runs[1].changed(metrics={"rmse": 1.0})])
    rows: dict[str, dict[str, Any]] = {one.name: {"mae": 1.0, "rmse": 1.0} for one in runs}
    (both,) = simulated_changes(known, rows)
    assert {change.metric for change in both.changes} == {"mae", "rmse"}
    assert both.how == "mean of 2 replications"
    (alone,) = simulated_changes(FIRST.changed(runs=[run("sjf", mae=1.0)]), {"sjf": {"mae": 1.0}})
    assert alone.how == ""
    local = [
        run(f"sjf, replication {n}, resampling local", scenario={"replication": n, "resampling": "local"})
        for n in range(2)
    ]
    assert list(grouped(local)) == ["sjf"]


def test_only_a_time_that_is_known_may_be_of_another_machine() -> None:
    told = {
        name: moved("a", now, metric, foreign=True).sentence().partition(":")[0]
        for name, now, metric in (("time", 2.0, "e2e_mean_s"), ("gone", NAN, "e2e_mean_s"), ("length", 2.0, "mae"))
    }
    assert told == {"time": "regression or another machine's speed", "gone": "regression", "length": "regression"}


# -- captured repeats


def test_what_is_zero_has_no_logarithm() -> None:
    """One after the other with the truth: nothing waits, and no estimate is wrong."""
    trace = simulate(Scenario(profile=profile(), estimator="oracle"), workload([0.0, 9.0, 18.0], [3, 9, 5]))
    (group,) = repeats_by_name([trace]).values()
    assert group[0].metrics
    assert min(group[0].metrics.values()) > 0
    plain: Any = SimpleNamespace(header=SimpleNamespace(admission={}, workload=SimpleNamespace(name="w")))
    assert group_name(plain) == "stock/static of w"


def test_captures_of_one_moment_have_no_order() -> None:
    assert not captured_alternately([repeat(0), repeat(1)], [repeat(1), repeat(0)])
    assert captured_alternately([repeat(0), repeat(3)], [repeat(1), repeat(2)])


def test_a_floor_is_in_the_unit_and_no_fall_is_beyond_nothing() -> None:
    sure = Shift(0.0, 0.0, 5.0)
    assert detectable_change(sure, "e2e_mean_s", 10.0, 0.01, 1.0) == pytest.approx(0.1)
    assert detectable_change(sure, "attainment", 0.5, 0.01, 0.1) == pytest.approx(-0.2)
    assert math.isnan(detectable_change(sure, "attainment", 0.5, 0.01, 0.6))


def test_a_share_that_is_gone_in_all_repeats_is_worse_and_in_some_is_refused() -> None:
    then = {"a": [repeat(0, attainment=0.5, e2e_mean_s=1.0), repeat(2, attainment=0.5, e2e_mean_s=1.0)]}
    gone = repeat(1, {"attainment": 0.0}, e2e_mean_s=1.0)
    (group,) = beside_changes(FIRST, then, {"a": [gone, repeat(3, {"attainment": 0.0}, e2e_mean_s=1.0)]})
    assert (group.worst.metric, math.isnan(group.worst.now), group.verdict) == ("attainment", True, "regression")
    with pytest.raises(InputError, match="attainment is 0 in a repeat"):
        beside_changes(FIRST, then, {"a": [gone, repeat(3, attainment=0.5, e2e_mean_s=1.0)]})
    ranks = {"a": [repeat(0, kendall_tau=0.5), repeat(2, kendall_tau=0.5)]}
    with pytest.raises(InputError, match=r"kendall_tau is -0\.1 in a repeat"):
        beside_changes(FIRST, ranks, {"a": [repeat(minute, {"kendall_tau": -0.1}) for minute in (1, 3)]})


def test_how_groups_were_captured_is_told() -> None:
    def how(then: list[int], now: list[int]) -> str:
        sides = ({"a": [repeat(one, e2e_mean_s=1.0) for one in side]} for side in (then, now))
        return beside_changes(FIRST, *sides)[0].how

    assert how([0, 3], [1, 2]) == "2 rounds, captured alternately and paired"
    assert how([0, 1, 4], [2, 3]) == "2 repeats against 3 of the same session, not captured alternately"
    assert how([0, 1], [2, 3, 4]).endswith("not captured alternately: a drift of the machine enters")
    stored = Captured(name="a", metrics={"e2e_mean_s": [1.0, 1.1, 1.2], "mae": [5.0]})
    (group,) = stored_changes(FIRST.changed(captured=[stored]), {"a": [repeat(0, e2e_mean_s=1.0, mae=5.0)]})
    assert group.how.startswith("1 repeats against 3 stored ones")


def test_an_interval_may_reach_further_than_any_number() -> None:
    then = {"a": [repeat(0, e2e_mean_s=1.0), repeat(3, e2e_mean_s=1.0)]}
    (group,) = beside_changes(FIRST, then, {"a": [repeat(1, e2e_mean_s=1.0), repeat(2, e2e_mean_s=1e52)]})
    assert (group.worst.low, group.worst.high) == (-1.0, math.inf)
    assert math.isnan((group.detectable or {})["e2e_mean_s"])


# -- what is asked of the gate, and told


def test_what_cannot_be_held_against_anything_is_refused_before_a_trace_is_read(tmp_path: Path) -> None:
    FIRST.changed(runs=[run("fifo", mae=1.0)]).save(tmp_path / "runs.json")
    FIRST.changed(captured=[Captured(name="a", metrics={"mae": [1.0]})]).save(tmp_path / "captured.json")
    for file, asked, message in (
        ("runs.json", {"beside": ["t"]}, "give those of the new one"),
        (None, {}, "give --baseline FILE"),
        (None, {"captured": ["t"], "beside": ["t"], "store": "s"}, "nothing is simulated"),
        ("runs.json", {"captured": ["t"]}, "holds no captured runs"),
        ("captured.json", {}, "holds captured runs only"),
        ("captured.json", {"captured": ["t"], "store": "s"}, "a store does nothing"),
    ):
        with pytest.raises(InputError, match=message):
            check_baseline(None if file is None else tmp_path / file, **asked)


def trace_of(name: str) -> Any:
    return SimpleNamespace(header=SimpleNamespace(admission={}, workload=SimpleNamespace(name=name)))


def test_one_scenario_is_named_by_its_name_or_by_the_key_of_one_of_its_runs() -> None:
    runs = [
        run(f"fifo, replication {n}", f"{n}abc", scenario={"policy": "fifo", "replication": n}, mae=1.0)
        for n in range(2)
    ] + [run("1", "z", mae=1.0)]
    captured = [Captured(name=f"stock/static of {name}", metrics={"mae": [1.0]}) for name in "ab"]
    known = FIRST.changed(runs=runs, captured=captured)
    new: Any = [(Path(name), trace_of(name)) for name in "ab"]
    assert [one.key for one in _narrowed(known, [], [], "0a")[0].runs] == ["0abc", "1abc"]
    assert [one.key for one in _narrowed(known, [], [], "1")[0].runs] == ["z"]  # a name goes before a key
    kept, some, others = _narrowed(known, new, new[1:], "stock/static of a")
    assert ([one.name for one in kept.captured], [path for path, _ in some], others) == (
        ["stock/static of a"], [Path("a")], [],
    )  # fmt: skip
    with pytest.raises(InputError, match="no scenario is named 'q'"):
        _narrowed(known, new, [], "q")
    group = moved("stock/static of a", detectable={})
    told = _command(["--only", "x"], group, new, [(Path("old"), trace_of("a"))])
    assert told == "driftsim check --only x --captured a --beside old"


def test_a_report_has_ten_lines_and_the_metrics_of_a_single_scenario() -> None:
    assert GateResult([], "").counts == "0 regressions, 0 improvements, 0 unchanged, of 0 scenarios with 0 metrics"
    ten = [moved(str(number)) for number in range(MOST_LINES)]
    assert not any("more" in line for line in GateResult(ten, "").lines())
    assert "and 1 more; --json lists all" in GateResult([*ten, moved("last")], "").lines()
    assert "Its metrics:" in GateResult(ten[:1], "").lines()
    assert "Its metrics:" not in GateResult(ten[:2], "").lines()


@pytest.mark.parametrize(
    ("detectable", "told"),
    [
        ({"e2e_mean_s": 0.1, "e2e_p99_s": NAN}, "e2e_mean_s +10.0 %, e2e_p99_s none would have been found"),
        ({"e2e_mean_s": NAN, "mae": 0.1}, "a single repeat on a side has no spread"),
    ],
)
def test_what_could_have_been_found_is_told_of_each_headline(detectable: dict[str, float], told: str) -> None:
    (line,) = GateResult([moved("a", how="h", detectable=detectable)], "").notes()
    assert line.replace("\N{NO-BREAK SPACE}", " ").startswith(f"a (h): {told}")
