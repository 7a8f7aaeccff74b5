"""A client of a server that may do anything: nothing hangs, and every request is a row that says what became of it."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest

from driftsim.errors import InputError
from driftsim.live import telemetry
from driftsim.live.http import HttpEngine
from driftsim.live.plan import CapturePlan
from driftsim.live.resume import CaptureRun
from driftsim.live.session import run_session
from driftsim.live.told import order_of
from driftsim.metrics import summary
from driftsim.request import Job
from driftsim.scheduling.admission import Admission
from driftsim.trace import trace as traces
from driftsim.trace.trace import Trace
from driftsim.workloads.prompts import Prompt, prompt_workload

SECRET = "sk-do-not-tell-anybody"


class Server(BaseHTTPRequestHandler):
    """Answers as its prompt says: ``ok 5`` with five tokens, ``truncate``, ``500`` and so on."""

    protocol_version = "HTTP/1.0"  # the end of the connection is the end of the answer
    seen: list[dict[str, Any]] = []
    over = threading.Event()  # the test is
    vllm = True
    labels = 'block_size="32",enable_prefix_caching="False",num_gpu_blocks="728"'

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is logged."""

    def do_GET(self) -> None:
        pages = {"/v1/models": json.dumps({"object": "list", "data": [self.model()]})}
        if self.vllm:
            pages["/version"] = '{"version": "0.32.0"}'
            pages["/metrics"] = f"# HELP vllm:cache_config_info\nvllm:cache_config_info{{{self.labels}}} 1.0\n"
        self.page(pages.get(self.path))

    def model(self) -> dict[str, Any]:
        length = {"max_model_len": 2048} if self.vllm else {}
        return {"id": "small", "object": "model", "created": 0, "owned_by": "me"} | length

    def tokenized(self, text: str) -> dict[str, Any]:
        return {"count": 30 + len(text.split())}

    def page(self, text: str | None) -> None:
        self.send_response(404 if text is None else 200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write((text or "not here").encode())

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/tokenize":
            self.page(json.dumps(self.tokenized(body["messages"][0]["content"])) if self.vllm else None)
            return
        self.seen.append(body | {"path": self.path, "key": self.headers["Authorization"]})
        if not body.get("stream"):
            self.page("{}")
            return
        prompt = body["prompt"] if "prompt" in body else body["messages"][0]["content"]
        words = prompt.split() if isinstance(prompt, str) else ["ok", "3"]
        with suppress(BrokenPipeError, ConnectionResetError):
            self.answer(words[0], words[1:], len(prompt.split()) if isinstance(prompt, str) else len(prompt))

    def answer(self, what: str, more: list[str], prompt: int) -> None:
        if what in ("500", "503"):
            self.send_response(int(what))
            self.end_headers()
            self.wfile.write(b'{"error": {"message": "out of luck, ' + SECRET.encode() + b'"}}')
            return
        if what == "drop":
            return
        if what == "silent":
            Server.over.wait()
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        if what == "packed":
            self.send_header("Content-Encoding", "gzip")
        self.end_headers()
        endless = {"comments": b": still here\n\n", "line": b"data: ", "lines": b"data: x\n", "packed": b"x"}
        if what in endless:
            self.wfile.write(endless[what])
            while True:
                self.wfile.write((b"x" if what == "line" else endless[what]) * 8192)
        while what == "empty":
            self.event({"content": ""})
        if what == "late":
            self.send({"error": {"message": "busy", "type": "ServiceUnavailable", "param": None, "code": 503}})
            return
        if what == "garbage":
            self.wfile.write(b"data: {this is no JSON\n\n")
            return
        count = int(more[0]) if more else 4
        while what == "forever":
            self.event({"content": "word "})
        if what == "drip":
            while True:
                self.event({"content": "word "})
                time.sleep(0.05)
        for _ in range(count):
            self.event({"content": "word "})
            time.sleep(0.001)
        if what == "truncate":
            return
        self.event({}, finish={"ok": "stop"}.get(what, "content_filter" if what == "filtered" else "length"))
        tokens = {"many": 10_000, "few": 1, "negative": -4}.get(what, count)
        if what != "unused":
            usage = {"prompt_tokens": 30 + prompt, "completion_tokens": tokens, "total_tokens": 0}
            self.send({"choices": [], "usage": usage})
        self.wfile.write(b"data: [DONE]\n\n")

    def event(self, delta: dict[str, Any], finish: str | None = None) -> None:
        choice = {"index": 0, "finish_reason": finish}
        chat = choice | {"delta": delta}
        self.send({"choices": [chat if "chat" in self.path else choice | {"text": delta.get("content", "")}]})

    def send(self, event: dict[str, Any]) -> None:
        whole = {"id": "x", "object": "chunk", "created": 0, "model": "small"} | event
        self.wfile.write(b"data: " + json.dumps(whole).encode() + b"\n\n")
        self.wfile.flush()


@pytest.fixture
def url() -> Iterator[str]:
    Server.seen, Server.vllm, Server.over = [], True, threading.Event()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    Server.over.set()
    server.shutdown()
    server.server_close()
    thread.join()


class Hurried(HttpEngine):
    """Gives the first request a second, and the others the time that a busy machine may need."""

    first = ""

    def submit(self, job: Job, true_length: int | None) -> None:
        self.first = self.first or job.request.id
        super().submit(job, true_length)

    @property
    def timeout_s(self) -> float:
        task = asyncio.current_task()
        return 1.0 if task is not None and task.get_name() == self.first else 60.0

    @timeout_s.setter
    def timeout_s(self, value: float) -> None:
        pass


def run(
    url: str, folder: Path, *prompts: str, kind: type[HttpEngine] = HttpEngine, max_tokens: int = 20, **plan: Any
) -> Trace:
    engine = kind(url, timeout_s=60.0, known={"max_num_seqs": 4})
    asked = [Prompt(prompt=text, max_tokens=max_tokens) for text in prompts]

    def make(live: Any) -> Any:
        return prompt_workload(asked, None, 20, "asked", live.count_tokens)

    return asyncio.run(run_session(engine, make, [CaptureRun(folder, CapturePlan(**plan))]))[0]


def test_an_answer_is_timed_counted_and_forgotten(url: str, tmp_path: Path) -> None:
    trace = run(url, tmp_path / "t", "ok 5 please", "length 7")
    rows = trace.requests
    assert list(rows["finish_reason"]) == ["stop", "length"]
    assert list(rows["output_tokens"]) == [5, 7]
    assert list(rows["output_words"]) == [5, 7]
    assert list(rows["prompt_tokens"]) == [33, 32]
    assert (rows["first_token_s"] > rows["dispatch_s"]).all()
    assert (rows["finish_s"] > rows["first_token_s"]).all()
    assert rows[["queued_s", "scheduled_s", "preemptions"]].isna().all(axis=None)
    assert trace.steps is None
    traces.read(tmp_path / "t").check("back")


def test_the_header_tells_what_the_server_told_and_names_what_is_assumed(url: str, tmp_path: Path) -> None:
    engine = run(url, tmp_path / "t", "ok").header.engine
    assert (engine.name, engine.version, engine.kv_blocks, engine.block_size) == ("openai", "0.32.0", 728, 32)
    assert (engine.max_num_seqs, engine.max_model_len) == (4, 2048)
    assert engine.assumed == ("max_num_batched_tokens", "async_scheduling")


def test_a_server_that_tells_nothing_is_recorded_all_the_same(url: str, tmp_path: Path) -> None:
    Server.vllm = False
    header = run(url, tmp_path / "t", "ok 3 a b").header
    assert {"kv_blocks", "version", "max_model_len"} <= set(header.engine.assumed)
    assert any("does not tell" in note for note in header.notes)
    assert any("tokens a word" in note for note in header.notes)
    assert any("other prompt lengths" in note for note in header.notes)


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("500", "HTTP 500"),
        ("drop", "APIConnectionError"),
        ("silent", "no end of the answer after 1 s"),
        ("drip", "no end of the answer after 1 s|does not end"),
        ("forever", "the stream does not end"),
        ("comments", "the answer does not end: more than"),
        ("line", "the answer does not end: more than"),
        ("lines", "the answer does not end: more than"),
        ("empty", "the answer does not end: more than"),
        ("packed", "the answer is compressed"),
        ("garbage", "JSONDecodeError"),
        ("truncate", "the stream broke off"),
        ("filtered", "finish reason 'content_filter'"),
        ("unused", "the server gave no usage"),
        ("many", "wrong usage: 10000 completion"),
        ("few 9", "wrong usage: 1 completion"),
        ("negative", "wrong usage: -4"),
    ],
)
def test_what_goes_wrong_is_told_in_its_row_and_the_rest_goes_on(
    prompt: str, said: str, url: str, tmp_path: Path
) -> None:
    endless = prompt in ("silent", "drip")
    trace = run(url, tmp_path / "t", prompt, "ok 2", kind=Hurried if endless else HttpEngine)
    assert list(trace.requests["finish_reason"]) == ["error", "stop"]
    error = str(trace.requests["error"][0])
    assert any(part in error for part in said.split("|")), error
    assert "\n" not in error
    traces.read(tmp_path / "t")


