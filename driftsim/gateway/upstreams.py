"""The servers behind the gateway: which are up, and which of them serves whom.

A server that fails is left alone until a look at its health succeeds; then one request tries it, and if that is
answered, the others follow (a circuit breaker with a half-open state: Nygard 2007, Release It!).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Literal
from urllib.parse import urlsplit

import aiohttp

from driftsim.request import Job
from driftsim.scheduling.routing import Replica, Router

LOOK_S = 5.0  # longest wait for a look at a server's health
PLENTY = 1_000_000

State = Literal["up", "trial", "down"]


class Upstream:
    """One server. ``base``: its URL, such as http://localhost:8000/v1; ``root``: the same without its ``path``."""

    def __init__(self, number: int, base: str) -> None:
        parts = urlsplit(base)
        self.base = base
        self.root = f"{parts.scheme}://{parts.netloc}"
        self.path = parts.path
        self.replica = Replica(number)
        self.state: State = "up"
        self.failures = 0
        self.answers = 0  # that it has begun
        self._tried: Job | None = None  # who tries a server that may be up again

    @property
    def number(self) -> int:
        """Its place among the servers."""
        return self.replica.number

    def room(self) -> int:
        """Requests that it would take now."""
        if self.state == "trial":
            return 0 if self._tried is not None else 1
        return PLENTY if self.state == "up" else 0

    def enter(self, job: Job, seconds: float) -> None:
        """``job`` is sent to it."""
        self.replica.requests += 1
        self.replica.work_s += seconds
        if self.state == "trial":
            self._tried = job

    def leave(self, job: Job, seconds: float) -> None:
        """``job`` is not with it any more."""
        self.replica.requests -= 1
        self.replica.work_s = self.replica.work_s - seconds if self.replica.requests else 0.0
        if self._tried is job:
            self._tried = None

    def answered(self) -> bool:
        """It began an answer; whether it takes more requests for that."""
        self.answers += 1
        was, self.state = self.state, "up"
        return was != "up"

    def failed(self) -> None:
        """It did not."""
        self.failures += 1
        self.state = "down"

    def looks_well(self) -> None:
        """A look at its health succeeded."""
        if self.state == "down":
            self.state, self._tried = "trial", None


class Pool:
    """All servers. ``changed`` is called when one may take requests again, or takes none any more."""

    def __init__(self, urls: Sequence[str], router: Router, changed: Callable[[], None] = lambda: None) -> None:
        self.upstreams = [Upstream(number, url) for number, url in enumerate(urls)]
        self._router = router
        self.changed = changed

    def room(self) -> int:
        """Requests that they would take now, all together."""
        return sum(one.room() for one in self.upstreams)

    @property
    def is_up(self) -> bool:
        """Whether one of them serves, or may."""
        return any(one.state != "down" for one in self.upstreams)

    def choose(self, job: Job, seconds: float, now: float, but: Sequence[Upstream] = ()) -> Upstream | None:
        """The server of ``job``, which counts as there from now on; None if none but those in ``but`` takes it."""
        able = [one for one in self.upstreams if one.room() and one not in but]
        if not able:
            return None
        chosen = self._router.choose(job, [one.replica for one in able], now)
        found = next(one for one in able if one.replica is chosen)
        found.enter(job, seconds)
        return found

    async def watch(self, session: aiohttp.ClientSession, every_s: float) -> None:
        """Look at every server's health from time to time, for ever."""
        while True:
            await asyncio.sleep(every_s)
            await asyncio.gather(*(self._look(session, one) for one in self.upstreams))

    async def _look(self, session: aiohttp.ClientSession, one: Upstream) -> None:
        begun = one.answers
        well = await is_well(session, one)
        before = one.state
        well = well or (before == "up" and one.answers > begun)  # it is busy, and serves
        if well:
            one.looks_well()
        elif one.state != "down":
            one.failed()
        if one.state != before:
            self.changed()


async def is_well(session: aiohttp.ClientSession, one: Upstream) -> bool:
    """Whether the server answers ``/health``, or where it has none, the list of its models."""
    for url in (f"{one.root}/health", f"{one.base}/models"):
        with suppress(aiohttp.ClientError, TimeoutError, OSError):
            async with asyncio.timeout(LOOK_S), session.get(url, allow_redirects=False) as answer:
                if answer.status != 404:
                    return answer.status < 500
                continue
        return False
    return False
