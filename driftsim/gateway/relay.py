"""The relay takes a request to a server and its answer back, piece by piece, as fast as the slower side goes."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
import time
from typing import NoReturn

import aiohttp
from aiohttp import web

from driftsim.errors import InputError
from driftsim.gateway import events as stream
from driftsim.gateway.asked import Asked, asked
from driftsim.gateway.counting import Counting
from driftsim.gateway.front import Entry, Front, Refused
from driftsim.gateway.links import BrokenError, Links, Reply, Silence, UnreachableError
from driftsim.gateway.outlet import Outlet, StalledError
from driftsim.gateway.passing import to_server
from driftsim.gateway.turns import Turns
from driftsim.gateway.upstreams import Upstream
from driftsim.live.answer import Answer
from driftsim.live.engine import Outcome
from driftsim.trace.schema import LARGEST_COUNT

MOST_READ = 16_000_000  # bytes of an answer in one piece that are looked into
FULL = (429, 503)  # statuses of a server that holds too much by now
ENDS = 4  # answers whose end is seen to in one pass of the loop, about half a millisecond
PRIORITY_UNIT = 1000
LARGEST_PRIORITY = 2**62


class Relay:
    """Carries what clients ask to servers. ``key`` is the servers' own, "" where they ask for none."""

    def __init__(self, front: Front, session: aiohttp.ClientSession, counting: Counting, key: str) -> None:
        self.front, self.session, self.counting, self.key = front, session, counting, key
        self.links = {one: Links(one.root) for one in front.pool.upstreams}
        self.silence = Silence(front.config.silence_s, front.config.answer_s)
        self._ends = Turns(ENDS)
        self._secret = secrets.token_bytes(32)
        self._words = front.gate.dispatcher.admission.accounting == "whitespace"

    async def answer(self, request: web.Request, tenant: str) -> web.StreamResponse:
        """Answer a request for an answer, in its turn. Raises ``Refused``."""
        body = await self._body(request)
        try:
            said = asked(body, request.rel_url.raw_path)
        except InputError as error:
            raise Refused(400, "invalid_body", str(error)) from None
        tokens = await self.counting.tokens(said, self.session, self._own())
        entry = self.front.offer(self.front.tenants[tenant], said, tokens)
        try:
            await self._wait(entry)
            return await self._serve(request, entry, said)
        except asyncio.CancelledError:
            self.front.abort(entry)
            raise
        except Refused as refusal:
            self.front.end(entry, _error(entry, refusal.message))
            raise
        finally:
            if not entry.is_over:  # a mistake of ours costs nobody a slot
                self.front.abort(entry, _error(entry, "the gateway failed"))

    async def through(self, request: web.Request) -> web.StreamResponse:
        """Pass a request through that asks for no answer. Raises ``Refused``."""
        body = await self._body(request) if request.body_exists else None
        self.front.meters.passed.inc()
        upstream = next((one for one in self.front.pool.upstreams if one.state == "up"), None)
        if upstream is None:
            raise Refused(503, "upstream_down", "no server answers; try again soon", self.front.config.health_s)
        try:
            reply = await self._ask(request, upstream, body)
        except (UnreachableError, BrokenError, TimeoutError) as error:
            _broken(error)
        outlet = Outlet(request, reply.head, self.front.config.stall_s)
        try:
            await outlet.end(await outlet.pour(reply, lambda part: part))
        except (BrokenError, OSError, StalledError):
            outlet.cut()
        finally:
            self._done(reply)
        return outlet.out

    def close(self, idle_s: float = 0.0) -> None:
        """Close the connections to servers that carry nothing for ``idle_s`` (s)."""
        for links in self.links.values():
            links.close(idle_s)

    async def _wait(self, entry: Entry) -> None:
        """Until ``entry`` is released. Raises ``Refused`` where that takes too long."""
        await asyncio.sleep(0)  # the front has asked the dispatcher by then
        if entry.released.done():
            return
        try:
            async with asyncio.timeout(entry.ttl_s):
                await entry.released
        except TimeoutError:
            if entry.ticket.state == "waiting":
                self.front.expire(entry)

    async def _serve(self, request: web.Request, entry: Entry, said: Asked) -> web.StreamResponse:
        """Send what was ``said`` to the server of ``entry``, another one where that cannot be reached."""
        body, tried = said.sent(self._priority(entry), self._salt(entry, said)), list[Upstream]()
        while entry.upstream is not None:
            upstream = entry.upstream
            try:
                reply = await self._ask(request, upstream, body)
            except UnreachableError:  # nothing was sent
                upstream.failed()
                tried.append(upstream)
                if not self.front.send_elsewhere(entry, tried):
                    break
                continue
            except (BrokenError, TimeoutError) as error:
                upstream.failed()
                self.front.end(entry, _error(entry, f"the server did not answer ({type(error).__name__})"))
                _broken(error)
            try:
                status = reply.head.status
                if (status < 500 or status in FULL) and upstream.answered():
                    self.front.soon()
                return await self._receive(request, entry, said, reply)
            finally:
                self._done(reply)
        raise Refused(503, "upstream_down", "no server could be reached", self.front.config.health_s)

    async def _receive(self, request: web.Request, entry: Entry, said: Asked, reply: Reply) -> web.StreamResponse:
        """Pass on what the ``reply`` is, and note what became of it."""
        job = entry.ticket.job
        settings = self.front.settings
        longest = LARGEST_COUNT if "max_model_len" in settings.assumed else settings.max_model_len
        released = (entry.ticket.released or 0.0) + self.front.begun
        answer = Answer(job, released, longest)
        events = stream.Events(answer, strip=not said.wants_usage, every=self._words)
        status = reply.head.status
        streams = status == 200 and reply.head.content_type == "text/event-stream"
        outlet = Outlet(request, reply.head, self.front.config.stall_s)
        kept, clock = bytearray(), time.monotonic

        def keep(part: bytes) -> bytes:
            if len(kept) <= MOST_READ:
                kept.extend(part)
            return part

        try:
            last = await outlet.pour(reply, events.feed if streams else keep)
            await self._ends.take()
            ended = self._outcome(status, streams, events, bytes(kept), clock())
            self.front.end(entry, ended)  # at the end of the answer: the client may take its time with the rest
            await outlet.end(last + events.rest())
        except asyncio.CancelledError:
            self.front.abort(entry, stream.broken_off(events, "abort", clock()))
            raise
        except (ConnectionError, StalledError):  # the client's side
            self.front.abort(entry, stream.broken_off(events, "abort", clock()))
            outlet.cut()
        except (BrokenError, TimeoutError) as error:
            why = f"the answer broke off ({type(error).__name__})"
            self.front.end(entry, stream.broken_off(events, "error", clock(), why))
            outlet.cut()
        return outlet.out

    def _outcome(self, status: int, streams: bool, events: stream.Events, body: bytes, now: float) -> Outcome:
        if streams:
            return stream.streamed(events, words=self._words)
        if status == 200:
            return stream.whole(events.answer, body, now)
        return events.answer.failed(f"HTTP {status}", "rejected" if status in FULL else "error")

    async def _ask(self, request: web.Request, upstream: Upstream, body: bytes | None) -> Reply:
        """A reply that has begun; whoever gets it must say when it is done."""
        path, query = request.rel_url.raw_path, request.rel_url.raw_query_string
        own = upstream.path + path.removeprefix("/v1") if path.startswith("/v1/") else path
        headers = to_server(request.headers, self.key)
        reply = await self.links[upstream].ask(request.method, f"{own}?{query}" if query else own, headers, body)
        self.silence.replies.add(reply)
        try:
            await reply.begun()
        except BaseException:
            self._done(reply)
            raise
        return reply

    def _done(self, reply: Reply) -> None:
        self.silence.replies.discard(reply)
        reply.close()

    async def _body(self, request: web.Request) -> bytes:
        """The body of ``request``. Raises ``Refused`` for one that is too large or too slow."""
        most, content = int(self.front.config.max_body_mb * 1e6), request.content
        try:
            parts = bytearray(content.read_nowait())
            if content.at_eof() and len(parts) <= most:  # as nearly always
                return bytes(parts)
            async with asyncio.timeout(self.front.config.body_s):
                while len(parts) <= most:
                    if not (part := await content.readany()):
                        return bytes(parts)
                    parts += part
        except TimeoutError:
            raise Refused(408, "too_slow", "the body did not come in time") from None
        except (aiohttp.ClientError, web.RequestPayloadError):
            raise Refused(400, "invalid_body", "the body is broken") from None
        raise Refused(413, "too_large", f"the body has more than {most} bytes")

    def _priority(self, entry: Entry) -> int | None:
        if not self.front.config.pass_priority:
            return None
        key = self.front.gate.dispatcher.policy.key(entry.ticket.job)  # type: ignore[attr-defined]  # checked at the start
        return int(min(max(key * PRIORITY_UNIT, -LARGEST_PRIORITY), LARGEST_PRIORITY))

    def _salt(self, entry: Entry, said: Asked) -> str:
        """What keeps the tenant's prefixes apart in a server's cache; "" where they are not."""
        if not self.front.config.separate_caches:
            return ""
        own = f"{entry.ticket.job.request.tenant}\n{said.fields.get('cache_salt', '')}"
        return hmac.new(self._secret, own.encode(errors="replace"), hashlib.sha256).hexdigest()

    def _own(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"} if self.key else {}


def _error(entry: Entry, why: str) -> Outcome:
    return Outcome(entry.ticket.job, "error", error=why)


def _broken(error: Exception) -> NoReturn:
    """A server broke off, and its client has heard nothing yet. Raises ``Refused``."""
    if isinstance(error, TimeoutError):
        raise Refused(504, "upstream_timeout", "the server did not answer in time") from None
    raise Refused(502, "upstream_failed", "the server broke the connection") from None
