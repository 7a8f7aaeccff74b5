"""What requests of a captured run share: found by hashes that nobody can turn back, told as two whole numbers a row."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from array import array
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from driftsim.live import telemetry, told
from driftsim.live.begun import Prompts
from driftsim.live.engine import Outcome
from driftsim.live.http import HttpEngine
from driftsim.live.plan import CapturePlan
from driftsim.live.recorder import Progress, record
from driftsim.live.resume import CaptureRun
from driftsim.live.session import run_session
from driftsim.live.sharing import PIECE, Beginning, Hashes, with_prefixes
from driftsim.live.told import as_usual, token_ids
from driftsim.request import Job, Request, Tier
from driftsim.testing import Echo
from driftsim.trace import trace as traces
from driftsim.trace.header import Prefixes
from driftsim.trace.prefixes import ENDLESS
from driftsim.trace.settings import EngineSettings
from driftsim.trace.trace import Trace
from driftsim.workloads.prompts import Prompt, prompt_workload
from driftsim.workloads.replay import replay
from tests.strategies import workload
from tests.test_http import Server, run

BLOCK = 4


def table(prompts: list[int], outputs: list[int | None]) -> pd.DataFrame:
    return pd.DataFrame({"prompt_tokens": prompts, "output_tokens": pd.array(outputs, dtype="Int64")})


def rows_of(found: pd.DataFrame) -> list[tuple[int | None, int | None]]:
    return [
        (None if row is pd.NA else int(row), None if tokens is pd.NA else int(tokens))
        for row, tokens in zip(found["prefix_row"], found["prefix_tokens"], strict=True)
    ]


def test_hashes_are_of_whole_blocks_of_all_before_them_and_of_their_session() -> None:
    one, other = Hashes(), Hashes()
    assert len(one.blocks([1, 2, 3, 4, 5, 6, 7], BLOCK)) == 1
    assert one.blocks([1, 2, 3, 4, 5, 6, 7, 8], BLOCK)[:1] == one.blocks([1, 2, 3, 4], BLOCK)
    assert one.blocks([9, 2, 3, 4, 5, 6, 7, 8], BLOCK)[1] != one.blocks([1, 2, 3, 4, 5, 6, 7, 8], BLOCK)[1]
    assert one.blocks([1, 2, 3, 4], BLOCK) != other.blocks([1, 2, 3, 4], BLOCK)
    assert one.pieces("a text of 20 letters\ud800") != other.pieces("a text of 20 letters\ud800")
    assert len(one.pieces("a text of 20 letters\ud800")) == 2


def test_prompts_and_outputs_are_shared_in_the_order_in_which_they_were_offered() -> None:
    hashes = Hashes()
    tokens = {
        0: [*range(8), 50, 51, 52, 53],  # a prompt of 8 and its answer
        1: [*range(8), 50, 51, 52, 53, 60, 61, 62, 63],  # the next turn
        2: [*range(8)],  # did not get an answer
        4: [*range(4), 9, 9, 9, 9],
    }
    begun = {row: Beginning(hashes.blocks(ids, BLOCK)) for row, ids in tokens.items()}
    found, header = with_prefixes(table([8, 16, 8, 8, 8], [4, 2, None, 3, 0]), begun, BLOCK, True)
    assert rows_of(found) == [(None, None), (0, 12), (0, 8), (None, None), (0, 4)]
    assert header is not None
    assert (header.block_size, header.source, header.began_cold) == (BLOCK, "tokens", True)


def test_no_more_is_shared_than_the_rows_hold() -> None:
    hashes = Hashes()
    begun = {row: Beginning(hashes.blocks(range(16), BLOCK)) for row in range(2)}
    found, _ = with_prefixes(table([8, 8], [None, 8]), begun, BLOCK, None)  # what was recorded of one was cleared
    assert rows_of(found) == [(None, None), (0, 8)]


def test_where_nobody_knows_how_requests_begin_nothing_is_told() -> None:
    plain = table([8], [4])
    assert with_prefixes(plain, {}, BLOCK, None) == (plain, None)


# -- prompts sent to a server


def counted(text: str) -> list[int]:
    """A tokenizer of four letters a token, in a template of 25 tokens before and 5 behind."""
    return [*range(25), *(hash(text[place : place + 4]) % 10**6 for place in range(0, len(text), 4)), *range(5)]


def asked(prompt: str, tokens: int) -> Request:
    return Request("r", "a", Tier.BATCH, "", 0.0, tokens, None, 4, prompt)


def test_the_template_before_a_prompt_is_what_is_around_one_less_what_is_behind_it() -> None:
    """As the shortest answer to a prompt of the warm-up tells; one that tells nothing, or less than itself, is none."""

    def before(*told: int) -> float:
        prompts = Prompts(16)
        for tokens in told:
            prompts.warmed(tokens)
        prompts.note("a text", None)
        found = prompts.beginning(asked("a text", 1), 100)
        assert found is not None
        return found.before

    assert before() == before(0) == before(5) == 0.0
    assert before(35) == before(35, 0) == before(0, 35, 36) == before(36, 35) == 25.0  # 5 of its own, 5 behind it
    assert before(9) == before(9, 35) == 0.0


def test_a_piece_of_text_has_its_share_of_the_tokens_that_are_not_the_templates() -> None:
    prompts = Prompts(16)
    prompts.warmed(35)  # 30 around the text
    prompts.note("x" * 200, None)
    found = prompts.beginning(asked("x" * 200, 1), 80)
    assert found is not None
    assert found.a_piece == PIECE * 50 / 200


def shared_of(texts: list[str], ids: bool, block: int = 16) -> tuple[np.ndarray, str]:
    """The tokens that ``texts`` share, as they are found with token ids or without."""
    prompts = Prompts(block)
    prompts.warmed(35)
    for text in texts:
        prompts.note(text, counted(text) if ids else None)
    lengths = [len(counted(text)) for text in texts]
    begun = {row: prompts.beginning(asked(text, 1), lengths[row]) for row, text in enumerate(texts)}
    known = {row: one for row, one in begun.items() if one is not None}
    found, header = with_prefixes(table(lengths, [3] * len(texts)), known, block, None)
    assert header is not None
    return found["prefix_tokens"].fillna(0).to_numpy(dtype=int), header.source


def test_texts_share_about_what_their_tokens_share_the_template_included() -> None:
    system = "You are the river, the mill and the weather. " * 20
    texts = [system + f"Question {number}: " + f"{number} " * (5 * number) for number in range(12)]
    texts += ["Something else. " + text for text in texts]
    exact, by_ids = shared_of(texts, ids=True)
    close, by_text = shared_of(texts, ids=False)
    assert (by_ids, by_text) == ("tokens", "text")
    assert (exact > 200).sum() == 22
    assert np.abs(exact - close).max() <= 16
    assert (exact[12], close[12]) == (16, 16)  # of two that have nothing in common, the template is


@pytest.mark.parametrize("later", [0, 1])
def test_by_text_alone_no_more_is_shared_than_both_prompts_hold(later: int) -> None:
    """Long words of few tokens before short ones of many: the pace of the whole is far from that of the beginning."""
    begin = "internationalisation " * 20
    texts, lengths = [begin, begin + "9 8 7 6 " * 60], [30 + 40, 30 + 40 + 480]
    order = [0, 1] if later else [1, 0]
    prompts = Prompts(16)
    prompts.warmed(35)
    for text in texts:
        prompts.note(text, None)
    begun = {row: prompts.beginning(asked(texts[one], 1), lengths[one]) for row, one in enumerate(order)}
    known = {row: one for row, one in begun.items() if one is not None}
    found, _ = with_prefixes(table([lengths[one] for one in order], [400, 400]), known, 16, None)
    assert rows_of(found) == [(None, None), (0, 64)]  # of 25 of the template and 40 of the text: never of an output


def test_what_texts_share_is_capped_by_what_the_server_counted() -> None:
    """Here it counts what cannot be: one text is the beginning of the other, and has more tokens."""
    hashes = Hashes()
    begun = {
        row: Beginning(None, hashes.pieces("a word of it " * count), 0.0, pace)
        for row, (count, pace) in enumerate([(20, 9.0), (40, 1.0)])
    }
    found, _ = with_prefixes(table([290, 65], [400, 400]), begun, 16, None)
    assert rows_of(found) == [(None, None), (0, 64)]


def test_token_ids_that_are_not_the_servers_are_left_aside() -> None:
    prompts = Prompts(16)
    prompts.note("one two", counted("one two"))
    right, wrong = (prompts.beginning(asked("one two", 1), tokens) for tokens in (32, 33))
    assert right is not None
    assert right.blocks is not None
    assert wrong is not None
    assert wrong.blocks is None
    assert prompts.beginning(asked("three", 1), 9) is None


def test_texts_are_compared_where_the_ids_of_one_prompt_are_not_known() -> None:
    prompts, texts = (
        Prompts(BLOCK),
        ["a text of some thirty letters or so, one", "a text of some thirty letters or so, two"],
    )
    for text, ids in zip(texts, (None, counted(texts[1])), strict=True):
        prompts.note(text, ids)
    begun = {row: prompts.beginning(asked(text, 1), len(counted(text))) for row, text in enumerate(texts)}
    known = {row: one for row, one in begun.items() if one is not None}
    found, header = with_prefixes(table([len(counted(text)) for text in texts], [3, 3]), known, BLOCK, None)
    assert header is not None
    assert header.source == "text"
    assert rows_of(found)[1][0] == 0


WRONG_IDS: list[Any] = [5, [1, 2], [1, 2, True], [1, -2, 3], [1, 2, 10**30], [1, 2, float("nan")], ["a", "b", "c"]]
HOSTILE: list[Any] = [None, [], "7", *({"tokens": ids} for ids in WRONG_IDS)]


@pytest.mark.parametrize("page", HOSTILE, ids=str)
def test_token_ids_that_are_none_are_none(page: Any) -> None:
    assert token_ids(page, 3) is None
    assert token_ids({"tokens": [1, 2, 3]}, 3) == [1, 2, 3]


class Caching(Server):
    """A stock vLLM server: it caches prefixes, tells token ids, and of its answers what ``details`` say, in turn."""

    details: list[Any] = []
    tells_ids = True
    labels = 'block_size="8",enable_prefix_caching="True",num_gpu_blocks="728"'

    def model(self) -> dict[str, Any]:
        return super().model() | {"owned_by": "vllm"}

    def tokenized(self, text: str) -> dict[str, Any]:
        ids = [*range(25), *(4_000_000 + int(word, 36) % 10**6 for word in text.split()), *range(5)]
        return {"count": len(ids), "tokens": ids} if self.tells_ids else {"count": len(ids)}

    def send(self, event: dict[str, Any]) -> None:
        if "usage" in event and self.details:
            event["usage"]["prompt_tokens_details"] = self.details.pop(0)
        super().send(event)


@pytest.fixture
def stock(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of such a server."""
    monkeypatch.setattr(telemetry, "CPU_INTERVAL_S", 0.1)  # each capture ends with one of these
    Caching.seen, Caching.details, Caching.tells_ids = [], [], True
    server = ThreadingHTTPServer(("127.0.0.1", 0), Caching)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    server.shutdown()
    server.server_close()
    thread.join()


