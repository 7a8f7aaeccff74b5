"""What the views of the page draw: a sample of the requests of each setting, and what is counted over all of them.

The page stays small whatever the run: at most ``MOST_ROWS`` requests over all settings, evenly chosen and the same for
each, and ``BINS`` moments of the queues. Counts and percentiles of the whole run are of all requests, made here.
"""

from __future__ import annotations

import base64
from typing import Any

import numpy as np

from driftsim.comparison.comparison import Comparison
from driftsim.comparison.plan import BASELINE, Setting
from driftsim.formatting import without_nan
from driftsim.metrics import e2e, is_finished, service_start, tpot, ttft
from driftsim.rows import Columns
from driftsim.scheduling.accounting import Accounting
from driftsim.text import shown as seen

MOST_ROWS = 48_000  # over all settings
MOST_OF_ONE = 4_000
BINS = 240  # of the queues over time
SHARES = (50, 90, 95, 99)  # percentiles


def view_data(comparison: Comparison, shown: set[Setting]) -> dict[str, Any]:
    """The data of the views, plain values; ``shown`` are the settings that are drawn before anybody chooses."""
    settings = [group[0] for group in comparison.groups]
    columns = {setting: Columns.of(comparison.traces[setting].requests) for setting in settings}
    first = columns[settings[0]]
    named = list(comparison.recorded["per_tenant"])
    code = {name: place for place, name in enumerate(named)}
    tenant = np.array([code.get(str(name), len(named) - 1) for name in first["tenant"]], dtype=np.int64)
    picked = _picked(len(tenant), len(settings))
    ends = [np.nanmax(own["finish_s"], initial=0.0) for own in columns.values()]
    arrivals = [np.nanmax(own["arrival_s"], initial=0.0) for own in columns.values()]
    last = float(max(ends) or max(arrivals) or 1.0)
    unit = comparison.plan.admission.unit
    return {
        "tenants": list(map(seen, named)),
        "tenant": _packed(tenant[picked]),
        "thinned": [len(picked), len(tenant)] if len(picked) < len(tenant) else None,
        "word": "tokens" if unit.unit == "tokenizer" else "words",
        "end": float(max(arrivals)) or 1.0,
        "last": last,
        "settings": [
            {
                "name": seen(str(setting)),
                **setting._asdict(),
                "shown": setting in shown or setting == BASELINE,
                "rows": _rows(columns[setting], unit, picked),
                "exact": _exact(columns[setting], tenant, len(named)),
                "waiting": _depth(columns[setting], tenant, len(named), last, inside=False),
                "inflight": _depth(columns[setting], tenant, len(named), last, inside=True),
            }
            for setting in settings
        ],
    }


def _picked(count: int, settings: int) -> np.ndarray:
    most = min(MOST_OF_ONE, max(200, MOST_ROWS // settings))
    places: np.ndarray = np.arange(count) if count <= most else np.linspace(0, count - 1, most).astype(int)
    return places


def _packed(values: np.ndarray) -> str:
    """Single-precision floats, little-endian, as base64."""
    return base64.b64encode(np.asarray(values, dtype="<f4").tobytes()).decode()


def _latencies(rows: Columns) -> dict[str, np.ndarray]:
    """By name, in seconds; NaN where a request did not finish."""
    done = is_finished(rows)
    return {
        name: np.where(done, np.asarray(of(rows), dtype=float), np.nan)
        for name, of in (("e2e", e2e), ("ttft", ttft), ("tpot", tpot))
    }


def _rows(rows: Columns, unit: Accounting, picked: np.ndarray) -> dict[str, str]:
    observed = np.where(is_finished(rows), unit.lengths(rows["output_tokens"], rows["output_words"]), np.nan)
    wait = service_start(rows) - rows["arrival_s"]
    found = {"arrival": rows["arrival_s"], "estimate": rows["estimate"], "observed": observed, "wait": wait}
    found |= _latencies(rows)
    return {name: _packed(np.asarray(values, dtype=float)[picked]) for name, values in found.items()}


def _exact(rows: Columns, tenant: np.ndarray, tenants: int) -> dict[str, list[list[float | None]]]:
    """By latency: for all tenants and for each, the count, the mean and ``SHARES`` over the whole run."""
    found = {}
    for name, seconds in _latencies(rows).items():
        parts = [seconds, *(seconds[tenant == place] for place in range(tenants))]
        known = [part[~np.isnan(part)] for part in parts]
        found[name] = [
            [len(own), *([float(own.mean()), *map(float, np.percentile(own, SHARES))] if len(own) else [None] * 5)]
            for own in known
        ]
    return found


def _depth(rows: Columns, tenant: np.ndarray, tenants: int, last: float, *, inside: bool) -> list[list[float]]:
    """For all tenants and for each, the mean number of requests that wait, or are ``inside`` the engine, by bin."""
    served, ended = service_start(rows), np.asarray(rows["finish_s"], dtype=float)
    begin = served if inside else np.asarray(rows["arrival_s"], dtype=float)
    end = ended if inside else served
    begun = ~np.isnan(begin)
    end = np.where(np.isnan(end), last, end)
    whole = [_mean_depth(begin[begun], end[begun], last)]
    for place in range(tenants):
        own = begun & (tenant == place)
        whole.append(_mean_depth(begin[own], end[own], last))
    return whole


def _mean_depth(begin: np.ndarray, end: np.ndarray, last: float) -> list[float]:
    """The mean over each bin of how many intervals hold a moment: exact, from the integral at the edges."""
    edges = np.linspace(0.0, last, BINS + 1)

    def integral(moments: np.ndarray) -> np.ndarray:
        """Of the number of ``moments`` that have passed, until each edge."""
        ordered = np.sort(moments)
        passed = np.searchsorted(ordered, edges, side="right")
        sums = np.concatenate([[0.0], np.cumsum(ordered)])
        area: np.ndarray = passed * edges - sums[passed]
        return area

    area = integral(begin) - integral(np.maximum(begin, end))
    return [round(float(value), 2) for value in np.diff(area) / (last / BINS)]


def plain(comparison: Comparison, shown: set[Setting]) -> dict[str, Any]:
    """``view_data`` with null wherever a number does not exist."""
    found: dict[str, Any] = without_nan(view_data(comparison, shown))
    return found
