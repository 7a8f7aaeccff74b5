"""An arrival process is a law of the times between requests."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, Self

import numpy as np
from pydantic import Field, JsonValue, model_validator

from driftsim.errors import InputError
from driftsim.records import Record
from driftsim.trace.header import Phase
from driftsim.workloads.kinds import ArrivalKind

MOST_SWITCHES = 10**7  # between the states of an MMPP
MOST_USERS = 10**6
SECONDS: dict[str, JsonValue] = {"unit": "s"}
USUAL: dict[str, dict[str, float]] = {  # what a kind of its own parameters has where nothing is said
    "mmpp": {"burst_factor": 4.0, "burst_s": 10.0, "calm_s": 50.0},
    "diurnal": {"amplitude": 0.5, "period_s": 86_400.0},
}


class Pace(Record):
    """The numbers of an arrival process; which of them mean something, its kind says: see ``Process``."""

    rate: float | None = Field(
        default=None, description="Requests a second, in the long run.", json_schema_extra={"unit": "requests/s"}
    )
    cv: float = Field(default=3.0, description="gamma: coefficient of variation of the gaps.")
    burst_factor: float | None = Field(
        default=None,
        description="mmpp: rate in a burst over the long-run one [4], at most (burst_s + calm_s) / burst_s.",
    )
    burst_s: float | None = Field(
        default=None, description="mmpp: mean length of a burst [10].", json_schema_extra=SECONDS
    )
    calm_s: float | None = Field(
        default=None, description="mmpp: mean time between bursts [50].", json_schema_extra=SECONDS
    )
    amplitude: float | None = Field(
        default=None, description="diurnal: how far the rate swings, as a share of its mean, 0 to below 1 [0.5]."
    )
    period_s: float | None = Field(
        default=None, description="diurnal: one swing up and down [86400].", json_schema_extra=SECONDS
    )
    users: int | None = Field(default=None, description="closed: users who each wait for an answer.")
    think_s: float = Field(
        default=0.0, description="closed: time from an answer to the user's next request.", json_schema_extra=SECONDS
    )
    max_outstanding: int | None = Field(
        default=None,
        description="Most requests that clients have out at once, at any rate; the others wait at the client, unseen.",
        json_schema_extra={"unit": "requests"},
    )

    @model_validator(mode="before")
    @classmethod
    def _with_what_is_usual(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        usual = USUAL.get(str(values.get("kind")), {})
        return values | {name: value for name, value in usual.items() if values.get(name) is None}


class Process(Pace):
    """How requests arrive; all but ``closed`` and ``backlog`` at ``rate`` requests a second in the long run.

    ``poisson``. ``uniform``: gaps of 0.5 to 1.5 of the mean. ``gamma``: gaps with the coefficient of variation ``cv``.
    ``mmpp``: bursts (Fischer and Meier-Hellstern 1993, two states): Poisson arrivals at ``burst_factor`` times the
    long-run rate in the burst state, and at what is left in the calm state; the states last an exponential time each,
    ``burst_s`` and ``calm_s`` in the mean. ``diurnal``: Poisson arrivals whose rate swings by ``amplitude`` around its
    mean, once in ``period_s``: ``rate * (1 + amplitude * sin(2 pi t / period_s))``.
    ``closed``: each of ``users`` waits for an answer and ``think_s`` before the next request. ``backlog``: all at once.
    With ``max_outstanding``, arrivals at a rate are held back while so many requests are out.

    >>> Process(kind="mmpp", rate=2.0).burst_factor
    4.0
    >>> Process(kind="poisson")
    Traceback (most recent call last):
    driftsim.errors.InputError: poisson arrivals need a rate above 0 (and below 1e9 requests/s), got None
    """

    kind: ArrivalKind = Field(description="The law of the arrivals.")

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        kind, rate = self.kind, self.rate
        paced = kind not in ("closed", "backlog")
        if paced and (rate is None or not 0 < rate < 1e9):
            raise InputError(f"{kind} arrivals need a rate above 0 (and below 1e9 requests/s), got {rate}")
        if not paced and rate is not None:
            raise InputError(f"{kind} arrivals need no rate, got {rate}; leave it out")
        if kind == "closed" and (self.users is None or not 1 <= self.users <= MOST_USERS):
            raise InputError(f"closed arrivals need at least 1 user (and at most {MOST_USERS:,}), got {self.users}")
        if kind != "closed" and self.users is not None:
            raise InputError(f"{kind} arrivals need no users, got {self.users}; leave them out")
        if self.max_outstanding is not None and not (paced and 1 <= self.max_outstanding <= MOST_USERS):
            what = "1 or more" if paced else f"for arrivals at a rate, not for {kind} ones"
            raise InputError(f"max_outstanding must be {what}, got {self.max_outstanding}")
        if not self.cv > 0 or not self.think_s >= 0:
            raise InputError(f"cv must be above 0 and the think time not negative, got {self.cv} and {self.think_s}")
        for owner, names in USUAL.items():
            foreign = [name for name in names if kind != owner and getattr(self, name) is not None]
            if foreign:
                raise InputError(f"{foreign[0]} belongs to {owner} arrivals, not to {kind} ones; leave it out")
        {"mmpp": self._check_bursts, "diurnal": self._check_swing}.get(kind, lambda: None)()
        return self

    def _check_bursts(self) -> None:
        factor, burst, calm = self._bursts
        if not (0 < burst < 1e9 and 0 < calm < 1e9):
            raise InputError(f"burst_s and calm_s must be above 0 and below 1e9 s, got {burst:g} and {calm:g}")
        largest = (burst + calm) / burst
        if not 1 <= factor <= largest:
            raise InputError(
                f"burst_factor must be 1 to {largest:g}, got {factor:g}: a burst lasts {burst:g} s of "
                f"{burst + calm:g}, and the calm rate cannot be below 0; lower burst_factor, or burst_s"
            )

    def _check_swing(self) -> None:
        amplitude, period = self._swing
        if not 0 <= amplitude < 1 or not 0 < period <= 1e9:
            raise InputError(
                f"diurnal arrivals need an amplitude of 0 to below 1 and a period_s above 0 (at most 1e9), "
                f"got {amplitude:g} and {period:g}"
            )

    @property
    def _bursts(self) -> tuple[float, float, float]:
        assert self.burst_factor is not None
        assert self.burst_s is not None
        assert self.calm_s is not None
        return self.burst_factor, self.burst_s, self.calm_s

    @property
    def _swing(self) -> tuple[float, float]:
        assert self.amplitude is not None
        assert self.period_s is not None
        return self.amplitude, self.period_s

    def phase(self, requests: int) -> Phase:
        """The one phase of ``requests`` that arrive so."""
        kind: Literal["open", "closed", "capped", "backlog"] = "open" if self.max_outstanding is None else "capped"
        if self.kind == "closed" or self.kind == "backlog":
            kind = self.kind
        users = self.users or self.max_outstanding or 0
        return Phase(name=self.kind, kind=kind, requests=requests, users=users, think_s=self.think_s)

    def offsets(self, count: int, random: np.random.Generator) -> np.ndarray:
        """Arrival times of ``count`` requests, seconds since the phase began; zeros where nothing paces them.

        An open phase begins in its long-run state, an MMPP in a burst with the probability of one. Poisson arrivals at
        a rate that varies are those at rate 1, at the times at which the integrated rate reaches theirs (Cinlar 1975),
        so that the same ``random`` moves each arrival only as far as the rate says.

        With ``r = 1 / burst_s + 1 / calm_s`` and ``p = burst_s / (burst_s + calm_s)``, an MMPP's count in ``t`` seconds
        has the mean ``rate * t`` and the variance, over that mean, ``1 + I * (1 - (1 - exp(-r t)) / (r t))``, where
        ``I = 2 * p * (1 - p) * (burst rate - calm rate)**2 / (rate * r)`` (Fischer and Meier-Hellstern 1993). Its
        gaps are correlated, each from a mixture of two exponentials.

        >>> Process(kind="uniform", rate=10.0).offsets(3, np.random.default_rng(0)).round(2)
        array([0.11, 0.19, 0.24])
        """
        if self.rate is None:
            return np.zeros(count)
        draws: dict[str, Callable[[], np.ndarray]] = {
            "poisson": lambda: random.exponential(1.0, count),
            "uniform": lambda: random.uniform(0.5, 1.5, count),
            "gamma": lambda: random.gamma(1 / self.cv**2, self.cv**2, count),
        }
        expected = np.cumsum(draws.get(self.kind, draws["poisson"])())  # the integrated rate at each arrival
        if self.kind == "mmpp":
            return self._in_bursts(expected, random)
        if self.kind == "diurnal":
            return self._in_days(expected)
        return np.asarray(expected / self.rate)

    def _in_bursts(self, expected: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """When the integrated rate of a path of the two states is ``expected``, ascending."""
        assert self.rate is not None
        factor, burst, calm = self._bursts
        if len(expected) / self.rate / (burst + calm) > MOST_SWITCHES / 2:
            raise InputError(
                f"{len(expected)} requests see more than {MOST_SWITCHES:,} switches between burst and calm; "
                "lengthen burst_s and calm_s, or take Poisson arrivals, which these come to"
            )
        share = burst / (burst + calm)
        # (mean time, rate) of the state in which the path begins, and of the other.
        states = [(burst, factor * self.rate), (calm, max(0.0, self.rate * (1 - share * factor) / (1 - share)))]
        if random.random() >= share:
            states.reverse()
        lasting, rates = np.array(states).T
        times, areas = [np.zeros(1)], [np.zeros(1)]
        while areas[-1][-1] <= expected[-1]:
            left = (expected[-1] - areas[-1][-1]) / self.rate / (burst + calm)
            stays = random.standard_exponential((math.ceil(1.1 * left) + 8, 2)) * lasting
            times.append(times[-1][-1] + np.cumsum(stays))
            areas.append(areas[-1][-1] + np.cumsum(stays * rates))
        return np.asarray(np.interp(expected, np.concatenate(areas), np.concatenate(times)))

    def _in_days(self, expected: np.ndarray) -> np.ndarray:
        """When the integrated rate ``rate * (t + a P / 2 pi * (1 - cos(2 pi t / P)))`` is ``expected``.

        That is Kepler's equation with the eccentricity ``a``; halving the interval in which ``t`` must lie takes it to
        the last bit.
        """
        assert self.rate is not None
        amplitude, period = self._swing
        mean = expected / self.rate  # when it would be with no swing
        anomaly = 2 * np.pi * ((mean / period) % 1.0) + np.pi / 2 - amplitude
        low, high = np.full(len(mean), -amplitude), np.full(len(mean), amplitude)
        for _ in range(54):
            middle = (low + high) / 2
            late = middle > amplitude * np.sin(anomaly + middle)
            high, low = np.where(late, middle, high), np.where(late, low, middle)
        return np.asarray(np.maximum(0.0, mean + (low - amplitude) * period / (2 * np.pi)))
