"""What a run's requests cost each other: the verb that holds each against what it would have taken alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from driftsim.inputs import AnyProfile, AnyTrace, as_barrier, as_profile, as_trace
from driftsim.simulation.alone import alone_times, sizes_of
from driftsim.simulation.names import EngineName
from driftsim.simulation.scenario import Barrier, Scenario
from driftsim.simulation.spec import ScenarioSpec, build_scenario
from driftsim.tenancy import Alone, fairness_summary
from driftsim.trace.trace import Trace


def fairness(
    trace: AnyTrace,
    *,
    profile: AnyProfile | None = None,
    engine: EngineName | Barrier = "continuous",
    phase: str = "all",
) -> dict[str, Any]:
    """How much the requests of ``trace`` slowed each other down, and what service each tenant got while it waited.

    profile: of the engine, on which a request of each size is simulated alone; without one, it is fitted to the trace's
    own steps. phase: of its requests only. The keys are those that ``driftsim columns metrics`` lists, and
    ``per_tenant``. Raises ``InputError`` as ``simulate`` does.

    >>> found = fairness("traces/smollm2-cpu-drift")
    >>> round(found["slowdown_p50"], 1), round(found["per_tenant"]["premium"]["backlogged_share"], 2)
    (5.3, 0.36)
    """
    recorded = as_trace(trace)
    scenario = Scenario(profile=as_profile(profile, recorded), barrier=as_barrier(engine))
    return fairness_summary(recorded, alone_times(sizes_of(recorded.requests), scenario), phase)


def alone_in(file: Path, spec: ScenarioSpec, trace: Trace) -> Alone:
    """What the requests of ``trace``, a run of ``spec`` in ``file``, would take alone on the scenario's engine."""
    here = spec.placed(lambda path: str(file.parent / path))
    profile = as_profile(here.profile, None if here.profile else as_trace(str(here.trace)))
    return alone_times(sizes_of(trace.requests), build_scenario(spec, profile))
