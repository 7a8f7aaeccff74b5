"""A generated workload is a law of arrivals, and tenants with laws of lengths; its content is its name."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Self, TypeAlias, TypeVar

from pydantic import BeforeValidator, Field, JsonValue, model_validator

from driftsim.errors import InputError
from driftsim.records import Record
from driftsim.request import Tier
from driftsim.trace.schema import LONGEST_S
from driftsim.trace.trace import Trace
from driftsim.workloads.conversations import Session, SystemPrompts
from driftsim.workloads.kinds import ArrivalKind
from driftsim.workloads.lengths import LONGEST, Length
from driftsim.workloads.processes import Pace, Process

CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
MOST_REQUESTS = 10**7  # a table of so many rows takes about 3 GB
MOST_TENANTS = 100_000
TOKENS: dict[str, JsonValue] = {"unit": "tokens"}
PACE = {name: field.default for name, field in Pace.model_fields.items()}
BY_LAW = ("prompt_tokens", "output_tokens", "session", "system")  # what requests of a trace cannot have
MOST_DRAWN = 10**8  # arrivals of tenants who bring their own, before they are merged


def _as_path(value: Any) -> Any:
    """Where a run is stored, of a run or its path."""
    if not isinstance(value, Trace):
        return str(value) if isinstance(value, Path) else value
    if value.source is None:
        raise InputError(f"the run {value.name!r} is in memory only; write it to a folder first: trace.write(FOLDER)")
    return str(value.source)


TracePath: TypeAlias = Annotated[str, BeforeValidator(_as_path)]
Count: TypeAlias = Annotated[int, Field(gt=0, le=MOST_REQUESTS)]
Cap: TypeAlias = Annotated[int, Field(gt=0, le=LONGEST)]


class Offer(Record):
    """What requests are made of: lengths by law, or the requests of a recorded run, which ``trace`` names."""

    prompt_tokens: Length | None = Field(
        default=None, description="Length of a prompt: a number or a law.", json_schema_extra=TOKENS
    )
    output_tokens: Length | None = Field(
        default=None, description="Length of an output: a number or a law.", json_schema_extra=TOKENS
    )
    trace: TracePath | None = Field(
        default=None, description="A recorded run, instead, whose requests are drawn with replacement."
    )
    max_tokens: Cap | None = Field(
        default=None,
        description="Limit of an output; without one, as recorded, or the longest output of the law or of its draw.",
        json_schema_extra=TOKENS,
    )
    session: Session | None = Field(
        default=None, description="What follows each request: the turns of a chat, or of an agent's loop."
    )
    system: SystemPrompts | None = Field(
        default=None, description="System prompts that stand before the prompts of a tenant, and are shared."
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [name for name in BY_LAW if getattr(self, name) is not None]
        if given and self.trace is not None:
            raise InputError(f"{given[0]} and trace are two sources of lengths; give one of them")
        return self

    def over(self, below: Offer) -> Offer:
        """This one, and where it says nothing, what ``below`` says."""
        own = {name: getattr(self, name) for name in Offer.model_fields if getattr(self, name) is not None}
        other = {name: getattr(below, name) for name in Offer.model_fields}
        if self.trace is not None:
            other |= dict.fromkeys(BY_LAW)
        elif not own.keys().isdisjoint(BY_LAW):
            other["trace"] = None
        return Offer(**other | own)


class Tenant(Offer):
    """One who sends requests; two entries of one name are one tenant with two categories.

    ``share``: of the workload's arrivals, in proportion to the other tenants' shares. Instead, a tenant may bring
    arrivals of its own: ``rate``, Poisson at so many requests a second, or ``arrivals``, any process but a closed
    one; then all tenants must, and ``requests`` is the most that this one sends. ``category``: of all its requests;
    with a ``trace``, only the recorded ones of that category are drawn. Lengths and limit: else the workload's.

    >>> Tenant(name="chat", tier="premium", share=3, output_tokens=200).tier.rank
    1
    """

    name: str = Field(min_length=1, description="The tenant's name.")
    tier: Tier = Field(default=Tier.STANDARD, description="The tier of all its requests.")
    category: str | None = Field(default=None, description="The category of all its requests.")
    share: float = Field(default=1.0, gt=0, le=1e9, description="Share of the workload's arrivals, in proportion.")
    rate: float | None = Field(
        default=None,
        description="Poisson arrivals of its own, requests a second.",
        json_schema_extra={"unit": "requests/s"},
    )
    arrivals: Process | None = Field(default=None, description="Arrivals of its own, of any kind but closed.")
    requests: Count | None = Field(default=None, description="With arrivals of its own: the most that it sends.")

    @model_validator(mode="after")
    def _arrives_one_way(self) -> Self:
        own = self.process
        if self.rate is not None and self.arrivals is not None:
            raise InputError(f"tenant {self.name!r} has a rate and arrivals; set the rate inside of arrivals")
        if own is None and self.requests is not None:
            raise InputError(f"tenant {self.name!r} has requests but neither rate nor arrivals; give it a share")
        if own is not None and self.share != 1.0:
            raise InputError(f"tenant {self.name!r} has a share and arrivals of its own; give one")
        if own is not None and own.kind == "closed":
            raise InputError(f"tenant {self.name!r}: closed arrivals hang on the answers; they cannot be merged")
        if own is not None and own.kind == "backlog" and self.requests is None:
            raise InputError(f"tenant {self.name!r} has a backlog without end; give it requests = ...")
        return self

    @property
    def process(self) -> Process | None:
        """The tenant's own arrivals, if it brings some."""
        return self.arrivals if self.rate is None else Process(kind="poisson", rate=self.rate)

    @property
    def label(self) -> str:
        """What tells the tenant's random streams from others'."""
        return self.name if self.category is None else f"{self.name}/{self.category}"


