"""Is the simulated change of a policy the measured one? An equivalence test of the change, against a fixed margin.

What is tested is the difference of the two changes against FIFO, on a log scale. That a simulation differs from reality
is the hypothesis to be refuted: two one-sided tests (Schuirmann 1987) call a change equivalent where the 90 % interval
of the difference lies inside the margin. Few or noisy runs then prove nothing, instead of proving agreement.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from driftsim.contrasts import Contrast, adjusted, paired
from driftsim.scheduling.policies import BASELINE
from driftsim.statistics import LEVEL, Interval, student_quantile

# The same for every metric, whatever the runs say: where a simulated change is off by less than 10 %, every policy that
# gains or loses more than that against FIFO in reality does so in the simulation as well. Smaller effects are not what
# anybody changes a scheduler for.
MARGIN = math.log(1.10)
BOTH_SIDES = 2 * LEVEL - 1  # the interval whose ends are two one-sided tests of 5 % each
POWER = 0.8  # with which the rounds that are asked for would decide, if the difference is as estimated
MOST_ROUNDS = 1000

Verdict = Literal["equivalent", "different", "undetermined"]


@dataclass(frozen=True, slots=True)
class Judgement:
    """``reason``: what an undetermined verdict lacks. ``more``: rounds that would decide; 0 where it is decided, or no
    number of rounds would."""

    verdict: Verdict
    reason: str = ""
    more: int = 0


@dataclass(frozen=True, slots=True)
class ChangeDifference:
    """Simulated over measured change of one metric under one policy, relative, each with its 90 % interval.

    ``adjusted``: at one speed of the host; NaN where that is not known. ``paired``: as measured, round by round. The
    ``judgement`` is on the adjusted one, or else on the paired one, as ``as_measured`` always is.
    """

    paired: Interval
    adjusted: Interval
    slope: float  # of the log error in the log scale of the host; NaN where it is not known
    explained: float  # share of the errors' variance within policies that the scale explains; likewise
    rounds: int
    judgement: Judgement
    as_measured: Judgement

    @property
    def judged(self) -> Interval:
        """The difference that the verdict is on."""
        return self.paired if math.isnan(self.adjusted.value) else self.adjusted


def change_differences(
    errors: Mapping[str, np.ndarray], speeds: Mapping[str, np.ndarray] | None = None
) -> dict[str, ChangeDifference]:
    """For each policy but FIFO. ``errors``: the logs of simulated over measured of each policy, round by round.

    The error of a policy less the error of FIFO is the simulated change less the measured one. ``speeds``: the log
    scale of the host during the same runs. A factor that all policies share cancels out.
    """
    at_one_speed = adjusted(errors, speeds, BASELINE) if speeds else None
    found = {}
    for policy, own in errors.items():
        if policy == BASELINE:
            continue
        round_by_round = paired(own, errors[BASELINE])
        rounds = round_by_round.freedom + 1
        freely = at_one_speed.contrasts[policy] if at_one_speed else None
        as_measured = judge(round_by_round, rounds)
        found[policy] = ChangeDifference(
            paired=round_by_round.relative(BOTH_SIDES),
            adjusted=freely.relative(BOTH_SIDES) if freely else Interval(math.nan, math.nan, math.nan),
            slope=at_one_speed.slope.value if at_one_speed else math.nan,
            explained=at_one_speed.explained if at_one_speed else math.nan,
            rounds=rounds,
            judgement=judge(freely, rounds, len(errors)) if freely else as_measured,
            as_measured=as_measured,
        )
    return found


def judge(difference: Contrast, rounds: int, a_round: int = 1, margin: float = MARGIN) -> Judgement:
    """Whether ``difference`` lies inside ``margin``, outside it, or cannot be told, with the rounds that would tell.

    ``a_round``: degrees of freedom that another round brings. Each claim, of equivalence where the true difference is
    the margin or more, and of a difference where it is the margin or less, is false in at most 5 %.
    """
    if difference.freedom < 1 or not math.isfinite(difference.value):
        return Judgement("undetermined", "an interval needs at least 2 rounds")
    value, low, high = difference.interval(BOTH_SIDES)
    if max(-low, high) < margin:
        return Judgement("equivalent")
    if low > margin or high < -margin:
        return Judgement("different")
    differ = "whether they differ " if low <= 0 <= high else "the changes differ; whether "
    reason = f"{differ}by more than a factor of {math.exp(margin):.2f} cannot be told"
    more = _more_rounds(difference, rounds, a_round, abs(margin - abs(value)))
    if not more:
        return Judgement("undetermined", f"{reason}: the difference is near the margin, more rounds may not decide")
    return Judgement("undetermined", f"{reason}; about {more} more rounds would tell", more)


def _more_rounds(difference: Contrast, rounds: int, a_round: int, room: float) -> int:
    """Rounds beyond these with which the interval would lie on one side of the margin, with ``POWER``; 0 if too many.

    ``room``: how far the difference is from the margin.
    """

    def decides(count: int) -> bool:
        freedom = difference.freedom + a_round * (count - rounds)
        reach = student_quantile(freedom, BOTH_SIDES) + student_quantile(freedom, 2 * POWER - 1)
        return reach * difference.error * math.sqrt(rounds / count) <= room

    most = rounds + MOST_ROUNDS
    return _first(decides, rounds + 1, most) - rounds if decides(most) else 0


def _first(holds: Callable[[int], bool], low: int, high: int) -> int:
    """The least number from ``low`` to ``high`` for which ``holds``, which does from there on."""
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low
