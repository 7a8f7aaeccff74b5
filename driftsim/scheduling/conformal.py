"""Adaptive conformal inference: intervals that miss as often as asked, whatever comes."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque
from typing import Annotated

from pydantic import Field

from driftsim.request import Job, Request
from driftsim.scheduling.admission import Admission
from driftsim.scheduling.estimate import Estimate, neutral, possible
from driftsim.scheduling.trackers import LogEma


class Conformal:
    """The estimate of log-ema with an interval around it that misses ``miss`` of the outputs, by what it has missed.

    The interval is between two quantiles of the last errors of the logarithm. The share that it leaves out moves:
    ``alpha <- alpha + rate (miss - missed)``; at 0 or less it holds all that may come, at 1 or more nothing. Source:
    Gibbs and Candes 2021, arXiv 2106.00170 (abstract read; the rule and its bound as other packages document it). Trap:
    the coverage is that of the whole sequence, not of each category; and outputs are known late, which adds their
    number to the bound.
    """

    def __init__(
        self,
        admission: Admission,
        *,
        miss: Annotated[float, Field(gt=0, lt=1, description="Share of the outputs that may lie outside.")] = 0.2,
        rate: Annotated[float, Field(gt=0, lt=1, description="How far one miss moves the share left out.")] = 0.02,
        window: Annotated[int, Field(ge=10, description="Errors that the quantiles are of, the last ones.")] = 200,
    ) -> None:
        self.admission, self.miss, self.rate, self.window = admission, miss, rate, window
        self.levels = (miss / 2, 1 - miss / 2)
        self.alpha = miss
        self.inner = LogEma(admission)
        self._by_age: deque[float] = deque()
        self._sorted: list[float] = []

    def estimate(self, request: Request, category: str, now: float) -> Estimate:
        """The inner estimate, with the interval: from above its upper end if it is empty."""
        made = self.inner.estimate(request, category, now)
        made.quantiles = self.interval(request, category)
        return made

    def interval(self, request: Request, category: str) -> tuple[int, int]:
        """Lower and upper end; all from 0 to ``max_tokens`` while ``alpha`` is 0 or less, or nothing is known."""
        if self.alpha <= 0 or not self._sorted:
            return 0, request.max_tokens
        middle = neutral(self.admission, request, category) * math.exp(self.inner.logs.get(category, 0.0))
        if self.alpha >= 1:
            whole = possible(middle, request)
            return whole + 1, whole
        last = len(self._sorted) - 1
        low = self._sorted[math.floor(self.alpha / 2 * last)]
        high = self._sorted[math.ceil((1 - self.alpha / 2) * last)]
        most = float(request.max_tokens)
        ends = [min(middle * math.exp(min(error, 50.0)), most) for error in (low, high)]
        return math.floor(ends[0]), math.ceil(ends[1])

    def observe(self, job: Job, output_length: int, censored: bool, now: float) -> None:
        """Move the share by whether the interval that was *said* to the job missed, and learn the error."""
        if job.quantiles:
            low, high = job.quantiles
            self.alpha += self.rate * (self.miss - (not low <= output_length <= high))
        category = job.predicted_category
        middle = math.log(neutral(self.admission, job.request, category)) + self.inner.logs.get(category, 0.0)
        error = math.log(max(output_length, 1)) - middle
        self._by_age.append(error)
        insort(self._sorted, error)
        if len(self._sorted) > self.window:
            del self._sorted[bisect_left(self._sorted, self._by_age.popleft())]
        self.inner.observe(job, output_length, censored, now)
