"""Recursive least squares: a straight line through logarithms, found again after every output, that forgets."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated

from pydantic import Field

from driftsim.request import Job, Request
from driftsim.scheduling.admission import Admission
from driftsim.scheduling.estimate import Estimate, expecting, neutral

MIDDLE = math.log(200.0)  # of the prompts' logarithms, roughly: so that level and slope are told apart
SPREADS = (1.0, 0.25)  # prior variances of level and slope, in those of an observation


@dataclass(slots=True)
class Line:
    """y = level + slope x, by least squares with a prior at 0, and ``forgetting`` as the weight of the past.

    The estimates minimise sum of forgetting^(n - i) (y_i - level - slope x_i)^2 + forgetting^n (level^2 / 1 +
    slope^2 / 0.25) (Ljung 1999, Section 11.2).
    """

    forgetting: float
    level: float = 0.0
    slope: float = 0.0
    spread: list[float] = field(default_factory=lambda: [SPREADS[0], 0.0, SPREADS[1]])  # P: level, both, slope

    def at(self, x: float) -> float:
        """The line at ``x``."""
        return self.level + self.slope * x

    def learn(self, x: float, y: float) -> None:
        """Take the point (``x``, ``y``) in."""
        one, both, two = self.spread
        gain_level, gain_slope = one + both * x, both + two * x
        noise = self.forgetting + gain_level + x * gain_slope
        error = y - self.at(x)
        self.level += gain_level / noise * error
        self.slope += gain_slope / noise * error
        kept = [
            one - gain_level * gain_level / noise, both - gain_level * gain_slope / noise,
            two - gain_slope * gain_slope / noise,
        ]  # fmt: skip
        # Where nothing new comes, forgetting would blow the spread up: then the prior's is as much as there is.
        scale = 1 / self.forgetting
        if kept[0] * scale <= SPREADS[0] and kept[2] * scale <= SPREADS[1]:
            kept = [part * scale for part in kept]
        self.spread = kept


class Regression:
    """A regression of the output's logarithm on the prompt's, for each category, found by recursive least squares.

    It begins at the base, whatever the prompt. Source: Ljung 1999, "System Identification", Section 11.2 (from memory);
    on prompt length and category as the cheapest features of Clairvoyant, arXiv 2606.07248 (abstract read). Trap:
    logarithms lead to the median, below the mean; and among prompts that are all alike the slope is noise, which
    another prompt then gets in full.
    """

    def __init__(
        self,
        admission: Admission,
        *,
        forgetting: Annotated[
            float, Field(gt=0.5, le=1, description="Weight of the past against one output more; 1 forgets nothing.")
        ] = 0.99,
    ) -> None:
        self.admission, self.forgetting = admission, forgetting
        self.lines: dict[str, Line] = {}

    def estimate(self, request: Request, category: str, now: float) -> Estimate:
        """What the category's line says, from 1 to ``max_tokens``."""
        plain, line = neutral(self.admission, request, category), self.lines.get(category)
        if line is None:
            return expecting(plain, plain, request)
        said = line.at(self._x(request))
        return expecting(self.admission.base_of(request, category) * math.exp(min(said, 50.0)), plain, request)

    def observe(self, job: Job, output_length: int, censored: bool, now: float) -> None:
        """Take the point in. A cut output counts as it is."""
        request, category = job.request, job.predicted_category
        line = self.lines.setdefault(category, Line(self.forgetting))
        line.learn(self._x(request), math.log(max(output_length, 1) / self.admission.base_of(request, category)))

    def _x(self, request: Request) -> float:
        return math.log(1 + self.admission.prompt_length(request)) - MIDDLE
