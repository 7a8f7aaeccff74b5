"""A step-time model from the timings of requests alone: all that an HTTP capture or somebody else's benchmark has.

How the engine was composed is reconstructed, first from the overlap of the requests, then by simulating the run with
what was fitted so far: a simulated life says which steps, with which batch, a request's time was made of, and the time
is linear in the coefficients. Two such fits, with and without a roofline, are where simulation takes over: forms are
chosen by what they simulate of time and of runs that they were not fitted to.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import NamedTuple

import numpy as np

from driftsim.calibration.descent import Slopes, Start, cost, descend
from driftsim.calibration.form import Form
from driftsim.calibration.held_out import Candidate, best_of, folds_of
from driftsim.calibration.kept_time import no_time_left
from driftsim.calibration.least_squares import LEFT_OUT, Rows, Solution, solve, time_put_back
from driftsim.calibration.lives import PairedRun, resimulate
from driftsim.calibration.measures import MEASURES, errors, spreads
from driftsim.calibration.overlap import beginning, from_overlap
from driftsim.calibration.request_rows import rows_of
from driftsim.latency.profile import LEAST_INTERCEPT_S, Profile
from driftsim.latency.steptime import GRAPH_SIZES, TERMS
from driftsim.metrics import e2e
from driftsim.simulation.as_measured import received_at_arrival
from driftsim.trace.trace import Trace

MOST_STEPS = 60_000  # of all traces, simulated to fit, so that a fit of any size ends within a minute
LAST_ROUNDS = 6  # of the form that was chosen
SAME = 1e-4  # a relative change that is none
ROUNDS = 4  # of simulating and fitting rows, with and without a roofline
SETTLED = 0.003  # of the mean duration: the change of every term, below which the rounds end
HALVINGS = 5  # of a step that leads to worse percentiles
WORSE = 1.3  # times the error before, above which a step is worse
PUT_BACK = 0.01  # share of the time of typical steps that is worth a warning when it is put back
LINEAR, EXTRA = TERMS[:4], TERMS[4:]
EVERYTHING = Form(terms=TERMS)
EXTRAS = ((), ("prefill_attention",), ("prefill_step",), ("prefill_attention", "prefill_step"))
KEPT = 4  # lives with their steps, for whoever asks again
LOOKS = 4  # around, at what the coefficients do
ENOUGH = 0.85  # of the error before, above which looking around again does not pay


class Seen(NamedTuple):
    """What is seen of a simulated run: the ``errors`` of its measures, and how long its requests lasted in all (s),
    recorded and simulated."""

    errors: np.ndarray
    lasted: tuple[float, float]

    @classmethod
    def of(cls, life: PairedRun) -> Seen:
        """What is seen of ``life``."""
        done = life.finished & (life.recorded["finish_s"] <= life.part.until).to_numpy()
        recorded, simulated = (float(e2e(rows)[done].sum()) for rows in (life.recorded, life.simulated))
        return cls(errors(life), (recorded, simulated))


@dataclass(frozen=True, eq=False)
class RequestFit:
    """What requests' timings say: a form of the step time, its coefficients and a request's overhead (s, the last)."""

    form: Form
    values: np.ndarray
    rows: Rows
    solution: Solution  # of the rows
    received: bool  # whether the arrivals were the core's receipts
    considered: dict[str, float]
    moved: float = 0.0  # by how much the last round moved a term, as a share of the mean duration

    def profile(self, base: Profile) -> Profile:
        """``base`` with these step times."""
        return with_values(base, self.form, self.values, self.received)


def scaled(timed: RequestFit, scale: float) -> RequestFit:
    """``timed`` with all steps ``scale`` times as long."""
    return replace(timed, values=timed.values * np.append(np.full(len(timed.values) - 1, scale), 1.0))


def with_values(base: Profile, form: Form, values: np.ndarray, received: bool) -> Profile:
    """``base`` with the coefficients of ``form``, and the overhead of a request where it is paid."""
    times = {f"{term}_s": max(0.0, float(value)) for term, value in zip(form.terms, values[:-1], strict=True)}
    times["intercept_s"] = max(times["intercept_s"], LEAST_INTERCEPT_S)
    times[overhead_key(received)] = max(0.0, float(values[-1]))
    hidden = form.tied(values).hidden_tokens
    return base.changed(hidden_tokens=hidden, graph_sizes=GRAPH_SIZES if form.graphs else (), **times)


def overhead_key(received: bool) -> str:
    """The profile's key of a request's constant overhead; ``received``: arrivals are the core's receipts."""
    return "output_lag_s" if received else "submit_lag_s"


