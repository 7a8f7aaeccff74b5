"""How far the runs of one setting spread: the interval that replications give to a mean, or to a difference."""

from __future__ import annotations

import math

import numpy as np

from driftsim.statistics import mean_half_width, student_quantile


def half_width(values: np.ndarray, resamples: np.ndarray) -> float:
    """Half of the 95 % interval of the mean of ``values``, one a run; NaN where there are too few runs for one.

    ``resamples`` marks the runs that are resamples of one recorded run. Their deviation is that of the estimate itself
    (the bootstrap's standard error), however many there are; only independent draws come nearer as they are more.
    """
    known = np.isfinite(values)
    values, resamples = values[known], resamples[known]
    if resamples.any():
        drawn = values[resamples]
        return float(student_quantile(len(drawn) - 1) * drawn.std(ddof=1)) if len(drawn) > 1 else math.nan
    return mean_half_width(values) if len(values) > 1 else math.nan
