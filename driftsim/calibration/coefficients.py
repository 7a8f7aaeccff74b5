"""How sure the fit is of each coefficient, and which it cannot tell apart."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from driftsim.calibration.form import Form
from driftsim.calibration.least_squares import Rows, Solution, bootstrap, quality, unidentified
from driftsim.latency.profile import Region
from driftsim.statistics import LEVEL

MATTERS = 0.05  # of the mean duration, the share from which on a term's uncertainty is worth a warning
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


def coefficient_intervals(
    form: Form, rows: Rows, solution: Solution, values: np.ndarray, warnings: list[str]
) -> dict[str, tuple[float, float]]:
    """Of each coefficient, centred on ``values``; a wide one that matters is a warning."""
    drawn = bootstrap(rows, solution, np.random.default_rng(0))
    edges = np.percentile(drawn, [50 * (1 - LEVEL), 50 * (1 + LEVEL)], axis=0) - solution.coefficients + values
    intervals = {}
    share = np.abs(rows.columns).mean(axis=0) / rows.duration.mean()
    for place, term in enumerate(form.terms):
        low, high = max(0.0, float(edges[0, place])), float(edges[1, place])
        intervals[f"{term}_s"] = (low, high)
        if high - low > values[place] and (high - low) * share[place] > MATTERS:
            remedy = REMEDY.get(term, "capture a longer run")
            warnings.append(f"{term}_s is uncertain, {low:.3g} to {high:.3g} s: {remedy}")
    return intervals


def region_of(name: str, duration: np.ndarray, fitted: np.ndarray) -> Region:
    errors = quality(duration, fitted)
    return Region(
        name=name, rows=len(duration), **{key: errors[key] for key in ("mean_absolute_percentage_error", "bias")}
    )
