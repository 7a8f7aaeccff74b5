"""Guards on a fit: what does not describe its timings is refused with its reason, and no time is lost."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from driftsim.calibration.calibrate import calibrate
from driftsim.calibration.guards import describes, likeliest_reason
from driftsim.calibration.runs import Run
from driftsim.errors import TraceError
from driftsim.latency.profile import Fit, Profile
from driftsim.simulation.run import simulate
from driftsim.simulation.scenario import Scenario
from driftsim.trace.schema import LIFE_TIMES
from driftsim.trace.trace import Trace
from driftsim.validation.validation import on_model_steps
from driftsim.workloads.workload import Workload
from tests.test_loops import PLAIN, model


@pytest.fixture(scope="module")
def good() -> Trace:
    made = Workload.poisson(rate=4.0, requests=140, **PLAIN)
    return simulate(Scenario(profile=model(), policy="stock"), made, record_steps=True)


def changed(trace: Trace, **columns: Any) -> Trace:
    rows = trace.requests.assign(**columns)
    longest = int((rows["prompt_tokens"] + rows["output_tokens"]).max())
    engine = trace.header.engine.changed(max_model_len=max(trace.header.engine.max_model_len, longest + 1))
    rows["max_tokens"] = rows[["max_tokens", "output_tokens"]].max(axis=1)
    return Trace(trace.header.changed(engine=engine), rows)


def scaled(trace: Trace, factor: float) -> Trace:
    return changed(trace, **{name: factor * trace.requests[name] for name in LIFE_TIMES})


def fit(trace: Trace, **options: Any) -> Profile:
    return calibrate([Run("t", trace)], source="requests", **options)


@pytest.fixture(scope="module")
def fitted_well(good: Trace) -> Profile:
    return fit(good)


def test_a_fit_that_describes_its_timings_passes(fitted_well: Profile) -> None:
    assert not any("forced" in warning for warning in fitted_well.warnings)


@pytest.mark.parametrize("kind", ["characters", pytest.param("words", marks=pytest.mark.nightly), "another column"])
def test_outputs_that_are_no_tokens_are_refused_with_that_reason(good: Trace, kind: str) -> None:
    random = np.random.default_rng(3)
    tokens = good.requests["output_tokens"].to_numpy()
    counts = {
        "characters": tokens * random.uniform(2.0, 7.0, len(tokens)),
        "words": np.maximum(2, tokens * random.uniform(0.25, 1.0, len(tokens))),
        "another column": random.permutation(tokens),
    }[kind]
    wrong = changed(good, output_tokens=counts.astype(int))
    with pytest.raises(TraceError, match=r"does not describe these timings.*output_tokens may be characters or words"):
        fit(wrong)


def test_a_fit_that_does_not_describe_its_timings_can_be_forced(good: Trace) -> None:
    tokens = np.random.default_rng(3).permutation(good.requests["output_tokens"].to_numpy())
    forced = fit(changed(good, output_tokens=tokens), force=True)
    (warning,) = (one for one in forced.warnings if one.startswith("forced: the profile does not describe"))
    assert "output_tokens may be characters or words" in warning


def test_milliseconds_taken_for_seconds_are_refused_by_name(good: Trace) -> None:
    with pytest.raises(TraceError, match=r"the times look like milliseconds \(import with units = .*ms"):
        fit(scaled(good, 1000.0))


def test_seconds_taken_for_milliseconds_are_refused(good: Trace) -> None:
    with pytest.raises(TraceError, match="the times look like seconds that were taken for another unit"):
        fit(scaled(good, 1e-3))


def test_a_load_that_the_trace_lacks_is_the_reason_that_is_named(good: Trace) -> None:
    rows = good.requests
    lost = np.arange(len(rows)) % 3 == 0
    empty = rows.assign(
        finish_reason=rows["finish_reason"].mask(lost, "abort"),
        output_tokens=rows["output_tokens"].mask(lost),
        **{name: rows[name].mask(lost) for name in ("scheduled_s", "first_token_s", "finish_s")},
    )
    reason = likeliest_reason([Run("t", Trace(good.header, empty))])
    assert "34 % of the requests of t have no known output, so that their load is missing" in reason


@pytest.mark.parametrize(
    ("error", "percentiles", "moved", "what"),
    [
        (0.02, 0.08, 0.001, ""),
        (0.5, 0.05, 0.001, "a request's decode time is off by 50 %"),
        (0.02, 0.27, 0.001, "percentiles of TTFT, TPOT and E2E are off by 27 %"),  # of a run whose load was missing
        (0.02, 0.5, 0.001, "percentiles of TTFT, TPOT and E2E are off by 50 %"),
        (0.02, 0.08, 0.32, "does not settle: its last round still moved a term by 32 %"),
        (0.02, 0.04, 0.32, ""),  # two terms that the run cannot tell apart may trade places for ever
    ],
)
def test_what_speaks_against_a_fit_is_named(error: float, percentiles: float, moved: float, what: str) -> None:
    quality = Fit(source="requests", rows=99, mean_absolute_percentage_error=error, r_squared=0.5, bias=0.0)
    said = describes(model().changed(fit=quality), [], percentiles, moved)
    assert (what in said) if what else said == ""


def test_steps_that_no_model_describes_are_refused(good: Trace) -> None:
    assert good.steps is not None
    random = np.random.default_rng(1)
    wild = good.steps["duration_s"] * np.exp(random.normal(0.0, 2.0, len(good.steps)))
    trace = replace(good, steps=good.steps.assign(duration_s=wild))
    with pytest.raises(TraceError, match="a step's time is off by"):
        calibrate([Run("t", trace)], source="steps")


# -- no time is lost
def disturbed(trace: Trace, share: float = 0.1, slower: float = 2.0) -> Trace:
    """``trace`` of a machine that is ``slower`` for a ``share`` of the run, in its middle."""
    end = float(trace.requests["finish_s"].max())
    begin, stop = 0.4 * end, (0.4 + share) * end

    def late(times: Any) -> Any:
        return times + (slower - 1) * np.clip(times - begin, 0.0, stop - begin)

    rows = trace.requests.assign(**{name: late(trace.requests[name]) for name in LIFE_TIMES})
    assert trace.steps is not None
    over = trace.steps["start_s"] + trace.steps["duration_s"]
    steps = trace.steps.assign(
        start_s=late(trace.steps["start_s"]), duration_s=late(over) - late(trace.steps["start_s"])
    )
    return replace(trace, requests=rows, steps=steps)


@pytest.mark.parametrize("source", ["steps", "requests"])
def test_a_disturbance_goes_back_as_mean_time(good: Trace, source: Any) -> None:
    trace = disturbed(good)
    fitted = calibrate([Run("t", trace)], source=source)
    assert any("so that no time is lost" in warning for warning in fitted.warnings)
    assert trace.steps is not None
    if source == "steps":
        assert fitted.durations(trace.steps).sum() == pytest.approx(trace.steps["duration_s"].sum(), rel=1e-6)
    errors = {(row["metric"], row["stat"]): row["error"] for row in on_model_steps("t", trace, fitted).rows()}
    assert abs(errors["e2e", "mean"]) < 0.03
    assert abs(errors["tpot", "mean"]) < 0.03


def test_where_nothing_is_disturbed_nothing_is_put_back(good: Trace, fitted_well: Profile) -> None:
    for fitted in (calibrate([Run("t", good)], source="steps"), fitted_well):
        assert not any("no time is lost" in warning for warning in fitted.warnings)
