"""Live sessions: a turn is sent when its parents have ended and its gap is over, and really repeats what was said."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import driftsim as ds
from driftsim.errors import InputError
from driftsim.live.http import HttpEngine
from driftsim.live.plan import CapturePlan
from driftsim.live.resume import CaptureRun
from driftsim.live.session import run_session
from driftsim.testing import Echo
from driftsim.trace.journal import read_journal
from driftsim.workloads.prompts import prompt_workload, read_prompts
from tests.test_http import Server
from tests.test_http import url as url  # a fixture


class Talking(Server):
    """Answers the last message: ``say N WORD`` with WORD N times, ``500`` with an error; counts the words of all."""

    def talk(self) -> None:
        """Takes the place of ``do_POST``."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/tokenize":
            self.page(json.dumps(self.tokenized(body["messages"][0]["content"])))
            return
        messages = body["messages"]
        if not body.get("stream"):
            self.page("{}")
            return
        self.seen.append(body)
        words = messages[-1]["content"].split()
        if "500" in words:
            self.send_response(500)
            self.end_headers()
            self.wfile.write(b'{"error": {"message": "out of luck"}}')
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        place = words.index("say")
        count, word = int(words[place + 1]), words[place + 2]
        with suppress(BrokenPipeError, ConnectionResetError):
            for _ in range(count):
                self.event({"content": f"{word} ", "reasoning_content": ""})
            self.event({}, finish="stop")
            prompt = sum(4 + len(message["content"].split()) for message in messages)
            self.send({"choices": [], "usage": {
                "prompt_tokens": prompt, "completion_tokens": count, "total_tokens": 0}})  # fmt: skip
            self.wfile.write(b"data: [DONE]\n\n")


