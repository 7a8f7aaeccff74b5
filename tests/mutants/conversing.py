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

file = "live/recorder.py"
TALK = "test_talking"
plant("a failed turn starts the next, live", file, "now, reason not in FINISHED)", "now, False)", TALK)
plant("admission counts the last text alone", file, "request.prompt_tokens if repeats else None", "None", TALK)
file = "live/lives.py"
plant("rows that came are the first ones", file, "else taken(table, came)", "else table.head(len(came))", TALK)
file = "live/talks.py"
plant(
    "the answer is not repeated", file, 'request.prompt or "", answer), prompt', 'request.prompt or ""), prompt', TALK
)
plant("what the others said is left out", file, '[*reports, request.prompt or ""]', '[request.prompt or ""]', TALK)
plant("the server's own count is not heeded", file,
      "request.prompt_tokens if outcome.prompt_tokens is None else outcome",
      "request.prompt_tokens if True else outcome", TALK)  # fmt: skip
file = "trace/journal.py"
plant("a journal keeps the rows of the file", file, '    if "parent" in whole:\n', "    if False:\n", TALK)

CONVERSATIONS = "test_conversations"
file = "workloads/turns.py"
plant("a later prompt lacks the answer before it", file, "return (*chain, (row, prompt + shown))",
      "return (*chain, (row, prompt))", CONVERSATIONS)  # fmt: skip
plant("a join waits for one", file, "parents = parents if number else []", "parents = []", CONVERSATIONS)
plant("reports are not read", file, "reports += rows.outputs[parents[-1]]", "reports += 0", CONVERSATIONS)
plant("everybody has the first system prompt", file,
      'picks = stream(seed, f"choice of system prompts of {label}").random(count)',
      "picks = np.zeros(count)", CONVERSATIONS)  # fmt: skip
plant("turns share a stream", file, 'own = f"{label}, turn {turn}"', "own = label", CONVERSATIONS)
file = "trace/prefixes.py"
plant("the last token of an output is found, too", file, "computed, known, there = prompt + output - 1, 0, True",
      "computed, known, there = prompt + output, 0, True", CONVERSATIONS)  # fmt: skip
plant("the last token of a prompt is found, too", file, "min(known, prompt - 1) // block",
      "min(known, prompt) // block", CONVERSATIONS)  # fmt: skip
