"""The verb ``import``: another tool's run becomes a trace."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from driftsim.cli.options import SlosOfTrace
from driftsim.cli.terminal import progress, say, say_document
from driftsim.errors import InputError
from driftsim.text import for_shell

DOING = ("reading", "assembling", "checking", "writing")


def import_(
    what: Annotated[
        list[str],
        typer.Argument(
            metavar="[FORMAT] FILE", help="The file to bring in; its format is recognised if none is named."
        ),
    ],
    out: Annotated[Path | None, typer.Option(help="Folder of the trace to write; with --suggest, the file.")] = None,
    mapping: Annotated[
        Path | None, typer.Option(help="TOML, for a table: columns, durations, units, values, maps, records, engine.")
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse a file with a row that cannot be read [default: leave it out].")
    ] = False,
    result: Annotated[int | None, typer.Option(min=1, help="Which of several results in the file, from 1.")] = None,
    rate: Annotated[
        float | None, typer.Option(help="Where start times are lost: draw arrivals, requests / s (Poisson, seed 0).")
    ] = None,
    users: Annotated[
        int | None, typer.Option(min=1, help="Where start times are lost: so many users, each waiting for its answer.")
    ] = None,
    unit: Annotated[
        Literal["s", "ms"] | None, typer.Option(help="Of the times in a trace whose format leaves it open.")
    ] = None,
    hash_tokens: Annotated[
        int | None, typer.Option(min=1, help="Tokens that one of the hash_ids stands for [default: as the file tells].")
    ] = None,
    slo: SlosOfTrace = None,
    suggest: Annotated[
        bool, typer.Option("--suggest", help="Write a mapping to start from, for any table, instead of a trace.")
    ] = False,
) -> None:
    """Bring another tool's run in as a trace."""
    from driftsim.files import check_place
    from driftsim.formats.imports import import_trace

    if len(what) > 2:
        raise InputError(f"one file is brought in at a time, got {len(what) - 1}")
    *form, file = what
    if suggest:
        given = {"--mapping": mapping, "--strict": strict, "--result": result, "--rate": rate, "--users": users,
                 "--unit": unit, "--hash-tokens": hash_tokens, "--slo": slo,
                 f"the format {form[0] if form else ''}": form}  # fmt: skip
        _suggest(file, out, [name for name, value in given.items() if value])
        return
    if out is None:
        raise InputError("where to? give --out FOLDER")
    check_place(out)
    with progress("importing") as reporter:
        trace = import_trace(
            file,
            form[0] if form else None,
            mapping=mapping,
            strict=strict,
            result=result,
            rate=rate,
            users=users,
            unit=unit,
            hash_tokens=hash_tokens,
            slos=slo or (),
            progress=lambda done, stages: reporter.update(done, stages + 1, DOING[done]),
        )
        trace.write(out)
    phases = trace.header.workload.phases
    loop = f", {phases[0].kind}" if len(phases) == 1 else f" in {len(phases)} phases"
    say(f"{out}: {len(trace.requests)} requests{loop}, {len(trace.finished)} finished", err=True)
    for note in (*trace.header.caveats, *trace.header.notes):
        say(f"Note: {note}.", err=True)


def _suggest(file: str, out: Path | None, others: list[str]) -> None:
    """Print a mapping for ``file``, or write it as ``out``; ``others`` are options that would do nothing."""
    from driftsim.files import check_own, write_file
    from driftsim.formats.suggest import suggestion

    if others:
        raise InputError(f"--suggest reads a table as it is; drop {others[0]}")
    text = suggestion(Path(file))
    if out is None:
        say_document(text, nl=False)
        return
    check_own(out, "such suggestion, or was corrected since", lambda begin: text.startswith(begin))
    write_file(out, text)
    then = for_shell(["driftsim", "import", file, "--mapping", str(out)])
    say(f"{out}: a mapping to start from; read it, then {then}", err=True)
