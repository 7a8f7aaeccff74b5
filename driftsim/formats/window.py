"""Which part of a trace is drawn: what was there between two moments, and no more of it than a page can show."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from driftsim.errors import InputError
from driftsim.formats.stages import last_known, recorded_until
from driftsim.metrics import service_start
from driftsim.trace.trace import Trace

STEPS_A_REQUEST = 10  # steps, and moments of the queue, that are drawn for each request of the limit


@dataclass(frozen=True, kw_only=True)
class View:
    """What to draw of each trace, in seconds since its start: the requests that were there, and the steps that began.

    ``limit``: the most requests that are drawn, and with ten times as many steps; where there are more, those that the
    engine took up first are drawn, and the window ends as it took up the next one.

    >>> View(since_s=100, until_s=200).limit
    10000
    """

    since_s: float = 0.0
    until_s: float = math.inf
    limit: int = 10_000

    def __post_init__(self) -> None:
        if not (math.isfinite(self.since_s) and self.since_s >= 0 and self.until_s > self.since_s):
            raise InputError(
                f"there is no window from {self.since_s:g} to {self.until_s:g} s; give --from SECONDS, at least 0, and "
                "--to SECONDS, later than that"
            )
        if self.limit < 1:
            raise InputError(f"a limit of {self.limit} requests leaves nothing to draw; give --limit 1 or more")


@dataclass(frozen=True, eq=False)
class Chosen:
    """The part of a trace that is drawn: rows of its requests, rows of its steps, until when, and what was left out."""

    requests: np.ndarray  # places, in the order of the table
    steps: slice
    queue: slice  # of the moments at which the queue changed
    until_s: float  # s; as asked for, or earlier where the limit said so
    left_out: str  # a sentence; empty where nothing was


def choose(trace: Trace, view: View, moments: np.ndarray) -> Chosen:
    """What ``view`` shows of ``trace``, whose queue changed at these ``moments`` (s).

    Raises ``InputError`` where that is nothing.
    """
    until, most = view.until_s, STEPS_A_REQUEST * view.limit
    starts = np.empty(0) if trace.steps is None else trace.steps["start_s"].to_numpy()
    for times in (starts, moments):
        first = int(np.searchsorted(times, view.since_s))
        if len(times) > first + most:
            until = min(until, float(times[first + most]))
    table, end = trace.requests, recorded_until(trace)
    arrival, left = table["arrival_s"].to_numpy(), last_known(table, end)
    there = np.flatnonzero((arrival <= until) & (left >= view.since_s))
    inside = (arrival <= view.until_s) & (left >= view.since_s)
    if len(there) > view.limit:
        begun = service_start(table)[there]
        begun = np.where(np.isnan(begun), left[there], begun)
        order = np.argsort(begun, kind="stable")
        following = float(begun[order[view.limit]])
        there = np.sort(there[order[: view.limit]])
        until = following if view.since_s < following < until else until
    steps, queue = (
        slice(int(np.searchsorted(times, view.since_s)), int(np.searchsorted(times, until)))
        for times in (starts, moments)
    )
    if not len(there) and steps.start == steps.stop:
        raise InputError(
            f"{trace.name}: nothing happened from {view.since_s:g} s "
            f"{f'to {view.until_s:g} s' if math.isfinite(view.until_s) else 'on'}; the run ends at {end:.3f} s"
        )
    return Chosen(there, steps, queue, until, _left_out(trace, len(there), int(inside.sum()), view, until))


def _left_out(trace: Trace, drawn: int, inside: int, view: View, until: float) -> str:
    """What of the window is not drawn, and how to see it; empty if all is."""
    if drawn == inside and until == view.until_s:
        return ""
    until_then = f" until {until:.3f} s" if until < view.until_s else ", those that the engine took up first"
    return (
        f"{trace.name}: {drawn:,} of {inside:,} requests are drawn{until_then}; choose others with --from and --to, in "
        "seconds, or raise --limit"
    )
