"""A trace is what happened: a header, one row per request and, where recorded, one row per engine step.

Captured, simulated and imported traces have the same columns, listed in ``REQUEST_COLUMNS`` and ``STEP_COLUMNS``.
Times are seconds since the start of the run. A trace on disk is a folder; it appears whole or not at all.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

SCHEMA_VERSION = 1
ROWS_AT_ONCE = 100_000  # that are converted for writing, so that a large table is never there twice
FINISHED = ("stop", "length")
FINISH_REASONS = (*FINISHED, "abort", "error", "rejected")
CENSORED = ("length", "abort")
TIER_NAMES = ("premium", "standard", "batch")
LONGEST_S = 1e9  # a run of thirty years
MOST = 10**9  # tokens, or anything else that is counted
CLOCK_TOLERANCE_S = 1e-6  # two clocks of one host, each rounded to a microsecond


class TraceError(ValueError):
    """A trace, or a file that should be one, is not what it claims; the message says where, what and the remedy."""


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
STEP_COLUMNS: tuple[Column, ...] = (
    *_columns("float", "start_s duration_s"),
    *_columns("int", "prefill_tokens prefill_requests decode_requests context_tokens"),
    *_columns("float", "prefill_attention"),
    *_columns("int", "running waiting kv_blocks_used preempted"),
)
LIFE = ("arrival_s", "dispatch_s", "queued_s", "scheduled_s", "first_token_s", "finish_s")
TRACE_FILES = ("header.json", "requests.parquet", "steps.parquet", "telemetry.parquet")
JOURNAL_FILES = ("offered.parquet", "requests.jsonl", "steps.csv", "telemetry.csv")  # while a run is recorded
TABLES = {"requests": REQUEST_COLUMNS, "steps": STEP_COLUMNS}


class Record(BaseModel):
    """A value that crosses a file boundary: validated, frozen, and strict about keys it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    def changed(self, **values: Any) -> Self:
        """A copy with other ``values``, validated, and with nothing cached from this one."""
        return type(self)(**{name: getattr(self, name) for name in type(self).model_fields} | values)


GUESSES: dict[str, Any] = {
    "max_num_seqs": 256,
    "max_num_batched_tokens": 2048,
    "max_model_len": 8192,
    "block_size": 16,
}


