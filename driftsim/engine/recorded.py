"""The simulated engine on recorded steps: each begins when it began and lasts as long as it lasted.

Requests reach it when they reached the real core, so whatever still differs from the recording is a decision of the
scheduler: pure scheduling error.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import simpy

from driftsim.engine.clock import ARRIVE, STEP, Clock, Moment
from driftsim.engine.continuous import ContinuousEngine
from driftsim.engine.inside import inside, untold
from driftsim.engine.pipelined import PipelinedEngine
from driftsim.engine.sequence import Sequence
from driftsim.latency.steptime import Batch
from driftsim.request import Job
from driftsim.scheduling.inside import Inside
from driftsim.trace.settings import EngineSettings


@dataclass(frozen=True, slots=True)
class ReceivedJob:
    """A job, how much it will produce, when the real core received it, in ticks, and whether a stop string ended it."""

    job: Job
    output: int
    received: int
    stopped: bool = False


class RecordedSteps:
    """The step-time model that reads durations, in ticks, off a recording, one a step; past its end the last again."""

    def __init__(self, starts: list[int], durations: list[int]) -> None:
        self.starts = starts
        self.durations = durations
        self.made = 0

    def step(self, batch: Batch) -> int:
        """The duration of the next recorded step."""
        self.made += 1
        return self.durations[min(self.made, len(self.durations)) - 1]

    def decode_run(self, batch: Batch, n: int) -> int:
        """Recorded steps are made one by one."""
        raise NotImplementedError

    def decode_steps(self, batch: Batch, elapsed: int, gap: int) -> int:
        """Recorded steps are made one by one."""
        raise NotImplementedError


class _OnRecordedSteps(ContinuousEngine):
    """Begins every step when the recorded one began."""

    step_time: RecordedSteps

    def _wake_at(self, moment: int, priority: int, callback: Callable[[simpy.Event], None]) -> None:
        steps = self.step_time
        if priority == STEP and steps.made < len(steps.starts):
            moment = max(self.env.now, steps.starts[steps.made])
        super()._wake_at(moment, priority, callback)


class _PipelinedOnRecordedSteps(_OnRecordedSteps, PipelinedEngine):
    """Likewise, with async scheduling: the step ahead waits for the launch of the one before, as it did."""

    def _is_host_free(self, now: int) -> bool:
        starts, made = self.step_time.starts, self.step_time.made
        return made >= len(starts) or starts[made] <= now


def on_recorded_steps(
    settings: EngineSettings,
    sent: list[ReceivedJob],
    starts: list[int],
    durations: list[int],
    place: Inside | None = None,
) -> tuple[list[Sequence], list[tuple[float, ...]]]:
    """Run ``sent`` over the recorded steps: what became of each, in order, and the steps as they were composed.

    Times are ticks since the run began. ``place``: of a policy that stood inside the engine.
    """
    env = Clock(initial_time=0)
    lives: dict[int, Sequence] = {}
    made: list[tuple[float, ...]] = []

    def left(sequences: list[Sequence]) -> None:
        lives.update((id(sequence.job), sequence) for sequence in sequences)

    kind: Any = _PipelinedOnRecordedSteps if settings.async_scheduling else _OnRecordedSteps
    if place is not None:
        kind = inside(kind, place, untold)
    # Any gap above 0 makes the engine schedule the next step as an event, which ``_wake_at`` then moves to the recorded
    # start.
    gap = 1  # tick
    engine = kind(env, settings, RecordedSteps(starts, durations), gap, left, made.append)
    engine.ends_late = {one.job.index for one in sent if one.stopped}
    for one in sent:
        Moment(env, one.received, ARRIVE, lambda _, one=one: engine.submit(one.job, one.output))  # type: ignore[misc]
    env.run()
    return [lives[id(one.job)] for one in sent], made
