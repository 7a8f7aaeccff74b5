"""Sweeps: the rows are those of single runs, and a sweep that is killed ends equal to one that was not."""

from __future__ import annotations

import multiprocessing
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from driftsim.simulation.run import simulate
from driftsim.simulation.scenario import Scenario
from driftsim.sweeps.grid import load_grid
from driftsim.sweeps.recorder import Progress
from driftsim.sweeps.runner import sweep
from driftsim.sweeps.store import MARK, Store
from driftsim.sweeps.tasks import Task, plan, run_task
from tests.commands import driftsim
from tests.strategies import engine, profile, workload

GRID = """
replications = 4
resamples = "circular"
[base]
trace = "t"
profile = "p.json"
[grid]
policy = ["fifo", "sjf"]
rate_scale = [1.0, 1.5]
"""
# A policy that kills its process on the first tries, as many as the number in a file says.
KILLER = """
import os
from pathlib import Path
from driftsim.scheduling.policies import Fifo

class Killer(Fifo):
    def __init__(self):
        super().__init__()
        left = Path(__file__).with_name("left.txt")
        count = int(left.read_text())
        if count > 0:
            aside = left.with_name(f"{os.getpid()}.left")  # another worker may read at this moment
            aside.write_text(str(count - 1))
            aside.replace(left)
            os.kill(os.getpid(), 9)

class Broken(Fifo):
    def pop(self, now):
        raise RuntimeError("no\\nway")
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a trace, a profile, a grid and a file of plug-ins."""
    folder = tmp_path_factory.mktemp("sweep")
    draw = np.random.default_rng(7)
    made = workload(
        np.cumsum(draw.exponential(0.08, 60)).tolist(),
        draw.integers(1, 40, 60).tolist(),
        tier=draw.choice(["premium", "standard", "batch"], 60),
        predicted_category=draw.choice(["short_qa", "summary", "report"], 60),
    )
    known = profile(engine(max_num_seqs=2))
    simulate(Scenario(profile=known), made, record_steps=True).write(folder / "t")
    known.save(folder / "p.json")
    (folder / "g.toml").write_text(GRID)
    (folder / "killer.py").write_text(KILLER)
    return folder


def rows_of(folder: Path) -> pd.DataFrame:
    table = Store.open(folder).table()
    return table.drop(columns=[name for name in ("duration_s",) if name in table]).reindex(sorted(table), axis=1)


