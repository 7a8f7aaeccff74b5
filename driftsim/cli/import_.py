"""The verb ``import``: another tool's run becomes a trace."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from driftsim.errors import InputError


def import_(
    what: Annotated[
        list[str],
        typer.Argument(
            metavar="[FORMAT] FILE", help="The file to bring in; its format is recognised if none is named."
        ),
    ],
    out: Annotated[Path | None, typer.Option(help="Folder of the trace to write.")] = None,
    mapping: Annotated[
        Path | None, typer.Option(help="TOML, for a table: columns, durations, units, values, maps, records, engine.")
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse a file with a row that cannot be read [default: leave it out].")
    ] = False,
    result: Annotated[int | None, typer.Option(min=1, help="Which of several results in the file, from 1.")] = None,
) -> None:
    """Bring another tool's run in as a trace."""
    from driftsim.files import check_place
    from driftsim.formats.imports import import_trace

    if len(what) > 2:
        raise InputError(f"one file is brought in at a time, got {len(what) - 1}")
    if out is None:
        raise InputError("where to? give --out FOLDER")
    *form, file = what
    check_place(out)
    trace = import_trace(file, form[0] if form else None, mapping=mapping, strict=strict, result=result)
    trace.write(out)
    phases = trace.header.workload.phases
    loop = f", {phases[0].kind}" if len(phases) == 1 else f" in {len(phases)} phases"
    typer.echo(f"{out}: {len(trace.requests)} requests{loop}, {len(trace.finished)} finished", err=True)
    for note in (*trace.header.caveats, *trace.header.notes):
        typer.echo(f"Note: {note}.", err=True)
