"""Faults of the simulated engines, their clock, their step times and the main loop."""

from __future__ import annotations

from tests.mutants.fault import Table

FAULTS = Table()
plant = FAULTS.plant
STEPPED = "test_engine_limits test_engine test_oracle"

# -- continuous batching
file = "engine/continuous.py"
plant(
    "a prompt of the longest length is let in",
    file,
    "min(settings.max_model_len - 1, self.total",
    "min(settings.max_model_len, self.total",
    STEPPED,
)
plant(
    "an output one token short of the longest context",
    file,
    "most = self._longest - prompt",
    "most = self._longest - prompt - 1",
    STEPPED,
)
plant(
    "a prompt that fills the cache is turned away",
    file,
    "if prompt > self._longest_prompt:",
    "if prompt >= self._longest_prompt:",
    STEPPED,
)
plant("by priority, all arrive at once", file, "            self._sent += 1\n", "", STEPPED + " test_tiers")
plant(
    "a rejected request has a finish",
    file,
    'None if reason == "rejected" else self.env.now',
    "self.env.now",
    STEPPED + " test_laws",
)
plant(
    "a better priority waits behind a blocked head",
    file,
    "(self.waiting and not self.by_priority and not self._shrinking)",
    "(self.waiting and not self._shrinking)",
    STEPPED,
)
plant(
    "no gap after the steps of a run",
    file,
    "decode_run(self._run, steps) + steps * self.gap",
    "decode_run(self._run, steps)",
    STEPPED,
)
plant(
    "an arrival at the start of a run comes late",
    file,
    "if self.env.now <= self._last_call:",
    "if self.env.now < self._last_call:",
    STEPPED,
)
plant(
    "a run ends after its gap",
    file,
    "Moment(self.env, end - self.gap, COMPLETE",
    "Moment(self.env, end, COMPLETE",
    STEPPED,
)
plant(
    "the noise of a run's steps is drawn again",
    file,
    "                self._taken(self._run_steps)\n            self.free -=",
    "                pass\n            self.free -=",
    STEPPED + " test_noise",
)
plant(
    "aborts come before the new requests of the turn",
    file,
    "                if sequence.queued is None:\n                    sequence.queued = now",
    "                sequence.queued = now",
    STEPPED,
)
plant("an abort keeps a token that nobody saw", "engine/endings.py", "sequence.shown -= unseen", "pass", STEPPED)
plant(
    "a request that outgrew the cache is aborted",
    file,
    'self._leave_unserved(sequence, "error", problem)',
    'self._leave_unserved(sequence, "abort", problem)',
    STEPPED,
)
plant(
    "the tail of a recompute is a prefill",
    file,
    "if new == 1 and computed >= sequence.prompt:",
    "if new == 1 and computed > sequence.prompt:",
    STEPPED + " test_step_requests",
)
plant(
    "the attention of a chunk counts its end twice",
    file,
    "new * (computed + (new + 1) / 2)",
    "new * (computed + new)",
    STEPPED,
)
plant(
    "the attention of a chunk forgets what was computed",
    file,
    "new * (computed + (new + 1) / 2)",
    "new * (new + 1) / 2",
    STEPPED,
)
plant("a decode reads one token too few", file, "context += computed + 1", "context += computed", STEPPED)
plant(
    "the first token comes when the step begins",
    file,
    "sequence.first_token = begin + duration",
    "sequence.first_token = begin",
    STEPPED,
)
plant(
    "a recomputed request has a new first token",
    file,
    "                if sequence.first_token is None:\n                    sequence.first_token = begin",
    "                if True:\n                    sequence.first_token = begin",
    STEPPED,
)
plant(
    "a chunk before the end samples",
    file,
    "if computed == sequence.prompt + shown:",
    "if computed >= sequence.prompt:",
    STEPPED,
)
plant(
    "blocks are freed rounded down",
    file,
    "self.free -= -sequence.computed // size  # rounded up",
    "self.free += sequence.computed // size",
    STEPPED + " test_laws",
)
plant(
    "an output at its limit ended by itself",
    "engine/endings.py",
    '"length" if sequence.shown >= sequence.most else',
    '"length" if sequence.shown > sequence.most else',
    STEPPED,
)
plant(
    "an output at the longest context ended by itself",
    "engine/continuous.py",
    "        sequence.most = most\n",
    "        sequence.most = request.max_tokens\n",
    STEPPED,
)
plant(
    "no gap after a step that ends somebody",
    file,
    "self._wake_at(now + self.gap, STEP, self._core_loop)\n            self.on_leave(finished)",
    "self._wake_at(now, STEP, self._core_loop)\n            self.on_leave(finished)",
    STEPPED,
)
plant(
    "steps tell the blocks that are free",
    file,
    "self.total - self.free, preempted)",
    "self.free, preempted)",
    STEPPED + " test_laws",
)

