"""Turns of sessions: they wait for what they follow, trees and joins among them, and a failed one starts none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftsim.errors import InputError
from driftsim.simulation.run import simulate
from driftsim.simulation.scenario import Scenario
from driftsim.trace.header import Phase
from driftsim.trace.prefixes import ENDLESS, stretches
from driftsim.trace.trace import Trace
from driftsim.workloads.arrivals import Arrivals, arriving
from driftsim.workloads.processes import Process
from driftsim.workloads.replay import as_recorded, replay
from driftsim.workloads.resampling import resample
from driftsim.workloads.workload import Workload
from tests.strategies import engine, profile, workload


def sessions(parents: list[list[int]], gaps: list[float], outputs: list[int], **columns: Any) -> Workload:
    """One phase of turns; first turns begin a second apart."""
    count = len(parents)
    phase = Phase(name="chats", kind="sessions", requests=count)
    return workload(
        [float(row) for row in range(count)],
        outputs,
        (phase,),
        session="s",
        parent=pd.Series(parents, dtype=object),
        gap_s=gaps,
        **columns,
    )


def run(made: Workload, **settings: Any) -> Trace:
    return simulate(Scenario(profile=profile(engine(**settings)), refill_lag=False), made)


def test_a_turn_comes_when_all_that_it_follows_has_ended_and_a_gap_after() -> None:
    # 0 forks into 1 and 2, which 3 joins; 4 is a session of its own.
    made = sessions([[], [0], [0], [1, 2], []], [0.0, 0.5, 2.0, 0.25, 0.0], [10, 3, 5, 2, 4])
    rows = run(made).requests
    ends = rows["finish_s"].to_numpy()
    assert rows["arrival_s"].tolist() == pytest.approx([0.0, ends[0] + 0.5, ends[0] + 2.0, ends[2] + 0.25, 4.0])
    assert rows["parent"].map(list).tolist() == [[], [0], [0], [1, 2], []]


def test_a_failed_turn_starts_none_and_rows_are_counted_anew() -> None:
    made = sessions(
        [[], [], [0], [2], [1]], [0.0, 0.0, 0.1, 0.1, 0.1], [3] * 5, prompt_tokens=[900, 8, 8, 8, 8],
        stretches=[
            ((7, ENDLESS),), ((7, 4), (8, ENDLESS)), ((7, 4), (9, ENDLESS)), ((5, ENDLESS),), ((8, 8), (6, ENDLESS)),
        ],
    )  # fmt: skip
    trace = run(made)
    trace.check("t")
    rows = trace.requests
    assert rows["request_id"].tolist() == ["r0", "r1", "r4"]
    assert rows["finish_reason"].tolist() == ["rejected", "stop", "stop"]
    assert rows["parent"].map(list).tolist() == [[], [], [1]]
    assert rows["prefix_row"].fillna(-1).tolist() == [-1, 0, 1]
    assert trace.header.workload.phases[0].requests == 3
    assert trace.header.notes[-1] == "2 of 5 turns were never sent: the one before them failed"


def test_a_phase_behind_sessions_begins_when_the_last_turn_was_sent() -> None:
    phases = (Phase(name="chats", kind="sessions", requests=2), Phase(name="then", requests=1))
    made = workload([0.0, 0.0, 0.5], [4, 1, 1], phases, session="s", parent=pd.Series([[], [0], []]), gap_s=1.0)
    rows = run(made).requests
    assert rows["arrival_s"].tolist() == pytest.approx([0.0, rows["finish_s"][0] + 1.0, rows["finish_s"][0] + 1.5])


@given(st.data())
def test_every_turn_comes_once_and_after_its_parents(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 25))
    parents = [sorted(data.draw(st.sets(st.integers(0, row - 1), max_size=2))) if row else [] for row in range(count)]
    gaps = data.draw(st.lists(st.sampled_from([0.0, 0.01, 1.0]), min_size=count, max_size=count))
    outputs = data.draw(st.lists(st.integers(1, 20), min_size=count, max_size=count))
    prompts = data.draw(st.lists(st.sampled_from([8, 8, 8, 900]), min_size=count, max_size=count))
    made = sessions(parents, gaps, outputs, prompt_tokens=prompts)
    trace = run(made, max_num_seqs=2)
    trace.check("t")
    rows = trace.requests.set_index("request_id")
    ends, lost = rows["finish_s"], set[int]()
    for row in range(count):
        failed = any(prompts[one] == 900 or one in lost for one in parents[row])
        if failed:
            lost.add(row)
            assert f"r{row}" not in rows.index
        elif parents[row]:
            due = max(ends[f"r{one}"] for one in parents[row]) + gaps[row]
            assert rows.loc[f"r{row}", "arrival_s"] == pytest.approx(due)
        else:
            assert rows.loc[f"r{row}", "arrival_s"] == row
    assert len(rows) == count - len(lost)


def test_a_recorded_session_is_replayed_as_one_and_a_slow_engine_delays_it() -> None:
    recorded = run(sessions([[], [0], [1], []], [0.0, 0.5, 0.5, 0.0], [30, 20, 10, 5]))
    again = run(replay(recorded))
    pd.testing.assert_frame_equal(again.requests, recorded.requests)
    slow = profile(engine(), intercept_s=0.02)
    late = simulate(Scenario(profile=slow, refill_lag=False), replay(recorded)).requests
    assert late["arrival_s"][2] == pytest.approx(late["finish_s"][1] + 0.5)
    assert late["arrival_s"][2] > recorded.requests["arrival_s"][2] + 0.4
    plain = as_recorded(recorded, loops=False)
    assert [phase.kind for phase in plain.info.phases] == ["open"]
    assert plain.table["offset_s"].tolist() == recorded.requests["arrival_s"].sort_values().tolist()


def test_parents_that_did_not_finish_or_are_left_out_start_no_turn() -> None:
    recorded = run(sessions([[], [0], [], [2]], [0.0, 0.5, 0.0, 0.5], [30, 20, 10, 5]))
    rows = recorded.requests.copy()
    rows.loc[0, "finish_reason"], rows.loc[0, "output_tokens"], rows.loc[0, "first_token_s"] = "error", 0, np.nan
    made = replay(Trace(recorded.header, rows))
    assert made.table["source"].tolist() == [1, 2, 3]
    assert made.table["parent"].map(list).tolist() == [[], [], [1]]


def test_other_arrivals_are_those_of_first_turns() -> None:
    made = sessions([[], [0], [], [2]], [0.0, 0.5, 0.0, 0.5], [3] * 4)
    paced = arriving(made, Process(kind="uniform", rate=2.0), seed=0)
    assert [phase.kind for phase in paced.info.phases] == ["sessions"]
    rows = run(paced).requests
    assert rows["arrival_s"][1] == pytest.approx(rows["finish_s"][0] + 0.5)
    assert 0.2 < rows["arrival_s"][2] - rows["arrival_s"][0] < 0.8
    with pytest.raises(InputError, match="has sessions, whose later turns wait"):
        arriving(made, Process(kind="closed", users=2), seed=0)


def test_a_resample_links_turns_to_their_latest_parents_and_never_repeats_a_text() -> None:
    whole = sessions(
        [[], [0], [], [2]] * 4, [0.0, 0.5] * 8, [3] * 16,
        stretches=stretches([-1, 0, -1, 2] * 4, [0, 8, 0, 8] * 4),
    )  # fmt: skip
    whole.table["parent"] = pd.Series([[] if row % 2 == 0 else [row - 1] for row in range(16)])
    drawn = resample(whole, seed=3, replication=1)
    own = [stretch[-1][0] for stretch in drawn.table["stretches"]]
    assert len(set(own)) == 16
    assert len(set(drawn.table["source"])) < 16
    for row, parents in enumerate(drawn.table["parent"]):
        assert all(one < row for one in parents)
    assert sum(map(len, drawn.table["parent"])) > 3
    assert len(simulate(Scenario(profile=profile()), drawn).requests) == 16


def test_arrivals_of_sessions_are_told_in_order_of_time() -> None:
    made = sessions([[], [0], []], [0.0, 5.0, 0.0], [1, 1, 1])
    arrivals = Arrivals(made, float)
    assert arrivals.take(0.0) == [(0, 0.0)]
    assert arrivals.next_at() == 2.0
    assert arrivals.left(0, 0.5)
    assert arrivals.take(10.0) == [(2, 2.0), (1, 5.5)]
    assert arrivals.done
    assert np.isfinite(arrivals.starts()).all()
