"""What became of a scenario: each gated metric then and now, and one verdict over all of them.

The replications of a scenario are the same workloads then and now, so the mean over them is compared, pair by pair.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from driftsim.errors import InputError
from driftsim.formatting import between, signed_percent
from driftsim.statistics import Interval
from driftsim.sweeps.baseline import Baseline, BaselineRun
from driftsim.sweeps.gated import BETTER, UNITS, floor_of, with_unit

Verdict = Literal["regression", "improvement", "same"]
ORDER: dict[str, int] = {"regression": 0, "improvement": 1, "same": 2}
VERBS = {"regression": "became worse", "improvement": "became better"}
KEY_DIGITS = 12  # of a run's key, enough to name it


@dataclass(frozen=True, slots=True)
class MetricChange:
    """A metric of a scenario, then and now, in its unit; ``low`` and ``high`` bound the relative change.

    ``pairs`` are the values then and now of each replication, or of each repeat of a captured run.
    """

    scenario: str
    metric: str
    then: float
    now: float
    tolerance: float  # relative
    low: float
    high: float
    floor: float = 0.0  # in the metric's unit
    pairs: tuple[tuple[float, float], ...] = ()

    @property
    def change(self) -> float:
        """Relative; infinite where there was none before."""
        if self.now == self.then or (math.isnan(self.now) and math.isnan(self.then)):
            return 0.0
        return (self.now - self.then) / abs(self.then) if self.then else math.inf

    @property
    def worse(self) -> float:
        """How far it moved the wrong way, beyond doubt, relative; negative for an improvement."""
        change, low, high = self.change, self.low, self.high
        if math.isnan(change):
            return math.inf  # it was known and is not
        if BETTER[self.metric] == "higher":
            change, low, high = -change, -high, -low
        return max(0.0, low) if change > 0 else min(0.0, high)

    @property
    def verdict(self) -> Verdict:
        """By the floor, in the metric's unit, and by the tolerance, relative: a change has to be beyond both."""
        if abs(self.now - self.then) < self.floor:
            return "same"
        if self.worse > self.tolerance:
            return "regression"
        return "improvement" if self.worse < -self.tolerance else "same"

    @property
    def rank(self) -> tuple[int, float]:
        """Sorts the worst first: regressions, then improvements, the largest of each first."""
        return ORDER[self.verdict], self.worse if self.verdict == "improvement" else -self.worse

    def sentence(self) -> str:
        """Change, metric, values and limits, on one line."""
        limits = f"tolerance {100 * self.tolerance:g} %"
        if self.floor:
            limits += f" and {with_unit(self.floor, self.metric)}"
        if math.isnan(self.now):
            return f"{self.metric} is gone, was {with_unit(self.then, self.metric)}"
        values = f"{with_unit(self.now, self.metric)}, was {with_unit(self.then, self.metric)}"
        return f"{self.told} {self.metric}: {values}; {limits}"

    @property
    def told(self) -> str:
        """The relative change as it is printed, with its interval where it has one."""
        if math.isnan(self.change):
            return "gone"
        if self.low != self.high and math.isfinite(self.low) and math.isfinite(self.high):
            return between(Interval(self.change, self.low, self.high))
        return signed_percent(self.change, 2)

    def row(self) -> dict[str, Any]:
        """The same for a table or JSON."""
        names = ("scenario", "metric", "then", "now", "change", "low", "high", "tolerance", "floor", "verdict")
        return {name: getattr(self, name) for name in names} | {"unit": UNITS[self.metric]}


