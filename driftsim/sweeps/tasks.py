"""A task is one run of a sweep, and its row."""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from driftsim.calibration.calibrate import fit_own_profile
from driftsim.costs import cost_summary
from driftsim.estimates import estimation
from driftsim.glossary import TENANT, tier_label
from driftsim.goodput import own_slos
from driftsim.latency.profile import Profile, load_profile
from driftsim.metrics import summary
from driftsim.progress import EVERY, OnProgress, no_progress
from driftsim.scheduling.estimators import estimator_class
from driftsim.scheduling.policies import check_needs, needs_of, policy_class
from driftsim.simulation.alone import alone_times, sizes_of
from driftsim.simulation.bases import Fitted, with_own_bases
from driftsim.simulation.limits import limit_shares
from driftsim.simulation.run import simulate
from driftsim.simulation.scenario import Scenario
from driftsim.simulation.spec import ScenarioSpec, build_scenario, build_workload
from driftsim.slo import Slo, check_only_e2e, check_slos, needs_itl
from driftsim.sweeps import cautions
from driftsim.sweeps.asked import Task, parameters, told_slos
from driftsim.tenancy import Alone, Size, with_fairness
from driftsim.trace.subset import middle
from driftsim.trace.trace import Trace, read
from driftsim.whose import check_present
from driftsim.workloads.generated import Tenant, WorkloadSpec
from driftsim.workloads.replay import replay
from driftsim.workloads.workload import Workload

KEPT_DIGESTS = 1000
KEPT_REPLAYS = 4
LOG_ERRORS = ("log_error", "log_bias")


@dataclass(eq=False)
class Inputs:
    """Traces and profiles by digest, and the digests by where they are: read once, and sent once to each worker."""

    given: dict[str, Trace] = field(default_factory=dict)  # by the path that stands for it in specs: read by others
    given_profile: Profile | None = None  # for every path of one
    traces: dict[str, Trace] = field(default_factory=dict)
    profiles: dict[str, Profile] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)  # of the traces, by path
    fits: dict[tuple[str | None, str | None], str] = field(default_factory=dict)  # (trace, profile) -> profile's digest
    warnings: list[str] = field(default_factory=list)  # of the traces and profiles
    cautions: dict[tuple[str, ...], list[str]] = field(default_factory=dict)  # of every run on these, profile last
    rates: dict[str, float] = field(default_factory=dict)  # recorded, requests / s, of the traces that have one
    _workloads: dict[Any, Workload] = field(default_factory=dict)
    _replays: dict[tuple[int, float], Workload] = field(default_factory=dict)  # by trace and rate scale

    def need(self, spec: ScenarioSpec) -> None:
        """Read the traces and the profile of ``spec``, unless they are here. Raises ``InputError`` where one lacks."""
        paths, place = spec.traces, (spec.trace, spec.profile)
        for path in paths:
            if path not in self.digests:
                recorded = self.given[path] if path in self.given else read(path)
                self.digests[path] = recorded.digest
                self.traces[self.digests[path]] = recorded
                if (rate := _recorded_rate(recorded)) is not None:
                    self.rates[self.digests[path]] = rate
        if place not in self.fits:
            if spec.profile is not None:
                profile = self.given_profile or load_profile(spec.profile)
            else:
                profile = fit_own_profile(self.traces[self.digests[str(spec.trace)]])
            self.fits[place] = profile.digest
            self.profiles[profile.digest] = profile
        if (*sorted(paths), self.fits[place]) not in self.cautions:
            self.warn(paths, self.profiles[self.fits[place]])

    def warn(self, paths: Sequence[str], profile: Profile) -> None:
        """Note what a reader must know of the traces at ``paths``, and why ``profile`` may not be theirs."""
        for path in paths:
            found = cautions.of_inputs([self.traces[self.digests[path]]], profile)
            known = [text for text in found if text not in profile.warnings]
            self.warnings += [text for text in (f"{path}: {what}" for what in known) if text not in self.warnings]
        traces = [self.traces[self.digests[path]] for path in paths]
        self.cautions[*sorted(paths), profile.digest] = cautions.of_inputs(traces, profile)

    def cautions_of(self, task: Task) -> list[str]:
        """What holds of every run on the traces and the profile of ``task``."""
        return self.cautions.get((*sorted(task.spec.traces), task.profile), [])

    def workload(self, task: Task) -> Workload:
        """The workload of ``task``; the last few are kept, since runs come in order of them."""
        name = workload_name(task.trace, task.spec)
        if name not in self._workloads:
            if len(self._workloads) >= 8:
                self._workloads.pop(next(iter(self._workloads)))
            found = build_workload(task.spec, lambda path: self.traces[self.digests[path]], self._replayed)
            self._workloads[name] = found
        return self._workloads[name]

    def _replayed(self, trace: Trace, scale: float) -> Workload:
        """``replay``; the last few are kept, since the resamples of a day come one after another."""
        name = id(trace), scale  # the inputs hold the trace, so that its id stays its own
        if name not in self._replays:
            if len(self._replays) >= KEPT_REPLAYS:
                self._replays.pop(next(iter(self._replays)))
            self._replays[name] = replay(trace, scale)
        return self._replays[name]

    def __getstate__(self) -> dict[str, Any]:
        """What travels to a worker: no workloads, which it makes itself."""
        return {**vars(self), "_workloads": {}, "_replays": {}}


