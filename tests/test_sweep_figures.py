"""The figures of a sweep: intervals, readable axes, legends that keep clear, and no mean over what differs."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from driftsim.errors import InputError
from driftsim.figures import STYLE
from driftsim.statistics import student_quantile
from driftsim.sweeps.drawing import Look
from driftsim.sweeps.figures import against_load, gain, pareto, save_figures
from driftsim.sweeps.plot import Plot, plotted

POLICIES = ("fifo", "priority", "weighted", "sjf", "aging", "plugins/learned_rank.py:LearnedRank", "vtc", "edf", "srpt")


def rows(replications: int = 3, **axes: tuple[object, ...]) -> pd.DataFrame:
    """Rows over every combination of ``axes``; 2 requests / s are recorded, and latencies grow with the load."""
    draw = np.random.default_rng(1)
    found = []
    for number, values in enumerate(itertools.product(*axes.values())):
        setting = dict(zip(axes, values, strict=True))
        for replication in range(replications):
            mean = 20 * float(setting.get("rate_scale", 1)) * (1 + number / 50) * draw.uniform(0.9, 1.1)  # type: ignore[arg-type]
            found.append(
                {"key": f"{number}.{replication}", "policy": "fifo", **setting, "replication": replication,
                 "recorded_rate": 2.0, "e2e_mean_s": mean, "e2e_p99_s": 4 * mean}
            )  # fmt: skip
    return pd.DataFrame(found)


def figure_of(make: Callable[[Plot], Figure], table: pd.DataFrame) -> Figure:
    with matplotlib.rc_context(STYLE):
        made = make(plotted(table))
        FigureCanvasAgg(made).draw()  # type: ignore[no-untyped-call]
    return made


def boxes(figure: Figure) -> tuple[list[Bbox], list[list[Bbox]], list[Bbox]]:
    """Of ``figure``, in pixels: each panel with its labels, the tick labels of each axis, and each legend."""
    renderer = FigureCanvasAgg(figure).get_renderer()  # type: ignore[no-untyped-call]
    axes = [axis for axis in figure.axes if axis.axison]
    ticks = []
    for axis in (part for one in axes for part in (one.xaxis, one.yaxis)):
        low, high = sorted(axis.get_view_interval())
        shown = [tick for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
        ticks.append(
            [
                tick.label1.get_window_extent(renderer)
                for tick in shown
                if tick.label1.get_visible() and tick.label1.get_text()
            ]
        )
    panels = [found for axis in axes if (found := axis.get_tightbbox(renderer)) is not None]
    return panels, ticks, [one.get_window_extent(renderer) for one in figure.legends]


def overlapping(found: list[Bbox]) -> list[tuple[Bbox, Bbox]]:
    return [pair for pair in itertools.combinations(found, 2) if pair[0].overlaps(pair[1])]


SWEEPS = {
    "small": rows(policy=POLICIES[:2], rate_scale=(0.5, 1.0)),
    "one run a setting": rows(1, policy=POLICIES[:3], rate_scale=(0.5, 1.0, 2.0)),
    "many policies": rows(policy=POLICIES, estimator=("static", "ema", "oracle"), rate_scale=(0.25, 1.0, 1.1, 4.0)),
    "many loads": rows(policy=POLICIES[:2], rate_scale=tuple(np.round(np.linspace(0.1, 3, 20), 2))),
    "users": rows(policy=POLICIES[:2], users=(1, 2, 4, 8, 16, 1000, 10000)).rename(columns={"users": "arrivals.users"}),
    "traces": rows(
        policy=POLICIES[:2], rate_scale=(0.5, 1.0), trace=tuple(f"captures/long-name-{n}" for n in range(5))
    ),
    "one row": rows(1, policy=("fifo",)),
}


@pytest.mark.parametrize("name", SWEEPS)
def test_legends_panels_and_tick_labels_keep_clear_of_each_other(name: str) -> None:
    table = SWEEPS[name]
    plot = plotted(table)
    for make in (
        pareto,
        *([against_load] if plot.load else []),
        *([lambda plot: gain(plot, plot.load, "estimator")] if "estimator" in table else []),
    ):
        figure = figure_of(make, table)
        panels, ticks, legends = boxes(figure)
        assert len(legends) <= 1
        assert not overlapping([*panels, *legends])
        for labels in ticks:
            assert not overlapping(labels), [text.bounds for text in labels]
        whole = figure.bbox
        assert all(box.x0 >= -1 and box.x1 <= whole.x1 + 1 and box.y1 <= whole.y1 + 1 for box in [*panels, *legends])


def test_two_panels_that_overlap_would_be_found() -> None:
    assert overlapping([Bbox([[0, 0], [2, 2]]), Bbox([[1, 1], [3, 3]])])


def test_every_line_has_a_look_of_its_own_without_its_colour() -> None:
    looks = [Look.of(first, second) for first, second in itertools.product(range(9), range(4))]
    assert len({(look.marker, look.line) for look in looks}) == len({(look.marker, look.fill) for look in looks}) == 36


def test_the_load_axis_counts_requests_a_second_or_users() -> None:
    figure = figure_of(against_load, SWEEPS["small"])
    assert figure.axes[0].get_xlabel() == "arrival rate (req/s)"
    assert [tick.get_text() for tick in figure.axes[0].get_xticklabels()] == ["1", "2"]
    assert figure_of(against_load, SWEEPS["users"]).axes[0].get_xlabel() == "users"
    unknown = SWEEPS["small"].drop(columns="recorded_rate")
    assert "rate_scale" in figure_of(against_load, unknown).axes[0].get_xlabel()


def test_intervals_are_those_of_the_resamples_and_single_runs_have_none() -> None:
    table = rows(5, policy=("fifo", "sjf"), rate_scale=(1.0, 2.0))
    own = table[(table["policy"] == "sjf") & (table["rate_scale"] == 2.0)]["e2e_mean_s"].to_numpy()
    point = plotted(table).points.query("policy == 'sjf' and rate_scale == 2").iloc[0]
    half = student_quantile(3) * np.log(own[1:]).std(ddof=1)
    assert point["e2e_mean_s"] == pytest.approx(own.mean())
    assert point["e2e_mean_s_high"] == pytest.approx(own.mean() * np.exp(half))
    bars = figure_of(against_load, table).axes[0].containers
    assert bars
    single = figure_of(against_load, SWEEPS["one run a setting"])
    assert not single.axes[0].containers
    assert "one run a point" in single.axes[0].get_ylabel()
    drawn = table.assign(**{"workload.kind": "poisson"})  # independent draws: the interval of their mean
    spread = plotted(drawn).points.query("policy == 'sjf' and rate_scale == 2").iloc[0]
    mean_half = student_quantile(4) * np.log(own).std(ddof=1) / np.sqrt(5)
    assert spread["e2e_mean_s_high"] == pytest.approx(own.mean() * np.exp(mean_half))


def test_a_panel_holds_one_load_and_one_trace_and_says_what_is_left_out() -> None:
    figure = figure_of(pareto, SWEEPS["traces"])
    titles = [axis.get_title(loc="left").replace("\n", " ") for axis in figure.axes if axis.axison]
    assert len(titles) == len(set(titles)) == 6
    assert all("trace = " in text and "req/s" in text for text in titles)
    note = figure.get_supxlabel().replace("\n", " ")
    assert "Shown are 6 of 10" in note
    assert "Left out: trace = " in note
    few = figure_of(against_load, SWEEPS["traces"])
    assert "Shown are 3 of 5" in few.get_supxlabel()


def test_a_gain_is_told_against_the_policy_that_is_there_and_empty_cells_stay_empty() -> None:
    table = rows(1, policy=("sjf", "aging"), rate_scale=(1.0, 2.0), max_in_flight=(4, 8))
    table = table[(table["rate_scale"] == 1.0) | (table["max_in_flight"] == 4)]
    figure = figure_of(lambda plot: gain(plot, "rate_scale", "max_in_flight"), table)
    assert len(figure.axes[0].texts) == 3
    assert "nan" not in "".join(text.get_text() for text in figure.axes[0].texts)
    assert "against sjf" in figure.axes[-1].get_ylabel()


def test_nothing_to_draw_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no run has an end-to-end latency"):
        save_figures(SWEEPS["small"].assign(e2e_mean_s=np.nan, e2e_p99_s=np.nan), tmp_path)
    part = SWEEPS["small"].copy()
    part.loc[part["policy"] == "sjf", "e2e_mean_s"] = np.nan
    part.loc[part["policy"] == "priority", ["e2e_mean_s", "e2e_p99_s"]] = np.nan
    assert len(save_figures(part, tmp_path)) == 2
    for file in tmp_path.glob("*.svg"):
        assert ">nan<" not in file.read_text()
