"""What the captured runs of a real engine say to the same questions, beside their own simulation.

Five rounds of every policy on vLLM (experiments/accuracy.py): the measured change from FIFO to SJF, and the simulated
one, each round with a profile fitted to the other rounds.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pandas as pd

from driftsim import Trace, e2e, read
from driftsim.calibration.calibrate import calibrate
from driftsim.calibration.runs import Run
from driftsim.request import TIERS
from driftsim.statistics import mean_interval
from driftsim.validation.validation import on_model_steps
from experiments.accuracy import ROUNDS, TRACES
from experiments.paper.load import LONGEST

POLICIES = ("fifo", "sjf")


def statistics(trace: Trace) -> dict[str, float]:
    """Latencies (s) by which a policy is judged: overall, of each tier, of the longest tenth by true length."""
    rows = trace.finished
    seconds, tokens = e2e(rows), rows["output_tokens"].astype(float)
    found = {
        "mean E2E": seconds.mean(),
        "median E2E": seconds.median(),
        "P99 E2E": seconds.quantile(0.99),
        "mean E2E of the longest tenth": seconds[tokens >= tokens.quantile(LONGEST)].mean(),
    }
    found |= {f"mean E2E of {tier.value}": seconds[rows["tier"] == tier.value].mean() for tier in TIERS}
    return {name: float(cast(float, value)) for name, value in found.items()}


def table() -> pd.DataFrame:
    """A row a statistic: change from FIFO to SJF, measured and simulated, with 95 % intervals over the rounds."""
    runs = {(policy, turn): read(TRACES / f"{policy}-{turn}") for policy in POLICIES for turn in ROUNDS}
    logs: dict[str, list[dict[str, float]]] = {"measured": [], "simulated": []}
    for turn in ROUNDS:
        profile = calibrate([Run(f"{name}-{other}", trace) for (name, other), trace in runs.items() if other != turn])
        both = {policy: on_model_steps(policy, runs[policy, turn], profile) for policy in POLICIES}
        for kind, of in (("measured", "recorded"), ("simulated", "simulated")):
            fifo, sjf = (statistics(getattr(both[policy], of)) for policy in POLICIES)
            logs[kind].append({name: float(np.log(sjf[name] / fifo[name])) for name in fifo})
    rows: list[dict[str, Any]] = []
    for name in logs["measured"][0]:
        row: dict[str, Any] = {"statistic": name}
        for kind, found in logs.items():
            value, low, high = np.expm1(mean_interval(np.array([each[name] for each in found])))
            row |= {kind: value, f"{kind}_low": low, f"{kind}_high": high}
        rows.append(row)
    return pd.DataFrame(rows)