# -- the scheduler
file = "engine/scheduler.py"
plant(
    "a lone pair of prompts is not capped",
    file,
    "if there < 2 and self.rules",
    "if there <= 2 and self.rules",
    STEPPED,
)
plant("a step that preempted admits", file, "if not preempted and self.waiting:", "if self.waiting:", STEPPED)
plant(
    "decodes claim blocks in no order",
    file,
    "sorted(self.pool.claims(), key=_by_admission)",
    "sorted(self.pool.claims(), key=_by_admission, reverse=True)",
    STEPPED,
)
plant(
    "one victim too many for decodes", file, "while claimed == self.free:", "while claimed >= self.free - 1:", STEPPED
)
plant(
    "a partial prefill takes the decodes' tokens",
    file,
    "budget = self._budget - self.pool.size",
    "budget = self._budget",
    STEPPED,
)
plant(
    "a partial prefill takes the last free block of a decode",
    file,
    "need, spare = self._growth(sequence, new), self._spare()",
    "need, spare = self._growth(sequence, new), self.free",
    STEPPED,
)
plant(
    "a cap on chunks holds for the prefills of running requests only",
    file,
    "if threshold and new > threshold:",
    "if False:",
    STEPPED,
)
plant("a victim's tokens are not given back", file, "                budget += turn[0]\n", "", STEPPED)
plant("a victim's blocks are not given back", file, "freed = taken + blocks_for(", "freed = blocks_for(", STEPPED)
plant(
    "paused decodes stay out",
    file,
    "            self.pool.join(sequence)\n        self._paused.clear()",
    "            pass\n        self._paused.clear()",
    STEPPED,
)
plant(
    "one slot too many",
    file,
    "while budget > 0 and len(running) < slots and waiting:",
    "while budget > 0 and len(running) <= slots and waiting:",
    STEPPED + " test_laws",
)
plant(
    "prefills of the step do not count in its budget",
    file,
    "        for _, new in prefills:\n            budget -= new\n",
    "",
    STEPPED,
)
plant(
    "what a preemption lost is recomputed without the output",
    file,
    "            length = sequence.prompt + sequence.shown  #",
    "            length = sequence.prompt  #",
    STEPPED,
)
plant(
    "the reserve for a whole prompt is ignored",
    file,
    "whole if self.settings.scheduler_reserve_full_isl or whole + found > self.total else need",
    "need",
    STEPPED,
)
plant(
    "the watermark holds for an empty engine",
    file,
    "(running and asked + self._watermark > spare)",
    "(asked + self._watermark > spare)",
    STEPPED,
)
plant("the watermark is ignored", file, "or (running and asked + self._watermark > spare)", "", STEPPED)
plant("the last free block is left over", file, "if asked > spare or", "if asked >= spare or", STEPPED)
plant("a resumed request is scheduled anew", file, "if sequence.scheduled is None:  #", "if True:  #", STEPPED)
plant("the first admitted is the victim", file, "next(reversed(self.running))", "next(iter(self.running))", STEPPED)
plant(
    "the best by priority is the victim",
    file,
    "return max(self.running",
    "return min(self.running",
    STEPPED,
)
plant(
    "a victim goes to the end of the queue",
    file,
    "self.waiting.appendleft(victim)",
    "self.waiting.extend([victim])",
    STEPPED,
)
plant("preemptions are not counted", file, "victim.preemptions += 1", "victim.preemptions = 1", STEPPED)
plant(
    "the watermark is of the usable blocks' double",
    file,
    "int(settings.watermark * settings.kv_blocks)",
    "int(settings.watermark * settings.kv_blocks) + 1",
    STEPPED,
)

