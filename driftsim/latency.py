"""How long a step of the engine takes, and the profile that says so for one GPU, model and engine.

Inside a simulated engine time is an integer number of picoseconds (ticks): coefficients are rounded to it once, and
from there on everything is exact. Seconds as floats exist only at the border.
"""

from __future__ import annotations

import hashlib
import json
import math
from bisect import bisect_left
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from pydantic import Field, ValidationError

from driftsim.trace import EngineSettings, Record, first_problem

TICKS_PER_SECOND = 10**12
LONGEST_STEP_S = 1e4  # of a profile's coefficients


def ticks(seconds: float) -> int:
    """Seconds to ticks, rounded once."""
    return round(seconds * TICKS_PER_SECOND)


@dataclass(slots=True)
class Batch:
    """What one step computes; the names and meanings are those of the trace's steps table."""

    prefill_tokens: int = 0
    prefill_requests: int = 0
    prefill_attention: float = 0.0
    decode_requests: int = 0
    context_tokens: int = 0


class StepTime(Protocol):
    """A step-time model; durations are ticks."""

    def step(self, batch: Batch) -> int:
        """The duration of the next step, which counts as taken."""
        ...

    def decode_run(self, batch: Batch, n: int) -> int:
        """The duration of the next ``n`` steps, if they begin with ``batch`` and in them only contexts grow."""
        ...

    def decode_steps(self, batch: Batch, elapsed: int, gap: int) -> int:
        """The least n >= 1 for which ``n`` such steps, each followed by ``gap``, last ``elapsed`` or longer."""
        ...


