"""Lanes hold what does not overlap: each strip goes into the first lane of its group that is free when it begins."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import TypeVar

Name = TypeVar("Name", bound=Hashable)


@dataclass(slots=True)
class Group:
    """The lanes of one group, numbered from 0."""

    lanes: int = 0
    free: list[int] = field(default_factory=list)  # heap of numbers
    busy: list[tuple[float, int]] = field(default_factory=list)  # heap of (end, number)

    def release(self, moment: float) -> None:
        """Free the lanes whose strips have ended by ``moment``."""
        while self.busy and self.busy[0][0] <= moment:
            heappush(self.free, heappop(self.busy)[1])

    def take(self, end: float) -> int:
        """The first free lane, or a new one, now taken until ``end``."""
        if self.free:
            number = heappop(self.free)
        else:
            number, self.lanes = self.lanes, self.lanes + 1
        heappush(self.busy, (end, number))
        return number


def packed(strips: Iterable[tuple[Name, float, float]], most: int) -> list[tuple[Name, int] | None]:
    """The lane of each strip, given as (group, begin, end), as group and number; None where there was no room.

    There are ``most`` lanes in all, whatever their group. Strips may come in any order; those that begin first are
    placed first.

    >>> packed([("a", 0.0, 2.0), ("a", 1.0, 3.0), ("b", 1.0, 2.0), ("a", 2.0, 3.0)], most=3)
    [('a', 0), ('a', 1), ('b', 0), ('a', 0)]
    >>> packed([("a", 0.0, 2.0), ("a", 1.0, 3.0)], most=1)
    [('a', 0), None]
    """
    strips = list(strips)
    placed: list[tuple[Name, int] | None] = [None] * len(strips)
    groups: dict[Name, Group] = {}
    made = 0
    for index in sorted(range(len(strips)), key=lambda index: strips[index][1]):
        name, begin, end = strips[index]
        group = groups.setdefault(name, Group())
        group.release(begin)
        if not group.free:
            if made == most:
                continue
            made += 1
        placed[index] = name, group.take(end)
    return placed
