"""The verb ``profile``: a profile of hardware that nobody has measured."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from driftsim.cli.options import IS_PROFILE, AsJson, ProfileFile
from driftsim.cli.terminal import check_file, say, say_document
from driftsim.latency.weights import WeightType


def profile(
    gpu: Annotated[str, typer.Option(help="T4, L4, A10G, L40S, A100, H100, H200 or 'RTX 4090'.")],
    model: Annotated[str, typer.Option(help="Hugging Face config.json, model folder, or a name in the local cache.")],
    out: ProfileFile = Path("profile.json"),
    dtype: Annotated[WeightType, typer.Option(help="How weights are stored.")] = "bf16",
    bandwidth_efficiency: Annotated[
        float | None, typer.Option(min=0.01, max=1, help="Share of the datasheet's bandwidth that is reached.")
    ] = None,
    compute_efficiency: Annotated[
        float | None, typer.Option(min=0.01, max=1, help="Share of the datasheet's FLOP/s that is reached.")
    ] = None,
    memory_fraction: Annotated[float, typer.Option(min=0.01, max=1, help="vLLM's gpu_memory_utilization.")] = 0.9,
    max_num_seqs: Annotated[int, typer.Option(min=1, help="Slots of the engine.")] = 256,
    max_num_batched_tokens: Annotated[
        int | None, typer.Option(min=1, help="Tokens of a step at most; vLLM's default for the GPU.")
    ] = None,
    max_model_len: Annotated[int | None, typer.Option(min=2, help="Longest context; the model's, if not told.")] = None,
    as_json: AsJson = False,
) -> None:
    """Derive a profile of hardware that nobody has measured, from its datasheet and the model's configuration."""
    from driftsim import api
    from driftsim.files import check_own
    from driftsim.formatting import dumps

    check_file(out)
    check_own(out, "profile", IS_PROFILE)
    efficiencies = {"bandwidth_efficiency": bandwidth_efficiency, "compute_efficiency": compute_efficiency}
    derived = api.derive_profile(
        gpu,
        model,
        dtype=dtype,
        memory_fraction=memory_fraction,
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=max_num_batched_tokens,
        max_model_len=max_model_len,
        **{name: value for name, value in efficiencies.items() if value is not None},
    )
    derived.save(out)
    if as_json:
        say_document(dumps(derived.model_dump(mode="json")))
        return
    say(f"{out}: {derived.model} on {gpu}, derived, not measured")
    say(f"  source: {derived.derived['gpu']}")
    step, context = 1e3 * derived.intercept_s, 1e9 * derived.context_token_s
    say(f"  a step that only decodes: {step:.2f} ms and {context:.3g} ns a token of context")
    say(f"  prefill: {1e6 * derived.prefill_token_s:.1f} us a token beyond {derived.hidden_tokens} in a step")
    kv = derived.engine.usable_kv_blocks * derived.engine.block_size
    say(f"  KV cache: {derived.engine.kv_blocks:,} blocks, {kv:,} tokens")
