"""The verbs ``sweep``, ``show`` and ``check``: many runs, what they came to, and a gate for CI."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from driftsim.terminal import TABLE_WIDTH, Choice, RunError, print_table

if TYPE_CHECKING:
    import pandas as pd

    from driftsim.checking import Baseline, Move
    from driftsim.simulating import Spec
    from driftsim.sweep import Progress

SHOWN = "e2e_mean_s,e2e_p50_s,e2e_p99_s,ttft_mean_s,mae"
NOT_A_TERMINAL_S = 30.0  # between lines of progress where nobody watches a bar


class Backend(Choice):
    """Where runs are done."""

    LOCAL = "local"
    DASK = "dask"


def sweep(
    grid: Annotated[Path, typer.Argument(help="TOML: base, grid, zip, list, exclude, replications.")],
    store: Annotated[Path, typer.Option(help="Folder of the rows; made if it is not there, gone on with if it is.")],
    jobs: Annotated[int, typer.Option(min=0, help="Local processes; 0: one a core.")] = 0,
    backend: Annotated[Backend, typer.Option(help="Local processes, or a Dask cluster.")] = Backend.LOCAL,
    address: Annotated[str | None, typer.Option(help="Of the Dask scheduler, as tcp://host:8786.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say how many runs there are and what they would take.")
    ] = False,
    keep_traces: Annotated[bool, typer.Option("--keep-traces", help="Keep each run's trace in the store.")] = False,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Run again what failed.")] = False,
    merge: Annotated[list[Path] | None, typer.Option(help="Take the rows of another store first.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")] = False,
) -> None:
    """Run a grid of scenarios into a store; what is there already is not run again."""
    from driftsim.grid import load_grid
    from driftsim.report import dumps
    from driftsim.store import Store
    from driftsim.sweep import plan, run_task
    from driftsim.sweep import sweep as run_sweep

    if (backend is Backend.DASK) != (address is not None):
        raise ValueError("--backend dask and --address tcp://HOST:PORT go together")
    tasks, inputs = plan(load_grid(grid))
    if dry_run:
        known = Store.open(store).keys() if store.exists() else {}
        left = [task for task in tasks if task.key not in known]
        begin = time.process_time()
        tried = left[:: max(1, len(left) // 3)][:3]
        rows = [run_task(task, inputs) for task in tried]
        each = (time.process_time() - begin) / max(1, len(tried))
        seconds = each * len(left) / (jobs or os.cpu_count() or 1)
        told = {
            "runs": len(tasks), "in_store": len(tasks) - len(left), "seconds_a_run": each, "seconds": seconds,
            "failed_tries": [row["error"] for row in rows if row["failed"]],
        }  # fmt: skip
        if as_json:
            typer.echo(dumps(told))
            return
        typer.echo(
            f"{len(tasks)} runs, {len(tasks) - len(left)} in the store already; about {each:.3f} s each, "
            f"{_time(seconds)} in all on {jobs or os.cpu_count() or 1} processes"
        )
        for error in told["failed_tries"]:  # type: ignore[attr-defined]
            typer.echo(f"Warning: a run that was tried failed: {error}.")
        return
    with Store.open(store, create=True) as opened:
        opened.adopt()
        for other in merge or []:
            opened.merge(Store.open(other))
        with watching() as watch:
            done = run_sweep(
                tasks, inputs, opened, jobs=jobs, address=address, keep=keep_traces, retry=retry_failed, watch=watch
            )
    if as_json:
        typer.echo(dumps({"runs": done.total, "done": done.done, "failed": done.failed, "restarts": done.restarts}))
    else:
        typer.echo(f"{store}: {done.done} of {done.total} runs done, {done.failed} failed; driftsim show {store}")
        if opened.torn:
            typer.echo(f"Note: {opened.torn} torn rows were found and their runs done again.")
    if done.failed:
        raise RunError(f"{done.failed} runs failed; driftsim show {store} --where failed=True says why")


@contextmanager
def watching() -> Iterator[Callable[[Progress], None]]:
    """A bar with time left and failures, or a line now and then where nobody watches."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    if console.is_terminal:
        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
        with Bar(*columns, console=console, transient=True) as bar:
            line = bar.add_task("", total=None)

            def tell(progress: Progress) -> None:
                failed = f"{progress.failed} failed" if progress.failed else ""
                bar.update(line, total=progress.total, completed=progress.done, description=failed)

            yield tell
        return
    begin = last = time.monotonic()
    first: list[int] = []

    def say(progress: Progress) -> None:
        nonlocal last
        first.append(progress.done) if not first else None
        now = time.monotonic()
        if now - last > NOT_A_TERMINAL_S:
            last = now
            rate = max(progress.done - first[0], 1) / (now - begin)
            left = _time((progress.total - progress.done) / rate)
            print(f"{progress.done} of {progress.total} runs, {progress.failed} failed, {left} left", file=sys.stderr)

    yield say


