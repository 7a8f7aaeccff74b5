"""What is recorded stays recorded: a kill, a torn line or a full disk leaves a readable trace."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from driftsim.errors import TraceError
from driftsim.live.plan import CapturePlan
from driftsim.live.recorder import Progress, record
from driftsim.testing import Echo
from driftsim.trace import trace as traces
from driftsim.trace.schema import JOURNAL_FILES
from driftsim.trace.trace import Trace
from driftsim.workloads.replay import replay
from tests.strategies import workload

RUN = """
import asyncio, resource, sys
from driftsim.live.plan import CapturePlan
from driftsim.live.recorder import record
from driftsim.testing import Echo
from tests.strategies import workload

class Loud(Echo):
    def __setattr__(self, name, value):
        if name == "on_outcome":
            put = value
            def value(outcome):
                put(outcome)
        super().__setattr__(name, value)

if len(sys.argv) > 2:
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), -1))
times = [0.002 * n for n in range(400)] + ([] if len(sys.argv) > 2 else [3600.0])  # one whom a kill comes before
made = workload(times, [1] * len(times), prompt_tokens=[1 + n % 7 for n in range(len(times))])
def tell(now):
    print(now.done, flush=True)
trace = asyncio.run(record(made, Loud(), CapturePlan(), sys.argv[1], tell))
print(trace.header.ended, trace.header.ended_why, file=sys.stderr)
"""


def start(folder: Path, *limit: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", RUN, str(folder), *limit]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("turn", range(4))
def test_a_kill_loses_no_finished_request(turn: int, tmp_path: Path) -> None:
    run = start(tmp_path / "t")
    assert run.stdout is not None
    enough, done = random.Random(turn).randint(20, 400), 0
    while done < enough:
        line = run.stdout.readline()
        assert line, "it ended too early"
        done = int(line)
    run.kill()
    told, _ = run.communicate()
    done = max([done, *map(int, told.split())])
    trace = traces.read(tmp_path / "t")
    assert trace.header.ended == "recording"
    assert trace.requests["finish_reason"].notna().sum() >= done
    assert len(trace.requests) >= done
    whole = replay(trace)
    assert any("recording" in note for note in whole.notes)


def test_a_run_that_fills_the_disk_keeps_what_was_written(tmp_path: Path) -> None:
    run = start(tmp_path / "t", "40000")  # bytes that a file may have
    _, error = run.communicate(timeout=60)
    assert run.returncode == 0, error
    trace = traces.read(tmp_path / "t")
    assert trace.header.ended == "failed"
    assert "File too large" in trace.header.ended_why
    assert 0 < trace.requests["finish_reason"].notna().sum() < 400


def test_a_clean_end_leaves_parquet_and_no_journal(tmp_path: Path) -> None:
    trace = asyncio.run(record(workload([0.0, 0.01], [1, 1]), Echo(), CapturePlan(), tmp_path / "t"))
    names = {file.name for file in (tmp_path / "t").iterdir()}
    assert names == {"header.json", "requests.parquet", "telemetry.parquet"}
    assert traces.read(tmp_path / "t").requests.equals(trace.requests)


def test_the_journal_says_what_the_trace_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(folder: Path, trace: Trace) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("driftsim.trace.journal.write_tables", lambda tables, folder: never(folder, tables))
    made = workload([0.0, 0.01, 0.02], [1, 1, 1], prompt_tokens=[9, 3, 5], max_tokens=[64, 13, 64])
    kept: list[Trace] = []
    with pytest.raises(OSError, match="the journal of the run is kept"):
        kept.append(asyncio.run(record(made, Echo(), CapturePlan(policy="sjf", estimator="ema"), tmp_path / "t")))
    monkeypatch.undo()
    journal = traces.read(tmp_path / "t")
    assert list(journal.requests["finish_reason"]) == ["stop", "error", "stop"]
    assert journal.requests["budget"].notna().all()
    assert journal.telemetry is not None
    assert not (tmp_path / "t" / "requests.parquet").exists()
    journal.write(tmp_path / "again")
    assert traces.read(tmp_path / "again").requests.equals(journal.requests)


def test_a_torn_last_line_is_ignored_and_a_broken_one_before_it_is_named(tmp_path: Path) -> None:
    run = start(tmp_path / "t")
    assert run.stdout is not None
    for _ in range(20):
        run.stdout.readline()
    run.send_signal(signal.SIGKILL)
    run.communicate()
    file = tmp_path / "t" / "requests.jsonl"
    whole = traces.read(tmp_path / "t").requests["finish_reason"].notna().sum()
    file.write_text(file.read_text() + '{"row": 3, "finish_rea')
    assert traces.read(tmp_path / "t").requests["finish_reason"].notna().sum() == whole
    file.write_text(file.read_text() + "\n")
    with pytest.raises(TraceError, match=r"requests.jsonl: line \d+ is not a line of a journal"):
        traces.read(tmp_path / "t")


def test_a_journal_without_one_of_its_files_is_refused(tmp_path: Path) -> None:
    run = start(tmp_path / "t")
    assert run.stdout is not None
    run.stdout.readline()
    run.kill()
    run.communicate()
    (tmp_path / "t" / "offered.parquet").unlink()
    with pytest.raises(TraceError, match="the journal is incomplete"):
        traces.read(tmp_path / "t")


def test_a_reader_can_watch_a_run_from_begin_to_end(tmp_path: Path) -> None:
    seen: list[int] = []
    problems: list[Exception] = []
    stop = threading.Event()

    def watch() -> None:
        while not stop.is_set():
            if (tmp_path / "t" / "header.json").exists():
                try:
                    seen.append(len(traces.read(tmp_path / "t").requests))
                except Exception as error:
                    problems.append(error)

    watcher = threading.Thread(target=watch)
    watcher.start()
    standings: list[Progress] = []
    made = workload([0.01 * n for n in range(40)], [1] * 40)
    asyncio.run(record(made, Echo(), CapturePlan(), tmp_path / "t", standings.append))
    stop.set()
    watcher.join()
    assert not problems
    assert seen == sorted(seen)
    assert seen[-1] == 40 or len(seen) > 1
    assert standings[-1].done == 40
    assert all(os.path.exists(tmp_path / "t" / name) is False for name in JOURNAL_FILES)
