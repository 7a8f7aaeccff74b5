"""Figures of a validation: a measured run and its simulation, side by side."""

from __future__ import annotations

import matplotlib
import matplotlib.ticker
import numpy as np
from matplotlib.figure import Figure

from driftsim.figures import COLOURS, GREY, STYLE, key, legend, panels, plain_log_axis
from driftsim.latency.profile import Profile
from driftsim.metrics import LATENCIES, queue_depth
from driftsim.trace.trace import Trace
from driftsim.validation.validation import LATENCY

PERCENTS = np.arange(1, 100)
WIDE = 5.0  # a ratio from which on an axis is logarithmic


def validation_figures(recorded: Trace, simulated: Trace, profile: Profile | None) -> dict[str, Figure]:
    """All figures, by name; the residuals only where steps were recorded and a profile says how long they should be."""
    with matplotlib.rc_context(STYLE):
        figures = {"quantiles": quantiles(recorded, simulated), "concurrency": concurrency(recorded, simulated)}
        if profile is not None and recorded.steps is not None and len(recorded.steps):
            figures["residuals"] = residuals(recorded, profile)
        return figures


def quantiles(recorded: Trace, simulated: Trace) -> Figure:
    """Each percentile from 1 to 99, simulated against measured; on the diagonal they agree."""
    figure, axes = panels(1, len(LATENCIES), 2.5)
    for axis, metric in zip(axes, LATENCIES, strict=True):
        pair = [LATENCY[metric](trace.finished).dropna().to_numpy(dtype=float) for trace in (recorded, simulated)]
        unit, scale = ("ms", 1e3) if metric == "tpot" else ("s", 1.0)
        axis.set_title(f"{metric.upper()} ({unit})", loc="left")
        axis.set_xlabel("measured")
        if not all(len(values) for values in pair):
            continue
        measured, modelled = (scale * np.percentile(values, PERCENTS) for values in pair)
        both = np.concatenate([measured, modelled])
        ends = [both.min(), both.max()]
        axis.plot(ends, ends, color=GREY, linewidth=0.8)
        axis.plot(measured, modelled, "o", markersize=2.5, color=COLOURS[0])
        if ends[1] > WIDE * ends[0]:
            axis.set_xscale("log")
            axis.set_yscale("log")
            plain_log_axis(axis.xaxis)
            plain_log_axis(axis.yaxis)
        else:
            axis.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(4))
            axis.yaxis.set_major_locator(matplotlib.ticker.MaxNLocator(4))
    axes[0].set_ylabel("simulated")
    legend(figure, [key("o", "percentiles 1 to 99", COLOURS[0]), key("-", "equal")])
    return figure


def concurrency(recorded: Trace, simulated: Trace) -> Figure:
    """Requests being served and waiting over time, measured and simulated."""
    figure, axes = panels(2, 1, 3.4, sharex=True)
    for trace, colour, line in ((recorded, COLOURS[0], "-"), (simulated, COLOURS[1], "--")):
        rows = trace.finished
        served = rows.assign(arrival_s=rows["scheduled_s"].fillna(rows["first_token_s"]))
        for axis, (moments, depth) in zip(
            axes, (queue_depth(served, rows["finish_s"]), queue_depth(rows)), strict=True
        ):
            axis.step(moments, depth, where="post", color=colour, linestyle=line, linewidth=0.9)
    axes[0].set_ylabel("requests served")
    axes[1].set_ylabel("requests waiting")
    axes[1].set_xlabel("time (s)")
    legend(figure, [key("-", "measured", COLOURS[0]), key("--", "simulated", COLOURS[1])])
    return figure


def residuals(recorded: Trace, profile: Profile) -> Figure:
    """How far each recorded step is from what the profile says, over the batch and over time."""
    steps = recorded.steps
    assert steps is not None
    off = 100 * (steps["duration_s"].to_numpy() / profile.durations(steps) - 1)
    prefill = steps["prefill_tokens"].to_numpy() > 0
    figure, axes = panels(1, 2, 2.5, sharey=True)
    for axis, over, label in (
        (axes[0], steps["decode_requests"].to_numpy(), "decoding requests"),
        (axes[1], steps["start_s"].to_numpy(), "time (s)"),
    ):
        for chosen, colour in ((~prefill, COLOURS[0]), (prefill, COLOURS[1])):
            axis.plot(over[chosen], off[chosen], ".", markersize=2, color=colour, alpha=0.5)
        axis.axhline(0, color=GREY, linewidth=0.8)
        axis.set_xlabel(label)
    axes[0].set_ylabel("step over profile (%)")
    low, high = np.percentile(off, [0.5, 99.5])
    axes[0].set_ylim(low - 5, high + 5)
    legend(figure, [key("o", "decode only", COLOURS[0]), key("o", "with prefill", COLOURS[1])])
    return figure
