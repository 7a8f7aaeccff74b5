"""DriftSched's twelve figures, ours, and three of taking it apart; each from the stored rows alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.patches
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from driftsim import Admission, Tier
from driftsim.figures import COLOURS, GREY, LINES, STYLE, key, legend, panels, plain_log_axis, save
from driftsim.request import TIERS
from driftsim.scheduling.admission import CLASSES, DRIFTSCHED_BASE, DRIFTSCHED_SAFETY
from driftsim.scheduling.classify import CATEGORIES
from driftsim.statistics import mean_interval
from experiments.paper.load import ENGINES
from experiments.paper.setup import POLICIES

UNIT = {"tokenizer": "tokens", "whitespace": "words"}
SIMULATED = "simulated, profile of an L4 from first principles"
EFFECTS = {"mae": "MAE", "kendall_tau": "Kendall's tau", "e2e_p50_s": "median E2E", "e2e_p99_s": "P99 E2E"}
CORRECTION = {"off": "none", "base": "published", "estimate": "published, whole estimate"}


def draw(folder: Path) -> dict[str, Figure]:
    """Every figure from the tables in ``folder``, by file name."""

    def table(name: str) -> pd.DataFrame:
        return pd.read_csv(folder / f"{name}.csv")

    rows, classes, bias, estimates = (table(name) for name in ("rows", "classes", "bias", "estimates"))
    made: dict[str, Callable[[], Figure]] = {
        "fig01_architecture": architecture,
        "fig02_misclassification": lambda: misclassification(estimates),
        "fig03_feedback_loop": feedback_loop,
        "fig04_classes_whitespace": lambda: class_shares(classes, "whitespace"),
        "fig05_bias_whitespace": lambda: convergence(bias, "whitespace"),
        "fig06_classes_tokenizer": lambda: class_shares(classes, "tokenizer"),
        "fig07_bias_tokenizer": lambda: convergence(bias, "tokenizer"),
        "fig08_queue_depth": lambda: depth(table("depth")),
        "fig09_e2e_by_scheduler": lambda: latency(rows, ("e2e_p50_s", "e2e_mean_s", "e2e_p99_s"), "end-to-end latency"),
        "fig10_estimates_whitespace": lambda: scatter(estimates, "whitespace"),
        "fig11_estimates_tokenizer": lambda: scatter(estimates, "tokenizer"),
        "fig12_engine_latency": lambda: latency(
            rows, ("engine_e2e_p50_s", "engine_e2e_p90_s", "engine_e2e_p99_s"), "latency inside the engine"
        ),
        "load": lambda: load(table("load")),
        "main_effects": lambda: main_effects(table("factorial/main_effects")),
        "gains": lambda: gains(table("factorial/gains")),
    }
    with matplotlib.rc_context(STYLE):
        return {name: make() for name, make in made.items()}


def save_all(folder: Path) -> list[Path]:
    """Draw and write every figure beside its rows."""
    target = folder / "figures"
    target.mkdir(exist_ok=True)
    return [save(figure, target, name) for name, figure in draw(folder).items()]


# -- diagrams


def _boxes(height: float, boxes: Mapping[str, tuple[float, float, str]], width: float) -> tuple[Figure, Axes]:
    """A canvas of 100 by 100 with a box for each of ``boxes``: its centre and text."""
    figure, (axes,) = panels(1, 1, height)
    axes.set(xlim=(0, 100), ylim=(-10, 100))
    axes.axis("off")
    for x, y, text in boxes.values():
        shape = matplotlib.patches.FancyBboxPatch(
            (x - width / 2, y - 9), width, 18, boxstyle="round,pad=0.6", facecolor="#f2f6fa", edgecolor=COLOURS[0]
        )
        axes.add_patch(shape)
        axes.text(x, y, text, ha="center", va="center", fontsize=7.5)
    return figure, axes


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], text: str = "", bend: float = 0.0) -> None:
    style = {"arrowstyle": "->", "color": GREY, "connectionstyle": f"arc3,rad={bend}", "shrinkA": 2, "shrinkB": 2}
    axes.annotate("", end, start, arrowprops=style)
    if text:
        middle = ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2 + 3)
        axes.text(*middle, text, ha="center", va="bottom", fontsize=7, color=GREY)


def architecture() -> Figure:
    """From workload to trace; the same dispatcher before a simulated and a real engine."""
    boxes = {
        "workload": (9, 75, "workload\nphases, prompts,\ntenants"),
        "admission": (32, 75, "admission\nclassify, estimate,\nbudget"),
        "queues": (55, 75, "tier queues\nand policy"),
        "engine": (78, 75, "engine"),
        "simulated": (70, 42, "simulated: SimPy\ncontinuous or barrier"),
        "real": (91, 42, "real: vLLM\nor HTTP"),
        "trace": (78, 11, "trace"),
        "calibrate": (50, 11, "calibrate\nlatency profile"),
        "metrics": (20, 11, "metrics, tables,\nfigures, answer"),
    }
    figure, axes = _boxes(2.6, boxes, 16)
    for one, other in (("workload", "admission"), ("admission", "queues"), ("queues", "engine")):
        _arrow(axes, (boxes[one][0] + 9, 75), (boxes[other][0] - 9, 75))
    for kind in ("simulated", "real"):
        _arrow(axes, (78, 65), (boxes[kind][0], 52))
        _arrow(axes, (boxes[kind][0], 32), (78, 21))
    _arrow(axes, (78, 85), (32, 85), "the true length, once a request is out", 0.2)
    _arrow(axes, (69, 11), (59, 11))
    _arrow(axes, (50, 21), (63, 33))
    _arrow(axes, (72, 2), (26, 2), "", -0.15)
    return figure


def feedback_loop() -> Figure:
    """DriftSched's correction, as it runs at each finish."""
    admission = Admission()
    boxes = {
        "estimate": (16, 70, "estimate\nbase × bias × safety\n× input factor"),
        "serve": (50, 70, "queue and engine\n(estimate frozen)"),
        "observe": (84, 70, "observe\noutput length"),
        "measure": (
            84,
            20,
            f"measured bias\nobserved / base, within\n{admission.clip_low:g} to {admission.clip_high:g}",
        ),
        "update": (35, 20, f"bias, by category\n{1 - admission.alpha:g} × old + {admission.alpha:g} × measured"),
    }
    figure, axes = _boxes(2.6, boxes, 24)
    _arrow(axes, (29, 70), (37, 70))
    _arrow(axes, (63, 70), (71, 70))
    _arrow(axes, (84, 59), (84, 31))
    _arrow(axes, (71, 20), (48, 20))
    _arrow(axes, (26, 31), (18, 59))
    return figure


