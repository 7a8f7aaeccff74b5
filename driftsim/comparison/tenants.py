"""Who gains and who pays: the latencies of each tenant, of whom the largest are named."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from driftsim.metrics import Columns, e2e, is_finished
from driftsim.trace.trace import Trace
from driftsim.workloads.workload import Workload

MOST = 12  # tenants that are told apart; the others count together
OTHERS = "other tenants"
LATENCIES = ("e2e_mean_s", "e2e_p50_s", "e2e_p99_s")


def largest_tenants(workload: Workload) -> tuple[str, ...]:
    """The tenants with most requests, those with most first; one that is called ``OTHERS`` counts with these."""
    counts = workload.table["tenant"].astype(str).value_counts(sort=False)
    order = sorted((name for name in counts.index if name != OTHERS), key=lambda name: (-counts[name], name))
    return tuple(order if len(order) <= MOST else order[: MOST - 1])


def tenant_latencies(trace: Trace, named: Sequence[str], phase: str = "all") -> dict[str, dict[str, float]]:
    """Requests, finished ones, and ``LATENCIES`` in seconds of each of the tenants ``named``, or of one ``phase``.

    All other tenants count together, as ``OTHERS``.
    """
    rows = Columns.of(trace.requests)
    if phase != "all":
        rows = rows[rows["phase"] == phase]
    tenants = np.asarray(rows["tenant"], dtype=object).astype(str)
    done, seconds = is_finished(rows), np.asarray(e2e(rows), dtype=float)
    found = {name: _latencies(seconds, tenants == name, done) for name in named}
    rest = ~np.isin(tenants, list(named))
    if rest.any():
        found[OTHERS] = _latencies(seconds, rest, done)
    return found


def _latencies(seconds: np.ndarray, own: np.ndarray, done: np.ndarray) -> dict[str, float]:
    known = seconds[own & done]
    counts = {"requests": int(own.sum()), "finished": len(known)}
    if not len(known):
        return counts | dict.fromkeys(LATENCIES, np.nan)
    median, tail = np.percentile(known, [50, 99])
    return counts | {"e2e_mean_s": float(known.mean()), "e2e_p50_s": float(median), "e2e_p99_s": float(tail)}
