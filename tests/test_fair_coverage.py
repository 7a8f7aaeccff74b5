"""Do the intervals of fairness hold the truth as often as they say? A queue in every run, the product at night."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from driftsim.comparison.comparison import Comparison
from driftsim.comparison.plan import BASELINE, ComparisonPlan, Setting
from driftsim.comparison.runs import compare
from driftsim.simulation.alone import alone_times, sizes_of
from driftsim.simulation.run import simulate
from driftsim.statistics import Day, Interval, over_days
from driftsim.tenancy import Alone, fairness_summary, jain
from driftsim.workloads.resampling import circular_picks, local_picks
from driftsim.workloads.workload import Workload
from tests import coverage_study as study

DAYS, RESAMPLES, COUNT, TENANTS = 150, 19, 360, 3
LEAST = 0.90
NIGHTLY_DAYS, FRESH, REPLICATIONS = 50, 400, 20
SJF, VTC = Setting("sjf", "static"), Setting("vtc", "static")
SETTINGS = (BASELINE, SJF, VTC)
CELLS = tuple(cell for cell in study.CELLS if cell.name in ("Poisson, 0.95", "Poisson, 1.3", "MMPP, 0.95"))
METRICS = ("slowdown_mean", "jain_slowdown", "slowdown_worst", "service_gap")
OF_A_TENANT = ("slowdown_mean", "backlogged_share")
NAMES, RATES = ("a", "b", "c"), (0.6, 0.3, 0.1)


# -- a queue of one server


def slow(gaps: np.ndarray, services: np.ndarray) -> np.ndarray:
    """The slowdown of each request in a queue of one server, by Lindley's recursion along the last axis."""
    waits = np.zeros(gaps.shape)
    for place in range(1, gaps.shape[-1]):
        left = waits[..., place - 1] + services[..., place - 1] - gaps[..., place]
        waits[..., place] = np.maximum(0.0, left)
    found: np.ndarray = 1 + waits / services
    return found


def of_tenants(values: np.ndarray, tenants: np.ndarray) -> np.ndarray:
    """The mean of ``values`` of each tenant, along the last axis."""
    return np.stack([np.nanmean(np.where(tenants == one, values, np.nan), axis=-1) for one in range(TENANTS)], axis=-1)


def told(gaps: np.ndarray, services: np.ndarray, tenants: np.ndarray) -> dict[str, np.ndarray]:
    values = slow(gaps, services)
    speeds = of_tenants(1 / values, tenants)
    return {
        "slowdown_mean": values.mean(axis=-1),
        "slowdown_worst": of_tenants(values, tenants).max(axis=-1),
        "jain_slowdown": np.apply_along_axis(jain, -1, speeds),
    }


def test_the_intervals_of_slowdowns_and_of_jains_index_hold_the_truth() -> None:
    """Short answers of one tenant behind long ones of the others: it is slowed down more, so the index is below 1."""
    random = np.random.default_rng(6)

    def days(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        tenants = random.choice(TENANTS, p=RATES, size=(count, COUNT))
        gaps = random.exponential(size=tenants.shape) / 1.1
        return gaps, 0.05 + tenants + random.exponential(0.1, tenants.shape), tenants

    truth = {name: float(values.mean()) for name, values in told(*days(1500)).items()}
    assert truth["jain_slowdown"] < 0.95
    drawn = days(DAYS)
    recorded = told(*drawn)
    resampled = []
    for draw in (local_picks, circular_picks):
        picks = np.array([[draw(COUNT, random) for _ in range(RESAMPLES)] for _ in range(DAYS)])
        resampled.append(told(*(column[np.arange(DAYS)[:, None, None], picks] for column in drawn)))
    local, circular = resampled
    for name, true in truth.items():
        each = zip(recorded[name], local[name], circular[name], strict=True)
        found = [over_days([Day(float(own), one, other)]).interval for own, one, other in each]
        assert np.mean([low <= true <= high for _, low, high in found]) >= LEAST, name
        narrow = [(low + high) / 2 + np.array([-1, 1]) * (high - low) / 8 for _, low, high in found]
        assert np.mean([low <= true <= high for low, high in narrow]) < LEAST, name


# -- the product


def with_tenants(cell: study.Cell, seed: list[int]) -> Workload:
    random = np.random.default_rng(seed)
    made = study.day(cell, random)
    return replace(made, table=made.table.assign(tenant=random.choice(NAMES, p=RATES, size=len(made))))


def questions() -> Iterator[tuple[str, Setting, Setting | None, str, str | None]]:
    for setting in SETTINGS:
        for metric, tenant in [*((name, None) for name in METRICS), *((name, "c") for name in OF_A_TENANT)]:
            name = f"{setting.policy} {tenant or ''} {metric}"
            yield name, setting, None, metric, tenant
            if setting != BASELINE:
                yield f"{name} vs fifo", setting, BASELINE, metric, tenant


def _truth_of(task: tuple[int, int]) -> dict[str, float]:
    place, number = task
    made = with_tenants(CELLS[place], [10**6, place, number])
    plan, rows, alone = (
        ComparisonPlan(profile=study.PROFILE, settings=SETTINGS),
        dict[Setting, Any](),
        dict[Any, float](),
    )
    for setting in SETTINGS:
        run = simulate(plan.scenario(setting), made)
        alone |= alone_times(sizes_of(run.requests) - alone.keys(), plan.scenario(BASELINE))
        known: Alone = alone
        rows[setting] = fairness_summary(run, known, named=NAMES)
    found = {}
    for name, setting, against, metric, tenant in questions():
        own, base = (
            (rows[one] if tenant is None else rows[one]["per_tenant"][tenant])[metric]
            for one in (setting, against or setting)
        )
        found[name] = own / base - 1 if against else own
    return found


def _held(task: tuple[int, int]) -> dict[str, Interval]:
    place, number = task
    plan = ComparisonPlan(profile=study.PROFILE, settings=SETTINGS, replications=REPLICATIONS, fairness=True)
    result: Comparison = compare(with_tenants(CELLS[place], [place, number]), plan, jobs=1)
    return {
        name: result.value(setting, metric, tenant)
        if against is None
        else result.change(setting, against, metric, tenant)
        for name, setting, against, metric, tenant in questions()
    }


def coverage(place: int, days: int = NIGHTLY_DAYS, fresh: int = FRESH, jobs: int | None = None) -> dict[str, float]:
    """How often each interval of ``questions`` holds the mean over fresh days, for the cell at ``place``."""
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        truths = pool.map(_truth_of, [(place, number) for number in range(fresh)], chunksize=10)
        found = pool.map(_held, [(place, number) for number in range(days)], chunksize=1)
    shares = {}
    for name, *_ in questions():
        true = float(np.nanmean([one[name] for one in truths]))
        shares[name] = float(np.mean([one[name].low <= true <= one[name].high for one in found]))
    return shares


@pytest.mark.nightly
@pytest.mark.parametrize("place", range(len(CELLS)))
def test_the_intervals_of_fairness_hold_the_truth_in_the_product(place: int) -> None:
    shares = coverage(place)
    print(CELLS[place].name, {name: round(100 * share) for name, share in shares.items()})
    assert np.mean(list(shares.values())) >= LEAST
