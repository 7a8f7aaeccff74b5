"""How good a simulation is, where the same run was measured several times: its level, its changes, ranks of policies.

Everything is on a log scale, since latencies are compared as ratios. The level's error is told beside the noise floor,
without a verdict: a host whose speed drifts hides any. What is judged is the change that a policy makes (equivalence).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from driftsim.calibration.host_speed import host_speeds
from driftsim.calibration.runs import Run
from driftsim.scheduling.policies import BASELINE
from driftsim.statistics import Interval, mean_half_width, ratio_interval
from driftsim.trace.trace import Trace
from driftsim.validation.equivalence import ChangeDifference, change_differences
from driftsim.validation.validation import STATS, Validation, statistic

FEWEST = 2  # repeats
CELLS = (*((metric, stat) for metric in ("ttft", "tpot", "e2e") for stat in STATS), ("makespan", "mean"))
EFFECTS = tuple((metric, stat) for metric in ("e2e", "ttft") for stat in ("mean", "p50", "p99"))


@dataclass(frozen=True, slots=True)
class MetricAgreement:
    """One metric of one run that was repeated: the error of its level. ``spread``: standard deviation of the log over
    the repeats, the noise floor."""

    name: str
    metric: str
    stat: str
    repeats: int
    measured: float  # geometric mean (s)
    simulated: float  # likewise
    spread: float

    @property
    def error(self) -> float:
        """Relative and signed."""
        return self.simulated / self.measured - 1


def repeats(validations: Sequence[Validation]) -> dict[str, list[Validation]]:
    """Those that measured the same run again: same policy, estimator, limit and requests; by a name for each."""
    groups: dict[object, list[Validation]] = {}
    for validation in validations:
        header, requests = validation.recorded.header, validation.recorded.requests
        same = (
            str(header.admission.get("policy", "stock")),
            str(header.admission.get("estimator", "")),
            header.max_in_flight,
            header.admission.get("place", "front"),
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
            middle, other = (float(np.exp(logs.mean())) for logs in (measured, simulated))
            spread = float(measured.std(ddof=1))
            agreements.append(MetricAgreement(name, metric, stat, len(group), middle, other, spread))
    return agreements


@dataclass(frozen=True, slots=True)
class ChangeAgreement:
    """The simulated change of a policy against FIFO, held against the measured one, in one metric."""

    policy: str
    metric: str
    stat: str
    difference: ChangeDifference

    def flat(self) -> dict[str, Any]:
        """As a row: the difference as measured and at one speed of the host, relative, and the verdict."""
        difference, judgement = self.difference, self.difference.judgement
        row: dict[str, Any] = {"policy": self.policy, "metric": self.metric, "stat": self.stat}
        for kind in ("paired", "adjusted"):
            ends = zip(("", "_low", "_high"), getattr(difference, kind), strict=True)
            row |= {f"difference_{kind}{end}": value for end, value in ends}
        row |= {"slope": difference.slope, "explained": difference.explained, "rounds": difference.rounds}
        row |= {"verdict": judgement.verdict, "reason": judgement.reason, "more_rounds": judgement.more}
        return row | {"verdict_as_measured": difference.as_measured.verdict}


def change_agreement(rounds: dict[str, list[Validation]]) -> tuple[list[ChangeAgreement], str]:
    """One for each policy but FIFO and each metric; and why none is adjusted for the host's speed, where that is so.

    ``rounds``: as ``repeats`` gives them; the n-th run of a policy ran beside the n-th of the others. Empty without
    FIFO.
    """
    if BASELINE not in rounds or len(rounds) < 2:
        return [], ""
    whole = {policy: sorted(group, key=_began) for policy, group in rounds.items()}
    speeds, why = _speeds(whole)
    agreements = []
    for metric, stat in EFFECTS:
        errors = {
            policy: _ratios([run.simulated for run in group], [run.recorded for run in group], metric, stat)
            for policy, group in whole.items()
        }
        if all(np.isfinite(logs).all() for logs in errors.values()):
            found = change_differences(errors, speeds)
            agreements += [ChangeAgreement(policy, metric, stat, one) for policy, one in found.items()]
    return agreements, why


def _began(validation: Validation) -> str:
    return validation.recorded.header.captured_at or ""


def _speeds(rounds: dict[str, list[Validation]]) -> tuple[dict[str, np.ndarray], str]:
    """The log scale of the host during each run; none, and why, where that cannot be told."""
    found = host_speeds([Run(run.name, run.recorded) for group in rounds.values() for run in group])
    if not found.logs:
        return {}, found.why
    logs = iter(found.logs)
    return {policy: np.array([next(logs) for _ in group]) for policy, group in rounds.items()}, ""


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
        """Whether the signs are the same; None where either change may be noise: its interval includes 0."""
        if self.measured.spans_zero or self.simulated.spans_zero:
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
