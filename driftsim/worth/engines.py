"""Engines on which a certain limit binds, made of the profile's own.

A limit binds if twice as much of it serves a backlog at least ``LEAST_GAIN`` faster, and twice as much of no other
limit helps more. The limit is halved until it does; the KV cache is made roomy where it is not the one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from driftsim.latency.profile import Profile
from driftsim.pressing.loads import full_rate
from driftsim.simulation.scenario import with_engine
from driftsim.simulation.spec import ScenarioSpec, build_scenario
from driftsim.trace.settings import EngineSettings
from driftsim.workloads.workload import Workload
from driftsim.worth.plan import LIMITS, Limit

KEYS: dict[Limit, str] = {"slots": "max_num_seqs", "kv": "kv_blocks", "prefill": "max_num_batched_tokens"}
LEAST_GAIN = 0.05  # relative, of the rate at which a backlog is served


@dataclass(frozen=True)
class Engine:
    """An engine on which ``limit`` binds.

    changes: what differs from the profile's engine. backlog: requests/s that it serves of a backlog. gains: relative,
    of that rate, by twice as much of each limit.
    """

    limit: Limit
    changes: dict[str, int]
    backlog: float
    gains: dict[Limit, float]


@dataclass
class Bench:
    """Where engines are tried: a backlog, ``sample``, on variants of the engine of ``profile``, under ``spec``."""

    spec: ScenarioSpec
    profile: Profile
    sample: Workload
    _rates: dict[tuple[tuple[str, int], ...], float] = field(default_factory=dict)

    @cached_property
    def own(self) -> EngineSettings:
        """The engine's settings before any change."""
        return with_engine(self.profile, self.spec.engine).engine

    @cached_property
    def longest(self) -> int:
        """Tokens of the longest context that a request may come to, as far as the engine takes it."""
        table = self.sample.table
        tokens = int((table["prompt_tokens"] + table["max_tokens"]).max())
        return max(2, min(tokens, self.own.max_model_len))

    def blocks(self, tokens: float) -> int:
        """KV blocks that ``tokens`` take."""
        return int(np.ceil(tokens / self.own.block_size))

    def rate(self, changes: dict[str, int]) -> float:
        """Requests/s that the engine serves of the backlog with ``changes``."""
        name = tuple(sorted(changes.items()))
        if name not in self._rates:
            changed = self.spec.with_parts({"engine": {**self.spec.engine, **changes}})
            self._rates[name] = full_rate(self.sample, build_scenario(changed, self.profile))
        return self._rates[name]

    def first(self, limit: Limit) -> dict[str, int]:
        """The engine that is tried first: the KV cache roomy, or just enough for what the slots hold in the mean."""
        own = self.own
        roomy = own.max_num_seqs * self.blocks(self.longest) + 1
        if limit != "kv":
            return {"kv_blocks": max(own.kv_blocks, roomy)}
        table = self.sample.table
        mean = float((table["prompt_tokens"] + table["output_tokens"]).mean())
        blocks = min(own.kv_blocks, own.max_num_seqs * self.blocks(mean) + 1)
        return {"max_model_len": self.longest, "kv_blocks": max(blocks, self.least("kv"))}

    def least(self, limit: Limit) -> int:
        """The least of ``limit`` with which vLLM starts, and serves each request."""
        own = self.own
        if limit == "slots":
            return 1
        if limit == "kv":
            return self.blocks(self.longest) + 1
        return own.max_num_seqs if own.enable_chunked_prefill else max(own.max_num_seqs, own.max_model_len)

    def value(self, limit: Limit, changes: dict[str, int]) -> int:
        """How much of ``limit`` the engine has with ``changes``."""
        return changes.get(KEYS[limit], int(getattr(self.own, KEYS[limit])))

    def gains(self, changes: dict[str, int]) -> dict[Limit, float]:
        """What twice as much of each limit adds to the rate, relative."""
        found: dict[Limit, float] = {}
        for limit in LIMITS:
            more = changes | {KEYS[limit]: 2 * self.value(limit, changes)}
            if limit == "slots":  # vLLM wants a budget of at least the slots
                more[KEYS[limit]] = min(more[KEYS[limit]], self.value("prefill", changes))
            found[limit] = self.rate(more) / self.rate(changes) - 1
        return found

    def engine(self, limit: Limit) -> Engine | None:
        """An engine on which ``limit`` binds; None where none does."""
        changes, least = self.first(limit), self.least(limit)
        while True:
            gains = self.gains(changes)
            if gains[limit] >= LEAST_GAIN and gains[limit] == max(gains.values()):
                own = {key: value for key, value in changes.items() if value != getattr(self.own, key)}
                return Engine(limit, own, self.rate(changes), gains)
            value = self.value(limit, changes)
            if value <= least:
                return None
            changes = changes | {KEYS[limit]: max(least, value // 2)}
