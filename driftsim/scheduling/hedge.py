"""A hedge weighs the estimates of several by how little each has erred, and never errs much more than the best."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Annotated, ClassVar

from pydantic import Field

from driftsim.request import Job, Request
from driftsim.scheduling.admission import Admission
from driftsim.scheduling.estimate import Estimate, Estimator, expecting, neutral

Rate = Annotated[float, Field(gt=0, description="An error of max_tokens costs a factor of e to this power.")]
Share = Annotated[float, Field(ge=0, lt=1, description="Part of the weights that is given to all alike, each time.")]


class FixedShare:
    """A mixture of several estimates with exponential weights, of which a share is dealt out anew after each output.

    A subclass names ``experts``. The loss is the error of what each said *at admission*, as a share of ``max_tokens``.
    """

    experts: ClassVar[Sequence[Callable[[Admission], Estimator]]] = ()

    def __init__(self, admission: Admission, *, rate: Rate = 2.0, share: Share = 0.01) -> None:
        self.admission, self.rate, self.share = admission, rate, share
        self.members = [kind(admission) for kind in self.experts]
        self.weights = [1 / len(self.members)] * len(self.members)
        self._said: dict[str, list[int]] = {}  # of unfinished requests, by request id

    def estimate(self, request: Request, category: str, now: float) -> Estimate:
        """The weighted mean of what each says, none of it above ``max_tokens``."""
        cap = request.max_tokens
        said = [min(member.estimate(request, category, now).length, cap) for member in self.members]
        self._said.setdefault(request.id, said)
        length = math.fsum(weight * one for weight, one in zip(self.weights, said, strict=True))
        return expecting(length, neutral(self.admission, request, category), request)

    def observe(self, job: Job, output_length: int, censored: bool, now: float) -> None:
        """Weigh each by the error of what it said first, and let each learn."""
        if said := self._said.pop(job.request.id, None):
            scale = self.rate / job.request.max_tokens
            losses = [scale * abs(one - output_length) for one in said]
            least = min(losses)  # so that no weight is lost to rounding
            pairs = zip(self.weights, losses, strict=True)
            weights = [weight * math.exp(least - loss) for weight, loss in pairs]
            total, part = math.fsum(weights), self.share / len(weights)
            self.weights = [(1 - self.share) * weight / total + part for weight in weights]
        for member in self.members:
            member.observe(job, output_length, censored, now)

    def observe_unfinished(self, job: Job, at_least: int, now: float) -> None:
        """Forget what was said of it; who wants lower bounds learns one."""
        self._said.pop(job.request.id, None)
        for member in self.members:
            if (hears := getattr(member, "observe_unfinished", None)) is not None:
                hears(job, at_least, now)
