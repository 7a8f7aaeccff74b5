"""The verb ``columns``: what every column, metric and key means."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from driftsim.cli.options import AsJson
from driftsim.cli.terminal import say_document, wide_console

if TYPE_CHECKING:
    from driftsim.reference import Entry


def columns(
    table: Annotated[
        str | None,
        typer.Argument(
            help="requests, steps, telemetry, header, metrics, scenario, grid, mapping, profile, policies or "
            "estimators."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say what each column of a trace, each metric and each key of a file means, with its kind and unit."""
    from driftsim import reference
    from driftsim.formatting import dumps

    tables = reference.TABLES if table is None else {table: reference.table(table)}
    if as_json:
        say_document(dumps({name: [entry.filled() for entry in entries] for name, entries in tables.items()}))
        return
    for name, entries in tables.items():
        print_entries(name, entries)


def print_entries(name: str, entries: list[Entry]) -> None:
    """Print the table ``name`` of what things mean."""
    from rich import box
    from rich.table import Table

    printed = Table(title=name, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, header_style="bold")
    for heading, ratio in (("name", None), ("kind", 1), ("unit", None), ("meaning", 3)):
        printed.add_column(heading, ratio=ratio, no_wrap=ratio is None)
    for entry in entries:
        printed.add_row(entry.name, entry.kind, entry.unit, entry.meaning)
    wide_console().print(printed)
