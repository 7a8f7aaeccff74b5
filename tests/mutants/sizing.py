"""Faults of the search for capacity."""

from __future__ import annotations

from tests.mutants.fault import Table

FAULTS = Table()
plant = FAULTS.plant

SIZING, COVERAGE = "test_sizing", "test_sizing_coverage"
file = "sizing/search.py"
plant("a load above one that failed counts", file, "if held and load < failed)", "if held)", SIZING)
plant("everything that holds is a number", file, 'return "above" if self.failed is None else "found"',
      'return "found"', SIZING)  # fmt: skip
plant("the search ends early", file, "failed / capacity <= 1 + self.tolerance", "failed / capacity <= 1.3", SIZING)
plant("whole loads are found but for one", file, "failed - capacity <= 1 if self.whole",
      "failed - capacity <= 2 if self.whole", SIZING)  # fmt: skip
file = "sizing/curves.py"
plant("resamples of a day are independent days", file, "half = student_quantile(len(self.counted) - 1) * spread",
      "half = student_quantile(len(self.counted) - 1) * spread / len(self.counted) ** 0.5", COVERAGE)  # fmt: skip
plant("the interval of draws is too narrow by a root of two", file,
      "self.counted.std(axis=0, ddof=1) / np.sqrt(count)",
      "self.counted.std(axis=0, ddof=1) / np.sqrt(2 * count)", COVERAGE)  # fmt: skip
plant("all draws tell of what missed", file, "student_quantile(min(max(self.telling, 1.0), count - 1))",
      "student_quantile(count - 1)", COVERAGE)  # fmt: skip
plant("a change is not paired", file, "one.crossed(own) - other.crossed(base)",
      "one.crossed(own) - other.crossed(base)[::-1]", COVERAGE)  # fmt: skip
plant("the jackknife lacks its factor", file, "(count - 1) / count * ((left", "1 / count * ((left", COVERAGE)
plant("a curve crosses at its last failure", "statistics.py", "failed.argmax(axis=-1)",
      "len(loads) - 1 - failed[..., ::-1].argmax(axis=-1)", COVERAGE)  # fmt: skip
file = "sizing/run.py"
plant("every load has other draws", file, "specs = [spec.with_parts(changes) for spec in pressed",
      'specs = [spec.with_parts({**changes, "seed": len(self.found)}) for spec in pressed', SIZING)  # fmt: skip
plant("what binds is asked at the lowest load", file, "(self.specs[case], one.beyond)",
      "(self.specs[case], min(one.rows))", SIZING)  # fmt: skip
file = "sizing/plan.py"
plant("an axis is held against its second value", file, "axis: values[0] for axis", "axis: values[-1] for axis", SIZING)
plant("a target of 1 is one", file, "if not _between(self.target, 0, 1):",
      "if not _between(self.target, 0, 1, ends=True):", SIZING)  # fmt: skip
file = "trace/subset.py"
plant("the last to arrive count", file, "(rank <= count - round(cool_down * count))", "(rank <= count)", SIZING)
file = "simulation/limits.py"
plant("slots bind though nobody waits", file, '"slots": waiting & ', '"slots": ', SIZING)
plant("KV blocks are short where slots are", file, "(running < slots) & ~full", "~full", SIZING)
plant("prefill is all that a step with prompts takes", file, "duration - without / ticks(1.0)", "duration", SIZING)
file = "pressing/loads.py"
LOOPS = "test_sizing_loops"
plant("a cap is kept and not said", file, 'if phase.kind == "capped":', 'if phase.kind == "":', LOOPS)
plant("a drain is kept and not said", file, 'if phase.kind == "after-drain":', 'if phase.kind == "":', LOOPS)
plant("an end beyond all loads is a number", "sizing/answers.py",
      "below or low < bounds.lowest, above or high > bounds.highest",
      "below, above", LOOPS)  # fmt: skip