# -- DriftSched's figures


def misclassified(estimates: pd.DataFrame) -> dict[str, Any]:
    """The request whose wrong estimate puts it furthest from its true class, counting words without correction."""
    mine = estimates[(estimates["accounting"] == "whitespace") & (estimates["estimator"] == "static")]
    admission = Admission(accounting="whitespace")
    total = mine["prompt"] + mine["observed"]
    mine = mine.assign(true_class=[admission.scheduling_class(int(length)) for length in total])
    wrong = mine[mine["true_class"] != mine["scheduling_class"]]
    return dict(wrong.iloc[(wrong["estimate"] - wrong["observed"]).abs().argmax()])


def misclassification(estimates: pd.DataFrame) -> Figure:
    """How one estimate came about, and what the request turned out to be."""
    row = misclassified(estimates)
    base = DRIFTSCHED_BASE[row["category"]]
    safe = base * DRIFTSCHED_SAFETY[Tier(row["tier"])]
    budget, total = row["prompt"] + row["estimate"], row["prompt"] + row["observed"]
    bars = [
        (f"base of {row['category']}", base), (f"× safety of {row['tier']}", safe),
        ("× input factor: the estimate", row["estimate"]), (f"+ prompt: admitted as {row['scheduling_class']}", budget),
        (f"as it turned out: {row['true_class']}", total),
    ]  # fmt: skip
    figure, (axes,) = panels(1, 1, 1.9)
    places = np.arange(len(bars))[::-1]
    axes.barh(places, [value for _, value in bars], color=[COLOURS[5]] * 3 + [COLOURS[0], COLOURS[1]], height=0.62)
    for place, (_, value) in zip(places, bars, strict=True):
        axes.text(value, place, f" {value:.0f}", va="center", fontsize=8)
    axes.set_yticks(places, [name for name, _ in bars])
    for edge, name in ((Admission().short, "short | medium"), (Admission().medium, "medium | long")):
        axes.axvline(edge, color=GREY, linestyle="--", linewidth=0.9)
        axes.text(edge, len(bars) - 0.45, name, ha="center", fontsize=7.5, color=GREY)
    axes.set(xlabel=f"words; request {row['request_id']}, {SIMULATED}", ylim=(-0.5, len(bars) - 0.2))
    axes.grid(axis="y", visible=False)
    return figure


