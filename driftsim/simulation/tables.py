"""The tables of a simulated run: what the workload offered and what became of it, and the steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from driftsim.latency.steptime import TICKS_PER_SECOND
from driftsim.simulation.cluster import Cluster
from driftsim.trace.builder import RequestRows
from driftsim.trace.prefixes import prefix_columns, prefixes
from driftsim.trace.schema import Column
from driftsim.trace.subset import taken
from driftsim.trace.tables import typed
from driftsim.workloads.attempts import Attempts


def requests_table(rows: RequestRows, attempts: Attempts, cluster: Cluster | None = None) -> tuple[pd.DataFrame, int]:
    """The table of the workload's requests, whose ``attempts`` fared as ``rows`` say, and how many never came.

    ``cluster``: the replicas that served them, if there are several.
    """
    columns, offered, stretches = attempts.columns(), attempts.offered(), attempts.workload.table.get("stretches")
    others: dict[str, Any] = {"output_words": _words(rows, attempts)}
    if stretches is not None:
        whose = attempts.stretches(stretches.tolist())
        prompts = offered["prompt_tokens"].to_numpy(dtype=np.int64)
        there = prompts + np.maximum(np.frombuffer(rows.counts["output_tokens"], dtype=np.int64), 0)
        others |= prefix_columns(*prefixes(whose), there)
    if "stop_string" in attempts.workload.table:
        stopped = np.zeros(len(offered), dtype=np.int64)
        stopped[list(attempts.rows_of(attempts.workload.table["stop_string"]))] = 1
        by_itself = np.array([reason == "stop" for reason in rows.texts["finish_reason"]])
        others["stop_string"] = pd.arrays.IntegerArray(stopped * by_itself, np.zeros(len(offered), dtype=bool))
    if (deadlines := attempts.deadlines()) is not None:
        columns["deadline_s"] = deadlines + attempts.of_first(np.frombuffer(rows.times["arrival_s"]))
    if cluster is not None:
        _end_of_the_unserved(rows)
        columns |= _placed(cluster, len(offered))
    table = rows.table(offered, **others, **columns)
    if "parent" not in table and not attempts.most:
        return table, 0
    came = ~np.isnan(np.frombuffer(rows.times["arrival_s"])[: len(table)])
    lost = int((~came[: attempts.requests]).sum())
    return table if came.all() else taken(table, np.flatnonzero(came)), lost


def _end_of_the_unserved(rows: RequestRows) -> None:
    """Give those an end who waited for a replica until no more could happen."""
    reasons, arrived = rows.texts["finish_reason"], np.frombuffer(rows.times["arrival_s"])
    for row in np.flatnonzero(~np.isnan(arrived)).tolist():
        if reasons[row] is None:
            reasons[row], rows.texts["error"][row] = "error", "no replica came back"
            rows.counts["output_tokens"][row] = rows.counts["preemptions"][row] = 0


def _placed(cluster: Cluster, count: int) -> dict[str, pd.arrays.IntegerArray]:
    """Which replica had each request last, and how often one failed under it."""
    where, moved = np.full(count, -1, dtype=np.int64), np.zeros(count, dtype=np.int64)
    where[list(cluster.where)] = list(cluster.where.values())
    moved[list(cluster.moved)] = list(cluster.moved.values())
    return {
        "replica": pd.arrays.IntegerArray(where, where < 0),
        "moved": pd.arrays.IntegerArray(moved, np.zeros(count, dtype=bool)),
    }


def _words(rows: RequestRows, attempts: Attempts) -> Any:
    """The recorded words, in proportion where a limit that the recorded run did not have cut the output short."""
    workload, repeats = attempts.workload, 1 + attempts.most
    words = workload.output_words if repeats == 1 else pd.concat([workload.output_words] * repeats, ignore_index=True)
    shown = np.frombuffer(rows.counts["output_tokens"], dtype=np.int64)
    full = np.tile(workload.table["output_tokens"].to_numpy(dtype=np.int64), repeats)
    cut = shown != full
    if cut.any():
        words = words.where(~cut, (words.astype("float64") * np.maximum(shown, 0) / full).round().astype("Int64"))
    return words.array.copy()  # nothing of the workload's own, which other runs share


def steps_table(steps: Sequence[tuple[Any, ...]], columns: Sequence[Column], *, several: bool) -> pd.DataFrame:
    """The table of ``steps``, whose times are ticks; those of ``several`` replicas in order of time."""
    table = pd.DataFrame(steps, columns=[column.name for column in columns])
    for name in ("start_s", "duration_s"):
        table[name] = table[name] / TICKS_PER_SECOND
    if several:
        table = table.sort_values("start_s", kind="stable", ignore_index=True)
    return typed(table, tuple(columns), "simulated steps")
