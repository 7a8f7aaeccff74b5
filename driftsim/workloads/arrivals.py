"""Arrivals say when the requests of a workload arrive, phase by phase, some of them on departures."""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from driftsim.errors import InputError
from driftsim.trace.header import WorkloadInfo
from driftsim.workloads.processes import Process
from driftsim.workloads.workload import Workload, stream

__all__ = ["Arrivals", "Process", "arriving"]


class Sessions:
    """The turns of a phase: those without parents come at their offsets from its start, the others after their parents.

    ``rows``: those of the phase; the other lists are by row of the workload. A parent in another phase is over.
    """

    def __init__(
        self,
        rows: range,
        start: float,
        offsets: Sequence[float],
        parents: Sequence[Sequence[int]],
        gaps: Sequence[float],
    ) -> None:
        self.rows = rows
        self._gaps = gaps
        self._waits: dict[int, int] = {}  # parents that have not ended, by row
        self._children: dict[int, list[int]] = {}
        self._ready: list[tuple[float, int]] = []  # heap of when and who
        for row in rows:
            awaited = {parent for parent in (parents[row] if parents else ()) if parent in rows}
            if awaited:
                self._waits[row] = len(awaited)
                for parent in awaited:
                    self._children.setdefault(parent, []).append(row)
            else:
                self._ready.append((start + offsets[row], row))
        heapq.heapify(self._ready)

    @property
    def due(self) -> float | None:
        """When the next turn comes; None while that hangs on an end."""
        return self._ready[0][0] if self._ready else None

    def take(self) -> int:
        """The row that is due next, which has come."""
        return heapq.heappop(self._ready)[1]

    def ended(self, row: int, now: float, failed: bool) -> int:
        """``row`` has ended; how many later turns will never come, because it ``failed``."""
        lost = 0
        for child in self._children.pop(row, []):
            if child not in self._waits:
                continue
            if failed:
                del self._waits[child]
                lost += 1 + self.ended(child, now, failed)
                continue
            self._waits[child] -= 1
            if not self._waits[child]:
                del self._waits[child]
                heapq.heappush(self._ready, (now + self._gaps[child], child))
        return lost


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
        self._waits: Iterator[float] = iter(())  # beyond the think time, from each end to the request that it brings on
        self._closed_rows: range = range(0)
        self._capped_rows: range = range(0)
        self._sessions: Sessions | None = None  # of the current phase
        self._parents = workload.table["parent"].tolist() if "parent" in workload.table else []
        self._gaps = [tick(gap) for gap in workload.table["gap_s"].fillna(0.0).tolist()] if self._parents else []
        self._out = 0  # requests of a capped phase that are out
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
            row = self._row if self._sessions is None else self._sessions.take()
            rows.append((row, due))
            self._row = row = self._row + 1
            self._inside += 1
            if row == self._end:
                self._users = []
                self._begin_phase(due)
            elif self._sessions is not None:
                self._due = self._sessions.due
            elif self._capped_rows and row in self._capped_rows:
                self._out += 1
                self._look_ahead(due)
            elif self._closed_rows:
                self._look_ahead()
            else:
                self._due = self._starts[-1] + self._offsets[row]
        return rows

    def left(self, row: int, now: float, failed: bool = False) -> bool:
        """Request ``row`` has left the system; whether that decides when the next one arrives.

        One that ``failed`` starts no later turn: these never arrive.
        """
        self._inside -= 1
        if self._sessions is not None and row in self._sessions.rows:
            self._row += self._sessions.ended(row, now, failed)
            self._due = self._sessions.due
            if self._row == self._end:
                self._begin_phase(now)
            return True
        if self._closed_rows and row in self._closed_rows and self._row < self._closed_rows.stop:
            wait = next(self._waits, None)
            if wait is not None:  # else those who wait already send all that is left
                think = self._tick(self._phases[len(self._starts) - 1].think_s)
                heapq.heappush(self._users, now + max(think + wait, 0))
            self._look_ahead()
            return True
        if self._capped_rows and row in self._capped_rows and self._row < self._capped_rows.stop:
            self._out -= 1
            self._look_ahead(now)
            return True
        if self._row == self._end and self._inside == 0:
            self._begin_phase(now)
            return True
        return False

    def _look_ahead(self, now: float = 0.0) -> None:
        """Find when the next request is due; one that its client held back is due ``now`` at the earliest."""
        if self._row == self._end:
            self._due = None
        elif self._closed_rows and self._row in self._closed_rows:
            self._due = self._users[0] if self._users else None
        elif self._capped_rows and self._row in self._capped_rows:
            due = max(now, self._starts[-1] + self._offsets[self._row])
            self._due = due if self._out < self._phases[len(self._starts) - 1].users else None
        else:
            self._due = self._starts[-1] + self._offsets[self._row]

    def _begin_phase(self, now: float) -> None:
        """Start the next phase, unless there is none or it must wait for the system to drain."""
        self._due = None
        if len(self._starts) == len(self._phases):
            return
        phase = self._phases[len(self._starts)]
        self._sessions = None
        if phase.kind == "after-drain" and self._inside:
            return
        self._starts.append(now + self._tick(phase.pause_s))
        self._end = self._row + phase.requests
        if phase.kind == "closed":
            self._closed_rows = range(self._row, self._end)
            begins = self._closed_rows[: phase.users]
            self._users = [self._starts[-1] + self._offsets[row] for row in begins]
            heapq.heapify(self._users)
            self._waits = iter(self._offsets[begins.stop : self._end])
        elif phase.kind == "capped":
            self._capped_rows, self._out = range(self._row, self._end), 0
        elif phase.kind == "sessions":
            rows = range(self._row, self._end)
            self._sessions = Sessions(rows, self._starts[-1], self._offsets, self._parents, self._gaps)
            self._due = self._sessions.due
            return
        self._look_ahead()


def arriving(workload: Workload, process: Process, seed: int) -> Workload:
    """The requests of ``workload``, in their order, in one phase with arrivals by ``process``: of sessions, these are
    the arrivals of the first turns. Raises ``InputError`` for a process by which these cannot come.
    """
    phase = process.phase(len(workload))
    table = workload.table
    if "parent" in table and any(map(len, table["parent"])):
        if phase.kind not in ("open", "backlog"):
            raise InputError(
                "the workload has sessions, whose later turns wait for the earlier ones; only their first turns can "
                "arrive by a process, an open one (--arrivals poisson --rate R) or a backlog"
            )
        firsts = ~table["parent"].map(len).astype(bool).to_numpy()
        offsets = np.zeros(len(table))
        offsets[firsts] = process.offsets(int(firsts.sum()), stream(seed, "arrivals"))
        phase = phase.changed(kind="sessions")
    else:
        offsets = process.offsets(len(workload), stream(seed, "arrivals"))
    loop: Literal["open", "closed"] = "closed" if phase.kind in ("closed", "sessions") else "open"
    return replace(
        workload,
        info=WorkloadInfo(name=f"{workload.info.name}, {process.kind}", loop=loop, phases=(phase,)),
        table=table.assign(phase=process.kind, offset_s=offsets),
    )
