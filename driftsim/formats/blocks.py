"""How many tokens an id of a prompt's block stands for, as the lengths of prompts and of their lists of ids tell it.

A prompt has an id for every block, the last part of one included, or else for every full block: all prompts of a file
have the one or the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from driftsim.formats.values import counts, listed
from driftsim.trace.settings import LARGEST_BLOCK

USUAL = tuple(2**power for power in range(3, 13))  # tokens of a block
ENOUGH = 0.9  # of the prompts must have as many ids as blocks: a few may be cut


@dataclass(frozen=True, slots=True, eq=False)
class Blocks:
    """The prompts of a file that have ids: how many of them, and how many tokens."""

    ids: np.ndarray
    tokens: np.ndarray

    @classmethod
    def of(cls, cells: Sequence[Any], prompts: Sequence[Any]) -> Blocks:
        """Those of the rows whose lists of ids ``cells`` hold, and whose lengths ``prompts``; what is none is left."""
        ids = np.array([len(found) if (found := listed(cell)) else 0 for cell in cells], dtype=float)
        tokens, _ = counts(prompts)
        with np.errstate(invalid="ignore"):
            known = (ids >= 1) & (tokens >= 1) & np.isfinite(tokens)
        return cls(ids[known], tokens[known])

    @property
    def tell(self) -> bool:
        """Whether some prompt has several ids; one alone may stand for any number of tokens."""
        return bool((self.ids > 1).any())

    def agreeing(self, size: int) -> np.ndarray:
        """Which prompts have an id for each block of ``size`` tokens, all with their last parts or all without."""
        return np.asarray(max(self._ways(size), key=np.count_nonzero))

    def may_agree(self, size: int) -> np.ndarray:
        """Which prompts do, each with its last part or without."""
        with_last, without = self._ways(size)
        return np.asarray(with_last | without)

    def _ways(self, size: int) -> tuple[np.ndarray, np.ndarray]:
        return self.ids == np.ceil(self.tokens / size), self.ids == np.maximum(self.tokens // size, 1)

    def fit(self, size: int) -> bool:
        """Whether nearly every prompt agrees."""
        return len(self.ids) > 0 and bool(self.agreeing(size).mean() >= ENOUGH)

    def sizes(self) -> list[int]:
        """The usual sizes that fit, or else the first and the last of all that do; none where none does."""
        if not self.tell:
            return []
        return [size for size in USUAL if self.fit(size)] or self._between()

    def _between(self) -> list[int]:
        """The least and the largest size, one number if it is one, that fit the most prompts that have several ids.

        ``n`` ids for ``t`` tokens, a last part included, are of at least t / n tokens and of less than t / (n - 1).
        """
        several = self.ids > 1
        ids, tokens = self.ids[several], self.tokens[several]
        least, most = np.sort(np.ceil(tokens / ids)), np.sort(np.ceil(tokens / (ids - 1)) - 1)
        begins = np.unique(least)
        covered = np.searchsorted(least, begins, "right") - np.searchsorted(most, begins, "left")
        best = int(begins[covered.argmax()])
        if best > most[-1]:  # there are more ids than tokens
            return []
        last = int(most[np.searchsorted(most, best)])
        if not (1 <= best <= last <= LARGEST_BLOCK and self.fit(best)):
            return []
        return sorted({best, last})


def of_which_size(blocks: Blocks, expected: Sequence[int], whose: str) -> tuple[int | None, list[str]]:
    """The tokens that an id stands for, None where the prompts do not tell, and a sentence where that is worth one.

    One of the sizes ``expected`` is taken if it fits; ``whose`` says who has them.
    """
    fitting = blocks.sizes()
    size = next((one for one in expected if blocks.tell and blocks.may_agree(one).mean() >= ENOUGH), None)
    others = _listed([one for one in fitting if one != size])
    if size is not None:
        said = f"its hash_ids count as {size} tokens each, as {whose}: the lengths of prompts fit {others} as well"
        return size, [f"{said} (--hash-tokens N says otherwise)"] if others else []
    if len(fitting) == 1:
        usual = " or ".join(map(str, expected))
        said = f"its hash_ids count as {fitting[0]} tokens each, not {usual} as {whose}: the lengths of prompts tell"
        return fitting[0], [said] if expected else []
    return None, [f"they may be of {others} tokens each"] if others else []


def misfits(ids: Sequence[Sequence[Any]], prompts: Sequence[int], size: int) -> list[str]:
    """A sentence if some prompts that have ``ids`` have more or fewer of them than blocks of ``size`` tokens."""
    blocks = Blocks.of(list(map(list, ids)), prompts)
    agree = blocks.may_agree(size)
    if agree.all():
        return []
    fitting = blocks.sizes() if agree.mean() < ENOUGH else []
    better = f" (ids of {_listed(fitting)} tokens would fit)" if fitting else ""
    return [
        f"{np.count_nonzero(~agree)} of {len(agree)} prompts have more or fewer hash_ids than blocks of {size} tokens"
        f"{better}: a block without an id is shared with nobody, an id without a block is left out"
    ]


def _listed(sizes: Sequence[int]) -> str:
    """Usual sizes one by one; of others, the first and the last."""
    return (" or " if {*sizes} <= {*USUAL} else " to ").join(map(str, sizes))
