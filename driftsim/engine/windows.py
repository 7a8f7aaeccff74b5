"""The KV cache of a model whose every layer has a sliding window: blocks behind the window are free again.

It mirrors ``SlidingWindowManager`` of vllm/v1/core/single_type_kv_cache_manager.py (vLLM 0.32) without prefix caching.
A request gives up blocks when its turn comes, before it asks for more; those who come after it find them.
"""

from __future__ import annotations

from driftsim.engine.decoding import DecodePool
from driftsim.engine.prefixes import NOWHERE, Held
from driftsim.engine.sequence import Sequence, blocks_for
from driftsim.engine.sharing import SharedBlocks, Unseen
from driftsim.engine.versions import Rules
from driftsim.trace.settings import EngineSettings


class WindowedBlocks(SharedBlocks):
    """Blocks that nobody shares, of sequences whose attention looks back ``window`` tokens.

    ``most`` is the largest number of blocks that admission asks for: vLLM counts on the window from 0.20 on.
    """

    def __init__(self, settings: EngineSettings, rules: Rules, pool: DecodePool) -> None:
        total = settings.usable_kv_blocks
        super().__init__(total, pool, pipelined=settings.async_scheduling, keyless_first=True)
        self.window = settings.sliding_window or 0
        self.most = settings.window_blocks(rules.window_settled) if rules.window_cap else total + 1

    def slide(self, sequence: Sequence, settled: int) -> int:
        """Free the blocks behind the window of the first ``settled`` tokens of ``sequence``; returns how many."""
        behind = (settled - self.window + 1) // self.size
        freed = behind - sequence.gone
        if freed <= 0:
            return 0
        sequence.gone = behind
        return freed

    def enter(self, sequence: Sequence) -> None:
        """Prepare ``sequence``, which the engine was just given."""
        sequence.gone = 0
        sequence.cached = NOWHERE

    def look_up(self, sequence: Sequence, unseen: Unseen) -> tuple[Held, int, int, int]:
        """Nothing is found."""
        return [], 0, 0, NOWHERE

    def admit(self, sequence: Sequence, held: Held, count: int, new: int, need: int, unseen: Unseen) -> None:
        """Let ``sequence`` run, from its first token on."""
        sequence.gone = sequence.computed = 0
        sequence.joined = 0

    def grow(self, sequence: Sequence, tokens: int, unseen: Unseen) -> None:
        """The next chunk of ``sequence`` is scheduled: its blocks have no keys."""

    def give_back(self, sequence: Sequence, tokens: int, known: int, unseen: Unseen, before: int = 0) -> int:
        """Free the blocks of ``sequence`` for ``tokens`` tokens, but for those behind its window; how many they are."""
        freed = blocks_for(tokens, self.size) - sequence.gone
        sequence.gone = 0
        return freed

    def follow(self, free: int) -> None:
        """Blocks are counted, and have no order."""
