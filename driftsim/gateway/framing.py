"""An answer of a server as HTTP/1.1 frames it: the head, and where the body ends (RFC 9112), strictly read.

An answer that can be read in two ways is refused, and its connection is closed: what follows may be another tenant's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import repeat
from typing import Protocol

from multidict import CIMultiDict, CIMultiDictProxy

MOST_HEAD = 1 << 17  # bytes of a head, and of the trailers of a body
LONGEST_LINE = 1024  # bytes of the line that tells the size of a chunk
LONGEST_SIZE = 12  # bytes of the size of a chunk that is likely
HEX = b"0123456789abcdefABCDEF"
_STATUS = re.compile(rb"HTTP/1\.([01]) ([1-9]\d\d)(?: ([^\r\n\0]*))?")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\r\n\0]*)")
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n]*)?\r\n")


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
        return None if told is None or "Transfer-Encoding" in self.headers else int(told)


class Body(Protocol):
    """A body as it comes in. ``beyond``: what came after its end."""

    is_over: bool
    beyond: bytes

    def feed(self, data: bytes) -> bytes:
        """What ``data``, just received, holds of the content. Raises ``FramingError``."""
        ...

    def end(self) -> None:
        """The server closed the connection. Raises ``FramingError`` where the body is not whole."""
        ...


def head(data: bytes) -> Head:
    """The head that ``data`` is, without the empty line at its end. Raises ``FramingError``.

    >>> found = head(b"HTTP/1.1 200 OK\\r\\nContent-Type: text/event-stream; charset=utf-8")
    >>> found.status, found.content_type, found.keeps
    (200, 'text/event-stream', True)
    """
    first, *lines = data.split(b"\r\n")
    status = _STATUS.fullmatch(first)
    if status is None:
        raise FramingError("the answer does not begin as one of HTTP/1.1")
    headers = CIMultiDict[str]()
    for line in lines:
        named = _FIELD.fullmatch(line)
        if named is None:
            raise FramingError("a line of the head is no header")
        headers.add(named[1].decode(), named[2].rstrip(b" \t").decode("utf-8", "surrogateescape"))
    closes = "close" in (option.strip().lower() for option in ",".join(headers.getall("Connection", ())).split(","))
    reason = (status[3] or b"").decode("utf-8", "replace")
    return Head(int(status[2]), reason, CIMultiDictProxy(headers), status[1] == b"1" and not closes)


def body(head: Head, method: str) -> Body:
    """The body that follows ``head``, the answer to a request of that ``method``. Raises ``FramingError``."""
    if method == "HEAD" or head.status in (204, 304):
        return Sized(0)
    codings = [coding.strip().lower() for coding in head.headers.getall("Transfer-Encoding", ())]
    lengths = set(head.headers.getall("Content-Length", ()))
    if codings:
        if codings != ["chunked"] or lengths:
            raise FramingError("the body is framed in a way that nobody asked for, or in two")
        return Chunked()
    if not lengths:
        return Unbounded()
    told = lengths.pop()
    if lengths or not (told.isascii() and told.isdigit() and len(told) < 16):
        raise FramingError("the length of the body is no number, or two")
    return Sized(int(told))


class Sized:
    """A body of so many bytes."""

    def __init__(self, size: int) -> None:
        self._left = size
        self.is_over = not size
        self.beyond = b""

    def feed(self, data: bytes) -> bytes:
        """See ``Body``."""
        if len(data) > self._left:
            data, self.beyond = data[: self._left], data[self._left :]
        self._left -= len(data)
        self.is_over = not self._left
        return data

    def end(self) -> None:
        """See ``Body``."""
        if not self.is_over:
            raise FramingError(f"the body broke off {self._left} bytes before its end")


class Unbounded:
    """A body that ends where the connection does."""

    def __init__(self) -> None:
        self.is_over = False
        self.beyond = b""

    def feed(self, data: bytes) -> bytes:
        """See ``Body``."""
        return data

    def end(self) -> None:
        """See ``Body``."""
        self.is_over = True


class Chunked:
    """A body in chunks, each of which tells its size; the last has none."""

    def __init__(self) -> None:
        self.is_over = False
        self.beyond = b""
        self._left = 0  # bytes of a chunk that is not whole yet, with the end of line behind it
        self._held = b""  # of a line that is not whole yet
        self._trails = False  # whether what comes are trailers

    def feed(self, data: bytes) -> bytes:
        """See ``Body``."""
        if not (self._left or self._held or self._trails):
            whole = _alone(data) or self._whole(data)
            if whole is not None:
                return whole
        return self._in_parts(data)

    def end(self) -> None:
        """See ``Body``."""
        if not self.is_over:
            raise FramingError("the body broke off before its last chunk")

    def _whole(self, data: bytes) -> bytes | None:
        """The content of ``data``, if that is whole chunks without an end of line in them, as nearly always."""
        parts = data.split(b"\r\n")
        if parts.pop() or len(parts) % 2:
            return None
        told, contents = parts[::2], parts[1::2]
        if b"".join(told).translate(None, HEX) or b"" in told:
            return None
        sizes = list(map(int, told, repeat(16)))
        if sizes != list(map(len, contents)):
            return None
        if 0 in sizes:
            if sizes.index(0) + 1 < len(sizes):
                return None
            self.is_over = True
        return b"".join(contents)

    def _in_parts(self, data: bytes) -> bytes:
        """The content of ``data``, however it is cut."""
        data, self._held = self._held + data, b""
        contents, place = list[bytes](), 0
        while place < len(data) and not self.is_over:
            if self._left:
                part = data[place : place + self._left]
                place += len(part)
                self._left -= len(part)
                contents.append(self._content(part))
            elif self._trails:
                place = self._trailers(data, place)
            else:
                place = self._size(data, place)
        if self.is_over:
            self.beyond = data[place:]
        return b"".join(contents)

    def _content(self, part: bytes) -> bytes:
        """``part`` of a chunk without the end of line behind the chunk."""
        ends = b"\r\n"[max(0, 2 - self._left - len(part)) : 2 - self._left] if self._left < 2 else b""
        if not part.endswith(ends):
            raise FramingError("a chunk is longer than it says")
        return part[: len(part) - len(ends)]

    def _size(self, data: bytes, place: int) -> int:
        """Read the line at ``place`` that tells the size of a chunk; where it ends, or the end of ``data``."""
        line = _SIZE.match(data, place)
        if line is None:
            self._held = data[place:]
            if b"\n" in self._held or len(self._held) > LONGEST_LINE:
                raise FramingError("the size of a chunk is no number, or its line has no end")
            return len(data)
        size = int(line[1], 16)
        self._left, self._trails = size + 2 if size else 0, not size
        return line.end()

    def _trailers(self, data: bytes, place: int) -> int:
        """Leave trailers out; where they end, or the end of ``data``."""
        if data.startswith(b"\r\n", place):
            self.is_over = True
            return place + 2
        end = data.find(b"\r\n\r\n", place)
        if end < 0:
            self._held = data[place:]
            if len(self._held) > MOST_HEAD:
                raise FramingError("the trailers of a body have no end")
            return len(data)
        self.is_over = True
        return end + 4


def _alone(data: bytes) -> bytes | None:
    """The content of ``data`` if that is one whole chunk that is not the last, as a token that comes alone is."""
    end = data.find(b"\r\n", 0, LONGEST_SIZE)
    if end < 1 or not data.endswith(b"\r\n") or data[:end].translate(None, HEX):
        return None
    return data[end + 2 : -2] if int(data[:end], 16) == len(data) - end - 4 else None
