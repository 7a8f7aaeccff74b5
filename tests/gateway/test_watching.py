"""What is shown of a gateway is what happened, names are text whatever they say, and alarms come and go once."""

from __future__ import annotations

import asyncio
import json
import re
from importlib.resources import files
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftsim.gateway.alarms import Alarm, Alarms
from driftsim.gateway.config import TenantRule
from driftsim.gateway.keys import hash_of
from driftsim.gateway.meters import MOST_TENANTS, Meters
from driftsim.gateway.stats import End, Stats, coverage, is_within, percentile, ratio
from driftsim.gateway.watching import HEADERS
from driftsim.live.engine import Outcome
from driftsim.request import Job, Request, Tier
from driftsim.tenants import MOST, OTHERS
from tests.gateway.test_relay import run
from tests.gateway.upstream import Door, conserved, until

EVIL = '</script><img src=x onerror="alert(1)">'


def end(**told: Any) -> End:
    plain: dict[str, Any] = {
        "at": 0.0, "tenant": "a", "tier": "standard", "category": "report", "reason": "stop", "ttft": 0.1, "e2e": 1.0,
        "tokens": 10, "estimate": 10, "bias": 1.0, "length": 10, "quantiles": (), "within": None,
    }  # fmt: skip
    return End(**plain | told)


def state_of(door: Door) -> dict[str, Any]:
    watching = door.gateway.watching
    assert watching is not None
    return watching.snapshot()


def test_the_state_is_what_happened() -> None:
    async def test(door: Door) -> None:
        await asyncio.gather(*(door.said("hi", stream=True) for _ in range(3)), door.said("status 500"))
        held = [asyncio.create_task(door.said("hold x")) for _ in range(3)]
        await until(lambda: len(door.front.gate.waiting) == 2)
        state = state_of(door)
        assert state["ends"] == {"offered": 7, "finished": 3, "refused": 0, "aborted": 0, "errors": 1}
        assert (state["inside"], state["waiting"], state["limit"], state["state"]) == (1, 2, 1, "up")
        (tenant,) = state["tenants"]
        assert (tenant["requests"], tenant["finished"]) == (4, 3)
        assert 0 <= tenant["ttft_p50"] <= tenant["e2e_p50"] <= tenant["e2e_p99"]
        assert [dot[1] for dot in state["dots"]] == [3, 3, 3]
        door.upstream.let("x")
        await asyncio.gather(*held)
        await until(lambda: conserved(door))

    run(test, max_in_flight=1)


def test_the_page_pushes_its_state_and_is_closed_to_others_and_to_markup() -> None:
    async def test(door: Door) -> None:
        async with door.client.get(f"{door.url}/ui/events") as answer:
            line = await answer.content.readline()
            state = json.loads(line.removeprefix(b"data: "))
            assert state["tiers"] == ["premium", "standard", "batch"]
        for path, kind in (("/ui", "text/html"), ("/ui/page.js", "text/javascript"), ("/ui/page.css", "text/css")):
            async with door.client.get(door.url + path) as answer:
                assert answer.content_type == kind
                for name, value in HEADERS.items():
                    assert answer.headers[name] == value

    run(test)


