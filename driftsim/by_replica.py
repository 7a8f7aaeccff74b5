"""What each replica served: how many requests, in which share of the time, and how long they took."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from driftsim.costs import served
from driftsim.metric import REPLICA
from driftsim.metrics import e2e, is_finished, makespan
from driftsim.statistics import intervals_union
from driftsim.trace.trace import Trace


def has_replicas(trace: Trace) -> bool:
    """Whether ``trace`` names the replica of each request."""
    return "replica" in trace.requests


def replica_table(trace: Trace, phase: str = "all") -> pd.DataFrame:
    """A row for each replica of ``trace``, its number the index, with the metrics of ``glossary.REPLICA``.

    Requests are those of the ``phase`` that the replica had last; its busy time is of the whole run, and of all
    that it had last. One that had none has a row, too. Raises ``InputError`` for an unknown phase.

    >>> from driftsim.running import simulate
    >>> replica_table(simulate("traces/smollm2-cpu-drift", replicas=2))["requests"].sum()
    np.int64(360)
    """
    rows = trace.requests
    where = rows["replica"].to_numpy(dtype=float, na_value=np.nan)
    mine, done = trace.in_phase(phase), np.asarray(is_finished(rows), dtype=bool)
    seconds, span = np.asarray(e2e(rows), dtype=float), makespan(rows)
    found: dict[int, dict[str, Any]] = {}
    for number in range(int(trace.header.replicas.get("count", 1))):
        own, busy = (where == number) & mine, intervals_union(*served(trace, number))
        known = seconds[own & done]
        found[number] = {
            "requests": int(own.sum()),
            "finished": len(known),
            "busy_share": busy / span if span > 0 else np.nan,
            "e2e_mean_s": float(known.mean()) if len(known) else np.nan,
        }
    return pd.DataFrame.from_dict(found, orient="index", columns=[metric.name for metric in REPLICA])


def per_replica(trace: Trace, phase: str = "all") -> dict[str, dict[str, Any]]:
    """``replica_table`` as plain values, by the replica's number as text."""
    found: dict[int, dict[str, Any]] = replica_table(trace, phase).to_dict("index")  # type: ignore[assignment]
    return {str(number): own for number, own in found.items()}


def replica_lines(trace: Trace, phase: str = "all") -> list[str]:
    """A line for each replica; none where the trace names no replicas."""
    if not has_replicas(trace):
        return []
    return [
        f"Replica {number}: {own['requests']} requests, {own['finished']} finished; busy in "
        f"{100 * own['busy_share']:.1f} % of the time; E2E mean {own['e2e_mean_s']:.3f} s"
        for number, own in per_replica(trace, phase).items()
    ]
