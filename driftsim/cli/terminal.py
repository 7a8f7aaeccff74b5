"""What the verbs share at the terminal: tables, one reporter of progress, and whose mistake is named."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from driftsim.errors import InputError
from driftsim.text import shown, shown_lines

if TYPE_CHECKING:
    from rich.console import Console

    from driftsim.progress import OnProgress
    from driftsim.sweeps.recorder import Progress

TABLE_WIDTH = 100  # columns that the printed tables need
LONG_S = 1200.0  # left, after which it is worth a word that less can be asked for
LINE_EVERY_S = 30.0  # between lines of progress where stderr is no terminal


def wide_console(width: int = TABLE_WIDTH) -> Console:
    """A console of at least ``width`` columns: a narrow terminal wraps the lines, it never cuts a number."""
    from driftsim.formatting import plain_console

    console = plain_console()
    console.width = max(console.width, width)
    return console


def say(*lines: str, err: bool = False, nl: bool = True) -> None:
    """Print ``lines``, each of which stays one, and whose names act on no terminal."""
    _echo("\n".join(map(shown, lines)), err, nl)


def say_document(text: str, *, nl: bool = True) -> None:
    """Print a text that brings its own lines and escapes, as JSON does."""
    _echo(shown_lines(text), False, nl)


def _echo(text: str, err: bool, nl: bool) -> None:
    try:
        typer.echo(text, err=err, nl=nl)
    except BrokenPipeError:
        from driftsim.formatting import leave_quietly

        leave_quietly(sys.stderr if err else sys.stdout)


def print_table(console: Console, title: str, headings: list[str], rows: list[list[str]]) -> None:
    """Print ``rows`` of text under ``headings``, each a name, a line break and a unit."""
    from driftsim.formatting import show_table

    show_table(console, title, headings, rows)


class Reporter:
    """Progress on stderr: a bar where somebody watches, else a line every half minute."""

    def __init__(self, bar: Any, what: str, total: int | None) -> None:
        self._bar = bar
        self._watched = not bar.disable
        self._task = bar.add_task(what, total=total)
        self._what, self._total = what, total
        self._done = self._first = 0
        self._begun = self._said = time.monotonic()

    def advance(self, count: int = 1) -> None:
        """``count`` more are done."""
        self.update(self._done + count)

    def update(self, done: int, total: int | None = None, note: str = "") -> None:
        """``done`` of ``total`` are done by now; ``note`` is shown beside them."""
        if self._done == 0:
            self._first = done  # found done: no measure of the speed
        self._done, self._total = done, self._total if total is None else total
        if self._watched:
            description = f"{self._what}: {note}" if note else self._what
            self._bar.update(self._task, completed=done, total=self._total, description=description)
            return
        now = time.monotonic()
        if now - self._said >= LINE_EVERY_S:
            self._said = now
            say(self._line(now, note), err=True)

    def restart(self, what: str, total: int) -> None:
        """Begin anew with another task."""
        self._what, self._total, self._done, self._begun = what, total, 0, time.monotonic()
        if self._watched:
            self._bar.reset(self._task, total=total, description=what)

    def _line(self, now: float, note: str) -> str:
        parts = [note] if note else []
        if self._total is not None:
            parts.insert(0, f"{self._done} of {self._total}")
            rate = max(self._done - self._first, 1) / (now - self._begun)
            parts.append(f"{duration((self._total - self._done) / rate)} left")
        return f"{self._what}: {', '.join(parts)}"


@contextmanager
def progress(what: str, total: int | None = None) -> Iterator[Reporter]:
    """A ``Reporter`` of ``what``; its bar is gone when the block ends."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from driftsim.formatting import plain_console

    console = plain_console(stderr=True)
    description = TextColumn("{task.description}", markup=False)
    columns = (description, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        yield Reporter(bar, what, total)


@contextmanager
def sweep_progress() -> Iterator[Callable[[Progress], None]]:
    """A watcher of a sweep that reports its runs, and how many failed."""
    with progress("runs") as reporter:

        def watch(state: Progress) -> None:
            reporter.update(state.done, state.total, f"{state.failed} failed" if state.failed else "")

        yield watch


def hinting(update: OnProgress, hint: str, clock: Callable[[], float] = time.monotonic) -> OnProgress:
    """``update``, which says ``hint`` on stderr, once, where more than ``LONG_S`` are left."""
    begun, said = clock(), False

    def told(done: int, total: int) -> None:
        nonlocal said
        left = (clock() - begun) / done * (total - done) if done else 0.0
        if left > LONG_S and not said:
            said = True
            print(f"Note: {total} runs, about {duration(left)} left; {hint}.", file=sys.stderr, flush=True)
        update(done, total)

    return told


def duration(seconds: float) -> str:
    """Seconds, minutes or hours, whichever reads best.

    >>> duration(42), duration(420), duration(42_000)
    ('42 s', '7 min', '11.7 h')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def check_file(out: Path) -> None:
    """Raise ``InputError`` unless a file can be written at ``out``: before the work, not after it."""
    if out.is_dir() or not out.resolve().parent.is_dir():
        raise InputError(f"{out}: cannot be written; name a file in a folder that is there")
