"""What is stored stays: each promise of a store, of a trace's digest and of its checks, on a few rows."""

from __future__ import annotations

import json
import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from driftsim.errors import InputError, TraceError
from driftsim.simulation.run import simulate
from driftsim.simulation.scenario import Scenario
from driftsim.sweeps.store import MARK, Store
from driftsim.trace.journal import Journal, is_being_recorded
from driftsim.trace.schema import OFFERED, SAMPLED, STEP_COLUMNS
from driftsim.trace.trace import Trace, read
from tests.strategies import profile, workload


def row(key: str, failed: bool = False, **more: Any) -> dict[str, Any]:
    return {"key": key, "failed": failed, "e2e_mean_s": 1.5, **more}


def filled(folder: Path, *rows: dict[str, Any]) -> Path:
    """A store whose one driver has written ``rows`` and ended."""
    with Store.open(folder, create=True) as store:
        store.append(rows)
    return folder


def journal(folder: Path) -> Path:
    [file] = folder.glob("journal-*.jsonl")
    return file


def found(folder: Path) -> dict[str, bool]:
    table = Store.open(folder).stored()
    assert table["key"].is_unique
    assert Store.open(folder).keys() == dict(zip(table["key"], table["failed"], strict=True))
    return {str(key): bool(failed) for key, failed in zip(table["key"], table["failed"], strict=True)}


def in_parquet(folder: Path) -> list[tuple[str, bool]]:
    """What somebody counts who reads all Parquet files without us."""
    parts = [pd.read_parquet(file) for file in folder.glob("rows-*.parquet")]
    return sorted((str(own.key), bool(own.failed)) for part in parts for own in part.itertuples())


def test_rows_are_on_the_disk_when_append_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(os.fstat(handle).st_size))
    with Store.open(tmp_path / "s", create=True) as store:
        synced.clear()
        store.append([row("a"), row("b")])
        assert synced == [journal(tmp_path / "s").stat().st_size]


def test_a_journal_goes_only_when_its_rows_stand_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store.open(tmp_path / "s", create=True)
    store.append([row("a"), row("b", failed=True)])

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(pd.DataFrame, "to_parquet", full)
        with pytest.raises(OSError, match="No space left"):
            store.close()
    assert found(tmp_path / "s") == {"a": False, "b": True}
    assert in_parquet(tmp_path / "s") == []
    Store.open(tmp_path / "s").adopt()
    assert in_parquet(tmp_path / "s") == [("a", False), ("b", True)]
    assert not list((tmp_path / "s").glob("journal-*"))


def test_a_full_disk_is_an_error_and_leaves_no_half_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store.open(tmp_path / "s", create=True)
    store.append([row("a")])
    size = journal(tmp_path / "s").stat().st_size

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            store.append([row("b")])
    assert journal(tmp_path / "s").stat().st_size == size
    store.append([row("c")])
    store.close()
    assert found(tmp_path / "s") == {"a": False, "c": False}


def test_a_journal_with_a_driver_is_not_adopted(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "s", create=True)
    store.append([row("a")])
    Store.open(tmp_path / "s").adopt()
    assert journal(tmp_path / "s").is_file()
    assert in_parquet(tmp_path / "s") == []
    store.append([row("b")])
    store.close()
    assert in_parquet(tmp_path / "s") == [("a", False), ("b", False)]


