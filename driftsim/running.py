"""One run: a policy on a trace or a workload, given in Python or written down as a scenario."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from driftsim.calibration.coverage import extrapolation_warnings, mismatch_warnings
from driftsim.clients import AnyRetries, AnyTimeouts, clients_of
from driftsim.errors import InputError
from driftsim.inputs import (
    AnyEstimator,
    AnyPolicy,
    AnyProfile,
    AnyTrace,
    as_barrier,
    as_profile,
    as_slos,
    as_workload,
    check_clients,
    naming,
)
from driftsim.latency.profile import load_profile
from driftsim.progress import OnProgress, no_progress
from driftsim.scheduling.admission import Admission
from driftsim.scheduling.plugins import plugin_name
from driftsim.scheduling.policies import STOCK
from driftsim.scheduling.shedding import AnySheds, shed_rules
from driftsim.simulation.bases import with_bases, with_own_bases
from driftsim.simulation.names import EngineName
from driftsim.simulation.run import simulate as run_scenario
from driftsim.simulation.scenario import Barrier, Scenario
from driftsim.simulation.spec import ScenarioSpec, build_scenario, build_workload, load_spec
from driftsim.slo import AnySlos, needs_itl
from driftsim.tiers import AnyTiers, tier_rules
from driftsim.trace.trace import Trace, read
from driftsim.workloads.workload import Workload


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
    slos: AnySlos = (),
    timeouts: AnyTimeouts = (),
    retries: AnyRetries = None,
    shed: AnySheds = (),
    engine: EngineName | Barrier = "continuous",
    refill_lag: bool = True,
    noise: bool = False,
    seed: int = 0,
    steps: bool = False,
    step_requests: bool = False,
) -> Trace:
    """Simulate one run and return its trace: the same arguments give the same trace, bit by bit.

    what: a trace to replay, or a workload. profile: of the latency; without one, it is fitted to the trace's own steps.
    noise: draw step times around the profile's. steps: record the steps; step_requests: with the requests of each. The
    other arguments are those of ``compare``. A written scenario is run by ``simulate_scenario``.

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
        slos=as_slos(slos, workload, [recorded]),
        clients=clients_of(timeouts, retries),
        shed=shed_rules(shed),
        refill_lag=refill_lag,
        noise=noise,
        barrier=as_barrier(engine),
        seed=seed,
    )
    check_clients(scenario, workload.table)
    return run_scenario(scenario, workload, record_steps=steps, step_requests=step_requests or needs_itl(scenario.slos))


def simulate_scenario(
    file: Path | str, changes: Mapping[str, Any] | None = None, *, progress: OnProgress = no_progress
) -> tuple[Trace, ScenarioSpec, list[str]]:
    """Run the scenario in ``file`` (TOML or JSON): its trace, what it says, and warnings about the profile.

    changes: what replaces the file's, by dotted key, such as ``{"engine.kv_blocks": 900}``. progress: called with
    requests done and requests in all.

    Paths in the file count from its folder. Raises ``InputError`` naming file, key, value and remedy.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
    ...     _ = file.write(f"trace = '{Path('traces/smollm2-cpu-drift').resolve()}'\\npolicy = 'sjf'"), file.flush()
    ...     trace, spec, warnings = simulate_scenario(file.name)
    >>> spec.policy, len(trace.finished)
    ('sjf', 360)
    """
    spec = load_spec(Path(file), changes or {})
    here = spec.placed(lambda path: str(Path(file).parent / path))
    recorded = {path: read(path) for path in here.traces}
    known = load_profile(here.profile) if here.profile else as_profile(None, recorded[here.traces[0]])
    drawn = build_workload(here, recorded.__getitem__)
    try:
        slos = as_slos(spec.slos, drawn, [recorded.get(here.trace or "")])
        scenario = replace(build_scenario(spec, known), slos=slos)
        check_clients(scenario, drawn.table)
    except InputError as error:
        raise InputError(f"{file}: {error}") from None
    admission, _, workload = with_own_bases(spec.admission, drawn, recorded.get(here.trace or ""))
    scenario = replace(scenario, admission=admission)
    steps, named = spec.steps, spec.step_requests or needs_itl(scenario.slos)
    trace = run_scenario(scenario, workload, record_steps=steps, step_requests=named, told=progress)
    found = [warning for other in recorded.values() for warning in mismatch_warnings(known, other)]
    found += [known.engine.why_not_started] if known.engine.why_not_started else []
    return trace, spec, [*workload.notes, *dict.fromkeys(found), *known.warnings, *extrapolation_warnings(known, trace)]
