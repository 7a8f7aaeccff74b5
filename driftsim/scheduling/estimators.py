"""An estimator predicts a request's output length at admission, and learns from the truth once it is out.

Adding one: a class with ``estimate`` and ``observe``, and its line in ``ESTIMATORS``.
"""

from __future__ import annotations

import math
import zlib
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable, Mapping
from typing import Annotated

import numpy as np
from pydantic import Field

from driftsim.errors import InputError
from driftsim.request import Job, Request
from driftsim.scheduling.admission import Admission
from driftsim.scheduling.change import PageHinkley
from driftsim.scheduling.conformal import Conformal
from driftsim.scheduling.estimate import Estimate as Estimate
from driftsim.scheduling.estimate import Estimator as Estimator
from driftsim.scheduling.hedge import FixedShare
from driftsim.scheduling.lifetimes import KaplanMeier
from driftsim.scheduling.names import spelled
from driftsim.scheduling.parameters import canonical, values_of
from driftsim.scheduling.plugins import declared, declared_names, instance, is_plugin, plugin
from driftsim.scheduling.regression import Regression
from driftsim.scheduling.trackers import LogEma, Prompt, Quantile, Session, Tenant

MOST = 1e8  # tokens; a blurred length is no larger, so that a trace can hold it
SURE = 30.0  # clamp of the log odds: beyond it, a change of regime would take too long to undo


class Static:
    """DriftSched's estimate with its bias off, 1 for ever. Source: DriftSched, arXiv 2606.02982 (read)."""

    def __init__(self, admission: Admission) -> None:
        self.admission = admission

    def estimate(self, request: Request, category: str, now: float) -> Estimate:
        """The estimate at bias 1."""
        return Estimate(self.admission.estimate(request, category, 1.0), 1.0)

    def observe(self, job: Job, output_length: int, censored: bool, now: float) -> None:
        """Nothing is learned."""


class Ema:
    """DriftSched's correction: per predicted category, an exponential moving average of the measured bias.

    ``bias <- (1 - alpha) bias + alpha clip(observed / expected)``, from 1. Censored outputs are learned from like any
    other, as DriftSched does. Source: DriftSched, arXiv 2606.02982 (read).
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
        category, alpha = job.predicted_category, self.admission.alpha
        old = self.bias.get(category, 1.0)
        self.bias[category] = (1 - alpha) * old + alpha * self.admission.measured_bias(job, output_length)


class Recent:
    """The last ``size`` observations of one kind, in order of their value; each with the limit that cut it off.

    An observation that ended by itself has the limit infinity.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._by_age: deque[tuple[float, float]] = deque()
        self._sorted: list[tuple[float, float]] = []
        self._medians: dict[float, float] = {}  # by limit

    def __len__(self) -> int:
        return len(self._sorted)

    def add(self, value: float, limit: float) -> None:
        """Take an observation in, and let go of the oldest if there are more than ``size``."""
        self._medians.clear()
        self._by_age.append((value, limit))
        insort(self._sorted, (value, limit))
        if len(self._sorted) > self.size:
            del self._sorted[bisect_left(self._sorted, self._by_age.popleft())]

    def median(self, limit: float) -> float:
        """The median under ``limit``; an observation cut off below that only says that it is longer than it is.

        Kaplan and Meier's (1958); where the curve does not come down to a half, the largest observation.
        """
        if limit not in self._medians:
            left, surviving = len(self._sorted), 1.0
            value_at_half = self._sorted[-1][0]
            for value, cut in self._sorted:
                if cut >= limit:
                    surviving *= 1 - 1 / left
                    if surviving <= 0.5 + 1e-9:
                        value_at_half = value
                        break
                left -= 1
            self._medians[limit] = value_at_half
        return self._medians[limit]


