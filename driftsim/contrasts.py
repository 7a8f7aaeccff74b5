"""Differences between groups of runs, on a log scale: paired round by round, or adjusted for a covariate.

The covariate of a measured run is the speed of its host. Its slope is fitted, not assumed to be 1: a wait in a queue
need not grow as the steps do. This is the analysis of covariance (Fisher 1932), one slope for all groups.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from driftsim.statistics import LEVEL, Interval, student_quantile, two_sided_p

SAME = 1e-12  # sum of squares of a covariate, a logarithm, below which it did not vary
Group = TypeVar("Group", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Contrast:
    """A difference of two means of logarithms, with its standard error and the degrees of freedom of that."""

    value: float
    error: float
    freedom: int

    def interval(self, level: float = LEVEL) -> Interval:
        """Student's, of the logarithm; its ends are NaN where no degree of freedom is left."""
        if self.freedom < 1:
            return Interval(self.value, math.nan, math.nan)
        half = student_quantile(self.freedom, level) * self.error
        return Interval(self.value, self.value - half, self.value + half)

    def relative(self, level: float = LEVEL) -> Interval:
        """The same as a relative change.

        >>> [round(end, 3) for end in Contrast(0.0, 0.01, 9).relative()]
        [0.0, -0.022, 0.023]
        """
        return Interval(*(math.expm1(end) for end in self.interval(level)))

    @property
    def p(self) -> float:
        """Two-sided, of no difference; NaN where no degree of freedom is left, or the difference is not known."""
        if self.freedom < 1 or not math.isfinite(self.value):
            return math.nan
        if self.error > 0:
            return two_sided_p(self.value / self.error, self.freedom)
        return float(self.value == 0)


@dataclass(frozen=True, slots=True)
class Adjustment(Generic[Group]):
    """What a covariate explains. ``slope``: with its 95 % interval. ``explained``: share of the variance within the
    groups. ``contrasts``: of every group against the baseline, as if all had run at one value of the covariate."""

    slope: Interval
    explained: float
    contrasts: dict[Group, Contrast]


def paired(ones: np.ndarray, others: np.ndarray) -> Contrast:
    """The mean difference of the logarithms ``ones`` and ``others``, round by round; rounds beyond the fewest are left
    out."""
    rounds = min(len(ones), len(others))
    differences = np.asarray(ones[:rounds], dtype=float) - np.asarray(others[:rounds], dtype=float)
    error = float(differences.std(ddof=1)) / math.sqrt(rounds) if rounds > 1 else math.nan
    return Contrast(float(differences.mean()), error, rounds - 1)


def adjusted(
    values: Mapping[Group, np.ndarray], covariate: Mapping[Group, np.ndarray], baseline: Group
) -> Adjustment[Group] | None:
    """Differences against ``baseline`` of the means of ``values``, logarithms, at one value of the ``covariate``.

    The slope is fitted to all runs with the means of their groups removed, and the variance is pooled over the groups.
    None where the covariate is the same in all runs of a group, or no degree of freedom is left.
    """
    own = {group: np.asarray(covariate[group], dtype=float) for group in values}
    deviations = np.concatenate([at - at.mean() for at in own.values()])
    centred = np.concatenate([row - row.mean() for row in (np.asarray(values[group], dtype=float) for group in own)])
    freedom = len(deviations) - len(own) - 1
    spread = float(deviations @ deviations)
    if freedom < 1 or not spread > SAME:
        return None
    slope = float(deviations @ centred) / spread
    residual = centred - slope * deviations
    variance = float(residual @ residual) / freedom
    whole = float(centred @ centred)
    contrasts = {}
    for group, at in own.items():
        apart = float(at.mean() - own[baseline].mean())
        value = float(np.mean(values[group]) - np.mean(values[baseline])) - slope * apart
        share = 1 / len(at) + 1 / len(own[baseline]) + apart**2 / spread
        contrasts[group] = Contrast(value, math.sqrt(variance * share), freedom)
    steepness = Contrast(slope, math.sqrt(variance / spread), freedom).interval()
    explained = 1 - float(residual @ residual) / whole if whole > 0 else 0.0
    return Adjustment(steepness, explained, contrasts)
