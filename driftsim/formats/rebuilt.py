"""Arrivals of a run whose start times nobody kept: rebuilt where the loop tells them, else drawn, and told."""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from driftsim.errors import InputError
from driftsim.trace.loops import Loop, Told

SEED = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the user says of the arrivals: a ``rate`` in requests a second, or a number of ``users``."""

    rate: float | None = None
    users: int | None = None


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """When each request arrived (s, in the file's order), the loop that they came in, and what must be said of them."""

    arrival_s: np.ndarray
    loop: Loop
    said: str


def rebuilt(file: Path, took_s: np.ndarray, told: Told, asked: Asked) -> Rebuilt:
    """The arrivals of requests that ``took_s`` each (NaN where not told: over at once), sent in the file's order.

    ``told`` is what the file says of its loop. Raises ``InputError`` where neither it nor the user tells enough.
    """
    if asked.rate is not None and asked.users is not None:
        raise InputError(f"{file}: --rate draws arrivals and --users rebuilds them; give one of the two")
    if asked.rate is not None:
        return _drawn(len(took_s), asked.rate)
    at_once = told.rate is not None and math.isinf(told.rate)
    if asked.users is None and not at_once:
        raise InputError(f"{file}: tells no start times{_told(told)}; {_remedy(told)}")
    users = asked.users or told.users
    if users is None or users >= len(took_s):
        who = "it sent all requests" if users is None else f"{users} users sent all requests"
        loop = Loop("backlog", why=f"its start times are lost: {who} at once")
        return Rebuilt(np.zeros(len(took_s)), loop, "")
    by_whom = "as you say" if asked.users else "as the file says"
    why = (
        f"its start times are lost: rebuilt as a closed loop of {users} users, {by_whom}, who send the file's requests "
        "in its order, each when an earlier one ended"
    )
    return Rebuilt(_closed(took_s, users), Loop("closed", users, why=why), "")


def _told(told: Told) -> str:
    says = []
    if told.rate is not None:
        says.append(f"{told.rate:g} requests a second")
    if told.users is not None:
        says.append(f"at most {told.users} at once")
    return f" (it says: {', '.join(says)})" if says else ""


def _remedy(told: Told) -> str:
    rate = f"{told.rate:g}" if told.rate is not None else "R"
    users = str(told.users) if told.users is not None else "N"
    return (
        f"import it with --rate {rate} to draw arrivals at that many requests a second, or --users {users} if so many "
        "clients each waited for their answer"
    )


def _drawn(count: int, rate: float) -> Rebuilt:
    gaps = np.random.default_rng(SEED).exponential(1 / rate, count)
    said = (
        f"its start times are lost: arrivals were drawn, {rate:g} requests a second (Poisson, seed {SEED}), so they do "
        "not belong to the latencies that were measured"
    )
    return Rebuilt(np.cumsum(gaps), Loop("open"), said)


def _closed(took_s: np.ndarray, users: int) -> np.ndarray:
    """Start times of a loop of ``users``: each request goes to the user who is idle first."""
    idle = [0.0] * users
    starts = np.empty(len(took_s))
    for row, took in enumerate(np.nan_to_num(took_s, nan=0.0, posinf=0.0, neginf=0.0).tolist()):
        starts[row] = heapq.heappop(idle)
        heapq.heappush(idle, starts[row] + max(took, 0.0))
    return starts
