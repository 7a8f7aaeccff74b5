"""Faults at the edges of small rules, in reports, in what is told and in what an input may say."""

from __future__ import annotations

from tests.mutants.fault import Table

FAULTS = Table()
plant = FAULTS.plant

EDGES, ACCESS, ADVICE = "test_boundaries", "gateway/test_access", "test_advice"
plant(
    "a rise without an interval falls",
    "comparison/wording.py",
    "return f\"{'falls' if change.value < 0 else 'rises'}",
    "return f\"{'falls' if change.value < 1 else 'rises'}",
    EDGES,
)
file = "comparison/turns.py"
plant(
    "nothing changes only where everything is lost",
    file,
    "if change == (0.0, 0.0, 0.0):",
    "if change == (1.0, 0.0, 0.0):",
    EDGES,
)
plant(
    "what is sure stands in brackets",
    file,
    "return text if real or math.isnan(change.low)",
    "return text if math.isnan(change.low)",
    EDGES,
)
plant(
    "a context of all the cache does not fit",
    "trace/settings.py",
    "if self.max_model_len > room and",
    "if self.max_model_len >= room and",
    EDGES,
)
plant(
    "the first second of telemetry is lost",
    "trace/tables.py",
    "~(table.iloc[:, 0] < 0)",
    "~(table.iloc[:, 0] < 1)",
    EDGES,
)
plant(
    "speeds are not told",
    "simulation/replicas.py",
    "said += f\"; speeds {', '.join(f'{speed:g}' for speed in self.speeds)}\" if self.speeds else \"\"",
    'said += ""',
    EDGES,
)
plant(
    "an outcome shows the answer",
    "live/engine.py",
    "answer: str | None = field(default=None, repr=False)",
    "answer: str | None = None",
    EDGES,
)
plant("one tenant too few is told apart", "tenants.py", "order[: MOST - 1]", "order[: MOST - 2]", EDGES)
plant(
    "ends that nobody had are told",
    "outcomes.py",
    'if row[name] or name == "finished"',
    'if row[name] or name != "finished"',
    EDGES,
)
plant(
    "one moment is no time",
    "metrics.py",
    "if len(times) < 2 or not span > 0:\n        return 0.0\n    return float(np.diff",
    "if len(times) < 3 or not span > 0:\n        return 0.0\n    return float(np.diff",
    EDGES,
)
file = "statistics.py"
plant(
    "days without resamples are summed",
    file,
    "DayEstimate(float(np.mean(values))",
    "DayEstimate(float(np.sum(values))",
    EDGES,
)
plant("every mean has moved", file, "moved: bool = False", "moved: bool = True", EDGES)
plant(
    "the last group goes",
    "sweeps/plot.py",
    "np.linspace(0, len(groups) - 1, most)",
    "np.linspace(0, len(groups) - 2, most)",
    EDGES,
)
plant(
    "words are asked for where all rows lack them",
    "simulation/bases.py",
    "if lengths.isna().any():",
    "if lengths.isna().all():",
    EDGES,
)
plant("two runs are no repeats", "validation/agreement.py", "FEWEST = 2", "FEWEST = 3", EDGES)
plant(
    "rounds are counted short",
    "validation/equivalence.py",
    "round_by_round.freedom + 1",
    "round_by_round.freedom - 1",
    EDGES,
)
plant(
    "folders of one name are one",
    "validation/result.py",
    "names = [str(trace.source or trace.name)",
    "names = [str(trace.name)",
    EDGES,
)
plant(
    "who orders inside chooses nothing",
    "comparison/sameness.py",
    '.get("place") == "inside"',
    '.get("place") != "inside"',
    EDGES,
)
plant(
    "a part is told where there is one",
    "comparison/slos.py",
    "in masks.items() if len(masks) > 1 else ():",
    "in masks.items():",
    EDGES,
)
plant(
    "words are asked for where tokens count",
    "gateway/learning.py",
    'if admission.unit.unit == "whitespace" and admission',
    "if admission",
    EDGES,
)

