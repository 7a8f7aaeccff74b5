"""The scenario and the workload that repeat a recorded run as it was measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, get_args

from driftsim.errors import TraceError
from driftsim.latency.profile import Profile
from driftsim.progress import OnProgress, no_progress
from driftsim.request import Job
from driftsim.scheduling.admission import Admission
from driftsim.scheduling.estimators import estimator_name, make_estimator
from driftsim.scheduling.inside import Inside
from driftsim.scheduling.names import Place
from driftsim.scheduling.placing import Ranked
from driftsim.scheduling.plugins import check_trusted
from driftsim.scheduling.policies import STOCK, make_policy, needs_of, policy_class, policy_name
from driftsim.simulation.replicas import Replicas
from driftsim.simulation.run import simulate
from driftsim.simulation.scenario import Scenario
from driftsim.tiers import rules_in_force
from driftsim.trace.settings import EngineSettings
from driftsim.trace.trace import Trace
from driftsim.workloads.replay import as_recorded
from driftsim.workloads.workload import Workload


def as_measured(
    trace: Trace, profile: Profile, name: str = "trace", *, loops: bool = True, workload: Workload | None = None,
    **switches: Any,
) -> tuple[Scenario, Workload]:  # fmt: skip
    """The scenario and the workload that repeat ``trace`` as it was measured, with ``profile``'s step times.

    Arrivals, lengths, policy, estimator and limit in flight are the recorded ones; ``switches`` are the scenario's.
    ``loops``: whether arrivals that waited for ends wait for the simulated ones, see ``as_recorded``; ``workload``:
    what that gave before, where a trace is repeated many times.
    Raises ``TraceError`` if the trace names a policy that is not known, or nothing in it finished.
    """
    header = trace.header
    policy = str(header.admission.get("policy", STOCK))
    estimator = str(header.admission.get("estimator", "static"))
    try:
        for own in (policy, estimator):
            check_trusted(own, "the trace")
        policy_class(policy_name(policy))
        estimator_name(estimator)
    except ValueError as error:
        raise TraceError(f"{name}/header.json: {error}") from None
    profile = profile.changed(engine=settings_as_told(header.engine, profile.engine))
    if received_at_arrival(trace):  # nothing lies between the two
        profile = profile.changed(submit_lag_s=0.0)
    settings: dict[str, Any] = {"seed": header.seed or 0} | switches
    if "slos" in needs_of(policy):  # any other order does not look at them
        settings.setdefault("slos", header.slos)
    scenario = Scenario(
        profile=profile,
        policy=policy,
        estimator=estimator,
        admission=Admission.of(header.admission),
        max_in_flight=None if header.replicas else header.max_in_flight,
        replicas=Replicas.of(header.replicas),
        place=place_of(trace, name),
        **settings,
    )
    return scenario, as_recorded(trace, loops=loops) if workload is None else workload


def place_of(trace: Trace, name: str = "trace") -> Place:
    """Where the policy of ``trace`` stood. Raises ``TraceError`` for a place that is none."""
    place = trace.header.admission.get("place", "front")
    if place not in get_args(Place):
        raise TraceError(f"{name}/header.json: admission.place {place!r:.40} is none of {', '.join(get_args(Place))}")
    found: Place = place
    return found


def placed_as_recorded(trace: Trace, jobs: Sequence[Job], name: str) -> Inside | None:
    """The policy that stood inside the engine of ``trace``; where its keys were priorities, ``jobs`` get these.

    Raises ``TraceError`` where that cannot be told: keys that rest on what was learned by then.
    """
    place = place_of(trace, name)
    if place == "front":
        return None
    scenario, _ = as_measured(trace, Profile.plain(intercept_s=1.0), name)
    rules = rules_in_force(trace.header.tiers, frozenset(trace.requests["tier"]))
    policy = make_policy(scenario.policy, rules, slos=scenario.slos)
    learner = make_estimator(scenario.estimator, scenario.admission, {}, scenario.seed)
    if place == "inside":
        return Inside(policy, learner, scenario.admission)
    if hasattr(policy, "served"):
        raise TraceError(f"{name}: the priorities of {scenario.policy} rest on what it had learned; use --steps model")
    queue = Ranked(policy)
    table = trace.requests
    columns = {column: table[column].tolist() for column in ("max_tokens", "estimate", "budget", "arrival_s")}
    for job in jobs:
        limit, estimate, budget, arrival = (values[job.index] for values in columns.values())
        asked = Job(replace(job.request, max_tokens=limit), job.predicted_category, int(estimate), int(budget))
        queue.push(asked, float(arrival))
        job.priority = asked.priority
    return None


def settings_as_told(recorded: EngineSettings, known: EngineSettings) -> EngineSettings:
    """The recorded engine's settings; for those that it did not tell, the ``known`` ones."""
    values = {name: getattr(known, name) for name in recorded.assumed}
    for name in {"max_model_len", "kv_blocks"} & values.keys():  # guessed large enough for the run
        values[name] = max(values[name], getattr(recorded, name))
    return recorded.changed(**values)


def simulate_as_measured(
    trace: Trace, profile: Profile, name: str = "trace", *, told: OnProgress = no_progress, **switches: Any
) -> Trace:
    """``trace`` simulated as it was measured; ``switches`` are the scenario's. Raises as ``as_measured`` does.

    ``told`` hears of the requests simulated, and of all.

    An engine core receives requests between two steps only. Where the recorded arrivals are such times, so are the
    simulated ones: latencies count from the receipt on both sides.
    """
    return anchored(trace, simulate(*as_measured(trace, profile, name, **switches), told=told))


def received_at_arrival(trace: Trace) -> bool:
    """Whether the trace's arrivals are the times at which the engine's core received the requests."""
    return bool((trace.requests["arrival_s"] == trace.requests["queued_s"]).all())


def anchored(recorded: Trace, simulated: Trace) -> Trace:
    """``simulated`` with arrivals of the recorded kind.

    If the recorded arrivals are receipt times at the engine core, replace the simulated arrivals by the simulated
    receipt times, so that latencies count from the same event.
    """
    if not received_at_arrival(recorded):
        return simulated
    received = simulated.requests["queued_s"]
    return replace(simulated, requests=simulated.requests.assign(arrival_s=received, dispatch_s=received))
