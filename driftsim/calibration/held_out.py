"""Forms are chosen by what they simulate of time and of runs that they were not fitted to; the simplest of the best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from driftsim.calibration.descent import Slopes
from driftsim.calibration.form import Form
from driftsim.calibration.least_squares import GAIN
from driftsim.calibration.measures import MEASURES, PART_OF, PARTS

MOST_LEFT_OUT = 4  # runs in turn; of more, groups of them


@dataclass(frozen=True, eq=False)
class Candidate:
    """A form, fitted: its coefficients (s) among all there are, and its errors in each cell it was not fitted to."""

    form: Form
    free: np.ndarray
    values: np.ndarray
    around: Slopes
    cells: np.ndarray

    @property
    def error(self) -> float:
        """The mean error where it was not fitted."""
        return float(self.cells.mean())


def folds_of(requests: Sequence[int]) -> list[np.ndarray]:
    """What each fold fits, (runs, measures): the first part of every run; and all runs but some, or the later part of
    a run that is alone. ``requests``: of each run.

    >>> [fold.any(axis=1).tolist() for fold in folds_of([9, 9])]
    [[True, True], [False, True], [True, False]]
    """
    runs, width = len(requests), MEASURES + max(requests)
    early = np.zeros((runs, width), dtype=bool)
    for run, count in enumerate(requests):
        own = np.append(PART_OF, np.arange(count) * PARTS // count)
        early[run, : len(own)] = own < PARTS - 1
    folds = [early]
    if runs == 1:
        return [*folds, ~early]
    group = np.arange(runs) % MOST_LEFT_OUT
    for number in range(min(runs, MOST_LEFT_OUT)):
        folds.append(np.repeat((group != number)[:, None], width, axis=1))
    return folds


def best_of(candidates: Sequence[Candidate]) -> Candidate:
    """The simplest candidate that the best one does not beat: by ``GAIN``, and by more than the standard error."""
    best = min(candidates, key=lambda one: one.error)
    for one in sorted(candidates, key=lambda one: (len(one.form.terms) + one.form.graphs, one.error)):
        worse = one.cells - best.cells
        spread = float(worse.std(ddof=1) / np.sqrt(len(worse))) if len(worse) > 1 else 0.0
        if worse.mean() <= max(GAIN * best.error, spread):
            return one
    return best
