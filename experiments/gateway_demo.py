"""A small real vLLM, the gateway before it, and a load of three tenants; the page shows what happens.

make gateway            # or python -m experiments.gateway_demo, until Ctrl-C
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp

from driftsim.gateway.keys import hash_of, new_key
from driftsim.live.model import smollm2
from experiments.arguments import amount, count

TENANTS = {"acme": "premium", "globex": "standard", "nightly": "batch"}
PROMPTS = (
    "Why is the sky blue?", "Summarize what a cache is.", "Explain the architecture of a web server.",
    "Write a detailed report on the history of trains.",
)  # fmt: skip
LONGEST_START_S = 600.0


def main() -> None:
    """Run until Ctrl-C."""
    parser = argparse.ArgumentParser(prog="experiments.gateway_demo", description=str(__doc__).split("\n", 1)[0])
    parser.add_argument("--port", type=count, default=8080, help="of the gateway")
    parser.add_argument("--rate", type=amount, default=1.0, help="requests a second, on average")
    asked = parser.parse_args()
    port = asked.port
    keys = {name: new_key() for name in TENANTS}
    operator = new_key()
    with tempfile.TemporaryDirectory() as folder, server(4) as url:
        config = Path(folder) / "gateway.toml"
        config.write_text(configuration(port, url, keys, operator))
        with gateway(config, port):
            page = f"http://127.0.0.1:{port}/ui"
            print(f"{page}: any name, password {operator}", flush=True)
            webbrowser.open(page)
            with suppress(KeyboardInterrupt):
                asyncio.run(load(f"http://127.0.0.1:{port}", keys, asked.rate))


def configuration(port: int, url: str, keys: dict[str, str], operator: str, **more: Any) -> str:
    """A gateway of three tenants before the server at ``url``."""
    lines = [
        f'listen = "127.0.0.1:{port}"', f'upstreams = ["{url}"]', 'policy = "sjf"', "max_in_flight = 4",
        "advise_s = 60", f'operators = ["{hash_of(operator)}"]', f'tokenizer = "{smollm2()}"',
        *(f"{name} = {value}" for name, value in more.items()),
    ]  # fmt: skip
    for name, tier in TENANTS.items():
        lines += [
            "[[tenants]]",
            f'name = "{name}"',
            f'tier = "{tier}"',
            f'keys = ["{hash_of(keys[name])}"]',
            "e2e_s = 30",
        ]
    return "\n".join(lines) + "\n"


@contextmanager
def server(slots: int) -> Iterator[str]:
    """A vLLM server of the small model on loopback, that runs so many requests at once; its URL."""
    port = free_port()
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(smollm2())]
    command += ["--served-model-name", "smollm2", "--host", "127.0.0.1", "--port", str(port), "--dtype", "bfloat16"]
    command += ["--enforce-eager", "--max-model-len", "2048", "--max-num-seqs", str(slots)]
    command += ["--max-num-batched-tokens", "512", "--no-enable-prefix-caching", "--enable-per-request-metrics"]
    quiet = {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_LOGGING_LEVEL": "ERROR",
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
    }
    run = subprocess.Popen(command, env=os.environ | quiet)
    try:
        reach(f"http://127.0.0.1:{port}/health", run)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        stop(run)


@contextmanager
def gateway(config: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """``driftsim serve`` with ``config``, which records beside it."""
    run = subprocess.Popen([sys.executable, "-m", "driftsim.cli", "serve", config.name], cwd=config.parent)
    try:
        reach(f"http://127.0.0.1:{port}/healthz", run)
        yield run
    finally:
        stop(run)


def reach(url: str, run: subprocess.Popen[bytes]) -> None:
    """Wait until ``url`` answers. Raises ``SystemExit`` where the process ended before."""
    end = time.monotonic() + LONGEST_START_S
    while True:
        try:
            urllib.request.urlopen(url, timeout=2).close()
            return
        except (urllib.error.URLError, OSError):
            if run.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"{url} does not answer; see above for why") from None
            time.sleep(0.5)


def stop(run: subprocess.Popen[bytes]) -> None:
    run.terminate()
    with suppress(subprocess.TimeoutExpired):
        run.wait(60)
    run.kill()


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def load(url: str, keys: dict[str, str], rate: float = 1.0, seed: int = 0) -> None:
    """Requests of all tenants, ``rate`` a second on average, for ever."""
    dice = random.Random(seed)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as client:
        tasks = set[asyncio.Task[float]]()
        while True:
            tenant = dice.choice(list(keys))
            task = asyncio.create_task(
                ask(client, url, keys[tenant], dice.choice(PROMPTS), dice.choice([32, 128, 256]))
            )
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            await asyncio.sleep(dice.expovariate(rate))


async def ask(client: aiohttp.ClientSession, url: str, key: str, text: str, most: int, **fields: Any) -> float:
    """One answer, read to its end; how long it took (s)."""
    body = {"model": "smollm2", "messages": [{"role": "user", "content": text}], "max_tokens": most, "stream": True}
    begun = time.monotonic()
    with suppress(aiohttp.ClientError, TimeoutError):
        async with client.post(
            f"{url}/v1/chat/completions", json=body | fields, headers={"Authorization": f"Bearer {key}"}
        ) as answer:
            await answer.read()
    return time.monotonic() - begun


if __name__ == "__main__":
    main()
