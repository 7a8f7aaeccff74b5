"""Metrics turn a trace into latencies, estimation errors, fairness and waiting; they define every printed number.

Latencies are over finished requests, in seconds, with linear percentiles; counts are of offered requests. Row-wise
functions return a Series for a DataFrame and an array for ``Columns``. The glossary says what each key means.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from driftsim.goodput import Judged, gaps_of_last, judge
from driftsim.rows import READ as READ
from driftsim.rows import Columns, Rows, Values, rowwise
from driftsim.scheduling.accounting import Accounting
from driftsim.scheduling.admission import Admission
from driftsim.sessions import session_summary
from driftsim.slo import AnySlos, needs_itl, slos_for
from driftsim.statistics import intervals_union as intervals_union
from driftsim.tiers import by_urgency
from driftsim.trace.attempts import fates, per_request
from driftsim.trace.header import Header
from driftsim.trace.schema import FINISHED
from driftsim.trace.trace import Trace

FEWEST_FOR_P99 = 300
FEW = 200  # requests, whose pairs are quickly counted
ESTIMATION = ("mae", "rmse", "kendall_tau", "kendall_tau_within", "kendall_tau_estimate", "class_accuracy")
LATENCIES = ("e2e", "ttft", "tpot")
PERCENTILES = {"p50": 50, "p90": 90, "p99": 99}


@rowwise
def e2e(rows: Rows) -> Values:
    """End-to-end latency, arrival to last token, in seconds.

    >>> rows = pd.DataFrame({"arrival_s": [1.0], "first_token_s": [1.5], "finish_s": [3.5], "output_tokens": [5]})
    >>> float(e2e(rows)[0])
    2.5
    """
    return rows["finish_s"] - rows["arrival_s"]


@rowwise
def ttft(rows: Rows) -> Values:
    """Time to first token since arrival, in seconds; NaN where the engine shows none, as a barrier engine does.

    >>> rows = pd.DataFrame({"arrival_s": [1.0], "first_token_s": [1.5]})
    >>> float(ttft(rows)[0])
    0.5
    """
    return rows["first_token_s"] - rows["arrival_s"]


@rowwise
def tpot(rows: Rows) -> Values:
    """Time per output token after the first, in seconds, as vLLM's benchmark defines it; NaN for a single token.

    >>> rows = pd.DataFrame({"first_token_s": [1.5], "finish_s": [3.5], "output_tokens": [5]})
    >>> float(tpot(rows)[0])
    0.5
    """
    tokens = rows["output_tokens"].astype(float)
    per_token: Values = (rows["finish_s"] - rows["first_token_s"]) / np.where(tokens > 1, tokens - 1, np.nan)
    return per_token


@rowwise
def engine_e2e(rows: Rows) -> Values:
    """The engine's own share of the end-to-end latency, since dispatch, in seconds."""
    return rows["finish_s"] - rows["dispatch_s"]


@rowwise
def engine_ttft(rows: Rows) -> Values:
    """The engine's own share of the time to first token, since dispatch, in seconds."""
    return rows["first_token_s"] - rows["dispatch_s"]


def service_start(rows: Rows) -> np.ndarray:
    """When waiting ended: first computed, or dispatched where the engine does not tell, in seconds."""
    scheduled, dispatched = (np.asarray(rows[name], dtype=float) for name in ("scheduled_s", "dispatch_s"))
    return np.where(np.isnan(scheduled), dispatched, scheduled)


def is_finished(rows: Rows) -> Any:
    """Which of ``rows`` finished, by themselves or at their cap."""
    by_itself, at_cap = (rows["finish_reason"] == reason for reason in FINISHED)
    return by_itself | at_cap


def latency_summary(rows: Rows) -> dict[str, float]:
    """``{e2e,ttft,tpot}_{mean,p50,p90,p99}_s`` over ``rows``, NaN where there is nothing to summarise."""
    summary: dict[str, float] = {}
    for name, values in (("e2e", e2e(rows)), ("ttft", ttft(rows)), ("tpot", tpot(rows))):
        summary |= _latencies(name, np.asarray(values, dtype=float))
    return summary


def _latencies(name: str, values: np.ndarray) -> dict[str, float]:
    """Mean and percentiles of the known values."""
    known = values[~np.isnan(values)]
    if not len(known):
        return dict.fromkeys((f"{name}_{stat}_s" for stat in ("mean", *PERCENTILES)), np.nan)
    percentiles = np.percentile(known, list(PERCENTILES.values()))
    return {f"{name}_mean_s": float(known.mean())} | {
        f"{name}_{label}_s": float(value) for label, value in zip(PERCENTILES, percentiles, strict=True)
    }


