"""A connection to a server carries one answer after another, and never one to somebody who did not ask for it."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from driftsim.gateway.framing import MOST_HEAD
from driftsim.gateway.links import BrokenError, Link, Links, Reply, UnreachableError
from tests.gateway.upstream import Door, Upstream, conserved, gateway, until

WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
Answers = Callable[[asyncio.StreamWriter, bytes], Awaitable[None]]


class Wire:
    """A server that answers each request as it is told, on the wire; it counts its connections."""

    def __init__(self, answers: Answers) -> None:
        self.answers, self.connections, self.heads = answers, 0, list[bytes]()
        self.url = ""

    async def serves(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
                await reader.readexactly(int(length or 0))
                self.heads.append(head)
                await self.answers(writer, head)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def wired(answers: Answers) -> AsyncIterator[Wire]:
    wire = Wire(answers)
    server = await asyncio.start_server(wire.serves, "127.0.0.1", 0)
    wire.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield wire
    finally:
        server.close()


def says(*parts: bytes) -> Answers:
    async def answers(writer: asyncio.StreamWriter, head: bytes) -> None:
        for part in parts:
            writer.write(part)
            await asyncio.sleep(0.01)

    return answers


async def asked(links: Links, method: str = "POST", **headers: str) -> tuple[int, bytes]:
    reply = await links.ask(method, "/v1/x", headers, b"{}" if method == "POST" else None)
    try:
        await reply.begun()
        got = list[bytes]()
        if not reply.is_over:
            reply.pour(lambda part: not got.append(part))  # type: ignore[func-returns-value]
            await reply.stops()
        return reply.head.status, b"".join(got) + reply.taken()
    finally:
        reply.close()


def run(answers: Answers, test: Callable[[Links, Wire], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with wired(answers) as wire:
            links = Links(wire.url)
            await asyncio.wait_for(test(links, wire), 20)
            links.close()

    asyncio.run(whole())


@pytest.mark.parametrize(
    ("parts", "connections"),
    [
        ((WHOLE,), 1),
        ((WHOLE[:20], WHOLE[20:45], WHOLE[45:]), 1),
        ((b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nA: b\r\n\r\n", WHOLE), 1),
        ((b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nh\r\n", b"1\r\ni\r\n0\r\n\r", b"\n"), 1),
        ((b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi",), 3),
        ((WHOLE + b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nother",), 3),
    ],
)  # fmt: skip
def test_a_connection_is_kept_where_that_is_safe(parts: tuple[bytes, ...], connections: int) -> None:
    async def test(links: Links, wire: Wire) -> None:
        assert [await asked(links) for _ in range(3)] == [(200, b"hi")] * 3
        assert wire.connections == connections

    run(says(*parts), test)


def test_what_comes_unasked_is_nobodys_answer() -> None:
    """Else one tenant would read what another was told."""

    async def test(links: Links, wire: Wire) -> None:
        assert await asked(links) == (200, b"hi")
        await asyncio.sleep(0.1)
        assert await asked(links) == (200, b"hi")
        assert wire.connections == 2

    run(says(WHOLE, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nother"), test)


def test_a_connection_that_was_given_up_is_closed_and_not_used_again() -> None:
    async def test(links: Links, wire: Wire) -> None:
        reply = await links.ask("POST", "/", {}, b"")
        await reply.begun()
        reply.close()
        await asyncio.sleep(0.05)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asked(links), 0.2)
        assert wire.connections == 2

    run(says(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi"), test)


def test_a_reply_that_was_given_up_leaves_nothing_to_collect() -> None:
    """Nobody collects while streams run, so a circle would stay."""

    async def test(links: Links, wire: Wire) -> None:
        reply = await links.ask("POST", "/", {}, b"")
        await reply.begun()
        answer = weakref.ref(reply._answer)
        reply.close()
        del reply
        await asyncio.sleep(0.05)
        assert answer() is None

    gc.disable()
    try:
        run(says(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi"), test)
    finally:
        gc.enable()


def test_a_body_without_a_size_ends_with_its_connection() -> None:
    async def answers(writer: asyncio.StreamWriter, head: bytes) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nh")
        await asyncio.sleep(0.05)
        writer.write(b"i")
        writer.close()

    async def test(links: Links, wire: Wire) -> None:
        assert [await asked(links) for _ in range(2)] == [(200, b"hi")] * 2

    run(answers, test)


@pytest.mark.parametrize(
    "written",
    [
        b"no HTTP at all\r\n\r\n", b"HTTP/1.1 101 Switching\r\n\r\n", b"HTTP/1.1 200 OK\r\nA", b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhi", b"x" * (MOST_HEAD + 1),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhello\r\n",
    ],
)  # fmt: skip
def test_an_answer_that_is_not_whole_is_told_as_broken(written: bytes) -> None:
    async def answers(writer: asyncio.StreamWriter, head: bytes) -> None:
        writer.write(written)
        await asyncio.sleep(0.05)
        writer.close()

    async def test(links: Links, wire: Wire) -> None:
        with pytest.raises(BrokenError):
            await asked(links)

    run(answers, test)


def test_a_reply_that_has_failed_is_never_whole() -> None:
    """Not even where its end would be that of its connection."""

    async def test(links: Links, wire: Wire) -> None:
        reply = await links.ask("POST", "/", {}, b"")
        await reply.begun()
        reply.fails(TimeoutError("too long"))
        await asyncio.sleep(0.05)
        with pytest.raises(TimeoutError):
            await reply.stops()
        assert not reply.is_over

    run(says(b"HTTP/1.1 200 OK\r\n\r\nh"), test)


def test_a_server_that_cannot_be_reached_was_sent_nothing() -> None:
    async def whole() -> None:
        with pytest.raises(UnreachableError):
            await Links("http://127.0.0.1:9").ask("GET", "/", {}, None)

    asyncio.run(whole())


def test_a_connection_is_not_kept_for_long() -> None:
    async def test(links: Links, wire: Wire) -> None:
        await asked(links)
        links.close(60.0)
        await asked(links)
        assert wire.connections == 1
        (link,) = links._idle
        link.idle_since -= 60.0
        links.close(2.0)
        assert not links._idle
        await asked(links)
        links._idle[0].idle_since -= 60.0
        await asked(links)
        assert wire.connections == 3

    run(says(WHOLE), test)


@pytest.mark.parametrize("value", ["a\r\nX-B: c", "a\nb", "a\rb", "a\0b"])
def test_a_header_is_never_two(value: str) -> None:
    async def test(links: Links, wire: Wire) -> None:
        with pytest.raises(ValueError, match="end of a line"):
            await asked(links, **{"X-A": value})
        with pytest.raises(ValueError, match="end of a line"):
            await links.ask("GET", f"/{value}", {}, None)
        assert not wire.connections

    run(says(WHOLE), test)


def test_what_is_asked_is_asked_as_http() -> None:
    async def test(links: Links, wire: Wire) -> None:
        host = wire.url.removeprefix("http://").encode()
        await asked(links, **{"X-A": "é\udcff"})
        assert await asked(links, "HEAD") == (200, b"")
        assert wire.heads == [
            b"POST /v1/x HTTP/1.1\r\nHost: " + host + b"\r\nX-A: \xc3\xa9\xff\r\nContent-Length: 2\r\n\r\n",
            b"HEAD /v1/x HTTP/1.1\r\nHost: " + host + b"\r\n\r\n",
        ]

    async def answers(writer: asyncio.StreamWriter, head: bytes) -> None:
        writer.write(WHOLE[:-2] if head.startswith(b"HEAD") else WHOLE)

    run(answers, test)


def test_a_sink_that_is_full_holds_the_server_up() -> None:
    sent = 0

    async def answers(writer: asyncio.StreamWriter, head: bytes) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
        for _ in range(1_000):
            writer.write(b"x" * 100_000)
            await writer.drain()
            sent += 1

    async def test(links: Links, wire: Wire) -> None:
        reply: Reply = await links.ask("POST", "/", {}, b"")
        await reply.begun()
        got, size = list[bytes](), len(reply.taken())
        while not reply.is_over:
            reply.pour(lambda part: bool(got.append(part)))  # type: ignore[func-returns-value]
            await reply.stops()
            before = sent
            if len(got) == 20:  # long since full
                await asyncio.sleep(0.2)
                before = sent
                await asyncio.sleep(0.2)
                assert sent == before < 900
        assert size + sum(map(len, got)) + len(reply.taken()) == 100_000_000

    run(answers, test)


def through(answers: Answers, test: Callable[[Door], Awaitable[None]], **options: Any) -> None:
    """Run ``test`` with a gateway before a server that answers so to ``POST``."""

    async def told(writer: asyncio.StreamWriter, head: bytes) -> None:
        await (answers if head.startswith(b"POST /v1/chat") else says(WHOLE))(writer, head)

    async def whole() -> None:
        async with wired(told) as wire:
            behind = Upstream()
            behind.url = f"{wire.url}/v1"
            async with gateway(behind, **options) as door:
                await asyncio.wait_for(test(door), 30)
                await until(lambda: conserved(door))
                assert not door.gateway.relay.silence.replies

    asyncio.run(whole())


def test_an_answer_that_drips_for_ever_is_ended() -> None:
    async def drips(writer: asyncio.StreamWriter, head: bytes) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        while True:
            writer.write(b": ping\n\n")
            await writer.drain()
            await asyncio.sleep(0.02)

    async def test(door: Door) -> None:
        with pytest.raises(aiohttp.ClientError):
            await door.said("hi", stream=True)
        assert door.front.gate.ends.errors == 1

    through(drips, test, answer_s=0.4)


def test_no_answer_of_one_client_reaches_another() -> None:
    """Where a server sends more than the whole of one."""

    async def test(door: Door) -> None:
        assert [await door.said("hi") for _ in range(4)] == [(200, b"hi")] * 4

    through(says(WHOLE + b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nother"), test)


def test_a_link_is_given_back_once() -> None:
    async def test(links: Links, wire: Wire) -> None:
        reply = await links.ask("POST", "/", {}, b"")
        await reply.begun()
        while not reply.is_over:
            await asyncio.sleep(0.01)
        again = await links.ask("POST", "/", {}, b"")
        reply.close()  # late: the connection is another's by now
        await again.begun()
        assert wire.connections == 1
        assert all(isinstance(link, Link) for link in links._idle)

    run(says(WHOLE), test)
