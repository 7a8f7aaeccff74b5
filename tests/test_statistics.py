"""Intervals and tests against values by hand, and against what they promise on known noise."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from driftsim import statistics
from driftsim.statistics import Interval
from driftsim.sweeps.effects import Design


def test_the_interval_of_a_mean_is_students() -> None:
    expected = (2.0, 2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5)
    assert statistics.mean_interval(np.array([1.0, 2.0, 3.0])) == pytest.approx(expected)
    assert np.isnan(statistics.mean_interval(np.array([1.0])).low)
    assert statistics.mean_half_width(np.array([1.0])) == math.inf


@pytest.mark.parametrize("count", [3, 10, 40])
def test_the_interval_of_a_mean_covers_it_as_often_as_it_says(count: int) -> None:
    random = np.random.default_rng(count)
    drawn = random.normal(5.0, 2.0, (4000, count))
    covered = np.mean([low <= 5.0 <= high for _, low, high in map(statistics.mean_interval, drawn)])
    assert covered == pytest.approx(statistics.LEVEL, abs=4 * math.sqrt(0.95 * 0.05 / 4000))


def test_welchs_interval_covers_a_difference_of_unequal_spreads() -> None:
    random = np.random.default_rng(1)
    ones, others = random.normal(1.0, 1.0, (4000, 5)), random.normal(0.0, 3.0, (4000, 9))
    pairs = zip(ones, others, strict=True)
    covered = np.mean(
        [abs(one.mean() - other.mean() - 1) <= statistics.welch_half_width(one, other) for one, other in pairs]
    )
    assert covered == pytest.approx(statistics.LEVEL, abs=0.015)
    assert statistics.welch_half_width(np.array([1.0]), np.array([1.0, 2.0])) == math.inf
    assert statistics.welch_half_width(np.ones(3), np.ones(4)) == 0.0


def test_a_day_is_estimated_by_its_local_resamples_and_as_wide_as_the_wider_kind() -> None:
    day = statistics.Day(7.0, np.array([1.0, 2.0, 3.0]), np.array([0.0, 2.0, 4.0]))
    found = statistics.over_days([day])
    reach = 2 * float(stats.t.ppf(0.975, 2))
    assert found.interval == pytest.approx((2.0, 2 - reach, 2 + reach))
    assert (found.this_run, found.moved) == (7.0, False)
    assert not statistics.over_days([day._replace(circular=np.array([3.4, 3.5, 3.6]))]).moved  # few say little
    assert statistics.over_days([day._replace(circular=np.array([4.9, 5.0, 5.1]))]).moved
    alone = statistics.over_days([statistics.Day(7.0, np.array([1.0]), np.array([2.0]))])
    assert math.isnan(alone.interval.low)
    assert alone.p == 1


@pytest.mark.parametrize("days", [2, 3, 8])
@pytest.mark.parametrize("between", [0.0, 1.0, 4.0])
def test_the_interval_over_several_days_holds_their_mean(days: int, between: float) -> None:
    random = np.random.default_rng(4)
    held = []
    for _ in range(400):
        centres = random.normal(10, between, days)
        drawn = [
            statistics.Day(random.normal(centre, 1), *(random.normal(random.normal(centre, 1), 1, (2, 19))))
            for centre in centres
        ]
        _, low, high = statistics.over_days(drawn).interval
        held.append(low <= 10 <= high)
    assert np.mean(held) >= 0.92


def test_more_resamples_of_one_day_do_not_narrow_its_interval() -> None:
    random = np.random.default_rng(1)
    widths = []
    for count in (20, 2000):
        day = statistics.Day(0.0, random.normal(size=count), random.normal(size=count))
        _, low, high = statistics.over_days([day]).interval
        widths.append(high - low)
    assert widths[1] == pytest.approx(2 * 1.96, rel=0.06)
    assert widths[0] > 0.7 * widths[1]


def test_a_ratio_is_averaged_in_logarithms() -> None:
    assert statistics.ratio_interval(np.log([2.0, 8.0]), math.log(2)) == pytest.approx((3.0, 1.0, 7.0))


def test_an_interval_knows_whether_it_spans_zero() -> None:
    assert Interval(0.1, -0.1, 0.3).spans_zero
    assert not Interval(0.1, 0.05, 0.3).spans_zero
    assert not Interval(0.1, math.nan, math.nan).spans_zero  # nothing is known


def test_holm_is_bonferroni_for_the_smallest_and_never_falls() -> None:
    values = list(np.random.default_rng(0).random(50))
    adjusted = statistics.holm(values)
    smallest = int(np.argmin(values))
    assert adjusted[smallest] == pytest.approx(min(1.0, 50 * values[smallest]))
    assert [p for _, p in sorted(zip(values, adjusted, strict=True))] == sorted(adjusted)
    assert max(adjusted) <= 1


def test_a_planted_effect_is_found_and_an_interaction_with_it() -> None:
    random = np.random.default_rng(2)
    rows = []
    for seed in range(6):
        for policy in ("fifo", "sjf"):
            for load in ("low", "high"):
                planted = {("sjf", "low"): 0.9, ("sjf", "high"): 0.6}.get((policy, load), 1.0)
                rows.append({"policy": policy, "load": load, "seed": seed, "x": planted * random.normal(1, 1e-4)})
    table = pd.DataFrame(rows)
    design = Design({"policy": ("fifo", "sjf"), "load": ("low", "high")})
    both = design.effect(table, "policy", "fifo", "sjf", "x")
    assert both.value == pytest.approx(math.sqrt(0.9 * 0.6) - 1, abs=1e-3)
    assert both.low < both.value < both.high < 0
    crossed = design.interaction(table, ("policy", "fifo", "sjf"), ("load", "low", "high"), "x")
    assert crossed.value == pytest.approx(math.log(0.6 / 0.9) / 2, abs=1e-3)
    assert design.effect(table, "policy", "fifo", "sjf", "x", "difference").value == pytest.approx(-0.25, abs=1e-3)


@pytest.mark.parametrize("count", [3, 5, 12])
@pytest.mark.parametrize(("spread", "floor"), [(0.03, 0.0), (0.15, 0.0), (0.03, 0.08)])
def test_a_detectable_shift_is_detected_in_four_of_five_cases(count: int, spread: float, floor: float) -> None:
    beyond, runs = 0.05, 20_000
    shift = statistics.detectable_shift(spread / math.sqrt(count), count - 1, beyond, floor)
    draw = np.random.default_rng(count)
    for truth, expected in ((shift, pytest.approx(0.8, abs=0.012)), (beyond, pytest.approx(0.025 / 2, abs=0.0175))):
        values = draw.normal(truth, spread, (runs, count))
        middle, half = values.mean(axis=1), statistics.student_quantile(count - 1) * values.std(axis=1, ddof=1)
        assert np.mean((middle - half / math.sqrt(count) > beyond) & (middle >= floor)) == expected


def test_errors_of_means_are_those_of_the_intervals() -> None:
    one, other = np.array([1.0, 2.0, 4.0]), np.array([2.0, 2.5, 7.0, 3.0])
    error, freedom = statistics.mean_error(one)
    assert statistics.student_quantile(freedom) * error == pytest.approx(statistics.mean_half_width(one))
    error, freedom = statistics.welch_error(one, other)
    theirs = stats.ttest_ind(one, other, equal_var=False)
    assert freedom == pytest.approx(theirs.df)
    assert (one.mean() - other.mean()) / error == pytest.approx(theirs.statistic)
    assert statistics.welch_error(one, other[:1]) == statistics.mean_error(one[:1]) == (math.inf, 0.0)
    assert statistics.welch_error(np.ones(2), np.ones(3)) == (0.0, 3.0)


def test_what_is_not_known_is_no_evidence() -> None:
    for error in (0.0, 0.1):
        assert statistics.DayEstimate(math.nan, error, 3, math.nan).p == 1
    assert statistics.DayEstimate(1.0, math.nan, 3, 1.0).p == 1


@pytest.mark.parametrize(
    ("attained", "load"),
    [
        ((1.0, 0.9, 0.7), 1.5),
        ((1.0, 0.8, 0.9), 2.0),  # just met is met
        ((0.7, 0.9, 0.9), 0.0),  # failed at once
        ((0.7, 0.6, 0.5), 0.0),
        ((0.9, 0.9, 0.9), 2.0),
    ],
)
def test_a_curve_crosses_its_target_before_the_first_load_that_fails(attained: tuple[float, ...], load: float) -> None:
    assert statistics.crossing(np.array([0.0, 1.0, 2.0]), np.array([attained]), 0.8) == pytest.approx([load])


def test_a_gate_whose_numbers_do_not_vary_sees_what_is_above_its_bound_and_its_floor() -> None:
    assert statistics.detectable_shift(0.0, 4, beyond=0.05, floor=0.1) == 0.1
    assert statistics.detectable_shift(0.0, 4, beyond=0.05, floor=0.01) == 0.05


def test_a_day_with_one_resample_of_a_kind_is_known_by_itself_alone() -> None:
    found = statistics.over_days([statistics.Day(7.0, np.array([1.0, 2.0]), np.array([2.0]))])
    assert (found.centre, found.p) == (7.0, 1.0)
