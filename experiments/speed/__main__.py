"""The speed benchmark: 1k to 1M requests, three loads, KV pressure, end to end, and the peers that are installed.

    python -m experiments.speed            # all of it, and remakes experiments/speed/results.json
    python -m experiments.speed --quick    # 10k and 100k, for a CI machine: targets with some slack; stores nothing

Every measurement runs in a process of its own, beside a bare SimPy timeout in that process: the unit. The last line on
stdout is one JSON document. Exits 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

from driftsim.live.machine import hardware
from experiments.speed.peers import peers

STORED = Path(__file__).with_name("results.json")
TARGETS: dict[str, float] = {  # at most
    "units_070": 18,
    "units_095": 18,
    "units_kv_pressure": 30,
    "sjf_over_fifo": 1.3,
    "caching_texts": 1.5,
    "caching_texts_engine_alone": 1.5,
    "caching_chats": 1.5,
    "units_end_to_end": 45,
    "exponent": 1.05,
    "peak_rss_mb": 1536,
}
SHARED = 1.3  # times a target: what a single turn on a CI machine, which others share, may take


def main() -> int:
    """Measure, print, store; the exit status."""
    parser = argparse.ArgumentParser(prog="experiments.speed", description=str(__doc__).split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="10k and 100k only, with some slack; stores nothing")
    quick = parser.parse_args().quick
    measure = partial(best, turns=1 if quick else 2)
    sizes = (10_000, 100_000) if quick else (1_000, 10_000, 100_000, 1_000_000)
    largest = sizes[-1]
    growth = {count: measure("engine_alone", count=count, load=0.95) for count in sizes}
    middle = 100_000
    loads = {
        name: growth[middle] if name == "095" else best("engine_alone", turns=2, count=middle, load=load)
        for name, load in (("070", 0.7), ("095", 0.95), ("130", 1.3))
    }
    pressed = measure("engine_alone", count=middle, load=0.95, kv_blocks=6_000)
    fifo, sjf = (
        measure("in_memory", count=middle // (5 if quick else 1), load=1.3, policy=policy, estimator=estimator)
        for policy, estimator in (("fifo", "static"), ("sjf", "ema"))
    )
    cached = {kind: measure("caching", count=middle // 5, load=0.95, kind=kind) for kind in ("texts", "chats")}
    whole = best("end_to_end", turns=1, count=largest)
    first = 10_000  # from here to the largest
    exponent = math.log(growth[largest]["units"] * largest / (growth[first]["units"] * first)) / math.log(
        largest / first
    )
    result: dict[str, Any] = {
        **{f"engine_rps_{name}": round(load["rps"]) for name, load in loads.items()},
        "kv_pressure_rps": round(pressed["rps"]),
        "sjf_over_fifo": round(sjf["units"] / fifo["units"], 3),
        **{f"caching_{kind}": round(one["run_ratio"], 2) for kind, one in cached.items()},
        **{f"caching_{kind}_engine_alone": round(one["engine_ratio"], 2) for kind, one in cached.items()},
        **{f"caching_{kind}_hit_rate": round(one["hit_rate"], 2) for kind, one in cached.items()},
        "caching_machine": hardware(),
        "simpy_timeouts_per_s": round(1 / whole["unit_s"]),
        **{f"units_{name}": round(load["units"], 1) for name, load in loads.items()},
        "units_kv_pressure": round(pressed["units"], 1),
        "units_end_to_end": round(whole["units"], 1),
        "end_to_end_rps": round(whole["rps"]),
        "exponent": round(exponent, 3),
        "peak_rss_mb": round(whole["peak_rss_mb"]),
        "preemptions_under_pressure": int(pressed["preemptions"]),
        "growth": {str(count): round(one["units"], 1) for count, one in growth.items()},
        "end_to_end_requests": largest,
        "machine": hardware(),
    }
    slack = SHARED if quick else 1.0
    missed = {name: result[name] for name, limit in TARGETS.items() if result[name] > slack * limit}
    if not quick:
        result["peers"] = peers()
        layers = run("layers", count=50_000, load=1.3)
        STORED.write_text(json.dumps(result, indent=1) + "\n")
        STORED.with_name("layers.txt").write_text(layers)
    for name, value in missed.items():
        allowed = f", with {slack:g} times that allowed on a CI machine" if quick else ""
        print(f"missed: {name} is {value}, the target is {TARGETS[name]}{allowed}", file=sys.stderr)
    print(json.dumps(result))
    return 1 if missed else 0


def best(what: str, turns: int, **arguments: Any) -> dict[str, float]:
    """The measurement of the fewest units: other processes can only add to it."""
    found = [json.loads(run(what, **arguments)) for _ in range(turns)]
    chosen = min(found, key=lambda one: one["units"])
    print(f"{what} {arguments}: {chosen['units']:.1f} units, {chosen['rps']:.0f} requests/s", file=sys.stderr)
    return dict(chosen)


def run(what: str, **arguments: Any) -> str:
    """One measurement, in a process of its own."""
    command = [sys.executable, "-m", "experiments.speed.bench", what, json.dumps(arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    sys.exit(main())
