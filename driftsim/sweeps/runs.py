"""The runs of a grid, each made when it is asked for: a grid of a million runs takes no million objects.

A run is a setting and a draw of it. What a key of a scenario comes to is checked once for each of its values, not for
each run; whether the keys go together is checked for each setting.
"""

from __future__ import annotations

import hashlib
import math
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, overload

from pydantic import ValidationError

from driftsim.errors import InputError
from driftsim.progress import EVERY, OnProgress
from driftsim.records import first_problem
from driftsim.simulation.dotted import nested
from driftsim.simulation.spec import ScenarioSpec

Settings: TypeAlias = dict[str, Any]  # flat, with dots into tables
Bundles: TypeAlias = list[list[Settings]]
MOST_PARTS = 20_000  # checked values that are kept at once


class Draws(NamedTuple):
    """What tells the replications of one setting apart."""

    replications: int
    resamples: str  # both, circular or local

    def kind(self, whole: Mapping[str, Any]) -> str:
        """How the replications of the setting ``whole`` are drawn: ``plain`` if independently, else as resamples."""
        drawn = "workload" in whole or any(name.startswith("workload.") for name in whole)
        return "plain" if self.replications == 1 or drawn or "resampling" in whole else self.resamples

    def count(self, kind: str) -> int:
        """How many runs a setting of that ``kind`` has."""
        return 2 * self.replications - 1 if kind == "both" else self.replications

    def changes(self, kind: str, number: int) -> Settings:
        """The keys of the draw ``number``, counted from 0."""
        if self.replications == 1:
            return {}
        if kind == "both" and number >= self.replications:
            return {"replication": number - self.replications + 1, "resampling": "local"}
        return {"replication": number} | ({"resampling": "local"} if kind == "local" and number else {})


class Runs(Sequence[ScenarioSpec]):
    """The runs of the grid in ``file``: every combination of ``bundles``, then ``extra`` settings, over ``base``.

    ``fill`` checks all of them and must come first.
    """

    def __init__(self, file: Path, base: Settings, bundles: Bundles, extra: list[Settings], draws: Draws) -> None:
        self._file, self._base, self._bundles, self._extra, self._draws = file, base, bundles, extra, draws
        self._crossed = math.prod(map(len, bundles)) if bundles else int(not extra)
        self._settings = array("q")  # the number of each setting that is run
        self._ends = array("q")  # of the runs of each
        self._parts: dict[
            tuple[str, tuple[int, ...]], Any
        ] = {}  # key of a scenario, places on its axes -> what it comes to
        self._whole: ScenarioSpec | None = None  # a crossed one, whose keys that are on no axis all others have
        self._last: tuple[int, ScenarioSpec] | None = None
        heads = [{name.partition(".")[0] for name in bundle[0]} for bundle in bundles]
        keys = sorted({head for own in heads for head in own})
        self._reach = [(head, [at for at, own in enumerate(heads) if head in own]) for head in keys]

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __iter__(self) -> Iterator[ScenarioSpec]:
        for place in range(len(self._settings)):
            yield from self._runs_of(place)

    @overload
    def __getitem__(self, number: int) -> ScenarioSpec: ...
    @overload
    def __getitem__(self, number: slice) -> list[ScenarioSpec]: ...
    def __getitem__(self, number: int | slice) -> ScenarioSpec | list[ScenarioSpec]:
        if isinstance(number, slice):
            return [self[one] for one in range(*number.indices(len(self)))]
        if number < 0:
            number += len(self)
        if not 0 <= number < len(self):
            raise IndexError(number)
        if self._last is None or self._last[0] != number:
            place = bisect_right(self._ends, number)
            first = self._ends[place - 1] if place else 0
            self._last = number, self._drawn(self._spec(self._settings[place]), place, number - first)
        return self._last[1]

    def fill(self, exclude: Sequence[Settings], told: OnProgress) -> None:
        """Check every setting that ``exclude`` does not leave out. Raises ``InputError`` for one that cannot be run."""
        seen = set[bytes]()
        runs = 0  # those of settings that are there twice among them
        total = self._crossed + len(self._extra)
        for number in range(total):
            if number % EVERY == 0:
                told(number, total)
            whole = self._base | self._flat(number)
            if any(all(whole.get(name) == value for name, value in rule.items()) for rule in exclude):
                continue
            spec = self._spec(number, runs)
            count = self._draws.count(self._draws.kind(whole))
            runs += count
            mark = hashlib.blake2b(spec.model_dump_json().encode(), digest_size=16).digest()
            if mark not in seen:
                seen.add(mark)
                self._settings.append(number)
                self._ends.append(len(self) + count)

    def _runs_of(self, place: int) -> Iterator[ScenarioSpec]:
        first = self._ends[place - 1] if place else 0
        spec = self._spec(self._settings[place])
        for number in range(self._ends[place] - first):
            yield self._drawn(spec, place, number)

    def _drawn(self, spec: ScenarioSpec, place: int, number: int) -> ScenarioSpec:
        """The draw ``number`` of ``spec``, the setting at ``place``, which is its draw 0."""
        if not number:
            return spec
        kind = self._draws.kind(self._base | self._flat(self._settings[place]))
        return spec.with_parts(self._draws.changes(kind, number))

    def _flat(self, number: int) -> Settings:
        """The keys that the setting ``number`` has besides the base's."""
        if number >= self._crossed:
            return self._extra[number - self._crossed]
        places = self._places(number)
        return {
            name: value
            for bundle, place in zip(self._bundles, places, strict=True)
            for name, value in bundle[place].items()
        }

    def _places(self, number: int) -> list[int]:
        """Where the crossed setting ``number`` stands on each axis; the last one turns fastest."""
        places = []
        for bundle in reversed(self._bundles):
            number, place = divmod(number, len(bundle))
            places.append(place)
        return places[::-1]

    def _spec(self, number: int, run: int = 0) -> ScenarioSpec:
        """The first run of the setting ``number``, which is the grid's run ``run``."""
        if number >= self._crossed:
            return self._checked(number, run)
        places = self._places(number)
        names = [(head, tuple(places[at] for at in own)) for head, own in self._reach]
        if self._whole is not None:
            try:
                return self._whole.with_parts({name[0]: self._parts[name] for name in names})
            except (KeyError, InputError):  # a value that comes for the first time, or a clash, which is told below
                pass
        spec = self._checked(number, run)
        if len(self._parts) > MOST_PARTS:
            self._parts.clear()
        self._parts |= {name: getattr(spec, name[0]) for name in names}
        self._whole = self._whole or spec
        return spec

    def _checked(self, number: int, run: int) -> ScenarioSpec:
        """The same, checked as a whole. Raises ``InputError`` that names the ``run``."""
        whole = self._base | self._flat(number)
        settings = self._flat(number) | self._draws.changes(self._draws.kind(whole), 0)
        try:
            spec = ScenarioSpec.model_validate(nested(self._base | settings))
            return spec.placed(lambda path: str(self._file.parent / path))
        except ValueError as error:
            problem = first_problem(error, ScenarioSpec) if isinstance(error, ValidationError) else str(error)
            raise InputError(f"{self._file}: run {run} ({_told(settings)}): {problem}; correct the grid") from None


def _told(settings: Settings) -> str:
    return ", ".join(f"{name} = {value!r}" for name, value in settings.items()) or "the base"
