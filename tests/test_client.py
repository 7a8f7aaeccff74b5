"""The client of a server, before a made-up one in this process: what it sends, believes, counts, hides and gives up."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import openai
import pytest

from driftsim.errors import InputError
from driftsim.live import http
from driftsim.live.engine import Outcome
from driftsim.live.http import HttpEngine
from driftsim.live.pages import Page
from driftsim.request import Job, Request, Tier
from driftsim.testing import engine as settings

KEY = "sk-QuiteSecret42"
METRICS = 'vllm:cache_config_info{block_size="32",enable_prefix_caching="True",num_gpu_blocks="728"} 1.0\n'


class Told:
    """Pages of a server, by the end of their address."""

    def __init__(self, **pages: Any) -> None:
        self.pages, self.asked = pages, list[str]()

    def ask(self, url: str, body: dict[str, Any] | None = None) -> Page:
        name = url.rpartition("/")[2]
        self.asked.append(name)
        told = self.pages.get(name)
        if callable(told):
            told = told(body)
        return Page(404, "") if told is None else Page(200, told if isinstance(told, str) else json.dumps(told))

    def close(self) -> None:
        """Nothing is open."""


def models(*names: str) -> dict[str, Any]:
    return {"data": [{"id": name, "max_model_len": 2048} for name in names]}


def started(monkeypatch: pytest.MonkeyPatch, pages: Told, **options: Any) -> tuple[HttpEngine, dict[str, Any]]:
    """An engine that has asked for ``pages``, and what its client was made with."""
    made: dict[str, Any] = {}
    monkeypatch.setenv(http.KEY, KEY)
    monkeypatch.setattr(http, "Pages", lambda key, wait_s: pages)
    monkeypatch.setattr(openai, "DefaultAsyncHttpxClient", lambda **how: made.update(transport=how) or how)
    monkeypatch.setattr(openai, "AsyncOpenAI", lambda **how: made.update(how))
    monkeypatch.setattr("driftsim.live.told.listening", lambda port: (4711,))
    live = HttpEngine("http://localhost:8000/v1", **options)
    asyncio.run(live.start())
    return live, made


def test_a_client_sends_once_follows_nobody_and_bounds_what_it_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    live, made = started(monkeypatch, Told(models=models("small")), timeout_s=7.0)
    assert (made["max_retries"], made["transport"]["follow_redirects"]) == (0, False)
    assert made["transport"]["event_hooks"] == {"response": [http._bound]}
    assert made["api_key"] == KEY
    assert made["timeout"].read == 7.0
    assert live.own_processes == (4711,)


def test_what_a_server_tells_is_believed_unless_the_user_knows_better(monkeypatch: pytest.MonkeyPatch) -> None:
    pages = Told(models=models("small", "large"), version={"version": "0.32.0"}, metrics=METRICS)
    live, _ = started(monkeypatch, pages, known={"block_size": 8, "max_num_seqs": 5})
    told = live.settings
    assert (told.kv_blocks, told.block_size, told.enable_prefix_caching) == (728, 8, True)
    assert (told.max_model_len, told.version, told.max_num_seqs) == (2048, "0.32.0", 5)
    assert live.model == "small"
    assert started(monkeypatch, pages, model="large")[0].model == "large"
    with pytest.raises(InputError, match="serves no model 'huge'"):
        started(monkeypatch, pages, model="huge")
    off = Told(models=models("small"), metrics=METRICS.replace("True", "False").replace('"32"', '"16"'))
    plain = started(monkeypatch, off)[0].settings
    assert (plain.block_size, plain.enable_prefix_caching) == (16, False)
    assert "block_size" not in plain.assumed


def test_a_prompt_is_counted_by_the_server_or_else_by_its_words(monkeypatch: pytest.MonkeyPatch) -> None:
    pages = Told(models=models("small"), tokenize=lambda body: {"count": 40 + len(body["messages"][0]["content"])})
    live, _ = started(monkeypatch, pages)
    assert live.count_tokens("four") == 44
    silent, _ = started(monkeypatch, Told(models=models("small")))
    assert silent.count_tokens("one two three four five six seven eight nine ten") == 14  # 1.4 a word
    assert silent.count_tokens("") == 1
    assert "1.4 tokens a word" in silent.notes[-1]


def test_a_server_that_counts_slowly_is_asked_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]

    def slow(body: Any) -> dict[str, int]:
        clock[0] += 50.0
        return {"count": 7}

    pages = Told(models=models("small"), tokenize=slow)
    live, _ = started(monkeypatch, pages)
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    assert [live.count_tokens("a b") for _ in range(3)] == [7, 7, 3]
    assert pages.asked.count("tokenize") == 2


# -- one request


Stream = Callable[[], AsyncIterator[Any]]


class Streaming:
    """Answers of the client's two calls, and what they were asked."""

    def __init__(self, stream: Stream) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.chat = SimpleNamespace(completions=SimpleNamespace(create=self._call("chat", stream)))
        self.completions = SimpleNamespace(create=self._call("plain", stream))

    def _call(self, name: str, stream: Stream) -> Any:
        async def create(**how: Any) -> Any:
            self.asked.append((name, how))
            return Body(stream())

        return create


