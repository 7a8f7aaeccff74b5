"""What a verb is given: an object, or the path that it is stored at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import pandas as pd

from driftsim.calibration.calibrate import calibrate, fit_own_profile
from driftsim.calibration.runs import Run
from driftsim.drift import AnyDrifts, check_drifts, drift_rules
from driftsim.errors import InputError, TraceError
from driftsim.formats.imports import import_trace
from driftsim.formats.source import SUFFIXES
from driftsim.goodput import own_slos
from driftsim.latency.profile import Profile, load_profile
from driftsim.scheduling.admission import Admission
from driftsim.scheduling.estimators import Estimator
from driftsim.scheduling.policies import Policy
from driftsim.simulation.names import EngineName
from driftsim.simulation.replicas import Replicas
from driftsim.simulation.scenario import Barrier, Scenario
from driftsim.slo import AnySlos, Slo, slo_rules, slos_for
from driftsim.trace.trace import Trace, read
from driftsim.whose import check_present
from driftsim.workloads.drifting import drifting
from driftsim.workloads.replay import replay
from driftsim.workloads.workload import Workload

SAMPLE = Path(__file__).parent / "sample" / "smollm2-cpu-drift"
AnyTrace: TypeAlias = Trace | Path | str
AnyProfile: TypeAlias = Profile | Path | str
AnyPolicy: TypeAlias = str | type[Policy]
AnyEstimator: TypeAlias = str | type[Estimator]


def sample() -> Trace:
    """The recorded run that comes with the package: a small real model, served by vLLM on a CPU.

    >>> sample().name, len(sample().requests)
    ('smollm2-cpu-drift', 360)
    """
    return read(SAMPLE)


def as_trace(trace: AnyTrace) -> Trace:
    """``trace`` itself, the trace in that folder, or the run in that file of another tool, whose format is recognised.

    Raises ``InputError`` for anything else.
    """
    if isinstance(trace, Trace):
        return trace
    if isinstance(trace, str | Path):
        path = Path(trace)
        if not path.exists() and path.suffix.lower() in SUFFIXES:
            raise TraceError(f"{path}: no such file; give a trace's folder, or a file that another tool wrote")
        return import_trace(path) if path.is_file() else read(path)
    raise InputError(f"a trace or the folder of one is needed, not {_kind(trace)}")


def as_workload(what: AnyTrace | Workload, rate_scale: float) -> tuple[Workload, Trace | None]:
    """The requests to run, and the trace that recorded them, if one did. Raises ``InputError``."""
    if not isinstance(what, Workload):
        recorded = as_trace(what)
        with naming(recorded):
            return replay(recorded, rate_scale), recorded
    if rate_scale != 1:
        raise InputError("rate_scale presses a recorded trace; make the workload with another rate")
    return what, None


def as_profile(profile: AnyProfile | None, recorded: Trace | None) -> Profile:
    """``profile`` itself, the one stored there, or without either the one fitted to ``recorded`` itself."""
    if isinstance(profile, Profile):
        return profile
    if isinstance(profile, str | Path):
        return load_profile(profile)
    if profile is not None:
        raise InputError(f"a profile or the file of one is needed, not {_kind(profile)}")
    if recorded is None:
        raise InputError("a workload has no steps to fit a profile to; give one: profile=calibrate(...)")
    with naming(recorded):
        return fit_own_profile(recorded)


def as_days(
    what: AnyTrace | Workload | Sequence[AnyTrace | Workload], rate_scale: float
) -> list[tuple[Workload, Trace | None]]:
    """One day, or several of one engine: each as ``as_workload`` has it. Raises ``InputError``."""
    if isinstance(what, Workload | Trace | Path | str):
        return [as_workload(what, rate_scale)]
    if not isinstance(what, Sequence) or not what:
        raise InputError(f"a trace, a workload, or a list of them is needed, not {_kind(what)}")
    days = [as_workload(one, rate_scale) for one in what]
    first = [phase.name for phase in days[0][0].info.phases]
    seen: dict[str, Workload] = {}
    for workload, recorded in days:
        name = workload.info.name if recorded is None else str(recorded.source or recorded.name)
        if [phase.name for phase in workload.info.phases] != first:
            raise InputError(f"{name}: has other phases than the first day; compare days of one kind")
        same = next((other for other, known in seen.items() if _same_requests(known, workload)), None)
        if same is not None:
            raise InputError(
                f"{name}: has the requests of {same}, and a repeat is no other day; give one of the two"
                " (driftsim effects compares repeats of real runs)"
            )
        seen[name] = workload
    return days


def _same_requests(one: Workload, other: Workload) -> bool:
    """Whether two workloads are the same requests in the same order, whenever these arrived."""
    columns = ["tenant", "prompt_tokens", "max_tokens", "output_tokens"]
    return len(one) == len(other) and one.table[columns].equals(other.table[columns])


def fitted_to_days(recorded: Sequence[Trace | None]) -> Profile:
    """One profile fitted to all recorded days, which are of one engine. Raises ``InputError``."""
    known = [trace for trace in recorded if trace is not None]
    if len(known) < 2 or len(known) < len(recorded):
        return as_profile(None, recorded[0])
    return calibrate([Run(str(trace.source or trace.name), trace, trace.digest) for trace in known])


def _kind(value: object) -> str:
    return f"{type(value).__name__} ({value!r:.60})"


@contextmanager
def naming(trace: Trace | None) -> Iterator[None]:
    """Prefix an ``InputError`` raised inside with the place that ``trace`` was read from."""
    try:
        yield
    except InputError as error:
        place, message = None if trace is None else trace.source or Path(trace.name), str(error)
        if place is None or message.startswith((str(place), f"{place.name}:")):
            raise
        raise type(error)(f"{place}: {message}") from None


def described(profile: Profile, given: AnyProfile | None) -> str:
    """Where a latency model comes from, and how well it fits what it was fitted to."""
    if given is None:
        source = "steps" if profile.fit is None or profile.fit.source == "steps" else "timings"
        where = f"fitted to the {source} of this trace"
    else:
        where = Path(given).name if isinstance(given, Path | str) else f"of {profile.model} on {profile.hardware}"
    if profile.fit is None:
        return where
    fit = profile.fit
    return f"{where} (MAPE {100 * fit.mean_absolute_percentage_error:.1f} %, R² {fit.r_squared:.2f})"


def with_engine(profile: Profile, settings: dict[str, Any]) -> Profile:
    """``profile`` of an engine with other ``settings``. Raises ``InputError`` for what no engine takes."""
    if not settings:
        return profile
    engine = profile.engine.changed(**settings)
    engine.check_starts()
    return profile.changed(engine=engine)


def with_drift(workload: Workload, drift: AnyDrifts, seed: int) -> Workload:
    """``workload`` with ``drift`` in it, drawn by ``seed``. Raises ``InputError`` for what is none, or is of nobody.

    >>> made = Workload.poisson(rate=2.0, requests=10, prompt_tokens=9, output_tokens=50, max_tokens=200)
    >>> with_drift(made, "factor=3:at=80%", seed=0).table["output_tokens"].tolist()
    [50, 50, 50, 50, 50, 50, 50, 50, 150, 150]
    """
    rules = drift_rules(drift)
    check_drifts(rules, workload.table)
    return drifting(workload, rules, seed)


def as_slos(slos: AnySlos, workload: Workload | None, recorded: Sequence[Trace | None]) -> tuple[Slo, ...]:
    """``slos``, else those of the first of the ``recorded`` runs that has any.

    Raises ``InputError`` for what is none, and for one of nobody in ``workload``, if that is given, or in the run.
    """
    given = slo_rules(slos) if workload is None else slos_for(slos, workload.table)
    known = (trace for trace in recorded if trace is not None and trace.header.slos)
    return given or next((trace.header.slos if workload is None else own_slos(trace) for trace in known), ())


def as_replicas(replicas: int | Replicas) -> Replicas:
    """The replicas, of which a number may be given. Raises ``InputError`` for what is none."""
    if isinstance(replicas, bool) or not isinstance(replicas, int | Replicas):
        raise InputError(f"replicas are a number or Replicas, not {replicas!r:.80}")
    return Replicas(count=replicas) if isinstance(replicas, int) else replicas


def check_clients(scenario: Scenario, table: pd.DataFrame) -> None:
    """Raise ``InputError`` for timeouts and queue limits of nobody among the requests of a ``table``."""
    for rules, what in ((scenario.clients.timeouts, "timeout"), (scenario.shed, "queue limit")):
        check_present(rules, what, table["tenant"], table["tier"])


def as_barrier(engine: EngineName | Barrier) -> Barrier | None:
    """The barrier that ``engine`` names, None for continuous batching. Raises ``InputError`` for any other name."""
    if isinstance(engine, Barrier):
        return engine
    if engine not in ("continuous", "barrier"):
        raise InputError(f"unknown engine {engine!r}; choose one of continuous, barrier")
    return Barrier() if engine == "barrier" else None


def check_words(workload: Workload, admission: Admission) -> None:
    """Raise ``InputError`` if words are to be derived though they were recorded."""
    recorded = workload.table[["prompt_words", "output_words"]].notna().all(axis=None)
    if admission.words_per_token is not None and recorded:
        raise InputError("its words are recorded, so they need not be derived; drop --words-per-token")
