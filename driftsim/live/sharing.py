"""Which requests of a run begin alike, found without keeping what they say: by hashes under a key that is thrown away.

A hash stands for a block of tokens, or a piece of text, and for all before it; only their numbers in a row leave this
module, as ``prefix_row`` and ``prefix_tokens``. Where a server tells no tokens, texts of prompts are compared, and what
they share is turned into tokens at the pace of the shorter one: that is approximate. Outputs have no texts here, so
nothing of them is known to be shared.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import pandas as pd

from driftsim.trace.header import Prefixes
from driftsim.trace.prefixes import lengths_of, prefix_columns, shared
from driftsim.trace.schema import request_columns

HASH_BYTES = 8  # of 10**8 blocks, two are taken for one another in one run of 3,000
PIECE = 8  # characters of a text that are compared at once: about two tokens
TEMPLATE = 0  # stands for what a chat template puts before every prompt


@dataclass(frozen=True, slots=True)
class Beginning:
    """How a request begins, as hashes of its full blocks of tokens, or else of the pieces of its text.

    ``before``: tokens that the chat template puts before the text; ``a_piece``: tokens of a piece.
    """

    blocks: array[int] | None = None
    pieces: array[int] | None = None
    before: float = 0.0
    a_piece: float = 0.0
    answered: bool = False


class Hashes:
    """Hashes under a key of this session alone, which nobody can try out on a text that he guesses afterwards."""

    def __init__(self) -> None:
        self._key = os.urandom(32)

    def blocks(self, tokens: Sequence[int], size: int) -> array[int]:
        """Those of the full blocks of ``size`` tokens."""
        whole = array("q", tokens).tobytes()
        return self._chain(whole, 8 * size)

    def pieces(self, text: str) -> array[int]:
        """Those of the pieces of ``text``; the last letters, which fill no piece, are left out."""
        return self._chain(text.encode("utf-32-le", "surrogatepass"), 4 * PIECE)

    def _chain(self, whole: bytes, stride: int) -> array[int]:
        found, last = array("q"), b""
        for end in range(stride, len(whole) + 1, stride):
            last = blake2b(last + whole[end - stride : end], digest_size=HASH_BYTES, key=self._key).digest()
            found.frombytes(last)
        return found


def with_prefixes(
    requests: pd.DataFrame, begun: Mapping[int, Beginning], block: int, cold: bool | None
) -> tuple[pd.DataFrame, Prefixes | None]:
    """``requests`` with what they share, in blocks of ``block`` tokens, and how that was found; as they are, and None,
    where nobody knows how any of them ``begun``, by row. ``cold``: whether the engine's cache was empty before."""
    if not begun or not len(requests):
        return requests, None
    known = [begun.get(row, Beginning()) for row in range(len(requests))]
    by_tokens = all(one.blocks is not None for one in begun.values())
    rows, tokens = shared((one.blocks or () for one in known), block) if by_tokens else _of_texts(known, block)
    told = np.array([by_tokens or one.answered for one in known])  # whose answer was compared, too
    lengths = np.where(told, lengths_of(requests), requests["prompt_tokens"].to_numpy(dtype=np.int64))
    table = requests.assign(**prefix_columns(rows, tokens, lengths, block))
    table = table[[column.name for column in request_columns(set(table.columns)) if column.name in table]]
    return table, Prefixes(block_size=block, source="tokens" if by_tokens else "text", began_cold=cold)


def _of_texts(known: Sequence[Beginning], block: int) -> tuple[list[int], list[int]]:
    """The same by texts: the template's tokens and those of the common pieces, as many whole blocks as they fill.

    The common pieces are most of the shorter text, so that its pace is nearest to theirs.
    """
    keys = [() if one.pieces is None else (TEMPLATE, *one.pieces) for one in known]
    rows, pieces = shared(keys, 1)
    tokens = list[int]()
    for own, (row, count) in enumerate(zip(rows, pieces, strict=True)):
        shorter = known[row if row >= 0 and len(keys[row]) < len(keys[own]) else own]
        tokens.append(int((shorter.before + (count - 1) * shorter.a_piece) // block) * block if count else 0)
    return rows, tokens
