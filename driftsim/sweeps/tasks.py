"""A task is one run of a sweep, and its row."""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from driftsim.calibration.calibrate import fit_own_profile
from driftsim.glossary import TENANT
from driftsim.latency.profile import Profile, load_profile
from driftsim.metrics import summary
from driftsim.progress import EVERY, OnProgress, no_progress
from driftsim.scheduling.estimators import estimator_class
from driftsim.scheduling.plugins import is_plugin
from driftsim.scheduling.policies import policy_class
from driftsim.simulation.alone import alone_times, sizes_of
from driftsim.simulation.bases import Fitted, with_own_bases
from driftsim.simulation.run import simulate
from driftsim.simulation.scenario import Scenario
from driftsim.simulation.spec import ScenarioSpec, build_scenario, build_workload
from driftsim.slo import Slo, check_slos, needs_itl
from driftsim.sweeps import cautions
from driftsim.sweeps.naming import OWN, SHORT
from driftsim.tenancy import with_fairness
from driftsim.tiers import TierRule
from driftsim.trace.trace import Trace, digest, read
from driftsim.version import __version__
from driftsim.workloads.generated import Tenant, WorkloadSpec
from driftsim.workloads.workload import Workload

KEPT_DIGESTS = 1000


class Task:
    """A run to do: its key, what it is, and the digests of what it needs; a workload's stands for a trace's.

    ``specs``: the spec itself, or many of them, of which it is the one at ``number`` and is made when it is looked at.
    """

    __slots__ = ("_number", "_specs", "key", "profile", "trace")

    def __init__(
        self, key: str, specs: ScenarioSpec | Sequence[ScenarioSpec], trace: str, profile: str, number: int = 0
    ) -> None:
        self.key, self.trace, self.profile = key, trace, profile
        self._specs, self._number = specs, number

    @property
    def spec(self) -> ScenarioSpec:
        """What is run."""
        return self._specs if isinstance(self._specs, ScenarioSpec) else self._specs[self._number]

    def __reduce__(self) -> tuple[type[Task], tuple[Any, ...]]:
        return Task, (self.key, self.spec, self.trace, self.profile)


@dataclass(eq=False)
class Inputs:
    """Traces and profiles by digest, and the digests by where they are: read once, and sent once to each worker."""

    traces: dict[str, Trace] = field(default_factory=dict)
    profiles: dict[str, Profile] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)  # of the traces, by path
    fits: dict[tuple[str | None, str | None], str] = field(default_factory=dict)  # (trace, profile) -> profile's digest
    warnings: list[str] = field(default_factory=list)  # of the traces and profiles
    cautions: dict[tuple[str, ...], list[str]] = field(default_factory=dict)  # of every run on these, profile last
    rates: dict[str, float] = field(default_factory=dict)  # recorded, requests / s, of the traces that have one
    _workloads: dict[Any, Workload] = field(default_factory=dict)

    def need(self, spec: ScenarioSpec) -> None:
        """Read the traces and the profile of ``spec``, unless they are here. Raises ``InputError`` where one lacks."""
        paths, place = spec.traces, (spec.trace, spec.profile)
        for path in paths:
            if path not in self.digests:
                recorded = read(path)
                self.digests[path] = digest(path)
                self.traces[self.digests[path]] = recorded
                if (rate := _recorded_rate(recorded)) is not None:
                    self.rates[self.digests[path]] = rate
        if place not in self.fits:
            if spec.profile is not None:
                profile = load_profile(spec.profile)
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
            self._workloads[name] = build_workload(task.spec, lambda path: self.traces[self.digests[path]])
        return self._workloads[name]


def plan(specs: Sequence[ScenarioSpec], told: OnProgress = no_progress) -> tuple[list[Task], Inputs]:
    """The runs of ``specs``, each once, and what they need; ``told`` hears of the runs that were looked at, and of all.

    Raises ``InputError`` where a trace or profile lacks.
    """
    inputs, keys = Inputs(), set[str]()
    drifted = set[tuple[Any, ...]]()
    groups: dict[tuple[Any, ...], list[Task]] = {}  # by workload, so that each is made once
    digest_of, names, judged = _SourceDigests(inputs), set[tuple[str, str]](), set[tuple[Any, tuple[Slo, ...]]]()
    for number, spec in enumerate(specs):
        if number % EVERY == 0:
            told(number, len(specs))
        inputs.need(spec)
        if (spec.policy, spec.estimator) not in names:
            policy_class(spec.policy)
            estimator_class(spec.estimator)
            names.add((spec.policy, spec.estimator))
        source, profile = digest_of(spec), inputs.fits[spec.trace, spec.profile]
        if spec.slos and (source, spec.slos) not in judged:
            tenants, tiers = _who_sends(spec, inputs)
            check_slos(spec.slos, tenants, tiers)
            judged.add((source, spec.slos))
        if spec.drift:
            _check_drift(spec, source, inputs, drifted)
        key = spec.key(source, profile)
        if key not in keys:
            keys.add(key)
            groups.setdefault(workload_name(source, spec), []).append(Task(key, specs, source, profile, number))
    return [task for name in sorted(groups) for task in groups[name]], inputs


