"""Clients that give up and send again, and queues that turn newcomers away."""

from __future__ import annotations

from collections import deque
from typing import Any, cast

import numpy as np
import openai
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai._constants import MAX_RETRY_AFTER_DELAY
from openai._models import FinalRequestOptions

from driftsim.clients import PATIENT, Clients, Retries, Timeout, clients_of
from driftsim.engine.clock import Numbered
from driftsim.errors import InputError
from driftsim.request import Job, Request, Tier
from driftsim.scheduling.shedding import Shed, Shedding, shed_rules
from driftsim.simulation.run import Simulation, simulate
from driftsim.simulation.scenario import Scenario
from driftsim.trace.attempts import fates, per_request
from driftsim.trace.header import Phase
from driftsim.trace.prefixes import ENDLESS
from driftsim.trace.trace import Trace, read
from driftsim.workloads.attempts import Attempts
from driftsim.workloads.replay import as_recorded, replay
from driftsim.workloads.workload import Workload
from tests.queues import SLOS
from tests.strategies import engine, estimators, policies, profile, profiles, workload, workloads

STEP = 0.01


def served(work: Workload, slots: int = 1, policy: str = "fifo", **asked: Any) -> pd.DataFrame:
    """The requests of ``work`` behind an engine of so many slots and steps of 10 ms."""
    return run(work, slots, policy, **asked).requests


def run(work: Workload, slots: int = 1, policy: str = "fifo", **asked: Any) -> Trace:
    made = profile(engine(max_num_seqs=slots), intercept_s=STEP)
    trace = simulate(Scenario(profile=made, policy=policy, refill_lag=False, **asked), work)
    trace.check("simulated")
    return trace


def timed(*after: float, **named: float) -> Clients:
    everybody = [Timeout(after_s=time) for time in after]
    return clients_of([*everybody, *(Timeout(who=who, after_s=time) for who, time in named.items())])


def test_who_is_not_finished_in_time_leaves_the_queue_or_the_engine() -> None:
    work = workload([0.0, 0.0, 0.0], [20, 5, 5])
    rows = served(work, clients=timed(0.105))
    assert rows["finish_reason"].tolist() == ["timeout", "timeout", "timeout"]
    assert rows["finish_s"].tolist() == [0.105] * 3
    assert rows["output_tokens"].tolist() == [11, 0, 0]  # the engine drops the first at the end of its step
    assert rows["timeout_s"].tolist() == [0.105] * 3
    rows = served(work, clients=timed(0.21))  # the first ends at 0.2, the second has a token by then
    assert rows["finish_reason"].tolist() == ["stop", "timeout", "timeout"]
    assert rows["finish_s"].round(9).tolist() == [0.2, 0.21, 0.21]
    later = served(workload([0.0, 0.1], [20, 5]), clients=timed(0.15))  # its slot goes to the second at 0.15
    assert later["finish_reason"].tolist() == ["timeout", "stop"]
    assert later["finish_s"].round(9).tolist() == [0.15, 0.2]


def test_a_token_that_reaches_the_client_too_late_is_too_late() -> None:
    made = profile(engine(), intercept_s=STEP, output_lag_s=0.004)
    work = workload([0.0], [5])
    for after, reason in ((0.054, "stop"), (0.0539, "timeout"), (0.05, "timeout")):
        rows = simulate(Scenario(profile=made, clients=timed(after)), work).requests
        assert (rows["finish_reason"][0], rows["finish_s"][0]) == (reason, pytest.approx(after))


def test_a_first_token_on_its_way_when_the_client_goes_was_never_seen() -> None:
    made = profile(engine(), intercept_s=STEP, output_lag_s=0.004)
    for after, tokens in ((0.012, 0), (0.0145, 1)):
        row = simulate(Scenario(profile=made, clients=timed(after)), workload([0.0], [5])).requests.iloc[0]
        assert (row["output_tokens"] >= tokens, np.isnan(row["first_token_s"])) == (True, tokens == 0)
        assert (tokens > 0) == (row["output_tokens"] > 0)


