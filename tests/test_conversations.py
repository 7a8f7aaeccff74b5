"""Drawn sessions: chats, agents and system prompts. Each prompt holds what came before, and the hit rate is a fact."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import driftsim as ds
from driftsim.trace.prefixes import endless_hits, stretches, stretches_in
from driftsim.workloads.conversations import SystemPrompts
from tests.commands import driftsim
from tests.strategies import engine, profile

ROOT = Path(__file__).resolve().parent.parent
CHAT = ds.Session(kind="chat", turns=3, gap_s=2.0, added_tokens=20)
AGENT = ds.Session(kind="agent", turns=3, gap_s=0.5, added_tokens=20, sub_agents=2, sub_turns=2)
HUGE = engine(  # nothing is ever evicted
    max_num_seqs=64, max_num_batched_tokens=4096, max_model_len=10**6, kv_blocks=10**6, enable_prefix_caching=True
)
SLOW = HUGE.changed(max_num_batched_tokens=64, long_prefill_token_threshold=32)  # two prompts at a time, in parts


def drawn(session: ds.Session | None, requests: int = 1, rate: float = 1.0, seed: int = 0, **rows: Any) -> ds.Workload:
    given: dict[str, Any] = (
        {"prompt_tokens": 100, "output_tokens": 40} | rows | ({} if session is None else {"session": session})
    )
    return ds.Workload.poisson(rate=rate, requests=requests, seed=seed, **given)


# -- what a session is


def test_a_chat_repeats_all_that_came_before() -> None:
    table = drawn(CHAT, requests=2, system=SystemPrompts(count=1, tokens=32)).table
    assert table["prompt_tokens"].tolist() == [132, 192, 252] * 2
    assert table["parent"].map(list).tolist() == [[], [0], [1], [], [3], [4]]
    assert table["gap_s"].fillna(-1).tolist() == [-1, 2.0, 2.0] * 2
    assert table["session"].tolist() == ["s0"] * 3 + ["s1"] * 3
    whose = [[(owner, end if end < 10**6 else -1) for owner, end in one] for one in table["stretches"]]
    assert whose[:3] == [[(0, -1)], [(0, 172), (1, -1)], [(0, 172), (1, 232), (2, -1)]]
    assert whose[3:] == [[(0, 32), (3, -1)], [(0, 32), (3, 172), (4, -1)], [(0, 32), (3, 172), (4, 232), (5, -1)]]


def test_an_agent_waits_for_its_sub_agents_and_reads_what_they_say() -> None:
    table = drawn(AGENT, output_tokens=ds.Lengths(kind="uniform", low=10, high=50)).table
    out = table["output_tokens"].tolist()
    assert table["parent"].map(list).tolist() == [[], [0], [1], [0], [3], [2, 4], [5]]
    prompts = table["prompt_tokens"].tolist()
    assert prompts[:5] == [100, 100, 120 + out[1], 100, 120 + out[3]]
    assert prompts[5] == 100 + out[0] + out[2] + out[4]
    assert prompts[6] == prompts[5] + out[5] + 20
    assert [one[-2][0] for one in table["stretches"][[2, 4, 5, 6]]] == [1, 3, 0, 5]
    run = ds.simulate(ds.Workload.generated(spec(AGENT)), profile=profile(HUGE))
    rows = run.requests
    assert rows["arrival_s"][5] == pytest.approx(rows["finish_s"][[2, 4]].max() + 0.5)


def spec(of: ds.Session, /, **changes: Any) -> ds.WorkloadSpec:
    values: dict[str, Any] = {"kind": "poisson", "rate": 1.0, "requests": 1, "prompt_tokens": 100, "output_tokens": 40}
    return ds.WorkloadSpec(**values | {"session": of} | changes)


def test_some_sessions_fan_out_and_none_of_one_turn_does() -> None:
    often = AGENT.changed(sub_share=0.3)
    table = drawn(often, requests=400).table
    sizes = table.groupby("session").size()
    assert set(sizes) == {3, 7}
    assert 0.22 < (sizes == 7).mean() < 0.38
    assert len(drawn(AGENT.changed(turns=1), requests=20)) == 20


def test_tenants_have_sessions_of_their_own_or_none() -> None:
    made = ds.Workload.mixed(
        tenants=[
            ds.Tenant(name="chat", session=CHAT), ds.Tenant(name="agents", session=AGENT, system=SystemPrompts(
                count=1, tokens=64)), ds.Tenant(name="plain"),
        ],
        requests=60, arrivals=ds.Process(kind="poisson", rate=2.0), prompt_tokens=50, output_tokens=10,
    )  # fmt: skip
    rows = made.table.groupby("tenant")
    sessions = rows["session"].nunique()
    assert rows.size().to_dict() == {"chat": 3 * sessions["chat"], "agents": 7 * sessions["agents"], "plain": (
        60 - sessions["chat"] - sessions["agents"])}  # fmt: skip
    assert made.table["session"][made.table["tenant"] == "plain"].isna().all()
    assert made.info.phases[0].kind == "sessions"
    run = ds.simulate(made, profile=profile(HUGE))
    run.check("t")
    assert len(run.requests) == len(made)


def test_system_prompts_alone_leave_arrivals_as_they_are() -> None:
    plain, shared = drawn(None, requests=50), drawn(None, requests=50, system=SystemPrompts(count=2, tokens=64))
    assert "parent" not in shared.table
    assert shared.table["offset_s"].tolist() == plain.table["offset_s"].tolist()
    assert (shared.table["prompt_tokens"] - plain.table["prompt_tokens"]).unique().tolist() == [64]
    closed = ds.Workload.closed(
        users=3, requests=20, prompt_tokens=50, output_tokens=5, system=SystemPrompts(count=1, tokens=64)
    )
    assert len(ds.simulate(closed, profile=profile(HUGE)).finished) == 20


def test_system_prompts_are_taken_by_zipfs_law_or_by_shares() -> None:
    for law, shares in (
        (SystemPrompts(count=3, tokens=ds.Lengths(kind="empirical", values=(100, 1000, 10000)), zipf=1.0), [6, 3, 2]),
        (SystemPrompts(shares=(5.0, 1.0), tokens=64), [5, 1]),
        (SystemPrompts(count=4, tokens=64), [1, 1, 1, 1]),
    ):
        table = drawn(None, requests=6000, system=law).table
        owners = [one[0][0] for one in table["stretches"]]
        found = pd.Series(owners).value_counts(normalize=True).sort_values(ascending=False).to_numpy()
        assert found == pytest.approx(np.array(shares) / sum(shares), abs=0.025)
        lengths = table["prompt_tokens"].groupby(owners).nunique()
        assert (lengths == 1).all()  # each has one length


# -- randomness


def test_the_same_seed_gives_the_same_bytes_and_another_law_of_turns_moves_nothing_else() -> None:
    law = CHAT.changed(turns=ds.Lengths(kind="geometric", mean=3), added_tokens=ds.Lengths(kind="geometric", mean=50))
    given: dict[str, Any] = {
        "prompt_tokens": ds.Lengths(kind="geometric", mean=80),
        "output_tokens": ds.Lengths(kind="uniform", high=60),
    }
    first, again = (drawn(law, requests=80, **given) for _ in range(2))
    pd.testing.assert_frame_equal(first.table, again.table)
    assert drawn(law, requests=80, seed=1, **given).table["prompt_tokens"].tolist() != first.table[
        "prompt_tokens"].tolist()  # fmt: skip
    longer = drawn(law.changed(turns=6), requests=80, **given).table
    turn = longer.groupby("session").cumcount()
    own = first.table.assign(turn=first.table.groupby("session").cumcount()).set_index(["session", "turn"])
    other = longer.assign(turn=turn).set_index(["session", "turn"])
    both = own.index.intersection(other.index)
    assert len(both) > 150
    for name in ("prompt_tokens", "output_tokens", "offset_s", "gap_s"):
        pd.testing.assert_series_equal(own.loc[both, name], other.loc[both, name])
    outputs = longer["output_tokens"].to_numpy().reshape(80, 6)
    assert (outputs[:, 1:] != outputs[:, :-1]).mean() > 0.8  # each turn has numbers of its own
    alone = drawn(None, requests=80, **given).table
    firsts = first.table.groupby("session", sort=False).first()
    for name in ("prompt_tokens", "output_tokens", "offset_s"):
        assert firsts[name].tolist() == alone[name].tolist()


def test_gaps_and_turns_have_their_means() -> None:
    law = ds.Session(
        kind="chat", turns=ds.Lengths(kind="geometric", mean=5), added_tokens=30,
        gap_s=ds.Seconds(kind="lognormal", mean=20.0, cv=1.0),
    )  # fmt: skip
    table = drawn(law, requests=3000).table
    assert len(table) / 3000 == pytest.approx(5, rel=0.05)
    assert table["gap_s"].mean() == pytest.approx(20, rel=0.05)
    assert table["gap_s"].std() == pytest.approx(20, rel=0.15)


# -- the hit rate


@st.composite
def workloads_with_sessions(draw: st.DrawFn) -> ds.Workload:
    """A few sessions of any kind, with system prompts or without, whose lengths end inside blocks and at their ends."""
    lengths: st.SearchStrategy[Any] = st.sampled_from([16, 31, 32, 48, ds.Lengths(kind="uniform", high=70)])
    kind: Any = draw(st.sampled_from(["chat", "agent"]))
    more = {"sub_agents": draw(st.integers(1, 3)), "sub_turns": draw(st.integers(1, 2))} if kind == "agent" else {}
    turns: Any = draw(st.sampled_from([1, 3, ds.Lengths(kind="geometric", mean=3, high=9)]))
    session = ds.Session(
        kind=kind, turns=turns, gap_s=draw(st.sampled_from([0.0, 0.3])), added_tokens=draw(lengths), **more
    )
    system = draw(
        st.sampled_from([None, SystemPrompts(count=2, tokens=40, zipf=1.0), SystemPrompts(count=1, tokens=64)])
    )
    return drawn(
        session, draw(st.integers(1, 8)), rate=100.0, seed=draw(st.integers(0, 99)), prompt_tokens=draw(lengths),
        output_tokens=draw(lengths), **({} if system is None else {"system": system}),
    )  # fmt: skip


def stated(made: ds.Workload) -> float:
    rate = made.hit_rate()
    assert rate is not None
    return rate


def endless(run: ds.Trace) -> np.ndarray:
    rows = run.requests
    prompts, outputs = (rows[name].astype(int).tolist() for name in ("prompt_tokens", "output_tokens"))
    return endless_hits(prompts, outputs, stretches_in(rows), 16)


def found_by(run: ds.Trace) -> float:
    rows = run.requests
    return float(rows["cached_tokens"].sum() / rows["prompt_tokens"].sum())


@given(workloads_with_sessions())
def test_one_at_a_time_a_cache_that_evicts_nothing_finds_what_is_stated(made: ds.Workload) -> None:
    """Exactly: with one slot, all that came before has been computed."""
    run = ds.simulate(made, profile=profile(HUGE.changed(max_num_seqs=1)))
    assert found_by(run) == pytest.approx(made.hit_rate(), abs=1e-12)
    assert endless(run).sum() == run.requests["cached_tokens"].sum()  # the trace says so, too


@settings(max_examples=settings().max_examples // 2)
@given(workloads_with_sessions())
def test_at_the_same_time_it_finds_no_more_and_loses_system_prompts_alone(made: ds.Workload) -> None:
    """A turn waits for the one before it, whose tokens are then there; only a system prompt may still be under way."""
    run = ds.simulate(made, profile=profile(SLOW))
    rows = run.requests
    missing = endless(run) - rows["cached_tokens"].to_numpy(dtype=int)
    begins = np.array([len(one) <= 2 for one in stretches_in(rows)])  # nothing of an own session before it
    assert found_by(run) <= stated(made) + 1e-12
    assert (missing[~begins] == 0).all()
    assert missing.max() <= 64


def test_a_crowd_that_begins_at_once_finds_less_than_is_stated() -> None:
    """Who is admitted while another one's prompt is computed part by part finds the parts that are there."""
    made = ds.Workload.backlog(
        requests=8, prompt_tokens=16, output_tokens=4, system=SystemPrompts(count=1, tokens=640), session=CHAT
    )
    alone = ds.simulate(made, profile=profile(SLOW.changed(max_num_seqs=1)))
    crowd = ds.simulate(made, profile=profile(SLOW))
    assert found_by(alone) == pytest.approx(made.hit_rate())
    assert found_by(crowd) < stated(made) - 0.01


