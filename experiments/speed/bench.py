"""One measurement a process: how many CPU seconds a request costs, and how many a bare SimPy timeout costs beside it.

The load is Poisson arrivals, prompts of N(500, 200) and outputs of N(200, 100) tokens, on an engine of 256 slots, 2,048
tokens a step and blocks of 16, whose step times are of the order of a small model's on an L4.
"""

from __future__ import annotations

import cProfile
import gc
import io
import json
import pstats
import re
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import simpy

from driftsim import Job, Profile, Request, Scenario, Tier, Workload
from driftsim.engine.clock import ARRIVE, Clock, Moment
from driftsim.engine.sequence import Sequence
from driftsim.latency.steptime import ticks
from driftsim.simulation.collector import collector_off
from driftsim.simulation.engines import Known, engine_of
from driftsim.simulation.run import simulate
from driftsim.trace.header import Phase, WorkloadInfo
from driftsim.trace.prefixes import NONE, Stretches, in_common, stretches
from driftsim.trace.settings import EngineSettings
from driftsim.workloads.workload import COLUMNS

AMPLE, SCARCE = 20_000, 6_000  # KV blocks: never short, and short at a full batch
LOADS = {"070": 0.7, "095": 0.95, "130": 1.3}


def profile(kv_blocks: int = AMPLE, *, caching: bool = False) -> Profile:
    """An engine of the order of a small model on an L4."""
    engine = EngineSettings(
        version="0.32.0", max_num_seqs=256, max_num_batched_tokens=2048, max_model_len=8192, kv_blocks=kv_blocks,
        block_size=16, enable_prefix_caching=caching,
    )  # fmt: skip
    return Profile(engine=engine, intercept_s=0.020, prefill_token_s=5e-5, decode_request_s=5e-5, context_token_s=1e-7)


