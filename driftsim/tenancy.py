"""Fairness compares what tenants got: how much the others slowed each down, and how much service each got in a queue.

Service counts 1 a prompt token and 2 an output token (Sheng et al. 2024, 2401.00588). A prompt's counts as the engine
begins with it, the first output token's as it appears, those of the others evenly from then to the last. A tenant is
backlogged while a request of it waits that was not begun; one that never fits the engine waits for nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Self, TypeAlias

import numpy as np
import pandas as pd

from driftsim.metrics import Columns, e2e, is_finished, service_start
from driftsim.tenants import OTHERS, largest, parts
from driftsim.trace.trace import Trace

PROMPT_WEIGHT, OUTPUT_WEIGHT = 1.0, 2.0  # a token
Alone: TypeAlias = Mapping[tuple[int, int], float]  # (prompt, output tokens) -> E2E alone on the engine, s


def slowdowns(rows: Columns, alone: Alone) -> np.ndarray:
    """E2E of each request over what it would take ``alone``, (requests,); NaN where it did not finish.

    The slowdown of queueing theory (Harchol-Balter 2013), or stretch (Bender, Chakrabarti and Muthukrishnan 1998): 1 is
    alone.
    """
    done = is_finished(rows)
    sizes = zip(rows["prompt_tokens"].tolist(), rows["output_tokens"].tolist(), strict=True)
    own = [alone.get(size, np.nan) if finished else np.nan for size, finished in zip(sizes, done, strict=True)]
    found: np.ndarray = np.asarray(e2e(rows), dtype=float) / np.array(own, dtype=float)
    return found


def jain(values: Sequence[float] | np.ndarray) -> float:
    """Jain's fairness index of positive ``values`` (Jain, Chiu and Hawe 1984): 1 is equal, 1 / n is one having all.

    An infinite value is the limit of a growing one: of n values of which k are infinite, k / n. NaN of none.

    >>> jain([2.0, 2.0]), jain([1.0, 3.0]), jain([1.0, np.inf, 5.0, 1.0])
    (1.0, 0.8, 0.25)
    """
    known = np.asarray(values, dtype=float)
    if not len(known) or np.isinf(known).all():
        return np.nan
    if np.isinf(known).any():
        return float(np.isinf(known).mean())
    return float(known.sum() ** 2 / (len(known) * (known**2).sum()))


@dataclass(frozen=True, eq=False)
class Service:
    """Service of some requests over time, in weighted tokens, and when one of them waits.

    moments: all times at which anything changes, ascending (s), (moments,). jumps: service given at each. rates: a
    second, from each to the next, (moments - 1,). waiting: whether a request waits from each to the next.
    """

    moments: np.ndarray
    jumps: np.ndarray
    rates: np.ndarray
    waiting: np.ndarray

    @classmethod
    def of(cls, rows: Columns, moments: np.ndarray) -> Self:
        """That of the requests ``rows``, all of whose times are among ``moments``."""
        arrival, finish = rows["arrival_s"], rows["finish_s"]
        start, first = service_start(rows), rows["first_token_s"]
        tokens = np.nan_to_num(rows["output_tokens"])
        shown = ~np.isnan(first) & (tokens > 0)
        flow_from = np.where(shown, first, start)  # an engine that shows no first token gives all in the course of it
        flow = OUTPUT_WEIGHT * np.where(shown, tokens - 1, tokens)
        lasts = finish > flow_from
        jumps = _sums(moments, start, PROMPT_WEIGHT * rows["prompt_tokens"])
        jumps += _sums(moments, np.where(shown, first, np.nan), np.full(len(first), OUTPUT_WEIGHT))
        jumps += _sums(moments, np.where(finish == flow_from, finish, np.nan), flow)
        span = np.where(lasts, finish - flow_from, 1.0)
        begin, end = np.where(lasts, flow_from, np.nan), np.where(lasts, finish, np.nan)
        change = _sums(moments, begin, flow / span) - _sums(moments, end, flow / span)
        until = np.where(np.isnan(start), finish, start)
        waits = (until > arrival) & (rows["finish_reason"] != "rejected")
        ones = np.ones(len(arrival))
        depth = _sums(moments, np.where(waits, arrival, np.nan), ones) - _sums(
            moments, np.where(waits, until, np.nan), ones
        )
        return cls(moments, jumps, np.cumsum(change)[:-1], np.cumsum(np.rint(depth))[:-1] > 0)

    @property
    def flows(self) -> np.ndarray:
        """Service given between each moment and the next, jumps aside."""
        return self.rates * np.diff(self.moments)

    def while_waiting(self, waiting: np.ndarray) -> float:
        """Service given strictly inside the times in which ``waiting`` holds."""
        inside = np.concatenate([[False], waiting[1:] & waiting[:-1], [False]])
        return float(self.jumps[inside].sum() + self.flows[waiting].sum())


def _sums(moments: np.ndarray, times: np.ndarray, amounts: np.ndarray) -> np.ndarray:
    """The sum of the ``amounts`` at each of ``moments``, among which all ``times`` are that are known."""
    known = ~np.isnan(times) & ~np.isnan(amounts)
    places = np.searchsorted(moments, times[known])
    found: np.ndarray = np.bincount(places, weights=amounts[known], minlength=len(moments)).astype(float)
    return found


def largest_gap(one: Service, other: Service) -> float:
    """The largest difference of service between the two, strictly inside any time in which both wait; NaN without one.

    ``max |W_f(t1, t2) - W_g(t1, t2)|`` over all t1 < t2 between which both are backlogged, as the bound of VTC (Sheng
    et al. 2024) has it.
    """
    both = one.waiting & other.waiting
    if not both.any():
        return np.nan
    jumps, flows = one.jumps - other.jumps, one.flows - other.flows
    after = np.cumsum(jumps)[:-1] + np.concatenate([[0.0], np.cumsum(flows)[:-1]])
    before = after + flows  # the next moment's jump
    starts = np.flatnonzero(both & ~np.concatenate([[False], both[:-1]]))
    high = np.where(both, np.maximum(after, before), -np.inf)
    low = np.where(both, np.minimum(after, before), np.inf)
    return float((np.maximum.reduceat(high, starts) - np.minimum.reduceat(low, starts)).max())


def fairness_summary(
    trace: Trace, alone: Alone, phase: str = "all", named: Sequence[str] | None = None
) -> dict[str, Any]:
    """The metrics of ``glossary.FAIRNESS`` of ``trace``, or of its requests in one ``phase``, and ``per_tenant``.

    named: the tenants that are told apart (default: the largest); the gap is between two of these.
    """
    rows = Columns.of(trace.requests)
    if phase != "all":
        rows = rows[rows["phase"] == phase]
    values = slowdowns(rows, alone)
    names = largest(trace.requests["tenant"]) if named is None else named
    own = parts(rows["tenant"], names)
    times = np.concatenate([rows["arrival_s"], service_start(rows), rows["first_token_s"], rows["finish_s"]])
    moments = np.unique(times[~np.isnan(times)])
    services = {name: Service.of(rows[mask], moments) for name, mask in own.items() if mask.any()}
    everybody = Service.of(rows, moments)
    per_tenant = {}
    for name, mask in own.items():
        service = services.get(name)
        per_tenant[name] = _statistics(values[mask]) | _backlogged(service, everybody)
    pairs = combinations([service for name, service in services.items() if name != OTHERS], 2)
    gaps = [gap for gap in (largest_gap(*pair) for pair in pairs) if not np.isnan(gap)]
    overall = {"jain_slowdown": jain(_means(values, rows["tenant"])), "service_gap": max(gaps, default=np.nan)}
    return _statistics(values) | overall | {"per_tenant": per_tenant}


def _means(values: np.ndarray, tenants: np.ndarray) -> np.ndarray:
    """The mean of the known ``values`` of each tenant, (tenants,); infinite where none is known."""
    codes, names = pd.factorize(np.asarray(tenants, dtype=object))
    known = ~np.isnan(values)
    sums = np.bincount(codes[known], weights=values[known], minlength=len(names))
    counts = np.bincount(codes[known], minlength=len(names))
    found: np.ndarray = np.where(counts > 0, sums / np.maximum(counts, 1), np.inf)
    return found


def _statistics(values: np.ndarray) -> dict[str, float]:
    known = values[~np.isnan(values)]
    if not len(known):
        return dict.fromkeys(("slowdown_mean", "slowdown_p50", "slowdown_p99"), np.nan)
    median, tail = np.percentile(known, [50, 99])
    return {"slowdown_mean": float(known.mean()), "slowdown_p50": float(median), "slowdown_p99": float(tail)}


def _backlogged(service: Service | None, everybody: Service) -> dict[str, float]:
    """How long the tenant was backlogged (s), and its share of the service in that time; NaN where it never was."""
    if service is None or not service.waiting.any():
        return {"backlogged_s": 0.0, "backlogged_share": np.nan}
    seconds = float(np.diff(service.moments)[service.waiting].sum())
    total = everybody.while_waiting(service.waiting)
    return {
        "backlogged_s": seconds,
        "backlogged_share": service.while_waiting(service.waiting) / total if total > 0 else np.nan,
    }


def with_fairness(
    row: Mapping[str, Any], trace: Trace, alone: Alone, phase: str = "all", named: Sequence[str] | None = None
) -> dict[str, Any]:
    """``row``, a ``summary`` of ``trace``, with its ``fairness_summary``, tenant by tenant as well."""
    found = fairness_summary(trace, alone, phase, named)
    told = row.get("per_tenant", {})
    per_tenant = {name: {**told.get(name, {}), **own} for name, own in found["per_tenant"].items()}
    return {**row, **found, "per_tenant": per_tenant}


def fairness_lines(row: Mapping[str, Any]) -> list[str]:
    """What ``row``, a summary with fairness, says: a line for all and one for each tenant."""
    gap = "no two tenants waited at once"
    if not np.isnan(row["service_gap"]):
        gap = f"largest service gap between two that waited {row['service_gap']:,.0f} weighted tokens"
    lines = [f"Slowdown: {_slowdown(row)}; Jain's index of the tenants' {row['jain_slowdown']:.3f}; {gap}"]
    for name, own in row["per_tenant"].items():
        share = "never backlogged"
        if not np.isnan(own["backlogged_share"]):
            share = (
                f"{100 * own['backlogged_share']:.1f} % of the service in its {own['backlogged_s']:.1f} s of backlog"
            )
        lines.append(f"  {name}: slowdown {_slowdown(own)}; {share}")
    return lines


def _slowdown(own: Mapping[str, Any]) -> str:
    return ", ".join(f"{stat} {own[f'slowdown_{stat}']:.2f}" for stat in ("mean", "p50", "p99"))
