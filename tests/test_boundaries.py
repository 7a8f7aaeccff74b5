"""Small rules at their edges: what holds on one side of a number does not hold on the other."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from driftsim import crowding, outcomes
from driftsim.comparison import turns
from driftsim.comparison.plan import BASELINE, ComparisonPlan, Setting
from driftsim.comparison.runs import compare
from driftsim.comparison.sameness import NO_CHOICE, reasons
from driftsim.comparison.slos import names_of
from driftsim.comparison.wording import moved
from driftsim.errors import TraceError
from driftsim.formats.mapping import unread_prefixes
from driftsim.formats.ties import _nearest, _sorted
from driftsim.formatting import NO_BREAK
from driftsim.gateway.learning import learn_anew
from driftsim.gateway.recording import Recorder, Segment, Slot
from driftsim.live.engine import Outcome
from driftsim.metrics import choice_fraction
from driftsim.outcomes import fates_line, nobody_finished, turned_away
from driftsim.scheduling.admission import Admission
from driftsim.simulation.bases import fit_base
from driftsim.simulation.replicas import Replicas
from driftsim.simulation.run import simulate
from driftsim.simulation.scenario import Scenario
from driftsim.sizing.wording import _load
from driftsim.slo import slo_rules
from driftsim.statistics import Day, Interval, over_days
from driftsim.sweeps.plot import some
from driftsim.sweeps.results import view
from driftsim.sweeps.spread import interval_over
from driftsim.tenants import MOST, largest
from driftsim.trace.loops import SAME_S, SAME_SHARE, _tolerance
from driftsim.trace.tables import read_lines
from driftsim.trace.trace import Trace, read
from driftsim.validation.agreement import metric_agreement
from driftsim.validation.equivalence import change_differences
from driftsim.validation.result import validate_runs
from driftsim.validation.validation import Validation
from driftsim.workloads.replay import _with_parents
from driftsim.workloads.unfinished import _streamed
from tests.strategies import engine, profile, workload

NAN = math.nan
PROFILE = profile(engine(max_num_seqs=1))


def run(**columns: Any) -> Trace:
    return simulate(Scenario(profile=PROFILE), workload([0.0, 0.0, 0.0, 0.1], [9, 2, 5, 3], **columns))


@pytest.mark.parametrize(("value", "word"), [(-0.2, "falls"), (0.2, "rises"), (1.5, "rises")])
def test_a_change_without_an_interval_has_its_direction(value: float, word: str) -> None:
    assert moved(Interval(value, NAN, NAN)) == f"{word} by {100 * abs(value):.1f}{NO_BREAK}%"


@pytest.mark.parametrize(
    ("change", "real", "told"),
    [
        (Interval(0.0, 0.0, 0.0), False, "the same"),
        (Interval(0.2, 0.1, 0.3), True, "+20.0 ± 10.0 %"),
        (Interval(0.2, 0.1, 0.3), False, "(+20.0 ± 10.0 %)"),
        (Interval(0.2, NAN, NAN), False, "+20.0 %"),
    ],
)
def test_what_may_be_an_accident_stands_in_brackets(change: Interval, real: bool, told: str) -> None:
    comparison: Any = SimpleNamespace(change=lambda *_: change)
    assert turns._versus(comparison, Setting("sjf", "ema"), "session_mean_s", real).replace(NO_BREAK, " ") == told
    assert turns._versus(comparison, BASELINE, "session_mean_s", real) == ""


def test_a_context_of_all_the_cache_fits_and_one_token_more_does_not() -> None:
    made = engine(kv_blocks=11, block_size=16)
    room = made.usable_kv_blocks * made.block_size
    assert made.changed(max_model_len=room).why_not_started == ""
    assert f"at most {room:,}" in made.changed(max_model_len=room + 1).why_not_started


def test_a_table_is_cut_where_the_run_begins_and_not_a_second_later(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("time_s,x\n9.9,1\n10.0,2\n10.4,3\n11.5,4\n")
    table = read_lines(tmp_path / "t.csv", 10.0)
    assert table is not None
    assert table["time_s"].to_numpy() == pytest.approx([0.0, 0.4, 1.5])


def test_replicas_tell_their_speeds() -> None:
    assert "speeds 1, 0.5" in Replicas(count=2, speeds=(1.0, 0.5)).words
    assert "speeds" not in Replicas(count=2).words


def test_an_outcome_shows_nobody_the_answer() -> None:
    nobody: Any = None
    assert "divorce" not in repr(Outcome(nobody, "stop", answer="of my divorce"))


def test_as_many_tenants_as_have_room_are_told_apart_and_else_one_less() -> None:
    names = [f"t{number:02}" for number in range(MOST + 1)]
    assert largest(pd.Series(names[:MOST])) == tuple(names[:MOST])
    assert largest(pd.Series(names)) == tuple(names[: MOST - 1])


def test_ends_that_nobody_had_are_not_told_and_none_finished_is() -> None:
    row = dict.fromkeys(("finished", "rejected", "timed_out", "aborted", "errors"), 0) | {"requests": 2, "attempts": 2}
    assert fates_line(row | {"timed_out": 2}) == "2 requests offered: 0 finished, 2 timed out"


def test_one_moment_of_choice_has_its_length() -> None:
    rows = pd.DataFrame({"arrival_s": [0.0, 0.0], "dispatch_s": [1.0, 1.0], "finish_s": [2.0, 2.0]})
    assert choice_fraction(rows) == pytest.approx(0.5)


def test_days_without_resamples_have_their_mean_and_nothing_more() -> None:
    none = np.array([])
    estimate = over_days([Day(1.0, none, none), Day(4.0, none, none)])
    assert (estimate.centre, estimate.this_run, estimate.moved) == (2.5, 1.0, False)
    assert math.isnan(estimate.error)


def test_of_many_groups_the_first_and_the_last_are_shown() -> None:
    assert some(list(range(10)), 3, "runs")[0] in ([0, 4, 9], [0, 5, 9])


def test_words_that_one_row_lacks_are_asked_for() -> None:
    trace = run(predicted_category=["report"] * 4)
    words = pd.array([3, None, 3, 3], dtype="Int64")
    lacking = replace(trace, requests=trace.requests.assign(output_words=words))
    with pytest.raises(TraceError, match="needs output_words"):
        fit_base(lacking, Admission(accounting="whitespace", base="fit", base_fit_n=1))


def test_two_runs_are_repeats_and_rounds_are_counted() -> None:
    trace = run()
    pair = [Validation(name, trace, trace) for name in "ab"]
    assert metric_agreement(pair)[0].repeats == 2
    assert metric_agreement(pair[:1]) == []
    errors = {"fifo": np.zeros(5), "sjf": np.array([0.0, 0.1, -0.1, 0.2, 0.0])}
    assert change_differences(errors)["sjf"].rounds == 5


def test_runs_in_folders_of_one_name_are_told_apart(tmp_path: Path) -> None:
    places = [tmp_path / part / "run" for part in ("one", "two")]
    for place, made in zip(places, (run(), run(max_tokens=[99] * 4)), strict=True):
        made.write(place)
    found = validate_runs([read(place) for place in places], PROFILE)
    assert len({one.name for one in found.validations}) == 2


def test_who_orders_inside_may_choose_though_nobody_waits_in_front() -> None:
    trace = simulate(Scenario(profile=PROFILE), workload([0.0, 9.0], [2, 3]))
    inside = replace(trace, header=trace.header.changed(admission={**trace.header.admission, "place": "inside"}))
    assert reasons("srpt", "static", Admission(safety={}), trace, trace)[-1:] == [NO_CHOICE]
    assert NO_CHOICE not in reasons("srpt", "static", Admission(safety={}), inside, trace)


@pytest.mark.parametrize(
    ("columns", "parts"),
    [
        ({}, []),
        ({"tenant": ["x", "y"] * 2}, ["tenant x", "tenant y"]),
        ({"tier": ["premium", "batch"] * 2}, ["tier premium", "tier batch"]),
    ],
)
def test_a_part_is_told_where_there_are_two(columns: dict[str, Any], parts: list[str]) -> None:
    made = workload([0.0] * 4, [3, 4, 5, 6], **columns)
    plan = ComparisonPlan(profile=PROFILE, settings=(BASELINE,), replications=1, slos=slo_rules(["e2e=9s"]))
    assert list(names_of(compare(made, plan, jobs=1))) == parts


def test_a_gateway_that_counts_tokens_learns_from_answers_whose_words_nobody_counted(tmp_path: Path) -> None:
    trace = run()
    unknown = trace.requests.assign(output_words=pd.array([None] * 4, dtype="Int64"))
    replace(trace, requests=unknown).write(tmp_path / "20260101T000000.000Z")
    for admission, learned in ((Admission(), 4), (Admission(accounting="whitespace"), 0)):
        seen: list[int] = []
        estimator: Any = SimpleNamespace(observe=lambda job, *_, seen=seen: seen.append(job))
        estimator.estimate = None
        learn_anew(estimator, admission, tmp_path)
        assert len(seen) == learned


def test_runs_without_a_value_have_a_column_of_a_pivot() -> None:
    rows = pd.DataFrame({"policy": ["fifo"] * 2, "max_in_flight": [8.0, NAN], "e2e_mean_s": [1.0, 3.0]})
    table = view(rows, ["e2e_mean_s"], pivot="policy,max_in_flight")
    assert table.iloc[0].tolist() == ["fifo", 1.0, 3.0]
    assert list(table.columns)[-1] == "none"


def test_the_centre_of_a_day_is_that_of_its_local_resamples() -> None:
    draws = pd.DataFrame({"day": "t", "number": range(5), "kind": ["circular"] + ["local"] * 2 + ["circular"] * 2})
    interval, _ = interval_over(np.array([5.0, 1.9, 2.1, 9.0, 11.0]), draws.assign(independent=False))
    assert interval.value == pytest.approx(2.0)


def test_times_of_an_end_count_from_the_begin_of_its_own_trace() -> None:
    noted: list[Any] = []
    journal: Any = SimpleNamespace(notes=lambda rows: noted.extend((row, dict(known)) for row, known in rows))
    header: Any = None
    recorder = Recorder(None, lambda: header, rotate_s=1.0, rotate_bytes=1.0)
    recorder.ended(Slot(Segment(journal, header, begun=10.0, under_way=2), 3), {"finish_s": 12.5, "output_tokens": 4})
    assert noted == [(3, {"finish_s": 2.5, "output_tokens": 4})]


@pytest.mark.parametrize(("cells", "count"), [([0, "0", "", None], 0), ([0, 1], 1), (["a", "a"], 1)])
def test_groups_that_are_all_nothing_share_nothing(cells: list[Any], count: int) -> None:
    source: Any = SimpleNamespace(names=["prefix_group"], cells=lambda _: cells)
    assert len(unread_prefixes(source)) == count


def test_a_parent_is_the_last_of_its_name_before_and_only_one_of_the_moment_is_waited_for() -> None:
    assert [_nearest([1, 4, 6], place) for place in (0, 3, 5, 7)] == [1, 1, 4, 6]
    assert _sorted(1, 3, [[], [2], [0]]) == [2, 1]


def test_times_are_alike_to_a_share_of_how_long_requests_take_and_no_less_than_a_clock_tells() -> None:
    begin = np.zeros(3)
    assert _tolerance(begin, begin + 0.001) == SAME_S
    assert _tolerance(begin, begin + 1000.0) == pytest.approx(1000.0 * SAME_SHARE)


def test_what_was_streamed_goes_by_the_time_of_a_token_and_not_of_an_answer() -> None:
    done = pd.DataFrame({"output_tokens": [1, 3, 11], "first_token_s": [0.0] * 3, "finish_s": [0.0, 2.0, 10.0]})
    cut = pd.DataFrame({"output_tokens": [7.0, NAN], "first_token_s": [0.0] * 2, "finish_s": [4.0] * 2})
    assert _streamed(cut.astype({"output_tokens": "Int64"}), done).tolist() == [7.0, 5.0]


def test_a_load_whose_rate_nobody_knows_is_told_without_one() -> None:
    sizing: Any = SimpleNamespace(
        axis=SimpleNamespace(kind="scale"), plan=SimpleNamespace(spec=SimpleNamespace(trace="t"))
    )
    known, unknown = (SimpleNamespace(unit_rate=rate) for rate in (2.0, NAN))
    assert _load(sizing, known, 1.5) == "1.5 x the recorded rate (3 requests/s)"  # type: ignore[arg-type]
    assert _load(sizing, unknown, 1.5) == "1.5 x the recorded rate"  # type: ignore[arg-type]


def test_a_parent_of_another_phase_starts_no_turn() -> None:
    rows = pd.DataFrame({"finish_reason": ["stop", "stop", "error", "stop"], "phase": ["a", "a", "b", "b"]})
    parents: Any = [[], [0], [1], [1, 2, 3]]
    known = rows.assign(source=range(4), parent=parents)
    trace: Any = SimpleNamespace(requests=rows)
    assert list(_with_parents(known, trace)["parent"]) == [[], [0], [], [3]]


@pytest.mark.parametrize(("finished", "told"), [(4, "latencies are of the others"), (0, "nobody is left to measure")])
def test_those_who_were_turned_away_leave_others_only_where_somebody_finished(finished: int, told: str) -> None:
    (said,) = turned_away({"rejected": 2, "finished": finished, "requests": 6}, engine())
    assert said == f"2 of 6 requests never fit this engine and were rejected; {told}"


def test_requests_of_which_nobody_knows_the_end_are_unfinished() -> None:
    rows = pd.DataFrame({"finish_reason": [None, None, "error"], "error": [None, None, "lost"]})
    bare: Any = SimpleNamespace(requests=rows)
    assert nobody_finished(bare) == "none of 3 requests finished: 2 unfinished, 1 error (the first: lost)"


def test_a_cache_is_held_against_an_endless_one_over_the_requests_that_it_served(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = pd.DataFrame({"cached_tokens": [16, NAN], "prompt_tokens": [64, 64], "output_tokens": [3, NAN]})
    bare: Any = SimpleNamespace(requests=rows.assign(prefix_row=-1), header=SimpleNamespace(engine=engine()))
    monkeypatch.setattr(outcomes, "stretches_in", lambda _: [])
    monkeypatch.setattr(outcomes, "endless_hits", lambda *_: np.array([32, 48]))
    (said,) = outcomes.cache_line(bare)
    assert said == "The prefix cache found 25.0 % of the prompt tokens; an endless one finds 50.0 %"


def test_slowdowns_are_those_of_the_phase_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crowding, "alone_times", lambda *_: {})
    monkeypatch.setattr(crowding, "fairness_summary", lambda trace, alone, phase: {"phase": phase})
    assert crowding.fairness(run(), profile=PROFILE, phase="two") == {"phase": "two"}
