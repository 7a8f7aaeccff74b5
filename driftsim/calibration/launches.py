"""Which steps' times cannot be told apart, where the engine schedules ahead.

With async scheduling, vLLM launches the next step before it waits for this one (vllm/v1/engine/core.py,
``step_with_batch_queue``). A step that prefills runs outside the full CUDA graph, so that its launch may keep the host
busy for longer than the GPU is with a decode; and the host stamps the step before only afterwards. A part of the
prefill's time, which part depends on both, is then in the row of the step before. What the rows say together is sure:
they took as long as the GPU computed, or as the host launched, whichever was longer. So they are fitted as one.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from driftsim.calibration.form import Form
from driftsim.calibration.least_squares import Rows
from driftsim.trace.steps import step_ends

MOST_TOGETHER = 8  # steps; a longer chain of prefills is cut, at the cost of one step's share in so many


def together(steps: pd.DataFrame) -> np.ndarray:
    """A number for each of ``steps``, from 0: equal ones were launched while the step before was not over, to prefill.

    >>> steps = pd.DataFrame({"start_s": [0.0, 0.5, 3.0, 4.5], "duration_s": [2.0, 0.5, 2.0, 1.0],
    ...                       "prefill_tokens": [0, 7, 9, 0]})
    >>> together(steps).tolist()
    [0, 0, 1, 2]
    """
    starts = steps["start_s"].to_numpy()
    ahead = np.append(False, starts[1:] < step_ends(steps)[:-1]) & (steps["prefill_tokens"].to_numpy() > 0)
    number = np.arange(len(steps))
    place = number - np.maximum.accumulate(np.where(ahead, 0, number))  # within its chain
    return np.asarray(np.cumsum(~ahead | (place % MOST_TOGETHER == 0)) - 1)


def summed(values: np.ndarray, group: np.ndarray) -> np.ndarray:
    """The sum of the ``values`` of each ``group`` of rows, which stand beside each other; other axes stay.

    >>> summed(np.array([3.0, 1.0, 2.0]), np.array([0, 0, 1])).tolist()
    [4.0, 2.0]
    """
    return np.asarray(np.add.reduceat(values, first_of(group)))


def first_of(group: np.ndarray) -> np.ndarray:
    """The place of the first row of each ``group``."""
    return np.flatnonzero(np.diff(group, prepend=-1))


def rows_of(form: Form, steps: pd.DataFrame, group: np.ndarray, block: np.ndarray, tenth: np.ndarray) -> Rows:
    """The ``steps``, each ``group`` of them a row: what the GPU computes, or, where that takes longer, the launches."""
    first = first_of(group)
    columns, duration = summed(form.columns(steps), group), summed(steps["duration_s"].to_numpy(), group)
    if form.launched:
        prefill = summed(steps["prefill_tokens"].to_numpy(), group)
        waits = form.waits_for_the_host(columns, prefill)
        columns = np.where(waits[:, None] == (np.arange(columns.shape[1]) == columns.shape[1] - 1), columns, 0.0)
    return Rows(columns, duration, block[first], np.ones(len(first)), tenth[first])
