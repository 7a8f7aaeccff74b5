"""Faults of the gateway, of what it records, and of the advice."""

from __future__ import annotations

from tests.mutants.fault import Table

FAULTS = Table()
plant = FAULTS.plant

GATE, RELAY, FAILURES, ACCESS, WATCHING = (
    f"gateway/test_{name}" for name in ("gate", "relay", "failures", "access", "watching")
)
LINKS, FRAMING = "gateway/test_links", "gateway/test_framing"
ADVICE, PROCESS, ATTACKS = "test_advice", "gateway/test_process", "gateway/test_attacks"

# -- the gate
plant("the gateway forgets who withdrew", "gateway/gate.py", "self.dispatcher.withdraw(ticket.job)", "pass", GATE)
plant("a slot is never freed", "gateway/gate.py", "self.dispatcher.finished(gone, now)", "pass", GATE)
plant("withdrawn jobs pile up", "gateway/gate.py", "self._clear(now)", "pass", GATE)
plant("a refusal is not counted", "gateway/gate.py", 'self.ends.note("rejected")', "pass", GATE)
plant("an abort counts as an error", "gateway/gate.py", "elif reason in GIVEN_UP:", "elif False:", GATE)
plant("new limits forget who waits", "scheduling/shedding.py", "for job in waiting:\n", "for job in ():\n", GATE)
plant("new limits forget who is inside", "scheduling/shedding.py", "for job in inside:\n", "for job in ():\n", GATE)
plant(
    "a tenant's weight is left out",
    "scheduling/around.py",
    "own = self.shares.get(request.tenant, 1.0) if self.shares else 1.0",
    "own = 1.0",
    GATE,
)
plant("the gateway takes the tenant of the first", "gateway/app.py", "self.relay.answer(request, tenant)",
      "self.relay.answer(request, next(iter(self.front.tenants)))", f"{GATE} {ACCESS}")  # fmt: skip

# -- what passes
plant(
    "the usage is not stripped",
    "gateway/events.py",
    "passed = end\n",
    "passed = begin\n",
    f"{RELAY} gateway/test_events",
)
plant("only the first event of many is read", "gateway/events.py", "place = end\n", "place = len(events)\n",
      "gateway/test_events")  # fmt: skip
plant("an event is cut where a part ends", "gateway/events.py", "events, self._pending = whole[:end], whole[end:]",
      'events, self._pending = whole, b""', "gateway/test_events")  # fmt: skip
plant("every event is read", "gateway/events.py", "if not self._steady:\n", "if True:\n",
      "gateway/test_events")  # fmt: skip
plant("the usage is always stripped", "gateway/relay.py", "strip=not said.wants_usage", "strip=True", RELAY)
plant("usage is not asked for", "gateway/asked.py", "if self.stream and not self.wants_usage:", "if False:", RELAY)
plant("the body is written anew", "gateway/asked.py", "written = self.written\n",
      "written = json.dumps(self.fields)\n", RELAY)  # fmt: skip
plant(
    "the server's count is not asked for",
    "gateway/counting.py",
    "if self._ask and (count",
    "if False and (count",
    RELAY,
)

plant(
    "a client sets its own priority", "gateway/relay.py", "if not self.front.config.pass_priority:", "if True:", RELAY
)

# -- failures
plant("a slow reader is never cut off", "gateway/outlet.py", "async with asyncio.timeout(self._stall_s):",
      "async with asyncio.timeout(None):", FAILURES)  # fmt: skip
plant("half an answer ends cleanly", "gateway/outlet.py", "self._transport.abort()", "pass", FAILURES)
plant("a silent server is waited for", "gateway/links.py", "if reply.looks > self._looks:", "if False:", FAILURES)
plant("a slow reader is taken for a silent server", "gateway/links.py", "self.is_full, self.looks = True, BUSY",
      "self.is_full = True", FAILURES)  # fmt: skip
plant("the head waits for the first token", "gateway/outlet.py", "await self._in_time(writer.write(part), len(part))",
      "await self._in_time(writer.write(part) if part else asyncio.sleep(0), len(part))", FAILURES)  # fmt: skip
