"""Least squares for step times: non-negative, robust; blocks of time are the unit of cross-validation.

A row is something that lasted: one step, or the part of a request's life that many steps make up. Its duration is the
sum of its steps' durations, which are linear in the coefficients; so steps and requests are fitted by the same code.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from driftsim.calibration.form import Form
from driftsim.latency.uncertainty import nnls_of_gram

FOLDS = 8
OUTLIER = 5.0  # robust standard deviations, beyond which a row weighs less (Huber 1964)
ROUNDS = 12  # of reweighting
LEFT_OUT = 0.005  # share of all time that may lie in outliers before it is put back
SAME = 1e-6  # share of a column that the others leave unexplained, below which it cannot be told from them
EXACT = 1e-4  # a relative error that needs no richer form
TIES = 20  # fits, each with the hidden tokens that the one before leads to
GAIN = 0.02  # of the cross-validated error, the least that another term has to bring


@dataclass(frozen=True, eq=False)
class Rows:
    """Durations (s) of ``count`` rows, their columns (count, terms), the block of time that each belongs to, and its
    precision: the inverse of the standard deviation of its relative noise, up to a factor.

    ``tenth``: the longer block, a tenth of all time or a run if that is shorter, by which intervals are found.
    """

    columns: np.ndarray
    duration: np.ndarray
    block: np.ndarray
    precision: np.ndarray
    tenth: np.ndarray

    def only(self, chosen: np.ndarray) -> Rows:
        """The rows that are chosen."""
        return Rows(
            self.columns[chosen],
            self.duration[chosen],
            self.block[chosen],
            self.precision[chosen],
            self.tenth[chosen],
        )


@dataclass(frozen=True, eq=False)
class Solution:
    """Coefficients (s) of the columns, and what each row weighed."""

    coefficients: np.ndarray
    fitted: np.ndarray
    weights: np.ndarray


def solve(rows: Rows) -> Solution:
    """Least squares of the relative residuals, nothing negative, outliers weighed down.

    Noise grows with the duration, so residuals are relative to the fitted value, found by iterating; weights of the
    recorded value instead would bias the fit low.
    """
    weights = rows.precision / rows.duration.mean()
    fitted = np.full(len(rows.duration), -1.0)  # of nothing yet: the first fit knows of no outliers
    for _ in range(ROUNDS):
        weighted = rows.columns * weights[:, None]
        coefficients = nnls_of_gram(weighted.T @ weighted, weighted.T @ (rows.duration * weights))
        before, fitted = fitted, np.maximum(rows.columns @ coefficients, 1e-9)
        if (np.abs(fitted - before) <= 1e-8 + 1e-6 * before).all():
            break
        residual = (rows.duration / fitted - 1) * rows.precision
        spread = 1.4826 * _median(np.abs(residual - _median(residual))) + 1e-9
        huber = np.minimum(1.0, OUTLIER * spread / np.maximum(np.abs(residual), 1e-300))
        weights = np.sqrt(huber) * rows.precision / fitted
    return Solution(coefficients, fitted, weights)


def _median(values: np.ndarray) -> float:
    """The median of ``values``, none of which is NaN: NumPy's own looks for one for as long as it looks for this."""
    low, high = (len(values) - 1) // 2, len(values) // 2
    parted = np.partition(values, (low, high))
    return float((parted[low] + parted[high]) / 2)


def with_all_time(solution: Solution, duration: np.ndarray, warnings: list[str]) -> Solution:
    """``solution`` scaled so that the fitted time is the time that passed, where outliers were set aside for more.

    A fit that leaves the time of outliers out makes an engine that is faster than the one that was measured, and its
    queue shorter still. That time goes back to all rows alike; the noise has mean 1.
    """
    left_out = float(duration.sum() / solution.fitted.sum()) - 1
    if abs(left_out) <= LEFT_OUT:
        return solution
    warnings.append(time_put_back(left_out))
    scale = 1 + left_out
    return Solution(scale * solution.coefficients, scale * solution.fitted, solution.weights)


def time_put_back(left_out: float) -> str:
    """The warning that typical steps, all together, do not last as long as what was measured, and what was done."""
    less, longer = ("less", "longer") if left_out > 0 else ("more", "shorter")
    return (
        f"typical steps last {100 * abs(left_out):.1f} % {less} than what was measured in all (was the machine "
        f"disturbed?): every step is made as much {longer}, so that no time is lost"
    )


