"""The turns of drawn sessions: each drawn request becomes the first turn of one, and the others follow it.

Every turn of a tenant, and every sub-agent, has random streams of its own, which are drawn for all sessions alike: a
session that has a turn more, or a sender who is left out, moves nobody else's numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from driftsim.errors import InputError
from driftsim.trace.prefixes import ENDLESS, Stretches
from driftsim.workloads.generated import MOST_REQUESTS, Offer, Sender
from driftsim.workloads.lengths import LONGEST, Lengths
from driftsim.workloads.table import stream

MOST_NUMBERS = 10**8  # of one kind that are drawn for a tenant


class Expanded(NamedTuple):
    """The rows of a workload with turns. whose: the drawn request that each row belongs to, (rows,)."""

    whose: np.ndarray
    columns: dict[str, Any]


def expanded(first: pd.DataFrame, owners: np.ndarray, senders: Sequence[Sender], seed: int) -> Expanded | None:
    """The turns of all sessions, one session after the other, of requests that begin with ``first``.

    owners: the place among ``senders`` of who sends each of ``first``, (requests,). None where nobody has sessions or
    system prompts. Raises ``InputError`` for more turns than a workload holds, and for prompts that are too long.
    """
    if all(sender.offer.session is None and sender.offer.system is None for sender in senders):
        return None
    texts, outputs, caps = (first[name].tolist() for name in ("prompt_tokens", "output_tokens", "max_tokens"))
    talks = [_Talk(sender, seed) for sender in senders]
    if sum(talk.requests for talk in talks) > MOST_REQUESTS:
        raise InputError(f"that is more than {MOST_REQUESTS:,} turns; lower requests, or the turns of sessions")
    rows, places = _Rows(), [0] * len(senders)
    for arrival, owner in enumerate(owners.tolist()):
        talk, place = talks[owner], places[owner]
        places[owner] += 1
        cap = max(caps[arrival], talk.longest_output)
        talk.say(rows, arrival, place, (texts[arrival], outputs[arrival]), cap)
    if max(rows.prompts) > LONGEST:
        raise InputError(f"a prompt grows to {max(rows.prompts):,} tokens, {LONGEST:,} are the most; lower its turns")
    return Expanded(np.array(rows.whose), rows.columns(first, any(sender.offer.session for sender in senders)))


class _Rows:
    """Columns of the table that grows, a turn at a time."""

    def __init__(self) -> None:
        self.whose, self.prompts, self.outputs, self.caps = list[int](), list[int](), list[int](), list[int]()
        self.parents, self.gaps, self.stretches = list[list[int]](), list[float](), list[Stretches]()
        self.sessions, self.cut = list[str | None](), list[bool]()

    def add(
        self, arrival: int, prompt: int, output: int, cap: int, parents: list[int], gap: float, chain: Stretches
    ) -> Stretches:  # fmt: skip
        """Add a turn whose prompt begins as ``chain`` says; returns how the one after it begins."""
        row, shown = len(self.whose), min(output, cap)
        self.whose.append(arrival)
        self.prompts.append(prompt)
        self.outputs.append(shown)
        self.caps.append(cap)
        self.cut.append(output > cap)
        self.parents.append(parents)
        self.gaps.append(gap)
        self.stretches.append((*chain, (row, ENDLESS)))
        return (*chain, (row, prompt + shown))

    def columns(self, first: pd.DataFrame, sessions: bool) -> dict[str, Any]:
        """What the table has in place of what is in ``first``."""
        stops = first["stops"].astype(bool).to_numpy()[self.whose] & ~np.array(self.cut)
        found: dict[str, Any] = {
            "prompt_tokens": self.prompts,
            "output_tokens": self.outputs,
            "max_tokens": self.caps,
            "stops": stops,
            "stretches": pd.Series(self.stretches, dtype=object),
        }
        turns = {
            "session": pd.Series(self.sessions, dtype=object),
            "parent": pd.Series(self.parents, dtype=object),
            "gap_s": self.gaps,
        }
        return found | (turns if sessions else {})


@dataclass(frozen=True, eq=False)
class _Loop:
    """Turns in a row, of every session of a tenant: how many, (sessions,), and a list for each turn, (sessions,)."""

    turns: np.ndarray
    texts: list[list[int]]  # of the first turn of a main loop, none: it was drawn before
    outputs: list[list[int]]
    gaps: list[list[float]]

    @classmethod
    def drawn(cls, offer: Offer, turns: np.ndarray, label: str, seed: int, *, begins: bool) -> _Loop:
        """By the laws of ``offer``; ``begins``: with the text, output and gap of the first turn."""
        session, law, outputs = offer.session, offer.prompt_tokens, offer.output_tokens
        assert session is not None
        assert isinstance(law, Lengths)
        assert isinstance(outputs, Lengths)
        count, longest = len(turns), int(turns.max(initial=0))
        if count * longest > MOST_NUMBERS:
            raise InputError(f"sessions of up to {longest} turns take too many numbers; give the law of turns a high")
        texts: list[list[int]] = [[]]
        said, gaps = list[list[int]]([[]]), list[list[float]]([[]])
        for turn in range(1 if begins else 2, longest + 1):
            added = law if turn == 1 or session.added_tokens is None else session.added_tokens
            assert isinstance(added, Lengths)
            own = f"{label}, turn {turn}"
            texts.append(added.draw(count, stream(seed, f"prompts of {own}")).tolist())
            said.append(outputs.draw(count, stream(seed, f"outputs of {own}")).tolist())
            gaps.append(session.gaps.draw(count, stream(seed, f"gaps of {own}")).tolist())
        skip = 1 if begins else 0
        return cls(turns, texts[skip:], said[skip:], gaps[skip:])

    @property
    def longest_output(self) -> int:
        """The longest of those that are drawn for later turns."""
        return max((max(own, default=0) for own in self.outputs), default=0)


class _Talk:
    """What follows the requests of one sender, and what they begin with."""

    def __init__(self, sender: Sender, seed: int) -> None:
        self.offer, label, count = sender.offer, sender.tenant.label, sender.requests
        session, self.subs = self.offer.session, list[_Loop]()
        self.loop: _Loop | None = None
        self.branches = np.zeros(count, dtype=int)  # sub-agents, by session
        if session is not None:
            assert isinstance(session.turns, Lengths)
            turns = session.turns.draw(count, stream(seed, f"turns of {label}"))
            self.loop = _Loop.drawn(self.offer, turns, label, seed, begins=False)
            if isinstance(session.sub_agents, Lengths):
                self._fan_out(session.sub_agents, turns, label, seed)
        self.choices, self.system = self._system_prompts(label, count, seed)
        self._first = dict[int, int]()  # by system prompt, the row that was the first to have it

    def _fan_out(self, law: Lengths, turns: np.ndarray, label: str, seed: int) -> None:
        session, count = self.offer.session, len(turns)
        assert session is not None
        assert isinstance(session.sub_turns, Lengths)
        fans = (stream(seed, f"fan-out of {label}").random(count) < session.sub_share) & (turns > 1)
        self.branches = np.where(fans, law.draw(count, stream(seed, f"sub-agents of {label}")), 0)
        for number in range(1, int(self.branches.max(initial=0)) + 1):
            own = f"{label}, sub-agent {number}"
            drawn = session.sub_turns.draw(count, stream(seed, f"turns of {own}"))
            self.subs.append(_Loop.drawn(self.offer, drawn, own, seed, begins=True))

    def _system_prompts(self, label: str, count: int, seed: int) -> tuple[list[int], list[int]]:
        """Which system prompt each session has, (sessions,), and the tokens of each prompt; none: all have 0 tokens."""
        if self.offer.system is None:
            return [0] * count, [0]
        weights, law = self.offer.system.weights(), self.offer.system.tokens
        assert isinstance(law, Lengths)
        tokens = law.draw(len(weights), stream(seed, f"system prompts of {label}"))
        picks = stream(seed, f"choice of system prompts of {label}").random(count)
        choices = np.minimum(np.searchsorted(np.cumsum(weights), picks, side="right"), len(weights) - 1)
        return choices.tolist(), tokens.tolist()

    @property
    def requests(self) -> int:
        """Turns in all."""
        if self.loop is None:
            return len(self.choices)
        subs = (int(own.turns[self.branches > number].sum()) for number, own in enumerate(self.subs))
        return int(self.loop.turns.sum()) + sum(subs)

    @property
    def longest_output(self) -> int:
        """The longest output of a later turn where nothing limits it; 0 where something does."""
        law = self.offer.output_tokens
        if self.offer.max_tokens or not isinstance(law, Lengths) or law.longest or self.loop is None:
            return 0
        return max(loop.longest_output for loop in (self.loop, *self.subs))

    def say(self, rows: _Rows, arrival: int, place: int, first: tuple[int, int], cap: int) -> None:
        """Add the turns of session number ``place``, whose first turn has ``first`` text and output."""
        begun, context = len(rows.whose), self.system[self.choices[place]]
        owner = self._first.setdefault(self.choices[place], begun)
        shared: Stretches = ((owner, context),) if context else ()
        text, output = first
        chain = rows.add(arrival, context + text, output, cap, [], np.nan, () if owner == begun else shared)
        parents, reports = [begun], 0
        for number in range(self.branches[place]):
            parents = parents if number else []
            parents.append(self._sub_agent(rows, (arrival, number, place, cap), begun, shared))
            reports += rows.outputs[parents[-1]]
        for turn in range(1, 1 if self.loop is None else int(self.loop.turns[place])):
            assert self.loop is not None
            added = reports if turn == 1 and reports else self.loop.texts[turn][place]
            output, gap = self.loop.outputs[turn][place], self.loop.gaps[turn][place]
            chain = rows.add(arrival, chain[-1][1] + added, output, cap, parents, gap, chain)
            parents = [len(rows.whose) - 1]
        named = f"s{arrival}" if self.loop is not None else None
        rows.sessions += [named] * (len(rows.whose) - begun)

    def _sub_agent(self, rows: _Rows, who: tuple[int, int, int, int], parent: int, shared: Stretches) -> int:
        """Add the turns of one sub-agent, ``who`` is (arrival, its number, session, cap); returns its last row."""
        arrival, number, place, cap = who
        loop, chain, parents = self.subs[number], shared, [parent]
        context = shared[-1][1] if shared else 0
        for turn in range(int(loop.turns[place])):
            prompt = context + loop.texts[turn][place]
            chain = rows.add(
                arrival, prompt, loop.outputs[turn][place], cap, parents, loop.gaps[turn][place], chain
            )  # fmt: skip
            context, parents = chain[-1][1], [len(rows.whose) - 1]
        return parents[0]
