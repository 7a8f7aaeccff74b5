"""Workloads and engines for tests: made to order by ``workload`` and ``profile``, at random by the strategies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from hypothesis import strategies as st

from driftsim.latency.profile import Profile
from driftsim.scheduling.admission import Admission
from driftsim.scheduling.classify import CATEGORIES
from driftsim.scheduling.policies import POLICIES, STOCK
from driftsim.trace.header import EngineSettings, Phase, WorkloadInfo
from driftsim.trace.schema import TIER_NAMES
from driftsim.workloads.table import workload_table
from driftsim.workloads.workload import Workload


def engine(**changes: Any) -> EngineSettings:
    """Plain engine settings, with changes."""
    settings: dict[str, Any] = {
        "version": "0.32.0",
        "max_num_seqs": 4,
        "max_num_batched_tokens": 64,
        "max_model_len": 512,
        "kv_blocks": 1000,
        "block_size": 16,
    }
    return EngineSettings(**settings | changes)


def profile(engine_settings: EngineSettings | None = None, **changes: Any) -> Profile:
    """A profile with a step of 10 ms and no lag, with changes."""
    settings: dict[str, Any] = {
        "intercept_s": 0.010,
        "prefill_token_s": 0.0,
        "decode_request_s": 0.0,
        "context_token_s": 0.0,
    }
    return Profile(engine=engine_settings or engine(), **settings | changes)


def workload(
    arrivals: Sequence[float], outputs: Sequence[int], phases: tuple[Phase, ...] = (), **columns: Any
) -> Workload:
    """One open phase (unless told otherwise) of requests that are alike but for what is given."""
    count = len(arrivals)
    phases = phases or (Phase(name="only", requests=count),)
    plain = {
        "tenant": "a",
        "category": "short_qa",
        "predicted_category": "short_qa",
        "prompt_tokens": 8,
        "prompt_words": 6,
        "max_tokens": [max(output, 64) for output in outputs],
        "offset_s": arrivals,
        "output_tokens": outputs,
        "output_words": [max(1, round(0.72 * output)) for output in outputs],
        "stops": False,
    }
    table = workload_table(phases, **plain | columns)
    loop: Literal["open", "closed"] = "closed" if any(phase.kind == "closed" for phase in phases) else "open"
    return Workload(WorkloadInfo(name="test", loop=loop, phases=phases), table)


KINDS: tuple[Literal["open", "after-drain", "closed", "backlog"], ...] = ("open", "after-drain", "closed", "backlog")
policies = st.sampled_from([STOCK, *POLICIES])
estimators = st.sampled_from(["static", "ema", "oracle"])


@st.composite
def workloads(draw: st.DrawFn, largest: int = 20) -> Workload:
    """Random requests over one or two phases; arrivals come in bursts and often at the same instant."""
    count = draw(st.integers(1, largest))

    def column(values: st.SearchStrategy[Any]) -> list[Any]:
        return draw(st.lists(values, min_size=count, max_size=count))

    gaps = column(st.sampled_from([0.0, 0.0, 0.001, 0.01, 0.013, 0.2]))
    phases: tuple[Phase, ...] = ()
    offsets = np.cumsum(gaps)
    if count > 3 and draw(st.booleans()):
        first = draw(st.integers(1, count - 1))
        kind = draw(st.sampled_from(KINDS))
        users = draw(st.integers(1, 4)) if kind == "closed" else 0
        pause = draw(st.sampled_from([0.0, 0.05]))
        second = Phase(name="second", kind=kind, requests=count - first, pause_s=pause, users=users)
        phases = (Phase(name="first", requests=first), second)
        offsets[first:] -= offsets[first]
        if kind in ("closed", "backlog"):
            offsets[first:] = 0
    outputs = column(st.integers(1, 40))
    extra = column(st.integers(0, 20))
    return workload(
        offsets.tolist(),
        outputs,
        phases,
        tier=column(st.sampled_from(TIER_NAMES)),
        tenant=column(st.sampled_from("abc")),
        predicted_category=column(st.sampled_from(CATEGORIES)),
        prompt_tokens=column(st.integers(1, 90)),
        max_tokens=[output + more for output, more in zip(outputs, extra, strict=True)],
    )


@st.composite
def profiles(draw: st.DrawFn) -> Profile:
    """Random engines, tiny KV caches among them, and step times with and without lags."""
    chunked = draw(st.booleans())
    settings = engine(
        max_num_seqs=draw(st.integers(1, 6)),
        max_num_batched_tokens=draw(st.sampled_from([8, 32, 64, 200])) if chunked else 200,
        max_model_len=draw(st.sampled_from([64, 140])),
        kv_blocks=draw(st.integers(2, 24)),
        block_size=draw(st.sampled_from([4, 16])),
        long_prefill_token_threshold=draw(st.sampled_from([0, 0, 16])),
        enable_chunked_prefill=chunked,
        scheduling_policy=draw(st.sampled_from(["fcfs", "fcfs", "priority"])),
        async_scheduling=draw(st.booleans()),
        scheduler_reserve_full_isl=draw(st.sampled_from([True, True, False])),
        watermark=draw(st.sampled_from([0.0, 0.0, 0.1])),
    )
    lag = draw(st.sampled_from([0.0, 0.0005]))
    return profile(
        settings,
        prefill_token_s=draw(st.sampled_from([0.0, 0.0001])),
        decode_request_s=draw(st.sampled_from([0.0, 0.0003])),
        context_token_s=draw(st.sampled_from([0.0, 1e-6])),
        gap_s=draw(st.sampled_from([0.0, 0.00003])),
        notify_lag_s=lag,
        submit_lag_s=lag,
    )


@st.composite
def admissions(draw: st.DrawFn) -> Admission:
    """Random settings of the switches."""
    return Admission(
        accounting=draw(st.sampled_from(["tokenizer", "whitespace"])),
        base=draw(st.sampled_from(["reference", "caps"])),
        clamp_at_max_tokens=draw(st.booleans()),
        feedback=draw(st.sampled_from(["base", "estimate"])),
        estimates=draw(st.sampled_from(["frozen", "refreshed"])),
    )
