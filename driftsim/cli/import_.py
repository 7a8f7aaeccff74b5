"""The verb ``import``: another tool's run becomes a trace."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def import_(
    form: Annotated[str, typer.Argument(metavar="FORMAT", help="csv (or JSON Lines, Parquet), vllm-bench, azure.")],
    file: Annotated[Path, typer.Argument(help="The file to bring in.")],
    out: Annotated[Path, typer.Option(help="Folder of the trace to write.")],
    mapping: Annotated[
        Path | None, typer.Option(help="TOML: columns, durations, units, values, offset, engine, model, hardware.")
    ] = None,
) -> None:
    """Bring another tool's run in as a trace."""
    from driftsim.trace.importers import import_trace

    trace = import_trace(form, file, mapping)
    trace.write(out)
    typer.echo(f"{out}: {len(trace.requests)} requests", err=True)
    for note in trace.header.notes:
        typer.echo(f"Note: {note}.", err=True)
