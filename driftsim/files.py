"""Files and folders appear whole or not at all, in no trace's folder, and in place of nothing but their own kind."""

from __future__ import annotations

import os
import tempfile
import uuid
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from driftsim.errors import TraceError

REQUESTS = ("requests.parquet", "requests.jsonl")  # one of which is in a trace's folder, beside its header
BEGIN = 1 << 16  # bytes of a file that tell what it is


class Mark(NamedTuple):
    """How an earlier output is known that is a folder: by a file of it, and a text in the beginning of that file."""

    name: str
    holds: str


@contextmanager
def whole_folder(folder: Path | str, replaces: Collection[str] = (), mark: Mark | None = None) -> Iterator[Path]:
    """A folder to fill, which becomes ``folder`` at the end, or nothing at all if the block raises.

    An existing ``folder`` is replaced only if it holds nothing but files named in ``replaces``, that of ``mark``
    among them. Raises as ``check_place`` does, before the block begins.
    """
    folder = check_place(folder, replaces, mark)
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


def write_file(file: Path, content: str | bytes) -> None:
    """Write ``content`` as ``file``, whole or not at all: a reader never sees half of it. Text is written in UTF-8.

    Raises ``TraceError`` for a place in a trace's folder, ``OSError`` where it cannot be written.
    """
    check_outside(file)
    data = content.encode() if isinstance(content, str) else content
    if file.exists() and not file.is_file():  # a device or a pipe is written to, not replaced
        file.write_bytes(data)
        return
    aside = file.with_name(f".{file.name}.{uuid.uuid4().hex[:8]}.new")
    try:
        with aside.open("xb") as handle:  # a file of its own: nobody else's is followed or shared
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
        aside.replace(file)
    except BaseException as error:
        aside.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise OSError(error.errno, error.strerror, str(file)) from None
        raise


def check_place(folder: Path | str, replaces: Collection[str] = (), mark: Mark | None = None) -> Path:
    """The absolute path of ``folder``, if it can be written and stands in nobody's way; nothing is left behind.

    Raises ``TraceError`` for a folder that may not be replaced and ``OSError`` for a place that cannot be written.
    """
    folder = Path(folder).resolve()
    if folder.exists() and not folder.is_dir():
        raise TraceError(f"{folder}: is a file; choose a folder")
    check_outside(folder)
    held = [file.name for file in folder.iterdir()] if folder.exists() else []
    foreign = [name for name in held if name not in replaces]
    if mark is not None and mark.holds not in _beginning(folder / mark.name):
        foreign = foreign or held
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


def check_outside(place: Path | str) -> None:
    """Raise ``TraceError`` if ``place`` lies in the folder of a trace, into which nothing is written afterwards."""
    for folder in Path(place).resolve().parents:
        if (folder / "header.json").is_file() and any((folder / name).is_file() for name in REQUESTS):
            raise TraceError(f"{place}: lies in the trace {folder}, which is only read; choose a place outside of it")


def check_own(file: Path, kind: str, is_own: Callable[[str], object]) -> None:
    """Raise ``TraceError`` if ``file`` is there and is no earlier output, as ``is_own`` tells by its beginning.

    ``kind`` says what it should be. An empty file, and what is no file, as a pipe, may be written to.
    """
    begin = _beginning(file)
    if begin and not is_own(begin):
        raise TraceError(f"{file}: is there already and is no {kind}; choose another file or remove it")


def _beginning(file: Path) -> str:
    """The first ``BEGIN`` bytes of ``file`` as text, unpacked if it is compressed; none of what is no file."""
    if not file.is_file():
        return ""
    with file.open("rb") as handle:
        begin = handle.read(BEGIN)
    if begin[:2] == b"\x1f\x8b":
        with suppress(zlib.error):  # then it stays what it is, which is nobody's output
            begin = zlib.decompressobj(wbits=31).decompress(begin, BEGIN) or begin
    return begin.decode(errors="replace")


def check_apart(out: Path | None, read: Iterable[Path | str]) -> None:
    """Raise ``TraceError`` if ``out`` lies in one of the trace folders that are ``read``: a verb only reads these."""
    for folder in map(Path, read):
        inside = out is not None and folder.is_dir() and out.resolve().is_relative_to(folder.resolve())
        if inside:
            raise TraceError(f"{out}: lies in the trace {folder}, which is only read; choose a place outside of it")


def _remove(folders: list[Path]) -> None:
    """Remove folders that were made on the way, innermost first, where they are there and empty."""
    for folder in folders:
        if folder.exists() and not any(folder.iterdir()):
            folder.rmdir()
