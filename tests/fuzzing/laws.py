"""What counts as nonsense, whoever says it: no verb may accept it, or write it.

The laws here are written down apart from the checks of the package, over the plain files, so that the two can differ.
Each law is a sentence and a test of it; ``nonsense`` gives the sentences that a folder breaks.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from driftsim.trace.trace import Trace, read

TIMES = ("arrival_s", "dispatch_s", "queued_s", "scheduled_s", "first_token_s", "finish_s")
COUNTS = (
    "prompt_tokens", "prompt_words", "max_tokens", "estimate", "budget", "dispatch_index", "output_tokens",
    "output_words", "preemptions", "batch_id", "batch_size",
)  # fmt: skip
LONGEST_S, LARGEST, SLACK_S = 1e9, 1e9, 2e-6
IN_FLIGHT = 16  # steps of an engine that may be under way at once: far more than any has
Law = Callable[[Any], Any]  # of a table or a document: whether it holds


def _floats(table: pd.DataFrame, name: str) -> np.ndarray:
    return table[name].astype("Float64").to_numpy(dtype=float, na_value=np.nan)


def _in_order(table: pd.DataFrame) -> bool:
    latest = _floats(table, "arrival_s")
    for _, name in pairwise(TIMES):
        now = _floats(table, name)
        if (now < latest - SLACK_S).any():
            return False
        latest = np.where(np.isnan(now), latest, now)
    return True


REQUESTS: dict[str, Law] = {
    "a request without a name, or two of one name": lambda t: (
        t["request_id"].is_unique and all(isinstance(name, str) and name for name in t["request_id"])
    ),
    "a request without a tenant, a tier or a phase": lambda t: all(
        isinstance(value, str) and value for name in ("tenant", "tier", "phase") for value in t[name]
    ),
    "a prompt or a limit of no token": lambda t: (
        (_floats(t, "prompt_tokens") >= 1).all() and (_floats(t, "max_tokens") >= 1).all()
    ),
    "a count that is negative, broken or above 10^9": lambda t: (
        not any(
            ((values < 0) | (values > LARGEST) | (values % 1 != 0))[~np.isnan(values)].any()
            for values in (_floats(t, name) for name in COUNTS)
        )
    ),
    "an output above its limit": lambda t: not (_floats(t, "output_tokens") > _floats(t, "max_tokens")).any(),
    "an arrival that is no number": lambda t: np.isfinite(_floats(t, "arrival_s")).all(),
    "a time that is negative, infinite or after thirty years": lambda t: (
        not any(((values < 0) | (values > LONGEST_S)).any() for values in (_floats(t, name) for name in TIMES))
    ),
    "a request that ends before it starts, or starts before it arrives": _in_order,
    "a correction that is no positive number": lambda t: (
        not ((_floats(t, "bias") <= 0) | np.isinf(_floats(t, "bias"))).any()
    ),
}


def _overlapping(steps: pd.DataFrame) -> bool:
    """Whether more steps than an engine has under way would run at once, as where milliseconds pass for seconds."""
    starts, durations = _floats(steps, "start_s"), _floats(steps, "duration_s")
    end, ends = -np.inf, []
    for start, duration in zip(starts, durations, strict=True):
        end = max(start, end) + duration
        ends.append(end)
    return bool((starts[IN_FLIGHT:] < np.array(ends[: len(ends) - IN_FLIGHT]) - 1e-3).any())


STEPS: dict[str, Law] = {
    "a number of a step that is negative or none": lambda t: all(
        (np.isfinite(values) & (values >= 0)).all()
        for values in (_floats(t, name) for name in t.columns if t[name].dtype != object)
    ),
    "a step that takes no time": lambda t: (_floats(t, "duration_s") > 0).all(),
    "steps out of order": lambda t: (np.diff(_floats(t, "start_s")) >= 0).all(),
    "steps that overlap": lambda t: not _overlapping(t),
    "a step of more requests than the engine ran": lambda t: (
        _floats(t, "prefill_requests") + _floats(t, "decode_requests") <= _floats(t, "running")
    ).all(),
    "prompt tokens of no prompt": lambda t: (
        (_floats(t, "prefill_tokens") >= _floats(t, "prefill_requests")).all()
        and not ((_floats(t, "prefill_requests") == 0) & (_floats(t, "prefill_tokens") > 0)).any()
    ),
}

TELEMETRY: dict[str, Law] = {
    "a sample without a time, or a load that is no number": lambda t: all(
        np.isfinite(_floats(t, name)).all() for name in t.columns if name.endswith("cpu") or name == "time_s"
    ),
    "a load below 0": lambda t: not any((_floats(t, name) < 0).any() for name in t.columns),
    "samples out of order": lambda t: (np.diff(_floats(t, "time_s")) >= 0).all(),
}

HEADER: dict[str, Law] = {
    "an engine of no size, or of one that no engine has": lambda h: all(
        0 < h["engine"][name] <= most
        for name, most in (("max_num_seqs", 1e6), ("max_num_batched_tokens", 1e9), ("max_model_len", 1e9),
                           ("kv_blocks", 1e9), ("block_size", 2**16))
    ),
    "a phase of no request, or a pause that never ends": lambda h: all(
        phase["requests"] > 0
        and all(0 <= phase.get(name, 0) <= LONGEST_S for name in ("pause_s", "think_s", "users"))
        for phase in h["workload"]["phases"]
    ),
    "a limit in flight of nobody": lambda h: h.get("max_in_flight") is None or h["max_in_flight"] > 0,
    "a load of the machine below 0": lambda h: all(value >= 0 for value in (h.get("load") or {}).values()),
}  # fmt: skip

COEFFICIENTS = (
    "intercept_s", "prefill_token_s", "decode_request_s", "context_token_s", "prefill_attention_s", "prefill_step_s",
    "gap_s", "notify_lag_s", "submit_lag_s", "output_lag_s",
)  # fmt: skip
PROFILE: dict[str, Law] = {
    "a step that takes no time, or a part of it that takes less than none": lambda p: p["intercept_s"] > 0
    and all(0 <= p.get(name, 0) <= 1e4 for name in COEFFICIENTS),
    "sizes of graphs that are no sizes, or out of order": lambda p: (
        (sizes := list(p.get("graph_sizes") or ())) == sorted(set(sizes)) and all(size > 0 for size in sizes)
    ),
    "an interval whose ends are the wrong way round": lambda p: all(
        low <= high for low, high in (p.get("intervals") or {}).values()
    ),
    "tokens or rows below 0": lambda p: p.get("hidden_tokens", 0) >= 0
    and all(value >= 0 for value in (p.get("seen") or {}).values())
    and (p.get("fit") or {}).get("rows", 0) >= 0,
    "an engine of no size": lambda p: HEADER["an engine of no size, or of one that no engine has"](p),
}  # fmt: skip


def nonsense(trace: Trace) -> Iterator[str]:
    """What ``trace`` says that nobody may say."""
    parts: list[tuple[dict[str, Law], Any]] = [
        (REQUESTS, trace.requests),
        (HEADER, json.loads(trace.header.as_json())),
        (STEPS, trace.steps),
        (TELEMETRY, trace.telemetry),
    ]
    for laws, part in parts:
        if part is not None:
            yield from broken(laws, part)


def broken(laws: dict[str, Law], part: Any) -> Iterator[str]:
    """The sentences of ``laws`` that ``part`` breaks, one that cannot even be asked included."""
    for sentence, law in laws.items():
        try:
            holds = law(part)
        except (ValueError, TypeError, KeyError) as error:
            yield f"{sentence} ({type(error).__name__}: {error})"
        else:
            if not holds:
                yield sentence


def of_trace(name: str) -> Callable[[Path, str], Iterator[str]]:
    """The nonsense in the trace ``name`` of a folder, where a verb has just used or written it."""

    def law(folder: Path, printed: str) -> Iterator[str]:
        if (folder / name).is_dir():
            yield from nonsense(read(folder / name))

    return law


def of_profile(name: str) -> Callable[[Path, str], Iterator[str]]:
    """The nonsense in the profile ``name`` of a folder."""

    def law(folder: Path, printed: str) -> Iterator[str]:
        yield from broken(PROFILE, json.loads((folder / name).read_text(encoding="utf-8-sig")))

    return law


def of_printed(folder: Path, printed: str) -> Iterator[str]:
    """A document that is printed is JSON as others read it, without NaN or Infinity."""
    if printed.lstrip().startswith("{"):
        try:
            json.loads(printed, parse_constant=_refused)
        except ValueError as error:
            yield f"prints what is no JSON: {error}"


def _refused(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")