def test_a_timeout_is_its_tenants_else_its_tiers_else_everybodys_else_the_traces() -> None:
    work = workload([0.0] * 4, [50] * 4, tenant=["a", "b", "b", "b"], tier=["batch", "batch", "premium", "standard"],
                    timeout_s=[9.0, 9.0, 9.0, 0.3])  # fmt: skip
    clients = clients_of(["tenant:a:100ms", "tier:batch:200ms", "premium:250ms"])
    rows = served(work, slots=4, clients=clients)
    assert rows["timeout_s"].tolist() == [0.1, 0.2, 0.25, 0.3]
    assert rows["finish_s"].tolist() == [0.1, 0.2, 0.25, 0.3]
    assert served(work, slots=4, clients=timed(0.15))["timeout_s"].tolist() == [0.15] * 4


def test_a_long_timeout_changes_nothing() -> None:
    work = workload([0.0, 0.01, 0.02], [9, 5, 7])
    plain, patient = served(work), served(work, clients=timed(100.0))
    pd.testing.assert_frame_equal(plain, patient.drop(columns="timeout_s"))


def test_a_deadline_spans_all_attempts() -> None:
    work = workload([0.0, 0.0], [100, 5], deadline_s=[np.nan, 0.5])
    clients = Clients(timeouts=(Timeout(after_s=0.3),), retries=Retries(first_s=0.1, jitter=0.0))
    rows = served(work, clients=clients)
    own = rows[rows["retry_of"].fillna(rows["request_id"]) == "r1"]
    # Sent at 0, timed out at 0.3, again at 0.4; the deadline ends that attempt before its time is out.
    assert own["arrival_s"].tolist() == [0.0, 0.4]
    assert own["finish_s"].round(9).tolist() == [0.3, 0.5]
    assert own["deadline_s"].tolist() == [0.5, 0.5]


def test_a_client_sends_again_what_timed_out_after_waits_that_double() -> None:
    work = workload([0.0, 0.0], [1000, 5])
    clients = Clients(timeouts=(Timeout(after_s=1.0),), retries=Retries(most=3, jitter=0.0, longest_s=1.0))
    trace = run(work, clients=clients)
    rows = trace.requests
    assert rows["request_id"].tolist() == ["r0", "r1", "r0#2", "r1#2", "r0#3", "r1#3", "r0#4", "r1#4"][: len(rows)]
    own = rows[rows["request_id"].str.startswith("r0")]
    assert own["arrival_s"].tolist() == [0.0, 1.5, 3.5, 5.5]  # 1 s each, and waits of 0.5, 1 and 1 s
    assert own["attempt"].tolist() == [1, 2, 3, 4]
    assert own["retry_of"].tolist() == [None, "r0", "r0", "r0"]
    whole = per_request(trace).requests
    assert whole["request_id"].tolist() == ["r0", "r1"]
    assert (whole["arrival_s"][0], whole["finish_s"][0], whole["finish_reason"][0]) == (0.0, 6.5, "timeout")
    assert fates(trace)["attempts"] == len(rows)


def test_waits_are_those_of_the_openai_client(monkeypatch: pytest.MonkeyPatch) -> None:
    client = openai.OpenAI(api_key="none", base_url="http://localhost:1", max_retries=9)
    options = FinalRequestOptions(method="post", url="/")
    for chance in (0.0, 0.37, 1.0):
        monkeypatch.setattr(openai._base_client, "random", lambda chance=chance: chance)
        for number in range(9):
            theirs = client._calculate_retry_timeout(9 - number, options)
            assert Retries().wait(number, chance) == pytest.approx(theirs)
    for told in ("3", "120", "0"):
        theirs = client._calculate_retry_timeout(9, options, cast(Any, {"retry-after": told}))
        assert Retries().wait(0, 1.0, float(told)) == pytest.approx(theirs)
    assert Retries().wait(0, 1.0, 121.0) is None
    assert MAX_RETRY_AFTER_DELAY == 120
    assert client.max_retries == 9
    assert Retries().most == openai.DEFAULT_MAX_RETRIES


