"""The oracle: a continuous-batching engine with the scheduling of vLLM V1, simulated step by step.

It follows vllm/v1/core/sched/scheduler.py of vLLM 0.32 line by line, FCFS and priority, and in ``StepwiseAsyncEngine``
async_scheduler.py and the batch queue of v1/engine/core.py; comments name the rule where it surprises. All times are
integer ticks.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from typing import Any

from driftsim.engine.clock import COMPLETE, STEP, Clock, Moment
from driftsim.engine.sequence import Sequence, blocks_for
from driftsim.engine.waiting import waiting_queue
from driftsim.latency.steptime import Batch, StepTime
from driftsim.request import Job
from driftsim.trace.header import EngineSettings


class BlockPool:
    """``total`` blocks of ``block_size`` tokens; a holder is any hashable."""

    def __init__(self, total: int, block_size: int) -> None:
        self.total = total
        self.block_size = block_size
        self.free = total
        self.held: dict[object, int] = {}

    @property
    def used(self) -> int:
        """Blocks held by anybody."""
        return self.total - self.free

    def grow(self, holder: object, tokens: int, must_fit: int = 0, watermark: int = 0) -> bool:
        """Let ``holder`` hold ``tokens`` tokens; False, and nothing changed, where the free blocks do not suffice.

        ``must_fit`` asks that so many tokens would fit, though blocks are taken for ``tokens`` only: vLLM admits a
        request only if its whole prompt fits (kv_cache_manager.py, ``full_sequence_must_fit``). ``watermark`` blocks
        must stay free.
        """
        have = self.held.get(holder, 0)
        need = blocks_for(tokens, self.block_size) - have
        if max(need, blocks_for(must_fit, self.block_size) - have) + watermark > self.free:
            return False
        if need > 0:
            self.free -= need
            self.held[holder] = have + need
        return True

    def release(self, holder: object) -> None:
        """Free all that ``holder`` holds."""
        self.free += self.held.pop(holder, 0)


class StepwiseEngine:
    """The engine behind the dispatcher; ``on_leave`` gets the sequences that a step finished, or one it turned away.

    ``on_step`` gets every step as a tuple in the order of the trace's steps table, with times in ticks.
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
            raise ValueError("prefix caching is not simulated; record with enable_prefix_caching off")
        self.env = env
        self.settings = settings
        self.step_time = step_time
        self.gap = gap
        self.on_leave = on_leave
        self.on_step = on_step
        self.kv = BlockPool(settings.usable_kv_blocks, settings.block_size)
        self.inbox: list[Sequence] = []  # sent, not yet drained by the core
        self.waiting = waiting_queue(settings.scheduling_policy)
        self.sent = 0
        # Of async scheduling, and empty without: tokens sampled but not out yet, all tokens in flight, and those of
        # them that a preemption has made stale.
        self.placeholders: Counter[Sequence] = Counter()
        self.in_flight: Counter[Sequence] = Counter()
        self.stale: Counter[Sequence] = Counter()
        self.running: list[Sequence] = []  # in order of admission
        self.aborts: list[Job] = []
        self._busy = False  # a step is under way or about to start

    def room(self) -> int:
        """It queues whatever it is given."""
        return 1_000_000_000

    def submit(self, job: Job, true_length: int | None) -> None:
        """Take ``job``, which will produce ``true_length`` output tokens unless a limit cuts it short.

        What can never fit leaves at once, as rejected. Raises ``ValueError`` without a true length above 0.
        """
        if true_length is None or true_length < 1:
            raise ValueError(f"request {job.request.id}: a simulated engine needs an output length, got {true_length}")
        settings, prompt = self.settings, job.request.prompt_tokens
        sequence = Sequence(job, min(true_length, job.request.max_tokens, settings.max_model_len - prompt))
        problem = self._never_fits(prompt)
        if problem:
            self._turn_away(sequence, "rejected", f"request {job.request.id} {problem}")
            return
        self.sent += 1
        sequence.rank = (job.priority, self.sent)
        self.inbox.append(sequence)
        self._wake(0)

    def abort(self, job: Job) -> None:
        """Drop ``job`` when the core next drains its messages; it leaves with what it has shown by then."""
        self.aborts.append(job)

    def _drop(self) -> None:
        for queue in (self.running, self.waiting):
            for sequence in [one for one in queue if any(one.job is job for job in self.aborts)]:
                queue.remove(sequence)
                self.kv.release(sequence)
                self._turn_away(sequence, "abort", None)
        self.aborts.clear()

    def _never_fits(self, prompt: int) -> str:
        settings, blocks = self.settings, blocks_for(prompt, self.kv.block_size)
        if prompt >= settings.max_model_len:
            return f"has {prompt} prompt tokens, the engine's max_model_len is {settings.max_model_len}"
        if blocks > self.kv.total:
            return f"needs {blocks} KV blocks for its prompt, the engine has {self.kv.total}"
        return ""

    def _turn_away(self, sequence: Sequence, reason: str, error: str | None) -> None:
        sequence.finish_reason, sequence.error = reason, error
        sequence.finish = self.env.now if reason != "rejected" else None
        self.on_leave([sequence])

    def _wake(self, delay: int) -> None:
        if not self._busy:
            self._busy = True
            Moment(self.env, self.env.now + delay, STEP, lambda _: self._begin())

    def _begin(self) -> None:
        """One turn of vLLM's core loop: drain all messages, schedule, execute (v1/engine/core.py, run_busy_loop)."""
        now = self.env.now
        for sequence in self.inbox:
            sequence.queued = now
        self.waiting.extend(self.inbox)
        self.inbox.clear()
        self._drop()
        while True:
            scheduled, preempted = self._schedule(now)
            if scheduled or not (self.waiting or self.running):
                break
            if not preempted:
                # Nobody runs and the head does not fit an empty cache. vLLM would spin here for ever; we say so.
                self._fail_head()
        if not scheduled:
            self._busy = False
            if self.inbox:  # somebody came in return for one that was turned away
                self._wake(0)
            return
        batch = self._batch(scheduled)
        duration = self.step_time.step(batch)
        if self.on_step is not None:
            composition = (batch.prefill_tokens, batch.prefill_requests, batch.decode_requests, batch.context_tokens)
            after = (len(self.running), len(self.waiting), self.kv.used, preempted)
            self.on_step((now, duration, *composition, batch.prefill_attention, *after))
        Moment(self.env, self.env.now + duration, COMPLETE, lambda _: self._complete(scheduled))

    def _schedule(self, now: int) -> tuple[list[tuple[Sequence, int]], int]:
        """Who computes how many tokens in this step, and how many were preempted for it."""
        scheduled: list[tuple[Sequence, int]] = []
        budget, threshold = self.settings.max_num_batched_tokens, self.settings.long_prefill_token_threshold
        if len(self.running) + len(self.waiting) < 2:
            threshold = 0  # nobody to starve: a lone long prefill gets the whole budget
        preempted = 0
        index = 0
        # Those who run come first, in order of admission, so that decodes precede new prefills.
        while index < len(self.running) and budget > 0:
            sequence = self.running[index]
            waits = self.placeholders[sequence]
            if waits and sequence.computed + 2 - waits >= sequence.prompt + sequence.job.request.max_tokens:
                index += 1  # async: the step under way is sure to be its last
                continue
            new = sequence.length + waits - sequence.computed
            if 0 < threshold < new:
                new = threshold
            new = min(new, budget, self.settings.max_model_len - sequence.computed - 1)
            if new == 0:
                index += 1
                continue
            while not self.kv.grow(sequence, sequence.computed + new):
                if self.settings.scheduling_policy == "priority":
                    victim = max(self.running, key=lambda one: one.rank)
                    place = self.running.index(victim)
                    del self.running[place]
                    index -= place < index
                    for given in [pair for pair in scheduled if pair[0] is victim]:
                        scheduled.remove(given)
                        budget += given[1]
                else:
                    victim = self.running.pop()  # FCFS: the one admitted last
                self._preempt(victim)
                preempted += 1
                if victim is sequence:
                    break
            else:
                scheduled.append((sequence, new))
                budget -= new
                index += 1
                continue
            break
        # A step that preempted admits nobody, lest it evict what it just admitted.
        if not preempted:
            self._admit(scheduled, budget, threshold, now)
        return scheduled, preempted

    def _admit(self, scheduled: list[tuple[Sequence, int]], budget: int, threshold: int, now: int) -> None:
        """Admit from the head of the waiting queue while slots, token budget and KV blocks allow; nobody is skipped."""
        skipped = []
        while self.waiting and budget > 0 and len(self.running) < self.settings.max_num_seqs:
            sequence = self.waiting[0]
            if self.stale[sequence]:
                skipped.append(self.waiting.popleft())
                continue
            new = sequence.length  # recomputes what a preemption lost, outputs included
            if 0 < threshold < new:
                new = threshold
            if new > budget and not self.settings.enable_chunked_prefill:
                break
            new = min(new, budget)
            outgrown = blocks_for(sequence.length, self.kv.block_size) > self.kv.total
            reserve = sequence.length if self.settings.scheduler_reserve_full_isl or outgrown else 0
            watermark = int(self.settings.watermark * self.settings.kv_blocks) if self.running else 0
            if not self.kv.grow(sequence, new, reserve, watermark):
                break
            self.running.append(self.waiting.popleft())
            scheduled.append((sequence, new))
            budget -= new
            if sequence.scheduled is None:  # vLLM keeps the first time when a preempted request resumes
                sequence.scheduled = now
        for sequence in reversed(skipped):
            self.waiting.appendleft(sequence)

    def _preempt(self, victim: Sequence) -> None:
        """Recompute later: all blocks are lost, what was shown is kept, and the victim waits at the front."""
        self.kv.release(victim)
        victim.computed = 0
        self.stale[victim] = self.in_flight[victim]
        self.placeholders[victim] = 0
        victim.preemptions += 1
        self.waiting.appendleft(victim)

    def _fail_head(self) -> None:
        sequence = self.waiting.popleft()
        need = blocks_for(sequence.length, self.kv.block_size)
        problem = f"request {sequence.job.request.id} has grown to {need} KV blocks, the engine has {self.kv.total}"
        self._turn_away(sequence, "error", problem)

    def _batch(self, scheduled: list[tuple[Sequence, int]]) -> Batch:
        batch = Batch()
        for sequence, new in scheduled:
            computed = sequence.computed
            if new == 1 and computed >= sequence.prompt:
                batch.decode_requests += 1
                batch.context_tokens += computed + 1
            else:
                batch.prefill_tokens += new
                batch.prefill_requests += 1
                batch.prefill_attention += new * (computed + (new + 1) / 2)
        return batch

    def _complete(self, scheduled: list[tuple[Sequence, int]]) -> None:
        """The step's tokens are out; whoever finished frees its slot and blocks for the very next step."""
        now = self.env.now
        finished = []
        for sequence, new in scheduled:
            sequence.computed += new
            if sequence.computed < sequence.length:  # a chunk that does not reach the end samples nothing
                continue
            sequence.shown += 1
            if sequence.first_token is None:
                sequence.first_token = now
            if sequence.shown == sequence.target:
                finished.append(sequence)
        for sequence in finished:
            self._finish(sequence, now)
        self._busy = False
        if self.running or self.waiting or self.inbox or self.aborts:
            self._wake(self.gap)
        if finished:
            self.on_leave(finished)

    def _finish(self, sequence: Sequence, now: int) -> None:
        capped = sequence.shown >= sequence.job.request.max_tokens or sequence.length >= self.settings.max_model_len
        sequence.finish, sequence.finish_reason = now, "length" if capped else "stop"
        (self.running if sequence in self.running else self.waiting).remove(sequence)
        self.kv.release(sequence)


