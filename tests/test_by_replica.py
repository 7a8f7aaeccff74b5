"""What each replica served, counted by hand, and told by every verb that runs replicas."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import driftsim as ds
from driftsim import glossary
from driftsim.by_replica import per_replica, replica_table
from driftsim.simulation.replicas import Replicas
from driftsim.statistics import intervals_union
from driftsim.trace.header import Phase
from tests.commands import driftsim
from tests.strategies import engine, profile, workload

KNOWN = profile(engine(max_num_seqs=2))


def made() -> ds.Workload:
    random = np.random.default_rng(4)
    return workload(np.cumsum(random.exponential(0.1, 40)).tolist(), random.integers(1, 30, 40).tolist())


def test_the_numbers_of_a_replica_are_those_of_its_requests() -> None:
    run = ds.simulate(made(), profile=KNOWN, replicas=Replicas(count=3, router="two-choices"))
    table, rows = replica_table(run), run.requests
    assert list(table.columns) == [metric.name for metric in glossary.REPLICA]
    span = rows["finish_s"].max() - rows["arrival_s"].min()
    for number in range(3):
        own = rows[rows["replica"] == number]
        assert [table["requests"][number], table["finished"][number]] == [len(own)] * 2
        assert table.loc[number, "e2e_mean_s"] == pytest.approx((own["finish_s"] - own["arrival_s"]).mean())
        busy = intervals_union(own["scheduled_s"].to_numpy(float), own["finish_s"].to_numpy(float))
        assert table.loc[number, "busy_share"] == pytest.approx(busy / span)
    assert table["requests"].sum() == 40


def test_a_replica_that_served_nobody_has_a_row() -> None:
    run = ds.simulate(workload([0.0], [5]), profile=KNOWN, replicas=Replicas(count=2, router="round-robin"))
    assert per_replica(run)["1"]["requests"] == 0
    assert per_replica(run)["1"]["busy_share"] == 0.0
    assert np.isnan(per_replica(run)["1"]["e2e_mean_s"])


def test_a_phase_has_its_own_requests() -> None:
    phases = (Phase(name="one", requests=10), Phase(name="two", requests=10))
    work = workload((0.05 * np.arange(10)).tolist() * 2, [9] * 20, phases)
    run = ds.simulate(work, profile=KNOWN, replicas=2)
    assert replica_table(run, "two")["requests"].sum() == 10


def test_compare_and_simulate_tell_of_each_replica(tmp_path: Path) -> None:
    two: dict[str, Any] = {"replicas": Replicas(count=2, router="round-robin")}
    result = ds.compare(made(), profile=KNOWN, policies=["fifo", "sjf"], estimators=["static"], replications=1, jobs=1,
                        **two)  # fmt: skip
    run = ds.simulate(made(), profile=KNOWN, **two)
    wanted = per_replica(run)
    row = result.rows()[0]
    assert row["per_replica"] == wanted
    frame = result.frame()
    assert frame["replica_1_busy_share"][0] == wanted["1"]["busy_share"]
    assert glossary.metric("replica_1_busy_share").meaning == "`busy_share` of replica 1 alone."
    cells = f"{100 * wanted['1']['busy_share']:.1f}"
    page = (result.write(tmp_path / "c") / "report.html").read_text()
    assert "By replica" in page
    assert cells in page
    assert cells in str(result).split("By replica")[1]
    assert pd.read_csv(tmp_path / "c" / "rows.csv")["replica_0_requests"][0] == 20
    ds.simulate(made(), profile=KNOWN, steps=True).write(tmp_path / "t")
    KNOWN.save(tmp_path / "p.json")
    (tmp_path / "s.toml").write_text('trace = "t"\nprofile = "p.json"\n')
    words = ("simulate", tmp_path / "s.toml", "--replicas", 2, "--router", "round-robin", "--out", tmp_path / "o")
    told = driftsim(*words).stdout
    assert "Replica 0: 20 requests, 20 finished; busy in" in told
    document = json.loads(driftsim(*words, "--overwrite", "--json").stdout)
    assert list(document["per_replica"]) == ["0", "1"]


def test_without_replicas_nothing_says_a_word_of_one(tmp_path: Path) -> None:
    result = ds.compare(made(), profile=KNOWN, policies=["fifo"], estimators=["static"], replications=1, jobs=1)
    assert "per_replica" not in result.rows()[0]
    assert "By replica" not in str(result)
    assert "By replica" not in (result.write(tmp_path / "c") / "report.html").read_text()