def test_the_page_asks_nobody_else_and_sets_no_markup() -> None:
    folder = files("driftsim.gateway") / "page"
    pages = {name: (folder / name).read_text() for name in ("index.html", "page.js", "page.css")}
    assert "//" not in pages["index.html"] + pages["page.css"]
    assert set(re.findall(r"https?://[^\s\"']+", pages["page.js"])) == {"http://www.w3.org/2000/svg"}  # a name
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|Function\(", pages["page.js"])
    assert not re.search(r" on\w+=|<script>|style=", pages["index.html"])


def test_metrics_count_what_ended_and_know_no_more_names_than_were_configured() -> None:
    meters = Meters([f"t{number}" for number in range(500)])
    for number in range(500):
        request = Request("r", f"t{number}", Tier.STANDARD, "", 0.0, 5, None, 64)
        job = Job(request, EVIL, estimate=4, budget=9)
        meters.admitted(job)
        meters.ended(Outcome(job, "stop", output_tokens=3), 0.1, 1.0, 3)
    page = meters.page().decode()
    named = set(re.findall(r'requests_total\{outcome="finished",tenant="([^"]+)"', page))
    assert len(named) == MOST_TENANTS + 1
    assert f'driftsim_requests_total{{outcome="finished",tenant="{OTHERS}",tier="standard"}} 400.0' in page
    assert EVIL not in page
    assert 'category="other"' in page


def test_readiness_and_health_need_no_key() -> None:
    async def test(door: Door) -> None:
        for path in ("/healthz", "/readyz"):
            async with door.client.get(door.url + path) as answer:
                assert answer.status == 200

    run(test, tenants=[{"name": "a", "keys": [hash_of("k")]}])


@given(st.lists(st.floats(0.01, 1e4), min_size=1, max_size=60), st.floats(0, 100))
def test_percentiles_are_those_of_numpy(values: list[float], percent: float) -> None:
    import numpy as np

    assert percentile(values, percent) == pytest.approx(float(np.percentile(values, percent)))


def test_the_largest_tenants_are_told_apart_and_the_past_is_forgotten() -> None:
    stats = Stats()
    for number in range(40):
        for _ in range(1 + number):
            stats.note(end(tenant=f"t{number}", at=100.0))
    rows = stats.tenants(100.0)
    assert len(rows) == MOST + 1
    assert sum(row["requests"] for row in rows) == 820
    assert rows[0]["tenant"] == OTHERS or rows[1]["tenant"] == "t39"
    assert stats.tenants(100_000.0) == []


@pytest.mark.parametrize(
    ("rule", "told", "kept"),
    [
        ({}, {}, None),
        ({"e2e_s": 2.0}, {}, True),
        ({"e2e_s": 0.5}, {}, False),
        ({"ttft_s": 0.05}, {}, False),
        ({"ttft_s": 0.05}, {"ttft": None}, True),  # no stream: nobody knows
        ({"tpot_s": 0.09}, {}, False),
        ({"tpot_s": 0.11}, {}, True),
        ({"e2e_s": 2.0}, {"reason": "error"}, False),
        ({"e2e_s": 2.0}, {"reason": "rejected"}, False),
        ({"e2e_s": 0.5}, {"reason": "abort"}, None),
    ],
)
def test_a_request_keeps_its_slo_or_not(rule: dict[str, Any], told: dict[str, Any], kept: bool | None) -> None:
    values: dict[str, Any] = {"reason": "stop", "ttft": 0.1, "e2e": 1.0, "tokens": 10} | told
    assert is_within(TenantRule(name="a", **rule), **values) is kept


def test_ratios_and_coverage_are_of_those_that_finished() -> None:
    ends = [end(estimate=10, length=20, quantiles=(5, 15)), end(estimate=10, length=5, quantiles=(5, 15))] * 20
    assert ratio(ends) == pytest.approx(1.0)
    assert coverage(ends) == 0.5
    assert ratio(ends[:2]) is None
    assert coverage([end()] * 50) is None


def test_an_alarm_is_raised_once_and_cleared_once_inside_of_its_band() -> None:
    told: list[tuple[str, bool]] = []
    alarms = Alarms(lambda alarm, raised: told.append((alarm.kind, raised)))

    def rows(found: float | None, covered: float | None) -> list[dict[str, Any]]:
        return [{"category": "report", "ratio": found, "coverage": covered}]

    raised = []
    for found, covered in ((1.0, 0.8), (1.6, 0.8), (1.7, 0.65), (1.49, 0.705), (1.4, 0.75), (None, None)):
        alarms.estimates(rows(found, covered), (0.1, 0.9), 0.0)
        raised.append(len(list(alarms)))
    assert raised == [0, 1, 2, 2, 0, 0]
    assert told == [("bias", True), ("coverage", True), ("bias", False), ("coverage", False)]
    alarms.steps(0.02, 0.02, 1.0)
    alarms.steps(0.02, 0.03, 2.0)
    assert [alarm.kind for alarm in alarms] == ["step_time"]
    assert isinstance(next(iter(alarms)), Alarm)
    alarms.steps(0.02, 0.021, 3.0)
    assert told[4:] == [("step_time", True), ("step_time", False)]


def test_a_step_time_that_changed_is_an_alarm_until_it_is_what_it_was() -> None:
    async def test(door: Door) -> None:
        watching = door.gateway.watching
        assert watching is not None
        for step, raised in ((0.02, False), (0.04, True), (0.041, True), (0.021, False)):
            watching.advised({"profile": {"step_s": step}, "lines": [], "rows": []})
            assert bool(state_of(door)["alarms"]) is raised
        async with door.client.get(f"{door.url}/metrics") as answer:
            assert 'driftsim_alarms_total{kind="step_time"} 1.0' in await answer.text()

    run(test)


def test_what_another_look_found_is_told_and_a_failure_too() -> None:
    async def test(door: Door) -> None:
        async with door.client.get(f"{door.url}/ui/advice") as answer:
            assert answer.status == 404
        watching = door.gateway.watching
        assert watching is not None
        watching._read_advice(2, b"", b"a line\ndriftsim: too few requests\n")
        assert state_of(door)["advice_problem"] == "too few requests"
        watching._read_advice(0, json.dumps({"lines": [EVIL], "rows": [], "profile": {}}).encode(), b"")
        assert state_of(door)["advice_problem"] == ""
        async with door.client.get(f"{door.url}/ui/advice") as answer:
            assert (await answer.json())["lines"] == [EVIL]

    run(test)
