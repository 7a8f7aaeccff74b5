"""A request is what a client sent; a job is that request inside the system. Neither knows its true output length."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Tier(StrEnum):
    """Service tier of a request, most urgent first.

    >>> [(tier.value, tier.rank) for tier in Tier]
    [('premium', 1), ('standard', 2), ('batch', 3)]
    """

    PREMIUM = "premium"
    STANDARD = "standard"
    BATCH = "batch"

    @property
    def rank(self) -> int:
        """1 for premium, 2 for standard, 3 for batch: DriftSched's priority bases."""
        return TIER_RANK[self]


TIERS: tuple[Tier, ...] = tuple(Tier)
TIER_RANK: dict[Tier, int] = {tier: rank for rank, tier in enumerate(TIERS, start=1)}


# Not frozen: a run builds one for each request, and a frozen one takes several times as long. Treat it as if it were.
@dataclass(slots=True, unsafe_hash=True)
class Request:
    """What a client sent: who, what kind, how long a prompt, and how much output it allows.

    ``category`` is the author's label and may be empty. A replayed trace carries lengths, never text, so ``prompt``
    is None there. The true output length is deliberately absent: it travels beside the request.

    >>> Request("r1", "acme", Tier.BATCH, "report", 0.5, prompt_tokens=100, prompt_words=None, max_tokens=64).tier.rank
    3
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


@dataclass(slots=True, eq=False)
class Job:
    """A request inside the system, with all that an online policy may look at.

    ``estimate`` is the expected output length and ``budget`` is prompt length plus estimate, both in the unit of the
    accounting in use. Two jobs are never equal: a job is itself, whatever its numbers.

    >>> request = Request("r1", "acme", Tier.PREMIUM, "", 0.0, 100, None, 64)
    >>> job = Job(request, predicted_category="short_qa", estimate=70, budget=170)
    >>> job.priority, job.bias
    (0, 1.0)
    """

    request: Request
    predicted_category: str
    estimate: int
    budget: int
    bias: float = 1.0
    scheduling_class: str = ""
    index: int = -1  # row of the request in its workload
    priority: int = 0  # for an engine that schedules by priority: smaller goes first
