"""A request whose record breaks a rule becomes an error that says which: one odd row costs no other."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from driftsim.trace.checks import request_problems
from driftsim.trace.header import Header
from driftsim.trace.schema import LIFE_TIMES, RECORDED_COLUMNS

COLUMNS = {column.name: column for column in RECORDED_COLUMNS}
CLEARED = (
    *LIFE_TIMES[1:],
    "dispatch_index",
    "output_tokens",
    "output_words",
    "preemptions",
    "cached_tokens",
    "stop_string",
)  # may be empty
MENDED = {*CLEARED, "finish_reason", "prompt_tokens"}  # what an engine tells; the rest the client knows itself


def marked(table: pd.DataFrame, header: Header) -> tuple[pd.DataFrame, int]:
    """The requests of a recorded run with every row that breaks a rule as an error, and how many these are.

    Such a row keeps what the client knows, the request and its arrival; what the engine told of it is cleared. What
    breaks a rule elsewhere (an id, an arrival) is left to ``check``.
    """
    whys: dict[int, str] = {}
    while found := next(_odd(table, header, whys), None):
        rows, why = found
        if not whys:
            table = table.copy()
        whys |= dict.fromkeys(rows.tolist(), why)
        labels = table.index[rows]
        for name in (name for name in CLEARED if name in table):
            kind = COLUMNS[name].dtype
            table.loc[labels, name] = np.nan if kind == "float64" else pd.NA
        table.loc[labels, "finish_reason"] = "error"
        table.loc[labels, "error"] = why
    return table, len(whys)


def _odd(table: pd.DataFrame, header: Header, known: dict[int, str]) -> Iterator[tuple[np.ndarray, str]]:
    """Rows that break a rule and are not among the ``known``, and what they break."""
    for problem in request_problems(table, header):
        rows = np.flatnonzero(np.asarray(problem.bad, dtype=bool))
        rows = rows[~np.isin(rows, list(known))]
        if len(rows) and problem.column in MENDED:
            yield rows, f"what was recorded of it cannot be: {problem.column}: {problem.what}"


def odd_note(count: int) -> tuple[str, ...]:
    """What a reader of the numbers should know of ``count`` such rows."""
    return (f"{count} requests are marked as errors: what was recorded of them cannot be",) if count else ()
