"""Remake what is stored under experiments/ and examples/, and the parts of the READMEs and of docs/ that code produces.

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
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pandas as pd

from driftsim import Trace, read
from driftsim.engine.versions import SINCE
from experiments import (
    accuracy,
    capacity,
    capture_overhead,
    estimation_error,
    first_principles,
    gateway_cost,
    gpu,
    in_flight,
    index,
    measured_policies,
    sweep_cost,
    value_of_prediction,
)
from experiments.league import document as league
from experiments.paper import document as paper
from experiments.speed import document as speed

ROOT = estimation_error.ROOT
DEMO = ROOT / "experiments" / "which_scheduler"
EXAMPLES = tuple(sorted((ROOT / "examples").glob("*.py")))
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
        gpu.main()
        first_principles.main()
        capacity.main()
        value_of_prediction.main()
        in_flight.main()
        for script in EXAMPLES:
            script.with_suffix(".out").write_text(example_output(script))
    for file in documents():
        file.write_text(with_blocks(file.read_text()))


def documents() -> list[Path]:
    """Every page that holds a block which is made here."""
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    pages += [ROOT / name / "README.md" for name in ("traces", "experiments", "experiments/paper", "examples")]
    return sorted(page for page in pages if any(f"<!-- {name} -->" in page.read_text() for name in BLOCKS))


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


def short_demo_block() -> str:
    """Five rows of what the demo prints, one for each policy: the better of its two estimators by mean E2E."""
    rows = pd.read_csv(DEMO / "rows.csv")
    lines = [
        "| policy | estimates | mean E2E, s | against FIFO | median E2E, s | P99 E2E, s | mean TTFT, s |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    for policy in ("fifo", "priority", "weighted", "sjf", "aging"):
        row = rows[rows["policy"] == policy].sort_values("e2e_mean_s", kind="stable").iloc[0]
        half = 50 * (row["e2e_mean_vs_fifo_high"] - row["e2e_mean_vs_fifo_low"])
        change = f"{100 * row['e2e_mean_vs_fifo']:+.1f} ± {half:.1f} %" if half else ""
        cells = [policy, row["estimator"], f"{row['e2e_mean_s']:.1f}", change]
        cells += [f"{row[name]:.1f}" for name in ("e2e_p50_s", "e2e_p99_s", "ttft_mean_s")]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def example_output(script: Path) -> str:
    """What an example prints."""
    command = [sys.executable, str(script.relative_to(ROOT))]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT).stdout


def example_block(script: Path) -> str:
    """An example and what it prints."""
    code = script.read_text().split('"""\n', 1)[1].lstrip()
    return f"```python\n{code}```\n\n```text\n{script.with_suffix('.out').read_text()}```\n"


def answer_block() -> str:
    """The demo's answer, as a list."""
    return "".join(f"* {sentence}\n" for sentence in json.loads((DEMO / "comparison.json").read_text())["answer"])


def error_block() -> str:
    """The estimation errors as a Markdown table."""
    lines = [
        "| accounting | base | scored | MAE off | MAE on | change | RMSE off | RMSE on | change | tau off | tau on "
        "| tau of length off | on | of prompts alone |",
        "|---|---|" + "--:|" * 12,
    ]
    for row in pd.read_csv(estimation_error.STORED).to_dict("records"):
        cells = [row["accounting"], row["base"], str(row["scored"])]
        for metric in ("mae", "rmse"):
            half = 50 * (row[f"{metric}_high"] - row[f"{metric}_low"])
            cells += [f"{row[f'{metric}_off']:.1f}", f"{row[f'{metric}_on']:.1f} {row['unit']}"]
            cells += [f"{100 * row[f'{metric}_change']:+.1f} ± {half:.1f} %"]
        cells += [
            f"{row[f'kendall_tau_{name}']:.3f}" for name in ("off", "on", "estimate_off", "estimate_on", "prompt")
        ]
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


def versions_block() -> str:
    """What differs between the versions of vLLM, as a Markdown table."""
    lines = ["| rule | from vLLM | in vLLM |", "|---|---|---|"]
    for (major, minor), what, file in SINCE.values():
        lines.append(f"| {what[0].upper()}{what[1:]}. | {major}.{minor} | `{file}` |")
    return "\n".join(lines) + "\n"


BLOCKS: dict[str, Callable[[], str]] = {
    "versions": versions_block,
    "demo": demo_block,
    "demo-short": short_demo_block,
    "answer": answer_block,
    "errors": error_block,
    "traces": traces_block,
    "measured": measured_policies.block,
    "accuracy": accuracy.accuracy_block,
    "effects": accuracy.effects_block,
    "gpu": gpu.block,
    "first-principles": first_principles.block,
    "sweep-cost": sweep_cost.block,
    "overhead": capture_overhead.block,
    "gateway-cost": gateway_cost.block,
    "speed": speed.block,
    "index": index.block,
    "value-traces": value_of_prediction.block,
    "in-flight": in_flight.block,
    "league": league.block,
    "league-workloads": league.workloads_block,
    "paper-short": paper.short_block,
    "paper-claims": paper.claims_block,
    "paper-count": paper.count_block,
    "paper-engines": paper.engines_block,
    "paper-sensitivity": paper.sensitivity_block,
    "paper-lengths": paper.lengths_block,
    "paper-answers": paper.answers_block,
    "paper-real": paper.real_block,
    "paper-estimators": paper.estimators_block,
} | {f"capacity-{name}": partial(capacity.block, name) for name in capacity.SEARCHES}
BLOCKS |= {f"value-{name}": partial(value_of_prediction.text_block, name) for name in value_of_prediction.QUESTIONS}
BLOCKS |= {f"example-{script.stem}": partial(example_block, script) for script in EXAMPLES}

if __name__ == "__main__":
    main()
