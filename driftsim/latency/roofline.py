"""A profile of hardware that nobody has measured yet: a roofline, from a datasheet and a model's configuration.

A step reads every weight once and computes every token; whichever takes longer is its time (Williams, Waterman and
Patterson 2009). On top it reads the KV cache of whoever decodes. How much of the datasheet's bandwidth and compute is
reached are two efficiencies, which can be fitted; everything else is counted.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import Field

from driftsim.errors import InputError
from driftsim.latency.profile import Profile
from driftsim.latency.weights import WeightType
from driftsim.records import Record, parsed_json
from driftsim.trace.schema import LARGEST_COUNT
from driftsim.trace.settings import EngineSettings

GIB = 2**30
# NVIDIA L4, Qwen2.5-7B, vLLM 0.11: experiments/first_principles.py fits them.
BANDWIDTH_EFFICIENCY = 0.83
COMPUTE_EFFICIENCY = 0.35
STEP_OVERHEAD_S = 1e-3  # of the host, a step
ACTIVATIONS_GIB = 1.0  # that vLLM sets aside beside weights and KV cache


class Gpu(Record):
    """A GPU as its maker describes it; units in data/gpus.toml."""

    bandwidth: float = Field(gt=0)
    fp16: float = Field(gt=0)
    fp8: float | None = None
    memory: float = Field(gt=0)
    batched_tokens: int = Field(gt=0)
    source: str


def gpus() -> dict[str, Gpu]:
    """All GPUs that are known, by name."""
    content = tomllib.loads((files("driftsim.latency") / "gpus.toml").read_text(encoding="utf-8"))
    return {name: Gpu.model_validate(values) for name, values in content.items()}


@dataclass(frozen=True, slots=True)
class Shape:
    """What a decoder's configuration says of its size."""

    name: str
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head: int
    vocabulary: int
    tied: bool
    positions: int

    @property
    def layer_weights(self) -> int:
        """Weights of all layers: projections of attention and the gated feed-forward network."""
        attention = self.hidden * self.head * (2 * self.heads + 2 * self.kv_heads)
        return self.layers * (attention + 3 * self.hidden * self.intermediate)

    @property
    def output_weights(self) -> int:
        """Weights of the output layer, which every step reads."""
        return self.hidden * self.vocabulary

    @property
    def stored_weights(self) -> int:
        """All weights in memory: an input embedding of its own where the two are not tied."""
        return self.layer_weights + self.output_weights * (1 if self.tied else 2)

    @property
    def kv_bytes(self) -> int:
        """Bytes of KV cache a token, in 16 bits."""
        return 2 * 2 * self.layers * self.kv_heads * self.head


