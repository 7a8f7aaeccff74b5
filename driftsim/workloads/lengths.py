"""Lengths say how many tokens a prompt or an output has: drawn from a law, or from what a real run recorded."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Self, TypeAlias

import numpy as np
import pandas as pd
from pydantic import BeforeValidator, Field, SerializerFunctionWrapHandler, WrapSerializer, model_validator

from driftsim.errors import InputError
from driftsim.records import Record
from driftsim.trace.schema import FINISHED
from driftsim.trace.trace import Trace
from driftsim.workloads.kinds import LengthKind
from driftsim.workloads.table import as_admission_sees

LONGEST = 10**7  # tokens of a prompt or an output
# The parameters of each law: those that it needs, and those that it may have.
PARAMETERS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "constant": (("value",), ()),
    "uniform": (("high",), ("low",)),
    "lognormal": (("mean", "cv"), ("low", "high")),
    "geometric": (("mean",), ("low", "high")),
    "empirical": (("values",), ("low", "high")),
}


class Lengths(Record):
    """A law of lengths in tokens, whole numbers from 1: a request below ``low`` or above ``high`` has just that.

    ``constant``: ``value``. ``uniform``: each of ``low`` to ``high``. ``lognormal``: ``mean`` and coefficient of
    variation ``cv``, rounded. ``geometric``: the memoryless law, the exponential one in whole numbers, with ``mean``.
    ``empirical``: one of ``values``, each as likely as it is often there. ``mean`` and ``cv`` are those of the law
    before it is rounded and clipped. Wherever lengths are asked for, a whole number means a constant.

    >>> Lengths(kind="lognormal", mean=200, cv=1.5, high=1000).draw(4, np.random.default_rng(0))
    array([127,  96, 222, 124])
    >>> Lengths(kind="geometric")
    Traceback (most recent call last):
    driftsim.errors.InputError: geometric lengths need mean; give mean = ...
    """

    kind: LengthKind = Field(description="The law of the lengths.")
    value: int | None = Field(default=None, ge=1, le=LONGEST, description="constant: the length.")
    mean: float | None = Field(default=None, ge=1, le=LONGEST, description="lognormal, geometric: the mean.")
    cv: float | None = Field(default=None, ge=0, le=100, description="lognormal: the coefficient of variation.")
    values: tuple[Annotated[int, Field(ge=1, le=LONGEST)], ...] | None = Field(
        default=None, min_length=1, description="empirical: the lengths to draw from."
    )
    low: int = Field(default=1, ge=1, le=LONGEST, description="The shortest; what is drawn below has just this.")
    high: int | None = Field(
        default=None, ge=1, le=LONGEST, description="The longest; what is drawn above has just this."
    )

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        missing = [name for name in PARAMETERS[self.kind][0] if getattr(self, name) is None]
        if missing:
            raise InputError(f"{self.kind} lengths need {missing[0]}; give {missing[0]} = ...")
        foreign = [name for name, default in _not_of(self.kind) if getattr(self, name) != default]
        if foreign:
            raise InputError(f"{self.kind} lengths have no {foreign[0]}; leave it out")
        if self.high is not None and self.high < self.low:
            raise InputError(f"lengths from low {self.low} to high {self.high} are none; swap the two")
        return self

    @property
    def longest(self) -> int | None:
        """The longest that can be drawn; None where the law has no end."""
        if self.kind == "constant":
            return self.value
        ends = [max(self.values)] if self.values is not None else []
        return min(ends + ([] if self.high is None else [self.high]), default=None)

    def draw(self, count: int, random: np.random.Generator) -> np.ndarray:
        """``count`` lengths; each takes one number of ``random``, so that another law sees the same ones.

        Log-normal: the logarithm has the variance ``ln(1 + cv**2)``; geometric by inversion (Devroye 1986, X.2).
        """
        if self.kind == "constant":
            assert self.value is not None
            return np.full(count, self.value, dtype=np.int64)
        high = LONGEST if self.high is None else self.high
        return np.asarray(np.clip(self._unclipped(count, random), self.low, high), dtype=np.int64)

    def _unclipped(self, count: int, random: np.random.Generator) -> np.ndarray:
        if self.kind == "uniform":
            assert self.high is not None
            return np.asarray(self.low + np.floor(random.random(count) * (self.high - self.low + 1)))
        if self.kind == "empirical":
            values = np.array(self.values, dtype=np.int64)
            return np.asarray(values[(random.random(count) * len(values)).astype(int)])
        assert self.mean is not None
        if self.kind == "geometric":
            drawn = random.standard_exponential(count)
            return np.asarray(np.ceil(drawn / -math.log1p(-1 / self.mean))) if self.mean > 1 else np.ones(count)
        assert self.cv is not None
        variance = math.log1p(self.cv**2)
        with np.errstate(over="ignore"):
            lengths = self.mean * np.exp(math.sqrt(variance) * random.standard_normal(count) - variance / 2)
        return np.asarray(np.rint(lengths))


@cache
def _not_of(kind: LengthKind) -> list[tuple[str, Any]]:
    """The parameters that the law ``kind`` does not have, by name, each with its default."""
    needed, allowed = PARAMETERS[kind]
    others = sorted(Lengths.model_fields.keys() - {"kind", *needed, *allowed})
    return [(name, Lengths.model_fields[name].default) for name in others]


def _as_lengths(value: Any) -> Lengths | None:
    """A whole number is a constant."""
    if value is None or type(value) is Lengths:  # a law was checked when it was made
        return value
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    return Lengths.model_validate({"kind": "constant", "value": value} if whole else value)


def _as_written(value: int | Lengths, plain: SerializerFunctionWrapHandler) -> Any:
    return value.value if isinstance(value, Lengths) and value.kind == "constant" else plain(value)


# What may be written as a whole number, and is a law from then on.
Length: TypeAlias = Annotated[int | Lengths, BeforeValidator(_as_lengths), WrapSerializer(_as_written)]
JOINT = ("prompt_tokens", "prompt_words", "max_tokens", "output_tokens", "output_words", "stops")
LABELS = ("tenant", "tier", "category", "predicted_category", "predicted_category_unlabelled")


@dataclass(frozen=True, eq=False)
class RecordedLengths:
    """The requests of a recorded run to draw from: capture small, simulate large.

    Prompt, limit, output, category and how it ended are drawn together, so that what depends on what survives.
    ``table`` has a row for each request whose true output length is known, ``source`` is its row in the trace.
    """

    table: pd.DataFrame
    name: str

    @classmethod
    def from_trace(cls, trace: Trace) -> Self:
        """What the finished requests of ``trace`` hold. Raises ``InputError`` if none of them finished.

        >>> from driftsim.trace.trace import read
        >>> len(RecordedLengths.from_trace(read("traces/smollm2-cpu-drift")).table)
        360
        """
        labelled, _ = as_admission_sees(trace.requests)
        rows = labelled.reset_index(names="source")
        rows = rows[rows["finish_reason"].isin(FINISHED)]
        if rows.empty:
            raise InputError(f"{trace.name}: no request finished, so there are no lengths to draw; take another trace")
        table = rows.assign(stops=rows["finish_reason"] == "stop")[[*LABELS, *JOINT, "source"]]
        return cls(table.reset_index(drop=True), trace.name)

    def of_category(self, category: str) -> Self:
        """Those of one category. Raises ``InputError`` if there are none."""
        table = self.table[self.table["category"] == category]
        if table.empty:
            known = ", ".join(sorted(map(str, self.table["category"].dropna().unique()))) or "none"
            raise InputError(f"{self.name}: no request of category {category!r} to draw from; it has {known}")
        return type(self)(table.reset_index(drop=True), self.name)

    def draw(self, count: int, random: np.random.Generator) -> pd.DataFrame:
        """``count`` rows, drawn with replacement."""
        picks = (random.random(count) * len(self.table)).astype(int)
        return self.table.iloc[picks].reset_index(drop=True)


def capped(rows: pd.DataFrame, max_tokens: int | np.ndarray) -> pd.DataFrame:
    """``rows`` under another limit, or each under its own: a longer output is cut short, its words in proportion."""
    whole = rows["output_tokens"].astype("int64")
    tokens = whole.clip(upper=max_tokens)
    words = (rows["output_words"].astype("Float64") * tokens / whole).round().astype("Int64")
    stops = rows["stops"].astype(bool) & (whole <= max_tokens)
    return rows.assign(output_tokens=tokens, output_words=words, stops=stops, max_tokens=max_tokens)
