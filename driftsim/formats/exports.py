"""A trace goes out again, in the formats that other tools replay: whole or not at all, with what it loses told.

``timed-trace``, ``mooncake`` and ``bailian`` are JSON Lines of arrivals and lengths. Their readers build a prompt from
``hash_ids`` alone (vllm/benchmarks/datasets/datasets.py, ``TimedTrace._expand_prompt``: without any it is empty), so
each request gets as many as its prompt needs; two have one in common where the trace says that they share it. ``blis``
is TraceV2 of inference-sim/inference-sim (sim/workload/tracev2.go), which refuses a column out of place and a key that
it does not know.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from driftsim.errors import InputError
from driftsim.files import check_own, write_file
from driftsim.formats.hashing import hash_ids, whose
from driftsim.trace.header import Header
from driftsim.trace.schema import FINISHED
from driftsim.trace.trace import Trace, read

BLIS_COLUMNS = (
    "request_id", "client_id", "tenant_id", "slo_class", "session_id", "round_index", "prefix_group", "prefix_length",
    "streaming", "input_tokens", "output_tokens", "text_tokens", "image_tokens", "audio_tokens", "video_tokens",
    "reason_ratio", "model", "deadline_us", "server_input_tokens", "arrival_time_us", "send_time_us",
    "first_chunk_time_us", "last_chunk_time_us", "num_chunks", "status", "error_message", "finish_reason",
)  # fmt: skip
CLASSES = {"premium": "critical", "standard": "standard", "batch": "batch"}
STATUSES = {"abort": "timeout", "error": "error", "rejected": "error"}  # of what did not end well
TIMED = ("first_token_s", "finish_s")


@dataclass(frozen=True, slots=True)
class Export:
    """A format to write: what it is called in a sentence, its suffix, its texts by suffix, and what it cannot hold."""

    title: str
    suffix: str
    texts: Callable[[Header, pd.DataFrame], dict[str, str]]
    loses: tuple[str, ...]
    needs_output: bool  # whether a request without one cannot be written


def export_trace(trace: Trace | Path | str, form: str, file: Path | str) -> list[str]:
    """Write ``trace``, or the one in that folder, as ``file`` in ``form``, one of ``EXPORTS``, whole or not at all.

    Returns what the format could not hold, a sentence each. Raises ``InputError`` for an unknown format, another suffix
    than the format's, or a trace with nothing to write, and ``OSError`` if the file cannot be written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     lost = export_trace("traces/smollm2-cpu-drift", "mooncake", f"{folder}/drift.jsonl")
    ...     first = Path(f"{folder}/drift.jsonl").read_text().splitlines()[0]
    >>> first[:60]
    '{"written_by": "driftsim export", "timestamp": 1267, "input_'
    """
    file = Path(file)
    if form not in EXPORTS:
        raise InputError(f"unknown format {form!r:.80}; choose one of {', '.join(EXPORTS)}")
    export = EXPORTS[form]
    if not file.name:
        raise InputError(f"{str(file)!r} is no file to write to; name one that ends in {export.suffix}")
    if file.suffix.lower() != export.suffix:
        raise InputError(
            f"{file}: {form} is written as {export.suffix}; name it {file.with_suffix(export.suffix).name}"
        )
    trace = trace if isinstance(trace, Trace) else read(trace)
    requests = trace.requests.reset_index(drop=True)
    rows = requests.assign(stretches=pd.Series(whose(requests), dtype=object)).sort_values("arrival_s", kind="stable")
    written = rows[(rows["output_tokens"] >= 1).fillna(False)] if export.needs_output else rows
    if written.empty:
        raise InputError(f"{file}: the trace has no request with an output to write")
    _write(file, export.texts(trace.header, written))
    return _lost(trace.header, rows, written, export)


def check_export(file: Path, form: str) -> None:
    """Raise ``TraceError`` where ``file`` is there, or the header beside it, and driftsim did not write it."""
    kind = "export of driftsim"
    if form != "blis" or not file.name:
        check_own(file, kind, _is_counted)
        return
    header = file.with_suffix(".yaml")
    check_own(header, kind, lambda begin: begin.startswith(WRITTEN))
    check_own(file, kind, lambda begin: header.is_file() and begin.startswith(",".join(BLIS_COLUMNS)))


def _is_counted(begin: str) -> bool:
    """Whether ``begin`` is of JSON Lines that say so, or whose blocks are numbered through, as ours were before."""
    if begin.startswith(MARK):
        return True
    numbers = ", ".join(re.findall(r'"hash_ids": \[([\d, ]*)', begin)).split(", ")[:-1]  # the last may be cut
    return begin.startswith('{"timestamp": ') and numbers == [str(number) for number in range(len(numbers))]


def _write(file: Path, texts: Mapping[str, str]) -> None:
    """Write each text beside ``file`` under its suffix; if one cannot be written, those that are new go again."""
    new = [beside for suffix in texts if not (beside := file.with_suffix(suffix)).exists()]
    try:
        for suffix, text in texts.items():
            write_file(file.with_suffix(suffix), text)
    except OSError:
        for beside in new:
            beside.unlink(missing_ok=True)
        raise


def _lost(header: Header, rows: pd.DataFrame, written: pd.DataFrame, export: Export) -> list[str]:
    """What ``rows`` hold and the format cannot, a sentence each, after what an import had changed already."""
    said = list(header.caveats)
    if len(written) < len(rows):
        said.append(f"{len(rows) - len(written)} of {len(rows)} requests have no output and were left out")
    cut = int((~written["finish_reason"].isin(FINISHED)).sum())
    if cut and export.needs_output:
        said.append(f"{cut} requests did not finish: each is written with the output that it had")
    lost = [name for name in export.loses if name in rows and _told(rows[name])]
    if lost:
        said.append(f"the format has no place for {', '.join(lost)}")
    waits = sorted({phase.kind for phase in header.workload.phases} - {"open"})
    if waits:
        said.append(f"arrivals are written as they were recorded, not as {', '.join(waits)}")
    return said


def _told(column: pd.Series) -> bool:
    """Whether a column says more than the same for every request."""
    return bool(column.notna().any() and (column.nunique() > 1 or column.dtype.kind == "f"))


def _lines(step_s: float, block: int, *, chats: bool = False) -> Callable[[Header, pd.DataFrame], dict[str, str]]:
    """JSON Lines whose times count in steps of ``step_s``, whole if that is not a second; ``chats``: with sessions."""

    def texts(header: Header, rows: pd.DataFrame) -> dict[str, str]:
        columns = [rows[name].tolist() for name in ("arrival_s", "prompt_tokens", "output_tokens")]
        ids = hash_ids(rows["stretches"].tolist(), columns[1], block)
        turns = _turns(rows) if chats else [{} for _ in ids]
        lines = list[str]()
        for place, (arrival, prompt, output) in enumerate(zip(*columns, strict=True)):
            line = {
                **({} if lines else json.loads(MARK + "}")),
                **turns[place],
                "timestamp": round(arrival, 6) if step_s == 1 else round(arrival / step_s),
                "input_length": int(prompt),
                "output_length": int(output),
                "hash_ids": ids[place],
            }
            lines.append(json.dumps(line) + "\n")
        return {".jsonl": "".join(lines)}

    return texts


def _turns(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Who follows whom, as Bailian's traces tell it: a turn has one parent, the first of those that are written."""
    places = {row: place for place, row in enumerate(rows.index.tolist())}
    told = rows["parent"].tolist() if "parent" in rows else [()] * len(rows)
    found = list[dict[str, Any]]()
    for place, (before, category) in enumerate(zip(told, rows["category"].tolist(), strict=True)):
        parent = next((places[one] for one in before if one in places and places[one] < place), -1)
        turn = 1 if parent < 0 else found[parent]["turn"] + 1
        found.append({"chat_id": place, "parent_chat_id": parent, "type": category or "", "turn": turn})
    return found


