"""Faults of the readers of other tools' files, of what is made of them, and of the exports."""

from __future__ import annotations

from tests.mutants.fault import Table

FAULTS = Table()
plant = FAULTS.plant

file = "formats/values.py"
VALUES = "test_readers test_importers test_formats"
plant("microseconds are milliseconds", file, '"us": 1e-6', '"us": 1e-3', VALUES)
plant("hours are minutes", file, '"h": 3600.0', '"h": 60.0', VALUES)
plant(
    "dates without a zone are local",
    file,
    "(moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()",
    "moment.timestamp()",
    VALUES,
)
plant(
    "zones are dropped",
    file,
    "(moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()",
    "moment.replace(tzinfo=UTC).timestamp()",
    VALUES,
)
plant("a unit of one's own is ignored", file, "return float(found[1]) * own", "return float(found[1]) * scale", VALUES)
plant("fractions are counts", file, "(values % 1 != 0) | (values < 0)", "(values < 0)", VALUES)
plant("negative counts", file, "| (values < 0) | (values > LARGEST_COUNT)", "| (values > LARGEST_COUNT)", VALUES)
plant(
    "numbers in a column with others are not scaled",
    file,
    "return _number(cell) * scale",
    "return _number(cell)",
    VALUES,
)
plant(
    "truth is a number",
    file,
    "numeric = pd.to_numeric(plain.where(~booleans & plain.map(_may_be_plain))",
    "numeric = pd.to_numeric(plain.where(plain.map(_may_be_plain))",
    VALUES,
)
plant("a dash is an error", file, '"nat", "-", "<na>"}', '"nat", "<na>"}', VALUES)
plant(
    "an infinite time is a time",
    file,
    "for row in np.flatnonzero(np.isinf(values)).tolist():\n        problems",
    "for row in []:\n        problems",
    VALUES,
)

file = "formats/assemble.py"
ASSEMBLE = "test_readers test_importers test_formats"
plant(
    "the first arrival is not 0",
    file,
    'float(arrival[good].min()) if self.found.offset == "first"',
    'float(arrival[good].max()) if self.found.offset == "first"',
    ASSEMBLE,
)
plant("times keep their offset", file, "own = columns[name] = columns[name] - offset", "own = columns[name]", ASSEMBLE)
plant(
    "durations count from zero",
    file,
    'self.columns[name] = self.columns["arrival_s"] + self._times(name, cells)',
    "self.columns[name] = self._times(name, cells)",
    ASSEMBLE,
)
plant(
    "an arrival is an end and how long it took",
    file,
    'self.columns["arrival_s"] = ends - took',
    'self.columns["arrival_s"] = ends + took',
    ASSEMBLE,
)
plant(
    "rows stay in the file's order",
    file,
    '.drop(index=list(self.bad)).sort_values("arrival_s", kind="stable")',
    ".drop(index=list(self.bad))",
    ASSEMBLE,
)
plant("unreadable rows stay", file, "rows.drop(index=list(self.bad))", "rows", ASSEMBLE)
plant(
    "strictness is ignored",
    file,
    "if self.strict or len(unreadable) == total:",
    "if len(unreadable) == total:",
    ASSEMBLE,
)
plant(
    "rows that are left out are not told",
    file,
    '            self.caveats.insert(0, f"{len(unreadable)}',
    '            [].insert(0, f"{len(unreadable)}',
    ASSEMBLE,
)
plant("an id that is there twice stays", file, "            if number > 1:\n", "            if False:\n", ASSEMBLE)
plant("one who failed has an output", file, "np.where(failed & ~(output >= 1), np.nan, output)", "output", ASSEMBLE)
plant(
    "ends at the limit ended by themselves",
    file,
    'np.where(limited, "length", "stop")[done]',
    'np.where(limited, "stop", "length")[done]',
    ASSEMBLE,
)
plant(
    "without limits all ended by themselves",
    file,
    "np.full(self.count, True)\n        finished",
    "np.full(self.count, False)\n        finished",
    ASSEMBLE,
)
plant(
    "an output at its limit is below it",
    file,
    'limited = output >= columns["max_tokens"]',
    'limited = output > columns["max_tokens"]',
    ASSEMBLE,
)
plant(
    "no output is an end",
    file,
    '        reasons[none | sudden] = "error"\n',
    '        reasons[sudden] = "error"\n',
    ASSEMBLE,
)
plant(
    "an answer in no time is an end",
    file,
    '        reasons[none | sudden] = "error"\n',
    '        reasons[none] = "error"\n',
    ASSEMBLE,
)
plant("one without a finish has ended", file, '        reasons[unfinished] = "abort"\n', "", ASSEMBLE)
plant(
    "an error with a finish reason is none",
    file,
    'reasons[failed & np.isin(reasons, np.array([*FINISHED, DONE], dtype=object))] = "error"',
    "pass",
    ASSEMBLE,
)
plant(
    "an output above max_tokens",
    file,
    "return np.asarray(np.maximum(limit, least))",
    "return np.asarray(limit)",
    ASSEMBLE,
)
plant("times out of order are left so", file, "columns[name] = own = np.where(small, latest, own)", "pass", ASSEMBLE)
plant(
    "clocks that disagree cost no row",
    file,
    "wrong = good & (back > CLOCKS_S)",
    "wrong = good & (back > 1e9)",
    ASSEMBLE,
)
plant(
    "an empty time forgets the ones before", file, "np.where(np.isnan(own), latest, own), name", "own, name", ASSEMBLE
)
plant("a prompt of 0", file, "np.where(empty | unknown, 1, prompt)", "np.where(unknown, 1, prompt)", ASSEMBLE)
plant(
    "words of a mapping are ignored",
    file,
    "        if not words:\n            return cells\n",
    "        if True:\n            return cells\n",
    ASSEMBLE,
)
plant(
    "zeros of the failed are times",
    file,
    "before = failed & (columns[name] < arrival - clocks_s)",
    "before = failed & (columns[name] < -1e9)",
    ASSEMBLE,
)

