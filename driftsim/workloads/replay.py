"""Replay turns a recorded trace into a workload."""

from __future__ import annotations

from dataclasses import replace
from numbers import Real

import numpy as np
import pandas as pd

from driftsim.clients import PATIENT
from driftsim.errors import InputError
from driftsim.trace.attempts import per_request
from driftsim.trace.header import LOOPS, Phase, WorkloadInfo
from driftsim.trace.loops import due_times, sends
from driftsim.trace.prefixes import NONE, Stretches, as_cached, stretches, stretches_in
from driftsim.trace.schema import FINISHED
from driftsim.trace.trace import Trace
from driftsim.workloads.table import as_admission_sees, choices_in, in_order
from driftsim.workloads.unfinished import as_far_as_known, caveats
from driftsim.workloads.workload import Workload

ROUNDED_PLACES = 9  # of a second: sums of recorded times carry no more


def first(workload: Workload, count: int) -> Workload:
    """The first ``count`` requests of ``workload``; phases that are left with none go. Raises if it has fewer."""
    if not 1 <= count <= len(workload):
        raise InputError(f"the workload has {len(workload)} requests, {count} were asked for")
    left, phases = count, []
    for phase in workload.info.phases:
        if left > 0:
            phases.append(phase.changed(requests=min(left, phase.requests)))
            left -= phase.requests
    prompts = workload.prompts[:count] if workload.prompts else None
    info = workload.info.changed(phases=tuple(phases))
    return replace(workload, info=info, table=workload.table.head(count), prompts=prompts)


def replay(trace: Trace, rate_scale: float = 1.0) -> Workload:
    """The workload that ``trace`` recorded: its arrivals, lengths, categories and tenants.

    ``rate_scale`` above 1 presses it harder: gaps between arrivals shrink by that factor, pauses between phases stay.
    Arrivals that waited for others to end do so again: a closed phase has its users, a capped one its cap. A request
    that did not finish is replayed as far as it went, and then given up; one of which nothing is known, or that the
    server turned away, is left out and noted.
    >>> from driftsim.trace.trace import read
    >>> len(replay(read("traces/smollm2-cpu-drift")))
    360

    Requests that were sent again are one request each, which is sent again where it fails again.

    Raises ``InputError`` for a rate scale on a workload that has no arrival rate (closed loop or backlog).
    """
    return _replayed(per_request(trace), rate_scale)


def _replayed(trace: Trace, rate_scale: float = 1.0) -> Workload:
    """The same, of the rows as they are."""
    if not isinstance(rate_scale, Real) or not 1e-6 <= rate_scale <= 1e6:
        raise InputError(f"rate scale must be above 0 (1e-6 to 1e6), got {rate_scale!r}")
    rateless = [phase for phase in trace.header.workload.phases if phase.kind in ("closed", "backlog")]
    if rate_scale != 1 and rateless:
        instead = "other users (--arrivals closed --users N) or another process (--arrivals poisson --rate R)"
        raise InputError(
            f"phase {rateless[0].name!r} is {rateless[0].kind} and has no arrival rate to scale; ask for {instead}"
        )
    known, said = as_admission_sees(with_stretches(as_far_as_known(trace), trace))
    known = _with_parents(known, trace)
    parts, phases = [], []
    previous = 0.0  # last arrival of the phase before
    for phase in trace.header.workload.phases:
        rows = known[known["phase"] == phase.name].sort_values("arrival_s", kind="stable")
        if rows.empty:
            continue
        arrivals = rows["arrival_s"].to_numpy(dtype=float)
        start = _phase_start(phase, previous, float(arrivals[0]))
        if "parent" in rows and phase.kind == "open" and any(map(len, rows["parent"])):
            phase = phase.changed(kind="sessions")
        users, offsets = _offsets(phase, arrivals, rows["finish_s"].to_numpy(dtype=float), start)
        stops = rows["finish_reason"] == "stop"
        parts.append(rows.assign(offset_s=offsets / rate_scale, stops=stops))
        phases.append(phase.changed(requests=len(rows), start_s=None, users=users))
        previous = float(arrivals[-1])
    if not parts:
        raise InputError("the trace has no finished request to replay")
    return Workload(
        info=trace.header.workload.changed(phases=tuple(phases)),
        table=in_order(_by_position(pd.concat(parts, ignore_index=True))),
        notes=(*caveats(trace), *said),
        tiers=trace.header.tiers,
        clients=trace.header.clients,
        prefixes=trace.header.prefixes,
        drift=trace.header.drift,
    )


