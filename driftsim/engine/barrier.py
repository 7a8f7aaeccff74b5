"""The barrier engine: DriftSched's worker (arXiv 2606.02982), which serves one offline batch at a time.

It takes up to 32 requests, waits at most 10 ms for a batch to fill, and runs it through an engine of its own as vLLM's
``LLM.generate`` would; every member leaves when the last one has ended, and only then is the next batch taken. There is
no time to first token. A worker that finds nothing to do sleeps for a second.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from driftsim.engine.clock import STEP, Clock, Moment
from driftsim.engine.continuous import ContinuousEngine
from driftsim.engine.itemized import itemized_engine_for
from driftsim.engine.pipelined import engine_for
from driftsim.engine.sequence import Sequence
from driftsim.latency.steptime import StepTime
from driftsim.request import Job
from driftsim.trace.settings import EngineSettings


class BarrierEngine:
    """One batch at a time; ``room`` is 0 while it runs and while the worker sleeps: the policy keeps the order.

    ``batch_size``: requests in a batch at most. ``fill``: ticks that a batch waits for more. ``idle``: ticks that a
    worker sleeps that finds nothing. ``itemized``: whether a step names its requests. ``ends_late``: see
    ``Endings``.
    """

    def __init__(
        self,
        env: Clock,
        settings: EngineSettings,
        step_time: StepTime,
        gap: int,
        on_leave: Callable[[list[Sequence]], None],
        on_step: Callable[[tuple[float, ...]], None] | None = None,
        *,
        batch_size: int,
        fill: int,
        idle: int,
        itemized: bool = False,
        ends_late: Collection[int] = (),
    ) -> None:
        self.env = env
        self.on_leave = on_leave
        self.on_step = on_step
        self.batch_size = batch_size
        self.fill = fill
        self.idle = idle
        inner = itemized_engine_for(settings) if itemized else engine_for(settings)
        self.inner: ContinuousEngine = inner(env, settings, step_time, gap, self._served, on_step)
        self.inner.ends_late = ends_late
        self.batches = 0
        self._batch: list[tuple[Job, int | None]] = []
        self._done: list[Sequence] = []
        self._running = 0  # members of the batch under way
        self._free_since: int | None = 0  # when the worker last looked and found nothing; None while it works
        self._wakes = -1  # tick of the next wake-up already scheduled; -1: none

    def room(self) -> int:
        """Jobs that the batch being filled still takes."""
        if self._running or self._asleep():
            return 0
        return self.batch_size - len(self._batch)

    def _asleep(self) -> bool:
        """Whether the worker sleeps; if so, it will look again when this sleep is over."""
        now, nap = self.env.now, self.idle
        if self._free_since is None or nap == 0 or (now - self._free_since) % nap == 0:
            return False
        if self._wakes <= now:
            self._wakes = now + nap - (now - self._free_since) % nap
            Moment(self.env, self._wakes, STEP, lambda _: self.on_leave([]))
        return True

    def submit(self, job: Job, true_length: int | None) -> None:
        """Take ``job`` into the batch being filled."""
        self._free_since = None
        self._batch.append((job, true_length))
        if len(self._batch) == self.batch_size:
            self._start()
        elif len(self._batch) == 1:
            number = self.batches
            Moment(self.env, self.env.now + self.fill, STEP, lambda _: self._filled(number))

    def abort(self, job: Job) -> None:
        """A batch that runs is not interrupted; a job in the batch being filled is dropped."""
        self._batch = [member for member in self._batch if member[0] is not job]

    def _filled(self, number: int) -> None:
        if number == self.batches and self._batch:
            self._start()

    def _start(self) -> None:
        self.batches += 1
        batch, self._batch = self._batch, []
        self._running = len(batch)
        for job, length in batch:
            self.inner.submit(job, length)

    def _served(self, sequences: list[Sequence]) -> None:
        self._done += sequences
        if len(self._done) < self._running:
            return
        done, self._done = self._done, []
        now = self.env.now
        for sequence in done:
            sequence.first_token = None
            sequence.batch = (self.batches - 1, self._running)
            if sequence.finish is not None:
                sequence.finish = now
        self._running = 0
        self._free_since = now
        self.on_leave(done)
