"""What does the gateway cost? Added latency of a streamed token, requests and chunks a second, memory, waiting.

    python -m experiments.gateway_cost            # remakes gateway_cost/costs.json

The server behind streams events that carry the moment they were sent, by the clock that all processes of one machine
share. Going straight, a bare aiohttp pass-through, the gateway and, where LITELLM names its program (of an environment
of its own, pip install 'litellm[proxy]'), LiteLLM's proxy take turns in one run; each is one process. While a token is
timed, all of them go before whatever else runs on the machine, where the system allows that (SCHED_RR). Requests a
second are counted under the system's own scheduling, of processes started anew several times: which core and which
places in memory a process gets changes them more than one round differs from the next.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from driftsim.live.machine import hardware
from experiments.arguments import plain
from experiments.gateway_traffic import Client, bare, body_of, free_port, reach, serve

STORED = Path(__file__).with_suffix("") / "costs.json"
STREAMS, TOKENS, EVERY_S = 256, 60, 0.05  # of the latency
AT_ONCE, CHUNKS, REQUESTS = 64, 64, 1_500  # of the throughput
STEP_S, PACED = 0.025, 3  # of a server's step; requests of each stream
MANY, FIRST = 20_000, 5_000  # requests of the memory
WAITING, IDLE_S = 2_000, 10.0
ROUNDS, STARTS = 3, 7
LITELLM = os.environ.get("LITELLM", "")
WAYS = ("straight", "bare", "gateway", *(["litellm"] if LITELLM else []))
NAMES = {"straight": "straight", "bare": "bare aiohttp", "gateway": "`driftsim serve`", "litellm": "LiteLLM's proxy"}
LITELLM_CONFIG = """\
model_list:
  - {{model_name: fast, litellm_params: {{model: openai/fast, api_base: "http://127.0.0.1:{}/v1", api_key: none}}}}
litellm_settings: {{telemetry: false}}
"""


def main() -> None:
    """Measure everything and store it."""
    with tempfile.TemporaryDirectory() as folder:
        costs: dict[str, Any] = {
            "machine": hardware(),
            "load": round(os.getloadavg()[0], 1),
            "streams": STREAMS,
            "every_s": EVERY_S,
            "at_once": AT_ONCE,
        }
        with ways(Path(folder)) as (ports, processes):
            gateway = processes["gateway"]
            ids = [os.getpid(), *(process.pid for process in processes.values())]
            costs["goes_first"] = all(goes_first(number, True) for number in ids)
            spread = rounds(lambda way: asyncio.run(latencies(ports[way], spread=True)))
            bursts = rounds(lambda way: asyncio.run(latencies(ports[way], spread=False)))
            costs["token_ms"] = {"spread": percentiles(spread), "bursts": percentiles(bursts)}
            paced = rounds(lambda way: [asyncio.run(throughput(ports[way], PACED * AT_ONCE - AT_ONCE, STEP_S))])
            costs["paced_requests_per_s"] = medians(paced)
            for number in ids:
                goes_first(number, False)
            costs["cpu_us_a_chunk"] = {
                way: round(cpu_a_chunk(ports[way], processes[way]), 1) for way in WAYS if way != "straight"
            }
            costs["memory_mb"] = memory(ports["gateway"], gateway)
        speeds, used = zip(*(speeds_of_a_start(Path(folder), bool(number)) for number in range(STARTS)), strict=True)
        costs["requests_per_s"] = medians(together(speeds))
        costs["cpu_us_a_request"] = medians(together(used))
        costs["left"] = [round(float(np.median(one["gateway"]) / np.median(one["straight"])), 3) for one in speeds]
        with ways(Path(folder), max_in_flight=1) as (ports, processes):
            costs["waiting"] = WAITING
            costs["waiting_core"] = round(asyncio.run(waiting(ports["gateway"], processes["gateway"])), 4)
    STORED.parent.mkdir(exist_ok=True)
    STORED.write_text(json.dumps(costs, indent=1) + "\n")


def rounds(measure: Callable[[str], Any], known: Sequence[str] = WAYS) -> dict[str, list[Any]]:
    """What ``measure`` finds for each way ``known``, in turn, several times; LiteLLM's once, which takes long."""
    found: dict[str, list[Any]] = {way: [] for way in known}
    for number in range(ROUNDS):
        for way in known:
            if not number or way != "litellm":
                found[way].extend(measure(way))
    return found


