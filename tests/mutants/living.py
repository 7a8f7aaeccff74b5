"""Faults of the recorder, of engines behind HTTP, and of telemetry."""

from __future__ import annotations

from tests.mutants.fault import Table

FAULTS = Table()
plant = FAULTS.plant
PROMISES = "test_promises"

file = "live/recorder.py"
RECORDER = "test_recording test_recorder"
plant("an arrival is when it was seen", file, '"arrival_s": due,', '"arrival_s": now,', RECORDER)
plant(
    "a run learns nothing of aborts",
    "live/waiting.py",
    "outcome.finish_reason not in (*FINISHED, *GIVEN_UP) or",
    "outcome.finish_reason not in FINISHED or",
    RECORDER,
)
plant(
    "a cut output is told as whole",
    "live/waiting.py",
    "Departure(outcome.job, observed, outcome.finish_reason in CENSORED, output",
    "Departure(outcome.job, observed, False, output",
    RECORDER,
)
plant(
    "words are learned as tokens",
    "live/waiting.py",
    "observed = length(outcome.output_tokens, outcome.output_words)",
    "observed = outcome.output_tokens",
    RECORDER,
)
plant(
    "the plan's limit is ignored",
    file,
    "limit = plan.limit_of(engine.settings.max_num_seqs)",
    "limit: int | None = engine.settings.max_num_seqs",
    RECORDER,
)
plant(
    "limits of tiers are ignored",
    file,
    "limit, plan.tier_limits(rules), plan.shed",
    "limit, {}, plan.shed",
    RECORDER + " test_tiers",
)
plant("a run ends before its last sample", file, '        if ended == "complete":\n', "        if False:\n", RECORDER)
plant(
    "a failed run is complete",
    file,
    '        except EngineError as error:\n            return "failed", str(error)',
    '        except EngineError as error:\n            return "complete", str(error)',
    RECORDER,
)
plant(
    "a run that was stopped failed",
    file,
    'return "interrupted", "stopped from outside"',
    'return "failed", "stopped from outside"',
    RECORDER,
)
plant(
    "a broken engine is sent more",
    file,
    "            if self.engine.failure is None:\n                for job",
    "            if True:\n                for job",
    RECORDER,
)
plant(
    "a broken engine is left with jobs inside",
    file,
    "if self.engine.failure is not None and not inside:",
    "if self.engine.failure is not None:",
    RECORDER,
)
plant(
    "what ended in one step is learned from apart",
    file,
    "        while not self.outcomes.empty():\n            ended.append(self.outcomes.get_nowait())\n",
    "",
    RECORDER,
)
plant(
    "a dispatch is when it was decided",
    file,
    '"dispatch_index": self.dispatcher.in_flight[id(job)]',
    '"dispatch_index": self.dispatcher.in_flight[id(job)] + 1',
    RECORDER,
)
plant(
    "forced lengths are not forced",
    file,
    "self.lengths[row % len(self.workload)] if self.lengths else None",
    "None",
    RECORDER,
)
plant(
    "queued and scheduled are swapped",
    file,
    '"queued_s": self._since(outcome.queued),\n                    "scheduled_s": self._since(outcome.scheduled),',
    '"queued_s": self._since(outcome.scheduled),\n                    "scheduled_s": self._since(outcome.queued),',
    RECORDER,
)
plant(
    "first and last token are swapped",
    file,
    '"first_token_s": self._since(outcome.first_token),\n                    "finish_s": self._since(outcome.finish),',
    '"first_token_s": self._since(outcome.finish),\n                    "finish_s": self._since(outcome.first_token),',
    RECORDER,
)
plant("preemptions are lost", file, '                    "preemptions": outcome.preemptions,\n', "", RECORDER)
plant("the error of a row is lost", file, '                    "error": outcome.error,\n', "", RECORDER)
plant(
    "the engine's own count of a prompt is lost",
    file,
    '                    "prompt_tokens": outcome.prompt_tokens,\n',
    "",
    RECORDER + " test_http",
)
plant(
    "a departure tells the arrivals nothing",
    file,
    "            self.arrivals.left(row % len(self.workload), now, reason not in FINISHED)\n",
    "",
    RECORDER,
)
plant(
    "tokens of the failed count",
    file,
    "self.output_tokens += outcome.output_tokens or 0",
    "self.output_tokens += 1",
    RECORDER,
)
plant(
    "a forced end is a stop",
    file,
    'finish_reason="stop" if self.stops[row] and outcome.output_tokens == self.lengths[row] else "length"',
    'finish_reason="stop" if outcome.output_tokens == self.lengths[row] else "length"',
    RECORDER,
)
plant(
    "a forced end is never a stop",
    file,
    'finish_reason="stop" if self.stops[row] and outcome.output_tokens == self.lengths[row] else "length"',
    'finish_reason="length"',
    RECORDER,
)
plant(
    "words of forced outputs are those of the engine", file, "            output_words=self.words[row],\n", "", RECORDER
)
plant(
    "requests that never arrived are rows",
    "live/lives.py",
    "return table if len(came) == len(table) else taken(table, came)",
    "return table",
    RECORDER + " test_journal test_hostile",
)
plant(
    "other counts of prompts are not told",
    "live/lives.py",
    "        if not differ:\n            return ()\n",
    "        if True:\n            return ()\n",
    RECORDER + " test_http",
)
plant(
    "phases begin at zero",
    file,
    "phase.changed(start_s=start) for phase, start in phases",
    "phase.changed(start_s=0.0) for phase, start in phases",
    RECORDER,
)
file = "live/plan.py"
plant("the header has no limit", file, "        max_in_flight=limit,\n", "", RECORDER)
plant("the header has the default seed", file, "        seed=plan.seed,\n", "", RECORDER + " test_session")
plant(
    "the header does not tell of forced lengths",
    file,
    '{"force_lengths": True} if plan.force_lengths else {}',
    "{}",
    RECORDER,
)
plant("the header has no turn", file, "        turn=plan.turn,\n", "", RECORDER + " test_session")
file = "live/recorder.py"
plant(
    "notes of the engine are lost",
    file,
    "(*header.notes, *engine.notes, *run.notes()",
    "(*header.notes, *run.notes()",
    RECORDER + " test_http",
)
plant(
    "steps are not read",
    file,
    "read_lines(journal.steps_file, start) if has_steps else None",
    "None",
    RECORDER + " test_journal",
)

