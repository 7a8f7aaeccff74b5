"""A profile fitted to a trace: it finds what made the trace, and says when it cannot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from driftsim.calibration.calibrate import calibrate, fit_profile
from driftsim.calibration.coverage import extent, extrapolation_warnings
from driftsim.calibration.form import Form
from driftsim.calibration.runs import Run
from driftsim.errors import TraceError
from driftsim.latency.noise import Noise
from driftsim.latency.profile import Coverage, Profile, load_profile
from driftsim.latency.steptime import GRAPH_SIZES, Batch, LinearStepTime
from driftsim.simulation.run import simulate
from driftsim.simulation.scenario import Scenario
from driftsim.trace.header import MachineLoad
from driftsim.trace.trace import Trace
from tests.strategies import engine, profile, workload

TRUE = profile(
    engine(max_num_seqs=8, max_num_batched_tokens=256),
    intercept_s=0.012,
    prefill_token_s=2e-4,
    decode_request_s=5e-4,
    context_token_s=1e-6,
    gap_s=3e-5,
    notify_lag_s=0.002,
    submit_lag_s=0.001,
)


def made(**columns: Any) -> Trace:
    random = np.random.default_rng(1)
    arrivals = np.cumsum(random.exponential(0.12, 300)).tolist()
    lengths = random.integers(1, 100, 300).tolist()
    prompts = random.integers(5, 200, 300)
    work = workload(arrivals, lengths, prompt_tokens=prompts, **columns)
    return simulate(Scenario(profile=TRUE), work, record_steps=True)


def test_the_fit_finds_the_coefficients_that_made_the_trace() -> None:
    fitted = fit_profile(made(), "digest")
    for name in ("intercept_s", "prefill_token_s", "decode_request_s", "context_token_s", "gap_s"):
        assert getattr(fitted, name) == pytest.approx(getattr(TRUE, name), rel=1e-3), name
    assert fitted.notify_lag_s == pytest.approx(0.002, rel=0.01)
    assert fitted.submit_lag_s == pytest.approx(0.001, rel=0.3)
    assert fitted.fit is not None
    assert fitted.fit.r_squared > 0.999
    assert fitted.fitted_on == ("digest",)


def test_noise_leaves_the_total_time_unbiased() -> None:
    trace = made()
    assert trace.steps is not None
    noise = np.random.default_rng(2).lognormal(-(0.2**2) / 2, 0.2, len(trace.steps))
    noisy = Trace(trace.header, trace.requests, trace.steps.assign(duration_s=trace.steps["duration_s"] * noise))
    fitted = fit_profile(noisy)
    assert fitted.fit is not None
    assert abs(fitted.fit.bias) < 0.005
    assert fitted.intercept_s == pytest.approx(TRUE.intercept_s, rel=0.05)


def test_a_stall_of_the_dispatcher_is_not_taken_for_a_lag() -> None:
    # At low load nobody waits for a slot, so a late dispatch says nothing about refills.
    work = workload(np.arange(0.0, 200.0, 1.0).tolist(), [9] * 200, prompt_tokens=20)
    idle = simulate(Scenario(profile=TRUE), work, record_steps=True)
    rows = idle.requests.copy()
    for name in ("dispatch_s", "queued_s", "scheduled_s", "first_token_s", "finish_s"):
        rows.loc[::20, name] += 0.002
    assert fit_profile(Trace(idle.header, rows, idle.steps)).notify_lag_s < 0.005


def test_too_few_steps_are_an_error_with_a_remedy() -> None:
    trace = made()
    for steps in (None, trace.steps.iloc[:10] if trace.steps is not None else None):
        with pytest.raises(TraceError, match="--profile"):
            fit_profile(Trace(trace.header, trace.requests, steps))


def test_several_loads_are_fitted_jointly_and_the_profile_says_from_where() -> None:
    one, other = made(), made(tier="batch")
    fitted = calibrate([Run("one", one, "d1"), Run("other", other, "d2")])
    assert fitted.fitted_on == ("d1", "d2")
    assert fitted.seen is not None
    assert fitted.seen.running == 8
    assert (fitted.seen.running, fitted.seen.context_tokens) == extent(one)
    assert fitted.fit is not None
    assert sum(region.rows for region in fitted.fit.regions) == fitted.fit.rows == len(one.steps) + len(other.steps)  # type: ignore[arg-type]
    assert all(abs(region.bias) < 1e-3 for region in fitted.fit.regions)


@pytest.mark.parametrize(
    ("change", "form"),
    [
        ({"prefill_step_s": 0.03}, "prefill step"),
        ({"prefill_attention_s": 2e-6}, "prefill attention"),
        ({"hidden_tokens": 60}, "roofline"),  # intercept_s / prefill_token_s
        ({"graph_sizes": GRAPH_SIZES, "decode_request_s": 2e-3}, "CUDA graph sizes"),
    ],
)
def test_a_richer_form_is_chosen_where_it_earns_it_and_only_there(change: dict[str, object], form: str) -> None:
    random = np.random.default_rng(4)
    settings = engine(max_num_seqs=24, max_num_batched_tokens=512, max_model_len=1024)
    work = workload(
        np.cumsum(random.exponential(0.1, 400)).tolist(),
        random.integers(1, 120, 400).tolist(),
        prompt_tokens=random.integers(5, 480, 400),
    )
    for extra in ({}, change):
        truth = TRUE.changed(engine=settings, noise=Noise(spread=0.03), **extra)
        fitted = fit_profile(simulate(Scenario(profile=truth, noise=True), work, record_steps=True))
        assert fitted.fit is not None
        assert "linear" in fitted.fit.considered
        best = str(Form(roofline=fitted.hidden_tokens > 0, graphs=bool(fitted.graph_sizes)))
        chosen = best + "".join(f" {name.replace('_', ' ')}" for name in fitted.intervals)
        assert (form in chosen) is bool(extra), chosen
        for name in ("intercept_s", "decode_request_s", "prefill_token_s"):
            low, high = fitted.intervals[name]
            assert low - 0.02 * high <= getattr(truth, name) <= 1.02 * high, name


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    random = np.random.default_rng(4)
    arrivals = np.cumsum(random.exponential(0.1, 200)).tolist()
    work = workload(arrivals, random.integers(1, 100, 200).tolist(), prompt_tokens=random.integers(5, 200, 200))
    noisy = TRUE.changed(noise=Noise(spread=0.1, autocorrelation=0.6))
    inside = 0
    for seed in range(40):
        low, high = fit_profile(
            simulate(Scenario(profile=noisy, noise=True, seed=seed), work, record_steps=True)
        ).intervals["intercept_s"]
        inside += low <= TRUE.intercept_s <= high
    assert inside >= 32  # of 40; 38 expected, and bootstraps of few blocks are somewhat narrow


def test_a_term_that_cannot_be_told_from_another_is_named_with_the_run_that_would_tell_it() -> None:
    work = workload([0.5 * number for number in range(60)], [9] * 60)
    alone = simulate(Scenario(profile=TRUE), work, record_steps=True)
    fitted = fit_profile(alone)
    told = [warning for warning in fitted.warnings if "decode_request_s" in warning]
    assert "capture another run at another load" in told[0]
    assert any("one load only" in warning for warning in fitted.warnings)


def test_a_clock_that_stands_still_or_goes_back_is_named() -> None:
    trace = made()
    steps = trace.steps
    assert steps is not None
    still = Trace(
        trace.header, trace.requests, steps.assign(duration_s=steps["duration_s"].where(steps.index != 5, 0.0))
    )
    with pytest.raises(TraceError, match="step 5 takes no time"):
        fit_profile(still)
    back = Trace(trace.header, trace.requests, steps.assign(start_s=steps["start_s"].where(steps.index != 9, 0.0)))
    with pytest.raises(TraceError, match="step 9 starts before the one before it"):
        fit_profile(back)


def test_a_cut_that_leaves_too_few_steps_is_said() -> None:
    with pytest.raises(TraceError, match="a: 0 steps had begun by 0.001 s, a fit needs 30"):
        calibrate([Run("a", made())], until=0.001)


def test_runs_of_two_gpus_are_not_fitted_together_and_a_disturbed_one_is_said() -> None:
    trace = made()
    other = Trace(trace.header.changed(hardware="L4"), trace.requests, trace.steps)
    with pytest.raises(TraceError, match="b: hardware is 'L4', but 'unknown' in a; fit them apart"):
        calibrate([Run("a", trace), Run("b", other)])
    with pytest.raises(TraceError, match="b: is the very run of a, and no repeat of it; give it once"):
        calibrate([Run("a", trace, "one"), Run("b", trace, "one")])
    load = MachineLoad(
        cpu_count=2, own_cpu_mean=1, foreign_cpu_mean=1, foreign_cpu_max=2, foreign_cpu_limit=0.05, disturbed=True
    )
    disturbed = Trace(trace.header.changed(load=load), trace.requests, trace.steps)
    said = "a: the machine was disturbed while this trace was recorded: its step times are unreliable"
    assert said in calibrate([Run("a", disturbed)]).warnings


def test_going_beyond_what_was_seen_is_said() -> None:
    fitted = fit_profile(made())
    assert extrapolation_warnings(fitted, made()) == []
    assert (
        len(
            extrapolation_warnings(
                fitted.changed(seen=Coverage(running=2, context_tokens=50, prefill_tokens=9)), made()
            )
        )
        == 2
    )
    assert extrapolation_warnings(fitted.changed(seen=None), made()) == []


def test_a_run_of_decodes_is_the_sum_of_its_steps() -> None:
    model = LinearStepTime(1000, 7, 5, 3)
    contexts = [40 + 4 * step for step in range(25)]
    steps = [model.step(Batch(decode_requests=4, context_tokens=context)) for context in contexts]
    assert model.decode_run(Batch(decode_requests=4, context_tokens=40), 25) == sum(steps)


def test_a_profile_reads_back_and_its_digest_is_its_content(tmp_path: Path) -> None:
    TRUE.save(tmp_path / "p.json")
    back = load_profile(tmp_path / "p.json")
    assert back == TRUE
    assert back.digest == TRUE.digest
    assert TRUE.changed(gap_s=1.0).digest != Profile(**TRUE.model_dump()).digest


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "Invalid JSON"), ('{"intercept_s": 0}', "engine: Field required"), ('{"typo": 1}', "p.json: ")],
)
def test_a_wrong_profile_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "p.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        load_profile(tmp_path / "p.json")
    with pytest.raises(ValueError, match="no such profile"):
        load_profile(tmp_path / "absent.json")
