"""What a reader found in a file: cells under our names, and whatever the file says of the run as a whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from driftsim.errors import InputError
from driftsim.formats.beginnings import Groups, Hashes
from driftsim.formats.sessions import Sessions
from driftsim.formats.source import Source
from driftsim.tiers import TierRules
from driftsim.trace.loops import Loop, Told


@dataclass(kw_only=True, eq=False)
class Found:
    """Cells by column of a trace, row by row as ``source`` has them; ``names`` are the file's own names for them.

    ``durations`` are times since the arrival. A row that ``ended`` has an ending of ours or in another tool's words.
    ``guessed`` and ``left_out`` are sentences for whoever uses the trace: what was supplied, and what was not read.
    """

    source: Source
    cells: Mapping[str, Sequence[Any]]
    durations: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    units: Mapping[str, str] = field(
        default_factory=dict
    )  # our time = the unit of its bare numbers; "all" for the rest
    maps: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # our column = their word = ours
    values: Mapping[str, Any] = field(default_factory=dict)  # our column = one value for every row
    offset: float | Literal["first"] = "first"
    engine: dict[str, Any] = field(default_factory=dict)
    model: str = "unknown"
    hardware: str = "unknown"
    max_in_flight: int | None = None
    tiers: TierRules = ()
    told: Told = field(default_factory=Told)
    beginnings: Hashes | Groups | None = None  # what prompts share
    sessions: Sessions | None = None
    loop: Loop | None = None  # where the reader knows it, so that the times need not tell
    guessed: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def unit(self, name: str) -> str:
        """The unit of the bare numbers in the time ``name``."""
        return self.units.get(name, self.units.get("all", "s"))

    def __post_init__(self) -> None:
        for name, cells in (*self.cells.items(), *self.durations.items()):
            if len(cells) != self.source.count:
                raise InputError(
                    f"{self.source.file}: {name} has {len(cells)} values for {self.source.count} requests; "
                    "the file was cut short, save it again"
                )