file = "live/session.py"
SESSION = "test_streams test_recording test_session"
plant(
    "rounds count from zero",
    file,
    "enumerate(orders(len(plans), repeats, order, seed), start=1)",
    "enumerate(orders(len(plans), repeats, order, seed), start=0)",
    SESSION,
)
plant("positions count from zero", file, "enumerate(places, start=1)", "enumerate(places, start=0)", SESSION)
plant(
    "the seed of an order is ignored",
    file,
    "orders(len(plans), repeats, order, seed)",
    "orders(len(plans), repeats, order)",
    SESSION,
)
plant(
    "a complete run is recorded again",
    file,
    "            if is_complete(run.folder):\n",
    "            if False:\n",
    SESSION + " test_hostile",
)
plant(
    "a session goes on after a run that ended badly",
    file,
    '            if traces[-1].header.ended != "complete":\n                break\n',
    "",
    SESSION + " test_hostile",
)
plant("an engine is not let go of", file, "        await engine.shutdown()\n", "        pass\n", SESSION)
plant("an engine is not warmed up", file, "        await engine.warm_up()\n", "", SESSION)
file = "live/order.py"
plant(
    "a square whose neighbours are always the same",
    file,
    "place // 2 if place % 2 == 0 else policies - (place + 1) // 2",
    "place",
    SESSION,
)
plant(
    "an odd number has one square",
    file,
    "return square if policies % 2 == 0 else square + [row[::-1] for row in square]",
    "return square",
    SESSION,
)
plant("every round has one order", file, "return found[:rounds]", "return found[:1] * rounds", SESSION)
plant(
    "names of policies are not drawn",
    file,
    "names = draw.sample(range(policies), policies)",
    "names = list(range(policies))",
    SESSION,
)
file = "live/resume.py"
plant("a run of another seed goes on", file, "(header.seed, header", "(run.plan.seed, header", PROMISES)  # fmt: skip
plant("a run under other SLOs goes on", file, "(header.seed, header.slos)", "(header.seed, run.plan.slos)", PROMISES)
file = "live/plan.py"
plant("a capture forgets its SLOs", file, "        slos=plan.slos,\n", "", PROMISES)
file = "live/recorder.py"
plant("an SLO of nobody is promised", file, ', (plan.slos, "SLO")', "", PROMISES)
plant("a live policy is not told the SLOs", file, "rules, slos=plan.slos)", "rules)", PROMISES)
file = "live/choices.py"
plant("a replay is promised nothing", file, "return () if self.replay is None else read(self.replay).header.slos",
      "return ()", PROMISES)  # fmt: skip
plant("an import forgets its SLOs", "formats/imports.py", "strict=strict), promised)", "strict=strict), ())", PROMISES)
plant("a simulation is judged by no SLO", "validation/shares.py", "[judged(with_slos(trace, slos)) for",
      "[judged(with_slos(one.recorded, slos)) for", PROMISES)  # fmt: skip
