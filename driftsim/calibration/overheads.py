"""The delays around an engine's steps: host overhead between them, and what a dispatcher's messages take."""

from __future__ import annotations

import numpy as np
import pandas as pd

from driftsim.trace.steps import step_ends
from driftsim.trace.trace import Trace

FEWEST_SAMPLES = 5  # of a lag


def gap(steps: pd.DataFrame) -> float:
    """Mean host overhead between steps, over those that follow without an idle spell: somebody was decoding on."""
    start, end = steps["start_s"].to_numpy(), step_ends(steps)
    gaps = (start[1:] - end[:-1])[steps["decode_requests"].to_numpy()[1:] > 0]
    return float(max(0.0, gaps.mean())) if len(gaps) else 0.0


def lags(trace: Trace, steps: pd.DataFrame) -> tuple[float, float]:
    """Median seconds from a finish to the dispatch into its slot, and from a dispatch to an idle engine's core.

    Notify lag: over jobs that were already waiting, with every slot taken, when the finish occurred that freed their
    slot. Fewer than ``FEWEST_SAMPLES`` such jobs: the submit lag is used, since both are one message. Submit lag: an
    idle core takes a request at once, a busy core only at the next step boundary, so it is the median over dispatches
    to an idle core, or the smallest delay of all where there are too few of these.
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
    start, end = steps["start_s"].to_numpy(), step_ends(steps)
    last = np.searchsorted(start, moments, side="right") - 1
    after = np.where(last >= 0, end[np.maximum(last, 0)], -np.inf)
    return moments > after + 1e-3
