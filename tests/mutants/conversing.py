"""Faults of sessions: their metrics, their resamples, and what policies see of them."""

from __future__ import annotations

from tests.mutants.fault import Table

FAULTS = Table()
plant = FAULTS.plant
METRICS = "test_session_metrics"

file = "sessions.py"
plant("gaps count as active", file, '"active_s": time - each(gaps).sum()', '"active_s": time', METRICS)
plant("a gap is since the turn before, not since the last end", file, "each(each(end).cummax()).shift()",
      "each(end).shift()", METRICS)  # fmt: skip
plant("cut sessions are timed", file, 'table[~table["cut_short"]]', "table", METRICS)
plant("a turn that failed has latencies", file, '(rows["finish_s"] - rows["arrival_s"]).where(done)',
      '(rows["finish_s"] - rows["arrival_s"])', METRICS)  # fmt: skip
plant("a band begins too early", file, "last // 2 + 1", "last // 2", METRICS)

file = "trace/turns.py"
plant("a turn follows its first parent alone", file, "max((numbers[one] for one in before), default=0)",
      "(numbers[before[0]] if len(before) else 0)", METRICS + " test_session_policies")  # fmt: skip

file = "comparison/runs.py"
plant("turns that never came are scored", file, "scored=scored[drawn.sent_in(trace)]", "scored=scored", METRICS)

file = "workloads/resampling.py"
SESSIONS = "test_sessions"
plant("sessions are cut in two", file, "whole = _whole(rows, first) if together else",
      "whole =", SESSIONS)  # fmt: skip
plant("copies of a session have one name", file, 'f"{name}~{copy}" if isinstance', "name if isinstance", SESSIONS)
plant("a copy's second turn repeats another copy", file, "(names.get(owner, owner), end) for owner, end in whole",
      "(names.get(owner, owner) if owner == own else owner, end) for owner, end in whole", SESSIONS)  # fmt: skip
plant("sessions that overlap stand one after the other", file, 'if together and phase.kind != "sessions":', "if False:",
      SESSIONS)  # fmt: skip

file = "scheduling/dispatcher.py"
SEEN = "test_session_policies"
plant("service is that of the last turn", file, "prompts + request.prompt_tokens, outputs + tokens",
      "request.prompt_tokens, tokens", SEEN)  # fmt: skip
plant("a turn that got nothing counts its prompt", file, "        if tokens:\n", "        if True:\n", SEEN)
