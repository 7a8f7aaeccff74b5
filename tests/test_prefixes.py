"""Prefix caching: the rules of the cache against a plain one, what requests share, and what is said of it."""

from __future__ import annotations

import gc
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftsim.engine.decoding import DecodePool
from driftsim.engine.prefixes import PrefixCache, Run
from driftsim.engine.sequence import Sequence
from driftsim.engine.sharing import SharedBlocks
from driftsim.engine.versions import Rules, not_compared, numbered, rules_of
from driftsim.errors import InputError, TraceError
from driftsim.request import Job, Request, Tier
from driftsim.simulation.run import simulate
from driftsim.simulation.scenario import Scenario
from driftsim.trace.header import Phase, Prefixes
from driftsim.trace.ignored import ignored
from driftsim.trace.prefixes import ALWAYS, ENDLESS, as_cached, in_common, prefixes, shared, stretches
from driftsim.trace.subset import only, taken
from driftsim.trace.trace import Trace, read
from driftsim.validation.result import validate_runs
from driftsim.workloads.replay import replay
from driftsim.workloads.unfinished import caveats
from tests.stepwise import BlockPool
from tests.strategies import engine, profile, workload

BLOCK = 16


def run(made: Any, **settings: Any) -> Trace:
    settings = {"enable_prefix_caching": True, "max_num_batched_tokens": 512} | settings
    return simulate(Scenario(profile=profile(engine(**settings), prefill_token_s=0.001), refill_lag=False), made)


def sequence(whose: tuple[tuple[int, int], ...], prompt: int = 64) -> Sequence:
    made = Sequence(Job(Request("r", "", Tier.BATCH, "", 0.0, prompt, None, 9, stretches=whose), "", 0, 0), 9)
    return entered(made)


def shared_blocks(size: int = BLOCK) -> SharedBlocks:
    """A cache of 10 blocks of ``size`` tokens, with which nobody runs yet."""
    settings = engine(kv_blocks=10, block_size=size, enable_prefix_caching=True)
    return SharedBlocks(settings, rules_of("0.32.0"), DecodePool(size), lambda _: 0)


def entered(one: Sequence, size: int = BLOCK) -> Sequence:
    """``one`` as an engine with blocks of ``size`` tokens has it that cannot know what others will ask for."""
    shared_blocks(size).enter(one)
    one.held, one.keyed, one.listed = [], 0, 0
    return one


def take(cache: PrefixCache, one: Sequence, blocks: int) -> int:
    """Let ``one`` hold its first ``blocks`` blocks, of which it finds as many as there are; returns how many.

    They are all listed: somebody may ask for them.
    """
    held, found, _, _ = cache.lookup(one, blocks)
    cache.hold(held, found)
    cache.follow(cache.blank + cache.idle - (blocks - found))
    one.held, one.keyed, one.listed = held, found, found
    cache.register(one, blocks)
    cache.list_own(one)
    return found


def test_what_was_freed_last_is_evicted_last_and_the_end_of_a_prompt_first() -> None:
    cache = PrefixCache(6, BLOCK)
    first, second = sequence(((0, ENDLESS),)), sequence(((1, ENDLESS),))
    take(cache, first, 3)
    take(cache, second, 3)
    assert cache.release(first, 3) == 3
    assert cache.release(second, 3) == 3
    assert (cache.blank, cache.idle) == (0, 6)
    cache.follow(4)  # two blocks are taken: the last two of the one that was freed first
    assert cache.lookup(sequence(((0, ENDLESS),)), 3)[1] == 1
    assert cache.lookup(sequence(((1, ENDLESS),)), 3)[1] == 3
    assert cache.evicted == 2


@pytest.mark.parametrize(("keyless_first", "left"), [(True, 2), (False, 1)])
def test_blocks_without_a_key_are_taken_first_since_0_24(keyless_first: bool, left: int) -> None:
    cache = PrefixCache(4, BLOCK, keyless_first=keyless_first)
    one, two = sequence(((0, ENDLESS),)), sequence(((1, ENDLESS),))
    take(cache, one, 2)
    cache.follow(1)
    two.keyed = 0
    cache.release(one, 2)
    cache.release(two, 1)  # a block that is not full
    cache.follow(2)
    assert cache.lookup(sequence(((0, ENDLESS),)), 2)[1] == left


