"""A generated workload is a law of arrivals, and tenants with laws of lengths; its content is its name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self, TypeAlias, TypeVar

import numpy as np
import pandas as pd
from pydantic import BeforeValidator, Field, JsonValue, model_validator

from driftsim.errors import InputError
from driftsim.records import Record
from driftsim.request import Tier
from driftsim.tiers import TierRule
from driftsim.trace.header import Phase, WorkloadInfo
from driftsim.trace.schema import LONGEST_S
from driftsim.trace.trace import Trace
from driftsim.workloads.kinds import ArrivalKind
from driftsim.workloads.lengths import LONGEST, Length, Lengths, RecordedLengths, capped
from driftsim.workloads.processes import Pace, Process
from driftsim.workloads.table import as_admission_sees, stream, workload_table

MOST_REQUESTS = 10**7  # a table of so many rows takes about 3 GB
MOST_TENANTS = 1000
TOKENS: dict[str, JsonValue] = {"unit": "tokens"}
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

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [name for name in ("prompt_tokens", "output_tokens") if getattr(self, name) is not None]
        if given and self.trace is not None:
            raise InputError(f"{given[0]} and trace are two sources of lengths; give one")
        return self

    def over(self, below: Offer) -> Offer:
        """This one, and where it says nothing, what ``below`` says."""
        own = {name: getattr(self, name) for name in Offer.model_fields if getattr(self, name) is not None}
        other = {name: getattr(below, name) for name in Offer.model_fields}
        if self.trace is not None:
            other |= {"prompt_tokens": None, "output_tokens": None}
        elif "prompt_tokens" in own or "output_tokens" in own:
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
    sends; without any, one tenant of tier standard, or with a trace those who are recorded in it.

    >>> WorkloadSpec(kind="poisson", rate=2.0, requests=500, prompt_tokens=500, output_tokens=200).rate
    2.0
    """

    kind: ArrivalKind | None = Field(default=None, description="The law of the arrivals.")
    requests: Count | None = Field(default=None, description="How many requests arrive.")
    tenants: tuple[Tenant, ...] = Field(default=(), max_length=MOST_TENANTS, description="Who sends them.")

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        self._check_arrivals()
        labels = [tenant.label for tenant in self.tenants]
        twice = [label for label in labels if labels.count(label) > 1]
        if twice:
            raise InputError(f"tenant {twice[0]!r} is there twice; give each another name, or another category")
        for tenant in self.tenants or (self,):
            offer = tenant.over(self)
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
        drawn = [_at_most(tenant, self.requests) for tenant in self.tenants]
        if sum(drawn) > MOST_DRAWN or (self.requests is None and sum(drawn) > MOST_REQUESTS):
            raise InputError(f"that takes {sum(drawn):,} arrivals to draw; give the tenants fewer requests each")
        for tenant, count in zip(self.tenants, drawn, strict=True):
            assert tenant.process is not None
            _check_span(tenant.process, 1 if tenant.requests is None else count)

    @property
    def process(self) -> Process | None:
        """The arrivals that the tenants share; None where each brings its own."""
        pace = {name: getattr(self, name) for name in Pace.model_fields}
        if self.kind is not None:
            return Process(kind=self.kind, **pace)
        given = [name for name, field in Pace.model_fields.items() if pace[name] != field.default]
        if given:
            raise InputError(f"{given[0]} belongs to arrivals of some kind; give kind = ...")
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
        canonical = json.dumps(versioned, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
        return hashlib.sha256(canonical.encode()).hexdigest()


AnyOffer = TypeVar("AnyOffer", bound=Offer)


def _placed(offer: AnyOffer, place: Callable[[str], str]) -> AnyOffer:
    return offer if offer.trace is None else offer.changed(trace=place(offer.trace))


def _at_most(tenant: Tenant, requests: int | None) -> int:
    """The arrivals of ``tenant`` that may come to count."""
    return min(count for count in (tenant.requests, requests) if count is not None)


def _check_span(process: Process, requests: int) -> None:
    if process.rate is not None and requests / process.rate > LONGEST_S / 2:
        raise InputError(f"{requests} requests at {process.rate:g} requests/s last too long (over {LONGEST_S / 2:g} s)")


class Generated(NamedTuple):
    """The parts of a workload."""

    info: WorkloadInfo
    table: pd.DataFrame
    tiers: tuple[TierRule, ...]  # of the recorded runs that requests were drawn from, where these agree
    notes: tuple[str, ...]


def generate(spec: WorkloadSpec, seed: int, find: Callable[[str], Trace]) -> Generated:
    """Draw ``spec``; ``find`` gives the recorded run at a path. The same seed gives the same workload.

    Arrivals, the choice among tenants, and each tenant's prompts and outputs are random streams of their own. Tenants
    with own arrivals are merged by time, and the first ``requests`` of all are taken.
    """
    find = cache(find)
    if seed < 0:
        raise InputError(f"a seed is a whole number from 0, got {seed}")
    process = spec.process
    tenants = spec.tenants or (Tenant(name="default"),)
    if process is not None and spec.requests is not None:
        offsets = process.offsets(spec.requests, stream(seed, "arrivals"))
        owners = _chosen(tenants, spec.requests, seed)
        phase = process.phase(spec.requests)
    else:
        offsets, owners = _merged(tenants, spec.requests, seed)
        phase = Phase(name="mixed", requests=len(offsets))
    counts = np.bincount(owners, minlength=len(tenants)).tolist()
    parts = [_rows(spec, tenant, count, seed, find) for tenant, count in zip(tenants, counts, strict=True)]
    rows = pd.concat([part for part in parts if len(part)], ignore_index=True)
    rows.index = pd.Index(np.argsort(owners, kind="stable"))  # the tenants' rows, one after the other, to their places
    columns = {str(name): column for name, column in rows.sort_index().items()}
    table = workload_table([phase], **columns, offset_s=offsets)
    loop: Literal["open", "closed"] = "closed" if phase.kind == "closed" else "open"
    info = WorkloadInfo(name=phase.name, loop=loop, phases=(phase,))
    return Generated(info, table, *_brought([find(place) for place in spec.traces], set(table["tier"])))


def _brought(traces: Sequence[Trace], present: Collection[str]) -> tuple[tuple[TierRule, ...], tuple[str, ...]]:
    """What recorded runs bring besides requests: the rules of the tiers ``present``, where they agree, and notes."""
    rules = {trace.header.tiers for trace in traces}
    tiers = rules.pop() if len(rules) == 1 else ()
    notes = [note for trace in traces for note in as_admission_sees(trace.requests)[1]]
    return tiers if {rule.name for rule in tiers}.issuperset(present) else (), tuple(dict.fromkeys(notes))


def _chosen(tenants: tuple[Tenant, ...], requests: int, seed: int) -> np.ndarray:
    """Whose request each one is: a tenant drawn by the shares."""
    ends = np.cumsum([tenant.share for tenant in tenants])
    places = stream(seed, "tenants").random(requests) * ends[-1]
    return np.asarray(np.minimum(np.searchsorted(ends, places, side="right"), len(tenants) - 1))


def _merged(tenants: tuple[Tenant, ...], requests: int | None, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The times at which tenants with arrivals of their own send, in order, and who does."""
    times = []
    for tenant in tenants:
        assert tenant.process is not None
        times.append(tenant.process.offsets(_at_most(tenant, requests), stream(seed, f"arrivals of {tenant.label}")))
    offsets = np.concatenate(times)
    order = np.argsort(offsets, kind="stable")[:requests]
    return offsets[order], np.repeat(np.arange(len(tenants)), [len(own) for own in times])[order]


def _rows(spec: WorkloadSpec, tenant: Tenant, count: int, seed: int, find: Callable[[str], Trace]) -> pd.DataFrame:
    """``count`` requests of ``tenant``, all but when they arrive."""
    offer = tenant.over(spec)
    labels: dict[str, Any] = {"tenant": tenant.name, "tier": str(tenant.tier)}
    if offer.trace is not None:
        recorded = RecordedLengths.from_trace(find(offer.trace))
        recorded = recorded if tenant.category is None else recorded.of_category(tenant.category)
        rows = recorded.draw(count, stream(seed, f"requests of {tenant.label}"))
        rows = rows if offer.max_tokens is None else capped(rows, offer.max_tokens)
        return rows.assign(**labels) if spec.tenants else rows
    assert isinstance(offer.prompt_tokens, Lengths)
    assert isinstance(offer.output_tokens, Lengths)
    outputs = offer.output_tokens.draw(count, stream(seed, f"outputs of {tenant.label}"))
    rows = pd.DataFrame(
        {
            **labels,
            "category": pd.Series([tenant.category] * count, dtype=object),
            "prompt_tokens": offer.prompt_tokens.draw(count, stream(seed, f"prompts of {tenant.label}")),
            "prompt_words": pd.array([pd.NA] * count, dtype="Int64"),
            "output_tokens": outputs,
            "output_words": pd.array([pd.NA] * count, dtype="Int64"),
            "stops": True,
            "source": -1,
        }
    )
    for name in ("predicted_category", "predicted_category_unlabelled"):
        rows[name] = rows["category"]
    return capped(rows, offer.max_tokens or offer.output_tokens.longest or int(outputs.max(initial=1)))
