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
THINK_PLACES = 5  # of a second: less is rounding, and would make an answer miss the next step
SAME_SHARE = 0.02  # of the median latency: two times that are alike, where many are compared
MOST = 0.9  # share of the arrivals that must fit a closed loop that nobody told, or an even pace
ENOUGH = 0.5  # share of the arrivals that must follow an end in a closed loop that the file tells
SUSPECT = 0.3  # likewise, from which on a run that counts as open may be a loop
BY_CHANCE = 3.0  # times as many as follow an end by chance
BLOCKED = 0.5  # share of the arrivals at the cap that must follow an end at once; by chance, few do

LoopKind = Literal["open", "closed", "capped", "backlog"]


@dataclass(frozen=True, slots=True)
class Told:
    """What is told of a loop: most requests out at once, and requests a second (infinite: as fast as may be).

    ``by_user``: whoever brings the file in says so, and need not be confirmed.
    """

    users: int | None = None
    rate: float | None = None
    by_user: bool = False

    @property
    def paced(self) -> bool:
        """Whether requests came at a rate of their own."""
        return self.rate is not None and 0 < self.rate < math.inf

    @property
    def source(self) -> str:
        """Who tells it, as a sentence begins."""
        return "you say" if self.by_user else "the file tells"


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
    times = _Times(arrival, np.where(lost, arrival, end), _tolerance(arrival, end))
    if told.users is None:
        return _found_of_a_rate(times) if told.paced else _found(times)
    if told.paced:
        return _capped_as_told(times, told)
    if told.users >= len(arrival):
        if float(arrival[-1] - arrival[0]) <= times.tolerance:
            return Loop("backlog", why=f"{told.source} {told.users} users, more than requests: all came at once")
        return _instead(times, f"{told.source} up to {told.users} requests at once, which its arrivals never reached")
    return _closed_as_told(times, told, bool(lost.any()))


