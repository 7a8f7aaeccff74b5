"""Requests that did not finish are load all the same: what is known of it is simulated, what is not is told."""

from __future__ import annotations

import numpy as np
import pandas as pd

from driftsim.trace.ignored import ignored
from driftsim.trace.schema import FINISHED
from driftsim.trace.trace import Trace


def as_far_as_known(trace: Trace) -> pd.DataFrame:
    """The requests whose load is known, with ``source``, their row, and ``patience_s``, when they are given up.

    An aborted request goes on towards its limit until its client gives it up, as it did. Where the limit or that time
    is not known, what it streamed is all of it, or what the time from its first token to its last allows at the median
    pace of the others.
    """
    whole = trace.requests.reset_index(names="source")
    whole["patience_s"] = np.nan
    finished = whole["finish_reason"].isin(FINISHED)
    if finished.all():
        return whole
    part = whole[whole["finish_reason"].isin(("abort", "error"))].copy()
    gave_up = ((part["finish_reason"] == "abort") & part["finish_s"].notna()).to_numpy()
    streamed = _streamed(part, whole[finished])
    limit = part["max_tokens"].to_numpy(dtype=float)
    output = np.clip(np.where(gave_up & (limit > streamed), limit, streamed), 1, limit)
    part["output_tokens"] = pd.array(output, dtype="Int64")
    part["output_words"] = pd.array([pd.NA] * len(part), dtype="Int64")
    part["patience_s"] = np.where(gave_up, part["finish_s"] - part["arrival_s"], np.inf)
    return pd.concat([whole[finished], part[(streamed >= 1) | gave_up]]).sort_index()


def _streamed(part: pd.DataFrame, finished: pd.DataFrame) -> np.ndarray:
    """The tokens that each of ``part`` has shown, by its own count, else by its time at the pace of ``finished``."""
    counted = part["output_tokens"].to_numpy(dtype=float, na_value=0.0)
    lasted = (part["finish_s"] - part["first_token_s"]).to_numpy(dtype=float)
    gaps = finished["output_tokens"].to_numpy(dtype=float) - 1
    paces = (finished["finish_s"] - finished["first_token_s"]).to_numpy(dtype=float)[gaps > 0] / gaps[gaps > 0]
    pace = np.median(paces) if len(paces) else np.nan
    if not pace > 0:
        return counted
    timed = 1 + np.floor(np.nan_to_num(lasted, nan=-np.inf) / pace)
    return np.asarray(np.where(counted >= 1, counted, np.maximum(timed, 0.0)))


def caveats(trace: Trace) -> list[str]:
    """What a reader must know of whatever is concluded from ``trace``: what its import changed, what its load lacks."""
    rows, said = trace.requests, list(trace.header.caveats)
    simulated = np.isin(np.arange(len(rows)), as_far_as_known(trace)["source"].to_numpy())
    finished = rows["finish_reason"].isin(FINISHED).to_numpy()
    turned_away = ~simulated & rows["finish_reason"].isin(("error", "rejected")).to_numpy()
    share = f"of {len(rows)} requests"
    if (simulated & ~finished).any():
        said.append(f"{(simulated & ~finished).sum()} {share} did not finish: they are simulated as far as they went")
    if turned_away.any():
        said.append(f"{turned_away.sum()} {share} failed without a token and are not simulated")
    unknown = int((~simulated & ~turned_away).sum())
    if unknown:
        said.append(
            f"{unknown} {share} ({100 * unknown / len(rows):.0f} %) have no known output and are not simulated: load "
            "and latency are too low"
        )
    said += _of_the_cache(trace)
    said += [f"the engine used what is not simulated: {one}" for one in ignored(trace.header.engine_arguments)]
    if trace.header.load is not None and trace.header.load.disturbed:
        said.append("the machine was disturbed while this trace was recorded: its step times are unreliable")
    preempted = 0 if trace.steps is None else int(trace.steps["preempted"].sum())
    if preempted and not rows["preemptions"].sum():
        said.append(f"its steps tell of {preempted} preemptions and its requests of none: the engine did not say whose")
    if trace.header.ended != "complete":
        said.append(f"the recorded run did not end properly: {trace.header.ended} {trace.header.ended_why}".rstrip())
    return said


def _of_the_cache(trace: Trace) -> list[str]:
    """What is not known of an engine's prefix cache and of what its requests share, and what that may hide."""
    engine, columns = trace.header.engine, trace.requests.columns
    if "prefix_row" in columns:
        return []
    if "enable_prefix_caching" in engine.assumed and trace.header.kind == "imported":
        return [
            "nothing tells whether the engine cached prefixes, as vLLM does by default: it is simulated without; where "
            "prompts share their beginnings, prefills, TTFT and load come out too high"
        ]
    if not engine.enable_prefix_caching:
        return []
    if "cached_tokens" in columns:
        return [
            "what requests share is not known, only what the cache held of each: they find as much whatever the load, "
            "the order and the room for it"
        ]
    return [
        "the engine cached prefixes, and nothing tells what its requests share: they are simulated as if they shared "
        "nothing; prefills, TTFT and load may come out far too high"
    ]
