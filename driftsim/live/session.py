"""A session runs one workload through one live engine, under one policy or several in turn, each run a trace."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from driftsim.errors import InputError, TraceError
from driftsim.files import check_place
from driftsim.live.engine import LiveEngine
from driftsim.live.kinds import Order
from driftsim.live.order import orders
from driftsim.live.recorder import CapturePlan, Progress, record
from driftsim.trace.header import Turn
from driftsim.trace.schema import OFFERED
from driftsim.trace.trace import Trace, read
from driftsim.workloads.workload import Workload


@dataclass(frozen=True, slots=True)
class CaptureRun:
    """One run of a session: how, and into which folder."""

    folder: Path
    plan: CapturePlan


def interleaved(
    out: Path, plans: Sequence[CapturePlan], repeats: int, order: Order = "latin", seed: int = 0
) -> list[CaptureRun]:
    """Every plan ``repeats`` times, in rounds, so that a machine that drifts favours nobody; in each round in the order
    that ``orders`` gives.

    A single run goes into ``out`` itself, several into its subfolders, ``policy-repeat``.
    """
    if repeats < 1:
        raise InputError(f"repeats must be at least 1, got {repeats}")
    if len(plans) * repeats == 1:
        return [CaptureRun(out, plans[0])]
    names = [plan.policy.rpartition(":")[2] for plan in plans]  # of a plug-in: its class
    return [
        CaptureRun(
            out / f"{names[place]}-{turn}",
            replace(plans[place], turn=Turn(round=turn, position=position, order=order)),
        )
        for turn, places in enumerate(orders(len(plans), repeats, order, seed), start=1)
        for position, place in enumerate(places, start=1)
    ]


def check_places(runs: Sequence[CaptureRun]) -> None:
    """Raise as ``check_place`` does unless every run's folder is free or holds a complete trace, and not all do."""
    missing = [run for run in runs if not _complete(run.folder)]
    for run in missing:
        check_place(run.folder)
    if not missing:
        raise TraceError(f"{runs[0].folder}: holds a complete trace already; choose another folder or remove it")


async def run_session(
    engine: LiveEngine,
    make_workload: Callable[[LiveEngine], Workload],
    runs: Sequence[CaptureRun],
    begun: Callable[[int, CaptureRun, Workload], None] = lambda number, run, workload: None,
    progress: Callable[[Progress], None] = lambda standing: None,
) -> list[Trace]:
    """Start ``engine``, record every run that is not there yet, and stop it; ends with the first that ends badly.

    ``begun`` hears of each run as it begins. SIGINT and SIGTERM end the run that is under way: what was recorded is
    written, marked as interrupted. Raises ``TraceError`` where a folder holds a trace of something else.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what is synchronous: let Ctrl-C break in
    traces: list[Trace] = []
    try:
        await engine.start()
        workload = make_workload(engine)  # asks a server synchronously, too
        task = asyncio.current_task()
        assert task is not None
        for stop in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(stop, task.cancel)
        await engine.warm_up()
        for number, run in enumerate(runs):
            if _complete(run.folder):
                traces.append(_kept(run, workload))
                continue
            begun(number, run, workload)
            traces.append(await record(workload, engine, run.plan, run.folder, progress))
            if traces[-1].header.ended != "complete":
                break
    finally:
        await engine.shutdown()
    return traces


def _complete(folder: Path) -> bool:
    if not (folder / "header.json").is_file():
        return False
    return read(folder).header.ended == "complete"


def _kept(run: CaptureRun, workload: Workload) -> Trace:
    """The trace that is there already, from an earlier session that was cut short."""
    trace = read(run.folder)
    columns = [
        column.name for column in OFFERED if column.name != "prompt_tokens"
    ]  # a server may count them its own way
    same = trace.requests[columns].astype(str).equals(workload.offered[columns].astype(str))
    admission = {"policy": run.plan.policy, "estimator": run.plan.estimator}
    header, tiers = trace.header, run.plan.tiers or workload.tiers
    same = same and header.tiers == tiers and header.seed == run.plan.seed
    if not same or not admission.items() <= header.admission.items():
        raise TraceError(f"{run.folder}: holds another trace; choose another folder or remove it")
    if header.turn != run.plan.turn and not (header.turn is None and _is_fixed(run.plan.turn)):
        raise TraceError(
            f"{run.folder}: ran {_told(header.turn)}, not {_told(run.plan.turn)}; go on with the --order, --seed and "
            "--policies of the session that was cut short, or choose another folder"
        )
    return trace


def _is_fixed(turn: Turn | None) -> bool:
    """Whether a run has the position that a trace has which does not tell it: all had one order, before it was told."""
    return turn is None or turn.order == "fixed"


def _told(turn: Turn | None) -> str:
    return "in an order that it does not tell" if turn is None else f"in position {turn.position} ({turn.order} order)"
