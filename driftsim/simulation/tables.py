"""The requests' table of a simulated run: what the workload offered, and what became of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from driftsim.trace.builder import RequestRows
from driftsim.trace.prefixes import prefixes
from driftsim.workloads.workload import Workload


def requests_table(rows: RequestRows, workload: Workload) -> pd.DataFrame:
    """The table of ``workload``, whose requests fared as ``rows`` say."""
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
    return rows.table(workload.offered, **others)


def _words(rows: RequestRows, workload: Workload) -> Any:
    """The recorded words, in proportion where a limit that the recorded run did not have cut the output short."""
    words = workload.output_words
    shown = np.frombuffer(rows.counts["output_tokens"], dtype=np.int64)
    full = workload.table["output_tokens"].to_numpy(dtype=np.int64)
    cut = shown != full
    if cut.any():
        words = words.where(~cut, (words.astype("float64") * shown / full).round().astype("Int64"))
    return words.array.copy()  # nothing of the workload's own, which other runs share
