"""A workload is a list of phases and the requests in them; what each request will turn out to be travels beside it.

The same object drives simulation and capture. ``Arrivals`` says when each request arrives; it is told the time and of
every departure, because a phase may wait for the system to drain and a closed phase for its users. A trace is replayed
here; the reference's workload is in ``reference``, one from a file of prompts in ``prompts``.
"""

from __future__ import annotations

import zlib
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from driftsim.errors import InputError
from driftsim.request import Request, Tier
from driftsim.scheduling.classify import CATEGORIES, known_category, predict_category, strip_label
from driftsim.trace.header import WorkloadInfo
from driftsim.trace.schema import OFFERED
from driftsim.trace.tables import typed

# Columns of a workload's table. output_* are the truth, NA where nobody knows it yet; offset_s counts from the
# phase's start; ``stops`` tells that it ends by itself, not at a limit; ``source`` is the row of the recorded request
# that this one is or was resampled from.
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
    "source",
]


def stream(seed: int, name: str) -> np.random.Generator:
    """The random stream ``name`` of ``seed``: changing how one stream is used leaves the others alone."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


@dataclass(frozen=True, eq=False)
class Workload:
    """Requests in order of arrival, phase by phase; ``table`` has ``COLUMNS``, ``prompts`` the texts where known."""

    info: WorkloadInfo
    table: pd.DataFrame
    prompts: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        counted = [phase.requests for phase in self.info.phases]
        names = [phase.name for phase in self.info.phases]
        found = [name for name, count in zip(names, counted, strict=True) for _ in range(count)]
        if len(set(names)) < len(names) or list(self.table["phase"]) != found:
            raise InputError(f"workload rows must stand phase by phase, with the phases' counts {counted}")

    def __len__(self) -> int:
        return len(self.table)

    @cached_property
    def offered(self) -> pd.DataFrame:
        """What a trace's request table holds of these requests before a run begins, in its dtypes."""
        return typed(self.table[[column.name for column in OFFERED]], OFFERED, "workload")

    @cached_property
    def output_words(self) -> pd.Series:
        """The words of each output, by row; missing where they were not recorded."""
        return self.table["output_words"].astype("Int64").reset_index(drop=True)

    @cached_property
    def _prompt_numbers(self) -> tuple[array[int], ...]:
        """Prompt tokens, ``max_tokens`` and prompt words by row; -1 where words are missing."""
        numbers = (
            self.table[name].astype("Int64").fillna(-1) for name in ("prompt_tokens", "max_tokens", "prompt_words")
        )
        return tuple(array("q", column.to_numpy(dtype=np.int64)) for column in numbers)

    def categories(self, column: str) -> list[str]:
        """The category of each request in ``column``, one of the classifier's four; any other counts as short_qa."""
        names = self.offered[column].tolist()
        known = {name: known_category(name) for name in set(names)}
        return [known[name] for name in names]

    def unknown_categories(self, column: str) -> int:
        """How many requests have none of the classifier's categories in ``column``."""
        return int((~self.table[column].isin(CATEGORIES)).sum())

    def requests(self) -> Callable[[int, float], Request]:
        """A function from row and arrival time (s) to the request."""
        ids, tenants, categories = (self.offered[name].tolist() for name in ("request_id", "tenant", "category"))
        known = {tier.value: tier for tier in Tier}
        tiers = [known[tier] for tier in self.offered["tier"].tolist()]
        prompts, caps, words = self._prompt_numbers
        texts = self.prompts

        def build(row: int, arrival: float) -> Request:
            text = texts[row] if texts else None
            return Request(
                ids[row], tenants[row], tiers[row], categories[row] or "", arrival,
                prompts[row], None if words[row] < 0 else words[row], caps[row], text,
            )  # fmt: skip

        return build


def described(table: pd.DataFrame, prompts: Sequence[str], count_tokens: Callable[[str], int]) -> pd.DataFrame:
    """``table`` with all of ``COLUMNS``: what can be told from ``prompts`` before an engine served them.

    ``count_tokens`` counts a prompt as the engine will see it. Output lengths are unknown, NA.
    """
    table["predicted_category"] = [predict_category(prompt) for prompt in prompts]
    table["predicted_category_unlabelled"] = [predict_category(strip_label(prompt)) for prompt in prompts]
    table["prompt_tokens"] = [count_tokens(prompt) for prompt in prompts]
    table["prompt_words"] = [len(prompt.split()) for prompt in prompts]
    table[["output_tokens", "output_words", "stops"]] = pd.NA
    table["source"] = np.arange(len(table))
    return table[COLUMNS]
