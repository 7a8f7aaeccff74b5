"""The KV cache as a count of blocks: who holds how many, and how many are free."""

from __future__ import annotations


def blocks_for(tokens: int, block_size: int) -> int:
    """Blocks that ``tokens`` fill, the last one perhaps in part."""
    return -(-tokens // block_size)


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

    def grow(self, holder: object, tokens: int, must_fit: int = 0) -> bool:
        """Let ``holder`` hold ``tokens`` tokens; False, and nothing changed, where the free blocks do not suffice.

        ``must_fit`` asks that so many tokens would fit, though blocks are taken for ``tokens`` only: vLLM admits a
        request only if its whole prompt fits (kv_cache_manager.py, ``full_sequence_must_fit``).
        """
        have = self.held.get(holder, 0)
        need = blocks_for(tokens, self.block_size) - have
        if max(need, blocks_for(must_fit, self.block_size) - have) > self.free:
            return False
        if need > 0:
            self.free -= need
            self.held[holder] = have + need
        return True

    def release(self, holder: object) -> None:
        """Free all that ``holder`` holds."""
        self.free += self.held.pop(holder, 0)
