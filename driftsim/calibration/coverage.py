"""How far a run went, in batch and context, and whether that is beyond what a profile was fitted to."""

from __future__ import annotations

import numpy as np

from driftsim.latency.profile import Profile
from driftsim.trace.schema import FINISHED
from driftsim.trace.trace import Trace

SLACK = 1.1  # times what was seen is not yet beyond it


def extent(trace: Trace) -> tuple[int, int]:
    """The most requests that ran at once, and the most KV tokens that they held, each counted with its whole output."""
    rows = trace.requests
    reasons = rows["finish_reason"].to_numpy()  # arrays, since a sweep asks this of every run
    done = np.logical_or.reduce([np.asarray(reasons == reason, dtype=bool) for reason in FINISHED])

    def known(name: str) -> np.ndarray:
        found: np.ndarray = rows[name].to_numpy(dtype=float, na_value=np.nan)[done]
        return found

    begin, first, end = known("scheduled_s"), known("first_token_s"), known("finish_s")
    begin = np.where(np.isnan(begin), first, begin)
    size = known("prompt_tokens") + known("output_tokens")
    moments = np.concatenate([begin, end])
    ending = np.repeat([0, 1], len(begin))
    order = np.lexsort((1 - ending, moments))  # whoever leaves makes room first
    running = np.cumsum(np.repeat([1, -1], len(begin))[order])
    context = np.cumsum(np.concatenate([size, -size])[order])
    return int(running.max(initial=0)), int(context.max(initial=0))


def mismatch_warnings(profile: Profile, trace: Trace) -> list[str]:
    """Warnings where ``profile`` is of another model, GPU or engine version than ``trace`` was recorded with."""
    header = trace.header
    pairs = [
        ("model", profile.model, header.model),
        ("hardware", profile.hardware, header.hardware),
        ("engine version", profile.engine.version, header.engine.version),
    ]
    said = [
        f"the profile is of another {what} than the trace: {ours}, not {theirs}"
        for what, ours, theirs in pairs
        if ours != theirs and "unknown" not in (ours, theirs)
    ]
    silent = {what: ours for what, ours, theirs in pairs if theirs == "unknown" != ours}
    if silent:
        said.append(
            f"the trace does not tell its {' and '.join(silent)}; the profile is of {' and '.join(silent.values())}"
        )
    return said


def extrapolation_warnings(profile: Profile, trace: Trace) -> list[str]:
    """Warnings where ``trace``, simulated with ``profile``, went where no calibrating run has been."""
    if profile.seen is None:
        return []
    running, context = extent(trace)
    warnings = []
    for what, most, seen in (
        ("requests at once", running, profile.seen.running),
        ("KV tokens", context, profile.seen.context_tokens),
    ):
        if most > SLACK * seen:
            warnings.append(f"simulated up to {most:,} {what}, but the profile has seen {seen:,}: it is extrapolated")
    return warnings
