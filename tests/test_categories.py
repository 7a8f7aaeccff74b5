"""Categories of any name have bases of their own, given or fitted; the classifier's four stay as they were."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import driftsim as ds
from driftsim.errors import InputError, TraceError
from driftsim.scheduling.admission import Admission
from driftsim.simulation.bases import fit_base, with_bases
from driftsim.trace.trace import Trace
from driftsim.workloads.replay import replay
from driftsim.workloads.workload import Workload
from tests.commands import driftsim
from tests.strategies import engine, profile, workload

PROFILE = profile(engine(max_num_seqs=2), decode_request_s=0.001)
SAID = "no category is predicted in this trace, so admission sees the ones that its authors gave"


def made(categories: tuple[str, ...], count: int = 60, **columns: Any) -> Workload:
    random = np.random.default_rng(5)
    labels = random.choice(list(categories), count).astype(object)
    plain = {"category": labels, "predicted_category": labels, "predicted_category_unlabelled": labels}
    return workload(
        np.cumsum(random.exponential(0.05, count)).tolist(),
        random.geometric(0.06, count).clip(1, 60).tolist(),
        **plain | columns,
    )


def recorded(categories: tuple[str, ...] = ("poem", "essay", "report"), **columns: Any) -> Trace:
    return ds.simulate(made(categories, **columns), profile=PROFILE, steps=True)


def test_other_names_with_the_same_bases_make_the_same_run() -> None:
    names = {"short_qa": "poem", "report": "essay"}
    table = {"short_qa": 1.0, "poem": 64.0, "essay": 512.0}
    for estimator in ("static", "ema", "pooled"):
        own = made(tuple(names.values()))
        ours = replace(own, table=own.table.replace({own: our for our, own in names.items()}))
        one = ds.simulate(ours, policy="sjf", estimator=estimator, profile=PROFILE).requests
        other = ds.simulate(
            own, policy="sjf", estimator=estimator, profile=PROFILE, admission=Admission(base_table=table)
        ).requests
        labels = ["category", "predicted_category", "predicted_category_unlabelled"]
        pd.testing.assert_frame_equal(one.drop(columns=labels), other.drop(columns=labels))


def test_a_category_that_the_table_lacks_is_fitted_alone_and_what_that_used_is_not_scored() -> None:
    trace = recorded()
    result = ds.compare(trace, policies="fifo", estimators="static", profile=PROFILE, replications=1, jobs=1)
    table = result.plan.admission.base_table
    rows = trace.requests.sort_values("finish_s")
    for category in ("poem", "essay"):
        first = rows[rows["category"] == category].head(10)
        assert table[category] == first["output_tokens"].mean()
        assert set(first.index) <= result.plan.excluded
    assert table["report"] == 512
    assert len(result.plan.excluded) == 20
    assert result.rows()[0]["scored"] == 40
    said = [warning for warning in result.warnings() if "lacks the categories essay, poem" in warning]
    assert len(said) == 1
    assert "fitted on 20 requests, which are not scored" in said[0]
    assert not any("count as short_qa" in warning for warning in result.warnings())


def test_fewer_finished_than_wanted_are_what_there_is() -> None:
    columns = pd.Series(["short_qa"] * 57 + ["poem"] * 3, dtype=object)
    trace = recorded(category=columns, predicted_category=columns, predicted_category_unlabelled=columns)
    result = with_bases(None, replay(trace), trace)
    assert result.admission.base_table["poem"] == trace.requests["output_tokens"].tail(3).mean()
    assert result.used == {57, 58, 59}
    assert "lacks the category poem: fitted on 3 requests" in result.workload.notes[-1]


def test_the_classifiers_four_are_left_as_they_are() -> None:
    trace = recorded(("short_qa", "summary", "technical", "report"))
    plain = replay(trace)
    assert with_bases(None, plain, trace) == (Admission(), frozenset(), plain)
    assert plain.notes == ()


def test_a_base_that_is_given_is_taken() -> None:
    trace = recorded(("poem", "short_qa"))
    admission = Admission(base_table={"short_qa": 64.0, "poem": 100.0})
    run = ds.simulate(trace, profile=PROFILE, admission=admission)
    assert set(run.requests.groupby("category")["estimate"].first()) == {100, 64}  # x 1.008, of a prompt of 8 tokens
    assert with_bases(admission, replay(trace), trace).used == frozenset()


def test_a_fit_is_of_every_category_of_the_trace() -> None:
    trace = recorded(("poem", "report"))
    admission, used = fit_base(trace, Admission(base="fit", base_fit_n=5))
    rows = trace.requests.sort_values("finish_s")
    for category in ("poem", "report"):
        assert admission.base_table[category] == rows[rows["category"] == category]["output_tokens"].head(5).mean()
    assert len(used) == 10
    assert admission.base_table["summary"] == 256
    with pytest.raises(TraceError, match="needs 500 finished requests per category, 'poem' has"):
        fit_base(trace, Admission(base="fit", base_fit_n=500))


def test_caps_know_every_category_that_has_a_name() -> None:
    trace = recorded(("poem", "essay"))
    admission = Admission(base="caps", alpha=1.0, clip_low=0.001)
    assert with_bases(admission, replay(trace), trace).used == frozenset()
    run = ds.simulate(trace, profile=PROFILE, admission=admission, estimator="ema").requests
    assert run.groupby("category")["bias"].last().nunique() == 2  # a bias of its own each


def test_where_nothing_was_predicted_admission_sees_the_authors_categories_and_says_so() -> None:
    told = recorded()
    silent = recorded(predicted_category=None, predicted_category_unlabelled=None)
    for label in ("seen", "stripped"):
        admission = Admission(label=label)
        one, other = (
            ds.simulate(trace, policy="sjf", estimator="ema", profile=PROFILE, admission=admission)
            for trace in (told, silent)
        )
        pd.testing.assert_frame_equal(one.requests, other.requests)
        assert SAID in other.header.notes
        assert SAID not in one.header.notes
    result = ds.compare(silent, policies="fifo", profile=PROFILE, replications=1, jobs=1)
    assert SAID in result.warnings()
    arrivals = ds.Process(kind="poisson", rate=9.0)
    drawn = Workload.from_trace(silent, requests=9, arrivals=arrivals)
    assert SAID in drawn.notes
    assert (drawn.table["predicted_category"] == drawn.table["category"]).all()


def test_one_prediction_is_enough_to_take_the_predictions() -> None:
    guess = pd.Series([None] * 59 + ["report"], dtype=object)
    trace = recorded(("poem",), predicted_category=guess)
    assert list(replay(trace).table["predicted_category"].dropna()) == ["report"]
    assert replay(trace).notes == ()


@pytest.mark.parametrize("trace", [None, "recorded"])
def test_without_a_trace_or_a_category_a_request_counts_as_short_qa_and_that_is_said(trace: str | None) -> None:
    nothing: dict[str, Any] = {"category": None, "predicted_category": None, "predicted_category_unlabelled": None}
    what = made(("poem",)) if trace is None else recorded(**nothing)
    result = ds.compare(what, policies="fifo", estimators="static", profile=PROFILE, replications=1, jobs=1)
    assert "60 requests have none of the classifier's categories and count as short_qa" in result.warnings()
    assert set(next(iter(result.traces.values())).requests["estimate"]) == {64}
    with pytest.raises(InputError, match="base 'fit' is fitted to a recorded trace"):
        ds.compare(made(("poem",)), profile=PROFILE, admission=Admission(base="fit"))


def test_a_scenario_and_a_sweep_fit_as_a_comparison_does(tmp_path: Path) -> None:
    trace = recorded()
    trace.write(tmp_path / "t")
    PROFILE.save(tmp_path / "p.json")
    (tmp_path / "s.toml").write_text('trace = "t"\nprofile = "p.json"\npolicy = "sjf"\n')
    run, _, warnings = ds.simulate_scenario(tmp_path / "s.toml")
    direct = ds.simulate(trace, policy="sjf", profile=PROFILE)
    pd.testing.assert_frame_equal(run.requests, direct.requests)
    assert any("lacks the categories essay, poem" in warning for warning in warnings)
    (tmp_path / "g.toml").write_text('base = { trace = "t", profile = "p.json", policy = "sjf" }\n')
    [row] = ds.sweep(tmp_path / "g.toml", tmp_path / "store", jobs=1).to_dict("records")
    compared = ds.compare(trace, policies="sjf", estimators="static", profile=PROFILE, replications=1, jobs=1)
    for name in ("mae", "scored", "e2e_mean_s"):
        assert row[name] == compared.rows()[0][name]


def test_a_report_shows_categories_of_any_name(tmp_path: Path) -> None:
    recorded(tuple(f"kind {number}" for number in range(9))).write(tmp_path / "t")
    PROFILE.save(tmp_path / "p.json")
    run = driftsim(
        "compare", tmp_path / "t", "--policies", "sjf", "--profile", tmp_path / "p.json", "--replications", 1,
        "--out", tmp_path / "out",
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert "kind 3" in (tmp_path / "out" / "bias_over_requests.svg").read_text()