file = "formats/vllm_bench.py"
BENCH = "test_readers test_formats test_importers"
plant(
    "first tokens from the end",
    file,
    "took.append(float(ttft[row] + np.nansum(values)))",
    "took.append(float(np.nansum(values)))",
    BENCH,
)
plant(
    "a mean gap too many",
    file,
    "max(float(np.nan_to_num(outputs[row])) - 1, 0.0)",
    "max(float(np.nan_to_num(outputs[row])), 0.0)",
    BENCH,
)
plant(
    "latencies of the surest kind are ignored",
    file,
    'ENDS = ("latencies", "e2els", "itls")',
    'ENDS = ("itls", "e2els", "latencies")',
    BENCH,
)
plant("errors are no failures", file, "bool(lost) or bool(error) for", "bool(lost) for", BENCH)
plant(
    "zeros are no failures",
    file,
    "silent = ~(outputs >= 1) & ~(ttft > 0)",
    "silent = np.zeros(len(ttft), dtype=bool)",
    BENCH,
)
plant(
    "those that failed have an output",
    file,
    '[None if lost else length for lost, length in zip(failed, lists["output_lens"], strict=True)],\n        "arrival_s": lists',  # noqa: E501
    'list(lists["output_lens"]),\n        "arrival_s": lists',
    BENCH,
)
plant(
    "scheduled after the first token",
    file,
    'np.clip(ttft - times(lists["server_ttfts"])[0], 0.0, ttft)',
    'np.clip(ttft + times(lists["server_ttfts"])[0], 0.0, ttft)',
    BENCH,
)
plant(
    "queued as long after",
    file,
    'np.clip(scheduled - times(lists["server_queue_times"])[0], 0.0, scheduled)',
    'np.clip(ttft - times(lists["server_queue_times"])[0], 0.0, scheduled)',
    BENCH,
)
plant(
    "an endless rate is none",
    file,
    "Told(int(users) if 1 <= users < math.inf else None, rate if rate > 0 else math.inf)",
    "Told(int(users) if 1 <= users < math.inf else None, rate if rate < math.inf else None)",
    BENCH + " test_loops",
)
plant(
    "users of a benchmark are not told",
    file,
    "int(users) if 1 <= users < math.inf else None",
    "None",
    BENCH + " test_loops",
)
plant("lists of unlike lengths are read", file, "    if len(set(lengths.values())) > 1:\n", "    if False:\n", BENCH)

