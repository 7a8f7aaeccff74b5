"""What is known of the requests of a live run: as they were offered, as they fared, and how they begin."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from driftsim.live.sharing import Beginning
from driftsim.request import Request
from driftsim.trace.builder import RequestRows
from driftsim.trace.subset import taken
from driftsim.workloads.attempts import Attempts


class Lives:
    """By row of the ``attempts``; ``offered`` is what was known of each beforehand."""

    def __init__(self, attempts: Attempts, offered: pd.DataFrame) -> None:
        self.attempts = attempts
        self.offered = offered
        self.beginnings: dict[int, Beginning] = {}
        self._rows = RequestRows(attempts.rows)
        self._expected = offered["prompt_tokens"].to_numpy(dtype=np.int64, copy=True)  # as admission counted them
        self._spoken: dict[int, int] = {}  # words of a prompt with all that it repeats

    def set(self, row: int, values: Mapping[str, Any]) -> None:
        """Note ``values``, by column name."""
        self._rows.set(row, values)

    def repeats(self, row: int, request: Request) -> None:
        """``request`` repeats what was said before, and is longer for it than it was offered."""
        self._expected[row], self._spoken[row] = request.prompt_tokens, request.prompt_words or 0

    def table(self) -> pd.DataFrame:
        """The trace's request table: one row for each request that was sent, and for each time it was."""
        table, came = self._rows.table(self.offered), self.came()
        if (deadlines := self.attempts.deadlines()) is not None:
            table = table.assign(deadline_s=deadlines + self.attempts.of_first(table["arrival_s"].to_numpy()))
        if self._spoken:
            words = table["prompt_words"].to_numpy(dtype=object, copy=True)
            words[list(self._spoken)] = list(self._spoken.values())
            table = table.assign(prompt_words=pd.array(words, dtype="Int64"))
        return table if len(came) == len(table) else taken(table, came)

    def came(self) -> np.ndarray:
        """The rows that were sent."""
        return np.flatnonzero(~np.isnan(np.frombuffer(self._rows.times["arrival_s"])))

    def first(self) -> np.ndarray:
        """The same of first attempts."""
        came = self.came()
        return came[came < self.attempts.requests]

    def begun(self) -> dict[int, Beginning]:
        """How the requests of ``table`` begin, by their place there."""
        places = {row: place for place, row in enumerate(self.came().tolist())}
        return {places[row]: beginning for row, beginning in self.beginnings.items()}

    def notes(self) -> tuple[str, ...]:
        """What a reader of the numbers should know."""
        counted = np.frombuffer(self._rows.counts["prompt_tokens"], dtype=np.int64)
        differ = int(((counted >= 0) & (counted != self._expected)).sum())
        if not differ:
            return ()
        return (
            f"the engine counted other prompt lengths than admission did in {differ} of {len(self.came())} requests: "
            "prompt_tokens are the engine's, estimates and budgets rest on admission's",
        )
