"""Ranks with intervals: who is surely better than whom, over the workloads of the league.

A score is the logarithm of a latency over FIFO's on the same draw, or the share of requests within their SLO less
FIFO's, the mean over the loads. Of two entrants each workload gives a paired difference with its standard error: of the
draws, or of a recorded day and its resamples (``over_days``). The workloads count alike and are independent; degrees of
freedom are Satterthwaite's. The rank of an entrant lies between one more than how many are surely better, and as many
as are not surely worse: at 95 % for each pair, not for all pairs together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from driftsim.statistics import LEVEL


@dataclass(frozen=True, eq=False)
class Scores:
    """The scores of one workload, smaller being better: (entrants, replications), and the kind of each replication."""

    kinds: Sequence[str]
    values: np.ndarray


@dataclass(frozen=True, eq=False)
class Differences:
    """Of every entrant less every other one, (entrants, entrants): the mean, and half of its interval."""

    value: np.ndarray
    half: np.ndarray

    @property
    def better(self) -> np.ndarray:
        """Whether the entrant of the row is surely better than that of the column."""
        found: np.ndarray = self.value + self.half < 0
        return found


def differences(workloads: Mapping[str, Scores]) -> Differences:
    """The mean differences over ``workloads``, each with half of its 95 % interval."""
    values, squares, fourths = [], [], []
    for scores in workloads.values():
        apart = scores.values[:, None, :] - scores.values[None, :, :]
        centre, error, freedom = _of_one(scores.kinds, apart)
        values.append(centre)
        squares.append(error**2)
        fourths.append(error**4 / freedom)
    count = len(values)
    total = np.sum(squares, axis=0)
    known = (total > 0) & np.isfinite(total)
    freedom = np.divide(total**2, np.sum(fourths, axis=0), out=np.ones_like(total), where=known)
    half = stats.t.ppf((1 + LEVEL) / 2, freedom) * np.sqrt(total) / count
    return Differences(np.mean(values, axis=0), np.where(total > 0, half, 0.0))


def _of_one(kinds: Sequence[str], apart: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Mean, standard error and degrees of freedom over the last axis; the error of a single replication is infinite."""
    if "drawn" in kinds:
        count = apart.shape[-1]
        error = apart.std(axis=-1, ddof=1) / np.sqrt(count) if count > 1 else np.full(apart.shape[:-1], np.inf)
        return apart.mean(axis=-1), error, max(1, count - 1)
    local, circular = (apart[..., [one == kind for one in kinds]] for kind in ("local", "circular"))
    count = local.shape[-1]
    if count < 2:
        return apart[..., 0], np.full(apart.shape[:-1], np.inf), 1
    error = np.maximum(local.std(axis=-1, ddof=1), circular.std(axis=-1, ddof=1))
    return local.mean(axis=-1), error, count - 1


@dataclass(frozen=True, eq=False)
class Ranks:
    """Of each entrant: its rank by score, the lowest and highest that its interval allows, whether it ties the best."""

    rank: np.ndarray
    lowest: np.ndarray
    highest: np.ndarray
    tied: np.ndarray


def ranks_of(found: Differences) -> Ranks:
    """The ranks that ``found`` gives; entrants of equal scores share a rank.

    >>> value = np.array([[0.0, -0.3, -0.4], [0.3, 0.0, -0.1], [0.4, 0.1, 0.0]])
    >>> ranks = ranks_of(Differences(value, np.full((3, 3), 0.2)))
    >>> ranks.rank.tolist(), ranks.lowest.tolist(), ranks.highest.tolist(), ranks.tied.tolist()
    ([1, 2, 3], [1, 2, 2], [1, 3, 3], [True, False, False])
    """
    score, better = found.value[:, 0], found.better
    rank = 1 + (score[None, :] < score[:, None] - 1e-12).sum(axis=1)
    best = int(np.argmin(score))
    return Ranks(rank, 1 + better.sum(axis=0), len(score) - better.sum(axis=1), ~better[best])
