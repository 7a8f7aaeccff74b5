"""The figure of a valuation: the change of the mean latency against the error of predictions, a line a load."""

from __future__ import annotations

import math
from typing import Any

import matplotlib
import matplotlib.ticker
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from driftsim.comparison.plan import Setting
from driftsim.figures import COLOURS, GREY, LINES, STYLE, key, label, panels
from driftsim.sweeps.drawing import MARKERS, legend
from driftsim.worth.answers import Answers
from driftsim.worth.plan import Limit
from driftsim.worth.run import Cell
from driftsim.worth.wording import BINDS, busiest, first_policy

MOST_LOADS = 5
SHADE = 0.15  # of an interval
LARGE: Any = {"font.size": 11, "axes.titlesize": 11}  # to be read on a phone
FACTORS = (1, 2, 5, 10, 20, 50, 100, 1000, 10_000)  # by which predictions may be off, where the axis has ticks


def draw(answers: Answers) -> Figure:
    """A panel for each limit: the first policy with noisy estimates by their error, and the real estimators."""
    plan = answers.valuation.plan
    limits = list(answers.valuation.engines)
    loads = plan.loads[-MOST_LOADS:]
    real = [name for name in plan.predictors if plan.is_real(name)]
    with matplotlib.rc_context({**STYLE, **LARGE}):
        figure, axes = panels(1, len(limits), height=3.9, sharey=True, sharex=True)
        for axis, limit in zip(axes, limits, strict=True):
            _panel(answers, axis, limit, loads, real)
        axes[0].set_ylabel("mean latency against FIFO (%)")
        told = busiest(answers)
        band: Any = {"color": COLOURS[loads.index(told) % 7], "alpha": SHADE, "linewidth": 7}
        keys = [key(LINES[place % 4], f"load {load:g}", COLOURS[place % 7]) for place, load in enumerate(loads)]
        keys += [Line2D([], [], label=f"95 % interval, load {told:g}", **band)]
        keys += [key(MARKERS[place % len(MARKERS)], label(name)) for place, name in enumerate(real)]
        legend(figure, keys, size=10)
        figure.supxlabel("predictions are off by a factor of (1: perfect; lines: the truth, blurred)", fontsize=11)
    return figure


def _panel(answers: Answers, axis: Axes, limit: Limit, loads: tuple[float, ...], real: list[str]) -> None:
    """One limit: a line for each load with its interval, and the real estimators where they are."""
    plan, policy = answers.valuation.plan, first_policy(answers)
    for place, load in enumerate(loads):
        cell, colour = Cell(limit, load), COLOURS[place % 7]
        errors = [answers.error(cell, Setting(policy, name)) for name in plan.noisy.values()]
        curve = 100 * np.array(answers.curve(cell, policy))
        axis.plot(errors, curve[:, 0], color=colour, linestyle=LINES[place % 4], linewidth=1.6)
        if load == busiest(answers):
            axis.fill_between(errors, curve[:, 1], curve[:, 2], color=colour, alpha=SHADE, linewidth=0)
            for number, name in enumerate(real):
                own = Setting(policy, name)
                axis.plot(
                    [answers.error(cell, own)], [100 * answers.change(cell, own).value], linestyle="", color=colour,
                    marker=MARKERS[number % len(MARKERS)], markerfacecolor="white", markersize=6, zorder=3,
                )  # fmt: skip
    axis.axhline(0, color=GREY, linewidth=1.0)
    widest = max(axis.get_xlim()[1], 1e-3)
    axis.set_xticks([math.log(factor) for factor in FACTORS if math.log(factor) <= widest])
    axis.xaxis.set_major_formatter(matplotlib.ticker.FuncFormatter(lambda value, _: f"{math.exp(value):.3g}"))
    axis.set_title(f"{BINDS[limit]}: {label(policy)}", loc="left")
    axis.annotate("as FIFO", (1.0, 0), xycoords=("axes fraction", "data"), xytext=(0, 2), textcoords="offset points",
                  ha="right", va="bottom", color=GREY, fontsize=10)  # fmt: skip
