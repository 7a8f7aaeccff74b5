"""A gateway as a process: it is told new keys, killed, started again and stopped, and no finished row is lost."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import sys
from pathlib import Path

import aiohttp
import pytest

from driftsim.gateway import serving
from driftsim.gateway.config import load_config
from driftsim.gateway.keys import hash_of
from driftsim.trace.segments import newest, segments
from driftsim.trace.trace import read
from tests.gateway.upstream import Upstream, served, until

FIRST, SECOND = "ds-first-key", "ds-second-key"


class Process:
    """``driftsim serve`` with a configuration, and a client of it."""

    def __init__(self, config: Path, port: int) -> None:
        self.config, self.url = config, f"http://127.0.0.1:{port}"
        self.lines: list[str] = []

    async def start(self) -> None:
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "driftsim.cli", "serve", str(self.config), stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
        self.reading = asyncio.create_task(self.read())
        await until(lambda: any("learned from" in line for line in self.lines), 60)

    async def read(self) -> None:
        assert self.process.stderr is not None
        while line := await self.process.stderr.readline():
            self.lines.append(line.decode())

    async def end(self, number: int) -> int:
        self.process.send_signal(number)
        code = await asyncio.wait_for(self.process.wait(), 60)
        await self.reading
        return code


async def said(url: str, text: str, key: str = FIRST) -> int:
    body = {"messages": [{"role": "user", "content": text}], "stream": True}
    async with aiohttp.ClientSession() as client:
        headers = {"Authorization": f"Bearer {key}"}
        async with client.post(f"{url}/v1/chat/completions", json=body, headers=headers) as answer:
            await answer.read()
            return answer.status


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def write(config: Path, behind: Upstream, port: int, *keys: str) -> None:
    hashes = ", ".join(f'"{hash_of(key)}"' for key in keys)
    config.write_text(
        f'listen = "127.0.0.1:{port}"\nupstreams = ["{behind.url}"]\nrecord = "{config.parent}/recorded"\n'
        f'policy = "sjf"\nadvise_s = 0\n[[tenants]]\nname = "acme"\nkeys = [{hashes}]\n'
    )


def test_a_kill_loses_nothing_and_a_stop_ends_in_good_order(tmp_path: Path) -> None:
    async def whole() -> None:
        config, folder, port = tmp_path / "gateway.toml", tmp_path / "recorded", free_port()
        async with served(Upstream()) as behind:
            write(config, behind, port, FIRST)
            process = Process(config, port)
            await process.start()
            assert [await said(process.url, "hi") for _ in range(7)] == [200] * 7
            held = asyncio.create_task(said(process.url, "stop x"))
            await until(lambda: behind.open)
            assert await process.end(signal.SIGKILL) == -signal.SIGKILL
            with pytest.raises(aiohttp.ClientError):
                await held
            (segment,) = segments(folder)
            assert read(segment).requests["finish_reason"].tolist().count("stop") == 7

            write(config, behind, port, FIRST, SECOND)
            process = Process(config, port)
            await process.start()
            assert "learned from 7 recorded requests" in "".join(process.lines)
            assert read(segment).header.ended == "interrupted"
            write(config, behind, port, SECOND)
            last = asyncio.create_task(said(process.url, "stop y"))
            await until(lambda: behind.open)
            process.process.send_signal(signal.SIGHUP)
            await until(lambda: any("reloaded: 1 tenants" in line for line in process.lines))
            assert (await said(process.url, "hi"), await said(process.url, "hi", SECOND)) == (401, 200)
            process.process.send_signal(signal.SIGTERM)
            await until(lambda: any("shutting down" in line for line in process.lines))
            assert await said(process.url, "hi", SECOND) == 503
            async with aiohttp.ClientSession() as client, client.get(f"{process.url}/readyz") as ready:
                assert ready.status == 503
            behind.let("y")
            assert await last == 200
            assert await asyncio.wait_for(process.process.wait(), 60) == 0
            trace = next(newest(folder))
            assert (trace.header.ended, trace.requests["finish_reason"].tolist()) == ("complete", ["stop", "stop"])
            assert not any(key in "".join(process.lines) for key in (FIRST, SECOND))

    asyncio.run(whole())


def test_what_was_loaded_is_not_looked_through_while_streams_run(tmp_path: Path) -> None:
    """A collection over all that a gateway imports would hold up every stream."""
    config, seen = tmp_path / "gateway.toml", list[int]()

    def say(line: str) -> None:
        seen.append(gc.get_freeze_count())
        if "learned from" in line:
            os.kill(os.getpid(), signal.SIGTERM)

    config.write_text(
        f'listen = "127.0.0.1:{free_port()}"\nupstreams = ["http://127.0.0.1:{free_port()}/v1"]\n'
        'open = true\nrecord = ""\n'
    )
    gc.unfreeze()  # what the tests keep from the collector themselves
    try:
        assert asyncio.run(asyncio.wait_for(serving.run(load_config(config, {}), config, {}, say), 60))
    finally:
        gc.enable()
    assert min(seen) > 10_000


def test_a_gateway_runs_without_uvloop_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = serving.new_loop()
    assert type(loop).__module__ == "uvloop"
    loop.close()
    monkeypatch.setitem(sys.modules, "uvloop", None)  # as if there were none
    loop = serving.new_loop()
    assert type(loop).__module__.startswith("asyncio.")
    loop.close()
