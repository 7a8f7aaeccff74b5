"""Do the intervals of a capacity hold the truth? Queues of one server, whose capacity is known from many fresh days."""

from __future__ import annotations

import numpy as np
import pytest

from driftsim.sizing.curves import Curve, change
from driftsim.sizing.run import MOST_BEYOND
from driftsim.sizing.search import Search
from driftsim.statistics import Interval, crossing
from driftsim.workloads.resampling import circular_picks, local_picks
from tests import coverage_study as study

LOADS = np.geomspace(0.2, 2.2, 25)
COUNT, LONG = 360, 1500  # requests of a recorded day, and of a draw
DAYS, RESAMPLES, FRESH, DRAWS, TRIALS = 120, 19, 1500, 20, 300
LEAST, BELOW = 0.90, 0.75  # coverage that is wanted, and coverage that must be seen to fail
SHORT, HARD = 400, 0.87  # requests of a short draw; coverage of the hardest case, which `capacity` says is too low


def attained(gaps: np.ndarray, services: np.ndarray, limit: float) -> np.ndarray:
    """Share of the requests that wait at most ``limit`` by load, (..., loads): Lindley's recursion."""
    wait = np.zeros((*gaps.shape[:-1], len(LOADS)))
    met = np.zeros_like(wait)
    for place in range(gaps.shape[-1]):
        if place:
            wait = np.maximum(0.0, wait + services[..., place - 1, None] - gaps[..., place, None] / LOADS)
        met += wait <= limit
    share: np.ndarray = met / gaps.shape[-1]
    return share


