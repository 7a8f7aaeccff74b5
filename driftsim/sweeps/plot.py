"""What the figures of a sweep show: a point for each setting, with intervals, and what tells the settings apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from driftsim.figures import label
from driftsim.scheduling.estimators import ESTIMATORS
from driftsim.scheduling.policies import POLICIES, STOCK
from driftsim.sweeps.drawing import Look, first_key, said, second_key, third_key
from driftsim.sweeps.rows import drawn, settings
from driftsim.sweeps.spread import draws_of, half_width

LOADS = {  # what a load axis may be, and its label
    "rate_scale": "factor of the arrival rate (rate_scale)",
    "arrivals.rate": "arrival rate (req/s)",
    "workload.rate": "arrival rate (req/s)",
    "arrivals.users": "users",
    "workload.users": "users",
    "max_in_flight": "max_in_flight (requests)",
}
GIVEN = (
    "trace",
    "workload",
    "profile",
    "rate_scale",
    "arrivals",
    "requests",
    "phase",
)  # not chosen: no front over them
NAMED = ("policy", "estimator")  # whose values speak for themselves
METRICS = {"e2e_mean_s": "mean E2E (s), simulated", "e2e_p99_s": "P99 E2E (s), simulated"}
ORDER = {name: place for place, name in enumerate([STOCK, *POLICIES, *ESTIMATORS])}
MOST_LINES = 4  # styles of line
SIZES = (4.5, 7.0, 9.5)  # of points


class Plot(NamedTuple):
    """The means of each setting with their intervals, and what tells settings apart in a figure."""

    points: pd.DataFrame  # a row a setting: its parameters, each metric with _low and _high, the rate
    colour: str  # the parameter that colour and marker tell; empty: none differs
    line: str  # that which line style and filling tell
    load: str  # that on the load axis
    size: str  # that of the others which the size of a point tells
    rest: list[str]  # the others
    spread: str  # what the bars are, in a sentence; empty where there are none
    bare: str  # why there are none

    def look(self, row: Any) -> Look:
        """How the setting ``row`` is drawn."""
        return Look.of(*(self._place(name, row) for name in (self.colour, self.line)))

    def _place(self, name: str, row: Any) -> int:
        return [said(value) for value in self.values(name)].index(said(row[name])) if name else 0

    def values(self, name: str) -> list[Any]:
        """The values of the parameter ``name``: policies and estimators in our order, others in theirs."""
        known = list(self.points[name].drop_duplicates().sort_values())
        return sorted(known, key=lambda value: ORDER.get(value, len(ORDER))) if name in NAMED else known

    def keys(self) -> list[Line2D]:
        """The entries of the legend."""
        found = []
        for name, key, looks in ((self.colour, first_key, (1, 0)), (self.line, second_key, (0, 1))):
            for number, value in enumerate(self.values(name)) if name else ():
                text = label(said(value)) if name in NAMED else f"{name} = {label(said(value))}"
                found.append(key(Look.of(number * looks[0], number * looks[1]), text))
        return found

    def size_keys(self) -> list[Line2D]:
        """The entries of the legend for what the size of a point tells."""
        values = self.values(self.size) if self.size else []
        return [third_key(SIZES[place], f"{self.size} = {label(said(value))}") for place, value in enumerate(values)]

    def marker_size(self, row: Any) -> float:
        """How large the point of the setting ``row`` is."""
        return SIZES[self._place(self.size, row)]

    def told(self, names: Sequence[str], row: Any) -> str:
        """The parameters ``names`` of the setting ``row``, in words; a load as a rate, where that is known."""
        rate = row["rate"]
        return ", ".join(
            f"{rate:.3g} req/s" if name == "rate_scale" and rate == rate else f"{name} = {label(said(row[name]))}"
            for name in names
        )


def plotted(table: pd.DataFrame) -> Plot:
    """The settings of ``table``, rows of a store, with the mean of each metric over the runs of a setting."""
    axes = settings(table)
    by = axes or ["policy"][: "policy" in table] or ["key"]
    number = pd.to_numeric(table["replication"], errors="coerce") if "replication" in table else 0
    resamples = ~drawn(table) & (number > 0)
    rate = table["recorded_rate"] * table.get("rate_scale", 1.0) if "recorded_rate" in table else np.nan
    marked = table.assign(_resample=resamples, rate=rate)
    points = []
    for values, own in marked.groupby(by, dropna=False, sort=False):
        point: dict[str, Any] = dict(zip(by, values, strict=True)) | {"rate": own["rate"].mean()}
        for metric in METRICS:
            known = own[metric].to_numpy(dtype=float)
            middle = float(np.nanmean(known)) if np.isfinite(known).any() else np.nan
            # On the logarithm, as the axes are; the interval of a latency cannot reach below 0.
            half = half_width(np.log(np.where(known > 0, known, np.nan)), draws_of(own))
            point |= {metric: middle, f"{metric}_low": middle * np.exp(-half), f"{metric}_high": middle * np.exp(half)}
        points.append(point)
    load = next((name for name in LOADS if name in axes), "")
    chosen = [name for name in axes if name != load and name.partition(".")[0] not in GIVEN]
    colour = next((name for name in ("policy", "estimator", *chosen) if name in chosen), "")
    second = [name for name in ("estimator", *chosen) if name in chosen and name != colour]
    line = next((name for name in second if table[name].nunique(dropna=False) <= MOST_LINES), "")
    rest = [name for name in axes if name not in (load, colour, line)]
    sizes = [name for name in rest if name in chosen and table[name].nunique(dropna=False) <= len(SIZES)]
    bare = "one run a point" if len(points) == len(table) else "too few runs for intervals"
    return Plot(pd.DataFrame(points), colour, line, load, [*sizes, ""][0], rest, _spread(marked, by), bare)


def _spread(table: pd.DataFrame, by: list[str]) -> str:
    """What the bars of the figures are, in words; empty where no setting has enough runs for one."""
    runs = table.groupby(by, dropna=False)["_resample"].agg(["size", "sum"]).max()
    if runs["sum"] > 1:
        shared = "settings share these, so that paired differences are surer"
        return f"Bars: 95 % intervals over {runs['sum']:.0f} resamples of the trace; {shared}."
    if runs["size"] > 1 and not runs["sum"]:
        return f"Bars: 95 % intervals of the mean over {runs['size']:.0f} runs of each setting."
    return ""


def some(groups: list[Any], most: int, what: str) -> tuple[list[Any], list[str]]:
    """At most ``most`` of ``groups``, evenly chosen, the first and the last among them; and a sentence if some go."""
    if len(groups) <= most:
        return groups, []
    places = sorted({round(place) for place in np.linspace(0, len(groups) - 1, most)})
    return [groups[place] for place in places], [f"Shown are {len(places)} of {len(groups)} {what}, evenly chosen."]


def groups_of(points: pd.DataFrame, names: list[str]) -> list[pd.DataFrame]:
    """The ``points`` of each combination of ``names``, in order."""
    return [own for _, own in points.groupby(names, dropna=False, sort=True)] if names else [points]


def left_out(groups: list[pd.DataFrame], kept: list[pd.DataFrame], plot: Plot, names: list[str]) -> list[str]:
    """Which of ``groups`` are not among those ``kept``, in a sentence."""
    shown = [id(own) for own in kept]
    gone = [plot.told(names, own.iloc[0]) for own in groups if id(own) not in shown]
    if not gone:
        return []
    more = f" and {len(gone) - 4} more" if len(gone) > 4 else ""
    return [f"Left out: {'; '.join(gone[:4])}{more}."]