def test_a_reader_sees_what_came_since_once_and_nothing_that_is_half_written(tmp_path: Path) -> None:
    writer, reader = Store.open(tmp_path / "s", create=True), Store.open(tmp_path / "s")
    writer.append([row("a", failed=True)])
    assert reader.keys() == {"a": True}
    writer.append([row("a"), row("bb", failed=True)])
    assert reader.keys() == {"a": False, "bb": True}
    line = journal(tmp_path / "s").read_bytes().splitlines()[-1]
    with journal(tmp_path / "s").open("ab") as half:
        half.write(line[: len(line) // 2])
        half.flush()
        assert reader.keys() == {"a": False, "bb": True}
        half.write(line[len(line) // 2 :] + b"\n")
    assert reader.keys() == {"a": False, "bb": True}
    assert reader.torn == 0
    writer.append([row("c")])
    assert reader.keys() == {"a": False, "bb": True, "c": False}
    assert Store.open(tmp_path / "s").torn == 0
    writer.close()


@pytest.mark.parametrize(
    "harm",
    [
        lambda line: line.replace(b'"e2e_mean_s":1.5', b'"e2e_mean_s":2.5'),  # the checksum tells
        lambda line: line.replace(b" bad ", b" other "),  # the key beside the row, too
        lambda line: line[: len(line) // 2],
        lambda line: b"00000000 bad {}",
    ],
)
def test_a_line_that_was_changed_is_no_row_and_is_counted(harm: Any, tmp_path: Path) -> None:
    store = Store.open(tmp_path / "s", create=True)
    store.append([row("good"), row("bad"), row("last")])
    lines = journal(tmp_path / "s").read_bytes().split(b"\n")
    lines[1] = harm(lines[1])
    journal(tmp_path / "s").write_bytes(b"\n".join(lines))
    reader = Store.open(tmp_path / "s")
    assert list(reader.stored()["key"]) == ["good", "last"]
    assert reader.torn == 1
    watching = Store.open(tmp_path / "s")
    for _ in range(2):
        assert sorted(watching.keys()) == ["good", "last"]
    assert watching.torn == 1  # what was read once is not read again


def test_a_text_in_place_of_a_number_costs_its_row_alone(tmp_path: Path) -> None:
    folder = filled(tmp_path / "s", row("a"), row("b") | {"e2e_mean_s": "fast"})
    assert found(folder) == {"a": False}
    assert Store.open(folder).stored()["e2e_mean_s"].dtype == float


def test_a_run_that_came_through_stands_for_its_failures_in_whatever_order_and_file(tmp_path: Path) -> None:
    for number, order in enumerate(([True, False], [False, True], [True, True])):
        folder = tmp_path / f"apart-{number}"
        for failed in order:
            filled(folder, row("a", failed), row(f"other-{failed}"))
        expected = all(order)
        assert found(folder)["a"] is expected
        assert [failed for key, failed in in_parquet(folder) if key == "a"] == [expected]
        together = filled(tmp_path / f"together-{number}", *(row("a", failed) for failed in order))
        assert found(together) == {"a": expected}
        store = Store.open(tmp_path / f"open-{number}", create=True)
        for failed in order:
            store.append([row("a", failed)])
        assert found(tmp_path / f"open-{number}") == {"a": expected}
        store.close()


def test_a_failure_that_comes_late_does_not_hide_a_run_that_came_through(tmp_path: Path) -> None:
    writer, reader = Store.open(tmp_path / "s", create=True), Store.open(tmp_path / "s")
    writer.append([row("a")])
    assert reader.keys() == {"a": False}
    filled(tmp_path / "s", row("a", failed=True))  # another driver's
    assert in_parquet(tmp_path / "s") == [("a", True)]
    assert reader.keys() == found(tmp_path / "s") == {"a": False}
    writer.append([row("a", failed=True)])
    assert reader.keys() == found(tmp_path / "s") == {"a": False}
    writer.close()


def test_a_parquet_file_whose_last_row_was_taken_over_goes(tmp_path: Path) -> None:
    filled(tmp_path / "s", row("a", failed=True))
    [first] = (tmp_path / "s").glob("rows-*.parquet")
    filled(tmp_path / "s", row("a"))
    assert not first.exists()
    assert in_parquet(tmp_path / "s") == [("a", False)]


def test_a_merge_takes_what_is_not_there_and_says_how_many(tmp_path: Path) -> None:
    filled(tmp_path / "one", row("a"), row("b"))
    filled(tmp_path / "other", row("b", failed=True), row("c"))
    with Store.open(tmp_path / "one") as store:
        assert store.merge(Store.open(tmp_path / "other")) == 1
        assert store.merge(Store.open(tmp_path / "other")) == 0
    assert found(tmp_path / "one") == {"a": False, "b": False, "c": False}


def test_a_row_is_found_by_the_beginning_of_its_key_if_there_is_one_such(tmp_path: Path) -> None:
    store = Store.open(filled(tmp_path / "s", row("abc"), row("abz"), row("x")))
    assert store.row("abz")["key"] == "abz"
    assert store.row("x")["e2e_mean_s"] == 1.5
    for beginning, count in (("ab", 2), ("q", 0)):
        with pytest.raises(InputError, match=f"{count} runs have a key"):
            store.row(beginning)


def test_a_store_is_made_in_no_folder_that_is_in_use_and_read_in_its_version_alone(tmp_path: Path) -> None:
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="exists already"):
        Store.open(tmp_path / "used", create=True)
    folder = filled(tmp_path / "s", row("a"))
    (folder / MARK).write_text(json.dumps({"version": 2}))
    with pytest.raises(InputError, match="version 2"):
        Store.open(folder)


# -- traces


@pytest.fixture(scope="module")
def run() -> Trace:
    work = workload([0.0, 0.1, 0.2, 0.3], [3, 2, 4, 5], prompt_tokens=[8, 9, 10, 11])
    return simulate(Scenario(profile=profile()), work, record_steps=True)


def test_a_digest_names_all_that_a_trace_holds(run: Trace, tmp_path: Path) -> None:
    assert run.steps is not None
    telemetry = pd.DataFrame({column.name: [0.0, 1.0] for column in SAMPLED})
    others = [
        run,
        replace(run, steps=run.steps.assign(duration_s=run.steps["duration_s"] * 1.01)),
        replace(run, steps=None),
        replace(run, telemetry=telemetry),
        replace(run, header=run.header.changed(seed=5)),
        replace(run, requests=run.requests.assign(tenant="b")),
    ]
    assert len({one.digest for one in others}) == len(others)
    written = replace(run, telemetry=telemetry).write(tmp_path / "t")
    back = read(written)
    assert back.digest == others[3].digest
    assert back.telemetry is not None
    assert back.telemetry.equals(telemetry)


def test_a_journal_adds_up_its_lines_on_the_clock_of_the_run(run: Trace, tmp_path: Path) -> None:
    offered = run.requests[[column.name for column in OFFERED]]
    journal = Journal(tmp_path / "t", run.header.changed(kind="captured", ended="recording"), offered)
    journal.begin(100.0)
    journal.note(0, {"arrival_s": 0.25, "dispatch_s": 0.5})
    journal.note(1, {"arrival_s": 0.75})
    journal.note(0, {"finish_s": 2.0, "finish_reason": "stop", "output_tokens": 3, "first_token_s": 1.0})
    sampled = [column.name for column in SAMPLED]
    journal.sample(sampled, [99.0, 0.1, 0.1, 0.0, 0.0])
    journal.sample(sampled, [101.5, 0.5, 0.4, 0.1, 0.0])
    values = ",".join(
        "0" if column.name in ("decode_requests", "context_tokens") else "1" for column in STEP_COLUMNS[2:]
    )
    journal.steps_file.write_text(",".join(column.name for column in STEP_COLUMNS) + f"\n102.0,0.25,{values}\n")
    with (tmp_path / "t" / "requests.jsonl").open("a") as file:
        file.write('{"row": 1, "dispatch_s": 0.')  # torn
    assert is_being_recorded(tmp_path / "t")
    trace = read(tmp_path / "t")
    assert list(trace.requests["request_id"]) == ["r0", "r1"]
    assert trace.requests["dispatch_s"].tolist() == pytest.approx([0.5, math.nan], nan_ok=True)
    assert trace.requests["finish_s"].tolist() == pytest.approx([2.0, math.nan], nan_ok=True)
    assert trace.telemetry is not None
    assert trace.telemetry["time_s"].tolist() == [1.5]
    assert trace.steps is not None
    assert trace.steps["start_s"].tolist() == [2.0]
    whole = run.header.changed(kind="captured")
    with pytest.raises(TraceError, match="request 'r1': finish_reason is empty"):
        journal.close(whole, trace.tables)
    assert (tmp_path / "t" / "requests.jsonl").is_file()
    journal.close(whole, run.tables)
    assert not is_being_recorded(tmp_path / "t")
    assert sorted(file.name for file in (tmp_path / "t").iterdir()) == [
        "header.json",
        "requests.parquet",
        "steps.parquet",
    ]


def test_a_journal_stays_where_its_trace_cannot_be_written(
    run: Trace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offered = run.requests[[column.name for column in OFFERED]]
    journal = Journal(tmp_path / "t", run.header.changed(kind="captured", ended="recording"), offered)
    journal.begin(0.0)
    journal.note(0, {"arrival_s": 0.25})

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("driftsim.trace.journal.write_tables", full)
        with pytest.raises(OSError, match="the journal of the run is kept"):
            journal.close(run.header.changed(kind="captured"), run.tables)
    assert list(read(tmp_path / "t").requests["arrival_s"]) == [0.25]


def broken(run: Trace, place: int, **values: Any) -> Trace:
    table = run.requests.copy()
    for name, value in values.items():
        table.loc[place, name] = value
    return replace(run, requests=table)


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"request_id": "r0"}, "duplicate id"),
        ({"prompt_tokens": 0}, "prompt_tokens"),
        ({"output_tokens": 65}, "more than its max_tokens"),
        ({"output_tokens": 0}, "at least 1"),
        ({"output_tokens": -1, "finish_reason": "error"}, "negative"),
        ({"dispatch_s": 0.15}, "dispatch_s"),  # before its arrival
        ({"dispatch_s": np.nan, "queued_s": 0.1}, "queued_s"),  # before its arrival, with nothing in between
        ({"finish_s": 0.2}, "tokens after the finish"),
        ({"finish_s": np.nan}, "has a finish time"),
        ({"prompt_tokens": 512, "max_tokens": 600}, "does not fit max_model_len"),
        ({"prompt_tokens": 508, "max_tokens": 600, "output_tokens": 5}, "with its prompt more than max_model_len"),
        ({"dispatch_index": 1}, "duplicate index"),
        ({"arrival_s": np.nan}, "arrival"),
    ],
)
def test_a_request_that_cannot_be_is_named_with_its_row(values: dict[str, Any], word: str, run: Trace) -> None:
    with pytest.raises(TraceError, match=word) as raised:
        broken(run, 2, **values).check("t")
    assert "row 2," in str(raised.value)


def test_of_several_bad_rows_the_first_is_named_and_the_others_are_counted(run: Trace) -> None:
    table = run.requests.assign(prompt_tokens=[8, 0, 0, 0])
    with pytest.raises(TraceError, match=r"row 1, .*\(and 2 more rows\)"):
        replace(run, requests=table).check("t")


def test_what_just_fits_is_no_error(run: Trace) -> None:
    broken(run, 2, prompt_tokens=511, output_tokens=1).check("t")
    broken(run, 2, prompt_tokens=508, output_tokens=4, max_tokens=4).check("t")
    broken(run, 2, finish_reason="error", finish_s=np.nan, output_tokens=0).check("t")


@pytest.mark.parametrize(
    ("values", "word"),
    [({"start_s": 0.0}, "goes backwards"), ({"duration_s": 0.0}, "above 0"), ({"context_tokens": -1}, "not negative")],
)
def test_a_step_that_cannot_be_is_named(values: dict[str, Any], word: str, run: Trace) -> None:
    assert run.steps is not None
    steps = run.steps.copy()
    for name, value in values.items():
        steps.loc[3, name] = value
    with pytest.raises(TraceError, match=f"row 3: .*{word}"):
        replace(run, steps=steps).check("t")


def test_neither_a_write_nor_a_read_lets_through_what_cannot_be(run: Trace, tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="duplicate id"):
        broken(run, 2, request_id="r0").write(tmp_path / "t")
    run.write(tmp_path / "t")
    broken(run, 2, request_id="r0").requests.to_parquet(tmp_path / "t" / "requests.parquet")
    with pytest.raises(TraceError, match="duplicate id"):
        read(tmp_path / "t")


def test_another_schema_is_not_read(run: Trace, tmp_path: Path) -> None:
    header = run.write(tmp_path / "t") / "header.json"
    header.write_text(header.read_text().replace('"schema_version": 1', '"schema_version": 2'))
    with pytest.raises(TraceError, match="schema_version is 2, this driftsim reads 1"):
        read(tmp_path / "t")


def test_a_phase_has_as_many_requests_as_the_header_says(run: Trace) -> None:
    fewer = replace(run, requests=run.requests.head(3))
    with pytest.raises(TraceError, match="counts 4 requests"):
        fewer.check("t")
    replace(fewer, header=run.header.changed(ended="interrupted", ended_why="stopped")).check("t")


def test_no_simulation_replaces_a_recorded_run(run: Trace, tmp_path: Path) -> None:
    replace(run, header=run.header.changed(kind="captured")).write(tmp_path / "t")
    with pytest.raises(TraceError, match="holds a captured run"):
        run.write(tmp_path / "t", overwrite=True)
    run.write(tmp_path / "own")
    run.write(tmp_path / "own", overwrite=True)


def test_only_ends_by_themselves_or_at_the_cap_are_finished(run: Trace) -> None:
    reasons = pd.Series(["stop", "length", "abort", "error"], dtype=object)
    assert list(replace(run, requests=run.requests.assign(finish_reason=reasons)).finished["request_id"]) == [
        "r0",
        "r1",
    ]
