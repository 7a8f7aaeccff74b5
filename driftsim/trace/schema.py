"""The columns of a trace's tables: name, kind, unit and meaning, each written down here and nowhere else."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from typing import Literal

from driftsim.request import TIERS

SCHEMA_VERSION = 1
FINISHED = ("stop", "length")
GIVEN_UP = ("abort", "timeout")  # by the client
FINISH_REASONS = (*FINISHED, *GIVEN_UP, "error", "rejected")
CENSORED = ("length", *GIVEN_UP)
TIER_NAMES = tuple(tier.value for tier in TIERS)  # the published three
LONGEST_S = 1e9  # a run of thirty years
FASTEST_S, SLOWEST_S = 1e-4, 5.0  # per output token: no engine is faster, none is used that is slower
LARGEST_COUNT = 10**9  # sanity limit of every integer column


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table: its name, its kind, whether a row may leave it empty, its unit and what it means."""

    name: str
    kind: Literal["str", "int", "float", "list of str", "list of int"]
    nullable: bool
    unit: str
    meaning: str

    @property
    def dtype(self) -> Literal["Int64", "int64", "float64", "object"]:
        """The pandas dtype that holds the column: empty is NaN in a float, NA in an integer, None in a string."""
        if self.kind == "int":
            return "Int64" if self.nullable else "int64"
        return "float64" if self.kind == "float" else "object"

    @property
    def gloss(self) -> str:
        """Unit and meaning as a reader's errors put them in brackets.

        >>> Column("queued_s", "float", True, "s", "When the engine's core received the request.").gloss
        "s; when the engine's core received the request"
        """
        meaning = self.meaning.removesuffix(".")
        if meaning[1:2].islower():  # "KV" and "GPU" keep their capitals
            meaning = meaning[0].lower() + meaning[1:]
        return f"{self.unit}; {meaning}" if self.unit else meaning


