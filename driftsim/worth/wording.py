"""What a valuation says, in sentences."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pandas as pd

from driftsim.comparison.plan import Setting
from driftsim.formatting import between
from driftsim.statistics import Interval
from driftsim.sweeps.cautions import collected
from driftsim.worth.answers import Answers, Beyond
from driftsim.worth.engines import KEYS
from driftsim.worth.plan import Limit, noisy
from driftsim.worth.run import Cell

BINDS: dict[Limit, str] = {"slots": "slots bind", "kv": "KV blocks bind", "prefill": "prefills bind"}
MEASURED = {"mean": "mean latency", "p99": "P99", "worst": "worst tenant's slowdown"}
LEGEND = (
    "load: share of the rate at which this engine serves a backlog, its end left out; change: against FIFO on the same "
    "requests, with its 95 % interval; mean, P99: of the end-to-end latency; worst tenant: mean slowdown of the tenant "
    "that has the largest",
    "truth: estimates that are the true lengths; FIFO wins beyond: spread of the noise on the logarithm of the "
    "lengths, sigma, from which on the mean latency is above FIFO's; in brackets where that cannot be told",
    "best estimator: of those that are not told the truth, by that same mean, so that it is a little too good; error: "
    "mean of |ln(estimate / output)|; as good as: the sigma whose noise on the truth has the same effect",
    "regret, of the mean latency: order, against the same policy with the truth; admission, by turning away others; "
    "policy, of the policy with the truth against the best one with the truth",
)


def shown_sigma(sigma: Interval, most: float) -> str:
    """The interval of a sigma, whose open end lies beyond the highest that was tried.

    >>> shown_sigma(Interval(1.5, 1.0, 2.0), 4), shown_sigma(Interval(1.5, 1.0, float("nan")), 4)
    ('1 to 2', '1 to beyond 4')
    """
    low = 0.0 if math.isnan(sigma.low) else sigma.low
    return f"{low:.2g} to {f'beyond {most:g}' if math.isnan(sigma.high) else f'{sigma.high:.2g}'}"


def when_lost(found: Beyond, most: float) -> str:
    """When a rival wins, for a cell of a table."""
    if found.state == "found":
        return f"{found.sigma.value:.2g} [{shown_sigma(found.sigma, most)}]"
    if found.state == "never":
        start = "" if math.isnan(found.sigma.low) else f" [{found.sigma.low:.2g}]"
        return f"never up to {most:g}{start}"
    return found.state


def best_estimator(answers: Answers, cell: Cell, policy: str) -> str | None:
    """The real estimator with the least mean latency; None where none was asked for."""
    real = [name for name in answers.valuation.plan.predictors if answers.valuation.plan.is_real(name)]
    return min(real, key=lambda name: answers.change(cell, Setting(policy, name)).value, default=None)


def busiest(answers: Answers) -> float:
    """The load that is told of: the highest that a steady state has, or the lowest."""
    loads = answers.valuation.plan.loads
    return max((load for load in loads if load < 1), default=loads[0])


def first_policy(answers: Answers) -> str:
    """The policy that is told of: the first that was named."""
    return answers.valuation.plan.policies[0]


def conclusions(answers: Answers) -> list[str]:
    """Is it worth it, when, and how good must it be; for each limit."""
    limits = answers.valuation.engines
    return [*_advice(answers), *(f"When {BINDS[limit]}: {' '.join(_of_limit(answers, limit))}" for limit in limits)]


def _of_limit(answers: Answers, limit: Limit) -> Iterator[str]:
    plan, load = answers.valuation.plan, busiest(answers)
    policy, cell = first_policy(answers), Cell(limit, load)
    truth = Setting(policy, noisy(0.0))
    yield (
        f"at a load of {load:g}, {policy} with the true lengths changes the mean latency by "
        f"{between(answers.change(cell, truth))} against FIFO, the P99 by "
        f"{between(answers.change(cell, truth, 'p99'))} and the worst tenant's slowdown by "
        f"{between(answers.change(cell, truth, 'worst'))}."
    )
    yield _beaten(answers.beyond(cell, policy), max(plan.sigmas))
    if (name := best_estimator(answers, cell, policy)) is not None:
        own = Setting(policy, name)
        yield (
            f"Of the estimators that could be run, {name} is best: its log error is {answers.error(cell, own):.2f} and "
            f"it changes the mean by {between(answers.change(cell, own))}{_as_good_as(answers.like_sigma(cell, own))}."
        )
    yield _calm(answers, limit, policy)


def _as_good_as(sigma: float) -> str:
    return "" if math.isnan(sigma) else f", as much as the truth blurred by sigma {sigma:.2g}"


def _beaten(found: Beyond, most: float) -> str:
    """From which quality on FIFO has the lower mean latency."""
    if found.state == "alike":
        return "No prediction changes anything there."
    if found.state == "at once":
        return "FIFO has the lower mean latency at once, even against the truth."
    if found.state == "never":
        early = "" if math.isnan(found.sigma.low) else f", though from {found.sigma.low:.2g} on that is not sure"
        early = ", though not even with the truth is that sure" if found.sigma.low == 0 else early
        return f"FIFO's mean latency is never lower up to the highest sigma tried, {most:g}{early}."
    return f"Beyond sigma {found.sigma.value:.2g} [{shown_sigma(found.sigma, most)}] FIFO has the lower mean latency."


def _calm(answers: Answers, limit: Limit, policy: str) -> str:
    plan = answers.valuation.plan
    highest = answers.calm(limit, policy)
    if math.isnan(highest):
        return f"At no load tried can it be said that no prediction matters (within {100 * plan.margin:g} %)."
    if highest == plan.loads[-1]:
        return f"No prediction changes the mean by more than {100 * plan.margin:g} % at any load tried."
    return f"Up to a load of {highest:g} no prediction changes the mean by more than {100 * plan.margin:g} %."


def _advice(answers: Answers) -> Iterator[str]:
    """One sentence on all."""
    load = busiest(answers)
    gains: list[Limit] = []
    losses: list[Limit] = []
    for limit in answers.valuation.engines:
        cell = Cell(limit, load)
        policy = first_policy(answers)
        name = best_estimator(answers, cell, policy)
        if name is None:
            continue
        change = answers.change(cell, Setting(policy, name))
        (gains if change.high < 0 else losses).append(limit)
    yes = " and where ".join(BINDS[limit] for limit in gains)
    if gains and not losses:
        yield f"Worth it: yes, for the mean latency, at a load of {load:g}, with an estimator that could be run."
    elif gains:
        yield f"Worth it: for the mean latency, at a load of {load:g}, where {yes}; elsewhere that is not shown."
    elif losses:
        yield (
            f"Worth it: not shown. At a load of {load:g} no estimator that could be run has a mean latency that is "
            "surely below FIFO's."
        )


def cautions(answers: Answers) -> list[str]:
    """What a reader must know before trusting the numbers."""
    valuation = answers.valuation
    plan = valuation.plan
    said = [
        f"{BINDS[limit].removesuffix(' bind')} can be made to bind on no variant of this engine for these requests, "
        "and are left out"
        for limit in valuation.missing
    ]
    said += [_engine(limit, engine.changes, engine.gains[limit]) for limit, engine in valuation.engines.items()]
    if not plan.admits_by_estimates:
        said.append("who is let in does not depend on estimates here, so that no regret is one of admission")
    else:
        said.append(
            "newcomers are turned away by estimates, and latencies are of those that finished: a lower one may be of "
            "fewer"
        )
    if plan.replications < (2 if plan.spec.workload is not None else 3):
        said.append("no intervals from so few replications")
    if any(load >= 1 for load in plan.loads):
        said.append(
            "at a load of 1 and more queues grow for as long as requests come: changes there are of runs this long"
        )
    said.append(
        "noisy estimates err independently of each other, and no learned estimator does: read the curve as a scale"
    )
    rows = pd.DataFrame([row for settings in valuation.rows.values() for own in settings.values() for row in own])
    return said + [f"{one.text.rstrip('.')} ({one.runs} of {len(rows)} runs)" for one in collected(rows)]


def _engine(limit: Limit, changes: dict[str, int], gain: float) -> str:
    made = ", ".join(f"{key} {value:,}" for key, value in changes.items()) or "the profile's own engine"
    return (
        f"{BINDS[limit]} with {made}: twice the {KEYS[limit]} serves a backlog {100 * gain:.0f} % faster, and twice of "
        "another limit helps less"
    )
