"""A baseline is what results are held against: runs that are simulated again, and repeats of captured ones."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from pydantic import Field, ValidationError

from driftsim.errors import InputError
from driftsim.files import write_file
from driftsim.goodput import with_given
from driftsim.records import Record, first_problem
from driftsim.scheduling.plugins import check_trusted
from driftsim.simulation.spec import ScenarioSpec
from driftsim.slo import AnySlos
from driftsim.sweeps.gated import FLOORS, GATED, check_names
from driftsim.sweeps.grid import load_grid
from driftsim.sweeps.recorder import Watch, unwatched
from driftsim.sweeps.repeats import repeats_by_name, values_of
from driftsim.sweeps.runner import sweep
from driftsim.sweeps.store import Store
from driftsim.sweeps.tasks import plan, spec_key
from driftsim.trace.trace import read
from driftsim.version import __version__

SIMULATED = 0.001  # relative tolerance of a deterministic value
CAPTURED = 0.05  # of a measured one, beyond its interval


class BaselineRun(Record):
    """One run of the baseline: what it is, and what it came to."""

    name: str
    key: str
    scenario: dict[str, Any]  # a spec; its paths count from the baseline's folder
    metrics: dict[str, float]


class Captured(Record):
    """Repeats of a captured run: each metric's values, in order of capture."""

    name: str
    metrics: dict[str, list[float]]


class Baseline(Record):
    """What results are held against.

    >>> Baseline(reason="the first").tolerance
    0.001
    """

    schema_version: Literal[1] = 1
    driftsim_version: str = __version__
    reason: str
    tolerance: float = Field(default=SIMULATED, ge=0)  # relative, of simulated values
    captured_tolerance: float = Field(default=CAPTURED, ge=0)
    tolerances: dict[str, float] = {}  # of single metrics, instead
    floors: dict[str, float] = FLOORS  # by unit or metric, in that unit: a smaller change is none
    runs: list[BaselineRun] = []
    captured: list[Captured] = []

    def save(self, file: Path) -> None:
        """Write the baseline, whole or not at all. Raises ``OSError``."""
        write_file(file, self.model_dump_json(indent=1) + "\n")


def load_baseline(file: Path) -> Baseline:
    """Read a baseline. Raises ``InputError`` naming file, key, value and remedy."""
    missing, correct = "; make one with --update --reason WHY", "correct the baseline or make it anew with --update"
    baseline = Baseline.from_file(file, "baseline", form="json", missing=missing, correct=correct)
    check_names(baseline.tolerances, baseline.floors, str(file))
    for run in baseline.runs:
        _check_metrics({name: [value] for name, value in run.metrics.items()}, f"{file}: {run.name!r:.80}")
    for group in baseline.captured:
        _check_metrics(group.metrics, f"{file}: {group.name!r:.80}", positive=True)
    return baseline


def _check_metrics(metrics: Mapping[str, list[float]], where: str, positive: bool = False) -> None:
    """Raise ``InputError`` for what is no metric, and for values of one that no run gives.

    ``positive``: whether ratios of the values are compared.
    """
    for name, values in metrics.items():
        if name not in GATED:
            raise InputError(f"{where}: {name!r:.80} is no metric of a baseline; make it anew with --update")
        lowest = -1.0 if name == "kendall_tau" else 0.0
        if not values or any(one <= 0 if positive else one < lowest for one in values):
            raise InputError(f"{where}: {name} has a value that no run gives; make the baseline anew with --update")


def spec_of(entry: BaselineRun, folder: Path) -> ScenarioSpec:
    """The run of ``entry``, whose paths count from ``folder``. Raises ``InputError``."""
    for name in ("policy", "estimator"):
        check_trusted(str(entry.scenario.get(name, "")), f"baseline run {entry.name!r}")
    try:
        return ScenarioSpec.model_validate(entry.scenario).placed(lambda path: str(folder / path))
    except ValidationError as error:
        raise InputError(f"baseline run {entry.name!r}: {first_problem(error)}; make the baseline anew") from None


def rows_by_name(
    specs: dict[str, ScenarioSpec], store: Path | None = None, jobs: int = 0, watch: Watch = unwatched
) -> dict[str, dict[str, Any]]:
    """The row of each of ``specs``, by the same name: from ``store`` where the store has it, else run now.

    ``jobs``: local processes, 0 is one a core. Raises as ``sweep`` does.
    """
    tasks, inputs = plan(list(specs.values()))
    with tempfile.TemporaryDirectory() as aside, Store.open(store or Path(aside) / "store", create=True) as opened:
        sweep(tasks, inputs, opened, jobs=jobs, watch=watch)
        records = opened.table().to_dict("records")
    rows = {str(row["key"]): {str(column): value for column, value in row.items()} for row in records}
    return {name: rows[spec_key(spec, inputs)] for name, spec in specs.items()}


