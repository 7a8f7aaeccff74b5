"""One command from a file to an answer: the same run of a known engine, as each tool would have written it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from driftsim.formats.exports import export_trace
from driftsim.formats.imports import import_trace
from driftsim.trace.trace import Trace
from driftsim.workloads.workload import Workload
from tests.commands import driftsim
from tests.format_files import aiperf, guidellm, guidellm_request, inference_perf, sglang
from tests.test_loops import PLAIN, bench, model, served

USERS = 24
TIMES = ["arrival_s", "first_token_s", "finish_s"]


class Life(NamedTuple):
    """A request of the run: its number, its lengths, and when it was sent, answered first and last (s)."""

    number: int
    prompt: int
    output: int
    sent: float
    first: float
    last: float

    @property
    def gap(self) -> float:
        """The mean time between its tokens."""
        return (self.last - self.first) / max(self.output - 1, 1)


@pytest.fixture(scope="module")
def run() -> Trace:
    return served(Workload.closed(users=USERS, requests=160, **PLAIN))


def lives(trace: Trace) -> list[Life]:
    names = ["prompt_tokens", "output_tokens", "arrival_s", "first_token_s", "finish_s"]
    columns = [trace.requests[name].tolist() for name in names]
    return [Life(number, *row) for number, row in enumerate(zip(*columns, strict=True))]


def as_vllm_bench(trace: Trace, file: Path) -> Path:
    return bench(trace, file.with_suffix(".json"), max_concurrency=USERS, request_rate="inf")


def as_sglang(trace: Trace, file: Path) -> Path:
    told = lives(trace)
    content = sglang(
        max_concurrency=USERS, completed=len(told), errors=[""] * len(told), generated_texts=[""] * len(told),
        input_lens=[life.prompt for life in told], output_lens=[life.output for life in told],
        ttfts=[life.first - life.sent for life in told], itls=[[life.gap] * (life.output - 1) for life in told],
    )  # fmt: skip
    return written(file.with_suffix(".jsonl"), json.dumps(content))


def as_guidellm(trace: Trace, file: Path) -> Path:
    def one(life: Life) -> dict[str, Any]:
        made = guidellm_request(life.number, 1000 + life.sent, prompt_tokens=life.prompt, output_tokens=life.output)
        timings = {
            "request_start": 1000 + life.sent, "first_token_iteration": 1000 + life.first,
            "last_token_iteration": 1000 + life.last, "request_end": 1000 + life.last,
        }  # fmt: skip
        made["info"]["timings"] |= timings
        made |= {"request_end_time": 1000 + life.last, "time_to_first_token_ms": 1000 * (life.first - life.sent)}
        return made

    told = [one(life) for life in lives(trace)]
    strategy = {"type_": "concurrent", "streams": USERS}
    report = guidellm(strategy, successful=told, errored=[], incomplete=[])
    report["benchmarks"][0]["metrics"]["request_totals"] = {"successful": len(told), "total": len(told)}
    return written(file.with_suffix(".json"), json.dumps(report))


def as_aiperf(trace: Trace, file: Path) -> Path:
    def one(life: Life) -> dict[str, Any]:
        record: dict[str, Any] = json.loads(json.dumps(aiperf()[1]))
        begin = 1_700_000_000_000_000_000 + round(1e9 * life.sent)
        took = life.last - life.sent
        record["metadata"] |= {"x_request_id": f"x{life.number}", "conversation_id": f"c{life.number}",
                               "credit_issued_ns": begin, "request_start_ns": begin,
                               "request_ack_ns": begin, "request_end_ns": begin + round(1e9 * took)}  # fmt: skip
        record["metrics"] |= {
            "input_sequence_length": {"value": life.prompt, "unit": "tokens"},
            "output_sequence_length": {"value": life.output, "unit": "tokens"},
            "time_to_first_token": {"value": 1000 * (life.first - life.sent), "unit": "ms"},
            "request_latency": {"value": 1000 * took, "unit": "ms"},
        }
        return record

    return written(file.with_suffix(".jsonl"), "\n".join(json.dumps(one(life)) for life in lives(trace)))


def as_inference_perf(trace: Trace, file: Path) -> Path:
    def one(life: Life) -> dict[str, Any]:
        record: dict[str, Any] = json.loads(json.dumps(inference_perf()[0]))
        record |= {"start_time": 500 + life.sent, "end_time": 500 + life.last}
        info = record["info"]
        info |= {"request_metrics": {"text": {"input_tokens": life.prompt}}, "input_tokens": life.prompt}
        info["response_metrics"] |= {
            "output_tokens": life.output,
            "output_token_times": [500 + life.first + place * life.gap for place in range(life.output)],
            "server_usage": {"prompt_tokens": life.prompt, "completion_tokens": life.output},
        }
        return record

    return written(file.with_suffix(".json"), json.dumps([one(life) for life in lives(trace)]))


def as_blis(trace: Trace, file: Path) -> Path:
    export_trace(trace, "blis", file.with_suffix(".csv"))
    return file.with_suffix(".csv")


def written(file: Path, text: str) -> Path:
    file.write_text(text)
    return file


WRITERS: dict[str, Callable[[Trace, Path], Path]] = {
    "vllm-bench": as_vllm_bench,
    "sglang": as_sglang,
    "guidellm": as_guidellm,
    "aiperf": as_aiperf,
    "inference-perf": as_inference_perf,
    "blis": as_blis,
}


# The others tell the very same run as the first, as the test below holds of all.
COMPARED = ["vllm-bench", *(pytest.param(form, marks=pytest.mark.nightly) for form in ("aiperf", "blis"))]


@pytest.mark.parametrize("form", WRITERS)
def test_a_file_of_any_tool_is_the_run_that_it_tells_of(form: str, run: Trace, tmp_path: Path) -> None:
    names = [*TIMES, "prompt_tokens", "output_tokens"]
    told = import_trace(WRITERS[form](run, tmp_path / "run"))
    rows = told.requests.sort_values("arrival_s", kind="stable")[names].to_numpy(dtype=float)
    truth = run.requests.sort_values("arrival_s", kind="stable")[names].to_numpy(dtype=float)
    np.testing.assert_allclose(rows, truth, rtol=0, atol=2e-6)
    (phase,) = told.header.workload.phases
    assert phase.kind == "closed"
    assert phase.users == USERS


@pytest.mark.parametrize("form", WRITERS)
def test_one_command_leads_from_a_file_to_errors_that_are_known(form: str, run: Trace, tmp_path: Path) -> None:
    file = WRITERS[form](run, tmp_path / "run")
    profile = tmp_path / "p.json"
    model().save(profile)
    known = driftsim("validate", file, "--profile", profile, "--json")
    assert known.returncode == 0, known.stderr
    document = json.loads(known.stdout)
    assert any(f"loop of {USERS} users" in one or f"of {USERS} users do" in one for one in document["warnings"])
    errors = {(row["metric"], row["stat"]): row["error"] for row in document["rows"]}
    for cell in (("e2e", "mean"), ("ttft", "mean"), ("makespan", "mean")):
        assert abs(errors[cell]) < 0.01, (cell, errors[cell])


@pytest.mark.parametrize("form", COMPARED)
def test_one_command_leads_from_a_file_to_a_checked_answer(form: str, run: Trace, tmp_path: Path) -> None:
    file = WRITERS[form](run, tmp_path / "run")
    answer = driftsim("compare", file, "--policies", "fifo,sjf", "--estimators", "static", "--replications", "1")
    assert answer.returncode == 0, answer.stderr
    said = " ".join(answer.stdout.split())
    assert "profile fitted to the timings of this trace" in said
    _, check = said.split("Trust: Held out: ")
    off = [float(number) for number in re.findall(r"([+-][0-9.]+) % \([0-9.]+ s measured", check)]
    assert len(off) == 2
    assert max(map(abs, off)) < 5.0, check
