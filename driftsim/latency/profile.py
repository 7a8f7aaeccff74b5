"""A profile is the latency of one model on one GPU under one engine."""

from __future__ import annotations

import hashlib
import json
import math
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from driftsim.errors import InputError
from driftsim.files import write_file
from driftsim.formatting import show_table, shown_text, signed_percent
from driftsim.latency.noise import Noise
from driftsim.latency.steptime import LAUNCH, TERMS, LinearStepTime, launched, term_values, ticks, tied_tokens
from driftsim.latency.uncertainty import Uncertainty
from driftsim.records import Record
from driftsim.text import for_html
from driftsim.trace.schema import LARGEST_COUNT
from driftsim.trace.settings import EngineSettings

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

WIDTH = 100  # columns of the printed text
LONGEST_STEP_S = 1e4  # of a profile's coefficients
LEAST_INTERCEPT_S = 1e-6  # a step is never free: a fit through the origin would starve the engine of time
SECONDS: dict[str, Any] = {"unit": "s"}
TOKENS: dict[str, Any] = {"unit": "tokens"}


class Region(Record):
    """How well a profile fits a part of what it was fitted to."""

    name: str = Field(description="What the rows of this part have in common.")
    rows: int = Field(ge=0, description="Number of steps, or of requests where steps are not known.")
    mean_absolute_percentage_error: float = Field(description="Mean absolute relative error: 0.05 is 5 %.")
    bias: float = Field(description="Sum of the fitted over the sum of the recorded durations, minus 1.")


class Fit(Record):
    """How well a step-time model fits what it was fitted to: the steps, or the decode times of requests."""

    source: Literal["steps", "requests"] = Field(
        default="steps", description="What was fitted: durations of steps, or decode times of requests."
    )
    rows: int = Field(ge=0, description="Number of those steps or requests.")
    mean_absolute_percentage_error: float = Field(description="Mean absolute relative error: 0.05 is 5 %.")
    r_squared: float = Field(description="Share of the variance that the model explains.")
    bias: float = Field(description="Sum of the fitted over the sum of the recorded durations, minus 1.")
    regions: tuple[Region, ...] = Field(default=(), description="The same for parts of the rows.")
    considered: dict[str, float] = Field(
        default={}, description="Form of the model that was considered = its cross-validated relative error."
    )
    uncertainty: Uncertainty | None = Field(
        default=None, description="How sure the fit is of the coefficients, jointly; none: not known."
    )


class Coverage(Record):
    """The most that a fit has seen: running requests, KV tokens of all of them, prefill tokens of a step."""

    running: int = Field(ge=0, description="Most requests that ran at once.", json_schema_extra={"unit": "requests"})
    context_tokens: int = Field(ge=0, description="Most KV tokens that they held.", json_schema_extra=TOKENS)
    prefill_tokens: int = Field(ge=0, description="Most prompt tokens of one step.", json_schema_extra=TOKENS)


