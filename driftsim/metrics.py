"""Metrics turn a trace into latencies, estimation errors, fairness and waiting; they define every printed number.

Latencies are over finished requests, in seconds, with linear percentiles; counts are of offered requests.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import kendalltau

from driftsim.accounting import Accounting
from driftsim.admission import Admission
from driftsim.trace import TIER_NAMES, Trace, TraceError

FEWEST_FOR_P99 = 300
FEW = 200  # requests, whose pairs are quickly counted
READ = (
    "tier", "phase", "tenant", "finish_reason", "category", "predicted_category", "predicted_category_unlabelled",
    "prompt_tokens", "prompt_words", "output_tokens", "output_words", "estimate", "budget", "scheduling_class",
    "arrival_s", "dispatch_s", "scheduled_s", "first_token_s", "finish_s", "preemptions",
)  # fmt: skip
LATENCIES = ("e2e", "ttft", "tpot")
PERCENTILES = {"p50": 50, "p90": 90, "p99": 99}


def e2e(rows: pd.DataFrame) -> pd.Series:
    """End-to-end latency, arrival to last token, in seconds."""
    return rows["finish_s"] - rows["arrival_s"]


def ttft(rows: pd.DataFrame) -> pd.Series:
    """Time to first token since arrival, in seconds; NaN where the engine shows none, as a barrier engine does."""
    return rows["first_token_s"] - rows["arrival_s"]


def tpot(rows: pd.DataFrame) -> pd.Series:
    """Time per output token after the first, in seconds, as vLLM's benchmark defines it; NaN for a single token."""
    tokens = rows["output_tokens"].astype(float) - 1
    return (rows["finish_s"] - rows["first_token_s"]) / tokens.where(tokens > 0)


def engine_e2e(rows: pd.DataFrame) -> pd.Series:
    """The engine's own share of the end-to-end latency, since dispatch, in seconds."""
    return rows["finish_s"] - rows["dispatch_s"]


def engine_ttft(rows: pd.DataFrame) -> pd.Series:
    """The engine's own share of the time to first token, since dispatch, in seconds."""
    return rows["first_token_s"] - rows["dispatch_s"]


def service_start(rows: pd.DataFrame) -> pd.Series:
    """When waiting ended: first computed, or dispatched where the engine does not tell, in seconds."""
    return rows["scheduled_s"].fillna(rows["dispatch_s"])


def latency_summary(rows: pd.DataFrame) -> dict[str, float]:
    """``{e2e,ttft,tpot}_{mean,p50,p90,p99}_s`` over ``rows``, NaN where there is nothing to summarise."""
    summary: dict[str, float] = {}
    for name, values in (("e2e", e2e(rows)), ("ttft", ttft(rows)), ("tpot", tpot(rows))):
        summary |= _latencies(name, values.to_numpy(dtype=float))
    return summary


def _latencies(name: str, values: np.ndarray) -> dict[str, float]:
    """Mean and percentiles of the known values."""
    known = values[~np.isnan(values)]
    if not len(known):
        return dict.fromkeys((f"{name}_{stat}_s" for stat in ("mean", *PERCENTILES)), np.nan)
    found = np.percentile(known, list(PERCENTILES.values()))
    return {f"{name}_mean_s": float(known.mean())} | {
        f"{name}_{label}_s": float(value) for label, value in zip(PERCENTILES, found, strict=True)
    }


def estimation_summary(rows: pd.DataFrame, unit: Accounting, admission: Admission) -> dict[str, float]:
    """Error of the estimates of finished ``rows``: MAE and RMSE in the accounting's unit, ranks and classes.

    ``kendall_tau`` is tau-b of budget against prompt plus actual output, ``kendall_tau_within`` the same averaged over
    category x tier, weighted by pairs. ``class_accuracy``: the scheduling class of the budget is that of the truth.
    """
    actual = unit.lengths(rows["output_tokens"], rows["output_words"])
    prompt = unit.lengths(rows["prompt_tokens"], rows["prompt_words"])
    error = rows["estimate"].to_numpy(dtype=float) - actual
    budget, total = rows["budget"].to_numpy(dtype=float), prompt + actual
    if not len(rows):
        return dict.fromkeys(("mae", "rmse", "kendall_tau", "kendall_tau_within", "class_accuracy"), np.nan)
    names = np.array(["short", "medium", "long"], dtype=object)
    classes = names[np.searchsorted([admission.short, admission.medium], np.floor(total), side="left")]
    return {
        "mae": float(np.abs(error).mean()),
        "rmse": float(np.sqrt((error**2).mean())),
        "kendall_tau": _tau(budget, total),
        "kendall_tau_within": _tau_within(rows, admission.category_column, budget, total),
        "class_accuracy": float((rows["scheduling_class"].to_numpy() == classes).mean()),
    }


def _tau(a: np.ndarray, b: np.ndarray) -> float:
    """Kendall's tau-b; pair by pair where they are few, since SciPy takes a millisecond to begin."""
    if len(a) < 2:
        return np.nan
    if len(a) > FEW:
        return float(kendalltau(a, b).statistic)
    signs = [np.sign(values[:, None] - values[None, :]) for values in (a, b)]
    sizes = [float((sign != 0).sum()) for sign in signs]
    return float((signs[0] * signs[1]).sum() / np.sqrt(sizes[0] * sizes[1])) if min(sizes) else np.nan


