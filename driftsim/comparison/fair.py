"""What a comparison says of fairness: how much each tenant is slowed down, and its share of service in a backlog."""

from __future__ import annotations

import math

from driftsim.comparison.comparison import Comparison
from driftsim.comparison.plan import BASELINE, Setting
from driftsim.formatting import give_or_take

LEGEND = [
    "slowdown: E2E over what the request would take alone on this engine; Jain of it: over the tenants' mean speeds, a "
    "request's being 1 / slowdown, 0 if it did not finish; 1 is equal",
    "service gap: the most that one tenant was served above another while both waited, 1 a prompt token, 2 an output "
    "token",
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
AND_OVER_DAYS = ["mean slowdown over days", "share over days (%)"]
OVER_DAYS = "Fairness: the mean over days like these, and its 95 % interval; ± of the change against fifo/static"
OVERALL = {  # the metric of each column, and its digits
    "slowdown mean": ("slowdown_mean", 2),
    "of the worst tenant": ("slowdown_worst", 2),
    "Jain of it": ("jain_slowdown", 3),
    "service gap (tokens)": ("service_gap", 0),
}


def table(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Headings and rows, as text: each setting with each of the largest tenants, of this run.

    Where there are intervals, the means over days like it and theirs stand behind.
    """
    rows = []
    days = not comparison.recorded_only
    for setting, *_ in comparison.groups:
        for tenant, own in comparison.summaries[setting][0]["per_tenant"].items():
            slow = [_text(own[f"slowdown_{stat}"], 2) for stat in ("mean", "p50", "p99")]
            row = [*setting, tenant, *slow, f"{own['backlogged_s']:.1f}", _text(100 * own["backlogged_share"], 1)]
            if days:
                row.append(_over_days(comparison, setting, "slowdown_mean", 2, tenant=tenant))
                row.append(_over_days(comparison, setting, "backlogged_share", 1, 100, tenant))
            rows.append(row)
    return [*HEADINGS, *(AND_OVER_DAYS if days else ())], rows


def title(comparison: Comparison) -> str:
    """The title of ``table``."""
    told = "" if comparison.recorded_only else ", and in the mean over days like it, with 95 % intervals"
    return f"What the tenants got, in this run{told}"


def over_days(comparison: Comparison) -> tuple[list[str], list[list[str]]] | None:
    """Headings and rows of what all tenants got, a row a setting: means over days with intervals and changes.

    None where there are too few replications for intervals.
    """
    if comparison.recorded_only:
        return None
    rows = []
    for setting, *_ in comparison.groups:
        cells = []
        for metric, digits in OVERALL.values():
            cells += [_over_days(comparison, setting, metric, digits), _change(comparison, setting, metric)]
        rows.append([*setting, *cells])
    headings = [heading for name in OVERALL for heading in (name, "change")]
    return ["policy", "estimator", *headings], rows


def _over_days(
    comparison: Comparison, setting: Setting, metric: str, digits: int, scale: float = 1, tenant: str | None = None
) -> str:
    """The mean of ``metric`` times ``scale`` over days, with its interval, where there is one, in brackets."""
    middle, low, high = comparison.value(setting, metric, tenant)
    between = "" if math.isnan(low) else f" [{scale * low:,.{digits}f}, {scale * high:,.{digits}f}]"
    return _text(scale * middle, digits) + between


def _change(comparison: Comparison, setting: Setting, metric: str) -> str:
    if setting == BASELINE:
        return ""
    change = comparison.change(setting, BASELINE, metric)
    return "-" if math.isnan(change.low) else give_or_take(change)


def _text(value: float, digits: int) -> str:
    return "-" if math.isnan(value) else f"{value:,.{digits}f}"
