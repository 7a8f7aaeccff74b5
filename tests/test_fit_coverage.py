"""What a fit claims, against a known truth: how its noise lasts, and how often its intervals hold the coefficients.

The steps are those of shipped traces, with durations made from known coefficients and known noise. The bootstrap over
short blocks that intervals once came from stands beside them, and must fail.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from driftsim.calibration.calibrate import calibrate, fit_profile
from driftsim.calibration.coefficients import joint_uncertainty
from driftsim.calibration.form import Form
from driftsim.calibration.least_squares import Rows, blocks, solve, tenths
from driftsim.calibration.noise_fit import fit_noise
from driftsim.calibration.residuals import Residuals
from driftsim.calibration.runs import Run
from driftsim.latency.noise import Noise, autoregressive
from driftsim.latency.profile import Profile
from driftsim.latency.uncertainty import nnls_of_gram
from driftsim.simulation.run import simulate
from driftsim.simulation.scenario import Scenario
from driftsim.trace.trace import Trace, read
from tests.strategies import engine, profile, workload

SHIPPED = Path(__file__).parent.parent / "traces"
TWO = Noise(spread=0.18, autocorrelation=0.922, slow_spread=0.15, slow_autocorrelation=0.9985)
ONE = Noise(spread=0.2, autocorrelation=0.8)
TRUE = np.array([0.042, 3.5e-4, 1.1e-3, 1.4e-6])  # about what the drift trace has
TERMS = [f"{term}_s" for term in Form().terms]


def drawn(noise: Noise, length: int, random: np.random.Generator) -> np.ndarray:
    """Logarithms of noise, (length,)."""
    return np.asarray(
        noise.spread * autoregressive(random.standard_normal(length), noise.autocorrelation, random.standard_normal())
        + noise.slow_spread
        * autoregressive(random.standard_normal(length), noise.slow_autocorrelation, random.standard_normal())
    )


@cache
def columns(name: str) -> np.ndarray:
    """The terms of each step of a shipped trace."""
    steps = read(SHIPPED / f"smollm2-cpu-{name}").steps
    assert steps is not None
    return Form().columns(steps)


@dataclass(frozen=True, eq=False)
class Fitted:
    """A fit of steps, as ``from_steps`` makes it."""

    rows: Rows
    coefficients: np.ndarray
    left: Residuals
    noise: Noise
    half: np.ndarray
    bootstrap: np.ndarray  # both ends, (2, terms)

    @property
    def inside(self) -> np.ndarray:
        """Which of the true coefficients the intervals hold."""
        return np.asarray(np.abs(TRUE - self.coefficients) <= self.half)

    @property
    def inside_bootstrap(self) -> np.ndarray:
        """Which those of the bootstrap hold."""
        return np.asarray((self.bootstrap[0] <= TRUE) & (self.bootstrap[1] >= TRUE))


def refit(name: str, truth: Noise, seed: int) -> Fitted:
    """A fit of the steps of a shipped trace, lasting as ``TRUE`` and the noise ``truth`` say."""
    terms = columns(name)
    count = len(terms)
    logs = drawn(truth, count, np.random.default_rng(seed))
    duration = terms @ TRUE * np.exp(logs - float(truth.variance_of_mean(1)) / 2)
    rows = Rows(terms, duration, blocks(count), np.ones(count), tenths([count]))
    solution = solve(rows)
    left = Residuals.of(rows, solution, [count])
    noise = fit_noise(left, [])
    half = joint_uncertainty(TERMS, rows, solution, left, noise).half_widths()
    return Fitted(rows, solution.coefficients, left, noise, np.array(list(half.values())), short_blocks(rows))


def short_blocks(rows: Rows, draws: int = 100) -> np.ndarray:
    """The ends of the intervals of old, (2, terms): percentiles of a bootstrap over blocks of the root of n steps."""
    solution, random = solve(rows), np.random.default_rng(0)
    matrix, target = rows.columns * solution.weights[:, None], rows.duration * solution.weights
    starts = np.flatnonzero(np.diff(rows.block, prepend=-1))
    gram = np.add.reduceat(matrix[:, :, None] * matrix[:, None, :], starts)
    moment = np.add.reduceat(matrix * target[:, None], starts)
    found = []
    for _ in range(draws):
        times = np.bincount(random.integers(0, len(starts), len(starts)), minlength=len(starts)).astype(float)
        found.append(nnls_of_gram(np.tensordot(times, gram, 1), times @ moment))
    return np.asarray(np.percentile(found, [2.5, 97.5], axis=0))


def of_blocks(noise: Noise, length: int, count: int) -> float:
    """The variance of the means of all blocks of this ``length`` in a run of ``count`` steps, around their mean."""
    number = count // length
    within = float(noise.variance_of_mean(length) - noise.variance_of_mean(length * number))
    return within * number / (number - 1)


def ratios(fits: list[Fitted], truth: Noise) -> tuple[float, float]:
    """The variance of block means of the fitted noise over the true one, for the root of n and a tenth; means."""
    count = len(fits[0].rows.duration)
    lengths = round(count**0.5), count // 10
    one, other = (
        float(np.mean([of_blocks(fit.noise, length, count) / of_blocks(truth, length, count) for fit in fits]))
        for length in lengths
    )
    return one, other


def one_part(fit: Fitted) -> Noise:
    """The noise of old: spread and autocorrelation of the residuals."""
    logs = fit.left.logs - fit.left.logs.mean()
    return Noise(spread=float(logs.std()), autocorrelation=float(logs[1:] @ logs[:-1] / (logs @ logs)))


@cache
def shipped(name: str) -> Profile:
    """The profile of a shipped trace."""
    return fit_profile(read(SHIPPED / f"smollm2-cpu-{name}"))


@cache
def some(name: str, truth: Noise, runs: int) -> list[Fitted]:
    """Fits of several seeds."""
    return [refit(name, truth, seed) for seed in range(runs)]


def check_lasting(fits: list[Fitted]) -> None:
    """Fitted noise lasts as the true one does; that of one time scale does not."""
    assert all(0.8 <= ratio <= 1.25 for ratio in ratios(fits, TWO)), ratios(fits, TWO)
    count = len(fits[0].rows.duration)
    old = np.mean([of_blocks(one_part(fit), count // 10, count) for fit in fits]) / of_blocks(TWO, count // 10, count)
    assert old < 0.5


def check_coverage(fits: list[Fitted], least: float) -> None:
    """Intervals hold each coefficient in so many of the fits; the bootstrap of old holds none as often."""
    held = np.mean([fit.inside for fit in fits], axis=0)
    assert (held >= least).all(), held
    short = np.mean([fit.inside_bootstrap for fit in fits], axis=0)
    assert short[0] < 0.75, short
    assert short.mean() < 0.8, short


def test_the_noise_that_is_fitted_lasts_as_long_as_the_true_one() -> None:
    check_lasting(some("drift", TWO, 20))


def test_intervals_hold_each_coefficient_where_noise_lasts() -> None:
    check_coverage(some("drift", TWO, 20), 0.85)


def test_where_noise_has_one_time_scale_it_keeps_it_and_intervals_are_not_much_too_wide() -> None:
    fits = [refit("low-load", ONE, seed) for seed in range(30)]
    assert sum(fit.noise.slow_spread > 0 for fit in fits) < 12
    assert all(0.8 <= ratio <= 1.25 for ratio in ratios(fits, ONE)), ratios(fits, ONE)
    held = np.mean([fit.inside for fit in fits], axis=0)
    assert (held >= 0.85).all()
    spread = np.std([fit.coefficients for fit in fits], axis=0)
    assert (np.median([fit.half for fit in fits], axis=0) < 4 * spread).all()


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["drift", "reference", "low-load"])
def test_claims_hold_over_many_runs(name: str) -> None:
    fits = some(name, TWO, 250)
    check_lasting(fits)
    check_coverage(fits, 0.85)


@pytest.mark.parametrize("name", ["drift", "reference", "low-load", "backlog"])
def test_block_means_of_shipped_traces_vary_as_their_noise_says(name: str) -> None:
    """Noise that is drawn has to be looked at as the recorded one was: after a fit, which takes some of it."""
    trace = read(SHIPPED / f"smollm2-cpu-{name}")
    assert trace.steps is not None
    fitted = shipped(name)
    assert fitted.noise is not None
    count = len(trace.steps)
    rows = Rows(columns(name), trace.steps["duration_s"].to_numpy(), blocks(count), np.ones(count), tenths([count]))
    left = Residuals.of(rows, solve(rows), [count])
    random = np.random.default_rng(5)
    runs = [drawn(fitted.noise, count, random) for _ in range(100)]
    runs = [run - left.design @ (left.gain @ run) for run in runs]
    for length in (round(count**0.5), count // 10):
        mean = np.mean([block_variance(run, length) for run in runs])
        assert 0.8 <= mean / block_variance(left.logs, length) <= 1.25, length


def block_variance(logs: np.ndarray, length: int) -> float:
    """The variance of the means of successive blocks."""
    whole = logs[: len(logs) // length * length]
    return float(whole.reshape(-1, length).mean(axis=1).var(ddof=1))


def test_the_speed_of_other_runs_varies_as_the_noise_of_two_runs_says() -> None:
    """25 captured runs that the noise was not fitted to; noise of one time scale says a quarter at most."""
    policies = [read(folder) for folder in sorted((SHIPPED / "smollm2-cpu-policies").iterdir())]
    for name in ("drift", "reference"):
        fitted = shipped(name)
        speeds, lengths = [], []
        for run in policies:
            assert run.steps is not None
            speeds.append(np.log(run.steps["duration_s"].sum() / fitted.durations(run.steps).sum()))
            lengths.append(len(run.steps))
        seen = float(np.std(speeds, ddof=1))
        assert fitted.noise is not None
        assert 0.6 < float(fitted.noise.variance_of_mean(lengths).mean()) ** 0.5 / seen < 1.6
        short = Noise(spread=0.234, autocorrelation=0.922)  # of one time scale, fitted to the drift trace
        assert float(short.variance_of_mean(lengths).mean()) ** 0.5 / seen < 0.3


def test_a_run_too_short_for_slow_noise_says_so() -> None:
    made = workload((np.arange(20) * 0.2).tolist(), [15] * 20)
    truth = profile(engine(max_num_seqs=8), noise=TWO)
    fitted = fit_profile(simulate(Scenario(profile=truth, noise=True), made, record_steps=True))
    assert fitted.noise is not None
    assert fitted.noise.slow_spread == 0
    assert any("too few to tell whether step times are disturbed for long" in said for said in fitted.warnings)
    exact = fit_profile(simulate(Scenario(profile=truth), made, record_steps=True))
    assert not any("too few" in said for said in exact.warnings)


def test_slow_noise_is_not_taken_for_a_spread_of_whole_runs() -> None:
    made = workload([0.0] * 160, [25] * 160)  # a backlog, so that noise does not change the batches
    slow = Noise(spread=0.1, autocorrelation=0.5, slow_spread=0.2, slow_autocorrelation=0.98)

    def fitted(noise: Noise) -> float:
        truth = profile(engine(max_num_seqs=8), noise=noise)
        runs = [simulate(Scenario(profile=truth, noise=True, seed=seed), made, record_steps=True) for seed in range(12)]
        found = calibrate([Run(str(seed), run) for seed, run in enumerate(runs)]).noise
        assert found is not None
        return found.run_spread

    assert fitted(slow) < 0.05
    assert 0.1 < fitted(slow.changed(run_spread=0.2)) < 0.35


@pytest.mark.nightly
def test_intervals_from_timings_hold_the_linear_model_that_made_them() -> None:
    """Ten blocks of requests, with the simulated lives held as they are."""
    held = np.mean([_inside_from_timings(seed) for seed in range(40)], axis=0)
    assert (held >= 0.85).all(), held


def _inside_from_timings(seed: int) -> np.ndarray:
    truth = profile(
        engine(max_num_seqs=16, max_num_batched_tokens=512),
        intercept_s=0.012, prefill_token_s=1e-4, decode_request_s=8e-4, context_token_s=2e-6,
        noise=Noise(spread=0.1, autocorrelation=0.8),
    )  # fmt: skip
    random = np.random.default_rng(seed)
    runs = []
    for rate in (1.5, 5.0):
        arrivals = np.cumsum(random.exponential(1 / rate, 250)).tolist()
        work = workload(arrivals, random.integers(5, 150, 250).tolist(), prompt_tokens=random.integers(5, 300, 250))
        run = simulate(Scenario(profile=truth, policy="stock", noise=True, seed=seed), work)
        runs.append(Run(f"at {rate}", Trace(run.header.changed(admission={}), run.requests)))
    fitted = calibrate(runs, source="requests")
    ends = [fitted.intervals.get(name, (0.0, 0.0)) for name in TERMS]
    return np.array([low <= getattr(truth, name) <= high for name, (low, high) in zip(TERMS, ends, strict=True)])
