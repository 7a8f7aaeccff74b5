"""A first guess of the step time from when requests overlapped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from scipy.optimize import nnls

from driftsim.metrics import tpot, ttft
from driftsim.trace.subset import taken
from driftsim.trace.trace import Trace
from driftsim.workloads.replay import as_recorded
from driftsim.workloads.workload import Workload


@dataclass(frozen=True, eq=False)
class Excerpt:
    """A run, of which only what had happened ``until`` a moment (s) is fitted; whatever arrived by then is in it.

    ``grouped``: its requests, as ``measures`` grouped them last.
    """

    trace: Trace
    until: float = np.inf
    grouped: dict[Any, Any] = field(default_factory=dict)
    _workloads: dict[bool, Workload] = field(default_factory=dict)

    def workload(self, loops: bool) -> Workload:
        """The requests of the run, see ``as_recorded``; made once, though a fit simulates them a hundred times."""
        if loops not in self._workloads:
            self._workloads[loops] = as_recorded(self.trace, loops=loops)
        return self._workloads[loops]


def beginning(trace: Trace, steps: float, until: float = np.inf) -> Excerpt:
    """The part of ``trace`` that took some number of ``steps``, and no longer than ``until`` (s)."""
    arrivals = trace.requests["arrival_s"].to_numpy()
    start, end = float(arrivals.min()), float(trace.finished["finish_s"].max())
    cut = min(until, start + steps * float(tpot(trace.finished).median()))
    if cut >= end:
        cut = np.inf
    order = np.argsort(arrivals, kind="stable")
    offered = taken(trace.requests, order[arrivals[order] <= cut])  # those that never finished are load, too
    return Excerpt(replace(trace, requests=offered, steps=None), cut)


def from_overlap(parts: Sequence[Excerpt]) -> np.ndarray:
    """A first guess of intercept, prefill token, decode request and context token (s), from when requests overlapped.

    Between its first and its last token a request has seen as many steps as it has made tokens since. The tokens of
    overlapping requests are interpolated linearly over each one's decode time.
    """
    columns, durations, first = [], [], []
    for part in parts:
        rows = part.trace.finished
        rows = rows[(rows["output_tokens"] > 1) & (rows["finish_s"] <= part.until)]
        begin, end = rows["first_token_s"].to_numpy(), rows["finish_s"].to_numpy()
        generated = rows["output_tokens"].to_numpy(dtype=float) - 1
        prompt = rows["prompt_tokens"].to_numpy(dtype=float)
        keep = end > begin
        begin, end, generated, prompt = begin[keep], end[keep], generated[keep], prompt[keep]
        if not len(begin):
            continue
        rate = generated / (end - begin)
        tokens = integral(begin, end, rate, np.zeros(len(rate)))
        contexts = integral(begin, end, rate * (prompt - rate * begin), rate**2)
        order = np.argsort(begin)
        prefilled = np.concatenate([[0.0], np.cumsum(prompt[order])])
        prefills = (
            prefilled[np.searchsorted(begin[order], end, "right")]
            - prefilled[np.searchsorted(begin[order], begin, "right")]
        )
        columns.append(
            np.column_stack([generated, prefills, tokens(end) - tokens(begin), contexts(end) - contexts(begin)])
        )
        durations.append(end - begin)
        first.append(np.column_stack([rows["prompt_tokens"], ttft(rows)])[keep])
    matrix, duration = np.concatenate(columns), np.concatenate(durations)
    scale = np.maximum(np.abs(matrix).max(axis=0), 1e-300)
    coefficients = nnls(matrix / scale / duration[:, None], np.ones(len(duration)))[0] / scale
    prompts, waits = np.concatenate(first).T
    own = np.percentile((waits - 1.5 * duration.sum() / matrix[:, 0].sum()) / prompts, 10)
    coefficients[1] = max(coefficients[1], own, 0.0)
    coefficients[0] = max(coefficients[0], 0.1 * duration.sum() / matrix[:, 0].sum())
    return np.asarray(coefficients)


def integral(
    begin: np.ndarray, end: np.ndarray, level: np.ndarray, slope: np.ndarray
) -> Callable[[np.ndarray], np.ndarray]:
    """The integral over time of the sum of ``level + slope t`` over those alive at t, as a function of moments."""
    moments = np.concatenate([begin, end])
    order = np.argsort(moments, kind="stable")
    moments = moments[order]
    levels = np.cumsum(np.concatenate([level, -level])[order])
    slopes = np.cumsum(np.concatenate([slope, -slope])[order])
    gaps = np.diff(moments)
    pieces = levels[:-1] * gaps + slopes[:-1] * (moments[1:] ** 2 - moments[:-1] ** 2) / 2
    total = np.concatenate([[0.0], np.cumsum(pieces)])

    def until(times: np.ndarray) -> np.ndarray:
        place = np.clip(np.searchsorted(moments, times, "right") - 1, 0, len(moments) - 1)
        since = times - moments[place]
        return np.asarray(total[place] + levels[place] * since + slopes[place] * (times**2 - moments[place] ** 2) / 2)

    return until
