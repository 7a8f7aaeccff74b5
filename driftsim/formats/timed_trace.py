"""Traces of arrivals, lengths and hashes of prompt blocks: Mooncake's, and what vLLM's ``timed_trace`` dataset reads.

The keys are the same: ``timestamp``, ``input_length``, ``output_length``, ``hash_ids``. Mooncake (kvcache-ai/Mooncake,
FAST25-release/traces) counts milliseconds, with a hash for every 512 tokens; vLLM (``TimedTrace`` in
vllm/benchmarks/datasets/datasets.py) counts seconds by default, with a hash for every 16. Which one a file is, its
numbers must tell.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from driftsim.errors import InputError
from driftsim.formats.beginnings import Hashes
from driftsim.formats.blocks import Blocks, of_which_size
from driftsim.formats.found import Found
from driftsim.formats.head import Head
from driftsim.formats.mapping import unread_prefixes
from driftsim.formats.source import Source, read_source
from driftsim.formats.values import times

Unit = Literal["s", "ms"]
COLUMNS = {"arrival_s": "timestamp", "prompt_tokens": "input_length", "output_tokens": "output_length"}
MOONCAKE, BAILIAN = 512, 16  # tokens of a hash
BLOCKS: dict[int, Unit] = {MOONCAKE: "ms", BAILIAN: "s"}
KNOWN = "Mooncake's or Bailian's are"
FEWEST = 3  # gaps that must be known before their length tells a unit
LONG_GAP = 20.0  # a mean gap above it is too long for seconds, below a twentieth of a second too short for ms


def fits(head: Head) -> bool:
    """Whether ``head`` is that of such a trace."""
    return head.has(*COLUMNS.values())


def read(file: Path, unit: Unit | None = None, hash_tokens: int | None = None, mooncakes: bool = False) -> Found:
    """What is found in ``file``; where no ``unit`` is given, the file's numbers tell it, and how is said.

    ``hash_tokens``: the tokens of a hash, where the user says it. ``mooncakes``: the user says that the file is one of
    Mooncake's, so that it must be as these are. Raises ``InputError`` if a key is missing, or as ``sized`` does.
    """
    source = read_source(file)
    check_columns(source)
    if mooncakes:
        tokens, said = sized(source, MOONCAKE, "Mooncake's are", hash_tokens)
        return found_in(source, unit or "ms", said, tokens)
    block, said = (hash_tokens, []) if hash_tokens else of_which_size(_blocks(source), tuple(BLOCKS), KNOWN)
    if unit is None:
        unit, why = decided(source, block)
        other = "ms" if unit == "s" else "s"
        said = [f"its times count as {unit}: {why} (--unit {other} says otherwise)", *said]
    return found_in(source, unit, said, block)


def sized(source: Source, expected: int, whose: str, given: int | None) -> tuple[int, list[str]]:
    """The tokens of a hash in a file of a format that has ``expected``, and what is to be said of it.

    Raises ``InputError`` where most lists of hashes fit neither these nor any others, and none are ``given``.
    """
    if given is not None:
        return given, []
    blocks = _blocks(source)
    size, said = of_which_size(blocks, (expected,), whose)
    agree = blocks.may_agree(expected)
    if size is None and 2 * np.count_nonzero(agree) < len(agree):
        raise InputError(
            f"{source.file}: its hash_ids are not of {expected} tokens each, as {whose}: {np.count_nonzero(agree)} of "
            f"{'; '.join((f'{len(agree)} prompts fit', *said))}. Say of how many an id is: --hash-tokens N"
        )
    return size or expected, said


def found_in(source: Source, unit: Unit, said: list[str], block: int | None) -> Found:
    """What is found in ``source``, whose times count in ``unit``; a hash stands for ``block`` tokens, None: unknown."""
    unread = unread_prefixes(source, () if block is None else ("hash_ids",))
    if unread and block is None:
        unread = [f"{unread[0]}; --hash-tokens N says how many tokens an id stands for"]
    return Found(
        source=source,
        cells={ours: source.either(theirs) for ours, theirs in COLUMNS.items()},
        names=COLUMNS,
        units={"arrival_s": unit},
        beginnings=None if block is None else Hashes(cells=source.either("hash_ids"), size=block),
        guessed=[*said, *unread],
    )


def check_columns(source: Source) -> None:
    """Raise ``InputError`` if ``source`` lacks a key that every row needs."""
    for name in COLUMNS.values():
        if source.cells(name) is None:
            raise InputError(f"{source.file}: lacks {name!r}; such a trace has {', '.join(COLUMNS.values())}")


def decided(source: Source, block: int | None) -> tuple[Unit, str]:
    """The unit of the times in ``source``, whose hashes stand for ``block`` tokens, and why it is taken for that."""
    if block in BLOCKS:
        whose = "Mooncake" if block == MOONCAKE else "Qwen-Bailian"
        return BLOCKS[block], f"a hash id stands for {block} tokens, as in the traces of {whose}"
    moments, _ = times(source.either("timestamp"))
    moments = np.sort(moments[np.isfinite(moments)])
    if (moments % 1 != 0).any():
        return "s", "they have fractions"
    if len(moments) > FEWEST and moments[-1] > moments[0]:
        gap = float(moments[-1] - moments[0]) / (len(moments) - 1)
        if gap > LONG_GAP:
            return "ms", f"a mean gap of {gap:.3g} s between requests would be long"
        if gap < 1:
            return "s", f"a mean gap of {gap:.3g} ms between requests would be short"
    return "s", "nothing in the file tells their unit, and vLLM's timed_trace reads seconds"


def _blocks(source: Source) -> Blocks:
    return Blocks.of(source.either("hash_ids"), source.either("input_length"))
