"""How full the KV cache gets if nobody else comes: what a policy inside the engine goes by that may hold the head back.

All that runs grows by a token a step until it goes, so the most is reached just before somebody goes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from driftsim.request import Job


class Room(NamedTuple):
    """The KV cache as a whole; ``chunk``: prompt tokens that a step computes at least, while some are left."""

    blocks: int
    block_size: int  # tokens
    chunk: int  # tokens


class Load(NamedTuple):
    """A job that runs, or the head that may; ``uncomputed``: its tokens that must be computed before it decodes."""

    job: Job
    uncomputed: int


def least_chunk(budget: int, slots: int, threshold: int) -> int:
    """Prompt tokens that a step computes at least: what ``slots`` - 1 decodes leave, in parts of ``threshold`` if set.

    >>> least_chunk(64, 8, 0), least_chunk(64, 8, 16), least_chunk(8, 8, 0)
    (57, 16, 1)
    """
    return max(1, min(threshold or budget, budget - slots + 1))


def peak_blocks(tokens: Sequence[int], steps: Sequence[int], block_size: int) -> int:
    """The most KV blocks that sequences of so many ``tokens`` come to hold together, each gone after its ``steps``.

    Sources: the future memory of Past-Future (arXiv 2507.10150), as in lightllm's continues_batch/impl.py, there in
    tokens. With the most left first, the k-th goes while the k first are there: O(n^2), in NumPy.

    >>> peak_blocks([5, 4, 5, 3, 4], [4, 3, 3, 2, 2], 1)
    31
    """
    left = np.array(steps)
    order = np.argsort(-left, kind="stable")
    blocks = -(-(np.array(tokens)[order][None, :] + left[order][:, None]) // block_size)
    return int(np.tril(blocks).sum(axis=1).max())
