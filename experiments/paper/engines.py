"""What is left of each effect on a continuous engine: the same statistics before DriftSched's worker and without it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pandas as pd

from driftsim.statistics import mean_interval
from experiments.paper.claims import Statistic, correction, of, shortest_first


def left_on_a_continuous_engine(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """The claims that have a number, before the barrier and before a continuous engine."""
    statistics: dict[str, Callable[[str], Statistic]] = {  # each of an engine
        "correction changes the MAE (whitespace)": partial(correction, "mae", "whitespace"),
        "correction changes the MAE (tokenizer)": partial(correction, "mae", "tokenizer"),
        **{
            f"SJF changes the {label} E2E, stress (correction on)": partial(shortest_first, metric, "stress", "ema")
            for metric, label in (("e2e_p50_s", "median"), ("e2e_p99_s", "P99"))
        },
        **{
            f"SJF changes the {label} E2E, {phase}": partial(shortest_first, metric, phase, "static")
            for metric, label in (("e2e_p50_s", "median"), ("e2e_mean_s", "mean"), ("e2e_p99_s", "P99"))
            for phase in ("all", "stress")
        },
        "correction changes the median E2E of SJF (whitespace)": lambda engine: _buys(engine, "whitespace"),
        "correction changes the median E2E of SJF (tokenizer)": lambda engine: _buys(engine, "tokenizer"),
    }
    found = []
    for name, statistic in statistics.items():
        row: dict[str, Any] = {"effect": name}
        for engine in ("barrier", "continuous"):
            value, low, high = mean_interval(statistic(engine)(rows))
            row |= {engine: value, f"{engine}_low": low, f"{engine}_high": high}
        found.append(row)
    return found


def _buys(engine: str, accounting: str) -> Statistic:
    def change(rows: pd.DataFrame) -> pd.Series:
        asked = {"engine": engine, "phase": "all", "accounting": accounting, "policy": "sjf"}
        return of(rows, "e2e_p50_s", estimator="ema", **asked) / of(rows, "e2e_p50_s", estimator="static", **asked) - 1

    return change
