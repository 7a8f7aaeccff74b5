"""Coefficients that lower the errors of simulated measures: damped Gauss-Newton, whose slopes come from simulations.

Coefficients are looked at as shares of the mean duration. So a step of the slopes is the same part of the time for all
of them, 0 among them, and none is too small to show. What the measures hardly tell stays where the descent starts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

STEP = 0.01  # share of the mean duration, by which a coefficient is moved to see what it does
DAMPING = 0.1  # error that it costs to move a coefficient by the whole mean duration from where the descent starts
SMALL = 0.02  # an error from which on measures weigh less (Huber 1964)
FARTHEST = 0.3  # share of the mean duration, the most that a coefficient moves at once
HALVINGS = 3
NOISE = 0.003  # relative, that the mean step of a run has: what is more precise counts no more

Errors = Callable[[np.ndarray], np.ndarray]  # of coefficients (s): (runs, measures)


@dataclass(frozen=True, eq=False)
class Start:
    """Where a descent starts and stays near: ``values`` (s), as the rows of simulated lives say.

    ``share``: what a second of each coefficient is of the mean duration. ``free``: which coefficients may move.
    ``spread``: how far each measure is off by chance, (runs, measures).
    """

    values: np.ndarray
    share: np.ndarray
    free: np.ndarray
    spread: np.ndarray


@dataclass(frozen=True, eq=False)
class Slopes:
    """What the measures do around a point: ``values`` (s), their ``errors`` (runs, measures), and the change of these
    with each coefficient, (runs, measures, coefficients), as shares.

    ``weights``: of the measures. ``start``: of the descent.
    """

    values: np.ndarray
    errors: np.ndarray
    slopes: np.ndarray
    weights: np.ndarray
    start: Start

    @classmethod
    def around(cls, values: np.ndarray, start: Start, errors_at: Errors) -> Slopes:
        """By moving each free coefficient in turn."""
        here = errors_at(values)
        slopes = np.zeros((*here.shape, len(values)))
        for place in np.flatnonzero(start.free):
            moved = values.copy()
            moved[place] += STEP / start.share[place]
            slopes[..., place] = np.nan_to_num(errors_at(moved) - here) / STEP
        # By Euler's theorem, what a measure does if all steps are longer; the last coefficient is no step's time.
        amplified = np.abs(slopes[..., :-1] @ (values * start.share)[:-1])
        weights = np.where(np.isnan(here), 0.0, 1 / np.hypot(np.maximum(1.0, amplified), start.spread / NOISE))
        return cls(values, here, slopes, weights, start)

    def cost(self, errors: np.ndarray) -> float:
        """The mean robust one of the ``errors`` (runs, measures), each as an error of a step's time."""
        return cost(errors, self.weights)

    def step(
        self, values: np.ndarray, errors: np.ndarray, free: np.ndarray, chosen: np.ndarray | None = None
    ) -> np.ndarray:
        """From ``values``, where the errors are ``errors``, to where the slopes say that they are least.

        What is not ``free`` becomes 0. ``chosen``: of which measures (runs, measures), all if not told.
        """
        off = np.nan_to_num(errors)
        weights = self.weights if chosen is None else self.weights * chosen
        size = np.abs(off) * weights
        weights = (weights * np.sqrt(np.minimum(1.0, SMALL / np.maximum(size, 1e-12)))).ravel()
        known = weights > 0
        slopes = self.slopes.reshape(-1, len(values))[known] * weights[known, None]
        share = self.start.share
        shares = values * share
        damping = DAMPING * np.sqrt(known.sum()) * np.eye(int(free.sum()))
        matrix = np.vstack([slopes[:, free], damping])
        target = np.concatenate(
            [slopes @ shares - off.ravel()[known] * weights[known], damping @ (self.start.values * share)[free]]
        )
        aim = nnls(matrix, target)[0]
        moved = float(np.abs(aim - shares[free]).max())
        found = np.zeros(len(values))
        found[free] = shares[free] + (aim - shares[free]) * min(1.0, FARTHEST / max(moved, 1e-12))
        return np.asarray(found / share)


def cost(errors: np.ndarray, weights: np.ndarray) -> float:
    """The weighted mean of Huber's measure of the ``errors``, as the error that all would have for it."""
    size = np.abs(np.nan_to_num(errors)) * weights
    robust = np.where(size < SMALL, size**2, 2 * SMALL * size - SMALL**2)
    return float(np.sqrt(robust.sum() / max(1, (weights > 0).sum())))


def descend(around: Slopes, free: np.ndarray, errors_at: Errors, steps: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Some ``steps`` down from where ``around`` is; the best values (s) found, and their errors.

    A step to worse is halved. Where the start has something that is not free, the first step is taken in any case.
    """
    values, errors = around.values, around.errors
    reached = np.inf if (values[~free] > 0).any() else around.cost(errors)
    for _ in range(steps):
        aim = around.step(values, errors, free)
        for _ in range(HALVINGS):
            found = errors_at(aim)
            if around.cost(found) < reached:
                break
            aim = (values + aim) / 2
        if around.cost(found) >= reached:
            break
        values, errors, reached = aim, found, around.cost(found)
    return values, errors
