"""Attainment against load, and the interval of the load at which its mean crosses the target.

What is estimated is the load at which the mean attainment, over days like those recorded or over draws of the workload,
falls below the target. Two kinds of replications, two intervals, both chosen by the coverage in tests/test_sizing.py:

* Resamples of one recorded day. The day itself is one draw of it, however many resamples there are, so that the error
  is a spread and no standard error of a mean: Student's t times the larger standard deviation, of the two kinds of
  resamples, of where each resample's own curve crosses the target (in logarithms of the load), around the crossing of
  the mean of the local resamples. It is ``statistics.over_days`` on the scale of loads.
* Independent draws. Near the target most draws miss hardly any request and a few miss many, so that Student's interval
  of the mean attainment is too narrow on one side. The interval is of the logarithm of the share that missed, inverted
  along the curve: it ends at the loads at which either end of that interval crosses the target. Where few draws have
  nearly all the misses, the others do not tell how many more there may be: the end on that side, the lower load, has as
  many degrees of freedom as draws that tell (``Curve.telling``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from driftsim.statistics import Day, Interval, crossing, over_days, student_quantile

FEWEST = 3  # replications of a kind for an interval
CENSORED = 0.1  # share of the resamples that may cross outside of the curve


@dataclass(frozen=True, eq=False)
class Curve:
    """What each replication attained at each load that was tried.

    loads: ascending, (loads,). attained: by kind, (replications, loads): independent draws, ``drawn``; or a recorded
    day and its resamples, ``recorded``, ``local`` and ``circular``.
    """

    loads: np.ndarray
    target: float
    attained: Mapping[str, np.ndarray]

    @property
    def logs(self) -> np.ndarray:
        """Logarithms of the loads."""
        logs: np.ndarray = np.log(self.loads)
        return logs

    @property
    def independent(self) -> bool:
        """The replications are independent draws."""
        return "drawn" in self.attained

    @property
    def counted(self) -> np.ndarray:
        """The replications whose mean is the curve: draws, else local resamples, else the day as recorded."""
        if self.independent:
            return self.attained["drawn"]
        local = self.attained.get("local")
        return self.attained["recorded"] if local is None or len(local) < FEWEST - 1 else local

    @property
    def mean(self) -> np.ndarray:
        """The curve: mean attainment by load."""
        mean: np.ndarray = self.counted.mean(axis=0)
        return mean

    @property
    def has_interval(self) -> bool:
        """There are enough replications for one."""
        return len(self.counted) >= FEWEST if self.independent else self.counted is not self.attained["recorded"]

    @property
    def resamples(self) -> list[np.ndarray]:
        """Those of either kind."""
        return [self.attained[kind] for kind in ("local", "circular")]

    def ends(self) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper end of the 95 % interval of the mean attainment at each load; NaN without one."""
        if not self.has_interval:
            missing = np.full(len(self.loads), np.nan)
            return missing, missing
        missed, count = 1 - self.mean, len(self.counted)
        if not self.independent:
            half = student_quantile(count - 1) * np.max([own.std(axis=0, ddof=1) for own in self.resamples], axis=0)
            return np.clip(self.mean - half, 0.0, 1.0), np.clip(self.mean + half, 0.0, 1.0)
        error = self.counted.std(axis=0, ddof=1) / np.sqrt(count)
        relative = np.divide(error, missed, out=np.zeros_like(missed), where=missed > 0)
        low = 1 - missed * np.exp(student_quantile(min(max(self.telling, 1.0), count - 1)) * relative)
        return np.clip(low, 0.0, 1.0), 1 - missed * np.exp(-student_quantile(count - 1) * relative)

    @property
    def telling(self) -> float:
        """How many of the independent draws tell of what missed at the crossing: Kish's effective number (1965).

        ``(sum m)^2 / sum m^2`` over the draws' misses ``m``: all of them where each missed as much, 1 where one draw
        has all the misses; NaN of resamples.
        """
        if not self.independent:
            return np.nan
        at = float(self.crossed(self.mean))
        missed = np.array([1 - np.interp(at, self.logs, row) for row in self.counted])
        square = float((missed**2).sum())
        return float(missed.sum() ** 2 / square) if square else 1.0

    def crossed(self, attained: np.ndarray) -> np.ndarray:
        """``crossing`` of curves on these loads."""
        return crossing(self.logs, attained, self.target)

    def interval(self) -> Interval:
        """The load at which the mean attainment crosses the target, with its 95 % interval."""
        middle = float(self.crossed(self.mean))
        if not self.has_interval:
            return Interval(float(np.exp(middle)), np.nan, np.nan)
        if self.independent:
            ends = [float(self.crossed(end)) for end in self.ends()]
        else:
            spread = max(float(self.crossed(own).std(ddof=1)) for own in self.resamples)
            half = student_quantile(len(self.counted) - 1) * spread
            ends = [middle - half, middle + half]
        return Interval(*np.exp([middle, *ends]).tolist())

    @property
    def moved(self) -> bool:
        """The two kinds of resamples cross elsewhere: what they are drawn from changes within a phase."""
        if self.independent or not self.has_interval:
            return False
        local, circular = (self.crossed(own) for own in self.resamples)
        days = [Day(float(self.crossed(self.attained["recorded"])[0]), local, circular)]
        return over_days(days).moved

    def short(self) -> tuple[bool, bool]:
        """Whether the curve ends too early for its interval, below and above."""
        if not self.has_interval:
            return False, False
        if self.independent:
            low, high = self.ends()
            return bool(low[0] < self.target), bool(high[-1] >= self.target)
        below = max(float((own[:, 0] < self.target).mean()) for own in self.resamples)
        above = max(float((own >= self.target).all(axis=1).mean()) for own in self.resamples)
        return below > CENSORED, above > CENSORED


def change(one: Curve, other: Curve) -> Interval:
    """The relative change of the crossing from ``other`` to ``one``, whose replications are paired.

    Of resamples, as the interval of one curve, from the spread of the pairs' changes. Of draws, by the jackknife: what
    skews one curve skews the other, so that the change is nearly symmetric.
    """
    middle = float(one.crossed(one.mean) - other.crossed(other.mean))
    if not (one.has_interval and other.has_interval):
        return Interval(float(np.expm1(middle)), np.nan, np.nan)
    count = len(one.counted)
    if one.independent:
        left = one.crossed(without_each(one.counted)) - other.crossed(without_each(other.counted))
        error = float(np.sqrt((count - 1) / count * ((left - left.mean()) ** 2).sum()))
    else:
        pairs = zip(one.resamples, other.resamples, strict=True)
        error = max(float((one.crossed(own) - other.crossed(base)).std(ddof=1)) for own, base in pairs)
    half = student_quantile(count - 1) * error
    return Interval(*np.expm1([middle, middle - half, middle + half]).tolist())


def without_each(values: np.ndarray) -> np.ndarray:
    """The mean over all rows but one, for each one, (rows, loads).

    >>> without_each(np.array([[1.0], [2.0], [6.0]])).tolist()
    [[4.0], [3.5], [1.5]]
    """
    left: np.ndarray = (values.sum(axis=0) - values) / (len(values) - 1)
    return left
