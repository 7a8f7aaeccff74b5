"""A profile fitted to a trace: it finds what made the trace, and says when it cannot."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from driftsim.calibrate import fit_profile
from driftsim.latency import Batch, LinearStepTime, Profile, load_profile
from driftsim.run import simulate
from driftsim.scenario import Scenario
from driftsim.trace import Trace, TraceError
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


def made(**columns: object) -> Trace:
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
