"""An answer is what a server streams back: events of text, then its usage and, where it tells them, its own times."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeGuard

from driftsim.live.engine import Outcome
from driftsim.request import Job
from driftsim.scheduling.accounting import count_words
from driftsim.trace.schema import FINISHED, LARGEST_COUNT, LONGEST_S

CALLS = ("tool_calls", "function_call")  # finish reasons of an answer that ended by itself, as a call


class Answer:
    """The answer to ``job`` as it comes in; ``sent`` is when the job was sent (monotonic, s).

    ``longest``: tokens of the longest context that the engine takes, as far as that is known. ``hear``: gets its text,
    part by part. An event that carries only a role, or empty text, is no token.
    """

    def __init__(
        self, job: Job, sent: float, longest: int = LARGEST_COUNT, hear: Callable[[str], None] = lambda text: None
    ) -> None:
        self.job = job
        self.sent = sent
        self.longest = longest
        self._hear = hear
        self.chunks = 0  # with anything in them
        self.fewest = 0  # tokens there must be; a server may tell one token of a call in several events
        self.texts: list[str] = []
        self.said: list[str] = []  # of them what a later turn repeats: no thinking, and no call
        self.first: float | None = None
        self.last: float | None = None
        self.reason: str | None = None
        self.stopped = False  # by a string: vLLM says which, and of a token its number
        self.usage: Any = None
        self.metrics: Any = None

    def take(self, chunk: Any, now: float) -> None:
        """One event of the stream, received at ``now``."""
        self.usage = _of(chunk, "usage") or self.usage
        self.metrics = _of(chunk, "metrics") or self.metrics
        choices = _of(chunk, "choices")
        for choice in choices if isinstance(choices, list) else ():
            said, text, call = _parts(choice)
            if text or call:
                self.chunks += 1
                self.fewest += bool(text)
                self.texts.append(text + call)
                self.said.append(said)
                self._hear(text + call)
                self.first = now if self.first is None else self.first
                self.last = now
            if reason := _of(choice, "finish_reason"):
                self.reason, self.last = reason, now
                self.stopped = isinstance(_of(choice, "stop_reason"), str)
                self.first = now if self.first is None else self.first  # an answer of no text has a token all the same

    def outcome(self, reason: str | None = None, *, words: bool = True) -> Outcome:
        """What became of the request, once the stream has ended; without ``words`` those of its texts are not told."""
        tokens, prompt = (_of(self.usage, name) for name in ("completion_tokens", "prompt_tokens"))
        reason = reason or ("stop" if self.reason in CALLS else self.reason)
        if reason is None:
            return self.failed("the stream broke off before its end")
        if reason == "abort":
            return Outcome(self.job, "abort", first_token=self.first, finish=self.last)
        if reason not in FINISHED:
            return self.failed(f"finish reason {reason!r}, not one of {', '.join(FINISHED)}")
        if tokens is None or prompt is None or not (_is_whole(tokens) and _is_whole(prompt)):
            return self.failed("the server gave no usage: tokens are not known")
        cap = self.job.request.max_tokens
        if not max(1, self.fewest) <= tokens <= cap or not 1 <= prompt <= self.longest - tokens:
            return self.failed(
                f"wrong usage: {_shown(tokens)} completion and {_shown(prompt)} prompt tokens, for "
                f"{self.chunks} chunks of text and max_tokens {cap}"
            )
        queued, scheduled = self._server_times()
        cached = _of(_of(self.usage, "prompt_tokens_details"), "cached_tokens")
        return Outcome(
            self.job,
            reason,
            queued=queued,
            scheduled=scheduled,
            first_token=self.first,
            finish=self.last,
            output_tokens=tokens,
            output_words=count_words("".join(self.texts)) if words else None,
            prompt_tokens=prompt,
            cached_tokens=cached if _is_whole(cached) and 0 <= cached <= prompt else None,
            stop_string=self.stopped and reason == "stop",
            answer="".join(self.said),
        )

    def failed(self, why: str, reason: str = "error") -> Outcome:
        """The request as an error, or as ``rejected``."""
        return Outcome(self.job, reason, first_token=self.first, error=why)

    def _server_times(self) -> tuple[float | None, float | None]:
        """When the engine took the request and when it scheduled it, counted back from the first token received.

        vLLM with ``--enable-per-request-metrics`` sends ``metrics`` beside the usage; its ``time_to_first_token_ms``
        counts from the schedule (vllm/entrypoints/generate/base/serving.py, ``build_per_request_timing_metrics``).
        Neither time is before the request was sent. None where the server does not tell, or no text was received.
        """
        prefill, waited = (_seconds(self.metrics, name) for name in ("time_to_first_token_ms", "queue_time_ms"))
        if self.first is None or prefill is None or not self.chunks:
            return None, None
        scheduled = max(self.sent, self.first - prefill)
        return None if waited is None else max(self.sent, scheduled - waited), scheduled


def _parts(choice: Any) -> tuple[str, str, str]:
    """What an event adds to the answer: to its content, to all of its text (thinking, content, refusal), to a call."""
    delta = _of(choice, "delta")
    if delta is None:
        text = _joined(_of(choice, "text"))
        return text, text, ""
    said = _joined(_of(delta, "content"))
    # Two names of one thing: some servers send both, for the sake of old clients.
    thinking = _joined(_of(delta, "reasoning")) or _joined(_of(delta, "reasoning_content"))
    return said, thinking + said + _joined(_of(delta, "refusal")), _call(delta)


def _call(delta: Any) -> str:
    """What an event adds to a call of a tool: names and arguments."""
    calls, alone = _of(delta, "tool_calls"), _of(delta, "function_call")
    functions = [_of(call, "function") for call in calls] if isinstance(calls, list) else []
    if alone is not None:
        functions.append(alone)
    return "".join(_joined(_of(one, "name")) + _joined(_of(one, "arguments")) for one in functions)


def _shown(count: int) -> str:
    """``count`` as far as it can be one: a longer number may say anything."""
    return str(count) if abs(count) <= LARGEST_COUNT else f"{'less' if count < 0 else 'more'} than {LARGEST_COUNT:g}"


def _is_whole(number: Any) -> TypeGuard[int]:
    return isinstance(number, int) and not isinstance(number, bool)


def _joined(text: Any) -> str:
    """``text`` as one string; it may come in a list of parts, each a string or an object with a ``text``."""
    if text is None or isinstance(text, str):  # as nearly always
        return text or ""
    if isinstance(text, list):
        return "".join(_joined(part if isinstance(part, str) else _of(part, "text")) for part in text)
    return ""


def _of(thing: Any, name: str) -> Any:
    """The value that ``thing`` has under ``name``, an object of JSON or of the client; None where it has none."""
    return thing.get(name) if isinstance(thing, dict) else getattr(thing, name, None)


def _seconds(metrics: Any, name: str) -> float | None:
    """The duration ``name`` of a server's metrics, told in milliseconds; None for anything that is no duration."""
    value = _of(metrics, name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1000 * LONGEST_S:
        return None
    return value / 1000
