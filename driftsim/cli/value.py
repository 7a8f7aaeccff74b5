"""The verb ``value``: is predicting output lengths worth it, when, and how good must it be."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from driftsim.cli.arrivals import ArrivalSetting, Cv, Think, process_at_one
from driftsim.cli.options import AsJson, Jobs, names, refuse
from driftsim.cli.pressing import (
    Address,
    CoolDown,
    LoadArrivals,
    MaxInFlight,
    OptionalProfile,
    Pressed,
    PressedRequests,
    Replications,
    Seed,
    StoreFolder,
    TableMapping,
    TiersText,
    WarmUp,
)  # fmt: skip
from driftsim.cli.terminal import progress, say, say_document, wide_console
from driftsim.errors import InputError


def value(
    context: typer.Context,
    what: Pressed,
    policies: Annotated[
        str | None,
        typer.Option(help="Comma-separated, that go by predicted lengths [default: sjf,cost-sjf,wspt,boost,srpt]."),
    ] = None,
    estimators: Annotated[
        str | None,
        typer.Option(help="Comma-separated, to place on the curve [default: static,ema,pooled,prompt,regression]."),
    ] = None,
    sigmas: Annotated[
        str | None,
        typer.Option(
            metavar="S,S,...",
            help="Noise on the truth: spread of the logarithm of an estimate; 0 always [default: 0,0.25,0.5,1,2,4].",
        ),
    ] = None,
    loads: Annotated[
        str | None,
        typer.Option(
            metavar="L,L,...", help="Shares of the rate at which a backlog is served [default: 0.3,0.6,0.9,1.1]."
        ),
    ] = None,
    limits: Annotated[
        str | None,
        typer.Option(help="What binds, on variants of the engine, comma-separated [default: slots,kv,prefill]."),
    ] = None,
    margin: Annotated[float, typer.Option(help="Relative change of the mean latency that matters to nobody.")] = 0.05,
    mapping: TableMapping = None,
    profile: OptionalProfile = None,
    arrivals: LoadArrivals = None,
    cv: Cv = 3.0,
    think: Think = 0.0,
    arrival_setting: ArrivalSetting = None,
    requests: PressedRequests = None,
    max_in_flight: MaxInFlight = None,
    tiers: TiersText = None,
    replications: Replications = 10,
    warm_up: WarmUp = 0.1,
    cool_down: CoolDown = 0.05,
    seed: Seed = None,
    jobs: Jobs = 0,
    address: Address = None,
    store: StoreFolder = None,
    as_json: AsJson = False,
    out: Annotated[Path | None, typer.Option(help="Folder for value.csv, beyond.csv, value.json, figure.")] = None,
) -> None:
    """Tell what predicting output lengths is worth: by error, by load, by what binds, against FIFO."""
    from driftsim import valuing
    from driftsim.files import check_apart, check_place
    from driftsim.formats.imports import import_trace
    from driftsim.formatting import dumps
    from driftsim.worth.plan import LIMITS, LOADS, SIGMAS
    from driftsim.worth.result import FILES, MARK

    if address is not None:
        refuse(context, "the cluster has its own workers", "jobs")
    process = process_at_one(context)
    check_apart(out, [what])
    if out is not None:
        check_place(out, FILES, MARK)  # before the runs, not after them
    bound: Any = LIMITS if limits is None else names(limits)
    with progress("runs") as reporter:
        result = valuing.value(
            what if mapping is None else import_trace(what, mapping=mapping),
            profile,
            policies=None if policies is None else names(policies),
            estimators=None if estimators is None else names(estimators),
            sigmas=SIGMAS if sigmas is None else _numbers("--sigmas", sigmas, "0,0.5,1,2"),
            loads=LOADS if loads is None else _numbers("--loads", loads, "0.3,0.6,0.9"),
            limits=bound,
            margin=margin,
            arrivals=process,
            requests=requests,
            replications=replications,
            warm_up=warm_up,
            cool_down=cool_down,
            max_in_flight=max_in_flight,
            tiers=() if tiers is None else tiers,
            seed=seed,
            jobs=jobs,
            address=address,
            store=store,
            progress=reporter.update,
        )
        if out is not None:
            result.write(out)
    if as_json:
        say_document(dumps(result.document()))
    else:
        result.show(wide_console())
    if out is not None:
        say(f"written: {out / 'value.svg'} and .png, value.csv, beyond.csv, value.json", err=True)


def _numbers(option: str, text: str, example: str) -> list[float]:
    """The numbers in a comma-separated list. Raises ``InputError`` for what is none."""
    found = []
    for one in names(text):
        try:
            found.append(float(one))
        except ValueError:
            raise InputError(f"{option}: {one!r:.40} is no number; write them as {example}") from None
    return found
