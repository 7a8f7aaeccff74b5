"""In which order several policies run, round by round: so that no policy has one place for itself.

A host's speed drifts, so a run resembles its neighbours. Where every round has one order, a policy cannot be told from
its position; a Latin square gives every policy every position, and balances which policy ran just before it.
"""

from __future__ import annotations

import random

from driftsim.errors import InputError
from driftsim.live.kinds import Order


def orders(policies: int, rounds: int, order: Order = "latin", seed: int = 0) -> list[list[int]]:
    """For each of ``rounds``, the numbers of the ``policies`` in the order in which they run.

    ``latin``: blocks of Williams designs, whose columns and rows are shuffled by ``seed``; ``random``: each round drawn
    on its own; ``fixed``: as they were given. More rounds go on where fewer ended, so that rounds can be added.

    >>> orders(3, 2, "fixed")
    [[0, 1, 2], [0, 1, 2]]
    """
    if policies < 1 or rounds < 1:
        raise InputError(f"an order takes at least one policy and one round, got {policies} and {rounds}")
    plain = list(range(policies))
    if order == "fixed":
        return [plain for _ in range(rounds)]
    draw = random.Random(seed)
    found: list[list[int]] = []
    while len(found) < rounds:
        found += [draw.sample(plain, policies)] if order == "random" else _shuffled(policies, draw)
    return found[:rounds]


def williams(policies: int) -> list[list[int]]:
    """A Latin square, for an odd number two, in which every policy follows every other equally often (Williams 1949).

    Once in the square of an even number, twice in the two of an odd one. The second is the first read backwards.

    >>> williams(4)
    [[0, 3, 1, 2], [1, 0, 2, 3], [2, 1, 3, 0], [3, 2, 0, 1]]
    """
    first = [place // 2 if place % 2 == 0 else policies - (place + 1) // 2 for place in range(policies)]
    square = [[(start + shift) % policies for start in first] for shift in range(policies)]
    return square if policies % 2 == 0 else square + [row[::-1] for row in square]


def _shuffled(policies: int, draw: random.Random) -> list[list[int]]:
    """A Williams design with its policies renamed and the rows of each square shuffled: still one of them."""
    design = williams(policies)
    names = draw.sample(range(policies), policies)
    squares = [design[start : start + policies] for start in range(0, len(design), policies)]
    return [[names[place] for place in row] for square in squares for row in draw.sample(square, len(square))]
