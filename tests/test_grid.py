"""Grids: axes crossed, axes that go together, exclusions, and what is wrong with one."""

from __future__ import annotations

from pathlib import Path

import pytest

from driftsim.request import Tier
from driftsim.sweeps.grid import load_grid

BASE = '[base]\ntrace = "t"\n'


def grid(tmp_path: Path, text: str) -> list[tuple[str, str, float, int]]:
    (tmp_path / "g.toml").write_text(text)
    return [(one.policy, one.estimator, one.rate_scale, one.replication) for one in load_grid(tmp_path / "g.toml")]


def test_axes_are_crossed_with_each_other_and_with_replications(tmp_path: Path) -> None:
    text = (
        "replications = 2\nresamples = 'circular'\n"
        + BASE
        + '[grid]\npolicy = ["fifo", "sjf"]\nrate_scale = [1.0, 2.0]\n'
    )
    found = grid(tmp_path, text)
    assert len(found) == len(set(found)) == 8
    assert found[:2] == [("fifo", "static", 1.0, 0), ("fifo", "static", 1.0, 1)]


def test_zipped_axes_go_together_and_lists_add_single_runs(tmp_path: Path) -> None:
    text = BASE + '[grid]\npolicy = ["fifo", "sjf"]\n[[zip]]\nestimator = ["static", "ema"]\nrate_scale = [1.0, 2.0]\n'
    assert set(grid(tmp_path, text)) == {
        ("fifo", "static", 1.0, 0), ("fifo", "ema", 2.0, 0), ("sjf", "static", 1.0, 0), ("sjf", "ema", 2.0, 0),
    }  # fmt: skip
    assert grid(tmp_path, BASE + '[[list]]\npolicy = "aging"\nrate_scale = 3.0\n') == [("aging", "static", 3.0, 0)]
    assert grid(tmp_path, BASE) == [("fifo", "static", 1.0, 0)]


def test_what_is_excluded_is_left_out_and_what_is_there_twice_runs_once(tmp_path: Path) -> None:
    text = BASE + '[grid]\npolicy = ["fifo", "sjf"]\nestimator = ["static", "ema"]\n'
    text += '[[exclude]]\npolicy = "fifo"\nestimator = "ema"\n[[list]]\npolicy = "sjf"\nestimator = "ema"\n'
    assert [one[:2] for one in grid(tmp_path, text)] == [("fifo", "static"), ("sjf", "static"), ("sjf", "ema")]


def test_keys_reach_into_tables_and_leave_the_rest(tmp_path: Path) -> None:
    (tmp_path / "g.toml").write_text(
        BASE
        + '[grid]\n"admission.safety.premium" = [1.0, 1.5]\n"engine.kv_blocks" = [100]\n"arrivals.kind" = ["backlog"]\n'
    )
    found = load_grid(tmp_path / "g.toml")
    assert [one.admission.safety[Tier.PREMIUM] for one in found] == [1.0, 1.5]
    assert found[0].admission.safety[Tier.BATCH] == 0.8
    assert found[0].engine == {"kv_blocks": 100}
    assert found[0].trace == str(tmp_path / "t")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BASE + "[grid]\npolcy = ['fifo']\n", r"run 0 \(polcy = 'fifo'\): polcy: unknown key"),
        (BASE + "[gird]\npolicy = ['fifo']\n", "gird: unknown key"),
        (BASE + "[grid]\npolicy = []\n", "policy has no value"),
        (
            BASE + "[[zip]]\npolicy = ['fifo']\nseed = [1, 2]\n",
            "differ in length: {'policy': 1, 'seed': 2}",
        ),
        (BASE + "[grid]\nseed = [1]\n[[zip]]\nseed = [1]\n", "seed is on two axes"),
        (BASE + "[[exclude]]\ntrace = 't'\n", "every run is excluded"),
        (BASE + "[grid]\n'seed.x' = [1]\nseed = [1]\n", "run 0"),
        ("replications = 0\n" + BASE, "replications: Input should be greater than or equal to 1"),
        ("[base\n", "not readable as TOML"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "g.toml").write_text(text)
    with pytest.raises(ValueError, match=message):
        load_grid(tmp_path / "g.toml")


def test_resamples_of_a_trace_are_of_both_kinds_and_draws_of_a_workload_are_plain(tmp_path: Path) -> None:
    (tmp_path / "g.toml").write_text("replications = 3\n" + BASE)
    drawn = [(spec.replication, spec.resampling) for spec in load_grid(tmp_path / "g.toml")]
    assert drawn == [(0, "circular"), (1, "circular"), (2, "circular"), (1, "local"), (2, "local")]
    (tmp_path / "g.toml").write_text("replications = 3\nresamples = 'local'\n" + BASE)
    assert [spec.resampling for spec in load_grid(tmp_path / "g.toml")] == ["circular", "local", "local"]


def test_a_resampling_that_is_said_holds_for_all_draws(tmp_path: Path) -> None:
    (tmp_path / "g.toml").write_text("replications = 3\n" + BASE + 'resampling = "local"\n')
    drawn = [(spec.replication, spec.resampling) for spec in load_grid(tmp_path / "g.toml")]
    assert drawn == [(0, "local"), (1, "local"), (2, "local")]


def test_axes_of_one_table_are_crossed_and_a_run_is_found_by_its_number(tmp_path: Path) -> None:
    axes = '[grid]\n"engine.kv_blocks" = [10, 20]\n"engine.max_num_seqs" = [1, 2]\n'
    (tmp_path / "g.toml").write_text("replications = 2\nresamples = 'circular'\n" + BASE + axes)
    runs = load_grid(tmp_path / "g.toml")
    settings = [(one.engine["kv_blocks"], one.engine["max_num_seqs"]) for one in runs]
    assert settings[::2] == settings[1::2] == [(10, 1), (10, 2), (20, 1), (20, 2)]
    assert [runs[number] for number in range(len(runs))] == runs[:] == list(runs)
    assert (runs[-1], runs[5].replication) == (runs[7], 1)
    with pytest.raises(IndexError):
        runs[8]


def test_a_path_counts_from_the_grid_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sub").mkdir()
    text = '[base]\nprofile = "p"\nworkload = {kind = "poisson", requests = 9, trace = "t"}\n'
    text += '[grid]\n"workload.rate" = [1.0, 2.0]\n'
    (tmp_path / "sub" / "g.toml").write_text(text)
    monkeypatch.chdir(tmp_path)
    assert [one.traces for one in load_grid(Path("sub/g.toml"))] == [["sub/t"]] * 2
