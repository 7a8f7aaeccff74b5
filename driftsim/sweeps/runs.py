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
from driftsim.records import Record, first_problem
from driftsim.simulation.dotted import nested
from driftsim.simulation.spec import ScenarioSpec
from driftsim.sweeps.parts import Parts

Settings: TypeAlias = dict[str, Any]  # flat, with dots into tables
Bundles: TypeAlias = list[list[Settings]]


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
        self._parts = Parts()
        self._whole: ScenarioSpec | None = None  # a crossed one, whose keys that are on no axis all others have
        self._rests: dict[str, Settings | None] = {}  # of each key, see ``_rest``
        self._last: tuple[int, ScenarioSpec] | None = None
        heads = [{_head(name) for name in bundle[0]} for bundle in bundles]
        keys = sorted({head for own in heads for head in own})
        self._reach = {head: [at for at, own in enumerate(heads) if head in own] for head in keys}
        self._varied = set(keys)
        self._common: hashlib.blake2b | None = None  # over what all crossed settings have in common
        self._crossed_kind = ""  # how their replications are drawn
        self._below = {head: {name: base[name] for name in base if _head(name) == head} for head in keys}

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
            if exclude and _is_left_out(self._base | self._flat(number), exclude):
                continue
            spec = self._spec(number, runs)
            count = self._draws.count(self._kind(number))
            runs += count
            mark = self._mark(spec, number)
            if mark not in seen:
                seen.add(mark)
                self._settings.append(number)
                self._ends.append(len(self) + count)

    def _mark(self, spec: ScenarioSpec, number: int) -> bytes:
        """What tells the setting ``number``, which came to ``spec``, from all that came to something else."""
        own = spec.model_dump_json(include=self._varied).encode()
        if number >= self._crossed:
            rest = self._hash_of_the_rest(spec)
        else:
            self._common = self._common or self._hash_of_the_rest(spec)
            rest = self._common.copy()
        rest.update(own)
        return rest.digest()

    def _hash_of_the_rest(self, spec: ScenarioSpec) -> hashlib.blake2b:
        """Of all keys of ``spec`` that are on no axis."""
        return hashlib.blake2b(spec.model_dump_json(exclude=self._varied).encode(), digest_size=16)

    def _runs_of(self, place: int) -> Iterator[ScenarioSpec]:
        first = self._ends[place - 1] if place else 0
        spec = self._spec(self._settings[place])
        for number in range(self._ends[place] - first):
            yield self._drawn(spec, place, number)

    def _drawn(self, spec: ScenarioSpec, place: int, number: int) -> ScenarioSpec:
        """The draw ``number`` of ``spec``, the setting at ``place``, which is its draw 0."""
        if not number:
            return spec
        kind = self._kind(self._settings[place])
        return spec.with_parts(self._draws.changes(kind, number))

    def _kind(self, number: int) -> str:
        """How the replications of the setting ``number`` are drawn; the crossed ones all have the same keys."""
        if number < self._crossed and self._crossed_kind:
            return self._crossed_kind
        kind = self._draws.kind(self._base | self._flat(number))
        if number < self._crossed:
            self._crossed_kind = kind
        return kind

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
        if number < self._crossed and self._whole is not None:
            places = self._places(number)
            try:
                return self._whole.with_parts({head: self._part(head, places) for head in self._reach})
            except (KeyError, ValueError):  # no such key, a value that cannot be, or a clash: told below
                pass
        spec = self._checked(number, run)
        if number < self._crossed:
            if self._whole is None:
                self._rests = {head: self._rest(head, spec) for head in self._reach}
            self._whole = self._whole or spec
        return spec

    def _part(self, head: str, places: Sequence[int]) -> Any:
        """What the key ``head`` comes to where the axes stand at ``places``; checked when it comes for the first time.

        Raises ``KeyError`` for a key that a scenario does not have, ``ValueError`` for a value that it may not have.
        """
        number, reach = 0, self._reach[head]
        for at in reach:
            number = number * len(self._bundles[at]) + places[at]
        try:
            return self._parts.find(head, number)
        except KeyError:
            pass
        part = ScenarioSpec.part(head, self._table(head, places), self._place)
        self._parts.keep(head, number, part)
        return part

    def _table(self, head: str, places: Sequence[int]) -> Any:
        """What the file says of the key ``head`` where the axes stand at ``places``."""
        settings = {name: value for at in self._reach[head] for name, value in self._bundles[at][places[at]].items()}
        own = {name: value for name, value in settings.items() if _head(name) == head}
        rest = self._rests.get(head)
        if rest is None or any(isinstance(value, dict) for value in own.values()):
            return nested(self._below[head] | own)[head]
        return rest | {name[len(head) + 1 :]: value for name, value in own.items()}

    def _rest(self, head: str, whole: ScenarioSpec) -> Settings | None:
        """What the base says of the table ``head`` and no axis changes, as it was checked with ``whole``.

        None where axes reach deeper than its keys, and where paths would be placed twice.
        """
        checked = getattr(whole, head)
        names = {name for at in self._reach[head] for name in self._bundles[at][0] if _head(name) == head}
        keys = {name[len(head) + 1 :] for name in names}
        if not isinstance(checked, Record) or whole.traces or not all(map(str.isidentifier, keys)):
            return None
        said = nested(self._below[head]).get(head, {})
        if any(isinstance(said.get(key), dict) for key in keys):
            return None
        return {key: getattr(checked, key) for key in said if key not in keys}

    def _place(self, path: str) -> str:
        return str(self._file.parent / path)

    def _checked(self, number: int, run: int) -> ScenarioSpec:
        """The same, checked as a whole. Raises ``InputError`` that names the ``run``."""
        settings = self._flat(number) | self._draws.changes(self._kind(number), 0)
        try:
            spec = ScenarioSpec.model_validate(nested(self._base | settings))
            return spec.placed(self._place)
        except ValueError as error:
            problem = first_problem(error, ScenarioSpec) if isinstance(error, ValidationError) else str(error)
            raise InputError(f"{self._file}: run {run} ({_told(settings)}): {problem}; correct the grid") from None


def _is_left_out(whole: Settings, exclude: Sequence[Settings]) -> bool:
    """Whether the setting ``whole`` has every value of one of the tables ``exclude``."""
    return any(all(whole.get(name) == value for name, value in rule.items()) for rule in exclude)


def _head(name: str) -> str:
    """The key of a scenario that a dotted key lies in."""
    return name.partition(".")[0]


def _told(settings: Settings) -> str:
    return ", ".join(f"{name} = {value!r}" for name, value in settings.items()) or "the base"
