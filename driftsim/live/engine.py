"""A live engine is a real server behind the dispatcher: what every engine must offer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from driftsim.errors import InputError
from driftsim.live.orders import Orders
from driftsim.live.sharing import Beginning
from driftsim.request import Job, Request
from driftsim.scheduling.dispatcher import Engine
from driftsim.scheduling.names import Place
from driftsim.trace.settings import EngineSettings


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a job; times are monotonic seconds, None where it did not get that far or the engine is silent.

    ``prompt_tokens`` is the engine's own count, where it differs from ours the trace takes it. ``cached_tokens`` of
    them were found in the engine's cache. ``beginning`` tells, as hashes, with whom the request shares its beginning.
    ``final``: it would fail again; ``retry_after_s``: when the server wants to see it again.
    ``stop_string``: the server found the end, and not the engine. ``answer`` is what the engine said, for a turn that
    repeats it; it is never written.
    """

    job: Job
    finish_reason: str
    queued: float | None = None
    scheduled: float | None = None
    first_token: float | None = None
    finish: float | None = None
    output_tokens: int | None = None
    output_words: int | None = None
    preemptions: int | None = None
    error: str | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    beginning: Beginning | None = None
    final: bool = False
    retry_after_s: float | None = None
    stop_string: bool = False
    answer: str | None = field(default=None, repr=False)


def conversation(request: Request) -> list[dict[str, str]]:
    """The messages of a chat that ends with the prompt of ``request``: what was said before, by turns, and then it.

    >>> from driftsim.request import Tier
    >>> asked = Request("r", "a", Tier.STANDARD, "", 0.0, 9, None, 64, prompt="And you?", history=("Hi!", "Fine."))
    >>> [(message["role"], message["content"]) for message in conversation(asked)]
    [('user', 'Hi!'), ('assistant', 'Fine.'), ('user', 'And you?')]
    """
    texts = (*request.history, request.prompt or "")
    return [{"role": ("user", "assistant")[place % 2], "content": text} for place, text in enumerate(texts)]


class LiveEngine(Engine, Protocol):
    """A real engine: it tells what became of each job, and knows its own settings.

    ``failure`` says why it will serve nobody any more; None while it does. ``own_processes`` are the process ids that
    serve beside this process's own children. ``notes`` is what a reader of its traces should know.
    """

    model: str
    clocks: str
    settings: EngineSettings
    arguments: dict[str, Any]
    failure: str | None
    own_processes: tuple[int, ...]
    notes: tuple[str, ...]
    on_outcome: Callable[[Outcome], None]

    async def start(self) -> None:
        """Start or reach the engine. Raises what keeps it from serving."""
        ...

    async def warm_up(self) -> None:
        """Run every code path once, so that the first recorded steps are like the others."""
        ...

    async def forget(self) -> bool | None:
        """Empty the cache of prefixes before a run. Whether it is empty then; None where nobody knows."""
        ...

    def count_tokens(self, prompt: str) -> int:
        """Tokens of ``prompt`` as the engine will see it."""
        ...

    def trace_steps(self, file: Path) -> bool:
        """Write a line a step into ``file`` (CSV, ``STEP_COLUMNS``) from now on; False where the engine cannot."""
        ...

    async def shutdown(self) -> None:
        """Let go of the engine."""
        ...


class HostsPolicies(Protocol):
    """A live engine that can have a policy inside."""

    def stand(self, orders: Orders) -> Path:
        """Let the policy that ``orders`` name decide from the next request on; where its estimates come to stand."""
        ...


def check_hosts(engine: object, place: Place) -> None:
    """Raise ``InputError`` unless ``engine`` can have a policy in ``place``.

    >>> check_hosts(object(), "inside")
    Traceback (most recent call last):
    driftsim.errors.InputError: object cannot have a policy inside: only --engine vllm loads one; take --place \
priority or front
    """
    if place == "inside" and not hasattr(engine, "stand"):
        raise InputError(
            f"{type(engine).__name__} cannot have a policy inside: only --engine vllm loads one; take --place "
            "priority or front"
        )
    settings: EngineSettings | None = getattr(engine, "settings", None)
    policy = "" if settings is None else settings.scheduling_policy
    if place == "priority" and policy != "priority":
        raise InputError(
            f"the engine schedules by {policy}, or does not tell, and would not look at priorities; start it with "
            "--scheduling-policy priority, and where it is a server, say so: --scheduling-policy priority"
        )
    if place == "inside" and policy == "priority":
        raise InputError("the policy inside takes the place of the engine's own order; leave scheduling_policy at fcfs")