plant("different SLOs are compared", "comparison/captured_slos.py", "for _, trace in traces}) == 1:",
      "for _, trace in traces}) >= 1:", PROMISES)  # fmt: skip
file = "live/resume.py"
plant(
    "a run of another turn goes on",
    file,
    "if header.turn != run.plan.turn and not",
    "if False and not",
    SESSION + " test_hostile",
)

file = "live/answer.py"
ANSWER = "test_streams test_answer"
plant("a role is a token", file, "            if text or call:\n", "            if True:\n", ANSWER)
plant(
    "the last token is the usage's event",
    file,
    '        self.usage = _of(chunk, "usage") or self.usage\n',
    '        self.usage = _of(chunk, "usage") or self.usage\n        self.last = now\n',
    ANSWER,
)
plant(
    "the first token moves",
    file,
    "                self.first = now if self.first is None else self.first\n                self.last",
    "                self.first = now\n                self.last",
    ANSWER,
)
plant(
    "the last token is the last text",
    file,
    "self.reason, self.last = reason, now",
    "self.reason = reason",
    ANSWER,
)
plant("calls count tokens", file, "self.fewest += bool(text)", "self.fewest += 1", ANSWER)
plant("a call is no end", file, '("stop" if self.reason in CALLS else self.reason)', "self.reason", ANSWER)
plant(
    "a stream that broke off is an end",
    file,
    'return self.failed("the stream broke off before its end")',
    'reason = "stop"',
    ANSWER + " test_http",
)
plant(
    "any end is an end",
    file,
    '        if reason not in FINISHED:\n            return self.failed(f"finish',
    '        if False:\n            return self.failed(f"finish',
    ANSWER + " test_http",
)
plant(
    "an answer without usage is an answer",
    file,
    "not (_is_whole(tokens) and _is_whole(prompt)):",
    "not _is_whole(tokens):",
    ANSWER + " test_http",
)
plant("more tokens than allowed", file, "<= tokens <= cap or not 1", "<= tokens or not 1", ANSWER + " test_http")
plant(
    "fewer tokens than texts",
    file,
    "if not max(1, self.fewest) <= tokens <= cap",
    "if not 1 <= tokens <= cap",
    ANSWER + " test_http",
)
plant(
    "words of the last event",
    file,
    'count_words("".join(self.texts))',
    "count_words(self.texts[-1] if self.texts else '')",
    ANSWER + " test_http",
)
plant(
    "words broken between events count twice",
    file,
    'count_words("".join(self.texts))',
    'count_words(" ".join(self.texts))',
    ANSWER + " test_http",
)
plant("milliseconds are seconds", file, "return value / 1000", "return value", ANSWER)
plant(
    "scheduled before it was sent",
    file,
    "scheduled = max(self.sent, self.first - prefill)",
    "scheduled = self.first - prefill",
    ANSWER,
)
plant(
    "queued before it was sent",
    file,
    "max(self.sent, scheduled - waited), scheduled",
    "scheduled - waited, scheduled",
    ANSWER,
)
plant(
    "queued counts back from the first token",
    file,
    "max(self.sent, scheduled - waited), scheduled",
    "max(self.sent, self.first - waited), scheduled",
    ANSWER,
)
plant(
    "thinking counts twice",
    file,
    '_joined(_of(delta, "reasoning")) or _joined(_of(delta, "reasoning_content"))',
    '_joined(_of(delta, "reasoning")) + _joined(_of(delta, "reasoning_content"))',
    ANSWER,
)
plant("a refusal is no text", file, ' + _joined(_of(delta, "refusal"))', "", ANSWER)
plant(
    "a prompt longer than the context",
    file,
    "not 1 <= prompt <= self.longest - tokens",
    "not 1 <= prompt",
    ANSWER + " test_http test_hostile",
)
file = "live/http.py"
HTTP = "test_client test_http test_hostile"
plant("a request is sent twice where it fails", file, "max_retries=0", "max_retries=2", HTTP)
plant(
    "redirects are followed",
    file,
    "limits=UNLIMITED, follow_redirects=False",
    "limits=UNLIMITED, follow_redirects=True",
    HTTP + " test_trust",
)
plant("no limit on an answer's bytes", file, "            if received > most:\n", "            if False:\n", HTTP)
plant("compressed answers are read", file, '    if packed != "identity":  #', "    if False:  #", HTTP)
plant(
    "max_tokens is ignored where a length is forced",
    file,
    '"max_tokens": true_length or request.max_tokens,',
    '"max_tokens": request.max_tokens,',
    HTTP + " test_answer",
)
plant(
    "lengths are not forced",
    "live/told.py",
    '{} if true_length is None else {"ignore_eos": True}',
    "{}",
    HTTP + " test_answer",
)
plant(
    "no usage is asked for",
    file,
    '"stream_options": {"include_usage": True},',
    '"stream_options": {"include_usage": False},',
    HTTP + " test_answer",
)
plant(
    "temperature is fixed",
    file,
    '"temperature": self.temperature,\n            "stream"',
    '"temperature": 1.0,\n            "stream"',
    HTTP,
)
plant(
    "an answer that takes too long is waited for",
    file,
    "            async with asyncio.timeout(self.timeout_s):\n                await self._receive",
    "            async with asyncio.timeout(None):\n                await self._receive",
    HTTP,
)
plant(
    "an endless stream is read on",
    file,
    "if answer.chunks > CHUNKS_A_TOKEN * shared",
    "if False and answer.chunks > CHUNKS_A_TOKEN * shared",
    HTTP,
)
plant(
    "an abort ends another's request",
    file,
    "if task.get_name() == job.request.id:",
    "if task.get_name() != job.request.id:",
    HTTP,
)
plant(
    "a tenth of a block size", "live/told.py", '("block_size", "block_size", 1)', '("kv_blocks", "block_size", 1)', HTTP
)
plant(
    "prefix caching is never told",
    "live/told.py",
    'labels["enable_prefix_caching"] == "True"',
    'labels["enable_prefix_caching"] == "False"',
    HTTP,
)
plant(
    "what the user knows is overruled",
    file,
    "EngineSettings.guessed(settings | self._known,",
    "EngineSettings.guessed(self._known | settings,",
    HTTP,
)
plant(
    "the first model is taken whatever was asked for",
    file,
    'if entry["id"] == self.model or not self.model), None)',
    "), None)",
    HTTP,
)
plant("a word is a token", file, "TOKENS_A_WORD = 1.4", "TOKENS_A_WORD = 1.0", HTTP)
plant(
    "the server is asked though it counts slowly",
    file,
    "        if slow or not count:\n",
    "        if not count:\n",
    HTTP,
)
plant(
    "the key is told",
    file,
    'key = "" if self._key == NO_KEY else self._key',
    'key = ""',
    HTTP,
)
plant(
    "a prompt is told", file, "return masked(text, key, _texts(answer), self", "return masked(text, key, (), self", HTTP
)
plant(
    "a server on this host is foreign",
    file,
    "self.own_processes = server.listening(self._port)",
    "self.own_processes = ()",
    HTTP,
)
file = "live/masking.py"
plant(
    "a key in capitals is shown",
    file,
    "lower, hidden = text.lower(), key.lower()",
    "lower, hidden = text, key",
    "test_streams test_hostile",
)
plant("only a whole key is masked", file, "KEY_PIECE = 4 ", "KEY_PIECE = 40 ", "test_streams test_hostile")
plant("pieces of a prompt are shown", file, "PIECE = 8 ", "PIECE = 80 ", "test_streams test_hostile")
file = "live/pages.py"
plant(
    "a page without an end is read on",
    file,
    "                    if len(content) > MOST_TOLD:\n",
    "                    if False:\n",
    "test_streams test_hostile",
)
plant(
    "a refused page is a page",
    file,
    "json.loads(self.text) if self.status == 200 else None",
    "json.loads(self.text)",
    "test_streams test_hostile",
)
plant(
    "a page's redirect is followed",
    file,
    "timeout=wait_s, follow_redirects=False",
    "timeout=wait_s, follow_redirects=True",
    "test_trust test_hostile",
)
file = "live/telemetry.py"
TELE = "test_streams test_telemetry"
plant(
    "a load over the whole run",
    file,
    "now, (busy, steal) = time.monotonic(), _busy()",
    "now, (steal, busy) = time.monotonic(), _busy()",
    TELE,
)
plant(
    "loads are CPU seconds",
    file,
    "max(0.0, part / span)",
    "max(0.0, part)",
    TELE,
)
plant(
    "loads count from the start",
    file,
    "            then, busy, steal, own = now, busy_now, steal_now, own_now\n",
    "",
    TELE,
)
plant(
    "samples before the start count",
    file,
    'return table[table["time_s"] >= 0].reset_index(drop=True)',
    "return table.reset_index(drop=True)",
    TELE,
)
plant("samples count from boot", file, '        table["time_s"] -= start\n', "", TELE)
plant(
    "a run is disturbed by its worst sample",
    file,
    "disturbed=mean > limit",
    "disturbed=float(foreign.max()) > limit",
    TELE,
)
plant("no run is disturbed", file, "disturbed=mean > limit", "disturbed=False", TELE)
plant(
    "the largest foreign load is the mean",
    file,
    "round(float(foreign.max()) if len(table) else 0.0, 4)",
    "round(mean, 4)",
    TELE,
)
plant(
    "own and foreign means are swapped",
    file,
    'round(float(table["own_cpu"].mean()) if len(table) else 0.0, 4)',
    "round(mean, 4)",
    TELE,
)
plant(
    "processes that ended used nothing",
    file,
    "                del self._members[pid]\n",
    "                del self._members[pid]\n                del self._used[pid]\n",
    TELE,
)
plant("children are not ours", file, "[process, *process.children(recursive=True)]", "[process]", TELE)
plant(
    "idle time is busy",
    file,
    "busy = times.user + times.nice + times.system + times.irq + times.softirq",
    "busy = times.user + times.nice + times.system + times.irq + times.softirq + times.iowait + times.idle",
    TELE,
)
plant(
    "system time is not used", file, "self._used[pid] = times.user + times.system", "self._used[pid] = times.user", TELE
)
plant("milliwatts", file, "nvml.nvmlDeviceGetPowerUsage(handle) / 1000", "nvml.nvmlDeviceGetPowerUsage(handle)", TELE)
plant(
    "bytes of a GPU in MB",
    file,
    "nvml.nvmlDeviceGetMemoryInfo(handle).used / 2**20",
    "nvml.nvmlDeviceGetMemoryInfo(handle).used / 10**6",
    TELE,
)
plant("the clocks of a GPU are swapped", file, "nvml.NVML_CLOCK_SM)", "nvml.NVML_CLOCK_MEM)", TELE)
plant(
    "a GPU is sampled once a second",
    file,
    "CPU_INTERVAL_S, GPU_INTERVAL_S = 1.0, 0.2",
    "CPU_INTERVAL_S, GPU_INTERVAL_S = 1.0, 1.0",
    TELE,
)
plant("always the first GPU of the host", file, "int(visible) if visible.isdigit() else 0", "0", TELE)

