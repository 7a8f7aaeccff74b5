"""A store keeps the rows of finished runs: none lost, none twice, whoever is killed, however many drivers write.

Each driver appends to a journal of its own, one line a row, with a checksum and the run's key before it; a torn line is
no row. Whoever opens the store turns the journals of drivers that are gone into Parquet, and its own at the
end. A driver holds a lock on its journal, so a journal without one has no driver. Rows with one key are one row, and no
two Parquet files hold one key, so that whoever reads them all without us counts each run once. What is no row costs
itself alone.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import uuid
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self, TypeAlias

import pandas as pd

from driftsim.errors import InputError
from driftsim.files import check_outside, write_file
from driftsim.glossary import CLIENTS, COSTS, FAIRNESS, SESSIONS, SLO, SUMMARY
from driftsim.progress import OnProgress, no_progress
from driftsim.records import parsed_json
from driftsim.sweeps.columns import of_one_kind, plain_rows
from driftsim.sweeps.naming import with_names
from driftsim.sweeps.row_files import Only, columns_of, read_rows, write_rows

MARK = "driftsim-store.json"
VERSION = 1
NUMBERS = {one.name for one in (*SUMMARY, *CLIENTS, *COSTS, *SLO, *FAIRNESS, *SESSIONS) if one.kind in ("float", "int")}
NUMBERS.discard("requests")  # a spec has it, too
NO_CHARACTER = re.compile(rb"\\u[dD][89a-fA-F]")  # half of a pair, perhaps without the other


Choose: TypeAlias = Callable[[Mapping[str, bool]], Collection[str]]  # of columns, each with whether it may vary


def every_column(columns: Mapping[str, bool]) -> Collection[str]:
    """All ``columns``: what is read of a store where nobody asks for less."""
    return columns


class Store:
    """The folder of a sweep's rows; a context manager, since a driver's journal is closed and compacted at its end.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with Store.open(f"{folder}/store", create=True) as store:
    ...         store.append([{"key": "a", "failed": False, "e2e_mean_s": 1.5}])
    ...     Store.open(f"{folder}/store").table()["e2e_mean_s"].tolist()
    [1.5]
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self.torn = 0  # lines that were cut short, seen so far
        self._journal: BinaryIO | None = None
        self._read: dict[str, int] = {}  # bytes of each journal that the keys are known of
        self._keys: dict[str, bool] = {}  # key -> whether the run failed

    @classmethod
    def open(cls, folder: Path | str, create: bool = False) -> Self:
        """The store in ``folder``. Raises ``InputError`` if there is none, and it may not or cannot be made there."""
        store = cls(folder)
        mark = store.folder / MARK
        if mark.is_file():
            version = _version(mark)
            if version != VERSION:
                raise InputError(f"{mark}: is a store of version {version}, this driftsim reads {VERSION}")
            return store
        if not create:
            raise InputError(f"{folder}: is no store; driftsim sweep GRID.toml --store {folder} makes one")
        if store.folder.exists() and (not store.folder.is_dir() or _is_used(store.folder)):
            raise InputError(f"{folder}: exists already and is no store; choose another folder")
        check_outside(store.folder)
        store.folder.mkdir(parents=True, exist_ok=True)
        write_file(mark, json.dumps({"version": VERSION}) + "\n")
        return store

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()

    # -- writing

    def append(self, rows: Iterable[dict[str, Any]]) -> None:
        """Add ``rows``, each with its ``key``; they are on the disk when this returns. Raises ``OSError``."""
        if self._journal is None:
            file = self.folder / f"journal-{uuid.uuid4().hex}.jsonl"
            self._journal = file.open("ab", buffering=0)
            fcntl.flock(self._journal, fcntl.LOCK_EX)
        lines = [_line(row) for row in rows]
        before = os.fstat(self._journal.fileno()).st_size
        data = b"".join(lines)
        try:
            written = 0
            while written < len(data):
                written += self._journal.write(data[written:])
            os.fsync(self._journal.fileno())
        except OSError:
            os.ftruncate(self._journal.fileno(), before)  # a full disk: no half of it stays
            raise

    def close(self) -> None:
        """Turn this driver's journal into Parquet, and let go of it."""
        if self._journal is not None:
            file = Path(self._journal.name)
            try:
                _compact(self.folder, [file])
            finally:
                self._journal.close()
                self._journal = None

    def adopt(self) -> None:
        """Turn the journals of drivers that are gone into Parquet."""
        abandoned = []
        for file in sorted(self.folder.glob("journal-*.jsonl")):
            handle = file.open("rb")
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                abandoned.append((file, handle))
            except OSError:
                handle.close()  # its driver is alive
        try:
            if abandoned:
                _compact(self.folder, [file for file, _ in abandoned])
        finally:
            for _, handle in abandoned:
                handle.close()

    def merge(self, other: Store) -> int:
        """Add the rows of ``other`` that are not here; returns how many."""
        have = self.keys()
        rows = [row for row in plain_rows(other.stored()) if row["key"] not in have]
        if rows:
            self.append(rows)
        return len(rows)

    # -- reading

    def keys(self) -> dict[str, bool]:
        """The keys of all rows, and whether each run failed; what was read once is not read again."""
        for file in sorted(self.folder.glob("rows-*.parquet")):
            if file.name not in self._read and (rows := read_rows(file, ["key", "failed"])) is not None:
                self._read[file.name] = 1
                for key, failed in zip(rows["key"], rows["failed"], strict=True):
                    self._keys[key] = failed and self._keys.get(key, True)
        for file in sorted(self.folder.glob("journal-*.jsonl")):
            begin = self._read.get(file.name, 0)
            try:
                with file.open("rb") as handle:
                    handle.seek(begin)
                    content = handle.read()
            except FileNotFoundError:
                continue  # its driver came to its end just now
            content = content[: content.rfind(b"\n") + 1]  # the last line may still be written
            self._read[file.name] = begin + len(content)
            for row in _lines(content, self):
                self._keys[row["key"]] = row["failed"] and self._keys.get(row["key"], True)
        return self._keys

    def table(self, told: OnProgress = no_progress, choose: Choose = every_column) -> pd.DataFrame:
        """All rows, one for each key, in order of key; traces and profiles by names that tell them apart.

        ``told`` hears of the files that were read, and of all. ``choose`` says which of all columns are read, each of
        which it hears of with whether it may differ between rows; what is not read is no column of the table.
        """
        return with_names(self.stored(told, choose))

    def stored(self, told: OnProgress = no_progress, choose: Choose = every_column) -> pd.DataFrame:
        """The same as they were written: with the paths of traces and profiles."""
        rows: list[dict[str, Any]] = []
        for file in sorted(self.folder.glob("journal-*.jsonl")):  # before the Parquet that a journal may become now
            try:
                rows += _lines(file.read_bytes(), self)
            except FileNotFoundError:
                continue
        files = sorted(self.folder.glob("rows-*.parquet"))
        parts = list[pd.DataFrame]()
        last = pd.DataFrame(rows)
        chosen = choose(_columns([*map(columns_of, files), *([dict.fromkeys(map(str, last))] if rows else [])]))
        for number, file in enumerate(files):
            told(number, len(files))
            if (part := read_rows(file, chosen)) is not None:
                parts.append(part)
        if rows:
            parts.append(last.filter(list(chosen)))
        if not parts:
            return pd.DataFrame({"key": [], "failed": []})
        whole = pd.concat(parts, ignore_index=True) if len(parts) > 1 else parts[0]
        parts.clear()
        return _single(of_one_kind(whole))

    def row(self, key: str) -> dict[str, Any]:
        """The row of the run ``key``, which may be given by its beginning. Raises ``InputError``."""
        rows = [row for row in plain_rows(self.stored()) if row["key"].startswith(key)]
        if len(rows) != 1:
            raise InputError(f"{self.folder}: {len(rows)} runs have a key that begins with {key!r}")
        return rows[0]


