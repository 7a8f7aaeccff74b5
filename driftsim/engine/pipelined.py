"""The engine under async scheduling: vLLM schedules a step while the one before it is still being computed.

It mirrors vllm/v1/core/sched/async_scheduler.py and ``step_with_batch_queue`` in vllm/v1/engine/core.py of vLLM 0.32,
two steps in flight, vLLM's default on CUDA. The host works while the GPU does, so there is no gap between steps; where
the host is the slower of the two, the step time's intercept holds it.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import simpy

from driftsim.engine.clock import COMPLETE, STEP, Moment
from driftsim.engine.continuous import ContinuousEngine
from driftsim.engine.sequence import Sequence
from driftsim.trace.header import EngineSettings


class PipelinedEngine(ContinuousEngine):
    """Decides on step n+1 as step n-1 ends. So whoever arrives or leaves takes effect a step later than without.

    The state of a sequence is that after all steps scheduled so far. One whose last token is scheduled is exhausted: it
    keeps its slot and its blocks until that token is out. vLLM knows beforehand only that a limit will end it; one that
    ends by itself is scheduled once more, in vain (scheduler.py, "Avoid scheduling an extra step").
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.gap = 0
        self._last = 0  # when the step scheduled last completes
        self._ending: deque[list[tuple[Sequence, int]]] = deque()  # who will be told to have ended, with how much
        self._vain: set[Sequence] = set()  # those of them who end by themselves, and are scheduled once more
        self._left_out: set[Sequence] = set()  # decodes that got no turn in the step scheduled last

    # -- a decode run: its steps execute from ``_run_start`` on, each scheduled as the one before the last completes

    def _boundary_at(self, steps: int) -> int:
        return self._run_start + self.step_time.decode_run(self._run, steps - 1) if steps > 1 else self._run_start

    def _run_boundary(self) -> int:
        elapsed = self.env._now - self._run_start
        return 1 + (self.step_time.decode_steps(self._run, elapsed, 0) if elapsed > 0 else 0)

    def _decode(self, start: int) -> None:
        pool = self.pool
        self._run_start = start
        self._run_steps = pool.steps_within(self.free, pool.steps_to_finish())
        self._run.decode_requests, self._run.context_tokens = pool.size, pool.context_tokens
        self._go_on(self._boundary_at(self._run_steps), STEP, self._begin)

    def _settle(self) -> None:
        if self._run_steps:
            self._last = self._run_start + self.step_time.decode_run(self._run, self._run_steps)
            if self._taken is not None:
                self._taken(self._run_steps)
            self.free -= self.pool.advance(self._run_steps)
            self._run_steps = 0
            self._left_out.clear()
            self._exhaust(self._last)

    # -- one turn of the core's loop

    def _begin(self, event: simpy.Event) -> None:
        """Drain all messages and schedule until two steps are in flight, or nothing more can be scheduled."""
        if event is not self._next:
            return
        now = self.env._now
        self._settle()
        in_flight = [self._last] if self._last > now else []
        while len(in_flight) < 2:
            self._drain(now)
            prefills, preempted = self._schedule(now)
            if not prefills and not self.pool.size:
                self._resume()
                if in_flight or preempted or self.running or not self.waiting:
                    if preempted and not in_flight:
                        continue  # it made room for nobody but itself: the next turn is at once
                    break
                self._fail_head()
                continue
            if self._may_run(in_flight, prefills, preempted):
                self._decode(self._last)
                return
            self._execute(now, prefills, preempted)
            in_flight.append(self._last)
        if in_flight:
            self._go_on(in_flight[0], STEP, self._begin)
        else:
            self._rest(now)

    def _may_run(self, in_flight: list[int], prefills: list[tuple[Sequence, int]], preempted: int) -> bool:
        """Whether nothing but decodes lies ahead, with one step in flight before them."""
        ending = self.exhausted or self._ending or self._vain
        busy = prefills or preempted or self.prefilling or self._paused or self._inbox or ending
        return bool(in_flight) and not busy and self.on_step is None

    def _execute(self, now: int, prefills: list[tuple[Sequence, int]], preempted: int) -> None:
        """Put one step behind the one in flight."""
        begin = max(now, self._last)
        self._left_out = set(self._paused)
        duration = self._advance(now, begin, prefills, preempted)
        self._last = begin + duration
        self._exhaust(self._last)

    def _unseen(self, sequence: Sequence) -> int:
        """The token of the step in flight, if it is in it (scheduler.py, update_from_output, skips who is gone)."""
        decodes = sequence not in self.prefilling and sequence not in self._left_out
        return int(decodes and self._last > self.env._now)

    def _exhaust(self, end: int) -> None:
        """Whoever has just been given its last token is told so at ``end``."""
        ended = []
        for sequence in self.pool.take_finished():
            self.exhausted.add(sequence)
            if sequence in self._vain:
                self._vain.discard(sequence)
                continue
            ended.append((sequence, sequence.target))
        for sequence, target in ended:
            if target < min(sequence.job.request.max_tokens, self.settings.max_model_len - sequence.prompt):
                self.exhausted.discard(sequence)
                self._vain.add(sequence)
                sequence.target += 1
                self.pool.join(sequence)
        if ended:
            self._ending.append(ended)
            Moment(self.env, end, COMPLETE, self._complete)

    def _complete(self, event: simpy.Event) -> None:
        """A step is over in which somebody ended; slots and blocks are free for the next one to be scheduled."""
        finished = []
        for sequence, shown in self._ending.popleft():
            self._vain.discard(sequence)
            if sequence.finish_reason:  # aborted in the meantime
                continue
            if sequence in self.running:
                self._remove(sequence)
            else:  # preempted while its last token was on its way: stale output is delivered all the same
                self.waiting.remove(sequence)
            sequence.shown = shown
            self._end(sequence, self.env._now)
            finished.append(sequence)
        self.on_leave(finished)


def engine_for(settings: EngineSettings) -> type[ContinuousEngine]:
    """The engine that schedules as ``settings`` say."""
    return PipelinedEngine if settings.async_scheduling else ContinuousEngine
