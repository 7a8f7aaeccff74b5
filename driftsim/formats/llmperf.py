"""``*_individual_responses.json`` of LLMPerf: latencies in seconds, one object a response, without start times.

ray-project/llmperf: token_benchmark_ray.py, names in src/llmperf/common_metrics.py. Its runs are closed loops of
``num_concurrent_requests`` users, which the file ``*_summary.json`` beside it tells. Responses stand in the order in
which they were collected; they are taken for the order in which they were sent.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from driftsim.errors import InputError
from driftsim.formats.found import Found
from driftsim.formats.head import Head
from driftsim.formats.rebuilt import Asked, rebuilt
from driftsim.formats.source import read_source, read_text
from driftsim.formats.values import is_nothing, times
from driftsim.trace.loops import Told

COLUMNS = {
    "prompt_tokens": "number_input_tokens",
    "output_tokens": "number_output_tokens",
    "first_token_s": "ttft_s",
    "finish_s": "end_to_end_latency_s",
}
ORDER = "it lists responses as they were collected: they are taken for sent in that order"


def fits(head: Head) -> bool:
    """Whether ``head`` is that of such a file."""
    return head.has(*COLUMNS.values())


def read(file: Path, asked: Asked) -> Found:
    """What is found in ``file``; its arrivals are rebuilt for the users of the summary, or for what is ``asked``.

    Raises ``InputError`` where nobody tells how its requests arrived.
    """
    source = read_source(file)
    summary = _summary(file)
    codes = source.either("error_code")
    failed = np.array([not is_nothing(code) for code in codes], dtype=bool)
    took = np.where(failed, np.nan, times(source.either(COLUMNS["finish_s"]))[0])
    made = rebuilt(file, took, told_loop(summary), asked)
    messages = source.either("error_msg")
    return Found(
        source=source,
        cells={
            **{name: source.either(COLUMNS[name]) for name in ("prompt_tokens", "output_tokens")},
            "arrival_s": made.arrival_s.tolist(),
            "dispatch_s": made.arrival_s.tolist(),
            "error": [
                (message or f"error code {code}") if lost else None
                for lost, code, message in zip(failed, codes, messages, strict=True)
            ],
        },
        durations={
            name: [None if lost else cell for lost, cell in zip(failed, source.either(COLUMNS[name]), strict=True)]
            for name in ("first_token_s", "finish_s")
        },
        names=COLUMNS,
        model=summary["model"] if isinstance(summary.get("model"), str) else "unknown",
        loop=made.loop,
        guessed=[made.said] if made.said else [ORDER],
    )


def _summary(file: Path) -> dict[str, Any]:
    """The summary beside ``file``, or nothing where there is none or it is not one."""
    beside = file.with_name(file.name.replace("individual_responses", "summary"))
    if beside == file or not beside.is_file():
        return {}
    try:
        content = json.loads(read_text(beside))
    except (InputError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def told_loop(summary: dict[str, Any]) -> Told:
    """The users that the summary tells; without them nobody knows."""
    users = summary.get("num_concurrent_requests")
    known = isinstance(users, int) and not isinstance(users, bool) and users > 0
    return Told(users, float("inf")) if known else Told()