def lengths(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Prompts and outputs, in tokens."""
    random = np.random.default_rng(1)
    prompts = np.clip(np.rint(random.normal(500, 200, count)), 1, 4000).astype(int)
    outputs = np.clip(np.rint(random.normal(200, 100, count)), 1, 4000).astype(int)
    return prompts, outputs


def arrivals(count: int, rate: float) -> np.ndarray:
    """Poisson arrival times, in seconds."""
    gaps = np.random.default_rng(2).exponential(1 / rate, count)
    return np.asarray(np.cumsum(gaps))


SAMPLE, EVERY_S = 50_000, 0.5  # timeouts of a sample, and CPU seconds between two


def unit_s(timeouts: int = 300_000) -> float:
    """CPU seconds of one bare SimPy timeout."""

    def ticking(env: simpy.Environment) -> Any:
        for _ in range(timeouts):
            yield env.timeout(1)

    env = simpy.Environment()
    env.process(ticking(env))
    began = time.process_time()
    env.run()
    return (time.process_time() - began) / timeouts


class Meter:
    """CPU seconds of the work alone, and of a bare timeout meanwhile.

    A machine whose speed wanders would give another unit before and after: so, every second, the work is interrupted
    for a moment to time bare timeouts, and what that takes is not counted.
    """

    def __init__(self) -> None:
        self.units: list[float] = []
        self._aside = 0.0
        self._busy = False

    def __enter__(self) -> Self:
        self.units.append(unit_s(SAMPLE))
        signal.signal(signal.SIGVTALRM, lambda *_: self._sample())
        signal.setitimer(signal.ITIMER_VIRTUAL, EVERY_S, EVERY_S)
        return self

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        self.units.append(unit_s(SAMPLE))

    def _sample(self) -> None:
        if not self._busy:
            self._busy = True
            began = time.process_time()
            self.units.append(unit_s(SAMPLE))
            self._aside += time.process_time() - began
            self._busy = False

    def cpu_s(self) -> float:
        """CPU seconds of this process but for the samples."""
        return time.process_time() - self._aside


METER = Meter()


def through_engine(
    prompts: np.ndarray, outputs: np.ndarray, times: np.ndarray, kv_blocks: int, whose: list[Stretches] | None = None
) -> dict[str, float]:
    """The engine alone, first in first out: jobs are handed to it as they arrive.

    ``whose``: what the requests share, for an engine that caches prefixes.
    """
    made = profile(kv_blocks, caching=whose is not None)
    env = Clock(initial_time=0)
    counted = {"finished": 0, "preemptions": 0}

    def left(sequences: list[Sequence]) -> None:
        counted["finished"] += len(sequences)
        counted["preemptions"] += sum(sequence.preemptions for sequence in sequences)

    kind = engine_of(
        Scenario(profile=made), itemized=False, known=Known(common=None if whose is None else in_common(whose))
    )
    engine = kind(env, made.engine, made.step_time(), 0, left)
    moments = [ticks(moment) for moment in times.tolist()]
    requests = (
        Request(str(n), "", Tier.STANDARD, "", 0.0, prompt, None, 4096, stretches=whose[n] if whose else ())
        for n, prompt in enumerate(prompts.tolist())
    )
    jobs = [(Job(request, "", 0, 0), output) for request, output in zip(requests, outputs.tolist(), strict=True)]
    coming = iter(jobs)
    waits = iter(np.diff(moments, append=moments[-1]).tolist())

    def arrive(_: object) -> None:
        """One job, and the next one's arrival."""
        job, output = next(coming)
        engine.submit(job, output)
        wait = next(waits)
        if job is not jobs[-1][0]:
            Moment(env, env._now + wait, ARRIVE, arrive)

    gc.collect()
    began = METER.cpu_s()
    Moment(env, moments[0], ARRIVE, arrive)
    with collector_off():
        env.run()
    used = METER.cpu_s() - began
    assert counted["finished"] == len(moments)
    return {"cpu_s": used, "makespan_s": float(env.now) / 1e12, **counted}


def saturation(kv_blocks: int, count: int = 4000) -> float:
    """Requests a second that the simulated engine serves out of a backlog."""
    prompts, outputs = lengths(count)
    return count / through_engine(prompts, outputs, np.zeros(count), kv_blocks)["makespan_s"]


def engine_alone(count: int, load: float, kv_blocks: int = AMPLE) -> dict[str, float]:
    """The engine at ``load`` of what it could serve."""
    return through_engine(*lengths(count), arrivals(count, load * saturation(kv_blocks)), kv_blocks)


def workload(count: int, rate: float) -> Workload:
    """The same requests as a workload, from three tenants, with categories and caps."""
    random = np.random.default_rng(3)
    prompts, outputs = lengths(count)
    tiers = random.choice(["premium", "standard", "batch"], count)
    category = random.choice(["short_qa", "summary", "technical", "report"], count)
    table = pd.DataFrame(
        {
            "request_id": [f"r{row}" for row in range(count)],
            "tenant": tiers,
            "tier": tiers,
            "phase": "all",
            "category": category,
            "predicted_category": category,
            "predicted_category_unlabelled": category,
            "prompt_tokens": prompts,
            "prompt_words": pd.array([pd.NA] * count, dtype="Int64"),
            "max_tokens": 4096,
            "offset_s": arrivals(count, rate),
            "output_tokens": outputs,
            "output_words": pd.array([pd.NA] * count, dtype="Int64"),
            "stops": True,
            "patience_s": np.nan,
            "source": np.arange(count),
        }
    )
    phases = (Phase(name="all", requests=count),)
    return Workload(WorkloadInfo(name="speed", phases=phases), table[COLUMNS])


def in_memory(count: int, load: float, policy: str, estimator: str) -> dict[str, float]:
    """A whole run, dispatcher, policy and estimator included, from workload to trace."""
    made = workload(count, load * saturation(AMPLE))
    scenario = Scenario(profile=profile(), policy=policy, estimator=estimator)
    gc.collect()
    began = METER.cpu_s()
    trace = simulate(scenario, made)
    used = METER.cpu_s() - began
    assert len(trace.finished) == count
    return {"cpu_s": used}


SYSTEM, TEXTS = 264, 8  # tokens of a system prompt, half of a prompt on average, and how many there are
CHATS = 300  # chats at a time, of two turns


def sharing(kind: str, count: int) -> tuple[np.ndarray, np.ndarray, list[Stretches]]:
    """Prompts and outputs (tokens), and what they share, of ``count`` requests that find half of their prompts' tokens.

    ``texts``: behind system prompts. ``chats``: each second turn goes on with a first one and its answer.
    """
    prompts, outputs = lengths(count)
    rows = np.arange(count)
    if kind == "texts":
        prompts = np.maximum(prompts, SYSTEM + 1)
        return prompts, outputs, stretches(np.where(rows < TEXTS, NONE, rows % TEXTS).tolist(), [SYSTEM] * count)
    prompts = prompts // 2 + 1
    second = rows // CHATS % 2 == 1
    before = np.where(second, rows - CHATS, NONE)
    shared = np.where(second, prompts[before] + outputs[before], 0)
    return prompts + shared, outputs, stretches(before.tolist(), shared.tolist())


def caching(count: int, load: float, kind: str) -> dict[str, float]:
    """What prefix caching costs where half of the prompts' tokens are found: the engine alone, and whole runs.

    With the cache and without it in turn, each at ``load`` of what it could serve. ``kind``: see ``sharing``.
    """
    prompts, outputs, whose = sharing(kind, count)
    told = {True: whose, False: None}
    rates, made = dict[bool, float](), dict[bool, Workload]()
    alone: dict[bool, list[float]] = {False: [], True: []}
    runs: dict[bool, list[float]] = {False: [], True: []}
    for on in (False, True):
        backlog = through_engine(prompts, outputs, np.zeros(count), AMPLE, told[on])
        rates[on] = load * count / backlog["makespan_s"]
        drawn = workload(count, rates[on])
        shared = pd.Series(whose, dtype=object)
        made[on] = replace(drawn, table=drawn.table.assign(prompt_tokens=prompts, stretches=shared))
    for _ in range(3):
        for on in (False, True):
            times = arrivals(count, rates[on])
            alone[on].append(through_engine(prompts, outputs, times, AMPLE, told[on])["cpu_s"])
            gc.collect()
            began = METER.cpu_s()
            rows = simulate(Scenario(profile=profile(caching=on)), made[on]).requests
            runs[on].append(METER.cpu_s() - began)
    return {
        "cpu_s": min(runs[True]),
        "engine_ratio": min(alone[True]) / min(alone[False]),
        "run_ratio": min(runs[True]) / min(runs[False]),
        "hit_rate": float(rows["cached_tokens"].sum() / rows["prompt_tokens"].sum()),
    }


def end_to_end(count: int, load: float = 0.95) -> dict[str, float]:
    """What ``driftsim simulate`` does: read Parquet, simulate, measure, write Parquet; start-up is not counted."""
    import scipy.stats  # noqa: F401  # what ranks many requests loads it at its first use, which is start-up

    from driftsim.api import simulate_scenario
    from driftsim.metrics import summary

    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "source"
        simulate(Scenario(profile=profile()), workload(count, load * saturation(AMPLE))).write(source)
        profile().save(Path(folder) / "profile.json")
        scenario = Path(folder) / "scenario.toml"
        scenario.write_text('trace = "source"\nprofile = "profile.json"\npolicy = "fifo"\nestimator = "ema"\n')
        gc.collect()
        began = METER.cpu_s()
        trace, spec, _ = simulate_scenario(scenario)
        values = summary(trace, spec.admission, phase=spec.phase)
        trace.write(Path(folder) / "out")
        used = METER.cpu_s() - began
        assert values["finished"] == count
    return {"cpu_s": used}


def measured(what: Callable[[], dict[str, float]], count: int) -> dict[str, float]:
    """``what`` with the cost of a bare timeout before, during and after it, in this very process."""
    with METER:
        result = what()
    unit = float(np.mean(METER.units))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    per_request = result["cpu_s"] / count
    return result | {"unit_s": unit, "units": per_request / unit, "rps": 1 / per_request, "peak_rss_mb": peak}


def layers(count: int, load: float) -> str:
    """Where the time of a whole run goes, function by function."""
    made = workload(count, load * saturation(AMPLE))
    profiler = cProfile.Profile()
    profiler.enable()
    simulate(Scenario(profile=profile(), policy="sjf", estimator="ema"), made)
    profiler.disable()
    text = io.StringIO()
    pstats.Stats(profiler, stream=text).sort_stats("tottime").print_stats(25)
    told = text.getvalue().replace(f"{Path(__file__).resolve().parents[2]}/", "")
    return re.sub(r"/\S*/(lib/python)", r"\1", told)  # no path of this machine


if __name__ == "__main__":
    name, arguments = sys.argv[1], json.loads(sys.argv[2])
    if name == "layers":
        print(layers(**arguments))
    else:
        print(json.dumps(measured(lambda: globals()[name](**arguments), arguments["count"])))
