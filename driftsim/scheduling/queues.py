"""A policy is a queue of the waiting jobs: it says who goes next.

Here is what any policy is, and ``Keyed``, the queue in the order of a key. ``now`` and ``arrival`` are seconds since
the run began. ``heeds`` says what, besides the arrival, alone makes the order: tier or budget.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection
from typing import Literal, Protocol, TypeAlias, runtime_checkable

from driftsim.errors import InputError
from driftsim.request import Job, Tier

Heeds: TypeAlias = Literal["", "tier", "budget"]
Needs: TypeAlias = Literal["profile", "slos", "tiers"]  # of the run, without which the order would mean nothing
MOST_PREEMPTIONS = 4  # of one request, of any kind; whoever had so many makes way for nobody
PREEMPTIBLE_SHARE = 0.8  # of the first estimate; whoever has made as much makes way for nobody (TRAIL's c, from memory)


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
    static = True  # the key of a job stays as it was when the job came; see ``static_key``

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

    def peek(self, now: float) -> Job:
        """The job that ``pop`` would give, which stays; another one only after a push, a pop or a ``rekey``."""
        return self._heap[0][3]

    def rekey(self) -> None:
        """Order the waiting jobs by what their keys are now, since their estimates were refreshed."""
        for heap in (self._heap, *self._aside.values()):
            heap[:] = [(self.key(job), arrival, pushed, job) for _, arrival, pushed, job in heap]
            heapq.heapify(heap)

    def __len__(self) -> int:
        return len(self._heap) + self._put_aside


def passes_over(policy: Policy) -> bool:
    """Whether ``policy`` can leave out the tiers that are full: ``pop_below``, from the class that has its ``pop``."""
    return _beside_pop(type(policy), "pop_below")


def looks_ahead(policy: Policy) -> bool:
    """Whether ``policy`` can tell whom it would choose: ``peek``, from the class that has its ``pop``."""
    return _beside_pop(type(policy), "peek")


def _beside_pop(kind: type, method: str) -> bool:
    """Whether the first class that says how ``kind`` queues has ``method``: one from below would not know of it."""
    for base in kind.__mro__:
        own = vars(base).keys() & {"push", "pop", "pop_below", method}
        if own & {"push", "pop", "pop_below"}:
            return method in own
    return False


def why_not_static(kind: type) -> str:
    """Why the order of the policy ``kind`` is no key that is fixed when a job comes; empty if it is one.

    A class that says ``static = True`` promises that its ``key(job)`` alone makes the order. ``Keyed`` does; whoever
    inherits and queues in a way of its own must say so again.

    >>> why_not_static(Keyed)
    ''
    """
    reason: str = getattr(kind, "not_static", "")
    if reason:
        return reason
    for base in kind.__mro__:
        own = vars(base)
        if "static" in own:
            return "" if own["static"] and hasattr(kind, "key") else "its class says static = False"
        if own.keys() & {"push", "pop", "pop_below"}:
            break
    return "its order is no key(job) that stays as it was when the request came"
