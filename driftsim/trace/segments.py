"""A recording is a folder of traces in a row, each begun where the one before it was full; the last may go on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd

from driftsim.errors import TraceError
from driftsim.trace.schema import request_columns
from driftsim.trace.subset import taken
from driftsim.trace.tables import typed
from driftsim.trace.trace import Trace, read


def segments(folder: Path | str) -> list[Path]:
    """The traces in ``folder``, the oldest first: their names are the moments at which they began.

    >>> segments("nowhere")
    []
    """
    place = Path(folder)
    found = [one for one in place.iterdir() if (one / "header.json").is_file()] if place.is_dir() else []
    return sorted(found, key=lambda one: one.name)


def is_recording(folder: Path | str) -> bool:
    """Whether ``folder`` is no trace and holds some."""
    return not (Path(folder) / "header.json").exists() and bool(segments(folder))


def newest(folder: Path | str) -> Iterator[Trace]:
    """The traces in ``folder`` that can be read, the newest first; one that holds no request yet is left out."""
    for one in reversed(segments(folder)):
        with suppress(TraceError, OSError):  # one that is being removed, or was cut in a way that nobody can mend
            trace = read(one)
            if len(trace.requests):
                yield trace


def window(folder: Path | str, last_s: float) -> Trace:
    """What arrived in the last ``last_s`` seconds of the recording in ``folder``, as one trace, with those alone who
    have ended. Raises ``TraceError`` where nobody has.

    The traces are put together by the moments at which they began, as far as their settings are the same.
    """
    parts: list[Trace] = []
    for trace in newest(folder):
        if parts and _settings(trace) != _settings(parts[0]):
            break
        parts.append(trace)
        if _last_arrival(parts) - _begun(trace) > last_s:
            break
    if not parts:
        raise TraceError(f"{folder}: holds no trace with a request in it; record some first")
    parts.reverse()
    tables = [_shifted(trace.requests, _begun(trace) - _begun(parts[0])) for trace in parts]
    columns = request_columns({str(name) for table in tables for name in table})
    whole = pd.concat([table.reindex(columns=[column.name for column in columns]) for table in tables])
    whole = whole[whole["finish_reason"].notna()].sort_values("arrival_s", kind="stable")
    if not len(whole):
        raise TraceError(f"{folder}: no request has ended yet; record some more")
    phases = {phase.name: phase for trace in parts for phase in trace.header.workload.phases}
    header = parts[-1].header
    header = header.changed(workload=header.workload.changed(phases=tuple(phases.values())))
    return within(Trace(header, typed(whole.reset_index(drop=True), columns, str(folder))), last_s)


def within(trace: Trace, last_s: float) -> Trace:
    """What arrived in the last ``last_s`` seconds of ``trace``, whose times count from the first of it."""
    rows = trace.requests
    kept = taken(rows, np.flatnonzero(rows["arrival_s"] >= rows["arrival_s"].max() - last_s))
    kept = _shifted(kept, -float(kept["arrival_s"].min()))
    order = kept["dispatch_index"].astype("Float64").rank().astype("Int64") - 1
    counts = kept["phase"].value_counts()
    phases = [one.changed(requests=int(counts[one.name]), start_s=None) for one in trace.header.workload.phases
              if one.name in counts]  # fmt: skip
    header = trace.header.changed(
        workload=trace.header.workload.changed(phases=tuple(phases)), ended="complete", ended_why=""
    )
    return Trace(header, kept.assign(dispatch_index=order))


def _shifted(rows: pd.DataFrame, seconds: float) -> pd.DataFrame:
    times = [name for name in map(str, rows) if name.endswith("_s") and name not in ("gap_s", "timeout_s")]
    return rows.assign(**{name: rows[name] + seconds for name in times})


def _begun(trace: Trace) -> float:
    """When ``trace`` began, in seconds of the wall clock."""
    try:
        return datetime.fromisoformat(trace.header.captured_at or "").timestamp()
    except ValueError:
        raise TraceError(f"{trace.source}: its header does not tell when it began (captured_at)") from None


def _last_arrival(parts: list[Trace]) -> float:
    """When the last of those arrived who have ended, in seconds of the wall clock; before all where nobody has."""
    ended = [trace.requests["arrival_s"][trace.requests["finish_reason"].notna()].max() for trace in parts]
    known = [_begun(trace) + last for trace, last in zip(parts, ended, strict=True) if last == last]
    return max(known, default=-np.inf)


def _settings(trace: Trace) -> object:
    header = trace.header
    return header.model, header.engine, header.admission, header.max_in_flight, header.tiers
