"""Faults of the places of a policy: priorities, and what it does inside the engine."""

from __future__ import annotations

from tests.mutants.fault import Table

FAULTS = Table()
plant = FAULTS.plant

TESTS = "test_places"
plant("negative keys keep the order of their bits", "scheduling/placing.py", "-(bits & SIGN)", "bits", TESTS)
plant(
    "a policy with a queue of its own is static",
    "scheduling/queues.py",
    'if own.keys() & {"push", "pop", "pop_below"}:\n            break',
    "",
    TESTS,
)
plant("a limit in flight is ignored", "scheduling/placing.py", "if max_in_flight is not None:", "if False:", TESTS)
plant(
    "the engine keeps its own order under priorities",
    "simulation/scenario.py",
    'settings.changed(scheduling_policy="priority") if self.placed == "priority" else settings',
    "settings",
    TESTS,
)
plant("the header forgets the place", "simulation/heading.py", 'if scenario.placed != "front":', "if False:", TESTS)
plant(
    "a recorded place is not simulated again",
    "simulation/as_measured.py",
    "        place=place_of(trace, name),\n",
    "",
    TESTS,
)
plant(
    "preempted without end",
    "scheduling/inside.py",
    "(job := one[0]).preempted < most and job.made",
    "(job := one[0]).made",
    TESTS,
)
plant("preempted at any progress", "scheduling/inside.py", "job.made < share * job.first_estimate and ", "", TESTS)
plant(
    "preempts though it is not enough",
    "scheduling/inside.py",
    "return gone if slots <= 0 and blocks <= 0 else []",
    "return gone",
    TESTS,
)
plant("the least expendable goes", "scheduling/inside.py", "now), reverse=True)", "now))", TESTS)
plant(
    "a newcomer unsettles nothing",
    "scheduling/inside.py",
    "if self.settled and (self._peek is None or self.head(now) is job):",
    "if False:",
    TESTS,
)
plant("who is preempted forgets what was made", "scheduling/inside.py", "job.made = made", "pass", TESTS)
plant("everybody passes", "scheduling/inside.py", "return self._choice is None", "return True", TESTS)
plant("estimates in flight are not heard", "scheduling/inside.py", "job.estimate = length", "pass", TESTS)
plant("who made way is admitted at once", "engine/inside.py", "self.waiting.holding = bool(gone)", "pass", TESTS)
plant("victims are the last admitted", "engine/inside.py", "if not self.place.chooses_victim:", "if True:", TESTS)
plant(
    "a run goes on past a newcomer who would be tried",
    "engine/inside.py",
    "self.place.passes(sequence.job, now):",
    "False:",
    TESTS,
)
plant(
    "a run goes on past changing minds",
    "engine/inside.py",
    "if self.place.preempting and not (self._decided or self.place.settled):",
    "if False:",
    TESTS,
)
plant(
    "the core learns of no finish",
    "engine/inside.py",
    "self.place.finished([self._departure(one) for one in known], self.env.now / TICKS_PER_SECOND)",
    "self.place.finished([], 0.0)",
    TESTS,
)
plant(
    "srpt forgets what was made",
    "scheduling/preempting.py",
    "left = running.estimate - running.made",
    "left = running.estimate",
    TESTS,
)
plant(
    "srpt queues by the whole estimate",
    "scheduling/preempting.py",
    "max(0, job.estimate - job.made)",
    "job.estimate",
    TESTS,
)
plant(
    "waiting inside is no choice",
    "metrics.py",
    'rows["dispatch_s"] if header.admission',
    'rows["dispatch_s"] if True or header.admission',
    TESTS,
)
plant(
    "a torn estimate is read",
    "live/orders.py",
    'if not line.endswith("\\n") or line.count(",") != 4:',
    "if False:",
    TESTS,
)
plant(
    "the share is of the latest estimate",
    "scheduling/inside.py",
    "job.made < share * job.first_estimate and",
    "job.made < share * job.estimate and",
    TESTS,
)
file = "engine/inside.py"
HELD = "test_admitting"
plant(
    "the head is let in whatever the policy says",
    file,
    "self._lets_in if self.place.holds_back else None",
    "None",
    HELD,
)
plant(
    "who would be alone is held back", file, "if not self.running:\n            return True\n        now", "now", HELD
)
plant(
    "a run goes on while somebody is held back",
    file,
    "if self.place.holds_back and not self._is_full():",
    "if False:",
    HELD,
)
plant("who runs is not told of before", file, "            place.tell(sequence.job, made(sequence, self.pool), now)\n  "
      "          running.append", "            running.append", HELD)  # fmt: skip
plant("what is left of prompts takes no time", file, "max(0, sequence.length - sequence.computed - 1)", "0", HELD)
file = "scheduling/admitting.py"
plant("blocks are free at once after the last token", file, "SETTLING = 1 ", "SETTLING = 0 ", HELD)
plant("only the own prompt delays", file, "prefill = sum(-(-one.uncomputed // room.chunk) for one in loads)",
      "prefill = 0", HELD)  # fmt: skip
plant("nothing is kept free", file, "(1 - self._reserve) * room.blocks", "room.blocks", HELD)
plant("the past forgets what was made", file, "self._past.beyond(job.made, job.request.max_tokens) - job.made",
      "self._past.beyond(0, job.request.max_tokens)", HELD)  # fmt: skip
plant("an output ends at no limit", file, "self._past.beyond(job.made, job.request.max_tokens)",
      "self._past.beyond(job.made)", HELD)  # fmt: skip
file = "scheduling/room.py"
plant("the shortest is there longest", file, "np.argsort(-left, kind", "np.argsort(left, kind", HELD)
plant("blocks are rounded down", file, "-(-(np.array(tokens)[order][None, :] + left[order][:, None]) // block_size)",
      "(np.array(tokens)[order][None, :] + left[order][:, None]) // block_size", HELD)  # fmt: skip
plant("a chunk ignores who decodes", file, "budget - slots + 1", "budget", HELD)
