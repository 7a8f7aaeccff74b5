"""How a workload is run through a live engine, and the header that says so as the run begins."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from driftsim.clients import PATIENT, Clients
from driftsim.live.engine import LiveEngine
from driftsim.live.machine import hardware, software
from driftsim.scheduling.dispatcher import Dispatching
from driftsim.slo import Slo
from driftsim.trace.header import Header, Turn
from driftsim.version import __version__
from driftsim.workloads.workload import Workload


@dataclass(frozen=True, kw_only=True)
class CapturePlan(Dispatching):
    """How to run a workload; ``force_lengths``: every output is made exactly as long as the workload says. ``turn``:
    where the run stands in a capture of several, for its header. ``clients``: when they give up, and whether they send
    again; by default as the workload says. ``slos``: what the requests are judged by, and policies that go by SLOs."""

    force_lengths: bool = False
    turn: Turn | None = None
    clients: Clients = PATIENT
    slos: tuple[Slo, ...] = ()


def heading(workload: Workload, engine: LiveEngine, plan: CapturePlan, limit: int | None) -> Header:
    """The header of ``workload`` on ``engine`` under ``plan``, with at most ``limit`` requests inside the engine."""
    forced = {"force_lengths": True} if plan.force_lengths else {}
    return Header(
        kind="captured",
        driftsim_version=__version__,
        engine=engine.settings,
        engine_arguments=engine.arguments | forced,
        model=Path(engine.model).name,
        hardware=hardware(),
        software=software(),
        workload=workload.info,
        admission={
            "policy": plan.policy,
            "estimator": plan.estimator,
            **plan.admission.model_dump(mode="json"),
            **({"place": plan.placed} if plan.placed != "front" else {}),
            **({"shed": [str(rule) for rule in plan.shed]} if plan.shed else {}),
        },
        clients=plan.clients.over(workload.clients),
        max_in_flight=limit,
        tiers=plan.tiers,
        slos=plan.slos,
        seed=plan.seed,
        clocks=engine.clocks,
        captured_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        turn=plan.turn,
        notes=workload.notes,
    )
