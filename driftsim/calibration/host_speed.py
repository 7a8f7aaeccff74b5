"""How fast the host was during each run: measured over fitted step time, of one step-time model for all the runs.

A virtual machine's host slows it down without a trace inside it; the steps show it. The scale also holds the step
model's own error, where runs differ in how their steps are composed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from driftsim.calibration.calibrate import calibrate
from driftsim.calibration.runs import FEWEST_STEPS, Run
from driftsim.errors import TraceError

NEARLY_THE_STEPS = 0.95  # share of a metric's variation that the speed explains, above which little else is left of it


@dataclass(frozen=True, slots=True)
class HostSpeeds:
    """The logarithm of each run's scale, in the order of the runs; above 0: slower. Empty where there is none: ``why``
    says what is missing."""

    logs: tuple[float, ...]
    why: str = ""


def host_speeds(runs: Sequence[Run]) -> HostSpeeds:
    """The sum of the measured step times over the sum of the fitted ones, of each of ``runs``, as a logarithm."""
    for run in runs:
        if run.trace.steps is None or len(run.trace.steps) < FEWEST_STEPS:
            return HostSpeeds((), f"{run.name} has no steps table, or fewer than {FEWEST_STEPS} steps")
    try:
        profile = calibrate(runs, source="steps", force=True)
    except TraceError as error:
        return HostSpeeds((), str(error))
    scales = [
        float(np.log(steps["duration_s"].sum() / profile.durations(steps).sum()))
        for steps in (run.trace.steps for run in runs)
        if steps is not None
    ]
    return HostSpeeds(tuple(scales))
