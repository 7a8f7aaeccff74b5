"""The verb ``show``: what a sweep came to."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from driftsim.cli.options import AsJson, names, others, refuse
from driftsim.cli.terminal import print_table, wide_console

if TYPE_CHECKING:
    import pandas as pd

METRICS = "e2e_mean_s,e2e_p50_s,e2e_p99_s,ttft_mean_s,mae"


def show(
    context: typer.Context,
    store: Annotated[Path, typer.Argument(help="Folder of a sweep's rows.")],
    where: Annotated[list[str] | None, typer.Option(help="Only rows with column=value, !=, <, <=, > or >=.")] = None,
    group: Annotated[str | None, typer.Option(help="Columns to group by; else what the sweep was over.")] = None,
    metrics: Annotated[str, typer.Option(help="Columns to show the mean of.")] = METRICS,
    pivot: Annotated[str | None, typer.Option(help="ROWS,COLUMNS: the first metric as a table of the two.")] = None,
    best: Annotated[str | None, typer.Option(help="The setting with the least of this metric, in each group.")] = None,
    paired: Annotated[
        str | None, typer.Option(help="ONE/OTHER, as policy=fifo/policy=sjf: the change of every metric, paired.")
    ] = None,
    figures: Annotated[Path | None, typer.Option(help="Folder for figures: load, Pareto, heat map.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write all rows, one a run, to this file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Read what a sweep came to: a table, groups, a pivot, the best, paired differences, figures."""
    from driftsim.files import write_file
    from driftsim.formatting import dumps, without_nan
    from driftsim.sweeps import results
    from driftsim.sweeps.store import Store

    conditions = where or []
    asks_failures = results.asks_failures(conditions)
    if asks_failures:
        kept = ("store", "where", "csv", "as_json")
        refuse(context, "--where failed=True lists the failed runs", *others(context, *kept))
    elif paired is not None:
        refuse(context, "--paired compares two settings", "group", "pivot", "best")
    elif best is not None:
        refuse(context, "--best names one setting a group", "pivot", "metrics")
    elif pivot is not None:
        refuse(context, "--pivot makes groups of its own", "group")
    table = Store.open(store).table()
    rows = results.select(table, conditions, str(store))
    if csv is not None:
        write_file(csv, rows.to_csv(index=False))
    if asks_failures:
        _print_failures(rows, as_json)
        return
    done = rows[~rows["failed"].astype(bool)]
    listed = [name for name in names(metrics) if name]
    view = results.view(done, listed, names(group) if group else [], pivot=pivot, best=best, paired=paired)
    if figures is not None:
        from driftsim.sweeps.figures import save_figures

        save_figures(done, figures)
    if as_json:
        typer.echo(dumps({"rows": without_nan(view.astype(object).where(view.notna(), None).to_dict("records"))}))
        return
    _print(view)
    failed = int(table["failed"].astype(bool).sum())
    typer.echo(f"{len(rows)} of {len(table)} runs" + (f"; {failed} failed: --where failed=True" if failed else ""))


def _print_failures(rows: pd.DataFrame, as_json: bool) -> None:
    """Each failed run: its key, its error, and the line that runs it again."""
    from driftsim.formatting import dumps

    failures = rows[["key", "error", "reproduce"]].to_dict("records")
    if as_json:
        typer.echo(dumps({"rows": failures}))
        return
    for row in failures:
        typer.echo(f"{row['key']}  {row['error']}\n    {row['reproduce']}")


def _print(table: pd.DataFrame) -> None:
    lines = [[_cell(value) for value in row] for row in table.itertuples(index=False)]
    print_table(wide_console(), "", [f"{name}\n" for name in map(str, table)], lines)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.5g}"
    return str(value)
