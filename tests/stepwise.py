"""The oracle: a continuous-batching engine with the scheduling of vLLM V1, simulated step by step.

It follows vllm/v1/core/sched/scheduler.py of vLLM 0.32 line by line, FCFS and priority, and in ``StepwiseAsyncEngine``
async_scheduler.py and the batch queue of v1/engine/core.py; comments name the rule where it surprises. All times are
integer ticks.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable
from copy import copy
from typing import Any

from driftsim.engine.clock import COMPLETE, STEP, Clock, Moment
from driftsim.engine.sequence import Sequence, blocks_for
from driftsim.engine.versions import rules_of
from driftsim.engine.waiting import waiting_queue
from driftsim.latency.steptime import Batch, StepTime
from driftsim.request import Job
from driftsim.trace.settings import EngineSettings


class Block:
    """A KV block: how many hold it, and what it holds, if that can be found: all tokens up to its end."""

    def __init__(self) -> None:
        self.holders = 0
        self.key: tuple[int, int] | None = None


class BlockPool:
    """``total`` blocks of ``block_size`` tokens, block by block (block_pool.py, kv_cache_manager.py).

    ``caching``: what a block holds can be found again, until another takes the block. A key is a place in the stretch
    of a request.
    """

    def __init__(self, total: int, block_size: int, *, caching: bool, keyless_first: bool) -> None:
        self.total = total
        self.keyless_first = keyless_first
        self.block_size = block_size
        self.caching = caching
        self.queue = deque(Block() for _ in range(total))  # free; the first is taken next
        self.found: dict[tuple[int, int], list[Block]] = {}  # equal ones in the order in which they got their key
        self.held: dict[Sequence, list[Block | None]] = {}  # None: given up behind the window
        self.keyed: dict[Sequence, int] = {}
        self.window: int | None = None
        self.interval: int | None = None  # tokens between places that can be found; None: all can
        self.needs_row = True  # whether what no hit can need has no key

    @property
    def used(self) -> int:
        """Blocks held by anybody."""
        return self.total - len(self.queue)

    def key(self, sequence: Sequence, place: int) -> tuple[int, int]:
        """What the block at ``place`` of ``sequence`` holds."""
        end = (place + 1) * self.block_size
        for owner, tokens in sequence.job.request.stretches:
            if end <= tokens:
                return owner, place
        return -10 - sequence.number, place  # known to nobody

    def lookup(self, sequence: Sequence) -> list[Block | None]:
        """The longest cached run of full blocks; the last token is computed anew, so it must not be in one."""
        hit: list[Block | None] = []
        if self.window is not None:
            return self._lookup_in_window(sequence, (sequence.length - 1) // self.block_size if self.caching else 0)
        for place in range((sequence.length - 1) // self.block_size if self.caching else 0):
            equal = self.found.get(self.key(sequence, place))
            if not equal:
                break
            hit.append(equal[0])
        return hit

    @property
    def row(self) -> int:
        """With a window: as many blocks one after another make a hit."""
        assert self.window is not None
        return blocks_for(self.window - 1, self.block_size)

    def _lookup_in_window(self, sequence: Sequence, most: int) -> list[Block | None]:
        """single_type_kv_cache_manager.py, SlidingWindowManager.find_longest_cache_hit; None for what is not needed."""
        there = [self.found.get(self.key(sequence, place), []) for place in range(most)]
        for end in range(most, 0, -1):  # the longest hit first
            begin = end - max(self.row, 1)
            if begin >= 0 and all(there[begin:end]):
                hit: list[Block | None] = [None] * (end - self.row)
                return hit + [equal[0] for equal in there[end - self.row : end]]
        end = 0
        while end < most and there[end]:
            end += 1
        return [equal[0] for equal in there[:end]]

    def _reachable(self, sequence: Sequence, place: int) -> bool:
        """single_type_kv_cache_manager.py, SlidingWindowManager.reachable_block_mask."""
        if self.window is None:
            return True
        if not self.row:
            return not self.needs_row
        if self.interval is None:
            return True
        after = (place + 1) * self.block_size
        boundaries = {(sequence.prompt - 1) // self.block_size * self.block_size}
        if self.interval:
            boundaries |= set(range(self.interval, after + self.interval + self.row * self.block_size, self.interval))
        return any(after <= boundary <= place * self.block_size + self.row * self.block_size for boundary in boundaries)

    def grow(
        self,
        sequence: Sequence,
        tokens: int,
        known: int,
        must_fit: int = 0,
        watermark: int = 0,
        hit: Iterable[Block | None] = (),
        most: int | None = None,
    ) -> bool:
        """Let ``sequence`` hold ``tokens`` tokens, ``hit`` the first; False, and nothing changed, where it is too much.

        ``known`` of the tokens are known, and found from now on: also by others of the same step, before they are
        computed. ``must_fit`` asks that so many tokens would fit, though blocks are taken for ``tokens`` only: vLLM
        admits a request only if its whole prompt fits (``full_sequence_must_fit``), or as much of it as it holds at
        once, ``most`` blocks. ``watermark`` blocks stay free.
        """
        hit = list(hit)
        have = len(self.held.get(sequence, hit))
        need = blocks_for(tokens, self.block_size) - have
        idle = sum(block is not None and not block.holders for block in hit)  # they leave the queue as well
        whole = blocks_for(must_fit, self.block_size)
        if most is not None:
            whole = min(whole, most)
        if max(need, whole - have) + idle + watermark > len(self.queue):
            return False
        if sequence not in self.held:
            for block in hit:
                if block is None:
                    continue
                if not block.holders:
                    self.queue.remove(block)
                block.holders += 1
            self.held[sequence], self.keyed[sequence] = list(hit), len(hit)
        for _ in range(need):
            block = self.queue.popleft()
            if block.key is not None:  # evicted
                self.found[block.key].remove(block)
                block.key = None
            block.holders = 1
            self.held[sequence].append(block)
        self.cache(sequence, min(tokens, known))
        return True

    def cache(self, sequence: Sequence, tokens: int) -> None:
        """The full blocks of the first ``tokens`` can be found from now on."""
        if self.caching and sequence in self.held:
            for place in range(self.keyed[sequence], tokens // self.block_size):
                block = self.held[sequence][place]
                self.keyed[sequence] = place + 1
                if block is None or not self._reachable(sequence, place):
                    continue
                block.key = self.key(sequence, place)
                self.found.setdefault(block.key, []).append(block)

    def slide(self, sequence: Sequence, window: int, settled: int) -> None:
        """Give up each block of which no token is among the ``window`` that the token after ``settled`` looks at."""
        held = self.held[sequence]
        behind = max(0, (settled + 1 - window) // self.block_size)
        given_up, held[:behind] = held[:behind], [None] * behind
        self._free(given_up)

    def release(self, sequence: Sequence) -> None:
        """Free all that ``sequence`` holds."""
        self.keyed.pop(sequence, None)
        self._free(self.held.pop(sequence, []))

    def _free(self, blocks: list[Block | None]) -> None:
        """The last first: what can be found to the end of the queue, the rest to its front."""
        blank: list[Block] = []
        for block in reversed(blocks):
            if block is None:
                continue
            block.holders -= 1
            if not block.holders:
                (blank if block.key is None and self.keyless_first else self.queue).append(block)
        self.queue.extendleft(reversed(blank))


class StepwiseEngine:
    """The engine behind the dispatcher; ``on_leave`` gets the sequences that a step finished, or one it turned away.

    ``on_step`` gets every step as a tuple in the order of the trace's steps table, with times in ticks. ``ends_late``:
    rows of requests that a stop string ends. The API server finds it and sends an abort, which the core gets in the
    turn of its loop after the next one.
    """

    ends_late: Collection[int] = ()

    def __init__(
        self,
        env: Clock,
        settings: EngineSettings,
        step_time: StepTime,
        gap: int,
        on_leave: Callable[[list[Sequence]], None],
        on_step: Callable[[tuple[float, ...]], None] | None = None,
    ) -> None:
        self.env = env
        self.settings = settings
        self.step_time = step_time
        self.gap = gap
        self.on_leave = on_leave
        self.on_step = on_step
        self.rules = rules_of(settings.version)
        caching, first = settings.enable_prefix_caching, self.rules.keyless_first
        self.kv = BlockPool(settings.usable_kv_blocks, settings.block_size, caching=caching, keyless_first=first)
        self.chunked: set[Sequence] = set()  # whose prompt was not through after the last step that computed it
        self.executed, self.last_prefill, self.behind = 0, -settings.prefill_schedule_interval, False
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
        self.stopped: list[tuple[Sequence, int]] = []  # by a stop string, and the turn in which the abort comes
        self.turn = 0
        self.window = self.kv.window = settings.sliding_window
        if self.window is not None:
            self.kv.interval = settings.prefix_cache_retention_interval if self.rules.window_retention else None
            self.kv.needs_row = self.rules.window_sparse
            self.kv.keyless_first |= self.rules.window_sparse
        self.most = settings.kv_blocks * settings.max_model_len  # blocks that admission asks for
        if self.window is not None and self.rules.window_cap:
            # kv_cache_interface.py, SlidingWindowSpec.max_admission_blocks_per_request
            batches = 2 if settings.async_scheduling and self.rules.window_settled else 1
            tokens = min(self.window - 1 + batches * settings.max_num_batched_tokens, settings.max_model_len)
            self.most = blocks_for(tokens, settings.block_size) + 1
        self.server: list[Sequence] = []  # what the API server holds: taken and not over
        self.families: dict[int, int] = {}  # by request of several choices, when the first of them was sent
        self.verdicts: dict[int, str] = {}  # of them, why they were turned away
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
        sequence.cached = -1
        sequence.late = job.index in self.ends_late
        problem = self._refused(job) or self._never_fits(prompt)
        if problem:
            self._turn_away(sequence, "rejected", f"request {job.request.id} {problem}")
            return
        self.sent += 1
        sequence.number = self.sent
        sequence.rank = (job.priority, self.sent)
        if (
            job.request.choice is not None
        ):  # one time of arrival for all; ties go by the id, "0_id", "1_id", "10_id" ...
            family, place, _ = job.request.choice
            first = self.families.setdefault(family, self.sent)
            sequence.rank = (job.priority, first, f"{place}_id")
        self.server.append(sequence)
        self.inbox.append(sequence)
        self._wake(0)

    def abort(self, job: Job) -> None:
        """Drop ``job`` when the core next drains its messages; it leaves with what it has shown by then."""
        self.aborts.append(job)
        self.server = [one for one in self.server if one.job is not job]

    def _refused(self, job: Job) -> str:
        """Why the API server turns one more request away (async_llm.py, check_admission); empty: it does not."""
        most, most_tokens = self.settings.max_num_queued_reqs, self.settings.max_num_queued_tokens
        self.server = [one for one in self.server if not one.finish_reason]
        family, place, count = job.request.choice or (-1, 0, 1)
        if place:
            return self.verdicts.get(family, "")
        self.verdicts[family] = self._problem(count, most, most_tokens)
        return self.verdicts[family]

    def _problem(self, count: int, most: int | None, most_tokens: int | None) -> str:
        if most is not None and len(self.server) + count > most:
            return f"was turned away: {len(self.server)} requests are there, max_num_queued_reqs is {most}"
        tokens = sum(one.prompt for one in self.server if one.first_token is None)
        if most_tokens is not None and tokens >= most_tokens:
            return f"was turned away: {tokens} prompt tokens wait for an answer, max_num_queued_tokens is {most_tokens}"
        return ""

    def _drop(self) -> None:
        for job in self.aborts:
            for queue in (self.running, self.waiting):
                for sequence in [one for one in queue if one.job is job]:
                    queue.remove(sequence)
                    self.kv.release(sequence)
                    self._turn_away(sequence, "abort", None)
        self.aborts.clear()

    def _stop(self) -> None:
        """A turn begins: the core gets the aborts of what stop strings have ended."""
        self.turn += 1
        due = [sequence for sequence, turn in self.stopped if turn <= self.turn]
        self.stopped = [pair for pair in self.stopped if pair[1] > self.turn]
        for sequence in due:
            for queue in (self.running, self.waiting):
                if sequence in queue:
                    queue.remove(sequence)
                    self.kv.release(sequence)
                    sequence.finish_reason = "abort"

    def _ended(self, sequence: Sequence, now: int) -> list[Sequence]:
        """``sequence`` has shown its last token; what its client hears, if it does not know yet."""
        if sequence.over:
            self._finish(sequence, now)
            return []
        limit = min(sequence.job.request.max_tokens, self.settings.max_model_len - sequence.prompt)
        if not sequence.late or sequence.target == limit:
            self._finish(sequence, now)
            return [sequence]
        heard = copy(sequence)
        heard.finish, heard.finish_reason = now, "stop"
        sequence.over, sequence.target = True, limit
        self.server = [one for one in self.server if one is not sequence]
        self.stopped.append((sequence, self.turn + 2))
        return [heard]

    def _never_fits(self, prompt: int) -> str:
        settings, blocks = self.settings, blocks_for(prompt, self.kv.block_size)
        if prompt >= settings.max_model_len:
            return f"has {prompt} prompt tokens, the engine's max_model_len is {settings.max_model_len}"
        if min(blocks, self.most) > self.kv.total:
            return f"needs {blocks} KV blocks for its prompt, the engine has {self.kv.total}"
        return ""

    def _turn_away(self, sequence: Sequence, reason: str, error: str | None) -> None:
        sequence.finish_reason, sequence.error = reason, error
        if sequence.over:
            return
        sequence.finish = self.env.now if reason != "rejected" else None
        self.on_leave([sequence])

    def _wake(self, delay: int) -> None:
        if not self._busy:
            self._busy = True
            Moment(self.env, self.env.now + delay, STEP, lambda _: self._begin())

    def _begin(self) -> None:
        """One turn of vLLM's core loop: drain all messages, schedule, execute (v1/engine/core.py, run_busy_loop)."""
        now = self.env.now
        self._stop()
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
        settings, there = self.settings, len(self.running) + len(self.waiting)
        budget, threshold = settings.max_num_batched_tokens, settings.long_prefill_token_threshold
        if there < 2 and self.rules.lone_prefill_uncapped:
            threshold = 0  # nobody to starve: a lone long prefill gets the whole budget
        elif threshold and settings.long_prefill_token_threshold_adaptive:
            threshold = max(threshold, budget // max(there, 1))
        if settings.max_num_scheduled_tokens is not None:
            budget = min(budget, settings.max_num_scheduled_tokens)
        interval = settings.prefill_schedule_interval if self.rules.cadence else 1
        since = self.executed + 1 - self.last_prefill
        self.hold = not self.behind and since < interval and any(one not in self.chunked for one in self.running)
        self.prefills = False
        preempted = 0
        index = 0
        # Those who run come first, in order of admission, so that decodes precede new prefills.
        while index < len(self.running) and budget > 0:
            sequence = self.running[index]
            waits = self.placeholders[sequence]
            if waits and sequence.computed + 2 - waits >= sequence.prompt + sequence.job.request.max_tokens:
                index += 1  # async: the step under way is sure to be its last
                continue
            if self.hold and sequence in self.chunked:
                index += 1
                continue
            new = sequence.length + waits - sequence.computed
            if 0 < threshold < new:
                new = threshold
            new = min(new, budget, self.settings.max_model_len - sequence.computed - 1)
            if new == 0:
                index += 1
                continue
            if self.window is not None:
                settled = sequence.computed - (self.in_flight[sequence] if self.rules.window_settled else 0)
                self.kv.slide(sequence, self.window, settled)
            while not self.kv.grow(sequence, sequence.computed + new, sequence.length):
                if self.settings.scheduling_policy == "priority":
                    victim = max(self.running, key=lambda one: one.rank[:2])
                    place = self.running.index(victim)
                    del self.running[place]
                    if self.rules.cursor_follows_victim:
                        index -= place < index
                    else:
                        index -= any(one is victim for one, _ in scheduled)
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
                self.prefills |= sequence in self.chunked
                continue
            if not (self.rules.goes_on_after_self and self.settings.scheduling_policy == "priority"):
                break
        # A step that preempted admits nobody, lest it evict what it just admitted.
        if not preempted:
            self._admit(scheduled, budget, threshold, now)
            if not self.hold:
                self.behind = len(self.waiting) > 0
        self.executed += len(scheduled) > 0
        if self.prefills:
            self.last_prefill = self.executed
        for sequence, new in scheduled:
            through = sequence.computed + new >= sequence.length + self.placeholders[sequence]
            (self.chunked.discard if through else self.chunked.add)(sequence)
        return scheduled, preempted

    def _admit(self, scheduled: list[tuple[Sequence, int]], budget: int, threshold: int, now: int) -> None:
        """Admit from the head of the waiting queue while slots, token budget and KV blocks allow; nobody is skipped."""
        skipped = []
        slots = self.settings.max_num_active_seqs or self.settings.max_num_seqs
        while self.waiting and budget > 0 and len(self.running) < slots:
            sequence = self.waiting[0]
            if self.stale[sequence]:
                skipped.append(self.waiting.popleft())
                continue
            hit = self.kv.lookup(sequence)
            have = len(hit) * self.kv.block_size
            new = sequence.length - have  # recomputes what a preemption lost, outputs included
            prompt = new > 1
            if prompt and self.hold:
                break
            if 0 < threshold < new:
                new = threshold
            if new > budget and not self.settings.enable_chunked_prefill:
                break
            new = min(new, budget)
            outgrown = min(blocks_for(sequence.length, self.kv.block_size), self.most) > self.kv.total
            reserve = sequence.length if self.settings.scheduler_reserve_full_isl or outgrown else 0
            kept = self.running and self.rules.watermark
            watermark = int(self.settings.watermark * self.settings.kv_blocks) if kept else 0
            if not self.kv.grow(sequence, have + new, sequence.length, reserve, watermark, hit, self.most):
                break
            sequence.computed = have
            sequence.cached = have if sequence.cached < 0 else sequence.cached
            self.prefills |= prompt
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
        self.chunked.discard(victim)
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
        heard = [one for sequence in finished for one in self._ended(sequence, now)]
        self._busy = False
        if self.running or self.waiting or self.inbox or self.aborts:
            self._wake(self.gap)
        if heard:
            self.on_leave(heard)

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
        self.launched = 0  # when the host has launched the last batch
        self.row: list[Any] = []  # of the last step, until it is known when it is out
        self.unsaid = False  # somebody finished, and no schedule has told the workers yet

    def _begin(self) -> None:
        """Turns of vLLM's core loop, until one must wait for a batch (v1/engine/core.py, step_with_batch_queue)."""
        now = self.env.now
        self._stop()
        while True:
            if self.launched > now:  # the host is busy
                Moment(self.env, self.launched, STEP, lambda _: self._begin())
                return
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
                self._tell([], 0)
                return
            end, batch = self.queue[0]
            if batch:
                Moment(self.env, max(end, self.launched), COMPLETE, lambda _: self._over())
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
            model: Any = self.step_time
            computing, launch = model.parts(batch) if getattr(model, "launches", False) else (model.step(batch), 0)
            self.launched = now + launch
            before, self.last = self.last, max(max(now, self.last) + computing, self.launched + 1 if launch else 0)
            duration = self.last - max(now, before)
            if self.on_step is not None:
                parts = (batch.prefill_tokens, batch.prefill_requests, batch.decode_requests, batch.context_tokens)
                after = (len(self.running), len(self.waiting), self.kv.used, preempted)
                late = self.launched - before if now < before < self.launched else 0
                self._tell([now, duration - late, *parts, batch.prefill_attention, *after], late)
        self.queue.append((self.last if rows else now, rows))
        return bool(rows)

    def _tell(self, row: list[Any], late: int) -> None:
        """Tell of the step before, whose tokens were out so much later; and keep ``row``."""
        if self.row and self.on_step is not None:
            self.row[1] += late
            self.on_step(tuple(self.row))
        self.row = row

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
            if sequence in self.running:
                self.kv.cache(sequence, sequence.computed - self.placeholders[sequence])
            if sequence.shown == sequence.target:
                finished.append(sequence)
        running = len(self.running) + len(self.waiting)
        heard = [one for sequence in finished for one in self._ended(sequence, now)]
        self.unsaid = self.unsaid or len(self.running) + len(self.waiting) < running
        Moment(self.env, self.env.now, STEP, lambda _: self._begin())
        if heard:
            self.on_leave(heard)
