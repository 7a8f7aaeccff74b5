"""Estimators: what they learn, from what, and what no single factor per category can change."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftsim.request import TIERS, Job, Request, Tier
from driftsim.scheduling.admission import Admission
from driftsim.scheduling.classify import CATEGORIES
from driftsim.scheduling.estimators import Ema, Pooled, Ratios, Recent
from driftsim.trace.trace import read
from experiments.paper.estimators import (
    _digest,
    distinct,
    in_sample,
    left_out,
    on_traces,
    others_median,
    progressive,
    request_sets,
    scores,
)
from experiments.paper.estimators import traces as shipped_traces
from experiments.paper.setup import ROOT


def request(prompt: int = 100, cap: int = 512, tenant: str = "a", tier: Tier = Tier.STANDARD) -> Request:
    return Request(f"r{prompt}", tenant, tier, "", 0.0, prompt, None, cap)


def taught(lengths: list[int], *, cap: int = 512, censored: bool = False, tenant: str = "a") -> Ratios:
    learner = Ratios(Admission())
    for length in lengths:
        learner.learn(request(cap=cap, tenant=tenant), "summary", length, censored)
    return learner


def test_ratios_begin_with_the_base_and_the_prompt_but_without_a_margin() -> None:
    # 256 x (1 + 100 / 1000) = 281.6, whatever the tier
    for tier in TIERS:
        assert Ratios(Admission()).length(request(tier=tier), "summary") == pytest.approx(281.6)


def test_ratios_shrink_the_median_towards_one_and_a_tenant_towards_its_category() -> None:
    learner = taught([563] * 40)  # twice what was expected
    ratio = math.log(563 / 281.6)
    category = 40 * ratio / (40 + 16)
    own = (40 * ratio + 100 * category) / 140
    assert learner.length(request(cap=2000), "summary") == pytest.approx(281.6 * math.exp(own))
    assert learner.length(request(cap=2000, tenant="b"), "summary") == pytest.approx(281.6 * math.exp(category))
    assert learner.length(request(cap=2000), "report") == pytest.approx(512 * 1.1)


def test_ratios_never_expect_more_than_may_come() -> None:
    assert taught([5000] * 100).length(request(cap=300), "summary") == 300


def test_an_output_cut_off_below_the_limit_is_only_a_lower_bound() -> None:
    cut = taught([100] * 20, cap=100, censored=True)
    plain = taught([100] * 20)
    for length in (150, 200, 250):
        cut.learn(request(), "summary", length, False)
        plain.learn(request(), "summary", length, False)
    assert cut.length(request(), "summary") > plain.length(request(), "summary")
    # under the same limit they are what may be expected again
    assert cut.length(request(cap=100), "summary") <= 100


@given(
    st.lists(st.tuples(st.sampled_from(CATEGORIES), st.integers(1, 512), st.sampled_from("ab")), max_size=80),
    st.integers(1, 600),
)
def test_pooled_hardly_errs_more_than_the_better_of_its_two(outputs: list[tuple[str, int, str]], prompt: int) -> None:
    # The bound of exponential weights for losses from 0 to 1: ln(1 / prior) / rate + rate x n / 8.
    learner, erred = Pooled(Admission()), np.zeros(3)
    for category, length, tenant in outputs:
        asked = request(prompt, tenant=tenant)
        said = learner.estimate(asked, category, 0.0).length
        alone = (learner.ratios.length(asked, category), learner.reference.estimate(asked, category, 0.0).length)
        erred += [abs(min(guess, 512) - length) / 512 for guess in (said, *alone)]
        learner.observe(Job(asked, category, said, 0), length, False, 0.0)
    rounding = 0.5 * len(outputs) / 512
    assert erred[0] <= erred[1] + math.log(1 / 0.3) + len(outputs) / 8 + rounding
    assert erred[0] <= erred[2] + math.log(1 / 0.7) + len(outputs) / 8 + rounding


def test_pooled_is_judged_by_what_it_said_first() -> None:
    asked, twice = (Pooled(Admission()) for _ in range(2))
    first, other = request(100), request(300)
    for learner in (asked, twice):
        learner.estimate(first, "summary", 0.0)
        learner.estimate(other, "summary", 0.0)
        learner.observe(Job(other, "summary", 0, 0), 40, False, 0.0)
    twice.estimate(first, "summary", 1.0)  # refreshed, once something was learned
    for learner in (asked, twice):
        learner.observe(Job(first, "summary", 0, 0), 40, False, 2.0)
    assert asked._odds == twice._odds  # rounded lengths would hide a small difference


def test_pooled_tells_its_ratios_of_a_cut() -> None:
    cut, whole = (Pooled(Admission()) for _ in range(2))
    for learner, censored in ((cut, True), (whole, False)):
        for length in (60, 80, 100):  # cut by a limit of 100, below that of the request asked for
            learner.observe(Job(request(cap=100), "summary", 0, 0), length, censored, 0.0)
    asked = request(cap=512)
    assert cut.ratios.length(asked, "summary") > whole.ratios.length(asked, "summary")


def test_pooled_expects_a_token_at_least() -> None:
    learner = Pooled(Admission())
    learner._odds = 30.0  # the ratios alone
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Ratios, "length", lambda *_: 0.2)
        assert learner.estimate(request(), "summary", 0.0).length == 1


def test_pooled_comes_to_trust_whoever_errs_less() -> None:
    asked = request(400, tier=Tier.PREMIUM)
    learner = Pooled(Admission())

    def gap() -> tuple[float, float]:
        said = learner.estimate(asked, "summary", 0.0).length
        own, other = learner.ratios.length(asked, "summary"), learner.reference.estimate(asked, "summary", 0.0).length
        return abs(said - own), abs(said - min(other, asked.max_tokens))

    for _ in range(300):  # the reference expects the margin and the prompt's factor beside what it learned
        learner.estimate(asked, "summary", 0.0)
        learner.observe(Job(asked, "summary", 0, 0), 200, False, 0.0)
    ratios, reference = gap()
    assert ratios < 0.05 * reference
    said = learner.estimate(asked, "summary", 0.0)
    assert said.bias == pytest.approx(said.length / (256 * 1.4))


def test_the_median_under_a_limit_is_kaplan_and_meiers() -> None:
    seen = Recent(10)
    for value, limit in ((1.0, math.inf), (2.0, 5.0), (3.0, math.inf), (4.0, 5.0), (5.0, math.inf)):
        seen.add(value, limit)
    # survival 4/5 after 1, 4/5 x 2/3 = 0.533 after 3, 0 after 5
    assert seen.median(9.0) == 5.0
    assert seen.median(5.0) == 3.0  # for a limit of 5 nobody was cut off below
    early = Recent(10)
    for value, limit in ((1.0, 2.0), (1.1, 2.0), (1.2, 2.0), (5.0, math.inf), (6.0, math.inf), (7.0, math.inf)):
        early.add(value, limit)
    assert early.median(9.0) == 6.0  # three are at risk when the first ends: 2/3, then 1/3


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=60), st.integers(1, 40))
def test_without_cuts_the_median_is_the_lower_one_of_the_latest(values: list[float], size: int) -> None:
    seen = Recent(size)
    for value in values:
        seen.add(value, math.inf)
    kept = values[-size:]
    assert len(seen) == len(kept)
    assert seen.median(1.0) == pytest.approx(np.quantile(kept, 0.5, method="inverted_cdf"))


@given(st.integers(1, 2000), st.integers(1, 2000), st.floats(0.25, 3.0), st.floats(0.25, 3.0), st.sampled_from(TIERS))
def test_one_bias_cannot_reorder_within_category_and_tier(
    one: int, other: int, bias: float, later: float, tier: Tier
) -> None:
    """Trap 10: at one instant the longer prompt has the larger budget, or an equal one, whatever the bias."""
    learner, budgets = Ema(Admission()), []
    for value in (bias, later):
        learner.bias["summary"] = value
        budgets.append([p + learner.estimate(request(p, tier=tier), "summary", 0.0).length for p in (one, other)])
    for first, second in budgets:
        assert (first <= second) == (one <= other)


def test_across_tiers_a_bias_can_reorder() -> None:
    learner, orders = Ema(Admission()), set()
    for bias in (0.25, 3.0):
        learner.bias["summary"] = bias
        short, long = request(10, tier=Tier.PREMIUM), request(100, tier=Tier.BATCH)
        budgets = [r.prompt_tokens + learner.estimate(r, "summary", 0.0).length for r in (short, long)]
        orders.add(budgets[0] < budgets[1])
    assert orders == {True, False}


def test_progressive_validation_learns_only_from_what_is_out() -> None:
    name, trace = next(iter(shipped_traces()))
    assert name == "smollm2-cpu-backlog"  # all there at time 0: nothing is out when they are estimated
    static, ema = (progressive(trace, estimator, Admission()) for estimator in ("static", "ema"))
    assert static["estimate"].tolist() == ema["estimate"].tolist()
    assert scores(static)["mae"] == pytest.approx(abs(static["estimate"] - static["observed"]).mean())


def test_pooled_is_worse_than_the_published_correction_on_no_trace(on_shipped: pd.DataFrame) -> None:
    rows = distinct(on_shipped)
    assert len(rows) >= 20
    assert not (rows["low"] > 0).any()  # none by more than chance
    assert (rows["change"] < 0).mean() > 0.9
    assert rows["change"].max() < 0.02
    moved = rows.assign(tau=rows["tau_pooled"] - rows["tau_ema"]).groupby("request_set")[["change", "tau"]].mean()
    assert (moved["change"] < 0).all()
    large = rows.groupby("request_set")["scored"].max() >= 60
    assert (moved["tau"][large] > 0).all()
    reference = rows[(rows["trace"] == "smollm2-cpu-reference") & (rows["accounting"] == "tokenizer")]
    assert (reference["high"] < 0).all()
    assert (rows["mae_pooled"] >= 0.95 * rows["in_sample"]).all()


@pytest.fixture(scope="module")
def on_shipped() -> pd.DataFrame:
    return on_traces()


# -- what hindsight leaves


@given(st.lists(st.integers(0, 50), min_size=1, max_size=30))
def test_the_median_of_the_others_leaves_out_the_one(values: list[int]) -> None:
    found = others_median(np.array(values))
    for place, median in enumerate(found):
        others = values[:place] + values[place + 1 :]
        assert median == np.median(others) if others else np.isnan(median)


def test_hindsight_that_holds_the_request_is_better_than_knowing_the_distribution() -> None:
    """1,000 cells of five exponential lengths each: the true median leaves log 2 of the mean."""
    observed = np.random.default_rng(5).exponential(100, 5000)
    rows = pd.DataFrame({"observed": observed, "category": np.repeat(np.arange(1000), 5), "tenant": "a"})
    truth, error = 100 * np.log(2), 3 * 100 / np.sqrt(5000)
    assert abs(np.abs(observed - 100 * np.log(2)).mean() - truth) < error
    assert in_sample(rows) < truth - error
    assert truth < left_out(rows).mean() < 1.3 * truth
    many = rows.assign(category="all")
    assert in_sample(many) == pytest.approx(left_out(many).mean(), rel=1e-3)  # of many requests one is nothing


def test_requests_alone_in_their_cell_have_no_others() -> None:
    rows = pd.DataFrame({"observed": [5, 9, 100], "category": ["a", "a", "b"], "tenant": ["t"] * 3})
    assert left_out(rows).tolist()[:2] == [4.0, 4.0]
    assert np.isnan(left_out(rows).tolist()[2])


def test_hindsight_on_the_shipped_traces_is_what_a_review_found(on_shipped: pd.DataFrame) -> None:
    rows = on_shipped[(on_shipped["accounting"] == "tokenizer") & (on_shipped["base"] == "reference")]
    found = rows.set_index("trace")[["in_sample", "leave_one_out"]].round().astype(int)
    for name, both in {
        "drift": (187, 195),
        "reference": (73, 86),
        "low-load": (124, 180),
        "backlog": (141, 185),
    }.items():
        assert tuple(found.loc[f"smollm2-cpu-{name}"]) == both


# -- what is counted once


def test_the_same_requests_with_the_same_estimates_are_one_comparison(on_shipped: pd.DataFrame) -> None:
    once = distinct(on_shipped)
    assert (len(on_shipped), len(once)) == (28, 22)
    again = on_shipped.drop(once.index)
    assert set(again["trace"]) == {"smollm2-cpu-small-kv", "smollm2-cpu-reference"}
    assert set(again[again["trace"] == "smollm2-cpu-reference"]["base"]) == {"caps"}  # its caps are its base
    assert once["request_set"].nunique() == 4
    assert int((once["taught"] == 0).sum()) == 8
    untaught = once[once["taught"] == 0]
    assert (untaught["mae_static"] == untaught["mae_ema"]).all()  # nothing was learned
    assert set(untaught["trace"]) == {"smollm2-cpu-backlog", "smollm2-cpu-policies"}


def test_one_other_estimate_makes_another_comparison() -> None:
    rows = pd.DataFrame({"estimate": [10, 20], "observed": [11, 19]})
    other = rows.assign(estimate=[10, 21])
    same = [_digest({"static": rows, "ema": rows}) for _ in range(2)]
    assert same[0] == same[1] != _digest({"static": rows, "ema": other})


def test_requests_that_another_trace_has_too_are_its() -> None:
    trace = read(ROOT / "traces" / "smollm2-cpu-backlog")
    some = replace(trace, requests=trace.requests.head(20))
    longer = replace(trace, requests=some.requests.assign(output_tokens=some.requests["output_tokens"] + 1))
    assert request_sets({"some": some, "whole": trace, "longer": longer}) == {
        "some": "whole", "whole": "whole", "longer": "longer"
    }  # fmt: skip
