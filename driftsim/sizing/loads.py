"""Where the search for a capacity begins, and beyond which loads it does not go."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from driftsim.errors import InputError
from driftsim.latency.profile import Profile
from driftsim.pressing.loads import LoadAxis, sample_of, served_rate
from driftsim.simulation.spec import ScenarioSpec, build_scenario
from driftsim.trace.trace import Trace

GUESS = 0.7  # of the rate at which a backlog is served: the first load that is tried
FURTHEST = 50.0  # from it to the lowest load, if no other is given
HIGHEST = 5.0  # times the first load, likewise
TURNS = 10  # requests that each user sends at least


@dataclass(frozen=True)
class Bounds:
    """Where a search begins, and the loads beyond which it does not go; ``backlog``: requests a second of a backlog."""

    first: float
    lowest: float
    highest: float
    backlog: float


def bounds_of(
    axis: LoadAxis, spec: ScenarioSpec, profile: Profile, find: Callable[[str], Trace],
    lowest: float | None, highest: float | None,
) -> Bounds:  # fmt: skip
    """Where to look for the capacity of ``spec``: around what its engine serves of a backlog, within what is asked.

    ``find`` gives the recorded run at a path. Raises ``InputError`` for bounds that leave nothing.
    """
    sample, total = sample_of(axis, spec, find)
    scenario = build_scenario(spec, profile)
    backlog = served_rate(sample, scenario)
    if axis.whole:
        guess = float(scenario.limit or scenario.profile.engine.max_num_seqs)
        least, most = 1.0, float(max(2, total // TURNS))
    else:
        guess = GUESS * backlog / axis.unit_rate
        guess = guess if np.isfinite(guess) and guess > 0 else 1.0
        least, most = guess / FURTHEST, guess * HIGHEST
    least, most = (given if given is not None else usual for given, usual in ((lowest, least), (highest, most)))
    if not 0 < least < most:
        raise InputError(f"the lowest load must be above 0 and below the highest, got {least:g} and {most:g}")
    if axis.whole:
        least, most = float(np.ceil(least)), float(np.floor(most))
    return Bounds(min(max(guess, least), most), least, most, backlog)
