"""Other people's runs become traces: a table with a mapping, ``vllm bench serve``'s result, Azure's published traces.

Strict about what is not understood, tolerant of optional columns that are missing; what could not be filled is said in
the trace's notes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from pydantic import Field

from driftsim.errors import InputError, TraceError
from driftsim.records import Record
from driftsim.tiers import TierRules
from driftsim.trace.header import EngineSettings, Header, Phase, WorkloadInfo
from driftsim.trace.schema import LIFE_TIMES, REQUEST_COLUMNS
from driftsim.trace.tables import typed
from driftsim.trace.trace import Trace
from driftsim.version import __version__

UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
COLUMNS = {column.name: column for column in REQUEST_COLUMNS}
NAMES = tuple(COLUMNS)
NEEDED = ("prompt_tokens", "output_tokens", "arrival_s")
DEFAULTS = {"tenant": "default", "tier": "standard", "phase": "imported"}


class Mapping(Record):
    """How a table of somebody else's reads as a trace's requests; written as TOML."""

    columns: dict[str, str] = Field(description="Our column = the column of the table that holds it.")
    durations: dict[str, str] = Field(
        default={}, description="Our time = the column of the table that holds the time passed since the arrival."
    )
    units: dict[str, Literal["s", "ms", "us", "ns"]] = Field(
        default={}, description="Our time = the unit in which the table gives it; `all` stands for every time."
    )
    values: dict[str, str | int | float] = Field(default={}, description="Our column = one value for every row.")
    offset: float | Literal["first"] = Field(
        default="first",
        description="Time that becomes 0; `first` is the first arrival.",
        json_schema_extra={"unit": "s"},
    )
    engine: dict[str, Any] = Field(
        default={}, description="Engine settings, as the header names them; vLLM's defaults stand for the others."
    )
    model: str = Field(default="unknown", description="Model that served the requests.")
    hardware: str = Field(default="unknown", description="Hardware that served the requests.")
    max_in_flight: int | None = Field(
        default=None,
        gt=0,
        description="Most requests that were inside the engine at once; none if nothing limited them.",
        json_schema_extra={"unit": "requests"},
    )
    tiers: TierRules = Field(
        default=(), description="Tables of the tiers, the most urgent first, or their names alone."
    )


def import_table(file: Path, mapping: Mapping) -> Trace:
    """A CSV, JSON Lines, JSON or Parquet table, by its ``mapping``.

    Raises ``InputError`` or ``TraceError`` naming file, key or row, value and remedy.
    """
    table = _table(file)
    for theirs in [*mapping.columns.values(), *mapping.durations.values()]:
        if theirs not in table:
            raise InputError(f"column {theirs!r} of the mapping is not in {file}; it has {', '.join(map(str, table))}")
    rows: dict[str, Any] = dict(mapping.values)
    for ours, theirs in mapping.columns.items():
        timed = ours in LIFE_TIMES
        rows[ours] = _numbers(table, theirs, file) * _scale(mapping, ours, file) if timed else table[theirs]
    for ours, theirs in mapping.durations.items():
        rows[ours] = rows["arrival_s"] + _numbers(table, theirs, file) * _scale(mapping, ours, file)
    unused = [name for name in map(str, table) if name not in {*mapping.columns.values(), *mapping.durations.values()}]
    notes = [f"columns of {file.name} that were not mapped: {', '.join(unused)}"] if unused else []
    return _trace(pd.DataFrame(rows, index=table.index), mapping, file, notes)


def _numbers(table: pd.DataFrame, name: str, file: Path) -> pd.Series:
    """The column ``name`` as numbers. Raises ``TraceError`` at the first that is none."""
    numbers = pd.to_numeric(table[name], errors="coerce")
    wrong = numbers.isna() & table[name].notna()
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise TraceError(f"{file}: row {row}: {name} is {table[name].iloc[row]!r}, not a number; convert the column")
    return numbers


def import_vllm_bench(file: Path, mapping: Mapping | None = None) -> Trace:
    """The JSON of ``vllm bench serve --save-result --save-detailed`` (vllm/benchmarks/serve.py).

    ``start_times`` are the client's clock; a result of an older vLLM, which lacks them, is refused. Failed requests are
    rows of their own.
    """
    try:
        content = json.loads(file.read_text())
    except ValueError as error:
        raise InputError(f"{file}: is not JSON ({error})") from None
    if not isinstance(content, dict):
        raise InputError(f"{file}: is no result of vllm bench serve, which is a JSON object")
    missing = [name for name in ("input_lens", "output_lens", "ttfts", "start_times") if name not in content]
    if missing:
        raise InputError(
            f"{file}: lacks {missing[0]!r}; save it with --save-result --save-detailed, by a vLLM that does"
        )
    listed = ["input_lens", "output_lens", "ttfts", "start_times", "latencies" if "latencies" in content else "itls"]
    wrong = [name for name in listed if not isinstance(content.get(name), list)]
    if wrong:
        raise InputError(f"{file}: {wrong[0]!r} is no list; save it with --save-result --save-detailed")
    counts = {name: len(content[name]) for name in listed}
    if len(set(counts.values())) > 1:
        raise InputError(f"{file}: its lists differ in length ({counts}); the result was cut short, save it again")
    start = np.array(content["start_times"], dtype=float)
    ttft = np.array(content["ttfts"], dtype=float)
    if "latencies" in content:
        latency = np.array(content["latencies"], dtype=float)
    else:
        latency = ttft + np.array([sum(gaps) for gaps in content["itls"]], dtype=float)
    errors = [str(error) if error else None for error in content.get("errors") or [None] * len(start)]
    failed = np.array([error is not None for error in errors])
    outputs = pd.array(np.maximum(np.array(content["output_lens"], dtype=float), 0), dtype="Int64")
    rows = pd.DataFrame(
        {
            "prompt_tokens": content["input_lens"],
            "output_tokens": outputs,
            "arrival_s": start,
            "dispatch_s": start,
            "first_token_s": np.where(failed, np.nan, start + ttft),
            "finish_s": np.where(failed, np.nan, start + latency),
            "finish_reason": np.where(failed, "error", "length"),
            "error": errors,
        }
    )
    rows.loc[failed, "output_tokens"] = pd.NA
    mapping = mapping or Mapping(columns={})
    mapping = mapping.changed(model=str(content.get("model_id", mapping.model)))
    return _trace(rows, mapping, file, [])


def import_azure(file: Path) -> Trace:
    """Arrivals and lengths of Azure's LLM inference traces of 2023 and 2024 (Azure/AzurePublicDataset); no timings."""
    table = _table(file)
    names = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
    missing = [name for name in names if name not in table]
    if missing:
        raise InputError(f"{file}: lacks column {missing[0]!r}; Azure's traces have {', '.join(names)}")
    moments = pd.to_datetime(table["TIMESTAMP"], format="mixed", utc=True, errors="coerce")
    if moments.isna().any():
        row = int(moments.isna().to_numpy().argmax())
        raise InputError(f"{file}: row {row}: TIMESTAMP is {table['TIMESTAMP'].iloc[row]!r}, not a date and time")
    rows = pd.DataFrame(
        {
            "prompt_tokens": table["ContextTokens"].clip(lower=1),
            "output_tokens": table["GeneratedTokens"].clip(lower=1),
            "arrival_s": (moments - moments.min()).dt.total_seconds(),
        }
    )
    return _trace(rows, Mapping(columns={}), file, [])


