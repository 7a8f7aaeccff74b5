"""What a policy may know of the run around it: the tiers' rules, the SLOs, and the seconds that a request takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from driftsim.errors import InputError
from driftsim.request import Job, Request, Tier
from driftsim.slo import Slo
from driftsim.tiers import TierRule
from driftsim.whose import rule_of

PLAIN_S = 0.001  # a token, where nobody knows the engine: for tests of a queue alone


class Service(Protocol):
    """Seconds of service that a job takes: its uncached prompt's prefill, and its share of the decode steps."""

    def __call__(self, job: Job, length: float | None = None) -> float:
        """Seconds for ``job`` if its output is ``length`` long, in the accounting's unit; None: its estimate."""
        ...


def plain_service(job: Job, length: float | None = None) -> float:
    """A millisecond for each token of prompt and output."""
    return PLAIN_S * (job.request.prompt_tokens + (job.estimate if length is None else length))


@dataclass(frozen=True, kw_only=True)
class Around:
    """What a policy with a method ``given(around)`` is told once, before the first job.

    >>> from driftsim.slo import slo_rules
    >>> from driftsim.tiers import tier_rules
    >>> around = Around(rules=tier_rules("gold:5,tin:2"), slos=slo_rules("gold:ttft=1s"))
    >>> around.weight(Tier("gold", 1)), around.weight(Tier.PREMIUM), around.limit_s("acme", "gold", "ttft")
    (5, 5, 1.0)
    """

    rules: tuple[TierRule, ...] = ()
    slos: tuple[Slo, ...] = ()
    service_s: Service = plain_service
    shares: Mapping[str, float] = field(default_factory=dict)  # weights of tenants, 1 of those that are not there
    _limits: dict[tuple[str, str], dict[str, float]] = field(default_factory=dict, repr=False, compare=False)

    def weight(self, tier: Tier) -> int:
        """The weight of ``tier``. Raises ``InputError`` for a tier of which nobody said anything."""
        rule = next((rule for rule in self.rules if rule.name == tier), None)
        if rule is None and not self.rules and not tier.rank:  # reading the rank raises where there is none
            raise InputError(f"the tier {str(tier)!r} has no weight")
        return (rule or TierRule(name=str(tier))).slots

    def share(self, request: Request, by_tier: bool) -> float:
        """What the service of ``request`` is divided by: the weight of its tenant, times that of its tier if asked."""
        own = self.shares.get(request.tenant, 1.0) if self.shares else 1.0
        return own * self.weight(request.tier) if by_tier else own

    def limit_s(self, tenant: str, tier: str, which: str) -> float:
        """Seconds that the SLO of these requests allows until ``which``, ttft or e2e; the other one where only that is
        limited, infinity where neither is."""
        if (tenant, tier) not in self._limits:
            place = int(rule_of(self.slos, np.array([tenant]), np.array([tier]))[0])
            self._limits[tenant, tier] = {} if place < 0 else self.slos[place].limits
        limits = self._limits[tenant, tier]
        return limits.get(which, limits.get("e2e" if which == "ttft" else "ttft", float("inf")))

    def deadline(self, request: Request, which: str) -> float:
        """When ``request`` is due, in seconds since the run began; infinity where no SLO says so."""
        return request.arrival + self.limit_s(request.tenant, request.tier, which)
