"""A GPU for tests, richer than any model fitted to it: a smooth roofline, CUDA graph sizes, noise that lasts."""

from __future__ import annotations

from typing import Any

import numpy as np

from driftsim.latency.steptime import Batch
from driftsim.simulation.run import Simulation
from driftsim.simulation.scenario import Scenario
from driftsim.trace.trace import Trace
from tests.stepwise import StepwiseAsyncEngine, StepwiseEngine
from tests.strategies import engine, profile, workload

HTTP_S = 0.004  # of a request's life, spent outside the engine
OUTPUT_S = 0.0006  # until a token is stamped, in process


class Gpu:
    """Step times of about an RTX PRO 6000 with an 8B model."""

    def __init__(self, seed: int, noise: float = 0.01) -> None:
        self.random = np.random.default_rng(seed)
        self.noise = noise
        self.last = 0.0

    def step(self, batch: Batch) -> int:
        size = batch.decode_requests if batch.decode_requests < 8 else -(-batch.decode_requests // 8) * 8
        computed = 37e-6 * (batch.prefill_tokens + size)
        seconds: float = 1.5e-3 + (9e-3**6 + computed**6) ** (1 / 6) + 25e-6 * size + 2e-8 * batch.context_tokens
        seconds += 1.5e-9 * batch.prefill_attention + (2e-3 if batch.prefill_tokens else 0.0)
        self.last = 0.7 * self.last + self.noise * float(self.random.normal())
        return round(seconds * float(np.exp(self.last)) * 1e12)


def served(rate: float, count: int, seed: int, anchor: str = "received", **settings: Any) -> Trace:
    """``count`` requests at ``rate`` a second through that GPU; about 18 a second saturate it.

    anchor: arrivals are the core's receipts (``received``), or a client's clock over ``http``, which sees no more.
    """
    random = np.random.default_rng(seed)
    prompts = np.clip(random.lognormal(np.log(500) - 0.32, 0.8, count), 8, 4000).astype(int)
    outputs = np.clip(random.lognormal(np.log(200) - 0.25, 0.7, count), 2, 1500).astype(int)
    arrivals = np.cumsum(random.exponential(1 / rate, count))
    plain = {
        "max_num_seqs": 128, "max_num_batched_tokens": 2048, "max_model_len": 8192, "kv_blocks": 20000,
        "async_scheduling": True,
    }  # fmt: skip
    made = engine(**plain | settings)
    work = workload(
        arrivals.tolist(), outputs.tolist(), prompt_tokens=prompts, prompt_words=prompts, max_tokens=outputs
    )
    lag = HTTP_S / 2 if anchor == "http" else 0.0
    scenario = Scenario(profile=profile(made, submit_lag_s=lag), policy="stock")
    kind = StepwiseAsyncEngine if made.async_scheduling else StepwiseEngine
    simulation = Simulation(scenario, work, record_steps=True, engine=kind)
    simulated: Any = simulation.engine
    simulated.step_time = Gpu(seed + 1000)
    run = simulation.run()
    rows = run.requests.copy()
    late = OUTPUT_S if anchor == "received" else HTTP_S / 2 + np.abs(random.normal(0, 0.0005, count))
    rows["first_token_s"] += late
    rows["finish_s"] += late
    if anchor == "received":
        rows["arrival_s"], rows["dispatch_s"] = rows["queued_s"], np.nan
    else:
        rows["dispatch_s"] = rows["arrival_s"]
        rows[["queued_s", "scheduled_s"]] = np.nan
    header = run.header.changed(kind="imported", admission={}, max_in_flight=None, profile_digest=None)
    return Trace(header, rows, run.steps if anchor == "received" else None)
