"""The result of a search for capacity shows itself: as text, as data frames, as a folder with its figure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from driftsim.files import Mark, whole_folder
from driftsim.formatting import between, dumps, html_table, show_table, shown_text, without_nan
from driftsim.sizing import wording
from driftsim.sizing.answers import Answer, answers_of
from driftsim.sizing.plan import short_axis
from driftsim.sizing.run import Sizing
from driftsim.slo import Slo
from driftsim.text import for_csv, shown

if TYPE_CHECKING:
    from rich.console import Console

FILES = ("capacity.csv", "loads.csv", "capacity.json", "capacity.svg", "capacity.png")
MARK = Mark("capacity.json", '{\n "capacity": [')
WIDTH = 100  # columns of the printed text


@dataclass(frozen=True, eq=False)
class CapacityResult:
    """The load that each scheduler, and each engine, takes within the SLOs.

    >>> from driftsim.planning import capacity
    >>> from driftsim.testing import profile
    >>> from driftsim.workloads.generated import WorkloadSpec
    >>> work = WorkloadSpec(kind="poisson", rate=1.0, requests=200, prompt_tokens=8, output_tokens=20)
    >>> result = capacity(work, profile(), slos="ttft=300ms", target=0.9, replications=3, jobs=1)
    >>> list(result.frame()["state"]), bool(result.frame()["load"].gt(0).all())
    (['found'], True)
    """

    sizing: Sizing
    slos: tuple[Slo, ...]
    provenance: dict[str, Any]

    @cached_property
    def answers(self) -> list[Answer]:
        """What each case came to."""
        return answers_of(self.sizing)

    def answer(self) -> list[str]:
        """What the search says, in sentences."""
        said = wording.conclusions(self.sizing, self.answers, self.slos)
        return [*said, *wording.gains(self.sizing, self.answers)]

    def warnings(self) -> list[str]:
        """What a reader must know before trusting the numbers."""
        return wording.cautions(self.sizing, self.answers)

    def frame(self) -> pd.DataFrame:
        """One row for each case; NaN where there is no number.

        ``load`` is the capacity, empty unless ``state`` is ``found``; ``at_load`` is the load of the other columns.
        """
        return pd.DataFrame([answer.row() for answer in self.answers])

    def loads(self) -> pd.DataFrame:
        """One row for each load that was tried, of each case: what was attained, P99s, and whether it held."""
        return pd.DataFrame([row for answer in self.answers for row in answer.load_rows()])

    def document(self) -> dict[str, Any]:
        """What ``driftsim capacity --json`` prints."""
        made = {
            "capacity": [answer.row() for answer in self.answers],
            "loads": [row for answer in self.answers for row in answer.load_rows()],
            "answer": self.answer(),
            "warnings": self.warnings(),
            "provenance": self.provenance,
        }
        document: dict[str, Any] = without_nan(made)
        return document

    def write(self, folder: Path | str) -> Path:
        """Write capacity.csv, loads.csv, capacity.json and the figure into ``folder``, all or nothing.

        An earlier result there is replaced. Raises ``InputError`` if the folder holds anything else, and ``OSError``.
        """
        from driftsim.figures import save
        from driftsim.sizing.figures import draw

        with whole_folder(folder, FILES, MARK) as building:
            for name, table in (("capacity", self.frame()), ("loads", self.loads())):
                table.map(for_csv).to_csv(building / f"{name}.csv", index=False)
            (building / "capacity.json").write_text(dumps(self.document()) + "\n", encoding="utf-8")
            save(draw(self.sizing, self.answers, self.slos), building, "capacity")
        return Path(folder)

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Headings, each a name, a line break and a unit, and the rows under them."""
        limited = list(dict.fromkeys(name for slo in self.slos for name in slo.limits if name != "itl"))
        axes, rate = any(answer.case.axis for answer in self.answers), self.sizing.axis.kind == "scale"
        headings = ["policy\n", "estimator\n", *(["engine\n"] if axes else []), f"load\n{self.sizing.axis.unit}"]
        headings += ["95 % interval\n", *(["rate\nrequests/s"] if rate else []), "change\nof load"]
        headings += ["attained\n%", *(f"{name.upper()} P99\ns" for name in limited), "binds\n"]
        return headings, [self._cells(answer, axes, rate, limited) for answer in self.answers]

    def _cells(self, answer: Answer, axes: bool, rate: bool, limited: list[str]) -> list[str]:
        case, at = answer.case, answer.at
        bound = {"below": "< ", "above": "> ", "found": ""}[answer.state]
        first = ", ".join(f"{short_axis(axis)} {values[0]}" for axis, values in self.sizing.plan.axes.items())
        engine = f"{short_axis(case.axis)} {case.value}" if case.axis else first
        cells = [*case.setting, *([engine] if axes else []), f"{bound}{wording.number(at.load)}"]
        cells += [wording.span(answer.interval.low, answer.interval.high)]
        cells += [f"{bound}{answer.unit_rate * at.load:.3g}"] if rate else []
        cells += ["" if math.isnan(answer.change.value) else between(answer.change)]
        cells += [f"{100 * at.attained.value:.2f}", *(f"{at.p99[name]:.3g}" for name in limited)]
        return [*cells, wording.BINDS[answer.binds]]

    def show(self, console: Console) -> None:
        """Print the answer, the table, and what must be known besides."""
        from rich.text import Text

        for line in self.answer():
            name, _, text = line.partition(": ")
            console.print(Text.assemble((f"{name}: ", "bold"), shown(text)))
        console.print()
        about = self.provenance
        title = f"Capacity, simulated: {about['source']}; profile {about['profile']}; seed {about['seed']}"
        show_table(console, title, *self.table())
        for line in wording.LEGEND:
            console.print(line, style="dim", markup=False)
        console.print()
        for warning in self.warnings():
            console.print(f"Note: {warning}.", markup=False)

    def __str__(self) -> str:
        return shown_text(self.show, WIDTH)

    def _repr_html_(self) -> str:
        headings, rows = self.table()
        return html_table(pd.DataFrame(rows, columns=[heading.replace("\n", " ").strip() for heading in headings]))
