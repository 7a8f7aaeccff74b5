"""What a verb is given that presses a load: a trace, a drawn workload or a scenario of either, and its profile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from driftsim.errors import InputError
from driftsim.inputs import AnyProfile, AnyTrace, as_profile, as_trace, described
from driftsim.latency.profile import Profile, load_profile
from driftsim.scheduling.admission import Admission
from driftsim.simulation.bases import with_bases
from driftsim.simulation.spec import ScenarioSpec, load_spec
from driftsim.slo import Slo
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


@dataclass(frozen=True, eq=False)
class Source:
    """What every run has in common: the scenario, the profile, and the trace that it replays or draws from, if any.

    described: where the profile comes from, in words. inputs: what runs need of these.
    """

    spec: ScenarioSpec
    trace: Trace | None
    profile: Profile
    described: str
    inputs: Inputs

    @property
    def name(self) -> str:
        """What the requests are of, in words."""
        drawn = "" if self.spec.workload is None else f"{self.spec.workload.kind or 'mixed'} arrivals"
        return " of ".join(filter(None, [drawn, "" if self.trace is None else self.trace.name])) or "a workload"

    def provenance(self, spec: ScenarioSpec) -> dict[str, Any]:
        """What a reader must know of it to run it again; ``spec``: with the engine that is run."""
        own = self.spec
        return {
            "source": self.name,
            "trace_digest": "" if self.trace is None else self.trace.digest,
            "profile": self.described,
            "profile_digest": self.profile.digest,
            "model": self.profile.model,
            "hardware": self.profile.hardware,
            "engine": engine_limits(self.profile, spec),
            "requests": own.requests if own.workload is None else own.workload.requests,
            "warm_up": own.warm_up,
            "cool_down": own.cool_down,
            "seed": own.seed,
        }


def read_source(
    what: AnyLoad, profile: AnyProfile | None = None, *, arrivals: Process | None = None, requests: int | None = None,
    slos: Callable[[ScenarioSpec, Trace | None], tuple[Slo, ...]] | None = None, admission: Admission | None = None,
    tiers: AnyTiers = (), max_in_flight: int | None = None, seed: int | None = None, **more: Any,
) -> Source:  # fmt: skip
    """The source of ``what``, as the verbs that press a load are given it; ``more`` are further keys of the scenario.

    Raises ``InputError`` for what has no load, and where there is no profile.
    """
    spec, trace, place = source_of(what, arrivals, requests)
    if slos is not None:
        spec = spec.changed(slos=slos(spec, trace))
    given = profile_of(spec, profile, trace)
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
        **more,
    )
    known = Inputs(given={} if trace is None else {place: trace}, given_profile=given)
    return Source(spec, trace, given, described(given, described_as), known)


def source_of(what: AnyLoad, arrivals: Process | None, requests: int | None) -> tuple[ScenarioSpec, Trace | None, str]:
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


def profile_of(spec: ScenarioSpec, profile: AnyProfile | None, trace: Trace | None) -> Profile:
    """The profile for every run, by default fitted to the trace. Raises ``InputError`` where both lack."""
    if profile is not None:
        return as_profile(profile, None)
    if spec.profile is not None and spec.profile != GIVEN:
        return load_profile(spec.profile)
    if trace is None:
        raise InputError("a workload has no steps to fit a profile to; give one (--profile FILE)")
    return as_profile(None, trace)


def engine_limits(profile: Profile, spec: ScenarioSpec) -> dict[str, Any]:
    """The limits of the engine of ``profile`` under the changes of ``spec``."""
    engine = profile.engine.changed(**spec.engine) if spec.engine else profile.engine
    names = ("max_num_seqs", "max_num_batched_tokens", "kv_blocks", "max_model_len")
    return {name: getattr(engine, name) for name in names}
