"""Comparisons: paired, reproducible, honest about what cannot be told apart."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from driftsim.comparison.comparison import Comparison
from driftsim.comparison.notes import warnings
from driftsim.comparison.plan import BASELINE, DEFAULT_SETTINGS, ComparisonPlan, Setting, settings_of
from driftsim.comparison.runs import compare, measured_by_phase, runs_of
from driftsim.comparison.verdict import answer
from driftsim.errors import TraceError
from driftsim.latency.profile import Profile
from driftsim.scheduling.admission import Admission
from driftsim.scheduling.names import DEFAULT_POLICIES
from driftsim.simulation.bases import fit_base
from driftsim.simulation.run import simulate
from driftsim.simulation.scenario import Scenario
from driftsim.trace.trace import Trace
from driftsim.workloads.replay import replay
from driftsim.workloads.workload import Workload
from tests.strategies import engine, profile, workload

PROFILE = profile(engine(max_num_seqs=2), decode_request_s=0.001)
FIELDS = [
    "policy",
    "estimator",
    "accounting",
    "engine",
    "phase",
    "seed",
    "requests",
    "finished",
    "rejected",
    "mae",
    "rmse",
    "kendall_tau",
    "class_accuracy",
    "queue_wait_p50_s",
    "queue_wait_p99_s",
    "makespan_s",
    "waiting_fraction",
    "jain_index",
    "per_tier",
]


def busy(count: int = 60, gap: float = 0.05) -> Workload:
    random = np.random.default_rng(5)
    return workload(
        np.cumsum(random.exponential(gap, count)).tolist(),
        random.geometric(0.06, count).clip(1, 60).tolist(),
        tier=random.choice(["premium", "standard", "batch"], count),
        tenant=random.choice(["a", "b"], count),
        predicted_category=random.choice(["short_qa", "report"], count),
    )


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    return compare(busy(), ComparisonPlan(profile=PROFILE, settings=DEFAULT_SETTINGS, replications=5), jobs=1)


def test_the_default_is_stock_and_five_policies_with_and_without_correction() -> None:
    assert Setting("stock", "static") in DEFAULT_SETTINGS
    assert len(DEFAULT_SETTINGS) == 1 + 2 * 5
    assert {setting.policy for setting in DEFAULT_SETTINGS} == {*DEFAULT_POLICIES}


def test_rows_have_the_promised_fields(comparison: Comparison) -> None:
    for row in comparison.rows():
        assert set(FIELDS) <= set(row)
        for name in ("e2e", "ttft", "tpot"):
            for stat in ("mean", "p50", "p90", "p99"):
                metric = f"{name}_{stat}"
                wanted = {f"{metric}_s", f"{metric}_low_s", f"{metric}_high_s"}
                wanted |= {f"{metric}_vs_fifo", f"{metric}_vs_fifo_low", f"{metric}_vs_fifo_high"}
                assert wanted <= set(row)
                wanted |= {f"{metric}_expected_s", f"{metric}_vs_fifo_this_run"}
                assert wanted <= set(row)
                assert row[f"{metric}_low_s"] <= row[f"{metric}_expected_s"] <= row[f"{metric}_high_s"]
        assert sum(tier["requests"] for tier in row["per_tier"].values()) == row["requests"]


def test_replication_0_is_the_workload_as_recorded(comparison: Comparison) -> None:
    alone = compare(busy(), ComparisonPlan(profile=PROFILE, settings=(BASELINE,), replications=1), jobs=1)
    assert alone.rows()[0]["e2e_mean_s"] == next(
        row["e2e_mean_s"] for row in comparison.rows() if (row["policy"], row["estimator"]) == BASELINE
    )
    assert math.isnan(alone.rows()[0]["e2e_mean_low_s"])


def test_the_interval_is_around_the_local_resamples_and_as_wide_as_the_wider_kind(comparison: Comparison) -> None:
    values = comparison.values(BASELINE, "e2e_mean_s")
    kinds = np.array([draw.kind for draw in comparison.draws])
    local, circular = values[kinds == "local"], values[kinds == "circular"]
    assert len(local) == len(circular) == 4
    half = 3.182446 * max(local.std(ddof=1), circular.std(ddof=1))  # t, 0.975, 3 degrees of freedom: 4 of each kind
    found = comparison.value(BASELINE, "e2e_mean_s")
    assert found == pytest.approx((local.mean(), local.mean() - half, local.mean() + half), rel=1e-6)


def test_the_answer_names_fifo_best_where_nothing_beats_it() -> None:
    plan = ComparisonPlan(profile=PROFILE, settings=settings_of(["fifo", "priority"], ["static"]), replications=5)
    alike = compare(workload([0.0, 1.0, 2.0], [5, 5, 5]), plan, jobs=1)
    assert "no queue formed" in answer(alike)[0]


def test_unknown_categories_count_as_short_qa_and_are_counted() -> None:
    odd = busy()
    odd.table["predicted_category"] = odd.table["predicted_category"].replace("report", "poetry")
    plan = ComparisonPlan(profile=PROFILE, settings=settings_of(["fifo"], ["ema"]), replications=1)
    result = compare(odd, plan, jobs=1)
    count = int((odd.table["predicted_category"] == "poetry").sum())
    assert any(f"{count} requests have none of the classifier's categories" in said for said in warnings(result))
    same = busy()
    same.table["predicted_category"] = "short_qa"
    assert compare(same, plan, jobs=1).rows()[0]["mae"] == result.rows()[0]["mae"]


def test_requests_that_outgrow_the_cache_are_counted_and_said() -> None:
    tiny = PROFILE.changed(engine=PROFILE.engine.changed(kv_blocks=3))
    row = compare(busy(), ComparisonPlan(profile=tiny, settings=(BASELINE,), replications=1), jobs=1)
    counted = row.rows()[0]
    assert counted["errors"] > 0
    assert counted["finished"] + counted["rejected"] + counted["errors"] == counted["requests"]
    assert any("outgrew its KV cache" in said for said in warnings(row))


def test_the_baseline_does_not_differ_from_itself(comparison: Comparison) -> None:
    change = comparison.change(BASELINE, BASELINE, "e2e_p99_s")
    assert change == (0.0, 0.0, 0.0)


def test_the_result_does_not_depend_on_the_number_of_processes() -> None:
    plan = ComparisonPlan(profile=PROFILE, settings=settings_of(["sjf"], ["ema"]), replications=4)
    one, two = (compare(busy(), plan, jobs=jobs) for jobs in (1, 2))
    assert one.rows() == two.rows()


def test_fifo_static_is_run_to_compare_with_but_not_shown_unasked() -> None:
    plan = ComparisonPlan(profile=PROFILE, settings=settings_of(["sjf"], ["oracle"]), replications=3)
    result = compare(busy(), plan, jobs=1)
    assert [row["policy"] for row in result.rows()] == ["sjf"]
    assert result.rows()[0]["e2e_mean_vs_fifo"] < 0
    assert runs_of(plan) == 2 * (1 + 2 + 2)  # the day and two resamples of each kind


def test_what_cannot_be_told_from_the_best_is_marked(comparison: Comparison) -> None:
    ranking = comparison.ranking("e2e_mean_s")
    assert ranking is not None
    assert ranking.best.policy == "sjf"
    assert ranking.best not in ranking.ties
    assert 0 <= ranking.wins <= ranking.draws == 4
    fifos = ComparisonPlan(profile=PROFILE, settings=settings_of(["fifo"], ["static", "ema"]), replications=3)
    alike = compare(busy(), fifos, jobs=1).ranking("e2e_mean_s")
    assert alike is not None
    assert {alike.best, *alike.ties} == set(fifos.settings)  # FIFO heeds no estimate: the two are one
    assert alike.simplest == BASELINE


def test_calibration_is_read_against_static_under_the_same_policy(comparison: Comparison) -> None:
    effects = comparison.calibration()
    assert {effect["policy"] for effect in effects} == {*DEFAULT_POLICIES} - {"stock"}
    fifo = next(effect for effect in effects if (effect["policy"], effect["metric"]) == ("fifo", "e2e_mean"))
    assert fifo["change"] == 0  # FIFO heeds no estimate
    error = next(effect for effect in effects if (effect["policy"], effect["metric"]) == ("fifo", "mae"))
    assert error["change"] != 0


def test_where_no_queue_formed_it_says_that_order_could_not_matter() -> None:
    idle = compare(
        workload([0.0, 5.0, 9.0], [3, 3, 3]),
        ComparisonPlan(profile=PROFILE, settings=(BASELINE,), replications=1),
        jobs=1,
    )
    assert "order could not matter" in answer(idle)[0]


def test_a_queue_is_no_reason_to_say_so(comparison: Comparison) -> None:
    assert "order could not matter" not in answer(comparison)[0]


def test_few_requests_flag_the_p99(comparison: Comparison) -> None:
    assert any("P99 rests on 60 finished" in warning for warning in warnings(comparison))


def test_an_engine_version_that_is_not_mirrored_is_named() -> None:
    other = replace_version("0.11.0")
    result = compare(busy(5), ComparisonPlan(profile=other, settings=(BASELINE,), replications=1), jobs=1)
    assert any("0.11.0" in warning for warning in warnings(result))


def replace_version(version: str) -> Profile:
    return PROFILE.changed(engine=PROFILE.engine.changed(version=version))


def test_the_base_can_be_fitted_and_what_it_used_is_not_scored() -> None:
    trace = simulate(Scenario(profile=PROFILE), busy())
    admission, used = fit_base(trace, Admission(base="fit", base_fit_n=3))
    rows = trace.requests.sort_values("finish_s")
    for category in ("short_qa", "report"):
        first = rows[rows["predicted_category"] == category].head(3)
        assert admission.base_table[category] == first["output_tokens"].mean()
        assert set(first.index) <= used
    assert len(used) == 6
    plan = ComparisonPlan(profile=PROFILE, admission=admission, settings=(BASELINE,), excluded=used, replications=1)
    row = compare(replay(trace), plan, jobs=1).rows()[0]
    assert row["scored"] == row["finished"] - 6
    with pytest.raises(TraceError, match="needs 500 finished requests per category"):
        fit_base(trace, Admission(base="fit", base_fit_n=500))


def test_a_captured_fifo_run_is_held_against_its_simulation() -> None:
    simulated = simulate(Scenario(profile=PROFILE), busy())
    plan = ComparisonPlan(profile=PROFILE, settings=(BASELINE,), replications=1)
    assert measured_by_phase(simulated, plan) is None
    captured = Trace(simulated.header.changed(kind="captured"), simulated.requests)
    measured = measured_by_phase(captured, plan)
    said = answer(compare(replay(captured), plan, jobs=1, measured=measured))
    assert any("mean latency +0.0 %" in line for line in said)  # its own simulation repeats it exactly


def test_wrong_names_are_refused_before_anything_runs() -> None:
    plan = ComparisonPlan(profile=PROFILE, settings=(Setting("lifo", "static"),))
    with pytest.raises(ValueError, match="unknown policy 'lifo'"):
        compare(busy(), plan)
    with pytest.raises(ValueError, match="unknown estimator 'crystal'"):
        compare(busy(), replace(plan, settings=(Setting("fifo", "crystal"),)))
    with pytest.raises(ValueError, match="unknown phase 'later'; choose one of all, only"):
        compare(busy(), replace(plan, settings=(BASELINE,), phase="later"))
    with pytest.raises(ValueError, match="replications must be at least 1"):
        replace(plan, replications=0)


def test_a_stripped_label_changes_what_is_estimated() -> None:
    made = busy()
    made.table["predicted_category_unlabelled"] = "summary"
    seen, stripped = (
        simulate(Scenario(profile=PROFILE, admission=Admission(label=label)), made).requests["estimate"]
        for label in ("seen", "stripped")
    )
    assert set(seen) != set(stripped)
    assert (stripped >= int(256 * 0.8)).all()
