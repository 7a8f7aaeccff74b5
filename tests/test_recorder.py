"""The recorder, before a small real-time engine that keeps the protocol; real vLLM is in tests/live."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from driftsim import trace as traces
from driftsim.live.recorder import Outcome, Plan, record
from driftsim.request import Job
from driftsim.trace import Phase, Trace
from driftsim.workload import Workload
from tests.strategies import engine, workload


class Echo:
    """Serves any number of jobs at once, a millisecond a token; a job whose cap is 13 fails."""

    model = "echo"
    settings = engine(max_num_seqs=2)
    arguments: dict[str, object] = {}

    def __init__(self) -> None:
        self.on_outcome: Callable[[Outcome], None] = lambda outcome: None
        self.tasks: list[asyncio.Task[None]] = []
        self.inside = self.most = 0

    def room(self) -> int:
        return 100

    def submit(self, job: Job, true_length: int | None) -> None:
        self.tasks.append(asyncio.get_running_loop().create_task(self._serve(job)))

    def abort(self, job: Job) -> None:
        raise NotImplementedError

    def steps(self, start: float) -> pd.DataFrame | None:
        return None

    async def _serve(self, job: Job) -> None:
        self.inside += 1
        self.most = max(self.most, self.inside)
        queued = time.monotonic()
        await asyncio.sleep(0.001)
        first = time.monotonic()
        tokens = job.request.prompt_tokens
        await asyncio.sleep(0.001 * tokens)
        self.inside -= 1
        if job.request.max_tokens == 13:
            self.on_outcome(Outcome(job, "error", queued=queued, error="RuntimeError: unlucky"))
        else:
            self.on_outcome(Outcome(job, "stop", queued, queued, first, time.monotonic(), tokens, tokens))


def run(made: Workload, **plan: object) -> tuple[Trace, Echo]:
    echo = Echo()
    return asyncio.run(record(made, echo, Plan(**plan))), echo  # type: ignore[arg-type]


def backlog(prompts: list[int], **columns: object) -> Workload:
    phases = (Phase(name="only", kind="backlog", requests=len(prompts)),)
    made = workload([0.0] * len(prompts), [1] * len(prompts), phases, prompt_tokens=prompts, **columns)
    made.table[["output_tokens", "output_words"]] = pd.NA
    return made


def test_a_capture_is_a_valid_trace_with_the_clocks_in_order() -> None:
    trace, _ = run(workload([0.0, 0.02, 0.03], [1, 1, 1], prompt_tokens=[9, 5, 7]))
    traces.check(trace, "captured")
    assert trace.header.kind == "captured"
    assert list(trace.requests["output_tokens"]) == [9, 5, 7]
    assert list(trace.requests["arrival_s"]) == [0.0, 0.02, 0.03]
    assert trace.header.load is not None
    assert trace.steps is None


def test_the_policy_that_is_simulated_orders_the_live_engine() -> None:
    trace, echo = run(backlog([30, 5, 20, 10, 15]), policy="sjf", max_in_flight=1)
    assert list(trace.requests["dispatch_index"]) == [4, 0, 3, 1, 2]  # smallest total budget first
    assert echo.most == 1


def test_no_more_are_in_flight_than_the_engine_has_slots() -> None:
    trace, echo = run(backlog([10] * 9))
    assert echo.most == 2
    assert trace.header.max_in_flight == 2


def test_the_bias_learns_while_the_run_goes_on() -> None:
    trace, _ = run(backlog([40, 40, 40]), estimator="ema", max_in_flight=1, policy="fifo")
    made = workload([0.0, 0.15], [1, 1], prompt_tokens=[64, 64])
    learned, _ = run(made, estimator="ema")
    assert list(trace.requests["bias"]) == [1.0, 1.0, 1.0]  # all admitted before anything was learned
    assert learned.requests["bias"].tolist() == [1.0, 1.0]  # measured 64 / 64
    shorter, _ = run(workload([0.0, 0.15], [1, 1], prompt_tokens=[32, 64]), estimator="ema")
    assert shorter.requests["bias"].tolist() == [1.0, pytest.approx(0.95)]


def test_a_failed_request_is_a_row_and_the_run_goes_on() -> None:
    trace, _ = run(workload([0.0, 0.0, 0.0], [1, 1, 1], max_tokens=[50, 13, 50]))
    assert list(trace.requests["finish_reason"]) == ["stop", "error", "stop"]
    assert trace.requests["error"][1] == "RuntimeError: unlucky"


def test_a_phase_after_drain_waits_for_the_last_one_to_leave() -> None:
    phases = (Phase(name="one", requests=1), Phase(name="two", kind="after-drain", requests=1, pause_s=0.05))
    trace, _ = run(workload([0.0, 0.0], [1, 1], phases, prompt_tokens=[30, 5]))
    assert trace.requests["arrival_s"][1] >= trace.requests["finish_s"][0] + 0.05
    assert trace.header.workload.phases[1].start_s == trace.requests["arrival_s"][1]


def test_a_run_that_is_cancelled_keeps_what_was_recorded() -> None:
    async def cancelled() -> Trace:
        phases = (Phase(name="now", requests=2), Phase(name="never", kind="after-drain", requests=1, pause_s=60.0))
        made = workload([0.0, 0.0, 0.0], [1, 1, 1], phases, prompt_tokens=[5, 9, 5])
        task = asyncio.create_task(record(made, Echo(), Plan()))
        await asyncio.sleep(0.3)
        task.cancel()
        return await task

    trace = asyncio.run(cancelled())
    traces.check(trace, "cut short")
    assert trace.header.ended == "interrupted"
    assert list(trace.requests["finish_reason"]) == ["stop", "stop"]


def test_a_run_whose_engine_breaks_keeps_what_was_recorded(tmp_path: Path) -> None:
    class Breaks(Echo):
        def submit(self, job: Job, true_length: int | None) -> None:
            if job.index == 1:
                raise RuntimeError("the engine core is gone")
            super().submit(job, true_length)

    trace = asyncio.run(record(workload([0.0, 0.1], [1, 1], prompt_tokens=[5, 5]), Breaks(), Plan()))
    assert trace.header.ended == "failed"
    assert "the engine core is gone" in trace.header.ended_why
    back = traces.read(trace.write(tmp_path / "t"))
    assert list(back.requests["finish_reason"]) == ["stop", None]
