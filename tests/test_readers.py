"""Cells, endings and rows of other tools' files, one rule at a time: units, failures, limits, order and clocks."""

from __future__ import annotations

import csv
import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from driftsim.errors import TraceError
from driftsim.formats import timed_trace
from driftsim.formats.assemble import assemble
from driftsim.formats.clocks import coarse_step, refuse_unit
from driftsim.formats.endings import ending
from driftsim.formats.exports import export_trace
from driftsim.formats.found import Found
from driftsim.formats.rebuilt import Asked, rebuilt
from driftsim.formats.said import held_back
from driftsim.formats.source import Source
from driftsim.formats.timed_trace import decided
from driftsim.formats.values import counts, times
from driftsim.formats.vllm_bench import told_loop
from driftsim.trace.loops import Told
from driftsim.trace.trace import Trace
from tests import format_files as files
from tests.format_files import brought


@pytest.fixture(params=["UTC", "America/New_York"])
def _zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", request.param)
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("_zone")
def test_a_time_is_in_its_own_unit_or_the_column_s_and_a_date_is_in_utc_if_nothing_else_is_said() -> None:
    cells: list[Any] = [
        "7us", "7 ms", "2 s", "3min", "2h", 5, "6", 1.5, None, "-", "n/a", "1970-01-01T00:01:00",
        "1970-01-01 00:01:00Z",
        "1970-01-01T01:01:00+01:00",
    ]  # fmt: skip
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6), ("ns", 1e-9)):
        values, problems = times(cells, unit)
        nothing = math.nan
        expected = [7e-6, 7e-3, 2.0, 180.0, 7200.0, 5 * scale, 6 * scale, 1.5 * scale, *[nothing] * 3, 60.0, 60.0, 60.0]
        assert values.tolist() == pytest.approx(expected, nan_ok=True)
        assert not problems
    _, problems = times(["soon", True, math.inf, "3 parsecs"], "s")
    assert sorted(problems) == [0, 1, 2, 3]


def test_a_count_is_whole_not_negative_and_no_truth() -> None:
    values, problems = counts([3, "4", 5.0, None, 2.5, -1, True, math.inf, 10**10, "0"])
    assert values[[0, 1, 2, 9]].tolist() == [3.0, 4.0, 5.0, 0.0]
    assert sorted(problems) == [4, 5, 6, 7, 8]


def test_endings_are_known_in_other_words_and_as_statuses() -> None:
    known = {
        "STOP": "stop", "end-turn": "stop", "max_new_tokens": "length", "OK": "done", "timeout": "timeout",
        "499": "abort",
        "429": "rejected", "503": "rejected", "500": "error", "404": "error", "204": "done", "302": None, "green": None,
    }  # fmt: skip
    assert {text: ending(text) for text in known} == known


def found(count: int, **cells: Sequence[Any]) -> Found:
    plain: dict[str, Sequence[Any]] = {
        "arrival_s": [10.0 + row for row in range(count)], "prompt_tokens": [5] * count, "output_tokens": [3] * count,
        "first_token_s": [10.25 + row for row in range(count)], "finish_s": [10.5 + row for row in range(count)],
    }  # fmt: skip
    source = Source(Path("f"), count, lambda row: f"row {row}")
    return Found(source=source, cells={name: own for name, own in (plain | cells).items() if own})


def made(count: int, **cells: Sequence[Any]) -> Trace:
    return assemble(found(count, **cells))


def ends(trace: Trace) -> list[str]:
    return [str(reason) for reason in trace.requests["finish_reason"]]


def test_times_count_from_the_first_arrival_and_rows_stand_in_its_order() -> None:
    trace = made(3, arrival_s=[12.0, 10.0, 11.0], first_token_s=[12.5, 10.5, 11.5], finish_s=[13.0, 11.0, 12.0],
                 prompt_tokens=[7, 8, 9])  # fmt: skip
    assert trace.requests["arrival_s"].tolist() == [0.0, 1.0, 2.0]
    assert trace.requests["finish_s"].tolist() == [1.0, 2.0, 3.0]
    assert trace.requests["prompt_tokens"].tolist() == [8, 9, 7]


