"""What a recorder writes down, before an engine that does as it was told: every column, limit, end and note."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from driftsim.live.engine import Outcome
from driftsim.live.plan import CapturePlan
from driftsim.live.recorder import Progress, record
from driftsim.live.resume import CaptureRun
from driftsim.live.session import run_session
from driftsim.live.telemetry import Monitor
from driftsim.request import Job
from driftsim.scheduling.admission import Admission
from driftsim.scheduling.estimators import Static
from driftsim.scheduling.names import Unit
from driftsim.testing import Echo
from driftsim.trace.header import Phase, Turn
from driftsim.trace.schema import STEP_COLUMNS
from driftsim.trace.trace import Trace, read
from driftsim.workloads.workload import Workload
from tests.strategies import engine, workload


class Scripted(Echo):
    """Ends each job after the seconds that ``script`` gives for its row, with what ``outcome`` says of it."""

    settings = engine(max_num_seqs=4)
    notes: tuple[str, ...] = ("a note of the engine",)

    def __init__(self, script: dict[int, float] | None = None, **outcome: Any) -> None:
        super().__init__()
        self.script, self.outcome = script or {}, outcome
        self.sent: list[tuple[int, int | None]] = []

    def submit(self, job: Job, true_length: int | None) -> None:
        self.sent.append((job.index, true_length))
        self.inside += 1
        self.most = max(self.most, self.inside)
        self.tasks.append(asyncio.get_running_loop().create_task(self._end(job)))

    async def _end(self, job: Job) -> None:
        begin = time.monotonic()
        await asyncio.sleep(self.script.get(job.index, 0.002))
        self.inside -= 1
        plain: dict[str, Any] = {
            "finish_reason": "stop", "queued": begin + 0.1, "scheduled": begin + 0.2, "first_token": begin + 0.4,
            "finish": begin + 0.8, "output_tokens": 7, "output_words": 3, "preemptions": 2,
        }  # fmt: skip
        told = {name: value(job) if callable(value) else value for name, value in self.outcome.items()}
        self.on_outcome(Outcome(job, **plain | told))


class Learner(Static):
    """Notes what it is told."""

    told: list[tuple[str, int, bool]] = []

    def observe(self, job: Job, output_length: int, censored: bool, now: float) -> None:
        self.told.append((job.request.id, output_length, censored))


@pytest.fixture(autouse=True)
def _nothing_told() -> None:
    Learner.told = []


def at_once(count: int, **columns: Any) -> Workload:
    phases = (Phase(name="only", kind="backlog", requests=count),)
    return workload([0.0] * count, columns.pop("outputs", [7] * count), phases, **columns)


def recorded(
    made: Workload, live: Scripted, folder: Path, told: Callable[[Progress], None] | None = None, **plan: Any
) -> Trace:
    run = record(made, live, CapturePlan(**plan), folder / "t", told or (lambda standing: None))
    return asyncio.run(asyncio.wait_for(run, 60))  # an end that nobody hears of is no hang


def test_every_column_is_the_one_that_the_engine_told_on_the_clock_of_the_run(tmp_path: Path) -> None:
    live = Scripted(prompt_tokens=lambda job: 50 + job.index, error=lambda job: "odd" if job.index else None)
    made = workload([0.0, 0.05], [9, 9])
    trace = recorded(made, live, tmp_path, seed=4, max_in_flight=3, turn=Turn(round=2, position=1, order="latin"))
    rows = trace.requests
    assert rows["arrival_s"].tolist() == [0.0, 0.05]  # when they were due
    assert (rows["dispatch_s"] >= rows["arrival_s"]).all()
    assert rows["dispatch_index"].tolist() == [0, 1]
    for name, after in (("scheduled_s", 0.1), ("first_token_s", 0.3), ("finish_s", 0.7)):
        assert (rows[name] - rows["queued_s"]).tolist() == pytest.approx([after] * 2)
    assert (rows["queued_s"] - rows["dispatch_s"] - 0.1).abs().max() < 5  # of this run's clock, not of the machine's
    told = {"output_tokens": [7, 7], "output_words": [3, 3], "preemptions": [2, 2], "prompt_tokens": [50, 51]}
    assert {name: rows[name].tolist() for name in told} == told
    assert [None if text is None else str(text) for text in rows["error"]] == [None, "odd"]
    header = trace.header
    assert (header.ended, header.max_in_flight, header.seed) == ("complete", 3, 4)
    assert header.turn == Turn(round=2, position=1, order="latin")
    assert "a note of the engine" in header.notes
    assert any("other prompt lengths than admission did in 2 of 2 requests" in note for note in header.notes)
    assert header.engine_arguments == {}
    assert live.sent == [(0, None), (1, None)]


def test_lengths_are_learned_in_the_unit_of_the_accounting_and_cuts_are_told(tmp_path: Path) -> None:
    reasons = ("stop", "length", "abort", "error", "rejected")
    made = at_once(5)
    units: tuple[Unit, ...] = ("tokenizer", "whitespace")
    for place, unit in enumerate(units):
        Learner.told = []
        recorded(made, Scripted(finish_reason=lambda job: reasons[job.index]), tmp_path / unit,
                 admission=Admission(accounting=unit), estimator=f"{__name__}:Learner", max_in_flight=1)  # fmt: skip
        length = (7, 3)[place]
        assert Learner.told == [("r0", length, False), ("r1", length, True), ("r2", length, True)]


def test_a_tier_s_limit_holds_in_a_capture(tmp_path: Path) -> None:
    made = at_once(6, tier=["premium", "batch"] * 3)
    inside: list[int] = []

    class Watching(Scripted):
        def submit(self, job: Job, true_length: int | None) -> None:
            super().submit(job, true_length)
            inside.append(sum(made.table["tier"][row] == "batch" for row, _ in self.sent) - self.left)

        left = 0

        async def _end(self, job: Job) -> None:
            await super()._end(job)
            self.left += made.table["tier"][job.index] == "batch"

    live = Watching()
    recorded(made, live, tmp_path, tiers=[{"name": "premium"}, {"name": "batch", "max_in_flight": 1}])
    assert max(inside) == 1
    assert live.most > 1


def test_an_engine_that_is_gone_gets_nothing_more_and_what_is_inside_is_waited_for(tmp_path: Path) -> None:
    class Dying(Scripted):
        def submit(self, job: Job, true_length: int | None) -> None:
            super().submit(job, true_length)
            if len(self.sent) == 2:
                self.failure = "it died"

    live = Dying({0: 0.02, 1: 0.15}, finish_reason=lambda job: "stop" if job.index else "error")
    phases = (
        Phase(name="now", kind="backlog", requests=4),
        Phase(name="late", kind="after-drain", requests=1, pause_s=9.0),
    )
    trace = recorded(workload([0.0] * 5, [7] * 5, phases), live, tmp_path, max_in_flight=2)
    assert [row for row, _ in live.sent] == [0, 1]
    assert (trace.header.ended, trace.header.ended_why) == ("failed", "it died")
    assert list(trace.requests["finish_reason"]) == ["error", "stop", None, None]  # the fifth never arrived
    assert read(tmp_path / "t").header.ended == "failed"


def test_who_ends_in_one_step_is_learned_from_in_order_of_dispatch(tmp_path: Path) -> None:
    class Together(Scripted):
        """Ends three at once, the last first, as a step of an engine may."""

        held: list[Job] = []

        def submit(self, job: Job, true_length: int | None) -> None:
            self.sent.append((job.index, true_length))
            self.held.append(job)
            if len(self.held) == 3:
                for own in reversed(self.held):
                    now = time.monotonic()
                    self.on_outcome(Outcome(own, "stop", now, now, now, now, 7, 3, 0))

    recorded(at_once(3), Together(), tmp_path, estimator=f"{__name__}:Learner")
    assert [name for name, _, _ in Learner.told] == ["r0", "r1", "r2"]


def test_forced_outputs_are_sent_and_end_as_the_workload_knows(tmp_path: Path) -> None:
    made = at_once(4, outputs=[7, 9, 7, 7], output_words=[5, 6, 4, 4], stops=[True, True, False, True])
    live = Scripted(finish_reason=lambda job: "error" if job.index == 3 else "length")
    trace = recorded(made, live, tmp_path, force_lengths=True, max_in_flight=1)
    assert live.sent == [(0, 7), (1, 9), (2, 7), (3, 7)]
    assert list(trace.requests["finish_reason"]) == ["stop", "length", "length", "error"]  # the second is 2 short
    assert trace.requests["output_words"].tolist() == [5, 6, 4, 3]
    assert trace.header.engine_arguments == {"force_lengths": True}


def test_steps_that_an_engine_writes_are_part_of_the_trace_on_the_clock_of_the_run(tmp_path: Path) -> None:
    class Tells(Scripted):
        def trace_steps(self, file: Path) -> bool:
            self.file = file
            return True

        def submit(self, job: Job, true_length: int | None) -> None:
            super().submit(job, true_length)
            names = ",".join(column.name for column in STEP_COLUMNS)
            none = ("decode_requests", "context_tokens")
            values = ",".join("0" if column.name in none else "1" for column in STEP_COLUMNS[2:])
            begin = time.monotonic()
            self.file.write_text(
                f"{names}\n{begin - 999},0.5,{values}\n{begin},0.25,{values}\n{begin + 1},0.5,{values}\n"
            )

    trace = recorded(at_once(1), Tells(), tmp_path)
    assert trace.steps is not None
    assert trace.steps["duration_s"].tolist() == [0.25, 0.5]  # what was before the run is none of it
    assert trace.steps["start_s"][0] == pytest.approx(trace.requests["dispatch_s"][0], abs=0.5)
    assert read(tmp_path / "t").steps is not None


def test_a_run_waits_for_a_sample_of_its_end_and_a_broken_one_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends: list[float] = []

    async def noted(monitor: Monitor, end: float) -> None:
        ends.append(end)

    monkeypatch.setattr("driftsim.live.recorder._covered", noted)
    recorded(at_once(1), Scripted(), tmp_path / "whole")
    assert len(ends) == 1
    broken = Scripted(finish_reason="error")
    broken.failure = "it died"
    recorded(at_once(1), broken, tmp_path / "broken")
    assert len(ends) == 1


def test_progress_counts_what_is_done_inside_and_waiting(tmp_path: Path) -> None:
    seen: list[Progress] = []
    recorded(at_once(3), Scripted(output_tokens=lambda job: None if job.index == 1 else 7,
                                  finish_reason=lambda job: "error" if job.index == 1 else "stop"),
             tmp_path, seen.append, max_in_flight=1)  # fmt: skip
    assert {standing.done + standing.running + standing.waiting for standing in seen} == {3}
    assert (seen[-1].done, seen[-1].running, seen[-1].waiting, seen[-1].output_tokens) == (3, 0, 0, 14)


def test_a_phase_begins_when_the_one_before_has_left_and_the_header_says_when(tmp_path: Path) -> None:
    phases = (Phase(name="one", requests=2), Phase(name="two", kind="after-drain", requests=1, pause_s=0.03))
    trace = recorded(workload([0.0, 0.02, 0.0], [7] * 3, phases), Scripted({1: 0.05}), tmp_path)
    starts = [phase.start_s for phase in trace.header.workload.phases]
    assert starts == [0.0, trace.requests["arrival_s"][2]]
    assert trace.requests["arrival_s"][2] >= 0.02 + 0.05 + 0.03


def test_a_run_that_is_stopped_is_interrupted_and_keeps_what_it_had(tmp_path: Path) -> None:
    async def stopped() -> Trace:
        first = asyncio.Event()

        def told(standing: Progress) -> None:
            if standing.done:
                first.set()

        task = asyncio.create_task(record(at_once(2), Scripted({1: 60.0}), CapturePlan(), tmp_path / "t", told))
        await first.wait()
        task.cancel()
        return await task

    trace = asyncio.run(stopped())
    assert (trace.header.ended, trace.header.ended_why) == ("interrupted", "stopped from outside")
    assert list(trace.requests["finish_reason"]) == ["stop", None]


def test_a_session_starts_warms_up_records_and_lets_go(tmp_path: Path) -> None:
    told: list[str] = []

    class Logged(Scripted):
        async def start(self) -> None:
            told.append("started")

        async def warm_up(self) -> None:
            told.append("warm")

        async def shutdown(self) -> None:
            told.append("let go")

        def submit(self, job: Job, true_length: int | None) -> None:
            told.append(f"sent {job.request.id}")
            super().submit(job, true_length)

    runs = [CaptureRun(tmp_path / name, CapturePlan()) for name in ("a", "b")]
    made = asyncio.run(run_session(Logged(), lambda live: at_once(1), runs))
    assert told == ["started", "warm", "sent r0", "sent r0", "let go"]
    assert [trace.header.ended for trace in made] == ["complete", "complete"]
    told.clear()
    again = asyncio.run(run_session(Logged(), lambda live: at_once(1), runs))
    assert told == ["started", "warm", "let go"]  # both are there already
    assert len(again) == 2