def _tau_within(rows: pd.DataFrame, column: str, budget: np.ndarray, total: np.ndarray) -> float:
    taus, weights = [], []
    for places in rows.groupby([column, "tier"], dropna=False).indices.values():
        tau = _tau(budget[places], total[places])
        if not np.isnan(tau):
            taus.append(tau)
            weights.append(len(places) * (len(places) - 1))
    return float(np.average(taus, weights=weights)) if taus else np.nan


def intervals_union(starts: np.ndarray, ends: np.ndarray) -> float:
    """Total length covered by the intervals, overlaps counted once.

    >>> intervals_union(np.array([0.0, 1.0, 5.0]), np.array([2.0, 3.0, 6.0]))
    4.0
    """
    order = np.argsort(starts, kind="stable")
    starts, ends = starts[order], np.maximum.accumulate(ends[order])
    begins = np.maximum(starts, np.concatenate([[-np.inf], ends[:-1]]))
    return float(np.maximum(ends - begins, 0).sum())


def waiting_fraction(rows: pd.DataFrame) -> float:
    """Share of the time from first arrival to last finish during which at least one request waited to be computed."""
    span = rows["finish_s"].max() - rows["arrival_s"].min()
    begun = rows[service_start(rows).notna()]
    if begun.empty or not span > 0:
        return 0.0
    return intervals_union(begun["arrival_s"].to_numpy(), service_start(begun).to_numpy()) / float(span)


def choice_fraction(rows: pd.DataFrame) -> float:
    """Share of the time during which two or more requests waited at the dispatcher: only then can order matter."""
    span = rows["finish_s"].max() - rows["arrival_s"].min()
    times, depth = queue_depth(rows, rows["dispatch_s"])
    if len(times) < 2 or not span > 0:
        return 0.0
    return float(np.diff(times)[depth[:-1] >= 2].sum() / span)


def queue_depth(rows: pd.DataFrame, until: pd.Series | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Requests waiting over time: moments (s), and the depth from each on.

    A request waits from its arrival until it is computed, or ``until`` another moment, such as its dispatch.
    """
    end = service_start(rows) if until is None else until
    queued = end > rows["arrival_s"]
    times = np.concatenate([rows["arrival_s"][queued].to_numpy(), end[queued].to_numpy()])
    change = np.concatenate([np.ones(queued.sum(), dtype=int), -np.ones(queued.sum(), dtype=int)])
    moments, place = np.unique(times, return_inverse=True)
    return moments, np.cumsum(np.bincount(place, weights=change, minlength=len(moments))).astype(int)


def jain_index(rows: pd.DataFrame) -> float:
    """Jain's fairness index over tenants, of their mean output tokens per second of end-to-end latency.

    1 is equal, 1 / tenants is one tenant taking all (Jain, Chiu and Hawe 1984).
    """
    rates = (rows["output_tokens"].astype(float) / e2e(rows)).groupby(rows["tenant"]).mean().to_numpy()
    return float(rates.sum() ** 2 / (len(rates) * (rates**2).sum())) if len(rates) else np.nan


def summary(
    trace: Trace, admission: Admission, *, phase: str = "all", scored: np.ndarray | None = None
) -> dict[str, Any]:
    """All metrics of ``trace``, or of its requests in one ``phase``, as one flat row plus ``per_tier``.

    ``scored`` masks the requests whose estimates count. Raises ``TraceError`` if the trace has no such phase.
    """
    offered = trace.requests[list(READ)]
    mask = np.ones(len(offered), dtype=bool) if scored is None else scored
    if phase != "all":
        names = [known.name for known in trace.header.workload.phases]
        if phase not in names:
            raise TraceError(f"unknown phase {phase!r}; choose one of all, {', '.join(names)}")
        mask = mask[(offered["phase"] == phase).to_numpy()]
        offered = offered[offered["phase"] == phase]
    done = offered["finish_reason"].isin(("stop", "length")).to_numpy()
    rows = offered[done]
    wait = (service_start(rows) - rows["arrival_s"]).to_numpy()
    row: dict[str, Any] = {
        "requests": len(offered),
        "finished": len(rows),
        "rejected": int((offered["finish_reason"] == "rejected").sum()),
        "errors": int((offered["finish_reason"] == "error").sum()),
        "scored": int((done & mask).sum()),
        **estimation_summary(offered[done & mask], admission.unit, admission),
        **latency_summary(rows),
        "p99_flagged": len(rows) < FEWEST_FOR_P99,
        "queue_wait_p50_s": float(np.percentile(wait, 50)) if len(wait) else np.nan,
        "queue_wait_p99_s": float(np.percentile(wait, 99)) if len(wait) else np.nan,
        "makespan_s": float(rows["finish_s"].max() - offered["arrival_s"].min()) if len(rows) else np.nan,
        "waiting_fraction": waiting_fraction(offered),
        "choice_fraction": choice_fraction(offered),
        "jain_index": jain_index(rows),
        "preemptions": int(offered["preemptions"].fillna(0).sum()),
    }
    tiers, seconds = offered["tier"].to_numpy(), e2e(rows).to_numpy(dtype=float)
    own = {tier: tiers == tier for tier in TIER_NAMES}
    row["per_tier"] = {
        tier: {"requests": int(mine.sum()), **_latencies("e2e", seconds[mine[done]]), "finished": int(mine[done].sum()),
               "p99_flagged": int(mine[done].sum()) < FEWEST_FOR_P99}
        for tier, mine in own.items()
        if mine.any()
    }  # fmt: skip
    return row
