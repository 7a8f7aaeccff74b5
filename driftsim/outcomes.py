"""What became of the requests of a run, in sentences: why nobody finished, and who was turned away."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from driftsim.trace.trace import Trace


def nobody_finished(trace: Trace) -> str:
    """Why nobody in ``trace`` finished, as a sentence: what became of the requests, and what the engine said of one.

    >>> from driftsim.trace.trace import read
    >>> run = read("traces/smollm2-cpu-drift")
    >>> nobody_finished(Trace(run.header, run.requests.head(2).assign(finish_reason="rejected", error="has no room")))
    'none of 2 requests finished: 2 rejected (the first: has no room)'
    """
    rows = trace.requests
    counts = rows["finish_reason"].fillna("unfinished").value_counts()
    said = rows["error"].dropna()
    why = f" (the first: {said.iloc[0]})" if len(said) else ""
    return (
        f"none of {len(rows)} requests finished: {', '.join(f'{count} {name}' for name, count in counts.items())}{why}"
    )


def turned_away(row: Mapping[str, Any]) -> list[str]:
    """A warning if requests of the run whose ``summary`` is ``row`` never fit the engine: the others look fast."""
    if not row["rejected"]:
        return []
    others = "latencies are of the others" if row["finished"] else "nobody is left to measure"
    return [f"{row['rejected']} of {row['requests']} requests never fit this engine and were rejected; {others}"]
