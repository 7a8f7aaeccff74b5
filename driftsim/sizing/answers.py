"""What a search came to, case by case: the capacity with its interval, what it changes, and what binds there."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from driftsim.simulation.limits import SHARES, binding
from driftsim.sizing.curves import Curve, change
from driftsim.sizing.plan import Case
from driftsim.sizing.run import LATENCIES, Found, Sizing, p99_of
from driftsim.statistics import Interval

NO_INTERVAL = Interval(np.nan, np.nan, np.nan)


class Tried(NamedTuple):
    """One load of one case: what the replications attained in the mean, with its interval, and whether that held.

    p99: of each latency (s), over all requests that finished, the mean over the replications.
    """

    load: float
    attained: Interval
    held: bool
    p99: dict[str, float]
    measured: float  # requests
    span_s: float


@dataclass(frozen=True, eq=False)
class Answer:
    """What one case came to. Loads are in the unit of the search; NaN stands for an end that no load has shown."""

    found: Found
    curve: Curve
    tried: list[Tried]
    change: Interval  # relative, against what the case is held against; NaN for that itself
    unit_rate: float  # requests/s at a load of 1

    @property
    def case(self) -> Case:
        """What was asked."""
        return self.found.case

    @property
    def state(self) -> str:
        """``found``; ``below`` where the lowest load fails, ``above`` where the highest holds."""
        return self.found.search.state

    @property
    def at(self) -> Tried:
        """The capacity; the lowest load that was tried where none held, and the highest where all did."""
        return next(one for one in self.tried if one.load == self.found.load)

    @cached_property
    def interval(self) -> Interval:
        """The capacity with its 95 % interval; an end is NaN that lies beyond the loads of the search."""
        if self.state != "found":
            return NO_INTERVAL
        _, low, high = self.curve.interval()
        below, above = self.curve.short()
        bounds = self.found.bounds
        below, above = below or low < bounds.lowest, above or high > bounds.highest
        if self.found.search.whole:
            low, high = np.floor(low), np.ceil(high)
        return Interval(self.found.load, np.nan if below else float(low), np.nan if above else float(high))

    @property
    def rates(self) -> Interval:
        """The same in requests a second; NaN where a load has no rate."""
        return Interval(*(self.unit_rate * value for value in self.interval))

    @property
    def binds(self) -> str:
        """What binds just beyond it, see ``limits.binding``."""
        return binding(self.found.shares)

    @property
    def is_overload(self) -> bool:
        """The capacity is more than the engine serves of a backlog, so that only short runs show it."""
        return self.state != "below" and bool(self.unit_rate * self.found.load > self.found.bounds.backlog)

    def row(self) -> dict[str, Any]:
        """The case as a flat row; NaN where there is no number."""
        found, at = self.state == "found", self.at
        rates = self.rates
        row = {**self.named(), "state": self.state, "load": self.interval.value}
        row |= {"load_low": self.interval.low, "load_high": self.interval.high}
        row |= {"rate": rates.value, "rate_low": rates.low, "rate_high": rates.high}
        row |= {"change": self.change.value, "change_low": self.change.low, "change_high": self.change.high}
        row |= {"at_load": at.load, **_measures(at), "binds": self.binds, "binds_at": self.found.beyond}
        row |= {f"{name}_share": self.found.shares.get(f"{name}_share", np.nan) for name in SHARES}
        row |= {"backlog_rate": self.found.bounds.backlog, "next_failed": self.found.search.failed if found else np.nan}
        return row

    def load_rows(self) -> list[dict[str, Any]]:
        """A row for each load that was tried."""
        return [
            {**self.named(), "load": one.load, "rate": self.unit_rate * one.load, **_measures(one), "held": one.held}
            for one in self.tried
        ]

    def named(self) -> dict[str, Any]:
        """What tells the case from others."""
        case = self.case
        return {
            "policy": case.setting.policy,
            "estimator": case.setting.estimator,
            "axis": case.axis,
            "value": case.value,
        }


def _measures(tried: Tried) -> dict[str, Any]:
    value, low, high = tried.attained
    return {
        "attainment": value, "attainment_low": low, "attainment_high": high,
        **{f"{name}_p99_s": p99 for name, p99 in tried.p99.items()},
        "measured": tried.measured, "span_s": tried.span_s,
    }  # fmt: skip


def answers_of(sizing: Sizing) -> list[Answer]:
    """The answers of ``sizing``, in the order of its cases."""
    kinds = [kind for kind, _ in sizing.plan.draws]
    curves = {one.case: one.curve(kinds, sizing.plan.target) for one in sizing.found}
    states = {one.case: one.search.state for one in sizing.found}
    answers = []
    for one in sizing.found:
        base, curve = sizing.plan.base_of(one.case), curves[one.case]
        known = base != one.case and states[base] == states[one.case] == "found"
        moved = change(curve, curves[base]) if known else NO_INTERVAL
        answers.append(Answer(one, curve, _tried(one, curve, kinds), moved, sizing.axis.unit_rate))
    return answers


def _tried(found: Found, curve: Curve, kinds: list[str]) -> list[Tried]:
    counted = "drawn" if curve.independent else ("local" if curve.has_interval else "recorded")
    low, high = curve.ends()
    tried = []
    for place, load in enumerate(curve.loads.tolist()):
        rows = [row for row, kind in zip(found.rows[load], kinds, strict=True) if kind == counted]
        mean = Interval(float(curve.mean[place]), float(low[place]), float(high[place]))
        p99 = {name: p99_of(rows, name) for name in LATENCIES}
        measured, span = (float(np.mean([row.get(name, np.nan) for row in rows])) for name in ("offered", "makespan_s"))
        tried.append(Tried(load, mean, found.search.held[load], p99, measured, span))
    return tried
