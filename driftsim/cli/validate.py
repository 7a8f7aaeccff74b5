"""The verb ``validate``: recorded runs beside their simulations."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from driftsim.cli.options import AllowPlugins, AsJson, refuse
from driftsim.cli.terminal import progress, say_document, wide_console
from driftsim.errors import RunError
from driftsim.simulation.names import StepSource


def validate(
    context: typer.Context,
    traces: Annotated[list[Path], typer.Argument(help="Folders of recorded runs; repeats of one run are recognised.")],
    profile: Annotated[Path | None, typer.Option(help="Latency profile, fitted to other runs than these.")] = None,
    steps: Annotated[
        StepSource,
        typer.Option(
            help="The profile's step times; these with its noise, for an interval; or those recorded, so that only "
            "scheduling can err."
        ),
    ] = "model",
    seeds: Annotated[int | None, typer.Option(min=2, help="Runs with noise, for --steps noise [20].")] = None,
    by_tenant: Annotated[bool, typer.Option("--by-tenant", help="Show each tenant's latencies.")] = False,
    max_error: Annotated[
        float | None, typer.Option(min=0, help="Exit 1 if an error is larger, relative: 0.05 is 5 %.")
    ] = None,
    allow: AllowPlugins = None,
    as_json: AsJson = False,
    out: Annotated[Path | None, typer.Option(help="Folder for the simulated traces and the figures.")] = None,
) -> None:
    """Simulate what was measured, and show how far the two are apart."""
    from driftsim import api
    from driftsim.files import check_apart, check_place
    from driftsim.formatting import dumps
    from driftsim.scheduling.plugins import allow_plugins
    from driftsim.validation.result import MARK, written
    from driftsim.validation.validation import TOLERANCE_S

    if steps != "noise":
        refuse(context, f"--steps {steps} draws nothing", "seeds")
    if as_json:
        refuse(context, "--json holds the figures of every tenant", "by_tenant")
    check_apart(out, traces)
    if out is not None:
        check_place(out, written(out), MARK)  # before the runs, not after them
    for folder in allow or ():
        allow_plugins(folder)
    with progress("simulating requests") as reporter:
        result = api.validate(*traces, profile=profile, steps=steps, seeds=seeds, progress=reporter.update)
    if out is not None:
        result.write(out)
    if as_json:
        say_document(dumps(result.document()))
    else:
        result.show(wide_console(), by_tenant=by_tenant)
    if result.exceptions:
        raise RunError(f"{len(result.exceptions)} requests are more than {1000 * TOLERANCE_S:g} ms off")
    if max_error is not None and not result.worst() <= max_error:
        raise RunError(f"the largest error, {100 * result.worst():.2f} %, is above {100 * max_error:g} %")
