"""The verb ``sweep``: many scenarios into a store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from driftsim.cli.options import AsJson, Jobs, refuse
from driftsim.cli.terminal import duration, progress, say, say_document, sweep_progress
from driftsim.errors import InputError, RunError
from driftsim.text import for_shell

Backend = Literal["local", "dask"]


def sweep(
    context: typer.Context,
    grid: Annotated[Path, typer.Argument(help="TOML: base, grid, zip, list, exclude, replications.")],
    store: Annotated[Path, typer.Option(help="Folder of the rows; made if it is not there, gone on with if it is.")],
    jobs: Jobs = 0,
    backend: Annotated[Backend, typer.Option(help="Local processes, or a Dask cluster.")] = "local",
    address: Annotated[str | None, typer.Option(help="Of the Dask scheduler, as tcp://host:8786.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say how many runs there are and what they would take.")
    ] = False,
    keep_traces: Annotated[bool, typer.Option("--keep-traces", help="Keep each run's trace in the store.")] = False,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Run again what failed.")] = False,
    merge: Annotated[list[Path] | None, typer.Option(help="Take the rows of another store first.")] = None,
    as_json: AsJson = False,
) -> None:
    """Run a grid of scenarios into a store; what is there already is not run again."""
    from driftsim.formatting import dumps
    from driftsim.sweeps.runner import plan_grid, sweep_grid

    if (backend == "dask") != (address is not None):
        raise InputError("--backend dask and --address tcp://HOST:PORT go together")
    if backend == "dask":
        refuse(context, "the cluster has its own workers", "jobs")
    if dry_run:
        refuse(context, "--dry-run writes nothing", "keep_traces", "retry_failed", "merge")
        _print_estimate(grid, store, jobs, as_json)
        return
    with progress("planning") as reporter:
        planned = plan_grid(grid, reporter.update)
    with sweep_progress() as watch:
        done, _ = sweep_grid(
            planned, store, merge=merge or (), jobs=jobs, address=address, keep=keep_traces, retry=retry_failed,
            watch=watch,
        )  # fmt: skip
    for warning in done.warnings:
        say(f"Note: {warning}.", err=True)
    if as_json:
        say_document(dumps({"runs": done.total, "done": done.done, "failed": done.failed, "restarts": done.restarts}))
    else:
        again = for_shell(["driftsim", "show", str(store)])
        say(f"{store}: {done.done} of {done.total} runs done, {done.failed} failed; {again}")
        if done.torn:
            say(f"Note: {done.torn} torn rows were found and their runs done again.")
    if done.failed:
        why = for_shell(["driftsim", "show", str(store), "--where", "failed=True"])
        raise RunError(f"{done.failed} runs failed; {why} says why")


def _print_estimate(grid: Path, store: Path, jobs: int, as_json: bool) -> None:
    """How many runs there are, and what they would take, from three that are tried."""
    from driftsim.formatting import dumps
    from driftsim.sweeps.runner import estimate, plan_grid

    with progress("planning") as reporter:
        planned = plan_grid(grid, reporter.update)
    document = estimate(planned, store, jobs)
    if as_json:
        say_document(dumps(document))
        return
    say(
        f"{document['runs']} runs, {document['in_store']} in the store already; about "
        f"{document['seconds_a_run']:.3f} s each, {duration(document['seconds'])} in all on "
        f"{document['processes']} processes"
    )
    for error in document["failed_tries"]:
        say(f"Warning: a run that was tried failed: {error}.")
