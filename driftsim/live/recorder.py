"""The recorder drives a workload through a live engine, with the simulator's own dispatcher, and makes the trace."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from driftsim.errors import InputError
from driftsim.live.engine import LiveEngine, Outcome
from driftsim.live.machine import hardware, software
from driftsim.live.sharing import Beginning, with_prefixes
from driftsim.live.telemetry import Monitor
from driftsim.request import Job
from driftsim.scheduling.dispatcher import Departure, Dispatcher, Dispatching
from driftsim.scheduling.estimators import make_estimator
from driftsim.scheduling.policies import check_order, make_policy
from driftsim.tiers import rules_in_force
from driftsim.trace.builder import RequestRows
from driftsim.trace.header import Header, Phase, Turn, WorkloadInfo
from driftsim.trace.journal import Journal
from driftsim.trace.marks import marked, odd_note
from driftsim.trace.schema import CENSORED, FINISHED, STEP_COLUMNS
from driftsim.trace.tables import read_lines, typed
from driftsim.trace.trace import Trace
from driftsim.version import __version__
from driftsim.workloads.arrivals import Arrivals
from driftsim.workloads.workload import Workload

LATEST_SAMPLE_S = 60.0  # after the end of a run; then it goes without


@dataclass(frozen=True, kw_only=True)
class CapturePlan(Dispatching):
    """How to run a workload; ``force_lengths``: every output is made exactly as long as the workload says. ``turn``:
    where the run stands in a capture of several, for its header."""

    force_lengths: bool = False
    turn: Turn | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run has come."""

    done: int
    running: int
    waiting: int
    output_tokens: int
    elapsed_s: float


async def record(
    workload: Workload,
    engine: LiveEngine,
    plan: CapturePlan,
    folder: Path | str,
    progress: Callable[[Progress], None] = lambda standing: None,
) -> Trace:
    """Run ``workload`` through ``engine`` (started, warm) and return what happened, which is then also in ``folder``.

    A run that is cancelled or fails, by the engine's end too, keeps what was recorded until then, and its header says
    so. Raises ``InputError`` for a plan that cannot be run and ``OSError`` if the folder cannot be written at the start
    or the end; a journal that was begun stays and is readable.
    """
    if plan.force_lengths and workload.table["output_tokens"].isna().any():
        raise InputError("lengths can be forced only where they are known: replay a trace")
    limit = plan.limit_of(engine.settings.max_num_seqs)
    rules = rules_in_force(plan.tiers or workload.tiers, workload.tier_names)
    check_order(plan.policy, rules, workload.tier_names, engine.settings.scheduling_policy)
    plan = replace(plan, tiers=plan.tiers or workload.tiers, admission=plan.admission.with_safety(rules))
    dispatcher = Dispatcher(
        make_policy(plan.policy, rules),
        make_estimator(plan.estimator, plan.admission, {}),
        plan.admission,
        limit,
        plan.tier_limits(rules),
    )
    cold = await engine.forget()
    header = _header(workload, engine, plan, limit)
    journal = Journal(folder, header.changed(ended="recording"), workload.offered)
    has_steps = engine.trace_steps(journal.steps_file)
    monitor = Monitor(engine.own_processes, journal.sample)
    with monitor:
        run = _Run(workload, engine, dispatcher, plan, journal, progress)
        ended, why = await run.drive_to_an_end()
        if ended == "complete":
            with suppress(asyncio.CancelledError):  # all is recorded; who stops the run now does without a sample
                await _covered(monitor, time.monotonic())
    start = run.start
    header = header.changed(load=monitor.load(start), workload=run.workload_info(), ended=ended, ended_why=why)
    requests, odd = marked(run.table(), header)
    requests, prefixes = with_prefixes(requests, run.beginnings, engine.settings.block_size, cold)
    notes = (*header.notes, *engine.notes, *run.notes(), *monitor.notes, *odd_note(odd))
    header = header.changed(engine=engine.settings, notes=notes, prefixes=prefixes)  # a server may have told more
    del run  # a long run's columns need not be there twice
    steps = read_lines(journal.steps_file, start) if has_steps else None
    recorded = None if steps is None else typed(steps.dropna(), STEP_COLUMNS, "steps")
    trace = Trace(header, requests, recorded, monitor.table(start))
    journal.close(trace.header, trace.tables)
    return trace


