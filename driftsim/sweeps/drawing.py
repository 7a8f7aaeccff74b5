"""What the figures of a sweep draw with: looks that do not hang on colour, ticks and legends that keep apart."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import matplotlib.ticker
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from driftsim.figures import COLOURS, GREY, LINES

WIDTH = 7.2  # inches, that of a page
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*")  # ten, so that with seven colours 70 looks differ
FILLS = ("full", "none", "left", "bottom")  # of markers, beside the four styles of line
CHARACTER = 0.078  # inches that a character of a tick label takes at most
LINE = 0.17  # inches, the height of a line of text
FOOTNOTE = 132  # characters in a line of it


class Look(NamedTuple):
    """How a line is drawn: colour and marker tell one thing, line style and filling another."""

    colour: str
    marker: str
    line: str
    fill: str

    @classmethod
    def of(cls, first: int, second: int) -> Look:
        """The look of the values number ``first`` and ``second`` of the two things that lines differ in."""
        return cls(
            COLOURS[first % len(COLOURS)],
            MARKERS[first % len(MARKERS)],
            LINES[second % len(LINES)],
            FILLS[second % len(FILLS)],
        )

    @property
    def style(self) -> dict[str, Any]:
        """The keywords of a line and its markers."""
        return {
            "color": self.colour, "marker": self.marker, "fillstyle": self.fill, "markerfacecoloralt": "white",
            "linestyle": self.line,
        }  # fmt: skip


def said(value: Any) -> str:
    """A value of a parameter as text: numbers plain, nothing as ``none``.

    >>> said(0.70), said(None), said(True), said(1e6)
    ('0.7', 'none', 'True', '1,000,000')
    """
    if value is None or value != value:
        return "none"
    if isinstance(value, float):
        return f"{value:,.3g}" if abs(value) < 1e3 else f"{value:,.0f}"
    return str(value)


def first_key(look: Look, text: str) -> Line2D:
    """An entry of a legend for what colour and marker tell."""
    return Line2D([], [], color=look.colour, marker=look.marker, linestyle="", markersize=5, label=text)


def second_key(look: Look, text: str) -> Line2D:
    """An entry of a legend for what line style and filling tell."""
    return Line2D([], [], **look._replace(colour=GREY, marker="o").style, markersize=6, label=text)


def third_key(size: float, text: str) -> Line2D:
    """An entry of a legend for what the size of a marker tells."""
    return Line2D([], [], color=GREY, marker="o", linestyle="", markersize=size, label=text)


def legend(figure: Figure, keys: Sequence[Line2D], size: float = 8) -> None:
    """Write ``keys`` above the panels, in as many rows as they need; ``size`` of the letters, in points."""
    if not keys:
        return
    canvas = FigureCanvasAgg(figure)
    renderer = canvas.get_renderer()  # type: ignore[no-untyped-call]
    for columns in range(len(keys), 0, -1):
        drawn = figure.legend(
            handles=list(keys), loc="outside upper left", ncols=columns, fontsize=size, handlelength=2.2,
            columnspacing=1.4,
        )  # fmt: skip
        if columns == 1 or drawn.get_window_extent(renderer).width <= 0.97 * figure.bbox.width:
            return
        drawn.remove()


def footnote(figure: Figure, sentences: Sequence[str]) -> None:
    """Write ``sentences`` below the panels."""
    text = "\n".join(textwrap.wrap(" ".join(sentences), FOOTNOTE))
    if text:
        figure.supxlabel(text, x=0.01, ha="left", fontsize=7, color=GREY)


def title(axis: Axes, text: str, inches: float) -> None:
    """Write ``text`` above a panel that is ``inches`` wide, on as many lines as it needs."""
    axis.set_title("\n".join(textwrap.wrap(text, max(12, int(inches / 0.068)))), loc="left", fontsize=8)


def plain_ticks(low: float, high: float) -> list[float]:
    """Round numbers between ``low`` and ``high``, both above 0, for a logarithmic axis.

    >>> plain_ticks(0.9, 60), plain_ticks(31, 58)
    ([1.0, 2.0, 5.0, 10.0, 20.0, 50.0], [35.0, 40.0, 45.0, 50.0, 55.0])
    >>> plain_ticks(20, 160)
    [20.0, 50.0, 100.0]
    """
    decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    for steps in ((1.0,), (1.0, 2.0, 5.0)):
        found = [step * 10.0**power for power in decades for step in steps if low <= step * 10.0**power <= high]
        if len(found) >= 3:
            return [float(f"{tick:.6g}") for tick in found]
    even = matplotlib.ticker.MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    few = [float(f"{tick:.6g}") for tick in even if low <= tick <= high and tick > 0]
    return few if len(few) > len(found) else [float(f"{tick:.6g}") for tick in found]


def apart(ticks: Sequence[float], places: Sequence[float], sizes: Sequence[float]) -> list[float]:
    """Those of ``ticks`` whose labels, ``sizes`` inches long around their ``places``, do not touch one before.

    >>> apart([1, 2, 3], [0.0, 0.1, 0.5], [0.2, 0.2, 0.2])
    [1, 3]
    """
    kept, end = [], -np.inf
    for tick, place, size in zip(ticks, places, sizes, strict=True):
        if place - size / 2 > end:
            kept.append(tick)
            end = place + size / 2 + 0.06
    return kept


def set_ticks(axis: Axis, ticks: Sequence[float], inches: float, scale: Callable[[Any], Any] = np.asarray) -> None:
    """Label ``axis``, ``inches`` long, at those of ``ticks`` that have room; ``scale`` is ``np.log`` on a log axis."""
    low, high = (float(scale(end)) for end in axis.get_view_interval())
    places = [inches * (float(scale(tick)) - low) / (high - low) for tick in ticks]
    texts = [said(float(tick)) for tick in ticks]
    sizes = [LINE if axis.axis_name == "y" else CHARACTER * len(text) for text in texts]  # type: ignore[attr-defined]
    kept = apart(ticks, places, sizes)
    axis.set_major_locator(matplotlib.ticker.FixedLocator(kept))
    axis.set_major_formatter(matplotlib.ticker.FuncFormatter(lambda value, _: said(float(value))))
    axis.set_minor_locator(matplotlib.ticker.NullLocator())


def log_axis(axes: Axes, which: str, values: np.ndarray, ends: np.ndarray, inches: float, reach: float = 2.0) -> None:
    """Make the axis ``which``, x or y, logarithmic, around ``values`` and the ends of their intervals.

    An end that lies more than ``reach`` times beyond the values is off the panel.
    """
    known, far = (
        np.asarray([value for value in found if np.isfinite(value) and value > 0]) for found in (values, ends)
    )
    if not len(known):
        return
    low, high = known.min(), known.max()
    if len(far):
        low, high = max(low / reach, min(low, far.min())), min(high * reach, max(high, far.max()))
    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xlim if which == "x" else axes.set_ylim)(low / 1.15, high * 1.15)
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    set_ticks(axis, plain_ticks(low / 1.15, high * 1.15), inches, np.log)