def _check_drift(spec: ScenarioSpec, source: str, inputs: Inputs, seen: set[tuple[Any, ...]]) -> None:
    """Raise ``InputError`` for drift that the requests of ``spec`` cannot have, once for each that ``seen`` lacks."""
    arrivals = None if spec.arrivals is None else spec.arrivals.model_dump_json()
    changes = (source, tuple(map(str, spec.drift)), arrivals, spec.requests, spec.rate_scale)
    if changes not in seen:
        build_workload(spec, lambda path: inputs.traces[inputs.digests[path]])
        seen.add(changes)


def _who_sends(spec: ScenarioSpec, inputs: Inputs) -> Iterator[Iterable[str]]:
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
        scenario = build_scenario(task.spec, inputs.profiles[task.profile])
        scenario = replace(scenario, admission=fitted.admission, slos=slos)
        steps, named = task.spec.steps, task.spec.step_requests or needs_itl(slos)
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


def parameters(task: Task) -> dict[str, Any]:
    """What was asked for, flat; plain values only. Tasks of two keys differ here, paths counting as what they hold."""
    spec = task.spec
    found: dict[str, Any] = {
        "trace_digest": task.trace,
        "profile_digest": task.profile,
        "driftsim_version": __version__,
    }
    if is_plugin(spec.policy) or is_plugin(spec.estimator):
        sources = spec.identity(task.trace, task.profile)["plugins"]
        found["plugins"] = " ".join(source[:SHORT] for source in sources.values())
    plain = spec.model_dump(
        mode="json",
        exclude={"steps": True, "slos": True, "drift": True, "fairness": not spec.fairness, "workload": _unused(spec)},
    )
    for name, value in (plain | {"profile": OWN if spec.profile is None else spec.profile}).items():
        found |= dict(_flat(name, value))
    if spec.slos:
        found["slos"] = "; ".join(map(str, spec.slos))
    if spec.drift:
        found["drift"] = "; ".join(map(str, spec.drift))
    if spec.tiers:
        found["tiers"] = ",".join(map(_rule, spec.tiers))
    return found


def _unused(spec: ScenarioSpec) -> set[str]:
    """The keys of the workload that have their default and mean nothing for its kind of arrivals."""
    if spec.workload is None:
        return set()
    fields = type(spec.workload).model_fields
    return {name for name in spec.workload.unused if getattr(spec.workload, name) == fields[name].default}


def _rule(rule: TierRule) -> str:
    """``rule`` as a short text: name, weight, safety, most in flight, as far as they are said."""
    name = rule.name if rule.name.isidentifier() else json.dumps(rule.name)
    said = ["" if one is None else f"{one:g}" for one in (rule.weight, rule.safety, rule.max_in_flight)]
    return ":".join([name, *said]).rstrip(":")


def _flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """The plain values below ``value``, by dotted name; tiers and tenants by theirs, other lists as one text."""
    if name == "workload.tenants":
        value = _by_label(value)
        if value:
            yield name, _listed(list(value))
    elif name == "tiers":
        value = {rule["name"]: {"rank": rank, **rule} for rank, rule in enumerate(value, start=1)}
    if isinstance(value, dict):
        for below, inner in value.items():
            yield from _flat(f"{name}.{below}", inner)
    elif isinstance(value, list | tuple):
        yield name, _listed(value)
    elif value is not None:
        yield name, value


def _listed(values: Sequence[Any]) -> str:
    """A list as one text: its items, with commas; as JSON where that would not be clear."""
    plain = all(isinstance(one, str) and one and not set(one) & set(',"[') for one in values)
    return ", ".join(values) if plain else json.dumps(values)


def _by_label(tenants: list[dict[str, Any]]) -> dict[str, Any]:
    names = [tenant["name"] for tenant in tenants]
    return {
        name if names.count(name) == 1 else f"{name}/{tenant['category']}": tenant
        for name, tenant in zip(names, tenants, strict=True)
    }


def _metrics(
    trace: Trace, spec: ScenarioSpec, fitted: Fitted, profile: Profile, scenario: Scenario
) -> tuple[dict[str, Any], list[str]]:
    """The results of a run, flat, and what a reader must know of it."""
    scored = ~fitted.workload.table["source"].isin(fitted.used).to_numpy() if fitted.used else None
    row = summary(trace, fitted.admission, phase=spec.phase, scored=scored)
    if spec.fairness:
        row = with_fairness(row, trace, alone_times(sizes_of(trace.requests), scenario), spec.phase)
    known = [*fitted.workload.notes, *cautions.of_run(trace, row, profile)]
    per_tier = row.pop("per_tier")
    for tier, values in per_tier.items():
        row |= {f"{tier}_{name}": value for name, value in values.items() if name != "p99_flagged"}
    for tenant, values in row.pop("per_tenant", {}).items():
        row |= {f"{TENANT}{tenant}_{name}": value for name, value in values.items()}
    name = row.pop("requests")
    return {"offered": name, **row}, known
