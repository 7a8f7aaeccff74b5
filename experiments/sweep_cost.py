"""What does a sweep cost beyond its simulations, and where does its driver saturate?

    python -m experiments.sweep_cost      # about five minutes; remakes sweep_cost/costs.json

2,000 runs of 1,000 requests (5 policies x 2 estimators x 10 loads x 20 replications) on two processes, against two
serial halves side by side; and rows that arrive at the driver as fast as it takes them.
"""

from __future__ import annotations

import json
import multiprocessing
import multiprocessing.pool
import pickle
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from driftsim import Profile, Scenario, Store, Workload
from driftsim.live.machine import hardware
from driftsim.scheduling.policies import POLICIES
from driftsim.simulation.run import simulate
from driftsim.sweeps.grid import load_grid
from driftsim.sweeps.recorder import Progress, Recorder
from driftsim.sweeps.runner import sweep
from driftsim.sweeps.tasks import plan, run_task
from driftsim.trace.header import Phase, WorkloadInfo
from driftsim.trace.schema import TIER_NAMES
from driftsim.trace.settings import EngineSettings
from driftsim.workloads.workload import COLUMNS
from experiments.arguments import plain
from experiments.speed.bench import unit_s

STORED = Path(__file__).with_suffix("") / "costs.json"
REQUESTS, ROWS = 1000, 50_000
LOADS = [0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3, 1.4]
GRID = f"""
replications = 20
[base]
trace = "trace"
profile = "profile.json"
[grid]
policy = {json.dumps(list(POLICIES))}
estimator = ["static", "ema"]
rate_scale = {LOADS}
"""


def prepare(folder: Path) -> Path:
    """A recorded run of 1,000 requests near saturation, its profile and the grid."""
    random = np.random.default_rng(1)
    engine = EngineSettings(
        version="0.32.0",
        max_num_seqs=64,
        max_num_batched_tokens=2048,
        max_model_len=8192,
        kv_blocks=8000,
        block_size=16,
    )
    profile = Profile(
        engine=engine, intercept_s=0.012, prefill_token_s=3e-5, decode_request_s=2e-4, context_token_s=2e-8
    )
    outputs = np.clip(random.normal(200, 100, REQUESTS), 1, None).astype(int)
    table = pd.DataFrame({"request_id": [f"r{row}" for row in range(REQUESTS)]}).assign(
        tenant=random.choice(["a", "b", "c"], REQUESTS), tier=random.choice(TIER_NAMES, REQUESTS), phase="only",
        category="summary", predicted_category=random.choice(["short_qa", "summary", "report"], REQUESTS),
        prompt_tokens=np.clip(random.normal(500, 200, REQUESTS), 1, None).astype(int), prompt_words=300,
        max_tokens=np.maximum(outputs, 512), offset_s=np.cumsum(random.exponential(1 / 9, REQUESTS)),
        output_tokens=outputs, output_words=outputs, stops=True, patience_s=np.nan, source=np.arange(REQUESTS),
    )  # fmt: skip
    table["predicted_category_unlabelled"] = table["predicted_category"]
    phase = Phase(name="only", requests=REQUESTS)
    made = Workload(WorkloadInfo(name="synthetic", phases=(phase,)), table[COLUMNS])
    simulate(Scenario(profile=profile), made).write(folder / "trace")
    profile.save(folder / "profile.json")
    (folder / "grid.toml").write_text(GRID)
    return folder / "grid.toml"


def _half(grid: str, store: str, which: int) -> None:
    tasks, inputs = plan(load_grid(Path(grid)))
    with Store.open(store, create=True) as opened:
        sweep(tasks[which::2], inputs, opened, jobs=1)


def _units(pool: multiprocessing.pool.Pool) -> list[float]:
    """CPU seconds of a bare SimPy timeout on each of two busy cores."""
    return pool.map(unit_s, [1_000_000, 1_000_000], chunksize=1)


