"""Noisy step times: the spread and the autocorrelation that were asked for, and one duration however a run is cut."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftsim.calibration.calibrate import fit_profile
from driftsim.latency.noise import Noise, NoisyStepTime
from driftsim.latency.profile import Profile
from driftsim.latency.steptime import Batch, LinearStepTime
from driftsim.simulation.run import Simulation, simulate
from driftsim.simulation.scenario import Scenario
from driftsim.trace.schema import LIFE_TIMES
from driftsim.workloads.workload import Workload
from tests.stepwise import StepwiseAsyncEngine, StepwiseEngine
from tests.strategies import engine, profile, workload, workloads

MODEL = LinearStepTime(10_000_000, 7_000, 5_000, 300)
NOISE = Noise(spread=0.2, autocorrelation=0.8)
TWO = Noise(spread=0.18, autocorrelation=0.922, slow_spread=0.15, slow_autocorrelation=0.9985)  # as in shipped traces


def noisy(seed: int = 0, noise: Noise = NOISE) -> NoisyStepTime:
    return NoisyStepTime(MODEL, noise, np.random.default_rng(seed))


def test_the_factors_have_the_mean_the_spread_and_the_autocorrelation_that_were_asked_for() -> None:
    model = noisy()
    batch = Batch(decode_requests=4, context_tokens=400)
    factors = np.array([model.step(batch) for _ in range(40_000)]) / MODEL.step(batch)
    logs = np.log(factors)
    assert factors.mean() == pytest.approx(1.0, abs=0.02)
    assert logs.std() == pytest.approx(0.2, rel=0.05)
    assert np.corrcoef(logs[1:], logs[:-1])[0, 1] == pytest.approx(0.8, abs=0.02)


def test_means_of_steps_vary_as_two_time_scales_say() -> None:
    batch = Batch(decode_requests=4, context_tokens=400)
    noise = Noise(spread=0.1, autocorrelation=0.5, slow_spread=0.1, slow_autocorrelation=0.99)
    runs = [noisy(seed, noise) for seed in range(20)]
    factors = np.array([[model.step(batch) for _ in range(12_000)] for model in runs]) / MODEL.step(batch)
    assert factors.mean() == pytest.approx(1.0, abs=0.005)
    for length in (1, 20, 400):
        means = np.log(factors).reshape(-1, length).mean(axis=1)
        assert means.var() == pytest.approx(float(noise.variance_of_mean(length)), rel=0.1), length


@pytest.mark.parametrize(("run_spread", "ticks"), [(0.0, 443759590293), (0.1, 541517213847)])
def test_noise_of_one_time_scale_is_drawn_as_ever(run_spread: float, ticks: int) -> None:
    """The durations are those of the version before there was a slow part."""
    model = noisy(3, NOISE.changed(run_spread=run_spread))
    assert model.decode_run(Batch(decode_requests=4, context_tokens=400), 20_000) == ticks


@given(st.lists(st.integers(1, 300), min_size=1, max_size=5), st.integers(1, 10**10), st.sampled_from([NOISE, TWO]))
def test_a_run_takes_as_long_as_its_steps_however_it_is_cut(parts: list[int], elapsed: int, noise: Noise) -> None:
    stepped, jumped = noisy(3, noise), noisy(3, noise)
    context = 400
    for count in parts:
        batch = Batch(decode_requests=4, context_tokens=context)
        one = sum(stepped.step(Batch(decode_requests=4, context_tokens=context + 4 * n)) for n in range(count))
        assert abs(jumped.decode_run(batch, count) - one) <= 2 * count  # ticks: rounding
        steps = jumped.decode_steps(batch, elapsed, 5)
        assert jumped.decode_run(batch, steps) + 5 * steps >= elapsed
        assert steps == 1 or jumped.decode_run(batch, steps - 1) + 5 * (steps - 1) < elapsed
        jumped.taken(count)
        context += 4 * count


@given(workloads(30), st.booleans(), st.sampled_from([NOISE, TWO]))
def test_the_jumping_engine_spends_the_same_noise_on_the_same_steps(
    made: Workload, asynchronous: bool, noise: Noise
) -> None:
    settings = engine(async_scheduling=asynchronous)
    scenario = Scenario(profile=profile(settings, noise=noise, context_token_s=1e-6), noise=True)
    fast = simulate(scenario, made)
    stepwise: Any = Simulation(scenario, made, engine=StepwiseAsyncEngine if asynchronous else StepwiseEngine)
    stepwise.engine.ends_late = stepwise.ends_late
    slow = stepwise.run()
    pd.testing.assert_frame_equal(fast.requests[list(LIFE_TIMES)], slow.requests[list(LIFE_TIMES)], rtol=0, atol=1e-8)


def test_the_noise_that_made_a_run_is_found_in_its_steps() -> None:
    made = workload((np.arange(400) * 0.2).tolist(), [30] * 400)
    truth = profile(engine(max_num_seqs=8), decode_request_s=5e-4, noise=NOISE)
    fitted = fit_profile(simulate(Scenario(profile=truth, noise=True), made, record_steps=True))
    assert fitted.noise is not None
    assert fitted.noise.spread == pytest.approx(0.2, rel=0.1)
    assert fitted.noise.autocorrelation == pytest.approx(0.8, abs=0.05)


def test_seeds_differ_one_seed_does_not_and_a_profile_without_noise_is_refused() -> None:
    made = workload([0.0, 0.1], [20, 30])
    known: Profile = profile(noise=NOISE)

    def end(seed: int) -> float:
        return float(simulate(Scenario(profile=known, noise=True, seed=seed), made).requests["finish_s"].max())

    assert end(1) == end(1) != end(2)
    with pytest.raises(ValueError, match="the profile has no noise"):
        simulate(Scenario(profile=profile(), noise=True), made)


def test_whole_runs_differ_by_their_own_spread() -> None:
    batch = Batch(decode_requests=4, context_tokens=400)
    noise = Noise(run_spread=0.3)
    factors = [noisy(seed, noise).decode_run(batch, 100) / MODEL.decode_run(batch, 100) for seed in range(300)]
    assert np.log(factors).std() == pytest.approx(0.3, rel=0.15)
