"""Calibration fits a latency profile to the steps of a recorded trace."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.optimize import nnls

from driftsim.latency import Fit, Profile
from driftsim.trace import Trace, TraceError

FEATURES = ("prefill_tokens", "decode_requests", "context_tokens")
FEWEST_STEPS = 30
FEWEST_SAMPLES = 5  # of a lag


def fit_profile(trace: Trace, digest: str = "") -> Profile:
    """A profile from ``trace``'s steps: non-negative least squares of the relative residuals, always with an intercept.

    Step noise grows with the duration, so residuals are weighted by the fitted value, found by iterating; weights of
    the recorded value instead would bias the fit low. Raises ``TraceError`` if the trace has too few steps to fit.
    """
    if trace.steps is None or len(trace.steps) < FEWEST_STEPS:
        have = "no steps table" if trace.steps is None else f"{len(trace.steps)} steps"
        raise TraceError(
            f"the trace has {have}, a profile needs {FEWEST_STEPS}; fit one to another trace "
            "(driftsim calibrate) and give it with --profile"
        )
    steps = trace.steps
    matrix = np.column_stack([np.ones(len(steps)), *(steps[name].to_numpy(dtype=float) for name in FEATURES)])
    duration = steps["duration_s"].to_numpy()
    scale = matrix.max(axis=0)
    scale[scale == 0] = 1.0
    fitted = np.full(len(steps), duration.mean())
    for _ in range(10):
        coefficients = nnls(matrix / scale / fitted[:, None], duration / fitted)[0] / scale
        fitted = np.maximum(matrix @ coefficients, 1e-9)
    # A step is never free; a fit through the origin would be, and starves the engine of time (see the design).
    intercept, prefill, decode, context = (float(value) for value in coefficients)
    notify, submit = _lags(trace, steps)
    return Profile(
        model=trace.header.model,
        hardware=trace.header.hardware,
        engine=trace.header.engine,
        intercept_s=max(intercept, 1e-6),
        prefill_token_s=prefill,
        decode_request_s=decode,
        context_token_s=context,
        gap_s=_gap(steps),
        notify_lag_s=notify,
        submit_lag_s=submit,
        fitted_on=(digest,) if digest else (),
        fit=_quality(duration, fitted),
    )


def _quality(duration: np.ndarray, fitted: np.ndarray) -> Fit:
    residual = duration - fitted
    return Fit(
        steps=len(duration),
        mean_absolute_percentage_error=float(np.mean(np.abs(residual) / duration)),
        r_squared=float(1 - residual.var() / duration.var()) if duration.var() > 0 else 1.0,
        bias=float(fitted.sum() / duration.sum() - 1),
    )


def _gap(steps: pd.DataFrame) -> float:
    """Mean host overhead between steps, over those that follow without an idle spell: somebody was decoding on."""
    start, end = steps["start_s"].to_numpy(), (steps["start_s"] + steps["duration_s"]).to_numpy()
    gaps = (start[1:] - end[:-1])[steps["decode_requests"].to_numpy()[1:] > 0]
    return float(max(0.0, gaps.mean())) if len(gaps) else 0.0


def _lags(trace: Trace, steps: pd.DataFrame) -> tuple[float, float]:
    """Median seconds from a finish to the dispatch into its slot, and from a dispatch to an idle engine's core.

    The first is taken over jobs that had arrived before the last finish before their dispatch, when every slot was
    taken until that finish; with too few of these it is set equal to the second, being one message the other way. An
    idle core takes a request at once, a busy one only at the next step boundary: the second is the median over
    dispatches to an idle core, or the smallest of all where there are too few of these.
    """
    rows = trace.finished
    rows = rows[rows["dispatch_s"].notna() & rows["queued_s"].notna()]
    if rows.empty:
        return 0.0, 0.0
    dispatch = rows["dispatch_s"].to_numpy()
    delay = rows["queued_s"].to_numpy() - dispatch
    idle = delay[_is_idle(steps, dispatch)]
    submit = float(max(0.0, np.median(idle) if len(idle) >= FEWEST_SAMPLES else delay.min()))
    notify = _refill_delays(rows, trace.header.max_in_flight)
    return float(np.median(notify)) if len(notify) >= FEWEST_SAMPLES else submit, submit


def _refill_delays(rows: pd.DataFrame, limit: int | None) -> np.ndarray:
    """Seconds from the finish that freed a slot to the dispatch that took it, where a job was waiting for it."""
    if limit is None:
        return np.array([])
    dispatch, arrival = rows["dispatch_s"].to_numpy(), rows["arrival_s"].to_numpy()
    ends, starts = np.sort(rows["finish_s"].to_numpy()), np.sort(dispatch)
    last = np.searchsorted(ends, dispatch, side="right") - 1
    freed = np.where(last >= 0, ends[np.maximum(last, 0)], np.nan)
    inside = np.searchsorted(starts, freed, side="left") - np.searchsorted(ends, freed, side="left")
    waited = (arrival < freed) & (inside >= limit)
    return np.asarray((dispatch - freed)[waited])


def _is_idle(steps: pd.DataFrame, moments: np.ndarray) -> np.ndarray:
    """Whether each moment (s) lies outside every step; hosts spend well under a millisecond between busy steps."""
    start, end = steps["start_s"].to_numpy(), (steps["start_s"] + steps["duration_s"]).to_numpy()
    last = np.searchsorted(start, moments, side="right") - 1
    after = np.where(last >= 0, end[np.maximum(last, 0)], -np.inf)
    return moments > after + 1e-3
