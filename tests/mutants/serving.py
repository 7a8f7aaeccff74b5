"""Faults of clients that give up and send again, of queues with limits, and of replicas."""

from __future__ import annotations

from tests.mutants.fault import Table

FAULTS = Table()
plant = FAULTS.plant

file = "clients.py"
HOW = "test_clients"
plant("waits do not double", file, "self.first_s * 2.0**number", "self.first_s", HOW)
plant(
    "waits have no longest", file, "min(self.first_s * 2.0**number, self.longest_s)", "self.first_s * 2.0**number", HOW
)
plant("jitter makes waits longer", file, "(1 - self.jitter * chance)", "(1 + self.jitter * chance)", HOW)
plant("Retry-After is not heard", file, "if told_s is not None and told_s > 0:", "if False:", HOW)
plant("a Retry-After of an hour is waited for", file, "told_s if told_s <= LONGEST_TOLD_S else None", "told_s", HOW)
plant(
    "what is given drops what the trace says",
    file,
    "others.retries if self.retries is None else self.retries",
    "self.retries",
    HOW,
)

file = "workloads/attempts.py"
plant("a deadline counts from the last attempt", file, "(self._first[place] if self.most else now)", "now", HOW)
plant(
    "a client sends again after its deadline", file, "at >= self._first[place] + self._deadlines[place]", "False", HOW
)
plant("one attempt too many", file, "row + self.requests >= self.rows", "row + self.requests > self.rows", HOW)
plant(
    "who left by himself sends again",
    file,
    'RETRIED = ("timeout", "shed", "error")',
    'RETRIED = ("timeout", "shed", "error", "abort", "rejected")',
    HOW,
)
plant(
    "everybody has the first timeout",
    file,
    "place = rule_of(clients.timeouts, tenants, tiers)\n",
    "place = 0 * rule_of(clients.timeouts, tenants, tiers)\n",
    HOW,
)
plant(
    "an answer that is sent again is the old one",
    file,
    "(owner, prompt), (2 * LARGEST_COUNT + row, ENDLESS))",
    "(owner, ENDLESS))",
    HOW,
)

file = "trace/attempts.py"
plant("a request ends with its first attempt", file, "table.iloc[lasts]", "table.iloc[firsts]", HOW)
plant("a request begins with its last attempt", file, '"max_tokens", "arrival_s",', '"max_tokens",', HOW)

file = "scheduling/shedding.py"
plant("one more waits than may", file, "self.requests >= rule.requests", "self.requests > rule.requests", HOW)
plant(
    "the newcomer's own tokens do not count",
    file,
    "self.budget + job.budget > rule.tokens",
    "self.budget > rule.tokens",
    HOW,
)
plant(
    "who was given up waits for ever",
    file,
    "            group.requests -= 1\n            group.budget -= budget\n",
    "            pass\n",
    HOW,
)
plant("an idle engine is a slow one", file, "if past > 0 and self.inside:", "if past > 0:", HOW)
plant("what was served is never forgotten", file, "self._served *= kept", "pass", HOW)
plant("a client that is deferred is not told", file, ", wait - rule.defer_s)", ")", HOW)
plant("a tier's limit looks at everybody", file, "if who.has(*pair)", "if True", HOW)

file = "simulation/run.py"
plant("a client gives up twice", file, "waits.pop(row, None)", "waits.get(row)", HOW)
plant("a refused request is served all the same", file, 'columns.finish_reason[row] = "rejected"', "pass", HOW)
plant("a token that comes too late is in time", file, "sequence.finish + lag > until", "False", HOW)

file = "simulation/patience.py"
plant("each client is an event of its own", file, "if self._due[0][1] == number:\n            self._ask()",
      "Numbered(self._env, until, ARRIVE, number, self._look)\n        self._asked.add(number)", HOW)  # fmt: skip
plant("who gave up first is asked for alone", file, "        if due:\n            self._ask()\n", "", HOW)

file = "simulation/cut.py"
plant("what came too late was seen", file, "sequence.first_token + lag > until", "False", HOW)

file = "scheduling/routing.py"
HOW = "test_replicas"
plant(
    "the longest queue is joined",
    file,
    "return min(replicas, key=lambda replica: replica.requests)",
    "return max(replicas, key=lambda replica: replica.requests)",
    HOW,
)
plant("turns begin anew each time", file, "self._last = chosen.number", "pass", HOW)
plant("of two, the worse", file, "return min(replicas[int(first)]", "return max(replicas[int(first)]", HOW)
plant(
    "chance has no seed", file, 'np.random.default_rng([seed, zlib.crc32(b"router")])', "np.random.default_rng()", HOW
)
plant("affinity has no end", file, "chosen.requests > fewest.requests + self.slack", "False", HOW)
plant("nothing is remembered", file, "self._places[mark] = chosen.number", "pass", HOW)

file = "simulation/cluster.py"
plant("a failed replica is still chosen", file, "replica.up = False", "pass", HOW)
plant("who is gone still counts", file, "replica.requests -= 1", "pass", HOW)
plant(
    "what a failed replica held is forgotten",
    file,
    "                    again.append((job, length))\n",
    "                    pass\n",
    HOW,
)
plant("what is lost begins again", file, 'elif self.asked.lost == "lose":', "elif False:", HOW)
plant("a cache survives its engine", file, "self.engines[replica.number] = self._built(replica.number)", "pass", HOW)
plant(
    "who came while none was up is forgotten",
    file,
    "        for job, length in held:\n            self.submit(job, length)\n",
    "",
    HOW,
)
plant(
    "the queue before a failed replica stays there",
    file,
    "                if not other.up:",
    "                if False:",
    HOW,
)

file = "simulation/engines.py"
plant("a slow replica is fast", file, "/ speed for term in TERMS", "* 1 for term in TERMS", HOW)

file = "live/waiting.py"
HOW = "test_live_clients"
plant("live, nobody gives up", file, "if self.attempts.impatient else None", "if False else None", HOW)
plant("live, what came too late was seen", file, "None if at is None or at > gone else at", "at", HOW)

file = "live/recorder.py"
plant("live, the engine goes on after a timeout", file, "            self.engine.abort(job)\n", "", HOW)
