"""What a sweep is summed up to, of rows so few that the answer is known by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from driftsim.errors import InputError
from driftsim.statistics import student_quantile
from driftsim.sweeps.baseline import Baseline, BaselineRun
from driftsim.sweeps.best import AS_GOOD, best_settings, group_means
from driftsim.sweeps.changes import MetricChange, ScenarioChange, grouped, simulated_changes, worst_first
from driftsim.sweeps.effects import Design
from driftsim.sweeps.spread import draws_of, half_width, interval_over

NAN = math.nan
MEAN = "e2e_mean_s"


@pytest.fixture
def table() -> pd.DataFrame:
    """Four policies, not in the order of their names, on three draws of a workload."""
    return pd.DataFrame(
        {
            "key": [f"k{place}" for place in range(12)],
            "policy": ["sjf"] * 3 + ["fifo"] * 3 + ["wspt"] * 3 + ["las"] * 3,
            "seed": [0, 1, 2] * 4,
            "workload.kind": "poisson",
            "slos": ["loose"] * 3 + ["tight"] * 9,
            "e2e_mean_s": [10.0, 11.0, 12.0, 1.0, 2.0, 3.0, 1.1, 1.9, 3.2, 20.0, 21.0, 22.0],
            "attainment": [0.9] * 3 + [0.5] * 9,
        }
    )


def test_the_best_setting_is_the_least_and_those_near_are_as_good(table: pd.DataFrame) -> None:
    rows = table.drop(columns=["slos", "attainment"])
    (best,) = best_settings(rows, [], "e2e_mean_s").to_dict("records")
    assert (best["policy"], best["e2e_mean_s"], best["runs"], best[AS_GOOD]) == ("fifo", 2.0, 3, 1.0)
    each = best_settings(rows, ["policy"], "e2e_mean_s")
    assert each["policy"].tolist() == ["fifo", "las", "sjf", "wspt"]
    assert group_means(rows, [], ["e2e_mean_s"])["runs"].tolist() == [12]


def test_the_loosest_slo_does_not_win(table: pd.DataFrame) -> None:
    with pytest.raises(InputError, match="judged by 2 different SLOs"):
        best_settings(table, [], "attainment")
    assert best_settings(table, ["slos"], "attainment")["attainment"].tolist() == [0.9, 0.5]
    assert best_settings(table, [], "e2e_mean_s")["policy"].tolist() == ["fifo"]  # which no SLO judges
    with pytest.raises(InputError, match="empty in all 12 runs"):
        best_settings(table.assign(attainment=NAN, slos="one"), [], "attainment")


def draws(number: list[int], kind: list[str], day: list[str] | str = "d", independent: bool = False) -> pd.DataFrame:
    return pd.DataFrame({"day": day, "number": number, "kind": kind, "independent": independent})


def test_an_interval_rests_on_what_was_drawn() -> None:
    values = np.array([5.0, 1.0, 3.0, 0.0, 4.0])
    kinds = ["circular", "local", "local", "circular", "circular"]
    both, words = interval_over(values, draws([0, 1, 2, 1, 2], kinds))
    reach = student_quantile(1) * math.sqrt(8.0)  # the spread of 0 and 4, which is the larger
    assert both == pytest.approx((2.0, 2.0 - reach, 2.0 + reach))
    assert words == "2 x 2 resamples of one recorded day"
    one, words = interval_over(values, draws([0, 1, 2, 3, 4], ["circular"] * 5))
    spread = float(np.std([1.0, 3.0, 0.0, 4.0], ddof=1))
    assert one == pytest.approx((5.0, 5.0 - student_quantile(3) * spread, 5.0 + student_quantile(3) * spread))
    assert words.startswith("4 resamples of one kind")
    alone, words = interval_over(values[:2], draws([0, 1], kinds[:2]))
    assert (alone.value, math.isnan(alone.low), words[:18]) == (5.0, True, "too few resamples ")
    assert interval_over(values * NAN, draws([0] * 5, kinds))[1] == "no run has a value"
    drawn, words = interval_over(np.array([1.0, 3.0, math.inf]), draws([1, 2, 3], ["x"] * 3, independent=True))
    assert (drawn.value, words) == (2.0, "2 independent runs")
    assert half_width(np.array([1.0, 3.0]), draws([1, 2], ["x"] * 2, independent=True)) == pytest.approx(
        student_quantile(1)
    )
    mixed = draws([1, 2], ["local"] * 2).assign(independent=[True, False])
    mean, words = interval_over(np.array([1.0, 3.0]), mixed)
    assert (mean.value, math.isnan(mean.high), words) == (2.0, True, "traces and drawn workloads in one")


def test_a_run_without_a_number_is_the_day_itself() -> None:
    rows = pd.DataFrame({"replication": [0, "x", 2], "resampling": [None, "local", "circular"], "trace_digest": "d"})
    found = draws_of(rows)
    assert found["number"].tolist() == [0, 0, 2]
    assert found["kind"].tolist() == ["circular", "local", "circular"]


def test_runs_of_a_day_that_nobody_told_are_one_day() -> None:
    rows = pd.DataFrame({"replication": [0, 1, 2, 3], "resampling": "circular", "trace_digest": None})
    assert interval_over(np.arange(4.0), draws_of(rows))[1].startswith("3 resamples of one kind")
    rows["trace_digest"] = [None, None, "d", "d"]
    assert draws_of(rows)["day"].tolist() == ["unknown", "unknown", "d", "d"]


def test_effects_and_interactions_of_a_crossed_design() -> None:
    rows = pd.DataFrame(
        [
            {"policy": policy, "load": load, "seed": seed, "e2e": 2.0**power * (1 + seed)}
            for policy, load, power in (("a", "low", 0), ("b", "low", 1), ("a", "high", 1), ("b", "high", 4))
            for seed in (0, 1)
        ]
    )
    design = Design({"policy": ("a", "b"), "load": ("low", "high")})
    assert design.effect(rows, "policy", "a", "b", "e2e").value == pytest.approx(2.0**2 - 1)  # (1 + 3) / 2 doublings
    assert design.effect(rows, "policy", "a", "b", "e2e", "difference").value == pytest.approx(1.5 * 7.5)
    both = design.interaction(rows, ("policy", "a", "b"), ("load", "low", "high"), "e2e")
    assert both.value == pytest.approx(math.log(2.0))  # half of 3 - 1 doublings
    assert Design({"policy": ("a", "b")}).contrast(rows[rows["load"] == "low"], "policy", "a", "b", "e2e").tolist() == (
        pytest.approx([math.log(2.0)] * 2)
    )


def change(then: float, now: float, reach: float = 0.0, floor: float = 0.0, metric: str = "e2e_mean_s") -> MetricChange:
    relative = now / then - 1 if then else math.inf
    return MetricChange("s", metric, then, now, 0.05, relative - reach, relative + reach, floor, ((then, now),) * 2)


@pytest.mark.parametrize(
    ("made", "verdict", "worse"),
    [
        (change(1.0, 1.1), "regression", 0.1),
        (change(1.0, 1.04), "same", 0.04),
        (change(1.0, 0.9), "improvement", -0.1),
        (change(1.0, 1.1, reach=0.08), "same", 0.02),
        (change(1.0, 1.1, reach=0.2), "same", 0.0),
        (change(1.0, 0.9, reach=0.2), "same", 0.0),
        (change(1.0, 1.1, floor=0.2), "same", 0.1),
        (change(1.0, 1.1, metric="attainment"), "improvement", -0.1),
        (change(1.0, 0.9, metric="attainment"), "regression", 0.1),
        (change(0.0, 1.0), "regression", math.inf),
        (change(1.0, NAN), "regression", math.inf),
    ],
)
def test_a_change_is_a_regression_beyond_its_tolerance_its_floor_and_doubt(
    made: MetricChange, verdict: str, worse: float
) -> None:
    assert made.verdict == verdict
    assert made.worse == pytest.approx(worse)


def test_a_scenario_tells_its_worst_metric_and_how_many_moved_with_it() -> None:
    worst, better, same = change(1.0, 1.3), change(1.0, 0.5), change(1.0, 1.0)
    ordered = worst_first([same, better, change(1.0, 0.8), change(1.0, 1.1), worst])
    assert [round(one.change, 2) for one in ordered] == [0.3, 0.1, -0.5, -0.2, 0.0]
    told = ScenarioChange("s", ordered, how="mean of 2 replications").sentence()
    assert "regression: s: +30.00 % e2e_mean_s" in told.replace("\N{NO-BREAK SPACE}", " ")
    assert "mean of 2 replications, the same way in 2" in told
    assert told.endswith("2 of 5 metrics became worse")
    foreign = ScenarioChange("s", ordered, foreign=True).sentence()
    assert foreign.startswith("regression or another machine's speed")
    assert "the same way" not in ScenarioChange("s", ordered, how="x", detectable={}).sentence()


def test_replications_are_compared_by_their_mean_and_runs_of_one_name_are_told_apart() -> None:
    def run(policy: str, replication: int, value: float, key: str, **more: object) -> BaselineRun:
        scenario = {"policy": policy, "replication": replication, **more}
        return BaselineRun(
            name=f"{policy}, replication {replication}", key=key, scenario=scenario, metrics={MEAN: value}
        )

    runs = [run("sjf", 1, 2.0, "a" * 20), run("sjf", 2, 4.0, "b" * 20), run("fifo", 1, 5.0, "c" * 20)]
    rows = {one.name: {MEAN: one.metrics[MEAN] + 1} for one in runs}
    sjf, fifo = simulated_changes(Baseline(reason="x", runs=runs), rows)
    assert (sjf.name, sjf.worst.then, sjf.worst.now, sjf.how) == ("sjf", 3.0, 4.0, "mean of 2 replications")
    assert (fifo.name, fifo.worst.then, fifo.worst.now, fifo.how) == ("fifo, replication 1", 5.0, 6.0, "")
    assert sjf.selector == "a" * 12
    with pytest.raises(InputError, match="'fifo, replication 1' of the baseline has no result"):
        simulated_changes(Baseline(reason="x", runs=runs), {name: rows[name] for name in list(rows)[:2]})
    again = [*runs[:2], run("sjf", 1, 2.0, "d" * 20, seed=1), run("sjf", 2, 2.0, "e" * 20, seed=1)]
    assert list(grouped(again)) == ["sjf", f"sjf ({'d' * 12})"]


def test_without_a_tolerance_the_same_is_the_same() -> None:
    assert replace(change(1.0, 1.0), tolerance=0.0).verdict == "same"
    assert replace(change(1.0, 1.001), tolerance=0.0).verdict == "regression"


def test_the_best_of_a_group_of_one_has_no_rival(table: pd.DataFrame) -> None:
    rows = table.drop(columns=["slos", "attainment"]).assign(max_in_flight=[1.0] * 3 + [NAN] * 9)
    each = best_settings(rows, ["max_in_flight"], MEAN)
    assert each[["policy", AS_GOOD]].to_numpy().tolist() == [["sjf", 0.0], ["fifo", 1.0]]
    assert AS_GOOD not in best_settings(rows.drop(columns="max_in_flight"), ["policy"], MEAN)
    assert group_means(rows, ["seed"], ["seed", MEAN]).columns.tolist() == ["seed", MEAN, "runs"]


def test_of_several_days_the_one_with_the_fewest_resamples_is_told() -> None:
    number, days = [0, 1, 2, 3, 0, 1, 2], ["d"] * 4 + ["e"] * 3
    values = np.arange(7.0)
    assert interval_over(values, draws(number, ["circular"] * 7, days))[1].startswith("2 resamples of one kind")
    kinds = ["circular", "local", "local", "circular", "circular"]
    both = draws([0, 1, 2, 1, 2] * 2, kinds * 2, ["d"] * 5 + ["e"] * 5)
    assert interval_over(np.arange(10.0), both)[1] == "2 x 2 resamples of 2 recorded days"
