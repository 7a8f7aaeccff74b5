"""The result of ``vllm bench serve --save-result --save-detailed``, in all its versions.

Its lists are written by ``benchmark`` in vllm-project/vllm, vllm/benchmarks/serve.py: ``latencies`` and ``queue_times``
(how long the client's semaphore held a request back) since 0.32; ``server_queue_times`` and ``server_ttfts`` (from
scheduling to the first token), in seconds, null where the server did not tell, since pull request 55809. Forks of 2025
wrote ``request_timestamps`` for ``start_times`` and ``e2els`` for ``latencies``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from driftsim.errors import InputError
from driftsim.formats.found import Found
from driftsim.formats.results import chosen
from driftsim.formats.said import held_back
from driftsim.formats.source import Source, shown_kind
from driftsim.formats.values import counts, times
from driftsim.trace.loops import Told

STARTS = ("start_times", "request_timestamps")  # its name in vLLM, and in forks of 2025
NEEDED = ("input_lens", "output_lens", "ttfts")
ENDS = ("latencies", "e2els", "itls")  # what tells when an answer ended, the surest first
OPTIONAL = ("errors", "queue_times", "server_queue_times", "server_ttfts")
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
    gaps = next((name for name in ENDS if name in content), None)
    if gaps is None:
        raise InputError(f"{file}: lacks 'itls' (or 'latencies'), so nobody knows when an answer ended; {SAVE}")
    lists = lists_of(file, content, [*NEEDED, starts, gaps, *(name for name in OPTIONAL if content.get(name))])
    count = len(lists[starts])
    if not count:
        raise InputError(f"{file}: no request in {file.name}; the run sent nothing")
    source = Source(file, count, lambda row: f"request {row}")
    ttft, _ = times(lists["ttfts"])
    took = list(lists[gaps]) if gaps != "itls" else latencies(file, ttft, lists["itls"], lists["output_lens"])
    failed = failures(ttft, lists)
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
    durations |= _inside(np.where(failed, np.nan, ttft), lists)
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
            "scheduled_s": "server_ttfts",
            "queued_s": "server_queue_times",
        },
        model=str(content.get("model_id") or "unknown"),
        told=told_loop(content),
        guessed=[*said_of_failures(content, failed), *_held(content, lists)],
    )


def _inside(ttft: np.ndarray, lists: dict[str, list[Any]]) -> dict[str, list[float]]:
    """When the engine queued and scheduled a request, since its start: counted back from its first token."""
    if "server_ttfts" not in lists:
        return {}
    with np.errstate(invalid="ignore"):
        scheduled = np.clip(ttft - times(lists["server_ttfts"])[0], 0.0, ttft)
        found = {"scheduled_s": scheduled.tolist()}
        if "server_queue_times" in lists:
            found["queued_s"] = np.clip(scheduled - times(lists["server_queue_times"])[0], 0.0, scheduled).tolist()
    return found


def _held(content: dict[str, Any], lists: dict[str, list[Any]]) -> list[str]:
    """What ``queue_times`` tell of an open loop with a cap; in a closed one, a user's wait is no delay."""
    told = told_loop(content)
    if "queue_times" not in lists or told.users is None or told.rate is None or math.isinf(told.rate):
        return []
    return held_back(times(lists["queue_times"])[0], "queue_times")


def told_loop(content: dict[str, Any]) -> Told:
    """The loop that a benchmark's options tell: ``max_concurrency`` users, ``request_rate`` (``inf``: at once)."""
    users, rate = _told(content.get("max_concurrency")), _told(content.get("request_rate"))
    return Told(int(users) if 1 <= users < math.inf else None, rate if rate > 0 else math.inf)


def _told(value: Any) -> float:
    """``value`` as a number; infinite where nothing is told, or what is told is no number."""
    try:
        number = math.nan if value is None or isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return math.inf
    return math.inf if math.isnan(number) else number


def lists_of(file: Path, content: dict[str, Any], names: Sequence[str], save: str = SAVE) -> dict[str, list[Any]]:
    """The lists ``names`` of the result. Raises ``InputError`` where one is no list, or they differ in length."""
    for name in names:
        if not isinstance(content[name], list):
            raise InputError(f"{file}: {name!r} is {shown_kind(content[name])}, not a list; {save}")
    lengths = {name: len(content[name]) for name in names}
    if len(set(lengths.values())) > 1:
        raise InputError(f"{file}: its lists differ in length ({lengths}); the result was cut short, save it again")
    return {name: content[name] for name in names}


def latencies(file: Path, ttft: np.ndarray, itls: list[Any], lengths: list[Any]) -> list[float]:
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
            mean, problems = times([gaps])
            if problems:
                raise InputError(f"{file}: request {row}: itls {problems[0]}")
            took.append(float(ttft[row]) + float(mean[0]) * max(float(np.nan_to_num(outputs[row])) - 1, 0.0))
        else:
            raise InputError(f"{file}: request {row}: itls is {shown_kind(gaps)}, not a list of gaps; {SAVE}")
    return took


def failures(ttft: np.ndarray, lists: dict[str, list[Any]]) -> list[bool]:
    """vLLM writes zeros for a request that failed, and its error, which may be empty."""
    outputs, _ = counts(lists["output_lens"])
    silent = ~(outputs >= 1) & ~(ttft > 0)
    return [
        bool(lost) or bool(error) for lost, error in zip(silent, lists.get("errors", [None] * len(ttft)), strict=True)
    ]


def said_of_failures(content: dict[str, Any], failed: list[bool]) -> list[str]:
    """What the counts in the result say beside its lists."""
    if not any(failed):
        return []
    said = [f"{sum(failed)} of {len(failed)} requests failed"]
    if isinstance(content.get("failed"), int) and content["failed"] != sum(failed):
        said.append(f"the file counts {content['failed']} failed requests, its lists {sum(failed)}")
    return said
