"""Step times at the knee: fitted to requests' timings alone, they hold at loads that were not fitted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from driftsim.calibration.calibrate import calibrate
from driftsim.calibration.descent import Slopes, Start, descend
from driftsim.calibration.form import Form
from driftsim.calibration.guards import unphysical
from driftsim.calibration.held_out import Candidate, best_of, folds_of
from driftsim.calibration.kept_time import no_time_left
from driftsim.calibration.least_squares import LEFT_OUT
from driftsim.calibration.lives import resimulate
from driftsim.calibration.measures import prefilled
from driftsim.calibration.overlap import Excerpt
from driftsim.calibration.request_rows import rows_of
from driftsim.calibration.runs import Run
from driftsim.latency.profile import Fit, Profile
from driftsim.latency.steptime import TERMS, Batch
from driftsim.latency.uncertainty import Uncertainty
from driftsim.metrics import e2e
from driftsim.simulation.as_measured import simulate_as_measured
from driftsim.trace.trace import Trace, read
from driftsim.validation.validation import on_model_steps
from tests.conftest import ROOT
from tests.gpu import served
from tests.knee import GPUS

FITTED = (0.4, 0.8, 1.3)  # shares of the capacity
UNSEEN = {"below": 0.6, "knee": 0.95, "beyond": 1.15}
E2E_WITHIN = {"below": 0.02, "knee": 0.04}
MAKESPAN_WITHIN = 0.02


def calibrated(name: str, count: int) -> tuple[Profile, list[Trace]]:
    traces = [GPUS[name].run(load, count, 11 + seed) for seed, load in enumerate(FITTED)]
    return calibrate([Run(f"run {at}", trace) for at, trace in enumerate(traces)], source="requests"), traces


def check_unseen(profile: Profile, name: str, count: int, seed: int) -> None:
    for where, load in UNSEEN.items():
        rows = on_model_steps("unseen", GPUS[name].run(load, count, seed), profile).rows()
        errors = {(row["metric"], row["stat"]): abs(row["error"]) for row in rows}
        if where in E2E_WITHIN:
            assert errors["e2e", "mean"] < E2E_WITHIN[where], where
        assert errors["makespan", "mean"] < MAKESPAN_WITHIN, where


def time_left_out(profile: Profile, traces: list[Trace]) -> float:
    measured = sum(float(e2e(trace.finished).sum()) for trace in traces)
    return measured / sum(float(e2e(simulate_as_measured(trace, profile).finished).sum()) for trace in traces) - 1


def test_unseen_loads_are_predicted_and_time_is_kept() -> None:
    profile, traces = calibrated("sharp", 100)
    assert profile.fit is not None
    assert profile.hidden_tokens == round(profile.intercept_s / profile.prefill_token_s), profile.fit.considered
    assert {"linear", "roofline"} <= profile.fit.considered.keys()
    check_unseen(profile, "sharp", 300, 71)
    assert abs(time_left_out(profile, traces)) <= LEFT_OUT


@pytest.mark.nightly
@pytest.mark.parametrize("name", GPUS)
def test_unseen_loads_are_predicted_on_every_gpu(name: str) -> None:
    profile, traces = calibrated(name, 400)
    for seed in (71, 72, 73):
        check_unseen(profile, name, 450, seed)
    assert abs(time_left_out(profile, traces)) <= LEFT_OUT


# -- one load of a real GPU, and its mean E2E at the others
H200 = ("load-0.5", "load-0.8", "load-0.95", "backlog")
OFF = {
    "load-0.5": 0.11,
    "load-0.8": 0.05,
    "load-0.95": 0.04,
    "backlog": 0.04,
}  # 0.12 where steps are fitted to load-0.5


def check_others(name: str, others: Sequence[str]) -> None:
    traces = {load: read(ROOT / "traces" / f"qwen1.8b-h200-{load}") for load in (name, *others)}
    profile = calibrate([Run(name, traces[name])], source="requests")
    for load in others:
        rows = on_model_steps(load, traces[load], profile).rows()
        error = next(row["error"] for row in rows if (row["metric"], row["stat"]) == ("e2e", "mean"))
        assert abs(error) < OFF[name], (load, error)


@pytest.mark.nightly
@pytest.mark.parametrize("name", H200)
def test_one_load_tells_of_the_others(name: str) -> None:
    check_others(name, [load for load in H200 if load != name])


# -- the roofline
STEPS = pd.DataFrame(
    {
        "prefill_tokens": [0, 100, 299, 301, 2000],
        "prefill_requests": [0, 1, 1, 1, 3],
        "prefill_attention": [0.0, 5e3, 4e4, 4e4, 1e6],
        "decode_requests": [7, 0, 2, 2, 5],
        "context_tokens": [900, 0, 50, 50, 800],
    }
)


def test_the_columns_of_a_roofline_add_up_to_the_engines_durations() -> None:
    values = np.array([0.012, 4e-5, 2e-5, 1e-7, 1e-9, 0.001])
    form = Form(terms=TERMS, roofline=True).tied(values)
    assert form.hidden_tokens == 300
    times = {f"{term}_s": value for term, value in zip(TERMS, values, strict=True)}
    profile = Profile.plain(intercept_s=0.012).changed(**times, hidden_tokens=form.hidden_tokens)
    batches = [Batch(**{str(name): value for name, value in row.items()}) for row in STEPS.to_dict("records")]
    lasted = np.array([profile.step_time().step(batch) for batch in batches]) / 1e12
    assert form.columns(STEPS) @ values == pytest.approx(lasted, rel=1e-9)


def test_requests_whose_steps_all_compute_have_rows() -> None:
    """Such steps pay no intercept; the requests that met no others are not to be left out."""
    trace = GPUS["sharp"].run(0.4, 30, 3)
    profile = Profile.plain(intercept_s=1e-4, prefill_token_s=1e-4).changed(hidden_tokens=1, engine=trace.header.engine)
    life = resimulate(Excerpt(trace), profile, loops=True)
    rows = rows_of([life], Form(hidden_tokens=1, roofline=True), precision=(0.1, 1.0))
    assert (rows.columns[:, 0] == 0).any()
    assert len(rows.duration) == 2 * len(trace.requests)


def test_a_roofline_that_is_drawn_again_is_one() -> None:
    sure = Uncertainty.around(
        ["intercept_s", "prefill_token_s"], np.diag([1e-6, 1e-12]), np.array([[1.0, 0.1], [0.1, 1.0]]), 9
    )
    fit = Fit(source="requests", rows=9, mean_absolute_percentage_error=0.0, r_squared=1.0, bias=0.0, uncertainty=sure)
    tied = Profile.plain(intercept_s=0.012, prefill_token_s=4e-5).changed(hidden_tokens=300, fit=fit)
    drawn = tied.drawn(np.random.default_rng(1))
    assert drawn.intercept_s != tied.intercept_s
    assert drawn.hidden_tokens == round(drawn.intercept_s / drawn.prefill_token_s) != 300
    assert tied.changed(hidden_tokens=128).drawn(np.random.default_rng(1)).hidden_tokens == 128


# -- descent
def test_a_descent_moves_every_coefficient_those_at_0_among_them() -> None:
    """SciPy's own differences are relative to the coefficient, and vanish at 0."""
    random = np.random.default_rng(3)
    matrix, truth = random.uniform(0, 2, (2, 40, 4)), np.array([0.01, 3e-5, 2e-8, 0.0])
    share = np.array([30.0, 1e4, 1e7, 1.0])

    def errors_at(values: np.ndarray) -> np.ndarray:
        return np.asarray(matrix @ ((values - truth) * share))

    start = np.array([0.012, 2e-5, 0.0, 0.01])
    free = np.ones(4, dtype=bool)
    around = Slopes.around(start, Start(start, share, free, np.zeros((2, 40))), errors_at)
    values, errors = descend(around, free, errors_at, steps=4)
    assert around.cost(errors) < 0.1 * around.cost(around.errors)
    assert values[2] > 1e-8


