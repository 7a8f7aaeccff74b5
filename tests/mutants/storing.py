"""Faults of the store, the sweep, the gate, traces on disk and their checks."""

from __future__ import annotations

from tests.mutants.fault import Table

FAULTS = Table()
plant = FAULTS.plant

file = "sweeps/store.py"
STORE = "test_keeping test_store"
plant("a row is told of before it is on the disk", file, "            os.fsync(self._journal.fileno())\n", "", STORE)
plant("half a row stays on a full disk", file, "os.ftruncate(self._journal.fileno(), before)", "pass", STORE)
plant("a full disk is no error", file, "  # a full disk: no half of it stays\n            raise\n", "\n", STORE)
plant("journals have no lock", file, "            fcntl.flock(self._journal, fcntl.LOCK_EX)\n", "", STORE)
plant(
    "journals of the living are adopted",
    file,
    "                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)\n                abandoned",
    "                abandoned",
    STORE,
)
plant("a merge doubles rows", file, 'if row["key"] not in have]', "if True]", STORE)
plant(
    "a failure hides a run that came through",
    file,
    "self._keys[key] = failed and self._keys.get(key, True)",
    "self._keys[key] = failed or self._keys.get(key, False)",
    STORE,
)
plant(
    "a failure in a journal hides a run that came through",
    file,
    'self._keys[row["key"]] = row["failed"] and self._keys.get(row["key"], True)',
    'self._keys[row["key"]] = row["failed"]',
    STORE,
)
plant("a torn line is read past", file, 'content[: content.rfind(b"\\n") + 1]', "content", STORE)
plant(
    "a journal is read from its beginning each time",
    file,
    "self._read[file.name] = begin + len(content)",
    "self._read[file.name] = 0",
    STORE,
)
plant(
    "a journal's reading skips a byte",
    file,
    "self._read[file.name] = begin + len(content)",
    "self._read[file.name] = begin + len(content) + 1",
    STORE,
)
plant(
    "Parquet is read before journals",
    file,
    'for file in sorted(self.folder.glob("journal-*.jsonl")):  # before',
    "for file in []:  # before",
    STORE,
)
plant("torn lines are not counted", file, "        store.torn += row is None\n", "", STORE)
plant(
    "checksums are not looked at",
    file,
    ' or parts[0] != f"{zlib.crc32(parts[2]):08x}".encode()',
    "",
    STORE + " test_sweep_rows test_trust",
)
plant(
    "a row under another key is a row",
    file,
    '    if row["key"].encode(errors="replace") != parts[1]:\n        return None\n',
    "",
    STORE + " test_sweep_rows test_trust",
)
plant(
    "a row whose number is a text is a row",
    file,
    "    if not all(isinstance(row[name], int | float | None) for name in NUMBERS & row.keys()):\n        return None  #",  # noqa: E501
    "    if False:\n        return None  #",
    STORE + " test_sweep_rows test_trust",
)
plant(
    "a key that came through is written twice",
    file,
    'table = table[~table["key"].isin(held.keys() - stale[file])]',
    "pass",
    STORE + " test_sweep_rows test_trust",
)
plant(
    "a run that came through does not replace its failure",
    file,
    "{key for key, failed in held.items() if failed and key in through}",
    "set()",
    STORE + " test_sweep_rows",
)
plant(
    "the stale file stays",
    file,
    "                _leave_out(file, keys)\n",
    "                pass\n",
    STORE + " test_sweep_rows test_trust",
)
plant(
    "journals stay beside their Parquet",
    file,
    "    for file in journals:\n        file.unlink(missing_ok=True)",
    "    for file in journals[1:]:\n        file.unlink(missing_ok=True)",
    STORE,
)
plant(
    "of two rows of one key the failed stays",
    file,
    'sort_values(["key", "failed"], kind="stable")',
    'sort_values(["key", "failed"], ascending=[True, False], kind="stable")',
    STORE,
)
plant("rows of one key stay", file, '.drop_duplicates("key", ignore_index=True)', ".reset_index(drop=True)", STORE)
plant("another version is read", file, "            if version != VERSION:\n", "            if False:\n", STORE)
plant("a used folder becomes a store", file, "if store.folder.exists() and (", "if False and (", STORE)
plant(
    "the beginning of a key finds the first of several",
    file,
    '        if len(rows) != 1:\n            raise InputError(f"{self.folder}',
    '        if not rows:\n            raise InputError(f"{self.folder}',
    STORE + " test_sweep_rows",
)

