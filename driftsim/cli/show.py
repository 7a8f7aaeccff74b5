"""The verb ``show``: what a sweep came to."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from driftsim.cli.options import AsJson, names, others, refuse, was_given
from driftsim.cli.terminal import check_file, print_table, progress, say, say_document, wide_console

if TYPE_CHECKING:
    import pandas as pd

    from driftsim.sweeps.store import Choose

MOST_LINES = 2000  # of a table that is printed
METRICS = "e2e_mean_s,e2e_p50_s,e2e_p99_s,ttft_mean_s,mae,attainment,goodput"
FAILURE = ("key", "error", "reproduce")  # what is told of a run that failed


def show(
    context: typer.Context,
    store: Annotated[Path, typer.Argument(help="Folder of a sweep's rows.")],
    where: Annotated[list[str] | None, typer.Option(help="Only rows with column=value, !=, <, <=, > or >=.")] = None,
    group: Annotated[str | None, typer.Option(help="Columns to group by; else what the sweep was over.")] = None,
    metrics: Annotated[str, typer.Option(help="Columns to show the mean of.")] = METRICS,
    pivot: Annotated[str | None, typer.Option(help="ROWS,COLUMNS: the first metric as a table of the two.")] = None,
    best: Annotated[
        str | None, typer.Option(help="The setting that is best at this metric, the least or the largest, a group.")
    ] = None,
    paired: Annotated[
        str | None, typer.Option(help="ONE/OTHER, as policy=fifo/policy=sjf: the change of every metric, paired.")
    ] = None,
    figures: Annotated[Path | None, typer.Option(help="Folder for figures: load, Pareto, heat map.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write all rows, one a run, to this file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Read what a sweep came to: a table, groups, a pivot, the best, paired differences, figures."""
    from driftsim.errors import InputError
    from driftsim.sweeps import results, rows
    from driftsim.sweeps.store import Store, every_column

    conditions = where or []
    asks_failures = rows.asks_failures(conditions)
    if asks_failures:
        kept = ("store", "where", "csv", "as_json")
        refuse(context, "--where failed=True lists the failed runs", *others(context, *kept))
    elif paired is not None:
        refuse(context, "--paired compares two settings", "group", "pivot", "best")
    elif best is not None:
        refuse(context, "--best names one setting a group", "pivot", "metrics")
    elif pivot is not None:
        refuse(context, "--pivot makes groups of its own", "group")
    if csv is not None:
        check_file(csv)  # before the rows are read, not after
    choose: Choose = every_column
    if csv is None and figures is None and paired is None:
        named = [*rows.names_in(conditions), *names(group or ""), *names(pivot or ""), best or ""]
        choose = _needed([*named, *names(metrics)] if was_given(context, "metrics") else named)
    with progress("reading rows") as reporter:
        table = Store.open(store).table(reporter.update, choose)
    chosen = rows.select(table, conditions, str(store))
    if asks_failures:
        if csv is not None:
            _write_csv(chosen, csv)
        _print_failures(chosen, as_json)
        return
    done = chosen[~chosen["failed"].astype(bool)]
    listed = [name for name in names(metrics) if name and (name in done or was_given(context, "metrics"))]
    if not listed:
        raise InputError(f"--metrics {metrics}: names no column of {store}; driftsim columns metrics lists them")
    view = results.view(done, listed, names(group) if group else [], pivot=pivot, best=best, paired=paired)
    if csv is not None:
        _write_csv(chosen, csv)  # now that nothing can be refused any more
    if figures is not None:
        from driftsim.sweeps.figures import save_figures

        save_figures(done, figures)
    shown = [*map(str, view), *(names(pivot) if pivot else [])]
    averaged = [] if paired is not None else results.averaged_over(done, shown)
    if as_json:
        _print_json(view, done, averaged)
        return
    _print(view)
    if best is not None:
        _print_about_best(best, view)
    _print_about(done, averaged)
    failed = int(table["failed"].astype(bool).sum())
    say(f"{len(chosen)} of {len(table)} runs" + (f"; {failed} failed: --where failed=True" if failed else ""))


