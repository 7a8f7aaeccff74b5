"""A resample is another day like the recorded one: blocks of consecutive requests, drawn again within their phase.

A circular resample draws blocks from the whole phase: what happens does not depend on when. A local resample draws each
block near its own place, so that a peak or a drift inside a phase stays where it was. Where the two disagree, the load
changes within a phase, and one day cannot tell how much of that is this day's own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal, TypeAlias

import numpy as np
import pandas as pd

from driftsim.trace.schema import LARGEST_COUNT
from driftsim.workloads.workload import Workload, stream

Resampling: TypeAlias = Literal["circular", "local"]
REACH = 6  # a local block comes from within a phase's length over this of its own place


def resample(workload: Workload, seed: int, replication: int, how: Resampling = "circular") -> Workload:
    """A block bootstrap of ``workload`` within its phases; replication 0 is the workload itself.

    Blocks of consecutive requests (of the square root of the phase's length) are drawn with replacement, each request
    with the gap before it, so that bursts and their mix survive. ``circular``: from anywhere in the phase, wrapping
    around (Politis and Romano 1992). ``local``: from around the block's own place (Paparoditis and Politis 2002).

    >>> from driftsim.trace.trace import read
    >>> from driftsim.workloads.replay import replay
    >>> workload = replay(read("traces/smollm2-cpu-drift"))
    >>> len(resample(workload, seed=0, replication=1)), len(resample(workload, 0, 1, "local"))
    (360, 360)
    """
    if replication == 0:
        return workload
    draw, name = DRAWS[how]
    random = stream(seed, f"{name}-{replication}")
    table = workload.table
    parts, first, picked = [], 0, list[int]()
    for phase in workload.info.phases:
        count = phase.requests
        picks = draw(count, random)
        picked += (first + picks).tolist()
        offsets = table["offset_s"].to_numpy()[first : first + count]
        part = table.iloc[first + picks].copy()
        if phase.kind == "closed":  # users begin and wait as they did
            part["offset_s"] = offsets
        else:
            part["offset_s"] = np.cumsum(np.diff(offsets, prepend=0.0)[picks])
        parts.append(part)
        first += count
    drawn = pd.concat(parts, ignore_index=True)
    drawn = _linked(drawn, picked)
    drawn["request_id"] = [f"{name}~{row}" for row, name in enumerate(drawn["request_id"])]
    return replace(workload, table=drawn)


def _linked(drawn: pd.DataFrame, picked: list[int]) -> pd.DataFrame:
    """``drawn`` rows, which were ``picked``, with parents and texts among themselves.

    A turn follows the copy of its parent that was drawn last before it, and is a first turn where there is none. What a
    request shares with others stays shared; drawn again, what it was the first to send is a new text.
    """
    if "parent" in drawn:
        latest: dict[int, int] = {}
        parents = []
        for row, (was, old) in enumerate(zip(picked, drawn["parent"].tolist(), strict=True)):
            parents.append([latest[one] for one in old if one in latest])
            latest[was] = row
        drawn["parent"] = pd.Series(parents, dtype=object)
    if "stretches" in drawn:
        seen: set[int] = set()
        texts = []
        for row, whole in enumerate(drawn["stretches"].tolist()):
            own, end = whole[-1]
            texts.append((*whole[:-1], (LARGEST_COUNT + row, end)) if own in seen else whole)
            seen.add(own)
        drawn["stretches"] = pd.Series(texts, dtype=object)
    return drawn


def circular_picks(count: int, random: np.random.Generator) -> np.ndarray:
    """Which of ``count`` requests a circular resample takes, in order."""
    length = max(1, round(count**0.5))
    starts = random.integers(0, count, size=-(-count // length))
    picks: np.ndarray = ((starts[:, None] + np.arange(length)) % count).ravel()[:count]
    return picks


def local_picks(count: int, random: np.random.Generator) -> np.ndarray:
    """Which of ``count`` requests a local resample takes, in order; a block begins within ``REACH`` of its place.

    >>> picks = local_picks(600, np.random.default_rng(0))
    >>> len(picks), int(abs(picks - np.arange(600)).max()) <= 600 // REACH + 24
    (600, True)
    """
    length = max(1, round(count**0.5))
    places = np.arange(0, count, length)
    low = np.clip(np.ceil(places - count / REACH), 0, count - length).astype(int)
    high = np.clip(np.floor(places + count / REACH), 0, count - length).astype(int)
    starts = random.integers(low, high + 1)
    picks: np.ndarray = (starts[:, None] + np.arange(length)).ravel()[:count]
    return picks


# How blocks are drawn, and the name of the random stream, which stored results rest on.
DRAWS: dict[Resampling, tuple[Callable[[int, np.random.Generator], np.ndarray], str]] = {
    "circular": (circular_picks, "resample"),
    "local": (local_picks, "local"),
}
