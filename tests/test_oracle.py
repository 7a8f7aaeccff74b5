"""The engine that jumps equals the engine that steps: every admission, token, preemption and finish, to the tick."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, find, given, settings
from hypothesis import strategies as st

from driftsim.engine.clock import ARRIVE, Moment
from driftsim.engine.continuous import ContinuousEngine
from driftsim.engine.pipelined import PipelinedEngine
from driftsim.engine.sequence import Sequence
from driftsim.latency.steptime import TICKS_PER_SECOND
from driftsim.request import Job
from driftsim.simulation.run import Simulation, simulate
from driftsim.simulation.scenario import Scenario
from driftsim.trace.trace import Trace
from driftsim.workloads.workload import Workload
from tests.crowds import check_same, crowd, stopping, twins
from tests.stepwise import StepwiseAsyncEngine, StepwiseEngine
from tests.strategies import engine, profile, workload, workloads
from tests.test_laws import scenarios

CROWDS = 120 if settings().max_examples <= 200 else 4000
MANY = max(200, settings().max_examples)  # 200 in CI, 2,000 in the nightly profile


def run(
    scenario: Scenario,
    workload: Workload,
    engine: Callable[..., Any] | None,
    steps: bool = False,
    aborts: list[tuple[int, int]] | None = None,
) -> Trace:
    """With ``aborts``, each a row and a moment (ticks) at which its client goes away, if it was dispatched by then.

    ``engine``: None for the simulator's own, which is told what is known of the workload.
    """
    simulation = Simulation(scenario, workload, steps, engine=engine)
    jobs: dict[int, Job] = {}
    served: Any = simulation.engine
    submit = served.submit
    if engine is not None:
        served.ends_late = simulation.ends_late

    def noting(job: Job, length: int) -> None:
        jobs[job.index] = job
        submit(job, length)

    def abort(row: int) -> None:
        if row in jobs:
            served.abort(jobs[row])

    if aborts:
        served.submit = noting
    for row, moment in aborts or []:
        Moment(simulation.env, moment, ARRIVE, lambda _, row=row: abort(row))  # type: ignore[misc]
    return simulation.run()


moments = st.builds(
    lambda ms, off: max(0, ms * TICKS_PER_SECOND // 1000 + off), st.integers(0, 600), st.integers(-1, 1)
)


@settings(max_examples=MANY)
@given(
    scenarios(),
    workloads(40, patient=False),
    st.booleans(),
    st.lists(st.tuples(st.integers(0, 39), moments), max_size=8),
)
def test_the_engine_that_jumps_equals_the_engine_that_steps(
    scenario: Scenario, workload: Workload, steps: bool, aborts: list[tuple[int, int]]
) -> None:
    settings = scenario.profile.engine
    slow = run(scenario, workload, StepwiseAsyncEngine if settings.async_scheduling else StepwiseEngine, steps, aborts)
    fast = run(scenario, workload, None, steps, aborts)
    check_same(fast.requests, slow.requests)
    if steps:
        assert fast.steps is not None
        assert slow.steps is not None
        check_same(fast.steps, slow.steps)


limits = st.one_of(st.none(), st.integers(1, 9))


@given(scenarios(), workloads(40, patient=False), limits, limits, st.booleans())
def test_both_turn_the_same_requests_away(
    scenario: Scenario, workload: Workload, requests: int | None, tokens: int | None, steps: bool
) -> None:
    most = None if tokens is None else 30 * tokens
    settings = scenario.profile.engine.changed(max_num_queued_reqs=requests, max_num_queued_tokens=most)
    limited = dataclasses.replace(scenario, profile=scenario.profile.changed(engine=settings))
    slow = run(limited, workload, StepwiseAsyncEngine if settings.async_scheduling else StepwiseEngine, steps)
    fast = simulate(limited, workload, record_steps=steps)
    check_same(fast.requests, slow.requests)
    if requests is None and tokens is None:
        assert fast.requests.equals(run(scenario, workload, None, steps).requests)


def test_the_limits_of_the_queue_count_who_is_there_and_prompts_without_an_answer() -> None:
    """Steps of 10 ms: the first two are there at 1 ms, and have shown a token by 20 ms."""
    made = workload([0.0, 0.0, 0.001, 0.025, 0.025], [9, 9, 9, 9, 9], prompt_tokens=30)
    reasons = []
    for limits in ({"max_num_queued_reqs": 2}, {"max_num_queued_reqs": 4}, {"max_num_queued_tokens": 60}, {}):
        scenario = Scenario(profile=profile(engine(**limits)), policy="stock", refill_lag=False)
        reasons.append([reason == "rejected" for reason in simulate(scenario, made).requests["finish_reason"]])
    assert reasons == [
        [False, False, True, True, True],
        [False, False, False, False, True],
        [False, False, True, False, False],
        [False, False, False, False, False],
    ]


def test_the_server_forgets_at_once_who_gives_up() -> None:
    """The engine drops the first at 60 ms, when its step is over; the second is let in before."""
    made = workload([0.0, 0.052], [50, 3], patience_s=[0.051, math.nan])
    limited = Scenario(profile=profile(engine(max_num_queued_reqs=1)), policy="stock", refill_lag=False)
    assert simulate(limited, made).requests["finish_reason"].tolist()[0] == "abort"
    assert simulate(limited, made).requests["output_tokens"].tolist()[1] == 3


@pytest.mark.parametrize("first", range(0, CROWDS, CROWDS // 4))
def test_the_engine_that_jumps_equals_the_engine_that_steps_in_a_crowd(first: int) -> None:
    found = preempted = 0
    for seed in range(first, first + CROWDS // 4):
        scenario, made, given_up = crowd(seed)
        settings = scenario.profile.engine
        oracle = StepwiseAsyncEngine if settings.async_scheduling else StepwiseEngine
        slow, fast = (run(scenario, made, kind, False, given_up) for kind in (oracle, None))
        check_same(fast.requests, slow.requests, f"crowd {seed}")
        preempted += int(slow.requests["preemptions"].sum())
        found += int(slow.requests["cached_tokens"].sum()) if "cached_tokens" in slow.requests else 0
    assert preempted > CROWDS // 8
    assert found > 5 * CROWDS


# By seed: the next chunk of a prompt takes the last free block of a decode (129, 235).
@pytest.mark.parametrize("seed", [129, 235])
def test_a_decode_comes_before_the_next_chunk_of_a_prompt(seed: int) -> None:
    scenario, made, given_up = crowd(seed)
    settings = scenario.profile.engine
    oracle = StepwiseAsyncEngine if settings.async_scheduling else StepwiseEngine
    slow, fast = (run(scenario, made, kind, False, given_up) for kind in (oracle, None))
    check_same(fast.requests, slow.requests)


def test_tokens_that_were_out_before_a_launch_are_not_held() -> None:
    scenario, made, given_up = crowd(1723)
    for graph_tokens, launch_s in itertools.product((0, 12), (0.004, 0.03)):
        changed = scenario.profile.changed(launch_s=launch_s, graph_tokens=graph_tokens)
        launching = dataclasses.replace(scenario, profile=changed)
        slow, fast = (run(launching, made, kind, False, given_up) for kind in (StepwiseAsyncEngine, PipelinedEngine))
        check_same(fast.requests, slow.requests)


# Stop strings, by seed: who is whole was preempted, and nobody dropped it (22), or a decode run passed over its abort
# (616, 1399); its blocks were freed before those of whoever ended in the same step (298, 460). In 1136 the head fits
# once so many wait that its first chunk is small.
STOPPED = (22, 298, 460, 616, 1136, 1399)


@pytest.mark.parametrize("seed", [*STOPPED, *range(2000, 2000 + CROWDS // 4)])
def test_stop_strings_in_a_crowd(seed: int) -> None:
    scenario, made, given_up = stopping(seed)
    settings = scenario.profile.engine
    oracle = StepwiseAsyncEngine if settings.async_scheduling else StepwiseEngine
    slow, fast = (run(scenario, made, kind, False, given_up) for kind in (oracle, None))
    check_same(fast.requests, slow.requests)


# Of equal blocks, which got its key first? By seed, who had been taken for the first: a victim that had its turn in the
# step, before those ahead of it (1597: both compute prompts, 6452: they decode); and one that went on, before one that
# stands still since, for it awaits its last output (6528) or got no turn while its token came out (11318); and one that
# was admitted, before those who run and whose tokens it computes again behind a gap (397, 1281).
TWINS = (397, 1281, 1597, 6452, 6528, 7403, 8129, 11318, 14956)


@pytest.mark.parametrize("seed", [*TWINS, *range(CROWDS // 4)])
def test_of_equal_blocks_the_same_is_found_first(seed: int) -> None:
    scenario, made = twins(seed)
    settings = scenario.profile.engine
    oracle = StepwiseAsyncEngine if settings.async_scheduling else StepwiseEngine
    slow, fast = (run(scenario, made, kind) for kind in (oracle, None))
    check_same(fast.requests, slow.requests)


def test_a_victim_whose_last_token_is_in_flight_moves_the_turn_since_0_28() -> None:
    """One on its last token stands in front of the others, the cache is full, and a decode needs a block."""
    apart = 0
    for output in range(3, 12):
        for prompt in range(3, 17):
            ends = []
            for version in ("0.27.0", "0.28.0"):
                settings = engine(
                    version=version, max_num_seqs=8, max_model_len=64, kv_blocks=5, scheduling_policy="priority",
                    async_scheduling=True,
                )  # fmt: skip
                made = workload(
                    [0.0, 0.01, 0.01, 0.01], [output, 7, 7, 7], prompt_tokens=[4, prompt, 3, 4],
                    max_tokens=[output, 20, 20, 20], tier=["batch", "premium", "premium", "premium"],
                )  # fmt: skip
                scenario = Scenario(profile=profile(settings), refill_lag=False)
                slow, fast = (run(scenario, made, kind) for kind in (StepwiseAsyncEngine, None))
                check_same(fast.requests, slow.requests)
                ends.append(fast.requests["finish_s"].tolist())
            apart += ends[0] != ends[1]
    assert 0 < apart < 20  # vLLM's own schedulers decide otherwise in 7 of these 126


def test_jobs_enter_the_engine_in_the_order_of_their_dispatch() -> None:
    # The first is turned away while the second is still on its way in, and makes room for the third.
    scenario = Scenario(profile=profile(engine(kv_blocks=3)), max_in_flight=2, refill_lag=False)
    simulation = Simulation(scenario, workload([0.0] * 3, [2] * 3, prompt_tokens=[60, 8, 8]))
    entered = []
    served: Any = simulation.engine
    submit = served.submit

    def noting(job: Job, length: int) -> None:
        entered.append(job.index)
        submit(job, length)

    served.submit = noting
    trace = simulation.run()
    assert entered == [0, 1, 2]
    assert trace.requests["dispatch_index"].tolist() == [0, 1, 2]
    assert trace.requests["finish_reason"].tolist() == ["rejected", "stop", "stop"]


class Leaks(ContinuousEngine):
    """Planted: whoever leaves early keeps a block for ever."""

    def _remove(self, sequence: Sequence, spare: int, turn: tuple[int, int] = (0, 0), ended: int | None = None) -> int:
        held = super()._remove(sequence, spare, turn, ended)
        self.free -= 1
        return held


class AdmitsLate(ContinuousEngine):
    """Planted: nobody is admitted in the step at whose start the core drained it."""

    def _schedule_waiting(self, prefills: list[tuple[Sequence, int]], threshold: int, now: int) -> None:
        if self.waiting and self.waiting[0].queued == now and self.running:
            return
        super()._schedule_waiting(prefills, threshold, now)


class WrongVictim(ContinuousEngine):
    """Planted: the first admitted is preempted, not the last."""

    def _preempt_for_decodes(self) -> int:
        preempted = 0
        while len(self.pool.claims()) > self.free and len(self.running) > 1:
            self._preempt(next(iter(self.running)), self.free)
            preempted += 1
        return preempted + (super()._preempt_for_decodes() if len(self.pool.claims()) > self.free else 0)


class StopsEarly(ContinuousEngine):
    """Planted: a decode run that an arrival cuts short ends one step early."""

    def _stop_run_after(self, steps: int) -> None:
        super()._stop_run_after(max(1, steps - 1))


class NotOverscheduled(PipelinedEngine):
    """Planted: a sequence that ends by itself is known beforehand, and not scheduled once more."""

    def _await_output(self, end: int) -> None:
        super()._await_output(end)
        for sequence in list(self.overscheduled):
            self.pool.leave(sequence)
            self.awaiting_output.add(sequence)
            self.overscheduled.discard(sequence)


class SlotAtOnce(PipelinedEngine):
    """Planted: a run that an arrival cuts short ends a step early."""

    def _boundary_at(self, steps: int) -> int:
        return super()._boundary_at(max(1, steps - 1))


MISTAKES: dict[type[ContinuousEngine], type[StepwiseEngine]] = dict.fromkeys(
    (Leaks, AdmitsLate, WrongVictim, StopsEarly), StepwiseEngine
) | dict.fromkeys((NotOverscheduled, SlotAtOnce), StepwiseAsyncEngine)


@pytest.mark.parametrize(("mistake", "oracle"), MISTAKES.items())
def test_a_planted_mistake_is_caught(mistake: type[ContinuousEngine], oracle: type[StepwiseEngine]) -> None:
    def differs(case: tuple[Scenario, Workload]) -> bool:
        settings = case[0].profile.engine.changed(async_scheduling=oracle is StepwiseAsyncEngine)
        scenario = dataclasses.replace(case[0], profile=case[0].profile.changed(engine=settings))
        try:
            mistaken = run(scenario, case[1], mistake)
        except LookupError:  # it takes a block that is not there
            return True
        return not mistaken.requests.equals(run(scenario, case[1], oracle).requests)

    quick = settings(
        max_examples=3000,
        phases=[Phase.generate],
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    # Raises if no workload tells them apart.
    find(st.tuples(scenarios(), workloads(40, least=8)), differs, settings=quick)
