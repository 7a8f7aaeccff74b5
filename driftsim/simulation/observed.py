"""What is observed of a request when it ends: its output length, in the unit in which admission counts."""

from __future__ import annotations

import numpy as np

from driftsim.errors import InputError
from driftsim.scheduling.accounting import Accounting
from driftsim.workloads.workload import Workload


def observed_lengths(workload: Workload, unit: Accounting) -> list[int]:
    """True output lengths in the accounting's unit. Raises ``InputError`` where words are missing."""
    table = workload.table
    prompts = unit.lengths(table["prompt_tokens"], table["prompt_words"])
    outputs = unit.lengths(table["output_tokens"], table["output_words"])
    for name, lengths in (("prompt_words", prompts), ("output_words", outputs)):
        if np.isnan(lengths).any():
            raise InputError(
                f"whitespace accounting needs {name}, which is empty for request "
                f"{table['request_id'].iloc[int(np.isnan(lengths).argmax())]!r}; give --words-per-token"
            )
    return [int(length) for length in outputs]