def _blis(header: Header, rows: pd.DataFrame) -> dict[str, str]:
    """The CSV and the header of a trace of BLIS."""
    out = io.StringIO()
    writer = csv.DictWriter(out, BLIS_COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for number, row in enumerate(rows.to_dict("records")):
        writer.writerow(_blis_row(number, row, header.model))
    return {".yaml": _blis_header(header, bool(rows["finish_s"].notna().any())), ".csv": out.getvalue()}


def _blis_row(number: int, row: Mapping[Any, Any], model: str) -> dict[str, Any]:
    first, last = (_micros(row[name]) for name in TIMED)
    arrival, ended = _micros(row["arrival_s"]), row["finish_reason"] in FINISHED
    output = 0 if pd.isna(row["output_tokens"]) else int(row["output_tokens"])
    zeros = ("round_index", "prefix_length", "image_tokens", "audio_tokens", "video_tokens", "reason_ratio",
             "deadline_us", "server_input_tokens")  # fmt: skip
    return dict.fromkeys(zeros, 0) | {
        "request_id": number, "client_id": row["tenant"], "tenant_id": row["tenant"],
        "slo_class": CLASSES.get(row["tier"], row["tier"]), "streaming": "true", "input_tokens": row["prompt_tokens"],
        "output_tokens": output, "text_tokens": row["prompt_tokens"], "model": "" if model == "unknown" else model,
        "arrival_time_us": arrival, "send_time_us": arrival, "first_chunk_time_us": first, "last_chunk_time_us": last,
        "num_chunks": output if last else 0, "status": "ok" if ended else STATUSES.get(row["finish_reason"], "error"),
        "error_message": " ".join(str(row["error"] or "").split()), 
        "finish_reason": row["finish_reason"] if ended else "",
    }  # fmt: skip


def _micros(time_s: float) -> int:
    """A time in microseconds, 0 where there is none, which is how BLIS says so."""
    return 0 if pd.isna(time_s) else round(time_s * 1e6)


def _blis_header(header: Header, timed: bool) -> str:
    """The header in YAML: only keys that BLIS knows, and only settings that the engine told."""
    engine = header.engine
    server = {"type": engine.name, "model": header.model}
    numbers = {"max_num_seqs": engine.max_num_seqs, "block_size": engine.block_size,
               "max_model_len": engine.max_model_len}  # fmt: skip
    told = {name: value for name, value in numbers.items() if name not in engine.assumed}
    lines = [
        WRITTEN,
        "trace_version: 2",
        "time_unit: microseconds",
        *([f"created_at: {json.dumps(header.captured_at)}"] if header.captured_at else []),
        f"mode: {'real' if timed and header.kind != 'simulated' else 'generated'}",
        "warm_up_requests: 0",
        "server:",
        *(f"  {name}: {json.dumps(value)}" for name, value in server.items()),
        *(f"  {name}: {value}" for name, value in told.items()),
    ]
    return "\n".join(lines) + "\n"


MARK = '{"written_by": "driftsim export"'  # the beginning of our JSON Lines
WRITTEN = "# written by driftsim export"
LOST_BY_ALL = ("max_tokens", "queued_s", "scheduled_s", "preemptions", "cached_tokens")
SESSIONS = ("session", "gap_s")
EXPORTS: Mapping[str, Export] = {
    "timed-trace": Export("JSON Lines for vLLM's timed_trace dataset, in seconds", ".jsonl", _lines(1, 16),
                          ("tenant", "tier", "category", *LOST_BY_ALL, *TIMED, *SESSIONS), needs_output=True),
    "mooncake": Export("JSON Lines as Mooncake's, in milliseconds", ".jsonl", _lines(1e-3, 512),
                       ("tenant", "tier", "category", *LOST_BY_ALL, *TIMED, *SESSIONS), needs_output=True),
    "bailian": Export("JSON Lines as Bailian's, in seconds, with sessions", ".jsonl", _lines(1, 16, chats=True),
                      ("tenant", "tier", *LOST_BY_ALL, *TIMED, "gap_s"), needs_output=True),
    "blis": Export("a trace of BLIS: a CSV, and its header as YAML beside it", ".csv", _blis,
                   ("category", *LOST_BY_ALL, *SESSIONS, "prefix_tokens"), needs_output=False),
}  # fmt: skip
