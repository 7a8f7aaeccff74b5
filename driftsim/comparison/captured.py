"""What a policy changed on the real engine: captured runs of one workload, compared with each other.

The n-th repeat of a policy is paired with the n-th of the baseline, which ran beside it, so that a machine that drifts
cancels out, as far as it drifts slowly. Where the runs have steps, the speed of the host during each is a covariate as
well. Changes are relative; their intervals are Student's t, on the log of the ratio.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from driftsim.calibration.host_speed import NEARLY_THE_STEPS, host_speeds
from driftsim.calibration.runs import Run
from driftsim.comparison.capture_checks import Named, Setting, capture_warnings, check_comparable
from driftsim.comparison.captured_slos import WITHIN, one_promise, rows_within, table_within
from driftsim.contrasts import Adjustment, Contrast, adjusted, paired
from driftsim.errors import InputError, TraceError
from driftsim.formatting import between, html_table, show_table, shown_text, without_nan
from driftsim.metrics import summary
from driftsim.scheduling.admission import Admission
from driftsim.scheduling.policies import BASELINE
from driftsim.statistics import LEVEL, PRACTICAL, Interval, holm
from driftsim.trace.trace import Trace

if TYPE_CHECKING:
    from rich.console import Console

WIDTH = 140  # columns of the printed text
METRICS = (
    "e2e_mean_s", "e2e_p50_s", "e2e_p90_s", "e2e_p99_s", "ttft_mean_s", "ttft_p99_s", "tpot_mean_s", "makespan_s",
)  # fmt: skip
SHOWN = ("e2e_mean_s", "e2e_p50_s", "e2e_p99_s", "ttft_mean_s", "makespan_s")  # in a table for people
# A backlog's makespan is the sum of its steps, as the scale is: adjusted for it, nothing of the run would be left.
NEVER_ADJUSTED = ("makespan_s",)


@dataclass(frozen=True, slots=True)
class Effect:
    """A policy's change of a metric against the baseline: geometric mean over the rounds, with its 95 % interval.

    ``change``: as measured, round by round. ``adjusted``: at one speed of the host; NaN where that is not known, and
    for the makespan. ``p``: of no change, adjusted where that can be, after Holm over all policies and metrics.
    ``star``: that p is at most 5 % and the change is worth it.
    """

    policy: str
    estimator: str
    metric: str
    rounds: int
    value: float  # mean over the repeats, in the metric's unit
    spread: float  # standard deviation over the repeats, likewise
    change: float  # relative; 0 for the baseline itself
    low: float
    high: float
    adjusted: float
    adjusted_low: float
    adjusted_high: float
    p: float
    star: bool

    @property
    def measured(self) -> Interval:
        """As measured, round by round."""
        return Interval(self.change, self.low, self.high)

    @property
    def best(self) -> Interval:
        """Adjusted for the host's speed; as measured where that cannot be."""
        known = not math.isnan(self.adjusted)
        return Interval(self.adjusted, self.adjusted_low, self.adjusted_high) if known else self.measured


