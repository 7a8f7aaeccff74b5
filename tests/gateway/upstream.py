"""A server for tests of the gateway: it answers as the prompt says, and ends answers when the test says so.

It runs in the process and the loop of the test, on a socket of loopback.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from aiohttp import web

from driftsim.gateway.app import Gateway
from driftsim.gateway.config import GatewayConfig
from driftsim.gateway.front import Front
from driftsim.gateway.serving import started
from driftsim.gateway.watching import Watching

WAIT = aiohttp.ClientTimeout(total=30)  # so that a fault fails and does not hang
ODD = '{"id":"c1","object":"chat.completion.chunk","odd": 1e2 ,"choices":[{"index":0,"delta":{"content":"é\\ud83d"}}]}'


class Upstream:
    """An OpenAI-compatible server. A prompt ``hold NAME ...`` is answered when the test calls ``let(NAME)``."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []  # bodies of requests for answers
        self.bodies: list[bytes] = []
        self.headers: list[Any] = []
        self.others: list[str] = []
        self.open = 0  # answers that are being made
        self.broken = 0  # answers whose client went away
        self.healthy = True
        self.told: dict[str, Any] | None = None  # of the tokens of a prompt
        self.asked = 0  # how many it was asked for
        self.tokens = 3
        self.usage = True
        self.metrics = ""
        self.gates: dict[str, asyncio.Event] = {}
        self.url = ""

    def gate(self, name: str) -> asyncio.Event:
        return self.gates.setdefault(name, asyncio.Event())

    def let(self, name: str) -> None:
        self.gate(name).set()

    async def models(self, request: web.Request) -> web.Response:
        self.headers.append(request.headers)
        return web.json_response({"object": "list", "data": [{"id": "small", "max_model_len": 4096}]})

    async def health(self, request: web.Request) -> web.Response:
        return web.Response(status=200 if self.healthy else 500)

    async def silent(self, request: web.Request) -> web.Response:
        return web.Response(status=404)

    async def tokenize(self, request: web.Request) -> web.Response:
        self.asked += 1
        if self.told is None:
            return web.Response(status=404)
        return web.json_response(self.told)

    async def other(self, request: web.Request) -> web.Response:
        self.others.append(request.raw_path)
        return web.json_response({"path": request.raw_path}, status=418)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.bodies.append(body)
        self.headers.append(request.headers)
        told = json.loads(body)
        self.seen.append(told)
        text = told["messages"][-1]["content"] if "messages" in told else told["prompt"]
        kind, name = [*str(text).split(), "", ""][:2]
        self.open += 1
        try:
            return await self.kinds(kind, name, told, request)
        except (asyncio.CancelledError, ConnectionError):
            self.broken += 1
            raise
        finally:
            self.open -= 1

    async def kinds(self, kind: str, name: str, told: dict[str, Any], request: web.Request) -> web.StreamResponse:
        if kind == "status":
            return web.json_response({"error": {"message": "no"}}, status=int(name))
        if kind == "hold":
            await self.gate(name).wait()
        if kind == "cut":
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        if not told.get("stream"):
            usage = {"prompt_tokens": 5, "completion_tokens": self.tokens, "total_tokens": 5 + self.tokens}
            choice = {"index": 0, "message": {"role": "assistant", "content": "a b"}, "finish_reason": "stop"}
            return web.json_response({"id": "c1", "choices": [choice], "usage": usage, "odd": [1.50]})
        out = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8", "x-odd": "1"})
        await out.prepare(request)
        if kind == "late":  # before the first event
            await self.gate(name).wait()
        for number, event in enumerate(self.events(told)):
            await out.write(event)
            if kind == "hang":  # after the second
                await (self.gate(name).wait() if number else asyncio.sleep(0.05))
            if kind == "slowly":
                await asyncio.sleep(0)
            if kind == "half":
                await out.write(b'data: {"choices": [{"index"')
                assert request.transport is not None
                request.transport.close()
                return out
            if kind == "stop":  # after the first event
                await self.gate(name).wait()
        if kind == "endless":
            while True:
                await out.write(self.chunk("x" * 1000))
        await out.write_eof()
        return out

    def chunk(self, text: str) -> bytes:
        return f'data: {{"choices":[{{"index":0,"delta":{{"content":"{text}"}}}}]}}\n\n'.encode()

    def events(self, told: dict[str, Any]) -> list[bytes]:
        begin = b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n'
        made = [begin, *(self.chunk(f"t{place}") for place in range(self.tokens - 1)), f"data: {ODD}\n\n".encode()]
        made.append(b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n')
        if self.usage and (told.get("stream_options") or {}).get("include_usage"):
            usage = f'{{"prompt_tokens":5,"completion_tokens":{self.tokens},"total_tokens":{5 + self.tokens}}}'
            made.append(f'data: {{{self.metrics}"choices":[],"usage":{usage}}}\n\n'.encode())
        return [*made, b"data: [DONE]\n\n"]

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/v1/models", self.models)
        app.router.add_get("/health", self.health)
        app.router.add_post("/tokenize", self.tokenize)
        for page in ("/metrics", "/version"):
            app.router.add_get(page, self.silent)
        app.router.add_post("/v1/chat/completions", self.answer)
        app.router.add_post("/v1/completions", self.answer)
        app.router.add_route("*", "/{path:.*}", self.other)
        return app


@asynccontextmanager
async def served(upstream: Upstream, port: int = 0) -> AsyncIterator[Upstream]:
    """The server, listening."""
    runner = web.AppRunner(upstream.app(), handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    upstream.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    try:
        yield upstream
    finally:
        for event in upstream.gates.values():
            event.set()
        await runner.cleanup()


class Door:
    """A gateway that listens, and a client of it."""

    def __init__(self, gateway: Gateway, upstream: Upstream, url: str, client: aiohttp.ClientSession) -> None:
        self.gateway, self.upstream, self.url, self.client = gateway, upstream, url, client

    @property
    def front(self) -> Front:
        return self.gateway.front

    def post(self, text: str, key: str = "", path: str = "/v1/chat/completions", **fields: Any) -> Any:
        body = {"model": "small", "messages": [{"role": "user", "content": text}]} | fields
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return self.client.post(self.url + path, json=body, headers=headers)

    async def said(self, text: str, key: str = "", **fields: Any) -> tuple[int, bytes]:
        async with self.post(text, key, **fields) as answer:
            return answer.status, await answer.read()


@asynccontextmanager
async def gateway(upstream: Upstream, clock: Callable[[], float] | None = None, **options: Any) -> AsyncIterator[Door]:
    """A gateway before ``upstream``, with a client."""
    told: dict[str, Any] = {
        "listen": "127.0.0.1:0",
        "upstreams": [upstream.url],
        "record": "",
        "health_s": 0.05,
        "advise_s": 0,
    }
    if "tenants" not in options:
        told["open"] = True
    config = GatewayConfig.of(told | options)
    front = Front(config) if clock is None else Front(config, clock)
    gate = Gateway(config, front, Watching(front))
    runner, url = await started(gate, config.listen)
    try:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=WAIT) as client:
            yield Door(gate, upstream, url, client)
    finally:
        await runner.cleanup()


async def until(true: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait until something is true; a busy machine may take its time."""
    async with asyncio.timeout(seconds):
        while not true():
            await asyncio.sleep(0.002)


def conserved(door: Door) -> bool:
    """Whether everybody who was offered has ended, once, and nothing is left of them."""
    gate = door.front.gate
    return (
        gate.ends.over == gate.ends.offered
        and not gate.waiting
        and not gate.inside
        and not gate.dispatcher.in_flight
        and all(one.replica.requests == 0 for one in door.front.pool.upstreams)
        and sum(gate.depth.values()) == 0
    )
