"""Faults of metrics, statistics, comparisons, validations and calibration."""

from __future__ import annotations

from tests.mutants.fault import Table

FAULTS = Table()
plant = FAULTS.plant

file = "metrics.py"
METRICS = "test_definitions test_metrics"
plant(
    "end to end since the dispatch",
    file,
    'return rows["finish_s"] - rows["arrival_s"]',
    'return rows["finish_s"] - rows["dispatch_s"]',
    METRICS,
)
plant(
    "first token since the dispatch",
    file,
    'return rows["first_token_s"] - rows["arrival_s"]',
    'return rows["first_token_s"] - rows["dispatch_s"]',
    METRICS,
)
plant(
    "the first token counts in the time per token",
    file,
    "np.where(tokens > 1, tokens - 1, np.nan)",
    "np.where(tokens > 1, tokens, np.nan)",
    METRICS,
)
plant(
    "a single token has a time per token",
    file,
    "np.where(tokens > 1, tokens - 1, np.nan)",
    "np.where(tokens > 1, tokens - 1, 1)",
    METRICS,
)
plant(
    "waiting ends at the dispatch",
    file,
    "np.where(np.isnan(scheduled), dispatched, scheduled)",
    "np.where(np.isnan(dispatched), scheduled, dispatched)",
    METRICS,
)
plant(
    "the aborted are finished",
    file,
    "return by_itself | at_cap",
    'return by_itself | at_cap | (rows["finish_reason"] == "abort")',
    METRICS,
)
plant("ends at the cap are not finished", file, "return by_itself | at_cap", "return by_itself", METRICS)
plant("P90 is P95", file, '"p90": 90', '"p90": 95', METRICS)
plant("P99 is P98", file, '"p99": 99}', '"p99": 98}', METRICS)
plant(
    "percentiles are of the lower value",
    file,
    "np.percentile(known, list(PERCENTILES.values()))",
    'np.percentile(known, list(PERCENTILES.values()), method="lower")',
    METRICS,
)
plant("the mean is the median", file, "float(known.mean())} |", "float(np.median(known))} |", METRICS)
plant(
    "prompts are counted as outputs are",
    file,
    'prompt = unit.lengths(rows["prompt_tokens"], rows["prompt_words"])',
    'prompt = unit.lengths(rows["prompt_tokens"], rows["prompt_tokens"])',
    METRICS,
)
plant("the absolute error is the plain one", file, "float(np.abs(error).mean())", "float(abs(error.mean()))", METRICS)
plant(
    "the root of the mean square is the deviation",
    file,
    "float(np.sqrt((error**2).mean()))",
    "float(error.std())",
    METRICS,
)
plant(
    "tau within looks at what the author said",
    file,
    "_tau_within(rows, admission.category_column,",
    '_tau_within(rows, "predicted_category",',
    METRICS,
)
plant("tau within looks over all tiers", file, '_alike(rows[column], rows["tier"])', "_alike(rows[column])", METRICS)
plant(
    "accuracy is that of the output's class",
    file,
    "classes = admission.scheduling_classes(total)",
    "classes = admission.scheduling_classes(actual)",
    METRICS,
)
plant(
    "a missing category is the first",
    file,
    "np.where(codes < 0, len(known), codes)",
    "np.where(codes < 0, 0, codes)",
    METRICS,
)
plant(
    "overlaps count twice",
    "statistics.py",
    "begins = np.maximum(starts, np.concatenate([[-np.inf], ends[:-1]]))",
    "begins = starts",
    METRICS,
)
plant(
    "an interval inside another ends the union",
    "statistics.py",
    "np.maximum.accumulate(ends[order])",
    "ends[order]",
    METRICS,
)
plant("one who waits alone is a choice", file, "depth[:-1] >= 2", "depth[:-1] >= 1", METRICS)
plant("three wait before there is a choice", file, "depth[:-1] >= 2", "depth[:-1] > 2", METRICS)
plant(
    "choice is a share of those moments",
    file,
    "depth[:-1] >= 2].sum() / span)",
    "depth[:-1] >= 2].sum() / (times[-1] - times[0]))",
    METRICS,
)
plant("the queue of those who never wait", file, "queued = end > begin", "queued = end >= begin", METRICS)
plant(
    "fairness over requests",
    file,
    "rates = np.array([own.mean() for own in known if len(own)])",
    "rates = np.concatenate(known) if known else np.array([])",
    METRICS,
)
plant("fairness by seconds", file, 'rows["output_tokens"].astype(float) / e2e(rows)', "e2e(rows)", METRICS)
plant(
    "fairness without the number of tenants",
    file,
    "rates.sum() ** 2 / (count * (rates**2).sum())",
    "rates.sum() ** 2 / (rates**2).sum()",
    METRICS,
)
plant("makespan of the finished", file, '"makespan_s": makespan(offered)', '"makespan_s": makespan(rows)', METRICS)
plant(
    "errors count as rejected",
    file,
    '(offered["finish_reason"] == "rejected").sum()',
    '(offered["finish_reason"].isin(["rejected", "error"]) if hasattr(offered["finish_reason"], "isin") else (offered["finish_reason"] == "rejected") | (offered["finish_reason"] == "error")).sum()',  # noqa: E501
    METRICS,
)
plant(
    "300 requests are too few for a P99",
    file,
    '"p99_flagged": len(rows) < FEWEST_FOR_P99',
    '"p99_flagged": len(rows) <= FEWEST_FOR_P99',
    METRICS,
)
plant(
    "a tier's P99 is flagged by those offered",
    file,
    '"p99_flagged": int(mine[done].sum()) < FEWEST_FOR_P99',
    '"p99_flagged": int(mine.sum()) < FEWEST_FOR_P99',
    METRICS,
)
plant(
    "queue wait P50 is P99",
    file,
    '"queue_wait_p50_s": float(np.percentile(wait, 50))',
    '"queue_wait_p50_s": float(np.percentile(wait, 99))',
    METRICS,
)
plant(
    "queue wait P99 is P50",
    file,
    '"queue_wait_p99_s": float(np.percentile(wait, 99))',
    '"queue_wait_p99_s": float(np.percentile(wait, 50))',
    METRICS,
)
plant(
    "the waiting fraction stops at a choice",
    file,
    '"waiting_fraction": waiting_fraction(offered)',
    '"waiting_fraction": choice_fraction(offered)',
    METRICS,
)
plant(
    "preemptions of the finished",
    file,
    'int(np.nansum(offered["preemptions"]))',
    'int(np.nanmax(offered["preemptions"], initial=0))',
    METRICS,
)
plant("a tier's latencies are everybody's", file, "seconds[mine[done]])", "seconds)", METRICS)
plant("scored counts all finished", file, '"scored": int((done & mask).sum())', '"scored": int(done.sum())', METRICS)

