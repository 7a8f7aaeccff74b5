"""Regression, detection of changes, conformal intervals, hedges and blurred truth: the law of each."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftsim import api
from driftsim.errors import InputError
from driftsim.estimates import estimation
from driftsim.inputs import sample
from driftsim.request import Job, Request, Tier
from driftsim.scheduling.admission import Admission
from driftsim.scheduling.change import PageHinkley, Watched
from driftsim.scheduling.conformal import Conformal
from driftsim.scheduling.estimators import GIVEN, MOST, Hedge, Noisy, is_deployable
from driftsim.scheduling.hedge import FixedShare
from driftsim.scheduling.regression import SPREADS, Line, Regression
from driftsim.scheduling.trackers import LogEma, Prompt
from driftsim.trace.trace import Trace
from driftsim.workloads.lengths import Lengths
from driftsim.workloads.workload import Workload
from tests.strategies import engine, profile

VALUES = st.floats(-3, 3)


Recorded = Callable[..., Trace]


@pytest.fixture(scope="module")
def recorded() -> Recorded:
    """A function from an estimator to its run of a recorded day; the profile is fitted once."""
    trace = sample()
    fitted = api.calibrate(trace)
    return lambda estimator, policy="sjf", seed=0: api.simulate(
        trace, estimator=estimator, policy=policy, seed=seed, profile=fitted
    )


def request(prompt: int = 100, cap: int = 100_000, name: str = "r") -> Request:
    return Request(name, "a", Tier.STANDARD, "", 0.0, prompt, None, cap)


def job(learner: object, asked: Request, category: str = "summary") -> Job:
    said = learner.estimate(asked, category, 0.0)  # type: ignore[attr-defined]
    return Job(asked, category, said.length, 0, quantiles=said.quantiles)


# -- regression


@given(st.lists(st.tuples(VALUES, VALUES), min_size=1, max_size=40))
def test_without_forgetting_it_is_the_least_squares_line_with_its_prior(points: list[tuple[float, float]]) -> None:
    line = Line(1.0)
    for x, y in points:
        line.learn(x, y)
    design = np.array([[1.0, x] for x, _ in points])
    normal = design.T @ design + np.diag(1 / np.array(SPREADS))
    truth = np.linalg.solve(normal, design.T @ np.array([y for _, y in points]))
    assert [line.level, line.slope] == pytest.approx(truth.tolist(), abs=1e-9)


def test_a_power_law_is_found_and_after_a_change_found_again() -> None:
    learner, random = Regression(Admission(), forgetting=0.98), np.random.default_rng(2)

    def teach(power: float, scale: float, count: int) -> None:
        for prompt in random.integers(20, 2000, count):
            length = round(scale * (1 + prompt) ** power)
            learner.observe(job(learner, request(int(prompt))), length, False, 0.0)

    teach(0.5, 20, 400)
    for prompt in (50, 500, 1500):
        said = learner.estimate(request(prompt), "summary", 0.0).length
        assert said == pytest.approx(20 * (1 + prompt) ** 0.5, rel=0.02)
    teach(0.8, 5, 400)
    assert learner.estimate(request(900), "summary", 0.0).length == pytest.approx(5 * 901**0.8, rel=0.02)
    assert learner.estimate(request(900), "report", 0.0).length == round(512 * 1.5)  # another category knows nothing


def test_prompts_that_are_all_alike_do_not_blow_the_spread_up() -> None:
    line = Line(0.9)
    for _ in range(2000):
        line.learn(1.0, 0.5)
    assert line.at(1.0) == pytest.approx(0.5, abs=1e-3)
    assert line.spread[0] <= SPREADS[0]
    assert line.spread[2] <= SPREADS[1]


# -- page-hinkley


@given(VALUES, st.integers(1, 200))
def test_a_constant_raises_no_alarm(value: float, count: int) -> None:
    seen = Watched(0.1, 0.5)
    for _ in range(count):
        seen.add(value)
    assert seen.alarms == 0
    assert seen.mean == pytest.approx(value)


@given(st.floats(0.3, 3), st.sampled_from([1, -1]), st.floats(0.01, 0.2), st.floats(0.5, 5))
def test_a_step_raises_an_alarm_in_time(size: float, sign: int, delta: float, threshold: float) -> None:
    """Within ceil(threshold / (step - delta)) + 1 values, after a long past; then the mean is right."""
    seen = Watched(delta, threshold)
    for _ in range(3_000):  # so long that a few values hardly move the mean
        seen.add(0.0)
    count = 0
    while not seen.alarms:
        seen.add(sign * size)
        count += 1
        assert count <= math.ceil(1.1 * threshold / (size - delta)) + 1
    assert count >= math.floor(threshold / (size - delta))
    assert seen.mean == pytest.approx(sign * size, rel=1e-3)


def test_a_change_of_one_category_is_none_of_another_and_of_the_mix_none_at_all() -> None:
    learner = PageHinkley(Admission(), delta=0.1, threshold=2.0)
    for length in [100] * 50 + [400] * 20:
        learner.observe(job(learner, request()), length, False, 0.0)
        learner.observe(job(learner, request(), "report"), 300, False, 0.0)
    assert (learner.watched["summary"].alarms, learner.watched["report"].alarms) == (1, 0)
    assert learner.estimate(request(), "summary", 0.0).length == 400  # what was before is forgotten
    for _ in range(200):  # one category more often
        learner.observe(job(learner, request(), "report"), 300, False, 0.0)
    assert learner.watched["report"].alarms == 0


def test_it_forgets_faster_than_a_moving_average_after_a_step() -> None:
    made = Workload.poisson(rate=1.0, requests=600, prompt_tokens=20, output_tokens=100, max_tokens=900, seed=1)
    needed = {}
    for name in ("page-hinkley?threshold=2", "log-ema?alpha=0.02"):
        run = api.simulate(made, estimator=name, drift="factor=4:at=50%", profile=profile(engine()))
        needed[name] = estimation(run)["recovery_requests"]
    assert needed["page-hinkley?threshold=2"] < 0.5 * needed["log-ema?alpha=0.02"]


# -- conformal


@given(
    st.lists(st.integers(1, 900), min_size=1, max_size=150),
    st.floats(0.05, 0.6),
    st.floats(0.01, 0.5),
    st.integers(0, 12),
)
def test_it_misses_as_often_as_asked_whatever_comes(lengths: list[int], miss: float, rate: float, delay: int) -> None:
    """|missed - miss| <= (max(alpha, 1 - alpha) + rate (1 + delay)) / (rate n), for every sequence."""
    learner, out = Conformal(Admission(), miss=miss, rate=rate), list[tuple[Job, int]]()
    missed = 0
    for row, length in enumerate(lengths):
        one = job(learner, request(cap=900, name=f"r{row}"))
        low, high = one.quantiles
        missed += not low <= length <= high
        out.append((one, length))
        if len(out) > delay:
            learner.observe(*out.pop(0), False, 0.0)
    for one, length in out:
        learner.observe(one, length, False, 0.0)
    count = len(lengths)
    bound = (max(miss, 1 - miss) + rate * (1 + delay)) / (rate * count)
    assert abs(missed / count - miss) <= bound + 1e-9


def test_its_intervals_hold_most_outputs_and_are_not_all_there_is() -> None:
    made = Workload.poisson(
        rate=1.0, requests=1500, prompt_tokens=20, output_tokens=Lengths(kind="lognormal", mean=100, cv=1.0),
        max_tokens=2000, seed=3,
    )  # fmt: skip
    run = api.simulate(made, estimator="conformal", drift="factor=2:at=50%", profile=profile(engine()))
    found = estimation(run)
    assert found["coverage_nominal"] == pytest.approx(0.8)
    assert found["coverage"] == pytest.approx(0.8, abs=0.03)
    assert found["width"] < 700
    plain = estimation(api.simulate(made, estimator="log-ema", drift="factor=2:at=50%", profile=profile(engine())))
    assert found["mae"] == plain["mae"]


def test_lengths_that_always_outgrow_the_past_are_covered_all_the_same() -> None:
    """Each longer than all before: quantiles of the past alone would miss every one."""
    learner, missed = Conformal(Admission(), miss=0.2, rate=0.1, window=50), 0
    for row in range(400):
        one = job(learner, request(cap=10**9, name=f"r{row}"))
        length = round(50 * 1.04**row)
        missed += not one.quantiles[0] <= length <= one.quantiles[1]
        learner.observe(one, length, False, 0.0)
    assert abs(missed / 400 - 0.2) <= (0.8 + 0.1) / (0.1 * 400)
    assert learner.alpha == pytest.approx(0.2 + 0.1 * (400 * 0.2 - missed))


def test_the_ends_of_alpha_are_everything_and_nothing() -> None:
    learner = Conformal(Admission())
    assert learner.interval(request(cap=77), "summary") == (0, 77)  # nothing is known
    learner.observe(job(learner, request()), 100, False, 0.0)
    learner.alpha = -0.1
    assert learner.interval(request(cap=77), "summary") == (0, 77)
    learner.alpha = 1.0
    low, high = learner.interval(request(), "summary")
    assert low > high


# -- hedge


class Ten(Prompt):
    """Always 10."""

    def __init__(self, admission: Admission) -> None:
        super().__init__(admission, factor=0.1)


class Hundred(Prompt):
    """Always 100."""

    def __init__(self, admission: Admission) -> None:
        super().__init__(admission, factor=1.0)


class Two(FixedShare):
    experts = (Ten, Hundred, LogEma)


@given(st.lists(st.integers(1, 512), min_size=1, max_size=80), st.floats(0.2, 5))
def test_a_hedge_hardly_errs_more_than_its_best(lengths: list[int], rate: float) -> None:
    """ln(members) / rate + rate n / 8, of losses from 0 to 1, where no share is dealt out."""
    hedge, alone = Two(Admission(), rate=rate, share=0.0), [kind(Admission()) for kind in Two.experts]
    lost, losses = 0.0, np.zeros(3)
    for row, length in enumerate(lengths):
        asked = request(cap=512, name=f"r{row}")
        one = job(hedge, asked)
        lost += abs(one.estimate - length) / 512
        for place, member in enumerate(alone):
            other = job(member, asked)
            losses[place] += abs(other.estimate - length) / 512
            member.observe(other, length, False, 0.0)
        hedge.observe(one, length, False, 0.0)
    rounding = 0.5 * len(lengths) / 512
    assert lost <= losses.min() + math.log(3) / rate + rate * len(lengths) / 8 + rounding
    assert sum(hedge.weights) == pytest.approx(1)


def test_a_share_lets_another_take_over_soon() -> None:
    needed: dict[float, list[float]] = {}
    for share in (0.0, 0.05):
        hedge = Two(Admission(), rate=8.0, share=share)
        for length in [10] * 150 + [100] * 150:
            hedge.observe(job(hedge, request(cap=512)), length, False, 0.0)
            needed.setdefault(share, []).append(hedge.weights[1] + hedge.weights[2])
        assert hedge.weights[0] < 0.2
    taken = {share: next(row for row, weight in enumerate(own[150:]) if weight > 0.5) for share, own in needed.items()}
    assert taken[0.05] < 0.5 * taken[0.0]


def test_a_member_is_judged_by_what_it_said_first() -> None:
    hedge = Two(Admission(), share=0.0)
    first = job(hedge, request(cap=512, name="first"))
    for row in range(30):
        hedge.observe(job(hedge, request(cap=512, name=f"r{row}")), 100, False, 0.0)
    before = list(hedge.weights)
    hedge.estimate(first.request, "summary", 1.0)  # refreshed; log-ema now says about 100
    hedge.observe(first, 100, False, 1.0)
    kept = [
        weight * math.exp(-2.0 * abs(said - 100) / 512) for weight, said in zip(before, (10, 100, 282), strict=True)
    ]
    assert hedge.weights == pytest.approx([weight / sum(kept) for weight in kept])
    gone = job(hedge, request(name="gone"))
    hedge.observe_unfinished(gone, 5, 0.0)
    assert "gone" not in hedge._said


def test_our_hedge_does_about_as_well_as_its_best_on_a_recorded_day(recorded: Recorded) -> None:
    mae = {
        name: estimation(recorded(name))["mae"]
        for name in ("hedge", "ema", "log-ema", "pooled", "regression", "page-hinkley", "kaplan-meier")
    }
    assert mae["hedge"] < 1.03 * min(mae.values())
    assert len(Hedge.experts) == 6


# -- noisy


def test_a_blurred_length_is_one_that_a_trace_can_hold() -> None:
    blurred = Noisy({str(row): 10_000 for row in range(2000)}, sigma=10)
    assert (min(blurred.said.values()), max(blurred.said.values())) == (1, MOST)


def test_without_noise_it_is_the_oracle_bit_for_bit(recorded: Recorded) -> None:
    assert recorded("oracle").requests.equals(recorded("noisy?sigma=0").requests)


def test_its_errors_are_lognormal_and_the_same_under_every_policy(recorded: Recorded) -> None:
    said, logs = {}, {}
    for policy in ("fifo", "sjf"):
        for sigma in (0.25, 0.5):
            rows = recorded(f"noisy?sigma={sigma}", policy, 7).requests
            said[policy, sigma] = rows["estimate"].tolist()
            logs[policy, sigma] = np.log(rows["estimate"].to_numpy(float) / rows["output_tokens"].to_numpy(float))
    assert said["fifo", 0.5] == said["sjf", 0.5]
    assert logs["sjf", 0.5].std() == pytest.approx(0.5, rel=0.12)
    assert logs["sjf", 0.5].mean() == pytest.approx(0, abs=3 * 0.5 / math.sqrt(360))
    assert logs["sjf", 0.5] == pytest.approx(2 * logs["sjf", 0.25], abs=0.15)  # rounded
    assert recorded("noisy", seed=8).requests["estimate"].tolist() != said["sjf", 0.5]


def test_more_requests_change_no_factor_of_the_first() -> None:
    truth = {f"r{row}": 100 + row for row in range(50)}
    few = Noisy(dict(list(truth.items())[:20]), 3).said
    assert {name: Noisy(truth, 3).said[name] for name in few} == few


def test_what_is_given_the_truth_is_a_bound_and_no_live_run_has_it() -> None:
    assert not any(map(is_deployable, [*GIVEN, "noisy?sigma=2"]))
    with pytest.raises(InputError, match="'noisy' is told every length, and live nobody knows them"):
        from driftsim.live.capture import capture

        capture("out/never", estimator="noisy?sigma=0.1")
    with pytest.raises(InputError, match="sigma"):
        api.simulate("traces/smollm2-cpu-drift", estimator="noisy?sigma=-1")