def _columns(parts: Sequence[Mapping[str, Only]]) -> dict[str, bool]:
    """All columns of the ``parts`` of a store, each with whether it may differ between their rows."""
    found: dict[str, bool] = {}
    for name in dict.fromkeys(name for part in parts for name in part):
        values = {part.get(name) for part in parts}
        found[name] = None in values or len(values) > 1
    return found


def _version(mark: Path) -> object:
    """The version in the file that marks a store. Raises ``InputError`` where it says none."""
    try:
        content = parsed_json(mark.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f'{mark}: not readable as JSON ({error}); it holds {{"version": {VERSION}}}') from None
    return content.get("version") if isinstance(content, dict) else None


def _is_used(folder: Path) -> bool:
    """Whether ``folder`` holds anything but a mark that a killed driver had begun to write."""
    return any(not file.name.startswith(f".{MARK}.") for file in folder.iterdir())


def _line(row: dict[str, Any]) -> bytes:
    body = json.dumps(row, separators=(",", ":"), allow_nan=True, default=str).encode()
    return f"{zlib.crc32(body):08x} {row['key']} ".encode() + body + b"\n"


def _lines(content: bytes, store: Store) -> Iterator[dict[str, Any]]:
    """The row of each whole line; lines that hold none are counted."""
    *whole, rest = content.split(b"\n")
    store.torn += bool(rest)
    for line in whole:
        row = _row(line)
        store.torn += row is None
        if row is not None:
            yield row


