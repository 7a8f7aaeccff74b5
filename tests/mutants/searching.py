"""Faults of searches and readings: capacity, the worth of predictions, and the rows, gates and views of a sweep."""

from __future__ import annotations

from tests.mutants.fault import Table

FAULTS = Table()
plant = FAULTS.plant

SIZE, WORTH, ROWS, TASKS = "test_search_rules", "test_worth_rules", "test_row_rules", "test_task_rules"
GATE, GRID, BEST, COMMAND = "test_baseline_rules", "test_grid", "test_best_numbers", "test_sweep_rules"

file = "sizing/search.py"
plant("the second load is far", file, "min(len(self.held) - 1, 4)", "min(len(self.held), 4)", SIZE)
plant(
    "what held below counts as again",
    file,
    "if held and self.failed and load > self.failed)",
    "if held and self.failed and load < self.failed)",
    SIZE,
)
plant("users do not grow by one at least", file, "return load + 1 if self.whole else load", "return load", SIZE)
plant("the way down is slow", file, "self._bounded(min(failed**2", "self._bounded(max(failed**2", SIZE)
plant("up is down", file, "if up else min(self.held)", "if not up else min(self.held)", SIZE)
plant(
    "whole loads are apart by a share", file, "apart = 0.5 if self.whole else NEAR * load", "apart = NEAR * load", SIZE
)
plant(
    "a curve goes beyond the bounds",
    file,
    "load = min(max(rounded(load, self.whole), self.lowest), self.highest)\n            known",
    "load = rounded(load, self.whole)\n            known",
    SIZE,
)

file = "sizing/plan.py"
plant("a policy of tiers heeds estimates", file, ' or alone_by(setting.policy) == "tier"', "", SIZE)
plant("a tolerance of 1 is none", file, "LEAST_TOLERANCE, 1, ends=True)", "LEAST_TOLERANCE, 1)", SIZE)
plant("a load may be 0", file, "not _between(load, 0, 1e9)", "not _between(load, 0, 1e9, ends=True)", SIZE)

file = "sizing/run.py"
plant("what binds is asked just above", file, "if load >= BEYOND * self.load)", "if load <= BEYOND * self.load)", SIZE)
plant("what binds is asked at the lowest failure", file, "default=max(failed))", "default=min(failed))", SIZE)
plant("a draw of nobody counts", file, "own[~np.isnan(own).any(axis=1)] for", "own for", SIZE)
plant(
    "a curve grows at the other end", file, "[False] * below + [True] * above", "[False] * above + [True] * below", SIZE
)
plant("all engines have the bounds of the first", file, "name = repr((case.axis, case.value))", 'name = ""', SIZE)
plant("what binds is asked of one draw", file, '{**changes, "limits": True}', '{"limits": True}', SIZE)
plant(
    "the worst P99 is told", file, "return float(np.mean(known)) if known", "return float(np.max(known)) if known", SIZE
)
plant("curves do not grow", file, "MOST_BEYOND = 4", "MOST_BEYOND = 0", SIZE)

file = "sizing/loads.py"
plant("the first load is a rate", file, "GUESS * backlog / axis.unit_rate", "GUESS * backlog", SIZE)
plant("a user may send one request", file, "total // TURNS", "total", SIZE)
plant("the first load is beyond the bounds", file, "Bounds(min(max(guess, least), most)", "Bounds(guess", SIZE)

file = "sizing/curves.py"
plant("two resamples are too few", file, "len(local) < FEWEST - 1", "len(local) < FEWEST", SIZE)
plant(
    "short below is short above",
    file,
    "return below > CENSORED, above > CENSORED",
    "return above > CENSORED, below > CENSORED",
    SIZE,
)
plant("a resample that held once crosses above", file, ".all(axis=1)", ".any(axis=1)", SIZE)
plant("the narrower kind of resamples counts for a mean", file, "np.max([own.std(", "np.min([own.std(", SIZE)
plant("the narrower kind of resamples counts for a change", file, "error = max(float", "error = min(float", SIZE)

file = "sizing/result.py"
plant(
    "a gap between tokens has a P99",
    file,
    'for name in slo.limits if name != "itl"))',
    "for name in slo.limits))",
    SIZE,
)

