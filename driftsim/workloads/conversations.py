"""A conversation is a law of turns: each prompt holds all that came before, behind a shared system prompt."""

from __future__ import annotations

from typing import Annotated, Self

import numpy as np
from pydantic import Field, JsonValue, model_validator

from driftsim.errors import InputError
from driftsim.records import Record
from driftsim.workloads.kinds import SessionKind
from driftsim.workloads.lengths import Length, Lengths
from driftsim.workloads.seconds import Duration, Seconds

MOST_SYSTEM_PROMPTS = 100_000
TOKENS: dict[str, JsonValue] = {"unit": "tokens"}
ONE = Lengths(kind="constant", value=1)


class Session(Record):
    """What follows a request that begins a session: a chat with a user, or the loop of an agent with its tools.

    The request's own prompt and output are those of the first turn. Each later turn comes ``gap_s`` after the one
    before it has ended; its prompt is that one's prompt and output, and ``added_tokens`` more. ``chat``: the gap is a
    user who reads and thinks, what is added is what the user writes. ``agent``: a tool that works, and its result.

    An agent may have ``sub_agents``: in ``sub_share`` of the sessions of two turns or more, that many begin after its
    first turn, each with a prompt of its own by the law of ``prompt_tokens`` and ``sub_turns`` turns. The second turn
    waits for all of them; what it adds is the outputs of their last turns.

    >>> Session(kind="chat", turns=5, gap_s=20.0).turns.value
    5
    >>> Session(kind="chat", turns=5, gap_s=20.0, sub_agents=2)
    Traceback (most recent call last):
    driftsim.errors.InputError: a chat has no sub_agents; leave it out, or give kind = "agent"
    """

    kind: SessionKind = Field(description="Whether a user or a tool answers: `chat` or `agent`.")
    turns: Length = Field(description="Turns of a session: a number or a law.", json_schema_extra={"unit": "requests"})
    gap_s: Duration = Field(
        description="Time from an answer to the next turn: a number or a law.", json_schema_extra={"unit": "s"}
    )
    added_tokens: Length | None = Field(
        default=None,
        description="What each later turn adds to what came before: a number or a law; without one, that of "
        "`prompt_tokens`.",
        json_schema_extra=TOKENS,
    )
    sub_agents: Length | None = Field(
        default=None, description="agent: sub-agents that begin after the first turn, whom the second one waits for."
    )
    sub_turns: Length = Field(
        default=ONE, description="agent: turns of each of them [1].", json_schema_extra={"unit": "requests"}
    )
    sub_share: float = Field(default=1.0, ge=0, le=1, description="agent: share of the sessions that have some.")

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        own = {name: getattr(self, name) for name in ("sub_agents", "sub_turns", "sub_share")}
        changed = [name for name, value in own.items() if value != type(self).model_fields[name].default]
        if self.kind == "chat" and changed:
            raise InputError(f'a chat has no {changed[0]}; leave it out, or give kind = "agent"')
        if changed and self.sub_agents is None:
            raise InputError(f"{changed[0]} is of sub-agents; give sub_agents = ...")
        return self

    @property
    def gaps(self) -> Seconds:
        """The law of the gaps."""
        assert isinstance(self.gap_s, Seconds)
        return self.gap_s


class SystemPrompts(Record):
    """System prompts with which the requests of a tenant begin; a session has one of them.

    ``count`` of them, or one for each of ``shares``, have lengths by the law of ``tokens``, drawn once. The i-th is
    taken in proportion to ``1 / i**zipf`` (Zipf's law), or to its share. Other tenants have others.

    >>> SystemPrompts(count=4, tokens=800, zipf=1.0).weights().round(2)
    array([0.48, 0.24, 0.16, 0.12])
    """

    count: int | None = Field(
        default=None, ge=1, le=MOST_SYSTEM_PROMPTS, description="How many a tenant has, all different."
    )
    tokens: Length = Field(description="Length of each: a number or a law.", json_schema_extra=TOKENS)
    zipf: float = Field(
        default=0.0, ge=0, le=20, description="Exponent by which later ones are rarer; 0: all are as frequent."
    )
    shares: tuple[Annotated[float, Field(gt=0, le=1e9)], ...] | None = Field(
        default=None,
        min_length=1,
        max_length=MOST_SYSTEM_PROMPTS,
        description="Instead of count and zipf: how often each is taken, in proportion.",
    )

    @model_validator(mode="after")
    def _one_law(self) -> Self:
        if (self.count is None) == (self.shares is None):
            raise InputError("system prompts need count = ..., or shares = [...] with one for each, and not both")
        if self.shares is not None and self.zipf:
            raise InputError("system prompts are taken by shares or by zipf; give one of the two")
        return self

    def weights(self) -> np.ndarray:
        """How often each is taken, shares that sum to 1, (prompts,)."""
        if self.shares is not None:
            whole = np.array(self.shares)
        else:
            assert self.count is not None
            whole = np.arange(1, self.count + 1, dtype=float) ** -self.zipf
        return np.asarray(whole / whole.sum())
