"""The report: a comparison as a table, as rows and as a document; the terminal, the page and the folder show these."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from driftsim.comparison import estimators
from driftsim.comparison.comparison import Comparison
from driftsim.comparison.fair import LEGEND as FAIR_LEGEND
from driftsim.comparison.notes import warnings
from driftsim.comparison.plan import BASELINE, ComparisonPlan, Setting
from driftsim.comparison.sameness import MEANINGS, explained
from driftsim.comparison.slos import LEGEND as SLO_LEGEND
from driftsim.comparison.turns import LEGEND as SESSION_LEGEND
from driftsim.comparison.turns import told as tells_of_sessions
from driftsim.comparison.verdict import all_checks, answer, findings
from driftsim.drift import in_words
from driftsim.files import Mark
from driftsim.formatting import give_or_take, without_nan
from driftsim.glossary import REPLICA_OF, SLO, TENANT, TENANT_FAIR_COMPARISON, TENANT_FAIRNESS, tier_label
from driftsim.scheduling.estimators import is_deployable
from driftsim.trace.trace import Trace
from driftsim.workloads.workload import Workload

FIGURES = {
    "e2e_by_scheduler": "Change of the end-to-end latency against first come, first served",
    "e2e_by_tenant": "Change of each tenant's mean end-to-end latency",
    "bias_over_requests": "Bias over requests, by predicted category",
    "estimated_against_observed": "Estimated against observed output length",
    "queue_depth_by_tenant": "Requests waiting over time, by tenant",
}


PICTURES = tuple(f"{name}.{kind}" for name in FIGURES for kind in ("svg", "png"))
FILES = ("rows.csv", "comparison.json", "report.html", "slo.csv", "estimation.csv", *PICTURES)
TABLES = ("per_tier", "per_tenant", "per_replica")  # keys of a row, which have columns of their own in flat rows
MARK = Mark("comparison.json", '{\n "rows": [')
TERMS = {
    "E2E": "end to end: from arrival to the last token; TTFT: to the first token; TPOT: time per token after the first",
    "vs fifo/static": "change of the mean E2E against first come, first served with uncorrected estimates",
    "estimator": "static leaves the estimates alone, ema is DriftSched's correction, pooled ours, oracle knows all",
    "MAE, RMSE": "mean absolute and root mean square error of the estimated output length",
    "tau": "Kendall's rank correlation of budget and truth: all that an order by budget can use",
    "tau of length": "the same of estimated and actual output length, without the prompt, whose length is known",
    "Jain": "fairness over tenants, of their mean tokens per second: 1 is equal",
    "stock": "vLLM's own order: first in, first out, with no limit in flight",
}
BOUND = "(bound)"


@dataclass(frozen=True)
class TableColumn:
    """A column of the table: heading, unit, metric, digits, whether the largest is best, whether terminals show it."""

    heading: str
    unit: str
    metric: str
    digits: int
    largest: bool = False
    brief: bool = True


def columns(comparison: Comparison) -> list[TableColumn]:
    """The columns of the printed table, with units."""
    word = "tokens" if comparison.plan.admission.unit.unit == "tokenizer" else "words"
    within = [
        TableColumn("attained", "%", "attainment", 1, largest=True),
        TableColumn("goodput", "requests/s", "goodput", 3, largest=True),
    ]
    fair = [
        TableColumn("slowdown", "", "slowdown_mean", 2),
        TableColumn("Jain of it", "", "jain_slowdown", 3, largest=True),
        TableColumn("service gap", "tokens", "service_gap", 0),
    ]
    lost = [
        TableColumn("timed out", "requests", "timed_out", 0),
        TableColumn("rejected", "requests", "rejected", 0),
        TableColumn("attempts", "", "attempts", 0, brief=False),
    ]
    known = comparison.recorded
    cost = [
        TableColumn("energy", "J/1,000 tokens", "energy_per_kilotoken_j", 1),
        TableColumn("price", "/1,000 tokens", "money_per_kilotoken", 5),
    ]
    return [
        *(within if comparison.plan.slos else []),
        *(lost if "attempts" in known else []),
        *(column for column in cost if column.metric in known),
        TableColumn("E2E mean", "s", "e2e_mean_s", 2),
        TableColumn("E2E P50", "s", "e2e_p50_s", 2, brief=False),
        TableColumn("E2E P99", "s", "e2e_p99_s", 2),
        TableColumn("TTFT mean", "s", "ttft_mean_s", 2, brief=False),
        TableColumn("TTFT P99", "s", "ttft_p99_s", 2),
        TableColumn("TPOT mean", "ms", "tpot_mean_s", 1, brief=False),
        TableColumn("TPOT P99", "ms", "tpot_p99_s", 1),
        TableColumn("MAE", word, "mae", 1),
        TableColumn("RMSE", word, "rmse", 1, brief=False),
        TableColumn("tau", "", "kendall_tau", 3, largest=True),
        TableColumn("tau of length", "", "kendall_tau_estimate", 3, largest=True, brief=False),
        TableColumn("Jain", "", "jain_index", 3, largest=True, brief=False),
        *(fair if comparison.plan.fairness else []),
    ]


@dataclass(frozen=True)
class Cell:
    """A value as text and as a number, and whether it is the best of its column (``best``) or a tie with that."""

    text: str
    mark: str = ""
    number: float | None = None


def table(comparison: Comparison, brief: bool = False) -> tuple[list[tuple[str, str]], list[list[Cell]]]:
    """Headings (name, unit) and rows of the table; the change of the mean against FIFO/static stands beside it.

    Settings that differ in nothing are one row, see ``folded``.
    """
    shown = [column for column in columns(comparison) if column.brief or not brief]
    marks = {column.metric: _marks(comparison, column) for column in shown}
    real = comparison.told(list(comparison.plan.settings), "e2e_mean_s")
    headings = [("policy", ""), ("estimator", "")]
    for column in shown:
        headings.append((column.heading, column.unit))
        if column.metric == "e2e_mean_s":
            headings.append(("vs fifo/static", ""))
    rows = []
    for setting, *others in comparison.groups:
        bound = "" if is_deployable(setting.estimator) else f" {BOUND}"
        cells = [Cell(setting.policy + ("=" if others else "")), Cell(setting.estimator + bound)]
        for column in shown:
            cells.append(_cell(comparison, setting, column, marks[column.metric].get(setting, "")))
            if column.metric == "e2e_mean_s":
                cells.append(_versus(comparison, setting, setting in real))
        rows.append(cells)
    return headings, rows


def _marks(comparison: Comparison, column: TableColumn) -> dict[Setting, str]:
    """The marks of a column; none where no two settings can be told apart."""
    ranking = comparison.ranking(column.metric, column.largest)
    candidates = [group[0] for group in comparison.groups if is_deployable(group[0].estimator)]
    if ranking is None or len(ranking.ties) + 1 >= len(candidates):
        return {}
    return {ranking.best: "best"} | dict.fromkeys(ranking.ties, "tie")


def _cell(comparison: Comparison, setting: Setting, column: TableColumn, mark: str) -> Cell:
    value = comparison.values(setting, column.metric)[0]
    if math.isnan(value):
        return Cell("-")
    value *= {"ms": 1000, "%": 100}.get(column.unit, 1)
    return Cell(f"{value:.{column.digits}f}", mark, float(value))


def _versus(comparison: Comparison, setting: Setting, real: bool) -> Cell:
    """The change of the mean E2E; in brackets where it may be an accident, or is too small to matter."""
    if setting == BASELINE:
        return Cell("")
    versus = comparison.change(setting, BASELINE, "e2e_mean_s")
    if reason := comparison.same.get(setting):
        return Cell(reason, "", 0.0)
    if versus == (0.0, 0.0, 0.0):
        return Cell("the same", "", 0.0)
    text = give_or_take(versus)
    return Cell(text if real or math.isnan(versus.low) else f"({text})", "", versus.value)


def folded(comparison: Comparison) -> list[str]:
    """Which settings share a row, since they differ in nothing."""
    return [
        f"one row, for they differ in nothing: {', '.join(map(str, group))}" for group in comparison.groups if group[1:]
    ]


def legend(comparison: Comparison) -> list[str]:
    """What marks, intervals and words in place of a change mean, and what is estimated."""
    found = {comparison.same.get(setting, "") for setting in comparison.plan.settings}
    same = [f"instead of a change, {explained(reason)}" for reason in MEANINGS if reason in found]
    same += [f"drift injected: {told}" for told in drift_told(comparison)]
    same += [*(SLO_LEGEND if comparison.plan.slos else []), *(FAIR_LEGEND if comparison.plan.fairness else [])]
    same += SESSION_LEGEND if tells_of_sessions(comparison) else []
    days, resamples = len(comparison.days), comparison.plan.replications - 1
    if comparison.recorded_only:
        return ["* best of its column; no intervals, which need 3 replications or more", *folded(comparison), *same]
    waited, chose = (100 * comparison.recorded[name] for name in ("waiting_fraction", "choice_fraction"))
    what = "this run" if days == 1 else f"the first of {days} days"
    return [
        f"seconds: {what}; changes: the mean over days like {'it' if days == 1 else 'these'}, ± 95 % "
        f"(from 2 x {resamples} resamples{'' if days == 1 else ' of each'}; without the error of the latency model)",
        "* best of its column, ~ cannot be told from it, ( ) no change that can be told from none or that matters: "
        f"adjusted for the number of rows, and at least {100 * comparison.plan.practical:g} %",
        *([f"{BOUND}: knows what nobody can know; never recommended"] if _has_bound(comparison) else []),
        *folded(comparison),
        *same,
        f"under FIFO somebody waited {waited:.0f} % of the time, two or more at once {chose:.0f} %",
    ]


def drift_told(comparison: Comparison) -> list[str]:
    """What was injected into the first day, and what came of it."""
    return [in_words(drift) for drift in comparison.traces[BASELINE].header.drift]


def _has_bound(comparison: Comparison) -> bool:
    return any(not is_deployable(setting.estimator) for setting in comparison.plan.settings)


def document(comparison: Comparison, provenance: dict[str, Any]) -> dict[str, Any]:
    """What ``compare --json`` prints; numbers that do not exist are null."""
    return {
        "rows": without_nan(comparison.rows()),
        "calibration": without_nan(comparison.calibration()),
        **({"estimation": estimators.document(comparison)} if estimators.told(comparison) else {}),
        "answer": answer(comparison),
        "verdict": findings(comparison),
        "checks": without_nan([asdict(check) for check in all_checks(comparison)]),
        "warnings": warnings(comparison),
        **provenance,
    }


BATCHING = {"continuous": "continuous batching", "barrier": "batches of DriftSched's worker, one at a time"}


def source(workload: Workload, recorded: Trace | None) -> dict[str, Any]:
    """Where the requests of a comparison came from: its name, the digest of the trace, and its kind."""
    if recorded is None:
        return {"trace": workload.info.name, "trace_digest": "", "kind": "generated"}
    return {"trace": recorded.name, "trace_digest": recorded.digest, "kind": recorded.header.kind}


def provenance(plan: ComparisonPlan) -> dict[str, Any]:
    """What of ``plan`` a reader must know to run the comparison again."""
    engine = plan.profile.engine
    return {
        "engine": f"simulated {BATCHING[plan.engine]}, vLLM {engine.version} semantics",
        "model": plan.profile.model,
        "hardware": plan.profile.hardware,
        "profile_digest": plan.profile.digest,
        "seed": plan.seed,
        "replications": plan.replications,
        "practical": plan.practical,
        "phase": plan.phase,
        "max_in_flight": plan.scenario(BASELINE).limit,
        "max_num_seqs": engine.max_num_seqs,
        "kv_blocks": engine.kv_blocks,
        "refill_lag": plan.refill_lag,
        **({} if plan.arrivals is None else {"arrivals": plan.arrivals.model_dump(exclude_defaults=True)}),
        **({"slos": [str(slo) for slo in plan.slos]} if plan.slos else {}),
        **({"clients": plan.clients.words} if plan.clients else {}),
        **({"shed": [str(rule) for rule in plan.shed]} if plan.shed else {}),
        **({"replicas": plan.replicas.words} if plan.replicas else {}),
        **({"place": plan.place} if plan.place != "front" else {}),
        **({"costs": plan.costs.model_dump(exclude_none=True)} if plan.costs else {}),
        **({"drift": [str(drift) for drift in plan.drift]} if plan.drift else {}),
        **({"tiers": [rule.model_dump(exclude_defaults=True) for rule in plan.tiers]} if plan.tiers else {}),
    }


def tiers(comparison: Comparison) -> list[list[str]]:
    """Per setting and tier: requests, finished, mean, P50 and P99 end-to-end latency, as text."""
    rows = []
    for setting in comparison.plan.settings:
        for tier, own in comparison.summaries[setting][0]["per_tier"].items():
            times = [f"{own[name]:.2f}" for name in ("e2e_mean_s", "e2e_p50_s", "e2e_p99_s")]
            rows.append([setting.policy, setting.estimator, tier, str(own["requests"]), str(own["finished"]), *times])
    return rows


def effects(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """What calibration alone changes, policy by policy: headings and rows, as text."""
    rows: dict[Setting, dict[str, str]] = {}
    for effect in comparison.calibration():
        setting = Setting(effect["policy"], effect["estimator"])
        change = comparison.change(setting, Setting(setting.policy, "static"), _key_of(effect["metric"]))
        rows.setdefault(setting, {})[effect["metric"]] = give_or_take(change)
    names = ["mae", "rmse", "e2e_mean", "e2e_p50", "e2e_p99"]
    table = [[setting.policy, setting.estimator, *(cells[name] for name in names)] for setting, cells in rows.items()]
    return ["policy", "estimator", "MAE", "RMSE", "E2E mean", "E2E P50", "E2E P99"], table


def _key_of(metric: str) -> str:
    return f"{metric}_s" if metric.startswith("e2e") else metric


def flat_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """The rows of ``comparison`` with plain columns: those of a tier begin with its name.

    Those of a replica begin with ``replica_`` and its number. With SLOs or fairness, there are also those of a tenant,
    which begin with ``tenant_`` and its name.
    """
    rows = []
    for row in comparison.rows():
        flat = {name: value for name, value in row.items() if name not in TABLES}
        for tier, values in row["per_tier"].items():
            flat |= {f"{tier_label(tier)}_{name}": value for name, value in values.items()}
        fair = (*TENANT_FAIRNESS, *TENANT_FAIR_COMPARISON) if comparison.plan.fairness else ()
        for number, values in row.get("per_replica", {}).items():
            flat |= {f"{REPLICA_OF}{number}_{name}": value for name, value in values.items()}
        added = [*(SLO if comparison.plan.slos else ()), *fair]
        for tenant, values in row["per_tenant"].items():
            flat |= {f"{TENANT}{tenant}_{metric.name}": values[metric.name] for metric in added}
        rows.append(flat)
    return rows
