"""Conformance: the simulated engine decides, step by step, as vLLM's own scheduler does on the same requests.

vLLM's V1 ``Scheduler`` runs without a model, its output faked; both sides count time in steps. CONFORMANCE_WORKLOADS
sets how many random workloads are compared (default 200).
"""

from __future__ import annotations

import itertools
import os
import random
from dataclasses import dataclass, field
from typing import Any

import pytest
import simpy

from driftsim.answer import MIRRORED_VLLM
from driftsim.engine.continuous import ARRIVE, ContinuousEngine, Moment
from driftsim.engine.sequence import Sequence
from driftsim.latency import LinearStepTime
from driftsim.request import Job, Request, Tier
from driftsim.trace import EngineSettings

pytestmark = pytest.mark.live
WORKLOADS = int(os.environ.get("CONFORMANCE_WORKLOADS", "200"))


@dataclass
class Decision:
    """One step: when, who computes how many tokens, who was preempted (in order), who finished."""

    step: int
    tokens: dict[str, int]
    preempted: list[str] = field(default_factory=list)
    finished: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Case:
    """Requests as (step of arrival, prompt, output) and the engine that serves them."""

    settings: EngineSettings
    requests: list[tuple[int, int, int]]


def case(seed: int) -> Case:
    """A random workload of 50 to 200 requests, on an engine that is often short of something."""
    dice = random.Random(seed)
    block = dice.choice([16, 16, 32])
    chunked = dice.random() < 0.75
    length = dice.choice([128, 256])
    settings = EngineSettings(
        version=MIRRORED_VLLM,
        max_num_seqs=dice.choice([2, 8, 16, 64]),
        max_num_batched_tokens=dice.choice([64, 100, 256]) if chunked else length,
        max_model_len=length,
        kv_blocks=1 + dice.choice([length // block, length // block + 3, 40, 400]),
        block_size=block,
        enable_chunked_prefill=chunked,
        long_prefill_token_threshold=dice.choice([0, 0, 17, 40]) if chunked else 0,
    )
    burst = dice.choice([1, 3, 12])
    step, requests = 0, []
    for _ in range(dice.randint(50, 200)):
        step += dice.choice([0, dice.randint(0, 2 * burst)])
        prompt = dice.randint(1, length - 2)
        requests.append((step, prompt, dice.randint(1, min(60, length - prompt))))
    return Case(settings, requests)


class Watched(ContinuousEngine):
    """Notes its decisions; it still jumps where nothing is decided, unless told to show every step."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.decisions: list[Decision] = []
        self.preempted: list[str] = []

    def _preempt(self, victim: Sequence) -> int:
        self.preempted.append(victim.job.request.id)
        return super()._preempt(victim)

    def _step(self, now: int, prefills: list[tuple[Sequence, int]], preempted: int) -> None:
        paused = set(self._paused)
        decoding = [one for one in self.running if one not in self.prefilling and one not in paused]
        tokens = {one.job.request.id: 1 for one in decoding} | {one.job.request.id: new for one, new in prefills}
        self.decisions.append(Decision(now, tokens, self.preempted))
        self.preempted = []
        super()._step(now, prefills, preempted)


def ours(made: Case) -> list[Decision]:
    env = simpy.Environment(initial_time=0)

    def left(sequences: list[Sequence]) -> None:
        engine.decisions[-1].finished.extend(sequence.job.request.id for sequence in sequences)

    engine = Watched(env, made.settings, LinearStepTime(1, 0, 0, 0), 0, left, lambda row: None)
    for number, (step, prompt, output) in enumerate(made.requests):
        job = Job(Request(str(number), "", Tier.STANDARD, "", 0.0, prompt, None, output), "", 0, 0)
        Moment(env, step, ARRIVE, lambda _, job=job, output=output: engine.submit(job, output))  # type: ignore[misc]
    env.run()
    return engine.decisions


@pytest.fixture(scope="module")
def vllm_scheduler() -> Any:
    """A function from settings to one of vLLM's schedulers."""
    os.environ |= {"VLLM_LOGGING_LEVEL": "ERROR", "HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
    import torch
    from vllm.config import CacheConfig, DeviceConfig, ModelConfig, SchedulerConfig, VllmConfig
    from vllm.v1.core.sched.scheduler import Scheduler
    from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
    from vllm.v1.structured_output import StructuredOutputManager

    from driftsim.live.model import smollm2

    model = ModelConfig(model=str(smollm2()), dtype="bfloat16", seed=0, max_model_len=256)

    def make(settings: EngineSettings) -> Any:
        model.max_model_len = settings.max_model_len
        scheduler = SchedulerConfig(
            max_num_seqs=settings.max_num_seqs,
            max_num_batched_tokens=settings.max_num_batched_tokens,
            max_model_len=settings.max_model_len,
            enable_chunked_prefill=settings.enable_chunked_prefill,
            long_prefill_token_threshold=settings.long_prefill_token_threshold,
            is_encoder_decoder=False,
        )
        cache = CacheConfig(block_size=settings.block_size, enable_prefix_caching=False)
        cache.num_gpu_blocks = settings.kv_blocks
        config = VllmConfig(
            model_config=model, scheduler_config=scheduler, cache_config=cache, device_config=DeviceConfig("cpu")
        )
        # Building a config may adjust what it was given; the comparison is with what was asked for.
        scheduler.enable_chunked_prefill = settings.enable_chunked_prefill
        scheduler.long_prefill_token_threshold = settings.long_prefill_token_threshold
        spec = FullAttentionSpec(block_size=settings.block_size, num_kv_heads=1, head_size=1, dtype=torch.float32)
        groups = [KVCacheGroupSpec(["layer"], spec)]
        blocks = KVCacheConfig(num_blocks=settings.kv_blocks, kv_cache_tensors=[], kv_cache_groups=groups)
        structured = StructuredOutputManager(config)
        return Scheduler(
            vllm_config=config, kv_cache_config=blocks, structured_output_manager=structured,
            block_size=settings.block_size, log_stats=False,
        )  # fmt: skip

    return make


def theirs(made: Case, scheduler: Any) -> list[Decision]:
    from vllm.sampling_params import SamplingParams
    from vllm.v1.outputs import ModelRunnerOutput
    from vllm.v1.request import Request as VllmRequest

    arrivals = list(enumerate(made.requests))
    decisions: list[Decision] = []
    preempted: list[str] = []
    step = 0
    while arrivals or scheduler.has_unfinished_requests():
        if not scheduler.has_unfinished_requests():
            step = max(step, arrivals[0][1][0])  # an idle engine starts at once
        while arrivals and arrivals[0][1][0] <= step:
            number, (_, prompt, output) = arrivals.pop(0)
            parameters = SamplingParams(max_tokens=output, ignore_eos=True)
            request = VllmRequest(str(number), list(range(prompt)), parameters, pooling_params=None)
            scheduler.add_request(request)
        before = {request.request_id: request.num_preemptions for request in scheduler.running}
        order = [request.request_id for request in scheduler.running]
        output = scheduler.schedule()
        gone = [name for name in reversed(order) if scheduler.requests[name].num_preemptions > before[name]]
        preempted += gone
        tokens = dict(output.num_scheduled_tokens)
        names = list(tokens)
        sampled = [
            [7] if scheduler.requests[n].num_computed_tokens >= scheduler.requests[n].num_tokens else [] for n in names
        ]
        index = {name: place for place, name in enumerate(names)}
        faked = ModelRunnerOutput(
            req_ids=names, req_id_to_index=index, sampled_token_ids=sampled, logprobs=None, prompt_logprobs_dict={},
            pooler_output=[],
        )  # fmt: skip
        results = scheduler.update_from_output(output, faked)
        if not tokens:  # a step that computes nothing takes no time
            continue
        ended = [one.request_id for core in results.values() for one in core.outputs if one.finish_reason is not None]
        decisions.append(Decision(step, tokens, preempted, ended))
        preempted = []
        step += 1
    return decisions


def test_the_mirrored_version_is_the_installed_one() -> None:
    import vllm

    assert vllm.__version__ == MIRRORED_VLLM


@pytest.mark.parametrize("block", range(10))
def test_every_decision_is_vllms(vllm_scheduler: Any, block: int) -> None:
    steps = preemptions = 0
    for seed in range(block * WORKLOADS // 10, (block + 1) * WORKLOADS // 10):
        made = case(seed)
        for mine, wanted in itertools.zip_longest(ours(made), theirs(made, vllm_scheduler(made.settings))):
            assert mine == wanted, f"seed {seed}, {made.settings}"
            steps += 1
            preemptions += len(wanted.preempted)
    if WORKLOADS >= 200:  # fewer need not hold enough of everything
        assert steps > 1000
        assert preemptions > 10
