"""The rules of the gate one by one: what counts as worse, by how much, in which order it is told, and in which form."""

from __future__ import annotations

import math
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from scipy import stats

from driftsim.errors import InputError
from driftsim.simulation.run import simulate
from driftsim.simulation.scenario import Scenario
from driftsim.sweeps.baseline import Baseline, BaselineRun, Captured
from driftsim.sweeps.beside import beside_changes, stored_changes
from driftsim.sweeps.changes import MetricChange, ScenarioChange, grouped, simulated_changes, worst_first
from driftsim.sweeps.gate import GateResult
from driftsim.sweeps.gated import GATED, check_names, floor_of
from driftsim.sweeps.repeats import Repeat, Shift, captured_alternately, group_name, overlapping, repeats_by_name
from driftsim.trace.trace import Trace
from tests.strategies import profile, workload


def change(
    then: float, now: float, metric: str = "e2e_mean_s", tolerance: float = 0.01, floor: float = 0.0
) -> MetricChange:
    """A change of a simulated metric, whose interval is the change itself."""
    relative = MetricChange("s", metric, then, now, 0.0, 0.0, 0.0).change
    return MetricChange("s", metric, then, now, tolerance, relative, relative, floor)


def test_a_change_is_relative_to_what_was_there() -> None:
    assert change(2.0, 3.0).change == 0.5
    assert change(2.0, 1.0).change == -0.5
    assert change(-0.5, -0.25).change == 0.5  # a rank correlation may be negative
    assert change(0.0, 1.0).change == math.inf
    assert change(0.0, 0.0).change == 0.0
    assert math.isnan(change(1.0, math.nan).change)


@pytest.mark.parametrize(
    ("then", "now", "metric", "verdict"),
    [
        (100.0, 101.0, "e2e_mean_s", "same"),  # the tolerance itself
        (100.0, 101.1, "e2e_mean_s", "regression"),
        (100.0, 99.0, "e2e_mean_s", "same"),
        (100.0, 98.9, "e2e_mean_s", "improvement"),
        (0.5, 0.4, "kendall_tau", "regression"),
        (0.5, 0.6, "kendall_tau", "improvement"),
        (100.0, 90.0, "finished", "regression"),
        (1.0, math.nan, "mae", "regression"),
    ],
)
def test_worse_is_beyond_the_tolerance_in_the_direction_that_nobody_wants(
    then: float, now: float, metric: str, verdict: str
) -> None:
    assert change(then, now, metric).verdict == verdict


def test_a_change_has_to_reach_the_floor_in_its_unit_too() -> None:
    assert change(1.0, 1.5, floor=0.6).verdict == "same"
    assert change(1.0, 1.5, floor=0.5).verdict == "regression"
    assert change(1.0, 1.5, floor=0.4).verdict == "regression"
    assert change(100.0, 130.0, floor=20.0).verdict == "regression"  # the floor is no share


def test_a_doubtful_change_is_judged_by_the_end_of_its_interval_that_is_nearer_to_none() -> None:
    for low, high, now, verdict in (
        (0.005, 0.4, 1.2, "same"), (0.02, 0.4, 1.2, "regression"), (-0.4, -0.005, 0.8, "same"),
        (-0.4, -0.02, 0.8, "improvement"), (-0.1, 0.4, 1.2, "same"),
    ):  # fmt: skip
        assert MetricChange("s", "e2e_mean_s", 1.0, now, 0.01, low, high).verdict == verdict
        mirrored = {"same": "same", "regression": "improvement", "improvement": "regression"}[verdict]
        assert MetricChange("s", "kendall_tau", 1.0, now, 0.01, low, high).verdict == mirrored
    assert MetricChange("s", "e2e_mean_s", 1.0, 1.2, 0.01, 0.02, 0.4).worse == 0.02
    assert MetricChange("s", "kendall_tau", 1.0, 0.8, 0.01, -0.4, -0.02).worse == 0.02


def test_the_worst_comes_first_then_what_became_better_then_the_rest() -> None:
    changes = [change(1.0, now) for now in (1.0, 0.5, 1.2, 0.9, 2.0, 1.001)]
    assert [one.now for one in worst_first(changes)][:4] == [2.0, 1.2, 0.5, 0.9]
    assert {one.verdict for one in worst_first(changes)[4:]} == {"same"}