class RequestFitter:
    """The fit of ``base``'s step times to the timings of several traces, jointly; ``report`` hears of its progress.

    ``loops``: whether arrivals that waited for ends wait for the simulated ones. If they do not, each request meets the
    others that it met, however far the loop would have drifted; but a time that was rounded past the beginning of a
    step misses that step.

    The constant overhead of a request (HTTP, tokenisation) is paid before the engine gets it, or, where the recorded
    arrivals are the core's receipts, with every output.
    """

    def __init__(
        self,
        traces: Sequence[Trace],
        base: Profile,
        report: Callable[[str], None],
        until: float = np.inf,
        loops: bool = True,
    ) -> None:
        self.loops = loops
        self.base = base
        self.report = report
        self.received = all(received_at_arrival(trace) for trace in traces)
        self.parts = [beginning(trace, MOST_STEPS / len(traces), until) for trace in traces]
        self._seen = dict[tuple[int, str], Seen]()  # by run, and digest of the profile that it was simulated with
        self._lives = dict[str, list[PairedRun]]()  # the last ones
        self.width = MEASURES + max(len(part.trace.requests) for part in self.parts)
        # Of waits for the first token, and of decode times; without a roofline, and with one.
        self.precision = {False: (0.1, 1.0), True: (0.1, 1.0)}

    def _padded(self, found: np.ndarray) -> np.ndarray:
        """What was ``found`` of a run's measures, as wide as that of the longest run."""
        return np.append(found, np.full(self.width - len(found), np.nan))

    def lives(self, profile: Profile) -> list[PairedRun]:
        """The runs beside their simulations with ``profile``, whose steps are known."""
        if profile.digest not in self._lives:
            lives = [resimulate(part, profile, self.loops) for part in self.parts]
            self._seen |= {(run, profile.digest): Seen.of(life) for run, life in enumerate(lives)}
            self._lives[profile.digest] = lives
            if len(self._lives) > KEPT:
                del self._lives[next(iter(self._lives))]
        return self._lives[profile.digest]

    def seen(self, run: int, profile: Profile) -> Seen:
        """What is seen of a ``run`` that is simulated with ``profile``; a fit often comes back to a profile."""
        if (run, profile.digest) not in self._seen:
            self._seen[run, profile.digest] = Seen.of(resimulate(self.parts[run], profile, self.loops, steps=False))
        return self._seen[run, profile.digest]

    def error(self, fit: RequestFit) -> float:
        """The mean relative error of the percentiles that are simulated with ``fit``."""
        return self._error_with(fit.profile(self.base))

    def _error_with(self, profile: Profile) -> float:
        return error_of([self.seen(run, profile) for run in range(len(self.parts))])

    def _profile(self, form: Form, values: np.ndarray) -> Profile:
        return with_values(self.base, form, values, self.received)

    def fit(self) -> RequestFit:
        """Settle on rows, with and without a roofline; lower what is simulated from there; choose, and lower again."""
        plain, moved = self._settle(Form(), np.append(from_overlap(self.parts), 0.0))
        bent, _ = self._settle(Form(roofline=True), plain)
        settled = [np.concatenate([values[:-1], np.zeros(len(EXTRA)), values[-1:]]) for values in (plain, bent)]
        ends = [
            self._descended(replace(EVERYTHING, roofline=roofline), self._start(values, roofline))
            for roofline, values in zip((False, True), settled, strict=True)
        ]
        weights = np.minimum(*(end.weights for end in ends))  # the same for all forms
        folds = folds_of([len(part.trace.requests) for part in self.parts])
        candidates = [
            self._candidate(
                Form((*LINEAR, *extras), roofline=roofline),
                replace(end, weights=weights),
                folds,
                (values, end.start.values),
            )
            for roofline, end, values in zip((False, True), ends, settled, strict=True)
            for extras in EXTRAS
        ]
        best = best_of(candidates)
        padded = self._candidate(replace(best.form, graphs=True), best.around, folds)
        chosen = best_of([best, padded])
        self.report(f"form: {chosen.form}")
        start = replace(chosen.around.start, free=chosen.free)
        end = self._descended(replace(chosen.form, terms=TERMS), start, chosen.values)
        considered = {str(one.form): one.error for one in (*candidates, padded)}
        return self._fitted(chosen.form, end, considered, moved)

    def _start(self, plain: np.ndarray, roofline: bool) -> Start:
        """Where a descent starts: where rows settled, on ``plain`` (s) with the linear terms, or then with all."""
        form = replace(EVERYTHING, roofline=roofline)
        rich, _ = self._settle(form, plain)
        found = min((rich, plain), key=lambda one: self._error_with(self._profile(form, one)))
        lives = self.lives(self._profile(form, found))
        rows = rows_of(lives, EVERYTHING, precision=self.precision[roofline])
        share = np.abs(rows.columns).mean(axis=0) / rows.duration.mean()
        spread = np.array([self._padded(spreads(life)) for life in lives])
        return Start(found, np.where(share > 0, share, 1.0), share > 0, spread)

    def _descended(self, form: Form, start: Start, values: np.ndarray | None = None) -> Slopes:
        """From ``values``, or the start, looked around and down until that hardly pays; where it ends, with the last
        slopes."""

        def errors_at(values: np.ndarray) -> np.ndarray:
            return self._errors_at(form, values)

        values = start.values if values is None else values
        for _ in range(LOOKS):
            around = Slopes.around(values, start, errors_at)
            before = around.cost(around.errors)
            values, found = descend(around, start.free, errors_at)
            after = around.cost(found)
            self.report(f"{form}: simulated measures off by {100 * before:.2f} %, then by {100 * after:.2f} %")
            if after > ENOUGH * before:
                break
        return replace(around, values=values, errors=found)

    def _candidate(
        self, form: Form, around: Slopes, folds: Sequence[np.ndarray], settled: Sequence[np.ndarray] = ()
    ) -> Candidate:
        """The fit of ``form`` from where its richest one ended, and its errors where it was not fitted.

        Or one of the values on which rows ``settled``, if it has the same terms and simulates better.
        """
        free = np.array([*(term in form.terms for term in TERMS), True]) & around.start.free
        wide = replace(form, terms=TERMS)

        def errors_at(values: np.ndarray) -> np.ndarray:
            return self._errors_at(wide, values)

        values, errors = descend(around, free, errors_at, steps=2)
        for other in settled:
            if ((other[:-1] > 0)[len(LINEAR) :] == free[:-1][len(LINEAR) :]).all():
                found = errors_at(other)
                if around.cost(found) < around.cost(errors):
                    values, errors = other, found
        cells: list[float] = []
        kept = free & (values > 0)  # what is at 0 may jump there, as an overhead does where users wait for answers
        for fitted in folds:
            aim = around.step(values, errors, kept, fitted)
            judged = ~fitted
            runs = np.flatnonzero(judged.any(axis=1)).tolist()
            found = self._errors_at(wide, aim, runs)
            cells += [cost(found[run], (around.weights * judged)[run]) for run in runs]
        self.report(f"{form}: off by {100 * float(np.mean(cells)):.2f} % where it was not fitted")
        return Candidate(form, free, values, around, np.array(cells))

    def _fitted(self, form: Form, end: Slopes, considered: dict[str, float], moved: float) -> RequestFit:
        """What ``end`` says of ``form``, or the rows of the lives that it leads to, whichever simulates best."""
        values = end.values[[*(TERMS.index(term) for term in form.terms), len(TERMS)]]
        found: list[tuple[float, RequestFit]] = []
        for _ in range(LAST_ROUNDS):
            form = form.tied(values)
            lives = self.lives(self._profile(form, values))
            error = end.cost(self._errors_at(form, values))
            rows = rows_of(lives, form, precision=self.precision[form.roofline])
            solution = solve(rows)
            found.append((error, RequestFit(form, values, rows, solution, self.received, considered, moved)))
            told = np.where(rows.columns.any(axis=0), solution.coefficients, values)
            if np.allclose(told, values, rtol=SAME, atol=0.0):
                break
            values = told
        return min(found, key=itemgetter(0))[1]

    def _errors_at(self, form: Form, values: np.ndarray, runs: Sequence[int] | None = None) -> np.ndarray:
        """The errors of the measures of each run, (runs, measures), NaN for those that are not among ``runs``."""
        profile = self._profile(form, values)
        found = np.full((len(self.parts), self.width), np.nan)
        for run in range(len(self.parts)) if runs is None else runs:
            found[run] = self._padded(self.seen(run, profile).errors)
        return found

    def _settle(self, form: Form, values: np.ndarray) -> tuple[np.ndarray, float]:
        """Simulate, fit the rows of the simulated lives, and again, until the fit stays as it is; and the last move.

        A step to worse percentiles is halved: near saturation, a whole one swings between two queues for ever.
        """
        before, reached = values, np.inf
        best, best_error = values, np.inf
        for turn in range(1, ROUNDS + 1):
            for _ in range(HALVINGS):
                profile = self._profile(form, values)
                lives, error = self.lives(profile), self._error_with(profile)
                if error <= WORSE * reached:
                    break
                values = (values + before) / 2
            if error < best_error:
                best, best_error = values, error
            before, reached = values, error
            rows = rows_of(lives, form.tied(values), precision=self.precision[form.roofline])
            solution = solve(rows)
            # Of what no step needed, such as tokens that all hide, the rows tell nothing.
            told = np.where(rows.columns.any(axis=0), solution.coefficients, values)
            moved = np.abs(told - values) * np.abs(rows.columns).mean(axis=0) / rows.duration.mean()
            self.report(f"{form}: round {turn}, moved by {100 * moved.max():.2f} %")
            values = told
            if moved.max() < SETTLED:
                break
        self.precision[form.roofline] = (_precision(rows, solution), 1.0)
        return best, float(moved.max())

    def with_all_time(self, timed: RequestFit, warnings: list[str]) -> RequestFit:
        """``timed`` with steps so much longer that all requests together last as long as they did.

        The robust fit sets outliers aside; without their time, the engine and its queue would be too fast. A profile
        that is still off by more than ``LEFT_OUT`` is said to be so.
        """

        def left_out(scale: float) -> float:
            return self._left_out(scaled(timed, scale).profile(self.base))

        scale, left = no_time_left(left_out)
        whole = scaled(timed, scale)
        steps = whole.rows.columns[:, :-1]
        typical = float((steps @ whole.solution.coefficients[:-1]).sum())
        longer = float((steps @ whole.values[:-1]).sum()) / typical - 1 if typical > 0 else 0.0
        if abs(longer) > PUT_BACK:
            warnings.append(time_put_back(longer))
        if abs(left) > LEFT_OUT:
            warnings.append(
                f"the requests lasted {100 * abs(left):.1f} % {'longer' if left > 0 else 'shorter'} in all than "
                "simulated, and no pace of the steps mends it"
            )
        return whole

    def _left_out(self, profile: Profile) -> float:
        """By how much the requests lasted longer in all than they do with ``profile``, relative."""
        seen = [self.seen(run, profile) for run in range(len(self.parts))]
        measured, simulated = (sum(sides) for sides in zip(*(one.lasted for one in seen), strict=True))
        return measured / simulated - 1 if simulated > 0 else 0.0


def error_of(seen: Sequence[Seen]) -> float:
    """The mean relative error of the measures of what is ``seen`` of several runs."""
    return float(np.nanmean(np.abs([one.errors[:MEASURES] for one in seen])))


def _precision(rows: Rows, solution: Solution) -> float:
    """That of the waits for the first token, where that of the decode times is 1."""
    residual = np.abs(rows.duration / solution.fitted - 1)
    waits = rows.columns[:, -1] > 0
    if waits.all() or not waits.any():
        return 0.1
    return float(np.clip(np.median(residual[~waits]) / max(float(np.median(residual[waits])), 1e-6), 0.01, 1.0))