def class_shares(classes: pd.DataFrame, accounting: str) -> Figure:
    """Semantic category against scheduling class: as admitted without and with correction, and as it turned out."""
    mine = classes[classes["accounting"] == accounting]
    shown = (
        ("admitted, correction off", mine[(mine["what"] == "admitted") & (mine["estimator"] == "static")]),
        ("admitted, correction on", mine[(mine["what"] == "admitted") & (mine["estimator"] == "ema")]),
        ("as they turned out", mine[(mine["what"] == "observed") & (mine["estimator"] == "static")]),
    )
    figure, axes = panels(1, 3, 1.9, sharey=True)
    for one, (title, part) in zip(axes, shown, strict=True):
        shares = part.set_index("category").loc[list(CATEGORIES), list(CLASSES)].to_numpy()
        one.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        for (place, column), share in np.ndenumerate(shares):
            one.text(column, place, f"{100 * share:.0f} %", ha="center", va="center", fontsize=8,
                     color="white" if share > 0.55 else "black")  # fmt: skip
        one.set_xticks(range(len(CLASSES)), CLASSES)
        one.set_yticks(range(len(CATEGORIES)), CATEGORIES)
        one.set_title(f"{title}")
        one.grid(visible=False)
        one.spines[:].set_visible(False)
    axes[1].set_xlabel(f"scheduling class, counting {UNIT[accounting]}; FIFO, {SIMULATED}")
    return figure


def convergence(bias: pd.DataFrame, accounting: str) -> Figure:
    """The factor of each category at each admission, by scheduler."""
    mine = bias[bias["accounting"] == accounting]
    figure, axes = panels(2, 2, 3.6, sharex=True, sharey=True)
    for one, category in zip(axes, CATEGORIES, strict=True):
        for colour, policy in zip(COLOURS, POLICIES, strict=False):
            part = mine[(mine["category"] == category) & (mine["policy"] == policy)]
            one.plot(part["request"], part["bias"], color=colour, linewidth=1.0)
        one.axhline(1, color=GREY, linewidth=0.8, linestyle="--")
        one.set_title(category)
    for one in axes[2:]:
        one.set_xlabel(f"request, counting {UNIT[accounting]}")
    for one in axes[::2]:
        one.set_ylabel("bias")
    figure.supxlabel(SIMULATED, fontsize=8)
    legend(figure, [key("-", policy, colour) for policy, colour in zip(POLICIES, COLOURS, strict=False)])
    return figure


def depth(table: pd.DataFrame) -> Figure:
    """Requests waiting over time by tenant, one panel a scheduler."""
    figure, axes = panels(2, 3, 3.6, sharex=True, sharey=True)
    styles = list(zip(TIERS, (COLOURS[0], COLOURS[1], COLOURS[2]), LINES, strict=False))
    for one, policy in zip(axes, POLICIES, strict=False):
        for tier, colour, line in styles:
            part = table[(table["policy"] == policy) & (table["tenant"] == tier.value)]
            one.plot(part["time_s"], part["waiting"], color=colour, linestyle=line, linewidth=1.1)
        one.set_title(policy)
    axes[-1].set_axis_off()
    for one in axes[2:5]:
        one.set_xlabel("time, s")
        one.xaxis.set_tick_params(labelbottom=True)
    for one in axes[::3]:
        one.set_ylabel("waiting")
    figure.supxlabel(f"correction on, counting tokens; {SIMULATED}", fontsize=8)
    legend(figure, [key(line, tier.value, colour) for tier, colour, line in styles])
    return figure