def test_durations_count_from_the_arrival_and_an_end_with_a_duration_tells_it() -> None:
    base = found(2, first_token_s=[], finish_s=[])
    lasting = Found(
        source=base.source, cells=base.cells, durations={"first_token_s": [0.25, 0.5], "finish_s": [1.0, 2.0]}
    )
    rows = assemble(lasting).requests
    assert rows["first_token_s"].tolist() == [0.25, 1.5]
    assert rows["finish_s"].tolist() == [1.0, 3.0]
    cells = {name: base.cells[name] for name in ("prompt_tokens", "output_tokens")} | {"finish_s": [15.0, 18.0]}
    told = assemble(Found(source=base.source, cells=cells, durations={"finish_s": [1.0, 2.0]})).requests
    assert told["arrival_s"].tolist() == [0.0, 2.0]
    assert told["finish_s"].tolist() == [1.0, 4.0]


def test_how_a_request_ended_follows_its_limit_its_output_its_finish_and_its_error() -> None:
    trace = made(
        7, max_tokens=[3, 4, 9, 9, 9, 9, 2], output_tokens=[3, 3, 0, 3, 3, 3, 3],
        finish_s=[10.5, 11.5, 12.5, None, 14.5, 15.0, 16.5], first_token_s=[10.2, 11.2, 12.2, 13.2, 14.2, 15.0, 16.2],
        error=[None, None, None, None, "boom", "none", None],
    )  # fmt: skip
    # At the limit, below it, without output, without an end, with an error, in no time, and above the limit.
    assert ends(trace) == ["length", "stop", "error", "abort", "error", "error", "length"]
    assert trace.requests["max_tokens"].tolist() == [3, 4, 9, 9, 9, 9, 3]
    assert trace.requests["output_tokens"].isna().tolist() == [False, False, True, False, False, False, False]
    told = " ".join(trace.header.caveats)
    assert "1 of 7 rows have an output longer than max_tokens, which is raised to it (row 6)" in told
    assert ends(made(2)) == ["length", "length"]  # without limits, each output is taken for its own


def test_placeholders_of_failed_requests_are_no_times_and_no_output() -> None:
    trace = made(
        2, finish_reason=["stop", "error"], first_token_s=[10.2, 0.0], finish_s=[10.5, -1.0], output_tokens=[3, -1]
    )
    assert trace.requests["finish_reason"].tolist() == ["stop", "error"]
    assert trace.requests[["first_token_s", "finish_s", "output_tokens"]].isna().all(axis=1).tolist() == [False, True]


def test_a_prompt_has_a_token_and_a_name_one_owner() -> None:
    trace = made(3, prompt_tokens=[0, 5, 6], request_id=["a", "a", "b"])
    assert trace.requests["prompt_tokens"].tolist() == [1, 5, 6]
    assert trace.requests["request_id"].tolist() == ["a", "a#2", "b"]


def test_small_steps_back_are_set_equal_and_large_ones_cost_the_row() -> None:
    trace = made(3, dispatch_s=[None, 10.98, 12.0], first_token_s=[9.99, 11.2, 12.2], finish_s=[10.5, 11.5, 12.1])
    assert trace.requests["arrival_s"].tolist() == [0.0, 1.0]  # the last finished long before its first token
    assert trace.requests["first_token_s"].tolist() == pytest.approx([0.0, 1.2])
    assert trace.requests["dispatch_s"].tolist() == pytest.approx([math.nan, 1.0], nan_ok=True)
    assert (
        "1 of 3 rows could not be read and were left out: row 2: finish_s is 0.1 s before its first_token_s"
        in (trace.header.caveats[0])
    )
    with pytest.raises(TraceError, match="row 2: finish_s is 0.1 s before"):
        assemble(found(3, finish_s=[10.5, 11.5, 12.1], first_token_s=[10.1, 11.2, 12.2]), strict=True)


def test_words_of_another_tool_are_replaced_as_the_mapping_says() -> None:
    base = found(2, finish_reason=["green", "red"], tier=["high", "low"])
    maps = {"finish_reason": {"green": "stop", "red": "abort"}, "tier": {"high": "premium"}}
    trace = assemble(Found(source=base.source, cells=base.cells, maps=maps))
    assert ends(trace) == ["stop", "abort"]
    assert trace.requests["tier"].tolist() == ["premium", "low"]


