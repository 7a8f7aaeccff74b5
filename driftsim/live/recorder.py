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

import pandas as pd

from driftsim.errors import InputError
from driftsim.live.engine import LiveEngine, Outcome, check_hosts
from driftsim.live.lives import Lives
from driftsim.live.plan import CapturePlan, heading
from driftsim.live.sharing import with_prefixes
from driftsim.live.standing import expected, fill_in, sent_inside
from driftsim.live.talks import Talks
from driftsim.live.telemetry import Monitor
from driftsim.live.waiting import Waiting, as_seen, departure
from driftsim.request import Job, Request
from driftsim.scheduling.dispatcher import Dispatcher
from driftsim.scheduling.door import front_of
from driftsim.scheduling.estimators import make_estimator
from driftsim.scheduling.policies import check_live, check_order, make_policy
from driftsim.tiers import rules_in_force
from driftsim.trace.header import Phase, WorkloadInfo
from driftsim.trace.journal import Journal
from driftsim.trace.marks import marked, odd_note
from driftsim.trace.schema import FINISHED, STEP_COLUMNS
from driftsim.trace.tables import read_lines, typed
from driftsim.trace.trace import Trace
from driftsim.whose import check_present
from driftsim.workloads.arrivals import Arrivals
from driftsim.workloads.attempts import Attempts
from driftsim.workloads.workload import Workload

