"""What somebody tries, with a key or none, to get at another tenant's queue, key or text, or to hold everybody up."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from typing import Any

import pytest

from driftsim.errors import InputError
from driftsim.gateway.asked import CHAT, MOST_ITEMS, MOST_NESTED, PLAIN, asked
from tests.gateway.test_access import ACME, BOSS, OTHER, TENANTS, raw
from tests.gateway.test_relay import run
from tests.gateway.upstream import Door, Upstream, until


def headers(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/chat/completions"), ("GET", "/v1/chat/completions/x/messages"), ("GET", "/v1/responses/x"),
        ("POST", "/v1/responses/x/cancel"), ("GET", "/v1/files"), ("GET", "/v1/batches"), ("DELETE", "/v1/models/x"),
        ("POST", "/v1/chat/completions/"), ("PUT", "/v1/completions"), ("POST", "/v1/chat/completions/batch"),
        ("GET", "/v1/threads"), ("HEAD", "/v1/files"),
    ],
)  # fmt: skip
def test_a_tenant_reaches_nothing_that_a_server_keeps_for_all(method: str, path: str) -> None:
    async def test(door: Door) -> None:
        async with door.client.request(method, door.url + path, headers=headers(ACME), data=b"{}") as answer:
            assert answer.status == 404
        assert not door.upstream.others
        assert not door.upstream.seen

    run(test, **TENANTS)


def test_a_tenant_reaches_what_keeps_nothing() -> None:
    async def test(door: Door) -> None:
        for method, path in (("GET", "/v1/models/a/b"), ("POST", "/v1/embeddings"), ("POST", "/score")):
            async with door.client.request(method, door.url + path, headers=headers(ACME), data=b"{}") as answer:
                assert answer.status == 418, path

    run(test, **TENANTS, also_pass=["/score"])


@pytest.mark.parametrize("method", ["TRACE", "CONNECT", "PROPFIND", "XX"])
def test_no_method_makes_a_server_repeat_its_key(method: str) -> None:
    async def test(door: Door) -> None:
        said = await raw(door, f"{method} /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert said.split(b" ")[1] in (b"400", b"404", b"405"), said[:80]
        assert not door.upstream.others

    run(test)


def test_an_absolute_url_goes_to_the_server_that_is_configured_or_nowhere() -> None:
    async def test(door: Door) -> None:
        host = "Host: localhost\r\nConnection: close\r\n\r\n"
        said = await raw(door, f"GET http://evil.example:1/v1/models HTTP/1.1\r\n{host}")
        assert b'"small"' in said
        said = await raw(door, "GET http://evil.example:1/metrics HTTP/1.1\r\nHost: evil.example\r\n\r\n")
        assert b" 403 " in said.split(b"\r\n")[0]

    run(test)


def test_two_keys_in_one_request_are_the_first_ones_and_neither_goes_on() -> None:
    async def test(door: Door) -> None:
        body = b'{"messages":[{"role":"user","content":"hold x"}]}'
        head = "".join(f"Authorization: Bearer {key}\r\n" for key in (ACME, OTHER)) + f"X-Api-Key: {OTHER}\r\n"
        text = f"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\n{head}Content-Length: {len(body)}\r\n\r\n"
        held = asyncio.create_task(raw(door, text + body.decode()))
        await until(lambda: door.upstream.open)
        (ticket,) = door.front.gate.inside.values()
        assert ticket.job.request.tenant == "acme"
        assert not any(key in str(seen) for seen in door.upstream.headers for key in (ACME, OTHER))
        door.upstream.let("x")
        assert b" 200 " in await held

    run(test, **TENANTS)


def test_a_key_in_the_query_is_no_key_and_goes_nowhere() -> None:
    async def test(door: Door) -> None:
        for told, status in (({}, 401), (headers(ACME), 400)):
            for query in (f"api_key={ACME}", f"a=%64s-{ACME[3:]}"):
                url = f"{door.url}/v1/embeddings?{query}"
                async with door.client.post(url, headers=told, data=b"{}") as answer:
                    assert answer.status == status
                    assert ACME not in await answer.text()
        assert not door.upstream.others

    run(test, **TENANTS)


def test_who_a_client_says_it_is_counts_for_nothing() -> None:
    """Neither its tenant, nor where it comes from; fields of the body go on as they are."""

    async def test(door: Door) -> None:
        said = {"X-Tenant": "other", "X-Forwarded-For": "127.0.0.1", "Forwarded": "for=x", "X-Real-Ip": "::1"}
        body = {"messages": [{"role": "user", "content": "hold x"}], "user": "other", "metadata": {"tenant": "other"}}
        sent = door.client.post(f"{door.url}/v1/chat/completions", json=body, headers=headers(ACME) | said)
        held = asyncio.create_task(sent.__aenter__())
        await until(lambda: door.upstream.open)
        (ticket,) = door.front.gate.inside.values()
        assert ticket.job.request.tenant == "acme"
        assert not {"X-Forwarded-For", "Forwarded", "X-Real-Ip"} & set(door.upstream.headers[-1])
        assert door.upstream.seen[-1] == body
        door.upstream.let("x")
        (await held).close()

    run(test, **TENANTS)


def test_no_field_that_a_server_does_not_read_makes_a_request_look_short() -> None:
    plain = {"prompt": "word " * 50, "messages": [], "max_tokens": 4000, "max_completion_tokens": 1}
    said = asked(json.dumps(plain).encode(), PLAIN)
    assert (said.words, said.max_tokens) == (50, 4000)
    chat = {"messages": [{"content": "word " * 50}], "prompt": [["x"]] * 9, "max_completion_tokens": 7, "max_tokens": 1}
    said = asked(json.dumps(chat).encode(), CHAT)
    assert (said.words, said.max_tokens, said.choices) == (50, 7, 1)


@pytest.mark.parametrize(
    "body",
    [b"[" + b"[]," * MOST_NESTED + b"1]", b'{"a":' * (MOST_NESTED + 1), b'{"prompt":[' + b"1," * MOST_ITEMS + b"1,1]}"],
)
def test_a_body_that_takes_many_times_its_size_is_not_read(body: bytes) -> None:
    begun = time.process_time()
    with pytest.raises(InputError, match="too many values"):
        asked(body)
    assert time.process_time() - begun < 0.5


def test_a_client_that_never_ends_its_head_is_cut_off() -> None:
    """However regularly it sends another line (slowloris)."""

    async def drip(door: Door) -> float:
        host, port = door.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        begun = time.monotonic()
        writer.write(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n")
        reading = asyncio.create_task(reader.read())
        while not reading.done() and time.monotonic() < begun + 20:
            writer.write(b"X-A: b\r\n")
            await asyncio.sleep(0.02)
        writer.close()
        return time.monotonic() - begun

    async def test(door: Door) -> None:
        assert max(await asyncio.gather(*(drip(door) for _ in range(20)))) < 15
        assert (await door.said("hi"))[0] == 200

    run(test, head_s=0.3)


@pytest.mark.parametrize("lines", [["X-A: " + "b" * 20_000], [f"X-{n}: b" for n in range(200)], ["X" * 20_000 + ": b"]])
def test_a_head_is_not_of_any_size(lines: list[str]) -> None:
    async def test(door: Door) -> None:
        text = "\r\n".join(["GET /v1/models HTTP/1.1", "Host: localhost", *lines, "", ""])
        assert (await raw(door, text)).split(b" ")[1] == b"400"
        assert (await raw(door, f"GET /v1/{'a' * 20_000} HTTP/1.1\r\nHost: a\r\n\r\n")).split(b" ")[1] in (
            b"400",
            b"414",
        )

    run(test)


def test_no_key_of_a_request_that_is_none_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def test(door: Door) -> None:
        for wrong in (f"Bearer {ACME}\x01", f"Bearer {ACME}" * 2_000, f"Bearer {ACME}\r\n\x7fX: {ACME}"):
            await raw(door, f"GET /v1/models HTTP/1.1\r\nHost: a\r\nAuthorization: {wrong}\r\n\r\n")

    with caplog.at_level(logging.DEBUG, "aiohttp.server"), caplog.at_level(logging.DEBUG, "driftsim.gateway"):
        run(test, **TENANTS)
    assert ACME not in caplog.text


def test_a_failure_of_ours_is_logged_without_what_the_client_sent(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = f"a text and {ACME}"

    async def test(door: Door) -> None:
        def broken(*told: Any) -> None:
            raise RuntimeError(secret)

        monkeypatch.setattr(door.front, "offer", broken)
        assert (await door.said("a text", ACME))[0] == 500

    run(test, **TENANTS)
    assert "RuntimeError" in caplog.text
    assert "a text" not in caplog.text
    assert ACME not in caplog.text


def test_tenants_share_no_prefix_cache_where_they_are_not_to() -> None:
    async def test(door: Door) -> None:
        for key in (ACME, ACME, OTHER):
            await door.said("hi", key)
        await door.said("hi", ACME, cache_salt="mine")
        first, again, other, own = (body["cache_salt"] for body in door.upstream.seen)
        assert first == again
        assert len({first, other, own, "mine"}) == 4
        assert "acme" not in str(door.upstream.bodies)

    run(test, Upstream(), **TENANTS, separate_caches=True)


def test_an_operators_key_asks_for_no_answer_and_no_tenant_sees_the_events_of_the_page() -> None:
    async def test(door: Door) -> None:
        assert (await door.said("hi", BOSS))[0] == 401
        for path in ("/ui/events", "/ui/state", "/ui/advice", "/metrics"):
            async with door.client.get(door.url + path, headers=headers(ACME)) as answer:
                assert answer.status == 401

    run(test, **TENANTS)
