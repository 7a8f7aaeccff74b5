"""The front: gate, servers and record in one place, in the gateway's own time. Sockets are the relay's."""

from __future__ import annotations

import asyncio
import itertools
import math
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from driftsim.gateway.asked import Asked
from driftsim.gateway.config import ANYBODY, GatewayConfig, TenantRule
from driftsim.gateway.gate import Gate, Ticket
from driftsim.gateway.heading import heading
from driftsim.gateway.learning import learn_anew
from driftsim.gateway.meters import Meters
from driftsim.gateway.recording import Recorder, Slot
from driftsim.gateway.upstreams import Pool, Upstream
from driftsim.live.engine import Outcome
from driftsim.request import Request
from driftsim.scheduling.around import plain_service
from driftsim.scheduling.classify import predict_category, strip_label
from driftsim.scheduling.dispatcher import Dispatcher
from driftsim.scheduling.estimators import make_estimator
from driftsim.scheduling.policies import STOCK
from driftsim.scheduling.routing import make_router
from driftsim.trace.header import Header
from driftsim.trace.schema import FINISHED
from driftsim.trace.settings import EngineSettings

SLOTS = 256  # of a server that does not tell, as vLLM has by default
SOONEST_S, LATEST_S = 1.0, 3600.0  # of what Retry-After says
Clock = Callable[[], float]