def test_the_users_of_a_closed_loop_go_on_when_they_have_given_up() -> None:
    phase = Phase(name="only", kind="closed", requests=3, users=1)
    clients = Clients(timeouts=(Timeout(after_s=0.1),), retries=Retries(most=1, first_s=0.05, jitter=0.0))
    rows = served(workload([0.0, 0.0, 0.0], [50, 5, 5], (phase,)), clients=clients)
    sent = rows.set_index("request_id")["arrival_s"].round(9).to_dict()
    assert sent == {"r0": 0.0, "r0#2": 0.15, "r1": 0.25, "r2": 0.3}


def test_a_session_goes_on_after_a_retry_and_ends_with_the_last_failure() -> None:
    phase = Phase(name="only", kind="sessions", requests=3)
    retries = Retries(most=1, first_s=0.1, jitter=0.0)
    clients = Clients(timeouts=(Timeout(who="a", after_s=0.2),), retries=retries)

    def chat(first: int) -> pd.DataFrame:
        """A session of two turns of tenant a, behind another's request that takes 0.3 s."""
        work = workload([0.0, 0.001, 0.0], [30, first, 5], (phase,), session=[None, "s", "s"], parent=[[], [], [1]],
                        gap_s=[np.nan, np.nan, 0.02], tenant=["b", "a", "a"])  # fmt: skip
        return served(work, clients=clients).set_index("request_id")

    rows = chat(5)
    assert rows["finish_reason"].to_dict() == {"r0": "stop", "r1": "timeout", "r2": "stop", "r1#2": "stop"}
    assert rows.loc["r1#2", "arrival_s"] == pytest.approx(0.301)
    assert rows.loc["r2", "arrival_s"] == pytest.approx(0.371)
    assert chat(50)["finish_reason"].to_dict() == {"r0": "stop", "r1": "timeout", "r1#2": "timeout"}


def test_a_replay_sends_each_request_once_and_again_where_it_fails_again() -> None:
    work = workload([0.0, 0.0, 0.0], [15, 15, 15])
    clients = Clients(timeouts=(Timeout(after_s=0.2),), retries=Retries(most=2, first_s=0.1, jitter=0.0))
    trace = run(work, clients=clients)
    assert len(trace.requests) > 3
    again = replay(trace)
    assert len(again) == 3
    assert again.clients == clients
    fast = profile(engine(max_num_seqs=3), intercept_s=STEP)
    rows = simulate(Scenario(profile=fast), again).requests
    assert rows["finish_reason"].tolist() == ["stop"] * 3
    slow = run(again)
    pd.testing.assert_frame_equal(slow.requests, trace.requests, check_exact=False)
    raw = as_recorded(trace)
    assert (len(raw), raw.clients) == (len(trace.requests), PATIENT)


def test_a_trace_with_attempts_is_written_and_read(tmp_path: Any) -> None:
    clients = clients_of("100ms", 2)
    trace = run(workload([0.0, 0.0], [15, 15]), clients=clients, shed=shed_rules("requests=5"))
    trace.write(tmp_path / "trace")
    back = read(tmp_path / "trace")
    assert back.header.clients == clients
    assert back.header.admission["shed"] == ["requests=5"]
    pd.testing.assert_frame_equal(back.requests, trace.requests)


# -- the queue's limits


def test_a_queue_holds_as_many_requests_and_tokens_as_it_may() -> None:
    work = workload([0.0, 0.001, 0.002, 0.003, 0.5], [5] * 5)
    rows = served(work, shed="requests=2")
    assert rows["finish_reason"].tolist() == ["stop", "stop", "stop", "rejected", "stop"]
    assert rows["error"][3] == "2 wait, of at most 2 requests"
    budgets = served(work)["budget"]
    rows = served(work, shed=f"tokens={budgets[1] + budgets[2] - 1}")
    assert rows["finish_reason"].tolist() == ["stop", "stop", "rejected", "rejected", "stop"]
    assert served(work, shed="requests=0")["finish_reason"].tolist() == ["rejected"] * 5


