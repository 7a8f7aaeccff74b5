"""Several policies in turn: interleaved, each its own trace, and going on where it was cut short."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from driftsim.errors import TraceError
from driftsim.live.engine import LiveEngine
from driftsim.live.recorder import CapturePlan
from driftsim.live.session import CaptureRun, check_places, interleaved, run_session
from driftsim.request import Job
from driftsim.testing import Echo
from driftsim.trace import trace as traces
from driftsim.workloads.workload import Workload
from tests.strategies import workload

PLANS = [CapturePlan(policy="fifo", max_in_flight=1), CapturePlan(policy="sjf", max_in_flight=1)]


def made(engine: LiveEngine | None = None) -> Workload:
    return workload([0.0] * 4, [1] * 4, prompt_tokens=[9, 3, 7, 5])


def test_policies_take_turns(tmp_path: Path) -> None:
    order: list[str] = []
    runs = interleaved(tmp_path, PLANS, 2)
    echo = Echo()
    found = asyncio.run(run_session(echo, made, runs, lambda number, run, workload: order.append(run.folder.name)))
    assert order == ["fifo-1", "sjf-1", "fifo-2", "sjf-2"]
    assert echo.starts == 0  # started once, and shut down
    assert [list(trace.requests["dispatch_index"]) for trace in found[:2]] == [[0, 1, 2, 3], [3, 0, 2, 1]]
    for name in order:
        assert traces.read(tmp_path / name).header.ended == "complete"


def test_a_single_run_is_the_folder_itself(tmp_path: Path) -> None:
    assert [run.folder for run in interleaved(tmp_path / "t", PLANS[:1], 1)] == [tmp_path / "t"]


def test_a_session_goes_on_with_the_runs_that_are_missing(tmp_path: Path) -> None:
    runs = interleaved(tmp_path, PLANS, 2)
    asyncio.run(run_session(Echo(), made, runs[:3]))
    before = {run.folder: traces.digest(run.folder) for run in runs[:3]}
    check_places(runs)
    order: list[str] = []
    found = asyncio.run(run_session(Echo(), made, runs, lambda number, run, workload: order.append(run.folder.name)))
    assert order == ["sjf-2"]
    assert len(found) == 4
    assert {run.folder: traces.digest(run.folder) for run in runs[:3]} == before


def test_a_folder_with_another_trace_is_left_alone(tmp_path: Path) -> None:
    asyncio.run(run_session(Echo(), made, [CaptureRun(tmp_path / "t", PLANS[0])]))
    with pytest.raises(TraceError, match="holds another trace"):
        asyncio.run(run_session(Echo(), made, [CaptureRun(tmp_path / "t", PLANS[1])]))
    with pytest.raises(TraceError, match="holds a complete trace already"):
        check_places([CaptureRun(tmp_path / "t", PLANS[0])])
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_text("mine")
    with pytest.raises(TraceError, match="exists already"):
        check_places([CaptureRun(tmp_path / "other", PLANS[0])])


def test_a_session_ends_with_the_run_that_ends_badly(tmp_path: Path) -> None:
    class Dies(Echo):
        def submit(self, job: Job, true_length: int | None) -> None:
            self.failure = "the engine core died"
            super().submit(job, true_length)

    found = asyncio.run(run_session(Dies(), made, interleaved(tmp_path, PLANS, 2)))
    assert [trace.header.ended for trace in found] == ["failed"]
    assert not (tmp_path / "sjf-1").exists()
