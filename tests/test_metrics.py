"""What the printed numbers mean, on tables small enough to check by eye."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftsim import metrics
from driftsim.errors import TraceError
from driftsim.rows import Columns
from driftsim.scheduling.accounting import Accounting
from driftsim.scheduling.admission import Admission
from driftsim.scheduling.names import Unit
from driftsim.simulation.run import simulate
from driftsim.simulation.scenario import Scenario
from driftsim.trace.header import Phase
from driftsim.trace.trace import read
from driftsim.validation.validation import statistic
from tests.strategies import engine, profile, workload


def rows(**columns: object) -> pd.DataFrame:
    base = {
        "arrival_s": [0.0, 1.0], "dispatch_s": [0.0, 2.0], "scheduled_s": [0.5, 2.5], "first_token_s": [1.0, 3.0],
        "finish_s": [5.0, 3.0], "output_tokens": [5, 1], "output_words": [4, 1], "prompt_tokens": [100, 600],
        "prompt_words": [80, 400], "estimate": [10, 4], "budget": [110, 604], "tier": ["premium", "batch"],
        "predicted_category": ["summary", "summary"], "scheduling_class": ["short", "long"], "tenant": ["a", "b"],
    }  # fmt: skip
    return pd.DataFrame(base | columns)


def test_latencies_are_as_defined() -> None:
    assert list(metrics.e2e(rows())) == [5.0, 2.0]
    assert list(metrics.ttft(rows())) == [1.0, 2.0]
    assert metrics.tpot(rows()).iloc[0] == 1.0
    assert np.isnan(metrics.tpot(rows()).iloc[1])  # a single token has none
    assert list(metrics.engine_e2e(rows())) == [5.0, 1.0]
    assert list(metrics.engine_ttft(rows())) == [1.0, 1.0]


def test_percentiles_are_linear_and_single_tokens_do_not_count_in_tpot() -> None:
    summary = metrics.latency_summary(rows())
    assert summary["e2e_mean_s"] == 3.5
    assert summary["e2e_p90_s"] == pytest.approx(4.7)
    assert summary["tpot_p99_s"] == 1.0


def test_errors_are_in_the_unit_of_the_accounting() -> None:
    tokens = metrics.estimation_summary(rows(), Accounting(), Admission())
    assert tokens["mae"] == 4.0  # |10 - 5|, |4 - 1|
    assert tokens["rmse"] == pytest.approx(np.sqrt((25 + 9) / 2))
    words = metrics.estimation_summary(rows(), Accounting("whitespace"), Admission(accounting="whitespace"))
    assert words["mae"] == 4.5  # |10 - 4|, |4 - 1|
    assert tokens["kendall_tau"] == 1.0
    assert tokens["class_accuracy"] == 1.0  # 105 is short, 601 is long


def test_kendall_tau_within_looks_inside_category_and_tier_only() -> None:
    frame = pd.concat([rows(), rows(estimate=[1, 4], budget=[101, 604], tier=["premium", "premium"])])
    between = metrics.estimation_summary(frame, Accounting(), Admission())["kendall_tau_within"]
    frame["predicted_category_unlabelled"] = ["report", "summary", "summary", "report"]
    stripped = metrics.estimation_summary(frame, Accounting(), Admission(label="stripped"))["kendall_tau_within"]
    assert stripped == 1.0  # what admission saw leaves one pair, in the right order
    assert between == pytest.approx(metrics._tau(np.array([110, 101, 604]), np.array([105, 105, 601])))


def test_the_prompts_length_flatters_the_order_of_budgets_and_not_that_of_estimates() -> None:
    """Budgets lie in the order of the truth, since one prompt is longer; the estimates lie against it."""
    summary = metrics.estimation_summary(rows(estimate=[1, 4], budget=[101, 604]), Accounting(), Admission())
    assert (summary["kendall_tau"], summary["kendall_tau_estimate"]) == (1.0, -1.0)  # 1 and 4 stand for 5 and 1
    assert set(metrics.ESTIMATION) == set(summary)


def test_a_constant_estimate_has_the_order_of_the_prompts_and_no_order_of_its_own() -> None:
    """Independent normal lengths have tau = 2 / pi arcsin(rho) of prompt and total (Greiner 1909): no skill, 0.7."""
    random, count = np.random.default_rng(7), 4000
    prompt, output = random.normal(500, 100, count).round(), random.normal(250, 50, count).round()
    guess = random.permutation(output)  # as good as none
    frame = pd.DataFrame({"prompt_tokens": prompt, "output_tokens": output, "estimate": 250.0, "budget": prompt + 250})
    frame = frame.assign(prompt_words=prompt, output_words=output, tier="standard", predicted_category="report",
                         scheduling_class="long")  # fmt: skip
    constant = metrics.estimation_summary(frame, Accounting(), Admission())
    assert constant["kendall_tau"] == pytest.approx(2 / np.pi * np.arcsin(2 / np.sqrt(5)), abs=0.02)
    assert np.isnan(constant["kendall_tau_estimate"])
    guessed = frame.assign(estimate=guess, budget=prompt + guess)
    blind = metrics.estimation_summary(guessed, Accounting(), Admission())
    assert blind["kendall_tau"] > 0.5
    assert blind["kendall_tau_estimate"] == pytest.approx(0, abs=0.04)


def test_waiting_fraction_counts_overlaps_once() -> None:
    assert metrics.waiting_fraction(rows()) == pytest.approx((0.5 + 1.5) / 5)
    assert metrics.waiting_fraction(rows(arrival_s=[0.0, 0.2])) == pytest.approx(2.5 / 5)


def test_queue_depth_counts_those_who_wait_to_be_computed_or_to_be_dispatched() -> None:
    two = rows(arrival_s=[0.0, 1.0], dispatch_s=[1.5, 2.0], scheduled_s=[1.75, 2.5])
    times, depth = metrics.queue_depth(two)
    assert list(times) == [0.0, 1.0, 1.75, 2.5]
    assert list(depth) == [1, 2, 1, 0]
    assert list(metrics.queue_depth(two, two["dispatch_s"])[0]) == [0.0, 1.0, 1.5, 2.0]
    assert metrics.choice_fraction(rows(dispatch_s=[1.5, 2.0])) == pytest.approx(0.5 / 5)


def test_jain_weighs_tenants_alike_however_many_requests_they_send() -> None:
    three = pd.concat([rows(), rows().head(1)])  # a: 1 and 1 tokens/s, b: 0.5 tokens/s
    assert metrics.jain_index(three) == pytest.approx(1.5**2 / (2 * (1 + 0.25)))


def test_jain_is_1_when_equal_and_1_over_n_when_one_takes_all() -> None:
    assert metrics.jain_index(rows(output_tokens=[5, 2])) == pytest.approx(1.0)
    assert metrics.jain_index(rows(output_tokens=[5, 0])) == pytest.approx(0.5)


def test_jain_counts_a_tenant_of_whom_nothing_finished_as_one_that_got_nothing() -> None:
    assert metrics.jain_index(rows(finish_s=[5.0, np.nan])) == pytest.approx(0.5)
    trace = simulate(
        Scenario(profile=profile(engine(kv_blocks=3))), workload([0.0] * 2, [5] * 2, prompt_tokens=[8, 40])
    )
    for names, expected in ((["a", "b"], 0.5), (["a", "a"], 1.0)):
        told = metrics.summary(
            replace(trace, requests=trace.requests.assign(tenant=pd.Series(names, dtype=object))), Admission()
        )
        assert told["jain_index"] == pytest.approx(expected)


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 10)), min_size=1, max_size=20))
def test_the_union_of_intervals_lies_between_the_longest_and_the_sum(pairs: list[tuple[float, float]]) -> None:
    starts = np.array([start for start, _ in pairs])
    lengths = np.array([length for _, length in pairs])
    union = metrics.intervals_union(starts, starts + lengths)
    assert lengths.max() - 1e-9 <= union <= lengths.sum() + 1e-9


def test_rejected_requests_are_counted_but_have_no_latency() -> None:
    trace = simulate(
        Scenario(profile=profile(engine(kv_blocks=3))), workload([0.0, 0.1], [2, 2], prompt_tokens=[40, 8])
    )
    summary = metrics.summary(trace, Admission())
    assert (summary["requests"], summary["finished"], summary["rejected"]) == (2, 1, 1)
    assert summary["e2e_mean_s"] == pytest.approx(0.02)
    assert summary["per_tier"]["standard"]["requests"] == 2


def test_waiting_is_measured_where_a_request_never_finished() -> None:
    scenario = Scenario(profile=profile(engine(kv_blocks=3)), max_in_flight=1, refill_lag=False)
    trace = simulate(scenario, workload([0.0] * 4, [5] * 4, prompt_tokens=[8, 8, 8, 40]))
    summary = metrics.summary(trace, Admission())
    assert (summary["finished"], summary["rejected"]) == (3, 1)
    for name, measure in (("waiting_fraction", metrics.waiting_fraction), ("choice_fraction", metrics.choice_fraction)):
        assert summary[name] == measure(trace.requests) > 0.1


@pytest.mark.filterwarnings("error")
def test_a_trace_of_which_nothing_is_known_has_no_latency() -> None:
    trace = simulate(Scenario(profile=profile()), workload([0.0, 0.5], [1, 3]))
    nothing = metrics.summary(replace(trace, requests=trace.requests.head(0)), Admission())
    assert (nothing["requests"], nothing["waiting_fraction"]) == (0, 0.0)
    assert np.isnan([nothing["e2e_mean_s"], nothing["makespan_s"], nothing["mae"], nothing["jain_index"]]).all()
    unfinished = trace.requests.assign(finish_s=np.nan)
    assert np.isnan(metrics.jain_index(Columns.of(unfinished)))
    assert metrics.choice_fraction(Columns.of(unfinished)) == 0.0


def test_a_phase_is_measured_alone_and_an_unknown_one_is_named() -> None:
    phases = (Phase(name="one", requests=1), Phase(name="two", requests=2))
    trace = simulate(Scenario(profile=profile()), workload([0.0, 0.5, 0.6], [1, 3, 3], phases))
    assert metrics.summary(trace, Admission(), phase="two")["requests"] == 2
    with pytest.raises(TraceError, match="unknown phase 'three'; choose one of all, one, two"):
        metrics.summary(trace, Admission(), phase="three")


@pytest.mark.parametrize("unit", ["tokenizer", "whitespace"])
def test_a_table_and_its_columns_measure_the_same(shipped: Path, unit: Unit) -> None:
    trace = read(shipped)
    table = trace.finished
    columns = Columns.of(table)
    assert len(columns) == len(table)
    admission = Admission(accounting=unit)
    for measure in (metrics.latency_summary, metrics.waiting_fraction, metrics.choice_fraction, metrics.jain_index):
        assert measure(columns) == measure(table)
    assert metrics.estimation_summary(columns, admission.unit, admission) == metrics.estimation_summary(
        table, admission.unit, admission
    )
    premium = columns[columns["tier"] == "premium"]
    assert metrics.e2e(premium).tolist() == metrics.e2e(table[table["tier"] == "premium"]).tolist()
    assert metrics.summary(trace, admission)["finished"] == len(table)


def test_there_is_one_makespan_whatever_was_rejected_or_aborted() -> None:
    """The first request never fits, the last one is aborted: both are offered, so both count."""
    outputs = [5, 5, 5, 5]
    made = workload([1.0, 2.0, 3.0, 9.0], outputs, prompt_tokens=[600, 8, 8, 8])
    run = simulate(Scenario(profile=profile(engine(max_model_len=512))), made)
    table = run.requests.copy()
    assert table["finish_reason"].iloc[0] == "rejected"
    table.loc[3, "finish_reason"] = "abort"
    cut = replace(run, requests=table)
    expected = float(table["finish_s"].iloc[3]) - 1.0
    assert metrics.makespan(cut.requests) == pytest.approx(expected)
    assert metrics.summary(cut)["makespan_s"] == pytest.approx(expected)
    assert statistic(cut, "makespan", "mean") == pytest.approx(expected)
    assert float(cut.finished["finish_s"].max() - cut.finished["arrival_s"].min()) < expected - 1  # the old one