def _time(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def show(
    store: Annotated[Path, typer.Argument(help="Folder of a sweep's rows.")],
    where: Annotated[list[str] | None, typer.Option(help="Only rows with column=value, !=, <, <=, > or >=.")] = None,
    group: Annotated[str | None, typer.Option(help="Columns to group by; else what the sweep was over.")] = None,
    metrics: Annotated[str, typer.Option(help="Columns to show the mean of.")] = SHOWN,
    pivot: Annotated[str | None, typer.Option(help="ROWS,COLUMNS: the first metric as a table of the two.")] = None,
    best: Annotated[str | None, typer.Option(help="The setting with the least of this metric, in each group.")] = None,
    paired: Annotated[
        str | None, typer.Option(help="ONE/OTHER, as policy=fifo/policy=sjf: the change of every metric, paired.")
    ] = None,
    figures: Annotated[Path | None, typer.Option(help="Folder for figures: load, Pareto, heat map.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write all rows, one a run, to this file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")] = False,
) -> None:
    """Read what a sweep came to: a table, groups, a pivot, the best, paired differences, figures."""
    from driftsim.reading import best as best_of
    from driftsim.reading import filtered, grouped, known, varying
    from driftsim.reading import paired as paired_change
    from driftsim.report import dumps, without_nan
    from driftsim.store import Store

    table = Store.open(store).table()
    rows = filtered(table, where or [])
    if rows.empty:
        raise ValueError(f"{store}: no row {'fits ' + ' and '.join(where) if where else 'yet'}")
    if rows["failed"].all() and not any("failed" in condition for condition in where or []):
        raise ValueError(f"{store}: all {len(rows)} runs failed; --where failed=True says why")
    if pivot is not None and pivot.count(",") != 1:
        raise ValueError(f"--pivot {pivot}: give two columns, as rate_scale,policy")
    names = [name.strip() for name in metrics.split(",") if name.strip()]
    if csv is not None:
        rows.to_csv(csv, index=False)
    if any(condition.replace(" ", "") == "failed=True" for condition in where or []):
        _print_failures(rows, as_json)
        return
    if paired is not None:
        one, sign, other = paired.partition("/")
        if not sign:
            raise ValueError(f"--paired {paired}: give two settings, as policy=fifo/policy=sjf")
        done = rows[~rows["failed"].astype(bool)]
        import pandas

        shown = pandas.DataFrame(
            [{"metric": name} | paired_change(done, one.split(","), other.split(","), name) for name in names]
        )
    else:
        done = rows[~rows["failed"].astype(bool)]
        by = [name.strip() for name in group.split(",")] if group else _axes(varying(done))
        if best is not None:
            shown = best_of(done, by if group else [], best)
        elif pivot is not None:
            down, _, across = (part.strip() for part in pivot.partition(","))
            known(done, down), known(done, across), known(done, names[0])
            shown = done.pivot_table(index=down, columns=across, values=names[0], aggfunc="mean").reset_index()
        else:
            shown = grouped(done, by or ["policy"], names)
    if figures is not None:
        from driftsim.sweep_plots import save_figures

        done = rows[~rows["failed"].astype(bool)]
        save_figures(done, figures)
    if as_json:
        typer.echo(dumps({"rows": without_nan(shown.astype(object).where(shown.notna(), None).to_dict("records"))}))
        return
    _print(shown)
    failed = int(table["failed"].astype(bool).sum())
    typer.echo(f"{len(rows)} of {len(table)} runs" + (f"; {failed} failed: --where failed=True" if failed else ""))


def _print_failures(rows: pd.DataFrame, as_json: bool) -> None:
    """Each failed run: its key, its error, and the line that runs it again."""
    from driftsim.report import dumps

    told = rows[["key", "error", "reproduce"]].to_dict("records")
    if as_json:
        typer.echo(dumps({"rows": told}))
        return
    for row in told:
        typer.echo(f"{row['key']}  {row['error']}\n    {row['reproduce']}")


def _axes(names: list[str]) -> list[str]:
    return [name for name in names if name not in ("replication", "seed")]


def _print(table: pd.DataFrame) -> None:
    from rich.console import Console

    lines = [[_shown(value) for value in row] for row in table.itertuples(index=False)]
    widths = [max(map(len, column)) + 1 for column in zip(map(str, table), *lines, strict=True)]
    console = Console(highlight=False)
    console.width = max(console.width, TABLE_WIDTH, sum(widths))
    print_table(console, "", [f"{name}\n" for name in map(str, table)], lines)


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.5g}"
    return str(value)


