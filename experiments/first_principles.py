"""How good is a profile from a datasheet? Two efficiencies fitted to one real run on an L4, the other runs predicted.

The measured medians are transcribed summaries of polyserve's runs (vLLM 0.11 on an NVIDIA L4, Qwen2.5-7B; MIT
licence), read from the folder that DRIFTSIM_DATA names; what comes out is stored beside this file.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import least_squares

from driftsim import Profile, Scenario, Workload, tpot, ttft
from driftsim.latency.roofline import Assumptions, Shape, derive
from driftsim.simulation.run import simulate
from driftsim.trace.header import Phase, WorkloadInfo
from driftsim.workloads.workload import COLUMNS
from experiments.arguments import plain

STORED = Path(__file__).with_suffix("") / "l4.json"
# https://huggingface.co/Qwen/Qwen2.5-7B-Instruct/blob/main/config.json
QWEN = Shape("Qwen2.5-7B-Instruct", 28, 3584, 18944, 28, 4, 128, 152064, False, 32768)
CHAT = (512, 128)
SHAREGPT = (158, 300)  # the median prompt; the outputs were not published, and TPOT hardly depends on them
REQUESTS = {"chat": {"1": 16, "4": 16, "8": 16}, "sharegpt": {"1": 8, "8": 16, "32": 64}}  # at each level, as published
SOURCE = "github.com/Aagam-Bothara/polyserve, NVIDIA L4, vLLM 0.11.0, Qwen2.5-7B-Instruct"


def data() -> Path | None:
    """The file of measured medians, if there is one."""
    file = Path(os.environ.get("DRIFTSIM_DATA", "data")) / "l4_vllm_summaries.json"
    return file if file.is_file() else None


def closed(users: str, lengths: tuple[int, int]) -> Workload:
    """``users`` who each send a request, wait for its end and send the next."""
    prompt, output = lengths
    count = REQUESTS["chat" if lengths == CHAT else "sharegpt"][users]
    table = pd.DataFrame(
        {
            "request_id": [f"r{row}" for row in range(count)], "tenant": "one", "tier": "standard", "phase": "closed",
            "category": None, "predicted_category": "short_qa", "predicted_category_unlabelled": "short_qa",
            "prompt_tokens": prompt, "prompt_words": pd.NA, "max_tokens": output, "offset_s": 0.0,
            "output_tokens": output, "output_words": pd.NA, "stops": False, "patience_s": np.nan,
            "source": np.arange(count),
        }
    )  # fmt: skip
    phase = Phase(name="closed", kind="closed", requests=count, users=int(users))
    return Workload(WorkloadInfo(name="closed loop", loop="closed", phases=(phase,)), table[COLUMNS])


def medians(profile: Profile, users: str, lengths: tuple[int, int]) -> dict[str, float]:
    """Median TTFT and TPOT (ms) of a closed loop."""
    rows = simulate(Scenario(profile=profile, policy="stock"), closed(users, lengths)).finished
    return {"ttft_ms": 1e3 * float(ttft(rows).median()), "tpot_ms": 1e3 * float(tpot(rows).median())}


def profile(bandwidth: float, compute: float, dtype: str = "bf16") -> Profile:
    """The L4's, with two efficiencies."""
    asked = {"dtype": dtype, "bandwidth_efficiency": bandwidth, "compute_efficiency": compute, "version": "0.11.0"}
    return derive("L4", QWEN, Assumptions.model_validate(asked))


def fit(run: dict[str, Any]) -> tuple[float, float]:
    """The efficiencies of bandwidth and compute with which a run's medians are simulated best."""

    def errors(efficiencies: np.ndarray) -> list[float]:
        bandwidth, compute = efficiencies.tolist()
        made = profile(bandwidth, compute)
        found = []
        for users, measured in run["by_concurrency"].items():
            simulated = medians(made, users, CHAT)
            found += [float(np.log(simulated[name] / measured[name])) for name in simulated]
        return found

    step = [0.01, 0.01]
    bandwidth, compute = least_squares(errors, [0.85, 0.45], bounds=(0.1, 1.0), diff_step=step, loss="soft_l1").x
    return float(bandwidth), float(compute)


def rows(content: dict[str, Any]) -> dict[str, Any]:
    """The fit, and every measured median beside its prediction."""
    runs = content["polyserve"]["runs"]
    bandwidth, compute = fit(runs[0])
    found = []
    for number, run in enumerate(runs):
        dtype = "fp8" if "fp8" in run["config"] else "bf16"
        lengths = CHAT if "chat" in run["workload"] else SHAREGPT
        made = profile(bandwidth, compute, dtype)
        tokens = made.engine.usable_kv_blocks * made.engine.block_size
        common = {"run": f"{run['workload'].split(' (')[0].split(' 512')[0]}, {dtype}", "fitted": number == 0}
        found.append(common | _row("KV cache (tokens)", "", run["kv_tokens"], tokens) | {"fitted": False})
        for users, measured in run["by_concurrency"].items():
            simulated = medians(made, users, lengths)
            for name in ("ttft_ms", "tpot_ms") if lengths == CHAT else ("tpot_ms",):
                found.append(common | _row(name, users, measured[name], simulated[name]))
    return {"source": SOURCE, "bandwidth_efficiency": bandwidth, "compute_efficiency": compute, "rows": found}


def _row(metric: str, users: str, measured: float, predicted: float) -> dict[str, Any]:
    error = predicted / measured - 1
    return {"metric": metric, "users": users, "measured": measured, "predicted": predicted, "error": error}


def block() -> str:
    """The stored rows as Markdown."""
    stored = json.loads(STORED.read_text())
    lines = [
        f"Efficiencies fitted on the first run: {100 * stored['bandwidth_efficiency']:.0f} % of the bandwidth, "
        f"{100 * stored['compute_efficiency']:.0f} % of the FLOP/s. Measured: {stored['source']}.",
        "",
        "| run | metric | users | measured | predicted | error |",
        "|---|---|---:|---:|---:|---:|",
    ]
    names = {"ttft_ms": "TTFT median (ms)", "tpot_ms": "TPOT median (ms)"}
    for row in stored["rows"]:
        lines.append(
            f"| {row['run']}{' (fitted)' if row['fitted'] else ''} | {names.get(row['metric'], row['metric'])} | "
            f"{row['users']} | {row['measured']:,.0f} | {row['predicted']:,.0f} | {100 * row['error']:+.1f} % |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Recompute the stored rows; without the data they stay as they are."""
    file = data()
    if file is None:
        print("experiments/first_principles.py: DRIFTSIM_DATA names no folder with l4_vllm_summaries.json; kept")
        return
    STORED.parent.mkdir(exist_ok=True)
    STORED.write_text(json.dumps(rows(json.loads(file.read_text())), indent=1) + "\n")


if __name__ == "__main__":
    plain("experiments.first_principles", __doc__)
    main()
