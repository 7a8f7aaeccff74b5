"""Metrics of sessions, each against a count by hand: times of the whole, with gaps and without, turns, cut sessions."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import driftsim as ds
from driftsim import glossary
from driftsim.comparison import turns
from driftsim.comparison.plan import BASELINE
from driftsim.errors import TraceError
from driftsim.sessions import band_of, session_lines, session_summary
from driftsim.simulation.run import simulate
from driftsim.simulation.scenario import Scenario
from driftsim.trace.header import Phase
from driftsim.trace.trace import Trace
from tests.strategies import engine, profile, workload
from tests.test_sessions import pairs, run, sessions

STEP_S = 0.010  # a decode step; a prompt of 8 tokens is computed in the first


def chain_and_tree() -> Trace:
    """Session a: 3 turns in a row. b: a fork that is joined. c: its second turn of three fails. And one alone."""
    return run(
        sessions(
            [[], [0], [1], [], [3], [3], [4, 5], [], [7], [8], []],
            [0, 1.0, 2.0, 0, 0.5, 0.7, 0.25, 0, 0.5, 0.5, 0],
            [10, 20, 5, 10, 30, 10, 2, 4, 4, 4, 3],
            session=["a"] * 3 + ["b"] * 4 + ["c"] * 3 + [None],
            prompt_tokens=[8, 8, 8, 8, 8, 8, 8, 8, 900, 8, 8],
        )
    )


def test_times_of_sessions_are_those_counted_by_hand() -> None:
    """Nobody waits for a slot, so a turn of n tokens takes n steps."""
    table = ds.session_table(chain_and_tree())
    assert table.index.tolist() == ["a", "b", "c"]
    assert table["turns"].tolist() == [3, 4, 2]
    assert table["finished"].tolist() == [3, 4, 1]
    assert table["cut_short"].tolist() == [False, False, True]
    assert table["begin_s"].tolist() == [0.0, 3.0, 7.0]
    a = 0.10 + 1.0 + 0.20 + 2.0 + 0.05
    # b: 0.1, then one branch from 0.6 to 0.9 and the other from 0.8 to 0.9, then 0.25 and 0.02.
    b = 0.10 + 0.5 + 0.30 + 0.25 + 0.02
    assert table["time_s"].tolist()[:2] == pytest.approx([a, b])
    assert table["active_s"].tolist()[:2] == pytest.approx([a - 3.0, b - 0.75])
    assert table["prompt_tokens"].tolist() == [24, 32, 908]
    assert table["output_tokens"].tolist() == [35, 52, 4]


def test_the_summary_counts_cut_sessions_and_times_the_others() -> None:
    trace = chain_and_tree()
    found = session_summary(trace)
    whole = ds.session_table(trace).loc[["a", "b"]]
    assert (found["sessions"], found["sessions_cut_short"]) == (3, 1)
    assert found["turns_mean"] == 3.0
    assert found["session_mean_s"] == pytest.approx(whole["time_s"].mean())
    assert found["session_active_p99_s"] == pytest.approx(np.percentile(whole["active_s"], 99))
    assert list(found) == [metric.name for metric in glossary.SESSIONS]
    assert {name: ds.summary(trace)[name] for name in found} == found
    assert session_lines(trace, found)[0].startswith("3 sessions of 3.0 turns, 1 cut short by a turn that failed; ")


def test_latencies_by_turn_are_those_of_the_turns() -> None:
    trace = chain_and_tree()
    table = ds.turn_table(trace)
    assert table.index.tolist() == [1, 2, 3]
    assert table["requests"].tolist() == [3, 4, 2]  # b's branches are both turn 2, what joins them is turn 3
    assert table["finished"].tolist() == [3, 3, 2]
    assert table["e2e_mean_s"].tolist() == pytest.approx([0.08, 0.20, 0.035])
    assert table["e2e_p50_s"].tolist() == pytest.approx([0.10, 0.20, 0.035])
    assert table["ttft_mean_s"].tolist() == pytest.approx([STEP_S] * 3)
    assert table["prompt_tokens"].tolist() == pytest.approx([8, 924 / 4, 8])


def test_a_branch_that_goes_on_leaves_no_gap_and_a_join_counts_from_the_deepest() -> None:
    """1 takes 0.3 s; meanwhile 2 ends and 3 follows it; 4 joins 1 and 3 as 1 ends, 0.2 s later."""
    made = sessions([[], [0], [0], [2], [1, 3]], [0, 0, 0, 0.05, 0.2], [10, 30, 5, 5, 10])
    trace = run(made)
    row = ds.session_table(trace).loc["s"]
    assert row["time_s"] == pytest.approx(0.1 + 0.3 + 0.2 + 0.1)
    assert row["active_s"] == pytest.approx(0.5)
    assert ds.turn_table(trace)["requests"].to_dict() == {1: 1, 2: 2, 3: 1, 4: 1}


def test_a_turn_that_was_given_up_has_no_latency() -> None:
    trace = run(sessions([[], [0], [1]], [0.0] * 3, [4, 8, 2]))
    trace = ds.Trace(trace.header, trace.requests.assign(finish_reason=["stop", "stop", "abort"]))
    table = ds.turn_table(trace)
    assert table["requests"].tolist() == [1, 1, 1]
    assert table["finished"].tolist() == [1, 1, 0]
    assert table["e2e_mean_s"].isna().tolist() == table["ttft_p99_s"].isna().tolist() == [False, False, True]


def test_bands_of_turns_hold_the_requests_of_their_turns() -> None:
    count = 20
    made = sessions([[], *([row] for row in range(count - 1))], [0.0] * count, [2] * count)
    table = ds.turn_table(run(made), bands=True)
    assert table["requests"].to_dict() == {"1": 1, "2": 1, "3": 1, "4": 1, "5-8": 4, "9-16": 8, "17-32": 4}
    assert [band_of(turn) for turn in (4, 5, 8, 9, 16, 17, 32, 33)] == [
        "4", "5-8", "5-8", "9-16", "9-16", "17-32", "17-32", "33-64",
    ]  # fmt: skip


def test_one_phase_is_told_alone() -> None:
    phases = (Phase(name="chats", kind="sessions", requests=2), Phase(name="then", kind="sessions", requests=1))
    made = workload(
        [0.0, 0.0, 0.5], [4, 1, 1], phases, session=["s", "s", "t"], parent=pd.Series([[], [0], []]), gap_s=1.0
    )
    trace = run(made)
    assert ds.session_table(trace, "chats").index.tolist() == ["s"]
    assert ds.summary(trace, phase="then")["sessions"] == 1


def test_a_run_without_sessions_says_nothing_of_them() -> None:
    trace = ds.read("traces/smollm2-cpu-drift")
    assert not {metric.name for metric in glossary.SESSIONS} & ds.summary(trace).keys()
    assert session_lines(trace, ds.summary(trace)) == []
    for of in (ds.session_table, ds.turn_table):
        with pytest.raises(TraceError, match="no request belongs to a session"):
            of(trace)
    plain = ds.compare(trace, policies=["fifo"], estimators=["static"], replications=1)
    assert not turns.told(plain)
    assert "ession" not in str(plain)


def test_all_cut_short_leaves_no_times() -> None:
    found = session_summary(run(sessions([[]], [0.0], [3], prompt_tokens=900)))
    assert (found["sessions"], found["sessions_cut_short"]) == (1, 1)
    assert math.isnan(found["session_mean_s"])


def test_a_comparison_tells_how_long_sessions_took_with_an_interval(tmp_path: Path) -> None:
    made = pairs(30)
    made.table["output_tokens"] = [20 + 40 * (row % 7) for row in range(60)]
    made.table["max_tokens"] = 300
    made.table["offset_s"] /= 20
    found = ds.compare(
        made, policies=["fifo", "sjf"], estimators=["static", "oracle"], replications=4, jobs=1,
        profile=profile(engine(max_num_seqs=2)),
    )  # fmt: skip
    fifo = simulate(found.plan.scenario(BASELINE), made)
    rows = {(one["policy"], one["estimator"]): one for one in found.rows()}
    row = rows[BASELINE]
    assert row["session_mean_s"] == pytest.approx(ds.session_table(fifo)["time_s"].mean())
    sjf = rows["sjf", "oracle"]
    assert sjf["session_mean_low_s"] < sjf["session_mean_expected_s"] < sjf["session_mean_high_s"]
    assert {metric.name for metric in (*glossary.SESSIONS, *glossary.SESSION_COMPARISON)} <= sjf.keys()
    cells = {(one[0], one[1]): dict(enumerate(one)) for one in turns.table(found)}
    assert set(map(len, cells.values())) == {len(turns.HEADINGS)}
    assert [cells[BASELINE][place] for place in range(2, 6)] == ["30", "0", f"{row['session_mean_s']:.2f}", ""]
    assert cells["sjf", "oracle"][5].strip("()").endswith("%")
    headings, lines = turns.by_turn(found)
    assert headings[3:] == ["1", "2"]
    assert [one[2] for one in lines] == ["TTFT mean", "E2E mean"] * len(cells)
    assert "Sessions; seconds of this run" in str(found)
    found.write(tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<summary>Sessions</summary>" in page
    assert json.loads((tmp_path / "out" / "comparison.json").read_text())["rows"][0]["sessions"] == 30


def test_a_comparison_goes_on_where_turns_were_never_sent(tmp_path: Path) -> None:
    made = sessions(
        [[] if row % 3 == 0 else [row - 1] for row in range(30)], [0.0] * 30, [3] * 30,
        session=[f"s{row // 3}" for row in range(30)], prompt_tokens=[8] * 4 + [900] + [8] * 25,
    )  # fmt: skip
    found = ds.compare(made, policies=["fifo", "sjf"], replications=3, jobs=1, profile=profile())
    assert found.recorded["requests"] == 29
    assert found.recorded["sessions_cut_short"] == 1
    found.write(tmp_path / "out")


def test_resampled_sessions_take_what_the_recorded_ones_do_where_nobody_waits() -> None:
    """Were sessions cut in two, they would be shorter."""
    made = pairs(25)
    seconds = session_summary(simulate(Scenario(profile=profile(), refill_lag=False), made))["session_mean_s"]
    for how in ("circular", "local"):
        drawn = ds.resample(made, 0, 1, how)
        again = session_summary(simulate(Scenario(profile=profile(), refill_lag=False), drawn))
        assert again["session_mean_s"] == pytest.approx(seconds)
