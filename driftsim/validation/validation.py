"""Validation simulates what was measured and sets the two side by side: latencies, and scheduling decisions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from driftsim.engine.recorded import ReceivedJob, on_recorded_steps
from driftsim.errors import TraceError
from driftsim.latency.profile import Profile
from driftsim.latency.steptime import TICKS_PER_SECOND, ticks
from driftsim.metrics import LATENCIES, PERCENTILES, e2e, makespan, tpot, ttft
from driftsim.progress import OnProgress, after, no_progress
from driftsim.request import Job, Request, Tier
from driftsim.simulation.as_measured import placed_as_recorded, simulate_as_measured
from driftsim.tiers import ranked, rules_in_force
from driftsim.trace.prefixes import Stretches
from driftsim.trace.schema import FINISHED, STEP_COLUMNS
from driftsim.trace.subset import only
from driftsim.trace.tables import typed
from driftsim.trace.trace import Trace
from driftsim.workloads.replay import stretches_of

STATS = ("mean", *PERCENTILES)
TOLERANCE_S = 0.002  # of a first token or a finish, on measured steps
COMPOSITION = ("prefill_tokens", "prefill_requests", "decode_requests", "context_tokens", "kv_blocks_used", "preempted")
LATENCY = {"e2e": e2e, "ttft": ttft, "tpot": tpot}


@dataclass(frozen=True, eq=False)
class Validation:
    """A recorded run, named, beside its simulation; ``exceptions`` are the requests that are off, on measured steps."""

    name: str
    recorded: Trace
    simulated: Trace
    exceptions: pd.DataFrame | None = None
    steps_alike: float | None = None  # share of the recorded steps that were composed alike

    def rows(self) -> list[dict[str, Any]]:
        """One for each metric and statistic: measured, simulated, and the signed relative error."""
        return [{"trace": self.name, **row} for row in _rows(self.recorded, self.simulated)]

    def tenants(self) -> list[dict[str, Any]]:
        """The same for the requests of each tenant, without the makespan."""
        names = sorted(self.recorded.requests["tenant"].unique())
        both = [_by_tenant(trace, names) for trace in (self.recorded, self.simulated)]
        return [
            {"trace": self.name, "tenant": name, **_row(metric, stat, *(float(own[at, place]) for own in both))}
            for at, name in enumerate(names)
            for place, (metric, stat) in enumerate((metric, stat) for metric in LATENCIES for stat in STATS)
        ]


def _by_tenant(trace: Trace, names: Sequence[str]) -> np.ndarray:
    """A row for each of the tenants ``names``: every statistic of every latency (s) of its finished requests."""
    rows = trace.finished
    places = pd.Index(names).get_indexer(pd.Index(rows["tenant"]))
    columns = [grouped_statistics(np.asarray(LATENCY[metric](rows), float), places, len(names)) for metric in LATENCIES]
    return np.hstack(columns)


def grouped_statistics(values: np.ndarray, groups: np.ndarray, count: int) -> np.ndarray:
    """``STATS`` of the known ``values`` of each of ``count`` groups, a row each; NaN for one without any.

    ``groups`` is the number of each value's group. Groups of one size are summarised at once: the time grows with the
    values, not with their product with the groups.

    >>> grouped_statistics(np.array([1.0, 3.0, np.nan, 5.0]), np.array([0, 0, 2, 2]), 3)[:, 0].tolist()
    [2.0, nan, 5.0]
    """
    known = ~np.isnan(values) & (groups >= 0)
    own = values[known][np.argsort(groups[known], kind="stable")]
    sizes = np.bincount(groups[known], minlength=count)
    begins = np.cumsum(sizes) - sizes
    found = np.full((count, len(STATS)), np.nan)
    for size in np.unique(sizes[sizes > 0]):
        alike = np.flatnonzero(sizes == size)
        block = own[begins[alike][:, None] + np.arange(size)]
        found[alike, 0] = block.mean(axis=1)
        found[alike, 1:] = np.percentile(block, list(PERCENTILES.values()), axis=1).T
    return found


def _rows(recorded: Trace, simulated: Trace) -> list[dict[str, Any]]:
    rows = []
    for metric in (*LATENCIES, "makespan"):
        for stat in STATS:
            rows.append(_row(metric, stat, *(statistic(trace, metric, stat) for trace in (recorded, simulated))))
    return rows


def _row(metric: str, stat: str, measured: float, simulated: float) -> dict[str, Any]:
    error = simulated / measured - 1 if measured else float("nan")
    values = {"measured": measured, "simulated": simulated, "error": error}
    return {"metric": metric, "stat": stat, "unit": "s", **values}


def statistic(trace: Trace, metric: str, stat: str) -> float:
    """A statistic of a latency (s) over the finished requests, or their makespan, which has but one; NaN for none."""
    rows = trace.finished
    if rows.empty:
        return float("nan")
    if metric == "makespan":
        return makespan(trace.requests)
    values = LATENCY[metric](rows).dropna().to_numpy(dtype=float)
    if not len(values):
        return float("nan")
    return float(values.mean() if stat == "mean" else np.percentile(values, PERCENTILES[stat]))


def on_measured_steps(name: str, trace: Trace) -> Validation:
    """``trace`` on its own recorded steps: starts, durations and the times at which the core received each request.

    What remains is pure scheduling error; a request whose first token or finish is more than ``TOLERANCE_S`` off is an
    exception. Raises ``TraceError`` if the trace lacks what that takes.
    """
    rows = trace.requests
    if trace.steps is None or not len(trace.steps):
        raise TraceError(f"{name}: has no steps table, which --steps measured replays; use --steps model")
    missing = rows["queued_s"].isna() | ~rows["finish_reason"].isin(FINISHED)
    if missing.any():
        first = rows["request_id"][missing].iloc[0]
        raise TraceError(f"{name}: request {first!r} did not finish, or the core's time of receipt is not known")
    order = rows.sort_values(["queued_s", "dispatch_index"], kind="stable")
    present = frozenset(rows["tier"])
    tiers = ranked(rules_in_force(trace.header.tiers, present), present)
    # A policy that is not in front looks at the request's own limit. Without async scheduling a limit ends a request as
    # its length does; with it, what is forced is the engine's limit, and a policy that goes by limits sees that here.
    forced = bool(trace.header.engine_arguments.get("force_lengths"))
    forced &= trace.header.engine.async_scheduling or "place" not in trace.header.admission
    shared = stretches_of(trace) or [()] * len(rows)
    sent = [
        _sent(row, tiers[str(row.tier)], forced, shared[place])
        for place, row in zip(order.index.tolist(), order.itertuples(), strict=True)
    ]
    place = placed_as_recorded(trace, [one.job for one in sent], name)
    steps = trace.steps
    starts = [ticks(start) for start in steps["start_s"].tolist()]
    durations = [ticks(duration) for duration in steps["duration_s"].tolist()]
    lives, composed = on_recorded_steps(trace.header.engine, sent, starts, durations, place)
    simulated = rows.copy()
    for column, attribute in (("scheduled_s", "scheduled"), ("first_token_s", "first_token"), ("finish_s", "finish")):
        times = [getattr(life, attribute) for life in lives]
        seconds = [np.nan if moment is None else moment / TICKS_PER_SECOND for moment in times]
        simulated.loc[order.index, column] = seconds
    simulated.loc[order.index, "preemptions"] = [life.preemptions for life in lives]
    if trace.header.engine.enable_prefix_caching:
        found = pd.Series([life.cached for life in lives], order.index, dtype="Int64")
        simulated["cached_tokens"] = found.mask(found < 0)
    table = pd.DataFrame(composed, columns=[column.name for column in STEP_COLUMNS])
    table[["start_s", "duration_s"]] /= TICKS_PER_SECOND
    header = trace.header.changed(kind="simulated", captured_at=None, load=None)
    both = Trace(header, simulated, typed(table, STEP_COLUMNS, "simulated steps"))
    return Validation(name, trace, both, _exceptions(rows, simulated), _alike(steps, table))


def _sent(row: Any, tier: Tier, forced: bool, shared: Stretches) -> ReceivedJob:
    """The job as the core received it: where lengths were ``forced``, it was told each as the limit of the request."""
    limit = int(row.output_tokens if forced else row.max_tokens)
    request = Request(row.request_id, row.tenant, tier, "", row.arrival_s, row.prompt_tokens, None, limit, None, shared)
    seen = row.predicted_category
    job = Job(request, seen if isinstance(seen, str) else "", 0, 0, index=row.Index, priority=tier.priority)
    stopped = getattr(row, "stop_string", 0)
    return ReceivedJob(job, int(row.output_tokens), ticks(row.queued_s), bool(pd.notna(stopped) and stopped))


def _exceptions(recorded: pd.DataFrame, simulated: pd.DataFrame) -> pd.DataFrame:
    off = pd.DataFrame({"request_id": recorded["request_id"]})
    for name in ("first_token_s", "finish_s"):
        off[f"{name.removesuffix('_s')}_off_s"] = simulated[name] - recorded[name]
    errors = off[["first_token_off_s", "finish_off_s"]].abs()
    return off[~(errors <= TOLERANCE_S).all(axis=1)].reset_index(drop=True)


def _alike(recorded: pd.DataFrame, simulated: pd.DataFrame) -> float:
    """The share of recorded steps that the simulation composed of the same tokens."""
    count = min(len(recorded), len(simulated))
    names = list(COMPOSITION)
    same = (recorded[names].head(count).to_numpy() == simulated[names].head(count).to_numpy()).all(axis=1)
    return float(same.sum() / max(len(recorded), len(simulated)))


def on_model_steps(
    name: str, trace: Trace, profile: Profile, told: OnProgress = no_progress, **switches: Any
) -> Validation:
    """``trace`` beside its simulation as it was measured; arguments and errors as ``simulate_as_measured`` has them."""
    simulated = simulate_as_measured(trace, profile, name, told=told, **switches)
    known = trace.requests["finish_reason"].isin(FINISHED)  # those that did not finish are load, and no measure
    paired = simulated.requests["request_id"].isin(trace.requests["request_id"][known])
    return Validation(name, replace(trace, requests=trace.requests[known]), only(simulated, paired))


def with_noise(
    name: str, trace: Trace, profile: Profile, seeds: int, told: OnProgress = no_progress
) -> list[dict[str, Any]]:
    """For each metric and statistic, the middle 95 % of ``seeds`` simulations with the profile's noise.

    ``told`` hears of the requests simulated, over all of them. Raises as ``on_model_steps`` does, and ``InputError`` if
    the profile knows of no noise.
    """
    wanted = [(metric, stat) for metric in (*LATENCIES, "makespan") for stat in STATS]
    drawn, count = [], len(trace.requests)
    for seed in range(seeds):
        part = after(told, seed * count, seeds * count)
        run = on_model_steps(name, trace, profile, part, noise=True, seed=seed).simulated
        drawn.append([statistic(run, metric, stat) for metric, stat in wanted])
    intervals = []
    for (metric, stat), values in zip(wanted, zip(*drawn, strict=True), strict=True):
        low, high = np.percentile(values, [2.5, 97.5])
        intervals.append({"trace": name, "metric": metric, "stat": stat, "low": float(low), "high": float(high)})
    return intervals


def worst(validations: Sequence[Validation]) -> float:
    """The largest error of all rows, relative and unsigned; NaN where there is none."""
    errors = [abs(row["error"]) for validation in validations for row in validation.rows()]
    known = [error for error in errors if error == error]
    return max(known) if known else float("nan")
