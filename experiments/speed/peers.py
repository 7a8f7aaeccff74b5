"""Other simulators that can be installed, on the same requests: sched-sim (Python) and NVIDIA Dynamo's replay (Rust).

Each runs in a process of its own, on the lengths and arrivals of the benchmark, with 256 slots, 2,048 tokens a step and
blocks of 16; their step-time models are their own, so that loads are not quite the same.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from experiments.speed.bench import AMPLE, arrivals, lengths, saturation

COUNT = 10_000
LOAD = 0.7


def peers() -> list[dict[str, Any]]:
    """Name, version and requests a CPU second of each; why not, where one does not run here."""
    found: list[dict[str, Any]] = []
    for package, run in (("sched-sim", "sched_sim_s"), ("ai-dynamo-runtime", "dynamo_s")):
        try:
            name = f"{package} {version(package)}"
        except PackageNotFoundError:
            found.append({"name": package, "why": "does not install here"})
            continue
        done = subprocess.run(
            [sys.executable, "-m", "experiments.speed.peers", run], capture_output=True, text=True, check=False
        )
        try:
            found.append({"name": name, "rps": round(COUNT / float(done.stdout.split()[-1]), 1)})
        except (ValueError, IndexError):
            why = (done.stderr.strip().splitlines() or ["nothing"])[-1]
            found.append({"name": name, "why": f"did not run: {why[:120]}"})
    return found


def sched_sim_s() -> float:
    """CPU seconds of sched-sim's chunked-prefill scheduler."""
    from sched_sim.core.event_engine import Simulator
    from sched_sim.core.request import Request
    from sched_sim.hardware.presets import get_hardware_profile
    from sched_sim.schedulers.factory import create_scheduler

    hardware = get_hardware_profile("a100")
    scheduler = create_scheduler("chunked", hardware, token_budget=2048, max_batch_size=256)
    prompts, outputs = lengths(COUNT)
    times = arrivals(COUNT, LOAD * saturation(AMPLE))
    requests = [
        Request(request_id=str(number), arrived_at=moment, prompt_tokens=int(prompt), output_tokens=int(output))
        for number, (moment, prompt, output) in enumerate(zip(times.tolist(), prompts, outputs, strict=True))
    ]
    simulator = Simulator(hardware, scheduler)
    simulator.submit_workload(requests)
    began = time.process_time()
    simulator.run()
    return time.process_time() - began


def dynamo_s() -> float:
    """CPU seconds of Dynamo's offline replay, reading its trace included."""
    from dynamo._core import run_mocker_trace_replay

    prompts, outputs = lengths(COUNT)
    times = arrivals(COUNT, LOAD * saturation(AMPLE))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "trace.jsonl"
        with file.open("w") as lines:
            for number, (moment, prompt, output) in enumerate(zip(times.tolist(), prompts, outputs, strict=True)):
                blocks = [number * 1000 + place for place in range(-(-int(prompt) // 512))]
                row = {"timestamp": round(1000 * moment), "input_length": int(prompt), "output_length": int(output)}
                lines.write(json.dumps(row | {"hash_ids": blocks}) + "\n")
        engine = {"num_gpu_blocks": AMPLE, "block_size": 16, "max_num_seqs": 256, "max_num_batched_tokens": 2048}
        began = time.process_time()
        run_mocker_trace_replay([str(file)], {"engine": engine}, trace_block_size=512)
        return time.process_time() - began


if __name__ == "__main__":
    print(globals()[sys.argv[1]]())