@pytest.fixture
def talking(url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(Server, "do_POST", Talking.talk)
    return url


def written(folder: Path, *lines: dict[str, Any]) -> Path:
    file = folder / "prompts.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


def captured(url: str, folder: Path, file: Path, **plan: Any) -> ds.Trace:
    engine = HttpEngine(url, timeout_s=60.0, known={"max_num_seqs": 4})

    def make(live: Any) -> ds.Workload:
        return prompt_workload(read_prompts(file), None, 90, "asked", live.count_tokens)

    return asyncio.run(run_session(engine, make, [CaptureRun(folder, CapturePlan(**plan))]))[0]


TURNS = (
    {"id": "a1", "session": "a", "prompt": "first say 60 apple"},
    {"id": "b1", "session": "b", "prompt": "other say 2 pear"},
    {"id": "a2", "session": "a", "prompt": "second say 5 plum", "gap_s": 0.15},
    {"id": "a3", "session": "a", "prompt": "third say 1 fig"},
)


def sent(word: str) -> list[dict[str, str]]:
    """The messages of the request whose last one holds ``word``."""
    (found,) = [body["messages"] for body in Server.seen if word in body["messages"][-1]["content"]]
    return found  # type: ignore[no-any-return]


def test_a_turn_repeats_what_was_asked_and_what_was_really_answered(talking: str, tmp_path: Path) -> None:
    trace = captured(talking, tmp_path / "t", written(tmp_path, *TURNS))
    trace.check("t")
    said = [(message["role"], message["content"].strip()) for message in sent("third")]
    assert said == [
        ("user", "first say 60 apple"), ("assistant", " ".join(["apple"] * 60)),
        ("user", "second say 5 plum"), ("assistant", "plum plum plum plum plum"), ("user", "third say 1 fig"),
    ]  # fmt: skip
    assert sent("other") == [{"role": "user", "content": "other say 2 pear"}]
    rows = trace.requests.set_index("request_id")
    assert rows["session"].tolist() == ["a", "b", "a", "a"]
    assert rows["parent"].map(list).tolist() == [[], [], [0], [2]]
    assert rows["gap_s"].fillna(-1).tolist() == [-1, -1, 0.15, 0.0]
    assert rows["prompt_tokens"].tolist() == [8, 8, 8 + 64 + 8, 8 + 64 + 8 + 9 + 8]
    counted = (rows["budget"] - rows["estimate"]).tolist()  # at admission: as the server counted, and the text added
    assert counted == [34, 34, 8 + 60 + 34, 80 + 5 + 34]
    assert rows["prompt_words"].tolist() == [4, 4, 4 + 60 + 4, 4 + 60 + 4 + 5 + 4]
    assert 0.15 <= rows["arrival_s"]["a2"] - rows["finish_s"]["a1"] < 10
    assert rows["arrival_s"]["a3"] >= rows["finish_s"]["a2"]
    assert rows["prefix_row"].fillna(-1).tolist() == [-1, -1, 0, 2]
    assert rows["prefix_tokens"].fillna(0).tolist() == [0, 0, 64, 64]  # whole blocks of 32, of 68 and of 85 tokens
    assert trace.header.prefixes is not None
    assert trace.header.prefixes.source == "text"
    assert ds.session_table(trace)["turns"].to_dict() == {"a": 3, "b": 1}


def test_neither_prompts_nor_answers_are_written(talking: str, tmp_path: Path) -> None:
    captured(talking, tmp_path / "t", written(tmp_path, *TURNS))
    for file in (tmp_path / "t").iterdir():
        assert not any(word in file.read_bytes() for word in (b"apple", b"plum", b"pear", b"third"))


def test_a_failed_turn_starts_none_and_the_others_go_on(talking: str, tmp_path: Path) -> None:
    lines: list[dict[str, Any]] = [
        {"id": "a1", "session": "a", "prompt": "500"}, {"id": "a2", "session": "a", "prompt": "second say 5 plum"},
        {"id": "a3", "session": "a", "prompt": "third say 1 fig"}, {"id": "b1", "session": "b", "prompt": "say 2 pear"},
        {"id": "b2", "session": "b", "prompt": "fourth say 2 pear"},
    ]  # fmt: skip
    trace = captured(talking, tmp_path / "t", written(tmp_path, *lines))
    trace.check("t")
    assert trace.header.ended == "complete"
    assert trace.requests["request_id"].tolist() == ["a1", "b1", "b2"]
    assert trace.requests["parent"].map(list).tolist() == [[], [], [1]]
    assert trace.requests["finish_reason"].tolist() == ["error", "stop", "stop"]
    assert trace.header.workload.phases[0].requests == 3
    assert "2 of 5 turns were never sent: the one before them failed" in trace.header.notes
    assert len(Server.seen) == 3


def test_a_conversation_that_is_there_is_kept_and_the_rest_recorded(talking: str, tmp_path: Path) -> None:
    file = written(tmp_path, *TURNS, {"id": "c1", "session": "c", "prompt": "500"}, {"session": "c", "prompt": "never"})
    first = captured(talking, tmp_path / "one", file)
    assert len(first.requests) == 5
    engine, asked = HttpEngine(talking, timeout_s=60.0, known={"max_num_seqs": 4}), len(Server.seen)

    def make(live: Any) -> ds.Workload:
        return prompt_workload(read_prompts(file), None, 90, "asked", live.count_tokens)

    runs = [CaptureRun(tmp_path / name, CapturePlan()) for name in ("one", "two")]
    kept, other = asyncio.run(run_session(engine, make, runs))
    assert len(Server.seen) == 2 * asked
    pd.testing.assert_frame_equal(kept.requests, first.requests)
    assert other.requests["prompt_words"].tolist() == first.requests["prompt_words"].tolist()


def test_a_join_waits_for_all_and_reads_what_the_others_said(talking: str, tmp_path: Path) -> None:
    lines: list[dict[str, Any]] = [
        {"id": "m", "session": "s", "prompt": "main say 1 plan"},
        {"id": "x", "session": "s", "parent": "m", "prompt": "sub say 2 left"},
        {"id": "y", "session": "s", "parent": ["m"], "prompt": "sub say 3 right"},
        {"id": "j", "session": "s", "parent": ["x", "y"], "prompt": "join say 1 end"},
    ]
    trace = captured(talking, tmp_path / "t", written(tmp_path, *lines))
    contents = [message["content"].strip() for message in sent("join")]
    assert contents[:-1] == ["main say 1 plan", "plan", "sub say 2 left", "left left"]
    assert contents[-1].split("\n\n") == ["right right right ", "join say 1 end"]
    rows = trace.requests.set_index("request_id")
    assert rows["arrival_s"]["j"] >= rows["finish_s"][["x", "y"]].max()
    assert ds.turn_table(trace)["requests"].to_dict() == {1: 1, 2: 2, 3: 1}


def test_a_recorded_conversation_is_replayed_as_sessions(talking: str, tmp_path: Path) -> None:
    trace = captured(talking, tmp_path / "t", written(tmp_path, *TURNS))
    again = ds.replay(ds.read(tmp_path / "t"))
    assert again.info.phases[0].kind == "sessions"
    run = ds.simulate(again, profile=ds.Profile.plain(intercept_s=0.01, max_num_seqs=4))
    assert run.requests["parent"].map(list).tolist() == trace.requests["parent"].map(list).tolist()


# -- without a server


class Telling(Echo):
    """An echo that keeps what it was asked; a prompt ``fail`` fails."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: dict[str, ds.Request] = {}

    async def _serve(self, job: ds.Job, true_length: int | None) -> None:
        self.asked[job.request.id] = job.request
        self.failure = None
        await super()._serve(job, 2 if true_length is None else true_length)


def echoed(folder: Path, file: Path, requests: int | None = None, **plan: Any) -> tuple[ds.Trace, Telling]:
    engine = Telling()

    def make(live: Any) -> ds.Workload:
        return prompt_workload(read_prompts(file), requests, 40, "asked", live.count_tokens)

    run = CaptureRun(folder, CapturePlan(**plan))
    return asyncio.run(run_session(engine, make, [run]))[0], engine


def test_admission_counts_what_a_turn_repeats(tmp_path: Path) -> None:
    lines = [{"session": "s", "prompt": "one two three"}, {"session": "s", "prompt": "four"}]
    trace, engine = echoed(tmp_path / "t", written(tmp_path, *lines))
    assert engine.asked["p00001"].prompt_tokens == 3 + 2 + 1
    assert trace.requests["prompt_tokens"].tolist() == [3, 6]
    assert engine.asked["p00001"].history == ("one two three", "")


def test_files_that_are_taken_round_and_round_make_new_sessions(tmp_path: Path) -> None:
    lines = [{"session": "s", "prompt": "a"}, {"session": "s", "prompt": "b c"}]
    trace, _ = echoed(tmp_path / "t", written(tmp_path, *lines), requests=5)
    assert trace.requests["session"].tolist() == ["s", "s", "s~1", "s~1", "s~2"]
    assert trace.requests["parent"].map(list).tolist() == [[], [0], [], [2], []]


def test_an_interrupted_conversation_keeps_the_turns_that_were_sent(tmp_path: Path) -> None:
    lines: list[dict[str, Any]] = [
        {"id": "a1", "session": "a", "prompt": "a"}, {"id": "a2", "session": "a", "prompt": "b", "gap_s": 100.0},
        {"id": "b1", "session": "b", "prompt": "c"}, {"id": "b2", "session": "b", "prompt": "d"},
    ]  # fmt: skip
    file, engine, read = written(tmp_path, *lines), Telling(), list[pd.DataFrame]()

    async def stopped() -> ds.Trace:
        def look(standing: Any) -> None:
            if standing.done == 3 and not read:
                read.append(read_journal(tmp_path / "t")["requests"])
                task.cancel()

        def make(live: Any) -> ds.Workload:
            return prompt_workload(read_prompts(file), None, 40, "asked", live.count_tokens)

        run = CaptureRun(tmp_path / "t", CapturePlan())
        task = asyncio.ensure_future(run_session(engine, make, [run], progress=look))
        return (await task)[0]

    trace = asyncio.run(stopped())
    assert trace.header.ended == "interrupted"
    for table in (trace.requests, read[0].reset_index(drop=True)):
        assert table["request_id"].tolist() == ["a1", "b1", "b2"]
        assert table["parent"].map(list).tolist() == [[], [], [1]]
        assert table["prompt_tokens"].tolist() == [1, 1, 4]
    assert ds.read(tmp_path / "t").requests["request_id"].tolist() == ["a1", "b1", "b2"]


def test_a_parent_that_is_not_there_is_named(tmp_path: Path) -> None:
    file = written(tmp_path, {"id": "a", "parent": "b", "prompt": "x"}, {"id": "b", "prompt": "y"})
    with pytest.raises(InputError, match="prompt a: parent 'b' is no id of an earlier prompt"):
        prompt_workload(read_prompts(file), None, 40, "asked", len)


def test_prompts_without_sessions_are_a_backlog_as_they_were(tmp_path: Path) -> None:
    made = prompt_workload(read_prompts(written(tmp_path, {"prompt": "x"}, {"prompt": "y"})), None, 40, "asked", len)
    assert made.info.phases[0].kind == "backlog"
    assert "session" not in made.table
