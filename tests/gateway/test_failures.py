"""Whatever servers and clients do, everybody ends once, slots come back, and a slow reader holds up itself alone."""

from __future__ import annotations

import asyncio
import gc
import random
import statistics
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest

from driftsim.request import Job
from driftsim.trace.segments import newest, segments
from tests.gateway.test_relay import run
from tests.gateway.upstream import Door, Upstream, conserved, gateway, served, until


def working_tasks() -> list[Any]:
    """All tasks but those of connections that are kept open and wait for a request."""
    return [task for task in asyncio.all_tasks() if "RequestHandler.start" not in repr(task.get_coro())]


def reasons(folder: Path) -> list[Any]:
    return [reason for trace in newest(folder) for reason in trace.requests["finish_reason"]]


def test_who_leaves_the_queue_is_never_sent(tmp_path: Path) -> None:
    async def test(door: Door) -> None:
        first = asyncio.create_task(door.said("hold x"))
        await until(lambda: door.front.gate.inside)
        second = asyncio.create_task(door.said("hold y"))
        await until(lambda: door.front.gate.waiting)
        second.cancel()
        await until(lambda: door.front.gate.ends.aborted == 1)
        door.upstream.let("x")
        await first
        assert [body["messages"][0]["content"] for body in door.upstream.seen] == ["hold x"]

    run(test, max_in_flight=1, record=str(tmp_path / "r"))
    assert sorted(reasons(tmp_path / "r")) == ["abort", "stop"]


def test_who_leaves_in_mid_stream_ends_it_at_the_server_and_is_a_censored_observation(tmp_path: Path) -> None:
    seen: list[tuple[int, bool]] = []

    async def test(door: Door) -> None:
        observe = door.front.estimator.observe

        def heard(job: Job, output_length: int, censored: bool, now: float) -> None:
            seen.append((output_length, censored))
            observe(job, output_length, censored, now)

        door.front.estimator.observe = heard  # type: ignore[method-assign]
        async with door.post("slowly", stream=True) as answer:
            assert await answer.content.readline()
        async with door.post("endless", stream=True) as answer:
            await answer.content.readexactly(2_000)
            answer.close()
        await until(lambda: door.front.gate.ends.aborted and door.upstream.broken and not door.upstream.open)

    run(test, record=str(tmp_path / "r"))
    assert any(censored and length > 0 for length, censored in seen)
    (trace,) = newest(tmp_path / "r")
    gone = trace.requests[trace.requests["finish_reason"] == "abort"]
    assert (gone["output_tokens"] > 0).all()
    assert gone["finish_s"].notna().all()


def test_a_slow_reader_holds_up_nobody_and_little_memory() -> None:
    async def test(door: Door) -> None:
        slow = await door.post("endless", stream=True)  # nobody reads it
        sent = 0
        chunk = door.upstream.chunk

        def counted(text: str) -> bytes:
            nonlocal sent
            sent += len(text)
            return chunk(text)

        door.upstream.chunk = counted  # type: ignore[method-assign]
        for _ in range(20):
            assert (await door.said("hi", stream=True))[0] == 200
        while True:  # until the server is held up itself
            before = sent
            await asyncio.sleep(0.2)
            if sent == before:
                break
        assert sent < 40_000_000  # what the sockets hold
        slow.close()

    run(test)


def test_a_reader_that_has_stopped_is_cut_off() -> None:
    async def test(door: Door) -> None:
        slow = await door.post("endless", stream=True)
        await until(lambda: door.front.gate.ends.aborted == 1)
        with pytest.raises(aiohttp.ClientError):
            await slow.read()

    run(test, stall_s=0.2)


@pytest.mark.parametrize(
    ("kind", "status"), [("cut", 502), ("status 500", 500), ("status 503", 503), ("status 404", 404)]
)
def test_what_the_server_refuses_is_told_and_counted(kind: str, status: int, tmp_path: Path) -> None:
    async def test(door: Door) -> None:
        assert (await door.said(kind))[0] == status
        ends = door.front.gate.ends
        assert (ends.errors, ends.refused) == ((0, 1) if status == 503 else (1, 0))

    run(test, record=str(tmp_path / "r"))
    assert reasons(tmp_path / "r") == ["rejected" if status == 503 else "error"]


def test_half_an_answer_is_no_whole_one() -> None:
    """Its client sees that the connection broke, and not an end."""

    async def test(door: Door) -> None:
        with pytest.raises(aiohttp.ClientError):
            await door.said("half", stream=True)
        assert door.front.gate.ends.errors == 1

    run(test)


def test_a_server_that_hangs_costs_its_client_and_no_slot() -> None:
    async def test(door: Door) -> None:
        assert (await door.said("hold for-ever"))[0] == 504
        assert door.front.gate.ends.errors == 1
        await until(lambda: door.front.pool.is_up)
        assert (await door.said("hi"))[0] == 200

    run(test, silence_s=0.2)


