"""What looks at a gateway from beside it: the page, the alarms, and what other policies would have done."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import sys
from collections.abc import Awaitable, Callable, Coroutine
from importlib.resources import files
from typing import Any

import aiohttp
from aiohttp import web

from driftsim.gateway.alarms import Alarm, Alarms
from driftsim.gateway.front import Entry, Front, Refused
from driftsim.gateway.stats import EVERY_S, End, Stats, is_within
from driftsim.live.engine import Outcome
from driftsim.trace.schema import FINISHED

KINDS = {"index.html": "text/html", "page.css": "text/css", "page.js": "text/javascript"}
PUSH_S = 1.0
ENDS = ("offered", "finished", "refused", "aborted", "errors")
MOST_WATCHERS = 50
ADVICE_S = 900.0  # longest that a look at other policies takes
MOST_ADVICE = 10_000_000  # bytes
FIRST_S = 30.0  # from the start to the first look, or less
NICE = 10  # what it is behind in the machine's order
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Say = Callable[[str], None]


class Watching:
    """Beside ``front``; ``say`` prints a line."""

    def __init__(self, front: Front, say: Say = lambda line: None) -> None:
        self.front, self._say = front, say
        self.stats = Stats()
        self.alarms = Alarms(self._alarmed)
        self.advice: dict[str, Any] | None = None
        self.advice_problem = ""
        self.advised_at = 0.0
        self._step_s: float | None = None  # of the profile before
        self._watchers = 0
        self._made, self._made_at = "", -math.inf
        self._news: list[dict[str, Any]] = []  # alarms that a webhook is to be told
        front.on_end = self._ended

    def pages(self) -> dict[str, Handler]:
        """The pages, by path."""
        return {
            "/ui": self._file("index.html"),
            "/ui/page.css": self._file("page.css"),
            "/ui/page.js": self._file("page.js"),
            "/ui/events": self._events,
            "/ui/state": self._state,
            "/ui/advice": self._advice,
        }

    def works(self, session: aiohttp.ClientSession) -> list[Coroutine[Any, Any, None]]:
        """What runs as long as the gateway does."""
        works = [self._look(session)]
        if self.front.folder is not None and self.front.config.advise_s:
            works.append(self._advise())
        return works

    def latest(self) -> str:
        """``snapshot`` as JSON, made at most once a second however many look."""
        now = self.front.clock()
        if now - self._made_at >= 0.9 * PUSH_S:
            self._made, self._made_at = json.dumps(self.snapshot()), now
        return self._made

    def snapshot(self) -> dict[str, Any]:
        """All that the page shows."""
        front, now = self.front, self.front.now()
        gate, config = front.gate, front.config
        return {
            "now": now,
            "policy": config.policy,
            "estimator": config.estimator,
            "model": front.model,
            "limit": front.limit,
            "state": "draining" if front.draining else "up" if front.pool.is_up else "down",
            "inside": len(gate.inside),
            "waiting": len(gate.waiting),
            "ends": {name: getattr(gate.ends, name) for name in ENDS},
            "tiers": [rule.name for rule in config.rules] or sorted(gate.depth),
            "depth": [[at, depth, inside] for at, depth, inside in self.stats.depths],
            "throughput": self.stats.throughput(now),
            "tenants": self.stats.tenants(now),
            "categories": self.stats.categories(now),
            "dots": self.stats.dots(now),
            "upstreams": [{"number": one.number, "state": one.state, "requests": one.replica.requests}
                          for one in front.pool.upstreams],
            "alarms": [{"kind": one.kind, "text": one.text, "ago": now - one.since} for one in self.alarms],
            "advice": self.advice,
            "advice_problem": self.advice_problem,
            "advice_ago": now - self.advised_at if self.advice or self.advice_problem else None,
        }  # fmt: skip

    def advised(self, document: dict[str, Any]) -> None:
        """A look at other policies found this."""
        now = self.front.now()
        self.advice, self.advice_problem, self.advised_at = document, "", now
        step = document.get("profile", {}).get("step_s")
        if isinstance(step, float) and step > 0:
            self.alarms.steps(self._step_s, step, now)
            if not any(alarm.kind == "step_time" for alarm in self.alarms):
                self._step_s = step

    async def _look(self, session: aiohttp.ClientSession) -> None:
        """Note the queue's depth, and look for alarms, from time to time."""
        levels = tuple(getattr(self.front.estimator, "levels", ()))
        turn = 0
        while True:
            await asyncio.sleep(EVERY_S)
            now, turn = self.front.now(), turn + 1
            self.stats.sample(now, self.front.gate.depth, len(self.front.gate.inside))
            if turn % 5 == 0:
                self.alarms.estimates(self.stats.categories(now), levels, now)
                self.alarms.record(self.front.recorder.problems, now)
            if self._news and self.front.config.webhook:
                await self._call(session)

    async def _call(self, session: aiohttp.ClientSession) -> None:
        """Tell the webhook of alarms; what it does with them is its own matter."""
        news, self._news = self._news, []
        with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):
            async with (
                asyncio.timeout(5.0),
                session.post(self.front.config.webhook, json={"alarms": news}, allow_redirects=False),
            ):
                pass

    async def _advise(self) -> None:
        """Look at other policies from time to time, in a process of its own."""
        every = self.front.config.advise_s
        await asyncio.sleep(min(FIRST_S, every))
        while True:
            await self._advise_once()
            await asyncio.sleep(every)

    async def _advise_once(self) -> None:
        folder, config = self.front.folder, self.front.config
        command = [
            sys.executable, "-m", "driftsim.cli", "advise", str(folder), "--json", "--jobs", "1",
            "--last", str(config.window_s), "--save-profile", f"{folder}/profile.json",
        ]  # fmt: skip
        environment = {name: value for name, value in os.environ.items() if name != "OPENAI_API_KEY"}
        process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, stdin=asyncio.subprocess.DEVNULL,
            preexec_fn=lambda: os.nice(NICE), env=environment, limit=MOST_ADVICE,
        )  # fmt: skip
        try:
            async with asyncio.timeout(ADVICE_S):
                told, problem = await process.communicate()
        except TimeoutError:
            self.advice_problem = f"it took more than {ADVICE_S:g} s"
        else:
            self._read_advice(process.returncode, told, problem)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        self.advised_at = self.front.now()

    def _read_advice(self, code: int | None, told: bytes, problem: bytes) -> None:
        if code == 0:
            with contextlib.suppress(ValueError):
                self.advised(json.loads(told))
                return
        lines = problem.decode(errors="replace").strip().splitlines() or ["no reason given"]
        self.advice_problem = lines[-1].removeprefix("driftsim: ")[:500]

    def _ended(self, entry: Entry, outcome: Outcome, now: float) -> None:
        """A request has ended."""
        job, front = outcome.job, self.front
        request = job.request
        first = None if outcome.first_token is None else outcome.first_token - front.begun - entry.ticket.arrived
        e2e, tokens, reason = now - entry.ticket.arrived, outcome.output_tokens or 0, outcome.finish_reason
        length = None
        if reason in FINISHED and outcome.output_tokens is not None:
            length = front.gate.measured(tokens, outcome.output_words)
        rule = front.tenants.get(request.tenant)
        within = None if rule is None else is_within(rule, reason, first, e2e, tokens)
        self.stats.note(End(
            now, request.tenant, str(request.tier), job.predicted_category, reason, first, e2e, tokens, job.estimate,
            job.bias, length, job.quantiles, within,
        ))  # fmt: skip

    def _alarmed(self, alarm: Alarm, raised: bool) -> None:
        if raised:
            self.front.meters.alarms.labels(alarm.kind).inc()
        self._say(f"alarm {'raised' if raised else 'cleared'}: {alarm.text}")
        if len(self._news) < 100:
            self._news.append({"kind": alarm.kind, "subject": alarm.subject, "text": alarm.text, "raised": raised})

    def _file(self, name: str) -> Handler:
        content = (files("driftsim.gateway") / "page" / name).read_bytes()

        async def page(request: web.Request) -> web.StreamResponse:
            return web.Response(body=content, content_type=KINDS[name], charset="utf-8", headers=HEADERS)

        return page

    async def _state(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(text=self.latest(), headers=HEADERS)

    async def _advice(self, request: web.Request) -> web.StreamResponse:
        if self.advice is None:
            raise Refused(404, "no_advice", "no look at other policies has succeeded yet")
        return web.json_response(self.advice, headers=HEADERS)

    async def _events(self, request: web.Request) -> web.StreamResponse:
        """The state, again and again, as server-sent events."""
        if self._watchers >= MOST_WATCHERS:
            raise Refused(503, "too_many_watchers", f"{MOST_WATCHERS} pages are open", 10.0)
        self._watchers += 1
        out = web.StreamResponse(headers={**HEADERS, "Content-Type": "text/event-stream"})
        try:
            await out.prepare(request)
            while not self.front.draining:
                await out.write(f"data: {self.latest()}\n\n".encode())
                await asyncio.sleep(PUSH_S)
        except ConnectionError:
            pass
        finally:
            self._watchers -= 1
        return out
