"""Intervals, contrasts and verdicts against SciPy, least squares and values by hand; the setting of a validation."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from driftsim import statistics
from driftsim.contrasts import Contrast, adjusted, paired
from driftsim.latency.noise import Noise
from driftsim.latency.steptime import Batch, LinearStepTime, padded, term_values, ticks
from driftsim.simulation.run import simulate
from driftsim.simulation.scenario import Scenario
from driftsim.statistics import Day, Interval
from driftsim.trace.trace import Trace
from driftsim.validation.agreement import (
    MetricAgreement,
    PolicyEffect,
    RankAgreement,
    change_agreement,
    metric_agreement,
    repeats,
)
from driftsim.validation.equivalence import MARGIN, judge
from driftsim.validation.validation import (
    Validation,
    on_measured_steps,
    on_model_steps,
    statistic,
    with_noise,
    worst,
)
from tests.strategies import profile, workload


def test_quantiles_and_p_values_are_of_both_sides() -> None:
    assert statistics.student_quantile(7) == pytest.approx(2.364624)
    assert statistics.student_quantile(7, 0.9) == pytest.approx(1.894579)
    assert statistics.two_sided_p(-2.364624, 7) == pytest.approx(0.05, abs=1e-6)


def test_an_estimate_s_interval_and_p_value_agree() -> None:
    day = Day(5.0, np.array([1.0, 2.0, 3.0, 6.0]), np.array([1.0, 2.0, 2.5, 3.0]))
    found = statistics.over_days([day])
    test = stats.ttest_1samp(day.local, 0.0)  # the same, but for the root of the number of resamples
    spread = day.local.std(ddof=1)
    assert found.error == pytest.approx(spread)
    assert found.freedom == 3
    half = float(stats.t.ppf(0.975, 3)) * spread
    assert tuple(found.interval) == pytest.approx((3.0, 3 - half, 3 + half))
    assert found.p == pytest.approx(float(2 * stats.t.sf(float(test.statistic) / 2, 3)))


def test_several_days_are_as_unsure_as_their_differences_or_as_each_of_them() -> None:
    random = np.random.default_rng(5)
    calm = [
        Day(number, number + random.normal(0, 0.01, 9), number + random.normal(0, 0.01, 9))
        for number in (1.0, 2.0, 6.0)
    ]
    found, centres = statistics.over_days(calm), np.array([day.local.mean() for day in calm])
    assert found.centre == pytest.approx(centres.mean())
    assert (found.this_run, found.freedom) == (1.0, 2)
    assert found.error == pytest.approx(centres.std(ddof=1) / math.sqrt(3))
    alike = [Day(float(number), random.normal(0, 1, 9), random.normal(0, 3, 9)) for number in range(3)]
    alike = [day._replace(local=day.local - day.local.mean() + 0.01 * place) for place, day in enumerate(alike)]
    wide = statistics.over_days(alike)
    spreads = [max(day.local.std(ddof=1), day.circular.std(ddof=1)) for day in alike]
    assert wide.error == pytest.approx(math.sqrt(np.mean(np.square(spreads)) / 3))
    assert wide.freedom == 8


def test_a_further_source_of_error_adds_in_squares() -> None:
    half = math.hypot(3.0, 2.364624 * 2.0)
    assert tuple(statistics.widened(Interval(1.0, -2.0, 4.0), 2.0, 7)) == pytest.approx((1.0, 1 - half, 1 + half))


def test_holm_s_adjustment_is_holm_s() -> None:
    assert statistics.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert statistics.holm([0.3, 0.6]) == pytest.approx([0.6, 0.6])
    assert statistics.holm([0.2]) == [0.2]


def test_an_interval_that_touches_zero_includes_it() -> None:
    assert Interval(0.5, 0.0, 1.0).spans_zero
    assert Interval(-0.5, -1.0, 0.0).spans_zero


def test_a_paired_contrast_is_the_t_test_of_differences() -> None:
    ones, others = np.array([1.0, 2.5, 3.1, 4.4]), np.array([0.5, 2.1, 3.3, 3.7, 99.0])
    found = paired(ones, others)
    test = stats.ttest_rel(ones, others[:4])
    assert found.p == pytest.approx(float(test.pvalue))
    low, high = test.confidence_interval(0.95)
    assert tuple(found.interval()) == pytest.approx((float((ones - others[:4]).mean()), low, high))
    assert tuple(found.relative()) == pytest.approx(tuple(np.expm1([found.value, low, high])))


def test_an_adjusted_contrast_is_that_of_least_squares() -> None:
    random = np.random.default_rng(6)
    covariate = {name: random.normal(shift, 1, 6) for name, shift in (("fifo", 0.0), ("sjf", 2.0), ("aging", -1.0))}
    values = {name: level + 0.7 * covariate[name] + random.normal(0, 0.2, 6)
              for name, level in (("fifo", 1.0), ("sjf", 0.4), ("aging", 1.6))}  # fmt: skip
    found = adjusted(values, covariate, "fifo")
    assert found is not None
    names = list(values)
    design = np.zeros((18, 4))
    for place, name in enumerate(names):
        design[6 * place : 6 * place + 6, 0 if name == "fifo" else place] = 1
        design[:, 0] = 1
        design[6 * place : 6 * place + 6, 3] = covariate[name]
    outcome = np.concatenate([values[name] for name in names])
    solved, squares, *_ = np.linalg.lstsq(design, outcome, rcond=None)
    errors = np.sqrt(np.diag(np.linalg.inv(design.T @ design)) * squares[0] / 14)
    for place, name in ((1, "sjf"), (2, "aging")):
        contrast = found.contrasts[name]
        assert (contrast.value, contrast.error) == pytest.approx((solved[place], errors[place]))
        assert contrast.freedom == 14
    assert found.slope.value == pytest.approx(solved[3])
    assert found.slope.high - found.slope.low == pytest.approx(2 * float(stats.t.ppf(0.975, 14)) * errors[3])
    within = sum(float(np.square(own - own.mean()).sum()) for own in values.values())
    assert found.explained == pytest.approx(1 - squares[0] / within)


@pytest.mark.parametrize("sign", [-1, 1])
def test_a_change_is_equivalent_inside_the_margin_and_different_outside_by_the_ninety_percent_interval(
    sign: int,
) -> None:
    assert pytest.approx(math.log(1.1)) == MARGIN
    reach = 1.833113  # t, 0.95, 9 degrees of freedom
    for value, error, verdict in (
        (0.0, 0.99 * MARGIN / reach, "equivalent"), (0.0, 1.01 * MARGIN / reach, "undetermined"),
        (0.5 * MARGIN, 0.49 * MARGIN / reach, "equivalent"), (0.5 * MARGIN, 0.51 * MARGIN / reach, "undetermined"),
        (2 * MARGIN, 0.99 * MARGIN / reach, "different"), (2 * MARGIN, 1.01 * MARGIN / reach, "undetermined"),
    ):  # fmt: skip
        assert judge(Contrast(sign * value, error, 9), 10).verdict == verdict
    assert judge(Contrast(0.0, 0.01, 0), 1).verdict == "undetermined"
    doubtful = Contrast(0.0, 2.0 * MARGIN / 2.919986, 2)  # t, 0.95, 2 degrees of freedom
    assert 0 < judge(doubtful, 3, a_round=9).more < judge(doubtful, 3).more


# -- validations


@pytest.fixture(scope="module")
def run() -> Trace:
    random = np.random.default_rng(2)
    work = workload(
        np.cumsum(random.exponential(0.02, 20)).tolist(), random.integers(2, 20, 20).tolist(),
        tenant=random.choice(["a", "b"], 20),
    )  # fmt: skip
    return simulate(Scenario(profile=profile()), work, record_steps=True)


def shifted(trace: Trace, **by: float) -> Trace:
    return replace(
        trace, requests=trace.requests.assign(**{name: trace.requests[name] + own for name, own in by.items()})
    )


def test_rows_of_a_validation_tell_measured_simulated_and_how_far_the_simulation_is_off(run: Trace) -> None:
    later = shifted(run, finish_s=0.1)
    own = Validation("v", run, later)
    rows = {(row["metric"], row["stat"]): row for row in own.rows()}
    measured, simulated = (float((one.requests["finish_s"] - one.requests["arrival_s"]).mean()) for one in (run, later))
    assert rows["e2e", "mean"]["measured"] == pytest.approx(measured)
    assert rows["e2e", "mean"]["simulated"] == pytest.approx(simulated)
    assert rows["e2e", "mean"]["error"] == pytest.approx(simulated / measured - 1)
    assert worst([own]) == pytest.approx(max(abs(row["error"]) for row in rows.values()))
    assert worst([Validation("v", later, run)]) > 0
    tenants = {(row["tenant"], row["metric"], row["stat"]): row["measured"] for row in own.tenants()}
    for name in ("a", "b"):
        mine = run.requests[run.requests["tenant"] == name]
        assert tenants[name, "e2e", "mean"] == pytest.approx((mine["finish_s"] - mine["arrival_s"]).mean())


@pytest.mark.parametrize("column", ["first_token_s", "finish_s"])
@pytest.mark.parametrize("by", [-0.0025, 0.0025, 0.0015])
def test_an_exception_is_off_by_more_than_two_milliseconds_in_either_time_and_direction(
    column: str, by: float, run: Trace
) -> None:
    table = run.requests.assign(**{column: run.requests[column] + by * (run.requests["request_id"] == "r4")})
    found = on_measured_steps("v", replace(run, requests=table))
    assert found.exceptions is not None
    assert list(found.exceptions["request_id"]) == (["r4"] if abs(by) > 0.002 else [])
    assert found.steps_alike == 1.0
    assert found.simulated.steps is not None
    assert run.steps is not None
    assert found.simulated.steps["duration_s"].to_numpy() == pytest.approx(run.steps["duration_s"].to_numpy())


def test_steps_that_are_missing_on_one_side_are_not_alike(run: Trace) -> None:
    assert run.steps is not None
    count = len(run.steps)
    late = run.steps.iloc[-1:].assign(start_s=run.steps["start_s"].max() + 1.0)
    more = replace(run, steps=pd.concat([run.steps, late, late.assign(start_s=late["start_s"] + 1)], ignore_index=True))
    assert on_measured_steps("v", more).steps_alike == pytest.approx(count / (count + 2))


def test_those_that_did_not_finish_are_no_measure(run: Trace) -> None:
    reasons = ["abort", *run.requests["finish_reason"][1:]]
    cut = replace(run, requests=run.requests.assign(finish_reason=pd.Series(reasons, dtype=object)))
    found = on_model_steps("v", cut, profile())
    assert list(found.recorded.requests["request_id"]) == list(found.simulated.requests["request_id"])
    assert "r0" not in set(found.simulated.requests["request_id"])


def test_noise_gives_the_middle_of_its_seeds(run: Trace) -> None:
    noisy = profile(noise=Noise(spread=0.4, autocorrelation=0.5, run_spread=0.2))
    found = {(row["metric"], row["stat"]): row for row in with_noise("v", run, noisy, 5)}
    drawn = [on_model_steps("v", run, noisy, noise=True, seed=seed).simulated for seed in range(5)]
    values = [statistic(one, "e2e", "mean") for one in drawn]
    assert len(set(values)) == 5
    own = found["e2e", "mean"]
    assert (own["low"], own["high"]) == pytest.approx(tuple(np.percentile(values, [2.5, 97.5])))


def test_repeats_are_of_one_policy_limit_and_requests_and_their_spread_is_the_measured_one(run: Trace) -> None:
    def named(name: str, by: float, **header: Any) -> Validation:
        recorded = shifted(run, finish_s=by)
        recorded = replace(recorded, header=recorded.header.changed(**header))
        return Validation(name, recorded, shifted(run, finish_s=0.5))

    sjf = {"policy": "sjf", "estimator": "static"}
    group = [named("a", 0.0), named("b", 0.3), named("c", 0.1)]
    others = [named("d", 0.0, max_in_flight=2), named("e", 0.0, admission=sjf)]
    found = repeats([*group, *others])
    assert sorted(map(len, found.values())) == [1, 1, 3]
    own = next(one for one in metric_agreement([*group, *others]) if (one.metric, one.stat) == ("e2e", "mean"))
    logs = np.log([statistic(one.recorded, "e2e", "mean") for one in group])
    assert own.spread == pytest.approx(float(logs.std(ddof=1)))
    assert own.measured == pytest.approx(math.exp(logs.mean()))
    assert own.error == pytest.approx(statistic(group[0].simulated, "e2e", "mean") / math.exp(logs.mean()) - 1)
    assert MetricAgreement("n", "e2e", "mean", 2, 2.0, 3.0, 0.1).error == 0.5


def test_rounds_are_matched_in_order_of_capture(run: Trace) -> None:
    def named(minute: int, by: float, policy: str) -> Validation:
        admission = {"policy": policy, "estimator": "static"}
        header = run.header.changed(captured_at=f"2026-01-01T00:0{minute}:00Z", admission=admission, kind="captured")
        return Validation(f"{policy}-{minute}", replace(shifted(run, finish_s=by), header=header), run)

    fifo = [named(minute, 0.1 * minute, "fifo") for minute in range(4)]
    sjf = [named(minute, 0.1 * minute + 0.05, "sjf") for minute in range(4)]
    ordered, _ = change_agreement({"fifo": fifo, "sjf": sjf})
    shuffled, _ = change_agreement({"fifo": fifo, "sjf": [sjf[place] for place in (2, 0, 3, 1)]})
    own = ordered[0]
    errors = [
        [math.log(statistic(one.simulated, "e2e", "mean") / statistic(one.recorded, "e2e", "mean")) for one in group]
        for group in (sjf, fifo)
    ]
    assert (own.policy, own.metric, own.stat) == ("sjf", "e2e", "mean")
    assert own.difference.paired.value == pytest.approx(
        math.expm1(float((np.array(errors[0]) - np.array(errors[1])).mean()))
    )
    assert own.difference.paired == pytest.approx(shuffled[0].difference.paired)


def test_signs_agree_only_where_both_are_known_and_tau_counts_ties() -> None:
    up, down, unsure = Interval(0.2, 0.1, 0.3), Interval(-0.2, -0.3, -0.1), Interval(0.1, -0.1, 0.3)
    for measured, simulated, agrees in ((up, up, True), (up, down, False), (unsure, down, None), (up, unsure, None)):
        assert PolicyEffect("sjf", "e2e", "mean", measured, simulated).agrees is agrees
    assert RankAgreement("e2e", "mean", 5, 1, 3).tau == pytest.approx(4 / math.sqrt(6 * 9))


# -- step times


def test_a_step_is_the_sum_of_its_parts_alone_in_a_run_and_in_the_fit() -> None:
    seconds = {"intercept": 7, "prefill_token": 11, "decode_request": 5, "context_token": 2, "prefill_attention": 3.0,
               "prefill_step": 1000}  # fmt: skip
    for hidden in (0, 6):
        for sizes in ((), (1, 2, 4, 8)):
            model = LinearStepTime(**seconds, hidden_tokens=hidden, graph_sizes=sizes)  # type: ignore[arg-type]
            for tokens, decodes in ((0, 3), (10, 3), (2, 3), (9, 0), (0, 9), (4, 8), (0, 4), (0, 6)):
                batch = Batch(tokens, int(tokens > 0), 2.0 * tokens, decodes, 40)
                size = decodes if not sizes or not decodes else next((one for one in sizes if one >= decodes), decodes)
                paid = max(0, tokens + decodes - hidden) if hidden else tokens
                truth = 7 + 5 * size + 2 * 40 + 11 * paid
                truth += (1000 + 3 * 2 * tokens) if tokens else 0
                assert model.step(batch) == truth
                table = pd.DataFrame({"prefill_tokens": [tokens], "decode_requests": [decodes], "context_tokens": [40],
                                      "prefill_attention": [2.0 * tokens]})  # fmt: skip
                values = term_values(table, hidden, sizes)
                assert sum(seconds[name] * float(own[0]) for name, own in values.items()) == truth
                if not tokens:
                    longer = [Batch(0, 0, 0.0, decodes, 40 + place * decodes) for place in range(4)]
                    ends = np.cumsum([model.step(one) for one in longer])
                    assert [model.decode_run(batch, count) for count in (1, 2, 3, 4)] == ends.tolist()
                    for elapsed in (0, 1, int(ends[0]), int(ends[0]) + 1, int(ends[2]), int(ends[2]) + 1):
                        least = max(1, int(np.searchsorted(ends, elapsed)) + 1)
                        assert model.decode_steps(batch, elapsed, 0) == least
    assert ticks(1.6e-12) == 2
    assert [padded(size, (1, 2, 4)) for size in (0, 1, 2, 3, 4, 5)] == [0, 1, 2, 4, 4, 5]
