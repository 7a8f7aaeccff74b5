"""Kaplan and Meier's curve tells how long outputs get, from those that ended and those that were cut off."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right, insort
from collections import deque
from typing import Annotated

from pydantic import Field

from driftsim.request import Job, Request
from driftsim.scheduling.admission import Admission
from driftsim.scheduling.estimate import Estimate, expecting, neutral, possible

ENDED, CUT = 0, 1  # at equal lengths an output that ended comes before one that was cut off there


class Lifetimes:
    """The last ``window`` output lengths of a kind, and their survival curve (Kaplan and Meier 1958).

    An output that was cut off at a length only says that it is longer. The longest counts as ended (Efron 1967), so
    that the curve comes down to 0.
    """

    def __init__(self, window: int) -> None:
        self.window = window
        self._by_age: deque[tuple[int, int]] = deque()
        self._sorted: list[tuple[int, int]] = []
        self._curve: tuple[list[float], list[float], list[float]] | None = None

    def __len__(self) -> int:
        return len(self._sorted)

    def add(self, length: int, cut: bool) -> None:
        """Take an output in, and let go of the oldest if there are more than ``window``."""
        one = (length, CUT if cut else ENDED)
        self._by_age.append(one)
        insort(self._sorted, one)
        if len(self._sorted) > self.window:
            del self._sorted[bisect_left(self._sorted, self._by_age.popleft())]
        self._curve = None

    @property
    def curve(self) -> tuple[list[float], list[float], list[float]]:
        """Lengths at which the curve steps, from 0; the survival from each on; the area under it up to each."""
        if self._curve is None:
            lengths, survival, areas = [0.0], [1.0], [0.0]
            left, now = len(self._sorted), 1.0
            for place, (length, how) in enumerate(self._sorted):
                if how == ENDED or place == len(self._sorted) - 1:
                    now *= 1 - 1 / (left - place)
                    if length > lengths[-1]:
                        areas.append(areas[-1] + survival[-1] * (length - lengths[-1]))
                        lengths.append(float(length))
                        survival.append(now)
                    else:
                        survival[-1] = now
            self._curve = lengths, survival, areas
        return self._curve

    def survival(self, length: float) -> float:
        """The share of the outputs that are longer than ``length``."""
        lengths, survival, _ = self.curve
        return survival[bisect_right(lengths, length) - 1]

    def beyond(self, length: float, cap: float = math.inf) -> float:
        """E[min(o, cap) | o > length]: what an output comes to that is already longer than ``length``.

        Where no output was so long, one more than ``length``.
        """
        left = self.survival(length)
        if left <= 0:
            return min(length + 1, cap)
        return min(length + (self._area(cap) - self._area(length)) / left, cap)

    def quantile(self, share: float) -> float:
        """The least length that at least ``share`` of the outputs do not exceed."""
        lengths, survival, _ = self.curve
        return next(
            (length for length, left in zip(lengths, survival, strict=True) if left <= 1 - share + 1e-9), lengths[-1]
        )

    def _area(self, length: float) -> float:
        """The integral of the curve from 0 to ``length``."""
        lengths, survival, areas = self.curve
        place = bisect_right(lengths, length) - 1
        return areas[place] + (survival[place] * (length - lengths[place]) if survival[place] > 0 else 0.0)


class KaplanMeier:
    """The mean output of the category, from its survival curve; cut and aborted outputs are lower bounds.

    Its estimates carry the quantiles of 10 % and 90 %. Where the policy stands inside the engine, the estimate of an
    output that has got to g becomes E[o | o > g], the residual life; who has got beyond all that was seen is all but
    done. Source: Kaplan and Meier 1958 (from memory). Trap: short outputs finish first, so after a burst the curve is
    of the short ones; and under one cap for all, what would come above it is never seen. Where outputs scatter much,
    E[o | o > g] - g grows with g, so that srpt preempts nearly everybody who runs (docs/guides/places.md has the
    numbers).
    """

    levels = (0.1, 0.9)

    def __init__(
        self,
        admission: Admission,
        *,
        window: Annotated[int, Field(ge=1, description="Outputs of each category that count, the last ones.")] = 128,
        residual: Annotated[bool, Field(description="Whether estimates are made anew in flight.")] = True,
    ) -> None:
        self.admission, self.window = admission, window
        if not residual:
            self.progress = None  # type: ignore[method-assign, assignment]  # so that nobody asks
        self.lifetimes: dict[str, Lifetimes] = {}

    def estimate(self, request: Request, category: str, now: float) -> Estimate:
        """The mean under the request's cap, else the plain estimate, and the quantiles."""
        plain, seen = neutral(self.admission, request, category), self.lifetimes.get(category)
        made = expecting(plain if seen is None else seen.beyond(0, request.max_tokens), plain, request)
        if seen is None:
            made.quantiles = (1, request.max_tokens)
        else:
            made.quantiles = tuple(possible(seen.quantile(level), request) for level in self.levels)
        return made

    def residual(self, category: str, generated: int, cap: float = math.inf) -> float:
        """E[o | o > generated] of the category, no more than ``cap``; one more than ``generated`` where unknown."""
        seen = self.lifetimes.get(category)
        return min(generated + 1, cap) if seen is None else seen.beyond(generated, cap)

    def progress(self, job: Job, tokens: int, now: float) -> Estimate:
        """The mean of those outputs that got beyond ``tokens``; of an unknown category the estimate, if it can be."""
        request, category = job.request, job.predicted_category
        known = category in self.lifetimes
        length = self.residual(category, tokens, request.max_tokens) if known else max(job.estimate, tokens + 1)
        return expecting(length, neutral(self.admission, request, category), request)

    def observe(self, job: Job, output_length: int, censored: bool, now: float) -> None:
        """Take the output in, as a lower bound if it was cut."""
        seen = self.lifetimes.setdefault(job.predicted_category, Lifetimes(self.window))
        seen.add(output_length, censored)

    def observe_unfinished(self, job: Job, at_least: int, now: float) -> None:
        """Take an aborted output in, as a lower bound, if it had begun."""
        if at_least > 0:
            self.observe(job, at_least, True, now)
