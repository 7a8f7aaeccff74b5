"""The columns of a trace's tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

SCHEMA_VERSION = 1
FINISHED = ("stop", "length")
FINISH_REASONS = (*FINISHED, "abort", "error", "rejected")
CENSORED = ("length", "abort")
TIER_NAMES = ("premium", "standard", "batch")
LONGEST_S = 1e9  # a run of thirty years
LARGEST_COUNT = 10**9  # sanity limit of every integer column


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table: its name, its kind and whether a row may leave it empty."""

    name: str
    kind: Literal["str", "int", "float"]
    nullable: bool = False

    @property
    def dtype(self) -> str:
        """The pandas dtype that holds the column: empty is NaN in a float, NA in an integer, None in a string."""
        if self.kind == "int":
            return "Int64" if self.nullable else "int64"
        return {"float": "float64", "str": "object"}[self.kind]


def _columns(kind: Literal["str", "int", "float"], names: str, nullable: bool = False) -> tuple[Column, ...]:
    return tuple(Column(name, kind, nullable) for name in names.split())


REQUEST_COLUMNS: tuple[Column, ...] = (
    *_columns("str", "request_id tenant tier phase"),
    *_columns("str", "category predicted_category predicted_category_unlabelled", nullable=True),
    *_columns("int", "prompt_tokens"),
    *_columns("int", "prompt_words", nullable=True),
    *_columns("int", "max_tokens"),
    *_columns("str", "scheduling_class", nullable=True),
    *_columns("float", "bias", nullable=True),
    *_columns("int", "estimate budget", nullable=True),
    *_columns("float", "arrival_s"),
    *_columns("float", "dispatch_s queued_s scheduled_s first_token_s finish_s", nullable=True),
    *_columns("int", "dispatch_index output_tokens output_words", nullable=True),
    *_columns("str", "finish_reason", nullable=True),
    *_columns("int", "preemptions batch_id batch_size", nullable=True),
    *_columns("str", "error", nullable=True),
)
OFFERED = REQUEST_COLUMNS[: 1 + [column.name for column in REQUEST_COLUMNS].index("max_tokens")]  # known beforehand
STEP_COLUMNS: tuple[Column, ...] = (
    *_columns("float", "start_s duration_s"),
    *_columns("int", "prefill_tokens prefill_requests decode_requests context_tokens"),
    *_columns("float", "prefill_attention"),
    *_columns("int", "running waiting kv_blocks_used preempted"),
)
LIFE_TIMES = ("arrival_s", "dispatch_s", "queued_s", "scheduled_s", "first_token_s", "finish_s")
TRACE_FILES = ("header.json", "requests.parquet", "steps.parquet", "telemetry.parquet")
JOURNAL_FILES = ("offered.parquet", "requests.jsonl", "steps.csv", "telemetry.csv")  # while a run is recorded
TABLES = {"requests": REQUEST_COLUMNS, "steps": STEP_COLUMNS}
