"""Policies that go by deadlines: the arrival and what the SLO of the tenant or the tier allows."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from driftsim.request import Job
from driftsim.scheduling.around import Around
from driftsim.scheduling.queues import Keyed

Limit: TypeAlias = Annotated[
    Literal["ttft", "e2e"],
    Field(description="Limit of the SLO that makes the deadline; the other one where an SLO has that alone."),
]


class Edf(Keyed):
    """Earliest deadline first: arrival and the SLO's limit, none goes last.

    On one slot it minimises the largest lateness of those who wait. With one SLO for all it is FIFO. Source: Jackson
    1955; Liu and Layland 1973 (from memory). Trap: in an overload it serves those first who are too late already, and
    then all are late.
    """

    needs: tuple[str, ...] = ("slos",)

    def __init__(self, *, limit: Limit = "ttft") -> None:
        super().__init__()
        self._limit, self._around = limit, Around()

    def given(self, around: Around) -> None:
        """Take the SLOs."""
        self._around = around

    def key(self, job: Job) -> float:
        """The deadline, in seconds since the run began."""
        return self._around.deadline(job.request, self._limit)


class Slack(Edf):
    """Least slack first: the deadline less the seconds of service until it.

    Until the first token that is the prefill, until the end the whole service. Time passes for all alike, so the order
    of those who wait never changes. On one slot it maximises the smallest lateness. Source: Mok 1983; Conway, Maxwell
    and Miller 1967 (from memory). Trap: as of earliest deadline first, and a large job with a late deadline goes before
    a small one that is due sooner.
    """

    needs = ("slos", "profile")

    def __init__(self, *, limit: Limit = "e2e") -> None:
        super().__init__(limit=limit)

    def key(self, job: Job) -> float:
        """The latest start that keeps the deadline, in seconds since the run began."""
        return super().key(job) - self._around.service_s(job, None if self._limit == "e2e" else 0)