def test_a_server_that_falls_silent_in_mid_answer_costs_its_client_and_no_slot() -> None:
    async def test(door: Door) -> None:
        with pytest.raises(aiohttp.ClientError):
            await door.said("hang for-ever", stream=True)
        assert door.front.gate.ends.errors == 1
        assert (await door.said("hi"))[0] == 200

    run(test, silence_s=0.2)


def test_a_reader_who_waits_long_is_no_silent_server() -> None:
    async def test(door: Door) -> None:
        slow = await door.post("endless", stream=True)
        await until(lambda: door.front.gate.inside)
        await asyncio.sleep(1.0)
        await slow.content.readexactly(8_000_000)  # more than the sockets hold
        assert not door.front.gate.ends.errors
        slow.close()

    run(test, silence_s=0.2)


def test_the_head_of_an_answer_does_not_wait_for_its_first_token() -> None:
    async def test(door: Door) -> None:
        async with door.post("late x", stream=True) as answer:
            assert answer.headers["x-odd"] == "1"
            door.upstream.let("x")
            await answer.read()

    run(test)


def test_who_waits_too_long_is_turned_away_with_a_time_to_come_again() -> None:
    async def test(door: Door) -> None:
        held = asyncio.create_task(door.said("hold x"))
        await until(lambda: door.front.gate.inside)
        async with door.post("hi") as answer:
            assert answer.status == 429
            assert int(answer.headers["Retry-After"]) >= 1
            assert (await answer.json())["error"]["code"] == "waited_too_long"
        door.upstream.let("x")
        await held
        assert len(door.upstream.seen) == 1

    run(test, max_in_flight=1, ttl_s=0.2)


def test_the_time_to_come_again_grows_with_the_queue() -> None:
    now = [0.0]

    async def whole() -> None:
        async with served(Upstream()) as behind, gateway(
            behind, lambda: now[0], max_in_flight=1, queue_requests=3
        ) as door:  # fmt: skip
            held = [asyncio.create_task(door.said("hold x0", max_tokens=64))]
            await until(lambda: door.front.gate.inside)
            now[0] = 10.0  # the first takes ten seconds
            behind.let("x0")
            await held[0]
            for number in range(1, 5):
                held.append(asyncio.create_task(door.said(f"hold x{number}", max_tokens=64)))
                await until(lambda: door.front.gate.ends.offered == number + 1)  # noqa: B023
            now[0] = 11.0
            async with door.post("hi", max_tokens=64) as answer:
                told[:] = [answer.status, int(answer.headers["Retry-After"]), answer.headers["retry-after-ms"]]
            for number in range(5):
                behind.let(f"x{number}")
            await asyncio.gather(*held)

    told: list[Any] = []
    asyncio.run(whole())
    status, seconds, milliseconds = told
    assert status == 429
    assert 25 <= seconds <= 40  # three before it, ten seconds each
    assert seconds - 1 <= int(milliseconds) / 1000 <= seconds


def test_a_server_that_is_down_is_left_alone_and_comes_back() -> None:
    async def whole() -> None:
        async with served(Upstream()) as behind:
            port = int(behind.url.split(":")[2].split("/")[0])
            async with gateway(behind) as door:
                assert (await door.said("hi"))[0] == 200
                behind.healthy = False
                await until(lambda: not door.front.pool.is_up)
                async with door.post("hi") as answer:
                    assert answer.status == 503
                    assert "Retry-After" in answer.headers
                async with door.client.get(f"{door.url}/readyz") as answer:
                    assert answer.status == 503
                behind.healthy = True
                await until(lambda: door.front.pool.is_up)
                one = door.front.pool.upstreams[0]
                assert (one.state, door.front.pool.room()) == ("trial", 1)
                assert [status for status, _ in await asyncio.gather(*(door.said("hi") for _ in range(5)))] == [200] * 5
                assert one.state == "up"
                assert port

    asyncio.run(whole())


def test_another_server_takes_over_from_one_that_cannot_be_reached() -> None:
    async def whole() -> None:
        async with served(Upstream()) as one, served(Upstream()) as other:
            await through(one, other, ["http://127.0.0.1:9/v1", one.url, other.url])

    async def through(one: Upstream, other: Upstream, urls: list[str]) -> None:
        async with gateway(one, upstreams=urls, health_s=60.0) as door:
            assert [status for status, _ in await asyncio.gather(*(door.said("hi") for _ in range(8)))] == [200] * 8
            assert len(one.seen) + len(other.seen) == 8
            assert one.seen
            assert other.seen
            assert door.front.pool.upstreams[0].state == "down"
            await until(lambda: conserved(door))

    asyncio.run(whole())


