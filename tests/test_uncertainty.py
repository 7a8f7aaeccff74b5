"""Profiles drawn from what a fit is unsure of: the stored uncertainty, joint, and nothing that cannot be."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from driftsim.calibration.calibrate import calibrate, fit_profile
from driftsim.calibration.runs import Run
from driftsim.comparison.comparison import Draw
from driftsim.comparison.plan import BASELINE, ComparisonPlan, Setting
from driftsim.comparison.runs import _scenarios
from driftsim.errors import InputError
from driftsim.latency.noise import Noise
from driftsim.latency.profile import Fit, Profile, load_profile
from driftsim.latency.uncertainty import Uncertainty
from driftsim.simulation.run import simulate
from driftsim.simulation.scenario import Scenario
from driftsim.trace.trace import Trace, read
from tests.strategies import engine, profile, workload

SHIPPED = Path(__file__).parent.parent / "traces"
GATE = Path(__file__).parent.parent / "experiments" / "gate" / "profile.json"
TERMS = ("intercept_s", "prefill_token_s", "decode_request_s")
VALUES = np.array([0.02, 4e-4, 3e-3])
SPREADS = np.array([1e-3, 2e-5, 2e-4])
RELATED = np.array([[1.0, 0.2, -0.8], [0.2, 1.0, 0.0], [-0.8, 0.0, 1.0]])
GRAM = np.array([[400.0, 40.0, 3000.0], [40.0, 9000.0, 500.0], [3000.0, 500.0, 24000.0]])


def unsure(spreads: np.ndarray = SPREADS) -> Uncertainty:
    return Uncertainty.around(TERMS, RELATED * np.outer(spreads, spreads), GRAM, 9)


def known(sure: Uncertainty | None, **values: float) -> Profile:
    """A profile with these fitted values, as sure as that."""
    fit = Fit(rows=100, mean_absolute_percentage_error=0.1, r_squared=0.5, bias=0.0, uncertainty=sure)
    return profile(**dict(zip(TERMS, VALUES.tolist(), strict=True)) | values, fit=fit)


def draws(of: Profile, count: int = 4000) -> np.ndarray:
    """Coefficients of drawn profiles, (count, terms)."""
    random = np.random.default_rng(0)
    made = [of.drawn(random) for _ in range(count)]
    return np.array([[getattr(one, term) for term in TERMS] for one in made])


def test_draws_have_the_mean_the_covariance_and_the_range_that_are_stored() -> None:
    drawn = draws(known(unsure()))
    assert drawn.mean(axis=0) == pytest.approx(VALUES, rel=0.005)
    heavy = 9 / (9 - 2)  # Student's t has a larger variance than the normal distribution that it is made of
    assert drawn.std(axis=0) == pytest.approx(SPREADS * heavy**0.5, rel=0.05)
    assert np.corrcoef(drawn.T) == pytest.approx(RELATED, abs=0.05)
    half = np.array(list(unsure().half_widths().values()))
    inside = (np.abs(drawn - VALUES) < half).mean(axis=0)
    assert inside == pytest.approx(np.full(3, 0.95), abs=0.012)


def test_a_fit_stores_what_its_intervals_say() -> None:
    fitted = fit_profile(read(SHIPPED / "smollm2-cpu-drift"))
    assert fitted.has_uncertainty
    assert fitted.fit is not None
    assert fitted.fit.uncertainty is not None
    for term, half in fitted.fit.uncertainty.half_widths().items():
        value = getattr(fitted, term)
        assert fitted.intervals[term] == pytest.approx((max(0.0, value - half), value + half))
    drawn = draws(fitted, 1000)
    for place, term in enumerate(TERMS):
        low, high = fitted.intervals[term]
        assert np.mean((drawn[:, place] >= low) & (drawn[:, place] <= high)) > 0.93, term


def test_a_draw_is_never_negative_and_its_steps_last_as_long() -> None:
    """What is put at 0 leaves its time to the others; cut off alone, it would make steps longer."""
    usual = np.array([1.0, 20.0, 7.5])
    gram = np.outer(usual, usual) / 0.05**2 + np.diag([1.0, 100.0, 10.0])
    covariance = RELATED * np.outer(SPREADS * 4, SPREADS * 4)
    values = np.array([0.02, 4e-4, 1e-5])
    one = Uncertainty.around(TERMS, covariance, gram, 9)
    free = Uncertainty.around(TERMS, covariance, np.eye(3), 9)
    drawn = np.array([one.drawn(values, np.random.default_rng(seed)) for seed in range(1000)])
    cut = np.array([free.drawn(values, np.random.default_rng(seed)) for seed in range(1000)])
    assert (drawn >= 0).all()
    assert 0.3 < (drawn[:, 2] == 0).mean() < 0.7
    assert (drawn @ usual).mean() == pytest.approx(float(values @ usual), rel=0.02)
    assert (cut @ usual).mean() > 1.05 * float(values @ usual)


def test_a_profile_that_knows_no_uncertainty_is_drawn_as_it_is() -> None:
    random = np.random.default_rng(0)
    for one in (profile(), known(None), load_profile(GATE)):
        assert not one.has_uncertainty
        assert one.drawn(random) is one
    drawn = known(unsure()).drawn(random)
    assert not drawn.has_uncertainty
    assert drawn.drawn(random) is drawn
    assert not drawn.intervals


def test_a_seed_draws_one_profile_and_what_was_not_fitted_stays() -> None:
    one = known(unsure(), gap_s=0.003, submit_lag_s=0.002)
    first, again, other = (one.drawn(np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first.digest == again.digest != other.digest
    assert (first.gap_s, first.submit_lag_s, first.engine) == (one.gap_s, one.submit_lag_s, one.engine)


def test_the_digest_is_that_of_old_and_uncertainty_is_not_in_it() -> None:
    """Keys of stored runs hold a profile's digest: what determines no run must not change it."""
    assert load_profile(GATE).digest == "b69cdfcc8eea53f9671e4a90b498e46935e7ad313dded5f737935615d8613998"
    noisy = Profile.plain(intercept_s=0.01, max_num_seqs=8).changed(noise=Noise(spread=0.2, autocorrelation=0.8))
    assert noisy.digest == "6a16d044b8c906eed96684ef1c3f366cc5646af049f7b6ec90019a75a2148507"
    assert known(unsure()).digest == known(unsure(SPREADS * 2)).digest == known(None).digest
    slow = Noise(spread=0.2, autocorrelation=0.8, slow_spread=0.1, slow_autocorrelation=0.99)
    assert noisy.changed(noise=slow).digest != noisy.digest


