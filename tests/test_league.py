"""The league: ranks that hold a known order, entrants that are told apart, and a policy of one's own in five lines."""

from __future__ import annotations

import math
import re
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

import driftsim as ds
from driftsim.workloads.generated import Tenant, WorkloadSpec
from driftsim.workloads.lengths import Lengths
from experiments.league import BOUND, ESTIMATORS, FIELD, FIXTURES, Fixture, document, league, season
from experiments.league.ranks import Scores, differences, ranks_of
from experiments.league.table import MEASURES
from tests.strategies import engine, profile

README = Path(season.__file__).with_name("README.md")
WORK = WorkloadSpec(
    tenants=(
        Tenant(name="a", rate=3.0, requests=60, category="short_qa"),
        Tenant(name="b", rate=1.0, requests=20, category="report", tier=ds.Tier.BATCH, output_tokens=80),
    ),
    prompt_tokens=8, output_tokens=Lengths(kind="geometric", mean=20, high=200),
)  # fmt: skip


def spec() -> ds.ScenarioSpec:
    return ds.ScenarioSpec(workload=WORK, profile="given", slos=(ds.Slo(who="*", ttft_s=0.3),))


TINY = {"tiny": Fixture("a tiny queue", spec, lambda: profile(engine(max_num_seqs=2)))}
QUICK: dict[str, Any] = {"fixtures": TINY, "loads": [0.9], "replications": 3, "jobs": 1}


# -- ranks


def made(random: np.random.Generator, truth: np.ndarray) -> dict[str, Scores]:
    """A league whose true scores are ``truth``: two workloads of draws, and a recorded day with resamples."""
    found = {}
    for name in ("x", "y"):
        common = random.standard_normal(8)
        found[name] = Scores(["drawn"] * 8, truth[:, None] + common + 0.2 * random.standard_normal((len(truth), 8)))
    day = truth[:, None] + 0.1 * random.standard_normal((len(truth), 1))
    resampled = day + 0.1 * random.standard_normal((len(truth), 14))
    kinds = ["recorded", *["local"] * 7, *["circular"] * 7]
    found["day"] = Scores(kinds, np.concatenate([day, resampled], axis=1))
    return found


def test_intervals_of_differences_and_ranks_hold_a_known_order() -> None:
    random, truth = np.random.default_rng(1), np.array([0.0, -0.3, -0.3, -0.2, 0.1, 0.4])
    apart = truth[:, None] - truth[None, :]
    pairs, ranks, tied = [], [], []
    for _ in range(300):
        found = differences(made(random, truth))
        pairs.append(np.abs(found.value - apart)[~np.eye(6, dtype=bool)] <= found.half[~np.eye(6, dtype=bool)])
        own = ranks_of(found)
        lowest = 1 + (truth[None, :] < truth[:, None]).sum(axis=1)
        highest = (truth[None, :] <= truth[:, None]).sum(axis=1)
        ranks.append((own.lowest <= lowest) & (own.highest >= highest))
        tied.append(own.tied[1] and own.tied[2])
    assert 0.9 <= np.mean(pairs) <= 0.99
    assert np.mean(ranks) >= 0.8  # a rank is right if all of its five pairs are
    assert np.mean(tied) >= 0.9


def test_a_difference_is_that_of_its_draws() -> None:
    values = np.array([[0.0, 0.0, 0.0, 0.0], [0.1, 0.4, 0.2, 0.1]])
    found = differences({"only": Scores(["drawn"] * 4, values)})
    half = stats.t.ppf(0.975, 3) * values[1].std(ddof=1) / 2
    assert (found.value[1, 0], found.half[1, 0]) == pytest.approx((0.2, half))
    assert found.half[0, 0] == found.half[1, 1] == 0


def test_a_single_draw_tells_nobody_apart() -> None:
    found = ranks_of(differences({"only": Scores(["drawn"], np.array([[0.0], [-0.5]]))}))
    assert found.rank.tolist() == [2, 1]
    assert (found.lowest.tolist(), found.highest.tolist(), found.tied.tolist()) == ([1, 1], [2, 2], [True, True])


# -- entrants


@pytest.fixture(scope="module")
def tiny() -> Any:
    return league(["sjf", "aging"], ["static", "oracle"], **QUICK)


