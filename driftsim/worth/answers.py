"""What the runs say: changes against FIFO with their intervals, where FIFO wins, where nothing matters, and regrets.

Every change is of two runs on the same draw of the requests, as a logarithm of the ratio. Independent draws have
Student's interval of the mean (``mean_interval``), a recorded day and its resamples that of ``over_days``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from driftsim.comparison.plan import Setting
from driftsim.scheduling.policies import BASELINE
from driftsim.statistics import Day, Interval, crossing, mean_interval, over_days
from driftsim.worth.plan import FIFO, RIVALS, Limit, ValuePlan, noisy
from driftsim.worth.run import Cell, Valuation, worst_slowdown

MEASURES = ("mean", "p99", "worst")  # E2E latency, its P99, and the mean slowdown of the tenant that has the largest
NO_INTERVAL = Interval(np.nan, np.nan, np.nan)


def over_draws(kinds: Sequence[str], values: np.ndarray) -> Interval:
    """The mean of ``values``, one of each replication, with its interval; none where a replication has no value.

    >>> over_draws(["drawn"] * 3, np.array([1.0, 2.0, 3.0])).value
    2.0
    """
    if np.isnan(values).any():
        return NO_INTERVAL
    if "drawn" in kinds:
        return mean_interval(values)
    own = {kind: values[[one == kind for one in kinds]] for kind in ("recorded", "local", "circular")}
    return over_days([Day(float(own["recorded"][0]), own["local"], own["circular"])]).interval


def relative(logs: Interval) -> Interval:
    """A relative change, of its logarithm."""
    return Interval(*(math.expm1(end) for end in logs))


@dataclass(frozen=True)
class Beyond:
    """The sigma beyond which predictions of no better quality lose to a ``rival`` that uses none.

    state: ``found``; ``at once`` where the truth itself loses; ``never`` where no sigma that was tried loses; ``alike``
    where none changes anything. sigma: the value, and the sigmas at which either end of the interval of the change
    crosses 0; an end that no sigma has shown is NaN.
    """

    cell: Cell
    policy: str
    measure: str
    rival: str
    state: str
    sigma: Interval

    def row(self) -> dict[str, Any]:
        """As a flat row."""
        return {
            **self.cell._asdict(), "policy": self.policy, "measure": self.measure, "rival": self.rival,
            "state": self.state, "sigma": self.sigma.value, "sigma_low": self.sigma.low, "sigma_high": self.sigma.high,
        }  # fmt: skip


def beyond(sigmas: Sequence[float], changes: Sequence[Interval]) -> tuple[str, Interval]:
    """State and sigma of ``Beyond``, from the change against the rival at each of ``sigmas``, ascending.

    The sigma at which the change first is above 0, linear in between; its interval are the sigmas at which the change
    cannot be told from 0.

    >>> beyond([0.0, 1.0, 2.0], [Interval(-0.2, -0.3, -0.1), Interval(-0.1, -0.2, 0.0), Interval(0.1, 0.05, 0.2)])
    ('found', Interval(value=1.5, low=1.0, high=1.8))
    """
    at = np.asarray(sigmas, dtype=float)
    values, lows, highs = (np.array(one) for one in zip(*changes, strict=True))
    if not values.any():
        return "alike", NO_INTERVAL
    state = "at once" if values[0] > 0 else "found" if (values > 0).any() else "never"
    value = float(crossing(at, -values, 0.0)) if state == "found" else np.nan
    low = float(crossing(at, -highs, 0.0)) if (highs > 0).any() else np.nan
    high = float(crossing(at, -lows, 0.0)) if (lows > 0).any() else np.nan
    if state == "at once":
        low = np.nan
    return state, Interval(value, low, high)


class Regret(NamedTuple):
    """What is lost in mean latency, as logarithms that add up to ``total``.

    order: through a wrong order. admission: through turning away others. policy: through not being the best policy.
    """

    order: Interval
    admission: Interval
    policy: Interval
    total: Interval
    best: str


@dataclass(frozen=True, eq=False)
class Answers:
    """All numbers of a valuation."""

    valuation: Valuation

    @cached_property
    def kinds(self) -> list[str]:
        """The kind of each replication."""
        return [kind for kind, _ in self.valuation.plan.draws]

    @cached_property
    def cells(self) -> list[Cell]:
        """The engines under each load."""
        return list(self.valuation.rows)

    @cached_property
    def values(self) -> dict[tuple[Cell, Setting], dict[str, np.ndarray]]:
        """Each measure, and the error of the estimates, of each replication."""
        found = {}
        for cell, settings in self.valuation.rows.items():
            for setting, rows in settings.items():
                found[cell, setting] = {
                    "mean": _column(rows, "e2e_mean_s"),
                    "p99": _column(rows, "e2e_p99_s"),
                    "worst": np.array([worst_slowdown(row) for row in rows]),
                    "log_error": _column(rows, "log_error"),
                }
        return found

    def logs(self, cell: Cell, setting: Setting, base: Setting, measure: str) -> np.ndarray:
        """The logarithm of the ratio of ``setting`` to ``base``, of each replication."""
        logs: np.ndarray = np.log(self.values[cell, setting][measure]) - np.log(self.values[cell, base][measure])
        return logs

    def change(self, cell: Cell, setting: Setting, measure: str = "mean", base: Setting = FIFO) -> Interval:
        """The relative change of ``measure`` from ``base`` to ``setting``."""
        return relative(over_draws(self.kinds, self.logs(cell, setting, base, measure)))

    def error(self, cell: Cell, setting: Setting) -> float:
        """Mean of |ln(estimate / output)|, the mean over the replications."""
        errors = self.values[cell, setting]["log_error"]
        return float(np.mean(errors)) if len(errors) else np.nan

    def curve(self, cell: Cell, policy: str, measure: str = "mean", base: Setting = FIFO) -> list[Interval]:
        """The change under each sigma."""
        return [self.change(cell, Setting(policy, name), measure, base) for name in self._plan.noisy.values()]

    def beyond(self, cell: Cell, policy: str, measure: str = "mean", rival: str = "fifo") -> Beyond:
        """The sigma from which on ``rival`` wins."""
        found = beyond(self._plan.sigmas, self.curve(cell, policy, measure, RIVALS[rival]))
        return Beyond(cell, policy, measure, rival, *found)

    def beyonds(self) -> list[Beyond]:
        """For every cell, policy, measure and rival."""
        return [
            self.beyond(cell, policy, measure, rival)
            for cell in self.cells for policy in self._plan.policies for rival in RIVALS for measure in MEASURES
        ]  # fmt: skip

    def like_sigma(self, cell: Cell, setting: Setting) -> float:
        """The sigma whose noise on the truth changes the mean latency as much as ``setting`` does; NaN beyond them."""
        values = np.array([one.value for one in self.curve(cell, setting.policy)])
        own = self.change(cell, setting).value
        if not values[0] <= own or not (values > own).any():
            return np.nan
        return float(crossing(np.array(self._plan.sigmas), -values, -own))

    def calm(self, limit: Limit, policy: str) -> float:
        """The highest load at which, and below which, no quality of prediction matters; NaN: it does at the lowest."""
        highest = np.nan
        for load in self._plan.loads:
            ends = [end for one in self.curve(Cell(limit, load), policy) for end in (one.low, one.high)]
            if not all(abs(end) <= self._plan.margin for end in ends):
                break
            highest = load
        return highest

    def best_policy(self, cell: Cell) -> str:
        """The policy whose mean latency with the truth is the least."""
        return min(self._plan.policies, key=lambda policy: self.change(cell, Setting(policy, noisy(0.0))).value)

    def regret(self, cell: Cell, setting: Setting) -> Regret:
        """What ``setting`` loses in mean latency to the best policy with the truth, and by what.

        admission: FIFO with these estimates against FIFO with the truth, whose order is the same; 0, without a run,
        where nobody is turned away by estimates. order: the policy with these estimates against itself with the truth,
        but for that. policy: the policy with the truth against the best one with the truth.
        """
        truth, best = noisy(0.0), self.best_policy(cell)
        own, ideal = Setting(setting.policy, truth), Setting(best, truth)
        whole = self.logs(cell, setting, own, "mean")
        admission = np.zeros(len(whole))
        if self._plan.admits_by_estimates:
            admission = self.logs(cell, Setting(BASELINE, setting.estimator), Setting(BASELINE, truth), "mean")
        policy = self.logs(cell, own, ideal, "mean")
        parts = [whole - admission, admission, policy, whole + policy]
        order, admitted, chosen, total = (over_draws(self.kinds, part) for part in parts)
        return Regret(order, admitted, chosen, total, best)

    @property
    def _plan(self) -> ValuePlan:
        return self.valuation.plan

    def row(self, cell: Cell, setting: Setting) -> dict[str, Any]:
        """A setting in a cell as a flat row: latencies, changes against FIFO, the error, and regrets."""
        plan = self.valuation.plan
        sigma = next((sigma for sigma, name in plan.noisy.items() if name == setting.estimator), np.nan)
        used = setting.policy in plan.policies
        row: dict[str, Any] = {**cell._asdict(), "rate": self.valuation.rate(cell), **setting._asdict()}
        row |= {"sigma": sigma if used else np.nan, "log_error": self.error(cell, setting) if used else np.nan}
        for measure in MEASURES:
            row[measure] = over_draws(self.kinds, self.values[cell, setting][measure]).value
            row |= _ends(f"{measure}_change", self.change(cell, setting, measure))
        if used:
            regret = self.regret(cell, setting)
            row["like_sigma"] = self.like_sigma(cell, setting) if np.isnan(sigma) else np.nan
            for name in ("order", "admission", "policy", "total"):
                row |= _ends(f"{name}_regret", relative(getattr(regret, name)))
            row["best_policy"] = regret.best
        return row

    def rows(self) -> list[dict[str, Any]]:
        """One for every setting in every cell."""
        return [self.row(cell, setting) for cell in self.cells for setting in self.valuation.plan.settings]


def _ends(name: str, interval: Interval) -> dict[str, float]:
    return {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}


def _column(rows: list[dict[str, Any]], name: str) -> np.ndarray:
    return np.array([row.get(name, np.nan) for row in rows], dtype=float)
