"""An answer is what a server streams back: events of text, then its usage."""

from __future__ import annotations

from typing import Any

from driftsim.live.engine import Outcome
from driftsim.request import Job
from driftsim.scheduling.accounting import count_words
from driftsim.trace.schema import FINISHED


class Answer:
    """An answer as it comes in."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.chunks = 0  # with text in them
        self.texts: list[str] = []
        self.first: float | None = None
        self.last: float | None = None
        self.reason: str | None = None
        self.usage: Any = None

    def take(self, chunk: Any, now: float) -> None:
        """One event of the stream, received at ``now``."""
        self.usage = getattr(chunk, "usage", None) or self.usage
        for choice in chunk.choices or ():
            delta = getattr(choice, "delta", None)
            text = choice.text if delta is None else (delta.content or getattr(delta, "reasoning_content", None))
            if text:
                self.chunks += 1
                self.texts.append(text)
                self.first = now if self.first is None else self.first
                self.last = now
            if choice.finish_reason:
                self.reason, self.last = choice.finish_reason, now
                self.first = now if self.first is None else self.first  # an answer of no text has a token all the same

    def outcome(self, reason: str | None = None) -> Outcome:
        """What became of the request, once the stream has ended."""
        tokens = getattr(self.usage, "completion_tokens", None)
        prompt = getattr(self.usage, "prompt_tokens", None)
        reason = reason or self.reason
        if reason is None:
            return self.failed("the stream broke off before its end")
        if reason == "abort":
            return Outcome(self.job, "abort", first_token=self.first, finish=self.last)
        if reason not in FINISHED:
            return self.failed(f"finish reason {reason!r}, not one of {', '.join(FINISHED)}")
        if not (isinstance(tokens, int) and isinstance(prompt, int)):
            return self.failed("the server gave no usage: tokens are not known")
        cap = self.job.request.max_tokens
        if not max(1, self.chunks) <= tokens <= cap or prompt < 1:
            return self.failed(
                f"wrong usage: {tokens} completion and {prompt} prompt tokens, for {self.chunks} chunks of text and "
                f"max_tokens {cap}"
            )
        return Outcome(
            self.job,
            reason,
            first_token=self.first,
            finish=self.last,
            output_tokens=tokens,
            output_words=count_words("".join(self.texts)),
            prompt_tokens=prompt,
        )

    def failed(self, why: str) -> Outcome:
        """The request as an error."""
        return Outcome(self.job, "error", first_token=self.first, error=why)
