"""A page that a server tells of itself is read from the host that was asked, to a limit of bytes and of time."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass
from typing import Any

import openai

ASK_S = 10.0  # longest wait for one whole page
MOST_TOLD = 10_000_000  # bytes of a page that are read


@dataclass(frozen=True, slots=True)
class Page:
    """What came back: the status (0 where no whole page came), the text, and what went wrong, if anything did."""

    status: int
    text: str
    problem: str = ""

    def json(self) -> Any:
        """The page as JSON; None where it is none, was refused or did not come."""
        try:
            return json.loads(self.text) if self.status == 200 else None
        except (ValueError, RecursionError):
            return None


class Pages:
    """Asks for pages, with the ``key``. A redirect is not followed: the key is for the host that it was given for."""

    def __init__(self, key: str, wait_s: float = ASK_S) -> None:
        self._headers = {"Authorization": f"Bearer {key}", "Accept-Encoding": "identity"}
        self._wait_s = wait_s
        self._client = openai.DefaultHttpxClient(timeout=wait_s, follow_redirects=False)

    def ask(self, url: str, body: dict[str, Any] | None = None) -> Page:
        """The page at ``url``; with a ``body``, the answer to it. Ends after ``wait_s`` whatever the server does.

        A thread of its own reads: a server that sends a byte now and then holds that thread, and nobody who waits.
        """
        pages: list[Page] = []
        end = time.monotonic() + self._wait_s
        reader = threading.Thread(target=lambda: pages.append(self._read(url, body, end)), daemon=True)
        reader.start()
        reader.join(self._wait_s)
        return pages[0] if pages else self._late()

    def _late(self) -> Page:
        return Page(0, "", f"no whole answer within {self._wait_s:g} s")

    def _read(self, url: str, body: dict[str, Any] | None, end: float) -> Page:
        content = b""
        try:
            with self._client.stream("GET" if body is None else "POST", url, json=body, headers=self._headers) as page:
                for part in page.iter_raw():
                    content += part
                    if len(content) > MOST_TOLD:
                        return Page(0, "", f"more than {MOST_TOLD // 1_000_000} MB")
                    if time.monotonic() > end:
                        return self._late()  # nobody waits any more
                return Page(page.status_code, content.decode(errors="replace"))
        except Exception as error:  # whatever the server or the way to it does is told, not raised
            return Page(0, "", f"{type(error).__name__}: {error}")

    def close(self) -> None:
        """Let go of the connections."""
        self._client.close()
