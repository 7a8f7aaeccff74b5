"""Traces on disk: whole or absent, the same when read back, and strict about what cannot be."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from driftsim.errors import TraceError
from driftsim.files import whole_folder
from driftsim.simulation.run import simulate
from driftsim.simulation.scenario import Scenario
from driftsim.trace import tables
from driftsim.trace import trace as traces
from driftsim.trace.schema import REQUEST_COLUMNS, STEP_COLUMNS
from driftsim.trace.trace import Trace
from tests.strategies import profile, workload


@pytest.fixture
def made() -> Trace:
    scenario = Scenario(profile=profile())
    return simulate(scenario, workload([0.0, 0.1, 0.2], [5, 1, 9]), record_steps=True)


def rewrite(folder: Path, **columns: Any) -> None:
    """Change columns of the requests table behind the writer's back."""
    file = folder / "requests.parquet"
    table = pd.read_parquet(file)
    for name, values in columns.items():
        table[name] = values
    table.to_parquet(file)


def test_a_trace_reads_back_as_it_was_written(made: Trace, tmp_path: Path) -> None:
    back = traces.read(made.write(tmp_path / "t"))
    assert back.header == made.header
    pd.testing.assert_frame_equal(back.requests, made.requests, check_exact=True)
    assert back.steps is not None
    assert made.steps is not None
    pd.testing.assert_frame_equal(back.steps, made.steps, check_exact=True)


def test_the_same_scenario_writes_the_same_bytes(made: Trace, tmp_path: Path) -> None:
    again = simulate(Scenario(profile=profile()), workload([0.0, 0.1, 0.2], [5, 1, 9]), record_steps=True)
    assert traces.digest(made.write(tmp_path / "a")) == traces.digest(again.write(tmp_path / "b"))


def test_a_reader_never_sees_half_a_trace(made: Trace, tmp_path: Path) -> None:
    folder = tmp_path / "t"
    seen: list[Trace] = []
    stop = threading.Event()

    def watch() -> None:
        while not stop.is_set():
            if folder.exists():
                seen.append(traces.read(folder))

    watcher = threading.Thread(target=watch)
    watcher.start()
    made.write(folder)
    while not seen:
        assert watcher.is_alive()
    stop.set()
    watcher.join()
    assert all(len(trace.requests) == 3 for trace in seen)