class Ratios:
    """Partial pooling of median ratios over category and tenant.

    ratio = output / (base x input factor). The safety factor is left out: it is a margin, not a forecast. Both differ
    from DriftSched (docs/explanation/traps.md, 4 and 5). The median of the ratios leaves the smallest MAE. The median
    of a predicted category is shrunk towards 1, that of a tenant within it towards the category's (Gelman and Hill
    2006, ch. 12). An output that was cut off at a lower limit than the request's is a lower bound (traps.md, 3).
    """

    window = 256  # observations that count, a category or a tenant within it
    category_strength = 16.0  # observations that the prior is worth: log ratios scatter far more than categories do
    tenant_strength = 100.0  # tenants differ less than categories

    def __init__(self, admission: Admission) -> None:
        self.admission = admission
        self._recent: dict[tuple[str, ...], Recent] = {}

    def length(self, request: Request, category: str) -> float:
        """The output length to expect, which is not above ``max_tokens``."""
        ratio = 0.0  # its logarithm
        for key, strength in (
            ((category,), self.category_strength),
            ((category, request.tenant), self.tenant_strength),
        ):
            if recent := self._recent.get(key):
                count = len(recent)
                ratio = (count * recent.median(request.max_tokens) + strength * ratio) / (count + strength)
        return min(self.unbiased(request, category) * math.exp(ratio), float(request.max_tokens))

    def learn(self, request: Request, category: str, output_length: int, censored: bool) -> None:
        """Take a ratio in, for the category and for the tenant within it."""
        ratio = math.log(max(output_length, 1) / self.unbiased(request, category))
        limit = request.max_tokens if censored else math.inf
        for key in ((category,), (category, request.tenant)):
            self._recent.setdefault(key, Recent(self.window)).add(ratio, limit)

    def unbiased(self, request: Request, category: str) -> float:
        """What a ratio of 1 stands for."""
        return self.admission.base_of(request, category) * self.admission.input_factor(request)


class Pooled:
    """DriftSched's correction, mended and hedged: pooled median ratios, mixed with DriftSched's own estimate.

    Each of the two is weighted by how little it has erred so far, as a share of ``max_tokens``. So where there is
    little to learn from, it does about as DriftSched does, and never errs much more than the better of the two. Source:
    driftsim's own (ours); its exponential weights are of Cesa-Bianchi and Lugosi 2006, ch. 2 (from memory).
    """

    trust = 0.3  # in the ratios before anything is known; the rest is in DriftSched's estimate
    rate = 1.0  # an error of max_tokens more than the other's costs a factor of e

    def __init__(self, admission: Admission) -> None:
        self.ratios, self.reference = Ratios(admission), Ema(admission)
        self._odds = math.log(self.trust / (1 - self.trust))  # logarithm of the ratios' odds
        self._admitted: dict[str, tuple[float, float]] = {}  # both estimates of unfinished requests, by request id

    def estimate(self, request: Request, category: str, now: float) -> Estimate:
        """The weighted estimate, and the bias that would have led to it."""
        ratios, reference = self._both(request, category, now)
        self._admitted.setdefault(request.id, (ratios, reference))
        weight = 1 / (1 + math.exp(-self._odds))
        length = max(1, round(weight * ratios + (1 - weight) * reference))
        return Estimate(length, length / self.ratios.unbiased(request, category))

    def observe(self, job: Job, output_length: int, censored: bool, now: float) -> None:
        """Update the weights from what each estimated *at admission*.

        Estimating again now would flatter whoever guesses short: short requests finish first.
        """
        request, category = job.request, job.predicted_category
        if said := self._admitted.pop(request.id, None):
            ratios, reference = (abs(length - output_length) for length in said)
            odds = self._odds + self.rate * (reference - ratios) / request.max_tokens
            self._odds = min(max(odds, -SURE), SURE)
        self.ratios.learn(request, category, output_length, censored)
        self.reference.observe(job, output_length, censored, now)

    def _both(self, request: Request, category: str, now: float) -> tuple[float, float]:
        reference = self.reference.estimate(request, category, now).length
        return self.ratios.length(request, category), float(min(reference, request.max_tokens))


class Hedge(FixedShare):
    """A hedge over ema, log-ema, pooled, regression, page-hinkley and kaplan-meier.

    Each weighs by how little it has erred; ``share`` of the weights is dealt out alike each time, so that another can
    take over soon. Source: Herbster and Warmuth 1998, fixed share; Cesa-Bianchi and Lugosi 2006, ch. 2 and 5 (from
    memory). Trap: it hedges the error, and an order by length needs ranks; and it costs what all six cost.
    """

    experts = (Ema, LogEma, Pooled, Regression, PageHinkley, KaplanMeier)


class Oracle:
    """Was given every true output length, by request id. Source: none, it is a bound (ours): no estimate is better."""

    deployable = False

    def __init__(self, outputs: Mapping[str, int], seed: int = 0) -> None:
        self.outputs = outputs

    def estimate(self, request: Request, category: str, now: float) -> Estimate:
        """The true length."""
        return Estimate(self.outputs[request.id], 1.0)

    def observe(self, job: Job, output_length: int, censored: bool, now: float) -> None:
        """There is nothing left to learn."""


