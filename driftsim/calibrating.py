"""The verbs ``calibrate``, ``validate`` and ``import``: from recorded runs to a profile, and how far to trust it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from driftsim.terminal import TABLE_WIDTH, Choice, RunError, about, print_table, status

if TYPE_CHECKING:
    from driftsim.latency import Profile


class Source(Choice):
    """What a profile is fitted to."""

    AUTO = "auto"
    STEPS = "steps"
    REQUESTS = "requests"


def calibrate(
    traces: Annotated[list[Path], typer.Argument(help="Folders of recorded runs, best at several loads.")],
    out: Annotated[Path, typer.Option(help="File of the profile to write.")] = Path("profile.json"),
    source: Annotated[
        Source, typer.Option("--from", help="Fit the steps, or the timings of requests; auto: steps where known.")
    ] = Source.AUTO,
    until: Annotated[float | None, typer.Option(min=0, help="Fit only the first so many seconds of each run.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")] = False,
) -> None:
    """Fit a latency profile of your GPU, model and engine to recorded runs, jointly."""
    from driftsim.calibrate import Run
    from driftsim.calibrate import calibrate as fit
    from driftsim.report import dumps
    from driftsim.trace import digest, read

    if out.is_dir() or not out.resolve().parent.is_dir():
        raise ValueError(f"{out}: cannot be written; name a file in a folder that is there")
    runs = []
    for folder in traces:
        runs.append(Run(str(folder), read(folder), digest(folder)))
    with status("calibrating") as told:
        profile = fit(runs, source=source.value, until=float("inf") if until is None else until, told=told)
    profile.save(out)
    if as_json:
        typer.echo(dumps(profile.model_dump(mode="json")))
        return
    _print_profile(out, profile)


def _print_profile(out: Path, profile: Profile) -> None:
    from rich.console import Console

    fit = profile.fit
    headings = ["coefficient\n", "us\n", "95 % interval\nus"]
    cells = [
        [
            name.removesuffix("_s").replace("_", " "),
            f"{1e6 * getattr(profile, name):.4g}",
            f"{1e6 * low:.4g} to {1e6 * high:.4g}",
        ]
        for name, (low, high) in profile.intervals.items()
    ]
    console = Console(highlight=False)
    typer.echo(f"{out}: {profile.model} on {profile.hardware}, vLLM {profile.engine.version}")
    print_table(console, "", headings, cells)
    if fit is not None:
        what = "steps" if fit.source == "steps" else "requests' decode times"
        typer.echo(
            f"Fitted to {fit.rows:,} {what}: mean absolute error "
            f"{100 * fit.mean_absolute_percentage_error:.2f} %, bias {100 * fit.bias:+.2f} %."
        )
        for region in fit.regions:
            typer.echo(
                f"  {region.name}: {region.rows:,} rows, mean absolute error "
                f"{100 * region.mean_absolute_percentage_error:.2f} %, bias {100 * region.bias:+.2f} %"
            )
    for warning in profile.warnings:
        typer.echo(f"Warning: {warning}.")


def import_(
    form: Annotated[str, typer.Argument(metavar="FORMAT", help="csv (or JSON Lines, Parquet), vllm-bench, azure.")],
    file: Annotated[Path, typer.Argument(help="The file to bring in.")],
    out: Annotated[Path, typer.Option(help="Folder of the trace to write.")],
    mapping: Annotated[
        Path | None, typer.Option(help="TOML: columns, durations, units, values, offset, engine, model, hardware.")
    ] = None,
) -> None:
    """Bring another tool's run in as a trace."""
    from driftsim.importers import import_trace

    trace = import_trace(form, file, mapping)
    trace.write(out)
    typer.echo(f"{out}: {len(trace.requests)} requests", err=True)
    for note in trace.header.notes:
        typer.echo(f"Note: {note}.", err=True)


class Steps(Choice):
    """Where the durations of steps come from."""

    MODEL = "model"
    MEASURED = "measured"


def validate(
    traces: Annotated[list[Path], typer.Argument(help="Folders of captured runs.")],
    profile: Annotated[Path | None, typer.Option(help="Latency profile, fitted to other runs than these.")] = None,
    steps: Annotated[
        Steps, typer.Option(help="The profile's step times, or those recorded: then only scheduling can err.")
    ] = Steps.MODEL,
    max_error: Annotated[
        float | None, typer.Option(min=0, help="Exit 1 if an error is larger, relative: 0.05 is 5 %.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder for the simulated traces.")] = None,
) -> None:
    """Simulate what was measured, and show how far the two are apart."""
    from rich.console import Console

    from driftsim.latency import load_profile
    from driftsim.report import dumps, without_nan
    from driftsim.trace import read
    from driftsim.validate import TOLERANCE_S, on_measured_steps, on_model_steps, worst

    measured = steps is Steps.MEASURED
    if measured == (profile is not None):
        raise ValueError(
            "--steps measured takes no --profile; drop one of them"
            if measured
            else "--steps model needs --profile, fitted to other runs than these (driftsim calibrate)"
        )
    model = None if profile is None else load_profile(profile)
    found = []
    for folder in traces:
        recorded = read(folder)
        with about(folder):
            found.append(
                on_measured_steps(folder.name, recorded)
                if model is None
                else on_model_steps(folder.name, recorded, model)
            )
    if out is not None:
        for validation in found:
            validation.simulated.write(out / validation.name)
    rows = [row for validation in found for row in validation.rows()]
    exceptions = [
        {"trace": validation.name, **record}
        for validation in found
        if validation.exceptions is not None
        for record in validation.exceptions.to_dict("records")
    ]
    if as_json:
        document = {"rows": rows, "profile": None if profile is None else profile.name, "exceptions": exceptions}
        typer.echo(dumps(without_nan(document)))
    else:
        console = Console(highlight=False)
        console.width = max(console.width, TABLE_WIDTH)
        cells = [
            [
                row["trace"],
                f"{row['metric']} {row['stat']}",
                f"{row['measured']:.4f}",
                f"{row['simulated']:.4f}",
                f"{100 * row['error']:+.2f} %",
            ]
            for row in rows
            if row["metric"] != "makespan" or row["stat"] == "mean"
        ]
        headings = ["trace\n", "metric\n", "measured\ns", "simulated\ns", "error\n"]
        title = "Simulated on the recorded steps" if measured else f"Simulated with {profile}"
        print_table(console, title, headings, cells)
        for validation in found if measured else []:
            count = len(validation.recorded.requests)
            off = 0 if validation.exceptions is None else len(validation.exceptions)
            console.print(
                f"{validation.name}: {count - off} of {count} requests within {1000 * TOLERANCE_S:g} ms at the first "
                f"and last token; {100 * (validation.steps_alike or 0):.2f} % of the steps composed alike",
                markup=False,
            )
        for record in exceptions[:20]:
            console.print(f"  {record}", markup=False)
    if exceptions:
        raise RunError(f"{len(exceptions)} requests are more than {1000 * TOLERANCE_S:g} ms off")
    if max_error is not None and not worst(found) <= max_error:
        raise RunError(f"the largest error, {100 * worst(found):.2f} %, is above {100 * max_error:g} %")