def test_the_last_token_of_a_prompt_is_computed_in_any_case() -> None:
    assert endless_hits([32, 32, 40], [9, 1, 1], stretches([-1, 0, 0], [0, 32, 40]), 16).tolist() == [0, 16, 32]


def test_the_stated_rate_of_a_chat_is_the_one_counted_by_hand() -> None:
    """Turn 2 finds the full blocks of 139 tokens, 128 of 160; turn 3 those of 199, 192 of 220; the last one of an
    output is never computed, and another session shares nothing."""
    made = drawn(CHAT, requests=5)
    assert made.hit_rate() == pytest.approx((128 + 192) / (100 + 160 + 220))
    assert made.hit_rate(64) == pytest.approx((128 + 192) / 480)
    assert "5 sessions; an endless cache finds 66.7 % of the prompt tokens, in blocks of 16" in repr(made)
    assert drawn(None).hit_rate() is None


# -- written down


def test_the_example_scenario_runs_and_says_what_it_is(tmp_path: Path) -> None:
    done = driftsim("simulate", ROOT / "examples" / "sessions.toml", "--out", tmp_path / "run")
    assert " sessions of " in done.stdout
    assert "; an endless one finds " in done.stdout
    run = ds.read(tmp_path / "run")
    assert run.header.prefixes is not None
    assert run.header.prefixes.source == "generated"
    assert {"session", "parent", "gap_s", "prefix_row", "cached_tokens"} <= set(run.requests)
    again = ds.replay(run)
    assert again.hit_rate() is not None


