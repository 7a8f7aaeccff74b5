"""What is asked of predictions: which policies use them, how wrong they are, under which loads and which limits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

from driftsim.comparison.plan import Setting
from driftsim.errors import InputError, check_whole
from driftsim.pressing.draws import Draw, draws_of
from driftsim.scheduling.estimators import estimator_name, is_given_the_truth
from driftsim.scheduling.policies import BASELINE, POLICIES, STOCK, alone_by, policy_name
from driftsim.simulation.spec import ScenarioSpec

Limit: TypeAlias = Literal["slots", "kv", "prefill"]
LIMITS: tuple[Limit, ...] = get_args(Limit)
SIZE_BASED = tuple(name for name in ("sjf", "cost-sjf", "wspt", "boost", "srpt") if name in POLICIES)
REAL = ("static", "ema", "pooled", "prompt", "regression")
SIGMAS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0)
LOADS = (0.3, 0.6, 0.9, 1.1)
REPLICATIONS = 10
MARGIN = 0.05
MOST_SIGMA, MOST_LOAD = 10.0, 10.0
FIFO = Setting(BASELINE, "static")
LABELS = Setting("boost?sizes=label", "static")  # knows what is served by category, and no length beforehand
RIVALS = {"fifo": FIFO, "labels": LABELS}


@dataclass(frozen=True, kw_only=True)
class ValuePlan:
    """What to run. ``spec``: what all runs have in common.

    sigmas: spreads of the noise on the true lengths, 0 among them. loads: shares of the rate at which the engine serves
    a backlog. limits: what binds. margin: relative change of the mean latency that matters to nobody.
    """

    spec: ScenarioSpec
    policies: tuple[str, ...] = SIZE_BASED
    estimators: tuple[str, ...] = REAL
    sigmas: tuple[float, ...] = SIGMAS
    loads: tuple[float, ...] = LOADS
    limits: tuple[Limit, ...] = LIMITS
    replications: int = REPLICATIONS
    margin: float = MARGIN

    def __post_init__(self) -> None:
        check_whole("replications", self.replications)
        if self.replications < 1:
            raise InputError(f"replications must be at least 1, got {self.replications}")
        if self.spec.barrier is not None:
            raise InputError("behind a barrier neither slots, KV blocks nor prefills bind; leave the barrier out")
        if not self.policies:
            raise InputError(f"there is nothing to feed with predictions; name policies, as {','.join(SIZE_BASED)}")
        for name in self.policies:
            if policy_name(name) in (STOCK, BASELINE) or alone_by(name) == "tier":
                raise InputError(f"{name} heeds no prediction; name policies that do, as {','.join(SIZE_BASED)}")
        for name in self.estimators:
            estimator_name(name)
        _check_numbers("sigma", self.sigmas, 0, MOST_SIGMA, "0,0.5,1,2")
        _check_numbers("load", self.loads, 1e-3, MOST_LOAD, "0.3,0.6,0.9")
        if not _is_number(self.margin) or not 0 < self.margin < 1:
            raise InputError(f"the margin is a share above 0 and below 1, such as 0.05, got {self.margin!r:.40}")
        for one in self.limits:
            if one not in LIMITS:
                raise InputError(f"unknown limit {one!r:.40}; choose among {', '.join(LIMITS)}")
        if not self.limits or len(set(self.limits)) < len(self.limits):
            raise InputError(f"limits are some of {', '.join(LIMITS)}, each once, got {list(self.limits)!r:.80}")
        object.__setattr__(self, "sigmas", tuple(sorted({0.0, *map(float, self.sigmas)})))
        object.__setattr__(self, "loads", tuple(sorted(map(float, self.loads))))

    @property
    def draws(self) -> list[Draw]:
        """The kind of each replication, and the keys of a scenario that draw it."""
        return draws_of(self.spec, self.replications)

    @property
    def noisy(self) -> dict[float, str]:
        """The estimator that knows the truth but for noise, by sigma."""
        return {sigma: noisy(sigma) for sigma in self.sigmas}

    @property
    def predictors(self) -> list[str]:
        """All estimators: the noisy ones, then the real ones."""
        return [*self.noisy.values(), *dict.fromkeys(self.estimators)]

    @property
    def admits_by_estimates(self) -> bool:
        """Whether who is turned away depends on estimates: limits of the queue in requests alone do not."""
        return any(rule.tokens or rule.wait_s or rule.defer_s for rule in self.spec.shed)

    @property
    def settings(self) -> list[Setting]:
        """What is run at each load of each engine, each once."""
        used = [Setting(policy, name) for policy in self.policies for name in self.predictors]
        blind = [Setting(BASELINE, name) for name in self.predictors] if self.admits_by_estimates else []
        return list(dict.fromkeys([*RIVALS.values(), *used, *blind]))

    def is_real(self, estimator: str) -> bool:
        """Whether ``estimator`` is not told the truth."""
        return not is_given_the_truth(estimator)


def noisy(sigma: float) -> str:
    """The estimator whose noise has the spread ``sigma``.

    >>> noisy(0.0), noisy(0.5)
    ('noisy?sigma=0', 'noisy')
    """
    return estimator_name(f"noisy?sigma={sigma:g}")


def _check_numbers(name: str, values: Sequence[Any], low: float, high: float, example: str) -> None:
    if not values:
        raise InputError(f"there is no {name}; give some, as {example}")
    for value in values:
        if not _is_number(value) or not low <= value <= high:
            raise InputError(f"a {name} must be {low:g} to {high:g}, got {value!r:.40}; write them as {example}")
    if len(set(values)) < len(values):
        raise InputError(f"each {name} once, got {list(values)!r:.80}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