def baseline_runs(specs: dict[str, ScenarioSpec], rows: dict[str, dict[str, Any]], folder: Path) -> list[BaselineRun]:
    """The runs of a baseline in ``folder``, from their results. Raises ``InputError`` for a run that failed."""
    runs = []
    for name, spec in specs.items():
        row = rows[name]
        if row["failed"]:
            raise InputError(f"run {name!r} failed ({row['error']}); a baseline needs results")
        here = spec.placed(lambda path: os.path.relpath(path, folder.resolve()))
        plain = here.model_dump(mode="json", exclude_defaults=True)
        metrics = {metric: float(row[metric]) for metric in GATED if row.get(metric, math.nan) == row.get(metric)}
        runs.append(BaselineRun(name=name, key=row["key"], scenario=plain, metrics=metrics))
    return runs


def named_specs(specs: Sequence[ScenarioSpec]) -> dict[str, ScenarioSpec]:
    """``specs``, each under what tells it apart from the others, in words."""
    flat = []
    for spec in specs:
        plain = spec.model_dump(mode="json")
        plain |= {name: "; ".join(map(str, getattr(spec, name))) for name in ("slos", "drift")}
        plain |= {f"admission.{name}": value for name, value in plain.pop("admission").items()}
        flat.append({name: str(value) for name, value in plain.items()})
    differing = [name for name in flat[0] if len({one[name] for one in flat}) > 1] or ["policy"]
    names = [
        ", ".join(one[name] if name in ("policy", "estimator") else f"{name} {one[name]}" for name in differing)
        for one in flat
    ]
    return dict(zip(names, specs, strict=True))


def make_baseline(
    file: Path | str,
    grid: Path | str | None = None,
    *,
    reason: str,
    captured: Sequence[Path | str] = (),
    store: Path | str | None = None,
    tolerance: float | None = None,
    floors: Mapping[str, float] = MappingProxyType({}),
    slos: AnySlos = (),
    jobs: int = 0,
    watch: Watch = unwatched,
) -> Baseline:
    """Write the baseline in ``file`` anew; what is not given anew, runs, captured runs or tolerances, stays the old's.

    grid: a TOML file of runs, simulated now or taken from ``store``. captured: folders of captured traces. reason: why
    the baseline changes; kept in it. tolerance: relative, of what is simulated (0.001). floors: by metric, or by unit,
    ``s`` or ``tokens``: a smaller change is none (1 ms, 1 token). slos: of the captured traces (each one's own). jobs,
    watch: as ``sweep`` has them. Raises ``InputError`` where there is nothing to hold on to, or a run failed.

    >>> with tempfile.TemporaryDirectory() as folder:
    ...     made = make_baseline(f"{folder}/b.json", "experiments/gate/grid.toml", reason="the first", jobs=1)
    >>> len(made.runs)
    33
    """
    file = Path(file)
    if not reason.strip():
        raise InputError("a baseline says why it is what it is; give a reason")
    old = load_baseline(file) if file.exists() else None
    if grid is None and old is None and not captured:
        raise InputError(f"{file}: a new baseline holds the runs of a grid, or captured traces; give one of them")
    specs = load_grid(Path(grid)) if grid else [spec_of(run, file.parent) for run in old.runs] if old else []
    named = named_specs(specs) if specs else {}
    rows = rows_by_name(named, None if store is None else Path(store), jobs, watch) if named else {}
    check_names({}, floors)
    repeats = repeats_by_name([with_given(read(path), slos) for path in captured])
    groups = [Captured(name=name, metrics=values_of(group)) for name, group in repeats.items()]
    made = Baseline(
        reason=reason,
        tolerance=tolerance if tolerance is not None else old.tolerance if old else SIMULATED,
        captured_tolerance=old.captured_tolerance if old else CAPTURED,
        tolerances=old.tolerances if old else {},
        floors={**(old.floors if old else FLOORS), **floors},
        runs=baseline_runs(named, rows, file.resolve().parent),
        captured=groups or (old.captured if old else []),
    )
    made.save(file)
    return made
