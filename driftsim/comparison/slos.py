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
from driftsim.comparison.tenants import largest_tenants
from driftsim.comparison.wording import setting_words
from driftsim.goodput import CAUSES, causes, missed_by
from driftsim.scheduling.estimators import is_deployable
from driftsim.tenants import parts
from driftsim.text import for_csv
from driftsim.tiers import by_urgency
from driftsim.whose import rule_of

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


def names_of(comparison: Comparison) -> dict[str, tuple[str, str]]:
    """Where the counts of each part stand in a summary, by its heading: each tier and tenant with an SLO, of this run.

    The same for all settings, since it looks at who sends the requests and not at what became of them. A tenant whose
    requests are those of the tier of its name is left out; so are tiers and tenants of which there is one.
    """
    plan, workload = comparison.plan, comparison.workload
    rows = workload.table
    if plan.phase != "all" and plan.arrivals is None:  # other arrivals are one phase
        rows = rows[rows["phase"] == plan.phase]
    tenant, tier = (rows[name].to_numpy(dtype=object) for name in ("tenant", "tier"))
    has = rule_of(plan.slos, tenant, tier) >= 0
    tiers = {name: tier == name for name in by_urgency(set(tier), plan.tiers or workload.tiers)}
    tenants = parts(tenant, largest_tenants(workload))
    found = {}
    for kind, masks in (("tier", tiers), ("tenant", tenants)):
        for name, mask in masks.items() if len(masks) > 1 else ():
            twice = kind == "tenant" and name in tiers and np.array_equal(mask, tiers[name])
            if has[mask].any() and not twice:
                found[f"{kind} {name}"] = (f"per_{kind}", name)
    return found


def parts_of(comparison: Comparison, setting: Setting) -> dict[str, dict[str, Any]]:
    """The counts of all requests of ``setting``, then of those of ``names_of`` that were sent under it."""
    row = comparison.summaries[setting][0]
    known = {label: row[table].get(name) for label, (table, name) in names_of(comparison).items()}
    return {ALL: row} | {label: own for label, own in known.items() if own}


def table(comparison: Comparison) -> list[list[str]]:
    """Rows under ``HEADINGS``, as text: each setting with all its requests, each tier and each tenant."""
    return [
        [setting.policy, setting.estimator, name, *_cells(own)]
        for setting, *_ in comparison.groups
        for name, own in parts_of(comparison, setting).items()
    ]


def _cells(own: dict[str, Any]) -> list[str]:
    counts = [str(own[name]) for name in ("slo_met", "slo_missed", "without_slo")]
    rates = [_rate(own["goodput"], 3), _rate(own["token_goodput"], 1)]
    return [*counts, _percent(own["attainment"]), *rates, causes(own)]


def _rate(value: float, digits: int) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def brief(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Headings and rows: the share attained by each setting (%), of all, each tier and each tenant; and the causes.

    Of many tiers and tenants, the first ``MOST_PARTS`` parts.
    """
    names = [ALL, *names_of(comparison)][:MOST_PARTS]
    rows = []
    for setting, *_ in comparison.groups:
        own = parts_of(comparison, setting)
        shares = [_percent(own[name]["attainment"]) if name in own else "-" for name in names]
        rows.append([*setting, *shares, causes(own[ALL])])
    return ["policy", "estimator", *names, "missed by (requests)"], rows


def _percent(share: float) -> str:
    return "-" if math.isnan(share) else f"{100 * share:.1f}"


def within(comparison: Comparison, chosen: Setting) -> str:
    """What was kept within the SLOs, first come, first served, under what is advised, and under the best; or ""."""
    if not comparison.plan.slos:
        return ""
    rows = [comparison.summaries[group[0]][0] for group in comparison.groups]
    if not any(row["slo_met"] + row["slo_missed"] for row in rows):
        return "No request has an SLO in this run."
    if not any(row["slo_met"] for row in rows):
        return "No request met its SLO under any setting."
    named = {BASELINE: "first come, first served"}
    if chosen != BASELINE:
        named[chosen] = "as advised"
    rates = {
        setting: comparison.summaries[setting][0]["goodput"]
        for setting in (BASELINE, *(group[0] for group in comparison.groups))
        if setting in named or is_deployable(setting.estimator)
    }
    best = max(rates, key=lambda setting: rates[setting])
    if rates[best] > max(rates[setting] for setting in named):
        named[best] = f"at best ({setting_words(best)})"
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
