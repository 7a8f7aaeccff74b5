"""What can wait takes turns, few in each pass of the event loop: what comes in goes first, however much ends."""

from __future__ import annotations

import asyncio
from collections import deque


class Turns:
    """Lets at most so many go on in one pass, in the order in which they came."""

    def __init__(self, most: int) -> None:
        self._most = self._left = most
        self._waiting = deque[asyncio.Future[None]]()
        self._is_due = False

    async def take(self) -> None:
        """Go on, in this pass where there is a turn left, else in a later one."""
        loop = asyncio.get_running_loop()
        if not self._is_due:
            self._is_due = True
            loop.call_soon(self._next_pass)
        if self._left and not self._waiting:
            self._left -= 1
            return
        turn = loop.create_future()
        self._waiting.append(turn)
        await turn

    def _next_pass(self) -> None:
        self._left = self._most
        while self._waiting and self._left:
            turn = self._waiting.popleft()
            if not turn.done():  # else its owner is gone
                turn.set_result(None)
                self._left -= 1
        self._is_due = self._left < self._most
        if self._is_due:
            asyncio.get_running_loop().call_soon(self._next_pass)