file = "statistics.py"
STATS = "test_intervals test_statistics"
plant(
    "an interval of one side",
    file,
    "special.stdtrit(freedom, (1 + level) / 2)",
    "special.stdtrit(freedom, level)",
    STATS + " test_coverage",
)
plant(
    "a mean's interval has a degree of freedom too many",
    file,
    "student_quantile(count - 1) * values.std(ddof=1) / math.sqrt(count))",
    "student_quantile(count) * values.std(ddof=1) / math.sqrt(count))",
    STATS + " test_coverage test_judging",
)
plant(
    "the spread of a mean is the population's",
    file,
    "student_quantile(count - 1) * values.std(ddof=1) / math.sqrt(count))",
    "student_quantile(count - 1) * values.std() / math.sqrt(count))",
    STATS + " test_coverage test_judging",
)
plant(
    "a mean's interval does not shrink with the number",
    file,
    "student_quantile(count - 1) * values.std(ddof=1) / math.sqrt(count))",
    "student_quantile(count - 1) * values.std(ddof=1))",
    STATS + " test_coverage test_judging",
)
plant(
    "a day's centre is that of the circular resamples",
    file,
    "np.array([day.local.mean() for day in days])",
    "np.array([day.circular.mean() for day in days])",
    STATS + " test_compare test_doubts",
)
plant(
    "a day's spread is the smaller one",
    file,
    "max(day.local.std(ddof=1), day.circular.std(ddof=1))",
    "min(day.local.std(ddof=1), day.circular.std(ddof=1))",
    STATS + " test_compare test_doubts",
)
plant(
    "several days are as unsure as one",
    file,
    "np.sqrt((spreads**2).mean() / count)",
    "np.sqrt((spreads**2).mean())",
    STATS + " test_doubts test_coverage",
)
plant(
    "days differ by the population's spread",
    file,
    "centres.std(ddof=1) / math.sqrt(count)",
    "centres.std() / math.sqrt(count)",
    STATS + " test_doubts test_coverage",
)
plant(
    "days' differences do not shrink",
    file,
    "between = float(centres.std(ddof=1) / math.sqrt(count))",
    "between = float(centres.std(ddof=1))",
    STATS + " test_doubts test_coverage",
)
plant(
    "one error of two kinds: the smaller",
    file,
    "student_quantile(count - 1) * between >= student_quantile(freedom) * within",
    "student_quantile(count - 1) * between < student_quantile(freedom) * within",
    STATS + " test_doubts test_coverage",
)
plant(
    "freedom of the days for the spread within",
    file,
    "return DayEstimate(centre, within, freedom, days[0].recorded)",
    "return DayEstimate(centre, within, count - 1, days[0].recorded)",
    STATS + " test_doubts test_coverage",
)
plant(
    "this run is the last day",
    file,
    "return DayEstimate(centre, between, count - 1, days[0].recorded)",
    "return DayEstimate(centre, between, count - 1, days[-1].recorded)",
    STATS + " test_doubts",
)
plant(
    "no load ever moves",
    file,
    "moved = apart > only.local.std(ddof=1)",
    "moved = False",
    STATS + " test_doubts test_compare",
)
plant(
    "a widened interval adds halves",
    file,
    "half = math.hypot((interval.high - interval.low) / 2, student_quantile(freedom) * spread)",
    "half = (interval.high - interval.low) / 2 + student_quantile(freedom) * spread",
    STATS + " test_verdict test_uncertainty",
)
plant(
    "p of one side",
    file,
    "float(2 * special.stdtr(freedom, -abs(distance)))",
    "float(special.stdtr(freedom, -abs(distance)))",
    STATS + " test_verdict test_coverage",
)
plant(
    "Holm multiplies by one too few",
    file,
    "(len(p_values) - rank) * p_values[place]",
    "(len(p_values) - rank - 1) * p_values[place]",
    STATS + " test_verdict",
)
plant(
    "Holm's p values do not rise",
    file,
    "highest = max(highest, min(1.0,",
    "highest = max(0.0, min(1.0,",
    STATS + " test_verdict",
)
plant(
    "Welch by the pooled freedom",
    file,
    "freedom = sum(parts) ** 2 / sum(part**2 / (len(v) - 1) for part, v in zip(parts, (one, other), strict=True))",
    "freedom = float(len(one) + len(other) - 2)",
    STATS + " test_checking",
)
plant(
    "an interval that touches zero excludes it",
    file,
    "return self.low <= 0 <= self.high",
    "return self.low < 0 < self.high",
    STATS + " test_judging",
)
plant(
    "the detectable shift has half the power",
    file,
    "power: float = 0.8)",
    "power: float = 0.5)",
    STATS + " test_checking",
)
plant(
    "a relative change by a plain difference",
    file,
    "return Interval(math.expm1(middle), math.expm1(middle - half), math.expm1(middle + half))",
    "return Interval(middle, middle - half, middle + half)",
    STATS + " test_judging",
)
file = "contrasts.py"
plant(
    "a difference is its negative",
    file,
    "np.asarray(ones[:rounds], dtype=float) - np.asarray(others[:rounds], dtype=float)",
    "np.asarray(others[:rounds], dtype=float) - np.asarray(ones[:rounds], dtype=float)",
    STATS + " test_judging test_measured",
)
plant(
    "as many degrees of freedom as rounds",
    file,
    "Contrast(float(differences.mean()), error, rounds - 1)",
    "Contrast(float(differences.mean()), error, rounds)",
    STATS + " test_judging test_measured",
)
plant(
    "the slope costs no degree of freedom",
    file,
    "len(deviations) - len(own) - 1",
    "len(deviations) - len(own)",
    STATS + " test_judging test_measured test_coverage",
)
plant(
    "an adjusted mean moves the wrong way",
    file,
    "float(np.mean(values[group]) - np.mean(values[baseline])) - slope * apart",
    "float(np.mean(values[group]) - np.mean(values[baseline])) + slope * apart",
    STATS + " test_judging test_measured",
)
plant(
    "the error of the slope is left out",
    file,
    "1 / len(at) + 1 / len(own[baseline]) + apart**2 / spread",
    "1 / len(at) + 1 / len(own[baseline])",
    STATS + " test_judging test_measured test_coverage",
)
plant(
    "explained is what is left",
    file,
    "1 - float(residual @ residual) / whole",
    "float(residual @ residual) / whole",
    STATS + " test_judging test_measured",
)

