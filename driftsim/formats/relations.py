"""Requests of a file are related: they follow each other in sessions, and share the beginnings of their prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pandas as pd

from driftsim.formats.beginnings import Groups, Hashes, Lengths, Shared
from driftsim.formats.found import Found
from driftsim.formats.sessions import linked
from driftsim.trace.header import Prefixes


@dataclass(frozen=True, slots=True)
class Related:
    """``rows`` with the columns of what relates them, the header's word of it, what is assumed, and how much it is."""

    rows: pd.DataFrame
    prefixes: Prefixes | None = None
    said: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def related(found: Found, rows: pd.DataFrame) -> Related:
    """``rows``, by arrival and indexed by their numbers in the file, with what was ``found`` to relate them."""
    order = rows.index.tolist()
    said, parents = list[str](), None
    if found.sessions is not None:
        sessions = linked(found.sessions, order, rows)
        rows = rows.assign(**sessions.columns)
        said += sessions.said
        parents = sessions.parents
    if found.beginnings is None:
        return Related(rows, None, said)
    lengths = _lengths(rows)
    shared = found.beginnings.shared(order, lengths, parents)
    if not any(shared.tokens):
        return Related(rows, None, said)
    columns = {
        "prefix_row": pd.array([row if row >= 0 else None for row in shared.rows], dtype="Int64"),
        "prefix_tokens": pd.array([tokens or None for tokens in shared.tokens], dtype="Int64"),
    }
    said += _of_answers(shared, parents)
    notes = [_of_prompts(found.beginnings, shared, lengths)]
    return Related(rows.assign(**columns), found.beginnings.told(), said, notes)


def _lengths(rows: pd.DataFrame) -> Lengths:
    prompt = rows["prompt_tokens"].astype(int)
    return Lengths(prompt.tolist(), (prompt + rows["output_tokens"].fillna(0).astype(int)).tolist())


def _of_answers(shared: Shared, parents: Sequence[Sequence[int]] | None) -> list[str]:
    """What is assumed of answers that later prompts hold."""
    if not shared.repeated:
        return []
    if parents is not None:
        return [f"{shared.repeated} turns are taken to repeat their parent's answer in their prompts"]
    return [
        f"{shared.repeated} requests are taken for turns that repeat an earlier prompt and its answer: each begins as "
        "that prompt and is longer than both"
    ]


def _of_prompts(beginnings: Hashes | Groups, shared: Shared, lengths: Lengths) -> str:
    """How much is shared, and what that means."""
    some = sum(tokens > 0 for tokens in shared.tokens)
    tokens = sum(map(min, shared.tokens, lengths.prompt))
    return (
        f"{some} of {len(shared.tokens)} prompts begin as an earlier request, with {tokens:,} of "
        f"{sum(lengths.prompt):,} prompt tokens ({beginnings.source}): an engine without enable_prefix_caching "
        "computes them all"
    )
