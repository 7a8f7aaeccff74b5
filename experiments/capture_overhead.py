"""What does capturing cost? The step hook, the dispatcher, the recorder and the telemetry, in CPU time of this machine.

    python -m experiments.capture_overhead            # remakes capture_overhead/costs.json

The dispatcher and the recorder serve an engine that answers at once, a thousand requests in flight, so that nothing but
their own work is measured; the hook is what it takes beside vLLM's own scheduler, on a full batch.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from driftsim import Admission, Job, Workload
from driftsim.live.engine import Outcome
from driftsim.live.machine import hardware
from driftsim.live.recorder import CapturePlan, record
from driftsim.live.telemetry import Monitor
from driftsim.scheduling.dispatcher import Departure, Dispatcher
from driftsim.scheduling.estimators import make_estimator
from driftsim.scheduling.policies import POLICIES, make_policy
from driftsim.trace.header import Phase, WorkloadInfo
from driftsim.trace.settings import EngineSettings
from driftsim.workloads.workload import COLUMNS
from experiments.arguments import plain

STORED = Path(__file__).with_suffix("") / "costs.json"
IN_FLIGHT = 1000
BATCH = 256  # requests in the step that the hook looks at


def main() -> None:
    """Measure everything and store it."""
    costs = {
        "machine": hardware(),
        "dispatcher_us": {name: round(dispatcher_us(name), 1) for name in POLICIES},
        "recorder_us": round(recorder(20_000)["us"], 1),
        "recorder_1m_mb": round(in_a_process("recorder(1_000_000)")["mb"]),
        "telemetry_core": round(telemetry_core(), 4),
    }
    try:
        costs["step_hook_us"] = round(step_hook_us(), 1)
    except ModuleNotFoundError:
        print("vLLM is not installed: the step hook was not measured", file=sys.stderr)
    STORED.parent.mkdir(exist_ok=True)
    STORED.write_text(json.dumps(costs, indent=1) + "\n")


def workload(count: int) -> Workload:
    """``count`` requests of ``IN_FLIGHT`` users, each of whom sends the next as the one before is answered."""
    random = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "request_id": [f"r{row}" for row in range(count)],
            "tenant": random.choice(["a", "b", "c"], count),
            "tier": random.choice(["premium", "standard", "batch"], count),
            "phase": "all",
            "category": "report",
            "predicted_category": random.choice(["short_qa", "summary", "technical", "report"], count),
            "predicted_category_unlabelled": "report",
            "prompt_tokens": random.integers(1, 1000, count),
            "prompt_words": 7,
            "max_tokens": 512,
            "offset_s": 0.0,
            "output_tokens": pd.NA,
            "output_words": pd.NA,
            "stops": pd.NA,
            "patience_s": np.nan,
            "source": np.arange(count),
        }
    )
    phases = (Phase(name="all", kind="closed", requests=count, users=IN_FLIGHT),)
    return Workload(WorkloadInfo(name="overhead", loop="closed", phases=phases), table[COLUMNS])


def dispatcher_us(policy: str, count: int = 20_000) -> float:
    """Microseconds of CPU that a request costs from admission to what is learned from it, ``IN_FLIGHT`` in flight."""
    admission = Admission()
    dispatcher = Dispatcher(make_policy(policy), make_estimator("ema", admission, {}), admission, IN_FLIGHT)
    made = workload(count)
    build, categories = made.requests(), made.categories(admission)
    inside: deque[Job] = deque()
    began = time.process_time()
    for row in range(count):
        dispatcher.arrive(build(row, float(row)), categories[row], float(row), row)
        inside.extend(dispatcher.release(1, float(row)))
        if len(inside) == IN_FLIGHT:
            dispatcher.finished([Departure(inside.popleft(), 100, False)], float(row))
    return (time.process_time() - began) / count * 1e6


class Instant:
    """An engine that answers whoever has been inside longest, as soon as ``IN_FLIGHT`` are."""

    model = "instant"
    clocks = ""
    arguments: dict[str, Any] = {}
    failure: str | None = None
    own_processes: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()
    settings = EngineSettings(
        max_num_seqs=IN_FLIGHT, max_num_batched_tokens=8192, max_model_len=8192, kv_blocks=10**6, block_size=16
    )

    def __init__(self, count: int) -> None:
        self.on_outcome: Callable[[Outcome], None] = lambda outcome: None
        self._inside: deque[Job] = deque()
        self._left = count

    def room(self) -> int:
        return IN_FLIGHT

    def submit(self, job: Job, true_length: int | None) -> None:
        self._inside.append(job)
        if len(self._inside) >= min(IN_FLIGHT, self._left):
            asyncio.get_running_loop().call_soon(self._answer)

    def _answer(self) -> None:
        now = time.monotonic()
        for _ in range(min(16, len(self._inside))):
            job = self._inside.popleft()
            self._left -= 1
            self.on_outcome(Outcome(job, "stop", now, now, now, now, 100, 72, 0))
        if self._inside and len(self._inside) >= min(IN_FLIGHT, self._left):  # nobody else is to come
            asyncio.get_running_loop().call_soon(self._answer)

    def abort(self, job: Job) -> None:
        raise NotImplementedError

    async def forget(self) -> bool | None:
        """It has no cache."""
        return None

    def trace_steps(self, file: Path) -> bool:
        return False

    def count_tokens(self, prompt: str) -> int:
        return 1

    async def start(self) -> None: ...

    async def warm_up(self) -> None: ...

    async def shutdown(self) -> None: ...


def recorder(count: int) -> dict[str, float]:
    """Microseconds of CPU a request and the peak memory of this process, in MB, of a whole recorded run."""
    made = workload(count)
    with tempfile.TemporaryDirectory() as folder:
        began = time.process_time()
        trace = asyncio.run(
            record(made, Instant(count), CapturePlan(policy="sjf", estimator="ema"), Path(folder) / "t")
        )
        used = time.process_time() - began
    assert len(trace.finished) == count, trace.header.ended_why
    return {"us": used / count * 1e6, "mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def in_a_process(call: str) -> dict[str, float]:
    """What ``call`` of this module returns in a process of its own."""
    code = f"import json\nfrom experiments.capture_overhead import *\nprint(json.dumps({call}))"
    done = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True)
    return dict(json.loads(done.stdout))


def telemetry_core(seconds: float = 20.0) -> float:
    """The share of a core that telemetry takes."""
    with Monitor((os.getppid(),)):
        time.sleep(1)
        before = time.process_time()
        time.sleep(seconds)
        return (time.process_time() - before) / seconds


def step_hook_us(steps: int = 2000) -> float:
    """Microseconds that the hook adds to a step of ``BATCH`` decoding requests, its line in the file included: median.

    Taken inside one scheduler: its calls, less what vLLM's own methods inside them take.
    """
    from vllm.v1.core.sched.scheduler import Scheduler

    from driftsim.live.vllm import STEPS_LINK, Traced
    from tests.live.bare import bare_scheduler, faked_output, request, sampling

    inner = [0.0]

    class Timed(Scheduler):
        """vLLM's scheduler, which notes how long its two calls take."""

        def schedule(self, *args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            try:
                return super().schedule(*args, **kwargs)
            finally:
                inner[0] += time.perf_counter() - began

        def update_from_output(self, *args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            try:
                return super().update_from_output(*args, **kwargs)
            finally:
                inner[0] += time.perf_counter() - began

    class Hooked(Traced, Timed):
        """The hook around it."""

    settings = EngineSettings(
        max_num_seqs=BATCH, max_num_batched_tokens=8192, max_model_len=8192, kv_blocks=20_000, block_size=16
    )
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder) / "link"
        link.symlink_to(Path(folder) / "steps.csv")
        os.environ[STEPS_LINK] = str(link)
        scheduler = bare_scheduler(settings, Hooked)
        for number in range(BATCH):
            scheduler.add_request(request(f"r{number}", list(range(20)), 7000))
        costs = []
        for _ in range(steps):
            inner[0] = 0.0
            began = time.perf_counter()
            output = scheduler.schedule()
            outer = time.perf_counter() - began
            faked = faked_output(scheduler, output, samples=sampling(scheduler, output))
            began = time.perf_counter()
            scheduler.update_from_output(output, faked)
            outer += time.perf_counter() - began
            costs.append(outer - inner[0])
    return float(np.median(costs[1:])) * 1e6


def block() -> str:
    """The costs as a Markdown table."""
    costs = json.loads(STORED.read_text())
    dispatcher = max(costs["dispatcher_us"].values())
    lines = [
        f"| cost, on {costs['machine']} | measured |",
        "|---|--:|",
        f"| step hook, a step of {BATCH} requests | {costs['step_hook_us']:.0f} µs |",
        f"| dispatcher, a request with {IN_FLIGHT} in flight, dearest policy | {dispatcher:.0f} µs |",
        f"| recorder, a request, journal and all | {costs['recorder_us']:.0f} µs |",
        f"| memory of the harness after 1,000,000 requests | {costs['recorder_1m_mb']} MB |",
        f"| telemetry | {100 * costs['telemetry_core']:.2f} % of a core |",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    plain("experiments.capture_overhead", __doc__)
    main()
