"""The header of an imported trace: how its requests came, on which engine, and what was supplied or left out."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from driftsim.errors import InputError, TraceError
from driftsim.formats.found import Found
from driftsim.trace.header import Header, Phase, Prefixes, WorkloadInfo
from driftsim.trace.loops import find_loop
from driftsim.trace.settings import EngineSettings
from driftsim.version import __version__


def header_of(found: Found, rows: pd.DataFrame, caveats: Sequence[str], prefixes: Prefixes | None = None) -> Header:
    """The header of the trace of ``rows``, which were ``found``, with ``caveats`` and what its loops add to them.

    A request that found some of its prompt in the engine's cache tells that there is one.

    Raises ``TraceError`` if no engine has the settings that were found.
    """
    file = found.source.file
    said = list(caveats)
    phases = _phases(found, rows, said)
    longest = int((rows["prompt_tokens"] + rows["output_tokens"].fillna(1)).max())
    empty = [str(name) for name in rows.columns if rows[name].isna().all()]
    try:
        told = {"enable_prefix_caching": True} if "cached_tokens" in rows and rows["cached_tokens"].max() > 0 else {}
        engine = EngineSettings.guessed({**told, **found.engine}, longest=longest)
    except InputError as error:
        raise TraceError(f"{file}: engine: {error}") from None
    return Header(
        kind="imported",
        driftsim_version=__version__,
        engine=engine,
        model=printable(found.model),
        hardware=printable(found.hardware),
        workload=WorkloadInfo(
            name=file.name,
            loop="closed" if any(phase.kind == "closed" for phase in phases) else "open",
            phases=phases,
        ),
        max_in_flight=found.max_in_flight,
        tiers=found.tiers,
        clocks=f"seconds since the first arrival, as {file.name} tells them",
        prefixes=prefixes,
        caveats=tuple(map(printable, said)),
        notes=tuple(map(printable, (*found.left_out, f"not told, and left empty: {', '.join(empty)}"))),
    )


def _phases(found: Found, rows: pd.DataFrame, caveats: list[str]) -> tuple[Phase, ...]:
    """The phases of ``rows``, each with the loop that its requests came in; what speaks of it joins ``caveats``."""
    parts = [(str(name), part) for name, part in rows.groupby("phase", sort=False)]
    lasts = [float(part["arrival_s"].iloc[-1]) for _, part in parts]
    if any(part["arrival_s"].iloc[0] < last for (_, part), last in zip(parts[1:], lasts, strict=False)):
        unused = "" if found.told.users is None else f", and the {found.told.users} users do nothing"
        caveats.append(f"its phases overlap, so that nobody can tell a loop in them{unused}: taken as open")
        return tuple(Phase(name=name, requests=len(part)) for name, part in parts)
    phases = list[Phase]()
    for (name, part), before in zip(parts, [0.0, *lasts], strict=False):
        arrival, end = (part[column].to_numpy(dtype=float) for column in ("arrival_s", "finish_s"))
        loop = found.loop or find_loop(arrival, end, found.told)
        if loop.why:
            caveats.append(loop.why if len(parts) == 1 else f"phase {name}: {loop.why}")
        pause = float(part["arrival_s"].iloc[0]) - before if phases and loop.kind != "open" else 0.0
        phases.append(
            Phase(name=name, kind=loop.kind, requests=len(part), users=loop.users, think_s=loop.think_s, pause_s=pause)
        )
    return tuple(phases)


def printable(text: str) -> str:
    """``text`` without what a terminal could not show."""
    return text if text.isprintable() else "".join(one if one.isprintable() else "?" for one in text)
