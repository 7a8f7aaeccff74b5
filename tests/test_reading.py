"""Reading a store: filters, groups, the best, paired differences, figures."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

import driftsim as ds
from driftsim.comparison.plan import BASELINE, Setting
from driftsim.sweeps.best import best_settings, group_means
from driftsim.sweeps.figures import save_figures
from driftsim.sweeps.results import paired_change
from driftsim.sweeps.rows import varying, where
from driftsim.sweeps.store import Store
from driftsim.workloads.replay import first, replay
from tests.commands import driftsim


@pytest.fixture
def table() -> pd.DataFrame:
    rows = []
    for policy, factor in (("fifo", 1.0), ("sjf", 0.8)):
        for load in (0.5, 1.0, 2.0):
            for replication in range(6):
                mean = load * (10 + replication) * factor
                rows.append({
                    "key": f"{policy}{load}{replication}", "failed": False, "trace": "t", "policy": policy,
                    "rate_scale": load, "max_in_flight": 8.0, "replication": replication,
                    "resampling": "local" if replication > 2 else "circular", "offered": 10,
                    "e2e_mean_s": mean, "e2e_p50_s": mean / 2, "e2e_p99_s": 3 * mean / factor, "ttft_mean_s": mean / 5,
                    "mae": 100.0,
                })  # fmt: skip
    return pd.DataFrame(rows)


@pytest.fixture
def store(table: pd.DataFrame, tmp_path: Path) -> Path:
    with Store.open(tmp_path / "s", create=True) as opened:
        opened.append(table.to_dict("records"))  # type: ignore[arg-type]
    return tmp_path / "s"


def test_what_varies_is_found_and_filtered(table: pd.DataFrame) -> None:
    assert varying(table) == ["policy", "rate_scale", "replication", "resampling"]
    assert len(where(table, ["policy=sjf", "rate_scale>=1", "replication!=0"])) == 10
    for condition, message in (
        ("policy", "is none"),
        ("rate_scale=x", "holds numbers"),
        ("speed=1", "no column 'speed'"),
    ):
        with pytest.raises(ValueError, match=message):
            where(table, [condition])


def test_groups_are_means_over_the_rest(table: pd.DataFrame) -> None:
    found = group_means(table, ["policy"], ["e2e_mean_s"]).set_index("policy")
    assert found.loc["fifo", "e2e_mean_s"] == pytest.approx(12.5 * 3.5 / 3)
    assert found.loc["fifo", "runs"] == 18
    assert best_settings(table, ["rate_scale"], "e2e_mean_s")["policy"].tolist() == ["sjf"] * 3
    assert best_settings(table, [], "e2e_mean_s")[["policy", "rate_scale"]].to_dict("records") == [
        {"policy": "sjf", "rate_scale": 0.5}
    ]


def test_pairs_cancel_what_both_share(table: pd.DataFrame) -> None:
    found = paired_change(table, ["policy=fifo"], ["policy=sjf"], "e2e_mean_s")
    assert found["pairs"] == 18
    assert (found["change"], found["low"], found["high"]) == pytest.approx((-0.2, -0.2, -0.2))
    noisy = table.assign(e2e_mean_s=table["e2e_mean_s"] * (1 + 0.01 * (table.index % 5)))
    for odd in ("replication", "policy"):
        with pytest.raises(ValueError, match=f"column '{odd}' is no result whose change can be told"):
            paired_change(table, ["policy=fifo"], ["policy=sjf"], odd)
    spread = paired_change(noisy, ["policy=fifo"], ["policy=sjf"], "e2e_mean_s")
    assert spread["low"] < spread["change"] < spread["high"]
    assert spread["basis"] == "2 x 2 resamples of one recorded day"
    alone = paired_change(table[table["resampling"] == "circular"], ["policy=fifo"], ["policy=sjf"], "e2e_mean_s")
    assert alone["basis"].startswith("2 resamples of one kind, too narrow where load changes within a phase")
    with pytest.raises(ValueError, match="no runs of policy=fifo and policy=lifo"):
        paired_change(table, ["policy=fifo"], ["policy=lifo"], "e2e_mean_s")


def test_the_command_shows_tables_figures_and_json(store: Path, tmp_path: Path) -> None:
    told = driftsim("show", store).stdout
    assert "36 of 36 runs" in told
    assert "rate_scale" in told
    rows = json.loads(driftsim("show", store, "--group", "policy", "--metrics", "e2e_mean_s", "--json").stdout)["rows"]
    assert {row["policy"] for row in rows} == {"fifo", "sjf"}
    assert "-0.2" in driftsim("show", store, "--paired", "policy=fifo/policy=sjf", "--metrics", "e2e_mean_s").stdout
    assert "0.5" in driftsim("show", store, "--pivot", "rate_scale,policy").stdout
    assert driftsim("show", store, "--best", "e2e_p99_s", "--group", "rate_scale").returncode == 0
    figures = tmp_path / "figures"
    assert driftsim("show", store, "--figures", figures, "--csv", tmp_path / "rows.csv").returncode == 0
    assert {file.name for file in figures.glob("*.svg")} == {"load.svg", "pareto.svg"}
    assert len(pd.read_csv(tmp_path / "rows.csv")) == 36


def test_two_axes_make_a_heat_map(table: pd.DataFrame, tmp_path: Path) -> None:
    both = pd.concat([table, table.assign(max_in_flight=4.0, e2e_mean_s=table["e2e_mean_s"] * 2)])
    assert [file.name for file in save_figures(both, tmp_path)] == ["pareto.svg", "load.svg", "gain.svg"]


def test_what_cannot_be_shown_is_said(store: Path, tmp_path: Path) -> None:
    for arguments, message in (
        (("--where", "policy=lifo"), "no row fits policy=lifo"),
        (("--group", "speed"), "no column 'speed'"),
        (("--paired", "policy=fifo"), "give two settings"),
        (("--paired", "policy=fifo/policy=fifo"), "both sides are one setting"),
        (("--pivot", "policy"), "give two columns"),
    ):
        run = driftsim("show", store, *arguments)
        assert run.returncode == 2
        assert message in run.stderr
    assert "is no store" in driftsim("show", tmp_path / "absent").stderr


def test_the_paired_change_of_a_sweep_is_that_of_a_comparison(tmp_path: Path) -> None:
    grid = tmp_path / "g.toml"
    trace = Path(__file__).parent.parent / "traces" / "smollm2-cpu-drift"
    grid.write_text(f"replications = 4\n[base]\ntrace = '{trace}'\nrequests = 120\n[grid]\npolicy = ['fifo', 'sjf']\n")
    ds.sweep(grid, tmp_path / "s", jobs=1)
    rows = Store.open(tmp_path / "s").table()
    found = paired_change(rows, ["policy=fifo"], ["policy=sjf"], "e2e_mean_s")
    day = first(replay(ds.read(trace)), 120)
    compared = ds.compare(
        day, policies=["fifo", "sjf"], estimators="static", profile=ds.calibrate(trace), replications=4, jobs=1
    )
    change = compared.change(Setting("sjf", "static"), BASELINE, "e2e_mean_s")
    assert (found["change"], found["low"], found["high"]) == pytest.approx(tuple(change), rel=1e-9)
