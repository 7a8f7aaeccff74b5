"""The verb ``scenario``: what a scenario may say, and what a file of one says."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from driftsim.cli.columns import print_entries
from driftsim.cli.options import AsJson
from driftsim.cli.terminal import say_document
from driftsim.errors import InputError


def scenario(
    file: Annotated[Path | None, typer.Argument(help="TOML or JSON: to check, and to show with its defaults.")] = None,
    keys: Annotated[bool, typer.Option("--keys", help="List every key, dotted, with its meaning.")] = False,
    as_json: AsJson = False,
) -> None:
    """Say what keys a scenario has, or check the scenario in a file and show all that it says."""
    from driftsim import reference
    from driftsim.formatting import dumps
    from driftsim.simulation.spec import load_spec

    if keys == (file is not None):
        raise InputError("give a FILE to check, or --keys to list what it may say")
    if file is not None:
        say_document(dumps(load_spec(file).model_dump(mode="json")))
    elif as_json:
        say_document(dumps([entry.filled() for entry in reference.table("scenario")]))
    else:
        print_entries("scenario", reference.table("scenario"))