SYSTEM = "ok 3 " + " ".join(f"w{number}w" for number in range(20))
CHATS = (f"{SYSTEM} first one", f"{SYSTEM} zebra one", "ok 2 otherwise", f"{SYSTEM} first one and more of it w w w w")


def test_a_stock_server_is_recorded_with_what_its_prompts_share(stock: str, tmp_path: Path) -> None:
    trace = run(stock, tmp_path / "t", *CHATS)
    assert trace.header.engine.enable_prefix_caching
    assert "enable_prefix_caching" not in trace.header.engine.assumed
    assert trace.header.prefixes == Prefixes(block_size=8, source="tokens", began_cold=None)
    # 25 of the template, 22 of the system prompt and the common question, in blocks of 8
    assert rows_of(trace.requests) == [(None, None), (0, 40), (0, 24), (0, 48)]
    assert "cached_tokens" not in trace.requests  # it told of none
    traces.read(tmp_path / "t").check("back")
    assert replay(trace).table["stretches"].tolist()[1] == ((0, 40), (1, ENDLESS))


def test_a_server_without_token_ids_is_compared_by_its_texts(stock: str, tmp_path: Path) -> None:
    Caching.tells_ids = False
    header = run(stock, tmp_path / "t", *CHATS).header
    assert header.prefixes is not None
    assert header.prefixes.source == "text"


