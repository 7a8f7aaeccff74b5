"""Requests that ask for several answers (n > 1): each is a row, and they arrive, share and are turned away together."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path
from typing import Any, cast

import pandas as pd
import pytest

from driftsim.errors import InputError, TraceError
from driftsim.simulation.run import simulate
from driftsim.simulation.scenario import Scenario
from driftsim.trace import trace as traces
from driftsim.trace.prefixes import stretches
from driftsim.workloads.replay import replay
from driftsim.workloads.resampling import resample
from driftsim.workloads.workload import Workload
from tests.crowds import crowd
from tests.stepwise import StepwiseAsyncEngine, StepwiseEngine
from tests.strategies import engine, profile, workload
from tests.test_oracle import run


def several(made: Workload, seed: int) -> Workload:
    """``made``, where some requests are answers to the one before them: same prompt, arrival and tier."""
    dice, table = random.Random(f"choices {seed}"), made.table.copy()
    names: list[str | None] = [None] * len(table)
    firsts = list(range(len(table)))
    for row in range(1, len(table)):
        if dice.random() < 0.6:
            firsts[row] = firsts[row - 1]
            names[row] = names[firsts[row]] = f"q{firsts[row]}"
            for column in ("prompt_tokens", "offset_s", "tier", "tenant"):
                table[column] = table[column].where(table.index != row, table[column].iloc[firsts[row]])
            table.loc[row, "max_tokens"] = max(table["max_tokens"][row], table["output_tokens"][row])
    shares = [first if first < row else -1 for row, first in enumerate(firsts)]
    whose = stretches(shares, table["prompt_tokens"].tolist())
    return dataclasses.replace(made, table=table.assign(choice_of=cast(Any, names), stretches=cast(Any, whose)))


@pytest.mark.parametrize("first", range(0, 60, 30))
def test_the_engine_that_jumps_equals_the_engine_that_steps_with_choices(first: int) -> None:
    rejected = preempted = 0
    for seed in range(first, first + 30):
        scenario, made, _ = crowd(seed, 60)
        made = several(made, seed)
        limit = random.Random(seed).choice([None, 5, 12])
        settings = scenario.profile.engine.changed(scheduling_policy="priority" if seed % 3 else "fcfs")
        settings = settings.changed(max_num_queued_reqs=limit)
        scenario = dataclasses.replace(scenario, profile=scenario.profile.changed(engine=settings))
        slow = run(scenario, made, StepwiseAsyncEngine if settings.async_scheduling else StepwiseEngine)
        fast = simulate(scenario, made) if limit else run(scenario, made, None)
        pd.testing.assert_frame_equal(fast.requests, slow.requests, check_exact=True, obj=f"crowd {seed}")
        rejected += int((fast.requests["finish_reason"] == "rejected").sum())
        preempted += int(fast.requests["preemptions"].sum())
    assert rejected > 50
    assert preempted > 10


def test_all_answers_are_turned_away_or_none() -> None:
    made = workload([0.0, 0.001, 0.001, 0.001], [9] * 4, prompt_tokens=30, choice_of=[None, "q", "q", "q"])
    for limit, reasons in ((3, ["stop", "rejected", "rejected", "rejected"]), (4, ["stop"] * 4)):
        scenario = Scenario(profile=profile(engine(max_num_queued_reqs=limit)), policy="stock", refill_lag=False)
        found = simulate(scenario, made).requests["finish_reason"].replace("length", "stop")
        assert found.tolist() == reasons


def test_answers_share_their_prompt_and_survive_the_file(tmp_path: Path) -> None:
    made = workload([0.0, 0.0, 0.0, 0.1], [5, 6, 7, 8], prompt_tokens=[64, 64, 64, 64], choice_of=["a", "a", "a", None])
    plain = simulate(Scenario(profile=profile(engine())), made)
    plain.write(tmp_path / "t")
    again = replay(traces.read(tmp_path / "t"))
    assert again.table["choice_of"].fillna("").tolist() == ["a", "a", "a", ""]
    caching = Scenario(profile=profile(engine(enable_prefix_caching=True)))
    assert simulate(caching, again).requests["cached_tokens"].tolist() == [0, 48, 48, 0]
    drawn = resample(again, 1, 1).table["choice_of"].dropna()
    assert all("~" in name for name in drawn)


def test_answers_to_one_request_have_one_prompt() -> None:
    made = workload([0.0, 0.0], [5, 6], prompt_tokens=[64, 32], choice_of=["a", "a"])
    with pytest.raises(TraceError, match="row 1.*not that of the other answers to its request"):
        simulate(Scenario(profile=profile(engine())), made).check("here")


def test_answers_that_preempt_each_other_without_end_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    table = workload([0.0] * 3, [30] * 3, prompt_tokens=[16] * 3, choice_of=["q"] * 3, max_tokens=[30] * 3)
    settings = engine(max_num_seqs=3, kv_blocks=6, block_size=16, scheduling_policy="priority")
    scenario = Scenario(profile=profile(settings), policy="stock")
    assert simulate(scenario, table).requests["preemptions"].tolist() == [2, 1, 0]
    monkeypatch.setattr("driftsim.engine.scheduler.MOST_PREEMPTIONS", 0)
    with pytest.raises(InputError, match=r"was preempted 0 times.*more than 5 KV blocks"):
        simulate(scenario, table)
