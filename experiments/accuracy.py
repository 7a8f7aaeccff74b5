"""How far can a simulation be trusted? Profiles fitted to some runs, judged on others.

    python -m experiments.accuracy        # remakes accuracy/*.csv, and public.json where DRIFTSIM_DATA names the data

The shipped repeats of five policies on a real engine: each round is simulated with a profile fitted to the other four,
so no run is judged by a profile that has seen it. A public run on another GPU, of which only the timings of requests
are known: fitted to its first half minute, judged on the whole.
"""

from __future__ import annotations

import json
import math
import os
import zlib
from collections.abc import Hashable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import pandas as pd

from driftsim import Trace, import_trace, read
from driftsim.calibration.calibrate import calibrate
from driftsim.calibration.host_speed import NEARLY_THE_STEPS
from driftsim.calibration.runs import Run
from driftsim.formats.mapping import Mapping
from driftsim.formatting import between
from driftsim.statistics import Interval
from driftsim.validation.agreement import (
    ChangeAgreement,
    MetricAgreement,
    PolicyEffect,
    RankAgreement,
    change_agreement,
    metric_agreement,
    policy_effects,
    rank_agreement,
    repeats,
)
from driftsim.validation.equivalence import MARGIN, Verdict
from driftsim.validation.validation import Validation, on_model_steps
from experiments.arguments import plain

ROOT = Path(__file__).resolve().parent.parent
TRACES = ROOT / "traces" / "smollm2-cpu-policies"
STORED = Path(__file__).with_suffix("")
POLICIES = ("fifo", "priority", "weighted", "sjf", "aging")
ROUNDS = range(1, 6)
SIDES = ("measured", "simulated")
NOISY = 8  # simulations with noise of each run
UNTIL_S = 30.0  # of the public run
PUBLIC = "one RTX PRO 6000, vLLM 0.19, Llama-3.1-8B, 300 requests in an overload burst (LLMServingSim, CASYS lab, MIT)"


def judged() -> tuple[list[Validation], dict[str, list[Trace]]]:
    """Every run of the policies beside its simulation, and its simulations with noise; by policy."""
    runs = {(policy, turn): read(TRACES / f"{policy}-{turn}") for policy in POLICIES for turn in ROUNDS}
    validations = []
    noisy: dict[str, list[Trace]] = {policy: [] for policy in POLICIES}
    for turn in ROUNDS:
        others = [Run(f"{policy}-{other}", trace) for (policy, other), trace in runs.items() if other != turn]
        profile = calibrate(others)
        for policy in POLICIES:
            name, trace = f"{policy}-{turn}", runs[policy, turn]
            validations.append(on_model_steps(name, trace, profile))
            for number in range(NOISY):  # a stream of noise of its own, as the real runs had
                seed = zlib.crc32(f"{name} {number}".encode())
                noisy[policy].append(on_model_steps(name, trace, profile, noise=True, seed=seed).simulated)
    return validations, noisy


@dataclass(frozen=True)
class Agreement:
    """The error of the level; the policies' changes, and whether the simulated ones are those measured; the ranks."""

    cells: list[MetricAgreement]
    effects: list[PolicyEffect]
    changes: list[ChangeAgreement]
    ranks: list[RankAgreement]

    def rows(self) -> dict[str, list[dict[str, Any]]]:
        """What is stored, by the name of its file; an effect and its test are one row."""
        tests = {(one.policy, one.metric, one.stat): one.flat() for one in self.changes}
        return {
            "cells": [asdict(cell) | {"error": cell.error} for cell in self.cells],
            "changes": [_flat(one) | tests[one.policy, one.metric, one.stat] for one in self.effects],
            "ranks": [asdict(one) | {"tau": one.tau} for one in self.ranks],
        }


def compute() -> Agreement:
    """Simulate every run and hold it against the measured one."""
    validations, noisy = judged()
    rounds = repeats(validations)
    changes, _ = change_agreement(rounds)
    return Agreement(metric_agreement(validations), policy_effects(rounds, noisy), changes, rank_agreement(rounds))


