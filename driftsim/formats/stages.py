"""The life of a request as stages that follow each other without a gap, from its arrival to its end.

A stage is drawn only where the trace tells when it began. Where it does not, two stages are one, under both their
names: a server behind HTTP says when it was given a request and when the first token came, not when it began to compute
it.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd

from driftsim.formats.pauses import Pause
from driftsim.trace.schema import FINISHED, LIFE_TIMES
from driftsim.trace.steps import step_ends
from driftsim.trace.trace import Trace

WAITING, PREFILL, DECODE, PREEMPTED = "waiting", "prefill", "decode", "preempted"
TO_FIRST_TOKEN = "waiting or prefill"  # the engine does not tell when it began to compute
SERVED = "prefill and decode"  # a barrier engine shows no first token
ALL = "waiting, prefill and decode"  # nothing is known but arrival and end


@dataclass(frozen=True, slots=True)
class Stage:
    """What a request did from ``begin`` to ``end``, in seconds since the run began."""

    name: str
    begin: float
    end: float


@dataclass(frozen=True, slots=True)
class Life:
    """The stages of one request; ``ended`` is its finish reason, ``unfinished``, or ``end not recorded``."""

    stages: tuple[Stage, ...]
    begin: float
    end: float
    ended: str


def recorded_until(trace: Trace) -> float:
    """The last moment that ``trace`` knows of, in seconds."""
    times = trace.requests[list(LIFE_TIMES)].to_numpy(dtype=float)
    last = float(np.nanmax(times)) if times.size and not np.isnan(times).all() else 0.0
    return last if trace.steps is None or trace.steps.empty else max(last, float(step_ends(trace.steps)[-1]))


def last_known(requests: pd.DataFrame, until: float) -> np.ndarray:
    """When each request left, in seconds: its finish, else the last that is known of it.

    A request without a finish reason was still there when the recording ended, ``until``.
    """
    known = requests[list(LIFE_TIMES)].max(axis=1).to_numpy(dtype=float)
    return np.where(requests["finish_reason"].isna() & requests["finish_s"].isna(), until, known)


def lives(
    requests: pd.DataFrame, until: float, tells_start: bool, pauses: Mapping[str, Sequence[Pause]]
) -> Iterable[Life]:
    """The life of each of ``requests``, in order.

    ``until``: when the recording ended, in seconds. ``tells_start``: whether this engine tells when it began to compute
    a request, so that one without that time was never computed. ``pauses``: by request id, when the engine had
    preempted it.
    """
    ends = last_known(requests, until)
    columns = [requests[name] for name in ("request_id", *LIFE_TIMES, "finish_reason")]
    for name, arrival, dispatch, _, scheduled, first, finish, reason, end in zip(*columns, ends, strict=True):
        times = (arrival, dispatch, scheduled, first, finish)
        marks = _paused(_marks(times, reason, tells_start), pauses.get(name, ()))
        ended = "end not recorded" if reason in FINISHED and math.isnan(finish) else reason
        yield Life(_stages(marks, end), arrival, end, ended if isinstance(ended, str) else "unfinished")


def _marks(times: tuple[float, ...], reason: str | None, tells_start: bool) -> list[tuple[float, str]]:
    """When each stage begins; ``times``: arrival, dispatch, scheduled, first token and finish, NaN where not known."""
    arrival, dispatch, scheduled, first, finish = times
    shows_token, served = not math.isnan(first), reason in FINISHED and not math.isnan(finish)
    marks = [(arrival, WAITING)]
    if not math.isnan(scheduled):
        marks.append((scheduled, PREFILL if shows_token or not served else SERVED))
    elif shows_token or served or not tells_start:
        known = not math.isnan(dispatch)
        name = TO_FIRST_TOKEN if shows_token or not served else ALL
        marks = [*marks, (dispatch, name)] if known else [(arrival, name)]
    if shows_token:
        marks.append((first, DECODE))
    return marks


def _paused(marks: list[tuple[float, str]], pauses: Sequence[Pause]) -> list[tuple[float, str]]:
    """``marks`` with the pauses in them: preempted, then a prefill that computes what was lost, then as before."""
    for pause in pauses:
        moments = [moment for moment, _ in marks]
        after = marks[bisect_right(moments, pause.computed_s) - 1][1]
        before = [mark for mark in marks if mark[0] <= pause.preempted_s]
        later = [mark for mark in marks if mark[0] > pause.computed_s]
        again = [(pause.resumed_s, PREFILL), (pause.computed_s, after)]
        marks = [*before, (pause.preempted_s, PREEMPTED), *(mark for mark in again if mark[0] < math.inf), *later]
    return marks


def _stages(marks: list[tuple[float, str]], end: float) -> tuple[Stage, ...]:
    """The stages between ``marks``, cut at ``end``; those that took no time are left out, equal ones are joined."""
    stages: list[Stage] = []
    latest = marks[0][0]
    for (begin, name), (following, _) in pairwise([*marks, (end, "")]):
        begin = max(latest, begin)
        latest = min(max(begin, following), end)
        if latest <= begin:
            continue
        if stages and stages[-1].name == name:
            stages[-1] = Stage(name, stages[-1].begin, latest)
        else:
            stages.append(Stage(name, begin, latest))
    return tuple(stages)
