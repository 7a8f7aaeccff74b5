"""A gateway that serves for long, and many at once: its memory stays, its files come back, and nobody is lost."""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from experiments.gateway_cost import throughput, ways
from experiments.gateway_traffic import Client, body_of

pytestmark = pytest.mark.nightly
CLIENTS, SLOTS = 10_000, 512


@contextmanager
def gateway(folder: Path, **options: Any) -> Iterator[tuple[int, psutil.Process]]:
    """A gateway before a server that answers as it is told: port and process."""
    with ways(folder, **options) as (ports, processes):
        yield ports["gateway"], processes["gateway"]


def test_the_memory_is_as_large_after_20000_requests_as_after_5000(tmp_path: Path) -> None:
    with gateway(tmp_path) as (port, process):
        asyncio.run(throughput(port, 5_000))
        before = process.memory_info().rss
        asyncio.run(throughput(port, 15_000))
        assert process.memory_info().rss < before + 5e6


def test_ten_thousand_clients_at_once_are_all_served(tmp_path: Path) -> None:
    files, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    clients = min(CLIENTS, most - 2 * SLOTS - 100)

    async def all_of_them(port: int) -> list[Client]:
        loop, body, made = asyncio.get_running_loop(), body_of(tokens=3, every=0.2, first=0.2), list[Client]()
        for _ in range(clients):
            made.append((await loop.create_connection(lambda: Client(body), "127.0.0.1", port))[1])
        await asyncio.gather(*(client.over for client in made))
        return made

    try:
        with gateway(tmp_path, max_in_flight=SLOTS, queue_requests=2 * CLIENTS) as (port, process):
            before = process.num_fds(), process.memory_info().rss
            made = asyncio.run(all_of_them(port))
            assert [len(client.late) for client in made] == [3] * clients
            assert process.memory_info().rss < before[1] + clients * 40_000
            end = time.monotonic() + 30
            while process.num_fds() > before[0] + 10 and time.monotonic() < end:
                time.sleep(0.1)
            assert process.num_fds() <= before[0] + 10
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, most))
