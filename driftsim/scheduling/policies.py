"""A policy is an order of the waiting jobs.

Adding one: a class with its source and a ``key``, and its line in ``POLICIES``. The smallest key goes first, ties by
arrival. ``now`` and ``arrival`` are seconds since the run began. ``heeds`` says what, besides the arrival, alone makes
the order: tier or budget.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Literal, Protocol, Self, TypeAlias, runtime_checkable

from driftsim.errors import InputError
from driftsim.request import Job, Tier
from driftsim.scheduling.names import spelled
from driftsim.scheduling.parameters import canonical, values_of
from driftsim.scheduling.plugins import declared, declared_names, instance, is_plugin, plugin

if TYPE_CHECKING:
    from driftsim.tiers import TierRule

Heeds: TypeAlias = Literal["", "tier", "budget"]


@runtime_checkable
class Policy(Protocol):
    """A queue discipline: jobs go in, the next one to serve comes out, in O(log n) or better."""

    def push(self, job: Job, now: float) -> None:
        """Take ``job`` into the queue."""
        ...

    def pop(self, now: float) -> Job:
        """Remove and return the job to serve next. Raises ``IndexError`` when nobody waits."""
        ...

    def __len__(self) -> int:
        """Jobs waiting."""
        ...


class Keyed:
    """Jobs in the order of a key that is fixed when they are pushed; a policy of one's own overrides ``key``.

    >>> class ShortPromptFirst(Keyed):
    ...     def key(self, job):
    ...         return job.request.prompt_tokens
    >>> from driftsim.request import Job, Request, Tier
    >>> queue = ShortPromptFirst()
    >>> for name, prompt in (("long", 900), ("short", 20)):
    ...     request = Request(name, "acme", Tier.STANDARD, "", 0.0, prompt, None, 64)
    ...     queue.push(Job(request, "short_qa", estimate=64, budget=prompt + 64), now=0.0)
    >>> queue.pop(now=1.0).request.id
    'short'
    """

    heeds: Heeds = ""

    def __init__(self) -> None:
        self._heap: list[tuple[float, float, int, Job]] = []
        self._aside: dict[Tier, list[tuple[float, float, int, Job]]] = {}  # passed over when their tiers were full
        self._pushed = self._put_aside = 0

    def key(self, job: Job) -> float:
        """Smaller goes first."""
        raise InputError(f"the policy {type(self).__name__} has no key(job); give it one")

    def push(self, job: Job, now: float) -> None:
        """Take ``job`` into the queue, under its key of this moment."""
        key = self.key(job)
        if key is None or key != key:
            raise InputError(f"the policy {type(self).__name__} gave {key} as a key; a key is a number")
        heapq.heappush(self._heap, (key, job.request.arrival, self._pushed, job))
        self._pushed += 1

    def pop(self, now: float) -> Job:
        """Remove and return the job with the smallest key, ties by arrival."""
        return self.pop_below(now, ()) if self._put_aside else heapq.heappop(self._heap)[3]

    def pop_below(self, now: float, full: Collection[Tier]) -> Job:
        """The same among the jobs whose tier is not ``full``. Raises ``IndexError`` when none of these waits.

        Each job steps aside at most once, into a heap of its tier: O(log n) amortised, and O(tiers).
        """
        heap, aside = self._heap, self._aside
        while heap and (tier := heap[0][3].request.tier) in full:
            heapq.heappush(aside.setdefault(tier, []), heapq.heappop(heap))
            self._put_aside += 1
        smallest = heap
        for tier, own in aside.items():
            if own and tier not in full and not (smallest and smallest[0] < own[0]):
                smallest = own
        self._put_aside -= smallest is not heap
        return heapq.heappop(smallest)[3]

    def rekey(self) -> None:
        """Order the waiting jobs by what their keys are now, since their estimates were refreshed."""
        for heap in (self._heap, *self._aside.values()):
            heap[:] = [(self.key(job), arrival, pushed, job) for _, arrival, pushed, job in heap]
            heapq.heapify(heap)

    def __len__(self) -> int:
        return len(self._heap) + self._put_aside


class Fifo(Keyed):
    """First in, first out, over all tiers (arXiv 2606.02982: the oldest head)."""

    def key(self, job: Job) -> float:
        """Arrival alone."""
        return job.request.arrival


class Priority(Keyed):
    """Strict priority: the most urgent tier first, each in order of arrival (arXiv 2606.02982)."""

    heeds = "tier"

    def key(self, job: Job) -> float:
        """The tier's rank."""
        return job.request.tier.rank


class Sjf(Keyed):
    """Shortest job first by total budget, prompt plus estimate, over all tiers (Smith 1956; arXiv 2606.02982)."""

    heeds = "budget"

    def key(self, job: Job) -> float:
        """The total budget."""
        return job.budget


class Aging(Keyed):
    """Smallest ``rank - 0.01 x seconds waited`` (arXiv 2606.02982).

    All ages grow alike, so the order never changes: the key is stored as arrival + rank / rate, here 100 s a rank.
    """

    heeds = "tier"
    rate = 0.01  # ranks / s

    def key(self, job: Job) -> float:
        """The static equivalent of the aging key, in seconds."""
        return job.request.arrival + job.request.tier.rank / self.rate


PUBLISHED_CYCLE = (Tier.PREMIUM,) * 5 + (Tier.STANDARD,) * 3 + (Tier.BATCH,) * 2


class Weighted:
    """A fixed cycle of slots over the tiers, PPPPPSSSBB as published; empty tiers are skipped (arXiv 2606.02982).

    Each tier has as many slots in a row as its weight, the most urgent first. The pointer moves past the slot just
    served, so an empty tier's slots are lost. Counts requests, not tokens.
    """

    heeds: Heeds = "tier"
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
}
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


def make_policy(name: str, rules: Sequence[TierRule] = ()) -> Policy:
    """A fresh policy for tiers that go by ``rules``. Raises ``InputError`` for an unknown name or parameter.

    A policy that wants more of the tiers than the rank in each request has a class method ``of_tiers(rules)``.
    """
    kind = policy_class(name)
    told = values_of(name, kind)
    if rules and hasattr(kind, "of_tiers"):
        made: Policy = kind.of_tiers(rules, **told)
        return made
    return instance(name, kind, **told)


def goes_by_tier(name: str) -> bool:
    """Whether the policy ``name`` says that it goes by tier; one of the user's own may do so and not say it."""
    return getattr(policy_class(name), "heeds", "") == "tier"


def alone_by(name: str) -> Heeds:
    """What, besides the arrival, alone decides the order of the policy ``name``; "" if that is not known."""
    found: Heeds = vars(policy_class(name)).get("heeds", "")  # what a class inherits says nothing of its own key
    return found


def check_order(name: str, rules: Sequence[TierRule], present: Iterable[str], engine_policy: str = "fcfs") -> None:
    """Raise ``InputError`` if the policy ``name``, or the engine's own, goes by tiers whose order nobody said."""
    if not rules and (engine_policy == "priority" or goes_by_tier(name)):
        from driftsim.tiers import no_order

        who = "the engine's scheduling policy 'priority' orders" if engine_policy == "priority" else f"{name} orders"
        raise InputError(no_order(present, who))


def passes_over(policy: Policy) -> bool:
    """Whether ``policy`` can leave out the tiers that are full: ``pop_below``, from the class that has its ``pop``."""
    for kind in type(policy).__mro__:
        own = vars(kind).keys() & {"push", "pop", "pop_below"}
        if own:
            return "pop_below" in own
    return False


BASELINE = "fifo"