file = "sweeps/runner.py"
SWEEP = "test_sweep_rules test_sweep test_sweep_rows"
plant("what failed is not run again though asked", file, "or (retry and known[task.key])}", "}", SWEEP)
plant("what is there is run again", file, "if task.key not in known or", "if True or", SWEEP)
plant(
    "failures of before are not counted",
    file,
    "failed=sum(known.get(task.key, False) for task in tasks)",
    "failed=0",
    SWEEP,
)
plant("stores to merge are forgotten", file, "            opened.merge(other)\n", "            pass\n", SWEEP)
plant("a try that failed is not told", file, 'if row["failed"]],', 'if not row["failed"]],', SWEEP)
plant(
    "seconds of all are those of one process",
    file,
    '"seconds": each * len(left) / processes(jobs)',
    '"seconds": each * len(left)',
    SWEEP,
)
file = "sweeps/tasks.py"
plant(
    "a failed run is a success",
    file,
    'row |= {"failed": True, "error": _in_one_line(error)}',
    'row |= {"failed": False, "error": _in_one_line(error)}',
    SWEEP,
)
plant(
    "a workload's name lacks its seed",
    file,
    "spec.requests or 0, spec.seed, spec.replication",
    "spec.requests or 0, spec.replication",
    SWEEP + " test_grid",
)
plant(
    "a workload's name lacks its resampling",
    file,
    "spec.replication, spec.resampling",
    "spec.replication",
    SWEEP + " test_grid",
)
plant(
    "requests that taught a base are scored",
    file,
    "    if fitted.used:\n",
    "    if False:\n",
    SWEEP + " test_simulating test_categories",
)
plant(
    "a phase is not heeded",
    file,
    "phase=spec.phase, scored=scored)",
    "scored=scored)",
    SWEEP + " test_grid test_simulating",
)
plant("the recorded rate counts the first request", file, '(phases["size"] - 1).sum()', 'phases["size"].sum()', SWEEP)
plant(
    "the line of an error is the first of its trace",
    file,
    "traceback.extract_tb(error.__traceback__)[-1]",
    "traceback.extract_tb(error.__traceback__)[0]",
    SWEEP,
)
file = "sweeps/recorder.py"
plant("done runs stay to do", file, '            del self.todo[row["key"]]\n', "", SWEEP)
plant(
    "failures are not counted",
    file,
    '            self.progress.failed += row["failed"]\n        if',
    "        if",
    SWEEP,
)
plant("a batch loses its last run", file, "for task in left[-count:] if", "for task in left[-count + 1 :] if", SWEEP)
plant(
    "another driver's runs count twice",
    file,
    "            self.progress.done += 1\n            self.progress.failed += known[key]",
    "            self.progress.done += 2\n            self.progress.failed += known[key]",
    SWEEP,
)
file = "sweeps/local.py"
plant("a run is lost once and then alone", file, "LOSSES = 2 ", "LOSSES = 1 ", SWEEP)
plant("the run under way is not cleared", file, "        os.ftruncate(marker, 0)\n", "", SWEEP)

