"""What relates the requests of a trace, as formats of other tools can hold it, and what of it they lose.

A format holds who waits for whom by ``parent``, as a place among the rows and one alone; by ``turn``, as the number of
a turn in its session; or not at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

import pandas as pd

Held: TypeAlias = Literal["parent", "turn", ""]


def as_parents(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Who follows whom, as Bailian's traces tell it: a turn has one parent, the first of those that are written."""
    found = list[dict[str, Any]]()
    for place, (before, category) in enumerate(zip(_written(rows), rows["category"].tolist(), strict=True)):
        parent = before[0] if before else -1
        turn = 1 if parent < 0 else found[parent]["turn"] + 1
        found.append({"chat_id": place, "parent_chat_id": parent, "type": category or "", "turn": turn})
    return found


def as_turns(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Session and number of the turn in it, from 0, of each of ``rows``; no session where it is none of any."""
    turns = list[int]()
    for before in _written(rows):
        turns.append(max((turns[one] for one in before), default=-1) + 1)
    names = rows["session"].tolist() if "session" in rows else [None] * len(rows)
    return [{"session_id": name or "", "round_index": turn if name else 0}
            for name, turn in zip(names, turns, strict=True)]  # fmt: skip


def lost(rows: pd.DataFrame, held: Held, block: int | None) -> list[str]:
    """What is lost of the relations of ``rows``, those written, a sentence each; ``block``: tokens of an id."""
    return [*_lost_turns(rows, held), *(_lost_tokens(rows, block) if block else [])]


def _told(rows: pd.DataFrame) -> list[Sequence[int]]:
    return rows["parent"].tolist() if "parent" in rows else [()] * len(rows)


def _written(rows: pd.DataFrame) -> list[list[int]]:
    """The places of the parents of each of ``rows`` that are written before it."""
    places = {row: place for place, row in enumerate(rows.index.tolist())}
    return [[places[one] for one in before if places.get(one, place) < place]
            for place, before in enumerate(_told(rows))]  # fmt: skip


def _lost_turns(rows: pd.DataFrame, held: Held) -> list[str]:
    told, written = _told(rows), _written(rows)
    waiting = sum(len(before) > 0 for before in told)
    if not waiting:
        return []
    if not held:
        return [f"the format has no place for session, parent and gap_s: {waiting} turns lose whom they wait for"]
    counts = {
        "the format has no place for gap_s: {} turns keep their times alone": waiting,
        "{} turns wait for others that are not written before them: these they lose": sum(
            len(before) > len(kept) for before, kept in zip(told, written, strict=True)
        ),
        **_one_alone(rows, written, held),
    }
    return [said.format(count) for said, count in counts.items() if count]


def _one_alone(rows: pd.DataFrame, written: Sequence[Sequence[int]], held: Held) -> Mapping[str, int]:
    """How many turns wait for others than the one that a format can tell."""
    several = sum(len(before) > 1 for before in written)
    if held == "parent":
        return {"{} turns wait for several: the first of these is written": several}
    latest: dict[tuple[str, int], int] = {}
    others = 0
    for place, (before, turn) in enumerate(zip(written, as_turns(rows), strict=True)):
        session, number = turn["session_id"], turn["round_index"]
        before_it = latest.get((session, number - 1))
        others += list(before) != ([] if before_it is None else [before_it])
        latest[session, number] = place
    return {"{} turns wait for others than the one before them in their session, which alone is written": others}


def _lost_tokens(rows: pd.DataFrame, block: int) -> list[str]:
    if "prefix_tokens" not in rows:
        return []
    shares = rows[["prefix_tokens", "prompt_tokens"]].fillna(0).min(axis=1).astype(int)
    rest = int((shares % block).sum())
    if not rest:
        return []
    return [
        f"{rest:,} of {int(shares.sum()):,} prompt tokens that are shared fill no block of {block}: they are not told"
    ]
