"""Admission turns a request into a job: a category, an estimate, a budget and a scheduling class.

Every constant is a field whose default is DriftSched's value (arXiv 2606.02982), and each of DriftSched's traps that
lives here is a switch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from types import MappingProxyType
from typing import Any, Self

import numpy as np
from pydantic import Field, model_validator

from driftsim.errors import InputError
from driftsim.records import Record
from driftsim.request import Job, Request, Tier
from driftsim.scheduling.accounting import Accounting
from driftsim.scheduling.classify import FALLBACK
from driftsim.scheduling.names import Base, Estimates, Feedback, Label, Unit
from driftsim.tiers import TierRule

DRIFTSCHED_BASE: Mapping[str, float] = MappingProxyType(
    {"short_qa": 64.0, "summary": 256.0, "technical": 384.0, "report": 512.0}
)
DRIFTSCHED_SAFETY: Mapping[Tier, float] = MappingProxyType({Tier.PREMIUM: 1.2, Tier.STANDARD: 1.0, Tier.BATCH: 0.8})
LENGTH: dict[str, Any] = {"unit": "tokens or words"}  # by the accounting
MOST_FACTOR, MOST_BASE = 1000.0, 10**9  # so that an estimate is a number whatever they are, a bias among them

CLASSES = ("short", "medium", "long")


class Admission(Record):
    """DriftSched's estimate, ``int(base x bias x safety x input factor)``, and every switch around it."""

    accounting: Unit = Field(
        default="tokenizer",
        description="Unit of every length here: the model's tokens, or words between white space. Engines always count "
        "tokens.",
    )
    words_per_token: float | None = Field(
        default=None,
        gt=0,
        description="Words that a token stands for, where the trace holds no words; for whitespace accounting only.",
    )
    label: Label = Field(
        default="seen", description="Whether the classifier sees the label that a prompt may carry (trap 6)."
    )
    base: Base = Field(
        default="reference",
        description="Base of the estimate. `reference`: DriftSched's table by predicted category. `fit`: that table, "
        "fitted to the trace. `caps`: the request's own `max_tokens` (trap 3).",
    )
    base_fit_n: int = Field(
        default=10,
        gt=0,
        description="Finished requests of each category that a fitted table rests on; they are not scored.",
        json_schema_extra={"unit": "requests"},
    )
    base_table: dict[str, float] = Field(
        default=dict(DRIFTSCHED_BASE),
        description="Category = base of its estimate, for categories of any name. Those that the trace has and the "
        "table lacks are fitted to it; where no trace is recorded, they count as short_qa.",
        json_schema_extra=LENGTH,
    )
    safety: dict[Tier, float] = Field(
        default=dict(DRIFTSCHED_SAFETY),
        description="Tier = factor of its estimates (trap 5), 1 for a tier that is not there; a `safety` among `tiers` "
        "replaces it. 1 for every tier switches the factor off.",
    )
    input_scale: float = Field(
        default=1000.0,
        gt=0,
        description="Prompt length at which the input factor, 1 + prompt length / input_scale, is 2.",
        json_schema_extra=LENGTH,
    )
    input_cap: float = Field(default=1.5, ge=1, le=MOST_FACTOR, description="Largest input factor.")
    clamp_at_max_tokens: bool = Field(
        default=False, description="Whether no estimate exceeds the request's `max_tokens` (trap 5)."
    )
    feedback: Feedback = Field(
        default="base",
        description="What the correction divides the observed length by: the base alone (trap 4), or the whole "
        "estimate without its bias.",
    )
    alpha: float = Field(default=0.1, gt=0, le=1, description="Weight of one observation in the moving average.")
    clip_low: float = Field(default=0.25, gt=0, description="Smallest bias that one observation can ask for.")
    clip_high: float = Field(
        default=3.0, gt=0, le=MOST_FACTOR, description="Largest bias that one observation can ask for."
    )
    estimates: Estimates = Field(
        default="frozen",
        description="Whether an estimate is frozen at admission, or refreshed for every waiting request whenever the "
        "estimator learns.",
    )
    short: int = Field(
        default=128, gt=0, description="Largest budget of the scheduling class short.", json_schema_extra=LENGTH
    )
    medium: int = Field(
        default=512, gt=0, description="Largest budget of the scheduling class medium.", json_schema_extra=LENGTH
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.clip_low > self.clip_high:
            raise InputError(f"clip_low {self.clip_low} is above clip_high {self.clip_high}")
        if FALLBACK not in self.base_table or min(self.base_table.values()) <= 0:
            raise InputError(f"base_table needs values above 0 and an entry {FALLBACK!r}, got {self.base_table}")
        if max(self.base_table.values()) > MOST_BASE:
            raise InputError(f"base_table needs values of at most {MOST_BASE:,}, got {self.base_table}")
        if not all(0 < factor <= MOST_FACTOR for factor in self.safety.values()):
            raise InputError(f"safety needs factors above 0, at most {MOST_FACTOR:g}, got {self.safety}")
        if self.words_per_token is not None and self.accounting != "whitespace":
            raise InputError("words_per_token is for the accounting 'whitespace' only")
        return self

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """The admission that ``values``, such as a trace's ``header.admission``, describe; other keys are ignored.

        Raises ``InputError`` naming the switch, its value and what is wrong with it.
        """
        return super().of({name: values[name] for name in cls.model_fields if name in values})

    @cached_property
    def unit(self) -> Accounting:
        """The accounting that counts every length here."""
        return Accounting(self.accounting, self.words_per_token)

    @cached_property
    def _table(self) -> dict[str, float] | None:
        """The base table, if the base is one."""
        return None if self.base == "caps" else self.base_table

    @cached_property
    def _input(self) -> tuple[bool, float, float]:
        """What the input factor hangs on, at hand: whether tokens are counted, scale, cap."""
        return self.accounting == "tokenizer", self.input_scale, self.input_cap

    @property
    def category_column(self) -> str:
        """The trace column that holds the category that admission sees."""
        return "predicted_category" if self.label == "seen" else "predicted_category_unlabelled"

    def with_safety(self, rules: Sequence[TierRule]) -> Self:
        """This one with the safety factors that ``rules`` give to their tiers.

        >>> from driftsim.tiers import tier_rules
        >>> Admission().with_safety(tier_rules("gold:1:1.5,batch")).safety
        {'premium': 1.2, 'standard': 1.0, 'batch': 0.8, 'gold': 1.5}
        """
        given = {Tier(rule.name): rule.safety for rule in rules if rule.safety is not None}
        return self.changed(safety={**self.safety, **given}) if given else self

    def category_seen(self, category: str | None) -> str:
        """What ``category`` counts as: itself if it has a base of its own, else ``short_qa``.

        >>> Admission().category_seen("poetry"), Admission(base="caps").category_seen("poetry")
        ('short_qa', 'poetry')
        """
        own = category if isinstance(category, str) else ""
        known = own in self.base_table if self._table is not None else own != ""
        return own if known else FALLBACK

    def base_of(self, request: Request, category: str) -> float:
        """The base of the estimate; a category that the table lacks counts as ``short_qa``."""
        table = self._table
        if table is None:
            return float(request.max_tokens)
        return table[category] if category in table else table[FALLBACK]

    def factors(self, request: Request) -> float:
        """Safety factor of the tier times the input factor of the prompt."""
        return self.safety.get(request.tier, 1.0) * self.input_factor(request)

    def input_factor(self, request: Request) -> float:
        """The factor of the prompt's length, from 1 to ``input_cap``."""
        tokens, scale, cap = self._input
        factor = 1 + (request.prompt_tokens if tokens else self.prompt_length(request)) / scale
        return factor if factor < cap else cap

    def prompt_length(self, request: Request) -> int:
        """The prompt's length in the accounting's unit."""
        return self.unit.length(request.prompt_tokens, request.prompt_words)

    def estimate(self, request: Request, category: str, bias: float) -> int:
        """The expected output length under ``bias``.

        >>> r = Request("r", "a", Tier.PREMIUM, "", 0.0, prompt_tokens=100, prompt_words=None, max_tokens=64)
        >>> Admission().estimate(r, "short_qa", 1.0)  # 64 x 1.2 x 1.1 = 84.48
        84
        >>> Admission(clamp_at_max_tokens=True).estimate(r, "short_qa", 1.0)
        64
        """
        length = int(self.base_of(request, category) * bias * self.factors(request))
        return min(length, request.max_tokens) if self.clamp_at_max_tokens else length

    def measured_bias(self, job: Job, output_length: int) -> float:
        """Observed over expected length, clipped: what one observation says the bias should have been."""
        expected = self.base_of(job.request, job.predicted_category)
        if self.feedback == "estimate":
            expected *= self.factors(job.request)
        bias = output_length / expected
        if bias < self.clip_low:
            return self.clip_low
        return bias if bias < self.clip_high else self.clip_high

    def scheduling_classes(self, totals: np.ndarray) -> np.ndarray:
        """``scheduling_class`` of each of ``totals``, an array; a fraction of a unit does not count.

        >>> list(Admission().scheduling_classes(np.array([128.0, 128.9, 129.0, 513.0])))
        ['short', 'short', 'medium', 'long']
        """
        places = np.searchsorted([self.short, self.medium], np.floor(totals), side="left")
        classes: np.ndarray = np.asarray(CLASSES, dtype=object)[places]
        return classes

    def scheduling_class(self, total: int) -> str:
        """``short``, ``medium`` or ``long`` for a total of prompt and output, in the accounting's unit.

        >>> [Admission().scheduling_class(total) for total in (128, 129, 512, 513)]
        ['short', 'medium', 'medium', 'long']
        """
        if total <= self.short:
            return "short"
        return "medium" if total <= self.medium else "long"


def check_admission(value: Any) -> None:
    """Raise ``InputError`` unless ``value`` is an ``Admission``: a dictionary of switches is none."""
    if not isinstance(value, Admission):
        raise InputError(f"an Admission is needed, not {value!r:.80}; make one with Admission(...)")