def check(
    baseline: Annotated[Path, typer.Option(help="JSON file that results are held against.")],
    grid: Annotated[Path | None, typer.Argument(help="The runs, for --update; else those of the baseline.")] = None,
    store: Annotated[Path | None, typer.Option(help="Take rows from this store, and put new ones there.")] = None,
    captured: Annotated[list[Path] | None, typer.Option(help="Captured traces; repeats of a run are a group.")] = None,
    update: Annotated[bool, typer.Option("--update", help="Write the baseline anew; needs --reason.")] = False,
    reason: Annotated[str, typer.Option(help="Why the baseline changes; kept in it.")] = "",
    tolerance: Annotated[
        float | None, typer.Option(min=0, help="With --update: relative, of what is simulated.")
    ] = None,
    jobs: Annotated[int, typer.Option(min=0, help="Local processes; 0: one a core.")] = 0,
    junit: Annotated[Path | None, typer.Option(help="Write JUnit XML to this file.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write a summary for a pull request to this file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")] = False,
) -> None:
    """Compare results with a baseline; exit 1 if a metric moved for the worse beyond its tolerance."""
    from dataclasses import asdict

    from driftsim import checking
    from driftsim.grid import load_grid
    from driftsim.report import dumps, without_nan

    if update:
        if not reason.strip():
            raise ValueError("--update needs --reason WHY: a baseline says why it is what it is")
        old = checking.load_baseline(baseline) if baseline.exists() else None
        if grid is None and old is None and not captured:
            raise ValueError("--update of a new baseline needs GRID.toml, or --captured TRACE")
        made = _new_baseline(baseline, old, load_grid(grid) if grid else None, store, captured, reason, tolerance, jobs)
        made.save(baseline)
        typer.echo(f"{baseline}: {len(made.runs)} runs and {len(made.captured)} groups of captured ones")
        return
    known = checking.load_baseline(baseline)
    if grid is not None and not known.runs:
        raise ValueError(f"{baseline}: holds no simulated run; make it with --update")
    rows = {}
    if known.runs:
        specs = {entry.name: checking.spec_of(entry, baseline.parent) for entry in known.runs}
        rows = _results(list(specs.values()), store, jobs, names=list(specs))
    found = checking.moves(known, rows)
    if captured:
        found = sorted([*found, *checking.captured_moves(known, _captured(captured))], key=lambda move: -move.worse)
    elif known.captured and not known.runs:
        raise ValueError("the baseline holds captured runs only; give their counterparts with --captured TRACE")
    if junit is not None:
        junit.write_text(checking.junit(found))
    told = checking.markdown(found, known.reason)
    if markdown is not None:
        markdown.write_text(told)
    regressions = [move for move in found if move.verdict == "regression"]
    if as_json:
        document = [asdict(move) | {"change": move.change, "verdict": move.verdict} for move in found]
        typer.echo(dumps(without_nan({"moves": document, "regressions": len(regressions), "reason": known.reason})))
    else:
        _print_moves(found)
    if regressions:
        worst = regressions[0]
        raise RunError(
            f"{len(regressions)} regressions; the worst: {worst.metric} of {worst.run}, {100 * worst.change:+.2f} %"
        )


def _print_moves(found: list[Move]) -> None:
    from rich.console import Console

    moved = [move for move in found if move.verdict != "same"]
    if moved:
        console = Console(highlight=False)
        console.width = max(console.width, TABLE_WIDTH)
        lines = [
            [move.run, move.metric, f"{move.then:.6g}", f"{move.now:.6g}", f"{100 * move.change:+.2f} %",
             f"{100 * move.tolerance:g} %", move.verdict]
            for move in moved[:40]
        ]  # fmt: skip
        headings = ["run\n", "metric\n", "baseline\n", "now\n", "change\n", "tolerance\n", "verdict\n"]
        print_table(console, "What moved, worst first", headings, lines)
    counts = {name: sum(move.verdict == name for move in found) for name in ("regression", "improvement", "same")}
    typer.echo(f"{counts['regression']} regressions, {counts['improvement']} improvements, {counts['same']} unchanged")