file = "sizing/wording.py"
plant("the day is its own resample", file, "{count - 1} resamples of", "{count} resamples of", SIZE)
plant(
    "a share of the time is one of what waits",
    file,
    '100 * min(1.0, shares[f"{binds}_share"] / held_share(shares))',
    '100 * min(1.0, shares[f"{binds}_share"])',
    SIZE,
)

file = "worth/engines.py"
plant(
    "a roomy cache lacks the empty block",
    file,
    "self.blocks(self.longest) + 1\n        if limit",
    "self.blocks(self.longest)\n        if limit",
    WORTH,
)
plant(
    "a small cache is made large",
    file,
    "min(own.kv_blocks, own.max_num_seqs * self.blocks(mean) + 1)",
    "own.max_num_seqs * self.blocks(mean) + 1",
    WORTH,
)
plant("a cache holds no longest request", file, 'max(blocks, self.least("kv"))', "blocks", WORTH)
plant(
    "whole prompts are cut",
    file,
    "own.max_num_seqs if own.enable_chunked_prefill else",
    "own.max_num_seqs if not own.enable_chunked_prefill else",
    WORTH,
)
plant(
    "slots are more than the budget",
    file,
    'min(more[KEYS[limit]], self.value("prefill", changes))',
    "more[KEYS[limit]]",
    WORTH,
)
plant("a limit is halved beyond its least", file, "max(least, value // 2)", "max(1, value // 2)", WORTH)
plant("what gains nothing binds", file, "if gains[limit] >= LEAST_GAIN and ", "if ", WORTH)
plant("a context is longer than the engine's", file, "min(tokens, self.own.max_model_len)", "tokens", WORTH)

file = "worth/plan.py"
plant("an estimator may come twice", file, "*dict.fromkeys(self.estimators)", "*self.estimators", WORTH)
plant("newcomers that wait are let in by no estimate", file, " or rule.defer_s", "", WORTH)

file = "worth/run.py"
plant("sessions are one request", file, "return self.turns * self.axis.unit_rate", "return self.axis.unit_rate", WORTH)
plant("nobody is told apart", file, '"fairness": True', '"fairness": False', WORTH)
plant("tenants are forgotten", file, " or (column.startswith(TENANT) and column.endswith(SLOWDOWN))", "", WORTH)
plant("what has no rate is pressed", file, "if axis.whole or not axis.unit_rate > 0:", "if axis.whole:", WORTH)

file = "worth/result.py"
plant("a calm load is told twice", file, "if not load <= calm:", "if not load < calm:", WORTH)
plant(
    "regrets trade places",
    file,
    'for part in ("order", "admission", "policy")]',
    'for part in ("admission", "order", "policy")]',
    WORTH,
)

file = "worth/answers.py"
plant(
    "a replication without a value is a mean", file, "if np.isnan(values).any():", "if np.isnan(values).all():", WORTH
)
plant(
    "resamples of a kind are both kinds", file, 'own["local"], own["circular"])', 'own["local"], own["local"])', WORTH
)
plant("FIFO has a sigma", file, '"sigma": sigma if used else np.nan', '"sigma": sigma', WORTH)
plant(
    "a sigma is like itself",
    file,
    "self.like_sigma(cell, setting) if np.isnan(sigma) else np.nan",
    "self.like_sigma(cell, setting)",
    WORTH,
)

file = "worth/wording.py"
plant("a doubtful gain is worth it", file, "(gains if change.high < 0", "(gains if change.value < 0", WORTH)

file = "sweeps/rows.py"
plant("more is at least", file, '">": np.greater,', '">": np.greater_equal,', ROWS)
plant("a truth is written as Python does", file, "wanted.capitalize() if truths else wanted", "wanted", ROWS)
plant("what is infinite has a mean", file, ".where(lambda known: np.isfinite(known))", "", ROWS)
plant("nothing is no other value", file, "nunique(dropna=False) > 1]", "nunique() > 1]", ROWS)
plant("tiers without keys are no parameter", file, "if len(tiers) != 1 else", "if len(tiers) > 1 else", ROWS)
plant("a drawn workload has all keys", file, "table[keys].notna().any(axis=1)", "table[keys].notna().all(axis=1)", ROWS)
plant("blanks hide who asks for failures", file, 'condition.replace(" ", "").lower()', "condition.lower()", ROWS)
plant("a view does not read what was drawn", file, 'or heads[name] == "workload" or', "or", ROWS)
plant("a view does not read the seeds", file, "kept |= {*REPEATS, *named}", "kept |= {*named}", ROWS)
plant("a metric that others have is to be asked for", file, " and metrics[0].name not in table:", ":", ROWS)