def latency(rows: pd.DataFrame, metrics: Sequence[str], what: str) -> Figure:
    """Percentiles by scheduler, correction off and on, over all requests and over the stress phase; 95 % over seeds."""
    mine = rows[(rows["engine"] == "barrier") & (rows["accounting"] == "whitespace")]
    figure, axes = panels(1, 2, 2.6, sharex=True, sharey=True)
    marks = dict(zip(metrics, ("o", "s", ">"), strict=True))
    for one, phase in zip(axes, ("all", "stress"), strict=True):
        for place, policy in enumerate(reversed(POLICIES)):
            for shift, estimator, colour in ((0.14, "static", COLOURS[0]), (-0.14, "ema", COLOURS[1])):
                part = mine[(mine["phase"] == phase) & (mine["policy"] == policy) & (mine["estimator"] == estimator)]
                for metric, mark in marks.items():
                    value, low, high = mean_interval(part[metric])
                    error = [[value - low], [high - value]] if low == low else None
                    one.errorbar(value, place + shift, xerr=error, fmt=mark, color=colour, markersize=5,
                                 markerfacecolor="white", elinewidth=1.0)  # fmt: skip
        one.set_yticks(range(len(POLICIES)), list(reversed(POLICIES)))
        if mine[metrics[-1]].max() > 4 * mine[metrics[0]].min():
            one.set_xscale("log")
            plain_log_axis(one.xaxis)
        one.set_title("all requests" if phase == "all" else "stress phase")
        one.set_xlabel(f"{what}, s")
    figure.supxlabel(f"DriftSched's worker, counting words; {SIMULATED}", fontsize=8)
    labels = [metric.removesuffix("_s").split("_")[-1].replace("p", "P") for metric in metrics]
    keys = [key(mark, label) for mark, label in zip(marks.values(), labels, strict=True)]
    legend(figure, [*keys, key("-", "correction off", COLOURS[0]), key("-", "correction on", COLOURS[1])])
    return figure


def scatter(estimates: pd.DataFrame, accounting: str) -> Figure:
    """Estimated against observed length, correction off and on; every fifth request of one run."""
    mine = estimates[estimates["accounting"] == accounting]
    figure, axes = panels(1, 2, 2.9, sharex=True, sharey=True)
    end = 1.05 * float(mine[["estimate", "observed"]].to_numpy().max())
    for one, (estimator, title) in zip(axes, (("static", "correction off"), ("ema", "correction on")), strict=True):
        for category, colour, mark in zip(CATEGORIES, COLOURS, "os^D", strict=False):
            part = mine[(mine["estimator"] == estimator) & (mine["category"] == category)]
            one.plot(
                part["observed"], part["estimate"], mark, color=colour, markersize=3, alpha=0.55, markeredgewidth=0
            )
        one.plot([0, end], [0, end], color=GREY, linewidth=0.9, linestyle="--")
        one.set(title=title, xlabel=f"observed output, {UNIT[accounting]}", xlim=(0, end), ylim=(0, end))
    axes[0].set_ylabel(f"estimate, {UNIT[accounting]}")
    figure.supxlabel(f"FIFO; {SIMULATED}", fontsize=8)
    legend(figure, [key(mark, name, colour) for name, colour, mark in zip(CATEGORIES, COLOURS, "os^D", strict=False)])
    return figure


# -- taking it apart


