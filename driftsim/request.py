"""A request is what a client sent; a job is that request inside the system. Neither knows its true output length."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, make_dataclass
from enum import StrEnum
from typing import Any, TypeVar

T = TypeVar("T")


class Tier(StrEnum):
    """Service tier of a request, most urgent first."""

    PREMIUM = "premium"
    STANDARD = "standard"
    BATCH = "batch"

    @property
    def rank(self) -> int:
        """1 for premium, 2 for standard, 3 for batch: the reference's priority bases."""
        return TIER_RANK[self]


TIERS: tuple[Tier, ...] = tuple(Tier)
TIER_RANK: dict[Tier, int] = {tier: rank for rank, tier in enumerate(TIERS, start=1)}


@dataclass(frozen=True, slots=True)
class Request:
    """What a client sent: who, what kind, how long a prompt, and how much output it allows.

    ``category`` is the author's label and may be empty. A replayed trace carries lengths, never text, so ``prompt``
    is None there. The true output length is deliberately absent: it travels beside the request.
    """

    id: str
    tenant: str
    tier: Tier
    category: str
    arrival: float  # s since the run began
    prompt_tokens: int
    prompt_words: int | None
    max_tokens: int
    prompt: str | None = None


def quick(frozen: type[T]) -> Callable[..., T]:
    """A constructor of ``frozen``, a dataclass with slots, in a third of the time: its own makes a call for each field.

    It takes the values of all fields, in order.
    """
    draft: Any = make_dataclass(f"{frozen.__name__}Draft", [field.name for field in fields(frozen)], slots=True)  # type: ignore[arg-type]

    def make(*values: Any) -> T:
        made = draft(*values)
        made.__class__ = frozen  # the same slots, so it may become one
        return made  # type: ignore[no-any-return]

    return make


quick_request = quick(Request)


@dataclass(slots=True, eq=False)
class Job:
    """A request inside the system, with all that an online policy may look at.

    ``estimate`` is the expected output length and ``budget`` is prompt length plus estimate, both in the unit of the
    accounting in use. Two jobs are never equal: a job is itself, whatever its numbers.
    """

    request: Request
    predicted_category: str
    estimate: int
    budget: int
    bias: float = 1.0
    scheduling_class: str = ""
    index: int = -1  # row of the request in its workload
    priority: int = 0  # for an engine that schedules by priority: smaller goes first
