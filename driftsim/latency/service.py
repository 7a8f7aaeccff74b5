"""The seconds of service that a request takes of an engine: what a policy counts as its size."""

from __future__ import annotations

import math

from driftsim.latency.profile import Profile
from driftsim.request import Job
from driftsim.scheduling.around import Service


def service_of(profile: Profile, words_per_token: float | None = None, slots: int | None = None) -> Service:
    """Seconds of service of a job, by ``profile``: the prefill of its uncached tokens, and its share of decode steps.

    A step's constant cost is shared by ``slots`` requests, as on a busy engine (default: the engine's slots); with one
    slot it is the time that the request takes alone, in steps that nothing hides or pads. Where the engine caches
    prefixes, the tokens that an earlier request had count as cached; whether they still are, only the engine knows.
    ``words_per_token`` turns an estimate in words into tokens.
    """
    engine = profile.engine
    share = (profile.intercept_s + (0.0 if engine.async_scheduling else profile.gap_s)) / (slots or engine.max_num_seqs)
    chunk = engine.max_num_batched_tokens

    def service(job: Job, length: float | None = None) -> float:
        prompt = job.request.prompt_tokens
        output = max(1.0, (job.estimate if length is None else length) / (words_per_token or 1.0))
        cached = _seen_before(job, engine.block_size) if engine.enable_prefix_caching else 0
        new = prompt - cached
        steps = math.ceil(new / chunk)
        attention = new * (cached + (new + 1) / 2) * profile.prefill_attention_s
        prefill = new * profile.prefill_token_s + steps * (share + profile.prefill_step_s) + attention
        if new > profile.graph_tokens:  # computed while it is launched
            prefill = max(prefill, steps * profile.launch_s)
        context = prompt + output / 2  # of the mean decode step, of which there are output - 1
        each = share + profile.decode_request_s + context * profile.context_token_s
        return prefill + (output - 1) * each

    return service


def _seen_before(job: Job, block: int) -> int:
    """Tokens of the prompt, in whole blocks, that an earlier request had; the last token is always computed."""
    stretches, prompt = job.request.stretches, job.request.prompt_tokens
    if len(stretches) < 2:
        return 0
    return min(stretches[-2][1], prompt - 1) // block * block
