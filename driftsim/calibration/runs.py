"""The recorded runs that a calibration is given, and whether they can share a profile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from driftsim.calibration.coverage import extent
from driftsim.errors import TraceError
from driftsim.latency.profile import Coverage, Profile
from driftsim.trace.trace import Trace, check_each_once
from driftsim.workloads.unfinished import caveats

FEWEST_STEPS = 30
FEWEST_REQUESTS = 30
MOST_ROWS = 20_000  # that choose the form; all of them fit it
ONE_LOAD = 1.5  # the ratio of a large to a small batch, below which one load alone was seen


@dataclass(frozen=True, eq=False)
class Run:
    """A recorded run, its name for messages, and its digest for the profile."""

    name: str
    trace: Trace
    digest: str = ""


def quietly(message: str) -> None:
    """Report nothing."""


def check_runs(runs: Sequence[Run]) -> list[str]:
    """Warnings about ``runs``; raises ``TraceError`` where they cannot share a profile."""
    warnings = []
    first = runs[0]
    check_each_once((run.name, run.digest) for run in runs)
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
        warnings += [f"{run.name}: {caveat}" for caveat in caveats(run.trace)]
    return warnings


def blank_profile(runs: Sequence[Run]) -> Profile:
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


def coverage_of(traces: Sequence[Trace], prefill_tokens: int) -> Coverage:
    running, context = (max(values) for values in zip(*(extent(trace) for trace in traces), strict=True))
    return Coverage(running=running, context_tokens=context, prefill_tokens=prefill_tokens)
