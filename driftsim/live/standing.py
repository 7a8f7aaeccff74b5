"""A policy inside a live engine: it is sent there, and what it expected comes back at the end of the run."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from driftsim.live.engine import LiveEngine, check_hosts
from driftsim.live.lives import Lives
from driftsim.live.orders import Orders, read_estimates
from driftsim.live.plan import CapturePlan
from driftsim.request import Job
from driftsim.tiers import TierRule


def sent_inside(engine: LiveEngine, plan: CapturePlan, rules: Sequence[TierRule], began: float) -> Path | None:
    """Where the estimates of a policy inside ``engine`` come to stand, which decides from now on; None: there is none.

    Raises ``InputError`` where ``engine`` cannot have it.
    """
    check_hosts(engine, plan.placed)
    if plan.placed != "inside":
        return None
    orders = Orders(
        run=time.monotonic_ns(),
        policy=plan.policy,
        estimator=plan.estimator,
        admission=plan.admission,
        tiers=tuple(rules),
        slos=plan.slos,
        seed=plan.seed,
        began=began,
    )
    file: Path = engine.stand(orders)  # type: ignore[attr-defined]  # see ``check_hosts``
    return file


def expected(job: Job, inside: bool) -> dict[str, Any]:
    """What admission expects of ``job``; nothing is known yet where that is done ``inside`` the engine."""
    if inside:
        return {}
    return {
        "bias": job.bias,
        "scheduling_class": job.scheduling_class,
        "estimate": job.estimate,
        "budget": job.budget,
    }


def fill_in(lives: Lives, file: Path | None) -> None:
    """Note what the policy inside expected, if there was one."""
    if file is not None:
        for row, values in read_estimates(file).items():
            lives.set(row, values)
