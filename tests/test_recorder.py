"""The recorder, before a small real-time engine that keeps the protocol; real vLLM is in tests/live."""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path

import pandas as pd
import pytest

from driftsim.live.engine import Outcome
from driftsim.live.recorder import CapturePlan, Progress, record
from driftsim.live.telemetry import Monitor
from driftsim.request import Job
from driftsim.scheduling.estimators import Static
from driftsim.testing import Echo
from driftsim.trace import trace as traces
from driftsim.trace.header import Phase
from driftsim.trace.trace import Trace
from driftsim.workloads.workload import Workload
from experiments import capture_overhead
from tests.strategies import workload

IN_TURN = (Phase(name="one", requests=1), Phase(name="two", kind="after-drain", requests=1, pause_s=0.01))


def recorded(made: Workload, echo: Echo, **plan: object) -> Trace:
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(record(made, echo, CapturePlan(**plan), Path(folder) / "t"))  # type: ignore[arg-type]


def run(made: Workload, **plan: object) -> tuple[Trace, Echo]:
    echo = Echo()
    return recorded(made, echo, **plan), echo


def backlog(prompts: list[int], **columns: object) -> Workload:
    phases = (Phase(name="only", kind="backlog", requests=len(prompts)),)
    made = workload([0.0] * len(prompts), [1] * len(prompts), phases, prompt_tokens=prompts, **columns)
    made.table[["output_tokens", "output_words"]] = pd.NA
    return made


def test_a_capture_is_a_valid_trace_with_the_clocks_in_order() -> None:
    trace, _ = run(workload([0.0, 0.02, 0.03], [1, 1, 1], prompt_tokens=[9, 5, 7]))
    trace.check("captured")
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
    learned, _ = run(workload([0.0, 0.0], [1, 1], IN_TURN, prompt_tokens=[64, 64]), estimator="ema")
    assert list(trace.requests["bias"]) == [1.0, 1.0, 1.0]  # all admitted before anything was learned
    assert learned.requests["bias"].tolist() == [1.0, 1.0]  # measured 64 / 64
    shorter, _ = run(workload([0.0, 0.0], [1, 1], IN_TURN, prompt_tokens=[32, 64]), estimator="ema")
    assert shorter.requests["bias"].tolist() == [1.0, pytest.approx(0.95)]


class Watched(Static):
    """An estimator that writes down what it is told of finished requests: length, and whether it was cut off."""

    told: list[tuple[int, bool]] = []

    def observe(self, job: Job, output_length: int, censored: bool, now: float) -> None:
        self.told.append((output_length, censored))


class Ends(Echo):
    """Ends the requests for these reasons in turn, each with output tokens."""

    reasons = ("stop", "error", "length", "rejected", "abort", "stop")

    def submit(self, job: Job, true_length: int | None) -> None:
        now, tokens = time.monotonic(), 10 + job.index
        self.on_outcome(Outcome(job, self.reasons[job.index], now, now, now, now, tokens, tokens, 0))


def test_a_run_learns_from_every_output_but_an_errors_and_is_told_which_were_cut_off() -> None:
    Watched.told = []
    made = backlog([5] * len(Ends.reasons))
    trace = recorded(made, Ends(), estimator=f"{__name__}:Watched", max_in_flight=1)
    assert list(trace.requests["finish_reason"]) == list(Ends.reasons)
    assert Watched.told == [(10, False), (12, True), (14, True), (15, False)]


def test_a_failed_request_is_a_row_and_the_run_goes_on() -> None:
    trace, _ = run(workload([0.0, 0.0, 0.0], [1, 1, 1], max_tokens=[50, 13, 50]))
    assert list(trace.requests["finish_reason"]) == ["stop", "error", "stop"]
    assert trace.requests["error"][1] == "RuntimeError: unlucky"


def test_a_phase_after_drain_waits_for_the_last_one_to_leave() -> None:
    phases = (Phase(name="one", requests=1), Phase(name="two", kind="after-drain", requests=1, pause_s=0.05))
    trace, _ = run(workload([0.0, 0.0], [1, 1], phases, prompt_tokens=[30, 5]))
    assert trace.requests["arrival_s"][1] >= trace.requests["finish_s"][0] + 0.05
    assert trace.header.workload.phases[1].start_s == trace.requests["arrival_s"][1]


def test_a_run_has_a_sample_of_its_end_however_late_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    read = Monitor._reading

    def late(monitor: Monitor) -> tuple[float, float, float, float]:
        time.sleep(0.3)
        return read(monitor)

    monkeypatch.setattr(Monitor, "_reading", late)
    trace, _ = run(workload([0.0], [1], prompt_tokens=[5]))
    assert trace.telemetry is not None
    assert trace.telemetry["time_s"].max() > trace.requests["finish_s"].max()


