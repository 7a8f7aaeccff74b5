"""Connections to servers: a request goes out whole, and its answer is handed on in the moment in which it comes in.

aiohttp's own client hands each chunk of an answer through five calls and a task; a stream of tokens is nothing else.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping
from typing import cast
from urllib.parse import urlsplit

from driftsim.gateway.framing import Answer, FramingError, Head

IDLE_S = 2.0  # that a connection to a server is kept: less than the 5 s of uvicorn, or one may close as it is used
CONNECT_S = 10.0
LOOKS = 8  # at a server that sends nothing, until it counts as silent
BUSY = -(1 << 62)
Sink = Callable[[bytes], bool]


class UnreachableError(Exception):
    """No connection to a server could be had: nothing was sent."""


class BrokenError(Exception):
    """A server broke off, or sent what is no HTTP."""


class Reply:
    """The answer to one request. ``looks`` at it since the server last sent something, ``BUSY`` while it may not."""

    __slots__ = ("_answer", "_error", "_got", "_link", "_sink", "_waiter", "age", "is_full", "looks")

    def __init__(self, link: Link, method: str) -> None:
        self._link, self._answer = link, Answer(method)
        self._got = b""  # nobody took it yet
        self._sink: Sink | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._error: Exception | None = None
        self.is_full = False
        self.looks = self.age = 0

    @property
    def head(self) -> Head:
        """The head, once the answer has begun."""
        assert self._answer.head is not None
        return self._answer.head

    @property
    def is_over(self) -> bool:
        """Whether the whole body was received."""
        return self._answer.is_over

    async def begun(self) -> None:
        """Wait for the head. Raises ``BrokenError`` or ``TimeoutError``."""
        while self._answer.head is None:
            await self._woken()

    async def stops(self) -> None:
        """Wait until the body is over, or the sink is full. Raises ``BrokenError``, ``TimeoutError`` or the sink's."""
        while not self.is_full and not self.is_over:
            await self._woken()

    def taken(self) -> bytes:
        """What was received of the body and went into no sink."""
        got, self._got = self._got, b""
        return got

    def pour(self, sink: Sink) -> None:
        """Hand what comes on to ``sink`` at once, while it returns that it takes more."""
        self._sink, self.is_full, self.looks = sink, False, 0
        got = self.taken()
        if got and not sink(got):
            self._fills()
        elif not self.is_over:
            self._link.transport.resume_reading()

    def close(self) -> None:
        """Nobody reads on: the connection is of no use unless the answer is over."""
        self._sink = None  # whose owner holds this reply: a circle, which nobody collects while streams run
        self._link.ends(self)
        self._answer.close()

    def received(self, data: bytes) -> None:
        """The server sent ``data``."""
        self.looks = 0
        try:
            answer = self._answer
            had_begun, part = answer.head is not None, answer.feed(data)
            if answer.is_over:
                self._link.is_over(self, answer.beyond)
            if answer.is_over or not had_begun:
                self._wake()
            if self._sink is None:
                self._got += part
            elif part and not self._sink(part):
                self._fills()
        except FramingError as error:
            self.fails(BrokenError(str(error)))
        except Exception as error:  # the sink's own
            self.fails(error)

    def lost(self, error: Exception | None) -> None:
        """The connection is gone."""
        try:
            if error is not None:
                raise FramingError("the server broke the connection")
            self._answer.end()
        except FramingError as broken:
            self.fails(BrokenError(str(broken)))
        else:
            self._wake()

    def fails(self, error: Exception) -> None:
        """It will never be whole."""
        self._error = self._error or error
        self.is_full = False
        self._link.ends(self)
        self._wake()

    def _fills(self) -> None:
        if self.is_over:  # and the connection may be another's
            return
        self.is_full, self.looks = True, BUSY
        self._link.transport.pause_reading()
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _woken(self) -> None:
        if self._error is not None:
            raise self._error
        self._waiter = asyncio.get_running_loop().create_future()
        await self._waiter
        if self._error is not None:
            raise self._error


