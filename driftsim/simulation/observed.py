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


def told_lengths(workload: Workload, unit: Accounting, observed: list[int]) -> list[int]:
    """The lengths that estimators are told: those ``observed``, but in the other unit where the units are mixed up."""
    if "words_per_token" not in workload.table:
        return observed
    table = workload.table
    ratio = table["words_per_token"].to_numpy(dtype=float)
    tokens = table["output_tokens"].to_numpy(dtype=float)
    other = tokens
    if unit.unit == "tokenizer":
        words = table["output_words"].to_numpy(dtype=float, na_value=np.nan)
        other = np.maximum(np.where(np.isnan(words), np.rint(tokens * ratio), words), 1)
    return [int(length) for length in np.where(np.isnan(ratio), observed, other)]
