"""The pace of the steps at which the requests of a run last, in all, as long as they did."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from driftsim.calibration.least_squares import LEFT_OUT

TRIES = 10
MOST = 0.1  # the logarithm of the pace moves by no more at once


def no_time_left(left_out: Callable[[float], float]) -> tuple[float, float]:
    """The scale of the steps that leaves out no time, and what it leaves, relative, by the secant method.

    ``left_out``: by how much the requests lasted longer than they do where steps take a scale longer. Longer steps
    lengthen the queue as well, so the first try puts half of it back. Where none leaves so little: the best found.

    >>> scale, left = no_time_left(lambda scale: 1.05 / scale**3 - 1)
    >>> abs(left) <= LEFT_OUT, round(scale, 2)
    (True, 1.02)
    """
    known = [(0.0, left_out(1.0))]  # logarithm of the scale, and what it leaves
    for _ in range(TRIES):
        here, left = min(known, key=lambda pair: abs(pair[1]))
        if abs(left) <= LEFT_OUT:
            break
        step = left / 2
        if len(known) > 1:
            there, other = known[-1] if known[-1][0] != here else known[-2]
            if other != left:
                step = (here - there) * left / (other - left)
        known.append((here + float(np.clip(step, -MOST, MOST)), np.nan))
        known[-1] = (known[-1][0], left_out(float(np.exp(known[-1][0]))))
    here, left = min(known, key=lambda pair: abs(pair[1]))
    return float(np.exp(here)), left
