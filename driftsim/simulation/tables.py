"""The requests' table of a simulated run: what the workload offered, and what became of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from driftsim.trace.builder import RequestRows
from driftsim.trace.prefixes import prefixes
from driftsim.workloads.workload import Workload


def requests_table(rows: RequestRows, workload: Workload) -> tuple[pd.DataFrame, int]:
    """The table of ``workload``, whose requests fared as ``rows`` say, and how many never came."""
    others = {"output_words": _words(rows, workload)}
    if "stretches" in workload.table:
        whose, tokens = (np.array(part, dtype=np.int64) for part in prefixes(workload.table["stretches"]))
        alone = whose < 0
        prompts = workload.table["prompt_tokens"].to_numpy(dtype=np.int64)
        there = prompts + np.maximum(np.frombuffer(rows.counts["output_tokens"], dtype=np.int64), 0)
        # An output that was cut short is shared as far as it came.
        tokens = np.minimum(tokens, np.minimum(there, there[np.maximum(whose, 0)]))
        for name, values in (("prefix_row", whose), ("prefix_tokens", tokens)):
            others[name] = pd.arrays.IntegerArray(values, alone)
    table = rows.table(workload.offered, **others)
    if "parent" not in table:
        return table, 0
    came = ~np.isnan(np.frombuffer(rows.times["arrival_s"])[: len(table)])
    return without(table, came), int((~came).sum())


def without(table: pd.DataFrame, came: np.ndarray) -> pd.DataFrame:
    """The requests that ``came``; rows that others name are counted anew."""
    if came.all():
        return table
    place = np.cumsum(came) - 1
    kept = table[came].reset_index(drop=True)
    parents = [place[parents[came[parents]]] for parents in kept["parent"]]
    kept["parent"] = pd.Series(parents, dtype=object)
    if "prefix_row" in kept:
        whose = kept["prefix_row"].to_numpy(dtype=np.int64, na_value=-1)
        there = (whose >= 0) & came[whose]
        for name, values in (("prefix_row", place[whose]), ("prefix_tokens", kept["prefix_tokens"])):
            kept[name] = pd.array(np.where(there, np.asarray(values, dtype=float), np.nan), dtype="Int64")
    return kept


def _words(rows: RequestRows, workload: Workload) -> Any:
    """The recorded words, in proportion where a limit that the recorded run did not have cut the output short."""
    words = workload.output_words
    shown = np.frombuffer(rows.counts["output_tokens"], dtype=np.int64)
    full = workload.table["output_tokens"].to_numpy(dtype=np.int64)
    cut = shown != full
    if cut.any():
        words = words.where(~cut, (words.astype("float64") * shown / full).round().astype("Int64"))
    return words.array.copy()  # nothing of the workload's own, which other runs share
