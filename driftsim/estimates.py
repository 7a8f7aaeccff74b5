"""How well output lengths were estimated in a run: every estimate as it was at admission, before its truth was known.

That is progressive validation (Dawid 1984): the estimator had learned from what had ended by then, and from nothing
else. Lengths are in the unit of the accounting.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from driftsim.drift import Injected, selected
from driftsim.errors import TraceError
from driftsim.metrics import estimation_summary, is_finished
from driftsim.rows import Columns
from driftsim.scheduling.admission import Admission
from driftsim.trace.trace import Trace

SMOOTHED = 20  # estimates whose mean tells whether they have moved
LATEST = 20  # estimates of a category that tell where they stood before
LEAST_SHIFT = 0.1  # of the logarithm of the lengths: a smaller one cannot be seen
NO_SHIFT = ("ramp", "season", "mix", "words")  # drifts without a moment at which lengths change by one factor


def estimation(
    trace: Trace, *, phase: str = "all", scored: np.ndarray | None = None, undrifted: pd.Series | None = None
) -> dict[str, Any]:
    """How well the output lengths of the finished requests of ``trace`` were estimated, each before it was known.

    phase: of its requests only. scored: a mask of the requests that count. undrifted: the estimates of the same run
    without its drift, by request id; with them, recovery is measured request by request. ``driftsim columns metrics``
    says what each key means; what a run cannot tell is NaN. Raises ``TraceError`` for a phase that the trace lacks.

    >>> from driftsim.trace.trace import read
    >>> found = estimation(read("traces/smollm2-cpu-drift"))
    >>> round(found["log_error"], 2), round(found["log_bias"], 2)
    (0.89, 0.02)
    """
    admission = Admission.of(trace.header.admission)
    table = trace.requests
    own = np.ones(len(table), dtype=bool) if scored is None else np.asarray(scored, dtype=bool)
    if phase != "all":
        names = [known.name for known in trace.header.workload.phases]
        if phase not in names:
            raise TraceError(f"unknown phase {phase!r}; choose one of all, {', '.join(names)}")
        own = own & (table["phase"] == phase).to_numpy(dtype=bool)
    rows = Columns.of(table)
    actual = admission.unit.lengths(rows["output_tokens"], rows["output_words"])
    estimate = rows["estimate"]
    counted = own & np.asarray(is_finished(rows), dtype=bool) & ~np.isnan(estimate) & ~np.isnan(actual)
    said, truth = estimate[counted], actual[counted]
    logs = np.log(np.maximum(said, 1) / np.maximum(truth, 1))
    plain = estimation_summary(rows[counted], admission.unit, admission)
    found: dict[str, Any] = {
        "scored": int(counted.sum()),
        "mae": plain["mae"],
        "log_error": _mean(np.abs(logs)),
        "log_bias": _mean(logs),
        "kendall_tau_estimate": plain["kendall_tau_estimate"],
    }
    found |= _of_quantiles(trace, truth, counted)
    return found | recovery(trace, undrifted)


def pinball(said: np.ndarray, truth: np.ndarray, level: float) -> np.ndarray:
    """The pinball loss of ``said`` as the quantile ``level`` of ``truth``: least in the mean at the true quantile.

    >>> pinball(np.array([10.0, 10.0]), np.array([14.0, 6.0]), 0.75).tolist()
    [3.0, 1.0]
    """
    above = truth - said
    loss: np.ndarray = np.where(above >= 0, level * above, (level - 1) * above)
    return loss


def _of_quantiles(trace: Trace, truth: np.ndarray, counted: np.ndarray) -> dict[str, float]:
    """What the quantiles that came with the estimates were worth; NaN where none did."""
    levels = _levels(trace)
    none = dict.fromkeys(("coverage_nominal", "coverage", "width", "pinball"), math.nan)
    if not levels or "estimate_low" not in trace.requests or not len(truth):
        return none
    low, high = (
        trace.requests[name].to_numpy(dtype=float, na_value=np.nan)[counted]
        for name in ("estimate_low", "estimate_high")
    )
    if len(levels) == 1:
        loss = _mean(pinball(high, truth, levels[0]))
        return none | {"coverage_nominal": levels[0], "coverage": _mean(truth <= high), "pinball": loss}
    losses = [pinball(end, truth, level) for end, level in ((low, levels[0]), (high, levels[-1]))]
    return {
        "coverage_nominal": levels[-1] - levels[0],
        "coverage": _mean((low <= truth) & (truth <= high)),
        "width": _mean(np.maximum(high - low, 0)),
        "pinball": _mean(np.concatenate(losses)),
    }


def _levels(trace: Trace) -> list[float]:
    """The levels of the quantiles, as the header has them; none where it has none, or what cannot be some."""
    levels = trace.header.admission.get("levels")
    real = isinstance(levels, list) and all(isinstance(one, float) and 0 < one < 1 for one in levels)
    return sorted(levels) if real and isinstance(levels, list) else []


def recovery(trace: Trace, undrifted: pd.Series | None = None) -> dict[str, Any]:
    """How long the estimates needed to follow the first injected shift of lengths half-way.

    A shift is a drift that changes lengths by one factor from some request on. The estimates of the requests that it is
    of have followed when the mean logarithm of ``SMOOTHED`` in a row has moved by half as much as that of the outputs
    did: away from the same estimates in the ``undrifted`` run, or, where that is not given, from the ``LATEST`` of
    their category before the shift, which is as noisy as these are. Counted are the requests before these.
    """
    none = {"recovered": None, "recovery_requests": math.nan, "recovery_s": math.nan}
    for drift in trace.header.drift:
        if drift.kind not in NO_SHIFT and abs(math.log(drift.realised or 1.0)) >= LEAST_SHIFT:
            return _recovery(trace, drift, undrifted) or none
    return none


def _recovery(trace: Trace, drift: Injected, undrifted: pd.Series | None) -> dict[str, Any] | None:
    table = trace.requests[selected(drift, trace.requests)]
    at = np.flatnonzero(table["request_id"].to_numpy() == drift.first_request)
    if not len(at):
        return None
    begin = int(at[0])
    logs = _logs(table["estimate"])
    if undrifted is not None:
        before = _logs(undrifted.reindex(table["request_id"]))[begin:]
    else:
        category = np.asarray(table["predicted_category"].fillna(""), dtype=object)
        stood = pd.Series(logs[:begin]).groupby(category[:begin]).agg(lambda own: own.tail(LATEST).mean())
        before = pd.Series(category[begin:]).map(stood).to_numpy(dtype=float)
    moved = logs[begin:] - before
    arrivals = table["arrival_s"].to_numpy(dtype=float)[begin:]
    known = ~np.isnan(moved)
    moved, arrivals = moved[known], arrivals[known]
    if len(moved) < SMOOTHED:
        return None
    shift = math.log(drift.realised or 1.0)
    means = np.convolve(moved, np.full(SMOOTHED, 1 / SMOOTHED), mode="valid")
    there = np.flatnonzero(means * np.sign(shift) >= abs(shift) / 2)
    if not len(there):
        return {"recovered": False, "recovery_requests": math.inf, "recovery_s": math.inf}
    first = int(there[0])
    return {
        "recovered": True, "recovery_requests": float(first), "recovery_s": float(arrivals[first] - arrivals[0]),
    }  # fmt: skip


def _logs(estimates: pd.Series) -> np.ndarray:
    logs: np.ndarray = np.log(np.maximum(estimates.to_numpy(dtype=float, na_value=np.nan), 1))
    return logs


def _mean(values: np.ndarray) -> float:
    return float(np.mean(values)) if len(values) else math.nan