def test_limits_of_a_tier_look_at_its_own_and_those_of_everybody_at_all() -> None:
    tiers = ["batch", "batch", "batch", "premium", "premium", "premium"]
    work = workload([0.001 * row for row in range(6)], [9] * 6, tier=tiers)
    rows = served(work, shed=["batch:requests=1", "requests=3"])
    # The first is served; of batch one waits, then two of premium; the last is the fourth.
    assert rows["finish_reason"].tolist() == ["stop", "stop", "rejected", "stop", "stop", "rejected"]


def test_who_is_turned_away_is_told_when_to_come_again() -> None:
    offsets = [0.0, *(0.11 + 0.001 * row for row in range(6))]
    work = workload(offsets, [10] * 7)
    retries = Retries(most=1, first_s=0.5, jitter=0.0)
    refused = served(work, shed="wait=250ms", clients=Clients(retries=retries))
    deferred = served(work, shed="defer=250ms", clients=Clients(retries=retries))
    first = refused["request_id"][refused["finish_reason"] == "rejected"].tolist()
    assert first == ["r5", "r6"]  # three before r4 wait about 0.1 s each
    again = deferred.set_index("request_id")["arrival_s"]
    assert refused.set_index("request_id")["arrival_s"]["r5#2"] == pytest.approx(offsets[5] + 0.5)
    assert again["r5#2"] < offsets[5] + 0.2  # as long as the wait is above the limit


class Plain:
    """The same estimate of the wait, from the whole history, as its definition says."""

    def __init__(self) -> None:
        self.events: list[tuple[float, str, int, int]] = []

    def wait(self, now: float) -> float | None:
        waiting: dict[int, int] = {}
        inside: dict[int, tuple[float, int]] = {}
        served, times = 0.0, list[tuple[float, float]]()
        for time, what, name, budget in self.events:
            if what == "in":
                waiting[name] = budget
            elif what == "go":
                inside[name] = (time, waiting.pop(name))
            elif what == "drop":
                del waiting[name]
            else:
                begun, size = inside.pop(name)
                times.append((begun, time))
                served += size * np.exp(-self._busy(time, now) / 30)
        span = 30 * (1 - np.exp(-self._busy(0.0, now) / 30))
        if not (served > 0 and span > 0):
            return None
        return float(sum(waiting.values()) * span / served)

    def _busy(self, begin: float, end: float) -> float:
        """The time from ``begin`` to ``end`` in which somebody was inside."""
        inside, since, total = 0, 0.0, 0.0
        for time, what, _, _ in [*self.events, (end, "end", 0, 0)]:
            if inside:
                total += max(0.0, min(time, end) - max(since, begin))
            since = time
            inside += {"go": 1, "out": -1}.get(what, 0)
        return total


@given(st.data())
@settings(max_examples=60)
def test_the_estimated_wait_is_what_waits_over_what_was_served_a_second_lately(data: st.DataObject) -> None:
    shedding, plain, now = Shedding(shed_rules(["wait=1ms"])), Plain(), 0.0
    jobs: dict[int, Job] = {}
    waiting, inside = deque[int](), deque[int]()
    for name in range(data.draw(st.integers(1, 25))):
        now += data.draw(st.sampled_from([0.0, 0.5, 3.0, 40.0]))
        what = data.draw(st.sampled_from(["in", "in", "go", "out", "drop"]))
        if what == "in":
            budget = data.draw(st.integers(1, 500))
            job = Job(Request(str(name), "a", Tier("batch"), "", now, 1, None, 9), "", 1, budget)
            refusal, expected = shedding.refuses(job, now), plain.wait(now)
            assert (refusal is not None) == (expected is not None and expected > 0.001)
            if refusal is None:
                jobs[name] = job
                waiting.append(name)
                plain.events.append((now, what, name, budget))
            elif expected is not None:
                assert f"{expected:.3g} s" in refusal.why
        elif what in ("go", "drop") and waiting:
            gone = waiting.popleft()
            if what == "go":
                shedding.entered(jobs[gone], now)
                inside.append(gone)
            else:
                shedding.withdrawn(jobs[gone])
            plain.events.append((now, what, gone, 0))
        elif what == "out" and inside:
            gone = inside.popleft()
            shedding.left(jobs[gone], now)
            plain.events.append((now, what, gone, 0))


