"""A live engine is a real server behind the dispatcher: what every engine must offer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from driftsim.live.sharing import Beginning
from driftsim.request import Job
from driftsim.scheduling.dispatcher import Engine
from driftsim.trace.settings import EngineSettings


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a job; times are monotonic seconds, None where it did not get that far or the engine is silent.

    ``prompt_tokens`` is the engine's own count, where it differs from ours the trace takes it. ``cached_tokens`` of
    them were found in the engine's cache. ``beginning`` tells, as hashes, with whom the request shares its beginning.
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
