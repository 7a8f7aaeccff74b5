"""Does estimating anew in flight help SRPT inside the engine? The residual life of kaplan-meier, against what it said.

    python -m experiments.in_flight            # remakes in_flight/rows.csv, under a minute

Generated workloads of the league's H200 at 0.95 of the rate at which it serves a backlog; changes of the mean latency
against FIFO inside, paired over 12 draws, with 95 % intervals.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

import driftsim as ds
from driftsim.formatting import between, markdown
from driftsim.statistics import LEVEL, Interval
from experiments.arguments import plain
from experiments.league.workloads import FIXTURES, h200

STORED = Path(__file__).with_suffix("") / "rows.csv"
DRAWS, LOAD = 12, 0.95
NAMES = ("bursty", "drifting", "azure")
SETTINGS = {  # what stands in the table, and what is run
    "FIFO": ("fifo", "static"),
    "said once": ("srpt", "kaplan-meier?residual=false"),
    "in flight": ("srpt", "kaplan-meier"),
    "the truth": ("srpt", "oracle"),
}


def main() -> None:
    """Run every workload and store the rows."""
    STORED.parent.mkdir(exist_ok=True)
    pd.DataFrame([row for name in NAMES for row in rows(name)]).to_csv(STORED, index=False)


def rows(name: str, draws: int = DRAWS) -> list[dict[str, Any]]:
    """One row for each setting but FIFO: change of the mean latency with its interval, and preemptions a request."""
    spec = FIXTURES[name].spec()
    assert spec.workload is not None
    first = ds.Workload.generated(spec.workload, 0)
    pace = LOAD * ds.backlog_rate(first, h200()) * float(first.table["offset_s"].max()) / len(first)
    values: dict[str, list[float]] = {label: [] for label in SETTINGS}
    gone = dict.fromkeys(SETTINGS, 0.0)
    for seed in range(draws):
        drawn = ds.Workload.generated(spec.workload, seed)
        drawn = replace(drawn, table=drawn.table.assign(offset_s=drawn.table["offset_s"] / pace))
        for label, (policy, estimator) in SETTINGS.items():
            run = ds.simulate(
                drawn, policy=policy, estimator=estimator, place="inside", profile=h200(), drift=spec.drift, seed=seed
            ).requests
            values[label].append(float((run["finish_s"] - run["arrival_s"]).mean()))
            gone[label] += float(run["preemptions"].mean()) / draws
    return [
        {"workload": name, "setting": label, **_change(values[label], values["FIFO"]), "preemptions": gone[label]}
        for label in list(SETTINGS)[1:]
    ]


def _change(values: Sequence[float], others: Sequence[float]) -> dict[str, float]:
    logs = np.log(values) - np.log(others)
    half = stats.t.ppf((1 + LEVEL) / 2, len(logs) - 1) * logs.std(ddof=1) / np.sqrt(len(logs))
    mean = logs.mean()
    return dict(zip(("change", "low", "high"), np.expm1([mean, mean - half, mean + half]).tolist(), strict=True))


def block() -> str:
    """One row for each workload."""
    table = []
    for name, own in pd.read_csv(STORED).groupby("workload", sort=False):
        cells = [
            f"{between(Interval(row['change'], row['low'], row['high']))}; {row['preemptions']:.1f}"
            for _, row in own.iterrows()
        ]
        table.append([f"`{name}`", *cells])
    return markdown(["workload", *list(SETTINGS)[1:]], table, 1)


def answer() -> str:
    """What it changes of the mean latency, beside what was said once, in a sentence."""
    found = pd.read_csv(STORED).pivot(index="workload", columns="setting", values="change")
    ratio = (1 + found["in flight"]) / (1 + found["said once"]) - 1
    worse = int((ratio > 0).sum())
    return (
        f"The mean latency by {100 * ratio.min():+.0f} to {100 * ratio.max():+.0f} % beside the estimate at admission: "
        f"worse on {worse} of {len(ratio)} workloads."
    )


if __name__ == "__main__":
    plain("experiments.in_flight", __doc__)
    main()
