"""Workloads and engines for tests: made to order by ``workload`` and ``profile``, at random by the strategies."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from hypothesis import strategies as st

from driftsim.latency.profile import Profile
from driftsim.scheduling.admission import Admission
from driftsim.scheduling.classify import CATEGORIES
from driftsim.scheduling.policies import POLICIES, STOCK
from driftsim.testing import engine, profile, workload
from driftsim.trace.header import Phase
from driftsim.trace.prefixes import stretches
from driftsim.trace.schema import TIER_NAMES
from driftsim.workloads.workload import Workload

__all__ = ["admissions", "engine", "estimators", "policies", "profile", "profiles", "workload", "workloads"]
Kind = Literal["open", "after-drain", "closed", "capped", "backlog"]
KINDS: tuple[Kind, ...] = ("open", "after-drain", "closed", "capped", "backlog")
policies = st.sampled_from([STOCK, *POLICIES])
estimators = st.sampled_from(["static", "ema", "oracle"])


@lru_cache(maxsize=None, typed=True)
def any_of(*values: Any) -> st.SearchStrategy[Any]:
    """One of ``values``, by a strategy that is made once: a new one for each draw would be checked anew."""
    return st.sampled_from(values)


@st.composite
def workloads(draw: st.DrawFn, largest: int = 20, patient: bool = True, least: int = 1) -> Workload:
    """Random requests over one or two phases; arrivals come in bursts and often at the same instant.

    Unless all are ``patient``, some clients give up, in the queue or in the engine.
    """
    count = draw(st.integers(least, largest))

    def column(values: st.SearchStrategy[Any]) -> list[Any]:
        return draw(st.lists(values, min_size=count, max_size=count))

    gaps = column(any_of(0.0, 0.0, 0.001, 0.01, 0.013, 0.2))
    phases: tuple[Phase, ...] = ()
    offsets = np.cumsum(gaps)
    if count > 3 and draw(st.booleans()):
        first = draw(st.integers(1, count - 1))
        kind = draw(any_of(*KINDS))
        users = draw(st.integers(1, 4)) if kind in ("closed", "capped") else 0
        pause = draw(any_of(0.0, 0.05))
        second = Phase(name="second", kind=kind, requests=count - first, pause_s=pause, users=users)
        phases = (Phase(name="first", requests=first), second)
        offsets[first:] -= offsets[first]
        if kind in ("closed", "backlog"):
            offsets[first:] = 0
    outputs, prompts = column(st.integers(1, 40)), column(st.integers(1, 90))
    extra = column(st.integers(0, 20))
    shared: dict[str, Any] = {}
    if draw(st.booleans()):
        rows, tokens = [-1], [0]
        for row in range(1, count):
            rows.append(draw(st.integers(-1, row - 1)))
            most = min(prompts[row] + outputs[row], prompts[rows[-1]] + outputs[rows[-1]])
            tokens.append(draw(st.one_of(st.integers(0, most), st.integers(0, most // 4).map(lambda part: 4 * part))))
        shared["stretches"] = stretches(rows, tokens)
    if draw(st.booleans()):
        shared["stop_string"] = column(st.integers(0, 1))
    return workload(
        offsets.tolist(),
        outputs,
        phases,
        **shared,
        tier=column(any_of(*TIER_NAMES)),
        tenant=column(any_of(*"abc")),
        patience_s=math.nan if patient else column(any_of(*[math.nan] * 6, 0.0, 0.013, 0.1, math.inf)),
        predicted_category=column(any_of(*CATEGORIES)),
        prompt_tokens=prompts,
        max_tokens=[output + more for output, more in zip(outputs, extra, strict=True)],
    )


@st.composite
def profiles(draw: st.DrawFn) -> Profile:
    """Random engines, tiny KV caches among them, and step times with and without lags."""
    chunked, slots = draw(st.booleans()), draw(st.integers(1, 6))
    settings = engine(
        max_num_seqs=slots,
        max_num_batched_tokens=draw(any_of(8, 32, 64, 200)) if chunked else 200,
        max_model_len=draw(any_of(64, 140)),
        kv_blocks=draw(st.integers(2, 24)),
        block_size=draw(any_of(4, 16)),
        long_prefill_token_threshold=draw(any_of(0, 0, 16)),
        enable_chunked_prefill=chunked,
        scheduling_policy=draw(any_of("fcfs", "fcfs", "priority")),
        async_scheduling=draw(st.booleans()),
        scheduler_reserve_full_isl=draw(any_of(True, True, False)),
        watermark=draw(any_of(0.0, 0.0, 0.1)),
        enable_prefix_caching=draw(st.booleans()),
        version=draw(any_of("0.32.0", "0.32.0", "0.19.0", "0.23.0", "0.25.0", "0.27.0", "0.30.0", "0.33.0")),
        long_prefill_token_threshold_adaptive=draw(any_of(False, False, True)),
        max_num_active_seqs=draw(any_of(None, None, min(slots, 2))),
        max_num_scheduled_tokens=draw(any_of(None, None, 7)) if chunked else None,
        prefill_schedule_interval=draw(any_of(1, 1, 3)),
        sliding_window=draw(any_of(None, None, 1, 9, 30, 70)),
        prefix_cache_retention_interval=draw(any_of(0, 0, None, 16, 32)),
    )
    lag = draw(any_of(0.0, 0.0005))
    return profile(
        settings,
        prefill_token_s=draw(any_of(0.0, 0.0001)),
        decode_request_s=draw(any_of(0.0, 0.0003)),
        context_token_s=draw(any_of(0.0, 1e-6)),
        launch_s=draw(any_of(0.0, 0.0, 0.004, 0.03)),
        graph_tokens=draw(any_of(0, 12)),
        gap_s=draw(any_of(0.0, 0.00003)),
        notify_lag_s=lag,
        submit_lag_s=lag,
    )


@st.composite
def admissions(draw: st.DrawFn) -> Admission:
    """Random settings of the switches."""
    return Admission(
        accounting=draw(any_of("tokenizer", "whitespace")),
        base=draw(any_of("reference", "caps")),
        clamp_at_max_tokens=draw(st.booleans()),
        feedback=draw(any_of("base", "estimate")),
        estimates=draw(any_of("frozen", "refreshed")),
    )
