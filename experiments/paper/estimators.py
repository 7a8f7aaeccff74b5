"""Is there a better correction? ``pooled`` beside DriftSched's, on every shipped trace and on DriftSched's workload.

On a trace, progressively: each request is estimated at its recorded arrival and learned from at its recorded finish. On
DriftSched's workload the engine is simulated. *Irreducible* is the MAE left if each category and tenant is given
its median in hindsight: no estimate by category and tenant does better, but by luck.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from scipy.stats import kendalltau

from driftsim import Admission, Job, Trace, TraceError, read, replay
from driftsim.scheduling.estimators import make_estimator
from driftsim.simulation.bases import fit_base
from driftsim.simulation.run import simulate
from driftsim.statistics import mean_interval
from driftsim.trace.schema import CENSORED
from driftsim.workloads.workload import stream
from experiments.paper.setup import ACCOUNTINGS, ROOT, scenario, workload

ESTIMATORS = ("static", "ema", "pooled")
BASES = ("reference", "caps", "fit")
BOOTSTRAPS = 2000
POLICY_RUN = "smollm2-cpu-policies"  # many runs of the same requests: one of them stands for all


def traces() -> Iterator[tuple[str, Trace]]:
    """Every shipped trace, by name; of repeats of the same requests the first."""
    for folder in sorted((ROOT / "traces").iterdir()):
        if folder.is_dir():
            yield folder.name, read(folder if (folder / "header.json").exists() else _first(folder))


def _first(folder: Path) -> Path:
    return min(header.parent for header in folder.rglob("header.json"))


def progressive(trace: Trace, estimator: str, admission: Admission) -> pd.DataFrame:
    """Estimate at arrival, learn at completion, in the recorded order; a row a request of known length.

    Columns estimate, observed, prompt (in the accounting's unit), category (predicted), tenant, source (recorded row).
    """
    made = replay(trace)
    rows = trace.requests.loc[made.table["source"]].reset_index(drop=True)
    build, categories = made.requests(), made.categories(admission)
    observed = admission.unit.lengths(rows["output_tokens"], rows["output_words"]).astype(int)
    censored = rows["finish_reason"].isin(CENSORED).to_numpy()
    arrivals = [(time, 1, row) for row, time in enumerate(rows["arrival_s"])]
    finishes = [(time, 0, row) for row, time in enumerate(rows["finish_s"])]
    learner, jobs = make_estimator(estimator, admission, {}), dict[int, Job]()
    for now, arrives, row in sorted(arrivals + finishes):
        if arrives:
            request = build(row, now)
            guess = learner.estimate(request, categories[row], now)
            jobs[row] = Job(request, categories[row], guess.length, 0, bias=guess.bias, index=row)
        else:
            learner.observe(jobs[row], int(observed[row]), bool(censored[row]), now)
    return pd.DataFrame(
        {
            "estimate": [jobs[row].estimate for row in range(len(rows))],
            "observed": observed,
            "prompt": admission.unit.lengths(rows["prompt_tokens"], rows["prompt_words"]).astype(int),
            "category": categories,
            "tenant": rows["tenant"],
            "source": made.table["source"].to_numpy(),
        }
    )


def irreducible(rows: pd.DataFrame) -> float:
    """The MAE of each category's and tenant's median in hindsight."""
    medians = rows.groupby(["category", "tenant"])["observed"].transform("median")
    return float((rows["observed"] - medians).abs().mean())


def scores(rows: pd.DataFrame) -> dict[str, float]:
    """MAE, RMSE and Kendall's tau of the estimates in ``rows``."""
    error = rows["estimate"].astype(float) - rows["observed"]
    tau = kendalltau(rows["estimate"] + rows["prompt"], rows["observed"] + rows["prompt"]).statistic
    return {"mae": float(error.abs().mean()), "rmse": float(np.sqrt((error**2).mean())), "tau": float(tau)}


def on_traces() -> pd.DataFrame:
    """A row per shipped trace, accounting and base: every estimator's scores, and pooled's MAE against ema's.

    The interval of that change is a paired bootstrap over the requests, 95 %.
    """
    return pd.DataFrame(
        [
            row
            for name, trace in traces()
            for accounting in ACCOUNTINGS
            for base in BASES
            if (row := _on_trace(name, trace, Admission(accounting=accounting, base=base))) is not None  # type: ignore[arg-type]
        ]
    )


def _on_trace(name: str, trace: Trace, admission: Admission) -> dict[str, Any] | None:
    used: frozenset[int] = frozenset()
    if admission.base == "fit":
        try:
            admission, used = fit_base(trace, admission)
        except TraceError:  # too few of a category: there is nothing to fit
            return None
    row: dict[str, Any] = {"trace": name, "accounting": admission.accounting, "base": admission.base}
    errors = {}
    for estimator in ESTIMATORS:
        scored = progressive(trace, estimator, admission)
        scored = scored[~scored["source"].isin(used)]
        row |= {f"{metric}_{estimator}": value for metric, value in scores(scored).items()}
        errors[estimator] = (scored["estimate"] - scored["observed"]).abs().to_numpy(dtype=float)
    picks = stream(0, "bootstrap").integers(0, len(scored), (BOOTSTRAPS, len(scored)))
    ratios = errors["pooled"][picks].mean(axis=1) / errors["ema"][picks].mean(axis=1) - 1
    row |= {"change": row["mae_pooled"] / row["mae_ema"] - 1, "low": float(np.quantile(ratios, 0.025))}
    return row | {"high": float(np.quantile(ratios, 0.975)), "irreducible": irreducible(scored), "scored": len(scored)}


def on_workload(seeds: int, jobs: int = -1) -> pd.DataFrame:
    """DriftSched's workload under FIFO: scores by engine, caps, accounting and estimator, means over the seeds.

    ``change``, ``low``, ``high``: the MAE against ema's, paired by seed.
    """
    asked = [(engine, caps, seed) for engine in ("barrier", "continuous") for caps in ("reference", "natural")
             for seed in range(seeds)]  # fmt: skip
    made = pd.DataFrame(
        [row for part in Parallel(n_jobs=jobs)(delayed(_simulated)(*each) for each in asked) for row in part]
    )
    found = []
    for levels, part in made.groupby(["engine", "caps", "accounting"], sort=False):
        by = part.set_index(["estimator", "seed"])
        row = dict(zip(("engine", "caps", "accounting"), levels, strict=True))
        for estimator in ESTIMATORS:
            row |= {f"{metric}_{estimator}": by[metric].xs(estimator).mean() for metric in ("mae", "rmse", "tau")}
        value, low, high = mean_interval(by["mae"].xs("pooled") / by["mae"].xs("ema") - 1)
        row |= {"change": value, "low": low, "high": high, "irreducible": float(part["irreducible"].mean())}
        found.append(row)
    return pd.DataFrame(found)


def _simulated(engine: str, caps: str, seed: int) -> list[dict[str, Any]]:
    found, made = [], workload(seed, caps)
    for accounting in ACCOUNTINGS:
        for estimator in ESTIMATORS:
            asked = scenario("fifo", estimator, accounting, seed, barrier=engine == "barrier")
            done, unit = simulate(asked, made).finished, asked.admission.unit
            rows = pd.DataFrame(
                {
                    "estimate": done["estimate"].astype(int),
                    "observed": unit.lengths(done["output_tokens"], done["output_words"]),
                    "prompt": unit.lengths(done["prompt_tokens"], done["prompt_words"]),
                    "category": done["predicted_category"],
                    "tenant": done["tenant"],
                }
            )
            row = {"engine": engine, "caps": caps, "accounting": accounting, "estimator": estimator, "seed": seed}
            found.append({**row, **scores(rows), "irreducible": irreducible(rows)})
    return found
