"""A policy that goes by the distribution of an output's length: its mean, and its tail."""

from __future__ import annotations

import math
from collections import deque
from functools import cache
from typing import Annotated, NamedTuple

import numpy as np
from pydantic import Field

from driftsim.request import Job
from driftsim.scheduling.queues import Keyed

NU = 3.5  # degrees of freedom of the logarithm of a length
SEEN = 256  # errors of a category that count
FEWEST = 8  # of them, that tell a spread
DECAY_S = 30.0  # time in which a score falls by the factor ``decay``
PIECES = (
    0.0,
    0.5,
    0.9,
    0.99,
    0.999,
    0.9999,
    1.0,
)  # of the probability below the tail, and of the tail: denser to its end
NODES = 32  # of Gauss and Legendre, in each piece


class Spread(NamedTuple):
    """The length's logarithm is ``mu`` + ``sigma`` times Student's t."""

    mu: float
    sigma: float


class Tie(Keyed):
    """Tail inflated expectation: the smallest E[min(X, cap)] + β CVaR_α[min(X, cap)] first, for a log-t length X.

    ln X = μ + σ t with ν = 3.5. μ is the logarithm of the estimate and the median of the errors ln(o / ô) that
    estimates of this category had, the last 256; σ is by their quartiles, 0 before there are 8. The cap is
    ``max_tokens``. β = 0.1 q / batch, at least ``least``, at most ``most``, for q who wait when the job comes. A score
    falls by the factor ``decay`` in 30 s of waiting, so nobody waits for ever; all fall alike, so the stored key is
    ln score + arrival x ln(1 / decay) / 30 s. Both integrals are sums over fixed quantiles, so the same jobs get the
    same bytes. Source: Zheng et al., ICML 2026, arXiv 2604.00499 (abstract read), equations 11 and 12 by its code,
    Hyzheng-code/TIE: ua_predictor.py and request_queue.py (read); there a network predicts μ and σ, 10,000 unseeded
    samples make a score, so that keys differ from run to run, and the caps are 2028 and 2048. Trap: the mean of a
    log-t length is infinite, so the cap decides; with exact estimates it is shortest output first.
    """

    not_static = "the weight of its tail follows how many wait"

    def __init__(
        self,
        *,
        alpha: Annotated[float, Field(gt=0, lt=1, description="Share of the outputs that are not in the tail.")] = 0.9,
        least: Annotated[float, Field(ge=0, description="Least weight of the tail.")] = 0.1,
        most: Annotated[float, Field(ge=0, description="Greatest weight of the tail.")] = 0.5,
        batch: Annotated[
            int,
            Field(ge=1, description="Ten times so many have the weight 1.", json_schema_extra={"unit": "requests"}),
        ] = 32,
        decay: Annotated[
            float, Field(gt=0, le=1, description="Factor of the score in each 30 s of waiting; 1: it stays.")
        ] = 0.9,
    ) -> None:  # fmt: skip
        super().__init__()
        self._alpha, self._least, self._most, self._batch = alpha, least, most, batch
        self._aging = -math.log(decay) / DECAY_S
        self._errors: dict[str, deque[float]] = {}
        self._spreads: dict[str, Spread] = {}  # of the errors, by category

    def key(self, job: Job) -> float:
        """The logarithm of the score, with its decay."""
        error = self._spreads.get(job.predicted_category, Spread(0.0, 0.0))
        length = Spread(math.log(max(1, job.estimate)) + error.mu, error.sigma)
        beta = max(self._least, min(self._most, 0.1 * len(self) / self._batch))
        return math.log(score(length, job.request.max_tokens, self._alpha, beta)) + job.request.arrival * self._aging

    def served(self, job: Job, tokens: int | None, now: float) -> None:
        """Learn how far off the estimate was with which the job came."""
        if tokens:
            own = self._errors.setdefault(job.predicted_category, deque(maxlen=SEEN))
            own.append(math.log(tokens / max(1, job.first_estimate)))
            if len(own) >= FEWEST:
                self._spreads[job.predicted_category] = spread_of(np.array(own))


def score(length: Spread, cap: float, alpha: float, beta: float) -> float:
    """E[min(X, cap)] + beta CVaR_alpha[min(X, cap)], in tokens, by a fixed rule: 192 quantiles below alpha, 192 above.

    >>> round(score(Spread(math.log(100), 0.0), 2048, 0.9, 0.5), 6)
    150.0
    """
    below, above, weights = _quantiles(alpha)
    body, tail = (
        float(np.minimum(np.exp(np.minimum(length.mu + length.sigma * at, math.log(cap))), cap) @ weights)
        for at in (below, above)
    )
    return alpha * body + (1 - alpha + beta) * tail


def spread_of(logs: np.ndarray) -> Spread:
    """The log-t law with the median and the quartiles of ``logs``, logarithms of lengths or of their ratios."""
    low, middle, high = np.quantile(logs, [0.25, 0.5, 0.75])
    return Spread(float(middle), float(high - low) / (2 * _quartile()))


@cache
def _quartile() -> float:
    from scipy.special import stdtrit

    return float(stdtrit(NU, 0.75))


@cache
def _quantiles(alpha: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Quantiles of Student's t at the nodes below ``alpha`` and above it, and the nodes' weights, which sum to 1."""
    from scipy.special import stdtrit

    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    low, high = np.array(PIECES[:-1])[:, None], np.array(PIECES[1:])[:, None]
    at = (low + (high - low) * (nodes + 1) / 2).ravel()
    shares = ((high - low) * weights / 2).ravel()
    # Below alpha the dense end lies at 0: there the quantile runs away as well.
    return stdtrit(NU, alpha * (1 - at)), stdtrit(NU, alpha + (1 - alpha) * at), shares
