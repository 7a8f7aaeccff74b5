"""Run a workload under a scenario and return the trace: the simulator's main loop, around the one dispatcher."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from driftsim.engine.clock import ARRIVE, RELEASE, Clock, Moment
from driftsim.engine.inside import inside
from driftsim.engine.sequence import Sequence
from driftsim.errors import InputError
from driftsim.latency.service import service_of
from driftsim.latency.steptime import TICKS_PER_SECOND, ticks
from driftsim.progress import EVERY, OnProgress, no_progress
from driftsim.request import Job
from driftsim.scheduling.dispatcher import Dispatcher, Engine
from driftsim.scheduling.door import front_of
from driftsim.scheduling.estimators import ESTIMATORS, GIVEN, is_given_the_truth, make_estimator
from driftsim.scheduling.inside import Inside
from driftsim.scheduling.names import spelled
from driftsim.scheduling.plugins import PLUGIN_NOTE
from driftsim.scheduling.policies import POLICIES, STOCK, Policy, check_needs, check_order, make_policy
from driftsim.simulation.cluster import Cluster, Front
from driftsim.simulation.collector import collector_off
from driftsim.simulation.cut import cut
from driftsim.simulation.ends import Ends
from driftsim.simulation.engines import Known, clustered, engine_of, step_times, was_shed
from driftsim.simulation.heading import heading
from driftsim.simulation.observed import observed_lengths, told_lengths
from driftsim.simulation.patience import Patience
from driftsim.simulation.scenario import Scenario
from driftsim.simulation.tables import requests_table, steps_table
from driftsim.tiers import rules_in_force
from driftsim.trace.builder import FilledColumns, RequestRows
from driftsim.trace.schema import FINISHED, REPLICA_STEP_COLUMN, STEP_COLUMNS, STEP_REQUEST_COLUMNS
from driftsim.trace.trace import Trace
from driftsim.workloads.arrivals import Arrivals
from driftsim.workloads.attempts import Attempts
from driftsim.workloads.workload import Workload

OURS = {STOCK, *POLICIES, *ESTIMATORS, *GIVEN}


def simulate(
    scenario: Scenario,
    workload: Workload,
    *,
    record_steps: bool = False,
    step_requests: bool = False,
    told: OnProgress = no_progress,
) -> Trace:
    """The trace of ``workload`` under ``scenario``: the same scenario and workload give the same trace, bit by bit.

    ``record_steps``: with its steps. ``step_requests``: with its steps, each of which names its requests. ``told``: it
    hears of the requests that the engine is done with, and of all.

    Raises ``InputError`` if the workload does not know its output lengths, or not in the unit of the accounting. Any
    other exception is a mistake, of driftsim or of a plug-in: a note on the exception names the plug-ins of the run.
    """
    try:
        run = Simulation(scenario, workload, record_steps, step_requests=step_requests, told=told)
        trace = run.run()
        vars(run).clear()  # it and its engine know each other: the lists of a long run would wait for the collector
        return trace
    except InputError:
        raise
    except Exception as error:
        foreign = [name for name in (scenario.policy, scenario.estimator) if spelled(name).base not in OURS]
        if foreign:
            error.add_note(f"{PLUGIN_NOTE}{' and '.join(foreign)}")
        raise


class Simulation:
    """One run. The columns of the trace are indexed by the row of the request in the workload."""

    def __init__(
        self,
        scenario: Scenario,
        workload: Workload,
        record_steps: bool = False,
        engine: Callable[..., Engine] | None = None,
        *,
        step_requests: bool = False,
        told: OnProgress = no_progress,
    ) -> None:
        self.scenario, self.workload = scenario, workload
        table = workload.table
        if table["output_tokens"].isna().any():
            raise InputError("a simulation needs every output length; this workload does not know them")
        self.outputs = table["output_tokens"].astype(int).tolist()
        stops = table["stops"].fillna(False).astype(bool).tolist()
        self.observed = observed_lengths(workload, scenario.admission.unit)
        told_as = told_lengths(workload, scenario.admission.unit, self.observed)
        self.attempts = attempts = Attempts(workload, scenario.clients.over(workload.clients), scenario.seed, ticks)
        if attempts.most:
            again = 1 + attempts.most
            self.outputs, self.observed = self.outputs * again, self.observed * again
            stops, told_as = stops * again, told_as * again
        self.ends_late = attempts.rows_of(table["stop_string"]) if "stop_string" in table else set[int]()
        known = Known(self.ends_late, None if attempts.most else workload.common)  # a retry sends the same prompt again
        self.ends = Ends(told_as, self.outputs, stops, attempts.as_known)
        self.given_up = dict[int, tuple[str, int]]()  # by row, those inside the engine: how it ends, and since when
        rules = rules_in_force(scenario.tiers or workload.tiers, workload.tier_names)
        own_order = scenario.profile.engine.scheduling_policy if scenario.placed == "front" else "fcfs"
        check_order(scenario.policy, rules, workload.tier_names, own_order)
        check_needs(scenario.policy, scenario.slos)
        self.admission = scenario.admission.with_safety(rules)
        self.env = Clock(initial_time=0)
        self.impatient = Patience(self.env, self._give_up)
        self.engine: Engine
        profile = scenario.profile
        lag = scenario.refill_lag and scenario.barrier is None  # the barrier's worker fetches its jobs itself
        self.notify_lag = ticks(profile.notify_lag_s) if lag else 0
        self.submit_lag = ticks(profile.submit_lag_s) if lag else 0
        self.output_lag = ticks(profile.output_lag_s)
        given = is_given_the_truth(scenario.estimator)
        truth = dict(zip(attempts.names(), self.observed, strict=True)) if given else {}
        service = service_of(profile, self.admission.words_per_token, scenario.limit)
        self.learner = learner = make_estimator(scenario.estimator, self.admission, truth, scenario.seed)

        def policy() -> Policy:
            return make_policy(scenario.policy, rules, slos=scenario.slos, service_s=service)

        def dispatcher(limit: int | None) -> Dispatcher:
            limits = limit, scenario.tier_limits(rules), scenario.shed
            return front_of(scenario.placed, policy(), learner, self.admission, *limits)

        self.step_columns = (*STEP_COLUMNS, *(STEP_REQUEST_COLUMNS if step_requests else ()))
        self.record_steps = record_steps or step_requests
        self.steps: list[tuple[Any, ...]] = []
        on_step = self.steps.append if self.record_steps else None
        self.cluster: Cluster | None = None
        self.inside: Inside | None = None
        self.dispatcher: Dispatcher | Front
        if scenario.replicas:
            self.step_columns += (REPLICA_STEP_COLUMN,)
            self.dispatcher, self.cluster = clustered(
                self.env, scenario, dispatcher, self._left, self._release_soon, on_step, step_requests, known
            )
            self.engine = self.cluster
        else:
            self.dispatcher = dispatcher(scenario.limit)
            kind = engine or engine_of(scenario, step_requests, known)
            if scenario.placed == "inside":
                self.inside = Inside(policy(), learner, self.admission, self._estimated)
                assert isinstance(kind, type)  # the barrier's worker has no place inside: see ``Scenario``
                kind = inside(kind, self.inside, self.ends.to_core)
            self.engine = kind(
                self.env, scenario.engine, step_times(scenario), ticks(profile.gap_s), self._left, on_step
            )
        self.sessions, self.caching = "parent" in table, profile.engine.enable_prefix_caching
        self.arrivals = Arrivals(workload, ticks)
        self.build = attempts.builder(workload.requests(rules))
        self.categories = workload.categories(self.admission) * (1 + attempts.most)
        self.rows = RequestRows(attempts.rows)
        self.columns = FilledColumns(self.rows)
        self.intervals = self.rows.with_intervals() if getattr(learner, "levels", ()) else None
        self._told, self._gone = told, 0  # requests that have left
        self._tell_at = math.inf if told is no_progress else 0
        self._awaited: float | None = None  # the arrival for which a timeout is under way
        self._releasing = False  # now, or soon at this instant
        self._again = False  # somebody left meanwhile

    def run(self) -> Trace:
        self._await_arrival()
        with collector_off():
            self.env.run()
        requests, lost = requests_table(self.rows, self.attempts, self.cluster)
        starts = [start / TICKS_PER_SECOND for start in self.arrivals.starts()]
        levels = getattr(self.learner, "levels", ())
        header = heading(self.scenario, self.workload, self.admission, requests, starts, lost, levels)
        steps = (
            steps_table(self.steps, self.step_columns, several=self.cluster is not None) if self.record_steps else None
        )
        return Trace(header, requests, steps)

    def _await_arrival(self) -> None:
        due = self.arrivals.next_at()
        if due is not None and due != self._awaited:
            self._awaited = due
            Moment(self.env, int(due), ARRIVE, self._arrive)

    def _arrive(self, _: object) -> None:
        now = self.env.now
        self._awaited = None
        for row, _ in self.arrivals.take(now):
            self._send(row, now)
        self._await_arrival()
        self._release_soon()

    def _send(self, row: int, now: int) -> None:
        """The client sends the attempt in ``row``."""
        seconds, columns, dispatcher = now / TICKS_PER_SECOND, self.columns, self.dispatcher
        job = dispatcher.arrive(self.build(row, seconds), self.categories[row], seconds, row)
        columns.arrival_s[row] = seconds
        if self.inside is None:
            self._estimated(job)
        if dispatcher.refused is not None:
            columns.finish_reason[row] = "rejected"
            columns.output_tokens[row] = columns.preemptions[row] = 0
            self.rows.texts["error"][row] = dispatcher.refused.why
            self._over(row, "shed", now, dispatcher.refused.retry_after_s)
        elif self.attempts.impatient and (until := self.attempts.until(row, now)) is not None:
            self.impatient.begin(row, job, *until)

    def _estimated(self, job: Job) -> None:
        """Note what is expected of ``job``."""
        row, columns = job.index, self.columns
        columns.bias[row] = job.bias
        columns.estimate[row] = job.estimate
        columns.budget[row] = job.budget
        columns.scheduling_class[row] = job.scheduling_class
        if self.intervals is not None:
            for ends, value in zip(self.intervals, (job.quantiles[0], job.quantiles[-1]), strict=True):
                ends[row] = value

    def _send_again(self, row: int) -> None:
        self._send(row, self.env.now)
        self._release_soon()

    def _over(self, row: int, reason: str, now: int, told_s: float | None = None) -> None:
        """The attempt in ``row`` is over for its client, who may send it again; see ``Attempts.again``."""
        attempts = self.attempts
        if attempts.most and (again := attempts.again(row, reason, now, told_s)) is not None:
            Moment(self.env, again[1], ARRIVE, lambda _: self._send_again(again[0]))
            return
        failed = self.sessions and reason not in FINISHED
        if self.arrivals.left(row % attempts.requests, now, failed):
            self._await_arrival()

    def _release_soon(self) -> None:
        """At this instant, but after all arrivals and departures of it."""
        if self._releasing:
            self._again = True
            return
        if not self.dispatcher.may_release:
            return
        upcoming = self.env.upcoming
        if not upcoming or upcoming[0][0] > self.env.now:
            self._release(None)
        else:
            self._releasing = True
            Moment(self.env, self.env.now, RELEASE, self._release)

    def _release(self, _: object) -> None:
        # A rejection in this loop frees a slot; it is offered again after this batch, not during it.
        self._releasing, self._again = True, False
        seconds, columns = self.env.now / TICKS_PER_SECOND, self.columns
        order, lag = self.dispatcher.dispatched, self.submit_lag
        for job in self.dispatcher.release(self.engine.room(), seconds):
            row = job.index
            columns.dispatch_s[row] = seconds
            columns.dispatch_index[row] = order
            order += 1
            if lag:
                Moment(self.env, self.env.now + lag, ARRIVE, lambda _, job=job: self._submit(job))  # type: ignore[misc]
            else:
                self.engine.submit(job, self.outputs[row])
        self._releasing = False
        if self._again:
            self._release_soon()

    def _give_up(self, row: int, job: Job, now: int, reason: str) -> None:
        """The client of ``row`` waits no longer for ``job``, whose answer is not whole by now."""
        if self.dispatcher.holds(job):
            if self.scenario.barrier is not None:  # its worker serves a batch to its end
                return
            self.given_up[row] = reason, now
            upcoming = self.env.upcoming
            if self.submit_lag or (upcoming and upcoming[0][0] == now):  # what else arrives now arrives before
                Moment(self.env, now + self.submit_lag, ARRIVE, lambda _: self.engine.abort(job))
            else:
                self.engine.abort(job)
            if reason == "timeout":
                self._over(row, reason, now)
            return
        self.dispatcher.withdraw(job)
        self.columns.finish_s[row] = now / TICKS_PER_SECOND
        self.columns.output_tokens[row] = self.columns.preemptions[row] = 0
        self.columns.finish_reason[row] = reason
        self._over(row, reason, now)

    def _submit(self, job: Job) -> None:
        self.engine.submit(job, self.outputs[job.index])

    def _left(self, sequences: list[Sequence]) -> None:
        self._gone += len(sequences)
        if self._gone >= self._tell_at:
            self._tell_at = self._gone + EVERY
            self._told(self._gone, len(self.outputs))
        columns, lag, impatient, waits = self.columns, self.output_lag, self.attempts.impatient, self.impatient.waits
        as_known, given_up, ends = self.attempts.as_known, self.given_up, self.ends
        for sequence in sequences:
            row = sequence.job.index
            if sequence.finish_reason == "length":
                ends.look_for_stop(sequence)
            if impatient:
                if (wait := waits.pop(row, None)) is not None:
                    _, until, why = wait
                    if why == "timeout" and sequence.finish is not None and sequence.finish + lag > until:
                        self._last_token_late(row, until)
                if (gone := given_up.get(row)) is not None and gone[0] == "timeout":
                    cut(sequence, gone[1], lag)
            if row in as_known and sequence.finish_reason in FINISHED:
                sequence.finish_reason = "abort"
            if sequence.queued is not None:
                columns.queued_s[row] = sequence.queued / TICKS_PER_SECOND
            if sequence.scheduled is not None:
                columns.scheduled_s[row] = sequence.scheduled / TICKS_PER_SECOND
            if sequence.first_token is not None:
                columns.first_token_s[row] = (sequence.first_token + lag) / TICKS_PER_SECOND
            if sequence.finish is not None:
                columns.finish_s[row] = (sequence.finish + lag) / TICKS_PER_SECOND
            columns.output_tokens[row] = sequence.shown
            columns.preemptions[row] = sequence.preemptions
            columns.finish_reason[row] = sequence.finish_reason
            if sequence.error is not None:
                self.rows.texts["error"][row] = sequence.error
            if self.caching and sequence.cached >= 0:
                self.rows.counts["cached_tokens"][row] = sequence.cached
            if sequence.batch is not None:
                counts = self.rows.counts
                counts["batch_id"][row], counts["batch_size"][row] = sequence.batch
        if self.notify_lag:
            Moment(self.env, self.env.now + self.notify_lag, ARRIVE, lambda _: self._departed(sequences))
        else:
            self._departed(sequences)

    def _last_token_late(self, row: int, until: int) -> None:
        """The attempt in ``row`` left the engine before its client gives up, but the last token comes after that."""
        self.given_up[row] = "timeout", until
        Moment(self.env, max(until, self.env.now), ARRIVE, lambda _: self._over(row, "timeout", self.env.now))

    def _departed(self, sequences: list[Sequence]) -> None:
        now = self.env.now
        self.dispatcher.finished([self.ends.of(sequence) for sequence in sequences], now / TICKS_PER_SECOND)
        for sequence in sequences:
            if sequence.finish_reason != "timeout":  # its client is gone already
                self._over(sequence.job.index, "shed" if was_shed(sequence) else sequence.finish_reason, now)
        self._release_soon()
