"""``per_request_lifecycle_metrics.json`` of inference-perf: a list of requests with their send and token times.

kubernetes-sigs/inference-perf: written in inference_perf/reportgen/base.py from the models of apis/base.py.
Times are seconds of one clock. Older files have ``info.input_tokens`` and ``info.output_token_times`` at the top of
``info``; ``scheduled_time`` and the session are in the model, but not in the file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from driftsim.formats.found import Found
from driftsim.formats.head import Head
from driftsim.formats.source import Source, read_source

USAGE = "info.response_metrics.server_usage"


def fits(head: Head) -> bool:
    """Whether ``head`` is that of such a file."""
    return head.has("start_time", "end_time", "info", "request")


def read(file: Path) -> Found:
    """What is found in ``file``; counts of the server go before counts of the client."""
    source = read_source(file)
    lists = source.either("info.response_metrics.output_token_times", "info.output_token_times")
    ends = source.either("end_time")
    cells: dict[str, list[Any]] = {
        "prompt_tokens": source.either("info.request_metrics.text.input_tokens", "info.input_tokens"),
        "output_tokens": source.either(
            f"{USAGE}.completion_tokens", f"{USAGE}.output_tokens", "info.response_metrics.output_tokens",
            "info.output_tokens",
        ),
        "cached_tokens": source.either(f"{USAGE}.prompt_tokens_details.cached_tokens"),
        "arrival_s": source.either("start_time"),
        "first_token_s": [_of(one, 0) for one in lists],
        "finish_s": [_of(one, -1) if _of(one, -1) is not None else end for one, end in zip(lists, ends, strict=True)],
        "error": errors(source),
    }  # fmt: skip
    cells["finish_reason"] = ["error" if error is not None else None for error in cells["error"]]
    return Found(
        source=source,
        cells=cells,
        names={
            "prompt_tokens": "info.request_metrics.text.input_tokens",
            "output_tokens": "info.response_metrics.output_tokens",
            "arrival_s": "start_time",
            "first_token_s": "info.response_metrics.output_token_times",
            "finish_s": "end_time",
        },
    )


def errors(source: Source) -> list[str | None]:
    """The error of each row as a line, where ``error`` is an object with a type and a message, or a text."""
    found = list[str | None]()
    for error in source.either("error"):
        if isinstance(error, dict):
            parts = [error.get(key) for key in ("error_type", "type", "error_msg", "message")]
            told = ": ".join(str(part) for part in parts if part)
            found.append(told or "error")
        else:
            found.append(None if error in (None, "", False) else str(error))
    return found


def _of(moments: Any, place: int) -> Any:
    return moments[place] if isinstance(moments, list) and moments else None