def test_floors_go_by_metric_then_by_unit_then_by_default() -> None:
    assert floor_of("mae", {"mae": 3.0, "tokens": 2.0}) == 3.0
    assert floor_of("rmse", {"mae": 3.0, "tokens": 2.0}) == 2.0
    assert floor_of("e2e_p99_s", {}) == 0.001
    assert floor_of("kendall_tau", {"s": 1.0}) == 0.0
    with pytest.raises(InputError, match="must be at least 0"):
        check_names({}, {"s": math.nan}, "f")
    assert {f"{name}_{stat}_s" for name in ("e2e", "ttft", "tpot") for stat in ("mean", "p50", "p90", "p99")} < set(
        GATED
    )


def baseline(*runs: dict[str, Any], **limits: Any) -> Baseline:
    return Baseline(reason="r", runs=[BaselineRun(**run) for run in runs], **limits)


def one(name: str, value: float, **scenario: Any) -> dict[str, Any]:
    return {"name": name, "key": f"key-{name}", "scenario": scenario, "metrics": {"e2e_mean_s": value}}


def test_replications_of_one_scenario_are_one_and_other_policies_are_others() -> None:
    known = baseline(
        one("fifo, replication 0", 1.0, policy="fifo", replication=0),
        one("fifo, replication 1", 3.0, policy="fifo", replication=1),
        one("sjf, replication 0", 5.0, policy="sjf", replication=0), tolerance=0.2,
    )  # fmt: skip
    assert {name: len(runs) for name, runs in grouped(known.runs).items()} == {"fifo": 2, "sjf, replication 0": 1}
    rows = {
        "fifo, replication 0": {"e2e_mean_s": 1.5}, "fifo, replication 1": {"e2e_mean_s": 3.5},
        "sjf, replication 0": {"e2e_mean_s": 4.5},
    }  # fmt: skip
    fifo, sjf = simulated_changes(known, rows)
    assert (fifo.worst.then, fifo.worst.now, fifo.verdict) == (2.0, 2.5, "regression")
    assert fifo.worst.pairs == ((1.0, 1.5), (3.0, 3.5))
    assert fifo.sentence().endswith("mean of 2 replications, the same way in 2; 1 of 1 metrics became worse")
    assert sjf.verdict == "same"
    mixed = simulated_changes(known, rows | {"fifo, replication 0": {"e2e_mean_s": 0.9}})[0]
    assert "the same way in 1" in mixed.sentence()
    own = known.changed(tolerances={"e2e_mean_s": 0.3})
    assert simulated_changes(own, rows)[0].verdict == "same"
    assert simulated_changes(known.changed(floors={"s": 0.6}), rows)[0].verdict == "same"
    with pytest.raises(InputError, match="has no result"):
        simulated_changes(known, {})


def test_a_failed_run_is_a_regression_whatever_its_row_says() -> None:
    known = baseline(one("a", 1.0, policy="fifo"))
    [failed] = simulated_changes(known, {"a": {"failed": True, "error": "KeyError", "e2e_mean_s": 1.0}})
    assert failed.verdict == "regression"
    assert failed.sentence().endswith("failed: KeyError")


# -- captured runs


def captures(minutes: list[int], values: list[float], metric: str = "e2e_mean_s") -> list[Repeat]:
    return [Repeat(f"2026-01-01T00:{minute:02}:00Z", {metric: value})
            for minute, value in zip(minutes, values, strict=True)]  # fmt: skip


def test_rounds_hold_one_of_each_group() -> None:
    def sides(then: list[int], now: list[int]) -> tuple[list[Repeat], list[Repeat]]:
        return captures(then, [1.0] * len(then)), captures(now, [1.0] * len(now))

    assert captured_alternately(*sides([0, 3, 4], [1, 2, 5]))
    assert not captured_alternately(*sides([0, 1, 4], [2, 3, 5]))  # the first round holds two of one
    assert not captured_alternately(*sides([0, 3], [1, 2, 5]))
    assert not captured_alternately(*sides([0, 2], [0, 3]))  # at the same moment
    assert overlapping(*sides([0, 5], [3, 9]))
    assert not overlapping(*sides([0, 2], [3, 9]))


@pytest.mark.parametrize("paired", [True, False])
def test_captured_groups_are_compared_by_the_mean_log_ratio_and_its_interval(paired: bool) -> None:
    then, now = [2.0, 2.2, 1.9, 2.1], [2.5, 2.9, 2.3, 2.8]
    minutes = ([0, 2, 4, 6], [1, 3, 5, 7]) if paired else ([0, 1, 4, 6], [2, 3, 5, 7])
    limits = Baseline(reason="r", captured_tolerance=0.05)
    [group] = beside_changes(limits, {"a": captures(minutes[0], then)}, {"a": captures(minutes[1], now)})
    before, after = np.log(then), np.log(now)
    test = stats.ttest_rel(after, before) if paired else stats.ttest_ind(after, before, equal_var=False)
    ends = np.expm1(test.confidence_interval(0.95))
    assert (group.worst.low, group.worst.high) == pytest.approx(tuple(ends))
    assert group.worst.change == pytest.approx(math.expm1(after.mean() - before.mean()))
    assert group.worst.then == pytest.approx(math.exp(before.mean()))
    assert group.verdict == "regression"
    assert not group.foreign
    assert group.worst.pairs == tuple(zip(then, now, strict=True))
    loose = limits.changed(tolerance=9.0, captured_tolerance=0.9)
    [same] = beside_changes(loose, {"a": captures(minutes[0], then)}, {"a": captures(minutes[1], now)})
    assert (same.verdict, same.worst.tolerance) == ("same", 0.9)


