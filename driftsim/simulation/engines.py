"""What serves the jobs of a scenario, and how long its steps take."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from driftsim.engine.barrier import BarrierEngine
from driftsim.engine.clock import Clock
from driftsim.engine.itemized import itemized_engine_for
from driftsim.engine.pipelined import engine_for
from driftsim.engine.sequence import Sequence
from driftsim.engine.shedding import shedding
from driftsim.errors import InputError
from driftsim.latency.noise import NoisyStepTime
from driftsim.latency.profile import Profile
from driftsim.latency.service import service_of
from driftsim.latency.steptime import TERMS, StepTime, ticks
from driftsim.scheduling.dispatcher import Dispatcher, Engine
from driftsim.scheduling.routing import make_router
from driftsim.simulation.cluster import Cluster, Front, Placement
from driftsim.simulation.scenario import Scenario
from driftsim.workloads.workload import stream


@dataclass(frozen=True)
class Known:
    """What the engines are told of the requests to come.

    ``ends_late``: the rows of those that a stop string ends, see ``driftsim.engine.endings``. ``common``: the stretches
    that several share, see ``driftsim.engine.sharing``; None: not known.
    """

    ends_late: Collection[int] = ()
    common: Collection[int] | None = None


def engine_of(scenario: Scenario, itemized: bool, known: Known) -> Callable[..., Engine]:
    """What serves the jobs of ``scenario``: batch after batch, or continuously. ``itemized``: steps name requests."""
    if scenario.barrier is not None:
        barrier = scenario.barrier
        fill, idle = ticks(barrier.fill_s), ticks(barrier.idle_s)
        return partial(
            BarrierEngine, batch_size=barrier.batch_size, fill=fill, idle=idle, itemized=itemized,
            ends_late=known.ends_late,
        )  # fmt: skip
    settings = scenario.profile.engine
    kind = (itemized_engine_for if itemized else engine_for)(settings)
    if known != Known():
        kind = type(kind.__name__, (kind,), vars(known))
    return shedding(kind) if settings.sheds else kind


def step_times(scenario: Scenario) -> StepTime:
    """The profile's step-time model, with its noise if the scenario wants it.

    Raises ``InputError`` if the profile knows of no noise.
    """
    return _step_times(scenario.profile, scenario, 0)


def _step_times(profile: Profile, scenario: Scenario, number: int) -> StepTime:
    model = profile.step_time()
    if not scenario.noise:
        return model
    if profile.noise is None:
        raise InputError("the profile has no noise to draw step times from; fit it again with driftsim calibrate")
    return NoisyStepTime(model, profile.noise, stream(scenario.seed, f"noise of {number}" if number else "noise"))


def clustered(
    env: Clock,
    scenario: Scenario,
    dispatcher: Callable[[int | None], Dispatcher],
    on_leave: Callable[[list[Sequence]], None],
    on_ready: Callable[[], None],
    on_step: Callable[[tuple[Any, ...]], None] | None,
    itemized: bool,
    known: Known,
) -> tuple[Dispatcher | Front, Cluster]:
    """What dispatches to the replicas of ``scenario``, and these as one engine; a step ends in its replica's number.

    ``dispatcher`` makes one with a limit in flight. The other arguments are those of ``Cluster`` and of an engine.
    """
    asked = scenario.replicas
    speeds = asked.speeds or (1.0,) * asked.count
    alike = scenario.replica_profiles or (scenario.profile,) * asked.count
    profiles = [_at_speed(profile, speed) for profile, speed in zip(alike, speeds, strict=True)]
    limits = [scenario.limit_of(profile.engine.max_num_seqs) for profile in profiles]
    words = scenario.admission.words_per_token
    services = [service_of(profile, words, limit) for profile, limit in zip(profiles, limits, strict=True)]
    placement = Placement(make_router(asked.router, scenario.seed), services)
    front = Front([dispatcher(limit) for limit in limits], placement) if asked.place == "front" else None
    kinds = [engine_of(replace(scenario, profile=profile), itemized, known) for profile in profiles]
    times = [_step_times(profile, scenario, number) for number, profile in enumerate(profiles)]

    def made(number: int, left: Callable[[list[Sequence]], None]) -> Engine:
        told = None if on_step is None else lambda step: on_step((*step, number))
        profile = profiles[number]
        return kinds[number](env, profile.engine, times[number], ticks(profile.gap_s), left, told)

    cluster = Cluster(env, made, asked, placement, front, on_leave, on_ready, limits)
    bounds = [limit for limit in limits if limit is not None]
    return front or dispatcher(sum(bounds) if bounds else None), cluster


def _at_speed(profile: Profile, speed: float) -> Profile:
    """``profile`` of an engine whose steps take as long, divided by ``speed``."""
    if speed == 1:
        return profile
    return profile.changed(**{f"{term}_s": getattr(profile, f"{term}_s") / speed for term in TERMS})


def was_shed(sequence: Sequence) -> bool:
    """Whether ``sequence`` met the limits of the server's queue: who can never fit does not come again, it may."""
    said = f"request {sequence.job.request.id} was turned away"
    return sequence.finish_reason == "rejected" and (sequence.error or "").startswith(said)
