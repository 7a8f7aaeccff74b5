"""The table of a workload: one row a request, sixteen columns, of which most have a plain value, and a few more."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from driftsim.scheduling.classify import predict_category, strip_label
from driftsim.trace.header import Phase

# Columns of a workload's table. output_* are the truth, NA where nobody knows it yet. offset_s counts from the phase's
# start; but in a closed phase, the first rows, one a user, tell when a user begins, and each other row how long beyond
# the think time a user waits after an end. ``stops``: a request ends by itself, not at a limit. ``patience_s``: the
# time after its arrival at which its client gives it up (infinite: once its known output is there; NaN: never).
# ``source``: the row of the recorded request that this one is, or was drawn from, -1 where there is none.
COLUMNS = [
    "request_id",
    "tenant",
    "tier",
    "phase",
    "category",
    "predicted_category",
    "predicted_category_unlabelled",
    "prompt_tokens",
    "prompt_words",
    "max_tokens",
    "offset_s",
    "output_tokens",
    "output_words",
    "stops",
    "patience_s",
    "source",
]
# Columns that a workload may have besides. ``stretches``: with whom a request shares its beginning, see
# ``Request.stretches``; numbers are those of ``source``. ``session``, ``parent`` and ``gap_s``: as in a trace, but the
# parents are rows of this table. ``timeout_s``: how long its client waits for the end of each attempt; ``deadline_s``:
# for that of the last one, from the arrival of the first (NaN: for ever).
# ``choice_of`` and ``stop_string``: as in a trace. ``words_per_token``: not NaN where estimators are told words for
# tokens.
OPTIONAL = [
    "stretches", "session", "parent", "gap_s", "choice_of", "stop_string", "timeout_s", "deadline_s", "words_per_token",
]  # fmt: skip


def in_order(table: pd.DataFrame) -> pd.DataFrame:
    """``table`` with the columns of a workload and no others, in order."""
    return table[[*COLUMNS, *(name for name in OPTIONAL if name in table)]]


def choices_in(names: Sequence[str | None]) -> dict[int, tuple[int, int, int]]:
    """By row that is one of several answers, ``Request.choice``: rows with one name are answers to one request.

    >>> choices_in([None, "a", "a", "b"])
    {1: (1, 0, 2), 2: (1, 1, 2)}
    """
    rows: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        if isinstance(name, str):
            rows.setdefault(name, []).append(row)
    several = [family for family in rows.values() if len(family) > 1]
    return {row: (family[0], place, len(family)) for family in several for place, row in enumerate(family)}


def stream(seed: int, name: str) -> np.random.Generator:
    """The random stream ``name`` of ``seed``: changing how one stream is used leaves the others alone."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def as_admission_sees(table: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """``table`` with its authors' categories for predictions, where it has none but they gave some, and a note of it.

    >>> table, notes = as_admission_sees(pd.DataFrame({"category": ["poem"], "predicted_category": [None]}))
    >>> list(table["predicted_category"]), notes
    (['poem'], ['no category is predicted in this trace, so admission sees the ones that its authors gave'])
    """
    guessed = ("predicted_category", "predicted_category_unlabelled")
    empty = [name for name in guessed if name in table and table[name].isna().all()]
    if not empty or table["category"].isna().all():
        return table, []
    note = "no category is predicted in this trace, so admission sees the ones that its authors gave"
    return table.assign(**dict.fromkeys(empty, table["category"])), [note] if guessed[0] in empty else []


def workload_table(phases: Sequence[Phase], **columns: Any) -> pd.DataFrame:
    """The table of a workload whose ``phases`` count the rows; ``columns`` are values by row, or one for all.

    What is left out: ids ``r0``, ``r1`` ..., one tenant of tier standard, no category, all at the phase's start,
    predictions that are right, words that are unknown, outputs that end by themselves. Lengths and limit have none.

    >>> table = workload_table([Phase(name="only", requests=2)], prompt_tokens=9, max_tokens=64, output_tokens=[3, 5])
    >>> list(table["request_id"]), list(table.columns) == COLUMNS
    (['r0', 'r1'], True)
    """
    count = sum(phase.requests for phase in phases)
    category = columns.get("category")
    predicted = columns.get("predicted_category", category)
    plain: dict[str, Any] = {
        "request_id": [f"r{row}" for row in range(count)],
        "tenant": "default",
        "tier": "standard",
        "phase": [phase.name for phase in phases for _ in range(phase.requests)],
        "category": category,
        "predicted_category": predicted,
        "predicted_category_unlabelled": predicted,
        "prompt_words": pd.NA,
        "offset_s": 0.0,
        "output_words": pd.NA,
        "stops": True,
        "patience_s": np.nan,
        "source": np.arange(count),
    }
    values = plain | columns
    names = [*COLUMNS, *(name for name in OPTIONAL if name in values)]
    return pd.DataFrame({name: values[name] for name in names}, index=pd.RangeIndex(count))


def described(table: pd.DataFrame, prompts: Sequence[str], count_tokens: Callable[[str], int]) -> pd.DataFrame:
    """``table`` with all of ``COLUMNS``: what can be told from ``prompts`` before an engine served them.

    ``count_tokens`` counts a prompt as the engine will see it. Output lengths are unknown, NA.
    """
    table["predicted_category"] = [predict_category(prompt) for prompt in prompts]
    table["predicted_category_unlabelled"] = [predict_category(strip_label(prompt)) for prompt in prompts]
    table["prompt_tokens"] = [count_tokens(prompt) for prompt in prompts]
    table["prompt_words"] = [len(prompt.split()) for prompt in prompts]
    table[["output_tokens", "output_words", "stops"]] = pd.NA
    table["patience_s"] = np.nan
    table["source"] = np.arange(len(table))
    return in_order(table)