@dataclass(frozen=True, slots=True)
class LinearStepTime:
    """``intercept + prefill tokens + decode requests + context tokens``, each times its coefficient, in ticks.

    With ``hidden_tokens``, only the tokens beyond so many cost ``prefill_token``, a decoding request being one token:
    the others are computed while the GPU reads the weights (the roofline of Williams, Waterman and Patterson 2009).
    ``prefill_step`` is added once to a step that prefills, ``prefill_attention`` times its attention work. Decode
    batches are padded to the next of ``graph_sizes``, as vLLM pads them to the sizes of its CUDA graphs
    (vllm/config/compilation.py); none: no padding.
    """

    intercept: int
    prefill_token: int
    decode_request: int
    context_token: int
    prefill_attention: int = 0
    prefill_step: int = 0
    hidden_tokens: int = 0
    graph_sizes: tuple[int, ...] = ()
    plain: bool = field(init=False)  # nothing but the four linear terms

    def __post_init__(self) -> None:
        extra = self.prefill_attention or self.prefill_step or self.hidden_tokens or self.graph_sizes
        object.__setattr__(self, "plain", not extra)
        coefficients = (self.prefill_token, self.decode_request, self.context_token, self.prefill_attention)
        if self.intercept < 1 or min(*coefficients, self.prefill_step, self.hidden_tokens) < 0:
            raise ValueError(f"a step takes time: intercept above 0, nothing negative; got {self}")

    def step(self, batch: Batch) -> int:
        """The duration of one step."""
        if self.plain:
            return (
                self.intercept
                + self.prefill_token * batch.prefill_tokens
                + self.decode_request * batch.decode_requests
                + self.context_token * batch.context_tokens
            )
        duration = self._decode(batch)
        if batch.prefill_tokens:
            tokens = batch.prefill_tokens
            if self.hidden_tokens:  # the decodes' own share is in the duration already
                tokens -= min(tokens, max(0, self.hidden_tokens - batch.decode_requests))
            duration += self.prefill_step + self.prefill_token * tokens
            duration += round(self.prefill_attention * batch.prefill_attention)
        return duration

    def _decode(self, batch: Batch) -> int:
        size = batch.decode_requests
        if self.graph_sizes:
            size = padded(size, self.graph_sizes)
        duration = self.intercept + self.decode_request * size + self.context_token * batch.context_tokens
        if self.hidden_tokens and batch.decode_requests > self.hidden_tokens:
            duration += self.prefill_token * (batch.decode_requests - self.hidden_tokens)
        return duration

    def decode_run(self, batch: Batch, n: int) -> int:
        """``n`` steps; each decoding request's context grows by one token a step.

        >>> model = LinearStepTime(100, 7, 5, 1)
        >>> model.decode_run(Batch(decode_requests=2, context_tokens=10), 3)  # contexts 10, 12, 14
        366
        """
        size, per_token = batch.decode_requests, self.context_token
        if self.plain:
            first = self.intercept + self.decode_request * size + per_token * batch.context_tokens
        else:
            first = self._decode(batch)
        return n * first + per_token * size * (n * (n - 1) // 2)

    def decode_steps(self, batch: Batch, elapsed: int, gap: int) -> int:
        """The positive root of the quadratic in n, by floats, then put right by at most a step in integers.

        >>> model = LinearStepTime(100, 7, 5, 1)
        >>> [model.decode_steps(Batch(decode_requests=2, context_tokens=10), elapsed, 0) for elapsed in (0, 120, 121)]
        [1, 1, 2]
        """
        size, per_token = batch.decode_requests, self.context_token
        growth = per_token * size  # ticks a step gets longer by
        if self.plain:
            first = self.intercept + self.decode_request * size + per_token * batch.context_tokens + gap
        else:
            first = self._decode(batch) + gap
        if growth:
            slope = first - growth / 2
            n = int((math.sqrt(slope * slope + 2 * growth * elapsed) - slope) / growth) + 1
        else:
            n = -(-elapsed // first) or 1
        while n > 1 and (n - 1) * first + growth * ((n - 1) * (n - 2) // 2) >= elapsed:
            n -= 1
        while n * first + growth * (n * (n - 1) // 2) < elapsed:
            n += 1
        return n


def padded(size: int, graph_sizes: tuple[int, ...]) -> int:
    """The least of ``graph_sizes`` that holds ``size``; ``size`` itself beyond the largest, and 0.

    >>> [padded(size, (1, 2, 4, 8)) for size in (0, 1, 3, 8, 9)]
    [0, 1, 4, 8, 9]
    """
    place = bisect_left(graph_sizes, size)
    return graph_sizes[place] if size and place < len(graph_sizes) else size


NOISE_UNIT = 1 << 20  # a factor of 1


class NoisyStepTime:
    """A linear model whose n-th step takes a factor longer: log-normal with mean 1, autocorrelated (AR(1) in the log).

    The factors are drawn once, so a run of steps has one duration, however it is cut into parts: the sum over its steps
    is a difference of running totals.
    """

    def __init__(self, model: LinearStepTime, noise: Noise, random: np.random.Generator) -> None:
        self.model = model
        self.noise = noise
        self.random = random
        self._scale = float(np.exp(noise.run_spread * random.standard_normal() - noise.run_spread**2 / 2))
        self._last = float(random.standard_normal())
        self._next = 0  # steps taken
        self._sums = [0]  # of the factors before a step, in NOISE_UNIT
        self._moments = [0]  # of factor times number of the step

    def _extend(self, until: int) -> None:
        """Draw factors for the steps before ``until``, some thousands at once."""
        while len(self._sums) <= until:
            self._draw(8192)

    def _draw(self, count: int) -> None:
        from scipy.signal import lfilter

        have = len(self._sums) - 1
        noise, rho = self.noise, self.noise.autocorrelation
        drawn = self.random.standard_normal(count) * math.sqrt(1 - rho * rho)
        walk, _ = lfilter([1.0], [1.0, -rho], drawn, zi=[rho * self._last])
        self._last = float(walk[-1])
        factors = self._scale * np.exp(noise.spread * walk - noise.spread**2 / 2)
        units = np.maximum(1, np.rint(factors * NOISE_UNIT)).astype(np.int64)
        numbers = np.arange(have, have + count, dtype=np.int64)
        self._sums += (self._sums[-1] + np.cumsum(units)).tolist()
        self._moments += (self._moments[-1] + np.cumsum(units * numbers)).tolist()

    def step(self, batch: Batch) -> int:
        """The duration of the next step."""
        self._extend(self._next + 1)
        factor = self._sums[self._next + 1] - self._sums[self._next]
        self._next += 1
        return max(1, self.model.step(batch) * factor // NOISE_UNIT)

    def decode_run(self, batch: Batch, n: int) -> int:
        """The duration of the next ``n`` steps: a constant part and a growing one, each times its factors."""
        begin = self._next
        self._extend(begin + n)
        plain = self._sums[begin + n] - self._sums[begin]
        moment = self._moments[begin + n] - self._moments[begin] - begin * plain
        growth = self.model.context_token * batch.decode_requests
        return n + (self.model.decode_run(batch, 1) * plain + growth * moment) // NOISE_UNIT

    def decode_steps(self, batch: Batch, elapsed: int, gap: int) -> int:
        """By bisection, since durations only grow."""
        high = 1
        while self.decode_run(batch, high) + high * gap < elapsed:
            high *= 2
        low = high // 2 + 1 if high > 1 else 1
        while low < high:
            middle = (low + high) // 2
            if self.decode_run(batch, middle) + middle * gap < elapsed:
                low = middle + 1
            else:
                high = middle
        return high

    def taken(self, n: int) -> None:
        """The next ``n`` steps of a decode run have been taken."""
        self._next += n


class Region(Record):
    """How well a profile fits a part of what it was fitted to."""

    name: str
    rows: int  # steps, or requests where steps are not known
    mean_absolute_percentage_error: float
    bias: float  # sum of fitted over sum of recorded durations, minus 1


class Fit(Record):
    """How well a step-time model fits what it was fitted to: the steps, or the decode times of requests."""

    source: Literal["steps", "requests"] = "steps"
    rows: int  # steps, or requests
    mean_absolute_percentage_error: float
    r_squared: float
    bias: float  # sum of fitted over sum of recorded durations, minus 1
    regions: tuple[Region, ...] = ()
    considered: dict[str, float] = {}  # form of the model: its cross-validated error, relative


class Noise(Record):
    """What the model leaves of a step's duration, as a factor: log-normal, with a mean of 1.

    spread: standard deviation of its log. autocorrelation: of the log, from one step to the next. run_spread: standard
    deviation of the log of whole runs, where several runs were fitted.
    """

    spread: float = Field(default=0.0, ge=0, le=3)
    autocorrelation: float = Field(default=0.0, ge=0, lt=1)
    run_spread: float = Field(default=0.0, ge=0, le=3)


class Seen(Record):
    """The most that a fit has seen: running requests, KV tokens of all of them, prefill tokens of a step."""

    running: int
    context_tokens: int
    prefill_tokens: int


class Profile(Record):
    """The latency of one model on one GPU under one engine: step times, host gaps, dispatch lags, KV capacity.

    All times are seconds; the coefficients are those of ``LinearStepTime``. ``gap_s``: host overhead between steps.
    ``notify_lag_s``: from the end of a step until the dispatcher knows who finished; ``submit_lag_s``: from a dispatch
    until the engine core can see it. Together they make a freed slot miss the next step, as it does in reality.
    ``output_lag_s``: from the end of a step until its tokens are stamped with a time. ``intervals``: of coefficients,
    95 %. ``derived``: computed from a datasheet, not fitted.
    """

    schema_version: Literal[1] = 1
    model: str = "unknown"
    hardware: str = "unknown"
    engine: EngineSettings
    intercept_s: float = Field(ge=1e-12, le=LONGEST_STEP_S)
    prefill_token_s: float = Field(ge=0, le=LONGEST_STEP_S)
    decode_request_s: float = Field(ge=0, le=LONGEST_STEP_S)
    context_token_s: float = Field(ge=0, le=LONGEST_STEP_S)
    prefill_attention_s: float = Field(default=0.0, ge=0, le=LONGEST_STEP_S)
    prefill_step_s: float = Field(default=0.0, ge=0, le=LONGEST_STEP_S)
    hidden_tokens: int = Field(default=0, ge=0)
    graph_sizes: tuple[int, ...] = ()
    gap_s: float = Field(default=0.0, ge=0)
    notify_lag_s: float = Field(default=0.0, ge=0)
    submit_lag_s: float = Field(default=0.0, ge=0)
    output_lag_s: float = Field(default=0.0, ge=0)
    intervals: dict[str, tuple[float, float]] = {}
    noise: Noise | None = None
    seen: Seen | None = None
    fitted_on: tuple[str, ...] = ()  # digests of the traces
    fit: Fit | None = None
    derived: dict[str, float | str] = {}
    warnings: tuple[str, ...] = ()

    def step_time(self) -> LinearStepTime:
        """The step-time model, rounded to ticks."""
        return LinearStepTime(
            ticks(self.intercept_s),
            ticks(self.prefill_token_s),
            ticks(self.decode_request_s),
            ticks(self.context_token_s),
            ticks(self.prefill_attention_s),
            ticks(self.prefill_step_s),
            self.hidden_tokens,
            self.graph_sizes,
        )

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON, as hexadecimal."""
        canonical = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    def save(self, file: Path | str) -> None:
        """Write the profile as JSON. Raises ``OSError`` if the file cannot be written."""
        Path(file).write_text(self.model_dump_json(indent=1) + "\n")


def load_profile(file: Path | str) -> Profile:
    """Read a profile. Raises ``ValueError`` naming file, key, value and remedy."""
    try:
        return Profile.model_validate_json(Path(file).read_text())
    except FileNotFoundError:
        raise ValueError(f"{file}: no such profile; fit one with driftsim calibrate TRACE") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: not readable ({error})") from None
    except ValidationError as error:
        raise ValueError(f"{file}: {first_problem(error)}; correct the profile") from None
