"""A run that is written down: everything that determines it, in TOML or JSON, and what it comes to.

A ``Spec`` is named by its key, the hash of everything in it that can change the result; traces and profiles count by
their content, plug-ins by their source, paths not at all.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from driftsim.errors import InputError
from driftsim.latency.profile import Profile
from driftsim.records import Record, first_problem
from driftsim.scheduling.admission import Admission
from driftsim.scheduling.estimators import estimator_class
from driftsim.scheduling.plugins import is_plugin, source_digest
from driftsim.scheduling.policies import policy_class
from driftsim.simulation.scenario import Barrier, Scenario
from driftsim.trace.trace import Trace
from driftsim.workloads.arrivals import Process, arriving
from driftsim.workloads.replay import first, replay, resample
from driftsim.workloads.workload import Workload

PLACES = {"trace", "profile", "steps"}  # what names a thing, or adds to the output, but does not change the result


class Arrivals(Record):
    """Other arrivals than the recorded ones: those of ``driftsim capture --arrivals``."""

    kind: Literal["poisson", "uniform", "gamma", "closed", "backlog"]
    rate: float | None = None  # requests / s
    cv: float = 3.0
    users: int | None = None
    think_s: float = 0.0


class ScenarioSpec(Record):
    """Everything that determines a simulated run; paths count from the file's folder.

    trace: the run whose requests are replayed. profile: the latency profile; without one it is fitted to the trace's
    own steps. engine: settings to change, such as ``kv_blocks`` or ``max_num_seqs``. barrier: a table, which may be
    empty, of the published worker's constants, one batch at a time. requests: only the first so many. replication: 0 is
    the workload as recorded, any other a block resample of it, drawn by ``seed``, the same for every policy. The other
    keys are those of ``driftsim compare``, the table ``admission`` those of its switches.
    """

    trace: str
    profile: str | None = None
    policy: str = "fifo"
    estimator: str = "static"
    admission: Admission = Admission()
    engine: dict[str, Any] = {}
    max_in_flight: int | None = Field(default=None, gt=0)
    refill_lag: bool = True
    noise: bool = False
    barrier: Barrier | None = None
    rate_scale: float = Field(default=1.0, gt=0)
    arrivals: Arrivals | None = None
    requests: int | None = Field(default=None, gt=0)
    replication: int = Field(default=0, ge=0)
    phase: str = "all"  # that the metrics are over
    seed: int = 0
    steps: bool = False  # whether the steps table is written, too

    def identity(self, trace_digest: str, profile_digest: str) -> dict[str, Any]:
        """All that can change the result, in plain values; what has its default is left out.

        So a switch that is added later leaves old keys as they are; a default that changes takes a new ``key_version``.
        """
        asked = self.model_dump(mode="json", exclude_defaults=True)
        plain = {name: value for name, value in asked.items() if name not in PLACES}
        sources = {name: _source(name) for name in (self.policy, self.estimator) if is_plugin(name)}
        return {"key_version": 1, "trace": trace_digest, "profile": profile_digest, "plugins": sources, **plain}

    def key(self, trace_digest: str, profile_digest: str) -> str:
        """SHA-256 of the canonical form, as 32 hexadecimal digits; the same on every platform."""
        plain = self.identity(trace_digest, profile_digest)
        canonical = json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
        return hashlib.sha256(canonical.encode()).hexdigest()[:32]


@cache
def _source(name: str) -> str:
    try:
        return source_digest(policy_class(name))
    except ValueError:
        return source_digest(estimator_class(name))  # type: ignore[arg-type]


def load_spec(file: Path) -> ScenarioSpec:
    """Read a run from TOML or JSON. Raises ``InputError`` naming file, key, value and remedy.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
    ...     _ = file.write('trace = "run"\\npolicy = "sjf"'), file.flush()
    ...     load_spec(Path(file.name)).policy
    'sjf'
    """
    try:
        text = file.read_text()
        return ScenarioSpec.model_validate(json.loads(text) if file.suffix == ".json" else tomllib.loads(text))
    except FileNotFoundError:
        raise InputError(f"{file}: no such scenario") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{file}: not readable as {file.suffix[1:].upper() or 'TOML'} ({error})") from None
    except ValidationError as error:
        raise InputError(f"{file}: {first_problem(error)}; correct the scenario") from None


def dump_spec(spec: ScenarioSpec) -> str:
    """``spec`` as JSON; what is left out has its default."""
    return json.dumps(spec.model_dump(mode="json", exclude_defaults=True), indent=1, sort_keys=True) + "\n"


def build_workload(spec: ScenarioSpec, recorded: Trace) -> Workload:
    """The requests that ``spec`` runs. Raises ``InputError`` for what the trace cannot give."""
    made = replay(recorded, spec.rate_scale)
    if spec.requests is not None:
        made = first(made, spec.requests)
    made = resample(made, spec.seed, spec.replication)
    if spec.arrivals is not None:
        made = arriving(made, Process(**spec.arrivals.model_dump()), spec.seed + spec.replication)
    return made


def build_scenario(spec: ScenarioSpec, profile: Profile) -> Scenario:
    """The scenario that ``spec`` asks for. Raises ``InputError`` for engine settings that cannot be."""
    if spec.engine:
        try:
            profile = profile.changed(engine=profile.engine.changed(**spec.engine))
        except (InputError, TypeError) as error:
            raise InputError(f"engine: {error}") from None
    return Scenario(
        profile=profile,
        policy=spec.policy,
        estimator=spec.estimator,
        admission=spec.admission,
        max_in_flight=spec.max_in_flight,
        refill_lag=spec.refill_lag,
        noise=spec.noise,
        barrier=spec.barrier,
        seed=spec.seed if spec.replication == 0 else spec.seed + spec.replication,
    )