class Refused(Exception):  # noqa: N818  # it is told to a client, and no mistake of ours
    """A request was turned away. ``code`` is one of a few words of ours; ``retry_s`` says when to come again."""

    def __init__(self, status: int, code: str, message: str, retry_s: float | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.retry_s = status, code, message, retry_s


@dataclass(slots=True, eq=False)
class Entry:
    """One request between its arrival and its end."""

    ticket: Ticket
    released: asyncio.Future[None] = field(repr=False)
    ttl_s: float
    slot: Slot | None
    upstream: Upstream | None = None
    seconds: float = 0.0

    @property
    def is_over(self) -> bool:
        """Whether its end was noted."""
        return self.ticket.state == "over"


class Front:
    """What decides, and what remembers. ``clock`` is monotonic (s); every time that it hands on counts from its start.

    ``on_end`` hears of each entry and how it came out; ``on_refusal`` of each that was turned away.
    """

    def __init__(self, config: GatewayConfig, clock: Clock = time.monotonic) -> None:
        self.config = config
        self.clock = clock
        self.begun = clock()
        self.tenants = {tenant.name: tenant for tenant in config.tenants} or {ANYBODY: TenantRule(name=ANYBODY)}
        self.settings = EngineSettings.guessed({}, "openai")
        self.model = "unknown"
        self._tiers = {name: config.tier_of(tenant) for name, tenant in self.tenants.items()}
        self.meters = Meters(self.tenants)
        self.pool = Pool(config.upstreams, make_router(config.router), self.soon)
        admission = config.admission.with_safety(config.rules)
        self.estimator = make_estimator(config.estimator, admission, {})
        self.folder = Path(config.record) if config.record else None
        self.learned = learn_anew(self.estimator, admission, self.folder) if self.folder else 0
        limits = {rule.name: rule.max_in_flight for rule in config.rules if rule.max_in_flight is not None}
        dispatcher = Dispatcher(
            config.made_policy(), self.estimator, admission, self.limit, {} if config.policy == STOCK else limits,
            config.shed,
        )  # fmt: skip
        self.gate = Gate(dispatcher, self.pool.room)
        self.recorder = Recorder(
            self.folder, self.heading, rotate_s=config.rotate_s, rotate_bytes=config.rotate_mb * 1e6
        )
        self.on_end: Callable[[Entry, Outcome, float], None] = lambda entry, outcome, now: None
        self.draining = False
        self._made = f"{secrets.token_hex(3)}-"
        self._numbers = itertools.count()
        self._pumping = False
        self._entries: dict[int, Entry] = {}  # id(ticket) -> entry, of those that wait

    def now(self) -> float:
        """Seconds since the gateway began."""
        return self.clock() - self.begun

    @property
    def limit(self) -> int | None:
        """Requests that may be inside the servers, all together."""
        if self.config.policy == STOCK:
            return None
        known = "max_num_seqs" not in self.settings.assumed
        slots = self.settings.max_num_seqs if known else SLOTS
        return self.config.max_in_flight or slots * len(self.config.upstreams)

    def described(self, settings: EngineSettings, model: str) -> None:
        """A server told its ``settings`` and its ``model``: they hold from the next trace on, and for the limit."""
        self.settings, self.model = settings, model
        self.gate.dispatcher.max_in_flight = self.limit

    def offer(self, tenant: TenantRule, said: Asked, tokens: int) -> Entry:
        """Let a request in, of so many prompt ``tokens``. Raises ``Refused``."""
        if self.draining:
            self._turn_away("draining", "the gateway is shutting down", SOONEST_S)
        if not self.pool.is_up:
            self._turn_away("upstream_down", "no server answers; try again soon", self.config.health_s + SOONEST_S)
        now, admission = self.now(), self.gate.dispatcher.admission
        request = Request(
            id=f"{self._made}{next(self._numbers)}", tenant=tenant.name, tier=self._tiers[tenant.name], category="",
            arrival=now, prompt_tokens=max(1, tokens), prompt_words=said.words,
            max_tokens=self._most(said, tokens),
        )  # fmt: skip
        plain, labelled = strip_label(said.text), predict_category(said.text)
        predicted = labelled, labelled if plain == said.text else predict_category(plain)
        category = admission.category_seen(predicted[admission.label != "seen"])
        future = asyncio.get_running_loop().create_future()
        ticket, refusal = self.gate.offer(request, category, now, self._released)
        guesses = {"predicted_category": predicted[0], "predicted_category_unlabelled": predicted[1]}
        slot = self.recorder.arrived(ticket.job, guesses, now, self.clock())
        entry = Entry(ticket, future, tenant.ttl_s or self.config.ttl_s, slot)
        if refusal is not None:
            self._refuse(entry, 429, "queue_full", refusal.why)
        self.meters.admitted(ticket.job)
        self._entries[id(ticket)] = entry
        self.soon()
        return entry

    def expire(self, entry: Entry) -> None:
        """``entry`` has waited as long as it may. Raises ``Refused``."""
        del self._entries[id(entry.ticket)]
        self.gate.withdraw(entry.ticket, "rejected", self.now())
        self._refuse(entry, 429, "waited_too_long", f"waited {entry.ttl_s:g} s, as long as a request may")

    def abort(self, entry: Entry, outcome: Outcome | None = None) -> None:
        """The client of ``entry`` is gone; with the ``outcome`` so far if it was inside. Nothing, if it is over."""
        now = self.now()
        if entry.ticket.state == "waiting":
            del self._entries[id(entry.ticket)]
            self.gate.withdraw(entry.ticket, "abort", now)
            gone = Outcome(entry.ticket.job, "abort", output_tokens=0)
            self.recorder.ended(entry.slot, {"finish_reason": "abort", "finish_s": now, "output_tokens": 0})
            self._told(entry, gone, now)
        elif entry.ticket.state == "inside":
            gone = Outcome(entry.ticket.job, "abort", finish=self.clock(), output_tokens=0)
            self.end(entry, gone if outcome is None else outcome)

    def end(self, entry: Entry, outcome: Outcome) -> None:
        """``entry`` left its server so. Nothing, if it is over: a slot is freed once."""
        if entry.ticket.state != "inside":
            return
        now = self.now()
        self._leave_upstream(entry)
        self.gate.leave(entry.ticket, outcome)
        self.recorder.ended(entry.slot, self._row(outcome))
        self._told(entry, outcome, now)
        self.soon()

    def send_elsewhere(self, entry: Entry, tried: list[Upstream]) -> bool:
        """Choose another server than those ``tried`` for ``entry``; whether there is one."""
        self._leave_upstream(entry)
        entry.upstream = self.pool.choose(entry.ticket.job, entry.seconds, self.now(), tried)
        return entry.upstream is not None

    def soon(self) -> None:
        """Ask the dispatcher once all has been told that happens at this moment."""
        if not self._pumping:
            self._pumping = True
            asyncio.get_running_loop().call_soon(self._pump)

    def reload(self, config: GatewayConfig) -> None:
        """Go by the tenants of ``config``, their keys and limits; nobody who was let in is dropped."""
        told = {
            name: getattr(config, name) for name in ("tenants", "operators", "queue_requests", "queue_tokens", "ttl_s")
        }
        self.config = self.config.changed(**told)
        self.tenants = {tenant.name: tenant for tenant in self.config.tenants} or self.tenants
        self._tiers = {name: self.config.tier_of(tenant) for name, tenant in self.tenants.items()}
        self.meters.knows(self.tenants)
        self.gate.limit_anew(self.config.shed, self.now())
        self.soon()

    def heading(self) -> Header:
        """The header of a trace that begins now."""
        return heading(self.config, self.gate.dispatcher.admission, self.settings, self.model, self.limit)

    def _pump(self) -> None:
        self._pumping = False
        self.gate.pump(self.now())

    def _released(self, ticket: Ticket) -> None:
        """The gate lets ``ticket`` go."""
        entry = self._entries.pop(id(ticket))
        now, job = self.now(), ticket.job
        entry.seconds = plain_service(job)
        entry.upstream = self.pool.choose(job, entry.seconds, now)
        self.recorder.dispatched(entry.slot, now)
        self.meters.released(job, now - ticket.arrived)
        if not entry.released.done():
            entry.released.set_result(None)

    def _leave_upstream(self, entry: Entry) -> None:
        if entry.upstream is not None:
            entry.upstream.leave(entry.ticket.job, entry.seconds)
            entry.upstream = None

    def _most(self, said: Asked, tokens: int) -> int:
        """Largest output that a request allows: as it says, else what the context leaves."""
        if said.max_tokens is not None:
            return said.max_tokens * said.choices
        known = "max_model_len" not in self.settings.assumed
        left = self.settings.max_model_len - tokens if known else self.config.default_max_tokens
        return max(1, left) * said.choices

    def _turn_away(self, code: str, why: str, retry_s: float) -> NoReturn:
        """Refuse a request before it is one: it is counted, and in no trace."""
        self.gate.ends.offered += 1
        self.gate.ends.note("rejected")
        self.meters.turned_away(None, code)
        raise Refused(503, code, why, retry_s)

    def _refuse(self, entry: Entry, status: int, code: str, why: str) -> NoReturn:
        job = entry.ticket.job
        self.meters.turned_away(job, code)
        self.recorder.ended(entry.slot, {"finish_reason": "rejected", "output_tokens": 0, "error": why})
        raise Refused(status, code, why, self.retry_after(entry))

    def retry_after(self, entry: Entry) -> float:
        """When to come again (s): after the wait that is estimated for one like ``entry``."""
        wait = self.gate.dispatcher.estimated_wait(entry.ticket.job, self.now())
        return SOONEST_S if wait is None or math.isnan(wait) else min(LATEST_S, max(SOONEST_S, wait))

    def _row(self, outcome: Outcome) -> dict[str, Any]:
        """What the trace says of ``outcome``, with the gateway's times."""
        times = {"queued_s": outcome.queued, "scheduled_s": outcome.scheduled, "first_token_s": outcome.first_token,
                 "finish_s": outcome.finish}  # fmt: skip
        return {
            **{name: at - self.begun for name, at in times.items() if at is not None},
            "output_tokens": outcome.output_tokens,
            "output_words": outcome.output_words,
            "finish_reason": outcome.finish_reason,
            "error": outcome.error,
            "prompt_tokens": outcome.prompt_tokens,
            "cached_tokens": outcome.cached_tokens,
            "stop_string": int(outcome.stop_string),
        }

    def _told(self, entry: Entry, outcome: Outcome, now: float) -> None:
        first = None if outcome.first_token is None else outcome.first_token - self.begun - entry.ticket.arrived
        length = None
        if outcome.finish_reason in FINISHED and outcome.output_tokens is not None:
            length = self.gate.measured(outcome.output_tokens, outcome.output_words)
        self.meters.ended(outcome, first, now - entry.ticket.arrived, length)
        self.on_end(entry, outcome, now)