FORMATS: dict[str, Callable[[Path, Path | None], Trace]] = {
    "csv": lambda file, mapping: import_table(file, _mapping(_needed(mapping))),
    "vllm-bench": lambda file, mapping: import_vllm_bench(file, None if mapping is None else _mapping(mapping)),
    "azure": lambda file, mapping: import_azure(file),
}


def import_trace(form: str, file: Path, mapping: Path | None = None) -> Trace:
    """``file`` in format ``form``, one of ``FORMATS``. Raises ``InputError`` and ``OSError``.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile("w", suffix=".csv") as file:
    ...     names, day = "TIMESTAMP,ContextTokens,GeneratedTokens", "2024-05-10"
    ...     _ = file.write(f"{names}\\n{day} 00:00:00,374,44\\n{day} 00:00:02,396,109"), file.flush()
    ...     trace = import_trace("azure", Path(file.name))
    >>> trace.requests["arrival_s"].tolist()
    [0.0, 2.0]
    """
    if form not in FORMATS:
        raise InputError(f"unknown format {form!r}; choose one of {', '.join(FORMATS)}")
    trace = FORMATS[form](file, mapping)
    trace.check(str(file))
    return trace


def _needed(mapping: Path | None) -> Path:
    if mapping is None:
        raise InputError("a table needs --mapping FILE.toml, which says what its columns are")
    return mapping