plant("who waits too long waits on", "gateway/relay.py", "async with asyncio.timeout(entry.ttl_s):",
      "async with asyncio.timeout(None):", FAILURES)  # fmt: skip
plant("a server that is down is not left alone", "gateway/upstreams.py", 'self.state = "down"', "pass", FAILURES)
plant("a busy server counts as down", "gateway/upstreams.py", "one.answers > begun)", "False)", FAILURES)
plant("a server that comes back gets all at once", "gateway/upstreams.py",
      "return 0 if self._tried is not None else 1", "return PLENTY", FAILURES)  # fmt: skip
plant("a server that cannot be reached ends the request", "gateway/relay.py",
      "if not self.front.send_elsewhere(entry, tried):", "if True:", FAILURES)  # fmt: skip
plant("an abort is no observation", "gateway/events.py", "output_tokens=min(seen, answer.job.request.max_tokens),",
      "output_tokens=None,", FAILURES)  # fmt: skip
plant("the time to come again is always the least", "gateway/front.py",
      "return SOONEST_S if wait is None or math.isnan(wait)", "return SOONEST_S if True", FAILURES)  # fmt: skip
plant("a full trace goes on", "gateway/recording.py", "self._current, segment.full = None, True", "pass", FAILURES)
plant("a trace that is over stays open", "gateway/recording.py", "if segment.full and not segment.under_way",
      "if False and not segment.under_way", RELAY)  # fmt: skip

# -- connections to servers
plant("bytes that nobody asked for are let be", "gateway/links.py",
      "if self._reply is None:  # nobody asked\n            self.transport.abort()",
      "if self._reply is None:\n            pass", LINKS)  # fmt: skip
plant("what a server sends beyond an answer is the next one", "gateway/links.py", "and not beyond", "", LINKS)
plant("a connection that was given up is used again", "gateway/links.py", "            self._reply = None\n"
      "            self.transport.abort()", "            self._reply = None\n            self._links.keeps(self)",
      LINKS)  # fmt: skip
plant("an old connection is used", "gateway/links.py", "and link.idle_since > soon", "", LINKS)
plant("a full sink is fed on", "gateway/links.py", "self._link.transport.pause_reading()", "pass", LINKS)
plant("a reply that failed is whole as its connection ends", "gateway/links.py",
      "self.is_full = False\n        self._link.ends(self)", "self._link.transport.abort()", LINKS)  # fmt: skip
plant("a reply holds who holds it", "gateway/links.py", "self._sink = None  # whose", "pass  # whose", RELAY)
plant("an answer may take for ever", "gateway/links.py", "elif reply.age > self._age:", "elif False:", LINKS)
plant("a header may be two", "gateway/links.py",
      'text.count("\\n") >= len(lines) or text.count("\\r") >= len(lines) or', "False and",
      LINKS)  # fmt: skip
plant("a reply that was given up holds its parser", "gateway/links.py", "self._answer.close()", "pass", LINKS)
plant("a connection that ends is kept", "gateway/framing.py",
      'version == "1.1" and self._parser.should_keep_alive()', "True", f"{FRAMING} {LINKS}")  # fmt: skip
plant("a body is framed in a way that nobody asked for", "gateway/framing.py",
      'if self._codings not in ([], [b"chunked"]):', "if False:", FRAMING)  # fmt: skip
plant("a blank behind the coding is let be", "gateway/framing.py", "self._codings.append(value.lower())",
      "self._codings.append(value.strip().lower())", FRAMING)  # fmt: skip
plant("an answer is of any HTTP", "gateway/framing.py", 'version not in ("1.0", "1.1") or ', "", FRAMING)
plant("a reason holds any byte", "gateway/framing.py", ' or b"\\0" in self._reason', "", FRAMING)
plant("a status is any number", "gateway/framing.py", "if status < 200:", "if False:", f"{FRAMING} {LINKS}")
plant("an answer has the headers of one before it", "gateway/framing.py",
      'self._reason, self._headers, self._codings = b"", CIMultiDict(), []', "pass", FRAMING)  # fmt: skip
