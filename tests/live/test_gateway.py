"""The gateway before a real vLLM: its order is the policy's, SJF lowers the mean, and what it recorded is validated."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from driftsim.gateway.keys import new_key
from driftsim.live.model import smollm2
from driftsim.trace.segments import segments
from driftsim.trace.trace import Trace, read
from experiments.gateway_demo import TENANTS, ask, configuration, free_port, gateway, server
from tests.live.test_capture import holds_the_order_of_sjf

pytestmark = pytest.mark.live
SLOTS, REQUESTS = 4, 48
LENGTHS = [128, 4, 64, 8, 96, 16]
BENCH = """\
import argparse
from vllm.benchmarks.serve import add_cli_args, main
parser = argparse.ArgumentParser()
add_cli_args(parser)
main(parser.parse_args())
"""  # as vllm bench serve does; the CPU build's own command does not start


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with server(SLOTS) as place:
        yield place


def served(url: str, folder: Path, policy: str) -> tuple[Trace, Path, list[float]]:
    """A backlog through a gateway: its trace, where that is, and how long each answer took (s)."""
    folder.mkdir()
    port, keys = free_port(), {name: new_key() for name in TENANTS}
    text = configuration(port, url, keys, new_key()).replace('policy = "sjf"', f'policy = "{policy}"')
    (folder / "gateway.toml").write_text(text.replace("advise_s = 60", 'advise_s = 0\nadmission = {base = "caps"}'))

    async def backlog() -> list[float]:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as client:
            names = [list(keys)[number % 3] for number in range(REQUESTS)]
            return list(await asyncio.gather(*(
                ask(client, f"http://127.0.0.1:{port}", keys[name], "Count.", LENGTHS[number % 6], ignore_eos=True)
                for number, name in enumerate(names)
            )))  # fmt: skip

    with gateway(folder / "gateway.toml", port):
        took = asyncio.run(backlog())
    (place,) = segments(folder / "recorded")
    return read(place), place, took


def test_sjf_before_a_real_server_lowers_the_mean_and_is_recorded(url: str, tmp_path: Path) -> None:
    fifo, first, took_fifo = served(url, tmp_path / "fifo", "fifo")
    sjf, second, took_sjf = served(url, tmp_path / "sjf", "sjf")
    for trace in (fifo, sjf):
        rows = trace.requests
        assert rows["finish_reason"].tolist() == ["length"] * REQUESTS
        assert sorted(rows["output_tokens"]) == sorted(LENGTHS * (REQUESTS // 6))
        assert trace.header.engine.max_model_len == 2048
        assert (rows["dispatch_s"] <= rows["queued_s"] + 1e-6).all()  # as the server tells of itself
        assert (rows["queued_s"] <= rows["scheduled_s"] + 1e-6).all()
    holds_the_order_of_sjf(sjf)
    assert sum(took_sjf) < 0.85 * sum(took_fifo)
    profile = tmp_path / "p.json"
    quick = ("--policies", "fifo", "--estimators", "static", "--replications", 2)
    for arguments in (
        ("calibrate", first, second, "--out", profile, "--force"),  # few requests, of one load
        ("validate", second, "--profile", profile),
        ("advise", second, *quick, "--profile", profile),
    ):
        command = [sys.executable, "-m", "driftsim.cli", *map(str, arguments)]
        run = subprocess.run(command, capture_output=True, text=True, timeout=600)
        assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("backend", ["openai", "openai-chat"])
def test_vllm_bench_serve_works_through_it(url: str, tmp_path: Path, backend: str) -> None:
    port, keys = free_port(), {name: new_key() for name in TENANTS}
    text = configuration(port, url, keys, new_key()).replace("advise_s = 60", "advise_s = 0")
    (tmp_path / "gateway.toml").write_text(text)
    endpoint = {"openai": "/v1/completions", "openai-chat": "/v1/chat/completions"}[backend]
    told = [
        "--backend", backend, "--endpoint", endpoint, "--base-url", f"http://127.0.0.1:{port}", "--model", "smollm2",
        "--tokenizer", str(smollm2()), "--dataset-name", "random", "--random-input-len", "16", "--random-output-len",
        "8", "--num-prompts", "6", "--ignore-eos", "--save-result", "--result-filename", str(tmp_path / "bench.json"),
    ]  # fmt: skip
    with gateway(tmp_path / "gateway.toml", port):
        run = subprocess.run(
            [sys.executable, "-c", BENCH, *told], capture_output=True, text=True, timeout=600,
            env=os.environ | {"OPENAI_API_KEY": keys["acme"], "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"},
        )  # fmt: skip
    assert run.returncode == 0, run.stderr[-3000:]
    bench = json.loads((tmp_path / "bench.json").read_text())
    assert (bench["completed"], bench["total_output_tokens"]) == (6, 48)
    (place,) = segments(tmp_path / "recorded")
    rows = read(place).requests
    done = rows[rows["output_tokens"] == 8]
    assert len(done) >= 6  # and the request that tries whether the server is there
    assert set(rows["tenant"]) == {"acme"}
