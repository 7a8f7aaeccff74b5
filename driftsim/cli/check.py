"""The verb ``check``: results held against a baseline."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from driftsim.cli.options import AsJson, refuse
from driftsim.cli.terminal import sweep_progress, wide_console
from driftsim.errors import InputError, RunError


def check(
    context: typer.Context,
    baseline: Annotated[Path, typer.Option(help="JSON file that results are held against.")],
    grid: Annotated[Path | None, typer.Argument(help="With --update: the runs, if not the old ones.")] = None,
    store: Annotated[Path | None, typer.Option(help="Take rows from this store, and put new ones there.")] = None,
    captured: Annotated[list[Path] | None, typer.Option(help="Captured traces; repeats of a run are a group.")] = None,
    update: Annotated[bool, typer.Option("--update", help="Write the baseline anew; needs --reason.")] = False,
    reason: Annotated[str | None, typer.Option(help="With --update: why the baseline changes; kept in it.")] = None,
    tolerance: Annotated[
        float | None, typer.Option(min=0, help="With --update: relative, of what is simulated.")
    ] = None,
    jobs: Annotated[int, typer.Option(min=0, help="Local processes; 0: one a core.")] = 0,
    junit: Annotated[Path | None, typer.Option(help="Write JUnit XML to this file.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write a summary for a pull request to this file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Compare results with a baseline; exit 1 if a metric moved for the worse beyond its tolerance."""
    from driftsim.files import write_file
    from driftsim.formatting import dumps, signed_percent
    from driftsim.sweeps.baseline import load_baseline, make_baseline
    from driftsim.sweeps.gate import check_baseline

    if update:
        refuse(context, "--update writes a baseline and compares nothing", "junit", "markdown", "as_json")
        if reason is None:
            raise InputError("--update needs --reason WHY: a baseline says why it is what it is")
        with sweep_progress() as watch:
            made = make_baseline(
                baseline, grid, reason=reason, captured=captured or (), store=store, tolerance=tolerance, jobs=jobs,
                watch=watch,
            )  # fmt: skip
        typer.echo(f"{baseline}: {len(made.runs)} runs and {len(made.captured)} groups of captured ones")
        return
    if grid is not None:
        raise InputError(f"{grid}: the runs come from the baseline; a grid is read only with --update")
    refuse(context, "only --update changes a baseline", "reason", "tolerance")
    if not load_baseline(baseline).runs:
        refuse(context, "the baseline holds no simulated run", "store", "jobs")
    with sweep_progress() as watch:
        result = check_baseline(baseline, captured=captured or (), store=store, jobs=jobs, watch=watch)
    if junit is not None:
        write_file(junit, result.junit())
    if markdown is not None:
        write_file(markdown, result.markdown())
    if as_json:
        typer.echo(dumps(result.document()))
    else:
        result.show(wide_console())
    if result.regressions:
        worst = result.regressions[0]
        moved = signed_percent(worst.change, 2)
        raise RunError(f"{len(result.regressions)} regressions; the worst: {worst.metric} of {worst.run}, {moved}")
