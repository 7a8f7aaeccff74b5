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
from driftsim.formats.found import Found
from driftsim.formats.head import Head
from driftsim.formats.mapping import unread_prefixes
from driftsim.formats.source import Source, read_source
from driftsim.formats.values import counts, times

Unit = Literal["s", "ms"]
COLUMNS = {"arrival_s": "timestamp", "prompt_tokens": "input_length", "output_tokens": "output_length"}
MOONCAKE, BAILIAN = 512, 16  # tokens of a hash
BLOCKS: dict[int, Unit] = {MOONCAKE: "ms", BAILIAN: "s"}
OTHER_BLOCKS = (64, 32, 128, 256, 1024, 8, 2048, 4096)  # tokens of a hash in a trace of anybody else
FEWEST = 3  # gaps that must be known before their length tells a unit
LONG_GAP = 20.0  # a mean gap above it is too long for seconds, below a twentieth of a second too short for ms


def fits(head: Head) -> bool:
    """Whether ``head`` is that of such a trace."""
    return head.has(*COLUMNS.values())


def read(file: Path, unit: Unit | None = None, block: int | None = None) -> Found:
    """What is found in ``file``; where no ``unit`` is given, the file's numbers tell it, and how is said.

    ``block``: the tokens of a hash, where the file's numbers do not tell. Raises ``InputError`` if a key is missing.
    """
    source = read_source(file)
    check_columns(source)
    said = []
    if unit is None:
        unit, why = decided(source)
        other = "ms" if unit == "s" else "s"
        said = [f"its times count as {unit}: {why} (--unit {other} says otherwise)"]
    return found_in(source, unit, said, block_size(source) or block)


def found_in(source: Source, unit: Unit, said: list[str], block: int | None) -> Found:
    """What is found in ``source``, whose times count in ``unit``; a hash stands for ``block`` tokens, None: unknown."""
    ids = source.either("hash_ids")
    return Found(
        source=source,
        cells={ours: source.either(theirs) for ours, theirs in COLUMNS.items()},
        names=COLUMNS,
        units={"arrival_s": unit},
        beginnings=None if block is None else Hashes(cells=ids, size=block),
        guessed=[*said, *unread_prefixes(source, () if block is None else ("hash_ids",))],
    )


def check_columns(source: Source) -> None:
    """Raise ``InputError`` if ``source`` lacks a key that every row needs."""
    for name in COLUMNS.values():
        if source.cells(name) is None:
            raise InputError(f"{source.file}: lacks {name!r}; such a trace has {', '.join(COLUMNS.values())}")


def decided(source: Source) -> tuple[Unit, str]:
    """The unit of the times in ``source``, and why it is taken for that."""
    block = block_size(source)
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


def block_size(source: Source) -> int | None:
    """How many tokens a hash id stands for, if it is a usual number and nearly every row agrees."""
    ids = source.either("hash_ids")
    lengths, _ = counts(source.either("input_length"))
    rows = [(len(one), length) for one, length in zip(ids, lengths, strict=True) if isinstance(one, list) and len(one)]
    rows = [(count, length) for count, length in rows if 1 <= length < np.inf]
    for block in (*BLOCKS, *OTHER_BLOCKS):
        agree = sum(count in (-(-length // block), max(length // block, 1)) for count, length in rows)
        if rows and agree >= 0.9 * len(rows) and any(count > 1 for count, _ in rows):
            return block
    return None