class Noisy:
    """The true output length blurred by a lognormal factor: information that nobody has, in any quality.

    ``sigma`` is the standard deviation of the logarithm of the factor, whose median is 1; 0 is the oracle. The factors
    are drawn by the run's seed, one for each row of the workload: the same for every policy, and for every sigma but
    for scale. Source: Mitzenmacher 2019, "Scheduling with predictions and the price of misprediction" (from memory).
    Trap: its errors are independent of lengths and of each other, as those of no learned estimator are; and it may
    exceed a cap.
    """

    deployable = False

    def __init__(
        self,
        outputs: Mapping[str, int],
        seed: int = 0,
        *,
        sigma: Annotated[float, Field(ge=0, le=10, description="Spread of the logarithm of the estimate.")] = 0.5,
    ) -> None:
        random = np.random.default_rng([seed, zlib.crc32(b"noisy estimates")])
        factors = np.exp(sigma * random.standard_normal(len(outputs))).tolist()
        pairs = zip(outputs.items(), factors, strict=True)
        self.said = {name: max(min(length, 1), round(min(length * factor, MOST))) for (name, length), factor in pairs}

    def estimate(self, request: Request, category: str, now: float) -> Estimate:
        """The blurred length."""
        return Estimate(self.said[request.id], 1.0)

    def observe(self, job: Job, output_length: int, censored: bool, now: float) -> None:
        """There is nothing to learn."""


ESTIMATORS: dict[str, Callable[[Admission], Estimator]] = {
    "static": Static,
    "ema": Ema,
    "pooled": Pooled,
    "prompt": Prompt,
    "log-ema": LogEma,
    "quantile": Quantile,
    "kaplan-meier": KaplanMeier,
    "session": Session,
    "tenant": Tenant,
    "regression": Regression,
    "page-hinkley": PageHinkley,
    "conformal": Conformal,
    "hedge": Hedge,
}
ORACLE = "oracle"
GIVEN: dict[str, Callable[..., Estimator]] = {ORACLE: Oracle, "noisy": Noisy}  # those that are given the truth


def estimator_class(name: str) -> Callable[..., Estimator]:
    """The class that ``name`` stands for: ours, a declared one, or one that it says the place of.

    Parameters behind the name are not looked at. Raises ``InputError`` if there is none, or it is no estimator.
    """
    name = spelled(name).base
    if is_plugin(name):
        kind = plugin(name)
    elif name in ESTIMATORS or name in GIVEN:
        return ESTIMATORS.get(name) or GIVEN[name]
    elif name in declared_names("estimator"):
        kind = declared("estimator")[name]
    else:
        known = ", ".join([*ESTIMATORS, *GIVEN, *declared_names("estimator")])
        raise InputError(f"unknown estimator {name!r}; choose one of {known}, or give module:Class")
    missing = [method for method in ("estimate", "observe") if not hasattr(kind, method)]
    if missing:
        raise InputError(f"{name}: is no estimator, it has no {missing[0]}(); see driftsim.Estimator")
    return kind


def estimator_name(name: str) -> str:
    """The canonical spelling of the estimator ``name``. Raises ``InputError`` for parameters that it does not take.

    >>> estimator_name("ema?"), estimator_name("static")
    ('ema', 'static')
    """
    return canonical(name, estimator_class)


def is_deployable(name: str) -> bool:
    """Whether the estimator ``name`` could run in front of a server; if not, its results are a bound.

    An estimator that knows what nobody can know says ``deployable = False``.

    >>> is_deployable("ema"), is_deployable("oracle")
    (True, False)
    """
    return bool(getattr(estimator_class(name), "deployable", True))


def is_given_the_truth(name: str) -> bool:
    """Whether the estimator ``name`` is told every output length beforehand.

    >>> is_given_the_truth("noisy?sigma=1"), is_given_the_truth("ema")
    (True, False)
    """
    return spelled(name).base in GIVEN


def make_estimator(name: str, admission: Admission, outputs: Mapping[str, int], seed: int = 0) -> Estimator:
    """A fresh estimator; only those of ``GIVEN`` are handed ``outputs``, in the workload's order, and ``seed``.

    Raises ``InputError`` for an unknown name or parameter.
    """
    kind = estimator_class(name)
    told = (outputs, seed) if is_given_the_truth(name) else (admission,)
    return instance(name, kind, *told, **values_of(name, kind))
