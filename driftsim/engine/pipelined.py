"""The engine under async scheduling: vLLM schedules a step while the one before it is still being computed.

It mirrors vllm/v1/core/sched/async_scheduler.py and ``step_with_batch_queue`` in vllm/v1/engine/core.py of vLLM 0.32,
two steps in flight, vLLM's default on CUDA. The host works while the GPU does, so there is no gap between steps; where
the host is the slower of the two, the step time's intercept holds it. But where it launches a prefill kernel by kernel,
it can neither schedule nor hand out tokens meanwhile, not even those of the step before.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import simpy

from driftsim.engine.clock import COMPLETE, STEP, Moment
from driftsim.engine.continuous import ContinuousEngine
from driftsim.engine.sequence import Sequence
from driftsim.latency.steptime import Batch, launching
from driftsim.trace.settings import EngineSettings


class PipelinedEngine(ContinuousEngine):
    """Decides on step n+1 as step n-1 ends. So an arrival or a finish takes effect a step later than without.

    The state of a sequence is that after all steps scheduled so far. A sequence whose last token is scheduled awaits
    its output: it keeps its slot and its blocks until that token is out. vLLM knows beforehand only that a limit will
    end a sequence; one that ends by itself is overscheduled, one step in vain (scheduler.py, "Avoid scheduling an extra
    step").
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.gap = 0
        self._launching = launching(self.step_time)
        self._last = 0  # when the step scheduled last completes
        self._host_free = 0  # when the step scheduled last is launched
        self._first: list[Sequence] = []  # those whose first token is in that step
        self._held_step: list[Any] = []  # the same step, as it will be told
        if self._launching is not None and self.on_step is not None:
            self._tell_step, self.on_step = self.on_step, self._hold_step
        # Sequences whose last token is in flight, their final output length, and whether the core goes on after it.
        self._ending: deque[list[tuple[Sequence, int, bool]]] = deque()
        self.overscheduled: set[Sequence] = set()  # those of them that end by themselves: they compute one step more
        self._left_out: set[Sequence] = set()  # decodes that got no turn in the step scheduled last
        self._chunks: dict[Sequence, int] = {}  # with a sliding window: prompt tokens of the step scheduled last

    # -- a decode run: its steps execute from ``_run_start`` on, each scheduled as the one before the last completes

    def _boundary_at(self, steps: int) -> int:
        return self._run_start + self.step_time.decode_run(self._run, steps - 1) if steps > 1 else self._run_start

    def _run_boundary(self) -> int:
        elapsed = self.env.now - self._run_start
        return 1 + (self.step_time.decode_steps(self._run, elapsed, 0) if elapsed > 0 else 0)

    def _start_decode_run(self, start: int) -> None:
        pool = self.pool
        self._run_start = start
        self._run_steps = pool.steps_within(self.free, pool.steps_to_finish())
        if self.waiting:
            self._run_steps = self._undisturbed(self._run_steps)
        self._run.decode_requests, self._run.context_tokens = pool.size, pool.context_tokens
        self._wake_at(self._boundary_at(self._run_steps), STEP, self._core_loop)

    def _finish_decode_run(self) -> None:
        if self._run_steps:
            self._last = self._run_start + self.step_time.decode_run(self._run, self._run_steps)
            if self._taken is not None:
                self._taken(self._run_steps)
            self.free -= self.pool.advance(self._run_steps)
            if self.cadence is not None:
                self.cadence.executed(self._run_steps, bool(self.waiting))
            self._run_steps = 0
            self._left_out.clear()
            self._await_output(self._last)

    # -- one turn of the core's loop

    def _core_loop(self, event: simpy.Event) -> None:
        """Process inputs and schedule until two steps are in flight, or nothing more can be scheduled."""
        if event is not self._next:
            return
        now = self.env.now
        self._finish_decode_run()
        if self._over:
            self._drop_over()
        in_flight = [self._last] if self._last > now else []
        while not in_flight or (len(in_flight) < 2 and self._is_host_free(now)):
            self._process_inputs(now)
            if self._left_out and self.shared is not None:
                self.shared.part()  # their last token is out before the others have their turn
            prefills, preempted = self._schedule(now)
            if not prefills and not self.pool.size:
                self._resume()
                if in_flight or preempted or self.running or not self.waiting:
                    if preempted and not in_flight:
                        continue  # a sequence preempted itself, and nothing computes: the next turn is at once
                    break
                self._fail_head()
                continue
            if self._may_run(in_flight, prefills, preempted):
                self._start_decode_run(self._last)
                return
            self._queue_step(now, prefills, preempted)
            in_flight.append(self._last)
        if in_flight:
            moment = in_flight[0] if len(in_flight) > 1 or self._host_free <= now else 0
            self._wake_at(max(moment, self._host_free), STEP, self._core_loop)
        else:
            self._go_idle(now)

    def _is_host_free(self, now: int) -> bool:
        """Whether the step ahead can be scheduled at ``now``, the one before it being launched."""
        return now >= self._host_free

    def _may_run(self, in_flight: list[int], prefills: list[tuple[Sequence, int]], preempted: int) -> bool:
        """Whether nothing but decodes lies ahead, with one step in flight before them."""
        ending = self.awaiting_output or self._ending or self.overscheduled or self._over
        busy = prefills or preempted or self.prefilling or self._paused or self._inbox or ending
        return bool(in_flight) and not busy and self.on_step is None

    def _queue_step(self, now: int, prefills: list[tuple[Sequence, int]], preempted: int) -> None:
        """Put one step behind the one in flight."""
        before = self._last
        begin = max(now, before)
        self._left_out = set(self._paused)
        if self.windowed is not None:
            self._chunks = dict(prefills)
        duration = self._compute_step(now, begin, prefills, preempted)
        self._last = begin + duration
        if self._launching is not None:
            if now < before < self._host_free:  # the step before is out later, for want of a host
                for sequence in self._first:
                    if sequence.first_token == before:  # else a run of decodes came in between
                        sequence.first_token = self._host_free
            self._first = [sequence for sequence, _ in prefills if sequence.first_token == self._last]
        self._await_output(self._last)

    def _launch(self, now: int, begin: int, batch: Batch) -> int:
        """Launch the step of ``batch`` from ``now`` on; returns how long it takes from ``begin`` on."""
        assert self._launching is not None
        computing, launch = self._launching.parts(batch)
        self._host_free = now + launch
        return max(computing, self._host_free + 1 - begin)  # its last kernel runs after it is launched

    def _hold_step(self, step: tuple[Any, ...]) -> None:
        """Tell of the step before, and keep ``step`` until it is known when it is out: from then on the next counts."""
        row = list(step)
        if self._held_step:
            late = self._host_free - self._last if step[0] < self._last < self._host_free else 0
            self._held_step[1] += late
            row[1] -= late
            self._tell_step(tuple(self._held_step))
        self._held_step = row

    def _go_idle(self, now: int) -> None:
        if self._held_step:
            self._tell_step(tuple(self._held_step))
            self._held_step = []
        super()._go_idle(now)

    def _unseen(self, sequence: Sequence) -> int:
        """1 token if ``sequence`` takes part in the step in flight (scheduler.py, update_from_output, skips it)."""
        decodes = sequence not in self.prefilling and sequence not in self._left_out
        return int(decodes and self._last > self.env.now)

    def _in_flight(self, sequence: Sequence) -> int:
        if self._last <= self.env.now:
            return 0
        return self._chunks.get(sequence) or self._unseen(sequence)

    def _await_output(self, end: int) -> None:
        """Let the sequences whose last token was scheduled just now await it; an event at ``end`` finishes them."""
        ended = []
        if self.shared is not None and self.pool.size and not self.pool.steps_to_finish():
            self.shared.part()
        for sequence in self.pool.take_finished():
            self.awaiting_output.add(sequence)
            if sequence in self.overscheduled:
                self.overscheduled.discard(sequence)
                continue
            ended.append((sequence, sequence.target, sequence.late))
        for sequence, target, late in ended:
            if target < sequence.most:
                self.awaiting_output.discard(sequence)
                if late:
                    sequence.late = False
                else:
                    self.overscheduled.add(sequence)
                sequence.target += 1
                self.pool.join(sequence)
        if ended:
            self._ending.append(ended)
            Moment(self.env, end, COMPLETE, self._on_step_done)

    def _on_step_done(self, event: simpy.Event) -> None:
        """A step is over in which a sequence ended; its slot and blocks are free for the next step to be scheduled."""
        if self._host_free > self.env.now:
            Moment(self.env, self._host_free, COMPLETE, self._on_step_done)
            return
        finished, ending = [], self._ending.popleft()
        if self._over:  # the core hears of them last
            ending.sort(key=lambda one: one[0].over and one[1] < one[0].most)
        for sequence, shown, late in ending:
            if late:
                if not sequence.finish_reason:
                    finished.append(self._let_go(sequence, shown, self.env.now))
                continue
            self.overscheduled.discard(sequence)
            if sequence.finish_reason:  # aborted in the meantime
                continue
            if sequence in self.running:
                self._remove(sequence, self.free, ended=sequence.prompt + shown - 1)
            else:  # preempted while its last token was in flight: vLLM delivers stale output all the same
                self.waiting.remove(sequence)
            sequence.shown = shown
            if sequence.over:
                self._forget_over(sequence)
                continue
            self._end(sequence, self.env.now)
            finished.append(sequence)
        self.on_leave(finished)


def engine_for(settings: EngineSettings) -> type[ContinuousEngine]:
    """The engine that schedules as ``settings`` say."""
    return PipelinedEngine if settings.async_scheduling else ContinuousEngine