plant(
    "a wrong key is repeated",
    "gateway/config.py",
    "may_hold_keys: ClassVar[bool] = True",
    "may_hold_keys: ClassVar[bool] = False",
    ACCESS,
)
plant(
    "a text is told that may be a key",
    "records.py",
    'isinstance(problem["input"], int | float | None)',
    'problem["type"] != "extra_forbidden"',
    ACCESS,
)
file = "urls.py"
plant("a password in a URL is fine", file, 'for sign in "@?#"', 'for sign in "?#"', f"{ACCESS} {ADVICE}")
plant("a query in a URL is fine", file, 'for sign in "@?#"', 'for sign in "@#"', f"{ACCESS} {ADVICE}")
plant("a port may be any", file, "and parts.port != 0", "", ACCESS)
plant(
    "a host may have blanks",
    file,
    'if not is_one or not all("!" <= sign <= "~" for sign in url):',
    "if not is_one:",
    ACCESS,
)
file = "gateway/config.py"
plant("a server counts twice", file, "if len(set(self.upstreams)) < len(self.upstreams):", "if False:", ACCESS)
file = "gateway/recording.py"
plant("a gateway records into a trace", file, '    check_outside(folder / "new")\n', "", ACCESS)
plant("a gateway records into a file", file, "        check_place(folder)\n        return", "        return", ACCESS)
plant(
    "nobody looks where a gateway records",
    "gateway/serving.py",
    "        check_folder(Path(config.record))\n",
    "",
    ACCESS,
)
file = "advice.py"
plant("a gateway may take any time", file, "reader.join(ASK_S)", "reader.join()", ADVICE)
plant("what is no HTTP is a mistake of ours", file, "RecursionError, HTTPException)", "RecursionError)", ADVICE)
file = "costs.py"
plant("idle costs more than busy", file, "(both.idle_watts or 0.0) > (both.busy_watts or 0.0)", "False", "test_costs")
plant(
    "odd telemetry is the user's mistake",
    file,
    "if (idle is not None or busy is not None) and (both",
    "if (both",
    "test_costs",
)
plant(
    "an idle power alone is taken", file, "if idle is not None and both.busy_watts is None:", "if False:", "test_costs"
)
plant("policies are an axis", "sizing/plan.py", '"policy": "--policies names those", ', "", "test_sizing")
plant("one run counts twice in a fit", "calibration/runs.py", "    check_each_once((", "    list((", "test_calibrate")
plant("one run is its own repeat", "validation/result.py", "    check_each_once((", "    list((", "test_validate")
plant(
    "runs of no digest are one", "trace/trace.py", "if digest and digest in seen", "if digest in seen", "test_calibrate"
)
plant(
    "a new store is made before others are looked at",
    "sweeps/runner.py",
    "    others = [Store.open(other) for other in merge]  # before a new store is made\n",
    "    Store.open(store, create=True)\n    others = [Store.open(other) for other in merge]\n",
    "test_sweep_rules",
)
plant(
    "a setting is paired with itself",
    "sweeps/results.py",
    "if sorted(sides[0]) == sorted(sides[1]):",
    "if False:",
    "test_reading",
)
plant(
    "one engine is routed to",
    "cli/compare.py",
    "    if replicas in (None, 1):\n",
    "    if replicas == 1:\n",
    "test_errors",
)

plant(
    "runs without a value are in no pivot",
    "sweeps/results.py",
    "rows[across]], dropna=False",
    "rows[across]], dropna=True",
    EDGES,
)
plant("the two kinds of resamples trade places", "sweeps/spread.py", "(kind == name)", "(kind != name)", EDGES)
plant(
    "times of an end count twice from the begin",
    "gateway/recording.py",
    "value - segment.begun if",
    "value + segment.begun if",
    EDGES,
)
plant(
    "a group of all nothing is one", "formats/mapping.py", '(None, "", "[]", 0, "0")', '(None, "", "[]", 1, "0")', EDGES
)
file = "formats/ties.py"
plant(
    "a parent is the last but one of its name",
    file,
    "bisect_left(there, place) - 1",
    "bisect_left(there, place) - 2",
    EDGES,
)
plant(
    "a parent of another moment is waited for", file, "if begin <= one < end and one != place", "if one != place", EDGES
)

plant(
    "times are alike to the smaller tolerance",
    "trace/loops.py",
    "return max(SAME_S, SAME_SHARE",
    "return min(SAME_S, SAME_SHARE",
    EDGES,
)
plant(
    "a token takes as long as its answer", "workloads/unfinished.py", "[gaps > 0] / gaps[gaps > 0]", "[gaps > 0]", EDGES
)
plant(
    "a rate that nobody knows is told",
    "sizing/wording.py",
    '"" if math.isnan(rate) else f" ({rate',
    '"" if rate == 0 else f" ({rate',
    EDGES,
)
plant(
    "a parent of another phase starts a turn",
    "workloads/replay.py",
    " and done[one] and phases[one] == phase]",
    " and done[one]]",
    EDGES,
)
NOTHING = "test_does_nothing"
plant("one request has a worth", "worth/run.py", "if len(sample) < 2:", "if len(sample) < 1:", NOTHING)
plant("retries are of nothing", "comparison/plan.py", "and not fails and not any(", "and fails and not any(", NOTHING)
plant("no retry is one", "comparison/plan.py", "plan.clients.retries.most and not fails", "not fails", NOTHING)
plant("deadlines are no end", "workloads/attempts.py", '("timeout_s", "deadline_s", "patience_s") if',
      '("timeout_s", "patience_s") if', NOTHING)  # fmt: skip
