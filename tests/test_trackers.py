"""The estimators that follow one number: what each says after what, for every sequence."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftsim.request import Job, Request, Tier
from driftsim.scheduling.admission import Admission
from driftsim.scheduling.estimators import ESTIMATORS
from driftsim.scheduling.trackers import LogEma, Means, Prompt, Quantile, Session, Tenant
from driftsim.simulation.run import simulate
from driftsim.simulation.scenario import Scenario
from driftsim.workloads.workload import Workload
from tests.strategies import engine, profile

LENGTHS = st.lists(st.integers(1, 2000), min_size=1, max_size=120)


def request(prompt: int = 100, cap: int = 100_000, tenant: str = "a", session: str = "") -> Request:
    return Request(f"r{prompt}", tenant, Tier.STANDARD, "", 0.0, prompt, None, cap, session=session)


def teach(learner: object, asked: Request, length: int, category: str = "summary") -> int:
    """What ``learner`` says of ``asked``, which then comes out ``length`` long."""
    said = learner.estimate(asked, category, 0.0)  # type: ignore[attr-defined]
    job = Job(asked, category, said.length, 0, quantiles=said.quantiles)
    learner.observe(job, length, False, 0.0)  # type: ignore[attr-defined]
    return int(said.length)


@pytest.mark.parametrize("name", ESTIMATORS)
@given(lengths=LENGTHS, prompt=st.integers(0, 3000), cap=st.integers(1, 2000))
def test_an_estimate_may_come_true(name: str, lengths: list[int], prompt: int, cap: int) -> None:
    """Whatever was seen: at least 1, and but for the published two at most ``max_tokens``."""
    learner = ESTIMATORS[name](Admission())
    for length in lengths[:30]:
        said = teach(learner, request(prompt, cap), min(length, cap))
        assert said >= 1
        assert said <= cap or name in ("static", "ema")


# -- prompt


def test_prompt_is_its_factor_times_the_prompt_and_learns_nothing() -> None:
    learner = Prompt(Admission())
    assert [teach(learner, request(prompt), 7) for prompt in (100, 100, 7)] == [150, 150, 10]
    assert teach(Prompt(Admission(), factor=0.5), request(300), 7) == 150
    assert teach(learner, request(0), 7) == 1
    assert teach(learner, request(500, cap=64), 7) == 64


def test_prompt_counts_in_the_unit_of_the_accounting() -> None:
    asked = Request("r", "a", Tier.STANDARD, "", 0.0, 100, 60, 4096)
    assert Prompt(Admission(accounting="whitespace")).estimate(asked, "", 0.0).length == 90


# -- log-ema


@given(st.floats(-2, 2), st.floats(0.01, 1.0), st.integers(1, 40))
def test_a_constant_ratio_is_approached_by_its_power(log_ratio: float, alpha: float, count: int) -> None:
    """b_n = r^(1 - (1 - alpha)^n)."""
    learner, asked = LogEma(Admission(), alpha=alpha), request(1000)  # base 256 x 1.5
    length = max(1, round(384 * math.exp(log_ratio)))
    for _ in range(count):
        teach(learner, asked, length)
    assert learner.logs["summary"] == pytest.approx(math.log(length / 384) * (1 - (1 - alpha) ** count))


def test_half_and_twice_weigh_alike() -> None:
    learner = LogEma(Admission(), alpha=0.5)
    for length in (768, 192, 768, 192):
        teach(learner, request(1000), length)
    assert -0.5 * math.log(2) < learner.logs["summary"] < 0.5 * math.log(2)
    assert "report" not in learner.logs


# -- quantile


@given(LENGTHS, st.floats(0.05, 0.95), st.floats(0.01, 0.5))
def test_coverage_is_within_its_bound_for_every_sequence(lengths: list[int], q: float, step: float) -> None:
    """The steps add up: coverage - q = (first - last) / (step x n), and no step leads further out than the lengths."""
    learner, asked = Quantile(Admission(), q=q, step=step), request(1000)
    hits = [length <= teach(learner, asked, length) for length in lengths]
    moved = learner.logs["summary"]
    count = len(lengths)
    assert sum(hits) / count - q == pytest.approx(-moved / (step * count))
    logs = [math.log(length / 384) for length in lengths]
    least = math.log(0.5 / 384)  # an estimate is rounded, and at least 1
    assert min(*logs, 0.0, least) - step <= moved <= max(*logs, 0.0) + step + math.log(2)


def test_the_quantile_is_found_in_the_end() -> None:
    learner, random = Quantile(Admission(), q=0.8, step=0.05), np.random.default_rng(3)
    lengths = np.maximum(1, random.lognormal(5, 1, 8000)).astype(int)
    said = [teach(learner, request(1000), int(length)) for length in lengths]
    truth = float(np.quantile(lengths, 0.8))
    assert np.exp(np.log(said[2000:]).mean()) == pytest.approx(truth, rel=0.1)
    assert learner.estimate(request(), "summary", 0.0).quantiles == (
        learner.estimate(request(), "summary", 0.0).length,
    )


def test_a_quantile_is_judged_by_what_it_said() -> None:
    """Told late: what was said to a job counts, not what would be said now."""
    learner, asked = Quantile(Admission(), q=0.5, step=1.0), request(1000)
    first = learner.estimate(asked, "summary", 0.0)
    teach(learner, asked, 5000)  # now twice or so
    learner.observe(Job(asked, "summary", first.length, 0), first.length + 1, False, 0.0)  # a miss of what was said
    assert learner.logs["summary"] == pytest.approx(1.0)


# -- means


@pytest.mark.parametrize("length", [1, 17, 900])
def test_a_session_of_one_length_is_known_from_its_second_turn_on(length: int) -> None:
    learner = Session(Admission())
    teach(learner, request(session="other"), 50)
    said = [teach(learner, request(100 * turn, session="one"), length) for turn in range(1, 6)]
    assert said == [50, *[length] * 4]  # the first by its category
    assert teach(learner, request(session="other"), 50) == 50


def test_without_sessions_the_category_tells() -> None:
    learner = Session(Admission(), alpha=1.0)
    assert teach(learner, request(1000), 40) == 384  # the base
    assert teach(learner, request(1000), 40) == 40
    assert teach(learner, request(1000), 40, category="report") == 768


def test_a_tenant_has_a_mean_of_each_category() -> None:
    learner = Tenant(Admission(), alpha=0.5)
    for length in (100, 200):
        teach(learner, request(tenant="a"), length)
    assert teach(learner, request(tenant="a"), 150) == 150  # (100 + 200) / 2
    assert teach(learner, request(tenant="b"), 150) == 150  # the category's
    assert teach(learner, request(tenant="a"), 1, category="report") == round(512 * 1.1)


def test_only_the_latest_groups_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Means, "most", 3)
    learner = Session(Admission())
    for name in "abcd":
        teach(learner, request(session=name), 10)
    assert list(learner.means) == [("session", "c"), ("session", "d"), ("summary",)]


def test_sessions_reach_the_estimator() -> None:
    """Turns of a session are estimated from its own earlier turns, in a run."""
    made = Workload.poisson(rate=0.1, requests=60, prompt_tokens=50, output_tokens=100, seed=1)
    names = [f"s{row % 3}" for row in range(60)]
    table = made.table.assign(
        session=names,
        parent=pd.Series([[] for _ in names], dtype=object),
        gap_s=0.0,
        output_tokens=[50 + 40 * (row % 3) for row in range(60)],
        max_tokens=400,
    )
    made = Workload(made.info, table)
    run = simulate(Scenario(profile=profile(engine()), estimator="session"), made).requests
    late = run[run["arrival_s"] > run["finish_s"].iloc[:3].max()]
    assert len(late) > 40
    assert (late["estimate"] == late["output_tokens"]).all()
    plain = simulate(Scenario(profile=profile(engine()), estimator="tenant"), made).requests
    assert (plain["estimate"] != plain["output_tokens"]).sum() > 30
