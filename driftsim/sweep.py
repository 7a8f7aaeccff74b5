"""A sweep runs many specs and keeps a row of each in a store: resumable, on local processes or a Dask cluster.

A run returns its error as a row and never raises. A worker that is killed costs the runs it had under way, which are
run again; a run that was lost twice is run alone, and recorded as failed if it dies there, too.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from driftsim import __version__
from driftsim.calibrate import fit_profile
from driftsim.estimators import estimator_class
from driftsim.latency import Profile, load_profile
from driftsim.metrics import summary
from driftsim.policies import policy_class
from driftsim.run import simulate
from driftsim.simulating import Spec, dump_spec, scenario_of, workload_of
from driftsim.store import Store
from driftsim.trace import Trace, digest, read
from driftsim.workload import Workload

BATCH_S = 0.5  # of work that a worker takes at once
MOST_IN_A_BATCH = 200
LOSSES = 2  # of a run, after which it is run alone
ALONE_S = 3600.0  # that a run may take alone


@dataclass(frozen=True, eq=False)
class Task:
    """A run to do: its key, what it is, and the digests of what it needs."""

    key: str
    spec: Spec
    trace: str
    profile: str


@dataclass(eq=False)
class Inputs:
    """Traces and profiles by digest, and the digests by where they are: read once, and sent once to each worker."""

    traces: dict[str, Trace] = field(default_factory=dict)
    profiles: dict[str, Profile] = field(default_factory=dict)
    places: dict[tuple[str, str | None], tuple[str, str]] = field(default_factory=dict)  # (trace, profile) -> digests
    _workloads: dict[Any, Workload] = field(default_factory=dict)

    def workload(self, task: Task) -> Workload:
        """The workload of ``task``; the last few are kept, since runs come in order of them."""
        name = _workload_name(task)
        if name not in self._workloads:
            if len(self._workloads) >= 8:
                self._workloads.pop(next(iter(self._workloads)))
            self._workloads[name] = workload_of(task.spec, self.traces[task.trace])
        return self._workloads[name]


def plan(specs: Sequence[Spec]) -> tuple[list[Task], Inputs]:
    """The runs of ``specs``, each once, and what they need. Raises ``ValueError`` where a trace or profile lacks."""
    inputs = Inputs()
    traces: dict[str, str] = {}
    tasks: dict[str, Task] = {}
    for spec in specs:
        if spec.trace not in traces:
            recorded = read(spec.trace)
            traces[spec.trace] = digest(spec.trace)
            inputs.traces[traces[spec.trace]] = recorded
        place = (spec.trace, spec.profile)
        if place not in inputs.places:
            trace = traces[spec.trace]
            made = load_profile(spec.profile) if spec.profile else fit_profile(inputs.traces[trace], trace)
            inputs.places[place] = (trace, made.digest)
            inputs.profiles[made.digest] = made
        policy_class(spec.policy)
        estimator_class(spec.estimator)
        key = spec_key(spec, inputs)
        tasks.setdefault(key, Task(key, spec, *inputs.places[place]))
    return sorted(tasks.values(), key=_workload_name), inputs  # a workload's runs in a row, so that it is made once


def spec_key(spec: Spec, inputs: Inputs) -> str:
    """The key of ``spec``, whose trace and profile are among ``inputs``."""
    return spec.key(*inputs.places[spec.trace, spec.profile])


def _workload_name(task: Task) -> tuple[Any, ...]:
    """What determines the workload of ``task``."""
    spec = task.spec
    arrivals = "" if spec.arrivals is None else spec.arrivals.model_dump_json()
    return task.trace, arrivals, spec.rate_scale, spec.requests or 0, spec.seed, spec.replication


def run_task(task: Task, inputs: Inputs, keep: Path | None = None) -> dict[str, Any]:
    """The row of one run; an error is a row, too. With ``keep``, the run's trace goes to a folder there, by key."""
    begin = time.perf_counter()
    row: dict[str, Any] = {"key": task.key, "failed": False, **_parameters(task)}
    try:
        trace = simulate(
            scenario_of(task.spec, inputs.profiles[task.profile]), inputs.workload(task), record_steps=task.spec.steps
        )
        row |= _metrics(trace, task.spec)
        if keep is not None:
            trace.write(keep / task.key, overwrite=True)
    except Exception as error:
        row |= {"failed": True, "error": _in_one_line(error)}
    row["duration_s"] = time.perf_counter() - begin
    return row


def _in_one_line(error: BaseException) -> str:
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {' '.join(str(error).split())} ({Path(where.filename).name}:{where.lineno})"


def _parameters(task: Task) -> dict[str, Any]:
    """What was asked for, flat; plain values only."""
    found: dict[str, Any] = {
        "trace_digest": task.trace,
        "profile_digest": task.profile,
        "driftsim_version": __version__,
    }
    for name, value in task.spec.model_dump(mode="json").items():
        if name in ("profile", "steps"):
            continue
        found |= dict(_flat(name, value))
    return found


