"""Which step a prefill's time shows in, where the engine schedules ahead.

With async scheduling, vLLM launches the next step before it waits for this one (vllm/v1/engine/core.py,
``step_with_batch_queue``). A step that prefills runs outside the full CUDA graph, so that its launch keeps the host
busy for longer than the GPU is with a decode; and the host stamps the step before only afterwards. The time of the
prefill is then in the row of the step before, whose own composition has nothing to do with it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from driftsim.calibration.form import Form
from driftsim.calibration.least_squares import Rows, blocks, solve
from driftsim.calibration.runs import Run
from driftsim.latency.steptime import TERMS
from driftsim.trace.steps import step_ends

PREFILL = ("prefill_tokens", "prefill_requests", "prefill_attention")
TERMS_TRIED = tuple(term for term in TERMS if term != "prefill_attention")


def as_launched(steps: pd.DataFrame) -> pd.DataFrame:
    """``steps`` with the prefill of each step in the row of the step before, where that was not over as it began.

    >>> steps = pd.DataFrame({"start_s": [0.0, 0.5, 3.0], "duration_s": [2.0, 0.5, 1.0], "prefill_tokens": [0, 7, 9],
    ...                       "prefill_requests": [0, 1, 1], "prefill_attention": [0.0, 28.0, 45.0]})
    >>> as_launched(steps)["prefill_tokens"].tolist()
    [7, 0, 9]
    """
    ahead = np.append(steps["start_s"].to_numpy()[1:] < step_ends(steps)[:-1], False)  # of each row: the next was begun
    moved = {}
    for name in PREFILL:
        own = steps[name].to_numpy()
        stays = np.where(np.append(False, ahead[:-1]), 0, own)
        moved[name] = stays + np.where(ahead, np.append(own[1:], 0), 0)
    return steps.assign(**moved)


def priced(runs: Sequence[Run], tables: Sequence[pd.DataFrame]) -> list[pd.DataFrame]:
    """The steps of ``runs``, each table with its prefills in the rows whose durations they explain better.

    Runs without async scheduling stay as they are. Both ways are fitted with the same terms, robustly; the smaller
    mean absolute error relative to the duration decides, for all the runs together.
    """
    asynchronous = [run.trace.header.engine.async_scheduling for run in runs]
    if not any(asynchronous):
        return list(tables)
    launched = [as_launched(table) if ahead else table for table, ahead in zip(tables, asynchronous, strict=True)]
    return min((list(tables), launched), key=_error)


def _error(tables: Sequence[pd.DataFrame]) -> float:
    steps = pd.concat(tables, ignore_index=True)
    duration, one = steps["duration_s"].to_numpy(), np.ones(len(steps))
    block = blocks(len(steps))
    rows = Rows(Form(terms=TERMS_TRIED).columns(steps), duration, block, one, block)
    return float((np.abs(solve(rows).fitted - duration) / duration).mean())
