"""vLLM's API server without HTTP: its own admission and its own account of what it holds, before its own scheduler."""

from __future__ import annotations

from typing import Any

from tests.live.bare import core_request
from tests.live.deciding import Case, Theirs


class Served(Theirs):
    """The same core, behind ``AsyncLLM.check_admission`` and an ``OutputProcessor``; ``rejected`` in order."""

    def __init__(self, made: Case) -> None:
        from vllm.v1.engine.output_processor import OutputProcessor

        super().__init__(made)
        self.processor = OutputProcessor(tokenizer=None, log_stats=False)
        self.rejected: list[str] = []
        self.refused = set[int]()
        # What check_admission() reads of an AsyncLLM:
        self.scheduler_config = self.scheduler.vllm_config.scheduler_config
        self.scheduler_config.max_num_queued_reqs = made.settings.max_num_queued_reqs
        self.scheduler_config.max_num_queued_tokens = made.settings.max_num_queued_tokens
        self.admission_stats = self.logger_manager = None
        self.get_num_unfinished_requests = self.processor.get_num_unfinished_requests
        self.get_num_queued_tokens = self.processor.get_num_queued_tokens
        events = [(asked.step, number, 0) for number, asked in enumerate(made.requests)]
        events += [(asked.gone, number, 1) for number, asked in enumerate(made.requests) if asked.gone is not None]
        self.events = sorted(events, reverse=True)

    def _record_admission_rejection(self, reason: str) -> None:
        """No statistics."""

    def drain(self, now: int) -> None:
        """The server's part of what happens by ``now``, in its order, and then the core's."""
        refused = set[int]()
        while self.events and self.events[-1][0] <= now:
            _, number, leaves = self.events.pop()
            if leaves:
                self.processor.abort_requests([self.made.name(number)], internal=True)
            elif not self.admit(number):
                refused.add(number)
        self.arrivals = type(self.arrivals)(one for one in self.arrivals if one[0] not in refused)
        super().drain(now)

    def admit(self, number: int) -> bool:
        from vllm.exceptions import MaxQueuedTokensError, QueueOverflowError
        from vllm.v1.engine.async_llm import AsyncLLM

        asked, name = self.made.requests[number], self.made.name(number)
        first, place, count = asked.choice or (number, 0, 1)
        try:
            if place == 0:
                AsyncLLM.check_admission(self, count, name)  # which reads of it what stands above
        except (QueueOverflowError, MaxQueuedTokensError):
            self.refused.update(range(first, first + count))
        if number in self.refused:
            self.rejected.append(name)
            return False
        self.processor.add_request(core_request(name, asked.tokens, asked.cap), None)
        return True

    def hear(self, outputs: list[Any]) -> None:
        self.processor.process_outputs(outputs)
