"""A sweep runs many specs and keeps a row of each in a store: resumable, on local processes or a Dask cluster.

A run returns its error as a row and never raises. A worker that is killed costs the runs it had under way, which are
run again; a run that was lost twice is run alone, and recorded as failed if it dies there, too.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

from driftsim.errors import InputError
from driftsim.progress import OnProgress, no_progress
from driftsim.simulation.collector import collector_off
from driftsim.sweeps.asked import Task
from driftsim.sweeps.grid import load_grid
from driftsim.sweeps.local import run_locally
from driftsim.sweeps.recorder import Progress, Recorder, Watch, unwatched
from driftsim.sweeps.store import Store
from driftsim.sweeps.tasks import Inputs, plan, run_task
from driftsim.workers import processes


def sweep(
    tasks: Sequence[Task],
    inputs: Inputs,
    store: Store,
    *,
    jobs: int = 0,
    address: str | None = None,
    keep: bool = False,
    retry: bool = False,
    watch: Watch = unwatched,
) -> Progress:
    """Run what the store does not have. ``jobs`` local processes (0: one a core), or the Dask cluster at ``address``.

    ``retry``: run again what failed. Raises ``OSError`` if the store cannot be written; what it has stays.
    """
    kept = store.folder.resolve() / "traces" if keep else None
    known = store.keys()
    todo = {task.key: task for task in tasks if task.key not in known or (retry and known[task.key])}
    progress = Progress(
        len(tasks), done=len(tasks) - len(todo), failed=sum(known.get(task.key, False) for task in tasks)
    )
    watch(progress)
    if not todo:
        return progress
    recorder = Recorder(todo, store, progress, watch)
    if address is not None:
        from driftsim.sweeps.dask import run_on_dask

        run_on_dask(address, recorder, inputs, kept)
    elif processes(jobs) == 1:
        for task in list(todo.values()):
            recorder.add([run_task(task, inputs, kept)])
    else:
        run_locally(recorder, inputs, kept, processes(jobs))
    return progress


Planned: TypeAlias = tuple[list[Task], Inputs]


def plan_grid(grid: Path, told: OnProgress = no_progress) -> Planned:
    """The runs of the grid in a TOML file, and what they need; ``told`` hears of settings, then of runs.

    Raises ``InputError`` for a grid that cannot be run.
    """
    with collector_off():  # a million specs come and go, none of them in a circle
        return plan(load_grid(grid, told), told)


def sweep_grid(
    planned: Planned,
    store: Path,
    *,
    merge: Sequence[Path] = (),
    jobs: int = 0,
    address: str | None = None,
    keep: bool = False,
    retry: bool = False,
    watch: Watch = unwatched,
) -> tuple[Progress, set[str]]:
    """Run what ``plan_grid`` gave into ``store``, after the rows of the stores ``merge``; the keys of its runs as well.

    Raises ``OSError`` if the store cannot be written.
    """
    tasks, inputs = planned
    others = [Store.open(other) for other in merge]  # before a new store is made
    if any(other.folder.resolve() == Path(store).resolve() for other in others):
        raise InputError(f"{store}: has its own rows already; merge another store")
    with Store.open(store, create=True) as opened:
        opened.adopt()
        for other in others:
            opened.merge(other)
        progress = sweep(tasks, inputs, opened, jobs=jobs, address=address, keep=keep, retry=retry, watch=watch)
        progress.torn, progress.warnings = opened.torn, inputs.warnings
    return progress, {task.key for task in tasks}


def estimate(planned: Planned, store: Path, jobs: int) -> dict[str, Any]:
    """What a sweep of ``planned`` into ``store`` would take: runs, those left, seconds of each and of all.

    Three of the runs are tried; ``failed_tries`` are the errors of those that failed. Nothing is written.
    """
    tasks, inputs = planned
    known = Store.open(store).keys() if store.exists() else {}
    left = [task for task in tasks if task.key not in known]
    begin = time.process_time()
    tried = left[:: max(1, len(left) // 3)][:3]
    rows = [run_task(task, inputs) for task in tried]
    each = (time.process_time() - begin) / max(1, len(tried))
    return {
        "runs": len(tasks),
        "in_store": len(tasks) - len(left),
        "seconds_a_run": each,
        "seconds": each * len(left) / processes(jobs),
        "processes": processes(jobs),
        "failed_tries": [row["error"] for row in rows if row["failed"]],
    }
