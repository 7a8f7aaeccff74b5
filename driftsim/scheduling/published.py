"""The five policies of DriftSched (arXiv 2606.02982), as published."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Self

from driftsim.request import Job, Tier
from driftsim.scheduling.queues import Heeds, Keyed

if TYPE_CHECKING:
    from driftsim.tiers import TierRule


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
