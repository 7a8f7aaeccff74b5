"""The cadence of prefills: some steps apart while others decode (vLLM 0.33, ``prefill_schedule_interval``)."""

from __future__ import annotations


class Cadence:
    """Whether the step at hand may compute prompts, as vllm/v1/core/sched/scheduler.py of 0.33 counts; 1: always."""

    def __init__(self, interval: int) -> None:
        self.interval = interval
        self.held = False  # no prompts in the step at hand
        self.prefilled = False  # it computes some
        self._executed = 0  # steps
        self._last = -interval  # the last of them that computed prompts
        self._behind = False  # a step that could compute prompts left somebody waiting

    def holds(self, anybody_decodes: bool) -> bool:
        """Begin a step; whether it computes no prompts."""
        self.prefilled = False
        self.held = anybody_decodes and not self._behind and self.steps_held() > 0
        return self.held

    def steps_held(self) -> int:
        """For how many steps from now on prompts are held back if somebody decodes."""
        return self.interval - (self._executed + 1 - self._last)

    def scheduled(self, computes: bool, anybody_waits: bool, preempted: bool) -> None:
        """The step at hand is scheduled: whether it computes anything, left somebody waiting, and preempted."""
        if not preempted and not self.held:
            self._behind = anybody_waits
        if self.prefilled:
            self._last = self._executed + computes

    def executed(self, steps: int, anybody_waits: bool) -> None:
        """So many scheduled steps were executed; while nobody waits, no step leaves anybody."""
        self._executed += steps
        self._behind &= anybody_waits
