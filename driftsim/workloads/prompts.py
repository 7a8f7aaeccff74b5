"""A file of prompts (JSON Lines) becomes a workload: an object a line, with at least a prompt.

Keys: ``prompt`` (or ``turns``, of which the first is taken), ``id`` (``request_id``, ``question_id``), ``tenant``
(``app``), ``tier``, ``category``, ``max_tokens``; of a turn of a session, ``session``, ``parent`` (the ids of earlier
lines that it waits for and whose conversation it repeats; without one, the line before it of its session), ``gap_s``.
``timeout_s``: how long its client waits for each attempt; ``deadline_s``: for all of them, from the first on.
Other keys are ignored, and named in the workload's notes.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, Literal

import pandas as pd
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError, field_validator

from driftsim.errors import InputError
from driftsim.records import first_problem, parsed_json
from driftsim.request import Request, Tier
from driftsim.trace.header import Phase, WorkloadInfo
from driftsim.trace.schema import LARGEST_COUNT, LONGEST_S
from driftsim.workloads.workload import Workload, described

TENANT = "default"


class Prompt(BaseModel):
    """One line of the file."""

    model_config = ConfigDict(extra="allow", coerce_numbers_to_str=True)

    prompt: str = Field(min_length=1, validation_alias=AliasChoices("prompt", "turns"))
    id: str | None = Field(default=None, validation_alias=AliasChoices("id", "request_id", "question_id"))
    tenant: str = Field(default=TENANT, min_length=1, validation_alias=AliasChoices("tenant", "app"))
    tier: Tier = Tier.STANDARD
    category: str | None = None
    max_tokens: int | None = Field(default=None, gt=0, le=LARGEST_COUNT)
    session: str | None = Field(default=None, min_length=1)
    parent: tuple[str, ...] | None = None
    gap_s: float = Field(default=0.0, ge=0, le=LONGEST_S)
    timeout_s: float | None = Field(default=None, gt=0, le=LONGEST_S)
    deadline_s: float | None = Field(default=None, gt=0, le=LONGEST_S)

    @field_validator("parent", mode="before")
    @classmethod
    def _several(cls, value: Any) -> Any:
        return value if value is None or isinstance(value, list | tuple) else (value,)

    @field_validator("prompt", mode="before")
    @classmethod
    def _first_turn(cls, value: Any) -> Any:
        return value[0] if isinstance(value, list) and value else value

    @field_validator("id", "session")
    @classmethod
    def _printable(cls, value: str | None) -> str | None:
        if value is not None and not value.isprintable():
            raise ValueError("an id, or a session's name, is one line of characters that can be printed")
        return value


def read_prompts(file: Path) -> list[Prompt]:
    """The prompts in ``file``. Raises ``InputError`` naming the line, and ``OSError``."""
    prompts = []
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{file}: is not UTF-8 (byte {error.start}); save it as UTF-8") from None
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            content = parsed_json(line)
        except ValueError as error:
            raise InputError(f"{file}: line {number} is not JSON ({error}); one object a line is expected") from None
        try:
            prompts.append(Prompt.model_validate(content))
        except ValidationError as error:
            raise InputError(f"{file}: line {number}: {first_problem(error)}; correct the line") from None
    if not prompts:
        raise InputError(f"{file}: holds no prompt; one JSON object a line is expected")
    return prompts


def prompt_workload(
    prompts: list[Prompt], count: int | None, max_tokens: int, name: str, count_tokens: Callable[[str], int]
) -> Workload:
    """A backlog of ``count`` requests (default: as many as there are prompts, which are taken round and round).

    Of sessions, it is their first turns that are all there. ``max_tokens`` is for those that set none; ``count_tokens``
    counts a prompt as the engine will see it. Raises ``InputError`` for an id that is there twice, or a parent that is
    not.
    """
    count = len(prompts) if count is None else count
    chosen = [prompts[number % len(prompts)] for number in range(count)]
    texts = [prompt.prompt for prompt in chosen]
    table = pd.DataFrame(
        {
            "request_id": [_id(prompt, number, number // len(prompts)) for number, prompt in enumerate(chosen)],
            "tenant": [prompt.tenant for prompt in chosen],
            "tier": [str(prompt.tier) for prompt in chosen],
            "phase": "backlog",
            "category": pd.Series([prompt.category for prompt in chosen], dtype=object),
            "max_tokens": [prompt.max_tokens or max_tokens for prompt in chosen],
            "offset_s": 0.0,
        }
        | _turns(chosen, len(prompts))
        | _patience(chosen)
    )
    duplicate = table["request_id"][table["request_id"].duplicated()]
    if len(duplicate):
        raise InputError(f"the prompts have a duplicate id, {duplicate.iloc[0]!r}; give each its own")
    ignored = sorted({key for prompt in prompts for key in prompt.model_extra or {}})
    notes = (f"keys of the prompts that mean nothing here were ignored: {', '.join(ignored)}",) if ignored else ()
    kind: Literal["sessions", "backlog"] = "sessions" if "parent" in table else "backlog"
    phase = Phase(name="backlog", kind=kind, requests=count)
    info = WorkloadInfo(name=name, loop="closed" if kind == "sessions" else "open", phases=(phase,))
    return Workload(info=info, table=described(table, texts, count_tokens), prompts=tuple(texts), notes=notes)


def _patience(chosen: list[Prompt]) -> dict[str, Any]:
    """The columns of how long the clients wait, where any says so."""
    waits = {name: [getattr(prompt, name) for prompt in chosen] for name in ("timeout_s", "deadline_s")}
    return {
        name: pd.array(times, dtype="float64")
        for name, times in waits.items()
        if any(time is not None for time in times)
    }


def _turns(chosen: list[Prompt], once: int) -> dict[str, Any]:
    """The columns of the ``chosen`` turns, of which there are ``once`` in a round; none where there are no sessions."""
    if all(prompt.session is None and prompt.parent is None for prompt in chosen):
        return {}
    parents, latest = list[list[int]](), dict[tuple[int, str], int]()  # the latest by round and session
    places: dict[tuple[int, str], int] = {}  # by round and id
    for row, prompt in enumerate(chosen):
        around = row // once
        if prompt.parent is None:
            before = latest.get((around, prompt.session)) if prompt.session is not None else None
            parents.append([] if before is None else [before])
        else:
            parents.append([_earlier(places, around, name, prompt, row % once) for name in prompt.parent])
        if prompt.session is not None:
            latest[around, prompt.session] = row
        places[around, prompt.id or f"p{row % once:05d}"] = row
    names = [_named(prompt, row // once) for row, prompt in enumerate(chosen)]
    gaps = [prompt.gap_s if before else None for prompt, before in zip(chosen, parents, strict=True)]
    return {
        "session": pd.Series(names, dtype=object),
        "parent": pd.Series(parents, dtype=object),
        "gap_s": pd.Series(gaps, dtype=float),
    }


def _earlier(places: dict[tuple[int, str], int], around: int, name: str, prompt: Prompt, number: int) -> int:
    if (around, name) not in places:
        raise InputError(
            f"prompt {prompt.id or number + 1}: parent {name!r} is no id of an earlier prompt; correct it, or reorder"
        )
    return places[around, name]


def _named(prompt: Prompt, around: int) -> str | None:
    return prompt.session if prompt.session is None or not around else f"{prompt.session}~{around}"


def _id(prompt: Prompt, number: int, turn: int) -> str:
    own = prompt.id or f"p{number:05d}"
    return own if turn == 0 or prompt.id is None else f"{own}~{turn}"


def synthetic(request_id: str, length: int, vocabulary: int) -> list[int]:
    """Token ids that stand for a prompt of which only the length is known; the same for the same request.

    They are drawn from the ordinary part of a vocabulary: special tokens sit at its ends.
    """
    low, high = (256, min(vocabulary, 30_000)) if vocabulary > 1000 else (0, vocabulary)
    random = Random(zlib.crc32(request_id.encode()))
    return random.choices(range(low, high), k=length)


def stand_in(request: Request, vocabulary: int) -> list[int]:
    """Token ids that stand for the prompt of ``request``: it begins as those do with which it shares its beginning.

    What it shares of an output is shared with the other requests that do, not with the one that will produce it: nobody
    knows what an engine will say.
    """
    length, ids = request.prompt_tokens, list[int]()
    for owner, end in request.stretches or ((None, length),):
        name = request.id if owner is None else f"stretch {owner}"
        if len(ids) < (until := min(end, length)):
            ids += synthetic(name, until, vocabulary)[len(ids) :]
    return ids
