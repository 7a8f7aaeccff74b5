"""What the verbs share at the terminal: choices, errors, tables, progress."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Any

TABLE_WIDTH = 100  # columns that the printed tables need


class RunError(Exception):
    """A run did not come to its proper end."""


class Choice(StrEnum):
    """Base class of the switches' values, so that --help lists them."""


@contextmanager
def about(trace: Path) -> Iterator[None]:
    """Name the trace in what is wrong with it."""
    try:
        yield
    except ValueError as error:
        told = str(error)
        raise ValueError(told if told.startswith((f"{trace}", f"{trace.name}:")) else f"{trace}: {told}") from None


def print_table(console: Any, title: str, headings: list[str], rows: list[list[str]]) -> None:
    from rich.markup import escape
    from rich.table import Table

    shown = Table(
        title=escape(title) or None,
        title_justify="left",
        title_style="bold",
        box=None,
        header_style="bold",
        padding=(0, 1, 0, 0),
    )
    for place, heading in enumerate(headings):
        shown.add_column(heading, justify="left" if place < 2 else "right", no_wrap=True)
    for row in rows:
        shown.add_row(*row)
    console.print(shown)


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on stderr, gone when done; yields a function that advances it."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=total)
        yield lambda runs: bar.advance(task, runs)


@contextmanager
def status(what: str) -> Iterator[Callable[[str], None]]:
    """A line on stderr that says what is being done; yields a function that changes it."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda message: None
        return
    with console.status(what) as line:
        yield lambda message: line.update(f"{what}: {message}")
