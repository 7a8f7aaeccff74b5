"""A profile fitted to the timings of requests, where no steps were recorded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from operator import itemgetter

import numpy as np

from driftsim.calibration.coefficients import coefficient_intervals, identified_terms, joint_uncertainty, region_of
from driftsim.calibration.guards import check_timings, describes, refuse_fit, unphysical
from driftsim.calibration.least_squares import quality
from driftsim.calibration.request_fit import RequestFit, RequestFitter, overhead_key
from driftsim.calibration.runs import FEWEST_REQUESTS, Run, blank_profile, coverage_of
from driftsim.errors import TraceError
from driftsim.latency.noise import Noise
from driftsim.latency.profile import Fit, Profile
from driftsim.metrics import ttft
from driftsim.trace.header import LOOPS
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
    terms = [*(f"{term}_s" for term in lost_form.terms), overhead_key(timed.received)]
    uncertainty = joint_uncertainty(terms, rows, solution)
    intervals = coefficient_intervals(uncertainty, rows, np.append(values[kept], values[-1]), warnings)
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
            uncertainty=uncertainty,
        ),
    )
    if fitted_profile.seen is not None and fitted_profile.seen.running == 1:
        fitted_profile = _one_at_a_time(fitted_profile, warnings)
    warnings += unphysical(fitted_profile, runs)
    if problem := describes(fitted_profile, runs, error, timed.moved):
        refuse_fit(problem, runs, force, warnings)
    return fitted_profile


def _one_at_a_time(profile: Profile, warnings: list[str]) -> Profile:
    """``profile`` of a run of one request at a time, which cannot tell what is a step's and what a request's."""
    warnings.append(
        "one request ran at a time, so decode_request_s cannot be told from intercept_s and is taken as 0: capture a "
        "run with several users"
    )
    both, merged = profile.intercept_s + profile.decode_request_s, profile.fit
    intervals = {name: ends for name, ends in profile.intervals.items() if name != "decode_request_s"}
    if merged is not None and merged.uncertainty is not None:
        uncertainty = merged.uncertainty.summed("intercept_s", "decode_request_s")
        half = uncertainty.half_widths()["intercept_s"]
        intervals["intercept_s"] = (max(0.0, both - half), both + half)
        merged = merged.changed(uncertainty=uncertainty)
    return profile.changed(intercept_s=both, decode_request_s=0.0, intervals=intervals, fit=merged)


def _best(
    traces: Sequence[Trace], base: Profile, until: float, report: Callable[[str], None], warnings: list[str]
) -> tuple[RequestFit, Profile, float]:
    """The fit, its profile's base, and the error of its percentiles.

    A loop is fitted with its recorded arrivals and with those that follow the simulated ends; the better fit stands.
    Where the runs do not tell whether scheduling was asynchronous, the default of the engine's version stands, unless
    the other fits clearly better.
    """

    def fitted(tried: Profile, loops: bool) -> tuple[float, RequestFitter, RequestFit]:
        fitter = RequestFitter(traces, tried, report, until, loops)
        fit = fitter.fit()
        return fitter.error(fit), fitter, fit

    looped = any(phase.kind in LOOPS for trace in traces for phase in trace.header.workload.phases)
    error, fitter, fit = min(
        (fitted(base, loops) for loops in ((True, False) if looped else (True,))), key=itemgetter(0)
    )
    if "async_scheduling" in base.engine.assumed:
        usual = base.engine.async_scheduling
        report(f"async_scheduling not told: trying {not usual}")
        other = fitted(base.changed(engine=base.engine.changed(async_scheduling=not usual)), fitter.loops)
        unusual = other[0] < CLEARLY_BETTER * error
        taken, rest = (other[0], error) if unusual else (error, other[0])
        warnings.append(
            f"async_scheduling was not told and is taken as {str(usual != unusual).lower()}: simulated percentiles are "
            f"{100 * taken:.1f} % off so, {100 * rest:.1f} % otherwise"
        )
        if unusual:
            error, fitter, fit = other
    whole = fitter.with_all_time(fit, warnings)
    return whole, fitter.base, fitter.error(whole)


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
