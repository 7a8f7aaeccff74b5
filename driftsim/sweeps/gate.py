"""A gate for CI: results held against a baseline; a scenario with a metric that moved for the worse fails it.

Simulated latencies are deterministic, so their tolerance is small. Captured runs are compared as groups of repeats, by
the interval of their difference. There is one verdict a scenario, and no line of a report is ever cut.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import pandas as pd

from driftsim.errors import InputError
from driftsim.formatting import html_table, shown_text, signed_percent, without_nan
from driftsim.goodput import with_given
from driftsim.slo import AnySlos, slo_rules
from driftsim.sweeps.baseline import Baseline, load_baseline, rows_by_name, spec_of
from driftsim.sweeps.beside import beside_changes, stored_changes
from driftsim.sweeps.changes import MetricChange, ScenarioChange, grouped, simulated_changes, worst_first
from driftsim.sweeps.gated import HEADLINES, check_names
from driftsim.sweeps.recorder import Watch, unwatched
from driftsim.sweeps.repeats import group_name, repeats_by_name
from driftsim.text import fenced, for_markdown, for_shell, for_xml
from driftsim.trace.trace import Trace, read

if TYPE_CHECKING:
    from rich.console import Console

MOST_LINES = 10  # of verdicts in a report
WIDTH = 100  # columns of the printed text; longer lines are not broken
POWER = "would have been found with 80 % probability, at this spread and number of repeats"


@dataclass(frozen=True, slots=True)
class GateResult:
    """Every scenario, worst first, each with its metrics then and now; ``reason`` is the baseline's.

    ``commands`` are the lines that do a scenario's comparison again, by its name.

    >>> GateResult([], "the first").regressions
    []
    """

    scenarios: list[ScenarioChange]
    reason: str
    commands: Mapping[str, str] = field(default_factory=dict)

    @property
    def regressions(self) -> list[ScenarioChange]:
        """The scenarios of which a metric moved for the worse beyond its tolerance and its floor, worst first."""
        return [scenario for scenario in self.scenarios if scenario.verdict == "regression"]

    @property
    def moved(self) -> list[ScenarioChange]:
        """Those that moved, either way."""
        return [scenario for scenario in self.scenarios if scenario.verdict != "same"]

    @property
    def counts(self) -> str:
        """How many scenarios have which verdict, in words."""
        count = Counter(scenario.verdict for scenario in self.scenarios)
        metrics = sum(len(scenario.changes) for scenario in self.scenarios)
        regressions = _number(count["regression"], "regression")
        improvements = _number(count["improvement"], "improvement")
        scenarios = _number(len(self.scenarios), "scenario")
        return f"{regressions}, {improvements}, {count['same']} unchanged, of {scenarios} with {metrics} metrics"

    def __str__(self) -> str:
        return shown_text(self.show, WIDTH)

    def _repr_html_(self) -> str:
        return html_table(self.frame())

    def rows(self) -> list[dict[str, Any]]:
        """One for each metric of each scenario, worst first."""
        return [change.row() for change in self._changes()]

    def _changes(self) -> list[MetricChange]:
        return worst_first([change for scenario in self.scenarios for change in scenario.changes])

    def frame(self) -> pd.DataFrame:
        """``rows`` as a data frame."""
        return pd.DataFrame(self.rows())

    def document(self) -> dict[str, Any]:
        """Everything, for JSON: each scenario's verdict, each metric, each pair of values then and now."""
        moves = [change.row() | {"pairs": change.pairs} for change in self._changes()]
        verdicts = [
            {
                "scenario": one.name, "verdict": one.verdict, "worst": one.worst.metric, "how": one.how,
                "other_session": one.foreign, "detectable": one.detectable, "error": one.error,
                "reproduce": self.commands.get(one.name, ""),
            }
            for one in self.scenarios
        ]  # fmt: skip
        document: dict[str, Any] = without_nan({"scenarios": verdicts, "moves": moves})
        return {**document, "regressions": len(self.regressions), "reason": self.reason}

    def lines(self) -> list[str]:
        """The report: what moved, worst first, how to do the worst again, what could have been found, the counts."""
        told = [scenario.sentence() for scenario in self.moved[:MOST_LINES]]
        if len(self.moved) > MOST_LINES:
            told.append(f"and {len(self.moved) - MOST_LINES} more; --json lists all")
        if self.regressions and (command := self.commands.get(self.regressions[0].name)):
            told += ["To do the worst again:", f"  {command}"]
        if len(self.scenarios) == 1 and self.moved:
            told += ["Its metrics:", *(f"  {change.verdict}: {change.sentence()}" for change in self.moved[0].changes)]
        return [*told, *self.notes(), self.counts]

    def notes(self) -> list[str]:
        """What the captured groups could have told, a line each, and what they cannot tell."""
        captured = [scenario for scenario in self.scenarios if scenario.detectable is not None]
        told = [f"{one.name} ({one.how}): {_power(one.detectable or {})}" for one in captured[:MOST_LINES]]
        if len(captured) > MOST_LINES:
            told.append(f"and {len(captured) - MOST_LINES} more captured groups; --json lists all")
        if any(one.foreign for one in captured):
            told.append(
                "Note: stored repeats are of another session, and a machine is not as fast in each; what differs may "
                "be the machine. Capture the old version again beside the new one and give it with --beside."
            )
        return told

    def show(self, console: Console) -> None:
        """Print the report; a line that is longer than the console is wide is not broken by us."""
        for line in self.lines():
            console.print(line, markup=False, highlight=False, soft_wrap=True)

    def markdown(self) -> str:
        """A summary for a pull request: the verdict, then what moved, worst first, at most ten rows."""
        lines = [
            f"### driftsim check {'fails' if self.regressions else 'passes'}",
            "",
            f"{self.counts}. Baseline: {for_markdown(self.reason)}",
        ]
        if self.moved:
            lines += [
                "",
                "| verdict | scenario | worst metric | baseline | now | change |",
                "|---|---|---|--:|--:|--:|",
            ]
        for one in self.moved[:MOST_LINES]:
            worst = one.worst
            cells = [one.verdict, one.name, worst.metric, f"{worst.then:.6g}", f"{worst.now:.6g}", worst.told]
            lines.append("| " + " | ".join(map(for_markdown, cells)) + " |")
        if len(self.moved) > MOST_LINES:
            lines += ["", f"and {len(self.moved) - MOST_LINES} more; `--json` lists all"]
        if self.regressions and (command := self.commands.get(self.regressions[0].name)):
            lines += ["", "To do the worst again:", "", *fenced(command)]
        lines += [line for note in self.notes() for line in ("", for_markdown(note))]
        return "\n".join(lines) + "\n"

    def junit(self) -> str:
        """JUnit XML: one test case a scenario; a failure lists every metric that became worse."""
        tests, failures = str(len(self.scenarios)), str(len(self.regressions))
        suite = ElementTree.Element("testsuite", name="driftsim check", tests=tests, failures=failures)
        for one in self.scenarios:
            case = ElementTree.SubElement(suite, "testcase", classname="driftsim check", name=for_xml(one.name))
            if one.verdict == "regression":
                failure = ElementTree.SubElement(case, "failure", message=for_xml(one.sentence()))
                worse = [change.sentence() for change in one.changes if change.verdict == "regression"]
                failure.text = for_xml("\n".join([*worse, self.commands.get(one.name, "")]))
        ElementTree.indent(suite)
        written: bytes = ElementTree.tostring(suite, encoding="utf-8", xml_declaration=True)  # in no locale's encoding
        return written.decode() + "\n"


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _power(detectable: Mapping[str, float]) -> str:
    """What could have been found in the headline metrics."""
    known = [(metric, detectable[metric]) for metric in HEADLINES if metric in detectable]
    if not known or all(math.isnan(value) for _, value in known):
        return "a single repeat on a side has no spread, so no change could have been found; capture more repeats"
    told = [f"{metric} {'none' if math.isnan(value) else signed_percent(value)}" for metric, value in known]
    return f"{', '.join(told)} {POWER}"