file = "sweeps/row_files.py"
plant("a column with gaps has one value", file, " or known.null_count != 0", "", ROWS)
plant("any file tells its NaN", file, 'ours = b"pandas" in (told.metadata or {})', "ours = True", ROWS)
plant(
    "the least is the only value",
    file,
    "{(type(known.min), known.min), (type(known.max), known.max)}",
    "{(type(known.min), known.min)}",
    ROWS,
)
plant("two columns of one name are rows", file, "len(set(there)) == len(there) and _all", "_all", ROWS)
plant("rows may be lost with the power", file, "os.fsync(handle.fileno())", "pass", ROWS)
plant("half a file stays", file, "        aside.unlink(missing_ok=True)\n", "", ROWS)

file = "sweeps/gate.py"
plant(
    "ten are more than ten",
    file,
    "if len(self.moved) > MOST_LINES:\n            told",
    "if len(self.moved) >= MOST_LINES:\n            told",
    GATE,
)
plant("no name is a scenario's", file, "groups.get(only) or [run", "[run", GATE)
plant("a headline without power hides all", file, "or all(math.isnan(value)", "or any(math.isnan(value)", GATE)
plant(
    "captured runs are held against none", file, "if captured and not beside and not known.captured:", "if False:", GATE
)
plant("a store may do nothing", file, "if not known.runs and store:", "if False:", GATE)
plant(
    "the command forgets its floors", file, 'for part in ("--floor", f"{name}={value!r}")]', "for part in ()]", COMMAND
)
plant("the command forgets its SLOs", file, 'for part in ("--slo", str(slo))]', "for part in ()]", COMMAND)
plant("another's captures are in the command", file, "if group_name(trace) == scenario.name for part", "for part", GATE)

file = "sweeps/gated.py"
plant("a floor is of units alone", file, '("floors", [*FLOORS, *BETTER])', '("floors", [*FLOORS])', GATE)
plant(
    "sessions are not gated",
    file,
    '    *(f"{name}_s" for name in SESSION_METRICS),  # where there are sessions\n',
    "",
    GATE,
)
plant("fairness is not gated", file, "    *(metric.name for metric in FAIRNESS),  # where it was asked for\n", "", GATE)

file = "sweeps/runs.py"
plant("a resampling that is said is ignored", file, ' or "resampling" in whole else', " else", GRID)
plant(
    "values of two axes are one part",
    file,
    "number = number * len(self._bundles[at]) + places[at]",
    "number = number + places[at]",
    GRID,
)
plant("the last run is none", file, "            number += len(self)\n", "            number += len(self) - 1\n", GRID)
plant("paths are placed twice", file, " or whole.traces or", " or", GRID)

file = "sweeps/store.py"
plant(
    "a killed driver blocks its folder",
    file,
    'any(not file.name.startswith(f".{MARK}.") for file in folder.iterdir())',
    "any(folder.iterdir())",
    ROWS,
)
plant("a store is made in a trace", file, "        check_outside(store.folder)\n", "", ROWS)
plant("what differs within a part differs not", file, "None in values or len(values) > 1", "len(values) > 1", ROWS)

