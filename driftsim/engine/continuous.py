"""A continuous-batching engine with the scheduling of vLLM V1, which jumps over the steps that decide nothing.

It runs the ``Scheduler`` as vLLM's core loop does (vllm/v1/engine/core.py, run_busy_loop), and equals a step-by-step
engine exactly (tests/stepwise.py): while the running set does not change, only contexts grow, and one event carries the
engine over this *decode run* to the next step that can decide something. All times are integer ticks. With async
scheduling it is a ``PipelinedEngine``.
"""

from __future__ import annotations

from collections.abc import Callable

import simpy

from driftsim.engine.clock import COMPLETE, STEP, Clock, Moment
from driftsim.engine.endings import Endings
from driftsim.engine.sequence import Sequence, blocks_for
from driftsim.engine.waiting import sequences_of
from driftsim.errors import InputError
from driftsim.latency.noise import NoisyStepTime
from driftsim.latency.steptime import Batch, LaunchedStepTime, StepTime
from driftsim.request import Job
from driftsim.trace.settings import EngineSettings


class ContinuousEngine(Endings):
    """The engine behind the dispatcher; ``on_leave`` gets the sequences that a step finished, or one left unserved.

    ``on_step`` gets every step as a tuple in the order of the trace's steps table, with times in ticks. Recording steps
    turns fast-forwarding off: every step is an event of its own.
    """

    def __init__(
        self,
        env: Clock,
        settings: EngineSettings,
        step_time: StepTime,
        gap: int,
        on_leave: Callable[[list[Sequence]], None],
        on_step: Callable[[tuple[float, ...]], None] | None = None,
    ) -> None:
        super().__init__(settings)
        self.env = env
        self.step_time = step_time
        self._launching: LaunchedStepTime | None = None  # only where a step is launched while another computes
        self._taken = step_time.taken if isinstance(step_time, NoisyStepTime) else None
        self.gap = gap
        self.on_leave = on_leave
        # With a sliding window every step is made: it decides which blocks are free.
        self.on_step = on_step if on_step is not None or self.windowed is None else lambda step: None  # nobody asked
        self._longest_prompt = min(settings.max_model_len - 1, self.total * settings.block_size)
        if self.windowed is not None and self.windowed.most <= self.total:
            self._longest_prompt = settings.max_model_len - 1
        reserved = settings.scheduler_reserve_full_isl  # then a head needs room for its whole prompt in any case
        self._shrinking = bool(self._threshold) and settings.long_prefill_token_threshold_adaptive and not reserved
        self._inbox: list[Sequence] = []  # sent, not yet taken in by the core
        self._sent = 0
        self._arrivals: dict[int, int] = {}  # by request of several choices, the number of its first one
        self._aborts: list[Job] = []
        self._next: Moment | None = None  # the next event of the core loop; None while idle
        self._run_start = self._run_steps = 0  # the decode run under way
        self._last_call = 0  # arrivals up to this tick still join before the run's first step
        self._run = Batch()
        self._batch = Batch()  # of the step under way

    def room(self) -> int:
        """More than any workload holds: the engine queues every job that it is given."""
        return 1_000_000_000

    def submit(self, job: Job, true_length: int | None) -> None:
        """Take ``job``, which will produce ``true_length`` output tokens unless a limit cuts it short.

        A prompt that can never fit leaves at once, as rejected. Raises ``InputError`` without a true length above 0.
        """
        if true_length is None or true_length < 1:
            raise InputError(f"request {job.request.id}: a simulated engine needs an output length, got {true_length}")
        request = job.request
        prompt, most = request.prompt_tokens, request.max_tokens
        if self._longest - prompt < most:
            most = self._longest - prompt
        sequence = Sequence(job, true_length if true_length < most else most)
        sequence.most = most
        if self.ends_late:
            sequence.late = job.index in self.ends_late and sequence.target < most
        if self.shared is not None:
            self.shared.enter(sequence)
        if prompt > self._longest_prompt:
            self._leave_unserved(sequence, "rejected", f"request {job.request.id} {self._never_fits(prompt)}")
            return
        if self.by_priority:
            self._sent += 1
            sequence.rank = (job.priority, self._sent) if request.choice is None else self._rank_of_choice(job)
        self._inbox.append(sequence)
        if self._next is None:
            self._wake_at(self.env.now, STEP, self._core_loop)
        elif self._run_steps:
            self._shorten_decode_run(sequence)

    def abort(self, job: Job) -> None:
        """Drop ``job`` when the core next takes in its messages; it leaves with the tokens it has shown by then."""
        self._aborts.append(job)
        if self._run_steps:
            self._stop_run_after(self._run_boundary())

    def _never_fits(self, prompt: int) -> str:
        blocks = blocks_for(prompt, self.settings.block_size)
        if prompt >= self.settings.max_model_len:
            return f"has {prompt} prompt tokens, the engine's max_model_len is {self.settings.max_model_len}"
        return f"needs {blocks} KV blocks for its prompt, the engine has {self.total}"

    def _leave_unserved(self, sequence: Sequence, reason: str, error: str | None) -> None:
        """Let ``sequence`` leave without its full output: rejected, failed or aborted."""
        sequence.finish_reason, sequence.error = reason, error
        if sequence.over:
            return
        sequence.finish = None if reason == "rejected" else self.env.now
        self.on_leave([sequence])

    def _rank_of_choice(self, job: Job) -> tuple[int, int, str]:
        """The choices of one request arrive at one time: vLLM orders them by the beginnings of their ids, as texts."""
        assert job.request.choice is not None
        first, place, _ = job.request.choice
        self.tied = True
        return (job.priority, self._arrivals.setdefault(first, self._sent), f"{place}_")

    def _wake_at(self, moment: int, priority: int, callback: Callable[[simpy.Event], None]) -> None:
        self._next = Moment(self.env, moment, priority, callback)

    # -- a decode run, and what cuts it short

    def _shorten_decode_run(self, sequence: Sequence) -> None:
        """End the run at the boundary at which the core takes in ``sequence``, unless it could admit nobody there."""
        boundary = self._run_boundary()
        if boundary >= self._run_steps:
            return
        tokens, slots, _ = self._limits
        # A newcomer of a better priority may pass a head that does not fit; and the more there are, the smaller may the
        # chunks be, of which the first may fit.
        blocked = (self.waiting and not self.by_priority and not self._shrinking) or len(self.running) >= slots
        if blocked or self.pool.size >= tokens:
            sequence.queued = self._boundary_at(boundary)
        else:
            self._stop_run_after(boundary)

    def _stop_run_after(self, steps: int) -> None:
        if steps < self._run_steps:
            self._run_steps = steps
            self._wake_at(self._boundary_at(steps), STEP, self._core_loop)

    def _boundary_at(self, steps: int) -> int:
        """When the core takes in its messages before it schedules the step after ``steps`` of the run."""
        return self._run_start + self.step_time.decode_run(self._run, steps) + steps * self.gap

    def _run_boundary(self) -> int:
        """The number of the run's steps that start before the core next takes in messages; 0: the run has not begun."""
        if self.env.now <= self._last_call:
            return 0
        return self.step_time.decode_steps(self._run, self.env.now - self._run_start, self.gap)

    def _start_decode_run(self, start: int) -> None:
        """From ``start`` on, decode until a sequence ends or the free blocks run out."""
        pool, run = self.pool, self._run
        steps = pool.steps_to_finish()
        fitting = pool.steps_within(self.free, steps)
        if self.waiting or self.prefilling:
            fitting = self._undisturbed(fitting)
        self._run_start, self._run_steps = start, fitting
        self._last_call = start if start > self.env.now else start - 1
        run.decode_requests, run.context_tokens = pool.size, pool.context_tokens
        end = start + self.step_time.decode_run(run, fitting) + fitting * self.gap
        if fitting < steps:
            self._next = Moment(self.env, end, STEP, self._core_loop)
        else:
            self._next = Moment(self.env, end - self.gap, COMPLETE, self._on_step_done)

    def _undisturbed(self, steps: int) -> int:
        """At most ``steps`` decode steps: until the cadence lets prompts in, or a block that the head needs is full."""
        if self.cadence is not None and self.cadence.held:
            steps = min(steps, self.cadence.steps_held())
        if self.shared is not None and self.waiting:
            steps = self.shared.sooner(self.waiting[0], steps)
        return steps

    def _finish_decode_run(self) -> None:
        """Apply the steps of the run that has just ended."""
        if self._run_steps:
            if self._taken is not None:
                self._taken(self._run_steps)
            self.free -= self.pool.advance(self._run_steps)
            if self.cadence is not None:
                self.cadence.executed(self._run_steps, bool(self.waiting))
            self._run_steps = 0

    # -- one turn of vLLM's core loop

    def _core_loop(self, event: simpy.Event) -> None:
        """Process inputs, schedule, execute (v1/engine/core.py, run_busy_loop)."""
        if event is not self._next:  # the run was cut short in the meantime
            return
        now = self.env.now
        if self._run_steps:
            self._finish_decode_run()
        if self._over:
            self._drop_over()
        if not (self._inbox or self.waiting or self.prefilling or self._aborts or self.on_step) and self._suffices():
            self._start_decode_run(now)  # nothing to decide
            return
        self._process_inputs(now)
        while True:
            prefills, preempted = self._schedule(now)
            if prefills or self.pool.size:
                break
            self._resume()
            if not (self.running or self.waiting):
                break
            if not preempted:
                # Nobody runs and the head does not fit an empty cache. vLLM would spin here for ever; we say so.
                self._fail_head()
        # A sequence left unserved above may have brought a new arrival into the inbox.
        if prefills or (self.pool.size and (preempted or self._inbox or self._over or self.on_step is not None)):
            self._execute(now, prefills, preempted)
        elif self.pool.size:
            self._start_decode_run(now)
        else:
            self._go_idle(now)

    def _suffices(self) -> bool:
        """Whether a sequence decodes, and the free blocks are enough for the next step."""
        return self.pool.size > 0 and self._spare() >= 0

    def _process_inputs(self, now: int) -> None:
        """Take in all messages: new sequences, then aborts (v1/engine/core.py, _process_input_queue)."""
        if self._inbox:
            for sequence in self._inbox:
                if sequence.queued is None:
                    sequence.queued = now
            self.waiting.extend(self._inbox)
            self._inbox.clear()
        if self._aborts:
            self._process_aborts()

    def _process_aborts(self) -> None:
        """Let the sequences of aborted jobs leave, in the order of the messages, if they are still in the engine."""
        jobs, self._aborts = self._aborts, []
        for sequence in sequences_of(jobs, self.running, self.waiting):
            self._drop(sequence)
            self._leave_unserved(sequence, "abort", None)

    def _fail_head(self) -> None:
        """Let the head of the waiting queue leave with an error: it has outgrown the whole cache."""
        sequence = self.waiting.popleft()
        need = blocks_for(sequence.length, self.settings.block_size)
        problem = f"request {sequence.job.request.id} has grown to {need} KV blocks, the engine has {self.total}"
        self._leave_unserved(sequence, "error", problem)

    def _go_idle(self, now: int) -> None:
        """Compute nothing until the next arrival, which a sequence left unserved may have brought already."""
        self._next = None
        if self._inbox:
            self._wake_at(now, STEP, self._core_loop)

    def _execute(self, now: int, prefills: list[tuple[Sequence, int]], preempted: int) -> None:
        """Execute one step, and wake at the next moment at which something can be decided."""
        pool, end = self.pool, now + self._compute_step(now, now, prefills, preempted)
        if pool.size and pool.steps_to_finish() == 0:
            self._wake_at(end, COMPLETE, self._on_step_done)
        elif preempted or self.waiting or self.prefilling or self._inbox or self.on_step is not None:
            self._wake_at(end + self.gap, STEP, self._core_loop)  # the next step may schedule something else
        else:
            self._start_decode_run(end + self.gap)

    def _compute_step(self, now: int, begin: int, prefills: list[tuple[Sequence, int]], preempted: int) -> int:
        """Compute one step, scheduled ``now`` and executed from ``begin`` on; returns how long it takes.

        Effects are applied at once: no event can observe the engine before the step ends.
        """
        pool = self.pool
        decodes, context, tokens, attention = pool.size, pool.context_tokens, 0, 0.0
        for sequence, new in prefills:
            computed = sequence.computed
            if new == 1 and computed >= sequence.prompt:  # the tail of a recompute: a decode to the GPU
                decodes += 1
                context += computed + 1
            else:
                tokens += new
                attention += new * (computed + (new + 1) / 2)
        batch = self._batch
        batch.prefill_tokens, batch.prefill_attention = tokens, attention
        batch.prefill_requests = pool.size + len(prefills) - decodes
        batch.decode_requests, batch.context_tokens = decodes, context
        duration = self.step_time.step(batch) if self._launching is None else self._launch(now, begin, batch)
        self.free -= pool.advance(1)
        if self.cadence is not None:
            self.cadence.executed(1, True)
        if self._paused:
            self._resume()
        for sequence, new in prefills:
            sequence.computed = computed = sequence.computed + new
            shown = sequence.shown
            if computed == sequence.prompt + shown:  # a chunk before the end samples nothing
                self.prefilling.pop(sequence, None)
                sequence.shown = shown + 1
                if sequence.first_token is None:
                    sequence.first_token = begin + duration
                pool.join(sequence)
                if self.shared is not None:
                    sequence.joined = computed
        if self.on_step is not None:
            composition = (batch.prefill_tokens, batch.prefill_requests, batch.decode_requests, batch.context_tokens)
            after = (len(self.running), len(self.waiting), self.total - self.free, preempted)
            self.on_step((now, duration, *composition, batch.prefill_attention, *after))
        return duration

    def _launch(self, now: int, begin: int, batch: Batch) -> int:
        raise NotImplementedError

    def _on_step_done(self, event: simpy.Event) -> None:
        """A step is over in which a sequence ended; its slot and blocks are free for the very next step."""
        if event is not self._next:
            return
        now = self.env.now
        self._finish_decode_run()
        finished = self.pool.take_finished()
        size, running, shared = self._limits[2], self.running, self.shared
        if shared is not None:
            shared.follow(self.free)
        leaving = finished
        if self.ends_late:
            leaving, finished = self._late_ends(finished, now)
        for sequence in leaving:
            del running[sequence]
            if shared is None:
                self.free -= -sequence.computed // size  # rounded up
            else:
                self.free += shared.give_back(sequence, sequence.computed, sequence.computed)
            self._end(sequence, now)
        if not (self.running or self.waiting or self._inbox or self._aborts):
            self._next = None
            self.on_leave(finished)
        elif self.gap:
            self._wake_at(now + self.gap, STEP, self._core_loop)
            self.on_leave(finished)
        else:
            self.on_leave(finished)  # a job that this brings in waits for the step below
            upcoming = self.env.upcoming
            if not upcoming or upcoming[0][0] > now:  # nothing else happens at this instant
                self._core_loop(event)
            else:
                self._wake_at(now, STEP, self._core_loop)
