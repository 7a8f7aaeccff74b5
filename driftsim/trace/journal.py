"""A journal is a trace folder while its run goes on: readable at every moment, turned into Parquet by a clean end.

Next to a header that says ``recording`` stand the offered requests (offered.parquet) and what has happened since: a
line of JSON as a request arrives, is dispatched and ends (requests.jsonl), a line a step (steps.csv, written by the
engine's own hook) and a line a sample (telemetry.csv). Where nobody knew the requests beforehand, offered.parquet has
no rows, and the line of an arrival says all of its request. A torn last line is ignored; every earlier line is intact.
``driftsim.read`` reads a journal as it reads a trace. Requests' times count from the start of the run, which the first
line gives in monotonic seconds, the clock of steps and samples.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd

from driftsim.errors import TraceError
from driftsim.files import check_place
from driftsim.records import parsed_json
from driftsim.trace.checks import check
from driftsim.trace.header import Header
from driftsim.trace.schema import (
    JOURNAL_FILES,
    LARGEST_COUNT,
    MAY_BE_SAMPLED,
    OFFERED,
    OPTIONAL,
    RECORDED_COLUMNS,
    SAMPLED,
    STEP_COLUMNS,
    request_columns,
)
from driftsim.trace.tables import read_lines, read_table, typed, write_table, write_tables
from driftsim.trace.turns import renumbered

KINDS = {column.name: column.kind for column in RECORDED_COLUMNS}
REMAINS = (*JOURNAL_FILES, ".header.json")  # of a run that was killed before its header was written


def is_being_recorded(folder: Path) -> bool:
    """Whether a living process records into ``folder``."""
    file = folder / "requests.jsonl"
    if not file.is_file():
        return False
    with file.open("rb") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:  # a place without locks
            return False
    return False


def read_journal(folder: Path) -> dict[str, pd.DataFrame]:
    """The tables that the journal in ``folder`` holds so far, by name. A torn last line is ignored.

    Raises ``TraceError`` naming the file and its line, and ``FileNotFoundError`` where a file is gone.
    """
    offered = _offered(folder / "offered.parquet")
    start, rows = _lived(folder / "requests.jsonl", len(offered) or LARGEST_COUNT)
    lived = pd.DataFrame.from_dict(rows, orient="index").reindex(sorted(rows))
    whole = offered.loc[lived.index] if len(offered) else offered.reindex(lived.index)
    for name in (name for name in lived if name in offered):  # the engine's own count, where it gave one
        lived[name] = lived[name].where(lived[name].notna(), whole[name])
    whole = whole.drop(columns=[name for name in lived if name in offered])
    if "parent" in whole:
        kept = renumbered(whole["parent"].tolist(), lived.index.tolist())
        whole = whole.assign(parent=pd.Series(kept, lived.index, dtype=object))
    columns = request_columns({*whole, *lived})
    whole = pd.concat([whole, lived], axis=1).reindex(columns=[column.name for column in columns])
    tables = {"requests": typed(whole, columns, f"{folder}/requests.jsonl")}
    if (steps := read_lines(folder / "steps.csv", start)) is not None:
        tables["steps"] = typed(steps, STEP_COLUMNS, f"{folder}/steps.csv")
    if (samples := read_lines(folder / "telemetry.csv", start)) is not None:
        known = (*SAMPLED, *(column for column in MAY_BE_SAMPLED if column.name in samples))
        tables["telemetry"] = typed(samples, known, f"{folder}/telemetry.csv")
    return tables


def _lived(file: Path, most: int) -> tuple[float, dict[int, dict[str, Any]]]:
    """When the run began (monotonic, s), and what the lines say of each of ``most`` requests, the later ones added."""
    lines = file.read_text(encoding="utf-8", errors="replace").split("\n")
    rows: dict[int, dict[str, Any]] = {}
    start = 0.0
    for number, line in enumerate(lines[:-1]):  # behind the last line end stands nothing, or a torn line
        try:
            values = parsed_json(line)
            if "start" in values:
                start = float(values["start"])
                if not math.isfinite(start):
                    raise ValueError
                continue
            row = values.pop("row")
            if not (_is_of("int", row) and 0 <= row < most):
                raise ValueError
            if not all(_is_of(KINDS[name], value) for name, value in values.items() if value is not None):
                raise ValueError
            rows.setdefault(row, {}).update(values)
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
            raise TraceError(f"{file}: line {number + 1} is not a line of a journal; remove it") from None
    return start, rows


def _offered(file: Path) -> pd.DataFrame:
    try:
        return read_table(file, OFFERED, OPTIONAL["requests"])
    except TraceError:
        file.stat()  # raises where it is gone: the run came to its end just now
        raise


def _is_of(kind: str, value: object) -> bool:
    """Whether ``value`` can stand in a column of this kind."""
    if kind == "str":
        return isinstance(value, str) and value == value.encode(errors="replace").decode()  # whole characters
    if isinstance(value, bool) or not isinstance(value, int if kind == "int" else int | float):
        return False
    return not abs(value) > LARGEST_COUNT  # not a number is a number here, and nothing that is shown


class Lines:
    """A file that grows by whole lines, each handed to the operating system at once: a killed process loses none."""

    def __init__(self, file: Path) -> None:
        self._handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        with suppress(OSError):  # a place without locks
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # ends with the process, however that ends

    def write(self, line: str) -> None:
        """Append ``line``, or several with ends between them.

        Raises ``OSError`` where the disk is full; of the line nothing is then left.
        """
        data = line.encode() + b"\n"
        written = os.write(self._handle, data)
        if written < len(data):
            try:
                os.write(self._handle, data[written:])  # raises what stopped it
            except OSError:  # a later line is not to follow half a line
                os.ftruncate(self._handle, os.fstat(self._handle).st_size - written)
                raise

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._handle)


class Journal:
    """The folder of one run while it is recorded. Raises as ``check_place`` does for a folder that is in use."""

    def __init__(self, folder: Path | str, header: Header, offered: pd.DataFrame) -> None:
        self.folder = check_place(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._headings = False
        try:
            known = (*OFFERED, *(column for column in OPTIONAL["requests"] if column.name in offered))
            write_table(offered, self.folder / "offered.parquet", known)
            self._requests = Lines(self.folder / "requests.jsonl")
            self._telemetry = Lines(self.folder / "telemetry.csv")
            replace_header(self.folder, header)
        except OSError:  # nothing was recorded: leave nothing in the way of the next try
            for name in REMAINS:
                (self.folder / name).unlink(missing_ok=True)
            raise

    def begin(self, start: float) -> None:
        """The run begins at ``start``, in monotonic seconds."""
        self._requests.write(json.dumps({"start": start}))

    @property
    def steps_file(self) -> Path:
        """Where the engine's hook writes its steps."""
        return self.folder / "steps.csv"

    def note(self, row: int, values: Mapping[str, Any]) -> None:
        """What happened to the request in ``row``; later lines add to earlier ones."""
        self.notes([(row, values)])

    def notes(self, notes: Iterable[tuple[int, Mapping[str, Any]]]) -> None:
        """The same of several rows at once, in one write."""
        self._requests.write("\n".join(json.dumps({"row": row, **values}) for row, values in notes))

    def sample(self, names: Sequence[str], values: Sequence[float]) -> None:
        """One sample of the machine's telemetry."""
        if not self._headings:
            self._telemetry.write(",".join(names))
            self._headings = True
        self._telemetry.write(",".join(map(repr, values)))

    def close(self, header: Header, tables: Mapping[str, pd.DataFrame]) -> None:
        """Turn the journal into a trace, header last. Raises ``OSError`` where that fails; the journal then stays."""
        check(header, tables, str(self.folder))
        self._telemetry.close()
        try:
            write_tables(tables, self.folder)
            replace_header(self.folder, header)
        except OSError as error:
            for name in ("requests", "steps", "telemetry"):
                (self.folder / f"{name}.parquet").unlink(missing_ok=True)
            raise OSError(
                error.errno,
                f"{error.strerror}; the journal of the run is kept and can be read as it is",
                str(self.folder),
            ) from None
        finally:
            self._requests.close()  # and with it the lock
        for name in JOURNAL_FILES:
            (self.folder / name).unlink(missing_ok=True)


def replace_header(folder: Path, header: Header) -> None:
    """Write header.json, whole or not at all."""
    new = folder / ".header.json"
    try:
        with new.open("w", encoding="utf-8") as file:
            file.write(header.as_json())
            file.flush()
            os.fsync(file.fileno())
        new.replace(folder / "header.json")
    except OSError:
        new.unlink(missing_ok=True)
        raise
