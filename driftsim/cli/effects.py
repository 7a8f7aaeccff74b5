"""The verb ``effects``: what policies changed on the real engine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from driftsim.cli.options import AsJson
from driftsim.cli.terminal import TABLE_WIDTH, say_document, wide_console


def effects(
    traces: Annotated[list[Path], typer.Argument(help="Folders of captured runs of one workload, FIFO among them.")],
    practical: Annotated[
        float, typer.Option(min=0, help="Least relative change that gets a star; smaller ones matter to nobody.")
    ] = 0.01,
    as_json: AsJson = False,
) -> None:
    """Compare captured runs of several policies with FIFO's, measured, not simulated: at one speed of the host, and as
    measured, round by round."""
    print_effects(traces, as_json, practical)


def print_effects(traces: list[Path], as_json: bool, practical: float = 0.01) -> None:
    """Print the comparison of captured ``traces``, as a table or as one JSON document."""
    from driftsim import api
    from driftsim.formatting import dumps

    result = api.compare_captured(*traces, practical=practical)
    if as_json:
        say_document(dumps(result.document()))
    else:
        result.show(wide_console(TABLE_WIDTH + 40))