def data() -> Path | None:
    """The public run, if it is at hand."""
    file = Path(os.environ.get("DRIFTSIM_DATA", "data")) / "vllm_rtxpro6000_llama3.1_8b" / "requests.jsonl"
    return file if file.is_file() else None


def public(file: Path) -> list[dict[str, Any]]:
    """The public run beside its simulation, with a profile of its first half minute."""
    columns = {
        "request_id": "request_id", "prompt_tokens": "input_toks", "output_tokens": "output_toks",
        "arrival_s": "queued_ts", "queued_s": "queued_ts", "scheduled_s": "scheduled_ts",
        "first_token_s": "first_token_ts", "finish_s": "last_token_ts",
    }  # fmt: skip
    engine = {"version": "0.19.0", "max_num_seqs": 128, "max_num_batched_tokens": 2048}
    mapping = Mapping(columns=columns, engine=engine, model="Llama-3.1-8B", hardware="RTX PRO 6000")
    trace = import_trace(file, mapping=mapping)
    profile = calibrate([Run(file.name, trace)], source="requests", until=UNTIL_S)
    return on_model_steps("public", trace, profile).rows()


def main() -> None:
    """Recompute and store everything that can be."""
    STORED.mkdir(exist_ok=True)
    for name, rows in compute().rows().items():
        pd.DataFrame(rows).to_csv(STORED / f"{name}.csv", index=False)
    file = data()
    if file is None:
        print("experiments/accuracy.py: DRIFTSIM_DATA names no folder with the public run; public.json kept")
    else:
        (STORED / "public.json").write_text(json.dumps(public(file), indent=1) + "\n")


def _flat(change: PolicyEffect) -> dict[str, Any]:
    found: dict[str, Any] = {"policy": change.policy, "metric": change.metric, "stat": change.stat}
    for side in SIDES:
        for name, value in zip(("", "_low", "_high"), getattr(change, side), strict=True):
            found[f"{side}{name}"] = value
    return found | {"agrees": "" if change.agrees is None else change.agrees}


def _between(row: dict[Hashable, Any], name: str) -> str:
    return between(Interval(*(float(row[f"{name}{end}"]) for end in ("", "_low", "_high"))))


def _verdicts(table: pd.DataFrame) -> str:
    """How many changes are the measured ones, in sentences."""
    counts = {
        name: ", ".join(f"{int((table[name] == verdict).sum())} {verdict}" for verdict in get_args(Verdict))
        for name in ("verdict", "verdict_as_measured")
    }
    decided = table[table["agrees"] != ""]
    same = int((decided["agrees"] == "True").sum())
    more = table.loc[table["more_rounds"] > 0, "more_rounds"]
    near = int(((table["verdict"] == "undetermined") & (table["more_rounds"] == 0)).sum())
    below = int((table["difference_adjusted"] < 0).sum())
    steps = table.loc[table["explained"] > NEARLY_THE_STEPS, ["metric", "stat"]].drop_duplicates()
    named = ", ".join(f"{metric.upper()} {stat}" for metric, stat in steps.itertuples(index=False))
    lines = [
        f"Of {len(table)} changes, at one speed of the host: {counts['verdict']}. As measured: "
        f"{counts['verdict_as_measured']}. *Equivalent*: the 90 % interval of simulated over measured change lies "
        f"within a factor of {math.exp(MARGIN):.2f}; *different*: it lies outside; each at 5 %.",
        f"The undetermined take {more.min()} more rounds at the least, {more.median():.0f} in the median; {near} lie "
        "so near the margin that no number is sure to decide.",
        f"{below} of the differences are below 0; all are against the same runs of FIFO, which opened every round.",
        f"Signs can be compared where both intervals exclude 0: {len(decided)} changes, the same in {same}.",
    ]
    if named:
        lines.append(
            f"The speed explains more than {100 * NEARLY_THE_STEPS:.0f} % of the variation in {named}: its verdicts at "
            "one speed are nearly the step-time model held against itself."
        )
    return " ".join(lines)


