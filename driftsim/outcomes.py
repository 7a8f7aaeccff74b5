"""What became of the requests of a run, in sentences: why nobody finished, and who was turned away."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from driftsim.errors import InputError
from driftsim.goodput import CAUSES, missed_by
from driftsim.metrics import judged
from driftsim.slo import AnySlos, slos_for
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


def within_slos(row: Mapping[str, Any]) -> str:
    """What was kept within the SLOs, in a line; ``row`` is the ``summary`` of a run that has some."""
    offered = row["slo_met"] + row["slo_missed"]
    without = f"; {row['without_slo']} have none" if row["without_slo"] else ""
    if not offered:
        return f"Within the SLOs: no request has one{without}"
    missed = ", ".join(f"{cause} {row[f'missed_{cause}']}" for cause in CAUSES if row[f"missed_{cause}"])
    told = f"{row['slo_met']} of {offered} requests ({100 * row['attainment']:.1f} %)"
    rates = f"goodput {row['goodput']:.3g} requests/s, {row['token_goodput']:.4g} output tokens/s"
    return f"Within the SLOs: {told}; {rates}" + (f"; missed: {missed}" if missed else "") + without


def slo_outcomes(trace: Trace, slos: AnySlos | None = None) -> pd.DataFrame:
    """Each offered request: its SLO, whether it met it, and by which limits it missed it; indexed by request id.

    slos: by default those of the trace's header. ``slo`` and ``missed_by`` are texts, ``met`` is missing where a
    request has no SLO. Raises ``InputError`` for what is no SLO of these requests, and where there is none at all.

    >>> from driftsim.trace.trace import read
    >>> slo_outcomes(read("traces/smollm2-cpu-drift"), "premium:ttft=20s").loc["r00000"].to_dict()
    {'tenant': 'premium', 'tier': 'premium', 'slo': 'premium:ttft=20s', 'met': True, 'missed_by': ''}
    """
    rules = trace.header.slos if slos is None else slos_for(slos, trace.requests)
    found = judged(trace, rules)
    if found is None:
        raise InputError(f"{trace.name}: has no SLO to hold its requests against; give slos")
    names = np.array([*map(str, rules), ""], dtype=object)
    met = pd.array(found.met, dtype="boolean")
    met[~found.has] = pd.NA
    rows = trace.requests[["request_id", "tenant", "tier"]]
    told = {"slo": names[found.rule], "met": met, "missed_by": [missed_by(code) for code in found.codes.tolist()]}
    return rows.assign(**told).set_index("request_id")