def speeds_of_a_start(folder: Path, without_litellm: bool) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Requests a second of each way, and its CPU time of a request (us): several rounds of processes started anew."""
    known = [way for way in WAYS if way != "litellm" or not without_litellm]
    used: dict[str, list[float]] = {way: [] for way in known}
    with ways(folder, known) as (ports, processes):

        def speed(way: str) -> list[float]:
            before = cpu_s(processes[way])
            found = asyncio.run(throughput(ports[way], requests_of(way)))
            used[way].append(1e6 * (cpu_s(processes[way]) - before) / (requests_of(way) + AT_ONCE))
            return [found]

        return rounds(speed, known), used


def together(starts: Sequence[dict[str, list[float]]]) -> dict[str, list[float]]:
    """What several starts found of each way."""
    return {way: [value for one in starts for value in one.get(way, [])] for way in WAYS}


def goes_first(number: int, first: bool) -> bool:
    """Let a process go before all others, or not; whether that was allowed."""
    try:
        os.sched_setscheduler(number, os.SCHED_RR if first else os.SCHED_OTHER, os.sched_param(int(first)))
    except (AttributeError, OSError):
        return False
    return True


def requests_of(way: str) -> int:
    """Requests of one round of the throughput: few where each takes long."""
    return REQUESTS // 30 if way == "litellm" else REQUESTS


def medians(found: dict[str, list[float]]) -> dict[str, float]:
    """Of each way, over its rounds."""
    return {way: round(float(np.median(own)), 1) for way, own in found.items()}


def percentiles(found: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Of each way, in ms."""
    return {
        way: {f"p{percent}": round(float(1e3 * np.percentile(own, percent)), 2) for percent in (50, 99)}
        for way, own in found.items()
    }


# -- the processes
@contextmanager
def ways(
    folder: Path, known: Sequence[str] = WAYS, **options: Any
) -> Iterator[tuple[dict[str, int], dict[str, psutil.Process]]]:
    """The server and what stands before it: ports and processes of the ways ``known``."""
    ports = {way: free_port() for way in known}
    config = folder / "gateway.toml"
    lines = [f"{name} = {json.dumps(value)}" for name, value in options.items()]
    config.write_text(
        f'listen = "127.0.0.1:{ports["gateway"]}"\nupstreams = ["http://127.0.0.1:{ports["straight"]}/v1"]\n'
        f'open = true\nadvise_s = 0\nrecord = "{folder}/recorded"\npolicy = "sjf"\n' + "\n".join(lines) + "\n"
    )
    module = [sys.executable, "-m", "experiments.gateway_cost"]
    commands = [
        [*module, "server", str(ports["straight"])],
        [*module, "bare", str(ports["bare"]), str(ports["straight"])],
        [sys.executable, "-m", "driftsim.cli", "serve", str(config)],
    ]
    if "litellm" in known:
        (folder / "litellm.yaml").write_text(LITELLM_CONFIG.format(ports["straight"]))
        commands.append([LITELLM, "--config", f"{folder}/litellm.yaml", "--host", "127.0.0.1", "--port",
                         str(ports["litellm"]), "--num_workers", "1"])  # fmt: skip
    alone = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true"}
    started = []
    try:
        for command, port in zip(commands, ports.values(), strict=True):
            quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            started.append(subprocess.Popen(command, env=os.environ | alone, **quiet))  # type: ignore[call-overload]
            reach(port)
        yield ports, {way: psutil.Process(one.pid) for way, one in zip(known, started, strict=True)}
    finally:
        for process in reversed(started):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


