"""What a streamed answer tells: any text is a token when it comes, counts are the server's, so are some times."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from driftsim.live import telemetry
from driftsim.live.answer import Answer
from driftsim.metrics import e2e, tpot, ttft
from driftsim.simulation.as_measured import received_at_arrival
from driftsim.trace.trace import Trace
from tests.test_http import Server, run

PAUSE_S = 0.15
Script = list[tuple[float, dict[str, Any]]]  # after how many seconds, which event


class Scripted(Server):
    """Streams ``script``, whatever it is asked; each event once the client has taken those before."""

    script: Script = []
    taken = threading.Condition()
    sent = received = 0

    def answer(self, what: str, more: list[str], prompt: int) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        for pause, event in self.script:
            if pause:
                self.wait()
            time.sleep(pause)
            with self.taken:
                Scripted.sent += 1
            self.send(event)
        self.wfile.write(b"data: [DONE]\n\n")

    def wait(self) -> None:
        """Until the client has taken all that was sent: a busy one would else find two events at once."""
        with self.taken:
            self.taken.wait_for(lambda: Scripted.received >= Scripted.sent, timeout=60)


def take(answer: Answer, chunk: Any, now: float) -> None:
    """As the client does; the server is told."""
    TAKE(answer, chunk, now)
    with Scripted.taken:
        Scripted.received += 1
        Scripted.taken.notify_all()


TAKE = Answer.take


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(telemetry, "CPU_INTERVAL_S", 0.1)  # each capture ends with one of these
    monkeypatch.setattr(Answer, "take", take)
    Scripted.sent = Scripted.received = 0
    server = ThreadingHTTPServer(("127.0.0.1", 0), Scripted)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    server.shutdown()
    server.server_close()
    thread.join()


def delta(finish: str | None = None, **content: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": content, "finish_reason": finish}]}


def usage(tokens: int, **more: Any) -> dict[str, Any]:
    return {"choices": [], "usage": {"prompt_tokens": 12, "completion_tokens": tokens, "total_tokens": 0}} | more


def capture(url: str, folder: Path, *script: tuple[float, dict[str, Any]] | dict[str, Any], requests: int = 1) -> Trace:
    Scripted.script = [step if isinstance(step, tuple) else (0.0, step) for step in script]
    return run(url, folder, *["a question"] * requests, max_tokens=25)


def answered(url: str, folder: Path, *script: tuple[float, dict[str, Any]] | dict[str, Any]) -> pd.Series:
    return capture(url, folder, *script).requests.iloc[0]


def call(**function: str) -> dict[str, Any]:
    return {"index": 0, "type": "function", "function": function}


PIECES: dict[str, dict[str, Any]] = {
    "content": {"content": "one two"},
    "thinking": {"reasoning": "one two"},
    "thinking, old name": {"reasoning_content": "one two"},
    "thinking, both names": {"reasoning": "one two", "reasoning_content": "one two"},
    "refusal": {"refusal": "one two"},
    "name of a tool": {"tool_calls": [call(name="one two")]},
    "arguments of a tool": {"tool_calls": [call(arguments="one two")]},
    "name of a function": {"function_call": {"name": "one two"}},
    "arguments of a function": {"function_call": {"arguments": "one two"}},
    "parts": {"content": [{"type": "text", "text": "one "}, {"type": "image"}, {"type": "text", "text": "two"}]},
    "parts that are strings": {"content": ["one ", "two"]},
}
NOTHING: list[dict[str, Any]] = [
    {"role": "assistant"},
    {"role": "assistant", "content": ""},
    {"reasoning": None, "reasoning_content": "", "refusal": ""},
    {"content": [], "tool_calls": []},
    {"content": [{"type": "text", "text": ""}], "tool_calls": [call(arguments="")], "function_call": {"name": ""}},
    {"content": 5, "reasoning": {"text": "no"}, "tool_calls": "none", "function_call": 7},
]


@pytest.mark.parametrize("piece", PIECES.values(), ids=PIECES)
def test_the_first_token_is_the_first_piece_of_any_kind_and_not_the_role(
    piece: dict[str, Any], scripted: str, tmp_path: Path
) -> None:
    later, end = delta(content=" three"), delta("stop")
    nothing = [delta(**content) for content in NOTHING]
    row = answered(scripted, tmp_path / "t", *nothing, (PAUSE_S, delta(**piece)), (PAUSE_S, later), end, usage(2))
    assert row["finish_reason"] == "stop"
    assert row["first_token_s"] - row["dispatch_s"] >= PAUSE_S
    assert row["finish_s"] - row["first_token_s"] >= PAUSE_S
    assert (row["output_tokens"], row["output_words"]) == (2, 3)


def test_the_first_token_of_a_completion_is_its_first_text(scripted: str, tmp_path: Path) -> None:
    empty, text = ({"choices": [{"index": 0, "text": text, "finish_reason": None}]} for text in ("", "one two"))
    row = answered(scripted, tmp_path / "t", empty, (PAUSE_S, text), (PAUSE_S, delta("stop")), usage(2))
    assert row["first_token_s"] - row["dispatch_s"] >= PAUSE_S
    assert row["finish_s"] - row["first_token_s"] >= PAUSE_S
    assert row["output_words"] == 2


def test_a_thinking_model_has_the_latencies_of_its_thinking(scripted: str, tmp_path: Path) -> None:
    """Twenty tokens of thought and five of answer, one every 20 ms, 50 ms after the role."""
    thinking, answer = (0.02, delta(reasoning="hm ")), (0.02, delta(content="yes "))
    begun = (delta(role="assistant", content=""), (0.05, delta(reasoning="hm ")))
    end = (0.02, delta("stop"))
    rows = capture(scripted, tmp_path / "t", *begun, *[thinking] * 19, *[answer] * 5, end, usage(25)).requests
    assert list(rows["output_tokens"]) == [25]
    assert ttft(rows)[0] >= 0.05
    assert e2e(rows)[0] - ttft(rows)[0] >= 25 * 0.02  # of which the answer itself has five
    assert tpot(rows)[0] >= 0.02


def test_tokens_are_those_of_the_usage_not_the_chunks(scripted: str, tmp_path: Path) -> None:
    chunks = [delta(content="two words "), delta(content="two more "), delta(content="the last")]
    row = answered(scripted, tmp_path / "t", *chunks, delta("length"), usage(6))
    assert (row["output_tokens"], row["output_words"]) == (6, 6)


@pytest.mark.parametrize("reason", ["tool_calls", "function_call"])
def test_an_answer_that_is_a_call_ended_by_itself(reason: str, scripted: str, tmp_path: Path) -> None:
    row = answered(scripted, tmp_path / "t", delta(tool_calls=[call(name="look")]), delta(reason), usage(1))
    assert (row["finish_reason"], row["output_tokens"]) == ("stop", 1)


def test_one_token_of_a_call_may_come_in_two_events(scripted: str, tmp_path: Path) -> None:
    name, arguments = delta(tool_calls=[call(name="look")]), delta(tool_calls=[call(arguments="{}")])
    row = answered(scripted, tmp_path / "t", name, arguments, delta("tool_calls"), usage(1))
    assert (row["finish_reason"], row["output_tokens"]) == ("stop", 1)


# -- the server's own times

TEXT = (0.1, delta(content="one"))


def told(metrics: Any, text: Any = TEXT) -> tuple[Any, ...]:
    """An answer of two tokens, with ``metrics`` beside its usage."""
    return text, (0.1, delta("stop")), usage(2, metrics=metrics)


def test_the_servers_own_times_count_back_from_the_first_token(scripted: str, tmp_path: Path) -> None:
    metrics = {"time_to_first_token_ms": 30.0, "queue_time_ms": 20, "generation_time_ms": 100.0, "mean_itl_ms": None}
    trace = capture(scripted, tmp_path / "t", *told(metrics), requests=2)
    rows = trace.requests
    trace.check("told")
    assert (rows["first_token_s"] - rows["scheduled_s"]).tolist() == pytest.approx([0.03, 0.03])
    assert (rows["scheduled_s"] - rows["queued_s"]).tolist() == pytest.approx([0.02, 0.02])
    assert (rows["queued_s"] > rows["dispatch_s"]).all()
    assert not received_at_arrival(trace)


WRONG: tuple[Any, ...] = (None, "30", -1.0, True, [], {}, float("inf"), float("-inf"), float("nan"), 10**400)


@pytest.mark.parametrize(
    "metrics",
    [
        None,
        {},
        [],
        "fast",
        {"queue_time_ms": 20.0},
        *({"time_to_first_token_ms": wrong, "queue_time_ms": 20.0} for wrong in WRONG),
    ],
    ids=lambda metrics: str(metrics)[:50],
)
def test_times_that_the_server_does_not_tell_or_tells_wrong_stay_empty(
    metrics: Any, scripted: str, tmp_path: Path
) -> None:
    row = answered(scripted, tmp_path / "t", *told(metrics))
    assert (row["finish_reason"], row["output_tokens"]) == ("stop", 2)
    assert pd.isna(row["scheduled_s"])
    assert pd.isna(row["queued_s"])


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: str(wrong)[:50])
def test_a_queue_time_that_is_none_leaves_the_schedule(wrong: Any, scripted: str, tmp_path: Path) -> None:
    row = answered(scripted, tmp_path / "t", *told({"time_to_first_token_ms": 30.0, "queue_time_ms": wrong}))
    assert row["first_token_s"] - row["scheduled_s"] == pytest.approx(0.03)
    assert pd.isna(row["queued_s"])


@pytest.mark.parametrize(("prefill", "queue"), [(30.0, 60_000.0), (60_000.0, 20.0)])
def test_no_time_that_a_server_tells_is_before_the_request_was_sent(
    prefill: float, queue: float, scripted: str, tmp_path: Path
) -> None:
    trace = capture(scripted, tmp_path / "t", *told({"time_to_first_token_ms": prefill, "queue_time_ms": queue}))
    trace.check("clipped")
    row = trace.requests.iloc[0]
    assert row["arrival_s"] < row["dispatch_s"] <= row["queued_s"] <= row["scheduled_s"] < row["first_token_s"]
    assert row["first_token_s"] - row["queued_s"] >= TEXT[0]
    assert not received_at_arrival(trace)


def test_an_answer_whose_text_nobody_saw_has_no_first_token_to_count_back_from(scripted: str, tmp_path: Path) -> None:
    row = answered(scripted, tmp_path / "t", *told({"time_to_first_token_ms": 5.0, "queue_time_ms": 5.0}, delta()))
    assert row["first_token_s"] == row["finish_s"]
    assert pd.isna(row["scheduled_s"])
    assert pd.isna(row["queued_s"])
