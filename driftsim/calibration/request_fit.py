"""A step-time model from the timings of requests alone: all that an HTTP capture or somebody else's benchmark has.

How the engine was composed is reconstructed, first from the overlap of the requests, then by simulating the run with
what was fitted so far: a simulated life says which steps, with which batch, a request's time was made of, and the time
is linear in the coefficients. Fit, simulate again, until nothing changes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from scipy.optimize import least_squares

from driftsim.calibration.form import Form
from driftsim.calibration.least_squares import LEFT_OUT, Rows, Solution, choose, solve, time_put_back
from driftsim.calibration.lives import PairedRun, resimulate
from driftsim.calibration.overlap import Excerpt, beginning, from_overlap
from driftsim.calibration.request_rows import rows_of
from driftsim.latency.profile import LEAST_INTERCEPT_S, Profile
from driftsim.latency.steptime import GRAPH_SIZES
from driftsim.metrics import e2e, makespan, tpot, ttft
from driftsim.simulation.as_measured import received_at_arrival
from driftsim.trace.schema import FINISHED
from driftsim.trace.trace import Trace

MOST_STEPS = 60_000  # of all traces, simulated to fit, so that a fit of any size ends within a minute
ROUNDS = (4, 4, 8)  # before a form is chosen, before it is chosen again, and at last
SETTLED = 0.003  # of the mean duration: the change of every term, below which the rounds end
PERCENTS = (10, 25, 50, 75, 90, 95, 99)
HALVINGS = 5  # of a step that leads to worse percentiles
WORSE = 1.3  # times the error before, above which a step is worse
PUT_BACK = 10  # rounds that put time back
LOOSE = 0.5  # how far, in logs, the last refinement may move a coefficient
PULL = 0.02  # penalty for changing a coefficient by a factor of e, in relative percentile error


@dataclass(frozen=True, eq=False)
class RequestFit:
    """What requests' timings say: a form of the step time, its coefficients and a request's overhead (s, the last)."""

    form: Form
    values: np.ndarray
    rows: Rows
    solution: Solution  # of the rows, before a refinement
    received: bool  # whether the arrivals were the core's receipts
    considered: dict[str, float]
    moved: float = 0.0  # by how much the last round moved a term, as a share of the mean duration

    def profile(self, base: Profile) -> Profile:
        """``base`` with these step times."""
        return with_values(base, self.form, self.values, self.received)


def with_values(base: Profile, form: Form, values: np.ndarray, received: bool) -> Profile:
    """``base`` with the coefficients of ``form``, and the overhead of a request where it is paid."""
    times = {f"{term}_s": max(0.0, float(value)) for term, value in zip(form.terms, values[:-1], strict=True)}
    times["intercept_s"] = max(times["intercept_s"], LEAST_INTERCEPT_S)
    times[overhead_key(received)] = max(0.0, float(values[-1]))
    return base.changed(hidden_tokens=form.hidden_tokens, graph_sizes=GRAPH_SIZES if form.graphs else (), **times)


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
        self.precision = (0.1, 1.0)  # of waits for the first token, and of decode times

    def lives(self, profile: Profile) -> list[PairedRun]:
        """The runs beside their simulations with ``profile``."""
        return [resimulate(part, profile, self.loops) for part in self.parts]

    def error(self, fit: RequestFit) -> float:
        """The mean relative error of the percentiles that are simulated with ``fit``."""
        return error_of(self.lives(fit.profile(self.base)))

    def fit(self) -> RequestFit:
        """Settle on a linear form, choose the form in the lives that it leads to, twice, and settle again."""
        form = Form()
        considered: dict[str, float] = {}
        values = np.append(from_overlap(self.parts), 0.0)
        for turn, rounds in enumerate(ROUNDS):
            values, rows, solution, lives, moved = self._settle(form, values, rounds)
            self.precision = (_precision(rows, solution), 1.0)
            if turn < len(ROUNDS) - 1:
                chosen, considered = choose(partial(rows_of, lives, precision=self.precision), Form())
                known = dict(zip(form.terms, values[:-1], strict=True))
                values = np.array([*(known.get(term, 0.0) for term in chosen.terms), values[-1]])
                form = chosen
        return RequestFit(form, values, rows, solution, self.received, considered, moved)

    def _settle(
        self, form: Form, values: np.ndarray, rounds: int
    ) -> tuple[np.ndarray, Rows, Solution, list[PairedRun], float]:
        """Simulate, fit the rows of the simulated lives, and again, until the fit stays as it is; and the last move.

        A step to worse percentiles is halved: near saturation, a whole one swings between two queues for ever.
        """
        before, reached = values, np.inf
        for turn in range(1, rounds + 1):
            for _ in range(HALVINGS):
                profile = with_values(self.base, form, values, self.received)
                lives = self.lives(profile)
                error = error_of(lives)
                if error <= WORSE * reached:
                    break
                values = (values + before) / 2
            before, reached = values, error
            rows = rows_of(lives, form, precision=self.precision)
            solution = solve(rows)
            moved = np.abs(solution.coefficients - values) * np.abs(rows.columns).mean(axis=0) / rows.duration.mean()
            self.report(f"{form}: round {turn}, moved by {100 * moved.max():.2f} %")
            values = solution.coefficients
            if moved.max() < SETTLED:
                break
        return values, rows, solution, lives, float(moved.max())

    def refine(self, timed: RequestFit) -> RequestFit:
        """Lower the error of the simulated percentiles of TTFT, TPOT and E2E, starting from the fit of the rows."""
        form, values = timed.form, timed.values
        free = values > 0
        wanted = [_percentiles(part.trace, part) for part in self.parts]

        def errors(logs: np.ndarray) -> np.ndarray:
            tried = values.copy()
            tried[free] *= np.exp(logs)
            profile = with_values(self.base, form, tried, self.received)
            logs_off = []
            for part, want in zip(self.parts, wanted, strict=True):
                logs_off.append(np.log(_percentiles(resimulate(part, profile, self.loops).trace, part) / want))
            return np.concatenate([*logs_off, PULL * logs])

        count = int(free.sum())
        step = np.full(count, 0.01)
        solution = least_squares(
            errors, np.zeros(count), bounds=(-LOOSE, LOOSE), diff_step=step, loss="soft_l1", f_scale=0.02, max_nfev=8
        )
        start = np.abs(errors(np.zeros(count))[:-count]).mean()
        end = np.abs(solution.fun[:-count]).mean()
        self.report(f"{form}: percentiles off by {100 * start:.2f} %, refined to {100 * end:.2f} %")
        refined = values.copy()
        refined[free] *= np.exp(solution.x)
        return replace(timed, values=refined) if end < start else timed

    def with_all_time(self, timed: RequestFit, warnings: list[str]) -> RequestFit:
        """``timed`` with steps so much longer that all requests together last as long as they did.

        The robust fit sets outliers aside; without their time, the engine and its queue would be too fast.
        """
        whole = timed
        for _ in range(PUT_BACK):  # longer steps lengthen the queue as well: so half of what lacks at a time
            left_out = self._left_out(whole.profile(self.base))
            if abs(left_out) <= LEFT_OUT:
                break
            values = whole.values.copy()
            values[:-1] *= 1 + left_out / 2
            whole = replace(whole, values=values)
        longer = float(whole.values[:-1].sum() / timed.values[:-1].sum()) - 1
        if abs(longer) > LEFT_OUT:
            warnings.append(time_put_back(longer))
        return whole

    def _left_out(self, profile: Profile) -> float:
        """By how much the requests lasted longer in all than they do with ``profile``, relative."""
        measured = simulated = 0.0
        for life in self.lives(profile):
            done = life.finished & (life.recorded["finish_s"] <= life.part.until).to_numpy()
            measured += float(e2e(life.recorded)[done].sum())
            simulated += float(e2e(life.simulated)[done].sum())
        return measured / simulated - 1 if simulated > 0 else 0.0


def error_of(lives: Sequence[PairedRun]) -> float:
    """The mean relative error of the simulated percentiles of ``lives``."""
    pairs = [(_percentiles(life.trace, life.part), _percentiles(life.part.trace, life.part)) for life in lives]
    return float(np.concatenate([np.abs(np.log(ours / theirs)) for ours, theirs in pairs]).mean())


def _precision(rows: Rows, solution: Solution) -> float:
    """That of the waits for the first token, where that of the decode times is 1."""
    residual = np.abs(rows.duration / solution.fitted - 1)
    waits = rows.columns[:, -1] > 0
    if waits.all() or not waits.any():
        return 0.1
    return float(np.clip(np.median(residual[~waits]) / max(float(np.median(residual[waits])), 1e-6), 0.01, 1.0))


def _percentiles(trace: Trace, part: Excerpt) -> np.ndarray:
    """Means and percentiles of TTFT, TPOT and E2E (s), one after another, and the makespan of a whole run.

    Over the requests that had come so far within the recorded ``part``.
    """
    recorded = part.trace.requests.set_index("request_id")
    rows = trace.finished
    same = recorded.loc[rows["request_id"]]
    finished = same["finish_reason"].isin(FINISHED).to_numpy()
    begun, done = (finished & (same[name] <= part.until).to_numpy() for name in ("first_token_s", "finish_s"))
    percentiles: list[float] = []
    for values, known in ((ttft(rows), begun), (tpot(rows), done), (e2e(rows), done)):
        numbers = values[known].dropna().to_numpy(dtype=float)
        if len(numbers):
            percentiles += [float(numbers.mean()), *np.percentile(numbers, PERCENTS)]
    if part.until == np.inf:
        percentiles.append(makespan(trace.requests))
    return np.asarray(np.maximum(percentiles, 1e-9))
