"""Fairness compares what tenants got: how much the others slowed each down, and how much service each got in a queue.

Service counts 1 a prompt token and 2 an output token (Sheng et al. 2024, 2401.00588). A prompt's counts as the engine
begins with it, the first output token's as it appears, those of the others evenly from then to the last. A tenant is
backlogged while a request of it waits that was not begun; one that never fits the engine waits for nothing. What still
waits or runs when the run ends does so to its end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Self, TypeAlias

import numpy as np
import pandas as pd

from driftsim.metrics import e2e, is_finished, service_start
from driftsim.rows import Columns
from driftsim.tenants import OTHERS, largest, parts
from driftsim.trace.trace import Trace

PROMPT_WEIGHT, OUTPUT_WEIGHT = 1.0, 2.0  # a token
Size: TypeAlias = tuple[int, int, int]  # prompt tokens, output tokens, prompt tokens that the cache had
Alone: TypeAlias = Mapping[Size, float]  # E2E alone on the engine, s


def sizes(table: pd.DataFrame) -> list[Size | None]:
    """The size of each request in ``table``; None where it has no output, or that is not known.

    The cached tokens are part of it: who finds its prompt in the cache finds it there alone, too.
    """
    columns = [table["prompt_tokens"], table["output_tokens"], table.get("cached_tokens", pd.Series(0, table.index))]
    known = (column.fillna(0).astype(int).tolist() for column in columns)
    return [size if size[1] > 0 else None for size in zip(*known, strict=True)]


def slowdowns(table: pd.DataFrame, alone: Alone) -> np.ndarray:
    """E2E of each request in ``table`` over what it would take ``alone``, (requests,); NaN where it did not finish.

    The slowdown of queueing theory (Harchol-Balter 2013), or stretch (Bender, Chakrabarti and Muthukrishnan 1998): 1 is
    alone.
    """
    done = is_finished(table).tolist()
    own = [
        np.nan if size is None or not finished else alone.get(size, np.nan)
        for size, finished in zip(sizes(table), done, strict=True)
    ]
    found: np.ndarray = np.asarray(e2e(table), dtype=float) / np.array(own, dtype=float)
    return found


def jain(values: Sequence[float] | np.ndarray) -> float:
    """Jain's fairness index of ``values`` of 0 or more (Jain, Chiu and Hawe 1984): 1 is equal, 1 / n is one having all.

    NaN where nobody has any.

    >>> jain([2.0, 2.0]), jain([1.0, 3.0]), jain([1.0, 0.0, 0.0, 0.0])
    (1.0, 0.8, 0.25)
    """
    known = np.asarray(values, dtype=float)
    return float(known.sum() ** 2 / (len(known) * (known**2).sum())) if known.any() else np.nan


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
    def of(cls, rows: Columns, moments: np.ndarray, within: tuple[float, float] = (-np.inf, np.inf)) -> Self:
        """That of the requests ``rows``, all of whose times are among ``moments``; the last of these ends the run.

        within: the time in which a request that waits counts, from one moment to another (s).
        """
        rejected = rows["finish_reason"] == "rejected"
        arrival, start, first = rows["arrival_s"], service_start(rows), rows["first_token_s"]
        finish = np.where(np.isnan(rows["finish_s"]) & ~rejected, moments[-1], rows["finish_s"])
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
        waits = (until > arrival) & ~rejected
        ones = np.ones(len(arrival))
        depth = _sums(moments, np.where(waits, arrival, np.nan), ones) - _sums(
            moments, np.where(waits, until, np.nan), ones
        )
        counts = (moments[:-1] >= within[0]) & (moments[1:] <= within[1])
        return cls(moments, jumps, np.cumsum(change)[:-1], counts & (np.cumsum(np.rint(depth))[:-1] > 0))

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

    Slowdowns are those of the phase's requests. Backlogs and service are those of all requests, from the first arrival
    of the phase to its last finish: who is served then is served before those who wait. named: the tenants that are
    told apart (default: the largest); the gap is between two of these. Raises ``InputError`` for an unknown phase.
    """
    rows, mine = Columns.of(trace.requests), trace.in_phase(phase)
    values = slowdowns(trace.requests, alone)
    names = largest(trace.requests["tenant"]) if named is None else named
    times = [rows["arrival_s"], service_start(rows), rows["first_token_s"], rows["finish_s"]]
    moments, window = _known(times), (-np.inf, np.inf)
    if mine.any() and not mine.all():
        window = _window(times, mine, rows["finish_reason"])
    everybody, whose = Service.of(rows, moments, window), parts(rows["tenant"], names)
    services = {name: Service.of(rows[own], moments, window) for name, own in whose.items()}
    per_tenant = {
        name: _statistics(values[mine & whose[name]]) | _backlogged(services[name], everybody)
        for name in parts(rows["tenant"][mine], names)
    }
    pairs = combinations([service for name, service in services.items() if name != OTHERS], 2)
    gaps = [gap for gap in (largest_gap(*pair) for pair in pairs) if not np.isnan(gap)]
    speeds = _speeds(values, np.asarray(is_finished(rows)))[mine]
    means = [own["slowdown_mean"] for own in per_tenant.values() if not np.isnan(own["slowdown_mean"])]
    overall = {
        "jain_slowdown": jain(_means(speeds, rows["tenant"][mine])),
        "slowdown_worst": max(means, default=np.nan),
        "service_gap": max(gaps, default=np.nan),
    }
    return _statistics(values[mine]) | overall | {"per_tenant": per_tenant}


def _known(times: Sequence[np.ndarray]) -> np.ndarray:
    """All that are known of ``times``, ascending, each once."""
    whole = np.concatenate(times)
    found: np.ndarray = np.unique(whole[~np.isnan(whole)])
    return found


def _window(times: Sequence[np.ndarray], mine: np.ndarray, reasons: np.ndarray) -> tuple[float, float]:
    """From the first to the last of the ``times`` of the requests ``mine``; to the run's end if one has not ended."""
    known = _known([own[mine] for own in times])
    ended = ~np.isnan(times[-1]) | (reasons == "rejected")
    return float(known[0]), float(known[-1] if ended[mine].all() else np.inf)


def _speeds(values: np.ndarray, done: np.ndarray) -> np.ndarray:
    """The speed of each request over that alone, from its slowdown: 0 where it did not finish; NaN if not known."""
    speeds: np.ndarray = 1 / np.where(values > 0, values, np.nan)
    return np.where(done, speeds, 0.0)


def _means(values: np.ndarray, tenants: np.ndarray) -> np.ndarray:
    """The mean of the known ``values`` of each tenant of whom one is known, (tenants,)."""
    known = ~np.isnan(values)
    codes, names = pd.factorize(np.asarray(tenants[known], dtype=object))
    found: np.ndarray = np.bincount(codes, weights=values[known], minlength=len(names)) / np.bincount(codes)
    return found


def _statistics(values: np.ndarray) -> dict[str, float]:
    known = values[~np.isnan(values)]
    if not len(known):
        return dict.fromkeys(("slowdown_mean", "slowdown_p50", "slowdown_p99"), np.nan)
    median, tail = np.percentile(known, [50, 99])
    return {"slowdown_mean": float(known.mean()), "slowdown_p50": float(median), "slowdown_p99": float(tail)}


def _backlogged(service: Service, everybody: Service) -> dict[str, float]:
    """How long the tenant was backlogged (s), and its share of the service in that time; NaN where it never was."""
    if not service.waiting.any():
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
    lines = [f"Slowdown: {_slowdown(row)}; Jain's index of the tenants' speeds {row['jain_slowdown']:.3f}; {gap}"]
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
