"""What does each policy change on the real engine? The interleaved runs of one backlog, five policies, five repeats.

    python -m experiments.measured_policies           # remakes measured_policies/rows.csv

As measured: relative changes against FIFO round by round, with Student's t intervals over the rounds.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pandas as pd

from driftsim import CapturedComparison, read
from driftsim.comparison.captured import SHOWN, compare_captured
from experiments.arguments import plain

ROOT = Path(__file__).resolve().parent.parent
TRACES = ROOT / "traces" / "smollm2-cpu-policies"
STORED = Path(__file__).with_suffix("") / "rows.csv"


def main() -> None:
    """Compare the runs and store the rows."""
    STORED.parent.mkdir(exist_ok=True)
    rows(compared()).to_csv(STORED, index=False)


def compared() -> CapturedComparison:
    """The shipped runs, compared."""
    folders = sorted(path.parent for path in TRACES.glob("*/header.json"))
    return compare_captured([(folder.name, read(folder)) for folder in folders])


def rows(result: CapturedComparison) -> pd.DataFrame:
    """One row per policy and metric."""
    return pd.DataFrame([asdict(effect) for effect in result.effects()])


def block() -> str:
    """The changes as a Markdown table."""
    table = pd.read_csv(STORED)
    names = [metric.removesuffix("_s").replace("_", " ") for metric in SHOWN]
    lines = ["| policy | runs | E2E mean, s | " + " | ".join(names) + " |", "|---|--:|--:|" + "--:|" * len(SHOWN)]
    for policy in table["policy"].drop_duplicates():
        own = table[table["policy"] == policy].set_index("metric")
        mean = own.loc["e2e_mean_s"]
        cells = [str(policy), str(mean["rounds"]), f"{mean['value']:.1f} ± {mean['spread']:.1f}"]
        for metric in SHOWN:
            row = own.loc[metric]
            change = f"{100 * row['change']:+.1f} % [{100 * row['low']:+.1f}, {100 * row['high']:+.1f}]"
            cells.append("" if policy == "fifo" else change)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    plain("experiments.measured_policies", __doc__)
    main()