# -- the decode pool
file = "engine/decoding.py"
plant(
    "a sequence ends a step early",
    file,
    "step + sequence.target - sequence.shown\n",
    "step + sequence.target - sequence.shown - 1\n",
    STEPPED,
)
plant(
    "the context of a pool lacks the new token",
    file,
    "self.context_tokens += computed + 1",
    "self.context_tokens += computed",
    STEPPED,
)
plant(
    "the context of a pool does not grow",
    file,
    "self.context_tokens += steps * self.size",
    "self.context_tokens += self.size",
    STEPPED,
)
plant(
    "blocks over many steps wrap wrongly",
    file,
    "sum(counts[: end - size]) if end > size",
    "sum(counts[: end - size]) if end > size + 1",
    STEPPED,
)
plant(
    "a block is claimed a step late",
    file,
    "place = (step - computed) % self.block_size",
    "place = (step - computed + 1) % self.block_size",
    STEPPED,
)
plant(
    "finished leave by their id",
    file,
    "heappush(self._ends, (ends, sequence.number, sequence))",
    "heappush(self._ends, (ends, -sequence.number, sequence))",
    STEPPED,
)

# -- async scheduling, batches, recorded steps, priority
file = "engine/pipelined.py"
plant("three steps in flight", file, "(len(in_flight) < 2 and", "(len(in_flight) < 3 and", STEPPED)
plant("a step begins though the one before computes", file, "begin = max(now, before)", "begin = now", STEPPED)
plant("the host schedules while it launches", file, "return now >= self._host_free", "return True", STEPPED)
plant("tokens are out though the host launches", file, "if self._host_free > self.env.now:", "if False:", STEPPED)
plant("first tokens are out though the host launches", file, "if now < before < self._host_free:", "if False:", STEPPED)
plant(
    "a launch holds tokens that were out",
    file,
    "if now < before < self._host_free:",
    "if before < self._host_free:",
    STEPPED,
)
plant("a step is over before it is launched", file, "max(computing, self._host_free + 1 - begin)", "computing", STEPPED)
plant("nobody is overscheduled", file, "if target < sequence.most:", "if False:", STEPPED)
plant("a limit overschedules", file, "if target < sequence.most:", "if True:", STEPPED)
plant(
    "an aborted request finishes all the same",
    file,
    "if sequence.finish_reason:  # aborted in the meantime",
    "if False:",
    STEPPED,
)
plant(
    "an arrival at a boundary counts as one step later",
    file,
    "if elapsed > 0 else 0)",
    "if elapsed >= 0 else 0)",
    STEPPED,
)
plant(
    "an abort keeps the token in flight", file, "return int(decodes and self._last > self.env.now)", "return 0", STEPPED
)
file = "engine/barrier.py"
plant(
    "a batch of one too many",
    file,
    "return self.batch_size - len(self._batch)",
    "return self.batch_size - len(self._batch) + 1",
    "test_engine_limits test_microbatch",
)
plant(
    "a batch waits no time to fill",
    file,
    "self.env.now + self.fill, STEP",
    "self.env.now, STEP",
    "test_engine_limits test_microbatch",
)
plant(
    "a worker never sleeps",
    file,
    "if self._free_since is None or nap == 0 or",
    "if True or",
    "test_engine_limits test_microbatch",
)
plant(
    "a member leaves when it ends",
    file,
    "                sequence.finish = now\n",
    "                pass\n",
    "test_engine_limits test_microbatch",
)
plant(
    "a batch has a first token",
    file,
    "            sequence.first_token = None\n",
    "",
    "test_engine_limits test_microbatch",
)
plant(
    "batches are counted from one",
    file,
    "sequence.batch = (self.batches - 1, self._running)",
    "sequence.batch = (self.batches, self._running)",
    "test_engine_limits test_microbatch",
)
plant(
    "an old timer starts a new batch",
    file,
    "if number == self.batches and self._batch:",
    "if self._batch:",
    "test_engine_limits test_microbatch",
)
plant(
    "an aborted job of a batch being filled is served",
    file,
    "if member[0] is not job]",
    "if member[0] is job or True]",
    "test_engine_limits test_microbatch test_unfinished test_laws",
)
file = "engine/waiting.py"
plant(
    "by priority, the last come are the first",
    file,
    "(sequence.rank, sequence))\n\n    def remove",
    "((sequence.rank[0], -sequence.rank[1]), sequence))\n\n    def remove",
    STEPPED,
)
file = "engine/itemized.py"
plant(
    "victims of a turn without a step belong to the next",
    file,
    "self._victims[len(self._victims) - preempted :]",
    "self._victims",
    "test_step_requests",
)
plant("a decode counts two tokens", file, "tokens.get(one, 1)", "tokens.get(one, 2)", "test_step_requests")
file = "engine/clock.py"
plant(
    "arrivals come before the end of a step",
    file,
    "COMPLETE, ARRIVE, RELEASE, STEP = range(4)",
    "ARRIVE, COMPLETE, RELEASE, STEP = range(4)",
    STEPPED,
)
plant(
    "a step begins before the dispatcher's choice",
    file,
    "COMPLETE, ARRIVE, RELEASE, STEP = range(4)",
    "COMPLETE, ARRIVE, STEP, RELEASE = range(4)",
    STEPPED,
)

