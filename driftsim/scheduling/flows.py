"""Jobs in queues of those they are from: a fair policy chooses whose turn it is, and within a queue the oldest goes.

Whose: a flow, which is a tenant unless the policy is told otherwise. Service is counted when a job goes in, by its
estimate, and set right when its true length is known.
"""

from __future__ import annotations

import heapq
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Collection
from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from driftsim.request import Job, Tier
from driftsim.scheduling.around import Around
from driftsim.scheduling.queues import Heeds

By: TypeAlias = Annotated[
    Literal["tenant", "session", "tier", "category"],
    Field(description="Whose service is counted; a request of no session counts for its tenant."),
]
Tiers: TypeAlias = Annotated[
    bool, Field(description="Whether the service of a request is divided by the weight of its tier.")
]
PromptWeight: TypeAlias = Annotated[float, Field(ge=0, description="Service of a prompt token.")]
Weight: TypeAlias = Annotated[float, Field(gt=0, description="Service of an output token.")]


def flow_of(job: Job, by: str) -> str:
    """The flow that ``job`` is of: its tenant, its session, its tier or its predicted category."""
    if by == "category":
        return job.predicted_category
    if by == "session" and job.request.session:
        return f"{job.request.tenant}\n{job.request.session}"
    return job.request.tier if by == "tier" else job.request.tenant


class Flows(ABC):
    """Queues of flows, each in the order of arrival. ``len`` counts all jobs."""

    heeds: Heeds = ""
    not_static = "its order follows the service that others get meanwhile"

    def __init__(self, by: str, tiers: bool) -> None:
        self._by, self._tiers = by, tiers
        self._waiting: dict[str, dict[Tier, deque[tuple[int, Job]]]] = {}  # by flow, of those that have a job
        self._pushed = self._count = 0
        self._around = Around()

    def given(self, around: Around) -> None:
        """Take the weights of the tiers and the seconds of service."""
        self._around = around

    def push(self, job: Job, now: float) -> None:
        """Take ``job`` into the queue of its flow."""
        flow = flow_of(job, self._by)
        is_new = flow not in self._waiting
        own = self._waiting.setdefault(flow, {})
        own.setdefault(job.request.tier, deque()).append((self._pushed, job))
        self._pushed += 1
        self._count += 1
        if is_new:
            self._came(flow, now)

    def pop(self, now: float) -> Job:
        """Remove and return the job to serve next."""
        return self.pop_below(now, ())

    @abstractmethod
    def pop_below(self, now: float, full: Collection[Tier]) -> Job:
        """The same among the jobs whose tier is not ``full``. Raises ``IndexError`` when none of these waits."""

    @abstractmethod
    def _came(self, flow: str, now: float) -> None:
        """``flow`` has a job that waits, and had none before."""

    def rekey(self) -> None:
        """Within a flow the order is that of arrival, whatever the estimates."""
        return

    def __len__(self) -> int:
        return self._count

    def _head(self, flow: str, full: Collection[Tier]) -> Job | None:
        """The oldest job of ``flow`` whose tier is not ``full``."""
        heads = [queue[0] for tier, queue in self._waiting[flow].items() if tier not in full]
        return min(heads, key=lambda head: head[0])[1] if heads else None

    def _take(self, flow: str, job: Job) -> bool:
        """Remove ``job``, a head of ``flow``; whether another of the flow waits."""
        own = self._waiting[flow]
        own[job.request.tier].popleft()
        if not own[job.request.tier]:
            del own[job.request.tier]
        if not own:
            del self._waiting[flow]
        self._count -= 1
        return bool(own)

    def _share(self, job: Job) -> float:
        """What the service of ``job`` is divided by."""
        return self._around.share(job.request, self._tiers)


class LeastServed(Flows):
    """The flow with the smallest counter goes first, ties by the arrival of its oldest job; O(log flows)."""

    def __init__(self, by: str, tiers: bool) -> None:
        super().__init__(by, tiers)
        self.counter: dict[str, float] = {}
        self._heap: list[tuple[float, int, str]] = []
        self._offers: dict[str, tuple[float, int, str]] = {}  # of the flows with a job; any other in the heap is old

    @abstractmethod
    def _cost(self, job: Job, length: float, now: float) -> float:
        """What an output of ``length`` adds to the counter."""

    def pop_below(self, now: float, full: Collection[Tier]) -> Job:
        """Remove and return the oldest job of the flow with the smallest counter, and charge the flow its estimate."""
        passed, chosen = [], None
        while self._heap and chosen is None:
            offer = heapq.heappop(self._heap)
            flow = offer[2]
            if self._offers.get(flow) is offer:
                passed.append(offer)
                chosen = self._head(flow, full)
        if chosen is not None:
            passed.pop()
        for offer in passed:
            heapq.heappush(self._heap, offer)
        if chosen is None:
            raise IndexError("pop from an empty policy")
        more = self._take(flow, chosen)
        self._charge(flow, chosen, now)
        del self._offers[flow]
        if more:
            self._offer(flow)
        else:
            self._went(flow)
        return chosen

    def _charge(self, flow: str, job: Job, now: float) -> None:
        """Count the estimate of ``job``, which goes in."""
        self.counter[flow] += self._cost(job, job.estimate, now)

    def _rank(self, flow: str) -> float:
        """What the flows are ordered by; the smallest first."""
        return self.counter[flow]

    def served(self, job: Job, tokens: int | None, now: float) -> None:
        """Set the counter right: ``job`` was ``tokens`` long, or never ran."""
        flow = flow_of(job, self._by)
        true = 0.0 if tokens is None else self._cost(job, tokens, now)
        self.counter[flow] += true - self._cost(job, job.estimate, now)
        if flow in self._offers:
            self._offer(flow)

    def _came(self, flow: str, now: float) -> None:
        self.counter.setdefault(flow, 0.0)
        self._offer(flow)

    def _went(self, flow: str) -> None:
        """``flow`` has no job left that waits."""

    def _offer(self, flow: str) -> None:
        """Let ``flow`` stand in the heap by its counter of now, and throw old offers away where they are many."""
        oldest = min(queue[0][0] for queue in self._waiting[flow].values())
        self._offers[flow] = offer = (self._rank(flow), oldest, flow)
        heapq.heappush(self._heap, offer)
        if len(self._heap) > 2 * len(self._offers) + 64:
            self._heap = list(self._offers.values())
            heapq.heapify(self._heap)

    def _offer_all(self) -> None:
        """The same for every flow, since all counters changed."""
        self._heap = []
        for flow in self._offers:
            self._offer(flow)

    def _least(self) -> float | None:
        """The smallest counter among the flows that have a job; None if there is none."""
        while self._heap and self._offers.get(self._heap[0][2]) is not self._heap[0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None
