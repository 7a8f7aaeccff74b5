"""A season: every entrant on every workload under every load, on the same draws; its runs are kept in a store."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from driftsim.pressing.draws import COOL_DOWN, WARM_UP, draws_of
from driftsim.pressing.loads import sample_of, served_rate, turns_of
from driftsim.pressing.runs import KeptStore, Runs, axis_among
from driftsim.progress import OnProgress, after, no_progress
from driftsim.scheduling.estimators import estimator_name
from driftsim.scheduling.names import Place
from driftsim.scheduling.plugins import given_classes, plugin_names
from driftsim.scheduling.policies import POLICIES, STOCK, policy_class, policy_name
from driftsim.simulation.spec import ScenarioSpec, build_scenario
from driftsim.sources import Source, read_source
from driftsim.worth.run import needed, worst_slowdown
from experiments.league.ranks import Scores
from experiments.league.table import FIFO, MEASURES, Entrant, Table
from experiments.league.workloads import FIXTURES, LOADS, Fixture

FIELD = (STOCK, *POLICIES, "boost?sizes=label", "past-future?lengths=estimate")  # the register, and two ways besides
BLIND = (
    STOCK, "fifo", "priority", "weighted", "aging", "edf", "accumulating", "gittins", "ewsjf", "past-future",
)  # heed no estimate of a length, but for past-future's of the first, so that they take part once  # fmt: skip
ONLY_INSIDE = ("preempts", "admits", "expendable")  # methods that nothing in front of the engine asks
ESTIMATORS = ("static", "ema", "regression")
BOUND = "oracle"  # is told the truth: outside of the ranking
REPLICATIONS = 8
COLUMNS = {"slowdown_p99", "attainment"}


def league(
    policies: Iterable[str | type] = FIELD,
    estimators: Sequence[str] = (*ESTIMATORS, BOUND),
    fixtures: Mapping[str, Fixture] | None = None,
    loads: Sequence[float] = LOADS,
    *,
    replications: int = REPLICATIONS,
    store: Path | str | None = None,
    jobs: int = 0,
    progress: OnProgress = no_progress,
) -> Table:
    """The league table of ``policies``, each with each of ``estimators``; FIFO always takes part.

    policies: names, ``file.py:Class``, or classes. fixtures: the workloads (default: all of this version). loads:
    shares of what the engine serves of a backlog. store: a folder that keeps the runs, so that a league goes on where
    it was killed, and a further policy costs its own runs alone.
    """
    fixtures = FIXTURES if fixtures is None else fixtures
    names = list(dict.fromkeys([FIFO.policy, *(policy_name(name) for name in plugin_names(list(policies)))]))
    learners = list(dict.fromkeys([FIFO.estimator, *map(estimator_name, estimators)]))
    entrants = [
        Entrant(name, learner, place_of(name))
        for name in names for learner in (learners[:1] if name in BLIND else learners)
    ]  # fmt: skip
    if given_classes(names):
        jobs = 1  # a class is known in this process alone
    found: dict[str, dict[str, Scores]] = {measure: {} for measure in MEASURES}
    with tempfile.TemporaryDirectory(prefix="driftsim-") as aside:
        place = Path(aside) / "store" if store is None else Path(store)
        sources = {
            name: read_source(one.spec(), one.profile(), warm_up=WARM_UP, cool_down=COOL_DOWN)
            for name, one in fixtures.items()
        }
        runs = [len(entrants) * len(loads) * len(draws_of(one.spec, replications)) for one in sources.values()]
        for number, (name, source) in enumerate(sources.items()):
            told = after(progress, sum(runs[:number]), sum(runs))
            kinds, values = _play(source, entrants, loads, replications, place, jobs, told)
            for measure in MEASURES:
                found[measure][name] = Scores(kinds, values[measure])
    return Table(entrants, found)


def place_of(name: str) -> Place:
    """Where the policy ``name`` plays: inside the engine if it asks for what is there alone, else in front."""
    return "inside" if any(hasattr(policy_class(name), method) for method in ONLY_INSIDE) else "front"


def _play(
    source: Source, entrants: Sequence[Entrant], loads: Sequence[float], replications: int, store: Path, jobs: int,
    told: OnProgress,
) -> tuple[list[str], dict[str, np.ndarray]]:  # fmt: skip
    """One workload: the kind of each replication, and the scores by measure, (entrants, replications)."""
    spec, inputs, draws = source.spec, source.inputs, draws_of(source.spec, replications)
    inputs.need(spec)
    axis = axis_among(spec, inputs)
    with KeptStore.keeping(store, lambda name: name in COLUMNS or needed(name)) as opened:
        runs = Runs(inputs, opened, jobs, None, told, 0)
        sample, _ = sample_of(axis, spec, runs.recorded)
        served = served_rate(sample, build_scenario(spec, source.profile))
        full = served / (axis.unit_rate * turns_of(axis, spec, runs.recorded))
        specs: list[ScenarioSpec] = []
        for load in loads:
            pressed = axis.at(spec.with_parts({"fairness": True}), float(f"{load * full:.4g}"))
            specs += [
                pressed.with_parts({**entrant._asdict(), **changes}) for entrant in entrants for _, changes in draws
            ]
        rows = runs.rows(specs)
    shape = (len(loads), len(entrants), len(draws))
    values = {name: np.reshape([of(row) for row in rows], shape) for name, of in _READ.items()}
    return [kind for kind, _ in draws], {name: _scores(name, value) for name, value in values.items()}


def _scores(measure: str, values: np.ndarray) -> np.ndarray:
    """Scores of (loads, entrants, replications) against the first entrant, FIFO, the mean over the loads."""
    of_shares = measure == "within"  # more of these is better, less of all others
    scores = values[:, :1] - values if of_shares else np.log(values) - np.log(values[:, :1])
    mean: np.ndarray = scores.mean(axis=0)
    return mean


def _of(name: str) -> Any:
    return lambda row: float(row.get(name, np.nan))


_READ: dict[str, Any] = {
    "mean": _of("e2e_mean_s"), "p99": _of("e2e_p99_s"), "worst": worst_slowdown, "within": _of("attainment"),
    "starved": _of("slowdown_p99"),
}  # fmt: skip
