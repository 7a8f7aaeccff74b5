"""Admission by the future of the KV cache: with true lengths nobody is ever preempted, and the cache is used."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftsim import InputError
from driftsim.request import Job, Request, Tier
from driftsim.scheduling.admission import Admission
from driftsim.scheduling.admitting import PastFuture
from driftsim.scheduling.estimate import Estimate
from driftsim.scheduling.estimators import make_estimator
from driftsim.scheduling.inside import Inside
from driftsim.scheduling.plugins import give_class
from driftsim.scheduling.policies import make_policy
from driftsim.scheduling.queues import Keyed
from driftsim.scheduling.room import Load, Room, least_chunk, peak_blocks
from driftsim.simulation.run import simulate
from driftsim.simulation.scenario import Scenario
from driftsim.testing import engine, profile
from driftsim.trace.trace import Trace
from tests.test_places import random_workload

HOLDS = "past-future?lengths=estimate"


def run(policy: str, seed: int = 0, estimator: str = "oracle", count: int = 40, **changes: Any) -> Trace:
    short = {"max_num_seqs": 6, "kv_blocks": 40, "block_size": 4, "max_model_len": 110} | changes
    scenario = Scenario(profile=profile(engine(**short)), policy=policy, estimator=estimator, place="inside")
    return simulate(scenario, random_workload(seed, count))


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 10_000),
    st.fixed_dictionaries({
        "async_scheduling": st.booleans(), "enable_prefix_caching": st.booleans(),
        "block_size": st.sampled_from([1, 4]),
        "max_num_batched_tokens": st.sampled_from([8, 16, 64, 2048]), "max_num_seqs": st.sampled_from([3, 8]),
        "long_prefill_token_threshold": st.sampled_from([0, 8]), "scheduler_reserve_full_isl": st.booleans(),
    }),
)  # fmt: skip
def test_with_true_lengths_nobody_is_preempted(seed: int, changes: dict[str, Any]) -> None:
    rows = run(HOLDS, seed, kv_blocks=160 // changes["block_size"], **changes).requests
    assert rows["preemptions"].sum() == 0
    assert rows["finish_reason"].isin(("stop", "length")).all()


class Caps:
    """Expects every output to be as long as it may."""

    def __init__(self, admission: Admission) -> None: ...

    def estimate(self, request: Request, category: str, now: float) -> Estimate:
        return Estimate(request.max_tokens, 1.0)

    def observe(self, job: Job, output_length: int, censored: bool, now: float) -> None: ...


def test_first_in_first_out_preempts_there_and_holding_back_still_uses_the_cache() -> None:
    """A step takes as long whatever it computes, so what FIFO computes twice costs nothing but its slot here."""
    runs = {
        name: [run(policy, seed, estimator) for seed in range(5)]
        for name, policy, estimator in (
            ("fifo", "fifo", "oracle"), ("true", HOLDS, "oracle"), ("caps", HOLDS, give_class(Caps, "admitting:Caps")),
        )
    }  # fmt: skip
    gone = {name: sum(int(one.requests["preemptions"].sum()) for one in own) for name, own in runs.items()}
    spans = {name: sum(float(one.requests["finish_s"].max()) for one in own) for name, own in runs.items()}
    assert gone["fifo"] > 20
    assert gone["true"] == gone["caps"] == 0
    assert spans["true"] < 1.25 * spans["fifo"]
    assert spans["caps"] > 1.25 * spans["true"]


def test_a_reserve_holds_back_more_and_guesses_from_the_past_preempt_less_than_fifo() -> None:
    gone = {
        policy: sum(int(run(policy, seed).requests["preemptions"].sum()) for seed in range(5))
        for policy in ("fifo", "past-future", "past-future?reserve=0.3")
    }
    assert gone["fifo"] > 2 * gone["past-future"] > 2 * gone["past-future?reserve=0.3"]


def test_order_is_that_of_arrival() -> None:
    rows = run("past-future").requests.sort_values("arrival_s", kind="stable")
    assert rows["scheduled_s"].is_monotonic_increasing


# -- the peak


def step_by_step(tokens: list[int], steps: list[int], size: int) -> int:
    """The most blocks at any step, each sequence growing until it goes."""
    held = [
        sum(-(-(have + step) // size) for have, left in zip(tokens, steps, strict=True) if step <= left)
        for step in range(max(steps) + 1)
    ]
    return max(held)


@given(st.lists(st.tuples(st.integers(1, 60), st.integers(0, 40)), min_size=1, max_size=12), st.integers(1, 16))
def test_the_peak_is_what_counting_step_by_step_finds(loads: list[tuple[int, int]], size: int) -> None:
    tokens, steps = [one for one, _ in loads], [other for _, other in loads]
    assert peak_blocks(tokens, steps, size) == step_by_step(tokens, steps, size)


@given(st.integers(1, 200), st.integers(1, 30), st.integers(0, 50))
def test_the_least_chunk_is_left_by_all_other_slots(budget: int, slots: int, threshold: int) -> None:
    chunk = least_chunk(budget, slots, threshold)
    assert chunk == 1 or chunk + slots - 1 <= budget
    assert not threshold or chunk <= threshold or chunk == 1


# -- what the policy goes by


def a_load(estimate: int, made: int = 0, prompt: int = 8, cap: int = 200, uncomputed: int = 0) -> Load:
    request = Request("r", "a", Tier.BATCH, "", 0.0, prompt, None, cap)
    return Load(Job(request, "report", estimate, prompt + estimate, made=made), uncomputed)


def test_it_admits_up_to_the_last_block_and_no_further() -> None:
    policy = PastFuture(lengths="estimate")
    head, running = a_load(20), [a_load(40, made=20)]  # 8 + 20 + 1 and 28 + 20 + 1 tokens
    assert policy.admits(head, running, Room(78, 1, 64), 0.0)
    assert not policy.admits(head, running, Room(77, 1, 64), 0.0)
    soon, late = (
        a_load(10, uncomputed=left) for left in (0, 100)
    )  # two steps of prefill: it is there two steps longer
    assert policy.admits(soon, running, Room(58, 1, 64), 0.0)
    assert not policy.admits(late, running, Room(61, 1, 64), 0.0)
    assert policy.admits(late, running, Room(62, 1, 64), 0.0)
    assert not PastFuture(lengths="estimate", reserve=0.1).admits(head, running, Room(80, 1, 64), 0.0)


def test_the_past_tells_how_much_is_left_of_who_has_got_so_far() -> None:
    policy = PastFuture(window=4)
    asked = a_load(60).job
    assert policy._rest(asked) == 60  # nothing has ended yet: the estimate
    for tokens in (500, 10, 20, 60, 150):
        policy.served(asked, tokens, 0.0)
    policy.served(asked, None, 0.0)
    assert policy._rest(asked) == 60  # the mean of the last four
    for made, left in ((20, 85), (60, 90), (150, 1)):
        asked.made = made
        assert policy._rest(asked) == left
    assert policy._rest(a_load(60, cap=50).job) == 33  # 10, 20, 50 and 50 of them are under its limit


def test_lengths_must_be_tokens() -> None:
    words = Admission(accounting="whitespace", words_per_token=0.75)
    with pytest.raises(InputError, match="holds the head back by KV blocks, so lengths must be tokens"):
        Inside(make_policy("past-future"), make_estimator("static", words, {}), words)
    Inside(make_policy("fifo"), make_estimator("static", words, {}), words)


# -- the place


class Stern(Keyed):
    """Lets in whom it likes, and writes down what it was asked."""

    asked: list[tuple[str, tuple[int, ...], float]] = []

    def key(self, job: Job) -> float:
        return job.request.arrival

    def admits(self, head: Load, running: list[Load], room: Room, now: float) -> bool:
        self.asked.append((head.job.request.id, tuple(one.job.made for one in running), now))
        return round(now * 100) % 7 == 0


STERN = give_class(Stern, "admitting:Stern")


@pytest.mark.parametrize("pipelined", [False, True])
@pytest.mark.parametrize("policy", [STERN, "past-future", HOLDS])
def test_jumps_stop_at_every_step_at_which_somebody_may_be_let_in(policy: str, pipelined: bool) -> None:
    settings = engine(max_num_seqs=4, kv_blocks=40, block_size=4, max_model_len=110, async_scheduling=pipelined)
    scenario = Scenario(profile=profile(settings), policy=policy, estimator="kaplan-meier", place="inside")
    runs = [simulate(scenario, random_workload(3), record_steps=steps) for steps in (False, True)]
    assert runs[0].requests.equals(runs[1].requests)


def test_who_goes_in_beside_others_was_let_in_and_nobody_is_asked_about_who_is_alone() -> None:
    Stern.asked.clear()
    rows = run(STERN, kv_blocks=5000).requests.set_index("request_id")
    assert rows["finish_reason"].isin(("stop", "length")).all()
    assert all(made for _, made, _ in Stern.asked)
    assert max(max(made) for _, made, _ in Stern.asked) > 10  # those who run are told of before
    said = {name: round(now, 6) for name, _, now in Stern.asked if round(now * 100) % 7 == 0}
    beside = 0
    for name, row in rows.iterrows():
        others = (rows["scheduled_s"] < row["scheduled_s"]) & (rows["finish_s"] > row["scheduled_s"])
        beside += bool(others.any())
        if others.any():
            assert said[str(name)] == round(row["scheduled_s"], 6)
    assert beside > 20
