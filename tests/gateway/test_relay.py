"""What passes the gateway is what was sent: bytes, fields and headers, but for what is named here."""

from __future__ import annotations

import asyncio
import gc
import json
import shutil
from asyncio.subprocess import PIPE
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import openai
import pytest

from driftsim.trace.segments import newest, segments
from driftsim.trace.trace import read
from tests.gateway.upstream import Door, Upstream, conserved, gateway, served, until


def run(test: Callable[[Door], Awaitable[None]], upstream: Upstream | None = None, **options: Any) -> None:
    """Run ``test`` with a gateway before an upstream."""

    async def whole() -> None:
        async with served(upstream or Upstream()) as behind, gateway(behind, **options) as door:
            await test(door)
            await until(lambda: conserved(door))

    asyncio.run(whole())


@pytest.mark.parametrize("asks", [True, False])
def test_a_stream_is_passed_on_byte_for_byte_but_for_the_usage_that_was_not_asked_for(asks: bool) -> None:
    async def test(door: Door) -> None:
        fields: dict[str, Any] = {"stream_options": {"include_usage": True}} if asks else {}
        status, passed = await door.said("hi", stream=True, **fields)
        made = door.upstream.events({"stream_options": {"include_usage": asks}})
        assert (status, passed) == (200, b"".join(made))
        assert door.front.gate.ends.finished == 1

    run(test)


def test_an_answer_in_one_piece_is_passed_on_as_it_is() -> None:
    async def test(door: Door) -> None:
        _, passed = await door.said("hi")
        async with door.client.post(f"{door.upstream.url}/chat/completions", json=door.upstream.seen[0]) as straight:
            assert passed == await straight.read()

    run(test)


def test_fields_that_nobody_knows_are_kept_as_they_are_written() -> None:
    async def test(door: Door) -> None:
        body = b' {"odd": 1.0e+2, "messages":[{"role":"user","content":"\\u00e9"}] , "stream": true,"x":[ ]}\n'
        async with door.client.post(f"{door.url}/v1/chat/completions", data=body) as answer:
            await answer.read()
        sent = door.upstream.bodies[0]
        assert sent.replace(b'"stream_options":{"include_usage":true},', b"") == body

    run(test)


def test_the_openai_client_works_through_it() -> None:
    async def test(door: Door) -> None:
        client = openai.AsyncOpenAI(base_url=f"{door.url}/v1", api_key="none", max_retries=0)
        messages: Any = [{"role": "user", "content": "hi"}]
        async with client:
            assert [model.id async for model in client.models.list()] == ["small"]
            answer = await client.chat.completions.create(model="small", messages=messages)
            assert answer.choices[0].message.content == "a b"
            stream = await client.chat.completions.create(model="small", messages=messages, stream=True)
            chunks = [chunk async for chunk in stream]
            assert [chunk.choices[0].delta.content for chunk in chunks if chunk.choices][1:3] == ["t0", "t1"]
            assert all(chunk.usage is None for chunk in chunks)

    run(test)


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_curl_works_through_it() -> None:
    async def curl(url: str, *options: str) -> bytes:
        process = await asyncio.create_subprocess_exec("curl", "-sS", "--fail", *options, url, stdout=PIPE)
        told, _ = await process.communicate()
        assert process.returncode == 0
        return told

    async def test(door: Door) -> None:
        models = json.loads(await curl(f"{door.url}/v1/models"))
        assert [model["id"] for model in models["data"]] == ["small"]
        for streams in (True, False):
            asked = {"model": "small", "messages": [{"role": "user", "content": "hi"}], "stream": streams}
            chat, json_type = f"{door.url}/v1/chat/completions", "Content-Type: application/json"
            told = await curl(chat, "-N", "-H", json_type, "-d", json.dumps(asked))
            if streams:
                assert told == b"".join(door.upstream.events({}))
            else:
                assert json.loads(told)["choices"][0]["message"]["content"] == "a b"
        assert door.front.gate.ends.finished == 2

    run(test)


def test_a_request_that_was_served_leaves_nothing_to_collect() -> None:
    """Nobody collects while streams run, so a circle would stay."""

    async def test(door: Door) -> None:
        for first in (True, False):
            if not first:
                await asyncio.sleep(0.05)
                gc.collect()
                gc.set_debug(gc.DEBUG_SAVEALL)
            for text, stream in (("slowly", True), ("hi", True), ("hi", False), ("status 500", True)):
                await door.said(text, stream=stream)
        await asyncio.sleep(0.05)
        gc.collect()
        left = {type(one).__qualname__ for one in gc.garbage if type(one).__module__.startswith("driftsim.gateway")}
        assert not left

    gc.disable()
    try:
        run(test)
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


