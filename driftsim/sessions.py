"""What became of sessions: how long each took as a whole, which were cut short, and how latencies change by turn.

A session is all requests of one ``session``. Its time runs from the arrival of its first turn to the last finish; in
its gaps none of its turns is under way: the user thinks, or a tool works.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from driftsim.errors import TraceError
from driftsim.trace.schema import FINISHED
from driftsim.trace.trace import Trace
from driftsim.trace.turns import session_names, turn_numbers

FEW_TURNS = 4  # turns that a printed line tells, the later ones in bands
PERCENTILES = (50, 99)
TIMES = {"session": "time_s", "session_active": "active_s"}  # the metrics of a whole session, and their columns


def has_sessions(table: pd.DataFrame) -> bool:
    """Whether any request of the table belongs to a session."""
    return "session" in table and bool(table["session"].notna().any())


def session_table(trace: Trace, phase: str = "all") -> pd.DataFrame:
    """The sessions of ``trace``, or their turns in one ``phase``, a row each, in order of their first turn.

    Indexed by the session's name. tenant, tier: of its first turn. turns: that were sent. finished: those of them that
    did. cut_short: whether one did not, so that what would have followed was never sent. begin_s, end_s: the first
    arrival and the last known finish, in seconds since the run began. time_s: between the two. active_s: the part of it
    in which at least one turn was under way, so without the gaps; prompt_tokens, output_tokens: sums over its turns.
    Raises ``TraceError`` if the trace has no sessions.

    >>> from driftsim.simulation.run import simulate
    >>> from driftsim.simulation.scenario import Scenario
    >>> from driftsim.testing import profile, workload
    >>> from driftsim.trace.header import Phase
    >>> chat = (Phase(name="chat", kind="sessions", requests=2),)
    >>> work = workload([0.0, 0.0], [3, 2], chat, session="s", parent=[[], [0]], gap_s=[0.0, 1.0])
    >>> found = session_table(simulate(Scenario(profile=profile()), work))
    >>> found.loc["s", ["turns", "time_s", "active_s"]].astype(float).round(3).tolist()
    [2.0, 1.05, 0.05]
    """
    rows = _turns(trace, phase).sort_values("arrival_s", kind="stable")

    def each(values: pd.Series) -> Any:
        return values.groupby(rows["session"], sort=False)

    done = rows["finish_reason"].isin(FINISHED)
    end = rows["finish_s"].fillna(rows["arrival_s"])
    gaps = (rows["arrival_s"] - each(each(end).cummax()).shift()).clip(lower=0.0).fillna(0.0)
    turns, finished, begin = each(done).size(), each(done).sum(), each(rows["arrival_s"]).first()
    time = each(end).max() - begin
    found = {
        "tenant": each(rows["tenant"]).first(),
        "tier": each(rows["tier"]).first(),
        "turns": turns,
        "finished": finished,
        "cut_short": finished < turns,
        "begin_s": begin,
        "end_s": begin + time,
        "time_s": time,
        "active_s": time - each(gaps).sum(),
        "prompt_tokens": each(rows["prompt_tokens"]).sum().astype("int64"),
        "output_tokens": each(rows["output_tokens"].fillna(0)).sum().astype("int64"),
    }
    return pd.DataFrame(found)


def turn_table(trace: Trace, phase: str = "all", *, bands: bool = False) -> pd.DataFrame:
    """The latencies of ``trace`` by turn number, or of one ``phase``: how they change as sessions grow.

    Indexed by turn, from 1, see ``turn_numbers``; with ``bands``, by text: each of the first turns, then 5-8, 9-16 and
    so on. requests: that were sent; finished; prompt_tokens: their mean; and mean, P50 and P99 of E2E and TTFT over
    finished requests, in seconds, NaN where there are none. Raises ``TraceError`` if the trace has no sessions.

    >>> from driftsim.simulation.run import simulate
    >>> from driftsim.simulation.scenario import Scenario
    >>> from driftsim.testing import profile, workload
    >>> from driftsim.trace.header import Phase
    >>> chat = (Phase(name="chat", kind="sessions", requests=2),)
    >>> work = workload([0.0, 0.0], [3, 2], chat, session="s", parent=[[], [0]], gap_s=[0.0, 1.0])
    >>> turn_table(simulate(Scenario(profile=profile()), work))["e2e_mean_s"].round(3).to_dict()
    {1: 0.03, 2: 0.02}
    """
    rows = _turns(trace, phase).sort_values("turn", kind="stable")
    turn = rows["turn"].map(band_of) if bands else rows["turn"]
    done = rows["finish_reason"].isin(FINISHED)
    latencies = {
        "e2e": (rows["finish_s"] - rows["arrival_s"]).where(done),
        "ttft": (rows["first_token_s"] - rows["arrival_s"]).where(done),
    }

    def each(values: pd.Series) -> Any:
        return values.groupby(turn, sort=False)

    found = {
        "requests": each(turn).size(),
        "finished": each(done).sum(),
        "prompt_tokens": each(rows["prompt_tokens"].astype(float)).mean(),
    }
    for name, values in latencies.items():
        found[f"{name}_mean_s"] = each(values).mean()
        found |= {f"{name}_p{one}_s": each(values).quantile(one / 100) for one in PERCENTILES}
    return pd.DataFrame(found).rename_axis("turn")


def band_of(turn: int) -> str:
    """The name of the band of turns that holds ``turn``.

    >>> [band_of(turn) for turn in (1, 4, 5, 8, 9, 17)]
    ['1', '4', '5-8', '5-8', '9-16', '17-32']
    """
    if turn <= FEW_TURNS:
        return str(turn)
    last = 1 << (turn - 1).bit_length()
    return f"{last // 2 + 1}-{last}"


def _turns(trace: Trace, phase: str) -> pd.DataFrame:
    """The requests that are turns of sessions, of all phases or of one, with ``turn`` numbers."""
    table = trace.requests
    if not has_sessions(table):
        raise TraceError(f"{trace.name}: no request belongs to a session: its column session is missing or empty")
    rows = table.assign(session=session_names(table), turn=turn_numbers(table))
    rows = rows[rows["session"] != ""]
    return rows if phase == "all" else rows[rows["phase"] == phase]


def session_summary(trace: Trace, phase: str = "all") -> dict[str, Any]:
    """The metrics of ``glossary.SESSIONS``, times in seconds over sessions that were not cut short.

    Empty where no request of ``trace``, or of its ``phase``, belongs to a session.
    """
    if not has_sessions(trace.requests):
        return {}
    table = session_table(trace, phase)
    if table.empty:
        return {}
    whole = table[~table["cut_short"]]
    found: dict[str, Any] = {
        "sessions": len(table),
        "sessions_cut_short": int(table["cut_short"].sum()),
        "turns_mean": float(table["turns"].mean()),
    }
    for name, column in TIMES.items():
        seconds = whole[column].to_numpy(dtype=float)
        tails = np.percentile(seconds, PERCENTILES) if len(seconds) else np.full(len(PERCENTILES), np.nan)
        found[f"{name}_mean_s"] = float(seconds.mean()) if len(seconds) else np.nan
        found |= {f"{name}_p{one}_s": float(tail) for one, tail in zip(PERCENTILES, tails, strict=True)}
    return found


def session_lines(trace: Trace, row: Mapping[str, Any], phase: str = "all") -> list[str]:
    """What the ``summary`` ``row`` of ``trace`` says of sessions, in lines; none where there are none."""
    if "sessions" not in row:
        return []
    times = [f"{name} {row[f'session_{name}_s']:.3f} s" for name in ("mean", "p50", "p99")]
    active = [f"{name} {row[f'session_active_{name}_s']:.3f} s" for name in ("mean", "p50", "p99")]
    lines = [
        f"{row['sessions']} sessions of {row['turns_mean']:.1f} turns, {row['sessions_cut_short']} cut short by a turn "
        f"that failed; the others took {', '.join(times)}; without gaps {', '.join(active)}"
    ]
    for name, label in (("ttft", "TTFT"), ("e2e", "E2E")):
        means = turn_table(trace, phase, bands=True)[f"{name}_mean_s"].dropna()
        if len(means):
            told = ", ".join(f"{turn}: {mean:.3f} s" for turn, mean in means.items())
            lines.append(f"  mean {label} by turn: {told}")
    return lines