def test_a_moment_that_can_only_be_of_a_finer_unit_is_refused_with_that_unit() -> None:
    refuse_unit(1.7e9, "s", "f")
    refuse_unit(1.7e12, "ms", "f")
    for moment, unit in ((1.7e12, "ms"), (1.7e15, "us"), (1.7e18, "ns")):
        with pytest.raises(TraceError, match=f'all = "{unit}"'):
            refuse_unit(moment, "s", "f")


def test_a_clock_is_coarse_in_its_largest_step() -> None:
    shared = np.repeat(np.arange(12.0), 2)
    assert [coarse_step(step * shared) for step in (1.0, 60.0, 0.1, 128.0)] == [1.0, 60.0, 0.1, 128.0]
    assert coarse_step(np.arange(24.0)) == 0.0  # nobody shares a moment
    assert coarse_step(np.sort(np.concatenate([shared, [0.3717, 4.1179]]))) == 0.0


def test_a_client_holds_back_by_more_than_five_milliseconds() -> None:
    assert held_back(np.array([0.004, math.nan, 0.0]), "x") == []
    assert "held back 2 of 3 requests, at most for 0.2 s" in held_back(np.array([0.006, 0.2, 0.0]), "x")[0]


def test_a_closed_loop_gives_each_request_to_the_user_who_is_idle_first() -> None:
    took = np.array([4.0, 1.0, 1.0, 5.0, math.nan, 1.0])
    made = rebuilt(Path("f"), took, Told(2, math.inf), Asked())
    assert made.arrival_s.tolist() == [0.0, 0.0, 1.0, 2.0, 4.0, 4.0]
    assert (made.loop.kind, made.loop.users) == ("closed", 2)
    assert rebuilt(Path("f"), took, Told(2, math.inf), Asked(users=3)).loop.users == 3
    drawn = rebuilt(Path("f"), np.ones(4000), Told(), Asked(rate=8.0)).arrival_s
    assert (np.diff(drawn) > 0).all()
    assert drawn[-1] == pytest.approx(500, rel=0.05)


@pytest.mark.parametrize(
    ("moments", "unit"),
    [([0.0, 0.5, 1.0, 1.5], "s"), ([0, 30, 70, 90], "ms"), ([0, 0, 1, 1, 2], "s"), ([0, 2, 4, 7], "s")],
)
def test_the_gaps_of_a_trace_tell_its_unit(moments: list[Any], unit: str) -> None:
    records = [{"timestamp": at, "input_length": 9, "output_length": 9} for at in moments]
    assert decided(Source(Path("f"), len(records), str, records=records), None)[0] == unit


@pytest.mark.parametrize(("block", "unit"), [(512, "ms"), (16, "s")])
def test_the_length_of_a_hash_tells_whose_trace_it_is(block: int, unit: str, tmp_path: Path) -> None:
    records = [
        {"timestamp": 7 * at, "input_length": 3 * block - at, "output_length": 9, "hash_ids": [1, 2, 3]}
        for at in range(6)
    ]
    file = tmp_path / "f.jsonl"
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    assert timed_trace.read(file).units == {"arrival_s": unit}


# -- what the examples of the formats do not tell apart


def bench(folder: Path, **changes: Any) -> Any:
    return brought(folder, "vllm_bench", files.vllm_bench(**changes)).requests


def test_vllm_s_latencies_go_before_its_gaps_and_a_mean_gap_stands_for_all_but_the_first_token(tmp_path: Path) -> None:
    measured = bench(tmp_path, latencies=[0.25, 0.75, 0.0, 0.5])
    assert (measured["finish_s"] - measured["arrival_s"]).tolist() == pytest.approx(
        [0.25, 0.75, np.nan, 0.5], nan_ok=True
    )
    means = bench(tmp_path, latencies=..., itls=[0.05, 0.1, 0.0, 0.04])
    assert (means["finish_s"] - means["arrival_s"]).tolist() == pytest.approx([0.2, 0.5, np.nan, 0.34], nan_ok=True)
    gaps = bench(tmp_path, latencies=..., itls=[[0.05, 0.06], [0.1, 0.1, 0.1], [], [0.04]])
    assert gaps["finish_s"][0] == pytest.approx(0.21)


