"""The verb ``export``: a trace becomes a file of another tool."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from driftsim.cli.terminal import say


def export(
    trace: Annotated[Path, typer.Argument(help="Folder of the trace.")],
    form: Annotated[str, typer.Argument(metavar="FORMAT", help="timed-trace, mooncake or blis.")],
    out: Annotated[Path, typer.Option(help="File to write: .jsonl, or for blis .csv, with its header beside it.")],
) -> None:
    """Write a trace for another tool to replay: arrivals and lengths, and whatever else its format can hold."""
    from driftsim.files import check_apart
    from driftsim.formats.exports import check_export, export_trace

    check_apart(out, [trace])
    check_export(out, form)
    lost = export_trace(trace, form, out)
    say(f"{out}: written as {form}", err=True)
    for sentence in lost:
        say(f"Note: {sentence}.", err=True)
