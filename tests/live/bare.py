"""vLLM's own schedulers without a model: what they decide is theirs, what the model would have said is made up."""

from __future__ import annotations

import os
from collections.abc import Collection
from functools import lru_cache
from typing import Any

from driftsim.trace.settings import EngineSettings


def bare_scheduler(settings: EngineSettings, kind: type[Any] | None = None) -> Any:
    """A scheduler of vLLM for ``settings``: ``Scheduler`` or ``AsyncScheduler``, or the subclass ``kind``."""
    os.environ |= {"VLLM_LOGGING_LEVEL": "ERROR", "HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
    import torch
    from vllm.config import CacheConfig, DeviceConfig, ModelConfig, SchedulerConfig, VllmConfig
    from vllm.v1.core.sched.async_scheduler import AsyncScheduler
    from vllm.v1.core.sched.scheduler import Scheduler
    from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec, SlidingWindowSpec
    from vllm.v1.structured_output import StructuredOutputManager

    from driftsim.live.model import smollm2

    global _model
    if _model is None:
        _model = ModelConfig(model=str(smollm2()), dtype="bfloat16", seed=0, max_model_len=256)
    _model.max_model_len = settings.max_model_len
    scheduler = SchedulerConfig(
        max_num_seqs=settings.max_num_seqs,
        max_num_batched_tokens=settings.max_num_batched_tokens,
        max_model_len=settings.max_model_len,
        enable_chunked_prefill=settings.enable_chunked_prefill,
        long_prefill_token_threshold=settings.long_prefill_token_threshold,
        policy=settings.scheduling_policy,
        async_scheduling=settings.async_scheduling,
        scheduler_reserve_full_isl=settings.scheduler_reserve_full_isl,
        is_encoder_decoder=False,
        **{name: value for name, value in newer(settings).items() if name in SchedulerConfig.__dataclass_fields__},
    )
    cache = CacheConfig(block_size=settings.block_size, enable_prefix_caching=settings.enable_prefix_caching)
    cache.num_gpu_blocks = settings.kv_blocks
    config = VllmConfig(
        model_config=_model, scheduler_config=scheduler, cache_config=cache, device_config=DeviceConfig("cpu")
    )
    # Building a config may adjust what it was given; the comparison is with what was asked for.
    scheduler.enable_chunked_prefill = settings.enable_chunked_prefill
    scheduler.long_prefill_token_threshold = settings.long_prefill_token_threshold
    scheduler.long_prefill_token_threshold_adaptive = settings.long_prefill_token_threshold_adaptive
    scheduler.async_scheduling = settings.async_scheduling
    shape: dict[str, Any] = {
        "block_size": settings.block_size,
        "num_kv_heads": 1,
        "head_size": 1,
        "dtype": torch.float32,
    }
    window = settings.sliding_window
    spec = FullAttentionSpec(**shape) if window is None else SlidingWindowSpec(**shape, sliding_window=window)
    kept: dict[str, Any] = {"prefix_cache_retention_interval": settings.prefix_cache_retention_interval}
    blocks = KVCacheConfig(
        num_blocks=settings.kv_blocks,
        kv_cache_tensors=[],
        kv_cache_groups=[KVCacheGroupSpec(["layer"], spec)],
        **(kept if window is not None and set(kept) <= set(KVCacheConfig.__dataclass_fields__) else {}),
    )
    return (kind or (AsyncScheduler if settings.async_scheduling else Scheduler))(
        vllm_config=config,
        kv_cache_config=blocks,
        structured_output_manager=StructuredOutputManager(config),
        block_size=settings.block_size,
        log_stats=False,
    )


def newer(settings: EngineSettings) -> dict[str, Any]:
    """Settings that not every version of vLLM knows."""
    return {
        "watermark": settings.watermark,
        "long_prefill_token_threshold_adaptive": settings.long_prefill_token_threshold_adaptive,
        "max_num_active_seqs": settings.max_num_active_seqs,
        "max_num_scheduled_tokens": settings.max_num_scheduled_tokens,
        "prefill_schedule_interval": settings.prefill_schedule_interval,
    }


_model: Any = None


EOS, OTHER = 9, 7  # made-up tokens


def faked_output(
    scheduler: Any, output: Any, outputs: dict[str, list[int]] | None = None, samples: Collection[str] = ()
) -> Any:
    """What a model would return for ``output``: for each of ``samples`` the next token of its ``outputs``."""
    from vllm.v1.outputs import ModelRunnerOutput

    names = list(output.num_scheduled_tokens)

    def token(name: str) -> list[int]:
        if name not in samples:
            return []
        request = scheduler.requests.get(name)
        if request is None or outputs is None:
            return [OTHER]
        return [outputs[name][request.num_output_tokens]]

    return ModelRunnerOutput(
        req_ids=names,
        req_id_to_index={name: place for place, name in enumerate(names)},
        sampled_token_ids=[token(name) for name in names],
        logprobs=None,
        prompt_logprobs_dict={},
        pooler_output=[],
    )


def sampling(scheduler: Any, output: Any) -> set[str]:
    """Whose prompt is complete with the step just scheduled, so that it gets a token."""
    return {name for name in output.num_scheduled_tokens if not scheduler.requests[name].is_prefill_chunk}


def request(name: str, tokens: list[int], cap: int, arrival: float = 0.0, priority: int = 0, block: int = 0) -> Any:
    """A request of vLLM's for at most ``cap`` tokens, which the token ``EOS`` ends; with the keys of its blocks of
    ``block`` tokens, if that is given.
    """
    from vllm.sampling_params import SamplingParams
    from vllm.v1.request import Request

    parameters = SamplingParams(max_tokens=cap, ignore_eos=True, stop_token_ids=[EOS])
    hasher = block_hasher(block) if block else None
    return Request(
        name, tokens, parameters, pooling_params=None, arrival_time=arrival, priority=priority, block_hasher=hasher
    )


@lru_cache
def block_hasher(block: int) -> Any:
    """vLLM's own, for blocks of so many tokens."""
    from vllm.utils.hashing import sha256
    from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash

    init_none_hash(sha256)
    return get_request_block_hasher(block, sha256)


def core_request(name: str, tokens: list[int], cap: int, choices: int = 1) -> Any:
    """The same as vLLM's front end knows it."""
    from vllm.sampling_params import SamplingParams
    from vllm.v1.engine import EngineCoreRequest

    needed = EngineCoreRequest.__struct_fields__[: -len(EngineCoreRequest.__struct_defaults__)]
    values: dict[str, Any] = dict.fromkeys(needed)
    values |= {"request_id": name, "prompt_token_ids": tokens, "arrival_time": 0.0, "external_req_id": name}
    values["sampling_params"] = SamplingParams(n=choices, max_tokens=cap, ignore_eos=True, detokenize=False)
    return EngineCoreRequest(**values)
