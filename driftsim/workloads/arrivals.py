"""Arrival processes say when requests arrive."""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from driftsim.errors import InputError
from driftsim.trace.header import Phase, WorkloadInfo
from driftsim.workloads.kinds import ArrivalKind
from driftsim.workloads.workload import Workload, stream


class Arrivals:
    """The arrival times of a workload, in clock units of the caller's choice: ``tick(seconds)`` converts.

    Ask ``next_at`` when the next request is due, ``take`` the rows that are, and tell ``left`` of each departure.
    """

    def __init__(self, workload: Workload, tick: Callable[[float], int] | Callable[[float], float]) -> None:
        self._phases = workload.info.phases
        offsets = workload.table["offset_s"].astype(float)
        self._offsets = array("d", offsets) if tick is float else [tick(offset) for offset in offsets.tolist()]
        self._tick = tick
        self._starts: list[float] = []  # of the phases that have begun
        self._row, self._end = 0, 0  # next row to arrive, end of the current phase
        self._inside = 0
        self._users: list[float] = []  # when each idle user of a closed phase sends next
        self._closed_rows: range = range(0)
        self._due: float | None = None
        self._begin_phase(tick(0.0))

    @property
    def done(self) -> bool:
        """True once every request has arrived."""
        return self._row == len(self._offsets)

    def starts(self) -> list[float]:
        """When each phase that has begun did so, in clock units."""
        return list(self._starts)

    def next_at(self) -> float | None:
        """When the next request is due; None while that hangs on a departure, and when all have arrived."""
        return self._due

    def take(self, now: float) -> list[tuple[int, float]]:
        """The rows that arrive by ``now``, in order, each with the time at which it was due."""
        rows = []
        while (due := self._due) is not None and due <= now:
            if self._users:
                heapq.heappop(self._users)
            row = self._row
            rows.append((row, due))
            self._row = row = row + 1
            self._inside += 1
            if row == self._end:
                self._users = []
                self._begin_phase(due)
            elif self._closed_rows:
                self._look_ahead()
            else:
                self._due = self._starts[-1] + self._offsets[row]
        return rows

    def left(self, row: int, now: float) -> bool:
        """Request ``row`` has left the system; whether that decides when the next one arrives."""
        self._inside -= 1
        if self._closed_rows and row in self._closed_rows and self._row < self._closed_rows.stop:
            heapq.heappush(self._users, now + self._tick(self._phases[len(self._starts) - 1].think_s))
            self._look_ahead()
            return True
        if self._row == self._end and self._inside == 0:
            self._begin_phase(now)
            return True
        return False

    def _look_ahead(self) -> None:
        """Find when the next request is due."""
        if self._row == self._end:
            self._due = None
        elif self._closed_rows and self._row in self._closed_rows:
            self._due = self._users[0] if self._users else None
        else:
            self._due = self._starts[-1] + self._offsets[self._row]

    def _begin_phase(self, now: float) -> None:
        """Start the next phase, unless there is none or it must wait for the system to drain."""
        self._due = None
        if len(self._starts) == len(self._phases):
            return
        phase = self._phases[len(self._starts)]
        if phase.kind == "after-drain" and self._inside:
            return
        self._starts.append(now + self._tick(phase.pause_s))
        self._end = self._row + phase.requests
        if phase.kind == "closed":
            self._users = [self._starts[-1]] * phase.users
            self._closed_rows = range(self._row, self._end)
        self._look_ahead()


@dataclass(frozen=True, kw_only=True)
class Process:
    """How requests arrive.

    ``poisson``, ``uniform`` (gaps of 0.5 to 1.5 of the mean) and ``gamma`` (bursty, gaps with coefficient of variation
    ``cv``) at ``rate`` requests a second; ``closed``: each of ``users`` waits for an answer and ``think_s`` before the
    next request; ``backlog``: all at time 0.
    """

    kind: ArrivalKind
    rate: float | None = None  # requests / s
    cv: float = 3.0
    users: int | None = None
    think_s: float = 0.0

    def __post_init__(self) -> None:
        open_loop = self.kind in ("poisson", "uniform", "gamma")
        if open_loop != (self.rate is not None) or (self.rate is not None and not 0 < self.rate < 1e9):
            raise InputError(f"{self.kind} arrivals need {'a rate above 0' if open_loop else 'no rate'}")
        if (self.kind == "closed") != (self.users is not None) or (self.users is not None and self.users < 1):
            raise InputError(f"{self.kind} arrivals need {'at least 1 user' if self.kind == 'closed' else 'no users'}")
        if not self.cv > 0 or not self.think_s >= 0:
            raise InputError(f"cv must be above 0 and the think time not negative, got {self.cv} and {self.think_s}")

    def offsets(self, count: int, random: np.random.Generator) -> np.ndarray:
        """Arrival times of ``count`` requests, seconds since the phase began; zeros where nothing paces them."""
        if self.rate is None:
            return np.zeros(count)
        draws = {
            "poisson": lambda: random.exponential(1.0, count),
            "uniform": lambda: random.uniform(0.5, 1.5, count),
            "gamma": lambda: random.gamma(1 / self.cv**2, self.cv**2, count),
        }
        return np.asarray(np.cumsum(draws[self.kind]() / self.rate))


def arriving(workload: Workload, process: Process, seed: int) -> Workload:
    """The requests of ``workload``, in their order, in one phase with arrivals by ``process``."""
    kind: Any = process.kind if process.kind in ("closed", "backlog") else "open"
    phase = Phase(
        name=process.kind, kind=kind, requests=len(workload), users=process.users or 0, think_s=process.think_s
    )
    offsets = process.offsets(len(workload), stream(seed, "arrivals"))
    loop: Any = "closed" if process.kind == "closed" else "open"
    return replace(
        workload,
        info=WorkloadInfo(name=f"{workload.info.name}, {process.kind}", loop=loop, phases=(phase,)),
        table=workload.table.assign(phase=process.kind, offset_s=offsets),
    )