# -- step times
file = "latency/steptime.py"
plant(
    "ticks are cut, not rounded",
    file,
    "return round(seconds * TICKS_PER_SECOND)",
    "return int(seconds * TICKS_PER_SECOND)",
    "test_intervals test_steptime test_engine",
)
plant(
    "a run of steps grows by one step too many",
    file,
    "per_token * size * (n * (n - 1) // 2)",
    "per_token * size * (n * (n + 1) // 2)",
    "test_intervals test_steptime test_oracle",
)
plant(
    "a step that ends at a moment is not over by then",
    file,
    "while n * first + growth * (n * (n - 1) // 2) < elapsed:",
    "while n * first + growth * (n * (n - 1) // 2) <= elapsed:",
    "test_intervals test_steptime test_oracle",
)
plant(
    "the one-off cost of a prefill is left out",
    file,
    "self.prefill_step + self.prefill_token * tokens",
    "self.prefill_token * tokens",
    "test_intervals test_steptime test_firstprinciples test_calibrate",
)
plant(
    "decodes do not fill the hidden tokens",
    file,
    "max(0, self.hidden_tokens - batch.decode_requests)",
    "self.hidden_tokens",
    "test_intervals test_steptime test_firstprinciples test_calibrate",
)
plant(
    "decodes beyond the hidden tokens are free",
    file,
    "self.prefill_token * (batch.decode_requests - self.hidden_tokens)",
    "0",
    "test_intervals test_steptime test_firstprinciples test_calibrate",
)
plant(
    "the fit's hidden tokens are not those of the run",
    file,
    "np.maximum(0.0, prefill + decode - hidden_tokens)",
    "np.maximum(0.0, prefill - hidden_tokens)",
    "test_intervals test_steptime test_firstprinciples test_calibrate",
)
plant(
    "the fit adds a prefill's one-off cost to every step",
    file,
    "(prefill > 0).astype(float)",
    "(prefill >= 0).astype(float)",
    "test_intervals test_steptime test_firstprinciples test_calibrate",
)
file = "latency/noise.py"
plant(
    "noise has a mean above 1",
    file,
    "factors = self._scale * np.exp(noise.spread * walk - noise.spread**2 / 2)",
    "factors = self._scale * np.exp(noise.spread * walk)",
    "test_noise",
)
plant(
    "the noise of a run has a mean above 1",
    file,
    "random.standard_normal() - noise.run_spread**2 / 2)",
    "random.standard_normal())",
    "test_noise",
)
plant(
    "slow noise has a mean above 1",
    file,
    "np.exp(noise.slow_spread * slow - noise.slow_spread**2 / 2)",
    "np.exp(noise.slow_spread * slow)",
    "test_noise",
)
plant("noise begins anew at each draw", file, "self._last = float(walk[-1])", "pass", "test_noise")
plant(
    "noise takes the factor of the next step",
    file,
    "self._sums[self._next + 1] - self._sums[self._next]",
    "self._sums[self._next + 2] - self._sums[self._next + 1]",
    "test_noise test_oracle",
)
plant(
    "innovations are too large",
    file,
    "math.sqrt(1 - correlation * correlation)",
    "math.sqrt(1 - correlation)",
    "test_noise",
)
plant(
    "the variance of a mean is of independent steps",
    file,
    "spread**2 * (pairs - ends) / count**2",
    "spread**2 / count",
    "test_noise",
)

