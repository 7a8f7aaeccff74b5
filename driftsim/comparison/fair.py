"""What a comparison says of fairness: how much each tenant is slowed down, and its share of service in a backlog."""

from __future__ import annotations

import math

from driftsim.comparison.comparison import Comparison

LEGEND = [
    "slowdown: E2E over what the request would take alone on this engine; Jain of it: over the tenants' means, 1 is "
    "equal; service gap: the most that one tenant was served above another while both waited, 1 a prompt token, 2 an "
    "output token"
]
HEADINGS = [
    "policy",
    "estimator",
    "tenant",
    "slowdown mean",
    "P50",
    "P99",
    "backlogged (s)",
    "share of service in it (%)",
]


def table(comparison: Comparison) -> list[list[str]]:
    """Rows under ``HEADINGS``, as text: each setting with each of the largest tenants, of this run."""
    rows = []
    for setting, *_ in comparison.groups:
        for tenant, own in comparison.summaries[setting][0]["per_tenant"].items():
            slow = [_text(own[f"slowdown_{stat}"], 2) for stat in ("mean", "p50", "p99")]
            share = _text(100 * own["backlogged_share"], 1)
            rows.append([*setting, tenant, *slow, f"{own['backlogged_s']:.1f}", share])
    return rows


def _text(value: float, digits: int) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"
