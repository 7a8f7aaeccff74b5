"""A server that means harm: every wait ends, every answer has a limit, and what was recorded goes on being a trace."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from driftsim.errors import InputError, TraceError
from driftsim.live import http
from driftsim.live.http import HttpEngine
from driftsim.live.masking import masked
from driftsim.live.pages import Page, Pages
from driftsim.live.recorder import CapturePlan, record
from driftsim.live.resume import CaptureRun, check_places, set_aside
from driftsim.live.session import run_session
from driftsim.live.told import cache_settings
from driftsim.testing import Echo
from driftsim.trace import journal
from driftsim.trace import trace as traces
from driftsim.trace.journal import Journal, Lines, is_being_recorded
from driftsim.trace.trace import Trace
from driftsim.workloads.workload import Workload
from tests.strategies import workload

KEY = "sk-abcdefgh12345678"
OK = b"HTTP/1.1 200 OK\r\nConnection: close\r\n"
Answer = Callable[[socket.socket, threading.Event], None]


@pytest.fixture
def serve() -> Iterator[Callable[[Answer], str]]:
    """Starts a server that treats each connection as it is told to; its address."""
    over, listeners = threading.Event(), []

    def talk(answer: Answer, one: socket.socket) -> None:
        with one, suppress(OSError):
            one.recv(65536)
            answer(one, over)

    def listen(answer: Answer, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=talk, args=(answer, listener.accept()[0]), daemon=True).start()

    def start(answer: Answer) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)
        threading.Thread(target=listen, args=(answer, listener), daemon=True).start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}"

    yield start
    over.set()
    for listener in listeners:
        listener.close()


def drip(head: bytes) -> Answer:
    """A byte every 20 ms after ``head``, for good."""

    def answer(one: socket.socket, over: threading.Event) -> None:
        one.sendall(head)
        while not over.wait(0.02):
            one.sendall(b"x")

    return answer


def flood(head: bytes, more: bytes) -> Answer:
    """``more`` after ``head``, without end."""

    def answer(one: socket.socket, over: threading.Event) -> None:
        one.sendall(head)
        while not over.is_set():
            one.sendall(more * (65536 // len(more)))

    return answer


@pytest.mark.parametrize("head", [OK + b"\r\n", OK + b"X: ", b"HTTP/1.1 2", b""], ids=["body", "head", "line", "none"])
def test_a_page_that_comes_a_byte_at_a_time_is_waited_for_no_longer_than_said(
    head: bytes, serve: Callable[[Answer], str]
) -> None:
    page = Pages(KEY, 0.3).ask(serve(drip(head)) + "/metrics")
    assert (page.status, page.text) == (0, "")
    assert page.json() is None
    assert page.problem


@pytest.mark.parametrize("head", [OK + b"\r\n", OK], ids=["body", "headers"])
def test_a_page_without_an_end_is_read_to_a_limit(head: bytes, serve: Callable[[Answer], str]) -> None:
    page = Pages(KEY, 60.0).ask(serve(flood(head, b"X: " + b"y" * 1000 + b"\r\n")))
    assert page.status == 0
    assert "more than 10 MB" in page.problem or "too long" in page.problem


@pytest.mark.parametrize("text", ["", "<html>", "[" * 100_000, "9" * 10_000])
def test_a_page_that_is_no_json_is_none(text: str) -> None:
    assert Page(200, text).json() is None


class Told:
    """Pages as a test has them."""

    def __init__(self, *pages: Page) -> None:
        self.pages = list(pages)
        self.asked = 0

    def ask(self, url: str, body: Any = None) -> Page:
        self.asked += 1
        return self.pages.pop(0) if len(self.pages) > 1 else self.pages[0]


def counting(*pages: Page) -> tuple[HttpEngine, Told]:
    engine, told = HttpEngine("http://127.0.0.1:9/v1"), Told(*pages)
    engine._pages = told  # type: ignore[assignment]
    return engine, told


@pytest.mark.parametrize(
    "count", ["1" + "0" * 30, "-4", "0", "NaN", "Infinity", "1e999", '"7"', "true", "null", "[7]", "7.5"]
)
def test_a_count_that_is_none_is_estimated(count: str) -> None:
    engine, told = counting(Page(200, f'{{"count": {count}}}'))
    assert [engine.count_tokens("five words are in this") for _ in range(3)] == [7, 7, 7]
    assert told.asked == 1
    assert "tokens a word" in engine.notes[0]


def test_a_server_that_counts_slowly_is_asked_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 10_000, 9))
    monkeypatch.setattr(http, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    engine, told = counting(Page(200, '{"count": 30}'))
    counts = [engine.count_tokens("five words are in this") for _ in range(50)]
    assert (counts[0], counts[-1]) == (30, 7)
    assert told.asked * 9 <= http.COUNTING_S + 9
    assert "takes 9.0 s" in engine.notes[0]


@pytest.mark.parametrize(
    "label", ['block_size="99999999999999999999"', 'num_gpu_blocks="0"', 'block_size="\u00b2"', "a" * 100_000]
)
def test_settings_that_no_engine_has_are_assumed(label: str) -> None:
    assert cache_settings(Page(200, f"vllm:cache_config_info{{{label}}} 1\n")) == {}


@pytest.mark.parametrize("url", ["http://me:pw@host/v1", "htp://me:pw@host", "http://host/v1?key=pw", "http://h/v1#pw"])
def test_a_url_with_a_secret_is_not_repeated(url: str) -> None:
    with pytest.raises(InputError) as caught:
        HttpEngine(url)
    assert "pw" not in str(caught.value)


# -- what a server says


@pytest.mark.parametrize(
    "echo", [KEY, KEY.upper(), f"wrong key {KEY[:7]}***{KEY[-4:]}", f"{' ' * 19_990}{KEY}", f"x{KEY[3:12]}y"]
)
def test_no_part_of_a_key_is_kept(echo: str) -> None:
    kept = masked(echo, KEY).lower()
    assert not any(KEY[place : place + 4] in kept for place in range(len(KEY) - 3))


@pytest.mark.parametrize(
    ("secret", "echo"),
    [
        ("Tell me of my divorce", "TELL ME OF MY DIVORCE"),
        ("Tell me\nof my divorce", '{"content": "Tell me\\nof my divorce"}'),
        ("Élise a été opérée", "got \\u00c9lise a \\u00e9t\\u00e9 op\\u00e9r\\u00e9e"),
        ("my hiv", "cannot answer: my hiv"),
        ("Tell <me> of my divorce", "Tell &lt;me&gt; of my divorce"),
    ],
)
def test_a_prompt_is_known_in_other_letters(secret: str, echo: str) -> None:
    assert "left out" in masked(echo, secrets=[secret])


def test_our_own_words_are_kept_whatever_the_prompt_says() -> None:
    engine = HttpEngine("http://127.0.0.1:9/v1")
    assert engine._said(InputError("the stream does not end: 9 chunks")) == "the stream does not end: 9 chunks"


def test_no_control_character_is_kept() -> None:
    assert masked("9\x1b[31m\n\x00\u202e!") == "9 [31m !"


# -- signals, and what goes on


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_breaks_into_the_counting_of_prompts(stop: signal.Signals, tmp_path: Path) -> None:
    went_on: list[bool] = []

    def make(engine: Any) -> Workload:
        os.kill(os.getpid(), stop)
        threading.Event().wait(0.01)  # the handler runs here
        went_on.append(True)
        return made()

    before = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            asyncio.run(run_session(Echo(), make, [CaptureRun(tmp_path / "t", CapturePlan())]))
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
    assert not went_on


def made(*_: Any, prompts: tuple[int, ...] = (9, 3, 7, 5)) -> Workload:
    return workload([0.0] * 4, [1] * 4, prompt_tokens=list(prompts))


def cut_short(folder: Path, plan: CapturePlan) -> Trace:
    """A run whose engine breaks on the way."""

    class Breaking(Echo):
        def submit(self, job: Any, true_length: int | None) -> None:
            if job.index == 2:
                raise RuntimeError("broken")
            super().submit(job, true_length)

    return asyncio.run(record(made(), Breaking(), plan, folder))


def test_the_same_command_goes_on_after_a_run_that_was_cut_short(tmp_path: Path) -> None:
    run = CaptureRun(tmp_path / "t", CapturePlan(max_in_flight=1))
    for turn in (1, 2):
        before = cut_short(run.folder, run.plan)
        assert before.header.ended == "failed"
        check_places([run])
        trace = asyncio.run(run_session(Echo(), made, [run]))[0]
        assert trace.header.ended == "complete"
        assert any(f"is kept beside this one as .t.cut-{turn}" in note for note in trace.header.notes)
        assert traces.read(tmp_path / f".t.cut-{turn}").requests.equals(before.requests)
        run.folder.rename(tmp_path / f"done-{turn}")


def test_a_cut_run_of_something_else_is_left_alone(tmp_path: Path) -> None:
    plan = CapturePlan(max_in_flight=1)
    cut_short(tmp_path / "t", plan)
    with pytest.raises(TraceError, match="holds another trace"):
        check_places([CaptureRun(tmp_path / "t", CapturePlan(policy="sjf"))])
    other = workload([0.0] * 4, [1] * 4, max_tokens=[99] * 4)
    with pytest.raises(TraceError, match="holds another trace"):
        set_aside(CaptureRun(tmp_path / "t", plan), other)
    assert traces.read(tmp_path / "t").header.ended == "failed"


def begun(folder: Path, work: Workload) -> Journal:
    header = traces.read(folder.with_name("like")).header
    log = Journal(folder, header.changed(ended="recording"), work.offered)
    log.begin(0.0)
    return log


def test_a_run_with_an_odd_row_ends_as_a_trace(tmp_path: Path) -> None:
    class Odd(Echo):
        async def _serve(self, job: Any, true_length: int | None) -> None:
            put = self.on_outcome
            odd: dict[str, Any] = {"prompt_tokens": 10**6} if job.index == 1 else {}
            self.on_outcome = lambda outcome: put(replace(outcome, **odd))
            await super()._serve(job, true_length)
            self.on_outcome = put

    trace = asyncio.run(record(made(), Odd(), CapturePlan(max_in_flight=1), tmp_path / "t"))
    assert trace.header.ended == "complete"
    assert list(trace.requests["finish_reason"] == "error") == [False, True, False, False]
    assert traces.read(tmp_path / "t").requests.equals(trace.requests)


@pytest.fixture
def log(tmp_path: Path) -> Journal:
    """The journal of a run that has just begun."""
    asyncio.run(record(made(), Echo(), CapturePlan(), tmp_path / "like"))
    return begun(tmp_path / "t", made())


def test_a_run_that_is_still_recorded_is_left_alone(log: Journal, tmp_path: Path) -> None:
    run = CaptureRun(tmp_path / "t", CapturePlan())
    assert is_being_recorded(run.folder)
    with pytest.raises(TraceError, match="another capture records there now"):
        check_places([run])
    log._requests.close()
    check_places([run])
    assert set_aside(run, made()).startswith("an earlier run that was cut short after 0 of 4 requests")


def test_a_start_that_was_killed_stands_in_nobodys_way(tmp_path: Path) -> None:
    run = CaptureRun(tmp_path / "t", CapturePlan())
    run.folder.mkdir()
    (run.folder / "offered.parquet").write_bytes(b"half")
    check_places([run])
    assert asyncio.run(run_session(Echo(), made, [run]))[0].header.ended == "complete"


def test_a_start_on_a_full_disk_leaves_nothing(log: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(journal, "replace_header", full)
    with pytest.raises(OSError, match="No space"):
        begun(tmp_path / "new", made())
    assert list((tmp_path / "new").iterdir()) == []


def test_half_a_line_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines, write = Lines(tmp_path / "f"), os.write
    lines.write("one")

    def short(handle: int, data: bytes) -> int:
        if data.startswith(b"two"):
            return write(handle, data[:2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", short)
    with pytest.raises(OSError, match="No space"):
        lines.write("two")
    monkeypatch.undo()
    lines.write("three")
    assert (tmp_path / "f").read_text() == "one\nthree\n"


def test_a_journal_keeps_the_offered_length_of_a_prompt_that_has_not_ended(log: Journal, tmp_path: Path) -> None:
    for row in range(3):
        log.note(row, {"arrival_s": 0.0, "dispatch_s": 0.1})
    log.note(1, {"finish_s": 0.2, "output_tokens": 1, "finish_reason": "stop", "prompt_tokens": 31})
    assert list(traces.read(tmp_path / "t").requests["prompt_tokens"]) == [9, 31, 7]


@pytest.mark.parametrize(
    "odd",
    [
        {"prompt_tokens": 10**6},
        {"output_tokens": 10**6},
        {"finish_s": 0.05},
        {"finish_reason": "bored"},
        {"output_tokens": None},
    ],
    ids=str,
)
def test_a_row_that_cannot_be_is_marked_and_the_others_stay(odd: dict[str, Any], log: Journal, tmp_path: Path) -> None:
    for row in range(2):
        ended = {"finish_s": 0.2, "output_tokens": 1, "finish_reason": "stop"} | (odd if row == 0 else {})
        log.note(row, {"arrival_s": 0.0, "dispatch_s": 0.1, **ended})
    trace = traces.read(tmp_path / "t")
    assert list(trace.requests["finish_reason"]) == ["error", "stop"]
    assert "cannot be" in str(trace.requests["error"][0])
    assert pd.isna(trace.requests["error"][1])
    assert any("marked as errors" in note for note in trace.header.notes)
    trace.write(tmp_path / "kept")
    assert len(traces.read(tmp_path / "kept").requests) == 2


NO_LINES = [
    {"row": 10**9, "arrival_s": 1.0},
    {"row": -1, "arrival_s": 1.0},
    {"row": 10**400},
    {"row": 0.5},
    {"row": True},
    {"start": 10**400},
    {"row": 0, "finish_s": "x"},
    {"row": 0, "finish_s": [1]},
    {"row": 0, "output_tokens": 10**400},
    {"row": 0, "output_tokens": 1.5},
    {"row": 0, "finish_reason": {"a": 1}},
    {"row": 0, "error": "\ud800"},
    [1],
]


@pytest.mark.parametrize("line", [*map(json.dumps, NO_LINES), "[" * 100_000, '{"row": 1e400}', "\0"], ids=range(16))
def test_a_line_that_no_recorder_writes_is_named(line: str, log: Journal, tmp_path: Path) -> None:
    log._requests.write(line)
    with pytest.raises(TraceError, match=r"requests.jsonl: line 2 is not a line of a journal; remove it"):
        traces.read(tmp_path / "t")


@pytest.mark.parametrize("file", ["telemetry.csv", "steps.csv"])
@pytest.mark.parametrize("content", [b"a,b\nx,y\n", b"a,b\n1,2\n1,2,3\n", b"\xff\xfe\n", b'"a\n1\n', b"a,b\n1,0x9\n"])
def test_a_table_beside_a_journal_that_is_none_is_named(
    file: str, content: bytes, log: Journal, tmp_path: Path
) -> None:
    log.note(0, {"arrival_s": 0.0})
    (tmp_path / "t" / file).write_bytes(content)
    with pytest.raises(TraceError, match=file):
        traces.read(tmp_path / "t")


@pytest.mark.parametrize("content", [b"", b"PAR1", None])
def test_requests_that_nobody_can_read_are_named(content: bytes | None, log: Journal, tmp_path: Path) -> None:
    (tmp_path / "t" / "offered.parquet").unlink()
    if content is not None:
        (tmp_path / "t" / "offered.parquet").write_bytes(content)
    with pytest.raises(TraceError, match=r"offered\.parquet"):
        traces.read(tmp_path / "t")


def test_steps_of_something_else_are_named(log: Journal, tmp_path: Path) -> None:
    log.note(0, {"arrival_s": 0.0})
    (tmp_path / "t" / "steps.csv").write_text("a,b\n1,2\n")
    with pytest.raises(TraceError, match=r"steps.csv: column 'start_s' is missing"):
        traces.read(tmp_path / "t")