async def latencies(port: int, *, spread: bool) -> list[float]:
    """Seconds that each token took; ``spread``: streams send at moments of their own, else all at once, as a step."""
    loop, clients = asyncio.get_running_loop(), []
    for number in range(STREAMS):
        first = 0.5 + (EVERY_S * number / STREAMS if spread else 0.0)
        body = body_of(tokens=TOKENS, every=EVERY_S, first=first, together=not spread)
        clients.append((await loop.create_connection(partial(Client, body), "127.0.0.1", port))[1])
        await asyncio.sleep(0)
    await asyncio.gather(*(client.over for client in clients))
    late = [value for client in clients for value in client.late]
    assert len(late) == STREAMS * TOKENS, (len(late), STREAMS * TOKENS)
    return late


async def throughput(port: int, requests: int, every: float = 0.0) -> float:
    """Requests a second, ``AT_ONCE`` at a time, each answered with a token ``every`` so many seconds (0: at once)."""
    left = requests

    def again() -> bool:
        nonlocal left
        left -= 1
        return left >= 0

    loop, body = asyncio.get_running_loop(), body_of(tokens=CHUNKS, every=every, first=every)
    begun = time.monotonic()
    clients = [
        (await loop.create_connection(lambda: Client(body, again), "127.0.0.1", port))[1] for _ in range(AT_ONCE)
    ]
    await asyncio.gather(*(client.over for client in clients))
    return (requests + AT_ONCE) / (time.monotonic() - begun)


def cpu_a_chunk(port: int, process: psutil.Process) -> float:
    """CPU time of a ``process`` for one token that comes alone, with its share of a request (us)."""
    before = cpu_s(process)
    late = asyncio.run(latencies(port, spread=True))
    return 1e6 * (cpu_s(process) - before) / len(late)


def memory(port: int, gateway: psutil.Process) -> dict[str, float]:
    """Resident memory of the gateway (MB) after some requests, and after many."""
    found = {}
    done = 0
    for count in (FIRST, MANY):
        asyncio.run(throughput(port, count - done))
        done = count
        found[str(count)] = round(gateway.memory_info().rss / 1e6, 1)
    return found


async def waiting(port: int, gateway: psutil.Process) -> float:
    """Cores that the gateway uses while ``WAITING`` requests wait and nothing happens."""
    loop = asyncio.get_running_loop()
    body = body_of(tokens=2, every=3_600.0, first=0.0)
    clients = []
    for _ in range(WAITING + 1):
        clients.append((await loop.create_connection(lambda: Client(body), "127.0.0.1", port))[1])
    for _ in range(30):  # until all have arrived
        before = cpu_s(gateway)
        await asyncio.sleep(1.0)
        if cpu_s(gateway) - before < 0.05:
            break
    before, begun = cpu_s(gateway), time.monotonic()
    await asyncio.sleep(IDLE_S)
    used = (cpu_s(gateway) - before) / (time.monotonic() - begun)
    for client in clients:
        client.over.cancel()
        client.transport.abort()
    await asyncio.sleep(1.0)
    return used


def cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def answer() -> str:
    """The answer in one sentence, from what is stored."""
    costs = json.loads(STORED.read_text())
    token, request, kept = costs["cpu_us_a_chunk"], costs["cpu_us_a_request"], list(costs["memory_mb"].values())
    added = {
        what: costs["token_ms"][what]["gateway"]["p99"] - costs["token_ms"][what]["straight"]["p99"]
        for what in ("spread", "bursts")
    }
    paced = costs["paced_requests_per_s"]["gateway"] / costs["paced_requests_per_s"]["straight"]
    worst, least, most = (100 * at(costs["left"]) for at in (np.median, min, max))
    alone = {way: 1e6 / value for way, value in token.items()}
    whole = {way: 1e6 / value for way, value in request.items()}
    spread, bursts, at_once = added["spread"], added["bursts"], costs["at_once"]
    parts = [
        f"With {costs['streams']} streams the P99 of a token grows by {spread:.1f} ms, by {bursts:.1f} where all step "
        "at once.",
        f"{100 * paced:.0f} % of the throughput of {at_once} streams at {1e3 * STEP_S:.0f} ms a step is left, and "
        f"{worst:.0f} % ({least:.0f} to {most:.0f} over {len(costs['left'])} starts) of a server that answers at once.",
        f"A token with its share of a request takes {token['gateway']:.0f} us of CPU ({_beside(token)}).",
        f"So one core carries {alone['gateway']:,.0f} tokens a second that come alone ({_beside(alone)}), or",
        f"{whole['gateway']:,.0f} requests a second of {CHUNKS} tokens that come at once ({_beside(whole)}).",
        f"{kept[-1]:.0f} MB after {MANY:,} requests and {kept[0]:.0f} after {FIRST:,};",
        f"{costs['waiting_core']:.3f} cores with {costs['waiting']:,} waiting ({costs['machine']}).",
    ]
    return " ".join(parts)


def _beside(costs: dict[str, float]) -> str:
    litellm = f"; LiteLLM's proxy: {costs['litellm']:,.0f}" if "litellm" in costs else ""
    return f"a bare pass-through: {costs['bare']:,.0f}{litellm}"


def block() -> str:
    """What is stored, as a table of the ways."""
    costs = json.loads(STORED.read_text())
    known = [way for way in NAMES if way in costs["requests_per_s"]]
    token, request = costs["cpu_us_a_chunk"], costs["cpu_us_a_request"]
    rows = {
        f"P99 of a token, {costs['streams']} streams, ms": {
            way: f"{costs['token_ms']['spread'][way]['p99']:,.2f}" for way in known
        },
        "the same, where all step at once, ms": {
            way: f"{costs['token_ms']['bursts'][way]['p99']:,.2f}" for way in known
        },
        f"{costs['at_once']} streams at {1e3 * STEP_S:.0f} ms a step, requests/s": {
            way: f"{value:,.1f}" for way, value in costs["paced_requests_per_s"].items()
        },
        "a server that answers at once, requests/s": {
            way: f"{value:,.0f}" for way, value in costs["requests_per_s"].items()
        },
        "a token that comes alone, with its share of a request, us of CPU": {
            way: f"{value:,.0f}" for way, value in token.items()
        },
        f"a request of {CHUNKS} tokens at once, us of CPU": {way: f"{value:,.0f}" for way, value in request.items()},
        "one core carries, tokens/s that come alone": {way: f"{1e6 / value:,.0f}" for way, value in token.items()},
        "one core carries, requests/s at once": {way: f"{1e6 / value:,.0f}" for way, value in request.items()},
    }
    lines = [f"| on {costs['machine']} | {' | '.join(NAMES[way] for way in known)} |"]
    lines += [f"|---|{'--:|' * len(known)}"]
    lines += [f"| {what} | {' | '.join(cells.get(way, '') for way in known)} |" for what, cells in rows.items()]
    left, first = costs["left"], "before" if costs["goes_first"] else "beside"
    lines += [
        "",
        f"Of a server that answers at once, {100 * np.median(left):.0f} % of its requests a second are left (median of "
        f"{len(left)} starts of all processes, {100 * min(left):.0f} to {100 * max(left):.0f} %), under the system's "
        f"own scheduling. While tokens and streams at a pace were timed, the ways went {first} all else on the "
        "machine.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    if sys.argv[1:2] == ["server"]:
        asyncio.run(serve(int(sys.argv[2])))
    elif sys.argv[1:2] == ["bare"]:
        asyncio.run(bare(int(sys.argv[2]), int(sys.argv[3])))
    else:
        plain("experiments.gateway_cost", __doc__)
        main()
