"""The style that all figures share: colour-blind safe, readable in print, the same bytes for the same data."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.ticker
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text

from driftsim.text import short, shown_lines

# Okabe and Ito's colour-blind-safe palette.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
GREY = "#444444"
LONGEST_LABEL = 40  # characters
PAGE = 116  # characters of a legend's line, its markers being about six each
LINES = ("-", "--", "-.", ":")
STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "axes.titlesize": 9,
    "legend.frameon": False,
    "svg.hashsalt": "driftsim",
    "svg.fonttype": "none",
    "text.parse_math": False,  # a name with dollars is no formula
}


def label(text: str) -> str:
    """A stranger's name in a figure: on one line, of a length that leaves room for the panels.

    >>> label("x" * 100)
    'xxxxxxxxxxxxxxxx [...] xxxxxxxxxxxxxxxx'
    """
    return short(text, LONGEST_LABEL)


def save(figure: Figure, folder: Path, name: str) -> Path:
    """Write ``figure`` as SVG and PNG (150 dpi); the same figure gives the same bytes. Returns the SVG's path.

    A script that the font lacks is boxes in the PNG and itself in the SVG, whose reader brings the font.
    """
    _take_texts_as_they_are(figure)
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")
        warnings.filterwarnings("ignore", "Matplotlib currently does not support .* natively")
        with _laid_out(FigureCanvasAgg(figure), 150):
            figure.savefig(folder / f"{name}.png", dpi=150, metadata={"Software": None})
        with _laid_out(FigureCanvasSVG(figure), 72):  # the resolution of all SVGs
            figure.savefig(folder / f"{name}.svg", metadata={"Date": None, "Creator": None})
    return folder / f"{name}.svg"


@contextmanager
def _laid_out(canvas: FigureCanvasBase, dpi: int) -> Iterator[None]:
    """The figure of ``canvas`` with everything in its place at ``dpi``; saving alone would draw it twice for that."""
    figure = canvas.figure
    engine, before = figure.get_layout_engine(), figure.dpi
    if engine is not None:
        figure.dpi = dpi
        engine.execute(figure)
        figure.dpi = before
    figure.set_layout_engine(None)
    try:
        yield
    finally:
        figure.set_layout_engine(engine)


def _take_texts_as_they_are(figure: Figure) -> None:
    """Let no name in ``figure`` be read as a formula, or hold what SVG cannot.

    What stands at ticks is written when they are drawn, by ``label``.
    """
    for text in figure.findobj(Text):
        text.set_parse_math(False)
        text.set_text(shown_lines(text.get_text()))


def plain_log_axis(axis: Axis) -> None:
    """Ticks at 1, 2 and 5 times each power of ten, written as plain numbers."""
    axis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(matplotlib.ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(matplotlib.ticker.NullFormatter())


def panels(rows: int, columns: int, height: float, **shared: Any) -> tuple[Figure, list[Axes]]:
    """A figure as wide as a page, with ``rows`` times ``columns`` panels; ``height`` in inches."""
    figure = Figure(figsize=(7.2, height + 0.35), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **shared)
    return figure, list(axes.ravel())


def key(marker: str, text: str, colour: str = GREY) -> Line2D:
    """An entry of a legend: a marker, or a line style."""
    style: dict[str, Any] = {"linestyle": "", "marker": marker, "markerfacecolor": "white"}
    if marker in LINES:
        style = {"linestyle": marker}
    elif colour != GREY:  # a scatter's points are filled
        style["markerfacecolor"] = colour
    return Line2D([], [], color=colour, label=text, **style)


def legend(figure: Figure, keys: Sequence[Artist]) -> None:
    """Write ``keys`` above the panels, in as many rows as they need."""
    if keys:
        longest = max(len(str(one.get_label())) for one in keys)
        columns = len(keys) if sum(len(str(one.get_label())) + 6 for one in keys) <= PAGE else PAGE // (longest + 6)
        figure.legend(handles=keys, loc="outside upper left", ncols=max(1, columns), fontsize=8, handlelength=1.6)
