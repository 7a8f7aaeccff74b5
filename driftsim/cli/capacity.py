"""The verb ``capacity``: the highest load within SLOs, and what another engine or scheduler would add to it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from driftsim.cli.arrivals import ArrivalSetting, Cv, Think, process_at_one
from driftsim.cli.options import AsJson, Jobs, Slo, names, refuse
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

Numbers = Annotated[
    str | None, typer.Option(metavar="N,N,...", help="Values to hold against the first [default: the profile's].")
]


def capacity(
    context: typer.Context,
    what: Pressed,
    slo: Slo = None,
    target: Annotated[
        float, typer.Option(help="Share of the offered requests that must meet their SLO; 0.99 within ttft=2s: P99.")
    ] = 0.99,
    policies: Annotated[
        str | None, typer.Option(help="Comma-separated; stock is the engine's own order [default: fifo].")
    ] = None,
    estimators: Annotated[str | None, typer.Option(help="Comma-separated [default: static].")] = None,
    mapping: TableMapping = None,
    profile: OptionalProfile = None,
    arrivals: LoadArrivals = None,
    cv: Cv = 3.0,
    think: Think = 0.0,
    arrival_setting: ArrivalSetting = None,
    requests: PressedRequests = None,
    max_num_seqs: Numbers = None,
    max_num_batched_tokens: Numbers = None,
    kv_blocks: Numbers = None,
    replicas: Numbers = None,
    axis: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=V,V,...", help="The same for any key of a scenario: engine.max_model_len=2048,4096."),
    ] = None,
    max_in_flight: MaxInFlight = None,
    tiers: TiersText = None,
    replications: Replications = 20,
    lowest: Annotated[
        float | None, typer.Option(help="Load below which nothing is tried [default: by what a backlog is served at].")
    ] = None,
    highest: Annotated[
        float | None, typer.Option(help="Load above which nothing is tried [default: likewise].")
    ] = None,
    tolerance: Annotated[float, typer.Option(help="How near above the answer a load has failed, relative.")] = 0.01,
    warm_up: WarmUp = 0.1,
    cool_down: CoolDown = 0.05,
    seed: Seed = None,
    jobs: Jobs = 0,
    address: Address = None,
    store: StoreFolder = None,
    as_json: AsJson = False,
    out: Annotated[Path | None, typer.Option(help="Folder for capacity.csv, loads.csv, capacity.json, figure.")] = None,
) -> None:
    """Find the highest load within SLOs, with its interval, and what binds there; by scheduler and by engine."""
    from driftsim import planning
    from driftsim.files import check_apart, check_place
    from driftsim.formats.imports import import_trace
    from driftsim.formatting import dumps
    from driftsim.sizing.result import FILES, MARK

    if address is not None:
        refuse(context, "the cluster has its own workers", "jobs")
    process = process_at_one(context)
    check_apart(out, [what])
    if out is not None:
        check_place(out, FILES, MARK)  # before the runs, not after them
    given = {
        "engine.max_num_seqs": max_num_seqs,
        "engine.max_num_batched_tokens": max_num_batched_tokens,
        "engine.kv_blocks": kv_blocks,
        "replicas.count": replicas,
    }
    with progress("runs") as reporter:
        result = planning.capacity(
            what if mapping is None else import_trace(what, mapping=mapping),
            profile,
            slos=slo or (),
            target=target,
            policies=None if policies is None else names(policies),
            estimators=None if estimators is None else names(estimators),
            arrivals=process,
            requests=requests,
            axes=_axes(given, axis or ()),
            replications=replications,
            lowest=lowest,
            highest=highest,
            tolerance=tolerance,
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
        say(f"written: {out / 'capacity.svg'} and .png, capacity.csv, loads.csv, capacity.json", err=True)


def _axes(given: dict[str, str | None], more: list[str] | tuple[()]) -> dict[str, list[Any]]:
    """The values of each axis, by key of a scenario. Raises ``InputError`` for what is no list of values."""
    axes: dict[str, list[Any]] = {}
    for name, text in given.items():
        if text is not None:
            option = "--replicas" if name == "replicas.count" else f"--{name.partition('.')[2].replace('_', '-')}"
            axes[name] = [_whole(option, value) for value in names(text)]
    for text in more:
        key, equals, values = text.partition("=")
        if not equals or not key.strip() or not values.strip():
            raise InputError(
                f"--axis {text!r:.80}: is no axis; write KEY=VALUE,VALUE, as engine.max_model_len=2048,4096"
            )
        if key.strip() in axes:
            raise InputError(f"--axis {text!r:.80}: {key.strip()} is given twice; keep one")
        axes[key.strip()] = [_plain(value) for value in names(values)]
    return axes


def _whole(option: str, text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise InputError(f"{option}: {text!r:.40} is no whole number above 0; write them as 64,128,256")
    return int(text)


def _plain(text: str) -> Any:
    """``text`` as JSON has it, a number or a truth value; else the text."""
    try:
        return json.loads(text)
    except ValueError:
        return text
