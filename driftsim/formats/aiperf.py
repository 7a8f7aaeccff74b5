"""``profile_export.jsonl`` of AIPerf: a record a request, with metadata in nanoseconds and metrics with their units.

ai-dynamo/aiperf: src/aiperf/common/models/record_export_models.py, with the metadata of
src/aiperf/common/metric_records_wire.py. Times of the metadata are nanoseconds of the wall clock; a metric is a value
and its unit. Requests of the warm-up phase are no part of the run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from driftsim.errors import InputError
from driftsim.formats.found import Found
from driftsim.formats.head import Head
from driftsim.formats.inference_perf import errors
from driftsim.formats.sessions import Sessions
from driftsim.formats.source import MISSING, Source, follow, read_source
from driftsim.formats.values import is_nothing, times

WARM_UP = "warmup"


def fits(head: Head) -> bool:
    """Whether ``head`` is that of such a file."""
    return head.has("metadata.request_start_ns", "metrics")


def read(file: Path) -> Found:
    """What is found in ``file``. Raises ``InputError`` if it is a warm-up and nothing else."""
    whole = read_source(file)
    warm = [str(phase).lower() == WARM_UP for phase in whole.either("metadata.benchmark_phase")]
    source = whole.only([row for row, is_warm in enumerate(warm) if not is_warm])
    if any(warm) and not source.count:
        raise InputError(f"{file}: all its {len(warm)} requests are of the warm-up; export the profiling phase")
    left_out = [f"{sum(warm)} of {len(warm)} requests are of the warm-up and were left out"] if any(warm) else []
    cancelled = [flag is True for flag in source.either("metadata.was_cancelled")]
    failed = errors(source)
    return Found(
        source=source,
        cells={
            "request_id": source.either("metadata.x_request_id"),
            "prompt_tokens": source.either("metrics.input_sequence_length.value"),
            "output_tokens": source.either("metrics.output_sequence_length.value", "metrics.output_token_count.value"),
            "cached_tokens": source.either("metrics.usage_prompt_cache_read_tokens.value"),
            "arrival_s": source.either("metadata.request_start_ns"),
            "error": failed,
            "finish_reason": [
                "abort" if given_up else "error" if error is not None else None
                for given_up, error in zip(cancelled, failed, strict=True)
            ],
        },
        durations={
            "first_token_s": [_measure(record, "time_to_first_token") for record in source.records],
            "finish_s": _latencies(source),
        },
        units={"arrival_s": "ns"},
        names={
            "prompt_tokens": "metrics.input_sequence_length.value",
            "output_tokens": "metrics.output_sequence_length.value",
            "arrival_s": "metadata.request_start_ns",
            "first_token_s": "metrics.time_to_first_token",
            "finish_s": "metrics.request_latency",
        },
        sessions=Sessions(
            names=source.either("metadata.x_correlation_id", "metadata.conversation_id"),
            turns=source.either("metadata.turn_index"),
        ),
        left_out=left_out,
    )


def _measure(record: Any, tag: str) -> Any:
    """The metric ``tag`` of a record as a number with its unit; AIPerf shows milliseconds where it names none."""
    value = follow(record, f"metrics.{tag}.value")
    unit = follow(record, f"metrics.{tag}.unit")
    if is_nothing(value) or value is MISSING:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return value
    return f"{value} {unit if isinstance(unit, str) else 'ms'}"


def _latencies(source: Source) -> list[Any]:
    """How long each request took: its latency, or the time to its end or to when it was cancelled."""
    starts, _ = times(source.either("metadata.request_start_ns"), "ns")
    ends, _ = times(source.either("metadata.cancellation_time_ns", "metadata.request_end_ns"), "ns")
    measured = [_measure(record, "request_latency") for record in source.records]
    with np.errstate(invalid="ignore"):
        took = (ends - starts).tolist()
    return [
        passed if latency is None and np.isfinite(passed) else latency
        for latency, passed in zip(measured, took, strict=True)
    ]