class Body:
    """A stream that is entered, read and left."""

    def __init__(self, events: AsyncIterator[Any]) -> None:
        self.events = events

    async def __aenter__(self) -> Body:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Nothing to let go of."""

    def __aiter__(self) -> AsyncIterator[Any]:
        return self.events


def event(text: str, finish: str | None = None) -> SimpleNamespace:
    return SimpleNamespace(choices=[SimpleNamespace(delta={"content": text}, finish_reason=finish)], usage=None)


async def plain() -> AsyncIterator[Any]:
    yield event("well")
    yield event("", "stop")
    yield SimpleNamespace(choices=[], usage=SimpleNamespace(completion_tokens=1, prompt_tokens=9))


def job(name: str = "r", prompt: str | None = "Tell me of my divorce", most: int = 4) -> Job:
    return Job(Request(name, "a", Tier.BATCH, "", 0.0, 6, 5, most, prompt), "", 0, 0)


def served(
    stream: Stream, *jobs: tuple[Job, int | None], abort: Job | None = None, **options: Any
) -> tuple[list[Outcome], Streaming]:
    """What became of ``jobs``, each with the length that is forced."""
    outcomes: list[Outcome] = []
    client = Streaming(stream)

    async def all_of_them() -> None:
        live = HttpEngine("http://localhost:8000/v1", **options)
        live.settings, live._client, live._served = settings(), client, "small"  # type: ignore[assignment]
        live.on_outcome = outcomes.append
        for own, length in jobs:
            live.submit(own, length)
        await asyncio.sleep(0.01)
        if abort is not None:
            live.abort(abort)
        while len(outcomes) < len(jobs):
            await asyncio.sleep(0.005)

    asyncio.run(asyncio.wait_for(all_of_them(), 60))
    return outcomes, client


def test_a_request_asks_for_its_limit_or_its_forced_length_its_usage_and_its_temperature() -> None:
    outcomes, client = served(plain, (job("a"), None), (job("b"), 3), (job("c", None), None), temperature=0.25)
    assert [outcome.finish_reason for outcome in outcomes] == ["stop"] * 3
    [(one, first), (other, second), (third, synthetic)] = client.asked
    assert (one, other, third) == ("chat", "chat", "plain")
    assert (first["max_tokens"], first["extra_body"]) == (4, None)
    assert (second["max_tokens"], second["extra_body"]) == (3, {"ignore_eos": True})
    assert first["messages"] == [{"role": "user", "content": "Tell me of my divorce"}]
    assert len(synthetic["prompt"]) == 6
    for how in (first, second, synthetic):
        assert (how["temperature"], how["stream"], how["stream_options"]) == (0.25, True, {"include_usage": True})
        assert how["model"] == "small"


def test_an_answer_without_an_end_is_an_error_by_its_chunks_and_by_its_time() -> None:
    async def endless() -> AsyncIterator[Any]:
        for _ in range(5000):
            yield event("word ")

    [outcome], _ = served(endless, (job(), None))
    assert outcome.error == "the stream does not end: 117 chunks for 4 tokens"  # 4 x 4 + 100, and one more

    async def silent() -> AsyncIterator[Any]:
        yield event("word ")
        await asyncio.sleep(30)

    begin = time.monotonic()
    [late], _ = served(silent, (job(), None), timeout_s=0.05)
    assert late.error == "no end of the answer after 0.05 s"
    assert time.monotonic() - begin < 20


def test_an_abort_ends_the_one_it_names() -> None:
    async def slow() -> AsyncIterator[Any]:
        yield event("well")
        await asyncio.sleep(0.1)
        yield event("", "stop")
        yield SimpleNamespace(choices=[], usage=SimpleNamespace(completion_tokens=1, prompt_tokens=9))

    first, second = job("first"), job("second")
    outcomes, _ = served(slow, (first, None), (second, None), abort=second)
    assert {outcome.job.request.id: outcome.finish_reason for outcome in outcomes} == {
        "first": "stop",
        "second": "abort",
    }


def test_neither_key_nor_prompt_nor_answer_is_in_what_went_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(http.KEY, KEY)

    def fails(text: str) -> Stream:
        async def stream() -> AsyncIterator[Any]:
            yield event("your lawyer said")
            raise RuntimeError(text)

        return stream

    for text in (f"refused {KEY}", "cannot: Tell me of my divorce", "after 'your lawyer said'"):
        [outcome], _ = served(fails(text), (job(), None))
        assert outcome.finish_reason == "error"
        for secret in (KEY, "divorce", "lawyer"):
            assert secret not in str(outcome.error)
    [plain_words], _ = served(fails("no such route"), (job(), None))
    assert plain_words.error == "RuntimeError: no such route"


@pytest.mark.parametrize(
    ("size", "packed", "problem"),
    [(900, "identity", ""), (1100, "identity", "does not end"), (9, "gzip", "compressed")],
)
def test_an_answer_is_read_to_its_limit_and_as_it_was_sent(size: int, packed: str, problem: str) -> None:
    async def raw(chunk: int | None = None) -> AsyncIterator[bytes]:
        for _ in range(size // 100 or 1):
            yield b"x" * min(size, 100)

    async def reading() -> int:
        http._most.set(1000)
        response = SimpleNamespace(headers={"content-encoding": packed}, aiter_raw=raw)
        await http._bound(response)
        return sum([len(part) async for part in response.aiter_raw()])

    if problem:
        with pytest.raises(InputError, match=problem):
            asyncio.run(reading())
    else:
        assert asyncio.run(reading()) == size
