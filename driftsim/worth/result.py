"""The result of a valuation shows itself: as text, as data frames, as a folder with its figure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from driftsim.comparison.plan import Setting
from driftsim.files import Mark, whole_folder
from driftsim.formatting import between, dumps, html_table, show_table, shown_text, without_nan
from driftsim.text import for_csv, shown
from driftsim.worth import wording
from driftsim.worth.answers import Answers
from driftsim.worth.plan import LABELS, Limit, noisy
from driftsim.worth.run import Cell, Valuation

if TYPE_CHECKING:
    from rich.console import Console

FILES = ("value.csv", "beyond.csv", "value.json", "value.svg", "value.png")
MARK = Mark("value.json", '{\n "value": [')
WIDTH = 100  # columns of the printed text


@dataclass(frozen=True, eq=False)
class ValueResult:
    """What predicting output lengths is worth, by the error of the prediction, the load and the limit that binds.

    >>> from driftsim.testing import engine, profile
    >>> from driftsim.valuing import value
    >>> from driftsim.workloads.generated import WorkloadSpec
    >>> lengths = {"kind": "geometric", "mean": 20}
    >>> work = WorkloadSpec(kind="poisson", rate=1.0, requests=200, prompt_tokens=8, output_tokens=lengths)
    >>> result = value(
    ...     work, profile(engine(max_num_seqs=1)), policies="sjf", estimators="static", sigmas=[1], loads=[0.9],
    ...     limits=["slots"], replications=3, jobs=1,
    ... )
    >>> list(result.frame()["estimator"])
    ['static', 'static', 'noisy?sigma=0', 'noisy?sigma=1', 'static']
    """

    valuation: Valuation
    provenance: dict[str, Any]

    @cached_property
    def answers(self) -> Answers:
        """All numbers."""
        return Answers(self.valuation)

    @cached_property
    def _rows(self) -> list[dict[str, Any]]:
        return self.answers.rows()

    @cached_property
    def _beyond(self) -> list[dict[str, Any]]:
        return [found.row() for found in self.answers.beyonds()]

    def answer(self) -> list[str]:
        """What the valuation says, in sentences."""
        return wording.conclusions(self.answers)

    def warnings(self) -> list[str]:
        """What a reader must know before trusting the numbers."""
        return wording.cautions(self.answers)

    def frame(self) -> pd.DataFrame:
        """One row for each engine, load, policy and estimator; NaN where there is no number.

        Latencies in seconds, changes and regrets relative: of `mean` and `p99` end-to-end latency, and of the `worst`
        tenant's slowdown. `log_error` is the mean of |ln(estimate / output)|.
        """
        return pd.DataFrame(self._rows)

    def beyond(self) -> pd.DataFrame:
        """One row for each engine, load, policy, measure and rival: the sigma beyond which the rival wins.

        The rivals need no prediction: FIFO, and boost that goes by ``labels``. ``state`` is found, never, at once, or
        alike where nothing changes.
        """
        return pd.DataFrame(self._beyond)

    def document(self) -> dict[str, Any]:
        """What ``driftsim value --json`` prints."""
        made = {
            "value": self._rows,
            "beyond": self._beyond,
            "answer": self.answer(),
            "warnings": self.warnings(),
            "provenance": self.provenance,
        }
        document: dict[str, Any] = without_nan(made)
        return document

    def write(self, folder: Path | str) -> Path:
        """Write value.csv, beyond.csv, value.json and the figure into ``folder``, all or nothing.

        An earlier result there is replaced. Raises ``InputError`` if the folder holds anything else, and ``OSError``.
        """
        from driftsim.figures import save
        from driftsim.worth.figures import draw

        with whole_folder(folder, FILES, MARK) as building:
            for name, table in (("value", self.frame()), ("beyond", self.beyond())):
                table.map(for_csv).to_csv(building / f"{name}.csv", index=False)
            (building / "value.json").write_text(dumps(self.document()) + "\n", encoding="utf-8")
            save(draw(self.answers), building, "value")
        return Path(folder)

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Headings, each a name, a line break and a unit, and the rows under them."""
        headings = ["what binds\n", "policy\n", "load\n", "mean change\ntruth", "P99\ntruth", "worst tenant\ntruth"]
        headings += ["FIFO wins\nbeyond sigma", "best estimator\n", "mean change\n", "as good as\nsigma"]
        rows = [row for limit in self.valuation.engines for row in self._of_limit(limit)]
        return headings, rows

    def _of_limit(self, limit: Limit) -> Iterator[list[str]]:
        """The rows of one limit: loads at which nothing matters in one; boost by labels predicts no length."""
        plan, name = self.valuation.plan, wording.BINDS[limit].removesuffix(" bind")
        for policy in plan.policies:
            calm = self.answers.calm(limit, policy)
            if calm == calm:
                yield [name, policy, f"up to {calm:g}", f"within {100 * plan.margin:g} %", *[""] * 6]
            for load in plan.loads:
                if not load <= calm:
                    yield [name, policy, f"{load:g}", *self._cells(Cell(limit, load), policy)]
        for load in (load for load in plan.loads if load >= wording.busiest(self.answers)):
            yield [name, LABELS.policy, f"{load:g}", *self._changes(Cell(limit, load), LABELS), *[""] * 4]

    def _cells(self, cell: Cell, policy: str) -> list[str]:
        answers = self.answers
        cells = self._changes(cell, Setting(policy, noisy(0.0)))
        cells += [wording.when_lost(answers.beyond(cell, policy), max(self.valuation.plan.sigmas))]
        name = wording.best_estimator(answers, cell, policy)
        if name is None:
            return [*cells, "", "", ""]
        own = Setting(policy, name)
        like = answers.like_sigma(cell, own)
        cells += [name, between(answers.change(cell, own))]
        return [*cells, "" if like != like else f"{like:.2g}"]

    def _changes(self, cell: Cell, setting: Setting) -> list[str]:
        mean, *others = (self.answers.change(cell, setting, measure) for measure in ("mean", "p99", "worst"))
        return [between(mean), *(f"{100 * other.value:+.0f} %" for other in others)]

    def of_estimators(self, limit: Limit) -> tuple[list[str], list[list[str]]]:
        """How every estimator does under the policy and the load that are told of: its error, effects and regrets."""
        answers, cell = self.answers, Cell(limit, wording.busiest(self.answers))
        policy = wording.first_policy(answers)
        headings = ["estimator\n", "told the truth\n", "error\nlog", "mean change\n", "P99 change\n", "worst tenant\n"]
        headings += ["regret\norder", "regret\nadmission", "regret\npolicy", "as good as\nsigma"]
        rows = []
        for name in self.valuation.plan.predictors:
            own = Setting(policy, name)
            row = answers.row(cell, own)
            told = "no" if self.valuation.plan.is_real(name) else f"blurred, sigma {row['sigma']:g}"
            cells = [name, told, f"{row['log_error']:.2f}"]
            cells += [f"{100 * row[f'{measure}_change']:+.1f} %" for measure in ("mean", "p99", "worst")]
            cells += [f"{100 * row[f'{part}_regret']:+.1f} %" for part in ("order", "admission", "policy")]
            rows.append([*cells, "" if row["like_sigma"] != row["like_sigma"] else f"{row['like_sigma']:.2g}"])
        return headings, sorted(rows, key=lambda cells: float(cells[2]))

    def show(self, console: Console) -> None:
        """Print the answer, the tables, and what must be known besides."""
        from rich.text import Text

        for line in self.answer():
            name, _, text = line.partition(": ")
            console.print(Text.assemble((f"{name}: ", "bold"), shown(text)))
        console.print()
        about = self.provenance
        title = f"Value of predictions, simulated: {about['source']}; profile {about['profile']}; seed {about['seed']}"
        show_table(console, title, *self.table())
        for limit in self.valuation.engines:
            console.print()
            policy, load = wording.first_policy(self.answers), wording.busiest(self.answers)
            title = f"Estimators when {wording.BINDS[limit]}, at a load of {load:g}, under {policy}"
            show_table(console, title, *self.of_estimators(limit))
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