file = "formats/guidellm.py"
plant("the second benchmark is the first", file, "found[(result or 1) - 1], (result or 1) - 1", "found[0], 0", BENCH)
plant("seconds to the first token", file, 'times([wait_ms], "ms")', 'times([wait_ms], "s")', BENCH)
plant(
    "incomplete requests are errors",
    file,
    '"errored": "error", "incomplete": "abort"}',
    '"errored": "error", "incomplete": "error"}',
    BENCH,
)
plant("errored requests are aborted", file, '"errored": "error",', '"errored": "abort",', BENCH)
plant(
    "the end of a request goes before its last token",
    file,
    '"info.timings.last_token_iteration", "info.timings.last_iteration",\n        "scheduler_info.request_timings.last_iteration", "last_token_time", "info.timings.request_end",',  # noqa: E501
    '"info.timings.request_end", "info.timings.last_token_iteration", "info.timings.last_iteration",\n        "scheduler_info.request_timings.last_iteration", "last_token_time",',  # noqa: E501
    BENCH,
)
plant(
    "a synchronous benchmark has no user",
    file,
    "        return Told(1, math.inf)",
    "        return Told(None, math.inf)",
    BENCH + " test_loops",
)
plant(
    "streams are not users",
    file,
    'Told(_whole(strategy.get("streams")) or most, math.inf)',
    "Told(most, math.inf)",
    BENCH + " test_loops",
)