def costs() -> dict[str, Any]:
    """Everything that is measured, once."""
    with tempfile.TemporaryDirectory() as aside:
        grid = prepare(Path(aside))
        tasks, inputs = plan(load_grid(grid))
        memory: list[tuple[int, int]] = []

        def watch(progress: Progress) -> None:
            memory.append((progress.done, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))

        spawn = multiprocessing.get_context("spawn")
        with spawn.Pool(2) as pool:
            units = _units(pool)
            begin = time.perf_counter()
            with Store.open(Path(aside) / "both", create=True) as store:
                sweep(tasks, inputs, store, jobs=2, watch=watch)
            parallel = time.perf_counter() - begin
            units += _units(pool)
        begin = time.perf_counter()
        halves = [spawn.Process(target=_half, args=(str(grid), f"{aside}/half{n}", n)) for n in (0, 1)]
        for half in halves:
            half.start()
        for half in halves:
            half.join()
        serial = time.perf_counter() - begin
        table = Store.open(Path(aside) / "both").table()
        early = next(used for done, used in memory if done > len(tasks) // 10)
        row = run_task(tasks[0], inputs)
        rate, row_bytes = driver_rate(Path(aside), row)
        return {
            "machine": hardware(),
            "timeout_us": 1e6 * float(np.mean(units)),
            "runs": len(tasks),
            "requests_a_run": REQUESTS,
            "wall_s": parallel,
            "efficiency": serial / parallel,
            "simulation_s": float(table["duration_s"].mean()),
            "overhead_ms": 1e3 * (2 * parallel - float(table["duration_s"].sum())) / len(tasks),
            "driver_memory_growth_mb": (memory[-1][1] - early) / 1024,
            "driver_rows_per_s": rate,
            "row_bytes": row_bytes,
        }


def driver_rate(folder: Path, row: dict[str, Any]) -> tuple[float, float]:
    """Rows a second that the driver unpacks, writes to the disk and reports, in batches as workers send them."""
    todo: dict[str, Any] = {f"{number:032x}": None for number in range(ROWS)}
    keys = list(todo)
    batches = [pickle.dumps([row | {"key": key} for key in keys[first : first + 100]]) for first in range(0, ROWS, 100)]
    store = Store.open(folder / "rate", create=True)
    recorder = Recorder(todo, store, Progress(ROWS), lambda progress: None)
    begin = time.perf_counter()
    for batch in batches:
        recorder.add(pickle.loads(batch))
    rate = ROWS / (time.perf_counter() - begin)
    size = sum(file.stat().st_size for file in (folder / "rate").glob("journal-*")) / ROWS
    return rate, size


def block() -> str:
    """The costs as Markdown, and what a million runs would take."""
    told = json.loads(STORED.read_text())
    hours = 1e6 * (told["simulation_s"] + told["overhead_ms"] / 1e3) / 100 / 3600
    workers = told["driver_rows_per_s"] * told["simulation_s"]
    units = 1e6 * told["simulation_s"] / told["timeout_us"] / told["requests_a_run"]
    whole = 1e6 * 2 * told["wall_s"] / told["runs"] / told["requests_a_run"] / told["timeout_us"]
    return "\n".join(
        [
            f"| sweep on {told['machine']}, where a bare SimPy timeout takes {told['timeout_us']:.2f} µs | measured |",
            "|---|--:|",
            f"| {told['runs']:,} runs of {told['requests_a_run']:,} requests, two processes | {told['wall_s']:.0f} s |",
            f"| a request, all in, on both processes | {whole:.0f} timeouts (100 are 60 s where one takes 0.6 µs) |",
            f"| parallel efficiency, against two serial halves side by side | {100 * told['efficiency']:.0f} % |",
            f"| a run: simulation and metrics | {1e3 * told['simulation_s']:.0f} ms, {units:.0f} timeouts a request |",
            f"| a run: everything else | {told['overhead_ms']:.1f} ms |",
            f"| growth of the driver's memory over the last nine tenths | {told['driver_memory_growth_mb']:.0f} MB |",
            f"| rows that the driver takes, writes and reports | {told['driver_rows_per_s']:,.0f} a second |",
            "",
            f"So 10^6 such runs take about {hours:.1f} hours on 100 workers like these; the driver would saturate at "
            f"about {workers:,.0f} workers; their rows take {1e6 * told['row_bytes'] / 1e9:.1f} GB of journal.",
            "",
        ]
    )


def main() -> None:
    """Measure and store."""
    STORED.parent.mkdir(exist_ok=True)
    STORED.write_text(json.dumps(costs(), indent=1) + "\n")


if __name__ == "__main__":
    plain("experiments.sweep_cost", __doc__)
    main()
