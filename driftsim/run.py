"""Run a workload under a scenario and return the trace: the simulator's main loop, around the one dispatcher."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import simpy

from driftsim import __version__
from driftsim.accounting import Accounting
from driftsim.dispatcher import Departure, Dispatcher
from driftsim.engine.continuous import ARRIVE, RELEASE, ContinuousEngine, Moment
from driftsim.engine.sequence import Sequence
from driftsim.estimators import ORACLE, make_estimator
from driftsim.latency import TICKS_PER_SECOND, ticks
from driftsim.policies import make_policy
from driftsim.request import Job
from driftsim.scenario import Scenario
from driftsim.trace import CENSORED, FINISHED, REQUEST_COLUMNS, STEP_COLUMNS, Header, Trace, typed
from driftsim.workload import Arrivals, Workload

CLOCKS = "simulated seconds since the run began, exact to a picosecond"
ADMITTED = ("scheduling_class", "bias", "estimate", "budget")
LIVED = ("queued", "scheduled", "first_token", "finish", "preemptions", "finish_reason", "error", "shown")


def simulate(scenario: Scenario, workload: Workload, *, record_steps: bool = False) -> Trace:
    """The trace of ``workload`` under ``scenario``: the same scenario and workload give the same trace, bit by bit.

    Raises ``ValueError`` if the workload does not know its output lengths, or not in the unit of the accounting.
    """
    return Simulation(scenario, workload, record_steps).run()


class Simulation:
    """One run. Columns of the trace grow as lists, indexed by the row of the request in the workload."""

    def __init__(
        self,
        scenario: Scenario,
        workload: Workload,
        record_steps: bool = False,
        engine: Callable[..., ContinuousEngine] = ContinuousEngine,
    ) -> None:
        self.scenario = scenario
        self.workload = workload
        table = workload.table
        if table["output_tokens"].isna().any():
            raise ValueError("a simulation needs every output length; this workload does not know them")
        self.outputs = table["output_tokens"].astype(int).tolist()
        self.stops = table["stops"].fillna(False).astype(bool).tolist()
        self.observed = observed_lengths(workload, scenario.admission.unit)
        self.env = simpy.Environment(initial_time=0)
        profile = scenario.profile
        lag = scenario.refill_lag
        self.notify_lag = ticks(profile.notify_lag_s) if lag else 0
        self.submit_lag = ticks(profile.submit_lag_s) if lag else 0
        truth = dict(zip(table["request_id"], self.observed, strict=True)) if scenario.estimator == ORACLE else {}
        self.dispatcher = Dispatcher(
            make_policy(scenario.policy),
            make_estimator(scenario.estimator, scenario.admission, truth),
            scenario.admission,
            scenario.limit,
        )
        self.steps: list[tuple[float, ...]] = []
        self.engine = engine(
            self.env, profile.engine, profile.step_time(), ticks(profile.gap_s), self._left,
            self.steps.append if record_steps else None,
        )  # fmt: skip
        self.arrivals = Arrivals(workload, ticks)
        self.build = workload.requests()
        self.categories = workload.categories(scenario.admission.category_column)
        count = len(workload)
        self.arrival = [0] * count
        self.dispatch: list[int | None] = [None] * count
        self.order: list[int | None] = [None] * count
        self.jobs: list[tuple[Any, ...]] = [()] * count
        self.lives: list[Sequence | None] = [None] * count
        self._awaited: float | None = None  # the arrival for which a timeout is under way
        self._releasing = False

    def run(self) -> Trace:
        self._await_arrival()
        self.env.run()
        return Trace(self._header(), self._requests(), self._steps() if self.engine.on_step else None)

    @property
    def now(self) -> int:
        return self.env.now  # type: ignore[return-value]

    def _await_arrival(self) -> None:
        due = self.arrivals.next_at()
        if due is not None and due != self._awaited:
            self._awaited = due
            Moment(self.env, int(due) - self.now, ARRIVE, self._arrive)

    def _arrive(self, _: object) -> None:
        now, self._awaited = self.now, None
        seconds = now / TICKS_PER_SECOND
        for row, _ in self.arrivals.take(now):
            job = self.dispatcher.arrive(self.build(row, seconds), self.categories[row], seconds, row)
            self.arrival[row] = now
            self.jobs[row] = (job.scheduling_class, job.bias, job.estimate, job.budget)
        self._release_later()
        self._await_arrival()

    def _release_later(self) -> None:
        if not self._releasing:
            self._releasing = True
            Moment(self.env, 0, RELEASE, self._release)

    def _release(self, _: object) -> None:
        self._releasing = False
        now = self.now
        for job in self.dispatcher.release(self.engine.room(), now / TICKS_PER_SECOND):
            self.dispatch[job.index] = now
            self.order[job.index] = self.dispatcher.in_flight[id(job)]
            self._after(self.submit_lag, lambda job=job: self._submit(job))  # type: ignore[misc]

    def _submit(self, job: Job) -> None:
        self.engine.submit(job, self.outputs[job.index])

    def _left(self, sequences: list[Sequence]) -> None:
        for sequence in sequences:
            row = sequence.job.index
            self.lives[row] = sequence
            # vLLM looks for the end of sequence before it looks at limits (check_stop): the last token may be both.
            if sequence.finish_reason == "length" and self.stops[row] and sequence.shown == self.outputs[row]:
                sequence.finish_reason = "stop"
        self._after(self.notify_lag, lambda: self._departed(sequences))

    def _departed(self, sequences: list[Sequence]) -> None:
        now = self.now
        self.dispatcher.finished([self._departure(sequence) for sequence in sequences], now / TICKS_PER_SECOND)
        for sequence in sequences:
            self.arrivals.left(sequence.job.index, now)
        self._release_later()
        self._await_arrival()

    def _departure(self, sequence: Sequence) -> Departure:
        if sequence.finish_reason not in FINISHED:
            return Departure(sequence.job, None, censored=True)
        whole = sequence.shown == self.outputs[sequence.job.index]
        length = self.observed[sequence.job.index]
        if not whole:  # cut short by a limit that the recorded run did not have: words shrink in proportion
            length = round(length * sequence.shown / self.outputs[sequence.job.index])
        return Departure(sequence.job, length, sequence.finish_reason in CENSORED)

    def _after(self, delay: int, callback: Callable[[], None]) -> None:
        if delay:
            Moment(self.env, delay, ARRIVE, lambda _: callback())
        else:
            callback()

    def _requests(self) -> pd.DataFrame:
        columns: dict[str, Any] = dict(zip(ADMITTED, zip(*self.jobs, strict=True), strict=True))
        lived = {name: [getattr(life, name, None) for life in self.lives] for name in LIVED}
        columns["arrival_s"] = _seconds(self.arrival)
        columns["dispatch_s"] = _seconds(self.dispatch)
        columns["dispatch_index"] = pd.array(self.order, dtype="Int64")
        for name in ("queued", "scheduled", "first_token", "finish"):
            columns[f"{name}_s"] = _seconds(lived[name])
        columns["output_tokens"] = pd.array(lived["shown"], dtype="Int64")
        columns["output_words"] = self._words(columns["output_tokens"])
        columns["preemptions"] = pd.array(lived["preemptions"], dtype="Int64")
        columns["finish_reason"], columns["error"] = lived["finish_reason"], lived["error"]
        described = self.workload.table.drop(columns=["output_tokens", "output_words", "stops", "offset_s", "source"])
        whole = pd.concat([described, pd.DataFrame(columns, index=described.index)], axis=1)
        return typed(whole.reindex(columns=[column.name for column in REQUEST_COLUMNS]), REQUEST_COLUMNS, "simulated")

    def _words(self, shown: Any) -> Any:
        words = self.workload.table["output_words"].astype("Int64")
        cut = np.array(
            [life is None or life.shown != full for life, full in zip(self.lives, self.outputs, strict=True)]
        )
        scaled = np.rint(words.astype("float64") * np.asarray(shown, dtype=float) / np.array(self.outputs))
        return words.where(~cut, pd.Series(scaled, index=words.index).astype("Int64"))

    def _steps(self) -> pd.DataFrame:
        table = pd.DataFrame(self.steps, columns=[column.name for column in STEP_COLUMNS])
        for name in ("start_s", "duration_s"):
            table[name] = table[name] / TICKS_PER_SECOND
        return typed(table, STEP_COLUMNS, "simulated steps")

    def _header(self) -> Header:
        scenario, profile = self.scenario, self.scenario.profile
        switches = {"refill_lag": scenario.refill_lag, **scenario.admission.model_dump(mode="json")}
        starts = [start / TICKS_PER_SECOND for start in self.arrivals.starts()]
        phases = tuple(
            phase.changed(start_s=start) for phase, start in zip(self.workload.info.phases, starts, strict=True)
        )
        return Header(
            kind="simulated",
            driftsim_version=__version__,
            engine=profile.engine.changed(name="continuous"),
            model=profile.model,
            hardware=profile.hardware,
            workload=self.workload.info.changed(phases=phases),
            admission={"policy": scenario.policy, "estimator": scenario.estimator, **switches},
            max_in_flight=scenario.limit,
            seed=scenario.seed,
            profile_digest=profile.digest,
            clocks=CLOCKS,
            notes=self.workload.notes,
        )


def observed_lengths(workload: Workload, unit: Accounting) -> list[int]:
    """True output lengths in the accounting's unit. Raises ``ValueError`` where words are missing."""
    table = workload.table
    prompts = unit.lengths(table["prompt_tokens"], table["prompt_words"])
    outputs = unit.lengths(table["output_tokens"], table["output_words"])
    for name, lengths in (("prompt_words", prompts), ("output_words", outputs)):
        if np.isnan(lengths).any():
            raise ValueError(
                f"whitespace accounting needs {name}, which is empty for request "
                f"{table['request_id'].iloc[int(np.isnan(lengths).argmax())]!r}; give --words-per-token"
            )
    return [int(length) for length in outputs]


def _seconds(moments: list[int | None] | list[int]) -> np.ndarray:
    return np.array([np.nan if moment is None else moment / TICKS_PER_SECOND for moment in moments])