class Profile(Record):
    """The latency of one model on one GPU under one engine: step times, host gaps, dispatch lags, KV capacity.

    The coefficients are those of ``LinearStepTime``. The lags ``notify_lag_s`` and ``submit_lag_s`` together make a
    freed slot miss the next step, as it does in reality.
    """

    schema_version: Literal[1] = Field(default=1, description="Version of the profile's schema.")
    model: str = Field(default="unknown", description="Model that was measured.")
    hardware: str = Field(default="unknown", description="Hardware that it ran on.")
    engine: EngineSettings = Field(description="Settings of the engine, as in a trace's header.")
    intercept_s: float = Field(
        ge=1e-12, le=LONGEST_STEP_S, description="Time that every step takes.", json_schema_extra=SECONDS
    )
    prefill_token_s: float = Field(
        ge=0, le=LONGEST_STEP_S, description="Time that each prompt token adds.", json_schema_extra=SECONDS
    )
    decode_request_s: float = Field(
        ge=0, le=LONGEST_STEP_S, description="Time that each decoding request adds.", json_schema_extra=SECONDS
    )
    context_token_s: float = Field(
        ge=0,
        le=LONGEST_STEP_S,
        description="Time that each KV token read by a decoding request adds.",
        json_schema_extra=SECONDS,
    )
    prefill_attention_s: float = Field(
        default=0.0,
        ge=0,
        le=LONGEST_STEP_S,
        description="Time that each unit of the prefills' attention work adds.",
        json_schema_extra=SECONDS,
    )
    prefill_step_s: float = Field(
        default=0.0,
        ge=0,
        le=LONGEST_STEP_S,
        description="Time that a step with a prefill takes more than one without.",
        json_schema_extra=SECONDS,
    )
    hidden_tokens: int = Field(
        default=0,
        ge=0,
        le=LARGEST_COUNT,
        description="Tokens of a step that cost nothing, because they are computed while the GPU reads the weights.",
        json_schema_extra=TOKENS,
    )
    graph_sizes: tuple[int, ...] = Field(
        default=(), description="Sizes of CUDA graphs that decode batches are padded to; none: no padding."
    )
    launch_s: float = Field(
        default=0.0,
        ge=0,
        le=LONGEST_STEP_S,
        description="Time that the host takes to launch a prefill kernel by kernel; the GPU works meanwhile.",
        json_schema_extra=SECONDS,
    )
    graph_tokens: int = Field(
        default=0,
        ge=0,
        le=LARGEST_COUNT,
        description="Tokens of the largest step that is launched at once, as a CUDA graph, even if it prefills.",
        json_schema_extra=TOKENS,
    )
    gap_s: float = Field(
        default=0.0, ge=0, le=LONGEST_STEP_S, description="Host overhead between two steps.", json_schema_extra=SECONDS
    )
    notify_lag_s: float = Field(
        default=0.0,
        ge=0,
        le=LONGEST_STEP_S,
        description="Time from the end of a step until the dispatcher knows which requests finished.",
        json_schema_extra=SECONDS,
    )
    submit_lag_s: float = Field(
        default=0.0,
        ge=0,
        le=LONGEST_STEP_S,
        description="Time from a dispatch until the engine's core can see the request.",
        json_schema_extra=SECONDS,
    )
    output_lag_s: float = Field(
        default=0.0,
        ge=0,
        le=LONGEST_STEP_S,
        description="Time from the end of a step until its tokens are stamped with a time.",
        json_schema_extra=SECONDS,
    )
    intervals: dict[str, tuple[float, float]] = Field(
        default={}, description="Coefficient = its 95 % interval.", json_schema_extra=SECONDS
    )
    noise: Noise | None = Field(default=None, description="What the model leaves of a step's duration.")
    seen: Coverage | None = Field(default=None, description="The most that the fitted runs have seen.")
    fitted_on: tuple[str, ...] = Field(default=(), description="SHA-256 of each trace that was fitted.")
    fit: Fit | None = Field(default=None, description="How well the model fits those traces.")
    derived: dict[str, float | str] = Field(
        default={}, description="What a profile was derived from that was not fitted: datasheet and model."
    )
    warnings: tuple[str, ...] = Field(default=(), description="What a user of the profile must know.")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        sizes = self.graph_sizes
        if any(size < 1 for size in sizes) or list(sizes) != sorted(set(sizes)):
            raise InputError(f"graph_sizes must rise from 1 or more, got {', '.join(map(str, sizes)):.80}")
        crossed = [name for name, (low, high) in self.intervals.items() if low > high]
        if crossed:
            raise InputError(f"intervals: {crossed[0]:.40}: the lower end is above the upper one")
        return self

    @classmethod
    def plain(
        cls,
        intercept_s: float,
        prefill_token_s: float = 0.0,
        decode_request_s: float = 0.0,
        context_token_s: float = 0.0,
        **engine: Any,
    ) -> Self:
        """A profile by hand: its coefficients (s), and the engine settings that are not vLLM's defaults.

        Raises ``InputError`` for a value that cannot be.

        >>> profile = Profile.plain(intercept_s=0.010, prefill_token_s=2e-5, max_num_seqs=8)
        >>> profile.engine.max_num_seqs, profile.engine.block_size
        (8, 16)
        """
        coefficients = {
            "intercept_s": intercept_s,
            "prefill_token_s": prefill_token_s,
            "decode_request_s": decode_request_s,
            "context_token_s": context_token_s,
        }
        try:
            settings = EngineSettings.guessed({"version": "unknown", **engine}, name="vllm")
        except InputError as error:
            raise InputError(f"engine: {error}") from None
        return cls.of({"engine": settings, **coefficients})

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
            ticks(self.launch_s),
            self.graph_tokens,
        )

    def frame(self) -> pd.DataFrame:
        """The coefficients (s), a row each, with their intervals; NaN where the profile was not fitted."""
        import pandas as pd

        rows = [
            {"coefficient": name, "value_s": getattr(self, name), "low_s": low, "high_s": high}
            for name, (low, high) in self._coefficients().items()
        ]
        return pd.DataFrame(rows, columns=["coefficient", "value_s", "low_s", "high_s"])

    def _coefficients(self) -> dict[str, tuple[float, float]]:
        """The interval of each coefficient; of a profile that was not fitted, of each that is not 0, without ends."""
        names = [f"{term}_s" for term in (*TERMS, LAUNCH)]
        return self.intervals or {name: (math.nan, math.nan) for name in names if getattr(self, name)}

    def show(self, console: Console) -> None:
        """Print the coefficients with their intervals, how well they fit, and the warnings."""
        console.print(f"{self.model} on {self.hardware}, vLLM {self.engine.version}", markup=False)
        cells = [
            [
                name.removesuffix("_s").replace("_", " "),
                f"{1e6 * getattr(self, name):.4g}",
                "" if math.isnan(low) else f"{1e6 * low:.4g} to {1e6 * high:.4g}",
            ]
            for name, (low, high) in self._coefficients().items()
        ]
        show_table(console, "", ["coefficient\n", "us\n", "95 % interval\nus"], cells)
        if self.fit is not None:
            what = "steps" if self.fit.source == "steps" else "requests' decode times"
            console.print(f"Fitted to {self.fit.rows:,} {what}: {_quality(self.fit)}.", markup=False, soft_wrap=True)
            for region in self.fit.regions:
                line = f"  {region.name}: {region.rows:,} rows, {_quality(region)}"
                console.print(line, markup=False, soft_wrap=True)
        for warning in self.warnings:
            console.print(f"Warning: {warning}.", markup=False, soft_wrap=True)

    def __str__(self) -> str:
        return shown_text(self.show, WIDTH)

    def _repr_html_(self) -> str:
        return f"<pre>{for_html(str(self))}</pre>"

    def durations(self, steps: pd.DataFrame) -> np.ndarray:
        """How long each of ``steps``, rows of a steps table, takes by this profile (s)."""
        values = term_values(steps, self.hidden_tokens, self.graph_sizes)
        coefficients = np.array([getattr(self, f"{term}_s") for term in TERMS])
        computing = np.column_stack([values[term] for term in TERMS]) @ coefficients
        return np.asarray(np.maximum(computing, np.where(launched(steps, self.graph_tokens), self.launch_s, 0.0)))

    @property
    def has_uncertainty(self) -> bool:
        """Whether it is known how sure the coefficients are, so that ``drawn`` draws others.

        It is not of a profile by hand, of a derived one, and of one that an earlier version fitted.
        """
        return self.fit is not None and self.fit.uncertainty is not None

    def drawn(self, random: np.random.Generator) -> Self:
        """The profile with coefficients that may as well be true, drawn jointly; itself without ``has_uncertainty``.

        Student's t around the fitted ones, none negative. What was not fitted by regression stays: the form, the noise,
        the gap and the lags, but for the overhead of a request in a fit to timings. A draw knows no uncertainty of its
        own.

        >>> profile = Profile.plain(intercept_s=0.010)
        >>> profile.has_uncertainty, profile.drawn(np.random.default_rng(0)) is profile
        (False, True)
        """
        if self.fit is None or self.fit.uncertainty is None:
            return self
        sure = self.fit.uncertainty
        values = sure.drawn(np.array([getattr(self, term) for term in sure.terms]), random)
        drawn = dict(zip(sure.terms, np.minimum(values, LONGEST_STEP_S).tolist(), strict=True))
        drawn["intercept_s"] = max(drawn.get("intercept_s", self.intercept_s), LEAST_INTERCEPT_S)
        if self.hidden_tokens and self.hidden_tokens == tied_tokens(self.intercept_s, self.prefill_token_s):
            tied = tied_tokens(drawn["intercept_s"], drawn.get("prefill_token_s", self.prefill_token_s))
            drawn["hidden_tokens"] = tied  # a roofline stays one
        return self.changed(**drawn, intervals={}, fit=self.fit.changed(uncertainty=None))

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON, as hexadecimal, without the uncertainty, which determines no run.

        The slow part of the noise, and the launch of prefills, are in it only where there is one: so a profile has the
        digest that it had before there were such parts.
        """
        content = self.model_dump(mode="json", exclude={"fit": {"uncertainty"}})
        if self.noise is not None and not self.noise.slow_spread:
            for name in ("slow_spread", "slow_autocorrelation"):
                del content["noise"][name]
        if not self.launch_s:
            del content["launch_s"], content["graph_tokens"]
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    def save(self, file: Path | str) -> None:
        """Write the profile as JSON, whole or not at all. Raises ``OSError`` if the file cannot be written."""
        write_file(Path(file), self.model_dump_json(indent=1) + "\n")


def _quality(fit: Fit | Region) -> str:
    error = 100 * fit.mean_absolute_percentage_error
    return f"mean absolute error {error:.2f} %, bias {signed_percent(fit.bias, 2)}"


def load_profile(file: Path | str) -> Profile:
    """Read a profile. Raises ``InputError`` naming file, key, value and remedy.

    >>> load_profile("experiments/gate/profile.json").engine.max_num_seqs
    16
    """
    hint = "; fit one with driftsim calibrate TRACE"
    return Profile.from_file(Path(file), "profile", form="json", missing=hint)
