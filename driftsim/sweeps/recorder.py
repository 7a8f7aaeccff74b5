"""The recorder of a sweep writes rows as they come, and then reports progress."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from driftsim.files import write_file
from driftsim.simulation.spec import dump_spec
from driftsim.sweeps.asked import Task
from driftsim.sweeps.store import Store
from driftsim.text import for_shell

BATCH_S = 0.5  # of work that a worker takes at once
MOST_IN_A_BATCH = 200


@dataclass(eq=False)
class Progress:
    """What a sweep has come to; told to whoever watches after rows are on the disk."""

    total: int
    done: int = 0  # in the store before, or since
    failed: int = 0
    restarts: int = 0  # of the pool of workers
    torn: int = 0  # rows found cut short, whose runs were done again
    warnings: Sequence[str] = ()  # what a reader must know of the traces and profiles


Watch = Callable[[Progress], None]


def unwatched(progress: Progress) -> None:
    """Report nothing."""


class Recorder:
    """Takes rows as they come, writes them, and then tells whoever watches."""

    def __init__(self, todo: dict[str, Task], store: Store, progress: Progress, watch: Watch) -> None:
        self.todo = todo
        self.store = store
        self.progress = progress
        self.watch = watch
        self.mean_s = 0.0
        self._timed = 0
        self._looked = time.monotonic()

    def add(self, rows: Sequence[dict[str, Any]]) -> None:
        """Write the rows of runs that are still to do; then they are done."""
        fresh = [row for row in rows if row["key"] in self.todo]
        for row in fresh:
            if row["failed"]:
                row["reproduce"] = self._reproducible(self.todo[row["key"]])
            self._timed += 1
            self.mean_s += (row["duration_s"] - self.mean_s) / self._timed
        if fresh:
            self.store.append(fresh)
        for row in fresh:
            del self.todo[row["key"]]
            self.progress.done += 1
            self.progress.failed += row["failed"]
        if time.monotonic() - self._looked > 5:
            self._look()
        self.watch(self.progress)

    def _look(self) -> None:
        """Leave out what another driver on this store has done in the meantime."""
        self._looked = time.monotonic()
        known = self.store.keys()
        for key in [key for key in self.todo if key in known]:
            del self.todo[key]
            self.progress.done += 1
            self.progress.failed += known[key]

    def _reproducible(self, task: Task) -> str:
        """One line that runs ``task`` again; what it needs is written beside the rows."""
        file = self.store.folder / "failed" / f"{task.key}.json"
        file.parent.mkdir(exist_ok=True)
        write_file(file, dump_spec(task.spec.placed(lambda path: str(Path(path).resolve()))))
        return for_shell(["driftsim", "simulate", str(file), "--out", task.key[:12]])

    def batch(self, left: list[Task]) -> list[Task]:
        """The next runs for one worker, about half a second of work, off the end of ``left``."""
        count = 1 if not self._timed else max(1, min(MOST_IN_A_BATCH, int(BATCH_S / max(self.mean_s, 1e-6))))
        tasks = [task for task in left[-count:] if task.key in self.todo]
        del left[-count:]
        return tasks