def test_what_was_served_is_a_trace_while_it_runs_and_after(tmp_path: Path) -> None:
    folder = tmp_path / "recorded"

    async def test(door: Door) -> None:
        await asyncio.gather(*(door.said(f"{kind} please", stream=kind != "whole") for kind in ("a", "whole", "b")))
        held = asyncio.create_task(door.said("hold x", stream=True))
        await until(lambda: len(read(segments(folder)[0]).requests) == 4)
        rows = await asyncio.to_thread(lambda: read(segments(folder)[0]).requests)
        assert rows["finish_reason"].tolist().count("stop") == 3
        assert rows["finish_reason"].isna().sum() == 1
        door.upstream.let("x")
        await held

    run(test, record=str(folder))
    (trace,) = newest(folder)
    assert (trace.header.ended, len(trace.requests), trace.header.engine.max_model_len) == ("complete", 4, 4096)
    assert trace.requests["output_tokens"].tolist() == [3, 3, 3, 3]
    assert trace.requests["first_token_s"].notna().sum() == 3
    kept = "".join(str(file.read_bytes()) for file in folder.rglob("*") if file.is_file())
    assert "please" not in kept


def test_a_full_trace_is_closed_while_the_gateway_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "recorded"

    def ended() -> list[str]:
        return [read(one).header.ended for one in segments(folder)]

    async def test(door: Door) -> None:
        await door.said("hi")
        await until(lambda: ended() == ["complete"])
        held = asyncio.create_task(door.said("hold x"))
        await until(lambda: door.front.gate.inside)
        await asyncio.sleep(0.2)  # it is full, and waits for the one who is under way
        assert ended() == ["complete", "recording"]
        door.upstream.let("x")
        await held
        await until(lambda: ended() == ["complete", "complete"])

    run(test, record=str(folder), rotate_s=0.05)


def test_what_a_server_tells_of_its_queue_is_recorded(tmp_path: Path) -> None:
    """As vLLM does with --enable-per-request-metrics."""
    upstream = Upstream()
    upstream.metrics = '"metrics":{"queue_time_ms":0.01,"time_to_first_token_ms":0.005},'

    async def test(door: Door) -> None:
        await door.said("hi", stream=True)

    run(test, upstream, record=str(tmp_path / "recorded"))
    (trace,) = newest(tmp_path / "recorded")
    row = trace.requests.iloc[0]
    assert row["dispatch_s"] <= row["queued_s"] <= row["scheduled_s"] <= row["first_token_s"]
    assert row["first_token_s"] - row["scheduled_s"] <= 0.00026


def test_the_servers_count_of_a_prompt_is_taken_where_it_tells_one() -> None:
    upstream = Upstream()
    upstream.told = {"count": 7}

    async def test(door: Door) -> None:
        held = asyncio.create_task(door.said("hold x"))
        await until(lambda: door.front.gate.inside)
        (ticket,) = door.front.gate.inside.values()
        assert ticket.job.request.prompt_tokens == 7
        upstream.let("x")
        await held

    run(test, upstream)


@pytest.mark.parametrize("told", [{}, {"count": "many"}, None])
def test_a_server_that_tells_no_count_is_asked_once(told: dict[str, Any] | None) -> None:
    upstream = Upstream()
    upstream.told = told

    async def test(door: Door) -> None:
        for _ in range(3):
            await door.said("hi there")
        assert upstream.asked == 1

    run(test, upstream)


def test_the_policys_key_goes_on_as_a_priority_and_a_clients_own_does_not() -> None:
    async def test(door: Door) -> None:
        await door.said("hi", max_tokens=9, priority=-5, stream=True)
        await door.said("hi there and more", max_tokens=9)
        first, second = (body["priority"] for body in door.upstream.seen)
        assert 0 < first < second
        assert first % 1000 == 0

    run(test, policy="sjf", estimator="static", pass_priority=True)


def test_json_says_why_a_request_was_refused() -> None:
    async def test(door: Door) -> None:
        async with door.client.post(f"{door.url}/v1/chat/completions", data=b"{") as answer:
            assert (answer.status, json.loads(await answer.read())["error"]["code"]) == (400, "invalid_body")

    run(test)