def test_uncertainty_reads_back_and_a_wrong_one_is_named(tmp_path: Path) -> None:
    file = tmp_path / "p.json"
    known(unsure()).save(file)
    assert load_profile(file) == known(unsure())
    good = json.loads(file.read_text())
    for key, value, message in (
        ("terms", ["intercept_s", "gap_s", "decode_request_s"], "fit.uncertainty.terms.1: "),
        ("terms", ["intercept_s", "intercept_s", "decode_request_s"], "terms must differ"),
        ("covariance", [[1.0]], "covariance must have 3 rows and columns"),
        ("gram", (GRAM + np.eye(3, k=1)).tolist(), "gram must be symmetric"),
        ("covariance", (-RELATED).tolist(), "nothing negative on its diagonal"),
        ("freedom", 2, "fit.uncertainty.freedom: "),
    ):
        fit = good["fit"] | {"uncertainty": good["fit"]["uncertainty"] | {key: value}}
        file.write_text(json.dumps(good | {"fit": fit}))
        with pytest.raises(InputError, match=message):
            load_profile(file)


def test_a_fit_to_timings_is_drawn_with_the_overhead_of_a_request() -> None:
    random = np.random.default_rng(1)
    truth = profile(engine(max_num_seqs=8), intercept_s=0.01, decode_request_s=5e-4, noise=Noise(spread=0.1))
    work = workload(np.cumsum(random.exponential(0.1, 50)).tolist(), random.integers(5, 30, 50).tolist())
    run = simulate(Scenario(profile=truth, policy="stock", noise=True), work)
    fitted = calibrate([Run("run", Trace(run.header.changed(admission={}), run.requests))], source="requests")
    assert fitted.has_uncertainty
    assert fitted.fit is not None
    assert fitted.fit.uncertainty is not None
    assert fitted.fit.uncertainty.terms[-1] in ("submit_lag_s", "output_lag_s")
    assert set(fitted.intervals) == set(fitted.fit.uncertainty.terms)
    assert fitted.drawn(random).intercept_s != fitted.intercept_s


def test_two_terms_that_nothing_tells_apart_are_as_sure_as_their_sum() -> None:
    both = unsure().summed("intercept_s", "decode_request_s")
    assert both.terms == ("intercept_s", "prefill_token_s")
    variance = SPREADS[0] ** 2 + SPREADS[2] ** 2 - 2 * 0.8 * SPREADS[0] * SPREADS[2]
    assert both.covariance[0][0] == pytest.approx(variance)
    assert unsure().summed("intercept_s", "prefill_step_s") == unsure()


def test_draws_of_the_model_differ_and_are_noisy_and_alike_for_all_settings() -> None:
    plan = ComparisonPlan(profile=known(unsure()).changed(noise=Noise()), seed=3)
    first, second = (_scenarios(plan, Draw(0, "model", number)) for number in (1, 2))
    assert first(BASELINE).profile != second(BASELINE).profile
    assert first(BASELINE).seed != second(BASELINE).seed
    assert first(BASELINE).noise
    other = first(Setting("sjf", "ema"))
    assert (other.profile, other.seed, other.policy) == (first(BASELINE).profile, first(BASELINE).seed, "sjf")
