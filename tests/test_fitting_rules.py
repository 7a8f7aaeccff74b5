"""Single rules of a fit, on tables so small that the answer is known by hand."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from driftsim.calibration import least_squares, request_fit
from driftsim.calibration.coefficients import _from_blocks, coefficient_intervals, identified_terms
from driftsim.calibration.descent import Slopes, Start, cost, descend
from driftsim.calibration.form import Form
from driftsim.calibration.from_requests import _one_at_a_time, _usable
from driftsim.calibration.from_steps import _numbered, _some_blocks, _step_regions
from driftsim.calibration.held_out import Candidate, best_of
from driftsim.calibration.kept_time import no_time_left
from driftsim.calibration.least_squares import Rows, blocks, cross_validated, quality, solve, tenths
from driftsim.calibration.measures import MEASURES, company, errors
from driftsim.calibration.overlap import integral
from driftsim.calibration.runs import FEWEST_REQUESTS, MOST_ROWS
from driftsim.errors import TraceError
from driftsim.latency.profile import Fit, Profile
from driftsim.latency.steptime import LAUNCH, TERMS
from driftsim.latency.uncertainty import Uncertainty

NAN = math.nan


# -- descent
def start(*values: float, free: tuple[bool, ...] | None = None) -> Start:
    """A start at ``values``, which are shares, with one run of two measures that chance leaves alone."""
    count = len(values)
    return Start(np.array(values), np.ones(count), np.array(free or (True,) * count), np.zeros((1, 2)))


def slopes(*each: float, values: tuple[float, ...], off: float) -> Slopes:
    """Two measures of one run that are ``off``, and change by ``each`` with the share of each coefficient."""
    rows = np.array([[each, each]])
    return Slopes(np.array(values), np.full((1, 2), off), rows, np.ones((1, 2)), start(*values))


def test_the_overhead_of_a_request_is_no_step_that_a_queue_amplifies() -> None:
    def errors_at(values: np.ndarray) -> np.ndarray:
        return np.full((1, 2), 2 * values[0] + 5 * values[1] - 7)

    around = Slopes.around(np.ones(2), start(1.0, 1.0), errors_at)
    assert around.weights == pytest.approx(1 / 2)


def test_a_coefficient_moves_by_three_tenths_of_the_time_at_most() -> None:
    far = slopes(1.0, values=(0.0,), off=-1.0)
    assert far.step(far.values, far.errors, np.ones(1, bool)) == pytest.approx([0.3])


def test_an_outlier_costs_in_proportion_and_what_is_not_there_is_not_counted() -> None:
    found = cost(np.array([[0.01, 0.1, NAN]]), np.array([[1.0, 1.0, 0.0]]))
    assert found == pytest.approx(math.sqrt((0.01**2 + 2 * 0.02 * 0.1 - 0.02**2) / 2))


def test_a_step_follows_the_measures_that_are_chosen() -> None:
    apart = Slopes(
        np.array([0.5]), np.array([[0.1, -0.1]]), np.ones((1, 2, 1)), np.ones((1, 2)), start(0.5)
    )  # the first wants less, the second more
    free = np.ones(1, bool)
    less, more = (apart.step(apart.values, apart.errors, free, np.array([mask])) for mask in ([1, 0], [0, 1]))
    assert less[0] < 0.45 < 0.55 < more[0]
    assert apart.step(apart.values, apart.errors, free) == pytest.approx([0.5])


def test_a_step_that_goes_too_far_is_halved_and_one_to_worse_is_not_taken() -> None:
    around = slopes(1.0, values=(0.0,), off=-0.2)
    (whole,) = around.step(around.values, around.errors, np.ones(1, bool))

    def cliff(values: np.ndarray) -> np.ndarray:
        return np.full((1, 2), values[0] - 0.2 if values[0] < 0.75 * whole else 1.0)

    values, left = descend(around, np.ones(1, bool), cliff)
    assert values == pytest.approx([whole / 2])
    assert left == pytest.approx(whole / 2 - 0.2)
    values, left = descend(around, np.ones(1, bool), lambda _: np.ones((1, 2)))
    assert (values[0], left[0, 0]) == (0.0, -0.2)


def test_what_a_form_does_not_have_goes_though_the_measures_get_worse() -> None:
    around = slopes(1.0, 1.0, values=(0.5, 0.5), off=0.0)

    def errors_at(values: np.ndarray) -> np.ndarray:
        return np.full((1, 2), values.sum() - 1)

    values, _ = descend(around, np.array([True, False]), errors_at)
    assert values[1] == 0
    assert values[0] > 0.5  # the other takes a part of its time


# -- forms
def test_prefills_of_up_to_two_graphs_wait_for_their_launch_until_coefficients_are_known() -> None:
    form = Form(terms=(*TERMS[:4], LAUNCH), graph_tokens=10, launched=True)
    columns = np.array([[1.0, 0, 0, 0, launches] for launches in (0.0, 1.0, 1.0, 2.0, 2.0)])
    waits = form.waits_for_the_host(columns, np.array([5.0, 19.0, 20.0, 39.0, 40.0]))
    assert waits.tolist() == [False, True, False, True, False]


def test_a_launch_stands_in_place_of_what_a_prefill_adds_once() -> None:
    form = Form(terms=(*TERMS[:4], "prefill_step"), graph_tokens=10).richer()[-1]
    assert form.terms == (*TERMS[:4], LAUNCH)
    assert form.richer() == []


def test_cells_that_vary_do_not_tell_forms_apart() -> None:
    none = np.zeros(1)
    around = Slopes(none, none, none, none, Start(none, none, none, none))

    def candidate(terms: int, *cells: float) -> Candidate:
        return Candidate(Form(terms=TERMS[:terms]), np.ones(7, bool), np.zeros(7), around, np.array(cells))

    richer = candidate(5, *([0.010] * 9))
    doubtful = candidate(4, *([0.010] * 8 + [0.019]))  # worse by 0.001, which is its standard error
    assert best_of([richer, candidate(4, *([0.010] * 8 + [0.0188]))]).form == doubtful.form
    surely = candidate(4, *([0.009, 0.013] * 4 + [0.011]))  # worse by 0.001, give or take 0.002 / 3
    assert best_of([richer, surely]) is richer


def test_the_pace_that_leaves_least_is_found_step_by_step() -> None:
    tried: list[float] = []

    def left_out(scale: float) -> float:
        tried.append(scale)
        return 0.5 if scale == 1 else 0.02 if len(tried) == 2 else 0.3

    scale, left = no_time_left(left_out)
    assert left == 0.02
    assert scale == pytest.approx(math.exp(0.1))  # 0.25 is too far at once


# -- least squares
def rows_of(columns: np.ndarray, duration: np.ndarray, block: np.ndarray) -> Rows:
    return Rows(columns, duration, block, np.ones(len(duration)), block)


def test_a_form_is_judged_by_blocks_that_it_was_not_fitted_to_and_no_block_decides_alone() -> None:
    own = np.repeat([1.0, 0.0], [4, 28])  # what the first block alone has
    rows = rows_of(np.column_stack([np.ones(32), own]), 1 + 2 * own, np.repeat(np.arange(8), 4))
    assert cross_validated(rows) == pytest.approx([0.25, *[0.0] * 7], abs=1e-9)


@pytest.mark.parametrize(
    ("linear", "richer", "chosen"),
    [
        ([0.01] * 8, [0.0094] * 8, "linear + prefill attention"),
        ([0.01] * 8, [0.0098] * 8, "linear"),  # roots of errors: 1 % better, and 2 % are asked for
        ([0.01] * 8, [0.0, *[0.0105] * 7], "linear"),  # 4 % better by one fold alone
        ([1e-10] * 8, [0.0] * 8, "linear"),  # exact
    ],
)
def test_a_form_becomes_richer_where_that_is_surely_better(
    linear: list[float], richer: list[float], chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {"linear": linear, "linear + prefill attention": richer}
    monkeypatch.setattr(least_squares, "at_rest", lambda _, form: form)
    monkeypatch.setattr(least_squares, "cross_validated", lambda form: np.array(known.get(str(form), [1.0] * 8)))
    found, considered = least_squares.choose(lambda form: form, Form())  # type: ignore[arg-type, return-value]
    assert str(found) == chosen
    assert (len(considered) > 1) is (linear[0] > 1e-8)


def test_an_outlier_does_not_move_a_fit_and_its_time_is_put_back() -> None:
    rows = rows_of(np.ones((20, 1)), np.array([1.0] * 19 + [3.0]), np.arange(20))
    robust = solve(rows)
    assert robust.coefficients == pytest.approx([1.0], abs=1e-6)
    for lasted, told in ((rows.duration, "10.0 % less than"), (0.9 * np.ones(20), "10.0 % more than")):
        warnings: list[str] = []
        whole = least_squares.with_all_time(robust, lasted, warnings)
        assert whole.fitted.sum() == pytest.approx(lasted.sum())
        assert whole.coefficients == pytest.approx([lasted.mean()])
        assert told in warnings[0]
        assert ("longer" in warnings[0]) is ("less" in told)


def test_a_fit_that_is_too_long_has_a_bias_above_nothing() -> None:
    found = quality(np.array([1.0, 2.0]), np.array([2.0, 2.5]))
    assert (found["bias"], found["mean_absolute_percentage_error"]) == pytest.approx((0.5, (1 + 0.25) / 2))


def test_a_run_has_as_many_blocks_as_a_block_has_rows_and_long_blocks_end_with_their_run() -> None:
    assert np.bincount(blocks(16)).tolist() == [4] * 4
    assert np.bincount(blocks(16, 3)).tolist() == [0] * 3 + [4] * 4
    assert np.bincount(tenths([50, 50])).tolist() == [10] * 10
    assert np.bincount(tenths([30, 60, 60])).tolist() == [15] * 10
    assert np.bincount(tenths([8, 92])).tolist() == [8, 10, 9, 9, 9, 9, 10, 9, 9, 9, 9]


def test_a_jackknife_of_a_mean_is_its_variance() -> None:
    covariance, freedom = _from_blocks(np.ones((5, 1)), np.arange(5.0), np.arange(5))
    assert (covariance[0, 0], freedom) == (pytest.approx(2.5 / 5), 4)


def test_a_term_that_is_never_there_is_told_from_one_that_another_has() -> None:
    prefill = np.tile([0.0, 3.0], 8)
    columns = np.column_stack([np.ones(16), prefill, 2 * prefill, np.zeros(16)])
    warnings: list[str] = []
    form, rows = identified_terms(Form(), rows_of(columns, 1 + prefill, np.arange(16)), warnings)
    assert form.terms == ("intercept", "prefill_token")
    assert rows.columns.shape == (16, 2)
    assert [said.partition(" and")[0] for said in warnings] == [
        "decode_request_s cannot be told from the terms before it",
        "context_token_s was never needed",
    ]


@pytest.mark.parametrize(("value", "deviation", "told"), [(1.0, 0.5, True), (1.0, 0.1, False), (0.01, 0.005, False)])
def test_a_wide_interval_of_a_term_that_matters_is_told(value: float, deviation: float, told: bool) -> None:
    sure = Uncertainty(terms=("launch_s",), covariance=((deviation**2,),), gram=((1.0,),), freedom=9)
    warnings: list[str] = []
    rows = rows_of(np.ones((4, 1)), np.ones(4), np.arange(4))
    ((low, high),) = coefficient_intervals(sure, rows, np.array([value]), warnings).values()
    assert (low, high) == pytest.approx((max(0.0, value - 2.2622 * deviation), value + 2.2622 * deviation), rel=1e-3)
    assert bool(warnings) is told


# -- steps
def test_every_step_is_in_one_region() -> None:
    steps = pd.DataFrame({"prefill_tokens": [0] * 9 + [10, 30, 50], "decode_requests": [*range(1, 10), 4, 4, 4]})
    found = _step_regions(steps, np.ones(12), np.ones(12))
    assert {region.name: region.rows for region in found} == {
        "decode only, batch 1 to 3": 2,
        "decode only, batch 3 to 5": 2,
        "decode only, batch 5 to 7": 2,
        "decode only, batch 7 to 9": 3,
        "prefill of up to 30 tokens": 2,
        "prefill of more than 30 tokens": 1,
    }


def test_no_block_reaches_into_the_next_run_and_rows_that_choose_a_form_are_from_everywhere() -> None:
    table = pd.DataFrame(index=range(9))
    assert np.bincount(_numbered([table, table])).tolist() == [3] * 6
    block = blocks(8 * MOST_ROWS)
    kept = np.unique(block[_some_blocks(block)])
    assert len(kept) == (block.max() + 1) // 8
    assert (kept[0], kept[-1]) == (0, block.max())
    assert np.diff(kept).max() <= 9


# -- timings
def finished(count: int, **columns: Any) -> Any:
    """A run of ``count`` requests that end one a second."""
    begin = np.arange(count, dtype=float)
    table = pd.DataFrame(
        {
            "request_id": [f"r{number}" for number in range(count)],
            "arrival_s": begin,
            "first_token_s": begin + 0.25,
            "finish_s": begin + 1,
            "output_tokens": 9.0,
            "finish_reason": "stop",
        }
    ).assign(**columns)
    return SimpleNamespace(name="r", trace=SimpleNamespace(requests=table, finished=table))


@pytest.mark.parametrize(
    ("columns", "until", "told"),
    [
        ({}, float(FEWEST_REQUESTS), ""),
        ({}, FEWEST_REQUESTS - 0.5, f"r: has {FEWEST_REQUESTS - 1} finished requests"),
        ({"output_tokens": NAN}, math.inf, "output_tokens is empty .usage counts are missing"),
        ({"first_token_s": NAN}, math.inf, "first_token_s is empty .was not recorded"),
        ({"first_token_s": np.arange(FEWEST_REQUESTS) * 1.0}, math.inf, "the clocks do not agree"),
    ],
)
def test_the_fewest_requests_with_all_their_times_can_be_fitted(
    columns: dict[str, Any], until: float, told: str
) -> None:
    run = finished(FEWEST_REQUESTS, **columns)
    if not told:
        _usable(run, until, [])
        return
    with pytest.raises(TraceError, match=told):
        _usable(run, until, [])


def test_one_request_at_a_time_gives_its_step_the_time_of_its_decode() -> None:
    sure = Uncertainty.around(["intercept_s", "decode_request_s"], np.diag([9e-6, 16e-6]), np.eye(2), 9)
    fit = Fit(source="requests", rows=9, mean_absolute_percentage_error=0.0, r_squared=1.0, bias=0.0, uncertainty=sure)
    both = {"intercept_s": (0.0, 0.02), "decode_request_s": (0.0, 0.01)}
    found = _one_at_a_time(Profile.plain(0.01, decode_request_s=0.002).changed(intervals=both, fit=fit), [])
    assert (found.intercept_s, found.decode_request_s) == (0.012, 0.0)
    ((low, high),) = found.intervals.values()
    assert (low, high) == pytest.approx((0.012 - 2.2622 * 0.005, 0.012 + 2.2622 * 0.005), rel=1e-3)


def test_the_overhead_of_a_request_does_not_grow_with_its_steps() -> None:
    assert request_fit.overhead_key(received=True) == "output_lag_s"
    rows = rows_of(np.array([[1.0, 1.0], [2.0, 0.0]] * 2), np.ones(4), np.arange(4))
    fit = request_fit.RequestFit(Form(), np.array([1.0, 2.0, 3.0, 4.0, 5.0]), rows, solve(rows), True, {})
    assert request_fit.scaled(fit, 2.0).values.tolist() == [2.0, 4.0, 6.0, 8.0, 5.0]


def test_waits_are_less_precise_by_how_much_more_they_are_off() -> None:
    rows = rows_of(np.array([[1.0, 1.0], [2.0, 0.0]] * 2), np.array([1.1, 1.01] * 2), np.arange(4))
    fitted: Any = SimpleNamespace(fitted=np.ones(4))
    assert request_fit._precision(rows, fitted) == pytest.approx(0.1)


# -- measures
def test_company_is_counted_over_the_time_that_a_request_decodes() -> None:
    rows = pd.DataFrame(
        {"first_token_s": [0.0, 2.0], "finish_s": [4.0, 4.0], "output_tokens": [5, 3], "prompt_tokens": [10, 100]}
    )
    running, context = company(rows, np.ones(2, bool))
    assert running == pytest.approx([6 / 4, 4 / 2])  # the first is alone for half of its time
    assert context == pytest.approx([(48 + 202) / 6, (26 + 202) / 4])  # contexts grow from 10 to 14, from 100 to 102


def test_what_grows_is_summed_over_time() -> None:
    until = integral(np.array([1.0, 2.0]), np.array([3.0, 4.0]), np.array([2.0, 1.0]), np.array([3.0, 0.0]))
    assert (until(np.array([1.5, 2.0, 2.5, 4.0])) - until(np.array([1.0]))) == pytest.approx(
        [1 + 3 * 1.25 / 2, 2 + 3 * 3 / 2, 3 + 3 * 5.25 / 2 + 0.5, 4 + 3 * 8 / 2 + 2]
    )


def test_a_simulation_is_held_against_the_makespan_and_the_pace_of_each_in_order_of_arrival() -> None:
    recorded = finished(3, prompt_tokens=5.0).trace.requests.iloc[[2, 0, 1]].reset_index(drop=True)
    paces = np.array([4.0, 2.0, 1.0])  # times the recorded ones, row by row
    simulated = recorded.assign(finish_s=recorded["first_token_s"] + 0.75 * paces)
    part = SimpleNamespace(until=math.inf, trace=SimpleNamespace(requests=recorded), grouped={})
    life: Any = SimpleNamespace(recorded=recorded, simulated=simulated, finished=np.ones(3, bool), part=part)
    found = errors(life)
    assert found[MEASURES:] == pytest.approx(np.log([2.0, 1.0, 4.0]))
    assert found[MEASURES - 1] == pytest.approx(math.log((2.25 + 3.0) / 3.0))
    part.until = 2.5  # the request that came last has not ended by then
    assert np.isnan(errors(life)[[MEASURES - 1, MEASURES + 2]]).all()
