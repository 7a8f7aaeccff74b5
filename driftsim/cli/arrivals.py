"""The options that say how requests arrive, which several verbs share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from driftsim.cli.options import argument, refuse, was_given
from driftsim.errors import InputError
from driftsim.workloads.kinds import ArrivalKind

if TYPE_CHECKING:
    from driftsim.workloads.processes import Process

Arrivals = Annotated[ArrivalKind | None, typer.Option(help="Instead of the workload's own [prompts: backlog].")]
Rate = Annotated[float | None, typer.Option(help="Of all but closed and backlog: requests / s.")]
Cv = Annotated[float, typer.Option(help="gamma: coefficient of variation of the gaps; above 1 is bursty.")]
Users = Annotated[int | None, typer.Option(min=1, help="closed: how many send, wait, think, send again.")]
Think = Annotated[float, typer.Option(min=0, help="closed: between an answer and the next request, s.")]
MaxOutstanding = Annotated[
    int | None, typer.Option(min=1, help="At a rate: most requests that clients have out; the others wait there.")
]
ArrivalSetting = Annotated[
    list[str] | None,
    typer.Option(help="mmpp: burst_factor, burst_s, calm_s; diurnal: amplitude, period_s. NAME=VALUE; repeat it."),
]


def process_of(context: typer.Context) -> Process | None:
    """The arrivals that the verb's options ask for, None for the workload's own.

    Raises ``InputError`` for what cannot be, and for an option that does nothing beside the others.
    """
    from driftsim.workloads.processes import Process

    options = context.params
    kind: ArrivalKind | None = options["arrivals"]
    if kind is None:
        for name in ("rate", "users", "cv", "think", "max_outstanding"):
            source = context.get_parameter_source(name)
            if source is not None and source.name != "DEFAULT":
                said = name.replace("_", "-")
                kind_of = "closed" if name in ("users", "think") else "gamma" if name == "cv" else "poisson"
                raise InputError(f"--{said} belongs to --arrivals; say which, --arrivals {kind_of} for instance")
    if kind not in ("mmpp", "diurnal"):
        refuse(context, f"{kind} arrivals have no other settings", "arrival_setting")
    if kind != "gamma":
        refuse(context, f"{kind} arrivals have no coefficient of variation to set", "cv")
    if kind != "closed":
        refuse(context, f"nobody thinks under {kind} arrivals", "think")
    if kind is None:
        return None
    pace = {name: options[name] for name in ("rate", "cv", "users", "max_outstanding")}
    more = dict(argument("--arrival-setting", text, "burst_s=5") for text in options["arrival_setting"] or [])
    return Process(kind=kind, think_s=options["think"], **{**pace, **more})


def process_at_one(context: typer.Context) -> Process | None:
    """The arrivals that the options ask for, at a load of 1. Raises ``InputError`` for an option that does nothing."""
    from driftsim.workloads.processes import Process

    options = context.params
    kind: ArrivalKind | None = options["arrivals"]
    for name, kinds in (("cv", ("gamma",)), ("think", ("closed",)), ("arrival_setting", ("mmpp", "diurnal"))):
        if kind not in kinds and was_given(context, name):
            raise InputError(
                f"--{name.replace('_', '-')} belongs to --arrivals {' or '.join(kinds)}; "
                f"{'say which' if kind is None else 'drop it'}"
            )
    if kind is None:
        return None
    if kind == "backlog":
        raise InputError("a backlog has no load: all requests are there at once; choose other --arrivals")
    pace = {"users": 1} if kind == "closed" else {"rate": 1.0}
    more = dict(argument("--arrival-setting", text, "burst_s=5") for text in options["arrival_setting"] or [])
    return Process(kind=kind, cv=options["cv"], think_s=options["think"], **{**pace, **more})
