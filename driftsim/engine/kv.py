"""The KV cache is counted in blocks of tokens."""

from __future__ import annotations


def blocks_for(tokens: int, block_size: int) -> int:
    """Blocks that ``tokens`` fill, the last one perhaps in part."""
    return -(-tokens // block_size)
