"""Files and folders appear whole or not at all."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from driftsim.errors import TraceError


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


def write_file(file: Path, content: str | bytes) -> None:
    """Write ``content`` as ``file``, whole or not at all: a reader never sees half of it. Text is written in UTF-8.

    Raises ``OSError``.
    """
    data = content.encode() if isinstance(content, str) else content
    if file.exists() and not file.is_file():  # a device or a pipe is written to, not replaced
        file.write_bytes(data)
        return
    aside = file.with_name(f".{file.name}.new")
    try:
        aside.write_bytes(data)
        aside.replace(file)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(file)) from None


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
