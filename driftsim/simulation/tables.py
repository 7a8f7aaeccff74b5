"""The requests' table of a simulated run: what the workload offered, and what became of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from driftsim.trace.builder import RequestRows
from driftsim.trace.prefixes import prefix_columns, prefixes
from driftsim.trace.subset import taken
from driftsim.workloads.attempts import Attempts


def requests_table(rows: RequestRows, attempts: Attempts) -> tuple[pd.DataFrame, int]:
    """The table of the workload's requests, whose ``attempts`` fared as ``rows`` say, and how many never came."""
    columns, offered, stretches = attempts.columns(), attempts.offered(), attempts.workload.table.get("stretches")
    others: dict[str, Any] = {"output_words": _words(rows, attempts)}
    if stretches is not None:
        whose = attempts.stretches(stretches.tolist())
        prompts = offered["prompt_tokens"].to_numpy(dtype=np.int64)
        there = prompts + np.maximum(np.frombuffer(rows.counts["output_tokens"], dtype=np.int64), 0)
        others |= prefix_columns(*prefixes(whose), there)
    if (deadlines := attempts.deadlines()) is not None:
        columns["deadline_s"] = deadlines + attempts.of_first(np.frombuffer(rows.times["arrival_s"]))
    table = rows.table(offered, **others, **columns)
    if "parent" not in table and not attempts.most:
        return table, 0
    came = ~np.isnan(np.frombuffer(rows.times["arrival_s"])[: len(table)])
    lost = int((~came[: attempts.requests]).sum())
    return table if came.all() else taken(table, np.flatnonzero(came)), lost


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
