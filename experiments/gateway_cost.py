"""What does the gateway cost? Added latency of a streamed token, requests and chunks a second, memory, waiting.

    python -m experiments.gateway_cost            # remakes gateway_cost/costs.json

The server behind streams events that carry the moment they were sent, by the clock that all processes of one machine
share. Going straight, a bare aiohttp pass-through and the gateway take turns in one run; each is a process of its own.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from driftsim.live.machine import hardware
from experiments.arguments import plain

STORED = Path(__file__).with_suffix("") / "costs.json"
STREAMS, TOKENS, EVERY_S = 256, 60, 0.05  # of the latency
AT_ONCE, CHUNKS, REQUESTS = 64, 64, 1_500  # of the throughput
MANY, FIRST = 20_000, 5_000  # requests of the memory
WAITING, IDLE_S = 2_000, 10.0
ROUNDS = 3
WAYS = ("straight", "bare", "gateway")


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
            spread = rounds(lambda way: asyncio.run(latencies(ports[way], spread=True)))
            bursts = rounds(lambda way: asyncio.run(latencies(ports[way], spread=False)))
            costs["token_ms"] = {"spread": percentiles(spread), "bursts": percentiles(bursts)}
            speeds = rounds(lambda way: [asyncio.run(throughput(ports[way], REQUESTS))])
            costs["requests_per_s"] = {way: round(float(np.median(own)), 1) for way, own in speeds.items()}
            costs["chunks_per_s"] = {way: round(float(np.median(own)) * CHUNKS) for way, own in speeds.items()}
            costs["cpu_us_a_chunk"] = {
                way: round(cpu_a_chunk(ports[way], processes[way]), 1) for way in ("bare", "gateway")
            }
            costs["memory_mb"] = memory(ports["gateway"], gateway)
        with ways(Path(folder), max_in_flight=1) as (ports, processes):
            costs["waiting"] = WAITING
            costs["waiting_core"] = round(asyncio.run(waiting(ports["gateway"], processes["gateway"])), 4)
    STORED.parent.mkdir(exist_ok=True)
    STORED.write_text(json.dumps(costs, indent=1) + "\n")


def rounds(measure: Callable[[str], Any]) -> dict[str, list[Any]]:
    """What ``measure`` finds for each way, the ways in turn, several times."""
    found: dict[str, list[Any]] = {way: [] for way in WAYS}
    for _ in range(ROUNDS):
        for way in WAYS:
            found[way].extend(measure(way))
    return found


def percentiles(found: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Of each way, in ms."""
    return {
        way: {f"p{percent}": round(float(1e3 * np.percentile(own, percent)), 2) for percent in (50, 99)}
        for way, own in found.items()
    }


# -- the processes
@contextmanager
def ways(folder: Path, **options: Any) -> Iterator[tuple[dict[str, int], dict[str, psutil.Process]]]:
    """The server, a bare pass-through and a gateway: ports and processes of the ways."""
    ports = {way: free_port() for way in WAYS}
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
    started = []
    try:
        for command, port in zip(commands, ports.values(), strict=True):
            started.append(subprocess.Popen(command, stderr=subprocess.DEVNULL))
            reach(port)
        yield ports, {way: psutil.Process(one.pid) for way, one in zip(WAYS, started, strict=True)}
    finally:
        for process in reversed(started):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def reach(port: int) -> None:
    """Wait until somebody listens on ``port``."""
    end = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


class Server(asyncio.Protocol):
    """As little of a server as there can be: it answers with ``tokens`` events, ``every`` so many seconds."""

    def __init__(self) -> None:
        self.buffer = b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, end, body = self.buffer.partition(b"\r\n\r\n")
        length = next(
            (int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0
        )
        if not end or len(body) < length:
            return
        self.buffer = b""
        if b"chat/completions" not in head:
            page = b'{"data": [{"id": "fast", "max_model_len": 100000}]}' if b"/models" in head else b"{}"
            self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(page) + page)
            return
        told = json.loads(body)
        self.transport.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        loop = asyncio.get_running_loop()
        self.tokens, self.every = int(told["tokens"]), float(told["every"])
        if self.every:
            begin = loop.time() + float(told["first"])
            loop.call_at(begin, self.token, begin, 0)
        else:
            for number in range(self.tokens):
                self.event(number)
            self.end()

    def token(self, begin: float, number: int) -> None:
        """Send one, and have the next one sent."""
        self.event(number)
        if number + 1 < self.tokens:
            at = begin + (number + 1) * self.every
            asyncio.get_running_loop().call_at(at, self.token, begin, number + 1)
        else:
            self.end()

    def event(self, number: int) -> None:
        """One event, with the moment at which it is sent."""
        text = b'data: {"choices":[{"index":0,"delta":{"content":"%d"}}]}\n\n' % time.monotonic_ns()
        self.transport.write(b"%x\r\n%b\r\n" % (len(text), text))

    def end(self) -> None:
        """The events that end an answer."""
        text = (
            b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
            b'data: {"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":%d}}\n\ndata: [DONE]\n\n' % self.tokens
        )
        self.transport.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(text), text))


