"""The gateway as a web application: its pages, who may see them, and how a refusal is told."""

from __future__ import annotations

import asyncio
import json
import math
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.parse import unquote_plus

import aiohttp
from aiohttp import web

from driftsim.errors import InputError
from driftsim.gateway.access import Access
from driftsim.gateway.asked import CHAT, PLAIN
from driftsim.gateway.config import GatewayConfig
from driftsim.gateway.counting import Counting
from driftsim.gateway.describing import describe
from driftsim.gateway.front import Front, Refused
from driftsim.gateway.keys import presented
from driftsim.gateway.links import IDLE_S
from driftsim.gateway.passing import METHODS, is_for_tenants, is_passed
from driftsim.gateway.relay import Relay

if TYPE_CHECKING:
    from driftsim.gateway.watching import Watching

KEY = "OPENAI_API_KEY"  # environment variable; never logged, never stored
LONGEST_OF_CLIENTS, MOST_OF_CLIENTS = 16_384, 100  # bytes of a line of a client's head, and how many lines
TICK_S = 1.0
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Gateway:
    """Everything of one gateway that lives as long as it does."""

    def __init__(self, config: GatewayConfig, front: Front | None = None, watching: Watching | None = None) -> None:
        self.front = Front(config) if front is None else front
        self.access = Access(config)
        self.key = server_key()
        self.watching = watching
        self.relay: Relay
        self._tasks: list[asyncio.Task[None]] = []

    def app(self) -> web.Application:
        """The application; whoever runs it must let handlers be cancelled when their clients vanish."""
        app = web.Application(middlewares=[_told], client_max_size=0)
        app.cleanup_ctx.append(self._alive)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._operator(self._metrics))
        if self.watching is not None:
            for path, page in self.watching.pages().items():
                app.router.add_get(path, self._operator(page))
        for path in (CHAT, PLAIN):  # found at once, before the pattern
            app.router.add_post(path, self._any)
        app.router.add_route("*", "/{path:.*}", self._any)
        return app

    async def _alive(self, app: web.Application) -> AsyncIterator[None]:
        """What runs beside the requests, from the start to the end."""
        config = self.front.config
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=IDLE_S)
        async with aiohttp.ClientSession(
            connector=connector, auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar()
        ) as session:
            counting = Counting(config.tokenizer, f"{self.front.pool.upstreams[0].root}/tokenize")
            self.relay = Relay(self.front, session, counting, self.key)
            await describe(self.front, session, self.key)
            loop = asyncio.get_running_loop()
            works = [self.front.pool.watch(session, config.health_s), self.relay.silence.watch(), self._tick(session)]
            if self.watching is not None:
                works += self.watching.works(session)
            self._tasks = [loop.create_task(work) for work in works]
            yield
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            self.relay.close()
            await self.front.recorder.close()

    async def _tick(self, session: aiohttp.ClientSession) -> None:
        """What is looked at from time to time: a full trace, and a server of which nothing is known yet."""
        while True:
            await asyncio.sleep(min(TICK_S, self.front.config.rotate_s / 2))
            self.front.recorder.rotate(self.front.now())
            self.relay.close(IDLE_S)
            if self.front.model == "unknown" and self.front.pool.is_up:
                await describe(self.front, session, self.key)

    async def _any(self, request: web.Request) -> web.StreamResponse:
        """Every other path: an answer in its turn, or what is passed through."""
        tenant = self.access.tenant(request.headers)
        if (key := presented(request.headers)) and key in unquote_plus(request.rel_url.raw_query_string):
            raise Refused(400, "key_in_query", "the query holds the key; send it as a bearer alone")
        path = request.rel_url.raw_path
        if path in (CHAT, PLAIN) and request.method == "POST":
            return await self.relay.answer(request, tenant)
        also = self.front.config.also_pass
        if not is_passed(path, also):
            raise Refused(404, "not_passed", "this path is not passed through")
        if request.method not in METHODS:
            raise Refused(405, "not_passed", "this method is not passed through")
        if not (self.front.config.open or is_for_tenants(request.method, path, also)):
            raise Refused(404, "not_passed", "this path is not passed through for tenants; also_pass may name it")
        if self.front.draining:
            raise Refused(503, "draining", "the gateway is shutting down", TICK_S)
        return await self.relay.through(request)

    async def _healthz(self, request: web.Request) -> web.StreamResponse:
        return web.Response(text="ok\n")

    async def _readyz(self, request: web.Request) -> web.StreamResponse:
        """Whether newcomers are served."""
        why = "draining" if self.front.draining else "" if self.front.pool.is_up else "no server answers"
        return web.Response(text=f"{why or 'ready'}\n", status=503 if why else 200)

    async def _metrics(self, request: web.Request) -> web.StreamResponse:
        front, meters = self.front, self.front.meters
        for tier in {*front.gate.depth, *(rule.name for rule in front.config.rules)}:
            meters.waiting.labels(tier).set(front.gate.depth[tier])
        meters.in_flight.set(len(front.gate.inside))
        for one in front.pool.upstreams:
            meters.up.labels(str(one.number)).set({"up": 1.0, "trial": 0.5, "down": 0.0}[one.state])
        meters.unrecorded.set(len(front.recorder.problems))
        return web.Response(body=meters.page(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    def _operator(self, page: Handler) -> Handler:
        async def checked(request: web.Request) -> web.StreamResponse:
            self.access.check_operator(request.headers)
            return await page(request)

        return checked

    def reload(self, config: GatewayConfig) -> None:
        """Go by the tenants and keys of ``config``; nobody is dropped."""
        self.front.reload(config)
        self.access.reload(self.front.config)

    async def drain(self) -> bool:
        """Let nobody in any more, and wait for those who are; whether all came to their end in time."""
        front = self.front
        front.draining = True
        with suppress(TimeoutError):
            async with asyncio.timeout(front.config.drain_s):
                while front.gate.waiting or front.gate.inside:
                    await asyncio.sleep(0.02)
        return not (front.gate.waiting or front.gate.inside)


def server_key() -> str:
    """The servers' key, of the environment. Raises ``InputError`` for what no header can carry."""
    key = os.environ.get(KEY, "").strip()
    if not all("!" <= sign <= "~" for sign in key):
        raise InputError(f"{KEY} holds a blank or a character that no key has; give the key alone")
    return key


@web.middleware
async def _told(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Tell a refusal as OpenAI's clients read it."""
    try:
        return await handler(request)
    except Refused as refusal:
        return refused(refusal)
    except web.HTTPException as error:  # aiohttp's own, such as a method that a page does not have
        return refused(Refused(error.status, "http", error.reason))


def refused(refusal: Refused) -> web.Response:
    """The answer that says so."""
    kinds = {401: "authentication_error", 429: "rate_limit_error"}
    kind = kinds.get(refusal.status, "server_error" if refusal.status >= 500 else "invalid_request_error")
    body = {"error": {"message": refusal.message, "type": kind, "param": None, "code": refusal.code}}
    answer = web.Response(
        text=json.dumps(body), status=refusal.status, content_type="application/json", charset="utf-8"
    )
    if refusal.retry_s is not None:
        answer.headers["Retry-After"] = str(math.ceil(refusal.retry_s))
        answer.headers["retry-after-ms"] = str(math.ceil(1000 * refusal.retry_s))
    if refusal.retry_s is not None or refusal.status == 504:  # where the server was too slow, it would be again
        answer.headers["x-should-retry"] = "true" if refusal.retry_s is not None else "false"
    if refusal.status == 401:
        answer.headers["WWW-Authenticate"] = (
            'Bearer, Basic realm="driftsim"' if refusal.code == "operator_only" else "Bearer"
        )
    if refusal.status in (408, 413):
        answer.force_close()
    return answer
