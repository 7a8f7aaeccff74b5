"""A continuous-batching engine with the scheduling of vLLM V1, which jumps over the steps that decide nothing.

It mirrors vllm/v1/core/sched/scheduler.py of vLLM 0.32, FCFS and priority, and equals a step-by-step engine exactly
(tests/stepwise.py): while the running set does not change, only contexts grow, and one event carries it to the next
step that can decide something. All times are integer ticks. With async scheduling it is a ``PipelinedEngine``.
"""

from __future__ import annotations

from collections.abc import Callable

import simpy

from driftsim.engine.clock import COMPLETE, STEP, Clock, Moment
from driftsim.engine.decoding import DecodePool
from driftsim.engine.sequence import Sequence, blocks_for
from driftsim.engine.waiting import waiting_queue
from driftsim.errors import InputError
from driftsim.latency.noise import NoisyStepTime
from driftsim.latency.steptime import Batch, StepTime
from driftsim.request import Job
from driftsim.trace.header import EngineSettings


class ContinuousEngine:
    """The engine behind the dispatcher; ``on_leave`` gets the sequences that a step finished, or one it turned away.

    ``on_step`` gets every step as a tuple in the order of the trace's steps table, with times in ticks; with it, the
    engine makes one step an event.
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
        if settings.enable_prefix_caching:
            raise InputError("prefix caching is not simulated; record with enable_prefix_caching off")
        self.env = env
        self.settings = settings
        self.step_time = step_time
        self._taken = step_time.taken if isinstance(step_time, NoisyStepTime) else None
        self.gap = gap
        self.on_leave = on_leave
        self.on_step = on_step
        self.free = self.total = settings.usable_kv_blocks
        self._watermark = int(settings.watermark * settings.kv_blocks)
        self._threshold = settings.long_prefill_token_threshold
        self._longest = settings.max_model_len
        self._longest_prompt = min(settings.max_model_len - 1, self.total * settings.block_size)
        self._limits = (settings.max_num_batched_tokens, settings.max_num_seqs, settings.block_size)
        self.by_priority = settings.scheduling_policy == "priority"
        self.waiting = waiting_queue(settings.scheduling_policy)
        self.running: dict[Sequence, None] = {}  # in order of admission
        self.prefilling: dict[Sequence, None] = {}  # those of them who are not through their prompt
        self.exhausted: set[Sequence] = set()  # those who compute no more but have not been told so (pipelined)
        self.pool = DecodePool(settings.block_size)
        self._inbox: list[Sequence] = []  # sent, not yet drained by the core
        self._aborts: list[Job] = []
        self._paused: list[Sequence] = []  # decodes that get no turn in the step under way
        self._admitted = self._sent = 0
        self._next: Moment | None = None  # the event that goes on; None while idle
        self._run_start = self._run_steps = 0  # the decode run under way
        self._last_call = 0  # until then a message is drained before the run's first step
        self._run = Batch()
        self._batch = Batch()  # of the step under way

    def room(self) -> int:
        """It queues whatever it is given."""
        return 1_000_000_000

    def submit(self, job: Job, true_length: int | None) -> None:
        """Take ``job``, which will produce ``true_length`` output tokens unless a limit cuts it short.

        What can never fit leaves at once, as rejected. Raises ``InputError`` without a true length above 0.
        """
        if true_length is None or true_length < 1:
            raise InputError(f"request {job.request.id}: a simulated engine needs an output length, got {true_length}")
        request = job.request
        prompt, most = request.prompt_tokens, request.max_tokens
        if self._longest - prompt < most:
            most = self._longest - prompt
        sequence = Sequence(job, true_length if true_length < most else most)
        if prompt > self._longest_prompt:
            self._turn_away(sequence, "rejected", f"request {job.request.id} {self._never_fits(prompt)}")
            return
        if self.by_priority:
            self._sent += 1
            sequence.rank = (job.priority, self._sent)
        self._inbox.append(sequence)
        if self._next is None:
            self._go_on(self.env._now, STEP, self._begin)
        elif self._run_steps:
            self._interrupt(sequence)

    def abort(self, job: Job) -> None:
        """Drop ``job`` when the core next drains its messages; it leaves with what it has shown by then."""
        self._aborts.append(job)
        if self._run_steps:
            self._stop_run_after(self._run_boundary())

    def _never_fits(self, prompt: int) -> str:
        blocks = blocks_for(prompt, self.settings.block_size)
        if prompt >= self.settings.max_model_len:
            return f"has {prompt} prompt tokens, the engine's max_model_len is {self.settings.max_model_len}"
        return f"needs {blocks} KV blocks for its prompt, the engine has {self.total}"

    def _turn_away(self, sequence: Sequence, reason: str, error: str | None) -> None:
        sequence.finish_reason, sequence.error = reason, error
        sequence.finish = None if reason == "rejected" else self.env._now
        self.on_leave([sequence])

    def _go_on(self, moment: int, priority: int, callback: Callable[[simpy.Event], None]) -> None:
        self._next = Moment(self.env, moment, priority, callback)

    # -- a decode run, and what cuts it short

    def _interrupt(self, sequence: Sequence) -> None:
        """End the run at the boundary at which ``sequence`` is drained, unless nobody could be admitted there."""
        boundary = self._run_boundary()
        if boundary >= self._run_steps:
            return
        tokens, slots, _ = self._limits
        # A newcomer of a better priority may pass a head that does not fit.
        blocked = (self.waiting and not self.by_priority) or len(self.running) >= slots
        if blocked or self.pool.size >= tokens:
            sequence.queued = self._boundary_at(boundary)
        else:
            self._stop_run_after(boundary)

    def _stop_run_after(self, steps: int) -> None:
        if steps < self._run_steps:
            self._run_steps = steps
            self._go_on(self._boundary_at(steps), STEP, self._begin)

    def _boundary_at(self, steps: int) -> int:
        """When the core drains its messages before it schedules the step after ``steps`` of the run."""
        return self._run_start + self.step_time.decode_run(self._run, steps) + steps * self.gap

    def _run_boundary(self) -> int:
        """The number of the run's steps that start before the core next drains its messages; 0: it has not begun."""
        if self.env._now <= self._last_call:
            return 0
        return self.step_time.decode_steps(self._run, self.env._now - self._run_start, self.gap)

    def _decode(self, start: int) -> None:
        """From ``start`` on, decode until somebody ends or blocks run out."""
        pool, run = self.pool, self._run
        steps = pool.steps_to_finish()
        fitting = pool.steps_within(self.free, steps)
        self._run_start, self._run_steps = start, fitting
        self._last_call = start if start > self.env._now else start - 1
        run.decode_requests, run.context_tokens = pool.size, pool.context_tokens
        end = start + self.step_time.decode_run(run, fitting) + fitting * self.gap
        if fitting < steps:
            self._next = Moment(self.env, end, STEP, self._begin)
        else:
            self._next = Moment(self.env, end - self.gap, COMPLETE, self._complete)

    def _settle(self) -> None:
        """Write down the run that has just ended."""
        if self._run_steps:
            if self._taken is not None:
                self._taken(self._run_steps)
            self.free -= self.pool.advance(self._run_steps)
            self._run_steps = 0

    # -- one turn of vLLM's core loop

    def _begin(self, event: simpy.Event) -> None:
        """Drain all messages, schedule, execute (v1/engine/core.py, run_busy_loop)."""
        if event is not self._next:  # the run was cut short in the meantime
            return
        now = self.env._now
        if self._run_steps:
            self._settle()
        if not (self._inbox or self.waiting or self.prefilling or self._aborts or self.on_step) and self._suffices():
            self._decode(now)  # nothing to decide
            return
        self._drain(now)
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
        # The inbox is filled again where one was turned away and another came in return.
        if prefills or (self.pool.size and (preempted or self._inbox or self.on_step is not None)):
            self._step(now, prefills, preempted)
        elif self.pool.size:
            self._decode(now)
        else:
            self._rest(now)

    def _suffices(self) -> bool:
        """Whether somebody decodes, and the free blocks are enough for the next step."""
        return self.pool.size > 0 and self._spare() >= 0

    def _drain(self, now: int) -> None:
        """Take in all messages."""
        if self._inbox:
            for sequence in self._inbox:
                if sequence.queued is None:
                    sequence.queued = now
            self.waiting.extend(self._inbox)
            self._inbox.clear()
        if self._aborts:
            self._drop()

    def _rest(self, now: int) -> None:
        """Nothing to compute: idle, unless somebody came in return for one that was turned away."""
        self._next = None
        if self._inbox:
            self._go_on(now, STEP, self._begin)

    def _schedule(self, now: int) -> tuple[list[tuple[Sequence, int]], int]:
        """Who prefills how many tokens in this step, beside all who decode, and how many were preempted for it."""
        threshold = self._threshold
        if threshold and len(self.running) + len(self.waiting) < 2:
            threshold = 0  # nobody to starve: a lone long prefill gets the whole budget
        prefills: list[tuple[Sequence, int]] = []
        preempted, short = 0, self._spare() < 0
        if short or self.prefilling:
            if self.by_priority or (self.prefilling and self._threshold):
                preempted = self._walk(prefills, threshold)
            else:
                preempted = self._make_room() if short else 0
                if self.prefilling:
                    preempted += self._continue_prefill(prefills)
        # A step that preempted admits nobody, lest it evict what it just admitted.
        if not preempted and self.waiting:
            self._admit(prefills, threshold, now)
        return prefills, preempted

    def _make_room(self) -> int:
        """Preempt from the back until every decode that needs a block gets one, in order of admission."""
        preempted = claimed = 0
        for sequence in sorted(self.pool.claims(), key=_by_admission):
            if sequence not in self.running:
                continue
            while claimed == self.free:
                victim = self._victim()
                self._preempt(victim)
                preempted += 1
                if victim is sequence:
                    return preempted
            claimed += 1
        return preempted

    def _continue_prefill(self, prefills: list[tuple[Sequence, int]]) -> int:
        """Go on with the prompt that is partly through; there is one at most, and it was admitted last."""
        for sequence in self.prefilling:
            budget = self.settings.max_num_batched_tokens - self.pool.size
            new = min(sequence.length - sequence.computed, budget)
            if new <= 0:
                break
            need = self._growth(sequence, new)
            if need > self._spare():
                self._preempt(sequence)
                return 1
            self.free -= need
            prefills.append((sequence, new))
        return 0

    def _walk(self, prefills: list[tuple[Sequence, int]], threshold: int) -> int:
        """Schedule those who run one by one: with a cap on prefill chunks, several may stand between the decodes, and
        by priority a victim may stand anywhere, before the one that it makes room for as well.
        """
        budget, spare, preempted = self.settings.max_num_batched_tokens, self.free, 0
        claims = self.pool.claims()
        order = [sequence for sequence in self.running if sequence not in self.exhausted]
        given: dict[Sequence, tuple[int, int]] = {}  # tokens and blocks of this step
        index = 0
        while index < len(order) and budget > 0:
            sequence = order[index]
            prefill = sequence in self.prefilling
            new = min(sequence.length - sequence.computed, threshold or budget, budget) if prefill else 1
            need = self._growth(sequence, new) if prefill else int(sequence in claims)
            while need > spare:
                victim = self._victim()
                if victim in given:  # its turn in this step is taken back (scheduler.py, PRIORITY)
                    tokens, blocks = given.pop(victim)
                    budget += tokens
                    spare += blocks
                if victim in order:
                    index -= order.index(victim) < index
                    order.remove(victim)
                spare += self._preempt(victim)
                preempted += 1
                if victim is sequence:
                    break
            else:
                spare -= need
                budget -= new
                index += 1
                given[sequence] = (new, need)
                continue
            break
        for sequence, (new, need) in given.items():
            if sequence in self.prefilling:
                self.free -= need
                prefills.append((sequence, new))
        for sequence in order[index:]:  # the budget ran out before their turn: they pause for this step
            if sequence not in self.prefilling:
                self.pool.leave(sequence)
                self._paused.append(sequence)
        return preempted

    def _resume(self) -> None:
        """Whoever paused takes part again."""
        for sequence in self._paused:
            self.pool.join(sequence)
        self._paused.clear()

    def _victim(self) -> Sequence:
        """Who is preempted: of FCFS the one admitted last, by priority the last in that order."""
        return max(self.running, key=_by_rank) if self.by_priority else next(reversed(self.running))

    def _admit(self, prefills: list[tuple[Sequence, int]], threshold: int, now: int) -> None:
        """Admit from the head of the waiting queue while slots, token budget and KV blocks allow; nobody is skipped."""
        waiting, running, pool = self.waiting, self.running, self.pool
        budget, slots, size = self._limits
        budget -= pool.size
        for _, new in prefills:
            budget -= new
        spare = begun = self._spare()
        while waiting and budget > 0 and len(running) < slots:
            sequence = waiting[0]
            new = length = sequence.prompt + sequence.shown  # recomputes what a preemption lost, outputs included
            if threshold and new > threshold:
                new = threshold
            if new > budget:
                if not self.settings.enable_chunked_prefill:
                    break
                new = budget
            # The whole prompt must fit, though blocks are taken for this chunk only (full_sequence_must_fit), and the
            # watermark must stay free unless nobody runs (kv_cache_manager.py, allocate_slots).
            need = asked = -(-new // size)
            if new < length:
                whole = -(-length // size)
                # Without a reserve vLLM would start over and over on what can never fit; we let it wait, and say so.
                asked = whole if self.settings.scheduler_reserve_full_isl or whole > self.total else need
            if asked > spare or (running and asked + self._watermark > spare):
                break
            spare -= need
            budget -= new
            self._admitted += 1
            sequence.number = self._admitted
            running[waiting.popleft()] = None
            if new < length:
                self.prefilling[sequence] = None
            prefills.append((sequence, new))
            if sequence.scheduled is None:  # vLLM keeps the first time when a preempted request resumes
                sequence.scheduled = now
        self.free -= begun - spare

    def _spare(self) -> int:
        """Free blocks, less those that this step's decodes take."""
        return self.free - self.pool.claimed()

    def _growth(self, sequence: Sequence, new: int) -> int:
        size = self.settings.block_size
        return blocks_for(sequence.computed + new, size) - blocks_for(sequence.computed, size)

    def _preempt(self, victim: Sequence) -> int:
        """Recompute later: its blocks are lost and returned, what was shown is kept, it waits at the front."""
        held = self._remove(victim)
        victim.computed = 0
        victim.preemptions += 1
        self.waiting.appendleft(victim)
        return held

    def _remove(self, sequence: Sequence) -> int:
        """Take ``sequence`` out of those who run and free its blocks; returns how many."""
        if sequence in self.prefilling:
            del self.prefilling[sequence]
        elif sequence in self.exhausted:
            self.exhausted.discard(sequence)
        else:
            self.pool.leave(sequence)
        del self.running[sequence]
        held = blocks_for(sequence.computed, self.settings.block_size)
        self.free += held
        return held

    def _fail_head(self) -> None:
        sequence = self.waiting.popleft()
        need = blocks_for(sequence.length, self.settings.block_size)
        problem = f"request {sequence.job.request.id} has grown to {need} KV blocks, the engine has {self.total}"
        self._turn_away(sequence, "error", problem)

    def _drop(self) -> None:
        """Let those who are to be aborted leave, if they are still here."""
        gone, self._aborts = set(map(id, self._aborts)), []
        for sequence in [one for one in (*self.running, *self.waiting) if id(one.job) in gone]:
            if sequence in self.running:
                unseen = self._unseen(sequence)
                self._remove(sequence)
                sequence.shown -= unseen
                if not sequence.shown:
                    sequence.first_token = None
            else:
                self.waiting.remove(sequence)
            self._turn_away(sequence, "abort", None)

    def _unseen(self, sequence: Sequence) -> int:
        """Its tokens that are still being computed; an abort drops them."""
        return 0

    def _step(self, now: int, prefills: list[tuple[Sequence, int]], preempted: int) -> None:
        """Execute one step, and go on to whatever can be decided next."""
        pool, end = self.pool, now + self._advance(now, now, prefills, preempted)
        if pool.size and pool.steps_to_finish() == 0:
            self._go_on(end, COMPLETE, self._complete)
        elif preempted or self.waiting or self.prefilling or self._inbox or self.on_step is not None:
            self._go_on(end + self.gap, STEP, self._begin)  # the next step may schedule something else
        else:
            self._decode(end + self.gap)

    def _advance(self, now: int, begin: int, prefills: list[tuple[Sequence, int]], preempted: int) -> int:
        """Compute one step, scheduled ``now`` and executed from ``begin`` on; returns how long it takes.

        What it leads to is written down at once, since nothing can look before its end.
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
        duration = self.step_time.step(batch)
        self.free -= pool.advance(1)
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
        if self.on_step is not None:
            composition = (batch.prefill_tokens, batch.prefill_requests, batch.decode_requests, batch.context_tokens)
            after = (len(self.running), len(self.waiting), self.total - self.free, preempted)
            self.on_step((now, duration, *composition, batch.prefill_attention, *after))
        return duration

    def _complete(self, event: simpy.Event) -> None:
        """A step is over in which somebody ended; slots and blocks are free for the very next one."""
        if event is not self._next:
            return
        now = self.env._now
        self._settle()
        finished = self.pool.take_finished()
        size, running = self._limits[2], self.running
        for sequence in finished:
            del running[sequence]
            self.free -= -sequence.computed // size  # rounded up
            self._end(sequence, now)
        if not (self.running or self.waiting or self._inbox or self._aborts):
            self._next = None
            self.on_leave(finished)
        elif self.gap:
            self._go_on(now + self.gap, STEP, self._begin)
            self.on_leave(finished)
        else:
            self.on_leave(finished)  # whoever comes in return waits for the step below
            queue = self.env._queue
            if not queue or queue[0][0] > now:  # nothing else happens at this instant
                self._begin(event)
            else:
                self._go_on(now, STEP, self._begin)

    def _end(self, sequence: Sequence, now: int) -> None:
        shown = sequence.shown
        capped = shown >= sequence.job.request.max_tokens or sequence.prompt + shown >= self._longest
        sequence.finish, sequence.finish_reason = now, "length" if capped else "stop"


def _by_admission(sequence: Sequence) -> int:
    return sequence.number


def _by_rank(sequence: Sequence) -> tuple[int, int]:
    return sequence.rank
