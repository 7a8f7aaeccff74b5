"""Policies that go by the size of a job: the seconds of service that it is estimated to take."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from driftsim.errors import InputError
from driftsim.request import Job
from driftsim.scheduling.around import Around
from driftsim.scheduling.queues import Keyed

LEAST_S = 1e-9  # a size that is no longer told from none


class Sized(Keyed):
    """Jobs by a key that is made of their seconds of service."""

    needs: tuple[str, ...] = ("profile",)

    def __init__(self) -> None:
        super().__init__()
        self._around = Around()

    def given(self, around: Around) -> None:
        """Take what is known of the run."""
        self._around = around

    def size(self, job: Job, length: float | None = None) -> float:
        """Seconds of service of ``job``, above 0."""
        return max(LEAST_S, self._around.service_s(job, length))


class CostSjf(Sized):
    """Shortest job first by seconds of service: the prefill of uncached tokens and the share of decode.

    On one slot it minimises the mean time in the system of those who wait. Source: Smith 1956 (from memory). Trap: who
    is large may wait for ever. With prefix caching a size changes while the job waits, and the key does not.
    """

    def key(self, job: Job) -> float:
        """The seconds of service."""
        return self.size(job)


class Wspt(Sized):
    """Weighted shortest processing time, the cμ rule: the smallest seconds per weight of the tier first.

    On one slot it minimises the weighted sum of times in the system of those who wait. Source: Smith 1956 (from
    memory). Trap: who is large and light may wait for ever; twice the weight counts as half the size.
    """

    needs = ("profile", "tiers")

    def key(self, job: Job) -> float:
        """The seconds of service by the weight."""
        return self.size(job) / self._around.weight(job.request.tier)


class Boost(Sized):
    """γ-Boost: the earliest boosted arrival first, arrival - ln(1 / (1 - exp(-γ s))) / γ.

    The smaller the size s, the larger the boost. With ``sizes=label`` nothing is known of a job but its predicted
    category: M, the mean of exp(γ s) over those of it that ended, stands for exp(γ s). A large γ is FIFO, a small one
    shortest job first; ``boost_rate`` gives the one that is best for the tail. Nobody waits for ever. Source: arXiv
    2404.08826 (the form by labels read; that of known sizes from memory). Trap: sizes with a heavy tail have no such γ,
    so sizes end at ``max_tokens``; γ is right for one load, and the load drifts.
    """

    def __init__(
        self,
        *,
        gamma: Annotated[
            float, Field(gt=0, description="Gamma, how fast boosts fall.", json_schema_extra={"unit": "1/s"})
        ] = 0.1,
        sizes: Annotated[
            Literal["estimate", "label"], Field(description="What boosts go by: the estimate, or the category alone.")
        ] = "estimate",
    ) -> None:
        super().__init__()
        self._gamma, self._by_label = gamma, sizes == "label"
        self._seen: dict[str, tuple[float, int]] = {}  # ln of the sum of exp(γ s), and how many, by category

    def key(self, job: Job) -> float:
        """The boosted arrival, in seconds."""
        return job.request.arrival - boost_s(self._exponent(job), self._gamma)

    def _exponent(self, job: Job) -> float:
        """The logarithm of M, or of exp(γ s)."""
        if self._by_label and job.predicted_category in self._seen:
            total, count = self._seen[job.predicted_category]
            return total - math.log(count)
        return self._gamma * self.size(job, min(job.estimate, job.request.max_tokens))

    def served(self, job: Job, tokens: int | None, now: float) -> None:
        """Learn the size of a job of its category."""
        if self._by_label and tokens is not None:
            exponent = self._gamma * self.size(job, tokens)
            total, count = self._seen.get(job.predicted_category, (-math.inf, 0))
            self._seen[job.predicted_category] = float(np.logaddexp(total, exponent)), count + 1


def boost_s(exponent: float, gamma: float) -> float:
    """The boost, in seconds, of a job whose M has the logarithm ``exponent``: ln(M / (M - 1)) / γ.

    >>> round(boost_s(1.0, 0.5), 4)  # ln(1 / (1 - 1/e)) / 0.5
    0.9174
    """
    return -math.log(-math.expm1(-exponent)) / gamma


def boost_rate(rate: float, sizes_s: Sequence[float]) -> float:
    """The γ > 0 that is best for the tail on one server: the root of γ = rate x (E exp(γ s) - 1) (arXiv 2404.08826).

    ``rate``: arrivals a second; ``sizes_s``: sizes as they occur, in seconds. Raises ``InputError`` unless the load is
    below 1.

    >>> round(boost_rate(0.5, [1.0]), 3)  # M/D/1 at half load
    1.256
    """
    sizes = np.asarray(sizes_s, dtype=float)
    load = rate * float(sizes.mean())
    if not 0 < load < 1:
        raise InputError(f"the load must be above 0 and below 1, got {load:.3g}; there is no gamma")

    def excess(gamma: float) -> float:
        return rate * float(np.mean(np.expm1(gamma * sizes))) - gamma

    high = 1.0 / float(sizes.max())
    while excess(high) < 0:
        high *= 2
    low = high
    while excess(low) >= 0:  # it falls from 0 at first, then rises
        low /= 2
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if excess(middle) < 0 else (low, middle)
    return high