class EngineSettings(Record):
    """What decides an engine's schedule, as read from the engine; the defaults are vLLM's where it has one."""

    name: str = "vllm"
    version: str = "unknown"
    max_num_seqs: int = Field(gt=0)
    max_num_batched_tokens: int = Field(gt=0)
    max_model_len: int = Field(gt=1)
    kv_blocks: int = Field(gt=1)  # as the engine counts them: one is the null block and holds nothing
    block_size: int = Field(gt=0)  # tokens
    enable_chunked_prefill: bool = True
    long_prefill_token_threshold: int = Field(default=0, ge=0)  # tokens; 0 is off
    scheduling_policy: Literal["fcfs", "priority"] = "fcfs"
    async_scheduling: bool = False
    enable_prefix_caching: bool = False
    scheduler_reserve_full_isl: bool = True  # admission asks for room for the whole prompt; older versions: the chunk
    watermark: float = Field(default=0.0, ge=0, lt=1)  # share of the KV blocks that admission leaves free
    assumed: tuple[str, ...] = ()  # settings that the engine did not tell, and that hold a guess

    @model_validator(mode="after")
    def _as_vllm_demands(self) -> Self:  # vllm/config/scheduler.py, verify_max_model_len
        budget = self.max_num_batched_tokens
        if budget < self.max_num_seqs:
            raise ValueError(f"max_num_batched_tokens {budget} is below max_num_seqs {self.max_num_seqs}")
        if not self.enable_chunked_prefill and budget < self.max_model_len:
            raise ValueError(
                f"max_num_batched_tokens {budget} is below max_model_len {self.max_model_len}, "
                "which needs chunked prefill"
            )
        return self

    @classmethod
    def guessed(cls, told: dict[str, Any], name: str = "unknown", longest: int = 0) -> Self:
        """Settings of which only some are ``told``: vLLM's defaults for the others, named in ``assumed``.

        The model length is at least ``longest``, the tokens of the longest request.

        The defaults are those on a GPU of the L4's class (vllm/engine/arg_utils.py); the KV cache is then so large that
        it never binds. Raises ``ValidationError`` for what is no setting.
        """
        guesses = {"max_model_len": max(GUESSES["max_model_len"], longest), "async_scheduling": _is_async(told)}
        values: dict[str, Any] = GUESSES | guesses | told
        blocks = values["max_num_seqs"] * -(-values["max_model_len"] // values["block_size"]) + 1
        values.setdefault("kv_blocks", blocks)
        needed = (*GUESSES, "kv_blocks", "version", "enable_prefix_caching", "async_scheduling")
        assumed = tuple(setting for setting in needed if setting not in told)
        return cls(**{"name": name, "assumed": assumed} | values)

    @property
    def usable_kv_blocks(self) -> int:
        """Blocks that can hold tokens: all but vLLM's null block (vllm/v1/core/block_pool.py)."""
        return self.kv_blocks - 1


def _is_async(told: dict[str, Any]) -> bool:
    """Whether an engine of the version ``told`` schedules asynchronously by default: vLLM does on GPUs since 0.14."""
    found = re.match(r"v?(\d+)\.(\d+)", str(told.get("version", "")))
    return found is not None and (int(found[1]), int(found[2])) >= (0, 14)


class Phase(Record):
    """A stretch of a workload and the rule by which its requests arrive.

    ``open``: at recorded offsets from the phase's start, which is when the previous phase has sent its last request.
    ``after-drain``: likewise, but the phase starts when everything before it has left. ``backlog``: all at its start.
    ``closed``: each of ``users`` sends a request, waits for its end, thinks for ``think_s`` and sends the next.
    """

    name: str
    kind: Literal["open", "after-drain", "closed", "backlog"] = "open"
    requests: int = Field(gt=0)
    pause_s: float = Field(default=0.0, ge=0)  # between that condition and the phase's start
    start_s: float | None = None  # when it started, where recorded
    users: int = Field(default=0, ge=0)
    think_s: float = Field(default=0.0, ge=0)

    @model_validator(mode="after")
    def _has_users(self) -> Self:
        if self.kind == "closed" and self.users < 1:
            raise ValueError(f"the closed phase {self.name!r} needs at least 1 user")
        return self


class WorkloadInfo(Record):
    """Where the requests of a run came from."""

    name: str
    loop: Literal["open", "closed"] = "open"
    phases: tuple[Phase, ...]

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        names = [phase.name for phase in self.phases]
        if len(set(names)) < len(names):
            raise ValueError(f"two phases have the same name: {', '.join(names)}")
        return self


class MachineLoad(Record):
    """How busy the machine was during a capture, in cores; a disturbed capture had more foreign load than allowed."""

    cpu_count: int
    own_cpu_mean: float
    foreign_cpu_mean: float
    foreign_cpu_max: float
    foreign_cpu_limit: float
    disturbed: bool


class Header(Record):
    """Everything about a run that is not a row. Simulated headers hold no wall-clock time."""

    schema_version: Literal[1] = 1
    kind: Literal["captured", "simulated", "imported"]
    driftsim_version: str
    ended: Literal["recording", "complete", "interrupted", "failed"] = "complete"
    ended_why: str = ""
    engine: EngineSettings
    engine_arguments: dict[str, Any] = {}
    model: str = "unknown"
    hardware: str = "unknown"
    software: dict[str, str] = {}
    workload: WorkloadInfo
    admission: dict[str, Any] = {}  # policy, estimator, accounting and every switch
    max_in_flight: int | None = None  # None: no limit, the engine's own order
    seed: int | None = None
    profile_digest: str | None = None
    clocks: str = ""
    captured_at: str | None = None
    load: MachineLoad | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Trace:
    """A run: ``requests`` has one row per offered request, ``steps`` one per engine step that scheduled a token."""

    header: Header
    requests: pd.DataFrame
    steps: pd.DataFrame | None = None
    telemetry: pd.DataFrame | None = None

    @property
    def finished(self) -> pd.DataFrame:
        """The rows that ended by themselves or at their cap."""
        return self.requests[self.requests["finish_reason"].isin(FINISHED)]

    def write(self, folder: Path | str, *, overwrite: bool = False) -> Path:
        """Write the trace as ``folder``, whole or not at all; a reader never sees half of it.

        Raises ``TraceError`` if the trace breaks the schema, if ``folder`` exists and ``overwrite`` is not set or what
        exists is no trace, and ``OSError`` if the place cannot be written.
        """
        check(self, str(folder))
        header = self.header
        if header.ended == "recording":  # a journal that is kept as a trace of its own is recorded no more
            header = header.changed(ended="interrupted", ended_why="killed while it was recorded")
        with whole_folder(folder, replaces=(*TRACE_FILES, *JOURNAL_FILES) if overwrite else ()) as building:
            self.write_tables(building)
            (building / "header.json").write_text(header.model_dump_json(indent=1) + "\n")
        return Path(folder)

    def write_tables(self, folder: Path) -> None:
        """Write the tables, without the header, into ``folder``; they are on the disk when this returns."""
        for name, table in (("requests", self.requests), ("steps", self.steps), ("telemetry", self.telemetry)):
            if table is not None:
                file = folder / f"{name}.parquet"
                write_table(table, file, TABLES.get(name))
                with file.open("rb") as handle:
                    os.fsync(handle.fileno())


@contextmanager
def whole_folder(folder: Path | str, replaces: Collection[str] = ()) -> Iterator[Path]:
    """A folder to fill, which becomes ``folder`` at the end, or nothing at all if the block raises.

    An existing ``folder`` is replaced only if it holds nothing but files named in ``replaces``. Raises as
    ``check_place`` does, before the block begins.
    """
    folder = check_place(folder, replaces)
    missing = [parent for parent in folder.parents if not parent.exists()]
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as aside:
            building = Path(aside) / "new"
            building.mkdir()
            yield building
            if folder.exists():
                folder.rename(Path(aside) / "old")
            building.rename(folder)
    except BaseException:
        _remove(missing)
        raise


def check_place(folder: Path | str, replaces: Collection[str] = ()) -> Path:
    """The absolute path of ``folder``, if it can be written and stands in nobody's way; nothing is left behind.

    Raises ``TraceError`` for a folder that may not be replaced and ``OSError`` for a place that cannot be written.
    """
    folder = Path(folder).resolve()
    if folder.exists() and not folder.is_dir():
        raise TraceError(f"{folder}: is a file; choose a folder")
    foreign = [file.name for file in folder.iterdir() if file.name not in replaces] if folder.exists() else []
    if foreign:
        raise TraceError(f"{folder}: exists already and holds {foreign[0]!r}; choose another folder or remove it")
    missing = [parent for parent in folder.parents if not parent.exists()]
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        Path(tempfile.mkdtemp(dir=folder.parent)).rmdir()
    except OSError as error:
        raise OSError(error.errno, "cannot be written here: " + (error.strerror or str(error)), str(folder)) from None
    finally:
        _remove(missing)
    return folder


def _remove(made: list[Path]) -> None:
    """Remove folders that were made on the way, innermost first, where they are there and empty."""
    for folder in made:
        if folder.exists() and not any(folder.iterdir()):
            folder.rmdir()


def read(folder: Path | str) -> Trace:
    """Read and check the trace in ``folder``. Raises ``TraceError`` naming file, row or key, value and remedy.

    A run that is still recorded, or was killed, is read from its journal; its header then says ``recording``.
    """
    folder = Path(folder)
    if not folder.is_dir():
        what = "is a file, not a trace folder" if folder.exists() else "no such trace folder"
        raise TraceError(f"{folder}: {what}; a trace is a folder with header.json and requests.parquet")
    header = _read_header(folder / "header.json")
    if header.ended == "recording":
        try:
            trace = _read_journal(folder, header)
        except FileNotFoundError as error:
            if _read_header(folder / "header.json").ended != "recording":
                return read(folder)  # it came to its end just now
            raise TraceError(f"{error.filename}: no such file; the journal is incomplete, copy it whole") from None
        check(trace, str(folder))
        return trace
    requests = _read_table(folder / "requests.parquet", REQUEST_COLUMNS)
    steps = folder / "steps.parquet"
    telemetry = folder / "telemetry.parquet"
    trace = Trace(
        header=header,
        requests=requests,
        steps=_read_table(steps, STEP_COLUMNS) if steps.exists() else None,
        telemetry=_read_telemetry(telemetry) if telemetry.exists() else None,
    )
    check(trace, str(folder))
    return trace


def _read_journal(folder: Path, header: Header) -> Trace:
    """The trace that the journal in ``folder`` holds so far. A torn last line is ignored."""
    lines = (folder / "requests.jsonl").read_text(errors="replace").splitlines(keepends=True)
    rows: dict[int, dict[str, Any]] = {}
    start = 0.0
    for number, line in enumerate(lines):
        try:
            values = json.loads(line) if line.endswith("\n") else {}
            if "start" in values:
                start = float(values["start"])
            elif values:
                rows.setdefault(int(values.pop("row")), {}).update(values)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise TraceError(
                f"{folder}/requests.jsonl: line {number + 1} is not a line of a journal; remove it"
            ) from None
    offered = pd.read_parquet(folder / "offered.parquet")
    lived = pd.DataFrame.from_dict(rows, orient="index").reindex(sorted(rows))
    whole = offered.loc[lived.index].drop(columns=[name for name in lived if name in offered])
    whole = pd.concat([whole, lived], axis=1).reindex(columns=[column.name for column in REQUEST_COLUMNS])
    return Trace(
        header,
        typed(whole, REQUEST_COLUMNS, f"{folder}/requests.jsonl"),
        None if (steps := read_lines(folder / "steps.csv", start)) is None else typed(steps, STEP_COLUMNS, "steps"),
        read_lines(folder / "telemetry.csv", start),
    )


def read_lines(file: Path, start: float) -> pd.DataFrame | None:
    """A table that grows by lines (CSV), with its first column, a time, counted from ``start``; earlier rows are cut.

    None where there is no such file or it is empty. A torn last line is ignored.
    """
    if not file.exists():
        return None
    text = file.read_text()
    whole = text[: text.rfind("\n") + 1]
    if not whole:
        return None
    table = pd.read_csv(io.StringIO(whole))
    table.iloc[:, 0] -= start
    return table[table.iloc[:, 0] >= 0].reset_index(drop=True)


def _read_telemetry(file: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(file)
    except (OSError, ValueError) as error:
        raise TraceError(f"{file}: not readable as Parquet ({str(error).splitlines()[0]}); remove it") from None


def digest(folder: Path | str) -> str:
    """SHA-256 over the files of the trace in ``folder``, as hexadecimal: what names a trace in a result."""
    total = hashlib.sha256()
    for name in (*TRACE_FILES, *JOURNAL_FILES):
        file = Path(folder) / name
        if file.exists():
            total.update(name.encode() + hashlib.sha256(file.read_bytes()).digest())
    return total.hexdigest()


def first_problem(error: ValidationError) -> str:
    """The first complaint of a pydantic validation, as ``key: what is wrong (got value)``."""
    problem = error.errors()[0]
    key = ".".join(str(part) for part in problem["loc"]) or "document"
    extra = f"; {error.error_count() - 1} more" if error.error_count() > 1 else ""
    got = "" if problem["type"] == "missing" else f" (got {problem['input']!r:.80})"
    return f"{key}: {problem['msg']}{got}{extra}"


def check(trace: Trace, where: str) -> None:
    """Raise ``TraceError`` at the first row or key of ``trace`` that cannot be; ``where`` names it in the message."""
    table = trace.requests
    for problem in _request_problems(table, trace.header):
        rows = np.flatnonzero(np.asarray(problem.bad, dtype=bool))
        if len(rows):
            row = int(rows[0])
            more = f" (and {len(rows) - 1} more rows)" if len(rows) > 1 else ""
            value = _shown(table[problem.column].iloc[row])
            raise TraceError(
                f"{where}/requests.parquet: row {row}, request {table['request_id'].iloc[row]!r}: "
                f"{problem.column} is {value}: {problem.what}{more}; {problem.remedy}"
            )
    phases = {phase.name for phase in trace.header.workload.phases}
    unknown = sorted(set(table["phase"]) - phases)
    if unknown:
        raise TraceError(f"{where}: phase {unknown[0]!r} is in requests.parquet but not in the header's workload")
    previous = -np.inf
    for phase in trace.header.workload.phases:
        arrivals = table["arrival_s"][table["phase"] == phase.name]
        first = arrivals.min()
        if len(arrivals) != phase.requests and trace.header.ended == "complete":
            raise TraceError(
                f"{where}/header.json: phase {phase.name!r} counts {phase.requests} requests, "
                f"requests.parquet has {len(arrivals)}; correct the header"
            )
        if first < previous:
            raise TraceError(f"{where}/header.json: phase {phase.name!r} began before the one above it; reorder them")
        previous = first
        if phase.start_s is not None and first < phase.start_s - CLOCK_TOLERANCE_S:
            raise TraceError(
                f"{where}/header.json: phase {phase.name!r} has start_s {phase.start_s}, "
                f"after its first arrival at {first}; correct start_s"
            )
    if trace.steps is not None:
        _check_steps(trace.steps, where)


@dataclass(frozen=True, slots=True)
class _Problem:
    column: str
    bad: Any  # boolean mask over the rows
    what: str
    remedy: str = "correct the row or remove it"


def _request_problems(table: pd.DataFrame, header: Header) -> Iterator[_Problem]:
    finished = table["finish_reason"].isin(FINISHED)
    own = "give every request its own id"
    yield _Problem("request_id", table["request_id"].duplicated(), "a duplicate id", own)
    yield _Problem("request_id", ~table["request_id"].map(str.isprintable) | (table["request_id"] == ""), "no id", own)
    yield _Problem("tier", ~table["tier"].isin(TIER_NAMES), f"an unknown tier, not one of {', '.join(TIER_NAMES)}")
    reasons = table["finish_reason"]
    known = reasons.isna() if header.ended != "complete" else pd.Series(False, index=table.index)
    yield _Problem("finish_reason", ~(reasons.isin(FINISH_REASONS) | known), f"not one of {', '.join(FINISH_REASONS)}")
    for name in ("prompt_tokens", "max_tokens"):
        yield _Problem(name, table[name] < 1, "must be at least 1")
    for name in ("prompt_words", "output_words", "output_tokens", "preemptions"):
        yield _Problem(name, (table[name] < 0).fillna(False), "must not be negative")
    output = table["output_tokens"]
    yield _Problem("output_tokens", finished & ~(output >= 1).fillna(False), "a finished request has at least 1")
    yield _Problem("output_tokens", (output > table["max_tokens"]).fillna(False), "more than its max_tokens")
    yield from _time_problems(table, finished, header)
    yield from _capacity_problems(table, finished, header.engine)
    index = table["dispatch_index"]
    yield _Problem("dispatch_index", index.notna() & index.duplicated(), "a duplicate index")


def _time_problems(table: pd.DataFrame, finished: pd.Series, header: Header) -> Iterator[_Problem]:
    arrival = table["arrival_s"]
    yield _Problem("arrival_s", ~np.isfinite(arrival), "every request has an arrival time")
    for name in LIFE:
        wrong = (table[name] > LONGEST_S) | (table[name] < 0)
        yield _Problem(name, wrong, f"times are finite and not negative, at most {LONGEST_S:g} s")
    if not (header.kind == "imported" and table["finish_s"].isna().all()):  # arrivals and lengths alone are a workload
        yield _Problem("finish_s", finished & table["finish_s"].isna(), "a finished request has a finish time")
    latest = arrival
    for earlier, later in pairwise(LIFE):
        what = f"before its {earlier}" if later != "finish_s" else f"before its {earlier}: tokens after the finish"
        yield _Problem(later, table[later] < latest - CLOCK_TOLERANCE_S, what)
        latest = table[later].fillna(latest)


def _capacity_problems(table: pd.DataFrame, finished: pd.Series, engine: EngineSettings) -> Iterator[_Problem]:
    remedy = "correct the header's engine settings or remove the row"
    prompt = table["prompt_tokens"]
    limit = engine.max_model_len
    yield _Problem("prompt_tokens", finished & (prompt >= limit), f"does not fit max_model_len {limit}", remedy)
    room = engine.usable_kv_blocks * engine.block_size
    yield _Problem("prompt_tokens", finished & (prompt > room), f"larger than the KV cache of {room} tokens", remedy)
    total = (prompt + table["output_tokens"] > limit).fillna(False)
    yield _Problem("output_tokens", finished & total, f"with its prompt more than max_model_len {limit}", remedy)


def _check_steps(steps: pd.DataFrame, where: str) -> None:
    values = steps[[column.name for column in STEP_COLUMNS]].to_numpy(dtype=float)
    bad = ~np.isfinite(values) | (values < 0)
    bad[:, 1] |= values[:, 1] == 0  # a step takes time
    bad[:, :2] |= values[:, :2] > LONGEST_S
    if bad.any():
        row, column = (int(index[0]) for index in np.nonzero(bad))
        name = STEP_COLUMNS[column].name
        raise TraceError(
            f"{where}/steps.parquet: row {row}: {name} is {_shown(values[row, column])}; "
            "it must be finite and not negative, a duration above 0"
        )
    back = np.flatnonzero(np.diff(steps["start_s"].to_numpy()) < 0)
    if len(back):
        raise TraceError(f"{where}/steps.parquet: row {int(back[0]) + 1}: start_s goes backwards; sort the steps")


def _read_header(file: Path) -> Header:
    try:
        content = json.loads(file.read_text())
    except FileNotFoundError:
        raise TraceError(f"{file}: no such file; a trace is a folder with header.json and requests.parquet") from None
    except (OSError, ValueError) as error:
        raise TraceError(f"{file}: not readable as JSON ({error}); is it a trace of driftsim?") from None
    if isinstance(content, dict) and content.get("schema_version") != SCHEMA_VERSION:
        raise TraceError(
            f"{file}: schema_version is {content.get('schema_version')!r}, this driftsim reads {SCHEMA_VERSION}; "
            "use the driftsim that wrote it, or record or import the trace again"
        )
    try:
        return Header.model_validate(content)
    except ValidationError as error:
        raise TraceError(f"{file}: {first_problem(error)}; correct the header") from None


KINDS: dict[str, Any] = {  # what Arrow calls a column that can hold each kind; an empty one has type null
    "int": lambda types, kind: types.is_integer(kind) or types.is_floating(kind),
    "float": lambda types, kind: types.is_integer(kind) or types.is_floating(kind),
    "str": lambda types, kind: types.is_string(kind) or types.is_large_string(kind) or types.is_dictionary(kind),
}


def _read_table(file: Path, columns: tuple[Column, ...]) -> pd.DataFrame:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows = pq.read_table(file) if file.is_file() else None
    except FileNotFoundError:
        raise TraceError(f"{file}: no such file; the trace is incomplete, copy the whole folder") from None
    except (OSError, pa.ArrowException) as error:
        raise TraceError(f"{file}: not readable as Parquet ({str(error).splitlines()[0]})") from None
    if rows is None:
        raise TraceError(f"{file}: no such file; the trace is incomplete, copy the whole folder")
    for column in columns:
        kind = rows.schema.field(column.name).type if column.name in rows.schema.names else pa.null()
        if not (pa.types.is_null(kind) or KINDS[column.kind](pa.types, kind)):
            raise TraceError(f"{file}: column {column.name} does not hold {column.kind} values but {kind}; convert it")
    names = [column.name for column in columns]
    missing = [name for name in names if name not in rows.schema.names]
    if missing:
        raise TraceError(f"{file}: column {missing[0]!r} is missing; every column of the schema must be there")
    foreign = [name for name in rows.schema.names if name not in names]
    if foreign:
        raise TraceError(f"{file}: column {foreign[0]!r} is not in schema {SCHEMA_VERSION}; remove it")
    series = {column.name: _from_arrow(rows[column.name], column, str(file)) for column in columns}
    return pd.DataFrame(series)


def _from_arrow(values: Any, column: Column, where: str) -> pd.Series:
    """A column of a Parquet file in its dtype; what does not fit is named by ``typed``, the slow way."""
    import pyarrow as pa

    empty = values.null_count > 0
    plain = {"int": pa.int64(), "float": pa.float64(), "str": pa.string()}[column.kind]
    if values.type != plain or (empty and not column.nullable):
        return _typed_column(values.to_pandas(integer_object_nulls=True), column, where)
    if column.kind == "str":
        coded = values.combine_chunks().dictionary_encode()
        return _shared(
            coded.indices.fill_null(-1).to_numpy(zero_copy_only=False),
            coded.dictionary.to_numpy(zero_copy_only=False),
        )
    if column.kind == "float":
        return pd.Series(values.to_numpy(zero_copy_only=False), dtype=column.dtype)
    numbers = np.array(values.fill_null(0).to_numpy() if empty else values.to_numpy())
    if len(numbers) and max(abs(int(numbers.min())), abs(int(numbers.max()))) > MOST:
        return _typed_column(values.to_pandas(integer_object_nulls=True), column, where)
    if not column.nullable:
        return pd.Series(numbers)
    return pd.Series(pd.arrays.IntegerArray(numbers, values.is_null().to_numpy(zero_copy_only=False)))


def typed(table: pd.DataFrame, columns: tuple[Column, ...], where: str) -> pd.DataFrame:
    """``table`` with exactly ``columns``, in order and in their dtypes. ``TraceError`` where a value does not fit."""
    series = {column.name: _typed_column(table[column.name], column, where) for column in columns}
    return pd.DataFrame(series, columns=[column.name for column in columns]).reset_index(drop=True)


def _shared(codes: np.ndarray, texts: np.ndarray) -> pd.Series:
    """The text of each code, None for -1; equal ones are one object, so that a million rows do not hold a million."""
    table = np.empty(len(texts) + 1, dtype=object)
    table[:-1] = texts
    return pd.Series(table[codes], dtype=object)


def _typed_column(values: pd.Series, column: Column, where: str) -> pd.Series:
    if not column.nullable and values.isna().any():
        row = int(np.flatnonzero(values.isna())[0])
        raise TraceError(f"{where}: row {row}: {column.name} is empty (NaN); every row needs a value")
    if column.kind == "str":
        codes, found = pd.factorize(values, use_na_sentinel=True)
        return _shared(codes, np.asarray(found, dtype=object))
    if column.kind == "int":
        numbers = values.dropna().astype("float64")
        wrong = (numbers.mod(1) != 0) | (numbers.abs() > MOST)
        if wrong.any():
            row = numbers.index[wrong][0]
            raise TraceError(
                f"{where}: row {row}: {column.name} is {numbers[row]:g}, not a whole number below {MOST:g}"
            )
    return values.astype(column.dtype)


def write_table(table: pd.DataFrame, file: Path, columns: tuple[Column, ...] | None) -> None:
    """Write a table as Parquet (zstd), with the schema of ``columns`` where given; the same rows give the same bytes.

    Raises ``OSError`` if the file cannot be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = None
    if columns is not None:
        kinds = {"str": pa.string(), "int": pa.int64(), "float": pa.float64()}
        schema = pa.schema([pa.field(column.name, kinds[column.kind], column.nullable) for column in columns])
    first = pa.Table.from_pandas(table.head(ROWS_AT_ONCE), schema=schema, preserve_index=False)
    plain = first.schema.remove_metadata()
    with pq.ParquetWriter(file, plain, compression="zstd") as writer:
        writer.write_table(first.replace_schema_metadata(None))
        for begin in range(ROWS_AT_ONCE, len(table), ROWS_AT_ONCE):
            part = table.iloc[begin : begin + ROWS_AT_ONCE]
            writer.write_table(pa.Table.from_pandas(part, schema=plain, preserve_index=False))


def _shown(value: object) -> str:
    if isinstance(value, np.generic):
        value = value.item()
    return "empty" if value is None or value is pd.NA or value != value else repr(value)
