"""What load an engine takes: the verb ``capacity`` over plain values."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from driftsim.errors import InputError
from driftsim.inputs import AnyEstimator, AnyPolicy, AnyProfile
from driftsim.pressing.draws import COOL_DOWN, WARM_UP
from driftsim.progress import OnProgress, no_progress
from driftsim.scheduling.admission import Admission
from driftsim.scheduling.plugins import given_classes, plugin_names
from driftsim.simulation.spec import ScenarioSpec
from driftsim.sizing.plan import REPLICATIONS, SizingPlan, distinct_settings
from driftsim.sizing.result import CapacityResult
from driftsim.sizing.run import size
from driftsim.slo import AnySlos, Slo, slo_rules
from driftsim.sources import AnyLoad, read_source
from driftsim.tiers import AnyTiers
from driftsim.trace.trace import Trace
from driftsim.workloads.processes import Process


def capacity(
    what: AnyLoad,
    profile: AnyProfile | None = None,
    *,
    slos: AnySlos = (),
    target: float = 0.99,
    policies: AnyPolicy | Iterable[AnyPolicy] | None = None,
    estimators: AnyEstimator | Iterable[AnyEstimator] | None = None,
    arrivals: Process | None = None,
    requests: int | None = None,
    axes: Mapping[str, Sequence[Any]] | None = None,
    replications: int = REPLICATIONS,
    lowest: float | None = None,
    highest: float | None = None,
    tolerance: float = 0.01,
    warm_up: float = WARM_UP,
    cool_down: float = COOL_DOWN,
    admission: Admission | None = None,
    max_in_flight: int | None = None,
    tiers: AnyTiers = (),
    seed: int | None = None,
    jobs: int = 0,
    address: str | None = None,
    store: Path | str | None = None,
    progress: OnProgress = no_progress,
) -> CapacityResult:
    """The highest load at which enough requests meet their SLOs, under each policy with each estimator.

    what: a trace, whose arrival rate is scaled; a ``WorkloadSpec``, whose rate or number of users is the load; or a
    scenario of either, or its TOML file. profile: of the latency (default: fitted to the trace). slos: limits, such as
    ``"ttft=2s"`` (default: the trace's or the scenario's own). target: the share of the offered requests that must meet
    theirs: "TTFT P99 below 2 s" is 0.99 within ``ttft=2s``. policies, estimators: by default fifo and static, or the
    scenario's. arrivals: of a trace's requests, drawn with replacement, instead of the recorded ones; the rate or the
    users are what is searched for. requests: of each run (default: all of a trace's, or 2000 drawn ones). axes: by key
    of a scenario, such as ``engine.max_num_seqs``, values to hold against the first. replications: the recorded day and
    one less resamples of either kind, or draws. lowest, highest: bounds of the search. tolerance: how near to the
    answer a load has failed. warm_up, cool_down: shares of the requests, first and last, that do not count. store: a
    folder that keeps the runs, so that a search goes on where it was killed. address: of a Dask scheduler. The other
    arguments are those of ``compare``.

    Raises ``InputError`` for what no run could accept, ``RunError`` where a run fails.

    >>> found = capacity("traces/smollm2-cpu-drift", slos="ttft=20s", target=0.9, replications=1, jobs=1)
    >>> [(row["policy"], row["state"]) for row in found.document()["capacity"]]
    [('fifo', 'found')]
    """
    source = read_source(
        what,
        profile,
        arrivals=arrivals,
        requests=requests,
        slos=lambda spec, trace: _slos(spec, slos, trace),
        admission=admission,
        tiers=tiers,
        max_in_flight=max_in_flight,
        seed=seed,
        warm_up=warm_up,
        cool_down=cool_down,
    )
    spec = source.spec
    names = plugin_names([spec.policy] if policies is None else policies)
    learners = plugin_names([spec.estimator] if estimators is None else estimators)
    chosen = SizingPlan(
        spec=spec,
        settings=distinct_settings(names, learners),
        axes={axis: tuple(values) for axis, values in (axes or {}).items()},
        target=target,
        replications=replications,
        lowest=lowest,
        highest=highest,
        tolerance=tolerance,
    )
    if not chosen.settings:
        raise InputError("there is nothing to search for; name a policy and an estimator")
    jobs = 1 if given_classes([*names, *learners]) else jobs  # a class is known in this process alone
    with tempfile.TemporaryDirectory(prefix="driftsim-") as aside:
        place = Path(aside) / "store" if store is None else Path(store)
        found = size(chosen, source.inputs, place, jobs, address, progress)
    searched = {"slos": [str(slo) for slo in spec.slos]}
    searched |= {name: getattr(chosen, name) for name in ("target", "tolerance", "replications")}
    about = source.provenance(chosen.spec_of(chosen.cases[0]))
    return CapacityResult(found, spec.slos, about | searched)


def _slos(spec: ScenarioSpec, slos: AnySlos, trace: Trace | None) -> tuple[Slo, ...]:
    """The SLOs that hold: those given, else the scenario's, else its trace's. Raises ``InputError`` without."""
    rules: tuple[Slo, ...] = slo_rules(slos) or spec.slos or (() if trace is None else trace.header.slos)
    if not rules:
        raise InputError("capacity is the load within SLOs, and there is none; give one, such as --slo ttft=2s")
    return rules