def test_what_the_measures_do_not_tell_stays_where_the_rows_put_it() -> None:
    start = Start(np.array([0.6, 0.2, 0.0]), np.ones(3), np.array([True, True, False]), np.zeros((1, 9)))

    def errors_at(values: np.ndarray) -> np.ndarray:
        return np.full((1, 9), values.sum() - 1.0)

    values = np.array([0.2, 0.6, 0.0])
    for _ in range(4):
        values, _ = descend(Slopes.around(values, start, errors_at), start.free, errors_at)
    assert values.sum() == pytest.approx(1.0, abs=0.01)
    assert values[0] - values[1] == pytest.approx(0.4, abs=0.01)


def test_what_a_queue_amplifies_counts_as_the_error_of_a_step() -> None:
    amplification = np.array([[1.0, 1.0, 11.6]])

    def errors_at(values: np.ndarray) -> np.ndarray:
        return np.asarray(amplification * (values[0] - 1.0))

    start = Start(np.array([1.0, 0.0]), np.ones(2), np.ones(2, bool), np.array([[0.0, 0.03, 0.0]]))
    around = Slopes.around(start.values, start, errors_at)
    assert around.weights[0, 0] == pytest.approx(1.0)
    assert around.weights[0, 1] < 0.15  # off by 3 % by chance alone
    assert around.weights[0, 2] == pytest.approx(1 / 11.6)


