"""The header of a trace: everything about a run that is not a row."""

from __future__ import annotations

import re
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from driftsim.errors import InputError
from driftsim.records import Record

GUESSES: dict[str, Any] = {
    "max_num_seqs": 256,
    "max_num_batched_tokens": 2048,
    "max_model_len": 8192,
    "block_size": 16,
}


class EngineSettings(Record):
    """What decides an engine's schedule, as read from the engine; the defaults are vLLM's where it has one."""

    name: str = "vllm"
    version: str = "unknown"
    max_num_seqs: int = Field(gt=0)
    max_num_batched_tokens: int = Field(gt=0)
    max_model_len: int = Field(gt=1)
    kv_blocks: int = Field(gt=1)  # as the engine counts them: one is the null block and holds nothing
    block_size: int = Field(gt=0)  # tokens
    enable_chunked_prefill: bool = True
    long_prefill_token_threshold: int = Field(default=0, ge=0)  # tokens; 0 is off
    scheduling_policy: Literal["fcfs", "priority"] = "fcfs"
    async_scheduling: bool = False
    enable_prefix_caching: bool = False
    scheduler_reserve_full_isl: bool = True  # admission asks for room for the whole prompt; older versions: the chunk
    watermark: float = Field(default=0.0, ge=0, lt=1)  # share of the KV blocks that admission leaves free
    assumed: tuple[str, ...] = ()  # settings that the engine did not tell, and that hold a guess

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
        it never binds. Raises ``ValidationError`` for what is no setting.
        """
        guesses = {"max_model_len": max(GUESSES["max_model_len"], longest), "async_scheduling": _is_async(told)}
        values: dict[str, Any] = GUESSES | guesses | told
        blocks = values["max_num_seqs"] * -(-values["max_model_len"] // values["block_size"]) + 1
        values.setdefault("kv_blocks", blocks)
        needed = (*GUESSES, "kv_blocks", "version", "enable_prefix_caching", "async_scheduling")
        assumed = tuple(setting for setting in needed if setting not in told)
        return cls(**{"name": name, "assumed": assumed} | values)

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

    ``open``: at recorded offsets from the phase's start, which is when the previous phase has sent its last request.
    ``after-drain``: likewise, but the phase starts when everything before it has left. ``backlog``: all at its start.
    ``closed``: each of ``users`` sends a request, waits for its end, thinks for ``think_s`` and sends the next.
    """

    name: str
    kind: Literal["open", "after-drain", "closed", "backlog"] = "open"
    requests: int = Field(gt=0)
    pause_s: float = Field(default=0.0, ge=0)  # between that condition and the phase's start
    start_s: float | None = None  # when it started, where recorded
    users: int = Field(default=0, ge=0)
    think_s: float = Field(default=0.0, ge=0)

    @model_validator(mode="after")
    def _has_users(self) -> Self:
        if self.kind == "closed" and self.users < 1:
            raise InputError(f"the closed phase {self.name!r} needs at least 1 user")
        return self


class WorkloadInfo(Record):
    """Where the requests of a run came from."""

    name: str
    loop: Literal["open", "closed"] = "open"
    phases: tuple[Phase, ...]

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        names = [phase.name for phase in self.phases]
        if len(set(names)) < len(names):
            raise InputError(f"two phases have the same name: {', '.join(names)}")
        return self


class MachineLoad(Record):
    """How busy the machine was during a capture, in cores; a disturbed capture had more foreign load than allowed."""

    cpu_count: int
    own_cpu_mean: float
    foreign_cpu_mean: float
    foreign_cpu_max: float
    foreign_cpu_limit: float
    disturbed: bool


class Header(Record):
    """Everything about a run that is not a row. Simulated headers hold no wall-clock time."""

    schema_version: Literal[1] = 1
    kind: Literal["captured", "simulated", "imported"]
    driftsim_version: str
    ended: Literal["recording", "complete", "interrupted", "failed"] = "complete"
    ended_why: str = ""
    engine: EngineSettings
    engine_arguments: dict[str, Any] = {}
    model: str = "unknown"
    hardware: str = "unknown"
    software: dict[str, str] = {}
    workload: WorkloadInfo
    admission: dict[str, Any] = {}  # policy, estimator, accounting and every switch
    max_in_flight: int | None = None  # None: no limit, the engine's own order
    seed: int | None = None
    profile_digest: str | None = None
    clocks: str = ""
    captured_at: str | None = None
    load: MachineLoad | None = None
    notes: tuple[str, ...] = ()