file = "sweeps/tasks.py"
plant(
    "a profile's warnings are of each trace",
    file,
    "[text for text in found if text not in profile.warnings]",
    "found",
    TASKS,
)
plant(
    "SLOs of a trace do not serve its policy",
    file,
    "check_needs(spec.policy, spec.slos or _own_slos(spec, inputs))",
    "check_needs(spec.policy, spec.slos)",
    TASKS,
)
plant(
    "queue limits may be of nobody",
    file,
    '            check_present(spec.shed, "queue limit", tenants, tiers)\n',
    "",
    TASKS,
)
plant("other arrivals have the recorded rate", file, " and task.spec.arrivals is None:", ":", TASKS)
plant("the end is measured", file, "if spec.warm_up or spec.cool_down:", "if spec.warm_up:", TASKS)
plant(
    "limits bind in the middle alone",
    file,
    "limit_shares(whole, scenario, trace)",
    "limit_shares(trace, scenario, trace)",
    TASKS,
)
plant(
    "gaps between tokens are not looked at",
    file,
    "task.spec.step_requests or needs_itl(slos)",
    "task.spec.step_requests",
    TASKS,
)
plant(
    "errors are of what taught, too",
    file,
    "own = estimation(trace, scored=scored, phase=spec.phase)",
    "own = estimation(trace, phase=spec.phase)",
    TASKS,
)
plant("a backlog has a rate", file, 'phase.kind in ("closed", "backlog")', 'phase.kind in ("closed",)', TASKS)
plant(
    "arrivals do not make a workload",
    file,
    'arrivals = "" if spec.arrivals is None else spec.arrivals.model_dump_json()',
    'arrivals = ""',
    TASKS,
)
plant("a drawn workload has no default tenant", file, '(() if tables else (Tenant(name="default"),))', "()", TASKS)

file = "sweeps/results.py"
plant("two traces are no pair", file, ' or any(part.startswith("trace") for part in one)', "", ROWS)
plant("one column is two", file, " or down == across", "", ROWS)

file = "sweeps/changes.py"
plant("what is gone is of another machine", file, " and not math.isnan(self.worst.now)", "", GATE)
plant(
    "metrics are those of the first run",
    file,
    "for run in group for metric in run.metrics)",
    "for run in group[:1] for metric in run.metrics)",
    GATE,
)
plant("a resample keeps its name", file, "(replication \\d+|resampling \\w+)", "(replication \\d+)", GATE)

file = "sweeps/best.py"
plant("one setting is as good as unknown", file, "if known or not rivals else", "if known else", BEST)
plant("settings without another are as good", file, "if again and others:", "if again:", BEST)
plant(
    "groups of nothing are left out",
    file,
    "else np.zeros(len(means)), dropna=False)",
    "else np.zeros(len(means)))",
    BEST,
)

file = "sweeps/spread.py"
plant("the day with most resamples counts", file, "fewest = min(max(", "fewest = max(max(", BEST)

file = "sweeps/repeats.py"
plant("zero has a logarithm", file, "if row.get(metric, np.nan) > 0}", "if row.get(metric, np.nan) >= 0}", GATE)
plant("a floor is a share", file, "(tolerance, floor / then)", "(tolerance, floor)", GATE)
plant(
    "a limit beyond nothing is found", file, "if sign * part > -1 else math.inf", "if sign * part > -1 else 0.0", GATE
)
plant(
    "too large a ratio is an error", file, "if logarithm < 700 else math.inf", "if logarithm < 7000 else math.inf", GATE
)

file = "sweeps/beside.py"
plant("a share that is gone is an error", file, "(metric in known or metric not in SLO_METRICS)", "True", GATE)
plant(
    "a share that is 0 now and then is fine",
    file,
    "(metric in known or metric not in SLO_METRICS)",
    "(metric not in SLO_METRICS)",
    GATE,
)
plant("a drift is told where there is none", file, "if not overlapping(then, now):", "if overlapping(then, now):", GATE)

file = "sweeps/baseline.py"
plant("no rank is below 0", file, 'lowest = -1.0 if name == "kendall_tau" else 0.0', "lowest = 0.0", GATE)
plant(
    "an estimator of a baseline is trusted",
    file,
    'for name in ("policy", "estimator"):\n        check',
    'for name in ("policy",):\n        check',
    GATE,
)
plant(
    "a tolerance of captures is forgotten",
    file,
    "captured_tolerance=old.captured_tolerance if old else CAPTURED",
    "captured_tolerance=CAPTURED",
    GATE,
)
plant("a baseline of nothing is one", file, "if grid is None and old is None and not captured:", "if False:", GATE)