file = "comparison/comparison.py"
COMPARE = "test_report test_compare test_verdict test_doubts"
plant(
    "a change is of the baseline",
    file,
    "after / np.where(nothing, np.nan, before) - 1",
    "before / np.where(nothing, np.nan, after) - 1",
    COMPARE,
)
plant(
    "a tenant's change is everybody's",
    file,
    "        if tenant is not None:\n            return np.array([row",
    "        if False:\n            return np.array([row",
    COMPARE,
)
plant(
    "circular resamples are the local ones",
    file,
    'for kind in ("local", "circular")]',
    'for kind in ("circular", "local")]',
    COMPARE,
)
plant(
    "p values are not adjusted",
    file,
    "adjusted = holm([change.p for change in changes])",
    "adjusted = [change.p for change in changes]",
    COMPARE,
)
plant("any size matters", file, "p < 1 - LEVEL and size >= self.plan.practical", "p < 1 - LEVEL", COMPARE)
plant("the level of a doubt is a half", file, "p < 1 - LEVEL and size", "p < LEVEL and size", COMPARE)
plant(
    "bounds compete",
    file,
    "candidates = [group[0] for group in self.groups if is_deployable(group[0].estimator)]\n        sign",
    "candidates = [group[0] for group in self.groups]\n        sign",
    COMPARE,
)
plant("the largest is best where the smallest is", file, "sign = -1 if largest else 1", "sign = 1", COMPARE)
plant("ties are those that differ", file, "strict=True) if not told]", "strict=True) if told]", COMPARE)
plant("wins are counted over all draws", file, 'if draw.kind == "local"]\n        least', "]\n        least", COMPARE)
plant(
    "ties count as no win", file, "(known[best][local] <= least).sum()", "(known[best][local] < least).sum()", COMPARE
)
plant(
    "two replications have an interval",
    file,
    "return self.plan.replications < 3",
    "return self.plan.replications < 2",
    COMPARE,
)
plant(
    "low and high of a row are swapped",
    file,
    'f"{metric}_vs_fifo_low": versus.interval.low,',
    'f"{metric}_vs_fifo_low": versus.interval.high,',
    COMPARE + " test_page",
)
plant(
    "a row's change is that of this run",
    file,
    'f"{metric}_vs_fifo": versus.centre,',
    'f"{metric}_vs_fifo": versus.this_run,',
    COMPARE,
)
plant(
    "a row's value is the expected one",
    file,
    "            row[name] = value\n",
    "            row[name] = value if not isinstance(value, float) else self.value(setting, name).value\n",
    COMPARE,
)
plant(
    "calibration is held against FIFO",
    file,
    "change = self.change_of(setting, static, metric)\n                effects",
    "change = self.change_of(setting, BASELINE, metric)\n                effects",
    COMPARE,
)
plant(
    "settings of one latency are one row",
    file,
    "told = repr(self.summaries[setting]) + str(is_deployable(setting.estimator))",
    'told = repr([row["e2e_mean_s"] for row in self.summaries[setting]])',
    COMPARE,
)
file = "comparison/runs.py"
plant(
    "the seed of a draw is fixed",
    file,
    "resample(workload, plan.seed, draw.number, draw.kind)",
    "resample(workload, plan.seed, 1, draw.kind)",
    COMPARE,
)
plant(
    "every resample is circular",
    file,
    "resample(workload, plan.seed, draw.number, draw.kind)",
    "resample(workload, plan.seed, draw.number)",
    COMPARE,
)
plant("every day is the first", file, "inputs.workloads[draw.day]", "inputs.workloads[0]", COMPARE)
plant(
    "requests that taught a base are scored",
    file,
    "    if plan.excluded:\n",
    "    if False:\n",
    COMPARE + " test_sameness test_categories",
)
plant(
    "a capture under another limit is its own check",
    file,
    "header.max_in_flight == simulated.limit",
    "True",
    COMPARE + " test_tiers",
)
plant(
    "a capture of another policy is FIFO's check",
    file,
    '        or header.admission.get("policy") != "fifo"\n',
    "",
    COMPARE + " test_tiers test_cases",
)
plant(
    "a phase's check is that of the whole",
    file,
    "{phase: summary(judged, plan.admission, phase=phase) for phase in asked}",
    "{phase: summary(judged, plan.admission) for phase in asked}",
    COMPARE,
)
plant(
    "the results' traces are of the last draw",
    file,
    "summaries, done[0].kept.traces(), measured",
    "summaries, done[-1].kept.traces(), measured",
    COMPARE,
)
plant(
    "the model's draws have no noise",
    file,
    "noise=True, seed=plan.seed + 1 + draw.number",
    "noise=False, seed=plan.seed + 1 + draw.number",
    "test_uncertainty",
)
plant("the model's draws are one", file, "[plan.seed, draw.number]", "[plan.seed, 0]", "test_uncertainty")
plant(
    "one resample too many",
    file,
    "numbers = range(1, plan.replications)",
    "numbers = range(1, plan.replications + 1)",
    COMPARE,
)
file = "comparison/plan.py"
plant("the plan's limit is ignored", file, "            max_in_flight=self.max_in_flight,\n", "", COMPARE + " test_cli")
plant(
    "the plan's admission is ignored",
    file,
    "            admission=self.admission,\n",
    "",
    COMPARE + " test_cli test_categories",
)
plant("the plan's lag is ignored", file, "            refill_lag=self.refill_lag,\n", "", COMPARE + " test_cli")
plant(
    "the plan's barrier is ignored",
    file,
    "            barrier=self.barrier,\n",
    "",
    COMPARE + " test_cli test_microbatch",
)
plant("the plan's seed is ignored", file, "            seed=self.seed,\n", "", COMPARE + " test_cli")
plant(
    "stock comes with every estimator",
    file,
    "(estimators[:1] if policy == STOCK else estimators)",
    "estimators",
    COMPARE,
)
file = "comparison/report.py"
REPORT = "test_report test_compare test_page"
plant("milliseconds are seconds", file, '"ms": 1000, "%"', '"ms": 1, "%"', REPORT)
plant(
    "P99 of the first token is its mean",
    file,
    '"TTFT P99", "s", "ttft_p99_s"',
    '"TTFT P99", "s", "ttft_mean_s"',
    REPORT,
)
plant(
    "mean and P99 are swapped",
    file,
    'TableColumn("E2E mean", "s", "e2e_mean_s", 2)',
    'TableColumn("E2E mean", "s", "e2e_p99_s", 2)',
    REPORT,
)
plant("TPOT P99 is its P90", file, '"TPOT P99", "ms", "tpot_p99_s"', '"TPOT P99", "ms", "tpot_p90_s"', REPORT)
plant("RMSE is MAE", file, 'TableColumn("RMSE", word, "rmse"', 'TableColumn("RMSE", word, "mae"', REPORT)
plant("the smallest Jain is the best", file, '"jain_index", 3, largest=True', '"jain_index", 3, largest=False', REPORT)
plant("tau of length is tau of budgets", file, '"kendall_tau_estimate", 3', '"kendall_tau", 3', REPORT)
plant(
    "best and tie are swapped",
    file,
    '{ranking.best: "best"} | dict.fromkeys(ranking.ties, "tie")',
    '{ranking.best: "tie"} | dict.fromkeys(ranking.ties, "best")',
    REPORT,
)
plant(
    "brackets around what is sure",
    file,
    'text if real or math.isnan(versus.low) else f"({text})"',
    'text if not real or math.isnan(versus.low) else f"({text})"',
    REPORT,
)
plant(
    "words are called tokens",
    file,
    'word = "tokens" if comparison.plan.admission.unit.unit == "tokenizer" else "words"',
    'word = "tokens"',
    REPORT,
)
plant(
    "offered and finished of a tier are swapped",
    file,
    'str(own["requests"]), str(own["finished"])',
    'str(own["finished"]), str(own["requests"])',
    REPORT,
)
plant(
    "the tiers' mean is their P50",
    file,
    '("e2e_mean_s", "e2e_p50_s", "e2e_p99_s")]',
    '("e2e_p50_s", "e2e_p50_s", "e2e_p99_s")]',
    REPORT,
)
plant(
    "the effect of calibration is against FIFO",
    file,
    'Setting(setting.policy, "static"), _key_of(',
    "BASELINE, _key_of(",
    REPORT,
)
plant(
    "two or more waited: as often as one",
    file,
    'for name in ("waiting_fraction", "choice_fraction"))',
    'for name in ("waiting_fraction", "waiting_fraction"))',
    REPORT,
)
plant(
    "the slots are the limit in flight",
    file,
    '"max_in_flight": plan.scenario(BASELINE).limit',
    '"max_in_flight": engine.max_num_seqs',
    REPORT,
)
file = "comparison/verdict.py"
VERDICT = "test_report test_verdict test_compare"
plant(
    "measured and simulated are swapped in a check",
    file,
    "({real:.3g} s measured, {ours:.3g} s simulated)",
    "({ours:.3g} s measured, {real:.3g} s simulated)",
    VERDICT,
)
plant("a check's P99 is its mean", file, '("e2e_p99_s", "slowest 1 %"))', '("e2e_mean_s", "slowest 1 %"))', VERDICT)
plant(
    "gains and pains are swapped",
    file,
    "if (changes[name] < 0) == falls]",
    "if (changes[name] > 0) == falls]",
    VERDICT,
)
plant(
    "a harm is worth it",
    file,
    '"is worth it" if mean.value < 0 else "does harm"',
    '"is worth it" if mean.value > 0 else "does harm"',
    VERDICT,
)
plant(
    "before and after are swapped",
    file,
    "({before:.3g} s to {after:.3g} s in this ",
    "({after:.3g} s to {before:.3g} s in this ",
    VERDICT,
)
plant(
    "what raises the latency is recommended", file, "if one in told and change.centre < 0]", "if one in told]", VERDICT
)
plant(
    "what may be an accident is recommended",
    file,
    "if one in told and change.centre < 0]",
    "if change.centre < 0]",
    VERDICT,
)
plant(
    "a single run recommends the smallest gain",
    file,
    "changes[ranking.best].centre <= -comparison.plan.practical",
    "changes[ranking.best].centre < 0",
    VERDICT,
)
plant(
    "days needed by the number of days",
    file,
    "change.error * math.sqrt(len(comparison.days) / count)",
    "change.error * len(comparison.days) / count",
    VERDICT + " test_doubts",
)
plant(
    "an error of half is believed",
    file,
    "return float(sides[1] / sides[0] - 1) if sides[0] > 0 else 0.0",
    "return float(1 - sides[0] / sides[1]) if sides[0] > 0 else 0.0",
    VERDICT + " test_doubts test_cases",
)
file = "comparison/checks.py"
plant(
    "a held-out check is fitted to all",
    file,
    'calibrate([Run("its first half", trace)], source="requests", until=cut)',
    'calibrate([Run("its first half", trace)], source="requests")',
    "test_report test_compare test_verdict test_cases test_one_command",
)
plant(
    "a check is of all requests",
    file,
    'both = set(requests) & set(sides[0]["request_id"])',
    'both = set(sides[0]["request_id"])',
    "test_report test_compare test_verdict test_cases test_one_command test_trust",
)

