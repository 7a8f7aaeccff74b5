"""What runs of one setting say of a mean, or of a difference: the same intervals as those of ``compare``.

Runs on resamples of a recorded day say how much such days vary, however many they are (``statistics.over_days``);
independent draws of a workload come nearer to their mean as they are more.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from driftsim.statistics import Day, Interval, mean_interval, over_days, student_quantile
from driftsim.sweeps.rows import drawn

KINDS = ("local", "circular")


def draws_of(table: pd.DataFrame) -> pd.DataFrame:
    """What each run of ``table`` was drawn from: its ``day``, ``number``, ``kind`` of resample, and ``independent``."""
    plain = pd.Series(0, index=table.index)
    number = pd.to_numeric(table.get("replication", plain), errors="coerce").fillna(0)
    kind = table["resampling"].fillna("circular") if "resampling" in table else plain.map({0: "circular"})
    day = table.get("trace_digest", plain).astype(object).fillna("unknown")  # rows of a day that nobody told are one
    return pd.DataFrame({"day": day, "number": number, "kind": kind, "independent": drawn(table)})


def interval_over(values: np.ndarray, draws: pd.DataFrame) -> tuple[Interval, str]:
    """The mean of ``values``, one a run of ``draws``, with its interval, and what that rests on.

    Runs whose value is not finite are left out. Where only one kind of resamples was run, as in older stores, the
    interval is too narrow where load changes within a phase, which the words say.
    """
    known = np.isfinite(values)
    values, draws = values[known], draws[known]
    if not len(values):
        return Interval(math.nan, math.nan, math.nan), "no run has a value"
    independent = draws["independent"].to_numpy(dtype=bool)
    if independent.all() or not (draws["number"] > 0).any():
        return mean_interval(values), f"{len(values)} independent runs" if len(values) > 1 else "one run"
    if independent.any():
        return Interval(float(values.mean()), math.nan, math.nan), "traces and drawn workloads in one"
    days = [_day(values[place], draws.iloc[place]) for place in draws.groupby("day", sort=False).indices.values()]
    counted = {kind: min(len(getattr(day, kind)) for day in days) for kind in KINDS}
    if min(counted.values()) > 1:
        several = f"{len(days)} recorded days" if len(days) > 1 else "one recorded day"
        return over_days(days).interval, f"2 x {min(counted.values())} resamples of {several}"
    return _of_one_kind(values, days)


def _day(values: np.ndarray, draws: pd.DataFrame) -> Day:
    number, kind = draws["number"].to_numpy(), draws["kind"].to_numpy()
    recorded = values[number == 0]
    resampled = {name: values[(number > 0) & (kind == name)] for name in KINDS}
    return Day(float(recorded.mean()) if len(recorded) else math.nan, **resampled)


def _of_one_kind(values: np.ndarray, days: list[Day]) -> tuple[Interval, str]:
    """Around the recorded value, or the mean where there is none, as far as the resamples of a day reach."""
    spreads = [drawn.std(ddof=1) for day in days for drawn in (day.local, day.circular) if len(drawn) > 1]
    fewest = min(max(len(day.local), len(day.circular)) for day in days)
    recorded = np.array([day.recorded for day in days])
    middle = float(values.mean() if np.isnan(recorded).any() else recorded.mean())
    if not spreads or fewest < 2:
        return Interval(middle, math.nan, math.nan), "too few resamples for an interval: replications = 3 or more"
    half = student_quantile(fewest - 1) * float(np.sqrt(np.mean(np.square(spreads)) / len(days)))
    why = f"{fewest} resamples of one kind, too narrow where load changes within a phase: run resamples = both"
    return Interval(middle, middle - half, middle + half), why


def half_width(values: np.ndarray, draws: pd.DataFrame) -> float:
    """Half of the interval of the mean of ``values``; NaN where there are too few runs for one."""
    interval, _ = interval_over(values, draws)
    return (interval.high - interval.low) / 2
