"""Guards on a fit: a profile that does not describe its timings is refused, with the likeliest reason.

A fit always gives numbers. Whether they mean anything shows in three things: the errors that are left, whether the
rounds of simulating and fitting came to rest, and whether the timings are such as an engine makes at all.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from driftsim.calibration.runs import Run
from driftsim.errors import TraceError
from driftsim.latency.profile import Profile
from driftsim.metrics import tpot
from driftsim.trace.schema import FASTEST_S, SLOWEST_S
from driftsim.workloads.unfinished import as_far_as_known

STEP_ERROR = 0.6  # mean relative error of a step's time, above which the model describes nothing
DECODE_ERROR = 0.25  # of a request's decode time, in which the noise of many steps averages out
PERCENTILE_ERROR = 0.25  # of simulated percentiles of TTFT, TPOT and E2E; on the noisiest real run 0.13
UNSETTLED = 0.1  # of the mean duration: what the last round may still move a term by
UNLIKE = 0.3  # median difference of log TPOT between requests that ran at the same time; on real engines up to 0.1
NO_INTERCEPT = 0.02  # share of the time per output token, below which a step seems to read no weights
SLOW_HOST_S = 0.1  # HTTP and tokenisation take milliseconds
GOOD = 0.05  # errors below which it does not matter that two terms may still trade places
MISSING = 0.05  # share of the requests whose load may be unknown before it is the likeliest reason
FORCE = "; driftsim calibrate --force writes it all the same"
FEWEST = 20  # requests that tell whether neighbours are alike


def check_timings(run: Run) -> None:
    """Raise ``TraceError`` if the times of ``run`` are such as no engine has: most likely another unit."""
    pace = float(tpot(run.trace.finished).median())
    if pace > SLOWEST_S:
        raise TraceError(
            f"{run.name}: an output token takes {pace:,.3g} s in the median; the times look like milliseconds "
            '(import with units = { all = "ms" }); --force fits them as they are'
        )
    if 0 < pace < FASTEST_S:
        raise TraceError(
            f"{run.name}: an output token takes {1e6 * pace:,.3g} us in the median; the times look like seconds that "
            "were taken for another unit, the answers were not streamed, or output_tokens is no count of tokens; "
            "--force fits them as they are"
        )


def describes(profile: Profile, runs: Sequence[Run], percentiles: float | None, moved: float | None) -> str:
    """What shows that ``profile`` does not describe the ``runs`` that it was fitted to; empty if it does.

    ``percentiles``: the mean error of the simulated ones, relative. ``moved``: by how much the last round of a fit to
    requests moved a term, as a share of the mean duration.
    """
    assert profile.fit is not None
    error = profile.fit.mean_absolute_percentage_error
    if profile.fit.source == "steps":
        return f"a step's time is off by {100 * error:.0f} % in the mean" if error > STEP_ERROR else ""
    if error > DECODE_ERROR or (error > DECODE_ERROR / 2 and any(_unlike(run) > UNLIKE for run in runs)):
        return f"a request's decode time is off by {100 * error:,.0f} % in the mean"
    if percentiles is not None and percentiles > PERCENTILE_ERROR:
        return f"simulated percentiles of TTFT, TPOT and E2E are off by {100 * percentiles:.0f} % in the mean"
    if moved is not None and moved > UNSETTLED and max(error, percentiles or 0.0) > GOOD:
        return f"the fit does not settle: its last round still moved a term by {100 * moved:.0f} %"
    return ""


def unphysical(profile: Profile, runs: Sequence[Run]) -> list[str]:
    """Warnings about coefficients that no engine has, however well they repeat the runs that they were fitted to."""
    said = []
    pace = float(np.median([tpot(run.trace.finished).median() for run in runs]))
    if profile.intercept_s < NO_INTERCEPT * pace:
        said.append(f"intercept_s is {profile.intercept_s:.2g} s, but every step reads the weights")
    fitted = profile.fit is not None and profile.fit.source == "requests"  # in a fit to steps, lags are measured
    for name in ("submit_lag_s", "output_lag_s"):
        lag = getattr(profile, name)
        if fitted and lag > SLOW_HOST_S:
            said.append(f"{name} is {lag:.2g} s, an overhead of each request that no host has")
    return [
        f"the profile is not physical: {one}; do not trust it at other loads, and capture another run" for one in said
    ]


def refuse_fit(problem: str, runs: Sequence[Run], force: bool, warnings: list[str]) -> None:
    """Raise ``TraceError`` with ``problem`` and its likeliest reason; warn of it where ``force`` is set."""
    said = f"the profile does not describe these timings: {problem}; likely, {likeliest_reason(runs)}"
    if not force:
        raise TraceError(f"{said}{FORCE}")
    warnings.append(f"forced: {said}")


def likeliest_reason(runs: Sequence[Run]) -> str:
    """Why timings may not be such as this engine would make, as a sentence that names the remedy."""
    for run in runs:
        rows = run.trace.requests
        lost = 1 - len(as_far_as_known(run.trace)) / len(rows)
        if lost > MISSING:
            return (
                f"{100 * lost:.0f} % of the requests of {run.name} have no known output, so that their load is missing"
            )
        unlike = _unlike(run)
        if unlike > UNLIKE:
            return (
                f"in {run.name}, requests that ran at the same time differ {np.exp(unlike):.1f}-fold in their time per "
                "output token, though they share their steps: output_tokens may be characters or words, or another "
                "column"
            )
    if all(phase.kind == "open" for run in runs for phase in run.trace.header.workload.phases):
        return (
            "other load than this was on the engine, or its arrivals waited for answers (say so with users = N in the "
            "mapping), or the engine's settings are others (give [engine] in the mapping)"
        )
    return "other load than this was on the engine, or its settings are others (give [engine] in the mapping)"


def _unlike(run: Run) -> float:
    """The median difference of log TPOT between each request and the next one by the middle of its decode time."""
    rows = run.trace.finished
    rows = rows[rows["output_tokens"] >= 8]
    paces = tpot(rows).to_numpy(dtype=float)
    middle = (rows["first_token_s"] + rows["finish_s"]).to_numpy(dtype=float)
    known = np.isfinite(paces) & (paces > 0)
    if known.sum() < FEWEST:
        return 0.0
    ordered = np.log(paces[known])[np.argsort(middle[known], kind="stable")]
    return float(np.median(np.abs(np.diff(ordered))))
