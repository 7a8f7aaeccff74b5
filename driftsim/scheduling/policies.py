"""A policy is an order of the waiting jobs.

Adding one: a class with its source and a ``key``, and its line in ``POLICIES``. The smallest key goes first, ties by
arrival. ``now`` and ``arrival`` are seconds since the run began.
"""

from __future__ import annotations

import heapq
from collections import deque
from typing import Protocol, runtime_checkable

from driftsim.errors import InputError
from driftsim.request import TIERS, Job, Tier
from driftsim.scheduling.plugins import declared, declared_names, instance, is_plugin, plugin


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

    def __init__(self) -> None:
        self._heap: list[tuple[float, float, int, Job]] = []
        self._pushed = 0

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
        return heapq.heappop(self._heap)[3]

    def rekey(self) -> None:
        """Order the waiting jobs by what their keys are now, since their estimates were refreshed."""
        self._heap = [(self.key(job), arrival, pushed, job) for _, arrival, pushed, job in self._heap]
        heapq.heapify(self._heap)

    def __len__(self) -> int:
        return len(self._heap)


class Fifo(Keyed):
    """First in, first out, over all tiers (arXiv 2606.02982: the oldest head)."""

    def key(self, job: Job) -> float:
        """Arrival alone."""
        return job.request.arrival


class Priority(Keyed):
    """Strict priority: premium, then standard, then batch, each in order of arrival (arXiv 2606.02982)."""

    def key(self, job: Job) -> float:
        """The tier's rank."""
        return job.request.tier.rank


class Sjf(Keyed):
    """Shortest job first by total budget, prompt plus estimate, over all tiers (Smith 1956; arXiv 2606.02982)."""

    def key(self, job: Job) -> float:
        """The total budget."""
        return job.budget


class Aging(Keyed):
    """Smallest ``rank - 0.01 x seconds waited`` (arXiv 2606.02982).

    All ages grow alike, so the order never changes: the key is stored as arrival + rank / rate, here 100 s a rank.
    """

    rate = 0.01  # ranks / s

    def key(self, job: Job) -> float:
        """The static equivalent of the aging key, in seconds."""
        return job.request.arrival + job.request.tier.rank / self.rate


class Weighted:
    """A fixed cycle of ten slots over the tiers, PPPPPSSSBB; empty tiers are skipped (arXiv 2606.02982).

    The pointer moves past the slot just served, so an empty tier's slots are lost. Counts requests, not tokens.
    """

    cycle: tuple[Tier, ...] = (Tier.PREMIUM,) * 5 + (Tier.STANDARD,) * 3 + (Tier.BATCH,) * 2

    def __init__(self) -> None:
        self._queues: dict[Tier, deque[Job]] = {tier: deque() for tier in TIERS}
        self._pointer = 0

    def push(self, job: Job, now: float) -> None:
        """Take ``job`` into the queue of its tier."""
        self._queues[job.request.tier].append(job)

    def pop(self, now: float) -> Job:
        """Remove and return the oldest job of the first slot, from the pointer on, whose tier has one."""
        for step in range(len(self.cycle)):
            slot = (self._pointer + step) % len(self.cycle)
            queue = self._queues[self.cycle[slot]]
            if queue:
                self._pointer = (slot + 1) % len(self.cycle)
                return queue.popleft()
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

    Raises ``InputError`` if there is none, or it is no policy.
    """
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


def make_policy(name: str) -> Policy:
    """A fresh policy. Raises ``InputError`` if ``name`` is unknown."""
    return instance(name, policy_class(name))


BASELINE = "fifo"
