"""vLLM's scheduler: which sequences compute how many tokens in the next step, and which are preempted for them.

It mirrors ``Scheduler.schedule`` of vllm/v1/core/sched/scheduler.py (vLLM 0.32), FCFS and priority, and the block
allocation of vllm/v1/core/kv_cache_manager.py. It has no clock and tells nobody: the engine that inherits from it
passes the time, executes the step and lets finished sequences leave. What it does not copy is the loop over all running
sequences: decodes are one ``DecodePool``, and are walked one by one only where the outcome depends on their order.
"""

from __future__ import annotations

from collections.abc import Collection
from operator import attrgetter
from typing import Any

from driftsim.engine.cadence import Cadence
from driftsim.engine.decoding import DecodePool
from driftsim.engine.sequence import Sequence, blocks_for
from driftsim.engine.sharing import SharedBlocks, known
from driftsim.engine.versions import rules_of
from driftsim.engine.waiting import waiting_queue
from driftsim.engine.windows import WindowedBlocks
from driftsim.errors import InputError
from driftsim.trace.settings import EngineSettings

MIRRORED_VLLM = "0.32.0"  # the version whose decisions the conformance suite holds the engine to

MOST_PREEMPTIONS = 20_000  # of one request; where several have one rank, more are taken to be without end


class Scheduler:
    """Running and waiting sequences, and the KV blocks that they hold.

    ``free`` still counts the blocks that the decodes of the next step will take; ``_spare`` does not. ``shared`` says
    which blocks these are, where the engine caches prefixes; ``common`` are the stretches that several requests share,
    None where that is not known.
    """

    common: Collection[int] | None = None

    def __init__(self, settings: EngineSettings) -> None:
        self.settings = settings
        self.free = self.total = settings.usable_kv_blocks
        self.by_priority = settings.scheduling_policy == "priority"
        self.tied = False  # whether some have the same priority and time of arrival: choices of one request
        self.waiting = waiting_queue(settings.scheduling_policy)
        self.running: dict[Sequence, None] = {}  # in order of admission
        self.prefilling: dict[Sequence, None] = {}  # running, with a part of the prompt still to compute
        # Running, with the last token scheduled and its output not processed yet (async scheduling).
        self.awaiting_output: set[Sequence] = set()
        self.pool = DecodePool(settings.block_size)  # the other running sequences decode
        self.rules = rules_of(settings.version)
        self.shared: SharedBlocks | None = None
        if settings.enable_prefix_caching:
            self.shared = SharedBlocks(settings, self.rules, self.pool, self._unseen, self.common)
        self.windowed: WindowedBlocks | None = None
        if settings.slides:
            self.shared = self.windowed = WindowedBlocks(settings, self.rules, self.pool, self._unseen)
        self._paused: list[Sequence] = []  # decodes that get no turn in the step under way
        self._watermark = int(settings.watermark * settings.kv_blocks) if self.rules.watermark else 0
        self._threshold = settings.long_prefill_token_threshold
        budget = settings.max_num_batched_tokens
        self._budget = min(settings.max_num_scheduled_tokens or budget, budget)
        self._limits = (self._budget, settings.max_num_active_seqs or settings.max_num_seqs, settings.block_size)
        self._admitted = 0
        interval = settings.prefill_schedule_interval if self.rules.cadence else 1
        self.cadence = Cadence(interval) if interval > 1 else None

    def _schedule(self, now: int) -> tuple[list[tuple[Sequence, int]], int]:
        """The prefills of the step scheduled at ``now``, each with its tokens, and the number of preemptions for it.

        All sequences of the pool decode beside them.
        """
        threshold = self._threshold and self._chunk_limit()
        cadence = self.cadence
        hold = cadence is not None and cadence.holds(len(self.running) > len(self.prefilling))
        prefills: list[tuple[Sequence, int]] = []
        preempted, short = 0, self._spare() < 0
        if short or self.prefilling or self.windowed is not None:
            if self.by_priority or (self.prefilling and self._threshold) or self.windowed is not None:
                preempted = self._schedule_running(prefills, threshold)
            else:
                preempted = self._preempt_for_decodes() if short else 0
                if self.prefilling and not hold:
                    preempted += self._schedule_partial_prefill(prefills)
        # vLLM admits nobody in a step that preempted, lest it evict what it just admitted.
        if not preempted and self.waiting:
            self._schedule_waiting(prefills, threshold, now)
        if cadence is not None:
            cadence.scheduled(bool(prefills or self.pool.size), bool(self.waiting), preempted > 0)
        return prefills, preempted

    def _chunk_limit(self) -> int:
        """The longest chunk of a prompt in the step at hand; 0: no limit."""
        there = len(self.running) + len(self.waiting)
        if there < 2 and self.rules.lone_prefill_uncapped:
            return 0  # nobody to starve: a lone long prefill gets the whole budget
        if self.settings.long_prefill_token_threshold_adaptive and there:
            return max(self._threshold, self.settings.max_num_batched_tokens // there)
        return self._threshold

    # -- running sequences

    def _preempt_for_decodes(self) -> int:
        """Preempt from the back until every decode that needs a block gets one, in order of admission."""
        preempted = claimed = 0
        for sequence in sorted(self.pool.claims(), key=_by_admission):
            if sequence not in self.running:
                continue
            while claimed == self.free:
                victim = self._victim()
                self._preempt(victim, self.free - claimed)
                preempted += 1
                if victim is sequence:
                    return preempted
            claimed += 1
        return preempted

    def _schedule_partial_prefill(self, prefills: list[tuple[Sequence, int]]) -> int:
        """Schedule the next chunk of the one prompt that is partly computed; its sequence was admitted last."""
        for sequence in self.prefilling:
            budget = self._budget - self.pool.size
            new = min(sequence.length - sequence.computed, budget)
            if new <= 0:
                break
            need, spare = self._growth(sequence, new), self._spare()
            if need > spare:
                self._preempt(sequence, spare)
                return 1
            self.free -= need
            if self.shared is not None:
                self.shared.grow(sequence, sequence.computed + new)
            if self.cadence is not None:
                self.cadence.prefilled = True
            prefills.append((sequence, new))
        return 0

    def _schedule_running(self, prefills: list[tuple[Sequence, int]], threshold: int) -> int:
        """Schedule the running sequences one by one, in order of admission.

        Their order decides in three cases: with a cap on prefill chunks, several partial prefills may stand between the
        decodes; by priority, a victim may stand anywhere, also before the sequence that needs its blocks; with a
        sliding window, blocks become free in turn.
        """
        budget, spare, preempted = self._budget, self.free, 0
        claims, cadence = self.pool.claims(), self.cadence
        held = cadence is not None and cadence.held
        order = list(self.running)
        given: dict[Sequence, tuple[int, int]] = {}  # tokens and blocks of this step
        index = 0
        while index < len(order) and budget > 0:
            sequence = order[index]
            prefill = sequence in self.prefilling
            if sequence in self.awaiting_output or (prefill and held):
                index += 1
                continue
            new = min(sequence.length - sequence.computed, threshold or budget, budget) if prefill else 1
            if self.windowed is not None:
                spare += self._slide(sequence, spare, self.windowed)
            need = self._growth(sequence, new) if prefill else int(sequence in claims)
            while need > spare:
                victim = self._victim()
                had_turn = victim in given
                if had_turn:
                    self._key(given)  # in turn: of equal blocks, what the victim loses may not be the first
                turn = given.pop(victim, (0, 0))  # is taken back (scheduler.py, PRIORITY)
                budget += turn[0]
                index -= order.index(victim) < index if self.rules.cursor_follows_victim else had_turn
                order.remove(victim)
                spare += self._preempt(victim, spare, turn)
                preempted += 1
                if victim is sequence:
                    break
            else:
                spare -= need
                budget -= new
                index += 1
                given[sequence] = (new, need)
                if self.windowed is not None:
                    self.windowed.turn(sequence, self._computed(sequence) + new)
                if cadence is not None:
                    cadence.prefilled |= prefill
                continue
            if not (self.rules.goes_on_after_self and self.by_priority):
                break
        self._key(given)
        for sequence, (new, need) in given.items():
            if sequence in self.prefilling:
                self.free -= need
                prefills.append((sequence, new))
        paused = [one for one in order if one.ends >= 0 and one not in given]  # whose turn did not come
        if paused and self.shared is not None:
            self.shared.part(paused[0].number)
        for sequence in paused:
            self.pool.leave(sequence)
        self._paused += paused
        return preempted

    def _key(self, given: dict[Sequence, tuple[int, int]]) -> None:
        """Give their keys to the blocks of the prompts that compute in this step, in the order of their turns."""
        if self.shared is not None:
            for sequence, (new, _) in given.items():
                if sequence in self.prefilling:
                    self.shared.grow(sequence, sequence.computed + new)

    def _resume(self) -> None:
        """Let the paused decodes take part again."""
        for sequence in self._paused:
            self.pool.join(sequence)
        self._paused.clear()

    # -- waiting sequences

    def _schedule_waiting(self, prefills: list[tuple[Sequence, int]], threshold: int, now: int) -> None:
        """Admit from the head of the waiting queue while slots, token budget and KV blocks allow; nobody is skipped."""
        waiting, running, pool, shared = self.waiting, self.running, self.pool, self.shared
        budget, slots, size = self._limits
        budget -= pool.size
        for _, new in prefills:
            budget -= new
        spare = begun = self._spare()
        found, idle, cadence = 0, 0, self.cadence
        while budget > 0 and len(running) < slots and waiting:
            sequence = waiting[0]
            length = sequence.prompt + sequence.shown  # recomputes what a preemption lost, outputs included
            if shared is not None:
                held, found, idle, _ = shared.look_up(sequence, spare)
                length -= found * size
            if cadence is not None and cadence.held and length > 1:
                break
            new = length
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
                if self.windowed is not None:
                    whole = min(whole, max(self.windowed.most - found, need))
                # Without a reserve vLLM would start over and over on a prompt that can never fit; here it waits until
                # the engine fails it.
                asked = whole if self.settings.scheduler_reserve_full_isl or whole + found > self.total else need
            asked += idle  # found blocks that nobody holds leave the free ones, too
            if asked > spare or (running and asked + self._watermark > spare):
                break
            self._admitted += 1
            sequence.number = self._admitted
            if shared is not None:
                shared.admit(sequence, held, found, new)
            spare -= need + idle
            budget -= new
            running[waiting.popleft()] = None
            if new < length:
                self.prefilling[sequence] = None
            prefills.append((sequence, new))
            if cadence is not None:
                cadence.prefilled |= length > 1
            if sequence.scheduled is None:  # vLLM keeps the first time when a preempted request resumes
                sequence.scheduled = now
        self.free -= begun - spare

    def _slide(self, sequence: Sequence, spare: int, windowed: WindowedBlocks) -> int:
        """Free what the running ``sequence`` has behind its window beside the ``spare`` blocks; returns how many."""
        under_way = self._in_flight(sequence) if self.rules.window_settled else 0
        freed = windowed.slide(sequence, self._computed(sequence) - under_way, spare)
        self.free += freed
        return freed

    def _computed(self, sequence: Sequence) -> int:
        """The tokens of the running ``sequence`` that were scheduled before the step at hand."""
        return self.pool.step + sequence.offset if sequence.ends >= 0 else sequence.computed

    def _in_flight(self, sequence: Sequence) -> int:
        """The tokens of the running ``sequence``, of its prompt as well, that are still being computed."""
        return 0

    def _unseen(self, sequence: Sequence) -> int:
        """The tokens of the running ``sequence`` that are still being computed; an abort drops them."""
        return 0

    # -- KV blocks, and who gives them up

    def _spare(self) -> int:
        """Free blocks, less those that this step's decodes take."""
        return self.free - self.pool.claimed()

    def _growth(self, sequence: Sequence, new: int) -> int:
        """Blocks that ``new`` more tokens of ``sequence`` take."""
        return blocks_for(sequence.computed + new, self._limits[2]) - blocks_for(sequence.computed, self._limits[2])

    def _victim(self) -> Sequence:
        """The running sequence to preempt: under FCFS the one admitted last, by priority the last in that order."""
        if not self.by_priority:
            return next(reversed(self.running))
        return max(self.running, key=_by_arrival if self.tied else _by_rank)  # the first of those that are equal

    def _preempt(self, victim: Sequence, spare: int, turn: tuple[int, int] = (0, 0)) -> int:
        """Put ``victim``, its output kept, at the front of the queue, to be recomputed; returns the blocks freed.

        ``spare`` blocks are free by now; ``turn``: the tokens and blocks that it had already been given in this step.
        """
        if self.shared is not None:
            self.shared.comes_again(victim)
        freed = self._remove(victim, spare, turn)
        victim.computed = 0
        victim.preemptions += 1
        if self.tied and victim.preemptions > MOST_PREEMPTIONS:
            raise InputError(
                f"request {victim.job.request.id} was preempted {MOST_PREEMPTIONS} times: answers of one request have "
                f"equal ranks and preempt each other for ever, in vLLM as here; give the engine more than {self.total} "
                "KV blocks, or scheduling_policy fcfs"
            )
        self.waiting.appendleft(victim)
        return freed

    def _remove(self, sequence: Sequence, spare: int, turn: tuple[int, int] = (0, 0), ended: int | None = None) -> int:
        """Take ``sequence`` out of the running ones and free its blocks; returns how many. See ``_preempt``.

        Where it has ended, its first ``ended`` tokens are known by now.
        """
        tokens, taken = turn
        unseen = self._unseen(sequence) if self.shared is not None else 0
        if sequence in self.prefilling:
            del self.prefilling[sequence]
        elif sequence in self.awaiting_output:
            self.awaiting_output.discard(sequence)
        else:
            self.pool.leave(sequence)
        del self.running[sequence]
        if self.shared is None:
            freed = taken + blocks_for(sequence.computed, self.settings.block_size)
        else:
            tokens += sequence.computed
            ended = known(sequence, tokens, unseen) if ended is None else min(ended, tokens)
            self.shared.follow(spare)
            freed = self.shared.give_back(sequence, tokens, ended, sequence.number if turn[0] else 0)
        self.free += freed - taken
        return freed


_by_admission, _by_rank = attrgetter("number"), attrgetter("rank")


def _by_arrival(sequence: Sequence) -> tuple[Any, ...]:
    return sequence.rank[:2]