# -- laws


def longest_queue(rows: pd.DataFrame) -> int:
    """The most requests that ever waited for dispatch at once, who came at the same moment counted one by one."""
    came = rows[rows["finish_reason"] != "rejected"]
    left = came["dispatch_s"].fillna(came["finish_s"])
    moments = [*((time, 1) for time in came["arrival_s"]), *((time, -1) for time in left)]
    most = now = 0
    for _, change in sorted(moments):
        now += change
        most = max(most, now)
    return most


@given(st.data())
@settings(max_examples=80)
def test_whatever_clients_and_queues_do_every_attempt_is_accounted_for_and_nothing_leaks(data: st.DataObject) -> None:
    work = data.draw(workloads(largest=14, patient=False))
    retries = data.draw(st.none() | st.builds(Retries, most=st.integers(0, 3), first_s=st.sampled_from([0.0, 0.05])))
    times = data.draw(st.sampled_from([(), ("50ms",), ("a:20ms", "300ms"), ("premium:100ms",)]))
    queue = data.draw(st.sampled_from([(), ("requests=2",), ("tokens=400", "batch:requests=0"), ("b:wait=50ms",),
                                       ("defer=100ms", "premium:requests=1")]))  # fmt: skip
    clients = clients_of(times, retries)
    scenario = Scenario(profile=data.draw(profiles()), policy=data.draw(policies), estimator=data.draw(estimators),
                        clients=clients, shed=shed_rules(queue), slos=SLOS)  # fmt: skip
    simulation = Simulation(scenario, work)
    trace = simulation.run()
    trace.check("simulated")
    rows = trace.requests
    assert simulation.arrivals.done
    assert not simulation.dispatcher.in_flight
    assert not simulation.dispatcher.may_release
    assert not simulation.impatient.waits
    assert simulation.engine.free == simulation.engine.total  # type: ignore[attr-defined]
    # Offered = finished + rejected + timed out + aborted + errors, of requests and of attempts.
    asked = per_request(trace).requests
    assert sorted(asked["request_id"]) == sorted(work.table["request_id"])
    assert asked["finish_reason"].notna().all()
    assert rows["finish_reason"].notna().all()
    told = fates(trace)
    if told:
        ends = asked["finish_reason"].value_counts()
        assert told["timed_out"] == ends.get("timeout", 0)
        assert told["aborted"] == ends.get("abort", 0)
        finished = int(rows["finish_reason"].isin(["stop", "length"]).sum())
        failed = told["attempts_timed_out"] + told["attempts_rejected"] + told["attempts_errors"]
        assert told["attempts"] == finished + failed + told["aborted"]
    # Nobody is served later than its client waits, and who timed out did so when the client gave up.
    if "timeout_s" in rows:
        late = rows["finish_s"] - rows["arrival_s"] - rows["timeout_s"]
        served_ = rows["finish_reason"].isin(["stop", "length"])
        assert (late[served_ & rows["timeout_s"].notna()] <= 1e-9).all()
        assert (
            late[rows["finish_reason"] == "timeout"].abs().max() < 1e-9
            or not (rows["finish_reason"] == "timeout").any()
        )
    if "attempt" in rows and retries is not None:
        names = rows["retry_of"].fillna(rows["request_id"])
        for _, own in rows.assign(name=names).sort_values("attempt").groupby("name"):
            assert own["attempt"].tolist() == list(range(1, len(own) + 1))
            assert len(own) <= 1 + retries.most
            assert own["finish_reason"].iloc[:-1].isin(["timeout", "rejected", "error"]).all()
    if queue == ("requests=2",):
        assert longest_queue(rows) <= 2 + (rows["arrival_s"] == rows["dispatch_s"]).sum()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: clients_of("30"), "timeout '30': '30' has no unit; write [NAME:]TIME"),
        (lambda: clients_of("premium:-3s"), "must be above 0"),
        (lambda: clients_of("premium:3h"), "is no time in s or ms"),
        (lambda: clients_of(["3s", "4s"]), "everybody has two timeouts"),
        (lambda: clients_of(["a:3s", "tier:a:4s"]), "'a' has two timeouts"),
        (lambda: clients_of(":3s"), "printable and not empty"),
        (lambda: clients_of((), -1), "retries.most: Input should be greater than or equal to 0"),
        (lambda: clients_of((), 21), "less than or equal to 20"),
        (lambda: shed_rules("requests"), "'requests' is no limit"),
        (lambda: shed_rules("requests=1.5"), "no whole number"),
        (lambda: shed_rules("wait=5"), "wait=5 has no unit"),
        (lambda: shed_rules("requests=1,requests=2"), "limits requests twice"),
        (lambda: shed_rules(["a:requests=1", "a:wait=3s"]), "'a' has two queue limits"),
        (lambda: shed_rules([{"who": "a"}]), "limits nothing"),
        (lambda: Shed(requests=-1), "greater than or equal to 0"),
    ],
)
def test_wrong_timeouts_retries_and_limits_are_refused_in_a_line(make: Any, says: str) -> None:
    with pytest.raises(InputError) as caught:
        make()
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_client_whose_answer_comes_in_time_costs_no_event(monkeypatch: pytest.MonkeyPatch) -> None:
    """300 requests of half a second each, which are waited for as long as twenty of them come: the clock is asked now
    and then, and not once for each."""
    asked = []

    class Counted(Numbered):
        def __init__(self, *moment: Any) -> None:
            super().__init__(*moment)
            asked.append(moment)

    monkeypatch.setattr("driftsim.simulation.patience.Numbered", Counted)
    made = Workload.poisson(rate=4.0, requests=300, prompt_tokens=30, output_tokens=40)
    rows = run(made, slots=8, clients=timed(5.0)).requests
    assert (rows["finish_reason"] == "stop").all()
    assert 1 <= len(asked) < 60