plant("any column is a time", "workloads/attempts.py", "workload.table[known].notna().any(axis=None)", "known", NOTHING)
plant("a router has one engine", "cli/simulate.py", ".replicas.count == 1:", ".replicas.count == 0:", NOTHING)
plant("two engines are one", "cli/simulate.py", ".replicas.count == 1:", ".replicas.count <= 2:", NOTHING)
plant("no tiers are the trace's in value", "cli/value.py", "() if tiers is None else tiers", "tiers or ()", NOTHING)
plant(
    "no tiers are the trace's in capacity", "cli/capacity.py", "() if tiers is None else tiers", "tiers or ()", NOTHING
)
plant("no tiers are the trace's in compare", "cli/compare.py", "() if tiers is None else tiers", "tiers or ()", NOTHING)
plant("a run is beside itself", "cli/view.py", "places.count(place) > 1]", "places.count(place) > 2]", NOTHING)
plant("a path is a run", "cli/view.py", "[trace.resolve() for trace in traces]", "list(map(str, traces))", NOTHING)
plant(
    "rows are read for nothing", "cli/show.py", "        check_file(csv)  # before", "        pass  # before", NOTHING
)
CASES, RULES = "test_small_cases", "test_small_rules"
plant(
    "a change of capacity is of cases that failed",
    "sizing/answers.py",
    "known = base != one.case and states",
    "known = base != one.case or states",
    CASES,
)
plant(
    "a change of capacity is upside down",
    "sizing/answers.py",
    "change(curve, curves[base]) if known",
    "change(curves[base], curve) if known",
    CASES,
)
plant(
    "a capacity is held against none",
    "sizing/answers.py",
    'states[base] == states[one.case] == "found"',
    'states[base] != states[one.case] == "found"',
    CASES,
)
plant(
    "the rate of a backlog is an overload",
    "sizing/answers.py",
    "self.found.load > self.found.bounds.backlog",
    "self.found.load >= self.found.bounds.backlog",
    CASES,
)
plant(
    "what failed is an overload",
    "sizing/answers.py",
    'self.state != "below" and bool(',
    'self.state != "found" or bool(',
    CASES,
)
plant(
    "an overload is of loads",
    "sizing/answers.py",
    "bool(self.unit_rate * self.found.load >",
    "bool(self.found.load >",
    CASES,
)
plant(
    "the engine of a case is the other one",
    "sizing/result.py",
    '{case.value}" if case.axis else first',
    '{case.value}" if not case.axis else first',
    CASES,
)
plant(
    "the engine of a case is the last",
    "sizing/result.py",
    "{short_axis(axis)} {values[0]}",
    "{short_axis(axis)} {values[-1]}",
    CASES,
)
plant(
    "what held again is what failed",
    "sizing/wording.py",
    'f"{number(answer.found.search.failed or math.nan)}, which',
    'f"{number(again[0])}, which',
    CASES,
)
plant(
    "what held again is the last",
    "sizing/wording.py",
    "{number(again[0])} held again",
    "{number(again[-1])} held once",
    CASES,
)
plant(
    "the fewest steps are too few",
    "calibration/calibrate.py",
    "None and len(run.trace.steps) >= FEWEST_STEPS]",
    "None and len(run.trace.steps) > FEWEST_STEPS]",
    CASES,
)
plant(
    "answers of two tokens are single",
    "calibration/from_requests.py",
    '(done["output_tokens"] < 2)',
    '(done["output_tokens"] <= 2)',
    CASES,
)
plant(
    "single answers count as long ones",
    "calibration/from_requests.py",
    "len(done) - single < FEWEST_REQUESTS",
    "len(done) < FEWEST_REQUESTS",
    CASES,
)
plant(
    "eight tokens are too few",
    "calibration/guards.py",
    'rows["output_tokens"] >= 8',
    'rows["output_tokens"] > 8',
    CASES,
)
plant(
    "seven tokens are enough",
    "calibration/guards.py",
    'rows["output_tokens"] >= 8',
    'rows["output_tokens"] >= 7',
    CASES,
)
plant(
    "twenty neighbours are too few", "calibration/guards.py", "known.sum() < FEWEST:", "known.sum() <= FEWEST:", CASES
)
plant(
    "graphs make a form simpler",
    "calibration/held_out.py",
    "len(one.form.terms) + one.form.graphs, one",
    "len(one.form.terms) - one.form.graphs, one",
    CASES,
)
plant(
    "graphs are no term",
    "calibration/held_out.py",
    "(len(one.form.terms) + one.form.graphs, one.error)",
    "(len(one.form.terms), one.error)",
    CASES,
)
plant(
    "the worse of two simple forms",
    "calibration/held_out.py",
    "one.form.graphs, one.error)",
    "one.form.graphs, -one.error)",
    CASES,
)
plant(
    "a drawn workload has a name",
    "sweeps/naming.py",
    "digests[drawn].nunique() > told",
    "digests[drawn].nunique() >= told",
    CASES,
)
plant(
    "a drawn workload has none",
    "sweeps/naming.py",
    "digests[drawn].nunique() > told",
    "digests[drawn].nunique() > told + 1",
    CASES,
)
plant(
    "lists of replicas are lists",
    "sweeps/asked.py",
    "if isinstance(value, list) else value",
    "if not isinstance(value, list) else value",
    CASES,
)
plant(
    "tenants of one name are one",
    "sweeps/asked.py",
    "name if names.count(name) == 1 else",
    "name if names.count(name) >= 1 else",
    CASES,
)
plant(
    "tenants have their categories",
    "sweeps/asked.py",
    "name if names.count(name) == 1 else",
    "name if names.count(name) == 2 else",
    CASES,
)
plant(
    "lines are never results",
    "formats/head.py",
    "if isinstance(record, dict) else {}, _is_result(record))\n    if",
    "if isinstance(record, dict) else {}, False)\n    if",
    CASES,
)
plant(
    "lines are results",
    "formats/head.py",
    "if isinstance(record, dict) else {}, _is_result(record))\n    if",
    "if isinstance(record, dict) else {}, True)\n    if",
    CASES,
)
plant(
    "a context is half as long",
    "latency/roofline.py",
    '"max_position_embeddings", 8192',
    '"max_position_embeddings", 4096',
    CASES,
)
plant(
    "words are tokens",
    "comparison/estimators.py",
    'plan.admission.unit.unit == "tokenizer"',
    'plan.admission.unit.unit != "tokenizer"',
    CASES,
)
plant("a plan is an outcome", "formats/blis.py", 'in ("generated", "replayed"))', 'in ("generated",))', RULES)
plant("an outcome is a plan", "formats/blis.py", 'header.get("mode") in ("generated", "replayed")', "True", RULES)
plant(
    "policies are called policies",
    "sweeps/plot.py",
    "label(said(value)) if name in NAMED",
    "label(said(value)) if name not in NAMED",
    RULES,
)
plant(
    "colours are lines",
    "sweeps/plot.py",
    "Look.of(number * looks[0], number * looks[1])",
    "Look.of(number * looks[1], number * looks[0])",
    RULES,
)
plant(
    "two leave out of order",
    "scheduling/dispatcher.py",
    "if len(departures) > 1:\n            ordered = sorted",
    "if len(departures) > 2:\n            ordered = sorted",
    RULES,
)
plant(
    "old offers are kept", "scheduling/flows.py", "> 2 * len(self._offers) + 64", "> 2 * len(self._offers) * 64", RULES
)
plant(
    "jobs of laws have no prompt",
    "simulation/laws.py",
    "estimate, tokens + estimate, index",
    "estimate, estimate, index",
    RULES,
)
plant(
    "blocks in a row are apart",
    "engine/prefixes.py",
    "if last.end > start:\n                self._register_among",
    "if last.end >= start:\n                self._register_among",
    RULES,
)
plant("a session has its last tier", "sessions.py", 'each(rows["tier"]).first()', 'each(rows["tier"]).last()', RULES)
plant("twenty estimates are too few", "estimates.py", "len(moved) < SMOOTHED", "len(moved) <= SMOOTHED", RULES)
plant("nineteen estimates are enough", "estimates.py", "len(moved) < SMOOTHED", "len(moved) < SMOOTHED - 1", RULES)
plant("a load of 1 is calm", "worth/wording.py", "any(load >= 1 for", "any(load > 1 for", RULES)
plant("a load of 0.9 is not", "worth/wording.py", "any(load >= 1 for", "any(load >= 0.9 for", RULES)
plant(
    "two draws are too few",
    "worth/wording.py",
    "(2 if plan.spec.workload is not None else 3)",
    "(3 if plan.spec.workload is not None else 3)",
    RULES,
)
plant(
    "a day and a resample are enough",
    "worth/wording.py",
    "plan.replications < (2",
    "plan.replications < 2 or 0 > (2",
    RULES,
)
plant(
    "turns that may come are lost",
    "live/recorder.py",
    "if self.arrivals.done else 0\n",
    "if not self.arrivals.done else 0\n",
    RULES,
)
plant(
    "turns that were sent are lost",
    "live/recorder.py",
    "lost = len(self.workload) - self.arrived if",
    "lost = self.arrived if",
    RULES,
)
plant(
    "a package without a place is there",
    "live/model.py",
    "if spec is None or spec.origin is None:",
    "if spec is None:",
    RULES,
)
plant(
    "a model is told where nobody asks",
    "live/model.py",
    'if __name__ == "__main__":',
    'if __name__ != "__main__":',
    RULES,
)
plant("a recording begins with two phases' requests", "gateway/heading.py", "requests=1),)", "requests=2),)", RULES)
plant("a body may be of nothing", "gateway/config.py", "default=32.0, gt=0,", "default=32.0, ge=0,", RULES)
plant("a body is larger", "gateway/config.py", "default=32.0, gt=0, le=1e4", "default=33.0, gt=0, le=1e5", RULES)
plant("every look is for alarms", "gateway/watching.py", "if turn % 5 == 0:", "if turn % 5 != 0:", RULES)
plant("every fourth look is for alarms", "gateway/watching.py", "if turn % 5 == 0:", "if turn % 4 == 0:", RULES)
NUMBERS = "test_core_numbers"
plant(
    "an engine that idles draws what a busy one does",
    "costs.py",
    "(length * count - busy)",
    "(length * count)",
    NUMBERS,
)
plant(
    "energy is of the busy time twice",
    "costs.py",
    "joules = costs.busy_watts * busy +",
    "joules = 2 * costs.busy_watts * busy +",
    NUMBERS,
)
plant(
    "a price is of the busy time",
    "costs.py",
    "costs.price_per_hour * length * count / 3600",
    "costs.price_per_hour * busy * count / 3600",
    NUMBERS,
)
plant("a thousand tokens are one", "costs.py", "KILO * amount / tokens", "amount / tokens", NUMBERS)
plant(
    "half a watt is no power",
    "costs.py",
    'default=None, gt=0, le=1e6, description="Power of an engine that serves."',
    'default=None, gt=1, le=1e6, description="Power of an engine that serves."',
    NUMBERS,
)
plant(
    "equal powers are refused",
    "costs.py",
    "(both.idle_watts or 0.0) > (both.busy_watts or 0.0)",
    "(both.idle_watts or 0.0) >= (both.busy_watts or 0.0)",
    NUMBERS,
)
plant("two rounds have no error", "contrasts.py", "if rounds > 1 else math.nan", "if rounds > 2 else math.nan", NUMBERS)
plant(
    "rounds without a partner count",
    "contrasts.py",
    "rounds = min(len(ones), len(others))",
    "rounds = max(len(ones), len(others))",
    NUMBERS,
)
plant(
    "one degree of freedom has no interval",
    "contrasts.py",
    "        if self.freedom < 1:\n",
    "        if self.freedom <= 1:\n",
    NUMBERS,
)
plant(
    "one degree of freedom has no p",
    "contrasts.py",
    "if self.freedom < 1 or not math.isfinite",
    "if self.freedom < 2 or not math.isfinite",
    NUMBERS,
)
plant(
    "a sure difference of none is one",
    "contrasts.py",
    "return float(self.value == 0)",
    "return float(self.value == 1)",
    NUMBERS,
)
plant(
    "days differ by chance alone",
    "statistics.py",
    "return DayEstimate(centre, between, count - 1, days[0].recorded)",
    "return DayEstimate(centre, within, freedom, days[0].recorded)",
    NUMBERS,
)
plant(
    "days that are alike are sure",
    "statistics.py",
    "return DayEstimate(centre, within, freedom, days[0].recorded)",
    "return DayEstimate(centre, between, freedom, days[0].recorded)",
    NUMBERS,
)
plant(
    "the first day is the last",
    "statistics.py",
    "centre, between, count - 1, days[0].recorded)",
    "centre, between, count - 1, days[-1].recorded)",
    NUMBERS,
)
plant(
    "a sure mean of 0 is unlikely",
    "statistics.py",
    "return float(self.centre == 0)",
    "return float(self.centre != 0)",
    NUMBERS,
)
plant(
    "who was never begun waits",
    "metrics.py",
    'return intervals_union(np.asarray(rows["arrival_s"])[begun], start[begun]) / span',
    'return intervals_union(np.asarray(rows["arrival_s"])[begun], start[begun])',
    NUMBERS,
)
plant(
    "a tenant without an answer is left out of fairness",
    "metrics.py",
    "count = len(known) if tenants is None else len(pd.unique(tenants))",
    "count = len(known)",
    NUMBERS,
)
plant(
    "a makespan is from 0 to the first end",
    "metrics.py",
    "float(known.max() - begun.min())",
    "float(known.min() - begun.min())",
    NUMBERS,
)
plant(
    "a wait is until the first token",
    "metrics.py",
    'wait = service_start(rows := offered[done]) - rows["arrival_s"]',
    'wait = (rows := offered[done])["first_token_s"] - rows["arrival_s"]',
    NUMBERS,
)
plant(
    "rejected requests are errors",
    "metrics.py",
    '"errors": int((offered["finish_reason"] == "error").sum())',
    '"errors": int((offered["finish_reason"] == "rejected").sum() * 2)',
    NUMBERS,
)
plant("a single token has a pace", "goodput.py", "(tokens <= 1)", "(tokens < 1)", NUMBERS)
plant("what failed is not missed", "goodput.py", "(rule >= 0) & ~done", "(rule >= 0) & done", NUMBERS)
plant(
    "goodput is of all that was offered",
    "goodput.py",
    '"goodput": self._rate(good, offered)',
    '"goodput": self._rate(offered, offered)',
    NUMBERS,
)
plant("who has no SLO met it", "goodput.py", "int(mask.sum()) - offered,", "int(mask.sum()) - good,", NUMBERS)
plant(
    "draws that miss alike tell nothing",
    "sizing/curves.py",
    "missed.sum() ** 2 / square",
    "missed.sum() / square",
    NUMBERS,
)
plant(
    "the high end goes by few draws",
    "sizing/curves.py",
    "np.exp(-student_quantile(count - 1) * relative)",
    "np.exp(-student_quantile(self.telling) * relative)",
    NUMBERS,
)
plant(
    "a curve is short at its end where it falls",
    "sizing/curves.py",
    "bool(high[-1] >= self.target)",
    "bool(low[-1] >= self.target)",
    NUMBERS,
)
plant(
    "a value against labels is one against FIFO",
    "worth/answers.py",
    "self.curve(cell, policy, measure, RIVALS[rival])",
    "self.curve(cell, policy, measure)",
    NUMBERS,
)
plant(
    "an estimator that beats the truth has a sigma",
    "worth/answers.py",
    "not values[0] <= own or not (values > own).any()",
    "not values[0] <= own",
    NUMBERS,
)
plant("an estimator is as good as its opposite", "worth/answers.py", "-values, -own))", "-values, own))", NUMBERS)
plant(
    "a load is calm if one change is",
    "worth/answers.py",
    "if not all(abs(end) <= self._plan.margin",
    "if not any(abs(end) <= self._plan.margin",
    NUMBERS,
)
plant(
    "a regret of policy is that of order",
    "worth/answers.py",
    "[whole - admission, admission, policy, whole + policy]",
    "[whole - admission, admission, whole, whole + policy]",
    NUMBERS,
)
plant(
    "a regret in all leaves out the policy",
    "worth/answers.py",
    "policy, whole + policy]",
    "policy, whole - policy]",
    NUMBERS,
)
plant(
    "the truth loses at once at no sigma",
    "worth/answers.py",
    'if state == "at once":\n        low = np.nan',
    'if state == "at once":\n        high = np.nan',
    NUMBERS,
)
plant(
    "an error is the largest",
    "worth/answers.py",
    "return float(np.mean(errors)) if len(errors)",
    "return float(np.max(errors)) if len(errors)",
    NUMBERS,
)
plant(
    "resamples that are alike disagree",
    "statistics.py",
    "moved = apart > only.local",
    "moved = apart >= only.local",
    NUMBERS,
)
plant("no time has a rate", "goodput.py", "if self.span > 0 else np.nan", "if self.span >= 0 else np.nan", NUMBERS)
plant(
    "a change that one policy lacks is told",
    "validation/agreement.py",
    "if all(np.isfinite(logs).all() for logs",
    "if any(np.isfinite(logs).all() for logs",
    NUMBERS,
)
plant(
    "signs that may be noise agree",
    "validation/agreement.py",
    "if self.measured.spans_zero or self.simulated",
    "if self.measured.spans_zero and self.simulated",
    NUMBERS,
)
AGREEMENT = "test_agreement_numbers"
plant(
    "all rounds are more rounds",
    "validation/equivalence.py",
    "_first(decides, rounds + 1, most) - rounds if",
    "_first(decides, rounds + 1, most) if",
    AGREEMENT,
)
plant(
    "rounds that are asked for have no power",
    "validation/equivalence.py",
    "student_quantile(freedom, 2 * POWER - 1)",
    "0.0",
    AGREEMENT,
)
plant(
    "more rounds bring no freedom", "validation/equivalence.py", "a_round * (count - rounds)", "a_round * 0", AGREEMENT
)
plant(
    "a difference below the margin is inside",
    "validation/equivalence.py",
    "if max(-low, high) < margin:",
    "if high < margin:",
    AGREEMENT,
)
plant(
    "what overlaps the margin is different",
    "validation/equivalence.py",
    "if low > margin or high < -margin:",
    "if value > margin or high < -margin:",
    AGREEMENT,
)
plant(
    "the room is to the far margin",
    "validation/equivalence.py",
    "abs(margin - abs(value))",
    "margin + abs(value)",
    AGREEMENT,
)
plant(
    "changes that differ may not",
    "validation/equivalence.py",
    "if low <= 0 <= high else",
    "if low >= 0 >= high else",
    AGREEMENT,
)
plant(
    "one difference decides",
    "validation/equivalence.py",
    "if difference.freedom < 1 or not",
    "if difference.freedom < 2 or not",
    AGREEMENT,
)
plant("a hit rate is a count", "validation/shares.py", ' / known["prompt_tokens"].sum())', ")", AGREEMENT)
plant(
    "a hit rate is of all prompts",
    "validation/shares.py",
    '/ known["prompt_tokens"].sum()',
    '/ table["prompt_tokens"].sum()',
    AGREEMENT,
)
plant(
    "a simulated hit rate is the measured one",
    "validation/shares.py",
    "rates.append(float(known[",
    "rates.insert(0, float(known[",
    AGREEMENT,
)
plant(
    "SLOs of the time between tokens are judged",
    "validation/shares.py",
    "if not slos or needs_itl(slos):",
    "if not slos:",
    AGREEMENT,
)
plant(
    "ties do not weaken ranks",
    "validation/agreement.py",
    "math.sqrt(decided * whole)",
    "math.sqrt(decided * decided)",
    AGREEMENT,
)
plant(
    "ranks within are weighted by requests",
    "metrics.py",
    "weights.append(len(places) * (len(places) - 1))",
    "weights.append(len(places) * (len(places) + 1))",
    NUMBERS,
)
plant(
    "where nothing ended a choice is unknown",
    "metrics.py",
    "if len(times) < 2 or not span > 0:\n        return 0.0\n    return float(np.diff",
    "if len(times) < 2 and not span > 0:\n        return 0.0\n    return float(np.diff",
    NUMBERS,
)
plant(
    "one token has a pace",
    "metrics.py",
    "np.where(tokens > 1, tokens - 1, np.nan)",
    "np.where(tokens >= 1, tokens - 1, np.nan)",
    NUMBERS,
)
plant(
    "a simulated share is told as measured",
    "validation/shares.py",
    '"measured": found[0], "simulated"',
    '"measured": found[1], "simulated"',
    AGREEMENT,
)
plant(
    "steps that one side lacks are alike",
    "validation/validation.py",
    "max(len(recorded), len(simulated))",
    "min(len(recorded), len(simulated))",
    AGREEMENT,
)
plant(
    "exceptions have another index",
    "validation/validation.py",
    ".all(axis=1)].reset_index(drop=True)",
    ".all(axis=1)].reset_index(drop=False)",
    AGREEMENT,
)
plant(
    "the worst error is the smallest",
    "validation/validation.py",
    "return max(known) if known",
    "return min(known) if known",
    AGREEMENT,
)
plant("a run may go twice as far", "calibration/coverage.py", "SLACK = 1.1", "SLACK = 2.1", AGREEMENT)
plant("a run may go no further", "calibration/coverage.py", "if most > SLACK * seen", "if most > seen", AGREEMENT)
plant(
    "what failed next is told where nothing did",
    "sizing/answers.py",
    'found, at = self.state == "found", self.at',
    "found, at = True, self.at",
    CASES,
)
plant(
    "what failed next is never told",
    "sizing/answers.py",
    'found, at = self.state == "found", self.at',
    'found, at = self.state != "found", self.at',
    CASES,
)
plant(
    "a step that is off by half is refused",
    "calibration/guards.py",
    'if error > STEP_ERROR else ""',
    'if error > STEP_ERROR / 2 else ""',
    CASES,
)
plant(
    "neighbours of all runs are unlike",
    "calibration/guards.py",
    "any(_unlike(run) > UNLIKE for run in runs)",
    "all(_unlike(run) > UNLIKE for run in runs)",
    CASES,
)
plant(
    "half the error is enough",
    "calibration/guards.py",
    "if error > DECODE_ERROR or (error",
    "if error > DECODE_ERROR / 2 or (error",
    CASES,
)
plant(
    "a fit that moves is refused though it is good",
    "calibration/guards.py",
    "and max(error, percentiles or 0.0) > GOOD",
    "and max(error, percentiles or 0.0) > 0",
    CASES,
)
plant(
    "a fit that moves is good by its decode times",
    "calibration/guards.py",
    "and max(error, percentiles or 0.0) > GOOD",
    "and error > GOOD",
    CASES,
)
plant(
    "percentiles are off by less",
    "calibration/guards.py",
    "percentiles > PERCENTILE_ERROR:",
    "percentiles >= PERCENTILE_ERROR:",
    CASES,
)
plant("microseconds are seconds", "calibration/guards.py", "takes {1e6 * pace:,.3g} us", "takes {1e6:,.3g} us", CASES)
plant(
    "a hundred seconds are told in seconds",
    "sizing/wording.py",
    "if seconds < 100 else",
    "if seconds <= 100 else",
    CASES,
)
plant(
    "three draws are few",
    "sizing/wording.py",
    "answer.curve.telling < FEW_TELL",
    "answer.curve.telling <= FEW_TELL",
    CASES,
)
plant(
    "days that moved are not told",
    "sizing/wording.py",
    'if answer.state == "found" and answer.curve.moved:',
    'if answer.state != "found" and answer.curve.moved:',
    CASES,
)
BEST = "test_best_numbers"
plant(
    "settings are numbered as they come",
    "sweeps/best.py",
    "dropna=False, sort=True).ngroup()",
    "dropna=False, sort=False).ngroup()",
    BEST,
)
plant(
    "SLOs may differ within a group",
    "sweeps/best.py",
    "if len(counts) and counts.max() > 1:",
    "if len(counts) and counts.max() > 2:",
    BEST,
)
plant(
    "SLOs judge every metric",
    "sweeps/best.py",
    'if "slos" not in table or not any(',
    'if "slos" not in table or all(',
    BEST,
)
plant(
    "SLOs are one over all groups",
    "sweeps/best.py",
    "groupby([rows[name] for name in by] if by else np.zeros(len(rows))",
    "groupby(np.zeros(len(rows))",
    BEST,
)
plant("the best is as good as itself", "sweeps/best.py", "if other != place]", "]", BEST)
plant("what is far is as good", "sweeps/best.py", "abs(gap) <= half for gap", "abs(gap) >= half for gap", BEST)
plant(
    "a ratio is a difference",
    "sweeps/effects.py",
    'if scale == "ratio" else known, rows',
    'if scale != "ratio" else known, rows',
    BEST,
)
plant(
    "a contrast is upside down",
    "sweeps/effects.py",
    "np.nanmean(table[1] - table[0], axis=1)",
    "np.nanmean(table[0] - table[1], axis=1)",
    BEST,
)
plant(
    "an interaction is of the other level",
    "sweeps/effects.py",
    "rows[rows[other[0]] == level]",
    "rows[rows[other[0]] != level]",
    BEST,
)
plant("an interaction is whole", "sweeps/effects.py", "((at[1] - at[0]) / 2)", "(at[1] - at[0])", BEST)
plant(
    "a relative effect is a logarithm",
    "sweeps/effects.py",
    "Interval(*map(float, np.expm1(mean)))",
    "Interval(*map(float, mean))",
    BEST,
)
plant("mixed runs have an interval", "sweeps/spread.py", "if independent.any():", "if not independent.any():", BEST)
plant(
    "one kind of resamples is one too many",
    "sweeps/spread.py",
    "student_quantile(fewest - 1) *",
    "student_quantile(fewest) *",
    BEST,
)
plant(
    "around the mean though a day is recorded",
    "sweeps/spread.py",
    "if np.isnan(recorded).any() else recorded.mean()",
    "if not np.isnan(recorded).any() else recorded.mean()",
    BEST,
)
plant(
    "one resample has an interval",
    "sweeps/spread.py",
    "if min(counted.values()) > 1:",
    "if min(counted.values()) > 2:",
    BEST,
)
plant("infinite values count", "sweeps/spread.py", "known = np.isfinite(values)\n", "known = ~np.isnan(values)\n", BEST)
plant(
    "a change that is doubtful is worse",
    "sweeps/changes.py",
    "return max(0.0, low) if change > 0",
    "return max(0.0, change) if change > 0",
    BEST,
)
plant("an improvement beyond doubt is any", "sweeps/changes.py", "else min(0.0, high)", "else min(0.0, low)", BEST)
plant(
    "more is worse",
    "sweeps/changes.py",
    'if BETTER[self.metric] == "higher":',
    'if BETTER[self.metric] != "higher":',
    BEST,
)
plant(
    "a floor is nothing",
    "sweeps/changes.py",
    "abs(self.now - self.then) < self.floor",
    "abs(self.now - self.then) < 0",
    BEST,
)
plant("what is gone is no worse", "sweeps/changes.py", "return math.inf  # it was known and is not", "return 0.0", BEST)
plant(
    "the smallest regression is first",
    "sweeps/changes.py",
    'self.worse if self.verdict == "improvement" else -self.worse',
    "self.worse",
    BEST,
)
plant(
    "the smallest improvement is first",
    "sweeps/changes.py",
    'self.worse if self.verdict == "improvement" else -self.worse',
    "-self.worse",
    BEST,
)
plant(
    "replications that went the other way count",
    "sweeps/changes.py",
    "(self.worst.now - self.worst.then) > 0 for",
    "(self.worst.now - self.worst.then) < 0 for",
    BEST,
)
plant(
    "captured repeats are told pair by pair",
    "sweeps/changes.py",
    "if self.detectable is not None or len(pairs) < 2:",
    "if len(pairs) < 2:",
    BEST,
)
plant(
    "replications are summed",
    "sweeps/changes.py",
    "math.fsum(side) / len(pairs) for",
    "math.fsum(side) * len(pairs) for",
    BEST,
)
plant(
    "two runs have the name of one",
    "sweeps/changes.py",
    "group[0].name if len(group) == 1 else",
    "group[0].name if len(group) == 2 else",
    BEST,
)
plant(
    "runs of one name are one",
    "sweeps/changes.py",
    "if name in named else name] = group",
    "if name not in named else name] = group",
    BEST,
)
plant(
    "no change is an improvement",
    "sweeps/changes.py",
    'if self.worse < -self.tolerance else "same"',
    'if self.worse <= -self.tolerance else "same"',
    BEST,
)
plant("no number is a resample", "sweeps/spread.py", 'errors="coerce").fillna(0)', 'errors="coerce").fillna(1)', BEST)
plant(
    "resamples of one kind reach as far as Student",
    "sweeps/spread.py",
    "float(np.sqrt(np.mean(np.square(spreads)) / len(days)))",
    "1.0",
    BEST,
)
plant(
    "a load of 1 is told of",
    "worth/wording.py",
    "if load < 1), default=loads[0]",
    "if load <= 1), default=loads[0]",
    NUMBERS,
)
plant("the highest load is told of", "worth/wording.py", "default=loads[0])", "default=loads[-1])", NUMBERS)
plant(
    "the worst estimator is told of",
    "worth/wording.py",
    "return min(real, key=lambda name",
    "return max(real, key=lambda name",
    NUMBERS + " test_value",
)
plant(
    "what is as good is not told",
    "worth/wording.py",
    'return "" if math.isnan(sigma) else',
    'return "" if not math.isnan(sigma) else',
    NUMBERS,
)
plant(
    "a calm load is the highest",
    "worth/wording.py",
    "if highest == plan.loads[-1]:",
    "if highest == plan.loads[0]:",
    NUMBERS,
)
plant(
    "an engine is never the profile's own",
    "worth/wording.py",
    "for key, value in changes.items()) or",
    "for key, value in changes.items()) and",
    RULES,
)
plant(
    "a path without an end has no name", "sweeps/naming.py", "found.get(path, path)", "found[path]", "test_sweep_rows"
)
plant("runs of no day are left out", "sweeps/spread.py", '.astype(object).fillna("unknown")', "", "test_best_numbers")