def test_of_forms_that_do_as_well_the_simplest_is_chosen() -> None:
    none = np.zeros(1)
    slopes = Slopes(none, none, none, none, Start(none, none, none, none))

    def candidate(terms: int, *cells: float) -> Candidate:
        return Candidate(Form(terms=TERMS[:terms]), np.ones(7, bool), np.zeros(7), slopes, np.array(cells))

    simple = candidate(4, 0.010, 0.012, 0.011)
    assert best_of([candidate(5, 0.011, 0.010, 0.0115), simple]) is simple
    richer = candidate(5, 0.004, 0.006, 0.005)
    assert best_of([simple, richer]) is richer


def test_every_fold_leaves_something_out_and_every_run_is_left_out_once() -> None:
    for runs in (1, 2, 3, 6):
        folds = folds_of([9] * runs)
        assert all(0 < fold.sum() < fold.size for fold in folds)
        assert (~folds[0]).any(axis=1).all()  # the later part of each
        out = np.array([~fold.any(axis=1) for fold in folds[1:]])
        assert (out.sum(axis=0) == (1 if runs > 1 else 0)).all()


# -- measures
def test_the_prefills_that_a_request_met_are_counted_per_token_of_its_own() -> None:
    rows = pd.DataFrame(
        {
            "first_token_s": [1.0, 2.0, 3.0, np.nan, 9.0],
            "finish_s": [5.0, 2.5, 8.0, np.nan, 9.0],
            "output_tokens": [5, 2, 11, 0, 1],
            "prompt_tokens": [10, 200, 3000, 40000, 500000],
        }
    )
    met, tokens = prefilled(rows, rows["finish_s"].notna().to_numpy())
    assert met == pytest.approx([2 / 4, 0, 0, np.nan, np.nan], nan_ok=True)
    assert tokens == pytest.approx([3200 / 4, 0, 0, np.nan, np.nan], nan_ok=True)


# -- what is said
def test_time_that_no_pace_of_the_steps_keeps_is_left_at_its_least() -> None:
    assert no_time_left(lambda scale: 0.02) == (1.0, 0.02)
    _, left = no_time_left(lambda scale: 1.3 / scale**8 - 1)
    assert abs(left) <= LEFT_OUT


def test_a_profile_that_is_not_physical_is_said_to_be_so() -> None:
    trace = served(8, 60, 3, "http")
    fit = Fit(source="requests", rows=9, mean_absolute_percentage_error=0.0, r_squared=1.0, bias=0.0)
    sound = Profile.plain(intercept_s=0.01, prefill_token_s=4e-5).changed(fit=fit, submit_lag_s=0.01)
    runs = [Run("t", trace)]
    assert unphysical(sound, runs) == []
    (said,) = unphysical(sound.changed(intercept_s=1e-6), runs)
    assert "not physical: intercept_s is 1e-06 s" in said
    (said,) = unphysical(sound.changed(submit_lag_s=0.2), runs)
    assert "submit_lag_s is 0.2 s" in said
    measured = sound.changed(submit_lag_s=0.2, fit=fit.changed(source="steps"))
    assert unphysical(measured, runs) == []


def test_requests_that_all_waited_longer_are_fitted_with_a_warning() -> None:
    trace = GPUS["smooth"].run(0.4, 50, 3)
    rows = trace.requests
    late = rows.assign(first_token_s=rows["first_token_s"] + 0.2, finish_s=rows["finish_s"] + 0.2)
    profile = calibrate([Run("late", replace(trace, requests=late))], source="requests", force=True)
    assert any("not physical: submit_lag_s" in warning for warning in profile.warnings), profile.warnings
