"""Intervals and tests, each in one place; the level is 95 % everywhere.

Latencies are compared as ratios, so most of these take logarithms of ratios and give relative changes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

LEVEL = 0.95


class Interval(NamedTuple):
    """A value and its interval; ``low`` and ``high`` are NaN where there are too few replications for one."""

    value: float
    low: float
    high: float

    @property
    def spans_zero(self) -> bool:
        """There is an interval and it includes 0."""
        return self.low <= 0 <= self.high


@lru_cache(maxsize=4096)
def student_quantile(freedom: float, level: float = LEVEL) -> float:
    """Student's t, two-sided at ``level``, for ``freedom`` degrees of freedom.

    >>> round(student_quantile(9), 3)
    2.262
    """
    return float(stats.t.ppf((1 + level) / 2, freedom))


def mean_half_width(values: np.ndarray) -> float:
    """Half of Student's interval of the mean of independent ``values``; infinite with fewer than two."""
    count = len(values)
    if count < 2:
        return math.inf
    return float(student_quantile(count - 1) * values.std(ddof=1) / math.sqrt(count))


def mean_interval(values: ArrayLike) -> Interval:
    """The mean of independent ``values`` with Student's interval; no interval from fewer than two.

    >>> [round(end, 2) for end in mean_interval(np.array([1.0, 2.0, 3.0]))]
    [2.0, -0.48, 4.48]
    """
    known = np.asarray(values, dtype=float)
    mean = float(known.mean())
    if len(known) < 2:
        return Interval(mean, math.nan, math.nan)
    half = mean_half_width(known)
    return Interval(mean, mean - half, mean + half)


def replicated(values: np.ndarray) -> Interval:
    """The first of ``values``, give or take what the others, its resamples, vary by (t times their deviation).

    No interval with fewer than two resamples.
    """
    others = values[1:]
    if len(others) < 2:
        return Interval(float(values[0]), math.nan, math.nan)
    half = float(student_quantile(len(others) - 1) * others.std(ddof=1))
    return Interval(float(values[0]), float(values[0] - half), float(values[0] + half))


def ratio_interval(logs: np.ndarray, half: float) -> Interval:
    """The relative change whose logarithms are ``logs``: their geometric mean, give or take ``half``, a logarithm."""
    middle = float(logs.mean())
    return Interval(math.expm1(middle), math.expm1(middle - half), math.expm1(middle + half))


def welch_half_width(one: np.ndarray, other: np.ndarray) -> float:
    """Half of the interval of a difference of means (Welch 1947); infinite with a single value on a side."""
    if min(len(one), len(other)) < 2:
        return math.inf
    parts = [values.var(ddof=1) / len(values) for values in (one, other)]
    if not sum(parts):
        return 0.0
    freedom = sum(parts) ** 2 / sum(part**2 / (len(v) - 1) for part, v in zip(parts, (one, other), strict=True))
    return student_quantile(freedom) * math.sqrt(sum(parts))


def two_sided_p(distance: float, freedom: float) -> float:
    """How likely Student's t is at least ``distance`` away from 0, on either side."""
    return float(2 * stats.t.sf(abs(distance), freedom))


def holm(p_values: Sequence[float]) -> list[float]:
    """The p values adjusted for how many there are, in their order (Holm 1979).

    >>> [round(p, 2) for p in holm([0.03, 0.01, 0.5])]
    [0.06, 0.03, 0.5]
    """
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, highest = list(p_values), 0.0
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = highest
    return adjusted