file = "formats/sglang.py"
plant(
    "failed requests keep a user busy",
    file,
    "took = np.where(failed, np.nan, latencies(",
    "took = np.where(failed, 1.0, latencies(",
    BENCH,
)
plant(
    "a rate as text is none",
    file,
    "pace = None if rate is None or isinstance(rate, bool) else float(rate)",
    "pace = None if not isinstance(rate, int | float) or isinstance(rate, bool) or math.isinf(rate) else float(rate)",
    BENCH,
)
file = "formats/rebuilt.py"
plant(
    "a closed loop of one user fewer",
    file,
    "idle = [0.0] * users",
    "idle = [0.0] * max(1, users - 1)",
    BENCH + " test_suggest",
)
plant(
    "a request goes to the user who is idle last",
    file,
    "starts[row] = heapq.heappop(idle)",
    "starts[row] = idle.pop(idle.index(max(idle)))",
    BENCH,
)
plant(
    "the users asked for are ignored",
    file,
    "users = asked.users or told.users",
    "users = told.users or asked.users",
    BENCH,
)
plant("arrivals are drawn at the mean gap", file, "exponential(1 / rate, count)", "exponential(rate, count)", BENCH)
plant(
    "arrivals are gaps",
    file,
    'Rebuilt(np.cumsum(gaps), Loop("open"), said)',
    'Rebuilt(gaps, Loop("open"), said)',
    BENCH,
)
file = "formats/aiperf.py"
plant("requests of the warm-up are read", file, "if not is_warm])", "])", BENCH)
plant(
    "bare metrics are seconds",
    file,
    "unit if isinstance(unit, str) else 'ms'",
    "unit if isinstance(unit, str) else 's'",
    BENCH,
)
plant("units of metrics are ignored", file, "unit if isinstance(unit, str) else 'ms'", "'ms'", BENCH)
plant(
    "those given up failed",
    file,
    '"abort" if given_up else "error" if error is not None else None',
    '"error" if given_up or error is not None else None',
    BENCH,
)
plant("the wall clock counts microseconds", file, 'units={"arrival_s": "ns"}', 'units={"arrival_s": "us"}', BENCH)
file = "formats/burstgpt.py"
plant("0 seconds are no time", file, "ROUNDED_S if none else cell", "cell", BENCH)
file = "formats/blis.py"
plant("BLIS counts milliseconds", file, 'units={"all": "us"}', 'units={"all": "ms"}', BENCH)
plant(
    "a request counts from when it was due",
    file,
    "[one if one is not None else other for one, other in zip(sent, arrival, strict=True)]",
    "arrival",
    BENCH,
)
plant("a shared prefix is left out", file, "own + np.where(in_group, np.nan_to_num(prefix), 0)", "own", BENCH)
plant(
    "the server's count goes last",
    file,
    "np.where(server > 0, server, own +",
    "np.where(server < 0, server, own +",
    BENCH,
)
plant("planned outputs of the failed are outputs", file, "None if planned and not ended else cell", "cell", BENCH)
plant("critical requests are standard", file, '"critical": "premium"', '"critical": "standard"', BENCH)
plant("zero is a time", file, 'None if cell in (0, "0", "0.0") else cell', "cell", BENCH)
file = "formats/inference_perf.py"
plant(
    "the first token is the last",
    file,
    '"first_token_s": [_of(one, 0) for one in lists]',
    '"first_token_s": [_of(one, -1) for one in lists]',
    BENCH,
)
plant("the end is that of the request", file, "_of(one, -1) if _of(one, -1) is not None else end", "end", BENCH)
file = "formats/llmperf.py"
plant(
    "users of a summary are not told",
    file,
    'return Told(users, float("inf")) if known else Told()',
    "return Told()",
    BENCH,
)
plant(
    "a response that failed has times",
    file,
    "name: [None if lost else cell for lost, cell in zip(failed, source.either(COLUMNS[name]), strict=True)]",
    "name: source.either(COLUMNS[name])",
    BENCH,
)
file = "formats/timed_trace.py"
plant("blocks of 512 are in seconds", file, 'MOONCAKE: "ms", BAILIAN: "s"', 'MOONCAKE: "s", BAILIAN: "ms"', BENCH)
plant("long gaps are seconds", file, "if gap > LONG_GAP:", "if gap > 1e9:", BENCH)
plant(
    "fractions are milliseconds", file, 'return "s", "they have fractions"', 'return "ms", "they have fractions"', BENCH
)
file = "formats/azure.py"
plant(
    "context and generated are swapped",
    file,
    '"prompt_tokens": "ContextTokens", "output_tokens": "GeneratedTokens"',
    '"prompt_tokens": "GeneratedTokens", "output_tokens": "ContextTokens"',
    BENCH,
)
file = "formats/endings.py"
plant("timed out is no ending", file, "timeout timed_out deadline_exceeded", "timeout deadline_exceeded", "test_cases")
plant("429 is an error", file, "too_many_requests 429 503", "too_many_requests 503", BENCH)
plant("2xx is an error", file, 'DONE if word[0] == "2" else "error"', 'DONE if word[0] == "3" else "error"', BENCH)
file = "formats/results.py"
plant("results count from zero", file, "return found[result - 1]", "return found[result - 2]", BENCH)
plant(
    "the last of several results",
    file,
    "        if len(found) > 1:\n            raise",
    "        if False:\n            raise",
    BENCH,
)
file = "formats/clocks.py"
plant(
    "milliseconds since 1970 are seconds",
    file,
    '    if unit != "s" or moment < LATEST_EPOCH_S:\n',
    "    if True:\n",
    BENCH,
)
plant("a coarse clock is fine", file, "if np.all(np.abs(steps - np.round(steps)) < ON_STEP):", "if False:", BENCH)
plant("the finest step goes first", file, "for step in GRIDS_S:", "for step in reversed(GRIDS_S):", BENCH)
file = "formats/said.py"
plant("held back by a little", file, "HELD_S = 0.005 ", "HELD_S = 0.5 ", BENCH)
file = "formats/exports.py"
EXPORT = "test_readers test_exports"
plant("Mooncake's times are microseconds", file, "_lines(1e-3, WIDE)", "_lines(1e-6, WIDE)", EXPORT)
plant(
    "those without an output are written",
    file,
    'rows[(rows["output_tokens"] >= 1).fillna(False)] if export.needs_output else rows',
    "rows",
    EXPORT,
)
plant("what is left out is not told", file, "    if len(written) < len(rows):\n", "    if False:\n", EXPORT)
plant(
    "in the order of the table",
    file,
    'dtype=object)).sort_values("arrival_s", kind="stable")',
    "dtype=object))",
    EXPORT,
)
plant(
    "first and last token are swapped",
    file,
    '"first_chunk_time_us": first, "last_chunk_time_us": last',
    '"first_chunk_time_us": last, "last_chunk_time_us": first',
    EXPORT,
)
plant("failed requests are ok", file, '"status": "ok" if ended else', '"status": "ok" if True else', EXPORT)
plant("what was guessed is told as known", file, "if name not in engine.assumed}", "}", EXPORT)

