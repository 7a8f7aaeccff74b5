"""Is predicting output lengths worth it, when, and how good must it be: the verb ``value`` over plain values."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from driftsim.inputs import AnyEstimator, AnyPolicy, AnyProfile
from driftsim.pressing.draws import COOL_DOWN, WARM_UP
from driftsim.progress import OnProgress, no_progress
from driftsim.scheduling.admission import Admission
from driftsim.scheduling.estimators import estimator_name
from driftsim.scheduling.plugins import given_classes, plugin_names
from driftsim.scheduling.policies import policy_name
from driftsim.sources import AnyLoad, Source, read_source
from driftsim.tiers import AnyTiers
from driftsim.workloads.processes import Process
from driftsim.worth.plan import LIMITS, LOADS, MARGIN, REAL, REPLICATIONS, SIGMAS, SIZE_BASED, Limit, ValuePlan
from driftsim.worth.result import ValueResult
from driftsim.worth.run import evaluate


def value(
    what: AnyLoad,
    profile: AnyProfile | None = None,
    *,
    policies: AnyPolicy | Iterable[AnyPolicy] | None = None,
    estimators: AnyEstimator | Iterable[AnyEstimator] | None = None,
    sigmas: Iterable[float] = SIGMAS,
    loads: Iterable[float] = LOADS,
    limits: Iterable[Limit] = LIMITS,
    margin: float = MARGIN,
    arrivals: Process | None = None,
    requests: int | None = None,
    replications: int = REPLICATIONS,
    warm_up: float = WARM_UP,
    cool_down: float = COOL_DOWN,
    admission: Admission | None = None,
    max_in_flight: int | None = None,
    tiers: AnyTiers = (),
    seed: int | None = None,
    jobs: int = 0,
    address: str | None = None,
    store: Path | str | None = None,
    progress: OnProgress = no_progress,
) -> ValueResult:
    """What predictions of output lengths change, from perfect to useless, against FIFO, which needs none.

    what: a trace, a ``WorkloadSpec``, or a scenario of either, or its TOML file. policies: those that go by lengths.
    estimators: real ones, to be placed beside the truth blurred by each of ``sigmas``, the spread of the logarithm of
    the noise; 0 is always there. loads: shares of the rate at which the engine serves a backlog. limits: what binds, on
    variants of the profile's engine: ``slots``, ``kv``, ``prefill``. margin: relative change of the mean latency that
    matters to nobody. The other arguments are those of ``capacity``.

    Raises ``InputError`` for what no run could accept, ``RunError`` where a run fails.

    >>> found = value(
    ...     "traces/smollm2-cpu-drift", policies="sjf", estimators="ema", sigmas=[2], loads=[0.9], limits=["slots"],
    ...     replications=1, jobs=1,
    ... )
    >>> found.frame()[["policy", "estimator"]].agg("/".join, axis=1).tolist()[2:]
    ['sjf/noisy?sigma=0', 'sjf/noisy?sigma=2', 'sjf/ema']
    """
    source = read_source(
        what,
        profile,
        arrivals=arrivals,
        requests=requests,
        admission=admission,
        tiers=tiers,
        max_in_flight=max_in_flight,
        seed=seed,
        warm_up=warm_up,
        cool_down=cool_down,
    )
    names = SIZE_BASED if policies is None else tuple(map(policy_name, plugin_names(policies)))
    learners = REAL if estimators is None else tuple(map(estimator_name, plugin_names(estimators)))
    chosen = ValuePlan(
        spec=source.spec,
        policies=names,
        estimators=learners,
        sigmas=tuple(sigmas),
        loads=tuple(loads),
        limits=tuple(limits),
        replications=replications,
        margin=margin,
    )
    jobs = 1 if given_classes([*names, *learners]) else jobs  # a class is known in this process alone
    with tempfile.TemporaryDirectory(prefix="driftsim-") as aside:
        place = Path(aside) / "store" if store is None else Path(store)
        found = evaluate(chosen, source.inputs, place, jobs, address, progress)
    return ValueResult(found, _provenance(source, chosen, found.engines))


def _provenance(source: Source, chosen: ValuePlan, engines: dict[Limit, Any]) -> dict[str, Any]:
    """What a reader must know to do it again."""
    asked = {name: list(getattr(chosen, name)) for name in ("policies", "estimators", "sigmas", "loads")}
    made = {limit: {**engine.changes, "backlog_rate": engine.backlog} for limit, engine in engines.items()}
    about = source.provenance(source.spec)
    return about | asked | {"margin": chosen.margin, "replications": chosen.replications, "limits": made}
