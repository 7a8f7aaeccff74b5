"""The noise that a fit of steps leaves, found so that means of successive steps vary as they do in the residuals.

Variances of block means, at lengths from one step to a tenth of the run, are matched by a fast and a slow part, where
one part is not enough (the method of moments; for wavelet variances in place of those of means: Guerrier, Skaloud,
Stebler and Victoria-Feser 2013). The fit of the step times has taken some of the slow noise for step time. So noise is
drawn, fitted and looked at in the same way, and what that takes from it is put back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares

from driftsim.calibration.residuals import Residuals
from driftsim.latency.noise import Noise, autoregressive_variance

FEWEST = 400  # steps of the longest run, below which nothing slow can be told
EXACT = 1e-3  # spread, below which there is no noise to speak of
LENGTHS = 14  # of blocks
BLOCKS = 10  # of the longest length, in a run
CAP = 10.0  # blocks of a length that count: more would let single steps outvote the long blocks
ROUNDS = 2  # of putting back what the fit takes
DRAWS, MOST_DRAWN = 10, 400_000  # runs of noise that are drawn each time, and their steps in all
SURE = 3.0  # standard deviations by which means must vary more than one part lets them
FAST, SLOW = 60.0, 20.0  # steps that the fast part lasts at most, and the slow part at least
SLOWEST = 1 / 6  # of a run, that the slow part lasts at most: beyond that it is a run's own
STARTS = ((1.0, 30.0), (5.0, 300.0), (20.0, 1000.0))  # steps that the parts last, from where the search begins
MOST = 3.0  # spread


def fit_noise(left: Residuals, warnings: list[str]) -> Noise:
    """The noise of the residuals ``left``; what too short runs cannot tell is a warning."""
    single = _one_part(left)
    longest = max(left.lengths)
    if single.spread < EXACT:
        return single
    if longest < FEWEST:
        warnings.append(
            f"the longest run has {longest} steps, too few to tell whether step times are disturbed for long: step "
            f"noise is taken to be short-lived ({FEWEST} steps would tell), and intervals may be too narrow"
        )
        return single
    moments = _Moments.of(left)
    noise = _two_parts(left, moments) if _varies_more(left, moments, single) else single
    return noise.changed(run_spread=_run_spread(left, noise))


def _one_part(left: Residuals) -> Noise:
    """Spread and autocorrelation of the residuals within runs, and the spread of whole runs."""
    own = [run - run.mean() for run in left.runs(left.logs)]
    variance = float(np.concatenate(own).var())
    lagged = sum(float(run[1:] @ run[:-1]) for run in own) / max(1, sum(len(run) - 1 for run in own))
    correlation = float(np.clip(lagged / variance, 0.0, 0.999)) if variance > 0 else 0.0
    single = Noise(spread=min(MOST, variance**0.5), autocorrelation=correlation)
    return single.changed(run_spread=_run_spread(left, single))


def _run_spread(left: Residuals, noise: Noise) -> float:
    """The spread of whole runs beyond what ``noise`` within them makes; 0 for one run."""
    means = np.array([float(np.log(np.mean(np.exp(run)))) for run in left.runs(left.logs)])
    if len(means) < 2:
        return 0.0
    within = float(noise.variance_of_mean(left.lengths).mean())
    return float(min(MOST, max(0.0, float(means.var(ddof=1)) - within) ** 0.5))


@dataclass(frozen=True, eq=False)
class _Moments:
    """Variances of block means around the mean of their run, one for each of ``lengths`` (steps), over all ``runs``.

    ``share``: of each run in each of these variances, (lengths, runs).
    """

    lengths: np.ndarray
    runs: np.ndarray
    seen: np.ndarray
    share: np.ndarray

    @classmethod
    def of(cls, left: Residuals) -> _Moments:
        """The variances in the residuals ``left``."""
        runs = np.array(left.lengths, dtype=float)
        lengths = np.unique(np.geomspace(1, runs.max() / BLOCKS, LENGTHS).astype(int))
        steps = np.where(runs >= BLOCKS * lengths[:, None], runs, 0.0)
        seen = block_variances(left.runs(left.logs), lengths)
        return cls(lengths, runs, seen, steps / steps.sum(axis=1, keepdims=True))

    def weights(self) -> np.ndarray:
        """Of the logarithms of the variances: from the number of blocks, as far as it counts."""
        steps = ((self.share > 0) * self.runs).sum(axis=1)
        return np.asarray(np.sqrt(np.minimum(steps / self.lengths, CAP)))

    def implied(self, parts: Sequence[tuple[float, float]]) -> np.ndarray:
        """What the spreads and autocorrelations of ``parts`` imply."""
        means = sum(autoregressive_variance(*part, self.lengths) for part in parts)
        return np.asarray(means - self.share @ sum(autoregressive_variance(*part, self.runs) for part in parts))


def block_variances(runs: Sequence[np.ndarray], lengths: np.ndarray) -> np.ndarray:
    """The variance of the means of overlapping blocks around their run's mean, for each of ``lengths``.

    Only runs that hold ``BLOCKS`` of them count.
    """
    squares = np.zeros(len(lengths))
    steps = np.zeros(len(lengths))
    for run in runs:
        sums = np.concatenate([[0.0], np.cumsum(run - run.mean())])
        for place, length in enumerate(lengths):
            if len(run) < BLOCKS * length:
                continue
            starts = np.arange(0, len(run) - length + 1, max(1, length // 4))
            means = (sums[starts + length] - sums[starts]) / length
            squares[place] += len(run) * float(np.mean(means**2))
            steps[place] += len(run)
    return np.asarray(squares / steps)


def _drawn(left: Residuals, noise: Noise) -> list[np.ndarray]:
    """Logarithms of noise as long as the residuals, the same random numbers each time, so that rounds settle."""
    random = np.random.default_rng(0)
    count = max(3, min(DRAWS, MOST_DRAWN // len(left.logs)))
    return [left.drawn(noise, random) for _ in range(count)]


def _varies_more(left: Residuals, moments: _Moments, single: Noise) -> bool:
    """Whether block means of some length vary clearly more than in runs with ``single``, fitted likewise."""
    logs = np.log([block_variances(left.runs(left.refitted(one)), moments.lengths) for one in _drawn(left, single)])
    distance = np.log(moments.seen) - logs.mean(axis=0)
    return bool((distance > SURE * logs.std(axis=0, ddof=1)).any())


def _two_parts(left: Residuals, moments: _Moments) -> Noise:
    """A fast and a slow part whose block means, after a fit, vary as those of the residuals do."""
    size = float(np.log(moments.seen).max()) / 2
    point = _matched(moments, moments.seen, [(size, np.log(fast), size, np.log(slow)) for fast, slow in STARTS])
    for _ in range(ROUNDS):
        before, after = np.zeros(len(moments.lengths)), np.zeros(len(moments.lengths))
        for one in _drawn(left, _noise_at(point)):
            before += block_variances(left.runs(one), moments.lengths)
            after += block_variances(left.runs(left.refitted(one)), moments.lengths)
        point = _matched(moments, moments.seen * before / after, [tuple(point)])
    return _noise_at(point)


def _matched(moments: _Moments, wanted: np.ndarray, starts: Sequence[tuple[float, ...]]) -> np.ndarray:
    """Where block means vary as ``wanted``, by least squares of the logarithms: see ``_parts`` for the place."""
    weight, logs = moments.weights(), np.log(wanted)
    slowest = float(moments.runs.max()) * SLOWEST
    low = np.array([-12.0, -3.0, -12.0, np.log(SLOW)])
    high = np.log([MOST, min(FAST, slowest), MOST, slowest])

    def distance(point: np.ndarray) -> np.ndarray:
        return np.asarray(weight * (np.log(np.maximum(moments.implied(_parts(point)), 1e-300)) - logs))

    inside = [np.clip(start, low + 1e-6, high - 1e-6) for start in starts]
    found = [least_squares(distance, start, bounds=(low, high), max_nfev=60) for start in inside]
    return np.asarray(min(found, key=lambda one: float(one.cost)).x)


def _parts(point: np.ndarray) -> list[tuple[float, float]]:
    """Spread and autocorrelation of both parts; ``point``: logarithms of spread and duration (steps) of each."""
    return [(float(np.exp(point[at])), float(np.exp(-np.exp(-point[at + 1])))) for at in (0, 2)]


def _noise_at(point: np.ndarray) -> Noise:
    (spread, fast), (slow_spread, slow) = sorted(_parts(point), key=lambda part: part[1])
    return Noise(spread=spread, autocorrelation=fast, slow_spread=slow_spread, slow_autocorrelation=slow)
