"""A gate for CI: results held against a baseline; a metric that moved for the worse beyond its tolerance fails it.

Simulated latencies are deterministic, so their tolerance is small. Captured runs are compared as groups of repeats, by
the interval of their difference.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from xml.etree import ElementTree

import numpy as np
import pandas as pd

from driftsim.errors import InputError
from driftsim.formatting import show_table, shown_text, signed_percent, without_nan
from driftsim.statistics import welch_half_width
from driftsim.sweeps.baseline import BETTER, Baseline, captured_metrics, load_baseline, rows_by_name, spec_of
from driftsim.sweeps.recorder import Watch, unwatched
from driftsim.trace.trace import read

if TYPE_CHECKING:
    from rich.console import Console

MOST_ROWS = 40  # of the printed table
WIDTH = 100  # columns of the printed text


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
            then, new = np.log(values), np.log(now[group.name].get(metric, [math.nan]))
            middle, half = float(new.mean() - then.mean()), welch_half_width(then, new)
            tolerance = baseline.tolerances.get(metric, baseline.captured_tolerance)
            ends = math.expm1(middle - half), math.expm1(middle + half)
            changes.append(
                MetricChange(group.name, metric, math.exp(then.mean()), math.exp(new.mean()), tolerance, *ends)
            )
    return sorted(changes, key=lambda move: -move.worse)


@dataclass(frozen=True, slots=True)
class GateResult:
    """Every gated metric of every run, then and now, worst first; ``reason`` is the baseline's.

    >>> GateResult([], "the first").regressions
    []
    """

    changes: list[MetricChange]
    reason: str

    @property
    def regressions(self) -> list[MetricChange]:
        """Those that moved for the worse beyond their tolerance, worst first."""
        return [change for change in self.changes if change.verdict == "regression"]

    @property
    def moved(self) -> list[MetricChange]:
        """Those that moved beyond their tolerance, either way."""
        return [change for change in self.changes if change.verdict != "same"]

    @property
    def counts(self) -> str:
        """How many of each verdict, in words."""
        count = Counter(change.verdict for change in self.changes)
        return f"{count['regression']} regressions, {count['improvement']} improvements, {count['same']} unchanged"

    def __str__(self) -> str:
        return shown_text(self.show, WIDTH)

    def _repr_html_(self) -> str:
        return str(self.frame().to_html(index=False))

    def rows(self) -> list[dict[str, Any]]:
        """One for each metric of each run."""
        return [asdict(one) | {"change": one.change, "verdict": one.verdict} for one in self.changes]

    def frame(self) -> pd.DataFrame:
        """``rows`` as a data frame."""
        return pd.DataFrame(self.rows())

    def document(self) -> dict[str, Any]:
        """The same for JSON."""
        rows: list[dict[str, Any]] = without_nan(self.rows())
        return {"moves": rows, "regressions": len(self.regressions), "reason": self.reason}

    def show(self, console: Console) -> None:
        """Print what moved, and how many of each verdict."""
        lines = [
            [one.run, one.metric, f"{one.then:.6g}", f"{one.now:.6g}", signed_percent(one.change, 2),
             f"{100 * one.tolerance:g} %", one.verdict]
            for one in self.moved[:MOST_ROWS]
        ]  # fmt: skip
        if lines:
            headings = ["run\n", "metric\n", "baseline\n", "now\n", "change\n", "tolerance\n", "verdict\n"]
            show_table(console, "What moved, worst first", headings, lines)
        console.print(self.counts)

    def markdown(self, most: int = 30) -> str:
        """A summary for a pull request: the verdict, then what moved, worst first."""
        lines = [
            f"### driftsim check {'fails' if self.regressions else 'passes'}",
            "",
            f"{self.counts} within their tolerance. Baseline: {self.reason}",
        ]
        moved = self.moved
        if moved:
            lines += [
                "",
                "| run | metric | baseline | now | change | tolerance | verdict |",
                "|---|---|--:|--:|--:|--:|---|",
            ]
        for one in moved[:most]:
            lines.append(
                f"| {one.run} | {one.metric} | {one.then:.6g} | {one.now:.6g} | {signed_percent(one.change, 2)} | "
                f"{100 * one.tolerance:g} % | {one.verdict} |"
            )
        if len(moved) > most:
            lines.append(f"| and {len(moved) - most} more | | | | | | |")
        return "\n".join(lines) + "\n"

    def junit(self) -> str:
        """JUnit XML: one test case for each metric of each run."""
        tests, failures = str(len(self.changes)), str(len(self.regressions))
        suite = ElementTree.Element("testsuite", name="driftsim check", tests=tests, failures=failures)
        for one in self.changes:
            case = ElementTree.SubElement(suite, "testcase", classname=one.run, name=one.metric)
            if one.verdict == "regression":
                beyond = f"{signed_percent(one.change, 2)}, tolerance {100 * one.tolerance:g} %"
                message = f"{one.then:.6g} became {one.now:.6g} ({beyond})"
                ElementTree.SubElement(case, "failure", message=message)
        ElementTree.indent(suite)
        return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def check_baseline(
    baseline: Path | str,
    *,
    captured: Sequence[Path | str] = (),
    store: Path | str | None = None,
    jobs: int = 0,
    watch: Watch = unwatched,
) -> GateResult:
    """Hold results against the baseline in a file: its runs are simulated again, or their rows taken from ``store``.

    captured: folders of captured traces, held against the baseline's captured runs. jobs, watch: as ``sweep`` has them.
    Raises ``InputError`` for a baseline that cannot be held against what is given.

    >>> check_baseline("experiments/gate/baseline.json", jobs=1).regressions
    []
    """
    file = Path(baseline)
    known = load_baseline(file)
    if captured and not known.captured:
        raise InputError(f"{file}: holds no captured runs to compare with; make it anew with --update --captured")
    if not known.runs and not captured:
        raise InputError(f"{file}: holds captured runs only; give their counterparts with --captured TRACE")
    if not known.runs and store is not None:
        raise InputError(f"{file}: holds no simulated run, so a store does nothing; drop it")
    rows = {}
    if known.runs:
        specs = {run.name: spec_of(run, file.parent) for run in known.runs}
        rows = rows_by_name(specs, None if store is None else Path(store), jobs, watch)
    changes = metric_changes(known, rows)
    if captured:
        changes += captured_changes(known, captured_metrics([read(path) for path in captured]))
    return GateResult(sorted(changes, key=lambda change: -change.worse), known.reason)