def load(table: pd.DataFrame) -> Figure:
    """What shortest first changes, by load and engine."""
    shown = {"p50": "median E2E", "p99": "P99 E2E", "long": "mean E2E of the longest tenth"}
    figure, axes = panels(1, 3, 2.5, sharex=True)
    for one, (metric, title) in zip(axes, shown.items(), strict=True):
        for engine, colour, mark in zip(ENGINES, COLOURS, "os^", strict=False):
            part = table[table["engine"] == engine]
            one.plot(part["load"], 100 * part[metric], marker=mark, markersize=4, color=colour, linewidth=1.2)
            band = (100 * part[f"{metric}_low"], 100 * part[f"{metric}_high"])
            one.fill_between(part["load"], *band, color=colour, alpha=0.18, linewidth=0)
        one.axhline(0, color=GREY, linewidth=0.8)
        one.set(title=title, xlabel="load, arrivals over capacity")
    axes[0].set_ylabel("SJF against FIFO, %")
    figure.supxlabel(f"no correction; bands 95 % over seeds; {SIMULATED}", fontsize=8)
    legend(figure, [key(mark, name, colour) for name, colour, mark in zip(ENGINES, COLOURS, "os^", strict=False)])
    return figure


def main_effects(table: pd.DataFrame) -> Figure:
    """Every factor's effect, averaged over all the others, with its interval over the seeds."""
    contrasts = list(dict.fromkeys(zip(table["factor"], table["from"], table["to"], strict=True)))[::-1]
    figure, axes = panels(1, len(EFFECTS), 4.2, sharey=True)
    for one, (metric, title) in zip(axes, EFFECTS.items(), strict=True):
        by = table[table["metric"] == metric].set_index(["factor", "from", "to"])
        scale = 1.0 if metric == "kendall_tau" else 100.0
        for place, contrast in enumerate(contrasts):
            if contrast in by.index:
                value, low, high = scale * by.loc[contrast, ["effect", "low", "high"]].to_numpy(dtype=float)
                one.errorbar(
                    value, place, xerr=[[value - low], [high - value]], fmt="o", color=COLOURS[0], markersize=4
                )
        one.axvline(0, color=GREY, linewidth=0.8)
        one.set(title=title, xlabel="difference" if metric == "kendall_tau" else "%")
        if metric != "kendall_tau":
            one.set_xscale("symlog", linthresh=10)
            one.set_xticks([-50, 0, 100], ["-50", "0", "100"])
            one.set_xlim(-100, 300)
    labels = [f"{factor}: {CORRECTION.get(low, low)} to {CORRECTION.get(high, high)}" if factor == "correction"
              else f"{factor}: {low} to {high}" for factor, low, high in contrasts]  # fmt: skip
    axes[0].set_yticks(range(len(contrasts)), labels)
    figure.supxlabel(f"95 % over seeds; latency effects of estimates are under SJF; {SIMULATED}", fontsize=8)
    return figure


def gains(table: pd.DataFrame) -> Figure:
    """What shortest first changes in the factorial, by engine and load."""
    shown = {"e2e_mean_s": ("s", "mean"), "e2e_p50_s": ("o", "median"), "e2e_p99_s": (">", "P99")}
    groups = list(dict.fromkeys(zip(table["engine"], table["load"], strict=True)))[::-1]
    figure, (axes,) = panels(1, 1, 1.9)
    for place, (engine, level) in enumerate(groups):
        part = table[(table["engine"] == engine) & (table["load"] == level)].set_index("metric")
        for shift, (metric, (mark, _)) in zip((0.2, 0, -0.2), shown.items(), strict=True):
            value, low, high = 100 * part.loc[metric, ["effect", "low", "high"]].to_numpy(dtype=float)
            axes.errorbar(value, place + shift, xerr=[[value - low], [high - value]], fmt=mark, color=COLOURS[0],
                          markersize=5, markerfacecolor="white")  # fmt: skip
    axes.set_yticks(range(len(groups)), [f"{engine}, load {level:g}" for engine, level in groups])
    axes.axvline(0, color=GREY, linewidth=0.8)
    axes.set_xlabel(f"E2E, SJF against FIFO, %; 95 % over seeds; {SIMULATED}")
    legend(figure, [key(mark, name) for mark, name in shown.values()])
    return figure
