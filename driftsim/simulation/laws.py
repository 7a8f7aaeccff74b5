"""The laws that every policy and estimator is held to, as checks that any class can be put through.

The same laws hold for ours, in the tests. A law that fails says what it saw.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any

import numpy as np
import pandas as pd

from driftsim.errors import InputError
from driftsim.latency.noise import Noise
from driftsim.latency.profile import Profile
from driftsim.request import TIERS, Job, Request, Tier
from driftsim.scheduling.admission import Admission
from driftsim.scheduling.classify import CATEGORIES
from driftsim.scheduling.estimators import (
    ESTIMATORS,
    estimator_class,
    estimator_name,
    is_given_the_truth,
    make_estimator,
)
from driftsim.scheduling.plugins import is_plugin
from driftsim.scheduling.policies import POLICIES, STOCK, make_policy, passes_over, policy_class, policy_name
from driftsim.simulation.run import simulate
from driftsim.simulation.scenario import Scenario
from driftsim.slo import slo_rules
from driftsim.tiers import PUBLISHED
from driftsim.trace.header import Phase, WorkloadInfo
from driftsim.trace.schema import FINISHED, TIER_NAMES
from driftsim.trace.settings import EngineSettings
from driftsim.workloads.table import workload_table
from driftsim.workloads.workload import Workload

ROUNDS = 12  # random workloads
SLOS = slo_rules(["premium:ttft=0.2s,e2e=1s", "e2e=4s"])  # of the random requests
LONGER = 500  # tokens, that a request turns out to have
LARGE = 20_000  # jobs in a queue
SLOWER = 20.0  # a decision in a long queue, times one in a short queue, is a scan


@dataclass(frozen=True, slots=True)
class Verdict:
    """A law, and what was seen where it fails; empty: it holds.

    >>> Verdict("every request leaves exactly once").holds
    True
    """

    law: str
    counterexample: str = ""

    @property
    def holds(self) -> bool:
        """Whether no counterexample was found."""
        return not self.counterexample


def _profile(slots: int) -> Profile:
    engine = EngineSettings(
        version="0.32.0", max_num_seqs=slots, max_num_batched_tokens=256, max_model_len=2048, kv_blocks=2000,
        block_size=16,
    )  # fmt: skip
    return Profile(
        engine=engine, intercept_s=0.01, prefill_token_s=1e-5, decode_request_s=1e-4, context_token_s=1e-7,
        noise=Noise(spread=0.1),
    )  # fmt: skip


def _workload(random: np.random.Generator) -> Workload:
    count = int(random.integers(5, 60))
    outputs = random.integers(1, 120, count)
    phase = Phase(name="only", requests=count)
    table = workload_table(
        [phase],
        tenant=random.choice(["a", "b", "c"], count),
        tier=random.choice(TIER_NAMES, count),
        category=random.choice(CATEGORIES, count),
        predicted_category=random.choice(CATEGORIES, count),
        prompt_tokens=random.integers(1, 200, count),
        prompt_words=random.integers(1, 150, count),
        max_tokens=np.maximum(outputs, 128),
        offset_s=np.sort(np.round(random.exponential(0.05, count).cumsum(), 1)),  # many at one instant
        output_tokens=outputs,
        output_words=np.maximum(1, outputs * 3 // 4),
        stops=random.random(count) < 0.7,
    )
    return Workload(WorkloadInfo(name="conformance", phases=(phase,)), table)


def conformance(kind: str, name: str) -> list[Verdict]:
    """The verdict of every law on a ``policy`` or ``estimator``. Raises ``InputError`` if ``name`` is none."""
    find, spell = (policy_class, policy_name) if kind == "policy" else (estimator_class, estimator_name)
    find(name)
    name = spell(name)
    policy, estimator = (name, "ema") if kind == "policy" else ("sjf", name)
    days = cache(lambda: list(_days(policy, estimator)))
    laws: list[tuple[str, Callable[[], str]]] = [
        ("every request leaves exactly once", lambda: _over(days(), _once)),
        ("the same run gives the same trace", lambda: _over(days(), _same)),
        ("the future cannot change the past", lambda: _over(days(), _causal)),
    ]
    if kind == "policy":
        laws += [
            ("one slot: waits, weighted by service, sum up as FIFO's do", lambda: _conserves(name)),
            ("pop gives each job once, IndexError when empty", lambda: _queue(name)),
            ("a decision costs no scan of the queue", lambda: _no_scan(name)),
        ]
    else:
        laws += [
            ("estimates are whole numbers above 0", lambda: _estimates(name)),
            ("two estimators share no state", lambda: _fresh(name)),
        ]
    return [Verdict(law, _seen(check)) for law, check in laws]


def _seen(check: Callable[[], str]) -> str:
    try:
        return check()
    except Exception as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())}"


@dataclass(frozen=True)
class _Day:
    """Random requests under a policy; what became of them is found out once."""

    scenario: Scenario
    workload: Workload

    @cached_property
    def rows(self) -> pd.DataFrame:
        return self.run(self.workload)

    def run(self, workload: Workload) -> pd.DataFrame:
        return simulate(self.scenario, workload).requests


def _days(policy: str, estimator: str) -> Iterator[_Day]:
    random = np.random.default_rng(1)
    for _ in range(ROUNDS):
        profile = _profile(int(random.integers(1, 6)))
        yield _Day(Scenario(profile=profile, policy=policy, estimator=estimator, slos=SLOS), _workload(random))


def _over(days: list[_Day], law: Callable[[_Day], str]) -> str:
    return next((seen for day in days if (seen := law(day))), "")


def _once(day: _Day) -> str:
    rows = day.rows
    if rows["request_id"].duplicated().any() or len(rows) != len(day.workload):
        return f"{len(day.workload)} requests came, {len(rows)} rows left"
    lost = rows[~rows["finish_reason"].isin(FINISHED)]
    if len(lost):
        return f"request {lost['request_id'].iloc[0]!r} never finished"
    order = rows.sort_values("dispatch_index")["dispatch_s"]
    return "" if order.is_monotonic_increasing else "jobs were dispatched out of the order of their indexes"


def _same(day: _Day) -> str:
    return "" if day.rows.equals(day.run(day.workload)) else "two runs of one scenario differ"


def _causal(day: _Day) -> str:
    """Lengthen the request that finishes last: nothing that happened before that may change."""
    table = day.workload.table
    roomy = table.assign(max_tokens=table["max_tokens"] + LONGER)  # the limit is no secret: it stays
    rows = day.run(replace(day.workload, table=roomy))
    last = int(rows["finish_s"].to_numpy().argmax())
    table = roomy.copy()
    lengthened = table.index == last
    table.loc[lengthened, "output_tokens"] += LONGER
    table.loc[lengthened, "stops"] = True
    changed = day.run(replace(day.workload, table=table))
    before = float(rows["finish_s"].iloc[last])
    names = ["dispatch_s", "first_token_s", "estimate", "budget", "dispatch_index"]
    known = ((rows["dispatch_s"] < before) & (rows.index != last)).to_numpy()
    differs = (rows.loc[known, names] != changed.loc[known, names]).any(axis=1)
    if is_given_the_truth(day.scenario.estimator):
        return ""
    return f"request {rows.loc[known, 'request_id'][differs].iloc[0]!r} was treated otherwise" if differs.any() else ""


def _conserves(name: str) -> str:
    """Kleinrock's conservation law (1965), on every path: one server that never idles while somebody waits.

    The work that is there does not depend on the order, and its integral is the sum of service times wait, and of half
    of the service squared. Under an order that does not look at sizes, the law in the mean follows.
    """
    for fifo, own in zip(_under_fifo(), _work_waiting(name), strict=True):
        if abs(fifo - own) > 1e-9 * max(fifo, 1.0):
            return f"service times wait sums up to {own:.6g} s², and under fifo to {fifo:.6g} s²"
    return ""


def _work_waiting(policy: str) -> list[float]:
    """The sum of service times wait, under ``policy`` with one slot, of each of several workloads."""
    random = np.random.default_rng(4)
    engine = _profile(1).engine.changed(async_scheduling=False)
    scenario = Scenario(profile=_profile(1).changed(engine=engine), policy=policy, slos=SLOS)
    sums = []
    for _ in range(ROUNDS):
        rows = simulate(scenario, _workload(random)).requests
        wait, service = rows["scheduled_s"] - rows["arrival_s"], rows["finish_s"] - rows["scheduled_s"]
        sums.append(float((wait * service).sum()))
    return sums


@cache
def _under_fifo() -> list[float]:
    return _work_waiting("fifo")


def _fresh_policy(name: str) -> Any:
    return make_policy(name, PUBLISHED, slos=SLOS)


def _jobs(count: int) -> list[Job]:
    random = np.random.default_rng(2)
    tiers, categories = random.integers(0, len(TIERS), count).tolist(), random.choice(CATEGORIES, count).tolist()
    made = []
    for row, (tokens, estimate) in enumerate(random.integers(1, 500, (count, 2)).tolist()):
        tier = TIERS[tiers[row]]
        request = Request(f"r{row}", "abc"[row % 3], tier, "", row * 0.01, tokens, tokens, 512)
        made.append(Job(request, categories[row], estimate, tokens + estimate, index=row, priority=tier.rank))
    return made


def _queue(name: str) -> str:
    policy = _fresh_policy(name)
    jobs = _jobs(300)
    left: set[int] = set()
    random = np.random.default_rng(3)
    for row, job in enumerate(jobs):
        policy.push(job, job.request.arrival)
        left.add(id(job))
        if random.random() < 0.4:
            left.discard(id(policy.pop(job.request.arrival)))
        if len(policy) != len(left):
            return f"len() is {len(policy)} with {len(left)} jobs waiting, after {row + 1} arrivals"
    while len(policy):
        got = id(policy.pop(10.0))
        if got not in left:
            return "a job came out twice, or was never put in"
        left.discard(got)
    if left:
        return f"{len(left)} jobs never came out"
    try:
        policy.pop(11.0)
    except IndexError:
        return _passing_over(name) if passes_over(policy) else ""
    return "pop() of an empty policy gave something; it must raise IndexError"


def _passing_over(name: str) -> str:
    """The same of ``pop_below``, while one tier after the other is full."""
    policy = _fresh_policy(name)
    jobs = _jobs(300)
    left = {id(job): job for job in jobs}
    for job in jobs:
        policy.push(job, job.request.arrival)
    for full in [*({tier} for tier in TIERS), set(TIERS), set[Tier]()] * len(jobs):
        may_go = any(job.request.tier not in full for job in left.values())
        try:
            job = policy.pop_below(4.0, full)
        except IndexError:
            if may_go:
                return f"pop_below() gave nobody while only {', '.join(sorted(full)) or 'no tier'} was full"
            continue
        if job.request.tier in full or left.pop(id(job), None) is None:
            return "pop_below() gave a job of a tier that was full, or one that had gone already"
        if len(policy) != len(left):
            return f"len() is {len(policy)} with {len(left)} jobs waiting, after pop_below()"
    return f"{len(left)} jobs never came out of pop_below()" if left else ""


def _no_scan(name: str) -> str:
    def each(jobs: list[Job]) -> float:
        policy = _fresh_policy(name)
        for job in jobs:
            policy.push(job, job.request.arrival)
        begin = time.process_time()
        for _ in range(200):
            policy.pop(len(jobs) * 0.01)
        return (time.process_time() - begin) / 200

    few, many = _jobs(300), _jobs(LARGE)
    short, times = min(each(few) for _ in range(3)), float("inf")
    for _ in range(3):  # whoever else is on the machine is not there thrice
        times = min(times, each(many) / max(short, 1e-7))
        if times <= SLOWER:
            return ""
    return f"a decision among {LARGE:,} takes {times:.0f} times one among 300"


def _estimates(name: str) -> str:
    estimator = make_estimator(name, Admission(), {f"r{row}": 50 for row in range(200)})
    for job in _jobs(200):
        made = estimator.estimate(job.request, job.predicted_category, job.request.arrival)
        if not (isinstance(made.length, int) and made.length > 0):
            return f"request {job.request.id!r} was estimated at {made.length!r}"
        job.estimate = made.length
        estimator.observe(job, 40 + job.index % 90, job.index % 5 == 0, job.request.arrival + 1)
    return ""


def _fresh(name: str) -> str:
    outputs = {f"r{row}": 50 for row in range(200)}
    jobs = _jobs(200)

    def first() -> list[int]:
        estimator = make_estimator(name, Admission(), outputs)
        return [estimator.estimate(job.request, job.predicted_category, 0.0).length for job in jobs[:20]]

    before = first()
    taught = make_estimator(name, Admission(), outputs)
    for job in jobs:
        taught.observe(job, 400, False, 1.0)
    return "" if first() == before else "what one instance learned, another knows"


def verdicts(name: str) -> tuple[str, list[Verdict]]:
    """Whether ``name`` is a policy or an estimator, and its verdicts. Raises ``InputError`` if it is neither."""
    for kind, find in (("policy", policy_class), ("estimator", estimator_class)):
        try:
            find(name)
        except InputError as error:
            problem = error
        else:
            return kind, conformance(kind, name)
    known = ", ".join([STOCK, *POLICIES, *ESTIMATORS])
    raise problem if is_plugin(name) else InputError(f"{name!r} is neither policy nor estimator; ours are {known}")
