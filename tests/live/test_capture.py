"""A capture through real vLLM and a real model, and straight into the comparison."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from driftsim import trace as traces
from driftsim.accounting import token_counter
from driftsim.trace import Trace

pytestmark = pytest.mark.live
REQUESTS = 30


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("live") / "captured"
    command = [sys.executable, "-m", "driftsim.cli", "capture", "--out", str(out), "--caps", "reference"]
    command += ["--learning", "10", "--stress", str(REQUESTS - 10), "--max-num-seqs", "4", "--seed", "3"]
    command += ["--learning-gap", "0.1", "0.3", "--stress-gap", "0.01", "0.05"]
    subprocess.run(command, check=True, timeout=600)
    return out


@pytest.fixture(scope="module")
def captured(folder: Path) -> Trace:
    return traces.read(folder)


def test_every_request_is_recorded_and_nothing_of_its_text(captured: Trace) -> None:
    requests = captured.requests
    assert len(requests) == REQUESTS
    assert requests["finish_reason"].isin(("stop", "length")).all()
    assert (requests["output_words"] > 0).all()
    assert (requests[["dispatch_s", "queued_s", "scheduled_s", "first_token_s", "finish_s"]].notna()).all().all()
    assert set(requests.columns) == {column.name for column in traces.REQUEST_COLUMNS}


def test_the_header_tells_what_the_engine_resolved(captured: Trace) -> None:
    engine = captured.header.engine
    assert engine.max_num_seqs == 4
    assert engine.kv_blocks > 100
    assert engine.version.count(".") >= 2
    assert not engine.enable_prefix_caching
    assert captured.header.load is not None


def test_fifo_serves_in_order_of_arrival_with_no_more_in_flight_than_slots(captured: Trace) -> None:
    requests = captured.requests.sort_values("arrival_s", kind="stable")
    assert list(requests["dispatch_index"]) == list(range(REQUESTS))
    for moment in requests["dispatch_s"]:
        assert ((requests["dispatch_s"] <= moment) & (requests["finish_s"] > moment)).sum() <= 4


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
    from driftsim.live.model import smollm2

    count = token_counter(smollm2())
    assert count("What is DNS?") >= 3
    assert (captured.requests["prompt_tokens"] > captured.requests["prompt_words"]).all()  # template and all


def test_a_captured_trace_goes_straight_into_the_comparison(folder: Path) -> None:
    command = [sys.executable, "-m", "driftsim.cli", "compare", str(folder), "--json", "--replications", "3"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    document = json.loads(printed)
    assert len(document["rows"]) == 11
    assert any("measured" in sentence for sentence in document["answer"])
