"""A sweep on a Dask cluster: traces and profiles travel once, rows come back as they are made."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from driftsim.errors import InputError

if TYPE_CHECKING:
    from driftsim.sweeps.asked import Task
    from driftsim.sweeps.recorder import Recorder
    from driftsim.sweeps.tasks import Inputs


AHEAD = 3  # batches for each worker that wait at the cluster


def run_on_dask(address: str, recorder: Recorder, inputs: Inputs, keep: Path | None) -> None:
    """Run what is left to do at the scheduler at ``address``. Raises ``InputError`` if there is none."""
    try:
        from distributed import Client, as_completed
    except ModuleNotFoundError:
        raise InputError("a Dask cluster needs the extra 'sweep': pip install 'driftsim[sweep]'") from None
    try:
        client = Client(address, timeout="20s", set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise InputError(f"{address}: no Dask scheduler answers there ({error})") from None
    with client, client.as_current():
        # A task of its own, so that the cluster makes it again where the worker that held it dies.
        packed = pickle.dumps(inputs, protocol=pickle.HIGHEST_PROTOCOL)
        held = client.submit(pickle.loads, packed, key=f"driftsim-inputs-{hashlib.sha256(packed).hexdigest()}")
        left = list(reversed(recorder.todo.values()))
        sent: dict[Any, list[Task]] = {}
        once_more: list[Task] = []  # whose batch was given up: alone now
        tried: set[str] = set()  # keys of these

        def send(tasks: list[Task]) -> Any:
            future = client.submit(_run_batch, tasks, held, keep, pure=False)
            sent[future.key] = tasks
            return future

        def fill(completed: Any) -> None:
            most = AHEAD * max(1, len(client.scheduler_info()["workers"]))
            while (left or once_more) and len(sent) < most:
                tasks = [once_more.pop()] if once_more else recorder.batch(left)
                if tasks:
                    completed.add(send(tasks))

        completed = as_completed([], raise_errors=False)
        fill(completed)
        while sent:
            future = next(completed)
            tasks = sent.pop(future.key)
            if future.status == "finished":
                recorder.add(future.result())
            else:
                problem = future.exception()
                recorder.progress.restarts += 1
                recorder.add([_failed(task, problem) for task in tasks if task.key in tried])
                once_more += [task for task in tasks if task.key not in tried]
                tried |= {task.key for task in tasks}
            future.release()
            fill(completed)


def _failed(task: Task, error: BaseException | None) -> dict[str, Any]:
    from driftsim.sweeps.asked import parameters

    why = " ".join(str(error).split())
    return {
        "key": task.key,
        "failed": True,
        **parameters(task),
        "error": f"the cluster gave up: {why}",
        "duration_s": 0.0,
    }


def _run_batch(tasks: Sequence[Task], inputs: Inputs, keep: Path | None) -> list[dict[str, Any]]:
    from driftsim.sweeps.tasks import run_task

    return [run_task(task, inputs, keep) for task in tasks]
