"""Seconds say how long a user thinks or a tool works: a number, or a law to draw from."""

from __future__ import annotations

import math
from typing import Annotated, Any, Self, TypeAlias

import numpy as np
from pydantic import BeforeValidator, Field, SerializerFunctionWrapHandler, WrapSerializer, model_validator

from driftsim.errors import InputError
from driftsim.records import Record
from driftsim.trace.schema import LONGEST_S
from driftsim.workloads.kinds import TimeKind

PARAMETERS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {  # by law: what it needs, what it may have
    "constant": (("value",), ()),
    "uniform": (("high",), ("low",)),
    "exponential": (("mean",), ("low", "high")),
    "lognormal": (("mean", "cv"), ("low", "high")),
}


class Seconds(Record):
    """A law of times in seconds, from 0: what is drawn below ``low`` or above ``high`` is just that.

    ``constant``: ``value``. ``uniform``: from ``low`` to ``high``. ``exponential``: with ``mean``. ``lognormal``: with
    ``mean`` and coefficient of variation ``cv``. ``mean`` and ``cv`` are those of the law before it is clipped.
    Wherever seconds are asked for, a number means a constant.

    >>> Seconds(kind="exponential", mean=20.0, high=60.0).draw(3, np.random.default_rng(0)).round(2)
    array([13.6 , 20.39,  0.4 ])
    >>> Seconds(kind="exponential")
    Traceback (most recent call last):
    driftsim.errors.InputError: exponential seconds need mean; give mean = ...
    """

    kind: TimeKind = Field(description="The law of the times.")
    value: float | None = Field(default=None, ge=0, le=LONGEST_S, description="constant: the time.")
    mean: float | None = Field(default=None, gt=0, le=LONGEST_S, description="exponential, lognormal: the mean.")
    cv: float | None = Field(default=None, ge=0, le=100, description="lognormal: the coefficient of variation.")
    low: float = Field(default=0.0, ge=0, le=LONGEST_S, description="The shortest; what is drawn below has just this.")
    high: float | None = Field(
        default=None, ge=0, le=LONGEST_S, description="The longest; what is drawn above has just this."
    )

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        needed, allowed = PARAMETERS[self.kind]
        missing = [name for name in needed if getattr(self, name) is None]
        if missing:
            raise InputError(f"{self.kind} seconds need {missing[0]}; give {missing[0]} = ...")
        changed = {name for name, field in type(self).model_fields.items() if getattr(self, name) != field.default}
        foreign = sorted(changed - {"kind", *needed, *allowed})
        if foreign:
            raise InputError(f"{self.kind} seconds have no {foreign[0]}; leave it out")
        if self.high is not None and self.high < self.low:
            raise InputError(f"seconds from low {self.low:g} to high {self.high:g} are none; swap the two")
        return self

    def draw(self, count: int, random: np.random.Generator) -> np.ndarray:
        """``count`` times; each takes one number of ``random``, so that another mean moves each in proportion."""
        if self.kind == "constant":
            return np.full(count, self.value, dtype=float)
        if self.kind == "uniform":
            assert self.high is not None
            return np.asarray(self.low + random.random(count) * (self.high - self.low))
        assert self.mean is not None
        if self.kind == "exponential":
            drawn = self.mean * random.standard_exponential(count)
        else:
            assert self.cv is not None
            variance = math.log1p(self.cv**2)
            drawn = self.mean * np.exp(math.sqrt(variance) * random.standard_normal(count) - variance / 2)
        return np.asarray(np.clip(drawn, self.low, LONGEST_S if self.high is None else self.high))


def _as_seconds(value: Any) -> Seconds:
    """A number is a constant."""
    number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    return Seconds.model_validate({"kind": "constant", "value": value} if number else value)


def _as_written(value: float | Seconds, plain: SerializerFunctionWrapHandler) -> Any:
    return value.value if isinstance(value, Seconds) and value.kind == "constant" else plain(value)


# What may be written as a number, and is a law from then on.
Duration: TypeAlias = Annotated[float | Seconds, BeforeValidator(_as_seconds), WrapSerializer(_as_written)]
