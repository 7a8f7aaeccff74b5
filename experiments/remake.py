"""Remake what is stored under experiments/, and the parts of README.md and traces/README.md that code produces.

python -m experiments.remake            # all of it
python -m experiments.remake --blocks   # only rewrite the blocks from what is stored
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd

from driftsim.trace.trace import Trace, read
from experiments import (
    accuracy,
    capture_overhead,
    estimation_error,
    first_principles,
    index,
    measured_policies,
    sweep_cost,
)
from experiments.paper import document as paper
from experiments.speed import document as speed

ROOT = estimation_error.ROOT
DEMO = ROOT / "experiments" / "which_scheduler"
DOCUMENTS = tuple(
    ROOT / name for name in ("README.md", "traces/README.md", "experiments/README.md", "experiments/paper/README.md")
)
KEPT = ("rows.csv", "comparison.json", "e2e_by_scheduler.svg", "e2e_by_scheduler.png")


def main() -> None:
    """Remake all, or only the blocks."""
    parser = argparse.ArgumentParser(prog="experiments.remake", description=str(__doc__).split("\n", 1)[0])
    parser.add_argument("--blocks", action="store_true", help="only rewrite the documents from what is stored")
    if not parser.parse_args().blocks:
        run_demo()
        estimation_error.main()
        measured_policies.main()
        accuracy.main()
        first_principles.main()
    for file in DOCUMENTS:
        file.write_text(with_blocks(file.read_text()))


def run_demo() -> None:
    """Run what ``make demo`` runs and keep its rows, its table and one figure."""
    DEMO.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as aside:
        out = Path(aside) / "out"
        command = [sys.executable, "-m", "driftsim.cli", "compare", str(estimation_error.TRACE), "--out", str(out)]
        environment = os.environ | {"COLUMNS": "100"}
        printed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment).stdout
        for name in KEPT:
            shutil.copy(out / name, DEMO / name)
    (DEMO / "table.txt").write_text("\n".join(line.rstrip() for line in printed.splitlines()) + "\n")


def with_blocks(text: str) -> str:
    """``text`` with every generated block, between its two comment lines, made anew."""
    for name, make in BLOCKS.items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end {name} -->)", re.DOTALL)
        text = pattern.sub(lambda found, make=make: found[1] + make() + found[2], text)  # type: ignore[misc]
    return text


def demo_block() -> str:
    """What the demo prints."""
    return f"```text\n{(DEMO / 'table.txt').read_text()}```\n"


def answer_block() -> str:
    """The demo's answer, as a list."""
    return "".join(f"* {sentence}\n" for sentence in json.loads((DEMO / "comparison.json").read_text())["answer"])


def error_block() -> str:
    """The estimation errors as a Markdown table."""
    lines = [
        "| accounting | base | scored | MAE off | MAE on | change | RMSE off | RMSE on | change | tau off | tau on |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in pd.read_csv(estimation_error.STORED).to_dict("records"):
        cells = [row["accounting"], row["base"], str(row["scored"])]
        for metric in ("mae", "rmse"):
            half = 50 * (row[f"{metric}_high"] - row[f"{metric}_low"])
            cells += [f"{row[f'{metric}_off']:.1f}", f"{row[f'{metric}_on']:.1f} {row['unit']}"]
            cells += [f"{100 * row[f'{metric}_change']:+.1f} ± {half:.1f} %"]
        cells += [f"{row['kendall_tau_off']:.3f}", f"{row['kendall_tau_on']:.3f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def traces_block() -> str:
    """The shipped traces as a Markdown table, from their headers."""
    lines = [
        "| trace | requests | ended by themselves | steps | engine | model | hardware | foreign CPU | recorded |",
        "|---|--:|--:|--:|---|---|---|--:|---|",
    ]
    groups: dict[str, list[Trace]] = {}
    for file in sorted((ROOT / "traces").rglob("header.json")):
        groups.setdefault(file.relative_to(ROOT / "traces").parts[0], []).append(read(file.parent))
    for name, runs in groups.items():
        header = runs[0].header
        rows = pd.concat([run.requests for run in runs])
        count = f"{len(runs)} x {len(runs[0].requests)}" if len(runs) > 1 else str(len(rows))
        foreign = max(run.header.load.foreign_cpu_mean for run in runs if run.header.load is not None)
        cells = [
            f"`{name}`", count, f"{100 * (rows['finish_reason'] == 'stop').mean():.0f} %",
            str(sum(0 if run.steps is None else len(run.steps) for run in runs)),
            f"{header.engine.name} {header.engine.version}", header.model, header.hardware, f"{foreign:.3f} cores",
            (header.captured_at or "")[:10],
        ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


BLOCKS = {
    "demo": demo_block,
    "answer": answer_block,
    "errors": error_block,
    "traces": traces_block,
    "measured": measured_policies.block,
    "accuracy": accuracy.accuracy_block,
    "effects": accuracy.effects_block,
    "first-principles": first_principles.block,
    "sweep-cost": sweep_cost.block,
    "overhead": capture_overhead.block,
    "speed": speed.block,
    "index": index.block,
    "paper-short": paper.short_block,
    "paper-claims": paper.claims_block,
    "paper-engines": paper.engines_block,
    "paper-sensitivity": paper.sensitivity_block,
    "paper-lengths": paper.lengths_block,
    "paper-answers": paper.answers_block,
    "paper-real": paper.real_block,
    "paper-estimators": paper.estimators_block,
}

if __name__ == "__main__":
    main()
