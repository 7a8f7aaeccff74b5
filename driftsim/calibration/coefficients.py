"""How sure the fit is of each coefficient, and which it cannot tell apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from driftsim.calibration.form import Form
from driftsim.calibration.least_squares import Rows, Solution, quality, unidentified
from driftsim.calibration.residuals import Residuals, noise_covariance
from driftsim.latency.noise import Noise
from driftsim.latency.profile import Region
from driftsim.latency.uncertainty import Uncertainty

MATTERS = 0.05  # of the mean duration, the share from which on a term's uncertainty is worth a warning
SINGULAR = 1e-10  # of the largest eigenvalue, below which a combination of terms is not seen at all
FEWEST_FREEDOM = 3  # degrees, below which Student's t has no variance
REMEDY = {
    "prefill_token": "capture prompts of several lengths",
    "decode_request": "capture another run at another load",
    "context_token": "capture longer or shorter prompts and outputs at the same load",
    "prefill_attention": "capture longer prompts",
    "prefill_step": "capture prompts of several lengths",
}


def identified_terms(form: Form, rows: Rows, warnings: list[str]) -> tuple[Form, Rows]:
    """Without the terms that the rows cannot tell from the others; each is named, with what would tell it."""
    lost = unidentified(rows, form.terms)
    for term in lost:
        constant = bool(rows.columns[:, form.terms.index(term)].any())
        why = "cannot be told from the terms before it" if constant else "was never needed"
        warnings.append(f"{term}_s {why} and is taken as 0: {REMEDY.get(term, 'capture a longer run')}")
    kept = [place for place, term in enumerate(form.terms) if term not in lost]
    columns = [*kept, *range(len(form.terms), rows.columns.shape[1])]
    return replace(form, terms=tuple(form.terms[place] for place in kept)), replace(
        rows, columns=rows.columns[:, columns]
    )


def joint_uncertainty(
    terms: Sequence[str], rows: Rows, solution: Solution, left: Residuals | None = None, noise: Noise | None = None
) -> Uncertainty:
    """How sure ``solution`` is of all columns of ``rows``, whose keys in a profile are ``terms``.

    Two estimates of the variance of each coefficient are made, and the larger stands: one from ten long blocks of
    time, and, where the ``noise`` of steps is known, one from what it leaves of ``left``, their residuals. Noise that
    lasts as long as a block hides from the first; what is no noise, such as a wrong form, may hide from the second.
    Student's t has a degree of freedom less than there are blocks.
    """
    matrix = rows.columns * solution.weights[:, None]
    gram = matrix.T @ matrix
    covariance, freedom = _from_blocks(matrix, rows.duration * solution.weights, rows.tenth)
    if left is not None and noise is not None:
        modelled = noise_covariance(left, noise)
        variances = np.diag(modelled)
        if (variances > 0).all():
            wider = np.sqrt(np.maximum(np.diag(covariance), variances) / variances)
            covariance = modelled * np.outer(wider, wider)
    return Uncertainty.around(terms, covariance, gram / len(matrix), freedom)


def _from_blocks(matrix: np.ndarray, target: np.ndarray, block: np.ndarray) -> tuple[np.ndarray, int]:
    """The delete-one-block jackknife of least squares, (terms, terms) in s^2, and its degrees of freedom.

    Of the ways to find intervals from few blocks it is among the best (MacKinnon, Nielsen and Webb 2023, Journal of
    Applied Econometrics 38, CV3). A term that one block alone tells of is 0 without it, and so as uncertain as large.
    """
    names = np.unique(block)
    scale = np.sqrt(np.maximum((matrix**2).sum(axis=0), 1e-300))
    scaled = matrix / scale
    grams = np.array([scaled[block == name].T @ scaled[block == name] for name in names])
    moments = np.array([scaled[block == name].T @ target[block == name] for name in names])
    without = [
        np.linalg.pinv(grams.sum(axis=0) - gram, rcond=SINGULAR, hermitian=True) @ (moments.sum(axis=0) - moment)
        for gram, moment in zip(grams, moments, strict=True)
    ]
    apart = (np.array(without) - np.mean(without, axis=0)) / scale
    count = len(names)
    return (count - 1) / count * apart.T @ apart, max(FEWEST_FREEDOM, count - 1)


def coefficient_intervals(
    uncertainty: Uncertainty, rows: Rows, values: np.ndarray, warnings: list[str]
) -> dict[str, tuple[float, float]]:
    """Of each coefficient, centred on ``values``; a wide one that matters is a warning."""
    intervals = {}
    share = np.abs(rows.columns).mean(axis=0) / rows.duration.mean()
    for place, (name, half) in enumerate(uncertainty.half_widths().items()):
        low, high = max(0.0, float(values[place]) - half), float(values[place]) + half
        intervals[name] = (low, high)
        if high - low > values[place] and (high - low) * share[place] > MATTERS:
            remedy = REMEDY.get(name.removesuffix("_s"), "capture a longer run")
            warnings.append(f"{name} is uncertain, {low:.3g} to {high:.3g} s: {remedy}")
    return intervals


def region_of(name: str, duration: np.ndarray, fitted: np.ndarray) -> Region:
    errors = quality(duration, fitted)
    return Region(
        name=name, rows=len(duration), **{key: errors[key] for key in ("mean_absolute_percentage_error", "bias")}
    )
