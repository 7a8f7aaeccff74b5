"""Any OpenAI-compatible server as an engine behind the dispatcher: streamed answers, times as this client sees them.

A request that goes wrong is a row that says how; nothing is sent twice, since a retry would falsify the times.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path
from typing import Any

import openai

from driftsim.errors import InputError
from driftsim.live import told as server
from driftsim.live.answer import Answer
from driftsim.live.begun import WARM_UP, Prompts
from driftsim.live.engine import Outcome, conversation
from driftsim.live.masking import Heard, masked
from driftsim.live.pages import ASK_S, Page, Pages
from driftsim.request import Job
from driftsim.scheduling.accounting import count_words
from driftsim.trace.settings import EngineSettings
from driftsim.urls import server_url
from driftsim.workloads.prompts import stand_in

KEY = "OPENAI_API_KEY"  # environment variable; never logged, never stored
NO_KEY = "none"  # what is sent where the environment has no key
CLOCKS = (
    "seconds since the run began, CLOCK_MONOTONIC of the client; arrival_s: due at the dispatcher; dispatch_s: request "
    "sent; first_token_s: first text, thinking or call received; finish_s: end of the answer received; scheduled_s, "
    "queued_s: first_token_s less the times that the server tells of itself (vLLM's --enable-per-request-metrics), so "
    "late by the way of the first token to the client; empty where it tells none"
)
CONNECT_S, CLOSE_S = 10.0, 1.0
UNLIMITED = type(openai.DEFAULT_CONNECTION_LIMITS)(max_connections=None)
TOKENS_A_WORD = 1.4  # where nobody can count: an English text through a common tokenizer
CHUNKS_A_TOKEN = 4  # a stream with more chunks per allowed token is taken to be endless
BYTES_A_TOKEN, MOST_BESIDE = 4_000, 1_000_000  # of an answer: more is taken to be endless
COUNTING_S, SLOW_COUNT_S = 60.0, 0.25  # a server that takes so long in all, and for a prompt, is asked no more
TURNED_AWAY = ("429", "503")  # statuses of a server that holds too much by now; vLLM's limits of its queue give 503
MOST_AROUND = 10_000  # tokens of a chat template; a character is at most four
WARM = "the server's cache may hold prompts of the runs before this one, which share prefixes with it"
_most: ContextVar[int] = ContextVar("bytes that the answer may have", default=MOST_BESIDE)


async def _bound(response: Any) -> None:
    """Let ``response`` be read no further than ``_most`` bytes: the client itself knows no limit."""
    most, whole = _most.get(), response.aiter_raw
    packed = response.headers.get("content-encoding", "identity")
    if packed != "identity":  # a few bytes may unpack to any number
        raise InputError("the answer is compressed, which was not asked for")

    async def bounded(size: int | None = None) -> AsyncIterator[bytes]:
        received = 0
        async for part in whole(size):
            received += len(part)
            if received > most:
                raise InputError(f"the answer does not end: more than {most} bytes")
            yield part

    response.aiter_raw = bounded


class HttpEngine:
    """A server at ``base_url`` as a ``LiveEngine``.

    ``model`` None takes the first that the server lists. ``tokenizer`` is a folder whose tokenizer counts prompts; else
    the server is asked, else words are. ``known`` are engine settings that the user knows of; a setting that neither
    they nor the server tell is assumed, and named in ``settings.assumed``. ``timeout_s`` bounds one whole answer.
    """

    clocks = CLOCKS

    def __init__(
        self,
        base_url: str,
        model: str | None = None,
        *,
        tokenizer: Path | None = None,
        temperature: float = 0.7,
        timeout_s: float = 600.0,
        known: dict[str, Any] | None = None,
    ) -> None:
        try:
            parts = server_url(base_url, KEY)
        except InputError as error:
            raise InputError(f"--base-url {error}") from None
        self._root = f"{parts.scheme}://{parts.netloc}"
        self._url = base_url.rstrip("/") if parts.path.strip("/") else f"{self._root}/v1"
        self._host, self._port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
        self.model = model or ""
        self.temperature = temperature
        self.timeout_s = timeout_s
        self.failure: str | None = None
        self.notes: tuple[str, ...] = ()
        self.own_processes: tuple[int, ...] = ()
        self.on_outcome: Callable[[Outcome], None] = lambda outcome: None
        self._known = known or {}
        self._encode = _encoder(tokenizer) if tokenizer else None
        self._asks = True
        self._asked, self._asking_s = 0, 0.0
        self._tasks: set[asyncio.Task[None]] = set()
        self._key = _key()
        self._heard = Heard()
        self._prompts = Prompts()
        self._ran = False
        self._served = model or ""  # the model's name as the server has it

    async def start(self) -> None:
        """Reach the server and learn what it tells of itself. Raises ``InputError`` where it does not answer."""
        self._client = openai.AsyncOpenAI(
            base_url=self._url,
            api_key=self._key,
            max_retries=0,
            timeout=openai.Timeout(self.timeout_s, connect=CONNECT_S),
            default_headers={"Accept-Encoding": "identity"},
            http_client=openai.DefaultAsyncHttpxClient(
                limits=UNLIMITED, follow_redirects=False, event_hooks={"response": [_bound]}
            ),
        )
        self._pages = Pages(self._key, min(ASK_S, self.timeout_s))
        settings: dict[str, Any] = {}
        chosen = self._chosen_model()
        self._served = chosen["id"]
        self.model = self._masked(self._served)
        if (length := server.counted(chosen.get("max_model_len"))) > 1:
            settings["max_model_len"] = length
        settings |= server.cache_settings(self._pages.ask(f"{self._root}/metrics"))
        told = self._pages.ask(f"{self._root}/version").json()
        if isinstance(told, dict) and isinstance(told.get("version"), str):
            settings["version"] = self._masked(told["version"])
        self.arguments = {"model": self.model, "temperature": self.temperature, "api": "openai, streaming"}
        if self._host in ("localhost", "127.0.0.1", "::1"):
            self.own_processes = server.listening(self._port)
        settings |= server.order_of(self.own_processes, self._known.get("scheduling_policy"))
        guessed = EngineSettings.guessed(settings | self._known, "openai")
        self.settings = server.as_usual(guessed, chosen.get("owned_by") == "vllm", self.own_processes)
        self._prompts.block = self.settings.block_size
        self.notes = server.of_assumed(self.settings)

    def _chosen_model(self) -> dict[str, Any]:
        """What the server tells of the model that was asked for, or of its first. Raises ``InputError``."""
        page = self._pages.ask(f"{self._url}/models")
        told = page.json()
        listed = told.get("data") if isinstance(told, dict) else None
        if not isinstance(listed, list):
            raise InputError(
                f"{self._url}: no OpenAI-compatible server answers there ({self._refusal(page)}); start one or correct "
                "--base-url"
            )
        known = [entry for entry in listed if isinstance(entry, dict) and server.is_name(entry.get("id"))]
        chosen = next((entry for entry in known if entry["id"] == self.model or not self.model), None)
        if chosen is None:
            names = self._masked(", ".join(entry["id"][:80] for entry in known[:5])) or "none"
            raise InputError(f"{self._url}: serves no model {self.model or ''!r}; it lists {names}")
        return chosen

    async def warm_up(self) -> None:
        """A few short answers at once, so that connections and code paths are warm."""
        # By now the prompts are known, which a server may have heard in an earlier session and tell as its own name.
        self.model, version = self._masked(self._served), self._masked(self.settings.version)
        self.settings, self.arguments["model"] = self.settings.changed(version=version), self.model

        async def one(prompt: str) -> None:
            with suppress(openai.OpenAIError, TimeoutError):
                async with asyncio.timeout(min(60.0, self.timeout_s)):
                    answer = await self._client.chat.completions.create(
                        model=self._served, messages=[{"role": "user", "content": prompt}], max_tokens=8
                    )
                usage = getattr(answer, "usage", None)  # a server may send anything
                self._prompts.warmed(server.counted(getattr(usage, "prompt_tokens", None), MOST_AROUND))

        await asyncio.gather(*map(one, WARM_UP))

    async def forget(self) -> bool | None:
        """A server keeps what it has: of earlier runs that is known, of others it does not tell."""
        again, self._ran = self._ran and self.settings.enable_prefix_caching, True
        self.notes += (WARM,) if again and WARM not in self.notes else ()
        return False if again else None

    def count_tokens(self, prompt: str) -> int:
        """Tokens of ``prompt`` with the chat template around it; estimated from words where nobody can count."""
        self._heard.add(prompt)
        if self._encode is not None:
            ids = self._encode(prompt)
            self._note(prompt, ids)
            return len(ids)
        if self._asks and (count := self._served_count(prompt)) is not None:
            return count
        self._note(prompt, None)
        return max(1, round(TOKENS_A_WORD * count_words(prompt)))

    def _served_count(self, prompt: str) -> int | None:
        """The server's own count; None, and it is asked no more, where it tells none or takes too long over all."""
        body = {"model": self._served, "messages": [{"role": "user", "content": prompt}]}
        begin = time.monotonic()
        told = self._pages.ask(f"{self._root}/tokenize", body).json()
        self._asked, self._asking_s = self._asked + 1, self._asking_s + time.monotonic() - begin
        slow = self._asking_s > max(COUNTING_S, SLOW_COUNT_S * self._asked)
        count = server.counted(told.get("count") if isinstance(told, dict) else None, 4 * len(prompt) + MOST_AROUND)
        if slow or not count:
            self._asks = False
            why = f"takes {self._asking_s / self._asked:.1f} s to count one" if slow else "has no /tokenize"
            left = f"all but the first {self._asked - (not count)} " if self._asked > 1 else ""
            self.notes += (
                f"{left}prompts were counted at admission as {TOKENS_A_WORD} tokens a word: the server {why}; "
                "name a --tokenizer",
            )
        if count:
            self._note(prompt, server.token_ids(told, count))
        return count or None

    def _note(self, prompt: str, ids: list[int] | None) -> None:
        """Know ``prompt`` again, by its token ``ids`` where they are told."""
        self._prompts.note(prompt, ids)
        self._heard.add(" ".join(map(str, ids or ())))

    def room(self) -> int:
        """A server queues whatever it is given."""
        return 1_000_000

    def submit(self, job: Job, true_length: int | None) -> None:
        """Send ``job``; ``true_length``, if given, is forced (``ignore_eos``, an extension of vLLM)."""
        hear = self._heard.hearing()  # from the first word on: other answers may repeat it
        self._go(self._serve(Answer(job, time.monotonic(), self.settings.max_model_len, hear), true_length))

    def abort(self, job: Job) -> None:
        """Drop the connection; the outcome follows."""
        for task in self._tasks:
            if task.get_name() == job.request.id:
                task.cancel("abort")

    def trace_steps(self, file: Path) -> bool:
        """A server does not tell its steps."""
        return False

    async def shutdown(self) -> None:
        """Drop what is under way and close the connections."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._pages.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await self._client.close()

    def _go(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, answer: Answer, true_length: int | None) -> None:
        if (task := asyncio.current_task()) is not None:
            task.set_name(answer.job.request.id)
        try:
            async with asyncio.timeout(self.timeout_s):
                await self._receive(answer, true_length)
            answer.reason = None if answer.reason is None else self._masked(str(answer.reason), answer)
            outcome = answer.outcome()
        except asyncio.CancelledError as stop:
            if stop.args != ("abort",):
                raise
            outcome = answer.outcome("abort")
        except TimeoutError:
            outcome = answer.failed(f"no end of the answer after {self.timeout_s:g} s")
        except Exception as error:  # whatever the server does belongs to this request's row
            refused = str(getattr(error, "status_code", getattr(error, "code", ""))) in TURNED_AWAY
            outcome = answer.failed(self._said(error, answer), "rejected" if refused and not answer.chunks else "error")
            outcome = replace(outcome, final=server.is_final(error), retry_after_s=server.retry_after(error))
        if outcome.cached_tokens and "enable_prefix_caching" in self.settings.assumed:
            told = (name for name in self.settings.assumed if name != "enable_prefix_caching")
            stale = server.of_assumed(self.settings)
            self.settings = self.settings.changed(enable_prefix_caching=True, assumed=tuple(told))
            self.notes = (*server.of_assumed(self.settings), *(note for note in self.notes if note not in stale))
        beginning = self._prompts.beginning(outcome.job.request, outcome.prompt_tokens, outcome.answer)
        self.on_outcome(replace(outcome, beginning=beginning))

    async def _receive(self, answer: Answer, true_length: int | None) -> None:
        request = answer.job.request
        shared: dict[str, Any] = {
            "model": self._served,
            "max_tokens": true_length or request.max_tokens,
            "temperature": self.temperature,
            "stream": True,
            "stream_options": {"include_usage": True},
            "extra_body": server.extensions(answer.job, true_length, self.settings),
        }
        _most.set(BYTES_A_TOKEN * shared["max_tokens"] + MOST_BESIDE)
        if request.prompt is None:
            ids = stand_in(request, 30_000)
            self._prompts.note_ids(request.id, ids)
            stream: Any = await self._client.completions.create(prompt=ids, **shared)
        else:
            messages: Any = conversation(request)
            stream = await self._client.chat.completions.create(messages=messages, **shared)
        async with stream:
            async for chunk in stream:
                answer.take(chunk, time.monotonic())
                if answer.chunks > CHUNKS_A_TOKEN * shared["max_tokens"] + 100:
                    raise InputError(
                        f"the stream does not end: {answer.chunks} chunks for {shared['max_tokens']} tokens"
                    )

    def _said(self, error: Exception, answer: Answer | None = None) -> str:
        """What went wrong, on one line, without the key, the prompt and the answer."""
        if isinstance(error, InputError):
            return str(error)  # our own words
        if isinstance(error, openai.APIStatusError):
            return f"HTTP {error.status_code}: {self._masked(error.message, answer)}"
        cause = error.__cause__
        text = f"{error}" + (f" ({type(cause).__name__}: {cause})" if cause else "")
        return f"{type(error).__name__}: {self._masked(text, answer)}"

    def _masked(self, text: str, answer: Answer | None = None) -> str:
        key = "" if self._key == NO_KEY else self._key
        if answer is None:
            return masked(text, key, heard=self._heard)
        request = answer.job.request
        return masked(text, key, _texts(answer), self._heard, self._prompts.ids(request))

    def _refusal(self, page: Page) -> str:
        return self._masked(page.problem) if page.problem else f"HTTP {page.status}: {self._masked(page.text)}"


def _texts(answer: Answer) -> list[str]:
    """What was said to get ``answer``, and what has come of it."""
    request = answer.job.request
    return [*request.history, request.prompt or "", "".join(answer.texts)]


def _key() -> str:
    """The key of the environment, without blanks around it. Raises ``InputError`` for what no header can carry."""
    key = os.environ.get(KEY, "").strip()
    if not all("!" <= sign <= "~" for sign in key):
        raise InputError(f"{KEY} holds a blank or a character that no key has; give the key alone")
    return key or NO_KEY


def _encoder(folder: Path) -> Callable[[str], list[int]]:
    from driftsim.scheduling.accounting import encoder

    return encoder(folder, chat=True)
