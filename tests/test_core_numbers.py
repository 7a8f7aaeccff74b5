"""The numbers that are answers to a user, of one run and of one valuation whose every number is known by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from driftsim.comparison.plan import Setting
from driftsim.contrasts import Contrast, paired
from driftsim.costs import Costs, cost_summary
from driftsim.errors import InputError
from driftsim.goodput import Judged
from driftsim.metrics import _tau_within, choice_fraction, summary, tpot
from driftsim.pressing.loads import LoadAxis
from driftsim.simulation.run import simulate
from driftsim.simulation.scenario import Scenario
from driftsim.simulation.spec import ScenarioSpec
from driftsim.sizing.curves import Curve
from driftsim.statistics import Day, Interval, mean_error, over_days, student_quantile
from driftsim.trace.trace import Trace
from driftsim.validation.agreement import PolicyEffect, change_agreement
from driftsim.validation.validation import Validation
from driftsim.workloads.generated import WorkloadSpec
from driftsim.worth.answers import Answers, beyond
from driftsim.worth.engines import Engine
from driftsim.worth.plan import FIFO, RIVALS, ValuePlan, noisy
from driftsim.worth.run import Cell, Valuation
from driftsim.worth.wording import busiest, conclusions
from tests.strategies import engine, profile, workload

NAN = math.nan


@pytest.fixture(scope="module")
def run() -> Trace:
    """Three requests finish, one is rejected and one fails; moments are whole seconds."""
    made = workload([0.0, 1.0, 2.0, 3.0, 4.0], [4, 1, 5, 2, 2], tenant=["a", "b", "a", "b", "c"])
    trace = simulate(Scenario(profile=profile(engine(max_num_seqs=1))), made)
    ends = pd.Series(["stop", "stop", "length", "rejected", "error"], dtype=object)
    table = trace.requests.assign(
        dispatch_s=[0.0, 3.0, 4.0, NAN, 5.0],
        scheduled_s=[1.0, 2.0, 5.0, NAN, 6.0],
        first_token_s=[2.0, 4.0, 6.0, NAN, NAN],
        finish_s=[5.0, 4.0, 10.0, 3.0, 12.0],
        output_tokens=pd.array([4, 1, 5, None, None], dtype="Int64"),
        finish_reason=ends,
        preemptions=pd.array([1, 0, 2, 0, 0], dtype="Int64"),
    )
    return replace(trace, requests=table)


def test_a_run_is_summed_up(run: Trace) -> None:
    found = summary(run)
    assert [found[name] for name in ("requests", "finished", "rejected", "errors", "scored", "preemptions")] == [
        5, 3, 1, 1, 3, 3,
    ]  # fmt: skip
    told = {
        "e2e_mean_s": 16 / 3,
        "e2e_p50_s": 5.0,
        "e2e_p90_s": 7.4,
        "e2e_p99_s": 7.94,
        "ttft_mean_s": 3.0,
        "tpot_mean_s": 1.0,
        "queue_wait_p50_s": 1.0,
        "queue_wait_p99_s": 2.96,
        "makespan_s": 12.0,
        "waiting_fraction": 6 / 12,
        "choice_fraction": 1 / 12,
        "jain_index": (0.7125 + 1 / 3) ** 2 / (3 * (0.7125**2 + 1 / 9)),
    }
    assert {name: found[name] for name in told} == pytest.approx(told)
    assert found["p99_flagged"] is True


def test_ranks_within_categories_are_weighted_by_pairs() -> None:
    rows: Any = pd.DataFrame({"category": ["a"] * 2 + ["b"] * 3, "tier": "batch"})
    budget, total = np.array([1.0, 2.0, 1.0, 2.0, 3.0]), np.array([5.0, 6.0, 9.0, 8.0, 7.0])
    assert _tau_within(rows, "category", budget, total) == pytest.approx((1 * 1 - 3 * 1) / 4)


def test_where_nothing_ended_nobody_chose_and_one_token_has_no_pace() -> None:
    rows = pd.DataFrame({"arrival_s": [0.0, 0.0], "dispatch_s": [1.0, 1.0], "finish_s": [NAN, NAN]})
    assert choice_fraction(rows) == 0.0
    short = pd.DataFrame({"first_token_s": [1.0, 1.0], "finish_s": [2.0, 2.0], "output_tokens": [1, 2]})
    assert tpot(short).tolist() == pytest.approx([NAN, 1.0], nan_ok=True)


def test_a_run_is_held_against_its_slos(run: Trace) -> None:
    found = summary(run, slos="e2e=5s,ttft=3s")
    told = {
        "slo_met": 2,
        "slo_missed": 3,
        "without_slo": 0,
        "attainment": 0.4,
        "goodput": 2 / 12,
        "token_goodput": 5 / 12,
        "missed_e2e": 1,
        "missed_ttft": 1,
        "missed_tpot": 0,
        "missed_unfinished": 2,
    }
    assert {name: found[name] for name in told} == pytest.approx(told)
    assert {name: own["slo_met"] for name, own in found["per_tenant"].items()} == {"a": 1, "b": 1, "c": 0}
    some = summary(run, slos="a:tpot=1s")
    assert (some["slo_met"], some["slo_missed"], some["without_slo"]) == (2, 0, 3)
    assert summary(run, slos="b:tpot=1ms")["slo_met"] == 1  # a single token has no time between tokens


def test_what_took_no_time_has_no_rate() -> None:
    at_once = Judged(np.array([0]), {"unfinished": np.array([False])}, np.array([3.0]), 0.0)
    assert math.isnan(at_once.counts()["goodput"])
    assert replace(at_once, span=2.0).counts()["token_goodput"] == 1.5
    lost = Judged(np.array([0]), {"unfinished": np.array([True])}, np.array([3.0]), 0.0)
    assert (lost.counts()["goodput"], lost.counts()["attainment"]) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("measured", "simulated", "agrees"),
    [
        ((0.2, 0.1, 0.3), (0.4, 0.3, 0.5), True),
        ((-0.2, -0.3, -0.1), (-0.4, -0.5, -0.3), True),
        ((0.2, 0.1, 0.3), (-0.4, -0.5, -0.3), False),
        ((0.2, -0.1, 0.3), (-0.4, -0.5, -0.3), None),
        ((0.2, 0.1, 0.3), (0.1, 0.0, 0.2), None),
    ],
)
def test_a_change_agrees_where_both_signs_are_sure(measured: Any, simulated: Any, agrees: bool | None) -> None:
    assert PolicyEffect("sjf", "e2e", "mean", Interval(*measured), Interval(*simulated)).agrees is agrees


def test_a_change_that_one_policy_does_not_have_is_left_out(run: Trace) -> None:
    blind = replace(run, requests=run.requests.assign(first_token_s=NAN))
    found, _ = change_agreement({"fifo": [Validation("a", run, run)] * 2, "sjf": [Validation("b", blind, run)] * 2})
    assert {one.metric for one in found} == {"e2e"}


def test_a_run_has_its_price(run: Trace) -> None:
    found = cost_summary(run, Costs(idle_watts=40.0, busy_watts=100.0, price_per_hour=3.6), "e2e=5s,ttft=3s")
    told = {
        "busy_s": 11.0,
        "busy_share": 11 / 12,
        "energy_j": 1140.0,
        "energy_per_kilotoken_j": 114_000.0,
        "energy_per_good_request_j": 570.0,
        "money": 0.012,
        "money_per_kilotoken": 1.2,
        "money_per_good_request": 0.006,
    }
    assert found == pytest.approx(told)
    assert cost_summary(run, Costs(busy_watts=0.5))["energy_j"] == 5.5  # what idles is not known, and counts nothing
    with pytest.raises(InputError, match="idle_watts 9 is above busy_watts 5"):
        Costs(idle_watts=9.0).over(Costs(busy_watts=5.0))
    assert Costs(idle_watts=5.0).over(Costs(busy_watts=5.0)).busy_watts == 5.0


def test_two_rounds_have_an_error_and_one_has_none() -> None:
    two = paired(np.array([1.0, 3.0]), np.array([0.0, 0.0, 9.0]))
    assert (two.value, two.error, two.freedom) == pytest.approx((2.0, 1.0, 1))
    one = paired(np.array([1.0]), np.array([0.5]))
    assert (one.value, one.freedom, math.isnan(one.error), math.isnan(one.p)) == (0.5, 0, True, True)
    assert mean_error(np.array([1.0, 3.0])) == pytest.approx((1.0, 1.0))


def test_of_two_days_the_larger_error_counts() -> None:
    calm, wild = np.array([1.0, 1.0, 1.0]), np.array([0.0, 1.0, 2.0])
    apart = over_days([Day(1.0, calm, calm), Day(9.0, calm + 2, calm)])
    assert (apart.centre, apart.error, apart.freedom, apart.this_run) == pytest.approx((2.0, 1.0, 1, 1.0))
    alike = over_days([Day(1.0, calm, wild), Day(1.0, wild, calm)])
    assert (alike.centre, alike.error, alike.freedom) == pytest.approx((1.0, math.sqrt(0.5), 2))
    assert not over_days([Day(1.0, calm, calm)]).moved
    alone = over_days([Day(1.0, calm, calm + 0.1)])
    assert (alone.error, alone.moved) == pytest.approx((0.0, True))
    assert (alone.p, over_days([Day(0.0, calm * 0, calm * 0)]).p) == (0.0, 1.0)


def test_a_curve_of_draws_has_its_interval_and_tells_how_many_draws_tell() -> None:
    drawn = np.array([[1.0, 0.75], [0.5, 0.25]] * 4)
    curve = Curve(np.array([1.0, 2.0]), 0.75, {"drawn": drawn})
    assert curve.mean.tolist() == [0.75, 0.5]
    assert curve.telling == pytest.approx((4 * 0.5) ** 2 / (4 * 0.5**2))  # four draws miss half, four miss nothing
    low, high = curve.ends()
    missed, reach = np.array([0.25, 0.5]), np.array([1.0, 0.5]) / math.sqrt(7)  # standard errors over what missed
    assert low == pytest.approx(1 - missed * np.exp(student_quantile(4) * reach))
    assert high == pytest.approx(1 - missed * np.exp(-student_quantile(7) * reach))
    assert curve.short() == (True, False)
    assert Curve(np.array([1.0, 2.0]), 0.6, {"drawn": drawn}).short() == (True, True)  # it may still hold at the last
    assert Curve(np.array([1.0, 2.0]), 0.75, {"drawn": drawn * 0 + 1}).telling == 1.0


def test_a_contrast_of_one_degree_of_freedom_has_a_p_and_of_none_has_no_ends() -> None:
    assert Contrast(1.0, 1.0, 1).p == pytest.approx(0.5)  # Cauchy's distribution
    assert (Contrast(0.0, 0.0, 3).p, Contrast(0.1, 0.0, 3).p) == (1.0, 0.0)
    assert math.isnan(Contrast(1.0, 1.0, 0).interval().low)
    one = Contrast(1.0, 1.0, 1).interval(0.5)
    assert (one.low, one.high) == pytest.approx((0.0, 2.0))


# -- a valuation

CALM, BUSY = Cell("slots", 0.3), Cell("slots", 0.9)
MEANS = {
    ("sjf", noisy(0.0)): 5.0,
    ("sjf", noisy(1.0)): 8.0,
    ("sjf", noisy(2.0)): 12.0,
    ("sjf", "ema"): 9.0,
    ("sjf", "pooled"): 9.5,
    ("wspt", noisy(0.0)): 6.0,
    ("wspt", noisy(1.0)): 10.0,
    ("wspt", noisy(2.0)): 10.0,
    ("wspt", "ema"): 7.0,
    ("wspt", "pooled"): 7.5,
    FIFO: 10.0,
    RIVALS["labels"]: 9.0,
}


@pytest.fixture(scope="module")
def answers() -> Answers:
    """Two draws, of which the second has all times twice as long; at the calm load nothing changes by 5 %."""
    work = WorkloadSpec(kind="poisson", rate=1.0, requests=9, prompt_tokens=8, output_tokens=20)
    spec = ScenarioSpec(workload=work, profile="p.json")
    plan = ValuePlan(
        spec=spec, policies=("sjf", "wspt"), estimators=("pooled", "ema"), sigmas=(1.0, 2.0), loads=(0.3, 0.9),
        limits=("slots",), replications=2,
    )  # fmt: skip

    def rows(mean: float) -> list[dict[str, Any]]:
        return [
            {"e2e_mean_s": mean * day, "e2e_p99_s": 3 * mean * day, "slowdown_mean": mean, "log_error": 0.1 * day}
            for day in (1, 2)
        ]

    found = {
        CALM: {Setting(*name): rows(10 + (mean - 10) / 20) for name, mean in MEANS.items()},
        BUSY: {Setting(*name): rows(mean) for name, mean in MEANS.items()},
    }
    engines = {"slots": Engine("slots", {}, 4.0, {})}
    return Answers(Valuation(plan, LoadAxis("rate", 1.0), 1.0, engines, [], found))  # type: ignore[arg-type]


def test_a_change_is_against_fifo_and_its_interval_of_the_draws(answers: Answers) -> None:
    assert answers.change(BUSY, Setting("sjf", "ema")) == pytest.approx((-0.1, -0.1, -0.1))
    assert answers.change(BUSY, Setting("sjf", "ema"), "p99", RIVALS["labels"]).value == pytest.approx(0.0)
    assert answers.error(BUSY, FIFO) == pytest.approx(0.15)
    assert answers.best_policy(BUSY) == "sjf"


@pytest.mark.parametrize(
    ("policy", "rival", "state", "sigma"),
    [("sjf", "fifo", "found", 1.5), ("sjf", "labels", "found", 1.25), ("wspt", "fifo", "never", NAN)],
)
def test_predictions_lose_beyond_a_sigma(answers: Answers, policy: str, rival: str, state: str, sigma: float) -> None:
    lost = answers.beyond(BUSY, policy, rival=rival)
    assert lost.state == state
    assert lost.sigma.value == pytest.approx(sigma, nan_ok=True)


def test_predictions_lose_at_once_never_or_change_nothing() -> None:
    none, worse, better = Interval(0.0, 0.0, 0.0), Interval(0.2, 0.1, 0.3), Interval(-0.2, -0.3, -0.1)
    assert beyond([0.0, 1.0], [none, none])[0] == "alike"
    state, sigma = beyond([0.0, 1.0], [worse, worse])
    assert (state, math.isnan(sigma.value), math.isnan(sigma.low), sigma.high) == ("at once", True, True, 0.0)
    assert beyond([0.0, 1.0], [better, none])[0] == "never"


def test_an_estimator_is_as_good_as_a_sigma(answers: Answers) -> None:
    assert answers.like_sigma(BUSY, Setting("sjf", "ema")) == pytest.approx(1.25)
    assert math.isnan(answers.like_sigma(BUSY, Setting("wspt", noisy(2.0))))  # no sigma is worse
    assert answers.like_sigma(BUSY, Setting("wspt", "ema")) == pytest.approx(0.25)


def test_a_load_is_calm_where_no_change_matters_at_it_or_below(answers: Answers) -> None:
    assert answers.calm("slots", "sjf") == answers.calm("slots", "wspt") == 0.3


def test_regrets_add_up(answers: Answers) -> None:
    row = answers.row(BUSY, Setting("wspt", "ema"))
    told = {"order_regret": 1 / 6, "admission_regret": 0.0, "policy_regret": 0.2, "total_regret": 0.4}
    assert {name: row[name] for name in told} == pytest.approx(told)
    assert (row["best_policy"], row["mean"]) == ("sjf", 10.5)
    assert row["log_error"] == pytest.approx(0.15)
    assert row["like_sigma"] == pytest.approx(0.25)
    assert math.isnan(row["sigma"])
    exact = answers.row(BUSY, Setting("wspt", noisy(1.0)))
    assert (exact["sigma"], math.isnan(exact["like_sigma"])) == (1.0, True)
    blind = answers.row(BUSY, FIFO)
    assert math.isnan(blind["log_error"])
    assert "best_policy" not in blind
    assert row["mean_change"] == pytest.approx(-0.3)


def test_the_sentences_of_a_valuation_tell_its_numbers(answers: Answers) -> None:
    advice, told = (line.replace("\N{NO-BREAK SPACE}", " ") for line in conclusions(answers))
    assert advice.startswith("Worth it")
    for part in (
        "When slots bind: at a load of 0.9, sjf with the true lengths changes the mean latency by -50.0",
        "Beyond sigma 1.5 [1.5 to 1.5] FIFO has the lower mean latency.",
        "ema is best: its log error is 0.15 and it changes the mean by -10.0",
        "as much as the truth blurred by sigma 1.2.",
        "Up to a load of 0.3 no prediction changes the mean by more than 5 %.",
    ):
        assert part in told


@pytest.mark.parametrize(
    ("loads", "told"), [((0.3, 0.9), 0.9), ((0.3, 1.0), 0.3), ((0.9, 0.99, 1.1), 0.99), ((1.1, 1.2), 1.1)]
)
def test_the_load_that_is_told_of_is_the_highest_below_one(loads: tuple[float, ...], told: float) -> None:
    made: Any = SimpleNamespace(valuation=SimpleNamespace(plan=SimpleNamespace(loads=loads)))
    assert busiest(made) == told
