"""How long a step of the engine takes, and the profile that says so for one GPU, model and engine.

Inside a simulated engine time is an integer number of picoseconds (ticks): coefficients are rounded to it once, and
from there on everything is exact. Seconds as floats exist only at the border.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, Protocol

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
        """The duration of one step."""
        ...

    def decode_run(self, batch: Batch, n: int) -> int:
        """The duration of ``n`` steps that begin with ``batch`` and in which only contexts grow."""
        ...

    def decode_steps(self, batch: Batch, elapsed: int, gap: int) -> int:
        """The least n >= 1 for which ``n`` such steps, each followed by ``gap``, last ``elapsed`` or longer."""
        ...


@dataclass(frozen=True, slots=True)
class LinearStepTime:
    """``intercept + prefill tokens + decode requests + context tokens``, each times its coefficient, in ticks."""

    intercept: int
    prefill_token: int
    decode_request: int
    context_token: int

    def __post_init__(self) -> None:
        if self.intercept < 1 or min(self.prefill_token, self.decode_request, self.context_token) < 0:
            raise ValueError(f"a step takes time: intercept above 0, nothing negative; got {self}")

    def step(self, batch: Batch) -> int:
        """The duration of one step."""
        return (
            self.intercept
            + self.prefill_token * batch.prefill_tokens
            + self.decode_request * batch.decode_requests
            + self.context_token * batch.context_tokens
        )

    def decode_run(self, batch: Batch, n: int) -> int:
        """``n`` steps; each decoding request's context grows by one token a step.

        >>> model = LinearStepTime(100, 7, 5, 1)
        >>> model.decode_run(Batch(decode_requests=2, context_tokens=10), 3)  # contexts 10, 12, 14
        366
        """
        size, per_token = batch.decode_requests, self.context_token
        first = self.intercept + self.decode_request * size + per_token * batch.context_tokens
        return n * first + per_token * size * (n * (n - 1) // 2)

    def decode_steps(self, batch: Batch, elapsed: int, gap: int) -> int:
        """The positive root of the quadratic in n, by floats, then put right by at most a step in integers.

        >>> model = LinearStepTime(100, 7, 5, 1)
        >>> [model.decode_steps(Batch(decode_requests=2, context_tokens=10), elapsed, 0) for elapsed in (0, 120, 121)]
        [1, 1, 2]
        """
        growth = self.context_token * batch.decode_requests  # ticks a step gets longer by
        first = self.decode_run(batch, 1) + gap
        if growth:
            slope = first - growth / 2
            n = int((math.sqrt(slope * slope + 2 * growth * elapsed) - slope) / growth)
        else:
            n = elapsed // first
        n = max(n, 1)
        while n > 1 and (n - 1) * first + growth * ((n - 1) * (n - 2) // 2) >= elapsed:
            n -= 1
        while n * first + growth * (n * (n - 1) // 2) < elapsed:
            n += 1
        return n


class Fit(Record):
    """How well a step-time model fits the steps it was fitted to."""

    steps: int
    mean_absolute_percentage_error: float
    r_squared: float
    bias: float  # sum of fitted over sum of recorded durations, minus 1


class Profile(Record):
    """The latency of one model on one GPU under one engine: step times, host gaps, dispatch lags, KV capacity.

    All times are seconds. ``gap_s``: host overhead between steps. ``notify_lag_s``: from the end of a step until the
    dispatcher knows who finished; ``submit_lag_s``: from a dispatch until the engine core can see it. Together they
    make a freed slot miss the next step, as it does in reality.
    """

    schema_version: Literal[1] = 1
    model: str = "unknown"
    hardware: str = "unknown"
    engine: EngineSettings
    intercept_s: float = Field(ge=1e-12, le=LONGEST_STEP_S)
    prefill_token_s: float = Field(ge=0, le=LONGEST_STEP_S)
    decode_request_s: float = Field(ge=0, le=LONGEST_STEP_S)
    context_token_s: float = Field(ge=0, le=LONGEST_STEP_S)
    gap_s: float = Field(default=0.0, ge=0)
    notify_lag_s: float = Field(default=0.0, ge=0)
    submit_lag_s: float = Field(default=0.0, ge=0)
    fitted_on: tuple[str, ...] = ()  # digests of the traces
    fit: Fit | None = None

    def step_time(self) -> LinearStepTime:
        """The step-time model, rounded to ticks."""
        return LinearStepTime(
            ticks(self.intercept_s),
            ticks(self.prefill_token_s),
            ticks(self.decode_request_s),
            ticks(self.context_token_s),
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