@pytest.mark.parametrize("told", [True, False])
def test_an_attempt_finds_the_prompt_of_the_one_before(told: bool) -> None:
    """Nobody else shares it, yet it is asked for again. Where nobody tells what requests share, it is not found."""
    clients = Clients(timeouts=(Timeout(after_s=0.3),), retries=Retries(most=1, first_s=0.1, jitter=0.0))
    more: Any = {"stretches": [((0, ENDLESS),)]} if told else {}
    work = workload([0.0], [50], prompt_tokens=[64], **more)
    cached = profile(engine(max_num_seqs=1, enable_prefix_caching=True), intercept_s=STEP)
    rows = simulate(Scenario(profile=cached, policy="fifo", refill_lag=False, clients=clients), work).requests
    assert rows["cached_tokens"].tolist() == [0, 48 if told else 0]


def test_an_attempt_repeats_its_prompt_and_has_an_answer_of_its_own() -> None:
    begins = [((0, ENDLESS),), ((0, 30), (1, ENDLESS))]
    work = workload([0.0, 0.0], [5, 5], prompt_tokens=[20, 40], stretches=begins)
    attempts = Attempts(work, Clients(retries=Retries(most=1)), 0, lambda seconds: seconds)
    again = attempts.stretches(begins)[2:]
    assert [one[:-1] for one in again] == [((0, 20),), ((0, 30), (1, 40))]
    assert [end for *_, (_, end) in again] == [ENDLESS] * 2
    assert len({owner for *_, (owner, _) in again} | {0, 1}) == 4