plant("trailers are headers", "gateway/framing.py", "if self.head is None:  # else", "if True:  # else", FRAMING)
plant("a second answer is content of the first", "gateway/framing.py", 'if self.is_over:\n            raise',
      "if False:\n            raise", f"{FRAMING} {LINKS}")  # fmt: skip
plant("a head has no end", "gateway/framing.py", "elif self._without_content > MOST_HEAD:", "elif False:",
      f"{FRAMING} {LINKS}")  # fmt: skip
plant("a long answer is a head without an end", "gateway/framing.py", "self._without_content = 0 if content else ",
      "self._without_content = ", LINKS)  # fmt: skip
plant("an answer to HEAD has a body", "gateway/framing.py", "if self._is_bodiless:", "if False:",
      f"{FRAMING} {LINKS}")  # fmt: skip
plant("half an answer is a whole one", "gateway/framing.py",
      "self.is_over = self.is_over or self._ends_with_connection", "self.is_over = True",
      f"{FRAMING} {LINKS}")  # fmt: skip
plant("an answer before the answer has a body", "gateway/framing.py", "INTERIM = (100, 102, 103)",
      "INTERIM = range(100, 200)", FRAMING)  # fmt: skip
plant("an answer holds its parser", "gateway/framing.py", "self._parser = None", "pass", FRAMING)

plant("all that ends goes first", "gateway/turns.py", "self._left -= 1\n            return", "return",
      "gateway/test_turns")  # fmt: skip
plant("who is gone takes a turn", "gateway/turns.py", "if not turn.done():  # else", "if turn.done() or True:  # else",
      "gateway/test_turns")  # fmt: skip

# -- access
plant("any key is a tenant's", "gateway/keys.py", "if hmac.compare_digest(known, asked):", "if True:", ACCESS)
plant("no key is a key", "gateway/keys.py", "return found if key else None", "return found or self._owners and 'acme'",
      ACCESS)  # fmt: skip
plant(
    "the client's key goes to the server", "gateway/passing.py", '"authorization", "x-api-key"', '"x-api-key"', ACCESS
)
plant("headers that are named for one hop go on", "gateway/passing.py", 'if "Connection" in headers:',
      "if False:", ACCESS)  # fmt: skip
plant("every path is passed through", "gateway/app.py", "if not is_passed(path, also):",
      "if False:", ACCESS)  # fmt: skip
plant(
    "a path may be spelled in any way", "gateway/passing.py", "if not _PLAIN.fullmatch(raw_path):", "if False:", ACCESS
)
plant("a path may go up", "gateway/passing.py", 'if any(part in (".", "..") for part in parts) or',
      "if", ACCESS)  # fmt: skip
plant("adapters may be loaded", "gateway/passing.py", "if path in NEVER:", "if False:", ACCESS)
plant("tenants see the page", "gateway/access.py", "elif self._operators.owner(", "elif self._tenants.owner(", ACCESS)
plant("another site may ask", "gateway/access.py", "if not is_from_here(headers):", "if False:", ACCESS)
plant("a body may be of any size", "gateway/relay.py",
      "most, content = int(self.front.config.max_body_mb * 1e6)", "most, content = 10**9", ACCESS)  # fmt: skip
plant("a body may take any time", "gateway/relay.py", "async with asyncio.timeout(self.front.config.body_s):",
      "async with asyncio.timeout(None):", ACCESS)  # fmt: skip
plant(
    "anybody may listen to everybody",
    "gateway/config.py",
    "if self.open and not is_loopback(host):",
    "if False:",
    ACCESS,
)
plant("a tenant's own limit is everybody's", "gateway/config.py", 'return Shed(who=f"tenant:{self.name}", ',
      "return Shed(", ACCESS)  # fmt: skip
plant("old keys go on after a reload", "gateway/app.py", "self.access.reload(self.front.config)", "pass", ACCESS)

