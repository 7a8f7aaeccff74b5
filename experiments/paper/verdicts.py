"""Whether each claim holds: its interval spans the workload seeds and every length model that was tried.

The paper does not publish how long its answers were, so the length model is assumed, and what it is moves a figure
more than the seeds do. Nobody has weights for the assumptions, so there is no mixture to take quantiles of: the
interval is the hull of the assumptions' own 95 % intervals. Whichever of them is true, it covers with 95 % at least.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import pandas as pd

from driftsim.statistics import Interval
from experiments.paper.claims import CLAIMS, Claim, Reading
from experiments.paper.sensitivity import AS_CAPTURED, ASSUMPTIONS, table

CLOSE = 0.05  # how far log((1 + ours) / (1 + paper)) may be from 0: alike for -16 % and for -42 %
Answer = Literal["yes", "no", "undetermined"]
Verdict = Literal["yes", "direction only", "undetermined", "no"]
RULE = (
    "*Ours*: mean and 95 % interval over the seeds, with the lengths as captured. *Over lengths*: from the lowest to "
    "the highest end of such intervals over the length models that were tried "
    f"({', '.join((AS_CAPTURED, *ASSUMPTIONS))}); whichever of them is true, it covers with 95 % at least. Verdicts go "
    "by it. *Direction*: whether it lies on the claim's side of 0 (of one half, for the share). *yes*: it does, and "
    f"where the paper has a number, |log((1 + ours) / (1 + paper))| is at most {CLOSE:g} throughout. *direction only*: "
    "it does, and that is more throughout. *undetermined*: the interval spans a threshold. *no*: it lies on the other "
    "side."
)


def band(paper: float) -> tuple[float, float]:
    """The changes that count as the paper's number.

    >>> [round(end, 3) for end in band(-0.42)], [round(end, 3) for end in band(-0.16)]
    ([-0.448, -0.39], [-0.201, -0.117])
    """
    return (1 + paper) * math.exp(-CLOSE) - 1, (1 + paper) * math.exp(CLOSE) - 1


def hull(intervals: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """From the lowest to the highest end; none (NaN) if one of them has none."""
    ends = [end for interval in intervals for end in interval]
    return (math.nan, math.nan) if any(map(math.isnan, ends)) else (min(ends), max(ends))


def direction(low: float, high: float, sign: int, level: float = 0.0) -> Answer:
    """Whether the interval lies on the side of ``level`` to which ``sign`` points; undetermined without an interval."""
    near, far = sorted((sign * (low - level), sign * (high - level)))
    return "yes" if near > 0 else "no" if far < 0 else "undetermined"


def size(paper: float, low: float, high: float) -> Answer:
    """Whether the interval lies within the tolerance of the paper's number; undetermined without an interval."""
    least, most = band(paper)
    if least <= low and high <= most:
        return "yes"
    return "no" if high < least or low > most else "undetermined"


def verdict(towards: Answer, as_large: Answer | None) -> Verdict:
    """The verdict of a claim from its direction and its size (None: the paper has no number)."""
    if towards != "yes" or as_large is None:
        return towards
    return "direction only" if as_large == "no" else as_large


def judged(claim: Claim, reading: Reading, means: pd.DataFrame) -> dict[str, Any]:
    """One reading: value, intervals and answers, from the rows of ``sensitivity.table``."""
    mine = means[(means["claim"] == claim.name) & (means["reading"] == reading.name)].set_index("assumption")
    ours = Interval(*(float(mine[name][AS_CAPTURED]) for name in ("ours", "low", "high")))
    low, high = hull(list(zip(mine["low"], mine["high"], strict=True)))
    sign = claim.sign if claim.paper is None else (1 if claim.paper > 0 else -1)
    towards = direction(low, high, sign, claim.level)
    as_large = None if claim.paper is None else size(claim.paper, low, high)
    return {
        "reading": reading.name, "ours": ours.value, "low": ours.low, "high": ours.high,
        "lengths_low": low, "lengths_high": high,
        "direction": towards, "size": as_large, "holds": verdict(towards, as_large),
    }  # fmt: skip


def claims(readings: pd.DataFrame) -> list[dict[str, Any]]:
    """Every claim with what its primary reading says, and its other readings beneath; changes are fractions."""
    means = table(readings)
    found = []
    for claim in CLAIMS:
        first, *others = (judged(claim, reading, means) for reading in claim.readings)
        found.append({"claim": claim.name, "paper": claim.paper, **first, "why": claim.why, "others": others})
    return found


def count(judged: Sequence[dict[str, Any]]) -> str:
    """How many claims hold, in a sentence.

    >>> count([{"holds": "yes", "direction": "yes"}, {"holds": "undetermined", "direction": "yes"}])
    'Of 2 claims 1 holds, 0 hold in direction only, 1 is undetermined, 0 do not hold; the direction is met in 2.'
    """
    kinds = [row["holds"] for row in judged]
    yes, part, open_, no = (kinds.count(kind) for kind in ("yes", "direction only", "undetermined", "no"))

    def verb(number: int, one: str, more: str) -> str:
        return f"{number} {one if number == 1 else more}"

    met = sum(row["direction"] == "yes" for row in judged)
    return (
        f"Of {len(judged)} claims {verb(yes, 'holds', 'hold')}, {verb(part, 'holds', 'hold')} in direction only, "
        f"{verb(open_, 'is', 'are')} undetermined, {verb(no, 'does', 'do')} not hold; the direction is met in {met}."
    )
