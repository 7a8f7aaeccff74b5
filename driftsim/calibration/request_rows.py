"""Rows of least squares from the timings of requests: what a simulated life says that each one's time was made of."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from driftsim.calibration.form import Form
from driftsim.calibration.least_squares import Rows, blocks, tenths
from driftsim.calibration.lives import PairedRun
from driftsim.metrics import ttft


def rows_of(lives: Sequence[PairedRun], form: Form, *, precision: tuple[float, float]) -> Rows:
    """Two rows for each request: from arrival to first token, and from first to last token.

    The columns are the form's, summed over the steps of the simulated life, and one for the constant overhead of a
    request. ``precision``: of the two kinds of rows.
    """
    parts = [_rows_of_life(life, form, precision) for life in lives]
    columns, durations, weights, requests = (list(values) for values in zip(*parts, strict=True))
    block, ranks = [], []
    lengths: list[int] = []
    first_block = 0
    for life, request in zip(lives, requests, strict=True):
        place = blocks(len(life.recorded), first_block)
        first_block = int(place.max()) + 1
        block.append(place[request])
        known, rank = np.unique(request, return_inverse=True)
        ranks.append(rank + sum(lengths))
        lengths.append(len(known))
    tenth = tenths(lengths)[np.concatenate(ranks)]
    return Rows(
        np.concatenate(columns), np.concatenate(durations), np.concatenate(block), np.concatenate(weights), tenth
    )


def _rows_of_life(
    life: PairedRun, form: Form, precision: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Of one life: columns, durations (s), precision, and the number of the request that each row is of."""
    passed = _passed(life, form)
    recorded = life.recorded
    waits = ttft(recorded).to_numpy(dtype=float)
    decode = (recorded["finish_s"] - recorded["first_token_s"]).to_numpy(dtype=float)
    columns, durations, weights, requests = [], [], [], []
    for own, time, one, precise, end in (
        (passed[1] - passed[0] + passed[3] - passed[2], waits, 1.0, precision[0], recorded["first_token_s"].to_numpy()),
        (passed[4] - passed[3], decode, 0.0, precision[1], recorded["finish_s"].to_numpy()),
    ):
        known = life.finished & (time > 0) & own.any(axis=1) & (end <= life.part.until)
        columns.append(np.column_stack([own, np.full(len(time), one)])[known])
        durations.append(time[known])
        weights.append(np.full(int(known.sum()), precise))
        requests.append(np.flatnonzero(known))
    return np.concatenate(columns), np.concatenate(durations), np.concatenate(weights), np.concatenate(requests)


def _passed(life: PairedRun, form: Form) -> list[np.ndarray]:
    """What had been summed up of each of the form's columns, (requests, terms), at five moments of each request.

    These are its arrival, its dispatch, its receipt by the core, its first token and its last.
    """
    steps = life.steps
    duration = steps["duration_s"].to_numpy()
    end = _ends(steps["start_s"].to_numpy(), duration)
    values = form.columns(steps)
    knots = np.column_stack([end - duration, end]).ravel()
    sums = np.vstack([np.zeros(values.shape[1]), np.cumsum(values, axis=0)])
    sums = np.repeat(sums, 2, axis=0)[1:-1]
    arrival, dispatch, first, last = (
        life.simulated[name].to_numpy() for name in ("arrival_s", "dispatch_s", "first_token_s", "finish_s")
    )
    moments = (
        arrival,
        np.maximum(arrival, dispatch),
        dispatch + life.submit_lag,
        first - life.output_lag,
        last - life.output_lag,
    )
    return [
        np.column_stack([np.interp(moment, knots, sums[:, term]) for term in range(values.shape[1])])
        for moment in moments
    ]


def _ends(start: np.ndarray, duration: np.ndarray) -> np.ndarray:
    """When each step was over: it begins at its start, or when the one before is over, whichever is later."""
    before = np.concatenate([[0.0], np.cumsum(duration)[:-1]])
    return np.asarray(np.maximum.accumulate(start - before) + before + duration)
