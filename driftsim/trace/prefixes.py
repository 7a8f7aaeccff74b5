"""What requests share at their beginnings, without their texts: two whole numbers a request.

``prefix_row`` is the earlier request that shares the most, ``prefix_tokens`` how many tokens, of that one's prompt and
then of its output. Both lose nothing: any two requests share what their chains of rows share. An engine gets them as
``Request.stretches``.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Hashable, Iterable, Sequence
from typing import TypeAlias

import numpy as np
import pandas as pd

Stretches: TypeAlias = "tuple[tuple[int, int], ...]"
ENDLESS = 1 << 60  # tokens
NONE = -1  # a prefix_row that is none
ALWAYS = -1  # the owner of tokens that the cache is taken to hold at any time, at no cost: who had them is not known


def stretches(rows: Sequence[int], tokens: Sequence[int]) -> list[Stretches]:
    """Whose the tokens of each request are: pairs of a row, the first that had them, and the token up to which.

    ``rows`` are ``prefix_row``, -1 for none, and ``tokens`` are ``prefix_tokens``. The last pair is the request itself.

    >>> stretches([-1, 0, 1], [0, 32, 48])[2]
    ((0, 32), (1, 48), (2, 1152921504606846976))
    """
    found: list[Stretches] = []
    cut: dict[tuple[int, int], Stretches] = {}  # one tuple for all who share the same: a million requests are smaller
    for row, (other, share) in enumerate(zip(rows, tokens, strict=True)):
        own = (row, ENDLESS)
        if other < 0 or share <= 0:
            found.append((own,))
            continue
        if (other, share) not in cut:
            cut[other, share] = _cut(found[other], share)
        found.append((*cut[other, share], own))
    return found


def stretches_in(table: pd.DataFrame) -> list[Stretches]:
    """The stretches of the requests of a ``table`` that has both columns."""
    return stretches(table["prefix_row"].fillna(NONE).tolist(), table["prefix_tokens"].fillna(0).tolist())


def in_common(whose: Iterable[Stretches]) -> frozenset[int]:
    """The owners of tokens that more than one of the requests has: of those of the others nobody asks.

    >>> sorted(in_common(stretches([-1, 0, 1, -1], [0, 32, 48, 0])))
    [0, 1]
    """
    seen, common = set[int](), set[int]()
    for whole in whose:
        for owner, _ in whole:
            (common if owner in seen else seen).add(owner)
    return frozenset(common)


def _cut(whole: Stretches, tokens: int) -> Stretches:
    """The pairs of the first ``tokens`` of a request."""
    parts = []
    for owner, end in whole:
        parts.append((owner, min(end, tokens)))
        if end >= tokens:
            break
    return tuple(parts)


def as_cached(prompts: Sequence[int], cached: Sequence[int]) -> list[Stretches]:
    """Stretches of requests of which only is known how many tokens of their prompts were found: the first order.

    >>> as_cached([40, 40], [32, 0])
    [((-1, 32), (0, 1152921504606846976)), ((1, 1152921504606846976),)]
    """
    found: list[Stretches] = []
    for row, (prompt, hit) in enumerate(zip(prompts, cached, strict=True)):
        own, most = (row, ENDLESS), min(hit, prompt - 1)
        found.append(((ALWAYS, most), own) if most > 0 else (own,))
    return found


def endless_hits(prompts: Sequence[int], outputs: Sequence[int], whose: Iterable[Stretches], block: int) -> np.ndarray:
    """Prompt tokens of each request that an endless cache with blocks of ``block`` tokens finds, (requests,).

    Had everybody before it, in this order, ended before it comes. The last token of a prompt is computed in any case,
    and the last one of an output never is.

    >>> endless_hits([40, 60], [8, 1], stretches([-1, 0], [0, 48]), 16).tolist()
    [0, 32]
    """
    reached: dict[int, int] = {}  # by owner, how much of its tokens has been computed
    found = []
    for prompt, output, parts in zip(prompts, outputs, whose, strict=True):
        computed, known, there = prompt + output - 1, 0, True
        for owner, end in parts:
            if there:
                known = max(known, end if owner == ALWAYS else min(end, reached.get(owner, 0)))
                there = known >= end
            if owner != ALWAYS:
                reached[owner] = max(reached.get(owner, 0), min(end, computed))
        found.append(min(known, prompt - 1) // block * block)
    return np.array(found, dtype=np.int64)


def prefixes(whose: Iterable[Stretches]) -> tuple[list[int], list[int]]:
    """``prefix_row`` and ``prefix_tokens`` of requests in this order: the inverse of ``stretches``, up to names.

    The numbers in the stretches may be any, and their owners need not be among the requests.

    >>> prefixes([((7, ENDLESS),), ((7, 32), (4, ENDLESS)), ((7, 32), (4, 48), (9, ENDLESS)), ((7, 16), (1, ENDLESS))])
    ([-1, 0, 1, 0], [0, 32, 48, 16])
    """
    rows, tokens = [], []
    # By owner: how far the rows went in it that went further than all before them, and these rows.
    furthest: dict[int, tuple[list[int], list[int]]] = {}
    for row, parts in enumerate(whose):
        best, share = NONE, 0
        for owner, end in parts:
            if owner not in furthest:
                furthest[owner] = ([end], [row])
                continue
            reach, reached = furthest[owner]
            if reach[-1] < end:
                best, share = reached[-1], reach[-1]
                reach.append(end)
                reached.append(row)
            else:
                best, share = reached[bisect_left(reach, end)], end
        rows.append(best)
        tokens.append(share)
    return rows, tokens


def prefix_columns(
    rows: Sequence[int] | np.ndarray, tokens: Sequence[int] | np.ndarray, lengths: np.ndarray, block: int = 1
) -> dict[str, pd.arrays.IntegerArray]:
    """Both columns as a trace has them, of no more tokens than the two requests have, in whole blocks of ``block``.

    ``lengths``: prompt and output of each request, as far as it came.
    """
    whose, shares = np.asarray(rows, dtype=np.int64), np.asarray(tokens, dtype=np.int64)
    if len(whose):
        shares = np.minimum(shares, np.minimum(lengths, lengths[np.maximum(whose, 0)]) // block * block)
    alone = (whose < 0) | (shares < 1)
    return {
        name: pd.arrays.IntegerArray(values, alone.copy())
        for name, values in (("prefix_row", whose), ("prefix_tokens", shares))
    }


def lengths_of(table: pd.DataFrame) -> np.ndarray:
    """Prompt and output of each request of a requests ``table``, as far as it came (tokens)."""
    return (table["prompt_tokens"] + table["output_tokens"].fillna(0)).to_numpy(dtype=np.int64)


def shared(keys: Iterable[Sequence[Hashable]], size: int) -> tuple[list[int], list[int]]:
    """``prefix_row`` and ``prefix_tokens`` of requests whose full blocks of ``size`` tokens have these ``keys``.

    Two blocks are the same if their keys and all keys before them are.

    >>> shared([["a", "b"], ["a", "c"], ["a", "c", "d"], ["x"]], 16)
    ([-1, 0, 1, -1], [0, 16, 32, 0])
    """
    rows, tokens = [], []
    nodes: dict[tuple[int, Hashable], int] = {}  # (node, key of the next block) to the node after it
    first: list[int] = [NONE]  # by node, the row that made it
    for row, blocks in enumerate(keys):
        node = depth = 0
        best = NONE
        for key in blocks:
            after = nodes.get((node, key))
            if after is None:
                after = nodes[node, key] = len(first)
                first.append(row)
            elif first[after] != row:
                depth += 1
                best = first[after]
            node = after
        rows.append(best)
        tokens.append(depth * size)
    return rows, tokens
