"""An answer is what a server streams back: events of text, then its usage."""

from __future__ import annotations

from typing import Any

from driftsim.live.engine import Outcome
from driftsim.request import Job
from driftsim.scheduling.accounting import count_words
from driftsim.trace.schema import FINISHED

CALLS = ("tool_calls", "function_call")  # finish reasons of an answer that ended by itself, as a call


class Answer:
    """The answer to ``job`` as it comes in.

    An event that carries only a role, or empty text, is no token.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self.chunks = 0  # with anything in them
        self.fewest = 0  # tokens there must be; a server may tell one token of a call in several events
        self.texts: list[str] = []
        self.first: float | None = None
        self.last: float | None = None
        self.reason: str | None = None
        self.usage: Any = None

    def take(self, chunk: Any, now: float) -> None:
        """One event of the stream, received at ``now``."""
        self.usage = _of(chunk, "usage") or self.usage
        for choice in chunk.choices or ():
            text, call = _text(choice), _call(choice)
            if text or call:
                self.chunks += 1
                self.fewest += bool(text)
                self.texts.append(text + call)
                self.first = now if self.first is None else self.first
                self.last = now
            if choice.finish_reason:
                self.reason, self.last = choice.finish_reason, now
                self.first = now if self.first is None else self.first  # an answer of no text has a token all the same

    def outcome(self, reason: str | None = None) -> Outcome:
        """What became of the request, once the stream has ended."""
        tokens = getattr(self.usage, "completion_tokens", None)
        prompt = getattr(self.usage, "prompt_tokens", None)
        reason = reason or ("stop" if self.reason in CALLS else self.reason)
        if reason is None:
            return self.failed("the stream broke off before its end")
        if reason == "abort":
            return Outcome(self.job, "abort", first_token=self.first, finish=self.last)
        if reason not in FINISHED:
            return self.failed(f"finish reason {reason!r}, not one of {', '.join(FINISHED)}")
        if not (isinstance(tokens, int) and isinstance(prompt, int)):
            return self.failed("the server gave no usage: tokens are not known")
        cap = self.job.request.max_tokens
        if not max(1, self.fewest) <= tokens <= cap or prompt < 1:
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


def _text(choice: Any) -> str:
    """The text that an event adds to the answer: thinking, content or a refusal."""
    delta = _of(choice, "delta")
    if delta is None:
        return _joined(_of(choice, "text"))
    # Two names of one thing: some servers send both, for the sake of old clients.
    thinking = _joined(_of(delta, "reasoning")) or _joined(_of(delta, "reasoning_content"))
    return thinking + _joined(_of(delta, "content")) + _joined(_of(delta, "refusal"))


def _call(choice: Any) -> str:
    """What an event adds to a call of a tool: names and arguments."""
    delta = _of(choice, "delta")
    calls = _of(delta, "tool_calls")
    functions = [_of(call, "function") for call in calls] if isinstance(calls, list) else []
    functions.append(_of(delta, "function_call"))
    return "".join(_joined(_of(one, "name")) + _joined(_of(one, "arguments")) for one in functions)


def _joined(text: Any) -> str:
    """``text`` as one string; it may come in a list of parts, each a string or an object with a ``text``."""
    if isinstance(text, list):
        return "".join(_joined(part if isinstance(part, str) else _of(part, "text")) for part in text)
    return text if isinstance(text, str) else ""


def _of(thing: Any, name: str) -> Any:
    """The value that ``thing`` has under ``name``, an object of JSON or of the client; None where it has none."""
    return thing.get(name) if isinstance(thing, dict) else getattr(thing, name, None)
