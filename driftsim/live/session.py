"""A session runs one workload through one live engine, under one policy or several in turn, each run a trace."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from driftsim.errors import InputError, RunError
from driftsim.live.engine import LiveEngine
from driftsim.live.kinds import Order
from driftsim.live.order import orders
from driftsim.live.recorder import CapturePlan, Progress, record
from driftsim.live.resume import CaptureRun, is_complete, kept, set_aside
from driftsim.scheduling.names import in_a_path
from driftsim.trace.header import Turn
from driftsim.trace.trace import Trace
from driftsim.workloads.workload import Workload


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
    names = [in_a_path(plan.policy) for plan in plans]
    return [
        CaptureRun(
            out / f"{names[place]}-{turn}",
            replace(plans[place], turn=Turn(round=turn, position=position, order=order)),
        )
        for turn, places in enumerate(orders(len(plans), repeats, order, seed), start=1)
        for position, place in enumerate(places, start=1)
    ]


async def run_session(
    engine: LiveEngine,
    make_workload: Callable[[LiveEngine], Workload],
    runs: Sequence[CaptureRun],
    begun: Callable[[int, CaptureRun, Workload], None] = lambda number, run, workload: None,
    progress: Callable[[Progress], None] = lambda standing: None,
) -> list[Trace]:
    """Start ``engine``, record every run that is not there yet, and stop it; ends with the first that ends badly.

    ``begun`` hears of each run as it begins. SIGINT and SIGTERM end the run that is under way: what was recorded is
    written, marked as interrupted. Raises ``TraceError`` where a folder holds a trace of something else,
    and ``RunError`` where the session was stopped between two runs.
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
            if is_complete(run.folder):
                traces.append(kept(run, workload))
                continue
            note = set_aside(run, workload)
            begun(number, run, workload)
            noted = replace(workload, notes=(*workload.notes, note)) if note else workload
            traces.append(await record(noted, engine, run.plan, run.folder, progress))
            if traces[-1].header.ended != "complete":
                break
            if task.cancelling() and len(traces) < len(runs):
                raise RunError(f"stopped after {len(traces)} of {len(runs)} runs; the same command goes on")
    finally:
        await engine.shutdown()
    return traces
