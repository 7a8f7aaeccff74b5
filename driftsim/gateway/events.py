"""A stream of events on its way to a client: passed on as it comes, and looked into as little as is needed.

Only the first event with text, the one that says how the answer ended and the one with its usage are read; of the
others the number is known. The event of the usage is left out where the client did not ask for it.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from driftsim.live.answer import Answer
from driftsim.live.engine import Outcome
from driftsim.scheduling.accounting import count_words

MOST_PENDING = 1 << 20  # bytes of one event: a longer one is passed on unread
# What an event that is to be read holds; each begins with letters, and so is found faster than one pattern of all.
_TELLING = tuple(
    re.compile(pattern).search
    for pattern in (rb'"finish_reason"\s*:\s*"', rb'"usage"\s*:\s*\{', rb'"metrics"\s*:\s*\{')
)
_END = re.compile(rb"\r?\n\r?\n|\r\r")


class Events:
    """The events of one ``answer``. strip: leave out the one of the usage. every: read every event, to count words.

    ``clock`` (monotonic, s) is looked at only where an event is read.
    """

    def __init__(
        self, answer: Answer, *, strip: bool, every: bool = False, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.answer = answer
        self.count = 0  # events that may hold a token
        self._strip, self._every, self._clock = strip, every, clock
        self._pending = b""
        self._unread = False
        self._steady = False  # whether only events that tell something are read

    def feed(self, data: bytes) -> bytes:
        """What to pass on of ``data``, just received: all, or its whole events where some go."""
        if self._unread:
            return data
        if self._steady and not self._pending and data.endswith(b"\n\n") and _tells(data, 0) < 0:
            self.count += _data(data, 0, len(data))  # as nearly always
            return data
        whole = self._pending + data if self._pending else data
        end = _last_end(whole, 0, len(whole))
        events, self._pending = whole[:end], whole[end:]
        if len(self._pending) > MOST_PENDING:
            self._unread, self._pending, late = True, b"", self._pending
            events, data = events + late, data
        kept = self._read(events) if events else b""
        return kept if self._strip else data

    def rest(self) -> bytes:
        """What is left to pass on at the end of the stream."""
        left, self._pending = self._pending, b""
        return left if self._strip and not self._unread else b""

    def _read(self, events: bytes) -> bytes:
        """Learn from whole ``events``; returns those that are passed on."""
        kept, passed, place = list[bytes](), 0, 0
        while place < len(events):
            begin, end = self._telling(events, place)
            self.count += _data(events, place, begin)
            if begin < end and self._is_usage_alone(events[begin:end]):
                kept.append(events[passed:begin])
                passed = end
            place = end
        return b"".join([*kept, events[passed:]]) if kept else events

    def _telling(self, events: bytes, place: int) -> tuple[int, int]:
        """Begin and end of the next event from ``place`` on that is to be read; both at the end if there is none."""
        if not self._steady:
            begin = place
        elif (telling := _tells(events, place)) < 0:
            return len(events), len(events)
        else:
            begin = _last_end(events, place, telling)
        if b"\r" not in events:  # as nearly always
            end = events.find(b"\n\n", begin) + 2
            return begin, end if end > 1 else len(events)
        found = _END.search(events, begin)
        return begin, len(events) if found is None else found.end()

    def _is_usage_alone(self, event: bytes) -> bool:
        """Learn from ``event``; whether it holds the usage and no choice."""
        told = _json(event)
        if told is None:
            return False
        before = self.answer.chunks
        self.answer.take(told, self._clock())
        self._steady = self.answer.first is not None and not self._every
        alone = told.get("choices") == [] and isinstance(told.get("usage"), dict)
        self.count += self.answer.chunks > before or (not alone and self._steady)
        return alone


def _tells(events: bytes, place: int) -> int:
    """Where ``events`` from ``place`` on first hold something to be read; -1 where nowhere."""
    found = [match.start() for search in _TELLING if (match := search(events, place)) is not None]
    return min(found) if found else -1


def _last_end(data: bytes, begin: int, end: int) -> int:
    """Where the last whole event of ``data`` between ``begin`` and ``end`` ends; ``begin`` where there is none."""
    last = data.rfind(b"\n\n", begin, end) + 2
    if b"\r" in data:
        last = max([last, *(match.end() for match in _END.finditer(data, begin, end))])
    return last if last > 1 else begin


def _data(events: bytes, begin: int, end: int) -> int:
    """How many events with data there are between ``begin`` and ``end``; no text of theirs holds the end of a line."""
    count = events.startswith(b"data:", begin, end) + events.count(b"\ndata:", begin, end)
    return count + (events.count(b"\rdata:", begin, end) if b"\r" in events else 0)


def _json(event: bytes) -> dict[str, Any] | None:
    """The object that the data of ``event`` holds; None where it holds none."""
    if event.startswith(b"data:") and event.find(b"\n") == len(event) - 2:  # a single line, as nearly always
        data = event[5:]
    else:
        data = b"\n".join(line.partition(b":")[2] for line in event.splitlines() if line.startswith(b"data:"))
    try:
        told = json.loads(data.decode("utf-8", "surrogatepass"))  # json would look for other encodings first
    except (ValueError, RecursionError):
        return None
    return told if isinstance(told, dict) else None


def streamed(events: Events, *, words: bool) -> Outcome:
    """What became of the request whose ``events`` have ended.

    Where the server told no usage, the tokens are the events that there were.
    """
    answer = events.answer
    if answer.usage is None and answer.reason is not None:
        request = answer.job.request
        answer.usage = {
            "completion_tokens": min(max(1, events.count), request.max_tokens),
            "prompt_tokens": request.prompt_tokens,
        }
    return answer.outcome(words=words)


def broken_off(events: Events, reason: str, now: float, why: str | None = None) -> Outcome:
    """The same of an answer that did not come to its end, for that ``reason``."""
    answer, seen = events.answer, max(events.count, events.answer.chunks)
    return Outcome(
        answer.job,
        reason,
        first_token=answer.first,
        finish=now if reason == "abort" else None,
        output_tokens=min(seen, answer.job.request.max_tokens),
        error=why,
    )


def whole(answer: Answer, body: bytes, now: float) -> Outcome:
    """What became of a request that was answered in one piece, ``body``, received by ``now`` (monotonic, s)."""
    try:
        told = json.loads(body)
    except (ValueError, RecursionError):
        return answer.failed("the answer is no JSON")
    choices = told.get("choices") if isinstance(told, dict) else None
    if not isinstance(choices, list) or not choices:
        return answer.failed("the answer holds no choice")
    texts = []
    for choice in choices:
        if isinstance(choice, dict):
            answer.reason = str(choice.get("finish_reason"))
            answer.stopped = isinstance(choice.get("stop_reason"), str)
            message = choice.get("message")
            texts.append(message.get("content") if isinstance(message, dict) else choice.get("text"))
    answer.usage, answer.last = told.get("usage"), now
    answer.texts = [text for text in texts if isinstance(text, str)]
    outcome = answer.outcome()
    if outcome.output_words is None:
        return outcome
    return replace(outcome, output_words=count_words("\n".join(answer.texts)))
