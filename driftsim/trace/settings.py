"""The settings of an engine that decide its schedule. What a key means stands in its description."""

from __future__ import annotations

import re
from typing import Any, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from driftsim.errors import InputError
from driftsim.records import Record
from driftsim.trace.schema import LARGEST_COUNT

GUESSES: dict[str, Any] = {
    "max_num_seqs": 256,
    "max_num_batched_tokens": 2048,
    "max_model_len": 8192,
    "block_size": 16,
}


LARGEST_BATCH = 10**6  # requests
LARGEST_BLOCK = 2**16  # tokens; vLLM's blocks hold 16 to some hundreds
NEWER = {  # settings that are written where they are not this
    "long_prefill_token_threshold_adaptive": False,
    "max_num_active_seqs": None,
    "max_num_scheduled_tokens": None,
    "prefill_schedule_interval": 1,
    "max_num_queued_reqs": None,
    "max_num_queued_tokens": None,
    "sliding_window": None,
    "prefix_cache_retention_interval": 0,
}
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
        description="Whether the engine admits a request only if its whole prompt fits, or already if the first part "
        "does.",
    )
    long_prefill_token_threshold_adaptive: bool = Field(
        default=False, description="Whether that limit is at least the token budget over all requests in the engine."
    )
    max_num_active_seqs: int | None = Field(
        default=None,
        gt=0,
        le=LARGEST_BATCH,
        description="Most requests that run at once, where that is less than the slots.",
        json_schema_extra=REQUESTS,
    )
    max_num_scheduled_tokens: int | None = Field(
        default=None,
        gt=0,
        le=LARGEST_COUNT,
        description="Most tokens that one step computes, where that is less than its token budget.",
        json_schema_extra=TOKENS,
    )
    prefill_schedule_interval: int = Field(
        default=1,
        gt=0,
        le=LARGEST_COUNT,
        description="Fewest steps from one that computes prompts to the next while others decode, from vLLM 0.33 on.",
        json_schema_extra={"unit": "steps"},
    )
    max_num_queued_reqs: int | None = Field(
        default=None,
        gt=0,
        le=LARGEST_COUNT,
        description="Requests in the server from which on it turns others away, with status 503.",
        json_schema_extra=REQUESTS,
    )
    max_num_queued_tokens: int | None = Field(
        default=None,
        gt=0,
        le=LARGEST_COUNT,
        description="Prompt tokens without an answer in the server from which on it turns requests away.",
        json_schema_extra=TOKENS,
    )
    sliding_window: int | None = Field(
        default=None,
        gt=0,
        le=LARGEST_COUNT,
        description="Tokens that every layer of the model looks back, where all have that limit; KV blocks behind are "
        "free again.",
        json_schema_extra=TOKENS,
    )
    prefix_cache_retention_interval: int | None = Field(
        default=0,
        ge=0,
        le=LARGEST_COUNT,
        description="With a sliding window and prefix caching: tokens between places at which a prefix can be found "
        "again; 0: at the ends of prompts alone, null: everywhere. From vLLM 0.29 on; before, everywhere.",
        json_schema_extra=TOKENS,
    )
    watermark: float = Field(default=0.0, ge=0, lt=1, description="Share of the KV blocks that admission leaves free.")
    assumed: tuple[str, ...] = Field(
        default=(), description="Names of the settings that the engine did not tell; their values are guesses."
    )

    @model_serializer(mode="wrap")
    def _without_idle_keys(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Settings that an engine does not use are not written: headers from before they were known stay the same."""
        written: dict[str, Any] = plain(self)
        return {key: value for key, value in written.items() if key not in NEWER or value != NEWER[key]}

    @model_validator(mode="after")
    def _as_vllm_demands(self) -> Self:  # vllm/config/scheduler.py, verify_max_model_len
        budget = self.max_num_batched_tokens
        if budget < self.max_num_seqs:
            raise InputError(f"max_num_batched_tokens {budget} is below max_num_seqs {self.max_num_seqs}")
        active = self.max_num_active_seqs
        if active is not None and active > self.max_num_seqs:
            raise InputError(f"max_num_active_seqs {active} is above max_num_seqs {self.max_num_seqs}")
        interval = self.prefix_cache_retention_interval or 0
        if interval % self.block_size:  # vllm/v1/core/kv_cache_coordinator.py
            raise InputError(
                f"prefix_cache_retention_interval {interval} is no multiple of block_size {self.block_size}"
            )
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
    def sheds(self) -> bool:
        """Whether the engine's server turns requests away while it holds too much."""
        return self.max_num_queued_reqs is not None or self.max_num_queued_tokens is not None

    @property
    def slides(self) -> bool:
        """Whether a sliding window decides which blocks are kept: one as long as the model frees none, but still says
        which can be found again.
        """
        window = self.sliding_window
        return window is not None and (window < self.max_model_len or self.enable_prefix_caching)

    def window_blocks(self, settled: bool = True) -> int:
        """KV blocks that a request needs at most at once, with a sliding window (vllm/v1/kv_cache_interface.py).

        ``settled``: blocks are freed behind what is computed, as from vLLM 0.26 on, so that steps under way hold some.
        """
        under_way = self.max_num_batched_tokens * (2 if settled and self.async_scheduling else 1)
        tokens = min((self.sliding_window or self.max_model_len) - 1 + under_way, self.max_model_len)
        return -(-tokens // self.block_size) + 1

    @property
    def why_not_started(self) -> str:
        """Why vLLM would not start this engine, with its remedy; empty if it would.

        The longest context must fit the KV cache (vllm/v1/core/kv_cache_utils.py, check_enough_kv_cache_memory).
        """
        room = self.usable_kv_blocks * self.block_size
        fits = self.slides and self.window_blocks() <= self.kv_blocks
        if self.max_model_len > room and not fits:
            return (
                f"vLLM would not start this engine: a context of max_model_len {self.max_model_len:,} tokens does not "
                f"fit its KV cache of {room:,}; lower max_model_len to at most {room:,}, or raise the KV blocks"
            )
        return ""

    def check_starts(self) -> None:
        """Raise ``InputError`` if vLLM would not start this engine."""
        if self.why_not_started:
            raise InputError(self.why_not_started)

    @property
    def usable_kv_blocks(self) -> int:
        """Blocks that can hold tokens: all but vLLM's null block (vllm/v1/core/block_pool.py)."""
        return self.kv_blocks - 1


def _is_async(told: dict[str, Any]) -> bool:
    """Whether an engine of the version ``told`` schedules asynchronously by default: vLLM does on GPUs since 0.14."""
    found = re.match(r"v?(\d+)\.(\d+)", str(told.get("version", "")))
    return found is not None and (int(found[1]), int(found[2])) >= (0, 14)
