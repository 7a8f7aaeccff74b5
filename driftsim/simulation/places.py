"""What a scenario's place makes of the parts of a run: the dispatcher in front, and the policy inside the engine."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from driftsim.engine.inside import InsideEngine, inside
from driftsim.engine.sequence import Sequence
from driftsim.request import Job, Request
from driftsim.scheduling.admission import Admission
from driftsim.scheduling.dispatcher import Departure, Dispatcher, Engine
from driftsim.scheduling.estimators import Estimate, Estimator
from driftsim.scheduling.inside import Inside
from driftsim.scheduling.placing import Ranked
from driftsim.scheduling.policies import Fifo, Policy
from driftsim.simulation.scenario import Scenario


class Nobody:
    """Estimates nothing: that is done inside the engine."""

    def estimate(self, request: Request, category: str, now: float) -> Estimate:
        """Nothing is expected."""
        return Estimate(0, 1.0)

    def observe(self, job: Job, output_length: int, censored: bool, now: float) -> None:
        """Nothing is learned."""


class Door(Dispatcher):
    """The dispatcher in front of an engine that has the policy inside: everybody goes in at once, in order of arrival."""

    def __init__(self, admission: Admission) -> None:
        super().__init__(Fifo(), Nobody(), admission.changed(estimates="frozen"))


def front_of(
    scenario: Scenario, policy: Policy, estimator: Estimator, admission: Admission, *limits: Any
) -> Dispatcher:
    """The dispatcher in front of the engine of ``scenario``, with ``limits`` as ``Dispatcher`` has them."""
    if scenario.placed == "inside":
        return Door(admission)
    return Dispatcher(Ranked(policy) if scenario.placed == "priority" else policy, estimator, admission, *limits)


def engine_with(
    place: Inside, kind: Callable[..., Engine], departure: Callable[[Sequence], Departure]
) -> Callable[..., InsideEngine]:
    """An engine of ``kind`` that asks the policy in ``place``, which learns what ``departure`` tells."""
    assert isinstance(kind, type)  # no barrier's worker: see ``Scenario``
    return partial(inside(kind), place, departure)
