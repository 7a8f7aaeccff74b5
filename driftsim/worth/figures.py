"""The figure of a valuation: the change of the mean latency against the error of predictions, a line a load."""

from __future__ import annotations

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from driftsim.comparison.plan import Setting
from driftsim.figures import COLOURS, GREY, LINES, STYLE, key, label, legend, panels
from driftsim.sweeps.drawing import MARKERS
from driftsim.worth.answers import Answers
from driftsim.worth.plan import Limit
from driftsim.worth.run import Cell
from driftsim.worth.wording import BINDS, busiest, first_policy

MOST_LOADS = 5
MARGIN = 0.06  # of an axis, beyond what is drawn


def draw(answers: Answers) -> Figure:
    """A panel for each limit: the best policy with noisy estimates by their error, and the real estimators."""
    plan = answers.valuation.plan
    limits = list(answers.valuation.engines)
    loads = plan.loads[-MOST_LOADS:]
    real = [name for name in plan.predictors if plan.is_real(name)]
    with matplotlib.rc_context(STYLE):
        figure, axes = panels(1, len(limits), height=3.4, sharey=True, sharex=True)
        for axis, limit in zip(axes, limits, strict=True):
            _panel(answers, axis, limit, loads, real)
        axes[0].set_ylabel("mean latency against FIFO (%)")
        keys = [key(LINES[place % 4], f"load {load:g}", COLOURS[place % 7]) for place, load in enumerate(loads)]
        keys += [key(MARKERS[place % len(MARKERS)], label(name)) for place, name in enumerate(real)]
        legend(figure, keys)
        figure.supxlabel("how far predictions are off: mean of |ln(predicted / true)|, 0 = perfect", fontsize=9)
    return figure


def _panel(answers: Answers, axis: Axes, limit: Limit, loads: tuple[float, ...], real: list[str]) -> None:
    """One limit: a line for each load with its interval, and the real estimators where they are."""
    plan, policy = answers.valuation.plan, first_policy(answers, limit)
    for place, load in enumerate(loads):
        cell, colour = Cell(limit, load), COLOURS[place % 7]
        errors = [answers.error(cell, Setting(policy, name)) for name in plan.noisy.values()]
        curve = 100 * np.array(answers.curve(cell, policy))
        axis.plot(errors, curve[:, 0], color=colour, linestyle=LINES[place % 4], linewidth=1.6)
        if load == busiest(answers):
            axis.fill_between(errors, curve[:, 1], curve[:, 2], color=colour, alpha=0.15, linewidth=0)
            for number, name in enumerate(real):
                own = Setting(policy, name)
                axis.plot(
                    [answers.error(cell, own)], [100 * answers.change(cell, own).value], linestyle="", color=colour,
                    marker=MARKERS[number % len(MARKERS)], markerfacecolor="white", markersize=6, zorder=3,
                )  # fmt: skip
    axis.axhline(0, color=GREY, linewidth=1.0)
    axis.set_title(f"{BINDS[limit]}: {label(policy)}", loc="left")
    axis.annotate("FIFO", (1.0, 0), xycoords=("axes fraction", "data"), xytext=(0, 2), textcoords="offset points",
                  ha="right", va="bottom", color=GREY, fontsize=8)  # fmt: skip
