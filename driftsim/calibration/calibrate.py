"""Calibration fits one latency profile to recorded runs: to their steps where there are some, else to their timings.

The fit to steps is in ``from_steps``, the fit to timings in ``from_requests``. The form of the step time is chosen by
cross-validation of steps, or by simulating what was not fitted, simplest first. Both tell how sure they are by what ten
long blocks of time disagree on; that to steps also by how long their noise lasts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import get_args

import numpy as np

from driftsim.calibration.from_requests import fit_requests
from driftsim.calibration.from_steps import fit_steps
from driftsim.calibration.guards import FORCE
from driftsim.calibration.runs import FEWEST_STEPS, Run, check_runs, quietly
from driftsim.errors import InputError, TraceError
from driftsim.latency.profile import Profile
from driftsim.simulation.names import FitSource
from driftsim.trace.trace import Trace
from driftsim.workloads.unfinished import caveats

ANOTHER = "give a profile with --profile: fitted to other runs (driftsim calibrate), or derived (driftsim profile)"
OWN = "the trace"  # what messages call a trace that is fitted for itself


def fit_profile(trace: Trace, digest: str = "") -> Profile:
    """A profile of ``trace``'s own steps. Raises ``TraceError`` if it has too few of them."""
    if trace.steps is None or len(trace.steps) < FEWEST_STEPS:
        have = "no steps table" if trace.steps is None else f"{len(trace.steps)} steps"
        untimed = " and no times of answers" if trace.requests["first_token_s"].isna().all() else ""
        raise TraceError(f"the trace has {have}{untimed}, a fit needs {FEWEST_STEPS} steps; {ANOTHER}")
    return calibrate([Run(OWN, trace, digest)], source="steps")


def fit_own_profile(trace: Trace) -> Profile:
    """A profile of ``trace``'s own steps, or, where it has none, of the timings of its requests.

    Raises ``TraceError`` if it has neither, or too few.
    """
    fitted = _fit_own(trace)
    # Whoever is given the trace is told its caveats already.
    twice = {f"{name}: {caveat}" for name in (OWN, trace.name) for caveat in caveats(trace)}
    return fitted.changed(warnings=tuple(warning for warning in fitted.warnings if warning not in twice))


def _fit_own(trace: Trace) -> Profile:
    has_steps = trace.steps is not None and len(trace.steps) >= FEWEST_STEPS
    if has_steps or trace.requests["first_token_s"].isna().all():
        return fit_profile(trace, trace.digest)
    try:
        return calibrate([Run(trace.name, trace, trace.digest)], source="requests")
    except TraceError as error:
        raise TraceError(f"{str(error).removesuffix(FORCE)}; {ANOTHER}") from None


def calibrate(
    runs: Sequence[Run],
    *,
    source: FitSource = "auto",
    until: float = np.inf,
    report: Callable[[str], None] = quietly,
    force: bool = False,
) -> Profile:
    """One profile for all ``runs``, which are of one model, GPU and engine; ``report`` hears of the progress.

    A profile that does not describe its timings is refused, or, with ``force``, marked by a warning.

    Only what had happened ``until`` that many seconds of each run is fitted.
    Raises ``TraceError`` if they are not, or are too short to fit.
    """
    if source not in get_args(FitSource):
        raise InputError(f"unknown source {source!r}; choose one of {', '.join(get_args(FitSource))}")
    if not runs:
        raise TraceError("no trace to calibrate with")
    several = next((run for run in runs if run.trace.header.replicas), None)
    if several is not None:
        raise TraceError(f"{several.name}: was served by several replicas, and a profile is of one engine; {ANOTHER}")
    warnings = check_runs(runs)
    with_steps = [run for run in runs if run.trace.steps is not None and len(run.trace.steps) >= FEWEST_STEPS]
    if source == "steps" and len(with_steps) < len(runs):
        lacking = next(run for run in runs if run not in with_steps)
        raise TraceError(f"{lacking.name}: has fewer than {FEWEST_STEPS} steps; fit it with --from requests")
    if source == "requests" or not with_steps:
        fitted = fit_requests(runs, until, report, warnings, force)
    else:
        for run in runs:
            if run not in with_steps:
                warnings.append(f"{run.name} has no steps and was left out of the fit, since others have some")
        fitted = fit_steps(with_steps, until, report, warnings, force)
    digests = tuple(dict.fromkeys(run.digest for run in runs if run.digest))
    return fitted.changed(fitted_on=digests, warnings=tuple(warnings))
