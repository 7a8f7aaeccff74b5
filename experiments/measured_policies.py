"""What does each policy change on the real engine? The interleaved runs of one backlog, five policies, five repeats.

    python -m experiments.measured_policies           # remakes measured_policies/rows.csv

Relative changes against FIFO with 95 % intervals: at one speed of the host (analysis of covariance), and as measured,
round by round.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from driftsim import CapturedComparison, read
from driftsim.comparison.captured import SHOWN, compare_captured
from driftsim.formatting import between, dumps
from driftsim.scheduling.policies import BASELINE
from driftsim.statistics import PRACTICAL, Interval
from experiments.arguments import plain

ROOT = Path(__file__).resolve().parent.parent
TRACES = ROOT / "traces" / "smollm2-cpu-policies"
STORED = Path(__file__).with_suffix("") / "rows.csv"
NOTES = STORED.with_name("notes.json")


def main() -> None:
    """Compare the runs and store the rows."""
    STORED.parent.mkdir(exist_ok=True)
    result = compared()
    rows(result).to_csv(STORED, index=False)
    NOTES.write_text(dumps([*result.warnings, *result.notes()]) + "\n")


def compared() -> CapturedComparison:
    """The shipped runs, compared."""
    folders = sorted(path.parent for path in TRACES.glob("*/header.json"))
    return compare_captured([(folder.name, read(folder)) for folder in folders])


def rows(result: CapturedComparison) -> pd.DataFrame:
    """One row per policy and metric."""
    slopes = {metric: each.slope.value for metric, each in result.adjustments.items()}
    return pd.DataFrame([asdict(effect) | {"slope": slopes.get(effect.metric)} for effect in result.effects()])


def block() -> str:
    """The changes as two Markdown tables, and what the runs leave open."""
    table = pd.read_csv(STORED)
    tests = int(table["p"].notna().sum())
    notes = json.loads(NOTES.read_text())
    lines = ["At one speed of the host, which the makespan, being the sum of the steps, cannot be brought to:", ""]
    lines += _table(table, at_one_speed=True)
    lines += ["", "As measured, round by round:", "", *_table(table, at_one_speed=False), ""]
    lines.append(
        f"\\* not 0 (p of at most 5 % after Holm over {tests} changes) and {100 * PRACTICAL:g} % or more. An interval "
        f"is that of one change alone. {' '.join(map(_sentence, notes))}"
    )
    return "\n".join(lines) + "\n"


def _table(table: pd.DataFrame, *, at_one_speed: bool) -> list[str]:
    names = [metric.removesuffix("_s").replace("_", " ") for metric in SHOWN]
    lines = ["| policy | runs | E2E mean, s | " + " | ".join(names) + " |", "|---|--:|--:|" + "--:|" * len(SHOWN)]
    for policy in table["policy"].drop_duplicates():
        own = table[table["policy"] == policy].set_index("metric")
        mean = own.loc["e2e_mean_s"]
        cells = [str(policy), str(mean["rounds"]), f"{mean['value']:.1f} ± {mean['spread']:.1f}"]
        cells += ["" if policy == BASELINE else _change(own.loc[metric], at_one_speed) for metric in SHOWN]
        lines.append("| " + " | ".join(cells) + " |")
    if at_one_speed:
        slopes = table.drop_duplicates("metric").set_index("metric")["slope"]
        told = ["not adjusted" if pd.isna(slopes[metric]) else f"{slopes[metric]:.2f}" for metric in SHOWN]
        lines.append("| slope | | | " + " | ".join(told) + " |")
    return lines


def _change(row: pd.Series, at_one_speed: bool) -> str:
    """A change with its interval; a star where it has one, beside the estimate that was tested."""
    if not at_one_speed:
        return between(Interval(row["change"], row["low"], row["high"]))
    if pd.isna(row["adjusted"]):
        return ""
    change = between(Interval(row["adjusted"], row["adjusted_low"], row["adjusted_high"]))
    return change + (" \\*" if row["star"] else "")


def _sentence(note: str) -> str:
    return f"{note[0].upper()}{note[1:]}."


if __name__ == "__main__":
    plain("experiments.measured_policies", __doc__)
    main()
