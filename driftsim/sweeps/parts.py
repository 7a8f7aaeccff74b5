"""A grid's checked values are kept: the first ones whole, and a later record as what tells it from its key's first."""

from __future__ import annotations

from typing import Any, NamedTuple

from driftsim.records import Record

MOST_WHOLE = 10_000  # values that are kept whole, of up to 2 kB each
MOST_PARTS = 3_000_000  # that are kept at once, the others of some 200 bytes each


class _Unlike(NamedTuple):
    """A record that is the first one of its key but for the fields ``names``, which have ``values``."""

    names: tuple[str, ...]
    values: tuple[Any, ...]


class Parts:
    """What the keys of a scenario come to, by key and the number of the value; what does not fit is forgotten.

    >>> parts = Parts()
    >>> parts.keep("policy", 3, "sjf")
    >>> parts.find("policy", 3)
    'sjf'
    """

    def __init__(self) -> None:
        self._first: dict[str, Record] = {}
        self._kept: dict[str, dict[int, Any]] = {}
        self._names: dict[tuple[str, ...], tuple[str, ...]] = {}  # so that records which differ alike share one
        self._count = 0

    def keep(self, key: str, number: int, value: Any) -> None:
        """Keep ``value``, the one of ``key`` with that ``number``."""
        if self._count >= MOST_PARTS:
            self._kept.clear()
            self._count = 0
        if isinstance(value, Record):
            first = self._first.setdefault(key, value)
            if self._count >= MOST_WHOLE and type(first) is type(value):
                value = self._unlike(first, value)
        self._kept.setdefault(key, {})[number] = value
        self._count += 1

    def find(self, key: str, number: int) -> Any:
        """The value of ``key`` with that ``number``. Raises ``KeyError`` where none is kept."""
        value = self._kept[key][number]
        if not isinstance(value, _Unlike):
            return value
        return self._first[key].model_copy(update=dict(zip(value.names, value.values, strict=True)))

    def _unlike(self, first: Record, value: Record) -> _Unlike:
        theirs = first.__dict__
        own = {
            name: mine
            for name, mine in value.__dict__.items()
            if mine is not theirs[name] and not (type(mine) is type(theirs[name]) and mine == theirs[name])
        }
        names = tuple(own)
        return _Unlike(self._names.setdefault(names, names), tuple(own.values()))
