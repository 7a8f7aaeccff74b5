"""GPUs of which the truth is richer than any form, quick enough for many runs: a step is simulated in a call.

A roofline, sharp or smooth, with quadratic attention; then what no form has or has only in part: overhead of the host,
sizes of CUDA graphs, a cost of each request that prefills, noise that lasts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from driftsim.latency.noise import Noise, NoisyStepTime
from driftsim.latency.steptime import GRAPH_SIZES, Batch, padded, ticks
from driftsim.simulation.run import Simulation
from driftsim.simulation.scenario import Scenario
from driftsim.trace.trace import Trace
from tests.strategies import engine, profile, workload

HTTP_S = 0.004  # of a request's life, spent outside the engine


@dataclass(frozen=True)
class Steps:
    """Step times (s): the weights or the tokens, whichever takes longer, and what is added to either."""

    weights: float
    token: float
    request: float
    context: float
    pair: float
    host: float = 0.0
    smooth: float = 0.0  # power of the mean that stands for the larger of two; 0: the larger
    graphs: bool = False
    prefill_request: float = 0.0

    @property
    def context_token(self) -> int:
        """Ticks of a KV token."""
        return ticks(self.context)

    def step(self, batch: Batch) -> int:
        """The duration of a step."""
        size = padded(batch.decode_requests, GRAPH_SIZES) if self.graphs else batch.decode_requests
        both = self.weights, self.token * (batch.prefill_tokens + size)
        roof = sum(one**self.smooth for one in both) ** (1 / self.smooth) if self.smooth else max(both)
        added = self.host + self.request * size + self.pair * batch.prefill_attention
        added += self.prefill_request * batch.prefill_requests
        return ticks(roof + added) + self.context_token * batch.context_tokens

    def decode_run(self, batch: Batch, n: int) -> int:
        """The duration of ``n`` steps in which only contexts grow."""
        first = self.step(Batch(decode_requests=batch.decode_requests, context_tokens=batch.context_tokens))
        return n * first + self.context_token * batch.decode_requests * (n * (n - 1) // 2)


@dataclass(frozen=True)
class Served:
    """A GPU with its requests' mean lengths, its noise, and the requests a second that saturate it."""

    steps: Steps
    prompt: int
    output: int
    noise: Noise
    capacity: float
    settings: dict[str, Any] = field(default_factory=dict)

    def run(self, load: float, count: int, seed: int) -> Trace:
        """``count`` requests at a ``load``, a share of the capacity, as a client sees them over HTTP: without steps."""
        random = np.random.default_rng(seed)
        prompts = np.clip(random.lognormal(np.log(self.prompt) - 0.32, 0.8, count), 8, 8000).astype(int)
        outputs = np.clip(random.lognormal(np.log(self.output) - 0.25, 0.7, count), 2, 1500).astype(int)
        arrivals = np.cumsum(random.exponential(1 / (load * self.capacity), count)).tolist()
        work = workload(arrivals, outputs.tolist(), prompt_tokens=prompts, prompt_words=prompts, max_tokens=outputs)
        plain = {"max_num_seqs": 128, "max_num_batched_tokens": 2048, "max_model_len": 16384, "kv_blocks": 20000}
        made = engine(**plain | {"async_scheduling": True} | self.settings)
        simulation = Simulation(Scenario(profile=profile(made, submit_lag_s=HTTP_S / 2), policy="stock"), work)
        simulated: Any = simulation.engine
        noisy: Any = NoisyStepTime(self.steps, self.noise, np.random.default_rng(seed + 1000))  # type: ignore[arg-type]
        simulated.step_time, simulated._taken = noisy, noisy.taken
        run = simulation.run()
        late = HTTP_S / 2 + np.abs(random.normal(0, 0.0005, count))
        rows = run.requests.assign(
            first_token_s=run.requests["first_token_s"] + late,
            finish_s=run.requests["finish_s"] + late,
            dispatch_s=run.requests["arrival_s"],
            queued_s=np.nan,
            scheduled_s=np.nan,
        )
        header = run.header.changed(kind="imported", admission={}, max_in_flight=None, profile_digest=None)
        return Trace(header, rows, None)


GPUS = {
    # about a 14B model on an H100
    "sharp": Served(
        Steps(weights=11.1e-3, token=40.5e-6, request=52e-6, context=4.97e-8, pair=2.05e-9),
        1000, 200, Noise(spread=0.02, autocorrelation=0.5), 12.9, {"max_num_batched_tokens": 8192},
    ),
    # about an 8B model on an RTX PRO 6000
    "smooth": Served(
        Steps(weights=9e-3, token=37e-6, request=25e-6, context=2e-8, pair=1.5e-9, host=1.5e-3, smooth=6, graphs=True),
        600, 200, Noise(spread=0.02, autocorrelation=0.7), 22.4,
    ),
    # about a small model on an L4, with a busy host
    "noisy": Served(
        Steps(10e-3, 60e-6, 60e-6, 8e-8, 4e-9, host=2e-3, smooth=4, prefill_request=3e-4),
        1500, 150, Noise(spread=0.05, autocorrelation=0.6), 6.8, {"max_num_seqs": 64},
    ),
}  # fmt: skip
