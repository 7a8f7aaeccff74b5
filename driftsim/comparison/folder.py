"""The folder of a comparison: its rows, its document, its figures and its page."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

from driftsim.comparison import estimators
from driftsim.comparison.comparison import Comparison
from driftsim.comparison.page import page
from driftsim.comparison.report import document, flat_rows
from driftsim.comparison.slos import write_outcomes
from driftsim.formatting import dumps
from driftsim.text import for_csv


def write(comparison: Comparison, provenance: dict[str, Any], folder: Path) -> None:
    """Fill ``folder`` with rows.csv, comparison.json, the figures and report.html."""
    from driftsim.comparison.figures import draw
    from driftsim.figures import save

    rows = [{str(for_csv(name)): _cell_text(value) for name, value in row.items()} for row in flat_rows(comparison)]
    with (folder / "rows.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(name for row in rows for name in row)))
        writer.writeheader()
        writer.writerows(rows)
    (folder / "comparison.json").write_text(dumps(document(comparison, provenance)) + "\n", encoding="utf-8")
    for name, figure in draw(comparison).items():
        save(figure, folder, name)
    if comparison.plan.slos:
        write_outcomes(comparison, folder / "slo.csv")
    if estimators.told(comparison):
        estimators.write(comparison, folder / "estimation.csv")
    (folder / "report.html").write_text(page(comparison, provenance), encoding="utf-8")


def _cell_text(value: Any) -> Any:
    return "" if isinstance(value, float) and math.isnan(value) else for_csv(value)
