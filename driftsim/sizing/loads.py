"""What a load is: a factor of a recorded rate, requests a second, or users; and where the search for one begins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from driftsim.errors import InputError
from driftsim.latency.profile import Profile
from driftsim.simulation.capacity import capacity as backlog_rate
from driftsim.simulation.spec import ScenarioSpec, build_scenario, build_workload
from driftsim.trace.trace import Trace
from driftsim.workloads.generated import Tenant, WorkloadSpec
from driftsim.workloads.replay import first

SAMPLE = 500  # requests of the backlog that says how fast the engine is
GUESS = 0.7  # of the rate at which a backlog is served: the first load that is tried
FURTHEST = 50.0  # from it to the lowest load, if no other is given
HIGHEST = 5.0  # times the first load, likewise
TURNS = 10  # requests that each user sends at least


@dataclass(frozen=True)
class LoadAxis:
    """How ``spec`` is pressed: by ``scale``, a factor of its arrival rate, by ``rate`` or by ``users``.

    unit_rate: requests a second at a load of 1; NaN for users, and where none is known.
    """

    kind: Literal["scale", "rate", "users"]
    unit_rate: float

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
        return LoadAxis("scale", np.nan if recorded_rate is None else recorded_rate)
    return _axis_of_workload(spec.workload)


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


@dataclass(frozen=True)
class Bounds:
    """Where a search begins, and the loads beyond which it does not go; ``backlog``: requests a second of a backlog."""

    first: float
    lowest: float
    highest: float
    backlog: float


def bounds_of(
    axis: LoadAxis, spec: ScenarioSpec, profile: Profile, find: Callable[[str], Trace],
    lowest: float | None, highest: float | None,
) -> Bounds:  # fmt: skip
    """Where to look for the capacity of ``spec``: around what its engine serves of a backlog, within what is asked.

    ``find`` gives the recorded run at a path. Raises ``InputError`` for bounds that leave nothing.
    """
    workload = build_workload(axis.at(spec, 1.0), find)
    total = len(workload)
    workload = replace(first(workload, min(SAMPLE, total)), notes=())
    scenario = build_scenario(spec, profile)
    backlog = backlog_rate(workload, replace(scenario, policy="stock", estimator="static", max_in_flight=None))
    if axis.whole:
        guess = float(scenario.limit or scenario.profile.engine.max_num_seqs)
        least, most = 1.0, float(max(2, total // TURNS))
    else:
        guess = GUESS * backlog / axis.unit_rate
        guess = guess if np.isfinite(guess) and guess > 0 else 1.0
        least, most = guess / FURTHEST, guess * HIGHEST
    least, most = (given if given is not None else usual for given, usual in ((lowest, least), (highest, most)))
    if not 0 < least < most:
        raise InputError(f"the lowest load must be above 0 and below the highest, got {least:g} and {most:g}")
    if axis.whole:
        least, most = float(np.ceil(least)), float(np.floor(most))
    return Bounds(min(max(guess, least), most), least, most, backlog)
