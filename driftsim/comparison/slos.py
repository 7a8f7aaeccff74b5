"""What a comparison says of SLOs: how many requests each setting kept within them, which limits the others missed."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from driftsim.comparison.checks import Check
from driftsim.comparison.comparison import Comparison
from driftsim.comparison.plan import BASELINE, Setting
from driftsim.comparison.wording import setting_words
from driftsim.glossary import SLO
from driftsim.goodput import CAUSES, missed_by
from driftsim.slo import rule_of
from driftsim.text import for_csv

ALL = "all"
MOST_PARTS = 9  # columns of the printed table; the page and the rows have all
LEGEND = [
    "attained: share of the offered requests with an SLO that finished within every limit of it; goodput: these "
    "requests, a second; who was rejected, aborted or timed out missed it"
]
HEADINGS = [
    "policy", "estimator", "requests of", "met", "missed", "without SLO", "attained (%)", "goodput (requests/s)",
    "goodput (tokens/s)", "missed by",
]  # fmt: skip


def parts_of(comparison: Comparison, setting: Setting) -> dict[str, dict[str, Any]]:
    """The counts of all requests of ``setting``, of each tier and of each tenant, of this run; those with an SLO."""
    row = comparison.summaries[setting][0]
    tiers = {f"tier {name}": own for name, own in row["per_tier"].items()}
    tenants = {
        f"tenant {name}": own
        for name, own in row["per_tenant"].items()
        if _counted(own) != _counted(row["per_tier"].get(name, {}))  # else tier and tenant are the same requests
    }
    found = {ALL: row} | (tiers if len(tiers) > 1 else {}) | (tenants if len(row["per_tenant"]) > 1 else {})
    return {name: own for name, own in found.items() if own["slo_met"] + own["slo_missed"]}


def _counted(own: dict[str, Any]) -> list[Any]:
    return [own.get(metric.name) for metric in SLO if metric.kind == "int"]


def table(comparison: Comparison) -> list[list[str]]:
    """Rows under ``HEADINGS``, as text: each setting with all its requests, each tier and each tenant."""
    return [
        [setting.policy, setting.estimator, name, *_cells(own)]
        for setting, *_ in comparison.groups
        for name, own in parts_of(comparison, setting).items()
    ]


def _cells(own: dict[str, Any]) -> list[str]:
    counts = [str(own[name]) for name in ("slo_met", "slo_missed", "without_slo")]
    rates = [f"{own['goodput']:.3f}", f"{own['token_goodput']:.1f}"]
    return [*counts, f"{100 * own['attainment']:.1f}", *rates, causes(own)]


def causes(own: dict[str, Any]) -> str:
    """How many missed which limit.

    >>> causes({"missed_ttft": 3, "missed_tpot": 0, "missed_itl": 0, "missed_e2e": 2, "missed_unfinished": 0})
    'ttft 3, e2e 2'
    """
    return ", ".join(f"{cause} {own[f'missed_{cause}']}" for cause in CAUSES if own[f"missed_{cause}"])


def brief(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Headings and rows: the share attained by each setting (%), of all, each tier and each tenant; and the causes.

    Of many tiers and tenants, the first ``MOST_PARTS`` parts.
    """
    names = list(parts_of(comparison, comparison.groups[0][0]))[:MOST_PARTS]
    rows = []
    for setting, *_ in comparison.groups:
        own = parts_of(comparison, setting)
        shares = [f"{100 * own[name]['attainment']:.1f}" for name in names]
        rows.append([*setting, *shares, causes(comparison.summaries[setting][0])])
    return ["policy", "estimator", *names, "missed by (requests)"], rows


def within(comparison: Comparison, chosen: Setting) -> str:
    """What was kept within the SLOs, first come, first served, under what is advised, and under the best; or ""."""
    if not comparison.plan.slos:
        return ""
    if not any(comparison.summaries[group[0]][0]["slo_met"] for group in comparison.groups):
        return "No request met its SLO, under no setting."
    named = {BASELINE: "first come, first served"}
    if chosen != BASELINE:
        named[chosen] = "as advised"
    ranking = comparison.ranking("goodput", largest=True)
    if ranking is not None and ranking.best not in named:
        named[ranking.best] = f"at best ({setting_words(ranking.best)})"
    told = [f"{_share(comparison, setting)} {words}" for setting, words in named.items()]
    return f"Within the SLOs, in this run: {'; '.join(told)}."


def _share(comparison: Comparison, setting: Setting) -> str:
    row = comparison.summaries[setting][0]
    return f"{100 * row['attainment']:.1f} % ({row['goodput']:.3g} requests/s)"


def slos_beside(check: Check) -> str:
    """The shares that were measured and simulated within the SLOs; "" where they are not known."""
    sides = [side.get("attainment", math.nan) for side in (check.measured, check.simulated)]
    if any(map(math.isnan, sides)):
        return ""
    return f"Within the SLOs: {100 * sides[0]:.1f} % measured, {100 * sides[1]:.1f} % simulated."


def outcomes(comparison: Comparison) -> pd.DataFrame:
    """A row for each request of this run: its SLO, and by what it missed that under each setting.

    ``met`` if by nothing, and empty for a request without an SLO, as its SLO is.
    """
    requests = comparison.traces[BASELINE].requests
    slos = np.array([*map(str, comparison.plan.slos), ""], dtype=object)
    rule = rule_of(comparison.plan.slos, requests["tenant"].to_numpy(), requests["tier"].to_numpy())
    found: dict[str, Any] = {name: requests[name] for name in ("request_id", "tenant", "tier")}
    words = np.array(["", "met", *(missed_by(code) for code in range(1, 2 ** len(CAUSES)))], dtype=object)
    codes = {str(setting): words[own + 1] for setting, own in comparison.codes.items()}
    return pd.DataFrame(found | {"slo": slos[rule]} | codes)


def write_outcomes(comparison: Comparison, file: Path) -> None:
    """Write ``outcomes`` as CSV."""
    outcomes(comparison).map(for_csv).rename(columns=for_csv).to_csv(file, index=False)
