"""Shedding: a newcomer is turned away where too many wait, too many tokens, or where it would wait too long."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, NamedTuple, Self, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from driftsim.errors import InputError
from driftsim.records import Record
from driftsim.request import Job
from driftsim.whose import EVERYBODY, Who, check_distinct, check_name, duration, limits_in, seconds

LARGEST = 10**12
LONGEST_S = 1e9
MEMORY_S = 30.0  # how far back, by exponential weights, the speed of service is looked at
FORM = "[NAME:]requests=N,tokens=N,wait=TIME,defer=TIME, as requests=200 or batch:wait=5s"
COUNTED, TIMED = ("requests", "tokens"), ("wait", "defer")


class Shed(Record):
    """The limits at which newcomers of a tenant, of a tier or all newcomers are turned away, before they queue.

    Those of a tenant or a tier look at its own waiting requests, those of everybody at all. A newcomer is turned away
    if any limit that concerns it would be exceeded with it.

    >>> str(Shed(who="batch", requests=20, wait_s=5.0))
    'batch:requests=20,wait=5s'
    """

    who: Annotated[str, AfterValidator(lambda who: check_name(who, "a limit of the queue"))] = Field(
        default=EVERYBODY, description="Tenant or tier whose requests are limited; `*`: all together."
    )
    requests: int | None = Field(
        default=None, ge=0, le=LARGEST, description="Most that wait.", json_schema_extra={"unit": "requests"}
    )
    tokens: int | None = Field(
        default=None,
        ge=0,
        le=LARGEST,
        description="Largest sum of their budgets.",
        json_schema_extra={"unit": "tokens"},
    )
    wait_s: float | None = Field(
        default=None,
        gt=0,
        le=LONGEST_S,
        description="Longest estimated wait: budgets that wait over budgets served a second lately.",
        json_schema_extra={"unit": "s"},
    )
    defer_s: float | None = Field(
        default=None,
        gt=0,
        le=LONGEST_S,
        description="The same, but the client is told when to come again (`Retry-After`).",
        json_schema_extra={"unit": "s"},
    )

    @model_validator(mode="after")
    def _limits_something(self) -> Self:
        if all(one is None for one in (self.requests, self.tokens, self.wait_s, self.defer_s)):
            raise InputError(f"the queue limit of {self.who!r} limits nothing; write {FORM}")
        return self

    def __str__(self) -> str:
        counts = (f"{name}={getattr(self, name)}" for name in COUNTED if getattr(self, name) is not None)
        times = ((name, getattr(self, f"{name}_s")) for name in TIMED)
        told = ",".join([*counts, *(f"{name}={duration(time)}" for name, time in times if time is not None)])
        return told if self.who == EVERYBODY else f"{self.who}:{told}"


def _written(text: str) -> dict[str, Any]:
    """The limits that ``[NAME:]limit=VALUE,...`` stands for, as a table."""
    who, limits = limits_in(text, "queue limit", FORM, (*COUNTED, *TIMED))
    keys = {name: name if name in COUNTED else f"{name}_s" for name in limits}
    return {"who": who, **{keys[name]: _value(name, value, text) for name, value in limits.items()}}


def _value(name: str, value: str, text: str) -> float | int:
    if name in TIMED:
        try:
            return seconds(value, LONGEST_S)
        except InputError as error:
            raise InputError(f"queue limit {text!r:.80}: {name}={value:.40} {error}; write {name}=5s") from None
    if not (value.isascii() and value.isdigit() and int(value[:20]) <= LARGEST):
        raise InputError(f"queue limit {text!r:.80}: {name}={value:.40} is no whole number; write {name}=200")
    return int(value)


def _as_sheds(value: Any) -> Any:
    if isinstance(value, str | Shed):
        value = [value]
    if isinstance(value, list | tuple):
        return [_written(one) if isinstance(one, str) else one for one in value]
    return value


def _distinct(sheds: tuple[Shed, ...]) -> tuple[Shed, ...]:
    check_distinct(sheds, "queue limits")
    return sheds


Sheds: TypeAlias = Annotated[tuple[Shed, ...], BeforeValidator(_as_sheds), AfterValidator(_distinct)]
AnySheds: TypeAlias = str | Shed | Iterable[str | Shed | dict[str, Any]]


class _Listed(Record):
    sheds: Sheds = ()


def shed_rules(sheds: AnySheds) -> tuple[Shed, ...]:
    """The limits of ``sheds``: one or several, each a ``Shed``, a table or a text. Raises ``InputError``.

    >>> [str(rule) for rule in shed_rules(["requests=200,tokens=50000", "batch:wait=5000ms"])]
    ['requests=200,tokens=50000', 'batch:wait=5s']
    """
    listed: list[Any] = [sheds] if isinstance(sheds, str | Shed) else list(sheds)
    return _Listed.of({"sheds": listed}).sheds


class Refusal(NamedTuple):
    """That a newcomer was turned away: why, and in how many seconds it is told to come again (None: it is not told)."""

    why: str
    retry_after_s: float | None = None


class _Group:
    """The requests that one rule looks at: what of them waits, and how fast they were served lately."""

    __slots__ = ("_served", "_since", "_span", "budget", "inside", "requests", "rule")

    def __init__(self, rule: Shed) -> None:
        self.rule = rule
        self.requests = 0  # that wait
        self.budget = 0  # of those
        self.inside = 0  # requests in the engine
        self._served = 0.0  # budgets that left the engine, weighted by their age
        self._span = 0.0  # seconds in which one was inside, weighted likewise
        self._since = 0.0  # up to when that counts

    def passes(self, now: float) -> None:
        """Let time pass up to ``now``: it counts while somebody of the group is inside the engine."""
        past, self._since = now - self._since, now
        if past > 0 and self.inside:
            kept = math.exp(-past / MEMORY_S)
            self._served *= kept
            self._span = self._span * kept + MEMORY_S * (1 - kept)

    def left(self, budget: int, now: float) -> None:
        """One that was inside left the engine, served or not."""
        self.passes(now)
        self.inside -= 1
        self._served += budget

    def wait(self, now: float) -> float | None:
        """The estimated time until one that comes ``now`` is served (s); None while nobody was served yet."""
        self.passes(now)
        if not (self._served > 0 and self._span > 0):
            return None
        return self.budget * self._span / self._served if self.requests else 0.0

    def refuses(self, job: Job, now: float) -> Refusal | None:
        """Whether ``job``, which comes ``now``, is turned away."""
        rule = self.rule
        if rule.requests is not None and self.requests >= rule.requests:
            return Refusal(f"{self.requests} wait, of at most {rule.requests} requests")
        if rule.tokens is not None and self.budget + job.budget > rule.tokens:
            return Refusal(f"{self.budget} tokens wait, {job.budget} more are above {rule.tokens}")
        if rule.wait_s is None and rule.defer_s is None:
            return None
        wait = self.wait(now)
        if wait is None:
            return None
        if rule.wait_s is not None and wait > rule.wait_s:
            return Refusal(f"the estimated wait is {wait:.3g} s, above {rule.wait_s:g} s")
        if rule.defer_s is not None and wait > rule.defer_s:
            return Refusal(f"the estimated wait is {wait:.3g} s, above {rule.defer_s:g} s", wait - rule.defer_s)
        return None


class Shedding:
    """What waits, group by group, and who is turned away for that; the dispatcher tells of each job's way.

    ``now`` is in seconds and never goes back. O(rules) a call.
    """

    def __init__(self, rules: Sequence[Shed]) -> None:
        self._named = [(Who.of(rule.who), _Group(rule)) for rule in rules]
        self._groups: dict[tuple[str, str], list[_Group]] = {}
        self._budgets: dict[int, int] = {}  # id(job) -> the budget that it came with, which may be estimated anew

    @classmethod
    def over(cls, rules: Sequence[Shed], waiting: Iterable[Job], inside: Iterable[Job], now: float) -> Self:
        """The ``rules`` over jobs that were let in before; how fast jobs were served lately is learned anew."""
        made = cls(rules)
        for job in waiting:
            made.waits(job)
        for job in inside:
            made.waits(job)
            made.entered(job, now)
        return made

    def _of(self, job: Job) -> list[_Group]:
        pair = job.request.tenant, str(job.request.tier)
        if pair not in self._groups:
            self._groups[pair] = [group for who, group in self._named if who.has(*pair)]
        return self._groups[pair]

    def refuses(self, job: Job, now: float) -> Refusal | None:
        """Whether ``job``, which comes ``now``, is turned away, by the first limit that it exceeds; else it waits."""
        for group in self._of(job):
            refusal = group.refuses(job, now)
            if refusal is not None:
                return refusal
        self.waits(job)
        return None

    def wait(self, job: Job, now: float) -> float | None:
        """The longest estimated wait (s) of the groups that ``job`` would be of; None while nobody was served yet."""
        waits = [wait for group in self._of(job) if (wait := group.wait(now)) is not None]
        return max(waits, default=None)

    def waits(self, job: Job) -> None:
        """``job`` waits from now on, whatever the limits say."""
        self._budgets[id(job)] = job.budget
        for group in self._of(job):
            group.requests += 1
            group.budget += job.budget

    def withdrawn(self, job: Job) -> None:
        """``job`` was given up while it waited."""
        budget = self._budgets.pop(id(job))
        for group in self._of(job):
            group.requests -= 1
            group.budget -= budget

    def entered(self, job: Job, now: float) -> None:
        """``job`` waits no more: it goes into the engine."""
        for group in self._of(job):
            group.passes(now)
            group.requests -= 1
            group.budget -= self._budgets[id(job)]
            group.inside += 1

    def left(self, job: Job, now: float) -> None:
        """``job`` left the engine."""
        budget = self._budgets.pop(id(job))
        for group in self._of(job):
            group.left(budget, now)
