"""The header of a trace: everything about a run that is not a row. What a key means stands in its description."""

from __future__ import annotations

import re
from typing import Any, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from driftsim.errors import InputError
from driftsim.records import Record
from driftsim.slo import Slos
from driftsim.tiers import TierRules
from driftsim.trace.schema import LARGEST_COUNT, LONGEST_S

GUESSES: dict[str, Any] = {
    "max_num_seqs": 256,
    "max_num_batched_tokens": 2048,
    "max_model_len": 8192,
    "block_size": 16,
}


LARGEST_BATCH = 10**6  # requests
LARGEST_BLOCK = 2**16  # tokens; vLLM's blocks hold 16 to some hundreds
SECONDS: dict[str, Any] = {"unit": "s"}
TOKENS: dict[str, Any] = {"unit": "tokens"}
REQUESTS: dict[str, Any] = {"unit": "requests"}
CORES: dict[str, Any] = {"unit": "cores"}


class EngineSettings(Record):
    """What decides an engine's schedule, as read from the engine; the defaults are vLLM's where it has one.

    >>> settings = EngineSettings(
    ...     max_num_seqs=8, max_num_batched_tokens=512, max_model_len=2048, kv_blocks=1001, block_size=16
    ... )
    >>> settings.usable_kv_blocks
    1000
    """

    name: str = Field(default="vllm", description="Name of the engine.")
    version: str = Field(default="unknown", description="Version of the engine.")
    max_num_seqs: int = Field(
        gt=0, le=LARGEST_BATCH, description="Largest batch: the engine's slots.", json_schema_extra=REQUESTS
    )
    max_num_batched_tokens: int = Field(
        gt=0, le=LARGEST_COUNT, description="Token budget of one step.", json_schema_extra=TOKENS
    )
    max_model_len: int = Field(
        gt=1, le=LARGEST_COUNT, description="Longest context, prompt plus output.", json_schema_extra=TOKENS
    )
    kv_blocks: int = Field(
        gt=1,
        le=LARGEST_COUNT,
        description="KV blocks as the engine counts them: one is vLLM's null block and holds nothing.",
        json_schema_extra={"unit": "blocks"},
    )
    block_size: int = Field(
        gt=0, le=LARGEST_BLOCK, description="Tokens that one KV block holds.", json_schema_extra=TOKENS
    )
    enable_chunked_prefill: bool = Field(default=True, description="Whether one step may compute a part of a prompt.")
    long_prefill_token_threshold: int = Field(
        default=0,
        ge=0,
        description="Longest part of a prompt in one step; 0 sets no limit.",
        json_schema_extra=TOKENS,
    )
    scheduling_policy: Literal["fcfs", "priority"] = Field(
        default="fcfs", description="Order in which the engine itself serves its waiting requests."
    )
    async_scheduling: bool = Field(
        default=False, description="Whether the engine schedules a step while the previous one still runs."
    )
    enable_prefix_caching: bool = Field(
        default=False, description="Whether the engine shares the KV blocks of equal beginnings of prompts."
    )
    scheduler_reserve_full_isl: bool = Field(
        default=True,
        description="Whether the engine admits a request only if its whole prompt fits; older versions ask for the "
        "first part only.",
    )
    watermark: float = Field(default=0.0, ge=0, lt=1, description="Share of the KV blocks that admission leaves free.")
    assumed: tuple[str, ...] = Field(
        default=(), description="Names of the settings that the engine did not tell; their values are guesses."
    )

    @model_validator(mode="after")
    def _as_vllm_demands(self) -> Self:  # vllm/config/scheduler.py, verify_max_model_len
        budget = self.max_num_batched_tokens
        if budget < self.max_num_seqs:
            raise InputError(f"max_num_batched_tokens {budget} is below max_num_seqs {self.max_num_seqs}")
        if not self.enable_chunked_prefill and budget < self.max_model_len:
            raise InputError(
                f"max_num_batched_tokens {budget} is below max_model_len {self.max_model_len}, "
                "which needs chunked prefill"
            )
        return self

    @classmethod
    def guessed(cls, told: dict[str, Any], name: str = "unknown", longest: int = 0) -> Self:
        """Settings of which only some are ``told``: vLLM's defaults for the others, named in ``assumed``.

        The model length is at least ``longest``, the tokens of the longest request.

        The defaults are those on a GPU of the L4's class (vllm/engine/arg_utils.py); the KV cache is then so large that
        it never binds. Raises ``InputError`` for what is no setting.
        """
        guesses = {"max_model_len": max(GUESSES["max_model_len"], longest), "async_scheduling": _is_async(told)}
        values: dict[str, Any] = GUESSES | guesses | told
        slots, longest_context, size = (values[name] for name in ("max_num_seqs", "max_model_len", "block_size"))
        if all(isinstance(value, int) and value > 0 for value in (slots, longest_context, size)):
            values.setdefault("kv_blocks", slots * -(-longest_context // size) + 1)
        needed = (*GUESSES, "kv_blocks", "version", "enable_prefix_caching", "async_scheduling")
        assumed = tuple(setting for setting in needed if setting not in told)
        return cls(**{"name": name, "assumed": assumed} | values)

    @property
    def why_not_started(self) -> str:
        """Why vLLM would not start this engine, with its remedy; empty if it would.

        The longest context must fit the KV cache (vllm/v1/core/kv_cache_utils.py, check_enough_kv_cache_memory).
        """
        room = self.usable_kv_blocks * self.block_size
        if self.max_model_len > room:
            return (
                f"vLLM would not start this engine: a context of max_model_len {self.max_model_len:,} tokens does not "
                f"fit its KV cache of {room:,}; lower max_model_len to at most {room:,}, or raise the KV blocks"
            )
        return ""

    def check_starts(self) -> None:
        """Raise ``InputError`` if vLLM would not start this engine."""
        if self.why_not_started:
            raise InputError(self.why_not_started)

    def check_simulated(self) -> None:
        """Raise ``InputError`` if the simulated engine cannot be this one."""
        if self.enable_prefix_caching:
            raise InputError("the engine has enable_prefix_caching on, which is not simulated; record with it off")

    @property
    def usable_kv_blocks(self) -> int:
        """Blocks that can hold tokens: all but vLLM's null block (vllm/v1/core/block_pool.py)."""
        return self.kv_blocks - 1


def _is_async(told: dict[str, Any]) -> bool:
    """Whether an engine of the version ``told`` schedules asynchronously by default: vLLM does on GPUs since 0.14."""
    found = re.match(r"v?(\d+)\.(\d+)", str(told.get("version", "")))
    return found is not None and (int(found[1]), int(found[2])) >= (0, 14)


class Phase(Record):
    """A stretch of a workload and the rule by which its requests arrive.

    >>> Phase(name="chat", kind="closed", requests=100, users=8, think_s=2.0).users
    8
    """

    name: str = Field(description="Name of the phase, which the column `phase` of its requests holds.")
    kind: Literal["open", "after-drain", "closed", "capped", "backlog"] = Field(
        default="open",
        description="How requests arrive. `open`: at recorded offsets from the phase's start, which is when the "
        "previous phase has sent its last request. `after-drain`: likewise, but the phase starts when every earlier "
        "request has left. `backlog`: all at the phase's start. `closed`: each user sends a request, waits for its "
        "end, thinks and sends the next. `capped`: at offsets as `open`, but held back while `users` requests are out.",
    )
    requests: int = Field(
        gt=0, le=LARGEST_COUNT, description="Number of requests of the phase.", json_schema_extra=REQUESTS
    )
    pause_s: float = Field(
        default=0.0,
        ge=0,
        le=LONGEST_S,
        description="Time between the condition that starts the phase and its start.",
        json_schema_extra=SECONDS,
    )
    start_s: float | None = Field(
        default=None,
        ge=0,
        le=LONGEST_S,
        description="When the phase started, where that was recorded.",
        json_schema_extra=SECONDS,
    )
    users: int = Field(
        default=0,
        ge=0,
        le=LARGEST_COUNT,
        description="Users of a closed phase; of a capped one, the most requests out at once.",
    )
    think_s: float = Field(
        default=0.0,
        ge=0,
        le=LONGEST_S,
        description="Time between the end of a user's request and the next one, in a closed phase.",
        json_schema_extra=SECONDS,
    )

    @model_validator(mode="after")
    def _has_users(self) -> Self:
        if self.kind in ("closed", "capped") and self.users < 1:
            raise InputError(f"the {self.kind} phase {self.name!r} needs at least 1 user")
        return self


class WorkloadInfo(Record):
    """Where the requests of a run came from."""

    name: str = Field(description="Name of the workload.")
    loop: Literal["open", "closed"] = Field(
        default="open", description="Whether arrivals wait for nothing (open) or for answers (closed)."
    )
    phases: tuple[Phase, ...] = Field(description="Phases of the workload, in order.")

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        names = [phase.name for phase in self.phases]
        if len(set(names)) < len(names):
            raise InputError(f"two phases have the same name: {', '.join(names)}")
        return self


class MachineLoad(Record):
    """How busy the machine was during a capture."""

    cpu_count: int = Field(gt=0, description="Cores of the machine.", json_schema_extra=CORES)
    own_cpu_mean: float = Field(
        ge=0, description="Mean CPU that driftsim, the engine and their children used.", json_schema_extra=CORES
    )
    foreign_cpu_mean: float = Field(ge=0, description="Mean CPU that all others used.", json_schema_extra=CORES)
    foreign_cpu_max: float = Field(ge=0, description="Largest sample of it.", json_schema_extra=CORES)
    foreign_cpu_limit: float = Field(
        ge=0, description="Largest mean at which a capture counts as undisturbed.", json_schema_extra=CORES
    )
    disturbed: bool = Field(description="Whether the mean was above that limit.")


class Turn(Record):
    """Where a run stood in a capture of several policies in turn."""

    round: int = Field(ge=1, description="Round of the run; every policy runs once in each.")
    position: int = Field(ge=1, description="Position of the run within its round.")
    order: Literal["latin", "random", "fixed"] = Field(
        description="How positions were given out: `latin`, a Latin square balanced for carry-over; `random`, drawn "
        "for each round; `fixed`, the same in every round."
    )


class Header(Record):
    """Everything about a run that is not a row. Simulated headers hold no wall-clock time."""

    schema_version: Literal[1] = Field(default=1, description="Version of the trace's schema.")
    kind: Literal["captured", "simulated", "imported"] = Field(description="Where the trace came from.")
    driftsim_version: str = Field(description="Version of driftsim that wrote the trace.")
    ended: Literal["recording", "complete", "interrupted", "failed"] = Field(
        default="complete", description="How the run ended; `recording`: it goes on, or it was killed."
    )
    ended_why: str = Field(default="", description="Why a run ended that was interrupted or failed.")
    engine: EngineSettings = Field(description="Settings of the engine that decide its schedule.")
    engine_arguments: dict[str, Any] = Field(default={}, description="Arguments that the engine was started with.")
    model: str = Field(default="unknown", description="Model that served the requests.")
    hardware: str = Field(default="unknown", description="Hardware that served the requests.")
    software: dict[str, str] = Field(default={}, description="Versions of the software that ran.")
    workload: WorkloadInfo = Field(description="Where the requests came from.")
    admission: dict[str, Any] = Field(
        default={}, description="Policy, estimator and every switch of admission, by the names of a scenario's keys."
    )
    max_in_flight: int | None = Field(
        default=None,
        gt=0,
        description="Most requests that the dispatcher let into the engine at once; none: no limit, the engine's own "
        "order.",
        json_schema_extra=REQUESTS,
    )
    tiers: TierRules = Field(
        default=(),
        description="Rules of the tiers, the most urgent first; none where nobody gave any, and then the header lacks "
        "the key.",
    )
    slos: Slos = Field(
        default=(),
        description="SLOs of tenants and tiers, as tables or as texts `premium:ttft=1s,e2e=30s`; none where nobody "
        "gave any, and then the header lacks the key.",
    )
    seed: int | None = Field(default=None, description="Seed of everything random in the run.")
    profile_digest: str | None = Field(default=None, description="SHA-256 of the profile of a simulated run.")
    clocks: str = Field(default="", description="What the times count from, and whose clock they are.")
    captured_at: str | None = Field(default=None, description="Date and time at which a captured run began.")
    turn: Turn | None = Field(
        default=None,
        description="Where a run stood in a capture of several; none where it ran alone or before this was written "
        "down, and then the header lacks the key.",
    )
    load: MachineLoad | None = Field(default=None, description="How busy the machine was during a capture.")
    notes: tuple[str, ...] = Field(default=(), description="What a reader of the trace must know.")
    caveats: tuple[str, ...] = Field(
        default=(), description="What an import dropped, changed or guessed; every verb that uses the trace says it."
    )

    @model_serializer(mode="wrap")
    def _without_idle_keys(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A header that has no tiers, SLOs, caveats or turn is written as it was before there were keys for them."""
        written: dict[str, Any] = plain(self)
        return {
            key: value for key, value in written.items() if value or key not in ("tiers", "slos", "caveats", "turn")
        }

    def as_json(self) -> str:
        """The header as its file holds it."""
        return self.model_dump_json(indent=1) + "\n"