WRONG = [-1, 1e30, float("nan"), float("inf"), 10**30, 1000, [3], None]


@pytest.mark.parametrize("cached", WRONG, ids=str)
def test_cached_tokens_that_cannot_be_are_not_told(cached: Any, stock: str, tmp_path: Path) -> None:
    Caching.details = [{"cached_tokens": cached}, {"cached_tokens": 24}]
    rows = run(stock, tmp_path / "t", *CHATS[:2], max_in_flight=1).requests
    assert list(rows["finish_reason"]) == ["stop", "stop"]
    assert rows["cached_tokens"].isna().tolist() == [True, False]
    assert rows["cached_tokens"][1] == 24


def test_a_server_that_found_tokens_in_its_cache_has_one(
    stock: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Caching, "labels", "")
    monkeypatch.setattr(Caching, "model", Server.model)  # it does not say that it is vLLM
    assert not run(stock, tmp_path / "cold", *CHATS[:2]).header.engine.enable_prefix_caching
    Caching.details = [{"cached_tokens": 24}]
    header = run(stock, tmp_path / "t", *CHATS[:2]).header
    assert header.engine.enable_prefix_caching
    assert "enable_prefix_caching" not in header.engine.assumed
    notes = [note for note in header.notes if "the server does not tell" in note]
    assert len(notes) == 1
    assert "async_scheduling" in notes[0]  # which it did not tell
    assert "enable_prefix_caching" not in notes[0]  # which it did


