"""A trace is what happened: a header, one row per request and, where recorded, one row per engine step.

Captured, simulated and imported traces have the same columns, listed in ``REQUEST_COLUMNS`` and ``STEP_COLUMNS``.
Times are seconds since the start of the run. A trace on disk is a folder; it appears whole or not at all.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from pydantic import ValidationError

from driftsim.errors import TraceError
from driftsim.files import check_place, whole_folder
from driftsim.formatting import html_table
from driftsim.records import first_problem, parsed_json
from driftsim.text import for_html
from driftsim.trace.checks import check
from driftsim.trace.header import Header
from driftsim.trace.journal import read_journal
from driftsim.trace.marks import marked, odd_note
from driftsim.trace.schema import (
    FINISHED,
    JOURNAL_FILES,
    MAY_BE_SAMPLED,
    OPTIONAL,
    REQUEST_COLUMNS,
    SAMPLED,
    SCHEMA_VERSION,
    STEP_COLUMNS,
    TRACE_FILES,
)
from driftsim.trace.tables import read_table, write_tables

HTML_ROWS = 10  # requests that a notebook shows


@dataclass(frozen=True, eq=False)
class Trace:
    """A run: ``requests`` has one row per offered request, ``steps`` one per engine step that scheduled a token.

    >>> trace = read("traces/smollm2-cpu-drift")
    >>> trace.header.kind, len(trace.requests), trace.name
    ('captured', 360, 'smollm2-cpu-drift')
    >>> print(str(trace).split(";")[0])
    smollm2-cpu-drift: captured, 360 requests, 360 finished
    """

    header: Header
    requests: pd.DataFrame
    steps: pd.DataFrame | None = None
    telemetry: pd.DataFrame | None = None
    source: Path | None = field(default=None, init=False)  # the folder it was read from; a changed copy has none

    @property
    def name(self) -> str:
        """The name of the folder that the trace was read from; else that of its workload."""
        return self.header.workload.name if self.source is None else self.source.resolve().name

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the trace as files, as hexadecimal: what names the trace in a result. See ``digest``."""
        if self.source is not None:
            return digest(self.source)
        with tempfile.TemporaryDirectory(prefix="driftsim-") as folder:
            return digest(self.write(Path(folder) / "trace"))

    def __str__(self) -> str:
        header, engine = self.header, self.header.engine
        counts = f"{len(self.requests)} requests, {len(self.finished)} finished"
        return (
            f"{self.name}: {header.kind}, {counts}; {engine.name} {engine.version}, {header.model} on {header.hardware}"
        )

    def _repr_html_(self) -> str:
        return f"<p>{for_html(str(self))}</p>{html_table(self.requests.head(HTML_ROWS))}"

    def frame(self) -> pd.DataFrame:
        """The requests, a row each; columns as ``driftsim columns`` lists them."""
        return self.requests

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        """The tables that there are, by name: ``requests``, ``steps``, ``telemetry``."""
        named = {"requests": self.requests, "steps": self.steps, "telemetry": self.telemetry}
        return {name: table for name, table in named.items() if table is not None}

    @property
    def finished(self) -> pd.DataFrame:
        """The rows that ended by themselves or at their cap."""
        return self.requests[self.requests["finish_reason"].isin(FINISHED)]

    def in_phase(self, phase: str) -> np.ndarray:
        """Which requests are of ``phase``, a mask, (requests,); ``all`` are of phase ``all``.

        Raises ``TraceError`` if the trace has no such phase.
        """
        names = [known.name for known in self.header.workload.phases]
        if phase not in ("all", *names):
            raise TraceError(f"unknown phase {phase!r}; choose one of all, {', '.join(names)}")
        mask: np.ndarray = (self.requests["phase"] == phase).to_numpy(dtype=bool) | (phase == "all")
        return mask

    def check(self, where: str) -> None:
        """Raise ``TraceError`` at the first row or key that cannot be; ``where`` names the trace in the message."""
        check(self.header, self.tables, where)

    def write(self, folder: Path | str, *, overwrite: bool = False) -> Path:
        """Write the trace as ``folder``, whole or not at all; a reader never sees half of it.

        Raises ``TraceError`` if the trace breaks the schema, if ``folder`` exists and ``overwrite`` is not set or what
        exists is no trace, and ``OSError`` if the place cannot be written.
        """
        self.check(str(folder))
        header = self.header
        if overwrite and header.kind == "simulated":
            _check_not_recorded(check_place(folder, (*TRACE_FILES, *JOURNAL_FILES)))
        if header.ended == "recording":  # a journal that is kept as a trace of its own is recorded no more
            header = header.changed(ended="interrupted", ended_why="killed while it was recorded")
        with whole_folder(folder, replaces=(*TRACE_FILES, *JOURNAL_FILES) if overwrite else ()) as building:
            write_tables(self.tables, building)
            (building / "header.json").write_text(header.as_json(), encoding="utf-8")
        return Path(folder)


