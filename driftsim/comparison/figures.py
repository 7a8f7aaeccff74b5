"""Figures of a comparison, colour-blind safe and readable in print; each says whether it shows simulation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import matplotlib
import matplotlib.lines
import matplotlib.ticker
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from driftsim.comparison.comparison import Comparison
from driftsim.comparison.plan import BASELINE, Setting
from driftsim.figures import COLOURS, LINES, STYLE, key, label, legend, panels, plain_log_axis
from driftsim.metrics import queue_depth
from driftsim.scheduling.classify import CATEGORIES
from driftsim.scheduling.estimators import is_deployable
from driftsim.statistics import Interval
from driftsim.tiers import by_urgency
from driftsim.trace.schema import FINISHED
from driftsim.trace.trace import Trace

SHAPES = "osD^vPX"  # of points, by category
MOST_POINTS = 2_000  # of one category, as shapes of an SVG; more are a picture in it
STATISTICS = {"mean": "Mean", "p50": "Median", "p99": "P99"}
_CHANGE_KEYS = [
    key("o", "simulated change over days like this one, 95 %; filled: excludes 0", COLOURS[0]),
    key("x", "this run", COLOURS[1]),
]


def draw(comparison: Comparison) -> dict[str, Figure]:
    """All figures of ``comparison``, by file name."""
    with matplotlib.rc_context(STYLE):
        return {
            "e2e_by_scheduler": e2e_by_scheduler(comparison),
            "e2e_by_tenant": e2e_by_tenant(comparison),
            "bias_over_requests": bias_over_requests(comparison),
            "estimated_against_observed": estimated_against_observed(comparison),
            "queue_depth_by_tenant": queue_depth_by_tenant(comparison),
        }


def e2e_by_scheduler(comparison: Comparison) -> Figure:
    """Paired change of the median, the mean and the P99 of E2E against FIFO, a row for each setting, 95 % intervals."""
    settings = _shown(comparison)
    figure, axes = panels(1, 3, height=0.6 + 0.3 * len(settings), sharey=True)
    for panel, (stat, title) in zip(axes, STATISTICS.items(), strict=True):
        changes = [comparison.change(setting, BASELINE, f"e2e_{stat}_s") for setting in settings]
        runs = [comparison.change_of(setting, BASELINE, f"e2e_{stat}_s").this_run for setting in settings]
        _changes(panel, changes, runs)
        panel.set_title(f"{title} E2E")
    names = [label(str(setting)) + ("" if is_deployable(setting.estimator) else " (bound)") for setting in settings]
    axes[0].set_yticks(range(len(settings)), names)
    axes[0].invert_yaxis()
    legend(figure, _CHANGE_KEYS)
    return figure


def e2e_by_tenant(comparison: Comparison) -> Figure:
    """Paired change of each tenant's mean E2E against FIFO, one panel a setting, 95 % intervals."""
    settings = _shown(comparison)
    tenants = list(comparison.recorded["per_tenant"])
    rows = -(-len(settings) // 3)
    height = rows * (0.5 + 0.22 * len(tenants))
    figure, axes = panels(rows, min(3, len(settings)), height=height, sharey=True, sharex=True)
    for panel, setting in zip(axes, settings, strict=False):
        changes = [comparison.change_of(setting, BASELINE, "e2e_mean_s", tenant) for tenant in tenants]
        _changes(panel, [change.interval for change in changes], [change.this_run for change in changes])
        panel.set_title(label(str(setting)))
    axes[0].set_yticks(range(len(tenants)), list(map(label, tenants)))
    axes[0].invert_yaxis()
    for place, panel in enumerate(axes[len(settings) :], len(settings)):
        panel.set_visible(False)
        axes[place - 3].tick_params(labelbottom=True)
    legend(figure, _CHANGE_KEYS)
    return figure


def _shown(comparison: Comparison) -> list[Setting]:
    """The settings that differ from FIFO in a latency, one of those that are alike in all."""
    groups = [group for group in comparison.alike_in_latency if BASELINE not in group]
    return [group[0] for group in groups or comparison.alike_in_latency]


def _changes(panel: Axes, changes: Sequence[Interval], runs: Sequence[float]) -> None:
    """Changes as points with their intervals, filled where the interval excludes 0; the recorded run as a cross."""
    panel.axvline(0, color="#888888", linewidth=0.8, linestyle=":")
    for place, (change, run) in enumerate(zip(changes, runs, strict=True)):
        if not math.isnan(change.low):
            panel.plot([100 * change.low, 100 * change.high], [place, place], color=COLOURS[0], linewidth=1.4)
        face = "white" if change.spans_zero else COLOURS[0]
        panel.plot(100 * change.value, place, "o", color=COLOURS[0], markersize=5, markerfacecolor=face)
        panel.plot(100 * run, place, "x", color=COLOURS[1], markersize=5)
    panel.set_xlabel("change against FIFO (%)")


def bias_over_requests(comparison: Comparison) -> Figure:
    """The bias that each request was admitted with, by predicted category and policy, in order of arrival."""
    learning = [s for s in comparison.plan.settings if s.estimator not in ("static", "oracle")]
    categories = _categories(comparison)
    figure, axes = panels(1, max(1, len(categories)), height=2.3, sharey=True)
    for panel, category in zip(axes, categories, strict=False):
        for setting in learning:
            rows = comparison.traces[setting].requests
            places = np.flatnonzero((_admitted(comparison) == category).to_numpy())
            number = _policies(learning).index(setting.policy)
            style: dict[str, Any] = {
                "color": COLOURS[number],
                "linestyle": LINES[number % 4],
                "drawstyle": "steps-post",
            }
            panel.plot(places, rows["bias"].to_numpy()[places], linewidth=1.2, **style)
        panel.axhline(1.0, color="#888888", linewidth=0.8, linestyle=":")
        panel.set_title(label(category))
        panel.set_xlabel("arrival number")
    axes[0].set_ylabel("bias at admission")
    if not learning:
        axes[0].text(0.5, 0.5, "no estimator that learns", ha="center", transform=axes[0].transAxes)
    keys = [key(LINES[place % 4], label(name), COLOURS[place]) for place, name in enumerate(_policies(learning))]
    legend(figure, keys)
    return figure


def estimated_against_observed(comparison: Comparison) -> Figure:
    """Estimated against observed output length of each finished request, one panel an estimator, by category."""
    first = {s.estimator: s for s in reversed(comparison.plan.settings) if s.policy != "stock"} or {
        s.estimator: s for s in comparison.plan.settings
    }
    estimators = list(dict.fromkeys(s.estimator for s in comparison.plan.settings if s.estimator in first))
    figure, axes = panels(1, len(estimators), height=3.2, sharey=True, sharex=True)
    unit = comparison.plan.admission.unit
    word = "tokens" if unit.unit == "tokenizer" else "words"
    shown = _categories(comparison)
    for panel, estimator in zip(axes, estimators, strict=True):
        trace = comparison.traces[first[estimator]]
        done = trace.requests["finish_reason"].isin(FINISHED).to_numpy() & _scored(comparison)
        rows, categories = trace.requests[done], _admitted(comparison)[done]
        observed = unit.lengths(rows["output_tokens"], rows["output_words"])
        for place, category in enumerate(shown):
            own = (categories == category).to_numpy()
            panel.plot(
                observed[own], rows["estimate"].to_numpy(dtype=float)[own], SHAPES[place],
                color=COLOURS[place], markersize=3, alpha=0.55, markeredgewidth=0,
                rasterized=int(own.sum()) > MOST_POINTS,
            )  # fmt: skip
        panel.set_xscale("log")
        panel.set_yscale("log")
        plain_log_axis(panel.xaxis)
        plain_log_axis(panel.yaxis)
        panel.axline((10, 10), (100, 100), color="#888888", linewidth=0.8, linestyle=":")
        error = comparison.summaries[first[estimator]][0]["mae"]
        panel.set_title(f"{label(str(first[estimator]))}: MAE {error:.0f} {word}")
        panel.set_xlabel(f"observed output ({word})")
    axes[0].set_ylabel(f"estimated output ({word})")
    legend(figure, [key(SHAPES[place], label(name), COLOURS[place]) for place, name in enumerate(shown)])
    return figure


def queue_depth_by_tenant(comparison: Comparison) -> Figure:
    """Requests waiting to be computed over time, by tenant, one panel a policy."""
    by_policy: dict[str, Setting] = {}
    for setting in comparison.plan.settings:
        by_policy[setting.policy] = setting  # the last estimator: the one that learns, by default
    settings = list(by_policy.values())
    tenants = _tenants(comparison.traces[settings[0]])
    rows = -(-len(settings) // 3)
    figure, axes = panels(rows, min(3, len(settings)), height=1.9 * rows + 0.3, sharey=True, sharex=True)
    for panel, setting in zip(axes, settings, strict=False):
        requests = comparison.traces[setting].requests
        for place, tenant in enumerate(tenants):
            moments, depth = queue_depth(requests[requests["tenant"] == tenant])
            panel.step(moments, depth, LINES[place % 4], where="post", color=COLOURS[place % 7], linewidth=1.2)
        panel.set_title(label(str(setting)))
        panel.set_xlabel("time (s)")
    for place, panel in enumerate(axes[len(settings) :], len(settings)):
        panel.set_visible(False)
        axes[place - 3].tick_params(labelbottom=True)  # nothing stands under it to carry the labels
    for place in range(0, len(axes), 3):
        axes[place].set_ylabel("waiting requests")
    legend(figure, [key(LINES[place % 4], label(name), COLOURS[place % 7]) for place, name in enumerate(tenants)])
    everybody = comparison.traces[settings[0]].requests["tenant"].nunique()
    if everybody > len(tenants):
        figure.suptitle(f"the {len(tenants)} largest of {everybody} tenants", fontsize=8, x=0.99, ha="right")
    return figure


def _tenants(trace: Trace, most: int = 7) -> list[str]:
    """The tenants with most requests, those of the most urgent tier first."""
    counts = trace.requests["tenant"].value_counts(sort=False)
    tiers = trace.requests.groupby("tenant")["tier"].first()
    order = {tier: place for place, tier in enumerate(by_urgency(set(tiers), trace.header.tiers))}
    largest = sorted(counts.index, key=lambda name: (-counts[name], name))[:most]
    return sorted(largest, key=lambda name: (order[tiers[name]], name))


def _admitted(comparison: Comparison) -> pd.Series:
    """The category that admission saw, of each request of the recorded workload."""
    trace = comparison.traces[comparison.plan.settings[0]]
    seen = np.array(comparison.workload.categories(comparison.plan.admission), dtype=object)
    return pd.Series(seen[comparison.workload.sent_in(trace)], index=trace.requests.index, dtype=object)


def _categories(comparison: Comparison) -> list[str]:
    """The categories with most requests, the classifier's four first."""
    counts = _admitted(comparison).value_counts(sort=False)
    order = {name: place for place, name in enumerate(CATEGORIES)}
    largest = sorted(counts.index, key=lambda name: (-counts[name], name))[: len(SHAPES)]
    return sorted(largest, key=lambda name: (order.get(name, len(order)), -counts[name], name))


def _scored(comparison: Comparison) -> np.ndarray:
    """Which requests of the recorded workload the errors are over: of the phase, and not used up by a fit."""
    table, plan = comparison.workload.table, comparison.plan
    in_phase = (table["phase"] == plan.phase) | (plan.phase == "all")
    scored = (in_phase & ~table["source"].isin(plan.excluded)).to_numpy()
    return np.asarray(scored[comparison.workload.sent_in(comparison.traces[plan.settings[0]])])


def _policies(settings: Sequence[Setting]) -> list[str]:
    return list(dict.fromkeys(setting.policy for setting in settings))
