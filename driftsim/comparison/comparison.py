"""A comparison replays one workload under several schedulers and sets them side by side, with paired intervals.

What is estimated is the mean over days like those recorded: the centre and the interval of ``statistics.over_days``,
from the recorded days and two kinds of resamples of each, the same for every scheduler. The recorded run stands beside
it as "this run". The error of the latency model is an interval of its own.
"""

from __future__ import annotations

import math
from collections import ChainMap
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from driftsim.by_replica import has_replicas, per_replica
from driftsim.comparison import sameness
from driftsim.comparison.checks import Check
from driftsim.comparison.plan import BASELINE, ComparisonPlan, Setting
from driftsim.estimates import estimation
from driftsim.glossary import FAIR_METRICS, MOST, SESSION_METRICS, SLO_METRICS, TENANT_FAIR_METRICS
from driftsim.metrics import LATENCIES, PERCENTILES
from driftsim.scheduling.estimators import is_deployable
from driftsim.statistics import LEVEL, Day, DayEstimate, Interval, holm, over_days, widened
from driftsim.trace.trace import Trace
from driftsim.workloads.workload import Workload

LATENCY_METRICS = tuple(f"{name}_{stat}" for name in LATENCIES for stat in ("mean", *PERCENTILES))
ERROR_METRICS = ("mae", "rmse")
INTERVALS = {*LATENCY_METRICS, *ERROR_METRICS, *SLO_METRICS, *FAIR_METRICS, *SESSION_METRICS}  # but for a unit
CALIBRATED = ("mae", "rmse", "e2e_mean_s", "e2e_p50_s", "e2e_p99_s")  # metrics of the effect of calibration


class Draw(NamedTuple):
    """What the settings run on: a day as recorded, a resample of it, or that day with another draw of the model."""

    day: int
    kind: Literal["recorded", "circular", "local", "model"]
    number: int


