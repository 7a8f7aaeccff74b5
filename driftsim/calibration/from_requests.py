"""A profile fitted to the timings of requests, where no steps were recorded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from driftsim.calibration.coefficients import coefficient_intervals, identified_terms, region_of
from driftsim.calibration.guards import check_timings, describes, refuse_fit
from driftsim.calibration.least_squares import quality
from driftsim.calibration.request_fit import RequestFit, RequestFitter, percentile_error
from driftsim.calibration.runs import FEWEST_REQUESTS, Run, blank_profile, coverage_of
from driftsim.errors import TraceError
from driftsim.latency.noise import Noise
from driftsim.latency.profile import Fit, Profile
from driftsim.metrics import ttft
from driftsim.trace.schema import FINISHED
from driftsim.trace.trace import Trace

CLEARLY_BETTER = 0.8  # an alternative must bring the error below this share of the default's


# -- from the timings of requests
def fit_requests(
    runs: Sequence[Run], until: float, report: Callable[[str], None], warnings: list[str], force: bool = False
) -> Profile:
    for run in runs:
        _usable(run, until, warnings)
        if not force:
            check_timings(run)
    if len(runs) == 1:
        warnings.append("one run only: a profile from timings is better fitted to several loads, jointly")
    base = blank_profile(runs)
    traces = [run.trace for run in runs]
    timed, base, error = _best(traces, base, until, report, warnings)
    lost_form, rows = identified_terms(timed.form, timed.rows, warnings)
    kept = [place for place, term in enumerate(timed.form.terms) if term in lost_form.terms]
    values = timed.values.copy()
    values[[place for place in range(len(timed.form.terms)) if place not in kept]] = 0.0
    overhead = rows.columns.shape[1] - 1
    solution = replace(timed.solution, coefficients=timed.solution.coefficients[[*kept, len(timed.form.terms)]])
    intervals = coefficient_intervals(lost_form, rows, solution, np.append(values[kept], values[-1]), warnings)
    fitted = timed.solution.fitted
    residual = timed.rows.duration / fitted - 1
    decode = rows.columns[:, overhead] == 0
    tokens = np.maximum(timed.rows.columns[:, 0], 1.0)
    spread = float(np.sqrt(np.median(residual[decode] ** 2 * tokens[decode]) / 0.455)) if decode.any() else 0.0
    warnings.append("the noise of single steps cannot be seen in timings: it is taken as independent")
    profile = replace(timed, values=values).profile(base)
    fitted_profile = profile.changed(
        intervals=intervals,
        noise=Noise(spread=min(3.0, spread)),
        seen=coverage_of(traces, base.engine.max_num_batched_tokens),
        fit=Fit(
            source="requests",
            rows=int(decode.sum()),
            **quality(timed.rows.duration[decode], fitted[decode]),
            regions=(
                region_of("decode time of a request", timed.rows.duration[decode], fitted[decode]),
                region_of("time to first token", timed.rows.duration[~decode], fitted[~decode]),
            ),
            considered=timed.considered,
        ),
    )
    if problem := describes(fitted_profile, error, timed.moved):
        refuse_fit(problem, runs, force, warnings)
    return fitted_profile


def _best(
    traces: Sequence[Trace], base: Profile, until: float, report: Callable[[str], None], warnings: list[str]
) -> tuple[RequestFit, Profile, float]:
    """The fit, its profile's base, and the error of its percentiles.

    Where the runs do not tell whether scheduling was asynchronous, the default of the engine's version stands, unless
    the other fits clearly better.
    """
    if "async_scheduling" not in base.engine.assumed:
        timings = RequestFitter(traces, base, report, until)
        refined = timings.with_all_time(timings.refine(timings.fit()), warnings)
        return refined, base, percentile_error(timings.parts, refined.profile(base))
    fits = []
    for other in (False, True):
        asynchronous = base.engine.async_scheduling != other
        report(f"async_scheduling not told: trying {asynchronous}")
        tried = base.changed(engine=base.engine.changed(async_scheduling=asynchronous))
        timings = RequestFitter(traces, tried, report, until)
        timed = timings.fit()
        fits.append((percentile_error(timings.parts, timed.profile(tried)), timings, timed, tried))
    (usual, *_), (unusual, *_) = fits
    _, timings, timed, chosen = fits[int(unusual < CLEARLY_BETTER * usual)]
    warnings.append(
        f"async_scheduling was not told and is taken as {str(chosen.engine.async_scheduling).lower()}: percentiles are "
        f"off by {100 * min(usual, unusual):.1f} % with that, by {100 * max(usual, unusual):.1f} % without"
    )
    refined = timings.with_all_time(timings.refine(timed), warnings)
    return refined, chosen, percentile_error(timings.parts, refined.profile(chosen))


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
