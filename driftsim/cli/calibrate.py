"""The verb ``calibrate``: recorded runs become a profile."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from driftsim.cli.options import IS_PROFILE, AllowPlugins, AsJson, ProfileFile
from driftsim.cli.terminal import check_file, progress, say, say_document, wide_console
from driftsim.simulation.names import FitSource


def calibrate(
    traces: Annotated[list[Path], typer.Argument(help="Folders of recorded runs, best at several loads.")],
    out: ProfileFile = Path("profile.json"),
    source: Annotated[
        FitSource, typer.Option("--from", help="Fit the steps, or the timings of requests; auto: steps where known.")
    ] = "auto",
    until: Annotated[float | None, typer.Option(min=0, help="Fit only the first so many seconds of each run.")] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Write a profile that does not describe its timings, marked by a warning.")
    ] = False,
    allow: AllowPlugins = None,
    as_json: AsJson = False,
) -> None:
    """Fit a latency profile of your GPU, model and engine to recorded runs, jointly."""
    from driftsim import api
    from driftsim.files import check_apart, check_own
    from driftsim.formatting import dumps
    from driftsim.scheduling.plugins import allow_plugins

    check_apart(out, traces)
    check_file(out)
    check_own(out, "profile", IS_PROFILE)
    for folder in allow or ():
        allow_plugins(folder)
    with progress("calibrating") as reporter:
        profile = api.calibrate(
            *traces,
            source=source,
            until=until,
            force=force,
            progress=lambda message: reporter.update(0, note=message),
        )
    profile.save(out)
    if as_json:
        say_document(dumps(profile.model_dump(mode="json")))
        return
    say(f"{out}: ", nl=False)
    profile.show(wide_console())
