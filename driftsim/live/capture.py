"""A capture: which engine, which workload, which policies in turn; then the runs, each a trace."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from driftsim.clients import AnyRetries, AnyTimeouts, clients_of
from driftsim.errors import InputError, RunError
from driftsim.live.choices import EngineChoice, WorkloadChoice
from driftsim.live.kinds import Order
from driftsim.live.plan import CapturePlan
from driftsim.live.recorder import Progress
from driftsim.live.resume import CaptureRun, check_places
from driftsim.live.session import interleaved, run_session
from driftsim.scheduling.admission import Admission
from driftsim.scheduling.estimators import estimator_class, estimator_name, is_given_the_truth
from driftsim.scheduling.names import Place, spelled
from driftsim.scheduling.plugins import given_classes, plugin_name, plugin_names
from driftsim.scheduling.policies import check_live, policy_name
from driftsim.scheduling.shedding import AnySheds, shed_rules
from driftsim.slo import AnySlos, Slo, needs_itl, slo_rules
from driftsim.tiers import AnyTiers, tier_rules
from driftsim.trace.trace import Trace


def capture(
    out: Path | str,
    *,
    engine: EngineChoice | None = None,
    workload: WorkloadChoice | None = None,
    policies: Iterable[str | type] = ("fifo",),
    estimator: str | type = "static",
    admission: Admission | None = None,
    repeats: int = 1,
    order: Order = "latin",
    max_in_flight: int | None = None,
    tiers: AnyTiers = (),
    slos: AnySlos = (),
    timeouts: AnyTimeouts = (),
    retries: AnyRetries = None,
    shed: AnySheds = (),
    place: Place = "front",
    force_lengths: bool = False,
    seed: int = 0,
    begun: Callable[[int, CaptureRun, int], None] = lambda number, run, requests: None,
    progress: Callable[[Progress], None] = lambda progress: None,
) -> list[tuple[Path, Trace]]:
    """Run a workload through a real engine and record it: a folder and a trace for each policy and repeat, in turn.

    out: the folder of the trace; of several runs, of their folders ``POLICY-REPEAT``. engine, workload: what to run
    (default: vLLM in this process, the drift workload). order: of the policies within each round of repeats: ``latin``,
    a Latin square balanced for carry-over, ``random`` or ``fixed``; drawn with ``seed``. tiers: as ``compare`` has
    them. slos: what the requests are promised, for the headers (default: of a replay, the trace's own); policies that
    go by SLOs go by these. timeouts, retries, shed: as ``compare`` has them; the harness is the client, and really
    drops a request. place: of the policies; vLLM is started to order by priority, or to have them inside.
    force_lengths: outputs exactly as long as recorded, of a workload that is a replay. begun: called with a
    run's number, the run and its requests. progress: called as requests end. Runs that are there already are kept, one
    that was cut short is set aside as ``.NAME.cut-1`` and made anew; the list ends with the first run that ends badly.

    Raises ``InputError`` for what cannot be run, before anything is started, and ``RunError`` if nothing was recorded.

    >>> capture("out/never", estimator="oracle")
    Traceback (most recent call last):
    driftsim.errors.InputError: the estimator 'oracle' is told every length, and live nobody knows them; choose another
    """
    names = list(dict.fromkeys(map(policy_name, plugin_names(policies))))
    promised = slo_rules(slos) or (workload.promised() if workload is not None else ())
    check_itl(promised)
    for name in names:
        check_live(name, promised)
    learner = plugin_name(estimator)
    if is_given_the_truth(learner):
        raise InputError(
            f"the estimator {spelled(learner).base!r} is told every length, and live nobody knows them; choose another"
        )
    estimator_class(estimator_name(learner))
    plans = [
        CapturePlan(
            policy=name,
            estimator=learner,
            admission=admission or Admission(),
            max_in_flight=max_in_flight,
            tiers=tier_rules(tiers),
            slos=promised,
            shed=shed_rules(shed),
            place=place,
            clients=clients_of(timeouts, retries),
            force_lengths=force_lengths,
            seed=seed,
        )
        for name in names
    ]
    runs = interleaved(Path(out), plans, repeats, order, seed)
    check_places(runs)  # before minutes are spent
    make = (workload or WorkloadChoice(seed=seed)).prepare()
    live = _placing(engine or EngineChoice(seed=seed), [plan.placed for plan in plans], [*names, learner]).open()
    try:
        traces = asyncio.run(
            run_session(
                live,
                lambda started: make(started.count_tokens),
                runs,
                lambda number, run, made: begun(number, run, len(made)),
                progress,
            )
        )
    except asyncio.CancelledError:
        raise RunError("stopped before anything was recorded") from None
    return [(run.folder, trace) for run, trace in zip(runs, traces, strict=False)]


def check_itl(slos: Sequence[Slo]) -> None:
    """Raise ``InputError`` for SLOs that no capture can be held against: its steps do not name their requests."""
    if needs_itl(slos):
        raise InputError("an SLO limits itl, and the steps of a capture do not name their requests; limit tpot")


def _placing(engine: EngineChoice, places: Sequence[Place], names: Sequence[str]) -> EngineChoice:
    """The engine that the policies can stand in as ``places`` say. Raises ``InputError`` where it cannot be."""
    if "inside" in places:
        if engine.kind != "vllm":
            raise InputError("--place inside is for --engine vllm: a server loads no policy; take priority or front")
        if lost := given_classes(names):
            raise InputError(
                f"{next(iter(lost))}: a class cannot be sent into the engine's process; name it there, as file.py:Class"
            )
        return replace(engine, hosts=True)
    if "priority" in places and engine.kind == "vllm":
        if (engine.scheduling_policy or engine.arguments.get("scheduling_policy", "priority")) != "priority":
            raise InputError(
                "--place priority needs an engine that orders by priority; leave its scheduling policy out"
            )
        return replace(engine, scheduling_policy="priority")
    return engine