def check_baseline(
    baseline: Path | str | None = None,
    *,
    captured: Sequence[Path | str] = (),
    beside: Sequence[Path | str] = (),
    only: str | None = None,
    floors: Mapping[str, float] = MappingProxyType({}),
    slos: AnySlos = (),
    store: Path | str | None = None,
    jobs: int = 0,
    watch: Watch = unwatched,
) -> GateResult:
    """Hold results against the baseline in a file: its runs are simulated again, or their rows taken from ``store``.

    captured: folders of captured traces. beside: captures of the old version, made in the same session; the captured
    traces are compared with these and with no stored number, and the baseline, which may be left out, gives the
    tolerances. Without them, captured traces are held against the baseline's stored repeats. only: one scenario, by its
    name or the first digits of its key. floors: by metric, or by unit, ``s`` or ``tokens``: a smaller change is none
    (default: the baseline's). slos: of the captured traces (default: each one's own). jobs, watch: as ``sweep`` has
    them.

    Raises ``InputError`` for a baseline that cannot be held against what is given.

    >>> check_baseline("experiments/gate/baseline.json", jobs=1).regressions
    []
    """
    known = Baseline(reason="captured beside the new runs") if baseline is None else load_baseline(Path(baseline))
    check_names({}, floors, "floors")
    known = known.changed(floors={**known.floors, **floors})
    _check_asked(known, baseline, bool(captured), bool(beside), store is not None)
    new, old = ([(Path(path), with_given(read(path), slos)) for path in paths] for paths in (captured, beside))
    if only is not None:
        known, new, old = _narrowed(known, new, old, only)
    scenarios = []
    if known.runs and baseline is not None:
        specs = {run.name: spec_of(run, Path(baseline).parent) for run in known.runs}
        rows = rows_by_name(specs, None if store is None else Path(store), jobs, watch)
        scenarios += simulated_changes(known, rows)
    if new:
        now, then = (repeats_by_name([trace for _, trace in side]) for side in (new, old))
        scenarios += beside_changes(known, then, now) if beside else stored_changes(known, now)
    scenarios.sort(key=lambda scenario: scenario.worst.rank)
    same = [] if baseline is None else ["--baseline", str(baseline)]
    same += [part for name, value in floors.items() for part in ("--floor", f"{name}={value!r}")]
    same += [part for slo in slo_rules(slos) for part in ("--slo", str(slo))]
    commands = {one.name: _command([*same, "--only", one.selector], one, new, old) for one in scenarios}
    return GateResult(scenarios, known.reason, commands)