def test_a_second_run_on_a_server_that_caches_is_not_cold_and_says_so(stock: str, tmp_path: Path) -> None:
    asked = [Prompt(prompt=text, max_tokens=5) for text in CHATS]
    runs = [CaptureRun(tmp_path / name, CapturePlan()) for name in ("one", "two")]
    made = run_session(HttpEngine(stock), lambda live: prompt_workload(asked, None, 5, "x", live.count_tokens), runs)
    first, second = (trace.header for trace in asyncio.run(made))
    assert (first.prefixes, second.prefixes) == tuple(
        Prefixes(block_size=8, source="tokens", began_cold=cold) for cold in (None, False)
    )
    assert [any("cache may hold" in note for note in header.notes) for header in (first, second)] == [False, True]


def test_a_run_that_is_recorded_tells_nothing_of_what_was_said(stock: str, tmp_path: Path) -> None:
    hashes: list[bytes] = []
    chained = Hashes._chain

    def noted(own: Hashes, whole: bytes, stride: int) -> array[int]:
        found = chained(own, whole, stride)
        hashes.extend(one.to_bytes(8, "little", signed=True) for one in found)
        hashes.extend(str(one).encode() for one in found)
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Hashes, "_chain", noted)
        patch.setattr("driftsim.trace.journal.JOURNAL_FILES", ())  # so that the journal stays
        run(stock, tmp_path / "t", *CHATS)
    assert len(hashes) > 50
    files = written(tmp_path / "t")
    assert {"requests.jsonl", "requests.parquet", "header.json"} <= set(files)
    assert b"stop" in files["requests.parquet"]  # the tables are read, not the bytes into which they are packed
    for name, content in files.items():
        for secret in (*hashes, *secret_ids(), b"zebra", b"otherwise"):
            assert secret not in content, (name, secret)


def written(folder: Path) -> dict[str, bytes]:
    """What is in each file of ``folder``, of tables every cell as text."""
    return {
        file.name: pd.read_parquet(file).to_csv().encode() if file.suffix == ".parquet" else file.read_bytes()
        for file in folder.iterdir()
    }


def secret_ids() -> list[bytes]:
    return [str(one).encode() for one in Caching.tokenized(Caching.__new__(Caching), SYSTEM)["tokens"][25:-5]]


@pytest.mark.parametrize("tells_ids", [True, False])
def test_token_ids_that_a_server_says_of_a_prompt_are_not_recorded(
    tells_ids: bool, stock: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Caching, what: str, more: list[str], prompt: int) -> None:
        self.send_response(400)
        self.end_headers()
        said = f"cannot serve {self.tokenized(f'{SYSTEM} first one')['tokens'] if tells_ids else b', '.join(ids)!r}"
        self.wfile.write(json.dumps({"error": {"message": said}}).encode())

    ids = secret_ids()
    Caching.tells_ids = tells_ids
    monkeypatch.setattr(Caching, "answer", refuse)
    monkeypatch.setattr("driftsim.trace.journal.JOURNAL_FILES", ())
    trace = run(stock, tmp_path / "t", *CHATS)
    assert trace.requests["error"].str.contains("HTTP 400: .*left out", regex=True).all()
    for name, content in written(tmp_path / "t").items():
        assert not [one for one in ids if one in content], name


# -- a live engine that tells how requests begin


class Knowing(Echo):
    """Tells of each request that it begins as the one before, and of the ``odd`` ones what cannot be."""

    odd: tuple[int, ...] = ()
    hashes = Hashes()

    async def forget(self) -> bool | None:
        return True

    def submit(self, job: Job, true_length: int | None) -> None:
        now = time.monotonic()
        tokens = 10**6 if job.index in self.odd else 16
        begun = Beginning(self.hashes.blocks(range(job.request.prompt_tokens + 16), 16))
        whole = Outcome(job, "stop", now, now, now, now, tokens, 5, 0, cached_tokens=min(16, tokens), beginning=begun)
        self.on_outcome(whole)


