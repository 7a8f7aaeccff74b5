"""The policies by name, and the published ones.

Adding one: a class with its source and a ``key``, in the module of its family, and its line in ``POLICIES``. The
smallest key goes first, ties by arrival.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Self

from driftsim.errors import InputError
from driftsim.request import Job, Tier
from driftsim.scheduling import admitting, aged, attained, blackbox, deadlines, fair, preempting, sized, tail
from driftsim.scheduling.around import Around, Service
from driftsim.scheduling.names import spelled
from driftsim.scheduling.parameters import canonical, values_of
from driftsim.scheduling.plugins import declared, declared_names, instance, is_plugin, plugin
from driftsim.scheduling.queues import Heeds, Keyed, Needs, Policy, passes_over

if TYPE_CHECKING:
    from driftsim.slo import Slo
    from driftsim.tiers import TierRule

__all__ = ["Keyed", "Policy", "passes_over"]


class Fifo(Keyed):
    """First in, first out, over all tiers: the oldest head. Source: DriftSched, arXiv 2606.02982 (read)."""

    def key(self, job: Job) -> float:
        """Arrival alone."""
        return job.request.arrival


class Priority(Keyed):
    """The most urgent tier first, each in order of arrival. Source: DriftSched, arXiv 2606.02982 (read)."""

    heeds = "tier"

    def key(self, job: Job) -> float:
        """The tier's rank."""
        return job.request.tier.rank


class Sjf(Keyed):
    """Shortest job first by total budget, prompt plus estimate, over all tiers.

    Source: DriftSched, arXiv 2606.02982 (read); Smith 1956 (from memory).
    """

    heeds = "budget"

    def key(self, job: Job) -> float:
        """The total budget."""
        return job.budget


class Aging(Keyed):
    """Smallest ``rank - 0.01 x seconds waited``.

    All ages grow alike, so the order never changes: the key is stored as arrival + rank / rate, here 100 s a rank.
    Source: DriftSched, arXiv 2606.02982 (read).
    """

    heeds = "tier"
    rate = 0.01  # ranks / s

    def key(self, job: Job) -> float:
        """The static equivalent of the aging key, in seconds."""
        return job.request.arrival + job.request.tier.rank / self.rate


PUBLISHED_CYCLE = (Tier.PREMIUM,) * 5 + (Tier.STANDARD,) * 3 + (Tier.BATCH,) * 2


class Weighted:
    """A fixed cycle of slots over the tiers, PPPPPSSSBB as published; empty tiers are skipped.

    Each tier has as many slots in a row as its weight, the most urgent first. The pointer moves past the slot just
    served, so an empty tier's slots are lost. Counts requests, not tokens. Source: DriftSched, arXiv 2606.02982 (read).
    """

    heeds: Heeds = "tier"
    not_static = "its order is a cycle over the tiers that wait"
    cycle: tuple[Tier, ...] = PUBLISHED_CYCLE

    def __init__(self, cycle: tuple[Tier, ...] = ()) -> None:
        self.cycle = cycle = cycle or self.cycle
        self._queues: dict[Tier, deque[Job]] = {tier: deque() for tier in cycle}
        self._pointer = 0
        self._row = [1] * len(cycle)  # slots of the same tier from each slot on
        for slot in reversed(range(len(cycle) - 1)):
            self._row[slot] = self._row[slot + 1] + 1 if cycle[slot] == cycle[slot + 1] else 1

    @classmethod
    def of_tiers(cls, rules: Sequence[TierRule]) -> Self:
        """One whose cycle follows ``rules``, unless the class has a cycle of its own."""
        from driftsim.tiers import ranked

        if cls.cycle is not PUBLISHED_CYCLE:
            return cls()
        tiers = ranked(rules, [rule.name for rule in rules])
        return cls(tuple(tiers[rule.name] for rule in rules for _ in range(rule.slots)))

    def push(self, job: Job, now: float) -> None:
        """Take ``job`` into the queue of its tier."""
        self._queues[job.request.tier].append(job)

    def pop(self, now: float) -> Job:
        """Remove and return the oldest job of the first slot, from the pointer on, whose tier has one."""
        return self.pop_below(now, ())

    def pop_below(self, now: float, full: Collection[Tier]) -> Job:
        """The same with the tiers that are ``full`` as if nobody of them waited."""
        cycle, queues, passed = self.cycle, self._queues, 0
        while passed < len(cycle):
            slot = (self._pointer + passed) % len(cycle)
            tier = cycle[slot]
            if queues[tier] and tier not in full:
                self._pointer = (slot + 1) % len(cycle)
                return queues[tier].popleft()
            passed += self._row[slot]
        raise IndexError("pop from an empty policy")

    def rekey(self) -> None:
        """Estimates play no part in the order."""

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))


