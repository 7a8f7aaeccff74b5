"""When recorded steps were over."""

from __future__ import annotations

import math
from itertools import accumulate

import numpy as np
import pandas as pd


def step_ends(steps: pd.DataFrame) -> np.ndarray:
    """When each of ``steps``, a steps table, was over (s), (steps,).

    A duration counts from the step's start, or from the end of the step before where that is later, as with async
    scheduling: so the ends add up.

    >>> step_ends(pd.DataFrame({"start_s": [0.0, 0.5, 9.0], "duration_s": [2.0, 1.0, 0.5]})).tolist()
    [2.0, 3.0, 9.5]
    """
    rows = zip(steps["start_s"].tolist(), steps["duration_s"].tolist(), strict=True)
    ends = accumulate(rows, lambda end, row: max(end, row[0]) + row[1], initial=-math.inf)
    return np.fromiter(ends, dtype=float)[1:]
