"""Calibration fits one latency profile to recorded runs: to their steps where there are some, else to their timings.

A fit from steps is linear regression. One from the timings of requests is in ``timings``. Both choose the form of the
step time by cross-validation, simplest first, and tell how sure they are by a bootstrap over blocks of time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import numpy as np
import pandas as pd

from driftsim.extent import extent
from driftsim.lags import gap, lags
from driftsim.latency import Fit, Noise, Profile, Region, Seen
from driftsim.metrics import ttft
from driftsim.regression import (
    GRAPH_SIZES,
    Form,
    Rows,
    Solution,
    blocks,
    bootstrap,
    choose,
    quality,
    solve,
    unidentified,
)
from driftsim.timings import Timed, Timings, percentile_error
from driftsim.trace import FINISHED, Trace, TraceError

FEWEST_STEPS = 30
FEWEST_REQUESTS = 30
MOST_ROWS = 20_000  # that choose the form; all of them fit it
LEVEL = 0.95  # of the intervals
MATTERS = 0.05  # of the mean duration, the share from which on a term's uncertainty is worth a warning
CLEARLY = 0.8  # times the error of the default is clearly better
ONE_LOAD = 1.5  # the ratio of a large to a small batch, below which one load alone was seen
REMEDY = {
    "prefill_token": "capture prompts of several lengths",
    "decode_request": "capture another run at another load",
    "context_token": "capture longer or shorter prompts and outputs at the same load",
    "prefill_attention": "capture longer prompts",
    "prefill_step": "capture prompts of several lengths",
}
Source = Literal["auto", "steps", "requests"]


@dataclass(frozen=True, eq=False)
class Run:
    """A recorded run, its name for messages, and its digest for the profile."""

    name: str
    trace: Trace
    digest: str = ""


def quietly(message: str) -> None:
    """Tell nobody."""


def fit_profile(trace: Trace, digest: str = "") -> Profile:
    """A profile of ``trace``'s own steps. Raises ``TraceError`` if it has too few of them."""
    if trace.steps is None or len(trace.steps) < FEWEST_STEPS:
        have = "no steps table" if trace.steps is None else f"{len(trace.steps)} steps"
        raise TraceError(
            f"the trace has {have}, a profile needs {FEWEST_STEPS}; fit one to another trace "
            "(driftsim calibrate) and give it with --profile"
        )
    return calibrate([Run("the trace", trace, digest)], source="steps")


def calibrate(
    runs: Sequence[Run],
    *,
    source: Source = "auto",
    until: float = np.inf,
    told: Callable[[str], None] = quietly,
) -> Profile:
    """One profile for all ``runs``, which are of one model, GPU and engine; ``told`` hears of the progress.

    Only what had happened ``until`` that many seconds of each run is fitted.
    Raises ``TraceError`` if they are not, or are too short to fit.
    """
    if not runs:
        raise TraceError("no trace to calibrate with")
    warnings = _check(runs)
    with_steps = [run for run in runs if run.trace.steps is not None and len(run.trace.steps) >= FEWEST_STEPS]
    if source == "steps" and len(with_steps) < len(runs):
        lacking = next(run for run in runs if run not in with_steps)
        raise TraceError(f"{lacking.name}: has fewer than {FEWEST_STEPS} steps; fit it with --from requests")
    if source == "requests" or not with_steps:
        fitted = _from_requests(runs, until, told, warnings)
    else:
        for run in runs:
            if run not in with_steps:
                warnings.append(f"{run.name} has no steps and was left out of the fit, since others have some")
        fitted = _from_steps(with_steps, until, told, warnings)
    digests = tuple(dict.fromkeys(run.digest for run in runs if run.digest))
    return fitted.changed(fitted_on=digests, warnings=tuple(warnings))


def _check(runs: Sequence[Run]) -> list[str]:
    """Warnings about ``runs``; raises ``TraceError`` where they cannot share a profile."""
    warnings = []
    first = runs[0]
    for run in runs:
        header = run.trace.header
        for what in ("model", "hardware"):
            own, other = getattr(header, what), getattr(first.trace.header, what)
            if own != other:
                raise TraceError(f"{run.name}: {what} is {own!r}, but {other!r} in {first.name}; fit them apart")
        if header.engine.version != first.trace.header.engine.version:
            raise TraceError(
                f"{run.name}: engine version is {header.engine.version!r}, but {first.trace.header.engine.version!r} "
                f"in {first.name}; fit them apart"
            )
        if header.engine != first.trace.header.engine:
            warnings.append(f"{run.name} ran with other engine settings than {first.name}, whose are in the profile")
        if header.load is not None and header.load.disturbed:
            warnings.append(f"the machine was disturbed while {run.name} was recorded")
    return warnings


