"""What became of the requests of a run, in sentences: why nobody finished, and who was turned away."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from driftsim.errors import InputError
from driftsim.goodput import causes, missed_by
from driftsim.metrics import judged
from driftsim.slo import AnySlos, slos_for
from driftsim.trace.prefixes import endless_hits, stretches_in
from driftsim.trace.settings import EngineSettings
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


def turned_away(row: Mapping[str, Any], engine: EngineSettings) -> list[str]:
    """A warning if ``engine`` turned away requests of the run whose ``summary`` is ``row``: the others look fast."""
    if not row["rejected"]:
        return []
    others = "latencies are of the others" if row["finished"] else "nobody is left to measure"
    if "attempts" in row:  # the queue may have had no room
        return [f"{row['rejected']} of {row['requests']} requests were turned away; {others}"]
    why = "met the limits of this engine's queue, or never fit it," if engine.sheds else "never fit this engine"
    return [f"{row['rejected']} of {row['requests']} requests {why} and were rejected; {others}"]


def fates_line(row: Mapping[str, Any]) -> str:
    """How the offered requests ended, in a line, whose clients give up; ``row`` is their ``summary``.

    >>> names = ("requests", "finished", "rejected", "timed_out", "aborted", "errors", "attempts", "attempts_timed_out")
    >>> fates_line({**dict(zip(names, (9, 5, 1, 2, 0, 1, 12, 4))), "attempts_rejected": 1, "attempts_errors": 2})
    '9 requests offered: 5 finished, 1 rejected, 2 timed out, 1 with an error; 12 attempts, of which 4 timed out, \
1 rejected, 2 with an error'
    """
    ends = {"finished": "finished", "rejected": "rejected", "timed_out": "timed out", "aborted": "aborted"}
    named = ends | {"errors": "with an error"}
    told = ", ".join(f"{row[name]} {word}" for name, word in named.items() if row[name] or name == "finished")
    line = f"{row['requests']} requests offered: {told}"
    if row["attempts"] == row["requests"]:
        return line
    failed = {"timed_out": "timed out", "rejected": "rejected", "errors": "with an error"}
    parts = [f"{row[f'attempts_{name}']} {word}" for name, word in failed.items() if row[f"attempts_{name}"]]
    return f"{line}; {row['attempts']} attempts, of which {', '.join(parts)}"


def cache_line(trace: Trace) -> list[str]:
    """What the prefix cache found of the prompts of ``trace``, beside what an endless one would; a line, or none."""
    rows = trace.requests
    if "cached_tokens" not in rows or rows["cached_tokens"].isna().all():
        return []
    served = rows[rows["cached_tokens"].notna()]
    prompts = int(served["prompt_tokens"].sum())
    line = f"The prefix cache found {100 * int(served['cached_tokens'].sum()) / prompts:.1f} % of the prompt tokens"
    if "prefix_row" not in rows:
        return [line]
    whole, outputs = rows["prompt_tokens"].tolist(), rows["output_tokens"].fillna(0).astype("int64").tolist()
    most = endless_hits(whole, outputs, stretches_in(rows), trace.header.engine.block_size)
    return [f"{line}; an endless one finds {100 * int(most[rows['cached_tokens'].notna()].sum()) / prompts:.1f} %"]


def within_slos(row: Mapping[str, Any]) -> str:
    """What was kept within the SLOs, in a line; ``row`` is the ``summary`` of a run that has some."""
    offered = row["slo_met"] + row["slo_missed"]
    without = f"; {row['without_slo']} have none" if row["without_slo"] else ""
    if not offered:
        return f"Within the SLOs: no request has one{without}"
    missed = causes(row)
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
