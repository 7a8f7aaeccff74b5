"""Running what is asked: every setting, on every engine, under every load, on the same draws of the requests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from driftsim.comparison.plan import Setting
from driftsim.errors import InputError
from driftsim.glossary import TENANT
from driftsim.pressing.loads import LoadAxis, sample_of, turns_of
from driftsim.pressing.runs import KeptStore, Runs, axis_among
from driftsim.progress import OnProgress, no_progress
from driftsim.simulation.spec import ScenarioSpec
from driftsim.sweeps.cautions import COLUMN
from driftsim.sweeps.tasks import Inputs
from driftsim.worth.engines import Bench, Engine
from driftsim.worth.plan import Limit, ValuePlan

SLOWDOWN = "_slowdown_mean"  # ends the column of a tenant's
NEEDED = {"key", "failed", "error", "e2e_mean_s", "e2e_p99_s", "slowdown_mean", "log_error", "offered", "finished"}
NEEDED |= {"makespan_s", COLUMN}
DIGITS = 4  # of a load, so that it can be written and tried again


class Cell(NamedTuple):
    """An engine under a load; ``load`` is a share of what the engine serves of a backlog."""

    limit: Limit
    load: float


@dataclass(eq=False)
class Valuation:
    """The results: the engines, and the row of each replication of each setting in each cell.

    turns: requests for each arrival. missing: limits that bind on no variant of the engine.
    """

    plan: ValuePlan
    axis: LoadAxis
    turns: float
    engines: dict[Limit, Engine]
    missing: list[Limit]
    rows: dict[Cell, dict[Setting, list[dict[str, Any]]]]

    def rate(self, cell: Cell) -> float:
        """Arrivals of ``cell``, all turns of sessions among them, requests/s."""
        return self.turns * self.axis.unit_rate * load_of(self.axis, self.turns, self.engines[cell.limit], cell.load)


def needed(column: str) -> bool:
    """Whether ``column`` of a row is used here."""
    return column in NEEDED or (column.startswith(TENANT) and column.endswith(SLOWDOWN))


def worst_slowdown(row: dict[str, Any]) -> float:
    """The largest mean slowdown of a tenant, or the mean of all requests where nobody is told apart.

    >>> worst_slowdown({"slowdown_mean": 2.0, "tenant_a_slowdown_mean": 1.5, "tenant_b_slowdown_mean": 3.0})
    3.0
    """
    own = [value for name, value in row.items() if name.startswith(TENANT) and name.endswith(SLOWDOWN)]
    return float(max(own, default=row.get("slowdown_mean", np.nan)))


def load_of(axis: LoadAxis, turns: float, engine: Engine, share: float) -> float:
    """The load, in the unit of ``axis``, that is ``share`` of what ``engine`` serves of a backlog.

    turns: requests for each arrival.
    """
    return float(f"{share * engine.backlog / (turns * axis.unit_rate):.{DIGITS}g}")


def evaluate(
    chosen: ValuePlan,
    inputs: Inputs,
    store: Path,
    jobs: int = 0,
    address: str | None = None,
    told: OnProgress = no_progress,
) -> Valuation:
    """Run all that ``chosen`` asks for; what ``store`` has is not run again.

    Raises ``InputError`` for what no run could accept, ``RunError`` where a run fails.
    """
    inputs.need(chosen.spec)
    axis = axis_among(chosen.spec, inputs)
    if axis.whole or not axis.unit_rate > 0:
        raise InputError(
            "a load is a share of the rate at which a backlog is served, and these requests have no rate; say how they "
            "should arrive, as --arrivals poisson"
        )
    with KeptStore.keeping(store, needed) as opened:
        runs = Runs(inputs, opened, jobs, address, told, 0)
        sample, _ = sample_of(axis, chosen.spec, runs.recorded)
        if len(sample) < 2:
            raise InputError("a single request waits for nobody, so that no order of requests is better; give more")
        turns = turns_of(axis, chosen.spec, runs.recorded)
        engines = _engines(chosen, Bench(chosen.spec, runs.profile(chosen.spec), sample))
        cells = [Cell(limit, load) for limit in engines for load in chosen.loads]
        loads = {cell: load_of(axis, turns, engines[cell.limit], cell.load) for cell in cells}
        specs = [
            _pressed(chosen.spec, axis, engines[cell.limit], loads[cell]).with_parts({**setting._asdict(), **changes})
            for cell in cells
            for setting in chosen.settings
            for _, changes in chosen.draws
        ]
        rows = iter(runs.rows(specs))
    found = {cell: {setting: [next(rows) for _ in chosen.draws] for setting in chosen.settings} for cell in cells}
    return Valuation(chosen, axis, turns, engines, [limit for limit in chosen.limits if limit not in engines], found)


def _engines(chosen: ValuePlan, bench: Bench) -> dict[Limit, Engine]:
    """The engine on which each limit binds. Raises ``InputError`` where none of them can be made to bind."""
    tried = {limit: bench.engine(limit) for limit in chosen.limits}
    engines = {limit: engine for limit, engine in tried.items() if engine is not None}
    if not engines:
        raise InputError(
            f"{', '.join(chosen.limits)}: can be made to bind on no variant of this engine; name another limit"
        )
    return engines


def _pressed(spec: ScenarioSpec, axis: LoadAxis, engine: Engine, load: float) -> ScenarioSpec:
    changed = spec.with_parts({"engine": {**spec.engine, **engine.changes}, "fairness": True, "estimation": True})
    return axis.at(changed, load)
