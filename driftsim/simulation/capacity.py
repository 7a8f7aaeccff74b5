"""Capacity: how many requests a second an engine serves when it never lacks work."""

from __future__ import annotations

from driftsim.metrics import makespan
from driftsim.simulation.run import simulate
from driftsim.simulation.scenario import Scenario
from driftsim.workloads.arrivals import Process, arriving
from driftsim.workloads.workload import Workload


def capacity(workload: Workload, scenario: Scenario) -> float:
    """Requests a second that ``scenario`` serves of ``workload`` if all requests are there at time 0; NaN if none.

    Raises ``InputError`` as ``simulate`` does.
    """
    backlog = arriving(workload, Process(kind="backlog"), seed=0)
    served = simulate(scenario, backlog).finished
    return len(served) / makespan(served)