def test_a_block_that_somebody_holds_is_not_evicted_and_one_hit_in_part_is_cut() -> None:
    cache = PrefixCache(5, BLOCK)
    first = sequence(((0, ENDLESS),))
    take(cache, first, 4)
    cache.release(first, 4)
    part = sequence(((0, 2 * BLOCK), (1, ENDLESS)))
    assert take(cache, part, 3) == 2
    cache.follow(0)
    assert cache.lookup(sequence(((0, ENDLESS),)), 4)[1] == 2
    assert cache.release(part, 3) == 3
    assert cache.blank + cache.idle == 3


def test_every_stretch_of_a_prompt_is_cut_where_the_next_begins() -> None:
    cache = PrefixCache(12, BLOCK)
    first, second = sequence(((0, ENDLESS),)), sequence(((0, 2 * BLOCK), (1, ENDLESS)))
    take(cache, first, 5)
    cache.release(first, 5)
    take(cache, second, 4)
    third = sequence(((0, 2 * BLOCK), (1, 3 * BLOCK), (2, ENDLESS)))
    assert take(cache, third, 5) == 3
    cache.release(second, 4)
    cache.release(third, 5)
    assert cache.blank + cache.idle == 12
    assert take(cache, third, 3) == 3
    cache.follow(0)
    assert cache.release(third, 3) == 3
    assert (cache.blank, cache.idle) == (0, 3)


