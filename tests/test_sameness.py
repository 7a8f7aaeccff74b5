"""A row that cannot differ from FIFO says why; the reason is right, and none is given where it might differ."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import driftsim as ds
from driftsim.comparison.plan import ComparisonPlan, Setting, settings_of
from driftsim.comparison.report import legend, table
from driftsim.comparison.runs import compare
from driftsim.comparison.sameness import EQUAL_BUDGETS, MEANINGS, NO_CHOICE, ONE_TIER, explained, lasting, reasons
from driftsim.latency.profile import Profile
from driftsim.request import Job
from driftsim.scheduling.admission import Admission
from driftsim.scheduling.names import DEFAULT_POLICIES
from driftsim.scheduling.policies import POLICIES, Keyed, Priority
from driftsim.simulation.run import simulate
from driftsim.simulation.scenario import Scenario
from driftsim.workloads.workload import Workload
from tests.queues import SLOS
from tests.strategies import admissions, engine, estimators, profile, profiles, workload, workloads

PROFILE = profile(engine(max_num_seqs=1), decode_request_s=0.001)
CROWD: dict[str, Any] = {"arrivals": np.arange(0.0, 0.6, 0.02).tolist(), "outputs": [4, 9, 2] * 10}


def crowd(**columns: Any) -> Workload:
    return workload(CROWD["arrivals"], CROWD["outputs"], **columns)


def same(made: Workload, **changes: Any) -> dict[str, str]:
    """By policy with estimator: the field of the row."""
    settings = settings_of(DEFAULT_POLICIES[1:], ["static", "ema"])
    plan = ComparisonPlan(profile=PROFILE, settings=settings, replications=3, **changes)
    rows = compare(made, plan, jobs=1).rows()
    return {f"{row['policy']}/{row['estimator']}": row.get("same_as_fifo", "").partition(":")[0] for row in rows}


MIXED = {"tier": ["premium", "standard", "batch"] * 10, "predicted_category": ["report", "short_qa"] * 15}


def test_one_tier_is_a_reason_for_policies_that_go_by_tier() -> None:
    found = same(crowd(predicted_category=MIXED["predicted_category"]))
    by_tier = {
        f"{policy}/{estimator}" for policy in ("priority", "weighted", "aging") for estimator in ("static", "ema")
    }
    assert {name for name, reason in found.items() if reason == ONE_TIER} == by_tier
    assert {reason for name, reason in found.items() if name not in by_tier} == {""}


def test_equal_budgets_are_a_reason_for_sjf_as_long_as_no_estimate_moves() -> None:
    found = same(crowd(tier=MIXED["tier"]), admission=Admission(safety={}))
    assert {name for name, reason in found.items() if reason} == {"sjf/static"}
    assert found["sjf/static"] == EQUAL_BUDGETS
    assert same(crowd(tier=MIXED["tier"]))["sjf/static"] == ""  # the safety factor tells tiers apart


def test_budgets_that_are_equal_at_arrival_are_no_reason_if_estimates_are_refreshed() -> None:
    made = workload([0.0] * 12, [2, 50] * 6, predicted_category=["short_qa", "report"] * 6)
    admission = Admission(base_table={"short_qa": 64.0, "report": 64.0}, estimates="refreshed")
    frozen = same(made, admission=admission.changed(estimates="frozen"))
    assert (frozen["sjf/static"], frozen["sjf/ema"]) == (EQUAL_BUDGETS, EQUAL_BUDGETS)
    refreshed = same(made, admission=admission)
    assert (refreshed["sjf/static"], refreshed["sjf/ema"]) == (EQUAL_BUDGETS, "")
    order = simulate(Scenario(profile=PROFILE, policy="sjf", estimator="ema", admission=admission), made).requests
    assert not order["dispatch_index"].is_monotonic_increasing


def test_no_choice_is_a_reason_for_all() -> None:
    found = same(workload([0.0, 1.0, 2.0], [5, 5, 5], tier=["batch", "premium", "standard"]))
    assert {reason for name, reason in found.items() if not name.startswith("fifo")} == {NO_CHOICE}
    assert found["fifo/ema"] == ""


def test_two_that_come_at_one_instant_are_a_choice_though_nobody_waits() -> None:
    wide = replace(ComparisonPlan(profile=profile(engine(max_num_seqs=4))), replications=1)
    pair = workload([0.0, 0.0, 3.0], [5, 5, 5], tier=["batch", "premium", "standard"])
    rows = compare(pair, replace(wide, settings=settings_of(["fifo", "priority"], ["static"])), jobs=1).rows()
    assert rows[0]["choice_fraction"] == 0
    assert "same_as_fifo" not in rows[1]


def test_where_everything_differs_no_row_has_a_reason() -> None:
    assert set(same(crowd(**MIXED)).values()) == {""}


def test_a_reason_must_hold_in_every_replication() -> None:
    assert lasting([[ONE_TIER, NO_CHOICE], [NO_CHOICE]]) == NO_CHOICE
    assert lasting([[ONE_TIER], [ONE_TIER, NO_CHOICE]]) == ONE_TIER
    assert lasting([[NO_CHOICE], []]) == ""


class Own(Priority):
    """What it heeds besides the tier, its parent does not know."""

    def key(self, job: Job) -> float:
        """The longest prompt."""
        return -job.request.prompt_tokens


class ByPrompt(Keyed):
    """A plug-in that says nothing of what it heeds."""

    def key(self, job: Job) -> float:
        """The longest prompt."""
        return -job.request.prompt_tokens


@pytest.mark.parametrize("kind", [Own, ByPrompt])
def test_a_plug_in_is_not_taken_for_what_its_parent_says(kind: type) -> None:
    made = crowd(prompt_tokens=list(range(1, 31)))
    result = ds.compare(made, policies=["fifo", kind], profile=PROFILE, replications=1, jobs=1)
    assert all("same_as_fifo" not in row for row in result.rows())


@given(
    st.sampled_from([name for name in POLICIES if name != "fifo"]), estimators, workloads(), profiles(), admissions(),
    st.booleans(), st.sampled_from([1.0, 40.0]),
)  # fmt: skip
def test_a_run_with_a_reason_is_the_run_of_fifo(
    policy: str, estimator: str, made: Workload, engine: Profile, admission: Admission, alike: bool, slower: float
) -> None:
    columns: dict[str, Any] = {"offset_s": made.table["offset_s"] * slower}
    if alike:
        columns |= {"tier": "batch", "predicted_category": "report", "prompt_tokens": 9, "prompt_words": 7}
    made = replace(made, table=made.table.assign(**columns))
    fifo, run = (
        simulate(Scenario(profile=engine, policy=name, estimator=estimator, admission=admission, slos=SLOS), made)
        for name in ("fifo", policy)
    )
    static = simulate(Scenario(profile=engine, admission=admission), made)
    if reasons(policy, estimator, admission, run, static):
        pd.testing.assert_frame_equal(run.requests, fifo.requests)


def test_the_reason_stands_in_the_table_the_legend_the_report_and_the_rows(tmp_path: Path) -> None:
    result = ds.compare(
        crowd(), policies=["fifo", "priority"], estimators="static", profile=PROFILE, replications=3, jobs=1
    )
    headings, rows = table(result, brief=True)
    place = [name for name, _ in headings].index("vs fifo/static")
    assert [row[place].text for row in rows] == [""]
    assert legend(result)[-3] == "one row, for they differ in nothing: fifo/static, priority/static"
    assert legend(result)[-2] == f"instead of a change, {explained(ONE_TIER)}"
    assert result.document()["rows"][1]["same_as_fifo"] == explained(ONE_TIER)
    page = (result.write(tmp_path / "out") / "report.html").read_text()
    assert MEANINGS[ONE_TIER] in page
    assert MEANINGS[ONE_TIER] in (tmp_path / "out" / "rows.csv").read_text()
    assert result.same[Setting("priority", "static")] == ONE_TIER
