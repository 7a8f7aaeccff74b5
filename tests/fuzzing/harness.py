"""Runs a verb on files that may hold anything and tells what it did wrong; the same wrong at the same place is one."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import shlex
import shutil
import signal
import tempfile
import threading
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from tests.commands import Run, driftsim

LIMIT_S = 20  # of computing: what others do on the machine is no fault of a verb
LONGEST_WAIT_S = 240  # in which a verb may wait as well
LONGEST_LINE = 1000
MOST_MEMORY = 6 * 2**30  # bytes that a verb may take more than the tests have already
FRAME = re.compile(r'File "[^"]*/(driftsim/[^"]+)", line (\d+)')
FOREIGN = re.compile(  # the words of a library or of the interpreter, which tell a user nothing
    r"Traceback|pyarrow|ArrowInvalid|\bnumpy\b|\bpandas\b|DataFrame|(?<!-)\bdtype\b|<class |object has no attribute|"
    r"object is not|unsupported operand|not supported between|NoneType|cannot convert float|0x[0-9a-f]{8}|"
    r"pydantic"
)


class TooLate(BaseException):
    """A verb took longer than it may; no handler of ours catches it."""


@dataclass(frozen=True)
class Wrong:
    """Something that a verb did wrong: where, which is what makes it one of its own, and what."""

    place: str
    what: str


@dataclass
class Findings:
    """What was found wrong, one entry a place, with the smallest input of each kept in ``folder``."""

    folder: Path
    counts: Counter[str] = field(default_factory=Counter)
    told: dict[str, str] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    exits: Counter[int] = field(default_factory=Counter)

    def add(self, wrong: Wrong, inputs: Path, command: str, size: int) -> None:
        """One more ``wrong``, made by ``command`` on the files in ``inputs``, of which those changed have ``size``."""
        self.counts[wrong.place] += 1
        if size >= self.sizes.get(wrong.place, size + 1):
            return
        self.sizes[wrong.place] = size
        kept = self.folder / re.sub(r"[^\w.]+", "-", wrong.place)[:80]
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(inputs, kept, symlinks=True)
        self.told[wrong.place] = f"{wrong.what}\n    cd {kept} && driftsim {command}"

    def __str__(self) -> str:
        lines = [f"{count} x {place}\n    {self.told[place]}" for place, count in self.counts.most_common()]
        return "\n".join([f"{len(lines)} places; exits {dict(self.exits)}", *lines])


def wrongs(command: str, folder: Path, *, may_change: bool = False) -> tuple[list[Wrong], Run | None]:
    """What ``driftsim COMMAND``, run in ``folder``, does wrong whatever it is given, and how it ended.

    ``may_change``: whether it is meant to change the files that it reads.
    """
    before = contents(folder)
    aside = Path(tempfile.gettempdir())
    left = set(aside.iterdir())
    try:
        with contextlib.chdir(folder), _limits(), warnings.catch_warnings():
            for kind in (RuntimeWarning, UserWarning, FutureWarning):
                warnings.simplefilter("error", kind)  # which would be a second line
            run = driftsim("--debug", *shlex.split(command))
    except TooLate as late:
        return [Wrong(f"hang: {_place(late)}", f"took more than {LIMIT_S} s")], None
    except BaseException as error:
        return [Wrong(f"{type(error).__name__}: {_place(error)}", repr(error)[:300])], None
    found = list(_of_exit(run, command.split()[0]))
    after = contents(folder)
    verb = command.split()[0]
    touched = sorted(name for name in before if before[name] != after.get(name))
    if touched and not may_change:
        found.append(Wrong(f"input changed: {verb}", f"{touched[0]} is another file than before"))
    new = sorted(after.keys() - before.keys())
    if run.returncode == 2 and new and not may_change:
        found.append(Wrong(f"half written: {verb}", f"exit 2, and yet there is {new[0]}: {run.stderr.strip()[:200]}"))
    if hidden := [name for name in new if any(part.startswith(".") for part in Path(name).parts)]:
        found.append(Wrong(f"left behind: {verb}", hidden[0]))
    if more := sorted(path.name for path in set(aside.iterdir()) - left):
        found.append(Wrong(f"left behind in the temporary folder: {verb}", more[0]))
    return found, run


def _of_exit(run: Run, verb: str) -> Iterator[Wrong]:
    lines = [line for line in run.stderr.splitlines() if line.strip()]
    ours = [line for line in lines if line.startswith("driftsim: ")]
    if run.returncode not in (0, 1, 2):
        frames = FRAME.findall(run.stderr)
        place = ":".join(frames[-1]) if frames else verb
        yield Wrong(place, f"{verb}, exit {run.returncode}: {' '.join(ours)[:300]}")
        return
    if len(ours) != (run.returncode != 0):
        yield Wrong(f"lines: {verb}", f"exit {run.returncode} with {len(ours)} lines of error: {run.stderr[:300]}")
    if run.returncode == 2 and len(lines) > 1:
        yield Wrong(f"lines: {verb}", f"more than one line: {run.stderr[:300]}")
    for line in ours:
        if len(line) > LONGEST_LINE:
            yield Wrong(f"long line: {verb}: {_plain(line)}", f"{len(line)} characters: {line[:200]}")
        if foreign := FOREIGN.search(line):
            yield Wrong(f"foreign words {foreign[0]!r}: {verb}: {_plain(line)}", line[:300])


def _plain(line: str) -> str:
    """``line`` without what differs from one input to the next."""
    return re.sub(r"'[^']*'|\"[^\"]*\"|\d+|\(got .*", "", line.split(": ", 1)[1])[:60]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below ``folder``, by its path, and what it holds."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _place(error: BaseException) -> str:
    frame, found = error.__traceback__, "?"
    while frame is not None:
        file = frame.tb_frame.f_code.co_filename
        if "/driftsim/" in file:
            found = f"driftsim/{file.rpartition('/driftsim/')[2]}:{frame.tb_lineno}"
        frame = frame.tb_next
    return found


@contextlib.contextmanager
def _limits() -> Iterator[None]:
    """Raise ``TooLate`` in the block after either limit of time, and ``MemoryError`` where it takes too much."""

    def late(number: int, frame: FrameType | None) -> None:
        raise TooLate

    alarm = threading.current_thread() is threading.main_thread()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").exists() else 0
    before = {kind: signal.signal(kind, late) for kind in (signal.SIGALRM, signal.SIGPROF)} if alarm else {}
    if alarm:
        signal.setitimer(signal.ITIMER_PROF, LIMIT_S)
        signal.alarm(LONGEST_WAIT_S)
    if pages:
        resource.setrlimit(resource.RLIMIT_AS, (pages * os.sysconf("SC_PAGE_SIZE") + MOST_MEMORY, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        if alarm:
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.alarm(0)
        for kind, handler in before.items():
            signal.signal(kind, handler)
