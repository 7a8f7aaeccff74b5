"""Running a search: rounds of runs, in each of which every case tries its next load on every replication.

The runs are those of a sweep: kept in a store, on local processes or on a Dask cluster. All cases see the same requests
at a load, and all loads the same draws. A search that was killed asks for the same loads again and finds them there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from driftsim.errors import InputError
from driftsim.pressing.loads import LoadAxis
from driftsim.pressing.runs import KeptStore, Runs, axis_among
from driftsim.progress import OnProgress, no_progress
from driftsim.simulation.limits import SHARES
from driftsim.simulation.spec import ScenarioSpec
from driftsim.sizing.curves import Curve
from driftsim.sizing.loads import Bounds, bounds_of
from driftsim.sizing.plan import Case, SizingPlan
from driftsim.sizing.search import Search
from driftsim.sweeps.cautions import COLUMN
from driftsim.sweeps.tasks import Inputs

EXPECTED_LOADS = 14  # of a case, for the progress
MOST_BEYOND = 4  # loads that are added on either side for the sake of an interval
LIMIT_RUNS = 5  # replications that say what binds
BEYOND = 1.08  # times the capacity: so far above it, at least, it is asked what binds
LATENCIES = ("ttft", "tpot", "e2e")  # whose P99 a run tells
NEEDED = {"key", "failed", "error", "attainment", "offered", "makespan_s", COLUMN}
NEEDED |= {f"{name}_p99_s" for name in LATENCIES} | {f"{name}_share" for name in SHARES}


@dataclass(eq=False)
class Found:
    """What came of one case: its search, the rows of each load that was tried, by replication, and what binds.

    shares: those of ``limit_shares`` at the load ``beyond``, the mean over a few replications.
    """

    case: Case
    search: Search
    bounds: Bounds
    rows: dict[float, list[dict[str, Any]]] = field(default_factory=dict)
    shares: dict[str, float] = field(default_factory=dict)

    def curve(self, kinds: Sequence[str], target: float) -> Curve:
        """The attainment of each replication at each load; one without any request that has an SLO is left out."""
        loads = sorted(self.rows)
        values = np.array([[row.get("attainment", np.nan) for row in self.rows[load]] for load in loads], dtype=float).T
        of_kind = {kind: values[[place for place, one in enumerate(kinds) if one == kind]] for kind in set(kinds)}
        known = {kind: own[~np.isnan(own).any(axis=1)] for kind, own in of_kind.items()}
        return Curve(np.array(loads), target, known)

    @property
    def load(self) -> float:
        """The capacity; or the lowest load where nothing held, and the highest where all did."""
        if self.search.capacity is not None:
            return self.search.capacity
        return min(self.search.held)

    @property
    def beyond(self) -> float:
        """The load at which it shows what binds: one that failed, a little above the capacity.

        At the capacity itself hardly anybody waits, if the target is near 1.
        """
        if self.search.state != "found":
            return self.load
        failed = [load for load, held in self.search.held.items() if not held]
        return min((load for load in failed if load >= BEYOND * self.load), default=max(failed))


@dataclass(eq=False)
class Sizing:
    """The results: what each case came to, in the order of the plan's."""

    plan: SizingPlan
    axis: LoadAxis
    found: list[Found]


def size(
    chosen: SizingPlan,
    inputs: Inputs,
    store: Path,
    jobs: int = 0,
    address: str | None = None,
    told: OnProgress = no_progress,
) -> Sizing:
    """Search for the capacity of every case of ``chosen``; what ``store`` has is not run again.

    ``inputs``: the traces and profiles, so far as they are no files. Raises ``InputError`` for what no run could
    accept, ``RunError`` where a run fails.
    """
    specs = {case: chosen.spec_of(case) for case in chosen.cases}
    for spec in specs.values():
        inputs.need(spec)
    axis = axis_among(next(iter(specs.values())), inputs)
    with KeptStore.keeping(store, NEEDED.__contains__) as opened:
        runs = Runs(inputs, opened, jobs, address, told, EXPECTED_LOADS * len(specs) * len(chosen.draws))
        rounds = _Rounds(chosen, axis, specs, runs)
        rounds.run()
    return Sizing(chosen, axis, list(rounds.found.values()))


