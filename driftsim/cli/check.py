"""The verb ``check``: results held against a baseline."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from driftsim.cli.options import AsJson, refuse
from driftsim.cli.terminal import print_table, sweep_progress, wide_console
from driftsim.errors import InputError, RunError

if TYPE_CHECKING:
    from driftsim.sweeps.baseline import Baseline
    from driftsim.sweeps.gate import MetricChange

MOST_ROWS = 40  # of the printed table


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
    from driftsim import formatting
    from driftsim.files import write_file
    from driftsim.sweeps import gate
    from driftsim.sweeps.baseline import load_baseline

    if update:
        refuse(context, "--update writes a baseline and compares nothing", "junit", "markdown", "as_json")
        if not (reason or "").strip():
            raise InputError("--update needs --reason WHY: a baseline says why it is what it is")
        written = _updated(baseline, grid, store, captured or [], str(reason), tolerance, jobs)
        typer.echo(f"{baseline}: {len(written.runs)} runs and {len(written.captured)} groups of captured ones")
        return
    if grid is not None:
        raise InputError(f"{grid}: the runs come from the baseline; a grid is read only with --update")
    refuse(context, "only --update changes a baseline", "reason", "tolerance")
    known = load_baseline(baseline)
    if captured and not known.captured:
        raise InputError(f"{baseline}: holds no captured runs to compare with; make it anew with --update --captured")
    if not known.runs:
        refuse(context, "the baseline holds no simulated run", "store", "jobs")
        if not captured:
            raise InputError("the baseline holds captured runs only; give their counterparts with --captured TRACE")
    changes = _changes(known, baseline.parent, store, captured or [], jobs)
    if junit is not None:
        write_file(junit, gate.junit(changes))
    if markdown is not None:
        write_file(markdown, gate.markdown(changes, known.reason))
    regressions = [change for change in changes if change.verdict == "regression"]
    if as_json:
        rows = [asdict(one) | {"change": one.change, "verdict": one.verdict} for one in changes]
        document = {"moves": rows, "regressions": len(regressions), "reason": known.reason}
        typer.echo(formatting.dumps(formatting.without_nan(document)))
    else:
        _print_changes(changes)
    if regressions:
        worst = regressions[0]
        moved = formatting.signed_percent(worst.change, 2)
        raise RunError(f"{len(regressions)} regressions; the worst: {worst.metric} of {worst.run}, {moved}")


def _changes(known: Baseline, folder: Path, store: Path | None, captured: list[Path], jobs: int) -> list[MetricChange]:
    """Every gated metric, then and now, worst first."""
    from driftsim.sweeps.baseline import captured_metrics, rows_by_name, spec_of
    from driftsim.sweeps.gate import captured_changes, metric_changes
    from driftsim.trace.trace import read

    rows = {}
    if known.runs:
        with sweep_progress() as watch:
            rows = rows_by_name({run.name: spec_of(run, folder) for run in known.runs}, store, jobs, watch)
    changes = metric_changes(known, rows)
    if captured:
        changes += captured_changes(known, captured_metrics([read(path) for path in captured]))
    return sorted(changes, key=lambda change: -change.worse)


def _updated(
    file: Path, grid: Path | None, store: Path | None, captured: list[Path], reason: str, tolerance: float | None,
    jobs: int,
) -> Baseline:  # fmt: skip
    """The new baseline, which is then in ``file``; what is not given anew is the old one's."""
    from driftsim.sweeps.baseline import (
        SIMULATED,
        Baseline,
        Captured,
        baseline_runs,
        captured_metrics,
        load_baseline,
        named_specs,
        rows_by_name,
        spec_of,
    )  # fmt: skip
    from driftsim.sweeps.grid import load_grid
    from driftsim.trace.trace import read

    old = load_baseline(file) if file.exists() else None
    if grid is None and old is None and not captured:
        raise InputError("--update of a new baseline needs GRID.toml, or --captured TRACE")
    specs = load_grid(grid) if grid else [spec_of(run, file.parent) for run in old.runs] if old else []
    runs = []
    if specs:
        named = named_specs(specs)
        with sweep_progress() as watch:
            runs = baseline_runs(named, rows_by_name(named, store, jobs, watch), file.resolve().parent)
    metrics = captured_metrics([read(path) for path in captured])
    groups = [Captured(name=name, metrics=values) for name, values in metrics.items()]
    made = Baseline(
        reason=reason,
        tolerance=tolerance if tolerance is not None else old.tolerance if old else SIMULATED,
        tolerances=old.tolerances if old else {},
        runs=runs,
        captured=groups or (old.captured if old else []),
    )
    made.save(file)
    return made


def _print_changes(changes: list[MetricChange]) -> None:
    from driftsim.formatting import signed_percent

    moved = [change for change in changes if change.verdict != "same"]
    if moved:
        lines = [
            [one.run, one.metric, f"{one.then:.6g}", f"{one.now:.6g}", signed_percent(one.change, 2),
             f"{100 * one.tolerance:g} %", one.verdict]
            for one in moved[:MOST_ROWS]
        ]  # fmt: skip
        headings = ["run\n", "metric\n", "baseline\n", "now\n", "change\n", "tolerance\n", "verdict\n"]
        print_table(wide_console(), "What moved, worst first", headings, lines)
    counts = {name: sum(one.verdict == name for one in changes) for name in ("regression", "improvement", "same")}
    typer.echo(f"{counts['regression']} regressions, {counts['improvement']} improvements, {counts['same']} unchanged")
