"""An answer on its way to a client: each part as it comes, in one write, and as fast as the client reads."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from aiohttp import web

from driftsim.gateway.framing import Head
from driftsim.gateway.links import Reply
from driftsim.gateway.passing import to_client

FULL = 1 << 16  # bytes that wait for a client, beyond which its answer waits as well: asyncio's own limit


class StalledError(Exception):
    """A client reads nothing."""


class _Joined(web.StreamResponse):
    """An answer whose head goes with the first part of its body; ``write(b"")`` sends it alone."""

    _send_headers_immediately = False  # an older aiohttp sends it at once, and is right as well


class Outlet:
    """Where the parts of an answer with that ``head`` go, to whom sent ``request``.

    A client that reads nothing for ``stall_s`` (s) raises ``StalledError``, one that is gone ``ConnectionError``.
    """

    def __init__(self, request: web.Request, head: Head, stall_s: float) -> None:
        self._request, self._stall_s = request, stall_s
        self.out = _Joined(status=head.status, reason=head.reason)
        self.out.headers.extend(to_client(head.headers))
        # A stream has no length, since events may be left out.
        if head.content_type != "text/event-stream" and head.content_length is not None:
            self.out.content_length = head.content_length
        self._transport = request.transport
        self._reply: Reply
        self._passed: Callable[[bytes], bytes]
        self._last = b""
        self._is_chunked = False

    async def pour(self, reply: Reply, passed: Callable[[bytes], bytes]) -> bytes:
        """Send what comes of ``reply``, each part as ``passed`` returns it; returns what is to be sent with the end.

        The head goes with the first part, or alone where that is not there yet. A client knows the end of an answer in
        chunks by its last chunk, of another one by its last byte: that is left to ``end``, before which much is done.
        """
        part = reply.taken()
        writer = await self.out.prepare(self._request)
        assert writer is not None
        part = passed(part) if part else part
        if reply.is_over:
            return part
        await self._in_time(writer.write(part), len(part))
        self._reply, self._passed, self._is_chunked = reply, passed, "Transfer-Encoding" in self.out.headers
        reply.pour(self._takes)
        await reply.stops()
        while not reply.is_over:
            await self._in_time(writer.drain())
            reply.pour(self._takes)
            await reply.stops()
        return self._last

    def _takes(self, part: bytes) -> bool:
        """Write ``part`` at once, in a third of the time that aiohttp takes; whether there is room for more."""
        part, transport = self._passed(part), self._transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client is gone")
        if self._reply.is_over and not self._is_chunked:
            self._last = part
        elif part:
            transport.write(b"%x\r\n%b\r\n" % (len(part), part) if self._is_chunked else part)
        return transport.get_write_buffer_size() <= FULL

    async def end(self, part: bytes) -> None:
        """Send the last ``part``, and the end."""
        waiting = 0 if self._transport is None else self._transport.get_write_buffer_size()
        await self._in_time(self.out.write_eof(part), waiting + len(part))

    async def _in_time(self, writing: Awaitable[None], size: int = FULL) -> None:
        """Let ``writing`` take its time, but not too long; of a small ``size`` (bytes) it takes none."""
        if size < FULL // 2:
            await writing
            return
        try:
            async with asyncio.timeout(self._stall_s):
                await writing
        except TimeoutError:
            raise StalledError from None

    def cut(self) -> None:
        """Break the connection to a client whose answer cannot be ended: a clean end would look like a whole answer."""
        if self._transport is not None:
            self._transport.abort()