def _check_not_recorded(folder: Path) -> None:
    """Raise ``TraceError`` if ``folder`` holds a run that was recorded, which no simulation may replace."""
    if (folder / "header.json").is_file():
        kind = _read_header(folder / "header.json").kind
        if kind != "simulated":
            raise TraceError(
                f"{folder}: holds a {kind} run, which a simulated one does not replace; choose another folder"
            )


def read(folder: Path | str) -> Trace:
    """Read and check the trace in ``folder``. Raises ``TraceError`` naming file, row or key, value and remedy.

    A run that is still recorded, or was killed, is read from its journal; its header then says ``recording``.

    >>> read("traces/smollm2-cpu-drift").header.max_in_flight
    16
    """
    if not isinstance(folder, str | Path):
        raise TraceError(f"the folder of a trace is needed, not {folder!r:.80}")
    folder = Path(folder)
    if not folder.is_dir():
        if folder.exists():
            raise TraceError(
                f"{folder}: is a file, not a trace folder; driftsim import {folder} --out FOLDER makes one"
            )
        raise TraceError(f"{folder}: no such trace folder; a trace is a folder with header.json and requests.parquet")
    header = _read_header(folder / "header.json")
    if header.ended == "recording":
        try:
            tables = read_journal(folder)
            tables["requests"], odd = marked(tables["requests"], header)
            return _checked(Trace(header.changed(notes=(*header.notes, *odd_note(odd))), **tables), folder)
        except (FileNotFoundError, TraceError) as error:
            if _read_header(folder / "header.json").ended != "recording":
                return read(folder)  # it came to its end just now
            if isinstance(error, TraceError):
                raise
            raise TraceError(f"{error.filename}: no such file; the journal is incomplete, copy it whole") from None
    requests = read_table(folder / "requests.parquet", REQUEST_COLUMNS, OPTIONAL["requests"])
    steps = folder / "steps.parquet"
    telemetry = folder / "telemetry.parquet"
    trace = Trace(
        header=header,
        requests=requests,
        steps=read_table(steps, STEP_COLUMNS, OPTIONAL["steps"]) if steps.exists() else None,
        telemetry=read_table(telemetry, SAMPLED, MAY_BE_SAMPLED) if telemetry.exists() else None,
    )
    return _checked(trace, folder)


def _checked(trace: Trace, folder: Path) -> Trace:
    trace.check(str(folder))
    object.__setattr__(trace, "source", folder)  # frozen for everybody else
    return trace


def digest(folder: Path | str) -> str:
    """SHA-256 over the files of the trace in ``folder``, as hexadecimal: what names a trace in a result."""
    total = hashlib.sha256()
    for name in (*TRACE_FILES, *JOURNAL_FILES):
        file = Path(folder) / name
        if file.exists():
            total.update(name.encode() + hashlib.sha256(file.read_bytes()).digest())
    return total.hexdigest()


def _read_header(file: Path) -> Header:
    try:
        content = parsed_json(file.read_text(encoding="utf-8"))
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


def check_each_once(runs: Iterable[tuple[str, str]]) -> None:
    """Raise ``TraceError`` where two of ``runs``, pairs of a name and a digest (empty: not known), are the same one."""
    seen = dict[str, str]()
    for name, digest in runs:
        if digest and digest in seen:
            raise TraceError(f"{name}: is the very run of {seen[digest]}, and no repeat of it; give it once")
        seen[digest] = name
