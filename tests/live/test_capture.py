"""Captures through real vLLM and a real model: in process, over HTTP, in turns, and broken in the middle."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from driftsim.live.model import smollm2
from driftsim.trace import trace as traces
from driftsim.trace.schema import FINISHED, PREFIX_COLUMNS, REQUEST_COLUMNS
from driftsim.trace.trace import Trace

pytestmark = pytest.mark.live
REQUESTS, SLOTS = 30, 4
SMALL = ("--max-num-seqs", str(SLOTS), "--seed", "3")
DRAWN = (
    "--caps", "reference", "--learning", "10", "--stress", str(REQUESTS - 10),
    "--learning-gap", "0.1", "0.3", "--stress-gap", "0.01", "0.05",
)  # fmt: skip


def driftsim(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "driftsim.cli", *map(str, arguments)]


def printed(*arguments: object) -> str:
    return subprocess.run(driftsim(*arguments), check=True, capture_output=True, text=True, timeout=600).stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("live") / "captured"
    command = driftsim("capture", "--out", out, "--policy", "sjf", "--estimator", "ema", *DRAWN, *SMALL)
    subprocess.run(command, check=True, timeout=600)
    return out


@pytest.fixture(scope="module")
def captured(folder: Path) -> Trace:
    return traces.read(folder)


def holds_the_order_of_sjf(trace: Trace) -> None:
    """Whoever was dispatched had the smallest budget of all who waited, ties by arrival."""
    rows = trace.requests.sort_values("dispatch_index")
    choices = 0
    for _, row in rows.iterrows():
        waits = rows["dispatch_index"] >= row["dispatch_index"]
        there = rows[(rows["arrival_s"] < row["dispatch_s"] - 0.005) & waits]
        choices += len(there) > 1
        if len(there):
            best = there.sort_values(["budget", "arrival_s"]).iloc[0]
            assert (row["budget"], row["arrival_s"]) <= (best["budget"], best["arrival_s"])
    assert choices > 5  # a queue stood, so that the order was the policy's


def holds_the_limit_in_flight(trace: Trace) -> None:
    rows = trace.requests
    for moment in rows["dispatch_s"]:
        assert ((rows["dispatch_s"] <= moment) & (rows["finish_s"] > moment)).sum() <= SLOTS


def test_every_request_is_recorded_and_nothing_of_its_text(captured: Trace) -> None:
    requests = captured.requests
    assert len(requests) == REQUESTS
    assert requests["finish_reason"].isin(("stop", "length")).all()
    assert (requests["output_words"] > 0).all()
    assert (requests[["dispatch_s", "queued_s", "scheduled_s", "first_token_s", "finish_s"]].notna()).all().all()
    assert set(requests.columns) == {column.name for column in (*REQUEST_COLUMNS, *PREFIX_COLUMNS)}


def test_the_header_tells_what_the_engine_resolved(captured: Trace) -> None:
    engine = captured.header.engine
    assert engine.max_num_seqs == SLOTS
    assert engine.kv_blocks > 100
    assert engine.version.count(".") >= 2
    assert not engine.enable_prefix_caching
    assert engine.assumed == ()
    assert captured.header.engine_arguments["scheduler.scheduler_reserve_full_isl"] is True
    assert captured.header.load is not None


def test_the_order_of_service_is_the_policys_and_the_bias_learns(captured: Trace) -> None:
    holds_the_order_of_sjf(captured)
    holds_the_limit_in_flight(captured)
    late = captured.requests[captured.requests["phase"] == "stress"]
    assert (late["bias"] != 1).any()


def test_the_steps_account_for_every_token(captured: Trace) -> None:
    steps, requests = captured.steps, captured.requests
    assert steps is not None
    assert steps["preempted"].sum() == 0
    assert steps["prefill_tokens"].sum() == requests["prompt_tokens"].sum()
    assert steps["decode_requests"].sum() == (requests["output_tokens"] - 1).sum()
    ends = (steps["start_s"] + steps["duration_s"]).to_numpy()
    for finish in requests["finish_s"]:
        assert abs(ends - finish).min() < 0.002  # every last token comes at the end of a step


def test_prompt_words_and_tokens_are_counted_as_the_model_sees_them(captured: Trace) -> None:
    from driftsim.scheduling.accounting import token_counter

    count = token_counter(smollm2())
    assert count("What is DNS?") >= 3
    assert token_counter(smollm2(), chat=True)("What is DNS?") > count("What is DNS?")
    assert (captured.requests["prompt_tokens"] > captured.requests["prompt_words"]).all()  # template and all


def test_a_captured_trace_goes_straight_into_the_comparison_and_the_calibration(folder: Path, tmp_path: Path) -> None:
    document = json.loads(printed("compare", folder, "--json", "--replications", 3))
    assert len(document["rows"]) == 11
    printed("calibrate", folder, "--out", tmp_path / "profile.json")
    assert json.loads((tmp_path / "profile.json").read_text())["intercept_s"] > 0


def test_policies_in_turn_serve_the_same_requests(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "ab"
    replay = ("--replay", folder, "--force-lengths", "--requests", 12, "--arrivals", "backlog")
    printed("capture", "--out", out, *replay, "--policies", "fifo,sjf", "--estimator", "ema", *SMALL)
    fifo, sjf = (traces.read(out / name) for name in ("fifo-1", "sjf-1"))
    source = traces.read(folder).requests.head(12)
    for name in ("request_id", "prompt_tokens", "output_tokens", "finish_reason", "arrival_s"):
        assert list(fifo.requests[name]) == list(sjf.requests[name]), name
    for name in ("request_id", "prompt_tokens", "output_tokens", "output_words", "finish_reason"):
        assert list(fifo.requests[name]) == list(source[name]), name
    assert list(fifo.requests["dispatch_index"]) == list(range(12))
    holds_the_order_of_sjf(sjf)
    rows = json.loads(printed("compare", "--measured", out / "fifo-1", out / "sjf-1", "--json"))["rows"]
    assert {row["policy"] for row in rows} == {"fifo", "sjf"}


def test_a_model_without_weights_or_tokenizer_is_timed_on_recorded_lengths(folder: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    shutil.copy(smollm2() / "config.json", model)
    replay = ("--replay", folder, "--force-lengths", "--requests", 6, "--arrivals", "poisson", "--rate", 4)
    printed("capture", "--out", tmp_path / "t", "--model", model, "--load-format", "dummy", *replay, *SMALL)
    trace = traces.read(tmp_path / "t")
    assert list(trace.requests["output_tokens"]) == list(traces.read(folder).requests["output_tokens"].head(6))
    assert trace.header.engine_arguments["load_format"] == "dummy"


def start_capture(out: Path) -> subprocess.Popen[str]:
    """A capture that has answered a few requests and is serving others."""
    command = driftsim("capture", "--out", out, "--arrivals", "backlog", *DRAWN, *SMALL)
    run = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline and run.poll() is None:
        if (out / "header.json").exists() and finished(out) >= 4:
            return run
        time.sleep(0.2)
    run.kill()
    raise AssertionError(f"the capture never got going: {run.communicate()[1]}")


def finished(out: Path) -> int:
    return int(traces.read(out).requests["finish_reason"].isin(FINISHED).sum())


def engine_core(run: subprocess.Popen[str]) -> psutil.Process:
    return next(child for child in psutil.Process(run.pid).children(recursive=True) if child.num_threads() > 4)


def test_an_engine_that_is_killed_leaves_what_was_finished(tmp_path: Path) -> None:
    out = tmp_path / "t"
    run = start_capture(out)
    before = finished(out)
    engine_core(run).kill()
    _, said = run.communicate(timeout=60)
    assert run.returncode == 1
    assert "the run was failed (the engine core died); what was recorded is kept" in said
    trace = traces.read(out)
    assert trace.header.ended == "failed"
    assert finished(out) >= before
    assert (trace.requests["finish_reason"] == "error").sum() >= 1
    assert trace.steps is not None
    assert len(trace.steps) > 10


def test_a_harness_that_is_killed_leaves_what_was_finished_and_no_engine_behind(tmp_path: Path) -> None:
    out = tmp_path / "t"
    run = start_capture(out)
    core = engine_core(run)
    before = finished(out)
    run.kill()
    run.communicate(timeout=60)
    trace = traces.read(out)
    assert trace.header.ended == "recording"
    assert finished(out) >= before
    assert trace.steps is not None
    last = trace.requests["finish_s"].max()
    assert (trace.steps["start_s"] + trace.steps["duration_s"]).max() >= last - 0.002  # steps are all there, too
    core.wait(timeout=20)
    command = driftsim("compare", out, "--replications", 1, "--policies", "fifo")
    compared = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "did not end properly" in " ".join(compared.split())


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_capture_that_is_stopped_writes_its_trace(how: signal.Signals, tmp_path: Path) -> None:
    out = tmp_path / "t"
    run = start_capture(out)
    core = engine_core(run)
    asked = time.monotonic()
    run.send_signal(how)
    _, said = run.communicate(timeout=60)
    assert time.monotonic() - asked < 15
    assert run.returncode == 1
    assert "the run was interrupted" in said
    assert "Traceback" not in said
    assert traces.read(out).header.ended == "interrupted"
    assert (out / "requests.parquet").exists()
    assert not core.is_running()


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """A vLLM server on loopback."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(smollm2())]
    command += ["--served-model-name", "smollm2", "--host", "127.0.0.1", "--port", str(port), "--dtype", "bfloat16"]
    command += ["--enforce-eager", "--max-model-len", "2048", "--max-num-seqs", str(SLOTS)]
    command += ["--max-num-batched-tokens", "512", "--no-enable-prefix-caching"]
    quiet = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_LOGGING_LEVEL": "ERROR", "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
    run = subprocess.Popen(command, env=os.environ | quiet | {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"})
    for _ in range(600):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1).close()
            break
        except (urllib.error.URLError, OSError):
            assert run.poll() is None, "the server did not start"
            time.sleep(0.5)
    yield f"http://127.0.0.1:{port}/v1"
    family = [psutil.Process(run.pid), *psutil.Process(run.pid).children(recursive=True)]
    for member in family:
        member.kill()
    run.wait()


def test_a_capture_over_http_is_ordered_and_counted_like_one_in_process(
    server: str, folder: Path, captured: Trace, tmp_path: Path
) -> None:
    out = tmp_path / "t"
    address = ("--engine", "openai", "--base-url", server)
    printed("capture", "--out", out, *address, "--policy", "sjf", "--estimator", "ema", *DRAWN, *SMALL)
    trace = traces.read(out)
    assert len(trace.finished) == REQUESTS
    holds_the_order_of_sjf(trace)
    holds_the_limit_in_flight(trace)
    assert list(trace.requests["prompt_tokens"]) == list(captured.requests["prompt_tokens"])  # its count and ours
    engine = trace.header.engine
    assert (engine.version, engine.block_size) == (captured.header.engine.version, captured.header.engine.block_size)
    assert engine.kv_blocks > 100
    assert trace.header.load is not None
    assert trace.header.load.own_cpu_mean > 0.5  # the server's work is ours, not foreign
    assert np.all(trace.requests["first_token_s"] > trace.requests["dispatch_s"])
    printed("calibrate", folder, "--out", tmp_path / "p.json")
    rows = json.loads(printed("compare", out, "--profile", tmp_path / "p.json", "--json", "--replications", 1))["rows"]
    assert len(rows) == 11
