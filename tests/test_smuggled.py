"""What a server says is not kept where it holds the key, a prompt or an answer, however that is written."""

from __future__ import annotations

import asyncio
import base64
import html
import json
from collections.abc import AsyncIterator, Callable
from urllib.parse import quote

import pytest

from driftsim.live.engine import Outcome
from driftsim.live.http import HttpEngine
from driftsim.live.masking import Heard, masked
from driftsim.live.pages import Page
from driftsim.request import Job, Request, Tier
from driftsim.trace.settings import EngineSettings

KEY = "sk-Zq7XkeyVT9wLp3Gh"
PROMPT = "Tell me how long the divorce will take"
WRITINGS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "capitals": str.upper,
    "url": lambda text: quote(text, safe=""),
    "url of a url": lambda text: quote(quote(text, safe=""), safe=""),
    "all of it as a url": lambda text: "".join(f"%{byte:02x}" for byte in text.encode()),
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "base64 for urls": lambda text: base64.urlsafe_b64encode(text.encode()).decode().rstrip("="),
    "base64 of more": lambda text: base64.b64encode(b"Bearer " + text.encode()).decode(),
    "base64 in lines": lambda text: "\n".join(
        base64.b64encode(text.encode()).decode()[place : place + 8] for place in range(0, 60, 8)
    ),
    "hexadecimal": lambda text: text.encode().hex(),
    "hexadecimal, apart": lambda text: text.encode().hex(":"),
    "hexadecimal of C": lambda text: " ".join(f"0x{byte:02X}" for byte in text.encode()),
    "numbers": lambda text: str(list(text.encode())),
    "escapes of JSON": lambda text: "".join(f"\\u{ord(sign):04x}" for sign in text),
    "escapes of C": lambda text: "".join(f"\\x{ord(sign):02x}" for sign in text),
    "octal": lambda text: "".join(f"\\{ord(sign):03o}" for sign in text),
    "JSON in JSON": lambda text: json.dumps(json.dumps("\n".join(text))),
    "entities": lambda text: "".join(f"&#{ord(sign)};" for sign in text),
    "a letter a line": "\n".join,
    "letters apart": " ".join,
    "signs between": "-".join,
    "signs without width": "\u200b".join,
    "accents": "\u0301".join,
    "full width": lambda text: "".join(chr(ord(sign) + 0xFEE0) if "!" <= sign <= "~" else sign for sign in text),
    "without blanks": lambda text: text.replace(" ", ""),
    "backwards": lambda text: text[::-1],
}


@pytest.mark.parametrize("written", WRITINGS.values(), ids=WRITINGS)
def test_what_is_secret_is_known_in_every_common_writing(written: Callable[[str], str]) -> None:
    heard = Heard()
    heard.add(PROMPT)
    said = f"bad request: {written(PROMPT)} "
    assert "left out" in masked(said, KEY, [PROMPT])
    assert "left out" in masked(said, KEY, ["another prompt"], heard)  # another request's
    kept = masked(f"wrong key: {written(KEY)} ", KEY)
    assert "left out" in kept or kept == "wrong key: ***"


@pytest.mark.parametrize("secret", ["Élise a été opérée", "Wir müssen über Größe reden", "离婚需要多长时间才能完成呢"])
@pytest.mark.parametrize("written", [str, lambda text: quote(text), html.escape, lambda text: json.dumps(text)])
def test_other_letters_are_known_too(secret: str, written: Callable[[str], str]) -> None:
    assert "left out" in masked(f"no: {written(secret)}", secrets=[secret])


@pytest.mark.parametrize(
    "said",
    [
        "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens.",
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        "0.11.1rc2.dev17+g1234abcd",
        "Server disconnected without sending a response, id cmpl-0123456789abcdef0123456789abcdef",
        "Rate limit reached: 60 of 60, retry in 12 s, 10 20 30",
        "tokenization failed: expected 3 of [101, 202, 303]",
    ],
)
def test_what_is_of_the_servers_own_is_kept(said: str) -> None:
    heard = Heard()
    for number in range(200):
        heard.add(f"question {number}: what may one of us say of the weather, the river and the old mill there?")
    assert masked(said, KEY, [PROMPT], heard) == said


