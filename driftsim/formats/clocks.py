"""Whether the times of a file are such as its unit and an engine allow: seconds, told finely enough."""

from __future__ import annotations

import numpy as np
import pandas as pd

from driftsim.errors import TraceError
from driftsim.metrics import tpot
from driftsim.trace.schema import FASTEST_S, FINISHED, SLOWEST_S

CLOCKS_S = 0.05  # two clocks of one file may disagree by this much
LATEST_EPOCH_S = 1e11  # the year 5138: a later moment was told in a finer unit
FINER = (("ns", 1e17), ("us", 1e14), ("ms", LATEST_EPOCH_S))  # the unit, and from where a moment is told in it
FEW_TIMES = 20  # requests, below which a grid of times may be chance
MOST_APART = 0.9  # share of the requests that come alone, above which their clock is fine enough
ON_STEP = 1e-3  # of a step: how near a time must lie
GRIDS_S = (128.0, 64.0, 60.0, 1.0, 0.1, 0.01)  # steps of coarse clocks; an epoch in single precision counts in 128 s


def refuse_unit(moment: float, unit: str, where: str) -> None:
    """Raise ``TraceError`` if ``moment``, read in ``unit`` as seconds since 1970, can only be of a finer unit."""
    if unit != "s" or moment < LATEST_EPOCH_S:
        return
    finer = next(name for name, least in FINER if moment >= least)
    raise TraceError(
        f"{where}: arrival_s is {moment:.4g}, which as seconds is after the year 5000: give its unit, as in a mapping "
        f'with units = {{ all = "{finer}" }}'
    )


def doubtful_times(rows: pd.DataFrame) -> list[str]:
    """Caveats on the times of the requests ``rows``: another unit than seconds, or a clock too coarse."""
    said = []
    pace = float(tpot(rows[rows["finish_reason"].isin(FINISHED)]).median())
    if pace > SLOWEST_S:
        said.append(
            f"an output token takes {pace:,.3g} s in the median, so its times are probably milliseconds: import with "
            'units = { all = "ms" } in a mapping'
        )
    elif 0 < pace < FASTEST_S:
        said.append(
            f"an output token takes {1e6 * pace:,.3g} us in the median, faster than any engine: its times are in "
            "another unit, its answers were not streamed, or output_tokens is no count of tokens"
        )
    if (step := coarse_step(rows["arrival_s"].to_numpy(dtype=float))) > 0:
        said.append(
            f"its arrivals are told in steps of {step:g} s: if requests that seem to come together did not, queues are "
            "simulated too long"
        )
    return said


def coarse_step(arrival: np.ndarray) -> float:
    """The step (s) of the clock that told the sorted times ``arrival`` (s), 0 if it is fine enough.

    A clock is coarse if all its times lie on its steps and requests share them, though they did not come all at once.

    >>> coarse_step(np.floor(np.arange(40) / 3)), coarse_step(np.arange(40) / 3)
    (1.0, 0.0)
    """
    gaps = np.diff(arrival)
    if len(arrival) < FEW_TIMES or np.count_nonzero(gaps) < 2 or np.mean(gaps > 0) > MOST_APART:
        return 0.0
    for step in GRIDS_S:
        steps = (arrival - arrival[0]) / step
        if np.all(np.abs(steps - np.round(steps)) < ON_STEP):
            return step
    return 0.0
