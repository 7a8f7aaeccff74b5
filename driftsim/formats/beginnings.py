"""What a file tells of the beginnings that its prompts share becomes ``prefix_row`` and ``prefix_tokens``.

Hashes name the blocks of prompts alone. The blocks of an answer are known where a later prompt repeats it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, TypeAlias

from driftsim.formats.values import Problems, is_nothing, shown
from driftsim.trace.header import Prefixes
from driftsim.trace.prefixes import ENDLESS, NONE, Stretches, prefixes, shared

Ids: TypeAlias = "tuple[Hashable, ...]"
NUMBER = re.compile(r"-?\d{1,1000}")  # an id that is read as a number


@dataclass(frozen=True, slots=True)
class Lengths:
    """The tokens of each request, in the order of the trace: its prompt, and its prompt with its output."""

    prompt: list[int]
    whole: list[int]


@dataclass(frozen=True, slots=True)
class Shared:
    """``prefix_row`` and ``prefix_tokens`` of a trace, and how many answers are taken to be repeated."""

    rows: list[int]
    tokens: list[int]
    repeated: int = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class Hashes:
    """``cells``: the ids of each prompt's blocks of ``size`` tokens, row by row as the file has them."""

    cells: Sequence[Any]
    size: int
    source: Literal["hash_ids"] = field(default="hash_ids", init=False)

    @cached_property
    def read(self) -> tuple[list[Ids], Problems]:
        """The ids of each row, none where it tells none, and the rows that cannot be read."""
        found, problems = list[Ids](), Problems()
        for row, cell in enumerate(self.cells):
            try:
                found.append(_ids(cell))
            except ValueError as error:
                found.append(())
                problems[row] = str(error)
        return found, problems

    @property
    def problems(self) -> Problems:
        """The rows whose ids cannot be read."""
        return self.read[1]

    def told(self) -> Prefixes:
        """What the header says of it."""
        return Prefixes(block_size=self.size, source=self.source)

    def shared(self, order: Sequence[int], lengths: Lengths, parents: Sequence[Sequence[int]] | None) -> Shared:
        """What the rows ``order``, those of the trace, share; ``parents`` are rows of the trace, None where not told.

        A full block counts, a last part of one does not.
        """
        ids, _ = self.read
        told = [ids[row] for row in order]
        own = [blocks[: prompt // self.size] for blocks, prompt in zip(told, lengths.prompt, strict=True)]
        known = [len(blocks) == prompt // self.size for blocks, prompt in zip(own, lengths.prompt, strict=True)]
        if parents is None:
            parents = [[one] if one != NONE else [] for one in _continued(told, own, known, lengths)]
        whole, repeated = _with_answers(own, known, lengths, parents, self.size)
        return Shared(*shared(whole, self.size), repeated)


@dataclass(frozen=True, kw_only=True, eq=False)
class Groups:
    """The requests of a group share their first ``lengths`` tokens; ``names`` has the group of each row, or None."""

    names: Sequence[str | None]
    lengths: Sequence[float]
    source: Literal["generated"] = field(default="generated", init=False)

    @property
    def problems(self) -> Problems:
        """None: whoever made the groups has read them."""
        return {}

    def told(self) -> Prefixes:
        """What the header says of it."""
        return Prefixes(block_size=1, source=self.source)

    def shared(self, order: Sequence[int], lengths: Lengths, parents: Sequence[Sequence[int]] | None) -> Shared:
        """What the rows ``order``, those of the trace, share."""
        numbers: dict[str, int] = {}
        whose = list[Stretches]()
        for place, (row, prompt) in enumerate(zip(order, lengths.prompt, strict=True)):
            name, most = self.names[row], min(self.lengths[row], prompt)
            group = () if name is None or not most >= 1 else ((-2 - numbers.setdefault(name, len(numbers)), int(most)),)
            whose.append((*group, (place, ENDLESS)))
        return Shared(*prefixes(whose))


def _ids(cell: Any) -> Ids:
    """The ids in ``cell``: a list of whole numbers or texts, or the text of one. Raises ``ValueError``."""
    if is_nothing(cell):
        return ()
    listed = cell
    if isinstance(cell, str) and cell.strip().startswith("["):
        try:
            listed = json.loads(cell)
        except (ValueError, RecursionError):
            listed = None
    if not isinstance(listed, list):
        raise ValueError(f"is {shown(cell)}, not a list of the ids of blocks")
    wrong = [one for one in listed if type(one) not in (int, str) and not (isinstance(one, float) and one % 1 == 0)]
    if wrong:
        raise ValueError(f"holds {shown(wrong[0])}, which is no id of a block")
    return tuple(_id(one) for one in listed)


def _id(told: Any) -> Hashable:
    """An id, equal for a number and the text of it."""
    return int(told) if isinstance(told, float) or (isinstance(told, str) and NUMBER.fullmatch(told)) else told


def _continued(told: Sequence[Ids], own: Sequence[Ids], known: Sequence[bool], lengths: Lengths) -> list[int]:
    """The request that each one continues, where no file says so; ``NONE`` for none.

    It begins with all full blocks (``own`` of those ``told``) of that one's prompt, of which that one had the last
    before anybody else, or continued who had; and it is at least as long as that one's prompt and answer. Two questions
    to one document are shorter. Where a prompt came twice, nobody knows whose answer is repeated.
    """
    nodes: dict[tuple[int, Hashable], int] = {}
    first, last = [NONE], dict[int, int]()  # by node: who made it, and who is the latest that ends there
    found = list[int]()
    for row, blocks in enumerate(own):
        node, before = 0, NONE
        for key in blocks:
            after = nodes.get((node, key))
            if after is None:
                after = nodes[node, key] = len(first)
                first.append(row)
            node = after
            before = last.get(node, before)
        found.append(before if before != NONE and lengths.prompt[row] >= lengths.whole[before] else NONE)
        there = last.get(node, NONE)
        if there != NONE and told[there] == told[row]:
            last[node] = NONE
        elif known[row] and node and (first[node] == row or (there != NONE and there == found[-1])):
            last[node] = row
    return found


def _with_answers(
    own: Sequence[Ids], known: Sequence[bool], lengths: Lengths, parents: Sequence[Sequence[int]], size: int
) -> tuple[list[Ids], int]:
    """The blocks of each prompt, and of its answer where a later prompt repeats it; and how many do repeat one."""
    whole, repeated = list(own), 0
    for row, before in enumerate(parents):
        for parent in before:
            prompt, until = len(own[parent]), lengths.whole[parent] // size
            fits = known[parent] and lengths.prompt[row] >= lengths.whole[parent] and len(own[row]) >= until > prompt
            if fits and own[row][:prompt] == own[parent]:
                if len(whole[parent]) == prompt:
                    whole[parent] = own[row][:until]
                repeated += whole[parent] == own[row][:until]
    return whole, repeated
