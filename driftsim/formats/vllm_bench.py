"""The result of ``vllm bench serve --save-result --save-detailed`` (vllm/benchmarks/serve.py), in all its versions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from driftsim.errors import InputError
from driftsim.formats.found import Found
from driftsim.formats.results import chosen
from driftsim.formats.source import Source, shown_kind
from driftsim.formats.values import counts, times
from driftsim.trace.loops import Told

STARTS = ("start_times", "request_timestamps")  # its name in vLLM, and in forks of 2025
NEEDED = ("input_lens", "output_lens", "ttfts")
SAVE = "save it with --save-result --save-detailed"


def read(file: Path, result: int | None = None) -> Found:
    """What is found in ``file``: ``start_times`` are the client's clock. ``result`` chooses among appended ones.

    Raises ``InputError`` for a result without details, or of a vLLM so old that it tells no start times.
    """
    content = chosen(file, result)
    starts = next((name for name in STARTS if name in content), None)
    missing = [name for name in NEEDED if name not in content] or ([] if starts else [STARTS[0]])
    if missing:
        raise InputError(f"{file}: lacks {missing[0]!r}; {SAVE}, by a vLLM that does")
    assert starts is not None
    gaps = next((name for name in ("latencies", "itls") if name in content), None)
    if gaps is None:
        raise InputError(f"{file}: lacks 'itls' (or 'latencies'), so nobody knows when an answer ended; {SAVE}")
    lists = _lists(file, content, [*NEEDED, starts, gaps, *(name for name in ("errors",) if content.get(name))])
    count = len(lists[starts])
    if not count:
        raise InputError(f"{file}: no request in {file.name}; the run sent nothing")
    source = Source(file, count, lambda row: f"request {row}")
    ttft, _ = times(lists["ttfts"])
    took = (
        list(lists["latencies"]) if gaps == "latencies" else _latencies(file, ttft, lists["itls"], lists["output_lens"])
    )
    failed = _failed(ttft, lists)
    cells: dict[str, Sequence[Any]] = {
        "prompt_tokens": lists["input_lens"],
        "output_tokens": [None if lost else length for lost, length in zip(failed, lists["output_lens"], strict=True)],
        "arrival_s": lists[starts],
        "dispatch_s": lists[starts],
        "error": lists.get("errors", [None] * count),
        "finish_reason": ["error" if lost else "length" for lost in failed],
    }
    durations: dict[str, Sequence[Any]] = {
        "first_token_s": [None if lost else wait for lost, wait in zip(failed, lists["ttfts"], strict=True)],
        "finish_s": [None if lost else time for lost, time in zip(failed, took, strict=True)],
    }
    return Found(
        source=source,
        cells=cells,
        durations=durations,
        names={
            "prompt_tokens": "input_lens",
            "output_tokens": "output_lens",
            "arrival_s": starts,
            "first_token_s": "ttfts",
            "finish_s": gaps,
        },
        model=str(content.get("model_id") or "unknown"),
        told=told_loop(content),
        guessed=_said(content, failed),
    )


def told_loop(content: dict[str, Any]) -> Told:
    """The loop that a benchmark's options tell: ``max_concurrency`` users, ``request_rate`` (``inf``: at once)."""
    users = content.get("max_concurrency")
    rate = content.get("request_rate")
    try:
        pace = float(rate) if rate is not None else math.inf
    except (TypeError, ValueError):
        pace = math.inf
    return Told(users if isinstance(users, int) and users > 0 else None, pace)


def _lists(file: Path, content: dict[str, Any], names: Sequence[str]) -> dict[str, list[Any]]:
    """The lists ``names`` of the result. Raises ``InputError`` where one is no list, or they differ in length."""
    for name in names:
        if not isinstance(content[name], list):
            raise InputError(f"{file}: {name!r} is {shown_kind(content[name])}, not a list; {SAVE}")
    lengths = {name: len(content[name]) for name in names}
    if len(set(lengths.values())) > 1:
        raise InputError(f"{file}: its lists differ in length ({lengths}); the result was cut short, save it again")
    return {name: content[name] for name in names}


def _latencies(file: Path, ttft: np.ndarray, itls: list[Any], lengths: list[Any]) -> list[float]:
    """From the gaps between tokens; a number in place of a list is the mean of a request's gaps."""
    outputs, _ = counts(lengths)
    took = []
    for row, gaps in enumerate(itls):
        if isinstance(gaps, list):
            values, problems = times(gaps)
            if problems:
                raise InputError(f"{file}: request {row}: itls {next(iter(problems.values()))}")
            took.append(float(ttft[row] + np.nansum(values)))
        elif isinstance(gaps, int | float) and not isinstance(gaps, bool):
            took.append(float(ttft[row] + gaps * max(np.nan_to_num(outputs[row]) - 1, 0)))
        else:
            raise InputError(f"{file}: request {row}: itls is {shown_kind(gaps)}, not a list of gaps; {SAVE}")
    return took


def _failed(ttft: np.ndarray, lists: dict[str, list[Any]]) -> list[bool]:
    """vLLM writes zeros for a request that failed, and its error, which may be empty."""
    outputs, _ = counts(lists["output_lens"])
    silent = ~(outputs >= 1) & ~(ttft > 0)
    return [
        bool(lost) or bool(error) for lost, error in zip(silent, lists.get("errors", [None] * len(ttft)), strict=True)
    ]


def _said(content: dict[str, Any], failed: list[bool]) -> list[str]:
    """What the counts in the result say beside its lists."""
    if not any(failed):
        return []
    said = [f"{sum(failed)} of {len(failed)} requests failed"]
    if isinstance(content.get("failed"), int) and content["failed"] != sum(failed):
        said.append(f"the file counts {content['failed']} failed requests, its lists {sum(failed)}")
    return said
