"""What a comparison says of sessions: how long each setting makes them, and how latencies change by turn."""

from __future__ import annotations

import math

from driftsim.comparison.comparison import Comparison
from driftsim.comparison.plan import BASELINE, Setting
from driftsim.formatting import give_or_take
from driftsim.sessions import turn_table

LEGEND = [
    "time of a session: from the arrival of its first turn to its last finish; without gaps: the part in which one of "
    "its turns was under way; both of sessions that were not cut short by a turn that failed"
]
VERSUS = "vs fifo/static"
HEADINGS = [
    "policy", "estimator", "sessions", "cut short", "time mean (s)", VERSUS, "time P99 (s)", VERSUS,
    "without gaps mean (s)", "P99 (s)",
]  # fmt: skip


def told(comparison: Comparison) -> bool:
    """Whether the requests that were compared belong to sessions."""
    return "sessions" in comparison.recorded


def table(comparison: Comparison) -> list[list[str]]:
    """Rows under ``HEADINGS``, as text: seconds of this run, changes over days like it."""
    real = {name: comparison.told(list(comparison.plan.settings), name) for name in ("session_mean_s", "session_p99_s")}
    rows = []
    for setting, *_ in comparison.groups:
        row = comparison.summaries[setting][0]
        cells = [str(row["sessions"]), str(row["sessions_cut_short"])]
        for name, moved in real.items():
            cells += [_seconds(row[name]), _versus(comparison, setting, name, setting in moved)]
        rows.append([*setting, *cells, *(_seconds(row[f"session_active_{stat}_s"]) for stat in ("mean", "p99"))])
    return rows


def _versus(comparison: Comparison, setting: Setting, metric: str, real: bool) -> str:
    """The change against FIFO/static; in brackets where it may be an accident, or is too small to matter."""
    if setting == BASELINE:
        return ""
    change = comparison.change(setting, BASELINE, metric)
    if change == (0.0, 0.0, 0.0):
        return "the same"
    text = give_or_take(change)
    return text if real or math.isnan(change.low) else f"({text})"


def by_turn(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Headings and rows, as text: the mean TTFT and E2E (s) of each setting by turn, of this run."""
    tables = {
        setting: turn_table(comparison.traces[setting], comparison.plan.phase, bands=True)
        for setting, *_ in comparison.groups
    }
    turns = list(dict.fromkeys(turn for one in tables.values() for turn in one.index))
    rows = []
    for setting, one in tables.items():
        for name, label in (("ttft", "TTFT"), ("e2e", "E2E")):
            means = one[f"{name}_mean_s"].reindex(turns)
            rows.append([*setting, f"{label} mean", *map(_seconds, means)])
    return ["policy", "estimator", "by turn (s)", *turns], rows


def _seconds(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"
