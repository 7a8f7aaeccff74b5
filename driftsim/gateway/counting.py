"""How long a prompt is: as a tokenizer counts it, else as the server does, else by its words."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp

from driftsim.gateway.asked import Asked
from driftsim.live import told as server

TOKENS_A_WORD = 1.4  # as live/http.py takes it, where nobody can count
MOST_AROUND = 10_000  # tokens of a chat template; a character is at most four
ASK_S = 5.0  # longest wait for the server's count
SLOW_S, FEW = 0.25, 20  # a server that takes so long on average, over so many, is asked no more
KEYS = ("model", "messages", "prompt", "tools", "chat_template", "add_generation_prompt", "chat_template_kwargs")


class Counting:
    """Counts prompts. ``tokenizer``: folder of a model; ``ask``: URL of the server's /tokenize, "" where none is."""

    def __init__(self, tokenizer: str | None, ask: str = "") -> None:
        self._count: Callable[[str], int] | None = None
        if tokenizer:
            from driftsim.scheduling.accounting import token_counter

            self._count = token_counter(Path(tokenizer), chat=True)
        self._ask = ask
        self._asked, self._took = 0, 0.0

    async def tokens(self, said: Asked, session: aiohttp.ClientSession, headers: dict[str, str]) -> int:
        """Prompt tokens of ``said``, at least 1; those that came as ids are counted as they are."""
        if said.ids:
            return said.ids
        if self._count is not None:
            return max(1, self._count(said.text))
        if self._ask and (count := await self._served(said, session, headers)):
            return count
        return max(1, round(TOKENS_A_WORD * said.words))

    async def _served(self, said: Asked, session: aiohttp.ClientSession, headers: dict[str, str]) -> int:
        """The server's count; 0, and it is asked no more, where it has none or is too slow."""
        body = {name: said.fields[name] for name in KEYS if name in said.fields}
        begun, told, status = time.monotonic(), None, 0
        with suppress(aiohttp.ClientError, TimeoutError, OSError, ValueError):
            async with asyncio.timeout(ASK_S), session.post(
                self._ask, data=json.dumps(body), headers=headers | {"Content-Type": "application/json"},
                allow_redirects=False,
            ) as answer:  # fmt: skip
                status = answer.status
                told = await answer.json(content_type=None) if status == 200 else None
        self._asked, self._took = self._asked + 1, self._took + time.monotonic() - begun
        count: Any = told.get("count") if isinstance(told, dict) else None
        found = server.counted(count, 4 * len(said.text) + MOST_AROUND)
        has_none = status in (404, 405) or (status == 200 and not found)
        if has_none or (self._asked >= FEW and self._took > SLOW_S * self._asked):
            self._ask = ""
        return found