# -- the main loop
file = "simulation/run.py"
plant(
    "no submit lag",
    file,
    "ticks(profile.submit_lag_s) if lag else 0",
    "0",
    "test_delays test_engine test_simulating test_tiers test_laws",
)
plant(
    "no output lag",
    file,
    "self.output_lag = ticks(profile.output_lag_s)",
    "self.output_lag = 0",
    "test_delays test_simulating test_validate test_timings test_coverage",
)
plant(
    "the lag of an output is not in the finish",
    file,
    "(sequence.finish + lag) / TICKS",
    "sequence.finish / TICKS",
    "test_delays test_simulating test_validate test_timings test_engine",
)
plant(
    "the lag of an output is not in the first token",
    file,
    "(sequence.first_token + lag) / TICKS",
    "sequence.first_token / TICKS",
    "test_delays test_simulating test_validate test_timings test_engine",
)
plant(
    "the barrier waits for messages",
    file,
    "scenario.refill_lag and scenario.barrier is None",
    "scenario.refill_lag",
    "test_delays test_microbatch test_simulating",
)
plant(
    "the lag is not switched off",
    file,
    "lag = scenario.refill_lag and",
    "lag = True and",
    "test_delays test_engine test_simulating",
)
plant(
    "an end at the limit is never a stop",
    "simulation/ends.py",
    "if self.stops[row] and sequence.shown",
    "if False and sequence.shown",
    "test_delays test_simulating test_workload test_unfinished test_laws test_validate",
)
plant(
    "every end at the limit is a stop",
    "simulation/ends.py",
    "if self.stops[row] and sequence.shown",
    "if sequence.shown",
    "test_delays test_simulating test_engine test_laws test_oracle",
)
plant(
    "a client that gave up in the queue is served",
    file,
    "        self.dispatcher.withdraw(job)\n",
    "",
    "test_delays test_unfinished test_laws",
)
plant(
    "patience counts from zero",
    "workloads/attempts.py",
    "at, reason = now + self.patience[place]",
    "at, reason = self.patience[place]",
    "test_delays test_unfinished",
)
plant(
    "a barrier aborts a running job",
    file,
    "            if self.scenario.barrier is not None:  # its worker",
    "            if False:  # its worker",
    "test_delays test_unfinished test_microbatch test_laws",
)
plant(
    "one who gave up has no finish",
    file,
    "        self.columns.finish_s[row] = now / TICKS_PER_SECOND\n        self.columns.output_tokens[row]",
    "        self.columns.output_tokens[row]",
    "test_delays test_unfinished test_laws",
)
plant(
    "a closed user does not go on after a client gave up",
    file,
    "        self.columns.finish_reason[row] = reason\n        self._over(row, reason, now)\n",
    "        self.columns.finish_reason[row] = reason\n",
    "test_delays test_unfinished test_laws",
)
plant(
    "an abort is learned from",
    "simulation/ends.py",
    "            return Departure(job, None, True, made, sequence.shown, (made or 0) if reason in GIVEN_UP else 0)\n",
    "            pass\n",
    "test_delays test_unfinished test_simulating test_estimators test_laws test_admission",
)
plant(
    "a cut output is told as whole",
    "simulation/ends.py",
    "return Departure(job, length, reason in CENSORED, output",
    "return Departure(job, length, False, output",
    "test_delays test_simulating test_estimators test_admission test_laws",
)
plant(
    "every output is told as cut",
    "simulation/ends.py",
    "return Departure(job, length, reason in CENSORED, output",
    "return Departure(job, length, True, output",
    "test_delays test_simulating test_estimators test_admission test_laws",
)
plant(
    "safety factors of tiers are ignored",
    file,
    "scenario.admission.with_safety(rules)",
    "scenario.admission",
    "test_delays test_tiers",
)
plant(
    "dispatches are numbered from one",
    file,
    "self.dispatcher.dispatched, self.submit_lag",
    "self.dispatcher.dispatched + 1, self.submit_lag",
    "test_delays test_engine test_laws test_policies test_structure test_tiers",
)
plant(
    "a slot freed by a rejection is forgotten",
    file,
    "        if self._again:\n            self._release_soon()\n",
    "",
    "test_delays test_engine test_laws test_metrics",
)
plant(
    "the seed of the noise is fixed",
    "simulation/engines.py",
    "stream(scenario.seed, f",
    "stream(0, f",
    "test_delays test_noise test_validate",
)
plant(
    "no noise where it is asked for",
    "simulation/engines.py",
    "    if not scenario.noise:\n        return model\n",
    "    if True:\n        return model\n",
    "test_delays test_noise test_validate",
)
plant(
    "the header names no barrier",
    "simulation/heading.py",
    '"continuous" if scenario.barrier is None else BATCHED',
    '"continuous"',
    "test_delays test_microbatch",
)
plant(
    "the tiers of the workload are not in the header",
    "simulation/heading.py",
    "tiers=scenario.tiers or workload.tiers,",
    "tiers=scenario.tiers,",
    "test_delays test_tiers test_workload",
)
plant(
    "notes of the workload are lost",
    "simulation/heading.py",
    "notes=notes,",
    "notes=(),",
    "test_delays test_workload test_unfinished test_generated_workloads test_laws",
)
plant(
    "the steps' durations stay in ticks",
    "simulation/tables.py",
    '    for name in ("start_s", "duration_s"):\n        table[name] = table[name] / TICKS',
    '    for name in ("start_s",):\n        table[name] = table[name] / TICKS',
    "test_delays test_engine test_validate",
)
file = "simulation/as_measured.py"
plant(
    "the recorded seed is ignored",
    file,
    '{"seed": header.seed or 0} | switches',
    '{"seed": 0} | switches',
    "test_delays test_validate test_judging test_shipped",
)
plant(
    "the recorded estimator is ignored",
    file,
    "        estimator=estimator,\n",
    "",
    "test_delays test_validate test_judging test_shipped",
)
plant(
    "the recorded admission is ignored",
    file,
    "        admission=Admission.of(header.admission),\n",
    "",
    "test_delays test_validate test_judging test_shipped",
)
plant(
    "what the engine did not tell is guessed small",
    file,
    "values[name] = max(values[name], getattr(recorded, name))",
    "values[name] = getattr(known, name)",
    "test_delays test_validate test_timings test_reading",
)
plant(
    "receipts get a submit lag",
    file,
    "profile = profile.changed(submit_lag_s=0.0)",
    "pass",
    "test_delays test_validate test_timings",
)
plant(
    "latencies count from the arrival where it is a receipt",
    file,
    "    if not received_at_arrival(recorded):\n        return simulated\n",
    "    if True:\n        return simulated\n",
    "test_delays test_validate test_timings",
)
file = "simulation/observed.py"
plant(
    "observed lengths are tokens",
    file,
    'outputs = unit.lengths(table["output_tokens"], table["output_words"])',
    'outputs = unit.lengths(table["output_tokens"], table["output_tokens"])',
    "test_delays test_estimators test_laws test_admission test_simulating test_compare",
)

