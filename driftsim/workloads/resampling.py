"""A resample is another day like the recorded one: blocks of consecutive requests, drawn again within their phase.

Where turns wait for others, what is drawn is not requests but whole sessions, in the order in which they begin: a
session that is cut in two would be a shorter one.

A circular resample draws blocks from the whole phase: what happens does not depend on when. A local resample draws each
block near its own place, so that a peak or a drift inside a phase stays where it was. Where the two disagree, the load
changes within a phase, and one day cannot tell how much of that is this day's own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Literal, TypeAlias

import numpy as np
import pandas as pd

from driftsim.trace.header import Phase
from driftsim.trace.schema import LARGEST_COUNT
from driftsim.workloads.workload import Workload, stream

Draw: TypeAlias = Callable[[int, np.random.Generator], np.ndarray]
Resampling: TypeAlias = Literal["circular", "local"]
TOGETHER = ("sessions", "open", "after-drain")  # kinds of phases of which whole sessions are drawn
REACH = 6  # a local block comes from within a phase's length over this of its own place


def resample(workload: Workload, seed: int, replication: int, how: Resampling = "circular") -> Workload:
    """A block bootstrap of ``workload`` within its phases; replication 0 is the workload itself.

    Blocks of consecutive requests, or sessions (of the square root of their number), are drawn with replacement, each
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
    table, first = workload.table, 0
    parts, phases = list[pd.DataFrame](), list[Phase]()
    picked, copies = list[int](), list[int]()  # by drawn row: the row that it was, and which draw brought it
    for phase in workload.info.phases:
        rows = table.iloc[first : first + phase.requests]
        together = "session" in rows and phase.kind in TOGETHER
        whole = _whole(rows, first) if together else list(np.arange(phase.requests)[:, None])
        places, drawn_by, offsets = _of_whole(rows, whole, draw(len(whole), random))
        if together and phase.kind != "sessions":  # sessions overlap
            order = np.argsort(offsets, kind="stable")
            places, drawn_by, offsets = places[order], drawn_by[order], offsets[order]
        if phase.kind == "closed":  # users begin and wait as they did
            offsets = rows["offset_s"].to_numpy()
        part = rows.iloc[places].assign(offset_s=offsets)
        parts.append(part.assign(session=_renamed(part["session"], drawn_by)) if together else part)
        picked += (first + places).tolist()
        copies += (len(copies) + drawn_by).tolist()
        phases.append(phase.changed(requests=len(places)))
        first += phase.requests
    drawn = pd.concat(parts, ignore_index=True)
    drawn = _linked(drawn, picked, copies)
    drawn["request_id"] = [f"{name}~{row}" for row, name in enumerate(drawn["request_id"])]
    return replace(workload, info=workload.info.changed(phases=tuple(phases)), table=drawn)


def _of_whole(
    rows: pd.DataFrame, whole: list[np.ndarray], picks: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Places of the ``rows`` of a phase that are drawn, which of ``picks`` brought each, and its offset (s).

    picks: places among the ``whole`` sessions, which stay together.
    """
    offsets = rows["offset_s"].to_numpy(dtype=float)
    begins = np.array([offsets[one[0]] for one in whole])
    drawn = [whole[pick] for pick in picks]
    places, copies = np.concatenate(drawn), np.repeat(np.arange(len(picks)), list(map(len, drawn)))
    moved = np.cumsum(np.diff(begins, prepend=0.0)[picks])
    return places, copies, moved[copies] + (offsets[places] - begins[picks][copies])


def _renamed(names: pd.Series, copies: np.ndarray) -> np.ndarray:
    """The ``names`` of sessions, of which each copy has one of its own; None where there is none."""
    pairs = zip(names.tolist(), copies.tolist(), strict=True)
    found = [f"{name}~{copy}" if isinstance(name, str) else None for name, copy in pairs]
    return np.array(found, dtype=object)


def _whole(rows: pd.DataFrame, first: int) -> list[np.ndarray]:
    """Places of the rows of each session, its first turn first; the sessions in order of their beginning.

    What has one name, or waits for one another, is one session.
    """
    root = list(range(len(rows)))

    def find(place: int) -> int:
        while root[place] != place:
            root[place] = place = root[root[place]]
        return place

    named: dict[str, int] = {}
    names = rows["session"].tolist() if "session" in rows else [None] * len(rows)
    for place, (name, parents) in enumerate(zip(names, rows["parent"].tolist(), strict=True)):
        others = [one - first for one in parents if one >= first]
        others += [named.setdefault(name, place)] if isinstance(name, str) else []
        for other in others:
            ends = find(place), find(other)
            root[max(ends)] = min(ends)
    units: dict[int, list[int]] = {}
    for place in range(len(rows)):
        units.setdefault(find(place), []).append(place)
    offsets = rows["offset_s"].tolist()
    return [np.array(unit) for unit in sorted(units.values(), key=lambda unit: offsets[unit[0]])]


def _linked(drawn: pd.DataFrame, picked: list[int], copies: list[int]) -> pd.DataFrame:
    """``drawn`` rows, which were ``picked``, with parents and texts among themselves.

    A turn follows the copy of its parent that was drawn last before it, and is a first turn where there is none. What a
    session shares with others stays shared; drawn again, what its turns were the first to send is a new text, which
    those of the same copy share.
    """
    if "parent" in drawn:
        latest: dict[int, int] = {}
        parents = []
        for row, (was, old) in enumerate(zip(picked, drawn["parent"].tolist(), strict=True)):
            parents.append([latest[one] for one in old if one in latest])
            latest[was] = row
        drawn["parent"] = pd.Series(parents, dtype=object)
    if "choice_of" in drawn:
        drawn["choice_of"] = pd.Series(_families(drawn["choice_of"].tolist(), picked), dtype=object)
    if "stretches" in drawn:
        seen: set[int] = set()
        texts, anew = [], dict[int, dict[int, int]]()  # by copy, the new names of texts
        for row, (copy, whole) in enumerate(zip(copies, drawn["stretches"].tolist(), strict=True)):
            own = whole[-1][0]
            if own in seen:
                anew.setdefault(copy, {})[own] = LARGEST_COUNT + row
            names = anew.get(copy, {})
            texts.append(tuple((names.get(owner, owner), end) for owner, end in whole) if names else whole)
            seen.add(own)
        drawn["stretches"] = pd.Series(texts, dtype=object)
    return drawn


def _families(names: list[str | None], picked: list[int]) -> list[str | None]:
    """The names in ``choice_of`` of rows that were ``picked``; a request that was drawn again is another one."""
    copies, found = Counter[str](), list[str | None]()
    before: tuple[str | None, int] = (None, -2)
    for name, was in zip(names, picked, strict=True):
        if isinstance(name, str) and before != (name, was - 1):
            copies[name] += 1
        before = (name, was)
        found.append(f"{name}~{copies[name]}" if isinstance(name, str) else None)
    return found


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
DRAWS: dict[Resampling, tuple[Draw, str]] = {
    "circular": (circular_picks, "resample"),
    "local": (local_picks, "local"),
}