def recorded(folder: Path, engine: Echo) -> Trace:
    made = workload([0.0, 0.0, 0.0], [1, 1, 1], prompt_tokens=[32, 48, 64])
    return asyncio.run(record(made, engine, CapturePlan(), folder))


def test_what_an_engine_knows_of_beginnings_is_in_its_trace(tmp_path: Path) -> None:
    trace = recorded(tmp_path / "t", Knowing())
    assert rows_of(trace.requests) == [(None, None), (0, 48), (1, 64)]
    assert list(trace.requests["cached_tokens"]) == [16, 16, 16]
    assert trace.header.prefixes == Prefixes(block_size=16, source="tokens", began_cold=True)
    assert traces.read(tmp_path / "t").header.prefixes == trace.header.prefixes


def test_a_run_under_way_tells_what_was_cached(tmp_path: Path) -> None:
    seen: list[list[Any]] = []

    def look(standing: Progress) -> None:
        if standing.done == 1:
            seen.append(traces.read(tmp_path / "t").requests["cached_tokens"].tolist())

    made = workload([0.0, 0.0], [1, 1], prompt_tokens=[32, 48])
    asyncio.run(record(made, Knowing(), CapturePlan(max_in_flight=1), tmp_path / "t", look))
    assert seen[0][0] == 16
    assert pd.isna(seen[0][1])


def test_a_row_that_cannot_be_costs_no_other_its_prefix(tmp_path: Path) -> None:
    engine = Knowing()
    engine.odd = (1,)
    rows = recorded(tmp_path / "t", engine).requests
    assert list(rows["finish_reason"]) == ["stop", "error", "stop"]
    assert rows["cached_tokens"].isna().tolist() == [False, True, False]
    assert rows_of(rows) == [(None, None), (0, 48), (1, 48)]  # of the output that is not known nothing is shared


# -- what is assumed where a server does not tell


def guessed(**known: Any) -> EngineSettings:
    return EngineSettings.guessed({"version": "0.32.0", **known}, "openai")


def test_vllm_is_taken_to_cache_prefixes_unless_it_or_the_user_says_otherwise() -> None:
    assert as_usual(guessed(), True, ()).enable_prefix_caching
    assert "enable_prefix_caching" in as_usual(guessed(), True, ()).assumed
    assert not as_usual(guessed(enable_prefix_caching=False), True, ()).enable_prefix_caching
    assert not as_usual(guessed(), False, ()).enable_prefix_caching


@pytest.mark.parametrize(
    ("version", "command", "devices", "ahead"),
    [
        ("0.32.0", ["python", "-m", "vllm.entrypoints.openai.api_server"], [], False),
        ("0.32.0", ["VLLM::APIServer"], [], False),
        ("0.32.0", ["VLLM::EngineCore/0"], [], False),
        ("0.32.0", ["vllm", "serve"], ["nvidia0"], True),
        ("0.32.0", ["/opt/venv/bin/python3.11", "/opt/venv/bin/vllm", "serve", "m"], [], False),
        ("0.32.0", ["python", "-u", "serve_vllm.py"], [], False),
        ("0.32.0", ["ssh", "-L", "8000:vllm-far:8000"], [], True),  # the server is elsewhere
        ("0.32.0", ["kubectl", "port-forward", "svc/vllm", "8000"], [], True),
        ("0.32.0", ["/usr/bin/docker-proxy", "-host-port", "8000", "-container", "vllm"], [], True),
        ("0.32.0", ["python", "-m", "litellm", "hosted_vllm/m"], [], True),
        ("0.32.0", [""], [], True),
        ("0.32.0+cpu", None, ["nvidia0"], False),
        ("0.32.0", None, [], True),
    ],
)
def test_on_a_cpu_no_step_is_scheduled_ahead(
    version: str, command: list[str] | None, devices: list[str], ahead: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "driftsim.live.told.psutil.Process", lambda number: SimpleNamespace(cmdline=lambda: command or [])
    )
    monkeypatch.setattr(told, "_devices", lambda: devices)
    settings = as_usual(guessed(version=version), True, () if command is None else (4711,))
    assert settings.async_scheduling == ahead
    assert as_usual(guessed(version=version, async_scheduling=True), True, (4711,)).async_scheduling
