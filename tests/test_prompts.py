"""Prompts from a file, and the arrivals that any workload can be given."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from driftsim.request import Request, Tier
from driftsim.simulation.run import simulate
from driftsim.simulation.scenario import Scenario
from driftsim.trace.prefixes import shared, stretches
from driftsim.workloads.arrivals import Process, arriving
from driftsim.workloads.prompts import prompt_workload, read_prompts, stand_in, synthetic
from driftsim.workloads.replay import first
from driftsim.workloads.workload import Workload, stream
from tests.strategies import engine, profile, workload

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def file_of(folder: Path, *rows: Any) -> Path:
    file = folder / "prompts.jsonl"
    file.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return file


def words(text: str) -> int:
    return len(text.split())


def test_a_line_is_a_request(tmp_path: Path) -> None:
    full = {"id": "x", "prompt": "Summarize DNS", "tenant": "acme", "tier": "premium", "category": "poem"}
    file = file_of(tmp_path, full | {"max_tokens": 9}, "", {"turns": ["Why?", "And then?"], "question_id": 7})
    made = prompt_workload(read_prompts(file), None, 50, "prompts", words)
    table = made.table
    assert list(table["request_id"]) == ["x", "7"]
    assert list(table["tenant"]) == ["acme", "default"]
    assert list(table["tier"]) == ["premium", "standard"]
    assert list(table["max_tokens"]) == [9, 50]
    assert list(table["prompt_tokens"]) == [2, 1]
    assert list(table["category"]) == ["poem", None]
    assert list(table["predicted_category"]) == ["summary", "short_qa"]
    assert made.prompts == ("Summarize DNS", "Why?")
    assert [phase.kind for phase in made.info.phases] == ["backlog"]


def test_prompts_are_taken_in_turn_and_keep_distinct_ids(tmp_path: Path) -> None:
    prompts = read_prompts(file_of(tmp_path, {"prompt": "a", "id": "x"}, {"prompt": "b"}))
    made = prompt_workload(prompts, 5, 50, "prompts", words)
    assert made.table["request_id"].is_unique
    assert made.prompts == ("a", "b", "a", "b", "a")


def test_keys_that_mean_nothing_are_named(tmp_path: Path) -> None:
    made = prompt_workload(read_prompts(file_of(tmp_path, {"prompt": "a", "max_token": 5})), None, 50, "p", words)
    assert made.notes == ("keys of the prompts that mean nothing here were ignored: max_token",)


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ("{", "line 2 is not JSON"),
        ({"text": "a"}, "line 2: prompt"),
        ({"prompt": ""}, "line 2: prompt"),
        ({"prompt": "a", "tier": ""}, "line 2: tier"),
        ({"prompt": "a", "max_tokens": 0}, "line 2: max_tokens"),
        ({"turns": []}, "line 2: turns"),
        ([1], "line 2"),
    ],
)
def test_a_bad_line_is_named(row: Any, what: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=what):
        read_prompts(file_of(tmp_path, {"prompt": "a"}, row))


def test_an_empty_file_and_a_duplicate_id_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no prompt"):
        read_prompts(file_of(tmp_path, ""))
    prompts = read_prompts(file_of(tmp_path, {"prompt": "a", "id": "x"}, {"prompt": "b", "id": "x"}))
    with pytest.raises(ValueError, match="duplicate id, 'x'"):
        prompt_workload(prompts, None, 50, "p", words)


@pytest.mark.skipif(not DATA.is_dir(), reason="the public prompt sets are not at hand")
@pytest.mark.parametrize("name", ["user_oriented_prompts", "vicuna_bench_question"])
def test_public_prompt_sets_are_read_as_they_are(name: str) -> None:
    prompts = read_prompts(DATA / f"{name}.jsonl")
    made = prompt_workload(prompts, None, 100, name, words)
    assert len(made) == len(prompts)
    assert not made.notes


@pytest.mark.parametrize(("kind", "cv"), [("poisson", 1.0), ("uniform", 12**-0.5), ("gamma", 3.0)])
def test_arrivals_have_the_rate_and_burstiness_that_were_asked_for(kind: Any, cv: float) -> None:
    offsets = Process(kind=kind, rate=4.0).offsets(200_000, stream(1, "arrivals"))
    gaps = np.diff(offsets)
    assert gaps.min() >= 0
    assert gaps.mean() == pytest.approx(0.25, rel=0.03)
    assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.05)


def test_a_closed_loop_has_never_more_inside_than_users() -> None:
    made = arriving(workload([0.0] * 12, [5] * 12), Process(kind="closed", users=3, think_s=0.01), 0)
    assert made.info.loop == "closed"
    rows = simulate(Scenario(profile=profile(engine(max_num_seqs=8))), made).requests
    for moment in rows["arrival_s"]:
        assert ((rows["arrival_s"] <= moment) & (rows["finish_s"] > moment)).sum() <= 3


def test_a_backlog_arrives_at_once_and_the_same_seed_arrives_alike() -> None:
    made = workload([0.5, 1.0, 7.0], [1, 1, 1])
    assert list(arriving(made, Process(kind="backlog"), 0).table["offset_s"]) == [0.0, 0.0, 0.0]

    def poisson(seed: int) -> Workload:
        return arriving(made, Process(kind="poisson", rate=1.0), seed)

    assert poisson(3).table.equals(poisson(3).table)
    assert not poisson(3).table["offset_s"].equals(poisson(4).table["offset_s"])


@pytest.mark.parametrize(
    ("process", "what"),
    [
        ({"kind": "poisson"}, "need a rate"),
        ({"kind": "gamma", "rate": 0.0}, "need a rate"),
        ({"kind": "gamma", "rate": 1.0, "cv": 0.0}, "cv must be above 0"),
        ({"kind": "closed"}, "at least 1 user"),
        ({"kind": "backlog", "rate": 1.0}, "no rate"),
        ({"kind": "poisson", "rate": 1.0, "users": 2}, "no users"),
    ],
)
def test_arrivals_that_make_no_sense_are_refused(process: dict[str, Any], what: str) -> None:
    with pytest.raises(ValueError, match=what):
        Process(**process)


def test_the_first_of_a_workload_keep_their_phases() -> None:
    from driftsim.trace.header import Phase

    phases = (Phase(name="a", requests=2), Phase(name="b", kind="after-drain", requests=2), Phase(name="c", requests=1))
    made = workload([0.0, 1.0, 0.0, 1.0, 0.0], [1] * 5, phases)
    assert [(phase.name, phase.requests) for phase in first(made, 3).info.phases] == [("a", 2), ("b", 1)]
    with pytest.raises(ValueError, match="has 5 requests, 6 were asked for"):
        first(made, 6)


def test_a_synthetic_prompt_has_the_length_and_is_always_the_same() -> None:
    ids = synthetic("r1", 37, 49152)
    assert len(ids) == 37
    assert ids == synthetic("r1", 37, 49152)
    assert ids != synthetic("r2", 37, 49152)
    assert 256 <= min(ids) <= max(ids) < 30_000
    assert max(synthetic("r1", 100, 50)) < 50


def test_synthetic_prompts_share_what_the_recorded_ones_did() -> None:
    rows, tokens, lengths = [-1, 0, 1, -1, 1, 0], [0, 32, 48, 0, 16, 80], [64, 80, 96, 64, 40, 100]
    whose = stretches(rows, tokens)
    prompts = [
        stand_in(Request(f"r{row}", "a", Tier.BATCH, "", 0.0, length, None, 9, None, whose[row]), 49152)
        for row, length in enumerate(lengths)
    ]
    assert [len(prompt) for prompt in prompts] == lengths
    blocks = [[tuple(prompt[end - 16 : end]) for end in range(16, len(prompt) + 1, 16)] for prompt in prompts]
    again = shared(blocks, 16)
    assert again == ([-1, 0, 1, -1, 0, 0], [0, 32, 48, 0, 16, 64])  # no further than the first one's prompt goes
    alone = Request("r1", "a", Tier.BATCH, "", 0.0, 37, None, 9)
    assert stand_in(alone, 49152) == synthetic("r1", 37, 49152)
