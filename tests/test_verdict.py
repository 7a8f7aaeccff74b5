"""The verdict: five plain lines that answer what people ask, and no difference that is an accident."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import driftsim as ds
from driftsim.comparison.comparison import Comparison
from driftsim.comparison.plan import BASELINE, ComparisonPlan, Setting, settings_of
from driftsim.comparison.report import BOUND, legend, table
from driftsim.comparison.runs import compare
from driftsim.comparison.verdict import LABELS, _days_needed, answer, findings, recommended
from driftsim.metrics import summary
from driftsim.statistics import Day, over_days
from tests.strategies import engine, profile, workload

PROFILE = profile(engine(max_num_seqs=2), decode_request_s=0.001)
SJF, ORACLE = Setting("sjf", "static"), Setting("sjf", "oracle")
CODE = re.compile(r"\b(fifo|sjf|static|ema|pooled|oracle|e2e|ttft|mae)\b|\w_\w|--|\w/\w", re.IGNORECASE)


def crowd(count: int = 300, gap: float = 0.09) -> ds.Workload:
    """Chats are short and come from two tenants, reports are long and come from one: shortest first suits the chats."""
    random = np.random.default_rng(2)
    report = random.random(count) < 0.25
    return workload(
        np.cumsum(random.exponential(gap, count)).tolist(),
        np.where(report, random.integers(30, 60, count), random.integers(1, 9, count)).tolist(),
        tenant=np.where(report, "press", random.choice(["shop", "bank"], count)),
        predicted_category=np.where(report, "report", "short_qa"),
    )


def compared(made: ds.Workload, policies: str = "fifo sjf", estimators: str = "static", times: int = 12) -> Comparison:
    settings = settings_of(policies.split(), estimators.split())
    return compare(made, ComparisonPlan(profile=PROFILE, settings=settings, replications=times), jobs=1)


@pytest.fixture(scope="module")
def crowded() -> Comparison:
    return compared(crowd(), estimators="static ema oracle")


def test_five_lines_say_what_to_do_who_pays_how_sure_how_far_and_what_next(crowded: Comparison) -> None:
    lines = answer(crowded)
    assert [line.partition(": ")[0] for line in lines] == list(LABELS)
    do, gain, *_ = lines
    assert do.startswith("What to do: Serve the shortest estimated request first.")
    assert "Correcting the estimates" in do
    for name in ("shop", "bank", "press"):
        assert name in gain, gain  # tenants by name
    assert re.search(r"(shop|bank) \(-\d+ %\)", gain)
    change = crowded.change(recommended(crowded), BASELINE, "e2e_mean_s")
    assert f"falls by {-100 * change.value:.1f}" in gain


def test_no_line_has_a_code_word(crowded: Comparison) -> None:
    for line in [*answer(crowded), *answer(compared(workload([0.0, 9.0, 18.0], [5, 5, 5])))]:
        assert not CODE.search(line), line


def test_a_bound_is_shown_and_never_recommended(crowded: Comparison) -> None:
    assert crowded.value(ORACLE, "e2e_mean_s").value < crowded.value(SJF, "e2e_mean_s").value
    ranking = crowded.ranking("e2e_mean_s")
    assert ranking is not None
    assert "oracle" not in {setting.estimator for setting in (recommended(crowded), ranking.best, *ranking.ties)}
    assert any("If every length were known, which nobody can" in line for line in answer(crowded))
    _, rows = table(crowded)
    bounds = [row for row in rows if row[1].text.startswith("oracle")]
    assert bounds
    for row in bounds:
        assert row[1].text.endswith(BOUND)
        assert {cell.mark for cell in row} == {""}
    alone = compared(crowd(60), estimators="oracle", times=3)
    assert answer(alone)[0].startswith("What to do: No advice")


def test_an_estimator_of_ones_own_says_that_nobody_can_deploy_it() -> None:
    class Prophet:
        deployable = False

        def __init__(self, admission: ds.Admission) -> None:
            self.admission = admission

        def estimate(self, request: ds.Request, category: str, now: float) -> ds.Estimate:
            return ds.Estimate(request.max_tokens, 1.0)

        def observe(self, job: ds.Job, output_length: int, censored: bool, now: float) -> None:
            pass

    made = ds.compare(
        crowd(80), policies=["fifo", "sjf"], estimators=["static", Prophet], profile=PROFILE, replications=3, jobs=1
    )
    assert [row["deployable"] for row in made.rows()] == [True, False, True, False]
    assert "Prophet" not in findings(made)["recommended"]


def test_the_advice_is_the_simplest_that_cannot_be_told_from_the_best(crowded: Comparison) -> None:
    ranking = crowded.ranking("e2e_mean_s")
    assert ranking is not None
    assert recommended(crowded) == SJF
    assert {ranking.best, *ranking.ties} >= {SJF}
    assert findings(crowded)["recommended"] == "sjf/static"


def test_a_difference_below_the_practical_size_is_none(crowded: Comparison) -> None:
    real = [over_days([Day(0.0, *np.random.default_rng(1).normal(0.004, 1e-6, (2, 9)))])]
    assert real[0].p < 1e-6
    assert crowded.real(real, [real[0].centre]) == [False]
    assert crowded.real(real, [0.02]) == [True]


def test_of_many_rows_that_differ_in_nothing_one_stands_out_in_five_percent_of_all_tables(crowded: Comparison) -> None:
    random = np.random.default_rng(0)
    claimed = plain = 0
    for _ in range(600):
        changes = [over_days([Day(0.0, *(drawn + random.normal()))]) for drawn in random.normal(size=(10, 2, 19))]
        claimed += any(crowded.real(changes, [1.0] * 10))
        plain += any(change.p < 0.05 for change in changes)
    assert claimed / 600 <= 0.07
    assert plain / 600 > 0.25  # what no adjustment would claim


def test_rows_that_differ_in_nothing_are_one_row() -> None:
    result = compared(crowd(80), policies="fifo priority weighted aging", times=3)
    _, rows = table(result)
    assert len(rows) == 1
    same = "one row, for they differ in nothing: fifo/static, priority/static, weighted/static, aging/static"
    assert same in legend(result)
    assert len(result.rows()) == 4  # the JSON has all


def test_where_nobody_waits_the_verdict_says_so_and_the_note_how_to_press() -> None:
    idle = compared(workload([0.0, 9.0, 18.0], [5, 5, 5]))
    assert "no queue formed, so order could not matter" in answer(idle)[0]
    assert not any(line.startswith("Gain and cost: The mean") for line in answer(idle))


def test_one_run_alone_is_not_sure_of_anything() -> None:
    alone = answer(compared(crowd(60), times=1))
    assert any(line.startswith("How sure: Not at all") for line in alone)
    assert not any("(nan" in line for line in alone)


@pytest.fixture(scope="module")
def demo() -> ds.ComparisonResult:
    return ds.compare(
        "traces/smollm2-cpu-drift", policies=["fifo", "sjf"], estimators="static", replications=12, jobs=1
    )


def test_whose_tail_rises_is_named_beyond_doubt_and_nobody_else(demo: ds.ComparisonResult) -> None:
    gain = answer(demo)[1]
    _, begun, tails = gain.partition("What the slowest 1 % exceed rises for ")
    assert begun
    for name in ("batch", "premium", "standard"):
        change = demo.change_of(recommended(demo), BASELINE, "e2e_p99_s", name)
        told = re.search(rf"{name} \(\+(\d+) %\)", tails)
        if told is None:
            assert change.centre <= 0.01 or change.p > 0.05 / 6  # of six that are judged together
        else:
            assert int(told[1]) == round(100 * change.centre)
            assert change.p < 0.05
    assert "standard (+" in tails


def test_the_model_s_error_widens_the_interval_where_the_profile_tells_it(demo: ds.ComparisonResult) -> None:
    wide = demo.change_with_model(SJF, BASELINE, "e2e_mean_s")
    narrow = demo.change(SJF, BASELINE, "e2e_mean_s")
    assert wide is not None
    assert wide.value == narrow.value
    assert wide.low < narrow.low < narrow.high < wide.high
    own = summary(demo.traces[BASELINE], phase="learning")
    measured = summary(ds.read("traces/smollm2-cpu-drift"), phase="learning")
    error = 100 * (own["e2e_mean_s"] / measured["e2e_mean_s"] - 1)
    assert f"its phase learning: mean latency {error:+.1f} %." in answer(demo)[3]
    assert compared(crowd(60), times=4).change_with_model(SJF, BASELINE, "e2e_mean_s") is None


def test_days_that_are_needed_follow_from_the_error_of_the_mean() -> None:
    """A mean over n days has an error of 0.2 / sqrt(n); Student's quantile times that falls below 0.1 at n = 18."""
    change = SimpleNamespace(centre=-0.1, error=0.2)
    told: Any = SimpleNamespace(change_of=lambda *_: change, plan=SimpleNamespace(practical=0.01), days=[None])
    assert "about 18 days" in _days_needed(told, BASELINE)
    told.days, change.centre = [None] * 4, -0.2  # a mean over four days has that error
    assert "about 18 days" in _days_needed(told, BASELINE)
    change.centre = -0.001
    assert _days_needed(told, BASELINE) == ""
