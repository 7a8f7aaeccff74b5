"""When each client gives its request up, and whether it sends the request again: a row of its own for each attempt.

The attempts of the request in row r of a workload of n have the rows r, r + n, r + 2 n ...
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from driftsim.clients import Clients
from driftsim.request import Request
from driftsim.trace.prefixes import ENDLESS
from driftsim.trace.schema import LARGEST_COUNT
from driftsim.whose import rule_of
from driftsim.workloads.workload import Workload, stream

Time: TypeAlias = Any  # a number, in clock units of the caller's choice
RETRIED = ("timeout", "shed", "error")


class Attempts:
    """The attempts of the requests of ``workload`` by ``clients``, whose chances are drawn by ``seed``.

    Times are in clock units of the caller's choice: ``tick(seconds)`` converts.
    """

    def __init__(self, workload: Workload, clients: Clients, seed: int, tick: Callable[[float], Time]) -> None:
        self._tick = tick
        self.workload = workload
        self.requests = requests = len(workload)
        self.clients = clients
        self.timeouts = timeouts_of(workload, clients)
        retries = clients.retries
        self.most = 0 if retries is None else retries.most
        self.rows = requests * (1 + self.most)
        table = workload.table
        self._waits = self._in_ticks(self.timeouts)
        deadlines = table.get("deadline_s", pd.Series(dtype=float)).to_numpy(dtype=float)
        self._deadlines = self._in_ticks(deadlines)
        patience = table.get("patience_s", pd.Series(dtype=float)).to_numpy(dtype=float)
        self.patience = self._in_ticks(np.where(np.isinf(patience), np.nan, patience))
        self.as_known = set(np.flatnonzero(np.isinf(patience)).tolist())  # what these streamed is all that is known
        self.impatient = any(one is not None for one in (self._waits, self._deadlines, self.patience))
        self._first: list[Time] = [tick(0.0)] * requests if self.most else []  # when each was first sent
        self._chances = stream(seed, "retries").random((requests, self.most)) if self.most else None
        self._mark = self._separator() if self.most else ""

    def _in_ticks(self, times: np.ndarray) -> list[Time] | None:
        """``times`` (s), NaN for never, in clock units, infinite for never; None if all are never."""
        if np.isnan(times).all():
            return None
        return [math.inf if math.isnan(time) else self._tick(time) for time in times.tolist()]

    def _separator(self) -> str:
        """What stands between a request's id and the number of the attempt, so that no other request is called so."""
        names, mark = self.workload.table["request_id"].tolist(), "#"
        known = set(names)
        while any(f"{name}{mark}{number}" in known for name in names for number in range(2, self.most + 2)):
            mark += "#"
        return mark

    def name(self, row: int) -> str:
        """The id of the attempt in ``row``."""
        first = str(self.workload.table["request_id"].iat[row % self.requests])
        return first if row < self.requests else f"{first}{self._mark}{1 + row // self.requests}"

    def rows_of(self, chosen: pd.Series) -> set[int]:
        """The rows of all attempts of the requests that are ``chosen``; empty is not chosen."""
        rows = np.flatnonzero(chosen.fillna(False).astype(bool)).tolist()
        return {row + attempt * self.requests for attempt in range(1 + self.most) for row in rows}

    def builder(self, build: Callable[[int, float], Request]) -> Callable[[int, float], Request]:
        """``build``, which knows the workload's rows, for the rows of all attempts."""
        if not self.most:
            return build

        def built(row: int, arrival: float) -> Request:
            request = build(row % self.requests, arrival)
            if row >= self.requests:
                request.id = self.name(row)
                if request.choice is not None:
                    first, place, count = request.choice
                    request.choice = first + row - row % self.requests, place, count
                request.stretches = self._resent(request.stretches, request.prompt_tokens, row)
            return request

        return built

    @staticmethod
    def _resent(stretches: tuple[tuple[int, int], ...], prompt: int, row: int) -> tuple[tuple[int, int], ...]:
        """``stretches`` of a request that is sent again: the prompt is that of the first attempt, the answer is not."""
        if not stretches:
            return stretches
        shared = [(owner, min(end, prompt)) for owner, end in stretches if end < prompt]
        owner = next(owner for owner, end in stretches if end >= prompt)
        return (*shared, (owner, prompt), (2 * LARGEST_COUNT + row, ENDLESS))

    def stretches(self, whole: list[Any]) -> list[Any]:
        """The stretches of all attempts, by row; ``whole`` are those of the requests."""
        prompts = self.workload.table["prompt_tokens"].tolist()
        return whole + [
            self._resent(whole[row % self.requests], prompts[row % self.requests], row)
            for row in range(self.requests, self.rows)
        ]

    def until(self, row: int, now: Time) -> tuple[Time, str] | None:
        """When the client of the attempt in ``row``, sent ``now``, gives it up, and how it ends then."""
        place = row % self.requests
        if self.most and row < self.requests:
            self._first[place] = now
        at = math.inf
        reason = "timeout"
        if self._waits is not None:
            at = now + self._waits[place]
        if self._deadlines is not None:
            at = min(at, (self._first[place] if self.most else now) + self._deadlines[place])
        if self.patience is not None and row < self.requests and now + self.patience[place] < at:
            at, reason = now + self.patience[place], "abort"
        return None if at == math.inf else (at, reason)

    def again(self, row: int, reason: str, now: Time, told_s: float | None = None) -> tuple[int, Time] | None:
        """The row of the attempt after that in ``row``, which has ended ``now``, and when it is sent; None if none is.

        ``reason``: its finish reason, or ``shed`` if the queue's limits turned it away, and ``told_s`` its
        ``Retry-After``.
        """
        retries = self.clients.retries
        if retries is None or reason not in RETRIED or row + self.requests >= self.rows:
            return None
        assert self._chances is not None
        number, place = divmod(row, self.requests)
        wait = retries.wait(number, float(self._chances[place, number]), told_s)
        if wait is None:
            return None
        at = now + self._tick(wait)
        if self._deadlines is not None and at >= self._first[place] + self._deadlines[place]:
            return None
        return row + self.requests, at

    def offered(self) -> pd.DataFrame:
        """What a trace's request table holds of all attempts before a run begins, by row."""
        offered = self.workload.offered
        if self.most:
            offered = pd.concat([offered] * (1 + self.most), ignore_index=True)
            offered["request_id"] = pd.Series(self.names(), dtype=object)
        return offered

    def columns(self) -> dict[str, Any]:
        """What a trace tells of the clients besides, by column, for the rows of all attempts."""
        table, repeats, found = self.workload.table, 1 + self.most, dict[str, Any]()
        if self._waits is not None:
            found["timeout_s"] = np.tile(self.timeouts, repeats)
        if self.clients.retries is not None:
            ids = table["request_id"].tolist()
            found["attempt"] = np.repeat(np.arange(1, repeats + 1), self.requests)
            found["retry_of"] = pd.Series([None] * self.requests + ids * self.most, dtype=object)
        return found

    def deadlines(self) -> np.ndarray | None:
        """The time from the first attempt to the deadline (s), for the rows of all attempts; None if there is none."""
        if "deadline_s" not in self.workload.table:
            return None
        return np.tile(self.workload.table["deadline_s"].to_numpy(dtype=float), 1 + self.most)

    def of_first(self, values: np.ndarray) -> np.ndarray:
        """Of ``values`` of all attempts, by row, those of the first attempt of each."""
        return np.tile(values[: self.requests], 1 + self.most)

    def names(self) -> list[str]:
        """The ids of all attempts, by row."""
        ids = self.workload.table["request_id"].tolist()
        return ids + [f"{name}{self._mark}{number}" for number in range(2, self.most + 2) for name in ids]


def gives_up(workload: Workload) -> bool:
    """Whether some request of ``workload`` is given up at a time of its own."""
    known = [name for name in ("timeout_s", "deadline_s", "patience_s") if name in workload.table]
    return bool(workload.table[known].notna().any(axis=None))


def timeouts_of(workload: Workload, clients: Clients) -> np.ndarray:
    """How long each request of ``workload`` is waited for (s), (requests,): by ``clients``, else by its own column."""
    table = workload.table
    own = table["timeout_s"].to_numpy(dtype=float) if "timeout_s" in table else np.full(len(table), math.nan)
    if not clients.timeouts:
        return own
    tenants, tiers = (table[name].to_numpy(dtype=object) for name in ("tenant", "tier"))
    place = rule_of(clients.timeouts, tenants, tiers)
    given = np.array([*(one.after_s for one in clients.timeouts), math.nan])[place]
    return np.where(place >= 0, given, own)