def test_chaos_loses_nobody_and_leaks_nothing(tmp_path: Path) -> None:
    """Servers killed and hung, refusals, half answers, clients that vanish, wrong keys: all at once."""
    kinds = ["hi", "slowly", "half", "cut", "status 500", "status 503", "status 429", "hold x", "endless", "stop x"]
    dice = random.Random(7)

    async def client(door: Door, number: int) -> None:
        kind = dice.choice(kinds)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(door.said(f"{kind} {number}", stream=dice.random() < 0.7))
            await asyncio.sleep(dice.random() * 0.3)
            if kind in ("endless", "hold x", "stop x") or dice.random() < 0.3:
                task.cancel()

    async def kind_to(door: Door, number: int) -> None:
        with suppress(BaseExceptionGroup, aiohttp.ClientError):
            await asyncio.sleep(dice.random() * 0.5)
            await client(door, number)

    async def whole() -> None:
        async with served(Upstream()) as behind, gateway(
            behind, max_in_flight=8, queue_requests=40, ttl_s=0.5, silence_s=0.3, policy="sjf", rotate_s=0.1,
            record=str(tmp_path / "r"),
        ) as door:  # fmt: skip
            tasks = len(working_tasks())
            for sure in ("hi", "status 500", "status 503"):
                await door.said(sure)
            gone = asyncio.create_task(door.said("hold gone"))
            await until(lambda: door.front.gate.inside)
            gone.cancel()
            working = [asyncio.create_task(kind_to(door, number)) for number in range(200)]
            for healthy in (False, True):
                await asyncio.sleep(0.15)
                behind.healthy = healthy
            await asyncio.gather(*working)
            behind.let("x")
            await until(lambda: conserved(door))
            await until(lambda: door.front.pool.is_up)
            counts.append(door.front.gate.ends)
            await door.client.close()
            gc.collect()
            await until(lambda: len(working_tasks()) <= tasks + 1)  # a trace that is being closed

    counts: list[Any] = []
    asyncio.run(whole())
    (ends,) = counts
    assert ends.offered == ends.finished + ends.refused + ends.aborted + ends.errors
    assert min(ends.finished, ends.refused, ends.aborted, ends.errors) > 0
    rows = reasons(tmp_path / "r")
    assert len(rows) <= ends.offered  # who came while no server was up is in no trace
    assert len(segments(tmp_path / "r")) > 1
    early = ends.offered - len(rows)
    assert sum(reason in ("stop", "length") for reason in rows) == ends.finished
    assert rows.count("rejected") == ends.refused - early
    assert (rows.count("abort"), rows.count("error")) == (ends.aborted, ends.errors)
    assert all(trace.header.ended == "complete" for trace in newest(tmp_path / "r"))


def test_who_leaves_in_mid_stream_is_gone_at_the_server_within_a_tenth_of_a_second() -> None:
    """Beside clients that leave the server itself, so that a busy machine counts for little."""

    async def left(door: Door, url: str, number: int) -> float:
        body = {"messages": [{"role": "user", "content": f"stop x{number}"}], "stream": True}
        before = door.upstream.broken
        answer = await door.client.post(f"{url}/chat/completions", json=body)
        assert await answer.content.readline()
        begun = time.monotonic()
        answer.close()
        await until(lambda: door.upstream.broken > before)
        return time.monotonic() - begun

    async def test(door: Door) -> None:
        straight, through = list[float](), list[float]()
        for number in range(9):
            straight.append(await left(door, door.upstream.url, number))
            through.append(await left(door, f"{door.url}/v1", number))
        assert statistics.median(through) < 0.1 + 2 * statistics.median(straight)
        assert (door.front.gate.ends.aborted, len(door.front.gate.inside)) == (9, 0)

    run(test, max_in_flight=1)


def test_the_openai_client_comes_again_where_that_helps_and_not_where_it_does_not() -> None:
    async def test(door: Door) -> None:
        client = openai.AsyncOpenAI(base_url=f"{door.url}/v1", api_key="none", max_retries=2)
        async with client:
            messages: Any = [{"role": "user", "content": "hold for-ever"}]
            with pytest.raises(openai.InternalServerError):
                await client.chat.completions.create(model="small", messages=messages)
            assert door.front.gate.ends.offered == 1
            messages = [{"role": "user", "content": "hi"}]
            door.gateway.front.pool.upstreams[0].failed()
            answer = await client.chat.completions.create(model="small", messages=messages)
            assert answer.choices[0].message.content == "a b"

    run(test, silence_s=0.3, health_s=0.1)


def test_a_server_too_busy_to_tell_of_its_health_is_up_while_it_answers() -> None:
    async def test(door: Door) -> None:
        one = door.front.pool.upstreams[0]
        door.upstream.healthy = False
        session = aiohttp.ClientSession()
        async with session:
            for answers, state in ((1, "up"), (0, "down")):
                looking = asyncio.create_task(door.front.pool._look(session, one))
                await asyncio.sleep(0)
                one.answers += answers
                await looking
                assert one.state == state

    run(test, health_s=60.0)
