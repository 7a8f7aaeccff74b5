"""One run: a policy on a trace or a workload."""

from __future__ import annotations

from driftsim.clients import AnyRetries, AnyTimeouts, clients_of
from driftsim.drift import AnyDrifts
from driftsim.errors import InputError
from driftsim.inputs import (
    AnyEstimator,
    AnyPolicy,
    AnyProfile,
    AnyTrace,
    as_barrier,
    as_profile,
    as_replicas,
    as_slos,
    as_workload,
    check_clients,
    naming,
    with_drift,
)
from driftsim.scheduling.admission import Admission
from driftsim.scheduling.names import Place
from driftsim.scheduling.plugins import plugin_name
from driftsim.scheduling.policies import STOCK
from driftsim.scheduling.shedding import AnySheds, shed_rules
from driftsim.simulation.bases import with_bases
from driftsim.simulation.names import EngineName
from driftsim.simulation.replicas import Replicas
from driftsim.simulation.run import simulate as run_scenario
from driftsim.simulation.scenario import Barrier, Scenario
from driftsim.slo import AnySlos, needs_itl
from driftsim.tiers import AnyTiers, tier_rules
from driftsim.trace.trace import Trace
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
    drift: AnyDrifts = (),
    timeouts: AnyTimeouts = (),
    retries: AnyRetries = None,
    shed: AnySheds = (),
    replicas: int | Replicas = 1,
    place: Place = "front",
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
    workload = with_drift(workload, drift, seed)
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
        replicas=as_replicas(replicas),
        place=place,
        refill_lag=refill_lag,
        noise=noise,
        barrier=as_barrier(engine),
        seed=seed,
    )
    check_clients(scenario, workload.table)
    return run_scenario(scenario, workload, record_steps=steps, step_requests=step_requests or needs_itl(scenario.slos))
