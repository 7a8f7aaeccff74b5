"""The published study's runs: five schedulers, correction off and on, both accountings; rows that everything rests on.

Beside DriftSched's worker, FIFO and SJF run before a continuous engine, too: what is left of each effect there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from driftsim import Trace, summary
from driftsim.metrics import engine_e2e, queue_depth
from driftsim.request import TIERS
from driftsim.scheduling.admission import CLASSES
from driftsim.scheduling.classify import CATEGORIES
from driftsim.simulation.run import simulate
from driftsim.workers import map_shared, processes, shared
from experiments.paper.setup import ACCOUNTINGS, AS_CAPTURED, ESTIMATORS, POLICIES, Assumed, scenario, workload

PHASES = ("all", "stress")

FIGURED = 0  # the seed whose requests are drawn
PARTS = 4  # of a seed's runs, that workers are given
EVERY = 5  # request that is a point in a figure
MOMENTS = 150  # at which a queue's depth is drawn


class Run(NamedTuple):
    """One setting of the study."""

    engine: str
    policy: str
    estimator: str
    accounting: str


RUNS = tuple(
    Run(engine, policy, estimator, accounting)
    for engine, policies in (("barrier", POLICIES), ("continuous", ("fifo", "sjf")))
    for policy in policies
    for estimator in ESTIMATORS
    for accounting in ACCOUNTINGS
)


def rows(seeds: int, told: Callable[[int], None] = lambda seeds: None, jobs: int = 0) -> pd.DataFrame:
    """Every run under ``seeds`` workloads: a row per run and phase. ``told`` hears of each seed that is done."""
    found = []
    parts = [(seed, part) for seed in range(seeds) for part in range(PARTS)]
    with shared(None) as file:
        made = map_shared(_of_part, parts, file, processes(jobs), ordered=True)
        for (_, part), own in zip(parts, made, strict=True):
            found += own
            told(part == PARTS - 1)
    return pd.DataFrame(found)


def _of_part(_: None, each: tuple[int, int]) -> list[dict[str, Any]]:
    return _of_seed(*each)


def _of_seed(seed: int, part: int) -> list[dict[str, Any]]:
    size = len(RUNS) // PARTS
    return [row for run in RUNS[part * size : (part + 1) * size] for row in rows_of(run, seed)]


def trace_of(run: Run, seed: int, assumed: Assumed = AS_CAPTURED) -> Trace:
    """Simulate ``run`` on the workload of ``seed``."""
    asked = scenario(run.policy, run.estimator, run.accounting, seed, barrier=run.engine == "barrier")
    return simulate(asked, workload(seed, assumed=assumed))


def rows_of(run: Run, seed: int, assumed: Assumed = AS_CAPTURED) -> Iterator[dict[str, Any]]:
    """The metrics of ``run`` on the workload of ``seed``, over all requests and over the stress phase."""
    trace, admission = trace_of(run, seed, assumed), scenario(*run[1:]).admission
    for phase in PHASES:
        made = summary(trace, admission, phase=phase)
        done = trace.finished if phase == "all" else trace.finished[trace.finished["phase"] == phase]
        observed = admission.unit.lengths(done["output_tokens"], done["output_words"])
        tiers = made.pop("per_tier")
        yield {
            **run._asdict(),
            "seed": seed,
            "phase": phase,
            **made,
            **{f"{tier}_e2e_mean_s": tiers[tier]["e2e_mean_s"] for tier in tiers},
            **{f"engine_e2e_p{share}_s": float(np.percentile(engine_e2e(done), share)) for share in (50, 90, 99)},
            # how far estimates are off on the whole, and the last factor of each category
            "drift": float(observed.mean() / done["estimate"].astype(float).mean() - 1),
            **{f"bias_{category}": _last_bias(trace, category) for category in CATEGORIES},
        }


def _last_bias(trace: Trace, category: str) -> float:
    mine = trace.requests[trace.requests["predicted_category"] == category].sort_values("arrival_s")
    return float(mine["bias"].iloc[-1]) if len(mine) else np.nan


# -- what the figures of single runs show


def drawn() -> dict[str, pd.DataFrame]:
    """Tables of the figures that show one run: classes, biases, depths, estimates, by name."""
    traces = {run: trace_of(run, FIGURED) for run in RUNS if run.engine == "barrier"}
    return {
        "classes": pd.concat([_classes(run, trace) for run, trace in traces.items() if run.policy == "fifo"]),
        "bias": pd.concat([_bias(run, trace) for run, trace in traces.items() if run.estimator == "ema"]),
        "depth": pd.concat(
            [_depth(run, trace) for run, trace in traces.items() if run.accounting == "tokenizer" and run[2] == "ema"]
        ),
        "estimates": pd.concat([_estimates(run, trace) for run, trace in traces.items() if run.policy == "fifo"]),
    }


def _classes(run: Run, trace: Trace) -> pd.DataFrame:
    """Share of each category's requests in each scheduling class: as admitted, and as they turned out."""
    done, admission = trace.finished, scenario(*run[1:]).admission
    prompt = admission.unit.lengths(done["prompt_tokens"], done["prompt_words"])
    total = prompt + admission.unit.lengths(done["output_tokens"], done["output_words"])
    turned_out = pd.Series([admission.scheduling_class(int(length)) for length in total], index=done.index)
    parts = []
    for what, classes in (("admitted", done["scheduling_class"]), ("observed", turned_out)):
        shares = pd.crosstab(done["category"], classes, normalize="index").reindex(
            columns=list(CLASSES), fill_value=0.0
        )
        parts.append(shares.loc[list(CATEGORIES)].reset_index().assign(what=what))
    return pd.concat(parts).assign(estimator=run.estimator, accounting=run.accounting)


def _bias(run: Run, trace: Trace) -> pd.DataFrame:
    parts = []
    for category, mine in trace.requests.groupby("predicted_category"):
        part = mine.sort_values("arrival_s").iloc[::EVERY]
        parts.append(pd.DataFrame({"category": category, "request": part.index, "bias": part["bias"].round(4)}))
    return pd.concat(parts).assign(policy=run.policy, accounting=run.accounting)


def _depth(run: Run, trace: Trace) -> pd.DataFrame:
    parts = []
    end = float(trace.requests["finish_s"].max())
    for tier in TIERS:
        times, depth = queue_depth(trace.requests[trace.requests["tier"] == tier])
        moments = np.linspace(0, end, MOMENTS)
        places = np.searchsorted(times, moments, side="right") - 1
        waiting = np.where(places >= 0, depth[np.maximum(places, 0)], 0)
        parts.append(pd.DataFrame({"tenant": tier.value, "time_s": moments.round(2), "waiting": waiting}))
    return pd.concat(parts).assign(policy=run.policy)


def _estimates(run: Run, trace: Trace) -> pd.DataFrame:
    done, unit = trace.finished, scenario(*run[1:]).admission.unit
    made = pd.DataFrame(
        {
            "request_id": done["request_id"], "category": done["category"], "tier": done["tier"],
            "prompt": unit.lengths(done["prompt_tokens"], done["prompt_words"]).astype(int), "bias": done["bias"],
            "estimate": done["estimate"],
            "observed": unit.lengths(done["output_tokens"], done["output_words"]).astype(int),
            "scheduling_class": done["scheduling_class"],
        }
    ).iloc[::EVERY]  # fmt: skip
    return made.assign(estimator=run.estimator, accounting=run.accounting)


def store(tables: dict[str, pd.DataFrame], folder: Path) -> None:
    """Write ``tables`` as CSV files, by name."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        table.to_csv(folder / f"{name}.csv", index=False, float_format="%.8g")
