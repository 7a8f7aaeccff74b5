"""A comparison replays one workload under several schedulers and sets them side by side, with paired intervals.

Replication 0 is the workload as recorded and gives every printed value; the others are block resamples of it, the same
for every scheduler, and give the intervals: value plus or minus Student's t times their standard deviation, 95 %.
Intervals cover the workload's variation, not the model's error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from driftsim.comparison import sameness
from driftsim.comparison.checks import Check
from driftsim.errors import InputError, check_whole
from driftsim.latency.profile import Profile
from driftsim.metrics import LATENCIES, PERCENTILES, summary
from driftsim.scheduling.admission import Admission
from driftsim.scheduling.estimators import make_estimator
from driftsim.scheduling.plugins import give_class, given_classes
from driftsim.scheduling.policies import POLICIES, STOCK, check_order, goes_by_tier, make_policy
from driftsim.simulation.observed import observed_lengths
from driftsim.simulation.run import simulate
from driftsim.simulation.scenario import Barrier, Scenario
from driftsim.statistics import Interval, replicated
from driftsim.tiers import TierRule, no_order, rules_in_force, tier_rules
from driftsim.trace.trace import Trace
from driftsim.workers import map_shared, processes, shared
from driftsim.workloads.arrivals import arriving
from driftsim.workloads.processes import Process
from driftsim.workloads.replay import resample
from driftsim.workloads.workload import Workload

LATENCY_METRICS = tuple(f"{name}_{stat}" for name in LATENCIES for stat in ("mean", *PERCENTILES))
ERROR_METRICS = ("mae", "rmse")


class Setting(NamedTuple):
    """What is compared: a policy and the estimator it is fed by."""

    policy: str
    estimator: str

    def __str__(self) -> str:
        return f"{self.policy}/{self.estimator}"


BASELINE = Setting("fifo", "static")


@dataclass(frozen=True, kw_only=True)
class ComparisonPlan:
    """What to compare, and how often. ``left_out``: sentences about what was not asked for by name and cannot run."""

    profile: Profile
    admission: Admission = field(default_factory=Admission)
    settings: tuple[Setting, ...] = ()
    excluded: frozenset[int] = frozenset()  # recorded rows whose estimates do not count
    phase: str = "all"
    replications: int = 20
    max_in_flight: int | None = None
    tiers: tuple[TierRule, ...] = ()
    refill_lag: bool = True
    barrier: Barrier | None = None
    arrivals: Process | None = None  # other arrivals than the workload's
    seed: int = 0
    left_out: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("replications", "seed"):
            check_whole(name, getattr(self, name))
        object.__setattr__(self, "tiers", tier_rules(self.tiers))  # frozen for everybody else
        if self.replications < 1:
            raise InputError(f"replications must be at least 1, got {self.replications}")
        if self.seed < 0:
            raise InputError(f"seed must not be negative, got {self.seed}")
        if self.barrier is not None and not self.refill_lag:
            raise InputError("the barrier's worker has no refill lag to switch off; leave refill_lag out")

    @property
    def engine(self) -> str:
        """The name of what serves the requests."""
        return "continuous" if self.barrier is None else "barrier"

    def scenario(self, setting: Setting) -> Scenario:
        """The scenario that runs ``setting``."""
        return Scenario(
            profile=self.profile,
            policy=setting.policy,
            estimator=setting.estimator,
            admission=self.admission,
            max_in_flight=self.max_in_flight,
            tiers=self.tiers,
            refill_lag=self.refill_lag,
            barrier=self.barrier,
            seed=self.seed,
        )


def settings_of(policies: Iterable[str], estimators: Iterable[str]) -> tuple[Setting, ...]:
    """Every policy with every estimator; ``stock`` heeds no estimate and comes once, with the first."""
    estimators = list(dict.fromkeys(estimators))
    return tuple(
        Setting(policy, estimator)
        for policy in dict.fromkeys(policies)
        for estimator in (estimators[:1] if policy == STOCK else estimators)
    )


def default_policies(workload: Workload, tiers: Iterable[TierRule], profile: Profile) -> tuple[list[str], list[str]]:
    """Stock and all of our policies that can run ``workload``, and a sentence about those that cannot."""
    present = workload.tier_names
    rules = rules_in_force(tuple(tiers) or workload.tiers, present)
    by_tier = [] if rules or profile.engine.scheduling_policy == "priority" else list(filter(goes_by_tier, POLICIES))
    kept = [policy for policy in (STOCK, *POLICIES) if policy not in by_tier]
    who = f"{', '.join(by_tier[:-1])} and {by_tier[-1]} are left out: they order" if by_tier else ""
    return kept, [no_order(present, who)] if by_tier else []


DEFAULT_SETTINGS = settings_of((STOCK, *POLICIES), ("static", "ema"))


@dataclass(frozen=True, eq=False)
class Comparison:
    """The results: for each setting one summary per replication, and the trace of replication 0."""

    plan: ComparisonPlan
    workload: Workload
    summaries: dict[Setting, list[dict[str, Any]]]
    traces: dict[Setting, Trace]
    # by phase, what the recorded run measured, see ``measured_by_phase``
    measured: dict[str, dict[str, Any]] | None = None
    checks: tuple[Check, ...] = ()  # others: on a part that was held out, or with a profile of other runs
    mismatches: tuple[str, ...] = ()  # why the profile may not be of this trace
    same: dict[Setting, str] = field(default_factory=dict)  # why a setting cannot differ from FIFO, see ``sameness``

    @property
    def recorded(self) -> dict[str, Any]:
        """The summary of FIFO/static on the workload as recorded."""
        return self.summaries[BASELINE][0]

    def values(self, setting: Setting, metric: str) -> np.ndarray:
        """``metric`` of every replication, the recorded workload first."""
        return np.array([row[metric] for row in self.summaries[setting]], dtype=float)

    def value(self, setting: Setting, metric: str) -> Interval:
        """``metric`` with its interval."""
        return replicated(self.values(setting, metric))

    def change(self, setting: Setting, against: Setting, metric: str) -> Interval:
        """Relative change of ``metric`` from ``against`` to ``setting``, replication by replication."""
        return replicated(self.values(setting, metric) / self.values(against, metric) - 1)

    def best(self, metric: str, largest: bool = False) -> tuple[Setting | None, set[Setting]]:
        """The best setting by ``metric``, and the others that cannot be told from it."""
        measured = [s for s in self.plan.settings if not math.isnan(self.values(s, metric)[0])]
        if not measured:
            return None, set()
        best = (max if largest else min)(measured, key=lambda setting: self.values(setting, metric)[0])
        ties = set()
        for setting in measured:
            change = replicated(self.values(setting, metric) - self.values(best, metric))
            if setting != best and (change.value == 0 or change.spans_zero):
                ties.add(setting)
        return best, ties

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
        }
        if self.same.get(setting):
            row["same_as_fifo"] = sameness.explained(self.same[setting])
        per_tier = recorded.pop("per_tier")
        for name, value in recorded.items():
            row[name] = value
            metric = name.removesuffix("_s")
            if metric in LATENCY_METRICS or metric in ERROR_METRICS:
                unit = "_s" if name.endswith("_s") else ""
                _, low, high = self.value(setting, name)
                row |= {f"{metric}_low{unit}": low, f"{metric}_high{unit}": high}
                versus = self.change(setting, BASELINE, name)
                row |= {f"{metric}_vs_fifo": versus.value}
                row |= {f"{metric}_vs_fifo_low": versus.low, f"{metric}_vs_fifo_high": versus.high}
        return row | {"per_tier": per_tier}

    def calibration(self) -> list[dict[str, Any]]:
        """What each estimator changes against ``static`` under the same policy: the effect of calibration alone."""
        effects = []
        for setting in self.plan.settings:
            static = Setting(setting.policy, "static")
            if setting.estimator == "static" or static not in self.summaries:
                continue
            for metric in ("mae", "rmse", "e2e_mean_s", "e2e_p50_s", "e2e_p99_s"):
                value, low, high = self.change(setting, static, metric)
                name = metric.removesuffix("_s")
                effects.append({**setting._asdict(), "metric": name, "change": value, "low": low, "high": high})
        return effects


def measured_by_phase(trace: Trace, plan: ComparisonPlan) -> dict[str, dict[str, Any]] | None:
    """What ``trace`` itself measured, overall and by phase; None unless FIFO/static of ``plan`` simulates that run.

    That takes a captured FIFO run with the same limits in flight, the refill lag on and no barrier.
    """
    header = trace.header
    simulated = plan.scenario(BASELINE)
    same_limit = header.max_in_flight == simulated.limit
    same_limit &= simulated.tier_limits(plan.tiers) == simulated.tier_limits(header.tiers)
    if (
        plan.barrier is not None
        or header.kind != "captured"
        or header.admission.get("policy") != "fifo"
        or not (same_limit and plan.refill_lag)
    ):
        return None
    phases = [phase.name for phase in header.workload.phases]
    asked = [plan.phase] if plan.phase != "all" else ["all", *(phases if len(phases) > 1 else [])]
    return {phase: summary(trace, plan.admission, phase=phase) for phase in asked}


def compare(
    workload: Workload,
    plan: ComparisonPlan,
    jobs: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    measured: dict[str, dict[str, Any]] | None = None,
) -> Comparison:
    """Run every setting of ``plan``, and FIFO/static to compare with, on every replication of ``workload``.

    ``jobs`` processes work at it (default: one a core); the result does not depend on how many. ``progress`` hears of
    the runs done, and of all. Raises ``InputError`` for what no run could accept.
    """
    run = plan if BASELINE in plan.settings else replace(plan, settings=(BASELINE, *plan.settings))
    check_plan(run, workload)
    done, total = list[_Replication](), runs_of(run)
    numbers = range(run.replications)
    jobs = min(processes(jobs), len(numbers))
    if jobs == 1:
        for number in numbers:
            done.append(_replicate(_Inputs(workload, run, {}), number))
            progress(len(done) * len(run.settings), total)
    else:
        classes = given_classes(name for setting in run.settings for name in setting)
        with shared(_Inputs(workload, run, classes)) as file:
            for result in map_shared(_replicate, numbers, file, jobs, ordered=True):
                done.append(result)
                progress(len(done) * len(run.settings), total)
    summaries = {setting: [result.summaries[setting] for result in done] for setting in run.settings}
    same = {setting: sameness.lasting([result.same[setting] for result in done]) for setting in run.settings}
    return Comparison(plan, workload, summaries, done[0].traces, measured, same=same)


def runs_of(plan: ComparisonPlan) -> int:
    """How many simulations ``compare`` will run."""
    return plan.replications * (len(plan.settings) + (BASELINE not in plan.settings))


class _Replication(NamedTuple):
    summaries: dict[Setting, dict[str, Any]]
    traces: dict[Setting, Trace]  # of replication 0 alone
    same: dict[Setting, list[str]]


def check_plan(plan: ComparisonPlan, workload: Workload) -> None:
    """Raise ``InputError`` for what no run could accept: an unknown policy, estimator or phase, words it lacks."""
    observed_lengths(workload, plan.admission.unit)
    rules = rules_in_force(plan.tiers or workload.tiers, workload.tier_names)
    for setting in plan.settings:
        check_order(setting.policy, rules, workload.tier_names, plan.profile.engine.scheduling_policy)
        make_policy(setting.policy, rules)
        make_estimator(setting.estimator, plan.admission, {})
    phases = [phase.name for phase in workload.info.phases] if plan.arrivals is None else [plan.arrivals.kind]
    if plan.phase not in ("all", *phases):
        raise InputError(f"unknown phase {plan.phase!r}; choose one of all, {', '.join(phases)}")


class _Inputs(NamedTuple):
    """What every worker of a comparison shares."""

    workload: Workload
    plan: ComparisonPlan
    classes: dict[str, type]  # policies and estimators that were given as classes


def _replicate(inputs: _Inputs, number: int) -> _Replication:
    workload, plan = inputs.workload, inputs.plan
    for name, kind in inputs.classes.items():
        give_class(kind, name)
    drawn = resample(workload, plan.seed, number)
    if plan.arrivals is not None:
        drawn = arriving(drawn, plan.arrivals, plan.seed + number)
    scored = ~drawn.table["source"].isin(plan.excluded).to_numpy()
    summaries, traces, same = {}, {}, {}
    fifo = simulate(plan.scenario(BASELINE), drawn)
    for setting in plan.settings:
        trace = fifo if setting == BASELINE else simulate(plan.scenario(setting), drawn)
        summaries[setting] = summary(trace, plan.admission, phase=plan.phase, scored=scored)
        same[setting] = sameness.reasons(*setting, plan.admission, trace, fifo)
        if number == 0:
            traces[setting] = trace
    return _Replication(summaries, traces, same)
