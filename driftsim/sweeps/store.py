"""A store keeps the rows of finished runs: none lost, none twice, whoever is killed, however many drivers write.

Each driver appends to a journal of its own, one line a row, with a checksum and the run's key before it; a torn line is
no row. Whoever opens the store turns the journals of drivers that are gone into Parquet, and its own at the
end. A driver holds a lock on its journal, so a journal without one has no driver. Rows with one key are one row.
"""

from __future__ import annotations

import fcntl
import json
import os
import uuid
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import pandas as pd

from driftsim.errors import InputError
from driftsim.files import write_file
from driftsim.sweeps.naming import with_names

MARK = "driftsim-store.json"
VERSION = 1


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
            version = json.loads(mark.read_text()).get("version")
            if version != VERSION:
                raise InputError(f"{mark}: is a store of version {version}, this driftsim reads {VERSION}")
            return store
        if not create:
            raise InputError(f"{folder}: is no store; driftsim sweep GRID.toml --store {folder} makes one")
        if store.folder.exists() and (not store.folder.is_dir() or any(store.folder.iterdir())):
            raise InputError(f"{folder}: exists already and is no store; choose another folder")
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
        rows = [row for row in _plain(other.stored()) if row["key"] not in have]
        if rows:
            self.append(rows)
        return len(rows)

    # -- reading

    def keys(self) -> dict[str, bool]:
        """The keys of all rows, and whether each run failed; what was read once is not read again."""
        import pyarrow.parquet as pq

        for file in sorted(self.folder.glob("rows-*.parquet")):
            if file.name not in self._read:
                try:
                    rows = pq.read_table(file, columns=["key", "failed"]).to_pydict()
                except FileNotFoundError:
                    continue
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
            for key, body in _lines(content, self):
                self._keys[key] = b'"failed":true' in body and self._keys.get(key, True)
        return self._keys

    def table(self) -> pd.DataFrame:
        """All rows, one for each key, in order of key; traces and profiles by names that tell them apart."""
        return with_names(self.stored())

    def stored(self) -> pd.DataFrame:
        """The same as they were written: with the paths of traces and profiles."""
        parts = [pd.read_parquet(file) for file in sorted(self.folder.glob("rows-*.parquet"))]
        rows = []
        for file in sorted(self.folder.glob("journal-*.jsonl")):
            rows += [json.loads(body) for _, body in _lines(file.read_bytes(), self)]
        if rows:
            parts.append(pd.DataFrame(rows))
        if not parts:
            return pd.DataFrame({"key": [], "failed": []})
        whole = pd.concat(parts, ignore_index=True) if len(parts) > 1 else parts[0]
        return _single(_of_one_kind(whole))

    def row(self, key: str) -> dict[str, Any]:
        """The row of the run ``key``, which may be given by its beginning. Raises ``InputError``."""
        rows = [row for row in _plain(self.stored()) if row["key"].startswith(key)]
        if len(rows) != 1:
            raise InputError(f"{self.folder}: {len(rows)} runs have a key that begins with {key!r}")
        return rows[0]


def _line(row: dict[str, Any]) -> bytes:
    body = json.dumps(row, separators=(",", ":"), allow_nan=True).encode()
    return f"{zlib.crc32(body):08x} {row['key']} ".encode() + body + b"\n"


def _lines(content: bytes, store: Store) -> Iterator[tuple[str, bytes]]:
    """Key and body of each whole line; others are counted."""
    *whole, rest = content.split(b"\n")
    store.torn += bool(rest)
    for line in whole:
        parts = line.split(b" ", 2)
        if len(parts) == 3 and len(parts[0]) == 8 and parts[0] == f"{zlib.crc32(parts[2]):08x}".encode():
            yield parts[1].decode(), parts[2]
        else:
            store.torn += 1


def _compact(folder: Path, journals: list[Path]) -> None:
    """One Parquet file for ``journals``, which go when it is there: at every moment all rows are in one of the two."""
    counter = Store(folder)
    rows = [json.loads(body) for file in journals for _, body in _lines(file.read_bytes(), counter)]
    if rows:
        table = _single(_of_one_kind(pd.DataFrame(rows)))
        name = uuid.uuid4().hex
        aside = folder / f".{name}.parquet"
        try:
            table.to_parquet(aside, index=False, compression="zstd")
            with aside.open("rb") as handle:
                os.fsync(handle.fileno())
            aside.replace(folder / f"rows-{name}.parquet")
        except BaseException:
            aside.unlink(missing_ok=True)
            raise
    for file in journals:
        file.unlink(missing_ok=True)


def _single(table: pd.DataFrame) -> pd.DataFrame:
    """One row for each key, in order of key; a run that failed once and came through later has come through."""
    return table.sort_values(["key", "failed"], kind="stable").drop_duplicates("key", ignore_index=True)


def _of_one_kind(table: pd.DataFrame) -> pd.DataFrame:
    """``table`` whose columns hold numbers, truth values or texts, each one of these: what is mixed becomes text."""
    changed: dict[str, pd.Series] = {}
    for name in map(str, table):
        values = table[name]
        if not pd.api.types.is_object_dtype(values):
            continue
        kinds = {type(value) for value in values[values.notna()]}
        if kinds and kinds <= {int, float}:
            changed[name] = values.astype(float)
        elif kinds - {str} and kinds != {bool}:
            changed[name] = values.map(_as_text, na_action="ignore")
    return table.assign(**changed) if changed else table


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _plain(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows without what they do not have, in plain types."""
    columns = {name: table[name].tolist() for name in table.columns}
    return [
        {name: value for name, value in zip(columns, row, strict=True) if value is not None and value == value}
        for row in zip(*columns.values(), strict=True)
    ]
