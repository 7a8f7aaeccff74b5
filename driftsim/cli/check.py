"""The verb ``check``: results held against a baseline."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from driftsim.cli.options import AllowPlugins, AsJson, Slo, refuse, setting
from driftsim.cli.terminal import say, say_document, sweep_progress
from driftsim.errors import InputError, RunError

if TYPE_CHECKING:
    from driftsim.sweeps.gate import GateResult


def check(
    context: typer.Context,
    grid: Annotated[Path | None, typer.Argument(help="With --update: the runs, if not the old ones.")] = None,
    baseline: Annotated[
        Path | None, typer.Option(help="JSON file that results are held against; only --beside does without.")
    ] = None,
    store: Annotated[Path | None, typer.Option(help="Take rows from this store, and put new ones there.")] = None,
    captured: Annotated[list[Path] | None, typer.Option(help="Captured traces; repeats of a run are a group.")] = None,
    beside: Annotated[
        list[Path] | None,
        typer.Option(help="Captures of the old version, of the same session: --captured is held against these."),
    ] = None,
    only: Annotated[
        str | None, typer.Option(metavar="NAME", help="One scenario: its name, or the first digits of its key.")
    ] = None,
    floor: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="Smallest change that counts, of a metric or of a unit: s=0.001, tokens=1. With --update it is kept.",
        ),
    ] = None,
    slo: Slo = None,
    update: Annotated[bool, typer.Option("--update", help="Write the baseline anew; needs --reason.")] = False,
    reason: Annotated[str | None, typer.Option(help="With --update: why the baseline changes; kept in it.")] = None,
    tolerance: Annotated[
        float | None, typer.Option(min=0, help="With --update: relative, of what is simulated.")
    ] = None,
    jobs: Annotated[int, typer.Option(min=0, help="Local processes; 0: one a core.")] = 0,
    junit: Annotated[Path | None, typer.Option(help="Write JUnit XML to this file.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write a summary for a pull request to this file.")] = None,
    allow: AllowPlugins = None,
    as_json: AsJson = False,
) -> None:
    """Compare results with a baseline; exit 1 if a scenario became worse by more than tolerance and floor."""
    from driftsim.scheduling.plugins import allow_plugins
    from driftsim.slo import slo_rules
    from driftsim.sweeps.baseline import load_baseline, make_baseline
    from driftsim.sweeps.gate import check_baseline

    for folder in allow or ():
        allow_plugins(folder)
    floors, slos = _floors(floor or []), slo_rules(slo or ())
    if not captured:
        refuse(context, "it is for captured traces, and a simulated run has its SLOs in its scenario", "slo")
    if update:
        refuse(
            context, "--update writes a baseline and compares nothing", "junit", "markdown", "as_json", "beside", "only"
        )
        if baseline is None or reason is None:
            missing = "--baseline FILE" if baseline is None else "--reason WHY: a baseline says why it is what it is"
            raise InputError(f"--update needs {missing}")
        with sweep_progress() as watch:
            made = make_baseline(
                baseline, grid, reason=reason, captured=captured or (), store=store, tolerance=tolerance, floors=floors,
                slos=slos, jobs=jobs, watch=watch,
            )  # fmt: skip
        say(f"{baseline}: {len(made.runs)} runs and {len(made.captured)} groups of captured ones")
        return
    if grid is not None:
        raise InputError(f"{grid}: the runs come from the baseline; a grid is read only with --update")
    refuse(context, "only --update changes a baseline", "reason", "tolerance")
    if baseline is not None and not load_baseline(baseline).runs:
        refuse(context, "the baseline holds no simulated run", "store", "jobs")
    _check_outputs(junit, markdown)  # before the runs, not after them
    with sweep_progress() as watch:
        result = check_baseline(
            baseline, captured=captured or (), beside=beside or (), only=only, floors=floors, slos=slos, store=store,
            jobs=jobs, watch=watch,
        )  # fmt: skip
    _report(result, junit, markdown, as_json)


def _floors(texts: list[str]) -> dict[str, float]:
    """What ``--floor`` says, by metric or unit."""
    floors = {}
    for text in texts:
        name, value = setting("--floor", text, "s=0.001")
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise InputError(f"--floor {text!r}: expected a number, s=0.001 for instance")
        floors[name] = float(value)
    return floors


def _check_outputs(junit: Path | None, markdown: Path | None) -> None:
    """Raise ``TraceError`` where a file would replace what is no report of this verb, or lies in a trace."""
    from driftsim.files import check_outside, check_own

    marks = (
        (junit, "JUnit file of driftsim check", r'<\?xml [^>]*>\s*<testsuite name="driftsim check" '),
        (markdown, "summary of driftsim check", "### driftsim check "),
    )
    for file, kind, mark in marks:
        if file is not None:
            check_outside(file)
            check_own(file, kind, re.compile(mark).match)


def _report(result: GateResult, junit: Path | None, markdown: Path | None, as_json: bool) -> None:
    """Print and write ``result``; raises ``RunError`` if a scenario became worse."""
    from driftsim.files import write_file
    from driftsim.formatting import dumps

    if junit is not None:
        write_file(junit, result.junit())
    if markdown is not None:
        write_file(markdown, result.markdown())
    if as_json:
        say_document(dumps(result.document()))
    else:
        say(*result.lines())
    if not result.regressions:
        return
    worst = result.regressions[0]
    count = f"{len(result.regressions)} of {len(result.scenarios)} scenarios became worse"
    doubt = "; the repeats compared with are of another session, whose machine may differ" if worst.foreign else ""
    raise RunError(f"{count}; the worst: {worst.worst.metric} of {worst.name}, {worst.worst.told}{doubt}")