@dataclass(frozen=True, eq=False)
class _Times:
    """Arrivals, ascending, the ends of the same requests, and how far two times may lie apart and be the same (s)."""

    arrival: np.ndarray
    end: np.ndarray
    tolerance: float

    def outstanding(self, slack: float = ROUNDED_S) -> np.ndarray:
        """How many requests were out when each arrived, without it; an end at that very moment has made room."""
        ended = np.searchsorted(np.sort(self.end), self.arrival + slack, side="right")
        return np.asarray(np.maximum(np.arange(len(self.arrival)) - ended, 0))

    def since_end(self) -> np.ndarray:
        """The time from the latest end to each arrival; infinite before the first."""
        ends = np.sort(self.end)
        latest = np.searchsorted(ends, self.arrival + ROUNDED_S, side="right") - 1
        return np.asarray(np.where(latest >= 0, self.arrival - ends[np.maximum(latest, 0)], np.inf))

    def after_ends(self, users: int) -> float:
        """The share of the arrivals beyond ``users`` that follow an end at once; 0 if chance explains it."""
        follows = (self.since_end()[users:] <= SAME_S).mean()
        rate = len(self.arrival) / max(float(self.arrival[-1] - self.arrival[0]), 1e-9)
        return float(follows) if follows > BY_CHANCE * -math.expm1(-rate * SAME_S) or follows == 1 else 0.0

    def think(self, users: int) -> tuple[float, float]:
        """The time from the n-th end to the n-th arrival beyond the ``users``, and the share that waited as long.

        In the last third of the run, when all users have begun.
        """
        waited = self.arrival[users:] - np.sort(self.end)[: len(self.arrival) - users]
        waited = waited[2 * len(waited) // 3 :]
        think = float(np.median(waited))
        fits = float((np.abs(waited - think) <= self.tolerance).mean())
        return round(max(think, 0.0), THINK_PLACES), fits if think >= -self.tolerance else 0.0

    def evenly_paced(self) -> bool:
        """Whether requests came at an even pace, as they do by a schedule."""
        gaps = np.diff(self.arrival)
        pace = float(np.median(gaps))
        return pace > SAME_S and float((np.abs(gaps - pace) <= max(ROUNDED_S, SAME_SHARE * pace)).mean()) >= MOST


def _tolerance(arrival: np.ndarray, end: np.ndarray) -> float:
    return max(SAME_S, SAME_SHARE * float(np.nanmedian(end - arrival)))


def _closed_as_told(times: _Times, told: Told, lost: bool) -> Loop:
    """A closed loop, unless its times speak against it; where some ends are ``lost``, they can say less."""
    users = told.users
    assert users is not None
    think, fits = times.think(users)
    most = int(times.outstanding(times.tolerance).max()) + 1
    said = f"a closed loop of {users} users, as {told.source}"
    if most > users:
        return _instead(times, f"{told.source} a closed loop of {users} users, but {most} requests were out at once")
    if fits >= MOST:
        return Loop("closed", users, think, f"{said} and its arrivals confirm")
    if max(fits, times.after_ends(users)) >= ENOUGH:
        return Loop("closed", users, think if fits >= ENOUGH else 0.0, f"{said}; its users did not all wait alike")
    if told.by_user or len(times.arrival) - users < FEWEST:
        return Loop("closed", users, 0.0, f"{said}; its arrivals neither confirm nor deny that")
    if lost:
        return Loop("closed", users, 0.0, f"{said}; when its failures ended is not known, so nothing confirms it")
    return _instead(times, f"{told.source} a closed loop of {users} users, but its arrivals do not follow its ends")


def _instead(times: _Times, against: str) -> Loop:
    """What the times show where they speak ``against`` what is told."""
    found = _found(times)
    what = "arrivals are replayed as recorded" if found.kind == "open" else found.why
    return replace(found, why=f"{against}: {what}")


def _unchecked(told: Told, count: int) -> Loop:
    """The loop where nobody knows when a request ended: what is told, if it needs no ends."""
    users = told.users
    if users is None:
        return Loop("open")
    if told.paced:
        return Loop("open", why=f"when requests ended is not told, so a cap of {users} at once cannot be replayed")
    if users >= count:
        return Loop("open", why=f"{told.source} {users} users, more than requests: arrivals are replayed as recorded")
    return Loop("closed", users, 0.0, f"a closed loop of {users} users, as {told.source}; when requests ended is not")


def _found(times: _Times) -> Loop:
    """A loop that nobody told, if the times leave little doubt."""
    outstanding = times.outstanding()
    users = int(outstanding.max()) + 1
    if len(times.arrival) < users + FEWEST:
        return Loop("open")
    think, fits = times.think(users)
    if fits >= MOST and times.evenly_paced():
        return Loop(
            "open",
            why=f"its requests came at an even pace, as by a schedule or by {users} users who wait for answers of "
            f"equal length: taken as open; users = {users} in a mapping says otherwise",
        )
    if fits >= MOST:
        return Loop(
            "closed", users, think,
            f"its arrivals follow its ends as those of {users} users do who wait for their answers: taken as a closed "
            "loop",
        )  # fmt: skip
    at_cap = outstanding == users - 1
    blocked = at_cap & (times.since_end() <= SAME_S)
    if users > 1 and blocked.sum() >= max(FEWEST / 2, BLOCKED * at_cap.sum()):
        return Loop(
            "capped", users,
            why=f"it never had more than {users} requests out, and sent the next one as soon as one ended: taken as an "
            "open loop with that cap",
        )  # fmt: skip
    follow = times.after_ends(users)
    if follow >= SUSPECT:
        return Loop(
            "open",
            why=f"{100 * follow:.0f} % of its requests came as soon as another ended: if users waited for answers, say "
            "so with users = N in a mapping; taken as open",
        )
    return Loop("open")


def _found_of_a_rate(times: _Times) -> Loop:
    """What the times show where requests had a rate of their own: no closed loop, but perhaps a cap."""
    if times.evenly_paced():
        return Loop("open")
    found = _found(times)
    if found.kind == "closed":
        why = f"its requests had a rate, but came as soon as one of {found.users} ended: taken as held back by that cap"
        return Loop("capped", found.users, why=why)
    return found


def _capped_as_told(times: _Times, told: Told) -> Loop:
    users = told.users
    assert users is not None
    most = int(times.outstanding(times.tolerance).max()) + 1
    if most > users:
        against = f"{told.source} at most {users} requests at once, but {most} were out"
        return Loop("open", why=f"{against}: arrivals are replayed as recorded")
    if not ((times.outstanding() >= users - 1) & (times.since_end() <= times.tolerance)).any():
        return Loop("open", why=f"the cap of {users} requests at once never held one back")
    return Loop("capped", users, why=f"an open loop with at most {users} requests out, as {told.source}")


def sends(arrival: np.ndarray, end: np.ndarray, users: int, think_s: float) -> tuple[np.ndarray, np.ndarray]:
    """How a closed loop is sent again: when each user begins, and how long after an end each other request is sent.

    ``arrival`` ascends; both counts together are its length. The n-th request that a user has waited for follows the
    n-th end. A request is a user's first if it follows no end by ``think_s``, until all ``users`` have begun: users
    need not begin together, pause alike or think alike.
    """
    if np.isnan(end).all():  # nobody knows who waited for how long
        return arrival[:users], np.full(len(arrival[users:]), think_s)
    ends = np.sort(np.where(np.isnan(end), arrival, end))
    tolerance = _tolerance(arrival, end)
    starts, waits = list[float](), list[float]()
    for moment in arrival.tolist():
        waited = moment - float(ends[len(waits)])
        follows = waited > -ROUNDED_S and abs(waited - think_s) <= tolerance
        if len(starts) < users and not follows:
            starts.append(moment)
        else:
            waits.append(think_s if abs(waited - think_s) <= ROUNDED_S else max(waited, 0.0))
    return np.array(starts), np.array(waits)


def due_times(arrival: np.ndarray, end: np.ndarray, users: int) -> np.ndarray:
    """When each request of a capped loop would have been sent without the cap (s); ``arrival`` ascends.

    A request that nothing held back was due when it came. Those held back were due since, at an even pace between
    their neighbours: nobody recorded when.
    """
    times = _Times(arrival, np.where(np.isnan(end), arrival, end), _tolerance(arrival, end))
    blocked = (times.outstanding() >= users - 1) & (times.since_end() <= times.tolerance)
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
