"""Options that the verbs share which press a load: what is pressed, how requests arrive, how often they are drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from driftsim.workloads.kinds import ArrivalKind

Pressed = Annotated[
    Path,
    typer.Argument(
        metavar="TRACE|WORKLOAD",
        help="Folder of a recorded trace, a file that `import` recognises, or a scenario (.toml) of either or of a "
        "drawn workload.",
    ),
]
TableMapping = Annotated[
    Path | None, typer.Option("--mapping", help="TOML: what the columns of a table are, as for `import`.")
]
OptionalProfile = Annotated[
    Path | None,
    typer.Option("--profile", help="Latency profile [default: fitted to the trace's steps, or timings]."),
]
LoadArrivals = Annotated[
    ArrivalKind | None,
    typer.Option(
        "--arrivals", help="Draw a trace's requests, and let them arrive so; the rate, or the users, is the load."
    ),
]
PressedRequests = Annotated[
    int | None,
    typer.Option("--requests", min=1, help="Of each run [default: all of the trace's; 2000 where they are drawn]."),
]
MaxInFlight = Annotated[
    int | None, typer.Option("--max-in-flight", min=1, help="Jobs inside the engine [default: its slots].")
]
TiersText = Annotated[
    str | None,
    typer.Option(
        "--tiers", help="Most urgent first: name[:weight[:safety]],... [default: the trace's own, else published]."
    ),
]
Replications = Annotated[
    int,
    typer.Option(
        "--replications", min=1, help="The day, and one less resamples of each kind; or draws of the workload."
    ),
]
WarmUp = Annotated[
    float,
    typer.Option("--warm-up", min=0, max=0.9, help="Share of the requests, the first to arrive, that does not count."),
]
CoolDown = Annotated[float, typer.Option("--cool-down", min=0, max=0.9, help="The same of the last to arrive.")]
Seed = Annotated[int | None, typer.Option("--seed", min=0, help="Of resamples and draws [default: 0].")]
Address = Annotated[str | None, typer.Option("--address", help="Of a Dask scheduler, as tcp://host:8786.")]
StoreFolder = Annotated[
    Path | None,
    typer.Option("--store", help="Folder that keeps the runs; what was killed goes on from it."),
]
