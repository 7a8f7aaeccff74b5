"""A check sets what the recorded run measured beside its own simulation: may the comparison be believed?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from driftsim.calibration.calibrate import calibrate
from driftsim.calibration.runs import FEWEST_REQUESTS, Run
from driftsim.errors import InputError
from driftsim.goodput import with_slos
from driftsim.latency.profile import Profile
from driftsim.metrics import summary
from driftsim.simulation.as_measured import simulate_as_measured
from driftsim.trace.schema import FINISHED
from driftsim.trace.trace import Trace


@dataclass(frozen=True, eq=False)
class Check:
    """What was compared, in words, and the summaries of both sides; ``failed`` says why there are none."""

    what: str
    measured: dict[str, Any]
    simulated: dict[str, Any]
    failed: str = ""


def is_measured(trace: Trace) -> bool:
    """Whether ``trace`` tells when requests were answered on a real engine."""
    times = trace.requests[["first_token_s", "finish_s"]].notna().all(axis=1)
    return trace.header.kind != "simulated" and bool(times.any())


def as_measured_check(trace: Trace, profile: Profile, name: str) -> Check:
    """The recorded run beside its simulation with ``profile``, which was fitted to other runs or to its own steps.

    Both are judged by the SLOs in the header of ``trace``, as in every check.
    """
    what = f"the recorded run against its own simulation with {name}"
    try:
        return _check(what, trace, simulate_as_measured(trace, profile), trace.requests["request_id"])
    except InputError as error:
        return Check(what, {}, {}, str(error))


def held_out_check(trace: Trace) -> Check:
    """Held out in time: a profile fitted to what finished in the first half of ``trace`` simulates what finished later.

    The halves are equal in requests: an overload that came in a moment has nothing finished at half of its arrivals.
    """
    rows = trace.finished
    cut = float(np.median(rows["finish_s"]))
    later = rows["request_id"][rows["finish_s"] > cut]
    what = f"held out: fitted to what finished in its first {cut:.3g} s, the {len(later)} requests that finished later"
    if len(rows) - len(later) < FEWEST_REQUESTS:
        return Check(what, {}, {}, f"fewer than {FEWEST_REQUESTS} requests finished by then, too few for a fit")
    try:
        profile = calibrate([Run("its first half", trace)], source="requests", until=cut)
        return _check(what, trace, simulate_as_measured(trace, profile), later)
    except InputError as error:
        return Check(what, {}, {}, str(error))


def checks_of(trace: Trace, profile: Profile, *, own: bool) -> tuple[Check, ...]:
    """The checks of a recorded ``trace``; ``own``: ``profile`` was fitted to that trace itself."""
    if not is_measured(trace):
        return ()
    if own and profile.fit is not None and profile.fit.source == "requests":
        return (held_out_check(trace),)
    return (as_measured_check(trace, profile, "its profile" if own else "the given profile"),)


def checks_of_days(traces: Sequence[Trace], profile: Profile, *, own: bool, several: bool) -> list[Check]:
    """The checks of each recorded day, called by the day's name where there are ``several`` days."""
    found = [(trace, one) for trace in traces for one in checks_of(trace, profile, own=own)]
    return [replace(one, what=f"{trace.name}, {one.what}") if several else one for trace, one in found]


def _check(what: str, measured: Trace, simulated: Trace, requests: pd.Series) -> Check:
    """Over those of ``requests`` that finished on both sides."""
    sides = [trace.requests[trace.requests["finish_reason"].isin(FINISHED)] for trace in (measured, simulated)]
    both = set(requests) & set(sides[0]["request_id"]) & set(sides[1]["request_id"])
    parts = [rows[rows["request_id"].isin(both)].reset_index(drop=True) for rows in sides]
    if not both:
        return Check(what, {}, {}, "none of them finished on both sides")
    real, ours = (
        summary(with_slos(replace(trace, requests=rows), measured.header.slos))
        for trace, rows in zip((measured, simulated), parts, strict=True)
    )
    return Check(what, real, ours)