file = "sweeps/gate.py"
GATE = "test_gate_rules test_sweep_rules test_checking"
plant(
    "regressions are improvements",
    file,
    'if scenario.verdict == "regression"]',
    'if scenario.verdict == "improvement"]',
    GATE,
)
plant("counts of the same", file, "{count['same']} unchanged", "{count['improvement']} unchanged", GATE)
plant(
    "the best first",
    file,
    "scenarios.sort(key=lambda scenario: scenario.worst.rank)",
    "scenarios.sort(key=lambda scenario: scenario.worst.rank, reverse=True)",
    GATE,
)
plant("floors given are ignored", file, "floors={**known.floors, **floors}", "floors={**floors, **known.floors}", GATE)
plant("markdown always passes", file, "'fails' if self.regressions else 'passes'", "'passes'", GATE)
plant(
    "then and now are swapped in markdown",
    file,
    'f"{worst.then:.6g}", f"{worst.now:.6g}"',
    'f"{worst.now:.6g}", f"{worst.then:.6g}"',
    GATE,
)
plant(
    "no failure in JUnit",
    file,
    '            if one.verdict == "regression":\n',
    '            if one.verdict == "never":\n',
    GATE,
)
plant(
    "JUnit lists what became better",
    file,
    'if change.verdict == "regression"]\n                failure',
    'if change.verdict != "regression"]\n                failure',
    GATE,
)
plant(
    "old and new captures are swapped",
    file,
    "beside_changes(known, then, now) if beside",
    "beside_changes(known, now, then) if beside",
    GATE,
)
plant(
    "captures beside are held against stored ones",
    file,
    "if beside else stored_changes(known, now)",
    "if False else stored_changes(known, now)",
    GATE,
)
file = "sweeps/changes.py"
plant(
    "change of then against now",
    file,
    "(self.now - self.then) / abs(self.then) if self.then else math.inf",
    "(self.then - self.now) / abs(self.then) if self.then else math.inf",
    GATE,
)
plant(
    "relative to now",
    file,
    "(self.now - self.then) / abs(self.then) if self.then",
    "(self.now - self.then) / abs(self.now) if self.then",
    GATE,
)
plant("from zero is no change", file, "if self.then else math.inf", "if self.then else 0.0", GATE)
plant(
    "what is gone is the same",
    file,
    "            return math.inf  # it was known and is not",
    "            return 0.0  # it was known and is not",
    GATE,
)
plant("higher is never better", file, 'if BETTER[self.metric] == "higher":', "if False:", GATE)
plant(
    "the interval of a fall keeps its order",
    file,
    "change, low, high = -change, -high, -low",
    "change, low, high = -change, -low, -high",
    GATE,
)
plant(
    "a change is judged by its far end",
    file,
    "return max(0.0, low) if change > 0 else min(0.0, high)",
    "return max(0.0, high) if change > 0 else min(0.0, low)",
    GATE,
)
plant(
    "a change of the floor is too small",
    file,
    "abs(self.now - self.then) < self.floor",
    "abs(self.now - self.then) <= self.floor",
    GATE,
)
plant("the floor is relative", file, "abs(self.now - self.then) < self.floor", "abs(self.change) < self.floor", GATE)
plant(
    "a change of the tolerance is beyond it",
    file,
    "if self.worse > self.tolerance:",
    "if self.worse >= self.tolerance:",
    GATE,
)
plant(
    "an improvement needs no tolerance",
    file,
    '"improvement" if self.worse < -self.tolerance',
    '"improvement" if self.worse < 0',
    GATE,
)
plant(
    "the smallest regression first",
    file,
    'self.worse if self.verdict == "improvement" else -self.worse',
    'self.worse if self.verdict == "regression" else -self.worse',
    GATE,
)
plant(
    "improvements go before regressions",
    file,
    '{"regression": 0, "improvement": 1, "same": 2}',
    '{"regression": 1, "improvement": 0, "same": 2}',
    GATE,
)
plant(
    "the tolerance of a metric is ignored",
    file,
    "baseline.tolerances.get(metric, baseline.tolerance)",
    "baseline.tolerance",
    GATE,
)
plant("the floor of a metric is ignored", file, "floor = floor_of(metric, baseline.floors)", "floor = 0.0", GATE)
plant(
    "then and now are swapped in a pair",
    file,
    "(run.metrics[metric], _value(rows[run.name], metric))",
    "(_value(rows[run.name], metric), run.metrics[metric])",
    GATE,
)
plant("a failed run has its value", file, 'math.nan if row.get("failed") else', "", GATE)
plant(
    "replications with other seeds are one scenario",
    file,
    'if name not in ("replication", "resampling")}',
    'if name not in ("replication", "resampling", "policy")}',
    GATE,
)
plant(
    "how many went the same way: all",
    file,
    "sum((now - then) * (self.worst.now - self.worst.then) > 0 for",
    "sum((now - then) * (self.worst.now - self.worst.then) >= 0 or True for",
    GATE,
)
file = "sweeps/gated.py"
plant(
    "the unit goes before the metric",
    file,
    "floors.get(metric, floors.get(unit, FLOORS.get(unit, 0.0)))",
    "floors.get(unit, floors.get(metric, FLOORS.get(unit, 0.0)))",
    GATE,
)
plant("a floor that is no number is let in", file, "if not value >= 0]", "if value < 0]", GATE)
plant(
    "P99 is not gated",
    file,
    'for stat in ("mean", *PERCENTILES)),\n    "mae"',
    'for stat in ("mean", "p50", "p90")),\n    "mae"',
    GATE,
)
file = "sweeps/repeats.py"
plant(
    "repeats in the order of the call",
    file,
    'sorted(traces, key=lambda trace: trace.header.captured_at or "")',
    "traces",
    GATE,
)
plant(
    "two of one side in a row are a round",
    file,
    "all(sides[place] != sides[place + 1] for place in range(0, len(sides), 2))",
    "any(sides[place] != sides[place + 1] for place in range(0, len(sides), 2))",
    GATE,
)
plant("alternate captures of unequal number", file, "if len(then) != len(now) or not all", "if not all", GATE)
plant(
    "a pair's ratio is inverted",
    file,
    "np.log(np.asarray(now) / np.asarray(then))",
    "np.log(np.asarray(then) / np.asarray(now))",
    GATE,
)
plant(
    "a shift's ratio is inverted",
    file,
    "float(after.mean() - before.mean()), *welch_error(before, after)",
    "float(before.mean() - after.mean()), *welch_error(before, after)",
    GATE,
)
plant(
    "a shift of plain values",
    file,
    "before, after = np.log(then), np.log(now)",
    "before, after = np.asarray(then), np.asarray(now)",
    GATE,
)
plant(
    "groups of another workload are repeats",
    file,
    'return f"{setting} of {trace.header.workload.name}"',
    "return setting",
    GATE,
)
plant("what overlaps does not", file, "return max(first) < min(last)", "return max(first) > min(last)", GATE)
plant(
    "a single repeat has an interval",
    file,
    "student_quantile(self.freedom) * self.error if self.freedom > 0 else math.inf",
    "student_quantile(self.freedom) * self.error if self.freedom > 0 else 0.0",
    GATE,
)
file = "sweeps/beside.py"
plant("alternate captures are not paired", file, "    if alternately:\n", "    if False:\n", GATE)
plant(
    "captures are always paired",
    file,
    "alternately = captured_alternately(then, now)",
    "alternately = len(then) == len(now)",
    GATE,
)
plant(
    "captured runs have the tolerance of simulated ones",
    file,
    "limits.tolerances.get(metric, limits.captured_tolerance)",
    "limits.tolerances.get(metric, limits.tolerance)",
    GATE,
)
plant("low and high of a shift are swapped", file, "for sign in (-1, 1))", "for sign in (1, -1))", GATE)
plant(
    "the mean of repeats is arithmetic",
    file,
    "math.exp(math.fsum(map(math.log, values)) / len(values))",
    "math.fsum(values) / len(values)",
    GATE,
)
plant("stored repeats are not foreign", file, "how, foreign=True)", "how, foreign=False)", GATE)
plant(
    "a metric that is gone is left out",
    file,
    "            changes.append(MetricChange(name, metric, then, math.nan,",
    "            0 and changes.append(MetricChange(name, metric, then, math.nan,",
    GATE,
)
plant("a group without a counterpart is left out", file, "        if name not in now:\n", "        if False:\n", GATE)
file = "sweeps/baseline.py"
plant(
    "a new baseline forgets the tolerance",
    file,
    "tolerance if tolerance is not None else old.tolerance if old else SIMULATED",
    "tolerance if tolerance is not None else SIMULATED",
    GATE,
)
plant(
    "a new baseline forgets the floors",
    file,
    "{**(old.floors if old else FLOORS), **floors}",
    "{**FLOORS, **floors}",
    GATE,
)
plant(
    "a new baseline forgets captured runs",
    file,
    "captured=groups or (old.captured if old else [])",
    "captured=groups",
    GATE,
)
plant(
    "a failed run becomes a baseline",
    file,
    '        if row["failed"]:\n            raise',
    "        if False:\n            raise",
    GATE,
)