def _flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for below, inner in value.items():
            yield from _flat(f"{name}.{below}", inner)
    elif value is not None and not isinstance(value, list | tuple):
        yield name, value


def _metrics(trace: Trace, spec: Spec) -> dict[str, Any]:
    row = summary(trace, spec.admission, phase=spec.phase)
    per_tier = row.pop("per_tier")
    for tier, values in per_tier.items():
        row |= {f"{tier}_{name}": value for name, value in values.items() if name != "p99_flagged"}
    name = row.pop("requests")
    return {"offered": name, **row}


@dataclass(eq=False)
class Progress:
    """What a sweep has come to; told to whoever watches after rows are on the disk."""

    total: int
    done: int = 0  # in the store before, or since
    failed: int = 0
    restarts: int = 0  # of the pool of workers


Watch = Callable[[Progress], None]


def sweep(
    tasks: Sequence[Task],
    inputs: Inputs,
    store: Store,
    *,
    jobs: int = 0,
    address: str | None = None,
    keep: bool = False,
    retry: bool = False,
    watch: Watch = lambda progress: None,
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
    recorder = _Recorder(todo, store, progress, watch)
    if address is not None:
        from driftsim.cluster import on_dask

        on_dask(address, recorder, inputs, kept)
    elif (jobs or os.cpu_count() or 1) == 1:
        for task in list(todo.values()):
            recorder.add([run_task(task, inputs, kept)])
    else:
        _locally(recorder, inputs, kept, jobs or os.cpu_count() or 1)
    return progress


class _Recorder:
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
        spec = task.spec
        places = {"trace": str(Path(spec.trace).resolve())}
        if spec.profile:
            places["profile"] = str(Path(spec.profile).resolve())
        file.write_text(dump_spec(spec.changed(**places)))
        return f"driftsim simulate {file} --out {task.key[:12]}"

    def batch(self, left: list[Task]) -> list[Task]:
        """The next runs for one worker, about half a second of work, off the end of ``left``."""
        count = 1 if not self._timed else max(1, min(MOST_IN_A_BATCH, int(BATCH_S / max(self.mean_s, 1e-6))))
        found = [task for task in left[-count:] if task.key in self.todo]
        del left[-count:]
        return found


# -- local processes

_held: tuple[str, Inputs] | None = None  # what a worker process works with, and the file that it came from


def _run_batch(tasks: Sequence[Task], source: str, under_way: str, keep: Path | None) -> list[dict[str, Any]]:
    """A worker's part: the rows of ``tasks``; the key of the one under way is always in a file of this process."""
    global _held
    if _held is None or _held[0] != source:  # a process may serve several sweeps
        _held = (source, pickle.loads(Path(source).read_bytes()))
    rows = []
    file = os.open(f"{under_way}/{os.getpid()}", os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        for task in tasks:
            os.pwrite(file, task.key.encode(), 0)
            rows.append(run_task(task, _held[1], keep))
        os.ftruncate(file, 0)
    finally:
        os.close(file)
    return rows


def _locally(recorder: _Recorder, inputs: Inputs, keep: Path | None, jobs: int) -> None:
    """With joblib's workers; when one dies, a new pool goes on with what is left."""
    import tempfile

    from joblib import Parallel, delayed
    from joblib.externals.loky import get_reusable_executor
    from joblib.externals.loky.process_executor import BrokenProcessPool

    losses: dict[str, int] = {}
    with tempfile.TemporaryDirectory(prefix="driftsim-sweep-") as aside:
        source = Path(aside) / "inputs.pickle"
        source.write_bytes(pickle.dumps(inputs, protocol=pickle.HIGHEST_PROTOCOL))
        while recorder.todo:
            under_way = Path(tempfile.mkdtemp(dir=aside))
            left = list(reversed(recorder.todo.values()))

            def batches(left: list[Task] = left, under_way: Path = under_way) -> Iterator[Any]:
                while left:
                    tasks = recorder.batch(left)
                    if tasks:
                        yield delayed(_run_batch)(tasks, str(source), str(under_way), keep)

            try:
                pool = Parallel(n_jobs=jobs, return_as="generator_unordered", pre_dispatch=2 * jobs, batch_size=1)
                for rows in pool(batches()):
                    recorder.add(rows)
            except BrokenProcessPool:
                recorder.progress.restarts += 1
                get_reusable_executor().shutdown(wait=True, kill_workers=True)
                for file in under_way.iterdir():
                    key = file.read_text()
                    losses[key] = losses.get(key, 0) + bool(key)
                for key in [key for key, count in losses.items() if count >= LOSSES and key in recorder.todo]:
                    recorder.add([_alone(recorder.todo[key], source, keep)])


def _alone(task: Task, source: Path, keep: Path | None) -> dict[str, Any]:
    """Run ``task`` in a process of its own; if it dies, that is its row."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_run_alone, args=(task, str(source), keep, theirs))
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
    return {"key": task.key, **_parameters(task), **dead}


def _run_alone(task: Task, source: str, keep: Path | None, answer: Any) -> None:
    answer.send(run_task(task, pickle.loads(Path(source).read_bytes()), keep))
