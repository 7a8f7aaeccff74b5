"""Repeats of captured runs: their metrics, and how two groups of them are compared.

Groups that were captured alternately are compared round by round, so that a machine that drifts cancels out; others by
Welch's interval. Both are of the logarithm of the ratio.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from driftsim.glossary import SLO_METRICS
from driftsim.metrics import summary
from driftsim.scheduling.admission import Admission
from driftsim.statistics import detectable_shift, mean_error, student_quantile, welch_error
from driftsim.sweeps.gated import BETTER, GATED
from driftsim.trace.trace import Trace


@dataclass(frozen=True, slots=True)
class Repeat:
    """One captured run: when (ISO 8601, empty where unknown), and its metrics, but those that are not positive.

    ``unfit`` are rank correlations, shares and rates that are known and not positive: they have no logarithm.
    """

    captured_at: str
    metrics: dict[str, float]
    unfit: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Shift:
    """How far a group of repeats lies from another: the mean of the log ratio, its standard error and freedom."""

    middle: float
    error: float
    freedom: float

    @property
    def half(self) -> float:
        """Half of the 95 % interval; infinite where a single repeat tells no spread."""
        return student_quantile(self.freedom) * self.error if self.freedom > 0 else math.inf


def group_name(trace: Trace) -> str:
    """What a captured run is a repeat of: policy, estimator and workload."""
    switches = trace.header.admission
    setting = f"{switches.get('policy', 'stock')}/{switches.get('estimator', 'static')}"
    return f"{setting} of {trace.header.workload.name}"


def repeats_by_name(traces: Sequence[Trace]) -> dict[str, list[Repeat]]:
    """The repeats of each captured run, in order of capture."""
    groups: dict[str, list[Repeat]] = {}
    for trace in sorted(traces, key=lambda trace: trace.header.captured_at or ""):
        row = summary(trace, Admission.of(trace.header.admission))
        known = {metric: float(row[metric]) for metric in GATED if row.get(metric, np.nan) > 0}  # NaN is not
        unfit = {name: float(row[name]) for name in ("kendall_tau", *SLO_METRICS) if row.get(name, np.nan) <= 0}
        groups.setdefault(group_name(trace), []).append(Repeat(trace.header.captured_at or "", known, unfit))
    return groups


def values_of(repeats: Sequence[Repeat]) -> dict[str, list[float]]:
    """The values of each metric, in order of capture, without those that are not known."""
    names = dict.fromkeys(metric for repeat in repeats for metric in repeat.metrics)
    return {name: [repeat.metrics[name] for repeat in repeats if name in repeat.metrics] for name in names}


def captured_alternately(then: Sequence[Repeat], now: Sequence[Repeat]) -> bool:
    """Whether every round, two captures in a row, holds one of each group.

    >>> a, b, c, d = (Repeat(f"2026-01-01T00:0{minute}:00Z", {}) for minute in range(4))
    >>> captured_alternately([a, d], [b, c]), captured_alternately([a, b], [c, d])
    (True, False)
    """
    times = [(repeat.captured_at, side) for side, group in enumerate((then, now)) for repeat in group]
    if len(then) != len(now) or not all(moment for moment, _ in times):
        return False
    if len({moment for moment, _ in times}) < len(times):
        return False  # the order is not known
    sides = [side for _, side in sorted(times)]
    return all(sides[place] != sides[place + 1] for place in range(0, len(sides), 2))


def overlapping(then: Sequence[Repeat], now: Sequence[Repeat]) -> bool:
    """Whether neither group was over before the other began."""
    first, last = ([end(repeat.captured_at for repeat in group) for group in (then, now)] for end in (min, max))
    return max(first) < min(last)


def paired_shift(then: Sequence[float], now: Sequence[float]) -> Shift:
    """Of positive values, the n-th of which were captured in the same round."""
    logs = np.log(np.asarray(now) / np.asarray(then))
    return Shift(float(logs.mean()), *mean_error(logs))


def welch_shift(then: Sequence[float], now: Sequence[float]) -> Shift:
    """Of positive values of two groups that have nothing to do with each other."""
    before, after = np.log(then), np.log(now)
    return Shift(float(after.mean() - before.mean()), *welch_error(before, after))


def detectable_change(shift: Shift, metric: str, then: float, tolerance: float, floor: float) -> float:
    """The smallest relative change for the worse that is found with 80 % power at the spread of ``shift``.

    Positive for a rise, negative for a fall of a metric that ought to be high. NaN where no change would be found.
    """
    sign = -1 if BETTER[metric] == "higher" else 1
    limits = [sign * math.log1p(sign * part) if sign * part > -1 else math.inf for part in (tolerance, floor / then)]
    if shift.freedom <= 0 or math.isinf(max(limits)):
        return math.nan
    found = relative_change(sign * detectable_shift(shift.error, shift.freedom, *limits))
    return math.nan if math.isinf(found) else found


def relative_change(logarithm: float) -> float:
    """The relative change whose logarithm of the ratio is given; infinite where that is too large for a number.

    >>> relative_change(0.0), relative_change(1000.0)
    (0.0, inf)
    """
    return math.expm1(logarithm) if logarithm < 700 else math.inf
