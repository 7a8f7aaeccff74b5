"""An estimator predicts a request's output length at admission, and learns from the truth once it is out.

Adding one: a class with ``estimate`` and ``observe``, and its line in ``ESTIMATORS``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from driftsim.admission import Admission
from driftsim.plugins import declared, declared_names, is_plugin, plugin
from driftsim.request import Job, Request


@dataclass(frozen=True, slots=True)
class Estimate:
    """An expected output length, in the accounting's unit, and the bias that went into it."""

    length: int
    bias: float


class Estimator(Protocol):
    """Predict, then learn from the delayed truth. ``now`` is seconds since the run began; there is no other clock."""

    def estimate(self, request: Request, category: str, now: float) -> Estimate:
        """The output length to expect of ``request``, whose predicted category is ``category``."""
        ...

    def observe(self, job: Job, output_length: int, censored: bool, now: float) -> None:
        """Learn that ``job`` came out ``output_length`` long; ``censored``: it was cut off and might have gone on."""
        ...


class Static:
    """Bias off: the reference's estimate with a bias of 1 for ever (arXiv 2606.02982)."""

    def __init__(self, admission: Admission) -> None:
        self.admission = admission

    def estimate(self, request: Request, category: str, now: float) -> Estimate:
        """The estimate at bias 1."""
        return Estimate(self.admission.estimate(request, category, 1.0), 1.0)

    def observe(self, job: Job, output_length: int, censored: bool, now: float) -> None:
        """Nothing is learned."""


class Ema:
    """The reference's correction: per predicted category, an exponential moving average of the measured bias.

    ``bias <- (1 - alpha) bias + alpha clip(observed / expected)``, from 1 (arXiv 2606.02982). Censored outputs are
    learned from like any other, as the reference does.
    """

    def __init__(self, admission: Admission) -> None:
        self.admission = admission
        self.bias: dict[str, float] = {}

    def estimate(self, request: Request, category: str, now: float) -> Estimate:
        """The estimate at the category's present bias."""
        bias = self.bias.get(category, 1.0)
        return Estimate(self.admission.estimate(request, category, bias), bias)

    def observe(self, job: Job, output_length: int, censored: bool, now: float) -> None:
        """Move the category's bias towards what this output says it should have been."""
        old, alpha = self.bias.get(job.predicted_category, 1.0), self.admission.alpha
        self.bias[job.predicted_category] = (1 - alpha) * old + alpha * self.admission.measured_bias(job, output_length)


class Oracle:
    """Was given every true output length, by request id: what a perfect estimate would buy."""

    def __init__(self, outputs: Mapping[str, int]) -> None:
        self.outputs = outputs

    def estimate(self, request: Request, category: str, now: float) -> Estimate:
        """The true length."""
        return Estimate(self.outputs[request.id], 1.0)

    def observe(self, job: Job, output_length: int, censored: bool, now: float) -> None:
        """There is nothing left to learn."""


ESTIMATORS: dict[str, Callable[[Admission], Estimator]] = {
    "static": Static,
    "ema": Ema,
}
ORACLE = "oracle"  # the one estimator that is given the truth


def estimator_class(name: str) -> Callable[..., Estimator]:
    """The class that ``name`` stands for: ours, a declared one, or one that it says the place of.

    Raises ``ValueError`` if there is none, or it is no estimator.
    """
    if is_plugin(name):
        found = plugin(name)
    elif name == ORACLE or name in ESTIMATORS:
        return ESTIMATORS.get(name, Oracle)
    elif name in declared_names("estimator"):
        found = declared("estimator")[name]
    else:
        known = ", ".join([*ESTIMATORS, ORACLE, *declared_names("estimator")])
        raise ValueError(f"unknown estimator {name!r}; choose one of {known}, or give module:Class")
    missing = [method for method in ("estimate", "observe") if not hasattr(found, method)]
    if missing:
        raise ValueError(f"{name}: is no estimator, it has no {missing[0]}(); see Estimator in driftsim/estimators.py")
    return found


def make_estimator(name: str, admission: Admission, outputs: Mapping[str, int]) -> Estimator:
    """A fresh estimator; only the oracle is handed ``outputs``. Raises ``ValueError`` if ``name`` is unknown."""
    found = estimator_class(name)
    return found(outputs) if name == ORACLE else found(admission)