def test_a_request_with_an_error_failed_whatever_it_had(tmp_path: Path) -> None:
    rows = bench(tmp_path, errors=["", "cut", "timed out", ""])
    assert list(rows["finish_reason"]) == ["length", "error", "error", "length"]
    assert rows["output_tokens"].isna().tolist() == [False, True, True, False]
    assert rows[["first_token_s", "finish_s", "scheduled_s"]].isna().all(axis=1).tolist() == [False, True, True, False]
    silent = brought(tmp_path, "vllm_bench", files.vllm_bench(errors=["", "", "", ""]))
    assert ends(silent) == ["length", "length", "error", "length"]  # zeros stand for a failure
    assert "1 of 4 requests failed" in files.said(silent)


def test_a_number_of_any_kind_is_scaled() -> None:
    values, problems = times([Decimal("5"), "7", np.float32(2.0), 2**64], "ms")
    assert values.tolist() == pytest.approx([0.005, 0.007, 0.002, 2**64 / 1000])
    assert not problems


def test_the_loop_of_a_benchmark_is_what_its_options_say() -> None:
    assert told_loop({"request_rate": "inf", "max_concurrency": 4}) == Told(4, math.inf)
    assert told_loop({"request_rate": 2.0, "max_concurrency": None}) == Told(None, 2.0)
    assert told_loop({}) == Told(None, math.inf)


def test_a_metric_of_aiperf_without_a_unit_is_in_milliseconds(tmp_path: Path) -> None:
    rows = files.aiperf()[1:3]
    for row in rows:
        row["metrics"]["time_to_first_token"] = {"value": 120.5}
    table = brought(tmp_path, "aiperf", rows).requests
    assert (table["first_token_s"] - table["arrival_s"]).tolist() == pytest.approx([0.1205] * 2)


def test_a_zero_of_blis_is_no_time(tmp_path: Path) -> None:
    rows = files.blis()
    rows[2] |= {"send_time_us": 0, "first_chunk_time_us": 0}
    table = brought(tmp_path, "blis", rows).requests
    assert table["arrival_s"].tolist()[2] == pytest.approx(0.08 - 0.00001)  # it counts from when it was due
    assert table["first_token_s"].isna().tolist() == [False, False, True, False, False, False]


def test_a_response_of_llmperf_that_failed_has_no_times(tmp_path: Path) -> None:
    rows = files.llmperf()
    rows[1] |= {"error_code": 500, "error_msg": "gone"}
    table = brought(tmp_path, "llmperf", rows).requests
    failed = table["error"].notna()
    assert failed.sum() == 2
    assert table[["first_token_s", "finish_s"]].isna().all(axis=1).tolist() == failed.tolist()


def test_azure_s_context_is_the_prompt(tmp_path: Path) -> None:
    table = brought(tmp_path, "azure").requests
    assert table["prompt_tokens"].tolist() == [300, 301, 302, 303, 304]
    assert table["output_tokens"].tolist() == [40] * 5


def test_an_export_stands_in_order_of_arrival_says_how_each_ended_and_keeps_guesses_to_itself(tmp_path: Path) -> None:
    run = brought(tmp_path, "guidellm")  # six went well, one failed, one was incomplete
    backwards = replace(run, requests=run.requests.iloc[::-1].reset_index(drop=True))
    lost = export_trace(backwards, "mooncake", tmp_path / "m.jsonl")
    stamps = [json.loads(line)["timestamp"] for line in (tmp_path / "m.jsonl").read_text().splitlines()]
    assert stamps == sorted(stamps)
    assert len(stamps) == 7
    assert "1 of 8 requests have no output and were left out" in lost
    export_trace(backwards, "blis", tmp_path / "b.csv")
    rows = list(csv.DictReader((tmp_path / "b.csv").open()))
    assert [row["status"] for row in rows] == ["ok"] * 6 + ["error", "timeout"]
    assert [int(row["arrival_time_us"]) for row in rows] == sorted(int(row["arrival_time_us"]) for row in rows)
    assert int(rows[0]["last_chunk_time_us"]) > int(rows[0]["first_chunk_time_us"]) > int(rows[0]["arrival_time_us"])
    header = (tmp_path / "b.yaml").read_text()
    assert "max_num_seqs" in run.header.engine.assumed
    assert "max_num_seqs" not in header
    told = replace(run, header=run.header.changed(engine=run.header.engine.changed(assumed=())))
    export_trace(told, "blis", tmp_path / "c.csv")
    assert f"max_num_seqs: {run.header.engine.max_num_seqs}" in (tmp_path / "c.yaml").read_text()
