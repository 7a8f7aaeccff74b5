"""A run that is written down: everything that determines it, in TOML or JSON, and what it comes to.

A ``ScenarioSpec`` is named by its key, the hash of everything in it that can change the result; traces and profiles
count by their content, plug-ins by their source, paths not at all.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, create_model, model_validator

from driftsim.clients import PATIENT, Clients
from driftsim.costs import UNKNOWN, Costs
from driftsim.drift import Drifts, check_drifts
from driftsim.errors import InputError
from driftsim.latency.profile import Profile, load_profile
from driftsim.records import Record
from driftsim.scheduling.admission import DRIFTSCHED_BASE, Admission
from driftsim.scheduling.estimators import estimator_class, estimator_name
from driftsim.scheduling.names import Place
from driftsim.scheduling.plugins import is_plugin, source_digest
from driftsim.scheduling.policies import policy_class, policy_name
from driftsim.scheduling.shedding import Sheds
from driftsim.simulation.dotted import nested
from driftsim.simulation.replicas import ALONE, Replicas
from driftsim.simulation.scenario import Barrier, Scenario, with_engine
from driftsim.slo import Slos, check_only_e2e
from driftsim.tiers import TierRules
from driftsim.trace.trace import Trace, read
from driftsim.workloads.arrivals import arriving
from driftsim.workloads.drifting import drifting
from driftsim.workloads.generated import CANONICAL, WorkloadSpec
from driftsim.workloads.processes import Process
from driftsim.workloads.replay import first, replay
from driftsim.workloads.resampling import Resampling, resample
from driftsim.workloads.workload import Workload

PLACES = {
    "trace",
    "workload",
    "profile",
    "steps",
    "step_requests",
}  # fields that enter the key by digest, or not at all
WHO_OF_A_TENANT = {"tenant": "name", "tier": "tier", "category": "category"}


class ScenarioSpec(Record):
    """Everything that determines a simulated run; paths count from the file's folder.

    >>> ScenarioSpec(trace="run", policy="sjf").model_dump(exclude_defaults=True)
    {'trace': 'run', 'policy': 'sjf'}
    """

    trace: str | None = Field(default=None, description="Folder of the recorded run whose requests are replayed.")
    workload: WorkloadSpec | None = Field(
        default=None, description="Instead of a trace: arrivals and lengths by law, drawn by seed + replication."
    )
    profile: str | None = Field(
        default=None,
        description="File of the latency profile; without one, it is fitted to the trace's own steps. A workload needs "
        "one.",
    )
    policy: Annotated[str, AfterValidator(policy_name)] = Field(
        default="fifo",
        description="Policy that chooses who enters the engine, with its parameters: `name?key=value`; stock: the "
        "engine's own order.",
    )
    estimator: Annotated[str, AfterValidator(estimator_name)] = Field(
        default="static", description="Estimator of output lengths, with its parameters: `name?key=value`."
    )
    admission: Admission = Field(default=Admission(), description="Switches of admission.")
    engine: dict[str, Any] = Field(
        default={}, description="Engine settings to change, such as `kv_blocks` or `max_num_seqs`."
    )
    max_in_flight: int | None = Field(
        default=None,
        gt=0,
        description="Most requests that the dispatcher lets into the engine at once; none: the engine's slots.",
        json_schema_extra={"unit": "requests"},
    )
    tiers: TierRules = Field(
        default=(),
        description="Tables of the tiers, the most urgent first, or their names alone. None: the trace's own, else the "
        "published three; a trace with other tiers then has no order that a policy could go by.",
    )
    slos: Slos = Field(
        default=(),
        description="SLOs, as tables or as texts `premium:ttft=1s,tpot=50ms,e2e=30s`; without a name, everybody's. A "
        "tenant's own goes before its tier's. None: the trace's own.",
    )
    clients: Clients = Field(
        default=PATIENT,
        description="When clients give up, and whether they send again. Left out: as the trace says, else they wait "
        "for ever.",
    )
    replicas: Replicas = Field(
        default=ALONE, description="Several replicas of the engine, and the router among them. Left out: one."
    )
    shed: Sheds = Field(
        default=(),
        description="Limits of the queue, as tables or as texts `batch:requests=20,tokens=50000,wait=5s,defer=5s`; "
        "without a name, of all together. A newcomer beyond one is turned away. None: everybody is let in.",
    )
    place: Place = Field(
        default="front",
        description="Where the policy stands: in `front` of the engine, as the engine's integer `priority`, or "
        "`inside` the engine, where it may preempt. The last two let everybody in at once, and know no refill lag.",
    )
    refill_lag: bool = Field(
        default=True, description="Whether a freed slot is refilled with the profile's lags, as on a real engine."
    )
    noise: bool = Field(default=False, description="Whether step times are drawn around the profile's, by the seed.")
    barrier: Barrier | None = Field(
        default=None,
        description="Constants of DriftSched's worker, which serves one batch at a time; the table may be empty. None: "
        "continuous batching.",
    )
    rate_scale: float = Field(default=1.0, gt=0, description="Factor of the arrival rate: 2 halves every gap.")
    arrivals: Process | None = Field(default=None, description="Other arrivals than the recorded ones.")
    requests: int | None = Field(
        default=None,
        gt=0,
        description="Number of requests, the first ones of the trace; none: all.",
        json_schema_extra={"unit": "requests"},
    )
    replication: int = Field(
        default=0,
        ge=0,
        description="0 is the trace as recorded; any other number is a block resample of it, drawn by the seed, the "
        "same for every policy. Of a workload, each number is an independent draw, by seed + replication.",
    )
    resampling: Resampling = Field(
        default="circular",
        description="How a resample draws its blocks: `circular`, from anywhere in the phase, or `local`, from around "
        "the block's own place, so that a peak inside a phase stays where it was.",
    )
    costs: Costs = Field(
        default=UNKNOWN, description="Power and price of the engine, for energy and money in the results."
    )
    drift: Drifts = Field(
        default=(),
        description="Drift to inject, as tables or as texts `tenant=a:factor=2:at=600s`, one after the other; in a "
        "resample it begins at the same time.",
    )
    fairness: bool = Field(
        default=False,
        description="Whether results say how much each tenant was slowed down and what service it got; for that, a "
        "request of each size is simulated alone.",
    )
    estimation: bool = Field(default=False, description="Whether results tell the log error of length estimates.")
    limits: bool = Field(
        default=False,
        description="Whether results say which limits of the engine held requests back: its slots, its KV blocks, the "
        "token budget of a step, or prefills; for that, the run's steps are recorded.",
    )
    warm_up: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Share of the requests, the first to arrive, that are served and left out of the metrics: they "
        "find an empty engine.",
    )
    cool_down: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Share of the requests, the last to arrive, that are left out likewise: nobody comes after them.",
    )
    phase: str = Field(default="all", description="Phase of the workload that the metrics are over.")
    seed: int = Field(default=0, ge=0, description="Seed of everything random in the run.")
    steps: bool = Field(default=False, description="Whether the run's steps are recorded.")
    step_requests: bool = Field(
        default=False, description="Whether they are recorded, and each names the requests that it computed."
    )

    @model_validator(mode="after")
    def _go_together(self) -> Self:
        return self._with_one_source()

    def _with_one_source(self) -> Self:
        """This spec. Raises ``InputError`` unless it says where its requests come from, once, and its parts agree."""
        if (self.trace is None) == (self.workload is None):
            raise InputError("give trace = FOLDER to replay or a table workload to draw, one of the two")
        if self.barrier is not None:
            check_only_e2e(self.slos)
        if self.warm_up + self.cool_down >= 1:
            raise InputError(f"warm_up {self.warm_up:g} and cool_down {self.cool_down:g} leave no request to measure")
        if self.workload is None:
            return self
        if self.profile is None:
            raise InputError("a workload has no steps to fit a profile to; give profile = FILE")
        for name, (default, instead) in _of_a_trace().items():
            if getattr(self, name) != default:
                raise InputError(f"{name} changes a recorded trace; set {instead} instead")
        return self

    @property
    def traces(self) -> list[str]:
        """Where the recorded runs are that this one needs."""
        if self.workload is not None:
            return self.workload.traces
        return [] if self.trace is None else [self.trace]

    def placed(self, place: Callable[[str], str]) -> Self:
        """The same with every path changed by ``place``."""
        return self.changed(
            trace=None if self.trace is None else place(self.trace),
            workload=None if self.workload is None else self.workload.placed(place),
            profile=None if self.profile is None else place(self.profile),
            replicas=self.replicas.placed(place),
        )

    @classmethod
    def part(cls, name: str, value: Any, place: Callable[[str], str]) -> Any:
        """The ``value`` of one key as a spec holds it, checked alone, with every path in it changed by ``place``.

        Raises ``KeyError`` if a spec has no such key, ``ValueError`` for a value that it cannot have.
        """
        found = getattr(_alone(name).model_validate({name: value}), name)
        if isinstance(found, WorkloadSpec):
            return found.placed(place)
        if isinstance(found, Replicas):
            return found.placed(place)
        return place(found) if name in ("trace", "profile") and found is not None else found

    def with_parts(self, parts: Mapping[str, Any]) -> Self:
        """The same with other values of some keys, each as another spec has it; only how they go together is checked.

        So a grid checks each value once. Raises ``InputError`` for values that exclude each other.
        """
        return self.model_copy(update=dict(parts))._with_one_source()

    def source_digest(self, digests: Mapping[str, str]) -> str:
        """What names the requests in a key: the digest of the trace, or of the workload's content.

        ``digests`` are those of the recorded runs, by path.
        """
        return digests[str(self.trace)] if self.workload is None else self.workload.digest(digests)

    def identity(self, trace_digest: str, profile_digest: str) -> dict[str, Any]:
        """All that can change the result, in plain values; what has its default is left out.

        ``trace_digest`` is the ``source_digest``: a workload stands in the key as a trace does.
        So a switch that is added later leaves old keys as they are; a default that changes takes a new ``key_version``.
        """
        plain = self.model_dump(mode="json", exclude_defaults=True, exclude=PLACES)
        if self.replicas.profiles:
            plain["replicas"]["profiles"] = [load_profile(file).digest for file in self.replicas.profiles]
        sources = {name: _source(name) for name in (self.policy, self.estimator) if is_plugin(name)}
        return {"key_version": 1, "trace": trace_digest, "profile": profile_digest, "plugins": sources, **plain}

    def key(self, trace_digest: str, profile_digest: str) -> str:
        """SHA-256 of the canonical form, as 32 hexadecimal digits; the same on every platform."""
        plain = self.identity(trace_digest, profile_digest)
        return hashlib.sha256(CANONICAL.encode(plain).encode()).hexdigest()[:32]


@cache
def _of_a_trace() -> dict[str, tuple[Any, str]]:
    """The keys that change a recorded trace, each with its default and with what a workload has instead."""
    instead = {"rate_scale": "workload.rate", "requests": "workload.requests", "arrivals": "workload.kind"}
    return {name: (ScenarioSpec.model_fields[name].default, other) for name, other in instead.items()}


@cache
def _alone(name: str) -> type[Record]:
    """A record with no other field than the one that a spec has by that ``name``."""
    field = ScenarioSpec.model_fields[name]
    fields: dict[str, Any] = {name: (field.annotation, field)}
    return create_model("Part", __base__=Record, **fields)


@cache
def _source(name: str) -> str:
    try:
        return source_digest(policy_class(name))
    except ValueError:
        return source_digest(estimator_class(name))  # type: ignore[arg-type]


def load_spec(file: Path, changes: Mapping[str, Any] = MappingProxyType({})) -> ScenarioSpec:
    """Read a run from TOML or JSON; ``changes`` replace what it says, by dotted key, such as ``engine.kv_blocks``.

    Raises ``InputError`` naming file, key, value and remedy.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
    ...     _ = file.write('trace = "run"\\npolicy = "sjf"'), file.flush()
    ...     load_spec(Path(file.name)).policy
    'sjf'
    """

    def prepared(content: dict[str, Any]) -> dict[str, Any]:
        try:
            return nested({**content, **changes})
        except InputError as error:
            raise InputError(f"{file}: {error}") from None

    return ScenarioSpec.from_file(file, "scenario", prepare=prepared)


def dump_spec(spec: ScenarioSpec) -> str:
    """``spec`` as JSON; what is left out has its default."""
    return json.dumps(spec.model_dump(mode="json", exclude_defaults=True), indent=1, sort_keys=True) + "\n"


def build_workload(
    spec: ScenarioSpec, find: Callable[[str], Trace] = read, replayed: Callable[[Trace, float], Workload] = replay
) -> Workload:
    """The requests that ``spec`` runs; ``find`` gives the recorded run at a path, ``replayed`` its replay at a scale.

    Raises ``InputError`` for what the traces cannot give.
    """
    if spec.workload is not None:
        drawn = Workload.generated(spec.workload, spec.seed + spec.replication, find)
        named = {who: {getattr(one, name) for one in spec.workload.tenants} for who, name in WHO_OF_A_TENANT.items()}
        check_drifts(spec.drift, drawn.table, named if spec.workload.tenants else {})
        return drifting(drawn, spec.drift, spec.seed + spec.replication)
    made = replayed(find(str(spec.trace)), spec.rate_scale)
    if spec.requests is not None:
        made = first(made, spec.requests)
    check_drifts(spec.drift, made.table)
    made = resample(made, spec.seed, spec.replication, spec.resampling)
    if spec.arrivals is not None:
        made = arriving(made, spec.arrivals, spec.seed + spec.replication)
    return drifting(made, spec.drift, spec.seed + spec.replication)


def build_scenario(spec: ScenarioSpec, profile: Profile) -> Scenario:
    """The scenario that ``spec`` asks for. Raises ``InputError`` for engine settings that cannot be."""
    if spec.admission.base == "fit" and spec.admission.base_table == dict(DRIFTSCHED_BASE):
        raise InputError("admission.base 'fit' needs the table that was fitted; give admission.base_table")
    profile = with_engine(profile, spec.engine)
    others = tuple(with_engine(load_profile(file), spec.engine) for file in spec.replicas.profiles)
    names = (
        "policy", "estimator", "admission", "max_in_flight", "tiers", "slos", "clients", "shed", "replicas",
        "refill_lag", "noise", "barrier", "place",
    )  # fmt: skip
    seed = spec.seed if spec.replication == 0 else spec.seed + spec.replication
    same = {name: getattr(spec, name) for name in names}
    return Scenario(profile=profile, replica_profiles=others, seed=seed, **same)