def test_stored_repeats_are_of_another_session_and_a_metric_that_is_gone_is_worse() -> None:
    known = Baseline(reason="r", captured=[Captured(name="a", metrics={"e2e_mean_s": [1.0, 1.1], "mae": [5.0, 5.0]})])
    [group] = stored_changes(known, {"a": captures([0, 1], [1.0, 1.1])})
    assert group.foreign
    assert [(own.metric, own.verdict) for own in group.changes] == [("mae", "regression"), ("e2e_mean_s", "same")]
    for then, now in (("ab", "a"), ("a", "ab")):
        with pytest.raises(InputError, match="'b'.* no counterpart"):
            beside_changes(known, dict.fromkeys(then, captures([0], [1.0])), dict.fromkeys(now, captures([1], [1.0])))
    assert Shift(0.1, math.inf, 0.0).half == math.inf


def test_repeats_are_of_one_policy_and_workload_and_stand_in_order_of_capture() -> None:
    run = simulate(Scenario(profile=profile()), workload([0.0, 0.1, 0.2], [3, 9, 5]))

    def captured(minute: int, **header: Any) -> Trace:
        return Trace(
            run.header.changed(kind="captured", captured_at=f"2026-01-01T00:0{minute}:00Z", **header), run.requests
        )

    found = repeats_by_name([captured(3), captured(1), captured(2, admission={"policy": "sjf"})])
    assert [[own.captured_at[14:16] for own in group] for group in found.values()] == [["01", "03"], ["02"]]
    other = captured(4, workload=run.header.workload.changed(name="other"))
    assert group_name(other) != group_name(captured(4))


# -- what is told


def result() -> GateResult:
    scenarios = [
        ScenarioChange(
            "slow", [change(1.0, 1.5), change(1.0, 1.2, "ttft_mean_s"), change(2.0, 1.0, "mae")], "key", "how"
        ),
        ScenarioChange("fast|odd", [change(1.0, 0.5)], "other"),
        ScenarioChange("still", [change(1.0, 1.0)], "third"),
        ScenarioChange("quiet", [change(1.0, 1.0)], "fourth"),
    ]
    return GateResult(scenarios, "a reason", {"slow": "driftsim check --only key"})


def test_a_result_counts_and_lists_what_moved() -> None:
    found = result()
    assert [scenario.name for scenario in found.regressions] == ["slow"]
    assert [scenario.name for scenario in found.moved] == ["slow", "fast|odd"]
    assert found.counts == "1 regression, 1 improvement, 2 unchanged, of 4 scenarios with 6 metrics"
    assert found.lines()[0].startswith("regression: slow: +50.00 % e2e_mean_s: 1.5 s, was 1 s; tolerance 1 %")
    assert found.lines()[0].endswith("; 2 of 3 metrics became worse")
    assert "  driftsim check --only key" in found.lines()
    assert found.document()["regressions"] == 1


def test_a_pull_request_is_told_what_fails_and_which_value_is_which() -> None:
    told = result().markdown()
    assert told.startswith("### driftsim check fails\n")
    assert "| regression | slow | e2e_mean_s | 1 | 1.5 | +50.00 % |" in told
    assert "fast\\|odd" in told
    passing = GateResult(result().scenarios[1:], "r")
    assert passing.markdown().startswith("### driftsim check passes\n")


def test_a_junit_reader_finds_one_case_a_scenario_and_all_that_became_worse() -> None:
    suite = ElementTree.fromstring(result().junit())
    assert (suite.get("tests"), suite.get("failures")) == ("4", "1")
    cases = {case.get("name"): case.findall("failure") for case in suite}
    assert {name: len(failures) for name, failures in cases.items()} == {
        "slow": 1,
        "fast|odd": 0,
        "still": 0,
        "quiet": 0,
    }
    text = cases["slow"][0].text or ""
    assert "e2e_mean_s" in text
    assert "ttft_mean_s" in text
    assert "mae" not in text
