"""Phases, replay, resampling and the reference workload."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftsim.request import Request
from driftsim.scheduling.classify import CATEGORIES, strip_label
from driftsim.simulation.run import simulate
from driftsim.simulation.scenario import Scenario
from driftsim.trace.header import Phase
from driftsim.workloads.driftsched import (
    DRIFTSCHED_CAPS,
    DRIFTSCHED_PHASES,
    NATURAL_CAPS,
    TEMPLATES,
    TOPICS,
    drift_phases,
    driftsched_workload,
)
from driftsim.workloads.replay import replay
from driftsim.workloads.resampling import resample
from driftsim.workloads.workload import Workload
from tests.strategies import engine, profile, profiles, workload, workloads


def arrivals(made: Workload, **scenario: object) -> list[float]:
    trace = simulate(Scenario(profile=profile(engine(max_num_seqs=2)), **scenario), made)  # type: ignore[arg-type]
    return [round(float(moment), 6) for moment in trace.requests["arrival_s"]]


def two_phases(kind: str, **changes: object) -> tuple[Phase, ...]:
    return (Phase(name="first", requests=2), Phase(name="second", kind=kind, requests=2, **changes))  # type: ignore[arg-type]


def test_an_open_phase_starts_when_the_one_before_has_sent_its_last() -> None:
    made = workload([0.0, 0.5, 0.1, 0.2], [9, 9, 9, 9], two_phases("open", pause_s=1.0))
    assert arrivals(made) == [0.0, 0.5, 1.6, 1.7]


def test_a_phase_after_drain_starts_when_everybody_has_left() -> None:
    made = workload([0.0, 0.5, 0.1, 0.2], [1, 60, 1, 1], two_phases("after-drain", pause_s=1.0))
    assert arrivals(made) == [0.0, 0.5, 2.2, 2.3]  # the second one ends at 0.5 + 60 x 0.01


def test_a_backlog_arrives_at_once_and_the_policy_sees_all_of_it() -> None:
    made = workload([0.0] * 4, [40, 30, 20, 10], (Phase(name="only", kind="backlog", requests=4),))
    shortest = simulate(Scenario(profile=profile(engine(max_num_seqs=1)), policy="sjf", estimator="oracle"), made)
    assert list(shortest.requests["dispatch_index"]) == [3, 2, 1, 0]


def test_closed_users_think_after_each_answer() -> None:
    phase = Phase(name="only", kind="closed", requests=4, users=2, think_s=0.5)
    assert arrivals(workload([0.0] * 4, [10, 20, 10, 10], (phase,))) == [0.0, 0.0, 0.6, 0.7]


@given(workloads(), profiles())
def test_replaying_a_simulated_trace_reproduces_it(made: Workload, on: object) -> None:
    scenario = Scenario(profile=on, policy="sjf", estimator="ema")  # type: ignore[arg-type]
    first = simulate(scenario, made)
    if not first.requests["finish_reason"].isin(("stop", "length")).all():
        return  # what never finished has no known length to replay
    again = simulate(scenario, replay(first))
    by_id = first.requests.set_index("request_id")
    other = again.requests.set_index("request_id").loc[by_id.index]
    # Offsets are differences of floats, so a replayed arrival may be off by a rounding of 1e-12 s.
    assert np.allclose(by_id["arrival_s"], other["arrival_s"], atol=1e-9)


def test_rate_scale_shrinks_gaps_and_leaves_pauses() -> None:
    made = workload([0.0, 0.4, 0.1, 0.3], [1, 1, 1, 1], two_phases("after-drain", pause_s=1.0))
    trace = simulate(Scenario(profile=profile()), made)
    assert arrivals(replay(trace, 2.0)) == [0.0, 0.2, 1.26, 1.36]  # 0.2 + 0.01 + 1.0 + 0.05


@pytest.mark.parametrize("kind", ["closed", "backlog"])
def test_a_workload_without_a_rate_cannot_be_scaled(kind: str) -> None:
    made = workload([0.0, 0.0], [1, 1], (Phase(name="only", kind=kind, requests=2, users=1),))  # type: ignore[arg-type]
    trace = simulate(Scenario(profile=profile()), made)
    with pytest.raises(ValueError, match="no arrival rate to scale"):
        replay(trace, 2.0)


def test_requests_of_unknown_length_are_left_out_and_noted() -> None:
    trace = simulate(
        Scenario(profile=profile(engine(kv_blocks=3))), workload([0.0, 0.1], [1, 1], prompt_tokens=[40, 8])
    )
    made = replay(trace)
    assert list(made.table["request_id"]) == ["r1"]
    assert "1 of 2 requests failed without a token and are not simulated" in made.notes[0]


@given(workloads(), st.integers(0, 9), st.integers(1, 9))
def test_a_resample_draws_within_phases_and_is_the_same_for_everybody(made: Workload, seed: int, number: int) -> None:
    drawn = resample(made, seed, number)
    assert list(drawn.table["phase"]) == list(made.table["phase"])
    assert drawn.table["request_id"].is_unique
    for phase in made.info.phases:
        mine = drawn.table[drawn.table["phase"] == phase.name]
        assert set(mine["source"]) <= set(made.table["source"][made.table["phase"] == phase.name])
        assert (np.diff(mine["offset_s"]) >= -1e-12).all()
    again = resample(made, seed, number)
    assert drawn.table.equals(again.table)
    assert resample(made, seed, 0) is made


def test_a_resample_keeps_runs_of_consecutive_requests() -> None:
    made = workload(np.arange(100.0).tolist(), [1] * 100)
    source = resample(made, 0, 1).table["source"].to_numpy()
    consecutive = (np.diff(source) % 100 == 1).mean()
    assert consecutive >= 0.89  # blocks of 10


@given(workloads(), st.integers(1, 5))
def test_a_resampled_request_keeps_the_gap_before_it(made: Workload, number: int) -> None:
    own = np.concatenate(
        [np.diff(part["offset_s"], prepend=0.0) for _, part in made.table.groupby("phase", sort=False)]
    )
    drawn = resample(made, 0, number).table
    gaps = np.concatenate([np.diff(part["offset_s"], prepend=0.0) for _, part in drawn.groupby("phase", sort=False)])
    assert np.allclose(gaps, own[drawn["source"].to_numpy()], atol=1e-9)


def words(prompt: str) -> int:
    return len(prompt.split())


def test_the_reference_workload_is_as_published() -> None:
    made = driftsched_workload(words, seed=3)
    table = made.table
    assert [phase.requests for phase in made.info.phases] == [1000, 2000]
    assert made.info.phases[1].kind == "after-drain"
    assert made.info.phases[1].pause_s == 15
    for drawn, low, high in zip(DRIFTSCHED_PHASES, (0.050, 0.005), (0.150, 0.030), strict=True):
        rows = table[table["phase"] == drawn.phase.name]
        gaps = np.diff(rows["offset_s"])
        assert low <= gaps.min() < gaps.max() <= high
        shares = rows["category"].value_counts(normalize=True)
        for category, percent in drawn.mix.items():
            assert shares[category] == pytest.approx(percent / 100, abs=0.04)
    assert (table["max_tokens"] == table["category"].map(DRIFTSCHED_CAPS)).all()
    assert (table["tier"] == table["tenant"]).all()
    assert table["tier"].value_counts().min() > 900


def test_there_are_60_topics_and_5_templates_a_category() -> None:
    assert len(set(TOPICS)) >= 60
    assert set(CATEGORIES) < set(TEMPLATES)
    assert all(len(set(templates)) == 5 for templates in TEMPLATES.values())


def test_the_label_matters_to_the_classifier() -> None:
    phases = drift_phases(100, 100, (0.1, 0.2), (0.1, 0.2))
    made = driftsched_workload(words, 1, phases, NATURAL_CAPS)
    assert (made.table["predicted_category"] != made.table["predicted_category_unlabelled"]).mean() > 0.1
    assert made.prompts is not None
    assert not any(strip_label(prompt).startswith("[") for prompt in made.prompts)


def test_the_same_seed_draws_the_same_workload_and_another_does_not() -> None:
    first, same, other = (driftsched_workload(words, seed).table for seed in (1, 1, 2))
    assert first.equals(same)
    assert not first["offset_s"].equals(other["offset_s"])


def test_a_trace_shares_nothing_with_its_workload() -> None:
    made = workload([0.0, 0.1], [2, 2])
    traces = [simulate(Scenario(profile=profile()), made) for _ in range(2)]
    columns = [name for name in traces[0].requests.columns if name in made.table]
    before = made.table[columns].copy(deep=True)
    for name in columns:
        traces[0].requests.loc[0, name] = traces[0].requests[name].loc[1]
    traces[0].requests.loc[0, ["output_words", "output_tokens", "prompt_tokens"]] = 999
    assert 999 not in traces[1].requests[["output_words", "output_tokens", "prompt_tokens"]].to_numpy()
    pd.testing.assert_frame_equal(made.table[columns], before)


def test_the_requests_of_a_workload_are_like_any() -> None:
    made = workload([0.0, 0.1], [2, 2], prompt_tokens=[40, 8]).requests()(1, 0.1)
    own = Request("r1", made.tenant, made.tier, made.category, 0.1, 8, made.prompt_words, made.max_tokens)
    assert (made, type(made)) == (own, Request)
