"""The JSON report of ``guidellm benchmark``, in the layouts that it has had.

vllm-project/guidellm: until 0.3 src/guidellm/benchmark/benchmark.py (``start_time``, ``first_token_time``,
``args.strategy``), 0.4 benchmark/objects.py (``scheduler_info.request_timings``, ``scheduler.strategy``), since 0.5
schemas/request_stats.py and schemas/info.py (``info.timings``, ``config.strategy``). Times are seconds of one clock;
the strategies are those of src/guidellm/scheduler/strategies.py.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from driftsim.errors import InputError
from driftsim.formats.found import Found
from driftsim.formats.head import Head
from driftsim.formats.said import held_back
from driftsim.formats.sessions import Sessions
from driftsim.formats.source import MISSING, Source, follow, read_json, shown_kind
from driftsim.formats.values import times
from driftsim.trace.loops import Told

GROUPS = {"successful": None, "completed": None, "errored": "error", "incomplete": "abort"}  # theirs: ours, if told
STRATEGIES = ("config.strategy", "scheduler.strategy", "args.strategy")
MODELS = ("config.backend.model", "benchmarker.backend.model", "worker.backend_model", "config.backend.target_model")
TOTALS = ("request_totals", "metrics.request_totals", "run_stats.requests_made")
TIMES = {
    "arrival_s": (
        "info.timings.request_start", "request_start_time", "scheduler_info.request_timings.request_start",
        "start_time",
    ),
    "first_token_s": (
        "info.timings.first_token_iteration", "info.timings.first_iteration",
        "scheduler_info.request_timings.first_iteration", "first_token_time",
    ),
    "finish_s": (
        "info.timings.last_token_iteration", "info.timings.last_iteration",
        "scheduler_info.request_timings.last_iteration", "last_token_time", "info.timings.request_end",
        "request_end_time", "scheduler_info.request_timings.request_end", "end_time",
    ),
}  # fmt: skip
DUE = ("info.timings.targeted_start", "scheduler_info.request_timings.targeted_start")


def fits(head: Head) -> bool:
    """Whether ``head`` is that of such a report."""
    return head.document and any(head.has(f"benchmarks.0.requests.{group}") for group in GROUPS)


def read(file: Path, result: int | None = None) -> Found:
    """What is found in benchmark ``result``, counted from 1, of the report ``file``.

    Raises ``InputError`` for a report without its requests, and where it is not said which of several is meant.
    """
    benchmark, number = _chosen(file, read_json(file), result)
    source, groups = _requests(file, benchmark, number)
    cells: dict[str, list[Any]] = {name: source.either(*paths) for name, paths in TIMES.items()}
    arrival, _ = times(cells["arrival_s"])
    first = cells["first_token_s"]
    waits = source.either("time_to_first_token_ms")
    cells["first_token_s"] = [
        _after(start, wait) if cell is None else cell for cell, start, wait in zip(first, arrival, waits, strict=True)
    ]
    cells["prompt_tokens"] = source.either("prompt_tokens", "input_metrics.total_tokens", "input_metrics.text_tokens")
    cells["output_tokens"] = source.either(
        "output_tokens", "output_metrics.total_tokens", "output_metrics.text_tokens", "info.timings.token_iterations"
    )
    cells["request_id"] = source.either("request_id", "info.request_id")
    cells["cached_tokens"] = source.either("cached_tokens", "input_metrics.cached_tokens")
    cells["error"] = source.either("error", "info.error", "scheduler_info.error")
    cells["finish_reason"] = [GROUPS[group] for group in groups]
    told = told_loop(benchmark)
    waited = arrival - times(source.either(*DUE))[0]
    return Found(
        source=source,
        cells=cells,
        names={name: paths[0] for name, paths in TIMES.items()},
        model=next((str(name) for path in MODELS if isinstance(name := follow(benchmark, path), str)), "unknown"),
        told=told,
        sessions=Sessions(names=source.either("info.conversation_id"), turns=source.either("info.turn_index")),
        guessed=[
            *_sampled(benchmark, groups),
            *(
                held_back(np.asarray(waited), "targeted_start")
                if told.rate is not None and told.rate < math.inf
                else ()
            ),
        ],
    )


def _chosen(file: Path, document: Any, result: int | None) -> tuple[Any, int]:
    """The benchmark that is meant, and its place in the report."""
    found = document.get("benchmarks") if isinstance(document, dict) else None
    if not isinstance(found, list) or not found:
        raise InputError(
            f"{file}: has no list 'benchmarks', so it is no report of guidellm; give the JSON that it saved"
        )
    if result is None and len(found) > 1:
        listed = ", ".join(f"{place}: {_strategy_name(one)}" for place, one in enumerate(found[:12], start=1))
        raise InputError(f"{file}: holds {len(found)} benchmarks ({listed}); choose one with --result N")
    if result is not None and not 1 <= result <= len(found):
        raise InputError(f"{file}: holds {len(found)} benchmarks, there is no result {result}")
    return found[(result or 1) - 1], (result or 1) - 1


def _requests(file: Path, benchmark: Any, number: int) -> tuple[Source, list[str]]:
    """The requests of a ``benchmark``, and the group that each stands in."""
    requests = follow(benchmark, "requests")
    if not isinstance(requests, dict):
        kind = "missing" if requests is MISSING else shown_kind(requests)
        raise InputError(
            f"{file}: benchmarks[{number}].requests is {kind}, not an object of successful requests and others"
        )
    records, groups, places, unreadable = list[Any](), list[str](), list[str](), dict[str, str]()
    for group in GROUPS:
        listed = requests.get(group) or []
        if not isinstance(listed, list):
            raise InputError(f"{file}: benchmarks[{number}].requests.{group} is {shown_kind(listed)}, not a list")
        for row, record in enumerate(listed):
            place = f"benchmarks[{number}].requests.{group}[{row}]"
            if isinstance(record, dict):
                records.append(record)
                groups.append(group)
                places.append(place)
            else:
                unreadable[place] = f"is {shown_kind(record)}, not an object"
    if not records:
        raise InputError(f"{file}: benchmarks[{number}] lists no request; save the report with its requests")
    return Source(file, len(records), places.__getitem__, records=records, unreadable=unreadable), groups


def told_loop(benchmark: Any) -> Told:
    """The loop that the strategy of a ``benchmark`` means: synchronous is one user, concurrent has its streams."""
    strategy = next((one for path in STRATEGIES if isinstance(one := follow(benchmark, path), dict)), {})
    kind = strategy.get("type_")
    most = _whole(strategy.get("max_concurrency"))
    if kind == "synchronous":
        return Told(1, math.inf)
    if kind == "concurrent":
        return Told(_whole(strategy.get("streams")) or most, math.inf)
    if kind == "throughput":
        return Told(most, math.inf)
    if kind in ("constant", "poisson"):
        rate = strategy.get("rate")
        if isinstance(rate, int | float) and not isinstance(rate, bool) and 0 < rate < 1e12:
            return Told(most, float(rate))
    return Told()


def _strategy_name(benchmark: Any) -> str:
    strategy = next((one for path in STRATEGIES if isinstance(one := follow(benchmark, path), dict)), {})
    told = next((strategy[key] for key in ("rate", "streams") if isinstance(strategy.get(key), int | float)), None)
    return f"{str(strategy.get('type_', 'unknown'))[:20]!r}".strip("'") + ("" if told is None else f" {told:g}")


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _after(start: float, wait_ms: Any) -> float | None:
    """The moment that is ``wait_ms`` after ``start``; None where either is not known."""
    waited, problems = times([wait_ms], "ms")
    return None if problems or math.isnan(start + waited[0]) else float(start + waited[0])


def _sampled(benchmark: Any, groups: list[str]) -> list[str]:
    """A caveat if the report lists fewer requests than it counts."""
    for path in TOTALS:
        total = _whole(follow(benchmark, f"{path}.total"))
        if total is not None and total > len(groups):
            return [
                f"the report lists {len(groups)} of the {total} requests that it counts: the others are missing here"
            ]
    return []
