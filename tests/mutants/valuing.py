"""Faults of what predictions are said to be worth."""

from __future__ import annotations

from tests.mutants.fault import Table

FAULTS = Table()
plant = FAULTS.plant

VALUE, COVERAGE = "test_value", "test_value_coverage"
file = "worth/answers.py"
plant("resamples of a day count as draws", file, 'if "drawn" in kinds:', 'if "local" not in kinds[:1]:', VALUE)
plant("a change is of the means of the logarithms of other draws", file,
      'np.log(self.values[cell, base][measure])', 'np.log(self.values[cell, base][measure][::-1])', VALUE)  # fmt: skip
plant("FIFO wins where its lead ends", file, 'value = float(crossing(at, -values, 0.0)) if state == "found"',
      'value = float(crossing(at, values, 0.0)) if state == "found"', VALUE)  # fmt: skip
plant("the interval of a sigma is of the change alone", file,
      "low = float(crossing(at, -highs, 0.0)) if (highs > 0).any() else np.nan",
      "low = value", VALUE + " " + COVERAGE)  # fmt: skip
plant("never is said where the truth loses", file, '"at once" if values[0] > 0 else', "", VALUE)
plant("admission is in the regret of order", file, "parts = [whole - admission, admission, policy, whole + policy]",
      "parts = [whole, admission, policy, whole + policy]", VALUE)  # fmt: skip
plant("the best policy is the worst", file, "return min(self._plan.policies, key",
      "return max(self._plan.policies, key", VALUE)  # fmt: skip
plant("a load is calm though a lower one is not", file, "                break\n            highest = load",
      "                continue\n            highest = load", VALUE)  # fmt: skip
file = "worth/run.py"
plant("the worst tenant is the best", file, "return float(max(own, default", "return float(min(own, default", VALUE)
plant("a load is a share of the recorded rate", file, "share * engine.backlog / (turns * axis.unit_rate)",
      "share / (turns * axis.unit_rate)", VALUE)  # fmt: skip
plant("the engine is the profile's whatever binds", file, '{"engine": {**spec.engine, **engine.changes}, "fairness"',
      '{"engine": {**spec.engine}, "fairness"', VALUE)  # fmt: skip
file = "worth/engines.py"
plant("what binds least is taken", file, "gains[limit] == max(gains.values())", "True", VALUE)
plant("a backlog is turned away by its own limits", "pressing/loads.py", ", max_in_flight=None, shed=())",
      ", max_in_flight=None)", VALUE)  # fmt: skip
file = "worth/plan.py"
plant("the truth is left out", file, "tuple(sorted({0.0, *map(float, self.sigmas)}))",
      "tuple(sorted(map(float, self.sigmas)))", VALUE)  # fmt: skip
plant(
    "who counts requests admits by estimates", file, "rule.tokens or rule.wait_s", "rule.requests or rule.wait_s", VALUE
)
file = "scheduling/estimators.py"
plant("a blurred length has no bound", file, "round(min(length * factor, MOST))", "round(length * factor)",
      "test_learning")  # fmt: skip
