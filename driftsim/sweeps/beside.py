"""Captured runs before the gate: new repeats against those of the old version, captured beside them or stored.

A machine is not as fast today as it was yesterday. Only repeats of one session tell a version from the machine, so
stored numbers are used where nothing was captured beside the new runs, and the report then says so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from driftsim.errors import InputError
from driftsim.glossary import SLO_METRICS
from driftsim.sweeps.baseline import Baseline, Captured
from driftsim.sweeps.changes import MetricChange, ScenarioChange, worst_first
from driftsim.sweeps.gated import floor_of
from driftsim.sweeps.repeats import (
    Repeat,
    Shift,
    captured_alternately,
    detectable_change,
    overlapping,
    paired_shift,
    relative_change,
    values_of,
    welch_shift,
)

Groups = Mapping[str, Sequence[Repeat]]


def beside_changes(limits: Baseline, then: Groups, now: Groups) -> list[ScenarioChange]:
    """Every group of repeats against its counterpart of the same session; ``limits`` gives tolerances and floors.

    Raises ``InputError`` for a group without a counterpart.
    """
    _check_counterparts(then, now, "--beside")
    return [_beside(limits, name, then[name], now[name]) for name in now]


def _beside(limits: Baseline, name: str, then: Sequence[Repeat], now: Sequence[Repeat]) -> ScenarioChange:
    _check_positive(name, values_of(then), now)
    alternately = captured_alternately(then, now)
    if alternately:
        how = f"{len(now)} rounds, captured alternately and paired"
        shifts = {metric: _paired(then, now, metric) for metric in values_of(then)}
    else:
        how = f"{len(now)} repeats against {len(then)} of the same session, not captured alternately"
        if not overlapping(then, now):
            how += ": a drift of the machine enters"
        shifts = {}
        after = values_of(now)
        for metric, values in values_of(then).items():
            shifts[metric] = _unpaired(values, after.get(metric, []))
    return _group(limits, name, shifts, how)


def stored_changes(baseline: Baseline, now: Groups) -> list[ScenarioChange]:
    """Every group of repeats against those that the baseline stores, of another session.

    Raises ``InputError`` for a group without a counterpart.
    """
    stored = {group.name: group for group in baseline.captured}
    _check_counterparts(stored, now, "the baseline")
    return [_stored(baseline, stored[name], now[name]) for name in now]


def _stored(baseline: Baseline, then: Captured, now: Sequence[Repeat]) -> ScenarioChange:
    _check_positive(then.name, then.metrics, now)
    after = values_of(now)
    shifts = {metric: _unpaired(values, after.get(metric, [])) for metric, values in then.metrics.items()}
    count = max(map(len, then.metrics.values()), default=0)
    how = f"{len(now)} repeats against {count} stored ones of another session: the machine's speed then enters"
    return _group(baseline, then.name, shifts, how, foreign=True)


def _check_positive(name: str, then: Mapping[str, object], now: Sequence[Repeat]) -> None:
    """Raise ``InputError`` where a metric that was known has a value now that no ratio can be told of.

    A share or rate within the SLOs that is 0 in all repeats is gone, which is worse than any change.
    """
    known = {metric for repeat in now for metric in repeat.metrics}
    for repeat in now:
        for metric, value in repeat.unfit.items():
            if metric in then and (metric in known or metric not in SLO_METRICS):
                raise InputError(
                    f"{name}: {metric} is {value:.3g} in a repeat; repeats are compared by their ratio, which needs "
                    "values above 0; leave that trace out, or make the baseline anew without it"
                )


Compared = tuple[Shift | None, list[float], list[float]]  # no shift where the metric is gone


def _paired(then: Sequence[Repeat], now: Sequence[Repeat], metric: str) -> Compared:
    rounds = [(one.metrics.get(metric), other.metrics.get(metric)) for one, other in zip(then, now, strict=True)]
    both = [(before, after) for before, after in rounds if before is not None and after is not None]
    if not both:
        return None, [before for before, _ in rounds if before is not None], []
    before, after = (list(side) for side in zip(*both, strict=True))
    return paired_shift(before, after), before, after


def _unpaired(then: list[float], now: list[float]) -> Compared:
    return (welch_shift(then, now) if now else None), then, now


def _group(limits: Baseline, name: str, shifts: dict[str, Compared], how: str, foreign: bool = False) -> ScenarioChange:
    changes, detectable = [], {}
    for metric, (shift, before, after) in shifts.items():
        tolerance = limits.tolerances.get(metric, limits.captured_tolerance)
        floor = floor_of(metric, limits.floors)
        then = _geometric_mean(before)
        pairs = tuple(zip(before, after, strict=False))
        if shift is None:
            changes.append(MetricChange(name, metric, then, math.nan, tolerance, math.nan, math.nan, floor, pairs))
            continue
        low, high = (relative_change(shift.middle + sign * shift.half) for sign in (-1, 1))
        now = then * math.exp(shift.middle)
        changes.append(MetricChange(name, metric, then, now, tolerance, low, high, floor, pairs))
        detectable[metric] = detectable_change(shift, metric, then, tolerance, floor)
    return ScenarioChange(name, worst_first(changes), name, how, detectable=detectable, foreign=foreign)


def _geometric_mean(values: Sequence[float]) -> float:
    return math.exp(math.fsum(map(math.log, values)) / len(values))


def _check_counterparts(then: Mapping[str, object], now: Mapping[str, object], where: str) -> None:
    for name in then:
        if name not in now:
            raise InputError(
                f"captured runs {name!r} of {where} have no counterpart; give their traces with --captured"
            )
    for name in now:
        if name not in then:
            raise InputError(f"captured runs {name!r} have no counterpart in {where}; add it, or leave them out")