def plan(
    specs: Sequence[ScenarioSpec], told: OnProgress = no_progress, inputs: Inputs | None = None
) -> tuple[list[Task], Inputs]:
    """The runs of ``specs``, each once, and what they need; ``told`` hears of the runs that were looked at, and of all.

    ``inputs``: what was read already. Raises ``InputError`` where a trace or profile lacks.
    """
    inputs, keys = Inputs() if inputs is None else inputs, set[str]()
    drifted = set[tuple[Any, ...]]()
    groups: dict[tuple[Any, ...], list[Task]] = {}  # by workload, so that each is made once
    digest_of, names, judged = _SourceDigests(inputs), set[tuple[str, str]](), set[tuple[Any, ...]]()
    by_slos = set[str]()  # policies that go by them
    for number, spec in enumerate(specs):
        if number % EVERY == 0:
            told(number, len(specs))
        inputs.need(spec)
        if (spec.policy, spec.estimator) not in names:
            policy_class(spec.policy)
            estimator_class(spec.estimator)
            names.add((spec.policy, spec.estimator))
            by_slos.update([spec.policy] if "slos" in needs_of(spec.policy) else [])
        source, profile = digest_of(spec), inputs.fits[spec.trace, spec.profile]
        if spec.policy in by_slos:
            check_needs(spec.policy, spec.slos or _own_slos(spec, inputs))
        if (spec.slos or spec.trace) and (source, spec.slos, spec.barrier is None) not in judged:
            _check_slos(spec, inputs)
            judged.add((source, spec.slos, spec.barrier is None))
        rules = (*spec.clients.timeouts, *spec.shed)
        if rules and (source, rules) not in judged:
            tenants, tiers = map(list, _who_sends(spec, inputs))
            check_present(spec.clients.timeouts, "timeout", tenants, tiers)
            check_present(spec.shed, "queue limit", tenants, tiers)
            judged.add((source, rules))
        if spec.drift:
            drawn_by = None if spec.arrivals is None else spec.arrivals.model_dump_json()
            drifting = (source, tuple(map(str, spec.drift)), drawn_by)
            if drifting not in drifted:
                build_workload(spec, lambda path: inputs.traces[inputs.digests[path]])  # raises for no drift of it
                drifted.add(drifting)
        key = spec.key(source, profile)
        if key not in keys:
            keys.add(key)
            groups.setdefault(workload_name(source, spec), []).append(Task(key, specs, source, profile, number))
    return [task for name in sorted(groups) for task in groups[name]], inputs