def unidentified(rows: Rows, terms: Sequence[str]) -> list[str]:
    """Terms whose columns are zero or, but for ``SAME``, a sum of those before them: no fit can tell them apart."""
    weights = 1 / rows.duration
    basis: list[np.ndarray] = []
    lost = []
    for place, term in enumerate(terms):
        column = rows.columns[:, place] * weights
        size = float(column @ column)
        rest = column
        for _ in range(2):  # twice is enough (Kahan)
            for known in basis:
                rest = rest - (known @ rest) * known
        left = float(rest @ rest)
        if size == 0 or left < SAME * size:
            lost.append(term)
        else:
            basis.append(rest / np.sqrt(left))
    return lost


def choose(rows_of: Callable[[Form], Rows], first: Form) -> tuple[Form, dict[str, float]]:
    """The simplest form, from ``first`` on, that none with one thing more beats in cross-validation.

    To beat is to lower the error by ``GAIN``, and by more than its standard error over the folds. Also returned is the
    error of every form that was looked at.
    """

    def validated(form: Form) -> tuple[Form, np.ndarray]:
        settled = at_rest(rows_of, form)
        return settled, cross_validated(rows_of(settled))

    chosen, errors = validated(first)
    considered = {str(first): _root(errors)}
    while len(errors) > 1 and chosen.richer() and _root(errors) > EXACT:
        tried = [validated(form) for form in chosen.richer()]
        considered |= {str(form): _root(best_errors) for form, best_errors in tried}
        best, best_errors = min(tried, key=lambda pair: float(pair[1].mean()))
        gain = errors - best_errors
        sure = gain.mean() > gain.std(ddof=1) / np.sqrt(len(gain))
        if not (sure and _root(best_errors) < (1 - GAIN) * _root(errors)):
            break
        chosen, errors = best, best_errors
    return chosen, considered


def at_rest(rows_of: Callable[[Form], Rows], form: Form) -> Form:
    """``form`` with the hidden tokens of its roofline and its launch, if it has any, that a fit with them leads to."""
    for _ in range(TIES):
        tied = form.tied(solve(rows_of(form)).coefficients) if form.roofline or form.launched else form
        if tied == form:
            break
        form = tied
    return form


def _root(errors: np.ndarray) -> float:
    return float(np.sqrt(errors.mean())) if len(errors) else float("nan")


def cross_validated(rows: Rows) -> np.ndarray:
    """The squared relative error, robust, in each fold of blocks that took no part in the fit; (folds,)."""
    names = np.unique(rows.block)
    folds = min(FOLDS, len(names))
    fold = np.searchsorted(names, rows.block) * folds // max(1, len(names))
    errors = []
    for number in range(folds):
        out = fold == number
        if folds < 2 or not out.any() or out.all():
            continue
        solution = solve(rows.only(~out))
        residual = rows.duration[out] / np.maximum(rows.columns[out] @ solution.coefficients, 1e-9) - 1
        weight = rows.precision[out] ** 2
        errors.append(float(np.average(np.minimum(residual**2, 0.25), weights=weight)))
    return np.array(errors)


def blocks(count: int, first: int = 0) -> np.ndarray:
    """The block of each of ``count`` successive rows, as many blocks as rows in each, numbered from ``first`` on."""
    length = max(1, round(count**0.5))
    return np.asarray(first + np.arange(count) // length)


def tenths(lengths: Sequence[int]) -> np.ndarray:
    """The long block of each row of runs with these ``lengths``, one run after another: no longer than a tenth of all.

    No block reaches over the end of a run, so there are ten, or a few more of several runs.

    >>> tenths([20]).tolist()
    [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9]
    >>> [int(tenths(lengths).max()) + 1 for lengths in ([90, 10], [50, 50, 50], [30] * 25)]
    [10, 12, 25]
    """
    total, first, numbered = sum(lengths), 0, []
    for length in lengths:
        count = -(-10 * length // total)
        numbered.append(first + np.arange(length) * count // length)
        first += count
    return np.concatenate(numbered)


def quality(duration: np.ndarray, fitted: np.ndarray) -> dict[str, Any]:
    """Mean absolute percentage error, R squared and bias of fitted durations."""
    residual = duration - fitted
    return {
        "mean_absolute_percentage_error": float(np.mean(np.abs(residual) / duration)),
        "r_squared": float(1 - residual.var() / duration.var()) if np.ptp(duration) > 1e-9 * duration.mean() else 1.0,
        "bias": float(fitted.sum() / duration.sum() - 1),
    }
