"""When an engine had preempted a request, read off the steps that name their requests."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from driftsim.trace.schema import STEP_REQUEST_COLUMNS
from driftsim.trace.steps import step_ends


@dataclass(frozen=True, slots=True)
class Pause:
    """One preemption, in seconds since the run began; infinite where it did not happen any more.

    ``preempted_s``: when the engine scheduled the step that took the blocks. ``resumed_s``: when it scheduled the first
    step that computed the request again. ``computed_s``: when all was computed that had been lost.
    """

    preempted_s: float
    resumed_s: float = math.inf
    computed_s: float = math.inf


def names_requests(steps: pd.DataFrame | None) -> bool:
    """Whether the steps say which requests each computed."""
    return steps is not None and all(column.name in steps for column in STEP_REQUEST_COLUMNS)


def begins(steps: pd.DataFrame, ends: list[float]) -> list[float]:
    """When each of ``steps`` began to be computed: as it was scheduled, or as the one before it was complete."""
    before = [-math.inf, *ends][: len(ends)]
    return [max(start, end) for start, end in zip(steps["start_s"].tolist(), before, strict=True)]


def pauses(steps: pd.DataFrame | None, requests: pd.DataFrame) -> dict[str, list[Pause]]:
    """The preemptions of each request that was preempted, in order; none where the steps do not name their requests.

    A request that was preempted computes its prompt, and the tokens that it had shown, again.
    """
    if steps is None or not names_requests(steps):
        return {}
    taken = _places(steps["preempted_ids"][steps["preempted"] > 0])
    starts, ends = steps["start_s"].tolist(), step_ends(steps).tolist()
    prompts = dict(zip(requests["request_id"], requests["prompt_tokens"].tolist(), strict=True))
    computed = _computed(steps, set(taken))
    return {
        name: list(_pauses(prompts[name], computed[name], places, starts, ends))
        for name, places in taken.items()
        if name in prompts
    }


def _places(lists: pd.Series) -> dict[str, list[int]]:
    """By name, the rows of ``lists`` in which it stands."""
    places: dict[str, list[int]] = defaultdict(list)
    for place, names in lists.items():
        for name in names:
            places[name].append(place)  # type: ignore[arg-type]
    return places


def _computed(steps: pd.DataFrame, wanted: set[str]) -> dict[str, list[tuple[int, int]]]:
    """By name, the steps that computed one of the ``wanted`` requests, and the tokens of each."""
    found: dict[str, list[tuple[int, int]]] = defaultdict(list)
    if not wanted:
        return found
    names = np.concatenate(steps["request_ids"].tolist())
    tokens = np.concatenate(steps["request_tokens"].tolist())
    places = np.repeat(np.arange(len(steps)), steps["request_ids"].map(len).to_numpy())
    kept = pd.Series(names).isin(wanted).to_numpy()
    for name, place, count in zip(names[kept], places[kept].tolist(), tokens[kept].tolist(), strict=True):
        found[name].append((place, count))
    return found


def _pauses(
    prompt: int, computed: list[tuple[int, int]], taken: list[int], starts: list[float], ends: list[float]
) -> Iterator[Pause]:
    """The pauses of a request of ``prompt`` tokens, computed and ``taken`` away in these steps."""
    shown = held = 0
    pause: Pause | None = None
    steps = sorted([(place, 0) for place in taken] + computed)  # nothing is computed of it in a step that takes it away
    for place, count in steps:
        if not count:
            if pause is not None:
                yield pause
            pause, held = Pause(starts[place]), 0
            continue
        held += count
        if pause is not None and pause.resumed_s == math.inf:
            pause = Pause(pause.preempted_s, starts[place])
        if held >= prompt + shown:  # the last of what has to be computed gives the next token
            shown += 1
            if pause is not None:
                yield Pause(pause.preempted_s, pause.resumed_s, ends[place])
                pause = None
    if pause is not None:
        yield pause
