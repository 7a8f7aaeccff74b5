"""Routers choose which of several replicas of an engine serves a request; all that they see is in ``Replica``."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Protocol

import numpy as np
from pydantic import Field

from driftsim.errors import InputError
from driftsim.request import Job
from driftsim.scheduling.names import spelled
from driftsim.scheduling.parameters import canonical, values_of
from driftsim.scheduling.plugins import declared, declared_names, instance, is_plugin, plugin


@dataclass(slots=True, eq=False)
class Replica:
    """An engine among several, as a router sees it.

    requests: given to it and not gone yet. work_s: the estimated seconds of service of these, whole, as they came.

    >>> Replica(0, requests=3, work_s=1.5)
    Replica(number=0, requests=3, work_s=1.5, up=True)
    """

    number: int
    requests: int = 0
    work_s: float = 0.0
    up: bool = True


class Router(Protocol):
    """What chooses. One with a method ``seeded(seed)`` is told the run's seed before the first job.

    >>> class First:
    ...     def choose(self, job, replicas, now):
    ...         return replicas[0]
    >>> First().choose(None, [Replica(0), Replica(1)], 0.0).number
    0
    """

    def choose(self, job: Job, replicas: Sequence[Replica], now: float) -> Replica:
        """One of ``replicas``, which are those that are up, in order, at least one; ``now`` in seconds."""
        ...


class RoundRobin:
    """In turn, whatever they have to do: the default of most load balancers."""

    def __init__(self) -> None:
        self._last = -1

    def choose(self, job: Job, replicas: Sequence[Replica], now: float) -> Replica:
        """The next one."""
        chosen = next((replica for replica in replicas if replica.number > self._last), replicas[0])
        self._last = chosen.number
        return chosen


class Chance:
    """At random, whatever they have to do."""

    def __init__(self) -> None:
        self.seeded(0)

    def seeded(self, seed: int) -> None:
        """Draw by ``seed``."""
        self._random = np.random.default_rng([seed, zlib.crc32(b"router")])

    def choose(self, job: Job, replicas: Sequence[Replica], now: float) -> Replica:
        """Any of them."""
        return replicas[int(self._random.integers(len(replicas)))]


class LeastRequests:
    """The one with the fewest requests, the first of these: join the shortest queue (Winston 1977)."""

    def choose(self, job: Job, replicas: Sequence[Replica], now: float) -> Replica:
        """The one that has the fewest."""
        return min(replicas, key=lambda replica: replica.requests)


class LeastWork:
    """The one with the least estimated work: seconds of service by the profile and the estimates of its requests.

    As good as the estimates; with one request at a time and true lengths, it is join the least work.
    """

    def choose(self, job: Job, replicas: Sequence[Replica], now: float) -> Replica:
        """The one that has the least."""
        return min(replicas, key=lambda replica: replica.work_s)


class TwoChoices(Chance):
    """The one with fewer requests of two that are drawn at random (Mitzenmacher 2001, The power of two choices)."""

    def choose(self, job: Job, replicas: Sequence[Replica], now: float) -> Replica:
        """The better one of two."""
        if len(replicas) == 1:
            return replicas[0]
        first, second = self._random.choice(len(replicas), size=2, replace=False)
        return min(replicas[int(first)], replicas[int(second)], key=lambda replica: replica.requests)


Slack = Annotated[int, Field(ge=0, le=10**6, description="Requests more than the fewest that affinity is worth.")]


class _Sticky:
    """Requests with one mark go where the last of them went, unless that one has ``slack`` more than the fewest."""

    def __init__(self, *, slack: Slack = 8) -> None:
        self.slack = slack
        self._places: dict[object, int] = {}

    def mark(self, job: Job) -> object:
        """What belongs together; None: the job belongs to nothing."""
        raise NotImplementedError

    def choose(self, job: Job, replicas: Sequence[Replica], now: float) -> Replica:
        """The one that had the last of them, else the one with the fewest requests."""
        mark = self.mark(job)
        known = self._places.get(mark)
        chosen = next((replica for replica in replicas if replica.number == known), None) if mark is not None else None
        fewest = min(replicas, key=lambda replica: replica.requests)
        if chosen is None or chosen.requests > fewest.requests + self.slack:
            chosen = fewest
        if mark is not None:
            self._places[mark] = chosen.number
        return chosen


class BySession(_Sticky):
    """The turns of a session stay together, so that a cache finds what came before; others join the shortest queue.

    A session that stays is a load that stays; ``slack`` bounds how uneven that may become.
    """

    def mark(self, job: Job) -> object:
        """The session."""
        return getattr(job.request, "session", None) or None


class ByPrefix(_Sticky):
    """Requests that begin alike stay together, so that a cache finds it; others join the shortest queue.

    What everybody begins with would send everybody to one place; ``slack`` keeps that from happening.
    """

    def mark(self, job: Job) -> object:
        """The request that was the first to begin so."""
        stretches = job.request.stretches
        return stretches[0][0] if stretches else None


ROUTERS: dict[str, type[Router]] = {
    "round-robin": RoundRobin,
    "random": Chance,
    "least-requests": LeastRequests,
    "least-work": LeastWork,
    "two-choices": TwoChoices,
    "session": BySession,
    "prefix": ByPrefix,
}


def router_class(name: str) -> type[Router]:
    """The class that ``name`` stands for, parameters aside. Raises ``InputError`` if there is none."""
    name = spelled(name).base
    if is_plugin(name):
        kind: type[Router] = plugin(name)
    elif name in ROUTERS:
        return ROUTERS[name]
    elif name in declared_names("router"):
        kind = declared("router")[name]
    else:
        known = ", ".join([*ROUTERS, *declared_names("router")])
        raise InputError(f"unknown router {name!r}; choose one of {known}, or give module:Class")
    if not hasattr(kind, "choose"):
        raise InputError(f"{name}: is no router, it has no choose(); see driftsim.Router")
    return kind


def router_name(name: str) -> str:
    """The canonical spelling of the router ``name``. Raises ``InputError`` for parameters that it does not take.

    >>> router_name("prefix?slack=8"), router_name("session?slack=2")
    ('prefix', 'session?slack=2')
    """
    router_class(name)
    return canonical(name, router_class)


def make_router(name: str, seed: int = 0) -> Router:
    """A fresh router. Raises ``InputError`` for an unknown name or parameter."""
    kind = router_class(name)
    made: Router = instance(name, kind, **values_of(name, kind))
    if hasattr(made, "seeded"):
        made.seeded(seed)
    return made
