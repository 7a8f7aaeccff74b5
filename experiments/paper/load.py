"""From which load on does order matter, and how much of it is the barrier's? Shortest first against first come.

Three engines: DriftSched's worker, a continuous engine with as many in flight, and one with all its slots. Poisson
arrivals at a multiple of what each engine can serve, so that all are pressed alike.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd
from joblib import Parallel, delayed

from driftsim import Scenario, e2e
from driftsim.metrics import choice_fraction
from driftsim.simulation.capacity import capacity as capacity_of
from driftsim.simulation.run import simulate
from driftsim.statistics import mean_interval
from driftsim.workloads.arrivals import Process, arriving
from experiments.paper.setup import scenario, workload

LOADS = (0.8, 1.0, 1.25, 2.0)
ENGINES = ("barrier", "continuous, 32 in flight", "continuous")
POLICIES = ("fifo", "sjf")
STATISTICS = ("mean", "p50", "p99", "long")  # long: the mean of the longest tenth of the requests, by true length
LONGEST = 0.9


def served_by(engine: str, policy: str) -> Scenario:
    """The scenario of ``policy`` before ``engine``."""
    made = scenario(policy, "static", "tokenizer", barrier=engine == "barrier")
    return replace(made, max_in_flight=32) if engine == ENGINES[1] else made


def capacity(engine: str, seed: int) -> float:
    """Requests a second that ``engine`` serves of DriftSched's requests if all are there at time 0."""
    return capacity_of(workload(seed), served_by(engine, "fifo"))


def _of_seed(engine: str, seed: int) -> list[dict[str, Any]]:
    rate, found = capacity(engine, seed), []
    for load in LOADS:
        made = arriving(workload(seed), Process(kind="poisson", rate=load * rate), seed)
        for policy in POLICIES:
            rows = simulate(served_by(engine, policy), made).finished
            seconds, tokens = e2e(rows), rows["output_tokens"].astype(float)
            found.append(
                {
                    "engine": engine, "load": load, "seed": seed, "policy": policy,
                    "capacity_rps": rate, "choice_fraction": choice_fraction(rows), "mean": seconds.mean(),
                    "p50": seconds.median(), "p99": seconds.quantile(0.99),
                    "long": seconds[tokens >= tokens.quantile(LONGEST)].mean(),
                }
            )  # fmt: skip
    return found


def rows(seeds: int, jobs: int = -1) -> pd.DataFrame:
    """A row per engine, load, policy and seed; latencies in seconds."""
    asked = [(engine, seed) for engine in ENGINES for seed in range(seeds)]
    found = Parallel(n_jobs=jobs)(delayed(_of_seed)(*each) for each in asked)
    return pd.DataFrame([row for part in found for row in part])


def gains(rows: pd.DataFrame) -> pd.DataFrame:
    """What shortest first changes against first come, by engine and load; paired by seed."""
    found = []
    for (engine, load), part in rows.groupby(["engine", "load"], sort=False):
        fifo, sjf = (part[part["policy"] == policy].set_index("seed") for policy in POLICIES)
        row: dict[str, Any] = {"engine": engine, "load": load}
        row |= {"choice_fraction": float(fifo["choice_fraction"].mean())}
        for name in STATISTICS:
            value, low, high = mean_interval(sjf[name] / fifo[name] - 1)
            row |= {name: value, f"{name}_low": low, f"{name}_high": high}
        found.append(row)
    return pd.DataFrame(found)