file = "live/sharing.py"
BEGUN = "test_beginnings"
plant("hashes under a key that everybody knows", file, "os.urandom(32)", "bytes(32)", BEGUN)
plant("a block is known without those before it", file, "blake2b(last + whole", "blake2b(whole", BEGUN)
plant(
    "a block that is not full is hashed",
    file,
    "range(stride, len(whole) + 1, stride)",
    "range(stride, len(whole) + stride, stride)",
    BEGUN,
)
plant(
    "more is shared than rows hold",
    file,
    "prefix_columns(rows, tokens, lengths, block)",
    "prefix_columns(rows, tokens, lengths * 9, block)",
    BEGUN,
)
plant("the template is not shared", file, "shorter.before + (count - 1)", "(count - 1)", BEGUN)
plant("tokens are believed where some are not known", file, "by_tokens = all(", "by_tokens = any(", BEGUN)
file = "live/begun.py"
plant(
    "token ids of another length are believed",
    file,
    "blocks = known.blocks if told == tokens else None",
    "blocks = known.blocks",
    BEGUN,
)
plant("the template is taken for text", file, "PIECE * (tokens - around) / text", "PIECE * tokens / text", BEGUN)
file = "live/told.py"
plant("token ids are not counted", file, "or len(ids) != count", "or len(ids) < 1", BEGUN)
plant(
    "vLLM is taken to cache nothing",
    file,
    'usual["enable_prefix_caching"] = True',
    'usual["enable_prefix_caching"] = False',
    BEGUN,
)
plant("what was told is overruled", file, "if name in settings.assumed}", "}", BEGUN)
plant(
    "a tunnel is a server",
    file,
    'return runs_python or program == "vllm" or title.startswith("vllm::")',
    'return "vllm" in " ".join(command)',
    BEGUN,
)
plant("a GPU is not seen", file, "return here and not _devices()", "return here", BEGUN)
plant("more is cached than the prompt", "live/answer.py", "0 <= cached <= prompt", "0 <= cached", BEGUN)
plant("cached tokens of a server change nothing", "live/http.py", "if outcome.cached_tokens and", "if False and", BEGUN)
plant("a replay's prompts share nothing", "workloads/prompts.py", 'f"stretch {owner}"', "request.id", "test_prompts")
plant("what cannot be stays cached", "trace/marks.py", '    "cached_tokens",\n', "", BEGUN)
