"""What load an engine takes: the verb ``capacity`` over plain values."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from driftsim.errors import InputError
from driftsim.inputs import AnyEstimator, AnyPolicy, AnyProfile, AnyTrace, as_profile, as_trace, described
from driftsim.latency.profile import Profile, load_profile
from driftsim.progress import OnProgress, no_progress
from driftsim.scheduling.admission import Admission
from driftsim.scheduling.plugins import given_classes, plugin_names
from driftsim.simulation.bases import with_bases
from driftsim.simulation.spec import ScenarioSpec, load_spec
from driftsim.sizing.plan import COOL_DOWN, REPLICATIONS, WARM_UP, SizingPlan, distinct_settings
from driftsim.sizing.result import CapacityResult
from driftsim.sizing.run import size
from driftsim.slo import AnySlos, Slo, slo_rules
from driftsim.sweeps.tasks import Inputs
from driftsim.tiers import AnyTiers, tier_rules
from driftsim.trace.trace import Trace
from driftsim.workloads.generated import WorkloadSpec
from driftsim.workloads.processes import Pace, Process
from driftsim.workloads.replay import replay
from driftsim.workloads.workload import Workload

AnyLoad: TypeAlias = AnyTrace | WorkloadSpec | ScenarioSpec
DRAWN = 2000  # requests of a draw, where nobody says how many
GIVEN = "given"  # stands for a profile that is no file


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
    spec, trace, place = _source(what, arrivals, requests)
    spec = _with_slos(spec, slos, trace)
    given = _profile(spec, profile, trace)
    described_as = profile if profile is not None or spec.profile in (None, GIVEN) else spec.profile
    if admission is not None and trace is not None:
        admission = with_bases(admission, replay(trace), trace).admission
    rules = tier_rules(tiers) or spec.tiers
    spec = spec.changed(
        profile=GIVEN,
        tiers=rules,
        admission=(admission or spec.admission).with_safety(rules),
        max_in_flight=spec.max_in_flight if max_in_flight is None else max_in_flight,
        seed=spec.seed if seed is None else seed,
        warm_up=warm_up,
        cool_down=cool_down,
    )
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
    known = Inputs(given={} if trace is None else {place: trace}, given_profile=given)
    with tempfile.TemporaryDirectory(prefix="driftsim-") as aside:
        found = size(chosen, known, Path(aside) / "store" if store is None else Path(store), jobs, address, progress)
    return CapacityResult(found, spec.slos, _provenance(chosen, trace, described(given, described_as), given))


def _source(what: AnyLoad, arrivals: Process | None, requests: int | None) -> tuple[ScenarioSpec, Trace | None, str]:
    """The scenario, the trace that it replays or draws from, and the path that stands for that trace."""
    if isinstance(what, Workload):
        raise InputError(
            "a Workload is a single draw; give a WorkloadSpec, which can be drawn at any load, or a trace "
            "(what an engine serves of a backlog is backlog_rate(workload, profile))"
        )
    spec, trace, place = _read(what)
    if arrivals is not None:
        if spec.trace is None:
            raise InputError("the workload brings its arrivals; arrivals replace those of a trace alone")
        pace = {name: getattr(arrivals, name) for name in Pace.model_fields}
        drawn = WorkloadSpec(kind=arrivals.kind, trace=spec.trace, requests=requests or DRAWN, **pace)
        return spec.changed(trace=None, workload=drawn, requests=None, profile=spec.profile or GIVEN), trace, place
    if requests is not None:
        if spec.workload is not None:
            return spec.changed(workload=spec.workload.changed(requests=requests)), trace, place
        if trace is not None and requests > len(trace.requests):
            raise InputError(
                f"{trace.name}: has {len(trace.requests)} requests, {requests} were asked for; --arrivals poisson "
                "draws any number of its requests"
            )
        spec = spec.changed(requests=requests)
    return spec, trace, place


def _read(what: AnyLoad) -> tuple[ScenarioSpec, Trace | None, str]:
    """The same of what was given alone."""
    if isinstance(what, WorkloadSpec):
        return ScenarioSpec(workload=what, profile=GIVEN), _first(what.traces), "".join(what.traces[:1])
    if isinstance(what, str | Path) and str(what).endswith(".toml"):
        file = Path(what)
        what = load_spec(file).placed(lambda path: str(file.parent / path))
    if isinstance(what, ScenarioSpec):
        place = "".join(what.traces[:1])
        return what, _first(what.traces), place
    trace = as_trace(what)
    place = str(what) if isinstance(what, str | Path) else str(trace.source or trace.name)
    return ScenarioSpec(trace=place), trace, place


def _first(traces: Sequence[str]) -> Trace | None:
    return as_trace(traces[0]) if traces else None


def _with_slos(spec: ScenarioSpec, slos: AnySlos, trace: Trace | None) -> ScenarioSpec:
    """``spec`` with the SLOs that hold: those given, else its own, else its trace's. Raises ``InputError`` without."""
    rules: tuple[Slo, ...] = slo_rules(slos) or spec.slos or (() if trace is None else trace.header.slos)
    if not rules:
        raise InputError("capacity is the load within SLOs, and there is none; give one, such as --slo ttft=2s")
    return spec.changed(slos=rules)


def _profile(spec: ScenarioSpec, profile: AnyProfile | None, trace: Trace | None) -> Profile:
    """The profile for every run, by default fitted to the trace. Raises ``InputError`` where both lack."""
    if profile is not None:
        return as_profile(profile, None)
    if spec.profile is not None and spec.profile != GIVEN:
        return load_profile(spec.profile)
    if trace is None:
        raise InputError("a workload has no steps to fit a profile to; give one (--profile FILE)")
    return as_profile(None, trace)


def _provenance(chosen: SizingPlan, trace: Trace | None, profile: str, used: Profile) -> dict[str, Any]:
    """What a reader must know to search again."""
    spec = chosen.spec
    name = trace.name if trace is not None else ""
    drawn = "" if spec.workload is None else f"{spec.workload.kind or 'mixed'} arrivals"
    return {
        "source": " of ".join(filter(None, [drawn, name])) or "a workload",
        "trace_digest": "" if trace is None else trace.digest,
        "profile": profile,
        "profile_digest": used.digest,
        "model": used.model,
        "hardware": used.hardware,
        "engine": _engine_limits(used, chosen.spec_of(chosen.cases[0])),
        "slos": [str(slo) for slo in spec.slos],
        "target": chosen.target,
        "tolerance": chosen.tolerance,
        "replications": chosen.replications,
        "requests": spec.requests if spec.workload is None else spec.workload.requests,
        "warm_up": spec.warm_up,
        "cool_down": spec.cool_down,
        "seed": spec.seed,
    }


def _engine_limits(profile: Profile, spec: ScenarioSpec) -> dict[str, Any]:
    """The limits of the engine of ``profile`` under the changes of ``spec``."""
    engine = profile.engine.changed(**spec.engine) if spec.engine else profile.engine
    names = ("max_num_seqs", "max_num_batched_tokens", "kv_blocks", "max_model_len")
    return {name: getattr(engine, name) for name in names}
