"""Several policies in turn: in a balanced order, each its own trace, and going on where it was cut short."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from driftsim.errors import InputError, RunError, TraceError
from driftsim.live import recorder
from driftsim.live.engine import LiveEngine, Outcome
from driftsim.live.order import orders, williams
from driftsim.live.plan import CapturePlan
from driftsim.live.resume import CaptureRun, check_places
from driftsim.live.session import interleaved, run_session
from driftsim.request import Job
from driftsim.testing import Echo
from driftsim.trace import trace as traces
from driftsim.trace.header import Header, Turn
from driftsim.workloads.workload import Workload
from tests.strategies import workload

PLANS = [CapturePlan(policy="fifo", max_in_flight=1), CapturePlan(policy="sjf", max_in_flight=1)]


def made(engine: LiveEngine | None = None) -> Workload:
    return workload([0.0] * 4, [1] * 4, prompt_tokens=[9, 3, 7, 5])


def test_policies_take_turns(tmp_path: Path) -> None:
    order: list[str] = []
    runs = interleaved(tmp_path, PLANS, 2, "fixed")
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
    runs = interleaved(tmp_path, PLANS, 2, "fixed")
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
    for other in (PLANS[1], replace(PLANS[0], seed=PLANS[0].seed + 1)):
        with pytest.raises(TraceError, match="holds another trace"):
            asyncio.run(run_session(Echo(), made, [CaptureRun(tmp_path / "t", other)]))
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

    found = asyncio.run(run_session(Dies(), made, interleaved(tmp_path, PLANS, 2, "fixed")))
    assert [trace.header.ended for trace in found] == ["failed"]
    assert not (tmp_path / "sjf-1").exists()


@pytest.mark.parametrize("count", range(1, 9))
def test_every_policy_has_every_position_once_in_as_many_rounds(count: int) -> None:
    for seed in range(3):
        rounds = orders(count, count, "latin", seed)
        for numbers in (*rounds, *zip(*rounds, strict=True)):  # each round, and each position
            assert sorted(numbers) == list(range(count))


@pytest.mark.parametrize("count", range(2, 9))
def test_every_policy_follows_every_other_equally_often(count: int) -> None:
    whole = len(williams(count))
    assert whole == (count if count % 2 == 0 else 2 * count)
    follows = Counter(pair for row in orders(count, whole, "latin", 5) for pair in pairwise(row))
    assert len(follows) == count * (count - 1)
    assert set(follows.values()) == {1 if count % 2 == 0 else 2}


def test_orders_go_on_where_fewer_rounds_ended_and_hang_on_the_seed() -> None:
    for order in ("latin", "random"):
        assert orders(5, 12, order, 3)[:4] == orders(5, 4, order, 3)
        assert orders(5, 4, order, 3) != orders(5, 4, order, 4)
        assert all(sorted(row) == list(range(5)) for row in orders(5, 12, order, 3))
    assert orders(3, 2, "fixed", 9) == [[0, 1, 2], [0, 1, 2]]
    with pytest.raises(InputError, match="at least one policy"):
        orders(0, 1)


def test_each_trace_tells_its_round_and_position_and_older_headers_lack_them(tmp_path: Path) -> None:
    runs = interleaved(tmp_path, PLANS, 2, "latin", 1)
    found = asyncio.run(run_session(Echo(), made, runs))
    turns = [trace.header.turn for trace in found]
    assert turns == [
        Turn(round=turn, position=place, order="latin") for turn, place in ((1, 1), (1, 2), (2, 1), (2, 2))
    ]
    assert {run.folder.name.partition("-")[0] for run in runs[::2]} == {"fifo", "sjf"}  # both open a round
    assert traces.read(runs[3].folder).header.turn == turns[3]
    plain = found[0].header.changed(turn=None)
    assert "turn" not in plain.as_json()
    assert Header.model_validate_json(plain.as_json()) == plain


def test_a_session_does_not_go_on_in_another_order(tmp_path: Path) -> None:
    asyncio.run(run_session(Echo(), made, interleaved(tmp_path, PLANS, 2, "fixed")[:3]))
    seed = next(seed for seed in range(9) if orders(2, 1, "latin", seed) == [[1, 0]])
    with pytest.raises(TraceError, match=r"ran in position 2 \(fixed order\), not in position 1 \(latin order\)"):
        asyncio.run(run_session(Echo(), made, interleaved(tmp_path, PLANS, 2, "latin", seed)))


def test_a_trace_that_tells_no_order_is_of_the_fixed_one(tmp_path: Path) -> None:
    runs = interleaved(tmp_path, PLANS, 2, "fixed")
    for trace, run in zip(asyncio.run(run_session(Echo(), made, runs[:3])), runs, strict=False):
        (run.folder / "header.json").write_text(trace.header.changed(turn=None).as_json())
    with pytest.raises(TraceError, match="in an order that it does not tell"):
        asyncio.run(run_session(Echo(), made, interleaved(tmp_path, PLANS, 2, "random")))
    assert len(asyncio.run(run_session(Echo(), made, runs))) == 4


class Stopped(Echo):
    """An engine whose third answer comes in the very moment in which the run is stopped."""

    def submit(self, job: Job, true_length: int | None) -> None:
        """Serve ``job``; at the third, stop the run."""
        if job.index != 2:
            return super().submit(job, true_length)
        recording, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert recording is not None

        def both() -> None:
            now = time.monotonic()
            self.on_outcome(Outcome(job, "stop", first_token=now, finish=now, output_tokens=1))
            recording.cancel()

        loop.call_later(0.05, both)
        return None


def test_a_run_is_stopped_at_every_moment_and_keeps_what_had_ended(tmp_path: Path) -> None:
    run = CaptureRun(tmp_path / "t", CapturePlan(max_in_flight=1))
    trace = asyncio.run(run_session(Stopped(), made, [run]))[0]
    assert (trace.header.ended, trace.header.ended_why) == ("interrupted", "stopped from outside")
    assert traces.read(run.folder).requests["finish_reason"].tolist()[:3] == ["stop"] * 3


def test_a_session_that_is_stopped_after_a_run_keeps_it_and_goes_on_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def stopped(*_: object) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    runs = interleaved(tmp_path / "t", [CapturePlan(policy=name) for name in ("fifo", "sjf")], 1, "fixed")
    with monkeypatch.context() as patched:
        patched.setattr(recorder, "_covered", stopped)
        with pytest.raises(RunError, match="stopped after 1 of 2 runs; the same command goes on"):
            asyncio.run(run_session(Echo(), made, runs))
    assert traces.read(runs[0].folder).header.ended == "complete"
    assert not runs[1].folder.exists()
    assert len(asyncio.run(run_session(Echo(), made, runs))) == 2
