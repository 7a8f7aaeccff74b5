"""What a fit leaves of the steps' durations, and what the fit has taken out of noise that is like it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from driftsim.calibration.least_squares import Rows, Solution
from driftsim.latency.noise import Noise

EDGE = 1e-12  # of the largest eigenvalue, below which a combination of terms is not seen at all


@dataclass(frozen=True, eq=False)
class Residuals:
    """Logarithms of recorded over fitted durations, (steps,), run after run; ``lengths`` are those of the runs.

    ``design``: the terms of each step over its fitted duration, (steps, terms) in 1/s. ``weight``: of each step.
    """

    logs: np.ndarray
    design: np.ndarray
    weight: np.ndarray
    lengths: tuple[int, ...]

    @classmethod
    def of(cls, rows: Rows, solution: Solution, lengths: Sequence[int]) -> Residuals:
        """Those of ``solution`` of ``rows``, the steps of runs with these ``lengths``."""
        fitted = np.maximum(rows.columns @ solution.coefficients, 1e-9)
        weight = (solution.weights * solution.fitted) ** 2
        return cls(np.log(rows.duration / fitted), rows.columns / fitted[:, None], weight, tuple(lengths))

    @cached_property
    def gain(self) -> np.ndarray:
        """By how much (s) each step's logarithm moves each coefficient, (terms, steps): weighted least squares."""
        scale = np.sqrt(np.maximum((self.design**2 * self.weight[:, None]).sum(axis=0), 1e-300))
        scaled = self.design / scale
        inverse = np.linalg.pinv(scaled.T @ (self.weight[:, None] * scaled), rcond=EDGE, hermitian=True)
        return np.asarray(inverse @ (self.weight[:, None] * scaled).T / scale[:, None])

    def runs(self, values: np.ndarray) -> list[np.ndarray]:
        """The rows of each run."""
        return np.split(values, np.cumsum(self.lengths)[:-1])


def noise_covariance(left: Residuals, noise: Noise) -> np.ndarray:
    """The covariance of the coefficients of a fit of steps that have ``noise``, (terms, terms) in s^2: gain C gain'."""
    whole = np.array([gain.sum(axis=0) for gain in left.runs(left.gain.T)])
    return np.asarray(within_runs(left, moves_together(left, noise)) + noise.run_spread**2 * whole.T @ whole)


def within_runs(left: Residuals, moved: list[np.ndarray]) -> np.ndarray:
    """The same of noise within runs alone, which ``moved`` steps and coefficients together (``moves_together``)."""
    return np.asarray(sum(gain.T @ own for gain, own in zip(left.runs(left.gain.T), moved, strict=True)))


def moves_together(left: Residuals, noise: Noise) -> list[np.ndarray]:
    """The covariance within each run of the logarithm of each step with the coefficients, (steps, terms) in s: C gain'.

    C, the covariance of the steps' logarithms, is never written down: that of an autoregression is applied by filtering
    forwards and backwards.
    """
    parts = ((noise.spread, noise.autocorrelation), (noise.slow_spread, noise.slow_autocorrelation))
    return [
        np.asarray(sum((spread**2 * _correlated(gain, rho) for spread, rho in parts if spread), 0.0 * gain))
        for gain in left.runs(left.gain.T)
    ]


def _correlated(values: np.ndarray, correlation: float) -> np.ndarray:
    """The matrix of ``correlation ** abs(i - j)`` times ``values``, (steps, columns)."""
    from scipy.signal import lfilter

    forwards = lfilter([1.0], [1.0, -correlation], values, axis=0)
    backwards = lfilter([1.0], [1.0, -correlation], values[::-1], axis=0)[::-1]
    return np.asarray(forwards + backwards - values)