def _check_slos(spec: ScenarioSpec, inputs: Inputs) -> None:
    """Raise ``InputError`` for SLOs of nobody, and for those that the engine of ``spec`` cannot keep."""
    slos = spec.slos
    if slos:
        check_slos(slos, *_who_sends(spec, inputs))
    elif spec.trace is not None:
        slos = own_slos(inputs.traces[inputs.digests[spec.trace]])
    if spec.barrier is not None:
        check_only_e2e(slos)


def _own_slos(spec: ScenarioSpec, inputs: Inputs) -> tuple[Slo, ...]:
    """The SLOs of the recorded run that ``spec`` replays; none for a workload."""
    return () if spec.trace is None else inputs.traces[inputs.digests[spec.trace]].header.slos


def _who_sends(spec: ScenarioSpec, inputs: Inputs) -> Iterator[list[str]]:
    """Tenants, then tiers, of the requests that ``spec`` may run, row by row."""
    tables = [inputs.traces[inputs.digests[path]].requests for path in spec.traces]
    named = () if spec.workload is None else spec.workload.tenants or (() if tables else (Tenant(name="default"),))
    yield [*(name for table in tables for name in table["tenant"]), *(one.name for one in named)]
    yield [*(name for table in tables for name in table["tier"]), *(one.tier for one in named)]


class _SourceDigests:
    """The source digest of a spec; those of the last workloads are kept, since many specs share one."""

    def __init__(self, inputs: Inputs) -> None:
        self._digests = inputs.digests
        self._known: dict[int, tuple[WorkloadSpec, str]] = {}  # by id; holding the workload keeps the id its own

    def __call__(self, spec: ScenarioSpec) -> str:
        workload = spec.workload
        if workload is None:
            return spec.source_digest(self._digests)
        if id(workload) not in self._known:
            if len(self._known) >= KEPT_DIGESTS:
                self._known.clear()
            self._known[id(workload)] = workload, spec.source_digest(self._digests)
        return self._known[id(workload)][1]


def spec_key(spec: ScenarioSpec, inputs: Inputs) -> str:
    """The key of ``spec``, whose traces and profile are among ``inputs``."""
    return spec.key(spec.source_digest(inputs.digests), inputs.fits[spec.trace, spec.profile])


def workload_name(source: str, spec: ScenarioSpec) -> tuple[Any, ...]:
    """What determines the workload of ``spec``, whose source has the digest ``source``."""
    arrivals = "" if spec.arrivals is None else spec.arrivals.model_dump_json()
    drift = "; ".join(map(str, spec.drift))
    return source, arrivals, spec.rate_scale, spec.requests or 0, spec.seed, spec.replication, spec.resampling, drift


def run_task(task: Task, inputs: Inputs, keep: Path | None = None) -> dict[str, Any]:
    """The row of one run; an error is a row, too. With ``keep``, the run's trace goes to a folder there, by key."""
    begin = time.perf_counter()
    row: dict[str, Any] = {"key": task.key, "failed": False, **parameters(task)}
    if task.trace in inputs.rates and task.spec.arrivals is None:
        row["recorded_rate"] = inputs.rates[task.trace]
    known = inputs.cautions_of(task)
    try:
        recorded = None if task.spec.trace is None else inputs.traces[task.trace]
        fitted = with_own_bases(task.spec.admission, inputs.workload(task), recorded)
        slos = task.spec.slos  # a draw may lack a tenant that has one, which is no error
        if not slos and recorded is not None:
            slos = recorded.header.slos
        if slos:
            row["slos"] = told_slos(slos)
        scenario = build_scenario(task.spec, inputs.profiles[task.profile])
        scenario = replace(scenario, admission=fitted.admission, slos=slos)
        steps, named = task.spec.steps or task.spec.limits, task.spec.step_requests or needs_itl(slos)
        trace = simulate(scenario, fitted.workload, record_steps=steps, step_requests=named)
        found, own = _metrics(trace, task.spec, fitted, inputs.profiles[task.profile], scenario)
        row |= found
        known = [*known, *own]
        if keep is not None:
            trace.write(keep / task.key, overwrite=True)
    except Exception as error:
        row |= {"failed": True, "error": _in_one_line(error)}
    row[cautions.COLUMN] = cautions.joined(known)
    row["duration_s"] = time.perf_counter() - begin
    return row