def estimation_summary(rows: Rows, unit: Accounting, admission: Admission) -> dict[str, float]:
    """Error of the estimates of finished ``rows``: MAE and RMSE in the accounting's unit, ranks and classes.

    ``kendall_tau`` is tau-b of budget against prompt plus actual output, ``kendall_tau_within`` the same averaged over
    category x tier, weighted by pairs. ``kendall_tau_estimate`` is tau-b of estimate against actual output: the prompt,
    which everybody knows, is in neither. ``class_accuracy``: the scheduling class of the budget is that of the truth.
    """
    actual = unit.lengths(rows["output_tokens"], rows["output_words"])
    prompt = unit.lengths(rows["prompt_tokens"], rows["prompt_words"])
    estimate, budget = (np.asarray(rows[name], dtype=float) for name in ("estimate", "budget"))
    error, total = estimate - actual, prompt + actual
    if not len(rows):
        return dict.fromkeys(ESTIMATION, np.nan)
    classes = admission.scheduling_classes(total)
    return {
        "mae": float(np.abs(error).mean()),
        "rmse": float(np.sqrt((error**2).mean())),
        "kendall_tau": _tau(budget, total),
        "kendall_tau_within": _tau_within(rows, admission.category_column, budget, total),
        "kendall_tau_estimate": _tau(estimate, np.asarray(actual, dtype=float)),
        "class_accuracy": float((np.asarray(rows["scheduling_class"]) == classes).mean()),
    }


def _tau(a: np.ndarray, b: np.ndarray) -> float:
    """Kendall's tau-b; pair by pair where they are few, since SciPy takes a millisecond to begin."""
    if len(a) < 2:
        return np.nan
    if len(a) > FEW:
        from scipy.stats import kendalltau  # takes half a second to import

        return float(kendalltau(a, b).statistic)
    signs = [np.sign(values[:, None] - values[None, :]) for values in (a, b)]
    sizes = [float((sign != 0).sum()) for sign in signs]
    return float((signs[0] * signs[1]).sum() / np.sqrt(sizes[0] * sizes[1])) if min(sizes) else np.nan


def _alike(*names: Any) -> list[np.ndarray]:
    """The places at which all of ``names`` are the same, in order of the names."""
    code = np.zeros(len(names[0]), dtype=np.int64)
    for one in names:
        codes, known = pd.factorize(np.asarray(one, dtype=object), sort=True, use_na_sentinel=True)
        code = code * (len(known) + 1) + np.where(codes < 0, len(known), codes)
    order = np.argsort(code, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(code[order])) + 1) if len(code) else []


def _tau_within(rows: Rows, column: str, budget: np.ndarray, total: np.ndarray) -> float:
    taus, weights = [], []
    for places in _alike(rows[column], rows["tier"]):
        tau = _tau(budget[places], total[places])
        if not np.isnan(tau):
            taus.append(tau)
            weights.append(len(places) * (len(places) - 1))
    return float(np.average(taus, weights=weights)) if taus else np.nan


def makespan(rows: Rows) -> float:
    """From the first arrival to the last known finish of ``rows``, in seconds; NaN where none is known.

    Over the offered requests of a run: the first arrival counts even if that request was rejected, and the last finish
    even if that request was aborted. Every makespan that is printed is this one.
    """
    begun, ended = (np.asarray(rows[name], dtype=float) for name in ("arrival_s", "finish_s"))
    known = ended[~np.isnan(ended)]
    return float(known.max() - begun.min()) if len(known) else np.nan


def waiting_fraction(rows: Rows) -> float:
    """Share of the time from first arrival to last finish during which at least one request waited to be computed."""
    span, start = makespan(rows), service_start(rows)
    begun = ~np.isnan(start)
    if not begun.any() or not span > 0:
        return 0.0
    return intervals_union(np.asarray(rows["arrival_s"])[begun], start[begun]) / span


def choice_fraction(rows: Rows, chosen: pd.Series | np.ndarray | None = None) -> float:
    """Share of the time during which two or more requests waited to be chosen: only then can order matter.

    ``chosen``: when each was (s); by default, when the dispatcher let it go.
    """
    span = makespan(rows)
    times, depth = queue_depth(rows, rows["dispatch_s"] if chosen is None else chosen)
    if len(times) < 2 or not span > 0:
        return 0.0
    return float(np.diff(times)[depth[:-1] >= 2].sum() / span)


def chosen_at(rows: Rows, header: Header) -> pd.Series | np.ndarray:
    """When the policy chose each request (s): as it left the dispatcher, or, inside the engine, as it was begun."""
    return rows["dispatch_s"] if header.admission.get("place", "front") == "front" else service_start(rows)


