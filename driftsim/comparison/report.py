"""The report: a comparison as a table for the terminal, as rows and figures in a folder, and as one HTML page."""

from __future__ import annotations

import base64
import csv
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from driftsim.comparison.comparison import BASELINE, Comparison, ComparisonPlan, Setting
from driftsim.comparison.sameness import MEANINGS, explained
from driftsim.comparison.verdict import answer, warnings
from driftsim.formatting import dumps, give_or_take, without_nan
from driftsim.trace.trace import Trace
from driftsim.version import __version__
from driftsim.workloads.workload import Workload

FIGURES = {
    "e2e_by_scheduler": "End-to-end latency by scheduler",
    "bias_over_requests": "Bias over requests, by predicted category",
    "estimated_against_observed": "Estimated against observed output length",
    "queue_depth_by_tenant": "Requests waiting over time, by tenant",
}


PICTURES = tuple(f"{name}.{kind}" for name in FIGURES for kind in ("svg", "png"))
FILES = ("rows.csv", "comparison.json", "report.html", *PICTURES)
TERMS = {
    "E2E": "end to end: from arrival to the last token; TTFT: to the first token; TPOT: time per token after the first",
    "vs fifo/static": "relative change of the mean E2E against first in, first out with uncorrected estimates",
    "estimator": "static leaves the estimates alone, ema is DriftSched's bias correction, oracle knows every length",
    "MAE, RMSE": "mean absolute and root mean square error of the estimated output length",
    "tau": "Kendall's rank correlation of budget and truth: all that an order by budget can use",
    "tau of length": "the same of estimated and actual output length, without the prompt, whose length is known",
    "Jain": "fairness over tenants, of their mean tokens per second: 1 is equal",
    "stock": "vLLM's own order: first in, first out, with no limit in flight",
}


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
    return [
        TableColumn("E2E mean", "s", "e2e_mean_s", 2),
        TableColumn("E2E P50", "s", "e2e_p50_s", 2),
        TableColumn("E2E P99", "s", "e2e_p99_s", 2),
        TableColumn("TTFT mean", "s", "ttft_mean_s", 2),
        TableColumn("TPOT mean", "ms", "tpot_mean_s", 1, brief=False),
        TableColumn("MAE", word, "mae", 1),
        TableColumn("RMSE", word, "rmse", 1, brief=False),
        TableColumn("tau", "", "kendall_tau", 3, largest=True),
        TableColumn("tau of length", "", "kendall_tau_estimate", 3, largest=True, brief=False),
        TableColumn("Jain", "", "jain_index", 3, largest=True, brief=False),
    ]


@dataclass(frozen=True)
class Cell:
    """A value as text, and whether it is the best of its column (``best``) or cannot be told from it (``tie``)."""

    text: str
    mark: str = ""


def table(comparison: Comparison, brief: bool = False) -> tuple[list[tuple[str, str]], list[list[Cell]]]:
    """Headings (name, unit) and rows of the table; the change of the mean against FIFO/static stands beside it."""
    shown = [column for column in columns(comparison) if column.brief or not brief]
    best = {column.metric: comparison.best(column.metric, column.largest) for column in shown}
    rows = []
    for setting in comparison.plan.settings:
        cells = [Cell(setting.policy), Cell(setting.estimator)]
        for column in shown:
            cells.append(_cell(comparison, setting, column, best[column.metric]))
            if column.metric == "e2e_mean_s":
                versus = comparison.change(setting, BASELINE, "e2e_mean_s")
                same = comparison.same.get(setting) or give_or_take(versus)
                cells.append(Cell("" if setting == BASELINE else same))
        rows.append(cells)
    headings = [("policy", ""), ("estimator", "")]
    for column in shown:
        headings.append((column.heading, column.unit))
        if column.metric == "e2e_mean_s":
            headings.append(("vs fifo/static", ""))
    return headings, rows


