"""Intervals and tests, each in one place; the level is 95 % everywhere.

Latencies are compared as ratios, so most of these take logarithms of ratios and give relative changes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, special  # not scipy.stats, which takes half a second to import

LEVEL = 0.95
MOVED_AT = 19  # resamples of a kind, at which one deviation tells that the kinds disagree; fewer must differ more
PRACTICAL = 0.01  # relative: a difference below it is nobody's reason to change a scheduler


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
    return float(special.stdtrit(freedom, (1 + level) / 2))


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


@dataclass(frozen=True)
class DayEstimate:
    """What is known of a number's mean over days like those that were recorded.

    centre: the estimate of that mean. error: its standard error. freedom: degrees of freedom of the error. this_run:
    the number of the first recorded day itself. moved: the two kinds of resamples disagree, since the load changes
    within a phase; a single day cannot tell how much of that is its own.
    """

    centre: float
    error: float
    freedom: int
    this_run: float
    moved: bool = False

    @property
    def interval(self) -> Interval:
        """The centre, give or take Student's t times the error; without ends where there are too few resamples."""
        if math.isnan(self.error):
            return Interval(self.centre, math.nan, math.nan)
        half = student_quantile(self.freedom) * self.error
        return Interval(self.centre, self.centre - half, self.centre + half)

    @property
    def p(self) -> float:
        """How likely a mean of 0 would show as much; 1 where nothing is known."""
        if math.isnan(self.error) or math.isnan(self.centre):
            return 1.0
        if self.error == 0:
            return float(self.centre == 0)
        return two_sided_p(self.centre / self.error, self.freedom)


class Day(NamedTuple):
    """A number on a recorded day, and on its two kinds of resamples (see ``driftsim.workloads.resampling``)."""

    recorded: float
    local: np.ndarray
    circular: np.ndarray


def over_days(days: Sequence[Day]) -> DayEstimate:
    """The mean over days like ``days``, from these and from resamples within each.

    A day's centre is the mean of its local resamples, its spread the larger standard deviation of the two kinds. One
    day: the error is that spread, since the day itself is one draw of it. Several days are the replications: the error
    is the larger of what they differ by and what each varies by, over the root of their number. The coverage of these
    intervals is measured in ``tests/test_coverage.py``.

    >>> estimate = over_days([Day(2.1, np.array([1.9, 2.0, 2.1]), np.array([1.8, 2.0, 2.2]))])
    >>> [round(number, 2) for number in estimate.interval]
    [2.0, 1.14, 2.86]
    """
    known = [day for day in days if min(len(day.local), len(day.circular)) > 1]
    if len(known) < len(days) or not days:
        values = [day.recorded for day in days]
        return DayEstimate(float(np.mean(values)), math.nan, 0, values[0])
    centres = np.array([day.local.mean() for day in days])
    spreads = np.array([max(day.local.std(ddof=1), day.circular.std(ddof=1)) for day in days])
    count, centre = len(days), float(centres.mean())
    within = float(np.sqrt((spreads**2).mean() / count))
    freedom = min(len(days[0].local), len(days[0].circular)) - 1
    if count == 1:
        only = days[0]
        apart = abs(only.local.mean() - only.circular.mean()) / max(1.0, math.sqrt(MOVED_AT / (freedom + 1)))
        moved = apart > only.local.std(ddof=1)
        return DayEstimate(centre, within, freedom, only.recorded, bool(moved))
    between = float(centres.std(ddof=1) / math.sqrt(count))
    if student_quantile(count - 1) * between >= student_quantile(freedom) * within:
        return DayEstimate(centre, between, count - 1, days[0].recorded)
    return DayEstimate(centre, within, freedom, days[0].recorded)


def widened(interval: Interval, spread: float, freedom: int) -> Interval:
    """``interval`` with a further, independent source of error, of standard deviation ``spread``.

    >>> [round(number, 2) for number in widened(Interval(0.0, -3.0, 3.0), 2.0, 9)]
    [0.0, -5.43, 5.43]
    """
    half = math.hypot((interval.high - interval.low) / 2, student_quantile(freedom) * spread)
    return Interval(interval.value, interval.value - half, interval.value + half)


def ratio_interval(logs: np.ndarray, half: float) -> Interval:
    """The relative change whose logarithms are ``logs``: their geometric mean, give or take ``half``, a logarithm."""
    middle = float(logs.mean())
    return Interval(math.expm1(middle), math.expm1(middle - half), math.expm1(middle + half))


