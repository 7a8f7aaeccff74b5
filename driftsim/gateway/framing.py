"""An answer of a server as HTTP/1.1 frames it (RFC 9112): llhttp reads it, and a few checks are stricter than llhttp.

An answer that can be read in two ways is refused, and its connection is closed: what follows may be another tenant's.
Ends of lines around an answer, which llhttp passes over, are read as nothing in every way.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from httptools import HttpParserError, HttpResponseParser
from multidict import CIMultiDict, CIMultiDictProxy

MOST_HEAD = 1 << 17  # bytes without content: of a head with those before it, of trailers, of what describes a chunk
INTERIM = (100, 102, 103)  # llhttp reads a body after any other status below 200


class FramingError(Exception):
    """A server sent what is no HTTP/1.1."""


@dataclass(frozen=True, slots=True)
class Head:
    """The head of an answer. ``keeps``: whether the server leaves the connection open for another request."""

    status: int
    reason: str
    headers: CIMultiDictProxy[str] = field(repr=False)
    keeps: bool

    @property
    def content_type(self) -> str:
        """The type of the body without its parameters, in small letters; "" where none is told."""
        return self.headers.get("Content-Type", "").partition(";")[0].strip().lower()

    @property
    def content_length(self) -> int | None:
        """Bytes of the body, as far as the head tells."""
        told = self.headers.get("Content-Length")
        return None if told is None else int(told)


class Answer:
    """The answer to a request of that ``method``, as it comes in. ``beyond``: whether something came after its end.

    >>> answer = Answer("GET")
    >>> answer.feed(b"HTTP/1.1 200 OK\\r\\nContent-Type: text/Plain; a=b\\r\\nContent-Length: 5\\r\\n\\r\\nhel")
    b'hel'
    >>> answer.feed(b"lo"), answer.is_over, answer.head.status, answer.head.content_type
    (b'lo', True, 200, 'text/plain')
    """

    def __init__(self, method: str) -> None:
        self.head: Head | None = None
        self.is_over = self.beyond = False
        self._is_bodiless = method == "HEAD"
        self._ends_with_connection = False
        self._reason = b""
        self._headers = CIMultiDict[str]()
        self._codings: list[bytes] = []
        self._contents: list[bytes] = []
        self._without_content = 0  # bytes since the last content
        self.on_body = self._contents.append
        self._parser: HttpResponseParser | None = HttpResponseParser(self)

    def feed(self, data: bytes) -> bytes:
        """What ``data``, just received, holds of the content. Raises ``FramingError``."""
        assert self._parser is not None
        try:
            self._parser.feed_data(data)
        except HttpParserError as error:
            if not self.is_over:
                raise FramingError(str(error.__context__ or error)) from None
            self.beyond = True
        content = b"".join(self._contents)
        self._contents.clear()
        self._without_content = 0 if content else self._without_content + len(data)
        if self.is_over:
            self.close()
        elif self._without_content > MOST_HEAD:
            raise FramingError("the head, the trailers or the size of a chunk have no end")
        return content

    def end(self) -> None:
        """The server closed the connection. Raises ``FramingError`` where the answer is not whole."""
        self.is_over = self.is_over or self._ends_with_connection
        if not self.is_over:
            raise FramingError("the server broke the connection before the end of the answer")

    def close(self) -> None:
        """Nothing more is fed: parser and answer hold each other, a circle that nobody collects while streams run."""
        self._parser = None

    # -- what the parser calls
    def on_message_begin(self) -> None:
        """See ``httptools``."""
        if self.is_over:
            raise FramingError("the server sent more than one answer")

    def on_status(self, part: bytes) -> None:
        """See ``httptools``."""
        self._reason += part

    def on_header(self, name: bytes, value: bytes) -> None:
        """See ``httptools``."""
        if self.head is None:  # else it is a trailer
            self._headers.add(name.decode(), value.rstrip(b" \t").decode("utf-8", "surrogateescape"))
            if name.lower() == b"transfer-encoding":
                self._codings.append(value.lower())  # llhttp reads no chunks where a blank follows

    def on_headers_complete(self) -> None:
        """See ``httptools``."""
        assert self._parser is not None
        status, version = self._parser.get_status_code(), self._parser.get_http_version()
        if version not in ("1.0", "1.1") or b"\0" in self._reason:
            raise FramingError("the answer does not begin as one of HTTP/1.1")
        if status in INTERIM:
            self._reason, self._headers, self._codings = b"", CIMultiDict(), []
            return
        if status < 200:
            raise FramingError("the status is none, or changes to a protocol that nobody asked for")
        if self._codings not in ([], [b"chunked"]):
            raise FramingError("the body is framed in a way that nobody asked for")
        self._ends_with_connection = not self._codings and "Content-Length" not in self._headers
        keeps = version == "1.1" and self._parser.should_keep_alive()
        self.head = Head(status, self._reason.decode("utf-8", "replace"), CIMultiDictProxy(self._headers), keeps)
        if self._is_bodiless:  # which the parser cannot be told
            self.is_over = True
            raise FramingError("what follows is no body")

    def on_message_complete(self) -> None:
        """See ``httptools``."""
        self.is_over = self.head is not None