file = "validation/validation.py"
VALIDATE = "test_intervals test_validate test_judging"
plant(
    "an error of the simulation",
    file,
    "error = simulated / measured - 1 if measured",
    "error = measured / simulated - 1 if measured",
    VALIDATE,
)
plant(
    "measured and simulated are swapped",
    file,
    '{"measured": measured, "simulated": simulated,',
    '{"measured": simulated, "simulated": measured,',
    VALIDATE,
)
plant(
    "exceptions are those on both times",
    file,
    "off[~(errors <= TOLERANCE_S).all(axis=1)]",
    "off[~(errors <= TOLERANCE_S).any(axis=1)]",
    VALIDATE,
)
plant("exceptions in one direction", file, '"finish_off_s"]].abs()', '"finish_off_s"]]', VALIDATE)
plant(
    "steps alike over the shorter run",
    file,
    "same.sum() / max(len(recorded), len(simulated))",
    "same.sum() / min(len(recorded), len(simulated))",
    VALIDATE,
)
plant(
    "a tenant is everybody",
    file,
    'places = pd.Index(names).get_indexer(pd.Index(rows["tenant"]))',
    "places = np.zeros(len(rows), int)",
    VALIDATE,
)
plant("the middle 90 %", file, "[2.5, 97.5])", "[5.0, 95.0])", VALIDATE + " test_noise")
plant("noise of one seed", file, "noise=True, seed=seed)", "noise=True, seed=0)", VALIDATE + " test_noise")
plant("the worst error has a sign", file, 'abs(row["error"])', 'row["error"]', VALIDATE)
plant(
    "those that did not finish are measured",
    file,
    "only(simulated, paired)",
    "simulated",
    VALIDATE + " test_unfinished",
)
plant(
    "a step's time is in ticks",
    file,
    'table[["start_s", "duration_s"]] /= TICKS_PER_SECOND',
    'table[["start_s"]] /= TICKS_PER_SECOND',
    VALIDATE,
)
file = "validation/agreement.py"
plant(
    "the level's error is inverted",
    file,
    "return self.simulated / self.measured - 1",
    "return self.measured / self.simulated - 1",
    VALIDATE,
)
plant(
    "the noise floor is the population's",
    file,
    "spread = float(measured.std(ddof=1))",
    "spread = float(measured.std())",
    VALIDATE,
)
plant(
    "the noise floor is the simulation's",
    file,
    "spread = float(measured.std(ddof=1))",
    "spread = float(simulated.std(ddof=1))",
    VALIDATE,
)
plant(
    "other limits are repeats",
    file,
    "            header.max_in_flight,\n",
    "",
    VALIDATE,
)
plant(
    "other policies are repeats",
    file,
    '            str(header.admission.get("policy", "stock")),\n            str(header.admission.get("estimator"',
    '            str(header.admission.get("estimator"',
    VALIDATE,
)
plant("rounds in the order of the call", file, "sorted(group, key=_began)", "group", VALIDATE + " test_measured")
plant(
    "unlike signs agree",
    file,
    "return (self.measured.value > 0) == (self.simulated.value > 0)",
    "return (self.measured.value > 0) != (self.simulated.value > 0)",
    VALIDATE,
)
plant(
    "noise that hides one change hides none",
    file,
    "if self.measured.spans_zero or self.simulated.spans_zero:",
    "if self.measured.spans_zero and self.simulated.spans_zero:",
    VALIDATE,
)
plant("tau without ties", file, "math.sqrt(decided * whole)", "decided", VALIDATE)
file = "validation/equivalence.py"
plant(
    "one side inside the margin is enough",
    file,
    "if max(-low, high) < margin:",
    "if min(-low, high) < margin:",
    VALIDATE,
)
plant("the interval of 95 %", file, "BOTH_SIDES = 2 * LEVEL - 1", "BOTH_SIDES = LEVEL", VALIDATE)
plant("a difference at the margin", file, "if low > margin or high < -margin:", "if low > 0 or high < 0:", VALIDATE)
plant(
    "a round brings no freedom", file, "difference.freedom + a_round * (count - rounds)", "difference.freedom", VALIDATE
)
plant("a margin of 20 %", file, "MARGIN = math.log(1.10)", "MARGIN = math.log(1.20)", VALIDATE)