@pytest.mark.parametrize("text", ["", "hi", "a short one", "an answer of middling length", PROMPT * 20])
def test_what_was_heard_is_known_by_a_part(text: str) -> None:
    heard, parts_heard = Heard(), Heard()
    heard.add(text)
    hear = parts_heard.hearing()
    for place in range(0, len(text), 5):  # as a stream tells it
        hear(text[place : place + 5])
    letters = text.replace(" ", "").lower()
    parts = [letters[place : place + 23] for place in range(max(1, len(letters) - 22))]
    for one in (heard, parts_heard):
        assert all(one.repeats(f"x{part}y") for part in parts) == (len(letters) >= 8)


class Told:
    """Pages that tell one thing."""

    def __init__(self, told: object) -> None:
        self.told = told

    def ask(self, url: str, body: object = None) -> Page:
        return Page(200, json.dumps(self.told))


def telling(told: object) -> HttpEngine:
    engine = HttpEngine("http://127.0.0.1:9/v1")
    engine._pages = Told(told)  # type: ignore[assignment]
    return engine


def test_a_prompt_is_heard_before_it_is_sent() -> None:
    engine = telling({"count": 9})
    assert engine.count_tokens(PROMPT) == 9
    assert "left out" in engine._masked(f"m-{quote(PROMPT)}")


@pytest.mark.parametrize("name", ["", "\ud800", "m" * 10_000])
def test_a_model_whose_name_cannot_be_sent_is_none(name: str) -> None:
    with pytest.raises(ValueError, match="serves no model"):
        telling({"data": [{"id": name}]})._chosen_model()


@pytest.mark.parametrize("count", [10_021 + 1, 999_999_999])
def test_a_count_that_no_prompt_of_its_length_has_is_estimated(count: int) -> None:
    engine = telling({"count": count})
    assert engine.count_tokens("five ") == 1
    assert "tokens a word" in engine.notes[0]
    assert telling({"count": 10_020}).count_tokens("five ") == 10_020


class Slow:
    """A client whose server tells the prompt ``slow`` the beginning of an answer, and repeats it to others as news."""

    def __init__(self) -> None:
        self.told = asyncio.Event()
        self.chat = self.completions = self

    async def create(self, messages: list[dict[str, str]], **_: object) -> Slow:
        if messages[0]["content"] != "slow":
            await self.told.wait()
            raise RuntimeError(f"no slot; last seen: {ANSWER[:40]}")
        return self

    async def __aenter__(self) -> Slow:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def __aiter__(self) -> AsyncIterator[object]:
        for part in ANSWER.split(" "):
            yield {"choices": [{"delta": {"content": f"{part} "}}]}
        self.told.set()
        await asyncio.Event().wait()


ANSWER = "The divorce will take about nine months in all, and the house stays with you"


def test_an_answer_that_is_still_received_is_known_in_what_others_are_told() -> None:
    async def served() -> list[Outcome]:
        engine = telling({})
        engine.settings = EngineSettings.guessed({}, "openai")
        engine._client = Slow()  # type: ignore[assignment]
        outcomes: list[Outcome] = []
        engine.on_outcome = outcomes.append
        for name in ("slow", "other"):
            request = Request(name, "a", Tier.BATCH, "", 0.0, 9, 9, 99, prompt=name)
            engine.submit(Job(request, "", 0, 0), None)
        async with asyncio.timeout(20):
            while not outcomes:
                await asyncio.sleep(0)
        for task in engine._tasks:
            task.cancel()
        return outcomes

    (outcome,) = asyncio.run(served())
    assert outcome.job.request.id == "other"
    assert outcome.error is not None
    assert "left out" in outcome.error
    assert "divorce" not in outcome.error
