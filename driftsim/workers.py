"""Worker processes: what they share travels to each once, then tasks and results come and go.

Results do not depend on how many workers there are. A worker that dies raises ``WorkerError``.
"""

from __future__ import annotations

import os
import pickle
import shutil
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from os import cpu_count
from pathlib import Path
from typing import Any

from driftsim.errors import InputError, check_whole

PREFIX = "driftsim-"  # of the folders that workers are told of
LOOK_S = 0.5  # between looks for the process that a worker works for
_held: tuple[str, Any] | None = None  # what this worker process shares, and the file that it came from
_watched: int | None = None  # the process whose end this worker looks for


class WorkerError(Exception):
    """A worker process ended before its task did."""


def processes(jobs: int | None) -> int:
    """How many worker processes ``jobs`` means: None and 0 are one a core."""
    if jobs is None:
        jobs = 0
    check_whole("jobs", jobs)
    if jobs < 0:
        raise InputError(f"jobs must not be negative, got {jobs}; 0 is one a core")
    return jobs or cpu_count() or 1


@contextmanager
def shared(value: Any) -> Iterator[Path]:
    """A file from which workers load ``value``, in a folder that nobody else can read; gone when the block ends.

    Classes of a notebook or a script travel with their source, as cloudpickle has it.
    """
    import cloudpickle

    with tempfile.TemporaryDirectory(prefix=PREFIX) as folder:
        file = Path(folder) / "shared.pickle"
        with file.open("wb") as written:  # piece by piece: as one text, a large workload would be there twice
            cloudpickle.dump(value, written, protocol=pickle.HIGHEST_PROTOCOL)
        yield file


def load(file: str | Path) -> Any:
    """What ``shared`` wrote into ``file``; read once in each process.

    A pickle runs code, so it is read only out of a folder of this user that nobody else can write or read.
    """
    global _held
    folder = Path(file).parent.stat()
    if folder.st_uid != os.geteuid() or stat.S_IMODE(folder.st_mode) != 0o700:
        raise WorkerError(f"{file}: is not read, since others may have written it")
    if _held is None or _held[0] != str(file):  # a process may serve several runs
        with Path(file).open("rb") as written:
            _held = (str(file), pickle.load(written))
    return _held[1]


def map_shared(
    work: Callable[[Any, Any], Any], tasks: Iterable[Any], file: Path, jobs: int, *, ordered: bool = False
) -> Iterator[Any]:
    """``work(shared, task)`` of each of ``tasks``, on ``jobs`` processes, as the results come or in order of the tasks.

    ``tasks`` is asked for the next one as workers become free. Raises ``WorkerError``.
    """
    from joblib import Parallel, delayed
    from joblib.externals.loky import get_reusable_executor
    from joblib.externals.loky.process_executor import BrokenProcessPool

    kind = "generator" if ordered else "generator_unordered"
    pool = Parallel(n_jobs=jobs, return_as=kind, pre_dispatch=2 * jobs, batch_size=1)
    try:
        yield from pool(delayed(_call)(work, str(file), os.getpid(), task) for task in tasks)
    except BrokenProcessPool as error:
        get_reusable_executor().shutdown(wait=True, kill_workers=True)
        raise WorkerError(str(error)) from error


def end_with(parent: int, file: str | Path) -> None:
    """From now on, end this worker when the process ``parent`` that started it is gone, and the folder of ``file``.

    A process that is killed cannot tell its workers; these look for it twice a second. In ``parent`` itself, which does
    the work where there is one job, nothing happens.
    """
    global _watched
    if os.getpid() != parent != _watched:
        _watched = parent
        threading.Thread(target=_outlive_nobody, args=(parent, Path(file).parent), daemon=True).start()


def _outlive_nobody(parent: int, folder: Path) -> None:
    while os.getppid() == parent:
        time.sleep(LOOK_S)
    if folder.name.startswith(PREFIX):
        shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


def _call(work: Callable[[Any, Any], Any], file: str, parent: int, task: Any) -> Any:
    end_with(parent, file)
    return work(load(file), task)
