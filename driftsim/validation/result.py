"""The result of a validation: each recorded run beside its simulation, shown as text, data frame, JSON or folder."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from driftsim.calibration.coverage import extrapolation_warnings, mismatch_warnings
from driftsim.calibration.host_speed import NEARLY_THE_STEPS
from driftsim.engine.conformance import conformance
from driftsim.engine.versions import not_compared
from driftsim.errors import InputError, check_whole
from driftsim.files import Mark, whole_folder
from driftsim.formatting import between, dumps, html_table, show_table, shown_text, signed_percent, without_nan
from driftsim.latency.profile import Profile
from driftsim.progress import OnProgress, after, no_progress
from driftsim.records import parsed_json
from driftsim.scheduling.policies import BASELINE
from driftsim.simulation.names import StepSource
from driftsim.text import for_html
from driftsim.trace.schema import TRACE_FILES
from driftsim.trace.trace import Trace, check_each_once
from driftsim.validation.agreement import (
    FEWEST,
    ChangeAgreement,
    MetricAgreement,
    change_agreement,
    metric_agreement,
    repeats,
)
from driftsim.validation.equivalence import MARGIN
from driftsim.validation.shares import attainments, hit_rates, rows_of, sentences
from driftsim.validation.validation import TOLERANCE_S, Validation, on_measured_steps, on_model_steps, with_noise, worst
from driftsim.workloads.unfinished import caveats

if TYPE_CHECKING:
    from rich.console import Console


SEEDS = 20  # runs with noise
WIDTH = 100  # columns of the printed text

MARK = Mark("validation.json", '{\n "files": [')  # which tells the folder of a validation


@dataclass(frozen=True, eq=False)
class ValidationResult:
    """Recorded runs beside their simulations.

    profile: the name of the latency profile, None on measured steps. intervals: of simulations with noise. repeats:
    the error of the level of runs that were repeated, and their noise floor. changes: whether what policies change,
    simulated, is what was measured.

    >>> from driftsim.trace.trace import read
    >>> result = validate_runs([read("traces/smollm2-cpu-small-kv")], None, steps="measured")
    >>> len(result.exceptions), result.frame()["metric"].nunique()
    (0, 4)
    """

    validations: list[Validation]
    profile: str | None
    model: Profile | None
    intervals: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One for each run, metric and statistic: measured, simulated (s), and the signed relative error."""
        return [row for validation in self.validations for row in validation.rows()]

    @property
    def tenants(self) -> list[dict[str, Any]]:
        """The same for each tenant."""
        return [row for validation in self.validations for row in validation.tenants()]

    @property
    def exceptions(self) -> list[dict[str, Any]]:
        """The requests whose first token or finish is off by more than ``TOLERANCE_S``, on measured steps."""
        return [
            {"trace": validation.name, **{str(column): value for column, value in record.items()}}
            for validation in self.validations
            if validation.exceptions is not None
            for record in validation.exceptions.to_dict("records")
        ]

    @property
    def repeats(self) -> list[MetricAgreement]:
        """The error of the level of runs that were repeated, metric by metric."""
        return metric_agreement(self.validations)

    @property
    def changes(self) -> list[ChangeAgreement]:
        """The simulated changes of repeated policies against FIFO, held against the measured ones."""
        return self._changes[0]

    @cached_property
    def _changes(self) -> tuple[list[ChangeAgreement], str]:
        groups = {name: group for name, group in repeats(self.validations).items() if len(group) >= FEWEST}
        return change_agreement(groups)

    def worst(self) -> float:
        """The largest error of all rows, relative and unsigned; NaN where there is none."""
        return worst(self.validations)

    def frame(self) -> pd.DataFrame:
        """``rows`` as a data frame."""
        return pd.DataFrame(self.rows)

    def document(self) -> dict[str, Any]:
        """What ``driftsim validate --json`` prints."""
        document = {
            "rows": self.rows,
            "profile": self.profile,
            "exceptions": self.exceptions,
            "tenants": self.tenants,
            "intervals": self.intervals,
            "repeats": [asdict(one) | {"error": one.error} for one in self.repeats],
            "changes": [one.flat() for one in self.changes],
            "hit_rates": rows_of(hit_rates, self.validations),
            "attainments": rows_of(attainments, self.validations),
            "warnings": self.warnings,
        }
        plain: dict[str, Any] = without_nan(document)
        return plain

    def write(self, folder: Path | str) -> Path:
        """Write the simulated traces into ``folder``, figures that set them beside the measured ones, and the numbers.

        All or nothing; an earlier validation there is replaced. Raises ``TraceError`` if the folder holds anything
        else, and ``OSError``.
        """
        from driftsim.figures import save
        from driftsim.validation.figures import validation_figures

        with whole_folder(folder, written(Path(folder)), MARK) as building:
            for one in self.validations:
                one.simulated.write(building / one.name)
                for name, figure in validation_figures(one.recorded, one.simulated, self.model).items():
                    save(figure, building, f"{one.name}-{name}")
            document = {"files": sorted(file.name for file in building.iterdir()), **self.document()}
            (building / MARK.name).write_text(dumps(document) + "\n", encoding="utf-8")
        return Path(folder)

    def show(self, console: Console, *, by_tenant: bool = False) -> None:
        """Print the errors, the agreement with repeats, the exceptions and the warnings."""
        self._show_errors(console, self.tenants if by_tenant else self.rows)
        for one in self.validations if self.profile is None else []:
            count = len(one.recorded.requests)
            off = 0 if one.exceptions is None else len(one.exceptions)
            console.print(
                f"{one.name}: {count - off} of {count} requests within {1000 * TOLERANCE_S:g} ms at the first "
                f"and last token; {100 * (one.steps_alike or 0):.2f} % of the steps composed alike",
                markup=False,
            )
        for one in self.validations:
            for sentence in sentences(one):
                console.print(sentence, markup=False)
        if self.repeats:
            self._show_repeats(console)
        if self.changes:
            self._show_agreement(console)
        for record in self.exceptions[:20]:
            console.print(f"  {record}", markup=False, soft_wrap=True)
        for warning in self.warnings:
            console.print(f"Warning: {warning}.", markup=False, soft_wrap=True)
        for version in dict.fromkeys(one.simulated.header.engine.version for one in self.validations):
            console.print(f"Engine: {conformance(version)}", style="dim", markup=False, soft_wrap=True)

    def _show_errors(self, console: Console, rows: list[dict[str, Any]]) -> None:
        drawn = {(row["trace"], row["metric"], row["stat"]): row for row in self.intervals}
        lines = []
        for row in rows:
            if row["metric"] == "makespan" and row["stat"] != "mean":
                continue
            between = drawn.get((row["trace"], row["metric"], row["stat"]))
            lines.append(
                [
                    f"{row['trace']} {row['tenant']}" if "tenant" in row else row["trace"],
                    row["metric"] if row["metric"] == "makespan" else f"{row['metric']} {row['stat']}",
                    f"{row['measured']:.4f}",
                    f"{row['simulated']:.4f}",
                    *([f"{between['low']:.4f} to {between['high']:.4f}"] if between else [""] if drawn else []),
                    signed_percent(row["error"], 2),
                ]
            )
        headings = ["trace\n", "metric\n", "measured\ns", "simulated\ns"]
        headings += [*(["95 % interval\ns"] if drawn else []), "error\n"]
        title = "Simulated on the recorded steps" if self.profile is None else f"Simulated with {self.profile}"
        show_table(console, title, headings, lines)

    def _show_repeats(self, console: Console) -> None:
        headings = ["run\n", "metric\n", "repeats\n", "measured\ns", "simulated\ns", "error\n", "noise floor\n"]
        lines = [
            [one.name, one.metric if one.metric == "makespan" else f"{one.metric} {one.stat}",
             str(one.repeats), f"{one.measured:.4f}", f"{one.simulated:.4f}", signed_percent(one.error),
             f"{100 * one.spread:.1f} %"]
            for one in self.repeats
        ]  # fmt: skip
        title = "Level of repeated runs: mean error beside the standard deviation of the repeats; no verdict"
        show_table(console, title, headings, lines)

    def _show_agreement(self, console: Console) -> None:
        headings = ["policy\n", "metric\n", "simulated / measured\n90 % interval", "verdict\n"]
        judged = [(one, one.difference.judgement) for one in self.changes]
        lines = [
            [one.policy, f"{one.metric} {one.stat}", between(one.difference.judged), judgement.verdict]
            for one, judgement in judged
        ]
        show_table(console, f"Change against {BASELINE}: is the simulated one the measured one?", headings, lines)
        counts = Counter(judgement.verdict for _, judgement in judged)
        why = self._changes[1]
        console.print(
            f"Of {len(lines)} changes {counts['equivalent']} are equivalent, {counts['different']} different, "
            f"{counts['undetermined']} undetermined, at a margin of a factor of {math.exp(MARGIN):.2f} and 5 % a test, "
            + (f"not adjusted for the speed of the host: {why}." if why else "at one speed of the host."),
            markup=False,
        )
        steps = {f"{one.metric} {one.stat}" for one in self.changes if one.difference.explained > NEARLY_THE_STEPS}
        if steps:
            console.print(
                f"The speed explains nearly all variation of {', '.join(sorted(steps))}: that is nearly the step-time "
                "model held against itself.",
                markup=False,
            )
        for one, judgement in judged:
            if judgement.reason:
                reason = f"  {one.policy}, {one.metric} {one.stat}: {judgement.reason}."
                console.print(reason, markup=False, soft_wrap=True)

    def __str__(self) -> str:
        return shown_text(self.show, WIDTH)

    def _repr_html_(self) -> str:
        table = html_table(self.frame())
        return table + "".join(f"<p><small>{for_html(warning)}.</small></p>" for warning in self.warnings)