REQUIRED, MAY_BE_EMPTY = False, True
LENGTH = "tokens or words"  # of a length in the accounting's unit
REQUEST_COLUMNS: tuple[Column, ...] = (
    Column("request_id", "str", REQUIRED, "", "Name of the request, unique in its trace."),
    Column("tenant", "str", REQUIRED, "", "Customer that sent the request."),
    Column("tier", "str", REQUIRED, "", "Service tier of the request, of any name."),
    Column("phase", "str", REQUIRED, "", "Phase of the workload, as the header names it, that the request belongs to."),
    Column("category", "str", MAY_BE_EMPTY, "", "Kind of request, as its author labelled it."),
    Column("predicted_category", "str", MAY_BE_EMPTY, "", "Answer of the classifier to the prompt as it was sent."),
    Column(
        "predicted_category_unlabelled", "str", MAY_BE_EMPTY, "",
        "Answer of the classifier to the prompt without the label that it may carry.",
    ),
    Column("prompt_tokens", "int", REQUIRED, "tokens", "Length of the prompt, as the engine's tokenizer counts it."),
    Column("prompt_words", "int", MAY_BE_EMPTY, "words", "Length of the prompt in words between white space."),
    Column("max_tokens", "int", REQUIRED, "tokens", "Largest output that the request allows."),
    Column(
        "scheduling_class", "str", MAY_BE_EMPTY, "",
        "Class that the budget falls into: short, medium or long; a replay makes it anew.",
    ),
    Column(
        "bias", "float", MAY_BE_EMPTY, "",
        "Factor by which the estimator corrected the base of the estimate; 1 leaves it alone.",
    ),
    Column("estimate", "int", MAY_BE_EMPTY, LENGTH, "Output length that admission expected; a replay makes it anew."),
    Column("budget", "int", MAY_BE_EMPTY, LENGTH, "Prompt length plus estimate; a replay makes it anew."),
    Column("arrival_s", "float", REQUIRED, "s", "When the request arrived at the dispatcher."),
    Column("dispatch_s", "float", MAY_BE_EMPTY, "s", "When the dispatcher handed the request to the engine."),
    Column("queued_s", "float", MAY_BE_EMPTY, "s", "When the engine's core received the request."),
    Column("scheduled_s", "float", MAY_BE_EMPTY, "s", "When the engine first scheduled a token of the request."),
    Column(
        "first_token_s", "float", MAY_BE_EMPTY, "s",
        "When the first output token appeared; a barrier engine shows none.",
    ),
    Column("finish_s", "float", MAY_BE_EMPTY, "s", "When the last output token appeared."),
    Column("dispatch_index", "int", MAY_BE_EMPTY, "", "Place of the request in the order of dispatch, from 0."),
    Column("output_tokens", "int", MAY_BE_EMPTY, "tokens", "Length of the output that the engine produced."),
    Column("output_words", "int", MAY_BE_EMPTY, "words", "Length of that output in words between white space."),
    Column(
        "finish_reason", "str", MAY_BE_EMPTY, "",
        "How the request ended: stop (by itself), length (at its limit), abort, timeout (its client waited no longer), "
        "error or rejected.",
    ),
    Column(
        "preemptions", "int", MAY_BE_EMPTY, "",
        "How often the engine took the request's KV blocks away and computed it again.",
    ),
    Column("batch_id", "int", MAY_BE_EMPTY, "", "Number of the batch that served the request; barrier engine only."),
    Column("batch_size", "int", MAY_BE_EMPTY, "requests", "Number of requests in that batch; barrier engine only."),
    Column("error", "str", MAY_BE_EMPTY, "", "What the engine said of a request that failed."),
)  # fmt: skip
PREFIX_COLUMNS: tuple[Column, ...] = (  # both stand in a requests table, or none
    Column(
        "prefix_row", "int", MAY_BE_EMPTY, "",
        "Row, from 0, of the earlier request that shares the most with this one from the beginning on; empty: none.",
    ),
    Column(
        "prefix_tokens", "int", MAY_BE_EMPTY, "tokens",
        "How much that is, of the earlier request's prompt and then of its output.",
    ),
)  # fmt: skip
CACHED_COLUMN = Column(
    "cached_tokens", "int", MAY_BE_EMPTY, "tokens",
    "Prompt tokens that the engine found in its cache when it first scheduled the request.",
)  # fmt: skip
CHOICE_COLUMN = Column(
    "choice_of", "str", MAY_BE_EMPTY, "",
    "Name of the request that this is one of several answers to (its n), each a row, in order; empty: of none.",
)  # fmt: skip
STOP_COLUMN = Column(
    "stop_string", "int", MAY_BE_EMPTY, "",
    "1 where a stop string ended the output: the server found it, and the engine heard of it a step or two later. "
    "Empty or 0: none did.",
)  # fmt: skip
INTERVAL_COLUMNS: tuple[Column, ...] = (  # both stand in a requests table, or none
    Column(
        "estimate_low", "int", MAY_BE_EMPTY, LENGTH,
        "Lowest quantile of the output length that the estimator gave at admission; `header.admission.levels` says "
        "which.",
    ),
    Column(
        "estimate_high", "int", MAY_BE_EMPTY, LENGTH,
        "Highest quantile of it; below the lowest, the interval is empty.",
    ),
)  # fmt: skip
SESSION_COLUMNS: tuple[Column, ...] = (  # all of them stand in a requests table, or none
    Column("session", "str", MAY_BE_EMPTY, "", "Session or program that the request is a turn of; empty: none."),
    Column(
        "parent", "list of int", REQUIRED, "",
        "Rows, from 0, of the earlier requests that must have ended before this one is sent; empty: it waits for none.",
    ),
    Column(
        "gap_s", "float", MAY_BE_EMPTY, "s",
        "Time between the end of the last of them and the request: thinking, a tool.",
    ),
)  # fmt: skip
TIMEOUT_COLUMN = Column(
    "timeout_s", "float", MAY_BE_EMPTY, "s",
    "How long its client waits for the end of the answer, from the arrival; empty: as long as it takes.",
)  # fmt: skip
DEADLINE_COLUMN = Column(
    "deadline_s",
    "float",
    MAY_BE_EMPTY,
    "s",
    "When the answer must have ended, or its client gives it up; empty: never.",
)
ATTEMPT_COLUMNS: tuple[Column, ...] = (  # both stand in a requests table, or none
    Column("attempt", "int", REQUIRED, "", "Which time this is that the client sends the request, from 1."),
    Column("retry_of", "str", MAY_BE_EMPTY, "", "Id of the request's first attempt; empty: this is the first."),
)
REPLICA_COLUMNS: tuple[Column, ...] = (  # both stand in a requests table, or none
    Column("replica", "int", MAY_BE_EMPTY, "", "Replica that had the request last, from 0; empty: none had it."),
    Column("moved", "int", REQUIRED, "", "How often a replica failed under the request, which then began again."),
)
TOLD_COLUMNS = (*REQUEST_COLUMNS, CACHED_COLUMN)  # what a client, an engine or a file tells of a request alone
RECORDED_COLUMNS = (*TOLD_COLUMNS, STOP_COLUMN)  # what a recording does
OFFERED = REQUEST_COLUMNS[: 1 + [column.name for column in REQUEST_COLUMNS].index("max_tokens")]  # known beforehand
STEP_COLUMNS: tuple[Column, ...] = (
    Column("start_s", "float", REQUIRED, "s", "When the engine began to schedule the step."),
    Column(
        "duration_s", "float", REQUIRED, "s",
        "Completion of the step minus the later of its start and the previous completion; gaps are host overhead.",
    ),
    Column("prefill_tokens", "int", REQUIRED, "tokens", "Prompt tokens that the step computed."),
    Column("prefill_requests", "int", REQUIRED, "requests", "Requests of whose prompts the step computed a part."),
    Column("decode_requests", "int", REQUIRED, "requests", "Requests for which the step computed an output token."),
    Column("context_tokens", "int", REQUIRED, "tokens", "KV tokens that the decoding requests read."),
    Column(
        "prefill_attention", "float", REQUIRED, "tokens²",
        "Attention work of the prefills: the sum over them of q (kv + (q + 1) / 2), for q tokens after kv others.",
    ),
    Column("running", "int", REQUIRED, "requests", "Requests that the engine ran, after it had scheduled the step."),
    Column("waiting", "int", REQUIRED, "requests", "Requests that waited inside the engine at that moment."),
    Column("kv_blocks_used", "int", REQUIRED, "blocks", "KV blocks that held tokens at that moment."),
    Column("preempted", "int", REQUIRED, "requests", "Requests that the engine preempted while it scheduled the step."),
)  # fmt: skip
STEP_REQUEST_COLUMNS: tuple[Column, ...] = (  # all of them stand in a steps table, or none
    Column(
        "request_ids", "list of str", REQUIRED, "",
        "Requests that the step computed, in order of admission; only where the run was asked for them.",
    ),
    Column(
        "request_tokens", "list of int", REQUIRED, "tokens",
        "Tokens that the step computed of each of them; only where the run was asked for them.",
    ),
    Column(
        "preempted_ids", "list of str", REQUIRED, "",
        "Requests that the engine preempted while it scheduled the step; only where the run was asked for them.",
    ),
)  # fmt: skip
REPLICA_STEP_COLUMN = Column("replica", "int", REQUIRED, "", "Replica that computed the step, from 0.")
TELEMETRY_COLUMNS: tuple[Column, ...] = (  # those of the GPU stand only in the runs of a machine that has one
    Column("time_s", "float", REQUIRED, "s", "When the sample was taken; loads are means since the previous one."),
    Column("busy_cpu", "float", REQUIRED, "cores", "CPU that all processes of the machine used."),
    Column("own_cpu", "float", REQUIRED, "cores", "CPU that driftsim, the engine and their children used."),
    Column("foreign_cpu", "float", REQUIRED, "cores", "CPU that all others used: a disturbance of the measurement."),
    Column("steal_cpu", "float", REQUIRED, "cores", "CPU that the hypervisor gave to other machines."),
    Column("gpu_utilization_percent", "float", MAY_BE_EMPTY, "%", "Share of the time in which the GPU ran a kernel."),
    Column("gpu_memory_used_mib", "float", MAY_BE_EMPTY, "MiB", "GPU memory in use."),
    Column("gpu_power_w", "float", MAY_BE_EMPTY, "W", "Power that the GPU drew."),
    Column("gpu_temperature_c", "float", MAY_BE_EMPTY, "°C", "Temperature of the GPU."),
    Column("gpu_sm_clock_mhz", "float", MAY_BE_EMPTY, "MHz", "Clock of the GPU's multiprocessors."),
    Column("gpu_memory_clock_mhz", "float", MAY_BE_EMPTY, "MHz", "Clock of the GPU's memory."),
    Column("gpu_performance_state", "float", MAY_BE_EMPTY, "", "Performance state of the GPU: 0 is the fastest."),
)  # fmt: skip
SAMPLED = tuple(column for column in TELEMETRY_COLUMNS if not column.nullable)  # on every machine
MAY_BE_SAMPLED = tuple(column for column in TELEMETRY_COLUMNS if column.nullable)  # of a GPU
LIFE_TIMES = ("arrival_s", "dispatch_s", "queued_s", "scheduled_s", "first_token_s", "finish_s")
TRACE_FILES = ("header.json", "requests.parquet", "steps.parquet", "telemetry.parquet")
JOURNAL_FILES = ("offered.parquet", "requests.jsonl", "steps.csv", "telemetry.csv")  # while a run is recorded
TABLES = {"requests": REQUEST_COLUMNS, "steps": STEP_COLUMNS}  # telemetry is written as it was sampled
# Columns that a table may have besides; those of one group stand there together.
GROUPS: dict[str, tuple[tuple[Column, ...], ...]] = {
    "requests": (
        PREFIX_COLUMNS,
        (CACHED_COLUMN,),
        INTERVAL_COLUMNS,
        SESSION_COLUMNS,
        (CHOICE_COLUMN,),
        (STOP_COLUMN,),
        (TIMEOUT_COLUMN,),
        (DEADLINE_COLUMN,),
        ATTEMPT_COLUMNS,
        REPLICA_COLUMNS,
    ),
    "steps": (STEP_REQUEST_COLUMNS, (REPLICA_STEP_COLUMN,)),
}
OPTIONAL = {name: tuple(column for group in groups for column in group) for name, groups in GROUPS.items()}


def request_columns(names: Container[str]) -> tuple[Column, ...]:
    """The columns of a requests table that has these ``names``, in order."""
    return (*REQUEST_COLUMNS, *(column for column in OPTIONAL["requests"] if column.name in names))
