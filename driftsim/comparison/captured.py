"""What a policy changed on the real engine: captured runs of one workload, compared round by round.

The n-th repeat of a policy is paired with the n-th of the baseline, which ran beside it, so that a machine that drifts
cancels out. Changes are relative; their intervals are Student's t over the rounds, on the log of the ratio.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from driftsim.errors import TraceError
from driftsim.formatting import between, show_table, shown_text, without_nan
from driftsim.metrics import FEWEST_FOR_P99, summary
from driftsim.scheduling.admission import Admission
from driftsim.scheduling.policies import BASELINE
from driftsim.statistics import Interval, mean_half_width, ratio_interval
from driftsim.trace.header import Header, Phase
from driftsim.trace.trace import Trace

if TYPE_CHECKING:
    from rich.console import Console

WIDTH = 140  # columns of the printed text
METRICS = (
    "e2e_mean_s", "e2e_p50_s", "e2e_p90_s", "e2e_p99_s", "ttft_mean_s", "ttft_p99_s", "tpot_mean_s", "makespan_s",
)  # fmt: skip
SHOWN = ("e2e_mean_s", "e2e_p50_s", "e2e_p99_s", "ttft_mean_s", "makespan_s")  # in a table for people


@dataclass(frozen=True, slots=True)
class Effect:
    """A policy's change of a metric against the baseline: geometric mean over the rounds, with its interval."""

    policy: str
    estimator: str
    metric: str
    rounds: int
    value: float  # mean over the repeats, in the metric's unit
    spread: float  # standard deviation over the repeats, likewise
    change: float  # relative; 0 for the baseline itself
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class CapturedComparison:
    """The repeats of every policy with an estimator, in order of capture, and each one's summary.

    >>> from pathlib import Path
    >>> from driftsim.trace.trace import read
    >>> folders = sorted(Path("traces/smollm2-cpu-policies").glob("*-[12]"))
    >>> compared = compare_captured([(folder.name, read(folder)) for folder in folders])
    >>> compared.baseline, len(compared.frame())
    (('fifo', 'ema'), 40)
    """

    summaries: dict[tuple[str, str], list[dict[str, Any]]]
    baseline: tuple[str, str]
    warnings: tuple[str, ...]
    requests: int

    def effects(self) -> list[Effect]:
        """One for each policy and metric."""
        return [self._effect(setting, metric) for setting in self.summaries for metric in METRICS]

    def frame(self) -> pd.DataFrame:
        """``effects`` as a data frame."""
        return pd.DataFrame([asdict(effect) for effect in self.effects()])

    def document(self) -> dict[str, Any]:
        """What ``driftsim effects --json`` prints."""
        rows = [without_nan(asdict(effect)) for effect in self.effects()]
        return {"rows": rows, "baseline": "/".join(self.baseline), "warnings": list(self.warnings)}

    def show(self, console: Console) -> None:
        """Print the values and the changes, a row for each policy with an estimator, and the warnings."""
        cells: dict[tuple[str, str], dict[str, Effect]] = {}
        for effect in self.effects():
            cells.setdefault((effect.policy, effect.estimator), {})[effect.metric] = effect
        metrics = [metric.removesuffix("_s").replace("_", " ") for metric in SHOWN]
        values, changes = [], []
        for setting, row in cells.items():
            named = [*setting, str(len(self.summaries[setting]))]
            values.append([*named, *(f"{row[metric].value:.2f} ± {row[metric].spread:.2f}" for metric in SHOWN)])
            if setting != self.baseline:
                changes.append([*named, *(_change(row[metric]) for metric in SHOWN)])
        headings = ["policy\n", "estimator\n", "runs\n"]
        title = f"Measured, {self.requests} requests a run: mean ± standard deviation over the runs"
        show_table(console, title, [*headings, *(f"{metric}\ns" for metric in metrics)], values)
        if changes:
            title = f"Measured change against {'/'.join(self.baseline)}, round by round, 95 % interval"
            show_table(console, title, [*headings, *(f"{metric}\n%" for metric in metrics)], changes)
        for warning in self.warnings:
            console.print(f"Note: {warning}.", markup=False)

    def __str__(self) -> str:
        return shown_text(self.show, WIDTH)

    def _repr_html_(self) -> str:
        return str(self.frame().to_html(index=False, float_format=lambda value: f"{value:.4g}"))

    def _effect(self, setting: tuple[str, str], metric: str) -> Effect:
        own = np.array([row[metric] for row in self.summaries[setting]], dtype=float)
        base = np.array([row[metric] for row in self.summaries[self.baseline]], dtype=float)
        rounds = min(len(own), len(base))
        ratios = np.log(own[:rounds] / base[:rounds])
        spread = float(own.std(ddof=1)) if len(own) > 1 else math.nan
        half = mean_half_width(ratios) if rounds > 1 else math.nan
        return Effect(*setting, metric, rounds, float(own.mean()), spread, *ratio_interval(ratios, half))


