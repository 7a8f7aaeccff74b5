"""Real vLLM with prefix caching: what it finds in its cache is what the simulated engine finds, request by request."""

from __future__ import annotations

import json
import os
import random
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from driftsim.latency.profile import load_profile
from driftsim.live.model import smollm2
from driftsim.simulation.run import simulate
from driftsim.simulation.scenario import Scenario
from driftsim.trace import trace as traces
from driftsim.validation.validation import on_measured_steps
from driftsim.workloads.replay import as_recorded
from tests.live.test_capture import printed

pytestmark = pytest.mark.live
WORDS = [
    "river",
    "mill",
    "weather",
    "bridge",
    "market",
    "garden",
    "winter",
    "summer",
    "stone",
    "paper",
    "letter",
    "road",
]
NEXT_TURN = "<|im_end|>\n<|im_start|>"  # as the model's chat template has it


def chats(file: Path, count: int, seed: int, most: int = 700, answer: int = 24) -> Path:
    """Prompts of three applications with a system prompt each; half of them go on with an earlier one, as turns do.

    ``most`` words each, and answers of at most ``answer`` tokens.
    """
    dice = random.Random(seed)

    def words(least: int, most: int) -> str:
        return " ".join(dice.choices(WORDS, k=dice.randint(least, most)))

    systems, past, lines = [words(n, n) for n in (60, 200, 330)], list[str](), list[str]()
    while len(lines) < count:
        if past and dice.random() < 0.5:
            begun = f"{dice.choice(past)}{NEXT_TURN}assistant\n{words(20, 40)}{NEXT_TURN}user\n{words(4, 30)}"
        else:
            begun = f"{dice.choice(systems)}. Tell me of {words(4, 30)}"
        if len(begun.split()) < most:
            past.append(begun)
            lines.append(json.dumps({"prompt": begun, "max_tokens": dice.randint(3, answer)}))
    file.write_text("\n".join(lines))
    return file


@pytest.mark.parametrize("tight", [False, True], ids=["room", "preempting"])
def test_what_vllm_found_in_its_cache_is_what_the_simulation_finds(tight: bool, tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    prompts = chats(file, 24, seed=5, most=300, answer=90) if tight else chats(file, 40, seed=4)
    room = ("--max-num-seqs", 12, "--kv-blocks", 26, "--max-model-len", 768) if tight else ("--max-num-seqs", 6)
    options = ("--prefix-caching", "--engine-arg", "block_size=32", "--policy", "stock")
    printed("capture", "--out", tmp_path / "t", "--prompts", prompts, *options, *room)
    trace = traces.read(tmp_path / "t")
    rows = trace.requests
    assert trace.header.engine.enable_prefix_caching
    assert trace.header.prefixes is not None
    assert trace.header.prefixes.began_cold
    assert rows["cached_tokens"].sum() > 1_000
    validation = on_measured_steps("t", trace)
    assert validation.steps_alike == 1.0
    assert validation.simulated.requests["cached_tokens"].tolist() == rows["cached_tokens"].tolist()
    if tight:
        assert trace.steps is not None
        assert trace.steps["preempted"].sum() > 0


def test_what_is_shared_is_known_where_the_cache_is_off_and_a_second_run_begins_cold(tmp_path: Path) -> None:
    prompts = chats(tmp_path / "prompts.jsonl", 12, seed=6)
    printed("capture", "--out", tmp_path / "off", "--prompts", prompts, "--engine-arg", "block_size=32")
    on = ("--prefix-caching", "--engine-arg", "block_size=32", "--repeats", 2)
    printed("capture", "--out", tmp_path / "on", "--prompts", prompts, *on)
    off = traces.read(tmp_path / "off").requests
    assert "cached_tokens" not in off
    runs = [traces.read(tmp_path / "on" / f"fifo-{number}") for number in (1, 2)]
    for trace in runs:
        rows = trace.requests
        ours = (rows["prefix_tokens"].fillna(0) >= 32) & (rows["prefix_tokens"].fillna(0) <= rows["prompt_tokens"])
        assert rows["prefix_row"][ours].tolist() == off["prefix_row"][ours].tolist()
        assert rows["prefix_tokens"][ours].tolist() == off["prefix_tokens"][ours].tolist()
        assert rows["cached_tokens"][0] == 0  # nothing of the run before, nor of the warm-up
        assert on_measured_steps("t", trace).steps_alike == 1.0


@contextmanager
def served() -> Iterator[str]:
    """A vLLM server as it is started by everybody, its memory aside."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(smollm2())]
    command += ["--served-model-name", "smollm2", "--host", "127.0.0.1", "--port", str(port)]
    quiet = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_LOGGING_LEVEL": "ERROR", "HF_HUB_OFFLINE": "1"}
    run = subprocess.Popen(command, env=os.environ | quiet | {"VLLM_NO_USAGE_STATS": "1"})
    try:
        for _ in range(1200):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1).close()
                break
            except (urllib.error.URLError, OSError):
                assert run.poll() is None, "the server did not start"
                time.sleep(0.5)
        yield f"http://127.0.0.1:{port}"
    finally:
        for member in (psutil.Process(run.pid), *psutil.Process(run.pid).children(recursive=True)):
            member.kill()
        run.wait()


def hits(server: str) -> tuple[float, float]:
    """Prompt tokens that the server has computed, and that it has found in its cache."""
    page = urllib.request.urlopen(f"{server}/metrics", timeout=20).read().decode()
    sources = ("local_compute", "local_cache_hit")
    found = [
        re.search(rf'^vllm:prompt_tokens_by_source_total{{.*source="{one}".*}} (.*)$', page, re.M) for one in sources
    ]
    computed, cached = (float(one[1]) for one in found if one)
    return computed, cached


def test_a_stock_server_goes_from_its_capture_to_the_comparison(tmp_path: Path) -> None:
    prompts = chats(tmp_path / "prompts.jsonl", 60, seed=8)
    with served() as server:
        address = ("--engine", "openai", "--base-url", server)
        before = hits(server)
        driven = ("--prompts", prompts, "--arrivals", "poisson", "--rate", 1, "--policy", "stock")
        printed("capture", "--out", tmp_path / "t", *address, *driven)
        computed, cached = (now - then for now, then in zip(hits(server), before, strict=True))
    trace = traces.read(tmp_path / "t")
    engine = trace.header.engine
    assert len(trace.finished) == 60
    assert (engine.enable_prefix_caching, engine.async_scheduling, engine.block_size) == (True, False, 128)
    assert trace.header.prefixes is not None
    assert trace.header.prefixes.source == "tokens"
    profile = tmp_path / "profile.json"
    printed("calibrate", tmp_path / "t", "--out", profile, "--force")  # on a busy machine times fit badly
    printed("validate", tmp_path / "t", "--profile", profile)
    printed("compare", tmp_path / "t", "--profile", profile, "--replications", 1, "--policies", "fifo,sjf")
    rows = simulate(Scenario(profile=load_profile(profile), policy="stock"), as_recorded(trace)).requests
    share = rows["cached_tokens"].sum() / rows["prompt_tokens"].sum()
    assert cached / (computed + cached) > 0.3
    assert abs(share - cached / (computed + cached)) < 0.01
