"""Figures of a sweep: latency against the load, mean against P99 at each load, and gain over two axes.

No figure takes a mean over what differs between settings: lines, panels and points tell it apart, or a footnote says
what is left out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from driftsim.errors import InputError
from driftsim.figures import GREY, STYLE, label, panels, save
from driftsim.files import Mark, whole_folder
from driftsim.sweeps.drawing import (
    LINE,
    WIDTH,
    Look,
    footnote,
    legend,
    log_axis,
    said,
    set_ticks,
    title,
)
from driftsim.sweeps.plot import GIVEN, LOADS, METRICS, Plot, groups_of, left_out, plotted, some
from driftsim.sweeps.rows import settings

FILES = [f"{name}.{suffix}" for name in ("pareto", "load", "gain") for suffix in ("svg", "png")]
MARK = Mark("pareto.svg", f'width="{72 * WIDTH:g}pt"')  # which every folder has
MOST_PANELS = 6
MOST_ROWS = 3  # of panels against the load
COLUMNS_OF_PARETO = 3


def save_figures(table: pd.DataFrame, folder: Path) -> list[Path]:
    """Write every figure that ``table`` can show, as SVG and PNG, all or none.

    Earlier figures there are replaced. Raises ``InputError`` if no run has an end-to-end latency or the folder holds
    anything else, ``OSError`` if the files cannot be written.
    """
    if not set(METRICS) <= set(table) or table[list(METRICS)].isna().all(axis=None):
        raise InputError("there is nothing to draw: no run has an end-to-end latency")
    plot = plotted(table)
    with matplotlib.rc_context(STYLE):
        figures = {"pareto": pareto(plot)}
        if plot.load:
            figures["load"] = against_load(plot)
        axes = settings(table)
        numbers = [name for name in axes if pd.api.types.is_numeric_dtype(table[name])]
        others = [name for name in axes if name not in (*numbers, "policy")]
        if "policy" in axes and numbers and len(numbers) + len(others) > 1:
            figures["gain"] = gain(plot, numbers[0], [*numbers[1:], *others][0])
        with whole_folder(folder, FILES, MARK) as building:
            for name, figure in figures.items():
                save(figure, building, name)
    return [folder / f"{name}.svg" for name in figures]


def against_load(plot: Plot) -> Figure:
    """Mean and P99 of E2E against the load, a line for each policy and estimator, a row of panels for all else."""
    groups = groups_of(plot.points, plot.rest)
    kept, said_so = some(groups, MOST_ROWS, f"settings of {', '.join(plot.rest)}")
    said_so += left_out(groups, kept, plot, plot.rest)
    figure, axes = panels(len(kept), 2, 2.6 * len(kept) + LINE * (1 + len(plot.keys()) // 6))
    inches = (WIDTH / 2 - 0.8, 1.9)
    for number, own in enumerate(kept):
        x, unit = _loads(own, plot.load)
        for axis, (metric, name) in zip(axes[2 * number : 2 * number + 2], METRICS.items(), strict=True):
            _draw_lines(axis, plot, own.assign(_x=x), metric)
            axis.set_xlabel(unit)
            axis.set_ylabel(name if plot.spread else f"{name},\n{plot.bare}")
            log_axis(axis, "y", own[metric].to_numpy(), _ends(own, metric), inches[1])
            _load_axis(axis, x.to_numpy(dtype=float), inches[0])
            if plot.rest:
                title(axis, plot.told(plot.rest, own.iloc[0]), inches[0])
    legend(figure, plot.keys())
    footnote(figure, [*([plot.spread] if plot.spread else []), *said_so])
    return figure


def _loads(own: pd.DataFrame, load: str) -> tuple[pd.Series, str]:
    """Where the points ``own`` stand on the load axis, and its label: the arrival rate, where it is known."""
    if load == "rate_scale" and own["rate"].notna().all():
        return own["rate"], "arrival rate (req/s)"
    return own[load], LOADS[load]


def _load_axis(axis: Axes, values: np.ndarray, inches: float) -> None:
    """Ticks of the load axis, at the loads themselves where these have room; logarithmic where they lie far apart."""
    known = np.unique(values[np.isfinite(values)])
    if not len(known):
        return
    far = _lie_far_apart(known)
    if far:
        axis.set_xscale("log")
        axis.set_xlim(known[0] / 1.2, known[-1] * 1.2)
    else:
        margin = 0.08 * (known[-1] - known[0]) or 0.5 * abs(known[0]) or 1.0
        axis.set_xlim(known[0] - margin, known[-1] + margin)
    set_ticks(axis.xaxis, list(known), inches, np.log if far else np.asarray)


def _lie_far_apart(values: np.ndarray) -> bool:
    """Whether loads call for a logarithmic axis."""
    known = np.unique(values[np.isfinite(values)])
    return len(known) > 2 and bool(known[0] > 0 and known[-1] / known[0] >= 8)


def _ends(own: pd.DataFrame, metric: str) -> np.ndarray:
    return own[[f"{metric}_low", f"{metric}_high"]].to_numpy(dtype=float).ravel()


def _draw_lines(axis: Axes, plot: Plot, own: pd.DataFrame, metric: str) -> None:
    """The lines of one panel; their points stand a little aside of each other, so that all bars are seen."""
    lines = _lines(own, [name for name in (plot.colour, plot.line) if name])
    scale, back = (np.log, np.exp) if _lie_far_apart(own["_x"].to_numpy(dtype=float)) else (np.asarray, np.asarray)
    gaps = np.diff(scale(np.unique(own["_x"].dropna())))
    step = min(0.4 * gaps.min() / len(lines), 0.01 * gaps.sum()) if plot.spread and len(gaps) else 0.0
    for number, line in enumerate(lines):
        look, line = plot.look(line.iloc[0]), line.sort_values("_x")
        x = back(scale(line["_x"].to_numpy(dtype=float)) + step * (number - (len(lines) - 1) / 2))
        axis.plot(x, line[metric], **look.style, markersize=4.5, linewidth=1.2)
        _bars(axis, look, x, line[metric], y=line, metric=metric)


def _lines(own: pd.DataFrame, names: list[str]) -> list[pd.DataFrame]:
    return [line for _, line in own.groupby(names, dropna=False, sort=False)] if names else [own]


def _bars(axis: Axes, look: Look, x: np.ndarray, middle: pd.Series, y: pd.DataFrame, metric: str) -> None:
    """The intervals of ``metric``, as vertical bars at ``x``."""
    ends = np.abs([middle - y[f"{metric}_low"], y[f"{metric}_high"] - middle])
    if np.isfinite(ends).any():
        axis.errorbar(x, middle, yerr=ends, fmt="none", ecolor=look.colour, elinewidth=0.7, alpha=0.5)


def pareto(plot: Plot) -> Figure:
    """Mean against P99 of E2E, a point for each setting, a panel for each load and whatever else was given.

    Settings that no other beats in both are joined by a line.
    """
    given = [name for name in (plot.load, *plot.rest) if name and name.partition(".")[0] in GIVEN]
    order = [name for name in given if name != plot.load] + [name for name in given if name == plot.load]
    groups = groups_of(plot.points, order)
    kept, said_so = some(groups, MOST_PANELS, f"settings of {', '.join(order)}")
    said_so += left_out(groups, kept, plot, order)
    across = min(COLUMNS_OF_PARETO, len(kept))
    down = -(-len(kept) // across)
    height = {1: 3.4, 2: 2.8, 3: 2.3}[across] * down + LINE * (1 + len(plot.keys()) // 6)
    figure, axes = panels(down, across, height)
    inches = (WIDTH / across - 0.8, height / down - 0.9)
    for axis, own in zip(axes, kept, strict=False):
        _draw_points(axis, plot, own)
        for which, metric in zip("xy", METRICS, strict=True):
            log_axis(axis, which, own[metric].to_numpy(), _ends(own, metric), inches["xy".index(which)], reach=1.25)
        axis.set_xlabel("mean E2E (s), simulated")
        axis.set_ylabel("P99 E2E (s), simulated")
        if order:
            title(axis, plot.told(order, own.iloc[0]), inches[0])
    for axis in axes[len(kept) :]:
        axis.set_axis_off()
    legend(
        figure, [*plot.keys(), *plot.size_keys(), Line2D([], [], color=GREY, linewidth=0.8, label="not beaten in both")]
    )
    alike = [name for name in plot.rest if name not in (*order, plot.size)]
    said_so += [f"Points that look alike differ in {', '.join(alike)}."] if alike else []
    footnote(figure, [plot.spread or f"{plot.bare.capitalize()}.", *said_so])
    return figure


def _draw_points(axis: Axes, plot: Plot, own: pd.DataFrame) -> None:
    """The settings of one panel, with their intervals in both directions, and the front."""
    mean, tail = METRICS
    front = own.dropna(subset=[mean, tail]).sort_values([mean, tail])
    front = front[front[tail].cummin() == front[tail]]
    axis.step(front[mean], front[tail], where="post", color=GREY, linewidth=0.8, zorder=1)
    for _, row in own.iterrows():
        look = plot.look(row)
        for x, y in (((f"{mean}_low", f"{mean}_high"), (tail, tail)), ((mean, mean), (f"{tail}_low", f"{tail}_high"))):
            ends = [row[name] for name in (*x, *y)]
            if np.isfinite(ends).all():
                axis.plot(ends[:2], ends[2:], color=look.colour, linewidth=0.6, alpha=0.3, zorder=2)
        axis.plot(row[mean], row[tail], **look.style, markersize=plot.marker_size(row), zorder=3)


def gain(plot: Plot, down: str, across: str, metric: str = "e2e_mean_s") -> Figure:
    """What the best setting gains against FIFO at its best in the mean E2E, over two parameters, in percent.

    A panel for each combination of what else was given. Without FIFO, the first policy stands in its place.
    """
    given = [name for name in (plot.load, *plot.rest) if name.partition(".")[0] in GIVEN and name not in (down, across)]
    given = [name for name in given if name]
    groups = groups_of(plot.points, given)
    kept, said_so = some(groups, MOST_PANELS, f"settings of {', '.join(given)}")
    said_so += left_out(groups, kept, plot, given)
    policies = plot.values("policy")
    base = "fifo" if "fifo" in policies else policies[0]
    columns = min(2, len(kept))
    figure, axes = panels(-(-len(kept) // columns), columns, 3.2 * -(-len(kept) // columns))
    labels = [_label(name, kept) for name in (down, across)]
    kept = [_with_rates(own) for own in kept]
    tables = [_gained(own, down, across, metric, base) for own in kept]
    known = np.concatenate([table.to_numpy(dtype=float).ravel() for table in tables])
    known = known[np.isfinite(known)]
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 0.0)
    for axis, own, table in zip(axes, kept, tables, strict=False):
        image = _heat(axis, table, low, high, WIDTH / columns - 1.3)
        axis.set_xlabel(labels[1])
        axis.set_ylabel(labels[0])
        if given:
            title(axis, plot.told(given, own.iloc[0]), WIDTH / columns - 1.3)
    for axis in axes[len(kept) :]:
        axis.set_axis_off()
    name = "FIFO" if base == "fifo" else said(base)
    figure.colorbar(image, ax=axes, label=f"mean E2E against {name} (%)")
    footnote(figure, [f"In each cell the best setting, against the best of {name}.", *said_so])
    return figure


def _rates_known(points: pd.DataFrame) -> bool:
    """Whether each factor of the arrival rate is one rate, in requests a second, among ``points``."""
    known = "rate_scale" in points and points["rate"].notna().all()
    return bool(known and (points.groupby("rate_scale")["rate"].nunique() == 1).all())


def _with_rates(own: pd.DataFrame) -> pd.DataFrame:
    return own.assign(rate_scale=own["rate"]) if _rates_known(own) else own


def _label(name: str, panels: list[pd.DataFrame]) -> str:
    rates = name == "rate_scale" and all(map(_rates_known, panels))
    return "arrival rate (req/s)" if rates else LOADS.get(name, name)


def _gained(own: pd.DataFrame, down: str, across: str, metric: str, base: Any) -> pd.DataFrame:
    """By ``down`` and ``across``, the change in percent from the best setting of policy ``base`` to the best of all."""
    names = [own[down].map(said), own[across].map(said)]
    best, ours = own.groupby(names, sort=False)[metric].min(), own[own["policy"] == base]
    theirs = ours.groupby([column[ours.index] for column in names], sort=False)[metric].min()
    order = [[said(value) for value in own[name].drop_duplicates().sort_values()] for name in (down, across)]
    gained = (100 * (best / theirs.reindex(best.index) - 1)).unstack()
    ordered: pd.DataFrame = gained.reindex(index=order[0], columns=order[1])
    return ordered


def _heat(axis: Axes, table: pd.DataFrame, low: float, high: float, inches: float) -> Any:
    """One heat map, with a number in each cell that has one; labels that have no room are left out."""
    percent = table.to_numpy(dtype=float)
    image = axis.imshow(percent, aspect="auto", cmap="cividis", origin="lower", vmin=low, vmax=high)
    axis.grid(visible=False)
    room = inches / max(1, len(table.columns))
    columns, rows = list(map(label, table.columns)), list(map(label, table.index))
    every = max(1, int(np.ceil(max(map(len, columns), default=1) * 0.085 / room)))
    axis.set_xticks(np.arange(len(columns))[::every], columns[::every])
    skip = max(1, int(np.ceil(len(table.index) * 0.19 / 2.4)))
    axis.set_yticks(np.arange(len(rows))[::skip], rows[::skip])
    if room < 0.3 or len(table.index) > 14:
        return image
    for row, cells in enumerate(percent):
        for column, value in enumerate(cells):
            if np.isfinite(value):
                colour = "white" if value < (low + high) / 2 else "black"
                axis.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=8, color=colour)
    return image
