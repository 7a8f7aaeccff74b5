"""What a run's requests cost each other: the verb that holds each against what it would have taken alone."""

from __future__ import annotations

from typing import Any

from driftsim.errors import InputError
from driftsim.inputs import AnyProfile, AnyTrace, as_barrier, as_profile, as_trace
from driftsim.simulation.alone import alone_times, sizes_of
from driftsim.simulation.names import BATCHED, EngineName
from driftsim.simulation.scenario import Barrier, Scenario
from driftsim.tenancy import fairness_summary


def fairness(
    trace: AnyTrace,
    *,
    profile: AnyProfile | None = None,
    engine: EngineName | Barrier | None = None,
    phase: str = "all",
) -> dict[str, Any]:
    """How much the requests of ``trace`` slowed each other down, and what service each tenant got while it waited.

    profile: of the engine, on which a request of each size is simulated alone; without one, it is fitted to the trace's
    own steps. engine: what served it; a trace of a barrier's worker needs it, the others are of continuous batching.
    phase: of its requests only. The keys are those that ``driftsim columns metrics`` lists, and
    ``per_tenant``. Raises ``InputError`` as ``simulate`` does.

    >>> found = fairness("traces/smollm2-cpu-drift")
    >>> round(found["slowdown_p50"], 1), round(found["per_tenant"]["premium"]["backlogged_share"], 2)
    (5.3, 0.36)
    """
    recorded = as_trace(trace)
    if engine is None and recorded.header.engine.name == BATCHED:
        raise InputError(
            f'{recorded.name}: a barrier\'s worker served it, whose constants no trace tells; give engine="barrier", '
            "or the Barrier that it was"
        )
    scenario = Scenario(profile=as_profile(profile, recorded), barrier=as_barrier(engine or "continuous"))
    return fairness_summary(recorded, alone_times(sizes_of(recorded.requests), scenario), phase)