def test_a_grid_has_axes_into_sessions(tmp_path: Path) -> None:
    profile(HUGE).save(tmp_path / "p.json")
    (tmp_path / "grid.toml").write_text(
        """
        [base]
        profile = "p.json"
        [base.workload]
        kind = "poisson"
        rate = 1.0
        requests = 20
        prompt_tokens = 40
        output_tokens = 8
        session = { kind = "chat", turns = 2, gap_s = 1.0 }
        system = { count = 2, tokens = 64 }
        [grid]
        "workload.session.turns" = [2, 4]
        "workload.session.gap_s" = [0.5, 2.0]
        "workload.system.count" = [1, 5]
        """
    )
    rows = ds.sweep(tmp_path / "grid.toml", tmp_path / "store", jobs=1)
    assert len(rows) == 8
    assert not rows["failed"].any()
    assert set(rows["offered"]) == {40, 80}
    assert (rows["session_mean_s"] > 0.4).all()
    assert rows["key"].nunique() == 8


def test_a_workload_that_says_nothing_of_sessions_has_the_name_it_had() -> None:
    plain = ds.WorkloadSpec(kind="poisson", rate=2.0, requests=500, prompt_tokens=500, output_tokens=200)
    assert "session" not in json.dumps(plain.model_dump(mode="json", exclude_defaults=True))
    assert spec(CHAT).digest({}) != spec(CHAT.changed(turns=4)).digest({})


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"kind": "closed", "rate": None, "users": 3}, "sessions cannot begin by closed arrivals"),
        ({"max_outstanding": 3}, "sessions cannot begin by arrivals with max_outstanding"),
        ({"trace": "t", "prompt_tokens": None, "output_tokens": None}, "session and trace are two sources"),
        ({"session": {"kind": "chat", "turns": 2}}, "gap_s"),
        ({"session": {"kind": "chat", "turns": 2, "gap_s": 1, "sub_turns": 3}}, "a chat has no sub_turns"),
        ({"session": {"kind": "agent", "turns": 2, "gap_s": 1, "sub_share": 0.5}}, "sub_share is of sub-agents"),
        ({"session": {"kind": "agent", "turns": 2, "gap_s": {"kind": "exponential"}}}, "exponential seconds need mean"),
        ({"session": {"kind": "agent", "turns": 2, "gap_s": -1}}, "gap_s"),
        ({"system": {"tokens": 5}}, "system prompts need count"),
        ({"system": {"tokens": 5, "shares": [1.0], "zipf": 1}}, "by shares or by zipf"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(ds.InputError, match=text) as caught:
        spec(CHAT, **changes)
    assert "\n" not in str(caught.value)


def test_sessions_that_grow_beyond_all_bounds_are_refused() -> None:
    many = CHAT.changed(turns=10**6)
    for made, text in ((many, "turns take too many numbers|more than 10,000,000 turns"),):
        with pytest.raises(ds.InputError, match=text):
            drawn(made, requests=1000)
    with pytest.raises(ds.InputError, match="a prompt grows to"):
        drawn(CHAT.changed(added_tokens=9 * 10**6))
