"""Faults that an earlier round of attacks planted and the suite of that time did not see."""

from __future__ import annotations

from tests.mutants.fault import Table

FAULTS = Table()
plant = FAULTS.plant

plant(
    "released jobs are still refreshed",
    "scheduling/dispatcher.py",
    """            if self._waiting is not None:
                del self._waiting[id(job)]
            count -= 1""",
    "            count -= 1",
    "test_dispatcher test_admission",
)
plant(
    "the truth is handed to every estimator that is not built in",
    "scheduling/estimators.py",
    "(outputs, seed) if is_given_the_truth(name) else (admission,)",
    "(admission,) if name in ESTIMATORS else (outputs, seed)",
    "test_dispatcher test_plugins",
)
plant(
    "tau of estimate and output, prompts dropped",
    "metrics.py",
    '"kendall_tau": _tau(budget, total)',
    '"kendall_tau": _tau(estimate, np.asarray(actual, dtype=float))',
    "test_definitions test_metrics",
)
plant("makespan from zero", "metrics.py", "known.max() - begun.min()", "known.max()", "test_definitions test_metrics")
plant(
    "tau within, unweighted",
    "metrics.py",
    "weights.append(len(places) * (len(places) - 1))",
    "weights.append(1.0)",
    "test_definitions test_metrics",
)
plant(
    "an error is learned from",
    "live/waiting.py",
    "(*FINISHED, *GIVEN_UP)",
    '(*FINISHED, *GIVEN_UP, "error")',
    "test_recording test_recorder",
)
plant(
    "the first token is the first event",
    "live/answer.py",
    '        self.metrics = _of(chunk, "metrics") or self.metrics\n',
    '        self.metrics = _of(chunk, "metrics") or self.metrics\n        self.first = self.first or now\n',
    "test_streams test_answer",
)
plant("P90 stands under P50", "comparison/report.py", '"e2e_p50_s", 2, brief', '"e2e_p90_s", 2, brief', "test_report")
plant(
    "the tiers' P99 is their P50",
    "comparison/report.py",
    '("e2e_mean_s", "e2e_p50_s", "e2e_p99_s")]',
    '("e2e_mean_s", "e2e_p50_s", "e2e_p50_s")]',
    "test_report",
)
plant(
    "the sign of a check",
    "comparison/verdict.py",
    "100 * (ours / real - 1):+.1f",
    "100 * (1 - ours / real):+.1f",
    "test_report",
)
plant(
    "a validation ignores the limit in flight",
    "simulation/as_measured.py",
    "max_in_flight=None if header.replicas else header.max_in_flight",
    "max_in_flight=None",
    "test_delays test_validate",
)
plant(
    "no notify lag",
    "simulation/run.py",
    "ticks(profile.notify_lag_s) if lag else 0",
    "0",
    "test_delays",
)
plant(
    "the context of the largest request alone",
    "calibration/coverage.py",
    "int(context.max(initial=0))",
    "int(size.max(initial=0))",
    "test_delays",
)
plant(
    "the estimator is not told of a cut",
    "scheduling/dispatcher.py",
    "departure.output_length, departure.censored, now)",
    "departure.output_length, False, now)",
    "test_dispatcher test_admission",
)
plant(
    "shortest estimate first, prompts forgotten",
    "scheduling/policies.py",
    "return job.budget",
    "return job.estimate",
    "test_dispatcher test_policies",
)
plant(
    "pooled judges itself in hindsight",
    "scheduling/estimators.py",
    "if said := self._admitted.pop(request.id, None):",
    "if (said := self._both(request, category, now)) and self._admitted.pop(request.id, None):",
    "test_dispatcher test_estimators",
)
plant(
    "pooled's odds are not clipped",
    "scheduling/estimators.py",
    "self._odds = min(max(odds, -SURE), SURE)",
    "self._odds = odds",
    "test_dispatcher test_estimators",
)
plant(
    "a class ends below its boundary",
    "scheduling/admission.py",
    "if total <= self.short",
    "if total < self.short",
    "test_dispatcher test_admission",
)
plant(
    "errors over rows that are not scored",
    "metrics.py",
    "**estimation_summary(offered[done & mask]",
    "**estimation_summary(offered[done]",
    "test_definitions test_metrics",
)
plant(
    "tau without a correction for ties, few requests",
    "metrics.py",
    "np.sqrt(sizes[0] * sizes[1]))",
    "(len(a) * (len(a) - 1)))",
    "test_definitions test_metrics",
)
plant(
    "tau without a correction for ties, many requests",
    "metrics.py",
    "float(kendalltau(a, b).statistic)",
    'float(kendalltau(a, b, variant="c").statistic)',
    "test_definitions test_metrics",
)
plant(
    "a resample shuffles lengths among requests",
    "workloads/resampling.py",
    "        part = rows.iloc[places].assign(offset_s=offsets)\n",
    "        part = rows.iloc[places].assign(offset_s=offsets)\n"
    '        part["output_tokens"] = random.permutation(part["output_tokens"].to_numpy())\n',
    "test_delays test_workload",
)
plant(
    "refill delays of those who did not wait",
    "calibration/overheads.py",
    "(arrival < freed) & (inside >= limit)",
    "inside >= limit",
    "test_delays",
)
plant(
    "refill delays of slots that were free",
    "calibration/overheads.py",
    "(arrival < freed) & (inside >= limit)",
    "arrival < freed",
    "test_delays",
)
plant(
    "a journal goes before its Parquet is there",
    "sweeps/store.py",
    "    if rows:\n        table = _single(",
    "    for file in journals:\n        file.unlink(missing_ok=True)\n    if rows:\n        table = _single(",
    "test_keeping test_store",
)
plant(
    "failed runs are run again without being asked",
    "sweeps/runner.py",
    "(retry and known[task.key])",
    "known[task.key]",
    "test_sweep_rules test_sweep",
)
plant(
    "chunks counted as tokens",
    "live/answer.py",
    "output_tokens=tokens,",
    "output_tokens=self.chunks,",
    "test_streams test_answer",
)
plant(
    "foreign load below zero",
    "live/telemetry.py",
    "max(0.0, used - ours)",
    "used - ours",
    "test_streams test_telemetry",
)
plant(
    "our own CPU counts as foreign", "live/telemetry.py", "max(0.0, used - ours)", "used", "test_streams test_telemetry"
)
plant(
    "the smallest tau is the best",
    "comparison/report.py",
    '"kendall_tau", 3, largest=True)',
    '"kendall_tau", 3)',
    "test_report",
)
plant(
    "an interval of days twice as wide",
    "statistics.py",
    "half = student_quantile(self.freedom) * self.error",
    "half = 2 * student_quantile(self.freedom) * self.error",
    "test_intervals",
)
plant(
    "another draw for each setting",
    "comparison/runs.py",
    "sent = simulate(scenario(setting), drawn, ",
    "sent = simulate(scenario(setting), "
    "drawn if setting == BASELINE else resample(workload, plan.seed + 1, draw.number), ",
    "test_report test_compare",
)
plant(
    "exceptions by the finish alone",
    "validation/validation.py",
    'off[["first_token_off_s", "finish_off_s"]].abs()',
    'off[["finish_off_s"]].abs()',
    "test_intervals",
)
plant(
    "a CUDA graph one too large",
    "latency/steptime.py",
    "bisect_left(graph_sizes, size)",
    "bisect_left(graph_sizes, size + 1)",
    "test_intervals test_steptime",
)
plant(
    "words are not scaled with an output that was cut, in the trace",
    "simulation/tables.py",
    "    if cut.any():\n",
    "    if False:\n",
    "test_delays",
)
plant(
    "words are not scaled with an output that was cut, for the estimator",
    "simulation/ends.py",
    "if sequence.shown != full:",
    "if False:",
    "test_delays",
)
plant(
    "a trace's digest ignores its steps",
    "trace/trace.py",
    "    for name in (*TRACE_FILES, *JOURNAL_FILES):\n        file = Path(folder) / name\n",
    "    for name in (*TRACE_FILES, *JOURNAL_FILES):\n        file = Path(folder) / name\n"
    '        if name.startswith("steps"):\n            continue\n',
    "test_keeping test_trace",
)
