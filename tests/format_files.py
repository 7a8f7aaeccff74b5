"""Small files of other tools, written by hand after their writers' source: what each holds, and how it is written."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from driftsim.formats.head import Head, head_of
from driftsim.formats.imports import import_trace
from driftsim.formats.mapping import Mapping as TableMapping
from driftsim.trace.trace import Trace

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Example:
    """A file of a format: its name, what it holds, in what form, and what a user must say to read it."""

    form: str
    name: str
    content: Any
    choices: Mapping[str, Any] = field(default_factory=dict)

    def text(self, content: Any) -> str:
        """``content``, this one's or a changed one, as the file holds it."""
        if self.name.endswith(".csv"):
            return as_csv([row for row in content if isinstance(row, dict)] if isinstance(content, list) else [])
        if self.name.endswith(".jsonl"):
            return "".join(json.dumps(line) + "\n" for line in (content if isinstance(content, list) else [content]))
        return json.dumps(content)

    def write(self, folder: Path, content: Any = None) -> Path:
        file = folder / self.name
        file.write_text(
            self.text(self.content if content is None else content), encoding="utf-8", errors="surrogatepass"
        )
        return file


def as_csv(rows: Rows) -> str:
    """Rows as CSV with the names of all of them in the header."""
    names: dict[str, None] = {}
    for row in rows:
        names |= dict.fromkeys(row)
    out = io.StringIO()
    writer = csv.DictWriter(out, list(names), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def vllm_bench(**changes: Any) -> dict[str, Any]:
    content = {
        "date": "20261001-120000", "backend": "vllm", "model_id": "qwen", "request_rate": 2.0, "burstiness": 1.0,
        "max_concurrency": None, "duration": 5.0, "completed": 3, "failed": 1,
        "input_lens": [10, 20, 30, 40], "output_lens": [3, 4, 0, 2], "start_times": [50.0, 50.5, 51.0, 51.5],
        "ttfts": [0.1, 0.2, 0.0, 0.3], "itls": [[0.05, 0.05], [0.1, 0.1, 0.1], [], [0.04]],
        "latencies": [0.2, 0.5, 0.0, 0.34], "queue_times": [0.0, 0.0, 0.0, 0.0],
        "generated_texts": ["a", "b", "", "d"], "errors": ["", "", "timed out", ""],
        "server_queue_times": [0.01, 0.05, None, 0.02], "server_ttfts": [0.06, 0.1, None, 0.25],
    }  # fmt: skip
    return {name: value for name, value in (content | changes).items() if value is not ...}


def sglang(**changes: Any) -> dict[str, Any]:
    content = {
        "tag": None, "backend": "sglang", "dataset_name": "random", "request_rate": float("inf"), "max_concurrency": 2,
        "sharegpt_output_len": None, "random_input_len": 64, "random_output_len": 8, "random_range_ratio": 0.0,
        "server_info": {"model_path": "meta/llama"}, "duration": 3.0, "completed": 4,
        "total_output_tokens_retokenized": 12, "mean_e2e_latency_ms": 400.0,
        "input_lens": [64, 70, 80, 60, 50], "output_lens": [3, 2, 3, 0, 4],
        "ttfts": [0.1, 0.2, 0.1, 0.0, 0.3], "itls": [[0.1, 0.1], [0.3], [0.05, 0.15], [], [0.1, 0.1, 0.1]],
        "generated_texts": ["", "", "", "", ""], "errors": ["", "", "", "reset", ""],
    }  # fmt: skip
    return {name: value for name, value in (content | changes).items() if value is not ...}


def guidellm_request(number: int, start: float, **changes: Any) -> dict[str, Any]:
    """A request of guidellm 0.5 and later."""
    return {
        "type_": "generative_request_stats", "request_id": f"r{number}", "prompt_tokens": 100 + number,
        "output_tokens": 5, "cached_tokens": None, "request_start_time": start, "request_end_time": start + 0.62,
        "time_to_first_token_ms": 200.0,
        "info": {
            "request_id": f"r{number}", "conversation_id": None, "turn_index": 0, "status": "completed", "error": None,
            "timings": {
                "targeted_start": start - 0.001, "queued": start - 0.1, "request_start": start,
                "first_token_iteration": start + 0.2, "last_token_iteration": start + 0.6, "request_end": start + 0.62,
            },
        },
    } | changes  # fmt: skip


def guidellm(strategy: Mapping[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    requests = {
        "successful": [guidellm_request(number, 1000.0 + 0.6 * (number // 2)) for number in range(6)],
        "errored": [guidellm_request(7, 1001.9, output_tokens=None, error="HTTP 500")],
        "incomplete": [guidellm_request(8, 1002.0, output_tokens=3)],
    }
    benchmark = {
        "type_": "generative_benchmark",
        "config": {
            "strategy": dict(strategy or {"type_": "concurrent", "streams": 2}),
            "backend": {"model": "llama"},
        },
        "metrics": {"request_totals": {"successful": 6, "incomplete": 1, "errored": 1, "total": 8}},
        "requests": requests | changes,
    }
    return {"metadata": {"version": 1}, "args": {}, "benchmarks": [benchmark]}


def guidellm_old() -> dict[str, Any]:
    """A report of guidellm 0.2 or 0.3."""

    def one(number: int) -> dict[str, Any]:
        start = 10.0 + number
        return {
            "type_": "generative_text_response", "request_id": f"o{number}", "request_type": "text_completions",
            "scheduler_info": {"requested": True, "completed": True}, "prompt": "x", "output": "y",
            "prompt_tokens": 50, "output_tokens": 4, "start_time": start, "end_time": start + 0.5,
            "first_token_time": start + 0.1, "last_token_time": start + 0.4,
        }  # fmt: skip

    benchmark = {
        "args": {"strategy": {"type_": "constant", "rate": 1.0}},
        "run_stats": {"requests_made": {"total": 9}},
        "worker": {"backend_model": "old-llama"},
        "requests": {
            "total": None,
            "successful": [one(number) for number in range(5)],
            "errored": [],
            "incomplete": [],
        },
    }
    return {"benchmarks": [benchmark]}


def inference_perf() -> Rows:
    def one(number: int) -> dict[str, Any]:
        start = 500.0 + number
        return {
            "start_time": start, "end_time": start + 0.5, "request": "{}", "response": "data",
            "info": {
                "request_metrics": {"text": {"input_tokens": 30 + number}}, "input_tokens": 30 + number,
                "response_metrics": {
                    "output_tokens": 3, "output_token_times": [start + 0.1, start + 0.2, start + 0.3],
                    "server_usage": {"prompt_tokens": 30 + number, "completion_tokens": 4},
                },
                "extra_info": {}, "labels": {},
            },
            "error": None,
        }  # fmt: skip

    failed = one(5) | {"error": {"error_type": "HTTP Error 500", "error_msg": "no"}, "response": None}
    failed["info"] = {"request_metrics": {"text": {"input_tokens": 35}}, "input_tokens": 35, "response_metrics": None}
    return [*map(one, range(5)), failed]


def aiperf() -> Rows:
    def one(number: int, **changes: Any) -> dict[str, Any]:
        start = 1_700_000_000_000_000_000 + number * 250_000_000
        metadata = {
            "session_num": number, "x_request_id": f"x{number}", "conversation_id": f"c{number}", "turn_index": 0,
            "credit_issued_ns": start - 1000, "request_start_ns": start, "request_ack_ns": start + 1_000_000,
            "request_end_ns": start + 410_000_000, "worker_id": "w", "record_processor_id": "p",
            "benchmark_phase": "profiling", "was_cancelled": False,
        }  # fmt: skip
        metrics = {
            "input_sequence_length": {"value": 200, "unit": "tokens"},
            "output_sequence_length": {"value": 11, "unit": "tokens"},
            "time_to_first_token": {"value": 120.5, "unit": "ms"},
            "request_latency": {"value": 400_000, "unit": "us"},
        }
        record: dict[str, Any] = {"metadata": metadata, "metrics": metrics, "error": None}
        for key, value in changes.items():
            record[key] = {**record[key], **value} if isinstance(value, dict) and record[key] else value
        return record

    return [
        one(0, metadata={"benchmark_phase": "warmup"}),
        *(one(number) for number in range(1, 6)),
        one(6, metadata={"was_cancelled": True, "cancellation_time_ns": 1_700_000_001_700_000_000}, metrics={
            "request_latency": {"value": None, "unit": "ms"}}),
        one(7, metrics={"output_sequence_length": {"value": 0, "unit": "tokens"}},
            error={"code": 500, "type": "HTTPError", "message": "gone"}),
    ]  # fmt: skip


def llmperf() -> Rows:
    rows: Rows = [
        {"error_code": None, "error_msg": "", "inter_token_latency_s": 0.05, "ttft_s": 0.1 + 0.01 * row,
         "end_to_end_latency_s": 0.5 + 0.1 * row, "request_output_throughput_token_per_s": 20.0,
         "number_total_tokens": 60, "number_output_tokens": 10, "number_input_tokens": 50}
        for row in range(5)
    ]  # fmt: skip
    rows.append(rows[0] | {"error_code": 429, "error_msg": "slow down", "number_output_tokens": 0, "ttft_s": 0})
    return rows


def burstgpt() -> Rows:
    lengths = [(5, 472, 18), (45, 1087, 230), (118, 417, 276), (185, 1360, 647), (190, 0, 0)]
    return [
        {"Timestamp": at, "Model": "ChatGPT" if at != 118 else "GPT-4", "Request tokens": asked,
         "Response tokens": answered, "Total tokens": asked + answered, "Log Type": "Conversation log"}
        for at, asked, answered in lengths
    ]  # fmt: skip


def mooncake() -> Rows:
    return [
        {"timestamp": 150 * row, "input_length": 1200 + row, "output_length": 20 + row, "hash_ids": [0, 1, 2 + row]}
        for row in range(8)
    ]


def bailian() -> Rows:
    return [
        {"chat_id": row, "parent_chat_id": -1 if row < 3 else row - 3, "timestamp": 0.5 * row, "input_length": 40,
         "output_length": 9, "type": "text" if row % 2 else "search", "turn": 1 + row // 3, "hash_ids": [1, 2, 3]}
        for row in range(6)
    ]  # fmt: skip


def blis() -> Rows:
    rows: Rows = []
    for row in range(6):
        at = 1000 + 40_000 * row
        rows.append({
            "request_id": row, "client_id": f"c{row % 2}", "tenant_id": "acme" if row % 2 else "",
            "slo_class": ("critical", "batch", "")[row % 3], "session_id": "", "round_index": 0,
            "prefix_group": "", "prefix_length": 0, "streaming": "true", "input_tokens": 100, "output_tokens": 8,
            "text_tokens": 0, "image_tokens": 0, "audio_tokens": 0, "video_tokens": 0, "reason_ratio": 0,
            "model": "", "deadline_us": 0, "server_input_tokens": 104, "arrival_time_us": at, "send_time_us": at + 10,
            "first_chunk_time_us": at + 30_000, "last_chunk_time_us": at + 90_000, "num_chunks": 8, "status": "ok",
            "error_message": "", "finish_reason": "stop" if row % 2 else "length",
        })  # fmt: skip
    rows[5] |= {"status": "timeout", "finish_reason": "", "output_tokens": 3}
    return rows


def azure() -> Rows:
    return [
        {"TIMESTAMP": f"2024-05-10 00:00:0{row}.5", "ContextTokens": 300 + row, "GeneratedTokens": 40}
        for row in range(5)
    ]


EXAMPLES = {
    example.name.split(".")[0]: example
    for example in (
        Example("vllm-bench", "vllm_bench.json", vllm_bench()),
        Example("sglang", "sglang.jsonl", sglang()),
        Example("guidellm", "guidellm.json", guidellm()),
        Example("guidellm", "guidellm_old.json", guidellm_old()),
        Example("inference-perf", "inference_perf.json", inference_perf()),
        Example("aiperf", "aiperf.jsonl", aiperf()),
        Example("llmperf", "llmperf.json", llmperf(), {"users": 2}),
        Example("blis", "blis.csv", blis()),
        Example("burstgpt", "burstgpt.csv", burstgpt()),
        Example("bailian", "bailian.jsonl", bailian()),
        Example("timed-trace", "mooncake.jsonl", mooncake()),
        Example("azure", "azure.csv", azure()),
    )
}

TABLE = Example(
    "csv",
    "table.json",
    {"version": 1, "runs": [
        {"at": f"2026-01-01T00:00:0{row}Z", "use": {"in": 20 + row, "out": "7"}, "wait": "45ms", "took": 980.0 + row,
         "who": "acme", "level": "high", "how": "blue" if row == 3 else "ok", "chat": row % 2, "id": f"r{row}",
         "after": [f"r{row - 2}"] if row > 1 else None, "think": 20 * row, "hit": row, "ids": [1, row // 2, 2]}
        for row in range(6)
    ]},
    {"mapping": TableMapping(
        records="runs",
        columns={"arrival_s": "at", "prompt_tokens": "use.in", "output_tokens": "use.out", "tenant": "who",
                 "tier": "level", "finish_reason": "how", "session": "chat", "parent": "after", "gap_s": "think",
                 "request_id": "id", "cached_tokens": "hit", "hash_ids": "ids"},
        durations={"first_token_s": "wait", "finish_s": "took"},
        units={"finish_s": "ms", "gap_s": "ms"},
        hash_tokens=8,
        maps={"tier": {"high": "premium"}, "finish_reason": {"blue": "abort"}},
    )},
)  # fmt: skip


def head(file: Path) -> Head:
    """What the file begins with, as formats see it."""
    return head_of(file)


def said(trace: Trace) -> str:
    return "\n".join((*trace.header.caveats, *trace.header.notes))


def brought(folder: Path, name: str, content: Any = None, **choices: Any) -> Trace:
    """The example ``name``, or the same format with another ``content``, imported without naming the format."""
    example = EXAMPLES[name]
    return import_trace(example.write(folder, content), **(dict(example.choices) | choices))


def column(trace: Trace, name: str) -> list[float]:
    return [round(value, 6) for value in trace.requests[name].astype(float).tolist()]
