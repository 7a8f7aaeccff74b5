"""Noise multiplies each step's duration by a factor with mean 1.

Its logarithm is the sum of up to three Gaussian parts: a fast one and a slow one, both first-order autoregressive, and
a constant of the run. A machine disturbs its steps both for a few of them and for minutes: one part cannot be both.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from pydantic import Field

from driftsim.latency.steptime import Batch, LinearStepTime
from driftsim.records import Record

NOISE_UNIT = 1 << 20  # a factor of 1


class NoisyStepTime:
    """A linear model whose n-th step takes a factor longer: log-normal with mean 1, autocorrelated (``Noise``).

    The factors are drawn once, so a run of steps has one duration, however it is cut into parts: the sum over its steps
    is a difference of running totals.
    """

    def __init__(self, model: LinearStepTime, noise: Noise, random: np.random.Generator) -> None:
        self.model = model
        self.launches = getattr(model, "launches", False)
        self.noise = noise
        self.random = random
        self._scale = float(np.exp(noise.run_spread * random.standard_normal() - noise.run_spread**2 / 2))
        self._last = float(random.standard_normal())
        # Drawn only where there is a slow part, so that a profile without one has the factors that it always had.
        self._slow_last = float(random.standard_normal()) if noise.slow_spread else 0.0
        self._next = 0  # steps taken
        self._sums = [0]  # of the factors before a step, in NOISE_UNIT
        self._moments = [0]  # of factor times number of the step

    def _extend(self, until: int) -> None:
        """Draw factors for the steps before ``until``, some thousands at once."""
        while len(self._sums) <= until:
            self._draw(8192)

    def _draw(self, count: int) -> None:
        have, noise = len(self._sums) - 1, self.noise
        walk = autoregressive(self.random.standard_normal(count), noise.autocorrelation, self._last)
        self._last = float(walk[-1])
        factors = self._scale * np.exp(noise.spread * walk - noise.spread**2 / 2)
        if noise.slow_spread:
            slow = autoregressive(self.random.standard_normal(count), noise.slow_autocorrelation, self._slow_last)
            self._slow_last = float(slow[-1])
            factors *= np.exp(noise.slow_spread * slow - noise.slow_spread**2 / 2)
        units = np.maximum(1, np.rint(factors * NOISE_UNIT)).astype(np.int64)
        numbers = np.arange(have, have + count, dtype=np.int64)
        self._sums += (self._sums[-1] + np.cumsum(units)).tolist()
        self._moments += (self._moments[-1] + np.cumsum(units * numbers)).tolist()

    def step(self, batch: Batch) -> int:
        """The duration of the next step."""
        return max(1, self.model.step(batch) * self._factor() // NOISE_UNIT)

    def parts(self, batch: Batch) -> tuple[int, int]:
        """How long the next step keeps the GPU and, to be launched, the host: both times its factor."""
        factor = self._factor()
        computing, launch = self.model.parts(batch)
        return max(1, computing * factor // NOISE_UNIT), launch * factor // NOISE_UNIT

    def _factor(self) -> int:
        """The factor of the next step, in ``NOISE_UNIT``; the step counts as taken."""
        self._extend(self._next + 1)
        factor = self._sums[self._next + 1] - self._sums[self._next]
        self._next += 1
        return factor

    def decode_run(self, batch: Batch, n: int) -> int:
        """The duration of the next ``n`` steps: a constant part and a growing one, each times its factors."""
        begin = self._next
        self._extend(begin + n)
        plain = self._sums[begin + n] - self._sums[begin]
        moment = self._moments[begin + n] - self._moments[begin] - begin * plain
        growth = self.model.context_token * batch.decode_requests
        return n + (self.model.decode_run(batch, 1) * plain + growth * moment) // NOISE_UNIT

    def decode_steps(self, batch: Batch, elapsed: int, gap: int) -> int:
        """By bisection, since durations only grow."""
        high = 1
        while self.decode_run(batch, high) + high * gap < elapsed:
            high *= 2
        low = high // 2 + 1 if high > 1 else 1
        while low < high:
            middle = (low + high) // 2
            if self.decode_run(batch, middle) + middle * gap < elapsed:
                low = middle + 1
            else:
                high = middle
        return high

    def taken(self, n: int) -> None:
        """The next ``n`` steps of a decode run have been taken."""
        self._next += n


class Noise(Record):
    """What the model leaves of a step's duration, as a factor: log-normal, with a mean of 1."""

    spread: float = Field(
        default=0.0,
        ge=0,
        le=3,
        description="Standard deviation of the factor's logarithm; of its fast part, where there is a slow one.",
    )
    autocorrelation: float = Field(
        default=0.0, ge=0, lt=1, description="Correlation of that logarithm from one step to the next."
    )
    slow_spread: float = Field(
        default=0.0, ge=0, le=3, description="Standard deviation of the logarithm's slow part; 0: there is none."
    )
    slow_autocorrelation: float = Field(
        default=0.0, ge=0, lt=1, description="Correlation of the slow part from one step to the next."
    )
    run_spread: float = Field(
        default=0.0,
        ge=0,
        le=3,
        description="Standard deviation of the logarithm of whole runs, where several runs were fitted.",
    )

    def variance_of_mean(self, steps: ArrayLike) -> np.ndarray:
        """The variance, within runs, of the logarithm's mean over so many successive ``steps``; in their shape.

        >>> noise = Noise(spread=0.2, autocorrelation=0.8)
        >>> [round(float(noise.variance_of_mean(steps)), 6) for steps in (1, 2, 1000)]
        [0.04, 0.036, 0.000358]
        """
        fast = autoregressive_variance(self.spread, self.autocorrelation, steps)
        return np.asarray(fast + autoregressive_variance(self.slow_spread, self.slow_autocorrelation, steps))


def autoregressive(innovations: np.ndarray, correlation: float, last: float) -> np.ndarray:
    """The values after ``last`` of a first-order autoregression with variance 1, from standard normal innovations."""
    from scipy.signal import lfilter

    drawn = innovations * math.sqrt(1 - correlation * correlation)
    return np.asarray(lfilter([1.0], [1.0, -correlation], drawn, zi=[correlation * last])[0])


def autoregressive_variance(spread: float, correlation: float, steps: ArrayLike) -> np.ndarray:
    """The variance of the mean of so many successive values of a first-order autoregression; in the shape of steps."""
    count = np.asarray(steps, dtype=float)
    pairs = count * (1 + correlation) / (1 - correlation)
    ends = 2 * correlation * (1 - correlation**count) / (1 - correlation) ** 2
    return np.asarray(spread**2 * (pairs - ends) / count**2)
