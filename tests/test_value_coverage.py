"""Do the intervals of a valuation hold the truth? Synthetic days whose curve, and where it crosses 0, is known."""

from __future__ import annotations

import numpy as np
import pytest

from driftsim.statistics import Interval
from driftsim.workloads.resampling import circular_picks, local_picks
from driftsim.worth.answers import beyond, over_draws, relative

SIGMAS = np.array([0.0, 0.25, 0.5, 1.0, 2.0, 4.0])
TRUE = np.array([-0.30, -0.28, -0.22, -0.10, 0.06, 0.10])  # logarithms of ratios
CROSSING = 1.0 + 0.10 / 0.16
COUNT, TRIALS, LEAST = 360, 400, 0.90


def curves(random: np.random.Generator, rows: int) -> np.ndarray:
    """Effects of ``rows`` requests under each sigma, partly common to all; they have memory."""
    noise = random.standard_normal((rows, len(SIGMAS))) + 1.5 * random.standard_normal((rows, 1))
    for place in range(1, rows):
        noise[place] = 0.6 * noise[place - 1] + 0.8 * noise[place]
    made: np.ndarray = TRUE + noise
    return made


def of_day(random: np.random.Generator) -> tuple[str, Interval, Interval]:
    """Where the curve of a recorded day and 9 resamples of either kind crosses; and the change at sigma 0."""
    day = curves(random, COUNT)
    kinds, means = ["recorded"], [day.mean(axis=0)]
    for kind, draw in (("local", local_picks), ("circular", circular_picks)):
        for _ in range(9):
            kinds.append(kind)
            means.append(day[draw(COUNT, random)].mean(axis=0))
    return _found(kinds, np.array(means))


def of_draws(random: np.random.Generator) -> tuple[str, Interval, Interval]:
    """The same of ten independent draws."""
    return _found(["drawn"] * 10, np.array([curves(random, 60).mean(axis=0) for _ in range(10)]))


def _found(kinds: list[str], means: np.ndarray) -> tuple[str, Interval, Interval]:
    changes = [relative(over_draws(kinds, values)) for values in means.T]
    return *beyond(SIGMAS.tolist(), changes), changes[0]


def inside(found: Interval, truth: float) -> bool:
    """Whether an interval holds ``truth``; an end that no sigma has shown is open."""
    return not found.low > truth and not found.high < truth


@pytest.mark.nightly
@pytest.mark.parametrize("made", [of_day, of_draws])
def test_the_sigma_beyond_which_fifo_wins_is_in_its_interval(made: object) -> None:
    random = np.random.default_rng(3)
    found = [made(random) for _ in range(TRIALS)]  # type: ignore[operator]
    assert np.mean([inside(sigma, CROSSING) for _, sigma, _ in found]) >= LEAST
    assert np.mean([inside(change, np.expm1(TRUE[0])) for _, _, change in found]) >= LEAST


@pytest.mark.nightly
def test_an_interval_of_a_day_that_takes_resamples_for_days_is_seen_to_fail() -> None:
    random = np.random.default_rng(3)
    held = []
    for _ in range(TRIALS):
        day = curves(random, COUNT)
        means = np.array([day[local_picks(COUNT, random)].mean(axis=0) for _ in range(9)])
        held.append(inside(_found(["drawn"] * 9, means)[1], CROSSING))
    assert np.mean(held) < 0.75


def test_a_replication_without_a_value_leaves_no_number() -> None:
    assert np.isnan(over_draws(["drawn"] * 3, np.array([1.0, np.nan, 2.0]))).all()
