"""The dispatcher's duties one by one; what policies, admission and estimators count, on numbers worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from driftsim.errors import InputError
from driftsim.request import Job, Request, Tier
from driftsim.scheduling.accounting import Accounting
from driftsim.scheduling.admission import Admission
from driftsim.scheduling.dispatcher import Departure, Dispatcher, Dispatching
from driftsim.scheduling.estimators import SURE, Estimate, Pooled, Ratios, Recent, Static, make_estimator
from driftsim.scheduling.policies import Fifo, Sjf, make_policy
from driftsim.tiers import TierRule, ranked, rules_in_force, tier_rules
from tests.strategies import workload


def request(name: str = "r", **changes: Any) -> Request:
    values: dict[str, Any] = {
        "tenant": "a", "tier": Tier.STANDARD, "category": "", "arrival": 0.0, "prompt_tokens": 50, "prompt_words": 40,
        "max_tokens": 1024,
    }  # fmt: skip
    return Request(name, **values | changes)


class Watched:
    """An estimator that says 100 at first and notes what it is asked and told."""

    def __init__(self) -> None:
        self.length, self.bias = 100, 1.0
        self.asked: list[str] = []
        self.told: list[tuple[str, int, bool, float]] = []

    def estimate(self, request: Request, category: str, now: float) -> Estimate:
        self.asked.append(request.id)
        return Estimate(self.length, self.bias)

    def observe(self, job: Job, output_length: int, censored: bool, now: float) -> None:
        self.told.append((job.request.id, output_length, censored, now))


def dispatching(limit: int | None = None, policy: Any = None, **admission: Any) -> tuple[Dispatcher, Watched]:
    estimator = Watched()
    return Dispatcher(Fifo() if policy is None else policy, estimator, Admission(**admission), limit), estimator


def test_an_estimator_is_told_what_left_whether_it_was_cut_and_when() -> None:
    dispatcher, estimator = dispatching()
    a, b, c = (dispatcher.arrive(request(name), "summary", 0.0) for name in "abc")
    dispatcher.release(9, 1.0)
    dispatcher.finished([Departure(c, 7, True), Departure(b, None, True), Departure(a, 9, False)], 2.5)
    assert estimator.told == [("a", 9, False, 2.5), ("c", 7, True, 2.5)]


def test_only_those_who_wait_are_estimated_anew() -> None:
    dispatcher, estimator = dispatching(2, Sjf(), estimates="refreshed")
    jobs = [dispatcher.arrive(request(name), "summary", 0.0) for name in "abcd"]
    first, second = dispatcher.release(9, 0.0)
    dispatcher.withdraw(jobs[3])
    estimator.asked.clear()
    estimator.length = 7
    dispatcher.finished([Departure(first, 5, False)], 1.0)
    assert estimator.asked == ["c"]
    assert (second.estimate, jobs[2].estimate, jobs[3].estimate) == (100, 7, 100)
    dispatcher.finished([], 2.0)
    assert estimator.asked == ["c"]  # where nobody left, nothing was learned


def test_as_many_leave_the_queue_as_limit_and_room_allow() -> None:
    dispatcher, _ = dispatching(3)
    for name in "abcdef":
        dispatcher.arrive(request(name), "summary", 0.0)
    assert [job.request.id for job in dispatcher.release(2, 0.0)] == ["a", "b"]
    assert dispatcher.may_release
    third = dispatcher.release(2, 0.0)
    assert [job.request.id for job in third] == ["c"]
    assert not dispatcher.may_release  # three are inside
    assert dispatcher.release(2, 0.0) == []
    dispatcher.finished([Departure(third[0], None, True)], 1.0)
    assert dispatcher.may_release
    assert dispatcher.dispatched == 3


def test_who_gave_up_does_not_count_as_waiting() -> None:
    dispatcher, _ = dispatching()
    a, b = (dispatcher.arrive(request(name), "summary", 0.0) for name in "ab")
    dispatcher.withdraw(a)
    assert dispatcher.may_release
    assert dispatcher.release(9, 0.0) == [b]
    assert not dispatcher.may_release
    dispatcher.withdraw(dispatcher.arrive(request("c"), "summary", 1.0))
    assert not dispatcher.may_release  # only one who gave up stands in the queue


def test_the_limit_is_the_one_given_or_the_engines_slots_and_stock_has_none() -> None:
    rules = (TierRule(name="standard", max_in_flight=2), TierRule(name="batch"))
    given = Dispatching(max_in_flight=5)
    assert (given.limit_of(16), Dispatching().limit_of(16), Dispatching(policy="stock").limit_of(16)) == (5, 16, None)
    assert given.tier_limits(rules) == {"standard": 2}
    assert Dispatching(policy="stock").tier_limits(rules) == {}


@pytest.mark.parametrize(("unit", "budget"), [("tokenizer", 450), ("whitespace", 140)])
def test_a_budget_is_prompt_and_estimate_and_its_class_is_the_budgets(unit: Any, budget: int) -> None:
    dispatcher, estimator = dispatching(accounting=unit)
    estimator.bias = 1.25
    job = dispatcher.arrive(request(prompt_tokens=350, prompt_words=40), "summary", 0.0)
    assert (job.estimate, job.budget, job.bias, job.scheduling_class) == (100, budget, 1.25, "medium")


def test_a_job_has_the_rank_of_its_tier_for_an_engine_that_asks() -> None:
    dispatcher, _ = dispatching()
    jobs = [dispatcher.arrive(request(tier=tier), "summary", 0.0) for tier in (Tier.PREMIUM, Tier.BATCH)]
    assert [job.priority for job in jobs] == [1, 3]


# -- policies


def waiting(name: str, arrival: float, estimate: int, prompt: int, tier: Tier = Tier.STANDARD) -> Job:
    return Job(request(name, arrival=arrival, prompt_tokens=prompt, tier=tier), "summary", estimate, estimate + prompt)


def test_shortest_first_weighs_prompt_and_estimate_together() -> None:
    queue = make_policy("sjf")
    for job in (waiting("long prompt", 0.0, 10, 500), waiting("long answer", 1.0, 300, 20)):
        queue.push(job, 1.0)
    assert [queue.pop(1.0).request.id for _ in range(2)] == ["long answer", "long prompt"]


@pytest.mark.parametrize("name", ["priority", "sjf"])
def test_equal_keys_go_by_arrival_even_if_pushed_in_another_order(name: str) -> None:
    queue: Any = make_policy(name)
    for job in (waiting("late", 2.0, 5, 5), waiting("early", 1.0, 5, 5), waiting("first", 1.0, 5, 5)):
        queue.push(job, 2.0)
    queue.rekey()
    assert [queue.pop(2.0).request.id for _ in range(3)] == ["early", "first", "late"]


CYCLE = [Tier.PREMIUM] * 5 + [Tier.STANDARD] * 3 + [Tier.BATCH] * 2


class Plain:
    """A queue that looks at everybody: the smallest of key, arrival and order of coming, among the tiers with room."""

    def __init__(self, name: str) -> None:
        self.name, self.jobs, self.pushed, self.slot = name, list[tuple[int, Job]](), 0, 0

    def push(self, job: Job) -> None:
        self.jobs.append((self.pushed, job))
        self.pushed += 1

    def key(self, job: Job) -> float:
        asked = job.request
        return {"fifo": asked.arrival, "priority": asked.tier.rank, "sjf": job.budget,
                "aging": asked.arrival + 100 * asked.tier.rank}[self.name]  # fmt: skip

    def pop(self, full: set[Tier]) -> Job | None:
        there = [pair for pair in self.jobs if pair[1].request.tier not in full]
        if not there:
            return None
        if self.name == "weighted":
            while not (own := [pair for pair in there if pair[1].request.tier == CYCLE[self.slot]]):
                self.slot = (self.slot + 1) % 10
            self.slot = (self.slot + 1) % 10
            chosen = own[0]
        else:
            chosen = min(there, key=lambda pair: (self.key(pair[1]), pair[1].request.arrival, pair[0]))
        self.jobs.remove(chosen)
        return chosen[1]


@pytest.mark.parametrize("name", ["fifo", "priority", "sjf", "aging", "weighted"])
@pytest.mark.parametrize("seed", range(4))
def test_a_policy_gives_who_a_look_at_everybody_would_give(name: str, seed: int) -> None:
    random = np.random.default_rng(seed)
    tiers = [Tier.PREMIUM, Tier.STANDARD, Tier.BATCH]
    queue: Any = make_policy(name)
    plain = Plain(name)
    clock, out = 0.0, 0
    for number in range(400):
        if random.random() < 0.5:
            clock += float(random.choice([0.0, 1.0, 40.0]))
            job = waiting(str(number), clock, int(random.integers(1, 5)), 8, tiers[random.integers(3)])
            queue.push(job, clock)
            plain.push(job)
        elif random.random() < 0.1:
            for _, job in plain.jobs:
                job.budget = int(random.integers(1, 9))
            queue.rekey()
        else:
            full = {tier for tier in tiers if random.random() < 0.4} if random.random() < 0.7 else set[Tier]()
            expected = plain.pop({Tier(tier) for tier in full})
            if expected is None:
                with pytest.raises(IndexError):
                    queue.pop_below(clock, full)
            else:
                assert (queue.pop_below(clock, full) if full else queue.pop(clock)) is expected
                out += 1
        assert len(queue) == len(plain.jobs)
    assert out > 100


def test_a_full_tier_takes_one_when_one_of_it_has_left() -> None:
    estimator = Watched()
    dispatcher = Dispatcher(Fifo(), estimator, Admission(), None, {"batch": 2})
    tiers = [Tier.BATCH, Tier.BATCH, Tier.BATCH, Tier.STANDARD, Tier.BATCH]
    jobs = [dispatcher.arrive(request(str(place), tier=tier, arrival=float(place)), "summary", 0.0)
            for place, tier in enumerate(tiers)]  # fmt: skip
    assert dispatcher.release(9, 0.0) == [jobs[0], jobs[1], jobs[3]]
    assert dispatcher.release(9, 0.0) == []
    dispatcher.finished([Departure(jobs[0], None, True)], 1.0)
    assert dispatcher.release(9, 1.0) == [jobs[2]]
    dispatcher.finished([Departure(jobs[1], None, True), Departure(jobs[2], None, True)], 2.0)
    assert dispatcher.release(9, 2.0) == [jobs[4]]


def test_refreshed_estimates_give_a_new_order() -> None:
    dispatcher, estimator = dispatching(1, Sjf(), estimates="refreshed")
    first = dispatcher.arrive(request("first"), "summary", 0.0)
    dispatcher.release(9, 0.0)
    one, other = (dispatcher.arrive(request(name, arrival=1.0), "summary", 1.0) for name in ("one", "other"))
    lengths = {"one": 300, "other": 20}
    estimator.estimate = lambda request, category, now: Estimate(lengths[request.id], 1.0)  # type: ignore[method-assign]
    dispatcher.finished([Departure(first, 5, False)], 2.0)
    assert dispatcher.release(1, 2.0) == [other]
    assert (one.budget, other.budget) == (350, 70)


def test_rules_give_weights_ranks_safety_and_a_tier_that_they_lack_is_named() -> None:
    rules = tier_rules("gold:2:1.5, tin")
    made: Any = make_policy("weighted", rules)
    assert [str(tier) for tier in made.cycle] == ["gold", "gold", "tin"]
    assert [TierRule(name=name).slots for name in ("premium", "standard", "batch", "tin")] == [5, 3, 2, 1]
    assert {name: tier.rank for name, tier in ranked(rules, {"gold", "tin"}).items()} == {"gold": 1, "tin": 2}
    assert Tier("premium", 7).rank == 7
    assert Admission().with_safety(tier_rules("premium:5:3.0")).safety[Tier.PREMIUM] == 3.0
    assert Admission(safety={Tier.BATCH: 0.5}).factors(request(tier=Tier("tin", 2), prompt_tokens=0)) == 1.0
    with pytest.raises(InputError, match="'lead', which is not among"):
        rules_in_force(rules, {"gold", "lead"})


def test_an_estimate_below_zero_and_a_key_that_is_no_number_are_refused() -> None:
    for length, bias in ((-1, 1.0), (1, -0.5), (1, math.nan)):
        dispatcher, estimator = dispatching()
        estimator.length, estimator.bias = length, bias
        with pytest.raises(InputError, match="neither may be below 0"):
            dispatcher.arrive(request(), "summary", 0.0)

    class Unsure(Fifo):
        def key(self, job: Job) -> float:
            return math.nan

    with pytest.raises(InputError, match="a key is a number"):
        Unsure().push(waiting("r", 0.0, 1, 1), 0.0)


# -- admission


def test_classes_end_at_their_boundary_one_by_one_and_in_arrays() -> None:
    admission = Admission(short=10, medium=20)
    totals = np.array([10, 11, 20, 21])
    expected = ["short", "medium", "medium", "long"]
    assert [admission.scheduling_class(total) for total in totals] == expected
    assert list(admission.scheduling_classes(totals.astype(float))) == expected
    assert list(admission.scheduling_classes(np.array([10.9, 20.9]))) == ["short", "medium"]


def test_factors_follow_tier_and_prompt_and_estimates_are_cut_not_rounded() -> None:
    admission = Admission(base_table={"short_qa": 100.0, "report": 900.0})
    assert admission.factors(request(tier=Tier.PREMIUM, prompt_tokens=0)) == pytest.approx(1.2)
    assert admission.factors(request(tier=Tier("gold", 1), prompt_tokens=250)) == pytest.approx(1.25)
    assert admission.factors(request(prompt_tokens=5000)) == 1.5
    words = Admission(accounting="whitespace")
    assert words.input_factor(request(prompt_tokens=900, prompt_words=100)) == pytest.approx(1.1)
    assert admission.estimate(request(prompt_tokens=0), "short_qa", 1.009) == 100
    assert admission.base_of(request(), "poetry") == 100.0
    assert Admission(base="caps").base_of(request(max_tokens=77), "report") == 77.0
    assert Admission(clamp_at_max_tokens=True).estimate(request(max_tokens=7), "report", 1.0) == 7
    assert Admission().estimate(request(max_tokens=7, prompt_tokens=0), "report", 1.0) == 512


def test_words_come_from_tokens_where_a_factor_says_so() -> None:
    derived = Accounting("whitespace", 0.5)
    assert derived.length(30, 99) == 15
    assert derived.lengths(np.array([30, 31]), np.array([99, 99])).tolist() == [15.0, 16.0]  # to even
    assert Accounting("whitespace").lengths(np.array([30]), np.array([21])).tolist() == [21.0]
    assert Accounting().lengths(np.array([30]), np.array([21])).tolist() == [30.0]


# -- estimators


def test_static_has_a_bias_of_one() -> None:
    assert Static(Admission()).estimate(request(prompt_tokens=0), "summary", 0.0) == Estimate(256, 1.0)


def test_the_truth_is_for_the_oracle_alone() -> None:
    made: Any = make_estimator("oracle", Admission(), {"r": 17})
    assert made.outputs == {"r": 17}
    for name in ("static", "ema", "pooled"):
        other: Any = make_estimator(name, Admission(), {"r": 17})
        assert other.estimate(request(), "summary", 0.0).length != 17


def test_pooled_hedges_by_what_both_said_at_admission() -> None:
    """Odds move by the difference of the errors over max_tokens; an estimate made later would have erred less."""
    learner = Pooled(Admission())
    asked = request("r", tier=Tier.PREMIUM, prompt_tokens=0, max_tokens=1000)
    ratios, reference = 256.0, 307.0  # without and with the margin of 1.2
    learner.estimate(asked, "summary", 0.0)
    other = request("other", tier=Tier.PREMIUM, prompt_tokens=0, max_tokens=1000)
    for _ in range(50):  # never estimated, so only learned from
        learner.observe(Job(other, "summary", 0, 0), 600, False, 1.0)
    assert learner._odds == pytest.approx(math.log(0.3 / 0.7))
    assert learner.ratios.length(asked, "summary") > 400
    learner.observe(Job(asked, "summary", 0, 0), 200, False, 2.0)
    moved = ((reference - 200) - (ratios - 200)) / 1000
    assert learner._odds == pytest.approx(math.log(0.3 / 0.7) + moved)


@pytest.mark.parametrize("sign", [-1, 1])
def test_the_odds_stay_where_a_change_of_regime_can_undo_them(sign: int) -> None:
    learner = Pooled(Admission())
    learner._odds = sign * SURE
    job = Job(request("r", max_tokens=10), "summary", 0, 0)
    learner._admitted["r"] = (9.0, 0.0) if sign < 0 else (0.0, 9.0)
    learner.observe(job, 0, False, 0.0)  # whoever is trusted errs less again
    assert learner._odds == sign * SURE


def test_both_halves_of_pooled_learn_and_are_told_of_a_cut() -> None:
    learner = Pooled(Admission())
    job = Job(request("r", prompt_tokens=0, max_tokens=100), "summary", 0, 0)
    learner.observe(job, 100, True, 0.0)
    assert learner.reference.bias["summary"] == pytest.approx(0.9 + 0.1 * 100 / 256)
    longer = request(prompt_tokens=0, max_tokens=900)
    cut, whole = Ratios(Admission()), Ratios(Admission())
    for _ in range(5):
        cut.learn(job.request, "summary", 100, True)
        whole.learn(job.request, "summary", 100, False)
    for ratios in (cut, whole):
        for length in (300, 400, 500):
            ratios.learn(longer, "summary", length, False)
    assert cut.length(longer, "summary") > whole.length(longer, "summary")
    assert Pooled(Admission())._both(request(max_tokens=40), "summary", 0.0) == (40.0, 40.0)


def test_a_window_lets_go_of_the_oldest_and_forgets_old_medians() -> None:
    seen = Recent(3)
    for value in (9.0, 1.0, 2.0):
        seen.add(value, math.inf)
    assert seen.median(5.0) == 2.0
    seen.add(3.0, math.inf)
    assert len(seen) == 3
    assert seen.median(5.0) == 2.0  # of 1, 2, 3
    seen.add(4.0, math.inf)
    assert seen.median(5.0) == 3.0  # of 2, 3, 4


def test_the_curve_that_stays_above_a_half_ends_at_the_largest() -> None:
    seen = Recent(9)
    for value in (1.0, 2.0, 3.0):
        seen.add(value, 4.0)
    seen.add(0.5, math.inf)
    assert seen.median(8.0) == 3.0  # survival 3/4 after 0.5, then nobody is known to have ended
    assert seen.median(4.0) == 1.0  # cut at the limit itself is an end


def test_a_request_knows_its_words_and_limits_as_the_workload_has_them() -> None:
    made = workload([0.0, 0.5], [3, 4], prompt_tokens=[8, 9], prompt_words=[6, 7], max_tokens=[64, 65])
    built = made.requests()(1, 0.5)
    assert (built.prompt_tokens, built.prompt_words, built.max_tokens, built.arrival) == (9, 7, 65, 0.5)
