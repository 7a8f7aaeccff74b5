"""Servers that have begun an answer and fall silent: one look in a while, and no timer for each token."""

from __future__ import annotations

import asyncio

import aiohttp

LOOKS = 8  # in which a server says nothing until it counts as silent
BUSY = -(1 << 62)


class Heard:
    """One answer: ``looks`` since somebody began to wait for its next part; ``BUSY`` while nobody does."""

    __slots__ = ("content", "looks")

    def __init__(self, content: aiohttp.StreamReader) -> None:
        self.content = content
        self.looks = BUSY


class Silence:
    """Ends the wait for a part of an answer with ``TimeoutError`` after ``longest_s`` (s), or up to an eighth more."""

    def __init__(self, longest_s: float) -> None:
        self._every_s = longest_s / LOOKS
        self._heard: set[Heard] = set()

    def begin(self, received: aiohttp.ClientResponse) -> Heard:
        """Look after the body of what is ``received``, until ``end``."""
        connection = received.connection
        if connection is not None and connection.protocol is not None:
            connection.protocol.read_timeout = None  # aiohttp's own, a timer for each part
        heard = Heard(received.content)
        self._heard.add(heard)
        return heard

    def end(self, heard: Heard) -> None:
        """Look after it no more."""
        self._heard.discard(heard)

    async def watch(self) -> None:
        """Look at all answers from time to time, for ever."""
        while True:
            await asyncio.sleep(self._every_s)
            for heard in list(self._heard):
                heard.looks += 1
                if heard.looks > LOOKS:
                    heard.content.set_exception(TimeoutError("the server fell silent"))