class StepwiseAsyncEngine(StepwiseEngine):
    """Two batches in flight: a step is scheduled while the one before it is computed."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.queue: deque[tuple[int, list[tuple[Sequence, int, bool]]]] = deque()  # when it is over, who computes
        self.last = 0
        self.unsaid = False  # somebody finished, and no schedule has told the workers yet

    def _begin(self) -> None:
        """Turns of vLLM's core loop, until one must wait for a batch (v1/engine/core.py, step_with_batch_queue)."""
        now = self.env.now
        while True:
            for sequence in self.inbox:
                sequence.queued = now
            self.waiting.extend(self.inbox)
            self.inbox.clear()
            self._drop()
            if self.running or self.waiting or self.unsaid:
                computes = self._put(now)
                if len(self.queue) < 2 and (computes or self.running or self.waiting):
                    continue
            elif not self.queue:
                self._busy = False
                return
            end, batch = self.queue[0]
            if batch:
                Moment(self.env, end, COMPLETE, lambda _: self._over())
                return
            self.queue.popleft()  # an empty batch is over at once

    def _put(self, now: int) -> bool:
        """Schedule a batch and put it into the queue; whether it computes anything."""
        scheduled, preempted = self._schedule(now)
        self.unsaid = False
        stuck = not (scheduled or preempted or self.running or any(batch for _, batch in self.queue))
        if stuck and self.waiting:
            self._fail_head()
        rows = []
        batch = self._batch(scheduled)
        for sequence, new in scheduled:
            sequence.computed += new
            self.in_flight[sequence] += new
            samples = sequence.computed >= sequence.length + self.placeholders[sequence]
            self.placeholders[sequence] += samples
            rows.append((sequence, new, samples))
        if rows:
            duration = self.step_time.step(batch)
            self.last = max(now, self.last) + duration
            if self.on_step is not None:
                parts = (batch.prefill_tokens, batch.prefill_requests, batch.decode_requests, batch.context_tokens)
                after = (len(self.running), len(self.waiting), self.kv.used, preempted)
                self.on_step((now, duration, *parts, batch.prefill_attention, *after))
        self.queue.append((self.last if rows else now, rows))
        return bool(rows)

    def _over(self) -> None:
        """The oldest batch is computed (scheduler.py, update_from_output)."""
        now, (_, batch) = self.env.now, self.queue.popleft()
        finished = []
        for sequence, new, samples in batch:
            self.in_flight[sequence] -= new
            stale = self.stale[sequence] > 0
            if stale:
                self.stale[sequence] -= new
            if sequence.finish_reason or not samples:
                continue
            sequence.shown += 1
            if not stale:
                self.placeholders[sequence] -= 1
            if sequence.first_token is None:
                sequence.first_token = now
            if sequence.shown == sequence.target:
                finished.append(sequence)
        for sequence in finished:
            self._finish(sequence, now)
        self.unsaid = self.unsaid or bool(finished)
        Moment(self.env, self.env.now, STEP, lambda _: self._begin())
        if finished:
            self.on_leave(finished)