def _cell(
    comparison: Comparison, setting: Setting, column: TableColumn, best: tuple[Setting | None, set[Setting]]
) -> Cell:
    value = comparison.values(setting, column.metric)[0]
    if math.isnan(value):
        return Cell("-")
    if column.unit == "ms":
        value *= 1000
    mark = "best" if setting == best[0] else "tie" if setting in best[1] else ""
    return Cell(f"{value:.{column.digits}f}", mark)


def legend(comparison: Comparison) -> list[str]:
    """What marks, intervals and words in place of a change mean."""
    found = {comparison.same.get(setting, "") for setting in comparison.plan.settings}
    same = [f"instead of a change, {explained(reason)}" for reason in MEANINGS if reason in found]
    count = comparison.plan.replications
    if count < 3:
        return ["* best of its column; no intervals, which need 3 replications or more", *same]
    return [
        "* best of its column; ~ cannot be told from it (95 % interval of the paired difference includes 0)",
        f"± 95 % over {count} replications of the workload; it does not cover the error of the latency model",
        *same,
    ]


def document(comparison: Comparison, provenance: dict[str, Any]) -> dict[str, Any]:
    """What ``compare --json`` prints; numbers that do not exist are null."""
    return {
        "rows": without_nan(comparison.rows()),
        "calibration": without_nan(comparison.calibration()),
        "answer": answer(comparison),
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
        "phase": plan.phase,
        "max_in_flight": plan.scenario(BASELINE).limit,
        "max_num_seqs": engine.max_num_seqs,
        "kv_blocks": engine.kv_blocks,
        "refill_lag": plan.refill_lag,
        **({} if plan.arrivals is None else {"arrivals": plan.arrivals.model_dump(exclude_defaults=True)}),
        **({"tiers": [rule.model_dump(exclude_defaults=True) for rule in plan.tiers]} if plan.tiers else {}),
    }


def write(comparison: Comparison, provenance: dict[str, Any], folder: Path) -> None:
    """Fill ``folder`` with rows.csv, comparison.json, the figures and report.html."""
    from driftsim.comparison.figures import draw
    from driftsim.figures import save

    rows = [{name: _cell_text(value) for name, value in row.items()} for row in flat_rows(comparison)]
    with (folder / "rows.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(name for row in rows for name in row)))
        writer.writeheader()
        writer.writerows(rows)
    (folder / "comparison.json").write_text(dumps(document(comparison, provenance)) + "\n")
    pictures = {name: save(figure, folder, name) for name, figure in draw(comparison).items()}
    (folder / "report.html").write_text(html(comparison, provenance, pictures))


def html(comparison: Comparison, provenance: dict[str, Any], pictures: dict[str, Path]) -> str:
    """One self-contained page: it opens from disk and needs no network."""
    from jinja2 import Environment, PackageLoader

    environment = Environment(
        loader=PackageLoader("driftsim.comparison", ""), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    headings, rows = table(comparison)
    figures = [(title, base64.b64encode(pictures[name].read_bytes()).decode()) for name, title in FIGURES.items()]
    return environment.get_template("report.html.j2").render(
        answer=answer(comparison),
        warnings=warnings(comparison),
        headings=headings,
        rows=rows,
        legend=legend(comparison),
        tiers=tiers(comparison),
        effects=effects(comparison),
        terms=TERMS,
        figures=figures,
        provenance=provenance,
        admission=comparison.plan.admission.model_dump(mode="json"),
        version=__version__,
    )


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
    """The rows of ``comparison`` with plain columns: those of a tier begin with its name."""
    rows = []
    for row in comparison.rows():
        flat = {name: value for name, value in row.items() if name != "per_tier"}
        for tier, values in row["per_tier"].items():
            flat |= {f"{tier}_{name}": value for name, value in values.items()}
        rows.append(flat)
    return rows


def _cell_text(value: Any) -> Any:
    return "" if isinstance(value, float) and math.isnan(value) else value
