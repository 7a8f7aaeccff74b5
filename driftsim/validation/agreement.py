"""How good a simulation is, where the same run was measured several times: noise floor, prediction, ranks of policies.

Everything is on a log scale, since latencies are compared as ratios. A simulated value is held against a *further* run,
not against the mean of those measured: the interval that it must lie in is a prediction interval.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from driftsim.scheduling.policies import BASELINE
from driftsim.statistics import (
    LEVEL,
    Interval,
    holm,
    mean_half_width,
    ratio_interval,
    student_quantile,
    two_sided_p,
)
from driftsim.trace.trace import Trace
from driftsim.validation.validation import STATS, Validation, statistic

FEWEST = 2  # repeats
CELLS = (*((metric, stat) for metric in ("ttft", "tpot", "e2e") for stat in STATS), ("makespan", "mean"))
EFFECTS = tuple((metric, stat) for metric in ("e2e", "ttft") for stat in ("mean", "p50", "p99"))


@dataclass(frozen=True, slots=True)
class MetricAgreement:
    """One metric of one run that was repeated. ``spread``: standard deviation of the log over the repeats, the noise
    floor. ``width``: the prediction interval's upper end over its lower one. ``p``: of the simulated value being a
    further run, adjusted over all cells (Holm 1979)."""

    name: str
    metric: str
    stat: str
    repeats: int
    measured: float  # geometric mean (s)
    simulated: float  # likewise
    spread: float
    width: float
    p: float

    @property
    def error(self) -> float:
        """Relative and signed."""
        return self.simulated / self.measured - 1

    @property
    def within(self) -> bool:
        """Whether the simulated value may well be a further run."""
        return self.p > 1 - LEVEL


def repeats(validations: Sequence[Validation]) -> dict[str, list[Validation]]:
    """Those that measured the same run again: same policy, estimator, limit and requests; by a name for each."""
    groups: dict[object, list[Validation]] = {}
    for validation in validations:
        header, requests = validation.recorded.header, validation.recorded.requests
        same = (
            str(header.admission.get("policy", "stock")),
            str(header.admission.get("estimator", "")),
            header.max_in_flight,
            tuple(requests["request_id"]),
            tuple(requests["output_tokens"]),
        )
        groups.setdefault(same, []).append(validation)
    named: dict[str, list[Validation]] = {}
    for group in groups.values():
        policy = str(group[0].recorded.header.admission.get("policy", "stock"))
        named[policy if policy not in named else f"{policy} ({group[0].name})"] = group
    return named


def metric_agreement(validations: Sequence[Validation]) -> list[MetricAgreement]:
    """One for each metric of each run that has repeats."""
    agreements = []
    for name, group in repeats(validations).items():
        if len(group) < FEWEST:
            continue
        for metric, stat in CELLS:
            measured, simulated = (
                np.log([statistic(getattr(validation, side), metric, stat) for validation in group])
                for side in ("recorded", "simulated")
            )
            if not np.isfinite([*measured, *simulated]).all():
                continue
            count = len(group)
            spread = float(measured.std(ddof=1))
            error = spread * math.sqrt(1 + 1 / count)
            reach = student_quantile(count - 1) * error
            off = float(simulated.mean() - measured.mean())
            p = two_sided_p(off / error, count - 1) if error > 0 else float(off == 0)
            middle = float(np.exp(measured.mean()))
            agreements.append(
                MetricAgreement(
                    name, metric, stat, count, middle, middle * math.exp(off), spread, math.exp(2 * reach), p
                )
            )
    adjusted = holm([one.p for one in agreements])
    return [replace(one, p=p) for one, p in zip(agreements, adjusted, strict=True)]


@dataclass(frozen=True, slots=True)
class PolicyEffect:
    """What a policy changes against FIFO in one metric, relative: measured and simulated, each with its interval."""

    policy: str
    metric: str
    stat: str
    measured: Interval
    simulated: Interval

    @property
    def agrees(self) -> bool | None:
        """Whether the signs are the same; None where the measured change may be noise."""
        if self.measured.spans_zero:
            return None
        return (self.measured.value > 0) == (self.simulated.value > 0)


@dataclass(frozen=True, slots=True)
class RankAgreement:
    """How simulation orders the policies in one metric, pair by pair; pairs that the noise hides are ties."""

    metric: str
    stat: str
    concordant: int
    discordant: int
    ties: int

    @property
    def tau(self) -> float:
        """Kendall's tau-b; NaN if every pair is a tie."""
        decided = self.concordant + self.discordant
        whole = decided + self.ties
        return (self.concordant - self.discordant) / math.sqrt(decided * whole) if decided else math.nan


def policy_effects(rounds: dict[str, list[Validation]], noisy: dict[str, list[Trace]]) -> list[PolicyEffect]:
    """For each policy but FIFO. ``rounds``: of each policy, in order of capture; the n-th ran beside the n-th of the
    others. ``noisy``: simulations of the same with noise, paired likewise, any number a round.

    Both intervals are of the mean over the rounds: the measured one from their differences, the simulated one from
    the noise, around the simulation without.
    """
    effects = []
    for policy in rounds:
        if policy == BASELINE:
            continue
        for metric, stat in EFFECTS:
            measured, simulated = _pairs(rounds[policy], rounds[BASELINE], metric, stat)
            drawn = _ratios(noisy[policy], noisy[BASELINE], metric, stat)
            reach = mean_half_width(drawn) * math.sqrt(len(drawn) / len(measured))
            effects.append(
                PolicyEffect(
                    policy,
                    metric,
                    stat,
                    ratio_interval(measured, mean_half_width(measured)),
                    ratio_interval(simulated, reach),
                )
            )
    return effects


def rank_agreement(rounds: dict[str, list[Validation]]) -> list[RankAgreement]:
    """For each metric, over all pairs of policies; the simulation is the one without noise."""
    agreements = []
    for metric, stat in EFFECTS:
        counts = [0, 0, 0]
        for one, other in combinations(rounds, 2):
            measured, simulated = _pairs(rounds[one], rounds[other], metric, stat)
            if abs(float(measured.mean())) <= mean_half_width(measured):
                counts[2] += 1
            else:
                counts[0 if (measured.mean() > 0) == (simulated.mean() > 0) else 1] += 1
        agreements.append(RankAgreement(metric, stat, *counts))
    return agreements


def _pairs(
    ones: Sequence[Validation], others: Sequence[Validation], metric: str, stat: str
) -> tuple[np.ndarray, np.ndarray]:
    """Logs of the ratios, round by round: measured, and simulated."""
    return (
        _ratios([run.recorded for run in ones], [run.recorded for run in others], metric, stat),
        _ratios([run.simulated for run in ones], [run.simulated for run in others], metric, stat),
    )


def _ratios(ones: Sequence[Trace], others: Sequence[Trace], metric: str, stat: str) -> np.ndarray:
    """Logs of the ratios, pair by pair."""
    pairs = zip(ones, others, strict=False)
    return np.log([statistic(one, metric, stat) / statistic(other, metric, stat) for one, other in pairs])