file = "trace/checks.py"
CHECKS = "test_keeping test_trace"
plant(
    "ids may be there twice",
    file,
    'table["request_id"].duplicated(), "a duplicate id"',
    'table["request_id"] == "", "a duplicate id"',
    CHECKS,
)
plant(
    "an output above its limit",
    file,
    '(output > table["max_tokens"]).fillna(False), "more',
    '(output > table["max_tokens"] + 1).fillna(False), "more',
    CHECKS,
)
plant(
    "an output of zero",
    file,
    "finished & ~(output >= 1).fillna(False)",
    "finished & ~(output >= 0).fillna(False)",
    CHECKS,
)
plant(
    "a prompt of zero",
    file,
    'yield Problem(name, table[name] < 1, "must be at least 1")',
    'yield Problem(name, table[name] < 0, "must be at least 1")',
    CHECKS,
)
plant(
    "times out of order are let in",
    file,
    "table[later] < latest - CLOCK_TOLERANCE_S, what)",
    "table[later] < latest - 1e9, what)",
    CHECKS,
)
plant(
    "an empty time forgets the ones before",
    file,
    "latest = table[later].fillna(latest)",
    "latest = table[later]",
    CHECKS,
)
plant(
    "a finished request without a finish",
    file,
    'finished & table["finish_s"].isna()',
    'finished & (table["finish_s"] < 0)',
    CHECKS,
)
plant("a prompt as long as the context", file, "finished & (prompt >= limit)", "finished & (prompt > limit)", CHECKS)
plant(
    "an output beyond the context",
    file,
    '(prompt + table["output_tokens"] > limit)',
    '(prompt + table["output_tokens"] > limit + prompt)',
    CHECKS,
)
plant(
    "dispatched twice in one place",
    file,
    "index.notna() & index.duplicated()",
    "index.isna() & index.duplicated()",
    CHECKS,
)
plant(
    "steps go back",
    file,
    'np.flatnonzero(np.diff(steps["start_s"].to_numpy()) < 0)',
    'np.flatnonzero(np.diff(steps["start_s"].to_numpy()) < -1e9)',
    CHECKS,
)
plant("a step that takes no time", file, "    bad[:, 1] |= values[:, 1] == 0  # a step takes time\n", "", CHECKS)
plant(
    "a phase that lacks requests",
    file,
    'if len(arrivals) != phase.requests and header.ended == "complete":',
    "if False:",
    CHECKS,
)
plant(
    "the first bad row is the last",
    file,
    "row = int(rows[0])\n            more",
    "row = int(rows[-1])\n            more",
    CHECKS,
)
file = "trace/trace.py"
plant(
    "the aborted are finished",
    file,
    "isin(FINISHED)]\n",
    'isin([*FINISHED, "abort"])]\n',
    CHECKS + " test_unfinished",
)
plant(
    "a simulation replaces a recorded run",
    file,
    '        if kind != "simulated":\n',
    "        if False:\n",
    CHECKS + " test_trust",
)
plant(
    "an unchecked trace is written",
    file,
    "        self.check(str(folder))\n        header = self.header",
    "        header = self.header",
    CHECKS,
)
plant("an unchecked trace is read", file, "    trace.check(str(folder))\n    object", "    object", CHECKS)
plant(
    "telemetry is not read",
    file,
    "telemetry=read_table(telemetry, SAMPLED, MAY_BE_SAMPLED) if telemetry.exists() else None",
    "telemetry=None",
    CHECKS + " test_recorder",
)
plant("another schema is read", file, 'content.get("schema_version") != SCHEMA_VERSION:', "False:", CHECKS)
file = "trace/builder.py"
plant(
    "the engine's count of a prompt is ignored",
    file,
    "np.where(counted < 0, offered[name].to_numpy(), counted)",
    "offered[name].to_numpy()",
    "test_recorder test_http",
)
plant(
    "a count of zero is none",
    file,
    "pd.arrays.IntegerArray(values, values < 0)",
    "pd.arrays.IntegerArray(values, values <= 0)",
    "test_engine test_laws test_recorder",
)
file = "trace/journal.py"
JOURNAL = "test_keeping test_journal test_hostile"
plant("a torn line is an error", file, "in enumerate(lines[:-1]):", "in enumerate(lines):", JOURNAL)
plant(
    "times of samples count from boot",
    file,
    'read_lines(folder / "telemetry.csv", start)',
    'read_lines(folder / "telemetry.csv", 0.0)',
    JOURNAL,
)
plant(
    "times of steps count from boot",
    file,
    'read_lines(folder / "steps.csv", start)',
    'read_lines(folder / "steps.csv", 0.0)',
    JOURNAL,
)
plant(
    "later lines replace earlier ones",
    file,
    "rows.setdefault(row, {}).update(values)",
    "rows[row] = values",
    JOURNAL,
)
plant(
    "half a line stays", file, "os.ftruncate(self._handle, os.fstat(self._handle).st_size - written)", "pass", JOURNAL
)
plant(
    "a living recorder is not seen",
    file,
    "        except BlockingIOError:\n            return True",
    "        except BlockingIOError:\n            return False",
    JOURNAL,
)
plant(
    "a journal goes before its trace is written",
    file,
    "        self._telemetry.close()\n        try:\n",
    "        self._telemetry.close()\n        for name in JOURNAL_FILES:\n            (self.folder / name).unlink(missing_ok=True)\n        try:\n",  # noqa: E501
    JOURNAL,
)
file = "workers.py"
plant(
    "no jobs are one process",
    file,
    "return jobs or cpu_count() or 1",
    "return jobs or 1",
    "test_sweep_rules",
)
plant(
    "a pickle of anybody is read",
    file,
    "if folder.st_uid != os.geteuid() or stat.S_IMODE(folder.st_mode) != 0o700:",
    "if False:",
    "test_sweep_rules test_trust",
)
