"""How far can a simulation be trusted? Profiles fitted to some runs, judged on others.

    python -m experiments.accuracy        # remakes accuracy/*.csv, and public.json where DRIFTSIM_DATA names the data

The shipped repeats of five policies on a real engine: each round is simulated with a profile fitted to the other four,
so no run is judged by a profile that has seen it. A public run on another GPU, of which only the timings of requests
are known: fitted to its first half minute, judged on the whole.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Hashable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from driftsim import Trace, import_trace, read
from driftsim.calibration.calibrate import calibrate
from driftsim.calibration.runs import Run
from driftsim.formats.mapping import Mapping
from driftsim.validation.agreement import (
    MetricAgreement,
    PolicyEffect,
    RankAgreement,
    metric_agreement,
    policy_effects,
    rank_agreement,
    repeats,
)
from driftsim.validation.validation import Validation, on_model_steps
from experiments.arguments import plain

ROOT = Path(__file__).resolve().parent.parent
TRACES = ROOT / "traces" / "smollm2-cpu-policies"
STORED = Path(__file__).with_suffix("")
POLICIES = ("fifo", "priority", "weighted", "sjf", "aging")
ROUNDS = range(1, 6)
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


def compute() -> tuple[list[MetricAgreement], list[PolicyEffect], list[RankAgreement]]:
    """Whether simulated values may be further runs; the policies' changes; how they are ranked."""
    validations, noisy = judged()
    rounds = repeats(validations)
    return metric_agreement(validations), policy_effects(rounds, noisy), rank_agreement(rounds)


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
    within, effects, order = compute()
    frames = {
        "cells": [asdict(cell) | {"error": cell.error, "within": cell.within} for cell in within],
        "changes": [_flat(change) for change in effects],
        "ranks": [asdict(one) | {"tau": one.tau} for one in order],
    }
    for name, rows in frames.items():
        pd.DataFrame(rows).to_csv(STORED / f"{name}.csv", index=False)
    file = data()
    if file is None:
        print("experiments/accuracy.py: DRIFTSIM_DATA names no folder with the public run; public.json kept")
    else:
        (STORED / "public.json").write_text(json.dumps(public(file), indent=1) + "\n")


def _flat(change: PolicyEffect) -> dict[str, Any]:
    found: dict[str, Any] = {"policy": change.policy, "metric": change.metric, "stat": change.stat}
    for side in ("measured", "simulated"):
        for name, value in zip(("", "_low", "_high"), getattr(change, side), strict=True):
            found[f"{side}{name}"] = value
    return found | {"agrees": "" if change.agrees is None else change.agrees}


def accuracy_block() -> str:
    """What was fitted on what, and how far off it is, as Markdown."""
    table = pd.read_csv(STORED / "cells.csv")
    names: dict[Hashable, str] = {"ttft": "TTFT", "tpot": "TPOT", "e2e": "E2E", "makespan": "makespan"}
    lines = [
        "Fitted on four rounds of five policies (steps), judged on the fifth, in turn: "
        f"{int(table['within'].sum())} of {len(table)} simulated values may be a further run "
        "(95 % prediction interval, log scale, Holm). High over "
        f"low end of that interval: {table['width'].min():.2f} to {table['width'].max():.2f}, median "
        f"{table['width'].median():.2f}. That is wide, since the host's speed drifts between runs: it proves little.",
        "",
        "| metric | error, median over policies | largest | noise floor (sd of repeats) | high / low |",
        "|---|--:|--:|--:|--:|",
    ]
    for (metric, stat), own in table.groupby(["metric", "stat"], sort=False):
        label = names[metric] if metric == "makespan" else f"{names[metric]} {stat}"
        worst = own["error"].iloc[own["error"].abs().argmax()]
        lines.append(
            f"| {label} | {100 * own['error'].median():+.1f} % | {100 * worst:+.1f} % | "
            f"{100 * own['spread'].median():.1f} % | {own['width'].median():.2f} |"
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
    """The policies' effects, simulated beside measured, and their ranks, as Markdown."""
    table, order = pd.read_csv(STORED / "changes.csv", keep_default_na=False), pd.read_csv(STORED / "ranks.csv")
    lines = [
        "| policy against fifo | metric | measured | simulated | same sign |",
        "|---|---|--:|--:|---|",
    ]
    for row in table.to_dict("records"):
        told = {"True": "yes", "False": "no", "": "within noise"}[str(row["agrees"])]
        both = [
            f"{100 * row[side]:+.1f} % [{100 * row[f'{side}_low']:+.1f}, {100 * row[f'{side}_high']:+.1f}]"
            for side in ("measured", "simulated")
        ]
        label = f"{row['metric'].upper()} {row['stat']}"
        lines.append(f"| {row['policy']} | {label} | {both[0]} | {both[1]} | {told} |")
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