plant("a tenant reaches what is kept for all", "gateway/app.py",
      "if not (self.front.config.open or is_for_tenants(request.method, path, also)):", "if False:",
      ATTACKS)  # fmt: skip
plant("any method is passed through", "gateway/app.py", "if request.method not in METHODS:", "if False:", ATTACKS)
plant("a key in the query goes on", "gateway/app.py", "key in unquote_plus(", "key in (", ATTACKS)
plant("who a client says it is goes on", "gateway/passing.py", '"forwarded", "x-forwarded-for",', '"x-forwarded-for",',
      ATTACKS)  # fmt: skip
plant("a completion looks as short as a chat would be", "gateway/asked.py", 'PLAIN: ("max_tokens",)', "PLAIN: "
      '("max_completion_tokens", "max_tokens")', ATTACKS)  # fmt: skip
plant("a body of any number of values is read", "gateway/asked.py", 'body.count(b"[") + body.count(b"{") > MOST_NESTED',
      "False", ATTACKS)  # fmt: skip
plant("a head may take any time", "gateway/serving.py", "keepalive_timeout=gateway.front.config.head_s",
      "keepalive_timeout=3600.0", ATTACKS)  # fmt: skip
plant("a head may have any number of lines", "gateway/serving.py", "max_headers=MOST_OF_CLIENTS", "max_headers=10**6",
      ATTACKS)  # fmt: skip
plant("a log holds what a client sent", "gateway/serving.py", "logger.addFilter(_without_content)", "pass", ATTACKS)
plant(
    "tenants share their prefixes", "gateway/relay.py", "if not self.front.config.separate_caches:", "if True:", ATTACKS
)
plant("a slow server is asked again", "gateway/app.py",
      'answer.headers["x-should-retry"] = "true" if refusal.retry_s is not None else "false"', "pass",
      FAILURES)  # fmt: skip
plant("a client that left is served on", "gateway/serving.py", "handler_cancellation=True",
      "handler_cancellation=False", FAILURES)  # fmt: skip

# -- what is shown and said
plant("an alarm never ends", "gateway/alarms.py", "self._told(self._raised.pop(key), False)", "pass", WATCHING)
plant("an alarm comes and goes", "gateway/alarms.py", "end**CLEAR if is_raised else end", "end", WATCHING)
plant("tenants without end in the metrics", "gateway/meters.py", "if len(self._tenants) < MOST_TENANTS:", "if True:",
      WATCHING)  # fmt: skip
plant("a category of any name in the metrics", "gateway/meters.py",
      "return job.predicted_category if job.predicted_category in CATEGORIES else OTHER",
      "return job.predicted_category", WATCHING)  # fmt: skip
plant("advice against fifo, whatever ran", "advice.py",
      "return _possible(self.comparison.change(setting, self.ran, metric))",
      'return _possible(self.comparison.change(setting, Setting("sjf", "static"), metric))', ADVICE)  # fmt: skip
plant("traces in a row overlap", "trace/segments.py", "_shifted(trace.requests, _begun(trace) - _begun(parts[0]))",
      "_shifted(trace.requests, 0.0)", ADVICE)  # fmt: skip
plant("a window begins when it likes", "trace/segments.py", '-float(kept["arrival_s"].min())', "0.0", ADVICE)

# -- the process
plant("nothing is learned at the start", "gateway/front.py", "learn_anew(self.estimator, admission, self.folder)", "0",
      PROCESS)  # fmt: skip
plant(
    "what a kill left stays open", "gateway/recording.py", "read(place).write(place, overwrite=True)", "pass", PROCESS
)
plant("newcomers are let in while it ends", "gateway/app.py", "front.draining = True", "pass", PROCESS)
plant(
    "collections look through all",
    "gateway/collecting.py",
    "    gc.freeze()",
    "    gc.get_freeze_count()",
    "gateway/test_process",
)
plant("what piles up is never collected", "gateway/collecting.py",
      'return "young" if made >= MANY else None', "return None", "gateway/test_events")  # fmt: skip