def _needed(named: list[str]) -> Choose:
    """Which columns of a store are read, where the command names the columns ``named``: others take time and memory."""
    from driftsim.sweeps.rows import needed

    def choose(columns: Mapping[str, bool]) -> Collection[str]:
        usual = [name for name in (*names(METRICS), *FAILURE) if name in columns]
        return needed(columns, [*filter(None, named), *usual])

    return choose


def _write_csv(rows: pd.DataFrame, file: Path) -> None:
    """Write ``rows``, one a run; a number that is not finite is an empty cell."""
    from math import inf

    from driftsim.files import check_own, write_file
    from driftsim.text import for_csv

    check_own(file, "table of a store", lambda begin: {"key", "failed"} <= {*begin.split("\n")[0].split(",")})
    cells = rows.replace([inf, -inf], None)
    write_file(file, cells.rename(columns=for_csv).map(for_csv).to_csv(index=False))


def _print_failures(rows: pd.DataFrame, as_json: bool) -> None:
    """Each failed run: its key, its error, and the line that runs it again."""
    from driftsim.formatting import dumps

    told = rows.reindex(columns=list(FAILURE)).astype(object)
    failures = told.where(told.notna(), "").to_dict("records")
    if as_json:
        say_document(dumps({"rows": failures}))
        return
    for row in failures:
        say(f"{row['key']}  {row['error']}", *(f"    {command}" for command in [row["reproduce"]] if command))


def _print_json(view: pd.DataFrame, done: pd.DataFrame, averaged: list[str]) -> None:
    """The table as one document, with the warnings of the runs ``done`` that it rests on."""
    from driftsim.formatting import dumps, without_nan
    from driftsim.sweeps import cautions

    rows = without_nan(view.astype(object).where(view.notna(), None).to_dict("records"))
    warnings = [{"text": one.text, "runs": one.runs} for one in cautions.collected(done)]
    say_document(dumps({"rows": rows, "averaged_over": averaged, "warnings": warnings}))


def _print_about_best(best: str, view: pd.DataFrame) -> None:
    """Which value of the metric ``best`` was taken, and what the column beside it counts."""
    from driftsim.sweeps.best import AS_GOOD, larger_is_better

    counted = f"; {AS_GOOD} counts other settings that the replications cannot tell from it" if AS_GOOD in view else ""
    say(f"Best is the {'largest' if larger_is_better(best) else 'least'} {best}{counted}.")


def _print_about(done: pd.DataFrame, averaged: list[str]) -> None:
    """What a reader must know of a printed table: what its means are over, and the warnings of its runs."""
    from driftsim.sweeps import cautions, rows

    if averaged:
        say(f"Means over {', '.join(averaged)} as well: --group shows them apart.")
    if untold := rows.untold(done):
        say(f"Warning: {untold} runs differ from others in what their rows do not tell; means are over these, too.")
    for line in cautions.lines(cautions.collected(done), len(done)):
        say(line)


def _print(table: pd.DataFrame) -> None:
    """Print the first ``MOST_LINES`` of ``table``: nobody reads more, and a million take minutes."""
    lines = [[_cell(value) for value in row] for row in table.head(MOST_LINES).itertuples(index=False)]
    print_table(wide_console(), "", [f"{_cell(name)}\n" for name in table], lines)
    if len(table) > MOST_LINES:
        typer.echo(f"The first {MOST_LINES:,} of {len(table):,} lines; --json prints all, --where and --group fewer.")


def _cell(value: Any) -> str:
    """A value as text; what is not there, or is no finite number, is an empty cell."""
    if isinstance(value, float):
        return f"{value:.5g}" if math.isfinite(value) else ""
    return "" if value is None or value != value else str(value)