def test_a_failed_write_leaves_nothing_behind(made: Trace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        made.write(tmp_path / "t")
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_replaced_only_if_it_is_ours_and_we_are_told(made: Trace, tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.txt").write_text("years of work")
    (tmp_path / "precious" / "header.json").write_text("{}")
    made.write(tmp_path / "t")
    with pytest.raises(TraceError, match="exists already"):
        made.write(tmp_path / "t")
    with pytest.raises(TraceError, match="holds 'thesis.txt'"):
        made.write(tmp_path / "precious", overwrite=True)
    made.write(tmp_path / "t", overwrite=True)
    assert sorted(os.listdir(tmp_path)) == ["precious", "t"]
    assert sorted(os.listdir(tmp_path / "precious")) == ["header.json", "thesis.txt"]


def test_a_block_that_raises_leaves_the_old_folder(tmp_path: Path) -> None:
    with whole_folder(tmp_path / "out") as folder:
        (folder / "mark").write_text("old")
    with pytest.raises(RuntimeError), whole_folder(tmp_path / "out", replaces=["mark"]) as folder:
        (folder / "mark").write_text("new")
        raise RuntimeError
    assert (tmp_path / "out" / "mark").read_text() == "old"
    assert os.listdir(tmp_path) == ["out"]


WRONG_ROWS: list[tuple[dict[str, Any], str]] = [
    ({"request_id": ["r0", "r0", "r2"]}, "row 1, request 'r0': request_id is 'r0': a duplicate id"),
    ({"request_id": ["r0", None, "r2"]}, "row 1: request_id is empty"),
    ({"tier": ["standard", "", "batch"]}, "row 1, request 'r1': tier is '': no tier, whose name can be printed"),
    ({"tier": ["gold", "standard", "a\nb"]}, r"row 2, request 'r2': tier is 'a\nb': no tier"),
    ({"arrival_s": [0.0, np.nan, 0.2]}, "row 1: arrival_s is empty"),
    ({"arrival_s": [-1.0, 0.1, 0.2]}, "row 0, request 'r0': arrival_s is -1.0: times are finite and not negative"),
    ({"finish_s": [0.05, np.inf, 0.29]}, "finish_s is inf"),
    ({"finish_s": [np.nan, 0.11, 0.29]}, "finish_s is empty: a finished request has a finish time"),
    ({"finish_s": [0.001, 0.11, 0.29]}, "finish_s is 0.001: before its first_token_s: tokens after the finish"),
    ({"dispatch_s": [0.0, 0.05, 0.2]}, "row 1, request 'r1': dispatch_s is 0.05: before its arrival_s"),
    ({"output_tokens": [5, 0, 9]}, "row 1, request 'r1': output_tokens is 0: a finished request has at least 1"),
    ({"output_tokens": [5, 1, 900]}, "output_tokens is 900: more than its max_tokens"),
    ({"prompt_tokens": [0, 8, 8]}, "prompt_tokens is 0: must be at least 1"),
    ({"prompt_tokens": [8, 600, 8]}, "prompt_tokens is 600: does not fit max_model_len 512"),
    ({"finish_reason": ["stop", "tired", "stop"]}, "finish_reason is 'tired'"),
    ({"finish_reason": ["stop", None, "stop"]}, "finish_reason is empty"),
    ({"dispatch_index": [0, 0, 2]}, "dispatch_index is 0: a duplicate index"),
    ({"phase": ["only", "only", "later"]}, "phase 'later' is in requests.parquet but not in the header"),
    ({"prompt_tokens": ["8", "many", "8"]}, "column prompt_tokens does not hold int values but"),
    ({"prompt_tokens": [8.0, 8.9, 8.0]}, "row 1: prompt_tokens is 8.9, not a whole number below 1e+09"),
    ({"max_tokens": [600, 600, 600], "output_tokens": [510, 1, 9]}, "with its prompt more than max_model_len 512"),
    ({"finish_s": [0.05, 1e300, 0.29]}, "finish_s is 1e+300: times are finite"),
    ({"max_tokens": [64, 2**62, 64]}, "max_tokens is 4.61169e+18, not a whole number below 1e+09"),
    ({"tenant": [["a"], ["b"], ["c"]]}, "column tenant does not hold str values but list"),
    ({"prompt_tokens": [True, True, True]}, "column prompt_tokens does not hold int values but bool"),
    ({"request_id": ["r0", "", "r2"]}, "request_id is '': no id"),
    ({"bonus": [1, 2, 3]}, "column 'bonus' is not in schema 1"),
]


@pytest.mark.parametrize(("columns", "message"), WRONG_ROWS)
def test_a_row_that_cannot_be_is_named(made: Trace, tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    folder = made.write(tmp_path / "t")
    rewrite(folder, **columns)
    with pytest.raises(TraceError) as error:
        traces.read(folder)
    assert message in str(error.value)
    assert str(folder) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_prompt_larger_than_the_kv_cache_is_named(made: Trace, tmp_path: Path) -> None:
    folder = made.write(tmp_path / "t")
    header = json.loads((folder / "header.json").read_text())
    header["engine"]["kv_blocks"] = 2
    (folder / "header.json").write_text(json.dumps(header))
    rewrite(folder, prompt_tokens=[8, 17, 8])
    with pytest.raises(TraceError, match="prompt_tokens is 17: larger than the KV cache of 16 tokens"):
        traces.read(folder)


WRONG_HEADERS: list[tuple[str, Any, str]] = [
    ("schema_version", 2, "schema_version is 2, this driftsim reads 1"),
    ("surprise", 1, "surprise: unknown key"),
    ("engine", {}, "engine.max_num_seqs: Field required"),
    ("kind", "dreamt", "kind: Input should be"),
    (
        "workload",
        {"name": "x", "phases": [{"name": "only", "requests": 4}]},
        "counts 4 requests, requests.parquet has 3",
    ),
    ("workload", {"name": "x", "phases": [{"name": "only", "requests": 3, "start_s": 0.05}]}, "has start_s 0.05"),
    ("workload", {"name": "x", "phases": [{"name": "a", "requests": 1}] * 2}, "two phases have the same name"),
    ("workload", {"name": "x", "phases": [{"name": "a", "kind": "closed", "requests": 3}]}, "needs at least 1 user"),
    ("max_in_flight", "lots", "max_in_flight: Input should be a valid integer"),
]


@pytest.mark.parametrize(("key", "value", "message"), WRONG_HEADERS)
def test_a_wrong_header_is_named(made: Trace, tmp_path: Path, key: str, value: Any, message: str) -> None:
    folder = made.write(tmp_path / "t")
    header = json.loads((folder / "header.json").read_text())
    (folder / "header.json").write_text(json.dumps(header | {key: value}))
    with pytest.raises(TraceError) as error:
        traces.read(folder)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_and_foreign_files_are_named(made: Trace, tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="no such trace folder"):
        traces.read(tmp_path / "absent")
    (tmp_path / "file").write_text("hello")
    with pytest.raises(TraceError, match="is a file, not a trace folder; driftsim import .* makes one"):
        traces.read(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    with pytest.raises(TraceError, match="header.json: no such file"):
        traces.read(tmp_path / "empty")
    folder = made.write(tmp_path / "t")
    (folder / "requests.parquet").write_text("not parquet at all")
    with pytest.raises(TraceError, match="not readable as Parquet"):
        traces.read(folder)
    (folder / "requests.parquet").unlink()
    with pytest.raises(TraceError, match="requests.parquet: no such file"):
        traces.read(folder)
    (folder / "header.json").write_text("{")
    with pytest.raises(TraceError, match="not readable as JSON"):
        traces.read(folder)


@pytest.mark.parametrize("column", [column.name for column in REQUEST_COLUMNS])
def test_every_column_must_be_there(made: Trace, tmp_path: Path, column: str) -> None:
    folder = made.write(tmp_path / "t")
    pd.read_parquet(folder / "requests.parquet").drop(columns=column).to_parquet(folder / "requests.parquet")
    with pytest.raises(TraceError, match=f"column '{column}' is missing"):
        traces.read(folder)


def test_steps_that_cannot_be_are_named(made: Trace, tmp_path: Path) -> None:
    folder = made.write(tmp_path / "t")
    good = pd.read_parquet(folder / "steps.parquet")
    good.assign(duration_s=-1.0).to_parquet(folder / "steps.parquet")
    with pytest.raises(TraceError, match=r"steps.parquet: row 0: duration_s is -1.0"):
        traces.read(folder)
    good.iloc[::-1].to_parquet(folder / "steps.parquet")
    with pytest.raises(TraceError, match="start_s goes backwards"):
        traces.read(folder)


def test_a_simulated_header_holds_no_wall_clock(made: Trace) -> None:
    assert made.header.captured_at is None
    assert made.header.kind == "simulated"
    assert made.header.profile_digest == profile().digest


def test_what_no_trace_can_be_is_refused_unread(made: Trace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few bytes of Parquet may claim a billion rows."""

    def never(*_: object) -> None:
        raise AssertionError("the table was read")

    folder = made.write(tmp_path / "t")
    monkeypatch.setattr("pyarrow.parquet.ParquetFile.read", never)
    monkeypatch.setattr(tables, "MOST_ROWS", len(made.requests) - 1)
    with pytest.raises(TraceError, match="rows are too many"):
        traces.read(folder)
    made.requests.assign(foreign=1).to_parquet(folder / "requests.parquet", index=False)
    with pytest.raises(TraceError, match="'foreign' is not in schema"):
        traces.read(folder)


def test_steps_may_overlap_as_far_as_an_engine_schedules_ahead(made: Trace, tmp_path: Path) -> None:
    assert made.steps is not None
    steps = pd.concat([made.steps] * (1 + 40 // len(made.steps)), ignore_index=True)
    spaced = steps.assign(start_s=[0.1 * number for number in range(len(steps))], duration_s=0.15)
    Trace(made.header, made.requests, spaced.head(10)).check("few")  # the tenth begins 0.6 s early: nine are under way
    with pytest.raises(TraceError, match="began before a step ended that came 16 earlier; durations are seconds"):
        Trace(made.header, made.requests, spaced.assign(duration_s=100.0)).check("long")


@pytest.mark.parametrize("place", ["traces/smollm2-cpu-drift", "traces/smollm2-cpu-backlog"])
def test_what_plainly_fits_is_typed_as_what_is_looked_at_closely(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = traces.read(place)
    steps = shipped.steps
    assert steps is not None
    given = [(shipped.requests, REQUEST_COLUMNS), (steps, STEP_COLUMNS), (steps.astype(float), STEP_COLUMNS)]
    quick = [tables.typed(table, columns, "t") for table, columns in given]
    monkeypatch.setattr(tables, "_plain", lambda values, column: None)
    for found, (table, columns) in zip(quick, given, strict=True):
        pd.testing.assert_frame_equal(found, tables.typed(table, columns, "t"))
