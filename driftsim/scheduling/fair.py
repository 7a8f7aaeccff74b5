"""Fair policies: tenants that always have work get equal service, whatever they send."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from typing import Annotated

from pydantic import Field

from driftsim.request import Job, Tier
from driftsim.scheduling.around import Around
from driftsim.scheduling.flows import By, Flows, LeastServed, PromptWeight, Tiers, Weight, flow_of
from driftsim.scheduling.queues import Keyed


class Vtc(LeastServed):
    """Virtual token counter: the tenant that was served least goes first.

    Service is a weighted sum of prompt and output tokens. A tenant that comes back is lifted to the smallest counter of
    those who wait, or, if nobody waits, to that of the last who left; so idle time gives no credit. In front of an
    engine the estimate is charged when a request goes in, and set right at its end. Two tenants that always have work
    differ by at most twice the dearest request, and by what is in flight with a wrong estimate. Source: Sheng et al.,
    OSDI 2024, arXiv 2401.00588 (from memory), and S-LoRA's vtc_req_queue.py (read), which lifts against tenants with
    waiting requests alone. Trap: equal service is not equal latency.
    """

    def __init__(
        self, *, by: By = "tenant", tiers: Tiers = False, prompt_weight: PromptWeight = 1.0, weight: Weight = 2.0
    ) -> None:
        super().__init__(by, tiers)
        self._prompt_weight, self._weight = prompt_weight, weight
        self._left = 0.0  # counter of the flow that was the last to leave

    def _cost(self, job: Job, length: float, now: float) -> float:
        return (self._prompt_weight * job.request.prompt_tokens + self._weight * length) / self._share(job)

    def _came(self, flow: str, now: float) -> None:
        least = self._least()
        lift = self._left if least is None else least
        self.counter[flow] = max(self.counter.get(flow, lift), lift)
        self._offer(flow)

    def _went(self, flow: str) -> None:
        if not self._offers:
            self._left = self.counter[flow]


class Drr(Flows):
    """Deficit round robin with debt.

    The tenants take turns. Whoever has no credit at his turn gets a quantum; he sends requests as long as he has
    credit, and the last may leave a debt. Prompt and estimate are charged when a request goes in and set right at its
    end. Who has nothing to send keeps his debt and loses his credit. With equal costs it is weighted round robin. Two
    tenants that always have work differ by at most a quantum and twice the dearest request. Source: Shreedhar and
    Varghese 1995 (from memory); debt as in S-LoRA's mdrr_req_queue.py (read). Trap: a quantum far above the dearest
    request serves tenants in long runs, one far below takes many empty turns.
    """

    def __init__(
        self,
        *,
        by: By = "tenant",
        tiers: Tiers = False,
        prompt_weight: PromptWeight = 1.0,
        weight: Weight = 2.0,
        quantum: Annotated[float, Field(ge=1, description="Credit of a turn.", json_schema_extra={"unit": "service"})]
        = 1000.0,
    ) -> None:  # fmt: skip
        super().__init__(by, tiers)
        self._prompt_weight, self._weight, self._quantum = prompt_weight, weight, quantum
        self.credit: dict[str, float] = {}
        self._round = deque[str]()  # the flows that have a job; the first has its turn

    def _cost(self, job: Job, length: float) -> float:
        return (self._prompt_weight * job.request.prompt_tokens + self._weight * length) / self._share(job)

    def _came(self, flow: str, now: float) -> None:
        self.credit.setdefault(flow, 0.0)
        self._round.append(flow)

    def pop_below(self, now: float, full: Collection[Tier]) -> Job:
        """Remove and return the next job of the first flow that has credit, after as many turns as that takes."""
        turns = self._round
        blocked = empty = 0  # turns in a row of flows that may not go, and of flows that had no credit
        while blocked < len(turns):
            flow = turns[0]
            job = self._head(flow, full)
            if job is None:
                blocked += 1
                turns.rotate(-1)
                continue
            blocked = 0
            if self.credit[flow] <= 0:
                self.credit[flow] += self._quantum
            if self.credit[flow] > 0:
                return self._send(flow, job)
            empty += 1
            turns.rotate(-1)
            if empty >= len(turns):
                self._skip_rounds(full)
                empty = 0
        raise IndexError("pop from an empty policy")

    def _send(self, flow: str, job: Job) -> Job:
        more = self._take(flow, job)
        self.credit[flow] -= self._cost(job, job.estimate)
        if not more:
            self._round.popleft()
            self.credit[flow] = min(self.credit[flow], 0.0)
        elif self.credit[flow] <= 0:
            self._round.rotate(-1)
        return job

    def _skip_rounds(self, full: Collection[Tier]) -> None:
        """Go through all rounds at once in which everybody is in debt."""
        may_go = [flow for flow in self._round if self._head(flow, full) is not None]
        rounds = min(-self.credit[flow] for flow in may_go) // self._quantum
        for flow in may_go:
            self.credit[flow] += rounds * self._quantum

    def served(self, job: Job, tokens: int | None, now: float) -> None:
        """Set the credit right: ``job`` was ``tokens`` long, or never ran."""
        flow = flow_of(job, self._by)
        true = 0.0 if tokens is None else self._cost(job, tokens)
        self.credit[flow] += self._cost(job, job.estimate) - true
        if flow not in self._waiting:
            self.credit[flow] = min(self.credit[flow], 0.0)


class Sfq(Keyed):
    """Start-time fair queuing: the smallest start tag goes first.

    A request's start tag is the finish tag of the one before it of the same tenant, but at least the start tag of
    the request that went in last; its finish tag is its start tag and the seconds of service that it is estimated to
    take. The tags stay, so the order is a static key. At the end of a request the tenant's last finish tag is set
    right. Two tenants that always have work differ by at most one request of each, whatever the engine's speed. Source:
    Goyal, Vin and Cheng 1996 (from memory). Trap: requests that wait keep tags from estimates that were wrong.
    """

    needs = ("profile",)
    not_static = "its tags follow who went in before"

    def __init__(self, *, by: By = "tenant", tiers: Tiers = False) -> None:
        super().__init__()
        self._by, self._tiers = by, tiers
        self._around = Around()
        self._finish: dict[str, float] = {}  # last finish tag of each flow
        self._tags: dict[int, tuple[float, float]] = {}  # id(job) -> start tag, and what was charged
        self._virtual = 0.0  # start tag of the request that went in last
        self._inside = 0

    def given(self, around: Around) -> None:
        """Take the weights of the tiers and the seconds of service."""
        self._around = around

    def key(self, job: Job) -> float:
        """The start tag, which is given once."""
        flow = flow_of(job, self._by)
        start = max(self._virtual, self._finish.get(flow, 0.0))
        charge = self._around.service_s(job) / self._share(job)
        self._finish[flow] = start + charge
        self._tags[id(job)] = start, charge
        return start

    def pop(self, now: float) -> Job:
        """Remove and return the job with the smallest start tag, ties by arrival."""
        return self.pop_below(now, ())

    def pop_below(self, now: float, full: Collection[Tier]) -> Job:
        """The same among the jobs whose tier is not ``full``."""
        job = super().pop_below(now, full)
        self._virtual = max(self._virtual, self._tags[id(job)][0])
        self._inside += 1
        return job

    def served(self, job: Job, tokens: int | None, now: float) -> None:
        """Set the flow's finish tag right; if nobody is left at all, virtual time goes to the last finish tag."""
        flow = flow_of(job, self._by)
        _, charge = self._tags.pop(id(job))
        true = 0.0 if tokens is None else self._around.service_s(job, tokens) / self._share(job)
        self._finish[flow] += true - charge
        self._inside -= 1
        if not self._inside and not len(self):
            self._virtual = max(self._virtual, *self._finish.values())

    def rekey(self) -> None:
        """Start tags stay as they were given."""

    def _share(self, job: Job) -> float:
        return self._around.share(job.request, self._tiers)
