"""A scheduler for a server that tells nothing of itself: shares of classes, an order within each, by coarse lengths."""

from __future__ import annotations

import heapq
from collections.abc import Collection
from typing import Annotated, NamedTuple

from pydantic import Field

from driftsim.request import Job, Tier
from driftsim.scheduling.around import Around
from driftsim.scheduling.queues import Heeds

SHORT, HEAVY = "short", "heavy"


class Entry(NamedTuple):
    """A job that waits; ``rank``: the smallest goes first, ties by arrival."""

    rank: float
    arrival: float
    number: int  # of the push
    latest_s: float  # start that keeps its deadline
    job: Job


class Lane:
    """Jobs of one class and tier: who can still meet his deadline goes first; each falls behind at most once."""

    def __init__(self) -> None:
        self._in_time: list[Entry] = []  # as far as anybody has looked
        self._late: list[Entry] = []

    def push(self, entry: Entry) -> None:
        """Take ``entry`` in."""
        heapq.heappush(self._in_time, entry)

    def look(self, now: float) -> Entry | None:
        """Who goes next. One who is found too late falls behind; no more, lest a decision look at all."""
        if self._in_time and self._in_time[0].latest_s < now:
            heapq.heappush(self._late, heapq.heappop(self._in_time))
        heap = self._next(now)
        return heap[0] if heap else None

    def pop(self, now: float) -> None:
        """Remove who goes next."""
        heapq.heappop(self._next(now))

    def _next(self, now: float) -> list[Entry]:
        """The heap whose first goes next."""
        ahead = bool(self._in_time) and (not self._late or self._in_time[0].latest_s >= now)
        return self._in_time if ahead else self._late


class BlackBox:
    """Adaptive deficit round robin over short and heavy requests, in each of them by wait and size.

    Short is who is estimated to make no more than ``short`` tokens. The two take turns; a turn gives ``quantum`` tokens
    of prompt and estimate, to the short ones up to ``bias`` times as many the more wait, all of it from ``crowd`` on.
    With ``bias`` 1 it is fair queuing over the classes. In a class those go first who can still meet their SLO (the
    feasible set), among them the smallest arrival + ``size`` x seconds of service; a decision finds one who cannot.
    True lengths set the credit right. Source: Yuan et al., arXiv 2604.06970 (abstract read). It names
    the layers - allocation by adaptive DRR, ordering with feasible-set scoring, overload control on a cost ladder - and
    no constants. So the published values are unknown here, the defaults are ours, and it is no reproduction; the third
    layer is ``--shed``, whose rules defer and reject. Trap: a wrong class is worse than a wrong length in a class.
    """

    heeds: Heeds = ""
    needs: tuple[str, ...] = ("profile",)
    not_static = "its classes take turns"

    def __init__(
        self,
        *,
        short: Annotated[
            int, Field(ge=1, description="Longest estimate of the short class.", json_schema_extra={"unit": "tokens"})
        ] = 128,
        quantum: Annotated[
            float, Field(ge=1, description="Credit of a turn.", json_schema_extra={"unit": "tokens"})
        ] = 1000.0,
        bias: Annotated[
            float, Field(ge=1, description="Credit of the short class in a crowd, times the other's.")
        ] = 2.0,
        crowd: Annotated[
            int, Field(ge=1, description="Waiting requests that are a crowd.", json_schema_extra={"unit": "requests"})
        ] = 32,
        size: Annotated[float, Field(ge=0, description="Seconds of waiting that a second of service is worth.")] = 1.0,
    ) -> None:  # fmt: skip
        self._short, self._quantum, self._bias, self._crowd, self._size = short, quantum, bias, crowd, size
        self._lanes: dict[str, dict[Tier, Lane]] = {SHORT: {}, HEAVY: {}}
        self._count = dict.fromkeys(self._lanes, 0)
        self.credit = dict.fromkeys(self._lanes, 0.0)
        self._turn = SHORT
        self._charged: dict[int, tuple[str, int]] = {}  # id(job) -> class and tokens, of those inside
        self._pushed = 0
        self._around = Around()

    def given(self, around: Around) -> None:
        """Take the SLOs and the seconds of service."""
        self._around = around

    def push(self, job: Job, now: float) -> None:
        """Take ``job`` into its class."""
        name, request = self.class_of(job), job.request
        seconds = self._around.service_s(job)
        rank, latest_s = request.arrival + self._size * seconds, self._around.deadline(request, "e2e") - seconds
        lane = self._lanes[name].setdefault(request.tier, Lane())
        lane.push(Entry(rank, request.arrival, self._pushed, latest_s, job))
        self._pushed += 1
        self._count[name] += 1

    def class_of(self, job: Job) -> str:
        """Short or heavy, by the estimate."""
        return SHORT if job.estimate <= self._short else HEAVY

    def pop(self, now: float) -> Job:
        """Remove and return the job to serve next."""
        return self.pop_below(now, ())

    def pop_below(self, now: float, full: Collection[Tier]) -> Job:
        """The same among the jobs whose tier is not ``full``. Raises ``IndexError`` when none of these waits."""
        heads = {name: entry for name in self._lanes if (entry := self._head(name, now, full)) is not None}
        if not heads:
            raise IndexError("pop from an empty policy")
        if self._turn not in heads or self.credit[self._turn] <= 0:
            self._pass_on(heads)
        job = heads[self._turn].job
        self._lanes[self._turn][job.request.tier].pop(now)
        self._count[self._turn] -= 1
        tokens = job.request.prompt_tokens + job.estimate
        self._charged[id(job)] = self._turn, tokens
        self._charge(self._turn, tokens)
        return job

    def _pass_on(self, heads: Collection[str]) -> None:
        """Give turns, first to the other class, until one of those that have a job has credit."""
        other = HEAVY if self._turn == SHORT else SHORT
        order = [name for name in (other, self._turn) if name in heads]
        rounds = min(max(0.0, -self.credit[name]) // self._credit_of(name) for name in order)
        for name in order:  # all rounds at once in which both are in debt
            self.credit[name] += rounds * self._credit_of(name)
        self._turn = ""
        while not self._turn:
            for name in order:
                if self.credit[name] <= 0:
                    self.credit[name] += self._credit_of(name)
                if self.credit[name] > 0:
                    self._turn = name
                    break

    def _credit_of(self, name: str) -> float:
        crowded = min(1.0, len(self) / self._crowd)
        return self._quantum * (1 + (self._bias - 1) * crowded if name == SHORT else 1.0)

    def _charge(self, name: str, tokens: int) -> None:
        """Take credit; a class that has nothing to send keeps its debt alone."""
        self.credit[name] -= tokens
        if not self._count[name]:
            self.credit[name] = min(self.credit[name], 0.0)

    def _head(self, name: str, now: float, full: Collection[Tier]) -> Entry | None:
        found = [entry for tier, lane in self._lanes[name].items() if tier not in full and (entry := lane.look(now))]
        return min(found) if found else None

    def served(self, job: Job, tokens: int | None, now: float) -> None:
        """Set the credit right: ``job`` was ``tokens`` long, or never ran."""
        name, charged = self._charged.pop(id(job))
        self._charge(name, (0 if tokens is None else job.request.prompt_tokens + tokens) - charged)

    def rekey(self) -> None:
        """A job stays in the class that it came into, at its place."""
        return

    def __len__(self) -> int:
        return sum(self._count.values())
