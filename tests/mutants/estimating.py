"""Faults of the estimators that learn, of injected drift, and of how estimates are judged."""

from __future__ import annotations

from tests.mutants.fault import Table

FAULTS = Table()
plant = FAULTS.plant

file = "scheduling/trackers.py"
plant("a quantile walks the wrong way", file, "(self.q - hit)", "(hit - self.q)", "test_trackers")
plant(
    "a quantile ignores what was said", file, "output_length <= job.estimate", "output_length <= 300", "test_trackers"
)
plant(
    "log-ema moves by the whole ratio", file, "old + self.alpha * (ratio - old)", "old + self.alpha * ratio",
    "test_trackers",
)  # fmt: skip
plant("the first group kept is the latest", file, "del self.means[next(iter(self.means))]", "self.means.popitem()",
      "test_trackers")  # fmt: skip
file = "scheduling/lifetimes.py"
plant("a cut output counts as ended", file, "CUT if cut else ENDED", "ENDED", "test_lifetimes")
plant("the longest output never ends", file, "or place == len(self._sorted) - 1", "", "test_lifetimes")
plant("in flight the estimate stays", file, "self.residual(category, tokens, request.max_tokens) if known",
      "job.estimate if known", "test_lifetimes")  # fmt: skip
plant("residual life has no cap", file, "self.residual(category, tokens, request.max_tokens) if",
      "self.residual(category, tokens) if", "test_lifetimes")  # fmt: skip
plant(
    "who outlives an unknown estimate stays done",
    file,
    "max(job.estimate, tokens + 1)",
    "job.estimate",
    "test_lifetimes",
)
plant("an abort at nothing is a bound", file, "if at_least > 0:", "if True:", "test_lifetimes")
file = "scheduling/regression.py"
plant("the gain forgets the spread of both", file, "one + both * x, both + two * x", "one, two * x", "test_learning")
plant("the spread grows without end", file, "if kept[0] * scale <= SPREADS[0] and kept[2] * scale <= SPREADS[1]:",
      "if True:", "test_learning")  # fmt: skip
file = "scheduling/change.py"
plant("a fall is no change", file, "enumerate((1, -1))", "enumerate((1, 1))", "test_learning")
plant("the mean is kept after a change", file, "self.mean, self.count = self.totals[side] / self.counts[side]",
      "self.mean, self.count = self.mean", "test_learning")  # fmt: skip
file = "scheduling/conformal.py"
plant("the share left out stays", file, "self.alpha += self.rate * (", "self.alpha += 0 * (", "test_learning")
plant("an empty interval holds its middle", file, "return whole + 1, whole", "return whole, whole", "test_learning")
file = "scheduling/hedge.py"
plant("a hedge rewards errors", file, "math.exp(least - loss)", "math.exp(loss - least)", "test_learning")
plant("what was said last counts", file, "self._said.setdefault(request.id, said)", "self._said[request.id] = said",
      "test_learning")  # fmt: skip
plant("noise by the row of the day", "scheduling/estimators.py", "zlib.crc32(b\"noisy estimates\")", "len(outputs)",
      "test_learning")  # fmt: skip
file = "workloads/drifting.py"
plant("caps do not hold", file, "np.clip(wanted, 1, caps)", "np.maximum(wanted, 1)", "test_drift")
plant("words stay", file, "(after / np.maximum(before, 1))", "1.0", "test_drift")
plant("all drifts share a stream", file, "stream(seed, name)", "stream(0, name)", "test_drift")
plant("a mix changes who is named already", file, "(since >= 0) & ~own", "since >= 0", "test_drift")
plant("a drained phase has known times", file, 'phase.kind != "after-drain" or row == 0', "True", "test_drift")
plant("a ramp is straight in lengths", "drift.py", "np.clip(since / Place.of(str(self.over)).value, 0, 1)",
      "np.clip(since / Place.of(str(self.over)).value, 0, 1) ** 2", "test_drift")  # fmt: skip
plant(
    "resamples do not drift",
    "comparison/runs.py",
    "drifting(drawn, plan.drift, plan.seed + draw.number)",
    'drifting(drawn, plan.drift if draw.kind == "recorded" else (), plan.seed + draw.number)',
    "test_drift",
)
plant(
    "drifts share a workload", "sweeps/tasks.py", 'drift = "; ".join(map(str, spec.drift))', 'drift = ""', "test_drift"
)
plant("words for tokens are told to nobody", "simulation/observed.py", "np.where(np.isnan(ratio), observed, other)",
      "observed", "test_drift")  # fmt: skip
file = "estimates.py"
plant("the pinball loss is the absolute error", file, "(level - 1) * above)", "-level * above)", "test_estimation")
plant("an empty interval covers", file, "(low <= truth) & (truth <= high)", "truth <= high", "test_estimation")
plant("half a shift is a tenth", file, "abs(shift) / 2)", "abs(shift) / 10)", "test_estimation")
plant("recovery ignores the run without drift", file, "if undrifted is not None:", "if undrifted is None and False:",
      "test_estimation")  # fmt: skip
