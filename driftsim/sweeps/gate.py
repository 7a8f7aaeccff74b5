"""A gate for CI: results held against a baseline; a metric that moved for the worse beyond its tolerance fails it.

Simulated latencies are deterministic, so their tolerance is small. Captured runs are compared as groups of repeats, by
the interval of their difference.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal
from xml.etree import ElementTree

import numpy as np

from driftsim.errors import InputError
from driftsim.statistics import welch_half_width
from driftsim.sweeps.baseline import BETTER, Baseline


@dataclass(frozen=True, slots=True)
class MetricChange:
    """A metric of a run, then and now; ``low`` and ``high`` bound the relative change where it was measured."""

    run: str
    metric: str
    then: float
    now: float
    tolerance: float
    low: float
    high: float

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
    def verdict(self) -> Literal["regression", "improvement", "same"]:
        """By the tolerance."""
        if self.worse > self.tolerance:
            return "regression"
        return "improvement" if self.worse < -self.tolerance else "same"


def metric_changes(baseline: Baseline, rows: dict[str, dict[str, Any]]) -> list[MetricChange]:
    """Every gated metric of every run, worst first; ``rows`` by the name of the run.

    Raises ``InputError`` if a run of the baseline has no row.
    """
    changes = []
    for entry in baseline.runs:
        if entry.name not in rows:
            raise InputError(f"run {entry.name!r} of the baseline has no result; run it, or make the baseline anew")
        row = rows[entry.name]
        for metric, then in entry.metrics.items():
            now = float(row.get(metric, math.nan)) if not row.get("failed") else math.nan
            tolerance = baseline.tolerances.get(metric, baseline.tolerance)
            one = MetricChange(entry.name, metric, then, now, tolerance, 0.0, 0.0)
            changes.append(MetricChange(entry.name, metric, then, now, tolerance, one.change, one.change))
    return sorted(changes, key=lambda move: -move.worse)


def captured_changes(baseline: Baseline, now: dict[str, dict[str, list[float]]]) -> list[MetricChange]:
    """Every metric of every group of captured repeats, by Welch's interval of the log ratio; worst first."""
    changes = []
    for group in baseline.captured:
        if group.name not in now:
            raise InputError(f"captured runs {group.name!r} of the baseline have no counterpart; give their traces")
        for metric, values in group.metrics.items():
            then, new = np.log(values), np.log(now[group.name][metric])
            middle, half = float(new.mean() - then.mean()), welch_half_width(then, new)
            tolerance = baseline.tolerances.get(metric, baseline.captured_tolerance)
            ends = math.expm1(middle - half), math.expm1(middle + half)
            changes.append(
                MetricChange(group.name, metric, math.exp(then.mean()), math.exp(new.mean()), tolerance, *ends)
            )
    return sorted(changes, key=lambda move: -move.worse)


def markdown(changes: Sequence[MetricChange], reason: str, most: int = 30) -> str:
    """A summary for a pull request: the verdict, then what moved, worst first."""
    counts = {name: sum(move.verdict == name for move in changes) for name in ("regression", "improvement", "same")}
    title = "fails" if counts["regression"] else "passes"
    lines = [
        f"### driftsim check {title}",
        "",
        f"{counts['regression']} regressions, {counts['improvement']} improvements, {counts['same']} unchanged within "
        f"their tolerance. Baseline: {reason}",
    ]
    moved = [move for move in changes if move.verdict != "same"]
    if moved:
        lines += [
            "",
            "| run | metric | baseline | now | change | tolerance | verdict |",
            "|---|---|--:|--:|--:|--:|---|",
        ]
    for move in moved[:most]:
        lines.append(
            f"| {move.run} | {move.metric} | {move.then:.6g} | {move.now:.6g} | {100 * move.change:+.2f} % | "
            f"{100 * move.tolerance:g} % | {move.verdict} |"
        )
    if len(moved) > most:
        lines.append(f"| and {len(moved) - most} more | | | | | | |")
    return "\n".join(lines) + "\n"


def junit(changes: Sequence[MetricChange]) -> str:
    """JUnit XML: one test case for each metric of each run."""
    failures = sum(move.verdict == "regression" for move in changes)
    suite = ElementTree.Element("testsuite", name="driftsim check", tests=str(len(changes)), failures=str(failures))
    for move in changes:
        case = ElementTree.SubElement(suite, "testcase", classname=move.run, name=move.metric)
        if move.verdict == "regression":
            beyond = f"{100 * move.change:+.2f} %, tolerance {100 * move.tolerance:g} %"
            message = f"{move.then:.6g} became {move.now:.6g} ({beyond})"
            ElementTree.SubElement(case, "failure", message=message)
    ElementTree.indent(suite)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"
