"""The loop of a recorded run: did its requests come by themselves, or did they wait for others to end?

A closed loop sends a request when another has ended; a capped one sends at times of its own, but holds a request back
while too many are out. Replayed as if they came by themselves, such requests press an engine as no client did.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

FEWEST = 20  # arrivals that must have waited for an end before a loop is found that nobody told
SAME_S = 0.005  # an arrival so soon after an end may be its answer
ROUNDED_S = 0.001  # an end this much after an arrival may be before it: files round their times, and add them up
SAME_SHARE = 0.02  # of the median latency: likewise
MOST = 0.9  # share of the arrivals that must fit a closed loop that nobody told
MOST_TOLD = 0.5  # likewise, of one that the file tells: failures end at times that nobody knows
BLOCKED = 0.5  # share of the arrivals at the cap that must follow an end at once; by chance, few do

LoopKind = Literal["open", "closed", "capped", "backlog"]


@dataclass(frozen=True, slots=True)
class Told:
    """What a file says of its loop: most requests out at once, and requests a second (infinite: as fast as may be)."""

    users: int | None = None
    rate: float | None = None


@dataclass(frozen=True, slots=True)
class Loop:
    """The loop of a run, and how that is known: ``why`` is a sentence for the reader of the trace."""

    kind: LoopKind
    users: int = 0
    think_s: float = 0.0
    why: str = ""


def find_loop(arrival: np.ndarray, end: np.ndarray, told: Told) -> Loop:
    """The loop of requests that arrived at ``arrival`` (s) and ended at ``end`` (s, NaN where not known), any order.

    What a file tells is held against the times; where the two disagree the times count, and ``why`` says so.
    """
    order = np.argsort(arrival, kind="stable")
    arrival, end = arrival[order], end[order]
    lost = np.isnan(end)
    if lost.all():
        return _unchecked(told, len(arrival))
    end = np.where(lost, arrival, end)
    tolerance = max(SAME_S, SAME_SHARE * float(np.median((end - arrival)[~lost])))
    if told.users is None:
        return _found(arrival, end, tolerance)
    if told.rate is not None and 0 < told.rate < math.inf:
        return _capped_as_told(arrival, end, told.users, tolerance)
    if told.users >= len(arrival):
        if float(arrival[-1] - arrival[0]) <= tolerance:
            return Loop(
                "backlog", why=f"the file tells of {told.users} users, more than its requests: all came at once"
            )
        return _instead(
            arrival,
            end,
            tolerance,
            f"the file tells of up to {told.users} requests at once, which its arrivals never reached",
        )
    return _closed_as_told(arrival, end, told.users, tolerance, bool(lost.any()))


def _closed_as_told(arrival: np.ndarray, end: np.ndarray, users: int, tolerance: float, lost: bool) -> Loop:
    """A closed loop, unless its times speak against it; where some ends are ``lost``, they can say less."""
    few = len(arrival) - users < FEWEST  # too few to speak against the file
    think = _think(arrival, end, users, tolerance, 0.0 if few else MOST_TOLD)
    if think is not None:
        return Loop(
            "closed",
            users,
            think,
            f"a closed loop of {users} users, as the file tells{'' if few else ' and its arrivals confirm'}",
        )
    if lost and int(_outstanding(arrival, end - tolerance).max()) < users:
        said = "as the file tells; when its failures ended is not known, so its arrivals cannot confirm it"
        return Loop("closed", users, 0.0, f"a closed loop of {users} users, {said}")
    return _instead(
        arrival,
        end,
        tolerance,
        f"the file tells of a closed loop of {users} users, but its arrivals do not follow its ends",
    )


def _instead(arrival: np.ndarray, end: np.ndarray, tolerance: float, against: str) -> Loop:
    """What the times show where they speak ``against`` the file."""
    found = _found(arrival, end, tolerance)
    if found.kind == "open":
        return replace(found, why=f"{against}: they are replayed as recorded")
    return replace(found, why=f"{against}; {found.why}")


def _unchecked(told: Told, count: int) -> Loop:
    """The loop where nobody knows when a request ended: what is told, if it needs no ends."""
    users = told.users
    if users is None:
        return Loop("open")
    if told.rate is not None and 0 < told.rate < math.inf:
        return Loop("open", why=f"when requests ended is not told, so a cap of {users} at once cannot be replayed")
    if users >= count:
        return Loop(
            "open", why=f"{users} users are told, more than there are requests: arrivals are replayed as recorded"
        )
    return Loop("closed", users, 0.0, f"a closed loop of {users} users, as is told; when requests ended is not")


def _found(arrival: np.ndarray, end: np.ndarray, tolerance: float) -> Loop:
    """A loop that nobody told, if the times leave little doubt."""
    outstanding = _outstanding(arrival, end)
    users = int(outstanding.max()) + 1
    if users < 2 or len(arrival) < users + FEWEST:
        return Loop("open")
    think = _think(arrival, end, users, tolerance)
    if think is not None:
        return Loop(
            "closed", users, think,
            f"its arrivals follow its ends as those of {users} users do who wait for their answers: taken as a closed "
            "loop",
        )  # fmt: skip
    at_cap = outstanding == users - 1
    blocked = _blocked(arrival, end, users, SAME_S)
    if blocked.sum() >= max(FEWEST / 2, BLOCKED * at_cap.sum()):
        return Loop(
            "capped", users,
            why=f"it never had more than {users} requests out, and sent the next one as soon as one ended: taken as an "
            "open loop with that cap",
        )  # fmt: skip
    return Loop("open")


def _capped_as_told(arrival: np.ndarray, end: np.ndarray, users: int, tolerance: float) -> Loop:
    most = int(_outstanding(arrival, end - tolerance).max()) + 1
    if most > users:
        return Loop(
            "open",
            why=f"the file tells of at most {users} requests at once, but {most} were out: arrivals are replayed as "
            "recorded",
        )
    if not _blocked(arrival, end, users, tolerance).any():
        return Loop("open", why=f"the file's cap of {users} requests at once never held one back")
    return Loop("capped", users, why=f"an open loop with at most {users} requests out, as the file tells")


def _outstanding(arrival: np.ndarray, end: np.ndarray) -> np.ndarray:
    """How many requests were out when each arrived, without it; an end at that very moment has made room."""
    ended = np.searchsorted(np.sort(end), arrival + ROUNDED_S, side="right")
    return np.asarray(np.maximum(np.arange(len(arrival)) - ended, 0))


def _think(arrival: np.ndarray, end: np.ndarray, users: int, tolerance: float, share: float = MOST) -> float | None:
    """The time from an answer to the next request, if the n-th end brings on the n-th further arrival; else None.

    At least ``share`` of the arrivals must come that long after the end.
    """
    waited = arrival[users:] - np.sort(end)[: len(arrival) - users]
    think = float(np.median(waited))
    fits = np.abs(waited - think) <= tolerance
    return max(think, 0.0) if (think >= -tolerance or not share) and fits.mean() >= share else None


def _blocked(arrival: np.ndarray, end: np.ndarray, users: int, tolerance: float) -> np.ndarray:
    """Which arrivals were held back until one of ``users`` requests ended."""
    ends = np.sort(end)
    latest = np.searchsorted(ends, arrival + ROUNDED_S, side="right") - 1
    since = arrival - ends[np.maximum(latest, 0)]
    return np.asarray((_outstanding(arrival, end) >= users - 1) & (latest >= 0) & (since <= tolerance))


def due_times(arrival: np.ndarray, end: np.ndarray, users: int) -> np.ndarray:
    """When each request of a capped loop would have been sent without the cap (s); ``arrival`` ascends.

    A request that nothing held back was due when it came. Those held back were due since, at an even pace between
    their neighbours: nobody recorded when.
    """
    end = np.where(np.isnan(end), arrival, end)
    tolerance = max(SAME_S, SAME_SHARE * float(np.median(end - arrival)))
    blocked = _blocked(arrival, end, users, tolerance)
    free = np.flatnonzero(~blocked)
    if not len(free):
        return np.asarray(np.full(len(arrival), arrival[0]))
    gaps = np.diff(arrival[: int(free[-1]) + 1])
    pace = float(gaps.mean()) if len(gaps) else 0.0
    rows = np.arange(len(arrival))
    due = np.interp(rows, free, arrival[free])
    late = rows > free[-1]
    due[late] = arrival[free[-1]] + pace * (rows[late] - free[-1])
    return np.asarray(np.minimum(due, arrival))