Captures = list[tuple[Path, Trace]]


def _check_asked(known: Baseline, file: Path | str | None, captured: bool, beside: bool, store: bool) -> None:
    """Raise ``InputError`` where what was asked for cannot be done with the baseline."""
    if beside and not captured:
        raise InputError("--beside gives runs of the old version; give those of the new one with --captured TRACE")
    if file is None:
        if not beside:
            raise InputError("give --baseline FILE, or captured runs of the old version with --beside TRACE")
        if store:
            raise InputError("without a baseline nothing is simulated, so a store does nothing; drop it")
        return
    if captured and not beside and not known.captured:
        raise InputError(
            f"{file}: holds no captured runs to compare with; capture the old version beside the new one and give it "
            "with --beside TRACE, or make the baseline anew with --update --captured"
        )
    if not known.runs and not captured:
        raise InputError(f"{file}: holds captured runs only; give their counterparts with --captured TRACE")
    if not known.runs and store:
        raise InputError(f"{file}: holds no simulated run, so a store does nothing; drop it")


def _narrowed(known: Baseline, new: Captures, old: Captures, only: str) -> tuple[Baseline, Captures, Captures]:
    """What belongs to the one scenario, or to the one group of captured runs, that ``only`` names."""
    groups = grouped(known.runs)
    by_key = {name for name, runs in groups.items() if any(run.key.startswith(only) for run in runs)}
    runs = groups.get(only) or [run for name in groups if name in by_key for run in groups[name]]
    new, old = ([(path, trace) for path, trace in side if group_name(trace) == only] for side in (new, old))
    if not runs and not new:
        raise InputError(f"no scenario is named {only!r} or has a key that begins so; --json lists the names")
    stored = [group for group in known.captured if group.name == only]
    return known.changed(runs=runs, captured=stored), new, old


def _command(options: Sequence[str], scenario: ScenarioChange, new: Captures, old: Captures) -> str:
    """The command line that does the comparison of ``scenario`` again."""
    words = ["driftsim", "check", *options]
    if scenario.detectable is not None:
        for option, side in (("--captured", new), ("--beside", old)):
            words += [
                part for path, trace in side if group_name(trace) == scenario.name for part in (option, str(path))
            ]
    return for_shell(words)
