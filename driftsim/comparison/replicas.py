"""What a comparison says of replicas: what each of them served under each setting."""

from __future__ import annotations

import math

from driftsim.by_replica import has_replicas, per_replica
from driftsim.comparison.comparison import Comparison

HEADINGS = ["policy", "estimator", "replica", "requests", "finished", "busy (%)", "E2E mean (s)"]
LEGEND = "busy: share of the run's time in which a request was inside that replica, served or cut short"


def told(comparison: Comparison) -> bool:
    """Whether there are replicas to tell apart."""
    return any(has_replicas(trace) for trace in comparison.traces.values())


def table(comparison: Comparison) -> list[list[str]]:
    """Rows under ``HEADINGS``, as text: each setting with each replica, of this run."""
    rows = []
    for setting, *_ in comparison.groups:
        for number, own in per_replica(comparison.traces[setting], comparison.plan.phase).items():
            times = [_text(100 * own["busy_share"], 1), _text(own["e2e_mean_s"], 2)]
            rows.append([*setting, number, str(own["requests"]), str(own["finished"]), *times])
    return rows


def _text(value: float, digits: int) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"
