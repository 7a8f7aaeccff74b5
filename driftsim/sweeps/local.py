"""A sweep on local processes: when a worker dies, a new pool goes on with what is left."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from driftsim import workers
from driftsim.sweeps.asked import Task, parameters
from driftsim.sweeps.recorder import Recorder
from driftsim.sweeps.tasks import Inputs, run_task

LOSSES = 2  # of a run, after which it is run alone
ALONE_S = 3600.0  # that a run may take alone


class Batch(NamedTuple):
    """Tasks for one worker, the folder in which it says which one is under way, and where traces are kept."""

    tasks: list[Task]
    under_way: str
    keep: Path | None


def run_locally(recorder: Recorder, inputs: Inputs, keep: Path | None, jobs: int) -> None:
    """Run what is left to do on ``jobs`` worker processes; when one dies, a new pool goes on with what is left."""
    losses: dict[str, int] = {}
    with workers.shared(inputs) as file:
        while recorder.todo:
            under_way = Path(tempfile.mkdtemp(dir=file.parent))
            try:
                for rows in workers.map_shared(_run_batch, _batches(recorder, under_way, keep), file, jobs):
                    recorder.add(rows)
            except workers.WorkerError:
                recorder.progress.restarts += 1
                for key in (marker.read_text(encoding="utf-8") for marker in under_way.iterdir()):
                    losses[key] = losses.get(key, 0) + bool(key)
                for key in [key for key, count in losses.items() if count >= LOSSES and key in recorder.todo]:
                    recorder.add([_alone(recorder.todo[key], file, keep)])


def _batches(recorder: Recorder, under_way: Path, keep: Path | None) -> Iterator[Batch]:
    left = list(reversed(recorder.todo.values()))
    while left:
        if tasks := recorder.batch(left):
            yield Batch(tasks, str(under_way), keep)


def _run_batch(inputs: Inputs, batch: Batch) -> list[dict[str, Any]]:
    """A worker's part: the rows of the tasks; the key of the one under way is always in a file of this process."""
    rows = []
    marker = os.open(f"{batch.under_way}/{os.getpid()}", os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        for task in batch.tasks:
            os.pwrite(marker, task.key.encode(), 0)
            rows.append(run_task(task, inputs, batch.keep))
        os.ftruncate(marker, 0)
    finally:
        os.close(marker)
    return rows


def _alone(task: Task, file: Path, keep: Path | None) -> dict[str, Any]:
    """Run ``task`` in a process of its own; if it dies, that is its row."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_run_alone, args=(task, str(file), keep, theirs))
    begin = time.perf_counter()
    process.start()
    theirs.close()
    try:
        row: dict[str, Any] = ours.recv() if ours.poll(ALONE_S) else {}
    except EOFError:
        row = {}
    if not row:
        process.kill()
    process.join()
    if row:
        return row
    code = process.exitcode or 0
    why = f"signal {-code}" if code < 0 else f"exit code {code}"
    dead = {"failed": True, "error": f"the worker died ({why}), alone, too", "duration_s": time.perf_counter() - begin}
    return {"key": task.key, **parameters(task), **dead}


def _run_alone(task: Task, file: str, keep: Path | None, answer: Connection[dict[str, Any], None]) -> None:
    workers.end_with(os.getppid(), file)
    answer.send(run_task(task, workers.load(file), keep))