def _blank(runs: Sequence[Run]) -> Profile:
    """A profile of the runs' model, GPU and engine whose step times are still to be fitted."""
    header = runs[0].trace.header
    return Profile(
        model=header.model,
        hardware=header.hardware,
        engine=header.engine,
        intercept_s=1.0,
        prefill_token_s=0.0,
        decode_request_s=0.0,
        context_token_s=0.0,
    )


# -- from steps


def _from_steps(runs: Sequence[Run], until: float, told: Callable[[str], None], warnings: list[str]) -> Profile:
    tables = [run.trace.steps[run.trace.steps["start_s"] <= until] for run in runs if run.trace.steps is not None]
    for run, steps in zip(runs, tables, strict=True):
        if len(steps) < FEWEST_STEPS:
            raise TraceError(f"{run.name}: {len(steps)} steps had begun by {until:g} s, a fit needs {FEWEST_STEPS}")
        wrong = ~(steps["duration_s"].to_numpy() > 0)
        if wrong.any():
            raise TraceError(f"{run.name}: step {int(wrong.argmax())} takes no time; the clock stood still")
        back = np.diff(steps["start_s"].to_numpy()) < 0
        if back.any():
            raise TraceError(f"{run.name}: step {int(back.argmax()) + 1} starts before the one before it")

    steps = pd.concat(tables, ignore_index=True)
    duration = steps["duration_s"].to_numpy()
    block = _numbered(tables)
    part = np.arange(len(steps)) if len(steps) <= MOST_ROWS else _some_blocks(block)

    def rows_of(form: Form) -> Rows:
        return Rows(form.columns(steps.iloc[part]), duration[part], block[part], np.ones(len(part)))

    told(f"{len(steps)} steps of {len(runs)} runs: choosing a form")
    form, considered = choose(rows_of, Form())
    rows = Rows(form.columns(steps), duration, block, np.ones(len(steps)))
    form, rows = _identified(form, rows, warnings)
    solution = solve(rows)
    told(f"form: {form}; bootstrap over {len(np.unique(block))} blocks of time")
    intervals = _intervals(form, rows, solution, solution.coefficients, warnings)
    low, high = np.percentile(steps["decode_requests"], [5, 95])
    if high < ONE_LOAD * max(low, 1):
        warnings.append(
            f"one load only: nine steps in ten had {low:.0f} to {high:.0f} decoding requests; capture another load"
        )
    fitted = rows.columns @ solution.coefficients
    delays = np.array([lags(run.trace, table) for run, table in zip(runs, tables, strict=True)])
    notify, submit = (float(value) for value in np.median(delays, axis=0))
    gaps = [gap(table) for table in tables]
    # A step is never free; a fit through the origin would be, and starves the engine of time (see the design).
    times = {f"{term}_s": float(value) for term, value in zip(form.terms, solution.coefficients, strict=True)}
    return _blank(runs).changed(
        **times | {"intercept_s": max(times["intercept_s"], 1e-6)},
        hidden_tokens=form.hidden_tokens,
        graph_sizes=GRAPH_SIZES if form.graphs else (),
        gap_s=float(np.average(gaps, weights=[len(table) for table in tables])),
        notify_lag_s=notify,
        submit_lag_s=submit,
        intervals=intervals,
        noise=_noise(np.log(duration / fitted), tables),
        seen=_seen([run.trace for run in runs], int(steps["prefill_tokens"].max())),
        fit=Fit(
            source="steps",
            rows=len(duration),
            **quality(duration, fitted),
            regions=_step_regions(steps, duration, fitted),
            considered=considered,
        ),
    )


def _numbered(tables: Sequence[pd.DataFrame]) -> np.ndarray:
    """The blocks of successive tables, numbered through."""
    found: list[np.ndarray] = []
    for table in tables:
        found.append(blocks(len(table), int(found[-1].max()) + 1 if found else 0))
    return np.concatenate(found)


