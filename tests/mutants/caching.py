"""Faults of the prefix cache, of what requests share, of versions and of sessions."""

from __future__ import annotations

from tests.mutants.fault import Table

FAULTS = Table()
plant = FAULTS.plant
CACHE = "test_prefixes test_engine test_oracle"

file = "engine/prefixes.py"
plant(
    "a block is freed from the front",
    file,
    "            run = held.pop()\n",
    "            run = held.pop(0)\n",
    CACHE,
)
plant("keyless blocks are lost", file, "        self.blank += blank\n", "", CACHE)
plant("a held block stays in the free queue", file, "self.idle -= end - run.start\n", "pass\n", CACHE)
plant("the newest of equal blocks takes over", file, "heir, *others = run.copies", "*others, heir = run.copies", CACHE)
plant("an evicted run can still be found", file, "            self._forget(run)\n", "", CACHE)
plant(
    "a run that is hit in part is held whole",
    file,
    "            if end < run.end:\n                self._cut",
    "            if False:\n                self._cut",
    CACHE,
)
plant("a run is lengthened that others hold", file, "last.holders == 1 and held", "held", CACHE)
plant(
    "before 0.24 keyless blocks come first", file, "self._in_order = not keyless_first", "self._in_order = False", CACHE
)

file = "engine/sharing.py"
plant("the last token is found", file, "sequence.shown - 1) // self.size", "sequence.shown) // self.size", CACHE)
plant(
    "outputs are not shared while they are produced",
    file,
    "if other is not None and other is not sequence:",
    "if False:",
    CACHE,
)
plant(
    "one that falls behind came after those who went on",
    file,
    "            self._settle_all(before)\n\n    def sooner",
    "            pass\n\n    def sooner",
    "test_oracle",
)
plant(
    "a victim's turn came before the others'",
    file,
    "            self._settle_all(before)\n            self._echoing.pop",
    "            self._settle_all(0)\n            self._echoing.pop",
    "test_oracle",
)
plant("the next admission tells what was found", file, "if sequence.cached < 0:", "if True:", CACHE)
plant(
    "a token in flight is known",
    file,
    "tokens - unseen if tokens > sequence.joined else tokens",
    "tokens",
    CACHE,
)

file = "engine/pipelined.py"
plant(
    "one that awaits its output came after those who went on",
    file,
    "            self.shared.part()\n        for sequence",
    "            pass\n        for sequence",
    "test_oracle",
)
plant(
    "the token of one without a turn comes out after the others' turn",
    file,
    "if self._left_out and self.shared is not None:",
    "if False:",
    "test_oracle",
)

file = "engine/scheduler.py"
plant(
    "found blocks that nobody holds cost nothing",
    file,
    "            asked += idle  #",
    "            asked += 0  #",
    CACHE,
)
plant(
    "found tokens cost budget", file, "                length -= found * size\n", "                length -= 0\n", CACHE
)
plant(
    "what is taken back has no key",
    file,
    "            tokens += sequence.computed\n",
    "            tokens = sequence.computed\n",
    "test_windows test_oracle",
)
plant(
    "a request that preempts itself ends the pass",
    file,
    "if not (self.rules.goes_on_after_self and self.by_priority):",
    "if True:",
    CACHE,
)
plant(
    "the turn does not follow a victim",
    file,
    "if self.rules.cursor_follows_victim else had_turn",
    "if False else had_turn",
    CACHE,
)
plant(
    "a victim's chunk has its key before those ahead",
    file,
    "                if had_turn:\n                    self._key(given)",
    "                if False:\n                    self._key(given)",
    "test_oracle",
)
plant(
    "the chunk limit does not adapt",
    file,
    "return max(self._threshold, self.settings.max_num_batched_tokens // there)",
    "return self._threshold",
    CACHE,
)
plant(
    "slots are all active",
    file,
    "settings.max_num_active_seqs or settings.max_num_seqs",
    "settings.max_num_seqs",
    CACHE,
)

file = "engine/cadence.py"
plant(
    "prefills are held a step longer", file, "(self._executed + 1 - self._last)", "(self._executed - self._last)", CACHE
)
plant("a queue is not let in", file, "self._behind = anybody_waits", "self._behind = False", CACHE)