file = "calibration/overheads.py"
FIT = "test_delays test_calibrate"
plant(
    "gaps before idle starts count",
    file,
    '(start[1:] - end[:-1])[steps["decode_requests"].to_numpy()[1:] > 0]',
    "(start[1:] - end[:-1])",
    FIT,
)
plant(
    "the submit lag is over busy cores, too",
    file,
    "np.median(idle) if len(idle) >= FEWEST_SAMPLES else delay.min()",
    "np.median(delay)",
    FIT,
)
plant(
    "notify and submit lag are swapped",
    file,
    "float(np.median(notify)) if len(notify) >= FEWEST_SAMPLES else submit, submit",
    "submit, float(np.median(notify)) if len(notify) >= FEWEST_SAMPLES else submit",
    FIT,
)
plant(
    "the slot freed is the next one",
    file,
    'np.searchsorted(ends, dispatch, side="right") - 1',
    'np.searchsorted(ends, dispatch, side="right") - 2',
    FIT,
)
plant("a core is idle while it computes", file, "return moments > after + 1e-3", "return moments > after - 1e3", FIT)
file = "calibration/coverage.py"
EXTENT = "test_delays test_calibrate"
plant(
    "whoever leaves makes room last", file, "np.lexsort((1 - ending, moments))", "np.lexsort((ending, moments))", EXTENT
)
plant(
    "the context is the prompt",
    file,
    'size = known("prompt_tokens") + known("output_tokens")',
    'size = known("prompt_tokens")',
    EXTENT,
)
plant(
    "the waiting run",
    file,
    'begin, first, end = known("scheduled_s"), known("first_token_s"), known("finish_s")',
    'begin, first, end = known("arrival_s"), known("first_token_s"), known("finish_s")',
    EXTENT,
)
plant("what was seen is beyond it", file, "if most > SLACK * seen:", "if most > seen / SLACK:", EXTENT)
plant(
    "running and context are swapped",
    file,
    '("requests at once", running, profile.seen.running)',
    '("requests at once", context, profile.seen.running)',
    EXTENT,
)
plant(
    "an unknown model is another",
    file,
    'if ours != theirs and "unknown" not in (ours, theirs)',
    "if ours != theirs",
    EXTENT + " test_trust test_reading",
)

