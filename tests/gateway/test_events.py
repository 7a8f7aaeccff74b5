"""However a stream of events is cut into parts, the same is passed on, and the same is learned from it."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from driftsim.gateway.collecting import due
from driftsim.gateway.events import Events, streamed
from driftsim.live.answer import Answer
from driftsim.request import Job, Request, Tier

ROLE = b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}'
TEXT = b'data: {"choices":[{"index":0,"delta":{"content":"\xc3\xa9 data: x"},"finish_reason":null}]}'
TRICK = rb'data: {"choices":[{"index":0,"delta":{"content":"\"usage\": {\n\n\"finish_reason\":\"stop\""}}]}'
STOP = b'data: {"choices":[{"index":0,"delta":{},"finish_reason": "stop"}]}'
USAGE = b'data: {"choices":[],"usage" : {"prompt_tokens":5,"completion_tokens":7}}'
BOTH = b'data: {"choices":[{"index":0,"delta":{"content":"b"}}],"usage":{"prompt_tokens":5,"completion_tokens":7}}'
PING, DONE, ODD = b": ping", b"data: [DONE]", b"event: x\ndata: {"
KINDS = [ROLE, TEXT, TRICK, STOP, USAGE, BOTH, PING, DONE, ODD]


def events(strip: bool, every: bool) -> Events:
    request = Request(id="a", tenant="t", tier=Tier("standard"), category="", arrival=0.0, prompt_tokens=5,
                      prompt_words=3, max_tokens=100)  # fmt: skip
    clock = itertools.count(1)
    return Events(Answer(Job(request, "", 1, 1), 0.0), strip=strip, every=every, clock=lambda: float(next(clock)))


def learned(parts: list[bytes], strip: bool, every: bool) -> tuple[bytes, Any]:
    reader = events(strip, every)
    passed = b"".join([*map(reader.feed, parts), reader.rest()])
    answer = reader.answer
    return passed, (reader.count, answer.chunks if every else 0, answer.usage, answer.reason, answer.first)


@example([(TEXT, b"\n\n"), (ROLE, b"\r\r"), (ROLE, b"\n\n")], [], False, False)
@given(
    st.lists(st.tuples(st.sampled_from(KINDS), st.sampled_from([b"\n\n", b"\r\n\r\n", b"\r\r"])), max_size=12),
    st.lists(st.integers(0, 900), max_size=6), st.booleans(), st.booleans(),
)  # fmt: skip
def test_the_cuts_change_nothing(kinds: list[tuple[bytes, bytes]], cuts: list[int], strip: bool, every: bool) -> None:
    single = [event + end for event, end in kinds]
    whole = b"".join(single)
    places = [0, *sorted(min(cut, len(whole)) for cut in cuts), len(whole)]
    parts = [whole[begin:end] for begin, end in itertools.pairwise(places)]
    passed, known = learned([part for part in parts if part], strip, every)
    assert (passed, known) == learned(single, strip, every)
    assert passed == (b"".join(event for event in single if not event.startswith(USAGE)) if strip else whole)


def test_what_many_events_at_once_tell_is_read_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, read = events(True, False), list[bytes]()
    inner = reader._is_usage_alone

    def seen(event: bytes) -> bool:
        read.append(event)
        return inner(event)

    monkeypatch.setattr(reader, "_is_usage_alone", seen)
    made = [ROLE, *[TEXT] * 500, STOP, USAGE, DONE]
    assert reader.feed(b"".join(event + b"\n\n" for event in made)).count(b"\n\n") == 503
    assert [event.rstrip() for event in read] == [ROLE, TEXT, STOP, USAGE]
    outcome = streamed(reader, words=False)
    assert (outcome.finish_reason, outcome.output_tokens, outcome.first_token) == ("stop", 7, 2.0)


def test_a_stream_without_usage_counts_its_events() -> None:
    reader = events(True, False)
    reader.feed(b"".join(event + b"\n\n" for event in [ROLE, *[TEXT] * 9]))
    reader.feed(STOP + b"\n\n")
    assert 9 <= (streamed(reader, words=False).output_tokens or 0) <= 10


def test_what_piles_up_is_collected_however_busy_it_is() -> None:
    assert due(10**6, 1.0, False) == "young"
    assert due(0, 10**4, False) == "all"
    assert due(0, 1.0, True) is None
