"""The noise that a fit of steps leaves, found so that means of successive steps vary as they do in the residuals.

Variances of block means, at lengths from one step to a tenth of the run, are matched by a fast and a slow part, where
one part is not enough (the method of moments; for wavelet variances in place of those of means: Guerrier, Skaloud,
Stebler and Victoria-Feser 2013). The fit of the step times has taken some of the slow noise for step time: how much, is
known for any noise, and is put back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares

from driftsim.calibration.residuals import Residuals, moves_together, within_runs
from driftsim.latency.noise import Noise, autoregressive_variance

FEWEST = 400  # steps of the longest run, below which nothing slow can be told
EXACT = 1e-3  # spread of steps, below which there is no noise to speak of; of means, accordingly
LENGTHS = 14  # of blocks
BLOCKS = 10  # of the longest length, in a run
CAP = 10.0  # blocks of a length that count: more would let single steps outvote the long blocks
ROUNDS = 3  # of putting back what the fit takes
MORE = 1.0  # standard deviations by which means must vary more than one part lets them; the second part costs little
FAST, SLOW = 60.0, 20.0  # steps that the fast part lasts at most, and the slow part at least
SLOWEST = 1 / 6  # of a run, that the slow part lasts at most: beyond that it is a run's own
STARTS = ((1.0, 30.0), (5.0, 300.0), (20.0, 1000.0))  # steps that the parts last, from where the search begins
MOST = 3.0  # spread
SINGLE = 3.0  # times the weight of single steps, whose spread is known best
MOST_BLOCKS = 4000  # of a run, that tell what a fit takes
NOTHING = 0.01  # of the fast part's spread, below which there is no slow part
LEAST_LEFT = 0.2  # share of a variance that a fit leaves, below which it is not trusted to say how much it took


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
    noise = _two_parts(moments) if _varies_more(moments, single) else single
    if noise.slow_spread < NOTHING * noise.spread:
        return single
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

    left: Residuals
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
        share = steps / steps.sum(axis=1, keepdims=True)
        seen = _over_blocks(left.runs(left.logs[:, None]), lengths, share, _square)
        return cls(left, lengths, runs, np.maximum(seen, EXACT**2 / lengths), share)

    @property
    def steps(self) -> np.ndarray:
        """How many steps each of the variances is from."""
        return np.asarray(((self.share > 0) * self.runs).sum(axis=1))

    def implied(self, parts: Sequence[tuple[float, float]]) -> np.ndarray:
        """The variances where noise has ``parts``, each a spread and an autocorrelation."""
        means = sum(autoregressive_variance(*part, self.lengths) for part in parts)
        return np.asarray(means - self.share @ sum(autoregressive_variance(*part, self.runs) for part in parts))

    def left_over(self, noise: Noise) -> np.ndarray:
        """The share of them that a fit leaves of ``noise``: less than 1, since it takes noise for step time.

        A block's mean is m'e of the logarithms e, and the fit leaves m'(e - D K e), with the design D and the gain K.
        The variance of that is m'Cm - 2 m'D K C m + m'D (K C K') D'm.
        """
        size = self.left.design.shape[1]
        moved = moves_together(self.left, noise)
        covariance = within_runs(self.left, moved)
        both = [np.hstack(pair) for pair in zip(self.left.runs(self.left.design), moved, strict=True)]

        def taken(means: np.ndarray) -> float:
            terms, moved = means[:, :size], means[:, size:]
            return float(np.mean(2 * (terms * moved).sum(axis=1) - ((terms @ covariance) * terms).sum(axis=1)))

        whole = self.implied(_parts_of(noise))
        return np.asarray(
            np.maximum(1 - _over_blocks(both, self.lengths, self.share, taken, MOST_BLOCKS) / whole, LEAST_LEFT)
        )


def _over_blocks(
    runs: Sequence[np.ndarray],
    lengths: np.ndarray,
    share: np.ndarray,
    measure: Callable[[np.ndarray], float],
    most: int | None = None,
) -> np.ndarray:
    """A ``measure`` of the means of overlapping blocks, (blocks, columns), less their run's mean; for each length.

    ``share``: what each run counts, (lengths, runs). ``most``: blocks of a run that are looked at, about.
    """
    found = np.zeros(len(lengths))
    for number, run in enumerate(runs):
        sums = np.vstack([np.zeros(run.shape[1]), np.cumsum(run - run.mean(axis=0), axis=0)])
        for place in np.flatnonzero(share[:, number]):
            length = lengths[place]
            stride = max(1, length // 4, len(run) // (most or len(run)))
            starts = np.arange(0, len(run) - length + 1, stride)
            found[place] += share[place, number] * measure((sums[starts + length] - sums[starts]) / length)
    return found


def _square(means: np.ndarray) -> float:
    return float(np.mean(means**2))


def _varies_more(moments: _Moments, single: Noise) -> bool:
    """Whether block means of some length vary more than those of ``single``, beyond what chance makes of them.

    The logarithm of a variance has the standard deviation of the square root of 2 over as many values as are
    independent: values of an autoregression are for as long as it lasts, and overlapping blocks for their length.
    """
    implied = moments.implied(_parts_of(single)) * moments.left_over(single)
    lasting = (1 + single.autocorrelation**2) / (1 - single.autocorrelation**2)
    deviation = np.sqrt(2 * (lasting + moments.lengths) / moments.steps)
    return bool((np.log(moments.seen / implied) > MORE * deviation).any())


def _two_parts(moments: _Moments) -> Noise:
    """A fast and a slow part whose block means, after a fit, vary as those of the residuals do."""
    size = float(np.log(moments.seen).max()) / 2
    point = _matched(moments, moments.seen, [(size, np.log(fast), size, np.log(slow)) for fast, slow in STARTS])
    for _ in range(ROUNDS):
        point = _matched(moments, moments.seen / moments.left_over(_noise_at(point)), [tuple(point)])
    return _noise_at(point)


def _matched(moments: _Moments, wanted: np.ndarray, starts: Sequence[tuple[float, ...]]) -> np.ndarray:
    """Where block means vary as ``wanted``, by least squares of the logarithms: see ``_parts_at`` for the place."""
    weight = np.sqrt(np.minimum(moments.steps / moments.lengths, CAP))
    weight[0] *= SINGLE
    logs = np.log(wanted)
    slowest = float(moments.runs.max()) * SLOWEST
    low = np.array([-12.0, -3.0, -12.0, np.log(SLOW)])
    high = np.log([MOST, min(FAST, slowest), MOST, slowest])

    def distance(point: np.ndarray) -> np.ndarray:
        return np.asarray(weight * (np.log(np.maximum(moments.implied(_parts_at(point)), 1e-300)) - logs))

    inside = [np.clip(start, low + 1e-6, high - 1e-6) for start in starts]
    found = [least_squares(distance, start, bounds=(low, high), max_nfev=60) for start in inside]
    return np.asarray(min(found, key=lambda one: float(one.cost)).x)


def _parts_of(noise: Noise) -> list[tuple[float, float]]:
    return [(noise.spread, noise.autocorrelation), (noise.slow_spread, noise.slow_autocorrelation)]


def _parts_at(point: np.ndarray) -> list[tuple[float, float]]:
    """Spread and autocorrelation of both parts; ``point``: logarithms of spread and duration (steps) of each."""
    return [(float(np.exp(point[at])), float(np.exp(-np.exp(-point[at + 1])))) for at in (0, 2)]


def _noise_at(point: np.ndarray) -> Noise:
    (spread, fast), (slow_spread, slow) = sorted(_parts_at(point), key=lambda part: part[1])
    return Noise(spread=spread, autocorrelation=fast, slow_spread=slow_spread, slow_autocorrelation=slow)