LATEST_SAMPLE_S = 60.0  # after the end of a run; then it goes without


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
    for given, what in ((plan.clients.timeouts, "timeout"), (plan.shed, "queue limit"), (plan.slos, "SLO")):
        check_present(given, what, workload.table["tenant"], workload.table["tier"])
    limit = plan.limit_of(engine.settings.max_num_seqs)
    rules = rules_in_force(plan.tiers or workload.tiers, workload.tier_names)
    own_order = engine.settings.scheduling_policy if plan.placed == "front" else "fcfs"
    check_order(plan.policy, rules, workload.tier_names, own_order)
    check_live(plan.policy, plan.slos)
    plan = replace(plan, tiers=plan.tiers or workload.tiers, admission=plan.admission.with_safety(rules))
    check_hosts(engine, plan.placed)
    policy = make_policy(plan.policy, rules, slos=plan.slos)
    learner = make_estimator(plan.estimator, plan.admission, {})
    dispatcher = front_of(plan.placed, policy, learner, plan.admission, limit, plan.tier_limits(rules), plan.shed)
    attempts = Attempts(workload, plan.clients.over(workload.clients), plan.seed, float)
    cold = await engine.forget()
    header = heading(workload, engine, plan, limit)
    offered = attempts.offered().assign(**attempts.columns())
    journal = Journal(folder, header.changed(ended="recording"), offered)
    has_steps = engine.trace_steps(journal.steps_file)
    monitor = Monitor(engine.own_processes, journal.sample)
    with monitor:
        run = _Run(attempts, offered, engine, dispatcher, plan, journal, progress)
        estimates = sent_inside(engine, plan, rules, run.start)
        ended, why = await run.drive_to_an_end()
        if ended == "complete":
            with suppress(asyncio.CancelledError):  # all is recorded; who stops the run now does without a sample
                await _covered(monitor, time.monotonic())
    start = run.start
    fill_in(run.lives, estimates)
    header = header.changed(load=monitor.load(start), workload=run.workload_info(), ended=ended, ended_why=why)
    requests, odd = marked(run.lives.table(), header)
    requests, prefixes = with_prefixes(requests, run.lives.begun(), engine.settings.block_size, cold)
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
        attempts: Attempts,
        offered: pd.DataFrame,
        engine: LiveEngine,
        dispatcher: Dispatcher,
        plan: CapturePlan,
        journal: Journal,
        progress: Callable[[Progress], None],
    ) -> None:
        self.workload = workload = attempts.workload
        self.waiting = Waiting(attempts)
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
        self.lives = Lives(attempts, offered)
        self.inside = plan.placed == "inside"
        self.sessions = "parent" in table
        self.talks = Talks(workload)
        self.arrived = 0  # requests, each counted once
        self.turns: dict[int, Request] = {}  # by row, those that may be sent again and repeat what was said
        self.done = self.output_tokens = 0
        self.outcomes: asyncio.Queue[Outcome] = asyncio.Queue()
        self.taken: list[Outcome] = []  # out of the queue, and not yet noted
        engine.on_outcome = self.outcomes.put_nowait
        self.categories = workload.categories(dispatcher.admission)
        self.build = attempts.builder(workload.requests(rules_in_force(plan.tiers, workload.tier_names)))
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
        while self.done < self.arrived or not self.arrivals.done or self.dispatcher.in_flight:
            now = self.now()
            for job, at in self.waiting.late(now):
                self._give_up(job, at)
            for row, due in (*self.arrivals.take(now), *self.waiting.come(now)):
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
        due = [at for at in (self.arrivals.next_at(), self.waiting.next_at()) if at is not None]
        try:
            timeout = min([1.0, *(max(0.0, at - self.now()) for at in due)])
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
        place = row % len(self.workload)
        request = self.build(row, due)
        if repeats := self._repeats(request, row, place):
            self.lives.repeats(row, request)
        job = self.dispatcher.arrive(request, self.categories[place], now, row)
        self.arrived += row == place
        refused = self.dispatcher.refused
        ended = {} if refused is None else {"finish_reason": "rejected", "output_tokens": 0, "error": refused.why}
        self._note(
            row,
            {
                "prompt_tokens": request.prompt_tokens if repeats else None,
                "arrival_s": due,
                **expected(job, self.inside),
                **ended,
            },
        )
        if refused is None:
            self.waiting.sent(job, due)
        else:
            self._over(row, "shed", now, refused.retry_after_s)

    def _repeats(self, request: Request, row: int, place: int) -> bool:
        """Whether ``request`` repeats what was said before it; then it is given that."""
        if row == place:
            if repeats := self.talks.begin(request, row):
                self.turns[row] = request
            return repeats
        if (first := self.turns.get(place)) is not None:
            request.history, request.prompt = first.history, first.prompt
            request.prompt_tokens, request.prompt_words = first.prompt_tokens, first.prompt_words
        return first is not None

    def _give_up(self, job: Job, at: float) -> None:
        """The client of ``job`` waits no longer, since ``at``: the job leaves the queue, or the engine drops it."""
        row = job.index
        if self.dispatcher.holds(job):
            self.waiting.given_up[row] = at
            self.engine.abort(job)
        else:
            self.dispatcher.withdraw(job)
            self._note(row, {"finish_reason": "timeout", "finish_s": at, "output_tokens": 0})
        self._over(row, "timeout", self.now())

    def _over(self, row: int, reason: str, now: float, told_s: float | None = None) -> None:
        """The attempt in ``row`` is over for its client, who may send it again."""
        if self.waiting.failed(row, reason, now, told_s):
            self.done += 1
            self.turns.pop(row % len(self.workload), None)
            self.arrivals.left(row % len(self.workload), now, reason not in FINISHED)

    def _dispatch(self, job: Job) -> None:
        row = job.index
        self._note(row, {"dispatch_s": self.now(), "dispatch_index": self.dispatcher.in_flight[id(job)]})
        self.engine.submit(job, self.lengths[row % len(self.workload)] if self.lengths else None)

    def _leave(self, ended: list[Outcome]) -> None:
        admission = self.dispatcher.admission
        departures = []
        for outcome in ended:
            outcome = self._as_it_would_have_been(outcome)
            row = outcome.job.index
            gone = self.waiting.given_up.pop(row, None)
            if gone is not None:
                outcome = as_seen(outcome, self.start + gone)
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
                    "stop_string": int(outcome.stop_string),
                },
            )
            if outcome.beginning is not None:
                self.lives.beginnings[row] = outcome.beginning
            self.output_tokens += outcome.output_tokens or 0
            self.waiting.left(row)
            if gone is None and outcome.finish_reason in FINISHED:
                self.talks.ended(outcome, row % len(self.workload))
            if gone is None:
                reason = "shed" if outcome.finish_reason == "rejected" else outcome.finish_reason  # it held too much
                self._over(row, "final" if outcome.final else reason, self.now(), outcome.retry_after_s)
            departures.append(departure(outcome, admission.unit.length))
        self.dispatcher.finished(departures, self.now())

    def _as_it_would_have_been(self, outcome: Outcome) -> Outcome:
        """A forced length ends at a limit; the workload knows how it ended by nature, and how many words it had."""
        if self.lengths is None or self.words is None or outcome.finish_reason != "length":
            return outcome
        row = outcome.job.index % len(self.workload)
        return replace(
            outcome,
            finish_reason="stop" if self.stops[row] and outcome.output_tokens == self.lengths[row] else "length",
            output_words=self.words[row],
        )

    def notes(self) -> tuple[str, ...]:
        """What a reader of the numbers should know."""
        lost = len(self.workload) - self.arrived if self.arrivals.done else 0
        told = (f"{lost} of {len(self.workload)} turns were never sent: the one before them failed",) if lost else ()
        return (*told, *self.lives.notes())

    def workload_info(self) -> WorkloadInfo:
        """The workload's description, with the moment at which each phase started."""
        starts = self.arrivals.starts()
        phases = zip_longest(self.workload.info.phases, starts)  # one that never began has no start
        dated: tuple[Phase, ...] = tuple(phase.changed(start_s=start) for phase, start in phases)
        if self.sessions and self.arrivals.done:  # of turns that were never sent, none counts
            sent = self.workload.table["phase"].iloc[self.lives.first()].value_counts()
            dated = tuple(phase.changed(requests=int(sent[phase.name])) for phase in dated)
        return self.workload.info.changed(phases=dated)
