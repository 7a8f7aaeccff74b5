"""An answer on its way to a client: as it comes, in as few writes as there can be, and as fast as the client reads."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import aiohttp
from aiohttp import web

from driftsim.gateway.passing import to_client
from driftsim.gateway.silence import BUSY, Heard

NEVER_WAITS = 1 << 15  # bytes that a socket takes without being drained: asyncio waits beyond 64 KiB


class StalledError(Exception):
    """A client reads nothing."""


class _Joined(web.StreamResponse):
    """An answer whose head goes with the first part of its body; ``write(b"")`` sends it alone."""

    _send_headers_immediately = False  # an older aiohttp sends it at once, and is right as well


class Outlet:
    """Where the parts of an answer that is ``received`` from a server go, to whom sent ``request``.

    A client that reads nothing for ``stall_s`` (s) raises ``StalledError``, one that is gone ``ConnectionError``.
    """

    def __init__(self, request: web.Request, received: aiohttp.ClientResponse, stall_s: float) -> None:
        self._request, self._stall_s = request, stall_s
        self.out = _Joined(status=received.status, reason=received.reason)
        self.out.headers.extend(to_client(received.headers))
        # A stream has no length, since events may be left out.
        if received.content_type != "text/event-stream" and received.content_length is not None:
            self.out.content_length = received.content_length
        self._transport = request.transport
        self._is_begun = False  # whether the head is sent

    async def pour(self, content: aiohttp.StreamReader, heard: Heard, passed: Callable[[bytes], bytes]) -> bytes:
        """Send what comes in as ``content``, each part as ``passed`` returns it, but for the last, which is returned.

        The head goes with the first part, or alone where that is not there yet.
        """
        part = content.read_nowait()
        writer = await self.out.prepare(self._request)
        assert writer is not None
        if not part and not content.at_eof():
            await writer.write(b"")
            self._is_begun = True
        while True:
            part = passed(part) if part else part
            if content.at_eof():
                return part
            if part and not self._wrote(part):
                await self._in_time(writer.write(part))
                self._is_begun = True
            heard.looks = 0
            part = await content.readany()
            heard.looks = BUSY

    def _wrote(self, part: bytes) -> bool:
        """Write ``part`` as a chunk, if it is no more than one and nobody need wait: a third of aiohttp's own way."""
        if not self._is_begun or "Transfer-Encoding" not in self.out.headers or not self._takes(part):
            return False
        assert self._transport is not None
        self._transport.write(b"%x\r\n%b\r\n" % (len(part), part))
        return True

    async def end(self, part: bytes) -> None:
        """Send the last ``part``, and the end."""
        if self._takes(part):
            await self.out.write_eof(part)
        else:
            await self._in_time(self.out.write_eof(part))

    def _takes(self, part: bytes) -> bool:
        """Whether the socket takes ``part`` without anybody waiting."""
        transport = self._transport
        return (
            transport is not None
            and not transport.is_closing()
            and transport.get_write_buffer_size() + len(part) < NEVER_WAITS
        )

    async def _in_time(self, writing: Awaitable[None]) -> None:
        try:
            async with asyncio.timeout(self._stall_s):
                await writing
        except TimeoutError:
            raise StalledError from None

    def cut(self) -> None:
        """Break the connection to a client whose answer cannot be ended: a clean end would look like a whole answer."""
        if self._transport is not None:
            self._transport.abort()
