"""What a load is: a factor of a recorded rate, requests a second, or users; and what an engine serves of a backlog."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from driftsim.errors import InputError
from driftsim.metrics import service_start
from driftsim.simulation.capacity import capacity as backlog_rate
from driftsim.simulation.run import simulate
from driftsim.simulation.scenario import Scenario
from driftsim.simulation.spec import ScenarioSpec, build_workload
from driftsim.trace.trace import Trace
from driftsim.workloads.arrivals import arriving
from driftsim.workloads.generated import Tenant, WorkloadSpec
from driftsim.workloads.processes import Process
from driftsim.workloads.replay import first
from driftsim.workloads.workload import Workload

SAMPLE = 500  # requests of the backlog that says how fast the engine is


@dataclass(frozen=True)
class LoadAxis:
    """How ``spec`` is pressed: by ``scale``, a factor of its arrival rate, by ``rate`` or by ``users``.

    unit_rate: requests a second at a load of 1; NaN for users, and where none is known. kept: sentences on what no
    load changes.
    """

    kind: Literal["scale", "rate", "users"]
    unit_rate: float
    kept: tuple[str, ...] = ()

    @property
    def whole(self) -> bool:
        """Loads are whole numbers."""
        return self.kind == "users"

    @property
    def unit(self) -> str:
        """The unit of a load, as text."""
        return {"scale": "x the rate", "rate": "requests/s", "users": "users"}[self.kind]

    def at(self, spec: ScenarioSpec, load: float) -> ScenarioSpec:
        """``spec`` under ``load``."""
        if spec.arrivals is not None:
            pace = {"users": round(load)} if self.kind == "users" else {"rate": load}
            return spec.with_parts({"arrivals": spec.arrivals.changed(**pace)})
        if spec.workload is None:
            return spec.with_parts({"rate_scale": load})
        if self.kind == "users":
            return spec.with_parts({"workload": spec.workload.changed(users=round(load))})
        if self.kind == "rate":
            return spec.with_parts({"workload": spec.workload.changed(rate=load)})
        tenants = tuple(_pressed(tenant, load) for tenant in spec.workload.tenants)
        return spec.with_parts({"workload": spec.workload.changed(tenants=tenants)})


def _pressed(tenant: Tenant, load: float) -> Tenant:
    """``tenant`` whose own arrivals come ``load`` times as fast; a backlog stays one."""
    if tenant.rate is not None:
        return tenant.changed(rate=load * tenant.rate)
    if tenant.arrivals is None or tenant.arrivals.rate is None:
        return tenant
    return tenant.changed(arrivals=tenant.arrivals.changed(rate=load * tenant.arrivals.rate))


def axis_of(spec: ScenarioSpec, trace: Trace | None, recorded_rate: float | None) -> LoadAxis:
    """The load axis of ``spec``; ``trace`` is the run that it replays. Raises ``InputError`` where there is none."""
    if spec.arrivals is not None:
        return _of_kind(spec.arrivals.kind)
    if spec.workload is None:
        assert trace is not None
        phases = trace.header.workload.phases
        fixed = next((phase for phase in phases if phase.kind in ("closed", "backlog")), None)
        if fixed is not None:
            raise InputError(
                f"{trace.name}: phase {fixed.name!r} is {fixed.kind} and has no arrival rate to press; say how its "
                "requests should arrive, as --arrivals poisson or --arrivals closed"
            )
        return LoadAxis("scale", np.nan if recorded_rate is None else recorded_rate, tuple(_kept(trace)))
    return _axis_of_workload(spec.workload)


def _kept(trace: Trace) -> Iterator[str]:
    """What a scale of the rate of ``trace`` leaves as it is."""
    phases = trace.header.workload.phases
    for phase in phases:
        if phase.kind == "after-drain":
            yield (
                f"phase {phase.name!r} begins when all before it has left, at every load; the gaps inside the phases "
                "are what is scaled"
            )
        if phase.kind == "capped":
            yield (
                f"phase {phase.name!r} holds requests back while {phase.users} are out, and their time counts from "
                "when they are sent: at a high load it is a closed loop of so many users, which no rate presses harder"
            )
    if "parent" in trace.requests and any(map(len, trace.requests["parent"])):
        yield (
            "the load is the rate at which sessions begin; a later turn comes as long after the answer before it as it "
            "did when it was recorded"
        )


def _of_kind(kind: str) -> LoadAxis:
    if kind == "backlog":
        raise InputError("a backlog has no load: all requests are there at once; give arrivals at a rate, or users")
    return LoadAxis("users", np.nan) if kind == "closed" else LoadAxis("rate", 1.0)


def _axis_of_workload(workload: WorkloadSpec) -> LoadAxis:
    if workload.kind is not None:
        return _of_kind(workload.kind)
    rates = [process.rate or 0.0 for tenant in workload.tenants if (process := tenant.process) is not None]
    if not sum(rates):
        raise InputError("no tenant has an arrival rate to press; give one a rate")
    return LoadAxis("scale", sum(rates))


def sample_of(axis: LoadAxis, spec: ScenarioSpec, find: Callable[[str], Trace]) -> tuple[Workload, int]:
    """The first requests of ``spec``, as they are in a backlog that shows its engine's speed; and how many it has.

    No turn of a drawn session waits for another there: else users and tools would keep the engine waiting.
    """
    workload = build_workload(axis.at(spec, 1.0), find)
    total = len(workload)
    sample = replace(first(workload, min(SAMPLE, total)), notes=())
    if spec.workload is not None and "parent" in sample.table:
        sample = replace(sample, table=sample.table.drop(columns=["session", "parent", "gap_s"]))
    return sample, total


def turns_of(axis: LoadAxis, spec: ScenarioSpec, find: Callable[[str], Trace]) -> float:
    """Requests for each that arrives by the law of ``spec``: the turns of a drawn session."""
    if spec.workload is None:
        return 1.0
    workload = build_workload(axis.at(spec, 1.0), find)
    if "parent" not in workload.table:
        return 1.0
    return len(workload) / max(1, int((workload.table["parent"].map(len) == 0).sum()))


def served_rate(sample: Workload, scenario: Scenario) -> float:
    """Requests a second that the engine of ``scenario`` serves of a backlog of ``sample``, in its own order.

    Limits of the queue are none here: they would turn the backlog away.
    """
    return backlog_rate(sample, _in_its_own_order(scenario))


def full_rate(sample: Workload, scenario: Scenario) -> float:
    """The same while somebody still waits: requests, in parts, that are served until the last one begins, a second.

    What the engine serves in the end, when its slots empty one by one, is not in it: with many slots, or few requests,
    that would be much. Where nobody waits it is ``served_rate``.
    """
    run = simulate(_in_its_own_order(scenario), arriving(sample, Process(kind="backlog"), seed=0)).finished
    begun, ended = service_start(run), run["finish_s"].to_numpy(dtype=float)
    last = float(begun.max())
    if not last > float(ended.min()):
        return served_rate(sample, scenario)
    return float(np.clip((last - begun) / (ended - begun), 0.0, 1.0).sum()) / (last - float(run["arrival_s"].min()))


def _in_its_own_order(scenario: Scenario) -> Scenario:
    return replace(scenario, policy="stock", estimator="static", max_in_flight=None, shed=())