POLICIES: dict[str, type[Policy]] = {
    "fifo": Fifo,
    "priority": Priority,
    "weighted": Weighted,
    "sjf": Sjf,
    "aging": Aging,
    "vtc": fair.Vtc,
    "drr": fair.Drr,
    "sfq": fair.Sfq,
    "cost-sjf": sized.CostSjf,
    "wspt": sized.Wspt,
    "edf": deadlines.Edf,
    "slack": deadlines.Slack,
    "boost": sized.Boost,
    "las": attained.Las,
    "accumulating": aged.Accumulating,
    "mlfq": attained.Mlfq,
    "gittins": aged.Gittins,
    "hrrn": aged.Hrrn,
    "ewsjf": aged.Ewsjf,
    "srpt": preempting.Srpt,
    "tie": tail.Tie,
    "past-future": admitting.PastFuture,
    "blackbox": blackbox.BlackBox,
}
BASELINE = "fifo"
STOCK = "stock"  # the engine's own order: FIFO with no limit in flight


def policy_class(name: str) -> type[Policy]:
    """The class that ``name`` stands for: ours, a declared one, or one that it says the place of.

    Parameters behind the name are not looked at. Raises ``InputError`` if there is none, or it is no policy.
    """
    name = spelled(name).base
    if is_plugin(name):
        kind = plugin(name)
    elif name in POLICIES or name == STOCK:
        return POLICIES.get(name, Fifo)
    elif name in declared_names("policy"):
        kind = declared("policy")[name]
    else:
        known = ", ".join([STOCK, *POLICIES, *declared_names("policy")])
        raise InputError(f"unknown policy {name!r}; choose one of {known}, or give module:Class")
    missing = [method for method in ("push", "pop", "__len__") if not hasattr(kind, method)]
    if missing:
        raise InputError(f"{name}: is no policy, it has no {missing[0]}(); see driftsim.Policy")
    return kind


def policy_name(name: str) -> str:
    """The canonical spelling of the policy ``name``. Raises ``InputError`` for parameters that it does not take.

    >>> policy_name("sjf?"), policy_name("fifo")
    ('sjf', 'fifo')
    """
    return canonical(name, policy_class)


def make_policy(
    name: str,
    rules: Sequence[TierRule] = (),
    *,
    slos: Sequence[Slo] = (),
    service_s: Service | None = None,
    shares: Mapping[str, float] | None = None,
) -> Policy:
    """A fresh policy for tiers that go by ``rules``. Raises ``InputError`` for an unknown name or parameter.

    A policy that wants more of the tiers than the rank in each request has a class method ``of_tiers(rules)``; one that
    wants the SLOs, too, the seconds that a job takes or the weights of tenants (``shares``), has ``given(around)``.
    """
    kind = policy_class(name)
    told = values_of(name, kind)
    of_tiers = getattr(kind, "of_tiers", None) if rules else None
    made: Policy = instance(name, kind, **told) if of_tiers is None else of_tiers(rules, **told)
    if hasattr(made, "given"):
        around = Around(rules=tuple(rules), slos=tuple(slos), shares=shares or {})
        made.given(around if service_s is None else replace(around, service_s=service_s))
    return made


def goes_by_tier(name: str) -> bool:
    """Whether the policy ``name`` says that it goes by tier; one of the user's own may do so and not say it."""
    kind = policy_class(name)
    return getattr(kind, "heeds", "") == "tier" or "tiers" in getattr(kind, "needs", ())


def alone_by(name: str) -> Heeds:
    """What, besides the arrival, alone decides the order of the policy ``name``; "" if that is not known."""
    found: Heeds = vars(policy_class(name)).get("heeds", "")  # what a class inherits says nothing of its own key
    return found


def needs_of(name: str) -> Collection[Needs]:
    """What a run under the policy ``name`` must have, or its order means nothing."""
    needs: Collection[Needs] = getattr(policy_class(name), "needs", ())
    return needs


def check_needs(name: str, slos: Sequence[Slo]) -> None:
    """Raise ``InputError`` if the policy ``name`` goes by ``slos``, and there is none."""
    if "slos" in needs_of(name) and not slos:
        raise InputError(f"{name} orders by SLOs, and there is none; give some, as --slo ttft=1s or slos = ['ttft=1s']")


def check_live(name: str, slos: Sequence[Slo]) -> None:
    """Raise ``InputError`` if the policy ``name`` goes by what a capture does not know, or by ``slos`` without any."""
    if "profile" in needs_of(name):
        raise InputError(
            f"{name} orders by seconds of service, which a capture does not know; simulate it, or choose another"
        )
    check_needs(name, slos)


def check_order(name: str, rules: Sequence[TierRule], present: Iterable[str], engine_policy: str = "fcfs") -> None:
    """Raise ``InputError`` if the policy ``name``, or the engine's own, goes by tiers whose order nobody said."""
    if not rules and (engine_policy == "priority" or goes_by_tier(name)):
        from driftsim.tiers import no_order

        who = "the engine's scheduling policy 'priority' orders" if engine_policy == "priority" else f"{name} orders"
        raise InputError(no_order(present, who))