RELATIONS = "test_relations test_exports test_formats"
file = "formats/beginnings.py"
plant(
    "a last part of a block counts",
    file,
    "blocks[: prompt // self.size]",
    "blocks[: -(-prompt // self.size)]",
    RELATIONS,
)
plant(
    "answers have no blocks",
    file,
    "                    whole[parent] = own[row][:until]\n",
    "                    pass\n",
    RELATIONS,
)
plant("a shorter turn repeats an answer", file, "lengths.prompt[row] >= lengths.whole[parent] and", "", RELATIONS)
plant("a prompt that came twice is continued", file, "            last[node] = NONE\n", "            pass\n", RELATIONS)
plant("prefixes of a group are as long as each prompt", file, "min(self.lengths[row], prompt)", "prompt", RELATIONS)
plant("an id as text is another", file, "isinstance(told, str) and NUMBER.fullmatch(told)", "False", RELATIONS)
plant(
    "blocks are hashed in the order of the file",
    file,
    "told = [ids[row] for row in order]",
    "told = ids[: len(order)]",
    RELATIONS,
)
file = "formats/sessions.py"
plant(
    "a gap counts from the arrival",
    file,
    "arrival[one] if math.isnan(finish[one]) else finish[one]",
    "arrival[one]",
    RELATIONS,
)
plant(
    "gaps of the file are ignored",
    file,
    "            gaps[row] = told[row]\n            continue\n",
    "            pass\n",
    RELATIONS,
)
plant("a parent that comes later is waited for", file, "        if earlier:\n", "        if there:\n", RELATIONS)
plant("a parent that has not ended is waited for", file, "if one not in out]", "]", RELATIONS)
plant(
    "parents are rows of the file",
    file,
    "            places.setdefault(name, []).append(place)\n",
    "            places.setdefault(name, []).append(row)\n",
    RELATIONS,
)
plant("one parent of several", file, "found.append(sorted(before))", "found.append(sorted(before)[:1])", RELATIONS)
plant(
    "negative gaps are fine",
    file,
    "wrong = np.flatnonzero((gaps < 0) | (gaps > LONGEST_S))",
    "wrong = np.flatnonzero(gaps > LONGEST_S)",
    RELATIONS,
)
plant("turns are in the order of arrival", file, "    if not math.isnan(number):\n", "    if False:\n", RELATIONS)
plant("a name used again goes on", file, "            there.clear()\n", "            pass\n", RELATIONS)
file = "formats/hashing.py"
plant("parts of blocks are equal", file, "(own[part][0], begin, end)", "(own[part][0], begin)", RELATIONS)
plant("blocks belong to who begins them", file, "while own[part][1] < end:", "while own[part][1] < begin:", RELATIONS)
plant(
    "a last part is left out",
    file,
    "for begin in range(0, prompt, size):",
    "for begin in range(0, prompt - size + 1, size):",
    RELATIONS,
)
file = "formats/assemble.py"
plant(
    "more is found than the prompt has",
    file,
    'columns["cached_tokens"] > columns["prompt_tokens"]',
    'columns["cached_tokens"] < 0',
    RELATIONS,
)
file = "formats/heading.py"
plant(
    "a cache that was hit is not told",
    file,
    '{"enable_prefix_caching": True} if "cached_tokens" in rows',
    '{} if "cached_tokens" in rows',
    RELATIONS,
)
plant("more ids than tokens tell a size", "formats/blocks.py", "if best > most[-1]:", "if False:", "test_relations")