@given(st.integers(0, 10**6))
def test_the_cache_of_runs_is_the_cache_of_blocks(seed: int) -> None:
    dice = random.Random(seed)
    size, total = 4, dice.randint(6, 30)
    texts: list[list[int]] = []
    for _ in range(12):
        begin = dice.choice(texts)[: dice.randint(0, 30)] if texts and dice.random() < 0.9 else []
        texts.append([*begin, *(dice.randint(0, 1) for _ in range(dice.randint(1, 12)))])
    keys = [[tuple(text[at : at + size]) for at in range(0, len(text) - size + 1, size)] for text in texts]
    whose = stretches(*shared(keys, size))
    fast, plain = PrefixCache(total, size), BlockPool(total, size, caching=True, keyless_first=True)
    inside: list[Sequence] = []
    for _ in range(40):
        if inside and (dice.random() < 0.4 or len(inside) > 4):
            one = inside.pop(dice.randrange(len(inside)))
            blocks = len(plain.held[one])
            freed = fast.release(one, blocks)
            before = len(plain.queue)
            plain.release(one)
            assert freed == len(plain.queue) - before
            continue
        number = dice.randrange(len(texts))
        one = Sequence(Job(Request(str(number), "", Tier.BATCH, "", 0.0, len(texts[number]), None, 9,
                                   stretches=whose[number]), "", 0, 0), 9)  # fmt: skip
        entered(one, size)
        asked = {owner for owner, _ in whose[number]}
        for other in inside:  # their own blocks are only listed where somebody asks for them
            if other.owner in asked or dice.random() < 0.2:
                fast.list_own(other)
        hit = plain.lookup(one)
        held, count, idle, _ = fast.lookup(one, (len(texts[number]) - 1) // size)
        assert (count, idle) == (len(hit), sum(block is not None and not block.holders for block in hit))
        if dice.random() < 0.3:  # what it finds is computed once more, as by two that begin together
            hit, held, count = [], [], 0
        tokens = dice.randint(count * size + 1, max(count * size + 1, len(texts[number])))
        if not plain.grow(one, tokens, tokens, hit=hit):
            continue
        fast.hold(held, count)
        fast.follow(fast.blank + fast.idle - (len(plain.held[one]) - count))
        one.held, one.keyed, one.listed = held, count, count
        fast.register(one, tokens // size)
        assert fast.blank + fast.idle == len(plain.queue)
        inside.append(one)


def test_equal_blocks_are_not_merged_and_the_first_is_found() -> None:
    cache = PrefixCache(4, BLOCK)
    one, two = sequence(((0, ENDLESS),)), sequence(((0, ENDLESS),))
    take(cache, one, 2)
    cache.follow(0)
    cache.register(two, 2)  # it computed the same once more
    cache.list_own(two)
    held, found, idle, _ = cache.lookup(sequence(((0, ENDLESS),)), 2)
    assert (found, idle) == (2, 0)
    assert held == one.held
    cache.release(one, 2)
    cache.follow(0)  # evicts the first: the second is found in its place
    assert cache.lookup(sequence(((0, ENDLESS),)), 2)[0][0] is two.held[0]


def test_a_text_that_is_always_held_keeps_nothing_of_what_was_evicted() -> None:
    """It was freed and found again once, so that it stood beside others in the free queue."""
    cache = PrefixCache(8, BLOCK)
    before, text = sequence(((1, ENDLESS),)), sequence(((0, ENDLESS),))
    take(cache, before, 2)
    take(cache, text, 2)
    cache.release(before, 2)
    cache.release(text, 2)
    for row in range(2, 5):
        between = sequence(((row, ENDLESS),))
        take(cache, between, 1)
        cache.release(between, 1)
    take(cache, sequence(((0, 2 * BLOCK), (9, ENDLESS))), 2)

    def runs() -> int:
        return sum(isinstance(one, Run) and one.owner >= 0 for one in gc.get_objects())

    gc.collect()
    there = runs()
    gc.disable()  # as during a simulation: what only a cycle holds stays
    try:
        for row in range(10, 110):
            one = sequence(((row, ENDLESS),))
            take(cache, one, 4)
            cache.release(one, 4)
        more = runs() - there
    finally:
        gc.enable()
    assert cache.evicted > 380
    assert more < 10


def test_the_last_token_is_always_computed() -> None:
    cache = shared_blocks()
    first = sequence(((0, ENDLESS),), prompt=2 * BLOCK)
    take(cache, first, 2)
    assert cache.look_up(sequence(((0, ENDLESS),), prompt=2 * BLOCK), 8)[1] == 1
    assert cache.look_up(sequence(((0, ENDLESS),), prompt=2 * BLOCK + 1), 8)[1] == 2


def test_a_prompt_that_was_there_before_is_computed_from_where_it_differs() -> None:
    made = workload([0.0, 1.0], [2, 2], prompt_tokens=[100, 110], stretches=stretches([-1, 0], [0, 100]))
    rows = run(made).requests
    assert rows["cached_tokens"].tolist() == [0, 96]
    ttft = (rows["first_token_s"] - rows["arrival_s"]).tolist()
    assert ttft == pytest.approx([0.010 + 0.100, 0.010 + 0.014])
    assert "cached_tokens" not in run(made, enable_prefix_caching=False).requests


def test_a_later_turn_finds_the_answer_that_came_before_it() -> None:
    made = workload([0.0, 1.0], [40, 2], prompt_tokens=[60, 120], stretches=stretches([-1, 0], [0, 100]))
    assert run(made).requests["cached_tokens"].tolist() == [0, 96]


def test_a_preempted_request_finds_its_own_blocks_again() -> None:
    made = workload([0.0, 0.0], [60, 60], prompt_tokens=[64, 64])
    rows, apart = (run(made, kv_blocks=12, enable_prefix_caching=on).requests for on in (True, False))
    assert rows["preemptions"].sum() == apart["preemptions"].sum() > 0
    assert rows["finish_s"].max() < apart["finish_s"].max() - 0.03


def test_who_shares_with_nobody_is_told_apart() -> None:
    whose = stretches([-1, 0, 1, -1, -1], [0, 32, 48, 0, 0])
    assert in_common(whose) == {0, 1}
    assert in_common([*whose, whose[4]]) == {0, 1, 4}  # the same text once more


def test_requests_of_which_only_the_hits_are_known_find_as_much() -> None:
    made = workload([0.0, 1.0], [2, 2], prompt_tokens=[100, 110], stretches=as_cached([100, 110], [0, 100]))
    rows = run(made, kv_blocks=9).requests
    assert rows["cached_tokens"].tolist() == [0, 96]
    assert "prefix_row" in rows
    assert rows["prefix_row"].isna().all()


@given(st.data())
def test_what_requests_share_is_told_by_two_numbers_and_comes_back(data: st.DataObject) -> None:
    dice = random.Random(data.draw(st.integers(0, 10**6)))
    texts: list[list[int]] = []
    for _ in range(dice.randint(1, 30)):
        begin = dice.choice(texts)[: dice.randint(0, 12)] if texts and dice.random() < 0.8 else []
        texts.append([*begin, *(dice.randint(0, 3) for _ in range(dice.randint(0, 5)))])
    rows, tokens = shared(texts, 1)
    whose = stretches(rows, tokens)

    def common(one: tuple[tuple[int, int], ...], other: tuple[tuple[int, int], ...]) -> int:
        """How many tokens two requests have in common by their stretches."""
        count = 0
        for (owner, end), (another, until) in zip(one, other, strict=False):
            if owner != another:
                break
            count = min(end, until)
            if end != until:
                break
        return count

    for row, text in enumerate(texts):
        for other in range(row):
            equal = next(
                (at for at, pair in enumerate(zip(text, texts[other], strict=False)) if pair[0] != pair[1]), None
            )
            equal = min(len(text), len(texts[other])) if equal is None else equal
            assert min(common(whose[row], whose[other]), len(text), len(texts[other])) == equal
    names = {row: 7 * row + 3 for row in range(len(texts))}
    renamed = [tuple((names[owner], end) for owner, end in parts) for parts in whose]
    again = stretches(*prefixes(renamed))
    assert [[end for _, end in parts] for parts in again] == [[end for _, end in parts] for parts in whose]


def test_the_request_that_went_furthest_in_a_text_of_nobody_is_told() -> None:
    gone = 7  # its owner is not among the requests
    whose = [
        ((gone, 16), (1, ENDLESS)),
        ((gone, 48), (2, ENDLESS)),
        ((gone, 32), (3, ENDLESS)),
        ((gone, 64), (4, ENDLESS)),
    ]
    assert prefixes(whose) == ([-1, 0, 1, 1], [0, 16, 32, 48])


def test_a_trace_carries_what_its_requests_share(tmp_path: Any) -> None:
    made = workload(
        [0.0, 1.0, 2.0], [40, 2, 2], prompt_tokens=[60, 120, 60], stretches=stretches([-1, 0, 0], [0, 100, 32])
    )
    trace = run(made)
    told = Trace(trace.header.changed(prefixes=Prefixes(block_size=16, source="generated")), trace.requests)
    again = read(told.write(tmp_path / "t"))
    assert again.header.prefixes == told.header.prefixes
    assert again.requests["prefix_row"].fillna(-1).tolist() == [-1, 0, 0]
    assert again.requests["prefix_tokens"].fillna(0).tolist() == [0, 100, 32]
    assert replay(again).table["stretches"].tolist() == made.table["stretches"].tolist()
    assert caveats(again) == []


def test_some_requests_of_a_run_share_what_they_did() -> None:
    whose = stretches([-1, 0, 0, 1, 3], [0, 32, 32, 60, 70])
    made = workload(
        [0.0, 1.0, 2.0, 3.0, 4.0], [4] * 5, (Phase(name="one", requests=1), Phase(name="two", requests=4)),
        prompt_tokens=[40, 80, 40, 80, 80], stretches=whose,
    )  # fmt: skip
    trace = run(made)
    some = only(trace, np.array([False, True, True, False, True]))
    some.check("t")
    assert [(phase.name, phase.requests) for phase in some.header.workload.phases] == [("two", 3)]
    assert some.requests["prefix_row"].fillna(-1).tolist() == [-1, 0, 0]
    assert some.requests["prefix_tokens"].fillna(0).tolist() == [0, 32, 60]
    assert only(trace, np.ones(5, dtype=bool)) is trace
    turned = taken(trace.requests, [4, 1, 0])
    assert turned["prefix_row"].fillna(-1).tolist() == [-1, 0, 0]
    assert turned["prefix_tokens"].fillna(0).tolist() == [0, 60, 32]


def test_a_run_with_requests_that_did_not_finish_is_validated_and_written(tmp_path: Path) -> None:
    made = workload(
        [0.0, 0.1, 0.2, 0.3], [8] * 4, prompt_tokens=[64] * 4, stretches=stretches([-1, 0, 0, 1], [0, 32, 16, 48])
    )
    trace = run(made)
    rows = trace.requests.copy()
    rows.loc[1, "finish_reason"] = "abort"
    Trace(trace.header.changed(kind="captured"), rows).write(tmp_path / "t")
    prof = profile(engine(enable_prefix_caching=True, max_num_batched_tokens=512), prefill_token_s=0.001)
    validate_runs([read(tmp_path / "t")], profile=prof).write(tmp_path / "out")
    written = read(tmp_path / "out" / "t").requests
    assert written["request_id"].tolist() == ["r0", "r2", "r3"]
    assert written["prefix_row"].fillna(-1).tolist() == [-1, 0, 0]
    assert written["prefix_tokens"].fillna(0).tolist() == [0, 16, 32]


@pytest.mark.parametrize(
    ("column", "values", "problem"),
    [
        ("prefix_row", [None, 1], "prefix_row is 1: not an earlier row"),
        ("prefix_row", [None, -1], "prefix_row is -1: not an earlier row"),
        ("prefix_tokens", [None, 900], "prefix_tokens is 900: longer than the prompts and outputs that share it"),
        ("prefix_tokens", [None, None], "prefix_tokens is empty: with a prefix_row, it must be at least 1"),
        ("cached_tokens", [0, 500], "cached_tokens is 500: not from 0 to prompt_tokens"),
        ("cached_tokens", [0, -1], "cached_tokens is -1: not from 0 to prompt_tokens"),
    ],
)
def test_what_cannot_be_shared_is_named(column: str, values: list[Any], problem: str) -> None:
    trace = run(workload([0.0, 1.0], [2, 2], prompt_tokens=[100, 110], stretches=stretches([-1, 0], [0, 100])))
    rows = trace.requests.assign(**{column: values}).astype({column: "Int64"})
    with pytest.raises(TraceError, match=problem):
        Trace(trace.header, rows).check("t")
    with pytest.raises(TraceError, match="column 'prefix_tokens' is missing"):
        Trace(trace.header, trace.requests.drop(columns="prefix_tokens")).check("t")


def test_what_is_not_known_of_a_cache_is_said() -> None:
    trace = run(workload([0.0, 1.0], [2, 2], prompt_tokens=[100, 110], stretches=stretches([-1, 0], [0, 100])))
    first = Trace(trace.header, trace.requests.drop(columns=["prefix_row", "prefix_tokens"]))
    assert caveats(first) == [
        "what requests share is not known, only what the cache held of each: they find as much whatever the load, the "
        "order and the room for it"
    ]
    nothing = Trace(trace.header, first.requests.drop(columns="cached_tokens"))
    assert caveats(nothing)[0].startswith("the engine cached prefixes, and nothing tells what its requests share")
    guessed = trace.header.engine.changed(enable_prefix_caching=False, assumed=("enable_prefix_caching",))
    imported = Trace(trace.header.changed(engine=guessed, kind="imported"), nothing.requests)
    assert caveats(imported)[0].startswith("nothing tells whether the engine cached prefixes")
    off = trace.header.engine.changed(enable_prefix_caching=False)
    assert caveats(Trace(trace.header.changed(engine=off), nothing.requests)) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"speculative_config": {"method": "ngram"}}, "speculative decoding"),
        ({"enable_lora": True}, "LoRA"),
        ({"cache.kv_offloading_size": 4.0}, "a KV connector or offloading"),
        ({"parallel.pipeline_parallel_size": 2}, "pipeline parallelism"),
        ({"data_parallel_size": 4}, "data parallelism"),
        ({"cache.sliding_window": 4096}, "a sliding window"),
        ({"max_num_queued_reqs": 10}, "limits of the queue"),
        ({"scheduler.is_multimodal_model": True}, "a multi-modal model"),
        ({"scheduler.stream_interval": 8}, "a stream interval"),
        ({"scheduler_cls": "mine.Scheduler"}, "a scheduler of its own"),
    ],
)
def test_what_the_engine_used_and_is_not_simulated_is_said(arguments: dict[str, Any], said: str) -> None:
    trace = run(workload([0.0], [2]), enable_prefix_caching=False)
    used = Trace(trace.header.changed(engine_arguments=arguments), trace.requests)
    assert [one.startswith(f"the engine used what is not simulated: {said}") for one in caveats(used)] == [True]
    assert not ignored(dict.fromkeys(arguments))


