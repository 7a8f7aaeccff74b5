"""Options that several verbs share; choices are the ``Literal`` types of the values themselves."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from driftsim.errors import InputError
from driftsim.scheduling.names import Place

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
ProfileFile = Annotated[Path, typer.Option(help="File of the profile to write.")]
IS_PROFILE = re.compile(r'\s*\{\s*"schema_version": \d+,\s*"model": .*"intercept_s": ', re.DOTALL).match
AllowPlugins = Annotated[
    list[Path] | None,
    typer.Option("--allow-plugins", help="Folder of code that a trace or a baseline may name; else none of it is run."),
]


def _slo(told: str) -> Any:
    return typer.Option("--slo", metavar="[NAME:]LIMIT=TIME,...", help=told)


Slo = Annotated[
    list[str] | None,
    _slo(
        "Limits on latencies of a tenant or tier, premium:ttft=1s,tpot=50ms,e2e=30s; itl, too; without NAME, "
        "everybody's. Repeat it [default: the trace's own].",
    ),
]
SlosOfTrace = Annotated[
    list[str] | None,
    _slo(
        "What the requests of a tenant or tier are promised, premium:ttft=1s,tpot=50ms,e2e=30s; without NAME, "
        "everybody's. The trace keeps it, and is judged by it. Repeat it.",
    ),
]
Timeouts = Annotated[
    list[str] | None,
    typer.Option(
        "--timeout",
        metavar="[NAME:]TIME",
        help="How long clients of a tenant or tier wait for the end of an answer, premium:30s; without NAME, all. "
        "Repeat it [default: as the trace says].",
    ),
]
RetriesOption = Annotated[
    int | None,
    typer.Option(
        "--retries",
        min=0,
        max=20,
        help="How often a client sends a request again that timed out or was turned away, after 0.5, 1, 2 ... 8 s "
        "[default: as the trace says].",
    ),
]
ShedOption = Annotated[
    list[str] | None,
    typer.Option(
        "--shed",
        metavar="[NAME:]LIMIT=VALUE,...",
        help="Limits of the queue, beyond which newcomers are turned away: requests=200,tokens=50000,wait=5s; of a "
        "tenant or tier, batch:wait=5s; defer=5s tells them when to come again. Repeat it.",
    ),
]
ReplicaCount = Annotated[
    int | None, typer.Option("--replicas", min=1, max=1000, help="Engines that share the load [default: 1].")
]
RouterName = Annotated[
    str | None,
    typer.Option(
        "--router",
        help="Who serves what: least-requests, least-work, round-robin, random, two-choices, session, prefix, or yours "
        "[default: least-requests].",
    ),
]
RouterPlace = Annotated[
    str | None,
    typer.Option(
        "--router-place",
        metavar="behind|front",
        help="Behind the dispatcher, with one queue; or in front of one for each replica [default: behind].",
    ),
]
ONE_ENGINE = "one engine leaves nothing to route; --replicas 2 makes two"
Failing = Annotated[
    list[str] | None,
    typer.Option(
        "--fail",
        metavar="REPLICA:at=TIME[,back=TIME]",
        help="A replica, from 0, fails then and comes back; what it held begins again elsewhere. Repeat it.",
    ),
]
PlaceOption = Annotated[
    Place,
    typer.Option(
        "--place",
        help="Where policies stand: in front of the engine; as its integer priority, for a key that is fixed when a "
        "request comes; or inside it, where they may preempt.",
    ),
]
IdleWatts = Annotated[
    float | None, typer.Option("--idle-watts", help="Power of an engine that serves nobody [default: as recorded].")
]
BusyWatts = Annotated[
    float | None, typer.Option("--busy-watts", help="Power of an engine that serves [default: as recorded].")
]
Price = Annotated[float | None, typer.Option("--price-per-hour", help="Price of an engine for an hour, busy or not.")]
Drift = Annotated[
    list[str] | None,
    typer.Option(
        "--drift",
        metavar="[KIND:]KEY=VALUE:...",
        help="Change the requests from a time on: tenant=a:factor=2:at=600s, or at=50%; kinds: step, ramp, season, "
        "mix, model, caps, words. Repeat it.",
    ),
]
Fairness = Annotated[
    bool,
    typer.Option(
        "--fairness",
        help="Tell how much each tenant was slowed down against being alone, and what service it got.",
    ),
]
Jobs = Annotated[int, typer.Option(min=0, help="Local processes; 0: one a core.")]


def replicas_of(count: int | None, router: str | None, place: str | None, fail: list[str] | None) -> dict[str, Any]:
    """The keys of ``Replicas`` that were asked for."""
    asked = {"count": count, "router": router, "place": place, "failures": fail or None}
    return {name: value for name, value in asked.items() if value is not None}


def costs_of(idle: float | None, busy: float | None, price: float | None) -> dict[str, float]:
    """The keys of ``Costs`` that were asked for."""
    asked = {"idle_watts": idle, "busy_watts": busy, "price_per_hour": price}
    return {name: value for name, value in asked.items() if value is not None}


def refuse(context: typer.Context, why: str, *parameters: str) -> None:
    """Raise ``InputError`` if one of ``parameters`` was given on the command line, though it does nothing there.

    ``why`` says what makes it do nothing.
    """
    for parameter in context.command.params:
        if parameter.name in parameters and was_given(context, parameter.name or ""):
            name = parameter.opts[0] if parameter.param_type_name == "option" else parameter.opts[0].upper()
            raise InputError(f"{name} does nothing here: {why}; drop it")


def was_given(context: typer.Context, parameter: str) -> bool:
    """Whether the user gave ``parameter``, be it with the value that is its default."""
    source = context.get_parameter_source(parameter)
    return source is not None and source.name != "DEFAULT"


def others(context: typer.Context, *kept: str) -> list[str]:
    """The parameters of the verb but those ``kept``."""
    return [parameter.name for parameter in context.command.params if parameter.name and parameter.name not in kept]


def names(listed: str) -> list[str]:
    """The names in a comma-separated list.

    >>> names("fifo, sjf")
    ['fifo', 'sjf']
    """
    return [name.strip() for name in listed.split(",")]


def argument(option: str, text: str, example: str) -> tuple[str, Any]:
    """Name, in Python's spelling, and value of ``text``, NAME=VALUE, as ``setting`` reads it."""
    name, value = setting(option, text, example)
    return name.strip("-").replace("-", "_"), value


def setting(option: str, text: str, example: str) -> tuple[str, Any]:
    """Name and value of ``text``, NAME=VALUE; the value is JSON where it reads as such, else text."""
    from driftsim.records import parsed_json

    name, sign, value = text.partition("=")
    if not sign or not name.strip("-"):
        raise InputError(f"{option} {text!r}: expected NAME=VALUE, {example} for instance")
    try:
        parsed = parsed_json(value)
    except ValueError:
        parsed = {"true": True, "false": False}.get(value.lower(), value)
    return name, parsed
