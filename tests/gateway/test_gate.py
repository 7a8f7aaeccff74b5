"""The gate releases as the dispatcher does, through sockets or not, and loses nobody."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from driftsim.gateway.config import GatewayConfig
from driftsim.gateway.front import Front
from driftsim.gateway.gate import Gate, Ticket
from driftsim.live.engine import Outcome
from driftsim.request import Job, Request, Tier
from driftsim.scheduling.dispatcher import Departure, Dispatcher
from driftsim.scheduling.estimators import make_estimator
from tests.gateway.upstream import Upstream, conserved, gateway, served, until

TEXTS = {  # by category: what the classifier reads out of them
    "short_qa": "why",
    "summary": "summarize summary",
    "technical": "code architecture",
    "report": "detailed report",
}
POLICIES = ["fifo", "sjf", "aging", "priority", "weighted", "vtc", "drr", "accumulating"]
TENANTS: list[dict[str, Any]] = [
    {"name": "a", "tier": "premium"},
    {"name": "b", "tier": "batch", "weight": 2.0},
    {"name": "c"},
]


@dataclass(frozen=True)
class Event:
    """At ``at``, a request of ``tenant`` arrives, or (``category`` empty) the oldest that is inside ends."""

    at: float
    tenant: int
    category: str
    words: int


@st.composite
def event_lists(draw: st.DrawFn) -> list[Event]:
    kinds = st.sampled_from([*TEXTS, "", ""])
    rows = draw(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2), kinds, st.integers(0, 40)), max_size=25))
    at, events = 0.0, []
    for gap, tenant, category, words in rows:
        at += gap
        events.append(Event(at, tenant, category, words))
    return events


def options(policy: str, estimator: str) -> dict[str, Any]:
    return {"policy": policy, "estimator": estimator, "max_in_flight": 2, "record": "", "open": False}


def keyed() -> tuple[list[dict[str, Any]], list[str]]:
    from driftsim.gateway.keys import hash_of

    keys = [f"key-{tenant['name']}" for tenant in TENANTS]
    return [tenant | {"keys": [hash_of(key)]} for tenant, key in zip(TENANTS, keys, strict=True)], keys


def by_dispatcher(config: GatewayConfig, events: Sequence[Event]) -> list[int]:
    """The order in which the dispatcher alone releases the requests of ``events``."""
    admission = config.admission.with_safety(config.rules)
    dispatcher = Dispatcher(
        config.made_policy(), make_estimator(config.estimator, admission, {}), admission, 2, {}, config.shed
    )
    inside, order, number = list[Job](), list[int](), 0
    for event in events:
        if event.category:
            tenant = config.tenants[event.tenant]
            words = len(text_of(number, event).split())
            request = Request(
                str(number), tenant.name, config.tier_of(tenant), "", event.at, max(1, round(1.4 * words)), words, 4096
            )
            dispatcher.arrive(request, event.category, event.at, number)
            number += 1
        elif inside:
            job = inside.pop(0)
            dispatcher.finished([Departure(job, 3, False, output_tokens=3)], event.at)
        if dispatcher.may_release:
            for job in dispatcher.release(1_000_000, event.at):
                inside.append(job)
                order.append(int(job.request.id))
    return order


def text_of(number: int, event: Event) -> str:
    return f"hold r{number} {TEXTS[event.category]}" + " x" * event.words


async def by_gateway(
    config: GatewayConfig, told: dict[str, Any], keys: list[str], events: Sequence[Event]
) -> list[int]:
    """The order in which a real server sees the same requests, sent through a gateway over sockets."""
    now = [0.0]
    async with served(Upstream()) as behind, gateway(behind, lambda: now[0], **told) as door:
        tasks, inside, number = [], 0, 0
        gate = door.front.gate
        for event in events:
            now[0] = event.at
            if event.category:
                text = text_of(number, event)
                tasks.append(asyncio.create_task(door.said(text, keys[event.tenant], max_tokens=4096)))
                number += 1
                await until(lambda: gate.ends.offered == number and not door.front._pumping)  # noqa: B023
            elif inside < len(behind.seen):
                behind.let(name_of(behind.seen[inside]))
                inside += 1
                await until(lambda: gate.ends.over == inside and not door.front._pumping)  # noqa: B023
            await until(lambda: len(behind.seen) == gate.dispatcher.dispatched)
        seen = [int(name_of(body)[1:]) for body in behind.seen]
        for place in range(number):
            behind.let(f"r{place}")
        await asyncio.gather(*tasks)
        await until(lambda: conserved(door))
        return seen


def name_of(body: dict[str, Any]) -> str:
    name: str = body["messages"][0]["content"].split()[1]
    return name


def test_a_backlog_leaves_in_the_order_of_the_simulation() -> None:
    from driftsim.simulation.run import simulate
    from driftsim.simulation.scenario import Scenario
    from tests.strategies import engine, profile, workload

    lengths = [40, 3, 900, 12, 1, 300]
    made = workload([0.0] * 6, [3] * 6, prompt_tokens=lengths)
    trace = simulate(Scenario(profile=profile(engine(max_num_seqs=1)), policy="sjf"), made)
    simulated = trace.requests.sort_values("dispatch_index").index.tolist()
    gate, order = made_gate("sjf", 1)
    for number, length in enumerate(lengths):
        request = Request(str(number), "t", Tier.STANDARD, "", 0.0, length, None, 64)
        gate.offer(request, "short_qa", 0.0, lambda ticket: order.append(ticket))
    for step in range(6):
        gate.pump(float(step))
        gate.leave(order[-1], Outcome(order[-1].job, "stop", output_tokens=3))
    assert [int(ticket.job.request.id) for ticket in order] == simulated


def made_gate(policy: str, limit: int, room: int = 1000) -> tuple[Gate, list[Ticket]]:
    config = GatewayConfig.of({"open": True, "policy": policy, "record": ""})
    admission = config.admission
    dispatcher = Dispatcher(config.made_policy(), make_estimator("static", admission, {}), admission, limit)
    return Gate(dispatcher, lambda: room), []


@settings(max_examples=60, deadline=None)
@given(policy=st.sampled_from(["fifo", "sjf", "vtc", "weighted"]), seed=st.integers(0, 10**6))
def test_everybody_ends_exactly_once(policy: str, seed: int) -> None:
    dice = random.Random(seed)
    gate, inside = made_gate(policy, 3)
    waiting: list[Ticket] = []
    left = Counter[str]()

    def go(ticket: Ticket) -> None:
        waiting.remove(ticket)
        inside.append(ticket)

    for number in range(300):
        now = float(number)
        what = dice.random()
        if what < 0.5:
            request = Request(str(number), dice.choice("ab"), Tier.STANDARD, "", now, dice.randint(1, 99), None, 64)
            waiting.append(gate.offer(request, "short_qa", now, go)[0])
        elif what < 0.75 and waiting:
            reason = dice.choice(["abort", "rejected"])
            gate.withdraw(waiting.pop(dice.randrange(len(waiting))), reason, now)
            left[reason] += 1
        elif inside:
            reason = dice.choice(["stop", "length", "abort", "error", "rejected"])
            ticket = inside.pop(dice.randrange(len(inside)))
            gate.leave(ticket, Outcome(ticket.job, reason, output_tokens=1))
            left[reason] += 1
        gate.pump(now)
        ends, here = gate.ends, len(gate.waiting) + len(gate.inside)
        assert ends.finished == left["stop"] + left["length"]
        assert (ends.refused, ends.aborted, ends.errors) == (left["rejected"], left["abort"], left["error"])
        assert ends.offered == ends.over + here
        assert len(gate.inside) == len(gate.dispatcher.in_flight) <= 3
        assert not gate.waiting or len(gate.inside) == 3
        assert {id(ticket) for ticket in waiting} == {id(ticket) for ticket in gate.waiting.values()}


def test_those_who_vanish_from_the_queue_leave_nothing_behind() -> None:
    """Under a policy that would never reach them."""
    gate, inside = made_gate("sjf", 1)
    for number in range(5_000):
        request = Request(str(number), "t", Tier.STANDARD, "", 0.0, 1 + 9_000 * (number > 0), None, 64)
        ticket, _ = gate.offer(request, "short_qa", 0.0, inside.append)
        gate.pump(0.0)
        if ticket.state == "waiting":
            gate.withdraw(ticket, "abort", 0.0)
    assert len(gate.dispatcher.policy) < 600


@pytest.mark.parametrize("policy", ["vtc", "drr"])
def test_a_tenant_gets_service_by_its_weight(policy: str) -> None:
    tenants = [{"name": name, "weight": weight, "keys": []} for name, weight in (("a", 1.0), ("b", 3.0))]
    config = GatewayConfig.of({"open": True, "policy": policy, "record": "", "tenants": tenants})
    made = config.made_policy()
    for number in range(80):
        tenant = "ab"[number % 2]
        request = Request(str(number), tenant, Tier.STANDARD, "", 0.0, 1000, None, 1000)
        made.push(Job(request, "short_qa", 500, 1500), 0.0)
    first = Counter(made.pop(0.0).request.tenant for _ in range(40))
    assert 2.4 <= first["b"] / first["a"] <= 3.8


@pytest.mark.parametrize("policy", ["fifo", "vtc"])
def test_new_limits_drop_nobody_and_hold_at_once(policy: str) -> None:
    from driftsim.scheduling.shedding import shed_rules

    gate, inside = made_gate(policy, 1)

    def one(number: int) -> bool:
        request = Request(str(number), "t", Tier.STANDARD, "", 0.0, 9, None, 64)
        return gate.offer(request, "short_qa", 0.0, inside.append)[1] is None

    assert all(one(number) for number in range(5))
    gate.pump(0.0)
    gate.limit_anew(shed_rules("tenant:t:requests=4"), 1.0)
    assert not one(5)
    gate.leave(inside[0], Outcome(inside[0].job, "stop", output_tokens=1))
    gate.pump(2.0)
    assert one(6)
    assert gate.dispatcher.estimated_wait(inside[0].job, 2.0) is not None
    assert gate.ends.refused == 1


def test_a_front_of_no_loop_learns_and_tells_its_limit() -> None:
    front = Front(GatewayConfig.of({"open": True, "record": "", "upstreams": ["http://a:1/v1", "http://b:1/v1"]}))
    assert front.limit == 512
    assert Front(GatewayConfig.of({"open": True, "record": "", "policy": "stock"})).limit is None


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(policy=st.sampled_from(POLICIES), estimator=st.sampled_from(["static", "ema"]), events=event_lists())
def test_the_gateway_releases_in_the_order_of_the_dispatcher(policy: str, estimator: str, events: list[Event]) -> None:
    tenants, keys = keyed()
    told = options(policy, estimator) | {"tenants": tenants}
    config = GatewayConfig.of(told)
    assert asyncio.run(by_gateway(config, told, keys, events)) == by_dispatcher(config, events)