def _results(specs: list[Spec], store: Path | None, jobs: int, names: list[str]) -> dict[str, dict[str, Any]]:
    """The row of each spec, by name: from the store where it has it, else run now."""
    import tempfile

    from driftsim.store import Store
    from driftsim.sweep import plan, spec_key
    from driftsim.sweep import sweep as run_sweep

    tasks, inputs = plan(specs)
    with tempfile.TemporaryDirectory() as aside, Store.open(store or Path(aside) / "store", create=True) as opened:
        with watching() as watch:
            run_sweep(tasks, inputs, opened, jobs=jobs, watch=watch)
        rows = {str(row["key"]): row for row in opened.table().to_dict("records")}
    keys = [spec_key(spec, inputs) for spec in specs]
    return {name: rows[key] for name, key in zip(names, keys, strict=True)}


def _new_baseline(
    file: Path,
    old: Baseline | None,
    specs: list[Spec] | None,
    store: Path | None,
    captured: list[Path] | None,
    reason: str,
    tolerance: float | None,
    jobs: int,
) -> Baseline:
    from driftsim.checking import GATED, SIMULATED, Baseline, Captured, Entry, spec_of

    if specs is None:
        specs = [spec_of(entry, file.parent) for entry in old.runs] if old else []
    entries = []
    if specs:
        names = _names(specs)
        rows = _results(specs, store, jobs, names)
        for name, spec in zip(names, specs, strict=True):
            row = rows[name]
            if row["failed"]:
                raise ValueError(f"run {name!r} failed ({row['error']}); a baseline needs results")
            plain = spec.model_dump(mode="json", exclude_defaults=True)
            for place in ("trace", "profile"):
                if plain.get(place):
                    plain[place] = os.path.relpath(plain[place], file.resolve().parent)
            metrics = {metric: float(row[metric]) for metric in GATED if row[metric] == row[metric]}
            entries.append(Entry(name=name, key=row["key"], scenario=plain, metrics=metrics))
    groups = [Captured(name=name, metrics=metrics) for name, metrics in _captured(captured).items()] if captured else []
    return Baseline(
        reason=reason,
        tolerance=tolerance if tolerance is not None else old.tolerance if old else SIMULATED,
        tolerances=old.tolerances if old else {},
        runs=entries,
        captured=groups or (old.captured if old else []),
    )


def _names(specs: list[Spec]) -> list[str]:
    """What tells the runs apart, in words."""
    flat = []
    for spec in specs:
        plain = spec.model_dump(mode="json")
        plain |= {f"admission.{name}": value for name, value in plain.pop("admission").items()}
        flat.append({name: str(value) for name, value in plain.items()})
    differing = [name for name in flat[0] if len({one[name] for one in flat}) > 1] or ["policy"]
    return [
        ", ".join(one[name] if name in ("policy", "estimator") else f"{name} {one[name]}" for name in differing)
        for one in flat
    ]


def _captured(folders: list[Path]) -> dict[str, dict[str, list[float]]]:
    """The metrics of captured runs, repeats of one run together, in order of capture."""
    from driftsim.admission import Admission
    from driftsim.checking import GATED
    from driftsim.metrics import summary
    from driftsim.trace import read

    runs = sorted((read(folder) for folder in folders), key=lambda trace: trace.header.captured_at or "")
    found: dict[str, dict[str, list[float]]] = {}
    for trace in runs:
        told = trace.header.admission
        name = f"{told.get('policy', 'stock')}/{told.get('estimator', 'static')} of {trace.header.workload.name}"
        admission = Admission(**{key: told[key] for key in Admission.model_fields if key in told})
        row = summary(trace, admission)
        for metric in GATED:
            if row[metric] == row[metric] and row[metric] > 0:
                found.setdefault(name, {}).setdefault(metric, []).append(float(row[metric]))
    return found


def conformance(
    name: Annotated[str, typer.Argument(help="module:Class, path/to/file.py:Class, or a name that driftsim knows.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")] = False,
) -> None:
    """Hold a policy or an estimator of your own to the laws that ours are held to."""
    from driftsim.conformance import verdicts
    from driftsim.report import dumps

    kind, found = verdicts(name)
    broken = [verdict for verdict in found if verdict.seen]
    if as_json:
        rows = [{"law": verdict.law, "holds": not verdict.seen, "seen": verdict.seen} for verdict in found]
        typer.echo(dumps({"name": name, "kind": kind, "laws": rows}))
    else:
        typer.echo(f"{name}, {'a policy' if kind == 'policy' else 'an estimator'}")
        for verdict in found:
            told = f"FAILS  {verdict.law}: {verdict.seen}" if verdict.seen else f"holds  {verdict.law}"
            typer.echo(f"  {told}")
    if broken:
        raise RunError(f"{len(broken)} of {len(found)} laws do not hold for {name}")
