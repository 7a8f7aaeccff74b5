"""What happened to each request of a run, as columns that are filled row by row, cheaply; then the requests' table."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from driftsim.trace.schema import LIFE_TIMES, request_columns


class RequestRows:
    """Columns by row, with nothing in them yet: ``times`` (and the bias) NaN, ``counts`` -1, ``texts`` None.

    Typed arrays: 8 bytes a value instead of a 32-byte object, so that a million requests fit.
    """

    def __init__(self, count: int) -> None:
        self.times = {name: array("d", [math.nan]) * count for name in (*LIFE_TIMES, "bias")}
        names = (
            "estimate",
            "budget",
            "dispatch_index",
            "output_tokens",
            "output_words",
            "preemptions",
            "prompt_tokens",
            "batch_id",
            "batch_size",
            "cached_tokens",
            "stop_string",
        )
        self.counts = {name: array("q", [-1]) * count for name in names}
        self.texts: dict[str, list[str | None]] = {
            name: [None] * count for name in ("scheduling_class", "finish_reason", "error")
        }

    def with_intervals(self) -> tuple[array[int], array[int]]:
        """Columns besides, for the lowest and the highest quantile that came with each estimate."""
        count = len(self.counts["estimate"])
        low, high = (array("q", [-1]) * count for _ in range(2))
        self.counts |= {"estimate_low": low, "estimate_high": high}
        return low, high

    def set(self, row: int, values: Mapping[str, Any]) -> None:
        """Note ``values``, by column name."""
        for name, value in values.items():
            column: Any = self.times.get(name) or self.counts.get(name) or self.texts[name]
            column[row] = value

    def table(self, offered: pd.DataFrame, **others: Any) -> pd.DataFrame:
        """One row for each of ``offered``, the first rows, in ``OFFERED``; arrays in ``others`` replace columns.

        The table shares its memory with these columns: set nothing after it was made.
        """
        rows = len(offered)
        columns: dict[str, Any] = {}
        besides = {"cached_tokens"} if max(self.counts["cached_tokens"][:rows], default=-1) >= 0 else set()
        besides |= {"stop_string"} if max(self.counts["stop_string"][:rows], default=-1) > 0 else set()
        besides |= {"estimate_low", "estimate_high"} & self.counts.keys()
        for column in request_columns({*offered, *others, *besides}):
            name = column.name
            if name in others:
                columns[name] = others[name]
            elif name in self.times:
                columns[name] = np.frombuffer(self.times[name])[:rows]
            elif name == "prompt_tokens":  # the engine's own count, where it gave one
                counted = np.frombuffer(self.counts[name], dtype=np.int64)[:rows]
                columns[name] = np.where(counted < 0, offered[name].to_numpy(), counted)
            elif name in self.counts:
                values = np.frombuffer(self.counts[name], dtype=np.int64)[:rows]
                columns[name] = pd.arrays.IntegerArray(values, values < 0)
            elif name in self.texts:
                columns[name] = pd.Series(self.texts[name][:rows], offered.index, dtype=object)
            elif name in offered:
                columns[name] = offered[name]
            else:
                columns[name] = pd.arrays.IntegerArray(np.zeros(rows, dtype=np.int64), np.ones(rows, dtype=bool))
        return pd.DataFrame(columns, offered.index, copy=False)


class FilledColumns:
    """The columns of ``rows`` that every request fills in, by name: slots, which cost no look-up in a dictionary."""

    __slots__ = (
        "arrival_s", "bias", "budget", "dispatch_index", "dispatch_s", "estimate", "finish_reason", "finish_s",
        "first_token_s", "output_tokens", "preemptions", "queued_s", "scheduled_s", "scheduling_class",
    )  # fmt: skip

    def __init__(self, rows: RequestRows) -> None:
        times, counts, texts = rows.times, rows.counts, rows.texts
        self.arrival_s, self.bias = times["arrival_s"], times["bias"]
        self.estimate, self.budget = counts["estimate"], counts["budget"]
        self.scheduling_class = texts["scheduling_class"]
        self.dispatch_s, self.dispatch_index = times["dispatch_s"], counts["dispatch_index"]
        self.queued_s, self.scheduled_s = times["queued_s"], times["scheduled_s"]
        self.first_token_s, self.finish_s = times["first_token_s"], times["finish_s"]
        self.output_tokens, self.preemptions = counts["output_tokens"], counts["preemptions"]
        self.finish_reason = texts["finish_reason"]
