"""What a scenario's requests are served by: the engine, and the time that its steps take."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from driftsim.engine.barrier import BarrierEngine
from driftsim.engine.itemized import itemized_engine_for
from driftsim.engine.pipelined import engine_for
from driftsim.errors import InputError
from driftsim.latency.noise import NoisyStepTime
from driftsim.latency.steptime import StepTime, ticks
from driftsim.scheduling.dispatcher import Engine
from driftsim.simulation.scenario import Scenario
from driftsim.workloads.table import stream


def engine_of(scenario: Scenario, itemized: bool) -> Callable[..., Engine]:
    """What serves the jobs of ``scenario``: batch after batch, or continuously. ``itemized``: steps name requests."""
    if scenario.barrier is not None:
        barrier = scenario.barrier
        fill, idle = ticks(barrier.fill_s), ticks(barrier.idle_s)
        return partial(BarrierEngine, batch_size=barrier.batch_size, fill=fill, idle=idle, itemized=itemized)
    return (itemized_engine_for if itemized else engine_for)(scenario.profile.engine)


def step_times(scenario: Scenario) -> StepTime:
    """The profile's step-time model, with its noise if the scenario wants it.

    Raises ``InputError`` if the profile knows of no noise.
    """
    profile = scenario.profile
    model = profile.step_time()
    if not scenario.noise:
        return model
    if profile.noise is None:
        raise InputError("the profile has no noise to draw step times from; fit it again with driftsim calibrate")
    return NoisyStepTime(model, profile.noise, stream(scenario.seed, "noise"))