def _mapping(file: Path) -> Mapping:
    mapping = Mapping.from_file(file, "mapping", form="toml")
    for ours in (
        *mapping.columns,
        *mapping.durations,
        *mapping.values,
        *(key for key in mapping.units if key != "all"),
    ):
        if ours not in NAMES:
            raise InputError(f"{file}: {ours!r} is no column of a trace; choose among {', '.join(NAMES)}")
    for ours in mapping.durations:
        if ours not in LIFE_TIMES[1:] or "arrival_s" not in mapping.columns:
            raise InputError(
                f"{file}: durations are times since arrival_s, which must be mapped; {ours!r} cannot be one"
            )
    return mapping


def _scale(mapping: Mapping, name: str, file: Path) -> float:
    return UNITS[mapping.units.get(name, mapping.units.get("all", "s"))]


def _table(file: Path) -> pd.DataFrame:
    readers: dict[str, Callable[[Path], pd.DataFrame]] = {
        ".csv": pd.read_csv,
        ".jsonl": lambda path: pd.read_json(path, lines=True),
        ".json": pd.read_json,
        ".parquet": pd.read_parquet,
    }
    if file.suffix not in readers:
        raise InputError(f"{file}: of what kind? rename it to one of {', '.join(readers)}")
    if not file.is_file():
        raise InputError(f"{file}: no such file")
    try:
        return readers[file.suffix](file)
    except (ValueError, OSError) as error:
        raise InputError(f"{file}: not readable as {file.suffix[1:]} ({str(error).splitlines()[0]})") from None


def _trace(rows: pd.DataFrame, mapping: Mapping, file: Path, notes: Sequence[str]) -> Trace:
    """The trace of ``rows``, sorted by arrival, with all that is missing filled or left empty, and said."""
    for name in NEEDED:
        if name not in rows:
            gloss = COLUMNS[name].gloss
            raise InputError(f"{file}: {name} is not mapped ({gloss}); a trace needs {', '.join(NEEDED)}")
        wrong = pd.to_numeric(rows[name], errors="coerce").isna() & rows[name].notna()
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            gloss = COLUMNS[name].gloss
            raise TraceError(f"{file}: row {row}: {name} is {rows[name].iloc[row]!r}, not a number ({gloss})")
    if rows.empty:
        raise TraceError(f"{file}: holds no row; a trace needs one request")
    rows = rows.copy()
    notes = list(notes)
    times = [name for name in LIFE_TIMES if name in rows]
    rows[times] = rows[times].astype(float)
    offset = float(rows["arrival_s"].min()) if mapping.offset == "first" else mapping.offset
    rows[times] -= offset
    for name, value in DEFAULTS.items():
        if name not in rows:
            rows[name] = value
    if "request_id" not in rows:
        rows["request_id"] = [f"i{number:06d}" for number in range(len(rows))]
    rows["request_id"] = rows["request_id"].astype(str)
    if "max_tokens" not in rows:
        rows["max_tokens"] = rows["output_tokens"].fillna(1).clip(lower=1)
        notes.append("max_tokens was not told: each request's output is taken for its limit")
    if "finish_reason" not in rows:
        rows["finish_reason"] = np.where(rows["output_tokens"].notna(), "length", "error")
    empty = [name for name in NAMES if name not in rows]
    notes.append(f"not told, and left empty: {', '.join(empty)}")
    rows = rows.sort_values("arrival_s", kind="stable").reset_index(drop=True)
    phases = tuple(
        Phase(name=str(name), requests=int(count)) for name, count in rows["phase"].value_counts(sort=False).items()
    )
    longest = int((rows["prompt_tokens"] + rows["output_tokens"].fillna(1)).max())
    settings = EngineSettings.guessed(mapping.engine, longest=longest)
    header = Header(
        kind="imported",
        driftsim_version=__version__,
        engine=settings,
        model=mapping.model,
        hardware=mapping.hardware,
        workload=WorkloadInfo(name=file.name, phases=phases),
        max_in_flight=mapping.max_in_flight,
        tiers=mapping.tiers,
        clocks=f"seconds since the first arrival, as {file.name} tells them",
        notes=tuple(notes),
    )
    return Trace(header, typed(rows.reindex(columns=list(NAMES)), REQUEST_COLUMNS, str(file)))
