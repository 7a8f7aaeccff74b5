"""Is there a better correction? ``pooled`` beside DriftSched's, on every shipped trace and on DriftSched's workload.

On a trace, progressively: each request is estimated at its recorded arrival and learned from at its recorded finish. On
DriftSched's workload the engine is simulated. Beside them stands what hindsight leaves: the MAE if each request is
estimated at the median of the *others* of its category and tenant. A median of few requests that holds the request
itself would flatter hindsight: a request alone would be estimated at its own length.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
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
SCORES = ("mae", "rmse", "tau", "tau_length")
BOOTSTRAPS = 2000
CELL = ["category", "tenant"]


def traces() -> Iterator[tuple[str, Trace]]:
    """Every shipped trace, by name; of repeats of the same requests the first. None whose model has no weights."""
    for folder in sorted((ROOT / "traces").iterdir()):
        if folder.is_dir():
            trace = read(folder if (folder / "header.json").exists() else _first(folder))
            if trace.header.engine_arguments.get("load_format") != "dummy":  # its lengths are those of another
                yield folder.name, trace


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


def others_median(values: np.ndarray) -> np.ndarray:
    """For each of ``values`` the median of all the others; NaN for one alone.

    >>> others_median(np.array([1.0, 2.0, 4.0])).tolist()
    [3.0, 2.5, 1.5]
    """
    count = len(values)
    if count < 2:
        return np.full(count, np.nan)
    order, place = np.argsort(values, kind="stable"), np.arange(count)
    ranked, found = np.asarray(values, dtype=float)[order], np.empty(count)
    # the two middles of the count - 1 others; from the one that is left out on, ranks move up by one
    lower, upper = (ranked[middle + (place <= middle)] for middle in ((count - 2) // 2, (count - 1) // 2))
    found[order] = (lower + upper) / 2
    return found


def in_sample(rows: pd.DataFrame) -> float:
    """The MAE of each category's and tenant's median, the request itself among them: no estimate by these does better.

    It flatters: with few requests in a cell it is below what anybody who does not know the request can reach.
    """
    medians = rows.groupby(CELL)["observed"].transform("median")
    return float((rows["observed"] - medians).abs().mean())


def left_out(rows: pd.DataFrame) -> pd.Series:
    """The error of each request at the median of the others of its category and tenant; NaN for one alone there."""
    medians = rows.groupby(CELL)["observed"].transform(lambda own: others_median(own.to_numpy(dtype=float)))
    return (rows["observed"] - medians).abs().astype(float)


def scores(rows: pd.DataFrame) -> dict[str, float]:
    """MAE, RMSE, and Kendall's tau of the estimates in ``rows``: of budgets with totals, and without the prompt."""
    error = rows["estimate"].astype(float) - rows["observed"]
    tau = kendalltau(rows["estimate"] + rows["prompt"], rows["observed"] + rows["prompt"]).statistic
    length = kendalltau(rows["estimate"], rows["observed"]).statistic
    return {
        "mae": float(error.abs().mean()), "rmse": float(np.sqrt((error**2).mean())), "tau": float(tau),
        "tau_length": float(length),
    }  # fmt: skip


def request_sets(named: Mapping[str, Trace]) -> dict[str, str]:
    """For each trace the largest one that has all its requests, in kind and length; itself if no other does."""
    kinds = ["category", "tenant", "tier", "prompt_tokens", "prompt_words", "output_tokens"]
    bags = {name: Counter(trace.requests[kinds].itertuples(index=False, name=None)) for name, trace in named.items()}
    largest = sorted(bags, key=lambda name: (-bags[name].total(), name))
    return {name: next(other for other in largest if own <= bags[other]) for name, own in bags.items()}


def on_traces() -> pd.DataFrame:
    """A row per shipped trace, accounting and base: every estimator's scores, and pooled's MAE against ema's.

    The interval of that change is a paired bootstrap over the requests, 95 %. Rows of one ``comparison`` are the same
    estimates of the same requests; ``request_set`` names the trace that has all of a trace's requests.
    """
    named = dict(traces())
    sets = request_sets(named)
    rows = [
        row | {"request_set": sets[name]}
        for name, trace in named.items()
        for accounting in ACCOUNTINGS
        for base in BASES
        if (row := _on_trace(name, trace, Admission(accounting=accounting, base=base))) is not None  # type: ignore[arg-type]
    ]
    return pd.DataFrame(rows)


def distinct(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of ``on_traces`` without those that are another row again."""
    return rows.drop_duplicates("comparison")


def _on_trace(name: str, trace: Trace, admission: Admission) -> dict[str, Any] | None:
    used: frozenset[int] = frozenset()
    if admission.base == "fit":
        try:
            admission, used = fit_base(trace, admission)
        except TraceError:  # too few of a category: there is nothing to fit
            return None
    row: dict[str, Any] = {"trace": name, "accounting": admission.accounting, "base": admission.base}
    scored = {each: progressive(trace, each, admission) for each in ESTIMATORS}
    scored = {each: rows[~rows["source"].isin(used)] for each, rows in scored.items()}
    for each, rows in scored.items():
        row |= {f"{metric}_{each}": value for metric, value in scores(rows).items()}
    errors = {each: (rows["estimate"] - rows["observed"]).abs().to_numpy(float) for each, rows in scored.items()}
    row |= {"change": row["mae_pooled"] / row["mae_ema"] - 1, **_bootstrapped(errors["pooled"], errors["ema"])}
    return row | _hindsight(scored["static"], errors) | {
        "scored": len(scored["static"]), "comparison": _digest(scored),
        "taught": int((trace.requests["arrival_s"] > trace.requests["finish_s"].min()).sum()),
    }  # fmt: skip


def _bootstrapped(one: np.ndarray, other: np.ndarray) -> dict[str, float]:
    """Ends of the 95 % interval of the relative change of the mean error, requests resampled in pairs."""
    picks = stream(0, "bootstrap").integers(0, len(one), (BOOTSTRAPS, len(one)))
    ratios = one[picks].mean(axis=1) / other[picks].mean(axis=1) - 1
    return {"low": float(np.quantile(ratios, 0.025)), "high": float(np.quantile(ratios, 0.975))}


def _hindsight(rows: pd.DataFrame, errors: Mapping[str, np.ndarray]) -> dict[str, float]:
    """What hindsight leaves, with and without the request itself, and by the best estimator on the same requests."""
    left = left_out(rows).to_numpy()
    known = ~np.isnan(left)
    return {
        "in_sample": in_sample(rows), "leave_one_out": float(left[known].mean()), "alone": int((~known).sum()),
        "best_beside": float(min(each[known].mean() for each in errors.values())),
    }  # fmt: skip


def _digest(scored: Mapping[str, pd.DataFrame]) -> str:
    """Of what was estimated by whom, and what it was: rows with the same one are one comparison."""
    columns = [scored["static"]["observed"], *(rows["estimate"] for rows in scored.values())]
    return hashlib.sha256(np.column_stack(columns).astype(np.int64).tobytes()).hexdigest()[:12]


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
            row |= {f"{metric}_{estimator}": by[metric].xs(estimator).mean() for metric in SCORES}
        value, low, high = mean_interval(by["mae"].xs("pooled") / by["mae"].xs("ema") - 1)
        row |= {"change": value, "low": low, "high": high, "leave_one_out": float(part["leave_one_out"].mean())}
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
            found.append({**row, **scores(rows), "leave_one_out": float(left_out(rows).mean())})
    return found