def test_scores_are_those_of_single_runs(tiny: Any) -> None:
    """Recomputed by ``ds.simulate``: SJF against FIFO, the mean over three draws."""
    rate = 0.9 * ds.backlog_rate(ds.Workload.generated(WORK), profile(engine(max_num_seqs=2))) / 4
    pressed = WORK.changed(
        tenants=tuple(one.changed(rate=float(f"{rate:.4g}") * (one.rate or 0.0)) for one in WORK.tenants)
    )
    logs, within = [], []
    for number in range(3):
        runs = [
            ds.simulate(
                ds.Workload.generated(pressed, number), policy=policy, profile=profile(engine(max_num_seqs=2)),
                seed=number,
            ).requests.sort_values("arrival_s", kind="stable")
            for policy in ("sjf", "fifo")
        ]  # fmt: skip
        rows = [run.iloc[round(0.1 * len(run)) : len(run) - round(0.05 * len(run))] for run in runs]
        one, other = ((own["finish_s"] - own["arrival_s"]).mean() for own in rows)
        logs.append(math.log(one / other))
        shares = [float((own["first_token_s"] - own["arrival_s"] <= 0.3).mean()) for own in rows]
        within.append(100 * (shares[0] - shares[1]))
    row = tiny.frame()[lambda frame: (frame["policy"] == "sjf") & (frame["estimator"] == "static")].iloc[0]
    assert row["mean"] == pytest.approx(math.expm1(np.mean(logs)))
    assert row["within"] == pytest.approx(np.mean(within))


def test_who_heeds_no_estimate_takes_part_once_and_who_is_told_the_truth_is_not_ranked(tiny: Any) -> None:
    frame = tiny.frame()
    named = list(zip(frame["policy"], frame["estimator"], strict=True))
    assert sorted(named) == [("aging", "any"), ("fifo", "any"), ("sjf", "oracle"), ("sjf", "static")]
    assert named[-1] == ("sjf", "oracle")
    assert math.isnan(frame["mean_rank"].iloc[-1])
    assert sorted(frame["mean_rank"].dropna()) == [1, 1, 3]  # who orders alike shares a rank


def test_those_that_take_part_once_heed_no_estimate() -> None:
    work = ds.Workload.generated(WORK.changed(tenants=tuple(one.changed(rate=9.0) for one in WORK.tenants)))
    two = profile(engine(max_num_seqs=2))
    for policy in season.BLIND:
        runs = [
            ds.simulate(work, policy=policy, estimator=name, profile=two, slos="ttft=300ms").requests
            for name in ("static", "oracle")
        ]
        assert runs[0]["finish_s"].equals(runs[1]["finish_s"]), policy


# -- a policy of one's own


def test_the_five_lines_of_the_readme_rank_a_policy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = re.findall(r"```python\n(.*?)```", README.read_text(), re.S)[0]
    assert len([line for line in code.splitlines() if line.strip()]) <= 6  # five and the print
    small: Callable[..., Any] = lambda policies, **more: league(policies, ["static"], **QUICK | more)  # noqa: E731
    monkeypatch.setattr("experiments.league.league", small)
    monkeypatch.setattr("experiments.league.FIELD", ("fifo", "sjf"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(code)
    runpy.run_path("mine.py", run_name="mine")
    lines = [line for line in capsys.readouterr().out.splitlines() if "LongestFirst" in line]
    assert len(lines) == 1
    assert "; 3 [" in lines[0]  # behind SJF and FIFO in the mean


def test_a_further_policy_costs_its_own_runs_alone(tmp_path: Path) -> None:
    told: list[int] = []
    first = league(["sjf"], ["static"], **QUICK, store=tmp_path / "s")
    again = league(["sjf", "priority"], ["static"], **QUICK, store=tmp_path / "s", progress=lambda d, t: told.append(d))
    assert told[0] == 6  # of nine: FIFO and SJF are there
    one, other = (table.frame().set_index("policy")["mean"] for table in (first, again))
    assert one["sjf"] == other["sjf"]


# -- what is kept


def test_the_kept_table_has_every_entrant_of_this_league() -> None:
    frame = document.stored()
    assert set(frame["policy"]) == set(FIELD)
    learners = frame.loc[frame["estimator"] != "any", "estimator"]
    assert set(learners) == {*ESTIMATORS, BOUND}
    assert set(frame.loc[frame["told_the_truth"], "estimator"]) == {BOUND}
    ranked = frame[~frame["told_the_truth"]]
    for measure in MEASURES:
        assert ranked[f"{measure}_tied"].any()
        assert (ranked[f"{measure}_rank_low"] <= ranked[f"{measure}_rank"]).all()
        assert (ranked[f"{measure}_rank"] <= ranked[f"{measure}_rank_high"]).all()
    assert set(FIXTURES) == {"chat-cpu", "chat-gpu", "bursty", "drifting", "azure", "agents"}
