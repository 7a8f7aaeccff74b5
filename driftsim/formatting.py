"""Numbers, tables and JSON as text, each in one way."""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Callable, Iterable, Sequence
from typing import IO, TYPE_CHECKING, Any, NoReturn

from driftsim.statistics import Interval
from driftsim.text import short, shown, shown_lines

if TYPE_CHECKING:  # rich is imported when something is shown
    import pandas as pd
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

WIDEST = 10_000  # columns
NO_BREAK = "\u00a0"  # a space at which no line ends


def signed_percent(value: float, digits: int = 1) -> str:
    """A relative change in percent.

    >>> signed_percent(-0.2314), signed_percent(0.05, 2)
    ('-23.1 %', '+5.00 %')
    """
    return f"{100 * value:+.{digits}f} %"


def give_or_take(change: Interval) -> str:
    """A relative change, give or take half its interval; no line ends inside it.

    >>> give_or_take(Interval(-0.231, -0.291, -0.171)).replace(NO_BREAK, " ")
    '-23.1 ± 6.0 %'
    """
    value = f"{100 * change.value:+.1f}"
    spread = "" if math.isnan(change.low) else f" ± {50 * (change.high - change.low):.1f}"
    return f"{value}{spread} %".replace(" ", NO_BREAK)


def between(change: Interval, unit: str = " %") -> str:
    """A relative change with its interval.

    >>> between(Interval(-0.231, -0.291, -0.171))
    '-23.1 % [-29.1, -17.1]'
    """
    value = f"{100 * change.value:+.1f}{unit}"
    return value if math.isnan(change.low) else f"{value} [{100 * change.low:+.1f}, {100 * change.high:+.1f}]"


def markdown(headings: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """A Markdown table whose first ``left`` columns are text, the others numbers."""
    marks = ["---" if place < left else "--:" for place in range(len(headings))]
    return "\n".join("| " + " | ".join(row) + " |" for row in [headings, marks, *rows]) + "\n"


def dumps(value: Any) -> str:
    """JSON with a fixed layout: the same value gives the same bytes."""
    return json.dumps(value, indent=1, allow_nan=False)


def without_nan(value: Any) -> Any:
    """``value`` with null wherever a number is not finite: JSON has neither NaN nor infinity."""
    if isinstance(value, dict):
        return {name: without_nan(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def plain_console(**settings: Any) -> Console:
    """A rich console on which a text is itself: no markup, no emoji by name, nothing that acts on the terminal."""
    from rich.console import Console
    from rich.segment import Segment
    from rich.text import Text

    class PlainConsole(Console):
        """Shows each text as it is."""

        def on_broken_pipe(self) -> None:
            leave_quietly(self.file)

        def render_str(self, text: str, *, style: str | Any = "", **_: Any) -> Text:
            return Text(shown(text), style)

        def render(self, renderable: Any, options: Any = None) -> Iterable[Segment]:
            for piece in super().render(renderable, options):
                yield piece if piece.control else Segment(shown_lines(piece.text), piece.style)

    return PlainConsole(highlight=False, markup=False, emoji=False, **settings)


def leave_quietly(stream: IO[str]) -> NoReturn:
    """End the program as a pipe's reader that is gone ends others: exit 141, where rich and typer have 1."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # what is left is flushed to nowhere
    raise SystemExit(141)


def shown_text(show: Callable[[Console], None], width: int) -> str:
    """What ``show`` prints on a console of ``width`` columns, without colours and trailing blanks."""
    text = io.StringIO()
    show(plain_console(file=text, width=width))
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines())


def html_table(frame: pd.DataFrame) -> str:
    """``frame`` for a notebook, whose texts are no HTML, and no formulas for MathJax."""
    texts = frame.map(lambda value: shown(value) if isinstance(value, str) else value)
    plain = ["tex2jax_ignore", "mathjax_ignore"]  # the words of versions 2 and 3
    return str(texts.to_html(index=False, classes=plain, float_format=lambda value: f"{value:.4g}"))


def show_table(console: Any, title: str, headings: Sequence[str], rows: Sequence[Sequence[str | Text]]) -> None:
    """Print a table on a rich ``console``, which is made as wide as the table needs: no number is cut.

    Cells and headings are shown as they are, whatever brackets a name may have, but a very long one lacks its middle.
    A ``Text`` brings a style.
    """
    from rich.measure import Measurement

    table = rich_table(title, headings, rows)
    needed = Measurement.get(console, console.options.update(width=WIDEST), table).maximum
    console.width = max(console.width, needed)
    console.print(table)


def rich_table(title: str, headings: Sequence[str], rows: Sequence[Sequence[str | Text]]) -> Table:
    """A table for a rich console; headings are a name, a line break and a unit, the first two columns stand left."""
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=Text(short(title), "bold") if title else None,
        title_justify="left",
        box=None,
        header_style="bold",
        padding=(0, 1, 0, 0),
    )
    for place, heading in enumerate(headings):
        table.add_column(Text(shown_lines(heading)), justify="left" if place < 2 else "right", no_wrap=True)
    for row in rows:
        # A text is short before it is rich's, which drops control characters.
        table.add_row(
            *(Text(short(cell)) if isinstance(cell, str) else Text(short(cell.plain), cell.style) for cell in row)
        )
    return table
