"""An estimate is an expected output length; whoever makes one learns from the truth once it is out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from driftsim.request import Job, Request
from driftsim.scheduling.admission import Admission


@dataclass(slots=True)
class Estimate:
    """An expected output length, in the accounting's unit, and the bias that went into it.

    ``quantiles`` are those of the output length at the ``levels`` of the estimator, if it has any.

    >>> Estimate(84, 1.0)
    Estimate(length=84, bias=1.0)
    """

    length: int
    bias: float
    quantiles: tuple[int, ...] = field(default=(), repr=False)


class Estimator(Protocol):
    """Predict, then learn from the delayed truth. ``now`` is seconds since the run began; there is no other clock.

    An estimator may have more. ``levels``: the probabilities, in ascending order, of the quantiles that each of its
    estimates then carries, and a job after it. ``observe_unfinished(job, at_least, now)``: it is told of a job that
    left unfinished, when its output was ``at_least`` so long.
    """

    def estimate(self, request: Request, category: str, now: float) -> Estimate:
        """The output length to expect of ``request``, whose predicted category is ``category``."""
        ...

    def observe(self, job: Job, output_length: int, censored: bool, now: float) -> None:
        """Learn that ``job`` came out ``output_length`` long; ``censored``: it was cut off and might have gone on."""
        ...


def neutral(admission: Admission, request: Request, category: str) -> float:
    """What a ratio of 1 stands for: base x input factor. The safety factor is a margin, not a forecast."""
    return admission.base_of(request, category) * admission.input_factor(request)


def possible(length: float, request: Request) -> int:
    """``length`` as a whole number of 1 or more that ``request`` allows.

    >>> request = Request("r", "a", None, "", 0.0, prompt_tokens=9, prompt_words=None, max_tokens=64)
    >>> possible(0.2, request), possible(7.6, request), possible(1e300, request)
    (1, 8, 64)
    """
    return max(1, round(min(length, request.max_tokens)))


def expecting(length: float, plain: float, request: Request) -> Estimate:
    """The estimate ``length`` where ``plain`` would be expected with a bias of 1."""
    whole = possible(length, request)
    return Estimate(whole, whole / plain)