@dataclass(frozen=True, eq=False)
class CapturedComparison:
    """The repeats of every policy with an estimator, in order of capture, and each one's summary.

    speeds: log scale of the host during each run, in the same order; without, nothing is adjusted, and ``unadjusted``
    says why. practical: the least relative change that gets a star.

    >>> from pathlib import Path
    >>> from driftsim.trace.trace import read
    >>> folders = sorted(Path("traces/smollm2-cpu-policies").glob("*-[12]"))
    >>> compared = compare_captured([(folder.name, read(folder)) for folder in folders])
    >>> compared.baseline, len(compared.frame())
    (('fifo', 'ema'), 40)
    """

    summaries: dict[Setting, list[dict[str, Any]]]
    baseline: Setting
    warnings: tuple[str, ...]
    requests: int
    speeds: dict[Setting, list[float]] = field(default_factory=dict)
    unadjusted: str = "the speed of the host is not known"
    practical: float = PRACTICAL

    def effects(self) -> list[Effect]:
        """One for each policy and metric."""
        found = [self._effect(setting, metric) for setting in self.summaries for metric in METRICS]
        tested = [place for place, effect in enumerate(found) if not math.isnan(effect.p)]
        for place, p in zip(tested, holm([found[place].p for place in tested]), strict=True):
            star = p <= 1 - LEVEL and abs(found[place].best.value) >= self.practical
            found[place] = replace(found[place], p=p, star=star)
        return found

    @cached_property
    def adjustments(self) -> dict[str, Adjustment[Setting]]:
        """Of each metric that is adjusted for the host's speed: its slope, and the contrasts."""
        if not self.speeds:
            return {}
        covariate = {setting: np.array(own) for setting, own in self.speeds.items()}
        found = {
            metric: adjusted({setting: self._logs(setting, metric) for setting in covariate}, covariate, self.baseline)
            for metric in METRICS
            if metric not in NEVER_ADJUSTED
        }
        return {metric: each for metric, each in found.items() if each is not None}

    def slower(self, setting: Setting) -> float:
        """How much slower the host was than under the baseline, relative; NaN where that is not known."""
        if not self.speeds:
            return math.nan
        return math.expm1(float(np.mean(self.speeds[setting]) - np.mean(self.speeds[self.baseline])))

    def frame(self) -> pd.DataFrame:
        """``effects`` as a data frame."""
        return pd.DataFrame([asdict(effect) for effect in self.effects()])

    def document(self) -> dict[str, Any]:
        """What ``driftsim effects --json`` prints."""
        document = {
            "rows": [asdict(effect) for effect in self.effects()],
            **({"within_slos": within} if (within := self.within_slos()) else {}),
            "baseline": "/".join(self.baseline),
            "host_speed": {"/".join(setting): self.slower(setting) for setting in self.summaries},
            "adjustment": {metric: self._adjustment(metric) for metric in METRICS},
            "practical": self.practical,
            "warnings": [*self.warnings, *self.notes()],
        }
        plain: dict[str, Any] = without_nan(document)
        return plain

    def within_slos(self) -> list[dict[str, Any]]:
        """A row for each policy: attainment and goodput within the SLOs of the traces, as ``rows_within`` tells."""
        return rows_within(self.summaries)

    def notes(self) -> list[str]:
        """What was adjusted, and what that means."""
        if not self.adjustments:
            return [f"no change is adjusted for the speed of the host: {self.unadjusted}"]
        explained = [name for name, each in self.adjustments.items() if each.explained > NEARLY_THE_STEPS]
        if not explained:
            return []
        return [
            f"the speed of the host explains more than {100 * NEARLY_THE_STEPS:.0f} % of the variation between repeats "
            f"of {', '.join(map(_words, explained))}: adjusted, that is nearly what the step-time model says of its "
            "steps, and the model's error is not in the interval"
        ]

    def show(self, console: Console) -> None:
        """Print the values and the changes, a row for each policy with an estimator, and the warnings."""
        rows: dict[Setting, dict[str, Effect]] = {}
        for effect in self.effects():
            rows.setdefault((effect.policy, effect.estimator), {})[effect.metric] = effect
        named = {setting: [*setting, str(len(self.summaries[setting]))] for setting in rows}
        headings = ["policy\n", "estimator\n", "runs\n"]
        title = f"Measured, {self.requests} requests a run: mean ± standard deviation over the runs"
        values = [
            [*named[setting], *(f"{row[metric].value:.2f} ± {row[metric].spread:.2f}" for metric in SHOWN)]
            for setting, row in rows.items()
        ]
        show_table(console, title, [*headings, *(f"{_words(metric)}\ns" for metric in SHOWN)], values)
        if self.within_slos():
            show_table(console, WITHIN, *table_within(self.within_slos(), list(named.values())))
        others = {setting: row for setting, row in rows.items() if setting != self.baseline}
        if others:
            self._show_changes(console, others, named)
        for warning in (*self.warnings, *self.notes()):
            console.print(f"Note: {warning}.", markup=False)

    def _show_changes(
        self, console: Console, rows: dict[Setting, dict[str, Effect]], named: dict[Setting, list[str]]
    ) -> None:
        headings = ["policy\n", "estimator\n", "runs\n"]
        metrics = [f"{_words(metric)}\n%" for metric in SHOWN]
        title = f"Measured change against {'/'.join(self.baseline)}, 95 % interval"
        if self.adjustments:
            lines = [
                [*named[setting], f"{100 * self.slower(setting):+.1f}", *(_change(row[metric]) for metric in SHOWN)]
                for setting, row in rows.items()
            ]
            lines.append(["slope", "", "", "", *(self._slope(metric) for metric in SHOWN)])
            show_table(console, f"{title}, at one speed of the host", [*headings, "host\n% slower", *metrics], lines)
        lines = [
            [*named[setting], *(_change(row[metric], as_measured=True, star=not self.adjustments) for metric in SHOWN)]
            for setting, row in rows.items()
        ]
        show_table(console, f"{title}, as measured, round by round", [*headings, *metrics], lines)
        console.print(
            f"* not 0, and {100 * self.practical:g} % or more: p of at most {100 * (1 - LEVEL):.0f} % after Holm over "
            f"{len(rows)} x {len(METRICS)} changes (those of --json). An interval is that of one change alone.",
            markup=False,
        )

    def _slope(self, metric: str) -> str:
        """By how much a metric's log grows with that of the host's scale, as text."""
        each = self.adjustments.get(metric)
        if each is None:
            return "not adjusted"
        return f"{each.slope.value:.2f} [{each.slope.low:.2f}, {each.slope.high:.2f}]"

    def _adjustment(self, metric: str) -> dict[str, Any]:
        each = self.adjustments.get(metric)
        if each is None:
            why = "it is the sum of the steps, as the scale is" if metric in NEVER_ADJUSTED else self.unadjusted
            return {"adjusted": False, "why": why}
        return {"adjusted": True, "slope": each.slope, "explained": each.explained}

    def __str__(self) -> str:
        return shown_text(self.show, WIDTH)

    def _repr_html_(self) -> str:
        return html_table(self.frame())

    def _logs(self, setting: Setting, metric: str) -> np.ndarray:
        logs: np.ndarray = np.log([float(row[metric]) for row in self.summaries[setting]])
        return logs

    def _effect(self, setting: Setting, metric: str) -> Effect:
        own, base = (self._logs(one, metric) for one in (setting, self.baseline))
        values = np.exp(own)
        spread = float(values.std(ddof=1)) if len(own) > 1 else math.nan
        measured, at_one_speed = paired(own, base), self._adjusted(setting, metric)
        chosen = at_one_speed or measured
        p = math.nan if setting == self.baseline else chosen.p
        change = at_one_speed.relative() if at_one_speed else Interval(math.nan, math.nan, math.nan)
        rounds = min(len(own), len(base))
        return Effect(*setting, metric, rounds, float(values.mean()), spread, *measured.relative(), *change, p, False)

    def _adjusted(self, setting: Setting, metric: str) -> Contrast | None:
        each = self.adjustments.get(metric)
        if each is None:
            return None
        return Contrast(0.0, 0.0, 1) if setting == self.baseline else each.contrasts[setting]


