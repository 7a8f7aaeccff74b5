"""Running a comparison: every setting on every day and on its resamples, the same for all, on all cores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from driftsim.comparison import sameness
from driftsim.comparison.comparison import Comparison, Draw
from driftsim.comparison.kept import KeptTraces
from driftsim.comparison.plan import BASELINE, ComparisonPlan, Setting, check_plans
from driftsim.comparison.tenants import largest_tenants, tenant_latencies
from driftsim.costs import cost_summary
from driftsim.errors import InputError
from driftsim.estimates import NO_SHIFT
from driftsim.goodput import with_slos
from driftsim.metrics import judged, summary
from driftsim.progress import OnProgress, after, no_progress
from driftsim.scheduling.plugins import give_class, given_classes
from driftsim.simulation.alone import alone_times, sizes_of
from driftsim.simulation.run import simulate
from driftsim.simulation.scenario import Scenario
from driftsim.slo import needs_itl
from driftsim.tenancy import Size, with_fairness
from driftsim.trace.attempts import per_request
from driftsim.trace.trace import Trace
from driftsim.workers import map_shared, processes, shared
from driftsim.workloads.arrivals import arriving
from driftsim.workloads.drifting import drifting
from driftsim.workloads.resampling import resample
from driftsim.workloads.workload import Workload

MODELS = 10  # draws of the latency model
LARGE = 300_000  # requests of a day; each process takes up to 1.7 KB for each of them


def measured_by_phase(trace: Trace, plan: ComparisonPlan) -> dict[str, dict[str, Any]] | None:
    """What ``trace`` itself measured, overall and by phase; None unless FIFO/static of ``plan`` simulates that run.

    That takes a captured FIFO run with the same limits in flight, the refill lag on and no barrier.
    """
    header = trace.header
    simulated = plan.scenario(BASELINE)
    same_limit = header.max_in_flight == simulated.limit
    same_limit &= simulated.tier_limits(plan.tiers) == simulated.tier_limits(header.tiers)
    if (
        plan.barrier is not None
        or header.kind != "captured"
        or header.admission.get("policy") != "fifo"
        or header.admission.get("place", "front") != plan.place
        or not (same_limit and plan.refill_lag)
    ):
        return None
    phases = [phase.name for phase in header.workload.phases]
    asked = [plan.phase] if plan.phase != "all" else ["all", *(phases if len(phases) > 1 else [])]
    judged = with_slos(trace, plan.checked_slos)
    return {phase: summary(judged, plan.admission, phase=phase) for phase in asked}


def compare(
    days: Workload | Sequence[Workload],
    plan: ComparisonPlan,
    jobs: int | None = None,
    progress: OnProgress = no_progress,
    measured: dict[str, dict[str, Any]] | None = None,
) -> Comparison:
    """Run every setting of ``plan``, and FIFO/static to compare with, on every one of ``days`` and its resamples.

    ``jobs`` processes work at it (default: one a core, and one alone where a day is ``LARGE``, lest memory run out);
    the result does not depend on how many. ``progress`` hears of the runs done, and of all. Raises ``InputError`` for
    what no run could accept.
    """
    workloads = (days,) if isinstance(days, Workload) else tuple(days)
    if not workloads:
        raise InputError("there is nothing to compare; give a workload")
    run = plan if BASELINE in plan.settings else replace(plan, settings=(BASELINE, *plan.settings))
    check_plans(run, workloads)
    done, draws = list[_Drawn](), draws_of(run, len(workloads))
    total = len(draws) * len(run.settings)
    progress(0, total)
    alone = jobs is None and max(map(len, workloads)) > LARGE
    jobs = 1 if alone else min(processes(jobs), len(draws))
    if jobs == 1:
        inputs = _Inputs(workloads, run, {})
        for draw in draws:
            done.append(_run(inputs, draw, after(progress, len(done) * len(run.settings), total)))
    else:
        classes = given_classes(name for setting in run.settings for name in setting)
        with shared(_Inputs(workloads, run, classes)) as file:
            for result in map_shared(_run, draws, file, jobs, ordered=True):
                done.append(result)
                progress(len(done) * len(run.settings), total)
    summaries = {setting: [result.summaries[setting] for result in done] for setting in run.settings}
    same = {setting: sameness.lasting([result.same[setting] for result in done]) for setting in run.settings}
    return Comparison(
        plan, workloads, tuple(draws), summaries, done[0].kept.traces(), measured, codes=done[0].codes, same=same,
        undrifted=done[0].undrifted,
    )  # fmt: skip


def draws_of(plan: ComparisonPlan, days: int) -> list[Draw]:
    """What every setting of ``plan`` runs on: the days as recorded first, then the resamples of each.

    Last come draws of the latency model, on the days as recorded, where the profile tells how sure its fit is.
    """
    kinds: tuple[Any, ...] = ("circular", "local")
    recorded = [Draw(day, "recorded", 0) for day in range(days)]
    numbers = range(1, plan.replications)
    drawn = [Draw(day, kind, number) for kind in kinds for number in numbers for day in range(days)]
    if plan.barrier is None and plan.profile.has_uncertainty and plan.replications > 2:
        drawn += [Draw(number % days, "model", number) for number in range(min(MODELS, plan.replications))]
    return recorded + drawn


def runs_of(plan: ComparisonPlan, days: int = 1) -> int:
    """How many simulations ``compare`` will run."""
    return len(draws_of(plan, days)) * (len(plan.settings) + (BASELINE not in plan.settings))


class _Drawn(NamedTuple):
    """What came of one draw."""

    summaries: dict[Setting, dict[str, Any]]
    kept: KeptTraces  # of the first day as recorded alone
    same: dict[Setting, list[str]]
    codes: dict[Setting, np.ndarray]  # with SLOs, of the first day as recorded alone, see ``Comparison.codes``
    undrifted: dict[Setting, pd.Series]  # likewise, with drift


class _Inputs(NamedTuple):
    """What every worker of a comparison shares."""

    workloads: tuple[Workload, ...]
    plan: ComparisonPlan
    classes: dict[str, type]  # policies and estimators that were given as classes


def _scenarios(plan: ComparisonPlan, draw: Draw) -> Callable[[Setting], Scenario]:
    """The scenario of each setting; for a draw of the model with other coefficients and with noise, alike for all."""
    if draw.kind != "model":
        return plan.scenario
    profile = plan.profile.drawn(np.random.default_rng([plan.seed, draw.number]))
    return lambda setting: replace(
        plan.scenario(setting), profile=profile, noise=True, seed=plan.seed + 1 + draw.number
    )


def _run(inputs: _Inputs, draw: Draw, told: OnProgress = no_progress) -> _Drawn:
    """Run every setting on ``draw``; ``told`` hears of the settings done, and of all."""
    plan, workload = inputs.plan, inputs.workloads[draw.day]
    for name, kind in inputs.classes.items():
        give_class(kind, name)
    drawn = workload
    if draw.kind in ("circular", "local"):
        drawn = resample(workload, plan.seed, draw.number, draw.kind)
    if plan.arrivals is not None:
        drawn = arriving(drawn, plan.arrivals, plan.seed + draw.number)
    plain, drawn = drawn, drifting(drawn, plan.drift, plan.seed + draw.number)
    scored = np.ones(len(drawn), dtype=bool)
    if plan.excluded:
        scored = ~drawn.table["source"].isin(plan.excluded).to_numpy()
    summaries, kept, same, codes, undrifted = {}, KeptTraces(), {}, {}, {}
    named = largest_tenants(inputs.workloads[0])
    scenario = _scenarios(plan, draw)
    alone = dict[Size, float]()
    named_steps = needs_itl(plan.slos)
    fifo: Trace | None = None
    for setting in (BASELINE, *(one for one in plan.settings if one != BASELINE)):  # all are held against the first
        sent = simulate(scenario(setting), drawn, step_requests=named_steps)
        trace, within = per_request(sent), judged(sent)
        row = summary(sent, plan.admission, phase=plan.phase, scored=scored[drawn.sent_in(trace)], slos=within)
        row |= {"per_tenant": tenant_latencies(trace, named, plan.phase, within)}
        row |= cost_summary(sent, plan.costs)
        if plan.fairness:  # who finds what in a prefix cache may differ by setting
            alone |= alone_times(sizes_of(trace.requests) - alone.keys(), scenario(BASELINE))
            row = with_fairness(row, trace, alone, plan.phase, named)
        summaries[setting] = row
        if fifo is None:
            fifo = replace(trace, requests=trace.requests[list(sameness.NEEDED)], steps=None)
        same[setting] = sameness.reasons(*setting, plan.admission, trace, fifo)
        if (draw.day, draw.kind) == (0, "recorded"):
            kept.add(setting, trace)
            if within is not None:
                codes[setting] = within.codes
            if any(drift.kind not in NO_SHIFT for drift in plan.drift):
                undrifted[setting] = simulate(scenario(setting), plain).requests.set_index("request_id")["estimate"]
        told(len(summaries), len(plan.settings))
        del sent, trace  # before the next one grows
    return _Drawn(summaries, kept, same, codes, undrifted)
