"""Why a row cannot differ from FIFO on this trace, derived from what was run; where it can, there is no reason.

A reason holds for the workload as recorded and for every resample of it, or it is none.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from driftsim.metrics import chosen_at
from driftsim.scheduling.admission import Admission
from driftsim.scheduling.names import spelled
from driftsim.scheduling.policies import BASELINE, STOCK, alone_by, policy_class
from driftsim.trace.trace import Trace

ONE_TIER = "one tier"
EQUAL_BUDGETS = "equal budgets"
NO_CHOICE = "no choice"
MEANINGS = {
    ONE_TIER: "all requests have one tier, so an order by tier is that of their arrival",
    EQUAL_BUDGETS: "all requests have one budget, so an order by budget is that of their arrival",
    NO_CHOICE: "no two requests ever waited together under fifo, so there was no order to choose",
}
NEEDED = ("arrival_s", "dispatch_s", "scheduled_s")  # columns of the FIFO run that are looked at
FIXED = ("static", "oracle")  # estimators that never change their mind about a request


def reasons(policy: str, estimator: str, admission: Admission, run: Trace, fifo: Trace) -> list[str]:
    """The reasons, among ``MEANINGS``, why ``run`` could not differ from ``fifo``, a run of the same requests.

    >>> from driftsim.testing import profile, workload
    >>> from driftsim.simulation.run import simulate
    >>> from driftsim.simulation.scenario import Scenario
    >>> fifo = simulate(Scenario(profile=profile()), workload([0.0, 0.0], [3, 2]))
    >>> reasons("priority", "static", Admission(), fifo, fifo), reasons("stock", "static", Admission(), fifo, fifo)
    (['one tier'], [])
    """
    if policy in (STOCK, BASELINE):  # the one has no limit in flight, the other needs no reason
        return []
    found, requests = [], run.requests
    heeds = alone_by(policy)
    if heeds == "tier" and requests["tier"].nunique() == 1:
        found.append(ONE_TIER)
    stay = admission.estimates == "frozen" or estimator in FIXED
    if heeds == "budget" and stay and requests["budget"].nunique(dropna=False) == 1:
        found.append(EQUAL_BUDGETS)
    preempts = run.header.admission.get("place") == "inside" and hasattr(policy_class(policy), "preempts")
    if not (preempts or _ever_chose(fifo)):
        found.append(NO_CHOICE)
    return found


def _ever_chose(trace: Trace) -> bool:
    """Whether two requests ever waited to be chosen together, be it for an instant."""
    arrival = trace.requests["arrival_s"].to_numpy(dtype=float)
    dispatch = np.asarray(chosen_at(trace.requests, trace.header), dtype=float)
    order = np.argsort(arrival, kind="stable")
    begin, end = arrival[order], np.where(np.isnan(dispatch), np.inf, dispatch)[order]
    return bool((begin[1:] <= np.maximum.accumulate(end)[:-1]).any())


def lasting(found: Sequence[Sequence[str]]) -> str:
    """The first reason that every replication gives; "" if there is none."""
    return next((reason for reason in found[0] if all(reason in others for others in found)), "")


def explained(reason: str) -> str:
    """A reason with its meaning.

    >>> explained("one tier")
    'one tier: all requests have one tier, so an order by tier is that of their arrival'
    """
    return f"{reason}: {MEANINGS[reason]}"


SIMPLE_POLICIES = ("stock", "fifo", "priority", "sjf", "weighted", "aging")  # the simplest to run first
SIMPLE_ESTIMATORS = (
    "static", "prompt", "ema", "log-ema", "quantile", "tenant", "session", "regression", "page-hinkley", "kaplan-meier",
    "pooled", "conformal", "hedge",
)  # fmt: skip


def complexity(setting: tuple[str, str]) -> tuple[int, int]:
    """How much there is to run and to explain: the estimator counts first; what is not ours counts most.

    >>> sorted([("sjf", "ema"), ("aging", "static"), ("fifo", "static")], key=complexity)
    [('fifo', 'static'), ('aging', 'static'), ('sjf', 'ema')]
    """
    names = (spelled(name).base for name in reversed(setting))
    orders = zip((SIMPLE_ESTIMATORS, SIMPLE_POLICIES), names, strict=True)
    estimator, policy = (order.index(name) if name in order else len(order) for order, name in orders)
    return estimator, policy
