"""The blocks of prompts as numbers, as other tools write them: equal where the prompts are equal up to their ends."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from driftsim.trace.prefixes import ENDLESS, Stretches, stretches_in


def whose(requests: pd.DataFrame) -> list[Stretches]:
    """With whom each of a trace's ``requests`` shares its beginning: with nobody where the trace does not tell."""
    if "prefix_row" not in requests:
        return [((row, ENDLESS),) for row in range(len(requests))]
    return stretches_in(requests)


def hash_ids(parts: Sequence[Stretches], prompts: Sequence[int], size: int) -> list[list[int]]:
    """The number of each block of ``size`` tokens of the prompts, a last part included, in order of appearance.

    >>> hash_ids([((0, 99),), ((0, 32), (1, 99)), ((0, 32), (1, 48), (2, 99))], [40, 50, 48], 16)
    [[0, 1, 2], [0, 1, 3, 4], [0, 1, 3]]
    """
    numbers: dict[tuple[int, ...], int] = {}
    found = []
    for own, prompt in zip(parts, prompts, strict=True):
        ids, part = list[int](), 0
        for begin in range(0, prompt, size):
            end = min(begin + size, prompt)
            while own[part][1] < end:
                part += 1
            key = (own[part][0], begin) if end - begin == size else (own[part][0], begin, end)
            ids.append(numbers.setdefault(key, len(numbers)))
        found.append(ids)
    return found
