"""The stored results of the speed benchmark, as they stand in the README."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

STORED = Path(__file__).with_name("results.json")


def block() -> str:
    """The results as Markdown tables."""
    found = json.loads(STORED.read_text())
    unit = 1e6 / found["simpy_timeouts_per_s"]
    lines = [
        f"On {found['machine']}, one core, CPU seconds; a bare SimPy timeout took {unit:.2f} µs there: the unit.",
        "",
        "| through | requests/s | units a request |",
        "|---|--:|--:|",
    ]
    for name, load in (("070", "0.7"), ("095", "0.95"), ("130", "1.3")):
        lines.append(f"| the engine, block KV, {load} of saturation | {found[f'engine_rps_{name}']:,} | "
                     f"{found[f'units_{name}']} |")  # fmt: skip
    lines.append(
        f"| the engine under KV pressure ({found['preemptions_under_pressure']:,} preemptions) | "
        f"{found['kv_pressure_rps']:,} | {found['units_kv_pressure']} |"
    )
    lines.append(
        f"| `driftsim simulate`, {found['end_to_end_requests']:,} requests, Parquet to Parquet | "
        f"{found['end_to_end_rps']:,} | {found['units_end_to_end']} |"
    )
    lines += [
        "",
        "| peer, 10,000 of the same requests on the same machine | requests/s | times slower than the engine at 0.95 |",
        "|---|--:|--:|",
    ]
    for peer in found.get("peers", []):
        told = peer.get("why", "")
        speed = f"{peer['rps']:,.0f}" if "rps" in peer else told
        ratio = f"{found['engine_rps_095'] / peer['rps']:.1f}" if "rps" in peer else ""
        lines.append(f"| {peer['name']} | {speed} | {ratio} |")
    growth = ", ".join(f"{int(count):,}: {units}" for count, units in found["growth"].items())
    lines += [
        "",
        f"Units a request by number of requests: {growth}; cost grows as n^{found['exponent']}. SJF with EMA takes "
        f"{found['sjf_over_fifo']} of FIFO's time. {_caching(found)}"
        f"Peak memory of the run end to end: {found['peak_rss_mb']:,} MB.",
    ]
    return "\n".join(lines) + "\n"


def _caching(found: dict[str, Any]) -> str:
    """What prefix caching costs, on the machine where that was measured."""
    texts, chats = (
        f"{100 * found[f'caching_{kind}_hit_rate']:.0f} % of the prompts' tokens, a whole run in memory takes "
        f"{found[f'caching_{kind}']} times as long as without the cache, the engine alone "
        f"{found[f'caching_{kind}_engine_alone']} times"
        for kind in ("texts", "chats")
    )
    return (
        f"Where prefix caching finds system prompts, {texts}; where the second turns of chats find the first, {chats} "
        f"({found['caching_machine']}). "
    )
