"""What a comparison says of its estimators: how well each told lengths before they were known, in this run."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

from driftsim.comparison.comparison import Comparison
from driftsim.formatting import without_nan
from driftsim.scheduling.names import spelled
from driftsim.text import for_csv

PUBLISHED = ("static", "ema")
LEGEND = (
    "log error: mean of |ln(estimate / output)|; tau: Kendall's, of estimate and output; covered: share of the outputs "
    "within the interval, and what was asked for; recovered: requests until the estimates had followed half a shift"
)


def told(comparison: Comparison) -> bool:
    """Whether there is more to say than the columns MAE and tau do: another estimator than the published, or drift."""
    others = [one for one in comparison.plan.settings if spelled(one.estimator).base not in PUBLISHED]
    return bool(others or comparison.plan.drift)


def title(comparison: Comparison) -> str:
    """The heading of the table."""
    return f"How each estimator did under {_policy(comparison)}, in this run: every estimate before its truth was known"


def table(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Headings and rows, as text: one row for each estimator, under one policy; all are in ``rows``."""
    word = "tokens" if comparison.plan.admission.unit.unit == "tokenizer" else "words"
    shown = [row for row in comparison.estimation_rows if row["policy"] == _policy(comparison)]
    covers = any(not math.isnan(row["coverage"]) for row in shown)
    shifts = any(row["recovered"] is not None for row in shown)
    headings = ["estimator", f"MAE ({word})", "log error", "tau"]
    headings += ["covered, of (%)", f"width ({word})"] if covers else []
    headings += ["recovered (requests)"] if shifts else []
    cells = []
    for row in shown:
        line = [
            row["estimator"],
            _text(row["mae"], 1),
            _text(row["log_error"], 2),
            _text(row["kendall_tau_estimate"], 3),
        ]
        if covers:
            share, asked = (_text(100 * row[name], 0) for name in ("coverage", "coverage_nominal"))
            line += ["-" if share == "-" else f"{share}, {asked}", _text(row["width"], 0)]
        if shifts:
            never = row["recovered"] is False
            line.append("never" if never else _text(row["recovery_requests"], 0))
        cells.append(line)
    return headings, cells


def document(comparison: Comparison) -> list[dict[str, Any]]:
    """The rows of all settings, as JSON holds them."""
    found: list[dict[str, Any]] = without_nan(comparison.estimation_rows)
    return found


def write(comparison: Comparison, file: Path) -> None:
    """Write the rows of all settings as CSV; what is not known is empty."""
    rows = comparison.estimation_rows
    with file.open("w", newline="", encoding="utf-8") as open_file:
        writer = csv.DictWriter(open_file, list(rows[0]))
        writer.writeheader()
        writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)


def _policy(comparison: Comparison) -> str:
    """The policy that most estimators stand under; fifo before others."""
    policies = [setting.policy for setting in comparison.plan.settings]
    return max(dict.fromkeys(policies), key=lambda policy: (policies.count(policy), policy == "fifo"))


def _cell(value: Any) -> Any:
    return "" if value is None or (isinstance(value, float) and math.isnan(value)) else for_csv(value)


def _text(value: float, digits: int) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"