class EngineError(Exception):
    """The engine will serve nobody any more."""


async def _covered(monitor: Monitor, end: float) -> None:
    """Wait for a sample that was made after ``end`` (monotonic, s); a busy machine makes it late."""
    while monitor.latest < end and time.monotonic() < end + LATEST_SAMPLE_S:
        await asyncio.sleep(monitor.interval_s / 10)


class _Run:
    """One workload on its way through the engine."""

    def __init__(
        self,
        workload: Workload,
        engine: LiveEngine,
        dispatcher: Dispatcher,
        plan: CapturePlan,
        journal: Journal,
        progress: Callable[[Progress], None],
    ) -> None:
        self.workload = workload
        self.engine = engine
        self.dispatcher = dispatcher
        self.journal = journal
        self.progress = progress
        table = workload.table
        self.lengths = table["output_tokens"].astype(int).tolist() if plan.force_lengths else None
        words = table["output_words"].astype("Int64")
        known = zip(words, words.notna(), strict=True)
        self.words = [int(count) if told else None for count, told in known] if plan.force_lengths else None
        self.stops = (table["stops"] == True).tolist()  # noqa: E712  # NA is not True
        self.lives = RequestRows(len(workload))
        self.beginnings: dict[int, Beginning] = {}  # by row
        self.arrived = self.done = self.output_tokens = 0
        self.outcomes: asyncio.Queue[Outcome] = asyncio.Queue()
        self.taken: list[Outcome] = []  # out of the queue, and not yet noted
        engine.on_outcome = self.outcomes.put_nowait
        self.categories = workload.categories(dispatcher.admission)
        self.build = workload.requests(rules_in_force(plan.tiers, workload.tier_names))
        self.arrivals = Arrivals(workload, float)
        self.start = time.monotonic()
        journal.begin(self.start)

    def now(self) -> float:
        return time.monotonic() - self.start

    async def drive_to_an_end(self) -> tuple[str, str]:
        """How the run ended, and why it did not end well."""
        try:
            await self.drive()
        except asyncio.CancelledError:
            self._leave(self._ready())
            return "interrupted", "stopped from outside"
        except EngineError as error:
            return "failed", str(error)
        except Exception as error:  # whatever broke, what was measured until then is kept
            return "failed", f"{type(error).__name__}: {error}"
        return "complete", ""

    async def drive(self) -> None:
        """Until every request has arrived and left."""
        while self.done < len(self.workload):
            now = self.now()
            for row, due in self.arrivals.take(now):
                self._arrive(row, due, now)
            if self.engine.failure is None:
                for job in self.dispatcher.release(self.engine.room(), now):
                    self._dispatch(job)
            ended = await self._ended()
            if ended:
                self._leave(ended)
            inside = len(self.dispatcher.in_flight)
            waiting = len(self.dispatcher.policy)
            self.progress(Progress(self.done, inside, waiting, self.output_tokens, self.now()))
            if self.engine.failure is not None and not inside:
                raise EngineError(self.engine.failure)

    async def _ended(self) -> list[Outcome]:
        """What ended, waiting until something does or the next arrival is due, at most a second."""
        due = self.arrivals.next_at()
        try:
            timeout = 1.0 if due is None else min(1.0, max(0.0, due - self.now()))
            async with asyncio.timeout(timeout):  # not wait_for, which may swallow that the run is stopped
                self.taken.append(await self.outcomes.get())
        except TimeoutError:
            return []
        await asyncio.sleep(0)  # let the others that ended in the same step arrive: they are learned from together
        return self._ready()

    def _ready(self) -> list[Outcome]:
        """What has ended, and is to be noted now."""
        ended, self.taken = self.taken, []
        while not self.outcomes.empty():
            ended.append(self.outcomes.get_nowait())
        return ended

    def _note(self, row: int, values: dict[str, Any]) -> None:
        """Into the columns and into the journal."""
        present = {name: value for name, value in values.items() if value is not None}
        self.lives.set(row, present)
        self.journal.note(row, present)

    def _since(self, moment: float | None) -> float | None:
        return None if moment is None else moment - self.start

    def _arrive(self, row: int, due: float, now: float) -> None:
        job = self.dispatcher.arrive(self.build(row, due), self.categories[row], now, row)
        self.arrived += 1
        self._note(
            row,
            {
                "arrival_s": due,
                "bias": job.bias,
                "scheduling_class": job.scheduling_class,
                "estimate": job.estimate,
                "budget": job.budget,
            },
        )

    def _dispatch(self, job: Job) -> None:
        row = job.index
        self._note(row, {"dispatch_s": self.now(), "dispatch_index": self.dispatcher.in_flight[id(job)]})
        self.engine.submit(job, self.lengths[row] if self.lengths else None)

    def _leave(self, ended: list[Outcome]) -> None:
        admission = self.dispatcher.admission
        departures = []
        for outcome in ended:
            outcome = self._as_it_would_have_been(outcome)
            row = outcome.job.index
            self._note(
                row,
                {
                    "queued_s": self._since(outcome.queued),
                    "scheduled_s": self._since(outcome.scheduled),
                    "first_token_s": self._since(outcome.first_token),
                    "finish_s": self._since(outcome.finish),
                    "output_tokens": outcome.output_tokens,
                    "output_words": outcome.output_words,
                    "finish_reason": outcome.finish_reason,
                    "preemptions": outcome.preemptions,
                    "error": outcome.error,
                    "prompt_tokens": outcome.prompt_tokens,
                    "cached_tokens": outcome.cached_tokens,
                },
            )
            if outcome.beginning is not None:
                self.beginnings[row] = outcome.beginning
            self.done += 1
            self.output_tokens += outcome.output_tokens or 0
            self.arrivals.left(row, self.now())
            departures.append(_departure(outcome, admission.unit.length))
        self.dispatcher.finished(departures, self.now())

    def _as_it_would_have_been(self, outcome: Outcome) -> Outcome:
        """A forced length ends at a limit; the workload knows how it ended by nature, and how many words it had."""
        if self.lengths is None or self.words is None or outcome.finish_reason != "length":
            return outcome
        row = outcome.job.index
        return replace(
            outcome,
            finish_reason="stop" if self.stops[row] and outcome.output_tokens == self.lengths[row] else "length",
            output_words=self.words[row],
        )

    def table(self) -> pd.DataFrame:
        """The trace's request table: one row for each request that has arrived."""
        return self.lives.table(self.workload.offered.head(self.arrived))

    def notes(self) -> tuple[str, ...]:
        """What a reader of the numbers should know."""
        counted = np.frombuffer(self.lives.counts["prompt_tokens"], dtype=np.int64)[: self.arrived]
        ours = self.workload.table["prompt_tokens"].to_numpy()[: self.arrived]
        differ = int(((counted >= 0) & (counted != ours)).sum())
        if not differ:
            return ()
        return (
            f"the engine counted other prompt lengths than admission did in {differ} of {self.arrived} requests: "
            "prompt_tokens are the engine's, estimates and budgets rest on admission's",
        )

    def workload_info(self) -> WorkloadInfo:
        """The workload's description, with the moment at which each phase started."""
        starts = self.arrivals.starts()
        phases = zip_longest(self.workload.info.phases, starts)  # one that never began has no start
        dated: tuple[Phase, ...] = tuple(phase.changed(start_s=start) for phase, start in phases)
        return self.workload.info.changed(phases=dated)


def _departure(outcome: Outcome, length: Callable[[int, int | None], int]) -> Departure:
    if outcome.finish_reason not in (*FINISHED, "abort") or outcome.output_tokens is None:
        return Departure(outcome.job, None, censored=True)
    observed = length(outcome.output_tokens, outcome.output_words)
    return Departure(outcome.job, observed, outcome.finish_reason in CENSORED)


def _header(workload: Workload, engine: LiveEngine, plan: CapturePlan, limit: int | None) -> Header:
    forced = {"force_lengths": True} if plan.force_lengths else {}
    return Header(
        kind="captured",
        driftsim_version=__version__,
        engine=engine.settings,
        engine_arguments=engine.arguments | forced,
        model=Path(engine.model).name,
        hardware=hardware(),
        software=software(),
        workload=workload.info,
        admission={"policy": plan.policy, "estimator": plan.estimator, **plan.admission.model_dump(mode="json")},
        max_in_flight=limit,
        tiers=plan.tiers,
        seed=plan.seed,
        clocks=engine.clocks,
        captured_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        turn=plan.turn,
        notes=workload.notes,
    )
