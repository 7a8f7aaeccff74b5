"""The header of a simulated run: everything that determined it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from driftsim.scheduling.admission import Admission
from driftsim.simulation.names import BATCHED
from driftsim.simulation.scenario import Scenario
from driftsim.trace.header import Header
from driftsim.version import __version__
from driftsim.workloads.workload import Workload

CLOCKS = "simulated seconds since the run began, exact to a picosecond"


def heading(
    scenario: Scenario,
    workload: Workload,
    admission: Admission,
    requests: pd.DataFrame,
    starts: Sequence[float],
    lost: int,
    levels: Sequence[float] = (),
) -> Header:
    """The header of the run of ``workload`` under ``scenario`` that came to the table ``requests``.

    ``admission``: as it was in force. ``starts``: when each phase began (s). ``lost``: turns that were never sent.
    ``levels``: of the quantiles that came with each estimate.
    """
    profile = scenario.profile
    switches: dict[str, Any] = {
        "refill_lag": scenario.refill_lag,
        "noise": scenario.noise,
        **admission.model_dump(mode="json"),
    }
    if levels:
        switches["levels"] = list(levels)
    if scenario.placed != "front":
        switches["place"] = scenario.placed
    if scenario.shed:
        switches["shed"] = [str(rule) for rule in scenario.shed]
    asked = requests[requests["attempt"] == 1] if "attempt" in requests else requests
    counts = asked["phase"].value_counts()
    phases = tuple(
        phase.changed(start_s=start, requests=int(counts[phase.name]))
        for phase, start in zip(workload.info.phases, starts, strict=True)
    )
    notes = workload.notes
    if lost:
        notes += (f"{lost} of {len(workload)} turns were never sent: the one before them failed",)
    return Header(
        kind="simulated",
        driftsim_version=__version__,
        engine=scenario.engine.changed(name="continuous" if scenario.barrier is None else BATCHED),
        model=profile.model,
        hardware=profile.hardware,
        workload=workload.info.changed(phases=phases),
        admission={"policy": scenario.policy, "estimator": scenario.estimator, **switches},
        max_in_flight=scenario.limit,
        tiers=scenario.tiers or workload.tiers,
        slos=scenario.slos,
        replicas=scenario.replicas.model_dump(mode="json", exclude_defaults=True) if scenario.replicas else {},
        clients=scenario.clients.over(workload.clients),
        seed=scenario.seed,
        profile_digest=profile.digest,
        clocks=CLOCKS,
        prefixes=workload.prefixes,
        drift=workload.drift,
        notes=notes,
    )
