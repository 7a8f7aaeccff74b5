"""The requests' table of a simulated run: what the workload offered, and what became of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from driftsim.trace.builder import RequestRows
from driftsim.trace.prefixes import prefix_columns, prefixes
from driftsim.trace.subset import taken
from driftsim.workloads.workload import Workload


def requests_table(rows: RequestRows, workload: Workload) -> tuple[pd.DataFrame, int]:
    """The table of ``workload``, whose requests fared as ``rows`` say, and how many never came."""
    others: dict[str, Any] = {"output_words": _words(rows, workload)}
    if "stretches" in workload.table:
        prompts = workload.table["prompt_tokens"].to_numpy(dtype=np.int64)
        there = prompts + np.maximum(np.frombuffer(rows.counts["output_tokens"], dtype=np.int64), 0)
        others |= prefix_columns(*prefixes(workload.table["stretches"]), there)
    table = rows.table(workload.offered, **others)
    if "parent" not in table:
        return table, 0
    came = ~np.isnan(np.frombuffer(rows.times["arrival_s"])[: len(table)])
    return table if came.all() else taken(table, np.flatnonzero(came)), int((~came).sum())


def _words(rows: RequestRows, workload: Workload) -> Any:
    """The recorded words, in proportion where a limit that the recorded run did not have cut the output short."""
    words = workload.output_words
    shown = np.frombuffer(rows.counts["output_tokens"], dtype=np.int64)
    full = workload.table["output_tokens"].to_numpy(dtype=np.int64)
    cut = shown != full
    if cut.any():
        words = words.where(~cut, (words.astype("float64") * shown / full).round().astype("Int64"))
    return words.array.copy()  # nothing of the workload's own, which other runs share
