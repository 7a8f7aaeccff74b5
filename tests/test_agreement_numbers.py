"""The numbers that hold a simulation against a recorded run, where they are known by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest

from driftsim.calibration.coverage import extent, extrapolation_warnings
from driftsim.contrasts import Contrast
from driftsim.latency.profile import Coverage
from driftsim.simulation.run import simulate
from driftsim.simulation.scenario import Scenario
from driftsim.slo import slo_rules
from driftsim.statistics import student_quantile
from driftsim.trace.trace import Trace
from driftsim.validation.agreement import RankAgreement
from driftsim.validation.equivalence import BOTH_SIDES, MOST_ROUNDS, judge
from driftsim.validation.shares import attainments, hit_rates, rows_of, sentences
from driftsim.validation.validation import COMPOSITION, TOLERANCE_S, Validation, _alike, _exceptions, worst
from tests.strategies import engine, profile, workload


@pytest.fixture(scope="module")
def run() -> Trace:
    made = workload([0.0, 0.0, 0.0], [4, 2, 5], prompt_tokens=[10, 30, 60])
    return simulate(Scenario(profile=profile(engine(max_num_seqs=1))), made)


def cached(run: Trace, *tokens: int | None) -> Trace:
    return replace(run, requests=run.requests.assign(cached_tokens=pd.array(tokens, dtype="Int64")))


def test_a_hit_rate_is_of_the_prompts_that_are_told_of(run: Trace) -> None:
    both = Validation("r", cached(run, 5, None, 9), cached(run, 0, 30, 20))
    assert hit_rates(both) == (14 / 70, 0.5)
    assert hit_rates(Validation("r", cached(run, None, None, None), both.simulated)) is None
    other = replace(both, name="other", recorded=run)
    assert rows_of(hit_rates, [both, other]) == [{"trace": "r", "measured": 0.2, "simulated": 0.5}]
    assert sentences(both) == ["r: 20.0 % of the prompt tokens were found in the cache, 50.0 % simulated"]


def test_a_share_within_slos_is_told_unless_one_is_of_the_time_between_tokens(run: Trace) -> None:
    def under(slo: str) -> Trace:
        return replace(run, header=run.header.changed(slos=slo_rules(slo)))

    ends = sorted(run.requests["finish_s"])
    late = replace(run, requests=run.requests.assign(finish_s=run.requests["finish_s"] + 99.0))
    assert attainments(Validation("r", under(f"e2e={ends[1]}s"), late)) == (2 / 3, 0.0)
    assert attainments(Validation("r", under("itl=1s"), run)) is None
    assert attainments(Validation("r", run, run)) is None


@pytest.mark.parametrize(
    ("counts", "tau"), [((3, 0, 0), 1.0), ((0, 3, 0), -1.0), ((2, 1, 1), 1 / math.sqrt(12)), ((0, 0, 2), math.nan)]
)
def test_ties_weaken_an_agreement_of_ranks(counts: tuple[int, int, int], tau: float) -> None:
    assert RankAgreement("e2e", "mean", *counts).tau == pytest.approx(tau, nan_ok=True)


def half(error: float, freedom: int) -> float:
    return error * student_quantile(freedom, BOTH_SIDES)


@pytest.mark.parametrize(
    ("value", "verdict", "says"),
    [
        (0.0, "equivalent", ""),
        (0.09, "equivalent", ""),
        (-0.09, "equivalent", ""),
        (0.11, "undetermined", "the changes differ; whether by more than a factor of 1.11"),
        (0.2, "different", ""),
        (-0.2, "different", ""),
    ],
)
def test_an_interval_within_the_margin_is_the_same_change(value: float, verdict: str, says: str) -> None:
    assert half(0.005, 4) == pytest.approx(0.01066, rel=1e-3)
    found = judge(Contrast(value, 0.005, 4), 5, margin=0.105)
    assert (found.verdict, found.reason.startswith(says)) == (verdict, True)


def test_a_wide_interval_asks_for_as_many_rounds_as_would_tell() -> None:
    error, rounds, margin = 0.1, 5, 0.1
    found = judge(Contrast(0.02, error, 4), rounds, margin=margin)
    assert found.reason.startswith("whether they differ by more than a factor of 1.11 cannot be told")

    def reach(more: int) -> float:
        freedom = 4 + more
        both = student_quantile(freedom, BOTH_SIDES) + student_quantile(freedom, 0.6)  # a power of 0.8
        return both * error * math.sqrt(rounds / (rounds + more))

    assert found.more > 0
    assert reach(found.more) <= 0.08 < reach(found.more - 1)  # the room that is left to the margin
    assert f"about {found.more} more rounds" in found.reason
    near = judge(Contrast(margin, error, 4), rounds, margin=margin)
    assert (near.more, "near the margin" in near.reason) == (0, True)
    assert judge(Contrast(0.02, 9.0, 4), rounds, margin=margin).more == 0  # more than can be asked for
    assert found.more < MOST_ROUNDS


def test_one_round_decides_nothing() -> None:
    unknown: Any = judge(Contrast(0.0, math.nan, 0), 1)
    assert (unknown.verdict, unknown.reason) == ("undetermined", "an interval needs at least 2 rounds")
    assert judge(Contrast(0.0, 1e-9, 1), 2).verdict == "equivalent"


@pytest.mark.parametrize(
    ("running", "context", "said"), [(3, 101, []), (3, 100, ["KV tokens"]), (2, 101, ["requests at once"])]
)
def test_a_tenth_beyond_what_a_profile_has_seen_is_extrapolated(running: int, context: int, said: list[str]) -> None:
    made = workload([0.0, 0.0, 0.0], [4, 2, 5], prompt_tokens=[10, 30, 60])
    known = profile(engine(max_num_seqs=3))
    together = simulate(Scenario(profile=known), made)
    assert extent(together) == (3, 111)
    seen = Coverage(running=running, context_tokens=context, prefill_tokens=9)
    warnings = extrapolation_warnings(known.changed(seen=seen), together)
    assert [name for name in ("requests at once", "KV tokens") if any(name in line for line in warnings)] == said


def test_steps_that_one_side_lacks_are_not_alike() -> None:
    whole = pd.DataFrame({name: [1, 2, 3] for name in COMPOSITION})
    assert _alike(whole, whole) == 1.0
    assert _alike(whole, whole.head(2)) == _alike(whole.head(2), whole) == pytest.approx(2 / 3)
    assert _alike(whole, whole.assign(**{COMPOSITION[0]: [1, 2, 4]})) == pytest.approx(2 / 3)


def test_a_request_that_is_off_is_an_exception_and_one_within_the_tolerance_is_none() -> None:
    recorded = pd.DataFrame({"request_id": ["a", "b", "c"], "first_token_s": [1.0] * 3, "finish_s": [2.0] * 3})
    off = [0.0, TOLERANCE_S / 2, 2 * TOLERANCE_S]
    found = _exceptions(recorded, recorded.assign(finish_s=recorded["finish_s"] + off))
    assert list(found.columns) == ["request_id", "first_token_off_s", "finish_off_s"]
    assert found["request_id"].tolist() == ["c"]
    assert found["finish_off_s"].tolist() == pytest.approx([2 * TOLERANCE_S])


def test_the_worst_error_is_the_largest_of_those_that_are_known(run: Trace) -> None:
    late = replace(run, requests=run.requests.assign(finish_s=run.requests["finish_s"] * 3))
    rows = Validation("r", run, late).rows()
    makespan = next(row for row in rows if row["metric"] == "makespan")
    assert makespan["error"] == pytest.approx(2.0)
    assert worst([Validation("r", run, run), Validation("r", run, late)]) == max(abs(row["error"]) for row in rows)
    assert worst([Validation("r", run, run)]) == 0.0
    assert math.isnan(worst([]))
