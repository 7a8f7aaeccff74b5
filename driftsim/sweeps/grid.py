"""A grid is many runs, written as one TOML file: a base, axes that are crossed, axes that go together, exclusions."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from driftsim.errors import InputError
from driftsim.progress import OnProgress, no_progress
from driftsim.records import Record
from driftsim.sweeps.runs import Bundles, Draws, Runs

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


def load_grid(file: Path, told: OnProgress = no_progress) -> Runs:
    """All runs of the grid in ``file``, in its order, each once; paths are made to count from the working directory.

    ``told`` hears of the settings that were checked, and of all. Raises ``InputError`` naming file, key, value and
    remedy.
    """
    grid = Grid.from_file(file, "grid", form="toml")
    bundles = _bundles(grid, file)
    _check_count(grid, bundles, file)
    runs = Runs(file, grid.base, bundles, grid.list, Draws(grid.replications, grid.resamples))
    runs.fill(grid.exclude, told)
    if not len(runs):
        raise InputError(f"{file}: every run is excluded; nothing is left to do")
    return runs


def _bundles(grid: Grid, file: Path) -> Bundles:
    """The axes of ``grid``, each as its settings, one after another; axes that go together are one."""
    for axes in [grid.grid, *grid.zip]:
        empty = [name for name, values in axes.items() if not values]
        if empty:
            raise InputError(f"{file}: {empty[0]} has no value; give it at least one or leave it out")
    bundles: Bundles = [[{name: value} for value in values] for name, values in grid.grid.items()]
    for together in grid.zip:
        lengths = {name: len(values) for name, values in together.items()}
        if len(set(lengths.values())) > 1:
            raise InputError(f"{file}: zipped axes differ in length: {lengths}")
        bundles.append([dict(zip(together, values, strict=True)) for values in zip(*together.values(), strict=True)])
    names = [name for bundle in bundles for name in bundle[0]]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"{file}: {twice[0]} is on two axes; keep one")
    return bundles


def _check_count(grid: Grid, bundles: Bundles, file: Path) -> None:
    """Raise ``InputError`` for a grid of more runs than anybody means, before they are written out."""
    runs = (math.prod(map(len, bundles)) + len(grid.list)) * grid.replications
    if runs > MOST_RUNS:
        raise InputError(f"{file}: {runs:,} runs are too many; a grid has at most {MOST_RUNS:,}, so shorten its axes")
