"""The verbs of driftsim, each one function over plain values; the command line and the notebooks call these.

Wherever a verb takes a trace, a profile or a workload, it takes the object or the path it is stored at.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from driftsim.calibration.coverage import mismatch_warnings
from driftsim.clients import AnyRetries, AnyTimeouts, clients_of
from driftsim.comparison import report
from driftsim.comparison.captured import CapturedComparison
from driftsim.comparison.captured import compare_captured as compare_runs
from driftsim.comparison.checks import checks_of_days
from driftsim.comparison.plan import ComparisonPlan, check_plans, default_policies, settings_of
from driftsim.comparison.result import ComparisonResult
from driftsim.comparison.runs import compare as compare_settings
from driftsim.comparison.runs import measured_by_phase
from driftsim.costs import UNKNOWN, Costs, recorded_costs
from driftsim.drift import AnyDrifts, drift_rules
from driftsim.errors import InputError
from driftsim.goodput import with_slos
from driftsim.inputs import (
    AnyEstimator,
    AnyPolicy,
    AnyProfile,
    AnyTrace,
    as_barrier,
    as_days,
    as_profile,
    as_replicas,
    as_slos,
    as_trace,
    as_workload,
    check_words,
    described,
    fitted_to_days,
    naming,
    with_engine,
)
from driftsim.profiles import calibrate, derive_profile
from driftsim.progress import OnProgress, no_progress
from driftsim.running import simulate
from driftsim.scheduling.admission import Admission
from driftsim.scheduling.names import Place
from driftsim.scheduling.plugins import plugin_name, plugin_names
from driftsim.scheduling.shedding import AnySheds, shed_rules
from driftsim.simulation import laws
from driftsim.simulation.bases import with_bases
from driftsim.simulation.capacity import capacity as capacity_of
from driftsim.simulation.names import EngineName, StepSource
from driftsim.simulation.replicas import Replicas
from driftsim.simulation.scenario import Barrier, Scenario
from driftsim.slo import AnySlos
from driftsim.statistics import PRACTICAL
from driftsim.sweeps.recorder import Watch, unwatched
from driftsim.sweeps.runner import plan_grid, sweep_grid
from driftsim.sweeps.store import Store
from driftsim.tiers import AnyTiers, tier_rules
from driftsim.validation.result import ValidationResult, validate_runs
from driftsim.workloads.processes import Process
from driftsim.workloads.workload import Workload
from driftsim.written import simulate_scenario

__all__ = [
    "backlog_rate", "calibrate", "check_laws", "compare", "compare_captured", "derive_profile", "simulate",
    "simulate_scenario", "sweep", "validate",
]  # fmt: skip


def compare(
    what: AnyTrace | Workload | Sequence[AnyTrace | Workload],
    *,
    policies: AnyPolicy | Iterable[AnyPolicy] | None = None,
    estimators: AnyEstimator | Iterable[AnyEstimator] = ("static", "ema"),
    profile: AnyProfile | None = None,
    admission: Admission | None = None,
    phase: str = "all",
    replications: int = 20,
    rate_scale: float = 1.0,
    arrivals: Process | None = None,
    max_in_flight: int | None = None,
    tiers: AnyTiers = (),
    slos: AnySlos = (),
    timeouts: AnyTimeouts = (),
    retries: AnyRetries = None,
    shed: AnySheds = (),
    replicas: int | Replicas = 1,
    place: Place = "front",
    costs: Costs = UNKNOWN,
    drift: AnyDrifts = (),
    fairness: bool = False,
    engine: EngineName | Barrier = "continuous",
    kv_blocks: int | None = None,
    settings: Mapping[str, Any] | None = None,
    refill_lag: bool = True,
    practical: float = PRACTICAL,
    seed: int = 0,
    jobs: int | None = None,
    progress: OnProgress = no_progress,
) -> ComparisonResult:
    """Replay a trace, or run a workload, under each policy with each estimator, and set the results side by side.

    what: a trace, its folder, a file of another tool that ``import_trace`` recognises, or a workload; or a list of
    them: days of one engine. policies, estimators: names, ``file.py:Class``, or classes (default: stock and all of
    ours). profile: the latency profile (default: fitted to the trace's own steps, or else to the timings of its
    requests). admission: how requests are estimated. phase: measure one phase only. replications: the trace as recorded
    and one less resamples of it, of either kind, for the intervals. rate_scale: above 1 presses harder. arrivals: other
    arrivals than the recorded ones, such as ``Process(kind="closed", users=16)``. max_in_flight: requests inside the
    engine at most (default: its slots). tiers: their order, weights and limits, most urgent first: rules, names or
    ``gold:5,silver:3`` (default: the trace's, else the published). slos: limits, such as ``premium:ttft=1s,e2e=30s``
    (default: the trace's). timeouts: when clients give up, ``premium:30s``; retries: how often they send again, or how
    (default of both: as the trace says). shed: limits of the queue, ``batch:requests=20,wait=5s``. replicas: how many
    engines, or which and how they are routed to. place: where the policies stand, in ``front`` of the engine, as its
    ``priority``, or ``inside``. drift: to inject, such as ``tenant=a:factor=2:at=600s``, into
    resamples, too. costs: an engine's power and price (default: the power that the trace recorded). fairness: tell how
    much tenants were slowed down. engine: continuous batching, or DriftSched's barrier. kv_blocks: another size of the
    KV cache. settings: other engine settings, such as ``{"max_num_seqs": 16}``. refill_lag: a freed slot misses the
    next step, as recorded. practical: the least relative difference that counts. jobs: processes (default: one a core;
    one where a day has over 300,000 requests, since each takes up to 1.7 KB a request).
    progress: called with runs done and in all.

    Raises ``InputError`` for what no run could accept, ``TraceError`` for a trace that cannot be replayed so.

    >>> result = compare("traces/smollm2-cpu-drift", policies=["fifo", "sjf"], replications=3, jobs=1)
    >>> [(row["policy"], row["estimator"], round(row["e2e_mean_s"], 2)) for row in result.rows()]
    [('fifo', 'static', 87.93), ('fifo', 'ema', 87.93), ('sjf', 'static', 59.76), ('sjf', 'ema', 59.21)]
    """
    days = as_days(what, rate_scale)
    (workload, recorded), others = days[0], days[1:]
    rules = tier_rules(tiers) or workload.tiers
    if others and admission is not None and admission.base == "fit":
        raise InputError("base 'fit' uses up requests of one day; give base_table, or compare one day")
    with naming(recorded):
        admission, excluded, workload = with_bases(admission, workload, recorded)
        check_words(workload, admission)
    workloads = [workload, *(other for other, _ in others)]
    given = fitted_to_days([trace for _, trace in days]) if profile is None else as_profile(profile, recorded)
    asked, left_out = (
        default_policies(workload, rules, given, place) if policies is None else (plugin_names(policies), [])
    )
    if not (compared := settings_of(asked, plugin_names(estimators))):
        raise InputError("there is nothing to compare; name a policy and an estimator")
    if arrivals is not None and rate_scale != 1:
        raise InputError("rate_scale presses the recorded arrivals, which others replace; leave one of the two out")
    changes = {**(settings or {}), **({} if kv_blocks is None else {"kv_blocks": kv_blocks})}
    choice = ComparisonPlan(
        profile=with_engine(given, changes),
        admission=admission.with_safety(rules),
        settings=compared,
        excluded=excluded,
        phase=phase,
        replications=replications,
        max_in_flight=max_in_flight,
        tiers=rules,
        slos=as_slos(slos, None, [trace for _, trace in days]),
        clients=clients_of(timeouts, retries),
        shed=shed_rules(shed),
        replicas=as_replicas(replicas),
        place=place,
        costs=next((costs.over(recorded_costs(trace)) for _, trace in days if trace is not None), costs),
        drift=drift_rules(drift),
        fairness=fairness,
        refill_lag=refill_lag,
        barrier=as_barrier(engine),
        arrivals=arrivals,
        practical=practical,
        seed=seed,
        left_out=tuple(left_out),
    )
    check_plans(choice, workloads)
    others_asked = bool(choice.clients or choice.shed or choice.replicas or choice.drift)
    as_recorded = (
        rate_scale == 1 and not others_asked and not changes and profile is None and arrivals is None and not others
    )
    measured = measured_by_phase(recorded, choice) if as_recorded and recorded is not None else None
    known = [with_slos(trace, choice.checked_slos) for _, trace in days if trace is not None]
    checks = () if measured else checks_of_days(known, given, own=profile is None, several=bool(others))
    result = compare_settings(workloads, choice, jobs, progress, measured)
    mismatches = [text for trace in known if profile is not None for text in mismatch_warnings(given, trace)]
    about = {"profile": described(choice.profile, profile), "rate_scale": rate_scale}
    provenance = {**report.source(workload, recorded), **about, **report.provenance(choice)}
    provenance |= {"days": [report.source(other, trace) for other, trace in days]} if others else {}
    found = {"checks": tuple(checks), "mismatches": tuple(dict.fromkeys(mismatches)), "provenance": provenance}
    return ComparisonResult(**{**vars(result), **found})


def compare_captured(*traces: AnyTrace, practical: float = PRACTICAL) -> CapturedComparison:
    """What policies changed on the real engine: captured runs of one workload, compared with FIFO.

    As measured, round by round, and at one speed of the host, where the runs have steps. practical: the least relative
    change that gets a star.

    Raises ``TraceError`` if the traces are not captured runs of one workload, complete, with FIFO among them.

    >>> from pathlib import Path
    >>> result = compare_captured(*Path("traces/smollm2-cpu-policies").glob("*-*"))
    >>> sorted({effect.policy for effect in result.effects()})
    ['aging', 'fifo', 'priority', 'sjf', 'weighted']
    """
    if not traces:
        raise InputError("there is nothing to compare; give captured runs")
    runs = [as_trace(trace) for trace in traces]
    return compare_runs([(str(run.source or run.name), run) for run in runs], practical)


def validate(
    *traces: AnyTrace,
    profile: AnyProfile | None = None,
    steps: StepSource = "model",
    seeds: int | None = None,
    progress: OnProgress = no_progress,
) -> ValidationResult:
    """Simulate what was measured, and set the two side by side.

    profile: fitted to other runs than these. steps: ``model`` takes the profile's step times, ``noise`` draws around
    them for an interval over ``seeds`` runs (20), ``measured`` takes the recorded steps, so that only scheduling can
    err. progress: called with requests simulated and requests in all, over all runs.

    Raises ``InputError`` where profile and steps do not fit, ``TraceError`` for a run that cannot be simulated so.

    >>> result = validate("traces/smollm2-cpu-small-kv", steps="measured")
    >>> result.exceptions
    []
    """
    known = None if profile is None else as_profile(profile, None)
    name = Path(profile).name if isinstance(profile, Path | str) else None
    return validate_runs([as_trace(trace) for trace in traces], known, name, steps, seeds, progress)


def sweep(
    grid: Path | str,
    store: Path | str,
    *,
    jobs: int = 0,
    address: str | None = None,
    keep_traces: bool = False,
    retry_failed: bool = False,
    watch: Watch = unwatched,
) -> pd.DataFrame:
    """Run the grid in a TOML file into the store, and return its rows; what the store has is not run again.

    jobs: local processes, 0 is one a core. address: of a Dask scheduler, instead. keep_traces: keep each run's trace in
    the store. retry_failed: run again what failed. watch: called with a ``Progress`` as rows come.

    Raises ``InputError`` for a grid that cannot be run, ``OSError`` if the store cannot be written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     rows = sweep("experiments/gate/grid.toml", f"{folder}/store", jobs=1)
    >>> bool(rows["failed"].any())
    False
    """
    planned, place = plan_grid(Path(grid)), Path(store)
    _, keys = sweep_grid(planned, place, jobs=jobs, address=address, keep=keep_traces, retry=retry_failed, watch=watch)
    rows = Store.open(store).table()
    return rows[rows["key"].isin(keys)].reset_index(drop=True)


def check_laws(what: str | type) -> list[laws.Verdict]:
    """Hold a policy or an estimator, a class or a name, to the laws that ours are held to.

    Raises ``InputError`` if it is neither.

    >>> all(verdict.holds for verdict in check_laws("sjf"))
    True
    """
    return laws.verdicts(plugin_name(what))[1]


def backlog_rate(what: AnyTrace | Workload, profile: AnyProfile, *, max_in_flight: int | None = None) -> float:
    """Requests a second that the engine of ``profile`` serves of a trace or a workload when all of it is there at once.

    Raises ``InputError`` if the workload does not know its output lengths.

    >>> from driftsim.latency.profile import Profile
    >>> workload = Workload.backlog(requests=100, prompt_tokens=16, output_tokens=50)
    >>> round(backlog_rate(workload, Profile.plain(intercept_s=0.01, max_num_seqs=4)), 2)
    8.0
    """
    workload, recorded = as_workload(what, 1.0)
    known = as_profile(profile, recorded)
    return capacity_of(workload, Scenario(profile=known, max_in_flight=max_in_flight))