def accuracy_block() -> str:
    """What was fitted on what, and how far off it is, as Markdown."""
    table = pd.read_csv(STORED / "cells.csv")
    names: dict[Hashable, str] = {"ttft": "TTFT", "tpot": "TPOT", "e2e": "E2E", "makespan": "makespan"}
    lines = [
        "Fitted on four rounds of five policies (steps), judged on the fifth, in turn. The error of the mean over the "
        f"rounds is {100 * table['error'].abs().median():.1f} % in the median of {len(table)} values, "
        f"{100 * table['error'].abs().max():.1f} % at most. No verdict: the host's speed drifts between runs, and the "
        f"noise floor, the standard deviation of one run's repeats, is {100 * table['spread'].median():.0f} %.",
        "",
        "| metric | error, median over policies | largest | noise floor |",
        "|---|--:|--:|--:|",
    ]
    for (metric, stat), own in table.groupby(["metric", "stat"], sort=False):
        label = names[metric] if metric == "makespan" else f"{names[metric]} {stat}"
        worst = own["error"].iloc[own["error"].abs().argmax()]
        lines.append(
            f"| {label} | {100 * own['error'].median():+.1f} % | {100 * worst:+.1f} % | "
            f"{100 * own['spread'].median():.1f} % |"
        )
    rows = json.loads((STORED / "public.json").read_text())
    lines += [
        "",
        f"Fitted on the first {UNTIL_S:g} s of a public run (timings of requests alone), judged on all of it: "
        f"{PUBLIC}.",
        "",
        "| metric | measured | simulated | error |",
        "|---|--:|--:|--:|",
    ]
    for row in rows:
        if row["metric"] == "makespan" and row["stat"] != "mean":
            continue
        label = names[row["metric"]] + ("" if row["metric"] == "makespan" else f" {row['stat']}")
        lines.append(f"| {label} | {row['measured']:.4g} s | {row['simulated']:.4g} s | {100 * row['error']:+.1f} % |")
    return "\n".join(lines) + "\n"


def effects_block() -> str:
    """The policies' effects, simulated beside measured, the tests of both, and the ranks, as Markdown."""
    table, order = pd.read_csv(STORED / "changes.csv", keep_default_na=False), pd.read_csv(STORED / "ranks.csv")
    rows = table.to_dict("records")
    lines = [
        _verdicts(table),
        "",
        "| policy against fifo | metric | measured | simulated | same sign | simulated / measured, at one host speed | "
        "verdict | as measured | verdict |",
        "|---|---|--:|--:|---|--:|---|--:|---|",
    ]
    for row in rows:
        told = {"True": "yes", "False": "no", "": "within noise"}[str(row["agrees"])]
        cells = [
            row["policy"],
            f"{row['metric'].upper()} {row['stat']}",
            *(_between(row, side) for side in SIDES),
            told,
        ]
        for kind, verdict in (("adjusted", "verdict"), ("paired", "verdict_as_measured")):
            cells += [_between(row, f"difference_{kind}"), row[verdict]]
        lines.append("| " + " | ".join(cells) + " |")
    lines += [
        "",
        "| order of the five policies by | pairs in the same order | in the opposite one | ties, within the noise | "
        "Kendall's tau-b |",
        "|---|--:|--:|--:|--:|",
    ]
    for row in order.to_dict("records"):
        tau = "" if pd.isna(row["tau"]) else f"{row['tau']:.2f}"
        label = f"{row['metric'].upper()} {row['stat']}"
        lines.append(f"| {label} | {row['concordant']} | {row['discordant']} | {row['ties']} | {tau} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    plain("experiments.accuracy", __doc__)
    main()