def _change(effect: Effect) -> str:
    return between(Interval(effect.change, effect.low, effect.high), unit="")


def compare_captured(traces: Sequence[tuple[str, Trace]]) -> CapturedComparison:
    """Compare captured ``traces``, each with its name.

    Raises ``TraceError`` if they are not captured runs of one workload, complete, with FIFO among them.
    """
    _check(traces)
    groups: dict[tuple[str, str], list[tuple[str, Trace]]] = {}
    for name, trace in sorted(traces, key=lambda pair: pair[1].header.captured_at or ""):
        admission = trace.header.admission
        groups.setdefault((str(admission["policy"]), str(admission["estimator"])), []).append((name, trace))
    baselines = [setting for setting in groups if setting[0] == BASELINE]
    if not baselines:
        raise TraceError(f"no trace ran under {BASELINE}, which the others are compared with; capture one")
    order = sorted(groups, key=lambda setting: (setting not in baselines, setting))
    summaries = {setting: [_summary(trace) for _, trace in groups[setting]] for setting in order}
    first = traces[0][1]
    return CapturedComparison(summaries, order[0], tuple(_warnings(groups)), len(first.requests))


def _summary(trace: Trace) -> dict[str, Any]:
    return summary(trace, Admission.of(trace.header.admission))


def _check(traces: Sequence[tuple[str, Trace]]) -> None:
    first_name, first = traces[0]
    for name, trace in traces:
        header = trace.header
        if header.kind != "captured":
            raise TraceError(f"{name}: is {header.kind}, not captured; only measured runs are compared here")
        if header.ended != "complete":
            raise TraceError(f"{name}: the run did not end properly ({header.ended}); capture it again")
        if not {"policy", "estimator"} <= header.admission.keys():
            raise TraceError(f"{name}/header.json: does not tell its policy and estimator")
        what = _differs(first, trace)
        if what:
            raise TraceError(f"{name}: another {what} than {first_name}; compare runs of one workload on one engine")


def _differs(one: Trace, other: Trace) -> str | None:
    """What makes two runs incomparable, if anything does."""
    for name in ("model", "hardware", "engine", "max_in_flight"):
        if getattr(one.header, name) != getattr(other.header, name) and "stock" not in (
            one.header.admission["policy"],
            other.header.admission["policy"],
        ):
            return name
    if _phases(one.header) != _phases(other.header):
        return "workload"
    for column in ("request_id", "tenant", "tier", "prompt_tokens", "max_tokens"):
        if list(one.requests[column]) != list(other.requests[column]):
            return f"{column} in its requests"
    return None


def _phases(header: Header) -> list[Phase]:
    return [phase.changed(start_s=None) for phase in header.workload.phases]


def _warnings(groups: dict[tuple[str, str], list[tuple[str, Trace]]]) -> list[str]:
    warnings = []
    runs = [pair for group in groups.values() for pair in group]
    disturbed = [name for name, trace in runs if trace.header.load is not None and trace.header.load.disturbed]
    if disturbed:
        warnings.append(f"the machine was disturbed during {', '.join(disturbed)}")
    if len({len(group) for group in groups.values()}) > 1:
        warnings.append("the policies have different numbers of repeats; rounds beyond the fewest are not compared")
    if min(len(group) for group in groups.values()) < 2:
        warnings.append("intervals need at least 2 repeats of each policy")
    lengths = {tuple(trace.requests["output_tokens"].fillna(-1)) for _, trace in runs}
    if len(lengths) > 1:
        warnings.append(
            "output lengths differ between the runs: part of the change is theirs; force them (--force-lengths)"
        )
    failed = [name for name, trace in runs if len(trace.finished) < len(trace.requests)]
    if failed:
        warnings.append(f"not every request finished in {', '.join(failed)}")
    count = len(runs[0][1].requests)
    if count < FEWEST_FOR_P99:
        warnings.append(f"a P99 of {count} requests is close to the maximum; read it with care")
    return warnings