# -- rows of simulated lives
plant(
    "a row without an intercept is left out",
    "calibration/request_rows.py",
    "own.any(axis=1)",
    "(own[:, 0] > 0)",
    "test_knee",
)

plant(
    "a descent stays near where it is, not near what the rows say",
    "calibration/descent.py",
    "damping @ (self.start.values * share)[free]",
    "damping @ shares[free]",
    "test_knee",
)

# -- async scheduling on recorded steps
file = "calibration/launches.py"
plant(
    "every prefill stands with the step before",
    file,
    "starts[1:] < step_ends(steps)[:-1]",
    "starts[1:] < np.inf",
    "test_gpu",
)
plant(
    "no prefill stands with the step before", file, "starts[1:] < step_ends(steps)[:-1]", "starts[1:] < -1", "test_gpu"
)
plant("chains of prefills have no end", file, "(place % MOST_TOGETHER == 0)", "(place < 0)", "test_gpu")
plant("a launch and what it hides both count", file, "waits[:, None] == (", "True | (", "test_gpu")
plant(
    "launches wait for the GPU",
    "calibration/form.py",
    "columns[:, -1] * known[-1] > columns",
    "columns[:, -1] * known[-1] < columns",
    "test_gpu",
)
plant(
    "a launch takes no time alone",
    "latency/steptime.py",
    "return max(self.parts(batch))",
    "return self.parts(batch)[0]",
    "test_steptime",
)
plant(
    "every prefill is launched kernel by kernel",
    "latency/steptime.py",
    "batch.decode_requests > self.graph_tokens",
    "batch.decode_requests > 0",
    "test_steptime test_gpu",
)
plant(
    "an end knows nothing of the step before",
    "trace/steps.py",
    "max(end, row[0]) + row[1]",
    "row[0] + row[1]",
    "test_gpu",
)
plant(
    "the launch takes no time on recorded steps",
    "engine/recorded.py",
    "return made >= len(starts) or starts[made] <= now",
    "return True",
    "test_validate",
)
plant(
    "forced lengths are ends of their own",
    "validation/validation.py",
    "limit = int(row.output_tokens if forced else row.max_tokens)",
    "limit = int(row.max_tokens)",
    "test_gpu",
)
plant(
    "every length is a limit",
    "validation/validation.py",
    "limit = int(row.output_tokens if forced else row.max_tokens)",
    "limit = int(row.output_tokens)",
    "test_gpu",
)
plant(
    "no tail pays",
    "comparison/verdict.py",
    "late = _named(tail, falls=False)",
    "late = _named(mean, falls=False)",
    "test_verdict",
)
plant(
    "the worst part is told upside down",
    "comparison/verdict.py",
    'worst.simulated["e2e_mean_s"] / worst.measured["e2e_mean_s"] - 1',
    'worst.measured["e2e_mean_s"] / worst.simulated["e2e_mean_s"] - 1',
    "test_verdict",
)
