"""A profile fitted to recorded steps: linear regression, joint over several runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import pandas as pd

from driftsim.calibration.coefficients import coefficient_intervals, identified_terms, joint_uncertainty, region_of
from driftsim.calibration.form import Form
from driftsim.calibration.guards import describes, refuse_fit, unphysical
from driftsim.calibration.launches import first_of, rows_of, summed, together
from driftsim.calibration.least_squares import Rows, at_rest, blocks, choose, quality, solve, tenths, with_all_time
from driftsim.calibration.noise_fit import fit_noise
from driftsim.calibration.overheads import gap, lags
from driftsim.calibration.residuals import Residuals
from driftsim.calibration.runs import FEWEST_STEPS, MOST_ROWS, ONE_LOAD, Run, blank_profile, coverage_of
from driftsim.errors import TraceError
from driftsim.latency.profile import LEAST_INTERCEPT_S, Fit, Profile, Region
from driftsim.latency.steptime import GRAPH_SIZES, most_graph_tokens


# -- from steps
def fit_steps(
    runs: Sequence[Run], until: float, report: Callable[[str], None], warnings: list[str], force: bool = False
) -> Profile:
    tables = [run.trace.steps[run.trace.steps["start_s"] <= until] for run in runs if run.trace.steps is not None]
    for run, steps in zip(runs, tables, strict=True):
        if len(steps) < FEWEST_STEPS:
            raise TraceError(f"{run.name}: {len(steps)} steps had begun by {until:g} s, a fit needs {FEWEST_STEPS}")
        wrong = ~(steps["duration_s"].to_numpy() > 0)
        if wrong.any():
            raise TraceError(f"{run.name}: step {int(wrong.argmax())} takes no time; the clock stood still")
        back = np.diff(steps["start_s"].to_numpy()) < 0
        if back.any():
            raise TraceError(f"{run.name}: step {int(back.argmax()) + 1} starts before the one before it")

    steps = pd.concat(tables, ignore_index=True)
    block, group = _numbered(tables), _launched(runs, tables)
    lengths = [len(table) for table in tables]
    tenth = tenths(lengths)
    part = np.arange(len(steps)) if len(steps) <= MOST_ROWS else _some_blocks(block)

    def some_rows(form: Form) -> Rows:
        return rows_of(form, steps.iloc[part], group[part], block[part], tenth[part])

    def all_rows(form: Form) -> Rows:
        return rows_of(form, steps, group, block, tenth)

    report(f"{len(steps)} steps of {len(runs)} runs: choosing a form")
    header = runs[0].trace.header
    eager = any(header.engine_arguments.get(name) for name in ("model.enforce_eager", "enforce_eager"))  # no graphs
    most = 0 if eager else most_graph_tokens(header.engine.max_num_seqs)
    form, considered = choose(some_rows, Form(graph_tokens=most))
    form = at_rest(all_rows, form)
    rows = all_rows(form)
    form, rows = identified_terms(form, rows, warnings)
    steps, duration = _as_one(steps, group), rows.duration
    lengths = [
        int(group[end - 1] - group[end - count]) + 1 for count, end in zip(lengths, np.cumsum(lengths), strict=True)
    ]
    robust = solve(rows)
    solution = with_all_time(robust, duration, warnings)
    report(f"form: {form}; noise and intervals over {len(np.unique(tenth))} blocks of time")
    left = Residuals.of(rows, solution, lengths)
    noise = fit_noise(left, warnings)
    uncertainty = joint_uncertainty([f"{term}_s" for term in form.terms], rows, robust, left, noise)
    intervals = coefficient_intervals(uncertainty, rows, solution.coefficients, warnings)
    low, high = np.percentile(steps["decode_requests"], [5, 95])
    if high < ONE_LOAD * max(low, 1):
        warnings.append(
            f"one load only: nine steps in ten had {low:.0f} to {high:.0f} decoding requests; capture another load"
        )
    fitted = rows.columns @ solution.coefficients
    delays = np.array([lags(run.trace, table) for run, table in zip(runs, tables, strict=True)])
    notify, submit = (float(value) for value in np.median(delays, axis=0))
    gaps = [gap(table) for table in tables]
    times = {f"{term}_s": float(value) for term, value in zip(form.terms, solution.coefficients, strict=True)}
    profile = blank_profile(runs).changed(
        **times | {"intercept_s": max(times["intercept_s"], LEAST_INTERCEPT_S)},
        hidden_tokens=form.tied(solution.coefficients).hidden_tokens,
        graph_sizes=GRAPH_SIZES if form.graphs else (),
        graph_tokens=form.graph_tokens if form.launched else 0,
        gap_s=float(np.average(gaps, weights=lengths)),
        notify_lag_s=notify,
        submit_lag_s=submit,
        intervals=intervals,
        noise=noise,
        seen=coverage_of([run.trace for run in runs], max(int(table["prefill_tokens"].max()) for table in tables)),
        fit=Fit(
            source="steps",
            rows=sum(len(table) for table in tables),
            **quality(duration, fitted),
            regions=_step_regions(steps, duration, fitted),
            considered=considered,
            uncertainty=uncertainty,
        ),
    )
    warnings += unphysical(profile, runs)
    if problem := describes(profile, runs, None, None):
        refuse_fit(problem, runs, force, warnings)
    return profile


def _numbered(tables: Sequence[pd.DataFrame]) -> np.ndarray:
    """The blocks of successive tables, numbered through."""
    numbered: list[np.ndarray] = []
    for table in tables:
        numbered.append(blocks(len(table), int(numbered[-1].max()) + 1 if numbered else 0))
    return np.concatenate(numbered)


def _launched(runs: Sequence[Run], tables: Sequence[pd.DataFrame]) -> np.ndarray:
    """The steps of successive tables whose times cannot be told apart, numbered through."""
    numbered: list[np.ndarray] = []
    for run, table in zip(runs, tables, strict=True):
        own = together(table) if run.trace.header.engine.async_scheduling else np.arange(len(table))
        numbered.append(own + (int(numbered[-1].max()) + 1 if numbered else 0))
    return np.concatenate(numbered)


def _as_one(steps: pd.DataFrame, group: np.ndarray) -> pd.DataFrame:
    """The prefill tokens of each ``group`` of ``steps``, and the decoding requests of its first."""
    prefill = summed(steps["prefill_tokens"].to_numpy(), group)
    return pd.DataFrame(
        {"prefill_tokens": prefill, "decode_requests": steps["decode_requests"].to_numpy()[first_of(group)]}
    )


def _some_blocks(block: np.ndarray) -> np.ndarray:
    """Rows of evenly spaced blocks, about ``MOST_ROWS`` of them."""
    count = int(block.max()) + 1
    kept = np.linspace(0, count - 1, max(16, count * MOST_ROWS // len(block))).astype(int)
    return np.flatnonzero(np.isin(block, kept))


def _step_regions(steps: pd.DataFrame, duration: np.ndarray, fitted: np.ndarray) -> tuple[Region, ...]:
    prefill, decode = steps["prefill_tokens"].to_numpy(), steps["decode_requests"].to_numpy()
    masks = []
    alone = prefill == 0
    edges = np.unique(np.percentile(decode[alone], [0, 25, 50, 75, 100]).astype(int)).tolist() if alone.any() else []
    for low, high in pairwise(edges):
        inside = alone & (decode >= low) & ((decode < high) | ((high == edges[-1]) & (decode == high)))
        masks.append((f"decode only, batch {low} to {high}", inside))
    if len(edges) == 1:
        masks.append((f"decode only, batch {edges[0]}", alone))
    some = prefill[prefill > 0]
    if len(some):
        half = int(np.median(some))
        masks.append((f"prefill of up to {half} tokens", (prefill > 0) & (prefill <= half)))
        masks.append((f"prefill of more than {half} tokens", prefill > half))
    return tuple(region_of(name, duration[inside], fitted[inside]) for name, inside in masks if inside.any())
