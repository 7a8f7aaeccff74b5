"""A drawn workload is what a ``WorkloadSpec`` describes and a seed decides, one random stream for each thing drawn."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import cache
from itertools import groupby
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from driftsim.errors import InputError
from driftsim.tiers import TierRule
from driftsim.trace.header import Phase, Prefixes, WorkloadInfo
from driftsim.trace.trace import Trace
from driftsim.workloads.generated import Sender, Tenant, WorkloadSpec, at_most
from driftsim.workloads.lengths import Lengths, RecordedLengths, capped
from driftsim.workloads.table import as_admission_sees, stream, workload_table
from driftsim.workloads.turns import expanded

PREFIXES = Prefixes(block_size=1, source="generated", began_cold=True)


class Generated(NamedTuple):
    """The parts of a workload."""

    info: WorkloadInfo
    table: pd.DataFrame
    tiers: tuple[TierRule, ...]  # of the recorded runs that requests were drawn from, where these agree
    notes: tuple[str, ...]
    prefixes: Prefixes | None = None


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
    senders = [Sender(tenant, tenant.over(spec), count) for tenant, count in zip(tenants, counts, strict=True)]
    parts = list[pd.DataFrame]()
    for place, group in groupby(senders, key=lambda sender: sender.offer.trace):
        if place is None:
            parts.append(_by_law(list(group), seed))
        else:
            parts += [_recorded(sender, find(place), seed, labelled=bool(spec.tenants)) for sender in group]
    rows = pd.concat([part for part in parts if len(part)], ignore_index=True)
    rows.index = pd.Index(np.argsort(owners, kind="stable"))  # the tenants' rows, one after the other, to their places
    rows = rows.sort_index()
    turns = expanded(rows, owners, senders, seed)
    if turns is not None:
        rows = rows.iloc[turns.whose].reset_index(drop=True).assign(**turns.columns)
        offsets = offsets[turns.whose]
        kind = "sessions" if "session" in rows else phase.kind
        phase = phase.changed(requests=len(rows), kind=kind)
    columns = {str(name): column for name, column in rows.items()}
    table = workload_table([phase], **columns, offset_s=offsets)
    loop: Literal["open", "closed"] = "closed" if phase.kind in ("closed", "sessions") else "open"
    info = WorkloadInfo(name=phase.name, loop=loop, phases=(phase,))
    brought = _brought([find(place) for place in spec.traces], set(table["tier"]))
    return Generated(info, table, *brought, None if turns is None else PREFIXES)


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
        times.append(tenant.process.offsets(at_most(tenant, requests), stream(seed, f"arrivals of {tenant.label}")))
    offsets = np.concatenate(times)
    order = np.argsort(offsets, kind="stable")[:requests]
    return offsets[order], np.repeat(np.arange(len(tenants)), [len(own) for own in times])[order]


def _recorded(sender: Sender, trace: Trace, seed: int, *, labelled: bool) -> pd.DataFrame:
    """The requests of one who draws from ``trace``, all but when they arrive; ``labelled``: as its own."""
    tenant, offer, count = sender
    recorded = RecordedLengths.from_trace(trace)
    recorded = recorded if tenant.category is None else recorded.of_category(tenant.category)
    rows = recorded.draw(count, stream(seed, f"requests of {tenant.label}"))
    rows = rows if offer.max_tokens is None else capped(rows, offer.max_tokens)
    return rows.assign(tenant=tenant.name, tier=str(tenant.tier)) if labelled else rows


def _by_law(senders: Sequence[Sender], seed: int) -> pd.DataFrame:
    """The requests of those whose lengths are drawn, one after the other, in one table: there may be thousands."""
    prompts, outputs, caps = list[np.ndarray](), list[np.ndarray](), list[int]()
    for tenant, offer, count in senders:
        assert isinstance(offer.prompt_tokens, Lengths)
        assert isinstance(offer.output_tokens, Lengths)
        outputs.append(offer.output_tokens.draw(count, stream(seed, f"outputs of {tenant.label}")))
        prompts.append(offer.prompt_tokens.draw(count, stream(seed, f"prompts of {tenant.label}")))
        caps.append(offer.max_tokens or offer.output_tokens.longest or int(outputs[-1].max(initial=1)))
    counts = [sender.requests for sender in senders]

    def each(values: Sequence[Any]) -> np.ndarray:
        return np.repeat(np.array(values, dtype=object), counts)

    total = sum(counts)
    rows = pd.DataFrame(
        {
            "tenant": each([tenant.name for tenant, _, _ in senders]),
            "tier": each([str(tenant.tier) for tenant, _, _ in senders]),
            "category": pd.Series(each([tenant.category for tenant, _, _ in senders]), dtype=object),
            "prompt_tokens": np.concatenate(prompts),
            "prompt_words": pd.array([pd.NA] * total, dtype="Int64"),
            "output_tokens": np.concatenate(outputs),
            "output_words": pd.array([pd.NA] * total, dtype="Int64"),
            "stops": True,
            "source": -1,
        }
    )
    for name in ("predicted_category", "predicted_category_unlabelled"):
        rows[name] = rows["category"]
    return capped(rows, np.repeat(np.array(caps, dtype=np.int64), counts))
