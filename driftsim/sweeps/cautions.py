"""Cautions travel with a row: what a reader must know of the run, gathered once, counted where rows are read."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import pandas as pd

from driftsim.calibration.coverage import extrapolation_warnings, mismatch_warnings
from driftsim.latency.profile import Profile
from driftsim.metrics import FEWEST_FOR_P99
from driftsim.outcomes import nobody_finished, turned_away
from driftsim.trace.trace import Trace
from driftsim.workloads.unfinished import caveats

COLUMN = "warnings"
BETWEEN = " | "  # the cautions of one row
NUMBER = re.compile(r"\d[\d,.]*\d|\d")


def joined(texts: Iterable[str]) -> str:
    """The cautions ``texts`` of one row, each once; what stands between them stands in none.

    >>> joined(["a | b", "c", "c"])
    'a|b | c'
    """
    return BETWEEN.join(dict.fromkeys(text.replace(BETWEEN, BETWEEN.strip()) for text in texts))


class Caution(NamedTuple):
    """A caution, how many runs it concerns, and whether its numbers differ between them."""

    text: str
    runs: int
    differs: bool


def of_inputs(traces: Iterable[Trace], profile: Profile) -> list[str]:
    """What holds of every run on ``traces`` with ``profile``; found once for all of them."""
    found = [text for trace in traces for text in (*caveats(trace), *mismatch_warnings(profile, trace))]
    unable = profile.engine.why_not_started
    return [*dict.fromkeys(found), *profile.warnings, *([unable] if unable else [])]


def of_run(trace: Trace, row: Mapping[str, Any], profile: Profile) -> list[str]:
    """What holds of the simulated run ``trace`` alone; ``row`` is its ``summary``."""
    gone = row["requests"] - row["finished"] - row["rejected"] - row["errors"]
    found = extrapolation_warnings(profile, trace) + turned_away(row, profile.engine)
    if gone:
        found.append(f"{gone} of {row['requests']} requests were given up by their clients; no latency is of them")
    if row["errors"]:
        found.append(f"{row['errors']} of {row['requests']} requests ended with an error; no latency is of them")
    if not row["finished"]:
        found.append("no request of the phase finished" if len(trace.finished) else nobody_finished(trace))
    elif row["p99_flagged"]:
        found.append(f"P99 rests on {row['finished']} finished requests, fewer than {FEWEST_FOR_P99}")
    return found


def collected(rows: pd.DataFrame) -> list[Caution]:
    """The cautions of ``rows``, each once, those of most runs first; what differs in its numbers only is one.

    >>> collected(pd.DataFrame({"warnings": ["3 lost | slow", "4 lost", ""]}))
    [Caution(text='3 lost', runs=2, differs=True), Caution(text='slow', runs=1, differs=False)]
    """
    if COLUMN not in rows:
        return []
    texts: dict[str, Counter[str]] = {}
    for every, runs in rows[COLUMN].dropna().astype(str).value_counts(sort=False).items():
        alike = {NUMBER.sub("#", text): text for text in str(every).split(BETWEEN) if text}
        for pattern, text in alike.items():
            texts.setdefault(pattern, Counter())[text] += int(runs)
    found = [Caution(own.most_common(1)[0][0], sum(own.values()), len(own) > 1) for own in texts.values()]
    return sorted(found, key=lambda caution: -caution.runs)


def lines(cautions: list[Caution], runs: int, most: int = 8) -> list[str]:
    """A line for each of ``cautions``, of which at most ``most`` are shown, and the number of others.

    >>> lines([Caution("slow", 2, False)], runs=3)
    ['Warning, 2 of 3 runs: slow.']
    """
    shown = [
        f"Warning, {one.runs} of {runs} runs: {one.text.rstrip('.')}{' (numbers differ)' if one.differs else ''}."
        for one in cautions[:most]
    ]
    left = len(cautions) - most
    return shown + ([f"{left} more warning{'s' * (left > 1)}: --csv FILE holds all, by run."] if left > 0 else [])
