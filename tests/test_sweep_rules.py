"""A sweep's duties one by one, in this process: what is run, what is not, what a row holds, and what is counted."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from driftsim import workers
from driftsim.errors import InputError
from driftsim.metrics import summary
from driftsim.simulation.run import simulate
from driftsim.simulation.scenario import Scenario
from driftsim.simulation.spec import ScenarioSpec
from driftsim.sweeps import local, runner
from driftsim.sweeps.baseline import make_baseline
from driftsim.sweeps.gate import check_baseline
from driftsim.sweeps.recorder import Progress, Recorder
from driftsim.sweeps.runner import estimate, plan_grid, sweep, sweep_grid
from driftsim.sweeps.store import Store
from driftsim.sweeps.tasks import plan, run_task, workload_name
from driftsim.trace.header import Phase
from driftsim.trace.schema import LIFE_TIMES
from driftsim.trace.trace import Trace, read
from driftsim.workloads.replay import replay
from driftsim.workloads.resampling import resample
from tests.strategies import engine, profile, workload

PROFILE = profile(engine(max_num_seqs=2))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a trace of two phases, a profile, and a policy that sometimes fails."""
    folder = tmp_path_factory.mktemp("rules")
    draw = np.random.default_rng(7)
    phases = (Phase(name="one", requests=12), Phase(name="two", requests=12, pause_s=5.0))
    made = workload(
        [*np.cumsum(draw.exponential(0.05, 12)), *np.cumsum(draw.exponential(0.02, 12))],
        draw.integers(1, 30, 24).tolist(), phases,
    )  # fmt: skip
    simulate(Scenario(profile=PROFILE), made, record_steps=True).write(folder / "t")
    PROFILE.save(folder / "p.json")
    (folder / "odd.py").write_text(
        "import os\nfrom driftsim.scheduling.policies import Fifo\n\n\nclass Odd(Fifo):\n    def pop(self, now):\n"
        "        if os.environ.get('ODD'):\n            raise RuntimeError('no\\nway')\n"
        "        return super().pop(now)\n"
    )
    return folder


def spec(place: Path, policy: str = "fifo", **more: Any) -> ScenarioSpec:
    return ScenarioSpec(trace=str(place / "t"), profile=str(place / "p.json"), policy=policy, **more)


def odd(place: Path) -> str:
    return f"{place}/odd.py:Odd"


def swept(place: Path, folder: Path, *specs: ScenarioSpec, **more: Any) -> Progress:
    tasks, inputs = plan(specs)
    with Store.open(folder, create=True) as store:
        return sweep(tasks, inputs, store, jobs=1, **more)


