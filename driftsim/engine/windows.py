"""The KV cache of a model whose every layer has a sliding window: blocks behind the window are free again.

It mirrors ``SlidingWindowManager`` of vllm/v1/core/single_type_kv_cache_manager.py (vLLM 0.32), with prefix caching and
without. A request gives up blocks when its turn comes, before it asks for more; those who come after it find them. A
prefix is found where as many blocks in a row as the window looks back are there, whatever became of those before. Such
an engine makes every step, so blocks are kept one by one, and get their keys when vLLM gives them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

from driftsim.engine.decoding import DecodePool
from driftsim.engine.sequence import Sequence, blocks_for
from driftsim.engine.sharing import SharedBlocks, Unseen, known
from driftsim.engine.versions import Rules
from driftsim.trace.prefixes import ALWAYS, ENDLESS
from driftsim.trace.settings import EngineSettings


class Block:
    """A block that can be found, or stands in the free queue in order; ``holders`` counts the sequences that hold it.

    ``key`` is a place in a stretch (see prefixes.py); None: it cannot be found.
    """

    __slots__ = ("holders", "key")

    def __init__(self, key: tuple[int, int] | None, holders: int) -> None:
        self.key = key
        self.holders = holders


class WindowedBlocks(SharedBlocks):
    """The blocks of sequences whose attention looks back ``window`` tokens.

    ``most`` is the largest number of blocks that admission asks for: vLLM counts on the window from 0.20 on. Of what a
    sequence holds, ``held`` has the blocks with a key by their place, None for what is found at no cost; the others
    are only counted. The free queue is ``blank`` blocks without a key, then those of ``_queue``.
    """

    def __init__(self, settings: EngineSettings, rules: Rules, pool: DecodePool, unseen: Unseen) -> None:
        super().__init__(settings, rules, pool, unseen)
        total, size = settings.usable_kv_blocks, settings.block_size
        self.keyless_first = rules.keyless_first or rules.window_sparse
        self.window = settings.sliding_window or 0
        self.most = settings.window_blocks(rules.window_settled) if rules.window_cap else total + 1
        self.needed = blocks_for(self.window - 1, size)  # blocks in a row that a hit takes
        self._caching = settings.enable_prefix_caching and (self.needed > 0 or not rules.window_sparse)
        interval = settings.prefix_cache_retention_interval if rules.window_retention else None
        self._segment = None if interval is None else interval // size  # blocks; 0: only the ends of prompts are kept
        self._queue: OrderedDict[Block, None] = OrderedDict()
        self._equal: dict[tuple[int, int], list[Block]] = {}  # in the order in which they got their key

    # -- what is there

    def enter(self, sequence: Sequence) -> None:
        """Prepare ``sequence``, which the engine was just given."""
        super().enter(sequence)
        sequence.held = {}
        sequence.gone = 0

    def look_up(self, sequence: Sequence, free: int) -> tuple[Any, int, int, int]:
        """The blocks that ``sequence`` would begin with, by place, how many they and those before them are, and how
        many of them nobody holds.

        vLLM looks from the end of the prompt backwards, and settles for less than the window at its beginning only.
        """
        self.follow(free)
        most = (sequence.prompt + sequence.shown - 1) // self.size if self._caching else 0
        row: list[Block | None] = []  # from right to left
        end = most
        for owner, place in self._backwards(sequence, most):
            equal = [None] if owner == ALWAYS else self._equal.get((owner, place))
            if equal is None:
                row, end = [], place
                continue
            row.append(equal[0])
            if len(row) >= self.needed:
                break
        if not row:
            return {}, 0, 0, 0
        if not self.needed:
            row = []
        held = {place: row[end - 1 - place] for place in range(end - len(row), end)}
        return held, end, sum(block is not None and not block.holders for block in row), 0

    def _backwards(self, sequence: Sequence, most: int) -> Iterable[tuple[int, int]]:
        """The keys of the first ``most`` blocks of ``sequence``, the last first."""
        for index in range(len(sequence.stretches) - 1, -1, -1):
            owner, tokens = sequence.stretches[index]
            start = sequence.stretches[index - 1][1] // self.size if index else 0
            for place in range(min(most, tokens // self.size) - 1, start - 1, -1):
                yield owner, place

    # -- taking

    def follow(self, free: int) -> None:
        """Take blocks from the head of the free queue until ``free`` are left; what has a key loses it."""
        more = self.blank + len(self._queue) - free
        if more <= 0:
            return
        blank = min(more, self.blank)
        self.blank -= blank
        for _ in range(more - blank):
            block, _ = self._queue.popitem(last=False)
            if block.key is not None:
                self._forgotten += 1
                equal = self._equal[block.key]
                equal.remove(block)
                if not equal:
                    del self._equal[block.key]

    def admit(self, sequence: Sequence, held: Any, count: int, new: int) -> None:
        """Let ``sequence`` run: ``count`` blocks are found, of which it holds ``held``."""
        for block in held.values():
            if block is not None:
                if not block.holders:
                    del self._queue[block]
                block.holders += 1
        sequence.held = held
        sequence.gone = max(count - self.needed, 0)
        sequence.keyed = count
        sequence.joined = ENDLESS
        sequence.computed = count * self.size
        if sequence.cached < 0:
            sequence.cached = sequence.computed
        self.register(sequence, (sequence.computed + new) // self.size)

    def turn(self, sequence: Sequence, tokens: int) -> None:
        """``sequence`` is given its turn in the step at hand, and then has ``tokens`` tokens (allocate_slots()).

        With async scheduling vLLM also looks for full blocks when a token comes back; by then they have their keys.
        """
        self.register(sequence, known(sequence, tokens, self.unseen(sequence)) // self.size)

    def register(self, sequence: Sequence, upto: int) -> None:
        """Give their keys to the blocks of ``sequence`` before place ``upto`` that a later request may begin with."""
        start = sequence.keyed
        if upto <= start:
            return
        sequence.keyed = upto
        if not self._caching:
            return
        index = 0
        for place in range(max(start, sequence.gone), upto):
            if not self._keeps(place, sequence.prompt):
                continue
            while sequence.stretches[index][1] < (place + 1) * self.size:
                index += 1
            key = (sequence.stretches[index][0], place)
            block = sequence.held[place] = Block(key, 1)
            self._equal.setdefault(key, []).append(block)

    def _keeps(self, place: int, prompt: int) -> bool:
        """Whether a hit of a later request may need the block at ``place`` (reachable_block_mask())."""
        segment = self._segment
        if segment is None or (segment and place % segment >= segment - self.needed):
            return True
        end = (prompt - 1) // self.size
        return end - self.needed <= place < end

    # -- giving back

    def slide(self, sequence: Sequence, settled: int, free: int) -> int:
        """Free the blocks behind the window of the first ``settled`` tokens of ``sequence``; returns how many became
        free. ``free`` blocks were so before.
        """
        behind = (settled - self.window + 1) // self.size
        if behind <= sequence.gone:
            return 0
        self.follow(free)
        return self._give_up(sequence, behind)

    def give_back(self, sequence: Sequence, tokens: int, known: int, before: int = 0) -> int:
        """Free the blocks of ``sequence`` for ``tokens`` tokens, of which ``known`` are known; how many became free."""
        self.register(sequence, known // self.size)
        freed = self._give_up(sequence, blocks_for(tokens, self.size))
        sequence.keyed = sequence.gone = 0
        return freed

    def _give_up(self, sequence: Sequence, end: int) -> int:
        """Free what ``sequence`` holds before place ``end``, the last block first; returns how many became free."""
        held, freed = sequence.held, 0
        places = [place for place in held if place < end]
        blank = end - sequence.gone - len(places)
        sequence.gone = end
        if self.keyless_first:
            self.blank += blank
        else:
            self._queue.update((Block(None, 0), None) for _ in range(blank))
        for place in reversed(places):
            block = held.pop(place)
            if block is not None:
                block.holders -= 1
                if not block.holders:
                    self._queue[block] = None
                    freed += 1
        return freed + blank