def validate_runs(
    traces: Sequence[Trace],
    profile: Profile | None,
    name: str | None = None,
    steps: StepSource = "model",
    seeds: int | None = None,
    progress: OnProgress = no_progress,
) -> ValidationResult:
    """Simulate each of ``traces`` as it was measured; ``name`` is the profile's, ``progress`` hears of the requests
    simulated, over all runs, and of all.

    Raises ``InputError`` where profile and steps do not fit, and ``TraceError`` for a run that cannot be simulated so.
    """
    if steps not in ("model", "noise", "measured"):
        raise InputError(f"unknown steps {steps!r}; choose one of model, noise, measured")
    if (steps == "measured") == (profile is not None):
        raise InputError(
            "--steps measured takes no --profile; drop one of them"
            if steps == "measured"
            else f"--steps {steps} needs --profile, fitted to other runs than these (driftsim calibrate)"
        )
    if seeds is None:
        seeds = SEEDS
    elif steps != "noise":
        raise InputError(f"steps {steps!r} draws nothing, so seeds does nothing; drop it")
    check_whole("seeds", seeds)
    if seeds < 2:
        raise InputError(f"an interval needs at least 2 seeds, got {seeds}")
    if not traces:
        raise InputError("no trace to validate with")
    check_each_once((str(trace.source or trace.name), trace.digest) for trace in traces)
    validations, intervals, warnings = list[Validation](), list[dict[str, Any]](), list[str]()
    runs, done = 1 + (seeds if steps == "noise" else 0), 0
    total = runs * sum(len(trace.requests) for trace in traces)
    for own, trace in zip(_names(traces), traces, strict=True):
        said = [*caveats(trace), not_compared(trace.header.engine.version)]
        warnings += [f"{own}: {one}" for one in said if one]
        told = after(progress, done, total)
        if profile is None:
            validations.append(on_measured_steps(own, trace))
        else:
            validations.append(on_model_steps(own, trace, profile, told))
            warnings += [f"{own}: {warning}" for warning in extrapolation_warnings(profile, validations[-1].simulated)]
            if steps == "noise":
                intervals += with_noise(own, trace, profile, seeds, after(told, len(trace.requests), total))
        done += runs * len(trace.requests)
        progress(done, total)
    if profile is not None:
        found = [warning for trace in traces for warning in mismatch_warnings(profile, trace)]
        warnings += list(dict.fromkeys(found))
        if set(profile.fitted_on) & {trace.digest for trace in traces}:
            warnings.append("the profile was fitted to some of these very runs: the errors flatter it")
    shown = None if profile is None else name or f"a profile of {profile.model} on {profile.hardware}"
    return ValidationResult(validations, shown, profile, intervals, warnings)


def _names(traces: Sequence[Trace]) -> list[str]:
    """A name for each trace: its folder's, or its folder's path where two folders have one name."""
    names = [trace.name for trace in traces]
    if len(set(names)) < len(names):
        names = [str(trace.source or trace.name) for trace in traces]
    return [name.strip("/").replace("/", "-").lstrip(".") or "trace" for name in names]  # each names a folder


def written(folder: Path) -> list[str]:
    """What a validation wrote into ``folder``, so far as nobody has put a recorded run in its place."""
    try:
        files = parsed_json((folder / MARK.name).read_text(encoding="utf-8"))["files"]
        ours = [str(name) for name in files if _is_ours(folder / str(name))]
    except (OSError, ValueError, TypeError, KeyError):
        return []
    return [MARK.name, *ours]


def _is_ours(place: Path) -> bool:
    """Whether ``place`` is a simulated trace with nothing beside it, or a figure."""
    if place.is_file():
        return place.suffix in (".png", ".svg")
    names = {file.name for file in place.iterdir()} if place.is_dir() else set()
    header = place / "header.json"
    return names <= {*TRACE_FILES} and parsed_json(header.read_text(encoding="utf-8")).get("kind") == "simulated"