def test_a_run_that_is_cancelled_keeps_what_was_recorded(tmp_path: Path) -> None:
    async def cancelled() -> Trace:
        phases = (Phase(name="now", requests=2), Phase(name="never", kind="after-drain", requests=1, pause_s=60.0))
        made = workload([0.0, 0.0, 0.0], [1, 1, 1], phases, prompt_tokens=[5, 9, 5])
        both = asyncio.Event()

        def tell(standing: Progress) -> None:
            if standing.done == 2:
                both.set()

        task = asyncio.create_task(record(made, Echo(), CapturePlan(), tmp_path / "t", tell))
        await both.wait()
        task.cancel()
        return await task

    trace = asyncio.run(cancelled())
    trace.check("cut short")
    assert trace.header.ended == "interrupted"
    assert list(trace.requests["finish_reason"]) == ["stop", "stop"]


def test_a_run_whose_engine_breaks_keeps_what_was_recorded(tmp_path: Path) -> None:
    class Breaks(Echo):
        def submit(self, job: Job, true_length: int | None) -> None:
            if job.index == 1:
                raise RuntimeError("the engine core is gone")
            super().submit(job, true_length)

    made = workload([0.0, 0.0], [1, 1], IN_TURN, prompt_tokens=[5, 5])
    trace = asyncio.run(record(made, Breaks(), CapturePlan(), tmp_path / "t"))
    assert trace.header.ended == "failed"
    assert "the engine core is gone" in trace.header.ended_why
    back = traces.read(tmp_path / "t")
    assert list(back.requests["finish_reason"]) == ["stop", None]


def test_a_run_ends_when_its_engine_is_gone_and_its_requests_say_so(tmp_path: Path) -> None:
    class Dies(Echo):
        def submit(self, job: Job, true_length: int | None) -> None:
            if job.index == 2:
                self.failure = "the engine core died"
            super().submit(job, true_length)

        async def _serve(self, job: Job, true_length: int | None) -> None:
            while job.index == 1 and self.failure is None:  # it is inside when the engine dies
                await asyncio.sleep(0.001)
            await super()._serve(job, true_length)

    trace = asyncio.run(record(backlog([5, 30, 30, 30, 30]), Dies(), CapturePlan(), tmp_path / "t"))
    assert (trace.header.ended, trace.header.ended_why) == ("failed", "the engine core died")
    assert list(trace.requests["finish_reason"]) == ["stop", "error", "error", None, None]


def test_forced_lengths_end_as_the_replayed_run_did() -> None:
    made = workload([0.0, 0.0], [7, 9], stops=[True, False])
    trace, _ = run(made, force_lengths=True)
    assert list(trace.requests["output_tokens"]) == [7, 9]
    assert list(trace.requests["finish_reason"]) == ["stop", "length"]
    assert list(trace.requests["output_words"]) == list(made.table["output_words"])
    assert trace.header.engine_arguments["force_lengths"] is True


def test_lengths_that_nobody_knows_cannot_be_forced(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="replay a trace"):
        asyncio.run(record(backlog([5]), Echo(), CapturePlan(force_lengths=True), tmp_path / "t"))
    assert not (tmp_path / "t").exists()


def test_stock_has_no_limit_in_flight() -> None:
    trace, echo = run(backlog([10] * 9), policy="stock")
    assert echo.most == 9
    assert trace.header.max_in_flight is None


def test_the_engines_count_of_a_prompt_is_the_one_recorded() -> None:
    class Counts(Echo):
        def submit(self, job: Job, true_length: int | None) -> None:
            self.tasks.append(asyncio.get_running_loop().create_task(self.answer(job)))

        async def answer(self, job: Job) -> None:
            now, told = time.monotonic(), job.request.prompt_tokens + 30
            self.on_outcome(Outcome(job, "stop", now, now, now, now, 3, 2, 0, prompt_tokens=told))

    made = backlog([10, 20])
    trace = recorded(made, Counts())
    assert list(trace.requests["prompt_tokens"]) == [40, 50]
    assert any("2 of 2 requests" in note for note in trace.header.notes)


@pytest.mark.nightly
@pytest.mark.parametrize("policy", ["fifo", "sjf", "weighted"])
def test_the_dispatcher_takes_at_most_200_microseconds_a_request(policy: str) -> None:
    assert min(capture_overhead.dispatcher_us(policy, 5000) for _ in range(3)) <= 200


@pytest.mark.nightly
def test_the_recorder_grows_by_less_than_a_kilobyte_a_request() -> None:
    small, large = (capture_overhead.in_a_process(f"recorder({count})")["mb"] for count in (1_000, 61_000))
    assert large - small < 60  # MB