file = "trace/prefixes.py"
plant("the first that shares anything is told", file, "bisect_left(reach, end)", "0", "test_prefixes")
plant(
    "a share is not cut to what was asked",
    file,
    "parts.append((owner, min(end, tokens)))",
    "parts.append((owner, end))",
    "test_prefixes",
)

file = "workloads/arrivals.py"
SESSIONS = "test_sessions"
plant("one parent is enough", file, "self._waits[row] = len(awaited)", "self._waits[row] = 1", SESSIONS)
plant("gaps are forgotten", file, "(now + self._gaps[child], child)", "(now, child)", SESSIONS)
plant("a failed turn starts the next", file, "            if failed:\n", "            if False:\n", SESSIONS)

file = "workloads/resampling.py"
plant("a text is drawn twice", file, "            if own in seen:\n", "            if False:\n", SESSIONS)
plant(
    "parents are those of the recorded day",
    file,
    "[latest[one] for one in old if one in latest]",
    "list(old)",
    SESSIONS,
)

file = "trace/turns.py"
plant(
    "rows are not counted anew",
    file,
    "[now[one] for one in before if now.get(one, place) < place]",
    "[one for one in before if one in now]",
    SESSIONS,
)
file = "trace/subset.py"
plant("the header counts those that were left out", file, "if phase.name in counts]", "]", "test_prefixes")
plant(
    "texts are not followed",
    file,
    "prefixes(whose[place] for place in places.tolist())",
    "prefixes(whose[: len(kept)])",
    "test_prefixes",
)

file = "engine/scheduler.py"
plant(
    "what others took is found",
    file,
    "shared.look_up(sequence, spare)",
    "shared.look_up(sequence, 10**18)",
    "test_oracle",
)
file = "engine/sharing.py"
plant(
    "who produces the rest is not asked",
    file,
    "            self._settle_owners(sequence, computed + new)\n        if own",
    "            pass\n        if own",
    "test_oracle",
)
plant(
    "who has left is asked on",
    file,
    "            self._live.pop(sequence.owner, None)\n",
    "            pass\n",
    "test_oracle",
)
plant(
    "what came before is its own", "engine/prefixes.py", "if start >= sequence.own:", "if upto >= sequence.own:", CACHE
)
plant("who computes in turn asks nobody", file, "elif len(sequence.stretches) > 1:", "elif False:", "test_oracle")

file, ORACLE = "engine/sharing.py", "test_prefixes test_oracle"
plant("the blocks of a victim are nobody's", "engine/scheduler.py", "self.shared.comes_again(victim)", "pass", ORACLE)
plant(
    "nobody asks for what is known of one alone",
    file,
    "owner if self._common is None or owner in self._common else NOBODY",
    "NOBODY",
    ORACLE,
)
plant(
    "who repeats an answer is nobody",
    file,
    "            sequence.owner = sequence.stretches[-1][0]\n            self._live",
    "            self._live",
    ORACLE,
)
plant("who is asked does not list its own", file, "        self.list_own(sequence)\n", "", ORACLE)
plant(
    "strangers are one",
    file,
    "            self._strangers -= 1\n",
    "",
    ORACLE,
)
file = "engine/prefixes.py"
plant(
    "only what was counted as taken is looked for",
    file,
    "if self._owed or free < self.blank + self.idle:",
    "if self._owed:",
    ORACLE,
)
plant(
    "what is taken is found before it is forgotten",
    file,
    "if self._owed or free < self.blank + self.idle:",
    "if free < self.blank + self.idle:",
    ORACLE,
)
plant(
    "an own stretch that is there already is another one",
    file,
    "if sequence.owner in self.found:",
    "if False:",
    ORACLE,
)
plant(
    "what was evicted keeps what came after",
    file,
    "            run.after = ends  #",
    "            pass  #",
    "test_prefixes",
)
plant("what became known at the end has no key", file, "keyed = sequence.keyed = upto", "pass", ORACLE)
plant("what nobody held is listed of another place", file, "Run(owner, end, keyed)", "Run(owner, 0, keyed)", ORACLE)
plant("one who shares is enough", "trace/prefixes.py", "(common if owner in seen else seen)", "common", "test_prefixes")
plant("several who share are one", "trace/prefixes.py", "(common if owner in seen else seen)", "seen", ORACLE)
plant(
    "what is sent again is nobody's",
    "simulation/run.py",
    "None if attempts.most else workload.common",
    "workload.common",
    "test_clients",
)