def test_what_is_there_is_not_run_again_and_what_failed_only_if_asked(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []

    def counted(task: Any, inputs: Any, keep: Path | None = None) -> dict[str, Any]:
        ran.append(task.spec.policy)
        return run_task(task, inputs, keep)

    monkeypatch.setattr(runner, "run_task", counted)
    specs = [spec(place), spec(place, "sjf"), spec(place, odd(place))]
    monkeypatch.setenv("ODD", "1")
    progress = swept(place, tmp_path / "s", *specs)
    assert (progress.total, progress.done, progress.failed, len(ran)) == (3, 3, 1, 3)
    again = swept(place, tmp_path / "s", *specs)
    assert (again.total, again.done, again.failed, len(ran)) == (3, 3, 1, 3)
    monkeypatch.delenv("ODD")
    told: list[tuple[int, int]] = []
    retried = swept(place, tmp_path / "s", *specs, retry=True, watch=lambda own: told.append((own.done, own.failed)))
    assert len(ran) == 4
    assert told[0] == (2, 1)
    assert retried.done == 3
    assert list(Store.open(tmp_path / "s").stored()["failed"]) == [False] * 3


def test_an_error_is_a_row_that_says_where_it_was(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ODD", "1")
    [task], inputs = plan([spec(place, odd(place))])
    row = run_task(task, inputs)
    assert row["failed"] is True
    assert row["error"].startswith("RuntimeError: no way (odd.py:8")
    monkeypatch.delenv("ODD")
    assert run_task(task, inputs)["failed"] is False


@pytest.mark.parametrize("how", ["circular", "local"])
@pytest.mark.parametrize("phase", ["all", "two"])
def test_a_row_holds_the_summary_of_its_own_workload(how: Any, phase: str, place: Path) -> None:
    [task], inputs = plan([spec(place, "sjf", seed=3, replication=2, resampling=how, phase=phase)])
    row = run_task(task, inputs)
    work = resample(replay(read(place / "t")), 3, 2, how)
    expected = summary(simulate(Scenario(profile=PROFILE, policy="sjf", seed=3), work), phase=phase)
    assert row["offered"] == expected["requests"]
    assert row["e2e_mean_s"] == expected["e2e_mean_s"]
    assert row["standard_e2e_p99_s"] == expected["per_tier"]["standard"]["e2e_p99_s"]


def test_runs_share_a_workload_only_if_nothing_that_makes_it_differs(place: Path) -> None:
    specs = [
        spec(place), spec(place, "sjf"), spec(place, seed=1, replication=1), spec(place, replication=1),
        spec(place, replication=1, resampling="local"), spec(place, rate_scale=2.0), spec(place, requests=9),
    ]  # fmt: skip
    tasks, _ = plan(specs)
    assert len({workload_name(task.trace, task.spec) for task in tasks}) == len(specs) - 1  # but for the policy


def test_requests_that_taught_a_base_are_not_scored(place: Path, tmp_path: Path) -> None:
    made = workload([float(row) for row in range(20)], [9] * 20, predicted_category="poetry")
    simulate(Scenario(profile=PROFILE), made).write(tmp_path / "t")
    own = spec(place, admission={"base_fit_n": 5}).changed(trace=str(tmp_path / "t"))
    [task], inputs = plan([own])
    assert run_task(task, inputs)["scored"] == 20 - 5


def test_the_recorded_rate_is_of_the_gaps_within_phases(place: Path) -> None:
    [task], inputs = plan([spec(place)])
    [trace] = inputs.traces.values()
    arrivals = trace.requests["arrival_s"].to_numpy()
    spans = (arrivals[11] - arrivals[0]) + (arrivals[23] - arrivals[12])
    assert run_task(task, inputs)["recorded_rate"] == pytest.approx(22 / spans)


def test_rows_of_other_stores_are_taken_in_before_anything_is_run(place: Path, tmp_path: Path) -> None:
    grid = '[base]\ntrace = "t"\nprofile = "p.json"\n[grid]\npolicy = ["fifo", "sjf"]\n'
    (place / "g.toml").write_text(grid)
    planned = plan_grid(place / "g.toml")
    sweep_grid(planned, tmp_path / "other", jobs=1)
    seen: list[int] = []
    progress, keys = sweep_grid(
        planned, tmp_path / "s", merge=[tmp_path / "other"], jobs=1, watch=lambda own: seen.append(own.done)
    )
    assert seen == [2]
    assert (progress.done, len(keys)) == (2, 2)
    assert set(Store.open(tmp_path / "s").keys()) == keys
    for wrong, why in (
        (tmp_path / "nowhere", "is no store"),
        (tmp_path / "new", "is no store"),
        (tmp_path / "s", "own"),
    ):
        with pytest.raises(InputError, match=why):
            sweep_grid(planned, tmp_path / ("s" if wrong.name == "s" else "new"), merge=[wrong], jobs=1)
    assert not (tmp_path / "new").exists()


def test_a_dry_run_tells_what_is_left_how_long_it_takes_and_what_fails(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    swept(place, tmp_path / "s", spec(place))
    monkeypatch.setenv("ODD", "1")
    found = estimate(plan([spec(place), spec(place, "sjf"), spec(place, odd(place))]), tmp_path / "s", 2)
    assert (found["runs"], found["in_store"], found["processes"]) == (3, 1, 2)
    assert found["seconds"] == pytest.approx(2 * found["seconds_a_run"] / 2)
    assert len(found["failed_tries"]) == 1
    assert "no way" in found["failed_tries"][0]


def test_a_recorder_hands_out_every_run_once_and_counts_what_others_have_done(place: Path, tmp_path: Path) -> None:
    tasks, _ = plan([spec(place, seed=seed, replication=1) for seed in range(9)])
    todo = {task.key: task for task in tasks}
    with Store.open(tmp_path / "s", create=True) as store, Store.open(tmp_path / "s") as other:
        recorder = Recorder(dict(todo), store, Progress(9), lambda progress: None)
        left, handed = list(todo.values()), list[str]()
        recorder.mean_s, recorder._timed = 0.2, 1  # two of them in half a second
        while left:
            handed += [task.key for task in recorder.batch(left)]
        assert sorted(handed) == sorted(todo)
        first, second, third, *_ = todo
        other.append([{"key": first, "failed": False}, {"key": second, "failed": True}])
        recorder._looked -= 60
        recorder.add([{"key": third, "failed": False, "duration_s": 0.1}])
        recorder.add([{"key": third, "failed": False, "duration_s": 0.1}])
        assert (recorder.progress.done, recorder.progress.failed) == (3, 1)
        assert set(recorder.todo) == set(todo) - {first, second, third}
        assert list(store.keys()).count(third) == 1


def test_no_number_of_jobs_is_one_a_core_and_a_pickle_is_read_only_from_a_private_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert workers.processes(None) == 1  # in tests, see conftest.py
    monkeypatch.setattr("driftsim.workers.cpu_count", os.cpu_count)
    cores = os.cpu_count() or 1
    assert (workers.processes(0), workers.processes(None), workers.processes(3)) == (cores, cores, 3)
    monkeypatch.setattr("driftsim.workers.cpu_count", lambda: 7)
    assert workers.processes(0) == 7
    with workers.shared({"a": 1}) as file:
        assert workers.load(file) == {"a": 1}
        file.parent.chmod(0o755)
        with pytest.raises(workers.WorkerError, match="is not read"):
            workers.load(file)
        file.parent.chmod(0o700)


def test_a_plan_has_each_run_once(place: Path) -> None:
    tasks, _ = plan([spec(place), spec(place), replace_policy(spec(place))])
    assert len(tasks) == 2


def replace_policy(own: ScenarioSpec) -> ScenarioSpec:
    return own.changed(policy="sjf")


# -- baselines and captures before the gate


def captured(place: Path, folder: Path, minute: int, factor: float) -> Path:
    """The run of ``place`` as a capture at that minute, whose every time is ``factor`` times as late."""
    run = read(place / "t")
    times = {name: run.requests[name] * factor for name in LIFE_TIMES}
    phases = tuple(phase.changed(start_s=None) for phase in run.header.workload.phases)
    header = run.header.changed(
        kind="captured",
        captured_at=f"2026-01-01T00:0{minute}:00Z",
        workload=run.header.workload.changed(phases=phases),
    )
    return Trace(header, run.requests.assign(**times)).write(folder / f"c{minute}")


def test_a_new_baseline_keeps_what_is_not_given_anew_and_takes_no_failed_run(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "one.toml").write_text('[base]\ntrace = "t"\nprofile = "p.json"\n[grid]\npolicy = ["fifo"]\n')
    file = tmp_path / "b.json"
    made = make_baseline(
        file, place / "one.toml", reason="first", tolerance=0.02, floors={"s": 0.5}, jobs=1,
        captured=[captured(place, tmp_path, 0, 1.0)],
    )  # fmt: skip
    again = make_baseline(file, reason="second", jobs=1)
    assert (again.tolerance, again.floors["s"], again.floors["tokens"]) == (0.02, 0.5, 1.0)
    assert again.captured == made.captured != []
    assert again.runs == made.runs
    assert make_baseline(file, reason="third", tolerance=0.3, floors={"s": 0.1}, jobs=1).floors["s"] == 0.1
    [scenario] = check_baseline(file, jobs=1, floors={"s": 99.0}, only="fifo").scenarios
    assert {change.floor for change in scenario.changes if change.metric.endswith("_s")} == {99.0}
    monkeypatch.setenv("ODD", "1")
    (place / "odd.toml").write_text(f'[base]\ntrace = "t"\nprofile = "p.json"\n[grid]\npolicy = ["{odd(place)}"]\n')
    with pytest.raises(InputError, match=r"failed \(RuntimeError: no way"):
        make_baseline(tmp_path / "c.json", place / "odd.toml", reason="odd", jobs=1)


def test_new_captures_are_held_against_those_beside_them_and_not_the_other_way_round(
    place: Path, tmp_path: Path
) -> None:
    old = [captured(place, tmp_path, minute, 1.0) for minute in (0, 3)]
    new = [captured(place, tmp_path, minute, 1.5) for minute in (1, 2)]
    slower, faster = check_baseline(captured=new, beside=old), check_baseline(captured=old, beside=new)
    assert [one.verdict for one in slower.scenarios] == ["regression"]
    assert [one.verdict for one in faster.scenarios] == ["improvement"]
    assert slower.scenarios[0].worst.change == pytest.approx(0.5)
    assert not slower.scenarios[0].foreign
    (command,) = check_baseline(captured=new, beside=old, floors={"s": 0.5}, slos="e2e=9s").commands.values()
    assert command.startswith("driftsim check --floor s=0.5 --slo e2e=9s --only ")


# -- workers that die


def test_a_run_that_was_lost_twice_is_run_alone(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks, inputs = plan([spec(place), spec(place, "sjf")])
    pools: list[int] = []

    def dies(work: Any, batches: Any, file: Path, jobs: int) -> Any:
        """Begins the first batch, and dies; the third pool gets through."""
        batch = next(batches)
        pools.append(len(batch.tasks))
        if len(pools) < 3:
            (Path(batch.under_way) / "1").write_text(batch.tasks[0].key)
            (Path(batch.under_way) / "2").write_text("")
            raise workers.WorkerError("gone")
        yield [{"key": task.key, "failed": False, "duration_s": 0.1} for task in batch.tasks]
        for other in batches:
            yield [{"key": task.key, "failed": False, "duration_s": 0.1} for task in other.tasks]

    alone: list[tuple[str, int]] = []

    def by_itself(task: Any, file: Path, keep: Path | None) -> dict[str, Any]:
        alone.append((task.key, len(pools)))
        return {"key": task.key, "failed": True, "error": "dead", "duration_s": 0.1}

    monkeypatch.setattr(workers, "map_shared", dies)
    monkeypatch.setattr(local, "_alone", by_itself)
    with Store.open(tmp_path / "s", create=True) as store:
        recorder = Recorder({task.key: task for task in tasks}, store, Progress(2), lambda progress: None)
        local.run_locally(recorder, inputs, None, 2)
    assert len(alone) == 1
    assert alone[0][1] == 2  # after the second pool, not after the first
    assert (recorder.progress.restarts, recorder.progress.done, recorder.progress.failed) == (2, 2, 1)


def test_a_worker_says_which_run_is_under_way_and_after_its_batch_none(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks, inputs = plan([spec(place), spec(place, "sjf")])
    said: list[str] = []

    def told(task: Any, inputs: Any, keep: Path | None) -> dict[str, Any]:
        [marker] = tmp_path.iterdir()
        said.append(marker.read_text())
        return {"key": task.key}

    monkeypatch.setattr(local, "run_task", told)
    rows = local._run_batch(inputs, local.Batch(tasks, str(tmp_path), None))
    assert said == [task.key for task in tasks] == [row["key"] for row in rows]
    [marker] = tmp_path.iterdir()
    assert marker.read_text() == ""