def _some_blocks(block: np.ndarray) -> np.ndarray:
    """Rows of evenly spaced blocks, about ``MOST_ROWS`` of them."""
    count = int(block.max()) + 1
    kept = np.linspace(0, count - 1, max(16, count * MOST_ROWS // len(block))).astype(int)
    return np.flatnonzero(np.isin(block, kept))


def _identified(form: Form, rows: Rows, warnings: list[str]) -> tuple[Form, Rows]:
    """Without the terms that the rows cannot tell from the others; each is named, with what would tell it."""
    lost = unidentified(rows, form.terms)
    for term in lost:
        constant = bool(rows.columns[:, form.terms.index(term)].any())
        why = "cannot be told from the terms before it" if constant else "was never needed"
        warnings.append(f"{term}_s {why} and is taken as 0: {REMEDY.get(term, 'capture a longer run')}")
    kept = [place for place, term in enumerate(form.terms) if term not in lost]
    columns = [*kept, *range(len(form.terms), rows.columns.shape[1])]
    return replace(form, terms=tuple(form.terms[place] for place in kept)), replace(
        rows, columns=rows.columns[:, columns]
    )


def _intervals(
    form: Form, rows: Rows, solution: Solution, values: np.ndarray, warnings: list[str]
) -> dict[str, tuple[float, float]]:
    """Of each coefficient, centred on ``values``; a wide one that matters is a warning."""
    drawn = bootstrap(rows, solution, np.random.default_rng(0))
    edges = np.percentile(drawn, [50 * (1 - LEVEL), 50 * (1 + LEVEL)], axis=0) - solution.coefficients + values
    found = {}
    share = np.abs(rows.columns).mean(axis=0) / rows.duration.mean()
    for place, term in enumerate(form.terms):
        low, high = max(0.0, float(edges[0, place])), float(edges[1, place])
        found[f"{term}_s"] = (low, high)
        if high - low > values[place] and (high - low) * share[place] > MATTERS:
            remedy = REMEDY.get(term, "capture a longer run")
            warnings.append(f"{term}_s is uncertain, {low:.3g} to {high:.3g} s: {remedy}")
    return found


def _noise(logs: np.ndarray, tables: Sequence[pd.DataFrame]) -> Noise:
    """Spread and autocorrelation of the log residuals within runs, and the spread of whole runs."""
    ends = np.cumsum([len(table) for table in tables])[:-1]
    parts = np.split(logs, ends)
    means = np.array([float(np.log(np.mean(np.exp(part)))) for part in parts])
    own = [part - part.mean() for part in parts]
    variance = float(np.concatenate(own).var())
    lagged = sum(float(part[1:] @ part[:-1]) for part in own) / max(1, sum(len(part) - 1 for part in own))
    correlation = float(np.clip(lagged / variance, 0.0, 0.999)) if variance > 0 else 0.0
    return Noise(
        spread=min(3.0, variance**0.5),
        autocorrelation=correlation,
        run_spread=min(3.0, float(means.std(ddof=1))) if len(means) > 1 else 0.0,
    )


def _step_regions(steps: pd.DataFrame, duration: np.ndarray, fitted: np.ndarray) -> tuple[Region, ...]:
    prefill, decode = steps["prefill_tokens"].to_numpy(), steps["decode_requests"].to_numpy()
    found = []
    alone = prefill == 0
    edges = np.unique(np.percentile(decode[alone], [0, 25, 50, 75, 100]).astype(int)).tolist() if alone.any() else []
    for low, high in pairwise(edges):
        inside = alone & (decode >= low) & ((decode < high) | ((high == edges[-1]) & (decode == high)))
        found.append((f"decode only, batch {low} to {high}", inside))
    if len(edges) == 1:
        found.append((f"decode only, batch {edges[0]}", alone))
    some = prefill[prefill > 0]
    if len(some):
        half = int(np.median(some))
        found.append((f"prefill of up to {half} tokens", (prefill > 0) & (prefill <= half)))
        found.append((f"prefill of more than {half} tokens", prefill > half))
    return tuple(_region(name, duration[inside], fitted[inside]) for name, inside in found if inside.any())


def _region(name: str, duration: np.ndarray, fitted: np.ndarray) -> Region:
    told = quality(duration, fitted)
    return Region(
        name=name, rows=len(duration), **{key: told[key] for key in ("mean_absolute_percentage_error", "bias")}
    )


# -- from the timings of requests


def _from_requests(runs: Sequence[Run], until: float, told: Callable[[str], None], warnings: list[str]) -> Profile:
    for run in runs:
        _usable(run, until, warnings)
    if len(runs) == 1:
        warnings.append("one run only: a profile from timings is better fitted to several loads, jointly")
    base = _blank(runs)
    traces = [run.trace for run in runs]
    timed, base = _best(traces, base, until, told, warnings)
    lost_form, rows = _identified(timed.form, timed.rows, warnings)
    kept = [place for place, term in enumerate(timed.form.terms) if term in lost_form.terms]
    values = timed.values.copy()
    values[[place for place in range(len(timed.form.terms)) if place not in kept]] = 0.0
    overhead = rows.columns.shape[1] - 1
    solution = replace(timed.solution, coefficients=timed.solution.coefficients[[*kept, len(timed.form.terms)]])
    intervals = _intervals(lost_form, rows, solution, np.append(values[kept], values[-1]), warnings)
    fitted = timed.solution.fitted
    residual = timed.rows.duration / fitted - 1
    decode = rows.columns[:, overhead] == 0
    made = np.maximum(timed.rows.columns[:, 0], 1.0)
    spread = float(np.sqrt(np.median(residual[decode] ** 2 * made[decode]) / 0.455)) if decode.any() else 0.0
    warnings.append("the noise of single steps cannot be seen in timings: it is taken as independent")
    profile = replace(timed, values=values).profile(base)
    return profile.changed(
        intervals=intervals,
        noise=Noise(spread=min(3.0, spread)),
        seen=_seen(traces, base.engine.max_num_batched_tokens),
        fit=Fit(
            source="requests",
            rows=int(decode.sum()),
            **quality(timed.rows.duration[decode], fitted[decode]),
            regions=(
                _region("decode time of a request", timed.rows.duration[decode], fitted[decode]),
                _region("time to first token", timed.rows.duration[~decode], fitted[~decode]),
            ),
            considered=timed.considered,
        ),
    )


def _best(
    traces: Sequence[Trace], base: Profile, until: float, told: Callable[[str], None], warnings: list[str]
) -> tuple[Timed, Profile]:
    """The fit; where the runs do not tell whether scheduling was asynchronous, the default of the engine's version,
    unless the other fits clearly better."""
    if "async_scheduling" not in base.engine.assumed:
        timings = Timings(traces, base, told, until)
        return timings.refine(timings.fit()), base
    found = []
    for other in (False, True):
        asynchronous = base.engine.async_scheduling != other
        told(f"async_scheduling not told: trying {asynchronous}")
        tried = base.changed(engine=base.engine.changed(async_scheduling=asynchronous))
        timings = Timings(traces, tried, told, until)
        timed = timings.fit()
        found.append((percentile_error(timings.parts, timed.profile(tried)), timings, timed, tried))
    (usual, *_), (unusual, *_) = found
    _, timings, timed, chosen = found[int(unusual < CLEARLY * usual)]
    warnings.append(
        f"async_scheduling was not told and is taken as {str(chosen.engine.async_scheduling).lower()}: percentiles are "
        f"off by {100 * min(usual, unusual):.1f} % with that, by {100 * max(usual, unusual):.1f} % without"
    )
    return timings.refine(timed), chosen


def _usable(run: Run, until: float, warnings: list[str]) -> None:
    rows = run.trace.requests
    done = rows[rows["finish_reason"].isin(FINISHED) & ~(rows["finish_s"] > until)]
    if len(done) < FEWEST_REQUESTS:
        raise TraceError(f"{run.name}: has {len(done)} finished requests, a fit needs {FEWEST_REQUESTS}")
    for column in ("first_token_s", "finish_s", "output_tokens"):
        missing = done[column].isna()
        if missing.all():
            what = "usage counts are missing" if column == "output_tokens" else "was not recorded"
            raise TraceError(f"{run.name}: {column} is empty ({what}); timings cannot be fitted without it")
        if missing.any():
            raise TraceError(
                f"{run.name}: request {done['request_id'][missing].iloc[0]!r} finished but {column} is empty; "
                "leave it out or fill it"
            )
    single = int((done["output_tokens"] < 2).sum())
    if len(done) - single < FEWEST_REQUESTS:
        raise TraceError(
            f"{run.name}: {single} of {len(done)} requests have a single output token, which has no decode time; "
            f"a fit needs {FEWEST_REQUESTS} longer ones"
        )
    if single:
        warnings.append(f"{run.name}: {single} requests have a single output token and tell nothing of decoding")
    if not float(ttft(done).min()) > 0:
        raise TraceError(f"{run.name}: a first token came at its request's arrival; the clocks do not agree")


def _seen(traces: Sequence[Trace], prefill_tokens: int) -> Seen:
    running, context = (max(values) for values in zip(*(extent(trace) for trace in traces), strict=True))
    return Seen(running=running, context_tokens=context, prefill_tokens=prefill_tokens)
