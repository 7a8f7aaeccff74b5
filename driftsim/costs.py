"""What a run costs in energy and money, where the power of the engine or its price is known.

An engine draws its busy power while a request is inside it that was begun and has not ended, its idle power else; both
are means over such times, as a GPU's telemetry gives them. Each replica is an engine. The price counts the whole run.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import Field

from driftsim.errors import InputError
from driftsim.metrics import judged, service_start
from driftsim.records import Record
from driftsim.rows import Columns
from driftsim.slo import AnySlos
from driftsim.statistics import intervals_union
from driftsim.trace.trace import Trace

POWER = "gpu_power_w"  # of the telemetry
KILO = 1000  # output tokens


class Costs(Record):
    """What is known of an engine's power and price; nothing, by default.

    >>> bool(Costs()), bool(Costs(price_per_hour=0.8))
    (False, True)
    """

    idle_watts: float | None = Field(
        default=None,
        ge=0,
        le=1e6,
        description="Power of an engine that serves nobody.",
        json_schema_extra={"unit": "W"},
    )
    busy_watts: float | None = Field(
        default=None, gt=0, le=1e6, description="Power of an engine that serves.", json_schema_extra={"unit": "W"}
    )
    price_per_hour: float | None = Field(
        default=None,
        ge=0,
        le=1e9,
        description="Price of an engine for an hour, busy or not, in whatever currency.",
        json_schema_extra={"unit": "1/h"},
    )

    def __bool__(self) -> bool:
        return self.busy_watts is not None or self.price_per_hour is not None

    def over(self, other: Costs) -> Costs:
        """These, and the ``other`` ones where these do not say. Raises ``InputError`` where both powers cannot be."""
        idle, busy = self.idle_watts, self.busy_watts
        both = Costs(
            idle_watts=other.idle_watts if idle is None else idle,
            busy_watts=other.busy_watts if busy is None else busy,
            price_per_hour=other.price_per_hour if self.price_per_hour is None else self.price_per_hour,
        )
        if idle is not None and both.busy_watts is None:
            raise InputError(f"idle_watts {idle:g} says nothing alone; give busy_watts, too")
        if (idle is not None or busy is not None) and (both.idle_watts or 0.0) > (both.busy_watts or 0.0):
            raise InputError(
                f"idle_watts {both.idle_watts:g} is above busy_watts {both.busy_watts:g}; correct one of the two"
            )
        return both


UNKNOWN = Costs()


def recorded_costs(trace: Trace) -> Costs:
    """The power that the telemetry of a recorded ``trace`` shows: the mean of the samples that were all busy, and idle.

    A sample is busy or idle if the whole time since the sample before was. Nothing is known where no sample is busy.
    """
    samples = trace.telemetry
    if samples is None or POWER not in samples:
        return Costs()
    times, power = samples["time_s"].to_numpy(dtype=float), samples[POWER].to_numpy(dtype=float)
    starts, ends = served(trace)
    spans = [
        (begin, end, watts) for begin, end, watts in zip(times[:-1], times[1:], power[1:], strict=True) if watts >= 0
    ]
    busy, idle = list[float](), list[float]()
    for begin, end, watts in spans:
        covered = intervals_union(np.clip(starts, begin, end), np.clip(ends, begin, end)) if len(starts) else 0.0
        if covered >= 0.999 * (end - begin) > 0:
            busy.append(watts)
        elif covered == 0:
            idle.append(watts)
    if not busy:
        return Costs()
    return Costs(busy_watts=float(np.mean(busy)), idle_watts=float(np.mean(idle)) if idle else None)


def served(trace: Trace, replica: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """When each request that was begun was inside the engine, or inside one ``replica``."""
    rows = Columns.of(trace.requests)
    start, end = service_start(rows), np.asarray(rows["finish_s"], dtype=float)
    known = ~np.isnan(start) & ~np.isnan(end) & (end > start)
    if replica is not None:
        known &= (trace.requests["replica"] == replica).fillna(False).to_numpy(dtype=bool)
    return start[known], end[known]


def cost_summary(trace: Trace, costs: Costs, slos: AnySlos | None = None) -> dict[str, Any]:
    """The metrics of ``glossary.COSTS`` of ``trace`` under ``costs``; none where nothing is known.

    The time is from the run's beginning, 0, to the last end of a request. Where an SLO holds, also what a request costs
    that met its own.
    """
    if not costs:
        return {}
    count = int(trace.header.replicas.get("count", 1))
    numbers = [None] if count == 1 else list(range(count))
    spans = [served(trace, number) for number in numbers]
    busy = sum(intervals_union(*span) if len(span[0]) else 0.0 for span in spans)
    length = max((float(end.max()) for _, end in spans if len(end)), default=0.0)
    tokens = float(np.nansum(trace.requests["output_tokens"].to_numpy(dtype=float, na_value=np.nan)))
    within = judged(trace, slos)
    good = int(within.met.sum()) if within is not None else None
    found: dict[str, Any] = {"busy_s": busy, "busy_share": busy / (length * count) if length else np.nan}
    if costs.busy_watts is not None:
        joules = costs.busy_watts * busy + (costs.idle_watts or 0.0) * (length * count - busy)
        found |= _per("energy", "j", joules, tokens, good)
    if costs.price_per_hour is not None:
        found |= _per("money", "", costs.price_per_hour * length * count / 3600, tokens, good)
    return found


def _per(what: str, unit: str, amount: float, tokens: float, good: int | None) -> dict[str, float]:
    """``amount`` in all, for a thousand output tokens and, where SLOs hold, for a request that met its own."""
    end = f"_{unit}" if unit else ""
    found = {f"{what}{end}": amount, f"{what}_per_kilotoken{end}": KILO * amount / tokens if tokens else np.nan}
    if good is not None:
        found[f"{what}_per_good_request{end}"] = amount / good if good else np.nan
    return found


def costs_line(row: dict[str, Any]) -> str:
    """What a run cost, in a line; ``row`` has its ``cost_summary``.

    >>> costs_line({"busy_share": 0.5, "energy_j": 7200.0, "energy_per_kilotoken_j": 36.0, "money": 0.1,
    ...             "money_per_kilotoken": 0.0005, "money_per_good_request": 0.002})
    'busy 50 % of the time; energy 2 Wh, 36 J per 1,000 output tokens; price 0.1, 0.0005 per 1,000 output tokens, \
0.002 per request within its SLO'
    """
    parts = [f"busy {100 * row['busy_share']:.0f} % of the time"]
    for what, noun, unit, scale, total in (("energy", "energy", "J", 3600, "Wh"), ("money", "price", "", 1, "")):
        end = "_j" if what == "energy" else ""
        if f"{what}{end}" not in row:
            continue
        told = [f"{noun} {row[f'{what}{end}'] / scale:.4g} {total}".rstrip()]
        told.append(f"{row[f'{what}_per_kilotoken{end}']:.4g} {unit}".rstrip() + " per 1,000 output tokens")
        if f"{what}_per_good_request{end}" in row:
            told.append(f"{row[f'{what}_per_good_request{end}']:.4g} {unit}".rstrip() + " per request within its SLO")
        parts.append(", ".join(told))
    return "; ".join(parts)