def queue_depth(rows: Rows, until: pd.Series | np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Requests waiting over time: moments (s), and the depth from each on.

    A request waits from its arrival until it is computed, or ``until`` another moment, such as its dispatch.
    """
    begin, end = np.asarray(rows["arrival_s"]), service_start(rows) if until is None else np.asarray(until)
    queued = end > begin
    times = np.concatenate([begin[queued], end[queued]])
    change = np.concatenate([np.ones(queued.sum(), dtype=int), -np.ones(queued.sum(), dtype=int)])
    moments, place = np.unique(times, return_inverse=True)
    return moments, np.cumsum(np.bincount(place, weights=change, minlength=len(moments))).astype(int)


def jain_index(rows: Rows, tenants: np.ndarray | None = None) -> float:
    """Jain's fairness index over tenants, of their mean output tokens per second of end-to-end latency.

    1 is equal, 1 / tenants is one tenant taking all (Jain, Chiu and Hawe 1984). A tenant of whom nothing finished got
    nothing and counts as 0; ``tenants`` are those of all offered requests (default: of ``rows``). NaN if nothing
    finished at all.
    """
    speeds = np.asarray(rows["output_tokens"].astype(float) / e2e(rows))
    known = [speeds[places][~np.isnan(speeds[places])] for places in _alike(rows["tenant"])]
    rates = np.array([own.mean() for own in known if len(own)])
    count = len(known) if tenants is None else len(pd.unique(tenants))
    return float(rates.sum() ** 2 / (count * (rates**2).sum())) if len(rates) else np.nan


def judged(trace: Trace, slos: AnySlos | Judged | None = None, phase: str = "all") -> Judged | None:
    """The offered requests of ``trace``, or of one ``phase``, held against ``slos``; None where there are none.

    By default, ``slos`` are those of the header; they may be what this function found of the whole trace. Raises
    ``InputError`` for what is no SLO of these requests.
    """
    sent, trace = trace, per_request(trace)
    rows = Columns.of(trace.requests)
    if isinstance(slos, Judged):
        whole = slos
    else:
        rules = trace.header.slos if slos is None else slos_for(slos, trace.requests)
        if not rules:
            return None
        gaps = gaps_of_last(sent) if needs_itl(rules) else np.full(len(rows), np.nan)
        times = {"ttft": ttft(rows), "tpot": tpot(rows), "itl": gaps, "e2e": e2e(rows)}
        whole = judge(rules, rows, is_finished(rows), times, makespan(rows))
    own = trace.in_phase(phase)
    return whole.part(own, makespan(rows[own]))


def summary(
    trace: Trace, admission: Admission | None = None, *, phase: str = "all", scored: np.ndarray | None = None,
    slos: AnySlos | Judged | None = None,
) -> dict[str, Any]:  # fmt: skip
    """All metrics of ``trace``, or of its requests in one ``phase``, as one flat row plus ``per_tier``,
    whose tiers stand in their order of urgency. With SLOs, also what kept them, and ``per_tenant``; with sessions, also
    their times.

    ``admission`` says how estimates are scored; by default the one that the trace's header describes. ``scored`` masks
    the requests whose estimates count. ``slos`` are those of ``judged``. Raises ``TraceError`` if the trace has no such
    phase.

    >>> from driftsim.trace.trace import read
    >>> row = summary(read("traces/smollm2-cpu-drift"))
    >>> row["finished"], round(row["e2e_mean_s"], 2)
    (360, 92.47)
    """
    if admission is None:
        admission = Admission.of(trace.header.admission)
    sent, trace = trace, per_request(trace)
    offered = Columns.of(trace.requests)
    mask = np.ones(len(offered), dtype=bool) if scored is None else scored
    chosen = trace.in_phase(phase)
    mask, offered = mask[chosen], offered[chosen]
    done = is_finished(offered)
    wait = service_start(rows := offered[done]) - rows["arrival_s"]
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
        "makespan_s": makespan(offered),
        "waiting_fraction": waiting_fraction(offered),
        "choice_fraction": choice_fraction(offered, chosen_at(offered, trace.header)),
        "jain_index": jain_index(rows, None if len(rows) == len(offered) else offered["tenant"]),
        "preemptions": int(np.nansum(offered["preemptions"])),
        **fates(sent, phase),
    }
    within = judged(sent, slos, phase)
    row |= (within.counts() if within else {}) | session_summary(trace, phase)
    tiers, seconds = offered["tier"], e2e(rows)
    own = {tier: tiers == tier for tier in by_urgency(set(tiers), trace.header.tiers)}
    row["per_tier"] = {
        tier: {"requests": int(mine.sum()), **_latencies("e2e", seconds[mine[done]]), "finished": int(mine[done].sum()),
               "p99_flagged": int(mine[done].sum()) < FEWEST_FOR_P99, **(within.counts(mine) if within else {})}
        for tier, mine in own.items()
    }  # fmt: skip
    return row | ({"per_tenant": within.by_tenant(offered["tenant"])} if within else {})
