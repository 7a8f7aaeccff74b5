"""A gate for CI: results held against a baseline; a metric that moved for the worse beyond its tolerance fails it.

Simulated latencies are deterministic, so their tolerance is small. Captured runs are compared as groups of repeats, by
the interval of their difference.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

import numpy as np
from pydantic import Field, ValidationError
from scipy.stats import t as student

from driftsim import __version__
from driftsim.metrics import LATENCIES, PERCENTILES
from driftsim.simulating import Spec
from driftsim.trace import Record, first_problem

LEVEL = 0.95
SIMULATED = 0.001  # relative tolerance of a deterministic value
CAPTURED = 0.05  # of a measured one, beyond its interval
BETTER: dict[str, Literal["lower", "higher"]] = {
    **{f"{name}_{stat}_s": "lower" for name in LATENCIES for stat in ("mean", *PERCENTILES)},
    **dict.fromkeys(("mae", "rmse", "makespan_s", "rejected", "errors", "preemptions"), "lower"),
    **dict.fromkeys(("kendall_tau", "jain_index", "finished"), "higher"),
}
GATED = (
    *(f"{name}_{stat}_s" for name in LATENCIES for stat in ("mean", *PERCENTILES)),
    "mae",
    "rmse",
    "kendall_tau",
    "finished",
)


class Entry(Record):
    """One run of the baseline: what it is, and what it came to."""

    name: str
    key: str
    scenario: dict[str, Any]  # a spec; its paths count from the baseline's folder
    metrics: dict[str, float]


class Captured(Record):
    """Repeats of a captured run: each metric's values, in order of capture."""

    name: str
    metrics: dict[str, list[float]]


class Baseline(Record):
    """What results are held against."""

    schema_version: Literal[1] = 1
    driftsim_version: str = __version__
    reason: str
    tolerance: float = Field(default=SIMULATED, ge=0)  # relative, of simulated values
    captured_tolerance: float = Field(default=CAPTURED, ge=0)
    tolerances: dict[str, float] = {}  # of single metrics, instead
    runs: list[Entry] = []
    captured: list[Captured] = []

    def save(self, file: Path) -> None:
        """Write the baseline, whole or not at all. Raises ``OSError``."""
        aside = file.with_name(f".{file.name}.new")
        aside.write_text(self.model_dump_json(indent=1) + "\n")
        aside.replace(file)


def load_baseline(file: Path) -> Baseline:
    """Read a baseline. Raises ``ValueError`` naming file, key, value and remedy."""
    try:
        baseline = Baseline.model_validate_json(file.read_text())
    except FileNotFoundError:
        raise ValueError(f"{file}: no such baseline; make one with --update --reason WHY") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: not readable ({error})") from None
    except ValidationError as error:
        raise ValueError(
            f"{file}: {first_problem(error)}; correct the baseline or make it anew with --update"
        ) from None
    unknown = [name for name in baseline.tolerances if name not in BETTER]
    if unknown:
        raise ValueError(f"{file}: tolerances: {unknown[0]!r} is no metric; choose among {', '.join(BETTER)}")
    return baseline


@dataclass(frozen=True, slots=True)
class Move:
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


def spec_of(entry: Entry, folder: Path) -> Spec:
    """The run of ``entry``, whose paths count from ``folder``. Raises ``ValueError``."""
    plain = dict(entry.scenario)
    for name in ("trace", "profile"):
        if isinstance(plain.get(name), str):
            plain[name] = str(folder / plain[name])
    try:
        return Spec.model_validate(plain)
    except ValidationError as error:
        raise ValueError(f"baseline run {entry.name!r}: {first_problem(error)}; make the baseline anew") from None


def moves(baseline: Baseline, rows: dict[str, dict[str, Any]]) -> list[Move]:
    """Every gated metric of every run, worst first; ``rows`` by the name of the run.

    Raises ``ValueError`` if a run of the baseline has no row.
    """
    found = []
    for entry in baseline.runs:
        if entry.name not in rows:
            raise ValueError(f"run {entry.name!r} of the baseline has no result; run it, or make the baseline anew")
        row = rows[entry.name]
        for metric, then in entry.metrics.items():
            now = float(row.get(metric, math.nan)) if not row.get("failed") else math.nan
            tolerance = baseline.tolerances.get(metric, baseline.tolerance)
            one = Move(entry.name, metric, then, now, tolerance, 0.0, 0.0)
            found.append(Move(entry.name, metric, then, now, tolerance, one.change, one.change))
    return sorted(found, key=lambda move: -move.worse)


def captured_moves(baseline: Baseline, now: dict[str, dict[str, list[float]]]) -> list[Move]:
    """Every metric of every group of captured repeats, by Welch's interval of the log ratio; worst first."""
    found = []
    for group in baseline.captured:
        if group.name not in now:
            raise ValueError(f"captured runs {group.name!r} of the baseline have no counterpart; give their traces")
        for metric, values in group.metrics.items():
            then, new = np.log(values), np.log(now[group.name][metric])
            middle, half = float(new.mean() - then.mean()), _welch(then, new)
            tolerance = baseline.tolerances.get(metric, baseline.captured_tolerance)
            ends = math.expm1(middle - half), math.expm1(middle + half)
            found.append(Move(group.name, metric, math.exp(then.mean()), math.exp(new.mean()), tolerance, *ends))
    return sorted(found, key=lambda move: -move.worse)


def _welch(one: np.ndarray, other: np.ndarray) -> float:
    """Half of the interval of a difference of means (Welch 1947); infinite with a single value on a side."""
    if min(len(one), len(other)) < 2:
        return math.inf
    parts = [values.var(ddof=1) / len(values) for values in (one, other)]
    if not sum(parts):
        return 0.0
    freedom = sum(parts) ** 2 / sum(part**2 / (len(v) - 1) for part, v in zip(parts, (one, other), strict=True))
    return float(student.ppf((1 + LEVEL) / 2, freedom) * math.sqrt(sum(parts)))


def markdown(found: Sequence[Move], reason: str, most: int = 30) -> str:
    """A summary for a pull request: the verdict, then what moved, worst first."""
    counts = {name: sum(move.verdict == name for move in found) for name in ("regression", "improvement", "same")}
    title = "fails" if counts["regression"] else "passes"
    lines = [
        f"### driftsim check {title}",
        "",
        f"{counts['regression']} regressions, {counts['improvement']} improvements, {counts['same']} unchanged within "
        f"their tolerance. Baseline: {reason}",
    ]
    moved = [move for move in found if move.verdict != "same"]
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


def junit(found: Sequence[Move]) -> str:
    """JUnit XML: one test case for each metric of each run."""
    failures = sum(move.verdict == "regression" for move in found)
    suite = ElementTree.Element("testsuite", name="driftsim check", tests=str(len(found)), failures=str(failures))
    for move in found:
        case = ElementTree.SubElement(suite, "testcase", classname=move.run, name=move.metric)
        if move.verdict == "regression":
            beyond = f"{100 * move.change:+.2f} %, tolerance {100 * move.tolerance:g} %"
            told = f"{move.then:.6g} became {move.now:.6g} ({beyond})"
            ElementTree.SubElement(case, "failure", message=told)
    ElementTree.indent(suite)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"