def drawn(process: study.Gaps, count: int, days: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    return np.array([process(count, random) for _ in range(days)]), random.exponential(size=(days, count))


def days_of(process: study.Gaps, limit: float, target: float) -> tuple[float, list[Curve]]:
    """The true capacity, and the curve of each recorded day and its resamples."""
    random = np.random.default_rng(5)
    fresh = attained(*drawn(process, COUNT, FRESH, random), limit)
    truth = float(np.exp(crossing(np.log(LOADS), fresh.mean(axis=0), target)))
    gaps, services = drawn(process, COUNT, DAYS, random)
    found = {"recorded": attained(gaps, services, limit)[:, None]}
    for name, draw in (("local", local_picks), ("circular", circular_picks)):
        picks = np.array([[draw(COUNT, random) for _ in range(RESAMPLES)] for _ in range(DAYS)])
        day = np.arange(DAYS)[:, None, None]
        found[name] = attained(gaps[day, picks], services[day, picks], limit)
    return truth, [Curve(LOADS, target, {name: own[day] for name, own in found.items()}) for day in range(DAYS)]


def held(intervals: list[Interval], truth: float) -> float:
    return float(np.mean([one.low <= truth <= one.high for one in intervals]))


@pytest.mark.parametrize(
    ("process", "limit", "target"),
    [
        (study.poisson, 10, 0.95), (study.poisson, 15, 0.99), (study.mmpp, 15, 0.95), (study.gamma, 20, 0.95),
        (study.hump, 10, 0.95),
    ],
)  # fmt: skip
def test_the_interval_from_one_recorded_day_holds_the_truth(process: study.Gaps, limit: float, target: float) -> None:
    truth, curves = days_of(process, limit, target)
    assert held([curve.interval() for curve in curves], truth) >= LEAST


def test_a_peak_inside_a_phase_is_said_and_steady_days_are_left_alone() -> None:
    _, peaked = days_of(study.hump, 10, 0.8)
    _, steady = days_of(study.poisson, 10, 0.8)
    assert np.mean([curve.moved for curve in peaked]) > 0.5
    assert np.mean([curve.moved for curve in steady]) < 0.15


def test_resamples_taken_for_independent_days_are_seen_to_fail() -> None:
    truth, curves = days_of(study.poisson, 15, 0.99)
    wrong = [Curve(LOADS, 0.99, {"drawn": curve.attained["local"]}).interval() for curve in curves]
    assert held(wrong, truth) < BELOW


def as_searched(curve: Curve) -> Curve:
    """``curve`` on the few loads that a search tries, as the product has it."""

    def at(load: float) -> dict[str, np.ndarray]:
        return {
            kind: np.array([np.interp(np.log(load), curve.logs, row) for row in own])
            for kind, own in curve.attained.items()
        }

    tried: dict[float, dict[str, np.ndarray]] = {}

    def found() -> Curve:
        loads = sorted(tried)
        kinds = {kind: np.array([tried[load][kind] for load in loads]).T for kind in curve.attained}
        return Curve(np.array(loads), curve.target, kinds)

    def go(loads: list[float]) -> None:
        for load in loads:
            tried[load] = at(load)
            search.tell(load, bool(found().mean[sorted(tried).index(load)] >= curve.target))

    search = Search(0.5, float(LOADS[0]), float(LOADS[-1]), 0.01)
    while (load := search.next()) is not None:
        go([load])
    go(search.around())
    for _ in range(MOST_BEYOND):
        below, above = found().short()
        go([load for up in [False] * below + [True] * above for load in search.beyond(up)])
    assert len(tried) < 25
    return found()


def test_the_few_loads_of_a_search_are_enough() -> None:
    truth, curves = days_of(study.poisson, 15, 0.99)
    intervals = [as_searched(curve).interval() for curve in curves]
    assert held(intervals, truth) >= LEAST
    whole = np.median([curve.interval().high / curve.interval().low for curve in curves])
    assert np.median([one.high / one.low for one in intervals]) == pytest.approx(whole, rel=0.15)


@pytest.mark.parametrize(
    ("process", "limit", "target"), [(study.poisson, 10, 0.95), (study.poisson, 15, 0.99), (study.mmpp, 15, 0.95)]
)
def test_the_interval_from_independent_draws_holds_the_truth(process: study.Gaps, limit: float, target: float) -> None:
    random = np.random.default_rng(6)
    pool = attained(*drawn(process, LONG, 1000, random), limit)
    truth = float(np.exp(crossing(np.log(LOADS), pool.mean(axis=0), target)))
    trials = [pool[random.choice(len(pool), DRAWS, replace=False)] for _ in range(TRIALS)]
    assert held([Curve(LOADS, target, {"drawn": own}).interval() for own in trials], truth) >= LEAST


@pytest.mark.parametrize(("few", "target", "least"), [(20, 0.99, LEAST), (10, 0.95, LEAST), (10, 0.99, HARD)])
def test_the_interval_from_short_draws_with_heavy_tails_holds_the_truth(few: int, target: float, least: float) -> None:
    """The 1 % of few requests that miss are those of one or two draws: the others do not tell how many may."""
    random = np.random.default_rng(6)
    gaps = random.exponential(size=(1000, SHORT))
    pool = attained(gaps, random.lognormal(-1.125, 1.5, gaps.shape), 40 if target > 0.95 else 30)  # of mean 1
    truth = float(np.exp(crossing(np.log(LOADS), pool.mean(axis=0), target)))
    trials = [
        Curve(LOADS, target, {"drawn": pool[random.choice(len(pool), few, replace=False)]}) for _ in range(TRIALS)
    ]
    assert held([curve.interval() for curve in trials], truth) >= least
    assert np.median([curve.telling for curve in trials]) < few / 2
    alike = np.repeat(1 - np.linspace(0, 1, len(LOADS))[None], few, axis=0)
    assert Curve(LOADS, target, {"drawn": alike}).telling == pytest.approx(few)


def test_the_change_between_two_engines_holds_the_truth() -> None:
    """The second serves every request in 0.8 of the time: its capacity is larger, and the same requests show it."""
    random = np.random.default_rng(7)
    gaps, services = drawn(study.poisson, LONG, 800, random)
    slow, fast = (attained(gaps, factor * services, 10) for factor in (1.0, 0.8))
    logs = np.log(LOADS)
    truth = float(np.expm1(crossing(logs, fast.mean(axis=0), 0.95) - crossing(logs, slow.mean(axis=0), 0.95)))
    found = []
    for _ in range(TRIALS):
        own = random.choice(len(slow), DRAWS, replace=False)
        one, other = (Curve(LOADS, 0.95, {"drawn": part[own]}) for part in (fast, slow))
        found.append(change(one, other))
    assert held(found, truth) >= LEAST
    halves = np.median([(one.high - one.low) / 2 for one in found])
    alone = np.median(
        [(end.high - end.low) / end.value for end in (Curve(LOADS, 0.95, {"drawn": slow[:20]}).interval(),)]
    )
    assert halves < alone / 2  # pairing takes most of the spread away


def test_the_change_on_one_recorded_day_holds_the_truth() -> None:
    random = np.random.default_rng(8)
    gaps, services = drawn(study.poisson, COUNT, FRESH, random)
    logs = np.log(LOADS)
    crossed = [float(crossing(logs, attained(gaps, factor * services, 10).mean(axis=0), 0.95)) for factor in (0.8, 1.0)]
    truth = float(np.expm1(crossed[0] - crossed[1]))
    day = np.arange(DAYS)[:, None, None]
    picks = {
        name: np.array([[draw(COUNT, random) for _ in range(RESAMPLES)] for _ in range(DAYS)])
        for name, draw in (("local", local_picks), ("circular", circular_picks))
    }
    curves = []
    for factor in (0.8, 1.0):
        own = {"recorded": attained(gaps[:DAYS], factor * services[:DAYS], 10)[:, None]}
        own |= {name: attained(gaps[day, which], factor * services[day, which], 10) for name, which in picks.items()}
        curves.append([Curve(LOADS, 0.95, {name: part[one] for name, part in own.items()}) for one in range(DAYS)])
    found = [change(one, other) for one, other in zip(*curves, strict=True)]
    assert held(found, truth) >= LEAST
    alone = np.median([own.high / own.low for own in (curve.interval() for curve in curves[1])])
    paired = np.median([(1 + one.high) / (1 + one.low) for one in found])
    assert np.log(paired) < np.log(alone) / 2