class WorkloadSpec(Pace, Offer):
    """A workload that nobody recorded, written down: the table ``workload`` of a scenario.

    kind, rate, cv, burst_factor, burst_s, calm_s, amplitude, period_s, users, think_s: its arrivals, see ``Process``;
    none where every tenant brings its own. requests: how many. prompt_tokens, output_tokens: laws of lengths, or whole
    numbers. trace: a recorded run to draw requests from instead. max_tokens: another limit for all. tenants: who
    sends; without any, one tenant of tier standard, or with a trace those who are recorded in it. session: what follows
    each of the requests, see ``Session``. system: what stands before their prompts, see ``SystemPrompts``.

    >>> WorkloadSpec(kind="poisson", rate=2.0, requests=500, prompt_tokens=500, output_tokens=200).rate
    2.0
    """

    kind: ArrivalKind | None = Field(default=None, description="The law of the arrivals.")
    requests: Count | None = Field(
        default=None, description="How many requests arrive; of sessions, their first turns."
    )
    tenants: tuple[Tenant, ...] = Field(default=(), max_length=MOST_TENANTS, description="Who sends them.")

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        self._check_arrivals()
        counts = Counter(tenant.label for tenant in self.tenants)
        twice = [label for label, count in counts.items() if count > 1]
        if twice:
            raise InputError(f"tenant {twice[0]!r} is there twice; give each another name, or another category")
        for tenant in self.tenants or (self,):
            offer = tenant.over(self) if self.tenants else self
            lacks = [name for name in ("prompt_tokens", "output_tokens") if getattr(offer, name) is None]
            if offer.trace is None and lacks:
                who = f"tenant {tenant.name!r}" if isinstance(tenant, Tenant) else "the workload"
                raise InputError(f"{who} has no {lacks[0]}; give a number or a law of lengths, or a trace to draw from")
        return self

    def _check_arrivals(self) -> None:
        own = [tenant for tenant in self.tenants if tenant.process is not None]
        if (process := self.process) is not None:
            if own:
                raise InputError(f"tenant {own[0].name!r} and the workload both have arrivals; leave out one of them")
            if self.requests is None:
                raise InputError(f"a workload of {self.kind} arrivals never ends; give it requests = ...")
            _check_span(process, self.requests)
            self._check_waiting(process)
            if process.users is not None and process.users > self.requests:
                raise InputError(f"{process.users} users but {self.requests} requests; lower users or raise requests")
            return
        if len(own) < max(1, len(self.tenants)):
            raise InputError("the workload has no arrivals; give it a kind, or each of its tenants a rate")
        counts = [tenant.requests for tenant in self.tenants]
        endless = [tenant.name for tenant in self.tenants if tenant.requests is None]
        if self.requests is None and endless:
            raise InputError(f"tenant {endless[0]!r} never ends; give it, or the workload, requests = ...")
        if not endless and self.requests is not None and sum(filter(None, counts)) < self.requests:
            raise InputError(f"the tenants send {sum(filter(None, counts))} requests, {self.requests} are asked for")
        drawn = [at_most(tenant, self.requests) for tenant in self.tenants]
        if sum(drawn) > MOST_DRAWN or (self.requests is None and sum(drawn) > MOST_REQUESTS):
            raise InputError(f"that takes {sum(drawn):,} arrivals to draw; give the tenants fewer requests each")
        for tenant, count in zip(self.tenants, drawn, strict=True):
            assert tenant.process is not None
            _check_span(tenant.process, 1 if tenant.requests is None else count)

    def _check_waiting(self, process: Process) -> None:
        """Raise ``InputError`` for sessions whose first turns would wait for answers, as the later ones do."""
        waiting = process.kind == "closed" or process.max_outstanding is not None
        if waiting and any(tenant.over(self).session is not None for tenant in self.tenants or (self,)):
            how = "closed arrivals" if process.kind == "closed" else "arrivals with max_outstanding"
            raise InputError(f"sessions cannot begin by {how}; give arrivals at a rate, or a backlog")

    @property
    def process(self) -> Process | None:
        """The arrivals that the tenants share; None where each brings its own."""
        given = {name: value for name, default in PACE.items() if (value := getattr(self, name)) != default}
        if self.kind is not None:
            return Process(kind=self.kind, **given)
        if given:
            raise InputError(f"{next(iter(given))} belongs to arrivals of some kind; give kind = ...")
        return None

    @property
    def unused(self) -> set[str]:
        """The parameters of arrivals that have a value but no meaning for this kind."""
        return {name for name, kind in {"cv": "gamma", "think_s": "closed"}.items() if self.kind != kind}

    @property
    def traces(self) -> list[str]:
        """Where the recorded runs are that requests are drawn from."""
        return sorted({offer.trace for offer in (self, *self.tenants) if offer.trace is not None})

    def placed(self, place: Callable[[str], str]) -> Self:
        """The same with every path changed by ``place``."""
        if not self.traces:
            return self
        tenants = tuple(_placed(tenant, place) for tenant in self.tenants)
        return _placed(self, place).changed(tenants=tenants)

    def digest(self, digests: Mapping[str, str]) -> str:
        """SHA-256 of what determines the workload next to a seed; ``digests`` are those of the traces, by path.

        What has its default is left out, so that a parameter that is added later leaves old digests as they are.
        """
        plain = self.placed(lambda path: digests[path]).model_dump(mode="json", exclude_defaults=True)
        versioned = {"workload_version": 1, **plain}
        return hashlib.sha256(CANONICAL.encode(versioned).encode()).hexdigest()


class Sender(NamedTuple):
    """A tenant, what its requests are made of, and how many there are."""

    tenant: Tenant
    offer: Offer
    requests: int


AnyOffer = TypeVar("AnyOffer", bound=Offer)


def _placed(offer: AnyOffer, place: Callable[[str], str]) -> AnyOffer:
    return offer if offer.trace is None else offer.changed(trace=place(offer.trace))


def at_most(tenant: Tenant, requests: int | None) -> int:
    """The arrivals of ``tenant`` that may come to count."""
    return min(count for count in (tenant.requests, requests) if count is not None)


def _check_span(process: Process, requests: int) -> None:
    if process.rate is not None and requests / process.rate > LONGEST_S / 2:
        raise InputError(f"{requests} requests at {process.rate:g} requests/s last too long (over {LONGEST_S / 2:g} s)")