def test_who_is_turned_away_with_503_is_rejected_and_offered(url: str, tmp_path: Path) -> None:
    """Also where the stream had begun, as vLLM does if its queue fills meanwhile."""
    trace = run(url, tmp_path / "t", "503", "ok 2", "late")
    assert list(trace.requests["finish_reason"]) == ["rejected", "stop", "rejected"]
    assert trace.requests["error"][0].startswith("HTTP 503")
    row = summary(traces.read(tmp_path / "t"), Admission())
    assert (row["requests"], row["finished"], row["rejected"], row["errors"]) == (3, 1, 2, 0)


def test_nothing_is_sent_twice(url: str, tmp_path: Path) -> None:
    run(url, tmp_path / "t", "500", "drop", "ok")
    asked = [body["messages"][0]["content"] for body in Server.seen if body.get("stream")]
    assert sorted(asked) == ["500", "drop", "ok"]


def test_the_key_is_sent_and_told_to_nobody(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    run(url, tmp_path / "t", "500", "ok")
    assert Server.seen[-1]["key"] == f"Bearer {SECRET}"
    for file in (tmp_path / "t").iterdir():
        assert SECRET.encode() not in file.read_bytes()
    assert SECRET not in str(traces.read(tmp_path / "t").requests["error"][0])


def test_the_order_of_service_is_the_policys(url: str, tmp_path: Path) -> None:
    prompts = [f"ok 3 {'word ' * extra}" for extra in (40, 2, 30, 9, 20)]
    trace = run(url, tmp_path / "t", *prompts, policy="sjf", max_in_flight=1)
    assert list(trace.requests["dispatch_index"]) == [4, 0, 3, 1, 2]


def test_priorities_are_sent_where_the_server_orders_by_them(url: str, tmp_path: Path) -> None:
    """Everybody is let in at once; the smaller the key, the smaller the priority. Else the body has none."""
    prompts = [f"ok 3 {'word ' * extra}" for extra in (40, 2, 30)]
    run(url, tmp_path / "front", *prompts, policy="sjf")
    assert not [body for body in Server.seen if "priority" in body]
    with pytest.raises(InputError, match="start it with --scheduling-policy priority"):
        run(url, tmp_path / "t", *prompts, policy="sjf", place="priority")
    with pytest.raises(InputError, match="HttpEngine cannot have a policy inside"):
        run(url, tmp_path / "t", *prompts, policy="sjf", place="inside")
    trace = run(url, tmp_path / "t", *prompts, kind=ByPriority, policy="sjf", place="priority")
    sent = {body["messages"][0]["content"]: body["priority"] for body in Server.seen if "priority" in body}
    assert sent[prompts[1]] < sent[prompts[2]] < sent[prompts[0]]
    assert trace.header.admission["place"] == "priority"
    assert trace.header.engine.scheduling_policy == "priority"
    assert trace.header.max_in_flight is None


class ByPriority(HttpEngine):
    """One that is said to order by priority."""

    def __init__(self, *arguments: Any, known: dict[str, Any], **others: Any) -> None:
        super().__init__(*arguments, known=known | {"scheduling_policy": "priority"}, **others)


def test_the_order_of_a_server_here_is_read_off_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    def started(*command: str) -> None:
        monkeypatch.setattr(psutil.Process, "cmdline", lambda self: ["vllm", "serve", *command])

    mine = [os.getpid()]
    started("model", "--scheduling-policy", "priority")
    assert order_of(mine, None) == order_of(mine, "priority") == {"scheduling_policy": "priority"}
    with pytest.raises(InputError, match="the server was started with priority"):
        order_of(mine, "fcfs")
    started("--scheduling-policy=fcfs", "model")
    assert order_of(mine, None) == {"scheduling_policy": "fcfs"}
    started("model")
    assert order_of(mine, "priority") == {}


def test_a_replay_sends_synthetic_prompts_of_the_recorded_length(url: str, tmp_path: Path) -> None:
    from tests.strategies import workload

    made = workload([0.0, 0.01], [3, 3], prompt_tokens=[11, 17])
    engine = HttpEngine(url)
    trace = asyncio.run(
        run_session(engine, lambda live: made, [CaptureRun(tmp_path / "t", CapturePlan(force_lengths=True))])
    )[0]
    sent = [body for body in Server.seen if body["path"].endswith("/completions") and "prompt" in body]
    assert sorted(len(body["prompt"]) for body in sent) == [11, 17]  # 10 ms apart, a busy server may swap them
    assert all(body["ignore_eos"] and body["max_tokens"] == 3 for body in sent)
    assert list(trace.requests["output_tokens"]) == [3, 3]


def test_the_clients_own_cpu_is_not_foreign_load(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine on which nobody else works, before a server elsewhere."""
    monkeypatch.setattr(telemetry, "CPU_INTERVAL_S", 0.5)
    monkeypatch.setattr(telemetry, "_busy", lambda: (time.process_time(), 0.0))
    monkeypatch.setattr("driftsim.live.told.listening", lambda port: ())
    load = run(url, tmp_path / "t", *["ok 20"] * 40).header.load
    assert load is not None
    assert load.own_cpu_mean > 0.02
    assert load.foreign_cpu_mean < load.own_cpu_mean / 2


def test_a_server_that_is_not_there_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no OpenAI-compatible server answers there"):
        run("http://127.0.0.1:9/v1", tmp_path / "t", "ok")
    assert not (tmp_path / "t").exists()


def test_a_model_that_is_not_served_is_said_with_those_that_are(url: str) -> None:
    with pytest.raises(ValueError, match="serves no model 'large'; it lists small"):
        asyncio.run(HttpEngine(url, "large").start())


@pytest.mark.parametrize("wrong", ["localhost:8000", "ftp://host/v1", "http://", "http://me:pw@host/v1"])
def test_a_url_that_is_none_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="--base-url"):
        HttpEngine(wrong)
