"""Who gains and who pays: the latencies of each tenant, of whom the largest are named."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from driftsim.metrics import Columns, e2e, is_finished, judged
from driftsim.tenants import largest, parts
from driftsim.trace.trace import Trace
from driftsim.workloads.workload import Workload

LATENCIES = ("e2e_mean_s", "e2e_p50_s", "e2e_p99_s")


def largest_tenants(workload: Workload) -> tuple[str, ...]:
    """The tenants with most requests, those with most first; one that is called ``parts.OTHERS`` counts with these."""
    return largest(workload.table["tenant"])


def tenant_latencies(trace: Trace, named: Sequence[str], phase: str = "all") -> dict[str, dict[str, float]]:
    """Requests, finished ones, and ``LATENCIES`` in seconds of each of the tenants ``named``, or of one ``phase``.

    With SLOs in the trace's header, also what kept them.
    All other tenants count together, as ``parts.OTHERS``.
    """
    rows = Columns.of(trace.requests)
    if phase != "all":
        rows = rows[rows["phase"] == phase]
    done, seconds = is_finished(rows), np.asarray(e2e(rows), dtype=float)
    within = judged(trace, phase=phase)
    return {
        name: _latencies(seconds, own, done) | (within.counts(own) if within else {})
        for name, own in parts(rows["tenant"], named).items()
    }


def _latencies(seconds: np.ndarray, own: np.ndarray, done: np.ndarray) -> dict[str, float]:
    known = seconds[own & done]
    counts = {"requests": int(own.sum()), "finished": len(known)}
    if not len(known):
        return counts | dict.fromkeys(LATENCIES, np.nan)
    median, tail = np.percentile(known, [50, 99])
    return counts | {"e2e_mean_s": float(known.mean()), "e2e_p50_s": float(median), "e2e_p99_s": float(tail)}