def welch_half_width(one: np.ndarray, other: np.ndarray) -> float:
    """Half of the interval of a difference of means (Welch 1947); infinite with a single value on a side."""
    error, freedom = welch_error(one, other)
    return student_quantile(freedom) * error if freedom > 0 else math.inf


def two_sided_p(distance: float, freedom: float) -> float:
    """How likely Student's t is at least ``distance`` away from 0, on either side."""
    return float(2 * special.stdtr(freedom, -abs(distance)))


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


def mean_error(values: np.ndarray) -> tuple[float, float]:
    """Standard error of the mean of independent ``values`` and its degrees of freedom: (infinity, 0) below two values.

    >>> mean_error(np.array([1.0, 3.0]))
    (1.0, 1.0)
    """
    count = len(values)
    if count < 2:
        return math.inf, 0.0
    return float(values.std(ddof=1) / math.sqrt(count)), float(count - 1)


def welch_error(one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """Standard error of a difference of means and its degrees of freedom (Welch 1947).

    (infinity, 0) with a single value on a side.

    >>> [round(part, 3) for part in welch_error(np.array([1.0, 3.0]), np.array([1.0, 3.0]))]
    [1.414, 2.0]
    """
    if min(len(one), len(other)) < 2:
        return math.inf, 0.0
    parts = [float(values.var(ddof=1)) / len(values) for values in (one, other)]
    if not sum(parts):
        return 0.0, float(len(one) + len(other) - 2)
    freedom = sum(parts) ** 2 / sum(part**2 / (len(v) - 1) for part, v in zip(parts, (one, other), strict=True))
    return math.sqrt(sum(parts)), freedom


def detectable_shift(error: float, freedom: float, beyond: float, floor: float = 0.0, power: float = 0.8) -> float:
    """The smallest true shift of which a gate says, with probability ``power``, that it is worse.

    The gate says so if the lower end of the 95 % interval lies above ``beyond`` and the estimate is not below
    ``floor``. The estimate is normal with standard error ``error``, which is itself estimated with ``freedom`` degrees
    of freedom; the probability is averaged over what that estimate may be.

    >>> round(detectable_shift(1.0, 1e6, beyond=0.0), 2), detectable_shift(0.0, 4, beyond=0.05)
    (2.8, 0.05)
    """
    highest = max(beyond, floor)
    if error == 0:
        return highest
    chances = (np.arange(256) + 0.5) / 256
    estimated = error * np.sqrt(2 * special.gammaincinv(freedom / 2, chances) / freedom)  # chi-squared
    needed = np.maximum(beyond + student_quantile(freedom) * estimated, floor)

    def lacking(shift: float) -> float:
        return float(special.ndtr((shift - needed) / error).mean()) - power

    return float(optimize.brentq(lacking, 0.0, float(needed.max()) + 10 * error))


def crossing(loads: np.ndarray, attained: np.ndarray, target: float) -> np.ndarray:
    """The load at which curves first fall below ``target``, (...,), on the scale of ``loads``.

    loads: ascending, (loads,). attained: (..., loads). Linear between the last load before the first failure and that
    one; the first load where that one fails, the last one where none does.

    >>> crossing(np.array([0.0, 1.0, 2.0]), np.array([[1.0, 0.9, 0.7], [1.0, 0.7, 0.9]]), 0.8).round(2).tolist()
    [1.5, 0.67]
    """
    failed = attained < target
    some = failed.any(axis=-1)
    after = np.where(some, failed.argmax(axis=-1), len(loads) - 1)
    before = np.maximum(after - 1, 0)
    high, low = (np.take_along_axis(attained, place[..., None], -1)[..., 0] for place in (before, after))
    falls = high > low
    part = np.where(falls, (high - target) / np.where(falls, high - low, 1.0), 0.0)
    crossed: np.ndarray = np.where(some, loads[before] + part * (loads[after] - loads[before]), loads[-1])
    return crossed


def intervals_union(starts: np.ndarray, ends: np.ndarray) -> float:
    """Total length covered by the intervals, overlaps counted once.

    >>> intervals_union(np.array([0.0, 1.0, 5.0]), np.array([2.0, 3.0, 6.0]))
    4.0
    """
    order = np.argsort(starts, kind="stable")
    starts, ends = starts[order], np.maximum.accumulate(ends[order])
    begins = np.maximum(starts, np.concatenate([[-np.inf], ends[:-1]]))
    return float(np.maximum(ends - begins, 0).sum())