def _words(metric: str) -> str:
    return metric.removesuffix("_s").replace("_", " ")


def _change(effect: Effect, *, as_measured: bool = False, star: bool = True) -> str:
    return between(effect.measured if as_measured else effect.best, unit="") + (" *" if star and effect.star else "")


def compare_captured(traces: Sequence[Named], practical: float = PRACTICAL) -> CapturedComparison:
    """Compare captured ``traces``, each with its name; ``practical``: the least relative change that gets a star.

    Raises ``TraceError`` if they are not captured runs of one workload, complete, with FIFO among them.
    """
    if not 0 <= practical < math.inf:
        raise InputError(f"practical must be 0 or more, a relative change, got {practical}")
    check_comparable(traces)
    traces, differ = one_promise(traces)
    groups: dict[Setting, list[Named]] = {}
    for name, trace in sorted(traces, key=lambda pair: pair[1].header.captured_at or ""):
        admission = trace.header.admission
        groups.setdefault((str(admission["policy"]), str(admission["estimator"])), []).append((name, trace))
    baselines = [setting for setting in groups if setting[0] == BASELINE]
    if not baselines:
        raise TraceError(f"no trace ran under {BASELINE}, which the others are compared with; capture one")
    order = sorted(groups, key=lambda setting: (setting not in baselines, setting))
    summaries = {setting: [_summary(trace) for _, trace in groups[setting]] for setting in order}
    speeds, why = _speeds(groups)
    return CapturedComparison(
        summaries, order[0], (*capture_warnings(groups), *differ), len(traces[0][1].requests), speeds, why, practical
    )


def _summary(trace: Trace) -> dict[str, Any]:
    return summary(trace, Admission.of(trace.header.admission))


def _speeds(groups: dict[Setting, list[Named]]) -> tuple[dict[Setting, list[float]], str]:
    """The log scale of the host during each run; none, and why, where that cannot be told."""
    runs = [Run(name, trace) for group in groups.values() for name, trace in group]
    found = host_speeds(runs)
    if not found.logs:
        return {}, found.why
    logs = iter(found.logs)
    why = f"it takes more repeats, or a host whose speed varies: {len(runs)} runs of {len(groups)} policies"
    return {setting: [next(logs) for _ in group] for setting, group in groups.items()}, why
