"""What a comparison compares: policies, each with an estimator, on one workload, and how often."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from driftsim.clients import PATIENT, Clients
from driftsim.costs import UNKNOWN, Costs
from driftsim.drift import Drift, check_drifts, drift_rules
from driftsim.errors import InputError, check_whole
from driftsim.latency.profile import Profile
from driftsim.scheduling.admission import Admission
from driftsim.scheduling.estimators import estimator_name, make_estimator
from driftsim.scheduling.names import DEFAULT_POLICIES, Place
from driftsim.scheduling.policies import (
    STOCK,
    check_needs,
    check_order,
    goes_by_tier,
    make_policy,
    policy_class,
    policy_name,
)
from driftsim.scheduling.queues import why_not_static
from driftsim.scheduling.shedding import Shed, shed_rules
from driftsim.simulation.observed import observed_lengths
from driftsim.simulation.replicas import ALONE, Replicas
from driftsim.simulation.scenario import Barrier, Scenario
from driftsim.slo import Slo, check_only_e2e, check_slos, needs_itl, slo_rules
from driftsim.statistics import PRACTICAL
from driftsim.tiers import TierRule, no_order, rules_in_force, tier_rules
from driftsim.whose import check_present
from driftsim.workloads.arrivals import arriving
from driftsim.workloads.attempts import gives_up
from driftsim.workloads.drifting import drifting
from driftsim.workloads.processes import Process
from driftsim.workloads.workload import Workload


class Setting(NamedTuple):
    """What is compared: a policy and the estimator it is fed by."""

    policy: str
    estimator: str

    def __str__(self) -> str:
        return f"{self.policy}/{self.estimator}"


BASELINE = Setting("fifo", "static")


@dataclass(frozen=True, kw_only=True)
class ComparisonPlan:
    """What to compare, and how often.

    replications: the day as recorded and one less resamples of it, of either kind. practical: the relative difference
    below which nobody would care. left_out: sentences about what was not asked for by name and cannot run.
    """

    profile: Profile
    admission: Admission = field(default_factory=Admission)
    settings: tuple[Setting, ...] = ()
    excluded: frozenset[int] = frozenset()  # recorded rows whose estimates do not count
    phase: str = "all"
    replications: int = 20
    max_in_flight: int | None = None
    tiers: tuple[TierRule, ...] = ()
    slos: tuple[Slo, ...] = ()
    clients: Clients = PATIENT  # of the workload, unless others are given
    shed: tuple[Shed, ...] = ()
    replicas: Replicas = ALONE
    place: Place = "front"  # where the policies stand
    costs: Costs = UNKNOWN  # power and price of the engine
    drift: tuple[Drift, ...] = ()  # injected into every day and every resample of it
    fairness: bool = False  # whether each summary says how much tenants were slowed down, and what service they got
    refill_lag: bool = True
    barrier: Barrier | None = None
    arrivals: Process | None = None  # other arrivals than the workload's
    practical: float = PRACTICAL
    seed: int = 0
    left_out: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("replications", "seed"):
            check_whole(name, getattr(self, name))
        object.__setattr__(self, "tiers", tier_rules(self.tiers))  # frozen for everybody else
        object.__setattr__(self, "slos", slo_rules(self.slos))
        object.__setattr__(self, "shed", shed_rules(self.shed))
        object.__setattr__(self, "drift", drift_rules(self.drift))
        if self.replications < 1:
            raise InputError(f"replications must be at least 1, got {self.replications}")
        if not 0 <= self.practical < 1:
            raise InputError(f"practical must be a share from 0 to below 1, such as 0.01, got {self.practical}")
        if self.seed < 0:
            raise InputError(f"seed must not be negative, got {self.seed}")
        if self.barrier is not None and not self.refill_lag:
            raise InputError("the barrier's worker has no refill lag to switch off; leave refill_lag out")
        if self.barrier is not None:
            check_only_e2e(self.slos)

    @property
    def checked_slos(self) -> tuple[Slo, ...]:
        """The SLOs by which a recorded run and its simulation are judged beside each other: none where one limits itl.

        Few runs tell the time between tokens.
        """
        return () if needs_itl(self.slos) else self.slos

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
            slos=self.slos,
            clients=self.clients,
            shed=self.shed,
            replicas=self.replicas,
            place=self.place,
            refill_lag=self.refill_lag,
            barrier=self.barrier,
            seed=self.seed,
        )


def settings_of(policies: Iterable[str], estimators: Iterable[str]) -> tuple[Setting, ...]:
    """Every policy with every estimator; ``stock`` heeds no estimate and comes once, with the first."""
    estimators = list(dict.fromkeys(map(estimator_name, estimators)))
    return tuple(
        Setting(policy, estimator)
        for policy in dict.fromkeys(map(policy_name, policies))
        for estimator in (estimators[:1] if policy == STOCK else estimators)
    )


def default_policies(
    workload: Workload, tiers: Iterable[TierRule], profile: Profile, place: Place = "front"
) -> tuple[list[str], list[str]]:
    """Stock and those of the published policies that can run ``workload``, and a sentence about those that cannot."""
    present = workload.tier_names
    rules = rules_in_force(tuple(tiers) or workload.tiers, present)
    by_tier = (
        [] if rules or profile.engine.scheduling_policy == "priority" else list(filter(goes_by_tier, DEFAULT_POLICIES))
    )
    kept = [policy for policy in DEFAULT_POLICIES if policy not in by_tier]
    who = f"{', '.join(by_tier[:-1])} and {by_tier[-1]} are left out: they order" if by_tier else ""
    told = [no_order(present, who)] if by_tier else []
    if place == "priority":
        for policy in [one for one in kept if one != STOCK and (why_not_static(policy_class(one)))]:
            kept.remove(policy)
            told.append(f"{policy} is left out: {why_not_static(policy_class(policy))}, which is no priority")
    return kept, told


DEFAULT_SETTINGS = settings_of(DEFAULT_POLICIES, ("static", "ema"))


def check_plans(plan: ComparisonPlan, workloads: Sequence[Workload]) -> None:
    """``check_plan`` for each of ``workloads``; every SLO is of some request in one of them."""
    for workload in workloads:
        check_plan(plan, workload)
    tenants, tiers = ([name for one in workloads for name in one.table[column]] for column in ("tenant", "tier"))
    check_slos(plan.slos, tenants, tiers)
    check_present(plan.clients.timeouts, "timeout", tenants, tiers)
    check_present(plan.shed, "queue limit", tenants, tiers)
    fails = plan.clients.timeouts or plan.shed or plan.replicas.failures
    if plan.clients.retries and plan.clients.retries.most and not fails and not any(map(gives_up, workloads)):
        raise InputError(
            "no client gives up and no request is turned away, so that there is nothing to send again; give --timeout "
            "30s or --shed wait=5s, or leave the retries out"
        )


def check_plan(plan: ComparisonPlan, workload: Workload) -> None:
    """Raise ``InputError`` for what no run could accept: an engine, policy, estimator, phase or words."""
    observed_lengths(workload, plan.admission.unit)
    check_drifts(plan.drift, workload.table)
    drifting(workload if plan.arrivals is None else arriving(workload, plan.arrivals, plan.seed), plan.drift, plan.seed)
    rules = rules_in_force(plan.tiers or workload.tiers, workload.tier_names)
    for setting in plan.settings:
        own_order = plan.profile.engine.scheduling_policy if plan.scenario(setting).placed == "front" else "fcfs"
        check_order(setting.policy, rules, workload.tier_names, own_order)
        check_needs(setting.policy, plan.slos)
        make_policy(setting.policy, rules, slos=plan.slos)
        make_estimator(setting.estimator, plan.admission, {})
    phases = [phase.name for phase in workload.info.phases] if plan.arrivals is None else [plan.arrivals.kind]
    if plan.phase not in ("all", *phases):
        raise InputError(f"unknown phase {plan.phase!r}; choose one of all, {', '.join(phases)}")
