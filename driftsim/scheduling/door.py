"""The dispatcher in front of the engine, by where the policy stands: only in front does anybody wait in it."""

from __future__ import annotations

from typing import Any

from driftsim.request import Job, Request
from driftsim.scheduling.admission import Admission
from driftsim.scheduling.dispatcher import Dispatcher
from driftsim.scheduling.estimators import Estimate, Estimator
from driftsim.scheduling.names import Place
from driftsim.scheduling.placing import Ranked
from driftsim.scheduling.policies import Fifo, Policy


class Nobody:
    """Estimates nothing: that is done inside the engine."""

    def estimate(self, request: Request, category: str, now: float) -> Estimate:
        """Nothing is expected."""
        return Estimate(0, 1.0)

    def observe(self, job: Job, output_length: int, censored: bool, now: float) -> None:
        """Nothing is learned."""


class Door(Dispatcher):
    """In front of an engine that has the policy inside: everybody goes in at once, in order of arrival."""

    def __init__(self, admission: Admission) -> None:
        super().__init__(Fifo(), Nobody(), admission.changed(estimates="frozen"))


def front_of(place: Place, policy: Policy, estimator: Estimator, admission: Admission, *limits: Any) -> Dispatcher:
    """The dispatcher in front of an engine whose policy stands in ``place``; ``limits`` are those of ``Dispatcher``."""
    if place == "inside":
        return Door(admission)
    return Dispatcher(Ranked(policy) if place == "priority" else policy, estimator, admission, *limits)