class Link(asyncio.Protocol):
    """One connection, for one request after another."""

    def __init__(self, links: Links) -> None:
        self._links = links
        self._reply: Reply | None = None
        self.transport: asyncio.Transport
        self.idle_since = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See ``asyncio.Protocol``."""
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """See ``asyncio.Protocol``."""
        if self._reply is None:  # nobody asked
            self.transport.abort()
        else:
            self._reply.received(data)

    def connection_lost(self, error: Exception | None) -> None:
        """See ``asyncio.Protocol``."""
        reply, self._reply = self._reply, None
        if reply is not None:
            reply.lost(error)

    def asks(self, method: str, data: bytes) -> Reply:
        """Send ``data``, a request of that ``method``."""
        self._reply = Reply(self, method)
        self.transport.write(data)
        return self._reply

    def is_over(self, reply: Reply, beyond: bool) -> None:
        """The whole of ``reply`` was received, and something ``beyond`` its end or not."""
        self._reply = None
        if reply.head.keeps and not beyond and not self.transport.get_write_buffer_size():
            self._links.keeps(self)
        else:
            self.transport.abort()

    def ends(self, reply: Reply) -> None:
        """Nobody waits for ``reply`` any more."""
        if self._reply is reply:
            self._reply = None
            self.transport.abort()


class Links:
    """Connections to the server at ``root``, such as http://localhost:8000."""

    def __init__(self, root: str) -> None:
        parts = urlsplit(root)
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._address = parts.hostname or "", parts.port or (443 if self._tls else 80)
        self._host = parts.netloc
        self._idle: list[Link] = []  # who was used last is last

    async def ask(self, method: str, target: str, headers: Mapping[str, str], body: bytes | None) -> Reply:
        """Send a request; its reply has not begun. Raises ``UnreachableError``."""
        data = _written(method, target, self._host, headers, body)
        link = self._kept() or await self._connected()
        return link.asks(method, data)

    def keeps(self, link: Link) -> None:
        """``link`` may carry another request."""
        link.idle_since = asyncio.get_running_loop().time()
        self._idle.append(link)

    def close(self, idle_s: float = 0.0) -> None:
        """Close the connections that carry nothing for ``idle_s`` (s)."""
        late = asyncio.get_running_loop().time() - idle_s
        for link in self._idle:
            if link.idle_since <= late:
                link.transport.close()
        self._idle = [link for link in self._idle if link.idle_since > late]

    def _kept(self) -> Link | None:
        soon = asyncio.get_running_loop().time() - IDLE_S
        while self._idle:
            link = self._idle.pop()
            if not link.transport.is_closing() and link.idle_since > soon:
                return link
            link.transport.close()
        return None

    async def _connected(self) -> Link:
        loop, (host, port) = asyncio.get_running_loop(), self._address
        try:
            async with asyncio.timeout(CONNECT_S):
                _, link = await loop.create_connection(lambda: Link(self), host, port, ssl=self._tls)
        except OSError as error:
            raise UnreachableError(type(error).__name__) from None
        return link


class Silence:
    """Ends a reply of which nothing comes for ``longest_s`` (s), or up to an eighth more, or that takes ``whole_s``."""

    def __init__(self, longest_s: float, whole_s: float) -> None:
        self._every_s = min(longest_s, whole_s) / LOOKS
        self._looks, self._age = longest_s / self._every_s, whole_s / self._every_s
        self.replies: set[Reply] = set()

    async def watch(self) -> None:
        """Look at all replies from time to time, for ever."""
        while True:
            await asyncio.sleep(self._every_s)
            for reply in list(self.replies):
                reply.looks += 1
                reply.age += 1
                if reply.looks > self._looks:
                    reply.fails(TimeoutError("the server fell silent"))
                elif reply.age > self._age:
                    reply.fails(TimeoutError("the answer takes too long"))


def _written(method: str, target: str, host: str, headers: Mapping[str, str], body: bytes | None) -> bytes:
    """A request on the wire. Raises ``ValueError`` for a header that would be two."""
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}", *(f"{name}: {value}" for name, value in headers.items())]
    if body or method not in ("GET", "HEAD", "OPTIONS"):
        lines.append(f"Content-Length: {len(body or b'')}")
    text = "\r\n".join(lines)
    if text.count("\n") >= len(lines) or text.count("\r") >= len(lines) or "\0" in text or " " in target:
        raise ValueError("a header holds the end of a line")
    return text.encode("utf-8", "surrogateescape") + b"\r\n\r\n" + (body or b"")
