"""The stored tables of the study, as documents and figures read them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from driftsim import formatting
from driftsim.statistics import Interval

HERE = Path(__file__).parent
ENGINES = {"barrier": "the barrier", "continuous": "the continuous engine"}


def table(name: str) -> pd.DataFrame:
    """A stored table."""
    return pd.read_csv(HERE / f"{name}.csv", dtype={"load": str} if name.startswith("factorial/") else None)


def documents(name: str) -> list[dict[str, Any]]:
    """A stored list."""
    found: list[dict[str, Any]] = json.loads((HERE / f"{name}.json").read_text())
    return found


def between(value: float, low: float, high: float) -> str:
    """A fraction and its interval, as percentages; without one if there is none."""
    return formatting.between(Interval(value, low, high))


def find(stored: pd.DataFrame, **asked: Any) -> pd.Series:
    """The one row of ``stored`` whose columns are as ``asked``."""
    for column, value in asked.items():
        stored = stored[stored[column] == value]
    assert len(stored) == 1, (asked, len(stored))
    return stored.iloc[0]
