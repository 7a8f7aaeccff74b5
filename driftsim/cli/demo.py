"""The verb ``demo``: the comparison of the run that comes with the package."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from driftsim.cli.options import refuse
from driftsim.cli.terminal import progress, say, wide_console


def demo(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="Folder for rows.csv, figures and report.html.")] = Path("out/demo"),
    path: Annotated[bool, typer.Option("--path", help="Print where the recorded run is, and do nothing else.")] = False,
) -> None:
    """Compare the schedulers on the recorded run that comes with driftsim, and write a report."""
    from driftsim import api
    from driftsim.comparison.report import FILES, MARK
    from driftsim.files import check_place
    from driftsim.inputs import SAMPLE

    if path:
        refuse(context, "--path writes nothing", "out")
        say(str(SAMPLE.resolve()))
        return
    check_place(out, FILES, MARK)
    with progress("replaying") as reporter:
        result = api.compare(SAMPLE, progress=reporter.update)
        result.write(out)
    result.show(wide_console())
    say(f"open {out / 'report.html'}", err=True)
