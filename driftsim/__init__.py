"""driftsim: which scheduler for a multi-tenant LLM server, and is correcting the token-budget estimates worth it?

A trace is a recorded run. Replay it under other schedulers, with and without bias correction, and read the answer:

>>> import driftsim as ds
>>> trace = ds.read("traces/smollm2-cpu-drift")
>>> result = ds.compare(trace, policies=["fifo", "sjf"], replications=3, jobs=1)
>>> [line.partition(":")[0] for line in result.answer()]
['What to do', 'Gain and cost', 'How sure', 'Trust', 'Next']

A profile says how long the steps of an engine take. Fit one to recorded runs, and simulate anything with it:

>>> profile = ds.calibrate("traces/smollm2-cpu-backlog", "traces/smollm2-cpu-low-load")
>>> run = ds.simulate(trace, policy="sjf", profile=profile)
>>> ds.summary(run)["finished"]
360

A workload need not be recorded:

>>> work = ds.Workload.poisson(rate=0.5, requests=200, prompt_tokens=50, output_tokens=100, seed=0)
>>> ds.summary(ds.simulate(work, profile=profile))["finished"]
200

A policy of your own is a class with a ``key``:

>>> class LongestFirst(ds.Keyed):
...     def key(self, job):
...         return -job.budget
>>> all(verdict.holds for verdict in ds.check_laws(LongestFirst))
True

Importing driftsim loads none of its parts: each name is imported as it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from driftsim.version import __version__ as __version__

if TYPE_CHECKING:
    from driftsim.advice import Advice, advise
    from driftsim.api import (
        backlog_rate,
        calibrate,
        check_laws,
        compare,
        compare_captured,
        derive_profile,
        simulate,
        simulate_scenario,
        sweep,
        validate,
    )
    from driftsim.clients import Retries, Timeout
    from driftsim.comparison.captured import CapturedComparison
    from driftsim.comparison.result import ComparisonResult
    from driftsim.costs import Costs
    from driftsim.crowding import fairness
    from driftsim.errors import InputError, RunError, TraceError
    from driftsim.estimates import estimation
    from driftsim.formats.exports import export_trace
    from driftsim.formats.imports import import_trace
    from driftsim.inputs import sample
    from driftsim.latency.profile import Profile, load_profile
    from driftsim.live.capture import capture
    from driftsim.live.choices import EngineChoice, WorkloadChoice
    from driftsim.metrics import e2e, summary, tpot, ttft
    from driftsim.outcomes import slo_outcomes
    from driftsim.planning import capacity
    from driftsim.request import Job, Request, Tier
    from driftsim.scheduling.admission import Admission
    from driftsim.scheduling.estimators import Estimate, Estimator
    from driftsim.scheduling.policies import Keyed, Policy
    from driftsim.scheduling.routing import Replica, Router
    from driftsim.scheduling.shedding import Shed
    from driftsim.sessions import session_table, turn_table
    from driftsim.simulation.laws import Verdict
    from driftsim.simulation.replicas import Replicas
    from driftsim.simulation.scenario import Barrier, Scenario
    from driftsim.simulation.spec import ScenarioSpec, load_spec
    from driftsim.sizing.result import CapacityResult
    from driftsim.slo import Slo
    from driftsim.sweeps.baseline import Baseline, make_baseline
    from driftsim.sweeps.gate import GateResult, check_baseline
    from driftsim.sweeps.store import Store
    from driftsim.tiers import TierRule
    from driftsim.trace.attempts import per_request
    from driftsim.trace.header import Phase
    from driftsim.trace.settings import EngineSettings
    from driftsim.trace.trace import Trace, read
    from driftsim.validation.result import ValidationResult
    from driftsim.valuing import value
    from driftsim.workloads.conversations import Session, SystemPrompts
    from driftsim.workloads.generated import Tenant, WorkloadSpec
    from driftsim.workloads.lengths import Lengths, RecordedLengths
    from driftsim.workloads.processes import Process
    from driftsim.workloads.replay import replay
    from driftsim.workloads.resampling import resample
    from driftsim.workloads.seconds import Seconds
    from driftsim.workloads.workload import Workload
    from driftsim.worth.result import ValueResult


_HOMES = {
    "advice": ("Advice", "advise"),
    "api": (
        "backlog_rate", "calibrate", "check_laws", "compare", "compare_captured", "derive_profile", "simulate",
        "simulate_scenario", "sweep", "validate",
    ),
    "comparison.captured": ("CapturedComparison",),
    "comparison.result": ("ComparisonResult",),
    "crowding": ("fairness",),
    "estimates": ("estimation",),
    "errors": ("InputError", "RunError", "TraceError"),
    "inputs": ("sample",),
    "latency.profile": ("Profile", "load_profile"),
    "live.capture": ("capture",),
    "live.choices": ("EngineChoice", "WorkloadChoice"),
    "metrics": ("e2e", "summary", "tpot", "ttft"),
    "outcomes": ("slo_outcomes",),
    "planning": ("capacity",),
    "request": ("Job", "Request", "Tier"),
    "scheduling.admission": ("Admission",),
    "scheduling.estimators": ("Estimate", "Estimator"),
    "scheduling.policies": ("Keyed", "Policy"),
    "sessions": ("session_table", "turn_table",),
    "simulation.laws": ("Verdict",),
    "simulation.scenario": ("Barrier", "Scenario"),
    "simulation.spec": ("ScenarioSpec", "load_spec"),
    "sizing.result": ("CapacityResult",),
    "slo": ("Slo",),
    "sweeps.baseline": ("Baseline", "make_baseline"),
    "sweeps.gate": ("GateResult", "check_baseline"),
    "sweeps.store": ("Store",),
    "tiers": ("TierRule",),
    "trace.header": ("Phase",),
    "trace.settings": ("EngineSettings",),
    "formats.exports": ("export_trace",),
    "formats.imports": ("import_trace",),
    "trace.trace": ("Trace", "read"),
    "validation.result": ("ValidationResult",),
    "valuing": ("value",),
    "workloads.conversations": ("Session", "SystemPrompts",),
    "workloads.generated": ("Tenant", "WorkloadSpec"),
    "workloads.lengths": ("Lengths", "RecordedLengths"),
    "workloads.processes": ("Process",),
    "workloads.replay": ("replay",),
    "workloads.resampling": ("resample",),
    "workloads.seconds": ("Seconds",),
    "workloads.workload": ("Workload",),
    "worth.result": ("ValueResult",),
    "clients": ("Retries", "Timeout",),
    "scheduling.shedding": ("Shed",),
    "scheduling.routing": ("Router", "Replica",),
    "simulation.replicas": ("Replicas",),
    "trace.attempts": ("per_request",),
    "costs": ("Costs",),
}  # fmt: skip
_HOME = {name: module for module, names in _HOMES.items() for name in names}
__all__ = [
    "Admission", "Advice", "Barrier", "Baseline", "CapacityResult", "CapturedComparison", "ComparisonResult", "Costs",
    "EngineChoice", "EngineSettings", "Estimate", "Estimator", "GateResult", "InputError", "Job", "Keyed", "Lengths",
    "Phase", "Policy", "Process", "Profile", "RecordedLengths", "Replica", "Replicas", "Request", "Retries", "Router",
    "RunError", "Scenario", "ScenarioSpec", "Seconds", "Session", "Shed", "Slo", "Store", "SystemPrompts", "Tenant",
    "Tier", "TierRule", "Timeout", "Trace", "TraceError", "ValidationResult", "ValueResult", "Verdict", "Workload",
    "WorkloadChoice", "WorkloadSpec", "advise", "backlog_rate", "calibrate", "capacity", "capture", "check_baseline",
    "check_laws", "compare", "compare_captured", "derive_profile", "e2e", "estimation", "export_trace", "fairness",
    "import_trace", "load_profile", "load_spec", "make_baseline", "per_request", "read", "replay", "resample", "sample",
    "session_table", "simulate", "simulate_scenario", "slo_outcomes", "summary", "sweep", "tpot", "ttft", "turn_table",
    "validate", "value",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import ``name`` from where it lives, once (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module 'driftsim' has no attribute {name!r}")
    value = getattr(import_module(f"driftsim.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
