"""A life is a recorded run, simulated as it was measured with some profile: a second one beside the recorded."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from driftsim.calibration.overlap import Excerpt
from driftsim.latency.profile import Profile
from driftsim.simulation.as_measured import anchored, as_measured
from driftsim.simulation.run import simulate
from driftsim.trace.schema import FINISHED
from driftsim.trace.trace import Trace


@dataclass(frozen=True, eq=False)
class PairedRun:
    """A recorded run beside its simulation, whose requests are in the recorded order and whose steps may be known."""

    part: Excerpt
    recorded: pd.DataFrame
    trace: Trace
    submit_lag: float
    output_lag: float

    @property
    def simulated(self) -> pd.DataFrame:
        """The simulated requests."""
        return self.trace.requests

    @property
    def steps(self) -> pd.DataFrame:
        """The simulated steps."""
        assert self.trace.steps is not None
        return self.trace.steps

    @cached_property
    def finished(self) -> np.ndarray:
        """Which requests finished on both sides: those that were given up are load, and no measure."""
        sides = (rows["finish_reason"].isin(FINISHED).to_numpy() for rows in (self.recorded, self.simulated))
        return np.asarray(np.logical_and(*sides))


def resimulate(part: Excerpt, profile: Profile, loops: bool, steps: bool = True) -> PairedRun:
    """Simulate ``part`` as it was measured; ``loops``: arrivals that waited for ends wait for the simulated ones.

    ``steps``: whether they are kept.
    """
    trace = part.trace
    scenario, workload = as_measured(trace, profile, loops=loops, workload=part.workload(loops))
    run = anchored(trace, simulate(scenario, workload, record_steps=steps))
    recorded, order = trace.requests, run.requests["request_id"]
    if not np.array_equal(recorded["request_id"], order):
        recorded = recorded.set_index("request_id").loc[order].reset_index()
    return PairedRun(part, recorded, run, scenario.profile.submit_lag_s, profile.output_lag_s)
