"""A grid is many runs, written as one TOML file: a base, axes that are crossed, axes that go together, exclusions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from driftsim.errors import InputError
from driftsim.records import Record, first_problem
from driftsim.simulation.dotted import nested
from driftsim.simulation.spec import ScenarioSpec

MOST_RUNS = 2_000_000  # of a grid; more is a slip of the pen, and would fill the memory before the first run
Axes = dict[str, list[Any]]
Tables = list[dict[str, Any]]
Zips = list[Axes]


class Grid(Record):
    """What a grid's file says. Its keys are a scenario's, with dots into tables: ``admission.clamp_at_max_tokens``."""

    base: dict[str, Any] = Field(default={}, description="Keys of a scenario that are the same in every run.")
    grid: Axes = Field(default={}, description="Key = list of values; every combination is a run.")
    zip: Zips = Field(
        default=[], description="Tables of key = list of values that advance together; each is crossed with the rest."
    )
    list: Tables = Field(default=[], description="Extra settings, one run each, added to the crossed ones.")
    exclude: Tables = Field(
        default=[], description="Tables of key = value; a run that has every value of one of them is left out."
    )
    replications: int = Field(
        default=1,
        ge=1,
        le=1_000_000,
        description="Runs of each setting: on the trace as recorded and on one less resamples of it, of either kind, "
        "or on independent draws of the workload, the same for every setting (common random numbers).",
    )
    resamples: Literal["both", "circular", "local"] = Field(
        default="both",
        description="Which kinds of resamples of a trace are run; intervals of a change need both. See `resampling`.",
    )


def load_grid(file: Path) -> list[ScenarioSpec]:
    """All runs of the grid in ``file``, in its order, each once; paths are made to count from the working directory.

    Raises ``InputError`` naming file, key, value and remedy.
    """
    grid = Grid.from_file(file, "grid", form="toml")
    specs = []
    seen = set()
    for number, settings in enumerate(grid_settings(grid, file)):
        try:
            plain = nested(grid.base | settings)
            spec = ScenarioSpec.model_validate(plain).placed(lambda path: str(file.parent / path))
        except ValueError as error:
            problem = first_problem(error, ScenarioSpec) if isinstance(error, ValidationError) else str(error)
            raise InputError(f"{file}: run {number} ({_told(settings)}): {problem}; correct the grid") from None
        told = spec.model_dump_json()
        if told not in seen:
            seen.add(told)
            specs.append(spec)
    if not specs:
        raise InputError(f"{file}: every run is excluded; nothing is left to do")
    return specs


def grid_settings(grid: Grid, file: Path) -> Iterator[dict[str, Any]]:
    """The flat settings of each run of ``grid``."""
    for axes in [grid.grid, *grid.zip]:
        empty = [name for name, values in axes.items() if not values]
        if empty:
            raise InputError(f"{file}: {empty[0]} has no value; give it at least one or leave it out")
    bundles: list[list[dict[str, Any]]] = [[{name: value} for value in values] for name, values in grid.grid.items()]
    for together in grid.zip:
        lengths = {name: len(values) for name, values in together.items()}
        if len(set(lengths.values())) > 1:
            raise InputError(f"{file}: zipped axes differ in length: {lengths}")
        bundles.append([dict(zip(together, values, strict=True)) for values in zip(*together.values(), strict=True)])
    names = [name for bundle in bundles for name in bundle[0]]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"{file}: {twice[0]} is on two axes; keep one")
    _check_count(grid, bundles, file)
    crossed = [_joined(choice) for choice in itertools.product(*bundles)] if bundles else ([] if grid.list else [{}])
    for settings in [*crossed, *grid.list]:
        whole = grid.base | settings
        if any(all(whole.get(name) == value for name, value in rule.items()) for rule in grid.exclude):
            continue
        yield from (settings | draw for draw in _draws(grid, whole))


def _check_count(grid: Grid, bundles: list[list[dict[str, Any]]], file: Path) -> None:
    """Raise ``InputError`` for a grid of more runs than anybody means, before they are written out."""
    runs = (math.prod(map(len, bundles)) + len(grid.list)) * grid.replications
    if runs > MOST_RUNS:
        raise InputError(f"{file}: {runs:,} runs are too many; a grid has at most {MOST_RUNS:,}, so shorten its axes")


def _draws(grid: Grid, whole: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What tells the replications of one setting, ``whole``, apart."""
    numbers = range(grid.replications)
    if grid.replications == 1:
        yield {}
    elif "workload" in whole or any(name.startswith("workload.") for name in whole) or "resampling" in whole:
        yield from ({"replication": number} for number in numbers)
    else:
        if grid.resamples != "local":
            yield from ({"replication": number} for number in numbers)
        if grid.resamples != "circular":
            first = 1 if grid.resamples == "both" else 0
            yield from (
                {"replication": number} | ({"resampling": "local"} if number else {}) for number in numbers[first:]
            )


def _joined(parts: tuple[dict[str, Any], ...]) -> dict[str, Any]:
    return {name: value for part in parts for name, value in part.items()}


def _told(settings: dict[str, Any]) -> str:
    return ", ".join(f"{name} = {value!r}" for name, value in settings.items()) or "the base"
