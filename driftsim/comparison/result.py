"""The result of a comparison shows itself: as text, as a table in a notebook, as a data frame, as a folder."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from driftsim.comparison import estimators, fair, notes, replicas, report, slos, turns, verdict
from driftsim.comparison import folder as folder_of
from driftsim.comparison.comparison import Comparison
from driftsim.engine.conformance import conformance
from driftsim.files import whole_folder
from driftsim.formatting import show_table, shown_text
from driftsim.text import for_html, shown

if TYPE_CHECKING:
    from rich.console import Console

WIDTH = 100  # columns of the printed text
SIGNS = {"best": " *", "tie": " ~", "": "  "}
STYLES = {"best": "bold"}


@dataclass(frozen=True, eq=False)
class ComparisonResult(Comparison):
    """A ``Comparison`` with its provenance: which trace, profile, engine and seed it rests on.

    >>> from driftsim.api import compare
    >>> result = compare("traces/smollm2-cpu-drift", policies=["fifo"], estimators=["static"], replications=1)
    >>> result.provenance["trace"], list(result.frame()["policy"])
    ('smollm2-cpu-drift', ['fifo'])
    """

    provenance: dict[str, Any] = field(default_factory=dict)

    def answer(self) -> list[str]:
        """What the comparison says, in sentences."""
        return verdict.answer(self)

    def warnings(self) -> list[str]:
        """What a reader must know before trusting the numbers."""
        return notes.warnings(self)

    def frame(self) -> pd.DataFrame:
        """One row for each setting, with the columns that ``driftsim columns`` lists; NaN where there is no number."""
        return pd.DataFrame(report.flat_rows(self))

    def estimation(self) -> pd.DataFrame:
        """How well each setting's estimator told lengths before they were known, in this run: a row each.

        The columns are those of ``driftsim.estimation``; NaN where there is no number.
        """
        return pd.DataFrame(self.estimation_rows)

    def document(self) -> dict[str, Any]:
        """What ``driftsim compare --json`` prints."""
        return report.document(self, self.provenance)

    def write(self, folder: Path | str) -> Path:
        """Write rows.csv, comparison.json, the figures and report.html into ``folder``, all or nothing.

        An earlier result there is replaced. Raises ``InputError`` if the folder holds anything else, and ``OSError``.
        """
        with whole_folder(folder, report.FILES, report.MARK) as building:
            folder_of.write(self, self.provenance, building)
        return Path(folder)

    def show(self, console: Console) -> None:
        """Print the verdict, the table, what calibration alone changes, and what must be known besides."""
        from rich.text import Text

        for line in self.answer():
            label, _, text = line.partition(": ")
            console.print(Text.assemble((f"{label}: ", "bold"), shown(text)))
        console.print()
        headings, rows = report.table(self, brief=True)
        cells = [[Text(shown(cell.text) + SIGNS[cell.mark], STYLES.get(cell.mark, "")) for cell in row] for row in rows]
        about = self.provenance
        title = f"{about['trace']}, simulated; profile {about['profile']}; seed {about['seed']}"
        show_table(console, title, [f"{name}\n{unit}" for name, unit in headings], cells)
        for line in report.legend(self):
            console.print(line, style="dim", markup=False)
        if self.plan.slos:
            console.print()
            show_table(console, "Within the SLOs, % of the offered requests with one, in this run", *slos.brief(self))
        if self.plan.fairness:
            console.print()
            show_table(console, fair.title(self), *fair.table(self))
            if (overall := fair.over_days(self)) is not None:
                console.print()
                show_table(console, fair.OVER_DAYS, *overall)
        if replicas.told(self):
            console.print()
            show_table(console, "By replica, in this run", replicas.HEADINGS, replicas.table(self))
            console.print(replicas.LEGEND, style="dim", markup=False)
        if turns.told(self):
            console.print()
            show_table(console, "Sessions; seconds of this run", turns.HEADINGS, turns.table(self))
        if estimators.told(self):
            console.print()
            show_table(console, estimators.title(self), *estimators.table(self))
            console.print(estimators.LEGEND, style="dim", markup=False)
        names, changes = report.effects(self)
        if changes:
            console.print()
            alone = "What calibration alone changes, against static (a policy that heeds no estimate: 0)"
            show_table(console, alone, names, changes)
        if sentences := self.warnings():
            console.print()
        for warning in sentences:
            console.print(f"Note: {warning}.", markup=False)
        console.print(f"Engine: {conformance(self.plan.profile.engine.version)}", style="dim", markup=False)

    def __str__(self) -> str:
        return shown_text(self.show, WIDTH)

    def _repr_html_(self) -> str:
        headings, rows = report.table(self)
        head = "".join(f"<th>{for_html(name)}<br><small>{for_html(unit)}</small></th>" for name, unit in headings)
        signs = {"best": " *", "tie": " ~", "": ""}
        cells = [[f"<td>{for_html(cell.text)}{signs[cell.mark]}</td>" for cell in row] for row in rows]
        body = "".join(f"<tr>{''.join(row)}</tr>" for row in cells)
        notes = "".join(f"<p><small>{for_html(line)}</small></p>" for line in report.legend(self))
        answer = "".join(f"<li>{for_html(sentence)}</li>" for sentence in self.answer())
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{notes}<ul>{answer}</ul>"
