"""A detector of changes sums up errors: where they lie on one side for long, what was known is dropped."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field

from driftsim.request import Job, Request
from driftsim.scheduling.admission import Admission
from driftsim.scheduling.estimate import Estimate, expecting, neutral


class Watched:
    """The mean of values since the last change, with Page and Hinkley's test on both sides of it (Page 1954).

    An error above ``delta`` raises the sum of its side, any other lowers it, to 0 at the least; at more than
    ``threshold`` it is a change, and the mean begins anew with the values since that sum was last 0.
    """

    def __init__(self, delta: float, threshold: float) -> None:
        self.delta, self.threshold = delta, threshold
        self.mean, self.count, self.alarms = 0.0, 0, 0
        self._begin()

    def _begin(self) -> None:
        self.sums, self.totals, self.counts = [0.0, 0.0], [0.0, 0.0], [0, 0]  # above, below

    def add(self, value: float) -> None:
        """Take a value in, and begin anew where it is a change."""
        if self.count:
            error = value - self.mean
            for side, sign in enumerate((1, -1)):
                self.sums[side] = max(0.0, self.sums[side] + sign * error - self.delta)
                inside = self.sums[side] > 0
                self.totals[side] = self.totals[side] + value if inside else 0.0
                self.counts[side] = self.counts[side] + 1 if inside else 0
                if self.sums[side] > self.threshold:
                    self.alarms += 1
                    self.mean, self.count = self.totals[side] / self.counts[side], self.counts[side]
                    self._begin()
                    return
        self.count += 1
        self.mean += (value - self.mean) / self.count


class PageHinkley:
    """The mean log ratio of the category since its last change, and Page and Hinkley's test to find the changes.

    ratio = output / (base x input factor). Source: Page 1954; Hinkley 1971; as a drift detector, Gama et al. 2014 (from
    memory).
    Trap: one test a category, since a change of the mix is no change of lengths; and with logarithms that scatter by
    about 1, a small ``threshold`` finds changes in noise and forgets what it knew.
    """

    def __init__(
        self,
        admission: Admission,
        *,
        delta: Annotated[float, Field(ge=0, description="Error of the logarithm that is no sign of a change.")] = 0.5,
        threshold: Annotated[float, Field(gt=0, description="Sum of the errors beyond it that is a change.")] = 5.0,
    ) -> None:
        self.admission, self.delta, self.threshold = admission, delta, threshold
        self.watched: dict[str, Watched] = {}

    def estimate(self, request: Request, category: str, now: float) -> Estimate:
        """The plain estimate times the category's ratio, from 1 to ``max_tokens``."""
        plain, seen = neutral(self.admission, request, category), self.watched.get(category)
        return expecting(plain if seen is None else plain * math.exp(seen.mean), plain, request)

    def observe(self, job: Job, output_length: int, censored: bool, now: float) -> None:
        """Take the ratio in. A cut output counts as it is."""
        category = job.predicted_category
        seen = self.watched.setdefault(category, Watched(self.delta, self.threshold))
        seen.add(math.log(max(output_length, 1) / neutral(self.admission, job.request, category)))