def shape_of(config: str) -> Shape:
    """The shape of a model, from the folder, file or cached name of its Hugging Face configuration; never downloaded.

    Raises ``InputError`` if it is not found, or is no dense decoder.
    """
    path = Path(config)
    content: dict[str, Any]
    if path.is_file():
        try:
            content = parsed_json(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputError(f"{config}: is not JSON ({error})") from None
    else:
        content = _auto_config(config)
    if not isinstance(content, dict):
        raise InputError(f"{config}: is no configuration of a model, which is a JSON object")
    needed = ("num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads", "vocab_size")
    missing = [key for key in needed if content.get(key) is None]
    if missing:
        raise InputError(f"{config}: has no {missing[0]!r}; only dense decoder models can be derived")
    optional = ("num_key_value_heads", "head_dim", "max_position_embeddings")
    wrong = [key for key in (*needed, *optional) if content.get(key) is not None and not _counts(content[key])]
    if wrong:
        raise InputError(
            f"{config}: {wrong[0]} is {content[wrong[0]]!r}, not a whole number from 1 to {LARGEST_COUNT:g}"
        )
    experts = [key for key in content if "expert" in key and content[key]]
    if experts:
        raise InputError(f"{config}: is a mixture of experts ({experts[0]}); only dense decoder models can be derived")
    heads = int(content["num_attention_heads"])
    if not content.get("head_dim") and heads > content["hidden_size"]:
        raise InputError(f"{config}: hidden_size {content['hidden_size']} is below num_attention_heads {heads}")
    return Shape(
        name=str(content.get("_name_or_path") or path.resolve().name if path.exists() else config),
        layers=int(content["num_hidden_layers"]),
        hidden=int(content["hidden_size"]),
        intermediate=int(content["intermediate_size"]),
        heads=heads,
        kv_heads=int(content.get("num_key_value_heads") or heads),
        head=int(content.get("head_dim") or content["hidden_size"] // heads),
        vocabulary=int(content["vocab_size"]),
        tied=bool(content.get("tie_word_embeddings", False)),
        positions=int(content.get("max_position_embeddings", 8192)),
    )


def _counts(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= LARGEST_COUNT


def _auto_config(name: str) -> dict[str, Any]:
    try:
        from transformers import AutoConfig
    except ModuleNotFoundError:
        raise InputError(
            f"{name}: is no file; give a config.json, or install driftsim[tokenizer] for folders and cached names"
        ) from None
    try:
        return dict(AutoConfig.from_pretrained(name, local_files_only=True).to_dict())
    except (OSError, ValueError) as error:
        raise InputError(
            f"{name}: no configuration of a model there or in the local cache ({str(error).splitlines()[0]})"
        ) from None


class Assumptions(Record):
    """What a datasheet does not say."""

    dtype: WeightType = "bf16"
    bandwidth_efficiency: float = Field(default=BANDWIDTH_EFFICIENCY, gt=0, le=1)
    compute_efficiency: float = Field(default=COMPUTE_EFFICIENCY, gt=0, le=1)
    step_overhead_s: float = Field(default=STEP_OVERHEAD_S, ge=0)
    memory_fraction: float = Field(default=0.9, gt=0, le=1)
    activations_gib: float = Field(default=ACTIVATIONS_GIB, ge=0)
    max_num_seqs: int = Field(default=256, gt=0)
    max_num_batched_tokens: int | None = Field(default=None, gt=0)
    max_model_len: int | None = Field(default=None, gt=1)
    block_size: int = Field(default=16, gt=0)
    version: str = "unknown"


def _engine(gpu: Gpu, shape: Shape, assumed: Assumptions, kv_blocks: int) -> EngineSettings:
    """The engine that vLLM would make; a step takes at least a token of every slot, unless that is told otherwise."""
    return EngineSettings.guessed(
        {
            "version": assumed.version,
            "max_num_seqs": assumed.max_num_seqs,
            "max_num_batched_tokens": assumed.max_num_batched_tokens or max(gpu.batched_tokens, assumed.max_num_seqs),
            "max_model_len": assumed.max_model_len or shape.positions,
            "block_size": assumed.block_size,
            "kv_blocks": kv_blocks,
        },
        name="vllm",
    )


def derive(gpu_name: str, shape: Shape, assumed: Assumptions) -> Profile:
    """The roofline profile of ``shape`` on a GPU. Raises ``InputError`` if the GPU is unknown or too small."""
    known = gpus()
    if gpu_name not in known:
        raise InputError(f"unknown GPU {gpu_name!r}; choose one of {', '.join(known)}")
    gpu = known[gpu_name]
    eight = assumed.dtype == "fp8"
    layer_bytes = shape.layer_weights * (1 if eight else 2)
    stored = layer_bytes + 2 * (shape.stored_weights - shape.layer_weights)
    read = layer_bytes + 2 * shape.output_weights
    bandwidth = 1e9 * gpu.bandwidth * assumed.bandwidth_efficiency
    compute = 1e12 * (gpu.fp8 if eight and gpu.fp8 else gpu.fp16) * assumed.compute_efficiency
    token_s = 2 * shape.layer_weights / compute
    pair_s = 4 * shape.layers * shape.heads * shape.head / (1e12 * gpu.fp16 * assumed.compute_efficiency)
    weights_s = read / bandwidth
    spare = gpu.memory * 2**20 * assumed.memory_fraction - stored - assumed.activations_gib * GIB
    blocks = int(spare // (shape.kv_bytes * assumed.block_size))
    if blocks < 2:
        raise InputError(
            f"{shape.name} takes {stored / GIB:.1f} GiB in {assumed.dtype}, which leaves a {gpu_name} no room for a KV "
            "cache; try --dtype fp8 or a larger GPU"
        )
    engine = _engine(gpu, shape, assumed, blocks)
    engine.check_starts()
    return Profile(
        model=shape.name,
        hardware=gpu_name,
        engine=engine,
        intercept_s=assumed.step_overhead_s + weights_s,
        prefill_token_s=token_s,
        decode_request_s=0.0,
        context_token_s=shape.kv_bytes / bandwidth,
        prefill_attention_s=pair_s,  # a query times a key, and a weight times a value, in every head and layer
        hidden_tokens=max(1, round(weights_s / token_s)),
        derived={
            "gpu": gpu.source,
            "dtype": assumed.dtype,
            "weights_gib": round(stored / GIB, 3),
            "kv_bytes_per_token": shape.kv_bytes,
            "bandwidth_efficiency": assumed.bandwidth_efficiency,
            "compute_efficiency": assumed.compute_efficiency,
            "step_overhead_s": assumed.step_overhead_s,
            "memory_fraction": assumed.memory_fraction,
            "activations_gib": assumed.activations_gib,
        },
        warnings=("derived from a datasheet, not measured: KV capacity and step times are estimates",),
    )
