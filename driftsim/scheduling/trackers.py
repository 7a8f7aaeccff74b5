"""Trackers follow one number for each category, session or tenant, and say it again: the simplest that can learn."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field

from driftsim.request import Job, Request
from driftsim.scheduling.admission import Admission
from driftsim.scheduling.estimate import Estimate, expecting, neutral, possible

Weight = Annotated[float, Field(gt=0, le=1, description="Weight of one observation.")]


class Prompt:
    """The prompt's length times a factor, and nothing is learned: the rule of thumb of routers.

    Source: llm-d's router, ``inflightload/producer.go`` (read): the rounded product with its output ratio, capped.
    Trap: an agent's prompt holds its history, so a prompt of 195,000 tokens may get an answer of 300
    (llm-d-router#2305).
    """

    def __init__(
        self,
        admission: Admission,
        *,
        factor: Annotated[float, Field(gt=0, description="Output tokens for each token of the prompt.")] = 1.5,
    ) -> None:
        self.admission, self.factor = admission, factor

    def estimate(self, request: Request, category: str, now: float) -> Estimate:
        """The product, from 1 to ``max_tokens``."""
        return Estimate(possible(self.factor * self.admission.prompt_length(request), request), 1.0)

    def observe(self, job: Job, output_length: int, censored: bool, now: float) -> None:
        """Nothing is learned."""


class LogEma:
    """A moving average of the logarithm of the bias: ``bias <- bias^(1 - alpha) ratio^alpha``, per category, from 1.

    ratio = output / (base x input factor). Source: exponential smoothing, Brown 1959 (from memory), on logarithms, so
    that twice and half too long weigh alike. Trap: it follows the geometric mean, which of skewed lengths is near the
    median and below the mean: right for the MAE, too low for capacity.
    """

    def __init__(self, admission: Admission, *, alpha: Weight = 0.1) -> None:
        self.admission, self.alpha = admission, alpha
        self.logs: dict[str, float] = {}  # logarithm of the bias, by category

    def estimate(self, request: Request, category: str, now: float) -> Estimate:
        """The plain estimate times the category's bias."""
        plain = neutral(self.admission, request, category)
        return expecting(plain * math.exp(self.logs.get(category, 0.0)), plain, request)

    def observe(self, job: Job, output_length: int, censored: bool, now: float) -> None:
        """Move the bias towards this ratio. A cut output counts as it is."""
        category = job.predicted_category
        ratio = math.log(max(output_length, 1) / neutral(self.admission, job.request, category))
        old = self.logs.get(category, 0.0)
        self.logs[category] = old + self.alpha * (ratio - old)


class Quantile:
    """The quantile ``q`` of the output length, found online: up by ``step x q`` after a miss, else down by the rest.

    The steps are of the logarithm of the ratio to base x input factor, by category. Source: stochastic gradient descent
    on the pinball loss, Koenker and Bassett 1978 (from memory); its coverage is bounded for every sequence,
    Angelopoulos et al. 2023, "Conformal PID control", proposition 1 (from memory). Trap: it begins at the base and
    walks: after a step of x2 it needs log 2 / (step x q) observations.
    """

    def __init__(
        self,
        admission: Admission,
        *,
        q: Annotated[float, Field(gt=0, lt=1, description="Share of the outputs that shall not be longer.")] = 0.9,
        step: Annotated[float, Field(gt=0, description="Step of the logarithm.")] = 0.1,
    ) -> None:
        self.admission, self.q, self.step = admission, q, step
        self.levels = (q,)
        self.logs: dict[str, float] = {}

    def estimate(self, request: Request, category: str, now: float) -> Estimate:
        """The quantile, which is the estimate as well."""
        plain = neutral(self.admission, request, category)
        made = expecting(plain * math.exp(self.logs.get(category, 0.0)), plain, request)
        made.quantiles = (made.length,)
        return made

    def observe(self, job: Job, output_length: int, censored: bool, now: float) -> None:
        """A step away from the miss or the hit of what was *said* to the job: so coverage is of what was said."""
        category = job.predicted_category
        hit = output_length <= job.estimate
        self.logs[category] = self.logs.get(category, 0.0) + self.step * (self.q - hit)


class Means:
    """The moving mean of the finest group that has been seen, from its first observation on; before any, the base.

    A subclass names the ``groups`` of a request, the finest first. At most ``most`` groups are kept, those learned last
    (a service sees sessions without end).
    """

    most = 10_000

    def __init__(self, admission: Admission, *, alpha: Weight = 0.1) -> None:
        self.admission, self.alpha = admission, alpha
        self.means: dict[tuple[str, ...], float] = {}

    def groups(self, request: Request, category: str) -> tuple[tuple[str, ...], ...]:
        """The keys of the groups of ``request``, the finest first."""
        raise NotImplementedError

    def estimate(self, request: Request, category: str, now: float) -> Estimate:
        """The mean of the finest group that is known, else the plain estimate."""
        plain = neutral(self.admission, request, category)
        means = self.means
        length = next((means[group] for group in self.groups(request, category) if group in means), plain)
        return expecting(length, plain, request)

    def observe(self, job: Job, output_length: int, censored: bool, now: float) -> None:
        """Move the mean of each of its groups. A cut output counts as it is."""
        for group in self.groups(job.request, job.predicted_category):
            old = self.means.pop(group, float(output_length))
            self.means[group] = old + self.alpha * (output_length - old)  # the latest stands last
        while len(self.means) > self.most:
            del self.means[next(iter(self.means))]


class Session(Means):
    """The mean output of the session so far, else that of the category: turns of one session are alike.

    Source: semantic-router#2551 (read). Trap: a first turn has no session to learn from, and a trace without sessions
    has first turns alone.
    """

    def __init__(self, admission: Admission, *, alpha: Weight = 0.3) -> None:
        super().__init__(admission, alpha=alpha)

    def groups(self, request: Request, category: str) -> tuple[tuple[str, ...], ...]:
        """The session, where there is one, and the category."""
        whole = ((category,),)
        return (("session", request.session), *whole) if request.session else whole


class Tenant(Means):
    """The mean output of the tenant in this category, else that of the category.

    Source: the average that gateways keep by API key (from memory of several). Trap: a mean follows the longest
    outputs; of skewed lengths it is above the median, so its MAE is not the smallest.
    """

    def groups(self, request: Request, category: str) -> tuple[tuple[str, ...], ...]:
        """The tenant's requests of the category, and the category."""
        return ((category, request.tenant), (category,))
