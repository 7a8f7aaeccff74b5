"""Which limit of the engine held requests back: shares of the time of a run's steps, from what its steps recorded."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from driftsim.latency.steptime import Batch, StepTime, ticks
from driftsim.metrics import service_start
from driftsim.simulation.scenario import Scenario
from driftsim.trace.trace import Trace

NEARLY_FULL = 0.95  # of the KV blocks
HELD = ("slots", "kv", "budget")
SHARES = ("waiting", *HELD, "prefill")
LEAST_WAITING = 0.01  # share of the time of steps; below it, no limit holds anybody back
LEAST_OF_WAITING = 0.5  # of that time, that the limit which binds was met
LEAST_PREFILL = 0.5  # of the time of steps, that prefills take where they are what binds


def limit_shares(run: Trace, scenario: Scenario, measured: Trace | None = None) -> dict[str, float]:
    """The metrics of ``glossary.LIMITS`` of ``run`` under ``scenario``; NaN without steps, as behind a barrier.

    measured: the part of the run that counts; steps count from its first arrival to its last.
    """
    names = [f"{name}_share" for name in SHARES]
    if run.steps is None or scenario.barrier is not None:
        return dict.fromkeys(names, np.nan)
    arrivals = (run if measured is None else measured).requests["arrival_s"]
    steps = run.steps[run.steps["start_s"].between(arrivals.min(), arrivals.max())]
    if steps.empty:  # all arrived before the first step
        steps = run.steps
    weights = steps["duration_s"].to_numpy()
    met = _met(steps, run.requests, scenario)
    found = {name: float(np.average(met[name], weights=weights)) for name in ("waiting", *HELD)}
    found["prefill"] = prefill_time(steps, scenario.profile.step_time()) / float(weights.sum())
    return {f"{name}_share": found[name] for name in SHARES}


def _met(steps: pd.DataFrame, requests: pd.DataFrame, scenario: Scenario) -> dict[str, np.ndarray]:
    """Whether each step met each limit, (steps,)."""
    engine, now = scenario.profile.engine, steps["start_s"].to_numpy()

    def passed(times: pd.Series | np.ndarray) -> np.ndarray:
        known = np.sort(np.asarray(times, dtype=float))
        return np.searchsorted(known[~np.isnan(known)], now, side="right")

    begun = service_start(requests)
    begun = np.where(np.isnan(begun), requests["finish_s"].to_numpy(dtype=float), begun)  # gave up, still waiting
    inside, running = steps["waiting"].to_numpy(), steps["running"].to_numpy()
    waiting = (passed(requests["arrival_s"]) > passed(begun)) | (inside > 0)
    slots = min(engine.max_num_seqs, engine.max_num_active_seqs or engine.max_num_seqs)
    taken = passed(requests["dispatch_s"]) - passed(requests["finish_s"]) - inside  # those on their way count
    most = min(engine.max_num_batched_tokens, engine.max_num_scheduled_tokens or engine.max_num_batched_tokens)
    full = (steps["prefill_tokens"] + steps["decode_requests"]).to_numpy() >= most
    held = (inside > 0) & (running < slots) & ~full
    used = steps["kv_blocks_used"].to_numpy() >= NEARLY_FULL * engine.kv_blocks
    return {
        "waiting": waiting,
        "slots": waiting & (np.maximum(taken, running) >= min(slots, scenario.limit or slots)),
        "kv": held | (steps["preempted"].to_numpy() > 0) | (waiting & used),
        "budget": full,
    }


def prefill_time(steps: pd.DataFrame, model: StepTime) -> float:
    """Seconds that ``steps`` took beyond the same steps without their prompts, by ``model``.

    A step of prompts alone is prefill as a whole.
    """
    rows = steps[steps["prefill_tokens"] > 0]
    total = 0.0
    for duration, decodes, context in zip(
        rows["duration_s"].tolist(), rows["decode_requests"].tolist(), rows["context_tokens"].tolist(), strict=True
    ):
        without = model.step(Batch(decode_requests=decodes, context_tokens=context)) if decodes else 0
        total += max(0.0, duration - without / ticks(1.0))
    return total


def binding(shares: Mapping[str, float]) -> str:
    """What binds, by ``limit_shares``: ``slots``, ``kv``, ``budget``, ``prefill`` or ``steps``; "" if unknown.

    The limit that was met in most of the time in which somebody waited (see ``held_share``), and in at least half of
    it. Where nobody waits, or no limit explains it, it is the time of the steps: ``prefill`` if that is most of it,
    else ``steps``.

    >>> binding({"waiting_share": 0.4, "slots_share": 0.35, "kv_share": 0.1, "budget_share": 0.0, "prefill_share": 0.1})
    'slots'
    """
    waiting = held_share(shares)
    if np.isnan(waiting):
        return ""
    most = max(HELD, key=lambda name: shares[f"{name}_share"])
    if waiting >= LEAST_WAITING and shares[f"{most}_share"] >= LEAST_OF_WAITING * waiting:
        return most
    return "prefill" if shares["prefill_share"] >= LEAST_PREFILL else "steps"


def held_share(shares: Mapping[str, float]) -> float:
    """The share of the time of steps in which somebody waited: to be begun, or in a full step for the rest of a prompt.

    >>> held_share({"waiting_share": 0.0, "budget_share": 0.5})
    0.5
    """
    return float(np.maximum(shares["waiting_share"], shares["budget_share"]))
