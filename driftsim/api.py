"""The verbs of driftsim, each one function over plain values; the command line and the notebooks call these.

Wherever a verb takes a trace, a profile or a workload, it takes the object or the path it is stored at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from driftsim.calibration.calibrate import calibrate as fit_runs
from driftsim.calibration.coverage import extrapolation_warnings
from driftsim.calibration.runs import Run
from driftsim.comparison import report
from driftsim.comparison.captured import CapturedComparison
from driftsim.comparison.captured import compare_captured as compare_runs
from driftsim.comparison.comparison import (
    ComparisonPlan,
    check_plan,
    default_policies,
    measured_by_phase,
    runs_of,
    settings_of,
)
from driftsim.comparison.comparison import compare as compare_settings
from driftsim.comparison.result import ComparisonResult
from driftsim.errors import InputError
from driftsim.inputs import (
    AnyEstimator,
    AnyPolicy,
    AnyProfile,
    AnyTrace,
    as_barrier,
    as_profile,
    as_trace,
    as_workload,
    check_words,
    counting,
    described,
    naming,
    with_engine,
)
from driftsim.latency.profile import Profile, load_profile
from driftsim.latency.roofline import Assumptions, derive, shape_of
from driftsim.scheduling.admission import Admission
from driftsim.scheduling.plugins import plugin_name, plugin_names
from driftsim.scheduling.policies import STOCK
from driftsim.simulation import laws
from driftsim.simulation.bases import with_bases, with_own_bases
from driftsim.simulation.capacity import capacity as backlog_capacity
from driftsim.simulation.names import EngineName, FitSource, StepSource
from driftsim.simulation.run import simulate as run_scenario
from driftsim.simulation.scenario import Barrier, Scenario
from driftsim.simulation.spec import ScenarioSpec, build_scenario, build_workload, load_spec
from driftsim.sweeps.recorder import Watch, unwatched
from driftsim.sweeps.runner import sweep_grid
from driftsim.sweeps.store import Store
from driftsim.tiers import AnyTiers, tier_rules
from driftsim.trace.trace import Trace, read
from driftsim.validation.result import ValidationResult, validate_runs
from driftsim.workloads.workload import Workload


def compare(
    what: AnyTrace | Workload,
    *,
    policies: AnyPolicy | Iterable[AnyPolicy] | None = None,
    estimators: AnyEstimator | Iterable[AnyEstimator] = ("static", "ema"),
    profile: AnyProfile | None = None,
    admission: Admission | None = None,
    phase: str = "all",
    replications: int = 20,
    rate_scale: float = 1.0,
    max_in_flight: int | None = None,
    tiers: AnyTiers = (),
    engine: EngineName | Barrier = "continuous",
    kv_blocks: int | None = None,
    refill_lag: bool = True,
    seed: int = 0,
    jobs: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ComparisonResult:
    """Replay a trace, or run a workload, under each policy with each estimator, and set the results side by side.

    policies, estimators: names, ``file.py:Class``, or classes (default: stock and all of ours). profile: the latency
    profile; without one, it is fitted to the trace's own steps. admission: how requests are estimated. phase: measure
    one phase only. replications: the trace as recorded and resamples of it, for the intervals. rate_scale: above 1
    presses harder. max_in_flight: requests inside the engine at most (default: its slots). tiers: their order, weights
    and limits, most urgent first: rules, names or ``gold:5,silver:3`` (default: the trace's, else the published).
    engine: continuous batching, or the DriftSched worker's barrier. kv_blocks: another size of the KV cache.
    refill_lag: a freed slot misses the next step, as recorded. jobs: processes (default: one a core). progress: called
    with runs done and runs in all.

    Raises ``InputError`` for what no run could accept, ``TraceError`` for a trace that cannot be replayed so.

    >>> result = compare("traces/smollm2-cpu-drift", policies=["fifo", "sjf"], replications=3, jobs=1)
    >>> [(row["policy"], row["estimator"], round(row["e2e_mean_s"], 2)) for row in result.rows()]
    [('fifo', 'static', 87.93), ('fifo', 'ema', 87.93), ('sjf', 'static', 59.76), ('sjf', 'ema', 59.21)]
    """
    workload, recorded = as_workload(what, rate_scale)
    rules = tier_rules(tiers) or workload.tiers
    with naming(recorded):
        admission, excluded, workload = with_bases(admission, workload, recorded)
        check_words(workload, admission)
    given = as_profile(profile, recorded)
    asked, left_out = default_policies(workload, rules, given) if policies is None else (plugin_names(policies), [])
    if not (settings := settings_of(asked, plugin_names(estimators))):
        raise InputError("there is nothing to compare; name a policy and an estimator")
    choice = ComparisonPlan(
        profile=with_engine(given, {} if kv_blocks is None else {"kv_blocks": kv_blocks}),
        admission=admission.with_safety(rules),
        settings=settings,
        excluded=excluded,
        phase=phase,
        replications=replications,
        max_in_flight=max_in_flight,
        tiers=rules,
        refill_lag=refill_lag,
        barrier=as_barrier(engine),
        seed=seed,
        left_out=tuple(left_out),
    )
    check_plan(choice, workload)
    as_recorded = rate_scale == 1 and kv_blocks is None and profile is None
    measured = measured_by_phase(recorded, choice) if as_recorded and recorded is not None else None
    result = compare_settings(workload, choice, jobs, counting(progress, runs_of(choice)), measured)
    provenance = {
        "trace": workload.info.name if recorded is None else recorded.name,
        "trace_digest": "" if recorded is None else recorded.digest,
        "kind": "generated" if recorded is None else recorded.header.kind,
        "profile": described(choice.profile, profile),
        "rate_scale": rate_scale,
        **report.provenance(choice),
    }
    return ComparisonResult(**vars(result), provenance=provenance)


def compare_captured(*traces: AnyTrace) -> CapturedComparison:
    """What policies changed on the real engine: captured runs of one workload, compared round by round with FIFO.

    Raises ``TraceError`` if the traces are not captured runs of one workload, complete, with FIFO among them.

    >>> from pathlib import Path
    >>> result = compare_captured(*Path("traces/smollm2-cpu-policies").glob("*-*"))
    >>> sorted({effect.policy for effect in result.effects()})
    ['aging', 'fifo', 'priority', 'sjf', 'weighted']
    """
    if not traces:
        raise InputError("there is nothing to compare; give captured runs")
    runs = [as_trace(trace) for trace in traces]
    return compare_runs([(str(run.source or run.name), run) for run in runs])


def simulate(
    what: AnyTrace | Workload,
    *,
    policy: AnyPolicy = "fifo",
    estimator: AnyEstimator = "static",
    profile: AnyProfile | None = None,
    admission: Admission | None = None,
    rate_scale: float = 1.0,
    max_in_flight: int | None = None,
    tiers: AnyTiers = (),
    engine: EngineName | Barrier = "continuous",
    refill_lag: bool = True,
    noise: bool = False,
    seed: int = 0,
    steps: bool = False,
) -> Trace:
    """Simulate one run and return its trace: the same arguments give the same trace, bit by bit.

    what: a trace to replay, or a workload. profile: the latency profile; without one, the profile is fitted to the
    trace's own steps. noise: draw step times around the profile's. steps: record the steps as well. The other
    arguments are those of ``compare``. A written scenario is run by ``simulate_scenario``.

    Raises ``InputError`` for a workload without a profile or without output lengths.

    >>> run = simulate("traces/smollm2-cpu-drift", policy="sjf")
    >>> from driftsim.metrics import summary
    >>> round(summary(run)["e2e_mean_s"], 2)
    59.76
    """
    if policy == STOCK and max_in_flight is not None:
        raise InputError("policy 'stock' has no limit in flight; leave max_in_flight out, or take 'fifo'")
    workload, recorded = as_workload(what, rate_scale)
    with naming(recorded):
        admission, _, workload = with_bases(admission, workload, recorded)
    scenario = Scenario(
        profile=as_profile(profile, recorded),
        policy=plugin_name(policy),
        estimator=plugin_name(estimator),
        admission=admission,
        max_in_flight=max_in_flight,
        tiers=tier_rules(tiers),
        refill_lag=refill_lag,
        noise=noise,
        barrier=as_barrier(engine),
        seed=seed,
    )
    return run_scenario(scenario, workload, record_steps=steps)


def simulate_scenario(file: Path | str) -> tuple[Trace, ScenarioSpec, list[str]]:
    """Run the scenario in ``file`` (TOML or JSON): its trace, what it says, and warnings about the profile.

    Paths in the file count from its folder. Raises ``InputError`` naming file, key, value and remedy.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
    ...     _ = file.write(f"trace = '{Path('traces/smollm2-cpu-drift').resolve()}'\\npolicy = 'sjf'"), file.flush()
    ...     trace, spec, warnings = simulate_scenario(file.name)
    >>> spec.policy, len(trace.finished)
    ('sjf', 360)
    """
    spec = load_spec(Path(file))
    here = spec.placed(lambda path: str(Path(file).parent / path))
    recorded = {path: read(path) for path in here.traces}
    known = load_profile(here.profile) if here.profile else as_profile(None, recorded[here.traces[0]])
    drawn = build_workload(here, recorded.__getitem__)
    scenario = build_scenario(spec, known)
    admission, _, workload = with_own_bases(spec.admission, drawn, recorded.get(here.trace or ""))
    trace = run_scenario(replace(scenario, admission=admission), workload, record_steps=spec.steps)
    return trace, spec, [*workload.notes, *known.warnings, *extrapolation_warnings(known, trace)]


def calibrate(
    *traces: AnyTrace,
    source: FitSource = "auto",
    until: float | None = None,
    progress: Callable[[str], None] | None = None,
) -> Profile:
    """Fit one latency profile to recorded runs of one model, GPU and engine, jointly.

    source: the ``steps``, or the timings of ``requests``; ``auto`` takes steps where there are some. until: fit only
    the first so many seconds of each run. progress: called with a line about what is being done.

    Raises ``TraceError`` if the runs do not belong together or are too short.

    >>> profile = calibrate("traces/smollm2-cpu-backlog", "traces/smollm2-cpu-low-load")
    >>> profile.fit.source
    'steps'
    """
    runs = [as_trace(trace) for trace in traces]
    named = [Run(str(run.source or run.name), run, run.digest) for run in runs]
    limit = np.inf if until is None else until
    return fit_runs(named, source=source, until=limit, report=progress or (lambda message: None))


def derive_profile(gpu: str, model: Path | str, **assumptions: Any) -> Profile:
    """A profile of a GPU that nobody has measured, from its datasheet and the model's Hugging Face configuration.

    gpu: T4, L4, A10G, L40S, A100, H100, H200 or RTX 4090. model: a config.json, a model folder, or a name in the local
    cache; nothing is fetched. assumptions: fields of ``driftsim.latency.roofline.Assumptions``.

    Raises ``InputError`` for an unknown GPU, a model that is no dense decoder, or one that leaves no KV cache.

    >>> config = '{"num_hidden_layers": 28, "hidden_size": 3584, "intermediate_size": 18944, "vocab_size": 152064, \
"num_attention_heads": 28, "num_key_value_heads": 4, "max_position_embeddings": 32768}'
    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
    ...     _ = file.write(config), file.flush()
    ...     profile = derive_profile("L4", file.name, max_model_len=8192)
    >>> 0.03 < profile.intercept_s < 0.1
    True
    """
    return derive(gpu, shape_of(str(model)), Assumptions.of(assumptions))


def validate(
    *traces: AnyTrace,
    profile: AnyProfile | None = None,
    steps: StepSource = "model",
    seeds: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ValidationResult:
    """Simulate what was measured, and set the two side by side.

    profile: fitted to other runs than these. steps: ``model`` takes the profile's step times, ``noise`` draws around
    them for an interval over ``seeds`` runs (20), ``measured`` takes the recorded steps, so that only scheduling can
    err. progress: called with runs done and runs in all.

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
    _, keys = sweep_grid(
        Path(grid), Path(store), jobs=jobs, address=address, keep=keep_traces, retry=retry_failed, watch=watch
    )
    rows = Store.open(store).table()
    return rows[rows["key"].isin(keys)].reset_index(drop=True)


def check_laws(what: str | type) -> list[laws.Verdict]:
    """Hold a policy or an estimator, a class or a name, to the laws that ours are held to.

    Raises ``InputError`` if it is neither.

    >>> all(verdict.holds for verdict in check_laws("sjf"))
    True
    """
    return laws.verdicts(plugin_name(what))[1]


def capacity(what: AnyTrace | Workload, profile: AnyProfile, *, max_in_flight: int | None = None) -> float:
    """Requests a second that the engine of ``profile`` serves of a trace or a workload when all of it is there at once.

    Raises ``InputError`` if the workload does not know its output lengths.

    >>> workload = Workload.backlog(requests=100, prompt_tokens=16, output_tokens=50)
    >>> round(capacity(workload, Profile.plain(intercept_s=0.01, max_num_seqs=4)), 2)
    8.0
    """
    workload, recorded = as_workload(what, 1.0)
    known = as_profile(profile, recorded)
    return backlog_capacity(workload, Scenario(profile=known, max_in_flight=max_in_flight))
