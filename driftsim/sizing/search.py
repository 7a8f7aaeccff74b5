"""The search for a capacity: the highest load that holds, with every lower load that was tried holding, too.

Attainment need not fall with the load in a sample, so that this is a definition: a load above one that failed never
counts, whatever it attained.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

FIRST_STEP = 1.3  # factor from the first load to the next one
DIGITS = 4  # of a load, so that it can be written and tried again
SPREAD = (0.12, 0.25, 0.4)  # of the loads around the answer, in logarithms, that complete the curve
NEAR = 0.04  # in logarithms: so near a load that was tried, no other one is
OUTWARD = 1.4  # factor to a load beyond the curve, where an interval ends outside of it


def rounded(load: float, whole: bool = False) -> float:
    """``load`` in few digits, or as a whole number of at least 1.

    >>> rounded(1.23456), rounded(17.6, whole=True)
    (1.235, 18.0)
    """
    return float(max(1, round(load))) if whole else float(f"{load:.{DIGITS}g}")


@dataclass
class Search:
    """One search; ask ``next`` which load to try, and ``tell`` whether it held.

    first: where to begin. lowest, highest: loads beyond which nothing is tried. tolerance: relative width of the
    bracket at which it ends; of whole numbers, two neighbours.

    >>> search = Search(first=1.0, lowest=0.1, highest=10.0, tolerance=0.01)
    >>> while (load := search.next()) is not None:
    ...     search.tell(load, load <= 2.5)
    >>> search.state, round(search.capacity, 1)
    ('found', 2.5)
    """

    first: float
    lowest: float
    highest: float
    tolerance: float
    whole: bool = False
    held: dict[float, bool] = field(default_factory=dict)

    def tell(self, load: float, held: bool) -> None:
        """``load`` was tried."""
        self.held[load] = held

    @property
    def failed(self) -> float | None:
        """The lowest load that failed."""
        return min((load for load, held in self.held.items() if not held), default=None)

    @property
    def capacity(self) -> float | None:
        """The highest load that held and has none below that failed; None: there is none."""
        failed = math.inf if self.failed is None else self.failed
        return max((load for load, held in self.held.items() if held and load < failed), default=None)

    @property
    def state(self) -> Literal["found", "below", "above"]:
        """Whether the capacity is a number, lies below the lowest load, or above the highest one."""
        if self.capacity is None:
            return "below"
        return "above" if self.failed is None else "found"

    @property
    def again(self) -> list[float]:
        """Loads that held though a lower one had failed."""
        return sorted(load for load, held in self.held.items() if held and self.failed and load > self.failed)

    def next(self) -> float | None:
        """The load to try next; None: the search is over."""
        capacity, failed = self.capacity, self.failed
        if not self.held:
            return self._bounded(self.first)
        if failed is None:
            assert capacity is not None
            return None if capacity >= self.highest else self._bounded(max(self._step(capacity), self._above(capacity)))
        if capacity is None:
            return None if failed <= self.lowest else self._bounded(min(failed**2 / self._step(failed), failed * 0.999))
        middle = rounded((capacity + failed) / 2 if self.whole else math.sqrt(capacity * failed), self.whole)
        narrow = failed - capacity <= 1 if self.whole else failed / capacity <= 1 + self.tolerance
        return None if narrow or not capacity < middle < failed else middle

    def _step(self, load: float) -> float:
        """A load further up, by a factor that doubles with each try in logarithms."""
        return load * float(FIRST_STEP ** (2 ** min(len(self.held) - 1, 4)))

    def _above(self, load: float) -> float:
        return load + 1 if self.whole else load

    def _bounded(self, load: float) -> float:
        if self.whole and self.capacity is None and self.failed is not None:
            load = min(load, self.failed - 1)
        return min(max(rounded(load, self.whole), self.lowest), self.highest)

    def around(self) -> list[float]:
        """Loads around the capacity that complete the curve for an interval, in order."""
        if self.state != "found" or self.capacity is None:
            return []
        wanted = [self.capacity * math.exp(sign * far) for far in SPREAD for sign in (-1, 1)]
        return self._new(wanted)

    def beyond(self, up: bool) -> list[float]:
        """A load above, or below, all that were tried; none where the bound is reached."""
        end = max(self.held) * OUTWARD if up else min(self.held) / OUTWARD
        return self._new([end])

    def _new(self, wanted: list[float]) -> list[float]:
        """Those of ``wanted`` that are near no load that was tried."""
        found: list[float] = []
        for load in wanted:
            load = min(max(rounded(load, self.whole), self.lowest), self.highest)
            known = [*self.held, *found]
            apart = 0.5 if self.whole else NEAR * load
            if all(abs(load - one) >= apart for one in known):
                found.append(load)
        return sorted(found)