async def serve(port: int) -> None:
    """Run the server."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Server, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


async def bare(port: int, behind: int) -> None:
    """Run a pass-through that does nothing else, by aiohttp as the gateway."""
    import aiohttp
    from aiohttp import web

    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as session:

        async def passed(request: web.Request) -> web.StreamResponse:
            body = await request.read()
            async with session.post(f"http://127.0.0.1:{behind}{request.path}", data=body) as received:
                out = web.StreamResponse(status=received.status, headers={"Content-Type": received.content_type})
                await out.prepare(request)
                async for part in received.content.iter_any():
                    await out.write(part)
                await out.write_eof()
                return out

        app = web.Application()
        app.router.add_post("/{path:.*}", passed)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port, backlog=4096).start()
        await asyncio.sleep(3_600)


# -- the client
class Client(asyncio.Protocol):
    """Sends a request and reads its answer; ``late`` are the times (s) that its tokens took."""

    def __init__(self, body: bytes, again: Callable[[], bool] = lambda: False) -> None:
        self.sent = (
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        )
        self.again = again
        self.late: list[float] = []
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.left = b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.write(self.sent)

    def data_received(self, data: bytes) -> None:
        now = time.monotonic_ns()
        whole = self.left + data
        parts = whole.split(b'"content":"')
        for part in parts[1:]:
            text, end, _ = part.partition(b'"')
            if end:
                self.late.append((now - int(text)) / 1e9)
        self.left = b'"content":"' + parts[-1] if len(parts) > 1 and b'"' not in parts[-1] else parts[-1][-200:]
        if len(parts) > 1 and b'"' in parts[-1]:
            self.left = parts[-1].partition(b'"')[2][-200:]
        if self.left.endswith(b"0\r\n\r\n"):
            self.left = b""
            if self.again():
                self.transport.write(self.sent)
            else:
                self.transport.close()
                self.over.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.over.done():
            self.over.set_exception(error or ConnectionError("the answer broke off"))


def body_of(**told: Any) -> bytes:
    return json.dumps({"stream": True, "messages": [{"role": "user", "content": "Why?"}], **told}).encode()


async def latencies(port: int, *, spread: bool) -> list[float]:
    """Seconds that each token took; ``spread``: streams send at moments of their own, else all at once, as a step."""
    loop, clients = asyncio.get_running_loop(), []
    for number in range(STREAMS):
        first = 0.5 + (EVERY_S * number / STREAMS if spread else 0.0)
        body = body_of(tokens=TOKENS, every=EVERY_S, first=first)
        clients.append((await loop.create_connection(partial(Client, body), "127.0.0.1", port))[1])
        await asyncio.sleep(0)
    await asyncio.gather(*(client.over for client in clients))
    late = [value for client in clients for value in client.late]
    assert len(late) == STREAMS * TOKENS, (len(late), STREAMS * TOKENS)
    return late


async def throughput(port: int, requests: int) -> float:
    """Requests a second, ``AT_ONCE`` of them at a time, each answered at once."""
    left = requests

    def again() -> bool:
        nonlocal left
        left -= 1
        return left >= 0

    loop, body = asyncio.get_running_loop(), body_of(tokens=CHUNKS, every=0, first=0)
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
    cpu, memory = costs["cpu_us_a_chunk"], list(costs["memory_mb"].values())
    added = {
        what: costs["token_ms"][what]["gateway"]["p99"] - costs["token_ms"][what]["straight"]["p99"]
        for what in ("spread", "bursts")
    }
    share = costs["requests_per_s"]["gateway"] / costs["requests_per_s"]["straight"]
    return (
        f"{cpu['gateway']:.0f} us of CPU for a streamed token with its share of a request (a bare pass-through: "
        f"{cpu['bare']:.0f} us); {memory[-1]:.0f} MB after {MANY:,} requests and {memory[0]:.0f} after {FIRST:,}; "
        f"{costs['waiting_core']:.3f} cores with {costs['waiting']:,} waiting. With a load of {costs['load']:.1f} on "
        f"the machine, the P99 of a streamed token grows by {added['spread']:.0f} ms ({added['bursts']:.0f} ms "
        f"in bursts), and {100 * share:.0f} % of the throughput of a server that answers at once is left."
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["server"]:
        asyncio.run(serve(int(sys.argv[2])))
    elif sys.argv[1:2] == ["bare"]:
        asyncio.run(bare(int(sys.argv[2]), int(sys.argv[3])))
    else:
        plain("experiments.gateway_cost", __doc__)
        main()
