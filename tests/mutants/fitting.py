"""Faults in the fit of a latency profile, in what a step takes by one, and in the statistics below both."""

from __future__ import annotations

from tests.mutants.fault import Table

FAULTS = Table()
plant = FAULTS.plant

FITTING, TIMING, LATENCY = "test_fitting_rules", "test_timing_rules", "test_latency_rules"
file = "calibration/calibrate.py"
plant(
    "several runs of replicas are one engine's",
    file,
    "if several is not None:",
    "if several is not None and len(runs) > 1:",
    "test_replicas",
)
plant(
    "runs without steps are fitted to steps",
    file,
    "fitted = fit_steps(with_steps, until",
    "fitted = fit_steps(runs, until",
    TIMING,
)
plant(
    "runs that are left out of a fit are not told", file, "if run not in with_steps:", "if run in with_steps:", TIMING
)
plant(
    "a run without steps is not in what a profile was fitted on",
    file,
    "run.digest for run in runs if run.digest",
    "run.digest for run in with_steps if run.digest",
    TIMING,
)
plant(
    "a caveat is told by the fit to the trace's own timings, too",
    file,
    "for name in (OWN, trace.name)",
    "for name in (OWN,)",
    TIMING,
)
plant(
    "answers without times are told of any",
    file,
    '["first_token_s"].isna().all() else ""',
    '["first_token_s"].isna().any() else ""',
    TIMING,
)
plant("a fit of one's own can be forced", file, "{str(error).removesuffix(FORCE)}; ", "{error}; ", TIMING)
file = "calibration/coefficients.py"
plant(
    "a term of some rows was never needed",
    file,
    "form.terms.index(term)].any())",
    "form.terms.index(term)].all())",
    FITTING,
)
plant(
    "of two estimates of a variance the smaller stands",
    file,
    "np.sqrt(np.maximum(np.diag(covariance), variances) / variances)",
    "np.sqrt(np.minimum(np.diag(covariance), variances) / variances)",
    "test_fit_coverage",
)
plant(
    "the jackknife is of independent blocks' mean",
    file,
    "return (count - 1) / count * apart.T",
    "return 1 / count * apart.T",
    FITTING,
)
plant(
    "blocks have a degree of freedom too many",
    file,
    "max(FEWEST_FREEDOM, count - 1)",
    "max(FEWEST_FREEDOM, count)",
    FITTING,
)
plant(
    "an interval reaches below nothing",
    file,
    "max(0.0, float(values[place]) - half)",
    "float(values[place]) - half",
    FITTING,
)
plant(
    "what is sure is uncertain where it matters",
    file,
    "if high - low > values[place] and (high - low)",
    "if high - low > 0 and (high - low)",
    FITTING,
)
plant("what does not matter is uncertain", file, "(high - low) * share[place] > MATTERS", "share[place] > 0", FITTING)
plant(
    "the products of terms are summed over rows",
    file,
    "covariance, gram / len(matrix), freedom",
    "covariance, gram, freedom",
    LATENCY,
)
file = "calibration/descent.py"
plant(
    "a coefficient is moved by its own share",
    file,
    "moved[place] += STEP / start.share[place]",
    "moved[place] += STEP * start.share[place]",
    "test_knee",
)
plant(
    "the overhead of a request is a step's time",
    file,
    "np.abs(slopes[..., :-1] @ (values * start.share)[:-1])",
    "np.abs(slopes @ (values * start.share))",
    FITTING,
)
plant(
    "a coefficient moves as far as it wants",
    file,
    "(aim - shares[free]) * min(1.0, FARTHEST / max(moved, 1e-12))",
    "(aim - shares[free])",
    FITTING,
)
plant("an outlier costs its square", file, "size**2, 2 * SMALL * size - SMALL**2)", "size**2, size**2)", FITTING)
plant(
    "measures that are not there are free of error",
    file,
    "max(1, (weights > 0).sum())",
    "max(1, weights.size)",
    FITTING,
)
plant(
    "what is not free is held against the step",
    file,
    "reached = np.inf if (values[~free] > 0).any() else around.cost(errors)",
    "reached = around.cost(errors)",
    FITTING,
)
plant("a step to worse is not halved", file, "for _ in range(HALVINGS):", "for _ in range(1):", FITTING)
plant("a step to worse is taken", file, "if around.cost(found) >= reached:", "if around.cost(found) < 0:", FITTING)
plant(
    "what is left out of a fold is fitted",
    file,
    "self.weights if chosen is None else self.weights * chosen",
    "self.weights",
    FITTING,
)
file = "calibration/form.py"
plant(
    "a launch counts beside what a step of prefill takes",
    file,
    '(*(term for term in self.terms if term != "prefill_step"), LAUNCH)',
    "(*self.terms, LAUNCH)",
    FITTING,
)
plant(
    "few prefill tokens are those of a graph",
    file,
    "prefill < FEW * self.graph_tokens * columns",
    "prefill < self.graph_tokens * columns",
    FITTING,
)
plant(
    "a form with launches becomes richer",
    file,
    "if self.launched:\n            return []",
    "if not self.terms:\n            return []",
    FITTING,
)
file = "calibration/from_requests.py"
plant("requests that ended later are fitted", file, ' & ~(rows["finish_s"] > until)]', "]", FITTING)
plant(
    "the fewest requests are too few",
    file,
    "if len(done) < FEWEST_REQUESTS:",
    "if len(done) <= FEWEST_REQUESTS:",
    FITTING,
)
plant(
    "a first token at its arrival is a time",
    file,
    "if not float(ttft(done).min()) > 0:",
    "if not float(ttft(done).min()) >= 0:",
    FITTING,
)
plant(
    "a missing count is a missing time",
    file,
    'if column == "output_tokens" else',
    'if column != "output_tokens" else',
    FITTING,
)
plant(
    "a forced fit is checked all the same",
    file,
    "if not force:\n            check_timings(run)",
    "check_timings(run)",
    TIMING,
)
plant("two runs are one", file, "if len(runs) == 1:", "if len(runs) <= 2:", TIMING)
plant(
    "noise is of whole requests",
    file,
    "tokens = np.maximum(timed.rows.columns[:, 0], 1.0)",
    "tokens = np.ones(len(timed.rows.columns))",
    TIMING,
)
plant(
    "a request at a time has no decode",
    file,
    "both, merged = profile.intercept_s + profile.decode_request_s, profile.fit",
    "both, merged = profile.intercept_s, profile.fit",
    FITTING,
)
plant(
    "a fit that is a little better is clearly so",
    file,
    "unusual = other[0] < CLEARLY_BETTER * error",
    "unusual = other[0] < error",
    TIMING,
)
plant(
    "the other way of scheduling is told as taken",
    file,
    "str(usual != unusual).lower()",
    "str(usual == unusual).lower()",
    TIMING,
)
plant(
    "the errors of both ways of scheduling are swapped",
    file,
    "(other[0], error) if unusual else (error, other[0])",
    "(error, other[0]) if unusual else (other[0], error)",
    TIMING,
)
plant(
    "a fit to timings has seen as many prompt tokens as slots",
    file,
    "coverage_of(traces, base.engine.max_num_batched_tokens)",
    "coverage_of(traces, base.engine.max_num_seqs)",
    TIMING,
)
plant(
    "the regions of a fit to timings are swapped",
    file,
    'region_of("time to first token", timed.rows.duration[~decode], fitted[~decode])',
    'region_of("time to first token", timed.rows.duration[decode], fitted[decode])',
    TIMING,
)
file = "calibration/from_steps.py"
plant(
    "one load is told by the extremes",
    file,
    'np.percentile(steps["decode_requests"], [5, 95])',
    'np.percentile(steps["decode_requests"], [0, 100])',
    TIMING,
)
plant(
    "an intercept may be nothing",
    file,
    '"intercept_s": max(times["intercept_s"], LEAST_INTERCEPT_S)',
    '"intercept_s": times["intercept_s"]',
    TIMING,
)
plant("a short run's gap counts as a long one's", file, "np.average(gaps, weights=lengths)", "np.average(gaps)", TIMING)
plant("the largest lag of a run is all runs'", file, "np.median(delays, axis=0)", "np.max(delays, axis=0)", TIMING)
plant(
    "the largest prefill is that of one run",
    file,
    '[run.trace for run in runs], max(int(table["prefill_tokens"].max())',
    '[run.trace for run in runs], min(int(table["prefill_tokens"].max())',
    TIMING,
)
plant(
    "graphs are told where nothing is launched",
    file,
    "form.graph_tokens if form.launched else 0",
    "form.graph_tokens",
    TIMING,
)
plant(
    "the last block of a run is the first of the next",
    file,
    "numbered.append(blocks(len(table), int(numbered[-1].max()) + 1 if numbered else 0))",
    "numbered.append(blocks(len(table), int(numbered[-1].max()) if numbered else 0))",
    FITTING,
)
plant(
    "the largest batches are in no region",
    file,
    "(high == edges[-1]) & (decode == high)",
    "(high == edges[0]) & (decode == high)",
    FITTING,
)
plant(
    "the rows that choose a form are those of the beginning",
    file,
    "np.linspace(0, count - 1, max(16, count * MOST_ROWS // len(block))).astype(int)",
    "np.arange(max(16, count * MOST_ROWS // len(block)))",
    FITTING,
)
file = "calibration/guards.py"
plant("few lost requests are the reason", file, "if lost > MISSING:", "if lost > 0:", TIMING)
plant(
    "an overhead that was measured is not physical",
    file,
    "if fitted and lag > SLOW_HOST_S:",
    "if lag > SLOW_HOST_S:",
    TIMING,
)
plant(
    "an overhead of outputs is physical",
    file,
    'for name in ("submit_lag_s", "output_lag_s"):',
    'for name in ("submit_lag_s",):',
    TIMING,
)
plant(
    "arrivals of some open phase may have waited",
    file,
    'if all(phase.kind == "open" for run',
    'if any(phase.kind == "open" for run',
    TIMING,
)
plant(
    "the runs' slowest pace is typical",
    file,
    "float(np.median([tpot(run.trace.finished).median() for run in runs]))",
    "float(np.max([tpot(run.trace.finished).median() for run in runs]))",
    TIMING,
)
file = "calibration/held_out.py"
plant(
    "cells that vary do not tell forms apart",
    file,
    "if worse.mean() <= max(GAIN * best.error, spread):",
    "if worse.mean() <= GAIN * best.error:",
    FITTING,
)
plant(
    "a mean of cells is as unsure as a cell",
    file,
    "float(worse.std(ddof=1) / np.sqrt(len(worse)))",
    "float(worse.std(ddof=1))",
    FITTING,
)
file = "calibration/host_speed.py"
plant(
    "a slow host is fast",
    file,
    'np.log(steps["duration_s"].sum() / profile.durations(steps).sum())',
    'np.log(profile.durations(steps).sum() / steps["duration_s"].sum())',
    TIMING,
)
plant("a host's speed needs a good fit", file, 'source="steps", force=True)', 'source="steps", force=False)', TIMING)
file = "calibration/kept_time.py"
plant(
    "the last pace is the best",
    file,
    "here, left = min(known, key=lambda pair: abs(pair[1]))\n    return",
    "here, left = known[-1]\n    return",
    FITTING,
)
plant(
    "a pace moves as far as the secant says", file, "here + float(np.clip(step, -MOST, MOST))", "here + step", FITTING
)
file = "calibration/least_squares.py"
plant(
    "residuals are relative to what was recorded",
    file,
    "weights = np.sqrt(huber) * rows.precision / fitted",
    "weights = np.sqrt(huber) * rows.precision / rows.duration",
    "test_gpu",
)
plant(
    "outliers weigh as much as others",
    file,
    "np.sqrt(huber) * rows.precision / fitted",
    "rows.precision / fitted",
    FITTING,
)
plant(
    "the first fit of a constant is the last",
    file,
    "np.full(len(rows.duration), -1.0)",
    "np.full(len(rows.duration), rows.duration.mean())",
    FITTING,
)
plant("time goes out instead of back", file, "scale = 1 + left_out", "scale = 1 - left_out", FITTING)
plant(
    "time that is put back is told as taken out",
    file,
    'if left_out > 0 else ("more", "shorter")',
    'if left_out < 0 else ("more", "shorter")',
    FITTING,
)
plant(
    "a form that may be better is",
    file,
    "if not (sure and _root(best_errors) <",
    "if not (_root(best_errors) <",
    FITTING,
)
plant(
    "a form that is hardly better is",
    file,
    "_root(best_errors) < (1 - GAIN) * _root(errors)",
    "_root(best_errors) < _root(errors)",
    FITTING,
)
plant("an exact form is made richer", file, " and _root(errors) > EXACT:", ":", FITTING)
plant("forms are judged where they were fitted", file, "solve(rows.only(~out))", "solve(rows)", FITTING)
plant("an outlier decides between forms", file, "np.minimum(residual**2, 0.25)", "residual**2", FITTING)
plant(
    "a bias is upside down",
    file,
    '"bias": float(fitted.sum() / duration.sum() - 1)',
    '"bias": float(duration.sum() / fitted.sum() - 1)',
    FITTING,
)
plant("blocks are as long as the root of a run's half", file, "round(count**0.5)", "round((count / 2) ** 0.5)", FITTING)
plant("a short run has no block of its own", file, "-(-10 * length // total)", "max(1, 10 * length // total)", FITTING)
file = "calibration/measures.py"
plant(
    "a makespan is of what ended early", file, "if life.part.until == np.inf:", "if life.part.until < np.inf:", FITTING
)
plant(
    "a makespan is recorded over simulated",
    file,
    "makespan(life.simulated) / makespan(life.part.trace.requests)",
    "makespan(life.part.trace.requests) / makespan(life.simulated)",
    FITTING,
)
plant(
    "company is of one's own tokens alone",
    file,
    "integral(begin, end, np.ones(len(begin)), np.zeros(len(begin)))",
    "integral(begin, end, np.ones(len(begin)), np.ones(len(begin)))",
    FITTING,
)
plant("a context shrinks as it answers", file, "prompt - rate * begin, rate)", "prompt - rate * begin, -rate)", FITTING)
plant(
    "requests are in the order of their rows",
    file,
    '[np.argsort(rows["arrival_s"].to_numpy(dtype=float), kind="stable")]',
    "",
    FITTING,
)
file = "calibration/overlap.py"
plant("what ended later tells of an overlap", file, ' & (rows["finish_s"] <= part.until)]', "]", TIMING)
plant(
    "an excerpt takes all its steps whatever was asked",
    file,
    "cut = min(until, start + steps",
    "cut = max(until, start + steps",
    TIMING,
)
plant(
    "a slope adds up twice as fast",
    file,
    "(times**2 - moments[place] ** 2) / 2)",
    "(times**2 - moments[place] ** 2))",
    FITTING,
)
file = "calibration/request_fit.py"
plant(
    "the overhead of a request grows with the steps",
    file,
    "np.append(np.full(len(timed.values) - 1, scale), 1.0)",
    "np.full(len(timed.values), scale)",
    FITTING,
)
plant(
    "receipts at arrival delay the submission",
    file,
    'return "output_lag_s" if received else "submit_lag_s"',
    'return "submit_lag_s" if received else "output_lag_s"',
    FITTING,
)
plant(
    "waits are as precise as they are imprecise",
    file,
    "np.median(residual[~waits]) / max(float(np.median(residual[waits])), 1e-6)",
    "np.median(residual[waits]) / max(float(np.median(residual[~waits])), 1e-6)",
    FITTING,
)
plant("paces count among the measures' error", file, "one.errors[:MEASURES] for one", "one.errors for one", TIMING)
file = "calibration/request_rows.py"
plant("what ended later is a row", file, " & (end <= life.part.until)", "", TIMING)
plant(
    "a wait is without what passed before the dispatch",
    file,
    "passed[1] - passed[0] + passed[3] - passed[2], waits",
    "passed[3] - passed[2], waits",
    TIMING,
)
plant(
    "the blocks of a second run are the first's",
    file,
    "ranks.append(rank + sum(lengths))",
    "ranks.append(rank)",
    TIMING,
)
file = "calibration/noise_fit.py"
plant(
    "the spread of a run is not told from that within",
    file,
    "max(0.0, float(means.var(ddof=1)) - within)",
    "max(0.0, float(means.var(ddof=1)))",
    "test_fit_coverage",
)
plant(
    "residuals of a run are around nothing",
    file,
    "own = [run - run.mean() for run in",
    "own = [run for run in",
    LATENCY,
)
plant(
    "the shortest run tells of slow noise", file, "longest = max(left.lengths)", "longest = min(left.lengths)", LATENCY
)
plant(
    "a fit leaves all of the noise",
    file,
    "moments.seen / moments.left_over(_noise_at(point))",
    "moments.seen",
    "test_fit_coverage",
)
plant(
    "the slow part is the fast one",
    file,
    "sorted(_parts_at(point), key=lambda part: part[1])",
    "sorted(_parts_at(point), key=lambda part: -part[1])",
    LATENCY,
)
file = "calibration/overheads.py"
plant("gaps may be negative", file, "float(max(0.0, gaps.mean()))", "float(gaps.mean())", "test_calibrate")
file = "calibration/residuals.py"
plant("whole runs do not differ by noise", file, " + noise.run_spread**2 * whole.T @ whole", "", LATENCY)
plant(
    "a step is correlated with itself twice",
    file,
    "np.asarray(forwards + backwards - values)",
    "np.asarray(forwards + backwards)",
    LATENCY,
)
plant(
    "a weight is not squared",
    file,
    "(solution.weights * solution.fitted) ** 2",
    "(solution.weights * solution.fitted)",
    LATENCY,
)
file = "calibration/runs.py"
plant(
    "runs of one setting are told as others",
    file,
    "if header.engine != first.trace.header.engine:",
    "if header.engine == first.trace.header.engine:",
    TIMING,
)
plant(
    "engines of two versions are fitted together",
    file,
    "if header.engine.version != first.trace.header.engine.version:",
    "if header.engine.name != first.trace.header.engine.name:",
    TIMING,
)
plant(
    "the least reach of all runs is seen",
    file,
    "(max(values) for values in zip(*(extent",
    "(min(values) for values in zip(*(extent",
    TIMING,
)
file = "latency/noise.py"
plant("the launch has no noise", file, "launch * factor // NOISE_UNIT", "launch", LATENCY)
plant(
    "slow noise begins anew at each draw", file, "self._slow_last = float(slow[-1])", "self._slow_last = 0.0", LATENCY
)
plant(
    "a growing context takes the noise of the first step",
    file,
    "- self._moments[begin] - begin * plain",
    "- self._moments[begin]",
    "test_noise",
)
file = "latency/profile.py"
plant(
    "a step's one-off cost is that of attention",
    file,
    "ticks(self.prefill_attention_s),\n            ticks(self.prefill_step_s)",
    "ticks(self.prefill_step_s),\n            ticks(self.prefill_attention_s)",
    "test_steptime",
)
plant(
    "launches come on top of what the GPU computes",
    file,
    "np.maximum(computing, np.where(launched",
    "np.add(computing, np.where(launched",
    LATENCY,
)
plant(
    "a drawn coefficient may be longer than any",
    file,
    "np.minimum(values, LONGEST_STEP_S)",
    "np.minimum(values, np.inf)",
    LATENCY,
)
plant(
    "hidden tokens by hand are drawn as a roofline",
    file,
    "if self.hidden_tokens and self.hidden_tokens == tied_tokens(",
    "if self.hidden_tokens or self.hidden_tokens == tied_tokens(",
    "test_knee",
)
plant(
    "a launch is not in the digest",
    file,
    "if not self.launch_s:\n            del",
    "if True:\n            del",
    LATENCY,
)
plant("an interval of one number is refused", file, "if low > high]", "if low >= high]", LATENCY)
plant("graph sizes may come twice", file, "list(sizes) != sorted(set(sizes))", "list(sizes) != sorted(sizes)", LATENCY)
plant(
    "coefficients of nothing are shown",
    file,
    "for name in names if getattr(self, name)}",
    "for name in names}",
    LATENCY,
)
file = "latency/roofline.py"
plant(
    "an embedding of its own takes no memory",
    file,
    "self.output_weights * (1 if self.tied else 2)",
    "self.output_weights",
    "test_firstprinciples",
)
plant("a tied embedding is stored twice", file, "(1 if self.tied else 2)", "2", LATENCY)
plant(
    "fp8 doubles the output layer's speed",
    file,
    "read = layer_bytes + 2 * shape.output_weights",
    "read = layer_bytes + (1 if eight else 2) * shape.output_weights",
    LATENCY,
)
plant("attention is computed in fp8", file, "/ (1e12 * gpu.fp16 * assumed.compute_efficiency)", "/ compute", LATENCY)
plant("activations take no memory", file, " - stored - assumed.activations_gib * GIB", " - stored", LATENCY)
plant("memory is in units of a thousand", file, "gpu.memory * 2**20 *", "gpu.memory * 1e6 *", LATENCY)
plant(
    "slots beyond a step's tokens are never filled",
    file,
    "max(gpu.batched_tokens, assumed.max_num_seqs)",
    "gpu.batched_tokens",
    LATENCY,
)
plant(
    "a head is as wide as the model",
    file,
    'int(content.get("head_dim") or content["hidden_size"] // heads)',
    'int(content["hidden_size"] // heads)',
    LATENCY,
)
plant(
    "every head has keys of its own",
    file,
    'int(content.get("num_key_value_heads") or heads)',
    "heads",
    "test_firstprinciples",
)
plant(
    "a GPU without fp8 has the speed of none",
    file,
    "gpu.fp8 if eight and gpu.fp8 else gpu.fp16",
    "gpu.fp8 or 0.0 if eight else gpu.fp16",
    LATENCY,
)
file = "latency/service.py"
plant(
    "an engine that schedules ahead has gaps",
    file,
    "(0.0 if engine.async_scheduling else profile.gap_s)",
    "profile.gap_s",
    LATENCY,
)
plant(
    "a launch is once a prompt",
    file,
    "max(prefill, steps * profile.launch_s)",
    "max(prefill, profile.launch_s)",
    "test_service",
)
plant(
    "the mean context is the last one",
    file,
    "context = prompt + output / 2",
    "context = prompt + output",
    "test_service",
)
plant(
    "a prompt that is all cached computes nothing",
    file,
    "min(stretches[-2][1], prompt - 1)",
    "min(stretches[-2][1], prompt)",
    LATENCY,
)
plant(
    "an answer may have less than a token",
    file,
    "output = max(1.0, (job.estimate",
    "output = max(0.0, (job.estimate",
    LATENCY,
)
plant("attention is without what was cached", file, "new * (cached + (new + 1) / 2)", "new * ((new + 1) / 2)", LATENCY)
file = "latency/steptime.py"
plant(
    "no tokens are hidden where they cost nothing",
    file,
    "if prefill_token > 0 else 0",
    "if prefill_token > 0 else 1",
    LATENCY,
)
plant(
    "a largest graph has as many tokens as slots",
    file,
    "min(2 * max_num_seqs, GRAPH_SIZES[-1])",
    "min(max_num_seqs, GRAPH_SIZES[-1])",
    "test_gpu",
)
plant(
    "a batch of nobody is padded to one",
    file,
    "if size and place < len(graph_sizes)",
    "if place < len(graph_sizes)",
    LATENCY,
)
plant(
    "a launch below nothing is taken",
    file,
    "(self.prefill_step, self.hidden_tokens, self.launch, self.graph_tokens)",
    "(self.prefill_step, self.hidden_tokens)",
    LATENCY,
)
file = "latency/uncertainty.py"
plant(
    "a draw is normal",
    file,
    "normal / np.sqrt(random.chisquare(self.freedom) / self.freedom)",
    "normal",
    "test_uncertainty",
)
plant(
    "a sum is as sure as its first part",
    file,
    "sums[self.terms.index(into), self.terms.index(other)] = 1.0",
    "sums[self.terms.index(other), self.terms.index(into)] = 1.0",
    "test_uncertainty",
)
plant(
    "a half width is a standard deviation",
    file,
    "float(student_quantile(self.freedom) * deviation)",
    "float(deviation)",
    "test_uncertainty",
)
plant(
    "one term may stand twice",
    file,
    "if len(set(self.terms)) < size:",
    "if len(set(self.terms)) > size:",
    "test_uncertainty",
)
plant("a negative variance is taken", file, " or (np.diag(matrix) < 0).any():", ":", "test_uncertainty")
plant(
    "a draw below nothing is cut",
    file,
    "nnls_of_gram(gram, gram @ drawn)",
    "np.maximum(drawn, 0.0)",
    "test_uncertainty",
)
file = "statistics.py"
plant(
    "values that are alike have the freedom of one side",
    file,
    "float(len(one) + len(other) - 2)",
    "float(len(one) - 1)",
    "test_statistics",
)
plant(
    "a mean that is not known is sure",
    file,
    "if math.isnan(self.error) or math.isnan(self.centre):",
    "if math.isnan(self.error):",
    "test_statistics",
)
plant(
    "a gate without error sees a shift below its floor",
    file,
    "highest = max(beyond, floor)",
    "highest = beyond",
    "test_statistics",
)
plant(
    "a shift is detected below the gate's floor",
    file,
    "student_quantile(freedom) * estimated, floor)",
    "student_quantile(freedom) * estimated, 0.0)",
    "test_statistics",
)
plant(
    "a target that is just met is missed",
    file,
    "failed = attained < target",
    "failed = attained <= target",
    "test_statistics",
)
plant(
    "a curve that never fails crosses at its first load",
    file,
    "(loads[after] - loads[before]), loads[-1])",
    "(loads[after] - loads[before]), loads[0])",
    "test_statistics",
)
plant(
    "adjusted p values are beyond 1",
    file,
    "max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))",
    "max(highest, (len(p_values) - rank) * p_values[place])",
    "test_statistics",
)
plant(
    "a day of one resample is known",
    file,
    "if min(len(day.local), len(day.circular)) > 1]",
    "if max(len(day.local), len(day.circular)) > 1]",
    "test_statistics",
)
file = "outcomes.py"
plant(
    "requests that were lost are not told",
    file,
    '.fillna("unfinished").value_counts()',
    ".value_counts()",
    "test_boundaries",
)
plant(
    "those who were turned away leave others though nobody finished",
    file,
    'if row["finished"] else "nobody is left',
    'if row["requests"] else "nobody is left',
    "test_boundaries",
)
plant("requests without an SLO met none", file, "met[~found.has] = pd.NA", "met[found.has & False] = pd.NA", "test_slo")
plant(
    "what was never cached is in the share of the cache",
    file,
    "most[rows['cached_tokens'].notna()].sum()",
    "most.sum()",
    "test_boundaries",
)
file = "estimates.py"
plant(
    "estimates of all phases are scored",
    file,
    'own = own & (table["phase"] == phase)',
    'own = own | (table["phase"] == phase)',
    "test_estimation",
)
plant(
    "the losses of both quantiles are at one level",
    file,
    "((low, levels[0]), (high, levels[-1]))",
    "((low, levels[0]), (high, levels[0]))",
    "test_estimation",
)
file = "profiles.py"
plant(
    "a limit of time is never read in the first run",
    file,
    "limit = np.inf if until is None else until",
    "limit = np.inf",
    TIMING,
)
plant("a profile that does not describe its timings is given away", file, "force=force)", "force=True)", TIMING)
file = "crowding.py"
plant(
    "a barrier's worker is asked for no engine",
    file,
    "if engine is None and recorded.header.engine.name == BATCHED:",
    "if engine is None and recorded.header.engine.name != BATCHED:",
    "test_fairness",
)
plant(
    "the phase of slowdowns is all",
    file,
    "alone_times(sizes_of(recorded.requests), scenario), phase)",
    'alone_times(sizes_of(recorded.requests), scenario), "all")',
    "test_boundaries",
)
file = "workers.py"
plant(
    "a folder that others may read is trusted",
    file,
    "folder.st_uid != os.geteuid() or stat",
    "folder.st_uid != os.geteuid() and stat",
    "test_outputs",
)
file = "slo.py"
plant(
    "an SLO of a token's pace needs requests of steps",
    file,
    "any(slo.itl_s is not None for slo in slos)",
    "any(slo.tpot_s is not None for slo in slos)",
    "test_slo",
)
plant(
    "a barrier keeps limits of first tokens",
    file,
    'if slo.limits.keys() - {"e2e"}:',
    'if slo.limits.keys() - {"e2e", "ttft"}:',
    "test_slo",
)