def _with_parents(known: pd.DataFrame, trace: Trace) -> pd.DataFrame:
    """``known`` rows of ``trace``, whose parents are rows that finished in the same phase: others start no turn."""
    if "parent" not in known:
        return known
    done = trace.requests["finish_reason"].isin(FINISHED).to_numpy()
    phases = trace.requests["phase"].to_numpy()
    there = set(known["source"].tolist())
    kept = [
        [one for one in parents if one in there and done[one] and phases[one] == phase]
        for parents, phase in zip(known["parent"].tolist(), known["phase"].tolist(), strict=True)
    ]
    return known.assign(parent=pd.Series(kept, known.index, dtype=object))


def _by_position(table: pd.DataFrame) -> pd.DataFrame:
    """``table``, whose parents are recorded rows, with rows of its own for parents; one that comes later is none."""
    if "parent" not in table:
        return table
    place = {source: row for row, source in enumerate(table["source"].tolist())}
    kept = [[place[one] for one in parents if place[one] < row] for row, parents in enumerate(table["parent"].tolist())]
    return table.assign(parent=pd.Series(kept, table.index, dtype=object))


def with_stretches(known: pd.DataFrame, trace: Trace) -> pd.DataFrame:
    """``known`` rows of ``trace``, with whom they share their beginnings, as far as the trace tells that."""
    whose = stretches_of(trace)
    if whose is None and "choice_of" in known:  # nothing else is known, but they share their prompt
        choices = choices_in(trace.requests["choice_of"].tolist())
        rows = [choices[row][0] if choices.get(row, (row,))[0] < row else NONE for row in range(len(trace.requests))]
        whose = stretches(rows, trace.requests["prompt_tokens"].tolist())
    return known if whose is None else known.assign(stretches=[whose[row] for row in known["source"].tolist()])


def stretches_of(trace: Trace) -> list[Stretches] | None:
    """With whom each request shares its beginning; failing that, what the engine found of it; None: nothing is told."""
    rows = trace.requests
    if "prefix_row" in rows:
        return stretches_in(rows)
    if "cached_tokens" in rows:
        return as_cached(rows["prompt_tokens"].tolist(), rows["cached_tokens"].fillna(0).tolist())
    return None


def _offsets(phase: Phase, arrival: np.ndarray, end: np.ndarray, start: float) -> tuple[int, np.ndarray]:
    """The users of a recorded ``phase`` that began at ``start`` (s), and its offsets, as a workload has them."""
    if phase.kind == "backlog":
        return phase.users, np.zeros(len(arrival))
    if phase.kind == "closed":
        begins, waits = sends(arrival, end, phase.users, phase.think_s)
        offsets = np.concatenate([begins - start, waits - phase.think_s])
        return len(begins), np.round(offsets, ROUNDED_PLACES)
    due = due_times(arrival, end, phase.users) if phase.kind == "capped" else arrival
    return phase.users, np.maximum(due - start, 0.0)


def as_recorded(trace: Trace, *, loops: bool = True) -> Workload:
    """The requests of ``trace``, each at the time at which it arrived; those that waited for others wait again.

    The arrivals of a closed or a capped loop follow from its ends: a model that is 5 % slow must delay them, or the
    simulated queue is not the one that the model would have had. Without ``loops`` they come when they came: what
    happened is then explained, request by request. Requests whose load is unknown are left out, as ``replay`` does.
    Attempts are requests of their own, which come when they came. Raises ``InputError`` if none is left.
    """
    made = _replayed(trace)
    if "attempt" in trace.requests:
        made = replace(made, clients=PATIENT)
    elif loops and any(phase.kind in LOOPS for phase in made.info.phases):
        return made
    times = trace.requests["arrival_s"].to_numpy()[made.table["source"].to_numpy()]
    order = np.argsort(times, kind="stable")
    name = "recorded"
    table = made.table.drop(columns=["session", "parent", "gap_s"], errors="ignore")
    table = table.assign(offset_s=times, phase=name).iloc[order].reset_index(drop=True)
    phases = (Phase(name=name, requests=len(table)),)
    return replace(made, info=WorkloadInfo(name=made.info.name, phases=phases), table=table)


def _phase_start(phase: Phase, previous: float, first: float) -> float:
    """When a recorded phase started, in seconds: an open one follows from the phase before, others recorded theirs."""
    if phase.kind == "open":
        return min(previous + phase.pause_s, first)
    return first if phase.start_s is None else phase.start_s
