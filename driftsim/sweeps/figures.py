"""Figures of a sweep: a metric against the load by policy, mean against P99, and gain over two axes."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from driftsim.figures import COLOURS, LINES, STYLE, key, legend, panels, plain_log_axis, save
from driftsim.sweeps.rows import varying

LOADS = ("rate_scale", "arrivals.rate", "arrivals.users", "max_in_flight")
SMALL = 5  # policies on one panel that are told apart by colour and line


def save_figures(table: pd.DataFrame, folder: Path) -> list[Path]:
    """Write every figure that ``table`` can show, as SVG and PNG. Raises ``OSError``."""
    folder.mkdir(parents=True, exist_ok=True)
    axes = [name for name in varying(table) if name not in ("replication", "seed")]
    with matplotlib.rc_context(STYLE):
        figures = {"pareto": pareto(table, axes)}
        loads = [name for name in LOADS if name in axes]
        if loads:
            figures["load"] = against_load(table, loads[0], _lines(axes, loads[0]))
        numbers = [name for name in axes if pd.api.types.is_numeric_dtype(table[name])]
        others = [name for name in axes if name not in numbers]
        if "policy" in axes and (len(numbers) > 1 or (numbers and len(others) > 1)):
            down = numbers[0]
            across = numbers[1] if len(numbers) > 1 else next(name for name in others if name != "policy")
            figures["gain"] = gain(table, down, across)
        return [save(figure, folder, name) for name, figure in figures.items()]


def _lines(axes: list[str], load: str) -> list[str]:
    return [name for name in ("policy", "estimator") if name in axes and name != load]


def against_load(table: pd.DataFrame, load: str, by: list[str]) -> Figure:
    """Mean and P99 of E2E against the load, a line for each policy and estimator; means over replications."""
    figure, axes = panels(1, 2, 2.8)
    keys = []
    groups = table.groupby(by, sort=False) if by else [((), table)]
    for number, (name, own) in enumerate(groups):
        label = "/".join(map(str, name)) if isinstance(name, tuple) else str(name)
        colour, line = COLOURS[number % len(COLOURS)], LINES[number // len(COLOURS) % len(LINES)]
        keys.append(key(line, label, colour))
        for axis, metric in zip(axes, ("e2e_mean_s", "e2e_p99_s"), strict=True):
            means = own.groupby(load)[metric].mean()
            axis.plot(means.index, means, line, color=colour, marker="o", markersize=3, linewidth=1.2)
    for axis, label in zip(axes, ("mean E2E (s), simulated", "P99 E2E (s), simulated"), strict=True):
        axis.set_xlabel(load)
        axis.set_ylabel(label)
        axis.set_yscale("log")
        plain_log_axis(axis.yaxis)
    for begin in range(0, len(keys), SMALL):
        legend(figure, keys[begin : begin + SMALL])
    return figure


def pareto(table: pd.DataFrame, axes: list[str]) -> Figure:
    """Mean against P99 of E2E, a point for each setting; those that no other beats in both are joined by a line."""
    figure, [axis] = panels(1, 1, 3.4)
    means = table.groupby(axes or ["policy"], dropna=False)[["e2e_mean_s", "e2e_p99_s"]].mean().reset_index()
    policies = list(dict.fromkeys(table["policy"]))
    for number, policy in enumerate(policies):
        own = means[means["policy"] == policy] if "policy" in means else means
        colour = COLOURS[number % len(COLOURS)]
        axis.plot(own["e2e_mean_s"], own["e2e_p99_s"], "o", markersize=4, color=colour)
    front = means.sort_values("e2e_mean_s")
    front = front[front["e2e_p99_s"].cummin() == front["e2e_p99_s"]]
    axis.step(front["e2e_mean_s"], front["e2e_p99_s"], where="post", color="#444444", linewidth=0.8)
    for scale, ticks in ((axis.set_xscale, axis.xaxis), (axis.set_yscale, axis.yaxis)):
        scale("log")
        plain_log_axis(ticks)
    axis.set_xlabel("mean E2E (s), simulated")
    axis.set_ylabel("P99 E2E (s), simulated")
    keys = [key("o", str(policy), COLOURS[number % len(COLOURS)]) for number, policy in enumerate(policies)]
    legend(figure, [*keys, key("-", "not beaten in both")])
    return figure


def gain(table: pd.DataFrame, down: str, across: str, metric: str = "e2e_mean_s") -> Figure:
    """What the best policy gains against FIFO in the mean E2E, over two axes, in percent."""
    means = table.groupby([down, across, "policy"])[metric].mean().unstack("policy")
    base = means["fifo"] if "fifo" in means else means.iloc[:, 0]
    gained = (100 * (means.min(axis=1) / base - 1)).unstack(across)
    figure, [axis] = panels(1, 1, 3.2)
    percent = gained.to_numpy(dtype=float)
    image = axis.imshow(percent, aspect="auto", cmap="cividis", origin="lower")
    axis.grid(visible=False)
    for ticks, values in ((axis.set_xticks, gained.columns), (axis.set_yticks, gained.index)):
        ticks(np.arange(len(values)), [f"{value:g}" if isinstance(value, float) else str(value) for value in values])
    axis.set_xlabel(across)
    axis.set_ylabel(down)
    middle = float(np.nanmean(percent))
    for row, cells in enumerate(percent):
        for column, value in enumerate(cells):
            colour = "white" if value < middle else "black"
            axis.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=8, color=colour)
    figure.colorbar(image, ax=axis, label="best policy against FIFO, mean E2E (%)")
    return figure
