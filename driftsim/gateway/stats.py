"""What happened lately, for the page and the alarms: numbers of the last requests and of the last minutes, no more."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from driftsim.gateway.config import TenantRule
from driftsim.tenants import MOST, OTHERS
from driftsim.trace.schema import FINISHED

MOST_ENDS = 2_000  # that are remembered
LAST_S = 900.0  # that they count for
POINTS = 300  # of the queue's depth
EVERY_S = 2.0  # between them
MOST_DOTS = 300  # of estimates against lengths
MOST_JUDGED = 200  # finished requests of a category whose estimates are judged: the last
FEW = 20  # finished requests of a category from which on its ratio is told


@dataclass(frozen=True, slots=True)
class End:
    """One request that has ended. Lengths are in the accounting's unit; times in s; ``within``: its SLO, if any."""

    at: float
    tenant: str
    tier: str
    category: str
    reason: str
    ttft: float | None
    e2e: float
    tokens: int
    estimate: int
    bias: float
    length: int | None
    quantiles: tuple[int, ...]
    within: bool | None


class Stats:
    """The recent past."""

    def __init__(self) -> None:
        self.ends: deque[End] = deque(maxlen=MOST_ENDS)
        self.depths: deque[tuple[float, dict[str, int], int]] = deque(maxlen=POINTS)

    def note(self, end: End) -> None:
        """A request has ended."""
        self.ends.append(end)

    def sample(self, now: float, depth: Mapping[str, int], inside: int) -> None:
        """So many wait, by tier, and are inside."""
        self.depths.append((now, {tier: count for tier, count in depth.items() if count}, inside))

    def lately(self, now: float) -> list[End]:
        """Who ended in the last ``LAST_S`` seconds."""
        while self.ends and self.ends[0].at < now - LAST_S:
            self.ends.popleft()
        return list(self.ends)

    def tenants(self, now: float) -> list[dict[str, Any]]:
        """By tenant, the largest first, the others together: counts, latencies (s) and SLO attainment."""
        ends = self.lately(now)
        named = {name for name, _ in Counter(end.tenant for end in ends).most_common(MOST)}
        groups: dict[str, list[End]] = {}
        for end in ends:
            groups.setdefault(end.tenant if end.tenant in named else OTHERS, []).append(end)
        return [
            {
                "tenant": name,
                "requests": len(own),
                "finished": sum(end.reason in FINISHED for end in own),
                "ttft_p50": percentile((end.ttft for end in own), 50),
                "e2e_p50": percentile((end.e2e for end in own if end.reason in FINISHED), 50),
                "e2e_p99": percentile((end.e2e for end in own if end.reason in FINISHED), 99),
                "attainment": share([end.within for end in own if end.within is not None]),
            }
            for name, own in sorted(groups.items(), key=lambda group: (-len(group[1]), group[0]))
        ]

    def categories(self, now: float) -> list[dict[str, Any]]:
        """By category: how long outputs were over their estimates, with the middle 80 %, and the last bias."""
        groups: dict[str, list[End]] = {}
        for end in self.lately(now):
            if end.length is not None and end.estimate > 0:
                groups.setdefault(end.category, []).append(end)
        groups = {name: own[-MOST_JUDGED:] for name, own in groups.items()}
        return [
            {
                "category": name,
                "requests": len(own),
                "bias": own[-1].bias,
                "ratio": ratio(own),
                "low": percentile((end.length / end.estimate for end in own if end.length is not None), 10),
                "high": percentile((end.length / end.estimate for end in own if end.length is not None), 90),
                "coverage": coverage(own),
            }
            for name, own in sorted(groups.items())
        ]

    def dots(self, now: float) -> list[list[Any]]:
        """Estimate, length and category of the last that finished."""
        known = [end for end in self.lately(now) if end.length is not None]
        return [[end.estimate, end.length, end.category] for end in known[-MOST_DOTS:]]

    def throughput(self, now: float, span: float = 30.0) -> dict[str, float]:
        """Requests and output tokens a second, over the last ``span`` seconds or since the start."""
        ends = [end for end in reversed(self.ends) if end.at >= now - span and end.reason in FINISHED]
        seconds = max(1.0, min(span, now))
        return {"requests": len(ends) / seconds, "tokens": sum(end.tokens for end in ends) / seconds}


def is_within(tenant: TenantRule, reason: str, ttft: float | None, e2e: float, tokens: int) -> bool | None:
    """Whether a request kept the SLO of its ``tenant``; None without one. One that did not finish did not, but for
    those that their clients gave up."""
    limits = tenant.ttft_s, tenant.tpot_s, tenant.e2e_s
    if limits == (None, None, None) or reason in ("abort", "timeout"):
        return None
    if reason not in FINISHED:
        return False
    tpot = None if ttft is None or tokens < 2 else (e2e - ttft) / (tokens - 1)
    pairs = zip(limits, (ttft, tpot, e2e), strict=True)
    return all(limit is None or value is None or value <= limit for limit, value in pairs)


def ratio(ends: Sequence[End]) -> float | None:
    """The geometric mean of output length over estimate; None for too few."""
    logs = [math.log(max(end.length, 1) / end.estimate) for end in ends if end.length is not None and end.estimate > 0]
    return math.exp(sum(logs) / len(logs)) if len(logs) >= FEW else None


def coverage(ends: Sequence[End]) -> float | None:
    """The share of outputs between the lowest and the highest quantile of their estimates; None for too few."""
    told = [end for end in ends if end.quantiles and end.length is not None]
    if len(told) < FEW:
        return None
    return sum(end.quantiles[0] <= (end.length or 0) <= end.quantiles[-1] for end in told) / len(told)


def share(kept: Sequence[bool]) -> float | None:
    """The share of those that are true; None of none.

    >>> share([True, True, False, True]), share([])
    (0.75, None)
    """
    return sum(kept) / len(kept) if kept else None


def percentile(values: Iterable[float | None], percent: float) -> float | None:
    """The percentile of the ``values`` that are known, linear as everywhere here; None of none.

    >>> percentile([4.0, None, 1.0, 2.0], 50), percentile([], 50)
    (2.0, None)
    """
    known = sorted(value for value in values if value is not None)
    if not known:
        return None
    place = (len(known) - 1) * percent / 100
    low = math.floor(place)
    high = min(low + 1, len(known) - 1)
    return known[low] + (known[high] - known[low]) * (place - low)
