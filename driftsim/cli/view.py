"""The verb ``view``: runs become a timeline that Perfetto opens."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from driftsim.cli.terminal import check_file, progress, say
from driftsim.errors import InputError


def view(
    traces: Annotated[list[Path], typer.Argument(help="Folders of traces, or files that other tools wrote.")],
    out: Annotated[Path, typer.Option(help="File to write: .json, or .json.gz, which is smaller.")],
    since: Annotated[float, typer.Option("--from", help="Draw from here on, in seconds since the run began.")] = 0.0,
    until: Annotated[float | None, typer.Option("--to", help="Draw until here, likewise; else to the end.")] = None,
    limit: Annotated[
        int,
        typer.Option(help="Most requests of a trace to draw, and ten times as many steps."),
    ] = 10_000,
) -> None:
    """Draw runs step by step, for Perfetto: requests in lanes, engine steps, KV cache and queue, side by side."""
    from driftsim.files import check_apart, check_own
    from driftsim.formats.perfetto import check_suffix, is_timeline, perfetto, write_timeline
    from driftsim.formats.window import View
    from driftsim.inputs import as_trace

    chosen = View(since_s=since, until_s=math.inf if until is None else until, limit=limit)
    check_suffix(out)
    check_apart(out, traces)
    places = [trace.resolve() for trace in traces]
    if twice := [trace for trace, place in zip(traces, places, strict=True) if places.count(place) > 1]:
        raise InputError(f"{twice[0]}: is named {len(twice)} times, which shows the same twice; name it once")
    check_file(out)
    check_own(out, "timeline of driftsim view", is_timeline)
    with progress("events") as reporter:
        made = perfetto([as_trace(trace) for trace in traces], chosen, reporter.update)
    write_timeline(made, out)
    for note in made.notes:
        say(f"Note: {note}.", err=True)
    say(f"{out}: open it at https://ui.perfetto.dev, which uploads nothing", err=True)