# -- the limits of the queue
file = "engine/shedding.py"
plant("one more than the limit of requests", file, "inside + more > most", "inside + more > most + 1", "test_oracle")
plant("exactly so many prompt tokens are let in", file, ">= self._most_tokens", "> self._most_tokens", "test_oracle")
plant("who has a token counts on", file, "sequence.first_token <= now", "sequence.first_token < 0", "test_oracle")
plant("a token counts before it is out", file, " and sequence.first_token <= now", "", "test_oracle")
plant("who has left counts on", file, "self._forget(sequence.job)", "pass", "test_oracle")
plant(
    "who gave up counts on",
    file,
    "        super().abort(job)\n        self._forget(job)",
    "        super().abort(job)",
    "test_oracle",
)

# -- sliding windows
file, WINDOWED = "engine/windows.py", "test_windows test_engine_limits test_oracle"
plant("the window is a token longer", file, "settled - self.window + 1", "settled - self.window", WINDOWED)
plant("blocks behind the window are freed twice", file, "        sequence.gone = end\n", "", WINDOWED)
plant(
    "what is behind the window is given back again",
    file,
    "end - sequence.gone - len(places)",
    "end - len(places)",
    WINDOWED,
)
plant("admission asks for the whole prompt", file, "if rules.window_cap else", "if False else", WINDOWED)
plant(
    "a hit is a block longer",
    file,
    "blocks_for(self.window - 1, size)",
    "blocks_for(self.window + size, size)",
    WINDOWED,
)
plant("a hit has holes", file, "row, end = [], place\n", "end = place\n", WINDOWED)
plant("a window keeps all ends", file, "end - self.needed <= place < end", "place < end", WINDOWED)
plant(
    "a window keeps the last full block",
    file,
    "(prompt - 1) // self.size\n        return end",
    "prompt // self.size\n        return end",
    WINDOWED,
)
plant(
    "an interval keeps its beginning",
    file,
    "place % segment >= segment - self.needed",
    "place % segment < self.needed",
    WINDOWED,
)
plant("what is in flight has keys", file, "known(sequence, tokens, self.unseen(sequence))", "tokens", WINDOWED)
plant("a window frees its first block first", file, "reversed(places)", "places", WINDOWED)
plant(
    "what is freed comes before what was taken",
    file,
    "        self.follow(free)\n        return",
    "        return",
    WINDOWED,
)
plant("what was taken is found in a window", file, "        self.follow(free)\n        most", "        most", WINDOWED)
plant(
    "a window lets all out by turns",
    file,
    "rules.keyless_first or rules.window_sparse",
    "rules.keyless_first",
    WINDOWED,
)
plant(
    "held blocks of a window count against it",
    file,
    "block is not None and not block.holders for",
    "block is not None for",
    WINDOWED,
)
plant("a window of one token keeps blocks", file, " or not rules.window_sparse)", " or True)", WINDOWED)
plant("every version retains by interval", file, "if rules.window_retention else None", "if True else None", WINDOWED)
plant(
    "found blocks add to the window",
    "engine/scheduler.py",
    "self.windowed.most - found",
    "self.windowed.most",
    WINDOWED,
)
plant("in flight counts as computed", "engine/pipelined.py", "self._chunks.get(sequence) or ", "", "test_oracle")