def _row(line: bytes) -> dict[str, Any] | None:
    """The row of one line: an object with its key and whether it failed, as ``_line`` writes it; None for another."""
    parts = line.split(b" ", 2)
    if len(parts) != 3 or parts[0] != f"{zlib.crc32(parts[2]):08x}".encode():
        return None
    try:
        row = parsed_json(parts[2].decode(), halves=True)
    except ValueError:
        return None
    if not isinstance(row, dict) or not isinstance(row.get("key"), str) or not isinstance(row.get("failed"), bool):
        return None
    if row["key"].encode(errors="replace") != parts[1]:
        return None
    if not all(isinstance(row[name], int | float | None) for name in NUMBERS & row.keys()):
        return None  # one such row would turn the column of all into text
    # A file's name that is no UTF-8 has marks in it that are no characters, which neither pandas nor Parquet hold.
    whole = json.dumps(row, ensure_ascii=False).encode(errors="replace") if NO_CHARACTER.search(parts[2]) else b""
    return json.loads(whole) if whole else row


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One driver at a time writes Parquet in ``folder``."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _compact(folder: Path, journals: list[Path]) -> None:
    """One Parquet file for ``journals``, which go when it is there: at every moment all rows are in one of the two.

    A key that another Parquet file holds stays there, unless its run failed then and has come through since.
    """
    counter = Store(folder)
    rows = [row for file in journals for row in _lines(file.read_bytes(), counter)]
    if rows:
        table = _single(of_one_kind(pd.DataFrame(rows)))
        with _alone(folder):
            files = sorted(folder.glob("rows-*.parquet"))
            stale = {}
            for file in files:
                known = read_rows(file, ["key", "failed"])
                if known is not None:
                    held = dict(zip(known["key"], known["failed"], strict=True))
                    through = set(table["key"][~table["failed"].astype(bool)])
                    stale[file] = {key for key, failed in held.items() if failed and key in through}
                    table = table[~table["key"].isin(held.keys() - stale[file])]
            if len(table):
                write_rows(table, folder / f"rows-{uuid.uuid4().hex}.parquet")
            for file, keys in stale.items():
                _leave_out(file, keys)
    for file in journals:
        file.unlink(missing_ok=True)


def _leave_out(file: Path, keys: set[str]) -> None:
    """Take the rows of ``keys`` out of a Parquet file, which goes if none is left."""
    if not keys or (table := read_rows(file, columns_of(file))) is None:
        return
    left = table[~table["key"].isin(keys)]
    if len(left):
        write_rows(left, file)
    else:
        file.unlink(missing_ok=True)


def _single(table: pd.DataFrame) -> pd.DataFrame:
    """One row for each key, in order of key; a run that failed once and came through later has come through."""
    keys = pd.Index(table["key"])
    if keys.is_unique:
        if keys.is_monotonic_increasing:  # as one Parquet file is written
            return table
        return table.take(keys.argsort()).reset_index(drop=True)
    return table.sort_values(["key", "failed"], kind="stable").drop_duplicates("key", ignore_index=True)