def _in_one_line(error: BaseException) -> str:
    where = traceback.extract_tb(error.__traceback__)[-1]
    place = "; ".join([f"{Path(where.filename).name}:{where.lineno}", *getattr(error, "__notes__", ())])
    return f"{type(error).__name__}: {' '.join(str(error).split())} ({place})"


def _recorded_rate(trace: Trace) -> float | None:
    """Requests a second between the arrivals of a phase, over all phases; None where a phase has no rate of its own."""
    rows = trace.requests
    if any(phase.kind in ("closed", "backlog") for phase in trace.header.workload.phases):
        return None
    phases = rows.groupby("phase")["arrival_s"].agg(["size", "min", "max"])
    span = float((phases["max"] - phases["min"]).sum())
    return float((phases["size"] - 1).sum()) / span if span > 0 else None


def _metrics(
    trace: Trace, spec: ScenarioSpec, fitted: Fitted, profile: Profile, scenario: Scenario
) -> tuple[dict[str, Any], list[str]]:
    """The results of a run, flat, and what a reader must know of it."""
    if spec.warm_up or spec.cool_down:
        whole, trace = trace, middle(trace, spec.warm_up, spec.cool_down)
    else:
        whole = trace
    scored = None
    if fitted.used:
        used = fitted.workload.table["source"].isin(fitted.used).to_numpy()
        scored = ~trace.requests["request_id"].isin(fitted.workload.table["request_id"][used]).to_numpy()
    row = summary(trace, fitted.admission, phase=spec.phase, scored=scored)
    row |= cost_summary(trace, spec.costs)
    if spec.estimation:
        own = estimation(trace, scored=scored, phase=spec.phase)
        row |= {name: own[name] for name in LOG_ERRORS}
    if spec.limits:
        row |= limit_shares(whole, scenario, trace)
    if spec.fairness:
        row = with_fairness(row, trace, _alone(trace, scenario), spec.phase)
    known = [*fitted.workload.notes, *cautions.of_run(trace, row, profile)]
    per_tier = row.pop("per_tier")
    for tier, values in per_tier.items():
        row |= {f"{tier_label(tier)}_{name}": value for name, value in values.items() if name != "p99_flagged"}
    for tenant, values in row.pop("per_tenant", {}).items():
        row |= {f"{TENANT}{tenant}_{name}": value for name, value in values.items()}
    name = row.pop("requests")
    return {"offered": name, **row}, known


_KEPT_ALONE: dict[tuple[str, frozenset[Size]], Alone] = {}  # of the last engines and sizes


def _alone(trace: Trace, scenario: Scenario) -> Alone:
    """``alone_times`` of the sizes in ``trace``; the last few are kept, since runs of a workload follow each other."""
    wanted = sizes_of(trace.requests)
    if scenario.barrier is not None or scenario.replicas or scenario.clients or scenario.shed:
        return alone_times(wanted, scenario)
    name = f"{scenario.profile.digest} {scenario.refill_lag} {scenario.limit}", frozenset(wanted)
    if name not in _KEPT_ALONE:
        if len(_KEPT_ALONE) >= KEPT_REPLAYS:
            _KEPT_ALONE.pop(next(iter(_KEPT_ALONE)))
        _KEPT_ALONE[name] = alone_times(wanted, scenario)
    return _KEPT_ALONE[name]