@pytest.fixture(scope="module")
def expected(place: Path, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """The rows of the grid, run one after another in this process."""
    tasks, inputs = plan(load_grid(place / "g.toml"))
    assert len(tasks) == 16
    with Store.open(tmp_path_factory.mktemp("stores") / "one", create=True) as store:
        store.append([run_task(task, inputs) for task in tasks])
    return rows_of(store.folder)


def run(place: Path, folder: Path, **more: Any) -> Progress:
    tasks, inputs = plan(load_grid(place / "g.toml"))
    with Store.open(folder, create=True) as store:
        store.adopt()
        return sweep(tasks, inputs, store, **more)


@pytest.mark.parametrize("jobs", [1, 2])
def test_the_rows_are_those_of_single_runs(place: Path, expected: pd.DataFrame, tmp_path: Path, jobs: int) -> None:
    seen: list[int] = []
    done = run(place, tmp_path / "s", jobs=jobs, watch=lambda progress: seen.append(progress.done))
    assert (done.done, done.failed) == (16, 0)
    pd.testing.assert_frame_equal(rows_of(tmp_path / "s"), expected)
    assert seen == sorted(seen)
    assert seen[-1] == 16


def test_what_is_there_is_not_run_again_and_a_new_axis_reuses_it(place: Path, tmp_path: Path) -> None:
    run(place, tmp_path / "s", jobs=1)
    before = Store.open(tmp_path / "s").table()["duration_s"].tolist()
    assert run(place, tmp_path / "s", jobs=1).done == 16
    assert Store.open(tmp_path / "s").table()["duration_s"].tolist() == before
    (place / "wider.toml").write_text(GRID + "seed = [0, 1]\n")
    tasks, inputs = plan(load_grid(place / "wider.toml"))
    with Store.open(tmp_path / "s") as store:
        first: list[int] = []
        sweep(tasks, inputs, store, jobs=1, watch=lambda progress: first.append(progress.done))
    assert first[0] == 16
    assert first[-1] == len(tasks) == 32


def test_a_run_that_raises_is_a_row_with_its_error_and_a_line_that_repeats_it(place: Path, tmp_path: Path) -> None:
    (place / "broken.toml").write_text(GRID.replace('"fifo"', f'"{place}/killer.py:Broken"'))
    (place / "left.txt").write_text("0")
    out = driftsim("sweep", place / "broken.toml", "--store", tmp_path / "s", "--jobs", 1)
    assert out.returncode == 1
    assert "8 runs failed" in out.stderr
    table = Store.open(tmp_path / "s").table()
    failed = table[table["failed"]]
    assert len(table) == 16
    assert len(failed) == 8
    assert failed["error"].str.startswith("RuntimeError: no way (killer.py:").all()
    command = failed["reproduce"].iloc[0].split()
    again = subprocess.run(
        [sys.executable, "-m", "driftsim.cli", *command[1:]], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert again.returncode != 0
    assert r"RuntimeError: no\nway" in again.stderr  # on one line
    assert "no way" in driftsim("show", tmp_path / "s", "--where", "failed=True").stdout


@pytest.mark.parametrize("deaths", [1, pytest.param(100, marks=pytest.mark.nightly)])
def test_a_worker_that_is_killed_costs_nothing_but_time(
    place: Path, expected: pd.DataFrame, tmp_path: Path, deaths: int
) -> None:
    (place / "killer.toml").write_text(GRID + f'[[list]]\npolicy = "{place}/killer.py:Killer"\n')
    (place / "left.txt").write_text(str(deaths))
    tasks, inputs = plan(load_grid(place / "killer.toml"))
    with Store.open(tmp_path / "s", create=True) as store:
        done = sweep(tasks, inputs, store, jobs=2)
    assert done.done == len(tasks) == 20
    assert done.restarts >= 1
    table = rows_of(tmp_path / "s")
    usual = table[table["policy"].isin(["fifo", "sjf"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(usual[list(expected)], expected, check_dtype=False)  # others lack some metrics
    dead = table[table["failed"]]
    if deaths == 100:
        assert len(dead) == 4
        assert (dead["error"] == "the worker died (signal 9), alone, too").all()
    else:
        assert dead.empty


def test_a_sweep_that_is_killed_twenty_times_ends_equal_to_one_that_was_not(
    place: Path, expected: pd.DataFrame, tmp_path: Path
) -> None:
    draw = random.Random(5)
    fork = multiprocessing.get_context("fork")

    def rows() -> int:
        return len(Store.open(tmp_path / "s").keys()) if (tmp_path / "s" / MARK).exists() else 0

    seen = []
    for _ in range(20):
        enough = rows() + draw.randint(0, 1)
        process = fork.Process(target=run, args=(place, tmp_path / "s"), kwargs={"jobs": 1})
        process.start()
        while rows() < enough and process.is_alive():
            time.sleep(0.002)
        time.sleep(draw.uniform(0, 0.02))
        process.kill()
        process.join()
        seen.append(rows())
    assert len(set(seen)) > 2  # it got on in several steps
    assert run(place, tmp_path / "s", jobs=1).done == 16
    pd.testing.assert_frame_equal(rows_of(tmp_path / "s"), expected)


def test_traces_are_kept_by_key_where_asked(place: Path, tmp_path: Path) -> None:
    run(place, tmp_path / "s", jobs=1, keep=True)
    keys = Store.open(tmp_path / "s").table()["key"]
    assert {path.parent.name for path in (tmp_path / "s" / "traces").glob("*/header.json")} == set(keys)


def test_a_dry_run_counts_and_times_and_leaves_nothing(place: Path, tmp_path: Path) -> None:
    told = driftsim("sweep", place / "g.toml", "--store", tmp_path / "s", "--dry-run")
    assert told.stdout.startswith("16 runs, 0 in the store already; about 0.")
    assert not (tmp_path / "s").exists()


@pytest.mark.nightly
def test_driving_costs_little_beyond_the_simulations(place: Path, tmp_path: Path) -> None:
    (place / "many.toml").write_text(GRID.replace("replications = 4", "replications = 60"))
    tasks, inputs = plan(load_grid(place / "many.toml"))
    with Store.open(tmp_path / "s", create=True) as store:
        begin = time.process_time()
        sweep(tasks, inputs, store, jobs=1)
        whole = time.process_time() - begin
    spent = float(Store.open(tmp_path / "s").table()["duration_s"].sum())
    assert (whole - spent) / len(tasks) < 0.005


@pytest.fixture
def cluster() -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """A Dask scheduler and two workers, each a process of its own on loopback."""
    pytest.importorskip("distributed")
    begun = []

    def start(*arguments: str) -> subprocess.Popen[bytes]:
        code = f"import sys; from distributed.cli.dask_{arguments[0]} import main; main(sys.argv[1:])"
        environment = os.environ | {"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "3"}
        process = subprocess.Popen(
            [sys.executable, "-c", code, *arguments[1:]],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment, cwd=ROOT,
        )  # fmt: skip
        begun.append(process)
        return process

    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"tcp://127.0.0.1:{port}"
    start("scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard")
    workers = [start("worker", address, "--nthreads", "1", "--no-nanny", "--no-dashboard") for _ in range(2)]
    yield address, workers
    for process in begun:
        process.kill()
        process.wait()


def test_a_cluster_with_a_worker_killed_gives_the_rows_of_a_local_sweep(
    place: Path, tmp_path: Path, cluster: tuple[str, list[subprocess.Popen[bytes]]]
) -> None:
    address, workers = cluster
    (place / "cluster.toml").write_text(GRID.replace("replications = 4", "replications = 40"))
    tasks, inputs = plan(load_grid(place / "cluster.toml"))
    killed: list[int] = []

    def watch(progress: Progress) -> None:
        if progress.done > 10 and not killed:
            workers[0].kill()
            killed.append(progress.done)

    with Store.open(tmp_path / "far", create=True) as store:
        done = sweep(tasks, inputs, store, address=address, watch=watch)
    assert (done.done, done.failed) == (160, 0)
    assert killed
    assert killed[0] < 160
    with Store.open(tmp_path / "near", create=True) as store:
        sweep(tasks, inputs, store, jobs=1)
    pd.testing.assert_frame_equal(rows_of(tmp_path / "far"), rows_of(tmp_path / "near"))


def test_no_scheduler_is_said(place: Path, tmp_path: Path) -> None:
    run = driftsim("sweep", place / "g.toml", "--store", tmp_path / "s", "--backend", "dask")
    assert run.returncode == 2
    assert "--backend dask and --address" in run.stderr


def test_a_missing_trace_is_said_before_anything_is_made(place: Path, tmp_path: Path) -> None:
    (tmp_path / "g.toml").write_text('[base]\ntrace = "absent"\n')
    run = driftsim("sweep", tmp_path / "g.toml", "--store", tmp_path / "s")
    assert run.returncode == 2
    assert "absent: no such trace folder" in run.stderr
    assert not (tmp_path / "s").exists()


def test_an_unknown_policy_is_said_before_anything_is_made(place: Path, tmp_path: Path) -> None:
    (tmp_path / "g.toml").write_text(f'[base]\ntrace = "{place}/t"\npolicy = "lifo"\n')
    run = driftsim("sweep", tmp_path / "g.toml", "--store", tmp_path / "s")
    assert run.returncode == 2
    assert "unknown policy 'lifo'" in run.stderr
    assert not (tmp_path / "s").exists()


def test_a_task_is_named_by_what_it_is(place: Path) -> None:
    tasks, _ = plan(load_grid(place / "g.toml"))
    assert len({task.key for task in tasks}) == 16
    assert all(isinstance(task, Task) and len(task.key) == 32 for task in tasks)


ROOT = Path(__file__).resolve().parent.parent
