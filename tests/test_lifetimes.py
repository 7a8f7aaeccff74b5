"""Kaplan and Meier's curve of output lengths, held against what a few lines of NumPy say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftsim.latency.profile import Profile
from driftsim.request import Job, Request, Tier
from driftsim.scheduling.admission import Admission
from driftsim.scheduling.dispatcher import Departure, Dispatcher
from driftsim.scheduling.estimators import Ema
from driftsim.scheduling.lifetimes import KaplanMeier, Lifetimes
from driftsim.scheduling.plugins import give_class
from driftsim.scheduling.policies import Fifo
from driftsim.simulation.run import simulate
from driftsim.simulation.scenario import Scenario
from driftsim.testing import workload
from driftsim.workloads.workload import Workload

LENGTHS = st.lists(st.integers(1, 300), min_size=1, max_size=60)


def seen(lengths: list[int], cut: list[bool] | None = None, window: int = 1000) -> Lifetimes:
    made = Lifetimes(window)
    for place, length in enumerate(lengths):
        made.add(length, bool(cut and cut[place]))
    return made


def product_limit(lengths: list[int], cut: list[bool], at: int) -> float:
    """The product over the lengths that ended, as textbooks write it; the longest counts as ended."""
    survival = 1.0
    for length in sorted(set(lengths)):
        if length <= at:
            left = sum(one >= length for one in lengths)
            ended = sum(one == length and not how for one, how in zip(lengths, cut, strict=True))
            survival *= 1 - ended / left
    return 0.0 if at >= max(lengths) else survival


@given(st.lists(st.tuples(st.integers(1, 40), st.booleans()), min_size=1, max_size=40), st.integers(0, 45))
def test_the_curve_is_kaplan_and_meiers(pairs: list[tuple[int, bool]], at: int) -> None:
    lengths, cut = [length for length, _ in pairs], [how for _, how in pairs]
    assert seen(lengths, cut).survival(at) == pytest.approx(product_limit(lengths, cut, at), abs=1e-12)


@given(LENGTHS, st.integers(0, 320), st.integers(1, 400), st.integers(1, 70))
def test_without_cuts_it_is_the_empirical_mean_of_the_latest(
    lengths: list[int], shown: int, cap: int, window: int
) -> None:
    made, kept = seen(lengths, window=window), np.array(lengths[-window:])
    assert len(made) == len(kept)
    longer = kept[kept > shown]
    if cap > shown:
        truth = np.minimum(longer, cap).mean() if len(longer) else min(shown + 1, cap)
        assert made.beyond(shown, cap) == pytest.approx(truth)
        assert made.beyond(shown, cap) >= shown
    for share in (0.1, 0.5, 0.9):
        assert made.quantile(share) == np.quantile(kept, share, method="inverted_cdf")


def test_the_residual_life_of_an_exponential_is_constant() -> None:
    made = seen(list(np.random.default_rng(1).geometric(1 / 200, 40_000)), window=40_000)
    for shown in (0, 100, 300, 600):
        assert made.beyond(shown) - shown == pytest.approx(200, rel=0.06)


def test_cut_outputs_are_lower_bounds() -> None:
    """Cut at random, the mean is found all the same; taken for ends, they would halve it."""
    random = np.random.default_rng(2)
    truth = random.integers(1, 401, 20_000)
    limits = random.integers(1, 401, 20_000)
    shown, cut = np.minimum(truth, limits), truth > limits
    made = seen(shown.tolist(), cut.tolist(), window=20_000)
    assert made.beyond(0) == pytest.approx(200.5, rel=0.03)
    assert seen(shown.tolist(), window=20_000).beyond(0) < 0.7 * 200.5


def job(category: str = "summary", cap: int = 1000) -> Job:
    return Job(Request("r", "a", Tier.STANDARD, "", 0.0, 100, None, cap), category, 0, 0)


def test_the_estimate_is_the_mean_under_the_cap_with_its_quantiles() -> None:
    learner = KaplanMeier(Admission())
    first = learner.estimate(job().request, "summary", 0.0)
    assert (first.length, first.quantiles) == (282, (1, 1000))  # the base; nothing is known of its spread
    for length in (100, 200, 600):
        learner.observe(job(), length, False, 0.0)
    made = learner.estimate(job().request, "summary", 0.0)
    assert (made.length, made.quantiles) == (300, (100, 600))
    assert learner.estimate(job(cap=250).request, "summary", 0.0).length == round((100 + 200 + 250) / 3)
    assert learner.residual("summary", 150) == 400
    assert learner.residual("report", 150) == 151
    learner.observe(job(), 600, True, 0.0)  # at least
    assert learner.estimate(job().request, "summary", 0.0).length == 375


def test_in_flight_the_estimate_is_the_mean_of_those_that_got_so_far() -> None:
    learner, running = KaplanMeier(Admission()), job(cap=500)
    assert learner.progress(running, 7, 0.0).length == 8  # no estimate, and nothing known
    running.estimate = 282
    assert learner.progress(running, 7, 0.0).length == 282
    assert learner.progress(running, 300, 0.0).length == 301
    for length in (100, 200, 600):
        learner.observe(running, length, False, 0.0)
    lengths = [learner.progress(running, made, 0.0).length for made in (1, 100, 199, 200, 450, 500)]
    assert lengths == [round((100 + 200 + 500) / 3), 350, 350, 500, 500, 500]  # 600 under its cap
    assert learner.progress(job(cap=1000), 700, 0.0).length == 701
    assert learner.progress(running, 100, 0.0).bias == pytest.approx(350 / 282, rel=0.01)


def test_inside_srpt_preempts_by_the_residual_and_not_by_what_was_said_at_first() -> None:
    """One of two kinds of output, 10 or 400 tokens: whoever has made 11 is known to have far to go."""
    made = [*[0.0] * 30, 20.0, 20.4]
    outputs = [*[10] * 27, *[400] * 3, 400, 60]
    work = workload(made, outputs, max_tokens=500)
    settings = Profile.plain(intercept_s=0.01, max_num_seqs=1)

    class Frozen(KaplanMeier):
        progress = None  # type: ignore[assignment]

    runs = {
        estimator: simulate(
            Scenario(profile=settings, policy="srpt?share=inf", estimator=estimator, place="inside"), work
        ).requests.iloc[30]
        for estimator in ("kaplan-meier", give_class(Frozen, "lifetimes:Frozen"))
    }
    assert [int(row["estimate"]) for row in runs.values()] == [49, 49]  # (27 x 10 + 3 x 400) / 30
    assert [int(row["preemptions"]) for row in runs.values()] == [1, 0]


def test_an_aborted_output_is_a_lower_bound_to_whoever_asks() -> None:
    told = KaplanMeier(Admission())
    for estimator in (told, Ema(Admission())):
        dispatcher = Dispatcher(Fifo(), estimator, Admission())
        dispatcher.arrive(job().request, "summary", 0.0)
        (inside,) = dispatcher.release(1, 0.0)
        dispatcher.finished([Departure(inside, None, True, at_least=70)], 1.0)
        dispatcher.arrive(job().request, "summary", 2.0)
        (again,) = dispatcher.release(1, 2.0)
        dispatcher.finished([Departure(again, 40, False)], 3.0)
    assert told.lifetimes["summary"].curve[:2] == ([0.0, 40.0, 70.0], [1.0, 0.5, 0.0])
    told.observe_unfinished(job(), 0, 4.0)  # it had not begun, or nobody knows how far it came
    assert len(told.lifetimes["summary"]) == 2


def test_a_simulated_abort_tells_how_far_it_came() -> None:
    made = Workload.backlog(requests=1, prompt_tokens=16, output_tokens=500)
    made = Workload(made.info, made.table.assign(patience_s=1.0, predicted_category="summary"))
    heard: list[int] = []

    class Hears(KaplanMeier):
        def observe_unfinished(self, job: Job, at_least: int, now: float) -> None:
            heard.append(at_least)

    scenario = Scenario(profile=Profile.plain(intercept_s=0.01, max_num_seqs=1), estimator=give_class(Hears))
    run = simulate(scenario, made).requests
    assert run["finish_reason"].tolist() == ["abort"]
    assert heard == run["output_tokens"].tolist()
    assert 90 < heard[0] < 110


def test_the_interval_stands_in_the_trace() -> None:
    made = Workload.poisson(rate=1.0, requests=40, prompt_tokens=16, output_tokens=50)
    run, plain = (
        simulate(Scenario(profile=Profile.plain(intercept_s=0.01, max_num_seqs=4), estimator=name), made).requests
        for name in ("kaplan-meier", "ema")
    )
    assert run["estimate_low"].iloc[0] == 1
    assert run["estimate_high"].iloc[0] == made.table["max_tokens"].iloc[0]
    assert run[["estimate_low", "estimate_high"]].iloc[-1].tolist() == [50, 50]
    assert "estimate_low" not in plain
