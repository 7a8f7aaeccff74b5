"""The result of ``python -m sglang.bench_serving --output-details``: lists as vLLM's, but no start times.

Written by ``benchmark`` in sgl-project/sglang, python/sglang/benchmark/serving.py (until 2026
python/sglang/bench_serving.py): one JSON object a run, appended to the file; ``request_rate`` is ``Infinity`` where all
were sent at once and ``"trace"`` where a trace told when. A request that failed has an output length of 0.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from driftsim.errors import InputError
from driftsim.formats.found import Found
from driftsim.formats.head import Head
from driftsim.formats.rebuilt import Asked, rebuilt
from driftsim.formats.results import chosen
from driftsim.formats.source import Source
from driftsim.formats.values import times
from driftsim.formats.vllm_bench import STARTS, failures, latencies, lists_of, said_of_failures
from driftsim.trace.loops import Told

NEEDED = ("input_lens", "output_lens", "ttfts", "itls")
OWN = ("total_output_tokens_retokenized", "total_output_retokenized", "random_range_ratio", "sharegpt_output_len")
SAVE = "run bench_serving with --output-details"


def fits(head: Head) -> bool:
    """Whether ``head`` is that of such a file: what SGLang alone writes, and no start times."""
    told_starts = any(head.has(name) for name in (*STARTS, "latencies"))
    return not told_starts and any(head.has(name) for name in OWN)


def read(file: Path, result: int | None, asked: Asked) -> Found:
    """What is found in ``file``; its arrivals are rebuilt from what it tells of its loop, or from what is ``asked``.

    Raises ``InputError`` for a result without details, and where nobody tells how its requests arrived.
    """
    content = chosen(file, result)
    missing = next((name for name in NEEDED if name not in content), None)
    if missing:
        raise InputError(f"{file}: lacks {missing!r}; {SAVE}")
    lists = lists_of(file, content, [*NEEDED, *(name for name in ("errors",) if content.get(name))], SAVE)
    count = len(lists["ttfts"])
    if not count:
        raise InputError(f"{file}: no request in {file.name}; the run sent nothing")
    ttft, _ = times(lists["ttfts"])
    failed = np.array(failures(ttft, lists), dtype=bool)
    took = np.where(failed, np.nan, latencies(file, ttft, lists["itls"], lists["output_lens"]))
    made = rebuilt(file, took, told_loop(content), asked)
    return Found(
        source=Source(file, count, lambda row: f"request {row}"),
        cells={
            "prompt_tokens": lists["input_lens"],
            "output_tokens": [
                None if lost else length for lost, length in zip(failed, lists["output_lens"], strict=True)
            ],
            "arrival_s": made.arrival_s.tolist(),
            "dispatch_s": made.arrival_s.tolist(),
            "error": lists.get("errors", [None] * count),
            "finish_reason": ["error" if lost else "length" for lost in failed],
        },
        durations={
            "first_token_s": [None if lost else wait for lost, wait in zip(failed, lists["ttfts"], strict=True)],
            "finish_s": took.tolist(),
        },
        names={
            "prompt_tokens": "input_lens",
            "output_tokens": "output_lens",
            "first_token_s": "ttfts",
            "finish_s": "itls",
        },
        model=_model(content),
        loop=made.loop,
        guessed=[*said_of_failures(content, failed.tolist()), *([made.said] if made.said else [])],
    )


def told_loop(content: dict[str, Any]) -> Told:
    """What the benchmark's options tell of its loop; no rate where a trace told the arrivals, or nothing does."""
    users, rate = content.get("max_concurrency"), content.get("request_rate")
    try:
        pace = None if rate is None or isinstance(rate, bool) else float(rate)
    except (TypeError, ValueError, OverflowError):
        pace = None
    whole = isinstance(users, int) and not isinstance(users, bool) and users > 0
    return Told(users if whole else None, None if pace is None or math.isnan(pace) or pace <= 0 else pace)


def _model(content: dict[str, Any]) -> str:
    """The model that the server said it serves, by its last folder where it is a path."""
    info = content.get("server_info")
    path = info.get("model_path") if isinstance(info, dict) else None
    return path if isinstance(path, str) and path else "unknown"