@dataclass(frozen=True, slots=True)
class ScenarioChange:
    """A scenario, or a group of captured repeats: its metrics, worst first, of which the first gives the verdict.

    ``selector`` is what ``--only`` knows it by. ``how`` says what stood against what; ``detectable`` is the smallest
    relative change for the worse that would have been found, by metric, of captured runs. ``foreign`` says that the
    numbers then are of another session, whose machine may have been faster or slower.
    """

    name: str
    changes: list[MetricChange]
    selector: str = ""
    how: str = ""
    error: str = ""  # why a run of it failed
    detectable: dict[str, float] | None = None
    foreign: bool = False

    @property
    def worst(self) -> MetricChange:
        """The metric that gives the verdict."""
        return self.changes[0]

    @property
    def verdict(self) -> Verdict:
        """A regression if any metric is one, else an improvement if any is one."""
        return self.worst.verdict

    def sentence(self) -> str:
        """The verdict on one line: the worst metric, its values, and how many others moved with it."""
        verdict = "regression or another machine's speed" if self._doubtful else self.verdict
        others = sum(change.verdict == self.verdict for change in self.changes)
        parts = [f"{verdict}: {self.name}: {self.worst.sentence()}"]
        if self.how:
            parts.append(self.how + self._in_how_many())
        if self.verdict != "same":
            parts.append(f"{others} of {len(self.changes)} metrics {VERBS[self.verdict]}")
        return "; ".join([*parts, f"failed: {self.error}"] if self.error else parts)

    @property
    def _doubtful(self) -> bool:
        timed = UNITS[self.worst.metric] == "s" and not math.isnan(self.worst.now)
        return self.foreign and timed and self.verdict == "regression"

    def _in_how_many(self) -> str:
        """In how many of the replications it went the same way; nothing of captured runs."""
        pairs = self.worst.pairs
        if self.detectable is not None or len(pairs) < 2:
            return ""
        same_way = sum((now - then) * (self.worst.now - self.worst.then) > 0 for then, now in pairs)
        return f", the same way in {same_way}"


def worst_first(changes: Sequence[MetricChange]) -> list[MetricChange]:
    """``changes`` by their rank."""
    return sorted(changes, key=lambda change: change.rank)


def grouped(runs: Sequence[BaselineRun]) -> dict[str, list[BaselineRun]]:
    """The runs of a baseline by the scenario's name; runs that differ in nothing but the replication are together."""
    together: dict[str, list[BaselineRun]] = {}
    for run in runs:
        told = {name: value for name, value in run.scenario.items() if name not in ("replication", "resampling")}
        together.setdefault(json.dumps(told, sort_keys=True), []).append(run)
    named: dict[str, list[BaselineRun]] = {}
    for group in together.values():
        name = group[0].name if len(group) == 1 else _without_replication(group[0])
        named[f"{name} ({group[0].key[:KEY_DIGITS]})" if name in named else name] = group
    return named


def _without_replication(run: BaselineRun) -> str:
    name = re.sub(r"(^|, )(replication \d+|resampling \w+)(?=, |$)", "", run.name).removeprefix(", ")
    return name or str(run.scenario.get("policy", "fifo"))


def simulated_changes(baseline: Baseline, rows: dict[str, dict[str, Any]]) -> list[ScenarioChange]:
    """Every scenario of the baseline; ``rows`` by the name of the run.

    Raises ``InputError`` if a run of the baseline has no row.
    """
    for run in baseline.runs:
        if run.name not in rows:
            raise InputError(f"run {run.name!r} of the baseline has no result; run it, or make the baseline anew")
    return [_scenario(baseline, name, group, rows) for name, group in grouped(baseline.runs).items()]


def _scenario(
    baseline: Baseline, name: str, group: list[BaselineRun], rows: dict[str, dict[str, Any]]
) -> ScenarioChange:
    changes = []
    for metric in dict.fromkeys(metric for run in group for metric in run.metrics):
        known = [run for run in group if metric in run.metrics]
        pairs = tuple((run.metrics[metric], _value(rows[run.name], metric)) for run in known)
        then, now = (math.fsum(side) / len(pairs) for side in zip(*pairs, strict=True))
        change = MetricChange(name, metric, then, now, 0.0, 0.0, 0.0).change
        tolerance = baseline.tolerances.get(metric, baseline.tolerance)
        floor = floor_of(metric, baseline.floors)
        changes.append(MetricChange(name, metric, then, now, tolerance, change, change, floor, pairs))
    errors = [str(rows[run.name]["error"]) for run in group if rows[run.name].get("failed")]
    how = f"mean of {len(group)} replications" if len(group) > 1 else ""
    return ScenarioChange(name, worst_first(changes), group[0].key[:KEY_DIGITS], how, errors[0] if errors else "")


def _value(row: dict[str, Any], metric: str) -> float:
    """A failed run has no value."""
    return math.nan if row.get("failed") else float(row.get(metric, math.nan))