# -- stop strings
file, LATE = "engine/endings.py", "test_endings test_oracle"
plant("the core hears at once", file, "self._over[sequence] = False", "self._over[sequence] = True", "test_oracle")
plant(
    "the core never hears of who was preempted",
    file,
    "                self._drop(sequence)\n",
    "                pass\n",
    "test_oracle",
)
plant(
    "a stop string is forgotten before the others",
    file,
    "return leaving + last, heard",
    "return last + leaving, heard",
    "test_oracle",
)
plant("the core goes on with a whole one", file, "sequence.target += 1", "sequence.target += 2", LATE)
plant("a client sees what came after its end", file, "ended.shown = shown", "pass", "test_oracle")
plant("a string beside a limit is late", "engine/continuous.py", " and sequence.target < most", "", LATE)
plant("an end of its own is late", "engine/continuous.py", "job.index in self.ends_late", "True", LATE)
file = "engine/pipelined.py"
plant(
    "a decode run passes over an abort",
    file,
    " or self.overscheduled or self._over",
    " or self.overscheduled",
    "test_oracle",
)
plant(
    "async, the core hears with its step",
    file,
    "if late:\n                    sequence.late = False\n",
    "if False:\n                    sequence.late = False\n",
    LATE,
)
plant(
    "stop strings are not of all attempts",
    "workloads/attempts.py",
    "for attempt in range(1 + self.most) for row in rows",
    "for attempt in range(1) for row in rows",
    "test_endings",
)
plant(
    "what a limit ended was stopped by a string",
    "simulation/tables.py",
    "stopped * by_itself",
    "stopped",
    "test_endings",
)
plant(
    "a number is a string",
    "live/answer.py",
    'isinstance(_of(choice, "stop_reason"), str)',
    '_of(choice, "stop_reason") is not None',
    "test_endings",
)
plant("validate forgets stop strings", "engine/recorded.py", "if one.stopped", "if False", "test_endings")
plant(
    "newcomers never shorten a chunk",
    "engine/continuous.py",
    " and not self._shrinking",
    "",
    "test_oracle",
)
plant(
    "a decode run forgets an abort",
    "engine/continuous.py",
    "self._inbox or self._over or",
    "self._inbox or",
    "test_oracle",
)