@dataclass(frozen=True, eq=False)
class Comparison:
    """The results: for each setting a summary for each of ``draws``, and the trace of the first day as recorded."""

    plan: ComparisonPlan
    days: tuple[Workload, ...]
    draws: tuple[Draw, ...]
    summaries: dict[Setting, list[dict[str, Any]]]
    traces: dict[Setting, Trace]
    # by phase, what the recorded run measured, see ``measured_by_phase``
    measured: dict[str, dict[str, Any]] | None = None
    checks: tuple[Check, ...] = ()  # others: on a part that was held out, or with a profile of other runs
    mismatches: tuple[str, ...] = ()  # why the profile may not be of this trace
    # by setting, what became of each request of the first day as recorded, see ``goodput.missed_by``; with SLOs alone
    codes: dict[Setting, np.ndarray] = field(default_factory=dict)
    # by setting, the estimates of the first day as recorded without its drift, by request; where lengths shift
    undrifted: dict[Setting, pd.Series] = field(default_factory=dict)
    same: dict[Setting, str] = field(default_factory=dict)  # why a setting cannot differ from FIFO, see ``sameness``

    @property
    def workload(self) -> Workload:
        """The first day."""
        return self.days[0]

    @property
    def recorded(self) -> dict[str, Any]:
        """The summary of FIFO/static on the first day as recorded."""
        return self.summaries[BASELINE][0]

    @property
    def recorded_only(self) -> bool:
        """There are too few resamples for intervals."""
        return self.plan.replications < 3

    @cached_property
    def _places(self) -> dict[tuple[int, str], np.ndarray]:
        """Where the draws of each day and kind stand among ``draws``."""
        keys = [(draw.day, draw.kind) for draw in self.draws]
        return {
            key: np.array([place for place, other in enumerate(keys) if other == key]) for key in dict.fromkeys(keys)
        }

    def values(self, setting: Setting, metric: str, tenant: str | None = None) -> np.ndarray:
        """``metric`` of every draw, or that of one ``tenant``; NaN where a draw has none."""
        rows = self.summaries[setting]
        if tenant is not None:
            return np.array([row["per_tenant"].get(tenant, {}).get(metric, np.nan) for row in rows], dtype=float)
        return np.array([row.get(metric, np.nan) for row in rows], dtype=float)

    def estimate(self, numbers: np.ndarray) -> DayEstimate:
        """The mean over days of ``numbers``, of which there is one for each draw."""
        days = []
        for day in range(len(self.days)):
            kinds = [numbers[self._places.get((day, kind), [])] for kind in ("local", "circular")]
            local, circular = (values[~np.isnan(values)] for values in kinds)
            days.append(Day(float(numbers[day]), local, circular))
        return over_days(days)

    def value(self, setting: Setting, metric: str, tenant: str | None = None) -> Interval:
        """``metric`` over days like these, with its interval, which ends where the metric must."""
        found = self.estimate(self.values(setting, metric, tenant)).interval
        if metric not in MOST:
            return found
        return Interval(found.value, *(float(np.clip(end, 0.0, MOST[metric])) for end in found[1:]))

    def ratios(self, setting: Setting, against: Setting, metric: str, tenant: str | None = None) -> np.ndarray:
        """Relative change of ``metric`` from ``against`` to ``setting``, draw by draw.

        NaN where both are 0; in all draws where one went from 0 to more, since then no mean exists.
        """
        before, after = (self.values(one, metric, tenant) for one in (against, setting))
        nothing = before == 0
        if (nothing & (after > 0)).any():
            return np.full(len(before), np.nan)
        ratios: np.ndarray = after / np.where(nothing, np.nan, before) - 1
        return ratios

    def change_of(self, setting: Setting, against: Setting, metric: str, tenant: str | None = None) -> DayEstimate:
        """Relative change of ``metric`` from ``against`` to ``setting``, paired draw by draw."""
        return self.estimate(self.ratios(setting, against, metric, tenant))

    def change(self, setting: Setting, against: Setting, metric: str, tenant: str | None = None) -> Interval:
        """The same, as an interval."""
        return self.change_of(setting, against, metric, tenant).interval

    def change_with_model(self, setting: Setting, against: Setting, metric: str) -> Interval | None:
        """The same with the error of the latency model in it; None where the profile does not tell that error."""
        drawn = np.concatenate([self._places.get((day, "model"), np.array([], int)) for day in range(len(self.days))])
        if len(drawn) < 3:
            return None
        ratios = self.ratios(setting, against, metric)[drawn]
        return widened(self.change(setting, against, metric), float(ratios.std(ddof=1)), len(drawn) - 1)

    def told(self, settings: list[Setting], metric: str, against: Setting = BASELINE) -> set[Setting]:
        """Those of ``settings`` whose change of ``metric`` is no accident and large enough to matter.

        No accident: p values adjusted for how many rows are compared (Holm 1979). To matter: ``plan.practical``.
        """
        others = [group[0] for group in self.groups if against not in group and set(group) & set(settings)]
        changes = [self.change_of(setting, against, metric) for setting in others]
        found = self.real(changes, [abs(change.centre) for change in changes])
        real = {setting for setting, told in zip(others, found, strict=True) if told}
        return {one for group in self.groups if group[0] in real for one in group if one in settings}

    def real(self, changes: list[DayEstimate], sizes: list[float]) -> list[bool]:
        """Which of ``changes``, judged together, are no accident and of a size that matters."""
        adjusted = holm([change.p for change in changes])
        pairs = zip(adjusted, sizes, strict=True)
        return [p < 1 - LEVEL and size >= self.plan.practical for p, size in pairs]

    @cached_property
    def groups(self) -> list[list[Setting]]:
        """The compared settings, those together that differ in nothing on any draw: one row of the table each."""
        groups: list[list[Setting]] = []
        seen: dict[str, list[Setting]] = {}
        for setting in self.plan.settings:
            told = repr(self.summaries[setting]) + str(is_deployable(setting.estimator))
            if told in seen:
                seen[told].append(setting)
            else:
                seen[told] = [setting]
                groups.append(seen[told])
        return groups

    @cached_property
    def alike_in_latency(self) -> list[list[Setting]]:
        """The compared settings, those together whose latencies are equal on every draw, whatever they estimate."""
        found: dict[str, list[Setting]] = {}
        names = [f"{metric}_s" for metric in LATENCY_METRICS]
        for setting in self.plan.settings:
            rows = self.summaries[setting]
            told = repr([[row[name] for name in names] + [row["per_tenant"], row["per_tier"]] for row in rows])
            found.setdefault(told, []).append(setting)
        return list(found.values())

    def ranking(self, metric: str, largest: bool = False) -> Ranking | None:
        """Which setting is best by ``metric``, among those that can be deployed; None where none has a number."""
        candidates = [group[0] for group in self.groups if is_deployable(group[0].estimator)]
        sign = -1 if largest else 1
        numbers = {setting: sign * self.values(setting, metric) for setting in candidates}
        known = {setting: own for setting, own in numbers.items() if not math.isnan(own[0])}
        if not known:
            return None
        best = min(known, key=lambda setting: self.estimate(known[setting]).centre)
        others = [setting for setting in known if setting != best]
        changes = [self.estimate(known[setting] - known[best]) for setting in others]
        scale = abs(self.estimate(known[best]).centre)
        found = self.real(changes, [change.centre / scale if scale else change.centre for change in changes])
        ties = [setting for setting, told in zip(others, found, strict=True) if not told]
        local = [place for place, draw in enumerate(self.draws) if draw.kind == "local"]
        least = np.min([own[local] for own in known.values()], axis=0)
        return Ranking(best, ties, int((known[best][local] <= least).sum()), len(local))

    def rows(self) -> list[dict[str, Any]]:
        """One row per setting, with the fields that ``compare --json`` promises."""
        return [self._row(setting) for setting in self.plan.settings]

    def _row(self, setting: Setting) -> dict[str, Any]:
        recorded = dict(self.summaries[setting][0])
        row: dict[str, Any] = {
            "policy": setting.policy,
            "estimator": setting.estimator,
            "accounting": self.plan.admission.unit.name,
            "engine": self.plan.engine,
            "phase": self.plan.phase,
            "seed": self.plan.seed,
            "deployable": is_deployable(setting.estimator),
        }
        if self.same.get(setting):
            row["same_as_fifo"] = sameness.explained(self.same[setting])
        per_tier, per_tenant = (recorded.pop(name) for name in ("per_tier", "per_tenant"))
        for name, value in recorded.items():
            row[name] = value
            if name.removesuffix("_s") in INTERVALS:
                row |= self._interval(setting, name)
        if self.plan.fairness:
            per_tenant = {
                tenant: dict(ChainMap(own, *(self._interval(setting, name, tenant) for name in TENANT_FAIR_METRICS)))
                for tenant, own in per_tenant.items()
            }
        row |= {"per_tier": per_tier, "per_tenant": per_tenant}
        trace = self.traces[setting]
        return row | ({"per_replica": per_replica(trace, self.plan.phase)} if has_replicas(trace) else {})

    def _interval(self, setting: Setting, name: str, tenant: str | None = None) -> dict[str, float]:
        """The centre, the interval and the change against FIFO of the metric ``name``, of all or of one ``tenant``."""
        metric, unit = name.removesuffix("_s"), "_s" if name.endswith("_s") else ""
        centre, low, high = self.value(setting, name, tenant)
        versus = self.change_of(setting, BASELINE, name, tenant)
        return {
            f"{metric}_expected{unit}": centre,
            f"{metric}_low{unit}": low,
            f"{metric}_high{unit}": high,
            f"{metric}_vs_fifo": versus.centre,
            f"{metric}_vs_fifo_this_run": versus.this_run,
            f"{metric}_vs_fifo_low": versus.interval.low,
            f"{metric}_vs_fifo_high": versus.interval.high,
        }

    @cached_property
    def estimation_rows(self) -> list[dict[str, Any]]:
        """How well each setting's estimator did in this run, a row each, see ``driftsim.estimation``."""
        ids = self.workload.table.loc[self.workload.table["source"].isin(self.plan.excluded), "request_id"]
        return [
            {
                **setting._asdict(),
                **estimation(
                    self.traces[setting],
                    phase=self.plan.phase,
                    scored=~self.traces[setting].requests["request_id"].isin(ids).to_numpy(),
                    undrifted=self.undrifted.get(setting),
                ),
            }
            for setting in self.plan.settings
        ]

    def calibration(self) -> list[dict[str, Any]]:
        """What each estimator changes against ``static`` under the same policy: the effect of calibration alone."""
        effects = []
        for setting, static in self.calibrated.items():
            for metric in CALIBRATED:
                change = self.change_of(setting, static, metric)
                effects.append(
                    {
                        **setting._asdict(),
                        "metric": metric.removesuffix("_s"),
                        "change": change.centre,
                        "low": change.interval.low,
                        "high": change.interval.high,
                        "this_run": change.this_run,
                        "told": setting in self.told_of_calibration(metric),
                    }
                )
        return effects

    @cached_property
    def calibrated(self) -> dict[Setting, Setting]:
        """Each setting whose estimator may correct, and what it is held against: ``static`` under the same policy."""
        pairs = {
            setting: Setting(setting.policy, "static")
            for setting in self.plan.settings
            if setting.estimator != "static"
        }
        return {setting: static for setting, static in pairs.items() if static in self.summaries}

    def told_of_calibration(self, metric: str) -> set[Setting]:
        """The settings whose estimator changes ``metric`` beyond doubt, and enough to matter."""
        changes = [self.change_of(setting, static, metric) for setting, static in self.calibrated.items()]
        found = self.real(changes, [abs(change.centre) for change in changes])
        return {setting for setting, told in zip(self.calibrated, found, strict=True) if told}


@dataclass(frozen=True)
class Ranking:
    """The best setting, those that cannot be told from it, and in how many of the local resamples it is the best."""

    best: Setting
    ties: list[Setting]
    wins: int
    draws: int

    @property
    def simplest(self) -> Setting:
        """The simplest of the best and its ties: no correction before any, the engine's own order before any other."""
        return min([self.best, *self.ties], key=sameness.complexity)
