"""The processes around a gateway that is measured: a server, a bare pass-through, and a client that times tokens."""

from __future__ import annotations

import asyncio
import json
import math
import socket
import time
from collections.abc import Callable
from typing import Any


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def reach(port: int) -> None:
    """Wait until somebody listens on ``port``."""
    end = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


class Server(asyncio.Protocol):
    """As little of a server as there can be: it answers with ``tokens`` events, ``every`` so many seconds."""

    def __init__(self) -> None:
        self.buffer = b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, end, body = self.buffer.partition(b"\r\n\r\n")
        length = next(
            (int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0
        )
        if not end or len(body) < length:
            return
        self.buffer = b""
        if b"chat/completions" not in head:
            page = b'{"data": [{"id": "fast", "max_model_len": 100000}]}' if b"/models" in head else b"{}"
            self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(page) + page)
            return
        told = json.loads(body)
        self.transport.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        loop = asyncio.get_running_loop()
        self.tokens, self.every = int(told["tokens"]), float(told["every"])
        if self.every:
            begin = loop.time() + float(told["first"])
            if told.get("together"):  # every stream at the same moments, as the steps of one engine are
                begin = math.ceil(begin / self.every) * self.every
            loop.call_at(begin, self.token, begin, 0)
        else:
            for number in range(self.tokens):
                self.event(number)
            self.end()

    def token(self, begin: float, number: int) -> None:
        """Send one, and have the next one sent."""
        self.event(number)
        if number + 1 < self.tokens:
            at = begin + (number + 1) * self.every
            asyncio.get_running_loop().call_at(at, self.token, begin, number + 1)
        else:
            self.end()

    def event(self, number: int) -> None:
        """One event, with the moment at which it is sent."""
        text = b'data: {"choices":[{"index":0,"delta":{"content":"%d"}}]}\n\n' % time.monotonic_ns()
        self.transport.write(b"%x\r\n%b\r\n" % (len(text), text))

    def end(self) -> None:
        """The events that end an answer."""
        text = (
            b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
            b'data: {"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":%d}}\n\ndata: [DONE]\n\n' % self.tokens
        )
        self.transport.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(text), text))


async def serve(port: int) -> None:
    """Run the server."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Server, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


async def bare(port: int, behind: int) -> None:
    """Run a pass-through that does nothing else, by aiohttp as the gateway."""
    import aiohttp
    from aiohttp import web

    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as session:

        async def passed(request: web.Request) -> web.StreamResponse:
            body = await request.read()
            async with session.post(f"http://127.0.0.1:{behind}{request.path}", data=body) as received:
                out = web.StreamResponse(status=received.status, headers={"Content-Type": received.content_type})
                await out.prepare(request)
                async for part in received.content.iter_any():
                    await out.write(part)
                await out.write_eof()
                return out

        app = web.Application()
        app.router.add_post("/{path:.*}", passed)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port, backlog=4096).start()
        await asyncio.sleep(3_600)


class Client(asyncio.Protocol):
    """Sends a request and reads its answer; ``late`` are the times (s) that its tokens took."""

    def __init__(self, body: bytes, again: Callable[[], bool] = lambda: False) -> None:
        self.sent = (
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        )
        self.again = again
        self.late: list[float] = []
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.left = b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.write(self.sent)

    def data_received(self, data: bytes) -> None:
        now = time.monotonic_ns()
        whole = self.left + data
        parts = whole.split(b'"content":"')
        for part in parts[1:]:
            text, end, _ = part.partition(b'"')
            if end:
                self.late.append((now - int(text)) / 1e9)
        self.left = b'"content":"' + parts[-1] if len(parts) > 1 and b'"' not in parts[-1] else parts[-1][-200:]
        if len(parts) > 1 and b'"' in parts[-1]:
            self.left = parts[-1].partition(b'"')[2][-200:]
        if self.left.endswith(b"0\r\n\r\n"):
            self.left = b""
            if self.again():
                self.transport.write(self.sent)
            else:
                self.transport.close()
                self.over.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.over.done():
            self.over.set_exception(error or ConnectionError("the answer broke off"))


def body_of(**told: Any) -> bytes:
    return json.dumps(
        {"model": "fast", "stream": True, "messages": [{"role": "user", "content": "Why?"}], **told}
    ).encode()