class _Rounds:
    """The rounds of one search."""

    def __init__(self, chosen: SizingPlan, axis: LoadAxis, specs: dict[Case, ScenarioSpec], runs: Runs) -> None:
        self.plan, self.axis, self.specs, self.runs = chosen, axis, specs, runs
        self.draws = chosen.draws
        self.kinds = [kind for kind, _ in self.draws]
        bounds: dict[str, Bounds] = {}  # of each engine
        self.found: dict[Case, Found] = {}
        for case, spec in specs.items():
            name = repr((case.axis, case.value))
            if name not in bounds:
                profile, recorded = runs.profile(spec), runs.recorded
                bounds[name] = bounds_of(axis, spec, profile, recorded, chosen.lowest, chosen.highest)
            own = bounds[name]
            search = Search(own.first, own.lowest, own.highest, chosen.tolerance, axis.whole)
            self.found[case] = Found(case, search, own)

    def run(self) -> None:
        """Search until every case has its answer, then complete the curves, then ask what binds."""
        self._bisect()
        self._try([(case, load) for case, one in self.found.items() for load in one.search.around()])
        for _ in range(MOST_BEYOND):
            self._bisect()  # a lower load may have failed
            self._try(list(self._beyond()))
        self._bisect()
        self._ask_what_binds()

    def _bisect(self) -> None:
        while wanted := [(case, load) for case, one in self.found.items() if (load := one.search.next()) is not None]:
            self._try(wanted)

    def _beyond(self) -> Iterator[tuple[Case, float]]:
        """Loads beyond curves that end before their interval does."""
        for case, one in self.found.items():
            if one.search.state == "found":
                below, above = one.curve(self.kinds, self.plan.target).short()
                for up in [False] * below + [True] * above:
                    yield from ((case, load) for load in one.search.beyond(up))

    def _try(self, wanted: Sequence[tuple[Case, float]]) -> None:
        """Run every replication of each case at its load, and tell the searches."""
        if not wanted:
            return
        pressed = [self.axis.at(self.specs[case], load) for case, load in wanted]
        specs = [spec.with_parts(changes) for spec in pressed for _, changes in self.draws]
        rows = iter(self.runs.rows(specs))
        for case, load in wanted:
            one = self.found[case]
            one.rows[load] = [next(rows) for _ in self.draws]
            curve = one.curve(self.kinds, self.plan.target)
            if not len(curve.counted):
                raise InputError("no measured request has an SLO; give one that these requests have")
            held = curve.mean[list(curve.loads).index(load)] >= self.plan.target
            one.search.tell(load, bool(held))

    def _ask_what_binds(self) -> None:
        some = [changes for kind, changes in self.draws if kind in ("recorded", "drawn", "local")][:LIMIT_RUNS]
        specs = [
            self.axis.at(self.specs[case], one.beyond).with_parts({**changes, "limits": True})
            for case, one in self.found.items()
            for changes in some
        ]
        rows = iter(self.runs.rows(specs))
        for one in self.found.values():
            own = [next(rows) for _ in some]
            for name in (f"{share}_share" for share in SHARES):
                known = [row[name] for row in own if name in row and row[name] == row[name]]
                one.shares[name] = float(np.mean(known)) if known else np.nan


def p99_of(rows: Sequence[dict[str, Any]], limit: str) -> float:
    """P99 of the latency that ``limit`` names, the mean over ``rows``; NaN where no row has it."""
    known = [row[name] for row in rows if (name := f"{limit}_p99_s") in row and row[name] == row[name]]
    return float(np.mean(known)) if known else np.nan