def test_what_the_settings_follow_is_not_called_ignored() -> None:
    used = {"cache.sliding_window": 64, "max_num_queued_reqs": 10}
    follows = engine(sliding_window=64, max_num_queued_reqs=10)
    assert ignored(used, follows) == []
    assert ignored({}, engine(sliding_window=10**6, enable_prefix_caching=True)) == []
    assert ignored(used, follows.changed(enable_prefix_caching=True)) == []
    assert len(ignored(used, engine())) == 2


def test_each_version_has_its_rules() -> None:
    assert rules_of("0.32.0") == Rules()
    assert rules_of("0.19.0") == Rules(
        window_cap=False, window_sparse=False, watermark=False, keyless_first=False, window_settled=False,
        cursor_follows_victim=False, window_retention=False, lone_prefill_uncapped=False,
    )  # fmt: skip
    assert rules_of("0.33.1") == Rules(goes_on_after_self=True, cadence=True)
    assert [numbered(text) for text in ("v0.24.0rc1", "main", "")] == [(0, 24), None, None]
    assert [not_compared(text) == "" for text in ("0.18.1", "0.19.0", "0.33.0", "0.34.0", "unknown")] == [
        False, True, True, False, False,
    ]  # fmt: skip


def test_more_active_requests_than_slots_are_refused() -> None:
    with pytest.raises(InputError, match="max_num_active_seqs 9 is above max_num_seqs 4"):
        engine(max_num_active_seqs=9)
    assert ALWAYS < 0
