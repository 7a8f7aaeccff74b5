"""The figure of a search for capacity: attainment and P99 against the load, the answer marked with its interval."""

from __future__ import annotations

import math
from typing import Any

import matplotlib
import matplotlib.ticker
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from driftsim.figures import COLOURS, GREY, LINES, STYLE, key, label, legend, panels
from driftsim.sizing.answers import Answer
from driftsim.sizing.run import Sizing
from driftsim.slo import Slo
from driftsim.sweeps.drawing import MARKERS, log_axis, plain_ticks, set_ticks
from driftsim.whose import EVERYBODY

MOST = 8  # curves in one figure
LEAST_SHOWN = 1.5  # of 1 - target, below the target: so much of the attainment axis is always there
PANEL_IN = 2.8
LOWEST_BAR, BAR_STEP = 0.05, 0.055  # heights of the intervals, as shares of a panel's


def draw(sizing: Sizing, answers: list[Answer], slos: tuple[Slo, ...]) -> Figure:
    """Attainment against load, and P99 of the latency that the first SLO limits."""
    shown = answers[:MOST]
    limit = next((name for slo in slos for name in slo.limits if name != "itl"), "e2e")
    with matplotlib.rc_context(STYLE):
        figure, (left, right) = panels(1, 2, height=2.9 + 0.17 * (1 + len(shown) // 3))
        for place, answer in enumerate(shown):
            _curves(left, right, answer, place, limit)
        _target(left, sizing)
        _limits(right, slos, limit)
        unit = {"scale": "load (x the rate)", "rate": "load (requests/s)", "users": "users"}[sizing.axis.kind]
        for axis in (left, right):
            axis.set_xlabel(unit)
            _load_axis(axis, shown)
        left.set_ylabel("within the SLO (%)")
        right.set_ylabel(f"P99 {limit.upper()} (s)")
        values = np.array([one.p99[limit] for answer in shown for one in answer.tried], dtype=float)
        log_axis(right, "y", values, np.array([]), PANEL_IN)
        keys = [
            key(LINES[place % 4], label(str(answer.case)), COLOURS[place % 7]) for place, answer in enumerate(shown)
        ]
        legend(figure, [*keys, key("o", "highest load that holds; below, with its 95 % interval")])
        more = f" Left out: {len(answers) - MOST} more." if len(answers) > MOST else ""
        figure.supxlabel(
            f"Simulated; P99 of all requests that finished; dotted: the target, and the limit.{more}",
            x=0.01,
            ha="left",
            fontsize=7,
            color=GREY,
        )
    return figure


def _curves(left: Axes, right: Axes, answer: Answer, place: int, limit: str) -> None:
    """One case in both panels: its curves, and its answer with the interval."""
    look: dict[str, Any] = {"color": COLOURS[place % 7], "linestyle": LINES[place % 4]}
    loads = [one.load for one in answer.tried]
    left.plot(loads, [100 * one.attained.value for one in answer.tried], linewidth=1.2, **look)
    right.plot(loads, [one.p99[limit] for one in answer.tried], linewidth=1.2, **look)
    if answer.state != "found":
        return
    at, (_, low, high) = answer.at, answer.interval
    marker: dict[str, Any] = {"marker": MARKERS[place % len(MARKERS)], "markersize": 5, "markerfacecolor": "white"}
    for axis, height in ((left, 100 * at.attained.value), (right, at.p99[limit])):
        axis.plot([at.load], [height], color=look["color"], zorder=3, **marker)
    height, across = LOWEST_BAR + place * BAR_STEP, left.get_xaxis_transform()
    ends = [end for end in (low, high) if not math.isnan(end)]
    if ends:
        bar = [min([at.load, *ends]), max([at.load, *ends])]
        left.plot(bar, [height] * 2, color=look["color"], linewidth=1.6, transform=across)
        left.plot([at.load], [height], color=look["color"], transform=across, **marker)


def _target(axis: Axes, sizing: Sizing) -> None:
    """The target as a line; the axis ends a little below what a reader looks at, since curves fall to nothing."""
    target = sizing.plan.target
    axis.axhline(100 * target, color="#888888", linewidth=0.9, linestyle=":")
    axis.set_ylim(
        100 * max(0.0, min(target - LEAST_SHOWN * (1 - target), target - 0.1)), 100 + 4 * (1 - max(0.0, target - 0.1))
    )
    axis.yaxis.set_major_formatter(matplotlib.ticker.FuncFormatter(lambda value, _: f"{value:g}"))


def _limits(axis: Axes, slos: tuple[Slo, ...], limit: str) -> None:
    """The limits on the latency that is shown, where they are everybody's."""
    for slo in slos:
        if slo.who == EVERYBODY and limit in slo.limits:
            axis.axhline(slo.limits[limit], color="#888888", linewidth=0.9, linestyle=":")


def _load_axis(axis: Axes, answers: list[Answer]) -> None:
    """Loads on a logarithmic axis, since they were tried by factors; where they lie near each other, on a plain one."""
    loads = np.array([one.load for answer in answers for one in answer.tried])
    low, high = float(loads.min()), float(loads.max())
    if high / low >= 4:
        log_axis(axis, "x", loads, np.array([]), PANEL_IN)
        return
    margin = 0.05 * (high - low) or 0.1 * high
    axis.set_xlim(low - margin, high + margin)
    set_ticks(axis.xaxis, [tick for tick in plain_ticks(low, high) if low <= tick <= high], PANEL_IN)
